package runner

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
)

// exports counts what a store lays out.
type exports struct {
	*node
	bytes, calls uint64
	lies         bool // the last block of everything is not the one that its root names
}

func (x *exports) Export(ctx context.Context, c crowd.CID, path string, max uint64) error {
	x.calls++
	in, err := x.Stat(ctx, c)
	if err != nil {
		return err
	}
	x.bytes += in.Size
	if x.lies {
		return errTooBig
	}
	return x.node.Export(ctx, c, path, max)
}

// laying is a runner on a node that says what laying out costs it.
func laying(t *testing.T) (*Runner, *exports) {
	r, n := comparing(t, runs(func(s executor.Spec) {}))
	x := &exports{node: n}
	r.cfg.Blocks, r.cfg.Unusable = x, func(err error) bool { return errors.Is(err, errTooBig) || errors.Is(err, job.ErrUnusable) }
	return r, x
}

// Whatever a run lays out costs gas, and is part of the outcome, however it ends.
func TestExecute_WhatIsLaidOutIsPaidFor(t *testing.T) {
	const mib = 1 << 20
	const fileGas = crowd.Gas(2*7 + 50_000) // the program's
	inputs := map[string]string{"a": strings.Repeat("x", mib), "deep/b": "", "c": "yz"}
	const inputGas = crowd.Gas(2*(mib+2) + 5*50_000)
	for _, tt := range []struct {
		name string
		bend func(*job.Run, *exports)
		want crowd.Outcome
		laid bool
	}{
		{"a run", func(*job.Run, *exports) {}, crowd.Outcome{Status: crowd.Exited, Gas: fileGas + inputGas + 1}, true},
		{"just enough", func(e *job.Run, _ *exports) { e.Task.Limits.Gas = fileGas + inputGas }, crowd.Outcome{Status: crowd.Exited, Gas: fileGas + inputGas + 1}, true},
		{"too dear by one", func(e *job.Run, _ *exports) { e.Task.Limits.Gas = fileGas + inputGas - 1 }, crowd.Outcome{Status: crowd.OutOfGas, Gas: fileGas + inputGas - 1}, false},
		{"a block that is another", func(_ *job.Run, x *exports) { x.lies = true }, crowd.Outcome{Status: crowd.NoInput, Gas: fileGas + inputGas}, true},
		{"a folder for a program", func(e *job.Run, _ *exports) { e.Task.Program = e.Task.Inputs }, crowd.Outcome{Status: crowd.NoInput, Gas: executor.Unusable}, false},
		{"a bad block was fetched", func(e *job.Run, _ *exports) { e.Unusable = true }, crowd.Outcome{Status: crowd.NoInput, Gas: executor.Unusable}, false},
		{"a bad block and little gas", func(e *job.Run, _ *exports) { e.Unusable, e.Task.Limits.Gas = true, 9 }, crowd.Outcome{Status: crowd.NoInput, Gas: 9}, false},
		{"more than a task may read", func(_ *job.Run, x *exports) { x.claims = job.MaxInput + 1 }, crowd.Outcome{Status: crowd.NoInput, Gas: executor.Unusable}, false},
		// One block of 1 MiB, a thousand times.
		{"a small store that claims a gigabyte", func(e *job.Run, x *exports) { x.claims = 1 << 30 }, crowd.Outcome{Status: crowd.OutOfGas, Gas: 4e9}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, x := laying(t)
			e := job.Run{Task: crowd.Task{Program: x.text(t, "program"), Inputs: x.folder(t, inputs), Limits: crowd.Limits{Gas: 4e9, Memory: 1}}}
			tt.bend(&e, x)
			got, _, _, err := r.execute(t.Context(), slot{}, crowd.NodeID{}, e)
			if err != nil {
				t.Fatal(err)
			}
			if got.Status != tt.want.Status || got.Gas != tt.want.Gas || got.Result == "" {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if (x.calls > 0) != tt.laid {
				t.Errorf("%d files and folders were laid out, want any: %v", x.calls, tt.laid)
			}
			if least := 2 * crowd.Gas(x.bytes); got.Gas < least {
				t.Errorf("got %d gas for %d bytes laid out, want %d or more", got.Gas, x.bytes, least)
			}
		})
	}
}

// Each item of a batch bears the same share, so that it comes to the same gas alone, in a sample and in the whole.
func TestExecute_AnItemCostsTheSameInEveryCompany(t *testing.T) {
	items := []string{"a", strings.Repeat("b", executor.MaxItemStdin+1), "ccc", "", "e"}
	path := filepath.Join(t.TempDir(), "items")
	var file strings.Builder
	if err := batch.WriteFrames(&file, uint32(len(items)), func(i uint32) uint64 { return uint64(len(items[i])) },
		func(i uint32, w io.Writer) error { _, err := io.WriteString(w, items[i]); return err }); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		bend  func(*job.Run, *exports)
		ends  crowd.Status // of every item; 0: as each may
		least crowd.Gas    // of all together, if none has a limit below its share
	}{
		{"as posted", func(*job.Run, *exports) {}, 0, executor.LayOut(uint64(file.Len()), 2)},
		{"a bad block was fetched", func(e *job.Run, _ *exports) { e.Unusable = true }, crowd.NoInput, executor.Unusable},
		{"a block that is another", func(_ *job.Run, x *exports) { x.lies = true }, crowd.NoInput, executor.LayOut(uint64(file.Len()), 2)},
		{"too dear", func(e *job.Run, _ *exports) { e.Task.Limits.Gas = 1000 }, crowd.OutOfGas, 5000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, x := laying(t)
			r.cfg.Executor = x.node
			x.w = &world{t: t}
			c, err := x.add(path)
			if err != nil {
				t.Fatal(err)
			}
			e := job.Run{Items: uint32(len(items)), Task: crowd.Task{Program: x.text(t, "program"), Stdin: c, Limits: crowd.Limits{Gas: 1e10, Memory: 1}}}
			tt.bend(&e, x)
			leaves := func(only ...uint32) []batch.Leaf {
				e := e
				e.Only = only
				_, l, _, err := r.execute(t.Context(), slot{}, crowd.NodeID{}, e)
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			all := leaves(0, 1, 2, 3, 4)
			total := crowd.Gas(0)
			for i, want := range all {
				total += want.Gas
				if got := leaves(uint32(i))[0]; got != want {
					t.Errorf("item %d: got %+v alone, want %+v", i, got, want)
				}
				if tt.ends != 0 && want.Status != tt.ends {
					t.Errorf("item %d: got %v, want %v", i, want.Status, tt.ends)
				}
			}
			o, _, _, err := r.execute(t.Context(), slot{}, crowd.NodeID{}, e)
			tree, err2 := batch.NewTree(all)
			if err != nil || err2 != nil || o.Root != tree.Root().Top.Hash || o.Gas != total || o.Gas < tt.least {
				t.Errorf("got %v, %v, want the root of its items, and their %d gas, at least %d", o, err, total, tt.least)
			}
		})
	}
}
