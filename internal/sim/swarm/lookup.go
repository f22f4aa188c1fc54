package swarm

import (
	"math"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// ask is one lookup: does from find the record that to has now?
type ask struct {
	from, to uint32
	fromLife uint16
	toLife   uint16
	paths    uint8
	state    uint8
	hops     uint8
	asked    uint16
	at       sim.Time
	took     time.Duration // until the target had answered, or nobody was left to ask
	seen     time.Duration // until the record came
}

const (
	planned uint8 = iota
	running
	found
	missed
	void // one of the two left
)

// Lookups forgets those before and plans so many lookups from random honest nodes for random honest ones, evenly over the time from now on.
func (w *World) Lookups(count, paths int, over time.Duration) {
	w.asks, w.open = w.asks[:0], 0
	w.cell++
	for i := range count {
		w.asks = append(w.asks, ask{paths: uint8(paths)})
		w.push(w.queue.Now().After(over*time.Duration(i)/time.Duration(count)), 0, asks, uint32(len(w.asks)-1))
		w.open++
	}
}

// Open is how many planned lookups have not ended.
func (w *World) Open() int { return w.open }

// choose is a random honest node that has been there for a while.
func (w *World) choose(open bool) (uint32, bool) {
	for range 1000 {
		i := uint32(w.rng.IntN(w.honest))
		if w.up[i] && (!open || !w.client(i)) && (w.cfg.Churn.Up == 0 || w.queue.Now()-w.since[i] >= settling) {
			return i, true
		}
	}
	return 0, false
}

// settling: so long after it came a node may look up and be looked up.
const settling = sim.Time(2 * time.Minute)

func (w *World) look(n uint32) {
	a := &w.asks[n]
	from, ok := w.choose(false)
	to, ok2 := w.choose(true)
	if !ok || !ok2 || from == to {
		a.state = void
		w.open--
		return
	}
	a.from, a.to, a.fromLife, a.toLife, a.at, a.state = from, to, w.life[from], w.life[to], w.queue.Now(), running
	w.tell(from, overlay.Lookup{ID: w.cell<<32 | uint64(n), Target: w.recs[to].ID.Key(), Paths: int(a.paths)})
}

// found notes when a record of the target came that is true.
func (w *World) found(e *overlay.Found) {
	if e.ID>>32 != w.cell || w.watch != nil {
		return
	}
	a := &w.asks[uint32(e.ID)]
	if a.state == running && a.seen == 0 && !e.Ad && e.Record == w.recs[a.to] {
		a.seen = time.Duration(w.queue.Now() - a.at)
	}
}

func (w *World) done(e *overlay.Done) {
	if e.ID>>32 != w.cell {
		return
	}
	if w.watch != nil {
		w.watch(e)
		return
	}
	a := &w.asks[uint32(e.ID)]
	if a.state != running {
		return
	}
	w.open--
	a.took, a.hops, a.asked = time.Duration(w.queue.Now()-a.at), uint8(min(e.Hops, 255)), uint16(min(e.Asked, math.MaxUint16))
	switch {
	case w.life[a.to] != a.toLife || !w.up[a.to]:
		a.state = void
	case e.Alive && e.Target == w.recs[a.to]:
		a.state = found
	default:
		a.state = missed
	}
	w.note(w.queue.Now(), "%d lookup %d %v alive %v hops %d asked %d", a.from, e.ID, a.state == found, e.Alive, e.Hops, e.Asked)
}

// Result is what lookups brought.
type Result struct {
	Lookups int // that count: both nodes stayed
	Found   int // the target's own record as it is now, and it answered there
	Void    int // one of the two left meanwhile
	Open    int // still under way

	Took      []time.Duration // of those that found, sorted: until the node itself had answered
	Seen      []time.Duration // of those that found, sorted: until the true record had come
	TookAll   []time.Duration
	Hops      float64 // means
	Asked     float64
	LowFound  float64 // Wilson's interval of the share found, 95 %
	HighFound float64
}

// Success is the share of lookups that found their target.
func (r *Result) Success() float64 { return float64(r.Found) / float64(max(r.Lookups, 1)) }

// Quantile of sorted times; 0: there are none.
func Quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[min(int(q*float64(len(times))), len(times)-1)]
}

// Result is of the lookups planned last.
func (w *World) Result() *Result {
	r := &Result{}
	for i := range w.asks {
		switch a := &w.asks[i]; a.state {
		case found, missed:
			r.Lookups++
			r.Asked += float64(a.asked)
			r.TookAll = append(r.TookAll, a.took)
			if a.state == found {
				r.Found++
				r.Hops += float64(a.hops)
				r.Took = append(r.Took, a.took)
				r.Seen = append(r.Seen, a.seen)
			}
		case void:
			r.Void++
		default:
			r.Open++
		}
	}
	slices.Sort(r.Took)
	slices.Sort(r.Seen)
	slices.Sort(r.TookAll)
	r.Hops /= float64(max(r.Found, 1))
	r.Asked /= float64(max(r.Lookups, 1))
	r.LowFound, r.HighFound = Wilson(r.Found, r.Lookups)
	return r
}

// Wilson is the 95 % interval of a share of which hits of n were seen (Wilson, JASA 1927).
func Wilson(hits, n int) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	const z = 1.959964
	p, m := float64(hits)/float64(n), float64(n)
	mid := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	low, high = max(0, mid-half), min(1, mid+half)
	if hits == n {
		high = 1 // and not a hair less
	}
	return low, high
}

// keyOf is a node's position.
func (w *World) keyOf(node uint32) crowd.Key { return w.recs[node].ID.Key() }
