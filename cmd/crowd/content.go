package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// inputs are what --in and --stdin name.
type inputs struct {
	stdin  io.Reader
	size   int64 // of stdin, 0 when unknown
	folder *os.Root
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

func (a *app) openInputs(f *runFlags) (*inputs, error) {
	in := &inputs{}
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
		case f.stdin != "":
			return nil, misuse("give --in a folder, or leave out --stdin", "run: --in %s and --stdin %s are both stdin", f.in, f.stdin)
		default:
			file = f.in
		}
	}
	switch file {
	case "":
	case "-":
		in.stdin = a.stdin
	default:
		opened, err := os.Open(file)
		if err != nil {
			in.close()
			return nil, fmt.Errorf("input: %w", err)
		}
		info, err := opened.Stat()
		if err == nil && info.IsDir() {
			err = fmt.Errorf("%s is a folder: give it with --in", file)
		}
		if err != nil {
			in.close()
			opened.Close()
			return nil, fmt.Errorf("input: %w", err)
		}
		in.stdin, in.closer, in.size = opened, opened, info.Size()
	}
	return in, nil
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
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	mode := fs.FileMode(0o644)
	if info != nil {
		mode = info.Mode().Perm()
	}
	return &output{w: f, file: f, name: name}, f.Chmod(mode)
}

func (o *output) abandon() {
	if o.file != nil {
		o.file.Close()
		os.Remove(o.file.Name())
	}
}

func (o *output) deliver(ctx context.Context, c *rpc.Client, id crowd.JobID, res rpc.Result, st *stages) error {
	if o.dir != "" {
		return download(ctx, c, id, o.dir)
	}
	w := &counted{w: o.w, tell: st.transfer("downloading result", res.Stdout)}
	if _, err := c.Download(ctx, id, "stdout", w); err != nil {
		return err
	}
	return o.finish()
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
		f, err := root.Create(path)
		if err != nil {
			return fmt.Errorf("output: %w", err)
		}
		_, err = c.Download(ctx, id, e.Path, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
