package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// Two bytes in front of each datagram tell it from all else on QUIC's sockets. RFC 9443 (section 3) divides
// first bytes among the protocols that share a port: STUN 0-3, ZRTP 16-19, DTLS 20-63, TURN 64-79, QUIC 64-127
// and 192-255, RTP 128-191. 4-15 belong to nobody, and quic-go looks at nothing below 64. So none
// of them can begin with the magic; the random packets that open a NAT for QUIC do, once in 65,536.
const (
	magic0 = 0x0c
	magic1 = 0xc7
)

const (
	maxPacket = 1280 // with the magic: what IPv6 carries everywhere

	// MaxDatagram is the longest datagram, in bytes.
	MaxDatagram = maxPacket - 2

	// datagramQueue is how many datagrams wait for the reader, at most 1.3 MB. It takes bursts
	// of some hundred from many peers; what comes when it is full is dropped, and counted.
	datagramQueue = 1024

	// ways is how many senders a generation remembers, with the sockets that they came in on.
	ways = 1024
)

// ErrNoSocket says that no UDP socket of the address's family is open.
var ErrNoSocket = errors.New("no UDP socket for this kind of address")

// Datagram is a packet that came in on one of QUIC's sockets. Its sender is whoever the packet claims: anybody can forge it.
type Datagram struct {
	From netip.AddrPort // never an IPv4-mapped IPv6 address
	Data []byte         // without the magic, at most MaxDatagram bytes

	buf  *[maxPacket]byte
	pool *sync.Pool
}

// Free hands the memory of Data back. It need not be called, and at most once; Data must not be used after.
func (d Datagram) Free() {
	if d.pool != nil {
		d.pool.Put(d.buf)
	}
}

// DatagramCounts is what became of datagrams since the host began.
type DatagramCounts struct {
	Received uint64 // handed to the reader's queue
	Sent     uint64
	Full     uint64 // dropped: the queue was full, or nobody has asked for it yet
	TooBig   uint64 // dropped: more than MaxDatagram bytes
}

// datagrams are the UDP sockets of a host's QUIC, which carry our packets as well.
type datagrams struct {
	// set once
	pool  sync.Pool
	queue chan Datagram // capacity datagramQueue; sent on and closed with mu held

	wanted                       atomic.Bool // somebody has asked for the queue
	received, sent, full, tooBig atomic.Uint64

	mu      sync.Mutex
	quic    *quicreuse.ConnManager // set when libp2p made it; nil before and after close
	sockets []*socket              // listening ones first
	closed  bool
	seen    [2]map[netip.AddrPort]*socket // younger and older senders, while a choice of sockets exists
}

func newDatagrams() *datagrams {
	return &datagrams{
		pool:  sync.Pool{New: func() any { return new([maxPacket]byte) }},
		queue: make(chan Datagram, datagramQueue),
	}
}

// manager is what libp2p makes of its own accord when it is given nothing, with sockets of ours. Without the
// two other options the resource manager would see connections only when their handshakes are done.
func (d *datagrams) manager(reset quic.StatelessResetKey, token quic.TokenGeneratorKey, resources network.ResourceManager) (*quicreuse.ConnManager, error) {
	m, err := quicreuse.NewConnManager(reset, token,
		quicreuse.OverrideListenUDP(d.listen),
		quicreuse.VerifySourceAddress(resources.VerifySourceAddress),
		quicreuse.ConnContext(func(ctx context.Context, from *quic.ClientInfo) (context.Context, error) {
			addr, err := quicreuse.ToQuicMultiaddr(from.RemoteAddr, quic.Version1)
			if err != nil {
				addr = nil // the resource manager decides
			}
			scope, err := resources.OpenConnection(network.DirInbound, false, addr)
			if err != nil {
				return ctx, err
			}
			ctx = network.WithConnManagementScope(ctx, scope)
			context.AfterFunc(ctx, scope.Done)
			return ctx, nil
		}),
	)
	if err == nil {
		d.mu.Lock()
		d.quic = m
		d.mu.Unlock()
	}
	return m, err
}

