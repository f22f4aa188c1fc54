package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// inputs are what --in and --stdin name.
type inputs struct {
	stdin  io.Reader
	size   int64 // of stdin, 0 when unknown
	folder *os.Root
	holds  rpc.FolderSize // the folder
	closer io.Closer
}

func (in *inputs) close() {
	if in.closer != nil {
		in.closer.Close()
	}
	if in.folder != nil {
		in.folder.Close()
	}
}

// openInputs refuses what cannot be uploaded, by name, before anything is.
func (a *app) openInputs(ctx context.Context, f *runFlags) (_ *inputs, err error) {
	in := &inputs{}
	defer func() {
		if err != nil {
			in.close()
		}
	}()
	file := f.stdin
	if f.in != "" {
		info, err := os.Stat(f.in)
		switch {
		case f.in != "-" && err != nil:
			return nil, fmt.Errorf("input: %w", err)
		case f.in != "-" && info.IsDir():
			if in.folder, err = os.OpenRoot(f.in); err != nil {
				return nil, fmt.Errorf("input: %w", err)
			}
			if in.holds, err = rpc.ScanFolder(ctx, in.folder.FS()); err != nil {
				return nil, fmt.Errorf("input folder %s: %w", f.in, err)
			}
		case f.stdin != "":
			return nil, misuse("give --in a folder, or leave out --stdin", "run: --in %s and --stdin %s are both stdin", f.in, f.stdin)
		default:
			file = f.in
		}
	}
	switch file {
	case "":
	case "-":
		in.stdin = &stoppable{ctx: ctx, r: a.stdin}
	default:
		opened, err := openFile(file)
		if err != nil {
			return nil, err
		}
		in.closer = opened
		info, err := opened.Stat()
		if err != nil {
			return nil, fmt.Errorf("input: %w", err)
		}
		if info.Size() > rpc.MaxUpload {
			most := sizeText(rpc.MaxUpload)
			return nil, rpc.Errorf(rpc.TooLarge, "input: %s has %s, at most %s", file, sizeText(info.Size()), most).
				WithHint("split it into several jobs")
		}
		in.stdin, in.size = opened, info.Size()
	}
	return in, nil
}

// openFile opens an input. It looks first at what that is, as the opening of a pipe would wait for a writer.
func openFile(name string) (*os.File, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	if err := wantFile(name, info); err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	return f, nil
}

// wantFile refuses what is no regular file.
func wantFile(name string, info fs.FileInfo) error {
	what := rpc.NotFile(info.Mode())
	hint := "pipe what it holds into this command and say --in -"
	switch {
	case what == "":
		return nil
	case info.IsDir():
		hint = "give a folder with --in"
	}
	return &rpc.Error{Kind: rpc.BadRequest, Err: fmt.Errorf("%s is %s, not a file", name, what), Hint: hint}
}

// stoppable reads r until ctx ends, also while a Read waits for what does not come.
type stoppable struct {
	ctx context.Context
	r   io.Reader
	buf []byte // of the Read under way: nobody touches p when ctx has ended
}

func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if len(s.buf) < len(p) {
		s.buf = make([]byte, len(p))
	}
	type read struct {
		n   int
		err error
	}
	done := make(chan read, 1) // capacity: it may end when nobody waits
	go func() {
		n, err := s.r.Read(s.buf[:len(p)])
		done <- read{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, s.buf[:r.n]), r.err
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

// output is where a result goes: a writer, a file that appears when it is whole,
// or a folder.
type output struct {
	w    io.Writer
	file *os.File // written to under another name, renamed at the end
	name string
	dir  string
}

// openOutput fails early, before anything is paid.
func openOutput(name string, stdout io.Writer) (*output, error) {
	if name == "" || name == "-" {
		return &output{w: stdout}, nil
	}
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir(), errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(name, "/"):
		if err := os.MkdirAll(name, 0o777); err != nil {
			return nil, fmt.Errorf("output: %w", err)
		}
		f, err := os.CreateTemp(name, ".crowd-")
		if err != nil {
			return nil, fmt.Errorf("output: %w", named(err, name))
		}
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			return nil, fmt.Errorf("output: %w", err)
		}
		return &output{dir: name}, nil
	case err == nil && !info.Mode().IsRegular(): // a device or a pipe
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("output: %w", err)
		}
		return &output{w: f}, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("output: %w", err)
	}
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	mode := fs.FileMode(0o666) // less what the umask takes
	if info != nil {
		mode = info.Mode().Perm()
	}
	f, err := os.OpenFile(filepath.Join(filepath.Dir(name), besideName()), os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, fmt.Errorf("output: %w", named(err, name))
	}
	o := &output{w: f, file: f, name: name}
	if info != nil { // what was made less open than that before stays so
		if err := f.Chmod(mode); err != nil {
			o.abandon()
			return nil, fmt.Errorf("output: %w", err)
		}
	}
	return o, nil
}

