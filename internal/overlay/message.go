package overlay

import (
	"net/netip"
	"time"

	"github.com/crowdcompute/crowd"
)

// Message is what a packet says. Every request carries a random number that
// its answer repeats: whoever answers has received it at that address.
type Message interface{ message() }

// Ping asks whether a node lives, where it said it is.
type Ping struct {
	Req    uint64
	Seq    uint64  // of the sender's record
	Record *Record // the sender's, for somebody who may not have it; nil: Seq says enough
}

// Pong answers a Ping and is the proof of the endpoint that it came from.
type Pong struct {
	Req      uint64
	Seq      uint64         // of the sender's record: whoever has an older one asks with FindNode for the sender's own key
	Observed netip.AddrPort // where the Ping came from; zero: not said, since the Ping was too short for it
	Ask      uint64         // a Ping of the answerer's own, in the same datagram: another Pong with this Req answers it; 0: none
}

// FindNode asks for the records nearest to Target, the target's own first. Who has
// not proven its endpoint is answered with at most as many bytes as it sent, so
// nobody's traffic is amplified: such a request is padded to the size of a packet.
type FindNode struct {
	Req    uint64
	Target crowd.Key
	Want   uint8   // records wanted at most
	Ads    bool    // also the ads kept under Target, in place of as many others
	Record *Record // the sender's, as in Ping
}

// Nodes answers FindNode in Parts packets. Nothing in it is believed but
// what each record's own node has signed.
type Nodes struct {
	Req     uint64
	Part    uint8 // from 0
	Parts   uint8
	Ads     uint8 // so many of this part's records are ads under the target: they come first
	Records []*Record
}

// Register asks to keep an ad of the sender under Topic.
type Register struct {
	Req    uint64
	Topic  crowd.Key
	Ticket []byte  // of an earlier answer; nil: none yet
	Record *Record // the ad
}

// Ticket answers Register: the ad is kept, or Wait must pass first (DISC-NG,
// Król et al.: waiting in place of work).
type Ticket struct {
	Req    uint64
	Kept   bool
	Wait   time.Duration // if Kept, what is left of the ad's life; milliseconds on the wire
	Ticket []byte
}

// Clock tells a sender whose packets are expired, or from the future, what time it is here.
type Clock struct {
	Req uint64 // of the packet that was refused
	Now Time   // the sender's clock; on the wire milliseconds
}

func (Ping) message()     {}
func (Pong) message()     {}
func (FindNode) message() {}
func (Nodes) message()    {}
func (Register) message() {}
func (Ticket) message()   {}
func (Clock) message()    {}
