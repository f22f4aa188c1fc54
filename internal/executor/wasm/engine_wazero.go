//go:build linux

package wasm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/crowdcompute/crowd/internal/executor/wasm/instrument"
)

const (
	wazeroVersion  = "wazero-1.12.0"
	wazeroFeatures = api.CoreFeaturesV2
)

// wazeroEngine has no code that could be kept: its cache wants a folder, which a
// worker does not have. So load compiles, once per worker.
type wazeroEngine struct {
	runtime wazero.Runtime
	now     *wazeroRun
}

type wazeroProgram struct {
	e      *wazeroEngine
	module wazero.CompiledModule
}

// wazeroRun is one running module.
type wazeroRun struct {
	e       *wazeroEngine
	h       *host // during a call
	module  api.Module
	gasLeft api.MutableGlobal
	linear  *linear
	exports bool // its memory
}

var errStopped = errors.New("stopped")

func newWazero() (engine, error) {
	ctx := context.Background()
	e := &wazeroEngine{runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(wazeroFeatures))}
	b := e.runtime.NewHostModuleBuilder(wasiModule)
	for i := range functions {
		f := &functions[i]
		params, results := f.types()
		args := make([]uint64, len(params))
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) {
			if e.now == nil {
				panic(errStopped)
			}
			for i, t := range params {
				args[i] = stack[i]
				if t == typeI32 {
					args[i] = uint64(uint32(stack[i]))
				}
			}
			no, goOn := e.now.h.call(f, e.now, args)
			if !goOn {
				panic(errStopped) // how wazero unwinds a program
			}
			if len(results) > 0 {
				stack[0] = uint64(no)
			}
		}), params, results).Export(f.name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return nil, fmt.Errorf("host functions: %w", err)
	}
	return e, nil
}

func (r *wazeroRun) memory() []byte {
	if !r.exports {
		return nil
	}
	return r.linear.b
}

func (r *wazeroRun) gas() int64     { return int64(r.gasLeft.Get()) }
func (r *wazeroRun) setGas(n int64) { r.gasLeft.Set(uint64(n)) }

// compile only validates, which is quickest with the interpreter.
func (e *wazeroEngine) compile(module []byte) ([]byte, error) {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(wazeroFeatures))
	defer r.Close(ctx)
	if _, err := r.CompileModule(ctx, module); err != nil {
		return nil, fmt.Errorf("%w: %w", errModule, err)
	}
	return module, nil
}

func (e *wazeroEngine) load(code []byte) (program, error) {
	m, err := e.runtime.CompileModule(context.Background(), code)
	if err != nil {
		return nil, err
	}
	return &wazeroProgram{e, m}, nil
}

func (p *wazeroProgram) open(memory uint64) (running, error) {
	mem := &linear{limit: memory}
	ctx := experimental.WithMemoryAllocator(context.Background(), experimental.MemoryAllocatorFunc(
		func(_, most uint64) experimental.LinearMemory {
			mem.reserve(most)
			return mem
		}))
	m, err := p.e.runtime.InstantiateModule(ctx, p.module, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		mem.Free()
		return nil, &trap{err.Error()} // a segment out of bounds: all else has been checked
	}
	r := &wazeroRun{e: p.e, module: m, linear: mem, exports: m.ExportedMemory("memory") != nil}
	r.gasLeft = m.ExportedGlobal(instrument.GasGlobal).(api.MutableGlobal)
	return r, nil
}

func (r *wazeroRun) close() { r.module.Close(context.Background()) }

func (r *wazeroRun) has(name string) bool {
	_, is := r.module.ExportedFunctionDefinitions()[name]
	return is
}

func (r *wazeroRun) call(name string, h *host) error {
	r.h, r.e.now = h, r
	defer func() { r.h, r.e.now = nil, nil }()
	_, err := r.module.ExportedFunction(name).Call(context.Background())
	return wazeroError(err)
}

func (r *wazeroRun) grow(pages uint64) error {
	if _, did := r.module.ExportedMemory("memory").Grow(uint32(pages)); !did {
		return fmt.Errorf("%w: no memory", errEngine)
	}
	return nil
}

func (r *wazeroRun) global(name string) (uint64, bool) {
	g := r.module.ExportedGlobal(name)
	if g == nil {
		return 0, false
	}
	return g.Get(), true
}

func (r *wazeroRun) setGlobal(name string, value uint64) {
	r.module.ExportedGlobal(name).(api.MutableGlobal).Set(value)
}

// wazeroError tells the program's traps from what is the engine's own. Traps are
// of an internal type; their text is what can be known of them.
func wazeroError(err error) error {
	if err == nil || errors.Is(err, errStopped) {
		return err
	}
	text, is := strings.CutPrefix(err.Error(), "wasm error: ")
	text, _, _ = strings.Cut(text, "\n")
	switch {
	case !is:
		return err
	case strings.Contains(text, "stack overflow"):
		return fmt.Errorf("%w: native stack used up", errEngine)
	}
	return &trap{text}
}
