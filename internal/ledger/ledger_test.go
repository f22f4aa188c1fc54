package ledger

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// world is a chain of one proposer without consensus: every block is checked
// for conservation and for open jobs without a deadline.
type world struct {
	t           testing.TB
	chain       string
	s           State
	height      crowd.Height
	now         crowd.Time
	authorities []*identity.Key
	providers   []*identity.Key
	owner       *identity.Key
	events      []Event
}

func key(t testing.TB, seed uint64) *identity.Key {
	var b [32]byte
	b[0], b[1] = byte(seed), byte(seed>>8)
	k, err := identity.Generate(rand.NewChaCha8(b))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newWorld(t testing.TB, authorities, providers int, change ...func(*Genesis)) *world {
	w := &world{t: t, now: 1_000_000, owner: key(t, 999)}
	g := &Genesis{Name: "test", Time: w.now, Params: DevParams()}
	for i := range authorities {
		k := key(t, uint64(100+i))
		w.authorities = append(w.authorities, k)
		g.Authorities = append(g.Authorities, Authority{ID: k.ID(), VRF: k.VRF().Public(), Consensus: []byte{byte(i)}})
		g.Grants = append(g.Grants, Grant{ID: k.ID(), Balance: crowd.Credit})
	}
	for i := range providers {
		k := key(t, uint64(200+i))
		w.providers = append(w.providers, k)
		g.Grants = append(g.Grants, Grant{
			ID: k.ID(), Balance: crowd.Credit, Stake: 100 * crowd.Credit, VRF: k.VRF().Public(),
			Offer: Offer{Price: crowd.ReferencePrice, Tags: []string{"wasm"}, Country: "GR"},
		})
	}
	g.Grants = append(g.Grants, Grant{ID: w.owner.ID(), Balance: 1000 * crowd.Credit})
	// So that sums are easy to follow; fees by size, starts and inspections have tests of their own.
	g.Params.SizeFee, g.Params.KeepFee, g.Params.StartGas, g.Params.InspectFee = 0, 0, 0, 0
	for _, f := range change {
		f(g)
	}
	s, err := New(g)
	if err != nil {
		t.Fatal(err)
	}
	w.s, w.chain = s, g.ChainID()
	return w
}

type signed struct {
	k *identity.Key
	m Message
}

// block applies messages in one block and returns why each was refused.
func (w *world) block(msgs ...signed) []error {
	w.t.Helper()
	w.height++
	w.now += 5
	b := Block{Height: w.height, Time: w.now, Proposer: w.authorities[0].ID()}
	nonces := map[crowd.NodeID]uint64{}
	for _, m := range msgs {
		id := m.k.ID()
		if _, ok := nonces[id]; !ok {
			nonces[id] = w.s.Account(id.Address()).Nonce
		}
		tx, err := Open(w.chain, Sign(m.k, w.chain, nonces[id], m.m))
		if err != nil {
			w.t.Fatal(err)
		}
		nonces[id]++
		b.Txs = append(b.Txs, tx)
	}
	if len(msgs) > 0 || w.s.DrawPending() {
		r := w.s.Beacon().R
		proof, _ := w.authorities[0].VRF().Prove(r[:])
		b.Beacon = &proof
	}
	before := w.s.Root()
	a, err := Apply(w.s, b)
	if err != nil {
		w.t.Fatalf("block %d: %v", w.height, err)
	}
	for _, bug := range a.Bugs {
		w.t.Fatalf("block %d: the ledger panics: %s\n%s", w.height, bug.Panic, bug.Stack)
	}
	if w.s.Root() != before {
		w.t.Fatal("Apply changed the state that it was given")
	}
	w.s, w.events = a.State, append(w.events, a.Events...)
	if err := CheckInvariants(w.s); err != nil {
		w.t.Fatalf("after block %d: %v", w.height, err)
	}
	return a.Results
}

func (w *world) must(k *identity.Key, m Message) {
	w.t.Helper()
	if err := w.block(signed{k, m})[0]; err != nil {
		w.t.Fatalf("%T: %v", m, err)
	}
}

// refused applies m and wants that code.
func (w *world) refused(code Code, k *identity.Key, m Message) {
	w.t.Helper()
	err := w.block(signed{k, m})[0]
	var r *Refusal
	if !errors.As(err, &r) || r.Code != code {
		w.t.Fatalf("%T: got %v want %s", m, err, code)
	}
}

func (w *world) wait(ms int64) { w.now += crowd.Time(ms); w.block() }

func (w *world) job(id crowd.JobID) Job {
	w.t.Helper()
	j, ok := w.s.Job(id)
	if !ok {
		w.t.Fatalf("job %s is not there", id.Short())
	}
	return j
}

func (w *world) in(id crowd.JobID, want JobState) Job {
	w.t.Helper()
	j := w.job(id)
	if j.State != want {
		w.t.Fatalf("got job %s (%v) want %s", j.State, j.History, want)
	}
	return j
}

func testSpec() crowd.JobSpec {
	return crowd.JobSpec{
		Task:    crowd.Task{Program: "bafyprogram", Limits: crowd.Limits{Gas: 1e9, Memory: 1 << 26, Output: 1 << 20, Wall: 15 * time.Second}},
		Plan:    crowd.Plan{Method: crowd.PlanPair, Replacements: 2},
		Filters: crowd.Filters{MaxPrice: crowd.ReferencePrice},
		Budget:  10 * crowd.Credit,
	}
}

func (w *world) post(spec crowd.JobSpec) crowd.JobID {
	w.t.Helper()
	id := spec.ID(w.owner.ID(), w.s.Account(w.owner.ID().Address()).Nonce)
	w.must(w.owner, &Post{Spec: spec})
	w.in(id, Posted)
	return id
}

func (w *world) claimMsg(k *identity.Key, id crowd.JobID) signed {
	proof, _ := k.VRF().Prove(DrawInput(id, k.ID(), w.job(id).Beacon))
	return signed{k, &Claim{Job: id, Proof: proof}}
}

// drawn posts a job and lets these providers claim.
func (w *world) drawn(spec crowd.JobSpec, claim ...*identity.Key) crowd.JobID {
	w.t.Helper()
	id := w.post(spec)
	w.block()
	w.block()
	w.in(id, Claiming)
	for _, k := range claim {
		m := w.claimMsg(k, id)
		w.must(m.k, m.m)
	}
	return id
}

// closed lets the windows pass in which others could still claim.
func (w *world) closed(id crowd.JobID) {
	w.t.Helper()
	for range claimWindows {
		if w.job(id).State == Claiming {
			w.wait(w.s.Params().ClaimWindow + 1)
		}
	}
	if w.job(id).State == Claiming {
		w.t.Fatalf("the draw of %s is open after %d windows", id.Short(), claimWindows)
	}
}

func (w *world) keyOf(id crowd.NodeID) *identity.Key {
	for _, k := range w.providers {
		if k.ID() == id {
			return k
		}
	}
	w.t.Fatalf("no key of %s", id.Short())
	return nil
}

func opening(id crowd.NodeID, o crowd.Outcome) Opening {
	return Opening{Outcome: o, Salt: crowd.Keccak256(id[:])}
}

func (w *world) commitMsg(k *identity.Key, id crowd.JobID, o crowd.Outcome) *Commit {
	op := opening(k.ID(), o)
	m := &Commit{Job: id, Commitment: Commitment(id, k.ID(), op)}
	for i, a := range w.authorities {
		sealed, err := identity.Seal(rand.NewChaCha8([32]byte{byte(i)}), a.ID(), Pad(&op), SealPurpose(id, k.ID()))
		if err != nil {
			w.t.Fatal(err)
		}
		m.Sealed = append(m.Sealed, sealed)
	}
	return m
}

func (w *world) commit(k *identity.Key, id crowd.JobID, o crowd.Outcome) {
	w.t.Helper()
	w.must(k, w.commitMsg(k, id, o))
}

func (w *world) reveal(k *identity.Key, id crowd.JobID, o crowd.Outcome) {
	w.t.Helper()
	w.must(k, &Reveal{Job: id, Opening: opening(k.ID(), o)})
}

var (
	right = crowd.Outcome{Status: crowd.Exited, Gas: 5e8, Result: "bafyright"}
	wrong = crowd.Outcome{Status: crowd.Exited, Gas: 5e8, Result: "bafywrong"}
)

func (w *world) balance(id crowd.NodeID) crowd.Credits { return w.s.Account(id.Address()).Balance }

func (w *world) stake(id crowd.NodeID) crowd.Credits {
	p, _ := w.s.Provider(id.Address())
	return p.Stake
}

func TestJob_TwoHonestExecutorsArePaidByGas(t *testing.T) {
	w := newWorld(t, 1, 4)
	ownerHad := w.balance(w.owner.ID())
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	a, b := w.keyOf(j.Places[0].Node), w.keyOf(j.Places[1].Node)
	had := w.balance(a.ID())
	w.commit(a, id, right)
	w.in(id, Running)
	w.refused(TooEarly, a, &Reveal{Job: id, Opening: opening(a.ID(), right)})
	w.commit(b, id, right)
	w.in(id, Revealing)
	w.reveal(b, id, right)
	w.reveal(a, id, right)
	j = w.in(id, Delivering)
	if j.Verdict == nil || j.Verdict.Outcome != right || j.Verdict.By != ByAgreement {
		t.Fatalf("verdict: got %+v want agreement on %v", j.Verdict, right)
	}
	w.refused(NotYours, a, &Accept{Job: id})
	w.must(w.owner, &Accept{Job: id})
	j = w.in(id, Settled)
	fee := w.s.Params().TxFee
	pay := crowd.ReferencePrice.Cost(right.Gas)
	burned := pay.PPM(20_000)
	if got, want := w.balance(a.ID()), had-2*fee+pay-burned; got != want { // the early reveal and the wrong accept; what is taken is its owner's to pay
		t.Errorf("executor: got %s want %s", got, want)
	}
	if got, want := w.balance(w.owner.ID()), ownerHad-2*fee-2*pay-j.Duties; got != want {
		t.Errorf("owner: got %s want %s", got, want)
	}
	if r := w.s.Reputation(a.ID().Address()); r.Done != 1 || r.Work != right.Gas || r.Faults != 0 {
		t.Errorf("reputation: got %+v", r)
	}
	for i := range j.Drawn {
		if err := j.Drawn[i].Check(id, j.Beacon, j.Tickets, w.s.Params().CommitteeUnits); err != nil {
			t.Errorf("draw of %s: %v", j.Drawn[i].Node.Short(), err)
		}
	}
	w.wait(w.s.Params().Retention + 1)
	if _, ok := w.s.Job(id); ok {
		t.Error("the job outlived its retention")
	}
}

// If the first reveal were accepted unchecked, this test would see the wrong result win.
func TestJob_CheaterLosesItsStakeWhoeverRevealsFirst(t *testing.T) {
	for _, cheaterFirst := range []bool{true, false} {
		w := newWorld(t, 1, 2)
		ownerHad := w.balance(w.owner.ID())
		id := w.drawn(testSpec(), w.providers...)
		j := w.in(id, Running)
		cheat, honest := w.keyOf(j.Places[0].Node), w.keyOf(j.Places[1].Node)
		w.commit(cheat, id, wrong)
		w.commit(honest, id, right)
		if cheaterFirst {
			w.reveal(cheat, id, wrong)
			w.reveal(honest, id, right)
		} else {
			w.reveal(honest, id, right)
			w.reveal(cheat, id, wrong)
		}
		w.in(id, Court)
		w.refused(NotYours, honest, &Vote{Job: id, Question: WhatOutcome, Outcome: right})
		honestHad := w.balance(honest.ID())
		w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
		j = w.in(id, Delivering)
		if j.Verdict.Outcome != right || j.Verdict.By != ByCourt {
			t.Fatalf("got verdict %+v want the court's %v", j.Verdict, right)
		}
		w.must(w.owner, &Accept{Job: id})
		if got := w.stake(cheat.ID()); got != 0 {
			t.Errorf("cheater's stake: got %s want 0", got)
		}
		if got, want := w.stake(honest.ID()), 100*crowd.Credit; got != want {
			t.Errorf("honest stake: got %s want %s", got, want)
		}
		if p, _ := w.s.Provider(cheat.ID().Address()); !p.Tombstoned {
			t.Error("the cheater has no tombstone")
		}
		if got, want := w.balance(w.owner.ID()), ownerHad-2*w.s.Params().TxFee; got != want {
			t.Errorf("owner after being made whole: got %s want %s", got, want)
		}
		bounty := (100 * crowd.Credit).PPM(w.s.Params().BountyPPM)
		pay := crowd.ReferencePrice.Cost(right.Gas)
		if got, want := w.balance(honest.ID()), honestHad+pay-pay.PPM(20_000)+bounty; got != want {
			t.Errorf("honest executor: got %s want %s", got, want)
		}
		if r := w.s.Reputation(honest.ID().Address()); r.Reported != 1 || r.Done != 1 {
			t.Errorf("honest reputation: got %+v", r)
		}
		w.refused(NotEligible, cheat, &Register{VRF: cheat.VRF().Public(), Stake: 0})
		// With one provider left in good standing, the next post says what is missing.
		err := w.block(signed{w.owner, &Post{Spec: testSpec()}})[0]
		if err == nil || !strings.Contains(err.Error(), "never caught cheating") {
			t.Errorf("got %v want it to name the requirement", err)
		}
	}
}

func TestJob_CopyingACommitmentIsWorthNothing(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	honest, copycat := w.keyOf(j.Places[0].Node), w.keyOf(j.Places[1].Node)
	m := w.commitMsg(honest, id, right)
	w.must(honest, m)
	w.must(copycat, &Commit{Job: id, Commitment: m.Commitment, Sealed: m.Sealed})
	w.reveal(honest, id, right)
	w.refused(BadProof, copycat, &Reveal{Job: id, Opening: opening(honest.ID(), right)})
	w.refused(BadProof, copycat, &Reveal{Job: id, Opening: opening(copycat.ID(), right)})
	w.wait(w.s.Params().RevealWindow)
	w.in(id, Unsealing)
	w.must(w.authorities[0], &Vote{Job: id, Question: BadSeal, Executor: copycat.ID(), Yes: true})
	w.in(id, Court)
	if w.stake(copycat.ID()) != 0 {
		t.Error("the copycat kept its stake")
	}
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	w.must(w.owner, &Accept{Job: id})
	w.in(id, Settled)
}

// A cheater that sees the honest reveal and then keeps silent is opened by the authorities.
func TestJob_WithholdingTheRevealDoesNotSaveACheater(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	honest, cheat := w.keyOf(j.Places[0].Node), w.keyOf(j.Places[1].Node)
	w.commit(honest, id, right)
	w.commit(cheat, id, wrong)
	w.reveal(honest, id, right)
	w.wait(w.s.Params().RevealWindow)
	j = w.in(id, Unsealing)
	plain, err := w.authorities[0].Open(j.Place(cheat.ID()).Sealed[0], SealPurpose(id, cheat.ID()))
	if err != nil {
		t.Fatal(err)
	}
	o, err := Unpad(plain)
	if err != nil || len(plain)%padTo != 0 {
		t.Fatal(err)
	}
	w.refused(NotYours, honest, &Unseal{Job: id, Executor: cheat.ID(), Opening: o})
	w.must(w.authorities[0], &Unseal{Job: id, Executor: cheat.ID(), Opening: o})
	w.in(id, Court)
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	if w.stake(cheat.ID()) != 0 || w.stake(honest.ID()) == 0 {
		t.Errorf("stakes: cheat %s honest %s", w.stake(cheat.ID()), w.stake(honest.ID()))
	}
}

func TestJob_HonestCrashAfterCommitCostsNoStake(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	a, b := w.keyOf(j.Places[0].Node), w.keyOf(j.Places[1].Node)
	w.commit(a, id, right)
	w.commit(b, id, right)
	w.reveal(a, id, right)
	w.wait(w.s.Params().RevealWindow)
	w.must(w.authorities[0], &Unseal{Job: id, Executor: b.ID(), Opening: opening(b.ID(), right)})
	w.in(id, Delivering)
	w.must(w.owner, &Accept{Job: id})
	if r := w.s.Reputation(b.ID().Address()); r.Done != 1 || r.Faults != 0 {
		t.Errorf("got %+v want the work counted and no fault", r)
	}
}

func TestJob_AlternateTakesOver(t *testing.T) {
	w := newWorld(t, 1, 4)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	a, b := w.keyOf(j.Places[0].Node), w.keyOf(j.Places[1].Node)
	w.commit(a, id, right)
	w.must(b, &GiveUp{Job: id, Reason: CannotRun, Why: "disk full"})
	j = w.in(id, Running)
	if len(j.Places) != 3 || j.Places[2].Node != j.Drawn[2].Node {
		t.Fatalf("got places %+v want the first alternate seated", j.Places)
	}
	w.refused(Duplicate, b, w.commitMsg(b, id, right))
	// The alternate is silent; the last one does it.
	w.wait(20_001)
	j = w.in(id, Running)
	if len(j.Places) != 4 || j.Places[2].State != Dropped {
		t.Fatalf("got places %+v want the second alternate seated", j.Places)
	}
	last := w.keyOf(j.Places[3].Node)
	w.commit(last, id, right)
	w.reveal(a, id, right)
	w.reveal(last, id, right)
	w.must(w.owner, &Accept{Job: id})
	for _, p := range j.Places[1:3] {
		if w.stake(p.Node) != 100*crowd.Credit {
			t.Errorf("%s lost stake for being slow", p.Node.Short())
		}
		if r := w.s.Reputation(p.Node.Address()); r.Faults != 1 {
			t.Errorf("%s: got %d faults want 1", p.Node.Short(), r.Faults)
		}
	}
}

// One executor left alone is checked by the court; nobody is paid on its word.
func TestJob_LoneExecutorGoesToCourt(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	a := w.keyOf(j.Places[0].Node)
	w.commit(a, id, wrong)
	w.wait(20_001)
	w.in(id, Revealing)
	w.reveal(a, id, wrong)
	w.in(id, Court)
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	if w.stake(a.ID()) != 0 {
		t.Error("a lone liar kept its stake")
	}
}

func TestJob_DeadlinesEndEveryEscrow(t *testing.T) {
	type stop func(w *world, id crowd.JobID)
	commitBoth := func(o2 crowd.Outcome) stop {
		return func(w *world, id crowd.JobID) {
			j := w.job(id)
			w.commit(w.keyOf(j.Places[0].Node), id, right)
			w.commit(w.keyOf(j.Places[1].Node), id, o2)
		}
	}
	revealBoth := func(o2 crowd.Outcome) stop {
		return func(w *world, id crowd.JobID) {
			commitBoth(o2)(w, id)
			j := w.job(id)
			w.reveal(w.keyOf(j.Places[0].Node), id, right)
			w.reveal(w.keyOf(j.Places[1].Node), id, o2)
		}
	}
	for _, c := range []struct {
		name   string
		claims int
		do     stop
		from   JobState
		to     JobState
	}{
		{"nobody claims", 0, nil, Claiming, Failed},
		{"one claims", 1, nil, Claiming, Failed},
		{"nobody commits", 4, nil, Running, Failed},
		{"nobody reveals, no authority opens", 4, commitBoth(right), Revealing, Failed},
		{"the court is silent", 4, revealBoth(wrong), Court, Failed},
		{"owner and authorities are silent", 4, revealBoth(right), Delivering, Settled}, // the executors agreed, and nobody found the result lost
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 1, 4)
			had := w.balance(w.owner.ID())
			id := w.drawn(testSpec(), w.providers[:c.claims]...)
			if c.do != nil {
				c.do(w, id)
			}
			w.in(id, c.from)
			for range 12 {
				due, ok := w.s.NextDue()
				if !ok || w.job(id).State.Ended() {
					break
				}
				w.wait(int64(due - w.now))
			}
			j := w.in(id, c.to)
			if got, want := w.balance(w.owner.ID()), had-w.s.Params().TxFee-j.Spent(); got != want || c.to == Failed && j.Spent() != j.Duties {
				t.Errorf("owner: got %s want %s", got, want)
			}
			for _, p := range w.providers {
				if w.stake(p.ID()) != 100*crowd.Credit {
					t.Errorf("%s lost stake where nothing was proven", p.ID().Short())
				}
			}
		})
	}
}

