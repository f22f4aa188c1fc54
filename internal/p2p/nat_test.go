package p2p

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/multiformats/go-multiaddr"

	"github.com/crowdcompute/crowd"
)

// eventually polls until ok, or fails.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); wait(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time:", what)
		}
	}
}

// A private host without seeds finds a relay through discovery and can be dialled through it.
func TestRelayFoundLater(t *testing.T) {
	t.Parallel()
	relay := start(t, Config{Listen: loopbacks[:1], Reachability: Public})
	stop, asked := t.Context().Done(), make(chan int, 100)
	hidden := start(t, Config{Listen: loopbacks[:1], Reachability: Private, Relays: func(_ context.Context, n int) []string {
		select {
		case asked <- n:
		case <-stop:
		}
		return append([]string{"nonsense"}, relay.Addrs()...)
	}})
	hidden.Answer("/hello", 10, func(context.Context, crowd.NodeID, []byte) ([]byte, error) { return []byte("hi"), nil })
	if n := <-asked; n < 1 {
		t.Errorf("asked for %d relays", n)
	}
	b := start(t, Config{Listen: loopbacks[:1]})
	// Addrs names relays only at public addresses, so this one is spelled out.
	through := relay.Addrs()[0] + "/p2p-circuit/p2p/" + hidden.host.ID().String()
	eventually(t, "a way through the relay", func() bool {
		id, err := b.Connect(within(t, 5*time.Second), through)
		return err == nil && id == hidden.ID()
	})
	if got, err := b.Request(within(t, 10*time.Second), hidden.ID(), "/hello", nil, 10); err != nil || string(got) != "hi" {
		t.Errorf("Request: got %q, %v", got, err)
	}
	for _, tt := range []struct {
		at, to *Host
		want   string
	}{{b, hidden, "relayed"}, {hidden, b, "relayed"}, {hidden, relay, "direct"}, {b, relay, "direct"}} {
		for _, p := range tt.at.Peers() {
			if p.ID == tt.to.ID() && p.Path != tt.want {
				t.Errorf("path to %s: got %s, want %s", tt.to.ID().Short(), p.Path, tt.want)
			}
		}
	}
}

func TestReachability(t *testing.T) {
	for _, want := range []Reachability{Unknown, Public, Private} {
		if got, _ := start(t, Config{Reachability: want}).Reachability(); got != want {
			t.Errorf("forced: got %s, want %s", got, want)
		}
	}
	if h, err := New(Config{PrivateKey: key(t), Listen: loopbacks, Reachability: "good"}); err == nil {
		h.Close()
		t.Error("nonsense: got no error")
	}
	h := start(t, Config{})
	em, err := h.host.EventBus().Emitter(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		t.Fatal(err)
	}
	defer em.Close()
	for _, r := range []network.Reachability{network.ReachabilityPrivate, network.ReachabilityPublic, network.ReachabilityUnknown} {
		_, news := h.Reachability()
		if err := em.Emit(event.EvtLocalReachabilityChanged{Reachability: r}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-news:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: no news", r)
		}
		if got, _ := h.Reachability(); string(got) != strings.ToLower(r.String()) {
			t.Errorf("got %s, want %s", got, r)
		}
	}
}

func TestExternalUDP(t *testing.T) {
	a, b := start(t, Config{}), start(t, Config{})
	connect(t, a, b)
	for _, h := range []*Host{a, b} {
		eventually(t, "what the other sees", func() bool { return slices.Equal(h.ExternalUDP(), h.LocalUDP()) })
	}
	// What is said about an end that is not of a listening socket, or is no UDP address, does not count.
	conn := a.host.Network().Conns()[0]
	for _, lie := range []string{"/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/0.0.0.0/udp/9/quic-v1", "/ip4/8.8.8.8/udp/9/quic-v1", "/ip6/::1/udp/9/quic-v1"} {
		a.sighted(event.EvtPeerIdentificationCompleted{Peer: conn.RemotePeer(), Conn: conn, ObservedAddr: multiaddr.StringCast(lie)})
	}
	if got := a.ExternalUDP(); !slices.Equal(got, a.LocalUDP()) {
		t.Errorf("after lies: got %v, want %v", got, a.LocalUDP())
	}
	b.Close()
	eventually(t, "nothing without peers", func() bool { return len(a.ExternalUDP()) == 0 })
}

