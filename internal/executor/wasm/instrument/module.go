package instrument

import (
	"slices"
	"strconv"
	"strings"
)

type funcType struct{ params, results []byte }

type tableType struct {
	refType byte
	low     uint32 // entries at the start
}

type elementType struct {
	refType byte
	passive bool // not gone after the start
}

type globalType struct {
	valueType byte
	mutable   bool
}

// Section identifiers of the binary format.
const (
	sectionType     = 1
	sectionImport   = 2
	sectionFunction = 3
	sectionTable    = 4
	sectionMemory   = 5
	sectionGlobal   = 6
	sectionExport   = 7
	sectionStart    = 8
	sectionElement  = 9
	sectionCode     = 10
	sectionData     = 11
	sectionCount    = 12 // number of data segments; stands before the code
)

// order is the one in which sections must come.
var order = [...]byte{sectionType, sectionImport, sectionFunction, sectionTable, sectionMemory, sectionGlobal,
	sectionExport, sectionStart, sectionElement, sectionCount, sectionCode, sectionData}

// module is the state of one rewriting. The embedded reader walks over the sections.
type module struct {
	Options
	reader
	info Info

	types     []funcType
	imported  int
	functions []uint32 // type of each, imported first
	declared  []bool   // functions to which references may be made in bodies
	tables    []tableType
	globals   []globalType
	elements  []elementType
	segments  []bool // of each data segment announced before the code: a body initialises memory from it
	counted   bool   // they were, and have not been met yet
	hidden    bool   // an instruction changes what is neither memory nor a global
	start     int    // function index, or -1

	stack
	work   int    // values met by spend
	effort uint64 // of compiling, in nanoseconds

	// what an instance begins with
	data    uint64 // bytes of active segments
	entries uint64 // of tables, and of segments of elements
	actives int    // data segments

	typeCount, exportCount int
	out                    [sectionCount + 1][]byte // content of each section to write
	blockTypes             map[string]uint32        // results of a function to the added type () -> results
	code                   *coder
}

func (m *module) gas() uint32   { return uint32(len(m.globals)) }
func (m *module) depth() uint32 { return uint32(len(m.globals) + 1) }

func (m *module) refused() uint32 { return uint32(len(m.globals) + 2) }

func (m *module) rewrite() []byte {
	wasm := m.b
	if len(wasm) > m.MaxModule {
		m.fail(0, "%d bytes, more than %d", len(wasm), m.MaxModule)
		return nil
	}
	const header = "\x00asm\x01\x00\x00\x00"
	switch {
	case len(wasm) < len(header) || string(wasm[:4]) != header[:4]:
		m.fail(0, "not a WebAssembly module")
	case string(wasm[4:8]) == "\x0d\x00\x01\x00":
		m.fail(4, "components are not supported, only modules")
	case string(wasm[4:8]) != header[4:]:
		m.fail(4, "unknown version")
	}
	m.skip(len(header))
	m.start = -1
	m.blockTypes = map[string]uint32{}
	at := 0 // the next entry of order that may come
	for m.more() {
		idAt := m.p
		id := m.u8()
		size := m.count(m.MaxModule, "bytes of section")
		if m.err != nil {
			return nil
		}
		from, end := m.p, m.p+size
		if id == 0 { // custom: only its name must be right
			m.b = wasm[:end]
			m.name()
			m.b, m.p = wasm, end
			continue
		}
		next := slices.Index(order[:], id)
		switch {
		case id == 13:
			m.fail(idAt, "exceptions are not supported")
		case next < 0:
			m.fail(idAt, "unknown section %d", id)
		case next < at:
			m.fail(idAt, "section %d out of order", id)
		}
		if m.err != nil {
			return nil
		}
		at = next + 1
		m.b = wasm[:end]
		m.section(id)
		if m.err == nil && m.p != end {
			m.fail(m.p, "section %d is longer than its content", id)
		}
		if m.err != nil {
			return nil
		}
		m.b = wasm
		if m.out[id] == nil && id != sectionStart {
			m.out[id] = wasm[from:end]
		}
	}
	if m.code == nil && len(m.functions) > m.imported {
		m.fail(m.p, "functions without code")
	}
	if m.counted && len(m.segments) > 0 {
		m.fail(m.p, "data segments are missing")
	}
	if m.err == nil && m.effort > maxEfforts {
		m.fail(m.p, "module that takes %.0f s to compile, at most %d", float64(m.effort)/1e9, uint64(maxEfforts/1e9))
	}
	if m.err != nil {
		return nil
	}
	out := m.assemble(header)
	m.price(uint64(len(out)))
	return out
}

