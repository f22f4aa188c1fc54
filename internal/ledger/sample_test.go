package ledger

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/identity"
)

const sampleItems = 1000

func sampleSpec() crowd.JobSpec {
	s := testSpec()
	s.Items = sampleItems
	s.Task.Stdin = "bafyitems"
	s.Task.Limits.Gas = 1e6
	s.Task.Limits.Output = 1 << 10
	s.Plan = crowd.Plan{Method: crowd.PlanSample, Verifiers: 2, Checks: 22}
	return s
}

// leafOf is what item i comes to; a lie is another output.
func leafOf(i uint32, lie bool) batch.Leaf {
	return batch.Leaf{Status: crowd.Exited, Gas: crowd.Gas(1000 + i), Output: crowd.Keccak256(fmt.Appendf(nil, "%d %v", i, lie))}
}

// work is what an executor makes of all items, lying about some.
func sampleWork(t *testing.T, lie func(i uint32) bool) ([]batch.Leaf, *batch.Tree, crowd.Outcome) {
	t.Helper()
	leaves := make([]batch.Leaf, sampleItems)
	for i := range leaves {
		leaves[i] = leafOf(uint32(i), lie(uint32(i)))
	}
	tree, err := batch.NewTree(leaves)
	if err != nil {
		t.Fatal(err)
	}
	top := tree.Root().Top
	return leaves, tree, crowd.Outcome{Status: crowd.Exited, Gas: top.Gas, Root: top.Hash, Result: "bafyresult", Leaves: "bafyleaves"}
}

// answers is a verifier's opening, lying about some items.
func (w *world) answers(k *identity.Key, id crowd.JobID, lie func(i uint32) bool) Opening {
	j := w.job(id)
	proof, lot := k.VRF().Prove(SampleInput(id, k.ID(), j.Beacon))
	o := Opening{Salt: crowd.Keccak256(id[:]), Sample: proof[:]}
	for _, i := range Sampled(&j.Spec, lot) {
		o.Answers = append(o.Answers, leafOf(i, lie(i)).Hash())
	}
	return o
}

func (w *world) commitOpening(k *identity.Key, id crowd.JobID, o Opening) {
	w.t.Helper()
	m := &Commit{Job: id, Commitment: Commitment(id, k.ID(), o)}
	for range w.authorities {
		m.Sealed = append(m.Sealed, []byte("sealed"))
	}
	w.must(k, m)
}

// sampled posts a batch and seats its places: the executor first.
func (w *world) sampled(spec crowd.JobSpec) (crowd.JobID, []*identity.Key) {
	w.t.Helper()
	id := w.drawn(spec, w.providers...)
	j := w.in(id, Running)
	var seated []*identity.Key
	for i, p := range j.Places {
		if p.Verifier != (i > 0) {
			w.t.Fatalf("place %d: got verifier %v", i, p.Verifier)
		}
		seated = append(seated, w.keyOf(p.Node))
	}
	return id, seated
}

func never(uint32) bool { return false }

// opened plays a batch up to the owner's delivery.
func (w *world) opened(executor func(uint32) bool, verifiers ...func(uint32) bool) (crowd.JobID, []*identity.Key, []batch.Leaf, *batch.Tree) {
	w.t.Helper()
	id, seated := w.sampled(sampleSpec())
	leaves, tree, out := sampleWork(w.t.(*testing.T), executor)
	openings := []Opening{{Outcome: out, Salt: crowd.Keccak256([]byte("salt"))}}
	for i, k := range seated[1:] {
		openings = append(openings, w.answers(k, id, verifiers[i]))
	}
	for i, k := range seated {
		w.commitOpening(k, id, openings[i])
	}
	w.in(id, Revealing)
	for i, k := range seated {
		w.must(k, &Reveal{Job: id, Opening: openings[i]})
	}
	w.in(id, Delivering)
	return id, seated, leaves, tree
}

// conflict is a report of the first difference between the executor and a verifier.
func (w *world) conflict(id crowd.JobID, v crowd.NodeID, leaves []batch.Leaf, tree *batch.Tree) *Report {
	j := w.job(id)
	o := j.Place(v).Opening
	lot, err := j.Lot(v, o)
	if err != nil {
		w.t.Fatal(err)
	}
	for k, i := range Sampled(&j.Spec, lot) {
		if leaves[i].Hash() != o.Answers[k] {
			return &Report{Job: id, Verifier: v, Answer: uint32(k), Proof: tree.Prove(i, leaves[i])}
		}
	}
	return nil
}

