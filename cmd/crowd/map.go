package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/rpc"
)

const (
	// pilotItems are run first, with pilotGas each, when the user does not say what an item needs. If any of them runs out of it,
	// raisedItems run with eight times as much, and so on up to mostPilotGas. A flow of no more than pilotItems has no
	// first ones: each item has fewGas.
	pilotItems             = 32
	pilotGas     crowd.Gas = 250e6
	raisedItems            = 4
	mostPilotGas crowd.Gas = 16e9
	fewGas       crowd.Gas = 1e9
	// shardBytes is how large the items of a shard may be together: a node holds them for a while.
	shardBytes = 256 << 20
	// shownFailures is how many failed items are named.
	shownFailures = 1000
)

// batchFlags are what crowd map and crowd plan have in common.
type batchFlags struct {
	by                            string
	env, tags, country, providers []string
	args                          []string // of the program
	gas, memory, maxOutput        string
	budget, maxPrice              string
	timeout                       time.Duration
	confidence                    float64
	whole                         bool
	shard                         uint64
	compare                       string

	raised string // what request makes of a timeout that is too short; ""
}

func (f *batchFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.by, "by", "files", "what an item is: files, lines (groups of about 16 KiB), lines=N, bytes=N, records=SEPARATOR")
	fl.Float64Var(&f.confidence, "confidence", 0.99, "probability that an executor is caught that gets a tenth of its items wrong")
	fl.BoolVar(&f.whole, "whole", false, "--confidence is the probability that all that is accepted is right")
	fl.StringVar(&f.compare, "compare", "exact", compareUsage)
	fl.StringVar(&f.gas, "gas", "auto", "most gas for one item, as 20M, 1G; auto: four times what the first few items take at most")
	fl.StringVar(&f.memory, "memory", "256MiB", "most memory for one item")
	fl.StringVar(&f.maxOutput, "max-output", "1MiB", "most bytes that one item may write")
	fl.DurationVar(&f.timeout, "timeout", 0, "most time on the executor's clock, for all items of a shard together (default: what their gas may take)")
	fl.Uint64Var(&f.shard, "shard", 0, "most items of one job (default: what the plan says)")
	fl.StringVar(&f.budget, "budget", "", "most credits to lock for all of it")
	fl.StringVar(&f.maxPrice, "max-price", "", "most credits per giga-gas")
	fl.StringArrayVar(&f.env, "env", nil, "NAME=value for the program; may be repeated")
	fl.StringArrayVar(&f.args, "arg", nil, "an argument for the program; may be repeated")
	fl.StringSliceVar(&f.tags, "tag", nil, "a tag that the provider must have")
	fl.StringSliceVar(&f.country, "country", nil, "a country (two letters) where the provider may be")
	fl.StringSliceVar(&f.providers, "provider", nil, "a provider (node ID or its first digits) that may be drawn")
}

// request turns flags into a request for one item; errors are misuse.
func (f *batchFlags) request(command string) (r rpc.PostRequest, budget crowd.Credits, err error) {
	if _, err := parseCut(f.by); err != nil {
		return r, 0, misuse("see: crowd "+command+" --help", "%s: %v", command, err)
	}
	run := runFlags{gas: f.gas, memory: f.memory, maxOutput: f.maxOutput, budget: f.budget, maxPrice: f.maxPrice, timeout: f.timeout,
		confidence: f.confidence, compare: f.compare, env: f.env, tags: f.tags, country: f.country}
	if f.gas == "auto" {
		run.gas = fmt.Sprint(uint64(pilotGas)) // until it is measured
	}
	r, err = run.request(f.args)
	f.raised = run.raised
	if err != nil {
		var u *usageError
		if errors.As(err, &u) {
			u.text, u.hint = command+strings.TrimPrefix(u.text, "run"), "see: crowd "+command+" --help"
		}
		return r, 0, err
	}
	if r.Limits.Output > maxItem {
		return r, 0, misuse("see: crowd "+command+" --help", "%s: --max-output %s: an item writes at most %s", command, f.maxOutput, sizeText(maxItem))
	}
	budget, r.Budget, r.Program = r.Budget, 0, ""
	if f.timeout == 0 {
		r.Limits.WallMillis = 0 // a shard's size decides
	}
	return r, budget, nil
}

