package overlay

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
)

// tagIt gives a member the tags.
func (w *world) tagIt(m *member, tags ...string) {
	rec := *m.rec
	rec.Tags, rec.Seq = tags, rec.Seq+1
	m.rec = &rec
	w.step(m, Renewed{Record: &rec})
}

func TestAds_AreFoundAndAgeOut(t *testing.T) {
	w := settledWorld(t, 21, 300, Config{})
	topic := Topic("gpu")
	for i := range 12 {
		w.tagIt(w.nodes[i], "gpu")
		w.step(w.nodes[i], Announce{Topic: topic})
	}
	w.run(10 * time.Minute)
	done, found := w.look(w.nodes[200], Lookup{Target: topic, Ads: true, Paths: 8})
	if len(done.Ads) != 12 {
		t.Errorf("%d ads found, want 12", len(done.Ads))
	}
	if len(found) != 12 || slices.ContainsFunc(found, func(f Found) bool { return !f.Ad || !slices.Contains(f.Record.Tags, "gpu") }) {
		t.Errorf("%d ads told", len(found))
	}
	if done, _ := w.look(w.nodes[200], Lookup{Target: topic, Ads: true, Want: 5}); len(done.Ads) < 5 {
		t.Errorf("%d ads, wanted 5", len(done.Ads))
	}
	if done, _ := w.look(w.nodes[200], Lookup{Target: topic}); len(done.Ads) != 0 {
		t.Errorf("%d ads that nobody asked for", len(done.Ads))
	}
	kept := 0
	for _, m := range w.nearest(topic, 16) {
		if m.ads != nil {
			kept += len(m.ads.ads)
		}
	}
	if kept < 12*12 {
		t.Errorf("%d ads at the 16 siblings of the topic", kept)
	}
	// They are renewed before they age out, and not after Withdraw.
	w.run(time.Hour)
	if done, _ := w.look(w.nodes[201], Lookup{Target: topic, Ads: true, Paths: 8}); len(done.Ads) != 12 {
		t.Errorf("%d ads an hour later, want 12", len(done.Ads))
	}
	for i := range 6 {
		w.step(w.nodes[i], Withdraw{Topic: topic})
	}
	w.run(20 * time.Minute)
	if done, _ := w.look(w.nodes[202], Lookup{Target: topic, Ads: true, Paths: 8}); len(done.Ads) != 6 {
		t.Errorf("%d ads after six were withdrawn, want 6", len(done.Ads))
	}
	// Those with the tag have met by it.
	for i := 6; i < 12; i++ {
		if got := len(w.nodes[i].Tagged("gpu")); got < 8 {
			t.Errorf("node %d knows %d of its tag", i, got)
		}
	}
}

