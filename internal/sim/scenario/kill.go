package scenario

import (
	"time"

	"github.com/crowdcompute/crowd/internal/sim"
)

// Kill is no adversary but fate: the node dies between two effects, at the At-th
// of its life, memory gone and disk kept, and is back after Down; 0: never.
// At 0: it lives.
type Kill struct {
	At   int
	Down time.Duration
}

// Part cuts a node off from everybody for d, beginning at t.
func Part(w *World, n *Node, at, d time.Duration) {
	w.At(sim.Epoch.Add(at), func() {
		w.Logf("node %d is cut off", n.index)
		w.Cut(chainPlace, n.index)
		for i := range w.Nodes {
			w.Cut(i, n.index)
		}
	})
	w.At(sim.Epoch.Add(at+d), func() {
		w.Logf("node %d is heard again", n.index)
		w.Heal(chainPlace, n.index)
		for i := range w.Nodes {
			w.Heal(i, n.index)
		}
		if n.alive {
			n.catchUp()
		}
	})
}
