package overlay

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// Ads are kept as in DISC-NG (Król et al., "DISC-NG: Robust Service Discovery in the Ethereum Global
// Network"): not for work but for waiting. The wait grows as the registrar fills up, as the topic has
// more ads than others, and as the advertiser's address resembles those of ads kept. A registrar remembers
// nobody who waits: what has passed stands in a ticket, under its MAC. Two things differ from the paper: a registrar
// that is nearly empty makes nobody wait, and the wait for the next life of an ad passes during this one.

// registrar keeps the ads of others.
type registrar struct{ ads []ad }

type ad struct {
	topic crowd.Key
	ref   Ref
	addr  netip.Addr // where it came from
	until Time
}

// topic is one that this node announces.
type topic struct {
	key   crowd.Key
	look  Time  // next search for registrars; 0: one is under way
	looks uint8 // searches that have found some
	relay bool  // kept by itself, for a node behind a relay: see advertiseSelf
	slots []slot
}

// slot is the ad at one registrar.
type slot struct {
	ref    Ref
	ticket []byte
	next   Time // of the next Register; 0: one is under way
	misses int
	kept   bool
}

const (
	topicsMost   = 64
	adPaths      = 8                // d for ads: twice that of other lookups
	adWindow     = 10 * time.Second // after its wait, in which a ticket counts: DISC-NG's registration window
	adOccupancy  = 10               // P_occ, DISC-NG
	adSpare      = 1e-7             // G, DISC-NG: a little, like nobody though the ad be
	adRetry      = 30 * time.Second
	adMisses     = 3
	ticketLen    = 8 + 8 + 8 + 16
	taggedMost   = 16 // peers of one own tag
	ticketReason = "overlay/ticket"
)

// names says whether a record may stand under a topic: by one of its tags, or by its own key, as that of a
// client that is found through a relay.
func (b *Book) names(r Ref, topic *crowd.Key) bool {
	p := &b.pages[r]
	if p.key == *topic {
		return true
	}
	for _, t := range p.rec.Tags {
		if Topic(t) == *topic {
			return true
		}
	}
	return false
}

// registering answers a Register.
func (n *Node) registering(ev Received, m Register) {
	v, ok := n.visit(ev, m.Record)
	if !ok {
		return
	}
	defer func() { n.leave(ev, v) }()
	if m.Record == nil || !n.book.names(v.ref, &m.Topic) {
		n.emit(Blame{ID: ev.From, Why: "an ad under a topic that its record does not name"})
		return
	}
	if v.room < ticketBytes+headers {
		return
	}
	v.room -= ticketBytes + headers
	answer := Ticket{Req: m.Req}
	n.decide(ev, &m, &v, &answer)
	n.emit(Send{To: ev.From, Addr: ev.Addr, Msg: answer})
}

// decide keeps the ad or says how long it must wait.
func (n *Node) decide(ev Received, m *Register, v *visitor, answer *Ticket) {
	n.pruneAds()
	if n.ads == nil {
		n.ads = &registrar{}
	}
	mine := -1
	for i := range n.ads.ads {
		if a := &n.ads.ads[i]; a.topic == m.Topic && n.book.rec(a.ref).ID == ev.From {
			mine = i
		}
	}
	first := n.now
	if t, ok := n.openTicket(m, ev); ok {
		first = t
	}
	if mine >= 0 {
		a := &n.ads.ads[mine]
		if n.book.seq(v.ref) > n.book.seq(a.ref) {
			n.book.free(a.ref)
			a.ref = n.book.again(v.ref)
		}
		if left := a.until.Sub(n.now); left > n.cfg.AdFor/3 {
			answer.Kept, answer.Wait = true, left
			return
		}
		first = min(first, a.until.Add(-n.cfg.AdFor)) // for its next life it waits since this one began
	}
	wait, never := n.adWait(m.Topic, ev, mine, n.book.pages[v.ref].key == m.Topic)
	left := wait - n.now.Sub(first)
	if !v.proven {
		left = max(left, time.Second) // enough for the ping that proves its endpoint
	}
	if left > 0 || never {
		// Rounded up: what comes back a little early would have waited for nothing.
		left = min(max(left, time.Millisecond), n.cfg.AdFor).Truncate(time.Millisecond) + time.Millisecond
		answer.Wait = left
		answer.Ticket = n.makeTicket(m.Topic, ev, first, left)
		return
	}
	answer.Kept, answer.Wait = true, n.cfg.AdFor
	if mine >= 0 {
		n.ads.ads[mine].addr, n.ads.ads[mine].until = ev.Addr.Addr(), n.now.Add(n.cfg.AdFor)
		return
	}
	n.ads.ads = append(n.ads.ads, ad{m.Topic, n.book.again(v.ref), ev.Addr.Addr(), n.now.Add(n.cfg.AdFor)})
}

