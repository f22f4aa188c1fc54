package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
)

// header of a frame file with these numbers, right or wrong, and that many bytes behind it.
func framed(n uint32, offsets []uint64, body int) []byte {
	b := binary.BigEndian.AppendUint32(nil, n)
	for _, o := range offsets {
		b = binary.BigEndian.AppendUint64(b, o)
	}
	return append(b, make([]byte, body)...)
}

// A frame file comes from an owner that nobody knows. Each fault is seen by the check that is about it, when the file is opened.
func TestOpenFrames_RefusesWhatIsNone(t *testing.T) {
	for _, tt := range []struct {
		name string
		file []byte
		n    uint32
		want string
	}{
		{"good", framed(2, []uint64{0, 1, 3}, 3), 2, ""},
		{"empty strings", framed(2, []uint64{0, 0, 0}, 0), 2, ""},
		{"of nothing", framed(0, []uint64{0}, 0), 0, "0 strings, want 1"},
		{"too many", framed(MaxItems+1, nil, 8*(MaxItems+2)), MaxItems + 1, "strings, want 1"},
		{"no header", nil, 1, "too few"},
		{"a header cut short", framed(2, []uint64{0, 1}, 7), 2, "too few"},
		{"another number", framed(3, []uint64{0, 1, 3}, 3), 2, "holds 3 strings, want 2"},
		{"a hole before the first", framed(2, []uint64{1, 1, 3}, 3), 2, "string 0 begins"},
		{"one before the last", framed(2, []uint64{0, 2, 1}, 2), 2, "string 2 begins"},
		{"one beyond the end", framed(2, []uint64{0, 4, 4}, 3), 2, "string 1 begins"},
		{"beyond 63 bits", framed(1, []uint64{0, 1 << 63}, 3), 1, "string 1 begins"},
		{"bytes of no string", framed(2, []uint64{0, 1, 2}, 3), 2, "ends at 2 of 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := OpenFrames(bytes.NewReader(tt.file), int64(len(tt.file)), tt.n)
			if tt.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v want %q", err, tt.want)
			}
			if err == nil && f.Len() != tt.n {
				t.Errorf("got %d strings want %d", f.Len(), tt.n)
			}
		})
	}
	file := framed(1, []uint64{0, 3}, 3)
	if _, err := OpenFrames(bytes.NewReader(file[:10]), int64(len(file)), 1); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file shorter than it is said to be: got %v", err)
	}
	f, err := OpenFrames(bytes.NewReader(file[:len(file)-1]), int64(len(file)), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(0); err == nil || !strings.Contains(err.Error(), "frame 0") {
		t.Errorf("a string that is not there: got %v", err)
	}
}

// full takes so many bytes.
type full int

