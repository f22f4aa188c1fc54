package scenario

import (
	"errors"
	"slices"
	"strings"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Honest machines of a world with Drift come to outputs and gas of their own in tolerant jobs: near
// the truth and near each other, and never the same bytes. Lies are near nothing.

// driftMark stands between the truth and whose version of it a result is.
const driftMark = "~"

// Tolerant makes what shape posts tolerant, within a twentieth of the gas; nil: single tasks.
func Tolerant(c crowd.Compare, shape func(*World, *crowd.JobSpec)) func(*World, *crowd.JobSpec) {
	return func(w *World, s *crowd.JobSpec) {
		if shape != nil {
			shape(w, s)
		}
		c.GasPPM = 50_000
		s.Compare = c
	}
}

// drifts reports whether runs of a job differ from machine to machine.
func (w *World) drifts(id crowd.JobID) bool {
	j, ok := w.state.Job(id)
	return ok && w.Config.Drift && (w.Config.Undeclared || !j.Spec.Compare.Strict())
}

// bent is gas as n counts it.
func (n *Node) bent(g, limit crowd.Gas) crowd.Gas {
	return min(limit, g+g/40*crowd.Gas(n.ID[0])/256)
}

// driftOutcome is n's version of what a task comes to.
func (n *Node) driftOutcome(o crowd.Outcome, limit crowd.Gas) crowd.Outcome {
	o.Result += crowd.CID(driftMark + n.ID.Short())
	o.Gas = n.bent(o.Gas, limit)
	return o
}

// driftLeaf is n's version of what an item comes to.
func (n *Node) driftLeaf(l batch.Leaf, limit crowd.Gas) batch.Leaf {
	true := l.Output
	l.Output = crowd.Keccak256([]byte("drift"), n.ID[:], true[:])
	l.Gas = n.bent(l.Gas, limit)
	n.w.near[l.Output] = true
	return l
}

// truthOf is the result that c is a version of.
func truthOf(c crowd.CID) string {
	s, _, _ := strings.Cut(string(c), driftMark)
	return s
}

// nearLeaf reports whether both may be honest outcomes of one item.
func (w *World) nearLeaf(how crowd.Compare, a, b batch.Leaf) bool {
	if how.Strict() || a == b {
		return a == b
	}
	base := func(h crowd.Hash) crowd.Hash {
		if t, ok := w.near[h]; ok {
			return t
		}
		return h
	}
	return a.Status == b.Status && a.ExitCode == b.ExitCode && how.NearGas(a.Gas, b.Gas) && base(a.Output) == base(b.Output)
}

// nearOutcome reports whether both may be honest outcomes of one task.
func nearOutcome(how crowd.Compare, a, b crowd.Outcome) bool {
	if how.Strict() {
		return a == b
	}
	return a.Status == b.Status && a.ExitCode == b.ExitCode && how.NearGas(a.Gas, b.Gas) && truthOf(a.Result) == truthOf(b.Result)
}

// compare ends a Compare as the real one would: from the own store only. A
// comparator whose name begins with "loops" never ends; one that begins with "never" says no to all that it is asked.
func (n *Node) compare(e job.Compare) job.Compared {
	c := job.Compared{Try: e.Try}
	for _, p := range e.Pairs {
		if !n.Has(p.Own.CID) || !n.Has(p.Their.CID) || e.How.Program != "" && !n.Has(e.How.Program) {
			return job.Compared{Try: e.Try, Err: errors.New("they are not in the store")}
		}
		f := ledger.Other
		own, isOwn := n.w.itemAt(p.Own)
		their, isTheir := n.w.itemAt(p.Their)
		switch {
		case strings.HasPrefix(string(e.How.Program), "loops"):
			f = ledger.Unjudged
		case strings.HasPrefix(string(e.How.Program), "never"):
		case p.Own.Of > 0 && isOwn && isTheir && n.w.nearLeaf(e.How, own, their),
			p.Own.Of == 0 && truthOf(p.Own.CID) == truthOf(p.Their.CID):
			f = ledger.Same
		}
		c.Found = append(c.Found, f)
	}
	return c
}

// itemAt is the outcome of an item that lies there, if it is what was bound to.
func (w *World) itemAt(o job.Output) (l batch.Leaf, ok bool) {
	s := w.files[o.CID]
	if o.Of == 0 || s == nil || uint32(len(s.leaves)) != o.Of || s.leaves[o.Index].Hash() != o.Leaf {
		return l, false
	}
	return s.leaves[o.Index], true
}

// answers of a verifier as far as an observer can know them: from the outputs that it named.
func (w *World) answers(v *ledger.Place) []batch.Leaf {
	s := w.files[v.Opening.Outputs]
	if s == nil || len(s.leaves) != len(v.Opening.Answers) {
		return nil
	}
	for k, l := range s.leaves {
		if l.Hash() != v.Opening.Answers[k] {
			return nil
		}
	}
	return s.leaves
}

// Hider answers wrongly for all items when it verifies, and serves nothing that could be compared.
type Hider struct{ Framer }

// Serves implements Adversary.
func (Hider) Serves(*World, *Node, crowd.CID, *Node) bool { return false }

// Sender is an owner that reports every difference of bytes in a tolerant batch, whatever its comparator says.
type Sender struct {
	plain
	said map[crowd.Hash]bool
}

// Saw implements Adversary.
func (s *Sender) Saw(w *World, n *Node, c job.Chain) {
	j := &c.Job
	e := j.Executor()
	if j.State != ledger.Delivering || j.Spec.Items == 0 || e == nil || j.Owner != n.ID {
		return
	}
	if s.said == nil {
		s.said = map[crowd.Hash]bool{}
	}
	made := w.files[e.Opening.Outcome.Leaves]
	tree, err := batch.NewTree(made.leaves)
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
		for k, item := range ledger.Sampled(&j.Spec, lot) {
			if a := v.Opening.Answers[k]; a != made.leaves[item].Hash() && !s.said[a] && !slices.ContainsFunc(j.Cleared, func(c ledger.Cleared) bool { return c.Item == item }) {
				s.said[a] = true
				n.Send(&ledger.Report{Job: j.ID, Verifier: v.Node, Proof: tree.Prove(item, made.leaves[item])}, nil)
				return
			}
		}
	}
}

// Liar commits to an outcome of its own making in a tolerant job: another result, which it may keep to itself, or too much gas.
type Liar struct {
	plain
	Hide, Gas bool
}

// Result implements Adversary.
func (l Liar) Result(_ *World, n *Node, id crowd.JobID, honest crowd.Outcome) crowd.Outcome {
	if l.Gas {
		honest.Gas = honest.Gas*2 + 100
		n.Wrong[id] = honest
		return honest
	}
	return wrong(n, id, honest, n.ID.Short())
}

// Serves implements Adversary.
func (l Liar) Serves(*World, *Node, crowd.CID, *Node) bool { return !l.Hide }
