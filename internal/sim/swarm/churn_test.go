package swarm

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/sim"
)

func TestUpkeepCell(t *testing.T) {
	num := func(k string, d int) int {
		if n, err := strconv.Atoi(os.Getenv(k)); err == nil {
			return n
		}
		return d
	}
	adv, _ := strconv.ParseFloat(os.Getenv("F"), 64)
	c := Config{Nodes: num("N", 1000), Adversaries: adv, Seed: 1, Behaviour: os.Getenv("B"), Churn: sim.Churn{Up: 10000 * time.Second}}
	c.Overlay.PingEvery = time.Duration(num("PING", 0)) * time.Second
	c.Overlay.RefreshEvery = time.Duration(num("REFRESH", 0)) * time.Second
	c.Overlay.Siblings, c.Overlay.BucketSize, c.Overlay.Width, c.Overlay.Answer = num("S", 0), num("K", 0), num("W", 0), num("ANSWER", 0)
	w, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.Settle()
	for h := range num("H", 6) {
		begin := time.Now()
		ev, s, hd, by := w.Events, w.Sent, w.Heard, w.By
		w.Run(20*time.Minute, nil)
		per := func(a, b int64) float64 { return float64(a-b) / float64(w.honest) / 1200 }
		var e, sib int
		for i := range w.honest {
			if w.up[i] {
				st := w.nodes[i].Stats()
				e += st.Entries
				sib += st.Siblings
			}
		}
		for k, name := range KindNames() {
			t.Logf("   %s %.1f B/s %.4f/s", name, per(w.By[k].Bytes, by[k].Bytes), per(w.By[k].Packets, by[k].Packets))
		}
		t.Logf("%d min: sent %.1f B/s %.3f/s heard %.1f B/s; entries %d siblings %d; joins %d; %d events in %v; refused %d blames %d stray %d", 20*(h+1), per(w.Sent.Bytes, s.Bytes), per(w.Sent.Packets, s.Packets), per(w.Heard.Bytes, hd.Bytes),
			e/w.honest, sib/w.honest, w.Joins, w.Events-ev, time.Since(begin), w.Refused, w.Blames, w.Stray.Packets)
	}
	w.Lookups(num("L", 1000), num("D", 8), 600*time.Second)
	for w.Open() > 0 {
		w.Run(10*time.Second, nil)
	}
	r := w.Result()
	t.Logf("N %d f %v d %d: %.4f [%.4f %.4f] of %d, hops %.2f asked %.1f, p50 %v p99 %v seen p50 %v p99 %v void %d",
		c.Nodes, adv, num("D", 8), r.Success(), r.LowFound, r.HighFound, r.Lookups, r.Hops, r.Asked, Quantile(r.Took, .5), Quantile(r.Took, .99), Quantile(r.Seen, .5), Quantile(r.Seen, .99), r.Void)
}
