package overlay

import (
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// entry is a peer that has answered at the address of its record. A node of 100,000 has some 400 of
// them: 16 bytes each, and nothing for the garbage collector to follow.
type entry struct {
	ref    Ref
	heard  uint32 // seconds: its last packet from that address
	since  uint16 // units of sinceUnit: known since, or longer
	proved uint16 // units of provedUnit: its last answer to us
	srtt   uint16 // units of rttUnit
	rttvar uint8  // units of varUnit
	state  uint8
}

const (
	sinceUnit  = 64 // seconds
	provedUnit = 4  // seconds
	rttUnit    = 250 * time.Microsecond
	varUnit    = 4 * time.Millisecond
)

// Bits of entry.state.
const (
	fails   = 3      // requests in a row without an answer
	inbound = 1 << 2 // it came to us; we did not go to it
	hasUs   = 1 << 3 // it has our record as it is now
	trusts  = 1 << 4 // it has proof of our endpoint
)

// bucket is the entries that share a prefix of one length with the node's key, but the siblings.
type bucket struct {
	entries []entry
	waiting [4]Ref // named by others, not yet asked: they replace whoever dies
	looked  uint32 // seconds: a lookup in its range ended
}

// table is what a node knows: its siblings, the nearest of all, and farther ones in buckets.
type table struct {
	siblings []entry  // nearest first
	buckets  []bucket // by length of the prefix shared
}

// ranked is a record by its distance to something.
type ranked struct {
	dist uint64 // the first 64 bits: a tie would take 2^64 keys, each of some milliseconds, to make
	ref  Ref
}

func distance(a, b *crowd.Key) uint64 {
	return be(a) ^ be(b)
}

func be(k *crowd.Key) uint64 {
	return uint64(k[0])<<56 | uint64(k[1])<<48 | uint64(k[2])<<40 | uint64(k[3])<<32 |
		uint64(k[4])<<24 | uint64(k[5])<<16 | uint64(k[6])<<8 | uint64(k[7])
}

// maxPrefix bounds the buckets: no network fills the one of 60 shared bits by chance.
const maxPrefix = 60

func prefix(dist uint64) int { return min(bits.LeadingZeros64(dist), maxPrefix) }

func byDistance(a, b ranked) int {
	switch {
	case a.dist < b.dist:
		return -1
	case a.dist > b.dist:
		return 1
	}
	return 0
}

// siblingsMax is 5·s, S/Kademlia section 4.2: enough that a node knows all of the s nearest to any key near its own.
func (n *Node) siblingsMax() int { return 5 * n.cfg.Siblings }

func (n *Node) dist(r Ref) uint64 { return distance(&n.book.pages[r].key, &n.key) }

// entry finds a peer by its distance to us; nil: not in the table.
func (n *Node) entry(key *crowd.Key) *entry {
	d := distance(key, &n.key)
	if i, ok := n.sibling(d); ok {
		return n.same(&n.siblings[i], key)
	}
	if p := prefix(d); p < len(n.buckets) {
		es := n.buckets[p].entries
		for i := range es {
			if n.dist(es[i].ref) == d {
				return n.same(&es[i], key)
			}
		}
	}
	return nil
}

func (n *Node) same(e *entry, key *crowd.Key) *entry {
	if n.book.pages[e.ref].key != *key {
		return nil
	}
	return e
}

// sibling is where an entry of distance d is, or would be, in the list.
func (n *Node) sibling(d uint64) (int, bool) {
	lo, hi := 0, len(n.siblings)
	for lo < hi {
		mid := (lo + hi) / 2
		switch at := n.dist(n.siblings[mid].ref); {
		case at == d:
			return mid, true
		case at < d:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// endpoint is where this node would reach the node of r: in the family that the other
// prefers, if we have one too. ok is false if nowhere.
func (n *Node) endpoint(r Ref) (addr netip.AddrPort, net uint64, ok bool) {
	p := &n.book.pages[r]
	f := int(p.first)
	if f == 2 {
		return netip.AddrPort{}, 0, false
	}
	if !n.reaches(f, p.net[f]) {
		f = 1 - f
	}
	if !n.reaches(f, p.net[f]) {
		return netip.AddrPort{}, 0, false
	}
	e := p.rec.Endpoints[p.at[f]]
	return netip.AddrPortFrom(e.Addr, e.UDP), p.net[f], true
}

func (n *Node) net(r Ref) uint64 {
	p := &n.book.pages[r]
	f := int(p.first)
	if f == 2 {
		return 0
	}
	if !n.reaches(f, p.net[f]) {
		f = 1 - f
	}
	return p.net[f]
}

func (n *Node) reaches(family int, net uint64) bool {
	return net != 0 && n.families&(1<<family) != 0 && (n.cfg.Private || net&private == 0)
}

// fit says whether the node of r may be an entry at all: no client, no stranger to our part of the internet.
func (n *Node) fit(r Ref) bool {
	p := &n.book.pages[r]
	if p.rec.Relay != (crowd.Key{}) || p.key == n.key {
		return false
	}
	_, _, ok := n.endpoint(r)
	return ok
}

// place is where a peer would enter.
type place int

const (
	nowhere place = iota
	waiting       // its bucket is full
	asBucket
	asSibling
)

// room says where the node of r, which is fit and no entry yet, would enter. With in it came on its own
// account: such ones fill a third of a bucket at most.
func (n *Node) room(r Ref, in bool) place {
	d := n.dist(r)
	p := prefix(d)
	at := asBucket
	if len(n.siblings) < n.siblingsMax() || d < n.dist(n.siblings[len(n.siblings)-1].ref) {
		at = asSibling
	} else if p < len(n.buckets) {
		b := &n.buckets[p]
		if len(b.entries) >= n.cfg.BucketSize {
			return waiting
		}
		if in && count(b.entries, inbound) >= n.cfg.BucketSize/3 {
			return nowhere
		}
	}
	if net := n.net(r); net&private == 0 && !n.diverse(net, p) {
		return nowhere
	}
	return at
}

func count(es []entry, flag uint8) (c int) {
	for i := range es {
		if es[i].state&flag != 0 {
			c++
		}
	}
	return c
}

// diverse says whether one more peer of net may enter at that prefix. Siblings count with the
// bucket that they would lie in.
func (n *Node) diverse(net uint64, p int) bool {
	here, all := 0, 0
	for i := range n.siblings {
		if r := n.siblings[i].ref; n.net(r) == net {
			all++
			if prefix(n.dist(r)) == p {
				here++
			}
		}
	}
	for q := range n.buckets {
		for i := range n.buckets[q].entries {
			if n.net(n.buckets[q].entries[i].ref) == net {
				all++
				if p == q {
					here++
				}
			}
		}
	}
	return here < n.cfg.PerSubnet && all < n.cfg.PerSubnetAll
}

// enter puts in the entry e, whose Ref it now holds, at the place that room gave.
func (n *Node) enter(e entry, at place) {
	if at == asBucket {
		n.file(e)
		return
	}
	i, _ := n.sibling(n.dist(e.ref))
	if len(n.siblings) < n.siblingsMax() {
		n.siblings = insert(n.siblings, i, e, n.siblingsMax())
		return
	}
	last := n.siblings[len(n.siblings)-1]
	copy(n.siblings[i+1:], n.siblings[i:])
	n.siblings[i] = e
	p := prefix(n.dist(last.ref))
	if p < len(n.buckets) && (len(n.buckets[p].entries) >= n.cfg.BucketSize ||
		last.state&inbound != 0 && count(n.buckets[p].entries, inbound) >= n.cfg.BucketSize/3) {
		// Not an eviction for somebody newer: the place of a sibling is by distance alone.
		n.emit(Forget{ID: n.book.rec(last.ref).ID})
		n.untag(n.book.rec(last.ref).ID)
		n.wait(last.ref)
		n.book.free(last.ref)
		return
	}
	n.file(last)
}

// file puts e into its bucket.
func (n *Node) file(e entry) {
	p := prefix(n.dist(e.ref))
	if p >= len(n.buckets) {
		grown := make([]bucket, p+1)
		copy(grown, n.buckets)
		for i := len(n.buckets); i <= p; i++ {
			grown[i].looked = seconds(n.now)
		}
		n.buckets = grown
	}
	b := &n.buckets[p]
	b.entries = insert(b.entries, len(b.entries), e, n.cfg.BucketSize)
}

// insert grows es by steps of a quarter of its limit: nothing is kept for entries that may never be.
func insert(es []entry, i int, e entry, limit int) []entry {
	if len(es) == cap(es) {
		grown := make([]entry, len(es), min(len(es)+max(limit/4, 1), max(limit, len(es)+1)))
		copy(grown, es)
		es = grown
	}
	return slices.Insert(es, i, e)
}

// wait keeps r, which would have no room now, for when somebody dies.
func (n *Node) wait(r Ref) {
	p := prefix(n.dist(r))
	if p >= len(n.buckets) {
		return
	}
	w := &n.buckets[p].waiting
	slot := -1
	for i, have := range w {
		if have == 0 {
			slot = i
			continue
		}
		if n.book.pages[have].key == n.book.pages[r].key {
			if n.book.seq(r) > n.book.seq(have) {
				w[i] = n.book.again(r)
				n.book.free(have)
			}
			return
		}
	}
	if slot < 0 {
		if n.rng.IntN(2) == 0 {
			return // neither the first nor the last to come owns the list
		}
		slot = n.rng.IntN(len(w))
		n.book.free(w[slot])
	}
	w[slot] = n.book.again(r)
}

// unwait takes somebody out of the waiting list of bucket p; 0: it is empty. The caller holds it.
func (n *Node) unwait(p int) Ref {
	if p >= len(n.buckets) {
		return 0
	}
	w := &n.buckets[p].waiting
	for i, r := range w {
		if r != 0 {
			w[i] = 0
			return r
		}
	}
	return 0
}

// drop takes the peer with that key out of the table; the farther ones move up.
func (n *Node) drop(key *crowd.Key) {
	d := distance(key, &n.key)
	if i, ok := n.sibling(d); ok {
		n.book.free(n.siblings[i].ref)
		n.siblings = slices.Delete(n.siblings, i, i+1)
		n.promote()
		return
	}
	p := prefix(d)
	if p >= len(n.buckets) {
		return
	}
	es := n.buckets[p].entries
	for i := range es {
		if n.dist(es[i].ref) == d {
			n.book.free(es[i].ref)
			es[i] = es[len(es)-1]
			n.buckets[p].entries = es[:len(es)-1]
			return
		}
	}
}

// promote moves the nearest of the buckets, which is in the last that is not empty, to the siblings.
func (n *Node) promote() {
	for p := len(n.buckets) - 1; p >= 0; p-- {
		es := n.buckets[p].entries
		if len(es) == 0 {
			continue
		}
		best := 0
		for i := range es {
			if n.dist(es[i].ref) < n.dist(es[best].ref) {
				best = i
			}
		}
		e := es[best]
		es[best] = es[len(es)-1]
		n.buckets[p].entries = es[:len(es)-1]
		i, _ := n.sibling(n.dist(e.ref))
		n.siblings = insert(n.siblings, i, e, n.siblingsMax())
		return
	}
}

// nearest appends to out the want nearest to target that take accepts, nearest first. Entries that share a
// longer prefix with us than target does are all at the distance of that prefix: from the
// target's own bucket it goes inwards, then outwards, and looks at no more than it must.
func (n *Node) nearest(out []ranked, target *crowd.Key, want int, take func(*entry) bool) []ranked {
	begin := len(out)
	c := prefix(distance(target, &n.key))
	out = n.tier(out, target, c, c, take)
	if len(out)-begin < want {
		out = n.tier(out, target, c+1, maxPrefix, take)
	}
	for p := c - 1; p >= 0 && len(out)-begin < want; p-- {
		out = n.tier(out, target, p, p, take)
	}
	if len(out)-begin > want {
		out = out[:begin+want]
	}
	return out
}

// tier appends the entries whose prefixes shared with us are from lo to hi, nearest to target first.
func (n *Node) tier(out []ranked, target *crowd.Key, lo, hi int, take func(*entry) bool) []ranked {
	begin := len(out)
	add := func(es []entry) {
		for i := range es {
			if take == nil || take(&es[i]) {
				out = append(out, ranked{distance(&n.book.pages[es[i].ref].key, target), es[i].ref})
			}
		}
	}
	// The siblings lie nearest first, so one prefix is one run of them.
	from, to := len(n.siblings), len(n.siblings)
	for i := range n.siblings {
		p := prefix(n.dist(n.siblings[i].ref))
		if p <= hi && i < from {
			from = i
		}
		if p < lo {
			to = i
			break
		}
	}
	if from < to {
		add(n.siblings[from:to])
	}
	for p := lo; p <= min(hi, len(n.buckets)-1); p++ {
		add(n.buckets[p].entries)
	}
	slices.SortFunc(out[begin:], byDistance)
	return out
}

// each calls do with every entry, nearest to us first by bucket.
func (n *Node) each(do func(*entry)) {
	for i := range n.siblings {
		do(&n.siblings[i])
	}
	for p := len(n.buckets) - 1; p >= 0; p-- {
		for i := range n.buckets[p].entries {
			do(&n.buckets[p].entries[i])
		}
	}
}

func seconds(t Time) uint32 { return uint32(t / 1e6) }

// measure takes one round trip into the estimate, RFC 6298 section 2.
func (e *entry) measure(rtt time.Duration) {
	srtt, v := smooth(time.Duration(e.srtt)*rttUnit, time.Duration(e.rttvar)*varUnit, rtt)
	e.srtt = uint16(min(srtt/rttUnit+1, 1<<16-1))
	e.rttvar = uint8(min(v/varUnit, 1<<8-1))
}

func smooth(srtt, v, rtt time.Duration) (time.Duration, time.Duration) {
	if srtt == 0 {
		return rtt, rtt / 2
	}
	return (7*srtt + rtt) / 8, (3*v + (srtt - rtt).Abs()) / 4
}

const (
	timeoutLeast = 200 * time.Millisecond
	timeoutMost  = 5 * time.Second
	timeoutFirst = time.Second // RFC 6298 section 2.1; 99.9 % of King's round trips are shorter
)

// patience is how long an answer of e may take: srtt + 4·var, doubled with every request missed.
func (e *entry) patience() time.Duration {
	d := timeoutFirst
	if e.srtt != 0 {
		d = max(time.Duration(e.srtt)*rttUnit+4*time.Duration(e.rttvar)*varUnit, timeoutLeast)
	}
	return min(d<<(e.state&fails), timeoutMost)
}

// age is for how many seconds the peer was known to live when last heard.
func (e *entry) age() uint32 { return uint32(uint16(e.heard/sinceUnit)-e.since) * sinceUnit }

// hear notes a sign of life.
func (e *entry) hear(now uint32) {
	e.heard = now
	if e.age() > sinceUnit<<15 {
		e.since = uint16(now/sinceUnit) - 1<<15 // long before the counter comes round
	}
}

// answer notes an answer to a request of ours.
func (e *entry) answer(now uint32) {
	e.hear(now)
	e.proved = uint16(now / provedUnit)
	e.state &^= fails
}

// proven says for how many seconds the peer's endpoint has been proven.
func (e *entry) proven(now uint32) uint32 {
	return uint32(uint16(now/provedUnit)-e.proved) * provedUnit
}

// due is when the peer should be asked whether it lives. Lifetimes are Weibull with k about 1/2 (Stutzbach
// and Rejaie 2006): the hazard falls with age, so the interval may grow with it. Packets that it sent by itself
// put this off, but not for ever, since they prove no address.
func (e *entry) due(c *Config) uint32 {
	every := uint32(c.PingEvery / time.Second)
	t := min(max(e.age()/2, every), pingMost*every)
	if e.state&fails != 0 || e.state&hasUs == 0 {
		t = every // to know, or to be known
	}
	return min(e.heard, e.heard-e.proven(e.heard)+3*t) + t
}

const pingMost = 10 // times PingEvery: the longest interval between two pings
