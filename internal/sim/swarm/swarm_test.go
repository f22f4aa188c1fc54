package swarm

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestCell(t *testing.T) {
	get := func(k, d string) string {
		if v := os.Getenv(k); v != "" {
			return v
		}
		return d
	}
	num := func(k, d string) int { n, _ := strconv.Atoi(get(k, d)); return n }
	for _, f := range strings.Fields(get("F", "0 0.2 0.3 0.5")) {
		adv, _ := strconv.ParseFloat(f, 64)
		c := Config{Nodes: num("N", "1000"), Adversaries: adv, Quiet: true, Seed: 1, Behaviour: get("B", "collude")}
		c.Overlay.Width, c.Overlay.Fair, c.Overlay.Answer = num("W", "0"), num("FAIR", "0"), num("ANSWER", "0")
		c.Overlay.BucketSize, c.Overlay.Siblings = num("K", "0"), num("S", "0")
		c.Overlay.Parallel = num("ALPHA", "0")
		begin := time.Now()
		w, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		w.Settle()
		settled := time.Since(begin)
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		w.Lookups(num("L", "200"), num("D", "8"), 100*time.Second)
		for w.Open() > 0 && w.Now() < time.Hour {
			w.Run(10*time.Second, nil)
		}
		r := w.Result()
		t.Logf("N %d f %s d %d: %.4f [%.4f %.4f] of %d, hops %.2f asked %.1f, p50 %v p99 %v seen p50 %v p99 %v; %.1f packets %.0f B each; settle %v, %d events in %v, %d B/node; open %d void %d",
			c.Nodes, f, num("D", "8"), r.Success(), r.LowFound, r.HighFound, r.Lookups, r.Hops, r.Asked, Quantile(r.Took, .5), Quantile(r.Took, .99), Quantile(r.Seen, .5), Quantile(r.Seen, .99),
			float64(w.Sent.Packets+w.Foe.Packets)/float64(r.Lookups), float64(w.Sent.Bytes+w.Foe.Bytes)/float64(r.Lookups), settled, w.Events, time.Since(begin)-settled, m.HeapAlloc/uint64(w.honest), r.Open, r.Void)
	}
}
