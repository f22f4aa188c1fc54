package scenario

import (
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// cancelGrinder is an owner that looks who is drawn and cancels, as early as the ledger lets it, unless its own nodes have all
// places; those then make the result up. It sees the claims as they come. It hopes for a forged receipt at the price of a few
// fees, and burns those of honest claimers on the way.
var cancelGrinder = Attack{
	Name: "cancel-grinder", What: "an owner cancels its jobs until its own nodes hold all places, and these make the result up",
	begin: func(r *Raid, author *Node) {
		r.lies = append(r.lies, func(_ *Node, j *ledger.Job) bool { return j.Owner == author.ID && r.seats(j) })
		executors, verifiers := ledger.Seats(&r.plan)
		r.lane(author, r.each, r.usual, func(j *ledger.Job) {
			r.aimAt(j)
			id := j.ID
			switch j.State {
			case ledger.Claiming: // shortly before the places are given out
				r.w.After(time.Duration(r.w.Config.Params.ClaimWindow)*time.Millisecond-500*time.Millisecond, func() {
					j, ok := r.w.state.Job(id)
					if !ok || j.State != ledger.Claiming {
						return
					}
					for i := range executors + verifiers {
						if i >= len(j.Drawn) || !r.ours[j.Drawn[i].Node] {
							author.Cancel(id)
							return
						}
					}
				})
			case ledger.Running:
				if !r.seats(j) && !j.Bound() {
					author.Cancel(id)
				}
			}
		})
	},
}

// readCanceller is an owner whose program prints its result long before it ends. It reads that live and cancels at once. It
// hopes to pay less than the work.
var readCanceller = Attack{
	Name: "read-canceller", What: "an owner reads live what its program prints, and cancels",
	begin: func(r *Raid, author *Node) {
		r.aloof[author.ID] = true
		r.lane(author, r.each, func() crowd.JobSpec { return r.spec("early", 20*raidGas) }, func(j *ledger.Job) {
			if r.read[j.ID] > 0 && j.State == ledger.Running {
				author.Cancel(j.ID)
			}
		})
	},
}
