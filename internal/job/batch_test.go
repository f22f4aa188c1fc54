package job

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

const batchItems, batchChecks = 40, 8

// batchWorld is world with a batch: one executes, two and three verify.
type batchWorld struct {
	*world
	three  *identity.Key
	leaves []batch.Leaf // right ones
}

func newBatch(t testing.TB) *batchWorld {
	w := &batchWorld{world: newWorld(t), three: newKey(t, 5)}
	s := &w.job.Spec
	s.Items, s.Task.Stdin, s.Task.Limits.Gas = batchItems, "items", 1e6
	s.Plan = crowd.Plan{Method: crowd.PlanSample, Verifiers: 2, Checks: batchChecks, Replacements: 2}
	w.job.ID = s.ID(w.owner.ID(), 0)
	for i := range batchItems {
		w.leaves = append(w.leaves, batch.Leaf{Status: crowd.Exited, Gas: 1000, Output: crowd.Keccak256([]byte{byte(i / 2)})}) // two and two alike
	}
	for i, k := range []*identity.Key{w.one, w.two, w.three} {
		w.job.Drawn = append(w.job.Drawn, ledger.Drawn{Node: k.ID(), VRF: k.VRF().Public()})
		w.job.Places = append(w.job.Places, ledger.Place{Node: k.ID(), Verifier: i > 0, State: ledger.Working, Price: 1000})
	}
	w.job.Next = 3
	w.enter(ledger.Running, 15_000)
	for i := range w.job.Places {
		w.job.Places[i].Due = w.job.Due
	}
	return w
}

// lied is a copy of the right leaves with lies about some.
func (w *batchWorld) lied(items ...uint32) []batch.Leaf {
	l := slices.Clone(w.leaves)
	for _, i := range items {
		l[i].Output[0] ^= 1
	}
	return l
}

func outcomeOf(t testing.TB, leaves []batch.Leaf) crowd.Outcome {
	tree, err := batch.NewTree(leaves)
	if err != nil {
		t.Fatal(err)
	}
	top := tree.Root().Top
	return crowd.Outcome{Status: crowd.Exited, Gas: top.Gas, Root: top.Hash, Result: "result", Leaves: "leaves"}
}

// sampleOf are k's items.
func (w *batchWorld) sampleOf(k *identity.Key) (identity.VRFProof, []uint32) {
	proof, lot := k.VRF().Prove(ledger.SampleInput(w.job.ID, k.ID(), w.job.Beacon))
	return proof, ledger.Sampled(&w.job.Spec, lot)
}

// opens puts an opening into the record: the executor's leaves, or a verifier's answers out of leaves.
func (w *batchWorld) opens(t testing.TB, k *identity.Key, leaves []batch.Leaf) {
	p := w.job.Place(k.ID())
	o := &ledger.Opening{}
	if !p.Verifier {
		o.Outcome = outcomeOf(t, leaves)
	} else {
		proof, items := w.sampleOf(k)
		o.Sample = proof[:]
		for _, i := range items {
			o.Answers = append(o.Answers, leaves[i].Hash())
		}
	}
	p.State, p.Opening = ledger.Revealed, o
}

// delivers puts the record into Delivering.
func (w *batchWorld) delivers() {
	w.job.Verdict = &ledger.Verdict{Outcome: w.job.Executor().Opening.Outcome, By: ledger.BySample}
	w.enter(ledger.Delivering, ledger.DevParams().DeliveryWindow)
}

func (w *batchWorld) commits(k *identity.Key, m *ledger.Commit) {
	p := w.job.Place(k.ID())
	p.State = ledger.Committed
	if m != nil {
		p.Commitment, p.Sealed = m.Commitment, m.Sealed
	}
}

