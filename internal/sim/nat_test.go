package sim

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var kinds = []NAT{Open, FullCone, RestrictedCone, PortRestricted, Symmetric}

// boxes has node i behind kinds[i], and open nodes after them.
func boxes(life time.Duration) *NATs {
	return NewNATs(100, func(i uint32) Box {
		if int(i) < len(kinds) {
			return Box{kinds[i], life}
		}
		return Box{}
	}, 1)
}

func at(n *NATs, node uint32, port uint16) Endpoint { return Endpoint{n.Host(node), port} }

func TestNATs_RFC4787Mapping(t *testing.T) {
	n := boxes(0)
	const p, q = 10, 11
	for node, kind := range kinds {
		node := uint32(node)
		first := n.Out(0, node, at(n, p, Port))
		for name, tt := range map[string]struct {
			to   Endpoint
			same bool // external endpoint as for p
		}{
			"the same endpoint":          {at(n, p, Port), true},
			"another port of that host":  {at(n, p, 99), kind != Symmetric},
			"another host":               {at(n, q, Port), kind != Symmetric},
			"the first endpoint at last": {at(n, p, Port), true},
		} {
			got := n.Out(1, node, tt.to)
			if (got == first) != tt.same || got.Host != n.Host(node) {
				t.Errorf("%s, %s: got %v, at first %v", kind, name, got.AddrPort(), first.AddrPort())
			}
		}
		if (first.Port == Port) != (kind == Open) {
			t.Errorf("%s: got port %d", kind, first.Port)
		}
	}
}

func TestNATs_RFC4787Filtering(t *testing.T) {
	const p, q = 10, 11
	for node, kind := range kinds {
		node := uint32(node)
		n := boxes(0)
		if _, ok := n.In(0, at(n, p, Port), at(n, node, Port)); ok != (kind == Open) {
			t.Errorf("%s: before a word is sent: got let in %t", kind, ok)
		}
		ext := n.Out(0, node, at(n, p, Port))
		for _, tt := range []struct {
			name string
			src  Endpoint
			in   []NAT // who lets it in
		}{
			{"the same endpoint", at(n, p, Port), kinds},
			{"another port of that host", at(n, p, 99), []NAT{Open, FullCone, RestrictedCone}},
			{"another host", at(n, q, Port), []NAT{Open, FullCone}},
		} {
			want := false
			for _, k := range tt.in {
				want = want || k == kind
			}
			got, ok := n.In(1, tt.src, ext)
			if got != node || ok != want {
				t.Errorf("%s, %s: got node %d let in %t, want %t", kind, tt.name, got, ok, want)
			}
			if _, ok := n.In(1, tt.src, Endpoint{ext.Host, ext.Port + 1}); ok {
				t.Errorf("%s, %s: let in by a port without mapping", kind, tt.name)
			}
		}
	}
}

// A mapping and a permission live from the last datagram out, whatever comes in.
func TestNATs_RFC4787REQ5Expiry(t *testing.T) {
	const p, q = 10, 11
	life := Time(time.Minute)
	for node, kind := range kinds {
		if kind == Open {
			continue
		}
		node := uint32(node)
		n := boxes(time.Minute)
		in := func(now Time, peer uint32, dst Endpoint) bool {
			_, ok := n.In(now, at(n, peer, Port), dst)
			return ok
		}
		ext := n.Out(0, node, at(n, p, Port))
		if !in(life-1, p, ext) {
			t.Errorf("%s: gone too early", kind)
		}
		if in(life, p, ext) {
			t.Errorf("%s: lives too long, or on what comes in", kind)
		}
		if again := n.Out(life, node, at(n, p, Port)); again == ext || in(life, p, ext) || !in(life, p, again) {
			t.Errorf("%s: a new mapping is the old one", kind)
		}
		ext = n.Out(2*life-1, node, at(n, p, Port)) // prolongs
		if !in(3*life-2, p, ext) {
			t.Errorf("%s: not prolonged by what goes out", kind)
		}
		// The mapping of a cone goes on for another peer; the permission for the first does not.
		other := n.Out(3*life-2, node, at(n, q, Port))
		if got := in(3*life, p, ext); got != (kind == FullCone) {
			t.Errorf("%s: got permission %t for a peer of long ago", kind, got)
		}
		if !in(3*life, q, other) {
			t.Errorf("%s: the newer peer is not let in", kind)
		}
	}
}

func TestNATs_EachBoxHasItsLife(t *testing.T) {
	for _, kind := range kinds[1:] {
		n := NewNATs(50, func(i uint32) Box { return Box{kind, time.Duration(i) * time.Minute} }, 1) // node 0: 2 minutes
		for node, minutes := range map[uint32]Time{0: 2, 1: 1, 5: 5, 30: 30} {
			ext := n.Out(0, node, at(n, 10, Port))
			end := minutes * Time(time.Minute)
			if n.Kind(node) != kind {
				t.Errorf("node %d: got %s, want %s", node, n.Kind(node), kind)
			}
			if _, ok := n.In(end-1, at(n, 10, Port), ext); !ok {
				t.Errorf("%s of %d minutes: ended too early", kind, minutes)
			}
			if _, ok := n.In(end, at(n, 10, Port), ext); ok {
				t.Errorf("%s of %d minutes: lives too long", kind, minutes)
			}
		}
	}
}

func TestParseNAT(t *testing.T) {
	for _, k := range kinds {
		if got, err := ParseNAT(k.String()); got != k || err != nil {
			t.Errorf("%s: got %s, %v", k, got, err)
		}
	}
	if got, err := ParseNAT("cone"); err == nil {
		t.Errorf("got %s for cone", got)
	}
}

