package overlay

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
)

func TestLookup_FindsEveryNodeOfANetworkGrownFromOneSeed(t *testing.T) {
	w := grown(t, 1, 200, Config{})
	w.run(20 * time.Minute)
	for i, m := range w.nodes {
		m.check(t)
		if missing := w.unknown(m, 16); missing > 0 {
			t.Errorf("node %d does not know %d of its 16 siblings", i, missing)
		}
		target := w.nodes[(i*7+11)%len(w.nodes)]
		if target == m {
			continue
		}
		from := w.now
		done, found := w.look(m, Lookup{Target: target.Key()})
		if !done.Alive || done.Target != target.rec || len(found) == 0 || found[0].Record != target.rec {
			t.Fatalf("node %d does not find its target: %+v", i, done)
		}
		if took := w.now.Sub(from); took > 2*time.Second {
			t.Errorf("node %d finds its target after %v", i, took)
		}
	}
}

func TestLookup_NearestAreTheSiblingsOfTheKey(t *testing.T) {
	w := settledWorld(t, 2, 400, Config{})
	for i := range 20 {
		var key crowd.Key
		binary.BigEndian.PutUint64(key[:], w.rng.Uint64())
		done, found := w.look(w.nodes[i], Lookup{Target: key})
		if done.Target != nil || done.Alive || len(found) != 0 {
			t.Fatalf("somebody found at a key that nobody has: %+v", done)
		}
		want := w.nearest(key, 17)
		var got []*Record
		for _, m := range want {
			if m == w.nodes[i] {
				continue // nobody finds itself
			}
			got = append(got, m.rec)
		}
		if !slices.Equal(done.Nearest, got[:16]) {
			t.Errorf("lookup %d: the nearest are not the siblings of the key", i)
		}
	}
}

// TestSKademlia_NobodyIsAskedOnTwoPaths is section 4.4's disjointness, and that no path stops early.
func TestSKademlia_NobodyIsAskedOnTwoPaths(t *testing.T) {
	w := settledWorld(t, 3, 300, Config{})
	m := w.nodes[0]
	for range 10 {
		var key crowd.Key
		binary.BigEndian.PutUint64(key[:], w.rng.Uint64())
		asked := map[crowd.NodeID]int{}
		var paths []path
		w.spy = func(from, to *member, s Send) {
			if q, ok := s.Msg.(FindNode); ok && from == m && q.Target == key {
				asked[s.To]++
			}
			if l := m.lookupOf(key); l != nil {
				paths = l.paths
			}
		}
		done, _ := w.look(m, Lookup{Target: key, Paths: 8})
		w.spy = nil
		twice := 0
		for _, times := range asked {
			if times > 1 {
				twice++
			}
		}
		if len(asked) != done.Asked || twice > 0 || done.Asked < 32 {
			t.Errorf("asked %d nodes, %d more than once, by %d requests", len(asked), twice, done.Asked)
		}
		owner := map[uint64]int{}
		for i := range paths {
			left := m.cfg.Width
			for _, c := range paths[i].list {
				if c.state == answered {
					if o, ok := owner[c.dist]; ok && o != i {
						t.Errorf("a node on paths %d and %d", o, i)
					}
					owner[c.dist] = i
				}
				if c.state == failed || c.state == elsewhere {
					continue
				}
				if left--; left >= 0 && c.state != answered && asked[w.book.rec(c.ref).ID] == 0 {
					t.Errorf("path %d stopped before somebody among its nearest %d", i, m.cfg.Width)
				}
			}
		}
	}
}

// lookupOf is the node's lookup of that key; nil: none.
func (n *Node) lookupOf(key crowd.Key) *lookup {
	if n.busy != nil {
		for _, l := range n.busy.lookups {
			if l.Target == key {
				return l
			}
		}
	}
	return nil
}