// verified is a verifier's machine that has committed, with its journal and commit; the record stands in Revealing.
func (w *batchWorld) verified(t testing.TB, k *identity.Key) (Machine, []byte, *ledger.Commit) {
	m := w.machine(t, k, AsExecutor, nil)
	f := find[Fetch](t, m.Step(w.now, w.record(t)))
	r := find[Run](t, m.Step(w.now, Fetched{Try: f.Try}))
	_, items := w.sampleOf(k)
	if !slices.Equal(r.Only, items) || r.Items != batchItems {
		t.Fatalf("got a run of %v of %d items, want its sample %v", r.Only, r.Items, items)
	}
	var some []batch.Leaf
	for _, i := range items {
		some = append(some, w.leaves[i])
	}
	es := m.Step(w.now, Ran{Try: r.Try, Leaves: some})
	expect(t, "bound, and the executor is not", es, "persist commit")
	journal := find[Persist](t, es).Journal
	unsealed := find[Send](t, es).Message.(*ledger.Commit)
	if len(unsealed.Sealed) > 0 {
		t.Fatal("the answers are sealed to authorities before the executor is bound")
	}
	m.Step(w.now, Sent{Message: unsealed})
	w.job.Place(k.ID()).Commitment = unsealed.Commitment
	w.now = time.UnixMilli(int64(w.job.Due) + 1000) // the executor is late, perhaps an alternate: the verifier waits
	expect(t, "the executor is late", m.Step(w.now, w.record(t)), "")
	w.commits(w.one, nil)
	for i := range w.job.Places {
		w.job.Places[i].Due += 60_000
	}
	w.job.Due += 60_000
	es = m.Step(w.now, w.record(t))
	commit := find[Send](t, es).Message.(*ledger.Commit)
	if commit.Commitment != unsealed.Commitment || len(commit.Sealed) == 0 {
		t.Fatal("it is bound to something else, or seals nothing")
	}
	m.Step(w.now, Sent{Message: commit})
	for _, p := range []*identity.Key{w.one, w.two, w.three} {
		w.commits(p, nil)
	}
	w.commits(k, commit)
	w.enter(ledger.Revealing, 2000)
	return m, journal, commit
}

func TestVerifier_RevealsOnlyWhenItHoldsTheLeaves(t *testing.T) {
	w := newBatch(t)
	v, journal, commit := w.verified(t, w.two)
	expect(t, "nobody has revealed", v.Step(w.now, w.record(t)), "")
	w.opens(t, w.three, w.leaves)
	expect(t, "only the other verifier has", v.Step(w.now, w.record(t)), "")
	w.opens(t, w.one, w.leaves)
	es := v.Step(w.now, w.record(t))
	expect(t, "the executor has", es, "fetch")
	f := find[Fetch](t, es)
	if !slices.Equal(f.CIDs, []crowd.CID{"leaves"}) || !slices.Contains(f.From, w.one.ID()) {
		t.Fatalf("got a fetch of %v from %d peers, want the leaves from the executor too", f.CIDs, len(f.From))
	}
	expect(t, "not to be had", v.Step(w.now, Fetched{Try: f.Try, Err: errors.New("nobody serves them")}), "")
	w.now = w.now.Add(backoffFirst)
	f = find[Fetch](t, v.Step(w.now, Woke{}))
	es = v.Step(w.now, Fetched{Try: f.Try})
	expect(t, "fetched", es, "persist keep readleaves")
	r := find[ReadLeaves](t, es)
	expect(t, "gone again", v.Step(w.now, LeavesRead{Try: r.Try, Err: errors.New("no such file")}), "")
	w.now = v.Deadline()
	f = find[Fetch](t, v.Step(w.now, Woke{}))
	r = find[ReadLeaves](t, v.Step(w.now, Fetched{Try: f.Try}))
	es = v.Step(w.now, LeavesRead{Try: r.Try, Leaves: w.leaves})
	expect(t, "held", es, "reveal")
	m := find[Send](t, es).Message.(*ledger.Reveal)
	if ledger.Commitment(w.job.ID, w.two.ID(), m.Opening) != commit.Commitment || len(m.Opening.Answers) != batchChecks || m.Conflict != nil {
		t.Fatalf("got %+v, want what opens the commitment, and no conflict", m)
	}

	again := w.machine(t, w.two, AsExecutor, journal)
	expect(t, "after a restart", again.Step(w.now, w.record(t)), "keep keep keep fetch")
}

