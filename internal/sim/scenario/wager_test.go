package scenario

import (
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// TestWage holds the arithmetic of the wagers against the real ledger and whole nodes: the same
// verdicts and, to the last micro-credit, the same money.
func TestWage(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   map[int]Adversary
		rate uint32
		want string // verdicts that must be among those seen
	}{
		{"honest", nil, crowd.AuditFloor, ledger.ByAudit},
		{"honest and chosen", nil, 1e6, ledger.ByAgreement},
		{"a liar", map[int]Adversary{0: WrongResult{}, 1: WrongResult{}}, crowd.AuditFloor, ledger.ByAudit},
		{"a liar or two that are chosen", map[int]Adversary{0: WrongResult{}, 1: WrongResult{}}, 1e6, ledger.ByCourt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen := map[string]bool{}
			seeds(t, 3, func(seed uint64) (*World, error) {
				w := play(Config{Seed: seed, Providers: 3, Veterans: true, Spec: under(auditAt(tt.rate)), Provider: some(tt.at)}, 3, nil)
				for _, p := range w.Jobs {
					j := &p.Last
					if j.Verdict == nil || j.State != ledger.Settled {
						continue
					}
					seen[j.Verdict.By] = true
					d := Wage{Spec: &j.Spec, Params: &w.Config.Params, Right: p.Truth().Gas, Duties: j.Duties}
					want := Dealt{Settled: true}
					place := map[crowd.Address]int{}
					for i := range j.Places {
						pl := &j.Places[i]
						place[pl.Node.Address()] = i
						said := Right
						if pl.Opening.Outcome != p.Truth() {
							said = Value(1 + i)
						}
						d.Prices, d.Stakes = append(d.Prices, pl.Price), append(d.Stakes, pl.Slashed)
						d.Said, d.Gas = append(d.Said, said), append(d.Gas, pl.Opening.Outcome.Gas)
						want.Caught, want.Change = append(want.Caught, pl.State == ledger.Fraud), append(want.Change, -int64(pl.Slashed))
					}
					for i := range j.Ballots {
						if j.Ballots[i].Question == ledger.WhatOutcome && j.Ballots[i].Outcome == j.Verdict.Outcome {
							d.Voters++
						}
					}
					if j.Verdict.By == ledger.ByCourt {
						want.Courts = 1
					}
					want.Owner = -int64(j.Locked)
					for _, x := range j.Payments {
						i, placed := place[x.To]
						switch {
						case x.To.IsZero():
							want.Burned += int64(x.Amount)
						case x.To == j.Owner.Address():
							want.Owner += int64(x.Amount)
						case placed:
							want.Change[i] += int64(x.Amount)
						default:
							want.Court += int64(x.Amount)
						}
					}
					if got := d.Judge(); fmt.Sprint(got) != fmt.Sprint(want) {
						return w, fmt.Errorf("by %s: got %+v\nwant %+v", j.Verdict.By, got, want)
					}
				}
				return w, nil
			})
			if !seen[tt.want] && *seedFlag == 0 {
				t.Errorf("got verdicts %v want one by %s", seen, tt.want)
			}
		})
	}
}

