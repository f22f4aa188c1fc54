package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd/internal/sim/scenario"
)

// simJobs is what the flags of one command ask for: a market for each strategy, share and rate, and a raid for each attack,
// plan and share.
type simJobs struct {
	scenario.MarketConfig
	strategies       []string
	byzantine, rates []float64
	attacks, plans   []string
	raidJobs         int
	providers        int
	workers          int
}

// simJobsAll is how many jobs all raids together play with --all.
const simJobsAll = 100_000

// simJobsResult is what the command prints with --json.
type simJobsResult struct {
	Strategies []scenario.Score `json:"strategies"`
	Attacks    []scenario.Toll  `json:"attacks"`
}

func (a *app) simJobsCommand() *cobra.Command {
	var s simJobs
	var known []string
	var about strings.Builder
	for _, st := range scenario.Strategies() {
		known = append(known, st.Name)
		fmt.Fprintf(&about, "\n  %-10s %s", st.Name, st.What)
	}
	about.WriteString("\n\nAttacks:\n")
	var attacks []string
	for _, at := range scenario.Attacks() {
		attacks = append(attacks, at.Name)
		fmt.Fprintf(&about, "\n  %-15s %s", at.Name, at.What)
	}
	everything := false
	c := &cobra.Command{
		Use: "jobs", Short: "Play jobs among cheaters and attackers: what is caught, what it pays, what it costs others", Args: cobra.NoArgs,
		Long: `Play batches of many items, each with one executor and some verifiers who re-run
secret samples, in a network of which a share breaks the protocol. The scoreboard
shows what the plan states beside what was measured, with 95 % intervals (Wilson):

  escape    chance that an executor who lies so escapes, by the plan's formula
  passed    lies that were settled all the same; caught: lies that cost the stake
  stated    chance that any batch is settled with a lie; wrong: those that were
  slashed   honest nodes that lost their stake
  overhead  gas of checks and of the court per gas of useful work
  profit    of those who broke the protocol, in credits for each batch in which they
            did; honest: what honest nodes gain in the same seats; gain: the difference
  loss      what an honest node loses for each seat, by batches that others make fail
  damage    to all others in those batches: credits, and work at its price that nobody
            paid; paid: what it cost those who did it, their own work included

Draws, samples, verdicts and money follow the ledger's rules; messages, crashes and
signatures are left out. A cheater that is caught is replaced by another with the same
record (whitewash: by a newcomer), stakes no more than it must, and a friend of its
collects the bounty.

Attacks are played by whole nodes with signed transactions on the real ledger, an
attack alone or two together (a+b), against each plan, where --byzantine of the
providers and the owners that attack are one hand. Of each job that it is about:

  wrong     jobs settled with a result that the attacker made up; stated: the chance
            of that by the plan's formula, with the attacker's share of what was claimed
  profit    what the attacker got and read without paying, less what it paid
  damage    to others: credits, fees, and work of honest nodes and authorities at its
            gas price that nobody paid; a second of a line or of a disk is a credit, too
  paid      what the attacker paid, lost stakes and its own work included
  ratio     damage / paid
  weight    by how much the draw weight of honest nodes has changed after ten jobs;
            own: that of the attacker's nodes

Strategies:
` + about.String(),
		Example: `  crowd sim jobs --strategy cheat --rate 0.01,0.1,0.5
  crowd sim jobs --strategy ring,choosy --byzantine 0.1,0.2,0.3 --jobs 1000000
  crowd sim jobs --checks 22 --verifiers 2 --json
  crowd sim jobs --attack withhold-inputs --plan pair,sample --byzantine 0.1 --providers 30
  crowd sim jobs --attack cancel-grinder+burst-poster
  crowd sim jobs --all`,
		RunE: a.until(func(cmd *cobra.Command, ctx context.Context, _ []string) error {
			if some := cmd.Flags().Changed; some("strategy") != some("attack") && !everything { // the one alone
				if some("strategy") {
					s.attacks = nil
				} else {
					s.strategies = nil
				}
			}
			if slices.Equal(s.strategies, []string{"all"}) {
				s.strategies = known
			}
			if slices.Equal(s.attacks, []string{"all"}) {
				s.attacks = attacks
			}
			if everything {
				s.attacks = append(attacks, attackPairs(attacks)...)
				s.raidJobs = 0
			}
			return a.simJobs(ctx, s)
		}),
	}
	def := scenario.MarketConfig{}.WithDefaults()
	f := c.Flags()
	f.SortFlags = false
	f.IntVar(&s.Nodes, "nodes", def.Nodes, "providers, of equal stake")
	f.IntVar(&s.Jobs, "jobs", def.Jobs, "batches of each line of the scoreboard")
	f.Float64SliceVar(&s.byzantine, "byzantine", []float64{def.Byzantine}, "shares of the providers that break the protocol")
	f.StringSliceVar(&s.strategies, "strategy", []string{"all"}, "how they do: all, or some of "+strings.Join(known, ", "))
	f.Float64SliceVar(&s.rates, "rate", []float64{def.Rate}, "shares of a batch's items that are lied about, at least one")
	f.Uint32Var(&s.Items, "items", def.Items, "of a batch")
	f.Uint32Var(&s.Verifiers, "verifiers", def.Verifiers, "of a batch")
	f.Uint32Var(&s.Checks, "checks", def.Checks, "items that each verifier re-runs")
	f.Float64Var(&s.Cost, "cost", def.Cost, "what running costs, as a share of its price: a cheater spares it")
	f.IntVar(&s.Reuse, "reuse", def.Reuse, "batches that one stake answers for at a time")
	f.Uint64Var(&s.Seed, "seed", def.Seed, "another seed is another history")
	f.StringSliceVar(&s.attacks, "attack", []string{"all"}, "what attackers do: all, or some of "+strings.Join(attacks, ", ")+"; two together: a+b")
	f.StringSliceVar(&s.plans, "plan", scenario.Plans(), "of the jobs that are attacked")
	f.IntVar(&s.raidJobs, "raid-jobs", 20, "posted jobs of each line of the attacks, at least")
	f.IntVar(&s.providers, "providers", scenario.RaidConfig{}.WithDefaults().Providers, "in the worlds of the attacks")
	f.BoolVar(&everything, "all", false, fmt.Sprintf("every attack alone and with every other one, with %d jobs in all: half an hour", simJobsAll))
	f.IntVar(&s.workers, "workers", runtime.NumCPU(), "lines played at a time")
	return c
}

