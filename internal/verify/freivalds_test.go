package verify

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

func random(r *rand.Rand, n, m int, below uint64) [][]uint64 {
	out := make([][]uint64, n)
	for i := range out {
		out[i] = make([]uint64, m)
		for j := range out[i] {
			out[i][j] = r.Uint64N(below)
		}
	}
	return out
}

// product is A·B mod p, the long way.
func product(a, b [][]uint64, p uint64) [][]uint64 {
	c := make([][]uint64, len(a))
	for i := range a {
		c[i] = make([]uint64, len(b[0]))
		for j := range c[i] {
			column := make([]uint64, len(b))
			for k := range b {
				column[k] = b[k][j]
			}
			c[i][j] = dot(a[i], column, p)
		}
	}
	return c
}

func TestFreivalds_FindsOneWrongEntry(t *testing.T) {
	r := rand.New(rand.NewChaCha8([32]byte{9}))
	for _, n := range []struct{ n, m, k int }{{1, 1, 1}, {3, 4, 5}, {17, 9, 1}, {30, 33, 31}} {
		a, b := random(r, n.n, n.m, FieldPrime), random(r, n.m, n.k, FieldPrime)
		c := product(a, b, FieldPrime)
		if ok, err := Freivalds(a, b, c, 2, r); err != nil || !ok {
			t.Fatalf("a right product: got %v, %v", ok, err)
		}
		for i := range c {
			for j := range c[i] {
				was := c[i][j]
				c[i][j] = (was + 1) % FieldPrime
				if ok, err := Freivalds(a, b, c, 1, r); err != nil || ok {
					t.Fatalf("entry %d,%d of %v is wrong: got %v, %v", i, j, n, ok, err)
				}
				c[i][j] = was
			}
		}
	}
}

// In a field of 7 a single wrong entry passes a round exactly when its factor is 0.
func TestFreivalds_ErrorAsSimulated(t *testing.T) {
	r := rand.New(rand.NewChaCha8([32]byte{8}))
	a, b := random(r, 3, 3, 7), random(r, 3, 3, 7)
	c := product(a, b, 7)
	c[1][2] = (c[1][2] + 3) % 7
	for rounds, p := range map[int]float64{1: 1. / 7, 2: 1. / 49} {
		simulate(t, 50_000, p, map[string]float64{"a field of 8": math.Pow(1./8, float64(rounds)), "bits": math.Pow(.5, float64(rounds))}, func(r *rand.Rand) bool {
			ok, err := freivalds(a, b, c, 7, rounds, r)
			return ok && err == nil
		})
	}
}

// Sums of many products of the largest elements do not wrap.
func TestDot_LargestElements(t *testing.T) {
	const n = 100
	x := make([]uint64, n)
	for i := range x {
		x[i] = FieldPrime - 1 // -1: its square is 1
	}
	if got := dot(x, x, FieldPrime); got != n {
		t.Errorf("got %d want %d", got, n)
	}
}

func TestFreivaldsInt_NoMultipleOfThePrimeSlipsThrough(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	a, b := [][]int64{{-3, 4}, {5, -6}}, [][]int64{{7, -8}, {-9, 10}}
	c := [][]int64{{-57, 64}, {89, -100}}
	if ok, err := FreivaldsInt(a, b, c, 1, r); err != nil || !ok {
		t.Fatalf("a right product: got %v, %v", ok, err)
	}
	c[0][1]++
	if ok, err := FreivaldsInt(a, b, c, 1, r); err != nil || ok {
		t.Errorf("a wrong entry: got %v, %v", ok, err)
	}
	c[0][1] = 64 - FieldPrime // the same element of the field, another integer
	if ok, err := FreivaldsInt(a, b, c, 1, r); !errors.Is(err, ErrProduct) {
		t.Errorf("a multiple of the prime more: got %v, %v", ok, err)
	}
	const half = 1 << 31
	for name, c := range map[string]struct{ a, b, c [][]int64 }{
		"just reaches the prime":          {[][]int64{{1}}, [][]int64{{1}}, [][]int64{{1 - FieldPrime}}},
		"does not fit as so many terms":   {[][]int64{{half, half, half, half}}, [][]int64{{half}, {half}, {half}, {half}}, [][]int64{{0}}},
		"does not fit with the largest C": {[][]int64{{2 * half}}, [][]int64{{half}}, [][]int64{{math.MinInt64}}},
	} {
		if ok, err := FreivaldsInt(c.a, c.b, c.c, 1, r); !errors.Is(err, ErrProduct) {
			t.Errorf("a bound that %s: got %v, %v", name, ok, err)
		}
	}
	for _, huge := range [][][]int64{{{math.MinInt64}}, {{math.MaxInt64}}, {{1 << 31}}} {
		if ok, err := FreivaldsInt(huge, huge, [][]int64{{0}}, 1, r); !errors.Is(err, ErrProduct) {
			t.Errorf("%v squared: got %v, %v", huge, ok, err)
		}
	}
}

func TestFreivalds_RefusesWhatIsNoProduct(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	good := [][]uint64{{1, 0}, {0, 1}}
	for name, c := range map[string]struct {
		a, b, c [][]uint64
		rounds  int
	}{
		"no rounds": {good, good, good, 0}, "empty": {nil, nil, nil, 1}, "no columns": {good, [][]uint64{{}, {}}, [][]uint64{{}, {}}, 1},
		"ragged": {[][]uint64{{1, 0}, {1}}, good, good, 1}, "few rows": {good, good, good[:1], 1}, "does not fit": {good, good[:1], good, 1},
		"no element": {good, good, [][]uint64{{1, FieldPrime}, {0, 1}}, 1},
	} {
		if ok, err := Freivalds(c.a, c.b, c.c, c.rounds, r); ok || !errors.Is(err, ErrProduct) {
			t.Errorf("%s: got %v, %v", name, ok, err)
		}
	}
}

func BenchmarkFreivalds_256(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	x, y := random(r, 256, 256, FieldPrime), random(r, 256, 256, FieldPrime)
	z := product(x, y, FieldPrime)
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := Freivalds(x, y, z, 1, r); !ok || err != nil {
			b.Fatal(err)
		}
	}
}