func TestVerifier_RevealsAConflictInTheSameBreath(t *testing.T) {
	w := newBatch(t)
	v, _, _ := w.verified(t, w.two)
	_, mine := w.sampleOf(w.two)
	said := w.lied(mine[2], mine[4])
	w.opens(t, w.one, said)
	f := find[Fetch](t, v.Step(w.now, w.record(t)))
	r := find[ReadLeaves](t, v.Step(w.now, Fetched{Try: f.Try}))
	m := find[Send](t, v.Step(w.now, LeavesRead{Try: r.Try, Leaves: said})).Message.(*ledger.Reveal)
	if m.Conflict == nil || m.Conflict.Index != mine[2] || m.Conflict.Check(ledger.Root(&w.job.Spec, &w.job.Executor().Opening.Outcome)) != nil {
		t.Fatalf("got conflict %+v, want a proof of item %d", m.Conflict, mine[2])
	}
}

func TestVerifier_NeverRevealsForOtherLeaves(t *testing.T) {
	w := newBatch(t)
	greedy := slices.Clone(w.leaves)
	greedy[3].Gas = w.job.Spec.Limits().Gas - 39_000 // of the whole batch: all but what the others used
	for _, tt := range []struct {
		name    string
		claimed []batch.Leaf // under the executor's root
		served  []batch.Leaf
		err     error
	}{
		{"of another root", w.leaves, w.lied(5), nil},
		{"too few", w.leaves, w.leaves[:39], nil},
		{"none", w.leaves, nil, nil},
		{"no leaves at all", w.leaves, nil, fmt.Errorf("garbage: %w", ErrUnusable)},
		{"with more gas than an item may use", greedy, greedy, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newBatch(t)
			v, _, _ := w.verified(t, w.two)
			w.opens(t, w.one, tt.claimed)
			f := find[Fetch](t, v.Step(w.now, w.record(t)))
			r := find[ReadLeaves](t, v.Step(w.now, Fetched{Try: f.Try}))
			expect(t, "bad leaves", v.Step(w.now, LeavesRead{Try: r.Try, Leaves: tt.served, Err: tt.err}), "")
			w.enter(ledger.Unsealing, 60_000)
			expect(t, "unsealing", v.Step(w.now, w.record(t)), "")
		})
	}
}

func TestVerifier_CommitsOnlyToItsWholeSample(t *testing.T) {
	w := newBatch(t)
	v := w.machine(t, w.two, AsExecutor, nil)
	f := find[Fetch](t, v.Step(w.now, w.record(t)))
	r := find[Run](t, v.Step(w.now, Fetched{Try: f.Try}))
	expect(t, "an answer too few", v.Step(w.now, Ran{Try: r.Try, Leaves: w.leaves[:batchChecks-1]}), "")
	w.now = v.Deadline()
	r = find[Run](t, v.Step(w.now, Woke{}))
	expect(t, "an outcome of all", v.Step(w.now, Ran{Try: r.Try, Outcome: outcomeOf(t, w.leaves)}), "")
}

// It has a time of its own, before and after the executor is bound.
func TestVerifier_GivesUpWhenItIsLate(t *testing.T) {
	for _, bound := range []bool{false, true} {
		w := newBatch(t)
		v := w.machine(t, w.two, AsExecutor, nil)
		f := find[Fetch](t, v.Step(w.now, w.record(t)))
		find[Run](t, v.Step(w.now, Fetched{Try: f.Try}))
		if bound {
			w.commits(w.one, nil)
		}
		w.now = time.UnixMilli(int64(w.job.Due) + 10)
		expect(t, fmt.Sprintf("late, executor bound %v", bound), v.Step(w.now, w.record(t)), "stop")
	}
}

func TestExecutor_CommitsOnlyToABatch(t *testing.T) {
	w := newBatch(t)
	e := w.machine(t, w.one, AsExecutor, nil)
	f := find[Fetch](t, e.Step(w.now, w.record(t)))
	r := find[Run](t, e.Step(w.now, Fetched{Try: f.Try}))
	if r.Only != nil {
		t.Fatalf("got a run of only %v, want all", r.Only)
	}
	expect(t, "a single task's outcome", e.Step(w.now, Ran{Try: r.Try, Outcome: good}), "")
	w.now = e.Deadline()
	r = find[Run](t, e.Step(w.now, Woke{}))
	expect(t, "a batch's", e.Step(w.now, Ran{Try: r.Try, Outcome: outcomeOf(t, w.leaves)}), "persist keep commit")
}

