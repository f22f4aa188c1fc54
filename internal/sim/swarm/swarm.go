// Package swarm is a virtual world of many overlay nodes, the same machine as on sockets, and of
// adversaries, a file each: what lookups find, how long they take, what upkeep costs, what an attacker
// gets for how much work. Messages travel as values: nothing is sealed or signed, sizes are as on
// the wire. It reads no clock and opens no file; tables, plots and flags are its callers' matter.
package swarm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// Config of a world. The zero value of a field is what its comment says.
type Config struct {
	Nodes       int     // who live at a time, adversaries included
	Adversaries float64 // share of them on the adversary's side, from 0 up to 0.9
	Behaviour   string  // of these: one of Behaviours; empty: collude
	Static      uint8   // bits of the static puzzle, for what attacks cost; 0: none

	Overlay overlay.Config
	Quiet   bool // no upkeep: for a settled world without churn, in which only lookups are looked at

	Latency string  // a model's name, see sim.Latencies; empty: king
	Loss    float64 // share of datagrams that never arrive
	Uplink  int64   // bits per second; 0: no limit
	NAT     float64 // share of honest nodes behind a box: they look up, and nobody has them in a table
	Churn   sim.Churn

	Seed  uint64
	Trace *sim.Trace // nil: none is kept
}

func (c Config) withDefaults() Config {
	if c.Latency == "" {
		c.Latency = "king"
	}
	if c.Behaviour == "" {
		c.Behaviour = "collude"
	}
	if c.Overlay.Proofs == 0 {
		c.Overlay.Proofs = 512 // there are some 320 at 100,000 nodes whose buckets hold a node
	}
	if c.Quiet {
		c.Overlay.PingEvery, c.Overlay.RefreshEvery = quiet, quiet
	}
	return c
}

// quiet is longer than any quiet world is played, and shorter than the proof of an endpoint lasts.
const quiet = 10 * time.Hour

// Validate says all that is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if c.Nodes < 2 || c.Nodes > nodesMost {
		errs = append(errs, fmt.Errorf("%d nodes: want 2 to %d", c.Nodes, nodesMost))
	}
	if !(c.Adversaries >= 0 && c.Adversaries <= 0.9) {
		errs = append(errs, fmt.Errorf("adversaries %v: want a share from 0 to 0.9", c.Adversaries))
	}
	if !(c.NAT >= 0 && c.NAT <= 0.9) {
		errs = append(errs, fmt.Errorf("nat %v: want a share from 0 to 0.9", c.NAT))
	}
	if b := c.withDefaults().Behaviour; !slices.Contains(Behaviours(), b) {
		errs = append(errs, fmt.Errorf("behaviour %q: want one of %v", b, Behaviours()))
	}
	if c.Quiet && c.Churn != (sim.Churn{}) {
		errs = append(errs, errors.New("churn without upkeep"))
	}
	return errors.Join(append(errs, c.Churn.Validate())...)
}

const nodesMost = 4_000_000

// World is nodes in arrays, by number: the honest ones first, then the adversary's, then guests.
// One goroutine only.
type World struct {
	cfg    Config
	queue  sim.Queue[load]
	net    *sim.Net
	nats   *sim.NATs
	book   *overlay.Book
	wire   wire
	base   overlay.Time // of sim's epoch
	rng    *rand.Rand   // of the world: who looks up what, who joins through whom
	honest int          // how many are
	guests map[sim.Endpoint]uint32

	// by node
	nodes  []*overlay.Node // nil: it is away, or the adversary's
	recs   []*overlay.Record
	chance []rand.PCG
	rands  []rand.Rand
	life   []uint16 // a timer of an earlier one is thrown away
	sched  []sim.Time
	since  []sim.Time // it came
	up     []bool

	foe     adversary
	letters []letter
	spare   []uint32 // of letters
	asks    []ask
	open    int    // of asks
	cell    uint64 // numbers the Lookups: an answer to an earlier plan is no answer
	line    []byte
	watch   func(*overlay.Done) // in place of asks

	// Sent counts what honest nodes have sent, with all headers, Heard what reached them.
	Sent, Heard Traffic
	Foe         Traffic        // what the adversary has sent
	Stray       Traffic        // what honest nodes have sent and nobody at that address was meant by
	By          [kinds]Traffic // Sent, by what was said: see KindOf
	Events      int64
	Refused     int64 // packets that a driver would not let in
	Blames      int64
	Joins       int64
}

