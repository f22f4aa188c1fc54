package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Disputer reports nonsense about every batch that it sees delivered, to hold it
// up and to have somebody convicted: answers that agree, forged leaves, items of
// other samples. It needs no place.
type Disputer struct {
	plain
	said map[crowd.JobID]bool
}

// Saw implements Adversary.
func (d *Disputer) Saw(w *World, n *Node, c job.Chain) {
	if d.said == nil {
		d.said = map[crowd.JobID]bool{}
	}
	j := &c.Job
	e := j.Executor()
	if j.State != ledger.Delivering || e == nil || d.said[j.ID] {
		return
	}
	d.said[j.ID] = true
	s := w.files[e.Opening.Outcome.Leaves]
	tree, err := batch.NewTree(s.leaves)
	if err != nil {
		return
	}
	for i := range j.Places {
		v := &j.Places[i]
		if !v.Verifier || v.State != ledger.Revealed {
			continue
		}
		lot, err := j.Lot(v.Node, v.Opening)
		if err != nil {
			continue
		}
		item := ledger.Sampled(&j.Spec, lot)[0]
		agree := tree.Prove(item, s.leaves[item])
		forged := agree
		forged.Leaf = lie(forged.Leaf, "forged")
		other := tree.Prove((item+1)%j.Spec.Items, s.leaves[(item+1)%j.Spec.Items])
		for _, p := range []batch.Proof{agree, forged, other, {}} {
			n.Send(&ledger.Report{Job: j.ID, Verifier: v.Node, Proof: p}, nil)
		}
	}
}