// holding is a machine that has revealed and holds the leaves; the record stands in Delivering.
func (w *batchWorld) holding(t testing.TB, k *identity.Key, leaves []batch.Leaf) (Machine, []Effect) {
	w.delivers()
	m := w.machine(t, k, AsExecutor, nil)
	es := m.Step(w.now, w.record(t))
	if k != w.one { // the executor has its own
		es = m.Step(w.now, Fetched{Try: find[Fetch](t, es).Try})
	}
	r := find[ReadLeaves](t, es)
	return m, m.Step(w.now, LeavesRead{Try: r.Try, Leaves: leaves})
}

func TestPlace_ReportsTheFirstConflict(t *testing.T) {
	for _, k := range []string{"executor", "the verifier itself", "the other verifier"} {
		t.Run(k, func(t *testing.T) {
			w := newBatch(t)
			who := map[string]*identity.Key{"executor": w.one, "the verifier itself": w.two, "the other verifier": w.three}[k]
			_, mine := w.sampleOf(w.two)
			said := w.lied(mine[2], mine[4])
			w.opens(t, w.one, said)
			w.opens(t, w.two, w.leaves)
			w.opens(t, w.three, said) // stands by the executor
			m, es := w.holding(t, who, said)
			expect(t, "a conflict", es, "report")
			r := find[Send](t, es).Message.(*ledger.Report)
			if r.Verifier != w.two.ID() || r.Proof.Index != mine[2] {
				t.Fatalf("got a report about item %d of %s, want the first conflict, item %d", r.Proof.Index, r.Verifier.Short(), mine[2])
			}
			if err := r.Proof.Check(ledger.Root(&w.job.Spec, &w.job.Executor().Opening.Outcome)); err != nil {
				t.Fatal(err)
			}
			expect(t, "lost", m.Step(w.now, Sent{Message: r, Err: errors.New("connection lost")}), "")
			w.now = w.now.Add(backoffFirst)
			expect(t, "again", m.Step(w.now, Woke{}), "report")
			expect(t, "while the court sits about another", m.Step(w.now, Sent{Message: r, Err: &ledger.Refusal{Code: ledger.TooEarly}}), "")
			w.enter(ledger.Court, 60_000)
			w.now = w.now.Add(time.Minute / 2)
			expect(t, "it waits", m.Step(w.now, w.record(t)), "")
			w.enter(ledger.Delivering, 10_000)
			expect(t, "and tries again", m.Step(w.now, w.record(t)), "report")
			expect(t, "applied", m.Step(w.now, Sent{Message: r}), "")
			expect(t, "once is enough", m.Step(w.now, w.record(t)), "")
		})
	}
}

func TestPlace_IsSilentWhereAllAgree(t *testing.T) {
	w := newBatch(t)
	for _, k := range []*identity.Key{w.one, w.two, w.three} {
		w.opens(t, k, w.leaves)
	}
	_, es := w.holding(t, w.two, w.leaves)
	expect(t, "agreement", es, "")
}

