package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd/internal/sim"
	"github.com/crowdcompute/crowd/internal/sim/swarm"
)

func (a *app) simCommand() *cobra.Command {
	c := noun("sim", "Play the network in a virtual world, with attackers in it", a.simOverlayCommand(), a.simJobsCommand(), a.simAuditsCommand(), a.simMapReduceCommand())
	c.Long = `Play the same code that nodes run in a virtual world: thousands of nodes in one
process, published latencies and churn, attackers who collude. One seed is one history.`
	return c
}

// simOverlay is what the flags of one command ask for.
type simOverlay struct {
	plan    swarm.Plan
	churn   string
	life    time.Duration
	sweep   bool
	workers int
	plot    string
	trace   string
}

func (a *app) simOverlayCommand() *cobra.Command {
	var s simOverlay
	p := &s.plan
	var paths int
	c := &cobra.Command{
		Use: "overlay", Short: "Look nodes up among attackers: success, time and traffic", Args: cobra.NoArgs,
		Long: `Play an overlay of many nodes, a share of them an attacker's, and let honest nodes
look honest nodes up. A lookup succeeds if it brings the record that its target
itself has now, and the target has answered it. The tables are settled when the world begins; with --churn nodes
then come and go, the attacker's stay. Shares have 95 % intervals (Wilson).

Times are of the lookups that succeeded: "record" until the true record had come,
"answer" until its node had answered too. The latency models king and planetlab
have the median and the maximum that were published, and a log-normal curve between.`,
		Example: `  crowd sim overlay --nodes 10000 --adversaries 0.3
  crowd sim overlay --nodes 10000 --sweep --lookups 10000 --plot success.svg
  crowd sim overlay --nodes 5000 --churn weibull --life 10000s --warm 1h`,
		RunE: a.until(func(cmd *cobra.Command, ctx context.Context, _ []string) error {
			p.Paths = []int{paths}
			if s.sweep {
				p.Paths = []int{1, 2, 4, 8}
				if cmd.Flags().Changed("paths") {
					p.Paths = []int{paths}
				}
			}
			return a.simOverlay(ctx, s)
		}),
	}
	f := c.Flags()
	f.IntVar(&p.Nodes, "nodes", 1000, "how many nodes, the attacker's included")
	f.Float64Var(&p.Adversaries, "adversaries", 0, "share of them that is the attacker's")
	f.StringVar(&p.Behaviour, "behaviour", "collude", "what the attacker's do: "+strings.Join(swarm.Behaviours(), ", "))
	f.IntVar(&paths, "paths", 8, "disjoint paths of a lookup")
	f.IntVar(&p.Lookups, "lookups", 1000, "lookups of each cell of the table")
	f.StringVar(&s.churn, "churn", "none", "how nodes come and go: none, weibull")
	f.DurationVar(&s.life, "life", 10_000*time.Second, "mean time that a node stays")
	f.DurationVar(&p.Warm, "warm", 20*time.Minute, "with churn, played before the lookups; upkeep is measured in its second half")
	f.StringVar(&p.Latency, "latency", "king", "one of: "+strings.Join(sim.Latencies(), ", "))
	f.Float64Var(&p.Loss, "loss", 0, "share of datagrams that are lost")
	f.Float64Var(&p.NAT, "nat", 0, "share of honest nodes behind a NAT: they look up, and are in no table")
	f.Uint64Var(&p.Seed, "seed", 1, "another seed is another history")
	f.BoolVar(&s.sweep, "sweep", false, "play 0, 10, ... 50 % of attackers with 1, 2, 4 and 8 paths")
	f.IntVar(&s.workers, "workers", min(runtime.NumCPU(), 6), "worlds played at a time")
	f.StringVar(&s.plot, "plot", "", "draw success against the share of attackers into this .svg or .png")
	f.StringVar(&s.trace, "trace", "", "write what happened to this file; for one world")
	f.IntVar(&p.Overlay.BucketSize, "bucket", 32, "k: entries of a bucket")
	f.IntVar(&p.Overlay.Siblings, "siblings", 16, "s: nodes responsible for a key")
	f.IntVar(&p.Overlay.Width, "width", 8, "nearest of a path that are asked before it ends")
	f.IntVar(&p.Overlay.Fair, "fair", 16, "requests of a path that go to the least doubtful; -1: none")
	f.IntVar(&p.Overlay.Answer, "answer", 16, "records in an answer")
	f.IntVar(&p.Overlay.Parallel, "parallel", 2, "requests under way on one path")
	return c
}

