package crowd

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits bound one run. All of them are part of what is signed; only Wall is
// not deterministic, so that hitting it is a fault of the node and not a result.
type Limits struct {
	_      struct{}      `cbor:",toarray"`
	Gas    Gas           // most gas a run may use
	Memory uint64        // linear memory, bytes
	Output uint64        // stdout + stderr + files written, bytes
	Wall   time.Duration // on the executor's clock
}

// Task is one program on one input: all that decides the outcome, byte for byte.
type Task struct {
	_       struct{} `cbor:",toarray"`
	Program CID      // a file: a WebAssembly module, WASI preview 1
	Inputs  CID      // a folder, mounted read-only at /in; "" for none
	Stdin   CID      // a file; "" for empty
	Args    []string // without the program's name, which is always "program"
	Env     []string // NAME=value
	Seed    Hash     // of the random numbers that the program sees
	Limits  Limits
}

// Filters say which providers may be drawn. They are fixed before the lot is known.
type Filters struct {
	_         struct{} `cbor:",toarray"`
	MaxPrice  Price
	Tags      []string // each must be offered
	Countries []string // ISO 3166-1 alpha-2; any of them; empty: everywhere
	Providers []NodeID // any of them; empty: everyone
}

// Plan says how a result is checked. There is no plan without a check.
type Plan struct {
	_      struct{} `cbor:",toarray"`
	Method string   // "pair": two drawn executors commit and reveal; a difference goes to court
}

// PlanPair is the plan of a single deterministic task, DESIGN section 8.
const PlanPair = "pair"

// JobSpec is what a consumer signs and posts.
type JobSpec struct {
	_       struct{} `cbor:",toarray"`
	Task    Task
	Plan    Plan
	Filters Filters
	Budget  Credits // most that may be locked in escrow
}

// Bounds on a spec from outside.
const (
	MaxArgs     = 256
	MaxArgBytes = 16 << 10 // args and env together
	MaxFilter   = 64       // entries in any one filter
	MaxWall     = 24 * time.Hour
	MaxMemory   = 4 << 30
	MaxOutput   = 64 << 30
)

// Validate reports everything that is wrong with s at once.
func (s *JobSpec) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	t := &s.Task
	if t.Program == "" {
		bad("program: none given")
	}
	for _, c := range []CID{t.Program, t.Inputs, t.Stdin} {
		if len(c) > MaxCID {
			bad("CID of %d bytes, at most %d", len(c), MaxCID)
		}
	}
	size := 0
	for _, a := range append(append([]string(nil), t.Args...), t.Env...) {
		size += len(a)
		if strings.ContainsRune(a, 0) {
			bad("args and env: a zero byte in %q", a)
		}
	}
	if len(t.Args) > MaxArgs || len(t.Env) > MaxArgs || size > MaxArgBytes {
		bad("args and env: %d and %d entries, %d bytes; at most %d each, %d bytes together",
			len(t.Args), len(t.Env), size, MaxArgs, MaxArgBytes)
	}
	for _, e := range t.Env {
		if i := strings.IndexByte(e, '='); i < 1 {
			bad("env %q: want NAME=value", e)
		}
	}
	l := t.Limits
	if l.Gas == 0 {
		bad("limits: gas is zero")
	}
	if l.Memory == 0 || l.Memory > MaxMemory {
		bad("limits: memory of %d bytes, want 1 to %d", l.Memory, uint64(MaxMemory))
	}
	if l.Output > MaxOutput {
		bad("limits: output of %d bytes, at most %d", l.Output, uint64(MaxOutput))
	}
	if l.Wall <= 0 || l.Wall > MaxWall {
		bad("limits: wall time of %v, want up to %v", l.Wall, MaxWall)
	}
	if s.Plan.Method != PlanPair {
		bad("plan %q: unknown; known: %s", s.Plan.Method, PlanPair)
	}
	f := s.Filters
	if len(f.Tags) > MaxFilter || len(f.Countries) > MaxFilter || len(f.Providers) > MaxFilter {
		bad("filters: at most %d entries each", MaxFilter)
	}
	for _, x := range append(append([]string(nil), f.Tags...), f.Countries...) {
		if len(x) > MaxFilter {
			bad("filters: %q is longer than %d bytes", x[:MaxFilter], MaxFilter)
		}
	}
	return errors.Join(errs...)
}

// ID is the identity of s when posted by owner with that account nonce.
func (s *JobSpec) ID(owner NodeID, nonce uint64) JobID {
	return JobID(Digest("job", struct {
		_     struct{} `cbor:",toarray"`
		Owner NodeID
		Nonce uint64
		Spec  *JobSpec
	}{Owner: owner, Nonce: nonce, Spec: s}))
}

// Status is how a deterministic run ended. Append only.
type Status uint8

const (
	Exited     Status = iota + 1 // the program ended by itself; see ExitCode
	OutOfGas                     // it used all of Limits.Gas
	Trapped                      // unreachable, memory or table out of bounds, division by zero, call depth
	OutputFull                   // it wrote more than Limits.Output
	Invalid                      // the bytes are no program that we run: malformed, threads, unknown imports
	NoInput                      // an input CID names nothing usable as what the task says it is
)

var statusNames = [...]string{"", "exited", "out of gas", "trapped", "output limit exceeded", "invalid program", "unusable input"}

func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Outcome is what a run comes to: the same on every honest machine.
// Anything that may differ between honest machines is a fault, never an outcome.
type Outcome struct {
	_        struct{} `cbor:",toarray"`
	Status   Status
	ExitCode uint32 // of an Exited program
	Gas      Gas    // used, at most Limits.Gas
	Result   CID    // folder with stdout, stderr and out/
}

// UserError reports whether the program or its input is to blame: paid, never retried.
func (o Outcome) UserError() bool { return o.Status != Exited || o.ExitCode != 0 }

func (o Outcome) String() string {
	if o.Status == Exited {
		return fmt.Sprintf("exit %d, %d gas, result %s", o.ExitCode, o.Gas, o.Result)
	}
	return fmt.Sprintf("%s, %d gas, result %s", o.Status, o.Gas, o.Result)
}
