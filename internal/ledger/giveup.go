package ledger

import (
	"fmt"
	"math/bits"

	"github.com/crowdcompute/crowd"
)

// This file is what happens to a place that its node does not fill: when another gets it, when that is a fault, and who pays for
// the time of a job that nobody could do, or that its owner cancels.

// Reason is why a node gives its place up. Append only.
type Reason uint8

const (
	CannotRun   Reason = iota + 1 // its machine fails
	CannotFetch                   // nobody serves the inputs
	TooSlow                       // the wall time ended before the program did
	NoParts                       // nobody serves parts of other results
)

var reasonNames = [...]string{"", "cannot run", "cannot fetch", "too slow", "no parts"}

func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// MarshalText gives the reason's name at the RPC border.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (w *work) giveUp(from crowd.NodeID, m *GiveUp) *Refusal {
	j, r := w.jobIn(m.Job, Running)
	if r != nil {
		return r
	}
	p := j.Place(from)
	if p == nil || p.State != Working {
		return refuse(NotYours, "%s does not work on job %s", from.Short(), j.ID.Short())
	}
	if len(m.Why) > maxWhy {
		return refuse(BadTx, "a reason of %d bytes, at most %d", len(m.Why), maxWhy)
	}
	if m.Reason == 0 || m.Reason > NoParts {
		return refuse(BadTx, "%s is none", m.Reason)
	}
	p.Left, p.GaveUp = w.now(), m.Reason
	w.drop(&j, p, "gave up: "+m.Why)
	w.progress(&j)
	return nil
}

// drop frees a place and seats an alternate, if the plan has one left. It never costs stake: a crash is no fraud. Whether it
// is a fault at all is known when the job ends: if nobody came to a result, the job may have been one that nobody could do.
func (w *work) drop(j *Job, p *Place, why string) {
	seat := p.State == Working && j.Replaced() < int(j.Spec.Plan.Replacements)
	if a := j.Audit; a != nil && a.At != 0 { // its auditor: another could be the executor's friend, so that the court takes its place
		seat = false
	}
	p.State, p.Why, p.Sealed, p.Blamed = Dropped, why, nil, true
	w.release(j, p.Node)
	if seat {
		w.seat(j, p.Verifier)
	}
}

// Replaced is how many places were given anew, beyond those that the plan has.
func (j *Job) Replaced() int {
	e, v := Seats(&j.Spec.Plan)
	if a := j.Audit; a != nil && a.Beacon != (crowd.Hash{}) && a.Chosen(j.ID) {
		e++ // its auditor
	}
	return max(0, len(j.Places)-e-v)
}

// nobody ends a job that no executor could do. Either its owner kept the inputs back, or what it asks for cannot be done within its
// limits, or no machine was there: so it is no fault of those with a place. The owner pays for each node that said that it gives
// up, rather than falling silent: for all the time if it ran the task and had no time left, else as for a cancel. If two at least
// said so they share what one of them is owed at most, and the rest is burned: together they earn no more by giving up than one does by working, and
// a node alone earns nothing by only saying so. An owner cannot have the work of one of them for nothing either.
func (w *work) nobody(j *Job) {
	var spoke []*Place
	var sum, most crowd.Credits
	for i := range j.Places {
		p := &j.Places[i]
		if p.State != Dropped || p.GaveUp == 0 {
			continue
		}
		due := w.params.timePay(j, p, p.Since)
		if p.GaveUp == TooSlow && p.Left-p.Since >= crowd.Time(j.Spec.Task.Limits.Wall.Milliseconds()) { // else its wall time cannot have ended
			due = max(due, w.params.Pay(p.Price, min(p.gas(&j.Spec, j.Spec.Limits().Gas), gasIn(p.Left-p.Since))))
		}
		due = min(due, j.Escrow-sum)
		spoke, sum, most = append(spoke, p), sum+due, max(most, due)
	}
	if len(spoke) > 1 {
		each := min(most, sum) / crowd.Credits(len(spoke))
		for _, p := range spoke {
			w.pay(j, p.Node.Address(), each, WhyNobody)
			sum -= each
		}
	}
	if len(spoke) > 0 {
		w.pay(j, crowd.Address{}, sum, WhyNobody)
		w.reputation(j.Owner.Address(), func(r *Reputation) { r.Consumer.Failed++ })
	}
	w.end(j, Failed, WhyNobody)
}

// unverified ends a batch whose executor is bound and whose verifiers are gone. An executor is paid for its time if all of them had their answers,
// as they can have had them only if the inputs could be had, and kept them to themselves: that is their fault, whatever else is true.
func (w *work) unverified(j *Job, have, want int) {
	silent := true
	for i := range j.Places {
		if p := &j.Places[i]; p.Verifier && p.State == Dropped {
			silent = silent && p.Commitment != (crowd.Hash{})
		}
	}
	if silent {
		for i := range j.Places {
			switch p := &j.Places[i]; {
			case p.Verifier && p.State == Dropped:
				p.Blamed = false
				w.fault(p.Node)
			case !p.Verifier && p.State == Committed:
				w.pay(j, p.Node.Address(), w.params.Pay(p.Price, min(j.Spec.Limits().Gas, gasIn(w.now()-p.Since))), "time lost on a job whose verifiers keep their answers to themselves")
			}
		}
	}
	w.end(j, Failed, "%d of %d verifiers did their work", have, want)
}

// WhyNobody is why a job failed that no executor came to a result of.
const WhyNobody = "no drawn node did the work"

// CancelPay is what a cancel at that time pays to those who work on j.
func (p *Params) CancelPay(j *Job, now crowd.Time) (sum crowd.Credits) {
	for i := range j.Places {
		if pl := &j.Places[i]; pl.State == Working {
			sum += p.timePay(j, pl, now)
		}
	}
	return sum
}

// timePay is what a place gets if its owner cancels then: what a machine of FullSpeed uses in CancelLeast, or, where executors run the task
// side by side, in the time since it got the place if that is longer; at most what the place can earn. An executor that runs the task alone is
// paid for no more than that time, or it would do better by waiting for a cancel than by working: one of several that waits loses to the first
// that commits. A verifier that has its answers has done all of its work.
func (p *Params) timePay(j *Job, pl *Place, now crowd.Time) crowd.Credits {
	gas := pl.gas(&j.Spec, j.Spec.Limits().Gas)
	if pl.Commitment != (crowd.Hash{}) {
		return p.Pay(pl.Price, gas)
	}
	ms := crowd.Time(p.CancelLeast)
	if executors, _ := Seats(&j.Spec.Plan); executors > 1 {
		ms = max(ms, now-pl.Since)
	}
	return p.Pay(pl.Price, min(gas, gasIn(ms)))
}

// gasIn is how much gas a machine of FullSpeed uses in that many milliseconds.
func gasIn(ms crowd.Time) crowd.Gas {
	hi, lo := bits.Mul64(uint64(max(ms, 0)), uint64(crowd.FullSpeed/1000))
	if hi > 0 {
		return ^crowd.Gas(0)
	}
	return crowd.Gas(lo)
}
