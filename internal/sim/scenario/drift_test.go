package scenario

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

var (
	lines  = crowd.Compare{Kind: crowd.CompareLines}
	never  = crowd.Compare{Kind: crowd.CompareWasm, Program: "never", Gas: 1e6}
	looper = crowd.Compare{Kind: crowd.CompareWasm, Program: "loops", Gas: 1e6}
)

// Honest machines that differ are paid, all of them, and the lower gas counts. A liar among them is
// found, and so is one whose gas is too high; who hides what it lied about gets nothing.
func TestDrift_Pair(t *testing.T) {
	for _, tt := range []struct {
		name string
		how  crowd.Compare
		adv  map[int]Adversary
		want wants
		work int // places that are paid
		why  string
	}{
		{"honest", lines, nil, wants{0, ledger.Settled, ledger.ByCourt}, 2, "numeric divergence"},
		{"a liar", lines, map[int]Adversary{0: WrongResult{}}, wants{1, ledger.Settled, ledger.ByCourt}, 1, ""},
		{"two liars", lines, map[int]Adversary{0: WrongResult{}, 1: WrongResult{}}, wants{2, ledger.Failed, ""}, 0, "is within"},
		{"a liar that hides", lines, map[int]Adversary{0: Liar{Hide: true}}, wants{0, ledger.Settled, ledger.ByCourt}, 1, ""},
		{"more gas than the job tolerates", lines, map[int]Adversary{0: Liar{Gas: true}}, wants{1, ledger.Settled, ledger.ByCourt}, 1, ""},
		{"one that never commits", lines, map[int]Adversary{0: Mute{Commit: true}}, wants{0, ledger.Settled, ledger.ByCourt}, 1, "numeric divergence"},
		{"a comparator that loops", looper, nil, wants{0, ledger.Failed, ""}, 2, ledger.WhyUnjudged},
		{"a comparator that says no to all", never, nil, wants{0, ledger.Failed, ""}, 2, ledger.WhyUnjudged},
		{"a comparator that loops, and a liar", looper, map[int]Adversary{0: WrongResult{}}, wants{0, ledger.Failed, ""}, 2, ledger.WhyUnjudged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seeds(t, 2, func(seed uint64) (*World, error) {
				c := pair(seed, some(tt.adv))
				c.Drift, c.Spec = true, Tolerant(tt.how, nil)
				w := play(c, 1, nil)
				return w, within(w, tt.want, tt.work, tt.why)
			})
		})
	}
}

// within checks how a job ended, who was paid, and that everybody was paid by the lower gas.
func within(w *World, want wants, work int, why string) error {
	if err := want.check(w); err != nil {
		return err
	}
	j := &w.Jobs[0].Last
	paid := map[crowd.Address]crowd.Credits{}
	for _, p := range j.Payments {
		if p.Why == ledger.WhyWork {
			paid[p.To] += p.Amount
		}
	}
	if len(paid) != work {
		return fmt.Errorf("got %d paid for work, want %d", len(paid), work)
	}
	for i := range j.Places {
		p := &j.Places[i]
		if got := paid[p.Node.Address()]; got > 0 && j.Verdict != nil && !p.Verifier {
			if most := w.Config.Params.Pay(p.Price, min(j.Verdict.Outcome.Gas, p.Opening.Outcome.Gas)); got > most {
				return fmt.Errorf("%s got %s for what the lower gas makes %s", p.Node.Short(), got, most)
			}
		}
	}
	said := false
	for _, h := range j.History {
		said = said || strings.Contains(h.Why, why)
	}
	if !said {
		return fmt.Errorf("got a history without %q: %v", why, j.History)
	}
	return nil
}

