package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// Latency says how long a datagram is under way between two nodes: a share that
// belongs to the pair, the same in both directions and for ever, and a share that
// each datagram draws. It keeps nothing per pair: the pair's share is looked up in
// a table of quantiles at the place that a hash of the pair gives.
//
// So pairs are independent of each other: there is no map behind them, the
// triangle inequality holds only by chance, and nobody has near neighbours in
// common with his neighbours. The price: what lives by proximity (choosing close
// neighbours, network coordinates, relays near both ends) cannot be judged in
// such a world, and one-hop detours help more often than on the Internet. Times of
// lookups that choose their hops by ID alone are right in distribution.
//
// The zero value takes no time.
type Latency struct {
	// Jitter is the mean of a datagram's own share, in parts of the pair's share.
	// It is drawn from an exponential distribution and cut off at the pair's share,
	// so datagrams overtake each other. It is chosen, not measured.
	Jitter float64

	name  string
	seed  uint64
	table []uint32 // one way, nanoseconds, at even steps of probability from 0 to 1
}

// defaultJitter: most datagrams of a pair come within a tenth of each other.
const defaultJitter = 0.05

// published is what a paper says of the round-trip times it measured.
type published struct {
	median, max float64 // milliseconds, round trip
	// sigma is the standard deviation of the logarithm. It is not published: it is
	// our guess at the width of a log-normal distribution, which is then cut so that
	// its median and its maximum are the published ones.
	sigma float64
}

// King: round-trip times between 1740 DNS servers, measured with the method of
// Gummadi, Saroiu and Gribble (IMW 2002) for Dabek, Cox, Kaashoek and Morris,
// "Vivaldi", SIGCOMM 2004: median 159 ms, maximum about 800 ms.
func king() published { return published{median: 159, max: 800, sigma: 0.5} }

// PlanetLab: round-trip times between 192 hosts, Vivaldi, SIGCOMM 2004: median 76 ms, maximum 795 ms.
func planetLab() published { return published{median: 76, max: 795, sigma: 0.7} }

// lanTrip is the round trip on one switch, and the same for all pairs.
const lanTrip = 200 * time.Microsecond

// Latencies are the names that NewLatency knows, for a flag's help.
func Latencies() []string { return []string{"king", "planetlab", "lan", "fixed:DURATION"} }

// NewLatency is the model of a name: king, planetlab (round trips as published,
// see there), lan (0.2 ms round trip), or fixed:DURATION (one way, no jitter). One
// seed is one set of pairs.
func NewLatency(name string, seed uint64) (Latency, error) {
	l := Latency{name: name, seed: seed, Jitter: defaultJitter}
	switch {
	case name == "king":
		l.table = king().table()
	case name == "planetlab":
		l.table = planetLab().table()
	case name == "lan":
		l.table = always(lanTrip / 2)
	case strings.HasPrefix(name, "fixed:"):
		d, err := time.ParseDuration(name[len("fixed:"):])
		if err != nil || d < 0 || d > math.MaxUint32 {
			return Latency{}, fmt.Errorf("latency %q: want fixed: and a time from 0 to 4s", name)
		}
		l.table, l.Jitter = always(d), 0
	default:
		return Latency{}, fmt.Errorf("latency %q: want one of %s", name, strings.Join(Latencies(), ", "))
	}
	return l, nil
}

// String is the model's name.
func (l Latency) String() string { return l.name }

// Base is the pair's share, one way: a pure function of the pair, the seed and the model. To itself a node is near.
func (l Latency) Base(a, b uint32) time.Duration {
	if a == b || len(l.table) == 0 {
		return 0
	}
	h := Mix(l.seed, uint64(min(a, b))<<32|uint64(max(a, b)))
	// The upper half of h times the number of steps is a fixed-point number: step and place in the step.
	p := h >> 32 * uint64(len(l.table)-1)
	lo, hi := uint64(l.table[p>>32]), uint64(l.table[p>>32+1])
	return time.Duration(lo + (hi-lo)*(p&math.MaxUint32)>>32)
}

// Delay is how long one datagram takes.
func (l Latency) Delay(from, to uint32, r *rand.Rand) time.Duration {
	d := l.Base(from, to)
	if l.Jitter <= 0 || d == 0 {
		return d
	}
	return d + min(d, time.Duration(float64(d)*l.Jitter*r.ExpFloat64()))
}

func always(d time.Duration) []uint32 { return []uint32{uint32(d), uint32(d)} }

// table is the quantile function in 1024 steps, rounded to microseconds so that
// the last bits of floating-point functions, which machines differ in, do not matter.
func (p published) table() []uint32 {
	const steps = 1024
	// Above the median the distribution is cut at the maximum: its upper half is spread over what is left.
	top := math.Erf(math.Log(p.max/p.median) / p.sigma / math.Sqrt2)
	t := make([]uint32, steps+1)
	for i := range t {
		// Twice the distance from the median; never quite -1, where nobody is any distance away.
		u := max(2*float64(i)/steps-1, 1.0/steps-1)
		if u > 0 {
			u *= top
		}
		trip := p.median * math.Exp(p.sigma*math.Sqrt2*math.Erfinv(u))
		t[i] = uint32(math.Round(trip*1000/2)) * 1000
	}
	return t
}
