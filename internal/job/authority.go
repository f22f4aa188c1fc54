package job

import (
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Authority opens what silent executors sealed, re-executes what is disputed
// and looks whether a result can be fetched.
type Authority struct {
	core
	at ledger.JobState // what the work is for
}

// Step implements Machine.
func (a *Authority) Step(now time.Time, ev Event) []Effect {
	return a.step(now, ev, func(now time.Time) {
		if ev, ok := ev.(Ran); ok {
			if o := a.outcome(now, ev); o != nil {
				a.jrn.Outcome = o
				a.jrn.keep(o.Result)
				a.persist()
				a.emit(Keep{o.Result})
			}
		}
		a.act(now)
	})
}

func (a *Authority) act(now time.Time) {
	j := a.job
	if a.index() < 0 {
		a.end()
		return
	}
	if a.at != j.State { // other questions, other work
		a.stop()
		a.work = working{try: a.work.try}
		a.at = j.State
	}
	switch j.State {
	case ledger.Unsealing:
		for i := range j.Places {
			if p := &j.Places[i]; p.State == ledger.Committed {
				a.unseal(now, p)
			}
		}
	case ledger.Court:
		a.judge(now)
	case ledger.Inspecting:
		a.inspect(now)
	case ledger.Settled:
		a.retire(now, j.Verdict.Outcome.Result, a.endsAt())
	case ledger.Cancelled, ledger.Failed:
		a.end()
	}
}

// index of the own node among the authorities, or -1.
func (a *Authority) index() int {
	for i := range a.Authorities {
		if a.Authorities[i].ID == a.self {
			return i
		}
	}
	return -1
}

// voted reports whether the chain shows the own vote.
func (a *Authority) voted(q ledger.Question, on crowd.NodeID) bool {
	for i := range a.job.Ballots {
		if b := &a.job.Ballots[i]; b.Authority == a.self && b.Question == q && b.Executor == on {
			return true
		}
	}
	return false
}

func (a *Authority) unseal(now time.Time, p *ledger.Place) {
	unseal := &ledger.Unseal{Job: a.id, Executor: p.Node}
	vote := &ledger.Vote{Job: a.id, Question: ledger.BadSeal, Executor: p.Node, Yes: true}
	if a.over(unseal) || a.over(vote) || a.voted(ledger.BadSeal, p.Node) {
		return
	}
	if o, ok := a.opening(p); ok {
		unseal.Opening = o
		a.send(now, unseal)
	} else {
		a.send(now, vote)
	}
}

// opening is what p sealed to this authority, if it fits p's commitment.
func (a *Authority) opening(p *ledger.Place) (o ledger.Opening, ok bool) {
	i := a.index()
	if i >= len(p.Sealed) {
		return o, false
	}
	plain, err := a.Key.Open(p.Sealed[i], ledger.SealPurpose(a.id, p.Node))
	if err != nil || crowd.Decode(plain, &o) != nil {
		return o, false
	}
	return o, ledger.Commitment(a.id, p.Node, o) == p.Commitment
}

// judge re-executes the task. Without the inputs there is no vote.
func (a *Authority) judge(now time.Time) {
	switch {
	case a.voted(ledger.WhatOutcome, crowd.NodeID{}):
	case a.jrn.Outcome != nil:
		a.send(now, &ledger.Vote{Job: a.id, Question: ledger.WhatOutcome, Outcome: *a.jrn.Outcome})
	case a.due(now, a.job.Due):
		a.stop()
	case a.busy(now):
	case a.work.fetched:
		a.keep(a.inputs()...)
		a.run(now)
	default:
		a.fetch(now, a.inputHolders(), MaxInput, a.inputs()...)
	}
}

// inspect looks whether the result can be fetched, and keeps it for the owner if so.
func (a *Authority) inspect(now time.Time) {
	j := a.job
	result := j.Verdict.Outcome.Result
	vote := &ledger.Vote{Job: a.id, Question: ledger.Retrievable}
	have := a.jrn.Outcome != nil && a.jrn.Outcome.Result == result || a.work.fetched && !a.work.unusable
	switch {
	case a.voted(ledger.Retrievable, crowd.NodeID{}) || a.over(vote):
	case have:
		a.keep(result)
		vote.Yes = true
		a.send(now, vote)
	case result == "" || a.work.unusable || a.due(now, j.Due-crowd.Time(a.Params.CourtWindow/3)):
		a.stop()
		a.send(now, vote)
	case !a.busy(now):
		a.fetch(now, a.resultHolders(), a.maxResult(), result)
	}
}