func TestTally(t *testing.T) {
	see := func(by, us string) sighting {
		return sighting{by: netip.MustParseAddr(by), us: netip.MustParseAddrPort(us)}
	}
	got := tally([]sighting{
		see("1.2.3.4", "9.9.9.9:1"), see("1.2.3.5", "9.9.9.9:1"), see("1.2.3.6", "9.9.9.9:1"), // one network
		see("1.2.4.4", "8.8.8.8:2"), see("5.6.7.8", "8.8.8.8:2"),
		see("2001:db8::1", "[2001:db8::9]:3"), see("2001:db8:1::1", "[2001:db8::9]:3"), see("2001:db8:2::1", "[2001:db8::9]:3"),
		{us: netip.MustParseAddrPort("7.7.7.7:7")},
	})
	if want := "[[2001:db8::9]:3 8.8.8.8:2 9.9.9.9:1]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// Real hole punching needs NATs. Here it is libp2p's word for it that counts.
func TestPunchedPath(t *testing.T) {
	a, b := start(t, Config{Reachability: Private}), start(t, Config{})
	connect(t, a, b)
	tell := func(e any) string {
		punches{a}.Trace(&holepunch.Event{Remote: b.host.ID(), Evt: e})
		return a.Peers()[0].Path
	}
	for _, e := range []any{&holepunch.EndHolePunchEvt{}, &holepunch.DirectDialEvt{Success: true}} {
		if got := tell(e); got != "direct" {
			t.Errorf("after %+v: got %s, want direct", e, got)
		}
	}
	if got := tell(&holepunch.EndHolePunchEvt{Success: true}); got != "punched" {
		t.Errorf("got %s, want punched", got)
	}
	if got := b.Peers()[0].Path; got != "direct" {
		t.Errorf("at the other, who has heard of nothing: got %s, want direct", got)
	}
	b.Close()
	eventually(t, "forgotten", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.punched) == 0 })
}

func TestAddSeed(t *testing.T) {
	t.Parallel()
	h := start(t, Config{Listen: loopbacks[:1]})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	defer run.Wait()
	defer cancel()
	run.Go(func() { h.Run(ctx) })
	k := key(t)
	seed := start(t, Config{PrivateKey: k, Listen: loopbacks[:1]})
	for _, bad := range []string{"nonsense", "/ip4/127.0.0.1/udp/1/quic-v1", h.Addrs()[0]} {
		if err := h.AddSeed(bad); err == nil {
			t.Errorf("AddSeed(%s): got no error", bad)
		}
	}
	if err := h.AddSeed(seed.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected", func() bool { return len(h.Peers()) == 1 })
	seed.Close()
	eventually(t, "disconnected", func() bool { return len(h.Peers()) == 0 })
	moved := start(t, Config{PrivateKey: k, Listen: loopbacks[:1]})
	if err := h.AddSeed(moved.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected where it moved to", func() bool { return len(h.Peers()) == 1 })
	if n := len(h.seeds); n != 1 {
		t.Errorf("seeds: got %d, want 1", n)
	}
}

// Nodes with the same tag find each other on the LAN.
func TestLANTag(t *testing.T) {
	t.Parallel()
	type sight struct {
		id    crowd.NodeID
		addrs []string
	}
	ctx, cancel := context.WithCancel(t.Context())
	var runs sync.WaitGroup
	defer runs.Wait()
	defer cancel()
	hosts, found := make([]*Host, 3), make(chan sight, 100)
	for i, tag := range []string{"one network", "one network", "another"} {
		seen := func(crowd.NodeID, []string) {}
		if i == 0 {
			seen = func(id crowd.NodeID, addrs []string) { found <- sight{id, addrs} }
		}
		hosts[i] = start(t, Config{Listen: []string{"/ip4/0.0.0.0/udp/0/quic-v1"}, MDNS: true, LANTag: tag, Found: seen})
		runs.Go(func() { hosts[i].Run(ctx) })
	}
	select {
	case s := <-found:
		if s.id != hosts[1].ID() || len(s.addrs) == 0 {
			t.Errorf("found: got %s at %v, want %s", s.id.Short(), s.addrs, hosts[1].ID().Short())
		}
	case <-time.After(10 * time.Second):
		t.Skip("no multicast here")
	}
	eventually(t, "connected", func() bool { return len(hosts[0].Peers()) > 0 })
	for _, h := range hosts[:2] {
		for _, p := range h.Peers() {
			if p.ID == hosts[2].ID() {
				t.Error("connected to a node of another network")
			}
		}
	}
	if n := len(hosts[2].Peers()); n != 0 {
		t.Errorf("the host of another network has %d peers, want none", n)
	}
}

func TestServiceName(t *testing.T) {
	seen := map[string]bool{}
	for _, tag := range []string{"", "a", "b", strings.Repeat("long", 100)} {
		name := serviceName(tag)
		if label := strings.TrimPrefix(strings.TrimSuffix(name, "._udp"), "_"); seen[name] || len(label) > 15 {
			t.Errorf("tag %.10q: got %s", tag, name)
		}
		seen[name] = true
	}
}

// Before the host exists libp2p's parts may ask already; a host that never came to be has no relays.
func TestRelaysOfNoHost(t *testing.T) {
	h := &Host{made: make(chan struct{})}
	out := h.relays(t.Context(), 3)
	close(h.made)
	if info, ok := <-out; ok {
		t.Errorf("got %v", info)
	}
	punches{h}.Trace(&holepunch.Event{Remote: peer.ID("x"), Evt: &holepunch.EndHolePunchEvt{Success: true}})
}
