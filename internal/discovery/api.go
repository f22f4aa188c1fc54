package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/overlay"
)

// Errors that a caller decides by.
var (
	ErrNotFound = errors.New("no such node found in the overlay")
	ErrBusy     = errors.New("too many lookups under way")
	ErrStopped  = errors.New("discovery has stopped")
	ErrWaiting  = errors.New("the overlay waits for the chain's beacon, to which its puzzle is bound")
)

// Paths of lookups, DESIGN section 4: more where a lie costs more.
const (
	criticalPaths = 16
	adPaths       = 8
)

const (
	maxLookups = 256
	cacheFor   = 30 * time.Second
	missFor    = 2 * time.Second // nobody asks for what was not found again so soon
	aliveFor   = time.Minute     // a peer that has answered so lately is not looked up
	watchQueue = 64
)

// lookup is one that the machine has under way.
type lookup struct {
	event overlay.Lookup
	found func(overlay.Found)
	done  func(overlay.Done)
	wait  []chan<- *overlay.Record // of the simple ones; capacity 1 each
}

// cached is what a lookup found; a nil record: nothing.
type cached struct {
	record *overlay.Record
	until  time.Time
}

// peer is a node in the machine's table.
type peer struct {
	record *overlay.Record
	since  overlay.Time
	heard  overlay.Time
	rtt    time.Duration // smoothed; 0: not measured yet
}

// PeerInfo is what is known of a node in the table.
type PeerInfo struct {
	ID       crowd.NodeID
	Key      crowd.Key
	Tags     []string
	Endpoint overlay.Endpoint // the best of its record
	Bucket   int              // bits that its key shares with ours
	RTT      time.Duration    // smoothed; 0: not measured yet
	Age      time.Duration    // in the table for so long
	Heard    time.Duration    // since its last answer
}

type watcher struct{ news chan *overlay.Record }

// call runs f on Run's goroutine, as soon as that runs. Where that waits for the chain, which may wait for what discovery finds, it
// is ErrWaiting at once.
func (d *Discovery) call(ctx context.Context, f func()) error {
	if d.waiting.Load() {
		return ErrWaiting
	}
	select {
	case d.calls <- f:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-d.over:
		return ErrStopped
	}
}

// look starts a lookup on Run's goroutine.
func (d *Discovery) look(ev overlay.Lookup, done func(overlay.Done)) *lookup {
	d.lookupID++
	ev.ID = d.lookupID
	l := &lookup{event: ev, done: done, found: func(overlay.Found) {}}
	d.lookups[ev.ID] = l
	d.counts.Lookups.Add(1)
	return l
}

// start hands a lookup to the machine, once its found and done are set.
func (d *Discovery) start(l *lookup) { d.step(l.event) }

func (d *Discovery) found(e overlay.Found) {
	if l := d.lookups[e.ID]; l != nil {
		l.found(e)
	}
}

func (d *Discovery) done(e overlay.Done) {
	l := d.lookups[e.ID]
	if l == nil {
		return
	}
	delete(d.lookups, e.ID)
	l.done(e)
}

// Find is the record of a node, as soon as one has been seen. It is the node's own word, at most some time old:
// that the node is still there, dialling it says, or Confirm. It is ErrNotFound where the overlay
// knows of none. Many who ask for the same at once make one lookup, and an answer is remembered for half a minute.
func (d *Discovery) Find(ctx context.Context, id crowd.NodeID) (*overlay.Record, error) {
	r, err := d.FindKey(ctx, id.Key())
	if err != nil {
		return nil, fmt.Errorf("find node %s: %w", id.Short(), err)
	}
	return r, nil
}

// FindKey is Find by a node's position.
func (d *Discovery) FindKey(ctx context.Context, key crowd.Key) (*overlay.Record, error) {
	reply := make(chan *overlay.Record, 1)
	refused := make(chan error, 1)
	err := d.call(ctx, func() {
		switch r, known := d.known(key); {
		case known:
			reply <- r
		case d.finding[key] != nil:
			d.finding[key].wait = append(d.finding[key].wait, reply)
		case len(d.lookups) >= maxLookups:
			refused <- ErrBusy
		default:
			d.find(key, false, reply)
		}
	})
	if err != nil {
		return nil, err
	}
	select {
	case r := <-reply:
		if r == nil {
			return nil, ErrNotFound
		}
		return r, nil
	case err := <-refused:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-d.over:
		return nil, ErrStopped
	}
}

// known is what needs no lookup. A nil record: looked for just now, in vain.
func (d *Discovery) known(key crowd.Key) (*overlay.Record, bool) {
	if key == d.key {
		return d.record, true
	}
	now := d.clock.now()
	d.mu.Lock()
	for id, p := range d.peers {
		if now.Sub(p.heard) < aliveFor && id.Key() == key {
			d.mu.Unlock()
			return p.record, true
		}
	}
	d.mu.Unlock()
	if c, ok := d.cache.get(key); ok && time.Now().Before(c.until) {
		return c.record, true
	}
	return nil, false
}

