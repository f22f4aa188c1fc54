// Package executortest holds every executor to the same behaviour: guests in C,
// Go and Rust, and a suite that runs them. It knows no executor.
package executortest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// forever is more gas than any test has time for.
const forever = 1 << 60

// Run is the conformance suite. fresh makes an executor and sees to its end. What
// the cases came to, by name, is for comparison with another executor.
func Run(t *testing.T, fresh func(*testing.T) executor.Executor) map[string]Seen {
	x := fresh(t)
	seen := map[string]Seen{}
	t.Run("cases", func(t *testing.T) {
		for _, c := range Cases() {
			t.Run(c.Name, func(t *testing.T) { seen[c.Name] = c.check(t, x) })
		}
	})
	t.Run("inputs stay as they are", func(t *testing.T) { unharmed(t, x) })
	t.Run("garbage", func(t *testing.T) { garbage(t, x) })
	t.Run("wall time", func(t *testing.T) { wall(t, x) })
	t.Run("cancel", func(t *testing.T) { cancelled(t, x) })
	t.Run("bad specification", func(t *testing.T) { badSpec(t, x) })
	t.Run("live output", func(t *testing.T) { live(t, x) })
	t.Run("slow reader", func(t *testing.T) { slow(t, x) })
	t.Run("disk full", func(t *testing.T) { diskFull(t, x) })
	t.Run("many at once", func(t *testing.T) { many(t, x) })
	t.Run("the parent stays small", func(t *testing.T) { small(t, x) })
	return seen
}

// check runs c five times: it must come to what it should, and always to the same.
func (c Case) check(t *testing.T, x executor.Executor) Seen {
	spec := c.Spec(t)
	first, r := See(t, x, spec)
	if first.Status != c.Status || first.ExitCode != c.Exit {
		t.Fatalf("got %v, exit %d (%s), want %v, exit %d\nstdout: %.500s\nstderr: %.500s", first.Status, first.ExitCode, r.Reason, c.Status, c.Exit, first.Files["stdout"], first.Files["stderr"])
	}
	for name, want := range c.Files {
		if got, is := first.Files[name]; !is || got != want {
			t.Errorf("%s: got %.2000q (there: %v), want %.2000q", name, got, is, want)
		}
	}
	if first.Gas == 0 && first.Status == crowd.Exited {
		t.Error("got no gas used, want some")
	}
	if c.Status == crowd.OutOfGas && first.Gas != spec.Limits.Gas {
		t.Errorf("got %d gas, want the limit of %d", first.Gas, spec.Limits.Gas)
	}
	again := 4
	if c.Slow {
		again = 1
	}
	for i := range again {
		spec.Output = t.TempDir()
		if again, _ := See(t, x, spec); !again.Equal(first) {
			t.Fatalf("run %d: got %v, exit %d, %d gas, want as before %v, exit %d, %d gas; same files: %v",
				i+2, again.Status, again.ExitCode, again.Gas, first.Status, first.ExitCode, first.Gas, mapsSame(again.Files, first.Files))
		}
	}
	return first
}

// unharmed: nothing that a program tries with its inputs changes them, for they may be those of others.
func unharmed(t *testing.T, x executor.Executor) {
	s := Case{Guest: "files.c", Inputs: true}.Spec(t)
	before := Files(t, filepath.Join(s.Inputs, "deep"))
	a := filepath.Join(s.Inputs, "a.txt")
	See(t, x, s)
	if text, err := os.ReadFile(a); err != nil || string(text) != "hello in\n" || !mapsSame(before, Files(t, filepath.Join(s.Inputs, "deep"))) {
		t.Errorf("a.txt: got %q, %v, want every input as it was", text, err)
	}
}

func mapsSame(a, b map[string]string) bool {
	return Seen{Files: a}.Equal(Seen{Files: b})
}

