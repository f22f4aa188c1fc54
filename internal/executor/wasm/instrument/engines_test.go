package instrument

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v43"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// outcome is all that must be the same on every engine.
type outcome struct {
	trap    string // "" when it returned
	gas     int64
	depth   int32
	refused int64
	results string
	memory  [32]byte // of all pages
	stdout  string
}

func (o outcome) String() string {
	return fmt.Sprintf("trap %q gas %d depth %d results %s memory %x stdout %q", o.trap, o.gas, o.depth, o.results, o.memory[:4], o.stdout)
}

// host is a small deterministic WASI: the same Go code behind both engines.
type host struct {
	stdout bytes.Buffer
	args   []string
	random uint64
}

var errExit = errors.New("exit")

// call answers one import; mem is the guest's memory.
func (h *host) call(name string, a []uint64, mem []byte) (uint32, error) {
	put32 := func(at uint64, v uint32) { binary.LittleEndian.PutUint32(mem[uint32(at):], v) }
	switch name {
	case "args_sizes_get":
		n := 0
		for _, s := range h.args {
			n += len(s) + 1
		}
		put32(a[0], uint32(len(h.args)))
		put32(a[1], uint32(n))
	case "args_get":
		at := uint32(a[1])
		for i, s := range h.args {
			put32(a[0]+uint64(4*i), at)
			at += uint32(copy(mem[at:], s+"\x00"))
		}
	case "environ_sizes_get":
		put32(a[0], 0)
		put32(a[1], 0)
	case "environ_get", "sched_yield", "fd_close", "fd_fdstat_set_flags":
	case "clock_time_get":
		binary.LittleEndian.PutUint64(mem[uint32(a[2]):], 1e18)
	case "clock_res_get":
		binary.LittleEndian.PutUint64(mem[uint32(a[1]):], 1)
	case "random_get":
		b := mem[uint32(a[0]):][:uint32(a[1])]
		for i := range b {
			h.random = h.random*6364136223846793005 + 1442695040888963407
			b[i] = byte(h.random >> 56)
		}
	case "fd_fdstat_get":
		if a[0] > 2 {
			return 8, nil
		}
		clear(mem[uint32(a[1]):][:24])
		mem[uint32(a[1])] = 2
		binary.LittleEndian.PutUint64(mem[uint32(a[1])+8:], 1<<6)
	case "fd_write":
		var n uint32
		for i := range uint32(a[2]) {
			v := mem[uint32(a[1])+8*i:]
			p, l := binary.LittleEndian.Uint32(v), binary.LittleEndian.Uint32(v[4:])
			h.stdout.Write(mem[p:][:l])
			n += l
		}
		put32(a[3], n)
	case "fd_read":
		put32(a[3], 0)
	case "proc_exit":
		return 0, errExit
	case "nop":
	default:
		return 8, nil // EBADF: nothing else is there
	}
	return 0, nil
}

func digest(mem []byte) [32]byte { return sha256.Sum256(mem) }

var wasmtimeEngine = func() *wasmtime.Engine {
	c := wasmtime.NewConfig()
	c.SetMaxWasmStack(StackBytes)
	c.SetWasmRelaxedSIMD(false)
	c.SetWasmThreads(false)
	c.SetWasmTailCall(false)
	c.SetWasmMultiMemory(false)
	c.SetWasmMemory64(false)
	return wasmtime.NewEngineWithConfig(c)
}()

var trapNames = map[wasmtime.TrapCode]string{
	wasmtime.StackOverflow:          "stack overflow",
	wasmtime.MemoryOutOfBounds:      "out of bounds memory access",
	wasmtime.TableOutOfBounds:       "table",
	wasmtime.IndirectCallToNull:     "table",
	wasmtime.BadSignature:           "indirect call type mismatch",
	wasmtime.IntegerOverflow:        "integer overflow",
	wasmtime.IntegerDivisionByZero:  "integer divide by zero",
	wasmtime.BadConversionToInteger: "invalid conversion to integer",
	wasmtime.UnreachableCodeReached: "unreachable",
}

