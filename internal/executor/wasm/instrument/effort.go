package instrument

import "slices"

// effort estimates the processor time that an optimising compiler takes, in nanoseconds of the reference machine. Code is
// compiled in linear time but for three things, each of which lets a few kilobytes take minutes. The compiler gives a name
// to each value that may come out of several: where control flow meets, one for each local that was set on some way
// there and is read later, so that few bytes name a great many values, and these have to be moved on each edge. Its register
// allocator looks at the same value again in each block, deeper loops first. And it looks again at whatever is alive at once.
//
// The figures were measured with wasmtime 43 on modules made to be slow, and rounded up: none took much longer than its estimate. What
// compilers of C and Go make takes about half of it. It decides outcomes: every machine makes the same.
type effort struct {
	total uint64 // of what has ended

	// of the function so far
	block      uint32   // number of the basic block
	locals     []uint32 // of each local, the number of the block that set it last; exposed
	wide       uint64   // locals that are read in another block than the one that set them last: the others meet nowhere
	sets, uses uint64   // instructions that set a local, and that read one
	loops      uint64   // open
	depths     uint64   // loops round each basic block, added up
	hidden     uint64   // basic blocks that the compiler makes of a single instruction
	meets      []meeting
}

const exposed = 1 << 31 // in effort.locals: it is one of the wide

// meeting is a place where control flow meets.
type meeting struct{ edges, inside, carried uint64 }

// begin is called before a function of so many locals is read.
func (e *effort) begin(locals int) {
	*e = effort{locals: slices.Grow(e.locals[:0], locals)[:locals], meets: e.meets[:0], block: 1}
	clear(e.locals)
}

// set and use are called for an instruction that sets, or reads, a local.
func (e *effort) set(n uint32) {
	e.sets++
	e.locals[n] = e.locals[n]&exposed | e.block
}

func (e *effort) use(n uint32) {
	e.uses++
	if e.locals[n]&exposed == 0 && e.locals[n] != e.block {
		e.locals[n] |= exposed
		e.wide++
	}
}

// next is called where a basic block ends.
func (e *effort) next() {
	e.block++
	e.depths += e.loops
}

// meet is what comes together at the label of a control construct.
type meet struct {
	edges      uint64 // branches there
	from       int    // position of the last of them
	sets, uses uint64 // of the function, when the construct was entered
}

// Nanoseconds, measured.
const (
	effortByte     = 500    // of an instrumented function
	effortFunction = 70_000 // and what calls it from outside
	effortType     = 55_000 // its code for calls from outside
	effortValue    = 130    // a parameter, result or local, of a function, block, branch or call
	effortLabel    = 1_300  // of a br_table
	effortCall     = 4_000
	effortTable    = 25_000 // an indirect call, or access to a table
	effortBulk     = 15_000 // an operation on bulk memory
	effortGrow     = 75_000 // with what is noted about it
)

const (
	// maxEffort bounds one function, which is compiled by one processor, and maxEfforts a module. Compilers come nowhere near
	// the former: the largest function of Go's libraries has two thousand blocks and takes a fortieth of it.
	maxEffort  = 5_000_000_000
	maxEfforts = 24_000_000_000
)

// tabled counts an access to a table, which may have to fill it in.
func (e *effort) tabled() {
	e.total += effortTable
	e.hidden++
}

// enter is called where a construct begins.
func (e *effort) enter(op byte) meet {
	if op == opLoop {
		e.loops++
	}
	return meet{sets: e.sets, uses: e.uses, from: -1}
}

// leave is called at the end of f.
func (e *effort) leave(f *frame) {
	m := meeting{f.edges + 1, e.sets - f.sets, uint64(len(f.results))}
	switch f.op {
	case opLoop:
		e.loops--
		m.inside, m.carried = e.uses-f.uses, uint64(len(f.params))
	case opIf:
		m.edges++ // that goes past it
	case 0:
		m.inside = 0 // locals end here
	}
	if m.edges > 1 || f.op == opLoop {
		e.meets = append(e.meets, m)
	}
}

// end is called when a function of so many instrumented bytes has been read.
func (e *effort) end(size, peak int) {
	n, p, values := uint64(e.block)+e.hidden, uint64(peak), uint64(0)
	for _, m := range e.meets {
		width := min(m.inside, e.wide) + 1 + m.carried // and the gas
		values += m.edges * width
		e.total += m.edges * width * (250 + 50*width + 13*m.edges)
	}
	e.total += effortFunction + effortByte*uint64(size) + n*(12*n+6*e.depths+3*values+e.wide/8) + 24*p*p
}
