package sim

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestOutages_MOON(t *testing.T) {
	const n = 100_000
	for _, share := range []float64{0.1, 0.3, 0.5} {
		o := Outages{Share: share}
		r := rand.New(rand.NewPCG(1, 1))
		up, down, square, long := time.Duration(0), time.Duration(0), 0.0, 0
		for range n {
			d := o.Outage(r)
			up, down = up+o.Session(r), down+d
			square += math.Pow(d.Seconds()-409, 2)
			if d > 511*time.Second { // a deviation above the mean
				long++
			}
		}
		if mean := down.Seconds() / n; math.Abs(mean-409) > 2 {
			t.Errorf("%v: got outages of %.1f s on average, want 409", share, mean)
		}
		if dev := math.Sqrt(square / n); math.Abs(dev-102) > 2 || math.Abs(float64(long)/n-0.159) > 0.005 {
			t.Errorf("%v: got a deviation of %.1f s and %.3f beyond it, want 102 s and 0.159: it is not normal", share, dev, float64(long)/n)
		}
		if got := down.Seconds() / (up + down).Seconds(); math.Abs(got-share) > 0.005 {
			t.Errorf("got away for a share of %.4f, want %.1f", got, share)
		}
	}
}

// What Start draws is what a world looks like that really has been going on.
func TestOutages_StartIsTheWorldAfterALongTime(t *testing.T) {
	const nodes = 15_000
	o := Outages{Share: 0.3}
	r := rand.New(rand.NewPCG(7, 7))
	var played, drawn [2][]time.Duration // down, up
	for i := range nodes {
		up, left := i%2 == 0, -20*time.Hour
		for left < 0 {
			if up = !up; up {
				left += o.Session(r)
			} else {
				left += o.Outage(r)
			}
		}
		add := func(all *[2][]time.Duration, up bool, left time.Duration) {
			if up {
				all[1] = append(all[1], left)
			} else {
				all[0] = append(all[0], left)
			}
		}
		add(&played, up, left)
		up, left = o.Start(r)
		add(&drawn, up, left)
	}
	if a, b := float64(len(played[1]))/nodes, float64(len(drawn[1]))/nodes; math.Abs(a-0.7) > 0.02 || math.Abs(b-0.7) > 0.02 {
		t.Errorf("got %.3f up after a long time and %.3f by Start, want 0.7", a, b)
	}
	for up, what := range []string{"away", "there"} {
		if d := apart(played[up], drawn[up]); d > 1.95 {
			t.Errorf("how long they stay %s: the distributions are %.2f apart", what, d)
		}
	}
}

func TestOutages_Validate(t *testing.T) {
	for _, o := range []Outages{{Share: -0.1}, {Share: 0.95}, {Share: math.NaN()}, {Share: 0.5, Mean: time.Second}, {Share: 0.5, Dev: 5 * time.Minute}, {Share: 0.5, Dev: -1}} {
		if o.Validate() == nil {
			t.Errorf("%+v: got no error", o)
		}
	}
	if err := (Outages{Share: 0.5}).Validate(); err != nil {
		t.Error(err)
	}
}