// price says what the module of so many bytes costs before it runs.
func (m *module) price(size uint64) {
	i := &m.info
	i.Effort = m.effort
	i.Code = costCode * size
	if free := effortFree * (size + effortSpare); m.effort > free {
		i.Code += m.effort - free
	}
	i.Begin = costBegin + costPage*uint64(i.MinPages) + m.data>>bulkBytesShift + costTableElement*m.entries +
		costMemory*uint64(len(m.globals)+len(m.elements)) + costBulk*uint64(m.actives)
}

func (m *module) section(id byte) {
	switch id {
	case sectionType:
		m.readTypes()
	case sectionImport:
		m.readImports()
	case sectionFunction:
		n := m.count(maxFunctions, "functions")
		m.functions = slices.Grow(m.functions, n)
		for range n {
			m.functions = append(m.functions, m.index(len(m.types), "type"))
		}
		m.declared = make([]bool, len(m.functions))
		m.info.Functions = n
	case sectionTable:
		m.readTables()
	case sectionMemory:
		for range m.count(1, "memories") {
			m.info.MinPages, m.info.MaxPages = m.limits(maxPages)
			m.info.HasMemory = true
		}
	case sectionGlobal:
		m.readGlobals()
	case sectionExport:
		m.readExports()
	case sectionStart:
		at := m.p
		m.start = int(m.function())
		if m.err == nil {
			if t := m.types[m.functions[m.start]]; len(t.params)+len(t.results) > 0 {
				m.fail(at, "start function has parameters or results")
			}
		}
		m.info.HasStart = true
	case sectionElement:
		for range m.count(maxSegments, "element segments") {
			m.readElements()
		}
	case sectionCount:
		at := m.p
		if n := m.u32(); n > maxSegments {
			m.fail(at, "%d data segments: too many", n)
		} else {
			m.segments, m.counted = make([]bool, n), true
		}
	case sectionCode:
		m.readCode()
	case sectionData:
		at := m.p
		n := m.count(maxSegments, "data segments")
		if m.err == nil && m.counted && n != len(m.segments) {
			m.fail(at, "%d data segments, %d announced", n, len(m.segments))
		}
		m.counted = false
		for i := range n {
			m.readData(i)
		}
	}
}

func (m *module) readTypes() {
	n := m.count(maxTypes, "types")
	m.types = make([]funcType, 0, n)
	values := func() []byte {
		n := m.count(maxValues, "values")
		from := m.p
		for range n {
			m.valueType()
		}
		return m.b[from:m.p:m.p]
	}
	for range n {
		if c := m.u8(); m.err == nil && c != 0x60 {
			m.fail(m.p-1, "unknown type %#x: garbage collection is not supported", c)
		}
		m.types = append(m.types, funcType{values(), values()})
		if m.err != nil {
			return
		}
	}
	m.typeCount = n
	m.effort += effortType * uint64(n)
}

func (m *module) readImports() {
	n := m.count(maxImports, "imports")
	for range n {
		at := m.p
		i := Import{Module: m.name(), Name: m.name()}
		if kind := m.u8(); m.err == nil && kind != 0 {
			m.fail(at, "import %q %q: only functions may be imported", i.Module, i.Name)
		}
		t := m.index(len(m.types), "type")
		if m.err != nil {
			return
		}
		i.Params, i.Results = slices.Clone(m.types[t].params), slices.Clone(m.types[t].results)
		if m.NaN == Canonical && (slices.Contains(i.Params, f32) || slices.Contains(i.Params, f64)) {
			m.fail(at, "import %q %q takes floats: their NaN bits would be seen", i.Module, i.Name)
		}
		if m.Imports != nil && m.err == nil {
			if err := m.Imports(i.Module, i.Name, i.Params, i.Results); err != nil {
				m.fail(at, "import %q %q: %v", i.Module, i.Name, err)
			}
		}
		m.functions = append(m.functions, t)
		m.info.Imports = append(m.info.Imports, i)
	}
	m.imported = n
	m.declared = make([]bool, n)
}