// adWait is DISC-NG's waiting time for one more ad; the ad of index mine, if there is one, does not count. never is for
// what no waiting makes right: the store, the topic's share or the network's is full. Ads of one node under other topics do
// not make each other wait: they are one identity's, and in a small network all topics have the same registrars. own: the
// topic is the node's own key, where there is nobody to compete with.
func (n *Node) adWait(topic crowd.Key, ev Received, mine int, own bool) (wait time.Duration, never bool) {
	from := ev.Addr.Addr()
	_, net := netOf(Endpoint{Addr: from, UDP: 1})
	var shared [129]int // ads by length of the prefix of their address that from shares
	all, same, near, nearSame := 0, 0, 0, 0
	for i := range n.ads.ads {
		if i == mine {
			continue
		}
		a := &n.ads.ads[i]
		all++
		if a.topic == topic {
			same++
		}
		if a.addr.BitLen() == from.BitLen() && n.book.rec(a.ref).ID != ev.From {
			shared[sharedBits(a.addr, from)]++
		}
		if _, o := netOf(Endpoint{Addr: a.addr, UDP: 1}); o == net {
			near++
			if a.topic == topic {
				nearSame++
			}
		}
	}
	limit := n.cfg.Ads
	if all >= limit || same >= max(limit/4, 1) || net&private == 0 && (near >= n.cfg.PerSubnetAll || nearSame >= n.cfg.PerSubnet) {
		return n.cfg.AdFor, true
	}
	// The share of the prefixes of from under which more ads lie than would by chance.
	score, under := 0.0, 0
	for length := from.BitLen(); length > 0; length-- {
		under += shared[length]
		if float64(under) > float64(all)/math.Pow(2, float64(length)) {
			score++
		}
	}
	// Under its own key stands one node alone: nobody crowds others out there, and until the ad is kept it cannot be found.
	if d := from.BitLen(); d > 0 && net&private == 0 && !own {
		score /= float64(d)
	} else {
		score = 0
	}
	// The paper's occupancy, less 1: while there is room for all, nobody waits for being like others.
	full := 1/math.Pow(1-float64(all)/float64(limit), adOccupancy) - 1
	w := n.cfg.AdFor.Seconds() * full * (float64(same)/float64(limit) + score + adSpare)
	return time.Duration(min(w, n.cfg.AdFor.Seconds()) * float64(time.Second)), false
}

func sharedBits(a, b netip.Addr) int {
	x, y := a.AsSlice(), b.AsSlice()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return 8*i + bits.LeadingZeros8(d)
		}
	}
	return 8 * len(x)
}

// A ticket is first[8] ‖ issued[8] ‖ wait[8] ‖ mac[16]: when the first Register of it came, when this
// ticket was made and how long it must then wait. The rest of what it is bound to, topic, ID and address, it is checked with.

