package p2p

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

func TestParseAddr(t *testing.T) {
	k, err := identity.FromBytes([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	id := k.ID()
	named, err := WithNode("/ip4/192.0.2.1/udp/4001/quic-v1", id)
	if err != nil {
		t.Fatal(err)
	}
	peer := named[strings.Index(named, "/p2p/"):]
	at := netip.MustParseAddrPort("192.0.2.1:4001")
	for _, tt := range []struct {
		name, in string
		want     Place
		ok       bool
	}{
		{"quic", "/ip4/192.0.2.1/udp/4001/quic-v1", Place{UDP: at}, true},
		{"quic of a node", named, Place{Node: id, UDP: at}, true},
		{"tcp of a node", "/ip4/192.0.2.1/tcp/4001" + peer, Place{Node: id, TCP: at}, true},
		{"ip6", "/ip6/2001:db8::1/udp/4001/quic-v1", Place{UDP: netip.MustParseAddrPort("[2001:db8::1]:4001")}, true},
		{"name", "/dns4/example.org/udp/4001/quic-v1" + peer, Place{Node: id}, true},
		{"node alone", peer, Place{Node: id}, true},
		{"relay", Through(named), Place{Relay: id, UDP: at}, true},
		{"node behind a relay", named + "/p2p-circuit" + peer, Place{Node: id, Relay: id, UDP: at}, true},
		{"relay without a name", Through("/ip4/192.0.2.1/udp/4001/quic-v1"), Place{}, false},
		{"two relays", Through(Through(named) + peer), Place{}, false},
		{"udp without quic", "/ip4/192.0.2.1/udp/4001", Place{}, true},
		{"nothing", "", Place{}, false},
		{"host and port", "192.0.2.1:4001", Place{}, false},
		{"another kind of key", "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5", Place{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseAddr(tt.in)
			if (err == nil) != tt.ok || err == nil && got != tt.want {
				t.Errorf("got %+v, %v; want %+v, ok %v", got, err, tt.want, tt.ok)
			}
		})
	}
	if _, err := WithNode("/ip4/192.0.2.1/tcp/1", crowd.NodeID{}); err == nil {
		t.Error("nobody has an address")
	}
}

func FuzzParseAddr(f *testing.F) {
	f.Add("/ip4/192.0.2.1/udp/4001/quic-v1/p2p-circuit/p2p/x")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseAddr(s)
		if err != nil && p != (Place{}) {
			t.Errorf("got %+v with %v", p, err)
		}
	})
}