// find looks for the node of key among those that answer the overlay and then, with ads, for one behind a NAT: it is in
// nobody's table, and keeps an ad under its own key.
func (d *Discovery) find(key crowd.Key, ads bool, wait ...chan<- *overlay.Record) {
	var l *lookup
	tell := func(r *overlay.Record, keep time.Duration) {
		d.cache.put(key, cached{r, time.Now().Add(keep)})
		for _, w := range l.wait {
			w <- r
		}
		l.wait = nil
	}
	l = d.look(overlay.Lookup{Target: key, Ads: ads}, func(done overlay.Done) {
		delete(d.finding, key)
		switch {
		case done.Target != nil:
			tell(done.Target, cacheFor)
		case len(l.wait) == 0: // told already
		case !ads:
			d.find(key, true, l.wait...)
		default:
			tell(nil, missFor)
		}
	})
	l.found = func(f overlay.Found) {
		if f.Record.ID.Key() == key {
			tell(f.Record, cacheFor)
		}
	}
	l.wait = wait
	d.finding[key] = l
	d.start(l)
}

// lookFor makes a lookup of its own and waits for its end; found, if not nil, is called on the caller's goroutine
// with what comes before that.
func (d *Discovery) lookFor(ctx context.Context, ev overlay.Lookup, found func(*overlay.Record)) (overlay.Done, error) {
	ends := make(chan overlay.Done, 1)
	early := make(chan *overlay.Record, 256) // what does not fit comes with the end
	refused := make(chan error, 1)
	if err := d.call(ctx, func() {
		if len(d.lookups) >= maxLookups {
			refused <- ErrBusy
			return
		}
		l := d.look(ev, func(done overlay.Done) { ends <- done })
		l.found = func(f overlay.Found) {
			select {
			case early <- f.Record:
			default:
			}
		}
		d.start(l)
	}); err != nil {
		return overlay.Done{}, err
	}
	for {
		select {
		case r := <-early:
			if found != nil {
				found(r)
			}
		case done := <-ends:
			return done, nil
		case err := <-refused:
			return overlay.Done{}, err
		case <-ctx.Done():
			return overlay.Done{}, ctx.Err()
		case <-d.over:
			return overlay.Done{}, ErrStopped
		}
	}
}

// Confirm is the record of a node that has just answered at the endpoint in it: a lookup on 16 disjoint paths, for
// where it matters. It is ErrNotFound for a node that does not answer. Of a node behind a relay it is the latest
// record found, if two nodes keep its ad: it was there at most a quarter of an hour ago.
func (d *Discovery) Confirm(ctx context.Context, id crowd.NodeID) (*overlay.Record, error) {
	done, err := d.lookFor(ctx, overlay.Lookup{Target: id.Key(), Paths: criticalPaths}, nil)
	if err == nil && !confirmed(done) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("confirm node %s: %w", id.Short(), err)
	}
	return done.Target, nil
}

func confirmed(done overlay.Done) bool {
	if done.Target == nil || done.Target.Relay == (crowd.Key{}) {
		return done.Target != nil && done.Alive
	}
	return done.Keepers >= max(1, min(2, len(done.Nearest))) // where there is only one node to keep it, that one
}

// Nearest are the nodes nearest to key that answer, nearest first, at most as many as siblings: who is responsible for
// it. It searches on 16 disjoint paths. This node itself is not among them.
func (d *Discovery) Nearest(ctx context.Context, key crowd.Key) ([]*overlay.Record, error) {
	done, err := d.lookFor(ctx, overlay.Lookup{Target: key, Paths: criticalPaths}, nil)
	if err != nil {
		return nil, fmt.Errorf("nearest nodes: %w", err)
	}
	return done.Nearest, nil
}

// FindTag are nodes that announce a tag, at most want (0: all that can be found), in no particular order. It
// searches on 8 disjoint paths. None is no error.
func (d *Discovery) FindTag(ctx context.Context, tag string, want int) ([]*overlay.Record, error) {
	var out []*overlay.Record
	err := d.EachTag(ctx, tag, want, func(r *overlay.Record) { out = append(out, r) })
	return out, err
}

// EachTag is FindTag that calls each, on the caller's goroutine, with one node after another as they are found.
func (d *Discovery) EachTag(ctx context.Context, tag string, want int, each func(*overlay.Record)) error {
	if err := overlay.CheckTag(tag); err != nil {
		return fmt.Errorf("find tag: %w", err)
	}
	seen := map[crowd.NodeID]bool{d.id: true}
	enough := errors.New("enough")
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	take := func(r *overlay.Record) {
		// Anybody may register anything under a topic: the tag counts that stands in the record.
		if seen[r.ID] || !slices.Contains(r.Tags, tag) || want > 0 && len(seen) > want {
			return
		}
		seen[r.ID] = true
		each(r)
		if want > 0 && len(seen) > want {
			stop(enough)
		}
	}
	ev := overlay.Lookup{Target: overlay.Topic(tag), Paths: adPaths, Ads: true}
	if want > 0 {
		ev.Want = want + 8 // some may be none of the tag
	}
	done, err := d.lookFor(ctx, ev, take)
	if err != nil {
		if context.Cause(ctx) == enough {
			return nil
		}
		return fmt.Errorf("find tag %q: %w", tag, err)
	}
	for _, r := range done.Ads {
		take(r)
	}
	return nil
}

