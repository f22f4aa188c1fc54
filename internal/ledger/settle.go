package ledger

import (
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd"
)

// pay moves credits from the job's escrow. The escrow always covers it: places
// are paid at most their price, which is at most MaxPrice, for at most the limit, and the court what they leave.
func (w *work) pay(j *Job, to crowd.Address, amount crowd.Credits, why string) {
	left, ok := j.Escrow.Sub(amount)
	if !ok {
		panic("bug: a job pays more than its escrow")
	}
	j.Escrow = left
	w.disburse(j, Payment{To: to, Amount: amount, Why: why})
}

// disburse hands out credits that already left wherever they were.
func (w *work) disburse(j *Job, p Payment) {
	if p.Amount == 0 {
		return
	}
	if p.To.IsZero() {
		w.burn(p.Amount)
	} else {
		w.credit(p.To, p.Amount)
	}
	j.Payments = append(j.Payments, p)
}

// Why credits left an escrow.
const (
	WhyWork     = "work done"
	WhyBurned   = "burned share of the pay"
	WhyReturned = "escrow returned"
	WhyCourt    = "re-execution in court"

	WhyInspected = "fetching the result in the owner's place"
)

// settle pays who gave the right outcome, by gas used, and ends the job.
func (w *work) settle(j *Job, why string, a ...any) {
	for i := range j.Places {
		p := &j.Places[i]
		if p.State != Revealed {
			continue
		}
		gas := p.gas(&j.Spec, j.Verdict.Outcome.Gas)
		cost := w.params.Pay(p.Price, gas)
		w.payWork(j, p, cost)
		checked := j.Verdict.By != ByAudit // else nobody knows: paid work, and no evidence of honesty
		w.reputation(p.Node.Address(), func(r *Reputation) {
			if r.Work += gas; checked {
				r.Done++
			}
		})
		w.there(p.Node, true, 1e6)
		if checked {
			w.evidence(p.Node, j.ID, true, w.difficulty(j, cost))
		}
	}
	w.reputation(j.Owner.Address(), func(r *Reputation) { r.Received += j.Verdict.Outcome.Gas; r.Consumer.Paid++ })
	w.end(j, Settled, why, a...)
}

// payWork pays a place, less what is burned of it. A node that was caught in another job meanwhile gets nothing: its stake
// answers once for all the jobs that it lies in at the same time, and so its pay of all of them does too.
func (w *work) payWork(j *Job, p *Place, cost crowd.Credits) {
	if pr, _ := w.provider(p.Node); pr.Tombstoned {
		return
	}
	burn := cost.PPM(w.params.BurnPPM)
	w.pay(j, p.Node.Address(), cost-burn, WhyWork)
	w.pay(j, crowd.Address{}, burn, WhyBurned)
}

// end returns what is left of the escrow, makes the owner whole and frees the places.
func (w *work) end(j *Job, to JobState, why string, a ...any) {
	spent := j.Locked - j.Escrow
	w.pay(j, j.Owner.Address(), j.Escrow, WhyReturned)
	w.makeWhole(j, spent+j.Duties)
	for i := range j.Places {
		p := &j.Places[i]
		if p.Blamed && j.Verdict != nil { // others came to a result: it could be done
			w.fault(p.Node)
		}
		if p.Sealed = nil; p.State != Dropped && p.State != Fraud {
			w.release(j, p.Node)
		}
	}
	w.move(j, to, w.in(w.params.Retention), why, a...)
}

// paidWork reports whether the escrow has paid a node for its work.
func (j *Job) paidWork(node crowd.NodeID) bool {
	return slices.ContainsFunc(j.Payments, func(p Payment) bool { return p.To == node.Address() && p.Why == WhyWork })
}

// release ends one place's hold on its provider, and on the stake that answers for it.
func (w *work) release(j *Job, id crowd.NodeID) {
	p, ok := w.provider(id)
	if !ok {
		panic("bug: a provider withdrew while it held a place")
	}
	p.Active--
	if a := j.Audit; a != nil && a.Executor == id {
		p.Bound -= a.Stake
	}
	w.putProvider(p)
}

