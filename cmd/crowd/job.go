package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

func (a *app) jobCommand() *cobra.Command {
	return noun("job", "List, follow, explain, cancel and remove jobs",
		a.jobListCommand(), a.jobDescribeCommand(), a.jobLogsCommand(), a.jobGetCommand(), a.jobCancelCommand(), a.jobExplainCommand(),
		a.jobRemoveCommand(), a.jobPruneCommand())
}

// onJob is a command on the one job that its argument names.
func (a *app) onJob(f func(ctx context.Context, c *rpc.Client, id crowd.JobID) error) func(*cobra.Command, []string) error {
	return a.with(func(ctx context.Context, c *rpc.Client, args []string) error {
		id, err := resolveJob(ctx, c, args[0])
		if err != nil {
			return err
		}
		return f(ctx, c, id)
	})
}

// resolveJob is the job that a command's argument names.
func resolveJob(ctx context.Context, c *rpc.Client, arg string) (crowd.JobID, error) {
	id, err := c.ResolveJob(ctx, arg)
	if rpc.KindOf(err) == rpc.NotFound {
		var e *rpc.Error
		errors.As(err, &e)
		e.Hint = "see: crowd job list"
	}
	return id, err
}

// oneJob wants the argument that onJob reads.
func oneJob(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return misuse("JOB is a job's ID or its first digits; see: crowd job list", "%s: want one JOB, got %d", cmd.CommandPath(), len(args))
	}
	return nil
}

func (a *app) jobListCommand() *cobra.Command {
	limit := 20
	c := &cobra.Command{
		Use: "list", Short: "List jobs, newest first", Args: cobra.NoArgs,
		Example: "  crowd job list --limit 5\n  crowd job list --json",
		RunE: a.with(func(ctx context.Context, c *rpc.Client, _ []string) error {
			jobs, err := c.Jobs(ctx, limit)
			if err != nil {
				return err
			}
			if len(jobs) == 0 && !a.json {
				a.say("no jobs yet; begin with: crowd run PROG.wasm")
				return nil
			}
			return a.result(jobs, func(w io.Writer) {
				rows := [][]string{{"JOB", "POSTED", "STAGE", "TOOK", "RESULT", "PRICE"}}
				for _, j := range jobs {
					row := []string{j.ID.Short(), timeText(j.Posted), string(j.Stage), "", "", ""}
					if j.Stage.Final() {
						row[3] = elapsedText(j.Updated.Sub(j.Posted))
					}
					if j.Outcome != nil {
						row[4] = j.Outcome.String()
					}
					if j.Price > 0 {
						row[5] = creditText(j.Price)
					}
					if row[5] == "" {
						row[5] = "-"
					}
					rows = append(rows, row)
				}
				table(w, "", rows)
			})
		}),
	}
	c.Flags().IntVar(&limit, "limit", limit, "most jobs to list, up to 1000")
	return c
}

func (a *app) jobDescribeCommand() *cobra.Command {
	samples := false
	c := &cobra.Command{
		Use: "describe JOB", Short: "Show all about a job: committee, checks, history, verdict, money", Args: oneJob,
		Example: "  crowd job describe 3fa2\n  crowd job describe 3fa2 --samples",
		RunE: a.onJob(func(ctx context.Context, c *rpc.Client, id crowd.JobID) error {
			j, err := c.Job(ctx, id)
			if err != nil {
				return err
			}
			return a.result(j, func(w io.Writer) { describe(w, j, samples) })
		}),
	}
	c.Flags().BoolVar(&samples, "samples", false, "of a batch: show which items each verifier re-ran")
	return c
}

