package overlay

import (
	"net/netip"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// Bounds of a record.
const (
	MaxRecord    = 300 // bytes, encoded with its signature
	MaxEndpoints = 3
	MaxTags      = 8
	MaxTag       = 32 // bytes of one tag
)

// Record is what a node says of itself, under its signature. It is never changed once made.
type Record struct {
	ID        crowd.NodeID // who signed it; on the wire recovered from the signature
	Seq       uint64       // a later record replaces an earlier one; Unix milliseconds of its making
	Endpoints []Endpoint   // where it answers the overlay, best first; none: only through Relays
	Relay     crowd.Key    // of a node that relays to it; zero: none. With a relay it is no entry of anybody's table
	Tags      []string     // what it offers, sorted, each of [a-z0-9._:=-]
	VRF       identity.VRFPublic
	Epoch     uint32 // whose beacon the dynamic puzzle is bound to
	Nonce     uint64 // solution of the dynamic puzzle, S/Kademlia section 4.1
	Sig       identity.Signature
}

// Endpoint is an address with its ports. QUIC and the overlay share the UDP port.
type Endpoint struct {
	Addr netip.Addr
	UDP  uint16
	TCP  uint16 // 0: none
}