// fraud takes the stake of a proven cheater into the job and buries its identity.
// What it was worth is taken from the limit, which the cheater did not choose.
func (w *work) fraud(j *Job, place *Place, why string, a ...any) {
	place.State, place.Why, place.Sealed = Fraud, fmt.Sprintf(why, a...), nil
	w.evidence(place.Node, j.ID, false, w.difficulty(j, place.Price.Cost(place.gas(&j.Spec, j.Spec.Limits().Gas))))
	w.release(j, place.Node)
	p, _ := w.provider(place.Node)
	amount := p.Stake.PPM(w.params.SlashPPM)
	p.Stake -= amount
	p.Tombstoned = true
	w.putProvider(p)
	w.reputation(place.Node.Address(), func(r *Reputation) { r.Caught++ })
	j.Slashed += amount
	place.Slashed = amount
	w.emit(Slashed{j.ID, place.Node, amount})
}

// makeWhole hands out what was slashed: the owner gets back the spent part of
// its escrow, each authority on the verdict the price of its re-execution, each
// executor whose right answer exposed the fraud a bounty; the rest is burned.
func (w *work) makeWhole(j *Job, spent crowd.Credits) {
	pot := j.Slashed
	if pot == 0 {
		return
	}
	j.Slashed = 0
	give := func(to crowd.Address, amount crowd.Credits, why string) {
		amount = min(amount, pot)
		pot -= amount
		w.disburse(j, Payment{To: to, Amount: amount, Why: why, Slashed: true})
	}
	bounty := pot.PPM(w.params.BountyPPM)
	give(j.Owner.Address(), spent, "made whole from the cheater's stake")
	court := func(gas crowd.Gas, right func(b *Ballot) bool) {
		for i := range j.Ballots {
			if b := &j.Ballots[i]; right(b) {
				give(b.Authority.Address(), j.Spec.Filters.MaxPrice.Cost(gas), WhyCourt)
			}
		}
	}
	caught := j.convicted()
	if caught != nil {
		gas := j.Spec.Task.Limits.Gas
		if j.Dispute == nil {
			gas = caught.Opening.Outcome.Gas
			if j.Verdict != nil {
				gas = j.Verdict.Outcome.Gas
			}
		}
		court(gas, func(b *Ballot) bool {
			return b.Question == SameAnswer && b.Executor == caught.Node && b.Finding == Other
		})
	}
	if d := j.Dispute; d != nil {
		court(j.Spec.Task.Limits.Gas, func(b *Ballot) bool {
			return b.Question == WhatItem && b.Item == d.Item && b.Leaf == d.Right
		})
		if d.Right != (crowd.Hash{}) || caught != nil {
			give(d.Reporter.Address(), bounty, "bounty: its report exposed a cheater")
			w.reputation(d.Reporter.Address(), func(r *Reputation) { r.Reported++ })
		}
		for i := range j.Places { // honest work that the cheater made worthless
			if p := &j.Places[i]; p.State == Revealed && j.Verdict == nil && !j.paidWork(p.Node) {
				give(p.Node.Address(), w.params.Pay(p.Price, p.gas(&j.Spec, j.claimedGas())), "work lost to a cheater")
			}
		}
		give(crowd.Address{}, pot, "burned rest of the cheater's stake")
		return
	}
	if j.Verdict != nil && j.Verdict.By == ByCourt {
		court(j.Verdict.Outcome.Gas, func(b *Ballot) bool {
			return b.Question == WhatOutcome && b.Outcome == j.Verdict.Outcome
		})
	}
	for i := range j.Places {
		if p := &j.Places[i]; p.State == Revealed && j.Verdict != nil {
			give(p.Node.Address(), bounty/crowd.Credits(j.count(Revealed)), "bounty: its right answer exposed a cheater")
			w.reputation(p.Node.Address(), func(r *Reputation) { r.Reported++ })
		}
	}
	give(crowd.Address{}, pot, "burned rest of the cheater's stake")
}
