package overlay

import (
	"net/netip"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// received sorts a packet.
func (n *Node) received(ev Received) {
	if ev.From == n.book.rec(n.self).ID {
		return // a mirror
	}
	ev.Addr = netip.AddrPortFrom(ev.Addr.Addr().Unmap(), ev.Addr.Port())
	switch m := ev.Msg.(type) {
	case Ping:
		n.pinged(ev, m)
	case FindNode:
		n.asked(ev, m)
	case Register:
		n.registering(ev, m)
	case Pong:
		if i := n.match(ev, m.Req); i >= 0 && n.busy.pending[i].why <= whyTarget {
			n.ponged(i, m)
		}
	case Nodes:
		if i := n.match(ev, m.Req); i >= 0 && (n.busy.pending[i].why == whyPath || n.busy.pending[i].why == whyRecord) {
			n.told(i, m)
		}
	case Ticket:
		if i := n.match(ev, m.Req); i >= 0 && n.busy.pending[i].why == whyRegister {
			n.granted(i, m)
		}
	case Clock:
		if i := n.match(ev, m.Req); i >= 0 {
			n.clocked(i, m)
		}
	}
}

// match finds the request that a message answers: the number, the node and the address must be those asked. -1: none.
func (n *Node) match(ev Received, req uint64) int {
	if n.busy == nil {
		return -1
	}
	for i := range n.busy.pending {
		if p := &n.busy.pending[i]; p.req == req && p.addr == ev.Addr && p.id == ev.From {
			return i
		}
	}
	return -1
}

// take removes the i-th request, which is answered. The caller frees its ref.
func (n *Node) take(i int) pending {
	b := n.busy
	q := b.pending[i]
	last := len(b.pending) - 1
	b.pending[i] = b.pending[last]
	b.pending[last] = pending{}
	b.pending = b.pending[:last]
	if q.why == whyFill && !q.late {
		b.flying--
	}
	return q
}

// visitor is what we know of the sender of a request.
type visitor struct {
	ref    Ref // of the record it gave, or of its entry; held; 0: none
	entry  *entry
	proven bool
	room   int // bytes that may still be sent to it, headers included
}

// visit notes who has come, with its record if it sent one; ok is false if nothing is owed.
func (n *Node) visit(ev Received, rec *Record) (v visitor, ok bool) {
	if rec != nil && (rec.ID != ev.From || n.ahead(rec)) {
		why := "a record of somebody else as its own"
		if rec.ID == ev.From {
			why = "a record from the future"
		}
		n.emit(Blame{ID: ev.From, Why: why})
		return v, false
	}
	key := n.book.keyOf(ev.From)
	v.entry = n.entry(&key)
	if v.entry != nil && n.addrOf(v.entry.ref) != ev.Addr {
		v.entry = nil // its name, but not where it is: anybody's packet from there proves nothing
	}
	if e := v.entry; e != nil {
		now := seconds(n.now)
		v.proven = e.proven(now) < uint32(n.cfg.ProofFor/time.Second) && now-e.heard < uint32(n.cfg.ProofFor/time.Second)
		e.hear(now)
		v.ref = n.book.again(e.ref)
	}
	v.proven = v.proven || n.isProven(&ev.From, ev.Addr)
	v.room = ev.Size + headers
	if v.proven {
		v.room = partsMost * (MaxPacket + headers)
	}
	if rec == nil {
		return v, true
	}
	r := n.book.hold(rec)
	if e := n.entry(&key); e != nil && n.book.seq(r) > n.book.seq(e.ref) {
		n.update(e, r)
		if v.entry != nil {
			v.entry = n.entry(&key)
		}
	}
	n.book.free(v.ref)
	v.ref = r
	return v, true
}

// leave ends a visit: whoever is doubted is pinged.
func (n *Node) leave(ev Received, v visitor) {
	defer n.book.free(v.ref)
	p, ok := n.doubt(ev, v)
	if !ok || v.room < pingBytes+headers {
		return
	}
	msg := Ping{Req: p.req, Seq: n.book.seq(n.self)}
	self := n.book.rec(n.self)
	if size := pingBytes + self.Size() + headers; p.ref != 0 && v.room >= size {
		msg.Record, p.with = self, true
	}
	n.request(p, msg, n.patience(nil))
}

// doubt is what to ask a visitor who has not proven its endpoint, or would be a new peer.
func (n *Node) doubt(ev Received, v visitor) (p pending, ok bool) {
	if v.entry != nil && v.proven {
		return p, false
	}
	here := v.ref != 0 && n.addrOf(v.ref) == ev.Addr && n.fit(v.ref)
	if v.proven && (!here || n.room(v.ref, true) <= waiting) || n.pinging(&ev.From, ev.Addr) {
		return p, false
	}
	if b := n.busy; b != nil && len(b.pending) >= strangers {
		under := 0
		for i := range b.pending {
			if b.pending[i].in {
				under++
			}
		}
		if under >= strangers {
			return p, false
		}
	}
	p = pending{req: n.rng.Uint64(), id: ev.From, addr: ev.Addr, why: whyAlive, in: true}
	if here {
		p.ref = v.ref
	}
	return p, true
}

// pinged answers a ping. Who has not proven its endpoint is asked for that in the answer: two datagrams would be more than its one.
func (n *Node) pinged(ev Received, m Ping) {
	v, ok := n.visit(ev, m.Record)
	if !ok {
		return
	}
	if v.room >= pongBytes+headers {
		v.room -= pongBytes + headers
		pong := Pong{Req: m.Req, Seq: n.book.seq(n.self)}
		if p, ok := n.doubt(ev, v); ok && !v.proven && v.room >= askBytes && p.req != 0 && n.expect(p, n.patience(nil)) {
			v.room -= askBytes
			pong.Ask = p.req
		}
		if size := sizeAddr(ev.Addr); v.room >= size {
			v.room -= size
			pong.Observed = ev.Addr
		}
		n.emit(Send{To: ev.From, Addr: ev.Addr, Msg: pong})
		if v.entry != nil {
			v.entry.state |= trusts // it has proof as soon as the Pong arrives
		}
	}
	if v.entry != nil && m.Record == nil && m.Seq > n.book.seq(v.entry.ref) && v.proven {
		n.refetch(v.entry)
	}
	if !v.proven {
		v.room = 0 // what there was to ask is asked
	}
	n.leave(ev, v)
}

// refetch asks a peer for the record that it says it has now.
func (n *Node) refetch(e *entry) {
	if n.busy != nil {
		for i := range n.busy.pending {
			if p := &n.busy.pending[i]; p.why == whyRecord && p.ref == e.ref {
				return
			}
		}
	}
	n.fetch(pending{id: n.book.rec(e.ref).ID, addr: n.addrOf(e.ref), ref: e.ref}, n.book.pages[e.ref].key)
}

// asked answers a request for the nearest.
func (n *Node) asked(ev Received, m FindNode) {
	v, ok := n.visit(ev, m.Record)
	if !ok {
		return
	}
	kept := 0 // for the ping of leave
	if !v.proven && v.room >= nodesBytes+pingBytes+2*headers {
		kept = pingBytes + headers
	}
	v.room -= kept
	want := min(int(m.Want), n.cfg.Answer)
	records, ads := n.answer(&m, ev.From, want)
	if !v.proven && ev.Size < MaxPacket-1 {
		records, ads = records[:0], 0 // to nobody in particular: it shall ask again, padded
	}
	if v.room >= nodesBytes+headers {
		n.tell(ev, m.Req, records, ads, &v.room)
	}
	v.room += kept
	n.leave(ev, v)
}

// answer is what a FindNode gets: ads, then our own record if it is asked for, then the nearest that answer.
func (n *Node) answer(m *FindNode, from crowd.NodeID, want int) (out []*Record, ads int) {
	if want == 0 {
		return nil, 0
	}
	out = make([]*Record, 0, want)
	if m.Ads {
		out = n.adsUnder(m.Target, out, want)
		ads = len(out)
	}
	if m.Target == n.key && len(out) < want {
		out = append(out, n.book.rec(n.self))
	}
	near := n.nearest(n.book.near[:0], &m.Target, want-len(out), func(e *entry) bool {
		return e.state&fails == 0 && n.book.rec(e.ref).ID != from
	})
	n.book.near = near
	for _, r := range near {
		out = append(out, n.book.rec(r.ref))
	}
	return out, ads
}

// tell sends records in as many packets as they need and room, in bytes, allows.
func (n *Node) tell(ev Received, req uint64, records []*Record, ads int, room *int) {
	var cuts [partsMost]int
	parts, used := 0, nodesBytes
	for i, r := range records {
		size := r.Size()
		if used+size > MaxPacket {
			if parts+1 == len(cuts) || *room < used+nodesBytes+size+2*headers {
				records = records[:i]
				break
			}
			*room -= used + headers
			cuts[parts] = i
			parts++
			used = nodesBytes
		}
		if used+size+headers > *room {
			records = records[:i]
			break
		}
		used += size
	}
	*room -= used + headers
	cuts[parts] = len(records)
	begin := 0
	for i := 0; i <= parts; i++ {
		part := records[begin:cuts[i]]
		n.emit(Send{To: ev.From, Addr: ev.Addr, Msg: Nodes{Req: req, Part: uint8(i), Parts: uint8(parts + 1),
			Ads: uint8(min(max(ads-begin, 0), len(part))), Records: part}})
		begin = cuts[i]
	}
}

// ponged takes the answer to the i-th request, a ping.
func (n *Node) ponged(i int, m Pong) {
	q := n.take(i)
	defer n.book.free(q.ref)
	n.heard = n.now
	n.confirm(q.ref, &q)
	n.observed(q.id, m.Observed)
	if m.Ask != 0 {
		n.emit(Send{To: q.id, Addr: q.addr, Msg: Pong{Req: m.Ask, Seq: n.book.seq(n.self)}})
		key := n.book.keyOf(q.id)
		if e := n.entry(&key); e != nil && n.addrOf(e.ref) == q.addr {
			e.state |= trusts
		}
	}
	if q.ref != 0 {
		key := n.book.pages[q.ref].key
		if e := n.entry(&key); e != nil && m.Seq > n.book.seq(e.ref) && n.addrOf(e.ref) == q.addr {
			n.refetch(e)
		}
		n.rejoined(&q.id, q.ref)
	} else if i := slices.IndexFunc(n.seeds, func(s seed) bool { return s.id == q.id && s.lost }); i >= 0 {
		n.fetch(pending{id: q.id, addr: q.addr, ref: n.seeds[i].ref}, n.book.keyOf(q.id))
	}
	if l := q.lookup; q.why == whyTarget && l != nil && !l.over() {
		if n.book.pages[q.ref].key == l.Target && n.addrOf(l.target) == q.addr {
			if l.renewed && l.hold {
				return // the answer to an earlier ping: its record is on its way
			}
			l.alive, l.hold, l.knocking = true, false, false
			l.hop++
			if m.Seq > n.book.seq(l.target) && !l.renewed {
				l.renewed, l.hold, l.knocking = true, true, true // what we have is true no longer: it shall tell us itself
				l.asked++
				n.fetch(pending{id: q.id, addr: q.addr, ref: q.ref, lookup: l}, l.Target)
				return
			}
			n.finishOrGather(l)
		}
	}
}

// finishOrGather ends a lookup whose target has answered, unless ads are wanted too.
func (n *Node) finishOrGather(l *lookup) {
	if l.Ads {
		n.advance(l)
		return
	}
	n.finish(l)
}

// observed tells the driver when a peer sees us elsewhere than our record says.
func (n *Node) observed(by crowd.NodeID, addr netip.AddrPort) {
	if !addr.IsValid() {
		return
	}
	for _, e := range n.book.rec(n.self).Endpoints {
		if addr == netip.AddrPortFrom(e.Addr, e.UDP) {
			return
		}
	}
	n.emit(Observed{By: by, Addr: addr})
}

// told takes a part of the answer to the i-th request.
func (n *Node) told(i int, m Nodes) {
	p := &n.busy.pending[i]
	bit := uint16(1) << (m.Part & 15)
	switch {
	case m.Parts == 0 || m.Parts > partsMost || m.Part >= m.Parts || int(m.Ads) > len(m.Records):
		n.emit(Blame{ID: p.id, Why: "an answer of impossible parts"})
		return
	case p.parts != 0 && p.parts != m.Parts || p.got&bit != 0:
		return // a part that the network has doubled
	}
	first := p.parts == 0
	p.parts = m.Parts
	p.got |= bit
	n.heard = n.now
	q := *p
	n.book.again(q.ref) // the request may be gone before we are done
	defer func() { n.book.free(q.ref) }()
	whole := p.got == 1<<m.Parts-1
	if whole {
		n.book.free(n.take(i).ref)
	} else {
		p.records += len(m.Records)
	}
	if first {
		n.confirm(q.ref, &q)
	}
	if !q.pad && len(m.Records) == 0 && q.ref != 0 {
		key := n.book.pages[q.ref].key
		if e := n.entry(&key); e != nil {
			e.state &^= trusts
		}
	}
	for j, rec := range m.Records {
		if rec != nil && rec.ID == q.id && j >= int(m.Ads) {
			n.self0(&q, rec)
		}
	}
	switch l := q.lookup; {
	case q.why == whyPath:
		n.nodes(&q, m, first, q.late)
	case q.why == whyRecord && l != nil && !l.over():
		for _, rec := range m.Records {
			if r := n.admit(rec); r != 0 {
				if n.book.pages[r].key == l.Target {
					n.sight(l, r, l.hop)
				}
				n.book.free(r)
			}
		}
		if whole || n.book.seq(l.target) > n.book.seq(q.ref) {
			n.fetched(l)
		}
	}
}

// fetched ends the wait for the target's own record.
func (n *Node) fetched(l *lookup) {
	l.hold, l.knocking = false, false
	if l.alive {
		n.finishOrGather(l)
		return
	}
	n.advance(l) // it has moved
}

// self0 takes a node's own record out of its own answer.
func (n *Node) self0(q *pending, rec *Record) {
	if n.ahead(rec) {
		n.emit(Blame{ID: q.id, Why: "a record from the future"})
		return
	}
	r := n.book.hold(rec)
	defer n.book.free(r)
	switch {
	case n.addrOf(r) == q.addr:
		n.confirm(r, q)
	case n.entry(&n.book.pages[r].key) != nil:
		n.update(n.entry(&n.book.pages[r].key), r)
	}
	if q.why == whyRecord {
		n.rejoined(&q.id, r)
	}
}
