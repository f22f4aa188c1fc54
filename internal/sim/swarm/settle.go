package swarm

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// directory is keys in order, each with whose it is. Distances are by the first 64 bits, as in the machine.
type directory struct {
	keys []uint64
	node []uint32
}

func prefixOf(k crowd.Key) uint64 { return binary.BigEndian.Uint64(k[:]) }

func newDirectory(w *World, nodes []uint32) *directory {
	type place struct {
		key  uint64
		node uint32
	}
	all := make([]place, len(nodes))
	for i, n := range nodes {
		all[i] = place{prefixOf(w.recs[n].ID.Key()), n}
	}
	slices.SortFunc(all, func(a, b place) int {
		if a.key < b.key {
			return -1
		}
		return 1
	})
	d := &directory{make([]uint64, len(all)), make([]uint32, len(all))}
	for i, p := range all {
		d.keys[i], d.node[i] = p.key, p.node
	}
	return d
}

// span is where those with the first so many bits of key are.
func (d *directory) span(key uint64, bits int) (lo, hi int) {
	if bits == 0 {
		return 0, len(d.keys)
	}
	mask := uint64(1)<<(64-bits) - 1
	lo, _ = slices.BinarySearch(d.keys, key&^mask)
	hi, found := slices.BinarySearch(d.keys, key|mask)
	if found {
		hi++
	}
	return lo, hi
}

// nearest appends to out the places of the want nearest to key, nearest first.
func (d *directory) nearest(out []int, key uint64, want int) []int {
	depth := bits.Len(uint(len(d.keys)/max(want, 1))) + 1
	lo, hi := 0, 0
	for ; depth >= 0; depth-- {
		if lo, hi = d.span(key, depth); hi-lo >= want {
			break
		}
	}
	begin := len(out)
	for i := lo; i < hi; i++ {
		out = append(out, i)
	}
	slices.SortFunc(out[begin:], func(a, b int) int {
		if d.keys[a]^key < d.keys[b]^key {
			return -1
		}
		return 1
	})
	return out[:min(len(out), begin+want)]
}

// Settle begins the world with all nodes there and every table as full as it can be: siblings are those that
// are nearest, buckets a random choice, in which the adversary has its share. With churn, honest nodes come and go from then on:
// whoever leaves makes place for somebody new, who joins through nodes that are there. The adversary's stay,
// which is the worst case, since old peers are kept.
func (w *World) Settle() {
	all := make([]uint32, 0, len(w.recs))
	for i := range uint32(len(w.recs)) {
		if !w.client(i) {
			all = append(all, i)
		}
	}
	d := newDirectory(w, all)
	for i := range uint32(w.honest) {
		w.begin(i)
	}
	w.age()
	for i := range uint32(w.honest) {
		w.fill(d, i)
		w.schedule(i)
	}
	w.foe.settled()
}

func (w *World) fill(d *directory, i uint32) {
	n, now := w.nodes[i], w.at(w.queue.Now())
	cfg := w.cfg.Overlay
	if cfg.Siblings == 0 {
		cfg.Siblings = 16
	}
	if cfg.BucketSize == 0 {
		cfg.BucketSize = 32
	}
	own := prefixOf(n.Key())
	near := d.nearest(nil, own, 5*cfg.Siblings+1)
	for _, at := range near {
		if d.node[at] != i {
			n.AdoptOld(now, w.recs[d.node[at]], w.acquainted(i, d.node[at]))
		}
	}
	farthest := d.keys[near[len(near)-1]] ^ own
	for p := range bits.LeadingZeros64(farthest) + 1 {
		lo, hi := d.span(own^1<<(63-p), p+1)
		w.pick(lo, hi, cfg.BucketSize, func(at int) {
			peer := d.node[at]
			if d.keys[at]^own <= farthest || peer == i {
				return
			}
			n.AdoptOld(now, w.recs[peer], w.acquainted(i, peer))
			if !w.client(i) && !w.foes(peer) { // the peer has been pinged by whoever has it
				w.nodes[peer].Vouch(now, w.recs[i].ID, addrOf(w.recs[i].Endpoints[0]))
			}
		})
	}
}

// acquainted is for how long two nodes may know each other at most.
func (w *World) acquainted(a, b uint32) time.Duration {
	return max(0, w.Now()-time.Duration(max(w.since[a], w.since[b])))
}

// pick calls do with count different numbers of lo to hi-1, or with all.
func (w *World) pick(lo, hi, count int, do func(int)) {
	if hi-lo <= count {
		for i := lo; i < hi; i++ {
			do(i)
		}
		return
	}
	var taken [256]int
	have := taken[:0]
	for j := hi - count; j < hi; j++ { // Floyd's sampling
		i := lo + w.rng.IntN(j-lo+1)
		if slices.Contains(have, i) {
			i = j
		}
		have = append(have, i)
		do(i)
	}
}
