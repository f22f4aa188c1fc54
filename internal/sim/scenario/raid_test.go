package scenario

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/verify"
)

// raid plays one, with a hundred times as many jobs at night.
func raid(t *testing.T, c RaidConfig) (*Raid, Toll) {
	t.Helper()
	if os.Getenv("CROWD_NIGHT") != "" {
		c.Jobs *= 100
	}
	r, err := NewRaid(c)
	if err != nil {
		t.Fatal(err)
	}
	for !r.Over() {
		r.Play()
	}
	return r, r.Toll()
}

// holds reports every promise that a raid has shown not to hold: that no honest node loses stake, that a wrong result is as rare as
// the plan says, that an attacker gains nothing in the mean, and that whatever it does to others costs it at least a tenth of that.
//
// Two bounds are not absolute. Providers that hold all places of a job may always agree on what they like: where an attack is about
// that, it gains at most what these places earn, as often as the plan states. And what costs nothing at all does no more harm than
// a court that sits in vain: it is all that providers can do by staying silent, as long as silence is no fraud, and they lose draw weight by it.
//
// One goal is not met: a stake is lost once for many lies at the same time, and each of them has every authority run the task, which together
// are paid for one run. Nothing bounds the damage of stake-reuser, or of slow-court, whose long jobs lie beside each other, against what they cost, until a court of fixed size sits and is paid for each run.
// A few jobs of two attacks say nothing about a ratio that a rare slash decides; a hundred times as many, played at night, do.
func holds(r *Raid, t Toll) error {
	var bad []string
	say := func(format string, a ...any) { bad = append(bad, fmt.Sprintf(format, a...)) }
	if err := r.Err(); err != nil {
		say("%v", err)
	}
	if t.HonestSlashes > 0 {
		say("%d honest nodes lost their stake", t.HonestSlashes)
	}
	if p := atLeast(t.Wrong.Seen, t.Wrong.Of, t.Stated); p < 1e-4 { // of a hundred raids none fails by chance
		say("%d of %d results are wrong, which has a chance of %.1g if %.4f are, as the plan and the claims state", t.Wrong.Seen, t.Wrong.Of, p, t.Stated)
	}
	most := 0.0
	if slices.ContainsFunc(r.attacks, func(a Attack) bool { return a.rings }) {
		executors, _ := ledger.Seats(&r.plan)
		most = t.Stated * float64(executors+int(r.plan.Replacements)) * r.pay
	}
	if t.Profit-3*t.Error > most {
		say("a profit of %.4f ± %.4f credits, at most %.4f", t.Profit, t.Error, most)
	}
	unmet := slices.ContainsFunc(r.attacks, func(a Attack) bool { return a.Name == stakeReuser.Name || a.Name == slowCourt.Name })
	if court := float64(r.w.Config.Authorities) * r.pay; t.Ratio > 10 && !unmet && (t.Wrong.Of >= 20 || len(r.attacks) == 1) && (t.Paid > 0.001 || t.Damage > court) {
		say("a damage of %.4f credits for %.4f: a ratio of %.3g", t.Damage, t.Paid, t.Ratio)
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%s against plan %s: %s", strings.Join(t.Config.Attacks, "+"), r.Plan, strings.Join(bad, "; "))
}

// atLeast is the chance of so many or more of n, if each has the chance p.
func atLeast(seen, n int, p float64) float64 {
	sum, term := 0.0, math.Pow(1-p, float64(n))
	for k := range n + 1 {
		if k >= seen {
			sum += term
		}
		term *= float64(n-k) / float64(k+1) * p / (1 - p)
	}
	return sum
}

func TestRaid(t *testing.T) {
	for _, a := range Attacks() {
		for _, plan := range Plans() {
			if !a.Against(plan) {
				continue
			}
			t.Run(a.Name+"/"+plan, func(t *testing.T) {
				t.Parallel()
				r, toll := raid(t, RaidConfig{Attacks: []string{a.Name}, Plan: plan, Jobs: 20})
				if err := holds(r, toll); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Each attack once beside each of the others; the plans take turns, at night all of them are played.
func TestRaid_Pairs(t *testing.T) {
	turn := 0
	all := Attacks()
	for i, a := range all {
		for _, b := range all[i+1:] {
			turn++
			for k, plan := range Plans() {
				if !a.Against(plan) || !b.Against(plan) || os.Getenv("CROWD_NIGHT") == "" && (turn%len(Plans()) != k || turn%3 != 0) {
					continue
				}
				t.Run(a.Name+"+"+b.Name+"/"+plan, func(t *testing.T) {
					t.Parallel()
					r, toll := raid(t, RaidConfig{Attacks: []string{a.Name, b.Name}, Plan: plan, Jobs: 6})
					if err := holds(r, toll); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// An author that keeps the inputs from honest nodes gets a made-up result accepted no more often than the plan prints,
// with the share of the weight that it reckons with.
func TestRaid_WithheldInputsAgainstWhatThePlanPrints(t *testing.T) {
	for _, plan := range Plans() {
		t.Run(plan, func(t *testing.T) {
			t.Parallel()
			r, toll := raid(t, RaidConfig{Attacks: []string{withholdInputs.Name}, Plan: plan, Jobs: 60, Providers: 30, Byzantine: verify.DefaultColluding})
			printed := verify.Stated(&r.plan).Undetected
			if toll.Stated != printed {
				t.Errorf("the raid reckons with %.6f, the plan prints %.6f", toll.Stated, printed)
			}
			if toll.Wrong.Of < 60 || toll.Wrong.Low > printed {
				t.Errorf("%d of %d results are wrong, at least %.4f; the plan prints %.6f", toll.Wrong.Seen, toll.Wrong.Of, toll.Wrong.Low, printed)
			}
			if err := r.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Cancelling until the own nodes have all places costs at least what the job pays, for each forged result as often as the chance of that is small.
func TestRaid_GrindingCostsThePriceOfTheChance(t *testing.T) {
	r, toll := raid(t, RaidConfig{Attacks: []string{cancelGrinder.Name}, Plan: crowd.PlanPair, Jobs: 60})
	if least := r.pay / 4; toll.Paid < least {
		t.Errorf("each try costs %.4f credits, want %.4f at least: a quarter of what a place earns", toll.Paid, least)
	}
}

// Every credit that the attacker and the others lost was burned: nothing is counted twice or left out.
func TestRaid_Conserves(t *testing.T) {
	for _, a := range []Attack{withholdInputs, feeDrainer, slowCourt} {
		r, err := NewRaid(RaidConfig{Attacks: []string{a.Name}, Jobs: 5})
		if err != nil {
			t.Fatal(err)
		}
		r.begin(5)
		before := r.weigh()
		burned := r.w.state.Supply().Burned
		a.begin(r, r.w.Consumer(raidStrangers))
		w := r.w
		w.Run(w.Now().Add(24*time.Hour), func() bool { return r.lanes == 0 && w.AllEnded() })
		lost := crowd.Credits(0)
		for id, had := range before.credits {
			lost += had - r.weigh().credits[id] // wraps, and comes back
		}
		if got := w.state.Supply().Burned - burned; got != lost || got == 0 {
			t.Errorf("%s: %s were lost and %s burned", a.Name, lost, got)
		}
	}
}

func TestRaid_Replay(t *testing.T) {
	c := RaidConfig{Attacks: []string{withholdInputs.Name, quitter.Name}, Plan: crowd.PlanAudit, Jobs: 6}
	_, a := raid(t, c)
	_, b := raid(t, c)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("one seed, two histories:\n%+v\n%+v", a, b)
	}
}

func TestRaidConfig_Validate(t *testing.T) {
	for name, c := range map[string]RaidConfig{
		"no attack": {}, "three": {Attacks: []string{"idler", "quitter", "fee-drainer"}}, "unknown": {Attacks: []string{"nice"}},
		"plan": {Attacks: []string{"idler"}, Plan: "none"}, "share": {Attacks: []string{"idler"}, Byzantine: 1},
		"not against": {Attacks: []string{"disk-filler"}, Plan: crowd.PlanSample}, "few": {Attacks: []string{"idler"}, Providers: 3},
	} {
		if c.Validate() == nil {
			t.Errorf("%s: %+v passed", name, c)
		}
	}
	if !slices.Contains(Plans(), (RaidConfig{}).WithDefaults().Plan) {
		t.Error("the default plan is none")
	}
}

// A run that takes longer than Wall ends by it; what was run until then is counted.
func TestProgram(t *testing.T) {
	w := New(Config{Seed: 1, Program: raidProgram})
	run := func(kind crowd.CID, gas crowd.Gas, wall time.Duration) planned {
		return w.Provider(0).plannedRun(crowd.Task{Program: kind, Limits: crowd.Limits{Gas: gas, Wall: wall}})
	}
	start := w.Config.Params.StartGas
	for _, tt := range []struct {
		got       planned
		takes     time.Duration
		gas       crowd.Gas
		fails     bool
		printedAt time.Duration
	}{
		{run("program", 1e9, time.Minute), 400 * time.Millisecond, 8e8, false, 0},
		{run("early", 2e9, time.Minute), time.Second, 2e9, false, 900 * time.Millisecond},
		{run("walls", 1e10, 20*time.Second), 20 * time.Second, 2e9, true, 18 * time.Second},
		{run("bomb", 2e9, 20*time.Second), 2 * time.Second, 2e9 + 1e9, false, 0},
	} {
		if tt.got.takes != tt.takes || tt.got.gas != tt.gas+start || (tt.got.err != nil) != tt.fails || tt.got.prints != tt.printedAt {
			t.Errorf("got %+v want %+v", tt.got, tt)
		}
	}
}