// The other plans for a single task go the same way.
func TestDrift_Plans(t *testing.T) {
	committee := crowd.Plan{Method: crowd.PlanCommittee, Executors: 3}
	for _, tt := range []struct {
		name string
		plan crowd.Plan
		adv  map[int]Adversary // of three providers
		want wants
		work int
		why  string
	}{
		{"a committee", committee, nil, wants{0, ledger.Settled, ledger.ByCourt}, 3, "numeric divergence"},
		{"a committee with two liars", committee, map[int]Adversary{0: WrongResult{}, 2: WrongResult{}}, wants{2, ledger.Settled, ledger.ByCourt}, 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seeds(t, 2, func(seed uint64) (*World, error) {
				w := play(Config{Seed: seed, Providers: 3, Drift: true, Provider: some(tt.adv), Spec: Tolerant(lines, func(_ *World, s *crowd.JobSpec) { s.Plan = tt.plan })}, 1, nil)
				return w, within(w, tt.want, tt.work, tt.why)
			})
		})
	}
}

func TestDrift_Batch(t *testing.T) {
	cheat := Cheat{Rate: 0.3}
	type adv = map[int]Adversary
	for _, tt := range []struct {
		name     string
		how      crowd.Compare
		at       adv
		consumer Adversary
		state    ledger.JobState
		guilty   []int
		cleared  int // at least
	}{
		{"honest", lines, nil, nil, ledger.Settled, nil, 0},
		{"a cheating executor", lines, adv{0: cheat}, nil, ledger.Failed, []int{0}, 1},
		{"a cheat and a silent owner", lines, adv{0: cheat}, Miser{NoAccept: true}, ledger.Failed, []int{0}, 1},
		{"a framing verifier", lines, adv{1: Framer{}}, nil, ledger.Settled, []int{1}, 1},
		{"a framing verifier that hides", lines, adv{1: &Hider{}}, nil, ledger.Settled, nil, 1},
		{"a lazy verifier", lines, adv{1: Lazy{}}, nil, ledger.Settled, []int{1}, 1},
		{"a silent owner", lines, nil, Miser{NoAccept: true}, ledger.Settled, nil, 0},
		{"an owner that sends the court for nothing", lines, nil, &Sender{}, ledger.Settled, nil, 1},
		{"a comparator that loops", looper, nil, nil, ledger.Failed, nil, 0},
		{"a comparator that says no to all", never, nil, nil, ledger.Failed, nil, 0},
		{"a comparator that loops, and a cheat", looper, adv{0: cheat}, nil, ledger.Failed, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seeds(t, 1, func(seed uint64) (*World, error) {
				w := sampled(Config{Seed: seed, Drift: true, Spec: Tolerant(tt.how, Batch(100, 2, 10)), Consumer: func(*World, int) Adversary { return tt.consumer }}, tt.at, nil)
				if err := guilty(w, tt.state, tt.guilty...); err != nil {
					return w, err
				}
				if got := len(w.Jobs[0].Last.Cleared); got < tt.cleared {
					return w, fmt.Errorf("got %d items before the court, want %d", got, tt.cleared)
				}
				return w, idlePaid(w)
			})
		})
	}
}

// idlePaid checks that the court's work for nothing is paid out of the escrow, and no other.
func idlePaid(w *World) error {
	j := &w.Jobs[0].Last
	var got, want crowd.Credits
	for _, p := range j.Payments {
		if p.Why == ledger.WhyCourt && !p.Slashed {
			got += p.Amount
		}
	}
	for _, c := range j.Cleared {
		if c.Reporter != (crowd.NodeID{}) && j.State == ledger.Settled {
			want += j.Spec.Filters.MaxPrice.Cost(j.Spec.Task.Limits.Gas)
		}
	}
	if got > want || got < want*9/10 { // shared among the authorities
		return fmt.Errorf("got %s paid to the court out of the escrow, want %s", got, want)
	}
	return nil
}

// All of eight verifiers have answered for every item, and one of them lies: an authority compares with all of them and with
// its colleagues, and its journal stays one that can be read back.
func TestDrift_Crowded(t *testing.T) {
	program := crowd.Compare{Kind: crowd.CompareWasm, Program: "compares", Gas: 1e6}
	seeds(t, 1, func(seed uint64) (*World, error) {
		w := sampled(Config{Seed: seed, Drift: true, Providers: 9, Authorities: 7, Spec: Tolerant(program, Batch(10, 8, 10))}, map[int]Adversary{1: Framer{}}, nil)
		return w, guilty(w, ledger.Settled, 1)
	})
}

