package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	dbm "github.com/cometbft/cometbft-db"
	goleveldb "github.com/syndtr/goleveldb/leveldb"
	leveldb "github.com/syndtr/goleveldb/leveldb/errors"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// stateDB keeps the ledger's state flat on disk, and where each transaction stands.
// A block is one atomic batch, not synced: after a power cut CometBFT replays the blocks
// that are missing, since it syncs each block before the ledger sees it.
type stateDB struct{ db dbm.DB }

const (
	dbMeta  = "m"  // -> stateMeta
	dbState = "s/" // key -> value
	dbTx    = "t/" // hash -> height, index
	dbBlock = "b/" // height -> blockMeta, of the blocks that are kept
)

// blockMeta is what it takes to forget a block.
type blockMeta struct {
	_    struct{} `cbor:",toarray"`
	Time crowd.Time
	Txs  []crowd.Hash // found under dbTx
}

func blockKey(h crowd.Height) []byte {
	return binary.BigEndian.AppendUint64([]byte(dbBlock), uint64(h))
}

// Blocks are kept for as long as the records of ended jobs (Params.Retention), and at least keepBlocks of them. Of older ones
// nobody needs more: a receipt carries its headers, and a transaction that they used is refused for its nonce.
const keepBlocks = 1000

// pruneStep bounds how many blocks one commit forgets: twice as many as come would do.
const pruneStep = 20

// oldest is the first block that can be forgotten, head if there is none yet.
func (d stateDB) oldest(head crowd.Height) (crowd.Height, error) {
	it, err := d.db.Iterator([]byte(dbBlock), []byte("b0")) // '0' follows '/'
	if err != nil {
		return 0, err
	}
	defer it.Close()
	if !it.Valid() {
		return head, it.Error()
	}
	if len(it.Key()) != len(dbBlock)+8 {
		return 0, fmt.Errorf("block index: %w", ErrCorrupt)
	}
	return crowd.Height(binary.BigEndian.Uint64(it.Key()[len(dbBlock):])), nil
}

// prune forgets blocks from first on that are old when head is the newest, and gives the first that is kept. The newest blocks are
// kept, and those of the last keep ms.
func (d stateDB) prune(first crowd.Height, head Head, blocks crowd.Height, keep int64) (crowd.Height, error) {
	b := d.db.NewBatch()
	defer b.Close()
	forgotten := 0
	for ; forgotten < pruneStep && first+blocks < head.Height; forgotten++ {
		raw, err := d.db.Get(blockKey(first))
		if err != nil {
			return 0, err
		}
		var m blockMeta
		if err := crowd.Decode(raw, &m); err != nil {
			return 0, fmt.Errorf("block index: %w: %v", ErrCorrupt, err)
		}
		if int64(head.Time)-int64(m.Time) <= keep+1000 { // CometBFT reckons in nanoseconds
			break
		}
		for _, tx := range m.Txs {
			if err := b.Delete(append([]byte(dbTx), tx[:]...)); err != nil {
				return 0, err
			}
		}
		if err := b.Delete(blockKey(first)); err != nil {
			return 0, err
		}
		first++
	}
	if forgotten == 0 {
		return first, nil
	}
	return first, b.Write()
}

// stateMeta is what the state on disk claims to be.
type stateMeta struct {
	_      struct{} `cbor:",toarray"`
	Chain  string
	Height crowd.Height
	Time   crowd.Time
	Root   crowd.Hash
}

func openDB(name, dir string) (dbm.DB, error) {
	db, err := dbm.NewGoLevelDB(name, dir)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, fmt.Errorf("open %s in %s: %w", name, dir, ErrInUse)
	case leveldb.IsCorrupted(err):
		return nil, fmt.Errorf("open %s in %s: %w: %v", name, dir, ErrCorrupt, err)
	case err != nil:
		return nil, fmt.Errorf("open %s in %s: %w", name, dir, err)
	}
	return db, nil
}

