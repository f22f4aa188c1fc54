package scenario

import (
	"errors"
	"fmt"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Truth is the outcome that an honest run of p's task comes to.
func (p *Posted) Truth() crowd.Outcome {
	t := &p.Spec.Task
	return p.Owner.w.outcome(t, oversized(t.Program) || oversized(t.Inputs) || oversized(t.Stdin))
}

// WrongAccepted reports whether p was decided, and not by the truth.
func (p *Posted) WrongAccepted() bool {
	return p.Last.Verdict != nil && !nearOutcome(p.Spec.Compare, p.Last.Verdict.Outcome, p.Truth())
}

// Check reports every guarantee that did not hold in w's history:
//
//   - credits are conserved and every open job has a deadline, after each block;
//   - no honest node loses stake, and none ever signs two different commits for one job;
//   - no honest node sends a Reveal while places of its job still work: what it opens could be copied;
//   - every job ends within Bound;
//   - no wrong outcome of a single task is accepted unless every executor on the verdict is an
//     adversary with that same lie;
//   - in a job that came to the right verdict, nobody who committed to
//     something else keeps its stake, whether it revealed or not, and who is
//     caught really loses it;
//   - of a batch, what checkBatch says;
//   - the honest owner of a settled job that some honest node can serve has the result.
func (w *World) Check() error {
	errs := append([]error(nil), w.Broken...)
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	for _, s := range w.Slashed {
		if n := w.byID[s.Node]; n.Honest() {
			bad("honest node %d lost %s", n.index, s.Amount)
		}
	}
	for _, n := range w.Nodes {
		if n.Honest() && n.twice {
			bad("honest node %d signed two different commits for one job", n.index)
		}
	}
	for _, p := range w.Jobs {
		j := &p.Last
		for i := range j.Places {
			pl := &j.Places[i]
			if pr, _ := w.state.Provider(pl.Node.Address()); pl.State == ledger.Fraud && (!pr.Tombstoned || pr.Stake > w.Config.Stake-w.Config.Stake.PPM(w.Config.Params.SlashPPM)) {
				bad("job %s: node %d was caught and holds a stake of %s", p.ID.Short(), w.byID[pl.Node].index, pr.Stake)
			}
		}
		took := w.Now().Sub(p.At)
		if !p.Ended.IsZero() {
			took = p.Ended.Sub(p.At)
		}
		if bound := w.Bound(&p.Spec); took > bound {
			bad("job %s took %v, at most %v", p.ID.Short(), took, bound)
		}
		if p.Spec.Items > 0 {
			w.checkBatch(p, bad)
			w.checkDelivered(p, bad)
			continue
		}
		if j.Verdict == nil {
			continue
		}
		if p.WrongAccepted() {
			for i := range j.Places {
				pl := &j.Places[i]
				if n := w.byID[pl.Node]; pl.State == ledger.Revealed && (n.Honest() || n.Wrong[p.ID] != j.Verdict.Outcome) {
					bad("job %s came to %s, which is wrong, with node %d on it", p.ID.Short(), j.Verdict.Outcome, n.index)
				}
			}
			continue
		}
		for i := range j.Places {
			pl := &j.Places[i]
			n := w.byID[pl.Node]
			lie, lied := n.Wrong[p.ID]
			switch {
			case pl.State == ledger.Revealed && !nearOutcome(p.Spec.Compare, pl.Opening.Outcome, p.Truth()):
				bad("job %s: node %d revealed %s and is not punished", p.ID.Short(), n.index, pl.Opening.Outcome)
			case lied && pl.State == ledger.Dropped && pl.Commitment != (crowd.Hash{}) && p.Spec.Compare.Strict(): // else unpaid: its lie could not be fetched
				bad("job %s: node %d committed to %s and got away with silence", p.ID.Short(), n.index, lie)
			}
		}
		w.checkDelivered(p, bad)
	}
	return errors.Join(errs...)
}

// checkReveal is called when the node's machine wants an opening on chain: from then on everybody can read it.
func (n *Node) checkReveal(m *ledger.Reveal) {
	if j, ok := n.w.state.Job(m.Job); ok && j.State == ledger.Running {
		n.w.broken(fmt.Errorf("job %s is running, and node %d opens what it committed to", m.Job.Short(), n.index))
	}
}

// checkDelivered: the owner of what is settled has it, where somebody honest could serve it.
func (w *World) checkDelivered(p *Posted, bad func(string, ...any)) {
	j := &p.Last
	served := false
	for i := range j.Places {
		pl := &j.Places[i]
		n := w.byID[pl.Node]
		served = served || pl.State == ledger.Revealed && !pl.Verifier && n.Honest() && n.alive
	}
	if j.State == ledger.Settled && served && p.Owner.Honest() && p.Owner.alive && !p.Owner.Has(job.Delivered(&j.Spec, &j.Verdict.Outcome)) {
		bad("job %s is settled, its owner has no result", p.ID.Short())
	}
}