// limits reads a minimum and a maximum, by default top.
func (m *module) limits(top uint32) (low, high uint32) {
	at := m.p
	flags := m.u8()
	if m.err == nil && flags > 1 {
		m.fail(at, "limits %#x: shared and 64-bit memories are not supported", flags)
	}
	low, high = m.u32(), top
	if flags == 1 {
		high = m.u32()
	}
	if m.err == nil && (low > high || high > top) {
		m.fail(at, "limits %d to %d, at most %d", low, high, top)
	}
	return low, high
}

// readTables rewrites the tables' limits, so that growth ends at the same size on every engine.
func (m *module) readTables() {
	n := m.count(maxTables, "tables")
	b := uleb(nil, uint64(n))
	var total uint64
	for range n {
		at := m.p
		t := m.refType()
		low, high := m.limits(1<<32 - 1)
		if total += uint64(low); m.err == nil && total > MaxTable {
			m.fail(at, "tables of more than %d entries", MaxTable)
		}
		m.tables = append(m.tables, tableType{t, low})
		m.entries += uint64(low)
		b = append(b, t, 1)
		b = uleb(b, uint64(low))
		b = uleb(b, uint64(min(high, MaxTable)))
	}
	m.out[sectionTable] = b
}

func (m *module) readGlobals() {
	n := m.count(maxGlobals, "globals")
	from := m.p
	for range n {
		g := globalType{valueType: m.valueType()}
		mut := m.u8()
		if m.err == nil && mut > 1 {
			m.fail(m.p-1, "unknown mutability %#x", mut)
		}
		g.mutable = mut == 1
		m.constant(g.valueType)
		if m.err != nil {
			return
		}
		m.globals = append(m.globals, g)
	}
	m.out[sectionGlobal] = m.b[from:m.p]
}

// constant reads a constant expression of type want: one instruction, and end. There are no
// imported globals for it to name. An i32 is returned as well.
func (m *module) constant(want byte) (value uint32) {
	at := m.p
	var got byte
	switch op := m.u8(); op {
	case opI32Const:
		value = uint32(m.sleb(32))
		got = i32
	case opI64Const:
		m.sleb(64)
		got = i64
	case opF32Const:
		m.skip(4)
		got = f32
	case opF64Const:
		m.skip(8)
		got = f64
	case opRefNull:
		got = m.refType()
	case opRefFunc:
		m.reference()
		got = funcref
	case opVector:
		if m.u32() != vectorConst {
			m.fail(at, "not a constant expression")
		}
		m.skip(16)
		got = v128
	default:
		m.fail(at, "not a constant expression: opcode %#x", op)
	}
	if m.err == nil && got != want {
		m.fail(at, "constant of type %s, want %s", typeName(got), typeName(want))
	}
	if at := m.p; m.u8() != opEnd {
		m.fail(at, "constant expression of several instructions")
	}
	return value
}

// fits refuses an active segment that does not fit into size. By the specification it traps when
// the module is instantiated; wazero 1.12 lets elements pass.
func (m *module) fits(at int, offset uint32, n int, size uint64) {
	if m.err == nil && uint64(offset)+uint64(n) > size {
		m.fail(at, "segment of %d at %d does not fit into %d", n, offset, size)
	}
}

// reference reads the index of a function that may then be referred to.
func (m *module) reference() {
	if n := m.function(); m.err == nil {
		m.declared[n] = true
	}
}

