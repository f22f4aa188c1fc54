package crowd

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits bound one run. All of them are part of what is signed; only Wall is
// not deterministic, so that hitting it is a fault of the node and not a result.
type Limits struct {
	_      struct{}      `cbor:",toarray"`
	Gas    Gas           // most gas a run may use
	Memory uint64        // linear memory, bytes
	Output uint64        // stdout + stderr + files written, bytes
	Wall   time.Duration // on the executor's clock; of a batch for all its items together
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
	_          struct{} `cbor:",toarray"`
	Method     string   // one of the names below
	Verifiers  uint32   // of PlanSample: drawn nodes that check, besides the one executor
	Checks     uint32   // of PlanSample: items that each of them re-runs
	Undetected uint64   // of PlanSample: stated probability that a lie passes, in parts per 10^12, rounded up
	Executors  uint32   // of PlanCommittee: how many run the task side by side
	Rate       uint32   // of PlanAudit: least probability that the task is run again, in parts per million

	// Replacements is how many more nodes may get a place because others gave theirs up. Each of them
	// raises the probability that a lie passes: an author who keeps the inputs from honest nodes makes them give up.
	Replacements uint32
}

// DefaultReplacements is what a plan has if its owner does not say otherwise. In a pair or a committee the court takes the place
// of an executor that drops out, so that they need none. An audit's executor and a batch's nodes have nobody to take their place.
func (p *Plan) DefaultReplacements() uint32 {
	switch p.Method {
	case PlanSample:
		return 2
	case PlanAudit:
		return 1
	}
	return 0
}

// The methods of DESIGN section 8 that are built.
const (
	PlanAudit     = "audit"     // one drawn executor commits; then a lot decides whether another runs the task again, and which
	PlanPair      = "pair"      // two drawn executors commit and reveal; a difference goes to court
	PlanCommittee = "committee" // the same with more: one honest among them is enough
	PlanSample    = "sample"    // one executor; verifiers commit to answers for a secret sample of the items before it reveals
)

// Shuffle says how a batch's outputs go on to another batch, from executors to executors, past the owner.
type Shuffle struct {
	_      struct{} `cbor:",toarray"`
	Parts  uint32   // 0: nowhere. Else the lines of all items are laid out in so many files by their keys, as package batch describes
	Gather bool     // Task.Stdin is a manifest, as package batch describes: of which parts of other results each item consists
}

