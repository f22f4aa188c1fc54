package scenario

import (
	"fmt"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/sim"
)

// under lets every job be checked by plan.
func under(p crowd.Plan) func(*World, *crowd.JobSpec) {
	return func(_ *World, s *crowd.JobSpec) { s.Plan = p }
}

func auditAt(rate uint32) crowd.Plan {
	return crowd.Plan{Method: crowd.PlanAudit, Rate: rate, Replacements: 2}
}

// by counts verdicts.
func by(w *World, how string) (n int) {
	for _, p := range w.Jobs {
		if v := p.Last.Verdict; v != nil && v.By == how {
			n++
		}
	}
	return n
}

func TestPlans_Honest(t *testing.T) {
	unchecked, checked := 0, 0
	seeds(t, 6, func(seed uint64) (*World, error) {
		w := play(Config{Seed: seed, Consumers: 2, Veterans: true, Spec: under(auditAt(crowd.AuditFloor))}, 6, nil)
		unchecked, checked = unchecked+by(w, ledger.ByAudit), checked+by(w, ledger.ByAgreement)
		if len(w.Slashed) > 0 {
			return w, fmt.Errorf("got %d slashed", len(w.Slashed))
		}
		return w, allSettled(w, 6)
	})
	if *seedFlag == 0 && (unchecked == 0 || unchecked < 5*checked) {
		t.Errorf("got %d jobs unchecked and %d checked want about 5 %% of the whole checked", unchecked, checked)
	}
	seeds(t, 2, func(seed uint64) (*World, error) { // newcomers are checked always
		w := play(Config{Seed: seed, Providers: 8, Spec: under(auditAt(crowd.AuditFloor))}, 3, nil)
		if n := by(w, ledger.ByAudit); n > 0 {
			return w, fmt.Errorf("%d results of newcomers were accepted unchecked", n)
		}
		return w, allSettled(w, 3)
	})
	for n := uint32(crowd.MinCommittee); n <= crowd.MaxCommittee; n += 3 {
		seeds(t, 2, func(seed uint64) (*World, error) {
			w := play(Config{Seed: seed, Providers: int(n) + 1, Spec: under(crowd.Plan{Method: crowd.PlanCommittee, Executors: n})}, 2, nil)
			return w, allSettled(w, 2)
		})
	}
}

// Each adversary of a pair as the executor, the auditor or an alternate of an audit, chosen and
// not. What Check promises holds; a lie passes only where nobody looked.
func TestPlans_AdversariesUnderAudit(t *testing.T) {
	for _, tt := range []struct {
		name string
		adv  func() Adversary
		lies bool
	}{
		{"wrong results", func() Adversary { return WrongResult{} }, true},
		{"a copied commitment", func() Adversary { return &Copycat{} }, false},
		{"claims that never come", func() Adversary { return Mute{Claim: true} }, false},
		{"commits that never come", func() Adversary { return Mute{Commit: true} }, false},
		{"reveals that never come", func() Adversary { return Withhold{Reveal: true} }, false},
		{"lies that are never revealed", func() Adversary { return Withhold{Reveal: true, Lie: true} }, true},
		{"results from nobody", func() Adversary { return Withhold{Serve: true} }, false},
		{"two commits", func() Adversary { return Equivocate{} }, false},
	} {
		for _, rate := range []uint32{crowd.AuditFloor, 1e6} {
			t.Run(fmt.Sprintf("%s at %d ppm", tt.name, rate), func(t *testing.T) {
				passed, caught := 0, 0
				seeds(t, 4, func(seed uint64) (*World, error) {
					w := play(Config{Seed: seed, Providers: 5, Veterans: true, Spec: under(auditAt(rate)),
						Provider: some(map[int]Adversary{0: tt.adv(), 1: tt.adv(), 2: tt.adv()})}, 4, nil)
					caught += len(w.Slashed)
					for _, p := range w.Jobs {
						if !p.WrongAccepted() {
							continue
						}
						if passed++; rate == 1e6 || p.Last.Verdict.By != ledger.ByAudit {
							return w, fmt.Errorf("job %s: a lie passed, by %s at %d ppm", p.ID.Short(), p.Last.Verdict.By, rate)
						}
					}
					return w, nil
				})
				if tt.lies && *seedFlag == 0 && (rate == 1e6 && caught < 3 || rate < 1e6 && passed < 3) {
					t.Errorf("got %d liars caught and %d lies passed: the test tests nothing", caught, passed)
				}
			})
		}
	}
}

