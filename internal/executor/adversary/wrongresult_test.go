package adversary

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

type writes string

func (w writes) Run(_ context.Context, s executor.Spec, _ executor.IO) (executor.Result, error) {
	return executor.Result{Status: crowd.Exited, Gas: 7}, os.WriteFile(filepath.Join(s.Output, "stdout"), []byte(w), 0o600)
}

func TestWrongResult_DiffersInOneBit(t *testing.T) {
	for _, honest := range []string{"", "x", "a longer text"} {
		s := executor.Spec{Output: t.TempDir()}
		r, err := WrongResult{writes(honest)}.Run(t.Context(), s, executor.IO{})
		if err != nil || r.Gas != 7 {
			t.Fatalf("got %+v %v", r, err)
		}
		got, err := os.ReadFile(filepath.Join(s.Output, "stdout"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(got, []byte(honest)) || honest != "" && len(got) != len(honest) {
			t.Errorf("got %q for the honest %q", got, honest)
		}
	}
}
