package ledger

import (
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

func tolerantSpec() crowd.JobSpec {
	s := testSpec()
	s.Compare = crowd.Compare{Kind: crowd.CompareLines, GasPPM: 200_000}
	return s
}

// near is a pair's outcomes: their bytes differ.
func near(seat int) crowd.Outcome {
	o := right
	o.Result += crowd.CID(rune('a' + seat))
	o.Gas += crowd.Gas(seat) * 1e7
	return o
}

// differing is a tolerant pair in court.
func (w *world) differing(spec crowd.JobSpec) (crowd.JobID, []*identity.Key) {
	w.t.Helper()
	id := w.drawn(spec, w.providers...)
	var seated []*identity.Key
	for i, p := range w.in(id, Running).Places {
		seated = append(seated, w.keyOf(p.Node))
		w.commit(seated[i], id, near(i))
	}
	for i, k := range seated {
		w.reveal(k, id, near(i))
	}
	w.in(id, Court)
	return id, seated
}

// Of four authorities each says what it finds about each of two executors; 0: nothing.
func TestTolerant_Pair(t *testing.T) {
	same, other := [4]Finding{Same, Same, Same, 0}, [4]Finding{Other, Other, Other, 0}
	for _, tt := range []struct {
		name     string
		found    [2][4]Finding
		state    JobState
		stakes   [2]bool // are lost
		paid     [2]bool
		faults   [2]bool
		evidence bool // that the executors who stand passed
	}{
		{"both within", [2][4]Finding{same, same}, Delivering, [2]bool{}, [2]bool{true, true}, [2]bool{}, true},
		{"one beyond", [2][4]Finding{same, other}, Delivering, [2]bool{false, true}, [2]bool{true, false}, [2]bool{}, true},
		{"both beyond", [2][4]Finding{other, other}, Failed, [2]bool{true, true}, [2]bool{}, [2]bool{}, false},
		{"two thirds convict nobody", [2][4]Finding{same, {Other, Other, Same, Same}}, Delivering, [2]bool{}, [2]bool{true, false}, [2]bool{}, true},
		{"nobody agrees about anything", [2][4]Finding{{Other, Other, Same, Same}, {Other, Other, Missing}}, Failed, [2]bool{}, [2]bool{}, [2]bool{}, false},
		{"one not to be had", [2][4]Finding{{Missing, Missing, Missing}, same}, Delivering, [2]bool{}, [2]bool{false, true}, [2]bool{true, false}, true},
		{"the comparator fails", [2][4]Finding{{Unjudged, Unjudged, Unjudged}, {Unjudged, Unjudged, Unjudged}}, Failed, [2]bool{}, [2]bool{true, true}, [2]bool{}, false},
		{"the comparator fails, and one exited otherwise", [2][4]Finding{{Unjudged, Unjudged, Unjudged}, other}, Failed, [2]bool{false, true}, [2]bool{true, false}, [2]bool{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 4, 2)
			id, seated := w.differing(tolerantSpec())
			had := w.balance(w.owner.ID())
			var before [2]crowd.Credits
			for i, k := range seated {
				before[i] = w.balance(k.ID())
			}
			for a, k := range w.authorities {
				for i := range seated {
					if f := tt.found[i][a]; f != 0 && w.job(id).State == Court {
						w.must(k, &Vote{Job: id, Question: SameAnswer, Executor: seated[i].ID(), Finding: f})
					}
				}
			}
			if w.job(id).State == Court {
				w.wait(int64(w.job(id).Due - w.now))
			}
			j := w.in(id, tt.state)
			if tt.state == Delivering {
				if j.Verdict.By != ByCourt || j.Verdict.Outcome != near(0) && tt.paid[0] {
					t.Errorf("got the verdict %s by %s, want the outcome of the lower gas", j.Verdict.Outcome, j.Verdict.By)
				}
				if !strings.Contains(j.History[len(j.History)-1].Why, "numeric divergence") {
					t.Errorf("got %q", j.History[len(j.History)-1].Why)
				}
				w.must(w.owner, &Accept{Job: id})
				j = w.in(id, Settled)
			}
			for i, k := range seated {
				lost, paid := w.stake(k.ID()) == 0, w.balance(k.ID()) > before[i]
				r := w.s.Reputation(k.ID().Address())
				if lost != tt.stakes[i] || paid != tt.paid[i] || (r.Faults > 0) != tt.faults[i] || (r.Caught > 0) != tt.stakes[i] || (r.Done > 0) != (tt.evidence && tt.paid[i]) {
					t.Errorf("executor %d: got lost %v, paid %v, %+v", i, lost, paid, r)
				}
			}
			if tt.state == Failed && tt.paid == [2]bool{} && tt.stakes == [2]bool{} && w.balance(w.owner.ID()) != had+w.s.Params().EscrowFor(&j.Spec) {
				t.Error("the owner paid for nothing")
			}
		})
	}
}

