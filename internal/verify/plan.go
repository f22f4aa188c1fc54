// Package verify turns a wished confidence into a plan with its probability, says
// when two outputs are the same answer, and turns a finished job into a receipt
// that anybody can check without a network. It runs no program, reads no file and
// talks to nobody; how a header is signed and an app's comparator are handed in.
package verify

import (
	"fmt"
	"math"

	"github.com/crowdcompute/crowd"
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
	Executors  int     `json:"executors"`  // runs of the task
	Verifiers  int     `json:"verifiers,omitempty"`
	Compare    string  `json:"compare,omitempty"` // crowd.Compare's text: when two outputs are the same answer
}

// PairUndetected is the probability that a wrong result passes the plan "pair":
// both drawn executors must be of the colluding ring, since one that is not
// answers otherwise, and then the court re-executes. colluding is a share of all
// tickets; drawing without replacement makes the truth a little smaller.
func PairUndetected(colluding float64) float64 { return colluding * colluding }

// SampleUndetected is the probability that an executor escapes that gets 10 % of a batch's items wrong
// when 10 % of the weight stands by it: what crowd.Plan states of the plan "sample".
func SampleUndetected(items, verifiers, checks uint32) Chance {
	const share = Million * DefaultColluding
	s := Scheme{Items: uint64(items), Checks: uint64(checks), Verifiers: verifiers, CheckPPM: Million, ColludingPPM: share}
	return s.Undetected(BadItems(uint64(items), defaultCheatPPM))
}

// For is the cheapest plan that reaches confidence (0 to 1) when at most a share
// colluding of the weight is bad.
func For(confidence, colluding float64) (Plan, error) {
	if !(confidence >= 0 && confidence < 1) {
		return Plan{}, fmt.Errorf("confidence %v: want 0 up to, and not including, 1", confidence)
	}
	if !(colluding >= 0 && colluding <= 1) {
		return Plan{}, fmt.Errorf("colluding share %v: want 0 to 1", colluding)
	}
	p := Plan{Method: crowd.PlanPair, Colluding: colluding, Undetected: PairUndetected(colluding), Executors: 2}
	const rounding = 1e-12
	if p.Undetected > 1-confidence+rounding {
		return Plan{}, fmt.Errorf("confidence %v: a pair leaves a wrong result undetected with probability %.3g when %.3g %% of the weight colludes, so it reaches %.6g; larger committees are not built yet",
			confidence, p.Undetected, 100*colluding, 1-p.Undetected)
	}
	return p, nil
}

// PairColluding is the largest colluding share at which a pair still reaches confidence.
func PairColluding(confidence float64) float64 { return math.Sqrt(1 - confidence) }
