package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Mute leaves out messages of its executor, and does all else honestly: without
// its Claim it wins and does not come; without Commit and GiveUp it holds its
// place to the deadline.
type Mute struct {
	plain
	Claim, Commit bool
}

// Bend implements Adversary.
func (s Mute) Bend(_ *World, _ *Node, _ crowd.JobID, _ job.Role, e job.Effect) []job.Effect {
	if e, ok := e.(job.Send); ok {
		switch e.Message.(type) {
		case *ledger.Claim:
			if s.Claim {
				return nil
			}
		case *ledger.Commit, *ledger.GiveUp:
			if s.Commit {
				return nil
			}
		}
	}
	return []job.Effect{e}
}
