package p2p

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multistream"
	"github.com/quic-go/quic-go"

	"github.com/crowdcompute/crowd"
)

// libp2p notices a dead connection after 30 seconds of silence, and until then prefers it to a new one, for its
// many streams. Here a connection on which somebody waits is asked for a sign of life.
const (
	stall = 700 * time.Millisecond // of a read, a write or an opening, before its connection is asked

	// The answer may take twice RFC 6298's timeout, so that one packet may be lost on the way, within these bounds.
	// The lower one is above the pauses of a busy machine.
	minPong = 1500 * time.Millisecond
	maxPong = 4 * time.Second // and before the first measurement

	maxStall = 16 * time.Second // between questions on a stream that stays silent, each twice the one before
	fresh    = time.Second      // a peer that answered this lately is not asked again before a connection is used
)

// pulse is what is known of the life of a connected peer.
type pulse struct {
	rtt, deviation time.Duration // RFC 6298: smoothed, and mean deviation, of pings; 0: not measured
	heard          time.Time     // of the last answer
	asking         chan struct{} // closed when the question that is under way is answered; nil: none is
}

func (p *pulse) measured(rtt time.Duration) {
	if p.rtt == 0 {
		p.rtt, p.deviation = rtt, rtt/2
		return
	}
	p.deviation += ((p.rtt - rtt).Abs() - p.deviation) / 4
	p.rtt += (rtt - p.rtt) / 8
}

// patience is how long a sign of life may take on a path of that round-trip time.
func patience(rtt, deviation time.Duration) time.Duration {
	if rtt == 0 {
		return maxPong
	}
	return min(max(2*(rtt+4*deviation), minPong), maxPong)
}

