package swarm

import (
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// Restart is the attack of Marcus, Heilman and Goldberg, "Low-Resource Eclipse Attacks on Ethereum's Peer-to-Peer
// Network" (2018): two hosts with many identities wait for their victim to restart, when its table is empty, and
// flood it before anybody else is in it.
type Restart struct {
	Nodes, Hosts, Identities, Bits int

	Restarts int
	Eclipsed int     // restarts after which no honest node was in the victim's table, or none was found by it
	Share    float64 // mean of the attacker's entries in the table
	Worst    float64 // the highest
	Failed   int     // lookups by the victim, one after each restart, that did not find
}

// flooder sees: the whole directory, and when the victim restarts. Does: all its identities ping the victim at once and again
// every second for as long as it is told to, and collude.
type flooder struct {
	colluders
	guests []uint32
	victim uint32
	until  sim.Time
}

// floodEvery: time between two rounds of all identities.
const floodEvery = sim.Time(time.Second)

func (f *flooder) act(uint32, uint32) {
	for _, g := range f.guests {
		f.crowdIn(g, f.victim)
	}
	if now := f.w.queue.Now(); now+floodEvery < f.until {
		f.w.push(now+floodEvery, f.victim, acts, 0)
	}
}

// RestartEclipse settles cfg's world without adversaries and restarts a different node so many times, each from
// what its driver had kept of its table, while hosts with as many identities as one core makes in effort, at cfg.Static bits,
// flood it; at most identitiesMost.
func RestartEclipse(cfg Config, hosts, restarts int, effort time.Duration) (*Restart, error) {
	cfg.Adversaries = 0
	w, err := New(cfg)
	if err != nil {
		return nil, err
	}
	foe := &flooder{colluders: colluders{base: base{w: w}}}
	w.foe = foe
	w.Settle()
	n := int(min(float64(effort)/float64(Cost(1, 1, cfg.Static)), identitiesMost))
	ids, _ := mine(w.rng, crowd.Key{}, 1<<64-1, n)
	foe.guests = w.bring(ids, hosts)
	foe.dir = newDirectory(w, foe.guests)
	theirs := make(map[crowd.NodeID]bool, n)
	for _, id := range ids {
		theirs[id] = true
	}
	out := &Restart{Nodes: w.honest, Hosts: hosts, Identities: n, Bits: int(cfg.Static), Restarts: restarts}
	for i := range restarts {
		victim := uint32(i * w.honest / restarts)
		w.restart(victim)
		foe.victim, foe.until = victim, w.queue.Now().After(flood)
		foe.act(0, 0)
		w.Run(flood, nil)
		peers := w.nodes[victim].Peers()
		bad := 0
		for _, p := range peers {
			if theirs[p.Record.ID] {
				bad++
			}
		}
		share := float64(bad) / float64(max(len(peers), 1))
		out.Share += share / float64(restarts)
		out.Worst = max(out.Worst, share)
		target, found := w.recs[(victim+1)%uint32(w.honest)], false
		w.cell++
		w.watch = func(d *overlay.Done) { found = found || d.Target == target }
		w.tell(victim, overlay.Lookup{ID: w.cell << 32, Target: target.ID.Key(), Paths: 8})
		w.Run(10*time.Second, nil)
		w.watch = nil
		if !found {
			out.Failed++
		}
		if bad == len(peers) {
			out.Eclipsed++
		}
	}
	return out, nil
}

const (
	flood          = 30 * time.Second
	identitiesMost = 1024
	database       = 64 // peers that a restarted node begins with
)

// restart ends a node and begins it again with what its driver remembers: some of the peers it was told to keep.
func (w *World) restart(i uint32) {
	peers := w.nodes[i].Peers()
	w.nodes[i].Close()
	w.life[i]++
	w.net.Reset(i)
	w.begin(i)
	w.pick(0, len(peers), database, func(at int) {
		r := peers[at].Record
		w.tell(i, overlay.Seed{ID: r.ID, Addr: addrOf(r.Endpoints[0]), Record: r})
	})
}
