package sim

import (
	"container/heap"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// inOrderOfTime is the queue as anybody would write it first: what Queue must not differ from.
type inOrderOfTime struct {
	events []Event[uint64]
	seq    []uint64
	next   uint64
}

func (q *inOrderOfTime) Len() int { return len(q.events) }
func (q *inOrderOfTime) Less(i, j int) bool {
	if q.events[i].At != q.events[j].At {
		return q.events[i].At < q.events[j].At
	}
	return q.seq[i] < q.seq[j]
}
func (q *inOrderOfTime) Swap(i, j int) {
	q.events[i], q.events[j] = q.events[j], q.events[i]
	q.seq[i], q.seq[j] = q.seq[j], q.seq[i]
}
func (q *inOrderOfTime) Push(x any) {
	q.next++
	q.events, q.seq = append(q.events, x.(Event[uint64])), append(q.seq, q.next)
}
func (q *inOrderOfTime) Pop() any {
	n := len(q.events) - 1
	e := q.events[n]
	q.events, q.seq = q.events[:n], q.seq[:n]
	return e
}

// far draws a delay of any size, often none, and often one that others have too.
func far(r *rand.Rand) Time {
	d := r.Int64() >> r.IntN(64)
	if r.IntN(3) == 0 {
		d &^= 1<<r.IntN(40) - 1
	}
	return Time(d)
}

func TestQueue_GivesWhatASortedListGives(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		var q Queue[uint64]
		var want inOrderOfTime
		for step := range 4000 {
			switch {
			case r.IntN(2) == 0:
				at := q.Now() + far(r)>>2
				if r.IntN(8) == 0 {
					at = q.Now() / 2 // has passed
				}
				e := Event[uint64]{At: at, Node: r.Uint32(), Kind: uint16(step), Life: 7, Load: r.Uint64()}
				q.Push(e)
				e.At = max(e.At, q.Now())
				heap.Push(&want, e)
			default:
				until := Never
				if r.IntN(2) == 0 {
					until = q.Now() + far(r)>>2
				}
				if next := q.Next(); want.Len() > 0 && next != want.events[0].At || want.Len() == 0 && next != Never {
					t.Fatalf("seed %d, step %d: got next time %d", seed, step, next)
				}
				now := q.Now()
				got, ok := q.Pop(until)
				if wantOK := want.Len() > 0 && want.events[0].At <= until; ok != wantOK {
					t.Fatalf("seed %d, step %d: got an event %t, want %t", seed, step, ok, wantOK)
				}
				if !ok {
					want := max(now, until)
					if until == Never {
						want = now
					}
					if q.Now() != want {
						t.Fatalf("seed %d, step %d: got clock %d, want %d", seed, step, q.Now(), want)
					}
					continue
				}
				if e := heap.Pop(&want).(Event[uint64]); got != e || q.Now() != e.At {
					t.Fatalf("seed %d, step %d: got %+v at %d, want %+v", seed, step, got, q.Now(), e)
				}
			}
			if q.Len() != want.Len() {
				t.Fatalf("seed %d, step %d: got %d events, want %d", seed, step, q.Len(), want.Len())
			}
		}
	}
}

func TestTime_AfterNeverPasses(t *testing.T) {
	for _, tt := range []struct {
		t    Time
		d    time.Duration
		want Time
	}{{5, 7, 12}, {5, -7, -2}, {5, 1<<63 - 1, Never}, {Never, 1, Never}, {Never, -1, Never - 1}} {
		if got := tt.t.After(tt.d); got != tt.want {
			t.Errorf("%d after %d: got %d, want %d", tt.d, tt.t, got, tt.want)
		}
	}
}

