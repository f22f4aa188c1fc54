package overlay

import (
	"slices"
	"testing"
)

// settledWorld is a network whose tables are as full as they can be, and to which nothing has happened yet.
func settledWorld(tb testing.TB, seed uint64, size int, cfg Config) *world {
	w := newWorld(tb, seed, cfg)
	for range size {
		w.add(recordOf(w.rng, publicAddr(w.rng), w.now))
	}
	w.settle()
	return w
}

func (w *world) settle() {
	all := slices.Clone(w.nodes)
	slices.SortFunc(all, func(a, b *member) int {
		return byDistance(ranked{dist: be(&a.Node.key)}, ranked{dist: be(&b.Node.key)})
	})
	keys := make([]uint64, len(all))
	for i, m := range all {
		keys[i] = be(&m.Node.key)
	}
	// span is where in all those with the first bits of key are.
	span := func(key uint64, bits int) (int, int) {
		if bits == 0 {
			return 0, len(keys)
		}
		low := key &^ (1<<(64-bits) - 1)
		lo, _ := slices.BinarySearch(keys, low)
		hi, _ := slices.BinarySearch(keys, low|(1<<(64-bits)-1)+0)
		for hi < len(keys) && keys[hi]>>(64-bits) == low>>(64-bits) {
			hi++
		}
		return lo, hi
	}
	var near []ranked
	var taken []int
	for _, m := range w.nodes {
		own := be(&m.Node.key)
		depth := 0
		for {
			lo, hi := span(own, depth+1)
			if hi-lo <= m.siblingsMax() || depth == maxPrefix {
				break
			}
			depth++
		}
		// Straight into the table: subnets, drawn by chance among millions, need no look.
		m.joined, m.now = true, w.now
		place := func(o *member, at place) { m.enter(m.fresh(o.self), at) }
		lo, hi := span(own, depth)
		near = near[:0]
		for i := lo; i < hi; i++ {
			if all[i] != m {
				near = append(near, ranked{keys[i] ^ own, Ref(i)})
			}
		}
		slices.SortFunc(near, byDistance)
		for i, r := range near {
			at := asSibling
			if i >= m.siblingsMax() {
				at = asBucket
			}
			if p := prefix(r.dist); at == asBucket && p < len(m.buckets) && len(m.buckets[p].entries) >= m.cfg.BucketSize {
				continue
			}
			place(all[r.ref], at)
		}
		for p := depth - 1; p >= 0; p-- {
			lo, hi := span(own^1<<(63-p), p+1)
			taken = taken[:0]
			for j := max(hi-m.cfg.BucketSize, lo); j < hi; j++ { // Floyd's sampling
				i := lo + w.rng.IntN(j-lo+1)
				if slices.Contains(taken, i) {
					i = j
				}
				taken = append(taken, i)
				place(all[i], asBucket)
			}
		}
		m.own = w.now.Add(m.jitter(m.ownEvery()))
		m.sweep = w.now.Add(m.jitter(m.cfg.PingEvery))
		m.wake = m.sweep
		w.put(m.wake, m, Woke{})
	}
}