// JobSpec is what a consumer signs and posts.
type JobSpec struct {
	_       struct{} `cbor:",toarray"`
	Task    Task
	Items   uint32 // 0: one task. Else Task.Stdin is a frame file of so many strings, and the program runs once on each
	Shuffle Shuffle
	Plan    Plan
	Compare Compare // when two outputs are the same answer
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

	LeastSpeed Gas    = 250_000_000      // gas in a second of Wall: a slower machine is no executor
	FullSpeed  Gas    = 2_000_000_000    // gas that an executor is taken to have used in each second by the time its owner cancels
	leastStart        = 10 * time.Second // of Wall, to fetch, lay out and compile on a busy machine
	leastTouch uint64 = 64 << 20         // bytes of memory that a slow machine can touch for the first time in a second of Wall

	MaxItems      = 1 << 20 // of one job; larger batches are several jobs
	MaxItemOutput = 1 << 20 // Limits.Output of an item: it is held in memory. All items together have MaxOutput
	MaxParts      = 4096    // of one job's outputs, and items of one that gathers them: a folder of so many is one block
	MaxVerifiers  = 8
	MaxChecks     = 256

	MaxReplacements = 8

	MinCommittee = 3
	MaxCommittee = 9

	AuditFloor = 50_000 // least Plan.Rate: DESIGN section 8 (5 %). Below it nothing is ever accepted
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
		if !utf8.ValidString(a) { // neither JSON nor the encoding of a job could carry it as it is
			bad("args and env: %q is not UTF-8; put such bytes into a file", a)
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
	if s.Items > MaxItems {
		bad("items: %d, at most %d", s.Items, MaxItems)
	}
	if s.Items > 0 && t.Stdin == "" {
		bad("items: %d, and no file that holds them", s.Items)
	}
	if s.Items > 0 && l.Output > MaxItemOutput {
		bad("limits: output of %d bytes for an item, at most %d", l.Output, MaxItemOutput)
	} else if n := uint64(s.Items); n > 0 && l.Output*n > MaxOutput { // what nobody may fetch would be executed for nothing
		bad("limits: output of %d bytes for each of %d items, at most %d for all of them together", l.Output, n, uint64(MaxOutput))
	}
	switch h := s.Shuffle; {
	case h == Shuffle{}:
	case s.Items == 0 || s.Plan.Method != PlanSample:
		bad("shuffle: only between batches of plan %q", PlanSample)
	case h.Parts > MaxParts:
		bad("shuffle: %d parts, at most %d", h.Parts, MaxParts)
	case h.Gather && s.Items > MaxParts:
		bad("shuffle: %d items that gather parts, at most %d", s.Items, MaxParts)
	}
	if s.Items > 0 && s.Limits().Gas == maxGas {
		bad("limits: gas of %d for each of %d items is more than can be counted", l.Gas, s.Items)
	}
	if least := LeastWall(s.Limits()); l.Wall > 0 && l.Wall < least {
		bad("limits: a wall time of %v for %d gas and %d bytes of memory: a slow machine may need %v", l.Wall, s.Limits().Gas, l.Memory, least)
	}
	if p := s.Plan; p.Method != PlanSample && (p.Verifiers != 0 || p.Checks != 0) {
		bad("plan %q has no verifiers", p.Method)
	} else if p.Method != PlanCommittee && p.Executors != 0 {
		bad("plan %q has no number of executors", p.Method)
	} else if p.Method != PlanAudit && p.Rate != 0 {
		bad("plan %q has no rate of audits", p.Method)
	}
	if n := s.Plan.Replacements; n > MaxReplacements {
		bad("plan %q: %d replacements, at most %d", s.Plan.Method, n, MaxReplacements)
	} else if p := s.Plan.Method; n == 0 && (p == PlanAudit || p == PlanSample) {
		bad("plan %q: no replacement; its one executor needs at least one, as nobody could confirm that the task cannot be done", p)
	}
	switch p := s.Plan; p.Method {
	case PlanPair:
	case PlanAudit:
		if s.Items > 0 {
			bad("plan %q is for a single task", p.Method)
		}
		if p.Rate < AuditFloor || p.Rate > 1e6 {
			bad("plan %q: a rate of %d ppm, want %d to 1000000: no work goes without the floor", p.Method, p.Rate, AuditFloor)
		}
	case PlanCommittee:
		if s.Items > 0 {
			bad("plan %q is for a single task", p.Method)
		}
		if p.Executors < MinCommittee || p.Executors > MaxCommittee {
			bad("plan %q: %d executors, want %d to %d", p.Method, p.Executors, MinCommittee, MaxCommittee)
		}
	case PlanSample:
		if s.Items == 0 {
			bad("plan %q is for many items", p.Method)
		}
		if p.Verifiers == 0 || p.Verifiers > MaxVerifiers || p.Checks == 0 || p.Checks > MaxChecks {
			bad("plan %q: %d verifiers with %d checks each, want 1 to %d with 1 to %d", p.Method, p.Verifiers, p.Checks, MaxVerifiers, MaxChecks)
		}
	default:
		bad("plan %q: unknown; known: %s, %s, %s, %s", p.Method, PlanAudit, PlanPair, PlanCommittee, PlanSample)
	}
	if err := s.Compare.Validate(); err != nil {
		errs = append(errs, err)
	}
	if tolerant := !s.Compare.Strict(); tolerant && s.Plan.Method == PlanAudit {
		bad("compare: under the plan %q nearly nobody looks at an output, so that an executor could leave its output out of a tolerant job; use %q", PlanAudit, PlanPair)
	} else if tolerant && s.Items > 0 && s.Plan.Method != PlanSample {
		bad("compare: the plan %q for %d items compares every byte", s.Plan.Method, s.Items)
	} else if tolerant && s.Shuffle != (Shuffle{}) {
		bad("compare: outputs that go on to other executors are compared byte for byte, as their parts are cut from the bytes")
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

const maxGas = ^Gas(0)

// LeastWall is the shortest Wall for such limits, whose gas is the whole job's. A run ends by its gas before Wall ends it, on
// every machine that may execute: what Wall ends is nobody's outcome.
func LeastWall(l Limits) time.Duration {
	wall := leastStart + time.Duration(min(l.Memory, MaxMemory)/(leastTouch/1000))*time.Millisecond
	const each = uint64(LeastSpeed / 1000)
	ms := uint64(l.Gas) / each
	if uint64(l.Gas)%each > 0 {
		ms++
	}
	return wall + time.Duration(min(ms, uint64(MaxWall/time.Millisecond)+1))*time.Millisecond
}

// Limits of the whole job: those of one item hold for its gas, memory and output, and Wall
// is for all together. Gas and output saturate.
func (s *JobSpec) Limits() Limits {
	l := s.Task.Limits
	if n := uint64(s.Items); n > 1 {
		if hi, lo := bits.Mul64(uint64(l.Gas), n); hi == 0 {
			l.Gas = Gas(lo)
		} else {
			l.Gas = maxGas
		}
		if hi, lo := bits.Mul64(l.Output, n); hi == 0 {
			l.Output = min(lo, MaxOutput)
		} else {
			l.Output = MaxOutput
		}
	}
	return l
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
	Gas      Gas    // used, at most Limits.Gas; of all items together
	Result   CID    // folder with stdout, stderr and out/; of a batch the one that package batch describes
	Root     Hash   // of a batch: top of the Merkle-sum tree over its items' outcomes
	Leaves   CID    // of a batch: file with the leaves of that tree, one after another
}

// UserError reports whether the program or its input is to blame: paid, never retried.
func (o Outcome) UserError() bool { return o.Status != Exited || o.ExitCode != 0 }

func (o Outcome) String() string {
	if o.Status == Exited {
		return fmt.Sprintf("exit %d, %d gas, result %s", o.ExitCode, o.Gas, o.Result)
	}
	return fmt.Sprintf("%s, %d gas, result %s", o.Status, o.Gas, o.Result)
}
