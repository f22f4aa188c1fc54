package wasm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sort"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// blobDir holds the files of /out while a program runs, by number. Their names
// are the worker's until the run has ended, and are checked then.
const blobDir = ".blobs"

// session is the parent's side of one run: the folders that the worker cannot
// see, and what it may ask about them. All that it asks is checked here.
type session struct {
	inputs         *os.Root // nil: none
	output         *os.Root
	stdout, stderr *os.File
	stdin          *os.File // nil: empty
	blobs          uint32   // made so far
	result         []leaf

	dir     string // whose listing this is
	listing []entry
	listed  bool
}

// openInputs opens only what the items of a batch share.
func openInputs(s *executor.Spec) (x *session, err error) {
	x = &session{}
	if s.Inputs != "" {
		if x.inputs, err = os.OpenRoot(s.Inputs); err != nil {
			return nil, executor.Faultf(executor.BadSpec, "inputs: %w", err)
		}
	}
	return x, nil
}

func openSession(s *executor.Spec) (_ *session, err error) {
	x, err := openInputs(s)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			x.close()
		}
	}()
	if s.Stdin != "" {
		if x.stdin, err = os.OpenFile(s.Stdin, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
			return nil, executor.Faultf(executor.BadSpec, "stdin: %w", err)
		}
		if i, err := x.stdin.Stat(); err != nil || !i.Mode().IsRegular() {
			return nil, executor.Faultf(executor.BadSpec, "stdin %s: not a regular file", s.Stdin)
		}
	}
	if x.output, err = os.OpenRoot(s.Output); err != nil {
		return nil, executor.Faultf(executor.BadSpec, "output: %w", err)
	}
	for name, f := range map[string]**os.File{"stdout": &x.stdout, "stderr": &x.stderr} {
		if *f, err = x.output.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
			return nil, outputFault(err)
		}
	}
	if err := x.output.Mkdir("out", 0o755); err != nil {
		return nil, outputFault(err)
	}
	return x, nil
}

func outputFault(err error) *executor.Fault {
	if errors.Is(err, fs.ErrExist) {
		return executor.Faultf(executor.BadSpec, "output folder is not empty: %w", err)
	}
	return diskFault("output", err)
}

// close lets go of everything; what a failed run has left in out is worth nothing.
func (x *session) close() {
	for _, f := range []*os.File{x.stdin, x.stdout, x.stderr} {
		if f != nil {
			f.Close()
		}
	}
	if x.output != nil {
		if x.blobs > 0 {
			x.output.RemoveAll(blobDir)
		}
		x.output.Close()
	}
	if x.inputs != nil {
		x.inputs.Close()
	}
}

// answer serves one request of the worker. An error ends the run.
func (x *session) answer(k kind, r *request) (reply, *os.File, error) {
	switch k {
	case mList:
		a, err := x.list(r)
		return a, nil, err
	case mOpen:
		f, err := x.open(string(r.Path))
		return reply{}, f, err
	}
	if x.output == nil {
		return reply{}, nil, executor.Faultf(executor.Crashed, "worker asks for a file in a batch")
	}
	if x.blobs >= maxNodes+maxFDs {
		return reply{}, nil, executor.Faultf(executor.Crashed, "worker asked for more than %d files", x.blobs)
	}
	if x.blobs == 0 {
		if err := x.output.Mkdir(blobDir, 0o700); err != nil {
			return reply{}, nil, outputFault(err)
		}
	}
	f, err := x.output.OpenFile(blobName(x.blobs), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return reply{}, nil, outputFault(err)
	}
	x.blobs++
	return reply{Slot: x.blobs - 1}, f, nil
}

func blobName(slot uint32) string { return fmt.Sprintf("%s/%d", blobDir, slot) }

func (x *session) list(r *request) (reply, error) {
	dir := string(r.Path)
	if dir == "" {
		dir = "."
	}
	if x.inputs == nil {
		return reply{}, executor.Faultf(executor.Crashed, "worker lists inputs, and there are none")
	}
	if !x.listed || x.dir != dir {
		list, err := x.readDir(dir)
		if err != nil {
			return reply{}, err
		}
		x.dir, x.listing, x.listed = dir, list, true
	}
	from := sort.Search(len(x.listing), func(i int) bool { return string(x.listing[i].Name) > string(r.After) })
	to, size := from, 0
	for to < len(x.listing) && size < listBytes {
		size += len(x.listing[to].Name) + 16
		to++
	}
	return reply{Entries: x.listing[from:to], More: to < len(x.listing)}, nil
}

