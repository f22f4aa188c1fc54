package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Miser is a consumer that wants work for nothing: it never serves the inputs,
// never accepts, or complains about what it could fetch. It sees what consumers see.
type Miser struct {
	plain
	NoInputs, NoAccept, Complain bool
}

// Bend implements Adversary.
func (m Miser) Bend(_ *World, _ *Node, id crowd.JobID, r job.Role, e job.Effect) []job.Effect {
	if send, ok := e.(job.Send); ok && r == job.AsConsumer {
		if _, ok := send.Message.(*ledger.Accept); ok && m.Complain {
			return []job.Effect{job.Send{Message: &ledger.Complain{Job: id}}}
		} else if ok && m.NoAccept {
			return nil
		}
	}
	return []job.Effect{e}
}

// Serves implements Adversary.
func (m Miser) Serves(*World, *Node, crowd.CID, *Node) bool { return !m.NoInputs }

// Fickle cancels its job when it sees it in State, too early, too late or not. As a User it tells its node once, which
// sends the cancel when the chain takes it.
type Fickle struct {
	plain
	State ledger.JobState
	User  bool
}

// Saw implements Adversary.
func (f Fickle) Saw(w *World, n *Node, c job.Chain) {
	switch {
	case c.Job.Owner != n.ID || c.Job.State != f.State:
	case f.User:
		w.After(0, func() { n.Cancel(c.Job.ID) })
	default:
		n.Send(&ledger.Cancel{Job: c.Job.ID}, nil)
	}
}
