package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd/internal/sim/scenario"
)

// simAudits is what the flags of one command ask for: a wager for each rate, ring and clean record.
type simAudits struct {
	scenario.WagerConfig
	rates, rings []float64
	cleans       []int
}

func (a *app) simAuditsCommand() *cobra.Command {
	var s simAudits
	c := &cobra.Command{
		Use: "audits", Short: "Play single tasks under an audit: what making results up brings", Args: cobra.NoArgs,
		Long: `Play the tasks of one node that makes results up, under crowd run --plan audit. It claims all
the gas that a task may use, stakes the least that is audited at the floor of 5 %, and is back with
a record beyond doubt when it is caught (--fresh: as a newcomer). The lot, the rate and the bound
stake are the ledger's own rules.

  audited   tasks that were run again
  caught    lies that cost the stake, with a 95 % interval (Wilson)
  passed    lies that were paid; escape: the same by the formula
  floor     lies that were told at the floor of 5 %; the others met a higher rate
  profit    of a lie, in credits, fees and slashed stakes taken off, with its standard error
  honest    of an honest run of the same task`,
		Example: "  crowd sim audits --rate 0.05,1 --clean 0,1000 --fresh\n  crowd sim audits --ring 0.3 --stake 200 --reuse 100",
		RunE:    a.until(func(_ *cobra.Command, ctx context.Context, _ []string) error { return a.simAudits(ctx, s) }),
	}
	def := scenario.WagerConfig{}.WithDefaults()
	f := c.Flags()
	f.SortFlags = false
	f.IntVar(&s.Jobs, "jobs", def.Jobs, "tasks of each line")
	f.Float64SliceVar(&s.rates, "rate", []float64{def.Rate}, "shares of its tasks that it makes up")
	f.IntSliceVar(&s.cleans, "clean", []int{0}, "tasks in a row that it does honestly before, in each of its lives")
	f.Float64SliceVar(&s.rings, "ring", []float64{0}, "shares of all nodes that audit as its friends")
	f.Float64Var(&s.Least, "least", 0, "it lies only where that share of those who may audit is its friends")
	f.IntVar(&s.Pool, "pool", def.Pool, "nodes that may audit a task, 2 to 31")
	f.BoolVar(&s.Fresh, "fresh", false, "it begins, and comes back, as a newcomer")
	f.IntVar(&s.Reuse, "reuse", def.Reuse, "tasks that it claims at a time, by one stake")
	f.Float64Var(&s.Stake, "stake", 0, "credits that it stakes (default: the least for the floor, 39)")
	f.Float64Var(&s.Cost, "cost", def.Cost, "what running costs, as a share of its price")
	f.Uint64Var(&s.Seed, "seed", def.Seed, "another seed is another history")
	return c
}

func (a *app) simAudits(ctx context.Context, s simAudits) error {
	for _, f := range []struct { // a wager would take a zero for its default
		name string
		zero bool
	}{{"jobs", s.Jobs == 0}, {"rate", slices.Contains(s.rates, 0)}, {"pool", s.Pool == 0}, {"reuse", s.Reuse == 0}, {"cost", s.Cost == 0}, {"seed", s.Seed == 0}} {
		if f.zero {
			return misuse("see: crowd sim audits --help", "--%s 0: want more than none", f.name)
		}
	}
	all := []scenario.Wager{}
	for _, clean := range s.cleans {
		for _, ring := range s.rings {
			for _, rate := range s.rates {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				c := s.WagerConfig
				c.Clean, c.Ring, c.Rate = clean, ring, rate
				w, err := scenario.PlayWager(c)
				if err != nil {
					return misuse("see: crowd sim audits --help", "%v", err)
				}
				all = append(all, w)
			}
		}
	}
	return a.result(all, func(w io.Writer) {
		rows := [][]string{{"RATE", "CLEAN", "RING", "LIES", "AUDITED", "CAUGHT", "95 %", "PASSED", "ESCAPE", "FLOOR", "PROFIT", "±", "HONEST"}}
		for _, x := range all {
			rows = append(rows, []string{fmt.Sprintf("%g", x.Config.Rate), fmt.Sprint(x.Config.Clean), fmt.Sprintf("%g", x.Config.Ring), fmt.Sprint(x.Lies),
				fmt.Sprintf("%.1f %%", 100*x.Audits.Rate), fmt.Sprintf("%.4f", x.Caught.Rate), fmt.Sprintf("%.4f to %.4f", x.Caught.Low, x.Caught.High),
				fmt.Sprintf("%.4f", x.Passed.Rate), fmt.Sprintf("%.4f", x.Escape), fmt.Sprintf("%.2f", x.FloorAt), moneyShort(x.Profit), moneyShort(x.Error), moneyShort(x.Honest)})
		}
		table(w, "", rows)
	})
}