func garbage(t *testing.T, x executor.Executor) {
	good, err := os.ReadFile(Guest(t, "true.c"))
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(good)
	broken[len(broken)/2] ^= 0xff
	for _, g := range []struct {
		name string
		wasm []byte
	}{
		{"empty", nil},
		{"text", []byte("#!/bin/sh\n")},
		{"header only", good[:8]},
		{"cut", good[:len(good)/2]},
		{"version", append([]byte("\x00asm\x02\x00\x00\x00"), good[8:]...)},
		{"random", bytes.Repeat([]byte("\x00asm\x01\x00\x00\x00\x05"), 999)},
		{"foreign import", []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02\x09\x01\x03env\x01f\x00\x00")},
	} {
		t.Run(g.name, func(t *testing.T) {
			s := Case{Guest: "true.c"}.Spec(t)
			s.Program = filepath.Join(t.TempDir(), "program")
			if err := os.WriteFile(s.Program, g.wasm, 0o644); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time out of a cache, perhaps
				s.Output = t.TempDir()
				got, r := See(t, x, s)
				if got.Status != crowd.Invalid || got.Gas != 0 || r.Reason == "" {
					t.Errorf("got %v, %d gas, reason %q, want %v without gas and with a reason", got.Status, got.Gas, r.Reason, crowd.Invalid)
				}
			}
		})
	}
}

func wantFault(t *testing.T, err error, kind executor.Kind) {
	t.Helper()
	var f *executor.Fault
	if !errors.As(err, &f) || f.Kind != kind {
		t.Errorf("got %v, want a fault: %v", err, kind)
	}
}

func wall(t *testing.T, x executor.Executor) {
	s := Case{Guest: "hostile.c", Args: []string{"loop"}, Limits: crowd.Limits{Gas: forever, Wall: 300 * time.Millisecond}}.Spec(t)
	began := time.Now()
	_, err := x.Run(context.Background(), s, executor.IO{})
	wantFault(t, err, executor.Timeout)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("got %v until the end, want about 300ms", took)
	}
	Case{Guest: "hostile.c", Args: []string{"trap"}, Status: crowd.Trapped}.check(t, x) // it still works
}

func cancelled(t *testing.T, x executor.Executor) {
	s := Case{Guest: "hostile.c", Args: []string{"loop"}, Limits: crowd.Limits{Gas: forever}}.Spec(t)
	ctx, cancel := context.WithCancel(context.Background())
	running := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	_, err := x.Run(ctx, s, executor.IO{Stdout: running})
	wantFault(t, err, executor.Cancelled)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it to wrap %v", err, context.Canceled)
	}
	s.Output = t.TempDir()
	_, err = x.Run(ctx, s, executor.IO{})
	wantFault(t, err, executor.Cancelled)
	ctx, cancel = context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	s.Output = t.TempDir()
	_, err = x.Run(ctx, s, executor.IO{})
	wantFault(t, err, executor.Cancelled)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func badSpec(t *testing.T, x executor.Executor) {
	for _, c := range []struct {
		name string
		edit func(*executor.Spec)
	}{
		{"no program", func(s *executor.Spec) { s.Program += ".not" }},
		{"program is a folder", func(s *executor.Spec) { s.Program = s.Output }},
		{"no inputs", func(s *executor.Spec) { s.Inputs = s.Program + ".not" }},
		{"no stdin", func(s *executor.Spec) { s.Stdin = s.Program + ".not" }},
		{"stdin is a device", func(s *executor.Spec) { s.Stdin = os.DevNull }},
		{"no output", func(s *executor.Spec) { s.Output += "/not" }},
		{"output not empty", func(s *executor.Spec) { os.WriteFile(s.Output+"/stdout", nil, 0o644) }},
		{"no gas", func(s *executor.Spec) { s.Limits.Gas = 0 }},
		{"no memory", func(s *executor.Spec) { s.Limits.Memory = 0 }},
		{"no time", func(s *executor.Spec) { s.Limits.Wall = 0 }},
		{"zero byte", func(s *executor.Spec) { s.Args = []string{"a\x00b"} }},
		{"env", func(s *executor.Spec) { s.Env = []string{"=x"} }},
		{"too many args", func(s *executor.Spec) { s.Args = make([]string, crowd.MaxArgs+1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Case{Guest: "true.c"}.Spec(t)
			c.edit(&s)
			_, err := x.Run(context.Background(), s, executor.IO{})
			if f := (*executor.Fault)(nil); errors.As(err, &f) && f.Kind == executor.Crashed {
				t.Errorf("got %v, want the specification blamed", err)
			} else if f == nil {
				t.Errorf("got %v, want a fault", err)
			}
		})
	}
}

func live(t *testing.T, x executor.Executor) {
	s := Case{Guest: "echo.c", Args: []string{"0"}, Stdin: strings.Repeat("0123456789\n", 1000)}.Spec(t)
	var out, errs bytes.Buffer
	var last crowd.Gas
	r, err := x.Run(context.Background(), s, executor.IO{Stdout: &out, Stderr: &errs, Progress: func(g crowd.Gas) { last = g }})
	if err != nil {
		t.Fatal(err)
	}
	files := Files(t, s.Output)
	if out.String() != files["stdout"] || errs.String() != files["stderr"] {
		t.Errorf("got %d and %d bytes, want %d and %d", out.Len(), errs.Len(), len(files["stdout"]), len(files["stderr"]))
	}
	if last > r.Gas {
		t.Errorf("got progress up to %d, want at most %d", last, r.Gas)
	}
}

// slow: a reader that does not read, and one that fails, change nothing.
func slow(t *testing.T, x executor.Executor) {
	s := Case{Guest: "hostile.c", Args: []string{"flood"}}.Spec(t)
	never := make(chan struct{})
	defer close(never)
	stuck := writerFunc(func(p []byte) (int, error) { <-never; return 0, io.ErrClosedPipe })
	broken := writerFunc(func(p []byte) (int, error) { return 0, io.ErrClosedPipe })
	r, err := x.Run(context.Background(), s, executor.IO{Stdout: stuck, Stderr: broken, Progress: func(crowd.Gas) { <-never }})
	if err != nil || r.Status != crowd.OutputFull {
		t.Errorf("got %v, %v, want %v", r.Status, err, crowd.OutputFull)
	}
}

func diskFull(t *testing.T, x executor.Executor) {
	s := Case{Guest: "hostile.c", Args: []string{"fill", "8000000"}, Limits: crowd.Limits{Output: 10 << 20}}.Spec(t)
	if said, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", s.Output).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a small disk: %v: %s", err, said)
	}
	defer exec.Command("umount", "-l", s.Output).Run()
	_, err := x.Run(context.Background(), s, executor.IO{})
	wantFault(t, err, executor.NoSpace)
}

