package ledger

import (
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd"
)

// This file is the court of jobs of the class tolerant. Their honest executors may differ, so that a
// hash of the right outcome convicts nobody: each authority computes its own, holds every party's
// output against it by the job's comparator, and says what it finds about each party. Who is within
// the tolerance is never punished, and who is beyond it always.

// Finding is what an authority finds about one party. Append only.
type Finding uint8

const (
	Same     Finding = iota + 1 // the same answer: equal, or within the job's tolerance
	Other                       // beyond it
	Missing                     // what the party is bound to differs in its bytes, and could not be had to be compared
	Unjudged                    // the app's comparator does not know the authority's own output from itself: the user's fault
)

func (f Finding) String() string {
	switch f {
	case Same:
		return "the same answer"
	case Other:
		return "another answer"
	case Missing:
		return "not to be had"
	case Unjudged:
		return "the app's comparator fails"
	}
	return fmt.Sprintf("finding %d", uint8(f))
}

// IdleDisputes is how often an owner, or an authority in its place, may send the court of a tolerant
// batch for nothing: the chain cannot compare outputs, so it takes their word that two differ. The
// escrow holds the court's pay for as many.
const IdleDisputes = 4

// Cleared is an item of a tolerant batch that the court has looked at. Nobody may ask about it again.
type Cleared struct {
	_        struct{} `cbor:",toarray"`
	Item     uint32
	Reporter crowd.NodeID // for nothing; zero: it exposed a cheater
}

// CourtRuns is for how many runs of how much gas the escrow holds the court's pay: in a tolerant job it may be called,
// and find nobody at fault who could pay for it.
func CourtRuns(spec *crowd.JobSpec) (times int, gas crowd.Gas) {
	switch {
	case spec.Compare.Strict():
		return 0, 0
	case spec.Plan.Method == crowd.PlanSample:
		return IdleDisputes, spec.Task.Limits.Gas
	}
	return 1, spec.Limits().Gas
}

// Answer of a verifier for an item, and its place among its answers; false: it has none.
func (j *Job) Answer(p *Place, item uint32) (answer crowd.Hash, k uint32, ok bool) {
	if !p.Verifier || p.Opening == nil {
		return answer, 0, false
	}
	lot, err := j.Lot(p.Node, p.Opening)
	if err != nil {
		return answer, 0, false
	}
	at, ok := slices.BinarySearch(Sampled(&j.Spec, lot), item)
	if !ok || at >= len(p.Opening.Answers) {
		return answer, 0, false
	}
	return p.Opening.Answers[at], uint32(at), true
}

// Judged are the places that the court of a tolerant job is asked about, in order.
func (j *Job) Judged() (places []*Place) {
	for i := range j.Places {
		p := &j.Places[i]
		if p.State != Revealed {
			continue
		}
		if p.Verifier {
			if j.Dispute == nil {
				continue
			}
			if _, _, ok := j.Answer(p, j.Dispute.Item); !ok {
				continue
			}
		}
		places = append(places, p)
	}
	return places
}

// Asked is the item that the court is asked about; 0 of a single task.
func (j *Job) Asked() uint32 {
	if j.Dispute == nil {
		return 0
	}
	return j.Dispute.Item
}

// IsCleared reports whether the court has looked at an item.
func (j *Job) IsCleared(item uint32) bool {
	return slices.ContainsFunc(j.Cleared, func(c Cleared) bool { return c.Item == item })
}

// Idle is how often who has sent the court for nothing.
func (j *Job) Idle(who crowd.NodeID) (n int) {
	for i := range j.Cleared {
		if j.Cleared[i].Reporter == who {
			n++
		}
	}
	return n
}

// mayReport: of a tolerant batch only who stands by what it says.
func (w *work) mayReport(j *Job, from crowd.NodeID, item uint32) *Refusal {
	if j.Spec.Compare.Strict() {
		return nil
	}
	if _, ok := w.authority(from); !ok && from != j.Owner {
		return refuse(NotYours, "in a job that tolerates differences its owner says what is beyond them, and the authorities in its place")
	}
	if j.IsCleared(item) {
		return refuse(Duplicate, "the court has looked at item %d", item)
	}
	if j.Idle(from) >= IdleDisputes {
		return refuse(Duplicate, "%s has sent the court for nothing %d times", from.Short(), IdleDisputes)
	}
	return nil
}

// Found is what more than 2/3 of n authorities find about a place, now that the court is asked; 0: nothing yet.
func (j *Job) Found(node crowd.NodeID, n int) Finding {
	for f := Same; f <= Unjudged; f++ {
		if 3*len(j.who(node, f)) > 2*n {
			return f
		}
	}
	return 0
}

// who found f about a place.
func (j *Job) who(node crowd.NodeID, f Finding) (who []crowd.Address) {
	for i := range j.Ballots {
		if b := &j.Ballots[i]; b.Question == SameAnswer && b.Item == j.Asked() && b.Executor == node && b.Finding == f {
			who = append(who, b.Authority.Address())
		}
	}
	return who
}