// tableIndex reads the index of a table.
func (m *module) tableIndex() tableType {
	n := m.index(len(m.tables), "table")
	if m.err != nil {
		return tableType{}
	}
	return m.tables[n]
}

// table reads the index of a table and returns its element type.
func (m *module) table() byte { return m.tableIndex().refType }

func (m *module) function() uint32 { return m.index(len(m.functions), "function") }

func (m *module) memory() {
	if m.err == nil && !m.info.HasMemory {
		m.fail(m.p, "no memory")
	}
}

func (m *module) readExports() {
	n := m.count(maxExports, "exports")
	from := m.p
	seen := make(map[string]bool, n)
	for range n {
		at := m.p
		e := Export{Name: m.name(), Kind: m.u8()}
		switch e.Kind {
		case 0:
			e.Index = m.function()
			if m.err == nil {
				m.declared[e.Index] = true
				t := m.types[m.functions[e.Index]]
				e.Plain = len(t.params)+len(t.results) == 0
			}
		case 1:
			e.Index = m.index(len(m.tables), "table")
		case 2:
			e.Index = m.index(1, "memory")
			m.memory()
		case 3:
			e.Index = m.index(len(m.globals), "global")
		default:
			m.fail(at, "export of kind %d", e.Kind)
		}
		switch {
		case m.err != nil:
			return
		case strings.HasPrefix(e.Name, SavedPrefix) || slices.Contains([]string{GasGlobal, DepthGlobal, RefusedGlobal, StartExport}, e.Name):
			m.fail(at, "export %q: the name is reserved", e.Name)
		case seen[e.Name]:
			m.fail(at, "export %q twice", e.Name)
		}
		seen[e.Name] = true
		m.info.Exports = append(m.info.Exports, e)
	}
	m.exportCount = n
	m.out[sectionExport] = m.b[from:m.p]
}

func (m *module) readElements() {
	at := m.p
	flags := m.u32()
	if m.err == nil && flags > 7 {
		m.fail(at, "element segment of kind %d", flags)
		return
	}
	var t tableType
	var offset uint32
	active := flags&1 == 0
	if active {
		switch {
		case flags&2 != 0:
			t = m.tableIndex()
		case len(m.tables) == 0:
			m.fail(at, "no table 0")
		default:
			t = m.tables[0]
		}
		offset = m.constant(i32)
	}
	expressions := flags&4 != 0
	kind := funcref
	if flags&3 != 0 {
		if expressions {
			kind = m.refType()
		} else if k := m.u8(); m.err == nil && k != 0 {
			m.fail(m.p-1, "elements of kind %d", k)
		}
	}
	if m.err == nil && active && kind != t.refType {
		m.fail(at, "elements of type %s in a table of %s", typeName(kind), typeName(t.refType))
	}
	m.elements = append(m.elements, elementType{kind, flags&3 == 1})
	n := m.count(len(m.b), "elements")
	m.entries += uint64(n)
	if active {
		m.fits(at, offset, n, uint64(t.low))
	}
	for range n {
		if expressions {
			m.constant(kind)
		} else {
			m.reference()
		}
		if m.err != nil {
			return
		}
	}
}

func (m *module) readData(i int) {
	at := m.p
	flags := m.u32()
	var offset uint32
	switch flags {
	case 0, 2:
		if flags == 2 {
			m.index(1, "memory")
		}
		m.memory()
		offset = m.constant(i32)
	case 1:
	default:
		m.fail(at, "data segment of kind %d", flags)
	}
	n := m.count(len(m.b), "bytes of data")
	if flags != 1 {
		// An active segment is empty once the module runs; wazero 1.12 leaves it as it was.
		if m.err == nil && i < len(m.segments) && m.segments[i] {
			m.fail(at, "memory.init of an active segment")
		}
		m.fits(at, offset, n, uint64(m.info.MinPages)<<16)
		m.data += uint64(n)
		m.actives++
	}
	m.skip(n)
}

