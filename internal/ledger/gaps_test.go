package ledger

import (
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// Each test here holds one check that another check, or the recovery from a panic, would otherwise hide.

func TestOffer_EachBound(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Offer
		good bool
	}{
		{"nothing said", Offer{}, true},
		{"all tags", Offer{Tags: make([]string, maxTags)}, false}, // of no bytes
		{"as many tags as may be", Offer{Tags: strings.Split(strings.Repeat("x,", maxTags-1)+"x", ",")}, true},
		{"a tag more", Offer{Tags: strings.Split(strings.Repeat("x,", maxTags)+"x", ",")}, false},
		{"the longest tag", Offer{Tags: []string{strings.Repeat("x", crowd.MaxFilter)}}, true},
		{"a longer tag", Offer{Tags: []string{strings.Repeat("x", crowd.MaxFilter+1)}}, false},
		{"the highest score", Offer{Owners: 1e6}, true},
		{"a higher score", Offer{Owners: 1e6 + 1}, false},
		{"a country", Offer{Country: "GR"}, true},
		{"the first country", Offer{Country: "AA"}, true},
		{"the last country", Offer{Country: "ZZ"}, true},
		{"one letter", Offer{Country: "G"}, false},
		{"three letters", Offer{Country: "GRE"}, false},
		{"below A", Offer{Country: "@R"}, false},
		{"beyond Z", Offer{Country: "[R"}, false},
		{"below A, second", Offer{Country: "G@"}, false},
		{"beyond Z, second", Offer{Country: "G["}, false},
		{"small letters", Offer{Country: "gr"}, false},
	} {
		if err := tt.o.validate(); (err == nil) != tt.good {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

// A verifier cannot show a conflict with an executor that has shown nothing yet.
func TestReveal_ConflictNeedsAnOpenExecutor(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated := w.sampled(sampleSpec())
	leaves, tree, out := sampleWork(t, never)
	o := w.answers(seated[1], id, func(uint32) bool { return true })
	w.commitOpening(seated[0], id, Opening{Outcome: out})
	w.commitOpening(seated[1], id, o)
	w.commitOpening(seated[2], id, w.answers(seated[2], id, never))
	j := w.in(id, Revealing)
	item := lotOf(w, &j, seated[1], &o)[0]
	proof := tree.Prove(item, leaves[item])
	w.refused(NotFound, seated[1], &Reveal{Job: id, Opening: o, Conflict: &proof})
	w.must(seated[0], &Reveal{Job: id, Opening: Opening{Outcome: out}})
	w.must(seated[1], &Reveal{Job: id, Opening: o, Conflict: &proof})
}

// The commitment of one executor gives the other one no more time: else the slower waits for the faster, and then works.
func TestCommit_GivesAnotherExecutorNoMoreTime(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	due := j.Places[1].Due
	w.now = due - 100
	w.commit(w.keyOf(j.Places[0].Node), id, right)
	if j = w.in(id, Running); j.Places[1].Due != due || j.Due != due {
		t.Errorf("got until %d and %d, want %d", j.Places[1].Due, j.Due, due)
	}
}

// Anybody may compute whether a draw is right: each of its numbers counts by itself.
func TestDrawn_CheckSeesEachNumber(t *testing.T) {
	w := newWorld(t, 1, 3)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	units := w.s.Params().CommitteeUnits
	for name, spoil := range map[string]func(*Drawn){
		"nothing":    func(*Drawn) {},
		"won":        func(d *Drawn) { d.Won-- },
		"priority":   func(d *Drawn) { d.Priority[31] ^= 1 },
		"tickets":    func(d *Drawn) { d.Tickets++ },
		"no tickets": func(d *Drawn) { d.Tickets, d.Won, d.Priority = 0, 0, crowd.Hash{} },
		"proof":      func(d *Drawn) { d.Proof[79] ^= 1 },
		"node":       func(d *Drawn) { d.Node[0] ^= 1 },
		"key":        func(d *Drawn) { d.VRF[0] ^= 1 },
	} {
		d := j.Drawn[0]
		spoil(&d)
		if err := d.Check(id, j.Beacon, j.Tickets, units); (err == nil) != (name == "nothing") {
			t.Errorf("%s changed: got %v", name, err)
		}
	}
}

// Only the authorities that voted with the verdict supported it.
func TestVote_SupportIsForTheVerdictAlone(t *testing.T) {
	w := newWorld(t, 4, 2)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	for i, p := range j.Places {
		w.commit(w.keyOf(p.Node), id, []crowd.Outcome{right, wrong}[i])
	}
	for i, p := range j.Places {
		w.reveal(w.keyOf(p.Node), id, []crowd.Outcome{right, wrong}[i])
	}
	w.must(w.authorities[3], &Vote{Job: id, Question: WhatOutcome, Outcome: wrong})
	for _, a := range w.authorities[:3] {
		w.must(a, &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	}
	w.in(id, Delivering)
	for i, a := range w.authorities {
		want := uint64(1)
		if i == 3 {
			want = 0
		}
		if got := w.s.Reputation(a.ID().Address()).Support; got != want {
			t.Errorf("authority %d: got support %d want %d", i, got, want)
		}
	}
	w.must(w.owner, &Accept{Job: id})
	for _, p := range w.in(id, Settled).Payments {
		if p.To == w.authorities[3].ID().Address() {
			t.Errorf("the authority that was wrong got %+v", p)
		}
	}
}

func TestGasIn_SaturatesAndIsNeverNegative(t *testing.T) {
	for _, tt := range []struct {
		ms   crowd.Time
		want crowd.Gas
	}{{-1, 0}, {0, 0}, {1, crowd.FullSpeed / 1000}, {1000, crowd.FullSpeed}, {1 << 62, ^crowd.Gas(0)}} {
		if got := gasIn(tt.ms); got != tt.want {
			t.Errorf("%d ms: got %d want %d", tt.ms, got, tt.want)
		}
	}
}

// The escrow holds the court's pay for IdleDisputes. What others than the owner ask beyond that is not paid out of it.
func TestTolerant_TheEscrowPaysForSoManyIdleDisputes(t *testing.T) {
	w := newWorld(t, 1, 5, func(g *Genesis) { g.Params.InspectFee = 50_000 }) // so that something is left that could be paid out
	id, _, reports := w.tolerantBatch(func(uint32) bool { return true })
	paid := func() (sum crowd.Credits) {
		for _, p := range w.job(id).Payments {
			if p.Why == WhyCourt {
				sum += p.Amount
			}
		}
		return sum
	}
	for n := range IdleDisputes {
		w.must(w.owner, reports[n])
		w.findings(id, always(Same))
	}
	was := paid()
	w.must(w.authorities[0], reports[IdleDisputes])
	w.findings(id, always(Same))
	w.in(id, Delivering)
	if one := crowd.ReferencePrice.Cost(sampleSpec().Task.Limits.Gas); was != IdleDisputes*one || paid() != was {
		t.Errorf("got %s, and %s after one more; want %s for %d", was, paid(), IdleDisputes*one, IdleDisputes)
	}
}

// silentPair is a pair of which both have committed, and keep silent.
func (w *world) silentPair() (crowd.JobID, [2]crowd.NodeID) {
	w.t.Helper()
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	var nodes [2]crowd.NodeID
	for i, p := range j.Places {
		nodes[i] = p.Node
		w.commit(w.keyOf(p.Node), id, right)
	}
	w.wait(w.s.Params().RevealWindow)
	w.in(id, Unsealing)
	return id, nodes
}

// Votes about two seals are not added together, and a majority that finds a seal good convicts nobody.
func TestVote_AboutASealIsAboutThatSealAndWhatItSays(t *testing.T) {
	w := newWorld(t, 4, 2)
	id, nodes := w.silentPair()
	bad := func(authority int, node crowd.NodeID, yes bool) {
		t.Helper()
		w.must(w.authorities[authority], &Vote{Job: id, Question: BadSeal, Executor: node, Yes: yes})
	}
	bad(0, nodes[0], true)
	bad(1, nodes[0], true)
	bad(2, nodes[1], true)
	bad(3, nodes[1], true)
	bad(0, nodes[1], false)
	j := w.in(id, Unsealing)
	for i := range j.Places {
		if j.Places[i].State != Committed {
			t.Errorf("place %d: two of four found its seal bad: got %s", i, j.Places[i].State)
		}
	}
	bad(2, nodes[0], true)
	if j = w.in(id, Unsealing); j.Place(nodes[0]).State != Fraud || j.Place(nodes[1]).State != Committed {
		t.Errorf("three of four found one seal bad: got %s and %s", j.Place(nodes[0]).State, j.Place(nodes[1]).State)
	}

	w = newWorld(t, 4, 2)
	id, nodes = w.silentPair()
	for a := range 4 {
		bad(a, nodes[0], false)
	}
	w.refused(NotFound, w.authorities[0], &Vote{Job: id, Question: BadSeal, Executor: w.owner.ID(), Yes: true})
	if j = w.in(id, Unsealing); j.Place(nodes[0]).State != Committed || w.stake(nodes[0]) == 0 {
		t.Errorf("all found the seal good: got %s", j.Place(nodes[0]).State)
	}
	w.must(w.authorities[0], &Unseal{Job: id, Executor: nodes[0], Opening: opening(nodes[0], right)})
}

// A verifier that was convicted for one item is not convicted again for the next.
func TestSample_NobodyIsConvictedTwice(t *testing.T) {
	w := newWorld(t, 1, 5)
	spec := sampleSpec()
	spec.Plan.Checks = 250
	id, seated := w.sampled(spec)
	leaves, tree, out := sampleWork(t, never)
	openings := []Opening{{Outcome: out, Salt: crowd.Hash{1}}}
	for _, k := range seated[1:] {
		openings = append(openings, w.answers(k, id, func(uint32) bool { return true }))
	}
	for i, k := range seated {
		w.commitOpening(k, id, openings[i])
	}
	for i, k := range seated {
		w.must(k, &Reveal{Job: id, Opening: openings[i]})
	}
	j := w.in(id, Delivering)
	first, second := lotOf(w, &j, seated[1], &openings[1]), lotOf(w, &j, seated[2], &openings[2])
	var alone, both []uint32
	for _, item := range first {
		if slices.Contains(second, item) {
			both = append(both, item)
		} else {
			alone = append(alone, item)
		}
	}
	judged := func(verifier *identity.Key, item uint32) {
		t.Helper()
		w.must(w.owner, &Report{Job: id, Verifier: verifier.ID(), Proof: tree.Prove(item, leaves[item])})
		w.must(w.authorities[0], &Vote{Job: id, Question: WhatItem, Item: item, Leaf: leaves[item].Hash()})
	}
	judged(seated[1], alone[0])
	w.in(id, Delivering)
	judged(seated[2], both[0])
	w.in(id, Failed)
	for i, k := range seated[1:] {
		p, _ := w.s.Provider(k.ID().Address())
		if r := w.s.Reputation(k.ID().Address()); r.Caught != 1 || p.Active != 0 {
			t.Errorf("verifier %d: got caught %d times, %d places held; want once and none", i, r.Caught, p.Active)
		}
	}
	if w.stake(seated[0].ID()) == 0 {
		t.Error("the executor was right, and lost its stake")
	}
}

func TestGiveUp_SaysOneOfTheReasons(t *testing.T) {
	w := newWorld(t, 1, 3)
	id := w.drawn(testSpec(), w.providers...)
	k := w.keyOf(w.in(id, Running).Places[0].Node)
	w.refused(BadTx, k, &GiveUp{Job: id})
	w.refused(BadTx, k, &GiveUp{Job: id, Reason: Reason(len(reasonNames))})
	w.refused(BadTx, k, &GiveUp{Job: id, Reason: CannotRun, Why: strings.Repeat("x", maxWhy+1)})
	w.must(k, &GiveUp{Job: id, Reason: CannotRun, Why: strings.Repeat("x", maxWhy)})
}

// The court that convicts in a tolerant job is paid out of the cheater's stake, and the escrow comes back whole.
func TestTolerant_TheCourtIsPaidByTheCheater(t *testing.T) {
	w := newWorld(t, 1, 2)
	id, seated := w.differing(tolerantSpec())
	w.must(w.authorities[0], &Vote{Job: id, Question: SameAnswer, Executor: seated[0].ID(), Finding: Same})
	w.must(w.authorities[0], &Vote{Job: id, Question: SameAnswer, Executor: seated[1].ID(), Finding: Other})
	w.must(w.owner, &Accept{Job: id})
	j := w.in(id, Settled)
	var court crowd.Credits
	for _, p := range j.Payments {
		if p.Why == WhyCourt {
			if court += p.Amount; !p.Slashed || p.To != w.authorities[0].ID().Address() {
				t.Errorf("got %+v want it out of the stake, to the authority", p)
			}
		}
	}
	if want := crowd.ReferencePrice.Cost(near(0).Gas); court != want {
		t.Errorf("the court got %s want %s", court, want)
	}
	if j.Spent() != 0 {
		t.Errorf("the owner spent %s, want to be made whole", j.Spent())
	}
}

// The executor of an audit that gives up before it has committed is followed by the next in line, not by an auditor.
func TestAudit_AnotherExecutorComesByPriority(t *testing.T) {
	w := newWorld(t, 1, 8)
	spec := auditSpec()
	spec.Plan.Replacements = 2
	id := w.drawn(spec, w.providers...)
	for n := range 3 {
		j := w.in(id, Running)
		if len(j.Places) != n+1 || j.Places[n].Node != j.Drawn[n].Node || j.Audit.Executor != j.Drawn[n].Node || j.Audit.At != 0 {
			t.Fatalf("after %d gave up: got places %v and the audit of %s, want the drawn in their order", n, j.Places, j.Audit.Executor.Short())
		}
		if n < 2 {
			w.must(w.keyOf(j.Places[n].Node), &GiveUp{Job: id, Reason: CannotRun})
		}
	}
}

// If a result cannot be fetched, the executors who have it are at fault, once each, and one that dropped out before is so once too.
func TestInspecting_FaultsOnceWhoHasTheResult(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	there, gone := j.Places[0].Node, j.Places[1].Node
	w.commit(w.keyOf(there), id, right)
	w.commit(w.keyOf(gone), id, right)
	w.reveal(w.keyOf(there), id, right)
	for w.job(id).State != Court {
		w.wait(int64(w.job(id).Due - w.now))
	}
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	w.must(w.owner, &Complain{Job: id})
	w.must(w.authorities[0], &Vote{Job: id, Question: Retrievable})
	w.in(id, Failed)
	for _, n := range []crowd.NodeID{there, gone} {
		if got := w.s.Reputation(n.Address()).Faults; got != 1 {
			t.Errorf("%s: got %d faults want 1", n.Short(), got)
		}
	}
}

// What an executor opens is an outcome and nothing else; what a verifier opens is no outcome.
func TestReveal_EachImpossiblePartIsFraud(t *testing.T) {
	for name, spoil := range map[string]func(*Opening){
		"nothing":             func(*Opening) {},
		"too much gas":        func(o *Opening) { o.Outcome.Gas = testSpec().Task.Limits.Gas + 1 },
		"no result":           func(o *Opening) { o.Outcome.Result = "" },
		"a long result":       func(o *Opening) { o.Outcome.Result = crowd.CID(strings.Repeat("x", crowd.MaxCID+1)) },
		"a sample":            func(o *Opening) { o.Sample = []byte{1} },
		"answers":             func(o *Opening) { o.Answers = []crowd.Hash{{1}} },
		"outputs":             func(o *Opening) { o.Outputs = "bafyoutputs" },
		"a batch's root":      func(o *Opening) { o.Outcome.Root = crowd.Hash{1} },
		"a batch's leaves":    func(o *Opening) { o.Outcome.Leaves = "bafyleaves" },
		"a batch's, too long": func(o *Opening) { o.Outcome.Leaves = crowd.CID(strings.Repeat("x", crowd.MaxCID+1)) },
	} {
		w := newWorld(t, 1, 2)
		id := w.drawn(testSpec(), w.providers...)
		j := w.in(id, Running)
		a, b := w.keyOf(j.Places[0].Node), w.keyOf(j.Places[1].Node)
		o := Opening{Outcome: right, Salt: crowd.Hash{1}}
		spoil(&o)
		w.commitOpening(a, id, o)
		w.commit(b, id, right)
		w.must(a, &Reveal{Job: id, Opening: o})
		if got := w.stake(a.ID()) == 0; got != (name != "nothing") {
			t.Errorf("an executor opens %s: got stake lost %v", name, got)
		}
	}
	_, _, out := sampleWork(t, never)
	for name, spoil := range map[string]func(*Opening){
		"nothing":      func(*Opening) {},
		"no root":      func(o *Opening) { o.Outcome.Root = crowd.Hash{} },
		"no leaves":    func(o *Opening) { o.Outcome.Leaves = "" },
		"long leaves":  func(o *Opening) { o.Outcome.Leaves = crowd.CID(strings.Repeat("x", crowd.MaxCID+1)) },
		"a trap":       func(o *Opening) { o.Outcome.Status = crowd.Trapped },
		"an exit code": func(o *Opening) { o.Outcome.ExitCode = 1 },
		"answers":      func(o *Opening) { o.Answers = []crowd.Hash{{1}} },
		"a sample":     func(o *Opening) { o.Sample = []byte{1} },
		"outputs":      func(o *Opening) { o.Outputs = "bafyoutputs" },
	} {
		w := newWorld(t, 1, 5)
		id, seated := w.sampled(sampleSpec())
		o := Opening{Outcome: out, Salt: crowd.Hash{1}}
		spoil(&o)
		w.commitOpening(seated[0], id, o)
		for _, k := range seated[1:] {
			w.commitOpening(k, id, w.answers(k, id, never))
		}
		w.must(seated[0], &Reveal{Job: id, Opening: o})
		if got := w.stake(seated[0].ID()) == 0; got != (name != "nothing") {
			t.Errorf("a batch's executor opens %s: got stake lost %v", name, got)
		}
	}
}

// The verifiers of a batch whose executor lied are paid by what that one claimed, also if it was the second in its place.
func TestSample_VerifiersArePaidForALiarThatTookThePlace(t *testing.T) {
	w := newWorld(t, 1, 6)
	spec := sampleSpec()
	spec.Plan.Replacements = 1
	id, seated := w.sampled(spec)
	w.must(seated[0], &GiveUp{Job: id, Reason: CannotRun})
	j := w.in(id, Running)
	executor := w.keyOf(j.Places[len(j.Places)-1].Node)
	leaves, tree, out := sampleWork(t, func(uint32) bool { return true })
	o := Opening{Outcome: out, Salt: crowd.Hash{1}}
	w.commitOpening(executor, id, o)
	for _, k := range seated[1:] {
		w.commitOpening(k, id, w.answers(k, id, never))
	}
	w.must(executor, &Reveal{Job: id, Opening: o})
	had := w.balance(seated[1].ID())
	for _, k := range seated[1:] {
		w.must(k, &Reveal{Job: id, Opening: w.answers(k, id, never)})
	}
	r := w.conflict(id, seated[1].ID(), leaves, tree)
	w.must(w.owner, r)
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatItem, Item: r.Proof.Index, Leaf: leafOf(r.Proof.Index, false).Hash()})
	w.in(id, Failed)
	if w.stake(executor.ID()) != 0 || w.balance(seated[1].ID()) <= had {
		t.Errorf("got a stake of %s left to the liar, and a verifier that went from %s to %s", w.stake(executor.ID()), had, w.balance(seated[1].ID()))
	}
}

// Votes that say different things are not added together.
func TestVote_DifferentAnswersAreNotAdded(t *testing.T) {
	t.Run("whether a result can be fetched", func(t *testing.T) {
		w := newWorld(t, 4, 2)
		id := w.drawn(testSpec(), w.providers...)
		j := w.in(id, Running)
		for _, p := range j.Places {
			w.commit(w.keyOf(p.Node), id, right)
		}
		for _, p := range j.Places {
			w.reveal(w.keyOf(p.Node), id, right)
		}
		w.must(w.owner, &Complain{Job: id})
		for i, yes := range []bool{true, false, true, false} {
			w.must(w.authorities[i], &Vote{Job: id, Question: Retrievable, Yes: yes})
			w.in(id, Inspecting)
		}
	})
	t.Run("what an item comes to", func(t *testing.T) {
		w := newWorld(t, 4, 5)
		id, seated, leaves, tree := w.opened(never, func(uint32) bool { return true }, never)
		r := w.conflict(id, seated[1].ID(), leaves, tree)
		w.must(w.owner, r)
		vote := func(i int, leaf crowd.Hash) {
			w.must(w.authorities[i], &Vote{Job: id, Question: WhatItem, Item: r.Proof.Index, Leaf: leaf})
		}
		vote(0, leaves[r.Proof.Index].Hash())
		vote(1, crowd.Hash{1})
		vote(2, leaves[r.Proof.Index].Hash())
		w.in(id, Court)
		vote(3, leaves[r.Proof.Index].Hash())
		w.in(id, Delivering)
		w.must(w.owner, &Accept{Job: id})
		for _, p := range w.in(id, Settled).Payments { // the authority that was wrong earns nothing, and no work is paid twice
			if p.To == w.authorities[1].ID().Address() || p.Why == "work lost to a cheater" {
				t.Errorf("got %+v", p)
			}
		}
	})
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	for _, q := range []Question{0, OwnAnswer + 1, 255} {
		w.refused(BadTx, w.authorities[0], &Vote{Job: id, Question: q})
	}
}

// If nobody opens anything there is nothing for a court.
func TestJob_WithoutAnOpeningNoCourtSits(t *testing.T) {
	w := newWorld(t, 1, 2)
	id, _ := w.silentPair()
	w.wait(int64(w.job(id).Due - w.now))
	w.in(id, Failed)
}

// The deadline of a running job is the earliest of its places', in whatever order they stand.
func TestJob_WaitsForTheEarliestPlace(t *testing.T) {
	w := newWorld(t, 1, 3)
	spec := testSpec()
	spec.Plan.Replacements = 1
	id := w.drawn(spec, w.providers...)
	j := w.in(id, Running)
	due := j.Due
	w.wait(1000)
	w.must(w.keyOf(j.Places[0].Node), &GiveUp{Job: id, Reason: CannotRun})
	j = w.in(id, Running)
	if len(j.Places) != 3 || j.Places[2].Due <= due || j.Due != due {
		t.Fatalf("got until %d, the last place until %d; want the second place's %d", j.Due, j.Places[2].Due, due)
	}
	w.wait(int64(due - w.now))
	if j = w.in(id, Running); j.Places[1].State != Dropped || j.Places[2].State != Working {
		t.Errorf("at the deadline: got %s and %s", j.Places[1].State, j.Places[2].State)
	}
}

func TestPay_Saturates(t *testing.T) {
	p := MainParams()
	if got, want := p.Pay(1, ^crowd.Gas(0)-1), crowd.Price(1).Cost(^crowd.Gas(0)); got != want {
		t.Errorf("got %d want %d", got, want)
	}
	if got, want := p.Pay(1000, 0), crowd.Price(1000).Cost(p.StartGas); got != want {
		t.Errorf("a place that used nothing: got %d want %d", got, want)
	}
}

// Being late with a reveal counts against the executor that is late, and against nobody else.
func TestReveal_LateIsOnlyWhoIsLate(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	a, b := j.Places[0].Node, j.Places[1].Node
	w.commit(w.keyOf(a), id, right)
	w.commit(w.keyOf(b), id, right)
	w.reveal(w.keyOf(a), id, right)
	hadA, hadB := w.s.Reputation(a.Address()).Down, w.s.Reputation(b.Address()).Down
	w.wait(w.s.Params().RevealWindow)
	w.in(id, Unsealing)
	if got := w.s.Reputation(a.Address()).Down; got != hadA {
		t.Errorf("who revealed in time: got %d away want %d", got, hadA)
	}
	if got := w.s.Reputation(b.Address()).Down; got <= hadB {
		t.Errorf("who did not: got %d away, had %d", got, hadB)
	}
}

// A cheater was caught, and no verdict came of the job: whoever revealed gets no bounty, as nobody knows whether it was right.
func TestMakeWhole_NoBountyWithoutAVerdict(t *testing.T) {
	w := newWorld(t, 1, 2)
	id, nodes := w.silentPair()
	w.must(w.authorities[0], &Vote{Job: id, Question: BadSeal, Executor: nodes[0], Yes: true})
	had := w.balance(nodes[1])
	w.reveal(w.keyOf(nodes[1]), id, right)
	w.in(id, Court)
	w.wait(int64(w.job(id).Due - w.now))
	w.in(id, Failed)
	if got := w.balance(nodes[1]); got > had {
		t.Errorf("got %s, had %s", got, had)
	}
	if w.stake(nodes[0]) != 0 || w.stake(nodes[1]) == 0 {
		t.Errorf("got stakes %s and %s", w.stake(nodes[0]), w.stake(nodes[1]))
	}
}

// A batch is accepted only if an honest verifier is left: who is convicted counts as one that passes anything, and cannot be the only one.
func TestSample_WithoutAVerifierNothingIsAccepted(t *testing.T) {
	spec := sampleSpec()
	spec.Plan.Verifiers = 1
	t.Run("the only one opens what is impossible", func(t *testing.T) {
		w := newWorld(t, 1, 4)
		id, seated := w.sampled(spec)
		_, _, out := sampleWork(t, never)
		o := w.answers(seated[1], id, never)
		o.Answers = o.Answers[1:]
		w.commitOpening(seated[0], id, Opening{Outcome: out})
		w.commitOpening(seated[1], id, o)
		w.must(seated[1], &Reveal{Job: id, Opening: o})
		w.must(seated[0], &Reveal{Job: id, Opening: Opening{Outcome: out}})
		w.in(id, Failed)
	})
	for _, f := range []Finding{Other, Missing} {
		t.Run("of the only one the court finds: "+f.String(), func(t *testing.T) {
			w := newWorld(t, 1, 4)
			spec := spec
			spec.Compare = crowd.Compare{Kind: crowd.CompareLines}
			id, seated := w.sampled(spec)
			leaves, tree, out := sampleWork(t, never)
			o := w.answers(seated[1], id, func(uint32) bool { return true })
			o.Outputs = "bafyoutputs"
			w.commitOpening(seated[0], id, Opening{Outcome: out})
			w.commitOpening(seated[1], id, o)
			w.must(seated[0], &Reveal{Job: id, Opening: Opening{Outcome: out}})
			w.must(seated[1], &Reveal{Job: id, Opening: o})
			w.must(w.owner, w.conflict(id, seated[1].ID(), leaves, tree))
			w.findings(id, func(p *Place) Finding {
				if p.Verifier {
					return f
				}
				return Same
			})
			if j := w.in(id, Failed); j.Verdict != nil {
				t.Errorf("got the verdict %+v", j.Verdict)
			}
		})
	}
}

// The authorities that have an executor's leaves say so, which lets nobody settle anything.
func TestVote_LeavesThatAreThereDecideNothing(t *testing.T) {
	w := newWorld(t, 4, 5)
	id, seated := w.sampled(sampleSpec())
	_, _, out := sampleWork(t, never)
	w.commitOpening(seated[0], id, Opening{Outcome: out})
	for _, k := range seated[1:] {
		w.commitOpening(k, id, w.answers(k, id, never))
	}
	w.must(seated[0], &Reveal{Job: id, Opening: Opening{Outcome: out}})
	w.wait(w.s.Params().RevealWindow)
	for _, a := range w.authorities {
		w.must(a, &Vote{Job: id, Question: LeavesThere, Yes: true})
		w.in(id, Unsealing)
	}
	for _, k := range seated[1:] {
		w.must(w.authorities[0], &Unseal{Job: id, Executor: k.ID(), Opening: w.answers(k, id, never)})
	}
	w.in(id, Delivering)
	w.refused(NotFound, w.owner, &Report{Job: id, Verifier: w.owner.ID()}) // a verifier that is none
	w.refused(NotFound, w.owner, &Report{Job: id, Verifier: seated[0].ID()})
}

// Only the authorities that found what convicted the cheater are paid out of its stake, and supported the verdict.
func TestTolerant_TheStakePaysOnlyWhoFoundIt(t *testing.T) {
	w := newWorld(t, 4, 2)
	id, seated := w.differing(tolerantSpec())
	vote := func(i, party int, f Finding) {
		t.Helper()
		w.must(w.authorities[i], &Vote{Job: id, Question: SameAnswer, Executor: seated[party].ID(), Finding: f})
	}
	vote(3, 0, Other) // it is wrong about both
	vote(3, 1, Same)
	for i := range 3 {
		vote(i, 0, Same)
		vote(i, 1, Other)
	}
	w.must(w.owner, &Accept{Job: id})
	j := w.in(id, Settled)
	times := map[crowd.Address]int{}
	for _, p := range j.Payments {
		if p.Why == WhyCourt {
			times[p.To]++
		}
	}
	for i, a := range w.authorities {
		paid, support := 1, uint64(2)
		if i == 3 {
			paid, support = 0, 0
		}
		if r := w.s.Reputation(a.ID().Address()); times[a.ID().Address()] != paid || r.Support != support {
			t.Errorf("authority %d: got paid %d times, support %d; want %d and %d", i, times[a.ID().Address()], r.Support, paid, support)
		}
	}
}

// A report that exposes a cheater is none for nothing: it does not count against its reporter, and the escrow pays no court for it.
func TestTolerant_AReportThatExposesACheaterIsNotIdle(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated, reports := w.tolerantBatch(func(uint32) bool { return true })
	w.must(w.owner, reports[0])
	w.findings(id, func(p *Place) Finding {
		if p.Node == seated[1].ID() {
			return Other
		}
		return Same
	})
	j := w.in(id, Delivering)
	if n := j.Idle(w.owner.ID()); n != 0 || len(j.Cleared) != 1 {
		t.Errorf("got %d idle of %d", n, len(j.Cleared))
	}
	for _, p := range j.Payments {
		if p.Why == WhyCourt {
			t.Errorf("got %+v out of the escrow", p)
		}
	}
}

// What a verifier seals is longer than an outcome by its answers, and bounded too.
func TestCommit_BoundsWhatIsSealed(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated := w.sampled(sampleSpec())
	executor := maxSealed
	verifier := maxSealed + 2*len(crowd.Hash{})*22
	for i, most := range []int{executor, verifier} {
		m := &Commit{Job: id, Commitment: crowd.Hash{1}, Sealed: [][]byte{make([]byte, most+1)}}
		w.refused(BadTx, seated[i], m)
		m.Sealed[0] = m.Sealed[0][:most]
		w.must(seated[i], m)
	}
}

// A verifier's share of the gas is rounded up, and never more than all of it.
func TestCheckGas_RoundsUp(t *testing.T) {
	for _, tt := range []struct {
		items, checks uint32
		total, want   crowd.Gas
	}{{1000, 22, 1000, 22}, {1000, 22, 1001, 23}, {3, 1, 1, 1}, {3, 1, 0, 0}, {7, 7, 5, 5}, {7, 256, 5, 5}, {1 << 20, 256, ^crowd.Gas(0), 1 << 52}} {
		s := sampleSpec()
		s.Items, s.Plan.Checks = tt.items, tt.checks
		if got := CheckGas(&s, tt.total); got != tt.want {
			t.Errorf("%d of %d items of %d gas: got %d want %d", tt.checks, tt.items, tt.total, got, tt.want)
		}
	}
}

// Who has committed cannot give up: its place would go to another, and its commitment be forgotten.
func TestGiveUp_IsForThoseWhoWork(t *testing.T) {
	w := newWorld(t, 1, 4)
	id := w.drawn(testSpec(), w.providers...)
	k := w.keyOf(w.in(id, Running).Places[0].Node)
	w.commit(k, id, right)
	w.refused(NotYours, k, &GiveUp{Job: id, Reason: CannotRun})
	if j := w.in(id, Running); j.Place(k.ID()).State != Committed {
		t.Errorf("got %s", j.Place(k.ID()).State)
	}
}

func TestAnswer_OfAPlaceThatHasNone(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, _ := w.sampled(sampleSpec())
	j := w.job(id)
	for i := range j.Places {
		if _, _, ok := j.Answer(&j.Places[i], 0); ok {
			t.Errorf("place %d has an answer before it has opened", i)
		}
	}
}

// If the list of claims is full it says nothing about the nodes that are not in it.
func TestDispatch_NobodyMissesAFullList(t *testing.T) {
	for _, full := range []bool{true, false} {
		most := uint32(4)
		if full {
			most = 3
		}
		w := newWorld(t, 1, 5, func(g *Genesis) { g.Params.MaxClaims = most })
		id := w.drawn(testSpec(), w.providers[:3]...)
		w.closed(id)
		w.in(id, Running)
		if got := w.s.Reputation(w.providers[4].ID().Address()).Missed; (got == 0) != full {
			t.Errorf("3 of at most %d claims: got %d missed by one that did not claim", most, got)
		}
	}
}

// Providers of the genesis came before any beacon: they may be drawn at once.
func TestLookback_IsNotForTheGenesis(t *testing.T) {
	w := newWorld(t, 1, 3, func(g *Genesis) { g.Params.Lookback = 1000 })
	id := w.drawn(testSpec(), w.providers...)
	w.in(id, Running)
}

// If both answers are within the tolerance, the one of the lower gas is the verdict, whichever place has it.
func TestTolerant_TheLowerGasIsPaidInEitherOrder(t *testing.T) {
	for _, broken := range []bool{false, true} {
		for lower := range 2 {
			w := newWorld(t, 1, 2)
			id := w.drawn(tolerantSpec(), w.providers...)
			var seated []*identity.Key
			var outcomes []crowd.Outcome
			for i, p := range w.in(id, Running).Places {
				seated = append(seated, w.keyOf(p.Node))
				outcomes = append(outcomes, near(i^lower))
				w.commit(seated[i], id, outcomes[i])
			}
			for i, k := range seated {
				w.reveal(k, id, outcomes[i])
			}
			f := Same
			if broken {
				f = Unjudged
			}
			for _, k := range seated {
				w.must(w.authorities[0], &Vote{Job: id, Question: SameAnswer, Executor: k.ID(), Finding: f})
			}
			if broken {
				w.in(id, Failed)
			} else {
				w.must(w.owner, &Accept{Job: id})
			}
			for _, k := range seated {
				var got crowd.Credits
				for _, p := range w.job(id).Payments {
					if p.To == k.ID().Address() {
						got += p.Amount
					}
				}
				cost := w.s.Params().Pay(crowd.ReferencePrice, near(0).Gas)
				if want := cost - cost.PPM(w.s.Params().BurnPPM); got != want {
					t.Errorf("the comparator fails %v, the lower gas is of place %d: got %s want %s", broken, lower, got, want)
				}
			}
		}
	}
}

// If a batch's result cannot be fetched, that is its executor's fault: its verifiers do not have it.
func TestInspecting_FaultsNoVerifier(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated, _, _ := w.opened(never, never, never)
	w.must(w.owner, &Complain{Job: id})
	w.must(w.authorities[0], &Vote{Job: id, Question: Retrievable})
	w.in(id, Failed)
	for i, k := range seated {
		want := uint64(0)
		if i == 0 {
			want = 1
		}
		if got := w.s.Reputation(k.ID().Address()).Faults; got != want {
			t.Errorf("place %d: got %d faults want %d", i, got, want)
		}
	}
}

// A batch whose executor stays silent to the end fails, whatever its verifiers say.
func TestSample_WithoutAnExecutorNothingIsAccepted(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated := w.sampled(sampleSpec())
	_, _, out := sampleWork(t, never)
	w.commitOpening(seated[0], id, Opening{Outcome: out})
	for _, k := range seated[1:] {
		w.commitOpening(k, id, w.answers(k, id, never))
	}
	for _, k := range seated[1:] {
		w.must(k, &Reveal{Job: id, Opening: w.answers(k, id, never)})
	}
	for range 2 {
		w.wait(int64(w.job(id).Due - w.now))
	}
	w.in(id, Failed)
}

func TestRegister_NotWhileLeaving(t *testing.T) {
	w := newWorld(t, 1, 3)
	k := w.providers[0]
	w.must(k, &Leave{})
	w.refused(TooEarly, k, &Register{VRF: k.VRF().Public(), Offer: Offer{Price: 1}})
}

// The court's share of the escrow never touches what is owed to places, whatever their state is.
func TestShare_LeavesWhatIsOwedToPlaces(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	for _, s := range []PlaceState{Working, Committed, Revealed, Dropped, Fraud} {
		ed := begin(w.s, Block{Time: w.now})
		j := w.job(id)
		owed := ed.params.Pay(j.Places[0].Price, j.Spec.Limits().Gas)
		j.Places = j.Places[:1]
		j.Places[0].State, j.Escrow = s, owed+10
		ed.share(&j, []crowd.Address{w.authorities[0].ID().Address()}, owed, WhyCourt)
		want := owed // is left
		if s == Dropped || s == Fraud {
			want = 10
		}
		if j.Escrow != want {
			t.Errorf("a place that is %s is owed %s: the court left %s of %s", s, owed, j.Escrow, owed+10)
		}
	}
}

// Only who has something sealed, and has not opened it, can be convicted for its seal; and who is convicted opens nothing any more.
func TestVote_ASealThatIsOpenOrConvictedIsDone(t *testing.T) {
	w := newWorld(t, 1, 3)
	spec := testSpec()
	spec.Plan = crowd.Plan{Method: crowd.PlanCommittee, Executors: 3}
	id := w.drawn(spec, w.providers...)
	j := w.in(id, Running)
	for _, p := range j.Places {
		w.commit(w.keyOf(p.Node), id, right)
	}
	open, bad := w.keyOf(j.Places[0].Node), w.keyOf(j.Places[1].Node)
	w.reveal(open, id, right)
	w.wait(w.s.Params().RevealWindow)
	w.in(id, Unsealing)
	w.refused(NotFound, w.authorities[0], &Vote{Job: id, Question: BadSeal, Executor: open.ID(), Yes: true})
	w.refused(Duplicate, open, &Reveal{Job: id, Opening: opening(open.ID(), right)})
	w.must(w.authorities[0], &Vote{Job: id, Question: BadSeal, Executor: bad.ID(), Yes: true})
	w.refused(TooLate, bad, &Reveal{Job: id, Opening: opening(bad.ID(), right)})
	w.refused(TooLate, w.authorities[0], &Unseal{Job: id, Executor: bad.ID(), Opening: opening(bad.ID(), right)})
}

// While an item is before the court nobody votes about the whole, and a verifier that was convicted is no reason to ask again.
func TestCourt_OfAnItemIsAboutThatItem(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated, leaves, tree := w.opened(never, func(uint32) bool { return true }, never)
	j := w.job(id)
	lot := lotOf(w, &j, seated[1], j.Place(seated[1].ID()).Opening)
	report := func(item uint32) *Report {
		return &Report{Job: id, Verifier: seated[1].ID(), Proof: tree.Prove(item, leaves[item])}
	}
	w.must(w.owner, report(lot[0]))
	w.refused(BadTx, w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatItem, Item: lot[0], Leaf: leaves[lot[0]].Hash()})
	w.in(id, Delivering)
	w.refused(NotFound, w.owner, report(lot[1]))
}

func TestVote_NoImpossibleOutcome(t *testing.T) {
	long := crowd.CID(strings.Repeat("x", crowd.MaxCID+1))
	much := testSpec().Task.Limits.Gas + 1
	w := newWorld(t, 4, 2)
	id, _ := w.differing(tolerantSpec())
	for _, v := range []Vote{{Outcome: crowd.Outcome{Gas: much}}, {Outcome: crowd.Outcome{Result: long}}, {Outcome: crowd.Outcome{Leaves: "x"}}} {
		v.Job, v.Question = id, OwnAnswer
		w.refused(BadTx, w.authorities[0], &v)
	}
	w.refused(TooLate, w.authorities[0], &Vote{Job: id, Question: OwnAnswer, Item: 1})

	w = newWorld(t, 4, 2)
	id = w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	for i, p := range j.Places {
		w.commit(w.keyOf(p.Node), id, []crowd.Outcome{right, wrong}[i])
	}
	for i, p := range j.Places {
		w.reveal(w.keyOf(p.Node), id, []crowd.Outcome{right, wrong}[i])
	}
	for _, o := range []crowd.Outcome{{Gas: much}, {Result: long}} {
		w.refused(BadTx, w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: o})
	}
}