func (n *Node) makeTicket(topic crowd.Key, ev Received, first Time, wait time.Duration) []byte {
	t := make([]byte, 24, ticketLen)
	binary.BigEndian.PutUint64(t, uint64(first))
	binary.BigEndian.PutUint64(t[8:], uint64(n.now))
	binary.BigEndian.PutUint64(t[16:], uint64(wait))
	mac := n.ticketMAC(t, topic, ev)
	return append(t, mac[:16]...)
}

func (n *Node) ticketMAC(head []byte, topic crowd.Key, ev Received) crowd.Hash {
	addr := ev.Addr.Addr().As16()
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], ev.Addr.Port())
	// Every part but the reason, which is constant, has one length. Keccak is no subject to length extension.
	return crowd.Keccak256([]byte(ticketReason), n.secret[:], topic[:], ev.From[:], addr[:], port[:], head)
}

// openTicket is since when the advertiser waits; ok is false without a ticket of ours that is due now.
func (n *Node) openTicket(m *Register, ev Received) (first Time, ok bool) {
	if len(m.Ticket) != ticketLen {
		return 0, false
	}
	mac := n.ticketMAC(m.Ticket[:24], m.Topic, ev)
	if subtle.ConstantTimeCompare(mac[:16], m.Ticket[24:]) == 0 {
		return 0, false
	}
	first = Time(binary.BigEndian.Uint64(m.Ticket))
	due := Time(binary.BigEndian.Uint64(m.Ticket[8:])).Add(time.Duration(binary.BigEndian.Uint64(m.Ticket[16:])))
	return first, n.now >= due && n.now <= due.Add(adWindow)
}

// pruneAds drops the ads that are too old.
func (n *Node) pruneAds() {
	if n.ads == nil {
		return
	}
	n.ads.ads = slices.DeleteFunc(n.ads.ads, func(a ad) bool {
		if a.until > n.now {
			return false
		}
		n.book.free(a.ref)
		return true
	})
	if len(n.ads.ads) == 0 {
		n.ads = nil
	}
}

// adsUnder appends ads kept under key until out has want records: by chance, and so that no part of the internet has more of them
// than the rest together, as long as the rest has any.
func (n *Node) adsUnder(key crowd.Key, out []*Record, want int) []*Record {
	if n.ads == nil {
		return out
	}
	var ads []ad
	for _, a := range n.ads.ads {
		if a.topic == key && a.until > n.now {
			ads = append(ads, a)
		}
	}
	for len(ads) > 0 && len(out) < want {
		last := len(ads) - 1
		i := n.drawAd(ads)
		out = append(out, n.book.rec(ads[i].ref))
		ads[i] = ads[last]
		ads = ads[:last]
	}
	return out
}

// drawAd goes down the tree of the prefixes of ads' addresses, tossing a coin where it forks, and gives the place of one that
// lies where it ends. It changes the order of ads.
func (n *Node) drawAd(ads []ad) int {
	from, to := 0, len(ads) // those under the prefix so far
	for bit := 0; bit < 128 && to-from > 1; bit++ {
		mid := from // before it lie those with a 0
		for i := from; i < to; i++ {
			if b := ads[i].addr.As16(); b[bit/8]&(0x80>>(bit%8)) == 0 {
				ads[i], ads[mid] = ads[mid], ads[i]
				mid++
			}
		}
		switch {
		case mid == from || mid == to:
		case n.rng.IntN(2) == 0:
			to = mid
		default:
			from = mid
		}
	}
	return from + n.rng.IntN(to-from)
}

// announce begins to advertise.
func (n *Node) announce(key crowd.Key) {
	if n.topicOf(key) != nil || len(n.topics) >= topicsMost || !n.book.names(n.self, &key) {
		return
	}
	n.topics = append(n.topics, &topic{key: key, look: n.now})
}