// An owner that declares strict what is not has nobody convicted: the authorities differ too, and come to no verdict.
func TestDrift_Undeclared(t *testing.T) {
	for name, shape := range map[string]func(*World, *crowd.JobSpec){"one task": nil, "a batch": Batch(60, 2, 8)} {
		t.Run(name, func(t *testing.T) {
			seeds(t, 3, func(seed uint64) (*World, error) {
				w := play(Config{Seed: seed, Providers: 3, Drift: true, Undeclared: true, Spec: shape}, 2, nil)
				if _, _, failed := states(w); failed != 2 || len(w.Slashed) > 0 {
					return w, fmt.Errorf("got %d failed and %d slashed", failed, len(w.Slashed))
				}
				return w, nil
			})
		})
	}
}

// TestDrift_Kill kills one node after some of its effects, in tolerant jobs with a liar: the liar loses all the same.
func TestDrift_Kill(t *testing.T) {
	for _, tt := range []struct {
		name string
		node func(w *World) *Node
	}{
		{"an authority", func(w *World) *Node { return w.Authority(1) }},
		{"the consumer", func(w *World) *Node { return w.Consumer(0) }},
		{"an honest provider", func(w *World) *Node { return w.Provider(1) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			killed := 0
			seeds(t, 1, func(seed uint64) (*World, error) {
				for at := 1; ; at += 2 {
					c := pair(seed+uint64(at), some(map[int]Adversary{0: WrongResult{}}))
					c.Drift, c.Spec = true, Tolerant(lines, nil)
					w := play(c, 1, func(w *World) { tt.node(w).Kill = Kill{At: at, Down: time.Second} })
					if tt.node(w).Steps < at {
						return w, nil
					}
					killed++
					if err := w.Check(); err != nil || len(w.Slashed) != 1 {
						return w, fmt.Errorf("killed after effect %d: got %d slashed, %w", at, len(w.Slashed), err)
					}
				}
			})
			if killed < 4 && *seedFlag == 0 {
				t.Errorf("got only %d moments to kill", killed)
			}
		})
	}
}

// Honest machines that differ in jobs of every kind, with liars among them, on a bad network: nobody honest
// ever pays, which Check asserts, and some of the liars do.
func TestDrift_Chaos(t *testing.T) {
	slashed, settled := 0, 0
	seeds(t, 8, func(seed uint64) (*World, error) {
		w := play(Config{
			Seed: seed, Providers: 6, Consumers: 2, Link: rough, Faults: 0.1, Drift: true,
			Spec: func(w *World, s *crowd.JobSpec) {
				how := []crowd.Compare{lines, lines, lines, looper, never, {}}[w.Rand().IntN(6)]
				if w.Rand().IntN(2) == 0 {
					Batch(60, uint32(1+w.Rand().IntN(2)), 8)(w, s)
				}
				if !how.Strict() {
					Tolerant(how, nil)(w, s)
				}
			},
			Consumer: func(w *World, i int) Adversary {
				return []Adversary{nil, nil, nil, Miser{NoAccept: true}, Miser{Complain: true}, &Sender{}}[w.Rand().IntN(6)]
			},
			Provider: func(w *World, i int) Adversary {
				return []Adversary{nil, nil, nil, nil, Cheat{Rate: 0.3}, Framer{}, &Hider{}, WrongResult{}, Liar{Hide: true}, Liar{Gas: true}, Lazy{}, Mute{Commit: true}}[w.Rand().IntN(12)]
			},
		}, 4, nil)
		slashed += len(w.Slashed)
		s, _, _ := states(w)
		settled += s
		return w, nil
	})
	if (slashed == 0 || settled == 0) && *seedFlag == 0 {
		t.Errorf("got %d slashed and %d settled: the test tests nothing", slashed, settled)
	}
}
