package batch

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
)

// split is all parts of some outputs.
func split(t testing.TB, outs []string, n uint32) [][]byte {
	t.Helper()
	parts := make([][]byte, n)
	for _, out := range outs {
		err := Split([]byte(out), n, func(p uint32, line []byte) error {
			parts[p] = append(append(parts[p], line...), '\n')
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return parts
}

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		name string
		outs []string
		want string // the one part
	}{
		{"nothing", []string{"", ""}, ""},
		{"lines", []string{"b\t1\na\t2\n", "b\t3\n"}, "b\t1\na\t2\nb\t3\n"},
		{"a last line without its newline", []string{"a\t1\nb\t2", "c\t3"}, "a\t1\nb\t2\nc\t3\n"},
		{"a key without a value", []string{"a\n\n"}, "a\n\n"},
		{"more than one tab", []string{"a\tb\tc\n"}, "a\tb\tc\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(split(t, tt.outs, 1)[0]); got != tt.want {
				t.Errorf("got %q want %q", got, tt.want)
			}
		})
	}
}

func TestSplit_ByTheKeyAlone(t *testing.T) {
	for _, k := range []string{"", "a", "key", "κλειδί", strings.Repeat("x", 1000)} {
		h := fnv.New64a()
		h.Write([]byte(k))
		want := uint32(h.Sum64() % 7)
		for _, line := range []string{k, k + "\t", k + "\tvalue", k + "\tvalue\tand another"} {
			if parts := split(t, []string{line + "\n"}, 7); string(parts[want]) != line+"\n" {
				t.Errorf("line %.40q: not in part %d, where hash/fnv puts it", line, want)
			}
		}
	}
}

// Parts of several outputs, merged, are all lines sorted by key, in the order in which they were written.
func TestMerge_IsAStableSort(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const sources, n = 3, 5
	var files [n][][]byte
	var want [n][]string
	for s := range sources {
		var out strings.Builder
		for i := range 200 {
			line := fmt.Sprintf("k%d\t%d %d", rng.IntN(20), s, i)
			out.WriteString(line + "\n")
			k, _, _ := strings.Cut(line, "\t")
			p := PartOf([]byte(k), n)
			want[p] = append(want[p], line)
		}
		for p, f := range split(t, []string{out.String()}, n) {
			files[p] = append(files[p], f)
		}
	}
	for p := range n {
		slices.SortStableFunc(want[p], func(a, b string) int {
			x, _, _ := strings.Cut(a, "\t")
			y, _, _ := strings.Cut(b, "\t")
			return cmp.Compare(x, y)
		})
		if got := string(Merge(files[p])); got != strings.Join(want[p], "\n")+"\n" {
			t.Errorf("part %d: got %.80q…", p, got)
		}
	}
	if got := string(Merge([][]byte{[]byte("b"), nil, []byte("a\n")})); got != "a\nb\n" {
		t.Errorf("got %q", got)
	}
}

// FuzzSplit: no line is lost, changed or in a part that is not its key's.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("a\t1\nb\t2"), uint32(3))
	f.Add([]byte("\n\n"), uint32(19))
	f.Fuzz(func(t *testing.T, out []byte, n uint32) {
		n = n%64 + 1
		var all []byte
		lines := 0
		parts := make([][]byte, n)
		Split(out, n, func(p uint32, line []byte) error {
			if k, _, _ := bytes.Cut(line, []byte("\t")); PartOf(k, n) != p || bytes.Contains(line, []byte("\n")) {
				t.Fatalf("line %q in part %d", line, p)
			}
			lines++
			all = append(append(all, line...), '\n')
			parts[p] = append(append(parts[p], line...), '\n')
			return nil
		})
		want := bytes.Clone(out)
		if len(out) > 0 && out[len(out)-1] != '\n' {
			want = append(want, '\n')
		}
		if !bytes.Equal(all, want) {
			t.Fatalf("got %q want %q", all, want)
		}
		merged := Merge(parts)
		if bytes.Count(merged, []byte("\n")) != lines || !bytes.Equal(Merge([][]byte{merged}), merged) {
			t.Fatal("lines were lost, or sorting sorted changes it")
		}
	})
}

func someManifest() Manifest {
	return Manifest{Sources: []Source{{Result: "one", Holders: []crowd.NodeID{{1}, {2}}}, {Result: "two"}}, Items: [][]uint32{{0, 3}, {1}, {2}}}
}

