package instrument

// The price list. One gas is about one simple WebAssembly instruction, a third of a
// nanosecond to one nanosecond of compiled code. Prices follow the latency of the
// instruction in compiled code on common CPUs, rounded up to a power of two; they are part
// of the protocol, so that a change of one is a change of every receipt.
const (
	// costFree: nop, block, loop, else and end make no machine code. A block type
	// with an index, and a branch, cost 1 more per value that they carry.
	costFree = 0
	// costOp: all that is not named below.
	costOp = 1
	// costMemory: stores (address check and cache), globals. costLoad: a load, that may wait for memory.
	costMemory = 2
	costLoad   = 4
	// costConvert: conversions, rounding, float minimum and maximum: sequences of several instructions.
	costConvert = 4
	// costMultiply: float multiplication, and conversion between the floats: a hundred cycles and more where what
	// comes of it is denormal. costFloatDivide: float division and square root, with the same.
	costMultiply    = 8
	costFloatDivide = 16
	// costDivide: integer division and remainder: 10 to 40 cycles.
	costDivide = 8
	// costTable: br_table, table.get, table.set: bounds check, dependent load.
	costTable = 4
	// costRefFunc: ref.func: a call into the engine.
	costRefFunc = 16
	// costCall: saving live values, arguments, and bringing the gas up to date.
	costCall = 8
	// costIndirect: a call plus table bounds and signature check.
	costIndirect = 16
	// costFrame: per 64 bytes of a function's frame, at entry (clearing of locals).
	costFrame = 4
	// costVector: vector instructions; costVectorMany: those that compile to many
	// instructions, and float arithmetic, whose NaNs are made canonical.
	costVector     = 2
	costVectorMany = 4
	// costBulk: memory.copy, fill, init, the same of tables, and drops: a call into the
	// engine. To it comes one gas per 8 bytes, or 4 per table element.
	costBulk         = 16
	bulkBytesShift   = 3
	costTableElement = 4
	// costGrow: memory.grow and table.grow: a system call. To it comes, per 64 KiB page
	// asked for (granted or not), as much as filling it.
	costGrow = 256
	costPage = 65536 >> bulkBytesShift
)

// What a program costs before its first instruction (Info.Code, Info.Begin).
const (
	// costCode: a byte of the instrumented module, which is checked, compiled and read from disk. Ordinary code takes about 700 ns
	// a byte, once on each machine that keeps it; this is the share of one of many runs.
	costCode = 5
	// effortFree is how many nanoseconds of compiling (effort) a byte may take at that price. What a module
	// takes beyond it no compiler makes: it costs what it takes, one gas for each nanosecond.
	// A small module may take as long as one that has effortSpare bytes more.
	effortFree  = 3000
	effortSpare = 16 << 10
	// costBegin is what an instance costs beside its memory, tables and segments.
	costBegin = 10_000
)
