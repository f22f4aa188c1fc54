package chain

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/crowdcompute/crowd/internal/ledger"
)

// Bounds on what waits for one slow watcher. Beyond them it is told that it lost something.
const (
	maxWaitingChanges = 1 << 16
	maxWaitingEvents  = 1 << 14
)

// feed hands blocks to watchers. A watcher that is slower than the chain gets
// several blocks as one: the newest value of each key, all events in order.
type feed struct {
	mu     sync.Mutex
	subs   map[*subscriber]struct{} // guarded by mu
	closed bool                     // guarded by mu
}

type subscriber struct {
	wake    chan struct{} // capacity 1: a wake-up while one waits is the same one
	waiting *merged       // guarded by feed.mu
	end     bool          // guarded by feed.mu
}

type merged struct {
	last    Block
	changes map[string][]byte
	events  []ledger.Event
	lost    bool
}

func newFeed() *feed { return &feed{subs: map[*subscriber]struct{}{}} }

// publish never waits for anybody.
func (f *feed) publish(b Block) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		if s.waiting == nil {
			s.waiting = &merged{changes: make(map[string][]byte, len(b.Changes))}
		}
		s.waiting.add(b)
		s.poke()
	}
}

// close ends every watcher once it has had what waits for it.
func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for s := range f.subs {
		s.end = true
		s.poke()
	}
}

func (s *subscriber) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (m *merged) add(b Block) {
	m.last = b
	m.lost = m.lost || b.Lost
	for _, c := range b.Changes {
		m.changes[c.Key] = c.Val
	}
	m.events = append(m.events, b.Events...)
	if len(m.changes) > maxWaitingChanges || len(m.events) > maxWaitingEvents {
		m.changes, m.events, m.lost = map[string][]byte{}, nil, true
	}
}

func (m *merged) block() Block {
	b := Block{Height: m.last.Height, Time: m.last.Time, Events: m.events, Lost: m.lost}
	for k, v := range m.changes {
		b.Changes = append(b.Changes, ledger.Change{Key: k, Val: v})
	}
	slices.SortFunc(b.Changes, func(x, y ledger.Change) int { return strings.Compare(x.Key, y.Key) })
	return b
}

// watch is every block published from now on. The channel has no buffer of its
// own, what waits is merged; it is closed when ctx or the feed ends.
func (f *feed) watch(ctx context.Context) <-chan Block {
	out := make(chan Block)
	s := &subscriber{wake: make(chan struct{}, 1)}
	f.mu.Lock()
	f.subs[s] = struct{}{}
	s.end = f.closed
	f.mu.Unlock()
	if s.end {
		s.poke()
	}
	go func() {
		defer close(out)
		defer func() {
			f.mu.Lock()
			delete(f.subs, s)
			f.mu.Unlock()
		}()
		for {
			select {
			case <-s.wake:
			case <-ctx.Done():
				return
			}
			f.mu.Lock()
			m, end := s.waiting, s.end
			s.waiting = nil
			f.mu.Unlock()
			if m != nil {
				select {
				case out <- m.block():
				case <-ctx.Done():
					return
				}
			}
			if end {
				return
			}
		}
	}()
	return out
}
