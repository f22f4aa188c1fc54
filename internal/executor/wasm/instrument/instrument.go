// Package instrument checks a WebAssembly module and rewrites it so that any engine runs it
// alike: it counts gas, bounds call depth and hides NaN bits. It runs nothing and does no I/O.
//
// # Gas
//
// A function keeps the gas left in a local and each basic block starts by subtracting its
// price (gas.go). The local is written to the global GasGlobal before calls, at loop heads,
// before an explicit unreachable and at the function's exit, and read back after calls.
// Gas is tested ahead of what it pays for: at function entry, at loop heads, before calls out of
// the module and before operations on bulk memory, whose price grows with their operand.
// Between two tests lies at most one acyclic path per active function, bounded by
// uncheckedGas. So a run is out of gas if, and only if, the global is negative when it has
// ended, whether it trapped or returned; the host then drops its results. Any other trap
// leaves a global that is not negative, exact but for the acyclic path that trapped.
//
// # Call depth
//
// DepthGlobal counts down in units of 64 bytes of estimated frame: 64 bytes for the call, 8
// (v128: 16) for each parameter, local and result, 8 for each operand beyond eight. Functions that call nothing and are small
// are free. A run whose depth global is negative exceeded its depth. The default is such that an
// engine with StackBytes of stack has twice the estimate, for what an optimising compiler adds.
// A program can be contrived to need more (values kept alive across calls without a local), so
// an engine's own stack overflow is never a result of the program: it is the host's failure.
//
// # NaN bits
//
// WebAssembly leaves the sign and payload of a NaN that arithmetic makes to the CPU.
// Everything else about a float is deterministic, so it suffices that those bits never leave the floats:
// they can be seen only through stores, reinterpretation, the sign operand of copysign, entry
// into a v128 (splat, replace_lane), and calls to the host. Canonical replaces a NaN by the canonical one at
// each of these, and refuses imports with float parameters. A v128 has no lane type, hence float
// arithmetic on lanes is followed by canonicalisation at once, unless the next instruction takes only "NaN or not"
// from it. Locals, parameters, globals and results keep their bits; a host that reads a float result
// or global of the guest must not look at a NaN's bits. Values whose bits are the same everywhere
// (just loaded, constants, converted from integers) are stored as they are.
//
// # What is accepted
//
// The MVP with sign extension, saturating conversion, bulk memory, reference types, multiple values and 128-bit
// vectors. Validation is complete (stack.go) and ours is the verdict, since engines are not of one mind: what is
// accepted here, wasmtime and wazero accept, before and after. A few valid forms are refused because wazero 1.12 runs
// them differently or not at all (opcodes in a longer form than needed, memory.init and table.init
// of active segments), or because they could only fail (active segments that do not fit).
// A module that takes a compiler too long is refused (effort.go), and one that takes longer than its size explains costs more.
// All custom sections are dropped (names, debug data): they cost transfer and compile time and mean
// nothing to a run. Tables may not grow past MaxTable entries. A start function is taken
// out and exported as StartExport, since the host must set the gas first.
package instrument

// Names that the instrumented module exports; a guest that exports one of them is refused.
const (
	// GasGlobal is a mutable i64: gas left. It starts at 0, so that nothing runs unpaid.
	// The host sets it before the run and may lower it from host functions.
	GasGlobal = "crowd:gas"
	// DepthGlobal is a mutable i32: call depth left, in units of 64 bytes of frame.
	// It starts at Options.CallDepth.
	DepthGlobal = "crowd:depth"
	// RefusedGlobal is a mutable i64: the fewest pages that a memory.grow asked the memory to have and did not get,
	// though the module's own maximum allows them; NeverRefused where there was none. Only the host knows
	// whether it meant to refuse them, or the machine had no memory, which the program must not be seen to see.
	RefusedGlobal = "crowd:refused"
	// SavedPrefix and a number, from 0 on without a gap, name mutable globals of i32 and i64: with the memory they are all
	// that a run changes of its module. There are none where there is more: tables or segments that
	// instructions change, globals of other types, or more than maxSaved.
	SavedPrefix = "crowd:saved:"
	// StartExport is the module's start function, () -> (), if it had one (Info.HasStart).
	// The host calls it before anything else.
	StartExport = "crowd:start"
)

