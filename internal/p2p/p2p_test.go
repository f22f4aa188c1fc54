package p2p

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/store"
)

var loopbacks = []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}

func key(t testing.TB) []byte {
	t.Helper()
	k := make([]byte, 32)
	rand.Read(k)
	k[0] = 1
	return k
}

// start makes a host on loopback with what cfg leaves open filled in.
func start(t testing.TB, cfg Config) *Host {
	t.Helper()
	if cfg.PrivateKey == nil {
		cfg.PrivateKey = key(t)
	}
	if cfg.Listen == nil {
		cfg.Listen = loopbacks
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func openStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func connect(t testing.TB, a, b *Host) {
	t.Helper()
	if err := a.ConnectID(t.Context(), b.ID(), b.Addrs()); err != nil {
		t.Fatal(err)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	mrand.NewChaCha8([32]byte{9}).Read(b)
	return b
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestIDs(t *testing.T) {
	h := start(t, Config{})
	p, err := PeerIDOf(h.ID())
	if err != nil || p != h.host.ID() {
		t.Errorf("PeerIDOf: got %s, %v, want %s", p, err, h.host.ID())
	}
	if id, err := NodeIDOf(p); err != nil || id != h.ID() {
		t.Errorf("NodeIDOf: got %s, %v, want %s", id, err, h.ID())
	}
	for _, id := range []crowd.NodeID{{}, {1}} {
		if p, err := PeerIDOf(id); err == nil {
			t.Errorf("PeerIDOf of no point: got %s", p)
		}
	}
	order, _ := hex.DecodeString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
	for _, k := range [][]byte{nil, make([]byte, 31), make([]byte, 32), make([]byte, 33), order} {
		if h, err := New(Config{PrivateKey: k, Listen: loopbacks}); err == nil {
			h.Close()
			t.Errorf("New with key %x: got no error", k)
		}
	}
}

func TestStreams(t *testing.T) {
	for _, listen := range loopbacks {
		t.Run(strings.Split(listen, "/")[3], func(t *testing.T) {
			a, b := start(t, Config{Listen: []string{listen}}), start(t, Config{Listen: []string{listen}})
			b.Handle("/echo", func(_ context.Context, from crowd.NodeID, s Stream) error {
				if from != a.ID() {
					t.Errorf("from: got %s, want %s", from.Short(), a.ID().Short())
				}
				_, err := io.Copy(s, s)
				return err
			})
			id, err := a.Connect(t.Context(), b.Addrs()[0])
			if err != nil || id != b.ID() {
				t.Fatalf("Connect: got %s, %v, want %s", id.Short(), err, b.ID().Short())
			}
			s, err := a.Open(t.Context(), b.ID(), "/echo")
			if err != nil {
				t.Fatal(err)
			}
			data := random(1 << 20)
			go func() {
				s.Write(data)
				s.CloseWrite()
			}()
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, data) {
				t.Errorf("echo: got %d bytes, %v, want the %d sent", len(got), err, len(data))
			}
			ps := a.Peers()
			if len(ps) != 1 || ps[0].ID != b.ID() || ps[0].Path != "direct" || len(ps[0].Addrs) != 1 || ps[0].Since.IsZero() {
				t.Errorf("Peers: got %+v, want b, direct", ps)
			}
		})
	}
}

func TestConnectRefuses(t *testing.T) {
	a, b, c := start(t, Config{}), start(t, Config{}), start(t, Config{})
	for _, tt := range []struct{ name, addr string }{
		{"garbage", "hello"},
		{"no peer ID", "/ip4/127.0.0.1/tcp/1"},
		{"self", a.Addrs()[0]},
		{"another's address", strings.Split(b.Addrs()[0], "/p2p/")[0] + "/p2p/" + c.host.ID().String()},
		{"peer without node ID", "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if id, err := a.Connect(within(t, 10*time.Second), tt.addr); err == nil {
				t.Errorf("got %s, want an error", id.Short())
			}
		})
	}
	if err := a.ConnectID(t.Context(), c.ID(), b.Addrs()); err == nil {
		t.Error("ConnectID with another's addresses: got no error")
	}
	if s, err := a.Open(within(t, 5*time.Second), c.ID(), "/x"); err == nil || s != nil {
		t.Errorf("Open to an unknown node: got %v, %v", s, err)
	}
}

func TestRequests(t *testing.T) {
	a, b := start(t, Config{}), start(t, Config{})
	connect(t, a, b)
	b.Answer("/double", 100, func(_ context.Context, _ crowd.NodeID, req []byte) ([]byte, error) {
		switch string(req) {
		case "panic":
			panic("on purpose")
		case "error":
			return nil, errors.New("on purpose")
		}
		return append(req, req...), nil
	})
	hung := make(chan struct{})
	b.Handle("/hang", func(ctx context.Context, _ crowd.NodeID, s Stream) error {
		close(hung)
		<-ctx.Done()
		return nil
	})
	for _, tt := range []struct {
		name, req, want string
		max             int
	}{
		{"answer", "ab", "abab", 4},
		{"empty", "", "", 0},
		{"handler panics", "panic", "-", 100},
		{"handler fails", "error", "-", 100},
		{"request too long", strings.Repeat("x", 101), "-", 1000},
		{"response too long", "ab", "-", 3},
		{"after all that", "ok", "okok", 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := a.Request(t.Context(), b.ID(), "/double", []byte(tt.req), tt.max)
			if (err != nil) != (tt.want == "-") || (err == nil && string(got) != tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-hung; cancel() }()
	if _, err := a.Request(ctx, b.ID(), "/hang", nil, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled request: got %v, want context.Canceled", err)
	}
	if _, err := a.Request(t.Context(), b.ID(), "/unknown", nil, 1); err == nil {
		t.Error("unknown protocol: got no error")
	}
}

// Random bytes on every protocol must cost the sender its stream and nothing else.
func TestRandomBytes(t *testing.T) {
	s := openStore(t)
	c, err := s.AddFile(t.Context(), strings.NewReader("still served"))
	if err != nil {
		t.Fatal(err)
	}
	srv := start(t, Config{Blocks: s.Blocks()})
	srv.Answer("/double", 100, func(_ context.Context, _ crowd.NodeID, req []byte) ([]byte, error) { return req, nil })
	bad := start(t, Config{})
	connect(t, bad, srv)
	rng := mrand.New(mrand.NewPCG(1, 1))
	for i := range 40 {
		for _, proto := range []string{blocksProtocol, "/double", "/ipfs/bitswap/1.2.0", "/meshsub/1.1.0", "/ipfs/id/1.0.0"} {
			st, err := bad.Open(t.Context(), srv.ID(), proto)
			if err != nil {
				continue
			}
			st.SetDeadline(time.Now().Add(5 * time.Second))
			junk := make([]byte, rng.IntN(500))
			for j := range junk {
				junk[j] = byte(rng.Uint32())
			}
			st.Write(junk)
			if i%2 == 0 {
				st.CloseWrite()
			}
			st.Reset()
		}
	}
	dst := openStore(t)
	good := start(t, Config{Blocks: dst.Blocks()})
	connect(t, good, srv)
	if err := good.Fetch(within(t, 10*time.Second), c, 100, nil, nil); err != nil {
		t.Error(err)
	}
}

func TestGossip(t *testing.T) {
	const topic = "jobs"
	hosts := make([]*Host, 3)
	subs := make([]*Subscription, 3)
	for i := range hosts {
		hosts[i] = start(t, Config{Topics: []string{topic}})
		var err error
		subs[i], err = hosts[i].Subscribe(topic, 16, func(_ crowd.NodeID, data []byte) bool {
			if string(data) == "panic" {
				panic("on purpose")
			}
			return !bytes.HasPrefix(data, []byte("bad"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	connect(t, hosts[0], hosts[1]) // a line: 0 - 1 - 2
	connect(t, hosts[1], hosts[2])
	ctx := within(t, 20*time.Second)
	// The mesh forms within some heartbeats. Until it has, what is published may not get through.
	for arrived := false; !arrived; {
		if err := hosts[0].Publish(ctx, topic, []byte("warm")); err != nil {
			t.Fatal(err)
		}
		try, cancel := context.WithTimeout(ctx, heartbeat)
		_, err := subs[2].Next(try)
		cancel()
		if arrived = err == nil; ctx.Err() != nil {
			t.Fatal("nothing arrived")
		}
	}
	big := random(MaxGossip)
	for _, m := range [][]byte{[]byte("first"), big} {
		if err := hosts[0].Publish(ctx, topic, m); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{"bad", "panic"} {
		if err := hosts[0].Publish(ctx, topic, []byte(bad)); err == nil {
			t.Errorf("publishing what our own validator refuses (%s): got no error", bad)
		}
	}
	for i, s := range subs {
		for want := map[string]bool{"first": true, string(big): true}; len(want) > 0; { // in any order
			m, err := s.Next(ctx)
			if err != nil {
				t.Fatalf("host %d: %v, %d messages have not arrived", i, err, len(want))
			}
			if m.From != hosts[0].ID() || (!want[string(m.Data)] && string(m.Data) != "warm") {
				t.Errorf("host %d: got %.20q from %s", i, m.Data, m.From.Short())
			}
			delete(want, string(m.Data))
		}
	}
	if err := hosts[0].Publish(ctx, topic, random(MaxGossip+1)); err == nil {
		t.Error("too big: got no error")
	}
	if err := hosts[0].Publish(ctx, "other", nil); err == nil {
		t.Error("undeclared topic: got no error")
	}
	if _, err := hosts[0].Subscribe(topic, 1, nil); err == nil {
		t.Error("second subscription: got no error")
	}
	subs[0].Cancel()
	subs[0].Cancel()
	if _, err := subs[0].Next(ctx); err == nil {
		t.Error("Next after Cancel: got no error")
	}
	if _, err := hosts[0].Subscribe(topic, 1, func(crowd.NodeID, []byte) bool { return true }); err != nil {
		t.Errorf("subscribing again: got %v", err)
	}
}

func TestSeeds(t *testing.T) {
	k := key(t)
	seed := start(t, Config{PrivateKey: k, Listen: loopbacks[:1]})
	addr := seed.Addrs()[0]
	h := start(t, Config{Seeds: []string{addr}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	up := func(want bool) {
		t.Helper()
		deadline := time.Now().Add(15 * time.Second)
		for (len(h.Peers()) == 1) != want {
			if time.Now().After(deadline) {
				t.Fatalf("connected: want %v", want)
			}
			runtime.Gosched()
			wait(5 * time.Millisecond)
		}
	}
	up(true)
	for deadline := time.Now().Add(10 * time.Second); h.Peers()[0].RTT == 0; wait(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("round-trip time: not measured")
		}
	}
	seed.Close()
	up(false)
	listen := strings.Split(addr, "/p2p/")[0]
	start(t, Config{PrivateKey: k, Listen: []string{listen}})
	up(true)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: got %v", err)
	}
	if _, err := New(Config{PrivateKey: k, Listen: loopbacks, Seeds: []string{"nonsense"}}); err == nil {
		t.Error("a seed that is no address: got no error")
	}
}

// wait lets a poll's loop breathe.
func wait(d time.Duration) { <-time.After(d) }

func TestCloseLeavesNothing(t *testing.T) {
	stack := func() string {
		b := make([]byte, 1<<20)
		return string(b[:runtime.Stack(b, true)])
	}
	before := runtime.NumGoroutine()
	for range 3 {
		s := openStore(t)
		a, err := New(Config{PrivateKey: key(t), Listen: loopbacks, Blocks: s.Blocks(), Topics: []string{"t"}, MDNS: true})
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(Config{PrivateKey: key(t), Listen: loopbacks, Topics: []string{"t"}, Seeds: a.Addrs()[:1]})
		if err != nil {
			t.Fatal(err)
		}
		a.Handle("/hang", func(ctx context.Context, _ crowd.NodeID, s Stream) error {
			_, err := io.Copy(io.Discard, s)
			return err
		})
		ctx, cancel := context.WithCancel(t.Context())
		var runs sync.WaitGroup
		runs.Go(func() { a.Run(ctx) })
		runs.Go(func() { b.Run(ctx) })
		connect(t, b, a)
		if _, err := b.Subscribe("t", 1, func(crowd.NodeID, []byte) bool { return true }); err != nil {
			t.Fatal(err)
		}
		st, err := b.Open(t.Context(), a.ID(), "/hang")
		if err != nil {
			t.Fatal(err)
		}
		st.Write([]byte("x"))
		cancel()
		runs.Wait()
		if err := errors.Join(a.Close(), b.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; wait(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("goroutines: got %d, want %d\n%s", runtime.NumGoroutine(), before, stack())
		}
	}
}

func TestNewThatFails(t *testing.T) {
	blocks := openStore(t).Blocks()
	before := runtime.NumGoroutine()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port)
	if h, err := New(Config{PrivateKey: key(t), Listen: []string{loopbacks[0], taken}, Blocks: blocks, Topics: []string{"t"}}); err == nil {
		h.Close()
		t.Error("a port that is taken: got no error")
	}
	if h, err := New(Config{PrivateKey: key(t), Listen: []string{loopbacks[0], loopbacks[0]}}); err == nil {
		h.Close()
		t.Error("an address named twice: got no error")
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; wait(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b := make([]byte, 1<<20)
			t.Fatalf("goroutines: got %d, want %d\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
		}
	}
}

func TestPeerCannotTakeAllStreams(t *testing.T) {
	a := start(t, Config{})
	b := start(t, Config{Limits: Limits{StreamsPerPeer: 20}})
	b.Handle("/hang", func(ctx context.Context, _ crowd.NodeID, s Stream) error {
		<-ctx.Done()
		return nil
	})
	connect(t, a, b)
	open := 0
	for range 50 {
		s, err := a.Open(t.Context(), b.ID(), "/hang")
		if err != nil {
			continue
		}
		s.SetDeadline(time.Now().Add(100 * time.Millisecond))
		s.Write([]byte("x"))
		if _, err := s.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			open++ // it hangs, so there is a handler
		}
	}
	if open == 0 || open > 10 {
		t.Errorf("streams that one peer got: %d, want 1 to 10", open)
	}
}

func FuzzReadMessage(f *testing.F) {
	var b bytes.Buffer
	WriteMessage(&b, []byte("hello"))
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		const max = 1 << 20
		m, err := ReadMessage(bytes.NewReader(data), max)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := WriteMessage(&again, m); err != nil || !bytes.HasPrefix(data, again.Bytes()) {
			t.Errorf("got %x, %v, want a prefix of %x", again.Bytes(), err, data)
		}
	})
}

func TestReadMessage(t *testing.T) {
	for _, n := range []int{0, 1, 16 << 10, 16<<10 + 1, 256 << 10, 3<<20 + 7} {
		var b bytes.Buffer
		data := random(n)
		if err := WriteMessage(&b, data); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadMessage(&b, n); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
	if _, err := ReadMessage(bytes.NewReader([]byte{0, 0, 0, 5}), 4); !errors.Is(err, ErrMessageTooBig) {
		t.Errorf("got %v, want ErrMessageTooBig", err)
	}
	if _, err := ReadMessage(bytes.NewReader([]byte{0, 0, 0, 5, 1}), 10); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want ErrUnexpectedEOF", err)
	}
	// A promise of a gigabyte costs no gigabyte.
	before := new(runtime.MemStats)
	runtime.ReadMemStats(before)
	ReadMessage(io.MultiReader(bytes.NewReader([]byte{0x40, 0, 0, 0}), bytes.NewReader(random(1000))), 1<<30)
	after := new(runtime.MemStats)
	runtime.ReadMemStats(after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("allocated %d bytes for a message that never came", got)
	}
}

// A protocol's own limits hold for streams that others open, of one peer and of all.
func TestProtocolLimits(t *testing.T) {
	const proto = "/crowd/test/dear"
	a := start(t, Config{Limits: Limits{Protocols: map[string]ProtocolLimit{proto: {Streams: 3, StreamsPerPeer: 2}}}})
	a.Handle(proto, func(ctx context.Context, _ crowd.NodeID, s Stream) error {
		if _, err := s.Write([]byte{1}); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	got := func(h *Host, n int) (served int) {
		connect(t, h, a)
		for range n {
			s, err := h.Open(within(t, 20*time.Second), a.ID(), proto)
			if err != nil {
				continue
			}
			t.Cleanup(func() { s.Reset() })
			if err := s.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(s, make([]byte, 1)); err == nil {
				served++
			}
		}
		return served
	}
	if n := got(start(t, Config{}), 5); n != 2 {
		t.Errorf("one peer: got %d streams, want 2", n)
	}
	if n := got(start(t, Config{}), 5); n != 1 {
		t.Errorf("another: got %d streams, want the 1 that is left of 3", n)
	}
}