func TestConsumer_AcceptsABatchOnlyIfAllAgree(t *testing.T) {
	_, mine := newBatch(t).sampleOf(newBatch(t).three)
	read := func(t *testing.T, w *batchWorld) (Machine, ReadLeaves) {
		w.delivers()
		c := w.machine(t, w.owner, AsConsumer, nil)
		es := c.Step(w.now, w.record(t))
		f := find[Fetch](t, es)
		if !slices.Equal(f.CIDs, []crowd.CID{"leaves", "result"}) {
			t.Fatalf("got a fetch of %v, want leaves and result", f.CIDs)
		}
		es = c.Step(w.now, Fetched{Try: f.Try})
		expect(t, "fetched", es, "persist keep keep readleaves")
		r := find[ReadLeaves](t, es)
		if r.Result != "result" || r.Max != f.Max {
			t.Fatalf("got outputs %q of at most %d bytes held against the leaves, want all of the %d that were fetched", r.Result, r.Max, f.Max)
		}
		return c, r
	}
	t.Run("all agree", func(t *testing.T) {
		w := newBatch(t)
		for _, k := range []*identity.Key{w.one, w.two, w.three} {
			w.opens(t, k, w.leaves)
		}
		c, r := read(t, w)
		expect(t, "read", c.Step(w.now, LeavesRead{Try: r.Try, Leaves: w.leaves}), "persist keep accept")
	})
	t.Run("one verifier differs", func(t *testing.T) {
		w := newBatch(t)
		said := w.lied(mine[7])
		w.opens(t, w.one, said)
		w.opens(t, w.two, said)
		w.opens(t, w.three, w.leaves)
		c, r := read(t, w)
		es := c.Step(w.now, LeavesRead{Try: r.Try, Leaves: said})
		expect(t, "a conflict", es, "report")
		m := find[Send](t, es).Message
		c.Step(w.now, Sent{Message: m})
		expect(t, "reported", c.Step(w.now, w.record(t)), "")
		w.now = time.UnixMilli(int64(w.job.Due) - 2000)
		expect(t, "it does not wait for ever", c.Step(w.now, Woke{}), "complain")
		w.job.Places[2].State = ledger.Fraud // the court found the verifier wrong
		w.enter(ledger.Delivering, 10_000)
		expect(t, "the verifier was wrong", c.Step(w.now, w.record(t)), "persist keep accept")
	})
	t.Run("the result is another", func(t *testing.T) {
		w := newBatch(t)
		for _, k := range []*identity.Key{w.one, w.two, w.three} {
			w.opens(t, k, w.leaves)
		}
		c, r := read(t, w)
		expect(t, "outputs differ", c.Step(w.now, LeavesRead{Try: r.Try, Err: fmt.Errorf("item 3: %w", ErrUnusable)}), "complain")
	})
	t.Run("the leaves are not under the root", func(t *testing.T) {
		w := newBatch(t)
		for _, k := range []*identity.Key{w.one, w.two, w.three} {
			w.opens(t, k, w.leaves)
		}
		c, r := read(t, w)
		expect(t, "another root", c.Step(w.now, LeavesRead{Try: r.Try, Leaves: w.lied(1)}), "complain")
	})
	t.Run("fetched while the court sits", func(t *testing.T) {
		w := newBatch(t)
		for _, k := range []*identity.Key{w.one, w.two, w.three} {
			w.opens(t, k, w.leaves)
		}
		w.delivers()
		c := w.machine(t, w.owner, AsConsumer, nil)
		f := find[Fetch](t, c.Step(w.now, w.record(t)))
		w.enter(ledger.Court, 60_000)
		c.Step(w.now, w.record(t))
		expect(t, "it is pinned", c.Step(w.now, Fetched{Try: f.Try}), "persist keep keep")
		w.enter(ledger.Delivering, 10_000)
		r := find[ReadLeaves](t, c.Step(w.now, w.record(t)))
		expect(t, "gone for all that", c.Step(w.now, LeavesRead{Try: r.Try, Err: errors.New("not there")}), "")
		w.now = c.Deadline()
		expect(t, "fetched anew", c.Step(w.now, Woke{}), "fetch")
	})
}