// The simulator found this one: nobody can be seated, and the job must end all the same.
func TestJob_EndsWhenEveryWinnerHasLeft(t *testing.T) {
	w := newWorld(t, 1, 3)
	id := w.drawn(testSpec(), w.providers[:2]...)
	for _, k := range w.providers[:2] {
		w.must(k, &Leave{})
	}
	w.wait(w.s.Params().ClaimWindow)
	w.in(id, Failed)
}

func TestJob_NothingIsPaidForAResultThatNobodyCanFetch(t *testing.T) {
	for _, yes := range []bool{true, false} {
		w := newWorld(t, 4, 2)
		had := w.balance(w.owner.ID())
		id := w.drawn(testSpec(), w.providers...)
		j := w.in(id, Running)
		for _, p := range j.Places {
			w.commit(w.keyOf(p.Node), id, right)
		}
		for _, p := range j.Places {
			w.reveal(w.keyOf(p.Node), id, right)
		}
		w.refused(NotYours, w.providers[0], &Complain{Job: id})
		w.must(w.owner, &Complain{Job: id})
		for i, a := range w.authorities[:3] {
			w.in(id, Inspecting)
			w.must(a, &Vote{Job: id, Question: Retrievable, Yes: yes})
			if i < 2 {
				w.refused(Duplicate, a, &Vote{Job: id, Question: Retrievable, Yes: !yes})
			}
		}
		if yes {
			w.in(id, Settled)
		} else {
			w.in(id, Failed)
			if got, want := w.balance(w.owner.ID()), had-2*w.s.Params().TxFee-w.job(id).Duties; got != want {
				t.Errorf("owner: got %s want %s", got, want)
			}
		}
	}
}

