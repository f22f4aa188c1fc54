package instrument

import "strings"

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
	elementSegment
	dataSegment
	segmentZero // data segment, memory 0
	access      // alignment, offset
	accessLane  // alignment, offset, lane
	zero        // memory 0
	zeroZero    // memory 0, memory 0
	const32     // i32.const
	const64     // i64.const
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
	imm     immediate
	cost    uint8 // costGrow does not fit and is added where growth is met
	nan     uint8
	limit   uint8  // access: log2 of the natural alignment; bytes1: number of lanes
	in, out string // value types taken and left; none where they depend on the immediate
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
	opDrop        = 0x1a
	opSelect      = 0x1b
	opLocalGet    = 0x20
	opLocalSet    = 0x21
	opLocalTee    = 0x22
	opGlobalGet   = 0x23
	opGlobalSet   = 0x24
	opTableGet    = 0x25
	opTableSet    = 0x26
	opMemorySize  = 0x3f
	opMemoryGrow  = 0x40
	opI32Const    = 0x41
	opI64Const    = 0x42
	opF32Const    = 0x43
	opF64Const    = 0x44
	opI32Eq       = 0x46
	opI32LtS      = 0x48
	opI64LtS      = 0x53
	opI64LtU      = 0x54
	opI64LeU      = 0x58
	opF32Ge       = 0x60
	opF64Ge       = 0x66
	opI32Add      = 0x6a
	opI32Sub      = 0x6b
	opI32And      = 0x71
	opI64Add      = 0x7c
	opI64Sub      = 0x7d
	opI64Mul      = 0x7e
	opI64ShrU     = 0x88
	opI64ExtendU  = 0xad
	opRefNull     = 0xd0
	opRefIsNull   = 0xd1
	opRefFunc     = 0xd2
	opBulk        = 0xfc
	opVector      = 0xfd

	bulkMemoryInit = 8
	bulkDataDrop   = 9
	bulkMemoryCopy = 10
	bulkMemoryFill = 11
	bulkTableInit  = 12
	bulkTableCopy  = 14
	bulkTableGrow  = 15
	bulkTableSize  = 16
	bulkTableFill  = 17

	vectorConst     = 12
	vectorShuffle   = 13
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
	t[opUnreachable] = opcode{imm: plain, cost: costOp}
	t[opNop] = opcode{imm: plain, cost: costFree}
	t[opBlock] = opcode{imm: blockType, cost: costFree}
	t[opLoop] = opcode{imm: blockType, cost: costFree}
	t[opIf] = opcode{imm: blockType, cost: costOp}
	t[opElse] = opcode{imm: plain, cost: costFree}
	t[opEnd] = opcode{imm: plain, cost: costFree}
	t[opBr] = opcode{imm: label, cost: costOp}
	t[opBrIf] = opcode{imm: label, cost: costOp}
	t[opBrTable] = opcode{imm: labels, cost: costTable}
	t[opReturn] = opcode{imm: plain, cost: costOp}
	t[opCall] = opcode{imm: function, cost: costCall}
	t[opIndirect] = opcode{imm: indirect, cost: costIndirect}
	t[opDrop] = opcode{imm: plain, cost: costOp} // drop
	t[opSelect] = opcode{imm: plain, cost: costOp}
	t[0x1c] = opcode{imm: types, cost: costOp} // select t
	span(opLocalGet, opLocalTee, opcode{imm: local, cost: costOp})
	span(opGlobalGet, opGlobalSet, opcode{imm: global, cost: costMemory})
	span(opTableGet, opTableSet, opcode{imm: table, cost: costTable})
	// memory
	span(0x28, 0x35, opcode{imm: access, cost: costLoad})
	span(0x36, 0x3e, opcode{imm: access, cost: costMemory})
	t[0x2a] = opcode{imm: access, cost: costLoad, nan: isFloat | knownBits} // f32.load
	t[0x2b] = opcode{imm: access, cost: costLoad, nan: isFloat | knownBits} // f64.load
	t[0x38] = opcode{imm: access, cost: costMemory, nan: isFloat | seesF32} // f32.store
	t[0x39] = opcode{imm: access, cost: costMemory, nan: isFloat | seesF64} // f64.store
	t[0x3f] = opcode{imm: zero, cost: costMemory}                           // memory.size
	t[opMemoryGrow] = opcode{imm: zero, cost: 0}
	// constants
	t[opI32Const] = opcode{imm: const32, cost: costOp}
	t[opI64Const] = opcode{imm: const64, cost: costOp}
	t[opF32Const] = opcode{imm: bytes4, cost: costOp, nan: isFloat | knownBits}
	t[opF64Const] = opcode{imm: bytes8, cost: costOp, nan: isFloat | knownBits}
	// integers and comparisons
	span(0x45, 0x5a, opcode{imm: plain, cost: costOp})
	span(0x5b, 0x66, opcode{imm: plain, cost: costOp, nan: isFloat})
	span(0x67, 0x8a, opcode{imm: plain, cost: costOp})
	span(0x6d, 0x70, opcode{imm: plain, cost: costDivide}) // i32 div, rem
	span(0x7f, 0x82, opcode{imm: plain, cost: costDivide}) // i64 div, rem
	// floats
	for _, base := range []int{0x8b, 0x99} {
		span(base, base+13, opcode{imm: plain, cost: costOp, nan: isFloat})
		span(base+2, base+5, opcode{imm: plain, cost: costConvert, nan: isFloat}) // ceil, floor, trunc, nearest
		t[base+6] = opcode{imm: plain, cost: costFloatDivide, nan: isFloat}       // sqrt
		t[base+9] = opcode{imm: plain, cost: costMultiply, nan: isFloat}          // mul
		t[base+10] = opcode{imm: plain, cost: costFloatDivide, nan: isFloat}      // div
		span(base+11, base+12, opcode{imm: plain, cost: costConvert, nan: isFloat})
	}
	t[0x98].nan |= seesF32 // f32.copysign: the sign of its last operand
	t[0xa6].nan |= seesF64 // f64.copysign
	// conversions
	t[0xa7] = opcode{imm: plain, cost: costOp} // i32.wrap_i64
	span(0xa8, 0xab, opcode{imm: plain, cost: costConvert, nan: isFloat})
	span(0xac, 0xad, opcode{imm: plain, cost: costOp}) // i64.extend_i32
	span(0xae, 0xb1, opcode{imm: plain, cost: costConvert, nan: isFloat})
	span(0xb2, 0xbb, opcode{imm: plain, cost: costConvert, nan: isFloat | knownBits})
	t[0xb6] = opcode{imm: plain, cost: costMultiply, nan: isFloat}               // f32.demote_f64
	t[0xbb] = opcode{imm: plain, cost: costMultiply, nan: isFloat}               // f64.promote_f32
	t[0xbc] = opcode{imm: plain, cost: costOp, nan: isFloat | seesF32}           // i32.reinterpret_f32
	t[0xbd] = opcode{imm: plain, cost: costOp, nan: isFloat | seesF64}           // i64.reinterpret_f64
	span(0xbe, 0xbf, opcode{imm: plain, cost: costOp, nan: isFloat | knownBits}) // fNN.reinterpret_iNN
	span(0xc0, 0xc4, opcode{imm: plain, cost: costOp})                           // sign extension
	// references
	t[opRefNull] = opcode{imm: reference, cost: costOp}
	t[opRefIsNull] = opcode{imm: plain, cost: costOp} // ref.is_null
	t[opRefFunc] = opcode{imm: function, cost: costRefFunc}
	shape(t[:], oneByteShapes)
	return t
}

