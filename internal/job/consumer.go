package job

import (
	"fmt"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Consumer follows its job, fetches the result and accepts it, in this order.
type Consumer struct {
	core
	told     int // entries of the history
	places   []ledger.PlaceState
	verdict  bool                  // told
	tooLate  bool                  // to cancel; told
	unusable bool                  // the result is nothing that can be fetched
	leave    bool                  // the authorities are to look: they have found nothing too often
	reported map[crowd.NodeID]bool // verifiers in a conflict; told. Never ranged over
}

// Step implements Machine.
func (c *Consumer) Step(now time.Time, ev Event) []Effect {
	return c.step(now, ev, func(now time.Time) {
		if ev, ok := ev.(Compared); ok {
			c.lookedAt(now, ev)
		}
		if _, ok := ev.(UserCancel); ok && !c.jrn.Cancel {
			c.jrn.Cancel = true
			c.persist()
		}
		c.act(now)
	})
}

func (c *Consumer) act(now time.Time) {
	j := c.job
	if j.Owner != c.self {
		c.end()
		return
	}
	if !j.State.Ended() && !slices.Contains(c.jrn.Kept, j.Spec.Task.Program) {
		c.keep(c.inputs()...)
	}
	c.tell(now)
	if c.jrn.Cancel {
		c.cancel(now)
	}
	switch j.State {
	case ledger.Delivering, ledger.Inspecting:
		c.deliver(now)
	case ledger.Settled:
		switch {
		case c.jrn.Have != "":
			c.end()
		case c.due(now, c.endsAt()):
			c.emit(Report{Stage: StageTrouble, Why: "the result was never to be had, and nobody keeps it any longer", Time: c.chainTime(now)})
			c.end()
		default:
			c.deliver(now)
			if c.jrn.Have != "" {
				c.end()
			}
		}
	case ledger.Cancelled, ledger.Failed:
		c.end()
	}
}

// tell reports what is new in the record.
func (c *Consumer) tell(now time.Time) {
	j := c.job
	for ; c.told < len(j.History); c.told++ {
		h := j.History[c.told]
		c.emit(Report{Stage: h.State.String(), Why: h.Why, Time: h.Time})
	}
	for i := range j.Places {
		p := &j.Places[i]
		if i == len(c.places) {
			c.places = append(c.places, 0)
		}
		if c.places[i] != p.State {
			c.places[i] = p.State
			c.emit(Report{Stage: p.State.String(), Why: "executor " + p.Node.Short(), Detail: p.Why, Time: c.chainTime(now)})
		}
	}
	if v := j.Verdict; v != nil && !c.verdict {
		c.verdict = true
		why := "by " + v.By
		if v.By == ledger.ByAudit {
			why += ", not checked: the lot did not choose it"
		}
		c.emit(Report{Stage: StageVerdict, Why: why, Detail: v.Outcome.String(), Time: c.chainTime(now)})
		if v.Outcome.UserError() {
			c.emit(Report{Stage: StageUserError, Why: "the program or its input is to blame: paid, not retried", Detail: v.Outcome.String(), Time: c.chainTime(now)})
		}
	}
}

func (c *Consumer) cancel(now time.Time) {
	j := c.job
	if j.State.Ended() || c.tooLate {
		return
	}
	if j.State > ledger.Running || j.Bound() {
		c.tooLate = true
		c.emit(Report{Stage: StageTrouble, Why: "too late to cancel", Detail: "an executor has committed to the result; it will be delivered", Time: c.chainTime(now)})
		return
	}
	if j.State == ledger.Claiming { // the chain takes no cancel until the places are given
		return
	}
	c.send(now, &ledger.Cancel{Job: c.id})
}

// Delivered is what of an outcome its owner fetches: the result, or the leaves where the outputs go on to others.
func Delivered(spec *crowd.JobSpec, o *crowd.Outcome) crowd.CID {
	if spec.Shuffle.Parts > 0 {
		return o.Leaves
	}
	return o.Result
}

// deliver gets the result here, and says so or complains while that matters.
func (c *Consumer) deliver(now time.Time) {
	j := c.job
	result := Delivered(&j.Spec, &j.Verdict.Outcome)
	switch {
	case c.jrn.Have != "":
	case c.unusable:
	case result == "":
		c.unusable = true
	case c.job.Spec.Plan.Method == crowd.PlanSample && !j.State.Ended():
		c.check(now)
	case c.audit.leaves != nil: // it is here, and others have found that it may be accepted
		c.have(now)
	case c.work.fetched && c.work.unusable:
		c.unusable = true
		c.emit(Report{Stage: StageTrouble, Why: "the result is nothing that can be fetched", Detail: string(result), Time: c.chainTime(now)})
	case c.work.fetched:
		c.have(now)
	case !c.busy(now):
		c.fetch(now, Fetch{CIDs: []crowd.CID{result}, From: c.resultHolders(), Max: c.maxResult()})
	}
	switch {
	case j.State.Ended():
	case c.jrn.Have != "":
		c.send(now, &ledger.Accept{Job: c.id})
	case j.State == ledger.Delivering && (c.unusable || c.leave || c.due(now, j.Due-crowd.Time(c.Params.DeliveryWindow/3))):
		c.send(now, &ledger.Complain{Job: c.id})
	}
}

// have takes the result, which lies in the own store.
func (c *Consumer) have(now time.Time) {
	result := Delivered(&c.job.Spec, &c.job.Verdict.Outcome)
	c.jrn.Have = result
	c.jrn.keep(result)
	c.persist()
	c.emit(Keep{result})
	c.emit(Report{Stage: StageDelivered, Why: "the result is here", Detail: string(result), Time: c.chainTime(now)})
}

// check holds a batch's result against the executor's commitment and the verifiers'
// answers. It is had only when all of them agree: the owner is who loses by a lie. Outputs that go on to
// others are not fetched: no verifier has opened that does not hold them.
func (c *Consumer) check(now time.Time) {
	switch {
	case !c.audited(now, c.job.Spec.Shuffle.Parts == 0):
	case c.audit.bad != nil:
		c.unusable = true
		c.emit(Report{Stage: StageTrouble, Why: "the result is not what the executor committed to", Detail: c.audit.bad.Error(), Time: c.chainTime(now)})
	default:
		r, known := c.conflict(now, c.job.Due-crowd.Time(c.Params.DeliveryWindow/2))
		if !known {
			return
		}
		if r != nil {
			if c.job.Idle(c.self) >= ledger.IdleDisputes {
				c.leave = true
				return
			}
			if !c.reported[r.Verifier] {
				if c.reported == nil {
					c.reported = map[crowd.NodeID]bool{}
				}
				c.reported[r.Verifier] = true
				c.emit(Report{Stage: StageTrouble, Why: fmt.Sprintf("executor and verifier %s differ about item %d: the court looks", r.Verifier.Short(), r.Proof.Index), Time: c.chainTime(now)})
			}
			c.send(now, r)
			return
		}
		c.have(now)
	}
}
