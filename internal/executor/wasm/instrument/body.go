package instrument

import "bytes"

// coder rewrites function bodies one after the other. Its buffers live on between them.
//
// A body is cut into basic blocks. The instructions of the current one are gathered in block,
// because its price, which stands before it, is known only at its end.
type coder struct {
	m     *module
	out   []byte // the code section so far
	types []byte // types added for exitType

	// of the function being rewritten
	done    []byte   // finished blocks
	block   []byte   // the current block
	copied  int      // input up to here is in done and block, or was replaced
	labels  []uint32 // of the br_table being read
	exit    frame    // the function's, when it has been closed
	locals  uint32   // of the guest, parameters included
	temps   []byte   // types of our locals, which follow the guest's; the first is the gas
	entry   int64    // price of the first block, which the prologue takes
	closed  int      // blocks finished
	static  int64    // prices of the blocks that do not test the gas
	dirties bool     // some block leaves the local ahead of the global
	calls   bool     // some reachable call can lead back into the module
	effort  effort   // of compiling it

	// of the current block
	cost  int64
	check bool  // test the gas at its start
	dead  bool  // cannot be reached
	stale bool  // the local is behind the global, after a call
	dirty bool  // the global may be behind the local
	sure  bool  // the gas is known not to be negative
	prev  uint8 // how the previous instruction met NaN bits
}

// body reads one function of type t, which ends where the reader's bytes end, and appends it.
func (c *coder) body(t funcType) {
	m := c.m
	start := m.p
	m.locals = append(m.locals[:0], t.params...)
	work := m.work
	total := uint64(len(t.params))
	groups := m.count(maxLocals, "groups of locals")
	groupsAt := m.p
	for range groups {
		at := m.p
		n := uint64(m.u32())
		t := m.valueType()
		if total += n; m.err == nil && total > maxLocals {
			m.fail(at, "function with more than %d locals", maxLocals)
		}
		if m.err != nil {
			return
		}
		m.spend(int(n))
		for range n {
			m.locals = append(m.locals, t)
		}
	}
	groupBytes := m.b[groupsAt:m.p]

	c.done, c.block, c.copied = c.done[:0], c.block[:0], m.p
	m.values, m.peak = m.values[:0], 0
	m.frames = append(m.frames[:0], frame{funcType: funcType{results: t.results}})
	c.locals, c.temps = uint32(total), append(c.temps[:0], i64)
	c.entry, c.closed, c.static, c.dirties, c.calls = 0, 0, 0, false, false
	c.effort.begin(int(total))
	c.dead = false
	c.begin(true)

	for len(m.frames) > 0 {
		if c.instruction(); m.err != nil {
			return
		}
	}
	if m.p != len(m.b) {
		m.fail(m.p, "code after the end of the function")
		return
	}

	// Prologue, body, epilogue.
	frameSize := frameUnit + valueBytes(m.locals) + valueBytes(t.results) + 8*max(0, m.peak-frameUnit/8)
	units := (frameSize + frameUnit - 1) / frameUnit
	c.entry += costFrame * int64(units)
	deep := c.calls || units > 4
	depth := m.depth()
	b := c.block[:0]
	b = uleb(b, uint64(groups+len(c.temps)))
	b = append(b, groupBytes...)
	for _, t := range c.temps {
		b = append(b, 1, t)
	}
	b = uleb(append(b, opGlobalGet), uint64(m.gas()))
	b = c.test(c.subtract(b, c.entry))
	if deep {
		b = uleb(append(b, opGlobalGet), uint64(depth))
		b = append(sleb(append(b, opI32Const), int64(units)), opI32Sub)
		b = uleb(append(b, opGlobalSet), uint64(depth))
		b = uleb(append(b, opGlobalGet), uint64(depth))
		b = append(b, opI32Const, 0, opI32LtS, opIf, 0x40, opUnreachable, opEnd)
	}
	function := c.exit
	leaves := function.target || !c.dead // control can reach the epilogue
	wrap := leaves && function.target && (deep || c.dirties)
	if wrap {
		b = append(append(b, opBlock), m.exitType(t.results)...)
	}
	head := len(b)
	c.block = b

	var tail [64]byte
	e := tail[:0]
	if wrap {
		e = append(e, opEnd)
	}
	if leaves && c.dirties {
		e = c.flush(e)
	}
	if leaves && deep {
		e = uleb(append(e, opGlobalGet), uint64(depth))
		e = append(sleb(append(e, opI32Const), int64(units)), opI32Add)
		e = uleb(append(e, opGlobalSet), uint64(depth))
	}
	e = append(e, opEnd)

	size := head + len(c.done) + len(e)
	if size > maxBodyOut {
		m.fail(start, "instrumented function exceeds %d bytes", maxBodyOut)
		return
	}
	c.effort.total += effortValue * uint64(len(t.params)+len(t.results)+m.work-work)
	c.effort.end(size, m.peak)
	if m.effort += c.effort.total; c.effort.total > maxEffort {
		m.fail(start, "function of %d basic blocks, %d locals and loops or branches among them that takes %.0f s to compile, at most %d",
			c.closed, len(m.locals), float64(c.effort.total)/1e9, uint64(maxEffort/1e9))
		return
	}
	c.out = uleb(c.out, uint64(size))
	c.out = append(c.out, b...)
	c.out = append(c.out, c.done...)
	c.out = append(c.out, e...)
}

