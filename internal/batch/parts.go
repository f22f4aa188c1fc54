package batch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd"
)

// The outputs of a batch that go on to another one are lines "key<tab>value", laid out in parts by
// their keys. The parts are a function of the items' outputs alone, so that whoever has the outputs
// can make them, and whoever holds the outputs against the leaves holds the parts against them too.
// Lines end with a newline, which the last may lack. A line without a tab is a key.

// PartOf is the part of n to which a key belongs: FNV-1a (64 bits) of its bytes, modulo n.
func PartOf(key []byte, n uint32) uint32 {
	h := uint64(14695981039346656037)
	for _, b := range key {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return uint32(h % uint64(n))
}

// PartName is the name of part i among the others.
func PartName(i uint32) string { return fmt.Sprintf("%05d", i) }

// Split calls put with each line of an item's output, without its newline, and the part of n to which it
// belongs. put must not keep the line. Its error ends the calls and is returned.
func Split(out []byte, n uint32, put func(part uint32, line []byte) error) error {
	for len(out) > 0 {
		line, rest, _ := bytes.Cut(out, newline)
		if err := put(PartOf(key(line), n), line); err != nil {
			return err
		}
		out = rest
	}
	return nil
}

var newline, tab = []byte("\n"), []byte("\t")

func key(line []byte) []byte {
	k, _, _ := bytes.Cut(line, tab)
	return k
}

// Merge is what an item reads that consists of these files: all their lines, sorted by the bytes of their keys.
// Lines of one key stay in the order of the files, and of the lines in each. Each ends with a newline.
func Merge(files [][]byte) []byte {
	size, count := 0, 0
	for _, f := range files {
		size, count = size+len(f)+1, count+bytes.Count(f, newline)+1
	}
	type row struct {
		key, line []byte
		at        int // before sorting; with it, the faster unstable sort is stable
	}
	rows := make([]row, 0, count)
	for _, f := range files {
		for len(f) > 0 {
			line, rest, _ := bytes.Cut(f, newline)
			rows, f = append(rows, row{key(line), line, len(rows)}), rest
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		if c := bytes.Compare(a.key, b.key); c != 0 {
			return c
		}
		return a.at - b.at
	})
	out := make([]byte, 0, size)
	for _, r := range rows {
		out = append(append(out, r.line...), '\n')
	}
	return out
}

// AppendSizes adds the bytes of each part, in order, as unsigned varints: what an owner has to know of parts that it never sees.
func AppendSizes(b []byte, sizes []uint64) []byte {
	for _, n := range sizes {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// MaxSizes is how long the sizes of n parts are at most, in bytes.
func MaxSizes(n uint32) uint64 { return uint64(n) * binary.MaxVarintLen64 }

// DecodeSizes reads the sizes of n parts.
func DecodeSizes(raw []byte, n uint32) ([]uint64, error) {
	sizes := make([]uint64, n)
	for i, rest := 0, raw; i < len(sizes); i++ {
		size, k := binary.Uvarint(rest)
		if k <= 0 {
			return nil, fmt.Errorf("sizes of parts: %d of %d are there", i, n)
		}
		sizes[i], rest = size, rest[k:]
	}
	if !bytes.Equal(AppendSizes(nil, sizes), raw) {
		return nil, fmt.Errorf("sizes of parts: not those of %d parts, or not in their shortest form", n)
	}
	return sizes, nil
}

// Manifest says of which parts of other batches' results the items of a batch consist.
type Manifest struct {
	_       struct{} `cbor:",toarray"`
	Sources []Source
	Items   [][]uint32 // numbers of parts, ascending: each item consists of those parts of every source
}

// Source is one result.
type Source struct {
	_       struct{}       `cbor:",toarray"`
	Result  crowd.CID      // the folder, with all parts of its job
	Holders []crowd.NodeID // who has it; anybody may be wrong about that
}

// Bounds of a manifest.
const (
	MaxSources  = 4096
	MaxHolders  = 16      // of one source
	MaxFiles    = 1 << 17 // sources times the parts that the items name of each
	MaxManifest = 8 << 20 // bytes
)

// DecodeManifest reads a manifest for that many items and reports what is wrong with it.
func DecodeManifest(raw []byte, items uint32) (m Manifest, err error) {
	bad := func(format string, a ...any) (Manifest, error) {
		return Manifest{}, fmt.Errorf("manifest: "+format, a...)
	}
	if len(raw) > MaxManifest {
		return bad("%d bytes, at most %d", len(raw), MaxManifest)
	}
	if err := crowd.Decode(raw, &m); err != nil {
		return bad("%w", err)
	}
	if len(m.Sources) == 0 || len(m.Sources) > MaxSources {
		return bad("%d sources, want 1 to %d", len(m.Sources), MaxSources)
	}
	if uint64(len(m.Items)) != uint64(items) {
		return bad("%d items, want %d", len(m.Items), items)
	}
	for i, s := range m.Sources {
		if s.Result == "" || len(s.Result) > crowd.MaxCID || len(s.Holders) > MaxHolders {
			return bad("source %d: a CID of %d bytes with %d holders, want 1 to %d with at most %d", i, len(s.Result), len(s.Holders), crowd.MaxCID, MaxHolders)
		}
	}
	named := 0
	for i, parts := range m.Items {
		if named += len(parts); len(parts) == 0 || named > crowd.MaxParts || named*len(m.Sources) > MaxFiles {
			return bad("item %d: %d parts, %d with those before it, of %d sources; want at least 1, at most %d, and %d files in all",
				i, len(parts), named, len(m.Sources), crowd.MaxParts, MaxFiles)
		}
		for k, p := range parts {
			if p >= crowd.MaxParts || k > 0 && p <= parts[k-1] {
				return bad("item %d: part %d at place %d; want them ascending, below %d", i, p, k, crowd.MaxParts)
			}
		}
	}
	return m, nil
}
