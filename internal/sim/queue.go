package sim

import (
	"math/bits"
	"time"
)

// Time is virtual: nanoseconds since Epoch, never negative.
type Time int64

// Never is the last moment there is.
const Never = Time(1<<63 - 1)

// Clock is t for people and for machines that reckon with time.Time.
func (t Time) Clock() time.Time { return Epoch.Add(time.Duration(t)) }

// After is t later by d, and Never if there is no such time.
func (t Time) After(d time.Duration) Time {
	if sum := t + Time(d); d < 0 || sum >= t {
		return sum
	}
	return Never
}

// Since is the time from Epoch to c.
func Since(c time.Time) Time { return Time(c.Sub(Epoch)) }

// Event is something that will happen. The queue looks at At alone; what Kind,
// Node, Life and Load mean is between who puts and who takes. Without pointers
// in P the garbage collector never looks into a queue.
type Event[P any] struct {
	At   Time
	Node uint32 // whom it happens to
	Kind uint16
	Life uint16 // which incarnation of Node it is meant for: a timer of a life that ended is thrown away when it comes
	Load P
}

// Queue gives events back by time, and events of one time in the order in which
// they were put. Its clock stands at the newest event that it gave, so nothing
// can be put before it. The zero value is an empty queue at Epoch.
//
// It is a hierarchical timing wheel (Varghese and Lauck, SOSP 1987) of eight
// wheels with 256 slots, one wheel for each byte of Time, placed as in a radix
// heap (Ahuja et al., J. ACM 1990): an event lies on the wheel of the highest
// byte in which its time differs from base, in the slot of that byte. Base only
// rises, and a slot that it enters is dealt out to the wheels below. So Push
// writes once, each event is moved at most seven times, in practice two or three
// times, and a time is never compared with another. Events of one time always
// lie in one slot, in the order in which they came: no sequence number is kept.
// Memory that was once needed is kept for later.
type Queue[P any] struct {
	base Time // at most now, and not after any event
	now  Time
	n    int

	full [wheels][slots / 64]uint64 // which slots hold something
	slot [wheels][slots]chain[P]
	free *chunk[P] // cleared
}

const (
	wheels = 8
	slots  = 256

	// perChunk: a slot grows by this many events at once. With a load of 16 bytes a
	// chunk is then 2032 bytes, and the allocator gives 2048.
	perChunk = 63
)

// chain is a first-in first-out list.
type chain[P any] struct {
	head, tail *chunk[P]
}

// chunk keeps its only pointer in front: the collector stops reading behind it.
type chunk[P any] struct {
	next     *chunk[P]
	from, to uint16
	events   [perChunk]Event[P]
}

// Len is how many events wait.
func (q *Queue[P]) Len() int { return q.n }

// Now is the time of the newest event that Pop gave, or what Pop ran to.
func (q *Queue[P]) Now() Time { return q.now }

// Push puts e; if its time has passed it happens now, after what is due now.
func (q *Queue[P]) Push(e Event[P]) {
	e.At = max(e.At, q.now)
	q.n++
	q.place(&e)
}

// Pop takes the first event if it is not after until. If there is none, the
// clock goes to until, and the next event put is not before it; but until Never
// takes whatever there is, and leaves the clock where it is.
func (q *Queue[P]) Pop(until Time) (e Event[P], ok bool) {
	for q.n > 0 {
		w, s := q.first()
		start := q.base>>(8*w+8)<<(8*w+8) | Time(s)<<(8*w)
		if start > until {
			break
		}
		c := &q.slot[w][s]
		if w == 0 || c.head == c.tail && c.head.to-c.head.from == 1 {
			// All of this slot is of one time, and nothing lies before it.
			if c.head.events[c.head.from].At > until {
				break
			}
			e = q.take(w, s)
			q.n--
			q.base, q.now = e.At, e.At
			return e, true
		}
		q.base = start
		q.deal(w, s)
	}
	if until != Never {
		q.now = max(q.now, until)
	}
	return e, false
}

// Next is the time of the first event, Never if there is none. It reads up to a
// whole slot; to play a world, call Pop only.
func (q *Queue[P]) Next() Time {
	if q.n == 0 {
		return Never
	}
	w, s := q.first()
	first := Never
	for c := q.slot[w][s].head; c != nil; c = c.next {
		for i := c.from; i < c.to; i++ {
			first = min(first, c.events[i].At)
		}
	}
	return first
}

// first is the slot with the first event: a lower wheel goes before a higher, and a lower slot before a higher.
func (q *Queue[P]) first() (w, s int) {
	for w := range wheels {
		for i, word := range &q.full[w] {
			if word != 0 {
				return w, i*64 + bits.TrailingZeros64(word)
			}
		}
	}
	panic("bug: a queue counts events that it does not hold")
}

// place appends e to the slot where it belongs under base.
func (q *Queue[P]) place(e *Event[P]) {
	w := max(0, bits.Len64(uint64(e.At^q.base))-1) / 8
	s := int(e.At>>(8*w)) & (slots - 1)
	c := &q.slot[w][s]
	if c.tail == nil || c.tail.to == perChunk {
		q.grow(c)
		q.full[w][s/64] |= 1 << (s % 64)
	}
	c.tail.events[c.tail.to] = *e
	c.tail.to++
}

func (q *Queue[P]) grow(c *chain[P]) {
	k := q.free
	if k == nil {
		k = new(chunk[P])
	} else {
		q.free, k.next = k.next, nil
	}
	if c.tail == nil {
		c.head = k
	} else {
		c.tail.next = k
	}
	c.tail = k
}

// take removes the first event of a slot.
func (q *Queue[P]) take(w, s int) Event[P] {
	c := &q.slot[w][s]
	k := c.head
	e := k.events[k.from]
	k.from++
	if k.from == k.to {
		if c.head = k.next; c.head == nil {
			c.tail = nil
			q.full[w][s/64] &^= 1 << (s % 64)
		}
		q.recycle(k)
	}
	return e
}

// deal spreads a slot, which base has just entered, over the wheels below.
func (q *Queue[P]) deal(w, s int) {
	k := q.slot[w][s].head
	q.slot[w][s] = chain[P]{}
	q.full[w][s/64] &^= 1 << (s % 64)
	for k != nil {
		for i := k.from; i < k.to; i++ {
			q.place(&k.events[i])
		}
		next := k.next
		q.recycle(k)
		k = next
	}
}

// recycle also lets go of what the loads of k point to.
func (q *Queue[P]) recycle(k *chunk[P]) {
	*k = chunk[P]{next: q.free}
	q.free = k
}