func TestAuthority_OpensASilentVerifierOnlyWithTheLeaves(t *testing.T) {
	setup := func(t *testing.T, lies ...uint32) (*batchWorld, Machine, []Effect) {
		w := newBatch(t)
		w.verified(t, w.two) // it sealed its opening to the court, and is silent
		w.opens(t, w.one, w.lied(lies...))
		w.opens(t, w.three, w.leaves)
		w.enter(ledger.Unsealing, 60_000)
		a := w.machine(t, w.court, AsAuthority, nil)
		es := a.Step(w.now, w.record(t))
		expect(t, "unsealing", es, "fetch")
		return w, a, es
	}
	t.Run("with them", func(t *testing.T) {
		w, a, es := setup(t)
		es = a.Step(w.now, Fetched{Try: find[Fetch](t, es).Try})
		es = a.Step(w.now, LeavesRead{Try: find[ReadLeaves](t, es).Try, Leaves: w.leaves})
		expect(t, "leaves", es, "unseal")
		if m := find[Send](t, es).Message.(*ledger.Unseal); m.Executor != w.two.ID() || len(m.Opening.Answers) != batchChecks || m.Conflict != nil {
			t.Fatalf("got %+v, want the silent verifier's opening", m)
		}
	})
	t.Run("with them, and they differ from its answers", func(t *testing.T) {
		_, mine := newBatch(t).sampleOf(newBatch(t).two)
		w, a, es := setup(t, mine[3])
		es = a.Step(w.now, Fetched{Try: find[Fetch](t, es).Try})
		es = a.Step(w.now, LeavesRead{Try: find[ReadLeaves](t, es).Try, Leaves: w.lied(mine[3])})
		if m := find[Send](t, es).Message.(*ledger.Unseal); m.Conflict == nil || m.Conflict.Index != mine[3] {
			t.Fatalf("got conflict %+v, want item %d", m.Conflict, mine[3])
		}
	})
	t.Run("with others", func(t *testing.T) {
		w, a, es := setup(t)
		es = a.Step(w.now, Fetched{Try: find[Fetch](t, es).Try})
		es = a.Step(w.now, LeavesRead{Try: find[ReadLeaves](t, es).Try, Leaves: w.lied(0)})
		expect(t, "other leaves", es, "vote")
		if m := find[Send](t, es).Message.(*ledger.Vote); m.Question != ledger.LeavesThere || m.Yes {
			t.Fatalf("got %+v, want that they are not there", m)
		}
	})
	t.Run("without them", func(t *testing.T) {
		w, a, es := setup(t)
		expect(t, "not to be had", a.Step(w.now, Fetched{Try: find[Fetch](t, es).Try, Err: errors.New("nobody")}), "")
		w.now = time.UnixMilli(int64(w.job.Due) - 15_000)
		if m := find[Send](t, a.Step(w.now, Woke{})).Message.(*ledger.Vote); m.Question != ledger.LeavesThere || m.Yes {
			t.Fatalf("got %+v, want that they are not there", m)
		}
	})
	t.Run("before the executor is open", func(t *testing.T) {
		w := newBatch(t)
		w.verified(t, w.two)
		p := w.job.Place(w.one.ID())
		p.Sealed = [][]byte{[]byte("garbage")}
		w.enter(ledger.Unsealing, 60_000)
		es := w.machine(t, w.court, AsAuthority, nil).Step(w.now, w.record(t))
		expect(t, "only the executor's seal is looked at", es, "vote")
		if m := find[Send](t, es).Message.(*ledger.Vote); m.Question != ledger.BadSeal || m.Executor != w.one.ID() {
			t.Fatalf("got %+v, want that the executor's seal is bad", m)
		}
	})
}

// Two items that came to the same are two questions.
func TestAuthority_VotesOnEachItem(t *testing.T) {
	w := newBatch(t)
	if w.leaves[6] != w.leaves[7] {
		t.Fatal("the items differ: the test tests nothing")
	}
	for _, k := range []*identity.Key{w.one, w.two, w.three} {
		w.opens(t, k, w.leaves)
	}
	a := w.machine(t, w.court, AsAuthority, nil)
	for i, item := range []uint32{6, 7} {
		w.job.Dispute = &ledger.Dispute{Item: item, Verifier: w.job.Places[1+i].Node}
		w.enter(ledger.Court, 60_000)
		f := find[Fetch](t, a.Step(w.now, w.record(t)))
		r := find[Run](t, a.Step(w.now, Fetched{Try: f.Try}))
		if !slices.Equal(r.Only, []uint32{item}) {
			t.Fatalf("got a run of %v, want item %d", r.Only, item)
		}
		es := a.Step(w.now, Ran{Try: r.Try, Leaves: w.leaves[item : item+1]})
		expect(t, "re-executed", es, "vote")
		m := find[Send](t, es).Message.(*ledger.Vote)
		if m.Question != ledger.WhatItem || m.Item != item || m.Leaf != w.leaves[item].Hash() {
			t.Fatalf("got %+v, want item %d", m, item)
		}
		a.Step(w.now, Sent{Message: m})
		w.job.Ballots = append(w.job.Ballots, ledger.Ballot{Authority: w.court.ID(), Question: m.Question, Item: item, Leaf: m.Leaf})
		w.enter(ledger.Delivering, 10_000)
		a.Step(w.now, w.record(t))
	}
}

