// Package discovery drives the overlay: it owns one overlay.Node, seals its packets and opens those of others on a
// datagram port, checks signatures and puzzles within a budget, keeps the node's own record true, and remembers
// peers on disk. Who knows whom, the overlay decides; sockets are p2p's.
package discovery

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
)

// Port is where datagrams go out and come in, unreliably: a *p2p.Host, or in tests a pipe. It is not closed here.
type Port interface {
	SendDatagram(to netip.AddrPort, b []byte) error
	Datagrams() <-chan p2p.Datagram
}

// machine is what of overlay.Node is driven.
type machine interface {
	Step(now overlay.Time, ev overlay.Event) []overlay.Effect
	Deadline() overlay.Time
}

// Seed is somebody to begin with.
type Seed struct {
	ID   crowd.NodeID
	Addr netip.AddrPort // UDP
}

// Self is where this node can be reached.
type Self struct {
	Endpoints []overlay.Endpoint // best first, at most overlay.MaxEndpoints count; none: behind a NAT
	Relay     crowd.Key          // of the node that relays to it; zero: none
}

// Config of a node's discovery. Key, Network and Port have no default.
type Config struct {
	Key     *identity.Key
	Network overlay.Network
	Port    Port

	// Self is asked every few seconds; observed are the addresses at which peers of different subnets say that they see
	// this node, most often said first. nil: behind a NAT without relay.
	Self  func(observed []netip.AddrPort) Self
	Tags  []string // what the node offers from the start, each announced
	Seeds []Seed

	Difficulty overlay.Difficulty
	// Beacons are those that dynamic puzzles may be bound to, the present epoch's first; none: not known yet.
	// nil is right only without a dynamic puzzle.
	Beacons func() []overlay.Beacon

	Folder  string // of the database of peers, which exists; "": nothing is remembered
	Overlay overlay.Config
	Random  io.Reader    // nil: crypto/rand
	Log     *slog.Logger // nil: silent

	machine func(self *overlay.Record, rng *rand.Rand) machine // of tests
}

