package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/verify"
)

// Bounds on comparing, besides those of package verify.
const (
	maxCompareFiles = 64        // and folders in one result, standard output included
	compareMemory   = 256 << 20 // linear memory of that program, bytes
	compareOutput   = 64 << 10  // most that it may write
	compareGrace    = 10 * time.Second
)

// comparison is the work of one job.Compare.
type comparison struct {
	*Runner
	ctx     context.Context
	dir     string
	how     crowd.Compare
	program string               // of the kind wasm, on disk; "": its bytes are no file
	folders map[crowd.CID]string // on disk; "" where there is no folder
}

// errOutput says that an output is not what it was said to be, on any machine alike.
var errOutput = errors.New("not what it is bound to")

// compare says how each pair stands. An error is this node's.
func (r *Runner) compare(ctx context.Context, e job.Compare) (found []ledger.Finding, err error) {
	dir, err := os.MkdirTemp(r.scratchDir(), "compare-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c := &comparison{Runner: r, ctx: ctx, dir: dir, how: e.How, folders: map[crowd.CID]string{}}
	if e.How.Program != "" {
		c.program = filepath.Join(dir, "comparator")
		if ok, err := r.export(ctx, e.How.Program, c.program, false, job.MaxInput); err != nil {
			return nil, fmt.Errorf("comparator: %w", err)
		} else if !ok {
			c.program = ""
		}
	}
	for _, p := range e.Pairs {
		f, err := c.pair(p)
		if err != nil {
			return nil, err
		}
		found = append(found, f)
	}
	return found, nil
}

// pair judges two outputs. One's own that is no output to be compared is nobody's fault who ran the task.
func (c *comparison) pair(p job.Pair) (ledger.Finding, error) {
	own, err := c.open(p.Own)
	if errors.Is(err, errOutput) {
		return ledger.Unjudged, nil
	} else if err != nil {
		return 0, err
	}
	their, err := c.open(p.Their)
	if errors.Is(err, errOutput) {
		return ledger.Other, nil
	} else if err != nil {
		return 0, err
	}
	return c.judge(own, their)
}

// output is what one run came to, as far as it is compared. Files are read when they are needed.
type output struct {
	leaf  batch.Leaf // of an item
	files []file     // by name
}

type file struct {
	name string
	read func() ([]byte, error)
}

func (c *comparison) judge(own, their output) (ledger.Finding, error) {
	if own.leaf.Status != their.leaf.Status || own.leaf.ExitCode != their.leaf.ExitCode || !c.how.NearGas(own.leaf.Gas, their.leaf.Gas) || len(own.files) != len(their.files) {
		return ledger.Other, nil
	}
	for i, f := range own.files {
		if f.name != their.files[i].name {
			return ledger.Other, nil
		}
		if f.read == nil || their.files[i].read == nil { // a folder
			if (f.read == nil) != (their.files[i].read == nil) {
				return ledger.Other, nil
			}
			continue
		}
		a, err := f.read()
		if errors.Is(err, errOutput) {
			return ledger.Unjudged, nil
		} else if err != nil {
			return 0, err
		}
		b, err := their.files[i].read()
		if errors.Is(err, errOutput) {
			return ledger.Other, nil
		} else if err != nil {
			return 0, err
		}
		v, err := verify.ComparatorOf(c.how, c.run).Judge(a, b)
		var fault *verify.ComparatorFault
		switch {
		case errors.As(err, &fault):
			return ledger.Unjudged, nil
		case err != nil:
			return 0, err
		case !v.Equal:
			return ledger.Other, nil
		}
	}
	return ledger.Same, nil
}

// maxFolder bounds what is laid out, in bytes; the fetch that brought it had the job's own bound.
const maxFolder = 2 * crowd.MaxOutput

// folder lays out content once; "": it is no folder.
func (c *comparison) folder(cid crowd.CID) (string, error) {
	path, ok := c.folders[cid]
	if ok {
		return path, nil
	}
	path = filepath.Join(c.dir, fmt.Sprintf("folder-%d", len(c.folders)))
	ok, err := c.export(c.ctx, cid, path, true, maxFolder)
	if err != nil {
		return "", err
	}
	if !ok {
		path = ""
	}
	c.folders[cid] = path
	return path, nil
}

func (c *comparison) open(o job.Output) (output, error) {
	dir, err := c.folder(o.CID)
	switch {
	case err != nil:
		return output{}, err
	case dir == "":
		return output{}, fmt.Errorf("%w: no folder", errOutput)
	case o.Of > 0:
		return openItem(dir, o)
	}
	return openResult(dir)
}

// openResult is a single task's: standard output, and what lies in /out. A walk goes by name.
func openResult(dir string) (out output, err error) {
	add := func(path string, d fs.DirEntry) error {
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f := file{name: name}
		if !d.IsDir() {
			f.read = func() ([]byte, error) { return readFile(path) }
		}
		if out.files = append(out.files, f); len(out.files) > maxCompareFiles {
			return fmt.Errorf("%w: more than %d files", errOutput, maxCompareFiles)
		}
		return nil
	}
	for _, name := range []string{"out", stdoutFile} {
		err := filepath.WalkDir(filepath.Join(dir, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return add(path, d)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return output{}, err
		}
	}
	return out, nil
}

// readFile reads what may be compared.
func readFile(path string) ([]byte, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a file", errOutput)
	}
	if fi.Size() > verify.MaxCompare {
		return nil, fmt.Errorf("%w: a file of %d bytes, at most %d are compared", errOutput, fi.Size(), verify.MaxCompare)
	}
	return os.ReadFile(path)
}

// openItem is one item's of a batch: its leaf, which must be the one that was bound to and that of what lies there, and its standard output.
func openItem(dir string, o job.Output) (out output, err error) {
	bad := func(format string, a ...any) (output, error) {
		return output{}, fmt.Errorf("%w: %w", errOutput, fmt.Errorf(format, a...))
	}
	leaves, err := os.Open(filepath.Join(dir, leavesFile))
	if err != nil {
		return bad("leaves: %w", err)
	}
	defer leaves.Close()
	raw := make([]byte, batch.LeafSize)
	if _, err := leaves.ReadAt(raw, int64(o.Index)*batch.LeafSize); err != nil {
		return bad("leaf %d: %w", o.Index, err)
	}
	if out.leaf, err = batch.DecodeLeaf(raw); err != nil {
		return bad("leaf %d: %w", o.Index, err)
	}
	if out.leaf.Hash() != o.Leaf {
		return bad("leaf %d is another", o.Index)
	}
	var parts [2][]byte
	for i, name := range []string{stdoutFile, stderrFile} {
		f, err := openFrames(filepath.Join(dir, name), o.Of)
		if err != nil {
			return bad("%s: %w", name, err)
		}
		if f.Size(o.Index) > executor.MaxItemOutput {
			f.close()
			return bad("%s of item %d is too long", name, o.Index)
		}
		parts[i], err = f.Read(o.Index)
		f.close()
		if err != nil {
			return output{}, err
		}
	}
	if batch.Digest(parts[0], parts[1]) != out.leaf.Output {
		return bad("item %d: the output is not the one in its leaf", o.Index)
	}
	out.files = []file{{name: stdoutFile, read: func() ([]byte, error) { return parts[0], nil }}}
	return out, nil
}

// run asks the job's own program: it compares /in/a with /in/b, and says 0 or 1.
func (c *comparison) run(a, b []byte) (equal bool, gas uint64, err error) {
	if c.program == "" {
		return false, 0, fmt.Errorf("%w: its bytes are no file", verify.ErrComparator)
	}
	if c.cfg.Executor == nil {
		return false, 0, errors.New("this node executes nothing")
	}
	release, err := c.room(c.ctx, runMemory(compareMemory), true)
	if err != nil {
		return false, 0, err
	}
	defer release()
	dir, err := os.MkdirTemp(c.dir, "run-")
	if err != nil {
		return false, 0, err
	}
	defer os.RemoveAll(dir)
	s := executor.Spec{
		Program: c.program, Inputs: filepath.Join(dir, "in"), Output: filepath.Join(dir, "output"),
		Shares: crowd.MaxItems, // it runs once for each two files, and is compiled once
		Limits: crowd.Limits{Gas: c.how.Gas, Memory: compareMemory, Output: compareOutput},
	}
	s.Limits.Wall = crowd.LeastWall(s.Limits) + compareGrace
	err = errors.Join(os.Mkdir(s.Inputs, 0o700), os.Mkdir(s.Output, 0o700),
		os.WriteFile(filepath.Join(s.Inputs, "a"), a, 0o600), os.WriteFile(filepath.Join(s.Inputs, "b"), b, 0o600))
	if err != nil {
		return false, 0, err
	}
	res, err := c.cfg.Executor.Run(c.ctx, s, executor.IO{})
	if err != nil {
		return false, 0, err
	}
	if res.Status != crowd.Exited || res.ExitCode > 1 {
		o := crowd.Outcome{Status: res.Status, ExitCode: res.ExitCode, Gas: res.Gas}
		return false, uint64(res.Gas), fmt.Errorf("%w: %s", verify.ErrComparator, o)
	}
	return res.ExitCode == 0, uint64(res.Gas), nil
}
