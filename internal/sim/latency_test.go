package sim

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func newLatency(t testing.TB, name string, seed uint64) Latency {
	t.Helper()
	l, err := NewLatency(name, seed)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// trips are the round-trip times of all pairs of the first n nodes, least first.
func trips(l Latency, n uint32) []time.Duration {
	var out []time.Duration
	for a := range n {
		for b := range a {
			out = append(out, l.Base(a, b)+l.Base(b, a))
		}
	}
	slices.Sort(out)
	return out
}

func TestLatency_VivaldisMedianAndMaximum(t *testing.T) {
	for _, tt := range []struct {
		name        string
		nodes       uint32 // as many as were measured
		median, max time.Duration
	}{
		{"king", 1740, 159 * time.Millisecond, 800 * time.Millisecond},
		{"planetlab", 192, 76 * time.Millisecond, 795 * time.Millisecond},
		{"lan", 100, 200 * time.Microsecond, 200 * time.Microsecond},
		{"fixed:20ms", 100, 40 * time.Millisecond, 40 * time.Millisecond},
	} {
		for seed := range uint64(3) {
			got := trips(newLatency(t, tt.name, seed), tt.nodes)
			median, last := got[len(got)/2], got[len(got)-1]
			// A median of n draws from these tables strays by about 1/sqrt(n) of itself.
			if slack := 3 / math.Sqrt(float64(len(got))); math.Abs(float64(median)/float64(tt.median)-1) > slack {
				t.Errorf("%s, seed %d: got median %v, want %v", tt.name, seed, median, tt.median)
			}
			// The largest of n draws lies in the last 10/n of the table; its last step is 1/1024 wide.
			if last > tt.max || float64(last) < 0.9*float64(tt.max) {
				t.Errorf("%s, seed %d: got longest %v, want just below %v", tt.name, seed, last, tt.max)
			}
			if got[0] <= 0 {
				t.Errorf("%s, seed %d: got a pair without distance", tt.name, seed)
			}
			mean := time.Duration(0)
			for _, d := range got {
				mean += d / time.Duration(len(got))
			}
			t.Logf("%s: 1%% %v, 10%% %v, 50%% %v, 90%% %v, 99%% %v, max %v, mean %v", tt.name, got[len(got)/100],
				got[len(got)/10], median, got[len(got)*9/10], got[len(got)*99/100], last, mean)
		}
	}
}

func TestLatency_IsThePairsOwn(t *testing.T) {
	l, other := newLatency(t, "king", 1), newLatency(t, "king", 2)
	same := 0
	for a := range uint32(50) {
		for b := range uint32(50) {
			if l.Base(a, b) != l.Base(b, a) || l.Base(a, b) != newLatency(t, "king", 1).Base(a, b) {
				t.Fatalf("pair %d, %d: got different times", a, b)
			}
			if a != b && l.Base(a, b) == other.Base(a, b) {
				same++
			}
			if a == b && l.Base(a, b) != 0 {
				t.Errorf("node %d is %v from itself", a, l.Base(a, b))
			}
		}
	}
	if same > 20 {
		t.Errorf("got %d of 2450 pairs alike under two seeds", same)
	}
}

// A node's distances are draws from the whole table, not from a part of it that its number picks.
func TestLatency_NoNodeIsNearEverybody(t *testing.T) {
	l := newLatency(t, "king", 3)
	for a := range uint32(200) {
		sum := time.Duration(0)
		for b := range uint32(2000) {
			sum += l.Base(a, 1_000_000+b)
		}
		if mean := sum / 2000; mean < 80*time.Millisecond || mean > 100*time.Millisecond {
			t.Errorf("node %d: got mean %v one way, want about 90ms", a, mean)
		}
	}
}

func TestLatency_JitterReorders(t *testing.T) {
	l := newLatency(t, "king", 1)
	r := rand.New(rand.NewPCG(1, 1))
	base, sum, overtaken := l.Base(1, 2), time.Duration(0), 0
	last := time.Duration(0)
	const n = 20_000
	for range n {
		d := l.Delay(1, 2, r)
		if d < base || d > 2*base {
			t.Fatalf("got %v for a pair %v apart", d, base)
		}
		if d < last {
			overtaken++
		}
		last = d
		sum += d - base
	}
	if got := float64(sum) / n / float64(base); math.Abs(got-defaultJitter) > 0.002 {
		t.Errorf("got mean jitter %.4f, want %.2f", got, defaultJitter)
	}
	l.Jitter = 3
	for range n {
		if d := l.Delay(1, 2, r); d > 2*base {
			t.Fatalf("got %v for a pair %v apart: more than twice", d, base)
		}
	}
	if overtaken < n/3 {
		t.Errorf("got %d of %d overtaken", overtaken, n)
	}
}

func TestNewLatency_RefusesWhatItDoesNotKnow(t *testing.T) {
	for _, name := range []string{"", "King", "fixed", "fixed:", "fixed:-1s", "fixed:5s", "fixed:1"} {
		if l, err := NewLatency(name, 1); err == nil {
			t.Errorf("%q: got %v", name, l)
		}
	}
}

func TestSource_NodesAreIndependent(t *testing.T) {
	seen := map[uint64]bool{}
	ones, flips := 0, 0
	for seed := range uint64(4) {
		for node := range uint32(10_000) {
			p := Source(seed, node)
			x := p.Uint64()
			if seen[x] {
				t.Fatalf("seed %d, node %d: draws what another drew", seed, node)
			}
			seen[x] = true
			if x&1 == 1 {
				ones++
			}
			next := Source(seed, node+1)
			flips += bits.OnesCount64(x ^ next.Uint64())
		}
	}
	if mean := float64(flips) / 40_000; math.Abs(mean-32) > 0.12 { // six deviations of 4/sqrt(40000)
		t.Errorf("neighbours' first draws differ in %.2f of 64 bits", mean)
	}
	if ones < 19_400 || ones > 20_600 { // six deviations
		t.Errorf("got %d odd first draws of 40000", ones)
	}
}

func BenchmarkLatency_Delay(b *testing.B) {
	l := newLatency(b, "king", 1)
	r := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	n := uint32(0)
	for b.Loop() {
		n++
		l.Delay(n, n*7, r)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "datagrams/s")
}