// A verdict needs more than 2/3 of the authorities: two of three are not enough.
func TestCourt_NeedsMoreThanTwoThirds(t *testing.T) {
	for _, c := range []struct{ authorities, enough int }{{1, 1}, {2, 2}, {3, 3}, {4, 3}, {7, 5}} {
		w := newWorld(t, c.authorities, 2)
		id := w.drawn(testSpec(), w.providers...)
		j := w.in(id, Running)
		for i, p := range j.Places {
			w.commit(w.keyOf(p.Node), id, []crowd.Outcome{right, wrong}[i])
		}
		for i, p := range j.Places {
			w.reveal(w.keyOf(p.Node), id, []crowd.Outcome{right, wrong}[i])
		}
		for i := range c.enough {
			w.in(id, Court)
			w.must(w.authorities[i], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
		}
		w.in(id, Delivering)
	}
}

func TestCancel_InEveryState(t *testing.T) {
	advance := map[JobState]func(w *world) crowd.JobID{
		Posted:   func(w *world) crowd.JobID { return w.post(testSpec()) },
		Claiming: func(w *world) crowd.JobID { return w.drawn(testSpec(), w.providers[0]) },
		Running:  func(w *world) crowd.JobID { return w.drawn(testSpec(), w.providers...) },
	}
	for state, f := range advance {
		w := newWorld(t, 1, 4)
		had := w.balance(w.owner.ID())
		id := f(w)
		w.in(id, state)
		if state != Posted { // the next block draws
			w.refused(NotYours, w.providers[0], &Cancel{Job: id})
		}
		if state == Claiming { // the lot is known, and nobody works yet who would have to be paid
			w.refused(TooEarly, w.owner, &Cancel{Job: id})
			continue
		}
		w.must(w.owner, &Cancel{Job: id})
		w.in(id, Cancelled)
		spent := had - w.balance(w.owner.ID()) - 2*w.s.Params().TxFee - w.job(id).Duties
		want := crowd.Credits(0)
		if state == Running {
			want = 2 * crowd.ReferencePrice.Cost(testSpec().Task.Limits.Gas) // which three seconds are enough for
		}
		if spent != want {
			t.Errorf("%s: cancelling cost %s want %s", state, spent, want)
		}
		w.refused(TooLate, w.owner, &Cancel{Job: id})
	}
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	w.commit(w.keyOf(j.Places[0].Node), id, right)
	w.refused(TooLate, w.owner, &Cancel{Job: id})
	w.commit(w.keyOf(j.Places[1].Node), id, right)
	w.refused(TooLate, w.owner, &Cancel{Job: id})
}

func TestPost_RefusalsNameTheCause(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*crowd.JobSpec)
		code   Code
		says   string
	}{
		{"no program", func(s *crowd.JobSpec) { s.Task.Program = "" }, BadSpec, "program"},
		{"a wall that a slow machine meets first", func(s *crowd.JobSpec) { s.Task.Limits.Wall = 14999 * time.Millisecond }, BadSpec, "15s"},
		{"no check", func(s *crowd.JobSpec) { s.Plan.Method = "none" }, BadSpec, "plan"},
		{"price above budget", func(s *crowd.JobSpec) { s.Budget = 1 }, OverBudget, "budget"},
		{"too cheap", func(s *crowd.JobSpec) { s.Filters.MaxPrice = 1 }, NoProvider, "price at most 1"},
		{"unknown tag", func(s *crowd.JobSpec) { s.Filters.Tags = []string{"wasm", "gpu"} }, NoProvider, "tag gpu"},
		{"elsewhere", func(s *crowd.JobSpec) { s.Filters.Countries = []string{"IS"} }, NoProvider, "country"},
		{"strangers", func(s *crowd.JobSpec) { s.Filters.Providers = []crowd.NodeID{{1}} }, NoProvider, "named by the job"},
		{"more than the stakes cover", func(s *crowd.JobSpec) { s.Task.Limits.Gas = 101e9; s.Budget = ^crowd.Credits(0) }, NoProvider, "stake at least"},
		{"more than the owner has", func(s *crowd.JobSpec) { s.Task.Limits.Gas = 1e12; s.Budget = ^crowd.Credits(0) }, NoFunds, "escrow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 1, 3, func(g *Genesis) { g.Grants[len(g.Grants)-1].Balance = 500 * crowd.Credit })
			spec := testSpec()
			spec.Task.Limits.Wall = 2 * time.Hour
			c.change(&spec)
			err := w.block(signed{w.owner, &Post{Spec: spec}})[0]
			var r *Refusal
			if !errors.As(err, &r) || r.Code != c.code || !strings.Contains(r.Reason, c.says) {
				t.Errorf("got %v want %s naming %q", err, c.code, c.says)
			}
		})
	}
}

