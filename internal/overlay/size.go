package overlay

import "net/netip"

// What a packet takes on the wire at most, in bytes, reckoned without encoding it: nobody who has not proven its endpoint
// is sent more than it has sent. A payload is an array of one byte of head; numbers of 64 bits take 9 at most, those of 8 bits 2.
const (
	pingBytes   = headSize + 1 + 3*9 + 2           // without a record, which takes a null's place
	pongBytes   = headSize + 1 + 3*9 + 2           // without the address, likewise, and asking nothing: as long as the shortest Ping
	askBytes    = 9 - 1                            // what asking adds to a Pong
	nodesBytes  = headSize + 1 + 2*9 + 3*2 + 2 + 1 // without records, of which there are at most 255
	clockBytes  = headSize + 1 + 3*9 + 1
	ticketBytes = headSize + 1 + 2*9 + 1 + 5 + 2 + ticketLen + 1
)

// headers of a datagram in bytes: two that tell it from QUIC's, UDP, IPv6. Those of IPv4 are shorter, which errs on the right side:
// an answer of two datagrams is charged for two.
const headers = 2 + 8 + 40

// sizeAddr is what addr takes in a Pong in place of the null, in bytes.
func sizeAddr(addr netip.AddrPort) int {
	if !addr.IsValid() {
		return 0
	}
	return addr.Addr().BitLen()/8 + 2
}
