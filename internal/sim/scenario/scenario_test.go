package scenario

import (
	"flag"
	"fmt"
	"math"
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

func TestReplay(t *testing.T) {
	seeds(t, 3, func(seed uint64) (*World, error) {
		var w *World
		err := sim.Replay(func(t *sim.Trace) {
			w = play(Config{
				Seed: seed, Faults: 0.2, Link: rough, Trace: t,
				Provider: some(map[int]Adversary{0: WrongResult{}, 1: Withhold{Reveal: true}}),
			}, 2, func(w *World) { w.Provider(2).Kill = Kill{At: 4, Down: 2 * time.Second} })
		})
		return w, err
	})
}

// rough is a bad line: one message in twenty is lost, one in twenty comes twice.
var rough = sim.Link{Latency: 10 * time.Millisecond, Jitter: 100 * time.Millisecond, Loss: 0.05, Double: 0.05}

// awful loses one message in three.
var awful = sim.Link{Latency: 10 * time.Millisecond, Jitter: 100 * time.Millisecond, Loss: 0.33, Double: 0.1}

// TestHonest_OnABadLine shows that resends and looks make up for what is lost.
func TestHonest_OnABadLine(t *testing.T) {
	seeds(t, 10, func(seed uint64) (*World, error) {
		c := Config{Seed: seed, Providers: 4, Link: rough, Params: ledger.DevParams()}
		c.Params.ClaimWindow, c.Params.Retention = 10_000, 30_000
		w := play(c, 3, nil)
		return w, allSettled(w, max(1, len(w.Jobs))) // a post that is lost is the user's to repeat
	})
}

// some gives single providers an adversary.
func some(m map[int]Adversary) func(*World, int) Adversary {
	return func(_ *World, i int) Adversary { return m[i] }
}

// two providers, so that both are seated.
func pair(seed uint64, provider func(*World, int) Adversary) Config {
	return Config{Seed: seed, Providers: 2, Provider: provider}
}

// wants counts who must lose stake and how the job must end.
type wants struct {
	slashed int
	state   ledger.JobState
	by      string
}

func (e wants) check(w *World) error {
	if len(w.Jobs) != 1 {
		return fmt.Errorf("got %d jobs, want 1", len(w.Jobs))
	}
	j := &w.Jobs[0].Last
	if j.State != e.state || len(w.Slashed) != e.slashed {
		return fmt.Errorf("got job %s (%s) and %d slashed, want %s and %d", j.State, j.History[len(j.History)-1].Why, len(w.Slashed), e.state, e.slashed)
	}
	if e.by != "" && (j.Verdict == nil || j.Verdict.By != e.by) {
		return fmt.Errorf("got verdict %+v, want one by %s", j.Verdict, e.by)
	}
	return nil
}

func TestAdversary(t *testing.T) {
	for _, tt := range []struct {
		name     string
		provider map[int]Adversary
		consumer Adversary
		want     wants
	}{
		{"one wrong result", map[int]Adversary{0: WrongResult{}}, nil, wants{1, ledger.Settled, ledger.ByCourt}},
		{"two different wrong results", map[int]Adversary{0: WrongResult{}, 1: WrongResult{}}, nil, wants{2, ledger.Settled, ledger.ByCourt}},
		{"a copied commitment", map[int]Adversary{1: &Copycat{}}, nil, wants{1, ledger.Settled, ledger.ByCourt}},
		{"copies of each other", map[int]Adversary{0: &Copycat{}, 1: &Copycat{}}, nil, wants{0, ledger.Failed, ""}},
		{"a claim that never comes", map[int]Adversary{0: Mute{Claim: true}}, nil, wants{0, ledger.Failed, ""}},
		{"a commit that never comes", map[int]Adversary{0: Mute{Commit: true}}, nil, wants{0, ledger.Settled, ledger.ByCourt}},
		{"a reveal that never comes", map[int]Adversary{0: Withhold{Reveal: true}}, nil, wants{0, ledger.Settled, ledger.ByAgreement}},
		{"no reveal from anybody", map[int]Adversary{0: Withhold{Reveal: true}, 1: Withhold{Reveal: true}}, nil, wants{0, ledger.Settled, ledger.ByAgreement}},
		{"a lie that is never revealed", map[int]Adversary{0: Withhold{Reveal: true, Lie: true}}, nil, wants{1, ledger.Settled, ledger.ByCourt}},
		{"a result from only one", map[int]Adversary{0: Withhold{Serve: true}}, nil, wants{0, ledger.Settled, ledger.ByAgreement}},
		{"a result from nobody", map[int]Adversary{0: Withhold{Serve: true}, 1: Withhold{Serve: true}}, nil, wants{0, ledger.Failed, ledger.ByAgreement}},
		{"two commits", map[int]Adversary{0: Equivocate{}}, nil, wants{1, ledger.Settled, ledger.ByCourt}},
		{"two commits each", map[int]Adversary{0: Equivocate{}, 1: Equivocate{}}, nil, wants{2, ledger.Failed, ""}},
		{"no inputs", nil, Miser{NoInputs: true}, wants{0, ledger.Failed, ""}},
		{"no inputs for the court of a lie", map[int]Adversary{0: WrongResult{}}, Miser{NoInputs: true}, wants{0, ledger.Failed, ""}},
		{"no accept", nil, Miser{NoAccept: true}, wants{0, ledger.Settled, ledger.ByAgreement}},
		{"a complaint about what was served", nil, Miser{Complain: true}, wants{0, ledger.Settled, ledger.ByAgreement}},
		{"cancelled when posted, by a user who waits", nil, Fickle{State: ledger.Posted, User: true}, wants{0, ledger.Cancelled, ""}},
		{"cancelled while claiming, by a user who waits", nil, Fickle{State: ledger.Claiming, User: true}, wants{0, ledger.Cancelled, ""}},
		{"cancelled while running", nil, Fickle{State: ledger.Running}, wants{0, ledger.Cancelled, ""}},
		{"cancelled while revealing", nil, Fickle{State: ledger.Revealing}, wants{0, ledger.Settled, ledger.ByAgreement}},
		{"cancelled when delivering", nil, Fickle{State: ledger.Delivering}, wants{0, ledger.Settled, ledger.ByAgreement}},
		{"cancelled when settled", nil, Fickle{State: ledger.Settled}, wants{0, ledger.Settled, ledger.ByAgreement}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seeds(t, 3, func(seed uint64) (*World, error) {
				c := pair(seed, some(tt.provider))
				c.Consumer = func(*World, int) Adversary { return tt.consumer }
				w := play(c, 1, nil)
				return w, tt.want.check(w)
			})
		})
	}
}