func TestTable_TheDeadAreDropped(t *testing.T) {
	w := grown(t, 4, 120, Config{})
	w.run(10 * time.Minute)
	for i, m := range w.nodes {
		m.dead = i%3 == 1
	}
	w.run(40 * time.Minute)
	for i, m := range w.nodes {
		if m.dead {
			continue
		}
		m.check(t)
		for _, p := range m.Peers() {
			if o := w.at[netip.AddrPortFrom(p.Record.Endpoints[0].Addr, 4000)]; o.dead {
				t.Errorf("node %d keeps a dead peer, heard %v ago", i, w.now.Sub(p.Heard))
			}
		}
		if missing := w.unknown(m, 16); missing > 0 {
			t.Errorf("node %d does not know %d of its siblings", i, missing)
		}
	}
}

func TestTable_NobodyIsDroppedWhileNobodyAnswers(t *testing.T) {
	w := grown(t, 5, 30, Config{})
	w.run(time.Minute)
	m := w.nodes[7]
	before := m.Stats().Entries
	cable := true
	w.cut = func(a, b *member) bool { return cable && (a == m || b == m) }
	w.run(20 * time.Minute)
	if got := m.Stats().Entries; got != before {
		t.Errorf("%d peers left of %d after its own line was cut", got, before)
	}
	cable = false
	w.run(10 * time.Minute)
	if missing := w.unknown(m, 16); missing > 0 {
		t.Errorf("%d siblings unknown after the line came back", missing)
	}
	for _, o := range w.nodes[:7] {
		if o.entry(&m.Node.key) == nil {
			t.Errorf("forgotten for good")
		}
	}
}

func TestTable_ALivePeerIsNotEvictedForANewOne(t *testing.T) {
	w := newWorld(t, 6, Config{BucketSize: 8, Siblings: 2})
	m := w.join()
	var peers []*Record
	for range 400 {
		r := recordOf(w.rng, publicAddr(w.rng), w.now)
		if m.Adopt(w.now, r); m.entry(keyOf(r)) != nil {
			peers = append(peers, r)
		}
	}
	m.check(t)
	far := m.buckets[0].entries
	had := make([]Ref, len(far))
	for i := range far {
		had[i] = far[i].ref
	}
	for range 400 {
		o := w.add(recordOf(w.rng, publicAddr(w.rng), w.now))
		w.step(o, Seed{ID: m.rec.ID, Addr: m.addr})
	}
	w.run(5 * time.Second)
	for i := range had {
		if m.entry(&w.book.pages[had[i]].key) == nil {
			t.Errorf("entry %d made room for a newcomer", i)
		}
	}
	if len(peers) == 0 || len(had) != 8 {
		t.Fatalf("%d entries in the bucket", len(had))
	}
}

func keyOf(r *Record) *crowd.Key { k := r.ID.Key(); return &k }

func TestTable_AThirdOfABucketIsForThoseWhoCome(t *testing.T) {
	w := newWorld(t, 7, Config{BucketSize: 9, Siblings: 1})
	m := w.join()
	// They speak to nobody else, so nobody names them.
	w.evil = func(o *member, r Received) bool {
		if p, ok := r.Msg.(Ping); ok && o != m {
			w.send(o, Send{To: r.From, Addr: r.Addr, Msg: Pong{Req: p.Req}})
		}
		if p, ok := r.Msg.(Pong); ok && o != m && p.Ask != 0 {
			w.send(o, Send{To: r.From, Addr: r.Addr, Msg: Pong{Req: p.Ask}})
		}
		return o != m
	}
	for range 300 {
		o := w.add(recordOf(w.rng, publicAddr(w.rng), w.now))
		w.send(o, Send{To: m.rec.ID, Addr: m.addr, Msg: Ping{Req: 1, Record: o.rec}, Pad: true})
	}
	w.run(3 * time.Second)
	if got := len(m.buckets[0].entries); got != 3 {
		t.Errorf("%d of 9 places of a bucket were filled by those who came, want 3", got)
	}
}

func TestTable_FewOfOneNetwork(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		w := newWorld(t, 8, Config{})
		m := w.join()
		if v6 {
			m = w.add(recordOf(w.rng, netip.MustParseAddr("2a00:1:1::1"), w.now))
		}
		for i := range 200 {
			a := netip.AddrFrom4([4]byte{9, 9, 9, byte(i)})
			if v6 {
				a = netip.MustParseAddr(fmt.Sprintf("2a00:9:9:%x::1", i))
			}
			m.Adopt(w.now, recordOf(w.rng, a, w.now))
		}
		m.check(t)
		if got := m.Stats().Entries; got < 8 || got > 10 {
			t.Errorf("%d entries of one network, want at most 10, 2 at each prefix", got)
		}
	}
}