// What a node remembers outlives what the box of the world throws away as others send.
func TestNATs_OthersDoNotShortenALife(t *testing.T) {
	const life = Time(time.Minute)
	for begin := Time(0); begin < 2*life; begin += life / 7 {
		n := NewNATs(50, func(i uint32) Box { return Box{Symmetric, time.Minute} }, 1)
		var ext Endpoint
		for now := Time(0); now < begin+life; now += Time(time.Second) {
			if ext.Port == 0 && now >= begin {
				ext, begin = n.Out(now, 1, at(n, 10, Port)), now
			}
			n.Out(now, 2, Endpoint{1, uint16(now / Time(time.Second))})
			if ext.Port != 0 {
				if _, ok := n.In(now, at(n, 10, Port), ext); !ok {
					t.Fatalf("begun at %v: got forgotten after %v", time.Duration(begin), time.Duration(now-begin))
				}
			}
		}
	}
}

func TestNATs_MemoryIsThatOfTwoLives(t *testing.T) {
	n := NewNATs(1000, func(uint32) Box { return Box{Symmetric, time.Minute} }, 1)
	for i := range uint32(200_000) { // ten a second
		n.Out(Time(i)*Time(100*time.Millisecond), i%1000, Endpoint{i, 1})
	}
	if got := len(n.young) + len(n.old); got > 1202 {
		t.Errorf("got %d sessions, of which 600 live", got)
	}
}

// punch lets two nodes that know each other's endpoint through a third, open one
// try to speak: each sends to where it believes the other is, and to where the
// other's datagrams came from.
func punch(n *NATs, a, b uint32) bool {
	const rendezvous = 50
	now := Time(0)
	belief := map[uint32]Endpoint{}
	for _, x := range []uint32{a, b} {
		belief[a+b-x] = n.Out(now, x, at(n, rendezvous, Port))
	}
	heard := map[uint32]bool{}
	for range 4 {
		for _, x := range []uint32{a, b} {
			now++
			dst := belief[x]
			src := n.Out(now, x, dst)
			if y, ok := n.In(now, src, dst); ok {
				belief[y], heard[y] = src, true
			}
		}
	}
	return heard[a] && heard[b]
}

// Ford, Srisuresh and Kegel, "Peer-to-Peer Communication Across Network Address
// Translators", USENIX 2005: holes can be punched unless one end maps by the other
// and the other lets in only ports that it knows.
func TestNATs_FordSrisureshKegelHolePunching(t *testing.T) {
	for _, ka := range kinds {
		for _, kb := range kinds {
			n := NewNATs(60, func(i uint32) Box {
				switch i {
				case 1:
					return Box{NAT: ka}
				case 2:
					return Box{NAT: kb}
				}
				return Box{}
			}, 1)
			hard := func(k NAT) bool { return k == Symmetric || k == PortRestricted }
			want := !(hard(ka) && hard(kb) && (ka == Symmetric || kb == Symmetric))
			if got := punch(n, 1, 2); got != want {
				t.Errorf("%s and %s: got a hole %t, want %t", ka, kb, got, want)
			}
		}
	}
}

func TestNATs_AddressesAreNodes(t *testing.T) {
	for seed := range uint64(5) {
		const nodes = 200_000
		n := NewNATs(nodes, func(uint32) Box { return Box{} }, seed)
		subnets := map[uint32]int{}
		for i := range uint32(nodes) {
			host := n.Host(i)
			if got, ok := n.Node(host); !ok || got != i {
				t.Fatalf("seed %d: node %d has address %#x, which is node %d's", seed, i, host, got)
			}
			subnets[host>>8]++
		}
		for s, k := range subnets {
			if k > 8 { // 0.1 each; spread like draws
				t.Errorf("seed %d: got %d nodes in subnet %#x", seed, k, s)
			}
		}
		strangers := 0
		for i := range uint32(10_000) {
			if _, ok := n.Node(uint32(Mix(seed, uint64(i)))); !ok {
				strangers++
			}
		}
		if strangers < 9_900 {
			t.Errorf("seed %d: only %d of 10000 addresses are nobody's", seed, strangers)
		}
	}
}

func TestEndpoint_AddrPort(t *testing.T) {
	for text, want := range map[string]Endpoint{"32.0.1.2:4001": {32<<24 | 1<<8 | 2, 4001}, "255.255.255.255:0": {1<<32 - 1, 0}} {
		a := netip.MustParseAddrPort(text)
		got, ok := EndpointOf(a)
		if !ok || got != want || got.AddrPort() != a {
			t.Errorf("%s: got %+v, back %s", text, got, got.AddrPort())
		}
	}
	if e, ok := EndpointOf(netip.MustParseAddrPort("[2001:db8::1]:1")); ok {
		t.Errorf("got %+v for IPv6", e)
	}
	if _, ok := EndpointOf(netip.AddrPort{}); ok {
		t.Error("got an endpoint for none")
	}
}

func BenchmarkNATs_OutIn(b *testing.B) {
	for _, kind := range []NAT{FullCone, PortRestricted} {
		b.Run(fmt.Sprint(kind), func(b *testing.B) {
			const nodes = 100_000
			n := NewNATs(nodes, func(uint32) Box { return Box{NAT: kind} }, 1)
			b.ReportAllocs()
			i := uint32(0)
			for b.Loop() {
				i++
				now := Time(i) * 100_000 // ten thousand datagrams a second
				dst := Endpoint{n.Host(i * 7 % nodes), Port}
				n.In(now, n.Out(now, i%nodes, dst), dst)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "datagrams/s")
		})
	}
}
