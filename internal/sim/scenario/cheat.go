package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
)

// Cheat works alone: as the executor of a batch it runs all items but a share
// Rate of them, which it makes up; at least one. As a verifier it is honest.
type Cheat struct {
	plain
	Rate float64
}

// Leaves implements Adversary.
func (c Cheat) Leaves(w *World, n *Node, _ crowd.JobID, only []uint32, honest []batch.Leaf) []batch.Leaf {
	if only != nil {
		return honest
	}
	for _, i := range w.Rand().Perm(len(honest))[:max(1, int(c.Rate*float64(len(honest))))] {
		honest[i] = lie(honest[i], n.ID.Short())
	}
	return honest
}

// OnOff earns a good record with Honest batches, then cheats once, and so on.
type OnOff struct {
	Cheat
	Honest int
	done   int
}

// Leaves implements Adversary.
func (o *OnOff) Leaves(w *World, n *Node, id crowd.JobID, only []uint32, honest []batch.Leaf) []batch.Leaf {
	if only != nil {
		return honest
	}
	if o.done++; o.done%(o.Honest+1) != 0 {
		return honest
	}
	return o.Cheat.Leaves(w, n, id, nil, honest)
}