func (m *module) readCode() {
	at := m.p
	n := m.count(maxFunctions, "function bodies")
	if m.err == nil && n != len(m.functions)-m.imported {
		m.fail(at, "%d function bodies for %d functions", n, len(m.functions)-m.imported)
	}
	m.code = &coder{m: m, out: make([]byte, 0, len(m.b)-m.p+(len(m.b)-m.p)/2)}
	m.code.out = uleb(m.code.out, uint64(n))
	section := m.b
	for i := range n {
		at := m.p
		size := m.count(maxBodyOut, "bytes of function")
		if m.err != nil {
			return
		}
		m.b = section[:m.p+size]
		m.code.body(m.types[m.functions[m.imported+i]])
		if m.err != nil {
			return
		}
		m.b = section
		if len(m.code.out) > 2*m.MaxModule {
			m.fail(at, "instrumented module exceeds %d bytes", 2*m.MaxModule)
			return
		}
	}
	m.out[sectionCode] = m.code.out
}

// exitType is the block type of a block without parameters that leaves results.
func (m *module) exitType(results []byte) []byte {
	switch len(results) {
	case 0:
		return []byte{0x40}
	case 1:
		return results
	}
	t, ok := m.blockTypes[string(results)]
	if !ok {
		t = uint32(m.typeCount + len(m.blockTypes))
		m.blockTypes[string(results)] = t
		m.code.types = append(m.code.types, 0x60, 0)
		m.code.types = uleb(m.code.types, uint64(len(results)))
		m.code.types = append(m.code.types, results...)
	}
	return sleb(nil, int64(t))
}

// assemble writes the sections with our own additions.
func (m *module) assemble(header string) []byte {
	if n := len(m.blockTypes); n > 0 {
		_, skip := countPrefix(m.out[sectionType])
		b := uleb(nil, uint64(m.typeCount+n))
		b = append(b, m.out[sectionType][skip:]...)
		m.out[sectionType] = append(b, m.code.types...)
	}

	b := uleb(nil, uint64(len(m.globals)+3))
	b = append(b, m.out[sectionGlobal]...)
	b = append(b, i64, 1, opI64Const, 0, opEnd)
	b = append(b, i32, 1, opI32Const)
	b = append(sleb(b, int64(m.CallDepth)), opEnd)
	b = append(b, i64, 1, opI64Const)
	b = append(sleb(b, NeverRefused), opEnd)
	m.out[sectionGlobal] = b

	export := func(b []byte, name string, kind byte, index uint32) []byte {
		b = append(uleb(b, uint64(len(name))), name...)
		return uleb(append(b, kind), uint64(index))
	}
	saved := m.saved()
	n := m.exportCount + 3 + len(saved)
	if m.start >= 0 {
		n++
	}
	b = append(uleb(nil, uint64(n)), m.out[sectionExport]...)
	b = export(b, GasGlobal, 3, m.gas())
	b = export(b, DepthGlobal, 3, m.depth())
	b = export(b, RefusedGlobal, 3, m.refused())
	for i, g := range saved {
		b = export(b, SavedPrefix+strconv.Itoa(i), 3, g)
	}
	if m.start >= 0 {
		b = export(b, StartExport, 0, uint32(m.start))
	}
	m.out[sectionExport] = b

	size := len(header)
	for _, s := range m.out {
		size += len(s) + 6
	}
	out := append(make([]byte, 0, size), header...)
	for _, id := range order {
		if s := m.out[id]; len(s) > 0 {
			out = append(out, id)
			out = append(uleb(out, uint64(len(s))), s...)
		}
	}
	return out
}

// saved lists the globals that SavedPrefix names: our own, but for the gas, and the guest's.
func (m *module) saved() []uint32 {
	list := []uint32{m.depth(), m.refused()}
	for i, g := range m.globals {
		if !g.mutable {
			continue
		}
		if g.valueType != i32 && g.valueType != i64 {
			return nil
		}
		list = append(list, uint32(i))
	}
	if m.hidden || len(list) > maxSaved {
		return nil
	}
	return list
}

// countPrefix reads the number of items at the start of a section that was read before.
func countPrefix(section []byte) (n uint32, size int) {
	r := reader{b: section}
	n = r.u32()
	return n, r.p
}