// A client has no endpoint: it is found by the ad that it keeps under its own key, while nodes come and go.
func TestAds_AClientIsFoundByItsKey(t *testing.T) {
	w := grown(t, 22, 120, Config{})
	rec := recordOf(w.rng, publicAddr(w.rng), w.now)
	rec.Endpoints, rec.Relay = nil, w.nodes[3].Key()
	c := w.add(rec)
	for _, o := range w.nodes[10:14] {
		w.step(c, Seed{ID: o.rec.ID, Addr: o.addr, Record: o.rec})
	}
	w.run(time.Minute)
	for round := range 20 {
		from := w.nodes[(7*round+5)%120]
		if from.dead {
			from = w.nodes[len(w.nodes)-1]
		}
		done, found := w.look(from, Lookup{Target: c.Key()})
		if done.Target != c.rec || done.Alive || len(found) == 0 || found[0].Record != c.rec || len(done.Ads) != 0 {
			t.Errorf("round %d: the client is not found: %+v", round, done)
		}
		if done.Keepers < 3 {
			t.Errorf("round %d: %d keep its ad", round, done.Keepers)
		}
		if round%3 == 2 { // half of the registrars go, as many nodes come
			for i, o := range w.nearest(c.Key(), 17) {
				if o != c && i%2 == 1 && o != w.nodes[3] {
					o.dead = true
				}
			}
			for i := range 8 {
				if o := w.nodes[20+round+i]; !o.dead {
					w.join(o)
				}
			}
		}
		w.run(time.Duration(3+w.rng.IntN(4)) * time.Minute)
	}
	for _, m := range w.nodes {
		if m.entry(&c.Node.key) != nil {
			t.Fatal("a client became an entry")
		}
	}
	// Its later record is found at once; when it has an endpoint of its own, its ads age out.
	w.now = w.now.Add(time.Second)
	later := *rec
	later.Seq, later.Relay = uint64(w.now/1000), w.nodes[len(w.nodes)-1].Key()
	c.rec = &later
	w.step(c, Renewed{Record: &later})
	w.run(10 * time.Second)
	if done, _ := w.look(w.nodes[len(w.nodes)-2], Lookup{Target: c.Key()}); done.Target != &later {
		t.Errorf("its later record is not found: %+v", done)
	}
	w.now = w.now.Add(time.Second)
	open := later
	open.Seq, open.Relay, open.Endpoints = uint64(w.now/1000), crowd.Key{}, []Endpoint{{Addr: c.addr.Addr(), UDP: c.addr.Port()}}
	c.rec = &open
	w.step(c, Renewed{Record: &open})
	w.run(20 * time.Minute)
	if done, _ := w.look(w.nodes[len(w.nodes)-2], Lookup{Target: c.Key()}); done.Target != &open || !done.Alive || done.Keepers != 0 {
		t.Errorf("a client no longer: %+v", done)
	}
}

// A peer that finds itself behind a NAT says so, and is an entry no more, although it still answers.
func TestTable_WhoBecomesAClientLeaves(t *testing.T) {
	w := settledWorld(t, 27, 20, Config{})
	m, o := w.nodes[0], w.nodes[1]
	if m.entry(&o.Node.key) == nil {
		t.Fatal("want all of twenty as entries")
	}
	rec := *o.rec
	rec.Endpoints, rec.Relay, rec.Seq = nil, w.nodes[3].Key(), rec.Seq+1
	forgot := false
	for _, e := range m.Step(w.now, Received{From: rec.ID, Addr: o.addr, Size: MaxPacket, Msg: Ping{Req: 1, Record: &rec}}) {
		f, ok := e.(Forget)
		forgot = forgot || ok && f.ID == rec.ID
	}
	if m.entry(&o.Node.key) != nil || !forgot {
		t.Errorf("still an entry: %v, forgotten: %v", m.entry(&o.Node.key) != nil, forgot)
	}
}

// advertiser speaks to a registrar by hand, from any address, and is proven there.
type advertiser struct {
	w    *world
	m    *member
	rec  *Record
	addr netip.AddrPort
}

func (w *world) advertiser(m *member, addr netip.Addr, tags ...string) advertiser {
	rec := recordOf(w.rng, addr, w.now)
	rec.Tags = tags
	a := advertiser{w, m, rec, netip.AddrPortFrom(addr, 4000)}
	m.prove(&rec.ID, a.addr)
	return a
}

func (a advertiser) register(ticket []byte) Ticket {
	a.w.tb.Helper()
	for _, e := range a.m.Step(a.w.now, Received{From: a.rec.ID, Addr: a.addr, Size: MaxPacket, Msg: Register{Req: 5, Topic: Topic(a.rec.Tags[0]), Ticket: ticket, Record: a.rec}}) {
		if s, ok := e.(Send); ok {
			if t, ok := s.Msg.(Ticket); ok {
				return t
			}
		}
	}
	a.w.tb.Fatal("a Register is not answered")
	return Ticket{}
}

// wait goes through with a registration; it fails if more than max would pass.
func (a advertiser) wait(longest time.Duration) bool {
	var ticket []byte
	for passed := time.Duration(0); passed <= longest; {
		t := a.register(ticket)
		if t.Kept {
			return true
		}
		ticket = t.Ticket
		passed += t.Wait
		a.w.now = a.w.now.Add(t.Wait)
	}
	return false
}

