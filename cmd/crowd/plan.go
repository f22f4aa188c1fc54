package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd/internal/rpc"
)

func (a *app) planCommand() *cobra.Command {
	var f batchFlags
	c := &cobra.Command{
		Use:   "plan PROG.wasm INPUT... [flags]",
		Short: "Show how crowd map would check a batch, what it costs and how sure it is",
		Long: `Show what crowd map would do with the same arguments, without running anything: the
jobs, how they are checked, the overhead, the price, the probability that a cheater
escapes, the expected wait, and under which assumptions. What cannot be had with the
budget or the nodes at hand is answered with the nearest plans that can.
Without --gas a limit of 100 Mgas for each item is assumed.`,
		Example: "  crowd plan ./count.wasm 'texts/*.txt' --by lines --gas 20M --confidence 0.999",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 && (filepath.Ext(args[0]) == ".yaml" || filepath.Ext(args[0]) == ".yml") {
				return nil // said below
			}
			if len(args) < 2 {
				return misuse("for example: crowd plan count.wasm 'texts/*.txt'", "plan: want a program and inputs")
			}
			return nil
		},
		RunE: a.until(func(_ *cobra.Command, ctx context.Context, args []string) error {
			if len(args) == 1 {
				return notBuilt("plan of a job file")
			}
			return a.plan(ctx, &f, args)
		}),
	}
	f.register(c)
	return c
}

// planGas is the limit of an item that a plan assumes when nobody says one: nothing is run that would show it.
const planGas = "100M"

func (a *app) plan(ctx context.Context, f *batchFlags, args []string) error {
	assumed := f.gas == "auto"
	if assumed {
		f.gas = planGas
	}
	req, budget, err := f.request("plan")
	if err != nil {
		return err
	}
	if st, err := os.Stat(args[0]); err != nil {
		return fmt.Errorf("program: %w", err)
	} else if !st.Mode().IsRegular() {
		return fmt.Errorf("program %s: not a file", args[0])
	}
	tmp, err := os.MkdirTemp("", "crowd-plan-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	files, err := findInputs(args[1:], a.stdin, filepath.Join(tmp, "stdin"))
	if err != nil {
		return err
	}
	by, _ := parseCut(f.by)
	p := stage{Request: req, ShardSize: f.shard}
	if p.Index, err = by.index(files, filepath.Join(tmp, "items")); err != nil {
		return err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if len(f.providers) > 0 {
		if req.Filters.Providers, err = resolveProviders(ctx, c, f.providers); err != nil {
			return err
		}
	}
	q, err := c.PlanBatch(ctx, rpc.BatchRequest{Items: p.Index.Items, Shard: p.shardLimit(), Limits: req.Limits, Filters: req.Filters, Budget: budget,
		Confidence: f.confidence, Whole: f.whole})
	if err != nil {
		return err
	}
	if a.json {
		if err := a.result(struct {
			indexed
			rpc.BatchQuote
		}{p.Index, q}, nil); err != nil {
			return err
		}
	} else if q.Plan != nil {
		printPlan(a.stdout, &p.Index, &q)
	}
	if q.Plan == nil {
		return unmet(a.say, p.Index.Items, &q)
	}
	if assumed && !a.json {
		a.say("assumed: at most %s for an item; say it with --gas", gasText(req.Limits.Gas))
	}
	return nil
}

func printPlan(w io.Writer, all *indexed, q *rpc.BatchQuote) {
	p := q.Plan
	wait := ""
	if p.WaitMillis > 0 {
		wait = (time.Duration(p.WaitMillis) * time.Millisecond).Round(time.Second).String()
	}
	fields(w, "items", fmt.Sprintf("%d, %s, the largest %s", all.Items, sizeText(int64(all.Bytes)), sizeText(int64(all.Largest))),
		"jobs", fmt.Sprintf("%d of up to %d items, each with %d nodes", p.Shards, p.Items, p.Nodes),
		"check", fmt.Sprintf("%d verifiers of each job re-run %d of its items each, which nobody else knows", p.Verifiers, p.Checks),
		"overhead", percentText(p.Overhead)+" of the useful gas",
		"a cheater escapes", chanceText(p.Undetected), "a job is wrong and accepted", chanceText(p.Accepted), "any job is", "at most "+chanceText(min(p.Any, 1)),
		"least stake of a node", creditText(p.MinStake), "executors' pay", "up to "+creditText(p.Executors), "verification", "up to "+creditText(p.Verification),
		"locked at most", creditText(p.Bound), "expected wait", wait, "nodes that could be drawn", fmt.Sprint(q.Eligible))
	for _, s := range p.Assumptions {
		fmt.Fprintf(w, "assumed: %s\n", clean(s))
	}
}
