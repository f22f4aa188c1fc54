package node

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// bookFile is the part of the book that is on disk: one database, so that a node opens it, finds a job and lists the newest
// ones in a time that does not depend on how many jobs it ever had. A killed process loses nothing. A power cut may lose the
// last seconds, which the chain still knows.
type bookFile struct{ db *leveldb.DB }

// Keys of the database. A job's ID follows each; before it stands the complement of the post's height under bookByTime.
const (
	bookRecord  = "r" // ledger.Job
	bookReceipt = "c"
	bookAdvice  = "a"
	bookOpen    = "o" // empty: something about the job is still to come
	bookByTime  = "t" // empty
	bookSeen    = "s" // alone: the newest block in which one of the jobs ended, 8 bytes
)

func openBookFile(dir string) (bookFile, error) {
	db, err := leveldb.OpenFile(dir, &opt.Options{WriteBuffer: 1 << 20, BlockCacheCapacity: 1 << 20, OpenFilesCacheCapacity: 32})
	return bookFile{db}, err
}

func bookKey(kind string, id crowd.JobID) []byte { return append([]byte(kind), id[:]...) }

func bookTimeKey(j *ledger.Job) []byte {
	key := binary.BigEndian.AppendUint64([]byte(bookByTime), math.MaxUint64-uint64(j.History[0].Height))
	return append(key, j.ID[:]...)
}

// get is nil for what is not there.
func (f bookFile) get(key []byte) ([]byte, error) {
	val, err := f.db.Get(key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, nil
	}
	return val, err
}

// load reads a job; false: there is none. dir holds the results.
func (f bookFile) load(id crowd.JobID, dir string) (p page, ok bool, err error) {
	raw, err := f.get(bookKey(bookRecord, id))
	if err != nil || raw == nil {
		return p, false, err
	}
	if err := crowd.Decode(raw, &p.job); err != nil || p.job.ID != id {
		return p, false, fmt.Errorf("the record of job %s is damaged: %v", id.Short(), err)
	}
	if p.receipt, err = f.get(bookKey(bookReceipt, id)); err != nil {
		return p, false, err
	}
	advice, err := f.get(bookKey(bookAdvice, id))
	if p.advice = string(advice); err != nil {
		return p, false, err
	}
	_, err = os.Stat(filepath.Join(dir, id.String(), "result"))
	p.delivered = err == nil
	return p, true, nil
}

// saveRecord writes the newest record of a job, which stays open until close.
func (f bookFile) saveRecord(j *ledger.Job) error {
	b := new(leveldb.Batch)
	b.Put(bookKey(bookRecord, j.ID), crowd.Encode(j))
	b.Put(bookKey(bookOpen, j.ID), nil)
	b.Put(bookTimeKey(j), nil)
	if j.State.Ended() {
		at := lastStep(j).Height
		if seen, err := f.seen(); err != nil {
			return err
		} else if at > seen {
			b.Put([]byte(bookSeen), binary.BigEndian.AppendUint64(nil, uint64(at)))
		}
	}
	return f.db.Write(b, nil)
}

func (f bookFile) save(kind string, id crowd.JobID, val []byte) error {
	return f.db.Put(bookKey(kind, id), val, nil)
}

// close notes that nothing about a job is to come any more.
func (f bookFile) close(id crowd.JobID) error { return f.db.Delete(bookKey(bookOpen, id), nil) }

// seen is the newest block in which one of the jobs ended.
func (f bookFile) seen() (crowd.Height, error) {
	raw, err := f.get([]byte(bookSeen))
	if err != nil || len(raw) != 8 {
		return 0, err
	}
	return crowd.Height(binary.BigEndian.Uint64(raw)), nil
}

// each calls do with the ID under every key that begins with prefix, until it returns false.
func (f bookFile) each(prefix []byte, do func(crowd.JobID) bool) error {
	it := f.db.NewIterator(util.BytesPrefix(prefix), nil)
	defer it.Release()
	for it.Next() {
		var id crowd.JobID
		copy(id[:], it.Key()[len(it.Key())-len(id):])
		if !do(id) {
			break
		}
	}
	return it.Error()
}

// match are at most limit jobs whose ID begins with those hex digits.
func (f bookFile) match(digits string, limit int) (ids []crowd.JobID, err error) {
	whole, err := hex.DecodeString(digits[:len(digits)/2*2])
	if err != nil || limit <= 0 {
		return nil, nil
	}
	err = f.each(append([]byte(bookRecord), whole...), func(id crowd.JobID) bool {
		if bytes.HasPrefix([]byte(id.String()), []byte(digits)) {
			ids = append(ids, id)
		}
		return len(ids) < limit
	})
	return ids, err
}
