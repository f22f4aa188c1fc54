package runner

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
)

// Files of a batch's result folder.
const (
	leavesFile = "leaves" // the leaves, one after another
	stdoutFile = "stdout" // frames: the items' standard output
	stderrFile = "stderr" // frames: the beginning of the items' standard error
	sizesFile  = "sizes"  // of the parts, as batch.AppendSizes has them
	partsDir   = "parts"  // of outputs that go on to others: the lines of all items that did not fail, by their keys
)

// items runs a batch, or some of its items, whose program and inputs s names. It calls each in the
// order of the items. Unusable inputs are an outcome of every item, and so are inputs that are too dear.
func (r *Runner) items(ctx context.Context, s executor.Spec, e job.Run, l laid, each func(batch.Leaf, executor.ItemResult) error) error {
	indexes := e.Only
	count := uint32(len(indexes))
	if indexes == nil {
		count = e.Items
	}
	at := func(k uint32) uint32 {
		if indexes == nil {
			return k
		}
		return indexes[k]
	}
	without := func(status crowd.Status, gas crowd.Gas) error {
		gas = min(gas, e.Task.Limits.Gas)
		return each(batch.Leaf{Status: status, Gas: gas, Output: batch.Digest(nil, nil)}, executor.ItemResult{Status: status, Gas: gas})
	}
	none := func(status crowd.Status) error {
		for range count {
			if err := without(status, l.spent); err != nil {
				return err
			}
		}
		return nil
	}
	switch {
	case !l.usable:
		return none(crowd.NoInput)
	case l.dear:
		return none(crowd.OutOfGas)
	}
	var in inputs
	var err error
	if e.Shuffle.Gather {
		in, err = r.gather(ctx, e, filepath.Dir(s.Stdin))
	} else {
		in, err = openItems(s.Stdin, e, at)
	}
	if err != nil {
		return err
	}
	if in == nil {
		return none(crowd.NoInput)
	}
	defer in.close()
	b, ok := r.cfg.Executor.(executor.Batcher)
	if !ok {
		return executor.Faultf(executor.Unsupported, "this node runs no batches")
	}
	// An item is judged by itself: what it comes to must be the same in a sample without the others.
	done := uint32(0)
	skip := func(to uint32) error { // items whose input is none: no other ends for them
		for ; done < to; done++ {
			if in.usable(done) {
				return executor.Faultf(executor.Crashed, "item %d did not come back", at(done))
			}
			if err := without(crowd.NoInput, l.spent+in.spent(done)); err != nil {
				return err
			}
		}
		return nil
	}
	var readErr error // of the source's goroutine; read after RunBatch has returned
	source := iter.Seq[executor.Item](func(yield func(executor.Item) bool) {
		for k := range count {
			if !in.usable(k) {
				continue
			}
			raw, err := in.read(k)
			if err != nil {
				readErr = err
				return
			}
			if ctx.Err() != nil || !yield(executor.Item{Index: uint64(at(k)), Stdin: raw, Spent: l.spent + in.spent(k)}) {
				return
			}
		}
	})
	s.Stdin, s.Output = "", "" // of the items
	_, err = b.RunBatch(ctx, s, source, func(ir executor.ItemResult) error {
		if ir.Fault != nil {
			return ir.Fault
		}
		k := done
		for k < count && uint64(at(k)) != ir.Index {
			k++
		}
		if k == count {
			return executor.Faultf(executor.Crashed, "item %d came back, which nobody asked for", ir.Index)
		}
		if err := skip(k); err != nil {
			return err
		}
		done++
		return each(batch.Leaf{Status: ir.Status, ExitCode: ir.ExitCode, Gas: ir.Gas, Output: batch.Digest(ir.Stdout, ir.Stderr)}, ir)
	})
	if err = errors.Join(err, readErr); err != nil {
		return err
	}
	return skip(count)
}

// inputs are what the items of a run read, by their place in it.
type inputs interface {
	usable(k uint32) bool // false: the item's outcome is crowd.NoInput
	read(k uint32) ([]byte, error)
	spent(k uint32) crowd.Gas // on laying this item's own out, beside what all share
	close()
}

// framed are the strings of the frame file that a batch was posted with.
type framed struct {
	frameFile
	at func(k uint32) uint32
}

func (f framed) usable(k uint32) bool          { return f.Size(f.at(k)) <= executor.MaxItemStdin }
func (f framed) read(k uint32) ([]byte, error) { return f.Read(f.at(k)) }

func (f framed) spent(uint32) crowd.Gas { return 0 }