// mapFlags are the flags of crowd map, as typed.
type mapFlags struct {
	batchFlags
	out, state, resume string
	reduce             string
	partitions         uint64
	parallel           int
	patience           time.Duration
	noSpeculation      bool
	allowFailed        bool
	quiet              bool
}

func (a *app) mapCommand() *cobra.Command {
	var f mapFlags
	c := &cobra.Command{
		Use:   "map PROG.wasm INPUT... | JOB.yaml [flags]",
		Short: "Run a program on each of many items, checked by samples",
		Long: `Run a WebAssembly program (WASI preview 1) once on each of many items: files, or
pieces of files. An item is the program's stdin; what the program writes to stdout is
the item's output. The items go to drawn nodes in shards. Of each shard other drawn
nodes re-run a secret sample before they can know the first one's results, so that the
check costs a fraction of the work; the plan says how sure that is.

--out FILE receives the outputs one after another, in the order of the items;
--out DIR/ a file for each. Items whose program fails are named and the others finish.
--reduce PROG.wasm runs a second program on the lines "key<tab>value" of all outputs,
those of one key together and sorted, in partitions by the hash of the key.

A job file names several programs, each over files or over what others wrote; docs/job.md
describes it. Of the flags those count with it that say how it is run, not what.

A shard that takes much longer than others gets a copy on other nodes; the first result
is used, and when both come they are compared. --no-speculation keeps from it.

Ctrl-C, or a crash, leaves the jobs running; crowd map --resume DIR goes on. DIR is
beside --out, with ".map" at the end, and keeps the receipts.`,
		Example: `  crowd map ./count.wasm 'texts/*.txt' --by lines --reduce ./sum.wasm --out counts.txt
  crowd map ./score.wasm molecules.smi --by lines=1 --gas 20M --confidence 0.999 --out scores.txt
  crowd map job.yaml --budget 20
  crowd map --resume counts.txt.map`,
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && isJobFile(args[0]):
				return saidInFile(c, args[0])
			case f.resume != "" && len(args) > 0:
				return misuse("crowd map --resume "+f.resume, "map: --resume takes program and inputs from its folder")
			case f.resume != "":
				return onlyFlags(c, append([]string{"resume"}, howFlags...), func(name string) error {
					return misuse("leave it out, or begin anew with another --out", "map: --%s has no effect on what %s has begun", name, f.resume)
				})
			case f.resume == "" && len(args) == 0:
				return misuse("for example: crowd map count.wasm 'texts/*.txt' --out counts.txt", "map: which program?")
			case f.resume == "" && len(args) == 1:
				return misuse(fmt.Sprintf("for example: crowd map %s 'texts/*.txt' --out counts.txt", args[0]), "map: which inputs?")
			}
			return nil
		},
		RunE: a.until(func(_ *cobra.Command, ctx context.Context, args []string) error { return a.mapReduce(ctx, &f, args) }),
	}
	fl := c.Flags()
	fl.StringVar(&f.out, "out", "", "a file for all outputs, or a folder (with a slash at the end) for one each")
	f.register(c)
	fl.StringVar(&f.reduce, "reduce", "", "a program to run on the sorted lines of all outputs")
	fl.Uint64Var(&f.partitions, "partitions", 0, "least partitions for --reduce (default: as many as needed)")
	fl.IntVar(&f.parallel, "parallel", 8, "shards at the same time")
	fl.DurationVar(&f.patience, "patience", 2*time.Minute, "how long to wait for providers that are away, or for credits that other shards lock")
	fl.BoolVar(&f.noSpeculation, "no-speculation", false, "post no copies of shards that are late, or whose nodes do not answer")
	fl.BoolVar(&f.allowFailed, "allow-failed", false, "exit with 0 though items failed")
	fl.StringVar(&f.state, "state", "", "the folder for what is needed to go on (default: OUT.map)")
	fl.StringVar(&f.resume, "resume", "", "go on with the crowd map of this folder")
	fl.BoolVar(&f.quiet, "quiet", false, "no talk")
	return c
}

