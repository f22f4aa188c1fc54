package discovery

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
)

// SelfOf is a Config.Self that reads where this node can be reached off its host. With private, which is that of
// overlay.Config, addresses of this machine and its LAN count too. relay names the node through which a host
// that is behind a NAT can be reached, zero: none; nil: there never is one. Until AutoNAT has found out, only addresses of
// the machine's own count: where peers see a host behind a NAT, strangers do not get through.
func SelfOf(h *p2p.Host, private bool, relay func() crowd.Key) func(observed []netip.AddrPort) Self {
	return func(observed []netip.AddrPort) Self {
		reach, _ := h.Reachability()
		if reach == p2p.Private {
			var s Self
			if relay != nil {
				s.Relay = relay()
			}
			if !private || s.Relay != (crowd.Key{}) { // with a relay, the network is not only a LAN's
				return s
			}
		}
		if reach != p2p.Public {
			return Self{Endpoints: endpoints(h.LocalAddrs(), nil, private)}
		}
		return Self{Endpoints: endpoints(h.Addrs(), append(h.ExternalUDP(), observed...), private)}
	}
}

// Addrs are the multiaddrs under which the node of r is dialled, best first, as p2p.Host.ConnectID wants them.
func Addrs(r *overlay.Record) []string {
	var out []string
	for _, e := range r.Endpoints {
		family := "/ip6/"
		if e.Addr.Is4() {
			family = "/ip4/"
		}
		out = append(out, fmt.Sprintf("%s%s/udp/%d/quic-v1", family, e.Addr, e.UDP))
		if e.TCP != 0 {
			out = append(out, fmt.Sprintf("%s%s/tcp/%d", family, e.Addr, e.TCP))
		}
	}
	return out
}

// UDPOf is the UDP address in a multiaddr of QUIC, with or without /p2p/ behind: what Seed and AddPeer take. ok is false
// for others, for names, and for what goes through a relay.
func UDPOf(multiaddr string) (addr netip.AddrPort, ok bool) {
	for _, e := range endpoints([]string{multiaddr}, nil, true) {
		return netip.AddrPortFrom(e.Addr, e.UDP), true
	}
	return netip.AddrPort{}, false
}

// endpoints are those of a host's multiaddrs and of where others see it, public addresses first, those of this machine
// only where there is nothing else.
func endpoints(addrs []string, seen []netip.AddrPort, private bool) []overlay.Endpoint {
	var out []overlay.Endpoint
	at := func(a netip.Addr) *overlay.Endpoint {
		for i := range out {
			if out[i].Addr == a {
				return &out[i]
			}
		}
		out = append(out, overlay.Endpoint{Addr: a})
		return &out[len(out)-1]
	}
	for _, s := range addrs {
		f := strings.Split(s, "/") // "", ip4, address, udp, port, ...
		if len(f) < 5 || f[1] != "ip4" && f[1] != "ip6" || slices.Contains(f, "p2p-circuit") {
			continue
		}
		a, err := netip.ParseAddr(f[2])
		port, bad := strconv.ParseUint(f[4], 10, 16)
		if err != nil || bad != nil {
			continue
		}
		switch {
		case f[3] == "tcp" && (len(f) == 5 || f[5] == "p2p"):
			at(a).TCP = uint16(port)
		case f[3] == "udp" && len(f) > 5 && f[5] == "quic-v1":
			at(a).UDP = uint16(port)
		}
	}
	for _, s := range seen {
		if e := at(s.Addr().Unmap()); e.UDP == 0 {
			e.UDP = s.Port()
		}
	}
	rank := func(e overlay.Endpoint) int {
		switch {
		case e.Addr.IsLoopback():
			return 2
		case e.Addr.IsPrivate():
			return 1
		}
		return 0
	}
	out = slices.DeleteFunc(out, func(e overlay.Endpoint) bool {
		return e.UDP == 0 || !e.Addr.IsGlobalUnicast() && !e.Addr.IsLoopback() || rank(e) > 0 && !private
	})
	slices.SortStableFunc(out, func(a, b overlay.Endpoint) int { return cmp.Compare(rank(a), rank(b)) })
	if i := slices.IndexFunc(out, func(e overlay.Endpoint) bool { return e.Addr.IsLoopback() }); i > 0 {
		out = out[:i]
	}
	return out[:min(len(out), overlay.MaxEndpoints)]
}
