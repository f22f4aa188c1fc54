package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/rpc"
)

const (
	// autoGas is what --gas auto asks for when no budget says less.
	autoGas crowd.Gas = 100e9
	// goodbye is how long a cancelled job may take to say so.
	goodbye = 5 * time.Second
	// leastMemory is the page size of a program's memory, in bytes.
	leastMemory = 64 << 10
)

// runFlags are the flags of crowd run, as typed.
type runFlags struct {
	in, stdin, out, receipt       string
	env, tags, country, providers []string
	gas, memory, maxOutput        string
	budget, maxPrice              string
	timeout                       time.Duration
	confidence                    float64
	plan                          string
	sure                          bool // confidence was typed

	// what request makes of them
	timed         bool   // the gas is what a slow machine does in timeout
	raised        string // what becomes of a timeout that is too short; ""
	compare       string
	detach, quiet bool

	replacements uint
	replaces     bool // replacements were given
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run PROG.wasm [flags] [-- ARGS]",
		Short: "Run a program on the network and get its checked result",
		Long: fmt.Sprintf(`Run a WebAssembly program (WASI preview 1) on machines drawn by lot, have its
result checked, and get it with a receipt. --plan says how it is checked, or --confidence,
for which the cheapest plan is taken that reaches it:

  audit        one machine runs it. Once it is bound to its result a lot decides whether another
               runs it again: at least one in twenty, more for newcomers and for small stakes, so
               that lying loses. The verdict says whether it was run again. Where providers have a
               record and enough stake nothing is cheaper; what newcomers do is always run again, and
               then it costs as much as a pair.
  pair         two run it, any difference goes to court: the default
  committee=N  the same with 3 to 9; one honest among them is enough

--in FILE is the program's stdin, --in DIR its read-only folder /in.
--out FILE receives its stdout; --out DIR receives stdout, stderr and what it wrote
to /out, which --out FILE leaves at the node: the last lines say so. Without --out its stdout is this command's, so pipes work.
A program may have %d files and folders in /out and /tmp at a time. Where it can end for want of
memory, gas, time or space, the last line says so, and which flag gives it more.
If the program exits with another code than 0, this command exits with 1, as at any failure; the program's
code is in the last line, and with --json in the result, as outcome.exitCode.
Ctrl-C cancels the job where that is still possible; a second one leaves at once. A
cancelled job is paid for the time that it ran: see crowd job cancel --help.`, executor.MaxFiles),
		Example: `  crowd run blur.wasm --in photo.png --out blurred.png -- --radius 8
  cat words.txt | crowd run wc.wasm --in - | sort
  crowd run simulate.wasm --in data/ --out results/ --gas 20G --budget 50
  crowd run train.wasm --detach --tag gpu --country CH,DE`,
		Args: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			if dash < 0 {
				dash = len(args)
			}
			switch {
			case dash == 0:
				return misuse("for example: crowd run blur.wasm --in photo.png --out out.png -- --radius 8", "run: which program?")
			case dash > 1:
				return misuse(fmt.Sprintf("the program's own arguments go behind --: crowd run %s -- %s", args[0], strings.Join(args[1:dash], " ")),
					"run: one program, not %d", dash)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			a.begun = true
			f.sure, f.replaces = cmd.Flags().Changed("confidence"), cmd.Flags().Changed("replacements")
			return a.run(cmd.Context(), &f, args[0], args[1:])
		},
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.in, "in", "", "a file for stdin (- for this command's own), or a folder to see at /in")
	fl.StringVar(&f.stdin, "stdin", "", "a file for stdin, besides a folder given with --in")
	fl.StringVar(&f.out, "out", "", "a file for stdout, or a folder (existing, or with a slash at the end) for everything")
	fl.StringVar(&f.receipt, "receipt", "", "save the receipt in this file")
	fl.StringArrayVar(&f.env, "env", nil, "NAME=value for the program; may be repeated")
	fl.StringVar(&f.gas, "gas", "auto", "most gas to use, as 250M, 100G, 2T; auto: 100G, or what the budget buys")
	fl.StringVar(&f.memory, "memory", "1GiB", "most memory")
	fl.StringVar(&f.maxOutput, "max-output", "256MiB", "most bytes to write, all files together")
	fl.DurationVar(&f.timeout, "timeout", 0, "most time on the executor's clock; auto gas becomes what a slow machine does in it (default: 1m; a machine has always as long as a slow one needs for gas and memory)")
	fl.StringVar(&f.budget, "budget", "", "most credits to lock (default: what the job can cost at most)")
	fl.StringVar(&f.maxPrice, "max-price", "", "most credits per giga-gas")
	fl.StringSliceVar(&f.tags, "tag", nil, "a tag that the provider must have")
	fl.StringSliceVar(&f.country, "country", nil, "a country (two letters) where the provider may be")
	fl.StringSliceVar(&f.providers, "provider", nil, "a provider (node ID or its first digits) that may be drawn")
	fl.Float64Var(&f.confidence, "confidence", 0.99, "probability that a wrong result is found out")
	fl.StringVar(&f.plan, "plan", "", "audit, pair or committee=N (default: the cheapest that reaches --confidence)")
	fl.UintVar(&f.replacements, "replacements", 0, "with --plan: machines that may take the place of some that drop out; each makes a lie likelier to pass (default: 1 for audit, else 0: the court takes their place)")
	fl.StringVar(&f.compare, "compare", "exact", compareUsage)
	fl.BoolVar(&f.detach, "detach", false, "print the job's ID and do not wait")
	fl.BoolVar(&f.quiet, "quiet", false, "no talk, and not the program's stderr")
	return c
}

