package swarm

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// night skips what takes minutes, unless it is asked for: CROWD_NIGHT=1 go test -v -timeout 2h -run Night
func night(t *testing.T) {
	t.Helper()
	if os.Getenv("CROWD_NIGHT") != "1" {
		t.Skip("a table for the night: set CROWD_NIGHT=1")
	}
}

func TestNight_EclipseOfAKey(t *testing.T) {
	night(t)
	for _, nodes := range []int{1000, 10_000} {
		for _, sybils := range []int{16, 64, 256} {
			e, err := EclipseKey(Config{Nodes: nodes, Seed: 1}, sybils, 100, 2*time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d nodes, %d sybils, %d tries: %d of %d lookups found the node; %.1f of %.0f nearest to the key honest; cost in core time at 0, 8, 16, 24 bits: %v %v %v %v",
				nodes, sybils, e.Tries, e.Found, e.Lookups, e.Honest, e.Nearest, Cost(sybils, e.Share, 0).Round(time.Second), Cost(sybils, e.Share, 8).Round(time.Second),
				Cost(sybils, e.Share, 16).Round(time.Second), Cost(sybils, e.Share, 24).Round(time.Hour))
		}
	}
}

func TestNight_RestartEclipse(t *testing.T) {
	night(t)
	for _, nodes := range []int{300, 1000, 5000} {
		for _, bits := range []uint8{12, 16, 20} {
			r, err := RestartEclipse(Config{Nodes: nodes, Seed: 1, Static: bits}, 2, 50, 24*time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d nodes, %d bits, %d identities on 2 hosts: %d of %d eclipsed, %d lookups failed; %.1f %% of the table at the mean, %.1f %% at worst",
				nodes, bits, r.Identities, r.Eclipsed, r.Restarts, r.Failed, 100*r.Share, 100*r.Worst)
			if r.Eclipsed > 0 {
				t.Errorf("%d of %d eclipsed", r.Eclipsed, r.Restarts)
			}
		}
	}
}

func TestNight_AmplifyLieSpam(t *testing.T) {
	night(t)
	all, err := Amplify(Config{Nodes: 1000, Seed: 1}, 300)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		t.Logf("%s: %d packets, factor %.3f of payload, %.3f with headers", a.What, a.Sent.Packets, a.Payload, a.Factor)
	}
	for _, share := range []float64{0.1, 0.3, 0.5} {
		l, err := Lie(Config{Nodes: 3000, Adversaries: share, Seed: 1, Quiet: true}, 1000, 8)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%.0f %% lie: %d of %d found, %.0f bytes at the victim for each lookup, %.3f for each byte told", 100*share, l.Found, l.Lookups, l.Each, l.Factor)
	}
	for _, hosts := range []int{0, 2} {
		for _, spammers := range []int{0, 100, 1000} {
			s, err := SpamAds(Config{Nodes: 500, Seed: 1}, 10, spammers, hosts, 50, 20*time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d spammers on %d hosts (0: each its own): %d ads kept; a lookup brings %.0f %% of 10 honest ones, one at least %d of %d", spammers, hosts, s.Kept, 100*s.Found, s.Any, s.Lookups)
		}
	}
}

// TestNight_Growth is the memory of a world at rest and the events of five minutes of its upkeep, by its size.
func TestNight_Growth(t *testing.T) {
	night(t)
	for _, nodes := range []int{1000, 10_000, 100_000} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		w, err := New(Config{Nodes: nodes, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		from := time.Now()
		w.Settle()
		settled := time.Since(from)
		runtime.GC()
		runtime.ReadMemStats(&after)
		rest := after.HeapAlloc - before.HeapAlloc
		from = time.Now()
		w.Run(5*time.Minute, nil)
		took := time.Since(from)
		runtime.GC()
		runtime.ReadMemStats(&after)
		t.Logf("%d nodes: %d bytes for each at rest, %d after five minutes; settled in %v; %d events in %v, %.0f/s", nodes, rest/uint64(nodes),
			(after.HeapAlloc-before.HeapAlloc)/uint64(nodes), settled.Round(time.Millisecond), w.Events, took.Round(time.Millisecond), float64(w.Events)/took.Seconds())
		runtime.KeepAlive(w)
	}
}
