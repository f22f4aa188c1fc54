package sim

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// apart is the largest distance between two empirical distributions (Kolmogorov and
// Smirnov), in units in which less than 1.95 happens by chance 999 times in 1000.
func apart(a, b []time.Duration) float64 {
	slices.Sort(a)
	slices.Sort(b)
	i, j, most := 0, 0, 0.0
	for i < len(a) && j < len(b) {
		if a[i] <= b[j] {
			i++
		} else {
			j++
		}
		most = max(most, math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	n := float64(len(a)*len(b)) / float64(len(a)+len(b))
	return most * math.Sqrt(n)
}

func TestChurn_StutzbachRejaieWeibull(t *testing.T) {
	const n = 200_000
	for _, tt := range []struct {
		name  string
		churn Churn
		k     float64
	}{
		{"default shape", Churn{Up: time.Hour, Down: 3 * time.Hour}, 0.5},
		{"exponential", Churn{Up: time.Minute, Down: time.Second, Shape: 1}, 1},
		{"longer tail", Churn{Up: time.Hour, Down: time.Hour, Shape: 0.38}, 0.38},
	} {
		r := rand.New(rand.NewPCG(1, 1))
		check := func(what string, mean time.Duration, draw func(*rand.Rand) time.Duration) {
			scale := float64(mean) / math.Gamma(1+1/tt.k)
			longer := [3]int{}
			at := [3]float64{0.1, 1, 3} // multiples of the mean
			for range n {
				d := draw(r)
				for i, m := range at {
					if float64(d) > m*float64(mean) {
						longer[i]++
					}
				}
			}
			for i, m := range at {
				want := math.Exp(-math.Pow(m*float64(mean)/scale, tt.k)) // Weibull's survival function
				if got := float64(longer[i]) / n; math.Abs(got-want) > 5*math.Sqrt(want/n) {
					t.Errorf("%s: %s longer than %.1f means: got %.4f, want %.4f", tt.name, what, m, got, want)
				}
			}
		}
		check("session", tt.churn.Up, tt.churn.Session)
		check("offline", tt.churn.Down, tt.churn.Offline)
	}
}

// What Start draws is what a world looks like that really has been going on.
func TestChurn_StartIsTheWorldAfterALongTime(t *testing.T) {
	for _, c := range []Churn{
		{Up: time.Hour, Down: 2 * time.Hour},
		{Up: time.Hour, Down: 20 * time.Minute, Shape: 1},
		{Up: time.Hour, Down: time.Hour, Shape: 0.7},
	} {
		const nodes = 15_000
		r := rand.New(rand.NewPCG(7, 7))
		var played, drawn [2][]time.Duration // down, up
		for i := range nodes {
			up, left := i%2 == 0, -60*3*time.Hour
			for left < 0 {
				if up = !up; up {
					left += c.Session(r)
				} else {
					left += c.Offline(r)
				}
			}
			at := 0
			if up {
				at = 1
			}
			played[at] = append(played[at], left)
			up, left = c.Start(r)
			at = 0
			if up {
				at = 1
			}
			drawn[at] = append(drawn[at], left)
		}
		share := float64(c.Up) / float64(c.Up+c.Down)
		for what, got := range map[string]int{"played": len(played[1]), "drawn": len(drawn[1])} {
			if math.Abs(float64(got)/nodes-share) > 4*math.Sqrt(share*(1-share)/nodes) {
				t.Errorf("%+v: %s: got %d of %d up, want a share of %.3f", c, what, got, nodes, share)
			}
		}
		for i, state := range []string{"down", "up"} {
			if d := apart(played[i], drawn[i]); d > 1.95 {
				t.Errorf("%+v: time left %s is %.2f apart from a played world", c, state, d)
			}
		}
		if c.Shape != 1 { // the test can tell a fresh draw from the time left, where they differ
			fresh := make([]time.Duration, len(played[1]))
			for i := range fresh {
				fresh[i] = c.Session(r)
			}
			if d := apart(played[1], fresh); d < 5 {
				t.Errorf("%+v: fresh sessions pass for the time left: %.2f", c, d)
			}
		}
	}
}

func TestChurn_Validate(t *testing.T) {
	for _, tt := range []struct {
		name  string
		churn Churn
		ok    bool
	}{
		{"zero", Churn{}, true},
		{"usual", Churn{Up: time.Hour, Down: time.Hour, Shape: 0.38}, true},
		{"shape too small to compute with", Churn{Up: time.Hour, Shape: 0.01}, false},
		{"negative shape", Churn{Up: time.Hour, Shape: -1}, false},
		{"shape that is no number", Churn{Up: time.Hour, Shape: math.NaN()}, false},
		{"negative time", Churn{Up: time.Hour, Down: -1}, false},
		{"away without ever being there", Churn{Down: time.Hour}, false},
	} {
		if err := tt.churn.Validate(); (err == nil) != tt.ok {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

func TestChurn_WithoutIsForEver(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var never Churn
	if up, left := never.Start(r); !up || left != forever || never.Session(r) != forever {
		t.Errorf("got up %t for %v", up, left)
	}
	back := Churn{Up: time.Hour}
	for range 1000 {
		if up, _ := back.Start(r); !up || back.Offline(r) != 0 {
			t.Fatal("got a node away that is never away")
		}
	}
}

func BenchmarkChurn_Session(b *testing.B) {
	c := Churn{Up: time.Hour, Down: time.Hour}
	r := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		c.Session(r)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "draws/s")
}
