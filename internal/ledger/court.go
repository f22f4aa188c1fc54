package ledger

import (
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd"
)

// Question is what the court is asked. Append only.
type Question uint8

const (
	WhatOutcome Question = iota + 1 // re-execute: what does the task come to?
	BadSeal                         // did this executor seal something that is no opening of its commitment?
	Retrievable                     // can the result be fetched, and is it what was committed to?
	WhatItem                        // re-execute one item of a batch: what does it come to?
	LeavesThere                     // are the executor's leaves to be had, before verifiers are opened?
	SameAnswer                      // of a tolerant job: is this party's answer the court's, as far as the job tells them apart?
	OwnAnswer                       // of a tolerant job: what this authority's own run came to, for the others to look at; it decides nothing
)

func (q Question) String() string {
	switch q {
	case WhatOutcome:
		return "what is the outcome"
	case BadSeal:
		return "is the seal bad"
	case Retrievable:
		return "can the result be fetched"
	case WhatItem:
		return "what is the outcome of one item"
	case LeavesThere:
		return "are the executor's leaves to be had"
	case SameAnswer:
		return "is it the same answer"
	case OwnAnswer:
		return "what is the court's own answer"
	}
	return fmt.Sprintf("question %d", uint8(q))
}

// Ballot is one authority's vote, open for anybody to recompute.
type Ballot struct {
	_         struct{} `cbor:",toarray"`
	Authority crowd.NodeID
	Question  Question
	Executor  crowd.NodeID
	Outcome   crowd.Outcome
	Leaf      crowd.Hash
	Item      uint32 // of WhatItem, and of SameAnswer and OwnAnswer in a batch: which one it was about
	Yes       bool
	Finding   Finding // of SameAnswer
}

func (b *Ballot) sameQuestion(o *Ballot) bool {
	return b.Question == o.Question && b.Executor == o.Executor && b.Item == o.Item
}

func (b *Ballot) sameAnswer(o *Ballot) bool {
	return b.sameQuestion(o) && b.Outcome == o.Outcome && b.Leaf == o.Leaf && b.Yes == o.Yes && b.Finding == o.Finding
}