// mapSummary is what a crowd map came to.
type mapSummary struct {
	Items      uint64        `json:"items"`
	Failed     uint64        `json:"failed"`
	Failures   []failure     `json:"failures"` // the first of them
	Shards     int           `json:"shards"`
	Jobs       []crowd.JobID `json:"jobs"`
	Lost       int           `json:"lost"`      // jobs that failed and were posted again
	Convicted  int           `json:"convicted"` // nodes that lied
	Gas        crowd.Gas     `json:"gas"`       // of the items
	CheckGas   crowd.Gas     `json:"checkGas"`  // of the verifiers' samples, measured
	Overhead   float64       `json:"overhead"`
	Paid       crowd.Credits `json:"paid"`
	Undetected float64       `json:"undetected"` // the worst of the shards
	WallMillis int64         `json:"wallMillis"`
	State      string        `json:"state"` // folder with receipts
	Copies     copies        `json:"copies"`
	Conflicts  int           `json:"conflicts"`        // shards of which two accepted results differed
	Moved      uint64        `json:"movedBytes"`       // between this command and its node
	Fetched    uint64        `json:"nodeFetchedBytes"` // by its node from others
	Served     uint64        `json:"nodeServedBytes"`  // by its node to others: programs and inputs
	Shuffled   uint64        `json:"shuffledBytes"`    // from executors to executors

	ran uint64 // items of all stages
}

// copies are jobs of shards that were late.
type copies struct {
	Posted int `json:"posted"`
	Used   int `json:"used"`  // they came first
	Equal  int `json:"equal"` // both came, and were equal
}

// failure is an item in which the program or the item is to blame.
type failure struct {
	Item     uint64      `json:"item"` // from 0
	Name     string      `json:"name"`
	Job      crowd.JobID `json:"job"`
	Status   string      `json:"status"`
	ExitCode uint32      `json:"exitCode"`
	Stderr   string      `json:"stderr"`
}

func (a *app) mapReduce(ctx context.Context, f *mapFlags, args []string) (err error) {
	if f.parallel < 1 || f.parallel > 64 {
		return misuse("see: crowd map --help", "map: --parallel %d: want 1 to 64", f.parallel)
	}
	if f.partitions > 0 && f.reduce == "" {
		return misuse("see: crowd map --help", "map: --partitions without --reduce")
	}
	if f.partitions > crowd.MaxParts {
		return misuse("let the map program add up what it can (sdk.Combine)", "map: --partitions %d: at most %d", f.partitions, crowd.MaxParts)
	}
	var d *mapDir
	var w *flowWish
	fresh := f.resume == ""
	if fresh {
		if len(args) == 1 {
			w, err = f.fromFile(args[0])
		} else {
			w, err = f.wish("map", args)
		}
		if err != nil {
			return err
		}
		if a.json && w.out == "" {
			return misuse("give --out FILE, so that the outputs and the JSON do not mix", "map: --json without --out")
		}
		d, err = a.newMap(ctx, w, f.state)
	} else {
		d, err = f.reopen()
	}
	if err != nil {
		return err
	}
	defer d.close()
	posted := false
	defer func() { // nothing that could go on
		if fresh && !posted && err != nil {
			os.RemoveAll(d.dir)
		}
	}()
	out, err := openOutput(d.state.Out, a.stdout)
	if err != nil {
		return err
	}
	defer out.abandon()
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if fresh {
		if err := w.resolve(ctx, c); err != nil {
			return err
		}
		if err := d.change(func(s *mapState) {
			for _, st := range s.Stages {
				st.Request.Filters.Providers = w.stage(st.Name).request.Filters.Providers
			}
		}); err != nil {
			return err
		}
	}
	if fresh && !f.quiet && f.raised != "" {
		a.say("%s", f.raised)
	}
	m := &mapping{app: a, c: c, d: d, show: a.newProgress(f.quiet), again: 2 * time.Second,
		flow: flow.Config{Parallel: f.parallel, Patience: f.patience, NoSpeculation: f.noSpeculation}}
	defer m.show.done()
	begin := time.Now()
	before, err := c.Status(ctx)
	if err != nil {
		return err
	}
	err = m.drive(ctx)
	posted = m.posted()
	after, e := c.Status(context.WithoutCancel(ctx))
	if e != nil || after.Traffic.Fetched < before.Traffic.Fetched || after.Traffic.Served < before.Traffic.Served {
		after = before // it is gone, or began anew
	}
	if e := d.change(func(s *mapState) {
		s.Worked += time.Since(begin)
		s.Fetched += after.Traffic.Fetched - before.Traffic.Fetched
		s.Served += after.Traffic.Served - before.Traffic.Served
	}); e != nil && err == nil {
		err = e
	}
	if err != nil {
		return m.left(ctx, err)
	}
	sum, err := m.deliver(out)
	if err != nil {
		return kept(err, "the results are paid", "crowd map --resume "+d.dir)
	}
	m.show.done()
	if !f.quiet {
		a.sayMap(&sum)
	}
	if a.json {
		if err := a.result(sum, nil); err != nil {
			return err
		}
	}
	if sum.Failed > 0 && !d.state.Allow && !f.allowFailed {
		return &rpc.Error{Kind: rpc.UserError, Err: fmt.Errorf("%d of %s failed (they are paid; nobody else is to blame)", sum.Failed, count(sum.ran, "item")), Hint: sum.cure()}
	}
	return nil
}

