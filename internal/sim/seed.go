package sim

import "math/rand/v2"

// Mix is a hash of a seed and a number: SplitMix64's output function (Steele, Lea
// and Flood, OOPSLA 2014) over both. Not for anything that an adversary chooses.
func Mix(seed, n uint64) uint64 {
	return splitMix(splitMix(seed) ^ n)
}

func splitMix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Source is a node's own chance: 16 bytes that follow from the world's seed and
// the node's number. What one node draws does not change what another draws, so
// a history stays the same for all whom a change does not reach. Keep the PCG
// itself in an array of nodes and put a rand.Rand round it where it is used.
func Source(seed uint64, node uint32) rand.PCG {
	return *rand.NewPCG(Mix(seed, uint64(node)), Mix(^seed, uint64(node)))
}
