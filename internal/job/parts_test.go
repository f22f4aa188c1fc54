package job

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// newSplit is newBatch with outputs that go on to others.
func newSplit(t testing.TB) *batchWorld {
	w := newBatch(t)
	w.job.Spec.Shuffle.Parts = 16
	return w
}

func TestVerifier_OpensOnlyWhenItHoldsTheOutputsThatGoOn(t *testing.T) {
	w := newSplit(t)
	v, journal, _ := w.verified(t, w.two)
	w.opens(t, w.one, w.leaves)
	es := v.Step(w.now, w.record(t))
	expect(t, "the executor has revealed", es, "fetch")
	f := find[Fetch](t, es)
	if !slices.Equal(f.CIDs, []crowd.CID{"leaves"}) || f.Result != "result" {
		t.Fatalf("got a fetch of %v and the outputs of %q, want the leaves and those of the result", f.CIDs, f.Result)
	}
	es = v.Step(w.now, Fetched{Try: f.Try})
	expect(t, "fetched", es, "persist keep readleaves")
	r := find[ReadLeaves](t, es)
	if r.Result != "result" || r.Parts != 16 {
		t.Fatalf("got %+v, want the result made anew", r)
	}
	es = v.Step(w.now, LeavesRead{Try: r.Try, Leaves: w.leaves})
	expect(t, "they are right", es, "persist keep reveal")
	if k := find[Keep](t, es); k.CID != "result" {
		t.Errorf("it keeps %q, want the result", k.CID)
	}

	again := w.machine(t, w.two, AsExecutor, journal) // of before that
	es = again.Step(w.now, w.record(t))
	if f := find[Fetch](t, es); f.Result != "result" {
		t.Error("after a restart it opens without the outputs")
	}
}

// The leaves are right, so that no sample finds anything; only the folder is not what they make.
func TestVerifier_NeverOpensForOtherParts(t *testing.T) {
	for name, ev := range map[string]func(try uint64) Event{
		"the result is another":   func(try uint64) Event { return LeavesRead{Try: try, Err: fmt.Errorf("other parts: %w", ErrUnusable)} },
		"the result is no folder": func(try uint64) Event { return Fetched{Try: try, Err: fmt.Errorf("garbage: %w", ErrUnusable)} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newSplit(t)
			v, _, _ := w.verified(t, w.two)
			w.opens(t, w.one, w.leaves)
			f := find[Fetch](t, v.Step(w.now, w.record(t)))
			try := f.Try
			if _, ok := ev(0).(LeavesRead); ok {
				try = find[ReadLeaves](t, v.Step(w.now, Fetched{Try: f.Try})).Try
			}
			expect(t, "bad", v.Step(w.now, ev(try)), "")
			w.enter(ledger.Unsealing, 60_000)
			expect(t, "unsealing", v.Step(w.now, w.record(t)), "")
		})
	}
}

func TestAuthority_OpensNobodyForOtherParts(t *testing.T) {
	for _, bad := range []bool{false, true} {
		w := newSplit(t)
		w.verified(t, w.two)
		w.opens(t, w.one, w.leaves)
		w.opens(t, w.three, w.leaves)
		w.enter(ledger.Unsealing, 60_000)
		a := w.machine(t, w.court, AsAuthority, nil)
		f := find[Fetch](t, a.Step(w.now, w.record(t)))
		if f.Result != "result" {
			t.Fatal("an authority opens a verifier without its outputs")
		}
		r := find[ReadLeaves](t, a.Step(w.now, Fetched{Try: f.Try}))
		ev := LeavesRead{Try: r.Try, Leaves: w.leaves}
		if bad {
			ev = LeavesRead{Try: r.Try, Err: fmt.Errorf("other parts: %w", ErrUnusable)}
		}
		es := a.Step(w.now, ev)
		if _, unseals := find[Send](t, es).Message.(*ledger.Unseal); unseals == bad {
			t.Errorf("other parts %v: unseals %v", bad, unseals)
		}
	}
}

func TestConsumer_AcceptsWithoutTheOutputsThatGoOn(t *testing.T) {
	w := newSplit(t)
	for _, k := range []*identity.Key{w.one, w.two, w.three} {
		w.opens(t, k, w.leaves)
	}
	w.delivers()
	c := w.machine(t, w.owner, AsConsumer, nil)
	f := find[Fetch](t, c.Step(w.now, w.record(t)))
	if !slices.Equal(f.CIDs, []crowd.CID{"leaves"}) || f.Result != "" {
		t.Fatalf("got a fetch of %v and the outputs of %q, want the leaves alone", f.CIDs, f.Result)
	}
	r := find[ReadLeaves](t, c.Step(w.now, Fetched{Try: f.Try}))
	if r.Result != "" {
		t.Error("it wants to read outputs")
	}
	es := c.Step(w.now, LeavesRead{Try: r.Try, Leaves: w.leaves})
	expect(t, "the leaves agree with all answers", es, "persist keep accept")
	if d := find[Keep](t, es); d.CID != "leaves" {
		t.Errorf("it keeps %q, want the leaves", d.CID)
	}
	w.enter(ledger.Settled, 60_000)
	again := w.machine(t, w.owner, AsConsumer, nil) // accepted by the authorities while it was away
	if f := find[Fetch](t, again.Step(w.now, w.record(t))); !slices.Equal(f.CIDs, []crowd.CID{"leaves"}) || f.Result != "" {
		t.Errorf("late: got a fetch of %v and of %q", f.CIDs, f.Result)
	}
}

