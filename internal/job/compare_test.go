package job

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

var someLines = crowd.Compare{Kind: crowd.CompareLines, GasPPM: 100_000}

// weighing is a court about two executors of a tolerant task, and an authority that has re-executed it.
func (w *world) weighing(t *testing.T, one, two crowd.Outcome) (Machine, []Effect) {
	t.Helper()
	w.job.Spec.Compare = someLines
	w.job.Places = nil
	for k, o := range map[*identity.Key]crowd.Outcome{w.one: one, w.two: two} {
		w.job.Places = append(w.job.Places, ledger.Place{Node: k.ID(), State: ledger.Revealed, Opening: &ledger.Opening{Outcome: o}})
	}
	slices.SortFunc(w.job.Places, func(a, b ledger.Place) int { // one first
		if a.Node == w.one.ID() {
			return -1
		}
		return 1
	})
	w.enter(ledger.Court, 60_000)
	a := w.machine(t, w.court, AsAuthority, nil)
	f := find[Fetch](t, a.Step(w.now, w.record(t)))
	r := find[Run](t, a.Step(w.now, Fetched{Try: f.Try}))
	return a, a.Step(w.now, Ran{Try: r.Try, Outcome: good})
}

func findings(es []Effect) map[crowd.NodeID]ledger.Finding {
	found := map[crowd.NodeID]ledger.Finding{}
	for _, e := range es {
		if s, ok := e.(Send); ok {
			if v, ok := s.Message.(*ledger.Vote); ok && v.Question == ledger.SameAnswer {
				found[v.Executor] = v.Finding
			}
		}
	}
	return found
}

func TestAuthority_ComparesBeforeItBlames(t *testing.T) {
	near, other := good, good
	near.Result, near.Gas = "near", good.Gas+good.Gas/20
	other.ExitCode = 7
	dear := good
	dear.Gas += good.Gas / 2
	for _, tt := range []struct {
		name string
		says crowd.Outcome
		end  func(f Fetch) Event // of the fetch of what two says; nil: none is wanted
		got  []ledger.Finding
		want ledger.Finding
	}{
		{"within", near, func(f Fetch) Event { return Fetched{Try: f.Try} }, []ledger.Finding{ledger.Same}, ledger.Same},
		{"beyond", near, func(f Fetch) Event { return Fetched{Try: f.Try} }, []ledger.Finding{ledger.Other}, ledger.Other},
		{"the comparator fails", near, func(f Fetch) Event { return Fetched{Try: f.Try} }, []ledger.Finding{ledger.Unjudged}, ledger.Unjudged},
		{"no output at all", near, func(f Fetch) Event { return Fetched{Try: f.Try, Err: ErrUnusable} }, nil, ledger.Other},
		{"another exit code", other, nil, nil, ledger.Other},
		{"too much gas", dear, nil, nil, ledger.Other},
		{"the very same", good, nil, nil, ledger.Same},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			a, es := w.weighing(t, good, tt.says)
			found := findings(es)
			if found[w.one.ID()] != ledger.Same {
				t.Fatalf("got %v, want what is equal to be the same without a look", found)
			}
			if tt.end != nil {
				f := find[Fetch](t, es)
				if !slices.Equal(f.CIDs, []crowd.CID{"near"}) || !slices.Contains(f.From, w.two.ID()) {
					t.Fatalf("got a fetch of %v", f.CIDs)
				}
				es = a.Step(w.now, tt.end(f))
				if tt.got != nil {
					c := find[Compare](t, es)
					if len(c.Pairs) != 1 || c.Pairs[0] != (Pair{Own: Output{CID: "result"}, Their: Output{CID: "near"}}) || c.How != someLines {
						t.Fatalf("got %+v", c)
					}
					es = a.Step(w.now, Compared{Try: c.Try, Found: tt.got})
				}
				found = findings(es)
			}
			if found[w.two.ID()] != tt.want {
				t.Errorf("got %v, want %s", found, tt.want)
			}
		})
	}
}