// TestKill kills one node after each of its effects, for a while or for ever.
func TestKill(t *testing.T) {
	for _, tt := range []struct {
		name   string
		node   func(w *World) *Node
		down   time.Duration
		lies   bool // one executor lies, so that the court has work
		settle bool // whatever the moment
		line   sim.Link
	}{
		{"an executor for a second", func(w *World) *Node { return w.Provider(0) }, time.Second, false, true, sim.Link{}},
		{"an executor for a moment, on a bad line", func(w *World) *Node { return w.Provider(0) }, time.Millisecond, false, false, awful},
		{"an executor for ever", func(w *World) *Node { return w.Provider(0) }, 0, false, false, sim.Link{}},
		{"the consumer for a second", func(w *World) *Node { return w.Consumer(0) }, time.Second, false, true, sim.Link{}},
		{"the consumer for so long that nobody waits", func(w *World) *Node { return w.Consumer(0) }, 25 * time.Second, false, false, sim.Link{}},
		{"the consumer for ever", func(w *World) *Node { return w.Consumer(0) }, 0, false, false, sim.Link{}},
		{"an authority for a second", func(w *World) *Node { return w.Authority(1) }, time.Second, true, true, sim.Link{}},
		{"an authority for ever", func(w *World) *Node { return w.Authority(1) }, 0, true, true, sim.Link{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			killed := 0
			seeds(t, 2, func(seed uint64) (*World, error) {
				for at := 1; ; at++ {
					c := pair(seed, nil)
					if tt.line != (sim.Link{}) {
						c.Link, c.Params = tt.line, ledger.DevParams()
						c.Params.ClaimWindow = 10_000
					}
					if tt.lies {
						c.Provider = some(map[int]Adversary{1: WrongResult{}})
					}
					w := play(c, 1, func(w *World) { tt.node(w).Kill = Kill{At: at, Down: tt.down} })
					if tt.node(w).Steps < at {
						return w, nil
					}
					killed++
					err := w.Check()
					if tt.settle && err == nil {
						err = allSettled(w, 1)
					}
					if err != nil || len(w.Jobs) != 1 {
						return w, fmt.Errorf("killed after effect %d, %d jobs: %w", at, len(w.Jobs), err)
					}
				}
			})
			if killed < 10 && *seedFlag == 0 {
				t.Errorf("got only %d moments to kill", killed)
			}
		})
	}
}

