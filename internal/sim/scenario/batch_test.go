package scenario

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/sim"
)

// seated gives adversaries to the places of a job, in order: the executor first. Who gets none is honest.
type seated struct {
	at   map[int]Adversary
	used map[*Node]bool
}

func (s *seated) of(w *World, n *Node, id crowd.JobID) Adversary {
	p := w.jobs[id]
	if p == nil {
		return plain{}
	}
	i := slices.IndexFunc(p.Last.Places, func(pl ledger.Place) bool { return pl.Node == n.ID })
	if a := s.at[i]; a != nil {
		s.used[n] = true
		return a
	}
	return plain{}
}

func (s *seated) Bend(w *World, n *Node, id crowd.JobID, r job.Role, e job.Effect) []job.Effect {
	return s.of(w, n, id).Bend(w, n, id, r, e)
}
func (s *seated) Serves(w *World, n *Node, c crowd.CID, to *Node) bool {
	return len(w.Jobs) == 0 || s.of(w, n, w.Jobs[0].ID).Serves(w, n, c, to)
}
func (s *seated) Result(w *World, n *Node, id crowd.JobID, o crowd.Outcome) crowd.Outcome {
	return s.of(w, n, id).Result(w, n, id, o)
}
func (s *seated) Leaves(w *World, n *Node, id crowd.JobID, only []uint32, l []batch.Leaf) []batch.Leaf {
	return s.of(w, n, id).Leaves(w, n, id, only, l)
}
func (s *seated) Garbles(w *World, n *Node, id crowd.JobID) bool {
	return s.of(w, n, id).Garbles(w, n, id)
}
func (s *seated) Saw(w *World, n *Node, c job.Chain) { s.of(w, n, c.Job.ID).Saw(w, n, c) }

// sampled plays one batch of 200 items, two verifiers with 20 checks each, with
// adversaries on its places.
func sampled(c Config, at map[int]Adversary, plan func(*World)) *World {
	s := &seated{at: at, used: map[*Node]bool{}}
	if c.Providers == 0 {
		c.Providers = 3
	}
	if c.Spec == nil {
		c.Spec = Batch(200, 2, 20)
	}
	c.Provider = func(*World, int) Adversary { return s }
	w := play(c, 1, plan)
	for _, n := range w.Nodes {
		if n.adv == s && !s.used[n] {
			n.adv = nil // it was honest
		}
	}
	return w
}

// guilty checks that exactly those places lost their stake, and how the job ended.
func guilty(w *World, state ledger.JobState, places ...int) error {
	if len(w.Jobs) != 1 {
		return fmt.Errorf("got %d jobs, want 1", len(w.Jobs))
	}
	j := &w.Jobs[0].Last
	var got []int
	for i := range j.Places {
		if j.Places[i].State == ledger.Fraud {
			got = append(got, i)
		}
	}
	if j.State != state || !slices.Equal(got, places) || len(w.Slashed) != len(places) {
		return fmt.Errorf("got job %s (%s) and places %v slashed, want %s and %v", j.State, j.History[len(j.History)-1].Why, got, state, places)
	}
	return nil
}

func TestBatch_Honest(t *testing.T) {
	seeds(t, 3, func(seed uint64) (*World, error) {
		w := play(Config{Seed: seed, Consumers: 2, Spec: Batch(1000, 2, 22)}, 3, nil)
		if len(w.Slashed) > 0 {
			return w, fmt.Errorf("got %d slashed", len(w.Slashed))
		}
		return w, allSettled(w, 3)
	})
}

func TestBatch_UnusableItemsAreAnOutcome(t *testing.T) {
	seeds(t, 1, func(seed uint64) (*World, error) {
		w := play(Config{Seed: seed, Providers: 3, Spec: func(w *World, s *crowd.JobSpec) {
			Batch(50, 2, 10)(w, s)
			s.Task.Stdin = "huge"
		}}, 1, nil)
		return w, allSettled(w, 1)
	})
}

