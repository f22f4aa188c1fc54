package overlay

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// Node is one node's part in the overlay. Not safe for concurrent use.
type Node struct {
	// set once
	cfg    *Config
	book   *Book
	rng    *rand.Rand
	key    crowd.Key
	secret [32]byte

	self     Ref
	families uint8 // of addresses that we can reach, bits v4 and v6
	ownWait  uint8 // own lookups come every RefreshEvery<<ownWait>>2: seldom once all is settled
	joined   bool  // an own lookup has ended
	table

	now   Time
	wake  Time // Deadline
	sweep Time // next look over the table
	own   Time // next lookup of the own key
	heard Time // last answer from anybody
	srtt  uint16
	rtvar uint16 // over all peers, in rttUnit

	busy   *busy // nil: nothing is under way
	seeds  []seed
	proofs *proofs
	ads    *registrar
	topics []*topic // announced
	clock  *clock
	tags   []tagged
}

// busy is what a node at rest does not need.
type busy struct {
	pending []pending
	lookups []*lookup
	queue   []Lookup
	fill    []Ref // learnt, with room in the table: to be asked
	flying  int   // pings of fill under way
}

// pending is a request that may still be answered.
type pending struct {
	req    uint64
	id     crowd.NodeID
	addr   netip.AddrPort
	ref    Ref // of the record asked by, held; 0: none is known
	sent   Time
	due    Time // of the timeout, then of forgetting it
	why    why
	late   bool
	with   bool // our record was in it
	pad    bool
	in     bool // for somebody who came to us
	path   int
	lookup *lookup
	topic  *topic

	parts   uint8 // of the answer, once known
	got     uint16
	records int
}

type why uint8

const (
	whyAlive  why = iota // ping: does it live, is it there?
	whyFill              // the same, for a place in the table
	whyTarget            // the same, for the lookup's target
	whyPath              // find node on a path
	whyRecord            // find node for the peer's own record
	whyRegister
)

// seed is somebody to begin with, or whom a partition may have taken.
type seed struct {
	id    crowd.NodeID
	addr  netip.AddrPort
	ref   Ref
	next  Time
	wait  uint8 // doublings
	given bool  // by a Seed event; else a peer that fell silent
	lost  bool  // silent at the last try, or never tried
}

const (
	lateFor     = 10 * time.Second // an answer after that is no answer
	aheadMost   = time.Hour        // a record from farther in the future is refused
	sweepLeast  = 20 * time.Second
	sweepPings  = 32
	fillFlying  = 8
	fillMost    = 256
	lookupsMost = 64
	queueMost   = 256
	partsMost   = 8
	pendingMost = 4096
	seedsMost   = 64
	lostMost    = 8
	lostAge     = 600 // seconds: peers younger than that are not missed
	lostTries   = 12  // of them 6 in the first hour
	strangers   = 64  // pings under way to prove endpoints of senders
)

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.BucketSize, 32)
	def(&c.Siblings, 16)
	def(&c.Paths, 4)
	def(&c.Parallel, 2)
	def(&c.Width, 8)
	def(&c.Fair, 16)
	def(&c.PerSubnet, 2)
	def(&c.PerSubnetAll, 10)
	def(&c.Answer, 16)
	def(&c.Ads, 1000)
	def(&c.Proofs, 512)
	span := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	span(&c.PingEvery, 8*time.Minute)
	span(&c.RefreshEvery, 20*time.Minute)
	span(&c.ProofFor, 12*time.Hour)
	span(&c.AdFor, 15*time.Minute)
	return c
}

// New is a node whose record is self, knowing nobody. Step's effects share scratch with the other nodes of book.
func New(cfg Config, self *Record, book *Book, rng *rand.Rand) *Node {
	n := &Node{book: book, rng: rng, secret: cfg.Secret}
	cfg.Secret = [32]byte{}
	n.cfg = book.config(cfg.withDefaults())
	n.self = book.hold(self)
	n.key = book.pages[n.self].key
	n.families = familiesOf(book, n.self)
	n.advertiseSelf()
	return n
}