func (w *work) vote(from crowd.NodeID, m *Vote) *Refusal {
	if _, ok := w.authority(from); !ok {
		return refuse(NotYours, "%s is no authority", from.Short())
	}
	in := map[Question]JobState{WhatOutcome: Court, WhatItem: Court, SameAnswer: Court, OwnAnswer: Court, BadSeal: Unsealing, LeavesThere: Unsealing, Retrievable: Inspecting}[m.Question]
	if in == 0 {
		return refuse(BadTx, "question %d is none", m.Question)
	}
	j, r := w.jobIn(m.Job, in)
	if r != nil {
		return r
	}
	b := Ballot{Authority: from, Question: m.Question}
	if j.State == Court && (m.Question == SameAnswer || m.Question == OwnAnswer) == j.Spec.Compare.Strict() {
		return refuse(BadTx, "the court of job %s, which is %s, is not asked %q", j.ID.Short(), j.Spec.Compare.Class(), m.Question)
	}
	switch m.Question {
	case SameAnswer:
		if m.Finding < Same || m.Finding > Unjudged {
			return refuse(BadTx, "%s is none", m.Finding)
		}
		if m.Item != j.Asked() {
			return refuse(TooLate, "job %s is asked about item %d, not %d", j.ID.Short(), j.Asked(), m.Item)
		}
		if !slices.ContainsFunc(j.Judged(), func(p *Place) bool { return p.Node == m.Executor }) {
			return refuse(NotFound, "nothing of %s is before the court of job %s", m.Executor.Short(), j.ID.Short())
		}
		b.Executor, b.Item, b.Finding = m.Executor, m.Item, m.Finding
	case WhatItem:
		if j.Dispute == nil {
			return refuse(NotFound, "no item of job %s is disputed", j.ID.Short())
		}
		if m.Item != j.Dispute.Item {
			return refuse(TooLate, "job %s is asked about item %d, not %d", j.ID.Short(), j.Dispute.Item, m.Item)
		}
		b.Item, b.Leaf = m.Item, m.Leaf
	case OwnAnswer:
		if m.Item != j.Asked() {
			return refuse(TooLate, "job %s is asked about item %d, not %d", j.ID.Short(), j.Asked(), m.Item)
		}
		if m.Outcome.Gas > j.Spec.Limits().Gas || len(m.Outcome.Result) > crowd.MaxCID || m.Outcome.Leaves != "" {
			return refuse(BadTx, "an impossible outcome")
		}
		b.Outcome, b.Item, b.Leaf = m.Outcome, m.Item, m.Leaf
	case WhatOutcome:
		if j.Dispute != nil {
			return refuse(BadTx, "the court of job %s is asked about one item", j.ID.Short())
		}
		if m.Outcome.Gas > j.Spec.Limits().Gas || len(m.Outcome.Result) > crowd.MaxCID {
			return refuse(BadTx, "an impossible outcome")
		}
		b.Outcome = m.Outcome
	case BadSeal:
		b.Executor, b.Yes = m.Executor, m.Yes
		if p := j.Place(m.Executor); p == nil || p.State != Committed {
			return refuse(NotFound, "%s has nothing sealed in job %s", m.Executor.Short(), j.ID.Short())
		}
	case LeavesThere:
		if j.Spec.Plan.Method != crowd.PlanSample || j.Executor() == nil {
			return refuse(NotFound, "job %s has no open leaves", j.ID.Short())
		}
		b.Yes = m.Yes
	case Retrievable:
		b.Yes = m.Yes
	}
	same := 1
	for i := range j.Ballots {
		old := &j.Ballots[i]
		if old.Authority == from && old.sameQuestion(&b) {
			return refuse(Duplicate, "%s has voted", from.Short())
		}
		if old.sameAnswer(&b) {
			same++
		}
	}
	j.Ballots = append(j.Ballots, b)
	if b.Question == OwnAnswer || 3*same <= 2*len(w.authorities()) { // more than 2/3, DESIGN section 6
		w.putJob(&j)
		return nil
	}
	for i := range j.Ballots {
		if j.Ballots[i].sameAnswer(&b) {
			w.reputation(j.Ballots[i].Authority.Address(), func(r *Reputation) { r.Support++ })
		}
	}
	switch {
	case b.Question == SameAnswer:
		w.weigh(&j, false)
	case b.Question == WhatOutcome:
		w.judge(&j, b.Outcome, same)
	case b.Question == WhatItem:
		w.judgeItem(&j, b.Leaf, same)
	case b.Question == BadSeal && b.Yes:
		w.convict(&j, j.Place(b.Executor), "sealed something that is no opening of its commitment")
	case b.Question == LeavesThere && b.Yes:
		w.putJob(&j)
	case b.Question == BadSeal: // the seal is good, so that an authority can open it
		w.putJob(&j)
	case b.Yes:
		if j.History[len(j.History)-1].Why == whyComplained {
			w.reputation(j.Owner.Address(), func(r *Reputation) { r.Consumer.Unfounded++ })
		}
		w.share(&j, j.voters(func(o *Ballot) bool { return o.sameAnswer(&b) }), w.params.InspectPay(&j.Spec), WhyInspected)
		w.settle(&j, "%d authorities fetched the result", same)
	default:
		for i := range j.Places {
			if p := &j.Places[i]; p.State == Revealed && !p.Verifier {
				w.fault(p.Node)
			}
		}
		w.end(&j, Failed, "%d authorities could not fetch the result", same)
	}
	return nil
}

// payCourt pays the authorities on the verdict out of the escrow, where no cheater's
// stake will. The court did the work of the executor that fell silent, so together
// they get what that one would have been paid at most, now: a result that turns out
// to be lost does not make it free. Else two nodes of one hand, one of them silent,
// would have everything executed for nothing. The owner pays no more than it agreed to.
func (w *work) payCourt(j *Job, right crowd.Outcome) {
	w.share(j, j.voters(func(b *Ballot) bool { return b.Question == WhatOutcome && b.Outcome == right }), j.Spec.Filters.MaxPrice.Cost(right.Gas), WhyCourt)
}

// voters are the authorities that cast such a ballot.
func (j *Job) voters(such func(*Ballot) bool) (on []crowd.Address) {
	for i := range j.Ballots {
		if b := &j.Ballots[i]; such(b) {
			on = append(on, b.Authority.Address())
		}
	}
	return on
}

// judge convicts everybody whose outcome is not the court's.
func (w *work) judge(j *Job, right crowd.Outcome, votes int) {
	for i := range j.Places {
		if p := &j.Places[i]; p.State == Revealed && p.Opening.Outcome != right {
			w.fraud(j, p, "its outcome is not the one that the court computed")
		}
	}
	if j.Slashed == 0 {
		w.payCourt(j, right)
	}
	w.decide(j, Verdict{Outcome: right, By: ByCourt}, "%d authorities re-executed the task", votes)
}
