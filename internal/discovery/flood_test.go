package discovery

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
)

// unsigned is a packet to a node whose hash holds and whose signature nobody made.
func unsigned(to crowd.NodeID, packet []byte, n int) []byte {
	b := bytes.Clone(packet)
	binary.BigEndian.PutUint64(b[40:], uint64(n)*0x9e3779b97f4a7c15) // in r
	key := to.Key()
	h := crowd.Keccak256(testNetwork[:], key[:], b[32:])
	copy(b, h[:])
	return b
}

// TestFlood: noise, packets that nobody signed, expired ones, replays and answers to nothing cost a bounded number of signatures, and an
// honest node gets through meanwhile.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		fleet := e.fleet(t, 6, nil)
		defer stopAll(fleet)
		time.Sleep(time.Minute)
		target, evil := fleet[1], testKey(t, 666)
		seal := func(m overlay.Message, life time.Duration) []byte {
			b, err := overlay.Seal(evil, testNetwork, target.id, m, overlay.At(time.Now().Add(life)), false)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		ping := seal(overlay.Ping{Req: 1, Seq: 1}, packetLife)
		const seconds, each = 6, 1000
		kinds := []struct {
			name string
			make func(i int) []byte
			free bool // costs no signature at all
		}{
			{"noise", func(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 500) }, true},
			{"to another node", func(int) []byte {
				b, err := overlay.Seal(evil, testNetwork, fleet[2].id, overlay.Ping{}, overlay.At(time.Now()), false)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}, true},
			{"answers to nothing", func(i int) []byte { return seal(overlay.Nodes{Req: uint64(i), Parts: 1}, packetLife) }, true},
			{"replays", func(int) []byte { return ping }, false},
			{"unsigned", func(i int) []byte { return unsigned(target.id, ping, i) }, false},
			{"expired", func(i int) []byte { return seal(overlay.Ping{Req: uint64(i)}, -time.Minute) }, false},
			{"from one subnet", func(i int) []byte { return seal(overlay.Ping{Req: uint64(i)}, packetLife) }, false},
		}
		for _, kind := range kinds {
			before := target.Stats()
			for s := range seconds {
				for i := range each {
					from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{99, byte(i >> 8), byte(i), byte(s)}), 4001)
					if kind.name == "from one subnet" {
						from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{99, 1, 1, byte(i)}), uint16(1+i))
					}
					e.deliver(target.addr, p2p.Datagram{From: from, Data: kind.make(s*each + i)})
					if i%500 == 499 {
						synctest.Wait() // no more at once than the queue takes
					}
				}
				time.Sleep(time.Second)
			}
			after := target.Stats()
			cost := after.Recoveries - before.Recoveries
			most := uint64(strangerBurst + (seconds+2)*strangerRate)
			switch {
			case kind.free:
				most = 300 // those of honest nodes, meanwhile
			case kind.name == "replays":
				most = 300
			case kind.name == "from one subnet":
				most = sourceBurst + (seconds+2)*sourceRate + 300
			}
			if got := after.Received - before.Received; got < seconds*each {
				t.Fatalf("%s: only %d packets arrived", kind.name, got)
			}
			if cost > most {
				t.Errorf("%s: %d signatures, at most %d", kind.name, cost, most)
			}
			// An honest node that has been known, and one that has not, while it goes on.
			stop := make(chan struct{})
			go func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond):
						for j := range 20 {
							n := 20*i + j
							e.deliver(target.addr, p2p.Datagram{From: netip.AddrPortFrom(netip.AddrFrom4([4]byte{98, byte(n >> 8), byte(n), 1}), 9), Data: kind.make(n)})
						}
					}
				}
			}()
			began := time.Now()
			if _, err := fleet[4].Confirm(within(t, time.Minute), target.id); err != nil {
				t.Errorf("%s: a peer no longer reaches it: %v", kind.name, err)
			}
			if _, err := target.Confirm(within(t, time.Minute), fleet[3].id); err != nil {
				t.Errorf("%s: it no longer reaches a peer: %v", kind.name, err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%s: two lookups took %v", kind.name, took)
			}
			close(stop)
			if kind.name == "replays" && (after.Accepted-before.Accepted > 1000 || after.Replayed-before.Replayed < seconds*each-1) {
				t.Errorf("%d replays noticed, %d packets taken", after.Replayed-before.Replayed, after.Accepted-before.Accepted)
			}
			if kind.name == "expired" && after.Stale == before.Stale {
				t.Error("nothing was stale")
			}
			if kind.name == "unsigned" && after.OverBudget == before.OverBudget {
				t.Error("nothing was over budget")
			}
			time.Sleep(5 * time.Second)
		}
	})
}