func TestTicket_WorthlessUnlessItsOwnDueAndGenuine(t *testing.T) {
	w := settledWorld(t, 23, 20, Config{Secret: [32]byte{1}})
	m := w.nodes[0]
	for range 60 {
		w.advertiser(m, publicAddr(w.rng), "gpu").wait(time.Hour)
	}
	a := w.advertiser(m, publicAddr(w.rng), "gpu")
	first := a.register(nil)
	if first.Kept || first.Wait < 10*time.Second {
		t.Fatalf("kept %v, wait %v beside 60 ads", first.Kept, first.Wait)
	}
	start := w.now
	tests := []struct {
		name string
		at   time.Duration
		who  func() advertiser
		bend func([]byte) []byte
		kept bool
	}{
		{name: "early", at: first.Wait - time.Second},
		{name: "late", at: first.Wait + adWindow + time.Second},
		{name: "no ticket", at: first.Wait, bend: func([]byte) []byte { return nil }},
		{name: "cut", at: first.Wait, bend: func(b []byte) []byte { return b[:len(b)-1] }},
		{name: "older than it is", at: first.Wait, bend: func(b []byte) []byte { b[5]--; return b }},
		{name: "forged MAC", at: first.Wait, bend: func(b []byte) []byte { b[39] ^= 1; return b }},
		{name: "another's", at: first.Wait, who: func() advertiser { return w.advertiser(m, publicAddr(w.rng), "gpu") }},
		{name: "another's at the same address", at: first.Wait, who: func() advertiser { return w.advertiser(m, a.addr.Addr(), "gpu") }},
		{name: "from another address", at: first.Wait, who: func() advertiser {
			b := a
			b.addr = netip.AddrPortFrom(publicAddr(w.rng), 4000)
			m.prove(&b.rec.ID, b.addr)
			return b
		}},
		{name: "for another topic", at: first.Wait, who: func() advertiser {
			b := a
			rec := *a.rec
			rec.Tags, rec.Seq = []string{"disk"}, rec.Seq+1
			b.rec = &rec
			for range 60 {
				w.advertiser(m, publicAddr(w.rng), "disk").wait(0)
			}
			return b
		}},
		{name: "as it should be", at: first.Wait, kept: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.now = start.Add(tt.at)
			m.Node.now = 0 // the same moment for every case
			who, ticket := a, slices.Clone(first.Ticket)
			if tt.who != nil {
				who = tt.who()
			}
			if tt.bend != nil {
				ticket = tt.bend(ticket)
			}
			if got := who.register(ticket); got.Kept != tt.kept {
				t.Errorf("kept %v, want %v (wait %v)", got.Kept, tt.kept, got.Wait)
			}
		})
	}
	// Another registrar's ticket: same machine, another secret.
	w.now = start
	m.secret[0]++
	m.Node.now = 0
	b := w.advertiser(m, publicAddr(w.rng), "gpu")
	ticket := b.register(nil)
	m.secret[0]--
	w.now = w.now.Add(ticket.Wait)
	if got := b.register(ticket.Ticket); got.Kept {
		t.Error("a ticket under another secret counts")
	}
}

func TestAds_AreBounded(t *testing.T) {
	w := settledWorld(t, 24, 20, Config{Ads: 40})
	m := w.nodes[0]
	kept := func(of func(ad) bool) (count int) { // now
		for _, a := range m.ads.ads {
			if a.until > w.now && of(a) {
				count++
			}
		}
		return count
	}
	most := 0
	for range 30 {
		w.advertiser(m, publicAddr(w.rng), "gpu").wait(0)
		w.advertiser(m, publicAddr(w.rng), "gpu").wait(time.Minute)
		most = max(most, kept(func(a ad) bool { return a.topic == Topic("gpu") }))
	}
	if most == 0 || most > 10 {
		t.Errorf("%d ads of one topic among 40, want at most 10", most)
	}
	near := 0
	for i := range 20 {
		tag := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"}[i]
		w.advertiser(m, netip.AddrFrom4([4]byte{9, 9, 9, byte(i)}), tag).wait(14 * time.Minute)
		near = max(near, kept(func(a ad) bool { return a.addr.As4()[0] == 9 && a.addr.As4()[1] == 9 }))
	}
	if near == 0 || near > 10 {
		t.Errorf("%d ads of one network", near)
	}
	if len(m.ads.ads) > 40 {
		t.Errorf("%d ads kept", len(m.ads.ads))
	}
}