// The court of a tolerant job without a cheater is paid, out of an escrow that holds its pay.
func TestTolerant_TheCourtIsPaid(t *testing.T) {
	strict, tolerant := testSpec(), tolerantSpec()
	if got, want := DevParams().EscrowFor(&tolerant)-DevParams().EscrowFor(&strict), crowd.ReferencePrice.Cost(tolerant.Task.Limits.Gas); got != want {
		t.Errorf("got %s for the court, want %s", got, want)
	}
	w := newWorld(t, 1, 2)
	id, seated := w.differing(tolerant)
	before := w.balance(w.authorities[0].ID())
	for _, k := range seated {
		w.must(w.authorities[0], &Vote{Job: id, Question: SameAnswer, Executor: k.ID(), Finding: Same})
	}
	if got, want := w.balance(w.authorities[0].ID())-before, crowd.ReferencePrice.Cost(near(0).Gas); got != want {
		t.Errorf("the court got %s, want %s", got, want)
	}
}

func TestTolerant_VotesAreAboutWhatIsAsked(t *testing.T) {
	w := newWorld(t, 4, 3)
	id, seated := w.differing(tolerantSpec())
	a := w.authorities[0]
	good := &Vote{Job: id, Question: SameAnswer, Executor: seated[0].ID(), Finding: Same}
	w.refused(BadTx, a, &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	w.refused(BadTx, a, &Vote{Job: id, Question: SameAnswer, Executor: seated[0].ID()})
	w.refused(BadTx, a, &Vote{Job: id, Question: SameAnswer, Executor: seated[0].ID(), Finding: 99})
	w.refused(TooLate, a, &Vote{Job: id, Question: SameAnswer, Executor: seated[0].ID(), Finding: Same, Item: 1})
	w.refused(NotFound, a, &Vote{Job: id, Question: SameAnswer, Executor: w.owner.ID(), Finding: Same})
	w.refused(NotYours, seated[0], good)
	for _, k := range w.authorities { // what all of them came to themselves decides nothing
		w.must(k, &Vote{Job: id, Question: OwnAnswer, Outcome: near(0)})
		w.in(id, Court)
	}
	w.refused(Duplicate, a, &Vote{Job: id, Question: OwnAnswer, Outcome: near(1)})
	w.refused(BadTx, w.authorities[1], &Vote{Job: id, Question: OwnAnswer, Outcome: crowd.Outcome{Result: crowd.CID(make([]byte, crowd.MaxCID+1))}})
	w.refused(BadTx, w.authorities[1], &Vote{Job: id, Question: OwnAnswer, Outcome: crowd.Outcome{Leaves: "bafyleaves"}})
	w.must(a, good)
	w.refused(Duplicate, a, &Vote{Job: id, Question: SameAnswer, Executor: seated[0].ID(), Finding: Other})

	w = newWorld(t, 4, 2)
	id, seated = w.differing(testSpec())
	w.refused(BadTx, w.authorities[0], &Vote{Job: id, Question: SameAnswer, Executor: seated[0].ID(), Finding: Same})
}

// tolerantBatch is a batch whose verifiers differ from the executor about those items, in Delivering.
func (w *world) tolerantBatch(differ func(uint32) bool) (id crowd.JobID, seated []*identity.Key, reports []*Report) {
	w.t.Helper()
	spec := sampleSpec()
	spec.Compare = crowd.Compare{Kind: crowd.CompareLines}
	id, seated = w.sampled(spec)
	leaves, tree, out := sampleWork(w.t.(*testing.T), never)
	openings := []Opening{{Outcome: out, Salt: crowd.Keccak256([]byte("salt"))}}
	for _, k := range seated[1:] {
		o := w.answers(k, id, differ)
		o.Outputs = "bafyoutputs"
		openings = append(openings, o)
	}
	for i, k := range seated {
		w.commitOpening(k, id, openings[i])
	}
	for i, k := range seated {
		j := w.job(id)
		for n, item := range lotOf(w, &j, k, &openings[i]) {
			if proof := tree.Prove(item, leaves[item]); proof.Leaf.Hash() != openings[i].Answers[n] {
				w.refused(NotYours, k, &Reveal{Job: id, Opening: openings[i], Conflict: &proof})
				break
			}
		}
		w.must(k, &Reveal{Job: id, Opening: openings[i]})
	}
	j := w.in(id, Delivering)
	for _, k := range seated[1:] {
		p := j.Place(k.ID())
		lot, err := j.Lot(k.ID(), p.Opening)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, item := range Sampled(&j.Spec, lot) {
			if differ(item) {
				reports = append(reports, &Report{Job: id, Verifier: k.ID(), Proof: tree.Prove(item, leaves[item])})
			}
		}
	}
	return id, seated, reports
}

// findings lets all authorities find the same about who is before the court.
func (w *world) findings(id crowd.JobID, f func(p *Place) Finding) {
	j := w.in(id, Court)
	for _, p := range j.Judged() {
		for _, a := range w.authorities {
			if now := w.job(id); now.State == Court && now.Found(p.Node, len(w.authorities)) == 0 {
				w.must(a, &Vote{Job: id, Question: SameAnswer, Executor: p.Node, Item: j.Dispute.Item, Finding: f(p)})
			}
		}
	}
}

func always(f Finding) func(*Place) Finding { return func(*Place) Finding { return f } }

// The chain cannot compare: it hears the owner and the authorities, for whom it costs something, and not for ever.
func TestTolerant_WhoSendsTheCourtForNothingPays(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated, reports := w.tolerantBatch(func(uint32) bool { return true })
	for _, k := range []*identity.Key{seated[0], seated[1], w.providers[4]} {
		w.refused(NotYours, k, reports[0])
	}
	had := w.balance(w.authorities[0].ID())
	for n := range IdleDisputes {
		w.must(w.owner, reports[n])
		w.findings(id, always(Same))
		w.in(id, Delivering)
		w.refused(Duplicate, w.owner, reports[n])
	}
	w.refused(Duplicate, w.owner, reports[IdleDisputes])
	one := crowd.ReferencePrice.Cost(sampleSpec().Task.Limits.Gas)
	if got := w.balance(w.authorities[0].ID()) - had; got != IdleDisputes*one {
		t.Errorf("the court got %s, want %s", got, IdleDisputes*one)
	}
	w.must(w.owner, &Accept{Job: id})
	j := w.in(id, Settled)
	if j.Spent() < IdleDisputes*one {
		t.Errorf("the owner spent %s", j.Spent())
	}
	for _, k := range seated {
		if w.stake(k.ID()) == 0 {
			t.Errorf("%s lost its stake", k.ID().Short())
		}
	}
}

func TestTolerant_Batch(t *testing.T) {
	isVerifier := func(f Finding) func(p *Place) Finding {
		return func(p *Place) Finding {
			if p.Verifier {
				return f
			}
			return Same
		}
	}
	isExecutor := func(f Finding) func(p *Place) Finding {
		return func(p *Place) Finding {
			if p.Verifier {
				return Same
			}
			return f
		}
	}
	for _, tt := range []struct {
		name   string
		found  func(*Place) Finding
		state  JobState
		lost   []bool // stakes
		faults []bool
		paid   []bool
	}{
		{"all within", always(Same), Delivering, []bool{false, false, false}, []bool{false, false, false}, []bool{true, true, true}},
		{"the executor beyond", isExecutor(Other), Failed, []bool{true, false, false}, []bool{false, false, false}, []bool{false, true, true}},
		{"the verifier beyond", isVerifier(Other), Delivering, []bool{false, true, false}, []bool{false, false, false}, []bool{true, false, true}},
		{"the verifier's outputs not to be had", isVerifier(Missing), Delivering, []bool{false, false, false}, []bool{false, true, false}, []bool{true, false, true}},
		{"the result not to be had", isExecutor(Missing), Failed, []bool{false, false, false}, []bool{true, false, false}, []bool{false, false, false}},
		{"the comparator fails", isVerifier(Unjudged), Failed, []bool{false, false, false}, []bool{false, false, false}, []bool{true, true, true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 4, 5)
			id, seated, reports := w.tolerantBatch(func(uint32) bool { return true })
			var before []crowd.Credits
			for _, k := range seated {
				before = append(before, w.balance(k.ID()))
			}
			n := 0 // an item that only the first verifier has
			for j := w.job(id); ; n++ {
				if _, _, both := j.Answer(j.Place(seated[2].ID()), reports[n].Proof.Index); !both {
					break
				}
			}
			w.must(w.owner, reports[n])
			w.findings(id, tt.found)
			w.in(id, tt.state)
			if tt.state == Delivering {
				w.must(w.owner, &Accept{Job: id})
				w.in(id, Settled)
			}
			for i, k := range seated {
				r := w.s.Reputation(k.ID().Address())
				if got := [3]bool{w.stake(k.ID()) == 0, r.Faults > 0, w.balance(k.ID()) > before[i]}; got != [3]bool{tt.lost[i], tt.faults[i], tt.paid[i]} {
					t.Errorf("place %d: got lost stake, faults, paid %v, want %v %v %v", i, got, tt.lost[i], tt.faults[i], tt.paid[i])
				}
			}
		})
	}
}