// Executor and verifiers serve the result until the job leaves the state, and then no longer.
func TestPlace_HoldsTheResultThatOthersRead(t *testing.T) {
	w := newSplit(t)
	v, _, _ := w.verified(t, w.two)
	w.opens(t, w.one, w.leaves)
	f := find[Fetch](t, v.Step(w.now, w.record(t)))
	r := find[ReadLeaves](t, v.Step(w.now, Fetched{Try: f.Try}))
	v.Step(w.now, LeavesRead{Try: r.Try, Leaves: w.leaves})
	w.opens(t, w.two, w.leaves)
	w.opens(t, w.three, w.leaves)
	w.delivers()
	v.Step(w.now, w.record(t))
	w.enter(ledger.Settled, ledger.DevParams().Retention)
	for _, e := range v.Step(w.now, w.record(t)) {
		switch e := e.(type) {
		case Release:
			if e.CID == "result" {
				t.Error("it gives the result up")
			}
		case Done:
			t.Error("it ends at once")
		}
	}
	w.now = w.now.Add(time.Duration(ledger.DevParams().Retention+1000) * time.Millisecond)
	if d := find[Release](t, v.Step(w.now, Woke{})); d.CID != "result" {
		t.Errorf("at the end it releases %q", d.CID)
	}
}

// newGather is newBatch whose items are parts of other results.
func newGather(t testing.TB) *batchWorld {
	w := newBatch(t)
	w.job.Spec.Shuffle.Gather = true
	return w
}

func TestPlaces_GatherOnlyWhatTheyRun(t *testing.T) {
	w := newGather(t)
	_, mine := w.sampleOf(w.two)
	for _, tt := range []struct {
		name string
		key  *identity.Key
		only []uint32
	}{{"executor", w.one, nil}, {"verifier", w.two, mine}} {
		m := w.machine(t, tt.key, AsExecutor, nil)
		f := find[Fetch](t, m.Step(w.now, w.record(t)))
		if f.Gather == nil || f.Gather.Manifest != "items" || f.Gather.Items != batchItems || !slices.Equal(f.Gather.Only, tt.only) {
			t.Errorf("%s: got %+v, want the parts of %v", tt.name, f.Gather, tt.only)
		}
		if r := find[Run](t, m.Step(w.now, Fetched{Try: f.Try})); !r.Shuffle.Gather || !slices.Equal(r.Only, tt.only) {
			t.Errorf("%s: got a run of %v, %+v", tt.name, r.Only, r.Shuffle)
		}
	}
	for _, k := range []*identity.Key{w.one, w.two, w.three} {
		w.opens(t, k, w.leaves)
	}
	w.job.Dispute = &ledger.Dispute{Item: 7, Verifier: w.two.ID()}
	w.enter(ledger.Court, 60_000)
	a := w.machine(t, w.court, AsAuthority, nil)
	if f := find[Fetch](t, a.Step(w.now, w.record(t))); f.Gather == nil || !slices.Equal(f.Gather.Only, []uint32{7}) {
		t.Errorf("court: got %+v, want the parts of item 7", f.Gather)
	}
}

func TestPlace_GivesUpForWantOfPartsAndSaysSo(t *testing.T) {
	w := newGather(t)
	m := w.machine(t, w.one, AsExecutor, nil)
	f := find[Fetch](t, m.Step(w.now, w.record(t)))
	m.Step(w.now, Fetched{Try: f.Try, Err: fmt.Errorf("nobody has part 3: %w", ErrParts)})
	w.now = w.now.Add(backoffFirst)
	f = find[Fetch](t, m.Step(w.now, Woke{}))
	r := find[Run](t, m.Step(w.now, Fetched{Try: f.Try}))
	expect(t, "gone before they were read", m.Step(w.now, Ran{Try: r.Try, Err: fmt.Errorf("part 3: %w", ErrParts)}), "")
	w.now = w.now.Add(backoffFirst)
	f = find[Fetch](t, m.Step(w.now, Woke{})) // fetched anew, not run again without them
	m.Step(w.now, Fetched{Try: f.Try, Err: fmt.Errorf("nobody has part 3: %w", ErrParts)})
	p := w.job.Place(w.one.ID())
	w.now = time.UnixMilli(int64(p.Due) - 1)
	g, ok := find[Send](t, m.Step(w.now, Woke{})).Message.(*ledger.GiveUp)
	if !ok || g.Reason != ledger.NoParts {
		t.Errorf("got %+v, want that it gives up for want of parts", g)
	}

	w = newGather(t)
	m = w.machine(t, w.one, AsExecutor, nil)
	f = find[Fetch](t, m.Step(w.now, w.record(t)))
	m.Step(w.now, Fetched{Try: f.Try, Err: errors.New("nobody has the program")})
	w.now = time.UnixMilli(int64(w.job.Place(w.one.ID()).Due) - 1)
	if g, ok := find[Send](t, m.Step(w.now, Woke{})).Message.(*ledger.GiveUp); !ok || g.Reason != ledger.CannotFetch {
		t.Errorf("without the program: got %+v", g)
	}
}
