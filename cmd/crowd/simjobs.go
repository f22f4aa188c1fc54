package main

import (
	"context"
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

// simJobs is what the flags of one command ask for: a market for each strategy, share and rate.
type simJobs struct {
	scenario.MarketConfig
	strategies       []string
	byzantine, rates []float64
	workers          int
}

func (a *app) simJobsCommand() *cobra.Command {
	var s simJobs
	var known []string
	var about strings.Builder
	for _, st := range scenario.Strategies() {
		known = append(known, st.Name)
		fmt.Fprintf(&about, "\n  %-10s %s", st.Name, st.What)
	}
	c := &cobra.Command{
		Use: "jobs", Short: "Play batches among cheaters: what is caught, and what cheating pays", Args: cobra.NoArgs,
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

Draws, samples, verdicts and money follow the ledger's rules; messages, crashes and
signatures are left out. A cheater that is caught is replaced by another with the same
record (whitewash: by a newcomer), stakes no more than it must, and a friend of its
collects the bounty. Strategies:
` + about.String(),
		Example: `  crowd sim jobs --strategy cheat --rate 0.01,0.1,0.5
  crowd sim jobs --strategy ring,choosy --byzantine 0.1,0.2,0.3 --jobs 1000000
  crowd sim jobs --checks 22 --verifiers 2 --json`,
		RunE: a.until(func(_ *cobra.Command, ctx context.Context, _ []string) error {
			if slices.Equal(s.strategies, []string{"all"}) {
				s.strategies = known
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

func (a *app) simJobs(ctx context.Context, s simJobs) error {
	markets, err := s.markets()
	if err != nil {
		return err
	}
	if s.workers < 1 {
		return misuse("", "%d workers: want one at least", s.workers)
	}
	played := func(int) {}
	if a.terminal {
		bar := progressbar.NewOptions(len(markets)*s.Jobs, progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetDescription("batches"),
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
	g.Wait()
	slashed := 0
	scores := []scenario.Score{}
	for _, m := range markets {
		if m.Done > 0 {
			scores = append(scores, m.Score())
			slashed += scores[len(scores)-1].HonestSlashes
		}
	}
	if err := a.result(scores, func(w io.Writer) { printScores(w, scores) }); err != nil {
		return err
	}
	if slashed > 0 {
		return fmt.Errorf("%d honest nodes lost their stake", slashed)
	}
	return ctx.Err()
}

func printScores(w io.Writer, scores []scenario.Score) {
	rows := [][]string{{"STRATEGY", "SHARE", "RATE", "LIES", "ESCAPE", "PASSED", "95 %", "CAUGHT", "STATED", "WRONG", "SLASHED", "OVERHEAD", "FAILED", "PROFIT", "HONEST", "GAIN", "LOSS"}}
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
		})
	}
	table(w, "", rows)
}

func chanceShort(p float64) string { return fmt.Sprintf("%.2g", p) }
func moneyShort(v float64) string  { return fmt.Sprintf("%.3f", v) }