// named is err about the file name, which is written under another name.
func named(err error, name string) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		p.Path = name
	}
	return err
}

// besideName is the name of a file while it is written: it gets its own when it is whole.
func besideName() string { return ".crowd-" + rand.Text()[:12] }

func (o *output) abandon() {
	if o.file != nil {
		o.file.Close()
		os.Remove(o.file.Name())
	}
}

func (o *output) deliver(ctx context.Context, c *rpc.Client, id crowd.JobID, res rpc.Result, st *stages) (err error) {
	defer func() {
		if err != nil && o.file != nil {
			err = named(err, o.name)
		}
	}()
	if o.dir != "" {
		return download(ctx, c, id, o.dir)
	}
	if res.Items > 0 {
		if err := outputs(ctx, c, id, res.Items, o.w); err != nil {
			return err
		}
		return o.finish()
	}
	w := &counted{w: o.w, tell: st.transfer("downloading result", res.Stdout)}
	if _, err := c.Download(ctx, id, "stdout", w); err != nil {
		return err
	}
	return o.finish()
}

// leftOut says which files of a result are not delivered, since o is no folder; "" if there are none.
func (o *output) leftOut(ctx context.Context, c *rpc.Client, id crowd.JobID) (string, error) {
	if o.dir != "" {
		return "", nil
	}
	files := 0
	for e, err := range c.ListResult(ctx, id) {
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(e.Path, "out/") && !e.Folder {
			files++
		}
	}
	if files == 0 {
		return "", nil
	}
	return fmt.Sprintf("the program wrote %s to /out, which only a folder receives; get all with: crowd job get %s --out FOLDER/",
		count(files, "file"), id.Short()), nil
}

// outputs writes what the items of a batch wrote, one after another.
func outputs(ctx context.Context, c *rpc.Client, id crowd.JobID, items uint32, w io.Writer) error {
	f, err := os.CreateTemp("", "crowd-stdout-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	size, err := c.Download(ctx, id, "stdout", f)
	if err != nil {
		return err
	}
	frames, err := batch.OpenFrames(f, size, items)
	if err != nil {
		return fmt.Errorf("the result of job %s: %w", id.Short(), err)
	}
	for i := range items {
		if _, err := io.Copy(w, frames.Open(i)); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
	return nil
}

// finish makes a file that is written appear under its name.
func (o *output) finish() error {
	if o.file == nil {
		return nil
	}
	if err := errors.Join(o.file.Sync(), o.file.Close()); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	if err := os.Rename(o.file.Name(), o.name); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	o.file = nil
	return nil
}

type counted struct {
	w    io.Writer
	tell func(int)
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.tell(n)
	return n, err
}

// download writes all files of a result below dir, and nothing outside of it.
func download(ctx context.Context, c *rpc.Client, id crowd.JobID, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	defer root.Close()
	for e, err := range c.ListResult(ctx, id) {
		if err != nil {
			return err
		}
		path := filepath.FromSlash(e.Path)
		parent := filepath.Dir(path)
		if e.Folder {
			parent = path
		}
		if err := root.MkdirAll(parent, 0o777); err != nil {
			return fmt.Errorf("output: %w", err)
		}
		if e.Folder {
			continue
		}
		err := writeBeside(root, path, func(w io.Writer) error {
			_, err := c.Download(ctx, id, e.Path, w)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeBeside makes a file below root appear under its name when it is whole, and leaves nothing behind otherwise.
func writeBeside(root *os.Root, name string, write func(io.Writer) error) error {
	tmp := filepath.Join(filepath.Dir(name), besideName())
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	err = errors.Join(write(f), f.Close())
	if err == nil {
		if err = root.Rename(tmp, name); err != nil {
			err = fmt.Errorf("output: %w", err)
		}
	}
	if err != nil {
		root.Remove(tmp)
		return named(err, name)
	}
	return nil
}

// kept is err, which kept a result from being written, and that the result is not lost. again is the command that
// gets it.
func kept(err error, what, again string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	first := ""
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		first = "free some space, then "
	}
	kind := rpc.KindOf(err)
	if !errors.As(err, new(*rpc.Error)) {
		kind = rpc.Conflict
	}
	return &rpc.Error{Kind: kind, Err: fmt.Errorf("%w; %s and kept", err, what), Hint: first + "get it with: " + again}
}