// Traffic is packets and their bytes, UDP and IP headers included.
type Traffic struct{ Packets, Bytes int64 }

func (t *Traffic) add(bytes int) { t.Packets++; t.Bytes += int64(bytes) }

// Kinds of events.
const (
	wakes   uint16 = iota
	arrives        // a datagram, at a box
	comes          // a session begins
	leaves         // it ends
	asks           // a lookup of World.asks, by Load.letter
	acts           // the adversary's timer
)

// load is what an event carries.
type load struct {
	src, dst sim.Endpoint // as seen on the way
	letter   uint32
}

// letter is a datagram under way.
type letter struct {
	msg  overlay.Message
	to   crowd.NodeID // for whom it is sealed
	id   crowd.NodeID // who sealed it
	from uint32       // whose line it took
	size int          // of the packet
	bad  bool         // no driver would let it in
	left uint8        // copies under way
}

// New is a world in which nobody is yet.
func New(cfg Config) (*World, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("swarm: %w", err)
	}
	latency, err := sim.NewLatency(cfg.Latency, cfg.Seed)
	if err != nil {
		return nil, fmt.Errorf("swarm: %w", err)
	}
	all := cfg.Nodes + guestsMost
	net, err := sim.NewNet(all, sim.Wires{Latency: latency, Loss: cfg.Loss, Uplink: cfg.Uplink})
	if err != nil {
		return nil, fmt.Errorf("swarm: %w", err)
	}
	w := &World{
		cfg: cfg, net: net, book: overlay.NewBook(), base: overlay.At(sim.Epoch), guests: map[sim.Endpoint]uint32{},
		rng: rand.New(rand.NewPCG(cfg.Seed, 0x737761726d)), honest: cfg.Nodes - int(cfg.Adversaries*float64(cfg.Nodes)+0.5),
		nodes: make([]*overlay.Node, cfg.Nodes), recs: make([]*overlay.Record, cfg.Nodes),
		chance: make([]rand.PCG, cfg.Nodes), rands: make([]rand.Rand, cfg.Nodes),
		life: make([]uint16, cfg.Nodes), sched: make([]sim.Time, cfg.Nodes), since: make([]sim.Time, cfg.Nodes), up: make([]bool, cfg.Nodes),
	}
	w.nats = sim.NewNATs(cfg.Nodes, w.box, cfg.Seed)
	for i := range w.chance {
		w.chance[i] = sim.Source(cfg.Seed, uint32(i))
		w.rands[i] = *rand.New(&w.chance[i])
	}
	for i := range uint32(cfg.Nodes) {
		w.recs[i] = w.record(i)
	}
	w.wire = measure(w.recs[0])
	w.foe = newAdversary(cfg.Behaviour, w)
	return w, nil
}

// guestsMost: identities beyond Config.Nodes, of attacks that bring their own.
const guestsMost = 1 << 16

// box: clients are behind one that lets in only what they asked for, or behind the worst of them.
func (w *World) box(node uint32) sim.Box {
	switch {
	case !w.client(node):
		return sim.Box{}
	case sim.Mix(w.cfg.Seed+1, uint64(node))%4 == 0:
		return sim.Box{NAT: sim.Symmetric}
	}
	return sim.Box{NAT: sim.PortRestricted}
}

// client says whether the node is behind a box.
func (w *World) client(node uint32) bool {
	return int(node) < w.honest && w.cfg.NAT > 0 && float64(sim.Mix(w.cfg.Seed, uint64(node))>>11)/(1<<53) < w.cfg.NAT
}