func TestProvider_LookbackAndStake(t *testing.T) {
	w := newWorld(t, 1, 2)
	late := w.owner
	w.must(late, &Register{VRF: late.VRF().Public(), Offer: Offer{Price: 1}, Stake: 100 * crowd.Credit})
	poster := w.authorities[0]
	spec := testSpec()
	spec.Task.Limits.Gas = 1e8
	id := spec.ID(poster.ID(), w.s.Account(poster.ID().Address()).Nonce)
	w.must(late, &Register{VRF: key(t, 5).VRF().Public(), Offer: Offer{Price: 1}}) // a fresh key just before the post
	w.must(poster, &Post{Spec: spec})
	w.block()
	w.block()
	j := w.in(id, Claiming)
	if j.Eligible != 3 { // registered at h, posted at h+1, drawn at h+3: the look-back of 2 is over
		t.Fatalf("got %d eligible want 3", j.Eligible)
	}
	w.must(late, &Register{VRF: key(t, 6).VRF().Public(), Offer: Offer{Price: 1}}) // now the beacon is known: too late
	proof, _ := key(t, 6).VRF().Prove(DrawInput(id, late.ID(), j.Beacon))
	w.refused(NotEligible, late, &Claim{Job: id, Proof: proof})

	w.must(late, &Leave{})
	w.refused(TooEarly, late, &Leave{})
	had := w.balance(late.ID())
	w.wait(w.s.Params().Unbonding)
	w.must(late, &Leave{})
	if got, want := w.balance(late.ID()), had+100*crowd.Credit-w.s.Params().TxFee; got != want {
		t.Errorf("after leaving: got %s want %s", got, want)
	}
	if _, ok := w.s.Provider(late.ID().Address()); ok {
		t.Error("a provider without stake is still there")
	}
}

