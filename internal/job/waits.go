package job

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Waits are those on whom j waits now: each of all must be there, and one of any; nil: nobody. What a deadline
// would do in their place takes until then.
func Waits(j *ledger.Job) (all, any []crowd.NodeID) {
	for i := range j.Places {
		p := &j.Places[i]
		switch j.State {
		case ledger.Running:
			if p.State == ledger.Working || p.State == ledger.Committed && !p.Verifier {
				all = append(all, p.Node)
			}
		case ledger.Revealing, ledger.Unsealing:
			if !p.Verifier && p.State != ledger.Dropped {
				all = append(all, p.Node)
			}
		case ledger.Delivering, ledger.Inspecting:
			if p.State == ledger.Revealed && (!p.Verifier || j.Spec.Shuffle.Parts > 0) {
				any = append(any, p.Node)
			}
		}
	}
	return all, any
}

// Stalled reports whether nobody can bring j on before a deadline, as answers says who is there.
func Stalled(j *ledger.Job, answers func(crowd.NodeID) bool) bool {
	all, any := Waits(j)
	for _, n := range all {
		if !answers(n) {
			return true
		}
	}
	for _, n := range any {
		if answers(n) {
			return false
		}
	}
	return len(any) > 0
}