func TestBatch_Adversary(t *testing.T) {
	cheat := Cheat{Rate: 0.3}
	type adv = map[int]Adversary
	for _, tt := range []struct {
		name     string
		at       adv
		consumer Adversary
		state    ledger.JobState
		guilty   []int
	}{
		{"a cheating executor", adv{0: cheat}, nil, ledger.Failed, []int{0}},
		{"a cheat in its off phase", adv{0: &OnOff{Cheat: cheat, Honest: 1}}, nil, ledger.Settled, nil},
		{"a cheat in its on phase", adv{0: &OnOff{Cheat: cheat}}, nil, ledger.Failed, []int{0}},
		{"gas of one item beyond its limit", adv{0: Inflate{}}, nil, ledger.Failed, nil},
		{"a lazy verifier", adv{1: Lazy{}}, nil, ledger.Settled, []int{1}},
		{"two lazy verifiers", adv{1: Lazy{}, 2: Lazy{}}, nil, ledger.Failed, []int{1, 2}},
		{"a verifier that waits to copy", adv{1: Lazy{Wait: true}}, nil, ledger.Failed, nil},
		{"a framing verifier", adv{2: Framer{}}, nil, ledger.Settled, []int{2}},
		{"a cheat and a framer", adv{0: cheat, 1: Framer{}}, nil, ledger.Failed, []int{0, 1}},
		{"a copied commitment", adv{2: &Copycat{}}, nil, ledger.Settled, []int{2}},
		{"nonsense reports from everybody", adv{0: &Disputer{}, 1: &Disputer{}, 2: &Disputer{}}, nil, ledger.Settled, nil},
		{"a commit that never comes", adv{1: Mute{Commit: true}}, nil, ledger.Failed, nil},
		{"an executor that never reveals", adv{0: Withhold{Reveal: true}}, nil, ledger.Settled, nil},
		{"a lie that is never revealed", adv{0: Withhold{Reveal: true, Lie: true}}, nil, ledger.Failed, []int{0}},
		{"a verifier that never reveals", adv{1: Withhold{Reveal: true}}, nil, ledger.Settled, nil},
		{"verifiers that never reveal", adv{1: Withhold{Reveal: true}, 2: Withhold{Reveal: true}}, nil, ledger.Settled, nil},
		{"leaves that nobody gets", adv{0: Withhold{Serve: true}}, nil, ledger.Failed, nil},
		{"a lie whose leaves nobody gets", adv{0: Withhold{Serve: true, Lie: true}}, nil, ledger.Failed, nil},
		{"a liar that hides once it sees that it is caught", adv{0: &Vanish{Cheat: cheat}}, nil, ledger.Failed, []int{0}},
		{"the same, and a verifier that helps by silence", adv{0: &Vanish{Cheat: cheat}, 1: Withhold{Reveal: true, Serve: true}}, nil, ledger.Failed, []int{0}},
		{"no accept", nil, Miser{NoAccept: true}, ledger.Settled, nil},
		{"a complaint about what was served", nil, Miser{Complain: true}, ledger.Settled, nil},
		{"a lie that the owner is silent about", adv{0: cheat}, Miser{NoAccept: true}, ledger.Failed, []int{0}},
		{"no inputs", nil, Miser{NoInputs: true}, ledger.Failed, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seeds(t, 1, func(seed uint64) (*World, error) {
				w := sampled(Config{Seed: seed, Consumer: func(*World, int) Adversary { return tt.consumer }}, tt.at, nil)
				return w, guilty(w, tt.state, tt.guilty...)
			})
		})
	}
}

// A gang that holds every seat passes what it likes: that is the chance that a plan states. With one honest
// verifier it is caught, and if it is choosy it does not try.
func TestBatch_Gang(t *testing.T) {
	for _, tt := range []struct {
		name    string
		members int // of the three places, the executor first
		choosy  bool
		wrong   bool
		guilty  []int
	}{
		{"all three", 3, true, true, nil},
		{"one honest verifier", 2, false, false, []int{0, 1}},
		{"one honest verifier, choosy", 2, true, false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seeds(t, 1, func(seed uint64) (*World, error) {
				g := &Gang{Rate: 0.3, Choosy: tt.choosy}
				at := map[int]Adversary{}
				for i := range tt.members {
					at[i] = g
				}
				w := sampled(Config{Seed: seed, After: func(w *World, _ *ledger.Applied) {
					if len(w.Jobs) == 1 && g.members == nil {
						for i := range w.Jobs[0].Last.Places[:min(tt.members, len(w.Jobs[0].Last.Places))] {
							g.members = append(g.members, w.Jobs[0].Last.Places[i].Node)
						}
					}
				}}, at, nil)
				if len(w.Jobs) != 1 {
					return w, errors.New("no job")
				}
				f, ok := w.Look(w.Jobs[0])
				if wrong := ok && len(f.Lies) > 0 && w.Jobs[0].Last.State == ledger.Settled; wrong != tt.wrong {
					return w, fmt.Errorf("got wrong accepted %v, want %v", wrong, tt.wrong)
				}
				state := ledger.Settled
				if len(tt.guilty) > 0 {
					state = ledger.Failed
				}
				j := &w.Jobs[0].Last
				if j.State != state || len(w.Slashed) == 0 != (len(tt.guilty) == 0) {
					return w, fmt.Errorf("got %s with %d slashed (%s)", j.State, len(w.Slashed), j.History[len(j.History)-1].Why)
				}
				return w, nil
			})
		})
	}
}

