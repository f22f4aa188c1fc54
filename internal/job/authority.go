package job

import (
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Authority opens what silent executors sealed, re-executes what is disputed
// and looks whether a result can be fetched.
type Authority struct {
	core
	at   ledger.JobState // what the work is for
	item uint32          // and which disputed item
	leaf *crowd.Hash     // what it came to

	weighing weighing // in a tolerant job
}

// Step implements Machine.
func (a *Authority) Step(now time.Time, ev Event) []Effect {
	return a.step(now, ev, func(now time.Time) {
		if ev, ok := ev.(Compared); ok {
			if a.job.State == ledger.Court {
				a.weighed(now, ev)
			} else {
				a.lookedAt(now, ev)
			}
		}
		if ev, ok := ev.(Ran); ok {
			if a.job.Dispute != nil && !a.job.Spec.Compare.Strict() {
				a.ranTolerant(now, ev)
			} else if a.job.Spec.Plan.Method == crowd.PlanSample {
				a.ranItem(now, ev)
			} else if o := a.outcome(now, ev); o != nil {
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
	item := uint32(0)
	if j.Dispute != nil {
		item = j.Dispute.Item
	}
	if a.at != j.State || a.item != item { // other questions, other work
		a.stop()
		a.work = working{try: a.work.try}
		a.unkeep(a.weighing.own)
		a.at, a.item, a.leaf, a.weighing = j.State, item, nil, weighing{}
		a.audit = audit{}
	}
	switch j.State {
	case ledger.Unsealing:
		for i := range j.Places {
			if p := &j.Places[i]; p.State == ledger.Committed && (!p.Verifier || a.mayOpen(now)) {
				a.unseal(now, p)
			}
		}
	case ledger.Court:
		if !j.Spec.Compare.Strict() {
			a.weigh(now)
		} else if j.Spec.Plan.Method == crowd.PlanSample {
			a.judgeItem(now)
		} else {
			a.judge(now)
		}
	case ledger.Inspecting:
		a.inspect(now)
	case ledger.Settled: // its owner had all the time until now; if it did not accept, executors keep the result longer
		a.retire(now, j.Verdict.Outcome.Result, a.keptUntil())
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
		if p.Verifier { // its leaves are known: mayOpen
			unseal.Conflict = a.shown(p.Node, &o)
		}
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
	if err != nil {
		return o, false
	}
	o, err = ledger.Unpad(plain)
	return o, err == nil && ledger.Commitment(a.id, p.Node, o) == p.Commitment
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
		a.run(now, nil)
	default:
		a.fetchInputs(now, nil)
	}
}

// mayOpen reports whether a silent verifier's answers may be shown: only once the executor
// can no longer lose the leaves that they are compared with, and what else the verifier was to check. Leaves that cannot be had in time are the executor's fault.
func (a *Authority) mayOpen(now time.Time) bool {
	j := a.job
	if j.Executor() == nil {
		return false
	}
	vote := &ledger.Vote{Job: a.id, Question: ledger.LeavesThere}
	lacking := a.lacking() // before the next try begins
	known := a.audited(now, j.Spec.Shuffle.Parts > 0)
	if known && a.audit.bad == nil {
		return true
	}
	if late := a.due(now, j.Due-crowd.Time(a.Params.CourtWindow/3)); known || late && lacking {
		a.stop()
		if !a.voted(ledger.LeavesThere, crowd.NodeID{}) {
			a.send(now, vote)
		}
	}
	return false
}

// judgeItem re-executes the one item that executor and verifier differ about.
func (a *Authority) judgeItem(now time.Time) {
	d := a.job.Dispute
	for i := range a.job.Ballots {
		if b := &a.job.Ballots[i]; b.Authority == a.self && b.Question == ledger.WhatItem && b.Item == d.Item {
			return
		}
	}
	switch {
	case a.leaf != nil:
		a.send(now, &ledger.Vote{Job: a.id, Question: ledger.WhatItem, Item: d.Item, Leaf: *a.leaf})
	case a.due(now, a.job.Due):
		a.stop()
	case a.busy(now):
	case a.work.fetched:
		a.keep(a.inputs()...)
		a.run(now, []uint32{d.Item})
	default:
		a.fetchInputs(now, []uint32{d.Item})
	}
}

func (a *Authority) ranItem(now time.Time, ev Ran) {
	err := ev.Err
	if err == nil && len(ev.Leaves) != 1 {
		err = fmt.Errorf("the executor gave %d leaves for one item", len(ev.Leaves))
	}
	if a.landed(now, ev.Try, running, err) {
		h := ev.Leaves[0].Hash()
		a.leaf = &h
	}
}

// inspect looks whether the result can be fetched, and keeps it for the owner if so. It says no only if nobody serves it: not if it still
// comes, and not if this machine has no room for it.
func (a *Authority) inspect(now time.Time) {
	j := a.job
	result := j.Verdict.Outcome.Result
	vote := &ledger.Vote{Job: a.id, Question: ledger.Retrievable}
	if j.Spec.Plan.Method == crowd.PlanSample {
		a.inspectBatch(now, vote)
		return
	}
	have := a.jrn.Outcome != nil && a.jrn.Outcome.Result == result || a.work.fetched && !a.work.unusable
	switch {
	case a.voted(ledger.Retrievable, crowd.NodeID{}) || a.over(vote):
	case have:
		a.keep(result)
		vote.Yes = true
		a.send(now, vote)
	case result == "" || a.work.unusable || a.due(now, j.Due-crowd.Time(a.Params.CourtWindow/3)) && a.lacking():
		a.stop()
		a.send(now, vote)
	case a.due(now, j.Due): // it still comes, or this machine cannot take it: no reason to take anybody's pay
		a.stop()
	case !a.busy(now):
		a.fetch(now, Fetch{CIDs: []crowd.CID{result}, From: a.resultHolders(), Max: a.maxResult()})
	}
}

// inspectBatch is the owner's check in its place: the result is there only if it is what the
// executor committed to and no verifier's answer differs.
func (a *Authority) inspectBatch(now time.Time, vote *ledger.Vote) {
	if a.voted(ledger.Retrievable, crowd.NodeID{}) || a.over(vote) {
		return
	}
	lacking := a.lacking() // before the next try begins
	known, r := a.audited(now, true), (*ledger.Report)(nil)
	if known && a.audit.bad == nil {
		r, known = a.conflict(now, a.job.Due-crowd.Time(a.Params.CourtWindow/2))
	}
	switch {
	case r != nil && a.job.Idle(a.self) < ledger.IdleDisputes:
		a.send(now, r)
	case known && a.audit.bad == nil && r == nil:
		a.keep(a.job.Verdict.Outcome.Result)
		vote.Yes = true
		a.send(now, vote)
	case known || a.due(now, a.job.Due-crowd.Time(a.Params.CourtWindow/3)) && lacking:
		a.stop()
		a.send(now, vote)
	}
}