// A node's ads under several topics do not make each other wait, nor does anything a client's under its own key.
func TestAds_OfOneNodeDoNotWaitForEachOther(t *testing.T) {
	w := settledWorld(t, 26, 20, Config{})
	m := w.nodes[0]
	m.Step(w.now, Woke{})
	addr := publicAddr(w.rng)
	rec, other := recordOf(w.rng, addr, w.now), recordOf(w.rng, addr, w.now)
	m.ads = &registrar{ads: []ad{{Topic("gpu"), w.book.hold(rec), addr, w.now.Add(time.Hour)}}}
	for _, c := range []struct {
		name  string
		from  crowd.NodeID
		topic crowd.Key
		free  bool
	}{
		{"the same node, another topic", rec.ID, Topic("disk"), true},
		{"another node there", other.ID, Topic("disk"), false},
		{"another node there, under its own key", other.ID, other.ID.Key(), true},
		{"another node there, under a key of somebody else", other.ID, rec.ID.Key(), false},
	} {
		if wait, _ := m.adWait(c.topic, Received{From: c.from, Addr: netip.AddrPortFrom(addr, 4000)}, -1, c.topic == c.from.Key()); (wait < 10*time.Millisecond) != c.free {
			t.Errorf("%s: waits %v", c.name, wait)
		}
	}
}

// TestDISCNG_WaitsGrow is the formula's point: the fuller, the more alike, the longer.
func TestDISCNG_WaitsGrow(t *testing.T) {
	w := settledWorld(t, 25, 20, Config{})
	m := w.nodes[0]
	wait := func(tag string, addr netip.Addr) time.Duration {
		ticket := w.advertiser(m, addr, tag).register(nil)
		if ticket.Kept {
			m.ads.ads = m.ads.ads[:len(m.ads.ads)-1]
			return 0
		}
		return ticket.Wait
	}
	fill := func(tag string, count int) {
		for range count {
			m.Step(w.now, Woke{})
			if m.ads == nil {
				m.ads = &registrar{}
			}
			m.ads.ads = append(m.ads.ads, ad{Topic(tag), w.book.hold(recordOf(w.rng, publicAddr(w.rng), w.now)), publicAddr(w.rng), w.now.Add(time.Hour)})
		}
	}
	addr := publicAddr(w.rng)
	empty := wait("gpu", addr)
	fill("gpu", 50)
	some := wait("gpu", addr)
	rare := wait("disk", addr)
	m.ads.ads = append(m.ads.ads, ad{Topic("x"), w.book.hold(recordOf(w.rng, addr, w.now)), addr.Next(), w.now.Add(time.Hour)})
	alike := wait("disk", addr)
	fill("y", 300)
	full := wait("gpu", addr)
	if !(empty == 0 && rare < some && rare < alike && some < full) {
		t.Errorf("waits: nobody there %v, 50 of the topic %v, none of it %v, a neighbour's address %v, a third full %v", empty, some, rare, alike, full)
	}
}

func TestLookup_DropsAdsThatDoNotNameTheTopic(t *testing.T) {
	w := settledWorld(t, 26, 100, Config{})
	other := recordOf(w.rng, publicAddr(w.rng), w.now)
	other.Tags = []string{"disk"}
	w.evil = func(m *member, r Received) bool {
		q, ok := r.Msg.(FindNode)
		if ok && m != w.nodes[0] {
			w.send(m, Send{To: r.From, Addr: r.Addr, Msg: Nodes{Req: q.Req, Parts: 1, Ads: 1, Records: []*Record{other}}})
		}
		return ok && m != w.nodes[0]
	}
	done, found := w.look(w.nodes[0], Lookup{Target: Topic("gpu"), Ads: true})
	if len(done.Ads) != 0 || len(found) != 0 {
		t.Error("an ad of another tag was believed")
	}
	var none crowd.Key
	if done, _ := w.look(w.nodes[0], Lookup{Target: none, Ads: true}); len(done.Ads) != 0 {
		t.Error("an ad of another tag was believed")
	}
}