// A program that traps has come to an outcome like any other: who says so is honest.
func TestReveal_ATrapIsAnOutcome(t *testing.T) {
	w := newWorld(t, 1, 2)
	trapped := crowd.Outcome{Status: crowd.Trapped, Gas: 7, Result: "bafytrap"}
	exited := crowd.Outcome{Status: crowd.Exited, ExitCode: 3, Gas: 7, Result: "bafytrap"}
	for _, o := range []crowd.Outcome{trapped, exited} {
		id := w.drawn(testSpec(), w.providers...)
		j := w.in(id, Running)
		for _, p := range j.Places {
			w.commit(w.keyOf(p.Node), id, o)
		}
		for _, p := range j.Places {
			w.reveal(w.keyOf(p.Node), id, o)
		}
		w.in(id, Delivering)
	}
}

// The reporter of a cheater in a tolerant batch gets the bounty.
func TestTolerant_TheReporterGetsTheBounty(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated, reports := w.tolerantBatch(func(uint32) bool { return true })
	w.must(w.authorities[0], reports[0])
	w.findings(id, func(p *Place) Finding {
		if p.Node == seated[1].ID() {
			return Other
		}
		return Same
	})
	w.must(w.owner, &Accept{Job: id})
	var bounty crowd.Credits
	for _, p := range w.in(id, Settled).Payments {
		if strings.HasPrefix(p.Why, "bounty") && p.To == w.authorities[0].ID().Address() {
			bounty += p.Amount
		}
	}
	if want := (100 * crowd.Credit).PPM(w.s.Params().BountyPPM); bounty != want {
		t.Errorf("got a bounty of %s want %s", bounty, want)
	}
}