func (d *datagrams) listen(network string, addr *net.UDPAddr) (net.PacketConn, error) {
	c, err := net.ListenUDP(network, addr)
	if err != nil {
		return nil, err
	}
	local := unmap(c.LocalAddr().(*net.UDPAddr).AddrPort())
	s := &socket{UDPConn: c, d: d, local: local, batch: ipv4.NewPacketConn(c)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sockets = append(d.sockets, s)
	return s, nil
}

// settle puts the sockets that listen first: others were opened to dial, and go when they are idle.
func (d *datagrams) settle(listening []netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := func(s *socket) int {
		if slices.Contains(listening, s.local) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(d.sockets, func(a, b *socket) int { return first(a) - first(b) })
}

func (d *datagrams) forget(s *socket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sockets = slices.DeleteFunc(d.sockets, func(o *socket) bool { return o == s })
	d.seen = [2]map[netip.AddrPort]*socket{}
}

// close ends the sockets, after the host that used them, and the queue.
func (d *datagrams) close() error {
	d.mu.Lock()
	m := d.quic
	d.quic = nil
	d.mu.Unlock()
	var err error
	if m != nil {
		err = m.Close()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		close(d.queue)
	}
	return err
}

// take queues a packet that begins with the magic. It copies.
func (d *datagrams) take(s *socket, from netip.AddrPort, packet []byte) {
	switch {
	case len(packet) > maxPacket:
		d.tooBig.Add(1)
		return
	case !d.wanted.Load() || len(d.queue) == cap(d.queue):
		d.full.Add(1)
		return
	}
	buf := d.pool.Get().(*[maxPacket]byte)
	n := copy(buf[:], packet)
	from = unmap(from)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	select {
	case d.queue <- Datagram{From: from, Data: buf[2:n], buf: buf, pool: &d.pool}:
		d.received.Add(1)
		d.remember(from, s)
	default:
		d.full.Add(1)
		d.pool.Put(buf)
	}
}

// remember notes on which socket a sender came in. With one socket of its family there is nothing to note. d.mu is held.
func (d *datagrams) remember(from netip.AddrPort, s *socket) {
	rivals := 0
	for _, o := range d.sockets {
		if o.serves(from.Addr()) {
			rivals++
		}
	}
	if rivals < 2 || d.seen[0][from] == s {
		return
	}
	if d.seen[0] == nil || len(d.seen[0]) >= ways {
		d.seen = [2]map[netip.AddrPort]*socket{make(map[netip.AddrPort]*socket), d.seen[0]}
	}
	d.seen[0][from] = s
}

// way is the socket to send from: the one that the peer came in on, or else the first that suits.
func (d *datagrams) way(to netip.AddrPort) *socket {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, generation := range d.seen {
		if s := generation[to]; s != nil {
			return s
		}
	}
	var second *socket
	for _, s := range d.sockets {
		switch {
		case !s.serves(to.Addr()):
		case s.local.Addr().IsUnspecified() || s.local.Addr().IsLoopback() == to.Addr().IsLoopback():
			return s
		case second == nil:
			second = s
		}
	}
	return second
}

func (d *datagrams) send(to netip.AddrPort, b []byte) error {
	if len(b) > MaxDatagram {
		d.tooBig.Add(1)
		return fmt.Errorf("send datagram to %s: %d bytes, at most %d", to, len(b), MaxDatagram)
	}
	to = unmap(to)
	s := d.way(to)
	if s == nil {
		return fmt.Errorf("send datagram to %s: %w", to, ErrNoSocket)
	}
	buf := d.pool.Get().(*[maxPacket]byte)
	defer d.pool.Put(buf)
	buf[0], buf[1] = magic0, magic1
	n := 2 + copy(buf[2:], b)
	if _, err := s.WriteToUDPAddrPort(buf[:n], to); err != nil {
		return fmt.Errorf("send datagram to %s: %w", to, err)
	}
	d.sent.Add(1)
	return nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// socket is a UDP socket that keeps our packets to itself. quic-go reads it by ReadBatch or, where the
// system has no batches, by ReadFrom.
type socket struct {
	*net.UDPConn
	d     *datagrams
	local netip.AddrPort
	batch *ipv4.PacketConn // also reads IPv6
}

func (s *socket) serves(a netip.Addr) bool { return s.local.Addr().Is4() == a.Is4() }

func ours(b []byte) bool { return len(b) >= 2 && b[0] == magic0 && b[1] == magic1 }

// ReadBatch takes our packets out of a batch and moves the others up. They are copied, never
// swapped: quic-go pairs the i-th message with its own i-th buffer.
func (s *socket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for {
		n, err := s.batch.ReadBatch(ms, flags)
		if err != nil {
			return n, err
		}
		kept := 0
		for i := range ms[:n] {
			m := &ms[i]
			if b := m.Buffers[0][:m.N]; ours(b) {
				if from, ok := m.Addr.(*net.UDPAddr); ok {
					s.d.take(s, from.AddrPort(), b)
				}
				continue
			}
			if to := &ms[kept]; to != m {
				copy(to.Buffers[0], m.Buffers[0][:m.N])
				copy(to.OOB, m.OOB[:m.NN])
				to.N, to.NN, to.Flags, to.Addr = m.N, m.NN, m.Flags, m.Addr
			}
			kept++
		}
		if kept > 0 || n == 0 {
			return kept, nil
		}
	}
}

// ReadFrom hands out the next packet that is not ours.
func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := s.UDPConn.ReadFrom(b)
		if err != nil || !ours(b[:n]) {
			return n, from, err
		}
		if a, ok := from.(*net.UDPAddr); ok {
			s.d.take(s, a.AddrPort(), b[:n])
		}
	}
}

// ReadMsgUDP hands out the next packet that is not ours.
func (s *socket) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	for {
		n, oobn, flags, from, err = s.UDPConn.ReadMsgUDP(b, oob)
		if err != nil || !ours(b[:n]) {
			return n, oobn, flags, from, err
		}
		s.d.take(s, from.AddrPort(), b[:n])
	}
}

