package ledger

import (
	"testing"

	"github.com/crowdcompute/crowd"
)

// A provider that asks for a score is not drawn for owners below it, and the job says so; the score counts as it
// was at the post, so that nobody drops out between the lot and its claim.
func TestOffer_OwnersBelowTheScoreAreRefused(t *testing.T) {
	const asked = 600_000
	w := newWorld(t, 1, 2, func(g *Genesis) {
		for i := range g.Grants {
			if g.Grants[i].Stake > 0 {
				g.Grants[i].Offer.Owners = asked
			}
		}
	})
	w.refused(NoProvider, w.owner, &Post{Spec: testSpec()}) // a new owner has a half
	spec := testSpec()
	e := w.s.Eligible(w.owner.ID(), &spec, w.height)
	if got := e.Why(); got != `0 of 2 providers meet "takes work of owners with a score of 50 %"; the plan needs 2` {
		t.Errorf("got %q", got)
	}
	score := func(c Consumer) {
		ed := begin(w.s, Block{Time: w.now})
		ed.reputation(w.owner.ID().Address(), func(r *Reputation) { r.Consumer = c })
		w.s = ed.seal()
	}
	score(Consumer{Paid: 1}) // two of three
	id := w.post(testSpec())
	w.block()
	w.block()
	score(Consumer{Silent: 5})
	for _, k := range w.providers {
		m := w.claimMsg(k, id)
		w.must(m.k, m.m)
	}
	if j := w.in(id, Running); j.Score != 666_666 {
		t.Errorf("got a score of %d want that of the post", j.Score)
	}
	w.refused(NoProvider, w.owner, &Post{Spec: testSpec()})
	w.refused(BadSpec, w.providers[0], &Register{VRF: w.providers[0].VRF().Public(), Offer: Offer{Price: crowd.ReferencePrice, Owners: 1e6 + 1}})
}
