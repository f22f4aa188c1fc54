//go:build linux

package node

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/discovery"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
)

func TestOpenKey_MintsOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenKey(gone, dir, 4, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped: got %v", err)
	}
	k, err := OpenKey(t.Context(), dir, 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.CheckStatic(k.ID(), 4); err != nil {
		t.Error(err)
	}
	again, err := OpenKey(gone, dir, 4, func(uint64) { t.Error("minted again") })
	if err != nil || again.ID() != k.ID() {
		t.Errorf("the second start: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(t.Context(), dir, 4, nil); err == nil {
		t.Error("a damaged key was replaced without a word")
	}
}

// TestPuzzles: on a network that sets both, on real sockets, nodes find each other from one epoch to the next, and nobody
// believes a node that has not solved one of them.
func TestPuzzles(t *testing.T) {
	p := ledger.DevParams()
	p.Puzzles = ledger.PuzzleParams{Static: 2, Dynamic: 10, Epoch: 60_000}
	l, err := OpenLocal(LocalConfig{Dir: t.TempDir(), Providers: 1, Params: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.lock.Close() })
	l.genesis.Time = crowd.Time(time.Now().Add(-time.Hour).UnixMilli()) // its epoch is long over, and goes on until a block has a beacon
	w := &crew{l, t}
	authority := w.run("authority", Config{Key: w.keys.authority})
	seeds := authority.Addrs()[:1]
	consumer := w.run("consumer", Config{Key: w.keys.consumer, Seeds: seeds})
	w.ready(authority, consumer)

	var where p2p.Place
	for _, a := range authority.Addrs() {
		if p, err := p2p.ParseAddr(a); err == nil && p.UDP.IsValid() {
			where = p
		}
	}
	cheat := func(static bool, d overlay.Difficulty) *discovery.Discovery {
		k, err := identity.MintKey(t.Context(), rand.Reader, 2, nil)
		for ; err == nil && (identity.CheckStatic(k.ID(), 2) == nil) != static; k, err = identity.Generate(rand.Reader) {
		}
		if err != nil {
			t.Fatal(err)
		}
		h, err := p2p.New(p2p.Config{PrivateKey: k.Bytes(), Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}})
		if err != nil {
			t.Fatal(err)
		}
		h.Datagrams()
		c, err := discovery.New(discovery.Config{
			Key: k, Network: overlay.NetworkOf(w.genesis.ChainID()), Port: h, Self: discovery.SelfOf(h, true, nil),
			Seeds: []discovery.Seed{{ID: authority.ID(), Addr: where.UDP}}, Difficulty: d, Beacons: authority.beacons, Overlay: overlay.Config{Private: true},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.Run(ctx)
		}()
		t.Cleanup(func() { cancel(); h.Close(); <-ended })
		return c
	}
	cheap, stale := cheat(false, overlay.Difficulty{Dynamic: 10}), cheat(true, overlay.Difficulty{})
	other := w.run("other", Config{Seeds: seeds})
	eventually(t, "the honest know each other", func() bool {
		return authority.knows(consumer.ID()) && authority.knows(other.ID()) && other.knows(consumer.ID()) && consumer.knows(other.ID())
	})
	eventually(t, "both cheats were heard and refused", func() bool {
		return cheap.Stats().Sent > 3 && stale.Stats().Sent > 3 && authority.disc.Stats().BadPuzzle > 3
	})

	first := consumer.disc.Record().Epoch
	if _, err := consumer.wallet.Send(t.Context(), &ledger.Transfer{To: other.ID().Address(), Amount: 1}); err != nil {
		t.Fatal(err)
	}
	all := []*hand{authority, consumer, other}
	eventually(t, "all records are of the next epoch", func() bool {
		for _, h := range all {
			if h.disc.Record().Epoch <= first {
				return false
			}
		}
		return true
	})
	last := w.run("last", Config{Seeds: seeds})
	eventually(t, "a newcomer finds all", func() bool { return last.knows(consumer.ID()) && last.knows(other.ID()) && consumer.knows(last.ID()) })
	for _, h := range append(all, last) {
		for _, p := range h.disc.Peers() {
			if id := p.ID; id == cheap.Record().ID || id == stale.Record().ID {
				t.Errorf("%s believes a node that solved not every puzzle", h.ID().Short())
			}
		}
	}
}