// simCell is a cell for scripts. Times are in milliseconds.
type simCell struct {
	Nodes       int                `json:"nodes"`
	Adversaries float64            `json:"adversaries"`
	Behaviour   string             `json:"behaviour"`
	Churn       string             `json:"churn"`
	Paths       int                `json:"paths"`
	Seed        uint64             `json:"seed"`
	Lookups     int                `json:"lookups"`
	Found       int                `json:"found"`
	Void        int                `json:"void"`
	Success     float64            `json:"success"`
	Low         float64            `json:"low"`
	High        float64            `json:"high"`
	Hops        float64            `json:"hops"`
	Asked       float64            `json:"requests"`
	RecordP50   float64            `json:"record_p50_ms"`
	RecordP99   float64            `json:"record_p99_ms"`
	AnswerP50   float64            `json:"answer_p50_ms"`
	AnswerP99   float64            `json:"answer_p99_ms"`
	Packets     float64            `json:"packets_per_lookup"`
	Bytes       float64            `json:"bytes_per_lookup"`
	UpkeepSent  float64            `json:"upkeep_sent_bytes_per_second"`
	UpkeepHeard float64            `json:"upkeep_received_bytes_per_second"`
	UpkeepBy    map[string]float64 `json:"upkeep_sent_by"`
	Joins       int64              `json:"joins"`
	Events      int64              `json:"events"`
	VirtualSecs float64            `json:"virtual_seconds"`
}

func viewOf(s *simOverlay, c swarm.Cell) simCell {
	ms := func(times []time.Duration, q float64) float64 {
		return math.Round(swarm.Quantile(times, q).Seconds()*1e5) / 100
	}
	by := map[string]float64{}
	for i, name := range swarm.KindNames() {
		if v := c.UpkeepBy[i]; v > 0 {
			by[name] = math.Round(v*10) / 10
		}
	}
	return simCell{
		Nodes: c.Nodes, Adversaries: c.Adversaries, Behaviour: c.Behaviour, Churn: s.churn, Paths: c.Paths, Seed: s.plan.Seed,
		Lookups: c.Lookups, Found: c.Found, Void: c.Void + c.Open, Success: c.Success(), Low: c.LowFound, High: c.HighFound,
		Hops: c.Hops, Asked: c.Asked, RecordP50: ms(c.Seen, .5), RecordP99: ms(c.Seen, .99), AnswerP50: ms(c.Took, .5), AnswerP99: ms(c.Took, .99),
		Packets: c.Packets, Bytes: c.Bytes, UpkeepSent: c.UpkeepSent, UpkeepHeard: c.UpkeepHeard, UpkeepBy: by, Joins: c.Joins, Events: c.Events, VirtualSecs: c.Virtual.Seconds(),
	}
}

