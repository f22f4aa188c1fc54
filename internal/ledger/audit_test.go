package ledger

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// Two identities of one cheater that register one VRF key must not share their
// luck: with equal priorities they would stand side by side, and win both places
// of a pair as often as one of them wins the first.
func TestDraw_OneVRFKeyForTwoNodesGivesTwoDraws(t *testing.T) {
	shared := key(t, 777).VRF()
	w := newWorld(t, 1, 2, func(g *Genesis) {
		for i := range g.Grants {
			if g.Grants[i].Stake > 0 {
				g.Grants[i].VRF = shared.Public()
			}
		}
	})
	id := w.drawn(testSpec())
	for _, k := range w.providers {
		proof, _ := shared.Prove(DrawInput(id, k.ID(), w.job(id).Beacon))
		w.must(k, &Claim{Job: id, Proof: proof})
	}
	j := w.in(id, Running)
	if a, b := j.Drawn[0], j.Drawn[1]; a.Priority == b.Priority {
		t.Errorf("got equal priorities %x for %s and %s want independent ones", a.Priority[:4], a.Node.Short(), b.Node.Short())
	}
}

// Who claimed and was crowded out by better claims has not missed its draw.
func TestDispatch_WhoIsCrowdedOutHasNotMissedTheDraw(t *testing.T) {
	w := newWorld(t, 1, 5, func(g *Genesis) { g.Params.MaxClaims = 3 })
	id := w.drawn(testSpec(), w.providers...)
	w.wait(w.s.Params().ClaimWindow + 1)
	j := w.in(id, Running)
	if len(j.Drawn) != 3 {
		t.Fatalf("got %d claims kept want 3", len(j.Drawn))
	}
	for _, k := range w.providers {
		if r := w.s.Reputation(k.ID().Address()); r.Missed != 0 {
			t.Errorf("%s: got %d missed draws want 0", k.ID().Short(), r.Missed)
		}
	}
}

func TestReveal_AnImpossibleOutcomeIsFraud(t *testing.T) {
	for _, o := range []crowd.Outcome{
		{Status: crowd.Exited, Gas: 1e9 + 1, Result: "bafyright"},
		{Status: crowd.Exited, Gas: 1, Result: crowd.CID(strings.Repeat("b", crowd.MaxCID+1))},
	} {
		w := newWorld(t, 1, 2)
		id := w.drawn(testSpec(), w.providers...)
		for _, k := range w.providers {
			w.commit(k, id, o)
		}
		w.reveal(w.providers[0], id, o)
		j := w.job(id)
		if p := j.Place(w.providers[0].ID()); p.State != Fraud || w.stake(p.Node) != 0 {
			t.Errorf("gas %d, %d bytes: got place %s and stake %s want fraud and nothing", o.Gas, len(o.Result), p.State, w.stake(p.Node))
		}
	}
}

func TestCommit_WantsOneBoundedSealForEachAuthority(t *testing.T) {
	w := newWorld(t, 2, 2)
	id := w.drawn(testSpec(), w.providers...)
	m := w.commitMsg(w.providers[0], id, right)
	m.Sealed = m.Sealed[:1]
	w.refused(BadTx, w.providers[0], m)
	m.Sealed = [][]byte{make([]byte, maxSealed+1), {1}}
	w.refused(BadTx, w.providers[0], m)
	m.Sealed = [][]byte{make([]byte, maxSealed), {1}}
	w.must(w.providers[0], m)
}

func TestTx_TheSignatureIsOverEveryByte(t *testing.T) {
	k := key(t, 1)
	raw := Sign(k, "chain", 7, &Transfer{To: crowd.Address{1}, Amount: 1})
	var e envelope
	if err := crowd.Decode(raw, &e); err != nil {
		t.Fatal(err)
	}
	for i := range e.Body {
		e.Body[i] ^= 1
		if tx, err := Open("chain", crowd.Encode(e)); err == nil && tx.Sender() == k.ID() {
			t.Errorf("byte %d changed: got a transaction of the signer", i)
		}
		e.Body[i] ^= 1
	}
	if tx, err := Open("chain", crowd.Encode(e)); err != nil || tx.Sender() != k.ID() {
		t.Errorf("unchanged: got %v", err)
	}
}

