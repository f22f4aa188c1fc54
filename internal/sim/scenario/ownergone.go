package scenario

import (
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// ownerGone is a set of providers that wait for owners who post a job and go away. They fetch the inputs, make the result up
// once the owner is gone, and serve the inputs to nobody. They hope that nobody can run the task again, be it an auditor or the court, and to be paid.
var ownerGone = Attack{
	Name: "owner-gone", What: "the owner leaves after the dispatch; providers make the result up and hide the inputs",
	begin: func(r *Raid, _ *Node) {
		r.lies = append(r.lies, func(_ *Node, j *ledger.Job) bool { return !r.ours[j.Owner] && j.Spec.Task.Program == "program-left" })
		for i, o := range r.strangers {
			n := r.each/len(r.strangers) + min(1, max(0, r.each%len(r.strangers)-i))
			r.lane(o, n, func() crowd.JobSpec {
				s := r.spec("program-left", raidGas)
				for _, c := range []crowd.CID{s.Task.Inputs, s.Task.Stdin} {
					r.hidden[c] = true
				}
				return s
			}, func(j *ledger.Job) {
				r.aimAt(j)
				id := j.ID
				switch {
				case j.State == ledger.Running && o.alive: // who was seated first has the inputs
					r.w.After(leavesAfter, func() {
						if j, ok := r.w.state.Job(id); ok && !j.State.Ended() && o.alive {
							o.Off()
						}
					})
				case j.State.Ended() && !o.alive:
					o.On()
				}
			})
		}
	},
}

// leavesAfter is how long after the dispatch an owner goes: those who have a place by then have the inputs.
const leavesAfter = 3 * time.Second
