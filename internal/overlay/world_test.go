package overlay

import (
	"container/heap"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
)

const begin = Time(1_700_000_000_000_000)

// world is a network without loss: each pair of nodes has one latency, and one seed is one history.
type world struct {
	tb    testing.TB
	cfg   Config
	book  *Book
	rng   *rand.Rand
	now   Time
	queue deliveries
	seq   int
	nodes []*member
	at    map[netip.AddrPort]*member // never ranged over
	cut   func(a, b *member) bool
	sent  int // bytes
	spy   func(from, to *member, s Send)
	evil  func(m *member, r Received) bool // an adversary has taken the packet
}

// member is a node of the world.
type member struct {
	*Node
	rec  *Record
	addr netip.AddrPort
	dead bool
	wake Time

	found   []Found
	done    []Done
	effects []Effect                 // but Send, Found and Done
	kept    map[crowd.NodeID]*Record // never ranged over
}

type delivery struct {
	at  Time
	seq int
	to  *member
	ev  Event
}

type deliveries []delivery

func (d deliveries) Len() int { return len(d) }
func (d deliveries) Less(i, j int) bool {
	return d[i].at < d[j].at || d[i].at == d[j].at && d[i].seq < d[j].seq
}
func (d deliveries) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *deliveries) Push(x any)   { *d = append(*d, x.(delivery)) }
func (d *deliveries) Pop() any {
	old := *d
	x := old[len(old)-1]
	*d = old[:len(old)-1]
	return x
}

func newWorld(tb testing.TB, seed uint64, cfg Config) *world {
	return &world{tb: tb, cfg: cfg, book: NewBook(), rng: rand.New(rand.NewPCG(seed, 1)), now: begin, at: map[netip.AddrPort]*member{}}
}

// recordOf is a record that nobody has signed.
func recordOf(rng *rand.Rand, addr netip.Addr, now Time) *Record {
	r := &Record{Seq: uint64(now / 1000), Endpoints: []Endpoint{{Addr: addr, UDP: 4000, TCP: 4000}}}
	r.Nonce, r.Epoch = rng.Uint64(), rng.Uint32()
	for i := 0; i < len(r.ID); i += 8 {
		binary.BigEndian.PutUint64(r.ID[i:], rng.Uint64())
	}
	return r
}

// publicAddr is an address that anybody may have.
func publicAddr(rng *rand.Rand) netip.Addr {
	for {
		a := netip.AddrFrom4([4]byte{byte(1 + rng.IntN(220)), byte(rng.IntN(256)), byte(rng.IntN(256)), byte(1 + rng.IntN(250))})
		if _, net := netOf(Endpoint{Addr: a, UDP: 1}); net != 0 && net&private == 0 {
			return a
		}
	}
}

func (w *world) add(rec *Record) *member {
	m := &member{rec: rec, kept: map[crowd.NodeID]*Record{}}
	if len(rec.Endpoints) > 0 {
		m.addr = netip.AddrPortFrom(rec.Endpoints[0].Addr, rec.Endpoints[0].UDP)
	} else {
		m.addr = netip.AddrPortFrom(publicAddr(w.rng), 999)
	}
	cfg := w.cfg
	m.Node = New(cfg, rec, w.book, rand.New(rand.NewPCG(w.rng.Uint64(), 2)))
	w.nodes = append(w.nodes, m)
	w.at[m.addr] = m
	return m
}

func (w *world) join(seeds ...*member) *member {
	m := w.add(recordOf(w.rng, publicAddr(w.rng), w.now))
	for _, s := range seeds {
		w.step(m, Seed{ID: s.rec.ID, Addr: s.addr})
	}
	return m
}

// grown is a network of so many, who joined one after another through one seed.
func grown(tb testing.TB, seed uint64, size int, cfg Config) *world {
	w := newWorld(tb, seed, cfg)
	first := w.join()
	for range size - 1 {
		w.join(first)
		w.run(50 * time.Millisecond)
	}
	w.run(time.Minute)
	return w
}

func (w *world) step(m *member, ev Event) {
	if m.dead {
		return
	}
	if r, ok := ev.(Received); ok && w.evil != nil && w.evil(m, r) {
		return
	}
	for _, e := range m.Step(w.now, ev) {
		switch e := e.(type) {
		case Send:
			w.send(m, e)
		case Found:
			m.found = append(m.found, e)
		case Done:
			m.done = append(m.done, e)
		case Keep:
			m.kept[e.Record.ID] = e.Record
		case Forget:
			delete(m.kept, e.ID)
			m.effects = append(m.effects, e)
		default:
			m.effects = append(m.effects, e)
		}
	}
	if d := m.Deadline(); d != 0 && d != m.wake {
		m.wake = d
		w.put(d, m, Woke{})
	}
}

func (w *world) put(at Time, to *member, ev Event) {
	w.seq++
	heap.Push(&w.queue, delivery{at, w.seq, to, ev})
}