func describe(w io.Writer, j rpc.JobView, samples bool) {
	r, outcome, price := j.Request, "", ""
	if o := j.Outcome; o != nil {
		outcome = fmt.Sprintf("%s, %s, %s", o.Why(), gasText(o.Gas), o.Result)
	}
	if j.Price > 0 {
		price = creditText(j.Price)
	}
	if j.Escrow > 0 {
		price = strings.TrimPrefix(price+", "+creditText(j.Escrow)+" locked", ", ")
	}
	limits := fmt.Sprintf("%s, %s of memory, %s of output, %v", gasText(r.Limits.Gas), sizeText(int64(r.Limits.Memory)),
		sizeText(int64(r.Limits.Output)), time.Duration(r.Limits.WallMillis)*time.Millisecond)
	if r.Limits == (rpc.Limits{}) {
		limits = ""
	}
	fields(w, "job", j.ID.String(), "stage", string(j.Stage)+": "+j.Why, "posted", timeText(j.Posted), "owner", j.Owner.String(),
		"program", string(j.Program), "input", string(r.Inputs), "stdin", string(r.Stdin),
		"args", strings.Join(r.Args, " "), "env", strings.Join(r.Env, " "), "limits", limits, "filters", filterText(r.Filters),
		"plan", planOf(&j), "compare", compareText(r.Compare), "result", outcome, "price", price)

	if j.Batch != nil {
		describeBatch(w, j.Batch)
	}
	if v := j.Verdict; v != nil {
		fmt.Fprintf(w, "\nverdict: %s\n", clean(verdictText(v)))
		for _, b := range v.Blame {
			fmt.Fprintln(w, "  "+clean(blameText(b)))
		}
		if j.Advice != "" {
			fmt.Fprintln(w, "  "+clean(j.Advice))
		}
	}
	if len(j.Committee) > 0 {
		fmt.Fprintln(w, "\ncommittee")
		rows := [][]string{{"NODE", "ROLE", "PROOF", "STATE", "WORK", "COMMITTED", "REVEALED", "RESULT"}}
		for _, m := range j.Committee {
			proof, match, gas := "ok", "-", ""
			if !m.ProofOK {
				proof = "NOT CHECKED"
			}
			if m.Match != nil {
				match = map[bool]string{true: "accepted", false: "WRONG"}[*m.Match]
			}
			if m.Gas > 0 {
				gas = gasText(m.Gas)
			}
			if m.Checks > 0 {
				gas = count(m.Checks, "item")
			}
			rows = append(rows, []string{m.Node.Short(), m.Role, proof, m.State, gas, yesNo(m.Committed), yesNo(m.Revealed), match})
		}
		table(w, "  ", rows)
	}
	for _, m := range j.Committee {
		if samples && len(m.Sample) > 0 {
			fmt.Fprintf(w, "\n%s re-ran the items %v\n", m.Node.Short(), m.Sample)
		}
	}
	if len(j.History) > 0 {
		fmt.Fprintln(w, "\nhistory")
		for i, ev := range j.History {
			if i > 0 && ev.Stage == j.History[i-1].Stage && ev.Progress != nil {
				continue
			}
			for _, line := range stageLines(ev, j.History[0].Time) {
				fmt.Fprintln(w, line)
			}
		}
	}
	if f := j.Failure; f != nil {
		fmt.Fprintf(w, "\nfailed: %s\n  hint: %s\n", clean(f.Message), clean(f.Hint))
	}
	if len(j.Payments) > 0 {
		fmt.Fprintln(w, "\nsettlement, in credits")
		rows := [][]string{{"WHO", "CHANGE", "FROM", "WHY"}}
		for _, p := range j.Payments {
			who := payee(p)
			if p.Account == j.Owner {
				who = "you"
			}
			rows = append(rows, []string{who, changeText(p.Change), p.From, p.Why})
		}
		table(w, "  ", rows)
	}
}

// planOf says how a job is checked, and of an audit how its lot fell.
func planOf(j *rpc.JobView) string {
	if c := j.Request.Check; c != nil && c.Executors > 0 {
		return fmt.Sprintf("%s of %d", j.Plan, c.Executors)
	}
	a := j.Audit
	if a == nil {
		return j.Plan
	}
	lot := "the executor is not bound yet"
	switch {
	case a.Chosen != nil && *a.Chosen:
		lot = fmt.Sprintf("chosen by the beacon of block %d, run again", a.Height)
	case a.Chosen != nil:
		lot = fmt.Sprintf("not chosen by the beacon of block %d, nobody ran it again", a.Height)
	case a.Height > 0:
		lot = fmt.Sprintf("the beacon of block %d decides", a.Height)
	}
	return fmt.Sprintf("%s at a rate of %s, with %s of %s at stake: %s", j.Plan, percentText(float64(a.RatePPM)/1e6), creditText(a.Stake), a.Executor.Short(), lot)
}

func verdictText(v *rpc.Verdict) string {
	if v.Accepted {
		return fmt.Sprintf("accepted by %s: %s", v.Method, v.Why)
	}
	return "no result: " + v.Why
}