func valueBytes(types []byte) (n int) {
	for _, t := range types {
		if n += 8; t == v128 {
			n += 8
		}
	}
	return n
}

// instruction reads one instruction, checks it and does what it asks for.
func (c *coder) instruction() {
	m := c.m
	start := m.p
	op := m.u8()
	o := &opcodes[op]
	switch op {
	case opBlock, opLoop, opIf:
		c.open(op, start)
		return
	case opElse:
		f := m.frames[len(m.frames)-1]
		if f.op != opIf {
			m.fail(start, "else without if")
			return
		}
		m.leave()
		m.enter(opElse, f.dead, f.funcType)
		other := &m.frames[len(m.frames)-1]
		other.target, other.meet = f.target, f.meet
		other.edges++ // from the end of the other arm
		c.finish(start)
		c.dead = f.dead
		return
	case opEnd:
		c.end(start)
		return
	case opBr, opBrIf, opBrTable:
		c.branch(op)
		c.finish(start)
		c.dead = c.dead || op != opBrIf
		return
	case opReturn:
		c.toEpilogue(start)
		return
	case opUnreachable:
		m.jumped()
		if !c.dead && c.dirty {
			c.sync(start)
			c.block = c.flush(c.block)
		}
		c.stale = false // nothing follows
		c.add(costOp)
		c.finish(start)
		c.dead = true
		return
	case opCall:
		n := m.function()
		c.effort.total += effortCall
		if m.err == nil {
			c.call(start, costCall, int(n) < m.imported, m.types[m.functions[n]])
		}
		return
	case opIndirect:
		c.effort.tabled()
		t := m.index(len(m.types), "type")
		if m.table() != funcref && m.err == nil {
			m.fail(start, "indirect call through a table of externref")
		}
		m.pop(i32)
		if m.err == nil {
			c.calls = c.calls || !c.dead
			c.call(start, costIndirect, true, m.types[t]) // perhaps to an import
		}
		return
	case opTableGet, opTableSet:
		c.effort.tabled()
		c.immediate(start, o, op)
		m.hidden = m.hidden || op == opTableSet
	case opMemoryGrow:
		c.effort.total += effortGrow
		c.immediate(start, o, op)
		c.sized(start, costGrow, opI64Mul, costPage)
		c.refused()
		return
	case opBulk:
		n := c.second()
		if n >= uint32(len(bulk)) {
			m.fail(start, "unknown opcode 0xfc %#x", n)
			return
		}
		o = &bulk[n]
		if n >= bulkMemoryInit {
			c.effort.total += effortBulk
		}
		c.immediate(start, o, byte(n))
		m.hidden = m.hidden || n >= bulkDataDrop && n != bulkMemoryCopy && n != bulkMemoryFill && n != bulkTableSize
		switch n {
		case bulkMemoryInit, bulkMemoryCopy, bulkMemoryFill:
			c.sized(start, costBulk, opI64ShrU, bulkBytesShift)
			return
		case bulkTableInit, bulkTableCopy, bulkTableFill:
			c.sized(start, costBulk, opI64Mul, costTableElement)
			return
		case bulkTableGrow:
			c.sized(start, costGrow, opI64Mul, costTableElement)
			return
		}
	case opVector:
		n := c.second()
		if n >= uint32(len(vector)) {
			m.fail(start, "unknown opcode 0xfd %#x: relaxed vector instructions are not supported", n)
			return
		}
		o = &vector[n]
		c.immediate(start, o, byte(n))
	default:
		c.immediate(start, o, op)
	}
	c.add(int64(o.cost))
	if o.nan != 0 {
		m.info.HasFloat = true
		if m.NaN == Canonical && !c.dead && m.err == nil {
			c.hide(start, o.nan)
		}
	}
	c.prev = o.nan
}

