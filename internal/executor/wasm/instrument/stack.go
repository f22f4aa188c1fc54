package instrument

// stack checks the types of a body as the validation algorithm in the appendix of the
// WebAssembly specification does. It is here, and not left to the engines, because they
// do not agree: wazero 1.12 does not look at the type of a typed select.
type stack struct {
	values []byte  // types of the operands; unknown where unreachable code leaves them open
	frames []frame // open control constructs; frames[0] is the function
	locals []byte  // types of parameters and locals
	peak   int     // most values at a time
}

const unknown byte = 0

type frame struct {
	op     byte // opBlock, opLoop, opIf, opElse; 0 for the function
	dead   bool // entered in dead code
	target bool // a reachable branch leads here
	open   bool // the rest cannot be reached: the stack below is open
	height int  // of the stack outside
	meet        // what comes together at its label
	funcType
}

// label is the types that a branch to f carries.
func (f *frame) label() []byte {
	if f.op == opLoop {
		return f.params
	}
	return f.results
}

func typeName(t byte) string {
	switch t {
	case i32:
		return "i32"
	case i64:
		return "i64"
	case f32:
		return "f32"
	case f64:
		return "f64"
	case v128:
		return "v128"
	case funcref:
		return "funcref"
	case externref:
		return "externref"
	}
	return "a value"
}

func (m *module) push(t byte) {
	m.values = append(m.values, t)
	m.peak = max(m.peak, len(m.values))
}

// pop takes a value of type want, or of any type where want is unknown.
func (m *module) pop(want byte) byte {
	f := &m.frames[len(m.frames)-1]
	last := len(m.values) - 1
	if last < f.height {
		if !f.open {
			m.fail(m.p, "%s wanted, the stack is empty", typeName(want))
		}
		return want
	}
	t := m.values[last]
	m.values = m.values[:last]
	if t != want && t != unknown && want != unknown {
		m.fail(m.p, "%s wanted, got %s", typeName(want), typeName(t))
	}
	return t
}

func (m *module) pushAll(types []byte) {
	m.values = append(m.values, types...)
	m.peak = max(m.peak, len(m.values))
}

// spend bounds the work that few bytes can cause: a branch of two can name a thousand values.
func (m *module) spend(values int) {
	if m.work += values; m.work > maxWork {
		m.fail(m.p, "too many values in locals, blocks, branches and calls")
	}
}

// popAll takes values of the types given, the last one first.
func (m *module) popAll(types []byte) {
	m.spend(len(types))
	for i := len(types) - 1; i >= 0 && m.err == nil; i-- {
		m.pop(types[i])
	}
}

func (m *module) shape(in, out string) {
	for i := len(in) - 1; i >= 0; i-- {
		m.pop(in[i])
	}
	for i := range len(out) {
		m.push(out[i])
	}
}

// jumped says that control does not get past here.
func (m *module) jumped() {
	f := &m.frames[len(m.frames)-1]
	m.values = m.values[:min(f.height, len(m.values))]
	f.open = true
}

// enter opens a construct, whose parameters have been taken off the stack.
func (m *module) enter(op byte, dead bool, t funcType) {
	m.frames = append(m.frames, frame{op: op, dead: dead, height: len(m.values), funcType: t})
	m.pushAll(t.params)
}

// leave ends the innermost construct: its results, and nothing else, must be there.
func (m *module) leave() frame {
	last := len(m.frames) - 1
	f := m.frames[last]
	m.popAll(f.results)
	if m.err == nil && len(m.values) != f.height {
		m.fail(m.p, "%d values too many at the end of a block", len(m.values)-f.height)
	}
	m.frames = m.frames[:last]
	return f
}

// branchTable checks the labels of a br_table against the operands.
func (m *module) branchTable(labels []uint32) {
	m.pop(i32)
	if m.err != nil {
		return
	}
	frameOf := func(label uint32) *frame { return &m.frames[len(m.frames)-1-int(label)] }
	standard := frameOf(labels[len(labels)-1]).label()
	var before []byte
	for i, l := range labels {
		t := frameOf(l).label()
		if len(t) != len(standard) {
			m.fail(m.p, "labels with different numbers of values")
		}
		if m.err != nil {
			return
		}
		if i > 0 && (len(t) == 0 || &t[0] == &before[0]) {
			continue // just checked
		}
		before = t
		from := len(m.values)
		m.popAll(t)
		if m.err != nil {
			return
		}
		// Put back what was there; below an open frame's bottom there was nothing.
		m.values = m.values[:from]
	}
	m.jumped()
}