func TestTable_RefusesAddressesOutsideTheInternet(t *testing.T) {
	tests := []struct {
		name string
		addr string
		fit  bool
	}{
		{"public", "8.8.8.8", true},
		{"public v6", "2a00:1450::1", true},
		{"loopback", "127.0.0.1", false},
		{"private", "192.168.1.1", false},
		{"carrier NAT", "100.64.1.1", false},
		{"link-local", "169.254.1.1", false},
		{"unspecified", "0.0.0.0", false},
		{"multicast", "224.0.0.1", false},
		{"broadcast", "255.255.255.255", false},
		{"documentation", "203.0.113.5", false},
		{"unique local", "fd00::1", false},
		{"6to4", "2002:808:808::1", false},
		{"Teredo", "2001:0:808:808::1", false},
		{"v4 in v6", "::ffff:8.8.8.8", false},
		{"zone", "fe80::1%eth0", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 1))
			self := recordOf(rng, publicAddr(rng), begin)
			self.Endpoints = append(self.Endpoints, Endpoint{Addr: netip.MustParseAddr("2a00::7"), UDP: 1})
			n := New(Config{}, self, NewBook(), rng)
			n.Adopt(begin, recordOf(rng, netip.MustParseAddr(tt.addr), begin))
			if got := n.Stats().Entries == 1; got != tt.fit {
				t.Errorf("an entry: %v, want %v", got, tt.fit)
			}
		})
	}
	rng := rand.New(rand.NewPCG(1, 1))
	n := New(Config{Private: true}, recordOf(rng, netip.MustParseAddr("127.0.0.1"), begin), NewBook(), rng)
	for range 40 {
		n.Adopt(begin, recordOf(rng, netip.MustParseAddr("127.0.0.1"), begin))
	}
	n.Adopt(begin, recordOf(rng, netip.MustParseAddr("224.0.0.1"), begin))
	if got := n.Stats().Entries; got != 40 {
		t.Errorf("%d entries of a private network, want 40", got)
	}
}

func TestTable_AClientIsNoEntry(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	n := New(Config{}, recordOf(rng, publicAddr(rng), begin), NewBook(), rng)
	relayed, silent := recordOf(rng, publicAddr(rng), begin), recordOf(rng, publicAddr(rng), begin)
	relayed.Relay[0] = 1
	silent.Endpoints = nil
	n.Adopt(begin, relayed)
	n.Adopt(begin, silent)
	if got := n.Stats().Entries; got != 0 {
		t.Errorf("%d clients in the table", got)
	}
}

