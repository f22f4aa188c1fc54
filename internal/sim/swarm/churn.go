package swarm

import (
	"math"
	"time"

	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// begin makes the machine of an honest node.
func (w *World) begin(i uint32) {
	w.nodes[i] = overlay.New(w.cfg.Overlay, w.recs[i], w.book, &w.rands[i])
	w.up[i], w.sched[i], w.since[i] = true, 0, w.queue.Now()
}

// age plans when each honest node leaves, and says since when it is there: a world that has been going on for ever.
func (w *World) age() {
	c := sim.Churn{Up: w.cfg.Churn.Up, Shape: w.cfg.Churn.Shape}
	if c.Up == 0 {
		return
	}
	if c.Shape == 0 {
		c.Shape = 0.5
	}
	// A life that covers a moment has hazard (left/scale)^k left; what it had before is distributed as what a life that has
	// lasted so long has before it (Cox, Renewal theory, 1962: the two are exchangeable).
	scale := float64(c.Up) / math.Gamma(1+1/c.Shape)
	for i := range uint32(w.honest) {
		r := &w.rands[i]
		_, left := c.Start(r)
		h := math.Pow(float64(left)/scale, c.Shape) + r.ExpFloat64()
		w.since[i] = w.queue.Now() - sim.Time(min(scale*math.Pow(h, 1/c.Shape)-float64(left), float64(oldest)))
		w.push(w.queue.Now().After(left), i, leaves, 0)
	}
	for i := w.honest; i < len(w.since); i++ {
		w.since[i] = w.queue.Now() - sim.Time(oldest)
	}
}

// oldest: nobody at the beginning has been there for longer.
const oldest = 30 * 24 * time.Hour

func (w *World) leave(i uint32) {
	w.note(w.queue.Now(), "%d leaves", i)
	w.nodes[i].Close()
	w.nodes[i], w.up[i] = nil, false
	w.life[i]++
	w.net.Reset(i)
	w.queue.Push(sim.Event[load]{At: w.queue.Now().After(w.cfg.Churn.Offline(&w.rands[i])), Node: i, Kind: comes})
}

// come is a new identity in the place of one that left.
func (w *World) come(i uint32) {
	w.recs[i] = w.record(i)
	w.begin(i)
	w.Joins++
	w.note(w.queue.Now(), "%d comes", i)
	w.push(w.queue.Now().After(w.cfg.Churn.Session(&w.rands[i])), i, leaves, 0)
	w.join(i)
}

// seedsEach: predefined seeds and what a user gives, of which some are the adversary's.
const seedsEach = 8

// join gives a node a few of those who are there to begin with.
func (w *World) join(i uint32) {
	for range seedsEach {
		s := uint32(w.rng.IntN(len(w.recs)))
		if s == i || w.client(s) || !w.foes(s) && !w.up[s] {
			continue
		}
		w.tell(i, overlay.Seed{ID: w.recs[s].ID, Addr: addrOf(w.recs[s].Endpoints[0]), Record: nil})
	}
}

// Grow begins with nobody, and lets nodes join one after another within d, through those who are there.
func (w *World) Grow(d time.Duration) {
	w.foe.settled()
	for i := range uint32(w.honest) {
		w.queue.Push(sim.Event[load]{At: w.queue.Now().After(d * time.Duration(i) / time.Duration(w.honest)), Node: i, Kind: comes})
	}
}