// describeBatch shows what only a job with many items has.
func describeBatch(w io.Writer, b *rpc.BatchView) {
	fmt.Fprintln(w, "\nbatch")
	check, gas, failed, root := "every item by two executors", "", "", ""
	if b.Plan != nil {
		check = fmt.Sprintf("%s re-run %d of the items each, secretly chosen; a cheater escapes with probability %s",
			count(b.Plan.Verifiers, "verifier"), min(b.Plan.Checks, b.Items),
			chanceText(b.Undetected))
	}
	if b.Gas > 0 {
		gas = fmt.Sprintf("%s useful, %s of checks: %s", gasText(b.Gas), gasText(b.CheckGas), percentText(float64(b.CheckGas)/float64(b.Gas)))
	}
	if b.Failed != nil {
		failed = fmt.Sprint(*b.Failed)
	}
	if b.Root != nil {
		root = b.Root.String()
	}
	fields(w, "  items", fmt.Sprint(b.Items), "  of them failed", failed, "  check", check, "  gas", gas, "  root", root, "  leaves", string(b.Leaves))
	if b.Parts > 0 {
		held := "by executor and verifiers once it is settled"
		if len(b.Holders) > 0 {
			var names []string
			for _, n := range b.Holders {
				names = append(names, n.Short())
			}
			held = "by " + strings.Join(names, ", ")
		}
		fields(w, "  outputs", fmt.Sprintf("in %d parts by key, held %s; they do not come here", b.Parts, held))
	}
	if b.Gather {
		fields(w, "  reads", "parts of other jobs, from whoever holds them")
	}
	if b.NoParts {
		fields(w, "  trouble", "a node could not get parts of other jobs: run those again")
	}
	if d := b.Dispute; d != nil {
		right := "the court has not decided"
		switch {
		case d.Right == nil:
		case *d.Right == d.Executor:
			right = "the executor was right"
		case *d.Right == d.Answer:
			right = "the verifier was right"
		default:
			right = "both were wrong"
		}
		fmt.Fprintf(w, "  dispute about item %d between the executor and %s: %s\n", d.Item, d.Verifier.Short(), right)
	}
}

func filterText(f rpc.Filters) string {
	var parts []string
	if f.MaxPrice > 0 {
		parts = append(parts, "at most "+priceText(f.MaxPrice)+" credits per Ggas")
	}
	if len(f.Tags) > 0 {
		parts = append(parts, "tags "+strings.Join(f.Tags, ", "))
	}
	if len(f.Countries) > 0 {
		parts = append(parts, "in "+strings.Join(f.Countries, " or "))
	}
	for _, p := range f.Providers {
		parts = append(parts, "provider "+p.Short())
	}
	return strings.Join(parts, "; ")
}

func (a *app) jobLogsCommand() *cobra.Command {
	wait := false
	c := &cobra.Command{
		Use: "logs JOB", Short: "Print what a job's program writes", Args: oneJob,
		Long: `Print what a job's program writes: its stdout on stdout, its stderr on stderr.
While the job runs this is what an executor says; only the result is checked.
On a terminal, control characters and escape sequences are left out.`,
		Example: "  crowd job logs --follow 3fa2",
		RunE: a.onJob(func(ctx context.Context, c *rpc.Client, id crowd.JobID) error {
			lines, out, errs := json.NewEncoder(a.stdout), a.stdout, a.stderr
			if a.terminal {
				errs = &plainText{w: a.stderr}
			}
			if a.seen {
				out = &textOnly{w: &plainText{w: a.stdout}, skipped: func() { a.say("the program's stdout is no text: crowd job get %s saves it", id.Short()) }}
			}
			for chunk, err := range c.Logs(ctx, id, wait) {
				if err != nil {
					return err
				}
				w := out
				if chunk.Stream == "stderr" {
					w = errs
				}
				if a.json {
					err = lines.Encode(chunk)
				} else {
					_, err = w.Write(chunk.Data)
				}
				if err != nil {
					return err
				}
			}
			if v, err := c.Job(ctx, id); err == nil && v.Outcome != nil && v.Outcome.UserError && !a.json {
				a.say("the program ended with: %s", v.Outcome.Why())
			}
			return nil
		}),
	}
	c.Flags().BoolVarP(&wait, "follow", "f", false, "wait for more until the program ends")
	return c
}

func (a *app) jobGetCommand() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use: "get JOB", Short: "Get a job's result again", Args: oneJob,
		Long: `Get a job's result: its stdout here or in --out FILE, or with --out DIR everything.
With --json and without --out: a description of the result and its files.`,
		Example: "  crowd job get 3fa2 > photo.png\n  crowd job get 3fa2 --out results/",
		RunE: a.onJob(func(ctx context.Context, c *rpc.Client, id crowd.JobID) error {
			res, err := c.Result(ctx, id)
			if err != nil {
				return err
			}
			if to != "" || !a.json {
				out, err := openOutput(to, a.stdout)
				if err != nil {
					return err
				}
				defer out.abandon()
				st := a.newStages(false)
				defer st.done()
				if err := out.deliver(ctx, c, id, res, st); err != nil {
					again := "crowd job get " + id.Short()
					if to != "" {
						again += " --out " + to
					}
					return kept(err, fmt.Sprintf("the result of job %s is paid", id.Short()), again)
				}
				more, err := out.leftOut(ctx, c, id)
				if err != nil {
					return err
				}
				if more != "" {
					st.say("%s", more)
				}
			}
			if !a.json {
				return nil
			}
			files := []rpc.Entry{}
			for e, err := range c.ListResult(ctx, id) {
				if err != nil {
					return err
				}
				files = append(files, e)
			}
			return a.result(struct {
				rpc.Result
				Files []rpc.Entry `json:"files"`
			}{res, files}, nil)
		}),
	}
	c.Flags().StringVar(&to, "out", "", "a file for stdout, or a folder (existing, or with a slash at the end) for everything")
	return c
}