// advertiseSelf keeps an ad under the own key for as long as the node is reached through a relay: no table has it, so
// its ads are how it is found by its key.
func (n *Node) advertiseSelf() {
	t := n.topicOf(n.key)
	switch relayed := n.book.rec(n.self).Relay != (crowd.Key{}); {
	case relayed && t == nil:
		n.topics = append(n.topics, &topic{key: n.key, look: max(n.now, 1), relay: true})
	case !relayed && t != nil && t.relay:
		n.withdraw(n.key)
	}
}

func (n *Node) topicOf(key crowd.Key) *topic {
	for _, t := range n.topics {
		if t.key == key {
			return t
		}
	}
	return nil
}

// withdraw ends it: the ads age out.
func (n *Node) withdraw(key crowd.Key) {
	n.topics = slices.DeleteFunc(n.topics, func(t *topic) bool {
		if t.key != key {
			return false
		}
		for _, s := range t.slots {
			n.book.free(s.ref)
		}
		t.slots = nil
		return true
	})
}

// search looks for the registrars of a topic, and takes notice of whom it finds advertised there.
func (n *Node) search(t *topic) {
	t.look = 0
	l := n.prepare(Lookup{Target: t.key, Paths: adPaths, Ads: true}, forTopic)
	l.topic = t
	n.advance(l)
}

// settled gives a topic the nodes nearest to it: it moves as the neighbourhood does.
func (n *Node) settled(t *topic, near []ranked, ads []Ref) {
	for _, r := range ads {
		n.tag(r)
	}
	if n.topicOf(t.key) != t {
		return // withdrawn
	}
	// Soon again at first: who has just come knows few, and others come with it.
	t.look = n.now.Add(n.jitter(min(adRetry<<t.looks, n.cfg.AdFor/2)))
	if len(near) == 0 {
		return
	}
	t.looks = min(t.looks+1, 8)
	var slots []slot
	for _, r := range near {
		s := slot{ref: n.book.again(r.ref), next: n.now}
		for _, have := range t.slots {
			if n.book.pages[have.ref].key == n.book.pages[r.ref].key {
				if have.misses < adMisses {
					s.ticket, s.next, s.misses, s.kept = have.ticket, have.next, have.misses, have.kept
				}
			}
		}
		slots = append(slots, s)
	}
	for _, s := range t.slots {
		n.book.free(s.ref)
	}
	t.slots = slots
}

// advertise sends what is due and returns when the next is.
func (n *Node) advertise() (next Time) {
	for _, t := range n.topics {
		switch {
		case t.look == 0 || t.look > n.now:
		case n.joined:
			n.search(t)
		default:
			t.look = n.now.Add(n.jitter(adRetry)) // settleIn brings it forward
		}
		for i := range t.slots {
			if s := &t.slots[i]; s.next != 0 && s.next <= n.now {
				n.register(t, s)
			}
		}
	}
	for _, t := range n.topics {
		next = sooner(next, t.look)
		for i := range t.slots {
			next = sooner(next, t.slots[i].next)
		}
	}
	return next
}

