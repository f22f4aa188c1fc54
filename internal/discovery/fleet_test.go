package discovery

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
)

var testNetwork = overlay.NetworkOf("test-1")

// ether carries datagrams between ports: 10 ms each, none lost but where a queue is full.
type ether struct {
	mu    sync.Mutex
	ports map[netip.AddrPort]*pipe
}

type pipe struct {
	ether *ether
	addr  netip.AddrPort
	queue chan p2p.Datagram
}

func newEther() *ether { return &ether{ports: map[netip.AddrPort]*pipe{}} }

func (e *ether) port(addr netip.AddrPort) *pipe {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &pipe{ether: e, addr: addr, queue: make(chan p2p.Datagram, 1024)}
	e.ports[addr] = p
	return p
}

func (p *pipe) Datagrams() <-chan p2p.Datagram { return p.queue }

func (p *pipe) SendDatagram(to netip.AddrPort, b []byte) error {
	p.ether.mu.Lock()
	g := p2p.Datagram{From: p.addr, Data: bytes.Clone(b)}
	p.ether.mu.Unlock()
	time.AfterFunc(10*time.Millisecond, func() { p.ether.deliver(to, g) })
	return nil
}

func (e *ether) deliver(to netip.AddrPort, g p2p.Datagram) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.ports[to]; p != nil {
		select {
		case p.queue <- g:
		default:
		}
	}
}

// notes are what was logged.
type notes struct {
	mu   sync.Mutex
	text strings.Builder
}

func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(b)
}

func (n *notes) has(s string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Contains(n.text.String(), s)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// member is a node of a fleet.
type member struct {
	*Discovery
	key  *identity.Key
	addr netip.AddrPort
	log  *notes
	stop func() // returns when Run has
}

func (m *member) seed() Seed { return Seed{m.key.ID(), m.addr} }

func testKey(t testing.TB, n int) *identity.Key {
	t.Helper()
	b := make([]byte, 32)
	b[0], b[30], b[31] = 1, byte(n>>8), byte(n)
	k, err := identity.FromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testAddr(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(n >> 8), byte(n), 1}), 4001)
}

// start is the n-th node of a network, running. change may be nil.
func (e *ether) start(t testing.TB, n int, change func(*Config), seeds ...Seed) *member {
	t.Helper()
	m := e.make(t, n, change, seeds...)
	m.run(t)
	return m
}