// readDir reads one folder of the inputs, sorted by name.
func (x *session) readDir(dir string) ([]entry, error) {
	f, err := x.inputs.Open(dir)
	if err != nil {
		return nil, executor.Faultf(executor.BadSpec, "inputs: %w", err)
	}
	defer f.Close()
	var list []entry
	for {
		some, err := f.ReadDir(1024)
		for _, e := range some {
			info, err := e.Info()
			if err != nil {
				return nil, executor.Faultf(executor.BadSpec, "inputs: %w", err)
			}
			one := entry{Name: []byte(e.Name()), Kind: linkType}
			switch {
			case e.IsDir():
				one.Kind = dirType
			case e.Type().IsRegular():
				one.Kind, one.Size = regularType, uint64(info.Size())
			}
			list = append(list, one)
		}
		if len(list) > maxInputs {
			return nil, executor.Faultf(executor.BadSpec, "inputs: more than %d entries in %s", maxInputs, dir)
		}
		if len(some) == 0 {
			if err != nil && err.Error() != "EOF" {
				return nil, executor.Faultf(executor.BadSpec, "inputs: %w", err)
			}
			break
		}
	}
	sort.Slice(list, func(i, j int) bool { return string(list[i].Name) < string(list[j].Name) })
	return list, nil
}

func (x *session) open(name string) (*os.File, error) {
	if x.inputs == nil {
		return nil, executor.Faultf(executor.Crashed, "worker opens an input, and there are none")
	}
	f, err := x.inputs.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, executor.Faultf(executor.BadSpec, "inputs: %w", err)
	}
	if i, err := f.Stat(); err != nil || !i.Mode().IsRegular() {
		f.Close()
		return nil, executor.Faultf(executor.BadSpec, "inputs: %q is not a regular file", name)
	}
	return f, nil
}

// add takes a part of the result.
func (x *session) add(l *leaves) error {
	if len(x.result)+len(l.List) > maxNodes {
		return fmt.Errorf("worker reports more than %d files", maxNodes)
	}
	x.result = append(x.result, l.List...)
	return nil
}

// finish puts the result into out, and holds the worker to the output limit.
func (x *session) finish(limit uint64) error {
	total := uint64(0)
	count := func(name string, i fs.FileInfo, err error) error {
		if err != nil {
			return diskFault("output", err)
		}
		if size := uint64(i.Size()); !i.Mode().IsRegular() || size > limit-total {
			return executor.Faultf(executor.Crashed, "worker broke the output limit of %d bytes at %q", limit, name)
		}
		total += uint64(i.Size())
		return nil
	}
	for _, f := range []*os.File{x.stdout, x.stderr} {
		i, err := f.Stat()
		if err := count(f.Name(), i, err); err != nil {
			return err
		}
	}
	used := map[uint32]bool{}
	seen := names{}
	for _, l := range x.result {
		if err := seen.add(l.Path, l.Dir); err != nil {
			return err
		}
		if !l.Dir && (l.Slot >= x.blobs || used[l.Slot]) {
			return executor.Faultf(executor.Crashed, "worker reports a file %q that is not its own", l.Path)
		}
		to := "out/" + l.Path
		if l.Dir {
			if err := x.output.Mkdir(to, 0o755); err != nil {
				return diskFault("output", err)
			}
			continue
		}
		used[l.Slot] = true
		i, err := x.output.Lstat(blobName(l.Slot))
		if err := count(l.Path, i, err); err != nil {
			return err
		}
		if err := x.output.Rename(blobName(l.Slot), to); err != nil {
			return diskFault("output", err)
		}
	}
	return nil
}

// names are those that a worker has reported below out, folders with a / behind them.
type names map[string]bool

// add takes one more, which must be one that a program could give.
func (n names) add(p string, dir bool) error {
	parent := path.Dir(p)
	switch {
	case !fs.ValidPath(p) || p == "." || len(p) > maxPath || !utf8.ValidString(p):
		return executor.Faultf(executor.Crashed, "worker reports a file %q", p)
	case n[p] || parent != "." && !n[parent+"/"]:
		return executor.Faultf(executor.Crashed, "worker reports %q twice or before its folder", p)
	}
	n[p] = true
	if dir {
		n[p+"/"] = true
	}
	return nil
}

// faultOf is what a worker's last word amounts to where it is no status.
func faultOf(d *done) *executor.Fault {
	return &executor.Fault{Kind: d.Fault, Err: errors.New(d.Reason)}
}

// resultOf is what it amounts to where it is one.
func resultOf(d *done, limits crowd.Limits) (executor.Result, error) {
	if d.Gas > limits.Gas {
		return executor.Result{}, executor.Faultf(executor.Crashed, "worker claims %d gas of %d", d.Gas, limits.Gas)
	}
	return executor.Result{Status: d.Status, ExitCode: d.ExitCode, Gas: d.Gas, Reason: d.Reason}, nil
}
