package p2p

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"golang.org/x/net/ipv4"

	"github.com/crowdcompute/crowd"
)

// echo sends every datagram back.
func echo(h *Host) {
	in := h.Datagrams() // from here on they are kept
	go func() {
		for d := range in {
			h.SendDatagram(d.From, d.Data)
			d.Free()
		}
	}()
}

// numbered is a datagram of n bytes that says its number and hash.
func numbered(i uint64, n int) []byte {
	b := binary.BigEndian.AppendUint64(nil, i)
	b = append(b, make([]byte, n-len(b)-sha256.Size)...)
	mrand.NewChaCha8(sha256.Sum256(b)).Read(b[8:])
	h := sha256.Sum256(b)
	return append(b, h[:]...)
}

func checkNumbered(b []byte) (uint64, bool) {
	if len(b) < 8+sha256.Size {
		return 0, false
	}
	body := b[:len(b)-sha256.Size]
	h := sha256.Sum256(body)
	return binary.BigEndian.Uint64(body), bytes.Equal(h[:], b[len(body):])
}

func TestDatagramsBesideQUIC(t *testing.T) {
	src, dst := openStore(t), openStore(t)
	a := start(t, Config{Blocks: src.Blocks(), Listen: loopbacks[:1]})
	b := start(t, Config{Blocks: dst.Blocks(), Listen: loopbacks[:1]})
	connect(t, b, a)
	echo(a)
	data := random(64 << 20)
	c, err := src.AddFile(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	fetched := make(chan error, 1)
	go func() { fetched <- b.Fetch(within(t, time.Minute), c, 65<<20, []crowd.NodeID{a.ID()}, nil) }()
	const total, window = 5000, 32
	to, in := a.LocalUDP()[0], b.Datagrams()
	waiting := map[uint64]bool{}
	back, lost, during := 0, 0, 0
	for next := uint64(0); next < total || len(waiting) > 0; {
		for ; next < total && len(waiting) < window; next++ {
			if err := b.SendDatagram(to, numbered(next, 100+int(next%1100))); err != nil {
				t.Fatal(err)
			}
			waiting[next] = true
		}
		select {
		case d := <-in:
			i, ok := checkNumbered(d.Data)
			if !ok || d.From != to {
				t.Fatalf("got %d bytes from %s that are not what was sent", len(d.Data), d.From)
			}
			d.Free()
			if waiting[i] {
				delete(waiting, i)
				back++
				if len(fetched) == 0 {
					during++
				}
			}
		case <-time.After(2 * time.Second):
			lost += len(waiting)
			clear(waiting)
		}
	}
	if err := <-fetched; err != nil {
		t.Fatal(err)
	}
	r, _, err := dst.Reader(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("content: got %d bytes, %v", len(got), err)
	}
	// The transfer may overflow the system's buffer of the socket, where that is small.
	if back < total*95/100 || during == 0 {
		t.Errorf("echoes: got %d of %d, %d of them during the transfer, %d lost", back, total, during, lost)
	}
}

func TestDatagramBurst(t *testing.T) {
	a, b := start(t, Config{}), start(t, Config{})
	in := a.Datagrams()
	for i := range uint64(512) {
		if err := b.SendDatagram(a.LocalUDP()[0], numbered(i, 300)); err != nil {
			t.Fatal(err)
		}
	}
	got := map[uint64]bool{}
	for deadline := time.After(10 * time.Second); len(got) < 512; {
		select {
		case d := <-in:
			i, ok := checkNumbered(d.Data)
			if !ok || got[i] {
				t.Fatalf("datagram %d: broken or twice", i)
			}
			got[i] = true
		case <-deadline:
			t.Fatalf("got %d of 512, %+v", len(got), a.DatagramCounts())
		}
	}
}

// The queue keeps what came first; nothing is kept for nobody.
func TestDatagramQueueFull(t *testing.T) {
	a, b := start(t, Config{}), start(t, Config{})
	send := func(from, n uint64) {
		t.Helper()
		before := a.DatagramCounts()
		for i := range n {
			if err := b.SendDatagram(a.LocalUDP()[0], numbered(from+i, 50)); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); i%64 == 63 || i == n-1; wait(time.Millisecond) { // the system's buffer is not what is tested
				if now := a.DatagramCounts(); now.Received+now.Full-before.Received-before.Full == i+1 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d sent, got %+v", i+1, a.DatagramCounts())
				}
			}
		}
	}
	send(1<<32, 10)
	in := a.Datagrams()
	send(0, datagramQueue+100)
	if got, want := a.DatagramCounts(), (DatagramCounts{Received: datagramQueue, Full: 110}); got != want {
		t.Errorf("counts: got %+v, want %+v", got, want)
	}
	for i := range uint64(datagramQueue) {
		if n, ok := checkNumbered((<-in).Data); !ok || n != i {
			t.Fatalf("got %d, want %d", n, i)
		}
	}
	a.Close()
	if d, open := <-in; open {
		t.Errorf("after Close: got %v", d)
	}
	if err := a.SendDatagram(b.LocalUDP()[0], nil); !errors.Is(err, ErrNoSocket) {
		t.Errorf("send after Close: got %v, want ErrNoSocket", err)
	}
}