// TestProof_NobodyIsAmplified throws requests of all sorts at a node from addresses that it never heard from:
// it never sends more bytes there than came from there.
func TestProof_NobodyIsAmplified(t *testing.T) {
	w := settledWorld(t, 9, 100, Config{})
	m := w.nodes[0]
	m.ads = &registrar{}
	for range 50 {
		o := w.nodes[w.rng.IntN(100)]
		m.ads.ads = append(m.ads.ads, ad{m.Node.key, w.book.hold(o.rec), o.addr.Addr(), w.now.Add(time.Hour)})
	}
	answers, bare, bareAnswered := 0, 0, 0
	for i := range 3000 {
		rec := recordOf(w.rng, publicAddr(w.rng), w.now)
		if i%3 == 0 {
			rec.Tags = []string{"gpu"}
		}
		from := netip.AddrPortFrom(publicAddr(w.rng), 4000)
		if i%2 == 0 {
			from = netip.AddrPortFrom(rec.Endpoints[0].Addr, rec.Endpoints[0].UDP)
		}
		if i%5 == 0 {
			rec = w.nodes[1+w.rng.IntN(99)].rec // a peer, but not from its address
		}
		given := rec
		if w.rng.IntN(3) == 0 {
			given = nil
		}
		var msg Message
		switch w.rng.IntN(4) {
		case 0:
			msg = Ping{Req: w.rng.Uint64(), Seq: w.rng.Uint64(), Record: given}
		case 1:
			msg = FindNode{Req: w.rng.Uint64(), Target: w.nodes[w.rng.IntN(100)].Node.key, Want: uint8(w.rng.IntN(256)), Ads: i%2 == 0, Record: given}
		case 2:
			msg = Register{Req: w.rng.Uint64(), Topic: Topic("gpu"), Record: rec}
		}
		least := PacketSize(msg)
		if msg != nil && w.rng.IntN(2) == 0 {
			least = MaxPacket - 1
		}
		in, out, isBare := least, 0, false
		if s, ok := msg.(Ping); ok && s.Record == nil && in < MaxPacket-1 {
			bare++
			isBare = true
		}
		var effects []Effect
		if msg == nil {
			in = headSize + w.rng.IntN(200)
			effects = m.Step(w.now, Stale{From: rec.ID, Addr: from, Size: in})
		} else {
			effects = m.Step(w.now, Received{From: rec.ID, Addr: from, Size: in, Msg: msg})
		}
		for _, e := range effects {
			if s, ok := e.(Send); ok {
				if s.Addr != from {
					continue
				}
				size := PacketSize(s.Msg)
				if s.Pad {
					size = MaxPacket
				}
				out += size + 30 // of IPv4, UDP and the magic
				answers++
				if _, ok := s.Msg.(Pong); ok && isBare {
					bareAnswered++
				}
			}
		}
		if out > in+30 {
			t.Fatalf("%d bytes out for %d in: %#v", out, in+30, msg)
		}
		w.now = w.now.Add(200 * time.Millisecond)
	}
	if answers < 2000 || bareAnswered < bare || bare < 50 {
		t.Errorf("%d answers; %d of %d pings without a record", answers, bareAnswered, bare)
	}
}

func TestProof_FullAnswersOnceProven(t *testing.T) {
	w := settledWorld(t, 10, 100, Config{})
	a, b := w.nodes[0], w.add(recordOf(w.rng, publicAddr(w.rng), w.now))
	ask := func(addr netip.AddrPort, size int) (records int, ping *Ping) {
		for _, e := range a.Step(w.now, Received{From: b.rec.ID, Addr: addr, Size: size, Msg: FindNode{Req: 7, Want: 16, Target: b.Node.key, Record: b.rec}}) {
			if s, ok := e.(Send); ok && s.Addr == addr {
				switch m := s.Msg.(type) {
				case Nodes:
					records += len(m.Records)
				case Ping:
					ping = &m
				}
			}
		}
		return records, ping
	}
	some, ping := ask(b.addr, MaxPacket)
	if some == 0 || some == 16 || ping == nil {
		t.Fatalf("%d records for a stranger, ping %v", some, ping)
	}
	// From elsewhere, with a wrong number, or by another node, an answer proves nothing.
	other := netip.AddrPortFrom(publicAddr(w.rng), 1)
	a.Step(w.now, Received{From: b.rec.ID, Addr: other, Size: 200, Msg: Pong{Req: ping.Req}})
	a.Step(w.now, Received{From: b.rec.ID, Addr: b.addr, Size: 200, Msg: Pong{Req: ping.Req + 1}})
	a.Step(w.now, Received{From: w.nodes[5].rec.ID, Addr: b.addr, Size: 200, Msg: Pong{Req: ping.Req}})
	if got, _ := ask(b.addr, MaxPacket); got == 16 {
		t.Fatalf("proven by what proves nothing")
	}
	a.Step(w.now, Received{From: b.rec.ID, Addr: b.addr, Size: 200, Msg: Pong{Req: ping.Req, Seq: b.rec.Seq}})
	if got, _ := ask(b.addr, 170); got != 16 {
		t.Errorf("%d records for a proven endpoint, want 16", got)
	}
	if got, _ := ask(other, 170); got != 0 {
		t.Errorf("%d records at another address", got)
	}
	w.now = w.now.Add(13 * time.Hour)
	if got, _ := ask(b.addr, 170); got != 0 {
		t.Errorf("%d records 13 hours later", got)
	}
}

