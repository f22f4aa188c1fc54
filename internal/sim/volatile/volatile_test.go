package volatile

import (
	"fmt"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/sim"
)

// played plays c to its end. A failure prints what to replay.
func played(t *testing.T, c Config) Result {
	t.Helper()
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	for p.Go(time.Hour) {
	}
	r, err := p.Result()
	if err != nil || r.Complete < 1 {
		t.Fatalf("%+v: %d of %d shards are done (%s): %v", p.Config, r.Done, r.Shards, r.Why, err)
	}
	return r
}

// small is a map-reduce of seconds of this machine's time, with more shards than runs at a time.
func small(way string, seed uint64) Config {
	return Config{Way: way, Away: 0.5, Providers: 32, Maps: 6, Reduces: 1, Parallel: map[string]int{"adaptive": 7, "fixed": 21}[way], Seed: seed}
}

// Half of the nodes are away at any time: every shard is done, nothing wrong is used, no honest stake is lost, credits are
// conserved after every block, next to nothing passes the owner, and it takes less than half of the extra work of three of everything.
func TestPlay_HalfAway(t *testing.T) {
	ours, fixed := played(t, small("adaptive", 2)), played(t, small("fixed", 2))
	if ours.Share > 0.01 || ours.Coordinator == 0 || ours.Moved < ours.Shuffled {
		t.Errorf("%d bytes passed the owner, and %d of %d went from node to node", ours.Coordinator, ours.Moved, ours.Shuffled)
	}
	if fixed.Copies < 2*fixed.Shards || fixed.Extra < 1.5 {
		t.Errorf("%d copies and %.2f times more gas: this is no threefold replication", fixed.Copies, fixed.Extra)
	}
	if ours.Extra*2 > fixed.Extra {
		t.Errorf("got %.2f extra work in %.0f s, and %.2f in %.0f s for three of everything", ours.Extra, ours.Seconds, fixed.Extra, fixed.Seconds)
	}
}

// One seed is one history, byte for byte.
func TestPlay_Replay(t *testing.T) {
	err := sim.Replay(func(trace *sim.Trace) {
		c := small("adaptive", 3)
		c.Maps, c.Reduces, c.Trace = 4, 1, trace
		played(t, c)
	})
	if err != nil {
		t.Error(err)
	}
}

// The outages of a seed are the same whatever the owner does.
func TestPlay_WaysSeeTheSameWorld(t *testing.T) {
	ups := func(way string) (s string) {
		p, err := New(Config{Way: way, Away: 0.5, Providers: 20, Maps: 1, Reduces: 1})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			p.w.Run(sim.Epoch.Add(time.Duration(i)*time.Minute), nil)
			for i := range p.Providers {
				s += fmt.Sprint(p.w.Provider(i).Up(), " ")
			}
		}
		return s
	}
	if ups("adaptive") != ups("fixed") {
		t.Error("they are other nodes")
	}
}

func TestConfig_Validate(t *testing.T) {
	for _, c := range []Config{{Away: 1}, {Away: -0.1}, {Way: "best"}, {Providers: 3}, {Providers: 65}, {Maps: -1}, {Reduces: 41}, {Parallel: 1000}, {Audit: -1}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v: got no error", c)
		}
	}
}