func TestSample_HonestWorkIsPaid(t *testing.T) {
	w := newWorld(t, 1, 5)
	had := w.balance(w.owner.ID())
	id, seated, leaves, _ := w.opened(never, never, never)
	before := make([]crowd.Credits, len(seated))
	for i, k := range seated {
		before[i] = w.balance(k.ID())
	}
	w.must(w.owner, &Accept{Job: id})
	j := w.in(id, Settled)
	if j.Verdict.By != BySample {
		t.Errorf("got a verdict by %q", j.Verdict.By)
	}
	total := crowd.Gas(0)
	for _, l := range leaves {
		total += l.Gas
	}
	paid := crowd.Credits(0)
	for i, k := range seated {
		gas := total
		if i > 0 {
			gas = (total*22 + sampleItems - 1) / sampleItems
		}
		cost := crowd.ReferencePrice.Cost(gas)
		if got, want := w.balance(k.ID())-before[i], cost-cost.PPM(DevParams().BurnPPM); got != want {
			t.Errorf("place %d: got %s want %s", i, got, want)
		}
		paid += cost
	}
	if got := had - w.balance(w.owner.ID()) - 2*DevParams().TxFee; got != paid {
		t.Errorf("the owner paid %s, want %s", got, paid)
	}
}

func TestSample_ALyingExecutorLosesItsStake(t *testing.T) {
	w := newWorld(t, 3, 5)
	had := w.balance(w.owner.ID())
	id, seated, leaves, tree := w.opened(func(i uint32) bool { return i%5 == 0 }, never, never)
	r := w.conflict(id, seated[1].ID(), leaves, tree)
	if r == nil {
		t.Fatal("22 checks missed a lie in every fifth item: another seed is wanted")
	}
	w.must(seated[1], r)
	w.in(id, Court)
	want := leafOf(r.Proof.Index, false).Hash()
	for _, a := range w.authorities {
		w.must(a, &Vote{Job: id, Question: WhatItem, Item: r.Proof.Index, Leaf: want})
	}
	j := w.in(id, Failed)
	if j.Verdict != nil {
		t.Error("a lie stands as the verdict")
	}
	if w.stake(seated[0].ID()) != 0 {
		t.Error("the liar kept its stake")
	}
	for _, k := range seated[1:] {
		if w.stake(k.ID()) != 100*crowd.Credit {
			t.Error("an honest verifier lost stake")
		}
	}
	if got := w.balance(w.owner.ID()); got+DevParams().TxFee != had {
		t.Errorf("the owner has %s, had %s", got, had)
	}
}

func TestSample_AFramingVerifierLosesItsStake(t *testing.T) {
	w := newWorld(t, 3, 5)
	id, seated, leaves, tree := w.opened(never, func(uint32) bool { return true }, never)
	if r := w.conflict(id, seated[2].ID(), leaves, tree); r != nil {
		t.Fatal("two honest nodes differ")
	}
	r := w.conflict(id, seated[1].ID(), leaves, tree)
	w.must(seated[1], r) // it may even report itself
	for _, a := range w.authorities {
		w.must(a, &Vote{Job: id, Question: WhatItem, Item: r.Proof.Index, Leaf: leaves[r.Proof.Index].Hash()})
	}
	w.in(id, Delivering)
	if w.stake(seated[1].ID()) != 0 || w.stake(seated[0].ID()) == 0 || w.stake(seated[2].ID()) == 0 {
		t.Error("the framer alone should have lost its stake")
	}
	w.must(w.owner, &Accept{Job: id})
	w.in(id, Settled)
}

