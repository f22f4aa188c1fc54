package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
)

// fetchIdle is how long a fetch may go without a block before it counts as failed.
const fetchIdle = 20 * time.Second

var errIdle = fmt.Errorf("no block for %v", fetchIdle)

// fetch brings all CIDs into the own store.
func (r *Runner) fetch(ctx context.Context, s slot, e job.Fetch) error {
	lanes := r.fetches
	if s.role == job.AsAuthority { // executors wait for owners; the court waits for no executor
		lanes = r.courtFetches
	}
	if err := lanes.Acquire(ctx, 1); err != nil {
		return err
	}
	defer lanes.Release(1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(fetchIdle, func() { cancel(errIdle) })
	defer idle.Stop()
	progress := func(uint64, uint64) { idle.Reset(fetchIdle) }
	err := func() error {
		for _, c := range e.CIDs {
			if err := r.cfg.Blocks.Fetch(ctx, c, e.Max, e.From, progress); err != nil {
				return err
			}
		}
		if e.Result != "" {
			if err := r.fetchOutputs(ctx, e, progress); err != nil {
				return err
			}
		}
		if e.Gather != nil {
			return r.fetchParts(ctx, e.Gather, progress)
		}
		return nil
	}()
	switch {
	case err == nil || errors.Is(err, job.ErrParts) || errors.Is(err, job.ErrUnusable):
		return err
	case r.cfg.Unusable(err):
		return fmt.Errorf("%w: %w", job.ErrUnusable, err)
	case r.cfg.Full(err):
		return fmt.Errorf("%w: %w", job.ErrLocal, err)
	case context.Cause(ctx) == errIdle:
		return fmt.Errorf("fetch: %w", errIdle)
	}
	return err
}

// execute runs a task whose inputs lie in the own store. An error is a fault of
// this node; what is wrong with the task is an outcome.
func (r *Runner) execute(ctx context.Context, s slot, owner crowd.NodeID, e job.Run) (o crowd.Outcome, leaves []batch.Leaf, outputs crowd.CID, err error) {
	if r.cfg.Executor == nil {
		return o, nil, "", errors.New("this node executes nothing")
	}
	defer func() {
		if err = wall(err); err != nil && r.cfg.Full(err) {
			err = fmt.Errorf("%w: %w", job.ErrLocal, err)
		}
	}()
	lanes := r.lanes(&e)
	release, err := r.room(ctx, uint64(lanes)*runMemory(e.Task.Limits.Memory), e.Only != nil)
	if err != nil {
		return o, nil, "", err
	}
	defer release()

	dir, err := os.MkdirTemp(r.scratchDir(), "run-")
	if err != nil {
		return o, nil, "", err
	}
	defer func() { // no trace stays; one that cannot be removed is a fault of this node
		if e := os.RemoveAll(dir); e != nil && err == nil {
			o, leaves, outputs, err = crowd.Outcome{}, nil, "", e
		}
	}()
	spec := executor.Spec{
		Args: e.Task.Args, Env: e.Task.Env, Seed: e.Task.Seed, Limits: e.Task.Limits,
		Output: filepath.Join(dir, "output"), Shares: e.Items, Lanes: lanes,
	}
	if err := os.Mkdir(spec.Output, 0o700); err != nil {
		return o, nil, "", err
	}
	l, err := r.layOut(ctx, &e, dir, &spec)
	if err != nil {
		return o, nil, "", err
	}
	switch {
	case e.Outputs:
		leaves, outputs, err = r.some(ctx, spec, e, l)
		return o, leaves, outputs, err
	case e.Only != nil:
		err = r.items(ctx, spec, e, l, func(l batch.Leaf, _ executor.ItemResult) error {
			leaves = append(leaves, l)
			return nil
		})
		return o, leaves, "", err
	case e.Items > 0:
		if o, err = r.batch(ctx, spec, e, l, r.progress(s, owner)); err != nil {
			return crowd.Outcome{}, nil, "", err
		}
	case !l.usable:
		o = crowd.Outcome{Status: crowd.NoInput, Gas: l.spent}
	case l.dear:
		o = crowd.Outcome{Status: crowd.OutOfGas, Gas: l.spent}
	default:
		spec.Spent = l.spent
		told := r.streams(s, owner)
		if e.Quiet {
			told.Stdout, told.Stderr = nil, nil
		}
		res, err := r.cfg.Executor.Run(ctx, spec, told)
		if err != nil {
			return crowd.Outcome{}, nil, "", err
		}
		o = crowd.Outcome{Status: res.Status, ExitCode: res.ExitCode, Gas: res.Gas}
		if res.Reason != "" {
			r.publish(s, owner, Chunk{Stream: Note, Data: []byte(res.Reason)})
		}
	}
	if e.Items == 0 { // a program that never began wrote nothing, and its result has the same form
		for _, name := range []string{"stdout", "stderr"} {
			f, err := os.OpenFile(filepath.Join(spec.Output, name), os.O_CREATE|os.O_WRONLY, 0o600)
			if err == nil {
				err = f.Close()
			}
			if err != nil {
				return crowd.Outcome{}, nil, "", err
			}
		}
	}
	if o.Result, err = r.cfg.Blocks.AddDir(ctx, spec.Output); err != nil {
		return crowd.Outcome{}, nil, "", fmt.Errorf("store the result: %w", err)
	}
	return o, nil, "", nil
}

// wall marks an error of a run that ran out of time.
func wall(err error) error {
	var f *executor.Fault
	if errors.As(err, &f) && f.Kind == executor.Timeout {
		return fmt.Errorf("%w: %w", job.ErrWall, err)
	}
	return err
}

// runOverhead is what a run takes beside the memory of its program: a worker, and what it keeps in /tmp.
const runOverhead = 128 << 20

func runMemory(limit uint64) uint64 { return limit + runOverhead }

// LeastMemory is the Config.Memory with which a task of that memory limit runs at all.
func LeastMemory(limit uint64) uint64 {
	need := runMemory(limit)
	return need + need/3 + 1
}

// MostMemory is the memory limit of the largest task that runs at all with that Config.Memory, in steps of 64 MiB; 0: none does.
func MostMemory(have uint64) uint64 {
	const step = 64 << 20
	return min((have/4*3-min(have/4*3, runOverhead+1))/step*step, crowd.MaxMemory)
}

// forSamples is the part of the memory that is kept for runs that are short.
func (c *Config) forSamples() uint64 { return c.Memory / 4 }

// lanes is how many items of a batch run at once. A batch that goes on for hours leaves half of the memory to others, if
// more than one of its items would fill it.
func (r *Runner) lanes(e *job.Run) int {
	n := int(e.Items)
	if e.Only != nil {
		n = len(e.Only)
	}
	have := (r.cfg.Memory - r.cfg.forSamples()) / 2
	if e.Only != nil {
		have = r.cfg.forSamples()
	}
	return int(max(1, min(uint64(n), uint64(r.cfg.Runs), have/runMemory(e.Task.Limits.Memory))))
}

// room waits until a run with that much memory has its place: first come first served, as many wait as there are jobs at
// work. One that is short stands behind no whole batch, which others wait for, unless it needs more memory than is kept
// for such. What will never have its place is refused.
func (r *Runner) room(ctx context.Context, memory uint64, short bool) (release func(), err error) {
	runs, pool := r.runs, r.memory
	if most := r.cfg.Memory - r.cfg.forSamples(); memory > most {
		return nil, executor.Faultf(executor.Unsupported, "the run needs %d bytes of memory, and this node gives %d to all of them together", memory, most)
	}
	if short {
		runs = r.samples
		if memory <= r.cfg.forSamples() {
			pool = r.spare
		}
	}
	if err := runs.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	if err := pool.Acquire(ctx, int64(memory)); err != nil {
		runs.Release(1)
		return nil, err
	}
	return func() {
		pool.Release(int64(memory))
		runs.Release(1)
	}, nil
}

// export writes content of at most max bytes to path; false when it is nothing usable, on any machine.
func (r *Runner) export(ctx context.Context, c crowd.CID, path string, folder bool, max uint64) (bool, error) {
	if err := r.cfg.Blocks.Export(ctx, c, path, max); err != nil {
		if r.cfg.Unusable(err) {
			return false, nil
		}
		return false, err
	}
	fi, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	return fi.IsDir() == folder, nil
}
