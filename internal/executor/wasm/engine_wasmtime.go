//go:build linux && cgo && (amd64 || arm64)

package wasm

import (
	"errors"
	"fmt"

	"github.com/bytecodealliance/wasmtime-go/v43"

	"github.com/crowdcompute/crowd/internal/executor/wasm/instrument"
)

var engineNames = []string{Wasmtime, Wazero}

var engines = map[string]func() (engine, error){Wasmtime: newWasmtime, Wazero: newWazero}

// engineVersions are part of the cache key: code of another version is never loaded.
var engineVersions = map[string]string{Wasmtime: "wasmtime-43.0.2", Wazero: wazeroVersion}

type wasmtimeEngine struct {
	engine *wasmtime.Engine
	linker *wasmtime.Linker
	now    *wasmtimeRun // what host functions act on
}

type wasmtimeProgram struct {
	e      *wasmtimeEngine
	module *wasmtime.Module
}

// wasmtimeRun is one running module.
type wasmtimeRun struct {
	h       *host
	store   *wasmtime.Store
	linear  *wasmtime.Memory // nil: none exported
	gasLeft *wasmtime.Global
}

func newWasmtime() (engine, error) {
	c := wasmtime.NewConfig()
	c.SetWasmSIMD(true)
	c.SetWasmBulkMemory(true)
	c.SetWasmMultiValue(true)
	c.SetWasmReferenceTypes(true)
	c.SetWasmRelaxedSIMD(false)
	c.SetWasmThreads(false)
	c.SetWasmMemory64(false)
	c.SetWasmMultiMemory(false)
	c.SetWasmTailCall(false)
	c.SetWasmFunctionReferences(false)
	c.SetWasmGC(false)
	c.SetWasmWideArithmetic(false)
	c.SetConsumeFuel(false)
	c.SetEpochInterruption(false)
	c.SetCraneliftOptLevel(wasmtime.OptLevelSpeed)
	c.SetMemoryInitCOWSet(false) // it wants memfd_create, which a worker may not call
	c.SetMaxWasmStack(instrument.StackBytes)
	e := &wasmtimeEngine{engine: wasmtime.NewEngineWithConfig(c)}
	e.linker = wasmtime.NewLinker(e.engine)
	for i := range functions {
		if err := e.define(&functions[i]); err != nil {
			return nil, fmt.Errorf("define %s: %w", functions[i].name, err)
		}
	}
	return e, nil
}

func (e *wasmtimeEngine) define(f *function) error {
	kinds := map[byte]wasmtime.ValKind{typeI32: wasmtime.KindI32, typeI64: wasmtime.KindI64}
	list := func(types []byte) (l []*wasmtime.ValType) {
		for _, t := range types {
			l = append(l, wasmtime.NewValType(kinds[t]))
		}
		return l
	}
	params, results := f.types()
	args := make([]uint64, len(params))
	out := make([]wasmtime.Val, len(results))
	return e.linker.FuncNew(wasiModule, f.name, wasmtime.NewFuncType(list(params), list(results)),
		func(_ *wasmtime.Caller, vals []wasmtime.Val) ([]wasmtime.Val, *wasmtime.Trap) {
			if e.now == nil {
				return nil, wasmtime.NewTrap("host function called before the program has begun")
			}
			for i, v := range vals {
				if params[i] == typeI32 {
					args[i] = uint64(uint32(v.I32()))
				} else {
					args[i] = uint64(v.I64())
				}
			}
			no, goOn := e.now.h.call(f, e.now, args)
			if !goOn {
				return nil, wasmtime.NewTrap("stopped")
			}
			if len(out) > 0 {
				out[0] = wasmtime.ValI32(int32(no))
			}
			return out, nil
		})
}

func (r *wasmtimeRun) memory() []byte {
	if r.linear == nil {
		return nil
	}
	return r.linear.UnsafeData(r.store)
}

func (r *wasmtimeRun) gas() int64 { return r.gasLeft.Get(r.store).I64() }

func (r *wasmtimeRun) setGas(n int64) {
	if err := r.gasLeft.Set(r.store, wasmtime.ValI64(n)); err != nil {
		panic("bug: " + err.Error())
	}
}

func (e *wasmtimeEngine) compile(module []byte) ([]byte, error) {
	if err := wasmtime.ModuleValidate(e.engine, module); err != nil {
		return nil, fmt.Errorf("%w: %w", errModule, err)
	}
	m, err := wasmtime.NewModule(e.engine, module)
	if err != nil { // no memory, or a bound of this compiler
		return nil, err
	}
	defer m.Close()
	for _, x := range m.Exports() {
		if t := x.Type().FuncType(); x.Name() == startExport && t != nil && len(t.Params())+len(t.Results()) == 0 {
			return m.Serialize()
		}
	}
	return nil, errNoStart
}

func (e *wasmtimeEngine) load(code []byte) (program, error) {
	m, err := wasmtime.NewModuleDeserialize(e.engine, code)
	if err != nil {
		return nil, err
	}
	return &wasmtimeProgram{e, m}, nil
}

func (p *wasmtimeProgram) run(h *host, gas int64, memory uint64) (int64, error) {
	store := wasmtime.NewStore(p.e.engine)
	defer store.Close()
	store.Limiter(int64(memory), -1, -1, -1, -1)
	inst, err := p.e.linker.Instantiate(store, p.module)
	if err != nil {
		return gas, wasmtimeError(err) // a segment out of bounds
	}
	r := &wasmtimeRun{h: h, store: store}
	if x := inst.GetExport(store, "memory"); x != nil {
		r.linear = x.Memory()
	}
	r.gasLeft = inst.GetExport(store, instrument.GasGlobal).Global()
	r.setGas(gas)
	p.e.now = r
	refused := inst.GetExport(store, instrument.RefusedGlobal).Global()
	defer func() {
		p.e.now = nil
		h.refused(uint64(refused.Get(store).I64()), memory)
	}()
	for _, name := range []string{instrument.StartExport, startExport} {
		if f := inst.GetFunc(store, name); f != nil {
			if _, err := f.Call(store); err != nil {
				return r.gas(), wasmtimeError(err)
			}
		}
	}
	return r.gas(), nil
}

// wasmtimeError tells the program's traps from what is the engine's own.
func wasmtimeError(err error) error {
	var t *wasmtime.Trap
	if err == nil || !errors.As(err, &t) {
		return err
	}
	if code := t.Code(); code == nil || *code != wasmtime.StackOverflow {
		return &trap{t.Message()}
	}
	return fmt.Errorf("%w: native stack used up", errEngine)
}
