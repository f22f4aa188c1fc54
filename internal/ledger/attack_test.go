package ledger

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
)

// The attacks of this file were profitable once. Each test plays one as the attacker would, and states what it must cost or must not reach.

// An author who lets honest nodes have no inputs makes them give their place up until its own nodes have all of them. A
// plan's replacements bound that, in every plan.
func TestAttack_AnAuthorCannotSteerTheDrawBeyondThePlansReplacements(t *testing.T) {
	for _, c := range []struct {
		name string
		spec func() crowd.JobSpec
	}{
		{"pair", testSpec},
		{"committee", func() crowd.JobSpec { return committeeSpec(3) }},
		{"audit", auditSpec},
		{"sample", sampleSpec},
	} {
		for replacements := range uint32(3) {
			if spec := c.spec(); replacements == 0 && (spec.Plan.Method == crowd.PlanAudit || spec.Plan.Method == crowd.PlanSample) {
				continue
			}
			t.Run(fmt.Sprintf("%s with %d", c.name, replacements), func(t *testing.T) {
				w := newWorld(t, 1, 12)
				spec := c.spec()
				spec.Plan.Replacements = replacements
				id := w.drawn(spec, w.providers...)
				executors, verifiers := Seats(&spec.Plan)
				for i := range 12 {
					j := w.job(id)
					if j.State != Running || i == len(j.Places) {
						break
					}
					if j.Places[i].State == Working {
						w.must(w.keyOf(j.Places[i].Node), &GiveUp{Job: id, Reason: CannotFetch, Why: "cannot get the inputs"})
					}
				}
				j := w.in(id, Failed)
				if got, want := len(j.Places), executors+verifiers+int(replacements); got > want {
					t.Errorf("%d nodes held a place, the plan allows %d", got, want)
				}
				if got := j.Replaced(); got > int(replacements) {
					t.Errorf("%d places were given anew, the plan allows %d", got, replacements)
				}
			})
		}
	}
}

// Where replacements are used up, the court takes the place of the executor that is gone: the one that is left proves nothing.
func TestAttack_AfterTheReplacementsTheCourtDecides(t *testing.T) {
	w := newWorld(t, 4, 8)
	spec := testSpec()
	spec.Plan.Replacements = 1
	id := w.drawn(spec, w.providers...)
	liar := w.keyOf(w.job(id).Places[0].Node)
	w.commit(liar, id, wrong)
	for _, i := range []int{1, 2} {
		w.must(w.keyOf(w.job(id).Places[i].Node), &GiveUp{Job: id, Reason: CannotFetch, Why: "cannot get the inputs"})
	}
	w.in(id, Revealing)
	w.reveal(liar, id, wrong)
	w.in(id, Court)
	for _, a := range w.authorities[:3] {
		w.must(a, &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	}
	if j := w.in(id, Delivering); j.Verdict.Outcome != right || w.stake(liar.ID()) != 0 {
		t.Errorf("got %+v and a stake of %s want the court's outcome and none", j.Verdict, w.stake(liar.ID()))
	}
}

// A program that is read while it runs and then runs into its wall time on every machine was executed for nothing, and honest nodes took
// the faults. Its owner pays for the time, as if it had cancelled, and no node has a fault.
func TestAttack_AJobThatNobodyCanDoIsItsOwners(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world, id crowd.JobID) // until all places are gone
		paid bool                           // those who said that they give up
	}{
		{"all run into the wall time", func(w *world, id crowd.JobID) {
			for i := 0; i < len(w.job(id).Places) && w.job(id).State == Running; i++ {
				w.wait(4_000)
				w.must(w.keyOf(w.job(id).Places[i].Node), &GiveUp{Job: id, Reason: TooSlow, Why: "cannot run the task within its wall time"})
			}
		}, true},
		{"nobody has the inputs", func(w *world, id crowd.JobID) {
			for i := 0; i < len(w.job(id).Places) && w.job(id).State == Running; i++ {
				w.wait(4_000)
				w.must(w.keyOf(w.job(id).Places[i].Node), &GiveUp{Job: id, Reason: CannotFetch, Why: "cannot get the inputs"})
			}
		}, true},
		{"all are silent", func(w *world, id crowd.JobID) {
			for w.job(id).State == Running {
				w.wait(20_001)
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 1, 6)
			spec := testSpec()
			had := map[crowd.NodeID]crowd.Credits{}
			for _, k := range w.providers {
				had[k.ID()] = w.balance(k.ID())
			}
			owner := w.balance(w.owner.ID())
			id := w.drawn(spec, w.providers...)
			c.do(w, id)
			j := w.in(id, Failed)
			paid := crowd.Credits(0)
			for _, p := range j.Places {
				got := w.balance(p.Node) - had[p.Node]
				paid += got
				if (got > 0) != c.paid {
					t.Errorf("%s got %s", p.Node.Short(), got)
				}
				if r := w.s.Reputation(p.Node.Address()); r.Faults != 0 || r.Down != 0 {
					t.Errorf("%s: got %d faults want none", p.Node.Short(), r.Faults)
				}
			}
			one := crowd.ReferencePrice.Cost(spec.Task.Limits.Gas)
			if paid > one {
				t.Errorf("%d nodes that gave up got %s together, one that works gets %s at most", len(j.Places), paid, one)
			}
			if cost := j.Spent() - j.Duties; c.paid && cost < j.Locked-crowd.Credits(len(j.Places)) || !c.paid && cost > 0 {
				t.Errorf("the owner paid %s of %s for %d places", cost, j.Locked, len(j.Places))
			}
			if got, want := owner-w.balance(w.owner.ID()), j.Spent()+w.s.Params().TxFee; got != want {
				t.Errorf("the owner has %s less want %s", got, want)
			}
			r := w.s.Reputation(w.owner.ID().Address()).Consumer
			if fresh := (&Consumer{}).Score(); c.paid && (r.Failed != 1 || r.Score() >= fresh) {
				t.Errorf("got %+v want the failure to count against its owner", r)
			}
		})
	}
}