func (c Config) withDefaults() Config {
	if c.Self == nil {
		c.Self = func([]netip.AddrPort) Self { return Self{} }
	}
	if c.Beacons == nil {
		c.Beacons = func() []overlay.Beacon { return nil }
	}
	if c.Random == nil {
		c.Random = crand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports everything that is wrong with c at once. Where the network has a static puzzle it takes 15 ms.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if c.Key == nil || c.Port == nil || c.Network == (overlay.Network{}) {
		bad("key, port and network are all needed")
	}
	if len(c.Tags) > overlay.MaxTags {
		bad("%d tags, at most %d", len(c.Tags), overlay.MaxTags)
	}
	for _, tag := range c.Tags {
		if err := overlay.CheckTag(tag); err != nil {
			errs = append(errs, err)
		}
	}
	for _, s := range c.Seeds {
		if err := identity.Valid(s.ID); err != nil {
			bad("seed %s: %w", s.Addr, err)
		}
		if !s.Addr.IsValid() || s.Addr.Port() == 0 {
			bad("seed %s: no address to reach it at", s.ID.Short())
		}
	}
	if c.Difficulty.Dynamic > 0 && c.Beacons == nil {
		bad("a dynamic puzzle without beacons")
	}
	if c.Key != nil {
		if err := identity.CheckStatic(c.Key.ID(), c.Difficulty.Static); err != nil {
			bad("the node's key is not of this network (%w): nobody would talk to it; mint a new key with %d bits", err, c.Difficulty.Static)
		}
	}
	return errors.Join(errs...)
}

const (
	startSeeds   = 32               // drawn from the database at a start
	housekeeping = 5 * time.Second  // between two looks at the own record and the requests under way
	saveEvery    = time.Minute      // the database, if it has changed
	saveFirst    = 10 * time.Second // after the start: who has just come must not forget all at a power cut
	lonelyAfter  = 15 * time.Second // without an answer: a warning
	rememberFor  = 24 * time.Hour   // the own record is signed anew at least so often
)

// Discovery is one node's part in the overlay. Its methods may be called concurrently; those that ask wait until Run runs.
type Discovery struct {
	// set once
	cfg     Config
	id      crowd.NodeID
	key     crowd.Key
	counts  counters
	calls   chan func()   // to Run's goroutine; capacity 0: who is not heard yet can still give up
	over    chan struct{} // closed when Run returns
	ready   chan struct{}
	waiting atomic.Bool                    // for the first beacon
	solved  *lru.Cache[crowd.NodeID, bool] // static puzzles; locked by itself

	// capacities bound memory and delay: at 15 ms a puzzle, one second of work; what comes above is dropped
	puzzlesAsked chan arrival
	puzzles      chan arrival
	weighed      chan arrival // capacity 0: solve waits for Run

	// Run's goroutine only
	rng       *rand.Rand
	clock     clock
	node      machine
	queue     []overlay.Event // what effects lead to: Step is not called within its own effects
	stepping  bool
	limits    *limits
	recovered *lru.Cache[signed, crowd.NodeID]
	requests  map[requestKey]*request
	database  *database
	saving    chan error // of the write under way; nil: none
	saved     time.Time
	own       own
	beacons   []overlay.Beacon
	lookups   map[uint64]*lookup
	finding   map[crowd.Key]*lookup // the simple ones, by target: asked once for all who ask
	lookupID  uint64
	cache     *generations[crowd.Key, cached]
	given     []Seed
	began     time.Time
	lonely    bool // the warning is out
	joining   bool // the join lookup is under way
	joined    bool
	observed  *generations[source, netip.AddrPort]     // by whom, this node's address
	shunned   *generations[crowd.NodeID, overlay.Time] // until when
	voices    map[crowd.NodeID]time.Duration           // while alone: how far off seeds say our clock is

	mu       sync.Mutex
	started  bool
	record   *overlay.Record // the own one, written by Run's goroutine only
	peers    map[crowd.NodeID]*peer
	watchers map[*watcher]struct{}
	offset   time.Duration
}

// clock is the wall clock, put right by what peers say. It does not go back.
type clock struct {
	offset time.Duration
	last   overlay.Time
}

func (c *clock) now() overlay.Time {
	c.last = max(c.last, c.wall())
	return c.last
}

func (c *clock) wall() overlay.Time { return overlay.At(time.Now()).Add(c.offset) }

// New checks the configuration and reads the database of peers. It starts nothing.
func New(cfg Config) (*Discovery, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	cfg = cfg.withDefaults()
	var seed [64]byte
	if _, err := io.ReadFull(cfg.Random, seed[:]); err != nil {
		return nil, fmt.Errorf("discovery: draw a seed: %w", err)
	}
	cfg.Overlay.Secret = [32]byte(seed[32:])
	recovered, err := lru.New[signed, crowd.NodeID](2048)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	solved, err := lru.New[crowd.NodeID, bool](8192)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	d := &Discovery{
		cfg: cfg, id: cfg.Key.ID(), key: cfg.Key.ID().Key(),
		calls: make(chan func()), over: make(chan struct{}), ready: make(chan struct{}),
		solved: solved, puzzlesAsked: make(chan arrival, 64), puzzles: make(chan arrival, 16), weighed: make(chan arrival),
		rng:    rand.New(rand.NewChaCha8([32]byte(seed[:32]))),
		limits: newLimits(), recovered: recovered, requests: map[requestKey]*request{},
		lookups: map[uint64]*lookup{}, finding: map[crowd.Key]*lookup{}, cache: newGenerations[crowd.Key, cached](512),
		observed: newGenerations[source, netip.AddrPort](128), shunned: newGenerations[crowd.NodeID, overlay.Time](maxShunned), voices: map[crowd.NodeID]time.Duration{},
		peers: map[crowd.NodeID]*peer{}, watchers: map[*watcher]struct{}{},
	}
	d.waiting.Store(cfg.Difficulty.Dynamic > 0 && len(cfg.Beacons()) == 0)
	d.own.solutions = make(chan solution, 1)
	d.own.tags = slices.Clone(cfg.Tags)
	slices.Sort(d.own.tags)
	d.own.tags = slices.Compact(d.own.tags)
	if d.cfg.machine == nil {
		d.cfg.machine = func(self *overlay.Record, rng *rand.Rand) machine {
			return overlay.New(d.cfg.Overlay, self, overlay.NewBook(), rng)
		}
	}
	var damage error
	if d.database, damage = openDatabase(cfg.Folder, cfg.Network, d.clock.now(), d.rng); damage != nil {
		cfg.Log.Warn("the database of peers cannot be read: starting from the seeds alone", "err", damage)
	}
	d.counts.Known.Store(uint64(len(d.database.order)))
	return d, nil
}

// Run takes part in the overlay until ctx ends or the port closes. It may be called once. It returns only after all
// that it started, with the database written.
func (d *Discovery) Run(ctx context.Context) (err error) {
	d.mu.Lock()
	again := d.started
	d.started = true
	d.mu.Unlock()
	if again {
		return errors.New("discovery: Run was called before")
	}
	defer d.end()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { d.solve(ctx); return nil })
	group.Go(func() error { return d.loop(ctx, group) })
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// end tells everybody that nothing more comes. All other goroutines have ended.
func (d *Discovery) end() {
	close(d.over)
	d.mu.Lock()
	defer d.mu.Unlock()
	for w := range d.watchers {
		close(w.news)
	}
	d.watchers = nil
}

func (d *Discovery) loop(ctx context.Context, group *errgroup.Group) error {
	defer func() {
		close(d.puzzlesAsked)
		close(d.puzzles)
		for range d.weighed { // what was under way
		}
	}()
	if err := d.begin(ctx, group); err != nil {
		return err
	}
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	house := time.NewTicker(housekeeping)
	defer house.Stop()
	in := d.cfg.Port.Datagrams()
	for {
		alarm.Reset(d.rest())
		select {
		case <-ctx.Done():
			return errors.Join(context.Canceled, d.close())
		case g, ok := <-in:
			if !ok {
				return errors.Join(errors.New("discovery: the port closed"), d.close())
			}
			d.receive(g)
		case a := <-d.weighed:
			d.weigh(a, d.clock.now())
		case call := <-d.calls:
			call()
		case s := <-d.own.solutions:
			d.solution(s)
		case err := <-d.saving:
			d.saveEnded(err)
		case <-alarm.C:
			d.step(overlay.Woke{})
		case <-house.C:
			d.keepHouse(ctx, group)
		}
	}
}

// rest is how long the machine wants to be left alone.
func (d *Discovery) rest() time.Duration {
	at := d.node.Deadline()
	if at == 0 {
		return time.Hour
	}
	return max(at.Sub(d.clock.now()), time.Millisecond)
}

// begin makes the own record and the machine, and hands in who is known.
func (d *Discovery) begin(ctx context.Context, group *errgroup.Group) error {
	d.began = time.Now()
	d.saved = d.began.Add(saveFirst - saveEvery)
	d.beacons = d.cfg.Beacons()
	if err := d.firstSolution(ctx); err != nil {
		return err
	}
	if err := d.sign(); err != nil {
		return fmt.Errorf("discovery: own record: %w", err)
	}
	d.given = append(d.given, d.cfg.Seeds...)
	d.boot(d.database.seeds(startSeeds))
	if len(d.given) == 0 && len(d.database.order) == 0 {
		d.setReady() // the first of its network has nobody to join
	}
	return nil
}

// boot starts a machine that knows remembered and given, and asks it again for what is under way.
func (d *Discovery) boot(remembered []*overlay.Record) {
	d.node = d.cfg.machine(d.record, d.rng)
	clear(d.requests)
	for _, r := range remembered {
		// Its own signature, not the file, says whose the record is.
		b, err := overlay.EncodeRecord(r)
		if err != nil {
			continue
		}
		if again, err := overlay.DecodeRecord(d.cfg.Network, b, identity.Recover); err != nil || again.ID != r.ID {
			continue
		}
		d.step(overlay.Seed{ID: r.ID, Addr: netip.AddrPortFrom(r.Endpoints[0].Addr, r.Endpoints[0].UDP), Record: r})
	}
	for _, s := range d.given {
		d.step(overlay.Seed{ID: s.ID, Addr: s.Addr})
	}
	for _, tag := range d.own.tags {
		d.step(overlay.Announce{Topic: overlay.Topic(tag)})
	}
	d.own.relayed = false // the machine is new
	d.advertise()
	ids := make([]uint64, 0, len(d.lookups))
	for id := range d.lookups {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		d.step(d.lookups[id].event)
	}
}

// step hands an event to the machine and does what it wants, in order. Events that the effects lead to follow.
func (d *Discovery) step(ev overlay.Event) {
	d.queue = append(d.queue, ev)
	if d.stepping {
		return
	}
	d.stepping = true
	for len(d.queue) > 0 {
		ev := d.queue[0]
		d.queue = slices.Delete(d.queue, 0, 1)
		for _, e := range d.node.Step(d.clock.now(), ev) {
			d.do(e)
		}
	}
	d.stepping = false
}

func (d *Discovery) do(e overlay.Effect) {
	switch e := e.(type) {
	case overlay.Send:
		d.send(e)
	case overlay.Found:
		d.found(e)
	case overlay.Done:
		d.done(e)
	case overlay.Keep:
		d.keep(e.Record)
	case overlay.Forget:
		d.database.lose(e.ID)
		d.mu.Lock()
		delete(d.peers, e.ID)
		d.mu.Unlock()
	case overlay.Observed:
		d.seen(e)
	case overlay.ClockOff:
		d.clockOff(e.By)
	case overlay.Blame:
		d.counts.Blamed.Add(1)
		d.shunned.put(e.ID, d.clock.now().Add(shunFor))
		d.cfg.Log.Debug("a peer did what no honest node does", "peer", e.ID.Short(), "what", e.Why)
	default:
		panic(fmt.Sprintf("bug: effect %T", e))
	}
}

func (d *Discovery) send(e overlay.Send) {
	now := d.clock.now()
	if d.shuns(e.To, now) {
		return // to the machine it is one that does not answer
	}
	b, err := overlay.Seal(d.cfg.Key, d.cfg.Network, e.To, e.Msg, now.Add(packetLife), e.Pad)
	if err == nil {
		err = d.cfg.Port.SendDatagram(e.Addr, b)
	}
	if err != nil {
		d.counts.SendFail.Add(1)
		d.cfg.Log.Debug("cannot send to a peer", "peer", e.To.Short(), "addr", e.Addr, "err", err)
		return
	}
	d.counts.Sent.Add(1)
	var req uint64
	switch m := e.Msg.(type) {
	case overlay.Ping:
		req = m.Req
	case overlay.FindNode:
		req = m.Req
	case overlay.Register:
		req = m.Req
	case overlay.Pong:
		req = m.Ask
	}
	if req == 0 {
		return
	}
	if len(d.requests) >= maxRequests {
		d.forgetRequests(now)
	}
	if len(d.requests) < maxRequests {
		d.requests[requestKey{e.Addr, req}] = &request{to: e.To, addr: e.Addr, at: now}
	}
}

// shuns says whether id was blamed within the last hour.
func (d *Discovery) shuns(id crowd.NodeID, now overlay.Time) bool {
	until, ok := d.shunned.get(id)
	return ok && now < until
}

func (d *Discovery) forgetRequests(now overlay.Time) {
	for k, r := range d.requests {
		if now.Sub(r.at) > requestFor {
			delete(d.requests, k)
		}
	}
}

// keepHouse does what nobody asks for.
func (d *Discovery) keepHouse(ctx context.Context, group *errgroup.Group) {
	now := d.clock.now()
	if behind := now.Sub(d.clock.wall()); behind > maxSkew {
		// The machine's time cannot go back: it would stand still for so long.
		d.cfg.Log.Warn("the system's clock was set back: starting the overlay anew", "by", behind)
		d.clock.last, d.own.seq = 0, 0
		d.reboot()
	}
	d.forgetRequests(now)
	d.limits.forget(now)
	d.database.expire(now)
	d.refreshOwn(ctx, group)
	d.join()
	if time.Since(d.saved) >= saveEvery {
		d.save(group)
	}
}

// join looks up the own key, so that the neighbourhood knows this node, as soon as somebody has answered.
func (d *Discovery) join() {
	if d.joined || d.joining {
		return
	}
	d.mu.Lock()
	peers := len(d.peers)
	d.mu.Unlock()
	if peers == 0 {
		d.heedVoices()
		if !d.lonely && time.Since(d.began) >= lonelyAfter && len(d.given)+len(d.database.order) > 0 {
			d.lonely = true
			d.cfg.Log.Warn("no peer has answered yet: check that UDP gets out of this machine, that the seeds are right, and that they are of the same network; still trying",
				"seeds", len(d.given), "remembered", len(d.database.order))
		}
		return
	}
	d.joining = true
	d.start(d.look(overlay.Lookup{Target: d.key, Paths: criticalPaths}, func(done overlay.Done) {
		d.joining = false
		if len(done.Nearest) > 0 {
			d.joined = true
			d.setReady()
		}
	}))
}

func (d *Discovery) setReady() {
	select {
	case <-d.ready:
	default:
		close(d.ready)
	}
}

// keep notes a peer that has entered the table, or has a new record.
func (d *Discovery) keep(r *overlay.Record) {
	now := d.clock.now()
	d.database.keep(r, now)
	d.counts.Known.Store(uint64(len(d.database.order)))
	d.mu.Lock()
	p := d.peers[r.ID]
	if p == nil {
		p = &peer{since: now, heard: now}
		d.peers[r.ID] = p
	}
	p.record = r
	d.mu.Unlock()
	d.tell(r)
	d.join()
}

// heard notes an answer of a peer.
func (d *Discovery) heard(id crowd.NodeID, rtt time.Duration, first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[id]
	if p == nil {
		return
	}
	p.heard = d.clock.now()
	if first {
		if p.rtt == 0 {
			p.rtt = rtt
		}
		p.rtt = (7*p.rtt + rtt) / 8
	}
}

// clockOff puts the clock right by what most peers say, at most a day.
func (d *Discovery) clockOff(by time.Duration) {
	if by.Abs() < time.Second {
		return
	}
	to := d.clock.offset + by
	if to.Abs() > maxOffset {
		d.cfg.Log.Error("peers say that this machine's clock is wrong by more than a day, which is not believed: set it, or nobody will talk to this node", "by", to)
		return
	}
	d.cfg.Log.Warn("this machine's clock differs from most peers': its packets are dated by theirs; set the clock (NTP) to be sure", "by", to.Round(time.Second))
	d.clock.offset, d.clock.last, d.own.seq = to, 0, 0
	clear(d.voices)
	d.mu.Lock()
	d.offset = to
	d.mu.Unlock()
	d.reboot()
}

const maxOffset = 24 * time.Hour

// heedVoices is for a node that knows nobody but seeds, who all refuse its packets as of another time: too few for the
// machine to tell a wrong clock from a lying peer. There is nobody else to believe, so what they agree on is taken.
func (d *Discovery) heedVoices() {
	var least, most time.Duration
	first := true
	for _, by := range d.voices {
		if first {
			least, most, first = by, by, false
		}
		least, most = min(least, by), max(most, by)
	}
	if !first && most-least < time.Minute && time.Since(d.began) >= housekeeping {
		d.clockOff(least + (most-least)/2)
	}
}

// reboot starts the machine again under another time, with the peers that it has.
func (d *Discovery) reboot() {
	if err := d.sign(); err != nil {
		d.cfg.Log.Error("cannot renew the own record", "err", err)
	}
	d.mu.Lock()
	var known []*overlay.Record
	for _, p := range d.peers {
		known = append(known, p.record)
	}
	d.mu.Unlock()
	slices.SortFunc(known, func(a, b *overlay.Record) int { return slices.Compare(a.ID[:], b.ID[:]) })
	d.rng.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
	if len(known) < startSeeds {
		known = append(known, d.database.seeds(startSeeds-len(known))...)
	}
	d.mu.Lock()
	clear(d.peers)
	d.mu.Unlock()
	d.queue = nil
	d.limits = newLimits() // their times are of the other clock
	d.boot(known[:min(len(known), startSeeds)])
}