func TestAuthority_InspectsABatchAsItsOwnerWould(t *testing.T) {
	_, mine := newBatch(t).sampleOf(newBatch(t).two)
	for _, tt := range []struct {
		name string
		said func(w *batchWorld) []batch.Leaf
		err  error
		want string
		yes  bool
	}{
		{"right", func(w *batchWorld) []batch.Leaf { return w.leaves }, nil, "keep vote", true},
		{"a conflict", func(w *batchWorld) []batch.Leaf { return w.lied(mine[0]) }, nil, "report", false},
		{"another result", func(w *batchWorld) []batch.Leaf { return w.leaves }, fmt.Errorf("item 1: %w", ErrUnusable), "vote", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newBatch(t)
			w.opens(t, w.one, tt.said(w))
			w.opens(t, w.two, w.leaves)
			w.opens(t, w.three, w.leaves)
			w.delivers()
			w.enter(ledger.Inspecting, 60_000)
			a := w.machine(t, w.court, AsAuthority, nil)
			f := find[Fetch](t, a.Step(w.now, w.record(t)))
			r := find[ReadLeaves](t, a.Step(w.now, Fetched{Try: f.Try}))
			es := a.Step(w.now, LeavesRead{Try: r.Try, Leaves: tt.said(w), Err: tt.err})
			expect(t, tt.name, es, tt.want)
			if v, ok := find[Send](t, es).Message.(*ledger.Vote); ok && (v.Question != ledger.Retrievable || v.Yes != tt.yes) {
				t.Errorf("got %+v, want yes %v", v, tt.yes)
			}
		})
	}
}

// A verifier killed after any event goes on from its journal to the same commitment, and never to another.
func TestVerifier_RestartsAtEveryPoint(t *testing.T) {
	for at := range 8 {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			w := newBatch(t)
			var journal []byte
			var commits []crowd.Hash
			m := w.machine(t, w.two, AsExecutor, nil)
			todo, revealed := []Event{w.record(t)}, false
			for n := 0; len(todo) > 0 && n < 100; n++ {
				if n == at {
					todo = []Event{w.record(t)} // what was under way is lost
					m = w.machine(t, w.two, AsExecutor, journal)
				}
				ev := todo[0]
				todo = todo[1:]
				for _, e := range m.Step(w.now, ev) {
					switch e := e.(type) {
					case Persist:
						journal = bytes.Clone(e.Journal)
					case Fetch:
						todo = append(todo, Fetched{Try: e.Try})
					case Run:
						var some []batch.Leaf
						for _, i := range e.Only {
							some = append(some, w.leaves[i])
						}
						todo = append(todo, Ran{Try: e.Try, Leaves: some}, w.record(t))
					case ReadLeaves:
						todo = append(todo, LeavesRead{Try: e.Try, Leaves: w.leaves})
					case Send:
						switch c := e.Message.(type) {
						case *ledger.Commit:
							commits = append(commits, c.Commitment)
							if len(c.Sealed) == 0 {
								w.job.Place(w.two.ID()).Commitment = c.Commitment
								w.commits(w.one, nil)
								todo = append(todo, Sent{Message: c}, w.record(t))
								continue
							}
							for _, k := range []*identity.Key{w.two, w.three} {
								w.commits(k, c)
							}
							w.opens(t, w.one, w.leaves)
							w.enter(ledger.Revealing, 2000)
							todo = append(todo, Sent{Message: c}, w.record(t))
						case *ledger.Reveal:
							revealed = ledger.Commitment(w.job.ID, w.two.ID(), c.Opening) == w.job.Places[1].Commitment
						}
					}
				}
			}
			if !revealed || len(commits) == 0 {
				t.Fatalf("got %d commits and revealed %v, want it to come through", len(commits), revealed)
			}
			for _, c := range commits {
				if c != commits[0] {
					t.Fatal("it committed twice, to different things")
				}
			}
		})
	}
}
