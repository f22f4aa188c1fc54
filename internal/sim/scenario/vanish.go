package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Vanish cheats and serves what it made, until it sees a verifier's open answers
// that differ. From then on it serves nothing, so that nobody could prove it.
type Vanish struct {
	Cheat
	gone map[crowd.JobID]bool
}

// Saw implements Adversary.
func (v *Vanish) Saw(w *World, n *Node, c job.Chain) {
	j := &c.Job
	e := j.Executor()
	if e == nil || e.Node != n.ID {
		return
	}
	s := w.files[e.Opening.Outcome.Leaves]
	for i := range j.Places {
		p := &j.Places[i]
		if !p.Verifier || p.State != ledger.Revealed {
			continue
		}
		lot, err := j.Lot(p.Node, p.Opening)
		if err != nil {
			continue
		}
		for k, item := range ledger.Sampled(&j.Spec, lot) {
			if s.leaves[item].Hash() != p.Opening.Answers[k] {
				if v.gone == nil {
					v.gone = map[crowd.JobID]bool{}
				}
				v.gone[j.ID] = true
			}
		}
	}
}

// Serves implements Adversary.
func (v *Vanish) Serves(*World, *Node, crowd.CID, *Node) bool { return len(v.gone) == 0 }
