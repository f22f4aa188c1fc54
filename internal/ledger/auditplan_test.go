package ledger

import (
	"bytes"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

func auditSpec() crowd.JobSpec {
	s := testSpec()
	s.Plan = crowd.Plan{Method: crowd.PlanAudit, Rate: crowd.AuditFloor, Replacements: 2}
	return s
}

// veterans gives every provider a record without a doubt, so that only the floor asks for audits.
func (w *world) veterans() *world {
	ed := begin(w.s, Block{Time: w.now})
	for _, k := range w.providers {
		ed.reputation(k.ID().Address(), func(r *Reputation) { r.Done, r.Passed, r.Dues, r.At = 1e6, maxFading, 1e9, w.now })
	}
	w.s = ed.seal()
	return w
}

// bound lets the drawn executor of a new audited job commit to o, and the lot fall. The job runs on if it was chosen.
func (w *world) bound(o crowd.Outcome) (crowd.JobID, *identity.Key) {
	w.t.Helper()
	id := w.drawn(auditSpec(), w.providers...)
	j := w.in(id, Running)
	if len(j.Places) != 1 {
		w.t.Fatalf("got %d places want one executor before the lot", len(j.Places))
	}
	k := w.keyOf(j.Places[0].Node)
	w.commit(k, id, o)
	// Not the commitment's own block nor the next: whoever proposes those could know the lot beforehand.
	if a := w.in(id, Running).Audit; a.At != w.height+drawDelay || a.Beacon != (crowd.Hash{}) {
		w.t.Fatalf("bound in block %d: got %+v want the beacon of two blocks later", w.height, a)
	}
	w.refused(TooEarly, k, &Reveal{Job: id, Opening: opening(k.ID(), o)}) // nobody shows anything before the lot
	if j := w.job(id); len(j.Places) != 1 || j.Audit.Beacon != (crowd.Hash{}) {
		w.t.Fatalf("got %+v want no lot yet", j.Audit)
	}
	w.block()
	return id, k
}

// until plays jobs until the lot falls as wanted.
func (w *world) until(chosen bool, o crowd.Outcome) (crowd.JobID, *identity.Key) {
	w.t.Helper()
	for range 200 {
		id, k := w.bound(o)
		if j := w.job(id); j.Audit.Chosen(id) == chosen {
			return id, k
		}
		w.finish(id)
	}
	w.t.Fatalf("200 lots and none fell so: chosen %v", chosen)
	return crowd.JobID{}, nil
}

// finish lets everybody do honestly what is left of the job.
func (w *world) finish(id crowd.JobID) Job {
	w.t.Helper()
	for range 20 {
		switch j := w.job(id); j.State {
		case Running:
			for i := range j.Places {
				if p := &j.Places[i]; p.State == Working {
					w.commit(w.keyOf(p.Node), id, right)
				}
			}
		case Revealing:
			for i := range j.Places {
				for _, o := range []crowd.Outcome{right, wrong} {
					if k := w.keyOf(j.Places[i].Node); j.Places[i].State == Committed && Commitment(id, k.ID(), opening(k.ID(), o)) == j.Places[i].Commitment {
						w.reveal(k, id, o)
					}
				}
			}
		case Court:
			w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
		case Delivering:
			w.must(w.owner, &Accept{Job: id})
		default:
			return j
		}
	}
	w.t.Fatalf("job %s does not end", id.Short())
	return Job{}
}

// The lot is ignored: this goes red, whichever way.
func TestAudit_TheLotDecidesAndTheVerdictSaysHow(t *testing.T) {
	w := newWorld(t, 1, 6, func(g *Genesis) { g.Params.Retention = 50 }).veterans() // few records, so that the invariants are looked at quickly
	const jobs = 150
	chosen, next := 0, 0
	for range jobs {
		id, k := w.bound(right)
		j := w.job(id)
		lot := AuditLot(id, k.ID(), j.Audit.Beacon)
		if j.Audit.Rate != crowd.AuditFloor || j.Audit.Beacon != w.s.Beacon().R {
			t.Fatalf("got a rate of %d by beacon %s want the floor by %s", j.Audit.Rate, j.Audit.Beacon, w.s.Beacon().R)
		}
		had, was := w.s.Reputation(k.ID().Address()), len(w.s.Evidence(k.ID().Address()))
		if lot >= crowd.AuditFloor {
			w.in(id, Revealing)
			j = w.finish(id)
			if v := j.Verdict; len(j.Places) != 1 || v.By != ByAudit || !strings.Contains(fmt.Sprint(j.History), "not chosen for an audit") || !strings.Contains(fmt.Sprint(j.History), "rate of 5 %") {
				t.Fatalf("lot %d: got verdict %+v by %d places (%v) want one executor's word, by audit", lot, v, len(j.Places), j.History)
			}
			r := w.s.Reputation(k.ID().Address())
			if r.Done != had.Done || r.Passed != had.Passed || r.Dues != had.Dues || len(w.s.Evidence(k.ID().Address())) != was {
				t.Fatal("work that nobody checked is evidence of honesty")
			}
			if r.Work != had.Work+right.Gas {
				t.Fatalf("got work %d want the paid gas counted", r.Work)
			}
			if got, want := j.Spent(), crowd.ReferencePrice.Cost(right.Gas)+j.Duties; got != want {
				t.Fatalf("the owner paid %s want one execution, %s", got, want)
			}
			continue
		}
		chosen++
		j = w.in(id, Running)
		if len(j.Places) != 2 || j.Places[1].State != Working {
			t.Fatalf("lot %d: got places %+v want a second executor", lot, j.Places)
		}
		for i := range j.Drawn[1:] {
			a, b := j.Drawn[1+i].Turn(id, j.Audit.Beacon), j.Drawn[slices.IndexFunc(j.Drawn, func(d Drawn) bool { return d.Node == j.Places[1].Node })].Turn(id, j.Audit.Beacon)
			if bytes.Compare(a[:], b[:]) < 0 {
				t.Fatalf("%s audits, though %s comes before by the beacon", j.Places[1].Node.Short(), j.Drawn[1+i].Node.Short())
			}
		}
		if j.Places[1].Node == j.Drawn[1].Node {
			next++
		}
		if r := w.finish(id); r.Verdict.By != ByAgreement || w.s.Reputation(k.ID().Address()).Done != had.Done+1 {
			t.Fatalf("got verdict %+v want the agreement of two, and its evidence", r.Verdict)
		}
	}
	// 5 % of 150 is 7.5, sd 2.7.
	if chosen < 1 || chosen > 20 {
		t.Errorf("got %d of %d audited want about 7", chosen, jobs)
	}
	if next == chosen {
		t.Errorf("all %d auditors were the next in line: the executor knew who would look", next)
	}
}

func TestAudit_OneWhoLiesAndIsChosenLosesItsStake(t *testing.T) {
	w := newWorld(t, 1, 5).veterans()
	id, cheat := w.until(true, wrong)
	j := w.in(id, Running)
	auditor := w.keyOf(j.Places[1].Node)
	w.refused(NotYours, cheat, &GiveUp{Job: id, Reason: CannotRun, Why: "sorry"}) // it is bound
	j = w.finish(id)
	if j.Verdict.Outcome != right || j.Verdict.By != ByCourt || w.stake(cheat.ID()) != 0 {
		t.Fatalf("got %+v and a stake of %s want the court's verdict and none", j.Verdict, w.stake(cheat.ID()))
	}
	if w.stake(auditor.ID()) != 100*crowd.Credit {
		t.Error("the honest auditor lost stake")
	}
	if j.Spent() != 0 {
		t.Errorf("the owner paid %s want it made whole", j.Spent())
	}
}

// It is accepted, as the plan says it may be, and never called checked.
func TestAudit_OneWhoLiesAndIsNotChosenPasses(t *testing.T) {
	w := newWorld(t, 1, 5).veterans()
	id, cheat := w.until(false, wrong)
	j := w.finish(id)
	if j.Verdict.Outcome != wrong || j.Verdict.By != ByAudit || w.stake(cheat.ID()) == 0 {
		t.Fatalf("got %+v want the lie, by audit", j.Verdict)
	}
}

func TestAudit_RateFollowsTheRecordNeverBelowTheFloor(t *testing.T) {
	w := newWorld(t, 1, 4)
	id := w.drawn(auditSpec(), w.providers...)
	if got := w.job(id).Audit.Rate; got != 1e6 { // no good result yet
		t.Errorf("a newcomer: got a rate of %d want each result checked", got)
	}
	p := MainParams().Reputation
	for _, tt := range []struct {
		name string
		r    Reputation
		want uint32
	}{
		{"a newcomer with one good result", Reputation{Done: 1}, 750_000},
		{"a perfect record", Reputation{Done: 1e9, Passed: maxFading}, crowd.AuditFloor},
		{"ten good results", Reputation{Done: 10, Passed: maxFading}, 90_909},
		{"a thousand good results: BOINC's rule would let go", Reputation{Done: 1000, Passed: maxFading}, crowd.AuditFloor},
		{"caught once", Reputation{Done: 1e9, Passed: maxFading, Caught: 1}, 1e6},
	} {
		if got := tt.r.RecordRate(&p, 0); got != tt.want {
			t.Errorf("%s: got %d ppm want %d", tt.name, got, tt.want)
		}
	}
	low := auditSpec()
	low.Plan.Rate--
	w.refused(BadSpec, w.owner, &Post{Spec: low})
	for rate := range uint32(3) {
		if (&Audit{Rate: rate}).Chosen(id) == false {
			t.Error("nobody is chosen before the beacon is there")
		}
	}
}

// loses computes p·(R+S) > gain with rational numbers.
func loses(rate uint32, pay, stake crowd.Credits) bool {
	lost := new(big.Rat).SetFrac64(int64(rate)*honestAuditors, 1e12)
	lost.Mul(lost, new(big.Rat).SetInt(new(big.Int).Add(new(big.Int).SetUint64(uint64(pay)), new(big.Int).SetUint64(uint64(stake)))))
	return lost.Cmp(new(big.Rat).SetInt(new(big.Int).SetUint64(uint64(pay)))) > 0
}

// The stake rule is ignored: this goes red.
func TestAudit_LyingLosesWhateverStakeIsFree(t *testing.T) {
	w := newWorld(t, 1, 3).veterans()
	spec := auditSpec()
	least := w.s.Params().StakeToAudit(&spec)
	if want := 39*crowd.Credit + 1; least != want { // one credit of pay, p of 2.5 %
		t.Fatalf("got a least stake of %s want %s", least, want)
	}
	var open []crowd.JobID
	rates := map[crowd.NodeID][]uint32{}
	sum := map[crowd.NodeID]crowd.Credits{}
	for range 12 {
		id := w.drawn(auditSpec(), w.providers...)
		open = append(open, id)
		a := w.in(id, Running).Audit
		if a.Rate < 1e6 && !loses(a.Rate, crowd.Credit, a.Stake) {
			t.Fatalf("a stake of %s at a rate of %d ppm: lying pays", a.Stake, a.Rate)
		}
		for _, k := range w.providers {
			if p, _ := w.s.Provider(k.ID().Address()); a.Rate == 1e6 && k.ID() != a.Executor && p.Free() > crowd.Credit {
				t.Fatalf("a node without free stake was seated, though %s has %s", k.ID().Short(), p.Free())
			}
		}
		rates[a.Executor] = append(rates[a.Executor], a.Rate)
		sum[a.Executor] += a.Stake
		if sum[a.Executor] > w.stake(a.Executor) {
			t.Fatalf("%s of stake answer for %s in several jobs at a time", w.stake(a.Executor), sum[a.Executor])
		}
	}
	for id, r := range rates {
		for i := range r[1:] {
			if r[i+1] < r[i] {
				t.Errorf("%s: got rates %v want them to rise as the stake is spoken for", id.Short(), r)
			}
		}
		if len(r) > 3 && r[3] != 1e6 {
			t.Errorf("%s: got %v want every piece of work audited once no stake is free", id.Short(), r)
		}
	}
	for _, id := range open { // and all of it is free again
		k := w.keyOf(w.job(id).Places[0].Node)
		w.commit(k, id, right)
		w.block()
		w.block()
		w.finish(id)
	}
	for _, k := range w.providers {
		if p, _ := w.s.Provider(k.ID().Address()); p.Bound != 0 {
			t.Errorf("%s of stake are still bound", p.Bound)
		}
	}
}

func TestAudit_RateAndStakeAreInverse(t *testing.T) {
	for _, pay := range []crowd.Credits{1, 2, 999, crowd.Credit, 123_456_789, maxSupply} {
		for rate := uint32(crowd.AuditFloor); rate <= 1e6; rate += 7919 {
			s := AuditStake(pay, rate)
			if s == ^crowd.Credits(0) {
				continue // not to be counted
			}
			if !loses(rate, pay, s) || s > 0 && loses(rate, pay, s-1) {
				t.Fatalf("pay %d rate %d: a stake of %d is not the least with which lying loses", pay, rate, s)
			}
			got := AuditRate(pay, s)
			if got > rate || got < 1e6 && !loses(got, pay, s) || got > crowd.AuditFloor && loses(got-1, pay, s) {
				t.Fatalf("pay %d stake %d: a rate of %d is not the least with which lying loses (%d does)", pay, s, got, rate)
			}
		}
	}
	if got := AuditRate(crowd.Credit, 0); got != 1e6 {
		t.Errorf("nothing at stake: got %d want everything audited", got)
	}
}

func TestAudit_AStakeThatIsPartlyTakenCountsForThatPart(t *testing.T) {
	p := DevParams()
	spec := auditSpec()
	whole := p.StakeToAudit(&spec)
	p.SlashPPM = 250_000
	if got := p.StakeToAudit(&spec); got != 4*whole {
		t.Errorf("got %s want four times %s", got, whole)
	}
	if p.SlashPPM = 0; p.StakeToAudit(&spec) != ^crowd.Credits(0) {
		t.Error("a stake that is never taken frightens nobody")
	}
}

// A node that was caught elsewhere has no stake to lose: its open work is audited for certain.
func TestAudit_WhoWasCaughtMeanwhileIsAlwaysAudited(t *testing.T) {
	w := newWorld(t, 1, 6).veterans()
	for range 20 {
		id := w.drawn(auditSpec(), w.providers...)
		k := w.keyOf(w.job(id).Places[0].Node)
		w.commit(k, id, wrong)
		ed := begin(w.s, Block{Time: w.now})
		p, _ := ed.provider(k.ID())
		p.Tombstoned = true
		ed.putProvider(p)
		w.s = ed.seal()
		w.block()
		w.block()
		if j := w.in(id, Running); len(j.Places) != 2 || j.Audit.Rate != 1e6 {
			t.Fatalf("got %d places at a rate of %d want an audit for certain", len(j.Places), j.Audit.Rate)
		}
		w = newWorld(t, 1, 6, func(g *Genesis) { g.Time += crowd.Time(id[0]) }).veterans() // another history
	}
}

func TestAudit_ExecutorsThatFailAreReplaced(t *testing.T) {
	w := newWorld(t, 1, 4).veterans()
	id := w.drawn(auditSpec(), w.providers...)
	first := w.keyOf(w.job(id).Places[0].Node)
	w.must(first, &GiveUp{Job: id, Reason: CannotRun, Why: "disk full"})
	j := w.in(id, Running)
	if len(j.Places) != 2 || j.Audit.Executor != j.Drawn[1].Node || j.Audit.At != 0 {
		t.Fatalf("got %+v want the first alternate executing", j.Audit)
	}
	w.wait(20_001) // it dies
	j = w.in(id, Running)
	k := w.keyOf(j.Audit.Executor)
	w.commit(k, id, right)
	w.refused(TooLate, w.owner, &Cancel{Job: id})
	w.block()
	w.block()
	w.finish(id)
	w.in(id, Settled)
}

func TestAudit_SilenceAfterTheCommitmentChangesNothing(t *testing.T) {
	w := newWorld(t, 1, 5).veterans()
	id, k := w.until(false, wrong)
	w.wait(w.s.Params().RevealWindow)
	w.in(id, Unsealing)
	w.must(w.authorities[0], &Unseal{Job: id, Executor: k.ID(), Opening: opening(k.ID(), wrong)})
	if j := w.in(id, Delivering); j.Verdict.By != ByAudit {
		t.Errorf("got %+v want the sealed outcome", j.Verdict)
	}
}

// An auditor is drawn once. If another took its place, the executor's friend would get it in the end.
func TestAudit_TheCourtTakesThePlaceOfAnAuditorThatDies(t *testing.T) {
	w := newWorld(t, 1, 4).veterans()
	id, cheat := w.until(true, wrong)
	had := w.balance(w.authorities[0].ID())
	j := w.in(id, Running)
	w.must(w.keyOf(j.Places[1].Node), &GiveUp{Job: id, Reason: CannotRun, Why: "no"})
	w.in(id, Revealing)
	w.reveal(cheat, id, wrong)
	j = w.in(id, Court)
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	w.must(w.owner, &Accept{Job: id})
	w.in(id, Settled)
	if w.stake(cheat.ID()) != 0 || w.balance(w.authorities[0].ID()) <= had {
		t.Errorf("got a stake of %s, and the court has %s of %s want the cheater convicted by a paid court", w.stake(cheat.ID()), w.balance(w.authorities[0].ID()), had)
	}
	// The same with an honest executor: it keeps everything, and the court is paid out of the escrow.
	w = newWorld(t, 1, 3).veterans()
	id, honest := w.until(true, right)
	for w.job(id).State == Running {
		j = w.job(id)
		w.must(w.keyOf(j.Places[len(j.Places)-1].Node), &GiveUp{Job: id, Reason: CannotRun, Why: "no"})
	}
	if j = w.finish(id); j.State != Settled || j.Verdict.By != ByCourt || w.stake(honest.ID()) != 100*crowd.Credit {
		t.Errorf("got %s, %+v want the court to confirm", j.State, j.Verdict)
	}
}

func TestAudit_TooFewToHideTheAuditorIsRefused(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.refused(NoProvider, w.owner, &Post{Spec: auditSpec()})
	w = newWorld(t, 1, 4)
	id := w.drawn(auditSpec(), w.providers[:2]...)
	w.closed(id)
	w.in(id, Failed)
}

// Auditors are drawn anew by their winning tickets: splitting a stake over many names gains nothing.
func TestAudit_TurnsGoByWinningTickets(t *testing.T) {
	const draws = 4000
	first := 0
	for i := range draws {
		r := crowd.Keccak256([]byte{byte(i), byte(i >> 8)})
		heavy := Drawn{Node: crowd.NodeID{1}, Won: 9}
		light := Drawn{Node: crowd.NodeID{2}, Won: 1}
		a, b := heavy.Turn(crowd.JobID{}, r), light.Turn(crowd.JobID{}, r)
		if bytes.Compare(a[:], b[:]) < 0 {
			first++
		}
	}
	if got := float64(first) / draws; got < 0.88 || got > 0.92 {
		t.Errorf("nine tickets of ten come first in %.3f of draws want 0.9", got)
	}
}

func committeeSpec(n uint32) crowd.JobSpec {
	s := testSpec()
	s.Plan = crowd.Plan{Method: crowd.PlanCommittee, Executors: n, Replacements: 1}
	return s
}

// A committee that compares only its first two, or lets the many outvote the one, makes this red.
func TestCommittee_OneHonestOfManyIsEnough(t *testing.T) {
	for _, n := range []uint32{3, 5, 9} {
		for at := range int(n) {
			w := newWorld(t, 1, int(n))
			ownerHad := w.balance(w.owner.ID())
			id := w.drawn(committeeSpec(n), w.providers...)
			j := w.in(id, Running)
			if len(j.Places) != int(n) {
				t.Fatalf("got %d places want %d", len(j.Places), n)
			}
			said := func(i int) crowd.Outcome {
				if i == at {
					return right
				}
				return wrong
			}
			for i := range j.Places {
				w.in(id, Running)
				w.commit(w.keyOf(j.Places[i].Node), id, said(i))
			}
			for i := range j.Places {
				w.in(id, Revealing)
				w.reveal(w.keyOf(j.Places[i].Node), id, said(i))
			}
			w.in(id, Court)
			j = w.finish(id)
			if j.Verdict.Outcome != right || w.balance(w.owner.ID()) != ownerHad-2*w.s.Params().TxFee {
				t.Fatalf("%d of which %d is honest: got %v, the owner has %s of %s", n, at, j.Verdict.Outcome, w.balance(w.owner.ID()), ownerHad)
			}
			for i := range j.Places {
				if lost := w.stake(j.Places[i].Node) == 0; lost != (i != at) {
					t.Errorf("%d of which %d is honest: executor %d lost its stake: %v", n, at, i, lost)
				}
			}
		}
	}
}

func TestCommittee_AllEqualIsAccepted(t *testing.T) {
	w := newWorld(t, 1, 6)
	id := w.drawn(committeeSpec(5), w.providers...)
	j := w.in(id, Running)
	for i := range j.Places[:4] {
		w.commit(w.keyOf(j.Places[i].Node), id, right)
	}
	w.must(w.keyOf(j.Places[4].Node), &GiveUp{Job: id, Reason: CannotRun, Why: "no"})
	w.in(id, Running) // the alternate works
	if j = w.finish(id); j.State != Settled || j.Verdict.By != ByAgreement {
		t.Fatalf("got %s, %+v want agreement", j.State, j.Verdict)
	}
	if got, want := j.Spent(), 5*crowd.ReferencePrice.Cost(right.Gas)+j.Duties; got != want {
		t.Errorf("the owner paid %s want %s", got, want)
	}
}

// Fewer than the plan's number would be another probability than the one that was promised.
func TestCommittee_FewerThanPromisedGoToCourt(t *testing.T) {
	w := newWorld(t, 1, 3)
	id := w.drawn(committeeSpec(3), w.providers...)
	j := w.in(id, Running)
	w.commit(w.keyOf(j.Places[0].Node), id, wrong)
	w.commit(w.keyOf(j.Places[1].Node), id, wrong)
	w.must(w.keyOf(j.Places[2].Node), &GiveUp{Job: id, Reason: CannotRun, Why: "no"})
	w.in(id, Revealing)
	w.reveal(w.keyOf(j.Places[0].Node), id, wrong)
	w.reveal(w.keyOf(j.Places[1].Node), id, wrong)
	w.in(id, Court)
	if j = w.finish(id); j.Verdict.Outcome != right || w.stake(j.Places[0].Node) != 0 || w.stake(j.Places[1].Node) != 0 {
		t.Errorf("got %+v want the two that agreed on a lie convicted", j.Verdict)
	}
}

func TestPlan_OnlyWhatCanBe(t *testing.T) {
	w := newWorld(t, 1, 9, func(g *Genesis) { g.Params.MaxClaims = 4 })
	for _, p := range []crowd.Plan{
		{Method: "none"}, {}, {Method: crowd.PlanAudit}, {Method: crowd.PlanAudit, Rate: 1e6 + 1}, {Method: crowd.PlanPair, Rate: crowd.AuditFloor},
		{Method: crowd.PlanCommittee, Executors: 2}, {Method: crowd.PlanCommittee, Executors: 10}, {Method: crowd.PlanPair, Executors: 3},
		{Method: crowd.PlanCommittee, Executors: 3, Checks: 1}, {Method: crowd.PlanCommittee, Executors: 5}, // more than claims are kept
	} {
		s := testSpec()
		s.Plan = p
		w.refused(BadSpec, w.owner, &Post{Spec: s})
	}
}
