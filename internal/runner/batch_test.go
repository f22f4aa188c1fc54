package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

const batchItems = 200

// batched makes a job a batch of numbered items, one of them poison.
func (w *world) batched(file []byte) func(*crowd.JobSpec) {
	return func(s *crowd.JobSpec) {
		path := filepath.Join(w.t.TempDir(), "items")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			w.t.Fatal(err)
		}
		c, err := w.nodes[consumer].add(path)
		if err != nil {
			w.t.Fatal(err)
		}
		s.Task.Stdin, s.Items = c, batchItems
		s.Task.Limits.Gas = 100_000
		s.Plan = crowd.Plan{Method: crowd.PlanSample, Verifiers: 1, Checks: 40, Replacements: 1}
	}
}

func itemFile(t testing.TB) []byte {
	var b strings.Builder
	item := func(i uint32) string {
		if i == 17 {
			return "poison"
		}
		return fmt.Sprintf("item %d", i)
	}
	err := batch.WriteFrames(&b, batchItems, func(i uint32) uint64 { return uint64(len(item(i))) },
		func(i uint32, w io.Writer) error { _, err := io.WriteString(w, item(i)); return err })
	if err != nil {
		t.Fatal(err)
	}
	return []byte(b.String())
}

// result reads what the consumer has of a batch.
func (w *world) result(j ledger.Job) ([]batch.Leaf, frameFile) {
	dir := w.nodes[consumer].path(j.Verdict.Outcome.Result)
	raw, err := os.ReadFile(filepath.Join(dir, leavesFile))
	if err != nil {
		w.t.Fatal(err)
	}
	var leaves []batch.Leaf
	for ; len(raw) > 0; raw = raw[batch.LeafSize:] {
		l, err := batch.DecodeLeaf(raw[:batch.LeafSize])
		if err != nil {
			w.t.Fatal(err)
		}
		leaves = append(leaves, l)
	}
	f, err := openFrames(filepath.Join(dir, stdoutFile), batchItems)
	if err != nil {
		w.t.Fatal(err)
	}
	return leaves, f
}

func TestRunner_Batch(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		id := w.post(ctx, "echo", w.batched(itemFile(t)))
		until(t, "the end of the batch", w.ends(id))
		j := w.job(id)
		if j.State != ledger.Settled || j.Verdict.By != ledger.BySample {
			t.Fatalf("got %s: %+v", j.State, j.History)
		}
		leaves, out := w.result(j)
		defer out.close()
		for i := range uint32(batchItems) {
			got, err := out.Read(i)
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("echo item %d %d", i, i); i != 17 && string(got) != want {
				t.Errorf("item %d: got %q want %q", i, got, want)
			}
			if leaves[i].UserError() != (i == 17) {
				t.Errorf("item %d: got exit code %d", i, leaves[i].ExitCode)
			}
		}
		if a, b := w.nodes[providerA].items, w.nodes[providerB].items; min(a, b) != 40 || max(a, b) != batchItems {
			t.Errorf("the two providers ran %d and %d items, want all and 40", a, b)
		}
	})
}

func TestRunner_ALiarLosesItsStakeInEitherPlace(t *testing.T) {
	for i := range 4 {
		liar := []int{providerA, providerB}[i/2] // one of them is the executor
		bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
			w.nodes[liar].lies, w.bribed = true, i%2 == 1
			id := w.post(ctx, "echo", w.batched(itemFile(t)))
			until(t, "the end of the batch", w.ends(id))
			j := w.job(id)
			if j.State != ledger.Failed || j.Verdict != nil { // the only verifier or the only executor is gone
				t.Errorf("got %s, verdict %v: %+v", j.State, j.Verdict, j.History)
			}
			for _, i := range []int{providerA, providerB} {
				want := ledger.Revealed
				if i == liar {
					want = ledger.Fraud
				}
				if p := j.Place(w.nodes[i].key.ID()); p.State != want {
					t.Errorf("provider %d, verifier %v: got %s want %s", i, p.Verifier, p.State, want)
				}
			}
		})
	}
}

func TestRunner_BatchWhoseItemFileIsNone(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		id := w.post(ctx, "echo", w.batched([]byte("these are no frames")))
		until(t, "the end of the batch", w.ends(id))
		j := w.job(id)
		if j.State != ledger.Settled {
			t.Fatalf("got %s: %+v", j.State, j.History)
		}
		leaves, out := w.result(j)
		out.close()
		gas := executor.Share(executor.LayOut(uint64(len("echo")+len("input")+len("these are no frames")), 4), batchItems)
		for i, l := range leaves {
			if l.Status != crowd.NoInput || l.Gas != gas {
				t.Fatalf("item %d: got %s, %d gas, want its share of what was laid out, %d", i, l.Status, l.Gas, gas)
			}
		}
	})
}

// A sample that does not hold the item must come to the same as the run of all of them.
func TestRunner_BatchWithAnItemThatIsTooLong(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		const long = 3
		size := func(i uint32) int {
			if i == long {
				return executor.MaxItemStdin + 1
			}
			return 1
		}
		var file bytes.Buffer
		err := batch.WriteFrames(&file, batchItems, func(i uint32) uint64 { return uint64(size(i)) },
			func(i uint32, w io.Writer) error { _, err := w.Write(bytes.Repeat([]byte("x"), size(i))); return err })
		if err != nil {
			t.Fatal(err)
		}
		id := w.post(ctx, "echo", w.batched(file.Bytes()))
		until(t, "the end of the batch", w.ends(id))
		j := w.job(id)
		if j.State != ledger.Settled {
			t.Fatalf("got %s: %+v", j.State, j.History)
		}
		leaves, out := w.result(j)
		out.close()
		for i, l := range leaves {
			if want := map[bool]crowd.Status{true: crowd.NoInput, false: crowd.Exited}[i == long]; l.Status != want {
				t.Errorf("item %d: got %s want %s", i, l.Status, want)
			}
		}
	})
}