func (e *ether) make(t testing.TB, n int, change func(*Config), seeds ...Seed) *member {
	t.Helper()
	m := &member{key: testKey(t, n), addr: testAddr(n), log: &notes{}}
	cfg := Config{
		Key: m.key, Network: testNetwork, Port: e.port(m.addr), Seeds: seeds,
		Self: func([]netip.AddrPort) Self {
			return Self{Endpoints: []overlay.Endpoint{{Addr: m.addr.Addr(), UDP: m.addr.Port()}}}
		},
		Random: bytes.NewReader(bytes.Repeat([]byte{byte(n), byte(n >> 8), 3}, 100)),
		Log:    slog.New(slog.NewTextHandler(m.log, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	m.key = cfg.Key
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.Discovery = d
	return m
}

func (m *member) run(t testing.TB) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := m.Run(ctx); err != nil {
			t.Errorf("node %s: %v", m.id.Short(), err)
		}
	}()
	m.stop = func() {
		cancel()
		<-done
	}
}

// fleet starts n nodes, all but the first with the first as their one seed.
func (e *ether) fleet(t testing.TB, n int, change func(int, *Config)) []*member {
	t.Helper()
	var out []*member
	for i := range n {
		var seeds []Seed
		if i > 0 {
			seeds = []Seed{out[0].seed()}
		}
		out = append(out, e.start(t, i, func(c *Config) {
			if change != nil {
				change(i, c)
			}
		}, seeds...))
	}
	for i, m := range out {
		m.awaitReady(t, i)
	}
	return out
}

func (m *member) awaitReady(t testing.TB, i int) {
	t.Helper()
	select {
	case <-m.Ready():
	case <-time.After(5 * time.Minute):
		t.Fatalf("node %d is not ready: %+v\n%s", i, m.Stats(), m.log)
	}
}

func stopAll(fleet []*member) {
	for _, m := range fleet {
		m.stop()
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestJoinBySeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		fleet := e.fleet(t, 24, func(i int, c *Config) {
			if i%6 == 3 {
				c.Tags = []string{"gpu"}
			}
		})
		defer stopAll(fleet)
		time.Sleep(2 * time.Minute) // the last to come makes itself known
		for i, m := range fleet {
			want := fleet[(i*11+5)%len(fleet)]
			r, err := m.Find(within(t, time.Minute), want.id)
			if err != nil || r.ID != want.id || r.Endpoints[0].Addr != want.addr.Addr() {
				t.Errorf("node %d finds %+v, %v", i, r, err)
			}
			if len(m.Peers()) < 16 {
				t.Errorf("node %d knows %d of 23", i, len(m.Peers()))
			}
		}
		if r, err := fleet[4].Confirm(within(t, time.Minute), fleet[9].id); err != nil || r.ID != fleet[9].id {
			t.Errorf("confirm: %v, %v", r, err)
		}
		if _, err := fleet[4].Find(within(t, time.Minute), testKey(t, 999).ID()); err == nil || !strings.Contains(err.Error(), ErrNotFound.Error()) {
			t.Errorf("find nobody: got %v, want %v", err, ErrNotFound)
		}
		near, err := fleet[4].Nearest(within(t, time.Minute), overlay.Topic("anything"))
		if err != nil || len(near) != 16 {
			t.Errorf("nearest: %d, %v, want 16", len(near), err)
		}
		for i := 1; i < len(near); i++ {
			target := overlay.Topic("anything")
			a, b := near[i-1].ID.Key(), near[i].ID.Key()
			if bytes.Compare(xor(a, target), xor(b, target)) > 0 {
				t.Errorf("nearest: the %d. is nearer than the one before", i)
			}
		}
		p := fleet[4].Peers()[0]
		if p.RTT < 20*time.Millisecond || p.RTT > 100*time.Millisecond {
			t.Errorf("round trip of %v, want 20 ms", p.RTT)
		}

		got, err := fleet[8].FindTag(within(t, time.Minute), "gpu", 0)
		if err != nil || len(got) != 4 {
			t.Errorf("tag: got %d, %v, want 4", len(got), err)
		}
		for _, r := range got {
			if fmt.Sprint(r.Tags) != "[gpu]" {
				t.Errorf("tag: a node with %v", r.Tags)
			}
		}
		if got, err := fleet[8].FindTag(within(t, time.Minute), "gpu", 2); err != nil || len(got) != 2 {
			t.Errorf("two of tag: got %d, %v", len(got), err)
		}
		if err := fleet[1].Announce(within(t, time.Minute), "docker"); err != nil {
			t.Error(err)
		}
		for range 30 { // over three lives of an ad
			time.Sleep(90 * time.Second)
			if got, err = fleet[20].FindTag(within(t, time.Minute), "docker", 0); err != nil || len(got) != 1 || got[0].ID != fleet[1].id {
				t.Errorf("announced later: got %d, %v, want 1", len(got), err)
			}
			if got, err = fleet[13].FindTag(within(t, time.Minute), "gpu", 0); err != nil || len(got) != 4 {
				t.Errorf("tag: got %d, %v, want 4", len(got), err)
			}
		}
		for i, m := range fleet {
			if s := m.Stats(); s.BadSignature+s.Malformed+s.NotForUs+s.OverBudget+s.Stale+s.BadPuzzle+s.Blamed+s.SendFail+s.WrongSender > 0 {
				t.Errorf("node %d among honest ones: %+v", i, s)
			}
		}
	})
}

func xor(a, b crowd.Key) []byte {
	for i := range a {
		a[i] ^= b[i]
	}
	return a[:]
}

// TestFindOnce: many who ask for one node at once make one lookup, and for nobody one more, for an ad.
func TestFindOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		fleet := e.fleet(t, 5, nil)
		defer stopAll(fleet)
		before := fleet[1].Stats().Lookups
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() {
				if _, err := fleet[1].Find(t.Context(), testKey(t, 999).ID()); err == nil {
					t.Error("found nobody")
				}
			})
		}
		group.Wait()
		if got := fleet[1].Stats().Lookups - before; got != 2 {
			t.Errorf("%d lookups, want 2", got)
		}
	})
}

func TestAddPeerAndWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a, b := e.start(t, 1, nil), e.start(t, 2, nil)
		ctx, cancel := context.WithCancel(t.Context())
		news := a.Watch(ctx)
		if err := a.AddPeer(t.Context(), b.id, netip.MustParseAddrPort("[::]:0")); err == nil {
			t.Error("a peer nowhere: added")
		}
		if err := a.AddPeer(t.Context(), crowd.NodeID{}, b.addr); err == nil {
			t.Error("nobody: added")
		}
		if err := a.AddPeer(t.Context(), b.id, b.addr); err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-news:
			if r.ID != b.id {
				t.Errorf("got %s", r.ID.Short())
			}
		case <-time.After(time.Minute):
			t.Error("no news")
		}
		cancel()
		synctest.Wait()
		for range news {
		}
		a.stop()
		b.stop()
		if _, err := a.Find(t.Context(), testKey(t, 9).ID()); err == nil {
			t.Error("found somebody after the end")
		}
		for range a.Watch(t.Context()) {
			t.Error("news after the end")
		}
	})
}