// reopen opens the folder that --resume names, with a new budget if there is one.
func (f *mapFlags) reopen() (*mapDir, error) {
	budget, err := f.total()
	if err != nil {
		return nil, err
	}
	d, err := openMapDir(f.resume)
	if err != nil {
		return nil, err
	}
	d.recognize()
	if f.budget != "" {
		if err := d.change(func(s *mapState) { s.Budget = budget }); err != nil {
			d.close()
			return nil, err
		}
	}
	return d, nil
}

// total is what --budget says; 0 without it.
func (f *mapFlags) total() (crowd.Credits, error) {
	if f.budget == "" {
		return 0, nil
	}
	budget, err := parseCredits(f.budget)
	if err != nil {
		return 0, misuse("see: crowd map --help", "map: --budget: %v", err)
	}
	return budget, nil
}

// cure is what may help where items failed.
func (s *mapSummary) cure() string {
	others, first := "the outputs of the others are delivered; --allow-failed makes that a success", ""
	if len(s.Failures) > 0 {
		first = cure(&rpc.Outcome{Status: s.Failures[0].Status})
	}
	switch {
	case first == "":
		return others
	case s.Failed == s.ran:
		return first
	}
	return first + "; " + others
}

// saidInFile refuses flags that say what a job file says.
func saidInFile(c *cobra.Command, file string) error {
	return onlyFlags(c, append([]string{"out", "state", "resume"}, howFlags...), func(name string) error {
		return misuse("write it into "+file, "%s: --%s is said in the job file", c.Name(), name)
	})
}

// howFlags say how a flow is run, not what.
var howFlags = []string{"budget", "parallel", "patience", "allow-failed", "quiet", "no-speculation", "json", "node", "token-file"}

// onlyFlags checks that the user typed no flags but those, and returns otherwise's error for the first other one.
func onlyFlags(c *cobra.Command, those []string, otherwise func(name string) error) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains(those, f.Name) && err == nil {
			err = otherwise(f.Name)
		}
	})
	return err
}

// fromFile is what a job file says, and the flags that go with it.
func (f *mapFlags) fromFile(name string) (*flowWish, error) {
	w, err := readJobFile(name)
	if err != nil {
		return nil, err
	}
	if f.out != "" {
		w.out = f.out
	}
	if f.budget != "" {
		if w.budget, err = f.total(); err != nil {
			return nil, err
		}
	}
	w.allow, w.noSpeculation = w.allow || f.allowFailed, w.noSpeculation || f.noSpeculation
	return w, nil
}

// stage is the wish of that name.
func (w *flowWish) stage(name string) *stageWish {
	return &w.stages[slices.IndexFunc(w.stages, func(s stageWish) bool { return s.name == name })]
}

// resolve finds the providers that the user names by their first digits.
func (w *flowWish) resolve(ctx context.Context, c *rpc.Client) (err error) {
	for i := range w.stages {
		if s := &w.stages[i]; len(s.providers) > 0 {
			if s.request.Filters.Providers, err = resolveProviders(ctx, c, s.providers); err != nil {
				return err
			}
		}
	}
	return nil
}

