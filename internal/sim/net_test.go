package sim

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func newNet(t testing.TB, nodes int, w Wires) *Net {
	t.Helper()
	n, err := NewNet(nodes, w)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNet_LossAndDoubleAreShares(t *testing.T) {
	n := newNet(t, 10, Wires{Latency: newLatency(t, "king", 1), Loss: 0.2, Double: 0.1})
	r := rand.New(rand.NewPCG(1, 1))
	const sent = 100_000
	lost, twice, reordered := 0, 0, 0
	for range sent {
		f := n.Send(5, 1, 2, 100, r)
		switch {
		case f.Loss == LostOnWay && f.Copies == 0:
			lost++
		case f.Loss == Arrives && f.Copies == 2:
			if twice++; f.At[1] < f.At[0] {
				reordered++
			}
		case f.Loss != Arrives || f.Copies != 1 || f.At[0] < Time(5).After(n.Latency.Base(1, 2)):
			t.Fatalf("got %+v", f)
		}
	}
	if math.Abs(float64(lost)/sent-0.2) > 0.006 || math.Abs(float64(twice)/(0.8*sent)-0.1) > 0.005 {
		t.Errorf("got %d lost and %d twice of %d", lost, twice, sent)
	}
	if reordered < twice/3 {
		t.Errorf("got %d of %d copies out of order", reordered, twice)
	}
}

func TestNet_PerfectByDefault(t *testing.T) {
	n := newNet(t, 2, Wires{})
	if f := n.Send(7, 0, 1, 1<<20, nil); f != (Fate{Copies: 1, At: [2]Time{7}}) { // draws nothing
		t.Errorf("got %+v", f)
	}
}

func TestNet_Partitions(t *testing.T) {
	n := newNet(t, 9, Wires{})
	reach := func() (out int) {
		for a := range uint32(9) {
			for b := range a {
				if n.Reaches(a, b) != n.Reaches(b, a) {
					t.Fatalf("%d and %d: one way only", a, b)
				}
				f := n.Send(0, a, b, 1, nil)
				if (f.Loss == Parted && f.Copies == 0) == n.Reaches(a, b) {
					t.Fatalf("%d and %d: got %+v", a, b, f)
				}
				out += f.Copies
			}
		}
		return out
	}
	steps := []struct {
		name string
		do   func()
		want int // pairs that reach each other
	}{
		{"whole", func() {}, 36},
		{"one pair cut", func() { n.Cut(3, 1) }, 35},
		{"three thirds", func() { n.Split(func(i uint32) uint16 { return uint16(i % 3) }) }, 9},
		{"two parts", func() { n.Split(func(i uint32) uint16 { return uint16(i / 8) }) }, 27},
		{"the other way round", func() { n.Heal(1, 3) }, 28},
		{"whole again", func() { n.Join() }, 36},
	}
	for _, s := range steps {
		s.do()
		if got := reach(); got != s.want {
			t.Errorf("%s: got %d pairs, want %d", s.name, got, s.want)
		}
	}
}

func TestNet_UplinkQueuesAndOverflows(t *testing.T) {
	const rate = 800_000 // 100 bytes in a millisecond
	n := newNet(t, 3, Wires{Uplink: rate, Buffer: 1000})
	ms := Time(time.Millisecond)
	for i := range Time(10) {
		if f := n.Send(0, 0, 1, 100, nil); f.At[0] != (i+1)*ms {
			t.Fatalf("datagram %d: got %+v, want it out after %d ms", i, f, i+1)
		}
	}
	if f := n.Send(0, 0, 1, 100, nil); f.Loss != UplinkFull || f.Copies != 0 {
		t.Errorf("got %+v from a full uplink", f)
	}
	if f := n.Send(0, 1, 0, 100, nil); f.At[0] != ms {
		t.Errorf("another node's uplink: got %+v", f)
	}
	if f := n.Send(2*ms, 0, 1, 200, nil); f.At[0] != 12*ms { // 200 bytes are out, 200 fit
		t.Errorf("got %+v after a while, want it out after 12 ms", f)
	}
	if f := n.Send(2*ms, 0, 1, 1, nil); f.Loss != UplinkFull {
		t.Errorf("got %+v from an uplink full to the byte", f)
	}
	n.Reset(0)
	if f := n.Send(2*ms, 0, 1, 100, nil); f.At[0] != 3*ms {
		t.Errorf("got %+v after a restart", f)
	}
	n.SetUplink(2, 0)
	if f := n.Send(2*ms, 2, 1, 1<<20, nil); f.At[0] != 2*ms {
		t.Errorf("got %+v from a node without limit", f)
	}
	if f := n.Send(50*ms, 0, 1, 100, nil); f.At[0] != 51*ms {
		t.Errorf("got %+v from an idle uplink of the common rate", f)
	}
}

func TestWires_Validate(t *testing.T) {
	for _, w := range []Wires{{Loss: -0.1}, {Loss: math.NaN()}, {Double: 1.1}, {Uplink: -1}, {Buffer: -1}, {Latency: Latency{Jitter: -1}}} {
		if _, err := NewNet(1, w); err == nil {
			t.Errorf("%+v: got no error", w)
		}
	}
}

func BenchmarkNet_Send(b *testing.B) {
	const nodes = 100_000
	n := newNet(b, nodes, Wires{Latency: newLatency(b, "king", 1), Loss: 0.01, Double: 0.01, Uplink: 1e9})
	r := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	i := uint32(0)
	for b.Loop() {
		i++
		n.Send(Time(i)*1000, i%nodes, i*7%nodes, 500, r)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "datagrams/s")
}
