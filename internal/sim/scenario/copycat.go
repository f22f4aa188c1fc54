package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Copycat never runs anything. It waits until the other executor has committed,
// sends the very same commitment and seals as its own, and later the other's
// opening. It sees the chain.
type Copycat struct {
	plain
	sent map[string]bool
}

// Bend implements Adversary: no work, and no honest message but the claim.
func (c *Copycat) Bend(_ *World, _ *Node, _ crowd.JobID, r job.Role, e job.Effect) []job.Effect {
	if r == job.AsExecutor {
		switch e := e.(type) {
		case job.Fetch, job.Run:
			return nil
		case job.Send:
			if _, ok := e.Message.(*ledger.Claim); !ok {
				return nil
			}
		}
	}
	return []job.Effect{e}
}

// Saw implements Adversary.
func (c *Copycat) Saw(_ *World, n *Node, ch job.Chain) {
	own := ch.Job.Place(n.ID)
	if own == nil {
		return
	}
	for i := range ch.Job.Places {
		p := &ch.Job.Places[i]
		switch {
		case p.Node == n.ID:
		case p.State == ledger.Committed && own.State == ledger.Working:
			c.once(n, &ledger.Commit{Job: ch.Job.ID, Commitment: p.Commitment, Sealed: p.Sealed})
		case p.State == ledger.Revealed && own.State == ledger.Committed:
			c.once(n, &ledger.Reveal{Job: ch.Job.ID, Opening: *p.Opening})
		}
	}
}

func (c *Copycat) once(n *Node, m ledger.Message) {
	if c.sent == nil {
		c.sent = map[string]bool{}
	}
	if key := string(crowd.Encode(m)); !c.sent[key] {
		c.sent[key] = true
		n.Send(m, nil)
	}
}
