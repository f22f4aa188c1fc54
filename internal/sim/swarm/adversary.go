package swarm

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// adversary plays all nodes of its side at once: what one of them hears all know. It sees the whole
// directory, is never away, and answers without delay. It cannot read what is
// sealed for others, forge a signature, or take a packet off the network.
type adversary interface {
	settled()                                            // the world has begun
	receive(me uint32, src, dst sim.Endpoint, l *letter) // one of its nodes has a packet
	act(node uint32, what uint32)                        // a timer of its own
	hit(victim uint32, l *letter)                        // an honest node has been sent what was not for it
}

// Behaviours are the names of adversaries for whole worlds.
func Behaviours() []string { return []string{"collude", "drop", "forge", "liar"} }

func newAdversary(name string, w *World) adversary {
	switch name {
	case "drop":
		return &dropper{base: base{w: w}}
	case "forge":
		return &forgers{colluders: colluders{base: base{w: w}}}
	case "liar":
		return &liars{colluders: colluders{base: base{w: w}}}
	}
	return &colluders{base: base{w: w}}
}

// base is what all adversaries share: it answers nothing.
type base struct {
	w *World
}

func (b *base) settled()                                            {}
func (b *base) receive(uint32, sim.Endpoint, sim.Endpoint, *letter) {}
func (b *base) act(uint32, uint32)                                  {}
func (b *base) hit(uint32, *letter)                                 {}

// say sends from one of the adversary's nodes.
func (b *base) say(me uint32, src, dst sim.Endpoint, to crowd.NodeID, m overlay.Message, pad bool) {
	w := b.w
	size := w.wire.size(m, pad)
	w.Foe.add(size + headers)
	w.post(src, dst, letter{msg: m, to: to, id: w.recs[me].ID, from: me, size: size})
}

// owe answers what an honest node asked in its Pong.
func (b *base) owe(me uint32, src, dst sim.Endpoint, l *letter, m overlay.Pong) {
	if m.Ask != 0 {
		b.say(me, dst, src, l.id, overlay.Pong{Req: m.Ask, Seq: b.w.recs[me].Seq}, false)
	}
}

// pong answers a ping as an honest node would: so it stays in tables.
func (b *base) pong(me uint32, src, dst sim.Endpoint, l *letter, m overlay.Ping) {
	b.say(me, dst, src, l.id, overlay.Pong{Req: m.Req, Seq: b.w.recs[me].Seq, Observed: src.AddrPort()}, false)
}

// nodes answers a request with those records, in as many packets as they take.
func (b *base) nodes(me uint32, src, dst sim.Endpoint, l *letter, req uint64, records []*overlay.Record) {
	each := (overlay.MaxPacket - b.w.wire.nodes) / b.w.wire.record
	parts := max(1, (len(records)+each-1)/each)
	for p := range parts {
		part := records[min(p*each, len(records)):min((p+1)*each, len(records))]
		b.say(me, dst, src, l.id, overlay.Nodes{Req: req, Part: uint8(p), Parts: uint8(parts), Records: part}, false)
	}
}