func TestProvider_SleeperIsNotDrawnUntilAwake(t *testing.T) {
	w := newWorld(t, 1, 3)
	sleeper := w.providers[2]
	for range w.s.Params().MaxMissed {
		id := w.drawn(testSpec(), w.providers[:2]...)
		w.wait(w.s.Params().ClaimWindow)
		w.in(id, Running)
		w.must(w.owner, &Cancel{Job: id})
	}
	id := w.drawn(testSpec(), w.providers[:2]...)
	if j := w.in(id, Running); j.Eligible != 2 {
		t.Errorf("got %d eligible want 2: the sleeper delays every draw", j.Eligible)
	}
	w.must(sleeper, &Awake{})
	id = w.drawn(testSpec(), w.providers[:2]...)
	w.in(id, Claiming)
}

func TestTx_OnlyTheSignerInOrderOnThisChain(t *testing.T) {
	w := newWorld(t, 1, 2)
	m := &Transfer{To: w.providers[0].ID().Address(), Amount: 5}
	raw := Sign(w.owner, w.chain, 0, m)
	if _, err := Open("other", raw); err == nil {
		t.Error("a transaction for another chain was accepted")
	}
	w.must(w.owner, m)
	tx, err := Open(w.chain, raw)
	if err != nil {
		t.Fatal(err)
	}
	r := w.s.Beacon().R
	proof, _ := w.authorities[0].VRF().Prove(r[:])
	b := Block{Height: 2, Time: w.now + 1, Proposer: w.authorities[0].ID(), Beacon: &proof, Txs: []Tx{tx}}
	a, err := Apply(w.s, b)
	if err != nil {
		t.Fatal(err)
	}
	var ref *Refusal
	if !errors.As(a.Results[0], &ref) || ref.Code != BadNonce {
		t.Errorf("a replay: got %v want bad nonce", a.Results[0])
	}
	b.Beacon = nil
	if _, err := Apply(w.s, b); err == nil {
		t.Error("a block with transactions and no beacon was accepted")
	}
	proof[3] ^= 1
	b.Beacon = &proof
	if _, err := Apply(w.s, b); err == nil {
		t.Error("a forged beacon was accepted")
	}
	w.refused(NoFunds, w.providers[0], &Transfer{To: w.owner.ID().Address(), Amount: ^crowd.Credits(0)})
	w.refused(BadTx, w.owner, &Transfer{Amount: 1})
}

