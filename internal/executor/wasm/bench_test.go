//go:build linux

package wasm

import (
	"context"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/executortest"
)

// benchmarkRun measures Run from the call to the result, with a warm worker and an
// output folder of its own for each run.
func benchmarkRun(b *testing.B, engine, guest string) {
	x := newTest(b, engine)
	s := executortest.Case{Guest: guest}.Spec(b)
	run := func() {
		s.Output = b.TempDir()
		r, err := x.Run(context.Background(), s, executor.IO{})
		if err != nil || r.Status != crowd.Exited {
			b.Fatal(r, err)
		}
	}
	run()
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/run")
}

func BenchmarkTrivialC(b *testing.B) {
	for _, engine := range Engines() {
		b.Run(engine, func(b *testing.B) { benchmarkRun(b, engine, "true.c") })
	}
}

func BenchmarkTrivialGo(b *testing.B) {
	for _, engine := range Engines() {
		b.Run(engine, func(b *testing.B) { benchmarkRun(b, engine, "gohello.go") })
	}
}

// BenchmarkSpare is a run that finds the compiled code, but no worker that has it:
// the code is loaded into the spare, or into a new worker where that is not ready.
func BenchmarkSpare(b *testing.B) {
	for _, guest := range []string{"true.c", "gohello.go"} {
		b.Run(guest, func(b *testing.B) {
			x := newTest(b, "")
			s := executortest.Case{Guest: guest}.Spec(b)
			for first := true; first || b.Loop(); first = false {
				s.Output = b.TempDir()
				if _, err := x.Run(context.Background(), s, executor.IO{}); err != nil {
					b.Fatal(err)
				}
				x.mu.Lock()
				idle := x.idle
				x.idle = nil
				x.mu.Unlock()
				for _, p := range idle {
					p.end()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/run")
		})
	}
}

// benchmarkBatch measures items of a batch, from the call to the last result, on all workers; and how
// many times faster that is than one run after the other, with a warm worker.
func benchmarkBatch(b *testing.B, engine, guest, stdin string) {
	x := newTest(b, engine)
	s := executortest.Case{Guest: guest, Limits: crowd.Limits{Gas: 1 << 40, Memory: 64 << 20}}.BatchSpec(b)
	batch := func(n int) time.Duration {
		r, err := x.RunBatch(context.Background(), s, func(yield func(executor.Item) bool) {
			for i := range n {
				if !yield(executor.Item{Index: uint64(i), Stdin: []byte(stdin)}) {
					return
				}
			}
		}, func(r executor.ItemResult) error {
			if r.Fault != nil || r.Status != crowd.Exited {
				b.Fatal(r)
			}
			return nil
		})
		if err != nil || r.Items != uint64(n) {
			b.Fatal(r, err)
		}
		return r.CPU
	}
	batch(10)
	alone := s
	const runs = 20
	began := time.Now()
	for range runs {
		executortest.Alone(b, x, alone, executor.Item{Stdin: []byte(stdin)})
	}
	single := time.Since(began) / runs
	b.ReportAllocs()
	b.ResetTimer()
	cpu := batch(b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "worker-us/item")
	b.ReportMetric(single.Seconds()*float64(b.N)/b.Elapsed().Seconds(), "x-single-runs")
}

func BenchmarkBatch(b *testing.B) {
	for _, g := range []struct{ name, guest, stdin string }{
		{"trivialC", "true.c", ""}, {"itemC", "item.c", "u"}, {"reactorC", "reactor.c", "u"},
		{"Go", "gohello.go", ""}, {"reactorGo", "reactor.go", "word1\n"},
	} {
		for _, engine := range Engines() {
			b.Run(g.name+"/"+engine, func(b *testing.B) { benchmarkBatch(b, engine, g.guest, g.stdin) })
		}
	}
}
