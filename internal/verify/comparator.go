package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/crowdcompute/crowd"
)

// Kind names a way to compare two outputs of one task.
type Kind string

const (
	Exact   Kind = "exact"              // byte for byte; the default
	Text    Kind = crowd.CompareNumeric // tokens apart by white space; numbers within a tolerance, all else equal
	Float64 Kind = crowd.CompareFloat64 // little-endian IEEE 754 arrays within a tolerance
	Float32 Kind = crowd.CompareFloat32
	Lines   Kind = crowd.CompareLines // the same lines as often, in any order
	JSON    Kind = crowd.CompareJSON  // the same value, whatever order of keys, white space and way of writing a number
	Wasm    Kind = crowd.CompareWasm  // the app's own program, handed in
)

func (k Kind) known() bool {
	return slices.Contains([]Kind{Exact, Text, Float64, Float32, Lines, JSON, Wasm}, k)
}

// Comparator says when two outputs are the same answer. All kinds but Wasm are
// reflexive and symmetric for any bytes; none with a tolerance is transitive, so
// that outputs are only ever compared with the one that is disputed.
//
// Numbers x and y are the same if |x-y| ≤ max(Abs, Rel·max(|x|, |y|)); an
// infinity is the same as itself only; NaN is the same as NaN, whatever its bits,
// and as nothing else; zeros of both signs are the same.
type Comparator struct {
	Kind Kind
	Abs  float64 // of numbers; 0 or more
	Rel  float64 // of numbers; 0 up to, and not including, 1
	// Run executes the app's comparator on two outputs and says how much gas it took;
	// it must stop by itself at Gas. An error that wraps ErrComparator is the
	// program's own (trap, out of gas, an answer that is none); others are the node's. Kind Wasm only.
	Run func(a, b []byte) (equal bool, gas uint64, err error)
	Gas uint64 // most that one run may use
}

// Verdict is what comparing two outputs came to.
type Verdict struct {
	Equal bool   // they are the same answer
	Exact bool   // they are the same bytes
	Where string // what differs first; "" if Equal
	Gas   uint64 // by the app's comparator, in all of its runs
}

// Bounds on what is compared. Memory used beside the outputs is at most about eight times as much.
const (
	MaxCompare = 64 << 20 // bytes of one output, but for Exact, which knows no bound
	MaxJSON    = 4 << 20  // bytes of one output as JSON
	MaxLines   = 1 << 22  // lines of one output
	maxDepth   = 100      // of nested JSON
)

// ErrTooLarge: an output is larger than this way of comparing takes.
var ErrTooLarge = errors.New("too large to compare so")

// ErrComparator: an app's comparator failed by itself.
var ErrComparator = errors.New("the comparator failed")

// ComparatorFault is the user's fault: the app's comparator loops, traps or lies,
// and nobody who ran the task is to blame for what it says.
type ComparatorFault struct {
	Why string
	Err error // may be nil
}

func (e *ComparatorFault) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("the app's comparator %s: %v", e.Why, e.Err)
	}
	return "the app's comparator " + e.Why
}

func (e *ComparatorFault) Unwrap() error { return e.Err }

// Validate reports everything that is wrong with c at once.
func (c Comparator) Validate() error {
	var errs []error
	if !c.Kind.known() {
		errs = append(errs, fmt.Errorf("comparator %q: unknown", c.Kind))
	}
	if !(c.Abs >= 0 && c.Abs <= math.MaxFloat64) || !(c.Rel >= 0 && c.Rel < 1) {
		errs = append(errs, fmt.Errorf("tolerances %v absolute and %v relative: want a number from 0 on, and one from 0 up to 1", c.Abs, c.Rel))
	}
	if numeric := c.Kind == Text || c.Kind == Float64 || c.Kind == Float32; !numeric && (c.Abs != 0 || c.Rel != 0) {
		errs = append(errs, fmt.Errorf("comparator %q takes no tolerance", c.Kind))
	}
	if (c.Kind == Wasm) != (c.Run != nil) || (c.Kind == Wasm) != (c.Gas > 0) {
		errs = append(errs, errors.New("a program and its gas belong to the comparator wasm, and only to it"))
	}
	return errors.Join(errs...)
}

