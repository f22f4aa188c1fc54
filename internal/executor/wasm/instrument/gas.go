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

// immediate says what follows an opcode.
type immediate uint8

const (
	illegal immediate = iota
	plain             // nothing
	blockType
	label
	labels // br_table
	local
	global
	function
	indirect // type, table
	table
	twoTables
	segmentTable // element segment, table
	segment      // element or data segment
	segmentZero  // data segment, memory 0
	access       // alignment, offset
	accessLane   // alignment, offset, lane
	zero         // memory 0
	zeroZero     // memory 0, memory 0
	const32      // i32.const
	const64      // i64.const
	bytes1
	bytes4
	bytes8
	bytes16
	reference // heap type of ref.null
	types     // select t
)

// How an instruction meets NaN bits.
const (
	seesF32   uint8 = 1 << iota // shows the bits of its f32 operand
	seesF64                     // shows the bits of its f64 operand
	makesF32                    // its v128 result has f32 lanes whose NaN bits are the CPU's choice
	makesF64                    // same, f64 lanes
	takesF32                    // its last operand's f32 lanes count only as NaN or not NaN
	takesF64                    // same, f64 lanes
	knownBits                   // its scalar float result has the same bits everywhere
	isFloat                     // a float instruction
)

type opcode struct {
	imm  immediate
	cost uint8 // costGrow does not fit and is added where memory.grow is met
	nan  uint8
}

// Opcodes that the instrumenter treats by name.
const (
	opUnreachable = 0x00
	opNop         = 0x01
	opBlock       = 0x02
	opLoop        = 0x03
	opIf          = 0x04
	opElse        = 0x05
	opEnd         = 0x0b
	opBr          = 0x0c
	opBrIf        = 0x0d
	opBrTable     = 0x0e
	opReturn      = 0x0f
	opCall        = 0x10
	opIndirect    = 0x11
	opSelect      = 0x1b
	opLocalGet    = 0x20
	opLocalSet    = 0x21
	opLocalTee    = 0x22
	opGlobalGet   = 0x23
	opGlobalSet   = 0x24
	opMemoryGrow  = 0x40
	opI32Const    = 0x41
	opI64Const    = 0x42
	opF32Const    = 0x43
	opF64Const    = 0x44
	opI32LtS      = 0x48
	opI64LtS      = 0x53
	opF32Ge       = 0x60
	opF64Ge       = 0x66
	opI32Add      = 0x6a
	opI32Sub      = 0x6b
	opI64Sub      = 0x7d
	opI64Mul      = 0x7e
	opI64ShrU     = 0x88
	opI64ExtendU  = 0xad
	opRefNull     = 0xd0
	opRefFunc     = 0xd2
	opBulk        = 0xfc
	opVector      = 0xfd

	bulkMemoryInit = 8
	bulkMemoryCopy = 10
	bulkMemoryFill = 11
	bulkTableInit  = 12
	bulkTableCopy  = 14
	bulkTableGrow  = 15
	bulkTableFill  = 17

	vectorConst     = 12
	vectorF32Eq     = 65
	vectorF64Eq     = 71
	vectorBitselect = 82
)

var (
	opcodes = oneByte()
	bulk    = bulkOpcodes()
	vector  = vectorOpcodes()
)

