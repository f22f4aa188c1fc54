//go:build linux

package node

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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

// benchmarkClients is the same with so many clients at a time, each of which posts one job after the other. "jobs/s" and the
// rest are of the whole process: node, authority and seven providers.
func benchmarkClients(b *testing.B, clients int) {
	n := start(b, LocalConfig{})
	r := n.request(guest(b, "trivial"))
	for range 8 { // compiled code, connections, workers
		n.finish(r)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, clients)
	blocks := func() float64 {
		info, err := n.Info(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		return float64(info.Height)
	}
	before, height := spent(b), blocks()
	b.ResetTimer()
	began := time.Now()
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				at := time.Now()
				id, err := n.Post(b.Context(), r)
				if err != nil {
					b.Error(err)
					return
				}
				for ev, err := range n.Watch(b.Context(), id) {
					if err != nil || ev.Stage.Final() && ev.Stage != rpc.Settled {
						b.Errorf("job %s: %+v, %v", id.Short(), ev, err)
						return
					}
				}
				took[i] = append(took[i], time.Since(at))
			}
		})
	}
	all.Wait()
	wall := time.Since(began)
	after := spent(b)
	b.StopTimer()
	height = blocks() - height
	d := slices.Concat(took...)
	if len(d) == 0 {
		b.Fatal("no job has ended")
	}
	slices.Sort(d)
	jobs := float64(len(d))
	b.ReportMetric(jobs/wall.Seconds(), "jobs/s")
	b.ReportMetric(float64(d[len(d)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(d[len(d)*99/100].Microseconds())/1000, "ms-p99")
	b.ReportMetric(1000*(after.cpu-before.cpu).Seconds()/jobs, "ms-cpu/job")
	b.ReportMetric(height/jobs, "blocks/job")
	b.ReportMetric(float64(after.written-before.written)/1000/jobs, "KB-written/job")
}

// expense is what this process has used.
type expense struct {
	cpu     time.Duration
	written int64 // bytes that went to a disk
}

func spent(b *testing.B) (e expense) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	e.cpu = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "\nwrite_bytes: ")
	if _, err := fmt.Sscan(rest, &e.written); err != nil {
		b.Fatalf("/proc/self/io: %v", err)
	}
	return e
}

func BenchmarkJobs_1Client(b *testing.B)   { benchmarkClients(b, 1) }
func BenchmarkJobs_4Clients(b *testing.B)  { benchmarkClients(b, 4) }
func BenchmarkJobs_16Clients(b *testing.B) { benchmarkClients(b, 16) }
func BenchmarkJobs_64Clients(b *testing.B) { benchmarkClients(b, 64) }