func runWasmtime(t testing.TB, wasm []byte, gas int64, export string, args ...uint64) (o outcome) {
	t.Helper()
	if !bytes.Equal(wasm, compiledWasm) {
		mod, err := wasmtime.NewModule(wasmtimeEngine, wasm)
		if err != nil {
			t.Fatalf("wasmtime refuses: %v", err)
		}
		compiledWasm, compiledModule = wasm, mod
	}
	return runWasmtimeModule(t, compiledModule, gas, export, args...)
}

// The last module compiled: many tests run one with many budgets.
var (
	compiledWasm   []byte
	compiledModule *wasmtime.Module
)

func runWasmtimeModule(t testing.TB, mod *wasmtime.Module, gas int64, export string, args ...uint64) (o outcome) {
	t.Helper()
	h := &host{args: []string{"guest"}}
	store := wasmtime.NewStore(wasmtimeEngine)
	defer store.Close()
	linker := wasmtime.NewLinker(wasmtimeEngine)
	linker.AllowShadowing(true) // Go's linker imports some functions twice
	for _, i := range mod.Imports() {
		name, ft := *i.Name(), i.Type().FuncType()
		err := linker.FuncNew(i.Module(), name, ft, func(c *wasmtime.Caller, v []wasmtime.Val) ([]wasmtime.Val, *wasmtime.Trap) {
			var mem []byte
			if e := c.GetExport("memory"); e != nil {
				mem = e.Memory().UnsafeData(c)
			}
			a := make([]uint64, len(v))
			for i := range v {
				if v[i].Kind() == wasmtime.KindI64 {
					a[i] = uint64(v[i].I64())
				} else {
					a[i] = uint64(uint32(v[i].I32()))
				}
			}
			r, err := h.call(name, a, mem)
			if err != nil {
				return nil, wasmtime.NewTrap(err.Error())
			}
			if len(ft.Results()) == 0 {
				return nil, nil
			}
			return []wasmtime.Val{wasmtime.ValI32(int32(r))}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	inst, err := linker.Instantiate(store, mod)
	if err != nil {
		return outcome{trap: "instantiate"}
	}
	g := inst.GetExport(store, GasGlobal)
	call := func(name string, args ...uint64) {
		f := inst.GetFunc(store, name)
		in := make([]any, len(args))
		for i, p := range f.Type(store).Params() {
			switch p.Kind() {
			case wasmtime.KindI64:
				in[i] = int64(args[i])
			default:
				in[i] = int32(args[i])
			}
		}
		v, err := f.Call(store, in...)
		if err == nil {
			switch v := v.(type) {
			case nil:
			case []wasmtime.Val:
				for _, v := range v {
					o.results += fmt.Sprint(v.Get(), " ")
				}
			default:
				o.results = fmt.Sprint(v, " ")
			}
			return
		}
		o.trap = "other: " + err.Error()
		if strings.HasSuffix(strings.TrimSpace(o.trap), "\n    "+errExit.Error()) {
			o.trap = errExit.Error()
		}
		var trap *wasmtime.Trap
		if errors.As(err, &trap) {
			if code := trap.Code(); code != nil {
				o.trap = trapNames[*code]
			}
		}
	}
	if g != nil {
		if err := g.Global().Set(store, wasmtime.ValI64(gas)); err != nil {
			t.Fatal(err)
		}
		if inst.GetExport(store, StartExport) != nil {
			call(StartExport)
		}
	}
	if o.trap == "" {
		call(export, args...)
	}
	if g != nil {
		o.gas = g.Global().Get(store).I64()
		o.depth = inst.GetExport(store, DepthGlobal).Global().Get(store).I32()
		o.refused = inst.GetExport(store, RefusedGlobal).Global().Get(store).I64()
	}
	if e := inst.GetExport(store, "memory"); e != nil {
		o.memory = digest(e.Memory().UnsafeData(store))
	}
	o.stdout = h.stdout.String()
	return o
}

var wazeroCache = wazero.NewCompilationCache()

func newWazero() wazero.Runtime {
	return wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfig().WithCompilationCache(wazeroCache))
}

func runWazero(t testing.TB, wasm []byte, gas int64, export string, args ...uint64) (o outcome) {
	t.Helper()
	ctx := context.Background()
	r := newWazero()
	defer r.Close(ctx)
	mod, err := r.CompileModule(ctx, wasm)
	if err != nil {
		t.Fatalf("wazero refuses: %v", err)
	}
	h := &host{args: []string{"guest"}}
	builders := map[string]wazero.HostModuleBuilder{}
	seen := map[string]bool{} // Go's linker imports some functions twice
	for _, d := range mod.ImportedFunctions() {
		module, name, _ := d.Import()
		if seen[module+" "+name] {
			continue
		}
		seen[module+" "+name] = true
		b := builders[module]
		if b == nil {
			b = r.NewHostModuleBuilder(module)
			builders[module] = b
		}
		n, m := len(d.ParamTypes()), len(d.ResultTypes())
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
			var mem []byte
			if m := mod.ExportedMemory("memory"); m != nil {
				mem, _ = m.Read(0, m.Size())
			}
			for i, k := range d.ParamTypes() {
				if k == api.ValueTypeI32 { // the upper half of the word is not defined
					stack[i] = uint64(uint32(stack[i]))
				}
			}
			v, err := h.call(name, stack[:n], mem)
			if err != nil {
				panic(err)
			}
			if m > 0 {
				stack[0] = uint64(v)
			}
		}), d.ParamTypes(), d.ResultTypes()).Export(name)
	}
	for _, b := range builders {
		if _, err := b.Instantiate(ctx); err != nil {
			t.Fatal(err)
		}
	}
	inst, err := r.InstantiateModule(ctx, mod, wazero.NewModuleConfig().WithStartFunctions().WithName(""))
	if err != nil {
		return outcome{trap: "instantiate"}
	}
	g := inst.ExportedGlobal(GasGlobal)
	call := func(name string, args ...uint64) {
		f := inst.ExportedFunction(name)
		v, err := f.Call(ctx, args...)
		if err == nil {
			for i, k := range f.Definition().ResultTypes() {
				if k == api.ValueTypeI32 {
					o.results += fmt.Sprint(int32(v[i]), " ")
				} else {
					o.results += fmt.Sprint(int64(v[i]), " ")
				}
			}
			return
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "wasm error: "), "\n")
		o.trap = text
		switch {
		case errors.Is(err, errExit):
			o.trap = "exit"
		case text == "invalid table access":
			o.trap = "table"
		case text == "integer divide by zero", text == "integer overflow", text == "unreachable", text == "stack overflow",
			text == "out of bounds memory access", text == "invalid conversion to integer", text == "indirect call type mismatch":
		default:
			o.trap = "other: " + text
		}
	}
	if g != nil {
		g.(api.MutableGlobal).Set(uint64(gas))
		if inst.ExportedFunction(StartExport) != nil {
			call(StartExport)
		}
	}
	if o.trap == "" {
		call(export, args...)
	}
	if g != nil {
		o.gas = int64(g.Get())
		o.depth = int32(inst.ExportedGlobal(DepthGlobal).Get())
		o.refused = int64(inst.ExportedGlobal(RefusedGlobal).Get())
	}
	if m := inst.ExportedMemory("memory"); m != nil {
		b, _ := m.Read(0, m.Size())
		o.memory = digest(b)
	}
	o.stdout = h.stdout.String()
	return o
}

// wat assembles text.
func wat(t testing.TB, text string) []byte {
	t.Helper()
	b, err := wasmtime.Wat2Wasm(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func instrumented(t testing.TB, wasm []byte, o Options) []byte {
	t.Helper()
	out, _, err := Module(wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// both runs wasm on both engines, which must agree in everything.
func both(t testing.TB, wasm []byte, gas int64, export string, args ...uint64) outcome {
	t.Helper()
	a := runWasmtime(t, wasm, gas, export, args...)
	if b := runWazero(t, wasm, gas, export, args...); a != b {
		t.Errorf("gas %d: engines differ:\nwasmtime %v\nwazero   %v", gas, a, b)
	}
	return a
}