func TestReport_OnlyARealConflictIsHeard(t *testing.T) {
	w := newWorld(t, 1, 6)
	id, seated, leaves, tree := w.opened(never, never, func(uint32) bool { return true })
	j := w.job(id)
	honest, liar := seated[1].ID(), seated[2].ID()
	lot, err := j.Lot(honest, j.Place(honest).Opening)
	if err != nil {
		t.Fatal(err)
	}
	sample := Sampled(&j.Spec, lot)
	good := w.conflict(id, liar, leaves, tree)
	lie := leafOf(sample[0], true)
	forged := tree.Prove(sample[0], lie)
	elsewhere := uint32(slices.IndexFunc(leaves, func(l batch.Leaf) bool { return l.Gas == 1000 }))
	for name, m := range map[string]struct {
		r    Report
		code Code
	}{
		"no conflict":         {Report{Job: id, Verifier: honest, Proof: tree.Prove(sample[0], leaves[sample[0]])}, BadProof},
		"a forged leaf":       {Report{Job: id, Verifier: honest, Proof: forged}, BadProof},
		"an item not sampled": {Report{Job: id, Verifier: liar, Answer: good.Answer, Proof: tree.Prove(elsewhere, leaves[elsewhere])}, BadProof},
		"an answer beyond":    {Report{Job: id, Verifier: liar, Answer: 22, Proof: good.Proof}, NotFound},
		"an executor":         {Report{Job: id, Verifier: seated[0].ID(), Proof: good.Proof}, NotFound},
		"another job":         {Report{Job: crowd.JobID{1}, Verifier: liar, Proof: good.Proof}, NotFound},
	} {
		t.Run(name, func(t *testing.T) { w.refused(m.code, w.providers[5], &m.r) })
	}
	w.must(w.providers[5], good)
}

func TestSample_ImpossibleOpeningsAreFraud(t *testing.T) {
	_, _, out := sampleWork(t, never)
	huge := out
	huge.Gas = 1e6*sampleItems + 1
	rootless := out
	rootless.Root = crowd.Hash{}
	for name, spoil := range map[string]func(place int, o *Opening){
		"too much gas":      func(place int, o *Opening) { o.Outcome.Gas += huge.Gas },
		"no root":           func(place int, o *Opening) { o.Outcome.Root = crowd.Hash{} },
		"few answers":       func(place int, o *Opening) { o.Answers = o.Answers[:max(len(o.Answers)-1, 0)] },
		"another's sample":  func(place int, o *Opening) { o.Sample = make([]byte, 80) },
		"no sample":         func(place int, o *Opening) { o.Sample = nil },
		"an outcome beside": func(place int, o *Opening) { o.Outcome.ExitCode = 7 },
	} {
		for place := range 2 {
			w := newWorld(t, 1, 5)
			id, seated := w.sampled(sampleSpec())
			openings := []Opening{{Outcome: out, Salt: crowd.Hash{1}}, w.answers(seated[1], id, never), w.answers(seated[2], id, never)}
			before := crowd.Encode(openings[place])
			spoil(place, &openings[place])
			if string(before) == string(crowd.Encode(openings[place])) {
				continue // nothing of that kind in this place
			}
			for i, k := range seated {
				w.commitOpening(k, id, openings[i])
			}
			w.must(seated[place], &Reveal{Job: id, Opening: openings[place]})
			if w.stake(seated[place].ID()) != 0 {
				t.Errorf("%s in place %d passed", name, place)
			}
		}
	}
}

func TestSample_NothingIsAcceptedWithFewerChecks(t *testing.T) {
	t.Run("a verifier never commits", func(t *testing.T) {
		w := newWorld(t, 1, 3)
		id, seated := w.sampled(sampleSpec())
		_, _, out := sampleWork(t, never)
		w.commitOpening(seated[0], id, Opening{Outcome: out})
		w.commitOpening(seated[1], id, w.answers(seated[1], id, never))
		w.wait(20_000)
		w.in(id, Failed)
	})
	t.Run("a verifier never opens", func(t *testing.T) {
		w := newWorld(t, 1, 3)
		id, seated := w.sampled(sampleSpec())
		_, _, out := sampleWork(t, never)
		w.commitOpening(seated[0], id, Opening{Outcome: out})
		w.commitOpening(seated[1], id, w.answers(seated[1], id, never))
		w.commitOpening(seated[2], id, w.answers(seated[2], id, never))
		w.must(seated[0], &Reveal{Job: id, Opening: Opening{Outcome: out}})
		w.must(seated[1], &Reveal{Job: id, Opening: w.answers(seated[1], id, never)})
		w.wait(3_000)
		w.in(id, Unsealing)
		w.wait(61_000)
		if j := w.in(id, Failed); j.Escrow != 0 {
			t.Error("escrow is left")
		}
	})
}