// familiesOf are those in which the node of r has addresses; both, if it has none and only dials out.
func familiesOf(b *Book, r Ref) (f uint8) {
	for i, net := range b.pages[r].net {
		if net != 0 {
			f |= 1 << i
		}
	}
	if f == 0 {
		f = 1<<v4 | 1<<v6
	}
	return f
}

// Close gives back what the node holds in its book.
func (n *Node) Close() {
	n.each(func(e *entry) { n.book.free(e.ref) })
	for i := range n.buckets {
		for _, r := range n.buckets[i].waiting {
			n.book.free(r)
		}
	}
	for i := range n.seeds {
		n.book.free(n.seeds[i].ref)
	}
	if n.busy != nil {
		for i := range n.busy.pending {
			n.book.free(n.busy.pending[i].ref)
		}
		for _, l := range n.busy.lookups {
			n.release(l)
		}
		for _, r := range n.busy.fill {
			n.book.free(r)
		}
	}
	n.closeAds()
	n.book.free(n.self)
	*n = Node{}
}

// Key is the node's position.
func (n *Node) Key() crowd.Key { return n.key }

// Deadline is when the node next wants Woke; 0: never.
func (n *Node) Deadline() Time { return n.wake }

// Step tells the node what has happened. The effects are to be done in order, and are the caller's
// until the next Step of a node with the same Book. Time never goes back: an earlier now counts as the last.
func (n *Node) Step(now Time, ev Event) []Effect {
	n.now = max(n.now, now)
	n.book.effects = n.book.effects[:0]
	switch ev := ev.(type) {
	case Received:
		n.received(ev)
	case Stale:
		n.stale(ev)
	case Seed:
		n.seed(ev)
	case Lookup:
		n.ask(ev)
	case Renewed:
		n.renew(ev.Record)
	case Announce:
		n.announce(ev.Topic)
	case Withdraw:
		n.withdraw(ev.Topic)
	}
	n.tick()
	return n.book.effects
}

// Adopt puts rec into the table as if its node had just answered, and we it: for a simulated world that begins settled.
func (n *Node) Adopt(now Time, rec *Record) { n.adopt(now, rec, 0, 0) }

// AdoptOld is Adopt of a peer that was known to live for so long, and to which we have proven our endpoint: see Vouch.
func (n *Node) AdoptOld(now Time, rec *Record, known time.Duration) {
	n.adopt(now, rec, known, hasUs|trusts)
}

func (n *Node) adopt(now Time, rec *Record, known time.Duration, state uint8) {
	n.now = max(n.now, now)
	n.joined = true
	n.book.effects = n.book.effects[:0]
	r := n.book.hold(rec)
	defer n.book.free(r)
	if n.entry(&n.book.pages[r].key) != nil || !n.fit(r) {
		return
	}
	if at := n.room(r, false); at == asSibling || at == asBucket {
		e := n.fresh(r)
		e.state |= state
		e.since = uint16(seconds(n.now.Add(-known)) / sinceUnit)
		e.hear(e.heard)
		n.enter(e, at)
		n.tag(r)
	}
	if n.own == 0 {
		n.own = n.now.Add(n.jitter(n.ownEvery()))
		n.sweep = n.now.Add(n.jitter(n.cfg.PingEvery))
		n.wake = n.sweep
	}
}

// Vouch notes that id has proven to be at addr, as whoever has us in its table has: the other half of Adopt.
func (n *Node) Vouch(now Time, id crowd.NodeID, addr netip.AddrPort) {
	n.now = max(n.now, now)
	n.prove(&id, addr)
}

// fresh is the entry of a peer that has just answered.
func (n *Node) fresh(r Ref) entry {
	s := seconds(n.now)
	e := entry{ref: n.book.again(r), since: uint16(s / sinceUnit)}
	e.answer(s)
	return e
}

// jitter is between a half and the whole of d: no two nodes march in step.
func (n *Node) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(n.rng.Int64N(int64(d/2)+1))
}

