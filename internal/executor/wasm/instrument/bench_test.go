package instrument

import (
	"runtime"
	"testing"
	"time"

	"github.com/bytecodealliance/wasmtime-go/v43"
	"golang.org/x/sys/unix"
)

// BenchmarkModule rewrites a Go program (its standard library included) and a C program.
func BenchmarkModule(b *testing.B) {
	for _, name := range []string{"go", "program"} {
		b.Run(name, func(b *testing.B) {
			wasm := guest(b, name)
			b.SetBytes(int64(len(wasm)))
			b.ReportAllocs()
			var out []byte
			for b.Loop() {
				out = instrumented(b, wasm, Options{})
			}
			b.ReportMetric(100*float64(len(out))/float64(len(wasm))-100, "%growth")
		})
	}
}

// BenchmarkOverhead runs each kernel plain and instrumented on wasmtime, by turns in one process, and
// reports the least CPU time of the instrumented forms relative to that of the plain one.
func BenchmarkOverhead(b *testing.B) {
	for _, program := range []string{"kernels", "vectors"} {
		wasm := guest(b, program)
		forms := [][]byte{wasm, instrumented(b, wasm, Options{}), instrumented(b, wasm, Options{NaN: AsIs})}
		modules := make([]*wasmtime.Module, len(forms))
		for i, f := range forms {
			m, err := wasmtime.NewModule(wasmtimeEngine, f)
			if err != nil {
				b.Fatal(err)
			}
			modules[i] = m
		}
		for _, k := range kernels {
			b.Run(program+"/"+k.name, func(b *testing.B) {
				least := []time.Duration{1 << 62, 1 << 62, 1 << 62}
				var gas int64
				for b.Loop() {
					for i, m := range modules {
						start := threadTime(b)
						o := runWasmtimeModule(b, m, plenty, k.name, k.size)
						least[i] = min(least[i], threadTime(b)-start)
						if gas = plenty - o.gas; o.trap != "" {
							b.Fatal(o)
						}
					}
				}
				ratio := func(i int) float64 { return 100*float64(least[i])/float64(least[0]) - 100 }
				b.ReportMetric(float64(least[0].Microseconds())/1000, "plain-ms")
				b.ReportMetric(ratio(1), "%canonical")
				b.ReportMetric(ratio(2), "%as-is")
				b.ReportMetric(float64(gas)/float64(least[2].Nanoseconds()), "gas/ns")
			})
		}
	}
}

// threadTime is the CPU time of the calling thread, to which the benchmark is bound.
func threadTime(b *testing.B) time.Duration {
	runtime.LockOSThread()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Skip(err)
	}
	return time.Duration(t.Nano())
}
