//go:build linux

package node

import (
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/rpc"
)

// benchmarkJob measures whole verified jobs as a client of the consumer's RPC
// sees them, from the post to the receipt, in a local network of one authority
// and seven providers; the medians of the stages between.
func benchmarkJob(b *testing.B, program string) {
	n := start(b, LocalConfig{})
	r := n.request(guest(b, program))
	for range 8 { // compiled code, connections, workers
		n.finish(r)
	}
	stages := map[string][]time.Duration{}
	b.ReportAllocs()
	for b.Loop() {
		begin := time.Now()
		last := begin
		lap := func(name string) {
			now := time.Now()
			stages[name] = append(stages[name], now.Sub(last))
			last = now
		}
		id, err := n.Post(b.Context(), r)
		if err != nil {
			b.Fatal(err)
		}
		lap("post")
		seen := map[rpc.Stage]bool{}
		for ev, err := range n.Watch(b.Context(), id) {
			if err != nil {
				b.Fatal(err)
			}
			if seen[ev.Stage] {
				continue
			}
			seen[ev.Stage] = true
			switch ev.Stage {
			case rpc.Drawn:
				lap("draw")
			case rpc.Committed:
				lap("run")
			case rpc.Checked:
				lap("reveal")
			case rpc.Delivered:
				lap("deliver")
			case rpc.Settled:
				lap("settle")
			case rpc.Failed, rpc.Cancelled, rpc.Court:
				b.Fatalf("job %s: %+v", id.Short(), ev)
			}
		}
		n.receipt(id)
		lap("receipt")
		stages["job"] = append(stages["job"], time.Since(begin))
	}
	for name, d := range stages {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds())/1000, "ms-"+name)
	}
}

func BenchmarkJob_TrivialC(b *testing.B) { benchmarkJob(b, "trivial") }
func BenchmarkJob_GoHello(b *testing.B)  { benchmarkJob(b, "hello") }
