//go:build linux

package wasm

import (
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

// snapshots: only where nothing else could have changed is a reactor restored. That the results are the
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
		{"item.c", "", false},
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