func TestJoin_RetriesItsSeeds(t *testing.T) {
	w := newWorld(t, 11, Config{})
	late := w.add(recordOf(w.rng, publicAddr(w.rng), w.now))
	late.dead = true
	tries := 0
	w.spy = func(from, to *member, s Send) {
		if to == late {
			tries++
		}
	}
	m := w.join(late)
	w.run(10 * time.Minute)
	if tries < 10 || tries > 30 {
		t.Errorf("%d tries in ten minutes, want some every minute", tries)
	}
	late.dead = false
	w.run(2 * time.Minute)
	if m.Stats().Entries != 1 || late.Stats().Entries != 1 {
		t.Errorf("%d and %d entries after the seed came", m.Stats().Entries, late.Stats().Entries)
	}
}

func TestJoin_TwoHalvesBecomeOneAgain(t *testing.T) {
	w := grown(t, 12, 80, Config{})
	w.run(30 * time.Minute)
	half := map[*member]int{}
	for i, m := range w.nodes {
		half[m] = i % 2
	}
	apart := true
	w.cut = func(a, b *member) bool { return apart && half[a] != half[b] }
	w.run(90 * time.Minute)
	for _, m := range w.nodes {
		for _, p := range m.Peers() {
			if half[w.at[netip.AddrPortFrom(p.Record.Endpoints[0].Addr, 4000)]] != half[m] {
				t.Fatalf("a peer beyond the cut was kept")
			}
		}
	}
	apart = false
	w.run(2 * time.Hour)
	bad := 0
	for _, m := range w.nodes {
		bad += w.unknown(m, 16)
	}
	if bad > 0 {
		t.Errorf("%d siblings unknown after the cut was healed", bad)
	}
}

// Two halves that quite lost each other meet by whoever is a seed of both, tried no longer after the
// end of the cut than the cut took, once more, and a quarter of a minute.
func TestJoin_HalvesThatLostEachOtherMeetSoon(t *testing.T) {
	for i, cut := range []time.Duration{0, 30 * time.Second, 3 * time.Minute, 10 * time.Minute} {
		t.Run(cut.String(), func(t *testing.T) { meetAfter(t, uint64(21+i), cut) })
	}
}

// meetAfter plays a cut that lasts until no node of one half counts on any of the other, and rest after that.
func meetAfter(t *testing.T, seed uint64, rest time.Duration) {
	w := grown(t, seed, 24, Config{})
	w.run(time.Minute)
	half := map[*member]int{}
	for i, m := range w.nodes {
		half[m] = i % 2
	}
	apart := true
	w.cut = func(a, b *member) bool { return apart && half[a] != half[b] }
	began := w.now
	known := func() (beyond int) {
		for _, m := range w.nodes {
			m.each(func(e *entry) {
				if e.state&fails < 3 && half[w.at[m.addrOf(e.ref)]] != half[m] {
					beyond++
				}
			})
		}
		return beyond
	}
	for i := 0; known() > 0; i++ {
		if i == 100 {
			t.Fatalf("%d peers beyond the cut are trusted", known())
		}
		for j, m := range w.nodes {
			w.step(m, Lookup{ID: uint64(1000 + j), Target: Topic(fmt.Sprint(i, j))})
		}
		w.run(5 * time.Second)
	}
	newcomers := [2]*member{}
	for side := range newcomers {
		newcomers[side] = w.add(recordOf(w.rng, publicAddr(w.rng), w.now))
		half[newcomers[side]] = side
		w.step(newcomers[side], Seed{ID: w.nodes[2+side].rec.ID, Addr: w.nodes[2+side].addr})
	}
	w.run(15*time.Second + rest)
	took := w.now.Sub(began)
	apart = false
	w.run(min(2*took+seedSoon, seedRest))
	for side, m := range newcomers {
		other := newcomers[1-side]
		if d, _ := w.look(m, Lookup{Target: other.Key()}); !d.Alive || d.Target != other.rec {
			t.Errorf("%v after a cut of %v the newcomer of half %d does not find the other", min(2*took+seedSoon, seedRest), took, side)
		}
	}
}

