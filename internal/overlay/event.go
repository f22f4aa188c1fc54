package overlay

import (
	"net/netip"
	"time"

	"github.com/crowdcompute/crowd"
)

// Event is what happens to a node. Its driver has checked every signature in it,
// that of the packet and those of the records, and every puzzle; what fails never becomes an event.
type Event interface{ event() }

// Received is a packet.
type Received struct {
	From crowd.NodeID
	Addr netip.AddrPort // where it came from, as claimed by the network
	Size int            // bytes of the packet: an unproven sender gets no more
	Msg  Message
}

// Stale is a packet that was expired, or from the future, by the node's clock.
type Stale struct {
	From crowd.NodeID
	Addr netip.AddrPort
	Size int           // bytes of the packet
	Req  uint64        // of its message
	Off  time.Duration // the sender's clock minus ours
}

// Woke says that Deadline has come.
type Woke struct{}

// Seed hands in somebody to begin with: from the database, the configuration, the user, the LAN.
type Seed struct {
	ID     crowd.NodeID
	Addr   netip.AddrPort
	Record *Record // nil: not known
}

// Lookup asks for the node of Target and the nodes nearest to it. It ends with Done.
type Lookup struct {
	ID     uint64 // the caller's name of it
	Target crowd.Key
	Paths  int  // disjoint ones; 0: Config.Paths
	Ads    bool // collect the ads under Target
	Want   int  // records wanted: a lookup of ads ends when it has them; 0: all
}

// Renewed replaces the node's own record: an endpoint, a tag, a puzzle has changed.
type Renewed struct{ Record *Record }

// Announce keeps an ad of the node's record under Topic, at the nodes nearest to it, until Withdraw.
type Announce struct{ Topic crowd.Key }

// Withdraw lets the ads under Topic age out.
type Withdraw struct{ Topic crowd.Key }

func (Received) event() {}
func (Stale) event()    {}
func (Woke) event()     {}
func (Seed) event()     {}
func (Lookup) event()   {}
func (Renewed) event()  {}
func (Announce) event() {}
func (Withdraw) event() {}

// Effect is what the driver is to do, in the order given.
type Effect interface{ effect() }

// Send asks for a packet to be sealed for To and sent once; it may be lost.
type Send struct {
	To   crowd.NodeID
	Addr netip.AddrPort
	Msg  Message
	Pad  bool // to MaxPacket: the receiver may not have proof of our endpoint
}

// Found tells of a lookup's target, or of an ad, as soon as its record is known. The
// record is its node's own word; that it is still true, dialling it or Done says.
type Found struct {
	ID     uint64
	Record *Record
	Ad     bool
}

// Done ends a lookup.
type Done struct {
	ID      uint64
	Target  *Record   // of the node with exactly the target's key, the latest seen: it answered if Alive; nil: not found
	Alive   bool      // it answered this lookup at the endpoint of its record
	Keepers int       // nodes that keep an ad of Target under its own key: one behind a relay has no endpoint to answer at
	Nearest []*Record // that answered, nearest first, at most the number of siblings
	Ads     []*Record // under the target, latest first by path
	Hops    int       // requests one after another on the path that found the target, or the longest
	Asked   int       // requests sent
}

// Keep asks the driver to remember a peer across restarts; Forget to stop.
type Keep struct{ Record *Record }

// Forget is for a peer that no longer answers.
type Forget struct{ ID crowd.NodeID }

// Observed tells under which address a peer sees this node.
type Observed struct {
	By   crowd.NodeID
	Addr netip.AddrPort
}

// ClockOff tells that the node's clock differs from most peers' by so much (theirs minus ours).
type ClockOff struct{ By time.Duration }

// Blame is for a peer that did what no honest node does.
type Blame struct {
	ID  crowd.NodeID
	Why string
}

func (Send) effect()     {}
func (Found) effect()    {}
func (Done) effect()     {}
func (Keep) effect()     {}
func (Forget) effect()   {}
func (Observed) effect() {}
func (ClockOff) effect() {}
func (Blame) effect()    {}