func (s *socket) Close() error {
	s.d.forget(s)
	return s.UDPConn.Close()
}

// Datagrams is the queue of packets that SendDatagram of other hosts sent here: at most 1,024 wait, what comes
// above is dropped and counted, and nothing is kept before the first call. It is closed by Close. Several
// readers share the packets.
func (h *Host) Datagrams() <-chan Datagram {
	h.udp.wanted.Store(true)
	return h.udp.queue
}

// SendDatagram sends one packet of at most MaxDatagram bytes to a UDP address of a host, from one of QUIC's
// sockets: the one that a packet from that address last came in on, as far as this host remembers. It
// copies b, and it may arrive once, never, late or twice. Without a socket for the address's family it is ErrNoSocket.
func (h *Host) SendDatagram(to netip.AddrPort, b []byte) error { return h.udp.send(to, b) }

// DatagramCounts are the figures up to now.
func (h *Host) DatagramCounts() DatagramCounts {
	return DatagramCounts{
		Received: h.udp.received.Load(), Sent: h.udp.sent.Load(),
		Full: h.udp.full.Load(), TooBig: h.udp.tooBig.Load(),
	}
}

// LocalUDP are the addresses on which QUIC listens, and datagrams with it. An unspecified one stands for all of its family.
func (h *Host) LocalUDP() []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range h.host.Network().ListenAddresses() {
		if u, _, err := quicreuse.FromQuicMultiaddr(a); err == nil && !slices.Contains(out, unmap(u.AddrPort())) {
			out = append(out, unmap(u.AddrPort()))
		}
	}
	return out
}