// Compare says whether a and b, outputs of two runs of one task, are the same
// answer. Equal bytes always are. An error is no verdict: a *ComparatorFault is
// the user's, ErrTooLarge the output's.
func (c Comparator) Compare(a, b []byte) (Verdict, error) {
	if err := c.Validate(); err != nil {
		return Verdict{}, err
	}
	if c.Kind != Exact && max(len(a), len(b)) > MaxCompare {
		return Verdict{}, fmt.Errorf("compare outputs of %d and %d bytes by %q: at most %d: %w", len(a), len(b), c.Kind, MaxCompare, ErrTooLarge)
	}
	if c.Kind == Wasm {
		return c.run(a, b)
	}
	if bytes.Equal(a, b) {
		return Verdict{Equal: true, Exact: true}, nil
	}
	where, err := "", error(nil)
	switch c.Kind {
	case Exact:
		where = firstByte(a, b)
	case Text:
		where = c.text(a, b, nil)
	case Float64:
		where = c.array(a, b, 8, nil)
	case Float32:
		where = c.array(a, b, 4, nil)
	case Lines:
		where, err = compareLines(a, b)
	case JSON:
		where, err = compareJSON(a, b)
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("compare by %q: %w", c.Kind, err)
	}
	return Verdict{Equal: where == "", Where: where}, nil
}

func firstByte(a, b []byte) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	if i == min(len(a), len(b)) {
		return fmt.Sprintf("%d bytes against %d, equal as far as they go", len(a), len(b))
	}
	return fmt.Sprintf("byte %d: %#02x against %#02x", i, a[i], b[i])
}

// run asks the app's comparator, and whether it may be believed: each output must
// equal itself, and the order of the two must not matter.
func (c Comparator) run(a, b []byte) (v Verdict, err error) {
	var used uint64
	counted := c
	counted.Run = func(a, b []byte) (bool, uint64, error) {
		equal, gas, err := c.Run(a, b)
		if used += gas; used < gas {
			used = math.MaxUint64
		}
		return equal, gas, err
	}
	defer func() { v.Gas = used }()
	var answers [4]bool
	for i, pair := range [4][2][]byte{{a, a}, {b, b}, {a, b}, {b, a}} {
		if answers[i], err = counted.ask(pair[0], pair[1]); err != nil {
			return Verdict{}, err
		}
	}
	if !answers[0] || !answers[1] {
		return Verdict{}, &ComparatorFault{Why: "says that an output is not the same as itself"}
	}
	if answers[2] != answers[3] {
		return Verdict{}, &ComparatorFault{Why: "gives another answer when the outputs change places"}
	}
	v.Equal, v.Exact = answers[2], bytes.Equal(a, b)
	if v.Exact && !v.Equal {
		return Verdict{}, &ComparatorFault{Why: "says that equal outputs differ"}
	}
	if !v.Equal {
		v.Where = "the app's comparator says so"
	}
	return v, nil
}

// ask runs the app's comparator once.
func (c Comparator) ask(a, b []byte) (bool, error) {
	// Copies: what runs must not change what is judged.
	equal, gas, err := c.Run(bytes.Clone(a), bytes.Clone(b))
	switch {
	case gas > c.Gas:
		return false, &ComparatorFault{Why: fmt.Sprintf("used %d gas of %d", gas, c.Gas)}
	case errors.Is(err, ErrComparator):
		return false, &ComparatorFault{Why: "failed", Err: err}
	case err != nil:
		return false, fmt.Errorf("run the app's comparator: %w", err)
	}
	return equal, nil
}

// spread is the largest differences between finite numbers that were seen.
type spread struct{ abs, rel float64 }

// near reports whether x and y are the same number within c's tolerance.
func (c Comparator) near(x, y float64, seen *spread) bool {
	switch {
	case x == y || math.IsNaN(x) && math.IsNaN(y):
		return true
	case math.IsNaN(x) || math.IsNaN(y) || math.IsInf(x, 0) || math.IsInf(y, 0):
		return false
	}
	d, m := math.Abs(x-y), max(math.Abs(x), math.Abs(y)) // d of two huge numbers may be infinite: above any tolerance
	if seen != nil {
		seen.abs, seen.rel = max(seen.abs, d), max(seen.rel, d/m)
	}
	return d <= max(c.Abs, c.Rel*m)
}

// array compares two arrays of numbers of that many bytes; bytes left over must be equal.
func (c Comparator) array(a, b []byte, size int, seen *spread) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d bytes against %d", len(a), len(b))
	}
	at := func(p []byte) float64 {
		if size == 4 {
			return float64(math.Float32frombits(binary.LittleEndian.Uint32(p)))
		}
		return math.Float64frombits(binary.LittleEndian.Uint64(p))
	}
	i := 0
	for ; i+size <= len(a); i += size {
		if x, y := at(a[i:]), at(b[i:]); !c.near(x, y, seen) {
			return fmt.Sprintf("number %d: %v against %v", i/size, x, y)
		}
	}
	if !bytes.Equal(a[i:], b[i:]) {
		return fmt.Sprintf("the %d bytes behind the last number", len(a)-i)
	}
	return ""
}
