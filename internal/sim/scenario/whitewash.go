package scenario

import (
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Whitewash is the second identity of a cheater. It waits until Was is caught,
// then registers with the same stake and goes on cheating. It starts as a newcomer.
type Whitewash struct {
	Cheat
	Was        *Node
	Registered bool
}

// Saw implements Adversary.
func (c *Whitewash) Saw(w *World, n *Node, _ job.Chain) {
	if c.Registered {
		return
	}
	for _, s := range w.Slashed {
		if s.Node == c.Was.ID {
			c.Registered = true
			n.Send(&ledger.Register{VRF: n.vrf.Public(), Offer: ledger.Offer{Price: 500}, Stake: w.Config.Stake}, nil)
			return
		}
	}
}
