//go:build linux

package node

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// Whatever a user posts, honest nodes lose nothing by it: neither stake nor honesty, and nobody calls it their fault.
func TestLocal_AHostileJobCostsNoHonestNodeAnything(t *testing.T) {
	n := start(t, LocalConfig{Providers: 3})
	program := func(source string) crowd.CID { return n.uploadFrom(bytes.NewReader(build(t, "testdata/"+source))) }
	moody, table, loop := program("moody.c"), program("table.c"), program("loop.c")
	garbage := n.uploadFrom(strings.NewReader("this is no program"))
	items, _ := lines(30)
	limits := rpc.Limits{Gas: 1e8, Memory: 16 << 20, Output: 1 << 16, WallMillis: 20_000}
	batch := func(r *rpc.PostRequest) {
		r.Items, r.Stdin, r.Confidence, r.Plan = uint32(len(items)), n.uploadFrom(frames(t, items)), 0.5, &rpc.SamplePlan{Verifiers: 1, Checks: 10, Replacements: 1}
		r.Limits.Gas, r.Limits.Output = 1e6, 1<<10
	}
	jobs := []struct {
		name   string
		change func(*rpc.PostRequest)
		stage  rpc.Stage
	}{
		{"a program that wants to differ", func(r *rpc.PostRequest) {}, rpc.Settled},
		{"the same as a batch", batch, rpc.Settled},
		{"a program that never ends", func(r *rpc.PostRequest) { r.Program = loop }, rpc.Settled},
		{"a comparator that never ends", func(r *rpc.PostRequest) { r.Compare = "wasm:" + string(loop) + ",gas=1000000" }, rpc.Settled},
		{"a comparator that never ends, in a batch", func(r *rpc.PostRequest) { batch(r); r.Compare = "wasm:" + string(loop) + ",gas=1000000" }, rpc.Settled},
		{"a comparator that says yes to all", func(r *rpc.PostRequest) { r.Compare = "wasm:" + string(table) }, rpc.Settled},
		{"a comparator that is no program", func(r *rpc.PostRequest) { r.Compare = "wasm:" + string(garbage) }, rpc.Settled},
		{"a class that does not fit", func(r *rpc.PostRequest) { r.Compare = "json" }, rpc.Settled},
		{"arrays of odd length, in a batch", func(r *rpc.PostRequest) { batch(r); r.Compare = "float64:rel=1e-6" }, rpc.Settled},
		{"inputs that are no folder", func(r *rpc.PostRequest) { r.Inputs = garbage }, rpc.Settled},
		{"items that are none", func(r *rpc.PostRequest) { batch(r); r.Stdin = garbage; r.Compare = "lines" }, rpc.Settled},
	}
	for some := range slices.Chunk(jobs, 3) { // a few at once
		var ids []crowd.JobID
		post := func(change func(*rpc.PostRequest)) crowd.JobID {
			r := rpc.PostRequest{Program: moody, Limits: limits}
			change(&r)
			id, err := n.Post(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		for _, c := range some {
			ids = append(ids, post(c.change))
		}
		for k, c := range some {
			events := n.follow(ids[k])
			last := events[len(events)-1]
			for tries := 0; strings.Contains(last.Why, "claimed their place") && tries < 5; tries++ { // a slow machine
				events = n.follow(post(c.change))
				last = events[len(events)-1]
			}
			if last.Stage != c.stage {
				t.Errorf("%s: got %s: %s", c.name, last.Stage, last.Why)
			}
			for _, b := range last.Verdict.Blame {
				if b.Node != nil {
					t.Errorf("%s: %s is blamed: %+v", c.name, b.Node.Short(), b)
				}
			}
		}
	}
	for i := range n.Local.Providers() {
		rep, err := n.Reputation(t.Context(), n.Local.Provider(i).Address())
		if err != nil || n.stake(i) != providerStake || rep.Caught > 0 || rep.Faults > 0 || rep.Buried || rep.Failed > 0 {
			t.Errorf("provider %d: stake %s, %+v, %v", i, n.stake(i), rep, err)
		}
		for _, e := range rep.Evidence {
			if !e.Passed {
				t.Errorf("provider %d: evidence against it: %+v", i, e)
			}
		}
	}
}
