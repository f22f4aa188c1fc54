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
	// costMemory: loads and stores (address check and cache), globals.
	costMemory = 2
	// costConvert: conversions, rounding, float minimum and maximum: sequences of several instructions.
	costConvert = 4
	// costDivide: integer division and remainder, float division and square root: 10 to 40 cycles.
	costDivide = 8
	// costTable: br_table, table.get, table.set, ref.func: bounds check, dependent load.
	costTable = 4
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
