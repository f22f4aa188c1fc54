package scenario

import (
	"strings"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Equivocate says two things at once: it commits to a lie, then to the truth;
// its seals hold the truth where its commitment holds the lie; and it reveals
// whatever the other executor revealed. To the consumer it serves only the lie.
type Equivocate struct{ plain }

// Bend implements Adversary.
func (Equivocate) Bend(w *World, n *Node, id crowd.JobID, _ job.Role, e job.Effect) []job.Effect {
	send, ok := e.(job.Send)
	if !ok {
		return []job.Effect{e}
	}
	honest := w.jobs[id].Truth()
	truth := ledger.Opening{Outcome: honest, Salt: crowd.Keccak256(id[:])}
	switch m := send.Message.(type) {
	case *ledger.Commit:
		lie := ledger.Opening{Outcome: wrong(n, id, honest, n.ID.Short()), Salt: truth.Salt}
		first := &ledger.Commit{Job: id, Commitment: ledger.Commitment(id, n.ID, lie)}
		for _, a := range n.conf.Authorities {
			s, err := identity.Seal(n.conf.Rand, a.ID, crowd.Encode(&truth), ledger.SealPurpose(id, n.ID))
			if err != nil {
				panic("bug: " + err.Error())
			}
			first.Sealed = append(first.Sealed, s)
		}
		second := *m
		second.Commitment = ledger.Commitment(id, n.ID, truth)
		return []job.Effect{job.Send{Message: first}, job.Send{Message: &second}}
	case *ledger.Reveal:
		return []job.Effect{job.Send{Message: &ledger.Reveal{Job: id, Opening: truth}}}
	}
	return []job.Effect{e}
}

// Serves implements Adversary. What the consumer asks for by its CID it cannot
// be given a lie for, so serving lies is serving nothing.
func (Equivocate) Serves(_ *World, n *Node, c crowd.CID, _ *Node) bool {
	return strings.HasPrefix(string(c), "lie-")
}