func (n *Node) emit(e Effect) { n.book.effects = append(n.book.effects, e) }

func (n *Node) active() *busy {
	if n.busy == nil {
		if idle := n.book.idle; len(idle) > 0 {
			n.busy = idle[len(idle)-1]
			n.book.idle = idle[:len(idle)-1]
		} else {
			n.busy = &busy{}
		}
	}
	return n.busy
}

// tick does what is due and says when it next wants to be woken.
func (n *Node) tick() {
	if n.busy != nil {
		n.expire()
	}
	if n.sweep != 0 && n.now >= n.sweep {
		n.upkeep()
	}
	ad := n.advertise()
	n.wake = n.sweep
	n.wakeAt(ad)
	b := n.busy
	if b == nil {
		return
	}
	n.pour()
	for i := range b.pending {
		n.wakeAt(b.pending[i].due)
	}
	if len(b.pending)+len(b.lookups)+len(b.queue)+len(b.fill) == 0 {
		n.busy = nil
		n.book.idle = append(n.book.idle, b)
	}
}

func (n *Node) wakeAt(t Time) {
	if t != 0 && (n.wake == 0 || t < n.wake) {
		n.wake = t
	}
}

func (n *Node) sweepBy(t Time) {
	if n.sweep == 0 || t < n.sweep {
		n.sweep = t
	}
}

// request sends msg and waits for its answer. p names whom and why.
func (n *Node) request(p pending, msg Message, patience time.Duration) {
	if !n.expect(p, patience) {
		n.overtaken(p)
		return
	}
	n.emit(Send{To: p.id, Addr: p.addr, Msg: msg, Pad: p.pad})
}

// expect waits for the answer to p; false: it is too much at a time.
func (n *Node) expect(p pending, patience time.Duration) bool {
	b := n.active()
	if len(b.pending) >= pendingMost {
		return false
	}
	p.sent, p.due = n.now, n.now.Add(patience)
	n.book.again(p.ref)
	b.pending = append(b.pending, p)
	return true
}

// overtaken treats a request that there was no room to make as one without an answer.
func (n *Node) overtaken(p pending) {
	switch {
	case p.lookup != nil && p.why == whyPath:
		p.lookup.paths[p.path].missed(n, p.ref)
	case p.lookup != nil && (p.why == whyTarget || p.why == whyRecord):
		p.lookup.hold, p.lookup.knocking = false, false
	case p.why == whyRegister:
		n.unanswered(&p)
	}
}

// ping asks the node of r at the endpoint of that record.
func (n *Node) ping(r Ref, p pending) {
	addr, _, ok := n.endpoint(r)
	if !ok {
		return
	}
	rec := n.book.rec(r)
	p.req, p.id, p.addr, p.ref = n.rng.Uint64(), rec.ID, addr, r
	e := n.entry(&n.book.pages[r].key)
	msg := Ping{Req: p.req, Seq: n.book.seq(n.self)}
	if e == nil || e.state&(hasUs|trusts) != hasUs|trusts && e.state&fails == 0 { // whoever is silent is first asked whether it is there
		msg.Record, p.with = n.book.rec(n.self), true
	}
	n.request(p, msg, n.patience(e))
}

// patience is how long an answer may take: of a peer by its own round trips, of a stranger by everybody's.
func (n *Node) patience(e *entry) time.Duration {
	if e != nil && (e.srtt != 0 || e.state&fails != 0) {
		return e.patience()
	}
	if n.srtt == 0 {
		return timeoutFirst
	}
	return min(max(time.Duration(n.srtt+4*n.rtvar)*rttUnit, timeoutLeast), timeoutFirst)
}

// pinging says whether a ping to id at addr is under way.
func (n *Node) pinging(id *crowd.NodeID, addr netip.AddrPort) bool {
	if n.busy == nil {
		return false
	}
	for i := range n.busy.pending {
		p := &n.busy.pending[i]
		if p.why <= whyTarget && !p.late && p.addr == addr && p.id == *id {
			return true
		}
	}
	return false
}

