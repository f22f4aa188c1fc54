//go:build linux

package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor/wasm"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/p2p"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// crew are nodes of one network in this process, each started with the seeds that a test gives it.
type crew struct {
	*Local
	t testing.TB
}

func muster(t testing.TB, providers int) *crew {
	t.Helper()
	l, err := OpenLocal(LocalConfig{Dir: t.TempDir(), Providers: providers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.lock.Close() })
	return &crew{l, t}
}

// hand is a running node.
type hand struct {
	*Node
	stop func() // once it returns, the node has ended
}

// run starts a node on loopback ports of its own, unless c says otherwise.
func (w *crew) run(name string, c Config) *hand {
	w.t.Helper()
	c.Dir = w.dir(name)
	if c.Genesis == nil {
		c.Genesis = w.genesis
	}
	if c.Listen == nil {
		c.Listen = []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}
	}
	if c.Key == nil {
		var err error
		if c.Key, err = OpenKey(w.t.Context(), c.Dir, c.Genesis.Params.Puzzles.Static, nil); err != nil {
			w.t.Fatal(err)
		}
	}
	if testing.Verbose() {
		c.Log = slog.New(slog.NewTextHandler(w.t.Output(), nil)).With("node", name)
	}
	n, err := New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := n.Run(ctx); err != nil {
			w.t.Errorf("%s: %v", name, err)
		}
	}()
	h := &hand{n, func() { cancel(); <-ended }}
	w.t.Cleanup(h.stop)
	return h
}

func (w *crew) ready(hands ...*hand) {
	w.t.Helper()
	late := time.After(patience)
	for _, h := range hands {
		select {
		case <-h.Ready():
		case <-late:
			w.t.Fatalf("%s is not ready: %+v", h.ID().Short(), h.disc.Stats())
		}
	}
}

// eventually waits for what no channel tells.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func (h *hand) knows(id crowd.NodeID) bool {
	for _, p := range h.disc.Peers() {
		if p.ID == id {
			return true
		}
	}
	return false
}