func TestDatagramSizes(t *testing.T) {
	a, b := start(t, Config{}), start(t, Config{})
	in, to := a.Datagrams(), a.LocalUDP()[0]
	mapped := netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	for _, n := range []int{0, 1, MaxDatagram} {
		want := random(n)
		if err := b.SendDatagram(mapped, want); err != nil {
			t.Fatal(err)
		}
		if d := <-in; !bytes.Equal(d.Data, want) || d.From != b.LocalUDP()[0] {
			t.Errorf("%d bytes: got %d from %s", n, len(d.Data), d.From)
		}
	}
	if err := b.SendDatagram(to, make([]byte, MaxDatagram+1)); err == nil {
		t.Error("too big: got no error")
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(append([]byte{magic0, magic1}, make([]byte, MaxDatagram+1)...))
	c.Write([]byte{magic0, magic1, 7})
	if d := <-in; len(d.Data) != 1 || a.DatagramCounts().TooBig != 1 {
		t.Errorf("after one that is too big: got %d bytes and %+v", len(d.Data), a.DatagramCounts())
	}
	if err := b.SendDatagram(netip.MustParseAddrPort("[::1]:1"), nil); !errors.Is(err, ErrNoSocket) {
		t.Errorf("IPv6 without a socket: got %v, want ErrNoSocket", err)
	}
}

// What comes in on one of several sockets is answered from it.
func TestDatagramsOfSeveralSockets(t *testing.T) {
	free, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	port := free.LocalAddr().(*net.UDPAddr).Port
	free.Close()
	listen := []string{loopbacks[0], fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port)}
	if c, err := net.ListenPacket("udp6", "[::1]:0"); err == nil {
		c.Close()
		listen = append(listen, "/ip6/::1/udp/0/quic-v1")
	}
	a, b := start(t, Config{Listen: listen}), start(t, Config{Listen: slices.Concat(loopbacks[:1], listen[2:])})
	echo(a)
	in := b.Datagrams()
	if got := len(a.LocalUDP()); got != len(listen) {
		t.Fatalf("LocalUDP: got %v", a.LocalUDP())
	}
	for range 3 {
		for _, to := range a.LocalUDP() {
			if err := b.SendDatagram(to, []byte("x")); err != nil {
				t.Fatal(err)
			}
			select {
			case d := <-in:
				if d.From != to {
					t.Errorf("sent to %s: got an answer from %s", to, d.From)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("sent to %s: no answer", to)
			}
		}
	}
}

// A flood of datagrams, ours and others, must not stop QUIC.
func TestDatagramFlood(t *testing.T) {
	a, b := start(t, Config{Listen: loopbacks[:1]}), start(t, Config{Listen: loopbacks[:1]})
	a.Answer("/echo", 100, func(_ context.Context, _ crowd.NodeID, req []byte) ([]byte, error) { return req, nil })
	connect(t, b, a)
	a.Datagrams() // and nobody reads
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(a.LocalUDP()[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer flood.Wait()
	defer cancel()
	flood.Go(func() {
		rng := mrand.New(mrand.NewPCG(1, 2))
		junk := random(2000)
		for ctx.Err() == nil {
			junk[0], junk[1] = magic0, magic1
			if rng.IntN(10) == 0 {
				junk[0] = byte(rng.Uint32())
			}
			c.Write(junk[:rng.IntN(len(junk))])
		}
	})
	whole := func() bool { // the flood has filled the queue and gone on
		got := a.DatagramCounts()
		return got.Received == datagramQueue && got.Full > 0 && got.TooBig > 0
	}
	for began, n := time.Now(), 0; n < 50 || !whole(); n++ {
		if _, err := b.Request(within(t, 10*time.Second), a.ID(), "/echo", []byte("hello"), 100); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("counts after a minute of flood: got %+v", a.DatagramCounts())
		}
	}
	if got := a.DatagramCounts(); got.Received != datagramQueue {
		t.Errorf("counts: got %+v", got)
	}
}

// quic-go pairs the i-th message of a batch with its own i-th buffer: messages are copied, buffers stay.
func TestReadBatchKeepsBuffers(t *testing.T) {
	d := newDatagrams()
	d.wanted.Store(true)
	pc, err := d.listen("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := pc.(*socket)
	defer s.Close()
	if err := s.batch.SetControlMessage(ipv4.FlagDst, true); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp4", s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rng := mrand.New(mrand.NewPCG(3, 4))
	var theirs, mine []string
	for i := range 200 {
		p := fmt.Sprintf("%c packet %d %s", 0x40+rng.IntN(100), i, strings.Repeat("x", rng.IntN(200)))
		if rng.IntN(2) == 0 {
			mine = append(mine, p)
			p = string([]byte{magic0, magic1}) + p
		} else {
			theirs = append(theirs, p)
		}
		if _, err := c.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	ms := make([]ipv4.Message, 8)
	bufs := make([]*byte, len(ms))
	for i := range ms {
		b := make([]byte, 1452)
		ms[i].Buffers, ms[i].OOB, bufs[i] = [][]byte{b}, make([]byte, 128), &b[0]
	}
	var got []string
	s.SetReadDeadline(time.Now().Add(10 * time.Second))
	for len(got) < len(theirs) {
		n, err := s.ReadBatch(ms, 0)
		if err != nil || n == 0 {
			t.Fatalf("got %d messages, %v", n, err)
		}
		for i, m := range ms[:n] {
			if &m.Buffers[0][0] != bufs[i] {
				t.Fatalf("message %d: its buffer has moved", i)
			}
			var cm ipv4.ControlMessage
			if err := cm.Parse(m.OOB[:m.NN]); err != nil || !cm.Dst.IsLoopback() || m.Addr.String() != c.LocalAddr().String() {
				t.Errorf("message %d: from %s, control message %v, %v", i, m.Addr, &cm, err)
			}
			got = append(got, string(m.Buffers[0][:m.N]))
		}
	}
	if !slices.Equal(got, theirs) {
		t.Error("what quic-go would read is not what was sent")
	}
	s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	s.ReadBatch(ms, 0) // the last of ours
	for i, want := range mine {
		if d := <-d.queue; string(d.Data) != want {
			t.Fatalf("datagram %d: got %q, want %q", i, d.Data, want)
		}
	}
}

func BenchmarkDatagramRoundTrip(b *testing.B) {
	x, y := start(b, Config{}), start(b, Config{})
	echo(y)
	in, to, data := x.Datagrams(), y.LocalUDP()[0], random(200)
	b.ReportAllocs()
	for b.Loop() {
		if err := x.SendDatagram(to, data); err != nil {
			b.Fatal(err)
		}
		(<-in).Free()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "trips/s")
}

// BenchmarkQUIC64MiB sends 64 MiB through one stream, in turn between hosts with our sockets and with libp2p's own:
// "of-plain" is the ratio of the speeds.
func BenchmarkQUIC64MiB(b *testing.B) {
	const size = 64 << 20
	data, buf := random(size), make([]byte, 1<<20)
	pair := func(make func() host.Host) func() time.Duration {
		x, y := make(), make()
		x.Peerstore().AddAddrs(y.ID(), y.Addrs(), peerstore.PermanentAddrTTL)
		y.SetStreamHandler("/raw", func(s network.Stream) {
			s.Write(data)
			s.Close()
		})
		return func() time.Duration {
			from := time.Now()
			s, err := x.NewStream(b.Context(), y.ID(), "/raw")
			if err != nil {
				b.Fatal(err)
			}
			s.CloseWrite()
			if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, buf); err != nil || n != size {
				b.Fatal(n, err)
			}
			return time.Since(from)
		}
	}
	cfg := Config{Listen: loopbacks[:1]}
	wrapped := pair(func() host.Host { return start(b, cfg).host })
	plain := pair(func() host.Host {
		k, err := parseKey(key(b))
		if err != nil {
			b.Fatal(err)
		}
		resources, conns, err := Limits{}.withDefaults().managers()
		if err != nil {
			b.Fatal(err)
		}
		h, err := libp2p.New(append((&Host{cfg: cfg.withDefaults()}).options(), libp2p.Identity(k), libp2p.ResourceManager(resources),
			libp2p.ConnectionManager(conns), libp2p.ListenAddrStrings(loopbacks[0]))...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { h.Close() })
		return h
	})
	var with, without time.Duration
	b.SetBytes(2 * size)
	for b.Loop() {
		with += wrapped()
		without += plain()
	}
	b.ReportMetric(float64(size)*float64(b.N)/1e6/with.Seconds(), "ours-MB/s")
	b.ReportMetric(float64(size)*float64(b.N)/1e6/without.Seconds(), "plain-MB/s")
	b.ReportMetric(without.Seconds()/with.Seconds(), "of-plain")
}
