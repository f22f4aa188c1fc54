package verify

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Chance is a probability in parts per 10^12. Whatever computes one rounds up and
// uses integers only, so that a stated chance of escaping is never too small and
// is the same number on every machine: receipts are recomputed.
type Chance uint64

// Certain is the probability 1.
const Certain Chance = 1_000_000_000_000

// Million is the whole where a share is in parts per million.
const Million = 1_000_000

// FromPPM is a share in parts per million as a Chance, exactly. ppm is cut to 1e6.
func FromPPM(ppm uint32) Chance { return Chance(min(ppm, Million)) * Million }

// Allowed is 1-confidence: the largest chance of escaping that a consumer accepts
// who wants to be so sure. confidence is from 0 up to, and not including, 1; it is
// rounded to 10^-12, and what that leaves nothing of is refused.
func Allowed(confidence float64) (Chance, error) {
	if !(confidence >= 0 && confidence < 1) {
		return 0, fmt.Errorf("confidence %v: want 0 up to, and not including, 1", confidence)
	}
	c := Chance(math.Round((1 - confidence) * float64(Certain)))
	if c == 0 {
		return 0, fmt.Errorf("confidence %v: chances are counted in parts of 10^12", confidence)
	}
	return min(c, Certain), nil
}

// And is the probability that two independent things of these chances both
// happen, rounded up.
func (c Chance) And(d Chance) Chance {
	hi, lo := bits.Mul64(uint64(min(c, Certain)), uint64(min(d, Certain)))
	return Chance(divUp(hi, lo, uint64(Certain)))
}

// Pow is the probability that n independent things of chance c all happen, rounded up.
func (c Chance) Pow(n uint32) Chance {
	p := Certain
	for range n {
		if p = p.And(c); p <= 1 { // rounded up, it stays there
			break
		}
	}
	return p
}

// Not is 1-c, exactly.
func (c Chance) Not() Chance { return Certain - min(c, Certain) }

// Times is the union bound over n things of chance c, at most 1.
func (c Chance) Times(n uint64) Chance {
	if hi, lo := bits.Mul64(uint64(c), n); hi == 0 && lo < uint64(Certain) {
		return Chance(lo)
	}
	return Certain
}

// Float is c between 0 and 1, for people and statistics; not for the chain.
func (c Chance) Float() float64 { return float64(c) / float64(Certain) }

// String is how rare c is, and the confidence it leaves, cut and not rounded up:
// "1 in 4.2e6 (0.99999976)".
func (c Chance) String() string {
	switch {
	case c == 0:
		return "never (1)"
	case c >= Certain:
		return "always (0)"
	}
	digits, cut := 3, Certain/1000
	for x := c; x < Certain/10 && digits < 12; x *= 10 {
		digits, cut = digits+1, cut/10
	}
	sure := strings.TrimRight(fmt.Sprintf("%.*f", digits, (c.Not()/cut*cut).Float()), "0")
	rare := strings.Replace(fmt.Sprintf("%.3g", Certain.Float()/c.Float()), "e+0", "e", 1)
	return fmt.Sprintf("1 in %s (%s)", strings.Replace(rare, "e+", "e", 1), strings.TrimRight(sure, "."))
}

// fraction is a probability as a multiple of 2^-63, rounded up by all that makes
// one. n products are at most n·2^-63 too large: 10^-14 for a hundred thousand.
type fraction uint64

const one fraction = 1 << 63

// times is ⌈x·num/den⌉. num must not be more than den, which must not be 0.
// It is monotone in x and num and never above x.
func (x fraction) times(num, den uint64) fraction {
	hi, lo := bits.Mul64(uint64(x), num)
	return fraction(divUp(hi, lo, den))
}

// pow is x^n, each product rounded up; never above x for n > 0.
func (x fraction) pow(n uint64) fraction {
	p := one
	for ; n > 0 && p > 1; n >>= 1 {
		if n&1 == 1 {
			p = p.times(uint64(x), uint64(one))
		}
		x = x.times(uint64(x), uint64(one))
	}
	return p
}

// chance is x in parts per 10^12, rounded up.
func (x fraction) chance() Chance {
	hi, lo := bits.Mul64(uint64(x), uint64(Certain))
	return Chance(divUp(hi, lo, uint64(one)))
}

// divUp is ⌈(hi·2^64+lo)/den⌉, which must fit 64 bits.
func divUp(hi, lo, den uint64) uint64 {
	lo, carry := bits.Add64(lo, den-1, 0)
	q, _ := bits.Div64(hi+carry, lo, den)
	return q
}
