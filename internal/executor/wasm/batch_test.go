//go:build linux

package wasm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/executortest"
)

// TestBatch holds each engine to the suite for batches, and both to the same results.
func TestBatch(t *testing.T) {
	all := map[string]map[uint64]executortest.Seen{}
	for _, engine := range Engines() {
		t.Run(engine, func(t *testing.T) {
			x := newTest(t, engine)
			all[engine] = executortest.RunBatch(t, func(*testing.T) executortest.Batcher { return x })
			t.Run("snapshots", func(t *testing.T) { snapshots(t, x) })
		})
	}
	for _, engine := range Engines()[1:] {
		for i, want := range all[Engines()[0]] {
			if got, is := all[engine][i]; is && !got.Equal(want) {
				t.Errorf("item %d: %s got %.300v, want as %s %.300v", i, engine, got, Engines()[0], want)
			}
		}
	}
}

func TestCheck_BelievesOnlyWhatCouldBe(t *testing.T) {
	items := []executor.Item{{Index: 3}, {Index: 5}, {Index: 4}}
	exited := func(i uint64) itemDone {
		return itemDone{Index: i, Status: crowd.Exited, Gas: 10, Stdout: make([]byte, 60), Stderr: make([]byte, 40)}
	}
	fault := func(i uint64) itemDone { return itemDone{Index: i, Fault: executor.NoSpace} }
	with := func(edit func(*itemDone)) []itemDone {
		d := exited(5)
		d.Stdout = nil
		edit(&d)
		return []itemDone{exited(3), d}
	}
	for _, c := range []struct {
		name string
		list []itemDone
		want int // results; 0: refused
	}{
		{"first", []itemDone{exited(3)}, 1},
		{"all", []itemDone{exited(3), exited(5), exited(4)}, 3},
		{"fault last", []itemDone{exited(3), fault(5)}, 2},
		{"none", nil, 0},
		{"more than all", []itemDone{exited(3), exited(5), exited(4), exited(4)}, 0},
		{"wrong order", []itemDone{exited(3), exited(4)}, 0},
		{"not the next", []itemDone{exited(5)}, 0},
		{"behind a fault", []itemDone{fault(3), exited(5)}, 0},
		{"gas", with(func(d *itemDone) { d.Gas++ }), 0},
		{"output", with(func(d *itemDone) { d.Stdout = make([]byte, 61) }), 0},
		{"files", with(func(d *itemDone) { d.Out = []executor.File{{Path: "a", Data: make([]byte, 60)}} }), 2},
		{"output and files", with(func(d *itemDone) { d.Out = []executor.File{{Path: "a", Data: make([]byte, 61)}} }), 0},
		{"folder with content", with(func(d *itemDone) { d.Out = []executor.File{{Path: "a", Dir: true, Data: []byte("x")}} }), 0},
		{"name above", with(func(d *itemDone) { d.Out = []executor.File{{Path: "../a"}} }), 0},
		{"name twice", with(func(d *itemDone) { d.Out = []executor.File{{Path: "a"}, {Path: "a"}} }), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := check(&chunk{List: c.list}, items, &crowd.Limits{Gas: 10, Output: 100})
			if len(got) != c.want || (err == nil) != (c.want > 0) {
				t.Errorf("got %d results, %v, want %d", len(got), err, c.want)
			}
		})
	}
}

// snapshots: only where nothing else could have changed is a module restored. That the results are the
// same either way is the suite's.
func snapshots(t *testing.T, x *Executor) {
	for _, c := range []struct {
		guest, early string
		warm         bool
	}{
		{"reactor.go", "", true},
		{"reactor.c", "", true},
		{"reactor.c", "flags", true},
		{"reactor.c", "stdin", false},
		{"reactor.c", "size", false},
		{"reactor.c", "poll", false},
		{"reactor.c", "write", false},
		{"reactor.c", "close", false},
		{"reactor.c", "file", false},
		{"reactor.c", "trap", false},
		{"true.c", "", true},
	} {
		s := executortest.Case{Guest: c.guest, Env: []string{"EARLY=" + c.early}, Limits: crowd.Limits{Gas: 1 << 40, Memory: 64 << 20}}.BatchSpec(t)
		var items []executor.Item
		for i := range uint64(20) {
			items = append(items, executor.Item{Index: i, Stdin: []byte("u")})
		}
		warm := 0
		for _, r := range executortest.Batch(t, x, s, items) {
			if r.Warm {
				warm++
			}
		}
		if c.warm && warm < len(items)-x.config.Workers || !c.warm && warm > 0 {
			t.Errorf("%s %s: got %d of %d items restored, want all but each worker's first: %v", c.guest, c.early, warm, len(items), c.warm)
		}
	}
}

// What a start function of WebAssembly does in a command, nobody takes note of: there is no snapshot behind it.
func TestSnapshot_NoneOfACommandThatHasStartedAlready(t *testing.T) {
	body := strings.TrimSuffix(looks, "\x41\x03\x10\x03") // without the exit
	module := guest(body)
	code := strings.Index(module, body) - 5                 // its section's number, size, one body, the body's size, no locals
	module = module[:code] + "\x08\x01\x04" + module[code:] // start: the same function as _start
	for _, engine := range Engines() {
		x := newTest(t, engine)
		s := executortest.Case{Guest: "true.c"}.BatchSpec(t)
		s.Program = filepath.Join(t.TempDir(), "program.wasm")
		if err := os.WriteFile(s.Program, []byte(module), 0o600); err != nil {
			t.Fatal(err)
		}
		items := []executor.Item{{Index: 0}, {Index: 1}, {Index: 2}, {Index: 3}, {Index: 4}, {Index: 5}}
		for i, r := range executortest.Batch(t, x, s, items) {
			want := executortest.Alone(t, x, s, items[i])
			if r.Status != crowd.Exited || r.Warm || len(r.Stdout) != 64 || string(r.Stdout) != want.Files["stdout"] || r.Gas != want.Gas {
				t.Errorf("%s, item %d: got %v (%s), %x, warm: %v, want as alone %v, %x", engine, i, r.Status, r.Reason, r.Stdout, r.Warm, want.Status, want.Files["stdout"])
			}
		}
	}
}
