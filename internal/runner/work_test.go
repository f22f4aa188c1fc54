package runner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
)

// failing is an executor on which every run ends with the same error.
type failing struct{ err error }

func (f failing) Run(context.Context, executor.Spec, executor.IO) (executor.Result, error) {
	return executor.Result{}, f.err
}

// text stores a file.
func (n *node) text(t *testing.T, s string) crowd.CID {
	t.Helper()
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := n.add(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A run that ran out of time says so, since the job's machine does not try such a run again; no other failure does.
func TestExecute_ARunThatTookTooLongIsMarked(t *testing.T) {
	for kind, want := range map[executor.Kind]bool{executor.Timeout: true, executor.Crashed: false, executor.NoSpace: false, executor.Cancelled: false} {
		fault := &executor.Fault{Kind: kind}
		r, n := comparing(t, failing{fault})
		task := crowd.Task{Program: n.text(t, "program"), Limits: crowd.Limits{Gas: 1 << 30, Memory: 1}}
		_, _, _, err := r.execute(t.Context(), slot{}, crowd.NodeID{}, job.Run{Task: task})
		if got := errors.Is(err, job.ErrWall); got != want || !errors.Is(err, fault) {
			t.Errorf("%v: got %v, want a run that took too long: %v", kind, err, want)
		}
	}
}

// What an offer says of the memory is what the node takes.
func TestMostMemory(t *testing.T) {
	for _, have := range []uint64{0, 1, runOverhead, 1 << 28, 1 << 30, 3 << 30, 23 << 30, 1 << 40} {
		most := MostMemory(have)
		if most > 0 && LeastMemory(most) > have {
			t.Errorf("of %d bytes: offers %d, which need %d", have, most, LeastMemory(most))
		}
		if more := most + 128<<20; more <= crowd.MaxMemory && LeastMemory(more) <= have {
			t.Errorf("of %d bytes: offers %d, though %d would do", have, most, more)
		}
	}
}
