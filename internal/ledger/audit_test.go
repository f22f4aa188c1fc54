package ledger

import "testing"

// Two identities of one cheater that register one VRF key must not share their
// luck: with equal priorities they would stand side by side, and win both places
// of a pair as often as one of them wins the first.
func TestDraw_OneVRFKeyForTwoNodesGivesTwoDraws(t *testing.T) {
	shared := key(t, 777).VRF()
	w := newWorld(t, 1, 2, func(g *Genesis) {
		for i := range g.Grants {
			if g.Grants[i].Stake > 0 {
				g.Grants[i].VRF = shared.Public()
			}
		}
	})
	id := w.drawn(testSpec())
	for _, k := range w.providers {
		proof, _ := shared.Prove(DrawInput(id, k.ID(), w.job(id).Beacon))
		w.must(k, &Claim{Job: id, Proof: proof})
	}
	j := w.in(id, Running)
	if a, b := j.Drawn[0], j.Drawn[1]; a.Priority == b.Priority {
		t.Errorf("got equal priorities %x for %s and %s want independent ones", a.Priority[:4], a.Node.Short(), b.Node.Short())
	}
}

// Who claimed and was crowded out by better claims has not missed its draw.
func TestDispatch_WhoIsCrowdedOutHasNotMissedTheDraw(t *testing.T) {
	w := newWorld(t, 1, 5, func(g *Genesis) { g.Params.MaxClaims = 3 })
	id := w.drawn(testSpec(), w.providers...)
	w.wait(w.s.Params().ClaimWindow + 1)
	j := w.in(id, Running)
	if len(j.Drawn) != 3 {
		t.Fatalf("got %d claims kept want 3", len(j.Drawn))
	}
	for _, k := range w.providers {
		if r := w.s.Reputation(k.ID().Address()); r.Missed != 0 {
			t.Errorf("%s: got %d missed draws want 0", k.ID().Short(), r.Missed)
		}
	}
}
