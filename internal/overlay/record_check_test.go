package overlay

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

func TestRecordRoundTrip(t *testing.T) {
	key := testKey(t, 1)
	four, six := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")
	for _, c := range []struct {
		name string
		r    Record
	}{
		{"bare", Record{}},
		{"one endpoint", Record{Seq: 1, Endpoints: []Endpoint{{Addr: four, UDP: 1}}}},
		{"three", Record{Seq: 1 << 40, Endpoints: []Endpoint{{four, 4001, 4001}, {six, 23, 24}, {four, 255, 256}}}},
		{"relay", Record{Relay: crowd.Key{1}}},
		{"tags", Record{Tags: []string{"a", strings.Repeat("b", 23), strings.Repeat("b", 24), strings.Repeat("c", 32)}}},
		{"large numbers", Record{Seq: 1<<64 - 1, Epoch: 1<<32 - 1, Nonce: 1<<64 - 1}},
	} {
		r, err := SignRecord(key, testNetwork, c.r)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		b, err := EncodeRecord(r)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if len(b) != r.Size() {
			t.Errorf("%s: %d bytes, Size says %d", c.name, len(b), r.Size())
		}
		got, err := DecodeRecord(testNetwork, b, identity.Recover)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, r)
		}
		if got, err := DecodeRecord(NetworkOf("other"), b, identity.Recover); err == nil && got.ID == key.ID() {
			t.Errorf("%s: is its signer's on another network too", c.name)
		}
		for bit := range 8 * len(b) {
			if got, err := DecodeRecord(testNetwork, flip(b, bit), identity.Recover); err == nil && got.ID == key.ID() {
				t.Errorf("%s: bit %d flipped, and still its signer's", c.name, bit)
			}
		}
	}
}

func TestRecordRefused(t *testing.T) {
	key := testKey(t, 1)
	four := netip.MustParseAddr("203.0.113.7")
	var many []string
	for i := range MaxTags {
		many = append(many, fmt.Sprintf("%032d", i))
	}
	for _, c := range []struct {
		name string
		r    Record
	}{
		{"port 0", Record{Endpoints: []Endpoint{{Addr: four}}}},
		{"no address", Record{Endpoints: []Endpoint{{UDP: 1}}}},
		{"mapped address", Record{Endpoints: []Endpoint{{Addr: netip.MustParseAddr("::ffff:203.0.113.7"), UDP: 1}}}},
		{"link-local", Record{Endpoints: []Endpoint{{Addr: netip.MustParseAddr("fe80::1%eth0"), UDP: 1}}}},
		{"unspecified", Record{Endpoints: []Endpoint{{Addr: netip.IPv6Unspecified(), UDP: 1}}}},
		{"multicast", Record{Endpoints: []Endpoint{{Addr: netip.MustParseAddr("224.0.0.1"), UDP: 1}}}},
		{"broadcast", Record{Endpoints: []Endpoint{{Addr: netip.MustParseAddr("255.255.255.255"), UDP: 1}}}},
		{"endpoint twice", Record{Endpoints: []Endpoint{{four, 1, 0}, {four, 1, 0}}}},
		{"four endpoints", Record{Endpoints: []Endpoint{{four, 1, 0}, {four, 2, 0}, {four, 3, 0}, {four, 4, 0}}}},
		{"tags unsorted", Record{Tags: []string{"b", "a"}}},
		{"tag twice", Record{Tags: []string{"a", "a"}}},
		{"empty tag", Record{Tags: []string{""}}},
		{"long tag", Record{Tags: []string{strings.Repeat("a", MaxTag+1)}}},
		{"capital tag", Record{Tags: []string{"GPU"}}},
		{"nine tags", Record{Tags: []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"}}},
		{"too long", Record{Tags: many}},
	} {
		if _, err := SignRecord(key, testNetwork, c.r); err == nil {
			t.Errorf("%s: signed", c.name)
		}
		c.r.Sig = key.Sign(recordDigest(testNetwork, c.r.body()))
		if _, err := DecodeRecord(testNetwork, crowd.Encode(toWire(&c.r)), identity.Recover); err == nil {
			t.Errorf("%s: decoded", c.name)
		}
	}
	// Second forms of what is allowed.
	for name, body := range map[string]recordBody{
		"empty endpoints": {Endpoints: []wireEndpoint{}},
		"empty tags":      {Tags: []string{}},
		"empty relay":     {Relay: []byte{}},
		"relay of zeros":  {Relay: make([]byte, 32)},
		"short relay":     {Relay: make([]byte, 31)},
		"5-byte address":  {Endpoints: []wireEndpoint{{Addr: make([]byte, 5), UDP: 1}}},
	} {
		w := wireRecord{Body: body, Sig: key.Sign(recordDigest(testNetwork, body))}
		if _, err := DecodeRecord(testNetwork, crowd.Encode(w), identity.Recover); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

func TestCheckRecord(t *testing.T) {
	key := testKey(t, 1)
	old, now := Beacon{Epoch: 1, Hash: crowd.Hash{1}}, Beacon{Epoch: 2, Hash: crowd.Hash{2}}
	nonce, err := identity.SolveDynamic(t.Context(), key.ID().Key(), now.Hash, 8, nil)
	if err != nil {
		t.Fatal(err)
	}
	wrong := nonce + 1
	for identity.CheckDynamic(key.ID().Key(), now.Hash, wrong, 8) == nil {
		wrong++
	}
	bits := uint8(identity.StaticBits(key.ID()))
	for _, c := range []struct {
		name string
		r    Record
		d    Difficulty
		want string // in the error; "": none
	}{
		{"no puzzles", Record{}, Difficulty{}, ""},
		{"solved", Record{Epoch: 2, Nonce: nonce}, Difficulty{Static: bits, Dynamic: 8}, ""},
		{"a minute ahead", Record{Seq: uint64(testNow.Add(MaxAhead) / 1000)}, Difficulty{}, ""},
		{"from the future", Record{Seq: uint64(testNow.Add(MaxAhead)/1000) + 1}, Difficulty{}, "future"},
		{"wrong nonce", Record{Epoch: 2, Nonce: wrong}, Difficulty{Dynamic: 8}, "zero bits"},
		{"beacon of another epoch", Record{Epoch: 1, Nonce: nonce}, Difficulty{Dynamic: 8}, "zero bits"},
		{"epoch over", Record{Epoch: 0, Nonce: nonce}, Difficulty{Dynamic: 8}, "epoch"},
		{"static puzzle unsolved", Record{}, Difficulty{Static: bits + 1}, "static"},
	} {
		r, err := SignRecord(key, testNetwork, c.r)
		if err != nil {
			t.Fatal(err)
		}
		err = CheckRecord(r, testNow, c.d, old, now)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// FuzzRecord: what decodes, encodes back to the same bytes.
func FuzzRecord(f *testing.F) {
	for i := range 3 {
		b, err := EncodeRecord(testRecord(f, testKey(f, byte(i+1))))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(testNetwork, b, identity.Recover)
		if err != nil {
			return
		}
		again, err := EncodeRecord(r)
		if err != nil || !bytes.Equal(again, b) || r.Size() != len(b) {
			t.Fatalf("got %x (size %d), %v, want %x", again, r.Size(), err, b)
		}
	})
}
