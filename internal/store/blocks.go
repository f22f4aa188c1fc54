package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ipfs/boxo/blockstore"
	block "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	flatfs "github.com/ipfs/go-ds-flatfs"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/crowdcompute/crowd"
)

// blocks adds to flatfs's blocks what an honest store owes: every read is
// hashed, every write is bounded, and garbage collection spares what was just written.
type blocks struct {
	blockstore.Blockstore // over disk

	// set once
	disk    *flatfs.Datastore
	max     uint64
	dir     string
	reserve uint64

	writing atomic.Int64 // bytes of puts under way, not yet in disk's count

	sweep sync.RWMutex // held for reading by puts, for writing by the removal of one block

	mu    sync.Mutex
	young map[string]uint64 // multihash of each block put since the last collection began -> its newest put
	puts  uint64
}

// Get returns the block only if its bytes still have the hash c; if not, it drops them.
func (b *blocks) Get(ctx context.Context, c cid.Cid) (block.Block, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	blk, err := b.Blockstore.Get(ctx, c)
	if ipld.IsNotFound(err) {
		return nil, missing(c)
	}
	if err != nil {
		return nil, fmt.Errorf("read block %s: %w", c, err)
	}
	if Matches(c, blk.RawData()) {
		return blk, nil
	}
	b.sweep.Lock()
	defer b.sweep.Unlock()
	if again, err := b.Blockstore.Get(ctx, c); err == nil && Matches(c, again.RawData()) {
		return again, nil // somebody else has just dropped and replaced it
	}
	if err := b.Blockstore.DeleteBlock(ctx, c); err != nil {
		return nil, fmt.Errorf("drop damaged block %s: %w", c, err)
	}
	return nil, &MissingError{CID: crowd.CID(c.String()), Rotten: true}
}

// GetSize is the length of a block on disk, in bytes.
func (b *blocks) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	n, err := b.Blockstore.GetSize(ctx, c)
	if ipld.IsNotFound(err) {
		return -1, missing(c)
	}
	return n, err
}

// Put writes a block of at most MaxBlock bytes. That bytes and CID fit is the
// caller's word, and is checked on each read.
func (b *blocks) Put(ctx context.Context, blk block.Block) error {
	_, _, err := b.put(ctx, blk)
	return err
}

// put reports the number of this put, and whether it made a new block.
func (b *blocks) put(ctx context.Context, blk block.Block) (seq uint64, fresh bool, err error) {
	c, n := blk.Cid(), int64(len(blk.RawData()))
	if err := check(c); err != nil {
		return 0, false, err
	}
	if n > MaxBlock {
		return 0, false, fmt.Errorf("%w: block %s has %d bytes, at most %d", ErrTooBig, c, n, MaxBlock)
	}
	b.sweep.RLock()
	defer b.sweep.RUnlock()
	b.mu.Lock()
	b.puts++
	seq = b.puts
	b.young[string(c.Hash())] = seq
	b.mu.Unlock()
	if has, err := b.Blockstore.Has(ctx, c); err == nil && has {
		return seq, false, nil
	}
	coming := b.writing.Add(n)
	defer b.writing.Add(-n)
	if b.max > 0 {
		used, err := b.disk.DiskUsage(ctx)
		if err != nil {
			return seq, false, err
		}
		if used+uint64(coming) > b.max {
			return seq, false, fmt.Errorf("%w: store holds %d of %d bytes", ErrNoSpace, used, b.max)
		}
	}
	if err := b.fits(uint64(coming)); err != nil {
		return seq, false, err
	}
	if err := b.Blockstore.Put(ctx, blk); err != nil {
		return seq, false, fmt.Errorf("write block %s: %w", c, noSpace(err))
	}
	return seq, true, nil
}

// fits is ErrNoSpace when n more bytes would take of what is reserved.
func (b *blocks) fits(n uint64) error {
	if b.reserve == 0 {
		return nil
	}
	left, all, err := room(b.dir)
	if reserve := min(b.reserve, all/20); err == nil && (left < reserve || left-reserve < n) {
		err = fmt.Errorf("%w: the disk has %d bytes left, of which %d are reserved", ErrNoSpace, left, reserve)
	}
	return err
}

// Full says why not even a small block would be taken, or nothing.
func (s *Store) Full() error { return s.blocks.fits(1) }

// PutMany puts one after the other; on an error some are written and some are not.
func (b *blocks) PutMany(ctx context.Context, blks []block.Block) error {
	for _, blk := range blks {
		if err := b.Put(ctx, blk); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes a block unless keep says otherwise while no put is under way.
func (b *blocks) remove(ctx context.Context, c cid.Cid, keep func(seq uint64, young bool) bool) (bool, error) {
	b.sweep.Lock()
	defer b.sweep.Unlock()
	b.mu.Lock()
	seq, young := b.young[string(c.Hash())]
	b.mu.Unlock()
	if keep(seq, young) {
		return false, nil
	}
	return true, b.Blockstore.DeleteBlock(ctx, c)
}

// Matches reports whether data is what the valid CID c names.
func Matches(c cid.Cid, data []byte) bool {
	sum := sha256.Sum256(data)
	mh := c.Hash()
	return len(mh) == 2+len(sum) && bytes.Equal(mh[2:], sum[:])
}

// touch makes blocks young again.
func (b *blocks) touch(hashes map[string]struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for h := range hashes {
		b.puts++
		b.young[h] = b.puts
	}
}

// added is the blocks of one add, so that no collection takes them and a failed add can be taken back.
type added struct {
	*blocks

	mu    sync.Mutex
	all   map[string]struct{} // multihashes
	fresh map[cid.Cid]uint64
}

func (a *added) Put(ctx context.Context, blk block.Block) error {
	// Before the put: a collection that comes between must know of it.
	a.mu.Lock()
	a.all[string(blk.Cid().Hash())] = struct{}{}
	a.mu.Unlock()
	seq, fresh, err := a.put(ctx, blk)
	if fresh || err != nil {
		a.mu.Lock()
		a.fresh[blk.Cid()] = seq
		a.mu.Unlock()
	}
	return err
}

func (a *added) PutMany(ctx context.Context, blks []block.Block) error {
	for _, blk := range blks {
		if err := a.Put(ctx, blk); err != nil {
			return err
		}
	}
	return nil
}

func (a *added) has(hash string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.all[hash]
	return ok
}

// undo removes what this add made and nobody else has put since.
func (a *added) undo() {
	for c, mine := range a.fresh {
		// An error leaves whole blocks behind, which the next collection finds.
		a.remove(context.Background(), c, func(seq uint64, young bool) bool { return !young || seq != mine })
	}
}