// sizeOf is the length of a packet, in bytes: as the machine reckons it, which is quick.
func sizeOf(s Send) int {
	own := func(r *Record) int {
		if r == nil {
			return 0
		}
		return r.Size() - 1
	}
	n := 0
	switch m := s.Msg.(type) {
	case Ping:
		n = pingBytes + own(m.Record)
	case Pong:
		n = pongBytes + sizeAddr(m.Observed)
		if m.Ask != 0 {
			n += askBytes
		}
	case FindNode:
		n = pingBytes + 28 + own(m.Record)
	case Nodes:
		n = nodesBytes
		for _, r := range m.Records {
			n += r.Size()
		}
	case Register:
		n = pingBytes + 30 + len(m.Ticket) + own(m.Record)
	case Ticket:
		n = ticketBytes
	case Clock:
		n = clockBytes
	}
	if s.Pad {
		n = MaxPacket
	}
	return n
}

func (w *world) send(from *member, s Send) {
	size := sizeOf(s)
	w.sent += size + 28
	if size > MaxPacket {
		w.tb.Fatalf("a packet of %d bytes: %T", size, s.Msg)
	}
	to := w.at[s.Addr]
	if w.spy != nil {
		w.spy(from, to, s)
	}
	if to == nil || to.rec.ID != s.To || w.cut != nil && w.cut(from, to) {
		return
	}
	mix := uint64(from.rec.ID[0]) * uint64(to.rec.ID[0]) * 2654435761 >> 7
	delay := time.Duration(20+mix%120) * time.Millisecond / 2
	w.put(w.now.Add(delay), to, Received{From: from.rec.ID, Addr: from.addr, Size: size, Msg: s.Msg})
}

// run plays d.
func (w *world) run(d time.Duration) {
	until := w.now.Add(d)
	for len(w.queue) > 0 && w.queue[0].at <= until {
		e := heap.Pop(&w.queue).(delivery)
		w.now = e.at
		if _, ok := e.ev.(Woke); ok {
			if e.to.wake != e.at {
				continue // put off or brought forward
			}
			e.to.wake = 0
		}
		w.step(e.to, e.ev)
	}
	w.now = until
}

// look is a lookup from m, played to its end.
func (w *world) look(m *member, l Lookup) (Done, []Found) {
	w.tb.Helper()
	m.found, m.done = nil, nil
	l.ID = w.rng.Uint64()
	w.step(m, l)
	for i := 0; len(m.done) == 0; i++ {
		if i == 600 {
			w.tb.Fatalf("a lookup without an end")
		}
		w.run(100 * time.Millisecond)
	}
	if m.done[0].ID != l.ID {
		w.tb.Fatalf("done with lookup %d, want %d", m.done[0].ID, l.ID)
	}
	return m.done[0], m.found
}

// check holds the node to what must be true of every table.
func (m *member) check(tb testing.TB) {
	tb.Helper()
	n := m.Node
	all := map[uint64]int{}
	type where struct {
		net    uint64
		prefix int
	}
	here := map[where]int{} // siblings count with the bucket that they would lie in
	last := uint64(0)
	for i, e := range n.siblings {
		d := n.dist(e.ref)
		if d <= last {
			tb.Fatalf("sibling %d is not farther than the one before", i)
		}
		last = d
		all[n.net(e.ref)]++
		here[where{n.net(e.ref), prefix(d)}]++
	}
	if len(n.siblings) > n.siblingsMax() {
		tb.Fatalf("%d siblings", len(n.siblings))
	}
	for p, b := range n.buckets {
		if len(b.entries) > n.cfg.BucketSize {
			tb.Fatalf("%d entries in a bucket", len(b.entries))
		}
		if len(b.entries) > 0 && len(n.siblings) < n.siblingsMax() {
			tb.Fatalf("bucket %d used beside %d siblings", p, len(n.siblings))
		}
		in := 0
		for _, e := range b.entries {
			if d := n.dist(e.ref); d <= last && len(n.siblings) > 0 || prefix(d) != p {
				tb.Fatalf("an entry of bucket %d is out of its place", p)
			}
			if e.state&inbound != 0 {
				in++
			}
			all[n.net(e.ref)]++
			here[where{n.net(e.ref), p}]++
		}
	}
	for w, c := range here {
		if c > n.cfg.PerSubnet && w.net&private == 0 {
			tb.Fatalf("%d of one network at prefix %d", c, w.prefix)
		}
	}
	for net, c := range all {
		if c > n.cfg.PerSubnetAll && net&private == 0 {
			tb.Fatalf("%d of one network in the table", c)
		}
	}
}

// unknown counts those of the living count nodes nearest to m that are not in its table.
func (w *world) unknown(m *member, count int) (missing int) {
	near := w.nearest(m.Node.key, count+1)
	for _, o := range near[1:] {
		if m.entry(&o.Node.key) == nil {
			missing++
		}
	}
	return missing
}

// nearest are the count living nodes nearest to key.
func (w *world) nearest(key crowd.Key, count int) []*member {
	var alive []*member
	for _, m := range w.nodes {
		if !m.dead {
			alive = append(alive, m)
		}
	}
	slices.SortFunc(alive, func(a, b *member) int {
		return byDistance(ranked{dist: distance(&a.Node.key, &key)}, ranked{dist: distance(&b.Node.key, &key)})
	})
	return alive[:min(count, len(alive))]
}
