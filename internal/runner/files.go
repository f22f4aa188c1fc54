package runner

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/syndtr/goleveldb/leveldb"
	leveldberrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/crowdcompute/crowd/internal/job"
)

// savedJournal is one that a former Run left.
type savedJournal struct {
	slot    slot
	journal []byte
}

// journalFile keeps the journals under the names of their slots. One database takes a write with one sync, where a file for
// each takes a new file, two syncs and a rename. A database that could not write, for example to a full disk, never writes
// again: it is closed then, and opened anew for what is asked next.
type journalFile struct {
	dir string
	log *slog.Logger
	db  *leveldb.DB // nil when it must be opened
}

// damagedPrefix begins the name of a journal that cannot be read. It is kept so that the operator can see what is wrong with it.
const damagedPrefix = "damaged/"

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
	r.journals.dir, r.journals.log = r.journalDir(), r.cfg.Log
	return r.journals.all()
}

func (f *journalFile) open() (err error) {
	if f.db != nil {
		return nil
	}
	o := &opt.Options{WriteBuffer: 256 << 10, BlockCacheCapacity: 256 << 10, OpenFilesCacheCapacity: 16}
	f.db, err = leveldb.OpenFile(f.dir, o)
	if leveldberrors.IsCorrupted(err) {
		f.log.Error("the journals are damaged; what can be read of them is used", "dir", f.dir, "err", err)
		f.db, err = leveldb.RecoverFile(f.dir, o)
	}
	if err != nil {
		return fmt.Errorf("open the journals in %s: %w", f.dir, err)
	}
	return nil
}

func (f *journalFile) close() {
	if f.db == nil {
		return
	}
	if err := f.db.Close(); err != nil {
		f.log.Warn("close the journals", "err", err)
	}
	f.db = nil
}

// change is durable when it returns, if sync is asked for: a crash leaves what was or what is new.
func (f *journalFile) change(b *leveldb.Batch, sync bool) error {
	if err := f.open(); err != nil {
		return err
	}
	err := f.db.Write(b, &opt.WriteOptions{Sync: sync})
	if err != nil {
		f.close()
	}
	return err
}

// all reads the journals. Entries that are no valid journal are put aside under damagedPrefix.
func (f *journalFile) all() (found []savedJournal, err error) {
	if err := f.open(); err != nil {
		return nil, err
	}
	it := f.db.NewIterator(nil, nil)
	defer it.Release()
	aside := new(leveldb.Batch)
	for it.Next() {
		if bytes.HasPrefix(it.Key(), []byte(damagedPrefix)) {
			continue
		}
		raw := bytes.Clone(it.Value())
		id, role, err := job.Journaled(raw)
		s := slot{id, role}
		if err == nil && s.String() != string(it.Key()) {
			err = fmt.Errorf("it belongs to %s", s)
		}
		if err != nil {
			f.log.Error("a damaged journal is put aside", "journal", string(it.Key()), "err", err)
			aside.Put(append([]byte(damagedPrefix), it.Key()...), raw)
			aside.Delete(bytes.Clone(it.Key()))
			continue
		}
		found = append(found, savedJournal{s, raw})
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("read the journals: %w", err)
	}
	if aside.Len() == 0 {
		return found, nil
	}
	if err := f.change(aside, false); err != nil {
		return nil, fmt.Errorf("put journals aside: %w", err)
	}
	return found, nil
}

// read is nil without an error when there is none.
func (f *journalFile) read(s slot) ([]byte, error) {
	if err := f.open(); err != nil {
		return nil, err
	}
	raw, err := f.db.Get([]byte(s.String()), nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, nil
	}
	return raw, err
}

func (f *journalFile) write(s slot, raw []byte) error {
	b := new(leveldb.Batch)
	b.Put([]byte(s.String()), raw)
	if err := f.change(b, true); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// remove is not synced: a machine whose journal comes back sees that its job has ended.
func (f *journalFile) remove(s slot) error {
	b := new(leveldb.Batch)
	b.Delete([]byte(s.String()))
	if err := f.change(b, false); err != nil {
		return fmt.Errorf("remove journal: %w", err)
	}
	return nil
}

func (r *Runner) journalDir() string { return filepath.Join(r.cfg.Dir, "journals") }
func (r *Runner) scratchDir() string { return filepath.Join(r.cfg.Dir, "scratch") }
