package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/rpc"
)

func (a *app) planCommand() *cobra.Command {
	var f batchFlags
	c := &cobra.Command{
		Use:   "plan PROG.wasm INPUT... | JOB.yaml [flags]",
		Short: "Show how crowd map would check a batch, what it costs and how sure it is",
		Long: `Show what crowd map would do with the same arguments, without running anything: the
jobs, how they are checked, the overhead, the price, the probability that a cheater
escapes, the expected wait, and under which assumptions. What cannot be had with the
budget or the nodes at hand is answered with the nearest plans that can.
Without --gas a limit of 100 Mgas for each item is assumed; how much a stage of a job
file writes for others is what its "writes" says, or as much as it reads.`,
		Example: "  crowd plan ./count.wasm 'texts/*.txt' --by lines --gas 20M --confidence 0.999\n  crowd plan job.yaml",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && isJobFile(args[0]) {
				return saidInFile(c, args[0])
			}
			if len(args) < 2 {
				return misuse("for example: crowd plan count.wasm 'texts/*.txt', or crowd plan job.yaml", "plan: want a program and inputs, or a job file")
			}
			return nil
		},
		RunE: a.until(func(_ *cobra.Command, ctx context.Context, args []string) error {
			m := mapFlags{batchFlags: f}
			var w *flowWish
			var err error
			if len(args) == 1 {
				w, err = m.fromFile(args[0])
			} else {
				w, err = m.wish("plan", args)
			}
			if err != nil {
				return err
			}
			if m.raised != "" {
				a.say("%s", m.raised)
			}
			return a.plan(ctx, w)
		}),
	}
	f.register(c)
	return c
}

// planGas is the limit of an item that a plan assumes when nobody says one: nothing is run that would show it.
const planGas crowd.Gas = 100e6

// stagePlan is what is planned for a stage.
type stagePlan struct {
	Name string   `json:"name"`
	From []string `json:"from,omitempty"`
	indexed
	rpc.BatchQuote
	Assumed []string `json:"assumed,omitempty"` // by this command

	end    int64   // of the wait, with those that it waits for
	useful float64 // gas
}

// flowPlan is what is planned for a flow of several stages.
type flowPlan struct {
	Stages       []stagePlan   `json:"stages"`
	Jobs         uint64        `json:"jobs"`
	Overhead     float64       `json:"overhead"`   // gas of checks per useful gas
	Undetected   float64       `json:"undetected"` // that a cheating executor escapes, where that is likeliest
	Any          float64       `json:"any"`        // that any job of any stage is wrong and accepted, at most
	Executors    crowd.Credits `json:"executors"`
	Verification crowd.Credits `json:"verification"`
	Bound        crowd.Credits `json:"bound"`      // that all jobs together may lock
	WaitMillis   int64         `json:"waitMillis"` // of the stages that wait for each other, along the longest way
}