func TestJoin_FromWhatWasKept(t *testing.T) {
	w := grown(t, 13, 60, Config{})
	m := w.nodes[5]
	if len(m.kept) != m.Stats().Entries {
		t.Errorf("%d peers kept for the database, %d in the table", len(m.kept), m.Stats().Entries)
	}
	again := &member{rec: m.rec, addr: m.addr, kept: map[crowd.NodeID]*Record{}}
	again.Node = New(w.cfg, m.rec, w.book, rand.New(rand.NewPCG(1, 9)))
	w.nodes[5], w.at[m.addr], m.dead = again, again, true
	for _, o := range w.nodes[10:20] {
		if rec := m.kept[o.rec.ID]; rec != nil {
			w.step(again, Seed{ID: rec.ID, Addr: o.addr, Record: rec})
		}
	}
	w.run(time.Minute)
	if missing := w.unknown(again, 16); missing > 0 {
		t.Errorf("%d siblings unknown a minute after a restart", missing)
	}
}

func TestNode_AMovedPeerIsFollowed(t *testing.T) {
	w := grown(t, 14, 40, Config{})
	m := w.nodes[9]
	w.now = w.now.Add(time.Second)
	var knew []*member
	for _, o := range w.nodes {
		if o.entry(&m.Node.key) != nil {
			knew = append(knew, o)
		}
	}
	moved := *m.rec
	moved.Seq = uint64(w.now / 1000)
	moved.Endpoints = []Endpoint{{Addr: publicAddr(w.rng), UDP: 4000}}
	old := m.addr
	delete(w.at, old)
	m.rec, m.addr = &moved, netip.AddrPortFrom(moved.Endpoints[0].Addr, 4000)
	w.at[m.addr] = m
	w.step(m, Renewed{Record: &moved})
	w.run(30 * time.Minute)
	for i, o := range knew {
		if e := o.entry(&m.Node.key); e == nil || w.book.rec(e.ref) != &moved {
			t.Errorf("peer %d of %d does not know where it moved", i, len(knew))
		}
	}
	// An older record replaces nothing.
	o := knew[0]
	stale := moved
	stale.Seq--
	w.step(o, Received{From: m.rec.ID, Addr: m.addr, Size: 400, Msg: Ping{Req: 1, Seq: stale.Seq, Record: &stale}})
	w.run(time.Second)
	if e := o.entry(&m.Node.key); w.book.rec(e.ref) != &moved {
		t.Errorf("an older record replaced a newer one")
	}
}

func TestNode_BlamesWhatNoHonestNodeDoes(t *testing.T) {
	w := settledWorld(t, 15, 50, Config{})
	m, o := w.nodes[0], w.nodes[1]
	future := *o.rec
	future.Seq = uint64(w.now.Add(2*time.Hour) / 1000)
	tests := []struct {
		name string
		msg  Message
	}{
		{"another's record", Ping{Req: 1, Record: w.nodes[2].rec}},
		{"a record from the future", FindNode{Req: 1, Record: &future}},
		{"an ad of what it has not", Register{Req: 1, Topic: Topic("gpu"), Record: o.rec}},
		{"an ad without a record", Register{Req: 1, Topic: Topic("gpu")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, e := range m.Step(w.now, Received{From: o.rec.ID, Addr: o.addr, Size: MaxPacket, Msg: tt.msg}) {
				if b, ok := e.(Blame); ok && b.ID == o.rec.ID {
					return
				}
			}
			t.Errorf("no blame")
		})
	}
	for _, msg := range []Message{Pong{Req: 1}, Nodes{Req: 1, Parts: 1, Records: []*Record{o.rec, &future}}, Ticket{Req: 1, Kept: true}, Clock{Req: 1}} {
		if got := m.Step(w.now, Received{From: o.rec.ID, Addr: o.addr, Size: 500, Msg: msg}); len(got) != 0 {
			t.Errorf("an answer to nothing has effects: %v", got)
		}
	}
}

