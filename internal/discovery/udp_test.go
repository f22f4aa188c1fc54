package discovery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
)

// socket is a Port on a UDP socket of its own, without QUIC beside it.
type socket struct {
	conn  *net.UDPConn
	queue chan p2p.Datagram
}

func openSocket(t *testing.T) *socket {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &socket{conn, make(chan p2p.Datagram, 256)}
	go func() {
		defer close(s.queue)
		b := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			select {
			case s.queue <- p2p.Datagram{From: from, Data: bytes.Clone(b[:n])}:
			default:
			}
		}
	}()
	t.Cleanup(func() { conn.Close() })
	return s
}

func (s *socket) SendDatagram(to netip.AddrPort, b []byte) error {
	_, err := s.conn.WriteToUDPAddrPort(b, to)
	return err
}

func (s *socket) Datagrams() <-chan p2p.Datagram { return s.queue }

func (s *socket) addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// onLoopback starts a node on a port of this machine.
func onLoopback(t *testing.T, n int, port Port, addr netip.AddrPort, seeds ...Seed) *member {
	t.Helper()
	m := newEther().make(t, n, func(c *Config) {
		c.Port, c.Overlay.Private = port, true
		c.Self = func([]netip.AddrPort) Self {
			return Self{Endpoints: []overlay.Endpoint{{Addr: addr.Addr(), UDP: addr.Port()}}}
		}
		if h, ok := port.(*p2p.Host); ok {
			c.Self = SelfOf(h, true, nil)
		}
	}, seeds...)
	m.addr = addr
	m.run(t)
	t.Cleanup(m.stop)
	return m
}

func TestUDP(t *testing.T) {
	var fleet []*member
	for i := range 6 {
		s := openSocket(t)
		var seeds []Seed
		if i > 0 {
			seeds = []Seed{fleet[0].seed()}
		}
		fleet = append(fleet, onLoopback(t, i, s, s.addr(), seeds...))
	}
	for i, m := range fleet {
		select {
		case <-m.Ready():
		case <-time.After(20 * time.Second):
			t.Fatalf("node %d: %+v\n%s", i, m.Stats(), m.log)
		}
	}
	r, err := fleet[1].Find(within(t, 10*time.Second), fleet[5].id)
	if err != nil || r.Endpoints[0].UDP != fleet[5].addr.Port() {
		t.Errorf("got %v, %v", r, err)
	}
}

// TestPortCloses: Run ends when the port does.
func TestPortCloses(t *testing.T) {
	s := openSocket(t)
	m := newEther().make(t, 1, func(c *Config) { c.Port = s })
	s.conn.Close()
	if err := m.Run(t.Context()); err == nil {
		t.Error("ended without an error")
	}
	if err := m.Run(t.Context()); err == nil {
		t.Error("ran twice")
	}
}

// TestBesideQUIC: streams and the overlay's packets share each host's one UDP socket, and what the overlay finds can be dialled.
func TestBesideQUIC(t *testing.T) {
	const proto = "/test/echo/1"
	var fleet []*member
	var hosts []*p2p.Host
	for i := range 4 {
		h, err := p2p.New(p2p.Config{PrivateKey: testKey(t, i).Bytes(), Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		h.Handle(proto, func(_ context.Context, _ crowd.NodeID, s p2p.Stream) error {
			_, err := io.Copy(s, s)
			return err
		})
		var seeds []Seed
		if i > 0 {
			seeds = []Seed{fleet[0].seed()}
		}
		hosts = append(hosts, h)
		fleet = append(fleet, onLoopback(t, i, h, h.LocalUDP()[0], seeds...))
	}
	for i, m := range fleet {
		select {
		case <-m.Ready():
		case <-time.After(20 * time.Second):
			t.Fatalf("node %d: %+v\n%s", i, m.Stats(), m.log)
		}
	}
	r, err := fleet[1].Find(within(t, 10*time.Second), fleet[3].id)
	if err != nil {
		t.Fatal(err)
	}
	if err := hosts[1].ConnectID(within(t, 10*time.Second), r.ID, Addrs(r)); err != nil {
		t.Fatal(err)
	}
	s, err := hosts[1].Open(within(t, 10*time.Second), r.ID, proto)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sent := bytes.Repeat([]byte("crowd"), 100_000)
	go func() {
		s.Write(sent)
		s.CloseWrite()
	}()
	for range 20 { // while the stream runs
		if _, err := fleet[1].Confirm(within(t, 10*time.Second), fleet[2].id); err != nil {
			t.Error(err)
		}
	}
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back, %v, want %d", len(got), err, len(sent))
	}
}