// second reads the number that follows a prefix. Only its shortest form is accepted, because
// wazero 1.12 runs another instruction where it is longer.
func (c *coder) second() uint32 {
	m := c.m
	at := m.p
	n := m.u32()
	if m.err == nil && m.p-at > 1 && m.b[m.p-1] == 0 {
		m.fail(at, "opcode not in its shortest form")
	}
	return n
}

// immediate reads what follows the opcode at start, which has the number op, and checks the operands.
func (c *coder) immediate(start int, o *opcode, op byte) {
	m := c.m
	switch o.imm {
	case plain:
		switch {
		case o.in != "": // the common case, below
		case op == opDrop:
			m.pop(unknown)
		case op == opSelect:
			m.pop(i32)
			t := m.pop(unknown)
			if t == unknown {
				t = m.pop(unknown)
			} else {
				m.pop(t)
			}
			if isRef(t) {
				m.fail(start, "select of references needs their type")
			}
			m.push(t)
		case op == opRefIsNull:
			if t := m.pop(unknown); t != unknown && !isRef(t) {
				m.fail(start, "ref.is_null of %s", typeName(t))
			}
			m.push(i32)
		}
	case local:
		n := m.index(len(m.locals), "local")
		if m.err != nil {
			return
		}
		if op == opLocalGet {
			c.effort.use(n)
		} else {
			c.effort.set(n)
			m.pop(m.locals[n])
		}
		if op != opLocalSet {
			m.push(m.locals[n])
		}
	case global:
		n := m.index(len(m.globals), "global")
		switch {
		case m.err != nil:
		case op == opGlobalGet:
			m.push(m.globals[n].valueType)
		case !m.globals[n].mutable:
			m.fail(start, "global %d is constant", n)
		default:
			m.pop(m.globals[n].valueType)
		}
	case function:
		n := m.function()
		if m.err == nil && !m.declared[n] {
			m.fail(start, "function %d is not declared as a reference", n)
		}
		m.push(funcref)
	case table:
		c.tableAccess(op)
	case twoTables:
		if a, b := m.table(), m.table(); a != b {
			m.fail(start, "tables of different types")
		}
	case segmentTable:
		n := m.index(len(m.elements), "element segment")
		t := m.table()
		switch {
		case m.err != nil:
		case t != m.elements[n].refType:
			m.fail(start, "table and segment of different types")
		case !m.elements[n].passive: // empty; as with data, wazero 1.12 does not clear it
			m.fail(start, "table.init of a segment that is not passive")
		}
	case elementSegment:
		m.index(len(m.elements), "element segment")
	case dataSegment, segmentZero:
		n := m.index(len(m.segments), "data segment")
		if o.imm == segmentZero {
			c.zero()
			if m.err == nil {
				m.segments[n] = true
			}
		}
	case zero:
		c.zero()
	case zeroZero:
		c.zero()
		c.zero()
	case access, accessLane:
		m.memory()
		if at := m.p; m.u32() > uint32(o.limit) {
			m.fail(at, "alignment above the natural one (or several memories)")
		}
		m.u32()
		if o.imm == accessLane {
			c.lane(16 >> o.limit)
		}
	case const32:
		m.sleb(32)
	case const64:
		m.sleb(64)
	case bytes1:
		c.lane(o.limit)
	case bytes4:
		m.skip(4)
	case bytes8:
		m.skip(8)
	case bytes16:
		if op != vectorShuffle {
			m.skip(16)
			break
		}
		for range 16 {
			c.lane(32)
		}
	case reference:
		m.push(m.refType())
	case types:
		if at := m.p; m.u32() != 1 {
			m.fail(at, "select of several types")
		}
		t := m.valueType()
		m.pop(i32)
		m.pop(t)
		m.pop(t)
		m.push(t)
	default:
		m.fail(start, "unknown opcode %#x%s", m.b[start], unsupported(m.b[start]))
	}
	m.shape(o.in, o.out)
}

