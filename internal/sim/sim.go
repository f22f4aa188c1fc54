// Package sim is a virtual world: a clock that only events move, a queue in one
// fixed order, links with latency, loss, partitions and address translation, nodes
// that come and go, and a trace. One seed is one history, on one kind of machine:
// floating-point functions differ in their last bits between architectures. It knows
// nothing of jobs, chains or sockets, and never waits.
//
// World puts it together for a few whole nodes, with an event for each closure. For
// a hundred thousand nodes take the parts: Queue with a Load of one's own, Net,
// NATs, Churn, Trace, and a Source for each node. The example shows how.
package sim

import (
	"bytes"
	"math/rand/v2"
	"time"

	"github.com/crowdcompute/crowd"
)

// Epoch is when every world begins.
var Epoch = time.UnixMilli(1_700_000_000_000).UTC()

// World is the clock, the queue, the links and the trace. One goroutine only.
type World struct {
	queue Queue[func()]
	rng   *rand.Rand
	lines bytes.Buffer // whole trace
	trace *Trace
	also  *Trace // nil: none
	link  Link
	cut   map[[2]int]bool // never ranged over
}

// New is a world whose every random choice follows from seed.
func New(seed uint64, link Link) *World {
	w := &World{rng: rand.New(rand.NewPCG(seed, 0x63726f7764)), link: link, cut: map[[2]int]bool{}}
	w.trace = NewTrace(&w.lines)
	return w
}

// TraceTo writes all further lines to t too.
func (w *World) TraceTo(t *Trace) { w.also = t }

// Now is the virtual time.
func (w *World) Now() time.Time { return w.queue.Now().Clock() }

// Rand is the world's one source of chance.
func (w *World) Rand() *rand.Rand { return w.rng }

// Chance is true with probability p.
func (w *World) Chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// At does f at t, or next when t has passed. Events of one time keep the order in which they were put.
func (w *World) At(t time.Time, f func()) { w.queue.Push(Event[func()]{At: Since(t), Load: f}) }

// After does f when d has passed.
func (w *World) After(d time.Duration, f func()) {
	w.queue.Push(Event[func()]{At: w.queue.Now().After(d), Load: f})
}

// Run plays events up to and including until, or until stop is true after one; nil: never.
func (w *World) Run(until time.Time, stop func() bool) {
	for {
		e, ok := w.queue.Pop(Since(until))
		if !ok {
			return
		}
		e.Load()
		if stop != nil && stop() {
			return
		}
	}
}

// Logf writes a line with the time to the trace.
func (w *World) Logf(format string, a ...any) {
	w.trace.Logf(w.queue.Now(), format, a...)
	if w.also != nil {
		w.also.Logf(w.queue.Now(), format, a...)
	}
}

// Trace is all lines so far. The caller must not change it.
func (w *World) Trace() []byte {
	w.trace.Close() // a buffer takes everything
	return w.lines.Bytes()
}

// Hash is the digest of the trace.
func (w *World) Hash() crowd.Hash { return w.trace.Hash() }

// Link is how messages travel between two places.
type Link struct {
	Latency time.Duration // least, one way
	Jitter  time.Duration // up to so much more, evenly; it also reorders
	Loss    float64       // share that never arrives
	Double  float64       // share that arrives twice
}

// Cut parts a from b, in both directions; what is under way between them is lost too.
func (w *World) Cut(a, b int) { w.cut[[2]int{min(a, b), max(a, b)}] = true }

// Heal takes Cut back.
func (w *World) Heal(a, b int) { delete(w.cut, [2]int{min(a, b), max(a, b)}) }

// Send does f at the place to after the way there took its time, if it arrives.
func (w *World) Send(from, to int, extra time.Duration, f func()) {
	times := 1
	if w.Chance(w.link.Double) {
		times = 2
	}
	for range times {
		lost := w.Chance(w.link.Loss)
		d := w.link.Latency + extra
		if w.link.Jitter > 0 {
			d += time.Duration(w.rng.Int64N(int64(w.link.Jitter)))
		}
		w.After(d, func() {
			if !lost && !w.cut[[2]int{min(from, to), max(from, to)}] {
				f()
			}
		})
	}
}
