// Package verify turns a wished confidence into a plan with its probability, says
// when two outputs are the same answer, and turns a finished job into a receipt
// that anybody can check without a network. It runs no program, reads no file and
// talks to nobody; how a header is signed and an app's comparator are handed in.
package verify

import (
	"fmt"
	"math"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// DefaultColluding is the share of drawn weight that is assumed to be bad and to
// act as one, where a plan states its probability. It is a plan's assumption,
// printed with it, and never measured by it.
const DefaultColluding = 0.1

// Plan is a way of checking with the number on it.
type Plan struct {
	Method     string  `json:"method"`
	Colluding  float64 `json:"colluding"`  // assumed bad share of weight, acting as one, 0 to 1
	Undetected float64 `json:"undetected"` // probability that a wrong result is accepted
	Executors  int     `json:"executors"`  // runs of the task; of an audit that is not chosen, all there are
	Verifiers  int     `json:"verifiers,omitempty"`
	RatePPM    uint32  `json:"rate_ppm,omitempty"` // of an audit: least probability that it is chosen
	Replaced   int     `json:"replacements"`       // most places that are given anew; Undetected reckons with them
	Compare    string  `json:"compare,omitempty"`  // crowd.Compare's text: when two outputs are the same answer
}

// Spec is p as a job states it. Only for plans of a single task.
func (p *Plan) Spec() crowd.Plan {
	s := crowd.Plan{Method: p.Method, Rate: p.RatePPM, Replacements: uint32(p.Replaced)}
	if p.Method == crowd.PlanCommittee {
		s.Executors = uint32(p.Executors)
	}
	return s
}

// SampleUndetected is the probability that an executor escapes that gets 10 % of a batch's items wrong
// when 10 % of the weight stands by it: what crowd.Plan states of the plan "sample".
func SampleUndetected(items uint32, p *crowd.Plan) Chance {
	return sampleUndetected(items, p, defaultColluding)
}

func sampleUndetected(items uint32, p *crowd.Plan, colludingPPM uint32) Chance {
	s := Scheme{Items: uint64(items), Checks: uint64(p.Checks), Verifiers: p.Verifiers, Replacements: p.Replacements, CheckPPM: Million, ColludingPPM: colludingPPM}
	return s.Undetected(BadItems(uint64(items), defaultCheatPPM))
}

// defaultColluding is DefaultColluding in parts per million.
const defaultColluding = Million * DefaultColluding

// Accepted is the probability, rounded up, that a wrong result of a single task is accepted under
// p when a share of colludingPPM of all tickets is bad, lies whenever it is drawn and acts as one:
// every executor must be of it, and an audit not chosen or done by another of it. The job's author is of the ring too, and has as many
// honest nodes replaced as the plan allows: Steered. Drawing without
// replacement makes the truth a little smaller. Of an audit it is the smaller half of the matter:
// an executor that lies so loses its stake, as ledger.AuditRate sees to.
func Accepted(p *crowd.Plan, colludingPPM uint32) Chance {
	n, _ := ledger.Seats(p)
	all := Steered(colludingPPM, uint32(n), p.Replacements, 0)
	if p.Method == crowd.PlanAudit {
		return all.And(Scheme{Items: 1, AuditPPM: p.Rate, ColludingPPM: colludingPPM}.Undetected(1))
	}
	return all
}

// Stated is what a job's plan amounts to under the default assumption.
func Stated(p *crowd.Plan) Plan {
	executors, verifiers := ledger.Seats(p)
	c := Accepted(p, defaultColluding)
	if p.Method == crowd.PlanSample {
		c = Chance(p.Undetected)
	}
	return Plan{Method: p.Method, Colluding: DefaultColluding, Undetected: c.Float(), Executors: executors, Verifiers: verifiers, RatePPM: p.Rate, Replaced: int(p.Replacements)}
}

// mostAudited is the rate from which on a pair is preferred: it costs little more than an audit so frequent, and no wait for the lot.
const mostAudited = Million / 2

// For is the cheapest plan for a single task that reaches confidence (0 to 1) when at most a share
// colluding of the weight is bad: an audit as frequent as it must be, a pair, or a committee.
func For(confidence, colluding float64) (Plan, error) {
	allowed, err := Allowed(confidence)
	if err != nil {
		return Plan{}, err
	}
	if !(colluding >= 0 && colluding <= 1) {
		return Plan{}, fmt.Errorf("colluding share %v: want 0 to 1", colluding)
	}
	share := uint32(math.Round(colluding * Million))
	p := crowd.Plan{Method: crowd.PlanAudit}
	p.Replacements = p.DefaultReplacements()
	rate := least(mostAudited+1, func(ppm uint64) bool {
		p.Rate = uint32(ppm)
		return ppm >= crowd.AuditFloor && Accepted(&p, share) <= allowed
	})
	if p.Rate = uint32(rate); rate > mostAudited {
		p = crowd.Plan{Method: crowd.PlanPair}
	}
	if Accepted(&p, share) > allowed {
		n, ok := LeastCommittee(share, allowed, crowd.MaxCommittee)
		if !ok {
			best := Colluding(share, crowd.MaxCommittee)
			return Plan{}, fmt.Errorf("confidence %v: a committee of %d leaves a wrong result undetected with a chance of %s when %.3g %% of the weight colludes, and there is none larger",
				confidence, crowd.MaxCommittee, best, 100*colluding)
		}
		p = crowd.Plan{Method: crowd.PlanCommittee, Executors: n}
	}
	out := Stated(&p)
	out.Colluding, out.Undetected = colluding, Accepted(&p, share).Float()
	return out, nil
}

// Most is the plan for a single task of highest confidence that so many nodes let be had.
// False: they are too few for any.
func Most(nodes int) (Plan, bool) {
	switch {
	case nodes < 2:
		return Plan{}, false
	case nodes == 2:
		return Stated(&crowd.Plan{Method: crowd.PlanPair}), true
	}
	return Stated(&crowd.Plan{Method: crowd.PlanCommittee, Executors: uint32(min(nodes, crowd.MaxCommittee))}), true
}