// A fault needs somebody else who did the job.
func TestAttack_AFaultCountsOnlyIfTheJobCameToAVerdict(t *testing.T) {
	for _, done := range []bool{false, true} {
		w := newWorld(t, 1, 2)
		spec := testSpec()
		spec.Plan.Replacements = 0
		id := w.drawn(spec, w.providers...)
		gone := w.keyOf(w.job(id).Places[1].Node)
		w.must(gone, &GiveUp{Job: id, Reason: CannotRun, Why: "no"})
		if r := w.s.Reputation(gone.ID().Address()); r.Faults != 0 {
			t.Fatal("a fault before anybody has shown that the job can be done")
		}
		first := w.keyOf(w.job(id).Places[0].Node)
		if done {
			w.commit(first, id, right)
			w.finish(id)
			w.in(id, Settled)
		} else {
			w.must(first, &GiveUp{Job: id, Reason: CannotRun, Why: "no"})
			w.in(id, Failed)
		}
		if r := w.s.Reputation(gone.ID().Address()); (r.Faults == 1) != done {
			t.Errorf("done %v: got %d faults", done, r.Faults)
		}
	}
}

// A burst of posts put a small network to sleep: a node that claims as fast as it can is awake, whatever it misses.
func TestAttack_ABurstOfPostsPutsNobodyToSleep(t *testing.T) {
	const posts = 20
	w := newWorld(t, 1, 3)
	var ids []crowd.JobID
	for range posts {
		ids = append(ids, w.post(testSpec()))
	}
	w.block()
	w.block()
	slow, away := w.providers[0], w.providers[2]
	for i, id := range ids { // one claim of every five in time
		if w.job(id).State != Claiming {
			continue
		}
		m := w.claimMsg(w.providers[1], id)
		w.must(m.k, m.m)
		if i%5 == 4 {
			m := w.claimMsg(slow, id)
			w.must(m.k, m.m)
		}
	}
	w.wait(w.s.Params().ClaimWindow + 1)
	if r := w.s.Reputation(slow.ID().Address()); r.Missed != 0 {
		t.Errorf("a node that claims one job of five has missed %d in a row", r.Missed)
	}
	if r := w.s.Reputation(away.ID().Address()); r.Missed < w.s.Params().MaxMissed {
		t.Errorf("a node that claims nothing has missed %d in a row want %d at least", r.Missed, w.s.Params().MaxMissed)
	}
}