// expire ends what has waited long enough.
func (n *Node) expire() {
	for again := true; again && n.busy != nil; {
		again = false
		for i := range n.busy.pending {
			p := &n.busy.pending[i]
			if p.due > n.now {
				continue
			}
			again = true
			if p.late {
				n.unpend(i)
			} else {
				n.timeout(i)
			}
			break // the list may be another now
		}
	}
}

// unpend forgets the i-th request.
func (n *Node) unpend(i int) {
	b := n.busy
	n.book.free(b.pending[i].ref)
	last := len(b.pending) - 1
	b.pending[i] = b.pending[last]
	b.pending[last] = pending{}
	b.pending = b.pending[:last]
}

// timeout is for the i-th request; an answer may still come.
func (n *Node) timeout(i int) {
	p := &n.busy.pending[i]
	p.late, p.due = true, max(p.sent.Add(lateFor), n.now+1)
	q := *p
	n.silent(&q.id)
	if q.why == whyFill {
		n.busy.flying--
	}
	if q.ref != 0 {
		if e := n.entry(&n.book.pages[q.ref].key); e != nil {
			n.miss(e, &q)
		}
	}
	switch {
	case q.lookup != nil && q.why == whyPath:
		if q.parts == 0 {
			q.lookup.paths[q.path].missed(n, q.ref)
		}
		n.advance(q.lookup)
	case q.lookup != nil && q.why == whyTarget:
		q.lookup.hold = false
		q.lookup.knocking = false
		n.advance(q.lookup)
	case q.lookup != nil && q.why == whyRecord:
		n.fetched(q.lookup)
	case q.why == whyRegister:
		n.unanswered(&q)
	}
}

// miss counts a request that the peer has not answered: the first of any kind, after that only pings, of which
// one is under way at a time, so that many requests lost at once are one miss.
func (n *Node) miss(e *entry, p *pending) {
	f := e.state & fails
	if p.parts != 0 || f > 0 && p.why > whyTarget {
		return
	}
	e.state &^= hasUs | trusts // perhaps it has forgotten us: show and prove everything anew
	if f < 3 {
		e.state++
	}
	if e.state&fails < 3 {
		if p := (pending{why: whyAlive}); !n.pinging(&n.book.rec(e.ref).ID, n.addrOf(e.ref)) {
			n.ping(e.ref, p)
		}
		return
	}
	if n.heard < p.sent {
		return // nobody at all has answered: it may be us
	}
	rec, key := n.book.rec(e.ref), n.book.pages[e.ref].key
	n.emit(Forget{ID: rec.ID})
	n.untag(rec.ID)
	n.lose(e)
	at := prefix(n.dist(e.ref))
	n.drop(&key)
	if r := n.unwait(at); r != 0 {
		n.enqueue(r)
		n.book.free(r)
	}
}

func (n *Node) addrOf(r Ref) netip.AddrPort {
	a, _, _ := n.endpoint(r)
	return a
}

// lose remembers a peer that was long with us: a partition may end.
func (n *Node) lose(e *entry) {
	if e.age() < lostAge {
		return
	}
	lost := 0
	for i := range n.seeds {
		if n.seeds[i].id == n.book.rec(e.ref).ID {
			return
		}
		if !n.seeds[i].given {
			lost++
		}
	}
	if lost >= lostMost {
		return
	}
	n.seeds = append(n.seeds, seed{id: n.book.rec(e.ref).ID, addr: n.addrOf(e.ref), ref: n.book.again(e.ref),
		next: n.now.Add(n.jitter(seedSoon)), lost: true})
	n.sweepBy(n.seeds[len(n.seeds)-1].next)
}

// enqueue wants the node of r asked for a place in the table.
func (n *Node) enqueue(r Ref) {
	b := n.active()
	if len(b.fill) >= fillMost {
		return
	}
	for _, have := range b.fill {
		if n.book.pages[have].key == n.book.pages[r].key {
			return
		}
	}
	b.fill = append(b.fill, n.book.again(r))
}