func oneByte() (t [256]opcode) {
	span := func(from, to int, o opcode) {
		for i := from; i <= to; i++ {
			t[i] = o
		}
	}
	// control, locals, globals, tables
	t[opUnreachable] = opcode{plain, costOp, 0}
	t[opNop] = opcode{plain, costFree, 0}
	t[opBlock] = opcode{blockType, costFree, 0}
	t[opLoop] = opcode{blockType, costFree, 0}
	t[opIf] = opcode{blockType, costOp, 0}
	t[opElse] = opcode{plain, costFree, 0}
	t[opEnd] = opcode{plain, costFree, 0}
	t[opBr] = opcode{label, costOp, 0}
	t[opBrIf] = opcode{label, costOp, 0}
	t[opBrTable] = opcode{labels, costTable, 0}
	t[opReturn] = opcode{plain, costOp, 0}
	t[opCall] = opcode{function, costCall, 0}
	t[opIndirect] = opcode{indirect, costIndirect, 0}
	t[0x1a] = opcode{plain, costOp, 0} // drop
	t[opSelect] = opcode{plain, costOp, 0}
	t[0x1c] = opcode{types, costOp, 0} // select t
	span(opLocalGet, opLocalTee, opcode{local, costOp, 0})
	span(opGlobalGet, opGlobalSet, opcode{global, costMemory, 0})
	span(0x25, 0x26, opcode{table, costTable, 0})
	// memory
	span(0x28, 0x3e, opcode{access, costMemory, 0})
	t[0x2a] = opcode{access, costMemory, isFloat | knownBits} // f32.load
	t[0x2b] = opcode{access, costMemory, isFloat | knownBits} // f64.load
	t[0x38] = opcode{access, costMemory, isFloat | seesF32}   // f32.store
	t[0x39] = opcode{access, costMemory, isFloat | seesF64}   // f64.store
	t[0x3f] = opcode{zero, costMemory, 0}                     // memory.size
	t[opMemoryGrow] = opcode{zero, 0, 0}
	// constants
	t[opI32Const] = opcode{const32, costOp, 0}
	t[opI64Const] = opcode{const64, costOp, 0}
	t[opF32Const] = opcode{bytes4, costOp, isFloat | knownBits}
	t[opF64Const] = opcode{bytes8, costOp, isFloat | knownBits}
	// integers and comparisons
	span(0x45, 0x5a, opcode{plain, costOp, 0})
	span(0x5b, 0x66, opcode{plain, costOp, isFloat})
	span(0x67, 0x8a, opcode{plain, costOp, 0})
	span(0x6d, 0x70, opcode{plain, costDivide, 0}) // i32 div, rem
	span(0x7f, 0x82, opcode{plain, costDivide, 0}) // i64 div, rem
	// floats
	for _, base := range []int{0x8b, 0x99} {
		span(base, base+13, opcode{plain, costOp, isFloat})
		span(base+2, base+5, opcode{plain, costConvert, isFloat}) // ceil, floor, trunc, nearest
		t[base+6] = opcode{plain, costDivide, isFloat}            // sqrt
		t[base+10] = opcode{plain, costDivide, isFloat}           // div
		span(base+11, base+12, opcode{plain, costConvert, isFloat})
	}
	t[0x98].nan |= seesF32 // f32.copysign: the sign of its last operand
	t[0xa6].nan |= seesF64 // f64.copysign
	// conversions
	t[0xa7] = opcode{plain, costOp, 0} // i32.wrap_i64
	span(0xa8, 0xab, opcode{plain, costConvert, isFloat})
	span(0xac, 0xad, opcode{plain, costOp, 0}) // i64.extend_i32
	span(0xae, 0xb1, opcode{plain, costConvert, isFloat})
	span(0xb2, 0xbb, opcode{plain, costConvert, isFloat | knownBits})
	t[0xb6].nan = isFloat                                        // f32.demote_f64
	t[0xbb].nan = isFloat                                        // f64.promote_f32
	t[0xbc] = opcode{plain, costOp, isFloat | seesF32}           // i32.reinterpret_f32
	t[0xbd] = opcode{plain, costOp, isFloat | seesF64}           // i64.reinterpret_f64
	span(0xbe, 0xbf, opcode{plain, costOp, isFloat | knownBits}) // fNN.reinterpret_iNN
	span(0xc0, 0xc4, opcode{plain, costOp, 0})                   // sign extension
	// references
	t[opRefNull] = opcode{reference, costOp, 0}
	t[0xd1] = opcode{plain, costOp, 0} // ref.is_null
	t[opRefFunc] = opcode{function, costTable, 0}
	return t
}