// An author who cancels until the lot suits it pays for that: to have both places of a pair for a share b of the weight costs as much as the job pays one executor (or as
// three seconds of a fast machine cost, if that is less) times 1/b², and what others spent on its tries is not theirs to bear.
func TestAttack_GrindingTheLotCostsWhatItForges(t *testing.T) {
	w := newWorld(t, 1, 4)
	spec := testSpec()
	had := map[crowd.NodeID]crowd.Credits{}
	for _, k := range w.providers {
		had[k.ID()] = w.balance(k.ID())
	}
	owner := w.balance(w.owner.ID())
	const tries = 10
	for range tries {
		id := w.drawn(spec, w.providers...)
		w.in(id, Running)
		w.must(w.owner, &Cancel{Job: id})
	}
	price := crowd.ReferencePrice.Cost(spec.Task.Limits.Gas) // of one executor
	if got := owner - w.balance(w.owner.ID()); got < tries*price {
		t.Errorf("%d tries cost %s want at least %s: a pair of one's own is one try in 1/b²", tries, got, tries*price)
	}
	for _, k := range w.providers {
		if w.balance(k.ID()) < had[k.ID()] {
			t.Errorf("%s paid %s for claims of jobs that were cancelled", k.ID().Short(), had[k.ID()]-w.balance(k.ID()))
		}
	}
}

// An owner that reads what the program writes and then cancels pays for the time until then, at the speed of a fast machine.
func TestAttack_CancellingPaysForTheTime(t *testing.T) {
	for _, c := range []struct {
		after int64 // ms
		want  crowd.Gas
	}{{100, 6e9}, {3_500, 7e9}, {4_800, 9.6e9}, {60_000, 10e9}} {
		w := newWorld(t, 1, 2, func(g *Genesis) {
			for i := range g.Grants {
				if g.Grants[i].Stake > 0 {
					g.Grants[i].Stake = 1000 * crowd.Credit
				}
			}
		})
		spec := testSpec()
		spec.Task.Limits.Gas, spec.Task.Limits.Wall, spec.Budget = 10e9, 2*time.Minute, 100*crowd.Credit
		id := w.drawn(spec, w.providers...)
		at := w.job(id).Places[0].Since
		w.now = at + crowd.Time(c.after) - 5
		w.must(w.owner, &Cancel{Job: id})
		j := w.in(id, Cancelled)
		if got, want := j.Spent()-j.Duties, 2*crowd.ReferencePrice.Cost(c.want); got != want {
			t.Errorf("after %d ms: got %s want %s", c.after, got, want)
		}
	}
}

// The court has at least the time that the task may take: else an executor lies for nothing about tasks that are long.
func TestAttack_TheCourtHasTimeForTheTask(t *testing.T) {
	for _, wall := range []time.Duration{15 * time.Second, time.Hour, crowd.MaxWall} {
		w := newWorld(t, 1, 2)
		spec := testSpec()
		spec.Task.Limits.Wall = wall
		id := w.drawn(spec, w.providers...)
		j := w.in(id, Running)
		for i, p := range j.Places {
			w.commit(w.keyOf(p.Node), id, []crowd.Outcome{right, wrong}[i])
		}
		for i, p := range j.Places {
			w.reveal(w.keyOf(p.Node), id, []crowd.Outcome{right, wrong}[i])
		}
		w.in(id, Court)
		w.wait(wall.Milliseconds())
		w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
		if w.stake(j.Places[1].Node) != 0 {
			t.Errorf("wall %v: the liar kept its stake", wall)
		}
	}
}

// For the least job that the chain takes, honest executors do not lose by taking part: what they have to put on chain is paid with the post.
func TestAttack_TheLeastJobIsNoLossToItsExecutors(t *testing.T) {
	for _, authorities := range []int{1, 4, 7} {
		w := newWorld(t, authorities, 6, func(g *Genesis) { g.Params = MainParams(); g.Params.Lookback = 0 })
		spec := testSpec()
		spec.Task.Limits.Gas, spec.Plan.Replacements = 1, 0
		least := right
		least.Gas = 1
		had := map[crowd.NodeID]crowd.Credits{}
		for _, k := range w.providers {
			had[k.ID()] = w.balance(k.ID())
		}
		burned := w.s.Supply().Burned
		fees, post := crowd.Credits(0), crowd.Credits(0)
		pay := func(k signed) {
			tx, err := Open(w.chain, Sign(k.k, w.chain, w.s.Account(k.k.ID().Address()).Nonce, k.m))
			if err != nil {
				t.Fatal(err)
			}
			fees += w.s.Params().Fee(tx)
			w.must(k.k, k.m)
		}
		tx, _ := Open(w.chain, Sign(w.owner, w.chain, w.s.Account(w.owner.ID().Address()).Nonce, &Post{Spec: spec}))
		post = w.s.Params().Fee(tx)
		id := w.post(spec)
		w.block()
		w.block()
		for _, k := range w.providers {
			pay(w.claimMsg(k, id))
		}
		w.wait(w.s.Params().ClaimWindow)
		j := w.in(id, Running)
		for _, p := range j.Places {
			pay(signed{w.keyOf(p.Node), w.commitMsg(w.keyOf(p.Node), id, least)})
		}
		for _, p := range j.Places {
			pay(signed{w.keyOf(p.Node), &Reveal{Job: id, Opening: opening(p.Node, least)}})
		}
		if got := w.s.Supply().Burned - burned; got != post+j.Duties {
			t.Errorf("%d authorities: %s were burned want the post's fee %s and its duties %s", authorities, got, post, j.Duties)
		}
		if j.Duties < fees {
			t.Errorf("%d authorities: the owner paid %s for what cost %s", authorities, j.Duties, fees)
		}
		w.must(w.owner, &Accept{Job: id})
		for _, k := range w.providers {
			got, seated := w.balance(k.ID()), j.Place(k.ID()) != nil
			if got < had[k.ID()] || seated && got == had[k.ID()] {
				t.Errorf("%d authorities: %s has %s, had %s", authorities, k.ID().Short(), got, had[k.ID()])
			}
		}
	}
}

