package discovery

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/crowdcompute/crowd/internal/overlay"
)

func TestEndpoints(t *testing.T) {
	for _, c := range []struct {
		name    string
		addrs   []string
		seen    []string
		private bool
		want    string
	}{
		{"nothing", nil, nil, true, "[]"},
		{"loopback alone", []string{"/ip4/127.0.0.1/udp/4001/quic-v1/p2p/X", "/ip4/127.0.0.1/tcp/4002/p2p/X"}, nil, true, "[{127.0.0.1 4001 4002}]"},
		{"loopback alone, on the public network", []string{"/ip4/127.0.0.1/udp/4001/quic-v1/p2p/X"}, nil, false, "[]"},
		{"a LAN", []string{"/ip4/127.0.0.1/udp/4001/quic-v1/p2p/X", "/ip4/192.168.1.2/udp/4001/quic-v1/p2p/X"}, nil, true, "[{192.168.1.2 4001 0}]"},
		{"behind a NAT, seen outside", []string{"/ip4/192.168.1.2/udp/4001/quic-v1/p2p/X"}, []string{"20.1.1.1:999"}, false, "[{20.1.1.1 999 0}]"},
		{"both families", []string{"/ip6/2600::1/udp/4001/quic-v1/p2p/X", "/ip4/20.1.1.1/udp/4001/quic-v1/p2p/X", "/ip6/fe80::1/udp/4001/quic-v1/p2p/X"}, []string{"20.1.1.1:999"}, false,
			"[{2600::1 4001 0} {20.1.1.1 4001 0}]"},
		{"other transports and relays", []string{"/ip4/20.1.1.1/udp/4001/webrtc-direct/p2p/X", "/ip4/20.1.1.1/tcp/1/ws/p2p/X", "/dns4/example.org/udp/1/quic-v1",
			"/ip4/20.2.2.2/udp/4001/quic-v1/p2p/R/p2p-circuit/p2p/X", "/ip4/20.1.1.1/udp/70000/quic-v1", "/", ""}, nil, false, "[]"},
		{"many", []string{"/ip4/20.1.1.1/udp/1/quic-v1", "/ip4/20.1.1.2/udp/1/quic-v1", "/ip4/20.1.1.3/udp/1/quic-v1", "/ip4/20.1.1.4/udp/1/quic-v1"}, nil, false,
			"[{20.1.1.1 1 0} {20.1.1.2 1 0} {20.1.1.3 1 0}]"},
	} {
		var seen []netip.AddrPort
		for _, s := range c.seen {
			seen = append(seen, netip.MustParseAddrPort(s))
		}
		if got := fmt.Sprint(endpoints(c.addrs, seen, c.private)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestAddrs(t *testing.T) {
	r := &overlay.Record{Endpoints: []overlay.Endpoint{
		{Addr: netip.MustParseAddr("20.1.1.1"), UDP: 4001, TCP: 4002}, {Addr: netip.MustParseAddr("2600::1"), UDP: 4001},
	}}
	want := "[/ip4/20.1.1.1/udp/4001/quic-v1 /ip4/20.1.1.1/tcp/4002 /ip6/2600::1/udp/4001/quic-v1]"
	if got := fmt.Sprint(Addrs(r)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for s, want := range map[string]string{
		"/ip4/127.0.0.1/udp/4001/quic-v1/p2p/X":                   "127.0.0.1:4001",
		"/ip6/2600::1/udp/4001/quic-v1":                           "[2600::1]:4001",
		"/ip4/127.0.0.1/tcp/4001/p2p/X":                           "",
		"/ip4/127.0.0.1/udp/4001/quic-v1/p2p/R/p2p-circuit/p2p/X": "",
		"/dns4/example.org/udp/4001/quic-v1":                      "",
		"nonsense":                                                "",
	} {
		got, ok := UDPOf(s)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: got %s, %v, want %q", s, got, ok, want)
		}
	}
}