// Whatever else the wait would be, a ticket opens for its own ID, address, port and topic alone, here alone.
func TestTicket_OpensForNobodyElse(t *testing.T) {
	w := settledWorld(t, 27, 20, Config{Secret: [32]byte{1}})
	m := w.nodes[0].Node
	m.now = w.now
	ev := Received{From: w.nodes[1].rec.ID, Addr: w.nodes[1].addr}
	reg := Register{Topic: Topic("gpu")}
	reg.Ticket = m.makeTicket(reg.Topic, ev, w.now, 0)
	if first, ok := m.openTicket(&reg, ev); !ok || first != w.now {
		t.Fatal("an honest ticket does not open")
	}
	id, addr, port, topic := ev, ev, ev, reg
	id.From = w.nodes[2].rec.ID
	addr.Addr = netip.AddrPortFrom(w.nodes[2].addr.Addr(), ev.Addr.Port())
	port.Addr = netip.AddrPortFrom(ev.Addr.Addr(), ev.Addr.Port()+1)
	topic.Topic = Topic("disk")
	for name, other := range map[string]Received{"ID": id, "address": addr, "port": port} {
		if _, ok := m.openTicket(&reg, other); ok {
			t.Errorf("opens for another %s", name)
		}
	}
	if _, ok := m.openTicket(&topic, ev); ok {
		t.Error("opens for another topic")
	}
	m.secret[5]++
	if _, ok := m.openTicket(&reg, ev); ok {
		t.Error("opens under another secret")
	}
}

// TestAds_AreFoundAtAnyMoment: from a minute after they are announced, a lookup finds all of the ads, whenever it
// begins and whoever asks.
func TestAds_AreFoundAtAnyMoment(t *testing.T) {
	for i, tt := range []struct {
		size, ads int
		alike     bool // all addresses of one /16
	}{{24, 4, true}, {24, 8, false}, {80, 12, true}, {200, 12, false}} {
		w := newWorld(t, uint64(40+i), Config{})
		topic := Topic("gpu")
		var first *member
		for j := range tt.size {
			rec := recordOf(w.rng, publicAddr(w.rng), w.now)
			if tt.alike {
				rec.Endpoints[0].Addr = netip.AddrFrom4([4]byte{20, 0, byte(j), 1})
			}
			if j%(tt.size/tt.ads) == 1 && j/(tt.size/tt.ads) < tt.ads {
				rec.Tags = []string{"gpu"}
			}
			m := w.add(rec)
			if first == nil {
				first = m
			} else {
				w.step(m, Seed{ID: first.rec.ID, Addr: first.addr})
			}
			if rec.Tags != nil {
				w.step(m, Announce{Topic: topic}) // it has not joined yet
			}
			w.run(20 * time.Millisecond)
		}
		w.run(time.Minute)
		for at := time.Duration(0); at < time.Hour; {
			from := w.now
			m := w.nodes[w.rng.IntN(tt.size)]
			want := tt.ads
			if m.rec.Tags != nil {
				want-- // itself
			}
			if done, _ := w.look(m, Lookup{Target: topic, Ads: true, Paths: adPaths}); len(done.Ads) != want {
				t.Errorf("%d nodes, after %v: %d ads found, want %d", tt.size, time.Minute+at, len(done.Ads), want)
			}
			w.run(time.Duration(20+w.rng.IntN(60)) * time.Second)
			at += w.now.Sub(from)
		}
	}
}