func (a *app) plan(ctx context.Context, w *flowWish) error {
	if err := w.check(a); err != nil {
		return err
	}
	order, err := flow.New(w.nodes())
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "crowd-plan-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	all := flowPlan{Stages: make([]stagePlan, len(order.Stages))}
	for i := range order.Stages { // first what needs no node
		wish, p := w.stage(order.Stages[i].Name), &all.Stages[i]
		p.Name, p.From = wish.name, wish.from
		if len(wish.from) == 0 {
			err = p.cut(wish, a.stdin, tmp)
		} else {
			err = p.guess(wish, w, &all)
		}
		if err != nil {
			return err
		}
		if wish.auto {
			p.assumeGas(wish)
		}
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := w.resolve(ctx, c); err != nil {
		return err
	}
	for i := range all.Stages {
		p := &all.Stages[i]
		wish := w.stage(p.Name)
		st := stage{Index: p.indexed, ShardSize: wish.shard}
		r := rpc.BatchRequest{Items: p.Items, Shard: st.shardLimit(), Limits: wish.request.Limits, Filters: wish.request.Filters,
			Confidence: wish.request.Confidence, Whole: wish.whole, Compare: withProgram(wish.request.Compare, unsent)}
		if w.budget > 0 {
			r.Budget = max(1, w.budget-min(w.budget, all.Bound)) // what other stages may lock is not there any more
		}
		p.BatchQuote, err = c.PlanBatch(ctx, r)
		if err == nil && p.Plan == nil && wish.auto && r.Budget > 0 && r.Limits.Gas != planGas { // as crowd map does
			wish.request.Limits.Gas, r.Limits.Gas = planGas, planGas
			p.BatchQuote, err = c.PlanBatch(ctx, r)
		}
		if err != nil {
			return err
		}
		if p.Plan == nil {
			break
		}
		all.add(p, order.Stages[i].From, wish.request.Limits.Gas)
	}
	return a.sayPlan(&all)
}

// assumeGas is the limit of an item that nobody said: what crowd map gives its first items, if these are all, and
// otherwise a guess, since crowd map measures it with them.
func (p *stagePlan) assumeGas(wish *stageWish) {
	wish.request.Limits.Gas = planGas
	why := fmt.Sprintf("; say it with --gas (crowd map gives the first %d up to %s, unless the budget keeps from it, "+
		"and measures)", pilotItems, gasText(pilotGas))
	if p.Items <= pilotItems {
		wish.request.Limits.Gas = fewGas
		why = ", as crowd map gives so few items; say another limit with --gas"
	}
	p.Assumed = append(p.Assumed, fmt.Sprintf("at most %s for an item%s", gasText(wish.request.Limits.Gas), why))
}

// cut counts the items of a stage that reads files.
func (p *stagePlan) cut(wish *stageWish, stdin io.Reader, tmp string) error {
	files, err := findInputs(wish.inputs, stdin, filepath.Join(tmp, "stdin"))
	if err != nil {
		return err
	}
	by, err := parseCut(wish.by)
	if err != nil {
		return err
	}
	p.indexed, err = by.index(files, filepath.Join(tmp, "items"))
	return err
}

// guess is how much a stage will read that others write.
func (p *stagePlan) guess(wish *stageWish, w *flowWish, all *flowPlan) error {
	bytes := 0.0
	for _, from := range wish.from {
		i := slices.IndexFunc(all.Stages, func(s stagePlan) bool { return s.Name == from })
		bytes += float64(all.Stages[i].Bytes) * w.stage(from).writes
		p.Assumed = append(p.Assumed, fmt.Sprintf("%s writes %s times what it reads", from, threeDigits(w.stage(from).writes)))
	}
	if bytes > crowd.MaxParts*maxItem {
		return rpc.Errorf(rpc.TooLarge, "stage %s would read %s; %d partitions of at most %s hold less", wish.name, sizeText(int64(bytes)), crowd.MaxParts, sizeText(maxItem)).
			WithHint("let what it reads add up what it can (sdk.Combine), and say what it writes: writes: 0.1")
	}
	p.Bytes = uint64(bytes)
	p.Items = max(wish.partitions, (p.Bytes+partitionBytes-1)/partitionBytes, 1)
	p.Largest = uint32(min(maxItem, 2*p.Bytes/p.Items))
	return nil
}

// add counts a stage's plan to that of all.
func (f *flowPlan) add(p *stagePlan, from []int, gas crowd.Gas) {
	before := int64(0)
	for _, i := range from {
		before = max(before, f.Stages[i].end)
	}
	p.end = before + p.Plan.WaitMillis
	p.useful = float64(gas) * float64(p.Items)
	f.WaitMillis = max(f.WaitMillis, p.end)
	f.Jobs += p.Plan.Shards
	f.Undetected = max(f.Undetected, p.Plan.Undetected)
	f.Any = min(1, f.Any+p.Plan.Any)
	f.Executors += p.Plan.Executors
	f.Verification += p.Plan.Verification
	f.Bound += p.Plan.Bound
	useful, checks := 0.0, 0.0
	for _, s := range f.Stages {
		if s.Plan != nil {
			useful, checks = useful+s.useful, checks+s.useful*s.Plan.Overhead
		}
	}
	f.Overhead = checks / useful
}

func (a *app) sayPlan(all *flowPlan) error {
	one := len(all.Stages) == 1
	var shared []string // assumptions of all stages: said once
	if !one && all.Stages[len(all.Stages)-1].Plan != nil {
		shared = slices.DeleteFunc(slices.Clone(all.Stages[0].Plan.Assumptions), func(s string) bool {
			return slices.ContainsFunc(all.Stages, func(p stagePlan) bool { return !slices.Contains(p.Plan.Assumptions, s) })
		})
	}
	if a.json {
		var v any = all
		if one {
			v = all.Stages[0]
		}
		if err := a.result(v, nil); err != nil {
			return err
		}
	}
	for i := range all.Stages {
		p := &all.Stages[i]
		if p.Plan == nil {
			if !one {
				a.say("stage %s:", p.Name)
			}
			return unmet(a.say, p.Items, &p.BatchQuote)
		}
		if !a.json {
			if !one {
				fmt.Fprintf(a.stdout, "stage %s\n", p.Name)
			}
			printPlan(a.stdout, p, shared)
			for _, s := range p.Assumed {
				a.say("assumed: %s", s)
			}
			if !one {
				fmt.Fprintln(a.stdout)
			}
		}
	}
	if !one && !a.json {
		fmt.Fprintln(a.stdout, "in all")
		fields(a.stdout, "jobs", fmt.Sprint(all.Jobs), "overhead", percentText(all.Overhead)+" of the useful gas", "a cheater escapes", "at most "+chanceText(all.Undetected),
			"any job is wrong and accepted", "at most "+chanceText(all.Any), "executors' pay", "up to "+creditText(all.Executors), "verification", "up to "+creditText(all.Verification),
			"locked at most", creditText(all.Bound), "expected wait", waitText(all.WaitMillis))
		for _, s := range shared {
			fmt.Fprintf(a.stdout, "assumed: %s\n", clean(s))
		}
	}
	return nil
}

func waitText(millis int64) string {
	if millis <= 0 {
		return ""
	}
	return max((time.Duration(millis) * time.Millisecond).Round(time.Second), time.Second).String()
}

// printPlan is the plan of a stage, less the assumptions that are said elsewhere.
func printPlan(w io.Writer, s *stagePlan, elsewhere []string) {
	all, q, p := &s.indexed, &s.BatchQuote, s.Plan
	fields(w, "items", fmt.Sprintf("%d, %s, the largest %s", all.Items, sizeText(int64(all.Bytes)), sizeText(int64(all.Largest))),
		"jobs", fmt.Sprintf("%d of up to %s, each with %s", p.Shards, count(p.Items, "item"), count(p.Nodes, "node")),
		"check", fmt.Sprintf("%s of each job re-run %d of its items each, which nobody else knows",
			count(p.Verifiers, "verifier"), p.Checks),
		"compare", compareText(p.Compare),
		"overhead", percentText(p.Overhead)+" of the useful gas",
		"a cheater escapes", chanceText(p.Undetected), "a job is wrong and accepted", chanceText(p.Accepted), "any job is", "at most "+chanceText(min(p.Any, 1)),
		"least stake of a node", creditText(p.MinStake), "executors' pay", "up to "+creditText(p.Executors), "verification", "up to "+creditText(p.Verification),
		"locked at most", creditText(p.Bound), "expected wait", waitText(p.WaitMillis), "nodes that could be drawn", fmt.Sprint(q.Eligible))
	for _, s := range p.Assumptions {
		if slices.Contains(elsewhere, s) {
			continue
		}
		fmt.Fprintf(w, "assumed: %s\n", clean(s))
	}
}
