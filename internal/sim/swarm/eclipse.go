package swarm

import (
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
)

// eclipser sees: the whole directory. Does: puts sybils nearer to one node's key than any other node is, each in a network
// of its own, introduces them to the honest nodes round it, again and again, and colludes: asked for anything near the
// key they name each other, and never the victim.
type eclipser struct {
	colluders
}

// Eclipse is what an attack on one key brought.
type Eclipse struct {
	Nodes, Sybils int
	Tries         int     // identities made for it
	Share         float64 // of all positions are near enough
	Lookups       int     // of the victim, by honest nodes
	Found         int
	Honest        float64 // mean of honest nodes among those whom a lookup calls the nearest to the key
	Nearest       float64 // how many these were
}

// EclipseKey settles cfg's world without adversaries, lets sybils gather round one node's key for d, and looks it up.
func EclipseKey(cfg Config, sybils, lookups int, d time.Duration) (*Eclipse, error) {
	cfg.Adversaries = 0
	w, err := New(cfg)
	if err != nil {
		return nil, err
	}
	foe := &eclipser{colluders{base: base{w: w}}}
	w.foe = foe
	w.Settle()
	all := make([]uint32, w.honest)
	for i := range all {
		all[i] = uint32(i)
	}
	dir := newDirectory(w, all)
	const victim = 0
	key := prefixOf(w.keyOf(victim))
	near := dir.nearest(nil, key, min(eclipseRound, w.honest))
	within := dir.keys[near[1]] ^ key // of the victim's nearest neighbour
	ids, tries := mine(w.rng, w.keyOf(victim), within, sybils)
	guests := w.bring(ids, 0)
	foe.dir = newDirectory(w, guests)
	const rounds = 4
	for range rounds {
		for _, at := range near {
			for _, g := range guests {
				foe.crowdIn(g, dir.node[at])
			}
		}
		w.Run(d/rounds, nil)
	}
	e := &Eclipse{Nodes: w.honest, Sybils: sybils, Tries: tries, Share: float64(within) / (1 << 63) / 2}
	w.look1(w.recs[victim].ID.Key(), lookups, func(done *overlay.Done) {
		e.Lookups++
		if done.Target == w.recs[victim] {
			e.Found++
		}
	})
	// The nearest to a key whose node says nothing are looked for: the place of an ad.
	beside := w.keyOf(victim)
	beside[len(beside)-1] ^= 1
	honest, nearest, n := 0, 0, 0
	mine := map[crowd.NodeID]bool{}
	for _, id := range ids {
		mine[id] = true
	}
	w.look1(beside, lookups, func(done *overlay.Done) {
		n++
		for _, r := range done.Nearest {
			nearest++
			if !mine[r.ID] {
				honest++
			}
		}
	})
	e.Honest, e.Nearest = float64(honest)/float64(max(n, 1)), float64(nearest)/float64(max(n, 1))
	return e, nil
}

// eclipseRound: sybils introduce themselves to so many of the honest nodes nearest to the key.
const eclipseRound = 200

// look1 lets random honest nodes, one a second, look one key up with eight paths.
func (w *World) look1(key crowd.Key, count int, done func(*overlay.Done)) {
	w.cell++
	w.watch = done
	for range count {
		from, _ := w.choose(false)
		w.tell(from, overlay.Lookup{ID: w.cell << 32, Target: key, Paths: 8})
		w.Run(time.Second, nil)
	}
	w.Run(30*time.Second, nil)
	w.watch = nil
}
