package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// fetch gets all that an effect names. What cannot be used ends it at once.
func (r *Runner) fetch(ctx context.Context, e job.Fetch) error {
	for _, c := range e.CIDs {
		if err := r.cfg.Blocks.Fetch(ctx, c, e.Max, e.From); err != nil {
			return fmt.Errorf("fetch %s: %w", c, err)
		}
	}
	return nil
}

// run executes a task in a fresh folder that is gone afterwards. Its error is
// always this machine's fault; all that a task can come to is in the outcome.
func (r *Runner) run(ctx context.Context, j *ledger.Job, e job.Run) (o crowd.Outcome, err error) {
	select { // wait for a turn
	case r.runs <- struct{}{}:
		defer func() { <-r.runs }()
	case <-ctx.Done():
		return o, ctx.Err()
	}
	dir, err := os.MkdirTemp(r.scratch(), "run-")
	if err != nil {
		return o, fmt.Errorf("make scratch: %w", err)
	}
	defer func() {
		if gone := os.RemoveAll(dir); gone != nil {
			err = errors.Join(err, fmt.Errorf("clear scratch: %w", gone))
		}
	}()
	out := filepath.Join(dir, "result")
	if err := os.Mkdir(out, 0o700); err != nil {
		return o, fmt.Errorf("make scratch: %w", err)
	}
	spec, err := r.prepare(ctx, dir, out, &e.Task)
	if e.Unusable || errors.Is(err, job.ErrUnusable) {
		return r.unusable(ctx, out)
	} else if err != nil {
		return o, err
	}
	var live executor.IO
	if r.cfg.Tell != nil && j != nil {
		var end func()
		live, end = r.cfg.Tell(j)
		defer end()
	}
	res, err := r.cfg.Executor.Run(ctx, spec, live)
	if err != nil {
		return o, fmt.Errorf("run: %w", err)
	}
	result, err := r.cfg.Blocks.AddDir(ctx, out)
	if err != nil {
		return o, fmt.Errorf("store result: %w", err)
	}
	return crowd.Outcome{Status: res.Status, ExitCode: res.ExitCode, Gas: res.Gas, Result: result}, nil
}

// prepare lays the task's files out as the executor wants them.
func (r *Runner) prepare(ctx context.Context, dir, out string, t *crowd.Task) (s executor.Spec, err error) {
	s = executor.Spec{Args: t.Args, Env: t.Env, Output: out, Seed: t.Seed, Limits: t.Limits}
	for _, x := range []struct {
		cid    crowd.CID
		name   string
		folder bool
		path   *string
	}{{t.Program, "program", false, &s.Program}, {t.Inputs, "inputs", true, &s.Inputs}, {t.Stdin, "stdin", false, &s.Stdin}} {
		if x.cid == "" {
			continue
		}
		folder, err := r.cfg.Blocks.Folder(ctx, x.cid)
		if err != nil {
			return s, fmt.Errorf("%s: %w", x.name, err)
		}
		if folder != x.folder {
			return s, fmt.Errorf("%s %s: folder is %v: %w", x.name, x.cid, folder, job.ErrUnusable)
		}
		*x.path = filepath.Join(dir, x.name)
		if err := r.cfg.Blocks.Export(ctx, x.cid, *x.path, job.MaxInput); err != nil {
			return s, fmt.Errorf("%s: %w", x.name, err)
		}
	}
	return s, nil
}

// unusable is the outcome of a task whose inputs are not what it says, the same everywhere.
func (r *Runner) unusable(ctx context.Context, out string) (o crowd.Outcome, err error) {
	for _, name := range []string{"stdout", "stderr"} {
		if err := os.WriteFile(filepath.Join(out, name), nil, 0o600); err != nil {
			return o, fmt.Errorf("store result: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Join(out, "out"), 0o700); err != nil {
		return o, fmt.Errorf("store result: %w", err)
	}
	result, err := r.cfg.Blocks.AddDir(ctx, out)
	if err != nil {
		return o, fmt.Errorf("store result: %w", err)
	}
	return crowd.Outcome{Status: crowd.NoInput, Result: result}, nil
}