// pour sends some of the pings that fill wants.
func (n *Node) pour() {
	b := n.busy
	for b.flying < fillFlying && len(b.fill) > 0 {
		r := b.fill[0]
		b.fill = slices.Delete(b.fill, 0, 1)
		if n.entry(&n.book.pages[r].key) == nil && n.room(r, false) > waiting &&
			!n.pinging(&n.book.rec(r).ID, n.addrOf(r)) && len(b.pending) < pendingMost {
			b.flying++
			n.ping(r, pending{why: whyFill})
		}
		n.book.free(r)
	}
}

// rumour is a record that somebody gave us. It enters nothing until its node has answered.
func (n *Node) rumour(r Ref) {
	if !n.fit(r) {
		return
	}
	if e := n.entry(&n.book.pages[r].key); e != nil {
		if n.book.seq(r) > n.book.seq(e.ref) {
			n.update(e, r)
		}
		return
	}
	switch n.room(r, false) {
	case asSibling, asBucket:
		n.enqueue(r)
	case waiting:
		n.wait(r)
	}
}

// update takes a later record of a peer: at once if its address is the same, else when it answers there. A peer that says
// itself that it cannot be reached any more, but by a relay, is none; e must not be used then.
func (n *Node) update(e *entry, r Ref) {
	switch addr := n.addrOf(r); {
	case !n.fit(r):
		id := n.book.rec(r).ID
		n.emit(Forget{ID: id})
		n.untag(id)
		n.drop(&n.book.pages[r].key)
	case addr == n.addrOf(e.ref):
		n.replace(e, r)
	case !n.pinging(&n.book.rec(r).ID, addr):
		n.ping(r, pending{why: whyAlive})
	}
}

func (n *Node) replace(e *entry, r Ref) {
	n.book.again(r)
	n.book.free(e.ref)
	e.ref = r
	n.tag(r)
	n.emit(Keep{Record: n.book.rec(r)})
}

// confirm is for the node of r, which has answered a request of ours at the endpoint of r.
func (n *Node) confirm(r Ref, p *pending) {
	rtt := n.now.Sub(p.sent)
	srtt, v := smooth(time.Duration(n.srtt)*rttUnit, time.Duration(n.rtvar)*rttUnit, min(rtt, timeoutMost))
	n.srtt, n.rtvar = uint16(srtt/rttUnit), uint16(min(v/rttUnit, 1<<13))
	if r == 0 || n.addrOf(r) != p.addr || !n.fit(r) {
		n.prove(&p.id, p.addr)
		return
	}
	e := n.entry(&n.book.pages[r].key)
	if e != nil && n.book.seq(r) > n.book.seq(e.ref) {
		n.replace(e, r)
	}
	if e != nil && n.addrOf(e.ref) != p.addr {
		n.prove(&p.id, p.addr)
		return
	}
	if e == nil {
		at := n.room(r, p.in)
		if at == waiting {
			n.wait(r)
		}
		if at <= waiting {
			n.prove(&p.id, p.addr)
			return
		}
		first := len(n.siblings) == 0
		e := n.fresh(r)
		e.measure(rtt)
		if p.in {
			e.state |= inbound
		}
		if p.with {
			e.state |= hasUs
		}
		n.enter(e, at)
		n.emit(Keep{Record: n.book.rec(r)})
		n.tag(r)
		n.sweepBy(n.now.Add(n.cfg.PingEvery))
		if first {
			n.own = n.now // alone no longer
			n.sweepBy(n.now)
		}
		return
	}
	e.answer(seconds(n.now))
	e.measure(rtt)
	if p.with {
		e.state |= hasUs
	}
}

// renew takes the own record as it now is.
func (n *Node) renew(rec *Record) {
	if rec.ID != n.book.rec(n.self).ID {
		panic("bug: renewed with another node's record")
	}
	r := n.book.hold(rec)
	n.book.free(n.self)
	n.self = r
	n.families = familiesOf(n.book, r)
	n.each(func(e *entry) { e.state &^= hasUs | trusts })
	n.sweepBy(n.now.Add(n.jitter(n.cfg.PingEvery)))
	n.advertiseSelf()
	n.renewAds()
}