func (c *coder) tableAccess(op byte) {
	m := c.m
	t := m.table()
	switch op {
	case opTableGet:
		m.pop(i32)
		m.push(t)
	case opTableSet:
		m.pop(t)
		m.pop(i32)
	case bulkTableGrow:
		m.pop(i32)
		m.pop(t)
		m.push(i32)
	case bulkTableFill:
		m.pop(i32)
		m.pop(t)
		m.pop(i32)
	}
}

func (c *coder) zero() {
	c.m.memory()
	if at := c.m.p; c.m.u8() != 0 {
		c.m.fail(at, "several memories are not supported")
	}
}

func (c *coder) lane(n uint8) {
	if at := c.m.p; c.m.u8() >= n {
		c.m.fail(at, "lane out of range")
	}
}

// unsupported names the proposal that an opcode belongs to.
func unsupported(op byte) string {
	switch op {
	case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
		return ": exceptions are not supported"
	case 0x12, 0x13, 0x15:
		return ": tail calls are not supported"
	case 0x14, 0xd3, 0xd4, 0xd5, 0xd6, 0xfb:
		return ": typed references and garbage collection are not supported"
	case 0xfe:
		return ": threads are not supported"
	}
	return ""
}

func (c *coder) open(op byte, start int) {
	m := c.m
	var t funcType
	switch b := m.u8(); {
	case b == 0x40:
	case isValue(b):
		t.results = m.b[m.p-1 : m.p : m.p]
	default:
		m.p = start + 1
		n := m.sleb(33)
		if m.err == nil && (n < 0 || n >= int64(len(m.types))) {
			m.fail(start, "no type %d", n)
		}
		if m.err != nil {
			return
		}
		t = m.types[n]
		c.add(int64(len(t.params) + len(t.results)))
	}
	if len(m.frames) > maxNesting {
		m.fail(start, "more than %d nested blocks", maxNesting)
		return
	}
	if op == opIf {
		m.pop(i32)
	}
	m.popAll(t.params)
	m.enter(op, c.dead, t)
	m.frames[len(m.frames)-1].meet = c.effort.enter(op)
	switch op {
	case opLoop:
		c.finish(start)
		c.begin(true)
	case opIf:
		c.add(costOp)
		c.finish(start)
	}
}

func (c *coder) end(start int) {
	m := c.m
	f := m.leave()
	if f.op == opIf && !bytes.Equal(f.params, f.results) {
		m.fail(start, "if without else that changes the stack")
	}
	if m.err != nil {
		return
	}
	if !f.dead {
		c.effort.leave(&f)
	}
	switch {
	case len(m.frames) == 0:
		if c.stale && c.closed > 0 {
			c.sync(start)
			c.block = c.reload(c.block)
		}
		c.sync(start)
		c.close()
		c.exit = f
		return
	case f.op == opLoop, f.op == opBlock && !f.target:
		// Entered from above only: the basic block goes on.
	default:
		c.finish(start)
		c.dead = f.dead
	}
	m.pushAll(f.results)
}

// branch reads and checks br, br_if or br_table.
func (c *coder) branch(op byte) {
	m := c.m
	c.labels = c.labels[:0]
	cost := int64(costOp)
	if op == opBrTable {
		cost = costTable
		for range m.count(maxLabels, "labels") {
			c.labels = append(c.labels, m.index(len(m.frames), "label"))
		}
		c.effort.total += effortLabel * uint64(len(c.labels))
	}
	last := m.index(len(m.frames), "label")
	c.labels = append(c.labels, last)
	if m.err != nil {
		return
	}
	if !c.dead {
		for _, l := range c.labels {
			f := &m.frames[len(m.frames)-1-int(l)]
			f.target = true
			if f.from != m.p { // one edge, however often a br_table names the label
				f.from = m.p
				f.edges++
			}
		}
	}
	t := m.frames[len(m.frames)-1-int(last)].label()
	c.add(cost + int64(len(t)))
	switch op {
	case opBr:
		m.popAll(t)
		m.jumped()
	case opBrIf:
		m.pop(i32)
		m.popAll(t)
		m.pushAll(t)
	case opBrTable:
		m.branchTable(c.labels)
	}
}