func (f *full) Write(p []byte) (int, error) {
	if *f -= full(len(p)); *f < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestWriteFrames_SaysWhatFails(t *testing.T) {
	size := func(uint32) uint64 { return 2 }
	two := func(_ uint32, w io.Writer) error { _, err := w.Write([]byte("ab")); return err }
	for room := range full(4 + 3*8 + 4 + 1) {
		left := room
		if err := WriteFrames(&left, 2, size, two); (err == nil) != (room == 4+3*8+4) {
			t.Errorf("room for %d bytes: got %v", room, err)
		}
	}
	one := func(_ uint32, w io.Writer) error { _, err := w.Write([]byte("a")); return err }
	if err := WriteFrames(io.Discard, 2, size, one); err == nil || !strings.Contains(err.Error(), "frame 0 has 1 bytes") {
		t.Errorf("a string that is shorter than it was said to be: got %v", err)
	}
}

func TestDecodeLeaves_WantsEveryByte(t *testing.T) {
	leaves := []Leaf{{Status: crowd.Exited, Gas: 1}, {Status: crowd.Trapped, Gas: 2, Output: crowd.Hash{3}}}
	var raw []byte
	for _, l := range leaves {
		raw = l.Append(raw)
	}
	got, err := DecodeLeaves(raw, 2)
	if err != nil || got[0] != leaves[0] || got[1] != leaves[1] {
		t.Fatalf("got %v, %v", got, err)
	}
	for n, b := range map[uint32][]byte{1: raw, 2: raw[:len(raw)-1], 3: raw} {
		if _, err := DecodeLeaves(b, n); err == nil {
			t.Errorf("%d bytes passed for %d leaves", len(b), n)
		}
	}
	for _, b := range [][]byte{nil, raw[:LeafSize-1], raw[:LeafSize+1]} {
		if _, err := DecodeLeaf(b); err == nil {
			t.Errorf("%d bytes passed for a leaf", len(b))
		}
	}
	for _, tt := range []struct {
		l    Leaf
		want bool
	}{{Leaf{Status: crowd.Exited}, false}, {Leaf{Status: crowd.Exited, ExitCode: 1}, true}, {Leaf{Status: crowd.Trapped}, true}} {
		if got := tt.l.UserError(); got != tt.want {
			t.Errorf("%+v: got %v want %v", tt.l, got, tt.want)
		}
	}
}

func TestTree_OfAtLeastOneAndAtMostSoMany(t *testing.T) {
	if _, err := NewTree(nil); err == nil {
		t.Error("a tree over nothing")
	}
	if _, err := NewTree(make([]Leaf, MaxItems+1)); err == nil {
		t.Error("a tree over too many")
	}
	p := Proof{Index: 0}
	if err := p.Check(Root{Items: MaxItems + 1, Top: leafNode(p.Leaf)}); err == nil || !strings.Contains(err.Error(), "item 0 of") {
		t.Errorf("a root of too many: got %v", err)
	}
	over := Proof{Leaf: Leaf{Gas: 1}, Path: []Node{{Gas: ^crowd.Gas(0)}}}
	if err := over.Check(Root{Items: 2}); err == nil || !strings.Contains(err.Error(), "64 bits") {
		t.Errorf("a path whose gas cannot be counted: got %v", err)
	}
	if err := p.Check(Root{Items: 0, Top: leafNode(p.Leaf)}); err == nil {
		t.Error("an item of a root of nothing")
	}
}

// A manifest's length is looked at before anything in it.
func TestDecodeManifest_BoundsItsBytes(t *testing.T) {
	m := Manifest{Sources: make([]Source, 1<<17), Items: [][]uint32{{0}}}
	for i := range m.Sources {
		m.Sources[i].Result = crowd.CID(strings.Repeat("x", crowd.MaxCID))
	}
	if _, err := DecodeManifest(crowd.Encode(&m), 1); err == nil || !strings.Contains(err.Error(), "bytes, at most") {
		t.Errorf("got %v", err)
	}
	some := someManifest()
	raw := crowd.Encode(&some)
	if _, err := DecodeManifest(append(raw, 0), 3); err == nil {
		t.Error("a manifest with a byte behind it passed")
	}
	last := len(raw) - 1 // the number of a part, in a longer form
	if _, err := DecodeManifest(append(bytes.Clone(raw[:last]), 0x18, raw[last]), 3); err == nil {
		t.Error("a manifest in another than its one form passed")
	}
}

func TestDecodeSizes_OfAsManyParts(t *testing.T) {
	raw := AppendSizes(nil, []uint64{1, 300})
	for n := range uint32(5) {
		if got, err := DecodeSizes(raw, n); (err == nil) != (n == 2) {
			t.Errorf("%d parts: got %v, %v", n, got, err)
		}
	}
	if _, err := DecodeSizes(bytes.Repeat([]byte{0xff}, 11), 1); err == nil {
		t.Error("a number beyond 64 bits passed")
	}
	if _, err := DecodeSizes([]byte{0x80, 0x00}, 1); err == nil {
		t.Error("a number that is not in its shortest form passed")
	}
}

func TestSplit_EndsWithTheFirstError(t *testing.T) {
	want, calls := errors.New("stop"), 0
	err := Split([]byte("a\nb\nc\n"), 4, func(uint32, []byte) error {
		if calls++; calls == 2 {
			return want
		}
		return nil
	})
	if !errors.Is(err, want) || calls != 2 {
		t.Errorf("got %v after %d calls", err, calls)
	}
}