func (w *World) foes(node uint32) bool { return int(node) >= w.honest }

// record is a new identity's, made now. Nobody has signed it: see genuine.
func (w *World) record(node uint32) *overlay.Record {
	r := &overlay.Record{Seq: uint64(w.at(w.queue.Now()) / 1000), Nonce: 1 << 40, Epoch: 1 << 17}
	for i := 0; i < len(r.ID); i += 8 {
		binary.BigEndian.PutUint64(r.ID[i:], w.chance[node].Uint64())
	}
	if !w.client(node) {
		a := sim.Endpoint{Host: w.nats.Host(node), Port: sim.Port}.AddrPort()
		r.Endpoints = []overlay.Endpoint{{Addr: a.Addr(), UDP: a.Port(), TCP: a.Port()}}
	}
	sign(r)
	return r
}

// sign stands for a signature: what no driver would let in does not have it.
func sign(r *overlay.Record) { r.Sig[0] = 1 }

func genuine(r *overlay.Record) bool { return r.Sig[0] == 1 }

// at is t as the nodes reckon.
func (w *World) at(t sim.Time) overlay.Time { return w.base + overlay.Time(t/1000) }

func (w *World) simTime(t overlay.Time) sim.Time { return sim.Time(t-w.base) * 1000 }

// Now is the virtual time since the world began.
func (w *World) Now() time.Duration { return time.Duration(w.queue.Now()) }

// Run plays d, or as long as on, asked now and then, is true. With nil it always is.
func (w *World) Run(d time.Duration, on func() bool) {
	until := w.queue.Now().After(d)
	for {
		e, ok := w.queue.Pop(until)
		if !ok {
			return
		}
		w.Events++
		w.step(&e)
		if w.Events&0xfff == 0 && on != nil && !on() {
			return
		}
	}
}

func (w *World) step(e *sim.Event[load]) {
	switch e.Kind {
	case wakes:
		w.woke(e)
	case arrives:
		w.arrived(e)
	case comes:
		w.come(e.Node)
	case leaves:
		w.leave(e.Node)
	case asks:
		w.look(e.Load.letter)
	case acts:
		w.foe.act(e.Node, e.Load.letter)
	}
}

func (w *World) push(at sim.Time, node uint32, kind uint16, what uint32) {
	w.queue.Push(sim.Event[load]{At: at, Node: node, Kind: kind, Life: w.life[min(int(node), len(w.life)-1)], Load: load{letter: what}})
}

// woke: a deadline that was put off is looked at when it comes, and not before.
func (w *World) woke(e *sim.Event[load]) {
	i := e.Node
	if e.Life != w.life[i] || w.sched[i] != e.At {
		return
	}
	w.sched[i] = 0
	if w.simTime(w.nodes[i].Deadline()) <= e.At {
		w.tell(i, overlay.Woke{})
		return
	}
	w.schedule(i)
}

func (w *World) schedule(i uint32) {
	d := w.nodes[i].Deadline()
	if d == 0 {
		return
	}
	t := max(w.simTime(d), w.queue.Now())
	if w.sched[i] == 0 || t < w.sched[i] {
		w.sched[i] = t
		w.queue.Push(sim.Event[load]{At: t, Node: i, Kind: wakes, Life: w.life[i]})
	}
}

// tell gives a node an event and does what it wants done.
func (w *World) tell(i uint32, ev overlay.Event) {
	for _, e := range w.nodes[i].Step(w.at(w.queue.Now()), ev) {
		switch e := e.(type) {
		case overlay.Send:
			w.send(i, &e)
		case overlay.Done:
			w.done(&e)
		case overlay.Found:
			w.found(&e)
		case overlay.Blame:
			w.Blames++
		}
	}
	w.schedule(i)
}