// weigh concludes once the court has found something about every party, or has no more time.
func (w *work) weigh(j *Job, over bool) {
	judged, n := j.Judged(), len(w.authorities())
	found := make([]Finding, len(judged))
	for i, p := range judged {
		if found[i] = j.Found(p.Node, n); found[i] == 0 && !over {
			w.putJob(j)
			return
		}
	}
	var right *Place // of the least gas among those with the right answer
	var judges []crowd.Address
	for i, p := range judged {
		switch found[i] {
		case Same:
			if right == nil || p.Opening.Outcome.Gas < right.Opening.Outcome.Gas {
				right = p
			}
			judges = j.who(p.Node, Same)
		case Other:
			w.fraud(j, p, "its answer is not the court's, nor within %s of it", j.Spec.Compare)
		case Missing: // more than 2/3 of the authorities found so: a fault whatever the job comes to
			w.drop(j, p, "its answer differs from the court's in its bytes, and could not be had to be compared")
			p.Blamed = false
			w.fault(p.Node)
		case 0:
			p.State, p.Why = Dropped, "the authorities came to no verdict about its answer"
			w.release(j, p.Node)
		}
	}
	switch {
	case slices.Contains(found, Unjudged):
		w.unjudged(j)
	case j.Dispute != nil:
		w.weighed(j, judges, slices.Contains(found, Other))
	case right == nil:
		w.end(j, Failed, "no executor's answer is within %s of the court's", j.Spec.Compare)
	default:
		if j.Slashed == 0 {
			w.payJudges(j, judges, right.Opening.Outcome.Gas)
		}
		w.decide(j, Verdict{Outcome: right.Opening.Outcome, By: ByCourt}, "%d authorities re-executed the task: numeric divergence, within %s; nobody is to blame for that", len(judges), j.Spec.Compare)
	}
}

// weighed goes on with a batch after the court has looked at an item, and convicted somebody by it or not.
func (w *work) weighed(j *Job, judges []crowd.Address, caught bool) {
	d := j.Dispute
	c := Cleared{Item: d.Item, Reporter: d.Reporter}
	if caught {
		c.Reporter = crowd.NodeID{}
	}
	j.Cleared = append(j.Cleared, c)
	_, open := j.split(Revealed)
	switch {
	case j.Executor() == nil:
		j.Verdict = nil
		w.end(j, Failed, "the executor's answer for item %d does not stand before the court", d.Item)
	case open == 0:
		w.payJudges(j, judges, j.Spec.Task.Limits.Gas)
		w.unchecked(j)
	default:
		if c.Reporter != (crowd.NodeID{}) && len(j.Cleared) <= IdleDisputes {
			w.payJudges(j, judges, j.Spec.Task.Limits.Gas)
		}
		w.move(j, Delivering, w.in(w.params.DeliveryWindow), "the executor's answer for item %d is within %s of the court's", d.Item, j.Spec.Compare)
	}
}

// payJudges pays the court out of the escrow, all of them together as one executor.
func (w *work) payJudges(j *Job, judges []crowd.Address, gas crowd.Gas) {
	w.share(j, judges, j.Spec.Filters.MaxPrice.Cost(gas), WhyCourt)
}

// share pays authorities out of the escrow, all of them together that much, and never what is owed to places.
func (w *work) share(j *Job, to []crowd.Address, amount crowd.Credits, why string) {
	free := j.Escrow
	for i := range j.Places {
		if p := &j.Places[i]; p.State == Working || p.State == Committed || p.State == Revealed {
			free -= min(free, w.params.Pay(p.Price, p.gas(&j.Spec, j.Spec.Limits().Gas)))
		}
	}
	amount = min(amount, free)
	for _, a := range to {
		w.pay(j, a, amount/crowd.Credits(len(to)), why)
	}
}

// unjudged ends a job whose comparator cannot be used: everybody who is not caught is paid, nobody
// is believed, and nothing of it counts for anybody's record.
func (w *work) unjudged(j *Job) {
	gas := j.Spec.Limits().Gas
	for i := range j.Places {
		if p := &j.Places[i]; p.State == Revealed && !p.Verifier {
			gas = min(gas, p.Opening.Outcome.Gas)
		}
	}
	for i := range j.Places {
		if p := &j.Places[i]; p.State == Revealed {
			w.payWork(j, p, w.params.Pay(p.Price, p.gas(&j.Spec, gas)))
		}
	}
	j.Verdict = nil
	w.end(j, Failed, WhyUnjudged)
}

// WhyUnjudged is why a job failed whose user is to blame.
const WhyUnjudged = "the job's comparator does not know an output from itself: no answer can be checked by it; who worked is paid, and only the user is to blame"

// convicted is a place that the court of a tolerant job has caught, or nil.
func (j *Job) convicted() *Place {
	for i := range j.Ballots {
		if b := &j.Ballots[i]; b.Question == SameAnswer && b.Finding == Other {
			if p := j.Place(b.Executor); p != nil && p.State == Fraud {
				return p
			}
		}
	}
	return nil
}
