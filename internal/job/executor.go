package job

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Executor claims a place that it has drawn, runs the task, commits and reveals.
// It never commits twice: what it is bound to is in its journal before anybody hears of it.
type Executor struct {
	core
	proof    *identity.VRFProof // for the job's beacon
	output   identity.VRFOutput
	ran      *ledger.Opening // without its salt
	looking  bool            // the own work is done: leaves are looked at
	quitting ledger.Reason   // why it gives its place up; 0: it does not
}

// runFaults in a row are enough to leave the place to an alternate.
const runFaults = 3

// Step implements Machine.
func (e *Executor) Step(now time.Time, ev Event) []Effect {
	return e.step(now, ev, func(now time.Time) {
		if ev, ok := ev.(Ran); ok {
			e.ran = e.bound(now, ev)
		}
		e.act(now)
	})
}

func (e *Executor) act(now time.Time) {
	j := e.job
	p := j.Place(e.self)
	switch {
	case j.Owner == e.self:
		e.end()
	case j.State == ledger.Settled && p != nil && p.State == ledger.Revealed && e.jrn.Opening != nil && (p.Verifier || p.Opening.Outcome == j.Verdict.Outcome):
		until := e.endsAt() // a verifier has it where outputs go on to others; an owner that did not accept may come back
		if j.Spec.Shuffle.Parts == 0 && !j.Inspected() {
			until = e.keptUntil()
		}
		e.retire(now, j.Verdict.Outcome.Result, until)
	case j.State.Ended():
		e.end()
	case j.State == ledger.Claiming:
		e.claim(now)
	case p != nil:
		e.place(now, p)
	case !Wanted(AsExecutor, e.self, j): // else it is an alternate, or waits for the beacon
		e.end()
	}
}

// claim computes the lot and sends it if it won.
func (e *Executor) claim(now time.Time) {
	j := e.job
	if e.asks == nil || !eligible(e.asks, j, &e.Params) || e.due(now, j.Due) {
		return
	}
	if slices.ContainsFunc(j.Drawn, func(d ledger.Drawn) bool { return d.Node == e.self }) {
		return
	}
	if e.proof == nil {
		proof, out := e.Key.VRF().Prove(ledger.DrawInput(j.ID, e.self, j.Beacon))
		e.proof, e.output = &proof, out
	}
	won, priority := ledger.Won(e.output, e.Params.Tickets(e.asks, j.Favoured), j.Tickets, e.Params.CommitteeUnits)
	if won == 0 {
		return
	}
	if n := len(j.Drawn); uint32(n) >= e.Params.MaxClaims {
		last := &j.Drawn[n-1]
		if c := bytes.Compare(priority[:], last.Priority[:]); c > 0 || c == 0 && bytes.Compare(e.self[:], last.Node[:]) > 0 {
			return // better ones fill the list
		}
	}
	e.send(now, &ledger.Claim{Job: e.id, Proof: *e.proof})
}

// eligible spares the fee of a claim that the ledger would refuse. Only the ledger decides.
func eligible(p *ledger.Provider, j *ledger.Job, params *ledger.Params) bool {
	f := &j.Spec.Filters
	for _, tag := range f.Tags {
		if !slices.Contains(p.Offer.Tags, tag) {
			return false
		}
	}
	return !p.Tombstoned && p.Leaving == 0 &&
		(p.Since == 0 || p.Since+params.Lookback <= j.DrawAt) &&
		p.Stake >= max(params.MinStake, f.MaxPrice.Cost(j.Spec.Limits().Gas)) &&
		p.Offer.Price <= f.MaxPrice && p.Offer.Owners <= j.Score && (p.Offer.Memory == 0 || p.Offer.Memory >= j.Spec.Task.Limits.Memory) &&
		(len(f.Countries) == 0 || slices.Contains(f.Countries, p.Offer.Country)) &&
		(len(f.Providers) == 0 || slices.Contains(f.Providers, p.ID))
}

func (e *Executor) place(now time.Time, p *ledger.Place) {
	j := e.job
	switch p.State {
	case ledger.Working:
		if j.State == ledger.Running {
			e.toil(now, p)
		}
	case ledger.Committed:
		if !p.Verifier {
			e.stop()
		}
		if e.jrn.Opening == nil || j.State != ledger.Revealing && j.State != ledger.Unsealing {
			return
		}
		reveal := &ledger.Reveal{Job: e.id, Opening: *e.jrn.Opening}
		if p.Verifier {
			if !e.leaves(now) {
				return
			}
			reveal.Conflict = e.shown(e.self, e.jrn.Opening)
		}
		e.send(now, reveal)
	case ledger.Revealed:
		if j.Spec.Plan.Method == crowd.PlanSample && (j.State == ledger.Delivering || j.State == ledger.Inspecting) {
			e.audit.own = !p.Verifier
			if e.leaves(now) {
				e.watch(now)
			}
		}
	case ledger.Dropped, ledger.Fraud:
		e.end()
	}
}

// toil goes from an empty place to a commitment: fetch, run, bind, commit.
func (e *Executor) toil(now time.Time, p *ledger.Place) {
	if e.ran != nil && e.jrn.Opening == nil {
		if err := e.bind(*e.ran); err != nil {
			e.fault(now, err)
		}
		e.ran = nil
	}
	awaited := e.job.Awaits(p)
	switch {
	case e.jrn.Opening != nil:
		if awaited {
			c := &ledger.Commit{Job: e.id, Commitment: ledger.Commitment(e.id, e.self, *e.jrn.Opening)}
			if !p.Verifier || e.job.Bound() {
				c.Sealed = e.jrn.Sealed
			}
			e.send(now, c)
		}
		return
	case awaited && e.due(now, p.Due): // too late for all; the chain drops the place
		e.stop()
		return
	}
	if e.quitting == 0 {
		e.quitting = e.hopeless(now, p)
	}
	switch {
	case e.quitting != 0:
		e.stop()
		e.send(now, GiveUp(e.id, e.quitting, errors.Is(e.work.err, ErrLocal)))
	case e.busy(now):
	case e.work.fetched:
		e.keep(e.inputs()...)
		e.run(now, e.sample(p))
	default:
		e.fetchInputs(now, e.sample(p))
	}
}