// newMap cuts the inputs and lays out the folder of a new crowd map.
func (a *app) newMap(ctx context.Context, w *flowWish, dir string) (_ *mapDir, err error) {
	if err := w.check(a); err != nil {
		return nil, err
	}
	out := w.out
	if out == "-" {
		out = ""
	}
	if out != "" {
		if out, err = filepath.Abs(out); err != nil {
			return nil, err
		}
		if strings.HasSuffix(w.out, "/") {
			out += "/"
		}
	}
	switch {
	case dir != "":
	case out != "":
		dir = strings.TrimSuffix(out, "/") + ".map"
	default:
		dir = fmt.Sprintf("crowd-%s.map", time.Now().UTC().Format("20060102-150405.000"))
	}
	s := mapState{Version: stateVersion, Began: time.Now().UTC(), Out: out, Allow: w.allow, NoSpeculation: w.noSpeculation, Budget: w.budget}
	if s.Flow, err = flow.New(w.nodes()); err != nil {
		return nil, err
	}
	d, err := makeMapDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.close()
			os.RemoveAll(dir)
		}
	}()
	for i := range s.Flow.Stages {
		wish := w.stage(s.Flow.Stages[i].Name)
		st := &stage{Name: wish.name, Request: wish.request, Auto: wish.auto, By: wish.by, Whole: wish.whole, ShardSize: wish.shard, Partitions: wish.partitions}
		if st.Program, err = filepath.Abs(wish.program); err != nil {
			return nil, err
		}
		if len(wish.from) == 0 {
			if st.Files, err = findInputs(wish.inputs, &stoppable{ctx: ctx, r: a.stdin}, d.path("stdin")); err != nil {
				return nil, err
			}
			for k := range st.Files {
				if st.Files[k].Path, err = filepath.Abs(st.Files[k].Path); err != nil {
					return nil, err
				}
			}
			err = d.begin(st)
		} else { // until what it reads is done there is nothing in it
			err = errors.Join(os.Mkdir(d.path(st.Name), 0o777), d.keepFiles(st))
		}
		if err != nil {
			return nil, err
		}
		s.Stages = append(s.Stages, st)
	}
	return d, d.change(func(was *mapState) { *was = s })
}

// left is err, or what it means that the user left.
func (m *mapping) left(ctx context.Context, err error) error {
	s := &m.d.state
	done, under, all := 0, 0, 0
	for _, st := range s.Flow.Stages {
		for _, sh := range st.Shards {
			all++
			if sh.Done {
				done++
			} else if slices.ContainsFunc(sh.Attempts, func(a flow.Attempt) bool { return a.State == flow.Open }) {
				under++
			}
		}
	}
	if all == 0 {
		if ctx.Err() != nil {
			return &rpc.Error{Kind: rpc.Conflict, Err: errors.New("interrupted before anything was posted")}
		}
		return err
	}
	hint := "go on with: crowd map --resume " + m.d.dir
	if ctx.Err() != nil {
		return &rpc.Error{Kind: rpc.Conflict, Err: fmt.Errorf("interrupted: %d of %d shards are done, %d are under way and go on", done, all, under), Hint: hint}
	}
	e := &rpc.Error{Kind: rpc.KindOf(err), Err: err, Hint: hint}
	var inner *rpc.Error
	if errors.As(err, &inner) && inner.Hint != "" {
		if e.Hint = inner.Hint; e.Kind != rpc.UserError && e.Kind != rpc.TooLarge { // for those it would end the same
			e.Hint += "; then " + hint
		}
	}
	return e
}

// posted reports whether anything was that a later command could go on with.
func (m *mapping) posted() bool {
	return slices.ContainsFunc(m.d.state.Flow.Stages, func(st flow.Stage) bool { return len(st.Shards) > 0 })
}

