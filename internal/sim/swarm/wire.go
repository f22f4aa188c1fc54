package swarm

import (
	"math"

	"github.com/crowdcompute/crowd/internal/overlay"
)

// headers of a datagram: two bytes that tell it from QUIC's, UDP, IPv4 without options.
const headers = 2 + 8 + 20

// wire is the sizes of packets. To encode each for its length would take most of the world's time, so one of each kind is
// encoded at the start. Numbers are as long as they get, but for those below 24.
type wire struct {
	ping, pong, find, nodes, register, ticket, clock int
	record                                           int // of one endpoint of IPv4 and no tags
}

// measure takes the sizes of messages with records like r.
func measure(r *overlay.Record) wire {
	const req = math.MaxUint64
	w := wire{
		ping:     overlay.PacketSize(overlay.Ping{Req: req, Seq: r.Seq}),
		find:     overlay.PacketSize(overlay.FindNode{Req: req, Want: 16}),
		nodes:    overlay.PacketSize(overlay.Nodes{Req: req, Parts: 1}),
		register: overlay.PacketSize(overlay.Register{Req: req, Record: r}),
		ticket:   overlay.PacketSize(overlay.Ticket{Req: req, Wait: math.MaxInt32 * 1e6}),
		clock:    overlay.PacketSize(overlay.Clock{Req: req, Now: math.MaxInt64 / 4}),
	}
	w.record = overlay.PacketSize(overlay.Ping{Req: req, Seq: r.Seq, Record: r}) - w.ping + 1 // it stands in place of a null
	w.pong = w.ping
	return w
}

// own is what a record takes in place of the null of a message without one.
func (w *wire) own(r *overlay.Record) int {
	if r == nil {
		return 0
	}
	return w.recordSize(r) - 1
}

func (w *wire) recordSize(r *overlay.Record) int {
	n := w.record
	for _, t := range r.Tags {
		n += 2 + len(t)
	}
	return n
}

// size is the length of a packet in bytes, without headers.
func (w *wire) size(m overlay.Message, pad bool) int {
	if pad {
		return overlay.MaxPacket
	}
	switch m := m.(type) {
	case overlay.Ping:
		return w.ping + w.own(m.Record)
	case overlay.Pong:
		n := w.pong
		if m.Observed.IsValid() {
			n += 6 // an address in place of a null
		}
		if m.Ask != 0 {
			n += 8 // a number in place of one below 24
		}
		return n
	case overlay.FindNode:
		return w.find + w.own(m.Record)
	case overlay.Nodes:
		n := w.nodes
		for _, r := range m.Records {
			n += w.recordSize(r)
		}
		return n
	case overlay.Register:
		return w.register + len(m.Ticket) + 1 // the head of a longer string
	case overlay.Ticket:
		return w.ticket + len(m.Ticket)
	case overlay.Clock:
		return w.clock
	}
	return overlay.MaxPacket
}

// Kinds of packets, for World.By.
const (
	Pings = iota
	PingsPadded
	Pongs
	Finds
	FindsPadded
	Answers
	AdsTraffic
	Clocks
	kinds
)

// KindNames are for people.
func KindNames() [kinds]string {
	return [kinds]string{"ping", "ping padded", "pong", "find", "find padded", "nodes", "ads", "clock"}
}

func kindOf(m overlay.Message, pad bool) int {
	k := Clocks
	switch m.(type) {
	case overlay.Ping:
		k = Pings
	case overlay.Pong:
		return Pongs
	case overlay.FindNode:
		k = Finds
	case overlay.Nodes:
		return Answers
	case overlay.Register, overlay.Ticket:
		return AdsTraffic
	}
	if pad && k != Clocks {
		k++
	}
	return k
}
