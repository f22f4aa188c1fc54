package overlay

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
)

func prover(t *testing.T) (*Node, func() (crowd.NodeID, netip.AddrPort)) {
	rng := rand.New(rand.NewPCG(28, 1))
	n := New(Config{}, recordOf(rng, publicAddr(rng), begin), NewBook(), rng)
	n.now = begin
	return n, func() (crowd.NodeID, netip.AddrPort) {
		r := recordOf(rng, publicAddr(rng), begin)
		return r.ID, netip.AddrPortFrom(r.Endpoints[0].Addr, 4000)
	}
}

func TestProof_IsOfOneNodeAtOneAddressForItsTime(t *testing.T) {
	n, somebody := prover(t)
	id, addr := somebody()
	other, elsewhere := somebody()
	n.prove(&id, addr)
	if !n.isProven(&id, addr) || n.isProven(&id, elsewhere) || n.isProven(&other, addr) || n.isProven(&id, netip.AddrPortFrom(addr.Addr(), 1)) {
		t.Error("proven where it is not, or not where it is")
	}
	// However long nobody asks, and however often: time in the list goes round in 13 hours.
	for _, step := range []time.Duration{time.Minute, 40 * time.Minute, 7 * time.Hour, 12*time.Hour + 48*time.Minute, 60 * time.Hour} {
		n, _ := prover(t)
		n.prove(&id, addr)
		for age := step; age < 100*time.Hour; age += step {
			n.now = begin.Add(age)
			if got := n.isProven(&id, addr); got != (age < 12*time.Hour) && (age-12*time.Hour).Abs() > 4*time.Minute {
				t.Fatalf("asked every %v: after %v proven: %v", step, age, got)
			}
		}
	}
}

func TestProof_SomeHundredAreRememberedAndNobodyElse(t *testing.T) {
	n, somebody := prover(t)
	type who struct {
		id   crowd.NodeID
		addr netip.AddrPort
	}
	var all []who
	for range 320 {
		id, addr := somebody()
		all = append(all, who{id, addr})
		n.prove(&id, addr)
	}
	kept := 0
	for _, w := range all {
		if n.isProven(&w.id, w.addr) {
			kept++
		}
	}
	if kept < 300 {
		t.Errorf("%d of 320 proofs kept", kept)
	}
	for range 20_000 {
		if id, addr := somebody(); n.isProven(&id, addr) {
			t.Fatal("proven by another's proof")
		}
	}
	// A flood pushes out the oldest; who answers again and again stays.
	for i := range 5000 {
		id, addr := somebody()
		n.now = n.now.Add(time.Second)
		n.prove(&id, addr)
		if i%5 == 0 {
			n.prove(&all[0].id, all[0].addr)
		}
	}
	if !n.isProven(&all[0].id, all[0].addr) {
		t.Error("pushed out by a flood")
	}
	if got := len(n.proofs.sets) * len(proofSet{}); got != 512 {
		t.Errorf("room for %d", got)
	}
}
