package swarm

import (
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// play is a settled world and its lookups, to their end.
func play(tb testing.TB, cfg Config, lookups, paths int) (*World, *Result) {
	tb.Helper()
	w, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	w.Settle()
	w.Lookups(lookups, paths, 100*time.Second)
	w.Run(4*time.Minute, nil)
	if w.Open() > 0 {
		tb.Fatalf("%d lookups without an end", w.Open())
	}
	return w, w.Result()
}

func TestSKademlia_LookupsAmongAdversaries(t *testing.T) {
	for _, test := range []struct {
		name, behaviour string
		share           float64
		paths           int
		loss            float64
		least           float64
	}{
		{"nobody", "collude", 0, 1, 0, 1},
		{"a fifth collude", "collude", 0.2, 8, 0, 0.995},
		{"half collude", "collude", 0.5, 8, 0, 0.99},
		{"half collude, and datagrams are lost", "collude", 0.5, 8, 0.02, 0.98},
		{"half drop", "drop", 0.5, 8, 0, 0.99},
		{"a third forge", "forge", 0.33, 8, 0, 0.99},
		{"a third lie", "liar", 0.33, 8, 0, 0.99},
	} {
		t.Run(test.name, func(t *testing.T) {
			for seed := uint64(1); seed <= seeds(); seed++ {
				w, r := play(t, Config{Nodes: 600, Adversaries: test.share, Behaviour: test.behaviour, Loss: test.loss, Quiet: true, Seed: seed}, 200, test.paths)
				if r.Success() < test.least || r.Lookups < 150 {
					t.Errorf("seed %d: %d of %d lookups found, want %v", seed, r.Found, r.Lookups, test.least)
				}
				if test.behaviour == "forge" && w.Refused == 0 {
					t.Errorf("seed %d: nobody saw a forgery", seed)
				}
			}
		})
	}
}

// seeds is how many histories a test plays.
func seeds() uint64 {
	if os.Getenv("CROWD_NIGHT") == "1" {
		return 20
	}
	return 1
}

// A world in which colluders did no harm would show nothing.
func TestColluders_StopLookupsThatHaveNoDefence(t *testing.T) {
	c := Config{Nodes: 3000, Adversaries: 0.5, Quiet: true, Seed: 1}
	c.Overlay = overlay.Config{Fair: -1, Width: 2, Siblings: 2, BucketSize: 8}
	_, r := play(t, c, 300, 1)
	if r.Success() > 0.8 {
		t.Errorf("%d of %d lookups found on one path without its defences", r.Found, r.Lookups)
	}
}

func TestChurn_LookupsFindWhoIsThere(t *testing.T) {
	w, err := New(Config{Nodes: 400, Adversaries: 0.2, NAT: 0.2, Loss: 0.01, Seed: 3, Churn: sim.Churn{Up: 10_000 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	w.Settle()
	w.Run(20*time.Minute, nil)
	if w.Joins == 0 {
		t.Error("nobody came")
	}
	w.Lookups(300, 8, 5*time.Minute)
	w.Run(10*time.Minute, nil)
	r := w.Result()
	if r.Success() < 0.98 || r.Lookups < 200 {
		t.Errorf("%d of %d lookups found", r.Found, r.Lookups)
	}
	if n := Quantile(r.Seen, 0.5); n <= 0 || n > 200*time.Millisecond {
		t.Errorf("the median until a record came is %v", n)
	}
}

func TestGrow_NodesJoinThroughEachOther(t *testing.T) {
	w, err := New(Config{Nodes: 200, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	w.Grow(2 * time.Minute)
	w.Run(10*time.Minute, nil)
	w.Lookups(100, 4, time.Minute)
	w.Run(3*time.Minute, nil)
	if r := w.Result(); r.Found < 99 {
		t.Errorf("%d of %d lookups found", r.Found, r.Lookups)
	}
}

func TestSplit_HalvesFindTheirOwnAndEachOtherAfterwards(t *testing.T) {
	w, err := New(Config{Nodes: 300, Seed: 2})
	if err != nil {
		t.Fatal(err)
	}
	w.Settle()
	w.Run(15*time.Minute, nil) // whoever is not known for long is not missed
	w.net.Split(func(node uint32) uint16 { return uint16(node % 2) })
	w.Run(5*time.Minute, nil)
	w.Lookups(100, 8, time.Minute)
	w.Run(3*time.Minute, nil)
	apart := w.Result().Success()
	w.net.Join()
	w.Run(30*time.Minute, nil)
	w.Lookups(100, 8, time.Minute)
	w.Run(3*time.Minute, nil)
	if whole := w.Result().Success(); apart > 0.65 || whole < 0.99 {
		t.Errorf("%v found while parted, %v afterwards", apart, whole)
	}
}

// history is a short world with all that chance may touch.
func history(seed uint64, leak bool) func(*sim.Trace) {
	return func(trace *sim.Trace) {
		w, err := New(Config{Nodes: 150, Adversaries: 0.2, NAT: 0.2, Loss: 0.02, Seed: seed, Trace: trace, Churn: sim.Churn{Up: 1000 * time.Second}})
		if err != nil {
			panic(err)
		}
		w.Settle()
		if leak {
			set := map[uint32]bool{}
			for i := range uint32(100) {
				set[i] = true
			}
			for i := range set { // the order of a map, on purpose: who comes first draws first
				if w.rng.IntN(2) == 0 {
					w.tell(i, overlay.Lookup{ID: 1 << 40, Target: w.keyOf(119), Paths: 2})
				}
			}
		}
		w.Lookups(50, 4, time.Minute)
		w.Run(3*time.Minute, nil)
	}
}

func TestReplay_OneSeedIsOneHistory(t *testing.T) {
	if err := sim.Replay(history(1, false)); err != nil {
		t.Error(err)
	}
	a, b := sim.NewTrace(nil), sim.NewTrace(nil)
	history(1, false)(a)
	history(2, false)(b)
	if a.Hash() == b.Hash() || a.Lines() < 1000 {
		t.Errorf("two seeds, one history of %d lines", a.Lines())
	}
}

func TestReplay_FindsTheOrderOfAMap(t *testing.T) {
	if sim.Replay(history(1, true)) == nil {
		t.Error("a map was ranged over, and the traces are the same")
	}
}

func TestWire_SizesAreThoseOfTheCodec(t *testing.T) {
	w, err := New(Config{Nodes: 20, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := *w.recs[0]
	tagged := r
	tagged.Tags = []string{"gpu", "x"}
	addr := addrOf(r.Endpoints[0])
	const req = math.MaxUint64 - 5
	for _, m := range []overlay.Message{
		overlay.Ping{Req: req, Seq: r.Seq},
		overlay.Ping{Req: req, Seq: r.Seq, Record: &r},
		overlay.Ping{Req: req, Seq: r.Seq, Record: &tagged},
		overlay.Pong{Req: req, Seq: r.Seq, Observed: addr},
		overlay.Pong{Req: req, Seq: r.Seq, Observed: addr, Ask: req},
		overlay.FindNode{Req: req, Want: 16},
		overlay.FindNode{Req: req, Want: 16, Record: &r},
		overlay.Nodes{Req: req, Parts: 1},
		overlay.Nodes{Req: req, Parts: 1, Records: []*overlay.Record{&r, &r, &r}},
		overlay.Register{Req: req, Record: &r, Ticket: make([]byte, 40)},
	} {
		// A few bytes more are right: numbers of a record and the head of a list may be shorter than the longest.
		if got, want := w.wire.size(m, false), overlay.PacketSize(m); got < want || got > want+8 {
			t.Errorf("%T: got %d bytes, want %d", m, got, want)
		}
	}
	if got := w.wire.size(overlay.Ping{}, true); got != overlay.MaxPacket {
		t.Errorf("padded: got %d bytes", got)
	}
}

func TestWilson(t *testing.T) {
	for _, test := range []struct {
		hits, n   int
		low, high float64
	}{ // from the formula by hand
		{0, 0, 0, 1}, {10, 10, 0.7225, 1}, {50, 100, 0.4038, 0.5962}, {0, 10, 0, 0.2775},
	} {
		low, high := Wilson(test.hits, test.n)
		if math.Abs(low-test.low) > 5e-5 || math.Abs(high-test.high) > 5e-5 {
			t.Errorf("%d of %d: got %v to %v, want %v to %v", test.hits, test.n, low, high, test.low, test.high)
		}
	}
}

func TestDirectory_NearestAreTheNearest(t *testing.T) {
	w, err := New(Config{Nodes: 300, Seed: 4})
	if err != nil {
		t.Fatal(err)
	}
	all := make([]uint32, 300)
	for i := range all {
		all[i] = uint32(i)
	}
	d := newDirectory(w, all)
	r := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		key := r.Uint64()
		got := d.nearest(nil, key, 10)
		farthest := d.keys[got[9]] ^ key
		nearer := 0
		for _, k := range d.keys {
			if k^key <= farthest {
				nearer++
			}
		}
		if len(got) != 10 || nearer != 10 {
			t.Fatalf("%d found, %d are as near", len(got), nearer)
		}
	}
}

func TestConfig_Refuses(t *testing.T) {
	for _, c := range []Config{{}, {Nodes: 1}, {Nodes: 10, Adversaries: 1}, {Nodes: 10, NAT: -1}, {Nodes: 10, Behaviour: "x"}, {Nodes: 10, Latency: "x"},
		{Nodes: 10, Quiet: true, Churn: sim.Churn{Up: 1}}, {Nodes: 10, Loss: 2}, {Nodes: 10, Adversaries: math.NaN()}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

func TestMeasure_StopsAndSaysWhatItHas(t *testing.T) {
	var cells []Cell
	asked := 0
	err := Measure(Plan{Config: Config{Nodes: 200, Seed: 1, Quiet: true}, Lookups: 400, Paths: []int{2, 4}}, func(c Cell) { cells = append(cells, c) }, func(ended int) bool {
		asked++
		return ended < 100
	})
	if err != ErrStopped || len(cells) != 1 || cells[0].Lookups < 90 || cells[0].Lookups >= 400 {
		t.Errorf("got %v and %d cells after %d questions", err, len(cells), asked)
	}
}

func BenchmarkSwarm_LookupsAmongTenThousand(b *testing.B) {
	w, err := New(Config{Nodes: 10_000, Adversaries: 0.3, Quiet: true, Seed: 1})
	if err != nil {
		b.Fatal(err)
	}
	w.Settle()
	before := w.Events
	b.ReportAllocs()
	for b.Loop() {
		w.Lookups(100, 8, time.Second)
		w.Run(10*time.Second, nil)
	}
	b.ReportMetric(float64(w.Events-before)/b.Elapsed().Seconds(), "events/s")
}
