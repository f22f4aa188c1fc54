package crowd

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Compare says when two outputs of one task are the same answer. The zero value is the class
// strict: every byte. Every other is the class tolerant: honest machines may differ, but no further
// than this. There is no third class, of tasks whose runs have nothing in common: nobody could check them.
type Compare struct {
	_       struct{} `cbor:",toarray"`
	Kind    string   // one of the names below
	Abs     uint64   // of numbers: how far apart they may be, in parts per 10^12; the larger of both tolerances counts
	Rel     uint64   // of numbers: the same, as a share of the larger one
	GasPPM  uint32   // how far apart the gas of two runs may be, of the larger; the lower is paid
	Program CID      // of CompareWasm: compares /in/a with /in/b and exits with 0 if they are the same answer, else with 1
	Gas     Gas      // of CompareWasm: most that one run of it may use
}

// Ways to compare. Standard output and every file in /out are compared, what is on standard error is talk.
const (
	CompareExact   = ""        // byte for byte
	CompareNumeric = "numeric" // tokens apart by white space; numbers within a tolerance, all else equal
	CompareFloat64 = "float64" // little-endian IEEE 754 arrays within a tolerance
	CompareFloat32 = "float32"
	CompareLines   = "lines" // the same lines as often, in any order
	CompareJSON    = "json"  // the same value, whatever order of keys, white space and way of writing a number
	CompareWasm    = "wasm"  // the app's own program
)

// Of comparing.
const (
	Parts             = 1_000_000_000_000 // of Abs and Rel
	MaxCompareGas Gas = 4_000_000_000
	autoCompare   Gas = 2_000_000_000
)

// Strict reports whether every byte counts.
func (c Compare) Strict() bool { return c == Compare{} }

// Class is the determinism class that c declares.
func (c Compare) Class() string {
	if c.Strict() {
		return "strict"
	}
	return "tolerant"
}

// NearGas reports whether two runs that used that much may be runs of one task.
func (c Compare) NearGas(a, b Gas) bool {
	most, apart := max(a, b), max(a, b)-min(a, b)
	return apart <= most/1e6*Gas(c.GasPPM)+most%1e6*Gas(c.GasPPM)/1e6
}

// Validate reports what is wrong with c.
func (c Compare) Validate() error {
	numeric := c.Kind == CompareNumeric || c.Kind == CompareFloat64 || c.Kind == CompareFloat32
	wasm := c.Kind == CompareWasm
	switch {
	case !numeric && !wasm && c.Kind != CompareExact && c.Kind != CompareLines && c.Kind != CompareJSON:
		return fmt.Errorf("compare: %q is no way to compare", c.Kind)
	case !numeric && (c.Abs != 0 || c.Rel != 0):
		return fmt.Errorf("compare: %q takes no tolerance", c)
	case numeric && c.Abs == 0 && c.Rel == 0:
		return fmt.Errorf("compare: %q wants a tolerance", c)
	case c.Rel >= Parts:
		return fmt.Errorf("compare: a relative tolerance of 1 or more lets anything pass")
	case c.GasPPM > 1e6/2 || c.Kind == CompareExact && c.GasPPM != 0:
		return fmt.Errorf("compare: gas apart by %d ppm: want up to a half, and not exact output", c.GasPPM)
	case wasm != (c.Program != "") || wasm != (c.Gas > 0) || c.Gas > MaxCompareGas || len(c.Program) > MaxCID:
		return fmt.Errorf("compare: a program, and gas up to %d, belong to %q and only to it", MaxCompareGas, CompareWasm)
	}
	return nil
}

// String is c as ParseCompare reads it.
func (c Compare) String() string {
	if c.Kind == CompareExact {
		return "exact"
	}
	var with []string
	add := func(format string, a any) { with = append(with, fmt.Sprintf(format, a)) }
	part := func(n uint64) string { return strconv.FormatFloat(float64(n)/Parts, 'g', 15, 64) }
	if c.Kind == CompareWasm {
		add("%s", c.Program)
		add("gas=%d", c.Gas)
	}
	if c.Abs != 0 {
		add("abs=%s", part(c.Abs))
	}
	if c.Rel != 0 {
		add("rel=%s", part(c.Rel))
	}
	if c.GasPPM != 0 {
		add("gas-apart=%s", strconv.FormatFloat(float64(c.GasPPM)/1e6, 'g', -1, 64))
	}
	if with == nil {
		return c.Kind
	}
	return c.Kind + ":" + strings.Join(with, ",")
}

// ParseCompare reads KIND[:NAME=VALUE,...], as in numeric:rel=1e-6, lines, or wasm:PROGRAM,gas=3000000000
// with a program's CID. "" and exact are the class strict.
func ParseCompare(text string) (Compare, error) {
	kind, with, _ := strings.Cut(text, ":")
	c := Compare{Kind: kind}
	switch kind {
	case "exact":
		c.Kind = CompareExact
	case "none":
		return c, fmt.Errorf("compare: none: nothing is accepted unchecked, and runs that have nothing in common say nothing about each other; wasm:PROGRAM takes a program of yours that says when an answer will do")
	case CompareWasm:
		c.Gas = autoCompare
	}
	for i, s := range strings.Split(with, ",") {
		name, value, named := strings.Cut(s, "=")
		var err error
		switch {
		case s == "" && with == "":
			continue
		case !named && i == 0 && kind == CompareWasm:
			c.Program = CID(s)
		case name == "abs":
			c.Abs, err = parts(value, Parts)
		case name == "rel":
			c.Rel, err = parts(value, Parts)
		case name == "gas-apart":
			var ppm uint64
			ppm, err = parts(value, 1e6)
			c.GasPPM = uint32(min(ppm, math.MaxUint32))
		case name == "gas" && kind == CompareWasm:
			var gas uint64
			if gas, err = strconv.ParseUint(value, 10, 64); err != nil {
				err = fmt.Errorf("want a whole number of gas")
			}
			c.Gas = Gas(gas)
		default:
			err = fmt.Errorf("want abs=, rel= or gas-apart=, or gas= behind the program of %s", CompareWasm)
		}
		if err != nil {
			return c, fmt.Errorf("compare: %q: %w", s, err)
		}
	}
	return c, c.Validate()
}

// parts reads a number that is not negative, in so many parts of 1.
func parts(text string, of float64) (uint64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if n := math.Round(f * of); err != nil || !(n >= 0 && n < 1<<63) || n == 0 && f != 0 {
		return 0, fmt.Errorf("want a number of at least %g, or 0", 1/of)
	} else {
		return uint64(n), nil
	}
}