func TestSample_WhoHidesItsLeavesGetsNothing(t *testing.T) {
	w := newWorld(t, 3, 3)
	had := w.balance(w.owner.ID())
	id, seated := w.sampled(sampleSpec())
	_, _, out := sampleWork(t, never)
	w.commitOpening(seated[0], id, Opening{Outcome: out})
	for _, k := range seated[1:] {
		w.commitOpening(k, id, w.answers(k, id, never))
	}
	vote := &Vote{Job: id, Question: LeavesThere}
	w.refused(TooEarly, w.authorities[0], vote)
	w.must(seated[0], &Reveal{Job: id, Opening: Opening{Outcome: out}})
	w.wait(3_000)
	w.in(id, Unsealing)
	for _, a := range w.authorities {
		w.must(a, vote)
	}
	w.in(id, Failed)
	if got := w.balance(w.owner.ID()); got+DevParams().TxFee != had {
		t.Errorf("the owner has %s, had %s", got, had)
	}
	for i, k := range seated {
		r := w.s.Reputation(k.ID().Address())
		if want := uint64(0); i > 0 && r.Faults != want || i == 0 && r.Faults != 1 {
			t.Errorf("place %d: got %d faults", i, r.Faults)
		}
		if w.stake(k.ID()) != 100*crowd.Credit {
			t.Errorf("place %d lost stake", i)
		}
	}
}

func TestPost_BatchesNameTheirBounds(t *testing.T) {
	w := newWorld(t, 1, 5)
	for name, spoil := range map[string]func(s *crowd.JobSpec){
		"no verifier":     func(s *crowd.JobSpec) { s.Plan.Verifiers = 0 },
		"no check":        func(s *crowd.JobSpec) { s.Plan.Checks = 0 },
		"many verifiers":  func(s *crowd.JobSpec) { s.Plan.Verifiers = crowd.MaxVerifiers + 1 },
		"no items":        func(s *crowd.JobSpec) { s.Items = 0 },
		"no item file":    func(s *crowd.JobSpec) { s.Task.Stdin = "" },
		"too many items":  func(s *crowd.JobSpec) { s.Items = crowd.MaxItems + 1 },
		"endless gas":     func(s *crowd.JobSpec) { s.Task.Limits.Gas = 1 << 60 },
		"a pair's checks": func(s *crowd.JobSpec) { s.Plan.Method = crowd.PlanPair },
		"none":            func(s *crowd.JobSpec) { s.Plan.Method = "none" },
	} {
		t.Run(name, func(t *testing.T) {
			s := sampleSpec()
			spoil(&s)
			w.refused(BadSpec, w.owner, &Post{Spec: s})
		})
	}
	s := sampleSpec()
	s.Plan.Verifiers = 5
	w.refused(NoProvider, w.owner, &Post{Spec: s})
}

// A vote about one item that comes when the court is asked about the next is none about that.
func TestVote_IsAboutOneItem(t *testing.T) {
	w := newWorld(t, 4, 5)
	id, seated, leaves, tree := w.opened(never, func(uint32) bool { return true }, func(uint32) bool { return true })
	first, second := w.conflict(id, seated[1].ID(), leaves, tree), w.conflict(id, seated[2].ID(), leaves, tree)
	if first.Proof.Index == second.Proof.Index {
		t.Fatal("both samples begin alike: another seed is wanted")
	}
	vote := func(r *Report) *Vote {
		return &Vote{Job: id, Question: WhatItem, Item: r.Proof.Index, Leaf: leaves[r.Proof.Index].Hash()}
	}
	w.must(seated[1], first)
	w.refused(TooLate, w.authorities[0], vote(second))
	for _, a := range w.authorities[:3] {
		w.must(a, vote(first))
	}
	w.must(seated[2], second)
	w.refused(TooLate, w.authorities[3], vote(first))
	for _, a := range w.authorities[1:] {
		w.must(a, vote(second))
	}
	w.in(id, Failed)
	if w.stake(seated[0].ID()) == 0 || w.stake(seated[1].ID())+w.stake(seated[2].ID()) != 0 {
		t.Error("the two framers alone should have lost their stake")
	}
}