// seed takes somebody to begin with.
func (n *Node) seed(ev Seed) {
	if ev.ID == n.book.rec(n.self).ID {
		return
	}
	s := seed{id: ev.ID, addr: ev.Addr, next: n.now, given: true, lost: true}
	if _, net := netOf(Endpoint{Addr: ev.Addr.Addr(), UDP: ev.Addr.Port()}); net == 0 {
		s.addr = netip.AddrPort{}
	}
	if ev.Record != nil && ev.Record.ID == ev.ID {
		s.ref = n.book.hold(ev.Record)
		if !n.fit(s.ref) {
			n.book.free(s.ref)
			s.ref = 0
		}
	}
	if s.ref == 0 && !s.addr.IsValid() {
		return
	}
	for i := range n.seeds {
		if n.seeds[i].id == ev.ID {
			n.book.free(n.seeds[i].ref)
			n.seeds[i] = s
			n.sweepBy(n.now)
			return
		}
	}
	if len(n.seeds) >= seedsMost+lostMost {
		n.book.free(s.ref)
		return
	}
	n.seeds = append(n.seeds, s)
	n.sweepBy(n.now)
}

const (
	seedFirst = time.Second
	seedMost  = time.Minute      // between two tries while we are alone
	seedSoon  = 15 * time.Second // to the second try while we are not, then 30, 60 ...
	seedRest  = 10 * time.Minute // at most, of those given, and least of those that answer
	lostSoon  = time.Minute      // the same of the others
	lostRest  = time.Hour
)

// alone says whether nobody that we know answers.
func (n *Node) alone() bool {
	for i := range n.siblings {
		if n.siblings[i].state&fails < 3 {
			return false
		}
	}
	return true
}

// sow contacts the seeds whose time has come, and says when the next one's comes.
func (n *Node) sow() (next Time) {
	alone := n.alone()
	for i := 0; i < len(n.seeds); i++ {
		s := &n.seeds[i]
		if alone && s.next > n.now.Add(seedMost) {
			s.next = n.now.Add(n.jitter(seedMost))
		}
		if s.next <= n.now {
			key := n.book.keyOf(s.id)
			e := n.entry(&key)
			known := e != nil && e.state&fails == 0
			if !s.given && (known || !alone && s.wait >= lostTries) {
				n.book.free(s.ref)
				n.seeds = slices.Delete(n.seeds, i, i+1)
				i--
				continue
			}
			if known {
				s.lost, s.wait = false, 0
			}
			s.next = n.now.Add(n.jitter(s.interval(alone)))
			if !known {
				s.wait = min(s.wait+1, 30)
				n.contact(s, key)
			}
		}
		if next == 0 || s.next < next {
			next = s.next
		}
	}
	return next
}

// interval is how long after a try the next one comes at most. A seed that is silent may be the only one who knows the other half of
// the network: it is asked soon, and then as seldom as it was silent for long. At rest this costs 0.4 B/s for each.
func (s *seed) interval(alone bool) time.Duration {
	switch {
	case alone:
		return min(2*seedFirst<<min(s.wait, 20), 2*seedMost)
	case !s.lost:
		return 2 * min(seedRest<<min(s.wait, 3), time.Hour)
	case s.given:
		return min(seedSoon<<min(s.wait, 20), seedRest)
	}
	return min(lostSoon<<min(s.wait, 20), lostRest)
}

// contact asks a seed for its record, or whether the one we have is still true; after the first try only whether it is there.
func (n *Node) contact(s *seed, key crowd.Key) {
	own := s.ref != 0 && (s.wait%2 == 1 || !s.addr.IsValid()) // where it says that it is, in place of where we were told
	switch {
	case s.lost && s.wait > 1:
		p := pending{req: n.rng.Uint64(), id: s.id, addr: s.addr, why: whyAlive}
		if own {
			p.addr = n.addrOf(s.ref)
		}
		n.request(p, Ping{Req: p.req, Seq: n.book.seq(n.self)}, timeoutFirst)
	case own:
		n.ping(s.ref, pending{why: whyAlive})
	default:
		n.fetch(pending{id: s.id, addr: s.addr, ref: s.ref}, key)
	}
}