// TestPlans_Kill kills an executor or an authority after each of its effects: before and after
// the commitment, as the auditor, with nobody left who could audit.
func TestPlans_Kill(t *testing.T) {
	for _, tt := range []struct {
		name   string
		node   func(w *World) *Node
		down   time.Duration
		plan   crowd.Plan
		lies   bool // one of the others
		settle bool
	}{
		{"an executor or auditor for a second", func(w *World) *Node { return w.Provider(0) }, time.Second, auditAt(1e6), false, true},
		{"an executor or auditor for ever", func(w *World) *Node { return w.Provider(0) }, 0, auditAt(1e6), false, false},
		{"an executor for ever that is hardly ever chosen", func(w *World) *Node { return w.Provider(0) }, 0, auditAt(crowd.AuditFloor), false, false},
		{"an auditor of a liar for ever", func(w *World) *Node { return w.Provider(0) }, 0, auditAt(1e6), true, false},
		{"an authority for ever", func(w *World) *Node { return w.Authority(1) }, 0, auditAt(1e6), true, true},
		{"a member of a committee for ever", func(w *World) *Node { return w.Provider(0) }, 0, crowd.Plan{Method: crowd.PlanCommittee, Executors: 3}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			killed := 0
			seeds(t, 3, func(seed uint64) (*World, error) {
				for at := 1; ; at++ {
					c := Config{Seed: seed, Providers: 3, Veterans: true, Spec: under(tt.plan)}
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
					if err != nil || len(w.Jobs) != 1 || w.Jobs[0].Ended.IsZero() {
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

// alike lies whoever else has a place, with the lie of all who are it.
type alike struct{ plain }

func (alike) Result(_ *World, n *Node, id crowd.JobID, honest crowd.Outcome) crowd.Outcome {
	return wrong(n, id, honest, "ring")
}

// Three of a ring tell one lie to a committee of four: the one that is honest is enough, and no majority counts.
func TestPlans_RingAgainstCommittee(t *testing.T) {
	caught := 0
	seeds(t, 6, func(seed uint64) (*World, error) {
		w := play(Config{Seed: seed, Providers: 6, Spec: under(crowd.Plan{Method: crowd.PlanCommittee, Executors: 4}),
			Provider: some(map[int]Adversary{0: alike{}, 1: alike{}, 2: alike{}})}, 1, nil)
		caught += len(w.Slashed)
		for _, p := range w.Jobs {
			if p.WrongAccepted() {
				return w, fmt.Errorf("job %s: %d liars passed a committee of four", p.ID.Short(), len(p.Last.Places)-1)
			}
		}
		return w, allSettled(w, 1)
	})
	if caught < 6 && *seedFlag == 0 {
		t.Errorf("got %d liars caught want more than one of a committee", caught)
	}
}

// TestPlans_Chaos is TestChaos with every plan at once.
func TestPlans_Chaos(t *testing.T) {
	caught, unchecked := 0, 0
	seeds(t, 12, func(seed uint64) (*World, error) {
		w := play(Config{
			Seed: seed, Providers: 7, Consumers: 2, Link: rough, Faults: 0.1, Veterans: true,
			Provider: func(w *World, i int) Adversary {
				return []Adversary{
					nil, nil, WrongResult{}, &Copycat{}, Mute{Claim: true}, Mute{Commit: true}, Withhold{Reveal: true},
					Withhold{Reveal: true, Lie: true}, Withhold{Serve: true}, Equivocate{},
				}[w.Rand().IntN(10)]
			},
			Spec: func(w *World, s *crowd.JobSpec) {
				s.Plan = []crowd.Plan{
					auditAt(crowd.AuditFloor), auditAt(400_000), auditAt(1e6), {Method: crowd.PlanPair},
					{Method: crowd.PlanCommittee, Executors: 3}, {Method: crowd.PlanCommittee, Executors: 5},
				}[w.Rand().IntN(6)]
			},
		}, 5, func(w *World) {
			w.Nodes[1+w.Rand().IntN(len(w.Nodes)-1)].Kill = Kill{At: 1 + w.Rand().IntN(60), Down: time.Duration(w.Rand().IntN(5000)) * time.Millisecond}
			if n := w.Nodes[4+w.Rand().IntN(len(w.Nodes)-4)]; n.Kill.At == 0 {
				Part(w, n, time.Duration(w.Rand().IntN(5000))*time.Millisecond, time.Duration(w.Rand().IntN(9000))*time.Millisecond)
			}
		})
		caught, unchecked = caught+len(w.Slashed), unchecked+by(w, ledger.ByAudit)
		for _, p := range w.Jobs {
			if p.WrongAccepted() && p.Last.Verdict.By != ledger.ByAudit {
				return w, fmt.Errorf("job %s came to a wrong outcome, by %s", p.ID.Short(), p.Last.Verdict.By)
			}
		}
		return w, nil
	})
	if *seedFlag == 0 && (caught == 0 || unchecked == 0) {
		t.Errorf("got %d caught and %d unchecked want some of each: the test tests nothing", caught, unchecked)
	}
}

func TestPlans_Replay(t *testing.T) {
	seeds(t, 2, func(seed uint64) (*World, error) {
		var w *World
		err := sim.Replay(func(tr *sim.Trace) {
			w = play(Config{Seed: seed, Providers: 5, Veterans: true, Link: rough, Trace: tr, Spec: under(auditAt(400_000)),
				Provider: some(map[int]Adversary{0: WrongResult{}})}, 3, nil)
		})
		return w, err
	})
}