// A post that its owner cannot pay for is refused before any provider is looked at.
func TestAttack_APostThatCannotPayIsCheap(t *testing.T) {
	w := newWorld(t, 1, 3)
	spec := testSpec()
	spec.Filters.Tags = []string{"nobody has this"} // which a look at the providers would find
	w.refused(NoProvider, w.owner, &Post{Spec: spec})
	w.refused(NoFunds, w.authorities[0], &Post{Spec: spec}) // it has one credit, and the job locks two
}

// Under an audit nearly nobody looks at an output, so that a tolerant job, whose court needs the outputs, would let its executor leave them out.
func TestAttack_NoAuditOfTolerantTasks(t *testing.T) {
	w := newWorld(t, 1, 4)
	spec := auditSpec()
	spec.Compare = tolerantSpec().Compare
	w.refused(BadSpec, w.owner, &Post{Spec: spec})
}

// An executor that lies while the owner is away, and shows the inputs to nobody, is not paid unseen: what the owner does not accept and
// nobody has run again, the court runs.
func TestAttack_AnAuditedResultThatItsOwnerDoesNotAcceptIsRunAgain(t *testing.T) {
	for _, complains := range []bool{false, true} {
		for _, out := range []crowd.Outcome{right, wrong} {
			w := newWorld(t, 1, 5).veterans()
			id, k := w.until(false, out)
			w.reveal(k, id, out)
			w.in(id, Delivering)
			if complains {
				w.must(w.owner, &Complain{Job: id})
			} else {
				w.wait(w.s.Params().DeliveryWindow)
			}
			j := w.in(id, Court)
			if j.Verdict != nil {
				t.Error("the executor's word stands while the court runs the task")
			}
			had := w.balance(w.authorities[0].ID())
			w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
			if lost := w.stake(k.ID()) == 0; lost != (out == wrong) {
				t.Errorf("complained %v: an executor that came to %s lost its stake: %v", complains, out.Result, lost)
			}
			if j := w.in(id, Delivering); j.Verdict.By != ByCourt || j.Verdict.Outcome != right {
				t.Errorf("got %+v", j.Verdict)
			}
			w.wait(w.s.Params().DeliveryWindow)
			w.in(id, Inspecting)
			w.must(w.authorities[0], &Vote{Job: id, Question: Retrievable, Yes: true})
			w.in(id, Settled)
			if w.balance(w.authorities[0].ID()) <= had {
				t.Error("the court was not paid")
			}
		}
	}
}

// If nobody accepts, and the authorities do not come to a no of more than 2/3, executors that agreed are paid.
func TestAttack_AuthoritiesThatCannotTellTakeNobodysPay(t *testing.T) {
	w := newWorld(t, 4, 2)
	id := w.drawn(testSpec(), w.providers...)
	for _, k := range w.providers {
		w.commit(k, id, right)
	}
	for _, k := range w.providers {
		w.reveal(k, id, right)
	}
	had := w.balance(w.providers[0].ID())
	w.must(w.owner, &Complain{Job: id})
	for _, a := range w.authorities[:2] { // two of four have full disks, and say no: that is not more than 2/3
		w.must(a, &Vote{Job: id, Question: Retrievable})
	}
	w.wait(int64(w.job(id).Due - w.now))
	j := w.in(id, Settled)
	if w.balance(w.providers[0].ID()) <= had || w.s.Reputation(w.providers[0].ID().Address()).Faults != 0 {
		t.Errorf("got %+v want the executors paid and without blame", j.Payments)
	}
}