func TestTx_OnlyAnAuthoritysDutiesAreFree(t *testing.T) {
	w := newWorld(t, 1, 2)
	fee := w.s.Params().TxFee
	for _, c := range []struct {
		name string
		k    *identity.Key
		m    Message
		want crowd.Credits
	}{
		{"a stranger's tick", w.owner, &Tick{}, fee},
		{"a stranger's vote", w.owner, &Vote{Question: Retrievable}, fee},
		{"an authority's tick", w.authorities[0], &Tick{}, 0},
		{"an authority's vote", w.authorities[0], &Vote{Question: Retrievable}, 0},
		{"an authority's transfer", w.authorities[0], &Transfer{To: crowd.Address{1}}, fee},
	} {
		had := w.balance(c.k.ID())
		w.block(signed{c.k, c.m})
		if got := had - w.balance(c.k.ID()); got != c.want {
			t.Errorf("%s: got a fee of %s want %s", c.name, got, c.want)
		}
	}
}

func TestClaim_OnlyWinnersInOrderOfPriority(t *testing.T) {
	w := newWorld(t, 1, 40, func(g *Genesis) { g.Params.CommitteeUnits = 10 })
	posted := w.height + 1
	id := w.drawn(testSpec())
	j := w.in(id, Claiming)
	if j.DrawAt != posted+2 {
		t.Errorf("got the draw of a job of block %d at %d want two blocks later", posted, j.DrawAt)
	}
	winners := 0
	for _, k := range w.providers {
		_, out := k.VRF().Prove(DrawInput(id, k.ID(), j.Beacon))
		m := w.claimMsg(k, id)
		if won, _ := Won(out, 10, j.Tickets, 10); won == 0 {
			w.refused(BadProof, k, m.m)
			continue
		}
		winners++
		w.must(k, m.m)
		w.refused(Duplicate, k, m.m)
	}
	if winners < 3 || winners > 20 {
		t.Fatalf("got %d winners of 400 tickets with 10 expected", winners)
	}
	w.wait(w.s.Params().ClaimWindow + 1)
	j = w.in(id, Running)
	for i := range j.Drawn {
		if i > 0 && bytes.Compare(j.Drawn[i-1].Priority[:], j.Drawn[i].Priority[:]) >= 0 {
			t.Errorf("claim %d stands before a better one", i-1)
		}
		if i < pairSize && j.Places[i].Node != j.Drawn[i].Node {
			t.Errorf("place %d: got %s want the best claim's %s", i, j.Places[i].Node.Short(), j.Drawn[i].Node.Short())
		}
	}
}

func TestClaim_NotByTheOwnerNorByWhoLeaves(t *testing.T) {
	w := newWorld(t, 1, 4)
	spec := testSpec()
	spec.Task.Limits.Gas = 1e8
	w.owner = w.providers[0]
	w.must(w.providers[1], &Leave{})
	id := w.drawn(spec)
	if j := w.job(id); j.Eligible != 2 {
		t.Errorf("got %d eligible want 2", j.Eligible)
	}
	for _, k := range w.providers[:2] {
		m := w.claimMsg(k, id)
		w.refused(NotEligible, k, m.m)
	}
}

func TestSeat_PassesOverWhoHasLeftSince(t *testing.T) {
	w := newWorld(t, 1, 4)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	w.must(w.keyOf(j.Drawn[2].Node), &Leave{})
	w.must(w.keyOf(j.Places[0].Node), &GiveUp{Job: id, Reason: CannotRun})
	if j = w.job(id); len(j.Places) != 3 || j.Places[2].Node != j.Drawn[3].Node {
		t.Errorf("got places %v want the fourth drawn in the third", j.Places)
	}
}

func TestLeave_NotWhileAPlaceIsHeld(t *testing.T) {
	w := newWorld(t, 1, 2)
	spec := testSpec()
	spec.Task.Limits.Wall = time.Hour
	id := w.drawn(spec, w.providers...)
	w.must(w.providers[0], &Leave{})
	w.wait(w.s.Params().Unbonding + 1)
	w.in(id, Running)
	w.refused(TooEarly, w.providers[0], &Leave{})
}

func TestLeave_ATombstoneOutlivesTheStake(t *testing.T) {
	w := newWorld(t, 1, 2, func(g *Genesis) { g.Params.SlashPPM = 500_000 })
	id := w.drawn(testSpec(), w.providers...)
	cheat := w.providers[0]
	w.commit(cheat, id, wrong)
	w.commit(w.providers[1], id, right)
	w.reveal(cheat, id, wrong)
	w.reveal(w.providers[1], id, right)
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	w.must(cheat, &Leave{})
	w.wait(w.s.Params().Unbonding + 1)
	w.must(cheat, &Leave{})
	if got := w.stake(cheat.ID()); got != 0 {
		t.Errorf("stake: got %s want 0", got)
	}
	w.refused(NotEligible, cheat, &Register{VRF: cheat.VRF().Public()})
}