func TestClock_FiveNetworksMustAgree(t *testing.T) {
	w := settledWorld(t, 16, 60, Config{})
	m := w.nodes[0]
	asked := map[crowd.NodeID]uint64{}
	var order []*member
	w.spy = func(from, to *member, s Send) {
		if q, ok := s.Msg.(FindNode); ok && from == m {
			asked[s.To] = q.Req
			order = append(order, to)
		}
	}
	w.step(m, Lookup{Target: Topic("x"), Paths: 8})
	if len(order) < 7 {
		t.Fatalf("%d requests under way", len(order))
	}
	tell := func(o *member, by time.Duration, wrong uint64) (off []ClockOff) {
		for _, e := range m.Step(w.now, Received{From: o.rec.ID, Addr: o.addr, Size: 200, Msg: Clock{Req: asked[o.rec.ID] + wrong, Now: w.now.Add(by)}}) {
			if c, ok := e.(ClockOff); ok {
				off = append(off, c)
			}
		}
		return off
	}
	for range 10 {
		if off := tell(order[0], time.Hour, 0); off != nil {
			t.Fatal("one peer moves the clock")
		}
	}
	for _, o := range order[1:7] {
		if off := tell(o, time.Hour, 1); off != nil {
			t.Fatal("an answer to nothing moves the clock")
		}
	}
	for _, o := range order[1:4] {
		if off := tell(o, time.Hour, 0); off != nil {
			t.Fatal("four peers move the clock")
		}
	}
	if off := tell(order[4], -time.Hour, 0); off != nil {
		t.Fatal("one that differs was counted as the fifth")
	}
	off := tell(order[5], time.Hour+20*time.Second, 0)
	if len(off) != 1 || (off[0].By-time.Hour).Abs() > time.Minute {
		t.Fatalf("five peers agree: %v", off)
	}
	if off := tell(order[6], time.Hour, 0); off != nil {
		t.Errorf("told twice")
	}
}

func TestClock_AnswersAreFewAndNoLarger(t *testing.T) {
	w := settledWorld(t, 17, 5, Config{})
	m, sent := w.nodes[0], 0
	for range 1000 {
		sent += len(m.Step(w.now, Stale{From: w.nodes[1].rec.ID, Addr: w.nodes[1].addr, Size: 300, Req: 9}))
	}
	if sent != clockBurst {
		t.Errorf("%d answers at once, want %d", sent, clockBurst)
	}
	if got := m.Step(w.now.Add(time.Hour), Stale{From: w.nodes[1].rec.ID, Addr: w.nodes[1].addr, Size: clockBytes - 1}); len(slices.DeleteFunc(slices.Clone(got), func(e Effect) bool {
		s, ok := e.(Send)
		return !ok || reflect.TypeOf(s.Msg) != reflect.TypeFor[Clock]()
	})) != 0 {
		t.Errorf("an answer larger than the packet")
	}
}

func TestNode_OneSeedIsOneHistory(t *testing.T) {
	play := func() (sum uint64) {
		w := newWorld(t, 18, Config{})
		w.spy = func(from, to *member, s Send) {
			h := crowd.Keccak256(fmt.Appendf(nil, "%d %d %x %v %T %d", sum, w.now, from.rec.ID[:8], s.Addr, s.Msg, sizeOf(s)))
			sum = binary.BigEndian.Uint64(h[:])
		}
		first := w.join()
		for range 40 {
			w.join(first)
			w.run(50 * time.Millisecond)
		}
		w.run(20 * time.Minute)
		return sum
	}
	if a, b := play(), play(); a != b {
		t.Errorf("two histories of one seed: %x and %x", a, b)
	}
}

func TestBook_HoldsNothingWhenItsNodesAreGone(t *testing.T) {
	w := grown(t, 19, 60, Config{})
	for i := range 30 {
		w.step(w.nodes[i], Lookup{ID: 1, Target: w.nodes[59-i].Key(), Paths: 8})
	}
	w.run(100 * time.Millisecond)
	for _, m := range w.nodes {
		m.Close()
	}
	if got := w.book.Len(); got != 0 {
		t.Errorf("%d records held by nobody", got)
	}
}

