package verify

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/bits"

	"github.com/crowdcompute/crowd"
)

// FloorPPM is the least probability with which any piece of work is re-executed,
// whoever did it: DESIGN section 8 (5 %).
const FloorPPM = crowd.AuditFloor

// Stakes is what a cheater has to win and to lose by one piece of work, in micro-credits.
type Stakes struct {
	Gain   crowd.Credits // work spared and whatever others pay for the lie; kept in any case
	Reward crowd.Credits // R: the pay, lost when caught
	Stake  crowd.Credits // S: slashed when caught, as far as it is not at risk elsewhere at the same time
	Value  crowd.Credits // V: of the identity: what its reputation would earn; 0 is the careful guess
}

// atRisk is R+S+V, of any size.
func (s Stakes) atRisk() *big.Int {
	sum := credits(s.Reward)
	return sum.Add(sum, credits(s.Stake)).Add(sum, credits(s.Value))
}

func credits(c crowd.Credits) *big.Int { return new(big.Int).SetUint64(uint64(c)) }

// Profit is what cheating is expected to bring above working honestly, when it
// is caught with probability ppm/1e6: gain - p·(R+S+V), micro-credits, rounded
// up and cut to an int64. Honest work brings R-C; cheating brings gain-C, and R
// unless caught, when it costs S+V.
func (s Stakes) Profit(ppm uint32) int64 {
	lost := s.atRisk()
	lost.Mul(lost, big.NewInt(int64(min(ppm, Million)))).Div(lost, big.NewInt(Million))
	profit := credits(s.Gain)
	profit.Sub(profit, lost)
	switch {
	case profit.IsInt64():
		return profit.Int64()
	case profit.Sign() < 0:
		return math.MinInt64
	}
	return math.MaxInt64
}

// Loses reports whether cheating loses: p·(R+S+V) > gain, exactly, for a
// probability of being caught of p.
func (s Stakes) Loses(caught Chance) bool {
	lost := s.atRisk()
	lost.Mul(lost, credits(crowd.Credits(min(caught, Certain))))
	gain := credits(s.Gain)
	return lost.Cmp(gain.Mul(gain, credits(crowd.Credits(Certain)))) > 0
}

// ErrNoAudit: no probability of an audit makes cheating lose, as it wins more than there is to lose.
var ErrNoAudit = errors.New("cheating wins more than the cheater can lose")

// LeastAudit is the least probability of a re-execution, in parts per million,
// that makes cheating lose, and at least FloorPPM. An honest re-execution always
// finds the lie; colluding is the share of those that are not honest.
func (s Stakes) LeastAudit(colludingPPM uint32) (uint32, error) {
	honest := FromPPM(colludingPPM).Not()
	ppm := least(Million, func(p uint64) bool { return p > 0 && s.Loses(floorAnd(FromPPM(uint32(p)), honest)) })
	if !s.Loses(floorAnd(FromPPM(uint32(ppm)), honest)) {
		return 0, fmt.Errorf("gain of %s against pay of %s, stake of %s and value of %s: %w", s.Gain, s.Reward, s.Stake, s.Value, ErrNoAudit)
	}
	return max(uint32(ppm), FloorPPM), nil
}

// LeastStake is the least stake with which cheating loses when it is caught with
// that probability; s.Stake is not looked at. ErrNoAudit: no stake that can be
// counted is enough, or nothing is ever caught.
func (s Stakes) LeastStake(caught Chance) (crowd.Credits, error) {
	if caught == 0 {
		return 0, fmt.Errorf("nothing is ever caught: %w", ErrNoAudit)
	}
	need := credits(s.Gain)
	need.Mul(need, credits(crowd.Credits(Certain))).Div(need, credits(crowd.Credits(min(caught, Certain))))
	need.Add(need, big.NewInt(1)) // more than, not as much as
	s.Stake = 0
	need.Sub(need, s.atRisk())
	if need.Sign() <= 0 {
		return 0, nil
	}
	if !need.IsUint64() {
		return 0, fmt.Errorf("gain of %s caught with %s: a stake of %s micro-credits: %w", s.Gain, caught, need, ErrNoAudit)
	}
	return crowd.Credits(need.Uint64()), nil
}

// floorAnd is Chance.And rounded down: for a chance of being caught that is the careful side.
func floorAnd(c, d Chance) Chance {
	hi, lo := bits.Mul64(uint64(c), uint64(d))
	q, _ := bits.Div64(hi, lo, uint64(Certain))
	return Chance(q)
}

// mulDivUp is ⌈a·b/c⌉, false where it does not fit 64 bits. c must not be 0.
func mulDivUp(a, b, c uint64) (uint64, bool) {
	hi, lo := bits.Mul64(a, b)
	lo, carry := bits.Add64(lo, c-1, 0)
	if hi += carry; hi >= c {
		return ^uint64(0), false
	}
	q, _ := bits.Div64(hi, lo, c)
	return q, true
}

// mulDivDown is ⌊a·b/c⌋, false where it does not fit 64 bits or c is 0.
func mulDivDown(a, b, c uint64) (uint64, bool) {
	hi, lo := bits.Mul64(a, b)
	if hi >= c {
		return ^uint64(0), false
	}
	q, _ := bits.Div64(hi, lo, c)
	return q, true
}
