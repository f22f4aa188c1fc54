package verify

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/crowdcompute/crowd"
)

// Drift is how far repeated runs of one task were apart.
type Drift struct {
	How     Difference
	Suggest Comparator // one under which all of them agree; the zero value if none does
	Class   Class      // that would fit
	Where   string     // the first difference; "" if there is none
}

// Difference is the kind of a Drift.
type Difference uint8

const (
	NoDifference Difference = iota // equal to the byte
	InOrder                        // the same lines, or the same JSON, in another order or dress
	InNumbers                      // only numbers differ
	InAll                          // otherwise
)

func (d Difference) String() string {
	return [...]string{"none", "order only", "numbers only", "everything"}[min(d, InAll)]
}

// closeFloats is how near numbers must be, relatively, before an array of bytes
// is taken for one of numbers: bytes alone do not say that they are.
const closeFloats = 1e-3

// Detect says how the outputs of repeated runs of one task differ, and which
// comparator would take them for one answer. Tolerances that it suggests are
// twice what was seen between the first output and the others: a hint for the
// app's developer, since runs prove no bound. At least two outputs.
func Detect(outputs ...[]byte) (Drift, error) {
	if len(outputs) < 2 {
		return Drift{}, errors.New("detect: at least two runs must be compared")
	}
	first, others := outputs[0], outputs[1:]
	var where string
	for i, o := range others {
		if !bytes.Equal(first, o) {
			where = fmt.Sprintf("run 1 and run %d: %s", i+2, firstByte(first, o))
			break
		}
	}
	if where == "" {
		return Drift{How: NoDifference, Suggest: Comparator{Kind: Exact}}, nil
	}
	d := Drift{How: InAll, Class: Loose, Where: where}
	agree := func(c Comparator) bool {
		for _, o := range others {
			if v, err := c.Compare(first, o); err != nil || !v.Equal {
				return false
			}
		}
		return true
	}
	for _, k := range []Kind{Lines, JSON} {
		if c := (Comparator{Kind: k}); agree(c) {
			return Drift{How: InOrder, Suggest: c, Class: Tolerant, Where: where}, nil
		}
	}
	for _, k := range []Kind{Text, Float64, Float32} {
		seen, fits := spread{}, true
		for _, o := range others {
			fits = fits && max(len(first), len(o)) <= MaxCompare && apart(k, first, o, &seen) == ""
		}
		if !fits || k != Text && seen.rel > closeFloats {
			continue
		}
		c := Comparator{Kind: k, Rel: 2 * seen.rel}
		if c.Rel >= 0.5 { // near zero a relative tolerance says nothing
			c.Rel, c.Abs = 0, 2*seen.abs
		}
		if c.Validate() == nil && agree(c) {
			return Drift{How: InNumbers, Suggest: c, Class: Tolerant, Where: where}, nil
		}
	}
	return d, nil
}

// apart compares two outputs as kind k under which any two finite numbers agree, and notes how far they are apart.
func apart(k Kind, a, b []byte, seen *spread) string {
	all := Comparator{Kind: k, Abs: math.MaxFloat64}
	switch k {
	case Float64:
		return all.array(a, b, 8, seen)
	case Float32:
		return all.array(a, b, 4, seen)
	}
	return all.text(a, b, seen)
}

// Advice says to a person how near the runs are, and how a job would declare that this is enough; "" where it could not.
func (d Drift) Advice() string {
	c := d.Suggest
	declare := func(text string) string { return fmt.Sprintf("if that will do, declare --compare %s", text) }
	switch {
	case d.How == InOrder && c.Kind == Lines:
		return "the outputs hold the same lines in another order; " + declare(crowd.CompareLines)
	case d.How == InOrder:
		return "the outputs are the same JSON value, written in another way; " + declare(crowd.CompareJSON)
	case d.How != InNumbers:
		return ""
	}
	for exp := -12; exp < 0; exp++ { // what a job can declare, rounded up to a power of ten
		round := math.Pow(10, float64(exp))
		if c.Rel > 0 && c.Rel <= round {
			digits := int(-math.Log10(c.Rel / 2))
			return fmt.Sprintf("numeric divergence: the outputs agree to %d digits; %s", digits, declare(fmt.Sprintf("%s:rel=1e%d", c.Kind, exp)))
		}
		if c.Rel == 0 && c.Abs <= round {
			return fmt.Sprintf("numeric divergence: the outputs are less than 1e%d apart; %s", exp, declare(fmt.Sprintf("%s:abs=1e%d", c.Kind, exp)))
		}
	}
	return ""
}
