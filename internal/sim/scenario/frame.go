package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
)

// Framer gives wrong answers on purpose when it verifies, so that the executor
// seems to lie, and reports what it says. It executes honestly.
type Framer struct{ plain }

// Leaves implements Adversary.
func (Framer) Leaves(_ *World, n *Node, _ crowd.JobID, only []uint32, honest []batch.Leaf) []batch.Leaf {
	if only != nil {
		for k := range honest {
			honest[k] = lie(honest[k], n.ID.Short())
		}
	}
	return honest
}
