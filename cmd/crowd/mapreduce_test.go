package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd/internal/flow"
)

// Items are made of parts so that none is over the limit, none is empty, and each part that holds something is in one of them.
func TestGroup(t *testing.T) {
	const k = 1 << 10
	for _, c := range []struct {
		name  string
		sizes []uint64
		least uint64
		want  [][]uint32
		err   string
	}{
		{"one", []uint64{0, 5, 0}, 1, [][]uint32{{1}}, ""},
		{"small ones come together", []uint64{k, k, 0, k}, 1, [][]uint32{{0, 1, 3}}, ""},
		{"as many as are asked for", []uint64{k, k, k, k}, 4, [][]uint32{{0}, {1}, {2}, {3}}, ""},
		{"the last must not be swallowed", []uint64{1, 1, 1, 100 * k}, 3, [][]uint32{{0, 1}, {2}, {3}}, ""},
		{"more are asked for than there are", []uint64{k, 0, k}, 9, [][]uint32{{0}, {2}}, ""},
		{"halves of what an item may have", []uint64{300 * k, 300 * k, 300 * k, 100 * k}, 2, [][]uint32{{0}, {1}, {2, 3}}, ""},
		{"a large one", []uint64{1, maxItem, 1}, 3, [][]uint32{{0}, {1}, {2}}, ""},
		{"too large", []uint64{1, maxItem + 1}, 2, nil, "partition 2 of 2 has 1 MiB, at most 1 MiB: a key has too many lines"},
		{"nothing", []uint64{0, 0}, 1, nil, "wrote nothing to reduce"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := group(c.sizes, c.least)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v want %s", err, c.err)
				}
				return
			}
			if err != nil || !slices.EqualFunc(got, c.want, slices.Equal) {
				t.Errorf("got %v %v want %v", got, err, c.want)
			}
		})
	}
}

func FuzzGroup(f *testing.F) {
	f.Add([]byte{1, 0, 255, 3}, uint8(2))
	f.Fuzz(func(t *testing.T, raw []byte, least uint8) {
		var sizes []uint64
		total, full := uint64(0), 0
		for _, b := range raw {
			sizes = append(sizes, uint64(b)<<12)
			if total += uint64(b) << 12; b > 0 {
				full++
			}
		}
		n := max(uint64(least), (total+partitionBytes-1)/partitionBytes, 1)
		groups, err := group(sizes, n)
		if err != nil {
			if total > 0 {
				t.Fatal(err)
			}
			return
		}
		seen, last := 0, -1
		for _, g := range groups {
			size := uint64(0)
			for _, p := range g {
				if int(p) <= last || sizes[p] == 0 {
					t.Fatalf("part %d after %d, of %d bytes", p, last, sizes[p])
				}
				last, seen, size = int(p), seen+1, size+sizes[p]
			}
			if size == 0 || size > maxItem {
				t.Fatalf("an item of %d bytes", size)
			}
		}
		if seen != full || uint64(len(groups)) < min(n, uint64(full)) {
			t.Errorf("%d of %d parts in %d items, want at least %d", seen, full, len(groups), n)
		}
	})
}

// Stages that are read together have equally many parts, whatever each of them reads.
func TestMapState_Parts(t *testing.T) {
	nodes := []flow.Node{{Name: "big"}, {Name: "small"}, {Name: "alone", From: []string{"big"}}, {Name: "both", From: []string{"big", "small"}}, {Name: "other"}, {Name: "end", From: []string{"other"}}}
	f, err := flow.New(nodes)
	if err != nil {
		t.Fatal(err)
	}
	s := mapState{Flow: f}
	for _, n := range nodes {
		s.Stages = append(s.Stages, &stage{Name: n.Name})
	}
	s.Stages[0].Index.Bytes, s.Stages[4].Index.Bytes = 200<<20, 100<<20
	want := func(what string, want ...uint32) {
		t.Helper()
		var got []uint32
		for i := range s.Stages {
			got = append(got, s.parts(i))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v want %v", what, got, want)
		}
	}
	want("by themselves", commonParts, commonParts, 0, 0, 800, 0)
	s.Stages[2].Partitions, s.Stages[5].Partitions = 2000, 10
	want("as asked for", 2000, 2000, 0, 0, 800, 0)
	s.Stages[4].Index.Bytes = 100
	want("small", 2000, 2000, 0, 0, 10, 0)
	s.Stages[4].Index.Bytes = 1 << 40
	want("huge", 2000, 2000, 0, 0, 4096, 0)
}
