package batch

import (
	"encoding/binary"
	"slices"

	"github.com/crowdcompute/crowd"
)

// Sample picks q of n items, ascending, each set of q as likely as any
// other (Floyd's algorithm: Bentley and Floyd 1987), from a verifier's VRF output: nobody
// else knows the sample before the verifier shows its proof, and the verifier cannot choose it.
// All n are picked when q is n or more.
func Sample(lot []byte, n, q uint32) []uint32 {
	s := stream{seed: crowd.Keccak256([]byte("crowd/sample\x00"), lot)}
	q = min(q, n)
	picked := make(map[uint32]bool, q) // never ranged over
	out := make([]uint32, 0, q)
	for j := n - q; j < n; j++ {
		i := s.below(j + 1)
		if picked[i] {
			i = j
		}
		picked[i] = true
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

// stream is Keccak-256 in counter mode.
type stream struct {
	seed  crowd.Hash
	count uint64
}

// below is uniform in [0, n): values that would favour some remainders are drawn again.
func (s *stream) below(n uint32) uint32 {
	for {
		h := crowd.Keccak256(s.seed[:], binary.BigEndian.AppendUint64(nil, s.count))
		s.count++
		x := binary.BigEndian.Uint64(h[:])
		if rest := -uint64(n) % uint64(n); x >= rest { // 2^64 mod n
			return uint32(x % uint64(n))
		}
	}
}
