package verify

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
)

// FieldPrime is the Mersenne prime 2^61-1: products of two elements fit 128 bits.
const FieldPrime = 1<<61 - 1

// ErrProduct: the matrices are not such as the claim could hold for.
var ErrProduct = errors.New("not a product to check")

// Freivalds checks the claim A·B = C over the field of FieldPrime elements
// without multiplying: A is n×m, B is m×k, C is n×k, row by row, entries below
// FieldPrime. Each round takes a vector r, uniform over the field, and compares
// A(Br) with Cr, which costs nm+mk+nk multiplications in place of nmk. A right
// product always passes; a wrong one passes a round with probability at most
// 1/FieldPrime, so rounds of them with at most FieldPrime^-rounds (Freivalds
// 1977; over {0,1} it would be 2^-rounds). Whoever made C must not know r
// beforehand: random comes from a secret, or from a beacon that came after C was
// committed to. Matrices that do not fit each other are ErrProduct, as are entries that are no elements.
func Freivalds(a, b, c [][]uint64, rounds int, random *rand.Rand) (bool, error) {
	return freivalds(a, b, c, FieldPrime, rounds, random)
}

// FreivaldsInt checks A·B = C over the integers. It works modulo FieldPrime, which
// proves the integers equal only if no entry of AB-C can be a multiple of it: m
// times the largest |A| times the largest |B|, plus the largest |C|, must be below
// FieldPrime, and whatever is not is ErrProduct, never a guess.
func FreivaldsInt(a, b, c [][]int64, rounds int, random *rand.Rand) (bool, error) {
	x, maxA := residues(a)
	y, maxB := residues(b)
	z, maxC := residues(c)
	hi, bound := bits.Mul64(maxA, maxB)
	hi2, bound := bits.Mul64(bound, uint64(len(b)))
	if sum, carry := bits.Add64(bound, maxC, 0); hi != 0 || hi2 != 0 || carry != 0 || sum >= FieldPrime {
		return false, fmt.Errorf("%w: entries up to %d, %d and %d over %d terms may differ by a multiple of %d", ErrProduct, maxA, maxB, maxC, len(b), uint64(FieldPrime))
	}
	return Freivalds(x, y, z, rounds, random)
}

// residues is m modulo FieldPrime and the largest absolute value in it.
func residues(m [][]int64) (out [][]uint64, largest uint64) {
	out = make([][]uint64, len(m))
	for i, row := range m {
		out[i] = make([]uint64, len(row))
		for j, v := range row {
			size := uint64(v)
			if v < 0 {
				size = -size
			}
			largest = max(largest, size)
			if out[i][j] = size % FieldPrime; v < 0 && out[i][j] != 0 {
				out[i][j] = FieldPrime - out[i][j]
			}
		}
	}
	return out, largest
}

func freivalds(a, b, c [][]uint64, p uint64, rounds int, random *rand.Rand) (bool, error) {
	if rounds < 1 {
		return false, fmt.Errorf("%w: %d rounds prove nothing", ErrProduct, rounds)
	}
	if len(a) == 0 || len(b) == 0 || len(b[0]) == 0 {
		return false, fmt.Errorf("%w: an empty matrix", ErrProduct)
	}
	columns := len(b[0])
	for _, m := range []struct {
		name          string
		rows          [][]uint64
		height, width int
	}{{"A", a, len(a), len(b)}, {"B", b, len(b), columns}, {"C", c, len(a), columns}} {
		if len(m.rows) != m.height {
			return false, fmt.Errorf("%w: %s has %d rows, want %d", ErrProduct, m.name, len(m.rows), m.height)
		}
		for i, row := range m.rows {
			if len(row) != m.width {
				return false, fmt.Errorf("%w: row %d of %s has %d entries, want %d", ErrProduct, i, m.name, len(row), m.width)
			}
			for _, v := range row {
				if v >= p {
					return false, fmt.Errorf("%w: %d in %s is no element of the field", ErrProduct, v, m.name)
				}
			}
		}
	}
	r := make([]uint64, columns)
	for range rounds {
		for i := range r {
			r[i] = random.Uint64N(p)
		}
		br := times(b, r, p)
		for i := range a {
			if dot(a[i], br, p) != dot(c[i], r, p) {
				return false, nil
			}
		}
	}
	return true, nil
}

func times(m [][]uint64, v []uint64, p uint64) []uint64 {
	out := make([]uint64, len(m))
	for i := range m {
		out[i] = dot(m[i], v, p)
	}
	return out
}

// dot is x·y mod p, elements below p < 2^62. Sums of products stay below 2^128
// for 16 terms; they are reduced after each 8.
func dot(x, y []uint64, p uint64) uint64 {
	var hi, lo uint64
	for i := range x {
		h, l := bits.Mul64(x[i], y[i])
		var carry uint64
		lo, carry = bits.Add64(lo, l, 0)
		hi, _ = bits.Add64(hi, h, carry)
		if i%8 == 7 {
			hi, lo = 0, bits.Rem64(hi, lo, p)
		}
	}
	return bits.Rem64(hi, lo, p)
}