// openItems is nil where the file says to everybody that it holds no items.
func openItems(path string, e job.Run, at func(k uint32) uint32) (inputs, error) {
	f, err := openFrames(path, e.Items)
	if errors.Is(err, errFrames) && !local(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return framed{f, at}, nil
}

// some runs some items of a batch and keeps what they write, in a folder like a batch's result.
func (r *Runner) some(ctx context.Context, s executor.Spec, e job.Run, l laid) (leaves []batch.Leaf, outputs crowd.CID, err error) {
	out, err := newPacked(s.Output, uint32(len(e.Only)), 0)
	if err != nil {
		return nil, "", err
	}
	defer out.close()
	dir := s.Output
	if err := r.items(ctx, s, e, l, out.add); err != nil {
		return nil, "", err
	}
	if err := out.finish(); err != nil {
		return nil, "", err
	}
	if outputs, err = r.cfg.Blocks.AddDir(ctx, dir); err != nil {
		return nil, "", fmt.Errorf("store the outputs: %w", err)
	}
	return out.leaves, outputs, nil
}

// batch runs all items and lays their outcomes out in s.Output.
func (r *Runner) batch(ctx context.Context, s executor.Spec, e job.Run, laid laid, progress func(done uint32, gas crowd.Gas)) (crowd.Outcome, error) {
	out, err := newPacked(s.Output, e.Items, e.Shuffle.Parts)
	if err != nil {
		return crowd.Outcome{}, err
	}
	defer out.close()
	dir, gas := s.Output, crowd.Gas(0)
	err = r.items(ctx, s, e, laid, func(l batch.Leaf, ir executor.ItemResult) error {
		gas += l.Gas
		progress(uint32(len(out.leaves))+1, gas)
		return out.add(l, ir)
	})
	if err != nil {
		return crowd.Outcome{}, err
	}
	tree, err := batch.NewTree(out.leaves)
	if err != nil {
		return crowd.Outcome{}, err
	}
	if err := out.finish(); err != nil {
		return crowd.Outcome{}, err
	}
	o := crowd.Outcome{Status: crowd.Exited, Gas: tree.Root().Top.Gas, Root: tree.Root().Top.Hash}
	if o.Leaves, err = r.cfg.Blocks.AddFile(ctx, filepath.Join(dir, leavesFile)); err != nil {
		return crowd.Outcome{}, fmt.Errorf("store the leaves: %w", err)
	}
	return o, nil
}

// packed writes a result folder as its items come in.
type packed struct {
	dir            string
	leaves         []batch.Leaf
	stdout, stderr *spool
	parts          *parts // nil: none
}

// spool gathers strings whose number is known and whose lengths are not.
type spool struct {
	file  *os.File // without a header
	w     *bufio.Writer
	sizes []uint64
}

func newPacked(dir string, n, parts uint32) (_ *packed, err error) {
	p := &packed{dir: dir, leaves: make([]batch.Leaf, 0, n)}
	if parts > 0 {
		if p.parts, err = newParts(filepath.Join(dir, partsDir), parts); err != nil {
			return nil, err
		}
	}
	for _, s := range []**spool{&p.stdout, &p.stderr} {
		if *s, err = newSpool(filepath.Dir(dir)); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "spool-")
	if err != nil {
		return nil, err
	}
	return &spool{file: f, w: bufio.NewWriterSize(f, 1<<16)}, nil
}

func (s *spool) close() {
	if s != nil {
		s.file.Close()
		os.Remove(s.file.Name())
	}
}

func (p *packed) add(l batch.Leaf, ir executor.ItemResult) error {
	p.leaves = append(p.leaves, l)
	if p.parts != nil && !l.UserError() {
		if err := p.parts.add(ir.Stdout); err != nil {
			return err
		}
	}
	return errors.Join(p.stdout.add(ir.Stdout), p.stderr.add(ir.Stderr[:min(len(ir.Stderr), batch.MaxError)]))
}

func (s *spool) add(b []byte) error {
	s.sizes = append(s.sizes, uint64(len(b)))
	_, err := s.w.Write(b)
	return err
}

func (p *packed) finish() error {
	raw := make([]byte, 0, len(p.leaves)*batch.LeafSize)
	for _, l := range p.leaves {
		raw = l.Append(raw)
	}
	var err error
	if p.parts != nil {
		err = p.parts.finish()
	}
	return errors.Join(err,
		os.WriteFile(filepath.Join(p.dir, leavesFile), raw, 0o644),
		p.stdout.finish(filepath.Join(p.dir, stdoutFile)),
		p.stderr.finish(filepath.Join(p.dir, stderrFile)),
	)
}

func (s *spool) finish(path string) (err error) {
	if err := s.w.Flush(); err != nil {
		return err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, r := bufio.NewWriterSize(f, 1<<16), bufio.NewReaderSize(s.file, 1<<16)
	err = batch.WriteFrames(w, uint32(len(s.sizes)), func(i uint32) uint64 { return s.sizes[i] },
		func(i uint32, w io.Writer) error { _, err := io.CopyN(w, r, int64(s.sizes[i])); return err })
	return errors.Join(err, w.Flush())
}

func (p *packed) close() {
	p.stdout.close()
	p.stderr.close()
}

// readLeaves reads a batch's leaves, and holds the outputs of its result against them. Of outputs that
// go on to others it makes the whole result anew: it is right if it is the same.
func (r *Runner) readLeaves(ctx context.Context, e job.ReadLeaves) (leaves []batch.Leaf, err error) {
	dir, err := os.MkdirTemp(r.scratchDir(), "leaves-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	bad := func(format string, a ...any) error {
		err := fmt.Errorf(format, a...)
		if local(err) {
			return err
		}
		return fmt.Errorf("%w: %w", job.ErrUnusable, err)
	}
	result := filepath.Join(dir, "result")
	path := filepath.Join(dir, leavesFile)
	if e.Parts > 0 && e.Result != "" {
		if err := os.Mkdir(result, 0o700); err != nil {
			return nil, err
		}
		path = filepath.Join(result, leavesFile)
	}
	size := uint64(e.Items) * batch.LeafSize
	if ok, err := r.export(ctx, e.Leaves, path, false, size); err != nil {
		return nil, err
	} else if !ok {
		return nil, bad("leaves: no file of %d bytes", size)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if uint64(len(raw)) != size {
		return nil, bad("leaves: %d bytes for %d items, want %d", len(raw), e.Items, size)
	}
	leaves = make([]batch.Leaf, e.Items)
	for i := range leaves {
		if leaves[i], err = batch.DecodeLeaf(raw[i*batch.LeafSize:][:batch.LeafSize]); err != nil {
			return nil, bad("leaf %d: %w", i, err)
		}
	}
	if e.Result == "" {
		return leaves, nil
	}
	var made *parts // nil: none
	if e.Parts > 0 {
		if err := r.exportOutputs(ctx, e.Result, result, e.Max); err != nil {
			return nil, err
		}
		if made, err = newParts(filepath.Join(result, partsDir), e.Parts); err != nil {
			return nil, err
		}
	} else if ok, err := r.export(ctx, e.Result, result, true, e.Max); err != nil {
		return nil, err
	} else if !ok {
		return nil, bad("result: no folder of at most %d bytes", e.Max)
	}
	list, err := os.ReadDir(result)
	if err != nil {
		return nil, err
	}
	for _, f := range list { // only what is checked below
		if made == nil && !slices.Contains([]string{leavesFile, stdoutFile, stderrFile}, f.Name()) {
			return nil, bad("result: %.40q is no part of a batch's", f.Name())
		}
	}
	if same, err := holds(filepath.Join(result, leavesFile), raw); err != nil {
		return nil, bad("leaves of the result: %w", err)
	} else if !same {
		return nil, bad("the leaves in the result are others")
	}
	stdout, err := openFrames(filepath.Join(result, stdoutFile), e.Items)
	if err != nil {
		return nil, bad("stdout: %w", err)
	}
	defer stdout.close()
	stderr, err := openFrames(filepath.Join(result, stderrFile), e.Items)
	if err != nil {
		return nil, bad("stderr: %w", err)
	}
	defer stderr.close()
	for i := range e.Items {
		if stdout.Size(i) > executor.MaxItemOutput || stderr.Size(i) > batch.MaxError {
			return nil, bad("item %d: its output is too long", i)
		}
		out, err := stdout.Read(i)
		if err != nil {
			return nil, err
		}
		errs, err := stderr.Read(i)
		if err != nil {
			return nil, err
		}
		if batch.Digest(out, errs) != leaves[i].Output {
			return nil, bad("item %d: the output is not the one in its leaf", i)
		}
		if made != nil && !leaves[i].UserError() {
			if err := made.add(out); err != nil {
				return nil, err
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if made == nil {
		return leaves, nil
	}
	if err := made.finish(); err != nil {
		return nil, err
	}
	c, err := r.cfg.Blocks.AddDir(ctx, result)
	if err != nil {
		return nil, fmt.Errorf("store the result: %w", err)
	}
	if c != e.Result {
		return nil, bad("the result is not what its leaves and outputs make: %s", c)
	}
	return leaves, nil
}

// holds reports whether a file has just these bytes.
func holds(path string, want []byte) (bool, error) {
	fi, err := os.Lstat(path)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() != int64(len(want)) {
		return false, err
	}
	got, err := os.ReadFile(path)
	return bytes.Equal(got, want), err
}

// local reports whether err is about this machine, which cannot read a file, and not about what should be in it.
func local(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p) && !errors.Is(err, fs.ErrNotExist)
}

// frameFile is a frame file on disk.
type frameFile struct {
	*batch.Frames
	file *os.File
}

func (f frameFile) close() { f.file.Close() }

// errFrames marks a file that is no frame file.
var errFrames = errors.New("no frames")

func openFrames(path string, n uint32) (frameFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return frameFile{}, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("not a file")
	}
	var frames *batch.Frames
	if err == nil {
		if frames, err = batch.OpenFrames(f, fi.Size(), n); err != nil {
			err = fmt.Errorf("%w: %w", errFrames, err)
		}
	}
	if err != nil {
		f.Close()
		return frameFile{}, err
	}
	return frameFile{frames, f}, nil
}