// An executor sees the job, the draw, its items and what every earlier sample was. It learns from
// those which kinds of items are picked, by index, by remainder, by gas, by what the same
// verifier picked last, and guesses. Its hits may exceed those of blind guessing by 2 points at most.
func TestSample_AnExecutorCannotGuessIt(t *testing.T) {
	const items, checks, jobs = 400, 40, 600
	spec := sampleSpec()
	spec.Items, spec.Plan.Checks = items, checks
	verifiers := []*identity.Key{key(t, 1), key(t, 2), key(t, 3)}
	var last [3]map[uint32]bool
	features := func(v int, i uint32) [6]uint32 {
		f := [6]uint32{i, i % 7, i % 16, uint32(leafOf(i, false).Gas) % 11, 0, i * 8 / items}
		if last[v][i] || last[v][i+1] {
			f[4] = 1
		}
		return f
	}
	var seen, picked [6]map[uint32]float64
	for k := range seen {
		seen[k], picked[k] = map[uint32]float64{}, map[uint32]float64{}
	}
	beacon, hits, guesses := crowd.Keccak256([]byte("beacon")), 0, 0
	for n := range jobs {
		v := n % len(verifiers)
		job := crowd.JobID(crowd.Keccak256(fmt.Appendf(nil, "job %d", n)))
		beacon = crowd.Keccak256(beacon[:])
		_, lot := verifiers[v].VRF().Prove(SampleInput(job, verifiers[v].ID(), beacon))
		sample := map[uint32]bool{}
		for _, i := range Sampled(&spec, lot) {
			sample[i] = true
		}
		type guess struct {
			item  uint32
			score float64
		}
		guessed := make([]guess, items)
		for i := range uint32(items) {
			guessed[i] = guess{item: i}
			for k, f := range features(v, i) {
				guessed[i].score += (picked[k][f] + 1) / (seen[k][f] + float64(items)/checks)
			}
		}
		slices.SortStableFunc(guessed, func(a, b guess) int {
			switch {
			case a.score > b.score:
				return -1
			case a.score < b.score:
				return 1
			}
			return 0
		})
		if n >= jobs/2 { // it has learnt enough
			for _, g := range guessed[:checks] {
				guesses++
				if sample[g.item] {
					hits++
				}
			}
		}
		for i := range uint32(items) {
			for k, f := range features(v, i) {
				seen[k][f]++
				if sample[i] {
					picked[k][f]++
				}
			}
		}
		last[v] = sample
	}
	if got, blind := float64(hits)/float64(guesses), float64(checks)/items; got-blind > 0.02 {
		t.Errorf("guessed %.3f of the sampled items, blind guessing gives %.3f", got, blind)
	}
}

// A verifier that waits for leaves which an executor hides was there. One that an authority with the leaves has to open was not.
func TestSample_WhoHidesItsLeavesBlamesNobodyElse(t *testing.T) {
	setup := func() (*world, crowd.JobID, []*identity.Key, Reputation) {
		w := newWorld(t, 3, 3)
		id, seated := w.sampled(sampleSpec())
		_, _, out := sampleWork(t, never)
		w.commitOpening(seated[0], id, Opening{Outcome: out})
		for _, k := range seated[1:] {
			w.commitOpening(k, id, w.answers(k, id, never))
		}
		w.must(seated[0], &Reveal{Job: id, Opening: Opening{Outcome: out}})
		w.must(seated[1], &Reveal{Job: id, Opening: w.answers(seated[1], id, never)})
		before := w.s.Reputation(seated[2].ID().Address())
		w.wait(3_000)
		w.in(id, Unsealing)
		return w, id, seated, before
	}
	w, id, seated, before := setup()
	for _, a := range w.authorities {
		w.must(a, &Vote{Job: id, Question: LeavesThere})
	}
	w.in(id, Failed)
	if got := w.s.Reputation(seated[2].ID().Address()); got.Down != before.Down {
		t.Errorf("a verifier without leaves counts as absent: %d, was %d", got.Down, before.Down)
	}

	w, id, seated, before = setup()
	w.must(w.authorities[0], &Unseal{Job: id, Executor: seated[2].ID(), Opening: w.answers(seated[2], id, never)})
	w.in(id, Delivering)
	if got := w.s.Reputation(seated[2].ID().Address()); got.Down <= before.Down {
		t.Error("a silent verifier counts as present")
	}
}