// TestWager_CheatingLosesOverTheGrid: whoever lies in whatever share of its tasks, at once or after a long
// clean record, as a newcomer or a veteran, with many tasks by one stake, or with friends among
// those who audit, loses in the mean by the least stake that the ledger takes.
func TestWager_CheatingLosesOverTheGrid(t *testing.T) {
	night := 1
	if os.Getenv("CROWD_NIGHT") != "" {
		night = 20
	}
	for _, clean := range []int{0, 1000} {
		for _, fresh := range []bool{false, true} {
			for _, stake := range []float64{0, 3, 200} {
				for _, ring := range []float64{0, 0.3} {
					for _, rate := range []float64{0.05, 1} {
						c := WagerConfig{Jobs: 6_000 * night, Rate: rate, Clean: clean, Fresh: fresh, Stake: stake, Reuse: 100, Ring: ring}
						if clean == 1000 { // it begins anew each time
							c.Jobs = 40_000 * night
						}
						w := mustWager(t, c)
						if w.Lies < 50 {
							t.Fatalf("%+v: got %d lies want enough to tell", c, w.Lies)
						}
						// The mean of the least stake is -1 credit or less a lie without friends; few lies scatter.
						if w.Profit > 3*w.Error || w.Lies > 5000 && w.Profit >= 0 {
							t.Errorf("%+v: a lie brings %.4f ± %.4f credits", c, w.Profit, w.Error)
						}
						if math.Abs(w.Passed.Rate-w.Escape) > 5*math.Sqrt(w.Escape*(1-w.Escape)/float64(w.Lies))+1e-9 {
							t.Errorf("%+v: %.4f of the lies passed, the formula says %.4f", c, w.Passed.Rate, w.Escape)
						}
					}
				}
			}
		}
	}
}

func mustWager(t *testing.T, c WagerConfig) Wager {
	t.Helper()
	w, err := PlayWager(c)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A patient cheater reaches the floor, and loses there too: BOINC's rule would have let it go.
func TestWager_ThePatientOneIsStillAudited(t *testing.T) {
	w := mustWager(t, WagerConfig{Jobs: 120_000, Clean: 1000, Fresh: true})
	if w.FloorAt != 1 {
		t.Errorf("got %.3f of its lies at the floor want all: its record is clean by then", w.FloorAt)
	}
	if w.Caught.Low > 0.05 || w.Caught.High < 0.05 || w.Profit >= 0 {
		t.Errorf("got %.4f caught and a profit of %.3f want the floor's 5 %% and a loss", w.Caught.Rate, w.Profit)
	}
	if now := mustWager(t, WagerConfig{Jobs: 20_000, Fresh: true}); now.Caught.Rate < 0.99 {
		t.Errorf("got %.4f of an impatient newcomer's lies caught want nearly all", now.Caught.Rate)
	}
}

// One stake for many tasks: were it not bound to each, lying in a hundred at a time would pay.
func TestWager_AStakeCountsOnce(t *testing.T) {
	w := mustWager(t, WagerConfig{Jobs: 60_000, Reuse: 100, Stake: 100})
	if math.Abs(w.FloorAt-2./3) > 0.01 || w.Profit >= 0 { // 39 credits for each of two, 22 for a third, nothing for a fourth
		t.Errorf("got %.3f of the lies at the floor, %.3f credits each want two of three, and a loss", w.FloorAt, w.Profit)
	}
}

// What the stake does not cover: a ring that lies only where more than half of those who may
// audit are its friends. Of 31 drawn at a share of 10 % that is 1 in 10^8; of two it is 1 in 100.
func TestWager_WhereMostAuditorsAreFriendsLyingPays(t *testing.T) {
	if w := mustWager(t, WagerConfig{Jobs: 100_000, Ring: 0.1, Least: 0.5}); w.Lies > 0 {
		t.Errorf("got %d lies of %d want none", w.Lies, w.Tasks)
	}
	w := mustWager(t, WagerConfig{Jobs: 100_000, Ring: 0.1, Least: 1, Pool: 2})
	if got := float64(w.Lies) / float64(w.Tasks); math.Abs(got-0.01) > 0.002 || w.Profit <= 0 {
		t.Errorf("got lies in %.4f of the tasks, a profit of %.3f want 1 in 100, and that it pays", got, w.Profit)
	}
}

func TestWager_RefusesNonsense(t *testing.T) {
	for _, c := range []WagerConfig{{Rate: 2}, {Rate: math.NaN()}, {Ring: -1}, {Pool: 1}, {Pool: 32}, {Reuse: 1001}, {Jobs: -1}, {Clean: -1}, {Least: 1.1}, {Cost: 2}} {
		if _, err := PlayWager(c); err == nil {
			t.Errorf("%+v was played", c)
		}
	}
}
