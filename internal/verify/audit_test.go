package verify

import (
	"slices"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// A forged record may claim four thousand million tickets, each of which costs a
// hash to check: it is refused by the network's cap before it is counted.
func TestReceipt_ForgedTicketsCostNoWork(t *testing.T) {
	receipt, chain := played(t, false)
	r, err := Decode(receipt)
	if err != nil {
		t.Fatal(err)
	}
	var g ledger.Genesis
	var j ledger.Job
	if err := crowd.Decode(r.Evidence.Genesis, &g); err != nil {
		t.Fatal(err)
	}
	if err := crowd.Decode(r.Evidence.Record, &j); err != nil {
		t.Fatal(err)
	}
	k := identity.NewVRFKey([32]byte{1})
	proof, out := k.Prove(ledger.DrawInput(j.ID, j.Drawn[0].Node, j.Beacon))
	d := &j.Drawn[0]
	d.VRF, d.Proof, d.Tickets = k.Public(), proof, 50*g.Params.MaxTickets
	d.Won, d.Priority = ledger.Won(out, d.Tickets, j.Tickets, g.Params.CommitteeUnits)
	r.Evidence.Record = crowd.Encode(&j)
	findings, _ := Check(r.Encode(), Trust{Chain: chain, Header: verifyHeader})
	if names := failed(findings); !slices.Contains(names, "draw") {
		t.Errorf("got only %v failed want the draw too", names)
	}
}