func bulkOpcodes() (t [18]opcode) {
	for i := range 8 { // saturating float to integer
		t[i] = opcode{imm: plain, cost: costConvert, nan: isFloat}
	}
	t[bulkMemoryInit] = opcode{imm: segmentZero, cost: costBulk}
	t[9] = opcode{imm: dataSegment, cost: costBulk} // data.drop
	t[bulkMemoryCopy] = opcode{imm: zeroZero, cost: costBulk}
	t[bulkMemoryFill] = opcode{imm: zero, cost: costBulk}
	t[bulkTableInit] = opcode{imm: segmentTable, cost: costBulk}
	t[13] = opcode{imm: elementSegment, cost: costBulk} // elem.drop
	t[bulkTableCopy] = opcode{imm: twoTables, cost: costBulk}
	t[bulkTableGrow] = opcode{imm: table, cost: 0}
	t[16] = opcode{imm: table, cost: costMemory} // table.size
	t[bulkTableFill] = opcode{imm: table, cost: costBulk}
	shape(t[:], bulkShapes)
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
	span(0, 255, opcode{imm: plain, cost: costVector})
	span(0, 10, opcode{imm: access, cost: costLoad})
	t[11] = opcode{imm: access, cost: costVector}           // store
	span(12, 13, opcode{imm: bytes16, cost: costVector})    // const, shuffle
	span(21, 34, opcode{imm: bytes1, cost: costVector})     // extract and replace lane
	span(84, 87, opcode{imm: accessLane, cost: costLoad})   // load lane
	span(88, 91, opcode{imm: accessLane, cost: costVector}) // store lane
	span(92, 93, opcode{imm: access, cost: costLoad})       // load with zeros
	for _, i := range []int{154, 162, 165, 166, 175, 176, 178, 179, 180, 187, 194, 197, 198, 207, 208, 210, 211, 212, 226, 238} {
		t[i] = opcode{}
	}
	// Many instructions each on x86: popcount, shifts of bytes, 64-bit multiplication,
	// arithmetic shift and minimum of 64-bit lanes, saturating conversions.
	for _, i := range []int{98, 107, 108, 109, 126, 127, 204, 213} {
		t[i].cost = costVectorMany
	}
	span(248, 255, opcode{imm: plain, cost: costVectorMany, nan: isFloat})

	mark(seesF32, costVector, 19, 32)   // f32x4.splat, replace_lane
	mark(seesF64, costVector, 20, 34)   // f64x2.splat, replace_lane
	mark(knownBits, costVector, 31, 33) // extract_lane
	for i := 65; i <= 70; i++ {         // comparisons
		mark(takesF32, costVector, i)
		mark(takesF64, costVector, i+6)
	}
	mark(makesF32|takesF32, costVectorMany, 103, 104, 105, 106, 228, 229, 230, 232, 233) // rounding, add, sub, mul, min, max
	mark(makesF64|takesF64, costVectorMany, 116, 117, 122, 148, 240, 241, 242, 244, 245)
	mark(makesF32|takesF32, 2*costMultiply, 230)         // mul
	mark(makesF64|takesF64, 2*costMultiply, 242)         //
	mark(makesF32|takesF32, 2*costFloatDivide, 227, 231) // sqrt, div
	mark(makesF64|takesF64, 2*costFloatDivide, 239, 243)
	mark(makesF32|takesF64, 2*costMultiply, 94) // f32x4.demote_f64x2_zero
	mark(makesF64|takesF32, 2*costMultiply, 95) // f64x2.promote_low_f32x4
	mark(takesF32, costVectorMany, 248, 249)    // i32x4.trunc_sat_f32x4
	mark(takesF64, costVectorMany, 252, 253)    // i32x4.trunc_sat_f64x2_zero
	// abs, neg, pmin, pmax move bits as they are: same bits in, same bits out.
	mark(0, costVector, 224, 225, 234, 235, 236, 237, 246, 247)
	shape(t[:], vectorShapes)
	return t
}

