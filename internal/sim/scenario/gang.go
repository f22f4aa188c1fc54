package scenario

import (
	"encoding/binary"
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Gang is a ring that takes batches: all its members make up the same items of a
// job in the same way, so that those who verify answer as the one who executes
// lied. They know each other and all that is on chain. A Choosy gang lies only
// where each verifier that still has a place is one of them; else they are honest and earn.
type Gang struct {
	plain
	Rate    float64
	Choosy  bool
	members []crowd.NodeID
}

// Join makes n a member.
func (g *Gang) Join(n *Node) *Gang {
	g.members = append(g.members, n.ID)
	return g
}

// Leaves implements Adversary.
func (g *Gang) Leaves(w *World, _ *Node, id crowd.JobID, only []uint32, honest []batch.Leaf) []batch.Leaf {
	j := w.jobs[id].Last
	for i := range j.Places {
		p := &j.Places[i]
		ours := slices.Contains(g.members, p.Node)
		if p.State <= ledger.Revealed && !ours && (g.Choosy || !p.Verifier) {
			return honest
		}
	}
	for k := range honest {
		i := uint32(k)
		if only != nil {
			i = only[k]
		}
		if g.picks(id, i) {
			honest[k] = lie(honest[k], "gang")
		}
	}
	return honest
}

// picks says without a word whether item i of a job is lied about.
func (g *Gang) picks(id crowd.JobID, i uint32) bool {
	h := crowd.Keccak256([]byte("gang"), id[:], binary.BigEndian.AppendUint32(nil, i))
	return float64(binary.BigEndian.Uint32(h[:])) < g.Rate*(1<<32)
}