// TestJoin: nobody is told where anybody is but for one node, which is neither the authority nor a provider. They find each
// other and run a job, also when that node is gone, and one of them starts again from what it remembers alone.
func TestJoin(t *testing.T) {
	w := muster(t, 2)
	exec, err := wasm.New(wasm.Config{CacheDir: w.dir("compiled"), Command: []string{"/proc/self/exe", "wasm-worker"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exec.Close() })
	gate := w.run("gate", Config{})
	seeds := gate.Addrs()[:1]
	authority := w.run("authority", Config{Key: w.keys.authority, Exec: exec, Seeds: seeds})
	one := w.run("provider-1", Config{Key: w.keys.providers[0], Exec: exec, Seeds: seeds})
	two := w.run("provider-2", Config{Key: w.keys.providers[1], Exec: exec, Seeds: seeds})
	other := w.run("other", Config{Seeds: seeds})
	consumer := w.run("consumer", Config{Key: w.keys.consumer, Seeds: seeds, RPC: &rpc.Config{Dir: w.cfg.Dir}})
	all := []*hand{gate, authority, one, two, other, consumer}
	w.ready(all...)
	for _, a := range all {
		for _, b := range all {
			if a == b {
				continue
			}
			if r, err := a.disc.Find(t.Context(), b.ID()); err != nil || r.ID != b.ID() {
				t.Errorf("%s does not find %s: %v", a.ID().Short(), b.ID().Short(), err)
			}
		}
	}

	client, err := rpc.Dial(t.Context(), consumer.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	n := &network{Local: w.Local, Client: client, t: t}
	job := func() {
		t.Helper()
		_, events := n.finish(n.request(guest(t, "trivial")))
		if last := events[len(events)-1]; last.Stage != rpc.Settled {
			t.Fatalf("the job ended as %s: %s", last.Stage, last.Why)
		}
	}
	job()
	// Whom a job needed is connected, though nobody had its address.
	if peers := consumer.host.Peers(); !slices.ContainsFunc(peers, func(p p2p.Peer) bool { return p.ID == one.ID() || p.ID == two.ID() }) {
		t.Errorf("the consumer got its result from none of the providers: %+v", peers)
	}

	t.Run("tags", func(t *testing.T) {
		eventually(t, "both providers are found by tag", func() bool {
			list, err := client.FindTag(t.Context(), "provider", 10)
			return err == nil && len(list) == 2 && list[0].Offer != nil && list[0].Offer.Stake == providerStake
		})
		list, err := client.FindTag(t.Context(), "chain", 10)
		if err != nil || len(list) != 1 || list[0].Node != authority.ID() {
			t.Errorf("who serves the chain: got %+v, %v", list, err)
		}
		if list, err := client.FindTag(t.Context(), "nobody-has-this", 10); err != nil || len(list) != 0 {
			t.Errorf("a tag of nobody: got %+v, %v", list, err)
		}
		f, err := client.Find(t.Context(), one.ID().Key().String())
		if err != nil || f.Node != one.ID() {
			t.Errorf("by key: got %+v, %v", f, err)
		}
		f, err = client.Find(t.Context(), one.ID().String()[:10])
		if err != nil || f.Node != one.ID() {
			t.Errorf("by first digits: got %+v, %v", f, err)
		}
		if _, err = client.Find(t.Context(), crowd.NodeID{1}.String()); rpc.KindOf(err) != rpc.NotFound {
			t.Errorf("nobody: got %v, want %s", err, rpc.NotFound)
		}
	})

	t.Run("genesis from a peer", func(t *testing.T) {
		g, err := FetchGenesis(t.Context(), other.Addrs(), w.genesis.ChainID(), nil)
		if err != nil || !bytes.Equal(crowd.Encode(g), crowd.Encode(w.genesis)) {
			t.Errorf("got %v, %v", g, err)
		}
		_, err = FetchGenesis(t.Context(), other.Addrs()[:1], "crowd-local-aaaa", nil)
		if wrong := (*OtherChainError)(nil); !errors.As(err, &wrong) || wrong.Got != w.genesis.ChainID() {
			t.Errorf("another chain: got %v", err)
		}
	})

	t.Run("another network", func(t *testing.T) {
		g := *w.genesis
		g.Name = "other-net"
		stranger := w.run("stranger", Config{Genesis: &g, Seeds: slices.Concat(seeds, authority.Addrs())})
		eventually(t, "the stranger knocks", func() bool {
			return stranger.disc.Stats().Sent > 1 && gate.disc.Stats().NotForUs > 0
		})
		for _, h := range all {
			if h.knows(stranger.ID()) {
				t.Errorf("%s knows the stranger", h.ID().Short())
			}
		}
		if got := stranger.otherNetworks(t.Context()); len(got) != 1 || got[0] != w.genesis.ChainID() {
			t.Errorf("the stranger takes its peers to be of %v", got)
		}
		if s := stranger.disc.Stats(); s.Peers+s.Known > 0 {
			t.Errorf("the stranger has got in: %+v", s)
		}
		select {
		case <-stranger.Ready():
			t.Error("the stranger follows the chain")
		default:
		}
	})

	t.Run("restart", func(t *testing.T) {
		eventually(t, "the node knows the authority", func() bool { return other.knows(authority.ID()) })
		other.stop()
		gate.stop()
		again := w.run("other", Config{})
		w.ready(again)
		if again.ID() != other.ID() {
			t.Error("it has another key")
		}
		job()
	})
}

// TestGenesis_NoLieIsTaken: what a peer sends as genesis is the one that was asked for, or is refused.
func TestGenesis_NoLieIsTaken(t *testing.T) {
	g := someGenesis(t)
	forged := *g
	forged.Time++ // as good as the right one, but for its name
	for _, tt := range []struct {
		name string
		raw  []byte
		ok   bool
	}{
		{"the genesis", crowd.Encode(genesisAnswer{Chain: g.ChainID(), Genesis: crowd.Encode(g)}), true},
		{"another one under its name", crowd.Encode(genesisAnswer{Chain: g.ChainID(), Genesis: crowd.Encode(&forged)}), false},
		{"none", crowd.Encode(genesisAnswer{Chain: g.ChainID()}), false},
		{"rubbish", crowd.Encode(genesisAnswer{Chain: g.ChainID(), Genesis: []byte("rubbish")}), false},
		{"no answer", []byte("rubbish"), false},
		{"nothing", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readGenesis(tt.raw, g.ChainID())
			if (err == nil) != tt.ok || err == nil && got.ChainID() != g.ChainID() {
				t.Errorf("got %v, %v; want ok %v", got, err, tt.ok)
			}
		})
	}
}

func TestNetworkFile(t *testing.T) {
	g := someGenesis(t)
	good := NetworkFile(g, []string{"/ip4/192.0.2.1/udp/4001/quic-v1/p2p/16Uiu2HAmLjvkhsFGzjX6DsvbVpmua6fKYKMaWCdVA8ADRuWAUXuy"})
	change := func(f func(*rpc.Network)) []byte {
		n := good
		f(&n)
		return EncodeNetwork(n)
	}
	for _, tt := range []struct {
		name string
		raw  []byte
		want string // of the error; "": none
	}{
		{"good", EncodeNetwork(good), ""},
		{"no seeds", change(func(n *rpc.Network) { n.Seeds = nil }), ""},
		{"another chain", change(func(n *rpc.Network) { n.Chain = "net-aaaa" }), "it is of chain"},
		{"a seed without a node", change(func(n *rpc.Network) { n.Seeds = []string{"/ip4/192.0.2.1/udp/1/quic-v1"} }), "does not say which node"},
		{"no seed at all", change(func(n *rpc.Network) { n.Seeds = []string{"example.org"} }), "address"},
		{"no genesis", change(func(n *rpc.Network) { n.Genesis = nil }), "genesis"},
		{"two files", append(EncodeNetwork(good), EncodeNetwork(good)...), "follows"},
		{"no JSON", []byte("network"), "invalid"},
		{"too long", bytes.Repeat([]byte{' '}, maxNetworkFile+1), "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, got, err := DecodeNetwork(bytes.NewReader(tt.raw))
			switch {
			case tt.want == "" && (err != nil || got.ChainID() != g.ChainID()):
				t.Errorf("got %v, %v", got, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestProvide: a node registers by itself once its account holds the stake, is found by what it offers, and leaves.
func TestProvide(t *testing.T) {
	w := muster(t, 2)
	exec, err := wasm.New(wasm.Config{CacheDir: w.dir("compiled"), Command: []string{"/proc/self/exe", "wasm-worker"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exec.Close() })
	authority := w.run("authority", Config{Key: w.keys.authority, Exec: exec})
	consumer := w.run("consumer", Config{Key: w.keys.consumer, Seeds: authority.Addrs()})
	novice := w.run("novice", Config{
		Seeds: consumer.Addrs(), Exec: exec,
		Offer: &Offer{Offer: ledger.Offer{Price: 900, Tags: []string{"wasm", "gpu"}, Country: "CH"}},
	})
	w.ready(authority, consumer, novice)
	state := func() string {
		s, err := backend{novice.Node}.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Provide
	}
	address := novice.ID().Address()
	eventually(t, "it says what is missing", func() bool {
		return strings.Contains(state(), "send 100.1") && strings.Contains(state(), address.String())
	})
	if _, err := (backend{novice.Node}).Leave(t.Context()); rpc.KindOf(err) != rpc.NotFound {
		t.Errorf("leave before it is a provider: got %v", err)
	}
	if _, err := (backend{consumer.Node}).Send(t.Context(), address, 1<<62); rpc.KindOf(err) != rpc.InsufficientFunds {
		t.Errorf("send more than there is: got %v", err)
	}
	if _, err := (backend{consumer.Node}).Send(t.Context(), address, 101*crowd.Credit); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it registers", func() bool { return state() == registered })
	for _, tag := range []string{"gpu", "country:ch", "provider"} {
		eventually(t, "it is found as "+tag, func() bool {
			list, err := backend{authority.Node}.FindTag(t.Context(), tag, 1)
			return err == nil && len(list) == 1 && list[0].Node == novice.ID() && list[0].Offer.Price == 900
		})
	}
	said, err := backend{novice.Node}.Leave(t.Context())
	if err != nil || !strings.Contains(said, "no longer drawn") {
		t.Errorf("leave: got %q, %v", said, err)
	}
	if _, err := (backend{novice.Node}).Leave(t.Context()); rpc.KindOf(err) != rpc.Conflict {
		t.Errorf("leave again too early: got %v, want %s", err, rpc.Conflict)
	}
}

// TestJoin_LAN: two nodes that know nothing but the genesis meet by multicast DNS.
func TestJoin_LAN(t *testing.T) {
	if why := noMulticast(); why != "" {
		t.Skip("no multicast here: " + why)
	}
	w := muster(t, 2)
	exec, err := wasm.New(wasm.Config{CacheDir: w.dir("compiled"), Command: []string{"/proc/self/exe", "wasm-worker"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exec.Close() })
	listen := []string{"/ip4/0.0.0.0/udp/0/quic-v1"}
	authority := w.run("authority", Config{Key: w.keys.authority, Exec: exec, Listen: listen, MDNS: true})
	consumer := w.run("consumer", Config{Key: w.keys.consumer, Listen: listen, MDNS: true})
	w.ready(authority, consumer)
	eventually(t, "the overlay knows whom the LAN showed", func() bool { return consumer.knows(authority.ID()) })
}

// noMulticast tries whether a datagram to the group of multicast DNS comes back.
func noMulticast() string {
	ifaces, err := net.Interfaces()
	if err != nil {
		return err.Error()
	}
	why := "no interface that can"
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagMulticast == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		err := func() error {
			group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 53530}
			c, err := net.ListenMulticastUDP("udp4", &i, group)
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.WriteTo([]byte("crowd"), group); err != nil {
				return err
			}
			c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			_, err = io.ReadFull(c, make([]byte, 5))
			return err
		}()
		if err == nil {
			return ""
		}
		why = fmt.Sprintf("%s: %v", i.Name, err)
	}
	return why
}

// TestNew_RefusesSeedsWithoutNode: an address that does not say whose it is can be anybody's.
func TestNew_RefusesSeedsWithoutNode(t *testing.T) {
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "node")
	_, err = New(Config{Dir: dir, Key: k, Genesis: someGenesis(t), Seeds: []string{"/ip4/192.0.2.1/udp/4001/quic-v1"}})
	if err == nil || !strings.Contains(err.Error(), "/p2p/") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder was made: %v", err)
	}
}

func TestPrivate(t *testing.T) {
	const node = "/p2p/16Uiu2HAmLjvkhsFGzjX6DsvbVpmua6fKYKMaWCdVA8ADRuWAUXuy"
	for _, tt := range []struct {
		name, seed, listen string
		want               bool
	}{
		{"loopback", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/udp/0/quic-v1", true},
		{"LAN", "/ip4/192.168.1.2/udp/1/quic-v1", "/ip4/0.0.0.0/udp/0/quic-v1", true},
		{"no seed", "", "/ip4/0.0.0.0/udp/0/quic-v1", true},
		{"internet", "/ip4/30.1.0.1/udp/1/quic-v1", "/ip4/0.0.0.0/udp/0/quic-v1", false},
		{"internet by TCP", "/ip4/30.1.0.1/tcp/1", "/ip4/0.0.0.0/udp/0/quic-v1", false},
		{"a name", "/dns4/example.org/udp/1/quic-v1", "/ip4/0.0.0.0/udp/0/quic-v1", false},
		{"a server without seeds", "", "/ip4/30.1.0.1/udp/4141/quic-v1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var list []string
			if tt.seed != "" {
				list = []string{tt.seed + node}
			}
			seeds, err := parseSeeds(list)
			if err != nil {
				t.Fatal(err)
			}
			if got := private(seeds, []string{tt.listen}); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
