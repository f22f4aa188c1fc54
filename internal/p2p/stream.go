package p2p

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime/debug"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/crowdcompute/crowd"
)

// Stream is one two-way stream of bytes to a peer. Close also gives up reading;
// CloseWrite ends only our side; Reset drops everything that is under way.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
	Reset() error
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Handle answers streams of a protocol, each in its own goroutine, as many per peer as Limits allow.
// from has proven its key. ctx ends with the host. The stream's deadline is 30 seconds
// away when f is called, and f moves it as it likes. When f returns the stream is closed;
// on an error, or a panic, which is logged, it is reset.
func (h *Host) Handle(proto string, f func(ctx context.Context, from crowd.NodeID, s Stream) error) {
	h.host.SetStreamHandler(protocol.ID(proto), func(s network.Stream) {
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			s.Reset()
			return
		}
		h.handlers.Add(1)
		h.mu.Unlock()
		defer h.handlers.Done()
		if err := h.handle(s, f); err != nil {
			s.Reset()
			h.cfg.Log.Debug("stream failed", "protocol", proto, "from", s.Conn().RemotePeer(), "err", err)
		} else {
			s.Close()
		}
	})
}

func (h *Host) handle(s network.Stream, f func(context.Context, crowd.NodeID, Stream) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("bug: %v", r)
			h.cfg.Log.Error("stream handler panicked", "protocol", s.Protocol(), "panic", r, "stack", string(debug.Stack()))
		}
	}()
	from, err := NodeIDOf(s.Conn().RemotePeer())
	if err != nil {
		return err
	}
	if err := s.SetDeadline(time.Now().Add(streamTimeout)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	return f(ctx, from, s)
}

// Open opens a stream to a node, connecting to it if an address is known. It may be a
// relayed one, which carries little. ctx bounds the opening, not the stream. When the peer has died the stream's
// reads and writes fail, most often within two or three seconds.
func (h *Host) Open(ctx context.Context, to crowd.NodeID, proto string) (Stream, error) {
	s, err := h.open(ctx, to, proto)
	if err != nil {
		return nil, err // and no typed nil
	}
	return s, nil
}

func (h *Host) open(ctx context.Context, to crowd.NodeID, proto string) (*watched, error) {
	p, err := PeerIDOf(to)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(ctx, proto), dialTimeout)
	defer cancel()
	h.settled(ctx, p)
	before := h.host.Network().ConnsToPeer(p)
	s, err := h.newStream(ctx, p, proto)
	if none := (multistream.ErrNotSupported[protocol.ID]{}); err != nil && len(before) > 0 && !errors.As(err, &none) {
		h.settled(ctx, p)
		s, err = h.newStream(ctx, p, proto) // the connection may have turned out to be dead: dial
	}
	if err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", proto, to.Short(), err)
	}
	return h.watched(s), nil
}

func (h *Host) newStream(ctx context.Context, p peer.ID, proto string) (network.Stream, error) {
	w := h.watch(p)
	w.begin()
	defer w.end()
	return h.host.NewStream(ctx, p, protocol.ID(proto))
}

// ErrMessageTooBig is ReadMessage's answer to a message longer than allowed.
var ErrMessageTooBig = errors.New("message is too big")

// WriteMessage writes b behind its length, 4 bytes big-endian.
func WriteMessage(w io.Writer, b []byte) error {
	if len(b) > math.MaxUint32 {
		return fmt.Errorf("%w: %d bytes", ErrMessageTooBig, len(b))
	}
	const small = 16 << 10 // up to this much, one write is worth a copy
	head := make([]byte, 4, 4+min(len(b), small))
	binary.BigEndian.PutUint32(head, uint32(len(b)))
	if len(b) <= small {
		_, err := w.Write(append(head, b...))
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// ReadMessage reads what WriteMessage wrote, at most max bytes. Memory grows only with
// bytes that came. A stream that ends before the first byte is io.EOF, later io.ErrUnexpectedEOF.
func ReadMessage(r io.Reader, max int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > int64(max) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMessageTooBig, n, max)
	}
	return readN(r, int(n))
}

// readN reads n bytes that a stranger promised, believing it piece by piece.
func readN(r io.Reader, n int) ([]byte, error) {
	const piece = 256 << 10
	b := make([]byte, min(n, piece))
	for got := 0; ; {
		k, err := io.ReadFull(r, b[got:])
		if got += k; err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if got == n {
			return b, nil
		}
		more := make([]byte, min(n, 4*len(b)))
		copy(more, b)
		b = more
	}
}

// Request sends one message on a stream of its own and returns the one that comes back, at
// most maxResp bytes. It takes at most 30 seconds, or as long as ctx says.
func (h *Host) Request(ctx context.Context, to crowd.NodeID, proto string, req []byte, maxResp int) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, streamTimeout)
		defer cancel()
	}
	s, err := h.Open(ctx, to, proto)
	if err != nil {
		return nil, err
	}
	defer s.Reset() // nothing after Close
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	resp, err := func() ([]byte, error) {
		if err := WriteMessage(s, req); err != nil {
			return nil, err
		}
		s.CloseWrite() // fails when the answer, which we are about to read, came first
		return ReadMessage(s, maxResp)
	}()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("request %s to %s: %w", proto, to.Short(), err)
	}
	s.Close()
	return resp, nil
}

// Answer handles a protocol of Requests of at most maxReq bytes each. An error of f resets
// the stream: what the peer should know of it belongs into the response.
func (h *Host) Answer(proto string, maxReq int, f func(ctx context.Context, from crowd.NodeID, req []byte) ([]byte, error)) {
	h.Handle(proto, func(ctx context.Context, from crowd.NodeID, s Stream) error {
		req, err := ReadMessage(s, maxReq)
		if err != nil {
			return err
		}
		resp, err := f(ctx, from, req)
		if err != nil {
			return err
		}
		if err := s.SetDeadline(time.Now().Add(streamTimeout)); err != nil {
			return err
		}
		return WriteMessage(s, resp)
	})
}
