package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Churn is how nodes come and go: times up and times away by turns, all
// independent draws from Weibull distributions. The zero value never leaves.
//
// The shape is from Stutzbach and Rejaie, "Understanding Churn in Peer-to-Peer
// Networks", IMC 2006: sessions in Gnutella, Kad and BitTorrent are not
// exponential; many are very short and a few very long. The paper also finds that
// one node's sessions resemble each other, and that the day has an hour of least
// nodes. Neither is in here.
type Churn struct {
	Up    time.Duration // mean time that a node is there; zero: always
	Down  time.Duration // mean time that it is away; zero: it is back at once
	Shape float64       // k; zero: 0.5. 1 is exponential: a node has no past
}

// defaultShape: DESIGN section 17.
const defaultShape = 0.5

// forever keeps a draw from the far tail within what Time can hold.
const forever = 100 * 365 * 24 * time.Hour

// Validate says all that is wrong with c.
func (c Churn) Validate() error {
	var errs []error
	if c.Shape != 0 && !(c.Shape >= 0.1 && c.Shape <= 10) {
		errs = append(errs, fmt.Errorf("shape %v: want 0.1 to 10", c.Shape))
	}
	if c.Up < 0 || c.Down < 0 || c.Up > forever || c.Down > forever {
		errs = append(errs, fmt.Errorf("mean times %v up and %v down: want 0 to %v", c.Up, c.Down, forever))
	}
	if c.Up == 0 && c.Down > 0 {
		errs = append(errs, errors.New("a mean time down without one up"))
	}
	return errors.Join(errs...)
}

func (c Churn) shape() float64 {
	if c.Shape > 0 {
		return c.Shape
	}
	return defaultShape
}

// Session is how long a node stays that comes now.
func (c Churn) Session(r *rand.Rand) time.Duration {
	if c.Up <= 0 {
		return forever
	}
	return c.draw(c.Up, r)
}

// Offline is how long a node stays away that leaves now.
func (c Churn) Offline(r *rand.Rand) time.Duration {
	if c.Down <= 0 {
		return 0
	}
	return c.draw(c.Down, r)
}

// Start is a node in a world that has been going on for ever: whether it is up,
// and how long that lasts from now. The time left is not a fresh Session: whoever
// looks at a moment finds the long sessions more often than the short ones, and
// each somewhere in its middle. With shape 0.5 the mean time left is three times
// a session's mean. A world begun with fresh sessions loses too many nodes at first.
func (c Churn) Start(r *rand.Rand) (up bool, left time.Duration) {
	if c.Up <= 0 {
		return true, forever
	}
	if r.Float64()*float64(c.Up+max(c.Down, 0)) < float64(c.Up) {
		return true, c.residual(c.Up, r)
	}
	return false, c.residual(c.Down, r)
}

// draw is a Weibull variable: a power of an exponential one.
func (c Churn) draw(mean time.Duration, r *rand.Rand) time.Duration {
	return c.life(mean, r.ExpFloat64())
}

// life is the length whose cumulated hazard is h: if h is exponential it is
// Weibull with shape k, and of the given mean.
func (c Churn) life(mean time.Duration, h float64) time.Duration {
	k := c.shape()
	scale := float64(mean) / math.Gamma(1+1/k)
	return time.Duration(min(scale*math.Pow(h, 1/k), float64(forever)))
}

// residual is the time left of the life that covers a moment (the equilibrium
// distribution of renewal theory, Cox 1962). That life's length has density
// x f(x) / mean; put as hazard h = (x/scale)^k this is a gamma density with
// parameter 1+1/k. The moment lies anywhere in it.
func (c Churn) residual(mean time.Duration, r *rand.Rand) time.Duration {
	return time.Duration(float64(c.life(mean, gamma(1+1/c.shape(), r))) * r.Float64())
}

// gamma draws from the gamma distribution of shape a >= 1 and scale 1: Marsaglia
// and Tsang, ACM TOMS 2000.
func gamma(a float64, r *rand.Rand) float64 {
	d := a - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(1-r.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}
