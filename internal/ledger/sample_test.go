package ledger

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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
	s.Plan = crowd.Plan{Method: crowd.PlanSample, Verifiers: 2, Checks: 22, Replacements: 2}
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
			return &Report{Job: id, Verifier: v, Proof: tree.Prove(i, leaves[i])}
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
	if got := had - w.balance(w.owner.ID()) - 2*DevParams().TxFee - j.Duties; got != paid {
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
	theirs, err := j.Lot(liar, j.Place(liar).Opening)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := uint32(0)
	for slices.Contains(Sampled(&j.Spec, theirs), elsewhere) {
		elsewhere++
	}
	for name, m := range map[string]struct {
		r    Report
		code Code
	}{
		"no conflict":         {Report{Job: id, Verifier: honest, Proof: tree.Prove(sample[0], leaves[sample[0]])}, BadProof},
		"a forged leaf":       {Report{Job: id, Verifier: honest, Proof: forged}, BadProof},
		"an item not sampled": {Report{Job: id, Verifier: liar, Proof: tree.Prove(elsewhere, leaves[elsewhere])}, BadProof},
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
	if got := w.balance(w.owner.ID()); got+DevParams().TxFee+w.job(id).Duties != had {
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

// A verifier that waits for leaves which an executor hides was there. Nor is it away if an authority has the leaves and opens it: an
// executor may give them to the authorities alone.
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
	if got := w.s.Reputation(seated[2].ID().Address()); got.Down != before.Down {
		t.Errorf("a verifier that an authority opened counts as absent: %d, was %d", got.Down, before.Down)
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

func TestSample_AnExecutorWithoutAResultIsConvicted(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated := w.sampled(sampleSpec())
	_, _, out := sampleWork(t, never)
	out.Result = "" // the leaves alone are right, and nobody could read what the items wrote
	o := Opening{Outcome: out, Salt: crowd.Keccak256([]byte("salt"))}
	w.commitOpening(seated[0], id, o)
	for _, k := range seated[1:] {
		w.commitOpening(k, id, w.answers(k, id, never))
	}
	w.must(seated[0], &Reveal{Job: id, Opening: o})
	j := w.job(id)
	if p := j.Place(seated[0].ID()); p.State != Fraud {
		t.Errorf("got %s, want fraud: a batch without a result would be settled", p.State)
	}
}

// revealing plays a batch up to the verifiers' reveals: the executor has opened.
func (w *world) revealing(spec crowd.JobSpec, executor func(uint32) bool, verifiers ...func(uint32) bool) (crowd.JobID, []*identity.Key, []Opening, []*batch.Proof) {
	w.t.Helper()
	id, seated := w.sampled(spec)
	leaves, tree, out := sampleWork(w.t.(*testing.T), executor)
	openings := []Opening{{Outcome: out, Salt: crowd.Keccak256([]byte("salt"))}}
	proofs := []*batch.Proof{nil}
	for i, k := range seated[1:] {
		o := w.answers(k, id, verifiers[i])
		j := w.job(id)
		lot, err := j.Lot(k.ID(), &o)
		if err != nil {
			w.t.Fatal(err)
		}
		var conflict *batch.Proof
		for n, item := range Sampled(&j.Spec, lot) {
			if leaves[item].Hash() != o.Answers[n] {
				p := tree.Prove(item, leaves[item])
				conflict = &p
				break
			}
		}
		openings, proofs = append(openings, o), append(proofs, conflict)
	}
	for i, k := range seated {
		w.commitOpening(k, id, openings[i])
	}
	w.must(seated[0], &Reveal{Job: id, Opening: openings[0]})
	return id, seated, openings, proofs
}

// judge has all authorities vote on the item before the court, which executor works on like this.
func (w *world) judge(id crowd.JobID) {
	w.t.Helper()
	item := w.in(id, Court).Dispute.Item
	for _, a := range w.authorities {
		w.must(a, &Vote{Job: id, Question: WhatItem, Item: item, Leaf: leafOf(item, false).Hash()})
	}
}

// An owner that is in league with its executor would accept before anybody could report.
func TestReveal_ConflictsComeBeforeTheOwner(t *testing.T) {
	everyFifth := func(i uint32) bool { return i%5 == 0 }
	for _, silent := range []bool{false, true} { // the verifier that caught it, so that an authority opens it
		w := newWorld(t, 3, 5)
		id, seated, openings, proofs := w.revealing(sampleSpec(), everyFifth, never, everyFifth)
		w.must(seated[2], &Reveal{Job: id, Opening: openings[2]})
		if silent {
			w.in(id, Revealing)
			w.wait(DevParams().RevealWindow)
			w.in(id, Unsealing)
			w.must(w.authorities[0], &Unseal{Job: id, Executor: seated[1].ID(), Opening: openings[1], Conflict: proofs[1]})
		} else {
			w.must(seated[1], &Reveal{Job: id, Opening: openings[1], Conflict: proofs[1]})
		}
		w.refused(TooEarly, w.owner, &Accept{Job: id})
		before := w.balance(seated[1].ID())
		w.judge(id)
		w.in(id, Failed)
		if w.stake(seated[0].ID()) != 0 || w.stake(seated[1].ID()) == 0 {
			t.Error("the liar alone should have lost its stake")
		}
		if got, least := w.balance(seated[1].ID())-before, (100 * crowd.Credit).PPM(DevParams().BountyPPM); got < least {
			t.Errorf("silent %v: who caught it got %s, want the bounty of %s", silent, got, least)
		}
	}
}

func TestReveal_EachConflictHasItsTurn(t *testing.T) {
	var w *world
	lie := func(i uint32) bool { return i%3 == 1 }
	var id crowd.JobID
	var seated []*identity.Key
	var openings []Opening
	var proofs []*batch.Proof
	for try := range 20 { // until the first verifier's conflict is not the executor's lie
		w = newWorld(t, 1, 6, func(g *Genesis) { g.Time += crowd.Time(try) })
		if id, seated, openings, proofs = w.revealing(sampleSpec(), lie, func(i uint32) bool { return !lie(i) }, never); !lie(proofs[1].Index) {
			break
		}
	}
	// The first verifier answers falsely where the executor does not: in its name, too, that is looked at.
	w.must(seated[1], &Reveal{Job: id, Opening: openings[1], Conflict: proofs[1]})
	w.must(seated[2], &Reveal{Job: id, Opening: openings[2], Conflict: proofs[2]})
	if lie(proofs[1].Index) {
		t.Fatal("another seed is wanted: the first verifier's conflict is the executor's lie")
	}
	w.judge(id)
	if j := w.in(id, Court); j.Dispute.Verifier != seated[2].ID() || w.stake(seated[1].ID()) != 0 || w.stake(seated[0].ID()) == 0 {
		t.Fatalf("got a court about %s, want the second conflict, and the framer convicted", j.Dispute.Verifier.Short())
	}
	w.judge(id)
	w.in(id, Failed)
	if w.stake(seated[0].ID()) != 0 || w.stake(seated[2].ID()) == 0 {
		t.Error("the executor lied and should have lost its stake, the second verifier none")
	}
}

func TestReveal_OnlyARealConflictIsHeard(t *testing.T) {
	w := newWorld(t, 1, 6)
	id, seated, openings, _ := w.revealing(sampleSpec(), never, never, never)
	leaves, tree, _ := sampleWork(t, never)
	j := w.job(id)
	lot, err := j.Lot(seated[1].ID(), &openings[1])
	if err != nil {
		t.Fatal(err)
	}
	mine := Sampled(&j.Spec, lot)
	same, forged := tree.Prove(mine[0], leaves[mine[0]]), tree.Prove(mine[0], leafOf(mine[0], true))
	for _, p := range []*batch.Proof{&same, &forged} {
		w.refused(BadProof, seated[1], &Reveal{Job: id, Opening: openings[1], Conflict: p})
	}
	w.must(seated[1], &Reveal{Job: id, Opening: openings[1]})
	w.must(seated[2], &Reveal{Job: id, Opening: openings[2]})
	w.in(id, Delivering)
}

// Two framers lie about one item, and each shows another: the court needs to look only once.
func TestReveal_AConvictedVerifierIsNotHeard(t *testing.T) {
	w := newWorld(t, 1, 6)
	spec := sampleSpec()
	spec.Plan.Verifiers, spec.Plan.Checks = 3, 200
	always := func(uint32) bool { return true }
	id, seated, openings, proofs := w.revealing(spec, never, always, always, never)
	leaves, tree, _ := sampleWork(t, never)
	j := w.job(id)
	var samples [2][]uint32
	for i := range samples {
		lot, err := j.Lot(seated[1+i].ID(), &openings[1+i])
		if err != nil {
			t.Fatal(err)
		}
		samples[i] = Sampled(&j.Spec, lot)
	}
	at := slices.IndexFunc(samples[0], func(i uint32) bool { return i != samples[1][0] && slices.Contains(samples[1], i) })
	if at < 0 {
		t.Fatal("no item is in both samples: another seed is wanted")
	}
	both := samples[0][at]
	shown := tree.Prove(both, leaves[both])
	proofs[1] = &shown
	for i := 1; i < 4; i++ {
		w.must(seated[i], &Reveal{Job: id, Opening: openings[i], Conflict: proofs[i]})
	}
	w.judge(id)
	w.in(id, Delivering)
	if w.stake(seated[1].ID()) != 0 || w.stake(seated[2].ID()) != 0 || w.stake(seated[3].ID()) == 0 {
		t.Error("both framers, and they alone, should have lost their stake")
	}
}

// One authority of many may be in league with an executor, and opens what verifiers seal to it: it must be too late then.
func TestSample_VerifiersBindThemselvesAfterTheExecutor(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated := w.sampled(sampleSpec()) // two of five are alternates
	_, _, out := sampleWork(t, never)
	commitment := func(k *identity.Key) *Commit {
		o := w.answers(k, id, never)
		return &Commit{Job: id, Commitment: Commitment(id, k.ID(), o), Sealed: [][]byte{[]byte("sealed")}}
	}
	w.refused(TooEarly, seated[1], commitment(seated[1]))
	for _, k := range seated[1:] {
		unsealed := commitment(k)
		unsealed.Sealed = nil
		w.must(k, unsealed)
		w.refused(Duplicate, k, unsealed)
	}
	w.refused(TooEarly, seated[1], commitment(seated[1]))
	w.refused(BadTx, seated[0], &Commit{Job: id, Commitment: crowd.Hash{1}}) // an executor has nothing to hide
	w.refused(BadTx, seated[0], &Commit{Job: id, Sealed: [][]byte{[]byte("sealed")}})
	spec := sampleSpec()
	turn := spec.Task.Limits.Wall.Milliseconds() + DevParams().DispatchGrace
	w.wait(turn)
	j := w.in(id, Running)
	last := &j.Places[len(j.Places)-1]
	if j.Places[0].State != Dropped || last.Verifier || len(j.Places) != 4 {
		t.Fatalf("got %+v, want an alternate in place of the executor", j.Places)
	}
	for _, p := range j.Places[1:3] {
		if p.State != Working || w.s.Reputation(p.Node.Address()).Faults != 0 {
			t.Errorf("a verifier that must wait: got %s, %d faults", p.State, w.s.Reputation(p.Node.Address()).Faults)
		}
	}
	w.refused(TooEarly, seated[1], commitment(seated[1]))
	w.wait(turn - 2000)
	w.commitOpening(w.keyOf(last.Node), id, Opening{Outcome: out, Salt: crowd.Hash{1}})
	w.wait(DevParams().DispatchGrace/2 - 1000)
	other := commitment(seated[1])
	other.Commitment[0] ^= 1
	w.refused(BadTx, seated[1], other) // it was bound before it could hear of anything
	w.must(seated[1], commitment(seated[1]))
	if j = w.in(id, Running); j.Places[2].State != Working {
		t.Errorf("the other verifier still has time: got %s", j.Places[2].State)
	}
	w.wait(2000)
	if j = w.job(id); j.Places[2].State != Dropped {
		t.Errorf("the other verifier has had its time: got %s", j.Places[2].State)
	}
}

// A verifier that is away is replaced while the executor still works, and by nobody sooner than it can fetch and run.
func TestSample_AnAbsentVerifierIsReplacedEarly(t *testing.T) {
	w := newWorld(t, 1, 5)
	spec := sampleSpec()
	spec.Task.Limits.Wall = 400 * time.Second
	id, seated := w.sampled(spec)
	w.must(seated[1], &Commit{Job: id, Commitment: Commitment(id, seated[1].ID(), w.answers(seated[1], id, never))})
	grace := w.s.Params().DispatchGrace
	share := spec.Task.Limits.Wall.Milliseconds() / sampleItems * int64(spec.Plan.Checks)
	w.wait(share + grace - 1000)
	if j := w.in(id, Running); len(j.Places) != 3 {
		t.Fatalf("got %d places before the time, want 3", len(j.Places))
	}
	w.wait(1001)
	j := w.in(id, Running)
	if len(j.Places) != 4 || j.Places[1].State != Working || j.Places[2].State != Dropped || !j.Places[3].Verifier || j.Places[0].State != Working {
		t.Errorf("got %d places, the third %s, the executor %s: want an alternate for the absent verifier alone", len(j.Places), j.Places[2].State, j.Places[0].State)
	}
	spec.Plan.Checks = sampleItems / 2
	if got := w.s.Params().Patience(&spec, true) - grace; got < 190_000 || got > 200_000 {
		t.Errorf("got %d ms for half of the items, want half of the time", got)
	}
}

// Verifiers that have shown that they are there do not make it too late for an owner that wants a straggler's job back.
func TestCancel_VerifiersDoNotMakeItTooLate(t *testing.T) {
	w := newWorld(t, 1, 3)
	id, seated := w.sampled(sampleSpec())
	w.must(seated[1], &Commit{Job: id, Commitment: Commitment(id, seated[1].ID(), w.answers(seated[1], id, never))})
	w.must(w.owner, &Cancel{Job: id})
	w.in(id, Cancelled)

	w = newWorld(t, 1, 3)
	id, seated = w.sampled(sampleSpec())
	_, _, out := sampleWork(t, never)
	w.commitOpening(seated[0], id, Opening{Outcome: out})
	w.refused(TooLate, w.owner, &Cancel{Job: id}) // else an owner could see that it is done and pay a tenth
}

func TestSample_WithoutAnExecutorNobodyWaits(t *testing.T) {
	w := newWorld(t, 1, 3) // there is no alternate
	id, seated := w.sampled(sampleSpec())
	w.must(seated[0], &GiveUp{Job: id, Reason: CannotRun, Why: "no space"})
	w.in(id, Failed)
	for _, k := range seated[1:] {
		if r := w.s.Reputation(k.ID().Address()); r.Faults != 0 {
			t.Errorf("a verifier got %d faults for its executor", r.Faults)
		}
	}
}

// What is posted can be committed to: else every honest node that is drawn would miss its deadline.
func TestPost_AsManyChecksAsASealedCommitmentHolds(t *testing.T) {
	for _, n := range []int{1, 7, 8, 20} {
		w := newWorld(t, n, 5)
		spec := sampleSpec()
		most := MaxChecks(n)
		if spec.Plan.Checks = most + 1; most < crowd.MaxChecks {
			w.refused(BadSpec, w.owner, &Post{Spec: spec})
		}
		spec.Plan.Checks = most
		w.post(spec)
		k := w.providers[0]
		proof, _ := k.VRF().Prove([]byte("x"))
		o := Opening{Salt: crowd.Hash{0xff}, Sample: proof[:], Outputs: crowd.CID(strings.Repeat("b", crowd.MaxCID))}
		for range most {
			o.Answers = append(o.Answers, crowd.Hash{0xff})
		}
		m := &Commit{Job: crowd.JobID{0xff}, Commitment: crowd.Hash{0xff}}
		for _, a := range w.authorities {
			sealed, err := identity.Seal(rand.NewChaCha8([32]byte{}), a.ID(), Pad(&o), SealPurpose(m.Job, k.ID()))
			if err != nil {
				t.Fatal(err)
			}
			m.Sealed = append(m.Sealed, sealed)
		}
		raw := Sign(k, w.chain, 1<<40, m)
		if _, err := Open(w.chain, raw); err != nil {
			t.Errorf("%d authorities, %d checks: %v", n, most, err)
		}
		t.Logf("%d authorities: %d checks in %d bytes", n, most, len(raw))
	}
}

// Revealing lasts longer where a verifier must fetch outputs before it opens, and ends by itself at that time.
func TestSample_RevealingHasTimeForTheOutputs(t *testing.T) {
	p := DevParams()
	spec := sampleSpec()
	spec.Task.Limits.Output = 64 << 10 // of each of 1000 items: 64 MB, 31.25 seconds at 2 MiB a second
	if got := p.RevealTime(&spec); got != p.RevealWindow {
		t.Errorf("outputs that stay: got %d ms want %d", got, p.RevealWindow)
	}
	spec.Shuffle.Parts = 4
	if got, want := p.RevealTime(&spec), p.RevealWindow+31_250; got != want {
		t.Errorf("got %d ms want %d", got, want)
	}
	w := newWorld(t, 3, 3)
	id, seated := w.sampled(spec)
	_, _, out := sampleWork(t, never)
	w.commitOpening(seated[0], id, Opening{Outcome: out})
	for _, k := range seated[1:] {
		w.commitOpening(k, id, w.answers(k, id, never))
	}
	w.in(id, Revealing)
	w.wait(p.RevealWindow + 31_000)
	w.in(id, Revealing)
	w.must(seated[0], &Reveal{Job: id, Opening: Opening{Outcome: out}})
	w.wait(1_000)
	w.in(id, Unsealing)
	spec.Task.Limits.Output = 1 << 20
	if got, want := p.RevealTime(&spec), p.RevealWindow+p.CourtWindow; got != want {
		t.Errorf("an endless output: got %d ms want %d", got, want)
	}
}