// A shapeSpan gives the opcodes from to to their types: i, I, f, d, v for i32, i64, f32, f64,
// v128, before and after the colon; and the limit of their immediate.
type shapeSpan struct {
	from, to int
	types    string
	limit    uint8
}

var oneByteShapes = []shapeSpan{
	{0x28, 0x28, "i:i", 2}, {0x29, 0x29, "i:I", 3}, {0x2a, 0x2a, "i:f", 2}, {0x2b, 0x2b, "i:d", 3}, // loads
	{0x2c, 0x2d, "i:i", 0}, {0x2e, 0x2f, "i:i", 1}, {0x30, 0x31, "i:I", 0}, {0x32, 0x33, "i:I", 1}, {0x34, 0x35, "i:I", 2},
	{0x36, 0x36, "ii:", 2}, {0x37, 0x37, "iI:", 3}, {0x38, 0x38, "if:", 2}, {0x39, 0x39, "id:", 3}, // stores
	{0x3a, 0x3a, "ii:", 0}, {0x3b, 0x3b, "ii:", 1}, {0x3c, 0x3c, "iI:", 0}, {0x3d, 0x3d, "iI:", 1}, {0x3e, 0x3e, "iI:", 2},
	{0x3f, 0x3f, ":i", 0}, {0x40, 0x40, "i:i", 0}, // memory.size, memory.grow
	{0x41, 0x41, ":i", 0}, {0x42, 0x42, ":I", 0}, {0x43, 0x43, ":f", 0}, {0x44, 0x44, ":d", 0},
	{0x45, 0x45, "i:i", 0}, {0x46, 0x4f, "ii:i", 0}, {0x50, 0x50, "I:i", 0}, {0x51, 0x5a, "II:i", 0}, // comparisons
	{0x5b, 0x60, "ff:i", 0}, {0x61, 0x66, "dd:i", 0},
	{0x67, 0x69, "i:i", 0}, {0x6a, 0x78, "ii:i", 0}, {0x79, 0x7b, "I:I", 0}, {0x7c, 0x8a, "II:I", 0}, // arithmetic
	{0x8b, 0x91, "f:f", 0}, {0x92, 0x98, "ff:f", 0}, {0x99, 0x9f, "d:d", 0}, {0xa0, 0xa6, "dd:d", 0},
	{0xa7, 0xa7, "I:i", 0}, {0xa8, 0xa9, "f:i", 0}, {0xaa, 0xab, "d:i", 0}, {0xac, 0xad, "i:I", 0}, // conversions
	{0xae, 0xaf, "f:I", 0}, {0xb0, 0xb1, "d:I", 0}, {0xb2, 0xb3, "i:f", 0}, {0xb4, 0xb5, "I:f", 0},
	{0xb6, 0xb6, "d:f", 0}, {0xb7, 0xb8, "i:d", 0}, {0xb9, 0xba, "I:d", 0}, {0xbb, 0xbb, "f:d", 0},
	{0xbc, 0xbc, "f:i", 0}, {0xbd, 0xbd, "d:I", 0}, {0xbe, 0xbe, "i:f", 0}, {0xbf, 0xbf, "I:d", 0},
	{0xc0, 0xc1, "i:i", 0}, {0xc2, 0xc4, "I:I", 0},
}