// The wait for an ad's next life passes during this one: no ad is between two lives. Who is new waits as long.
func TestTicket_AnAdWaitsForItsNextLifeDuringThisOne(t *testing.T) {
	w := settledWorld(t, 29, 20, Config{})
	m := w.nodes[0]
	a := w.advertiser(m, publicAddr(w.rng), "gpu")
	if !a.register(nil).Kept {
		t.Fatal("an empty registrar makes wait")
	}
	for range 60 {
		m.ads.ads = append(m.ads.ads, ad{Topic("y"), w.book.hold(recordOf(w.rng, publicAddr(w.rng), w.now)), publicAddr(w.rng), w.now.Add(time.Hour)})
	}
	again := a.register(nil)
	if !again.Kept || again.Wait != 15*time.Minute {
		t.Fatalf("asked again at once: %+v", again)
	}
	w.now = w.now.Add(again.Wait*2/3 + time.Second)
	newcomer := w.advertiser(m, publicAddr(w.rng), "gpu").register(nil)
	if newcomer.Kept || newcomer.Wait < time.Minute {
		t.Fatalf("a newcomer waits %v", newcomer.Wait)
	}
	if got := a.register(nil); !got.Kept || got.Wait != 15*time.Minute {
		t.Errorf("the next life: kept %v, %v; the wait was %v", got.Kept, got.Wait, newcomer.Wait)
	}
}

// TestAds_NoPartOfTheInternetCrowdsOutTheRest: of a registrar's ads a hundred lie in networks that are neighbours, as somebody gets them
// who buys many, and they came first; ten lie anywhere. Half of every answer and more is of the ten.
func TestAds_NoPartOfTheInternetCrowdsOutTheRest(t *testing.T) {
	w := newWorld(t, 31, Config{})
	m := w.join()
	m.ads = &registrar{}
	topic := Topic("gpu")
	keep := func(addr netip.Addr) *Record {
		r := recordOf(w.rng, addr, w.now)
		m.ads.ads = append(m.ads.ads, ad{topic, w.book.hold(r), addr, w.now.Add(time.Hour)})
		return r
	}
	for i := range 100 {
		keep(netip.AddrFrom4([4]byte{80, 0, byte(i), 1}))
	}
	honest := map[*Record]int{}
	for len(honest) < 10 {
		if a := publicAddr(w.rng); a.As4()[0] != 80 {
			honest[keep(a)] = 0
		}
	}
	m.now = w.now
	const answers = 200
	for range answers {
		seen := map[*Record]bool{}
		for _, r := range m.adsUnder(topic, nil, 16) {
			if seen[r] {
				t.Fatal("an ad twice in an answer")
			}
			seen[r] = true
			if _, ok := honest[r]; ok {
				honest[r]++
			}
		}
		if len(seen) != 16 {
			t.Fatalf("%d ads in an answer", len(seen))
		}
	}
	total := 0
	for _, n := range honest {
		total += n
		if n < answers/10 {
			t.Errorf("one of the ten is in %d of %d answers", n, answers)
		}
	}
	if total < 8*answers {
		t.Errorf("%d of %d ads handed out are of the ten", total, 16*answers)
	}
	if got := m.adsUnder(topic, nil, 200); len(got) != 110 {
		t.Errorf("%d of 110", len(got))
	}
}

// FuzzTicket: a ticket opens only as it was made, and says when its owner began to wait.
func FuzzTicket(f *testing.F) {
	w := newWorld(f, 32, Config{Secret: [32]byte{9}})
	m, o := w.join(), w.join()
	m.now = w.now
	ev := Received{From: o.rec.ID, Addr: o.addr}
	good := m.makeTicket(Topic("gpu"), ev, w.now.Add(-time.Second), time.Second)
	f.Add(good)
	f.Add(good[:ticketLen-1])
	f.Add(bytes.Repeat([]byte{255}, ticketLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		m.now = w.now.Add(time.Second)
		first, ok := m.openTicket(&Register{Topic: Topic("gpu"), Ticket: b}, ev)
		if ok != bytes.Equal(b, good) || ok && first != w.now.Add(-time.Second) {
			t.Fatalf("opened as %d, %v", first, ok)
		}
	})
}