// TestMemory: nobody fills what is kept about packets.
func TestMemory(t *testing.T) {
	l := newLimits()
	now := overlay.At(time.Now())
	for i := range 100_000 {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1}), 1)
		l.recovery(a, now)
		l.puzzle(a, now)
		l.replays.put(crowd.Hash{byte(i >> 16), byte(i >> 8), byte(i)}, struct{}{})
	}
	if l.sources.len() > 2*maxSources || l.puzzles.len() > 2*maxSources || l.replays.len() > 2*maxReplays {
		t.Errorf("%d sources, %d of puzzles, %d replays", l.sources.len(), l.puzzles.len(), l.replays.len())
	}
}

// TestPeersBudget: when strangers have used up theirs, peers still have their own.
func TestPeersBudget(t *testing.T) {
	l := newLimits()
	now := overlay.At(time.Now())
	peer := netip.MustParseAddrPort("20.0.0.1:1")
	l.answered.put(peer, struct{}{})
	refused := false
	for i := range 2 * strangerBurst {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{1, byte(i >> 8), byte(i), 1}), 1)
		refused = refused || !l.recovery(a, now)
	}
	if !refused {
		t.Error("strangers have no bound")
	}
	for i := range sourceBurst {
		if !l.recovery(peer, now) {
			t.Fatalf("the peer's %d. packet is refused", i)
		}
	}
	if l.recovery(peer, now) {
		t.Error("a peer has no bound")
	}
	if !l.recovery(peer, now.Add(time.Second)) {
		t.Error("nothing comes back with time")
	}
}

// TestFakedRecords: an answer full of records that nobody signed costs at most what was asked for.
func TestFakedRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		evil, addr := testKey(t, 666), testAddr(666)
		port := e.port(addr)
		node := e.start(t, 1, nil, Seed{evil.ID(), addr})
		defer node.stop()
		good, err := overlay.SignRecord(evil, testNetwork, overlay.Record{Seq: 1, Endpoints: []overlay.Endpoint{{Addr: addr.Addr(), UDP: addr.Port()}}})
		if err != nil {
			t.Fatal(err)
		}
		asks := 0
		for range 20 {
			var g p2p.Datagram
			select {
			case g = <-port.queue:
			case <-time.After(3 * time.Hour): // each answer is blamed
				t.Fatal("it no longer asks")
			}
			_, m, _, err := overlay.Open(testNetwork, evil.ID().Key(), g.Data)
			if err != nil {
				t.Fatal(err)
			}
			ask, ok := m.(overlay.FindNode)
			if !ok {
				continue
			}
			asks++
			for part := range 40 {
				n := overlay.Nodes{Req: ask.Req, Part: uint8(part), Parts: 40}
				for i := range 6 {
					fake := *good
					fake.Seq = uint64(asks*1_000_000 + part*100 + i)
					fake.Sig = identity.Signature{} // of no curve point
					if i < 5 {
						fake.Sig = evil.Sign(crowd.Hash{byte(i), byte(part), byte(asks)}) // of somebody, whoever that is
					}
					n.Records = append(n.Records, &fake)
				}
				b, err := overlay.Seal(evil, testNetwork, node.id, n, overlay.At(time.Now().Add(packetLife)), false)
				if err != nil {
					t.Fatal(err)
				}
				if err := port.SendDatagram(node.addr, b); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
		if got, most := int(node.Stats().Recoveries), asks*(maxAnswerParts+maxAnswerRecords); asks == 0 || got > most {
			t.Errorf("%d signatures for %d questions, at most %d", got, asks, most)
		}
	})
}

