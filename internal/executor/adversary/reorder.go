package adversary

import (
	"bytes"
	"context"
	"iter"
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// Both is an executor of single tasks and batches.
type Both interface {
	executor.Executor
	executor.Batcher
}

// Reorder tells the truth in another order: it turns the lines of every standard output round, as a
// machine does whose threads end in another order. Whether that is a lie, the job says.
type Reorder struct{ Honest Both }

func turned(out []byte) []byte {
	end := bytes.HasSuffix(out, []byte("\n"))
	lines := bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
	slices.Reverse(lines)
	out = bytes.Join(lines, []byte("\n"))
	if end {
		out = append(out, '\n')
	}
	return out
}

// Run implements executor.Executor.
func (r Reorder) Run(ctx context.Context, s executor.Spec, io executor.IO) (executor.Result, error) {
	return rewritten(ctx, r.Honest, s, io, turned)
}

// RunBatch implements executor.Batcher.
func (r Reorder) RunBatch(ctx context.Context, s executor.Spec, items iter.Seq[executor.Item], each func(executor.ItemResult) error) (executor.BatchResult, error) {
	return r.Honest.RunBatch(ctx, s, items, rewriting(each, turned))
}

func (Reorder) String() string { return "reorder: turns the lines of every output round" }

// rewriting changes what items wrote before each sees it.
func rewriting(each func(executor.ItemResult) error, change func([]byte) []byte) func(executor.ItemResult) error {
	return func(r executor.ItemResult) error {
		if r.Fault == nil && r.Status == crowd.Exited {
			r.Stdout = change(slices.Clone(r.Stdout))
		}
		return each(r)
	}
}