// patienceWith is a connection's. QUIC has measured it before anybody asks.
func (h *Host) patienceWith(c network.Conn) time.Duration {
	var q *quic.Conn
	if c.As(&q) {
		stats := q.ConnectionStats()
		return patience(stats.SmoothedRTT, stats.MeanDeviation)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	own := h.pulseOf(c.RemotePeer())
	return patience(own.rtt, own.deviation)
}

// pulseOf must be called with h.mu held.
func (h *Host) pulseOf(p peer.ID) *pulse {
	if h.pulses[p] == nil {
		h.pulses[p] = &pulse{}
	}
	return h.pulses[p]
}

// ask asks all connections of a peer for a sign of life, closes those that give none in time, and
// reports whether the peer is connected then. Calls at the same time share one question.
func (h *Host) ask(ctx context.Context, p peer.ID) bool {
	connected := func() bool { return len(h.host.Network().ConnsToPeer(p)) > 0 }
	h.mu.Lock()
	if h.closed || !connected() {
		h.mu.Unlock()
		return false
	}
	own := h.pulseOf(p)
	done := own.asking
	if done == nil {
		done = make(chan struct{})
		own.asking = done
		h.handlers.Go(func() { // not after Close: h.mu is held
			var g sync.WaitGroup
			for _, c := range h.host.Network().ConnsToPeer(p) {
				g.Go(func() { h.askConn(c) })
			}
			g.Wait()
			h.mu.Lock()
			defer h.mu.Unlock()
			own.asking = nil
			close(done)
			if !connected() {
				delete(h.pulses, p)
			}
		})
	}
	h.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return connected()
}

func (h *Host) askConn(c network.Conn) {
	patience := h.patienceWith(c)
	rtt, alive := pong(h.ctx, c, patience)
	if h.ctx.Err() != nil {
		return
	}
	if !alive {
		h.cfg.Log.Debug("connection is dead", "peer", c.RemotePeer(), "addr", c.RemoteMultiaddr(), "silent for", patience)
		c.Close()
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	own := h.pulseOf(c.RemotePeer())
	own.heard = time.Now()
	if rtt > 0 {
		own.measured(rtt)
		h.host.Peerstore().RecordLatency(c.RemotePeer(), rtt)
	}
}

// pong pings over one connection. Any answer is a sign of life, a refusal too; the time is 0 if it was no pong.
func pong(ctx context.Context, c network.Conn, patience time.Duration) (time.Duration, bool) {
	ctx, cancel := awake(network.WithAllowLimitedConn(ctx, "ping"), patience)
	defer cancel()
	s, err := c.NewStream(ctx)
	if err != nil {
		return 0, ctx.Err() == nil && !c.IsClosed() // alive: it was a limit of ours
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	if err := s.SetProtocol(ping.ID); err != nil {
		return 0, !c.IsClosed()
	}
	question, answer := make([]byte, ping.PingSize), make([]byte, ping.PingSize)
	rand.Read(question)
	lazy := multistream.NewMSSelect[protocol.ID](s, ping.ID)
	from := time.Now()
	if _, err = lazy.Write(question); err == nil {
		_, err = io.ReadFull(lazy, answer)
	}
	took := time.Since(from)
	switch {
	case err == nil && string(question) == string(answer):
		return max(took, 1), true
	case ctx.Err() != nil:
		return 0, false
	}
	return 0, !c.IsClosed()
}

// awake ends a context after so much time in which this process ran. That it stood still, on a machine that slept or was
// starved, is no silence of the peer's.
func awake(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	const slice = 50 * time.Millisecond // a pause counts as one
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		tick := time.NewTicker(slice) // it drops ticks that nobody was there for
		defer tick.Stop()
		for range (d + slice - 1) / slice {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return ctx, cancel
}

// settled waits for a question that is under way, so that no stream is opened on a connection that is about to be closed.
func (h *Host) settled(ctx context.Context, p peer.ID) {
	h.mu.Lock()
	var asking chan struct{}
	if own := h.pulses[p]; own != nil {
		asking = own.asking
	}
	h.mu.Unlock()
	if asking != nil {
		select {
		case <-asking:
		case <-ctx.Done():
		}
	}
}

// alive reports whether a peer is connected and answers or, unless there is doubt, answered or came just now.
func (h *Host) alive(ctx context.Context, p peer.ID, doubt bool) bool {
	h.settled(ctx, p)
	conns := h.host.Network().ConnsToPeer(p)
	if len(conns) == 0 {
		return false
	}
	h.mu.Lock()
	own := h.pulses[p]
	lately := own != nil && time.Since(own.heard) < fresh
	h.mu.Unlock()
	if !lately && len(conns) == 1 {
		lately = time.Since(conns[0].Stat().Opened) < fresh
	}
	return lately && !doubt || h.ask(ctx, p)
}

// Answers asks a node for a sign of life, and dials it before if it must. An error says that none came.
func (h *Host) Answers(ctx context.Context, node crowd.NodeID) error {
	p, err := PeerIDOf(node)
	if err != nil {
		return err
	}
	if h.alive(ctx, p, true) {
		return nil
	}
	if h.cfg.Find != nil {
		if err := h.cfg.Find(ctx, node); err != nil {
			return fmt.Errorf("find %s: %w", node.Short(), err)
		}
	}
	s, err := h.open(ctx, node, blocksProtocol) // which dials
	if err != nil {
		return err
	}
	s.Reset()
	if !h.alive(ctx, p, true) {
		return fmt.Errorf("%s does not answer", node.Short())
	}
	return nil
}

// arrived looks after a peer's other connections when a new one is there: the dead are
// closed, and of more than Limits.ConnsPerPeer the oldest.
func (h *Host) arrived(p peer.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	conns := h.host.Network().ConnsToPeer(p)
	if h.closed || len(conns) < 2 {
		return
	}
	h.handlers.Go(func() {
		h.ask(h.ctx, p)
		conns := h.host.Network().ConnsToPeer(p)
		for ; len(conns) > h.cfg.Limits.ConnsPerPeer; conns = h.host.Network().ConnsToPeer(p) {
			oldest := conns[0]
			for _, c := range conns {
				if c.Stat().Opened.Before(oldest.Stat().Opened) {
					oldest = c
				}
			}
			oldest.Close()
		}
	})
}

// left forgets a connection that has ended.
func (h *Host) left(c network.Conn) {
	p := c.RemotePeer()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sightings, c)
	delete(h.punched, c)
	poke(h.offline[p]) // nil for all but seeds: no one hears
	if own := h.pulses[p]; own != nil && own.asking == nil && len(h.host.Network().ConnsToPeer(p)) == 0 {
		delete(h.pulses, p)
	}
}

// watch asks a peer's connections for a sign of life when something takes long, again and again.
type watch struct {
	h     *Host
	p     peer.ID
	timer *time.Timer
	next  atomic.Int64 // nanoseconds until the question after the next
	on    atomic.Bool
}

func (h *Host) watch(p peer.ID) *watch {
	w := &watch{h: h, p: p}
	w.timer = time.AfterFunc(time.Hour, func() {
		if !w.on.Load() || !w.h.ask(w.h.ctx, w.p) {
			return
		}
		d := w.next.Load()
		w.next.Store(min(2*d, int64(maxStall)))
		if w.on.Load() {
			w.timer.Reset(time.Duration(d))
		}
	})
	w.timer.Stop()
	return w
}

// begin is called before what may take long, and end after it, in turn.
func (w *watch) begin() {
	w.next.Store(int64(2 * stall))
	w.on.Store(true)
	w.timer.Reset(stall)
}

func (w *watch) end() {
	w.on.Store(false)
	w.timer.Stop()
}

// watched is a stream whose reads and writes fail soon after the peer has died.
type watched struct {
	network.Stream
	reads, writes *watch
}

func (h *Host) watched(s network.Stream) *watched {
	p := s.Conn().RemotePeer()
	return &watched{Stream: s, reads: h.watch(p), writes: h.watch(p)}
}

func (s *watched) Read(b []byte) (int, error) {
	s.reads.begin()
	defer s.reads.end()
	return s.Stream.Read(b)
}

func (s *watched) Write(b []byte) (int, error) {
	s.writes.begin()
	defer s.writes.end()
	return s.Stream.Write(b)
}