// A party that serves nothing is missing when the court's time is up, is not waited for by the others, and is never called a liar.
func TestAuthority_OneThatHidesHoldsUpNobody(t *testing.T) {
	w := newWorld(t)
	one, two := good, good
	one.Result, two.Result = "hidden", "near"
	a, es := w.weighing(t, one, two)
	f := find[Fetch](t, es)
	if !slices.Equal(f.CIDs, []crowd.CID{"hidden"}) {
		t.Fatalf("got a fetch of %v", f.CIDs)
	}
	expect(t, "not to be had", a.Step(w.now, Fetched{Try: f.Try, Err: errors.New("nobody serves it")}), "")
	w.now = w.now.Add(backoffFirst)
	f = find[Fetch](t, a.Step(w.now, Woke{}))
	if !slices.Equal(f.CIDs, []crowd.CID{"near"}) {
		t.Fatalf("got a fetch of %v, want the other's turn", f.CIDs)
	}
	c := find[Compare](t, a.Step(w.now, Fetched{Try: f.Try}))
	es = a.Step(w.now, Compared{Try: c.Try, Err: errors.New("disk full")})
	expect(t, "our own fault", es, "")
	for range 20 {
		w.now = w.now.Add(backoffMost / 10)
		es = a.Step(w.now, Woke{})
		if found := findings(es); len(found) > 0 {
			if len(found) != 2 || found[w.one.ID()] != ledger.Missing || found[w.two.ID()] != ledger.Missing {
				t.Fatalf("got %v", found)
			}
			if left := time.UnixMilli(int64(w.job.Due)).Sub(w.now); left > time.Duration(ledger.DevParams().CourtWindow)*time.Millisecond/3+backoffMost {
				t.Fatalf("gave up %v before the end", left)
			}
			return
		}
		if k := kinds(es); k == "fetch" { // neither is to be had
			a.Step(w.now, Fetched{Try: find[Fetch](t, es).Try, Err: errors.New("nobody serves it")})
		}
	}
	t.Fatal("no vote")
}

// tolerant is a batch in Delivering whose verifiers' hashes differ about the items of their samples in differ.
func tolerantBatch(t *testing.T, differ func(item uint32) bool) *batchWorld {
	w := newBatch(t)
	w.job.Spec.Compare = someLines
	other := slices.Clone(w.leaves)
	for i := range other {
		if differ(uint32(i)) {
			other[i].Output[0] ^= 1
		}
	}
	w.opens(t, w.one, w.leaves)
	w.opens(t, w.two, other)
	w.opens(t, w.three, w.leaves)
	w.job.Place(w.two.ID()).Opening.Outputs = "outputs"
	w.job.Place(w.three.ID()).Opening.Outputs = "equal"
	w.delivers()
	return w
}

func (w *batchWorld) checking(t *testing.T) (Machine, []Effect) {
	c := w.machine(t, w.owner, AsConsumer, nil)
	f := find[Fetch](t, c.Step(w.now, w.record(t)))
	r := find[ReadLeaves](t, c.Step(w.now, Fetched{Try: f.Try}))
	return c, c.Step(w.now, LeavesRead{Try: r.Try, Leaves: w.leaves})
}

func TestConsumer_ComparesOutputsBeforeItReports(t *testing.T) {
	_, mine := newBatch(t).sampleOf(newBatch(t).two)
	differ := func(i uint32) bool { return i == mine[1] || i == mine[4] || i == mine[6] }
	answers := []uint32{1, 4, 6}
	for _, tt := range []struct {
		name   string
		found  []ledger.Finding
		report int // answer; -1: none
	}{
		{"all within", []ledger.Finding{ledger.Same, ledger.Same, ledger.Same}, -1},
		{"the second beyond", []ledger.Finding{ledger.Same, ledger.Other, ledger.Same}, 4},
		{"two beyond", []ledger.Finding{ledger.Same, ledger.Other, ledger.Other}, 4},
		{"the comparator fails", []ledger.Finding{ledger.Unjudged, ledger.Unjudged, ledger.Unjudged}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := tolerantBatch(t, differ)
			c, es := w.checking(t)
			f := find[Fetch](t, es)
			if !slices.Equal(f.CIDs, []crowd.CID{"outputs"}) || f.From[0] != w.two.ID() {
				t.Fatalf("got a fetch of %v, want only what differs", f.CIDs)
			}
			cmp := find[Compare](t, c.Step(w.now, Fetched{Try: f.Try}))
			if len(cmp.Pairs) != len(answers) {
				t.Fatalf("got %d pairs", len(cmp.Pairs))
			}
			for i, k := range answers {
				own := Output{CID: "outputs", Of: batchChecks, Index: k, Leaf: w.job.Place(w.two.ID()).Opening.Answers[k]}
				their := Output{CID: "result", Of: batchItems, Index: mine[k], Leaf: w.leaves[mine[k]].Hash()}
				if cmp.Pairs[i] != (Pair{own, their}) {
					t.Errorf("got %+v", cmp.Pairs[i])
				}
			}
			es = c.Step(w.now, Compared{Try: cmp.Try, Found: tt.found})
			if tt.report < 0 {
				find[Keep](t, es)
				if _, ok := find[Send](t, es).Message.(*ledger.Accept); !ok {
					t.Errorf("got %q", kinds(es))
				}
				return
			}
			r, ok := find[Send](t, es).Message.(*ledger.Report)
			if !ok || r.Verifier != w.two.ID() || r.Proof.Index != mine[tt.report] {
				t.Fatalf("got %q: %+v", kinds(es), r)
			}
			c.Step(w.now, Sent{Message: r})
			w.job.Dispute = &ledger.Dispute{Item: r.Proof.Index, Reporter: w.owner.ID()}
			w.enter(ledger.Court, 60_000)
			expect(t, "the court looks", c.Step(w.now, w.record(t)), "")
			w.job.Cleared = append(w.job.Cleared, ledger.Cleared{Item: r.Proof.Index, Reporter: w.owner.ID()})
			w.enter(ledger.Delivering, 10_000)
			es = c.Step(w.now, w.record(t))
			if next, ok := find[Send](t, es).Message.(*ledger.Report); tt.name == "two beyond" {
				if !ok || next.Proof.Index != mine[6] {
					t.Errorf("got %q, want a report of the next", kinds(es))
				}
			} else if ok && next.Proof.Index == r.Proof.Index {
				t.Errorf("got the same report again")
			}
		})
	}
}

