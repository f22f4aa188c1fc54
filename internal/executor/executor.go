// Package executor says what it is to run one program once: the specification,
// the result, and whose fault a failure is. It runs nothing itself; the rooms
// below it do, and executortest holds them all to the same behaviour.
package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crowdcompute/crowd"
)

// MaxProgram bounds a program, in bytes.
const MaxProgram = 64 << 20

// MaxFiles is how many files and folders of a program may be alive at a time, in /out and /tmp together. What it
// makes beyond that fails with "no space left on device".
const MaxFiles = 4096

// Spec is one run. All but Output and Limits.Wall decides the result, byte for byte.
type Spec struct {
	Program string     // path of the program's file, already checked against its CID by the caller
	Args    []string   // without the program's name: argv[0] is always "program"
	Env     []string   // NAME=value
	Stdin   string     // path of a file; "" is empty
	Inputs  string     // path of a folder, seen read-only at /in; "" is none
	Output  string     // path of an existing empty folder; on return it holds the files stdout and stderr and the folder out, which the program saw as /out
	Seed    crowd.Hash // of all randomness that the program sees
	Limits  crowd.Limits
	Spent   crowd.Gas // before the program begins, on what was laid out for it; part of the result's gas
	Shares  uint32    // how many runs bear the price of compiling the program together, in equal parts; 0: this one alone
	Lanes   int       // of a batch: most items that run at once; 0: as many as the executor can
}

// IO is what a caller sees while a program runs. Any field may be nil. What is
// written here is a copy: a slow or failing writer loses bytes, never the run.
type IO struct {
	Stdout, Stderr io.Writer
	Progress       func(crowd.Gas) // gas used so far, not deterministic
}

// Result is how a run ended. Status, ExitCode, Gas and the files in Spec.Output
// are the same on every honest machine; the rest is not.
type Result struct {
	Status   crowd.Status
	ExitCode uint32    // of an Exited program
	Gas      crowd.Gas // used, at most Limits.Gas: Spec.Spent, the program's code and memory, then what it ran
	Reason   string    // for people: the text of the trap, why the program is invalid
	Wall     time.Duration
	CPU      time.Duration
	Engine   string // name and version of what ran it
}

// Executor runs programs. Run may be called from many goroutines at once.
//
// An error is always a *Fault: the node's, or the caller's wish to stop, and never
// an outcome. The files in Spec.Output mean something only where the error is nil.
type Executor interface {
	Run(ctx context.Context, s Spec, io IO) (Result, error)
}

// Kind says what went wrong at this node. Append only.
type Kind uint8

const (
	Timeout     Kind = iota + 1 // Limits.Wall passed
	Crashed                     // the worker process died or broke its promises
	NoSpace                     // a disk, quota or memory of this machine is full
	Cancelled                   // the caller's context ended
	Unsupported                 // the isolation or engine that is asked for is not here
	BadSpec                     // the caller's specification makes no sense, or its files cannot be opened
)

var kindNames = [...]string{"", "wall time limit", "worker crashed", "no space", "cancelled", "unsupported", "bad specification"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("fault %d", uint8(k))
}

// Fault is a failure that is no property of the program: another machine may do better.
type Fault struct {
	Kind Kind
	Err  error // detail; may be nil
}

func (f *Fault) Error() string {
	if f.Err == nil {
		return f.Kind.String()
	}
	return f.Kind.String() + ": " + f.Err.Error()
}

func (f *Fault) Unwrap() error { return f.Err }

// Faultf makes a Fault; the format may wrap an error with %w.
func Faultf(k Kind, format string, a ...any) *Fault {
	return &Fault{Kind: k, Err: fmt.Errorf(format, a...)}
}

// Validate reports everything that is wrong with s at once, without touching a file.
func (s *Spec) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if s.Program == "" {
		bad("program: no path")
	}
	if s.Output == "" {
		bad("output: no path")
	}
	size := 0
	for _, a := range s.Args {
		size += len(a)
		if strings.IndexByte(a, 0) >= 0 || !utf8.ValidString(a) {
			bad("argument %q: want UTF-8 without zero bytes", a)
		}
	}
	for _, e := range s.Env {
		size += len(e)
		if strings.IndexByte(e, 0) >= 0 || strings.IndexByte(e, '=') < 1 || !utf8.ValidString(e) {
			bad("env %q: want NAME=value, UTF-8 without zero bytes", e)
		}
	}
	if len(s.Args) > crowd.MaxArgs || len(s.Env) > crowd.MaxArgs || size > crowd.MaxArgBytes {
		bad("args and env: %d and %d entries, %d bytes; at most %d each, %d bytes together",
			len(s.Args), len(s.Env), size, crowd.MaxArgs, crowd.MaxArgBytes)
	}
	l := s.Limits
	if l.Gas == 0 {
		bad("limits: gas is zero")
	}
	if l.Memory == 0 || l.Memory > crowd.MaxMemory {
		bad("limits: memory of %d bytes, want 1 to %d", l.Memory, uint64(crowd.MaxMemory))
	}
	if l.Output > crowd.MaxOutput {
		bad("limits: output of %d bytes, at most %d", l.Output, uint64(crowd.MaxOutput))
	}
	if l.Wall <= 0 || l.Wall > crowd.MaxWall {
		bad("limits: wall time of %v, want up to %v", l.Wall, crowd.MaxWall)
	}
	return errors.Join(errs...)
}