var bulkShapes = []shapeSpan{
	{0, 1, "f:i", 0}, {2, 3, "d:i", 0}, {4, 5, "f:I", 0}, {6, 7, "d:I", 0},
	{8, 8, "iii:", 0}, {10, 12, "iii:", 0}, {14, 14, "iii:", 0}, {16, 16, ":i", 0},
}

var vectorShapes = []shapeSpan{
	{96, 255, "vv:v", 0}, // binary, but for what follows
	{0, 0, "i:v", 4}, {1, 6, "i:v", 3}, {7, 7, "i:v", 0}, {8, 8, "i:v", 1}, {9, 9, "i:v", 2}, {10, 10, "i:v", 3}, {11, 11, "iv:", 4},
	{12, 12, ":v", 0}, {13, 14, "vv:v", 0},
	{15, 17, "i:v", 0}, {18, 18, "I:v", 0}, {19, 19, "f:v", 0}, {20, 20, "d:v", 0}, // splat
	{21, 22, "v:i", 16}, {23, 23, "vi:v", 16}, {24, 25, "v:i", 8}, {26, 26, "vi:v", 8}, // lanes
	{27, 27, "v:i", 4}, {28, 28, "vi:v", 4}, {29, 29, "v:I", 2}, {30, 30, "vI:v", 2},
	{31, 31, "v:f", 4}, {32, 32, "vf:v", 4}, {33, 33, "v:d", 2}, {34, 34, "vd:v", 2},
	{35, 76, "vv:v", 0}, {77, 77, "v:v", 0}, {78, 81, "vv:v", 0}, {82, 82, "vvv:v", 0}, {83, 83, "v:i", 0},
	{84, 84, "iv:v", 0}, {85, 85, "iv:v", 1}, {86, 86, "iv:v", 2}, {87, 87, "iv:v", 3}, // load and store lane
	{88, 88, "iv:", 0}, {89, 89, "iv:", 1}, {90, 90, "iv:", 2}, {91, 91, "iv:", 3},
	{92, 92, "i:v", 2}, {93, 93, "i:v", 3}, {94, 98, "v:v", 0},
	{99, 100, "v:i", 0}, {131, 132, "v:i", 0}, {163, 164, "v:i", 0}, {195, 196, "v:i", 0}, // all_true, bitmask
	{107, 109, "vi:v", 0}, {139, 141, "vi:v", 0}, {171, 173, "vi:v", 0}, {203, 205, "vi:v", 0}, // shifts
	{103, 106, "v:v", 0}, {116, 117, "v:v", 0}, {122, 122, "v:v", 0}, {124, 129, "v:v", 0}, {135, 138, "v:v", 0}, // unary
	{148, 148, "v:v", 0}, {160, 161, "v:v", 0}, {167, 170, "v:v", 0}, {192, 193, "v:v", 0}, {199, 202, "v:v", 0},
	{224, 225, "v:v", 0}, {227, 227, "v:v", 0}, {236, 237, "v:v", 0}, {239, 239, "v:v", 0}, {248, 255, "v:v", 0},
}

func shape(t []opcode, spans []shapeSpan) {
	value := strings.NewReplacer("i", string(rune(i32)), "I", string(rune(i64)), "f", string(rune(f32)), "d", string(rune(f64)), "v", string(rune(v128)))
	for _, s := range spans {
		in, out, _ := strings.Cut(s.types, ":")
		in, out = value.Replace(in), value.Replace(out)
		for i := s.from; i <= s.to; i++ {
			t[i].in, t[i].out, t[i].limit = in, out, s.limit
		}
	}
}
