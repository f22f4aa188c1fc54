package swarm

import (
	"errors"
	"time"
)

// Plan is what Measure does in one world.
type Plan struct {
	Config
	Lookups int           // for each number of paths
	Paths   []int         // disjoint ones, of the lookups: one cell each
	Warm    time.Duration // played before, with churn: upkeep is measured in its second half
	Spread  time.Duration // over which the lookups of a cell are begun; 0: a hundred seconds
	Grow    time.Duration // if not 0 nodes join one after another over that time; else the world begins settled
}

// Cell is what was measured of one world with one number of paths.
type Cell struct {
	Nodes       int
	Adversaries float64
	Behaviour   string
	Paths       int
	*Result

	Packets float64 // per lookup, of both sides: with upkeep, of all that went on in that time
	Bytes   float64

	// Of honest nodes, per node and second: without upkeep 0.
	UpkeepSent, UpkeepHeard float64
	UpkeepBy                [kinds]float64 // sent, by KindNames

	Events  int64         // in the world so far
	Virtual time.Duration // that were played so far
	Joins   int64
}

// ErrStopped is when the caller wanted no more.
var ErrStopped = errors.New("stopped")

// Measure plays a world and hands over each cell as it is done; a world that is stopped hands over what it has.
// going is asked now and then whether to go on, and told how many of the plan's lookups have ended.
func Measure(p Plan, cell func(Cell), going func(ended int) bool) error {
	w, err := New(p.Config)
	if err != nil {
		return err
	}
	ended := 0
	on := func() bool { return going(ended) }
	if !on() {
		return ErrStopped
	}
	if p.Grow > 0 {
		w.Grow(p.Grow)
		w.Run(p.Grow, on)
	} else {
		w.Settle()
	}
	spread := p.Spread
	if spread == 0 {
		spread = 100 * time.Second
	}
	var up [2]float64
	var by [kinds]float64
	w.Run(p.Warm/2, on)
	if p.Warm > 0 {
		was := w.By
		sent, heard, from := w.Sent.Bytes, w.Heard.Bytes, w.Now()
		w.Run(p.Warm/2, on)
		per := float64(w.honest) * (w.Now() - from).Seconds()
		for k := range by {
			by[k] = float64(w.By[k].Bytes-was[k].Bytes) / per
		}
		up = [2]float64{float64(w.Sent.Bytes-sent) / per, float64(w.Heard.Bytes-heard) / per}
	}
	for _, paths := range p.Paths {
		if !on() {
			return ErrStopped
		}
		packets, bytes := w.Sent.Packets+w.Foe.Packets, w.Sent.Bytes+w.Foe.Bytes
		w.Lookups(p.Lookups, paths, spread)
		before := ended
		on := func() bool {
			ended = before + p.Lookups - w.open
			return going(ended)
		}
		for until := w.Now() + spread + patience; w.open > 0 && w.Now() < until && on(); {
			w.Run(time.Second, on)
		}
		c := Cell{Nodes: w.cfg.Nodes, Adversaries: w.cfg.Adversaries, Behaviour: w.cfg.Behaviour, Paths: paths, Result: w.Result(),
			UpkeepSent: up[0], UpkeepHeard: up[1], UpkeepBy: by, Events: w.Events, Virtual: w.Now(), Joins: w.Joins}
		n := float64(max(c.Lookups, 1))
		c.Packets, c.Bytes = float64(w.Sent.Packets+w.Foe.Packets-packets)/n, float64(w.Sent.Bytes+w.Foe.Bytes-bytes)/n
		ended = before + p.Lookups
		if c.Lookups > 0 {
			cell(c)
		}
	}
	if !going(ended) {
		return ErrStopped
	}
	return nil
}

// patience: no lookup takes longer.
const patience = 5 * time.Minute
