package adversary

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

func (w writes) RunBatch(_ context.Context, _ executor.Spec, items iter.Seq[executor.Item], each func(executor.ItemResult) error) (r executor.BatchResult, err error) {
	for i := range items {
		if err := each(executor.ItemResult{Index: i.Index, Status: crowd.Exited, Gas: 7, Stdout: []byte(w)}); err != nil {
			return r, err
		}
	}
	return r, nil
}

// Both say the same of a task and of an item: an executor and a verifier that drift alike do not differ.
func TestDrift_IsTheSameInBothWays(t *testing.T) {
	for _, c := range []struct{ honest, reordered, noisy string }{
		{"", "", ""},
		{"a\nb\nc\n", "c\nb\na\n", "a\nb\nc\n"},
		{"x 1.5\ny 2", "y 2\nx 1.5", "x 1.5015\ny 2"},
	} {
		drifted(t, Reorder{writes(c.honest)}, c.reordered)
		drifted(t, Noise{writes(c.honest), 1e-3}, c.noisy)
	}
}

func drifted(t *testing.T, e Both, want string) {
	t.Helper()
	s := executor.Spec{Output: t.TempDir()}
	if _, err := e.Run(t.Context(), s, executor.IO{}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(s.Output, "stdout"))
	if err != nil || string(got) != want {
		t.Errorf("got %q %v want %q", got, err, want)
	}
	items := func(yield func(executor.Item) bool) { yield(executor.Item{}) }
	if _, err := e.RunBatch(t.Context(), s, items, func(r executor.ItemResult) error {
		if string(r.Stdout) != want || r.Gas != 7 {
			t.Errorf("an item: got %q, want %q", r.Stdout, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