func TestDecodeManifest(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Manifest)
		want   string
	}{
		{"good", func(*Manifest) {}, ""},
		{"no source", func(m *Manifest) { m.Sources = nil }, "0 sources"},
		{"too many sources", func(m *Manifest) { m.Sources = slices.Repeat(m.Sources, MaxSources) }, "8192 sources"},
		{"no result", func(m *Manifest) { m.Sources[1].Result = "" }, "source 1"},
		{"a long CID", func(m *Manifest) { m.Sources[0].Result = crowd.CID(strings.Repeat("x", crowd.MaxCID+1)) }, "source 0"},
		{"too many holders", func(m *Manifest) { m.Sources[0].Holders = make([]crowd.NodeID, MaxHolders+1) }, "source 0"},
		{"another number of items", func(m *Manifest) { m.Items = m.Items[:2] }, "2 items"},
		{"an item of nothing", func(m *Manifest) { m.Items[2] = nil }, "item 2"},
		{"a part twice", func(m *Manifest) { m.Items[0] = []uint32{3, 3} }, "item 0"},
		{"a part that no job has", func(m *Manifest) { m.Items[1] = []uint32{crowd.MaxParts} }, "item 1"},
		{"too many parts", func(m *Manifest) {
			all := make([]uint32, crowd.MaxParts)
			for i := range all {
				all[i] = uint32(i)
			}
			m.Items[0] = all
		}, "item 1"},
		{"too many files", func(m *Manifest) {
			m.Sources, m.Items[1] = slices.Repeat(m.Sources, MaxSources/2), make([]uint32, 31)
			for i := range m.Items[1] {
				m.Items[1][i] = uint32(i)
			}
		}, "item 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := someManifest()
			tt.change(&m)
			_, err := DecodeManifest(crowd.Encode(&m), 3)
			if tt.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v want %q", err, tt.want)
			}
		})
	}
	if _, err := DecodeManifest(make([]byte, MaxManifest+1), 3); err == nil {
		t.Error("a manifest beyond its bound passed")
	}
}

func FuzzManifest(f *testing.F) {
	m := someManifest()
	f.Add(crowd.Encode(&m), uint32(3))
	f.Fuzz(func(t *testing.T, raw []byte, items uint32) {
		if m, err := DecodeManifest(raw, items); err == nil && !bytes.Equal(crowd.Encode(&m), raw) {
			t.Fatal("does not encode back to the same bytes")
		}
	})
}

// lineText is about that many bytes of words with counts.
func lineText(size int) []byte {
	rng := rand.New(rand.NewPCG(3, 4))
	var b bytes.Buffer
	for b.Len() < size {
		fmt.Fprintf(&b, "word%d\t%d\n", rng.IntN(50_000), rng.IntN(100))
	}
	return b.Bytes()
}

func BenchmarkSplit_1MBOfWordCounts_400Parts(b *testing.B) {
	text := lineText(1 << 20)
	parts := make([][]byte, 400)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		for i := range parts {
			parts[i] = parts[i][:0]
		}
		Split(text, uint32(len(parts)), func(p uint32, line []byte) error {
			parts[p] = append(append(parts[p], line...), '\n')
			return nil
		})
	}
}

func BenchmarkMerge_1MBOfWordCounts_20Files(b *testing.B) {
	var files [][]byte
	for range 20 {
		files = append(files, lineText(1<<20/20))
	}
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		Merge(files)
	}
}

func TestSizes_ComeBackInOneForm(t *testing.T) {
	sizes := []uint64{0, 1, 127, 128, 1 << 20, ^uint64(0)}
	raw := AppendSizes(nil, sizes)
	if got, err := DecodeSizes(raw, uint32(len(sizes))); err != nil || !slices.Equal(got, sizes) || uint64(len(raw)) > MaxSizes(uint32(len(sizes))) {
		t.Errorf("got %v, %v", got, err)
	}
	for name, bad := range map[string][]byte{"one too many": append(slices.Clone(raw), 0), "one too few": raw[:len(raw)-10], "cut off": raw[:len(raw)-1], "a longer form": append([]byte{0x80, 0}, raw[1:]...)} {
		if _, err := DecodeSizes(bad, uint32(len(sizes))); err == nil {
			t.Errorf("%s passed", name)
		}
	}
}

func FuzzSizes(f *testing.F) {
	f.Add([]byte{1, 0x80, 1}, uint32(2))
	f.Fuzz(func(t *testing.T, raw []byte, n uint32) {
		n %= crowd.MaxParts + 1
		if sizes, err := DecodeSizes(raw, n); err == nil && !bytes.Equal(AppendSizes(nil, sizes), raw) {
			t.Fatal("does not encode back to the same bytes")
		}
	})
}
