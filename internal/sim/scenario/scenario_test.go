package scenario

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/sim"
)

var seedFlag = flag.Uint64("seed", 0, "play only this seed, and print its trace")

// seeds plays f with n seeds, a hundred times as many at night, or with the one that was asked for.
func seeds(t *testing.T, n uint64, f func(seed uint64) (*World, error)) {
	t.Helper()
	if os.Getenv("CROWD_NIGHT") != "" {
		n *= 100
	}
	first, last := uint64(1), n
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	for seed := first; seed <= last; seed++ {
		w, err := f(seed)
		if err == nil {
			err = w.Check()
		}
		if *seedFlag != 0 {
			t.Logf("%s", w.Trace())
		}
		if err != nil {
			t.Fatalf("%v\nreplay: go test ./internal/sim/scenario -run '^%s$' -seed=%d",
				err, strings.ReplaceAll(t.Name(), "/", "$/^"), seed)
		}
	}
}

// play posts jobs one after the other and runs until all have ended and the last results are home.
func play(c Config, jobs int, plan func(*World)) *World {
	w := New(c)
	if plan != nil {
		plan(w)
	}
	var bound time.Duration
	for i := range jobs {
		w.After(time.Duration(i)*700*time.Millisecond, func() {
			owner := w.Consumer(i % w.Config.Consumers)
			if !owner.alive {
				return
			}
			w.Post(owner, func(id crowd.JobID, err error) {
				if err == nil {
					bound = w.Bound(&w.jobs[id].Spec)
				}
			})
		})
	}
	w.Run(sim.Epoch.Add(time.Duration(jobs)*700*time.Millisecond+2*time.Second), nil)
	w.Run(w.Now().Add(bound), w.AllEnded)
	w.Run(w.Now().Add(40*time.Second), nil)
	return w
}

// states counts how the jobs ended.
func states(w *World) (settled, cancelled, failed int) {
	for _, p := range w.Jobs {
		switch p.Last.State {
		case ledger.Settled:
			settled++
		case ledger.Cancelled:
			cancelled++
		case ledger.Failed:
			failed++
		}
	}
	return
}

func allSettled(w *World, jobs int) error {
	if s, _, _ := states(w); s != jobs || len(w.Jobs) != jobs {
		var why []string
		for _, p := range w.Jobs {
			if p.Last.State != ledger.Settled {
				why = append(why, fmt.Sprintf("%s: %s, %s", p.ID.Short(), p.Last.State, p.Last.History[len(p.Last.History)-1].Why))
			}
		}
		return fmt.Errorf("got %d of %d jobs settled, want all (%s)", s, jobs, strings.Join(why, "; "))
	}
	return nil
}

func TestHonest(t *testing.T) {
	seeds(t, 10, func(seed uint64) (*World, error) {
		w := play(Config{Seed: seed, Consumers: 2}, 4, nil)
		if len(w.Slashed) > 0 {
			return w, fmt.Errorf("got %d slashed", len(w.Slashed))
		}
		return w, allSettled(w, 4)
	})
}
