package overlay

import (
	"runtime"
	"testing"
	"time"
)

// BenchmarkNode_Memory100k is what a settled node takes, with its share of the book: 100,000 of them.
func BenchmarkNode_Memory100k(b *testing.B) { benchmarkMemory(b, 100_000) }

// BenchmarkNode_Memory10k is the same for 10,000.
func BenchmarkNode_Memory10k(b *testing.B) { benchmarkMemory(b, 10_000) }

func benchmarkMemory(b *testing.B, size int) {
	b.ReportAllocs()
	for b.Loop() {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := settledWorld(b, 1, size, Config{})
		entries := 0
		nodes := make([]*Node, len(w.nodes))
		for i, m := range w.nodes {
			entries += m.Stats().Entries
			nodes[i] = m.Node
			m.prove(&w.nodes[0].rec.ID, w.nodes[0].addr) // there is room for all proofs as soon as there is one
		}
		book := w.book
		w = nil // what is the world's, not the node's
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(size), "B/node")
		b.ReportMetric(float64(entries)/float64(size), "entries/node")
		runtime.KeepAlive(nodes)
		runtime.KeepAlive(book)
	}
}

// BenchmarkStep_Ping is a known peer's ping, answered.
func BenchmarkStep_Ping(b *testing.B) {
	w := settledWorld(b, 1, 1000, Config{})
	m, o := w.nodes[0], w.nodes[1]
	for _, x := range w.nodes {
		if m.entry(&x.Node.key) != nil {
			o = x
		}
	}
	ev := Event(Received{From: o.rec.ID, Addr: o.addr, Size: 128, Msg: Ping{Req: 1, Seq: o.rec.Seq}})
	b.ReportAllocs()
	for b.Loop() {
		m.Step(w.now, ev)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkStep_FindNode is a known peer's question, answered with 16 records.
func BenchmarkStep_FindNode(b *testing.B) {
	w := settledWorld(b, 1, 1000, Config{})
	m, o := w.nodes[0], w.nodes[1]
	for _, x := range w.nodes {
		if m.entry(&x.Node.key) != nil {
			o = x
		}
	}
	ev := Event(Received{From: o.rec.ID, Addr: o.addr, Size: 170, Msg: FindNode{Req: 1, Target: w.nodes[500].Node.key, Want: 16}})
	b.ReportAllocs()
	for b.Loop() {
		m.Step(w.now, ev)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkStep_Lookups is whole lookups in a world of 2,000 nodes; an event is a Step of any of them, the world's queue included.
func BenchmarkStep_Lookups(b *testing.B) {
	w := settledWorld(b, 1, 2000, Config{})
	w.run(time.Second)
	from, i := w.seq, 0
	b.ReportAllocs()
	for b.Loop() {
		m, o := w.nodes[i%2000], w.nodes[(i*7+1)%2000]
		if m != o {
			w.look(m, Lookup{Target: o.Key()})
		}
		i++
	}
	b.ReportMetric(float64(w.seq-from)/b.Elapsed().Seconds(), "events/s")
}
