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

	"github.com/crowdcompute/crowd/internal/sim/volatile"
)

// simMapReduce is what the flags of one command ask for: a play for each share of the time away and each way.
type simMapReduce struct {
	volatile.Config
	ways    []string
	aways   []float64
	workers int
}

func (a *app) simMapReduceCommand() *cobra.Command {
	var s simMapReduce
	var known []string
	var about strings.Builder
	for _, w := range volatile.Ways() {
		known = append(known, w.Name)
		fmt.Fprintf(&about, "\n  %-10s %s", w.Name, w.What)
	}
	c := &cobra.Command{
		Use: "mapreduce", Short: "Play a map-reduce on providers that come and go", Args: cobra.NoArgs,
		Long: `Play a map-reduce, as crowd map has it, on whole simulated nodes: signed transactions,
draws, checks, settlements and the scheduler are the product's own. Each provider is
away for a share of the time, in outages of 409 s on average, and then does and serves
nothing. The lines of one share and one seed have the same nodes and the same outages.

  time       until the last result is there, in seconds of the simulated world
  faster     than the way "fixed" of the same share, if that is played too
  done       shards of both stages whose result is there
  jobs       posted; copies: those of them that were while another of the shard was under way
  instead    copies that replace a job whose nodes did not answer
  lost       map shards computed again because nobody who had their outputs was there
  extra      gas that was run per useful gas, less one: checks, copies, broken-off runs
  wrong      results that are used and are not right
  owner      bytes that passed the owner for the reduce stage, of the bytes that it reads

Ways:
` + about.String(),
		Example: `  crowd sim mapreduce --away 0.5 --seed 7
  crowd sim mapreduce --away 0.1,0.3,0.5 --way adaptive,fixed --json`,
		RunE: a.until(func(_ *cobra.Command, ctx context.Context, _ []string) error {
			if slices.Equal(s.ways, []string{"all"}) {
				s.ways = known
			}
			return a.simMapReduce(ctx, s)
		}),
	}
	def := volatile.Config{}.WithDefaults()
	f := c.Flags()
	f.SortFlags = false
	f.Float64SliceVar(&s.aways, "away", []float64{0.1, 0.3, 0.5}, "shares of the time that each provider is away")
	f.StringSliceVar(&s.ways, "way", []string{"adaptive", "fixed"}, "how shards are computed: all, or some of "+strings.Join(known, ", "))
	f.IntVar(&s.Providers, "providers", def.Providers, "all of equal stake")
	f.IntVar(&s.Maps, "maps", def.Maps, "shards of the map stage")
	f.IntVar(&s.Reduces, "reduces", def.Reduces, "shards of the reduce stage")
	f.IntVar(&s.Parallel, "parallel", 0, "jobs at the same time (default: what is best for the way with 60 providers)")
	f.IntVar(&s.Audit, "audit", 50, "blocks from one look at the ledger's invariants to the next")
	f.Uint64Var(&s.Seed, "seed", def.Seed, "another seed is another history")
	f.IntVar(&s.workers, "workers", runtime.NumCPU(), "lines played at a time")
	return c
}

func (s *simMapReduce) plays() ([]*volatile.Play, error) {
	for _, f := range []struct { // a play would take a zero for its default
		name string
		zero bool
	}{{"providers", s.Providers == 0}, {"maps", s.Maps == 0}, {"reduces", s.Reduces == 0}, {"audit", s.Audit == 0}, {"seed", s.Seed == 0}} {
		if f.zero {
			return nil, misuse("", "--%s 0: want more than none", f.name)
		}
	}
	if s.workers < 1 {
		return nil, misuse("", "%d workers: want one at least", s.workers)
	}
	var plays []*volatile.Play
	for _, away := range s.aways {
		for _, way := range s.ways {
			c := s.Config
			c.Away, c.Way = away, way
			p, err := volatile.New(c)
			if err != nil {
				return nil, misuse("see: crowd sim mapreduce --help", "%v", err)
			}
			plays = append(plays, p)
		}
	}
	return plays, nil
}

func (a *app) simMapReduce(ctx context.Context, s simMapReduce) error {
	plays, err := s.plays()
	if err != nil {
		return err
	}
	seen := func(int) {}
	if a.terminal {
		all := 0
		for _, p := range plays {
			_, n := p.Shards()
			all += n
		}
		bar := progressbar.NewOptions(all, progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetDescription("shards"),
			progressbar.OptionShowCount(), progressbar.OptionSetWidth(24), progressbar.OptionThrottle(65*time.Millisecond), progressbar.OptionClearOnFinish())
		defer bar.Clear()
		seen = func(n int) { bar.Add(n) }
	}
	var g errgroup.Group
	g.SetLimit(s.workers)
	for _, p := range plays {
		g.Go(func() error {
			for more, before := true, 0; more && ctx.Err() == nil; {
				more = p.Go(10 * time.Second) // between two looks at the interrupt
				done, _ := p.Shards()
				seen(done - before)
				before = done
			}
			return nil
		})
	}
	g.Wait()
	var errs []error
	results := []volatile.Result{}
	for _, p := range plays {
		r, err := p.Result()
		if r.Done < r.Shards && ctx.Err() == nil {
			err = errors.Join(err, fmt.Errorf("%s at %g: %d of %d shards are done: %s", r.Config.Way, r.Config.Away, r.Done, r.Shards, r.Why))
		}
		results, errs = append(results, r), append(errs, err)
	}
	if err := a.result(results, func(w io.Writer) { printMapReduces(w, results) }); err != nil {
		return err
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func printMapReduces(w io.Writer, results []volatile.Result) {
	rows := [][]string{{"AWAY", "WAY", "TIME", "FASTER", "DONE", "JOBS", "COPIES", "INSTEAD", "LOST", "EXTRA", "WRONG", "OWNER"}}
	for _, r := range results {
		faster := ""
		if i := slices.IndexFunc(results, func(o volatile.Result) bool { return o.Config.Way == "fixed" && o.Config.Away == r.Config.Away }); i >= 0 && r.Config.Way != "fixed" && r.Seconds > 0 {
			faster = fmt.Sprintf("%.2fx", results[i].Seconds/r.Seconds)
		}
		rows = append(rows, []string{
			fmt.Sprintf("%g", r.Config.Away), r.Config.Way, fmt.Sprintf("%.0f", r.Seconds), faster, fmt.Sprintf("%d of %d", r.Done, r.Shards),
			fmt.Sprint(r.Jobs), fmt.Sprint(r.Copies), fmt.Sprint(r.Instead), fmt.Sprint(r.LostSources),
			fmt.Sprintf("%.0f %%", 100*r.Extra), fmt.Sprint(r.Wrong), fmt.Sprintf("%.2f %%", 100*r.Share),
		})
	}
	table(w, "", rows)
}
