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
	e       *wasmtimeEngine
	module  *wasmtime.Module
	exports map[string]bool
}

// wasmtimeRun is one running module.
type wasmtimeRun struct {
	p       *wasmtimeProgram
	h       *host // during a call
	inst    *wasmtime.Instance
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
	return m.Serialize()
}

func (e *wasmtimeEngine) load(code []byte) (program, error) {
	m, err := wasmtime.NewModuleDeserialize(e.engine, code)
	if err != nil {
		return nil, err
	}
	p := &wasmtimeProgram{e, m, map[string]bool{}}
	for _, x := range m.Exports() {
		p.exports[x.Name()] = true
	}
	return p, nil
}

func (p *wasmtimeProgram) open(memory uint64) (running, error) {
	store := wasmtime.NewStore(p.e.engine)
	store.Limiter(int64(memory), -1, -1, -1, -1)
	inst, err := p.e.linker.Instantiate(store, p.module)
	if err != nil {
		store.Close()
		return nil, wasmtimeError(err) // a segment out of bounds
	}
	r := &wasmtimeRun{p: p, inst: inst, store: store}
	if x := inst.GetExport(store, "memory"); x != nil {
		r.linear = x.Memory()
	}
	r.gasLeft = inst.GetExport(store, instrument.GasGlobal).Global()
	return r, nil
}

func (r *wasmtimeRun) close() { r.store.Close() }

func (r *wasmtimeRun) has(name string) bool { return r.p.exports[name] }

func (r *wasmtimeRun) call(name string, h *host) error {
	r.h, r.p.e.now = h, r
	defer func() { r.h, r.p.e.now = nil, nil }()
	_, err := r.inst.GetFunc(r.store, name).Call(r.store)
	return wasmtimeError(err)
}

func (r *wasmtimeRun) grow(pages uint64) error {
	_, err := r.linear.Grow(r.store, pages)
	return err
}

func (r *wasmtimeRun) global(name string) (uint64, bool) {
	if !r.p.exports[name] {
		return 0, false
	}
	v := r.inst.GetExport(r.store, name).Global().Get(r.store)
	if v.Kind() == wasmtime.KindI32 {
		return uint64(uint32(v.I32())), true
	}
	return uint64(v.I64()), true
}

func (r *wasmtimeRun) setGlobal(name string, value uint64) {
	g := r.inst.GetExport(r.store, name).Global()
	v := wasmtime.ValI64(int64(value))
	if g.Type(r.store).Content().Kind() == wasmtime.KindI32 {
		v = wasmtime.ValI32(int32(value))
	}
	if err := g.Set(r.store, v); err != nil {
		panic("bug: " + err.Error())
	}
}

// wasmtimeError tells the program's traps from what is the engine's own.
func wasmtimeError(err error) error {
	var t *wasmtime.Trap
	if err == nil || !errors.As(err, &t) {
		return err
	}
	if code := t.Code(); code == nil || *code != wasmtime.StackOverflow {
		return &trap{cause(t.Message())}
	}
	return fmt.Errorf("%w: native stack used up", errEngine)
}