// toEpilogue turns a return into a branch to the epilogue.
func (c *coder) toEpilogue(start int) {
	m := c.m
	f := &m.frames[0]
	m.popAll(f.results)
	m.jumped()
	c.add(costOp + int64(len(f.results)))
	c.sync(start)
	if !c.dead {
		f.target = true
		f.edges++
		if c.stale {
			c.block = c.reload(c.block)
			c.stale = false
		}
		c.block = uleb(append(c.block, opBr), uint64(len(m.frames)-1))
		c.copied = m.p
	}
	c.finish(start)
	c.dead = true
}

// call stands before a call; outside says that it may leave the module, where side effects are.
func (c *coder) call(start int, cost int64, outside bool, t funcType) {
	c.m.popAll(t.params)
	c.m.pushAll(t.results)
	c.add(cost)
	c.prev = 0
	if c.dead || c.m.err != nil {
		return
	}
	c.calls = c.calls || !outside
	switch {
	case outside && !c.sure:
		c.sync(start)
		if c.stale {
			c.block = c.reload(c.block)
		}
		c.block = uleb(append(c.block, opLocalGet), uint64(c.locals))
		c.block = c.test(c.block)
	case c.dirty:
		c.sync(start)
		c.block = c.flush(c.block)
	}
	c.stale, c.dirty, c.sure = true, false, false
}

// sized charges, before the instruction at start, for the count on top of the stack: op(count, by).
func (c *coder) sized(start int, cost int64, op byte, by int64) {
	c.add(cost)
	c.prev = 0
	if c.dead || c.m.err != nil {
		return
	}
	c.sync(start)
	b := c.block
	if c.stale {
		b = c.reload(b)
	}
	t := uint64(c.temp(i32))
	b = uleb(append(b, opLocalTee), t)
	b = uleb(append(b, opLocalGet), uint64(c.locals))
	b = uleb(append(b, opLocalGet), t)
	b = append(sleb(append(b, opI64ExtendU, opI64Const), by), op, opI64Sub)
	c.block = c.test(b)
	c.stale, c.dirty, c.sure = false, false, true
}

// refused stands behind a memory.grow that sized has charged for, and notes in a global what was not granted.
func (c *coder) refused() {
	if c.dead || c.m.err != nil {
		return
	}
	c.sync(c.m.p)
	count, want, least := uint64(c.temp(i32)), uint64(c.temp(i64)), uint64(c.m.refused())
	b := uleb(append(c.block, opLocalGet), count) // that sized has put there
	b = append(b, opI64ExtendU, opMemorySize, 0, opI64ExtendU, opI64Add)
	b = uleb(append(b, opLocalSet), want) // what the memory would have, if it has not
	b = uleb(append(b, opLocalTee), count)
	b = append(b, opI32Const, 0x7f, opI32Eq, opIf, 0x40) // -1
	b = uleb(append(b, opLocalGet), want)
	b = append(sleb(append(b, opI64Const), int64(c.m.info.MaxPages)), opI64LeU)
	b = uleb(append(b, opLocalGet), want)
	b = append(uleb(append(b, opGlobalGet), least), opI64LtU, opI32And, opIf, 0x40)
	b = uleb(append(b, opLocalGet), want)
	b = append(uleb(append(b, opGlobalSet), least), opEnd, opEnd)
	c.block = uleb(append(b, opLocalGet), count)
}

var (
	nan32 = []byte{0, 0, 0xc0, 0x7f}
	nan64 = []byte{0, 0, 0, 0, 0, 0, 0xf8, 0x7f}
)