func many(t *testing.T, x executor.Executor) {
	var wg sync.WaitGroup
	for _, c := range []Case{
		{Guest: "echo.c", Args: []string{"7"}, Stdin: "x", Status: crowd.Exited, Exit: 7},
		{Guest: "hostile.c", Args: []string{"trap"}, Status: crowd.Trapped},
		{Guest: "gohello.go", Status: crowd.Exited},
	} {
		want, _ := See(t, x, c.Spec(t))
		for range 4 {
			s := c.Spec(t)
			wg.Go(func() {
				r, err := x.Run(context.Background(), s, executor.IO{})
				if err != nil || r.Status != want.Status || r.Gas != want.Gas {
					t.Errorf("got %v, %d gas, %v, want %v, %d gas", r.Status, r.Gas, err, want.Status, want.Gas)
				}
			})
		}
	}
	wg.Wait()
}

// small: what hostile programs do is felt in no heap and no goroutine of ours.
func small(t *testing.T, x executor.Executor) {
	hostile := func() {
		for _, how := range []string{"flood", "memory", "tmp", "calls", "trap"} {
			s := Case{Guest: "hostile.c", Args: []string{how}, Limits: crowd.Limits{Output: 4 << 20}}.Spec(t)
			if _, err := x.Run(context.Background(), s, executor.IO{Stdout: io.Discard}); err != nil {
				t.Fatal(err)
			}
		}
		s := Case{Guest: "hostile.c", Args: []string{"loop"}, Limits: crowd.Limits{Gas: forever, Wall: 50 * time.Millisecond}}.Spec(t)
		_, err := x.Run(context.Background(), s, executor.IO{Stdout: io.Discard})
		wantFault(t, err, executor.Timeout)
	}
	measure := func() (uint64, int) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, runtime.NumGoroutine()
	}
	hostile()
	heap, routines := measure()
	for range 3 {
		hostile()
	}
	heapAfter, routinesAfter := measure()
	if heapAfter > heap+4<<20 {
		t.Errorf("got a heap of %d bytes, want about %d", heapAfter, heap)
	}
	if routinesAfter > routines+8 {
		t.Errorf("got %d goroutines, want about %d", routinesAfter, routines)
	}
}