// GiveUp leaves a place to an alternate. local: for want of something of the machine's own, as space on its disk.
func GiveUp(id crowd.JobID, why ledger.Reason, local bool) *ledger.GiveUp {
	m := &ledger.GiveUp{Job: id, Reason: why, Why: giveUpTexts[why]}
	if local {
		m.Why += ": its own machine lacks something, perhaps disk space"
	}
	return m
}

// giveUpTexts say why a place is given up, as the chain is told: an error's own text may name
// files of this machine, and goes to its log alone.
var giveUpTexts = map[ledger.Reason]string{
	ledger.CannotRun:   "cannot run the task",
	ledger.CannotFetch: "cannot get the inputs",
	ledger.TooSlow:     "cannot run the task within its wall time",
	ledger.NoParts:     "cannot get parts of other results",
}

// hopeless says why an alternate should have the place, or nothing.
func (e *Executor) hopeless(now time.Time, p *ledger.Place) ledger.Reason {
	w := &e.work
	last := e.due(now, p.Due-crowd.Time(e.Params.DispatchGrace)/4) // and the node wakes then
	if w.flying {
		// A peer that sends nothing, or little, must not make the node miss its time: then it could not even say so.
		switch {
		case last && w.kind == fetching:
			return ledger.CannotFetch
		case last && w.kind == running: // it began late, or the machine is slow: what it has run, it has run
			return ledger.TooSlow
		}
		return 0
	}
	if w.err == nil {
		return 0
	}
	half := crowd.Time(e.Params.Patience(&e.job.Spec, p.Verifier)) / 2
	switch {
	case w.kind == running && errors.Is(w.err, ErrWall): // a second run would take as long
		return ledger.TooSlow
	case w.kind == running && (w.fails >= runFaults || errors.Is(w.err, ErrLocal)):
		return ledger.CannotRun
	case w.kind == fetching && errors.Is(w.err, ErrLocal):
		return ledger.CannotFetch
	case w.kind == fetching && e.due(now, p.Due-half) && errors.Is(w.err, ErrParts):
		return ledger.NoParts
	case w.kind == fetching && e.due(now, p.Due-half):
		return ledger.CannotFetch
	}
	return 0
}

// bind fixes the outcome for ever: journal first, so that a restart sends the very same commit.
func (e *Executor) bind(opening ledger.Opening) error {
	if _, err := io.ReadFull(e.Rand, opening.Salt[:]); err != nil {
		return fmt.Errorf("draw a salt: %w", err)
	}
	plain, purpose := ledger.Pad(&opening), ledger.SealPurpose(e.id, e.self)
	sealed := make([][]byte, len(e.Authorities))
	for i := range e.Authorities {
		var err error
		if sealed[i], err = identity.Seal(e.Rand, e.Authorities[i].ID, plain, purpose); err != nil {
			return fmt.Errorf("seal the opening to authority %d: %w", i, err)
		}
	}
	e.jrn.Opening, e.jrn.Sealed = &opening, sealed
	e.jrn.keep(opening.Outcome.Result, opening.Outputs)
	e.persist()
	for _, made := range []crowd.CID{opening.Outcome.Result, opening.Outputs} {
		if made != "" {
			e.emit(Keep{made})
		}
	}
	return nil
}

// sample is what a verifier re-runs; nil: all.
func (e *Executor) sample(p *ledger.Place) []uint32 {
	if !p.Verifier {
		return nil
	}
	_, lot := e.Key.VRF().Prove(ledger.SampleInput(e.id, e.self, e.job.Beacon))
	return ledger.Sampled(&e.job.Spec, lot)
}

// bound is what a run lets the node commit to, or nil.
func (e *Executor) bound(now time.Time, ev Ran) *ledger.Opening {
	p := e.job.Place(e.self)
	if p == nil || !p.Verifier {
		if o := e.outcome(now, ev); o != nil {
			return &ledger.Opening{Outcome: *o}
		}
		return nil
	}
	err := ev.Err
	if want := len(e.sample(p)); err == nil && len(ev.Leaves) != want {
		err = fmt.Errorf("the executor gave %d leaves for %d items", len(ev.Leaves), want)
	}
	if tolerant := !e.job.Spec.Compare.Strict(); err == nil && (ev.Outputs != "") != tolerant {
		err = fmt.Errorf("the executor kept %q of what the items wrote", ev.Outputs)
	}
	if !e.landed(now, ev.Try, running, err) {
		return nil
	}
	proof, _ := e.Key.VRF().Prove(ledger.SampleInput(e.id, e.self, e.job.Beacon))
	o := &ledger.Opening{Sample: proof[:], Outputs: ev.Outputs}
	for _, l := range ev.Leaves {
		o.Answers = append(o.Answers, l.Hash())
	}
	return o
}

// leaves reports whether the executor's leaves are here and are what it committed to. To a verifier also
// the outputs must be, where they go on to others: nobody else looks at them.
func (e *Executor) leaves(now time.Time) bool {
	if !e.looking { // other work than the batch itself
		e.stop()
		e.work = working{try: e.work.try}
		e.looking = true
	}
	return e.audited(now, e.job.Spec.Shuffle.Parts > 0 && !e.audit.own) && e.audit.bad == nil
}
