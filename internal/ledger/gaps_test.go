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
