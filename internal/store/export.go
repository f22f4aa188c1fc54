package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"

	"github.com/crowdcompute/crowd"
)

// Export writes the file or folder c to path, where nothing may be yet. It appears whole or not at
// all. More than max bytes of content are ErrTooBig; a tree that cannot be a file or folder on
// every machine, or whose nodes lie, is ErrInvalid: both depend on c and max alone. A block that is
// not here is a MissingError.
func (s *Store) Export(ctx context.Context, c crowd.CID, path string, max uint64) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("export %s: %w", c, noSpace(err))
		}
	}()
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, os.ErrExist)
	}
	// A folder is read twice, so that a bad one costs no writing.
	if in, err := s.Stat(ctx, c); err != nil {
		return err
	} else if in.Size > max {
		return fmt.Errorf("%d bytes, at most %d: %w", in.Size, max, ErrTooBig)
	} else if err := s.blocks.fits(in.Size); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(path), ".export-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	root, err := os.OpenRoot(temp)
	if err != nil {
		return err
	}
	defer root.Close()
	const top = "x" // what c is, inside temp
	left := max
	err = s.walk(ctx, c, func(p string, _ cid.Cid, n *node) error {
		at := filepath.Join(top, filepath.FromSlash(p))
		if n.kind != file {
			return root.Mkdir(at, 0o755)
		}
		if n.size > left {
			return fmt.Errorf("more than %d bytes: %w", max, ErrTooBig)
		}
		left -= n.size
		f, err := root.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = s.reader(ctx, n).WriteTo(&sparse{f: f})
		return errors.Join(err, f.Truncate(int64(n.size)), f.Close())
	})
	if err != nil {
		return err
	}
	return os.Rename(filepath.Join(temp, top), path)
}

// sparse leaves holes in a file where blocks of zeros come: a tree of one such block may claim gigabytes.
type sparse struct {
	f  *os.File
	at int64
}

func (s *sparse) Write(b []byte) (n int, err error) {
	n = len(b)
	if len(bytes.TrimLeft(b, "\x00")) > 0 {
		n, err = s.f.WriteAt(b, s.at)
	}
	s.at += int64(n)
	return n, err
}
