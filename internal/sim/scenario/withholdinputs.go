package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// withholdInputs is an owner that gives its inputs to its own providers only. Honest nodes that were drawn can do nothing and
// give their places up, until nodes of the attacker's have all of them and agree on a made-up result. It sees what is on
// chain, and hopes for a receipt that says that strangers computed it.
var withholdInputs = Attack{
	Name: "withhold-inputs", What: "an owner serves its inputs only to its own nodes, which make the result up",
	begin: func(r *Raid, author *Node) {
		r.lies = append(r.lies, func(_ *Node, j *ledger.Job) bool { return j.Owner == author.ID })
		r.lane(author, r.each, func() crowd.JobSpec {
			s := r.usual()
			r.hide(&s)
			return s
		}, r.aimAt)
	},
}

// hide keeps what a job reads from everybody else.
func (r *Raid) hide(s *crowd.JobSpec) {
	s.Task.Program += crowd.CID("-of-" + s.Task.Inputs)
	for _, c := range []crowd.CID{s.Task.Program, s.Task.Inputs, s.Task.Stdin} {
		r.hidden[c] = true
	}
}

// aimAt counts j among the jobs in which a wrong result is wanted.
func (r *Raid) aimAt(j *ledger.Job) { r.targets[j.ID] = true }