// silent is for who has not answered: a seed is tried again soon.
func (n *Node) silent(id *crowd.NodeID) {
	for i := range n.seeds {
		if s := &n.seeds[i]; s.id == *id && !s.lost {
			s.lost, s.wait = true, 0
			s.next = n.now.Add(n.jitter(seedSoon))
			n.sweepBy(s.next)
			return
		}
	}
}

// fetch asks the node that p names for its own record.
func (n *Node) fetch(p pending, key crowd.Key) {
	p.req, p.why, p.pad, p.with = n.rng.Uint64(), whyRecord, true, true
	n.request(p, FindNode{Req: p.req, Target: key, Want: uint8(n.cfg.Answer), Record: n.book.rec(n.self)}, timeoutFirst)
}

// rejoined is for a seed that has answered after silence: what it leads to may be another half of the network.
func (n *Node) rejoined(id *crowd.NodeID, r Ref) {
	for i := range n.seeds {
		if s := &n.seeds[i]; s.id == *id && s.lost {
			s.lost, s.wait = false, 0
			s.next = n.now.Add(n.jitter(2 * seedRest))
			n.book.again(r)
			n.book.free(s.ref)
			s.ref = r
			n.lookOwn(r)
			return
		}
	}
}

func (n *Node) ownEvery() time.Duration { return n.cfg.RefreshEvery << n.ownWait >> 2 }

// upkeep looks over the table: who is due for a ping, which range for a lookup.
func (n *Node) upkeep() {
	n.pruneAds()
	now := seconds(n.now)
	next := now + uint32(n.cfg.PingEvery/time.Second)
	pings := 0
	refs := n.book.refs[:0]
	n.each(func(e *entry) {
		due := e.due(n.cfg)
		if due <= now && pings < sweepPings {
			pings++
			refs = append(refs, e.ref)
			return
		}
		next = min(next, due)
	})
	n.book.refs = refs
	for _, r := range refs {
		if !n.pinging(&n.book.rec(r).ID, n.addrOf(r)) {
			n.ping(r, pending{why: whyAlive})
		}
	}
	n.sweep = max(Time(next)*1e6, n.now.Add(sweepLeast)).Add(time.Duration(n.rng.Int64N(int64(time.Second))))
	if t := n.sow(); t != 0 {
		n.sweepBy(max(t, n.now+1))
	}
	if len(n.siblings) == 0 {
		if len(n.seeds) == 0 {
			n.sweep = 0
		}
		return
	}
	if n.own <= n.now {
		n.lookOwn(0)
	}
	n.sweepBy(max(n.own, n.now+1))
	n.refresh()
}

// refresh looks up a key in the range of one bucket that has room and was not looked up for long.
func (n *Node) refresh() {
	if !n.joined || n.busy != nil && len(n.busy.lookups) > 0 {
		return
	}
	old := n.now.Add(-n.cfg.RefreshEvery * 4)
	for p := range n.buckets {
		b := &n.buckets[p]
		if len(b.entries) < n.cfg.BucketSize && Time(b.looked)*1e6 < old {
			b.looked = seconds(n.now)
			n.launch(Lookup{Target: n.keyAt(p)}, forTable)
			return
		}
	}
}

// keyAt is a random key that shares a prefix of exactly p bits with ours.
func (n *Node) keyAt(p int) (k crowd.Key) {
	for i := range k {
		k[i] = byte(n.rng.Uint32())
	}
	for i := range p {
		mask := byte(0x80) >> (i % 8)
		k[i/8] = k[i/8]&^mask | n.key[i/8]&mask
	}
	mask := byte(0x80) >> (p % 8)
	k[p/8] = k[p/8]&^mask | ^n.key[p/8]&mask
	return k
}