// deliver writes the outputs of the last stage and sums up.
func (m *mapping) deliver(out *output) (mapSummary, error) {
	s := &m.d.state
	sum := mapSummary{Failures: []failure{}, State: m.d.dir, WallMillis: s.Worked.Milliseconds(), Paid: s.Flow.Paid, Lost: s.Flow.Lost,
		Copies: copies{s.Flow.Copies, s.Flow.Used, s.Flow.Equal}, Conflicts: len(s.Flow.Conflicts), Moved: s.Uploaded + s.Downloaded, Fetched: s.Fetched, Served: s.Served, Shuffled: s.Shuffled}
	liars := map[crowd.NodeID]bool{}
	for i, st := range s.Stages {
		for k, sh := range st.Shards {
			for _, j := range sh.Jobs {
				for _, n := range j.Convicted {
					liars[n] = true
				}
			}
			if j := sh.used(&s.Flow.Stages[i].Shards[k]); j != nil {
				sum.Gas += j.Gas
				sum.CheckGas += j.CheckGas
				sum.Undetected = max(sum.Undetected, j.Undetected)
			}
		}
		for _, p := range s.pieces(i) {
			sum.Shards++
			sum.ran += p.items
			sum.Jobs = append(sum.Jobs, p.job)
			sum.Failed += uint64(p.bad)
			if p.bad > 0 && len(sum.Failures) < shownFailures {
				some, err := m.failures(st, p)
				if err != nil {
					return sum, err
				}
				sum.Failures = append(sum.Failures, some[:min(len(some), shownFailures-len(sum.Failures))]...)
			}
		}
		if len(s.Flow.Stages[i].From) == 0 {
			sum.Items += st.Index.Items
		}
	}
	sum.Convicted = len(liars)
	if sum.Gas > 0 {
		sum.Overhead = float64(sum.CheckGas) / float64(sum.Gas)
	}
	if ends := s.ends(); len(ends) > 1 {
		return sum, m.writeEnds(ends, out)
	}
	return sum, m.writeOutputs(s.ends()[0], out)
}

