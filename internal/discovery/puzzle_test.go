package discovery

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
)

// minted is a key with, or without, the static puzzle of 2 bits solved.
func minted(t testing.TB, r *rand.ChaCha8, solved bool) *identity.Key {
	t.Helper()
	for {
		k, err := identity.Generate(r)
		if err != nil {
			t.Fatal(err)
		}
		if (identity.CheckStatic(k.ID(), 2) == nil) == solved {
			return k
		}
	}
}

// TestSKademlia_StaticPuzzle (Baumgart and Mies 2007, section 4.1): an ID that does not solve it enters nobody's table, and
// floods of such cost a bounded number of checks.
func TestSKademlia_StaticPuzzle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		random := rand.NewChaCha8([32]byte{7})
		puzzle := overlay.Difficulty{Static: 2}
		fleet := e.fleet(t, 4, func(_ int, c *Config) {
			c.Key, c.Difficulty = minted(t, random, true), puzzle
		})
		defer stopAll(fleet)
		cheat := minted(t, random, false)
		cfg := Config{Key: cheat, Network: testNetwork, Port: e.port(testAddr(50)), Difficulty: puzzle}
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "mint a new key") {
			t.Errorf("a key that does not solve the puzzle: got %v", err)
		}
		liar := e.start(t, 50, func(c *Config) { c.Key = cheat }, fleet[0].seed())
		time.Sleep(2 * time.Minute)
		liar.stop()
		for i, m := range fleet {
			for _, p := range m.Peers() {
				if p.ID == cheat.ID() {
					t.Errorf("node %d took it", i)
				}
			}
		}
		if fleet[0].Stats().BadPuzzle == 0 {
			t.Error("nobody refused it")
		}

		before := fleet[1].Stats()
		for i := range 100 {
			time.Sleep(30 * time.Millisecond)
			k, err := identity.Generate(random)
			if err != nil {
				t.Fatal(err)
			}
			addr := testAddr(1000 + i)
			r, err := overlay.SignRecord(k, testNetwork, overlay.Record{Seq: 1, Endpoints: []overlay.Endpoint{{Addr: addr.Addr(), UDP: addr.Port()}}})
			if err != nil {
				t.Fatal(err)
			}
			b, err := overlay.Seal(k, testNetwork, fleet[1].id, overlay.Ping{Req: 1, Record: r}, overlay.At(time.Now()).Add(packetLife), false)
			if err != nil {
				t.Fatal(err)
			}
			e.deliver(fleet[1].addr, p2p.Datagram{From: addr, Data: b})
		}
		time.Sleep(2 * time.Second)
		if got := fleet[1].Stats().Puzzles - before.Puzzles; got == 0 || got > puzzleBurst+4*puzzleRate {
			t.Errorf("%d checks of 15 ms, want at most %d", got, puzzleBurst+4*puzzleRate)
		}
		if _, err := fleet[1].Confirm(within(t, time.Minute), fleet[2].id); err != nil {
			t.Error(err)
		}
	})
}

// TestSKademlia_DynamicPuzzle: each epoch wants a new solution, and who does not bring it is no longer passed on.
func TestSKademlia_DynamicPuzzle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		began := time.Now()
		at := func(epoch uint32) overlay.Beacon {
			return overlay.Beacon{Epoch: epoch, Hash: crowd.Digest("test", uint64(epoch))}
		}
		beacons := func() []overlay.Beacon {
			now := uint32(time.Since(began)/(2*time.Hour)) + 1
			return []overlay.Beacon{at(now), at(now - 1)}
		}
		fleet := e.fleet(t, 5, func(i int, c *Config) {
			c.Difficulty, c.Beacons = overlay.Difficulty{Dynamic: 8}, beacons
			if i == 4 {
				c.Beacons = func() []overlay.Beacon { return []overlay.Beacon{at(1), at(2), at(3), at(4), at(5)} }
			}
		})
		time.Sleep(5*time.Hour + 30*time.Minute) // a peer is asked every half hour at least
		if got := fleet[1].Record().Epoch; got != 3 {
			t.Errorf("the record is of epoch %d, want 3", got)
		}
		if r, err := fleet[2].Confirm(within(t, time.Minute), fleet[1].id); err != nil || r.Epoch != 3 {
			t.Errorf("found of epoch 3: %v, %v", r, err)
		}
		stopAll(fleet[4:])
		lazy := e.start(t, 4, func(c *Config) { c.Difficulty, c.Beacons = overlay.Difficulty{Dynamic: 8}, fleet[4].cfg.Beacons }, fleet[0].seed())
		newcomer := e.start(t, 9, func(c *Config) { c.Difficulty, c.Beacons = overlay.Difficulty{Dynamic: 8}, beacons }, fleet[0].seed())
		newcomer.awaitReady(t, 9)
		time.Sleep(5 * time.Minute)
		for _, p := range newcomer.Peers() {
			if p.ID == lazy.id {
				t.Error("a newcomer took a record whose puzzle is of a past epoch")
			}
		}
		stopAll(append(fleet[:4], lazy, newcomer))
	})
}

