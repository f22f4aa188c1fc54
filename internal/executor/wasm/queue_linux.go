package wasm

import (
	"sync"

	"github.com/crowdcompute/crowd/internal/executor"
)

// queue holds the items of a batch that wait for a worker, few enough of them.
type queue struct {
	mu      sync.Mutex
	changed *sync.Cond
	items   []executor.Item // guarded by mu; first come first
	bytes   int             // guarded by mu; of their stdin
	ended   bool            // guarded by mu; nothing is pushed any more
	closed  bool            // guarded by mu; nothing is taken any more
	why     error           // guarded by mu; it ended before the items did
}

func newQueue() *queue {
	q := &queue{}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// push waits for room; false: nobody wants the item.
func (q *queue) push(i executor.Item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && len(q.items) > 0 && (len(q.items) >= queueItems || q.bytes+len(i.Stdin) > queueBytes) {
		q.changed.Wait()
	}
	if q.closed {
		return false
	}
	q.items = append(q.items, i)
	q.bytes += len(i.Stdin)
	q.changed.Broadcast()
	return true
}

// end says that there are no more items, or why there are not.
func (q *queue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended, q.why = true, err
	q.changed.Broadcast()
}

// close lets go of all items and of those who wait.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.items = true, nil
	q.changed.Broadcast()
}

func (q *queue) err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.why
}

// take waits for items and takes at most most of them, and of few no more than the share of one in so
// many takers. None: there are no more.
func (q *queue) take(most, takers int) []executor.Item {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && !q.ended && len(q.items) == 0 {
		q.changed.Wait()
	}
	n, bytes := 0, 0
	for n < len(q.items) && n < min(most, (len(q.items)+takers-1)/takers) && (n == 0 || bytes+len(q.items[n].Stdin) <= frameBytes) {
		bytes += len(q.items[n].Stdin)
		n++
	}
	some := append([]executor.Item(nil), q.items[:n]...)
	clear(q.items[:n])
	q.items = q.items[n:]
	q.bytes -= bytes
	q.changed.Broadcast()
	return some
}
