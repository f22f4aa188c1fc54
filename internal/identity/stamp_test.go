package identity

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
)

const stampNow = crowd.Time(1_700_000_000_000)

func mint(t testing.TB, seed byte, bits uint8) Stamp {
	t.Helper()
	s, err := MintStamp(t.Context(), seeded(seed), "query", crowd.Keccak256([]byte("resource")), stampNow+60_000, bits, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStamp_Check(t *testing.T) {
	good := mint(t, 1, 10)
	resource := good.Resource
	with := func(edit func(s *Stamp)) Stamp {
		s := good
		edit(&s)
		return s
	}
	hour := crowd.Time(MaxStampLife.Milliseconds())
	for _, c := range []struct {
		name  string
		stamp Stamp
		now   crowd.Time
		bits  uint8
		want  string // "" for accepted
	}{
		{"good", good, stampNow, 10, ""},
		{"asked for less", good, stampNow, 9, ""},
		{"last millisecond", good, good.Expires - 1, 10, ""},
		{"as early as may be", good, good.Expires - hour, 10, ""},
		{"free", Stamp{}, stampNow, 0, ""},
		{"free, and wrong in all", with(func(s *Stamp) { s.Purpose, s.Bits = "insert", 255 }), math.MaxInt64, 0, ""},
		{"asked for more", good, stampNow, 11, "made for 10 bits"},
		{"expired", good, good.Expires, 10, "expired"},
		{"at the end of time", good, math.MaxInt64, 10, "expired"},
		{"too early", good, good.Expires - hour - 1, 10, "ahead"},
		{"never expires", with(func(s *Stamp) { s.Expires = math.MaxInt64 }), stampNow, 10, "ahead"},
		{"expired long ago", with(func(s *Stamp) { s.Expires = math.MinInt64 }), stampNow, 10, "expired"},
		{"other purpose", with(func(s *Stamp) { s.Purpose = "insert" }), stampNow, 10, "another request"},
		{"other resource", with(func(s *Stamp) { s.Resource[0] ^= 1 }), stampNow, 10, "another request"},
		{"claims more than it has", with(func(s *Stamp) { s.Bits = 200 }), stampNow, 10, "zero bits"},
		{"other nonce", with(func(s *Stamp) { s.Nonce++ }), stampNow, 10, "zero bits"},
		{"longer life", with(func(s *Stamp) { s.Expires++ }), stampNow, 10, "zero bits"},
		{"zero", Stamp{}, stampNow, 10, "another request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.stamp.Check("query", resource, c.now, c.bits)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got error %v, want %q", err, c.want)
			}
		})
	}
}

func TestStamp_EveryEncodedBitCounts(t *testing.T) {
	good := mint(t, 1, 16)
	b := good.Encode()
	for bit := range 8 * len(b) {
		bad := bytes.Clone(b)
		bad[bit/8] ^= 1 << (bit % 8)
		s, err := DecodeStamp(bad)
		if err == nil && s.Check(good.Purpose, good.Resource, stampNow, good.Bits) == nil {
			t.Errorf("bit %d flipped: got an accepted stamp %+v", bit, s)
		}
	}
}

func TestStamp_TwoForOneThingDiffer(t *testing.T) {
	if a, b := mint(t, 1, 4), mint(t, 2, 4); a.ID() == b.ID() || a.ID() != mint(t, 1, 4).ID() {
		t.Errorf("got IDs %s and %s, want two", a.ID(), b.ID())
	}
}

func TestStamp_BadInput(t *testing.T) {
	long := strings.Repeat("p", MaxPurpose+1)
	if _, err := MintStamp(t.Context(), seeded(1), long, crowd.Hash{}, stampNow, 0, nil); err == nil {
		t.Error("mint with a long purpose: got no error")
	}
	if _, err := MintStamp(t.Context(), bytes.NewReader(nil), "query", crowd.Hash{}, stampNow, 0, nil); err == nil {
		t.Error("mint without randomness: got no error")
	}
	for name, b := range map[string][]byte{
		"empty": nil, "long purpose": Stamp{Purpose: long}.Encode(), "too long": make([]byte, maxStamp+1),
		"one byte more": append(mint(t, 1, 0).Encode(), 0), "a map": {0xa0}, "two fields": {0x82, 0x60, 0x40},
	} {
		if s, err := DecodeStamp(b); err == nil {
			t.Errorf("%s: got %+v, want an error", name, s)
		}
	}
	// The largest stamp fits.
	s := Stamp{Purpose: long[:MaxPurpose], Expires: math.MinInt64, Bits: 255, Nonce: math.MaxUint64}
	if got, err := DecodeStamp(s.Encode()); err != nil || got != s {
		t.Errorf("largest: got %+v, error %v, want %+v", got, err, s)
	}
}

func FuzzDecodeStamp(f *testing.F) {
	good := mint(f, 1, 12)
	f.Add(good.Encode())
	f.Add([]byte{})
	f.Add([]byte{0x85})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeStamp(b)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Encode(), b) {
			t.Errorf("again: got %x, want %x", s.Encode(), b)
		}
		_ = s.Check(good.Purpose, good.Resource, stampNow, good.Bits)
	})
}

func BenchmarkStampCheck(b *testing.B) {
	s := mint(b, 1, 8)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Check(s.Purpose, s.Resource, stampNow, 8); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "stamps/s")
}
