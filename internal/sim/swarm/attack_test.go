package swarm

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/overlay"
)

func TestEclipse_OneKey(t *testing.T) {
	e, err := EclipseKey(Config{Nodes: 300, Seed: 1}, 64, 30, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if e.Found < 29 || e.Lookups != 30 {
		t.Errorf("%d of %d lookups found the node in the midst of sybils", e.Found, e.Lookups)
	}
	if e.Honest > 8 {
		t.Errorf("%v of %v nearest are honest: the attack did not work", e.Honest, e.Nearest)
	}
	if e.Tries < 64*50 {
		t.Errorf("%d tries for 64 positions nearer than the nearest of 300", e.Tries)
	}
}

// TestMarcus2018_TwoHostsDoNotEclipseWhoRestarts is the attack of Marcus, Heilman and Goldberg: goal 0 of 50.
func TestMarcus2018_TwoHostsDoNotEclipseWhoRestarts(t *testing.T) {
	restarts, effort := 5, 4*time.Second
	if os.Getenv("CROWD_NIGHT") == "1" {
		restarts, effort = 50, 24*time.Hour
	}
	r, err := RestartEclipse(Config{Nodes: 300, Seed: 1}, 2, restarts, effort)
	if err != nil {
		t.Fatal(err)
	}
	if r.Eclipsed > 0 || r.Failed > 0 || r.Identities < 100 {
		t.Errorf("got %+v", r)
	}
	if r.Worst == 0 || r.Worst > 0.2 {
		t.Errorf("the attacker has %v of a table at worst", r.Worst)
	}
	// Without the bound on networks the same flood takes more.
	c := Config{Nodes: 300, Seed: 1}
	c.Overlay.PerSubnet, c.Overlay.PerSubnetAll = 1000, 1000
	open, err := RestartEclipse(c, 2, 1, effort)
	if err != nil || open.Worst < 1.5*r.Worst {
		t.Errorf("without bounds the attacker has %v of a table, with them %v; %v", open.Worst, r.Worst, err)
	}
}

func TestAmplify_NobodyIsSentMoreThanWasSentInItsName(t *testing.T) {
	all, err := Amplify(Config{Nodes: 200, Seed: 1}, 50)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if a.Payload > 1 || a.Factor > 1 {
			t.Errorf("%s: the victim got %v bytes for each, with headers %v", a.What, a.Payload, a.Factor)
		}
		if a.Hit.Packets > 2*a.Sent.Packets {
			t.Errorf("%s: %d packets for %d", a.What, a.Hit.Packets, a.Sent.Packets)
		}
	}
	if all[0].Hit.Packets == 0 {
		t.Error("the victim got nothing: nothing was measured")
	}
}

func TestLie_EndpointsOfAVictim(t *testing.T) {
	l, err := Lie(Config{Nodes: 500, Adversaries: 0.3, Seed: 1, Quiet: true}, 100, 8)
	if err != nil {
		t.Fatal(err)
	}
	if l.Factor > 1 || l.Hit.Packets == 0 || l.Found < 98 {
		t.Errorf("got %+v", l)
	}
}

func TestReplayers_OldRecordsDoNotStand(t *testing.T) {
	for _, share := range []float64{0, 0.3} {
		r, err := Replay(Config{Nodes: 300, Adversaries: share, Seed: 1}, time.Minute, 100, 8)
		if err != nil || r.Found < r.Lookups-1 || r.Lookups < 90 {
			t.Errorf("%v replay: %d of %d lookups brought the record as it is now; %v", share, r.Found, r.Lookups, err)
		}
	}
}

func TestSpam_HonestAdsAreFound(t *testing.T) {
	s, err := SpamAds(Config{Nodes: 200, Seed: 1}, 5, 60, 2, 10, 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if s.Any != s.Lookups || s.Found < 0.9 || s.Kept == 0 {
		t.Errorf("got %+v", s)
	}
}

func TestHoard_PuzzlesAreGoodForTheirEpochAndTheNext(t *testing.T) {
	source := rand.NewChaCha8([32]byte{1})
	var keys []*identity.Key
	for range 3 {
		k, err := identity.Generate(source)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	h, err := HoardPuzzles(keys, overlay.Network{1}, 1e15, overlay.Difficulty{Dynamic: 8}, 4, func(epoch uint32) (b crowd.Hash) {
		binary.BigEndian.PutUint32(b[:], epoch+7)
		return b
	})
	if err != nil || !slices.Equal(h.Accepted, []int{3, 3, 0, 0}) {
		t.Errorf("got %+v, %v", h, err)
	}
}

func TestCost_GrowsWithThePuzzle(t *testing.T) {
	if a, b := Cost(10, 0.001, 0), Cost(10, 0.001, 10); b/a != 1024 || a < 150*time.Millisecond {
		t.Errorf("got %v and %v", a, b)
	}
}
