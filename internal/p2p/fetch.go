package p2p

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/store"
)

// fetch is one tree, or several, on its way here, from several sources at once.
type fetch struct {
	// set once
	h        *Host
	max      uint64
	limit    int // CIDs in the tree
	below    func(c cid.Cid, block []byte) ([]cid.Cid, error)
	progress func(done, total uint64)

	mu      sync.Mutex
	changed *sync.Cond          // of all below
	seen    map[cid.Cid]bool    // every CID of the tree that is known so far
	queue   []*want             // nobody has tried these; the last is next
	again   [maxSources][]*want // others have tried these and could not; for this source alone
	open    int                 // wants not delivered yet
	alive   uint                // bit i: source i may still deliver
	done    uint64              // bytes of the tree that are here
	total   uint64              // what the root claims, at least done
	err     error
}

// want is a block to get. While it is in no queue it belongs to the source that took it.
type want struct {
	c     cid.Cid
	tried uint // bit i: source i could not deliver it
}

// Fetch brings the tree of c into Config.Blocks, from those nodes, or if none are named from
// whoever is connected (16 at most are asked). Each block is checked against its hash before
// it is kept; a source that sends anything else is not asked again. Blocks that are here already are
// not fetched. done and total are bytes of blocks, total as the root claims; progress, which may be nil, is called
// for each block, one call at a time, and must not block.
//
// Errors: store.ErrTooBig if all blocks together, tree nodes included, have more than max
// bytes; store.ErrInvalid if the tree is no UnixFS file or folder; a store.MissingError if no source has some
// block, joined with what was wrong with the sources. Blocks fetched before an error stay.
func (h *Host) Fetch(ctx context.Context, c crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error {
	if err := h.fetch(ctx, []crowd.CID{c}, store.Links, max, from, progress); err != nil {
		return fmt.Errorf("fetch %s: %w", c, err)
	}
	return nil
}

// FetchAll is Fetch of many trees at once; max is for all together.
func (h *Host) FetchAll(ctx context.Context, cs []crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error {
	if err := h.fetch(ctx, cs, store.Links, max, from, progress); err != nil {
		return fmt.Errorf("fetch %d files: %w", len(cs), err)
	}
	return nil
}

// FetchFolder is Fetch of the blocks that list the folder c, and of nothing in it.
func (h *Host) FetchFolder(ctx context.Context, c crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error {
	if err := h.fetch(ctx, []crowd.CID{c}, store.Inner, max, from, progress); err != nil {
		return fmt.Errorf("fetch the listing of %s: %w", c, err)
	}
	return nil
}

// Holds asks a node for the first block of c. It fails unless that is what comes back.
func (h *Host) Holds(ctx context.Context, node crowd.NodeID, c crowd.CID) error {
	err := func() error {
		k, err := store.Parse(c)
		if err != nil {
			return err
		}
		if h.cfg.Find != nil {
			if err := h.cfg.Find(ctx, node); err != nil {
				return err
			}
		}
		s, err := h.open(ctx, node, blocksProtocol)
		if err != nil {
			return err
		}
		defer s.Reset()
		defer context.AfterFunc(ctx, func() { s.Reset() })()
		if _, err := s.Write(k.Bytes()); err != nil {
			return err
		}
		data, err := readBlock(deadlineReader{s, bufio.NewReader(s), h.cfg.Limits.Patience})
		h.fetched.Add(uint64(len(data)))
		switch {
		case err != nil:
			return errors.Join(ctx.Err(), err)
		case data == nil:
			return &store.MissingError{CID: c}
		case !store.Matches(k, data):
			return errLied
		}
		return nil
	}()
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w", node.Short(), c, err)
	}
	return nil
}

// Traffic is how many bytes of blocks this host has taken in and handed out by its own protocol.
func (h *Host) Traffic() (fetched, served uint64) { return h.fetched.Load(), h.served.Load() }

func (h *Host) fetch(ctx context.Context, cs []crowd.CID, below func(cid.Cid, []byte) ([]cid.Cid, error), max uint64, from []crowd.NodeID, progress func(done, total uint64)) error {
	if h.cfg.Blocks == nil {
		return errors.New("this host keeps no blocks")
	}
	roots := make([]cid.Cid, len(cs))
	for i, c := range cs {
		var err error
		if roots[i], err = store.Parse(c); err != nil {
			return err
		}
	}
	f := &fetch{
		h: h, max: max, below: below, progress: progress,
		// Links cost memory before their blocks come: this many, at 36 bytes and some each.
		limit: len(roots) + store.MaxEntries + int(min(max/4096, 1<<30)),
		seen:  map[cid.Cid]bool{},
	}
	f.changed = sync.NewCond(&f.mu)
	if err := f.visit(ctx, roots); err != nil {
		return err
	}
	if f.open == 0 {
		return nil
	}
	if len(from) == 0 {
		for _, p := range h.Peers() {
			from = append(from, p.ID)
		}
	}
	from = slices.DeleteFunc(slices.Clone(from), func(n crowd.NodeID) bool { return n == h.id })
	from = from[:min(len(from), maxSources)]
	if len(from) == 0 {
		return errors.Join(&store.MissingError{CID: crowd.CID(f.queue[len(f.queue)-1].c.String())}, errors.New("no peer to fetch from"))
	}
	f.alive = 1<<len(from) - 1
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { f.fail(ctx.Err()) })()
	errs := make([]error, len(from))
	var sources sync.WaitGroup
	for i, node := range from {
		sources.Go(func() {
			if err := f.source(work, i, node); err != nil {
				errs[i] = fmt.Errorf("from %s: %w", node.Short(), err)
				h.cfg.Log.Debug("source of blocks failed", "cid", cs[0], "err", errs[i])
			}
			f.drop(i)
		})
	}
	f.mu.Lock()
	for f.open > 0 && f.err == nil {
		f.changed.Wait()
	}
	err := f.err
	f.mu.Unlock()
	cancel()
	sources.Wait()
	if errors.Is(err, store.ErrMissing) {
		err = errors.Join(append([]error{err}, errs...)...)
	}
	return err
}

// source works as one node's part until nothing is wanted of it.
func (f *fetch) source(ctx context.Context, i int, node crowd.NodeID) error {
	if f.h.cfg.Find != nil {
		if err := f.h.cfg.Find(ctx, node); err != nil {
			return err
		}
	}
	s, err := f.h.open(ctx, node, blocksProtocol)
	if err != nil {
		return err
	}
	return f.pull(ctx, i, s)
}

// take hands source i something to get. Without one it waits, if told to, and returns nil
// when the source is done with.
func (f *fetch) take(i int, wait bool) *want {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.err == nil && f.open > 0 && f.alive&(1<<i) != 0 {
		for _, q := range []*[]*want{&f.again[i], &f.queue} {
			if n := len(*q); n > 0 {
				w := (*q)[n-1]
				*q = (*q)[:n-1]
				return w
			}
		}
		if !wait {
			return nil
		}
		f.changed.Wait()
	}
	return nil
}

// giveBack says that source i could not deliver w.
func (f *fetch) giveBack(i int, w *want) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pass(i, w)
	f.changed.Broadcast()
}