// While anybody of a batch still works, nobody opens: or a verifier could copy the leaves instead of running its sample.
func TestSample_NobodyOpensWhileSomebodyWorks(t *testing.T) {
	w := newWorld(t, 1, 3)
	id, seated := w.sampled(sampleSpec())
	_, _, out := sampleWork(t, never)
	w.commitOpening(seated[0], id, Opening{Outcome: out})
	w.commitOpening(seated[1], id, w.answers(seated[1], id, never))
	w.refused(TooEarly, seated[0], &Reveal{Job: id, Opening: Opening{Outcome: out}})
	w.refused(TooEarly, seated[1], &Reveal{Job: id, Opening: w.answers(seated[1], id, never)})
	w.refused(TooEarly, w.authorities[0], &Unseal{Job: id, Executor: seated[0].ID(), Opening: Opening{Outcome: out}})
	w.commitOpening(seated[2], id, w.answers(seated[2], id, never))
	late := w.answers(seated[2], id, never)
	w.refused(TooLate, seated[2], &Commit{Job: id, Commitment: Commitment(id, seated[2].ID(), late), Sealed: [][]byte{{1}}})
	w.must(seated[0], &Reveal{Job: id, Opening: Opening{Outcome: out}})
}

// Verifiers commit within seconds: an owner who wants a straggler's job back must not be too late by that. They have
// done their work and are paid all of it; who still works gets the share of a cancelled job; nothing is lost.
func TestCancel_VerifiersDoNotMakeItTooLate(t *testing.T) {
	w := newWorld(t, 1, 3)
	id, seated := w.sampled(sampleSpec())
	j, had := w.job(id), w.balance(w.owner.ID())
	w.commitOpening(seated[1], id, w.answers(seated[1], id, never))
	w.must(w.owner, &Cancel{Job: id})
	j = w.in(id, Cancelled)
	limit, p := j.Spec.Limits().Gas, w.s.Params()
	want := j.Places[0].Price.Cost(limit).PPM(p.CancelPPM) + j.Places[1].Price.Cost(CheckGas(&j.Spec, limit)) +
		j.Places[2].Price.Cost(CheckGas(&j.Spec, limit)).PPM(p.CancelPPM)
	if got := w.balance(w.owner.ID()) + j.Spent(); got != had+EscrowFor(&j.Spec)-p.TxFee || j.Spent() != want {
		t.Errorf("cancelling cost %s, want %s; the owner has %s", j.Spent(), want, got)
	}
	if err := CheckInvariants(w.s); err != nil {
		t.Error(err)
	}

	w = newWorld(t, 1, 3)
	id, seated = w.sampled(sampleSpec())
	_, _, out := sampleWork(t, never)
	w.commitOpening(seated[0], id, Opening{Outcome: out})
	w.refused(TooLate, w.owner, &Cancel{Job: id}) // else an owner could see that it is done and pay a tenth
}

// A verifier that is away is replaced while the executor still works, and by nobody sooner than it can fetch.
func TestSample_AnAbsentVerifierIsReplacedEarly(t *testing.T) {
	w := newWorld(t, 1, 5)
	spec := sampleSpec()
	spec.Task.Limits.Wall = 400 * time.Second
	id, seated := w.sampled(spec)
	w.commitOpening(seated[1], id, w.answers(seated[1], id, never))
	grace := w.s.Params().DispatchGrace
	w.wait(100_000 + grace - 1000)
	if j := w.in(id, Running); len(j.Places) != 3 {
		t.Fatalf("got %d places before the time, want 3", len(j.Places))
	}
	w.wait(1001)
	j := w.in(id, Running)
	if len(j.Places) != 4 || j.Places[2].State != Dropped || !j.Places[3].Verifier || j.Places[0].State != Working {
		t.Errorf("got %d places, the third %s, the executor %s: want an alternate for the verifier alone", len(j.Places), j.Places[2].State, j.Places[0].State)
	}
	spec.Plan.Checks = sampleItems / 2
	if got := w.s.Params().Patience(&spec, true) - grace; got < 190_000 || got > 200_000 {
		t.Errorf("got %d ms for half of the items, want half of the time", got)
	}
}
