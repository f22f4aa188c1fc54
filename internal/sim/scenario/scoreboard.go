package scenario

import (
	"math"

	"github.com/crowdcompute/crowd/internal/verify"
)

// Share is a measured share, with the interval that holds the true one with 95 %: Wilson 1927.
type Share struct {
	Of   int     `json:"of"`
	Seen int     `json:"seen"`
	Rate float64 `json:"rate"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

func share(seen, of int) Share {
	s := Share{Of: of, Seen: seen, High: 1}
	if of == 0 {
		return s
	}
	const z = 1.959964 // of 95 %
	n, p := float64(of), float64(seen)/float64(of)
	mid, half := p+z*z/(2*n), z*math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	s.Rate, s.Low, s.High = p, (mid-half)/(1+z*z/n), (mid+half)/(1+z*z/n)
	if seen == 0 {
		s.Low = 0 // exactly, which the root's rounding misses
	}
	if seen == of {
		s.High = 1
	}
	return s
}

// Score is what a Market promised, and what was seen in it. Money is in credits.
type Score struct {
	Config MarketConfig `json:"config"`
	Jobs   int          `json:"jobs"` // played

	Guarantee float64 `json:"guarantee"` // stated chance that an executor that lies so escapes: verify.Scheme.Undetected
	Colluding float64 `json:"colluding"` // share of verifiers that this reckons to stand by it
	Caught    Share   `json:"caught"`    // of the batches whose executor lied, those in which it lost its stake
	Accepted  Share   `json:"accepted"`  // of the same, those that were settled all the same
	Wrong     Share   `json:"wrong"`     // of all batches, those that were settled with a lie
	Stated    float64 `json:"stated"`    // the chance of that, by the same formulas

	HonestSlashes int     `json:"honest_slashes"`
	HonestLoss    float64 `json:"honest_loss"` // mean that an honest node loses for each seat, in work of batches that others made fail
	Failed        Share   `json:"failed"`      // of all batches, those that came to no result and were refunded

	Overhead float64 `json:"overhead"` // gas of checks and of the court, per gas of executors
	Acted    int     `json:"acted"`    // batches in which somebody broke the protocol
	Profit   float64 `json:"profit"`   // mean of those who did, in each of these, work and fees paid, slashed stakes taken off
	Honest   float64 `json:"honest"`   // what honest nodes would have gained in the same seats
	Gain     float64 `json:"gain"`     // Profit - Honest: what the strategy is worth

	Damage float64 `json:"damage"` // to others in each of these batches: credits, and work at its price that nobody paid
	Paid   float64 `json:"paid"`   // by those who broke the protocol: credits, stakes, and their own work at its price
	Ratio  float64 `json:"ratio"`  // Damage / Paid, at most MostRatio
}

// ratio of a damage to what was paid for it.
func ratio(damage, paid float64) float64 {
	switch {
	case damage <= 0:
		return 0
	case paid > damage/MostRatio:
		return damage / paid
	}
	return MostRatio
}

// Score is what is known after the batches played so far.
func (m *Market) Score() Score {
	t := &m.sum
	const credit = 1e6
	per := func(sum int64, n int) float64 {
		if n == 0 {
			return 0
		}
		return float64(sum) / credit / float64(n)
	}
	s := Score{
		Config: m.MarketConfig, Jobs: m.Done,
		Caught: share(t.caught, t.lies), Accepted: share(t.accepted, t.lies), Wrong: share(t.accepted, m.Done), Failed: share(t.failed, m.Done),
		HonestSlashes: t.honestCaught, HonestLoss: per(t.honestLost, int(t.honestPlaced)),
		Acted: t.acted, Profit: per(t.profit, t.acted), Honest: per(t.honest, t.acted),
	}
	s.Gain = s.Profit - s.Honest
	s.Damage, s.Paid = per(t.damage, t.acted), per(t.paid, t.acted)
	s.Ratio = ratio(s.Damage, s.Paid)
	if t.useful > 0 {
		s.Overhead = float64(t.checks) / float64(t.useful)
	}
	colluding := uint32(0)
	switch {
	case m.how.choosy || m.how.wash:
		colluding = verify.Million // it does not try where one is not
	case m.how.ring:
		colluding = uint32(m.Byzantine*verify.Million + 0.5)
	}
	s.Colluding = float64(colluding) / verify.Million
	bad := max(1, verify.BadItems(uint64(m.Items), uint32(m.Rate*verify.Million+0.5)))
	s.Guarantee = verify.Scheme{
		Items: uint64(m.Items), Checks: uint64(m.Checks), Verifiers: m.Verifiers, CheckPPM: verify.Million, ColludingPPM: colluding,
	}.Undetected(bad).Float()
	executor := m.Byzantine
	switch {
	case m.how.wash:
		executor = 1
	case m.how.choosy: // and each of its verifiers is one too
		executor *= verify.Colluding(uint32(m.Byzantine*verify.Million+0.5), m.Verifiers).Float()
	case !m.how.lies:
		executor = 0
	case m.how.every > 0:
		executor /= float64(m.how.every)
	}
	s.Stated = executor * s.Guarantee
	return s
}
