package main

import (
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// The items of a job bear the price of the program's code together: in a last shard of few items each of them bears more
// than in those that were measured, and needs a limit that allows for it.
func TestLayout_AnItemOfASmallShardMayBearMore(t *testing.T) {
	const own, start = 1000, 16_000_000 // gas of an item alone, and of what all of a job bear
	m := &mapping{flow: flow.Config{Parallel: 1}}
	st := &stage{Start: start, Plan: &rpc.BatchPlan{SamplePlan: rpc.SamplePlan{Verifiers: 1, Checks: 3}, Items: 100, Undetected: 0.9}}
	st.Request.Limits.Gas = own
	shards, layout, err := m.layout(t.Context(), st, flow.Lay{Items: 203})
	if err != nil || len(shards) != 3 {
		t.Fatalf("got %d shards, %v, want three", len(shards), err)
	}
	for i, sh := range shards {
		if asked := st.asks(flow.Lay{Items: 203}, 0); sh.Limits.Gas > asked.Limits.Gas+asked.Start/crowd.Gas(layout[i].Items)+1 {
			t.Errorf("shard %d: an item may use %d gas, the plan was asked for %d and a start of %d: stakes may not cover it", i, sh.Limits.Gas, asked.Limits.Gas, asked.Start)
		}
		if need := own + crowd.Gas(start)/crowd.Gas(layout[i].Items); sh.Limits.Gas < need || sh.Limits.Gas > need+1 {
			t.Errorf("shard %d of %d items: got a limit of %d gas, want %d", i, layout[i].Items, sh.Limits.Gas, need)
		}
	}
}