// markets are all lines of the scoreboard. Who does not lie has no rate.
func (s *simJobs) markets() ([]*scenario.Market, error) {
	for _, f := range []struct { // a market would take a zero for its default
		name string
		zero bool
	}{
		{"nodes", s.Nodes == 0}, {"jobs", s.Jobs == 0}, {"items", s.Items == 0}, {"verifiers", s.Verifiers == 0}, {"checks", s.Checks == 0},
		{"byzantine", slices.Contains(s.byzantine, 0)}, {"rate", slices.Contains(s.rates, 0)}, {"seed", s.Seed == 0}, {"reuse", s.Reuse == 0}, {"cost", s.Cost == 0},
	} {
		if f.zero {
			return nil, misuse("a network without cheaters: --strategy honest", "--%s 0: want more than none", f.name)
		}
	}
	var all []*scenario.Market
	lies := map[string]bool{}
	for _, st := range scenario.Strategies() {
		lies[st.Name] = st.Lies()
	}
	for _, name := range s.strategies {
		for _, share := range s.byzantine {
			rates := s.rates
			if known, lies := lies[name]; known && !lies {
				rates = rates[:min(1, len(rates))]
			}
			for _, rate := range rates {
				c := s.MarketConfig
				c.Strategy, c.Byzantine, c.Rate = name, share, rate
				m, err := scenario.NewMarket(c)
				if err != nil {
					return nil, misuse("see: crowd sim jobs --help", "%v", err)
				}
				all = append(all, m)
			}
		}
	}
	return all, nil
}

