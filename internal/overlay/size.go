package overlay

import (
	"net/netip"

	"github.com/crowdcompute/crowd"
)

// What a packet takes on the wire at most, in bytes, reckoned without encoding it: nobody
// who has not proven its endpoint is sent more than it has sent.
const (
	packetMost = 1280 - 2 // as MaxPacket
	headBytes  = 32 + 65 + 1
	pingBytes  = headBytes + 30
	nodesBytes = headBytes + 30
	clockBytes = headBytes + 30
	grantBytes = headBytes + 30 + ticketLen
)

// pongBytes bounds the Pong to a ping from addr.
func pongBytes(addr netip.AddrPort) int { return headBytes + 34 + addr.Addr().BitLen()/8 }

// recordBytes is the encoding of r with its signature.
func recordBytes(r *Record) int {
	if r == nil {
		return 0
	}
	n := 1 + 1 + uintBytes(r.Seq) + 1 + 1 + 1 + 34 + uintBytes(uint64(r.Epoch)) + uintBytes(r.Nonce) + 67
	for _, e := range r.Endpoints {
		n += 1 + 1 + e.Addr.BitLen()/8 + 3 + 3
	}
	for _, t := range r.Tags {
		n += 2 + len(t)
	}
	if r.Relay != (crowd.Key{}) {
		n += 33
	}
	return n
}

// uintBytes is a number in CBOR, RFC 8949 section 3.
func uintBytes(v uint64) int {
	switch {
	case v < 24:
		return 1
	case v < 1<<8:
		return 2
	case v < 1<<16:
		return 3
	case v < 1<<32:
		return 5
	}
	return 9
}
