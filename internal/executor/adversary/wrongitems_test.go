package adversary

import (
	"bytes"
	"context"
	"iter"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// echoes gives every item its own stdin back.
type echoes struct{ writes }

func (echoes) RunBatch(_ context.Context, _ executor.Spec, items iter.Seq[executor.Item], each func(executor.ItemResult) error) (r executor.BatchResult, err error) {
	for i := range items {
		r.Items++
		if err := each(executor.ItemResult{Index: i.Index, Status: crowd.Exited, Gas: 7, Stdout: i.Stdin}); err != nil {
			return r, err
		}
	}
	return r, nil
}

func TestWrongItems_LiesAtItsRateAndAlwaysAboutTheSame(t *testing.T) {
	const n = 10_000
	for _, rate := range []float64{0, 0.01, 0.5, 1} {
		w := WrongItems{Honest: echoes{}, Rate: rate, Seed: 7}
		wrong := 0
		stdin := []byte("an answer")
		_, err := w.RunBatch(t.Context(), executor.Spec{}, func(yield func(executor.Item) bool) {
			for i := range uint64(n) {
				if !yield(executor.Item{Index: i, Stdin: stdin}) {
					return
				}
			}
		}, func(r executor.ItemResult) error {
			lie := !bytes.Equal(r.Stdout, []byte("an answer"))
			if lie {
				wrong++
			}
			if lie != w.Lies(r.Index) || r.Gas != 7 || r.Status != crowd.Exited {
				t.Errorf("item %d: got %q, want a lie: %v", r.Index, r.Stdout, w.Lies(r.Index))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := float64(wrong) / n; got < rate*0.8 || got > rate*1.2 {
			t.Errorf("got %g of the items wrong, want about %g", got, rate)
		}
		if !bytes.Equal(stdin, []byte("an answer")) {
			t.Error("the honest result itself was changed")
		}
	}
}
