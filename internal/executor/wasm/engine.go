//go:build linux

package wasm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor/wasm/instrument"
)

// Names of the engines.
const (
	Wasmtime = "wasmtime" // cgo; native code, cached on disk
	Wazero   = "wazero"   // pure Go; compiles once per worker
)

// engine turns an instrumented module into code and code into runs. It is used
// from one goroutine.
type engine interface {
	// compile validates a module and makes what load takes. An errModule is a property of the
	// module, every other error this machine's. Only code that this machine made is ever loaded.
	compile(module []byte) (code []byte, err error)
	load(code []byte) (program, error)
}

// program is loaded code.
type program interface {
	// open makes a module's memory, of at most so many bytes, and what else it begins with. It calls nothing.
	open(memory uint64) (running, error)
}

// running is a module in memory of its own.
type running interface {
	instance
	has(export string) bool
	// call runs an exported function for h. What host functions ended is in h.end; what the program did to
	// itself is in the error.
	call(export string, h *host) error
	grow(pages uint64) error                       // of memory, by so many
	global(name string) (value uint64, there bool) // one of instrument's
	setGlobal(name string, value uint64)           // which is there
	close()
}

// What the host calls. A command exports _start; a reactor exports _initialize, which is
// called before the item is known, and crowd_item, which is called for it.
const (
	startExport = "_start"
	initExport  = "_initialize"
	itemExport  = "crowd_item"
)

// startable says whether a module can be run, from whether it exports functions without parameters and results.
func startable(plain func(name string) bool) bool {
	return plain(startExport) || plain(initExport) && plain(itemExport)
}

// run runs a program once, from nothing. left is the gas at the end.
func run(p program, h *host, gas int64, memory uint64) (left int64, err error) {
	r, err := p.open(memory)
	if err != nil {
		return gas, err
	}
	defer r.close()
	r.setGas(gas)
	if err = begin(r, h); err == nil {
		err = finish(r, h)
	}
	h.refused(granted(r), memory)
	return r.gas(), err
}

// begin runs what comes before the item. In a reactor randomness is the same for all items until then.
func begin(r running, h *host) (err error) {
	reactor := !r.has(startExport)
	if reactor {
		h.early = true
		h.seed(crowd.Hash{})
	}
	if r.has(instrument.StartExport) {
		err = r.call(instrument.StartExport, h)
	}
	if reactor && err == nil {
		err = r.call(initExport, h)
		h.early = false
		h.seed(h.own)
	}
	return err
}

// finish runs the item.
func finish(r running, h *host) error {
	if r.has(startExport) {
		return r.call(startExport, h)
	}
	return r.call(itemExport, h)
}

// granted is what host.refused wants to know.
func granted(r running) uint64 {
	pages, _ := r.global(instrument.RefusedGlobal)
	return pages
}

// errModule marks what is wrong with a module on every machine.
var errModule = errors.New("invalid module")

var errNoStart = fmt.Errorf("%w: no function _start without parameters and results is exported, nor both _initialize and crowd_item", errModule)

// A trap is the program's own end.
type trap struct{ reason string }

func (t *trap) Error() string { return t.reason }

// cause is an engine's message without the stack before the cause, on one line: what people read.
func cause(message string) string {
	if _, after, found := strings.Cut(message, "Caused by:"); found {
		message = after
	}
	return strings.Join(strings.Fields(message), " ")
}

// errEngine marks an end that depends on the engine, such as its stack running
// out below the depth limit: a fault of this machine and no trap.
var errEngine = errors.New("engine")

// Engines lists the engines of this build, the default first.
func Engines() []string { return slices.Clone(engineNames) }

func newEngine(name string) (engine, error) {
	if name == "" {
		name = engineNames[0]
	}
	if f, is := engines[name]; is {
		return f()
	}
	return nil, fmt.Errorf("engine %q: this build has %v", name, engineNames)
}

func outOfGas(l crowd.Limits) ending {
	return ending{status: crowd.OutOfGas, reason: fmt.Sprintf("all of %d gas used", l.Gas)}
}

// verdict says how a run ended, from what the engine and the host functions left.
func verdict(h *host, limits crowd.Limits, left int64, err error) (end ending, used crowd.Gas) {
	gas := min(uint64(limits.Gas), maxGas)
	if h.end.fault != nil {
		return h.end, 0
	}
	if left < 0 {
		return outOfGas(limits), limits.Gas
	}
	used = crowd.Gas(gas - min(uint64(left), gas))
	if h.end.status != 0 {
		return h.end, used
	}
	var t *trap
	switch {
	case err == nil:
		return ending{status: crowd.Exited}, used
	case errors.As(err, &t):
		return ending{status: crowd.Trapped, reason: t.reason}, used
	}
	h.fail(err)
	return h.end, 0
}