// request turns flags into a request without content; errors are misuse.
func (f *runFlags) request(args []string) (rpc.PostRequest, error) {
	bad := func(err error) error { return misuse("see: crowd run --help", "run: %v", err) }
	r := rpc.PostRequest{Args: args, Env: f.env, Confidence: f.confidence,
		Filters: rpc.Filters{Tags: f.tags}}
	gas := uint64(autoGas)
	var err error
	if f.gas != "auto" {
		if gas, err = parseUnits("--gas", f.gas, gasUnits); err != nil {
			return r, bad(err)
		}
	} else if f.timeout > 0 { // no more than a slow machine does in that time
		if least := max(1, uint64(f.timeout.Seconds()*float64(crowd.LeastSpeed))); least < gas {
			gas, f.timed = least, true
		}
	}
	memory, err := parseUnits("--memory", f.memory, sizeUnits)
	if err != nil {
		return r, bad(err)
	}
	if memory < leastMemory {
		return r, bad(fmt.Errorf("--memory %s: want at least %s, the least that a program has; with a unit, as 512MiB",
			f.memory, sizeText(leastMemory)))
	}
	output, err := parseUnits("--max-output", f.maxOutput, sizeUnits)
	if err != nil {
		return r, bad(err)
	}
	if output == 0 {
		return r, bad(errors.New("--max-output: a program that may write nothing has no result"))
	}
	if r.Filters.Countries, err = parseCountries(f.country); err != nil {
		return r, bad(err)
	}
	if f.budget != "" {
		if r.Budget, err = parseCredits(f.budget); err != nil {
			return r, bad(fmt.Errorf("--budget: %w", err))
		}
		if r.Budget == 0 {
			return r, bad(errors.New("--budget: nothing is free"))
		}
	}
	if f.maxPrice != "" {
		if r.Filters.MaxPrice, err = parsePrice(f.maxPrice); err != nil {
			return r, bad(fmt.Errorf("--max-price: %w", err))
		}
	}
	if !(f.confidence > 0 && f.confidence < 1) {
		return r, bad(fmt.Errorf("--confidence %v: want a number between 0 and 1", f.confidence))
	}
	if r.Check, err = parsePlan(f.plan); err != nil {
		return r, bad(err)
	}
	if f.replaces {
		if r.Check == nil {
			return r, bad(errors.New("--replacements goes with --plan"))
		}
		n := uint32(min(f.replacements, crowd.MaxReplacements+1))
		r.Check.Replacements = &n
	}
	if r.Check != nil {
		if f.sure {
			return r, bad(errors.New("--plan and --confidence: give one of them"))
		}
		r.Confidence = 0
	}
	if f.timeout < 0 {
		return r, bad(fmt.Errorf("--timeout %v: want a wall time of more than nothing", f.timeout))
	}
	wall := max(f.timeout, crowd.LeastWall(crowd.Limits{Gas: crowd.Gas(gas), Memory: memory}))
	if f.timeout == 0 {
		wall = max(time.Minute, wall)
	} else if wall > f.timeout {
		f.raised = fmt.Sprintf("--timeout %v becomes %v: every job has as long as a slow machine may need for its "+
			"gas (%s) and memory (%s)",
			f.timeout, wall, gasText(crowd.Gas(gas)), sizeText(int64(memory)))
	}
	r.Limits = rpc.Limits{Gas: crowd.Gas(gas), Memory: memory, Output: output, WallMillis: wall.Milliseconds()}
	r.Program = unsent
	if _, err := r.Spec(); err != nil { // the same checks that the node makes
		return r, bad(err)
	}
	if r.Compare, err = parseCompare(f.compare); err != nil { // a program in it is uploaded later
		return r, bad(err)
	}
	return r, nil
}

