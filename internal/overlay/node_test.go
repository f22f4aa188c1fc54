package overlay

import (
	"testing"
	"time"
)

func TestLookup_FindsEveryNodeOfANetworkGrownFromOneSeed(t *testing.T) {
	w := grown(t, 1, 200, Config{})
	w.run(20 * time.Minute)
	var worst time.Duration
	for i, m := range w.nodes {
		m.check(t)
		if missing := w.unknown(m, 16); missing > 0 {
			t.Errorf("node %d does not know %d of its 16 siblings", i, missing)
		}
		target := w.nodes[(i*7+11)%len(w.nodes)]
		if target == m {
			continue
		}
		from := w.now
		done, found := w.look(m, Lookup{Target: target.Key()})
		worst = max(worst, w.now.Sub(from))
		if !done.Alive || done.Target != target.rec || len(found) == 0 || found[0].Record != target.rec {
			t.Fatalf("node %d does not find its target: %+v", i, done)
		}
	}
	t.Logf("slowest lookup %v", worst)
}
