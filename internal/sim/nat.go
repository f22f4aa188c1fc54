package sim

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Endpoint is an IPv4 address and a port, in a form without pointers, for events.
type Endpoint struct {
	Host uint32
	Port uint16
}

// AddrPort is e as machines know it.
func (e Endpoint) AddrPort() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, e.Host))), e.Port)
}

// EndpointOf is the opposite of AddrPort; there is none for what is not IPv4.
func EndpointOf(a netip.AddrPort) (Endpoint, bool) {
	if !a.Addr().Is4() && !a.Addr().Is4In6() {
		return Endpoint{}, false
	}
	b := a.Addr().As4()
	return Endpoint{binary.BigEndian.Uint32(b[:]), a.Port()}, true
}

// Dependence is on what of the other end something depends: RFC 4787, sections 4.1 and 5.
type Dependence uint8

const (
	EndpointIndependent Dependence = iota
	AddressDependent
	AddressAndPortDependent
)

// NAT is the kind of box between a node and the net, by the names of RFC 3489, which everybody uses.
type NAT uint8

// Append only: configurations hold these.
const (
	Open           NAT = iota // none, and no firewall
	FullCone                  // one mapping, anybody may use it
	RestrictedCone            // one mapping, for addresses that the node has sent to
	PortRestricted            // one mapping, for endpoints that the node has sent to
	Symmetric                 // a mapping for each endpoint that the node sends to, for that endpoint only
)

func natNames() []string {
	return []string{"open", "full-cone", "restricted-cone", "port-restricted", "symmetric"}
}

func (k NAT) String() string {
	if names := natNames(); int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("NAT(%d)", uint8(k))
}

// ParseNAT is the opposite of String.
func ParseNAT(name string) (NAT, error) {
	i := slices.Index(natNames(), name)
	if i < 0 {
		return 0, fmt.Errorf("NAT %q: want one of %s", name, strings.Join(natNames(), ", "))
	}
	return NAT(i), nil
}

// Behaviour is what k does in the terms of RFC 4787: what the external port that
// others see depends on, and what is let in through it. Open has no mapping.
func (k NAT) Behaviour() (mapping, filtering Dependence) {
	switch k {
	case RestrictedCone:
		return EndpointIndependent, AddressDependent
	case PortRestricted:
		return EndpointIndependent, AddressAndPortDependent
	case Symmetric:
		return AddressAndPortDependent, AddressAndPortDependent
	}
	return EndpointIndependent, EndpointIndependent
}

// Port is where every node listens.
const Port = 4001

// Box is what stands between one node and the net.
type Box struct {
	NAT  NAT
	Life time.Duration // of a mapping, from the last datagram out; zero: 2 minutes
}

// mappingLife: RFC 4787, REQ-5 allows no less; many boxes do not ask.
const mappingLife = 2 * time.Minute

// NATs are the boxes of all nodes and what they remember. Every node has an
// address of its own, spread over 32.0.0.0/3 by the seed, and a box of its own:
// there are no two nodes behind one address, and no boxes behind boxes. A mapping
// and a permission live for a time after the last datagram out; what comes in
// does not prolong them (RFC 4787, REQ-6 leaves that open). Only boxes that filter
// or map by the other end remember anything of it, and what has expired goes.
// Times must not go backwards.
type NATs struct {
	kind []NAT
	life []Time   // of a mapping
	port []uint16 // external port of the newest mapping
	till []Time   // when the one mapping of a cone ends

	add, mul uint32 // place of a node number among the addresses
	inverse  uint32 // of mul

	// A session is written to young and looked for in both; whenever the longest
	// life has passed, old is thrown away and young becomes old. Never ranged over.
	young, old map[flow]session
	turned     Time
	longest    Time
}

type flow struct {
	node uint32
	peer Endpoint // port 0: any
}

type session struct {
	till Time
	port uint16
}

// addressBits: there are 2^29 addresses in 32.0.0.0/3, all of them public.
const (
	addressBits = 29
	addressMask = 1<<addressBits - 1
	addressBase = 32 << 24
)