// TestBatch_Kill kills one node after each of its effects.
func TestBatch_Kill(t *testing.T) {
	for _, tt := range []struct {
		name   string
		node   func(w *World) *Node
		down   time.Duration
		lies   bool
		settle bool // whatever the moment
	}{
		{"a provider for a second", func(w *World) *Node { return w.Provider(0) }, time.Second, false, true},
		{"a provider for ever", func(w *World) *Node { return w.Provider(1) }, 0, false, false},
		{"the consumer for a second", func(w *World) *Node { return w.Consumer(0) }, time.Second, false, true},
		{"an authority for a second, with a liar", func(w *World) *Node { return w.Authority(1) }, time.Second, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			killed, step := 0, 2
			if testing.Short() {
				step = 5
			}
			seeds(t, 1, func(seed uint64) (*World, error) {
				for at := 1; ; at += step {
					var adv map[int]Adversary
					if tt.lies {
						adv = map[int]Adversary{0: Cheat{Rate: 0.5}}
					}
					w := sampled(Config{Seed: seed + uint64(at%step)}, adv, func(w *World) { tt.node(w).Kill = Kill{At: at, Down: tt.down} })
					if tt.node(w).Steps < at {
						return w, nil
					}
					killed++
					err := w.Check()
					if tt.settle && err == nil {
						err = allSettled(w, 1)
					}
					if tt.lies && err == nil {
						err = guilty(w, ledger.Failed, 0)
					}
					if err != nil || len(w.Jobs) != 1 {
						return w, fmt.Errorf("killed after effect %d, %d jobs: %w", at, len(w.Jobs), err)
					}
				}
			})
			if killed < 5 && *seedFlag == 0 {
				t.Errorf("got only %d moments to kill", killed)
			}
		})
	}
}

// TestBatch_Chaos throws everything in at once, as TestChaos does for single tasks.
func TestBatch_Chaos(t *testing.T) {
	slashed, settled := 0, 0
	seeds(t, 12, func(seed uint64) (*World, error) {
		gang := &Gang{Rate: 0.3}
		w := play(Config{
			Seed: seed, Providers: 6, Consumers: 2, Link: rough, Faults: 0.1,
			Spec: func(w *World, s *crowd.JobSpec) { Batch(100, uint32(1+w.Rand().IntN(3)), 10)(w, s) },
			Consumer: func(w *World, i int) Adversary {
				return []Adversary{
					nil, nil, nil, &Bribed{}, Miser{NoAccept: true}, Miser{Complain: true}, Miser{NoInputs: true}, Fickle{State: ledger.Running}, Fickle{State: ledger.Court},
				}[w.Rand().IntN(9)]
			},
			Provider: func(w *World, i int) Adversary {
				return []Adversary{
					nil, nil, nil, Cheat{Rate: 0.3}, Lazy{}, Lazy{Wait: true}, Framer{}, &Copycat{}, &Disputer{}, &Vanish{Cheat: Cheat{Rate: 0.3}},
					Inflate{}, Mute{Claim: true}, Mute{Commit: true}, Withhold{Reveal: true}, Withhold{Reveal: true, Lie: true}, Withhold{Serve: true}, gang,
				}[w.Rand().IntN(17)]
			},
		}, 4, func(w *World) {
			for i := range w.Config.Providers {
				if n := w.Provider(i); n.adv == gang {
					gang.Join(n)
				}
			}
			w.Nodes[1+w.Rand().IntN(len(w.Nodes)-1)].Kill = Kill{At: 1 + w.Rand().IntN(60), Down: time.Duration(w.Rand().IntN(5000)) * time.Millisecond}
			if n := w.Nodes[4+w.Rand().IntN(len(w.Nodes)-4)]; n.Kill.At == 0 {
				Part(w, n, time.Duration(w.Rand().IntN(5000))*time.Millisecond, time.Duration(w.Rand().IntN(9000))*time.Millisecond)
			}
		})
		slashed += len(w.Slashed)
		s, _, _ := states(w)
		settled += s
		return w, nil
	})
	if (slashed == 0 || settled == 0) && *seedFlag == 0 {
		t.Errorf("got %d slashed and %d settled: the test tests nothing", slashed, settled)
	}
}