// load is the newest head of chain on disk; false when there is none yet.
func (d stateDB) load(chain string) (Head, bool, error) {
	corrupt := func(err error) (Head, bool, error) {
		return Head{}, false, fmt.Errorf("load the ledger: %w: %v", ErrCorrupt, err)
	}
	raw, err := d.db.Get([]byte(dbMeta))
	if err != nil {
		return corrupt(err)
	}
	if raw == nil {
		return Head{}, false, nil
	}
	var m stateMeta
	if err := crowd.Decode(raw, &m); err != nil {
		return corrupt(err)
	}
	if m.Chain != chain {
		return Head{}, false, fmt.Errorf("load the ledger: the folder holds chain %s, not %s", m.Chain, chain)
	}
	it, err := d.db.Iterator([]byte(dbState), []byte("s0")) // '0' follows '/'
	if err != nil {
		return corrupt(err)
	}
	defer it.Close()
	state := ledger.Load(func(f func(string, []byte)) {
		for ; it.Valid(); it.Next() {
			f(string(it.Key()[len(dbState):]), bytes.Clone(it.Value())) // the iterator reuses its memory
		}
	})
	if err := it.Error(); err != nil {
		return corrupt(err)
	}
	if state.Root() != m.Root {
		return corrupt(fmt.Errorf("the state of block %d has root %s, not %s", m.Height, state.Root(), m.Root))
	}
	return Head{Height: m.Height, Time: m.Time, Root: m.Root, State: state}, true, nil
}

// save writes one block with the hashes of all that it carries, zero for the beacon.
// The genesis counts as a block that changes everything.
func (d stateDB) save(chain string, h Head, changes []ledger.Change, txs []crowd.Hash) error {
	b := d.db.NewBatch()
	defer b.Close()
	var err error
	set := func(key, val []byte) {
		if err == nil {
			err = b.Set(key, val)
		}
	}
	for _, c := range changes {
		if key := []byte(dbState + c.Key); c.Val != nil {
			set(key, c.Val)
		} else if err == nil {
			err = b.Delete(key)
		}
	}
	m := blockMeta{Time: h.Time}
	for i, tx := range txs {
		if tx == (crowd.Hash{}) {
			continue
		}
		m.Txs = append(m.Txs, tx)
		at := binary.BigEndian.AppendUint64(nil, uint64(h.Height))
		set(append([]byte(dbTx), tx[:]...), binary.BigEndian.AppendUint32(at, uint32(i)))
	}
	set(blockKey(h.Height), crowd.Encode(m))
	set([]byte(dbMeta), crowd.Encode(stateMeta{Chain: chain, Height: h.Height, Time: h.Time, Root: h.Root}))
	if err == nil {
		err = b.Write()
	}
	if err != nil {
		return fmt.Errorf("save block %d: %w", h.Height, err)
	}
	return nil
}

// find is where a transaction stands: its block, and its place among all that the block carries.
func (d stateDB) find(tx crowd.Hash) (h crowd.Height, index int, ok bool, err error) {
	raw, err := d.db.Get(append([]byte(dbTx), tx[:]...))
	if errors.Is(err, goleveldb.ErrClosed) {
		err = ErrClosed
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("look up a transaction: %w", err)
	}
	if len(raw) != 12 {
		return 0, 0, false, nil
	}
	return crowd.Height(binary.BigEndian.Uint64(raw)), int(binary.BigEndian.Uint32(raw[8:])), true, nil
}

// CometBFT's log of votes grows to a gibibyte in files of 10 MiB, and a start reads its end only.
const (
	walKept  = 2 // rotated files
	walSweep = time.Minute
)

// sweep removes what CometBFT's log of votes no longer needs.
func (f *Full) sweep(ctx context.Context) {
	t := time.NewTicker(walSweep)
	defer t.Stop()
	for {
		if err := sweepLog(filepath.Dir(f.engineConfig().Consensus.WalFile())); err != nil {
			f.log.Warn("remove old logs of votes", "err", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweepLog leaves the newest rotated files of the log in dir: wal.007 follows wal.006, and wal itself is the newest.
func sweepLog(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var rotated []int
	name := map[int]string{}
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimPrefix(e.Name(), "wal.")); err == nil && n >= 0 {
			rotated, name[n] = append(rotated, n), e.Name()
		}
	}
	slices.Sort(rotated)
	for _, n := range rotated[:max(0, len(rotated)-walKept)] {
		if err := os.Remove(filepath.Join(dir, name[n])); err != nil {
			return err
		}
	}
	return nil
}

// survivor is a database that outlives its closing. CometBFT leaves gossip goroutines
// behind its Stop that read once more (queryMaj23Routine) and would panic the whole
// process with "leveldb: closed"; here they find nothing, which they are used to.
// Its Close does nothing, since CometBFT calls it too early.
type survivor struct {
	dbm.DB
	mu     sync.RWMutex
	closed bool // guarded by mu
}

func (s *survivor) Get(key []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, nil
	}
	return s.DB.Get(key)
}

func (s *survivor) Has(key []byte) (bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return false, nil
	}
	return s.DB.Has(key)
}

func (s *survivor) Close() error { return nil }

func (s *survivor) bury() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.DB.Close()
}
