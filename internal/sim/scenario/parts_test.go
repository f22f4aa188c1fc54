package scenario

import (
	"fmt"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/ledger"
)

// Outputs that go on to others: who makes other parts of them is not accepted, however right its leaves are.
func TestBatch_Parts(t *testing.T) {
	type adv = map[int]Adversary
	for _, tt := range []struct {
		name     string
		at       adv
		consumer Adversary
		state    ledger.JobState
		guilty   []int
	}{
		{"honest", nil, nil, ledger.Settled, nil},
		{"an owner that is silent", nil, Miser{NoAccept: true}, ledger.Settled, nil},
		{"an owner that complains", nil, Miser{Complain: true}, ledger.Settled, nil},
		{"other parts", adv{0: Parts{}}, nil, ledger.Failed, nil},
		{"other parts, and a verifier that is silent", adv{0: Parts{}, 1: Withhold{Reveal: true}}, nil, ledger.Failed, nil},
		{"other parts, and verifiers that are silent", adv{0: Parts{}, 1: Withhold{Reveal: true}, 2: Withhold{Reveal: true}}, nil, ledger.Failed, nil},
		{"a verifier that is silent", adv{1: Withhold{Reveal: true}}, nil, ledger.Settled, nil},
		{"a cheating executor", adv{0: Cheat{Rate: 0.3}}, nil, ledger.Failed, []int{0}},
		{"outputs that nobody gets", adv{0: Withhold{Serve: true}}, nil, ledger.Failed, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seeds(t, 1, func(seed uint64) (*World, error) {
				w := sampled(Config{Seed: seed, Spec: Split(200, 2, 20), Consumer: func(*World, int) Adversary { return tt.consumer }}, tt.at, nil)
				return w, guilty(w, tt.state, tt.guilty...)
			})
		})
	}
}

// A provider that dies at any moment of a batch whose outputs go on costs nobody the result, and everybody on the verdict has it.
func TestBatch_PartsAndAKilledProvider(t *testing.T) {
	step := 3
	if testing.Short() {
		step = 7
	}
	killed := 0
	seeds(t, 1, func(seed uint64) (*World, error) {
		for at := 1; ; at += step {
			w := sampled(Config{Seed: seed + uint64(at%step), Spec: Split(200, 2, 20)}, nil, func(w *World) { w.Provider(0).Kill = Kill{At: at, Down: time.Second} })
			if w.Provider(0).Steps < at {
				return w, nil
			}
			killed++
			err := w.Check()
			if err == nil {
				err = allSettled(w, 1)
			}
			if err != nil {
				return w, fmt.Errorf("killed after effect %d: %w", at, err)
			}
		}
	})
	if killed < 5 && *seedFlag == 0 {
		t.Errorf("got only %d moments to kill", killed)
	}
}

// All kinds of liars at once, on bad lines.
func TestBatch_PartsAndChaos(t *testing.T) {
	settled, failed := 0, 0
	seeds(t, 8, func(seed uint64) (*World, error) {
		w := play(Config{
			Seed: seed, Providers: 6, Consumers: 2, Link: rough, Faults: 0.1, Spec: Split(100, 2, 10),
			Consumer: func(w *World, i int) Adversary {
				return []Adversary{nil, nil, Miser{NoAccept: true}, Miser{Complain: true}}[w.Rand().IntN(4)]
			},
			Provider: func(w *World, i int) Adversary {
				return []Adversary{
					nil, nil, nil, nil, Parts{}, Parts{}, Cheat{Rate: 0.3}, Lazy{}, Withhold{Reveal: true}, Withhold{Serve: true}, &Vanish{Cheat: Cheat{Rate: 0.3}},
				}[w.Rand().IntN(11)]
			},
		}, 4, func(w *World) {
			w.Nodes[1+w.Rand().IntN(len(w.Nodes)-1)].Kill = Kill{At: 1 + w.Rand().IntN(60), Down: time.Duration(w.Rand().IntN(5000)) * time.Millisecond}
		})
		s, _, f := states(w)
		settled, failed = settled+s, failed+f
		return w, nil
	})
	if (settled == 0 || failed == 0) && *seedFlag == 0 {
		t.Errorf("got %d settled and %d failed: the test tests nothing", settled, failed)
	}
}
