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
			all[engine] = executortest.RunBatch(t, func(t *testing.T) executortest.Batcher { return newTest(t, engine) })
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
