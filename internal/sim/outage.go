package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Outages are how desktop machines come and go whose owners use them: each is away
// for a share of the time, all independent of each other. It is the world in which
// MOON was measured (Lin, Ma, Archuleta, Feng, Gardner, Zhang, "MOON: MapReduce On
// Opportunistic eNvironments", HPDC 2010): the lengths of outages are
// normal with a mean of 409 s, which is that of the Entropia trace (Kondo et al.,
// IPDPS 2004), and they begin at random (Poisson), so often that the share is met.
// The paper gives no deviation; a quarter of the mean is ours. Churn is what
// strangers do, whose times have longer tails.
type Outages struct {
	Share float64       // of the time that a node is away, 0 to 0.9
	Mean  time.Duration // of one outage; zero: 409 s
	Dev   time.Duration // its standard deviation; zero: a quarter of Mean
}

const moonOutage = 409 * time.Second

// shortest outage: what a normal distribution puts below it is drawn again.
const shortestOutage = time.Second

func (o Outages) withDefaults() Outages {
	if o.Mean == 0 {
		o.Mean = moonOutage
	}
	if o.Dev == 0 {
		o.Dev = o.Mean / 4
	}
	return o
}

// Validate says what is wrong with o.
func (o Outages) Validate() error {
	o = o.withDefaults()
	if !(o.Share >= 0 && o.Share <= 0.9) {
		return fmt.Errorf("away for a share of %v of the time: want 0 to 0.9", o.Share)
	}
	if o.Mean < 10*time.Second || o.Mean > forever || o.Dev < 0 || o.Dev > o.Mean/3 { // so that hardly anything is drawn again, and the mean is the mean
		return fmt.Errorf("outages of %v, deviation %v: want 10s at least, and a third of it at most", o.Mean, o.Dev)
	}
	return nil
}

// Outage is how long a node stays away that leaves now.
func (o Outages) Outage(r *rand.Rand) time.Duration {
	o = o.withDefaults()
	for {
		if d := o.Mean + time.Duration(r.NormFloat64()*float64(o.Dev)); d >= shortestOutage {
			return d
		}
	}
}

// Session is how long a node stays that comes now.
func (o Outages) Session(r *rand.Rand) time.Duration {
	if o.Share <= 0 {
		return forever
	}
	o = o.withDefaults()
	return time.Duration(min(r.ExpFloat64()*float64(o.Mean)*(1-o.Share)/o.Share, float64(forever)))
}

// Start is a node in a world that has been going on for ever: whether it is up, and
// how long that lasts from now. An exponential session has no past; a moment finds
// the long outages more often than the short ones, and each anywhere in its middle.
func (o Outages) Start(r *rand.Rand) (up bool, left time.Duration) {
	if r.Float64() >= o.Share {
		return true, o.Session(r)
	}
	most := 2 * o.withDefaults().Mean // a longer one is four deviations away at least
	for {
		if d := o.Outage(r); r.Float64()*float64(most) < float64(d) {
			return false, time.Duration(r.Float64() * float64(d))
		}
	}
}
