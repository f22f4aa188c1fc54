//go:build linux

package node

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/rpc"
)

// BenchmarkGrowth_FNV is how verified items per second grow with their number, from the upload of the frames to
// delivered results, cut into the shards of the plan with at most eight of them at a time, as crowd map does; and in which stage a shard
// waits, in percent of the time of all shards.
func BenchmarkGrowth_FNV(b *testing.B) {
	for _, items := range []int{100, 1000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("%dItems", items), func(b *testing.B) { benchmarkGrowth(b, items) })
	}
}

func benchmarkGrowth(b *testing.B, items int) {
	n := start(b, LocalConfig{Providers: 7})
	program := n.uploadFrom(bytes.NewReader(build(b, "testdata/fnv.c")))
	plan := n.planBatch(rpc.BatchRequest{Items: uint64(items), Limits: itemLimits, Gas: 20_000})
	all, _ := lines(items)
	few := all[:min(items, 500)]
	n.finish(rpc.PostRequest{Program: program, Stdin: n.uploadFrom(frames(b, few)), Items: uint32(len(few)), Plan: &rpc.SamplePlan{Verifiers: 5, Checks: 40}, Limits: itemLimits}) // compiled code, connections, workers
	laps := map[string]time.Duration{}
	for b.Loop() {
		ends, slots := make(chan []rpc.JobEvent, plan.Shards), make(chan struct{}, 8)
		for first := 0; first < items; first += int(plan.Items) {
			shard := all[first:min(items, first+int(plan.Items))]
			check := plan.SamplePlan
			if len(shard) < int(plan.Items) {
				check.Checks = min(check.Checks+1, uint32(len(shard)))
			}
			go func() {
				slots <- struct{}{}
				var events []rpc.JobEvent
				defer func() { <-slots; ends <- events }() // a Fatal ends this goroutine
				_, events = n.finish(rpc.PostRequest{Program: program, Stdin: n.uploadFrom(frames(b, shard)), Items: uint32(len(shard)), Plan: &check, Limits: itemLimits})
			}()
		}
		for range plan.Shards {
			events := <-ends
			for i := 1; i < len(events); i++ {
				name := "to-" + string(events[i].Stage)
				if events[i].Stage == events[i-1].Stage { // progress
					name = "in-" + string(events[i].Stage)
				}
				laps[name] += events[i].Time.Sub(events[i-1].Time)
			}
		}
	}
	b.ReportMetric(float64(items*b.N)/b.Elapsed().Seconds(), "items/s")
	b.ReportMetric(float64(plan.Shards), "shards")
	b.ReportMetric(100*plan.Overhead, "%overhead")
	sum := time.Duration(0)
	for _, d := range laps {
		sum += d
	}
	for name, d := range laps {
		b.ReportMetric(100*d.Seconds()/sum.Seconds(), "%"+name)
	}
}
