package adversary

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// Noise computes with other rounding: every number with a fraction that a program writes comes out
// larger by the share By, as on a machine with another mathematical library. Whether that is a lie, the job says.
type Noise struct {
	Honest Both
	By     float64
}

var fraction = regexp.MustCompile(`-?[0-9]+\.[0-9]+(e[-+]?[0-9]+)?`)

func (n Noise) add(out []byte) []byte {
	return fraction.ReplaceAllFunc(out, func(b []byte) []byte {
		x, err := strconv.ParseFloat(string(b), 64)
		if err != nil {
			return b
		}
		return strconv.AppendFloat(nil, x*(1+n.By), 'g', 15, 64)
	})
}

// Run implements executor.Executor.
func (n Noise) Run(ctx context.Context, s executor.Spec, io executor.IO) (executor.Result, error) {
	return rewritten(ctx, n.Honest, s, io, n.add)
}

// RunBatch implements executor.Batcher.
func (n Noise) RunBatch(ctx context.Context, s executor.Spec, items iter.Seq[executor.Item], each func(executor.ItemResult) error) (executor.BatchResult, error) {
	return n.Honest.RunBatch(ctx, s, items, rewriting(each, n.add))
}

func (n Noise) String() string {
	return fmt.Sprintf("noise: makes every number with a fraction larger by %g", n.By)
}

// rewritten runs a program and changes its standard output afterwards.
func rewritten(ctx context.Context, honest executor.Executor, s executor.Spec, io executor.IO, change func([]byte) []byte) (executor.Result, error) {
	r, err := honest.Run(ctx, s, io)
	if err != nil || r.Status != crowd.Exited {
		return r, err
	}
	path := filepath.Join(s.Output, "stdout")
	data, err := os.ReadFile(path)
	if err != nil {
		return r, executor.Faultf(executor.BadSpec, "adversary: %w", err)
	}
	if err := os.WriteFile(path, change(bytes.Clone(data)), 0o600); err != nil {
		return r, executor.Faultf(executor.NoSpace, "adversary: %w", err)
	}
	return r, nil
}
