// Package adversary holds executors that lie, for demonstrations and tests on
// real nodes. Nothing here is reachable from a node that was not built to cheat.
package adversary

import (
	"context"
	"os"
	"path/filepath"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// WrongResult sees all that its executor sees and reports what it reports, but
// for one bit in the middle of the program's output: the smallest lie there is.
// It commits and reveals in time and serves its false result to everybody.
type WrongResult struct{ Honest executor.Executor }

// Run implements executor.Executor.
func (w WrongResult) Run(ctx context.Context, s executor.Spec, io executor.IO) (executor.Result, error) {
	r, err := w.Honest.Run(ctx, s, io)
	if err != nil || r.Status != crowd.Exited {
		return r, err
	}
	path := filepath.Join(s.Output, "stdout")
	data, err := os.ReadFile(path)
	if err != nil {
		return r, executor.Faultf(executor.BadSpec, "adversary: %w", err)
	}
	if len(data) == 0 {
		data = []byte{0}
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return r, executor.Faultf(executor.NoSpace, "adversary: %w", err)
	}
	return r, nil
}

func (w WrongResult) String() string {
	return "wrong-result: runs the program and flips one bit of its output"
}