// Who keeps others from claiming, as by a flood of jobs, gets no place by it: with less than half of the winning tickets a draw
// stays open, and with no more at its last window the job fails.
func TestAttack_AFewClaimsGiveNoPlaces(t *testing.T) {
	w := newWorld(t, 1, 5)
	id := w.drawn(testSpec(), w.providers[:2]...)
	w.wait(w.s.Params().ClaimWindow + 1)
	if j := w.in(id, Claiming); len(j.Places) > 0 {
		t.Errorf("%d places given out by 2 of 5 claims", len(j.Places))
	}
	m := w.claimMsg(w.providers[2], id) // the network was too slow for it in the first window
	w.must(m.k, m.m)
	w.wait(w.s.Params().ClaimWindow + 1)
	w.in(id, Running)
	if got := w.s.Reputation(w.providers[4].ID().Address()).Missed; got != 1 {
		t.Errorf("got %d missed by one that claimed in no window, want 1", got)
	}

	w = newWorld(t, 1, 5)
	id = w.drawn(testSpec(), w.providers[:2]...)
	had := w.balance(w.owner.ID())
	locked := w.job(id).Escrow
	for i := range claimWindows - 1 {
		w.wait(w.s.Params().ClaimWindow + 1)
		if got := w.s.Reputation(w.providers[4].ID().Address()).Missed; got != 0 {
			t.Errorf("window %d: got %d missed while the draw is open", i, got)
		}
		w.in(id, Claiming)
	}
	w.wait(w.s.Params().ClaimWindow + 1)
	j := w.in(id, Failed)
	if got := w.balance(w.owner.ID()); got != had+locked || j.Escrow != 0 {
		t.Errorf("the owner of a job without places has %s, want %s", got, had+locked)
	}
	if got := w.s.Reputation(w.providers[4].ID().Address()).Missed; got != 1 {
		t.Errorf("got %d missed, want 1", got)
	}
}

