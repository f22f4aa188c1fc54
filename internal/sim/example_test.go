package sim_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/sim"
)

// Events of the example, and what they carry.
const (
	comes  uint16 = iota // a node's session begins
	leaves               // it ends
	tick                 // it asks somebody
	ask                  // a datagram arrives at a box
	answer               // another, the other way
)

type datagram struct {
	src, dst sim.Endpoint // as seen on the way
	from     uint32       // who really sent it, for the observer
}

// swarm is a world of nodes in arrays: each asks a random other whether it is
// there, and answers are counted. Real machines would stand in a slice of their own.
type swarm struct {
	queue sim.Queue[datagram]
	net   *sim.Net
	nats  *sim.NATs
	churn sim.Churn
	trace *sim.Trace

	chance []rand.PCG // of each node
	life   []uint16   // incarnation; a timer of an earlier one is thrown away
	up     []bool

	events, asked, deaf, answered int
	line                          []byte // scratch
}

func newSwarm(nodes int, seed uint64, trace *sim.Trace) *swarm {
	latency, err := sim.NewLatency("king", seed)
	if err != nil {
		panic(err)
	}
	net, err := sim.NewNet(nodes, sim.Wires{Latency: latency, Loss: 0.01, Uplink: 10e6})
	if err != nil {
		panic(err)
	}
	boxes := func(node uint32) sim.Box { // half of the nodes are open
		if node%2 == 0 {
			return sim.Box{}
		}
		return sim.Box{NAT: sim.PortRestricted, Life: 30 * time.Second}
	}
	w := &swarm{
		net: net, nats: sim.NewNATs(nodes, boxes, seed), churn: sim.Churn{Up: time.Hour, Down: time.Hour}, trace: trace,
		chance: make([]rand.PCG, nodes), life: make([]uint16, nodes), up: make([]bool, nodes),
	}
	for i := range uint32(nodes) {
		w.chance[i] = sim.Source(seed, i)
		r := rand.New(&w.chance[i])
		up, left := w.churn.Start(r)
		if w.up[i] = up; up {
			w.after(i, leaves, left)
			w.after(i, tick, time.Duration(r.Int64N(int64(time.Minute))))
		} else {
			w.after(i, comes, left)
		}
	}
	return w
}

func (w *swarm) after(node uint32, kind uint16, d time.Duration) {
	w.queue.Push(sim.Event[datagram]{At: w.queue.Now().After(d), Node: node, Kind: kind, Life: w.life[node]})
}

func (w *swarm) run(until sim.Time) {
	for {
		e, ok := w.queue.Pop(until)
		if !ok {
			return
		}
		w.events++
		w.step(e)
	}
}

func (w *swarm) step(e sim.Event[datagram]) {
	r := rand.New(&w.chance[e.Node]) // on the stack
	switch e.Kind {
	case comes:
		w.up[e.Node] = true
		w.after(e.Node, leaves, w.churn.Session(r))
		w.after(e.Node, tick, time.Minute)
	case leaves:
		w.up[e.Node] = false
		w.life[e.Node]++ // what was planned for this life is void
		w.net.Reset(e.Node)
		w.after(e.Node, comes, w.churn.Offline(r))
	case tick:
		if e.Life != w.life[e.Node] {
			return
		}
		w.asked++
		peer := r.Uint32N(uint32(len(w.up)))
		w.send(e.Node, ask, sim.Endpoint{Host: w.nats.Host(peer), Port: sim.Port}, r)
		w.after(e.Node, tick, time.Minute)
	case ask, answer:
		node, ok := w.nats.In(e.At, e.Load.src, e.Load.dst)
		switch {
		case !ok || !w.up[node] || !w.net.Reaches(e.Load.from, node):
			w.deaf++
		case e.Kind == ask:
			w.send(node, answer, e.Load.src, rand.New(&w.chance[node]))
		default:
			w.answered++
			w.line = append(strconv.AppendUint(w.line[:0], uint64(e.Load.from), 10), " answers "...)
			w.line = strconv.AppendUint(w.line, uint64(node), 10)
			w.trace.Add(e.At, w.line)
		}
	}
}

func (w *swarm) send(from uint32, kind uint16, dst sim.Endpoint, r *rand.Rand) {
	to, ok := w.nats.Node(dst.Host)
	if !ok {
		return
	}
	now := w.queue.Now()
	load := datagram{src: w.nats.Out(now, from, dst), dst: dst, from: from}
	f := w.net.Send(now, from, to, 100, r)
	for _, at := range f.At[:f.Copies] {
		w.queue.Push(sim.Event[datagram]{At: at, Node: to, Kind: kind, Load: load})
	}
}

// A swarm in arrays, with events of its own and without closures.
func Example() {
	play := func(t *sim.Trace) *swarm {
		w := newSwarm(1000, 1, t)
		w.run(sim.Time(10 * time.Minute))
		return w
	}
	w := play(sim.NewTrace(nil))
	fmt.Println("some asked:", w.asked > 4000, "- a part answered:", w.answered > w.asked/8 && w.answered < w.asked/2)
	fmt.Println("replay:", sim.Replay(func(t *sim.Trace) { play(t) }))
	// Output:
	// some asked: true - a part answered: true
	// replay: <nil>
}

// BenchmarkSwarm plays ten minutes of the example's world with a hundred thousand nodes.
func BenchmarkSwarm_HundredThousandNodes(b *testing.B) {
	var before, after runtime.MemStats
	events := 0
	var kept *swarm
	b.ReportAllocs()
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		kept = newSwarm(100_000, 1, sim.NewTrace(nil))
		kept.run(sim.Time(10 * time.Minute))
		events += kept.events
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/100_000, "B/node")
	runtime.KeepAlive(kept)
}