// TestBatch_Partition cuts a node off for a while, at every stage, with a cheat among the seats.
func TestBatch_Partition(t *testing.T) {
	for _, long := range []time.Duration{300 * time.Millisecond, 3 * time.Second, 20 * time.Second} {
		t.Run(long.String(), func(t *testing.T) {
			seeds(t, 6, func(seed uint64) (*World, error) {
				return play(Config{Seed: seed, Providers: 4, Spec: Batch(100, 2, 10), Provider: some(map[int]Adversary{0: Cheat{Rate: 0.3}})}, 2, func(w *World) {
					at := time.Duration(seed) * 700 * time.Millisecond
					Part(w, w.Nodes[w.Rand().IntN(len(w.Nodes))], at, long)
				}), nil
			})
		})
	}
}

func TestBatch_Replay(t *testing.T) {
	seeds(t, 1, func(seed uint64) (*World, error) {
		var w *World
		err := sim.Replay(func(t *sim.Trace) {
			w = sampled(Config{Seed: seed, Link: rough, Faults: 0.2, Trace: t}, map[int]Adversary{0: Cheat{Rate: 0.1}}, nil)
		})
		return w, err
	})
}

// A second identity draws as a newcomer and is caught like the first.
func TestBatch_Whitewash(t *testing.T) {
	seeds(t, 1, func(seed uint64) (*World, error) {
		first, second := &Cheat{Rate: 0.5}, &Whitewash{Cheat: Cheat{Rate: 0.5}}
		w := play(Config{
			Seed: seed, Providers: 3, Consumers: 2, Spec: Batch(100, 2, 10),
			Provider: some(map[int]Adversary{0: first}),
			Consumer: some(map[int]Adversary{1: second}),
		}, 0, func(w *World) {
			second.Was = w.Provider(0)
			for i := range 24 {
				w.After(time.Duration(i)*9*time.Second, func() { w.Post(w.Consumer(0), nil) })
			}
			w.Run(sim.Epoch.Add(250*time.Second), nil)
		})
		if !second.Registered || len(w.Slashed) != 2 {
			return w, fmt.Errorf("got registered %v and %d slashed, want both identities", second.Registered, len(w.Slashed))
		}
		return w, nil
	})
}

// A consumer that accepts unseen, the moment it can, settles no lie: verifiers show a conflict as they open.
func TestBatch_Bribed(t *testing.T) {
	seeds(t, 6, func(seed uint64) (*World, error) {
		w := sampled(Config{Seed: seed, Consumer: func(*World, int) Adversary { return &Bribed{} }}, map[int]Adversary{0: Cheat{Rate: 0.5}}, nil)
		return w, guilty(w, ledger.Failed, 0)
	})
}

// A wash trader pays for every job that it gives to itself, and nobody else loses.
func TestBatch_WashTradingCosts(t *testing.T) {
	seeds(t, 1, func(seed uint64) (*World, error) {
		var own []*Node
		wealth := func(w *World) (sum crowd.Credits) {
			for _, n := range append(own, w.Consumer(0)) {
				sum += w.state.Account(n.ID.Address()).Balance
				if p, ok := w.state.Provider(n.ID.Address()); ok {
					sum += p.Stake
				}
			}
			return sum
		}
		before := crowd.Credits(0)
		w := play(Config{Seed: seed, Providers: 6}, 4, func(w *World) {
			own = []*Node{w.Provider(0), w.Provider(1), w.Provider(2)}
			before = wealth(w)
			wash, shape := Wash(w, w.Consumer(0), own...), Batch(100, 2, 10)
			w.Config.Spec = func(w *World, s *crowd.JobSpec) { shape(w, s); wash(w, s) }
		})
		if err := allSettled(w, 4); err != nil {
			return w, err
		}
		paid := crowd.Credits(0)
		for _, p := range w.Jobs {
			for _, x := range p.Last.Payments {
				if x.Why == ledger.WhyBurned {
					paid += x.Amount
				}
			}
		}
		if lost := before - wealth(w); lost < paid || paid == 0 {
			return w, fmt.Errorf("it lost %s, want the burned %s at least", lost, paid)
		}
		return w, nil
	})
}
