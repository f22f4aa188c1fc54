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
	for _, m := range w.nodes {
		own := be(&m.Node.key)
		depth := 0
		for {
			lo, hi := span(own, depth+1)
			if hi-lo <= m.siblingsMax()+1 || depth == maxPrefix {
				break
			}
			depth++
		}
		lo, hi := span(own, depth)
		for _, o := range all[lo:hi] {
			if o != m {
				m.Adopt(w.now, o.rec)
			}
		}
		for p := depth - 1; p >= 0; p-- {
			lo, hi := span(own^1<<(63-p), p+1)
			for try := 0; try < 4*m.cfg.BucketSize && lo < hi; try++ {
				if p < len(m.buckets) && len(m.buckets[p].entries) == m.cfg.BucketSize {
					break
				}
				m.Adopt(w.now, all[lo+w.rng.IntN(hi-lo)].rec)
			}
		}
		m.wake = m.Deadline()
		w.put(m.wake, m, Woke{})
	}
}