// TestRestart: a node that restarts without seeds joins by its database.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		folder := t.TempDir()
		fleet := e.fleet(t, 8, func(i int, c *Config) {
			if i == 5 {
				c.Folder = folder
			}
		})
		defer stopAll(fleet)
		time.Sleep(2 * time.Minute) // it is written now and then: a node may be killed
		if d, err := openDatabase(folder, testNetwork, overlay.At(time.Now()), testRand()); err != nil || len(d.order) < 5 {
			t.Errorf("while it runs: %d remembered, %v", len(d.order), err)
		}
		fleet[5].stop()
		time.Sleep(time.Hour)
		again := e.make(t, 5, func(c *Config) { c.Folder = folder })
		if again.Stats().Known < 5 {
			t.Fatalf("remembers %d, want most of 7", again.Stats().Known)
		}
		again.run(t)
		again.awaitReady(t, 5)
		if _, err := again.Find(within(t, time.Minute), fleet[2].id); err != nil {
			t.Error(err)
		}
		fleet[5] = again
	})
}

// TestClockOff: a node whose clock is an hour off joins by one seed, says so once, and is found.
func TestClockOff(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEther()
				fleet := e.fleet(t, 8, nil)
				late := e.make(t, 50, nil, fleet[0].seed())
				late.clock = clock{offset: off}
				late.run(t)
				late.awaitReady(t, 50)
				if got := late.ClockOffset(); got.Abs() > time.Minute {
					t.Errorf("its packets are %v off", got)
				}
				if n := strings.Count(late.log.String(), "clock differs"); n != 1 {
					t.Errorf("%d warnings, want 1:\n%s", n, late.log)
				}
				if r, err := fleet[3].Find(within(t, time.Minute), late.id); err != nil || r.ID != late.id {
					t.Errorf("not found: %v", err)
				}
				stopAll(append(fleet, late))
			})
		})
	}
}

// TestRelayed: a node behind a NAT, with a relay, finds others, is found by its key while nodes come and go, and is no
// entry of anybody's table.
func TestRelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		fleet := e.fleet(t, 16, nil)
		hidden := e.start(t, 50, func(c *Config) {
			c.Self = func([]netip.AddrPort) Self { return Self{Relay: fleet[2].key.ID().Key()} }
		}, fleet[0].seed())
		hidden.awaitReady(t, 50)
		if r := hidden.Record(); r.Relay != fleet[2].id.Key() || len(r.Endpoints) != 0 {
			t.Errorf("its record: %+v", r)
		}
		if _, err := hidden.Confirm(within(t, time.Minute), fleet[4].id); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		for round := range 6 {
			for _, i := range []int{1, 8, 15} {
				if r, err := fleet[i].Find(within(t, time.Minute), hidden.id); err != nil || r.Relay != fleet[2].id.Key() {
					t.Errorf("round %d: found by %d: %+v, %v", round, i, r, err)
				}
				if r, err := fleet[i].Confirm(within(t, time.Minute), hidden.id); err != nil || r.Seq != hidden.Record().Seq {
					t.Errorf("round %d: confirmed by %d: %v, %v", round, i, r, err)
				}
			}
			for k := range 2 {
				fleet[9+2*(round%3)+k].stop()
				fleet[9+2*(round%3)+k] = e.start(t, 100+2*round+k, nil, fleet[0].seed())
			}
			time.Sleep(7 * time.Minute)
		}
		for i, m := range fleet {
			for _, p := range m.Peers() {
				if p.ID == hidden.id {
					t.Errorf("node %d has it as a peer", i)
				}
			}
		}
		hidden.stop()
		time.Sleep(20 * time.Minute)
		if r, err := fleet[8].Confirm(within(t, time.Minute), hidden.id); err == nil {
			t.Errorf("confirmed after it went: %+v", r)
		}
		stopAll(fleet)
	})
}

// TestNobodyThere: seeds that do not answer are said once, and tried on until one does.
func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		m := e.start(t, 1, nil, Seed{testKey(t, 2).ID(), testAddr(2)})
		time.Sleep(8 * time.Minute)
		if n := strings.Count(m.log.String(), "no peer has answered yet"); n != 1 {
			t.Errorf("said %d times", n)
		}
		select {
		case <-m.Ready():
			t.Error("ready, alone")
		default:
		}
		seed := e.start(t, 2, nil)
		m.awaitReady(t, 1)
		stopAll([]*member{m, seed})
	})
}

// TestMoved: when the node's address changes, so does its record, by itself, and others learn of it.
func TestMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		fleet := e.fleet(t, 6, nil)
		var moved atomic.Bool
		there := testAddr(77)
		m := e.start(t, 50, func(c *Config) {
			before := c.Self
			c.Self = func(seen []netip.AddrPort) Self {
				if moved.Load() {
					return Self{Endpoints: []overlay.Endpoint{{Addr: there.Addr(), UDP: there.Port()}}}
				}
				return before(seen)
			}
		}, fleet[0].seed())
		m.awaitReady(t, 50)
		e.mu.Lock() // the same queue, under another address
		pipe := e.ports[m.addr]
		delete(e.ports, m.addr)
		pipe.addr, e.ports[there] = there, pipe
		e.mu.Unlock()
		moved.Store(true)
		time.Sleep(8 * time.Minute)
		r, err := fleet[3].Confirm(within(t, time.Minute), m.id)
		if err != nil || r.Endpoints[0].Addr != there.Addr() {
			t.Errorf("got %+v, %v", r, err)
		}
		stopAll(append(fleet, m))
	})
}