func TestTolerant_AVerifierNamesItsOutputs(t *testing.T) {
	for _, tolerant := range []bool{false, true} {
		for _, outputs := range []crowd.CID{"", "bafyoutputs", crowd.CID(make([]byte, crowd.MaxCID+1))} {
			w := newWorld(t, 1, 5)
			spec := sampleSpec()
			if tolerant {
				spec.Compare = crowd.Compare{Kind: crowd.CompareLines}
			}
			id, seated := w.sampled(spec)
			_, _, out := sampleWork(t, never)
			o := w.answers(seated[1], id, never)
			o.Outputs = outputs
			w.commitOpening(seated[0], id, Opening{Outcome: out})
			w.commitOpening(seated[1], id, o)
			w.commitOpening(seated[2], id, w.answers(seated[2], id, never))
			w.must(seated[1], &Reveal{Job: id, Opening: o})
			good := tolerant == (outputs == "bafyoutputs") && len(outputs) <= crowd.MaxCID
			if got := w.stake(seated[1].ID()) > 0; got != good {
				t.Errorf("tolerant %v, outputs of %d bytes: got accepted %v", tolerant, len(outputs), got)
			}
		}
	}
}

// lotOf are the items of a verifier's sample; none of an executor's.
func lotOf(w *world, j *Job, k *identity.Key, o *Opening) []uint32 {
	w.t.Helper()
	if len(o.Sample) == 0 {
		return nil
	}
	lot, err := j.Lot(k.ID(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return Sampled(&j.Spec, lot)
}

// With these numbers of authorities more than half and more than two thirds differ, so that a court that counts by
// halves is seen. One finding short of two thirds convicts nobody, neither before the court's deadline nor at it.
func TestTolerant_TheCourtNeedsMoreThanTwoThirds(t *testing.T) {
	for _, n := range []int{3, 5, 6, 7, 10} {
		need := 2*n/3 + 1
		for _, enough := range []bool{false, true} {
			w := newWorld(t, n, 2)
			id, seated := w.differing(tolerantSpec())
			vote := func(from, to, party int, f Finding) {
				for _, a := range w.authorities[from:to] {
					if w.job(id).State == Court {
						w.must(a, &Vote{Job: id, Question: SameAnswer, Executor: seated[party].ID(), Finding: f})
					}
				}
			}
			vote(0, need-1, 0, Other)
			j := w.job(id)
			if got := j.Found(seated[0].ID(), n); got != 0 {
				t.Errorf("%d of %d authorities: got %q want no finding", need-1, n, got)
			}
			vote(0, need, 1, Same)
			w.in(id, Court)
			if enough {
				vote(need-1, need, 0, Other)
			} else {
				params, spec := w.s.Params(), tolerantSpec()
				w.wait(params.CourtTime(&spec))
			}
			w.in(id, Delivering)
			if lost := w.stake(seated[0].ID()) == 0; lost != enough {
				t.Errorf("%d of %d authorities found another answer, enough %v: got stake lost %v", need, n, enough, lost)
			}
			if w.stake(seated[1].ID()) == 0 {
				t.Errorf("%d authorities: who gave the same answer lost its stake", n)
			}
		}
	}
}