// attackPairs are all attacks two by two.
func attackPairs(names []string) (pairs []string) {
	for i, a := range names {
		for _, b := range names[i+1:] {
			pairs = append(pairs, a+"+"+b)
		}
	}
	return pairs
}

// raids are all lines of the attacks: those that say something about a plan.
func (s *simJobs) raids() ([]*scenario.Raid, error) {
	if s.raidJobs < 0 || s.providers == 0 {
		return nil, misuse("", "--raid-jobs %d, --providers %d: want more than none", s.raidJobs, s.providers)
	}
	known := map[string]scenario.Attack{}
	for _, a := range scenario.Attacks() {
		known[a.Name] = a
	}
	var all []scenario.RaidConfig
	for _, line := range s.attacks {
		names := strings.Split(line, "+")
		for _, plan := range s.plans {
			if slices.ContainsFunc(names, func(name string) bool { a, ok := known[name]; return ok && !a.Against(plan) }) {
				continue
			}
			for _, share := range s.byzantine {
				all = append(all, scenario.RaidConfig{Attacks: names, Plan: plan, Providers: s.providers, Byzantine: share, Jobs: s.raidJobs, Seed: s.Seed})
			}
		}
	}
	var raids []*scenario.Raid
	for _, c := range all {
		if c.Jobs == 0 { // --all
			c.Jobs = max(1, simJobsAll/len(all))
		}
		r, err := scenario.NewRaid(c)
		if err != nil {
			return nil, misuse("see: crowd sim jobs --help", "%v", err)
		}
		raids = append(raids, r)
	}
	return raids, nil
}

func (a *app) simJobs(ctx context.Context, s simJobs) error {
	markets, err := s.markets()
	if err != nil {
		return err
	}
	raids, err := s.raids()
	if err != nil {
		return err
	}
	if s.workers < 1 {
		return misuse("", "%d workers: want one at least", s.workers)
	}
	played := func(int) {}
	if a.terminal {
		whole := len(markets) * s.Jobs
		for _, r := range raids {
			whole += r.Jobs
		}
		bar := progressbar.NewOptions(whole, progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetDescription("jobs"),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetWidth(24),
			progressbar.OptionThrottle(65*time.Millisecond), progressbar.OptionClearOnFinish())
		defer bar.Clear()
		played = func(n int) { bar.Add(n) }
	}
	var g errgroup.Group
	g.SetLimit(s.workers)
	for _, m := range markets {
		g.Go(func() error {
			for m.Done < s.Jobs && ctx.Err() == nil {
				n := min(500, s.Jobs-m.Done) // between two looks at the interrupt
				m.Play(n)
				played(n)
			}
			return nil
		})
	}
	for _, r := range raids {
		g.Go(func() error {
			for !r.Over() && ctx.Err() == nil {
				before := r.Done
				r.Play()
				played(min(r.Done, r.Jobs) - min(before, r.Jobs))
			}
			return nil
		})
	}
	g.Wait()
	slashed := 0
	out := simJobsResult{Strategies: []scenario.Score{}, Attacks: []scenario.Toll{}}
	for _, m := range markets {
		if m.Done > 0 {
			out.Strategies = append(out.Strategies, m.Score())
			slashed += m.Score().HonestSlashes
		}
	}
	var broken []error
	for _, r := range raids {
		if r.Done > 0 {
			out.Attacks = append(out.Attacks, r.Toll())
			slashed += r.Toll().HonestSlashes
			broken = append(broken, r.Err())
		}
	}
	if err := a.result(out, func(w io.Writer) {
		if len(out.Strategies) > 0 {
			printScores(w, out.Strategies)
		}
		if len(out.Strategies) > 0 && len(out.Attacks) > 0 {
			fmt.Fprintln(w)
		}
		if len(out.Attacks) > 0 {
			printTolls(w, out.Attacks)
		}
	}); err != nil {
		return err
	}
	if slashed > 0 {
		return fmt.Errorf("%d honest nodes lost their stake", slashed)
	}
	if err := errors.Join(broken...); err != nil {
		return err
	}
	return ctx.Err()
}