func TestRunner_BatchThatNobodyServesIsNotPaid(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		for _, i := range []int{providerA, providerB} {
			w.nodes[i].hides = true
		}
		id := w.post(ctx, "echo", w.batched(itemFile(t)))
		until(t, "the end of the batch", w.ends(id))
		if j := w.job(id); j.State != ledger.Failed {
			t.Fatalf("got %s: %+v", j.State, j.History)
		}
	})
}

// Users take the folder for the result: which items failed, the leaves in it say.
func TestRunner_BatchWithAnotherResultThanItsOutputsIsNotPaid(t *testing.T) {
	for name, doctor := range map[string]func(dir string) error{
		"other leaves": func(dir string) error {
			raw, err := os.ReadFile(filepath.Join(dir, leavesFile))
			if err != nil {
				return err
			}
			raw[4]++ // the exit code of the first item
			return os.WriteFile(filepath.Join(dir, leavesFile), raw, 0o600)
		},
		"no leaves": func(dir string) error { return os.Remove(filepath.Join(dir, leavesFile)) },
		"more files": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "report.html"), []byte("all is well"), 0o600)
		},
		"more stderr":  func(dir string) error { return os.WriteFile(filepath.Join(dir, stderrFile), []byte("none"), 0o600) },
		"other stdout": func(dir string) error { return flipLast(filepath.Join(dir, stdoutFile)) },
		"other stderr": func(dir string) error { return flipLast(filepath.Join(dir, stderrFile)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
				for _, i := range []int{providerA, providerB} {
					w.nodes[i].doctor = doctor
				}
				id := w.post(ctx, "echo", w.batched(itemFile(t)))
				until(t, "the end of the batch", w.ends(id))
				if j := w.job(id); j.State != ledger.Failed {
					t.Fatalf("got %s: %+v", j.State, j.History)
				}
			})
		})
	}
}

// flipLast changes the last byte of a file of frames, which still is one: of the last string.
func flipLast(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	raw[len(raw)-1] ^= 1
	return os.WriteFile(path, raw, 0o600)
}

// What the outputs in a result are is held against their leaves, whoever reads them.
func TestReadLeaves_HoldsEachOutputAgainstItsLeaf(t *testing.T) {
	r, n := comparing(t, nil)
	for _, bad := range []string{"", stdoutFile, stderrFile} {
		dir := t.TempDir()
		p, err := newPacked(dir, 3, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			ir := executor.ItemResult{Status: crowd.Exited, Stdout: fmt.Appendf(nil, "out %d", i), Stderr: fmt.Appendf(nil, "err %d", i)}
			if err := p.add(batch.Leaf{Status: ir.Status, Output: batch.Digest(ir.Stdout, ir.Stderr)}, ir); err != nil {
				t.Fatal(err)
			}
		}
		err = p.finish()
		p.close()
		if err == nil && bad != "" {
			err = flipLast(filepath.Join(dir, bad))
		}
		if err != nil {
			t.Fatal(err)
		}
		leaves, err := n.add(filepath.Join(dir, leavesFile))
		result, err2 := n.add(dir)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		got, err := r.readLeaves(t.Context(), job.ReadLeaves{Leaves: leaves, Items: 3, Result: result, Max: 1 << 20})
		if bad == "" && (err != nil || len(got) != 3) || bad != "" && !errors.Is(err, job.ErrUnusable) {
			t.Errorf("a changed byte in %q: got %d leaves, %v", bad, len(got), err)
		}
	}
}

func TestRunner_ReadsAsMuchOfABatchAsItMay(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		id := w.post(ctx, "echo", w.batched(itemFile(t)))
		until(t, "the end of the batch", w.ends(id))
		o := w.job(id).Verdict.Outcome
		for _, tt := range []struct {
			name string
			most uint64
			ok   bool
		}{{"all", 1 << 20, true}, {"more than is allowed", batchItems * batch.LeafSize, false}} {
			leaves, err := rs[consumer].readLeaves(ctx, job.ReadLeaves{Leaves: o.Leaves, Items: batchItems, Result: o.Result, Max: tt.most})
			if tt.ok && (err != nil || len(leaves) != batchItems) || !tt.ok && !errors.Is(err, job.ErrUnusable) {
				t.Errorf("%s: got %d leaves, %v", tt.name, len(leaves), err)
			}
		}
	})
}

// A node that runs out of descriptors must not blame whose files it cannot open.
func TestLocal(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"none", nil, false},
		{"no descriptors", fmt.Errorf("stdout: %w", &fs.PathError{Op: "open", Path: "stdout", Err: syscall.EMFILE}), true},
		{"a bad disk", fmt.Errorf("frame file: %w", &fs.PathError{Op: "read", Path: "stdin", Err: syscall.EIO}), true},
		{"no such file in the content", &fs.PathError{Op: "open", Path: "stdout", Err: syscall.ENOENT}, false},
		{"no frames", errors.New("frame file: ends at 3 of 4"), false},
	} {
		if got := local(tt.err); got != tt.want {
			t.Errorf("%s: got %v want %v", tt.name, got, tt.want)
		}
	}
}