// TestNode_NothingFromOutsidePanics answers a node's requests with all sorts of nonsense, and asks it nonsense.
func TestNode_NothingFromOutsidePanics(t *testing.T) {
	w := settledWorld(t, 20, 60, Config{Proofs: 8, Ads: 20})
	m, rng := w.nodes[0], w.rng
	w.tagIt(m, "gpu")
	var asked []Send
	collect := func(effects []Effect) {
		for _, e := range effects {
			if s, ok := e.(Send); ok {
				asked = append(asked, s)
			}
		}
	}
	record := func() *Record {
		switch rng.IntN(6) {
		case 0:
			return nil
		case 1:
			r := recordOf(rng, publicAddr(rng), w.now)
			r.Seq = rng.Uint64()
			return r
		case 2:
			r := recordOf(rng, publicAddr(rng), w.now)
			r.Tags, r.Endpoints = []string{"gpu"}, nil
			return r
		case 3:
			r := *w.nodes[rng.IntN(60)].rec
			r.Seq += uint64(rng.IntN(3))
			r.Endpoints = []Endpoint{{Addr: publicAddr(rng), UDP: 4000}}
			r.Sig[0] = byte(rng.IntN(256))
			return &r
		}
		return w.nodes[rng.IntN(60)].rec
	}
	for i := range 40_000 {
		if i%50 == 0 {
			collect(m.Step(w.now, Lookup{ID: uint64(i), Target: w.nodes[rng.IntN(60)].Key(), Paths: rng.IntN(40) - 2, Ads: i%100 == 0, Want: rng.IntN(4)}))
		}
		switch i % 500 {
		case 1:
			collect(m.Step(w.now, Announce{Topic: Topic("gpu")}))
		case 2:
			collect(m.Step(w.now, Withdraw{Topic: Topic("gpu")}))
		}
		o := w.nodes[rng.IntN(60)]
		from, addr, req := o.rec.ID, o.addr, rng.Uint64()
		if len(asked) > 0 && rng.IntN(4) > 0 {
			s := asked[len(asked)-1-rng.IntN(min(len(asked), 40))]
			from, addr = s.To, s.Addr
			switch q := s.Msg.(type) {
			case Ping:
				req = q.Req
			case FindNode:
				req = q.Req
			case Register:
				req = q.Req
			}
		}
		var recs []*Record
		for range rng.IntN(20) {
			recs = append(recs, record())
		}
		var msg Message
		switch rng.IntN(8) {
		case 0:
			msg = Ping{Req: req, Seq: rng.Uint64(), Record: record()}
		case 1:
			msg = Pong{Req: req, Seq: rng.Uint64()}
		case 2:
			msg = FindNode{Req: req, Target: w.nodes[rng.IntN(60)].Key(), Want: uint8(rng.IntN(256)), Ads: true, Record: record()}
		case 3, 4:
			msg = Nodes{Req: req, Part: uint8(rng.IntN(4)), Parts: uint8(rng.IntN(5)), Ads: uint8(rng.IntN(3)), Records: recs}
		case 5:
			msg = Register{Req: req, Topic: Topic("gpu"), Ticket: make([]byte, rng.IntN(50)), Record: record()}
		case 6:
			msg = Ticket{Req: req, Kept: rng.IntN(2) == 0, Wait: time.Duration(rng.Int64() - rng.Int64()), Ticket: make([]byte, rng.IntN(50))}
		case 7:
			msg = Clock{Req: req, Now: Time(rng.Int64() - rng.Int64())}
		}
		collect(m.Step(w.now, Received{From: from, Addr: addr, Size: 100 + rng.IntN(1200), Msg: msg}))
		if rng.IntN(3) == 0 {
			w.now = w.now.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
		}
		if len(asked) > 1000 {
			asked = asked[500:]
		}
	}
	m.check(t)
	w.now = w.now.Add(time.Minute)
	for range 100 {
		m.Step(w.now, Woke{})
		w.now = w.now.Add(time.Second)
	}
	for _, o := range w.nodes {
		o.Close()
	}
	if got := w.book.Len(); got != 0 {
		t.Errorf("%d records held by nobody", got)
	}
}