// pass hands w on to a source that has not tried it. f.mu is held.
func (f *fetch) pass(i int, w *want) {
	w.tried |= 1 << i
	if left := f.alive &^ w.tried; left != 0 {
		next := &f.again[bits.TrailingZeros(left)]
		*next = append(*next, w)
	} else if f.err == nil {
		f.err = &store.MissingError{CID: crowd.CID(w.c.String())}
	}
}

// drop ends the use of source i.
func (f *fetch) drop(i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alive &^= 1 << i
	for _, w := range f.again[i] {
		f.pass(i, w)
	}
	f.again[i] = nil
	if n := len(f.queue); n > 0 && f.alive == 0 {
		f.pass(i, f.queue[n-1])
	}
	f.changed.Broadcast()
}

func (f *fetch) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	f.changed.Broadcast()
}

// deliver keeps a block that matches its CID and finds out what it leads to.
func (f *fetch) deliver(ctx context.Context, w *want, data []byte) {
	err := func() error {
		if err := f.count(uint64(len(data))); err != nil {
			return err
		}
		links, err := f.below(w.c, data)
		if err != nil {
			return err
		}
		if err := f.h.cfg.Blocks.Put(ctx, newBlock(w.c, data)); err != nil {
			return err
		}
		return f.visit(ctx, links)
	}()
	if err != nil {
		f.fail(err)
	}
	f.mu.Lock()
	f.open--
	f.changed.Broadcast()
	f.mu.Unlock()
}

// count adds bytes that are here, and tells of it.
func (f *fetch) count(n uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done += n; f.done > f.max {
		return fmt.Errorf("more than %d bytes: %w", f.max, store.ErrTooBig)
	}
	f.total = max(f.total, f.done)
	if f.progress != nil {
		f.progress(f.done, f.total)
	}
	return nil
}

// visit walks from links through all that is here already, and queues what is not.
func (f *fetch) visit(ctx context.Context, links []cid.Cid) error {
	var wants []*want
	todo, err := f.unseen(nil, links)
	for err == nil && len(todo) > 0 {
		c := todo[0]
		todo = todo[1:]
		var size uint64
		var below []cid.Cid
		size, below, err = f.local(ctx, c)
		if ipld.IsNotFound(err) {
			wants = append(wants, &want{c: c})
			err = nil
			continue
		}
		if err == nil {
			err = f.count(size)
		}
		if err != nil {
			return err
		}
		todo, err = f.unseen(todo, below)
	}
	if err != nil {
		return err
	}
	slices.Reverse(wants) // the last in the queue is the first to go
	f.mu.Lock()
	f.queue = append(f.queue, wants...)
	f.open += len(wants)
	f.changed.Broadcast()
	f.mu.Unlock()
	return nil
}

// unseen appends to todo those of links that nobody has met yet.
func (f *fetch) unseen(todo, links []cid.Cid) ([]cid.Cid, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range links {
		if !f.seen[c] {
			f.seen[c] = true
			todo = append(todo, c)
		}
	}
	if len(f.seen) > f.limit {
		return nil, fmt.Errorf("more than %d blocks: %w", f.limit, store.ErrTooBig)
	}
	return todo, nil
}

// local is the size and the links of a block that is here. Leaves are not read.
func (f *fetch) local(ctx context.Context, c cid.Cid) (uint64, []cid.Cid, error) {
	if c.Prefix().Codec == cid.Raw {
		n, err := f.h.cfg.Blocks.GetSize(ctx, c)
		return uint64(max(n, 0)), nil, err
	}
	b, err := f.h.cfg.Blocks.Get(ctx, c)
	if err != nil {
		return 0, nil, err
	}
	links, err := f.below(c, b.RawData())
	return uint64(len(b.RawData())), links, err
}
