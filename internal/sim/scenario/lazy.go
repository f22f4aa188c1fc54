package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Lazy verifies nothing: it commits to rubbish. If it may Wait, it holds its
// commitment back until it can see what the others opened, and then copies. It executes honestly.
type Lazy struct {
	plain
	Wait bool
}

// Leaves implements Adversary.
func (Lazy) Leaves(w *World, _ *Node, _ crowd.JobID, only []uint32, honest []batch.Leaf) []batch.Leaf {
	if only != nil {
		for k := range honest {
			honest[k] = batch.Leaf{Status: crowd.Exited, Gas: 1, Output: crowd.Hash{byte(w.Rand().Uint32())}}
		}
	}
	return honest
}

// Bend implements Adversary.
func (l Lazy) Bend(w *World, n *Node, id crowd.JobID, r job.Role, e job.Effect) []job.Effect {
	send, ok := e.(job.Send)
	if !ok || !l.Wait {
		return []job.Effect{e}
	}
	j := w.jobs[id].Last
	p := j.Place(n.ID)
	if _, ok := send.Message.(*ledger.Commit); !ok || p == nil || !p.Verifier {
		return []job.Effect{e}
	}
	for i := range j.Places {
		if j.Places[i].State == ledger.Revealed {
			return []job.Effect{e} // too late: nobody reveals before all have committed
		}
	}
	return nil
}