func (a *app) simOverlay(ctx context.Context, s simOverlay) (err error) {
	switch s.churn {
	case "none":
		s.plan.Quiet, s.plan.Warm = true, 0
	case "weibull":
		s.plan.Churn = sim.Churn{Up: s.life}
		s.plan.Spread = 5 * time.Minute
		if s.life <= 0 {
			return misuse("", "--life %v: want more than 0", s.life)
		}
	default:
		return misuse("", "--churn %q: want none or weibull", s.churn)
	}
	shares := []float64{s.plan.Adversaries}
	if s.sweep {
		shares = []float64{0, 0.1, 0.2, 0.3, 0.4, 0.5}
	}
	if s.plan.Lookups < 1 || s.workers < 1 || s.plan.Paths[0] < 1 || s.plan.Paths[0] > 32 {
		return misuse("", "want at least one lookup and worker, and 1 to 32 paths")
	}
	if err := s.plan.Config.Validate(); err != nil {
		return misuse("", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if ext := filepath.Ext(s.plot); s.plot != "" && ext != ".svg" && ext != ".png" {
		return misuse("", "--plot %s: want a name that ends in .svg or .png", s.plot)
	}
	if s.trace != "" {
		if s.sweep {
			return misuse("leave --sweep away", "--trace is for one world")
		}
		f, err := os.Create(s.trace)
		if err != nil {
			return err
		}
		defer f.Close()
		w := bufio.NewWriter(f)
		s.plan.Trace = sim.NewTrace(w)
		defer func() {
			err = errors.Join(err, s.plan.Trace.Close(), w.Flush())
		}()
	}
	cells, err := a.simCells(ctx, s, shares)
	if len(cells) == 0 {
		if err == nil {
			err = errors.New("no lookup had an end")
		}
		return err
	}
	if err := a.result(cells, func(w io.Writer) { printCells(w, cells) }); err != nil {
		return err
	}
	if s.plot != "" {
		if err := plotCells(s.plot, cells); err != nil {
			return err
		}
	}
	if errors.Is(err, swarm.ErrStopped) {
		a.say("interrupted: these are the cells that were done, the last may have fewer lookups")
		return nil
	}
	return err
}

// simCells plays the worlds, some at a time.
func (a *app) simCells(ctx context.Context, s simOverlay, shares []float64) ([]simCell, error) {
	var (
		mu    sync.Mutex
		cells []simCell
		ended = make([]int, len(shares))
	)
	total := len(shares) * len(s.plan.Paths) * s.plan.Lookups
	bar := progressbar.NewOptions(total, progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetDescription("lookups"),
		progressbar.OptionSetVisibility(a.terminal), progressbar.OptionShowCount(), progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(65*time.Millisecond), progressbar.OptionClearOnFinish())
	defer bar.Exit()
	var g errgroup.Group // not with ctx: a world that is stopped says what it has
	g.SetLimit(s.workers)
	for i, share := range shares {
		plan := s.plan
		plan.Adversaries = share
		g.Go(func() error {
			return swarm.Measure(plan, func(c swarm.Cell) {
				mu.Lock()
				defer mu.Unlock()
				cells = append(cells, viewOf(&s, c))
			}, func(done int) bool {
				mu.Lock()
				defer mu.Unlock()
				bar.Add(done - ended[i])
				ended[i] = done
				return ctx.Err() == nil
			})
		})
	}
	err := g.Wait()
	slices.SortFunc(cells, func(a, b simCell) int {
		if a.Adversaries != b.Adversaries {
			return int(math.Copysign(1, a.Adversaries-b.Adversaries))
		}
		return a.Paths - b.Paths
	})
	return cells, err
}

func printCells(w io.Writer, cells []simCell) {
	rows := [][]string{{"NODES", "BAD", "PATHS", "LOOKUPS", "FOUND", "95 % INTERVAL", "HOPS", "REQUESTS", "RECORD P50", "P99", "ANSWER P50", "P99", "PACKETS", "BYTES", "UPKEEP SENT", "RECEIVED"}}
	for _, c := range cells {
		ms := func(v float64) string { return fmt.Sprintf("%.0f ms", v) }
		up := func(v float64) string { return unless(v == 0, fmt.Sprintf("%.0f B/s", v)) }
		rows = append(rows, []string{fmt.Sprint(c.Nodes), fmt.Sprintf("%.0f %%", 100*c.Adversaries), fmt.Sprint(c.Paths), fmt.Sprint(c.Lookups),
			fmt.Sprintf("%.2f %%", 100*c.Success), fmt.Sprintf("%.2f to %.2f", 100*c.Low, 100*c.High), fmt.Sprintf("%.1f", c.Hops), fmt.Sprintf("%.1f", c.Asked),
			ms(c.RecordP50), ms(c.RecordP99), ms(c.AnswerP50), ms(c.AnswerP99), fmt.Sprintf("%.0f", c.Packets), fmt.Sprintf("%.0f", c.Bytes), up(c.UpkeepSent), up(c.UpkeepHeard)})
	}
	table(w, "", rows)
}