// TestWrongSender: an answer counts only from whom was asked, whoever knows the number of the request.
func TestWrongSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		peer, evil, addr := testKey(t, 665), testKey(t, 666), testAddr(666)
		port := e.port(addr)
		node := e.start(t, 1, nil, Seed{peer.ID(), addr})
		defer node.stop()
		_, m, _, err := overlay.Open(testNetwork, peer.ID().Key(), (<-port.queue).Data)
		if err != nil {
			t.Fatal(err)
		}
		before := node.Stats().Accepted
		for _, from := range []*identity.Key{evil, peer} {
			b, err := overlay.Seal(from, testNetwork, node.id, overlay.Clock{Req: m.(overlay.FindNode).Req, Now: 1}, overlay.At(time.Now()), false)
			if err != nil {
				t.Fatal(err)
			}
			if err := port.SendDatagram(node.addr, b); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if s := node.Stats(); s.WrongSender != 1 || s.Accepted != before+1 {
			t.Errorf("got %+v", s)
		}
	})
}

// TestBlamedIsShunned: who did what no honest node does is neither asked nor answered for an hour.
func TestBlamedIsShunned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		evil, addr := testKey(t, 666), testAddr(666)
		port := e.port(addr)
		node := e.start(t, 1, nil, Seed{evil.ID(), addr})
		send := func(m overlay.Message) {
			b, err := overlay.Seal(evil, testNetwork, node.id, m, overlay.At(time.Now().Add(packetLife)), true)
			if err != nil {
				t.Fatal(err)
			}
			if err := port.SendDatagram(node.addr, b); err != nil {
				t.Fatal(err)
			}
		}
		got := func() (n int) {
			for ; len(port.queue) > 0; n++ {
				<-port.queue
			}
			return n
		}
		send(overlay.Ping{Req: 7, Seq: 1})
		time.Sleep(time.Second)
		var ask overlay.FindNode
		answered := false
		for len(port.queue) > 0 { // its question, and its answer
			_, m, _, err := overlay.Open(testNetwork, evil.ID().Key(), (<-port.queue).Data)
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case overlay.FindNode:
				ask = m
			case overlay.Pong:
				answered = true
			}
		}
		if ask.Req == 0 || !answered {
			t.Fatalf("asked %d and answered %v before", ask.Req, answered)
		}
		send(overlay.Nodes{Req: ask.Req, Part: 20, Parts: 40})
		time.Sleep(time.Second)
		got()
		if node.Stats().Blamed != 1 {
			t.Fatalf("not blamed: %+v", node.Stats())
		}
		for range 59 {
			send(overlay.Ping{Req: 8, Seq: 1})
			time.Sleep(time.Minute)
		}
		if n := got(); n != 0 || node.Stats().Shunned != 59 {
			t.Errorf("%d packets within the hour, %d shunned", n, node.Stats().Shunned)
		}
		time.Sleep(2 * time.Minute)
		send(overlay.Ping{Req: 9, Seq: 1})
		time.Sleep(time.Second)
		if got() == 0 {
			t.Error("not answered after it")
		}
		node.stop()
		for i := range 10 * maxShunned {
			node.shunned.put(crowd.NodeID{byte(i), byte(i >> 8)}, 1)
		}
		if node.shunned.len() > 2*maxShunned {
			t.Errorf("%d remembered", node.shunned.len())
		}
	})
}