func TestConsumer_ReportsAVerifierThatHidesItsOutputs(t *testing.T) {
	w := tolerantBatch(t, func(uint32) bool { return true })
	_, mine := w.sampleOf(w.two)
	c, es := w.checking(t)
	for n := 0; ; n++ {
		if n == 100 {
			t.Fatal("no report")
		}
		for _, e := range es {
			if s, ok := e.(Send); ok {
				if r, ok := s.Message.(*ledger.Report); !ok || r.Verifier != w.two.ID() || r.Proof.Index != mine[0] {
					t.Fatalf("got %T", s.Message)
				}
				if left := time.UnixMilli(int64(w.job.Due)).Sub(w.now); left > time.Duration(ledger.DevParams().DeliveryWindow/2)*time.Millisecond {
					t.Fatalf("reported %v before the end", left)
				}
				return
			}
			if f, ok := e.(Fetch); ok {
				c.Step(w.now, Fetched{Try: f.Try, Err: errors.New("nobody serves them")})
			}
		}
		w.now = w.now.Add(100 * time.Millisecond)
		es = c.Step(w.now, Woke{})
	}
}

// After IdleDisputes that came to nothing the owner leaves it to the authorities.
func TestConsumer_LeavesItToTheAuthorities(t *testing.T) {
	w := tolerantBatch(t, func(uint32) bool { return true })
	_, mine := w.sampleOf(w.two)
	for i := range ledger.IdleDisputes {
		w.job.Cleared = append(w.job.Cleared, ledger.Cleared{Item: mine[i], Reporter: w.owner.ID()})
	}
	c, es := w.checking(t)
	cmp := find[Compare](t, c.Step(w.now, Fetched{Try: find[Fetch](t, es).Try}))
	expect(t, "still beyond", c.Step(w.now, Compared{Try: cmp.Try, Found: slices.Repeat([]ledger.Finding{ledger.Other}, len(cmp.Pairs))}), "complain")
}

// A verifier of a tolerant job commits to what its items wrote, and holds it.
func TestVerifier_KeepsItsOutputs(t *testing.T) {
	w := newBatch(t)
	w.job.Spec.Compare = someLines
	v := w.machine(t, w.two, AsExecutor, nil)
	f := find[Fetch](t, v.Step(w.now, w.record(t)))
	r := find[Run](t, v.Step(w.now, Fetched{Try: f.Try}))
	if !r.Outputs {
		t.Fatal("the outputs are not kept")
	}
	leaves := make([]batch.Leaf, len(r.Only))
	expect(t, "no outputs", v.Step(w.now, Ran{Try: r.Try, Leaves: leaves}), "")
	w.now = w.now.Add(backoffFirst)
	r = find[Run](t, v.Step(w.now, Woke{}))
	es := v.Step(w.now, Ran{Try: r.Try, Leaves: leaves, Outputs: "outputs"})
	if k := find[Keep](t, es); k.CID != "outputs" {
		t.Errorf("got %q kept", k.CID)
	}
	expect(t, "bound", es, "persist keep")
	w.commits(w.one, nil)
	expect(t, "the executor is bound", v.Step(w.now, w.record(t)), "commit")
}
