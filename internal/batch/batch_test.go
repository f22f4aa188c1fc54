package batch

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
)

func leaves(n int) []Leaf {
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	out := make([]Leaf, n)
	for i := range out {
		out[i] = Leaf{Status: crowd.Exited, ExitCode: rng.Uint32N(3), Gas: crowd.Gas(rng.Uint64N(1e9)), Output: crowd.Keccak256([]byte{byte(i), byte(i >> 8)})}
	}
	return out
}

func TestTree_ProvesEachLeafAndNothingElse(t *testing.T) {
	for n := 1; n < 70; n++ {
		ls := leaves(n)
		tree, err := NewTree(ls)
		if err != nil {
			t.Fatal(err)
		}
		root := tree.Root()
		total := crowd.Gas(0)
		for _, l := range ls {
			total += l.Gas
		}
		if got := tree.Root().Top.Gas; got != total {
			t.Fatalf("%d leaves: got gas %d want %d", n, got, total)
		}
		for i := range ls {
			p := tree.Prove(uint32(i), ls[i])
			if err := p.Check(root); err != nil {
				t.Fatalf("item %d of %d: %v", i, n, err)
			}
			for name, spoil := range map[string]func(p *Proof){
				"another index":  func(p *Proof) { p.Index = uint32((i + 1) % n) },
				"another output": func(p *Proof) { p.Leaf.Output[3] ^= 1 },
				"another gas":    func(p *Proof) { p.Leaf.Gas++ },
				"another exit":   func(p *Proof) { p.Leaf.ExitCode++ },
				"a longer path":  func(p *Proof) { p.Path = append(p.Path, Node{}) },
				"moved gas": func(p *Proof) {
					if len(p.Path) > 0 {
						p.Path[0].Gas, p.Leaf.Gas = p.Path[0].Gas+1, p.Leaf.Gas-1
					} else {
						p.Leaf.Gas++
					}
				},
			} {
				q := p
				q.Path = slices.Clone(p.Path)
				spoil(&q)
				if n == 1 && name == "another index" {
					continue // it is the same
				}
				if q.Check(root) == nil {
					t.Fatalf("item %d of %d with %s passed", i, n, name)
				}
			}
		}
	}
}

func TestTree_RefusesGasBeyond64Bits(t *testing.T) {
	if _, err := NewTree([]Leaf{{Gas: 1 << 63}, {Gas: 1 << 63}}); err == nil {
		t.Error("a sum that wraps passed")
	}
	if _, err := NewTree(nil); err == nil {
		t.Error("a tree over nothing passed")
	}
}

func frames(t *testing.T, items [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	err := WriteFrames(&b, uint32(len(items)), func(i uint32) uint64 { return uint64(len(items[i])) },
		func(i uint32, w io.Writer) error { _, err := w.Write(items[i]); return err })
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFrames_ComeBack(t *testing.T) {
	items := [][]byte{[]byte("one"), nil, []byte(strings.Repeat("x", 1000)), []byte("\n")}
	file := frames(t, items)
	f, err := OpenFrames(bytes.NewReader(file), int64(len(file)), 4)
	if err != nil {
		t.Fatal(err)
	}
	for i := range items {
		if got, err := f.Read(uint32(i)); err != nil || !bytes.Equal(got, items[i]) {
			t.Errorf("item %d: got %q, %v", i, got, err)
		}
	}
	if _, err := OpenFrames(bytes.NewReader(file), int64(len(file)), 5); err == nil {
		t.Error("a file of 4 passed for one of 5")
	}
	if _, err := OpenFrames(bytes.NewReader(file), int64(len(file)-1), 4); err == nil {
		t.Error("a file cut short passed")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'x'}, uint32(1))
	f.Fuzz(func(t *testing.T, file []byte, n uint32) {
		x, err := OpenFrames(bytes.NewReader(file), int64(len(file)), n)
		if err != nil {
			return
		}
		items := make([][]byte, n)
		for i := range items {
			if items[i], err = x.Read(uint32(i)); err != nil {
				t.Fatalf("frame %d of a file that opened: %v", i, err)
			}
		}
		if !bytes.Equal(frames(t, items), file) {
			t.Fatal("does not encode back to the same bytes")
		}
	})
}

func FuzzLeaf(f *testing.F) {
	f.Add(make([]byte, LeafSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := DecodeLeaf(b)
		if err == nil && !bytes.Equal(l.Append(nil), b) {
			t.Fatal("does not encode back to the same bytes")
		}
	})
}

func TestSample_EachItemAlikeAndNoneTwice(t *testing.T) {
	const n, q, rounds = 50, 7, 20000
	var hits [n]int
	for r := range rounds {
		s := Sample([]byte{byte(r), byte(r >> 8)}, n, q)
		if len(s) != q || !slices.IsSorted(s) || len(slices.Compact(slices.Clone(s))) != q {
			t.Fatalf("got %v", s)
		}
		for _, i := range s {
			hits[i]++
		}
	}
	mean := float64(rounds) * q / n // variance is about mean: 5 sigma is 265
	for i, h := range hits {
		if d := float64(h) - mean; d > 265 || d < -265 {
			t.Errorf("item %d was picked %d times, want about %.0f", i, h, mean)
		}
	}
	if s := Sample(nil, 3, 9); !slices.Equal(s, []uint32{0, 1, 2}) {
		t.Errorf("got %v for more than there are", s)
	}
	if slices.Equal(Sample([]byte("a"), 1000, 10), Sample([]byte("b"), 1000, 10)) {
		t.Error("two lots have one sample")
	}
}

func BenchmarkTree_100000Items(b *testing.B) {
	ls := leaves(100_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewTree(ls); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(ls))*float64(b.N)/b.Elapsed().Seconds(), "items/s")
}
