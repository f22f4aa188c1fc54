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
	serveIdle  = 2 * time.Minute  // between requests on one stream
	serveBlock = time.Minute      // to hand over one block: 35 KB/s
	firstByte  = 10 * time.Second // from when a block is next in line until its length arrives
	pieceLen   = 64 << 10         // of a block; each must arrive within firstByte
	ahead      = 32               // blocks asked for and not yet here, per source
	maxSources = 16
)

// serveBlocks answers one stream of requests.
func (h *Host) serveBlocks(ctx context.Context, _ crowd.NodeID, s Stream) error {
	r := bufio.NewReaderSize(s, 32*cidLen)
	w := bufio.NewWriterSize(s, 16<<10)
	for {
		if err := s.SetDeadline(time.Now().Add(serveIdle)); err != nil {
			return err
		}
		var req [cidLen]byte
		if _, err := io.ReadFull(r, req[:]); err == io.EOF {
			return w.Flush()
		} else if err != nil {
			return err
		}
		c, err := cid.Cast(req[:])
		if err != nil {
			return fmt.Errorf("request for a block: %w", err)
		}
		if err := s.SetDeadline(time.Now().Add(serveBlock)); err != nil {
			return err
		}
		var head [4]byte
		blk, err := h.cfg.Blocks.Get(ctx, c)
		switch {
		case err == nil && len(blk.RawData()) <= store.MaxBlock:
			binary.BigEndian.PutUint32(head[:], uint32(len(blk.RawData())))
			if _, err := w.Write(head[:]); err != nil {
				return err
			}
			if _, err := w.Write(blk.RawData()); err != nil {
				return err
			}
		case err == nil, ipld.IsNotFound(err), errors.Is(err, store.ErrInvalid):
			binary.BigEndian.PutUint32(head[:], notHere)
			if _, err := w.Write(head[:]); err != nil {
				return err
			}
		default:
			return err
		}
		if r.Buffered() < cidLen {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
}

// errLied ends the use of a source.
var errLied = errors.New("it sent a block that is not the one asked for")

// pull fetches by our own protocol from source i until nothing is wanted of it any more.
func (f *fetch) pull(ctx context.Context, i int, s Stream) error {
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	asked := make(chan *want, ahead) // capacity: how far requests run ahead of answers
	sent := make(chan error, 1)      // capacity 1: the sender's last word
	go func() {
		defer close(asked)
		sent <- func() error {
			w := bufio.NewWriterSize(s, ahead*cidLen)
			for {
				next := f.take(i, false)
				if next == nil {
					if err := w.Flush(); err != nil {
						return err
					}
					if next = f.take(i, true); next == nil {
						return nil
					}
				}
				if len(asked) == cap(asked) {
					if err := w.Flush(); err != nil {
						f.giveBack(i, next)
						return err
					}
				}
				asked <- next
				if _, err := w.Write(next.c.Bytes()); err != nil {
					return err
				}
			}
		}()
	}()
	var failed error
	r := bufio.NewReaderSize(s, pieceLen)
	for next := range asked {
		if failed == nil {
			failed = f.receive(ctx, i, next, s, r)
			if failed != nil {
				s.Reset()
				f.drop(i) // wakes the sender
			}
			continue
		}
		f.giveBack(i, next)
	}
	if err := <-sent; failed == nil {
		failed = err
	}
	if failed == nil {
		failed = s.CloseWrite()
	}
	return failed
}

// receive reads the answer to one request. On an error the want is given back.
func (f *fetch) receive(ctx context.Context, i int, next *want, s Stream, r *bufio.Reader) error {
	data, err := func() ([]byte, error) {
		if err := s.SetDeadline(time.Now().Add(firstByte)); err != nil {
			return nil, err
		}
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(head[:])
		if n == notHere {
			return nil, nil
		}
		if n > store.MaxBlock {
			return nil, fmt.Errorf("%w: it has %d bytes", errLied, n)
		}
		data, err := readN(deadlineReader{s, r}, int(n))
		if err == nil && !store.Matches(next.c, data) {
			return nil, fmt.Errorf("%w: %s", errLied, next.c)
		}
		if data == nil {
			data = []byte{}
		}
		return data, err
	}()
	if err != nil || data == nil {
		f.giveBack(i, next)
		return err
	}

	f.deliver(ctx, next, data)
	return nil
}

// deadlineReader wants progress: each piece has its own deadline.
type deadlineReader struct {
	s Stream
	r *bufio.Reader
}

func (d deadlineReader) Read(p []byte) (int, error) {
	if err := d.s.SetDeadline(time.Now().Add(firstByte)); err != nil {
		return 0, err
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
