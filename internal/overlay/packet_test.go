package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

func testKey(t testing.TB, n byte) *identity.Key {
	t.Helper()
	k, err := identity.FromBytes(append(make([]byte, 31), n))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var (
	testNetwork = NetworkOf("test-1")
	testNow     = At(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
)

func testRecord(t testing.TB, key *identity.Key) *Record {
	t.Helper()
	r, err := SignRecord(key, testNetwork, Record{
		Seq: uint64(testNow / 1000),
		Endpoints: []Endpoint{
			{Addr: netip.MustParseAddr("203.0.113.7"), UDP: 4001, TCP: 4001},
			{Addr: netip.MustParseAddr("2001:db8::7"), UDP: 4001},
		},
		Tags:  []string{"country=se", "gpu"},
		VRF:   key.VRF().Public(),
		Epoch: 3,
		Nonce: 77,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// testMessages is one of each, and the other shape of those that have two.
func testMessages(t testing.TB, from *identity.Key) map[string]Message {
	own, other := testRecord(t, from), testRecord(t, testKey(t, 9))
	relayed, err := SignRecord(testKey(t, 8), testNetwork, Record{Seq: 1, Relay: other.ID.Key()})
	if err != nil {
		t.Fatal(err)
	}
	target := testKey(t, 7).ID().Key()
	return map[string]Message{
		"ping":             Ping{Req: 1, Seq: own.Seq, Record: own},
		"ping bare":        Ping{Req: 2, Seq: own.Seq},
		"pong":             Pong{Req: 3, Seq: own.Seq, Observed: netip.MustParseAddrPort("198.51.100.4:4001")},
		"pong bare":        Pong{Req: 1 << 62, Seq: own.Seq},
		"pong asking":      Pong{Req: 4, Seq: own.Seq, Observed: netip.MustParseAddrPort("198.51.100.4:4001"), Ask: 1 << 61},
		"pong v6":          Pong{Req: 1 << 63, Seq: own.Seq, Observed: netip.MustParseAddrPort("[2001:db8::4]:1")},
		"find node":        FindNode{Req: 5, Target: target, Want: 16, Record: own},
		"find ads":         FindNode{Req: 6, Target: target, Want: 16, Ads: true},
		"nodes":            Nodes{Req: 7, Part: 0, Parts: 2, Ads: 1, Records: []*Record{other, relayed, own}},
		"nodes none":       Nodes{Req: 8, Parts: 1},
		"register":         Register{Req: 9, Topic: Topic("gpu"), Record: own},
		"register, waited": Register{Req: 10, Topic: Topic("gpu"), Ticket: []byte("a ticket"), Record: own},
		"ticket":           Ticket{Req: 11, Wait: 1500 * time.Millisecond, Ticket: []byte("a ticket")},
		"ticket kept":      Ticket{Req: 12, Kept: true},
		"clock":            Clock{Req: 13, Now: testNow},
	}
}

func TestSealOpen(t *testing.T) {
	from, to := testKey(t, 1), testKey(t, 2)
	for name, m := range testMessages(t, from) {
		for _, pad := range []bool{false, true} {
			b, err := Seal(from, testNetwork, to.ID(), m, testNow, pad)
			if _, pong := m.(Pong); pong && pad {
				if err == nil {
					t.Errorf("%s: padded", name)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if pad && len(b) != MaxPacket && len(b) != MaxPacket-1 {
				t.Errorf("%s: padded to %d bytes, want %d", name, len(b), MaxPacket)
			}
			if want := PacketSize(m); !pad && len(b) > want {
				t.Errorf("%s: %d bytes, PacketSize says %d", name, len(b), want)
			}
			sender, got, expires, err := Open(testNetwork, to.ID().Key(), b)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if sender != from.ID() || expires != testNow || !reflect.DeepEqual(got, m) {
				t.Errorf("%s: got %+v from %s until %d, want %+v", name, got, sender.Short(), expires, m)
			}
			p, err := Read(testNetwork, to.ID().Key(), b)
			if err != nil || p.Req != requestOf(m) {
				t.Fatalf("%s: request %d, %v, want %d", name, p.Req, err, requestOf(m))
			}
			calls := 0
			if _, err := p.Message(from.ID(), func(h crowd.Hash, sig identity.Signature) (crowd.NodeID, error) {
				calls++
				return identity.Recover(h, sig)
			}); err != nil || calls != p.Records {
				t.Errorf("%s: %v; %d records recovered, want %d", name, err, calls, p.Records)
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	from, to, other := testKey(t, 1), testKey(t, 2), testKey(t, 3)
	ping := Ping{Req: 1, Seq: 2}
	good, err := Seal(from, testNetwork, to.ID(), ping, testNow, false)
	if err != nil {
		t.Fatal(err)
	}
	// forge makes a packet whose hash and signature hold, whatever the payload.
	forge := func(kind uint8, payload []byte) []byte {
		sig := from.Sign(packetDigest(testNetwork, to.ID().Key(), kind, payload))
		b := append(append(append(make([]byte, 32), sig[:]...), kind), payload...)
		h := packetHash(testNetwork, to.ID().Key(), b[32:])
		copy(b, h[:])
		return b
	}
	rehash := func(b []byte, to crowd.Key, network Network) []byte {
		b = bytes.Clone(b)
		h := packetHash(network, to, b[32:])
		copy(b, h[:])
		return b
	}
	payload := func(m Message, pad []byte) []byte {
		_, b, err := encodePayload(m, testNow, pad)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	plain := payload(ping, nil)
	for _, c := range []struct {
		name   string
		packet []byte
		want   error
	}{
		{"empty", nil, ErrLength},
		{"no payload", good[:headSize], ErrLength},
		{"oversized", forge(typePing, payload(ping, make([]byte, maxPayload))), ErrLength},
		{"truncated", good[:len(good)-1], ErrHash},
		{"truncated, hash made anew", rehash(good[:len(good)-1], to.ID().Key(), testNetwork), ErrForm},
		{"trailing byte", forge(typePing, append(bytes.Clone(plain), 0)), ErrForm},
		{"unknown type", forge(99, plain), ErrForm},
		{"type of another message", forge(typeNodes, plain), ErrForm},
		{"padding not zero", forge(typePing, payload(ping, bytes.Repeat([]byte{1}, padding(maxPayload-len(plain))))), ErrForm},
		{"padding too short", forge(typePing, payload(ping, make([]byte, 7))), ErrForm},
		{"padding of no bytes", forge(typePing, payload(ping, []byte{})), ErrForm},
		{"long form of an integer", forge(typePing, append(append(bytes.Clone(plain[:len(plain)-3]), 0x18, 2), plain[len(plain)-2:]...)), ErrForm},
		{"time out of range", forge(typePing, crowd.Encode(wirePing{Expires: maxMillis + 1})), ErrForm},
		{"signature bits", rehash(flip(good, 8*40), to.ID().Key(), testNetwork), nil}, // another sender, or none
		{"signature not canonical", rehash(set(good, 96, 27), to.ID().Key(), testNetwork), ErrSignature},
	} {
		sender, _, _, err := Open(testNetwork, to.ID().Key(), c.packet)
		if c.want == nil {
			if err == nil && sender == from.ID() {
				t.Errorf("%s: opened as its sender's", c.name)
			}
			continue
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}

	if _, _, _, err := Open(testNetwork, other.ID().Key(), good); !errors.Is(err, ErrHash) {
		t.Errorf("replayed to another node: got %v, want %v", err, ErrHash)
	}
	if _, _, _, err := Open(NetworkOf("test-2"), to.ID().Key(), good); !errors.Is(err, ErrHash) {
		t.Errorf("replayed to another network: got %v, want %v", err, ErrHash)
	}
	// The hash is no secret: whoever makes it anew is stopped by the signature.
	if sender, _, _, err := Open(testNetwork, other.ID().Key(), rehash(good, other.ID().Key(), testNetwork)); err == nil && sender == from.ID() {
		t.Error("replayed to another node with a new hash: opened as its sender's")
	}
	if sender, _, _, err := Open(NetworkOf("test-2"), to.ID().Key(), rehash(good, to.ID().Key(), NetworkOf("test-2"))); err == nil && sender == from.ID() {
		t.Error("replayed to another network with a new hash: opened as its sender's")
	}
	for bit := range 8 * len(good) {
		if _, err := Read(testNetwork, to.ID().Key(), flip(good, bit)); err == nil {
			t.Errorf("bit %d flipped: taken", bit)
		}
	}
	stolen := Ping{Req: 1, Record: testRecord(t, other)}
	b, err := Seal(from, testNetwork, to.ID(), stolen, testNow, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := Open(testNetwork, to.ID().Key(), b); !errors.Is(err, ErrSignature) {
		t.Errorf("a request with another's record: got %v, want %v", err, ErrSignature)
	}
}

func flip(b []byte, bit int) []byte { return set(b, bit/8, b[bit/8]^1<<(bit%8)) }

func set(b []byte, at int, to byte) []byte {
	b = bytes.Clone(b)
	b[at] = to
	return b
}

func TestSealRefuses(t *testing.T) {
	key := testKey(t, 1)
	big := testRecord(t, key)
	for name, m := range map[string]Message{
		"too many records":         Nodes{Parts: 1, Records: []*Record{big, big, big, big, big, big, big, big}},
		"part out of parts":        Nodes{Part: 1, Parts: 1},
		"more ads than records":    Nodes{Parts: 1, Ads: 1},
		"nil record":               Nodes{Parts: 1, Records: []*Record{nil}},
		"register without record":  Register{},
		"long ticket":              Ticket{Ticket: make([]byte, MaxTicket+1)},
		"negative wait":            Ticket{Wait: -1 * time.Second},
		"pong to nowhere":          Pong{Observed: netip.AddrPortFrom(netip.Addr{}, 1)},
		"pong to port 0":           Pong{Observed: netip.MustParseAddrPort("203.0.113.7:0")},
		"pong to a mapped address": Pong{Observed: netip.MustParseAddrPort("[::ffff:192.0.2.1]:1")},
		"negative time":            Clock{Now: -1},
	} {
		if _, err := Seal(key, testNetwork, key.ID(), m, testNow, false); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
}

// TestPadding tries all room that a message can leave.
func TestPadding(t *testing.T) {
	for room := range maxPayload {
		n := padding(room)
		if got := sizeUint(uint64(n)) + n - 1; n > 0 && (got > room || got < room-1) {
			t.Errorf("room of %d: %d zero bytes fill %d", room, n, got)
		}
	}
	key := testKey(t, 1)
	for n := 1; n <= MaxTicket; n++ { // heads of strings change their length on the way
		m := Register{Req: 1, Ticket: make([]byte, n), Record: testRecord(t, key)}
		b, err := Seal(key, testNetwork, key.ID(), m, testNow, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := Open(testNetwork, key.ID().Key(), b); err != nil {
			t.Errorf("ticket of %d bytes: %v", n, err)
		}
	}
}

func TestSplit(t *testing.T) {
	key := testKey(t, 1)
	small, err := SignRecord(key, testNetwork, Record{Seq: 1})
	if err != nil {
		t.Fatal(err)
	}
	long := []string{strings.Repeat("a", 32), strings.Repeat("b", 32), strings.Repeat("c", 20)}
	large, err := SignRecord(key, testNetwork, Record{Seq: 1 << 60, Nonce: 1 << 60, Tags: long, Relay: key.ID().Key(), VRF: key.VRF().Public(),
		Endpoints: []Endpoint{{Addr: netip.MustParseAddr("2001:db8::1"), UDP: 4001, TCP: 4001}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		n          Nodes
		wantParts  int
		wantedEach int // at least, but for the last
	}{
		{"none", Nodes{Req: 1}, 1, 0},
		{"one", Nodes{Req: 1, Records: repeat(small, 1)}, 1, 1},
		{"16 small ones, 5 of them ads", Nodes{Req: 1 << 63, Ads: 5, Records: repeat(small, 16)}, 3, 7},
		{"16 of the largest, all ads", Nodes{Req: 1 << 63, Ads: 16, Records: repeat(large, 16)}, 4, 3},
	} {
		parts := Split(c.n)
		if len(parts) > c.wantParts+2 || len(parts) == 0 {
			t.Errorf("%s: %d parts", c.name, len(parts))
		}
		ads, records := 0, 0
		for i, p := range parts {
			b, err := Seal(key, testNetwork, key.ID(), p, testNow, false)
			if err != nil {
				t.Fatalf("%s: part %d: %v", c.name, i, err)
			}
			if i < len(parts)-1 && len(b) < MaxPacket-MaxRecord {
				t.Errorf("%s: part %d has only %d bytes", c.name, i, len(b))
			}
			if int(p.Part) != i || int(p.Parts) != len(parts) || p.Req != c.n.Req {
				t.Errorf("%s: part %d is %d of %d to %d", c.name, i, p.Part, p.Parts, p.Req)
			}
			if ads < int(c.n.Ads) && p.Ads == 0 {
				t.Errorf("%s: part %d has no ads, and %d are missing", c.name, i, int(c.n.Ads)-ads)
			}
			ads, records = ads+int(p.Ads), records+len(p.Records)
		}
		if ads != int(c.n.Ads) || records != len(c.n.Records) {
			t.Errorf("%s: %d records, %d of them ads; want %d and %d", c.name, records, ads, len(c.n.Records), c.n.Ads)
		}
	}
}

func repeat(r *Record, n int) (out []*Record) {
	for range n {
		out = append(out, r)
	}
	return out
}

// FuzzPacket: what Read takes, is made again from the message that it read, byte for byte.
func FuzzPacket(f *testing.F) {
	from, to := testKey(f, 1), testKey(f, 2)
	for _, m := range testMessages(f, from) {
		kind, payload, err := payloadOf(m, testNow, kindPads(m))
		if err != nil {
			f.Fatal(err)
		}
		sig := from.Sign(packetDigest(testNetwork, to.ID().Key(), kind, payload))
		f.Add(sig[:], kind, payload)
	}
	f.Fuzz(func(t *testing.T, sig []byte, kind uint8, payload []byte) {
		// The hash is made here: no fuzzer finds one.
		rest := append(append(bytes.Clone(sig), kind), payload...)
		hash := packetHash(testNetwork, to.ID().Key(), rest)
		b := append(hash[:], rest...)
		p, err := Read(testNetwork, to.ID().Key(), b)
		if err != nil {
			return
		}
		again, out, err := payloadOf(p.message, p.Expires, p.padded)
		if err != nil {
			t.Fatalf("read %+v, which cannot be written: %v", p.message, err)
		}
		if again != p.Type || !bytes.Equal(out, b[headSize:]) {
			t.Fatalf("got %x, want %x", out, b[headSize:])
		}
		sender, err := p.Sender(identity.Recover)
		if err != nil {
			return
		}
		_, _ = p.Message(sender, identity.Recover)
	})
}

func kindPads(m Message) bool {
	_, pong := m.(Pong)
	return requestOf(m)%2 == 0 && !pong
}

func BenchmarkSealPing(b *testing.B) {
	from, to := testKey(b, 1), testKey(b, 2)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Seal(from, testNetwork, to.ID(), Ping{Req: 1, Seq: 2}, testNow, false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}

func benchmarkOpen(b *testing.B, m Message) {
	from, to := testKey(b, 1), testKey(b, 2)
	packet, err := Seal(from, testNetwork, to.ID(), m, testNow, false)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, err := Open(testNetwork, to.ID().Key(), packet); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}

func BenchmarkOpenPing(b *testing.B) { benchmarkOpen(b, Ping{Req: 1, Seq: 2}) }

func BenchmarkOpenNodesOf4Records(b *testing.B) {
	benchmarkOpen(b, Nodes{Req: 1, Parts: 1, Records: repeat(testRecord(b, testKey(b, 9)), 4)})
}

// BenchmarkReadNoise is what a flood of the longest packets costs at the first check.
func BenchmarkReadNoise(b *testing.B) {
	noise := make([]byte, MaxPacket)
	for i := range len(noise) / 8 {
		binary.BigEndian.PutUint64(noise[8*i:], uint64(i)*0x9e3779b97f4a7c15)
	}
	self := testKey(b, 2).ID().Key()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(testNetwork, self, noise); !errors.Is(err, ErrHash) {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}
