//go:build linux && cgo && (amd64 || arm64)

package wasm

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/bytecodealliance/wasmtime-go/v43"
	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor/executortest"
)

// BenchmarkKernel runs the same C source native, as plain WebAssembly and with
// gas, in turns, and reports the least processor time of each as ratios.
func BenchmarkKernel(b *testing.B) {
	for _, k := range []struct{ name, size string }{{"sha", "48"}, {"mandelbrot", "1000"}, {"blur", "1000"}} {
		b.Run(k.name, func(b *testing.B) {
			wasm, err := os.ReadFile(executortest.Guest(b, "kernels.c"))
			if err != nil {
				b.Fatal(err)
			}
			native := filepath.Join(b.TempDir(), "native")
			if said, err := exec.Command(executortest.Clang(), "-O2", "-o", native, executortest.Source(b, "kernels.c")).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, said)
			}
			instrumented, _, err := prepare(wasm)
			if err != nil {
				b.Fatal(err)
			}
			args := []string{k.name, k.size}
			least := map[string]time.Duration{"native": math.MaxInt64, "plain": math.MaxInt64, "gas": math.MaxInt64}
			plain, gas := timer(b, wasm), timer(b, instrumented)
			for b.Loop() {
				c := exec.Command(native, args...)
				if err := c.Run(); err != nil {
					b.Fatal(err)
				}
				least["native"] = min(least["native"], c.ProcessState.UserTime())
				least["plain"] = min(least["plain"], plain(args))
				least["gas"] = min(least["gas"], gas(args))
			}
			b.ReportMetric(float64(least["plain"])/float64(least["native"]), "plain/native")
			b.ReportMetric(float64(least["gas"])/float64(least["native"]), "gas/native")
			b.ReportMetric(100*(float64(least["gas"])/float64(least["plain"])-1), "gas-%")
			b.ReportMetric(least["native"].Seconds()*1000, "native-ms")
		})
	}
}

// timer compiles a module, with or without gas, for runs in this process.
func timer(b *testing.B, module []byte) func(args []string) time.Duration {
	made, err := newWasmtime()
	if err != nil {
		b.Fatal(err)
	}
	e := made.(*wasmtimeEngine)
	m, err := wasmtime.NewModule(e.engine, module)
	if err != nil {
		b.Fatal(err)
	}
	return func(args []string) time.Duration {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		h := newHost(args, nil, crowd.Hash{}, 1<<20, newTree(nil, false), nil, &memory{}, &memory{})
		store := wasmtime.NewStore(e.engine)
		defer store.Close()
		inst, err := e.linker.Instantiate(store, m)
		if err != nil {
			b.Fatal(err)
		}
		r := &wasmtimeRun{h: h, store: store, linear: inst.GetExport(store, "memory").Memory()}
		if x := inst.GetExport(store, "crowd:gas"); x != nil {
			r.gasLeft = x.Global()
		} else if r.gasLeft, err = wasmtime.NewGlobal(store, wasmtime.NewGlobalType(wasmtime.NewValType(wasmtime.KindI64), true), wasmtime.ValI64(0)); err != nil {
			b.Fatal(err)
		}
		r.setGas(maxGas)
		e.now = r
		defer func() { e.now = nil }()
		before := threadTime(b)
		if _, err := inst.GetFunc(store, startExport).Call(store); err != nil && h.end.status != crowd.Exited {
			b.Fatal(err)
		}
		return threadTime(b) - before
	}
}

func threadTime(b testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