// NewNATs is a world of nodes numbered from 0, each behind the box that box says.
func NewNATs(nodes int, box func(node uint32) Box, seed uint64) *NATs {
	n := &NATs{
		kind: make([]NAT, nodes), life: make([]Time, nodes), port: make([]uint16, nodes), till: make([]Time, nodes),
		add: uint32(Mix(seed, 1)), mul: uint32(Mix(seed, 2)) | 1,
		young: map[flow]session{}, old: map[flow]session{},
	}
	n.inverse = n.mul // Newton's iteration for the inverse modulo a power of two doubles the right bits
	for range 5 {
		n.inverse *= 2 - n.mul*n.inverse
	}
	for i := range n.kind {
		b := box(uint32(i))
		if b.Life <= 0 {
			b.Life = mappingLife
		}
		n.kind[i], n.life[i] = b.NAT, Time(b.Life)
		n.longest = max(n.longest, n.life[i])
		n.port[i] = uint16(firstPort + Mix(^seed, uint64(i))%(1<<16-firstPort))
	}
	return n
}

// firstPort: those below are not given away.
const firstPort = 1024

// Host is a node's public address.
func (n *NATs) Host(node uint32) uint32 {
	x := (node + n.add) & addressMask
	x ^= x >> 15
	x = x * n.mul & addressMask
	x ^= x >> 15
	return addressBase | x
}

// Node is whose public address it is.
func (n *NATs) Node(host uint32) (node uint32, ok bool) {
	x := host & addressMask
	x ^= x >> 15 // its own inverse, since two such shifts leave nothing of 29 bits
	x = x * n.inverse & addressMask
	x ^= x >> 15
	x = (x - n.add) & addressMask
	return x, host&^addressMask == addressBase && uint64(x) < uint64(len(n.kind))
}

// Kind is what a node is behind.
func (n *NATs) Kind(node uint32) NAT { return n.kind[node] }

// Out sends a datagram through the sender's box, and is the source that the other
// end will see.
func (n *NATs) Out(now Time, node uint32, to Endpoint) Endpoint {
	src := Endpoint{Host: n.Host(node)}
	mapping, filtering := n.kind[node].Behaviour()
	switch {
	case n.kind[node] == Open:
		src.Port = Port
		return src
	case mapping == EndpointIndependent:
		if n.till[node] <= now {
			n.nextPort(node)
		}
		n.till[node], src.Port = now+n.life[node], n.port[node]
	default:
		if s, ok := n.find(now, flow{node, to}); ok {
			src.Port = s.port
		} else {
			src.Port = n.nextPort(node)
		}
	}
	switch filtering {
	case AddressDependent:
		n.remember(now, flow{node, Endpoint{Host: to.Host}}, src.Port)
	case AddressAndPortDependent:
		n.remember(now, flow{node, to}, src.Port)
	}
	return src
}

// In brings a datagram to the box of dst, and says which node is there and whether
// its box lets the datagram in. Without a node there is none to let in.
func (n *NATs) In(now Time, src, dst Endpoint) (node uint32, ok bool) {
	node, ok = n.Node(dst.Host)
	if !ok {
		return 0, false
	}
	if n.kind[node] == Open {
		return node, dst.Port == Port
	}
	mapping, filtering := n.kind[node].Behaviour()
	if mapping == EndpointIndependent && (n.till[node] <= now || n.port[node] != dst.Port) {
		return node, false
	}
	f := flow{node, src}
	switch filtering {
	case EndpointIndependent:
		return node, true
	case AddressDependent:
		f.peer.Port = 0
	}
	s, ok := n.find(now, f)
	return node, ok && s.port == dst.Port
}

// nextPort is the port of a new mapping: the next one, as in most boxes. One that
// comes round again after 64,511 others finds nothing left of the old mapping that would let anybody in.
func (n *NATs) nextPort(node uint32) uint16 {
	if n.port[node]++; n.port[node] == 0 {
		n.port[node] = firstPort
	}
	return n.port[node]
}

func (n *NATs) find(now Time, f flow) (session, bool) {
	s, ok := n.young[f]
	if !ok {
		s, ok = n.old[f]
	}
	return s, ok && s.till > now
}

func (n *NATs) remember(now Time, f flow, port uint16) {
	if now-n.turned >= n.longest { // whatever is in old ended by now
		n.old, n.young, n.turned = n.young, map[flow]session{}, now
	}
	n.young[f] = session{now + n.life[f.node], port}
}