// NeverRefused is the initial value of RefusedGlobal, more than any memory has pages.
const NeverRefused = 1 << 32

// StackBytes is the stack that an engine needs for the default call depth. It is also the most
// that wasmtime's Go package can be given (SetMaxWasmStack panics above its async stack, 2 MiB).
const StackBytes = 2 << 20

// MaxTable bounds the entries of one table, and of all tables at the start.
const MaxTable = 1 << 20

// Bounds on a module. Each lies at or below those of the engines (wasmparser, wazero, browsers).
const (
	maxTypes     = 100_000
	maxImports   = 10_000
	maxFunctions = 250_000
	maxTables    = 16
	maxGlobals   = 100_000
	maxExports   = 100_000
	maxSegments  = 100_000
	maxName      = 100_000
	maxValues    = 1_000     // parameters, or results, of a type
	maxLocals    = 49_000    // of a function, parameters included; engines stop at 50,000
	maxBodyOut   = 7_654_321 // bytes of an instrumented function: the engines' own bound
	maxNesting   = 1 << 16   // Go nests a block for each point where a function can resume
	maxLabels    = 1 << 16   // of a br_table
	maxSaved     = 64        // mutable globals of the guest, of a module whose state can be saved
	maxPages     = 1 << 16
	maxWork      = 1 << 28 // values moved while validating, beyond two per byte: a second at most
	// uncheckedGas bounds the static gas of a function's blocks that do not test the gas.
	uncheckedGas = 1 << 16
	frameUnit    = 64
)

// NaNMode says what becomes of NaN bits.
type NaNMode uint8

const (
	// Canonical makes NaNs canonical wherever their bits can be seen. It breaks guests
	// that keep data in the bits of NaNs made by arithmetic.
	Canonical NaNMode = iota
	// AsIs leaves them to the engine and CPU: results may then differ between machines.
	AsIs
)

// Options bound and direct the instrumentation. The zero value works.
type Options struct {
	// MaxModule bounds the module, in bytes; the output may have twice as many. Default 64 MiB.
	MaxModule int
	// CallDepth is the initial value of DepthGlobal, at most 2^31-1. Default 16,384, that is 1 MiB of estimated frames.
	CallDepth uint32
	// NaN is Canonical by default.
	NaN NaNMode
	// Imports is asked for each function import, with its value types; its error refuses the module.
	// Nil allows any. Imports other than functions are always refused.
	Imports func(module, name string, params, results []byte) error
}

func (o Options) withDefaults() Options {
	if o.MaxModule == 0 {
		o.MaxModule = 64 << 20
	}
	if o.CallDepth == 0 {
		o.CallDepth = 16_384
	}
	o.CallDepth = min(o.CallDepth, 1<<31-1)
	return o
}

// Import is one imported function.
type Import struct {
	Module, Name    string
	Params, Results []byte // value types as in the binary format
}

// Export is one export of the guest. Kind is 0 function, 1 table, 2 memory, 3 global.
type Export struct {
	Name  string
	Kind  byte
	Index uint32
	Plain bool // a function without parameters and results
}

// Info tells what the module is.
type Info struct {
	MinPages, MaxPages uint32 // of 64 KiB; MaxPages is 65,536 where the module sets none; 0 and 0 without memory
	HasMemory          bool
	HasFloat           bool
	HasStart           bool // the host must call StartExport
	Functions          int  // imported ones not counted
	Imports            []Import
	Exports            []Export // the guest's own

	Code   uint64 // gas of compiling the module, or of finding that done: once, for however many runs
	Begin  uint64 // gas of each instance: its memory, tables and segments
	Effort uint64 // nanoseconds that compiling takes, about
}

// Module checks wasm and returns its instrumented form. The same bytes and options give the same
// output. It does not change wasm. An error is always an *InvalidError.
func Module(wasm []byte, o Options) (out []byte, info Info, err error) {
	m := module{Options: o.withDefaults(), reader: reader{b: wasm}}
	out = m.rewrite()
	if m.err != nil {
		return nil, Info{}, m.err
	}
	return out, m.info, nil
}
