//go:build linux

package wasm

import (
	"errors"
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd"
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

type program interface {
	// run calls what the module starts with, and _start. What host functions ended is in h.end; what the program
	// did to itself is in the returned error. left is the gas at the end.
	run(h *host, gas int64, memory uint64) (left int64, err error)
}

// startExport is what the host calls; programs are commands, not libraries.
const startExport = "_start"

// errModule marks what is wrong with a module on every machine.
var errModule = errors.New("invalid module")

var errNoStart = fmt.Errorf("%w: no function _start without parameters and results is exported", errModule)

// A trap is the program's own end.
type trap struct{ reason string }

func (t *trap) Error() string { return t.reason }

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

// verdict says how a run ended, from what the engine and the host functions left.
func verdict(h *host, limits crowd.Limits, left int64, err error) (end ending, used crowd.Gas) {
	gas := min(uint64(limits.Gas), maxGas)
	if h.end.fault != nil {
		return h.end, 0
	}
	if left < 0 {
		return ending{status: crowd.OutOfGas, reason: fmt.Sprintf("all of %d gas used", limits.Gas)}, limits.Gas
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
