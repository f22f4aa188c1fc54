package discovery

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
)

// someRecord has no signature worth the name: nothing here looks at it.
func someRecord(n int, addr netip.Addr) *overlay.Record {
	id := crowd.NodeID{1: byte(n >> 16), 2: byte(n >> 8), 3: byte(n)}
	return &overlay.Record{ID: id, Seq: uint64(n), Endpoints: []overlay.Endpoint{{Addr: addr, UDP: 1}}}
}

func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{30 + byte(n>>16), byte(n >> 8), byte(n), 7})
}

func testRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

var someTime = overlay.At(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC))

// TestMarcus_StrangersDoNotFlushTheOld: Marcus et al. 2018, section 4: whoever floods a node with identities before it
// restarts does not own its memory.
func TestMarcus_StrangersDoNotFlushTheOld(t *testing.T) {
	d := newDatabase(testRand())
	month := 30 * 24 * time.Hour
	for i := range maxKnown {
		d.keep(someRecord(i, address(i)), someTime)
		d.entries[someRecord(i, address(i)).ID].last = someTime.Add(month)
	}
	for i := range 20_000 {
		d.keep(someRecord(1<<20|i, address(1<<20|i)), someTime.Add(month))
	}
	if len(d.entries) != maxKnown || len(d.order) != maxKnown {
		t.Fatalf("%d entries, %d in order", len(d.entries), len(d.order))
	}
	old := 0
	for _, k := range d.order {
		if k.record.ID[1] < 1<<4 {
			old++
		}
	}
	if old < maxKnown*7/10 {
		t.Errorf("%d of %d old ones are left", old, maxKnown)
	}
	evil := 0
	for range 20 {
		for _, r := range d.seeds(startSeeds) {
			if r.ID[1] >= 1<<4 {
				evil++
			}
		}
	}
	if evil > 20*startSeeds/20 {
		t.Errorf("%d of %d seeds are the flood's", evil, 20*startSeeds)
	}
}

// TestOneSubnet: whoever has one subnet has few entries and one seed.
func TestOneSubnet(t *testing.T) {
	d := newDatabase(testRand())
	for i := range 200 {
		d.keep(someRecord(i, netip.AddrFrom4([4]byte{66, 6, 6, byte(i)})), someTime)
	}
	for i := range 5 {
		d.keep(someRecord(1000+i, address(i)), someTime)
	}
	if len(d.order) != perSubnet+5 {
		t.Errorf("%d entries, want %d", len(d.order), perSubnet+5)
	}
	if got := len(d.seeds(startSeeds)); got != 6 {
		t.Errorf("%d seeds, want 6", got)
	}
}

// TestLost: a peer that falls silent stays for a week, is drawn rarely, and is the first to go.
func TestLost(t *testing.T) {
	d := newDatabase(testRand())
	for i := range maxKnown {
		d.keep(someRecord(i, address(i)), someTime)
	}
	for i := range 500 {
		d.lose(someRecord(i, address(i)).ID)
	}
	drawn := 0
	for range 20 {
		for _, r := range d.seeds(10) {
			if r.Seq < 500 {
				drawn++
			}
		}
	}
	if drawn > 20 {
		t.Errorf("%d of 200 seeds are lost peers", drawn)
	}
	d.keep(someRecord(1<<20, address(1<<20)), someTime.Add(time.Hour))
	if d.entries[someRecord(1<<20, address(1<<20)).ID] == nil || len(d.order) != maxKnown {
		t.Error("a living peer had to go for a lost one")
	}
	d.expire(someTime.Add(lostFor + time.Hour))
	if len(d.order) != maxKnown-499 {
		t.Errorf("%d left after a week, want %d", len(d.order), maxKnown-499)
	}
}

func TestDatabaseRoundTrip(t *testing.T) {
	d := newDatabase(testRand())
	for i := range 50 {
		d.keep(someRecord(i, address(i)), someTime)
	}
	d.lose(d.order[3].record.ID)
	again := newDatabase(testRand())
	if err := again.decode(d.encode(testNetwork), testNetwork, someTime.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.encode(testNetwork), d.encode(testNetwork)) || !again.order[3].lost {
		t.Error("not the same")
	}
	if err := newDatabase(testRand()).decode(d.encode(testNetwork), overlay.NetworkOf("other"), someTime); err == nil {
		t.Error("taken by another network")
	}
}

// TestDamagedDatabase: whatever stands in the file, the node starts, says so, and joins by its seeds.
func TestDamagedDatabase(t *testing.T) {
	d := newDatabase(testRand())
	for i := range 50 {
		d.keep(someRecord(i, address(i)), someTime)
	}
	good := d.encode(testNetwork)
	flipped := bytes.Clone(good)
	flipped[len(good)/2] ^= 1
	for name, b := range map[string][]byte{
		"half": good[:len(good)/2], "empty": {}, "garbage": bytes.Repeat([]byte("garbage"), 1000), "a bit": flipped,
		"huge": make([]byte, maxDatabase+1), "another network": d.encode(overlay.NetworkOf("other")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				folder := t.TempDir()
				path := filepath.Join(folder, databaseFile)
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
				e := newEther()
				seed := e.start(t, 1, nil)
				m := e.start(t, 2, func(c *Config) { c.Folder = folder }, seed.seed())
				m.awaitReady(t, 2)
				if !m.log.has("database of peers cannot be read") {
					t.Errorf("no warning: %s", m.log)
				}
				m.stop()
				seed.stop()
				if set, err := os.ReadFile(path + ".damaged"); err != nil || !bytes.Equal(set, b) {
					t.Errorf("not set aside: %v", err)
				}
				now, err := openDatabase(folder, testNetwork, overlay.At(time.Now()), testRand())
				if err != nil || len(now.order) != 1 {
					t.Errorf("the new one: %d entries, %v", len(now.order), err)
				}
			})
		})
	}
}

// TestForeignRecord: the record's own signature, not the file, says whose it is.
func TestForeignRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, honest := range []bool{true, false} {
			key, folder := testKey(t, 7), t.TempDir()
			r, err := overlay.SignRecord(key, testNetwork, overlay.Record{Seq: 1, Endpoints: []overlay.Endpoint{{Addr: address(1), UDP: 1}}})
			if err != nil {
				t.Fatal(err)
			}
			if !honest {
				forged := *r
				forged.ID = testKey(t, 8).ID()
				r = &forged
			}
			d := newDatabase(testRand())
			d.keep(r, overlay.At(time.Now()))
			if err := writeDatabase(folder, d.encode(testNetwork)); err != nil {
				t.Fatal(err)
			}
			m := newEther().start(t, 1, func(c *Config) { c.Folder = folder })
			time.Sleep(time.Minute)
			m.stop()
			if sent := m.Stats().Sent; sent > 0 != honest {
				t.Errorf("honest %v: %d packets sent", honest, sent)
			}
		}
	})
}

// FuzzDatabase: what decodes, encodes back to the same bytes.
func FuzzDatabase(f *testing.F) {
	d := newDatabase(testRand())
	for i := range 3 {
		d.keep(someRecord(i, address(i)), someTime)
	}
	b := d.encode(testNetwork)
	f.Add(b[:len(b)-32])
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := crowd.Keccak256(b) // no fuzzer finds it
		b = append(bytes.Clone(b), sum[:]...)
		d := newDatabase(testRand())
		if d.decode(b, testNetwork, 1<<62) != nil {
			return
		}
		if got := d.encode(testNetwork); !bytes.Equal(got, b) {
			t.Fatalf("got %x, want %x", got, b)
		}
	})
}
