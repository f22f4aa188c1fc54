package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Bribed is a consumer that accepts whatever it gets the moment it can, and
// neither complains nor reports. It sees what consumers see, which is all that
// it could tell its executor: the verifiers' samples are not among that before they open.
type Bribed struct {
	plain
	said map[crowd.JobID]bool
}

// Bend implements Adversary.
func (b *Bribed) Bend(_ *World, _ *Node, _ crowd.JobID, r job.Role, e job.Effect) []job.Effect {
	if send, ok := e.(job.Send); ok && r == job.AsConsumer {
		switch send.Message.(type) {
		case *ledger.Accept, *ledger.Complain, *ledger.Report:
			return nil
		}
	}
	return []job.Effect{e}
}

// Saw implements Adversary.
func (b *Bribed) Saw(_ *World, n *Node, c job.Chain) {
	if b.said == nil {
		b.said = map[crowd.JobID]bool{}
	}
	if id := c.Job.ID; c.Job.Owner == n.ID && c.Job.State == ledger.Delivering && !b.said[id] {
		b.said[id] = true
		n.Send(&ledger.Accept{Job: id}, nil)
	}
}