// TestPartition cuts a node off for a while, at every stage.
func TestPartition(t *testing.T) {
	for _, long := range []time.Duration{300 * time.Millisecond, 3 * time.Second, 20 * time.Second} {
		t.Run(long.String(), func(t *testing.T) {
			seeds(t, 12, func(seed uint64) (*World, error) {
				return play(Config{Seed: seed, Providers: 3}, 2, func(w *World) {
					at := time.Duration(seed) * 400 * time.Millisecond
					Part(w, w.Nodes[w.Rand().IntN(len(w.Nodes))], at, long)
				}), nil
			})
		})
	}
}

// TestChaos throws everything in at once: a bad line, crashing runs, lying,
// silent and copying providers, kills and partitions. Of four authorities three live.
func TestChaos(t *testing.T) {
	wrongs := 0
	seeds(t, 40, func(seed uint64) (*World, error) {
		w := play(Config{
			Seed: seed, Providers: 5, Consumers: 2, Link: rough, Faults: 0.1,
			Provider: func(w *World, i int) Adversary {
				return []Adversary{
					nil, nil, WrongResult{}, &Copycat{}, Mute{Claim: true}, Mute{Commit: true}, Withhold{Reveal: true},
					Withhold{Reveal: true, Lie: true}, Withhold{Serve: true}, Equivocate{},
				}[w.Rand().IntN(10)]
			},
			Spec: func(w *World, s *crowd.JobSpec) {
				if w.Chance(0.1) {
					s.Task.Stdin = "huge"
				}
			},
		}, 5, func(w *World) {
			w.Nodes[1+w.Rand().IntN(len(w.Nodes)-1)].Kill = Kill{At: 1 + w.Rand().IntN(60), Down: time.Duration(w.Rand().IntN(5000)) * time.Millisecond}
			if n := w.Nodes[4+w.Rand().IntN(len(w.Nodes)-4)]; n.Kill.At == 0 {
				Part(w, n, time.Duration(w.Rand().IntN(5000))*time.Millisecond, time.Duration(w.Rand().IntN(9000))*time.Millisecond)
			}
		})
		wrongs += len(w.Slashed)
		for _, p := range w.Jobs {
			if p.WrongAccepted() {
				return w, fmt.Errorf("job %s came to a wrong outcome without a ring", p.ID.Short())
			}
		}
		return w, nil
	})
	if wrongs == 0 && *seedFlag == 0 {
		t.Error("nobody was ever caught: the test tests nothing")
	}
}

func TestUnusableInputs(t *testing.T) {
	seeds(t, 3, func(seed uint64) (*World, error) {
		c := pair(seed, nil)
		c.Spec = func(_ *World, s *crowd.JobSpec) { s.Task.Inputs = "huge" }
		w := play(c, 1, nil)
		if err := (wants{0, ledger.Settled, ledger.ByAgreement}).check(w); err != nil {
			return w, err
		}
		if got := w.Jobs[0].Last.Verdict.Outcome.Status; got != crowd.NoInput {
			return w, fmt.Errorf("got status %s", got)
		}
		return w, nil
	})
}

// TestCollusion measures the one way to a wrong outcome that is accepted: both
// executors belong to one ring. With k of n equal providers in the ring the draw
// seats two of them with probability k(k-1)/(n(n-1)), about f².
func TestCollusion(t *testing.T) {
	const n, jobs = 10, 40
	for _, k := range []int{3, 6} {
		t.Run(fmt.Sprintf("%d of %d", k, n), func(t *testing.T) {
			wrong, total := 0, 0
			seeds(t, 4, func(seed uint64) (*World, error) {
				ring := &Ring{}
				p := ledger.DevParams()
				p.Retention = 1000
				w := play(Config{Seed: seed, Providers: n, Authorities: 1, Consumers: 4, Params: p}, jobs, func(w *World) {
					for i := range k {
						w.Provider(i).adv = ring.Join(w.Provider(i))
					}
				})
				for _, p := range w.Jobs {
					if p.Last.Verdict != nil {
						total++
					}
					if p.WrongAccepted() {
						wrong++
					}
				}
				return w, nil
			})
			want := float64(k*(k-1)) / (n * (n - 1))
			got := float64(wrong) / float64(total)
			sigma := math.Sqrt(want * (1 - want) / float64(total))
			t.Logf("%d jobs: wrong outcomes accepted %.3f, formula %.3f ± %.3f, f² %.3f", total, got, want, sigma, float64(k*k)/(n*n))
			if *seedFlag == 0 && (total < 4*jobs*9/10 || math.Abs(got-want) > 4*sigma) {
				t.Errorf("got %.3f of %d jobs wrong, want %.3f ± %.3f", got, total, want, sigma)
			}
		})
	}
}