// Authorities that fetch a result for an owner who could have, or who is away, are paid for it out of the escrow.
func TestAttack_AnInspectionForNothingIsPaid(t *testing.T) {
	for _, complains := range []bool{true, false} {
		w := newWorld(t, 4, 2, func(g *Genesis) { g.Params.InspectFee = 1000 })
		spec := testSpec()
		spec.Task.Limits.Output = 5<<30 + 1 // six GiB begun
		id := w.drawn(spec, w.providers...)
		for _, k := range w.providers {
			w.commit(k, id, right)
		}
		for _, k := range w.providers {
			w.reveal(k, id, right)
		}
		if complains {
			w.must(w.owner, &Complain{Job: id})
		} else {
			w.wait(w.s.Params().DeliveryWindow)
		}
		if j := w.in(id, Inspecting); j.Due-w.now < crowd.Time(w.s.Params().CourtWindow+int64(5<<30*1000/outputRate)-8000) {
			t.Errorf("%d ms for six GiB", j.Due-w.now)
		}
		had := w.balance(w.authorities[0].ID())
		for _, a := range w.authorities[:3] {
			w.must(a, &Vote{Job: id, Question: Retrievable, Yes: true})
		}
		j := w.in(id, Settled)
		if got := w.balance(w.authorities[0].ID()) - had; got != 2000 {
			t.Errorf("complained %v: an authority got %s want a third of 6000", complains, got)
		}
		if got, want := j.Spent()-j.Duties, 2*crowd.ReferencePrice.Cost(right.Gas)+6000; got != want {
			t.Errorf("the owner paid %s want %s", got, want)
		}
	}
}

// A panic while a transaction is applied refuses that transaction and nothing else. A panic in a draw or a deadline ends that job.
func TestApply_APanicStopsNothing(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	for _, k := range w.providers {
		w.commit(k, id, right)
	}
	for _, k := range w.providers {
		w.reveal(k, id, right)
	}
	w.in(id, Delivering)
	broken := func() State { // a job that pays more than its escrow
		k := begin(w.s, Block{Height: w.height, Time: w.now})
		j := k.mustJob(id)
		lost := j.Escrow - 1
		j.Escrow = 1
		k.putJob(&j)
		k.burn(lost)
		return k.seal()
	}
	apply := func(s State, now crowd.Time, msgs ...signed) Applied {
		b := Block{Height: w.height + 1, Time: now, Proposer: w.authorities[0].ID()}
		for _, m := range msgs {
			tx, err := Open(w.chain, Sign(m.k, w.chain, s.Account(m.k.ID().Address()).Nonce, m.m))
			if err != nil {
				t.Fatal(err)
			}
			b.Txs = append(b.Txs, tx)
		}
		r := s.Beacon().R
		proof, _ := w.authorities[0].VRF().Prove(r[:])
		b.Beacon = &proof
		a, err := Apply(s, b)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckInvariants(a.State); err != nil {
			t.Error(err)
		}
		return a
	}
	s := broken()
	fee := w.s.Params().TxFee
	a := apply(s, w.now+1, signed{w.owner, &Accept{Job: id}}, signed{w.authorities[0], &Transfer{To: w.providers[0].ID().Address(), Amount: 7}})
	if r, ok := a.Results[0].(*Refusal); !ok || r.Code != Bug || !strings.Contains(r.Reason, "more than its escrow") {
		t.Errorf("got %v want a refusal with the code of a bug", a.Results[0])
	}
	if a.Results[1] != nil {
		t.Errorf("the next transaction: got %v", a.Results[1])
	}
	if len(a.Bugs) != 1 || a.Bugs[0].Tx != 0 || !strings.Contains(a.Bugs[0].Stack, "settle.go") {
		t.Errorf("got %+v want one report of transaction 0, with its stack", a.Bugs)
	}
	if j, _ := a.State.Job(id); j.State != Delivering || j.Escrow != 1 {
		t.Errorf("got %s with %s want the job as it was", j.State, j.Escrow)
	}
	if had, has := s.Account(w.owner.ID().Address()), a.State.Account(w.owner.ID().Address()); has.Nonce != had.Nonce+1 || has.Balance != had.Balance-fee {
		t.Errorf("got %+v from %+v want the nonce and the fee taken", has, had)
	}
	// Trying it on top of a state refuses it too.
	p, err := Try(s, Block{Height: w.height + 1, Time: w.now})
	if err != nil {
		t.Fatal(err)
	}
	tx, _ := Open(w.chain, Sign(w.owner, w.chain, s.Account(w.owner.ID().Address()).Nonce, &Accept{Job: id}))
	if r, ok := p.Add(tx).(*Refusal); !ok || r.Code != Bug {
		t.Error("a mempool would take it")
	}
	// The deadline: the owner is silent, then the authorities. Settling panics, and the job is abandoned.
	for range 2 {
		due, ok := s.NextDue()
		if !ok {
			t.Fatal("no deadline")
		}
		a = apply(s, due)
		s = a.State
	}
	if j, _ := s.Job(id); j.State != Failed || j.Escrow != 0 || len(a.Bugs) != 1 || a.Bugs[0].Tx != -1 || a.Bugs[0].Job != id {
		t.Errorf("got %s with %s, %+v want the job abandoned and reported", j.State, j.Escrow, a.Bugs)
	}
	for _, k := range w.providers {
		if pr, _ := s.Provider(k.ID().Address()); pr.Active != 0 {
			t.Errorf("%s still holds a place", k.ID().Short())
		}
	}
}