// writeEnds writes the outputs of stages into a file of a folder each.
func (m *mapping) writeEnds(ends []int, out *output) error {
	if out.dir == "" {
		return misuse("with a slash at the end", "map: the outputs of %d stages need a folder: --out DIR/", len(ends))
	}
	root, err := os.OpenRoot(out.dir)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	defer root.Close()
	for _, stage := range ends {
		st := m.d.state.Stages[stage]
		err := writeBeside(root, st.Name, func(w io.Writer) error {
			for _, p := range m.d.state.pieces(stage) {
				err := m.each(st, p, func(_ uint32, l batch.Leaf, stdout, _ io.Reader) error {
					if l.UserError() {
						return nil
					}
					_, err := io.Copy(w, stdout)
					return err
				})
				if err != nil {
					return fmt.Errorf("output: %w", err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeOutputs lays the outputs of a stage out where the user wants them. What a failed item wrote is left out.
func (m *mapping) writeOutputs(stage int, out *output) error {
	st := m.d.state.Stages[stage]
	var root *os.Root
	var err error
	if out.dir != "" {
		if root, err = os.OpenRoot(out.dir); err != nil {
			return fmt.Errorf("output: %w", err)
		}
		defer root.Close()
	}
	for _, p := range m.d.state.pieces(stage) {
		err := m.each(st, p, func(i uint32, l batch.Leaf, stdout io.Reader, _ io.Reader) error {
			if l.UserError() {
				return nil
			}
			if root == nil {
				_, err := io.Copy(out.w, stdout)
				return err
			}
			name := fmt.Sprintf("%08d", p.first+uint64(i))
			if st.By == "files" && len(m.d.state.Flow.Stages[stage].From) == 0 {
				items, err := readItems(m.d.path(st.Name, "items"), p.first+uint64(i), 1)
				if err != nil {
					return err
				}
				name += "-" + filepath.Base(st.Files[items[0].File].Path)
			}
			return writeBeside(root, name, func(w io.Writer) error {
				_, err := io.Copy(w, stdout)
				return err
			})
		})
		if err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
	return out.finish()
}

// each calls f for every item of a finished shard.
func (m *mapping) each(st *stage, p piece, f func(i uint32, l batch.Leaf, stdout, stderr io.Reader) error) error {
	r, err := openShard(m.d.shardDir(st, p.k), uint32(p.items))
	if err != nil {
		return err
	}
	defer r.close()
	for i, l := range r.leaves {
		if err := f(uint32(i), l, open(r.stdout, i), open(r.stderr, i)); err != nil {
			return err
		}
	}
	return nil
}

func open(f *batch.Frames, i int) io.Reader {
	if f == nil {
		return strings.NewReader("")
	}
	return f.Open(uint32(i))
}

// shardFiles is the result of a shard, as far as it is here.
type shardFiles struct {
	leaves         []batch.Leaf
	stdout, stderr *batch.Frames // nil: it stays with the nodes that made it
	files          []*os.File
}

func openShard(dir string, n uint32) (_ *shardFiles, err error) {
	r := &shardFiles{}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	raw, err := os.ReadFile(filepath.Join(dir, "leaves"))
	if err != nil {
		return nil, err
	}
	if r.leaves, err = batch.DecodeLeaves(raw, n); err != nil {
		return nil, err
	}
	for _, x := range []struct {
		name string
		to   **batch.Frames
	}{{"stdout", &r.stdout}, {"stderr", &r.stderr}} {
		f, err := os.Open(filepath.Join(dir, x.name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		r.files = append(r.files, f)
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if *x.to, err = batch.OpenFrames(f, st.Size(), n); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	return r, nil
}

func (r *shardFiles) close() {
	for _, f := range r.files {
		f.Close()
	}
}

// failures names the failed items of a shard.
func (m *mapping) failures(st *stage, p piece) (out []failure, err error) {
	items, err := readItems(m.d.path(st.Name, "items"), p.first, p.items)
	if err != nil {
		return nil, err
	}
	return out, m.each(st, p, func(i uint32, l batch.Leaf, _, stderr io.Reader) error {
		if !l.UserError() || len(out) >= shownFailures {
			return nil
		}
		text, err := io.ReadAll(io.LimitReader(stderr, batch.MaxError))
		out = append(out, failure{p.first + uint64(i), st.itemName(items[i]), p.job, l.Status.String(), l.ExitCode, string(text)})
		return err
	})
}

// why is what went wrong, in a line.
func (f *failure) why() string {
	why := f.Status
	if f.Status == crowd.Exited.String() {
		why = fmt.Sprintf("exit code %d", f.ExitCode)
	}
	if line, _, _ := strings.Cut(strings.TrimSpace(f.Stderr), "\n"); line != "" {
		why += ": " + line
	}
	return why
}

// itemName is an item for people.
func (st *stage) itemName(i item) string {
	if st.Request.Gather {
		return fmt.Sprintf("%s: partition %d", st.Name, i.First)
	}
	c, err := parseCut(st.By)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return c.name(st.Files, i)
}

// sayMap tells people what it came to.
func (a *app) sayMap(s *mapSummary) {
	const most = 20
	for i, f := range s.Failures {
		if i == most {
			a.say("  and %d more; --json names %d", s.Failed-most, shownFailures)
			break
		}
		a.say("failed: %s: %s", f.Name, f.why())
	}
	lost := ""
	if s.Lost > 0 {
		lost = fmt.Sprintf(", %d posted again", s.Lost)
	}
	if s.Convicted > 0 {
		lost += fmt.Sprintf(", %d caught lying", s.Convicted)
	}
	if s.Copies.Posted > 0 {
		lost += fmt.Sprintf(", %d copies of late ones (%d came first, %d came too and were equal)", s.Copies.Posted, s.Copies.Used, s.Copies.Equal)
	}
	if s.Conflicts > 0 {
		lost += fmt.Sprintf(", %d with two results that differed", s.Conflicts)
	}
	a.say("%s in %s%s; %s, checks %s (%s); you paid %s; took %s", count(s.Items, "item"), count(uint64(s.Shards), "shard"), lost, gasText(s.Gas), gasText(s.CheckGas),
		percentText(s.Overhead), creditText(s.Paid), elapsedText(time.Duration(s.WallMillis)*time.Millisecond))
	a.say("a cheating executor escapes with probability %s; the receipts are in %s", chanceText(s.Undetected), s.State)
}

func percentText(x float64) string { return threeDigits(100*x) + " %" }
