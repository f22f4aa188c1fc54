package p2p

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	block "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/store"
)

// blocksProtocol: the client writes CIDs, 36 bytes each; for each, in order, the server writes 4 bytes
// big-endian and as many bytes of block, or notHere. The client may be many CIDs ahead. It exists because
// a fetch by bitswap takes more round trips and CPU time; bitswap is served beside it, for IPFS clients.
const blocksProtocol = "/crowd/blocks/1"

const (
	cidLen     = 36 // version 1, codec, SHA2-256, length, digest
	notHere    = ^uint32(0)
	serveIdle  = 2 * time.Minute // between requests on one stream
	serveBlock = time.Minute     // to hand over one block: 35 KB/s
	pieceLen   = 64 << 10        // of a block, at most, per read
	ahead      = 32              // blocks asked for and not yet here, per source
	maxSources = 16
)

// serveBlocks answers one stream of requests. While one block is on its way the next is read from disk.
func (h *Host) serveBlocks(ctx context.Context, _ crowd.NodeID, s Stream) error {
	type reply struct {
		data  []byte
		here  bool
		flush bool // nothing more has been asked for
	}
	replies := make(chan reply, 1) // capacity: read ahead, up to MaxBlock bytes each
	read := make(chan error, 1)    // capacity 1: the reader's last word
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(replies)
		r := bufio.NewReaderSize(s, ahead*cidLen)
		read <- func() error {
			for {
				if err := s.SetReadDeadline(time.Now().Add(serveIdle)); err != nil {
					return err
				}
				var req [cidLen]byte
				if _, err := io.ReadFull(r, req[:]); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				c, err := cid.Cast(req[:])
				if err != nil {
					return fmt.Errorf("request for a block: %w", err)
				}
				var next reply
				blk, err := h.cfg.Blocks.Get(ctx, c)
				switch {
				case err == nil:
					next.data, next.here = blk.RawData(), len(blk.RawData()) <= store.MaxBlock
				case !ipld.IsNotFound(err) && !errors.Is(err, store.ErrInvalid):
					return err
				}
				next.flush = r.Buffered() < cidLen
				select {
				case replies <- next:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}()
	}()
	w := bufio.NewWriterSize(s, 16<<10)
	for next := range replies {
		if err := s.SetWriteDeadline(time.Now().Add(serveBlock)); err != nil {
			return err
		}
		var head [4]byte
		binary.BigEndian.PutUint32(head[:], notHere)
		if next.here {
			binary.BigEndian.PutUint32(head[:], uint32(len(next.data)))
		} else {
			next.data = nil
		}
		w.Write(head[:]) // a bufio.Writer keeps its error for Flush
		n, err := w.Write(next.data)
		h.served.Add(uint64(n))
		if err == nil && next.flush {
			err = w.Flush()
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(<-read, w.Flush())
}

// errLied ends the use of a source.
var errLied = errors.New("it sent a block that is not the one asked for")

// pull fetches by our own protocol from source i until nothing is wanted of it any more. Three
// goroutines share the work: one asks, one reads, one checks hashes and writes to disk.
func (f *fetch) pull(ctx context.Context, i int, s Stream) error {
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	asked := make(chan *want, ahead) // capacity: how far requests run ahead of answers
	came := make(chan answer, 1)     // capacity: blocks read ahead, up to MaxBlock bytes each
	result := make(chan error, 2)    // capacity: the last words of both
	go func() {
		defer close(asked)
		result <- f.ask(i, s, asked)
	}()
	go func() {
		var err error
		for a := range came {
			switch {
			case err != nil:
				f.giveBack(i, a.want)
			case !store.Matches(a.want.c, a.data):
				err = fmt.Errorf("%w: %s", errLied, a.want.c)
				f.giveBack(i, a.want)
				f.drop(i) // wakes ask
				s.Reset() // wakes the reader
			default:
				f.deliver(ctx, a.want, a.data)
			}
		}
		result <- err
	}()
	var failed error
	r := bufio.NewReaderSize(s, pieceLen)
	for next := range asked {
		var data []byte
		if failed == nil {
			if data, failed = readBlock(deadlineReader{s, r, f.h.cfg.Limits.Patience}); failed != nil {
				f.drop(i)
				s.Reset()
			}
		}
		f.h.fetched.Add(uint64(len(data)))
		if data == nil {
			f.giveBack(i, next)
		} else {
			came <- answer{next, data}
		}
	}
	close(came)
	s.CloseWrite() // tells the server that this was all, if it still listens
	return errors.Join(<-result, <-result, failed)
}

type answer struct {
	want *want
	data []byte
}

// ask writes requests for what there is to get, and passes the wants on in that order.
func (f *fetch) ask(i int, s Stream, asked chan<- *want) error {
	w := bufio.NewWriterSize(s, ahead*cidLen)
	for {
		next := f.take(i, false)
		if next == nil || len(asked) == cap(asked) {
			if err := w.Flush(); err != nil {
				if next != nil {
					f.giveBack(i, next)
				}
				return err
			}
		}
		if next == nil {
			if next = f.take(i, true); next == nil {
				return nil
			}
		}
		asked <- next
		if _, err := w.Write(next.c.Bytes()); err != nil {
			return err
		}
	}
}

// readBlock reads the answer to one request: nil and no error if the block is not there.
func readBlock(in io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == notHere {
		return nil, nil
	}
	if n > store.MaxBlock {
		return nil, fmt.Errorf("%w: it has %d bytes", errLied, n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(in, data); err != nil {
		return nil, err
	}
	return data, nil
}

// deadlineReader wants progress: each piece has its own deadline.
type deadlineReader struct {
	s Stream
	r *bufio.Reader

	patience time.Duration
}

func (d deadlineReader) Read(p []byte) (int, error) {
	if d.r.Buffered() == 0 {
		if err := d.s.SetReadDeadline(time.Now().Add(d.patience)); err != nil {
			return 0, err
		}
	}
	return d.r.Read(p[:min(len(p), pieceLen)])
}

func newBlock(c cid.Cid, data []byte) block.Block {
	b, err := block.NewBlockWithCid(data, c)
	if err != nil {
		panic("bug: " + err.Error()) // only in that library's debug mode
	}
	return b
}
