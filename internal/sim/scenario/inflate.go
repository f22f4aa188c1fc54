package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
)

// Inflate gives every item its right output, and says that one of them used all
// the gas that the whole batch may: it would be paid the whole escrow for one lie.
type Inflate struct{ plain }

// Leaves implements Adversary.
func (Inflate) Leaves(w *World, _ *Node, id crowd.JobID, only []uint32, honest []batch.Leaf) []batch.Leaf {
	if only != nil {
		return honest
	}
	room := w.jobs[id].Spec.Limits().Gas
	for _, l := range honest {
		room -= l.Gas
	}
	honest[w.Rand().IntN(len(honest))].Gas += room
	return honest
}