// Announce adds a tag to the own record, and keeps it announced until Withdraw.
func (d *Discovery) Announce(ctx context.Context, tag string) error {
	if err := overlay.CheckTag(tag); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	return d.retag(ctx, "announce", func(tags []string) []string {
		if slices.Contains(tags, tag) {
			return tags
		}
		tags = append(tags, tag)
		slices.Sort(tags)
		return tags
	}, overlay.Announce{Topic: overlay.Topic(tag)})
}

// Withdraw takes a tag out of the own record, and lets its ads age out.
func (d *Discovery) Withdraw(ctx context.Context, tag string) error {
	return d.retag(ctx, "withdraw", func(tags []string) []string {
		return slices.DeleteFunc(tags, func(t string) bool { return t == tag })
	}, overlay.Withdraw{Topic: overlay.Topic(tag)})
}

func (d *Discovery) retag(ctx context.Context, what string, change func([]string) []string, then overlay.Event) error {
	result := make(chan error, 1)
	if err := d.call(ctx, func() {
		before := d.own.tags
		d.own.tags = change(slices.Clone(before))
		if slices.Equal(before, d.own.tags) {
			result <- nil
			return
		}
		if err := d.sign(); err != nil {
			d.own.tags = before
			result <- fmt.Errorf("%s tag: %w", what, err)
			return
		}
		d.step(overlay.Renewed{Record: d.record})
		d.step(then)
		result <- nil
	}); err != nil {
		return err
	}
	return <-result
}

// AddPeer hands in somebody that the user named, or that answered on the LAN. The node is asked, again and again while
// it is silent.
func (d *Discovery) AddPeer(ctx context.Context, id crowd.NodeID, addr netip.AddrPort) error {
	if err := identity.Valid(id); err != nil {
		return fmt.Errorf("add peer: %w", err)
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if !addr.IsValid() || addr.Port() == 0 {
		return fmt.Errorf("add peer %s: no address to reach it at", id.Short())
	}
	return d.call(ctx, func() {
		s := Seed{id, addr}
		d.given = slices.DeleteFunc(d.given, func(g Seed) bool { return g.ID == id })
		if len(d.given) >= maxGiven {
			d.given = slices.Delete(d.given, 0, 1)
		}
		d.given = append(d.given, s)
		d.step(overlay.Seed{ID: id, Addr: addr})
	})
}

const maxGiven = 64

// Peers are the nodes in the table, those nearest to us first.
func (d *Discovery) Peers() []PeerInfo {
	now := overlay.At(time.Now())
	d.mu.Lock()
	defer d.mu.Unlock()
	now = now.Add(d.offset)
	out := make([]PeerInfo, 0, len(d.peers))
	for id, p := range d.peers {
		info := PeerInfo{ID: id, Key: id.Key(), Tags: slices.Clone(p.record.Tags), RTT: p.rtt,
			Age: max(now.Sub(p.since), 0), Heard: max(now.Sub(p.heard), 0)}
		if len(p.record.Endpoints) > 0 {
			info.Endpoint = p.record.Endpoints[0]
		}
		for i := range info.Key {
			if x := info.Key[i] ^ d.key[i]; x != 0 {
				info.Bucket = 8*i + bits.LeadingZeros8(x)
				break
			}
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b PeerInfo) int {
		if a.Bucket != b.Bucket {
			return b.Bucket - a.Bucket
		}
		return bytes.Compare(a.Key[:], b.Key[:])
	})
	return out
}

// Watch tells of peers that enter the table, or change their record, until ctx or Run ends, which closes the
// channel. What a slow reader has no room for, 64 at a time, is dropped.
func (d *Discovery) Watch(ctx context.Context) <-chan *overlay.Record {
	w := &watcher{make(chan *overlay.Record, watchQueue)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watchers == nil {
		close(w.news)
		return w.news
	}
	d.watchers[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if _, there := d.watchers[w]; there {
			delete(d.watchers, w)
			close(w.news)
		}
	})
	return w.news
}

func (d *Discovery) tell(r *overlay.Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for w := range d.watchers {
		select {
		case w.news <- r:
		default:
			d.counts.Dropped.Add(1)
		}
	}
}

// Ready is closed when the node has joined: its neighbourhood has answered. A node that knows nobody to join is ready at once.
func (d *Discovery) Ready() <-chan struct{} { return d.ready }

// Record is the node's own, as others see it; nil before Run runs.
func (d *Discovery) Record() *overlay.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.record
}

// ClockOffset is by how much the packets' clock differs from the system's, because peers say so.
func (d *Discovery) ClockOffset() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.offset
}