// TestNoBeacon: without a beacon nothing can be solved yet, and Run still ends.
func TestNoBeacon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		m := e.start(t, 1, func(c *Config) {
			c.Difficulty, c.Beacons = overlay.Difficulty{Dynamic: 8}, func() []overlay.Beacon { return nil }
		})
		time.Sleep(time.Minute)
		if !m.log.has("waiting for the chain's beacon") {
			t.Errorf("nothing said: %s", m.log)
		}
		if _, err := m.FindTag(t.Context(), "chain", 1); !errors.Is(err, ErrWaiting) {
			t.Errorf("a lookup meanwhile: %v", err)
		}
		m.stop()
	})
}

// puppet is a machine that does what the test says.
type puppet struct{ effects chan []overlay.Effect }

func (p puppet) Step(overlay.Time, overlay.Event) []overlay.Effect {
	select {
	case out := <-p.effects:
		return out
	default:
		return nil
	}
}

func (p puppet) Deadline() overlay.Time { return overlay.At(time.Now().Add(time.Second)) }

func TestClockOffIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := puppet{make(chan []overlay.Effect, 1)}
		var boots atomic.Int32
		m := newEther().start(t, 1, func(c *Config) {
			c.machine = func(*overlay.Record, *rand.Rand) machine { boots.Add(1); return p }
		})
		defer m.stop()
		for _, c := range []struct {
			by, want time.Duration
			boots    int
		}{
			{2 * time.Hour, 2 * time.Hour, 2},
			{time.Millisecond, 2 * time.Hour, 2},
			{22*time.Hour + time.Minute, 2 * time.Hour, 2}, // together more than a day
			{-3 * time.Hour, -1 * time.Hour, 3},
		} {
			p.effects <- []overlay.Effect{overlay.ClockOff{By: c.by}}
			time.Sleep(2 * time.Second)
			if got := m.ClockOffset(); got != c.want || int(boots.Load()) != c.boots {
				t.Errorf("off by %v: corrected by %v in all, want %v; %d machines, want %d", c.by, got, c.want, boots.Load(), c.boots)
			}
		}
		if off := time.Until(time.UnixMilli(int64(m.Record().Seq))); off > -59*time.Minute || off < -61*time.Minute {
			t.Errorf("the record is dated %v from now, want an hour ago", off)
		}
	})
}

// TestTooManyLookups: what is under way is bounded, and the next is told so.
func TestTooManyLookups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newEther().start(t, 1, func(c *Config) {
			c.machine = func(*overlay.Record, *rand.Rand) machine { return puppet{make(chan []overlay.Effect)} }
		})
		var busy atomic.Int32
		var group sync.WaitGroup
		for i := range maxLookups + 10 {
			group.Go(func() {
				_, err := m.FindKey(t.Context(), crowd.Key{byte(i), byte(i >> 8), 1})
				if errors.Is(err, ErrBusy) {
					busy.Add(1)
				} else if !errors.Is(err, ErrStopped) {
					t.Errorf("got %v", err)
				}
			})
		}
		time.Sleep(time.Second)
		m.stop()
		group.Wait()
		if busy.Load() != 10 {
			t.Errorf("%d refused, want 10", busy.Load())
		}
	})
}

// TestClockSetBack: when the system's clock goes back, as by NTP, the machine, whose time cannot, starts anew.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var boots atomic.Int32
		m := newEther().start(t, 1, func(c *Config) {
			c.machine = func(*overlay.Record, *rand.Rand) machine { boots.Add(1); return puppet{make(chan []overlay.Effect)} }
		})
		defer m.stop()
		if err := m.call(t.Context(), func() { m.clock.last = m.clock.last.Add(time.Hour) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if boots.Load() != 2 || strings.Count(m.log.String(), "set back") != 1 {
			t.Errorf("%d machines, want 2: %s", boots.Load(), m.log)
		}
		if err := m.Announce(t.Context(), "gpu"); err != nil {
			t.Fatal(err)
		}
		if off := time.Until(time.UnixMilli(int64(m.Record().Seq))); off.Abs() > time.Minute {
			t.Errorf("the record is dated %v from now", off)
		}
	})
}

// lured is a machine whose lookups end at liars, with the same ads for every topic.
type lured struct{ ads []*overlay.Record }

func (l lured) Step(_ overlay.Time, ev overlay.Event) []overlay.Effect {
	ask, ok := ev.(overlay.Lookup)
	if !ok {
		return nil
	}
	return []overlay.Effect{overlay.Found{ID: ask.ID, Record: l.ads[0], Ad: true}, overlay.Done{ID: ask.ID, Ads: l.ads}}
}

func (lured) Deadline() overlay.Time { return 0 }

// TestAdsOfOthers: whoever keeps ads can hand out any record, but a record's own node says which tags it has.
func TestAdsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ads []*overlay.Record
		for i, tags := range [][]string{{"docker"}, {"docker", "gpu"}, nil, {"docker", "gpu"}, {"gpu"}} {
			r := someRecord(i%4, address(i)) // the last is a later record of the first
			r.Tags = tags
			ads = append(ads, r)
		}
		m := newEther().start(t, 1, func(c *Config) {
			c.machine = func(*overlay.Record, *rand.Rand) machine { return lured{ads} }
		})
		defer m.stop()
		for want, n := range map[int]int{0: 3, 1: 1, 2: 2} {
			if got, err := m.FindTag(t.Context(), "gpu", want); err != nil || len(got) != n {
				t.Errorf("want %d: got %d, %v, want %d", want, len(got), err, n)
			}
		}
		if _, err := m.FindTag(t.Context(), "No Tag", 1); err == nil {
			t.Error("no error for what is no tag")
		}
	})
}