func printTolls(w io.Writer, tolls []scenario.Toll) {
	rows := [][]string{{"ATTACK", "PLAN", "SHARE", "JOBS", "WRONG", "STATED", "PROFIT", "±", "DAMAGE", "PAID", "RATIO", "SLASHED", "FAULTS", "WEIGHT", "OWN"}}
	for _, t := range tolls {
		wrong, stated := "-", "-"
		if t.Wrong.Of > 0 {
			wrong, stated = chanceShort(t.Wrong.Rate), chanceShort(t.Stated)
		}
		rows = append(rows, []string{
			strings.Join(t.Config.Attacks, "+"), t.Config.Plan, fmt.Sprintf("%g", t.Config.Byzantine), fmt.Sprint(t.Jobs), wrong, stated,
			fmt.Sprintf("%.4f", t.Profit), fmt.Sprintf("%.4f", t.Error), fmt.Sprintf("%.4f", t.Damage), fmt.Sprintf("%.4f", t.Paid), ratioShort(t.Ratio),
			fmt.Sprint(t.HonestSlashes), fmt.Sprintf("%.1f", t.Faults), changeShort(t.Weight), changeShort(t.Own),
		})
	}
	table(w, "", rows)
}

// changeShort is a share that was lost as a change.
func changeShort(lost float64) string {
	return strings.Replace(fmt.Sprintf("%+.0f %%", -100*lost), "-0", "+0", 1)
}

// ratioShort of what cost nothing is "free".
func ratioShort(v float64) string {
	if v >= scenario.MostRatio {
		return "free"
	}
	return fmt.Sprintf("%.3g", v)
}

func printScores(w io.Writer, scores []scenario.Score) {
	rows := [][]string{{"STRATEGY", "SHARE", "RATE", "LIES", "ESCAPE", "PASSED", "95 %", "CAUGHT", "STATED", "WRONG", "SLASHED", "OVERHEAD", "FAILED", "PROFIT", "HONEST", "GAIN", "LOSS", "DAMAGE", "PAID", "RATIO"}}
	for _, s := range scores {
		stated, passed, between, caught, rate := "", "", "", "", ""
		if s.Accepted.Of > 0 {
			rate = fmt.Sprintf("%g", s.Config.Rate)
			stated, passed, caught = chanceShort(s.Guarantee), chanceShort(s.Accepted.Rate), fmt.Sprintf("%.4g", s.Caught.Rate)
			between = chanceShort(s.Accepted.Low) + " to " + chanceShort(s.Accepted.High)
		}
		rows = append(rows, []string{
			s.Config.Strategy, fmt.Sprintf("%g", s.Config.Byzantine), rate, fmt.Sprint(s.Accepted.Of), stated, passed, between, caught,
			chanceShort(s.Stated), chanceShort(s.Wrong.Rate), fmt.Sprint(s.HonestSlashes), fmt.Sprintf("%.1f %%", 100*s.Overhead), fmt.Sprintf("%.1f %%", 100*s.Failed.Rate),
			moneyShort(s.Profit), moneyShort(s.Honest), moneyShort(s.Gain), moneyShort(s.HonestLoss),
			moneyShort(s.Damage), moneyShort(s.Paid), ratioShort(s.Ratio),
		})
	}
	table(w, "", rows)
}

func chanceShort(p float64) string { return fmt.Sprintf("%.2g", p) }
func moneyShort(v float64) string  { return fmt.Sprintf("%.3f", v) }