// hide makes NaNs canonical before or after the instruction at start, as its marks ask.
func (c *coder) hide(start int, nan uint8) {
	if nan&(seesF32|seesF64) != 0 && c.prev&knownBits == 0 {
		// if !(x >= x) { x = NaN }
		c.sync(start)
		kind, ge, constant, bits := f32, byte(opF32Ge), byte(opF32Const), nan32
		if nan&seesF64 != 0 {
			kind, ge, constant, bits = f64, opF64Ge, opF64Const, nan64
		}
		t := uint64(c.temp(kind))
		b := uleb(append(c.block, opLocalTee), t)
		b = append(append(b, constant), bits...)
		b = uleb(append(b, opLocalGet), t)
		b = uleb(append(b, opLocalGet), t)
		c.block = append(b, ge, opSelect)
	}
	if nan&(makesF32|makesF64) != 0 {
		eq, bits, takes := byte(vectorF32Eq), nan32, takesF32
		if nan&makesF64 != 0 {
			eq, bits, takes = vectorF64Eq, nan64, takesF64
		}
		if c.next()&takes != 0 {
			return
		}
		c.sync(c.m.p)
		t := uint64(c.temp(v128))
		b := uleb(append(c.block, opLocalTee), t)
		b = append(b, opVector, vectorConst)
		for range 16 / len(bits) {
			b = append(b, bits...)
		}
		b = uleb(append(b, opLocalGet), t)
		b = uleb(append(b, opLocalGet), t)
		c.block = append(b, opVector, eq, opVector, vectorBitselect)
	}
}

// next tells how the next instruction meets NaN bits, if it is a vector instruction.
func (c *coder) next() uint8 {
	r := c.m.reader
	if r.u8() != opVector {
		return 0
	}
	if n := r.u32(); r.err == nil && n < uint32(len(vector)) {
		return vector[n].nan
	}
	return 0
}

// begin starts a basic block.
func (c *coder) begin(check bool) {
	c.cost, c.check, c.stale, c.dirty, c.sure, c.prev = 0, check, false, !check, check, 0
}

// finish ends the basic block with the instruction at start, which has been read.
func (c *coder) finish(start int) {
	if c.stale && !c.dead {
		c.sync(start)
		c.block = c.reload(c.block)
	}
	c.sync(c.m.p)
	c.close()
	c.begin(false)
}

// close moves the current block, behind its price, to done.
func (c *coder) close() {
	switch {
	case c.closed == 0:
		c.entry = c.cost
	case c.cost > 0:
		if !c.check {
			c.static += c.cost
		}
		c.done = uleb(append(c.done, opLocalGet), uint64(c.locals))
		c.done = c.subtract(c.done, c.cost)
		if c.check || c.static > uncheckedGas {
			c.done = c.test(c.done)
			break
		}
		c.done = uleb(append(c.done, opLocalSet), uint64(c.locals))
		c.dirties = true
	}
	c.done = append(c.done, c.block...)
	if len(c.done) > maxBodyOut {
		c.m.fail(c.m.p, "instrumented function exceeds %d bytes", maxBodyOut)
	}
	c.block = c.block[:0]
	c.closed++
	c.effort.next()
}

func (c *coder) add(cost int64) {
	if !c.dead {
		c.cost += cost
	}
}

// sync copies the input up to end into the current block.
func (c *coder) sync(end int) {
	if c.copied < end {
		c.block = append(c.block, c.m.b[c.copied:end]...)
		c.copied = end
	}
}

// temp is the index of our own local of type t.
func (c *coder) temp(t byte) uint32 {
	for i, have := range c.temps[1:] {
		if have == t {
			return c.locals + 1 + uint32(i)
		}
	}
	c.temps = append(c.temps, t)
	return c.locals + uint32(len(c.temps)) - 1
}

func (c *coder) subtract(b []byte, cost int64) []byte {
	return append(sleb(append(b, opI64Const), cost), opI64Sub)
}

// test stores the gas left, which is on the stack, and traps if it is negative.
func (c *coder) test(b []byte) []byte {
	b = uleb(append(b, opLocalTee), uint64(c.locals))
	b = uleb(append(b, opGlobalSet), uint64(c.m.gas()))
	b = uleb(append(b, opLocalGet), uint64(c.locals))
	return append(b, opI64Const, 0, opI64LtS, opIf, 0x40, opUnreachable, opEnd)
}

func (c *coder) flush(b []byte) []byte {
	b = uleb(append(b, opLocalGet), uint64(c.locals))
	return uleb(append(b, opGlobalSet), uint64(c.m.gas()))
}

func (c *coder) reload(b []byte) []byte {
	b = uleb(append(b, opGlobalGet), uint64(c.m.gas()))
	return uleb(append(b, opLocalSet), uint64(c.locals))
}