func sooner(a, b Time) Time {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// register asks one registrar.
func (n *Node) register(t *topic, s *slot) {
	addr, _, ok := n.endpoint(s.ref)
	if !ok || !n.book.names(n.self, &t.key) {
		s.next = n.now.Add(adRetry)
		return
	}
	s.next = 0
	e := n.entry(&n.book.pages[s.ref].key)
	p := pending{req: n.rng.Uint64(), id: n.book.rec(s.ref).ID, addr: addr, ref: s.ref, why: whyRegister, topic: t, with: true}
	p.pad = e == nil || e.state&trusts == 0
	n.request(p, Register{Req: p.req, Topic: t.key, Ticket: s.ticket, Record: n.book.rec(n.self)}, n.patience(e))
}

// slotOf is where the request belongs; nil: nowhere any more.
func (n *Node) slotOf(q *pending) *slot {
	if q.topic == nil {
		return nil
	}
	for i := range q.topic.slots {
		if s := &q.topic.slots[i]; n.book.pages[s.ref].key == n.book.pages[q.ref].key {
			return s
		}
	}
	return nil
}

// granted takes the answer to the i-th request, a Register.
func (n *Node) granted(i int, m Ticket) {
	q := n.take(i)
	defer n.book.free(q.ref)
	n.heard = n.now
	n.confirm(q.ref, &q)
	s := n.slotOf(&q)
	if s == nil {
		return
	}
	s.misses, s.kept, s.ticket = 0, m.Kept, nil
	wait := min(max(m.Wait, 0), 2*n.cfg.AdFor) // a registrar that wants more is asked again then
	if m.Kept {
		// Anew when a third of its life is left.
		s.next = n.now.Add(max(wait-n.cfg.AdFor/3, adRetry) + n.jitter(adRetry))
		return
	}
	s.ticket = bytes.Clone(m.Ticket)
	s.next = n.now.Add(wait + n.jitter(time.Second))
}

// unanswered is for a Register that timed out.
func (n *Node) unanswered(q *pending) {
	s := n.slotOf(q)
	if s == nil {
		return
	}
	if s.misses++; s.misses < adMisses {
		s.next = n.now.Add(n.jitter(adRetry / 4)) // within the window of the ticket
	}
}

// renewAds shows the registrars the new record.
func (n *Node) renewAds() {
	for _, t := range n.topics {
		for i := range t.slots {
			if s := &t.slots[i]; s.kept {
				s.next = n.now
			}
		}
	}
	for _, t := range n.tags {
		for _, r := range t.refs {
			n.book.free(r)
		}
	}
	n.tags = nil
	n.each(func(e *entry) { n.tag(e.ref) })
}

func (n *Node) closeAds() {
	if n.ads != nil {
		for i := range n.ads.ads {
			n.book.free(n.ads.ads[i].ref)
		}
	}
	for _, t := range n.topics {
		for _, s := range t.slots {
			n.book.free(s.ref)
		}
	}
	for _, t := range n.tags {
		for _, r := range t.refs {
			n.book.free(r)
		}
	}
}

// tagged are some peers that have a tag in common with us: a sub-overlay joined through the main one.
type tagged struct {
	tag  string
	refs []Ref // longest known first
}

// tag takes notice of a node if it has tags in common with us.
func (n *Node) tag(r Ref) {
	rec, own := n.book.rec(r), n.book.rec(n.self).Tags
	if len(own) == 0 || len(rec.Tags) == 0 || rec.ID == n.book.rec(n.self).ID {
		return
	}
	for _, name := range own {
		if !slices.Contains(rec.Tags, name) {
			continue
		}
		i := slices.IndexFunc(n.tags, func(t tagged) bool { return t.tag == name })
		if i < 0 {
			i = len(n.tags)
			n.tags = append(n.tags, tagged{tag: name})
		}
		t := &n.tags[i]
		at := slices.IndexFunc(t.refs, func(have Ref) bool { return n.book.rec(have).ID == rec.ID })
		switch {
		case at >= 0 && n.book.seq(r) > n.book.seq(t.refs[at]):
			n.book.free(t.refs[at])
			t.refs[at] = n.book.again(r)
		case at < 0 && len(t.refs) < taggedMost:
			t.refs = append(t.refs, n.book.again(r))
		}
	}
}

// untag forgets a node that does not answer.
func (n *Node) untag(id crowd.NodeID) {
	for i := range n.tags {
		t := &n.tags[i]
		t.refs = slices.DeleteFunc(t.refs, func(r Ref) bool {
			if n.book.rec(r).ID != id {
				return false
			}
			n.book.free(r)
			return true
		})
	}
}

// Tagged are the peers known that have one of the own tags, at most 16. Those outside the table were found
// by their ads, and need not live.
func (n *Node) Tagged(tag string) []*Record {
	var out []*Record
	for _, t := range n.tags {
		if t.tag == tag {
			for _, r := range t.refs {
				out = append(out, n.book.rec(r))
			}
		}
	}
	return out
}
