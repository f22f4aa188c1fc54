package executor

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
)

func TestSpecValidate(t *testing.T) {
	good := Spec{Program: "p", Output: "o", Args: []string{"a", ""}, Env: []string{"A=", "B=c=d"},
		Limits: crowd.Limits{Gas: 1, Memory: 1, Wall: 1}}
	for _, c := range []struct {
		name string
		edit func(*Spec)
		want string // in the error; "": none
	}{
		{"good", func(*Spec) {}, ""},
		{"no program", func(s *Spec) { s.Program = "" }, "program"},
		{"no output", func(s *Spec) { s.Output = "" }, "output"},
		{"zero byte", func(s *Spec) { s.Args = []string{"\x00"} }, "zero bytes"},
		{"not UTF-8", func(s *Spec) { s.Args = []string{"\xff"} }, "UTF-8"},
		{"env without name", func(s *Spec) { s.Env = []string{"=a"} }, "NAME=value"},
		{"env not UTF-8", func(s *Spec) { s.Env = []string{"A=\xff"} }, "UTF-8"},
		{"long args", func(s *Spec) { s.Args = []string{strings.Repeat("x", crowd.MaxArgBytes+1)} }, "bytes together"},
		{"no gas", func(s *Spec) { s.Limits.Gas = 0 }, "gas"},
		{"much memory", func(s *Spec) { s.Limits.Memory = crowd.MaxMemory + 1 }, "memory"},
		{"much output", func(s *Spec) { s.Limits.Output = crowd.MaxOutput + 1 }, "output"},
		{"much time", func(s *Spec) { s.Limits.Wall = crowd.MaxWall + time.Second }, "wall"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := good
			c.edit(&s)
			if err := s.Validate(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestFault(t *testing.T) {
	f := Faultf(NoSpace, "write: %w", io.ErrShortWrite)
	if got, want := f.Error(), "no space: write: short write"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(f, io.ErrShortWrite) {
		t.Error("got a fault that hides its cause, want it wrapped")
	}
	if got, want := (&Fault{Kind: 77}).Error(), "fault 77"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
