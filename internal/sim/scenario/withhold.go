package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Withhold commits, then keeps back the reveal or the result. With Lie it
// commits to a wrong outcome and hopes that silence saves its stake.
type Withhold struct {
	plain
	Reveal, Serve, Lie bool // what it withholds; whether it lies
}

// Bend implements Adversary.
func (h Withhold) Bend(_ *World, _ *Node, _ crowd.JobID, _ job.Role, e job.Effect) []job.Effect {
	if e, ok := e.(job.Send); ok {
		if _, ok := e.Message.(*ledger.Reveal); ok && h.Reveal {
			return nil
		}
	}
	return []job.Effect{e}
}

// Serves implements Adversary.
func (h Withhold) Serves(*World, *Node, crowd.CID, *Node) bool { return !h.Serve }

// Result implements Adversary.
func (h Withhold) Result(_ *World, n *Node, id crowd.JobID, honest crowd.Outcome) crowd.Outcome {
	if h.Lie {
		return wrong(n, id, honest, n.ID.Short())
	}
	return honest
}

// Leaves implements Adversary.
func (h Withhold) Leaves(w *World, n *Node, id crowd.JobID, only []uint32, honest []batch.Leaf) []batch.Leaf {
	if h.Lie {
		return Cheat{Rate: 0.5}.Leaves(w, n, id, only, honest)
	}
	return honest
}