func TestCourt_OnlyEqualAndPossibleAnswersCount(t *testing.T) {
	w := newWorld(t, 4, 2)
	id := w.drawn(testSpec(), w.providers...)
	a, b := w.providers[0], w.providers[1]
	w.commit(a, id, right)
	w.commit(b, id, wrong)
	w.reveal(a, id, right)
	w.reveal(b, id, wrong)
	w.refused(BadTx, w.authorities[3], &Vote{Job: id, Question: WhatOutcome, Outcome: crowd.Outcome{Status: crowd.Exited, Gas: 1e9 + 1}})
	for i, o := range []crowd.Outcome{right, wrong, right} {
		w.must(w.authorities[i], &Vote{Job: id, Question: WhatOutcome, Outcome: o})
		w.in(id, Court)
	}
	w.must(w.authorities[3], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	if j := w.in(id, Delivering); j.Verdict.Outcome != right {
		t.Errorf("got %v want %v", j.Verdict.Outcome, right)
	}
}

func TestSettle_WhoNeverRevealedIsNotPaid(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	silent, honest := w.providers[0], w.providers[1]
	w.commit(silent, id, right)
	w.commit(honest, id, right)
	had := w.balance(silent.ID())
	w.reveal(honest, id, right)
	w.wait(w.s.Params().RevealWindow + 1)
	w.wait(w.s.Params().CourtWindow + 1)
	w.in(id, Court)
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	w.must(w.owner, &Accept{Job: id})
	w.in(id, Settled)
	if got := w.balance(silent.ID()); got != had {
		t.Errorf("silent executor: got %s want still %s", got, had)
	}
}

// caught convicts a node in a job of its own and another's.
func (w *world) caught(cheat, honest *identity.Key) {
	w.t.Helper()
	spec := testSpec()
	spec.Filters.Providers = []crowd.NodeID{cheat.ID(), honest.ID()}
	id := w.drawn(spec, cheat, honest)
	w.in(id, Running)
	w.commit(cheat, id, wrong)
	w.commit(honest, id, right)
	w.reveal(cheat, id, wrong)
	w.reveal(honest, id, right)
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	if p, _ := w.s.Provider(cheat.ID().Address()); !p.Tombstoned {
		w.t.Fatal("the cheater has no tombstone")
	}
}

// A node that claimed and was caught in another job before it got its place has nothing left to lose: it gets none,
// neither when the places are given out nor as an alternate.
func TestSeat_PassesOverWhoWasCaughtSince(t *testing.T) {
	t.Run("at the dispatch", func(t *testing.T) {
		w := newWorld(t, 1, 4)
		id := w.drawn(testSpec(), w.providers[:3]...)
		j := w.in(id, Claiming)
		cheat := j.Drawn[0].Node
		w.caught(w.keyOf(cheat), w.providers[3])
		w.in(id, Claiming)
		w.wait(w.s.Params().ClaimWindow)
		j = w.in(id, Running)
		if len(j.Places) != 2 || j.Place(cheat) != nil {
			t.Errorf("got places %v want two without %s", j.Places, cheat.Short())
		}
	})
	t.Run("as an alternate", func(t *testing.T) {
		w := newWorld(t, 1, 5)
		id := w.drawn(testSpec(), w.providers...)
		j := w.in(id, Running)
		cheat := j.Drawn[2].Node
		w.caught(w.keyOf(cheat), w.keyOf(j.Drawn[4].Node))
		w.must(w.keyOf(j.Places[0].Node), &GiveUp{Job: id, Reason: CannotRun})
		if j = w.in(id, Running); len(j.Places) != 3 || j.Places[2].Node != j.Drawn[3].Node {
			t.Errorf("got places %v want the fourth drawn in the third", j.Places)
		}
	})
	t.Run("as an auditor", func(t *testing.T) {
		w := newWorld(t, 1, 4)
		spec := auditSpec()
		spec.Plan.Rate = 1e6
		id := w.drawn(spec, w.providers...)
		j := w.in(id, Running)
		first := j.Places[0].Node
		w.commit(w.keyOf(first), id, right)
		var others []crowd.NodeID
		for _, d := range j.Drawn {
			if d.Node != first {
				others = append(others, d.Node)
			}
		}
		for _, cheat := range others[:2] { // of three auditors two are caught before the beacon comes
			ed := begin(w.s, Block{Time: w.now})
			p, _ := ed.provider(cheat)
			p.Tombstoned = true
			ed.putProvider(p)
			w.s = ed.seal()
		}
		w.block()
		w.block()
		if j = w.in(id, Running); len(j.Places) != 2 || j.Places[1].Node != others[2] {
			t.Errorf("got places %v want the only one who was not caught as the auditor", j.Places)
		}
	})
}
