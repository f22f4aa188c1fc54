package verify

import (
	"fmt"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// A receipt of a tolerant job proves who was bound to what, and what more than 2/3 of the authorities
// found when they held it against their own runs. Outputs are not in it, so it does not prove by itself
// that two of them are near each other: whoever has them and the comparator can look.

// checkFindings looks that everybody who stands before the court was found to be right, and who was convicted was not.
func checkFindings(g *ledger.Genesis, j *ledger.Job) error {
	n := len(g.Authorities)
	type said struct {
		authority, about crowd.NodeID
		item             uint32
	}
	heard := map[said]bool{}
	for i := range j.Ballots {
		b := &j.Ballots[i]
		if b.Question != ledger.SameAnswer {
			continue
		}
		s := said{b.Authority, b.Executor, b.Item}
		if heard[s] {
			return fmt.Errorf("%s has voted twice", b.Authority.Short())
		}
		heard[s] = true
		known := false
		for _, a := range g.Authorities {
			known = known || a.ID == b.Authority
		}
		if !known {
			return fmt.Errorf("%s has voted and is no authority", b.Authority.Short())
		}
	}
	for _, p := range j.Judged() {
		if f := j.Found(p.Node, n); f != ledger.Same {
			return fmt.Errorf("%s stands, and more than 2/3 of the authorities did not find its answer within %s of theirs", p.Node.Short(), j.Spec.Compare)
		}
	}
	return nil
}

// checkWithin recomputes why a single tolerant task's outcome stands.
func checkWithin(g *ledger.Genesis, j *ledger.Job) (string, error) {
	if err := checkFindings(g, j); err != nil {
		return "", err
	}
	judged := j.Judged()
	var best *crowd.Outcome
	for _, p := range judged {
		if o := &p.Opening.Outcome; best == nil || o.Gas < best.Gas {
			best = o
		}
	}
	if best == nil || *best != j.Verdict.Outcome {
		return "", fmt.Errorf("the outcome is not that of the least gas among those that stand")
	}
	return fmt.Sprintf("more than 2/3 of %d authorities re-executed the task and found %d executors within %s of their own output", len(g.Authorities), len(judged), j.Spec.Compare), nil
}
