package adversary

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// WrongItems sees all that its executor sees and falsifies a share of a batch's items: the ones that
// Seed chooses by their index, so that it tells the same lie whenever it is asked again. All else is honest,
// which is how a worker cheats that has looked at the price of being caught.
type WrongItems struct {
	Honest interface {
		executor.Executor
		executor.Batcher
	}
	Rate float64 // share of items, 0 to 1
	Seed uint64
}

// Lies says whether it falsifies the item of that index.
func (w WrongItems) Lies(index uint64) bool {
	return rand.New(rand.NewPCG(w.Seed, index)).Float64() < w.Rate
}

// Run implements executor.Executor, honestly.
func (w WrongItems) Run(ctx context.Context, s executor.Spec, io executor.IO) (executor.Result, error) {
	return w.Honest.Run(ctx, s, io)
}

// RunBatch implements executor.Batcher.
func (w WrongItems) RunBatch(ctx context.Context, s executor.Spec, items iter.Seq[executor.Item], each func(executor.ItemResult) error) (executor.BatchResult, error) {
	return w.Honest.RunBatch(ctx, s, items, func(r executor.ItemResult) error {
		if r.Fault == nil && r.Status != crowd.Invalid && w.Lies(r.Index) {
			r.Stdout = append([]byte(nil), r.Stdout...)
			if len(r.Stdout) == 0 {
				r.Stdout = []byte{0}
			}
			r.Stdout[len(r.Stdout)/2] ^= 1
		}
		return each(r)
	})
}

func (w WrongItems) String() string {
	return fmt.Sprintf("wrong-items: flips one bit of the output of %g %% of a batch's items", 100*w.Rate)
}
