package verify

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/crowdcompute/crowd"
)

// ComparatorOf is what a job declares. run executes its program, of the kind Wasm.
func ComparatorOf(c crowd.Compare, run func(a, b []byte) (bool, uint64, error)) Comparator {
	v := Comparator{Kind: Kind(c.Kind), Abs: float64(c.Abs) / crowd.Parts, Rel: float64(c.Rel) / crowd.Parts, Gas: uint64(c.Gas)}
	switch c.Kind {
	case crowd.CompareExact:
		v.Kind = Exact
	case crowd.CompareWasm:
		v.Run = run
	}
	return v
}

// Judge says whether their output is the same answer as one's own, which is believed. A
// *ComparatorFault says that the comparator cannot be used with the own output at all: the user's
// fault, and nobody else's. Where it can, everything else that goes wrong is the other output's: a
// program that traps or loops at it, or that gives another answer when the two change places, has not
// said that they are the same. So nothing is gained by an output that is made to crash a
// comparator; and a comparator that means harm does none by failing that a plain no would not do.
func (c Comparator) Judge(own, their []byte) (Verdict, error) {
	if bytes.Equal(own, their) { // nobody need be asked
		return Verdict{Equal: true, Exact: true}, nil
	}
	if err := c.takes(own); err != nil {
		return Verdict{}, err
	}
	v, err := c.Compare(own, their)
	var fault *ComparatorFault
	if errors.As(err, &fault) || errors.Is(err, ErrTooLarge) {
		return Verdict{Where: err.Error()}, nil
	}
	return v, err
}

// takes fails unless c knows own as the same as itself.
func (c Comparator) takes(own []byte) error {
	if err := c.Validate(); err != nil {
		return err
	}
	switch {
	case c.Kind != Exact && len(own) > MaxCompare, c.Kind == JSON && len(own) > MaxJSON:
		return &ComparatorFault{Why: fmt.Sprintf("%q takes no output of %d bytes", c.Kind, len(own)), Err: ErrTooLarge}
	case c.Kind == Lines:
		if _, err := sortedLines(own); err != nil {
			return &ComparatorFault{Why: "\"lines\" does not take the output", Err: err}
		}
	case c.Kind == Wasm:
		if v, err := c.ask(own, own); err != nil {
			return err
		} else if !v {
			return &ComparatorFault{Why: "says that an output is not the same as itself"}
		}
	}
	return nil
}
