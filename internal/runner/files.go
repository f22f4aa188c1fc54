package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/crowdcompute/crowd/internal/job"
)

// savedJournal is one that a former Run left.
type savedJournal struct {
	slot    slot
	journal []byte
}

// maxJournal bounds a journal read back, in bytes: sealed openings for some hundred authorities.
const maxJournal = 1 << 20

// openDir makes the folders, clears what a former Run left in scratch, and reads the journals.
// A damaged journal is put aside: it must not keep the node from its other jobs.
func (r *Runner) openDir() (found []savedJournal, err error) {
	if err := os.RemoveAll(r.scratchDir()); err != nil {
		return nil, fmt.Errorf("clear scratch: %w", err)
	}
	for _, d := range []string{r.journalDir(), r.scratchDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open runner: %w", err)
		}
	}
	entries, err := os.ReadDir(r.journalDir())
	if err != nil {
		return nil, fmt.Errorf("open runner: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(r.journalDir(), e.Name())
		switch {
		case strings.HasSuffix(e.Name(), tmpSuffix):
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("open runner: %w", err)
			}
			continue
		case strings.HasSuffix(e.Name(), damagedSuffix):
			continue
		}
		raw, err := readBounded(path)
		if err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		id, role, err := job.Journaled(raw)
		s := slot{id, role}
		if err == nil && s.String() != e.Name() {
			err = fmt.Errorf("it belongs to %s", s)
		}
		if err != nil {
			r.cfg.Log.Error("a damaged journal is put aside", "file", path, "err", err)
			if err := os.Rename(path, path+damagedSuffix); err != nil {
				return nil, fmt.Errorf("put journal aside: %w", err)
			}
			continue
		}
		found = append(found, savedJournal{s, raw})
	}
	return found, nil
}

const (
	tmpSuffix     = ".tmp"
	damagedSuffix = ".damaged"
)

func readBounded(path string) ([]byte, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxJournal {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, maxJournal)
	}
	return os.ReadFile(path)
}

// readJournal is nil without an error when there is none.
func (r *Runner) readJournal(s slot) ([]byte, error) {
	raw, err := readBounded(filepath.Join(r.journalDir(), s.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}

// writeJournal is durable when it returns: a crash leaves the old one or the new one.
func (r *Runner) writeJournal(s slot, raw []byte) error {
	path := filepath.Join(r.journalDir(), s.String())
	f, err := os.OpenFile(path+tmpSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(path+tmpSuffix, path)
	}
	if err == nil {
		err = syncDir(r.journalDir())
	}
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

func (r *Runner) removeJournal(s slot) error {
	err := os.Remove(filepath.Join(r.journalDir(), s.String()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove journal: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}
