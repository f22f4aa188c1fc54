package overlay

import (
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// lookup is one search under way, along disjoint paths (S/Kademlia section 4.4): a node is asked on
// one path only, and what it answers stays on that path, so that one liar spoils one path.
type lookup struct {
	Lookup
	purpose  purpose
	width    int
	fair     int
	paths    []path
	claimed  []uint64 // distances of the nodes asked, on whatever path: a node is its distance
	target   Ref      // the node of exactly the target's key, if some record of it is known
	hop      int      // when it was
	hold     bool     // the target is being asked: the paths wait for it
	knocking bool
	knocks   int // how often it was asked
	alive    bool
	renewed  bool // the target was asked for a later record that it says it has
	asked    int
	longest  int
	ads      []Ref
	keepers  []uint64 // distances of those who keep an ad of the target, as target is
	topic    *topic
}

type purpose uint8

const (
	forUser purpose = iota
	forOwn
	forTable
	forTopic
)

// path is one of a lookup's paths.
type path struct {
	list  []candidate // nearest to the target first
	open  int         // requests that have neither been answered nor timed out
	turn  int
	fairs int
	asks  int
}

// candidate is a node that a path may ask.
type candidate struct {
	ranked
	// doubt is what stands between the node and our own table: one for each node that handed on its name,
	// and one for each nearer record in that node's answer. If all of a liar's answer are
	// liars, their doubts rise by one each; what an honest node said early on keeps its place before
	// them. The order is that of limited discrepancy search (Harvey and Ginsberg 1995).
	doubt uint16
	hop   uint8
	state uint8
}

const (
	fresh uint8 = iota
	asking
	answered
	failed
	elsewhere // asked on another path
)

const (
	listMost  = 192 // candidates of one path
	asksMost  = 256 // of one path: only with thousands of keys near a target can anybody make it so long
	knockMost = 3
	pathsMost = 32
)

// ask starts a lookup of the user's, or queues it.
func (n *Node) ask(ev Lookup) {
	b := n.active()
	switch {
	case len(b.lookups) < lookupsMost:
		n.launch(ev, forUser)
	case len(b.queue) < queueMost:
		b.queue = append(b.queue, ev)
	default:
		n.emit(Done{ID: ev.ID})
	}
}

func (n *Node) launch(ev Lookup, why purpose) *lookup {
	l := n.prepare(ev, why)
	n.advance(l)
	return l
}

// wantsAds says whether nodes are asked for ads under the target: a node behind a relay is found by that under its key.
func (l *lookup) wantsAds() bool { return l.Ads || l.purpose == forUser }

// prepare deals the nearest known to the paths.
func (n *Node) prepare(ev Lookup, why purpose) *lookup {
	b := n.active()
	l := &lookup{Lookup: ev, purpose: why, width: n.cfg.Width, fair: n.cfg.Fair}
	if l.Paths <= 0 {
		l.Paths = n.cfg.Paths
	}
	l.Paths = min(l.Paths, pathsMost)
	if why == forOwn || why == forTable {
		l.Paths, l.fair = min(l.Paths, 2), n.cfg.Fair/4
	}
	if why == forTable {
		l.Paths, l.width = 1, max(n.cfg.Width/3, 1)
	}
	l.paths = make([]path, l.Paths)
	near := n.nearest(n.book.near[:0], &ev.Target, max(n.cfg.BucketSize, 4*l.Paths), func(e *entry) bool { return e.state&fails < 2 })
	n.book.near = near
	for i, r := range near {
		p := &l.paths[i%len(l.paths)]
		p.list = append(p.list, candidate{ranked: ranked{r.dist, n.book.again(r.ref)}})
	}
	b.lookups = append(b.lookups, l)
	if l.wantsAds() {
		for _, rec := range n.adsUnder(l.Target, nil, adsFoundMost) {
			if r := n.admit(rec); r != 0 {
				n.collect(l, r, distance(&n.key, &l.Target), 0)
				n.book.free(r)
			}
		}
	}
	if len(near) > 0 && near[0].dist == 0 {
		n.sight(l, near[0].ref, 0)
	}
	return l
}

// lookOwn looks up the own key; guide, if not 0, is asked on a path of its own, however far it is. One such
// lookup is under way at a time: who begins with many seeds does not begin as many.
func (n *Node) lookOwn(guide Ref) {
	n.own = n.now.Add(n.jitter(n.ownEvery()))
	for _, l := range n.active().lookups {
		if l.purpose != forOwn {
			continue
		}
		if guide != 0 && len(l.paths) < pathsMost {
			l.guide(n, guide)
			n.advance(l)
		}
		return
	}
	l := n.prepare(Lookup{Target: n.key}, forOwn)
	if !n.joined {
		l.width = max(l.width, 2*n.cfg.Siblings/(len(l.paths)+1))
	}
	if guide != 0 {
		l.guide(n, guide)
	}
	if n.ownWait < 3 {
		n.ownWait++ // less and less often: whoever comes new tells its neighbours by itself
	}
	n.advance(l)
}

// guide adds a path that begins at r.
func (l *lookup) guide(n *Node, r Ref) {
	d := distance(&n.book.pages[r].key, &l.Target)
	l.paths = append(l.paths, path{list: []candidate{{ranked: ranked{d, n.book.again(r)}}}})
}

// advance sends what the lookup may send now, and ends it when nothing is left.
func (n *Node) advance(l *lookup) {
	if l.hold {
		return
	}
	if l.target != 0 && !l.alive && !l.knocking && l.knocks < knockMost {
		n.knock(l)
		if l.hold {
			return
		}
	}
	open := l.knocking
	for i := range l.paths {
		p := &l.paths[i]
		for p.open < n.cfg.Parallel {
			c := n.choose(l, p)
			if c == nil {
				break
			}
			n.send(l, i, c, false)
		}
		open = open || p.open > 0
	}
	if !open {
		n.finish(l)
	}
}

// choose picks whom the path asks next; nil: it is at its end. By turns that is the nearest, which
// is quick when all are honest, and the least doubtful, which gets past those who are not.
func (n *Node) choose(l *lookup, p *path) *candidate {
	if p.asks >= asksMost {
		return nil
	}
	p.turn++
	if p.turn%2 == 0 {
		if c := p.least(l); c != nil {
			p.fairs++
			return c
		}
	}
	if c := p.nearest(l); c != nil {
		return c
	}
	c := p.least(l)
	if c != nil {
		p.fairs++
	}
	return c
}

// nearest is the first of the nearest Width that have not failed which was not asked.
func (p *path) nearest(l *lookup) *candidate {
	width := l.width
	for i := range p.list {
		c := &p.list[i]
		if c.state == fresh && slices.Contains(l.claimed, c.dist) {
			c.state = elsewhere
		}
		switch c.state {
		case failed, elsewhere:
			continue
		case fresh:
			return c
		}
		if width--; width == 0 {
			return nil
		}
	}
	return nil
}

// least is the least doubtful that was not asked, the nearest of these.
func (p *path) least(l *lookup) (best *candidate) {
	if p.fairs >= l.fair {
		return nil
	}
	for i := range p.list {
		c := &p.list[i]
		if c.state != fresh || best != nil && best.doubt <= c.doubt {
			continue
		}
		if slices.Contains(l.claimed, c.dist) {
			c.state = elsewhere
			continue
		}
		best = c
	}
	return best
}

// send asks c on path i. With pad it is asked again, because it did not know our endpoint.
func (n *Node) send(l *lookup, i int, c *candidate, pad bool) {
	p := &l.paths[i]
	addr, _, ok := n.endpoint(c.ref)
	if !pad {
		l.claimed = append(l.claimed, c.dist)
		p.asks++
	}
	if !ok {
		c.state = failed
		return
	}
	c.state = asking
	p.open++
	l.asked++
	l.longest = max(l.longest, int(c.hop)+1)
	e := n.entry(&n.book.pages[c.ref].key)
	q := pending{req: n.rng.Uint64(), id: n.book.rec(c.ref).ID, addr: addr, ref: c.ref, why: whyPath, path: i, lookup: l, pad: pad}
	msg := FindNode{Req: q.req, Target: l.Target, Want: uint8(min(n.cfg.Answer, 255)), Ads: l.wantsAds()}
	if l.purpose == forTable {
		msg.Want = (msg.Want + 3) / 4 // most of upkeep's bytes are these answers
	}
	if e == nil || e.state&trusts == 0 {
		q.pad = true
	}
	if e == nil || e.state&hasUs == 0 {
		msg.Record, q.with = n.book.rec(n.self), true
	}
	n.request(q, msg, n.patience(e))
}

// find is the path's candidate at that distance; nil: none.
func (p *path) find(dist uint64) *candidate {
	i, ok := slices.BinarySearchFunc(p.list, dist, func(c candidate, d uint64) int { return byDistance(c.ranked, ranked{dist: d}) })
	if !ok {
		return nil
	}
	return &p.list[i]
}

func (l *lookup) candidate(n *Node, i int, r Ref) *candidate {
	return l.paths[i].find(distance(&n.book.pages[r].key, &l.Target))
}

// missed frees the place of a request that timed out.
func (p *path) missed(n *Node, r Ref) {
	p.open--
	key := &n.book.pages[r].key
	for i := range p.list {
		if c := &p.list[i]; c.state == asking && n.book.pages[c.ref].key == *key {
			c.state = failed
		}
	}
}

// nodes takes one part of an answer on a path. first says that no part of it came before.
func (n *Node) nodes(q *pending, m Nodes, first, late bool) {
	l := q.lookup
	if l == nil || l.over() {
		return
	}
	p := &l.paths[q.path]
	c := l.candidate(n, q.path, q.ref)
	if c == nil {
		panic("bug: a path asked somebody who is not on it")
	}
	if first {
		if !late {
			p.open--
		}
		c.state = answered
		if !q.pad && m.Parts == 1 && len(m.Records) == 0 && !l.hold {
			n.send(l, q.path, c, true) // it has lost the proof of our endpoint
			return
		}
	}
	begin := q.records
	var in []ranked
	for i, rec := range m.Records {
		if q.records++; q.records > n.cfg.Answer {
			break
		}
		r := n.admit(rec)
		if r == 0 {
			continue
		}
		if i < int(m.Ads) {
			n.collect(l, r, c.dist, int(c.hop)+1)
		} else {
			in = append(in, ranked{distance(&n.book.pages[r].key, &l.Target), n.book.again(r)})
		}
		n.book.free(r)
	}
	slices.SortStableFunc(in, byDistance)
	doubt, hop := c.doubt, c.hop
	for i, r := range in {
		if r.dist == 0 && n.book.pages[r.ref].key == l.Target {
			n.sight(l, r.ref, int(hop)+1)
		}
		if n.fit(r.ref) {
			p.add(n, l, candidate{ranked: r, doubt: doubt + 1 + uint16(begin+i), hop: min(hop+1, 250)})
			n.rumour(r.ref)
		}
		n.book.free(r.ref)
	}
	if l.Ads && l.Want > 0 && len(l.ads) >= l.Want {
		n.finish(l)
		return
	}
	n.advance(l)
}

// admit holds a record that came from somebody else; 0: it is not to be believed, or our own.
func (n *Node) admit(rec *Record) Ref {
	if rec == nil || n.ahead(rec) || rec.ID == n.book.rec(n.self).ID {
		return 0
	}
	return n.book.hold(rec)
}

func (n *Node) ahead(rec *Record) bool { return rec.Seq > uint64(n.now.Add(aheadMost)/1000) }

// add puts c into the list, whose Ref it takes one holding of.
func (p *path) add(n *Node, l *lookup, c candidate) {
	i, ok := slices.BinarySearchFunc(p.list, c, func(a, b candidate) int { return byDistance(a.ranked, b.ranked) })
	if ok {
		have := &p.list[i]
		if have.state == fresh {
			have.doubt = min(have.doubt, c.doubt)
		}
		if n.book.seq(c.ref) > n.book.seq(have.ref) && have.state != asking && n.book.pages[have.ref].key == n.book.pages[c.ref].key {
			n.book.again(c.ref)
			n.book.free(have.ref)
			have.ref = c.ref
		}
		return
	}
	net, here := n.net(c.ref), 0
	if net&private == 0 {
		for j := range p.list {
			if n.net(p.list[j].ref) == net {
				here++
			}
		}
		if here >= n.cfg.PerSubnet {
			return
		}
	}
	n.book.again(c.ref)
	p.list = slices.Insert(p.list, i, c)
	if len(p.list) <= listMost {
		return
	}
	worst := -1
	for j := range p.list {
		if s := p.list[j].state; (s == fresh || s == elsewhere) && (worst < 0 || p.list[j].doubt >= p.list[worst].doubt) {
			worst = j
		}
	}
	if worst >= 0 {
		n.book.free(p.list[worst].ref)
		p.list = slices.Delete(p.list, worst, worst+1)
	}
}

// sight takes a record of the target.
func (n *Node) sight(l *lookup, r Ref, hop int) {
	if l.target != 0 && n.book.seq(r) <= n.book.seq(l.target) {
		return
	}
	moved := l.target != 0 && n.addrOf(l.target) != n.addrOf(r)
	n.book.again(r)
	n.book.free(l.target)
	l.target, l.hop, l.keepers = r, hop, nil
	if l.purpose == forUser {
		n.emit(Found{ID: l.ID, Record: n.book.rec(r)})
	}
	if moved {
		l.knocks, l.knocking, l.hold, l.alive = 0, false, false, false
	}
}

// knock asks the target itself. The paths wait for the first answer only: if none comes, its record may be an old one.
func (n *Node) knock(l *lookup) {
	if _, _, ok := n.endpoint(l.target); !ok || n.book.pages[l.target].key == n.key || n.book.rec(l.target).Relay != (crowd.Key{}) {
		l.knocks = knockMost
		return
	}
	l.hold = l.knocks == 0
	l.knocks++
	l.knocking = true
	l.asked++
	if d := uint64(0); !slices.Contains(l.claimed, d) {
		l.claimed = append(l.claimed, d)
	}
	n.ping(l.target, pending{why: whyTarget, lookup: l})
}

// collect takes an ad that the node at the distance by has named. Whose tags do not name the topic, and whose own key
// it is not, has no ad there.
func (n *Node) collect(l *lookup, r Ref, by uint64, hop int) {
	if n.book.pages[r].key == l.Target {
		n.sight(l, r, hop)
		if n.book.seq(r) == n.book.seq(l.target) && !slices.Contains(l.keepers, by) {
			l.keepers = append(l.keepers, by)
		}
	}
	if !l.Ads || !n.book.names(r, &l.Target) {
		return
	}
	for i, have := range l.ads {
		if n.book.pages[have].key == n.book.pages[r].key {
			if n.book.seq(r) > n.book.seq(have) {
				l.ads[i] = n.book.again(r)
				n.book.free(have)
			}
			return
		}
	}
	if len(l.ads) >= adsFoundMost {
		return
	}
	l.ads = append(l.ads, n.book.again(r))
	if l.purpose == forUser {
		n.emit(Found{ID: l.ID, Record: n.book.rec(r), Ad: true})
	}
}

const adsFoundMost = 512 // by one lookup

// nearestAnswered are those who answered, nearest first, at most s.
func (l *lookup) nearestAnswered(n *Node) []ranked {
	all := n.book.near[:0]
	for i := range l.paths {
		for _, c := range l.paths[i].list {
			if c.state == answered {
				all = append(all, c.ranked)
			}
		}
	}
	if l.alive {
		all = append(all, ranked{0, l.target})
	}
	slices.SortFunc(all, byDistance)
	all = slices.CompactFunc(all, func(a, b ranked) bool { return a.dist == b.dist })
	n.book.near = all
	return all[:min(len(all), n.cfg.Siblings)]
}

// over says that the lookup has ended.
func (l *lookup) over() bool { return l.paths == nil }

// finish ends the lookup.
func (n *Node) finish(l *lookup) {
	near := l.nearestAnswered(n)
	switch l.purpose {
	case forUser:
		d := Done{ID: l.ID, Alive: l.alive, Keepers: len(l.keepers), Hops: l.longest, Asked: l.asked}
		if l.target != 0 {
			d.Target, d.Hops = n.book.rec(l.target), l.hop
		}
		for _, r := range near {
			d.Nearest = append(d.Nearest, n.book.rec(r.ref))
		}
		for _, r := range l.ads {
			d.Ads = append(d.Ads, n.book.rec(r))
		}
		n.emit(d)
	case forTopic:
		n.settled(l.topic, near, l.ads)
	case forOwn:
		n.settleIn(len(near) > 0)
	case forTable:
		n.sweepBy(n.now.Add(time.Second))
	}
	if p := prefix(distance(&l.Target, &n.key)); p < len(n.buckets) {
		n.buckets[p].looked = seconds(n.now)
	}
	n.release(l)
	b := n.busy
	b.lookups = slices.DeleteFunc(b.lookups, func(o *lookup) bool { return o == l })
	for i := range b.pending {
		if b.pending[i].lookup == l {
			b.pending[i].lookup = nil // a late answer still shows that its sender lives
		}
	}
	if len(b.queue) > 0 && len(b.lookups) < lookupsMost {
		next := b.queue[0]
		b.queue = slices.Delete(b.queue, 0, 1)
		n.launch(next, forUser)
	}
}

func (n *Node) release(l *lookup) {
	for i := range l.paths {
		for _, c := range l.paths[i].list {
			n.book.free(c.ref)
		}
	}
	for _, r := range l.ads {
		n.book.free(r)
	}
	n.book.free(l.target)
	l.paths, l.ads, l.target = nil, nil, 0
}

// settleIn is after a lookup of the own key: the first one is followed by one for every bucket.
func (n *Node) settleIn(any bool) {
	if !any || n.joined {
		return
	}
	n.joined = true
	n.ownWait = 0
	n.own = n.now.Add(n.jitter(n.ownEvery()))
	far := 0
	if s := len(n.siblings); s > 0 {
		far = prefix(n.dist(n.siblings[s-1].ref))
	}
	for len(n.buckets) <= far {
		n.buckets = append(n.buckets, bucket{})
	}
	for i := range n.buckets {
		n.buckets[i].looked = 0
	}
	for _, t := range n.topics {
		t.look = n.now
	}
	n.sweepBy(n.now.Add(time.Second))
}
