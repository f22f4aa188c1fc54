package scenario

import (
	"errors"
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Split is Batch with outputs that go on to others in parts.
func Split(items, verifiers, checks uint32) func(*World, *crowd.JobSpec) {
	return func(w *World, s *crowd.JobSpec) {
		Batch(items, verifiers, checks)(w, s)
		s.Shuffle.Parts = 8
	}
}

// Batch lets Config.Spec post batches of n items instead of single tasks, each
// checked by so many verifiers with so many checks.
func Batch(items, verifiers, checks uint32) func(*World, *crowd.JobSpec) {
	return func(_ *World, s *crowd.JobSpec) {
		s.Items = items
		s.Task.Stdin = "items-" + s.Task.Inputs
		s.Task.Limits.Gas, s.Task.Limits.Output = 1e9/crowd.Gas(items), 1<<10
		s.Plan = crowd.Plan{Method: crowd.PlanSample, Verifiers: verifiers, Checks: checks, Replacements: 2}
	}
}

// shard is what somebody made of a batch: right or wrong, its CIDs name it alone.
type shard struct {
	leaves  []batch.Leaf
	root    batch.Root
	outcome crowd.Outcome
	garbled bool // the parts in its result are not what the outputs make
}

// LeafOf is what item i of a batch of t comes to: a pure function of both.
func LeafOf(t *crowd.Task, i uint32) batch.Leaf {
	h := crowd.Digest("sim/item", struct {
		_    struct{} `cbor:",toarray"`
		Args []string
		Seed crowd.Hash
		I    uint32
	}{Args: t.Args, Seed: t.Seed, I: i})
	l := batch.Leaf{Status: crowd.Exited, Gas: 1 + (crowd.Gas(h[0])<<16|crowd.Gas(h[1])<<8)%t.Limits.Gas, Output: h}
	switch {
	case h[2] < 8:
		l.Status = crowd.OutOfGas
	case h[2] < 32:
		l.ExitCode = uint32(h[3])
	case h[2] > 128: // programs often say the same thing twice
		l.Gas, l.Output = 1, crowd.Hash{1}
	}
	return l
}

// made registers leaves as content: what comes of running all items, or a lie in their place.
func (w *World) made(leaves []batch.Leaf) *shard {
	tree, err := batch.NewTree(leaves)
	if err != nil {
		panic("bug: " + err.Error())
	}
	s := &shard{leaves: leaves, root: tree.Root()}
	name := s.root.Top.Hash.String()[:16]
	s.outcome = crowd.Outcome{
		Status: crowd.Exited, Gas: s.root.Top.Gas, Root: s.root.Top.Hash,
		Result: crowd.CID("result-" + name), Leaves: crowd.CID("leaves-" + name),
	}
	if old := w.files[s.outcome.Leaves]; old != nil {
		return old
	}
	w.files[s.outcome.Leaves], w.files[s.outcome.Result] = s, s
	return s
}

// garbled is a result with the same leaves and outputs, and other parts.
func (w *World) garbled(s *shard) *shard {
	g := *s
	g.garbled = true
	g.outcome.Result += "-garbled"
	w.files[g.outcome.Result] = &g
	return &g
}

// truth is the honest work on all items.
func (w *World) truth(t *crowd.Task, items uint32, unusable bool) *shard {
	key := crowd.Digest("sim/batch", struct {
		_        struct{} `cbor:",toarray"`
		Task     *crowd.Task
		Unusable bool
	}{Task: t, Unusable: unusable})
	if s := w.honest[key]; s != nil {
		return s
	}
	leaves := make([]batch.Leaf, items)
	for i := range leaves {
		if leaves[i] = (batch.Leaf{Status: crowd.NoInput}); !unusable {
			leaves[i] = w.Config.Leaf(t, uint32(i))
		}
	}
	s := w.made(leaves)
	w.honest[key] = s
	return s
}

// lie is another outcome of an item, of the same taste for all who share it.
func lie(l batch.Leaf, taste string) batch.Leaf {
	l.Status, l.ExitCode = crowd.Exited, 0
	l.Output = crowd.Keccak256([]byte("lie"), []byte(taste), l.Output[:])
	return l
}

// gasOf is what a Run uses. A single task counts for nothing.
func (n *Node) gasOf(e *job.Run) (sum crowd.Gas) {
	if e.Items == 0 {
		return 0
	}
	leaves := n.w.truth(&e.Task, e.Items, e.Unusable).leaves
	if e.Only == nil {
		for i := range leaves {
			sum += leaves[i].Gas
		}
	}
	for _, i := range e.Only {
		sum += leaves[i].Gas
	}
	return sum
}

// runBatch ends a Run of a batch.
func (n *Node) runBatch(s slot, e job.Run) job.Ran {
	honest := n.w.truth(&e.Task, e.Items, e.Unusable).leaves
	leaves := slices.Clone(honest)
	if e.Only != nil {
		leaves = leaves[:0]
		for _, i := range e.Only {
			leaves = append(leaves, honest[i])
		}
	}
	if n.w.drifts(s.id) && !e.Unusable {
		for i := range leaves {
			leaves[i] = n.driftLeaf(leaves[i], e.Task.Limits.Gas)
		}
	}
	if n.adv != nil && s.role == job.AsExecutor {
		leaves = n.adv.Leaves(n.w, n, s.id, e.Only, leaves)
	}
	if e.Only != nil && !e.Outputs {
		return job.Ran{Try: e.Try, Leaves: leaves}
	}
	made := n.w.made(leaves)
	if e.Only != nil {
		n.hold(made.outcome.Result)
		return job.Ran{Try: e.Try, Leaves: leaves, Outputs: made.outcome.Result}
	}
	if n.adv != nil && s.role == job.AsExecutor && e.Shuffle.Parts > 0 && n.adv.Garbles(n.w, n, s.id) {
		made = n.w.garbled(made)
	}
	n.hold(made.outcome.Result)
	return job.Ran{Try: e.Try, Outcome: made.outcome}
}

// readLeaves ends a ReadLeaves as the real one would: from the own store only.
func (n *Node) readLeaves(e job.ReadLeaves) job.LeavesRead {
	s := n.w.files[e.Leaves]
	switch {
	case !n.Has(e.Leaves) || e.Result != "" && !n.Has(e.Result):
		return job.LeavesRead{Try: e.Try, Err: errors.New("they are not in the store")}
	case s == nil || uint32(len(s.leaves)) != e.Items:
		return job.LeavesRead{Try: e.Try, Err: fmt.Errorf("no %d leaves: %w", e.Items, job.ErrUnusable)}
	case e.Result != "" && e.Parts > 0 && n.w.files[e.Result] != nil && n.w.files[e.Result].garbled:
		return job.LeavesRead{Try: e.Try, Err: fmt.Errorf("the result is not what its outputs make: %w", job.ErrUnusable)}
	case e.Result != "" && n.w.files[e.Result] != s:
		return job.LeavesRead{Try: e.Try, Err: fmt.Errorf("an item's output is not that of its leaf: %w", job.ErrUnusable)}
	}
	return job.LeavesRead{Try: e.Try, Leaves: slices.Clone(s.leaves)}
}

// leavesIn is the file of leaves that lies in a batch's result folder.
func (w *World) leavesIn(result crowd.CID) (crowd.CID, bool) {
	s := w.files[result]
	if s == nil || s.outcome.Result != result {
		return "", false
	}
	return s.outcome.Leaves, true
}

// checkHeld is due halfway through the time that a settled job stays: its outputs are with all honest nodes on the verdict.
func (w *World) checkHeld(p *Posted) {
	j := &p.Last
	for i := range j.Places {
		n := w.byID[j.Places[i].Node]
		if j.Places[i].State == ledger.Revealed && n.Honest() && n.alive && !n.Has(j.Verdict.Outcome.Result) {
			w.broken(fmt.Errorf("batch %s: node %d on it has not its outputs", p.ID.Short(), n.index))
		}
	}
}

// Root is that of the honest work on a batch.
func (w *World) Root(spec *crowd.JobSpec) crowd.Hash {
	return w.truth(&spec.Task, spec.Items, false).root.Top.Hash
}

// ItemsIn is of how many items c is the result or the leaves; 0: it is neither.
func (w *World) ItemsIn(c crowd.CID) int {
	if s := w.files[c]; s != nil {
		return len(s.leaves)
	}
	return 0
}

// Finding is what an all-knowing observer sees in one batch.
type Finding struct {
	Lies     []uint32 // items that the executor got wrong on purpose
	Sampled  bool     // a verifier whose answers are open had one of them in its sample, and was right about it
	Conflict bool     // an open answer of a verifier that stands differs from the executor's leaf
}

// Look is the observer's view of a batch whose executor's outcome is open; false: there is none.
func (w *World) Look(p *Posted) (f Finding, ok bool) {
	j := &p.Last
	var e *ledger.Place
	for i := range j.Places {
		if pl := &j.Places[i]; !pl.Verifier && pl.Opening != nil {
			e = pl
		}
	}
	if e == nil {
		return f, false
	}
	truth := p.batchTruth(w)
	said := w.files[e.Opening.Outcome.Leaves]
	if said == nil || len(said.leaves) != len(truth.leaves) {
		return f, false
	}
	for i := range truth.leaves {
		if !w.nearLeaf(p.Spec.Compare, said.leaves[i], truth.leaves[i]) {
			f.Lies = append(f.Lies, uint32(i))
		}
	}
	for i := range j.Places {
		v := &j.Places[i]
		if !v.Verifier || v.Opening == nil {
			continue
		}
		lot, err := j.Lot(v.Node, v.Opening)
		if err != nil {
			continue
		}
		answers := w.answers(v)
		for k, item := range ledger.Sampled(&j.Spec, lot) {
			is := func(l batch.Leaf) bool {
				return v.Opening.Answers[k] == l.Hash() || answers != nil && w.nearLeaf(p.Spec.Compare, answers[k], l)
			}
			if _, lied := slices.BinarySearch(f.Lies, item); lied && is(truth.leaves[item]) {
				f.Sampled = true
			}
			if v.State == ledger.Revealed && !is(said.leaves[item]) && !j.IsCleared(item) {
				f.Conflict = true
			}
		}
	}
	return f, true
}

func (p *Posted) batchTruth(w *World) *shard {
	t := &p.Spec.Task
	return w.truth(t, p.Spec.Items, oversized(t.Program) || oversized(t.Inputs) || oversized(t.Stdin))
}

// checkBatch reports every guarantee of a batch that did not hold:
//
//   - an honest owner's batch is settled only if every answer that stands agrees with the leaves,
//     and never with a lie where an open answer is right;
//   - a lie about an item that a verifier opened the right answer for costs the executor its stake, unless the court
//     could not look, which refunds;
//   - nobody's outcome stands that is not the leaves' under its root;
//   - where outputs go on to others, they are right wherever a verifier is honest, all honest nodes on the verdict
//     have them, and the owner does not.
func (w *World) checkBatch(p *Posted, bad func(string, ...any)) {
	j := &p.Last
	f, ok := w.Look(p)
	settled := j.State == ledger.Settled
	if !ok {
		if settled {
			bad("batch %s is settled without leaves", p.ID.Short())
		}
		return
	}
	e := j.Executor()
	if settled && p.Owner.Honest() && f.Conflict {
		bad("batch %s is settled, and a verifier's open answer differs from it", p.ID.Short())
	}
	if settled && p.Owner.Honest() && f.Sampled {
		bad("batch %s is settled with a lie about what a verifier answered rightly", p.ID.Short())
	}
	if settled && len(f.Lies) > 0 && w.byID[e.Node].Honest() {
		bad("batch %s: honest node %d lied about %d items", p.ID.Short(), w.byID[e.Node].index, len(f.Lies))
	}
	if e != nil && f.Sampled && j.State == ledger.Failed && j.Dispute != nil && j.Dispute.Right != (crowd.Hash{}) && j.Dispute.Right != j.Dispute.Executor {
		bad("batch %s: the court found a lie, and node %d is not punished", p.ID.Short(), w.byID[e.Node].index)
	}
	if settled && p.Spec.Shuffle.Parts > 0 {
		result := e.Opening.Outcome.Result
		if p.Owner.came[result] {
			bad("batch %s: its outputs came to the owner", p.ID.Short())
		}
		for i := range j.Places {
			if n := w.byID[j.Places[i].Node]; j.Places[i].State == ledger.Revealed && n.Honest() && w.files[result].garbled {
				bad("batch %s is settled with parts that its outputs do not make, and node %d on it", p.ID.Short(), n.index)
			}
		}
	}
	if settled && w.files[e.Opening.Outcome.Leaves].root != ledger.Root(&j.Spec, &e.Opening.Outcome) {
		bad("batch %s is settled with leaves of another root", p.ID.Short())
	}
}
