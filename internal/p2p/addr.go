package p2p

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/crowdcompute/crowd"
)

// Place is what a multiaddr says. What it does not say is zero.
type Place struct {
	Node  crowd.NodeID   // behind /p2p/
	Relay crowd.NodeID   // the node through which Node is reached; UDP and TCP are then the relay's
	UDP   netip.AddrPort // of QUIC; a name instead of an address gives none
	TCP   netip.AddrPort
}

const viaRelay = "/p2p-circuit"

// ParseAddr takes a multiaddr apart. It looks no names up.
func ParseAddr(s string) (Place, error) {
	p, err := parseAddr(s)
	if err != nil {
		return Place{}, fmt.Errorf("address %.200q: %w", s, err)
	}
	return p, nil
}

func parseAddr(s string) (p Place, err error) {
	if before, after, relayed := strings.Cut(s, viaRelay); relayed {
		if p, err = parseAddr(before); err != nil {
			return p, err
		}
		if p.Node.IsZero() || !p.Relay.IsZero() || strings.Contains(after, viaRelay) {
			return p, errors.New("want one relay, named with /p2p/")
		}
		p.Relay, p.Node = p.Node, crowd.NodeID{}
		if after == "" {
			return p, nil
		}
		at, err := parseAddr(after)
		if err == nil && (at.UDP.IsValid() || at.TCP.IsValid()) {
			err = errors.New("two addresses")
		}
		p.Node = at.Node
		return p, err
	}
	a, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		return p, err
	}
	a, id := peer.SplitAddr(a)
	if id != "" {
		if p.Node, err = NodeIDOf(id); err != nil {
			return p, err
		}
	}
	if a == nil {
		return p, nil
	}
	if u, _, err := quicreuse.FromQuicMultiaddr(a); err == nil {
		p.UDP = unmap(u.AddrPort())
	} else if t, err := manet.ToNetAddr(a); err == nil && t.Network() == "tcp" {
		if at, err := netip.ParseAddrPort(t.String()); err == nil {
			p.TCP = unmap(at)
		}
	}
	return p, nil
}

// WithNode is a multiaddr that ends with the node behind it.
func WithNode(addr string, id crowd.NodeID) (string, error) {
	p, err := PeerIDOf(id)
	if err != nil {
		return "", err
	}
	return addr + "/p2p/" + p.String(), nil
}

// Through is the way to whoever has a reservation with the relay behind addr, which ends in /p2p/.
func Through(addr string) string { return addr + viaRelay }