func TestApply_EmptyBlockChangesNothing(t *testing.T) {
	w := newWorld(t, 1, 2)
	root := w.s.Root()
	w.block()
	if w.s.Root() != root {
		t.Error("an empty block moved the state: the chain would never fall quiet")
	}
}

func TestPending_RefusedLeavesNoTrace(t *testing.T) {
	w := newWorld(t, 1, 2)
	r := w.s.Beacon().R
	proof, _ := w.authorities[0].VRF().Prove(r[:])
	p, err := Try(w.s, Block{Height: 1, Time: w.now + 1, Proposer: w.authorities[0].ID(), Beacon: &proof})
	if err != nil {
		t.Fatal(err)
	}
	add := func(nonce uint64, m Message) error {
		tx, err := Open(w.chain, Sign(w.owner, w.chain, nonce, m))
		if err != nil {
			t.Fatal(err)
		}
		return p.Add(tx)
	}
	if err := add(0, &Transfer{}); err == nil {
		t.Error("a transfer to nobody was accepted")
	}
	to := w.providers[0].ID().Address()
	if err := add(0, &Transfer{To: to, Amount: 1}); err != nil {
		t.Errorf("after a refused one with the same nonce: %v", err)
	}
	if err := add(1, &Transfer{To: to, Amount: 1}); err != nil {
		t.Errorf("the next nonce: %v", err)
	}
}