func (a *app) jobCancelCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cancel JOB", Short: "Take a job back, where that is still possible", Args: oneJob,
		Long: `Take a job back. It is free until its places are drawn, a few seconds after it was posted.
From then on each machine that works on it is paid for its time: two giga-gas for each
second (for three seconds at least, and of an audit or a batch for no more), and never more than the
job's limit. What is left of the escrow comes back. Once a machine has committed to a result it is too late, and the result is delivered.`,
		Example: "  crowd job cancel 3fa2",
		RunE: a.onJob(func(ctx context.Context, c *rpc.Client, id crowd.JobID) error {
			v, err := c.Job(ctx, id)
			if err != nil {
				return err
			}
			if v.Cancel > 0 {
				a.say("this pays %s to the machines that work on it", creditText(v.Cancel))
			}
			if err := c.Cancel(ctx, id); err != nil {
				return err
			}
			return a.result(map[string]crowd.JobID{"cancelled": id}, func(w io.Writer) { fmt.Fprintf(w, "cancelled %s\n", id.Short()) })
		}),
	}
}

func (a *app) jobRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove JOB...", Aliases: []string{"rm"}, Short: "Remove ended jobs and their results from the node's disk",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return misuse("JOB is a job's ID or its first digits; see: crowd job list", "job remove: which jobs?")
			}
			return nil
		},
		Long: `Remove ended jobs from the disk of the node that posted them: the record, the result, the
receipt, and the program and input where no other job of the node has them. What you
saved with --out and --receipt stays, and so does what is on the chain. If one of the jobs
has not ended, none is removed. What lies in the node's content store goes within the hour.
A crowd map that is not done yet needs the results of its jobs: crowd map --resume cannot go on without them.`,
		Example: "  crowd job remove 3fa2 77c0",
		RunE: a.with(func(ctx context.Context, c *rpc.Client, args []string) error {
			var ids []crowd.JobID
			for _, arg := range args {
				id, err := resolveJob(ctx, c, arg)
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
			removed, err := c.Remove(ctx, ids)
			if err != nil {
				return err
			}
			return a.sayRemoved(removed)
		}),
	}
}

func (a *app) jobPruneCommand() *cobra.Command {
	older := time.Duration(-1)
	c := &cobra.Command{
		Use: "prune --older TIME", Short: "Remove all jobs that ended before some time", Args: cobra.NoArgs,
		Long: `Remove all jobs that ended longer ago than --older, as crowd job remove does. Jobs that have
not ended stay, and so do those whose result or receipt is still on its way.`,
		Example: "  crowd job prune --older 24h\n  crowd job prune --older 0s        all that have ended",
	}
	prune := a.with(func(ctx context.Context, c *rpc.Client, _ []string) error {
		removed, err := c.Prune(ctx, time.Now().Add(-older))
		if err != nil {
			return err
		}
		return a.sayRemoved(removed)
	})
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if older < 0 {
			return misuse("for example: crowd job prune --older 24h", "job prune: how old must a job be?")
		}
		return prune(cmd, args)
	}
	c.Flags().DurationVar(&older, "older", older, "how long ago a job must have ended, as 24h")
	c.Flags().Lookup("older").DefValue = "0" // so that the help names no default: there is none
	return c
}

func (a *app) sayRemoved(r rpc.Removed) error {
	return a.result(r, func(w io.Writer) {
		fmt.Fprintf(w, "removed %s with %s of results\n", count(r.Jobs, "job"), sizeText(r.Bytes))
	})
}

func (a *app) jobExplainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain JOB", Short: "Say why a job is where it is, and what would move it", Args: oneJob,
		Example: "  crowd job explain 3fa2",
		RunE: a.onJob(func(ctx context.Context, c *rpc.Client, id crowd.JobID) error {
			e, err := c.Explain(ctx, id)
			if err != nil {
				return err
			}
			return a.result(e, func(w io.Writer) {
				fields(w, "job", id.Short(), "stage", string(e.Stage), "why", e.Why, "do", e.Fix)
				if len(e.Requirements) > 0 {
					fmt.Fprintln(w, "\nwho meets what, each taken alone")
					rows := [][]string{{"REQUIREMENT", "PROVIDERS"}}
					for _, r := range e.Requirements {
						rows = append(rows, []string{r.Name, fmt.Sprintf("%d of %d", r.Met, r.Of)})
					}
					table(w, "  ", rows)
				}
			})
		}),
	}
}