// An index entry of a job that is not there costs that entry.
func TestApply_ADeadlineOfNothingStopsNothing(t *testing.T) {
	w := newWorld(t, 1, 2)
	k := begin(w.s, Block{Height: w.height, Time: w.now})
	k.put(dueKey(w.now+1, crowd.JobID{1}), uint8(1))
	s := k.seal()
	a, err := Apply(s, Block{Height: w.height + 1, Time: w.now + 1})
	if err != nil || len(a.Bugs) != 2 {
		t.Fatalf("got %v, %+v want it reported", err, a.Bugs)
	}
	if err := CheckInvariants(a.State); err != nil {
		t.Error(err)
	}
}

// What the court of a tolerant job is paid is rounded as often as it is paid.
func TestEscrow_CoversEachPaymentAsItIsRounded(t *testing.T) {
	spec := sampleSpec()
	spec.Compare = tolerantSpec().Compare
	p := DevParams()
	for gas := crowd.Gas(1); gas <= 3000; gas += 7 {
		for _, price := range []crowd.Price{1, 3, 999, 1000, 1001, 2000} {
			spec.Task.Limits.Gas, spec.Filters.MaxPrice = gas, price
			times, each := CourtRuns(&spec)
			need := p.InspectPay(&spec) + p.Pay(price, spec.Limits().Gas)
			for range spec.Plan.Verifiers {
				need += p.Pay(price, CheckGas(&spec, spec.Limits().Gas))
			}
			for range times {
				need += price.Cost(each)
			}
			if got := p.EscrowFor(&spec); got < need {
				t.Fatalf("%d gas at %d: the escrow is %s, %s may be paid", gas, price, got, need)
			}
		}
	}
}

// Fees and duties that cannot be counted are refused, not wrapped round.
func TestDutyFees_Saturate(t *testing.T) {
	p := MainParams()
	p.TxFee, p.CommitteeUnits = ^crowd.Credits(0)-10, 1<<63
	spec := testSpec()
	if got := p.DutyFees(&spec, 1<<31, 100); got != ^crowd.Credits(0) {
		t.Errorf("got %d", got)
	}
}

func TestPad_RoundTripsAndHidesTheLength(t *testing.T) {
	sizes := map[int]bool{}
	for _, gas := range []crowd.Gas{1, 1 << 10, 1 << 20, 1 << 40, 1 << 62} {
		o := opening(crowd.NodeID{1}, crowd.Outcome{Status: crowd.Exited, Gas: gas, Result: "bafyresult"})
		b := Pad(&o)
		sizes[len(b)] = true
		got, err := Unpad(b)
		if err != nil || string(crowd.Encode(&got)) != string(crowd.Encode(&o)) {
			t.Errorf("got %+v, %v back", got, err)
		}
		for _, bad := range [][]byte{nil, b[:3], b[:len(b)-1], append(b[:len(b):len(b)], 0), append(b[:len(b):len(b)], make([]byte, padTo)...)} {
			if _, err := Unpad(bad); err == nil {
				t.Errorf("%d of %d bytes were taken", len(bad), len(b))
			}
		}
		b[len(b)-1] = 1
		if _, err := Unpad(b); err == nil {
			t.Error("padding that says something was taken")
		}
	}
	if len(sizes) != 1 {
		t.Errorf("outcomes of other gas have lengths %v", sizes)
	}
}