func bulkOpcodes() (t [18]opcode) {
	for i := range 8 { // saturating float to integer
		t[i] = opcode{plain, costConvert, isFloat}
	}
	t[bulkMemoryInit] = opcode{segmentZero, costBulk, 0}
	t[9] = opcode{segment, costBulk, 0} // data.drop
	t[bulkMemoryCopy] = opcode{zeroZero, costBulk, 0}
	t[bulkMemoryFill] = opcode{zero, costBulk, 0}
	t[bulkTableInit] = opcode{segmentTable, costBulk, 0}
	t[13] = opcode{segment, costBulk, 0} // elem.drop
	t[bulkTableCopy] = opcode{twoTables, costBulk, 0}
	t[bulkTableGrow] = opcode{table, 0, 0}
	t[16] = opcode{table, costMemory, 0} // table.size
	t[bulkTableFill] = opcode{table, costBulk, 0}
	return t
}

func vectorOpcodes() (t [256]opcode) {
	span := func(from, to int, o opcode) {
		for i := from; i <= to; i++ {
			t[i] = o
		}
	}
	mark := func(nan uint8, cost uint8, at ...int) {
		for _, i := range at {
			t[i].nan |= nan | isFloat
			t[i].cost = cost
		}
	}
	span(0, 255, opcode{plain, costVector, 0})
	span(0, 11, opcode{access, costVector, 0})
	span(12, 13, opcode{bytes16, costVector, 0})    // const, shuffle
	span(21, 34, opcode{bytes1, costVector, 0})     // extract and replace lane
	span(84, 91, opcode{accessLane, costVector, 0}) // load and store lane
	span(92, 93, opcode{access, costVector, 0})     // load with zeros
	for _, i := range []int{154, 162, 165, 166, 175, 176, 178, 179, 180, 187, 194, 197, 198, 207, 208, 210, 211, 212, 226, 238} {
		t[i] = opcode{}
	}
	// Many instructions each on x86: popcount, shifts of bytes, 64-bit multiplication,
	// arithmetic shift and minimum of 64-bit lanes, saturating conversions.
	for _, i := range []int{98, 107, 108, 109, 126, 127, 204, 213} {
		t[i].cost = costVectorMany
	}
	span(248, 255, opcode{plain, costVectorMany, isFloat})

	mark(seesF32, costVector, 19, 32)   // f32x4.splat, replace_lane
	mark(seesF64, costVector, 20, 34)   // f64x2.splat, replace_lane
	mark(knownBits, costVector, 31, 33) // extract_lane
	for i := 65; i <= 70; i++ {         // comparisons
		mark(takesF32, costVector, i)
		mark(takesF64, costVector, i+6)
	}
	mark(makesF32|takesF32, costVectorMany, 103, 104, 105, 106, 228, 229, 230, 232, 233) // rounding, add, sub, mul, min, max
	mark(makesF64|takesF64, costVectorMany, 116, 117, 122, 148, 240, 241, 242, 244, 245)
	mark(makesF32|takesF32, 2*costDivide, 227, 231) // sqrt, div
	mark(makesF64|takesF64, 2*costDivide, 239, 243)
	mark(makesF32|takesF64, costVectorMany, 94) // f32x4.demote_f64x2_zero
	mark(makesF64|takesF32, costVectorMany, 95) // f64x2.promote_low_f32x4
	mark(takesF32, costVectorMany, 248, 249)    // i32x4.trunc_sat_f32x4
	mark(takesF64, costVectorMany, 252, 253)    // i32x4.trunc_sat_f64x2_zero
	// abs, neg, pmin, pmax move bits as they are: same bits in, same bits out.
	mark(0, costVector, 224, 225, 234, 235, 236, 237, 246, 247)
	return t
}