// A queue that is filled and emptied for ever keeps no more than its fullest hour needed.
func TestQueue_MemoryComesBack(t *testing.T) {
	var q Queue[uint64]
	r := rand.New(rand.NewPCG(1, 2))
	round := func() {
		for range 10_000 {
			q.Push(Event[uint64]{At: q.Now().After(time.Duration(r.Int64N(int64(time.Minute))))})
		}
		for {
			if _, ok := q.Pop(Never); !ok {
				t.Fatal("got nothing from a full queue")
			}
			if q.Len() == 0 {
				return
			}
		}
	}
	round()
	if n := testing.AllocsPerRun(10, round); n > 20 { // a chunk more now and then, as the spread falls
		t.Errorf("got %v allocations in a round, want next to none", n)
	}
}

func TestQueue_LetsGoOfWhatItGave(t *testing.T) {
	var q Queue[*[1 << 20]byte]
	gone := make(chan bool, 1) // one finalizer sends once
	func() {
		p := new([1 << 20]byte)
		runtime.SetFinalizer(p, func(*[1 << 20]byte) { gone <- true })
		q.Push(Event[*[1 << 20]byte]{At: 5, Load: p})
	}()
	q.Pop(Never)
	for range 20 {
		runtime.GC()
		select {
		case <-gone:
			runtime.KeepAlive(&q)
			return
		default:
			runtime.Gosched()
		}
	}
	t.Error("the queue still holds what it gave away")
}

// load is as large as what a swarm puts into an event: whom it is from, and where the rest lies.
type load [4]uint32

// hold is the classic test of event queues (Jones, CACM 1986): of n queued events the first is taken and put back later.
func hold(b *testing.B, n int, push func(Event[load]), pop func() Event[load]) {
	b.ReportAllocs()
	r := rand.New(rand.NewPCG(1, 1))
	delay := func() Time { // most answers within a second, every eighth event a timer of up to an hour
		if u := r.Uint64(); u&7 != 0 {
			return Time(u >> 34) // 1.07 s
		}
		return Time(r.Uint64() >> 22)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		push(Event[load]{At: delay()})
	}
	for range n { // into the regime in which the queue stays
		e := pop()
		e.At += delay()
		push(e)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		e := pop()
		e.At += delay()
		push(e)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/event")
}

func BenchmarkQueue_HoldMillion(b *testing.B) {
	q := new(Queue[load])
	hold(b, 1_000_000, q.Push, func() Event[load] { e, _ := q.Pop(Never); return e })
}

func BenchmarkQueue_HoldThousand(b *testing.B) {
	q := new(Queue[load])
	hold(b, 1_000, q.Push, func() Event[load] { e, _ := q.Pop(Never); return e })
}

// BenchmarkFourAryHeap_HoldMillion is the alternative that Queue was chosen over.
func BenchmarkFourAryHeap_HoldMillion(b *testing.B) {
	q := new(fourAry)
	hold(b, 1_000_000, q.push, q.pop)
}

// fourAry is a heap of four branches in one slice.
type fourAry struct {
	at []sequenced
	n  uint64
}

type sequenced struct {
	Event[load]
	seq uint64
}

func (q *fourAry) less(a, b *sequenced) bool { return a.At < b.At || a.At == b.At && a.seq < b.seq }

func (q *fourAry) push(e Event[load]) {
	q.n++
	x := sequenced{e, q.n}
	q.at = append(q.at, x)
	i := len(q.at) - 1
	for i > 0 && q.less(&x, &q.at[(i-1)/4]) {
		q.at[i] = q.at[(i-1)/4]
		i = (i - 1) / 4
	}
	q.at[i] = x
}

func (q *fourAry) pop() Event[load] {
	e := q.at[0].Event
	x := q.at[len(q.at)-1]
	q.at = q.at[:len(q.at)-1]
	i := 0
	for {
		first := 4*i + 1
		if first >= len(q.at) {
			break
		}
		for j := first + 1; j < min(first+4, len(q.at)); j++ {
			if q.less(&q.at[j], &q.at[first]) {
				first = j
			}
		}
		if !q.less(&q.at[first], &x) {
			break
		}
		q.at[i] = q.at[first]
		i = first
	}
	if len(q.at) > 0 {
		q.at[i] = x
	}
	return e
}
