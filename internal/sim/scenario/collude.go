package scenario

import (
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Ring is a set of providers that know each other, see all that is on chain,
// and agree out of band on one wrong outcome. Its members lie only where each
// executor that still has a place is one of them, so that no court looks; else
// they are honest and earn.
type Ring struct {
	plain
	members []crowd.NodeID
}

// Join makes n a member.
func (r *Ring) Join(n *Node) *Ring {
	r.members = append(r.members, n.ID)
	return r
}

// Result implements Adversary.
func (r *Ring) Result(w *World, n *Node, id crowd.JobID, honest crowd.Outcome) crowd.Outcome {
	j := w.jobs[id].Last
	for i := range j.Places {
		if p := &j.Places[i]; p.State != ledger.Dropped && !slices.Contains(r.members, p.Node) {
			return honest
		}
	}
	return wrong(n, id, honest, "ring")
}