// Where not every ticket wins, a node that does not claim may simply have lost: it misses nothing.
func TestDispatch_OnlyACertainDrawIsMissed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		units  uint64
		claims int
		missed uint32
	}{
		{"others claimed, in a certain draw", 100_000, 1, 1},
		{"others claimed, in a draw that they may have lost", 20, 1, 0},
		{"nobody claimed: the network was slow", 100_000, 0, 0},
	} {
		w := newWorld(t, 1, 3, func(g *Genesis) { g.Params.CommitteeUnits = tt.units })
		id := w.drawn(testSpec())
		for _, k := range w.providers {
			if len(w.job(id).Drawn) < tt.claims {
				m := w.claimMsg(k, id)
				w.block(m) // refused if it drew no ticket
			}
		}
		drawn := w.job(id).Drawn
		if len(drawn) != tt.claims {
			t.Fatalf("%s: %d claimed, want %d", tt.name, len(drawn), tt.claims)
		}
		w.closed(id)
		w.in(id, Failed)
		for _, k := range w.providers {
			want := tt.missed
			if slices.ContainsFunc(drawn, func(d Drawn) bool { return d.Node == k.ID() }) {
				want = 0
			}
			if got := w.s.Reputation(k.ID().Address()).Missed; got != want {
				t.Errorf("%s: got %d missed, want %d", tt.name, got, want)
			}
		}
	}
}
