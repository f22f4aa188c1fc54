//go:build linux

package node

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/adversary"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/verify"
)

func drifting(f func(adversary.Both) executor.Executor) Cheat {
	return func(e executor.Executor) executor.Executor { return f(e.(adversary.Both)) }
}

// Executors that differ from the others are convicted or not by what the job says of differences, and by nothing else.
func TestLocal_WhatAJobToleratesIsNoLie(t *testing.T) {
	const reorder, honest, rounds, lies, flips, cheats = 0, 1, 2, 3, 4, 5
	n := start(t, LocalConfig{Providers: 6, Cheats: map[int]Cheat{
		reorder: drifting(func(e adversary.Both) executor.Executor { return adversary.Reorder{Honest: e} }),
		rounds:  drifting(func(e adversary.Both) executor.Executor { return adversary.Noise{Honest: e, By: 1e-9} }),
		lies:    drifting(func(e adversary.Both) executor.Executor { return adversary.Noise{Honest: e, By: 1e-3} }),
		cheats:  wrongItems(0.9),
		flips:   func(e executor.Executor) executor.Executor { return adversary.WrongResult{Honest: e} },
	}})
	table := rpc.PostRequest{Program: n.uploadFrom(bytes.NewReader(build(t, "testdata/table.c"))), Limits: rpc.Limits{Gas: 1e8, Memory: 16 << 20, Output: 1 << 16, WallMillis: 20_000}}
	cmp := n.uploadFrom(bytes.NewReader(build(t, "testdata/samelines.c")))
	loop := n.uploadFrom(bytes.NewReader(build(t, "testdata/loop.c")))
	items, _ := lines(40)
	frames := n.uploadFrom(frames(t, items))
	type tried struct {
		name    string
		compare string
		who     []int // only these can be drawn
		batch   bool
		stage   rpc.Stage
		guilty  []int
		fault   string // that somebody or nobody is blamed for
	}
	try := func(all []tried) (ids []crowd.JobID) {
		t.Helper()
		post := func(c tried) crowd.JobID {
			t.Helper()
			r := table
			r.Compare = c.compare
			for _, i := range c.who {
				r.Filters.Providers = append(r.Filters.Providers, n.Local.Provider(i))
			}
			if c.batch {
				r.Items, r.Stdin, r.Limits.Gas, r.Limits.Output, r.Limits.WallMillis, r.Confidence = uint32(len(items)), frames, 1e6, 1<<10, 20_000, 0.5
				r.Plan = &rpc.SamplePlan{Verifiers: 1, Checks: 10, Replacements: 1}
			}
			id, err := n.Post(t.Context(), r)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			return id
		}
		for _, c := range all { // at once: they share nobody who is convicted
			ids = append(ids, post(c))
		}
		for k, c := range all {
			events := n.follow(ids[k])
			last := events[len(events)-1]
			for tries := 0; strings.Contains(last.Why, "claimed their place") && tries < 5; tries++ { // a slow machine
				ids[k] = post(c)
				events = n.follow(ids[k])
				last = events[len(events)-1]
			}
			var blamed []crowd.NodeID
			faults := ""
			for _, b := range last.Verdict.Blame {
				faults += b.Fault
				if b.Node != nil {
					blamed = append(blamed, *b.Node)
				}
			}
			if last.Stage != c.stage || len(blamed) != len(c.guilty) || faults != c.fault {
				t.Errorf("%s: got %s (%s), blame %+v", c.name, last.Stage, last.Why, last.Verdict.Blame)
			}
			for _, i := range c.guilty {
				if !slices.Contains(blamed, n.Local.Provider(i)) || n.stake(i) != 0 {
					t.Errorf("%s: provider %d is not convicted: %+v", c.name, i, last.Verdict.Blame)
				}
			}
			if last.Stage == rpc.Settled && !c.batch && !strings.Contains(n.stdout(ids[k]), "row8 ") {
				t.Errorf("%s: got %q", c.name, n.stdout(ids[k]))
			}
			if findings, good := verify.Check(n.receipt(ids[k]), verify.Trust{Chain: n.Genesis().ChainID(), Header: VerifyHeader}); !good {
				t.Errorf("%s: receipt: %+v", c.name, findings)
			}
		}
		return ids
	}
	try([]tried{
		{"another order of lines", "lines", []int{reorder, honest}, false, rpc.Settled, nil, ""},
		{"another rounding", "numeric:rel=1e-6", []int{rounds, honest}, false, rpc.Settled, nil, ""},
		{"another order, by a program", "wasm:" + string(cmp), []int{reorder, honest}, false, rpc.Settled, nil, ""},
	})
	try([]tried{
		{"another order in a batch", "lines", []int{reorder, honest}, true, rpc.Settled, nil, ""},
		{"another rounding in a batch", "numeric:rel=1e-6", []int{rounds, honest}, true, rpc.Settled, nil, ""},
		{"a comparator that loops", "wasm:" + string(loop) + ",gas=1000000", []int{reorder, honest}, false, rpc.Failed, nil, "user error"},
	})
	for i := range n.Local.Providers() {
		if n.stake(i) != providerStake {
			t.Errorf("provider %d has a stake of %s", i, n.stake(i))
		}
	}
	ids := try([]tried{
		{"a difference in the third digit", "numeric:rel=1e-6", []int{lies, honest}, false, rpc.Settled, []int{lies}, "malice"},
		{"a flipped bit where order is free", "wasm:" + string(cmp), []int{flips, honest}, false, rpc.Settled, []int{flips}, "malice"},
		{"another order where every byte counts", "", []int{reorder, honest}, false, rpc.Settled, []int{reorder}, "malice"},
		{"another rounding where every byte counts", "exact", []int{rounds, honest}, false, rpc.Settled, []int{rounds}, "malice"},
	})
	told := func(id crowd.JobID, want string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			j, err := n.Job(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(j.Advice, want) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("got the advice %q, want %q", j.Advice, want)
			}
		}
		if e, err := n.Explain(t.Context(), id); err != nil || !strings.Contains(e.Fix, want) {
			t.Errorf("got %+v, %v", e, err)
		}
	}
	try([]tried{{"flipped bits in a batch where order is free", "lines", []int{cheats, honest}, true, rpc.Failed, []int{cheats}, "malice"}})
	told(ids[2], "declare --compare lines")
	told(ids[3], "declare --compare numeric:rel=1e-8")
	if n.stake(honest) != providerStake {
		t.Errorf("the honest provider has a stake of %s", n.stake(honest))
	}
}
