package instrument

// effort estimates the processor time that an optimising compiler takes, in nanoseconds of the reference machine. Code is
// compiled in linear time but for three things, each of which lets a few kilobytes take minutes. The compiler gives a name
// to each value that may come out of several: where control flow meets, one for each local that was set on some way
// there, so that few bytes name a great many values, and these have to be moved on each edge. Its register allocator looks at
// the same value again in each block, deeper loops first. And it looks again at whatever is alive at once.
//
// The figures were measured with wasmtime 43 on modules made to be slow, and rounded up. On what compilers
// of C and Go make, the estimate comes to the time that it takes. It decides outcomes: every machine makes the same.
type effort struct {
	total uint64 // of what has ended

	// of the function so far
	sets, uses uint64 // instructions that set a local, and that name one
	loops      uint64 // open
	depths     uint64 // loops round each basic block, added up
	hidden     uint64 // basic blocks that the compiler makes of a single instruction
}

// meet is what comes together at the label of a control construct.
type meet struct {
	edges      uint64 // branches there
	from       int    // position of the last of them
	sets, uses uint64 // of the function, when the construct was entered
}

// Nanoseconds, measured.
const (
	effortByte     = 250    // of an instrumented function
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
	maxEfforts = 16_000_000_000
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

// leave is called at the end of f, in a function of so many locals.
func (e *effort) leave(f *frame, locals int) {
	inside, carried, edges := e.sets-f.sets, len(f.results), f.edges+1
	switch f.op {
	case opLoop:
		e.loops--
		inside, carried = e.uses-f.uses, len(f.params)
	case opIf:
		edges++ // that goes past it
	case 0:
		inside = 0 // locals end here
	}
	if edges == 1 && f.op != opLoop {
		return
	}
	width := min(inside+1, uint64(locals)) + uint64(carried) // and the gas
	e.total += edges * width * (250 + 50*width + 13*edges)
}

// end is called when a function of so many instrumented bytes has been read.
func (e *effort) end(size, blocks, locals, peak int) {
	n, l, p := uint64(blocks)+e.hidden, uint64(locals), uint64(peak)
	e.total += effortFunction + effortByte*uint64(size) + n*(20*n+6*e.depths+l/8) + 24*p*p
}