// parseCountries reads --country.
func parseCountries(list []string) (out []string, err error) {
	for _, s := range list {
		c := strings.ToUpper(s)
		if !isCountry(c) {
			return nil, fmt.Errorf("--country %q: want two letters, as CH", s)
		}
		out = append(out, c)
	}
	return out, nil
}

// isCountry reports whether s has the form of a country's code of ISO 3166-1: two capital letters.
func isCountry(s string) bool {
	return len(s) == 2 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// parsePlan reads --plan: nil for none.
func parsePlan(s string) (*rpc.TaskPlan, error) {
	method, n, numbered := strings.Cut(s, "=")
	switch {
	case s == "":
		return nil, nil
	case s == crowd.PlanAudit || s == crowd.PlanPair:
		return &rpc.TaskPlan{Method: s}, nil
	case method == crowd.PlanCommittee && numbered:
		many, err := strconv.ParseUint(n, 10, 32)
		switch {
		case err != nil || many < 2 || many > crowd.MaxCommittee:
			return nil, fmt.Errorf("--plan %s: want committee=N with 2 to %d", s, crowd.MaxCommittee)
		case many == 2:
			return &rpc.TaskPlan{Method: crowd.PlanPair}, nil
		}
		return &rpc.TaskPlan{Method: method, Executors: uint32(many)}, nil
	}
	return nil, fmt.Errorf("--plan %s: want audit, pair or committee=N; there is no plan without a check", s)
}

func (a *app) run(ctx context.Context, f *runFlags, program string, args []string) error {
	req, err := f.request(args)
	if err != nil {
		return err
	}
	if f.detach && (f.out != "" || f.receipt != "") {
		return misuse("leave out --detach; or get them when the job has ended: crowd job get JOB --out, crowd receipt get JOB --out",
			"run: --detach does not wait for what --out and --receipt would save")
	}
	if a.json && !f.detach && f.out == "" {
		return misuse("give --out FILE, so that the program's output and the JSON do not mix", "run: --json without --out")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st := a.newStages(f.quiet)
	defer st.done()
	r := &running{app: a, f: f, st: st, leave: cancel}
	stop := r.watchInterrupts(ctx)
	defer func() { // the client must outlive a cancel that is on its way
		stop()
		if r.c != nil {
			r.c.Close()
		}
	}()

	code, err := a.readProgram(program, req.Limits.Memory)
	if err == nil {
		err = a.checkComparator(req.Compare)
	}
	if err != nil {
		return err
	}
	in, err := a.openInputs(ctx, f)
	if err != nil {
		return r.left(err)
	}
	defer in.close()
	out, err := openOutput(f.out, a.stdout)
	if err != nil {
		return err
	}
	defer out.abandon()
	var receipt *output
	if f.receipt != "" {
		if receipt, err = openReceipt(f.receipt); err != nil {
			return err
		}
		defer receipt.abandon()
	}
	if r.c, err = a.connect(ctx); err != nil {
		return r.left(err)
	}
	if err := r.fill(ctx, &req, code, in); err != nil {
		return r.left(err)
	}
	id, err := r.c.Post(ctx, req)
	if err != nil {
		return r.left(err)
	}
	r.id.Store(&id)
	if f.detach {
		if a.json {
			return a.result(map[string]crowd.JobID{"job": id}, nil)
		}
		fmt.Fprintln(a.stdout, id)
		if !f.quiet {
			st.say("follow it with: crowd job logs --follow %s", id.Short())
		}
		return nil
	}
	return r.finish(ctx, id, out, receipt)
}

// finish waits for the job's end and delivers. receipt may be nil.
func (r *running) finish(ctx context.Context, id crowd.JobID, out, receipt *output) error {
	a, c, f := r.app, r.c, r.f
	if !f.quiet {
		r.st.say("job %s", id.Short())
	}
	last, err := follow(ctx, c, id, r.st, !f.quiet)
	if err != nil {
		return r.left(err)
	}
	res, err := c.Result(ctx, id)
	if err != nil {
		return r.left(err)
	}
	what, again := fmt.Sprintf("the result of job %s is paid", id.Short()), "crowd job get "+id.Short()
	switch f.out {
	case "", "-":
		again += " > FILE"
	default:
		again += " --out " + f.out
	}
	if err := out.deliver(ctx, c, id, res, r.st); err != nil {
		return r.left(kept(err, what, again))
	}
	if !f.quiet {
		more, err := out.leftOut(ctx, c, id)
		if err != nil {
			return r.left(err)
		}
		if more != "" {
			r.st.say("%s", more)
		}
	}
	if receipt != nil {
		if err := receipt.saveReceipt(ctx, c, id, f.receipt); err != nil {
			return r.left(kept(err, "the receipt of job "+id.Short()+" is there", fmt.Sprintf("crowd receipt get %s "+
				"--out %s", id.Short(), f.receipt)))
		}
		if !f.quiet {
			r.st.say("receipt saved in %s; check it with: crowd receipt verify %s", f.receipt, f.receipt)
		}
	}
	r.st.done()
	if a.json {
		if err := a.result(res, nil); err != nil {
			return err
		}
	}
	return r.outcomeError(ctx, id, last, res.Outcome)
}

// cancelHint says what a cancelled job cost.
func cancelHint(last rpc.JobEvent) string {
	if last.Price == 0 {
		return "what was locked for it is back in the account"
	}
	return fmt.Sprintf("you paid %s, most of it for the time of the machines that worked on it; the rest is back in the account", creditText(last.Price))
}

// outcomeError is what a program's own failure means for its user.
func (r *running) outcomeError(ctx context.Context, id crowd.JobID, last rpc.JobEvent, o rpc.Outcome) error {
	if !o.UserError {
		return nil
	}
	paid := "it is paid"
	if last.Stage.Final() && last.Price == 0 {
		paid = "it cost nothing"
	}
	e := &rpc.Error{Kind: rpc.UserError, Err: fmt.Errorf("the program ended with: %s (%s; nobody else is to blame)",
		o.Why(), paid),
		Hint: "its output is kept: crowd job get " + id.Short()}
	hint := cure(&o)
	switch o.Status {
	case crowd.Exited.String():
		e.Err = fmt.Errorf("the program exited with code %d (%s; nobody else is to blame)", o.ExitCode, paid)
		hint = r.lack(ctx, id)
	case crowd.Trapped.String():
		hint = r.lack(ctx, id)
	case crowd.OutOfGas.String():
		if r.f.timed {
			hint = fmt.Sprintf("--timeout %v gave it %s, what a slow machine does in that time: give it a longer "+
				"--timeout, or say --gas",
				r.f.timeout, gasText(o.Gas))
		}
	}
	if hint != "" {
		e.Hint = hint
	}
	if r.f.quiet {
		e.Hint += "; --quiet left out its stderr: see crowd job logs " + id.Short()
	}
	return e
}

// lack is what helps a program that ended for want of memory or of files, as far as its output shows; empty: that is
// not seen.
func (r *running) lack(ctx context.Context, id crowd.JobID) string {
	const tail = 16 << 10
	var text bytes.Buffer
	res, err := r.c.Result(ctx, id)
	if err != nil || readFrom(ctx, r.c, id, "stderr", max(0, res.Stderr-tail), &text) != nil {
		return ""
	}
	if memoryTrouble.Match(text.Bytes()) {
		return fmt.Sprintf("it seems to lack memory: give it more with --memory (it had %s)", r.f.memory)
	}
	files := 0
	for e, err := range r.c.ListResult(ctx, id) {
		if err != nil {
			return ""
		}
		if strings.HasPrefix(e.Path, "out/") {
			files++
		}
	}
	if files >= executor.MaxFiles {
		return fmt.Sprintf("it made %d files and folders in /out, and may have no more: let it write fewer, larger "+
			"files, as an archive", files)
	}
	return ""
}

// memoryTrouble is what runtimes write when they get no memory: those of Go, Rust, C++, Python, JavaScript and libc.
var memoryTrouble = regexp.MustCompile(`(?i)out of memory|cannot allocate|memory allocation of \d+ bytes failed|` +
	`bad_alloc|MemoryError|not enough memory`)

// cure is what helps a program that ended so; empty: that depends on the program.
func cure(o *rpc.Outcome) string {
	switch o.Status {
	case crowd.OutOfGas.String():
		return "give it more gas, with --gas or a larger --budget"
	case crowd.OutputFull.String():
		return "allow it more with --max-output"
	case crowd.Invalid.String():
		return moduleHint(o.Reason)
	}
	return ""
}

// unsent stands for content of a request that is not uploaded yet: a price is asked for first.
const unsent = "to be uploaded"

// fill finds the named providers and the affordable gas, says what the job can cost, and uploads the content.
func (r *running) fill(ctx context.Context, req *rpc.PostRequest, code []byte, in *inputs) (err error) {
	c, f, st := r.c, r.f, r.st
	if len(f.providers) > 0 {
		if req.Filters.Providers, err = resolveProviders(ctx, c, f.providers); err != nil {
			return err
		}
	}
	ask := *req
	ask.Compare = withProgram(req.Compare, unsent)
	if f.gas == "auto" {
		ask.Budget = 0 // what would it cost without one?
	}
	q, err := c.Quote(ctx, ask)
	if err != nil {
		return err
	}
	if f.gas == "auto" && req.Budget > 0 && q.Bound > req.Budget {
		ask.Limits.Gas = 1
		least, err := c.Quote(ctx, ask)
		if err != nil {
			return err
		}
		if req.Budget <= least.Bound {
			return rpc.Errorf(rpc.OverBudget, "a budget of %s: without any gas the job locks %s, for starting its program and looking at its result", creditText(req.Budget), creditText(least.Bound)).
				WithHint("raise --budget")
		}
		// Beyond that the bound grows at most in proportion to the gas, so this much fits.
		share := float64(req.Budget-least.Bound) / float64(q.Bound-least.Bound)
		req.Limits.Gas = max(1, crowd.Gas(float64(req.Limits.Gas)*share*0.999))
		q.Bound = req.Budget
	}
	if !f.quiet {
		if f.raised != "" {
			st.say("%s", f.raised)
		}
		if f.timed {
			st.say("--timeout %v gives it %s, what a slow machine does in that time; --gas says otherwise",
				f.timeout, gasText(req.Limits.Gas))
		}
		lines := append(planText(&q, req.Limits.Gas), scarce(req.Limits.Gas, in.size+in.holds.Bytes)...)
		for _, line := range lines {
			st.say("%s", line)
		}
		if q.Compare != "" {
			file := crowd.CID(filepath.Base(comparatorFile(req.Compare)))
			st.say("outputs are compared by %s", compareText(withProgram(q.Compare, file)))
		}
	}
	told := st.transfer("uploading program", int64(len(code)))
	if req.Program, err = c.UploadFile(ctx, bytes.NewReader(code), told); err != nil {
		return err
	}
	if req.Compare, err = uploadComparator(ctx, c, req.Compare); err != nil {
		return err
	}
	if in.folder != nil {
		if req.Inputs, err = c.UploadFolder(ctx, in.folder.FS(), st.folder(in.holds)); err != nil {
			return err
		}
	}
	if in.stdin != nil {
		if req.Stdin, err = c.UploadFile(ctx, in.stdin, st.transfer("uploading input", in.size)); err != nil {
			return err
		}
	}
	return nil
}

// gasPerByte is about what a program uses for each byte that it reads and does something with: wordcount 800, count
// 1,900.
const gasPerByte = 1000

// scarce warns of a job whose gas is little for its input. What runs out of gas is paid all the same.
func scarce(gas crowd.Gas, size int64) []string {
	const notable = 1 << 20
	if size < notable || uint64(gas)/uint64(size) >= gasPerByte {
		return nil
	}
	want := crowd.Gas(size) * 2 * gasPerByte
	return []string{fmt.Sprintf("warning: %s of input and %s: that is %d gas for each byte, and programs that look "+
		"at every byte often use %d to %d. "+
		"A job that runs out of gas is paid all the same: see on a piece of the input what it takes, split it, "+
		"or give it --gas %dG",
		sizeText(size), gasText(gas), uint64(gas)/uint64(size), gasPerByte/2, 2*gasPerByte, (want+1e9-1)/1e9)}
}

// planText is what a job costs and how it is checked.
func planText(q *rpc.Quote, gas crowd.Gas) []string {
	how := "checked by " + q.Plan
	switch q.Plan {
	case crowd.PlanAudit:
		how = fmt.Sprintf("audited at a rate of %s or more", percentText(float64(q.RatePPM)/1e6))
	case crowd.PlanCommittee:
		how = fmt.Sprintf("checked by a committee of %d", q.Executors)
	}
	if q.Replacements > 0 {
		how += fmt.Sprintf(", with up to %s", count(q.Replacements, "replacement"))
	}
	lines := []string{fmt.Sprintf("at most %s for %s, and %s for what the drawn nodes put on chain; %s: a wrong result passes with probability %s",
		creditText(q.Bound), gasText(gas), creditText(q.Duties), how, chanceText(q.Undetected))}
	if q.Plan == crowd.PlanAudit {
		lines = append(lines, "no live output: under an audit what the program writes comes with the result, as a "+
			"job that is read while it runs could be cancelled for little")
		lines = append(lines, fmt.Sprintf("at most %s where the lot does not have it run again; an executor with less than %s of free stake, or a shorter record, is audited more often",
			creditText(q.Unaudited), creditText(q.Stake)))
	}
	return lines
}

func resolveProviders(ctx context.Context, c *rpc.Client, prefixes []string) ([]crowd.NodeID, error) {
	known, err := c.Providers(ctx)
	if err != nil {
		return nil, err
	}
	var ids []crowd.NodeID
	for _, p := range prefixes {
		if id, err := crowd.ParseNodeID(p); err == nil {
			ids = append(ids, id)
			continue
		}
		found := 0
		for _, k := range known {
			if p != "" && strings.HasPrefix(k.Node.String(), strings.ToLower(p)) {
				ids = append(ids, k.Node)
				found++
			}
		}
		if found != 1 {
			return nil, misuse("see: crowd provider list", "run: --provider %s: %s begin so",
				p, count(found, "provider"))
		}
	}
	return ids, nil
}

// follow shows the job's life until it ends well; with logs, the program's stderr
// too. It returns the last event.
func follow(ctx context.Context, c *rpc.Client, id crowd.JobID, st *stages, logs bool) (last rpc.JobEvent, err error) {
	var guest sync.WaitGroup
	var shown int64
	logsCtx, stop := context.WithCancel(ctx)
	defer stop()
	if logs {
		guest.Go(func() {
			for chunk, err := range c.Logs(logsCtx, id, true) {
				if err != nil {
					return // what is missing is read from the result, below
				}
				if skip := shown - chunk.Offset; chunk.Stream == "stderr" && skip >= 0 && skip < int64(len(chunk.Data)) {
					st.guest(chunk.Data[skip:])
					shown = chunk.Offset + int64(len(chunk.Data))
				}
			}
		})
	}
	for ev, err := range c.Watch(ctx, id) {
		if err != nil {
			return last, err
		}
		st.show(ev)
		last = ev
	}
	defer time.AfterFunc(goodbye, stop).Stop() // logs that do not end hold up nobody
	guest.Wait()
	switch last.Stage {
	case rpc.Cancelled:
		return last, &rpc.Error{Kind: rpc.Conflict, Err: fmt.Errorf("the job was cancelled: %s", last.Why), Hint: cancelHint(last)}
	case rpc.Failed:
		e := &rpc.Error{Kind: rpc.NodeFault, Err: fmt.Errorf("the job failed: %s", last.Why), Hint: "see: crowd job explain " + id.Short()}
		if f := last.Failure; f != nil {
			e.Kind, e.Err, e.Hint = f.Kind, fmt.Errorf("the job failed: %s", f.Message), f.Hint
			if last.Price > 0 {
				e.Err = fmt.Errorf("the job failed: %s; it cost %s", f.Message, creditText(last.Price))
			}
		}
		return last, e
	}
	if logs {
		var rest bytes.Buffer
		if err := readFrom(ctx, c, id, "stderr", shown, &rest); err != nil {
			return last, err
		}
		if rest.Len() > 0 {
			st.guest(rest.Bytes())
		}
	}
	return last, nil
}

// readFrom copies a result's file from an offset on.
func readFrom(ctx context.Context, c *rpc.Client, id crowd.JobID, path string, at int64, w io.Writer) error {
	for {
		chunk, err := c.ReadResult(ctx, id, path, at, rpc.MaxChunk)
		if err != nil {
			return err
		}
		if _, err := w.Write(chunk.Data); err != nil {
			return err
		}
		if at += int64(len(chunk.Data)); chunk.EOF || len(chunk.Data) == 0 {
			return nil
		}
	}
}

// running is a job that a user waits for.
type running struct {
	app   *app
	f     *runFlags
	c     *rpc.Client // nil before it is connected
	st    *stages
	leave context.CancelFunc
	id    atomic.Pointer[crowd.JobID] // set once it is posted
	late  atomic.Bool                 // too late to cancel
}

// watchInterrupts handles Ctrl-C until the returned function is called: the first
// one cancels the job if it can be cancelled, and waits for that; the second leaves.
func (r *running) watchInterrupts(ctx context.Context) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var late <-chan time.Time
		for first := true; ; first = false {
			select {
			case <-done:
				return
			case <-late:
				r.leave()
				return
			case <-r.app.interrupts:
			}
			id := r.id.Load()
			if id == nil || !first {
				r.leave()
				return
			}
			ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
			err := r.c.Cancel(ask, *id)
			cancel()
			if err != nil {
				r.late.Store(rpc.KindOf(err) == rpc.TooLate)
				r.st.say("cannot cancel: %v", errors.Unwrap(err))
				r.leave()
				return
			}
			r.st.say("cancelling the job; Ctrl-C again leaves at once")
			late = time.After(goodbye)
		}
	}()
	return func() { close(done); <-ended }
}

// left is err, or what it means that the user left.
func (r *running) left(err error) error {
	if !errors.Is(err, context.Canceled) {
		return err
	}
	id := r.id.Load()
	if id == nil {
		return &rpc.Error{Kind: rpc.Conflict, Err: errors.New("interrupted before the job was posted"), Hint: "to be sure, see: crowd job list"}
	}
	hint := "follow it with: crowd job logs --follow " + id.Short()
	if !r.late.Load() {
		hint += "; take it back with: crowd job cancel " + id.Short()
	}
	return &rpc.Error{Kind: rpc.Conflict, Err: fmt.Errorf("interrupted: the job %s goes on", id.Short()), Hint: hint}
}