// send is an honest node's.
func (w *World) send(i uint32, s *overlay.Send) {
	dst, ok := sim.EndpointOf(s.Addr)
	if !ok {
		return
	}
	size := w.wire.size(s.Msg, s.Pad)
	w.Sent.add(size + headers)
	w.By[kindOf(s.Msg, s.Pad)].add(size + headers)
	w.post(w.nats.Out(w.queue.Now(), i, dst), dst, letter{msg: s.Msg, to: s.To, id: w.recs[i].ID, from: i, size: size})
}

// post puts a datagram on its way. What its source says is the network's claim.
func (w *World) post(src, dst sim.Endpoint, l letter) {
	to, ok := w.whose(dst)
	if !ok {
		w.stray(&l)
		return
	}
	f := w.net.Send(w.queue.Now(), l.from, to, l.size+headers, w.randOf(l.from))
	if f.Copies == 0 {
		return
	}
	l.left = uint8(f.Copies)
	n := uint32(len(w.letters))
	if s := len(w.spare); s > 0 {
		n = w.spare[s-1]
		w.spare = w.spare[:s-1]
		w.letters[n] = l
	} else {
		w.letters = append(w.letters, l)
	}
	for _, at := range f.At[:f.Copies] {
		w.queue.Push(sim.Event[load]{At: at, Node: to, Kind: arrives, Load: load{src, dst, n}})
	}
}

func (w *World) stray(l *letter) {
	if !w.foes(l.from) {
		w.Stray.add(l.size + headers)
	}
}

// whose is who has an address, if anybody.
func (w *World) whose(e sim.Endpoint) (uint32, bool) {
	if n, ok := w.nats.Node(e.Host); ok {
		return n, true
	}
	n, ok := w.guests[e]
	return n, ok
}

func (w *World) randOf(node uint32) *rand.Rand {
	if int(node) < len(w.rands) {
		return &w.rands[node]
	}
	return w.rng
}

// arrived brings a datagram through the box and past the driver.
func (w *World) arrived(e *sim.Event[load]) {
	l := w.letters[e.Load.letter]
	if w.letters[e.Load.letter].left--; w.letters[e.Load.letter].left == 0 {
		w.letters[e.Load.letter] = letter{}
		w.spare = append(w.spare, e.Load.letter)
	}
	to, ok := e.Node, true
	if int(to) < len(w.nodes) {
		to, ok = w.nats.In(e.At, e.Load.src, e.Load.dst)
	}
	if !ok || !w.net.Reaches(l.from, to) {
		w.stray(&l)
		return
	}
	if w.foes(to) {
		w.foe.receive(to, e.Load.src, e.Load.dst, &l)
		return
	}
	if !w.up[to] || w.recs[to].ID != l.to {
		w.stray(&l)
		if w.up[to] {
			w.foe.hit(to, &l)
		}
		return
	}
	w.Heard.add(l.size + headers)
	if l.bad || !w.admits(l.msg) {
		w.Refused++
		return
	}
	if w.cfg.Trace != nil {
		w.note(e.At, "%d>%d %T %d", l.from, to, l.msg, l.size)
	}
	w.tell(to, overlay.Received{From: l.id, Addr: e.Load.src.AddrPort(), Size: l.size, Msg: l.msg})
}

// admits stands for the driver's checks of the records in a packet.
func (w *World) admits(m overlay.Message) bool {
	ok := func(r *overlay.Record) bool { return r == nil || genuine(r) }
	switch m := m.(type) {
	case overlay.Ping:
		return ok(m.Record)
	case overlay.FindNode:
		return ok(m.Record)
	case overlay.Register:
		return ok(m.Record)
	case overlay.Nodes:
		for _, r := range m.Records {
			if !ok(r) {
				return false
			}
		}
	}
	return true
}

func (w *World) note(at sim.Time, format string, args ...any) {
	if w.cfg.Trace == nil {
		return
	}
	w.line = fmt.Appendf(w.line[:0], format, args...)
	w.cfg.Trace.Add(at, w.line)
}

func addrOf(e overlay.Endpoint) netip.AddrPort { return netip.AddrPortFrom(e.Addr, e.UDP) }
