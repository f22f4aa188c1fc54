package verify

import (
	"errors"
	"math/rand/v2"
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

// proven puts a changed record into a state of its own that the authority signs, so
// that no proof fails: what is wrong with the record must be found in the record.
func proven(t *testing.T, cheat bool, change func(j *ledger.Job, h *Header)) (receipt []byte, chain string) {
	t.Helper()
	receipt, chain = played(t, cheat)
	return provenOf(t, receipt, chain, change), chain
}

func provenOf(t *testing.T, receipt []byte, chain string, change func(j *ledger.Job, h *Header)) []byte {
	t.Helper()
	r, err := Decode(receipt)
	if err != nil {
		t.Fatal(err)
	}
	var j ledger.Job
	if err := crowd.Decode(r.Evidence.Record, &j); err != nil {
		t.Fatal(err)
	}
	h := Header{Chain: chain, Height: 50}
	change(&j, &h)
	s := ledger.Load(func(f func(string, []byte)) { f(string(ledger.JobKey(j.ID)), crowd.Encode(&j)) })
	authority, err := identity.Generate(rand.NewChaCha8([32]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	h.Root = s.Root()
	r.Evidence.Header = crowd.Encode(signedHeader{Header: h, Sig: authority.Sign(crowd.Digest("test header", h))})
	r.Evidence.Record, r.Evidence.Proof = s.Prove(ledger.JobKey(j.ID))
	r.Summary = summarize(chain, &j)
	return r.Encode()
}

func TestReceipt_EachCheckStandsAlone(t *testing.T) {
	if receipt, chain := proven(t, true, func(*ledger.Job, *Header) {}); true {
		if f, good := Check(receipt, Trust{Chain: chain, Header: verifyHeader}); !good {
			t.Fatalf("an unchanged record: got %+v", f)
		}
	}
	wrong := crowd.Outcome{Status: crowd.Exited, Gas: 5e8, Result: "bafywrong"}
	work := func(j *ledger.Job) *ledger.Payment {
		return &j.Payments[slices.IndexFunc(j.Payments, func(p ledger.Payment) bool { return p.Why == ledger.WhyWork })]
	}
	returned := func(j *ledger.Job) *ledger.Payment {
		return &j.Payments[slices.IndexFunc(j.Payments, func(p ledger.Payment) bool { return p.Why == ledger.WhyReturned })]
	}
	for _, c := range []struct {
		name   string
		want   string
		cheat  bool
		change func(j *ledger.Job, h *Header)
	}{
		{"another chain's header", "header", false, func(_ *ledger.Job, h *Header) { h.Chain = "other" }},
		{"an open job", "job", false, func(j *ledger.Job, _ *Header) { j.State = ledger.Running }},
		{"an impossible spec", "job", false, func(j *ledger.Job, _ *Header) {
			j.Spec.Task.Limits.Gas = 0
			j.ID = j.Spec.ID(j.Owner, j.Nonce)
		}},
		{"alternates out of order", "draw", false, func(j *ledger.Job, _ *Header) { j.Drawn[1], j.Drawn[2] = j.Drawn[2], j.Drawn[1] }},
		{"more winning tickets", "draw", false, func(j *ledger.Job, _ *Header) { j.Drawn[0].Won++ }},
		{"a better priority", "draw", false, func(j *ledger.Job, _ *Header) { j.Drawn[0].Priority = crowd.Hash{} }},
		{"a false proof of the last", "draw", false, func(j *ledger.Job, _ *Header) { j.Drawn[len(j.Drawn)-1].Proof[5] ^= 1 }},
		{"more winning tickets of the last", "draw", false, func(j *ledger.Job, _ *Header) { j.Drawn[len(j.Drawn)-1].Won++ }},
		{"more tickets of the last", "draw", false, func(j *ledger.Job, _ *Header) { j.Drawn[len(j.Drawn)-1].Tickets++ }},
		{"a worse priority of the last", "draw", false, func(j *ledger.Job, _ *Header) { j.Drawn[len(j.Drawn)-1].Priority = crowd.Hash{0: 255} }},
		{"a last place that was not drawn", "draw", false, func(j *ledger.Job, _ *Header) { j.Places[1].Node[0] ^= 1 }},
		{"places out of order", "draw", false, func(j *ledger.Job, _ *Header) { j.Places[0], j.Places[1] = j.Places[1], j.Places[0] }},
		{"a node with two places", "draw", false, func(j *ledger.Job, _ *Header) { j.Places[1].Node = j.Places[0].Node }},
		{"a place too dear", "draw", false, func(j *ledger.Job, _ *Header) { j.Places[0].Price = j.Spec.Filters.MaxPrice + 1 }},
		{"a reveal of nothing", "commitments", false, func(j *ledger.Job, _ *Header) { j.Places[0].Opening = nil }},
		{"another opening of a convicted place", "commitments", true, func(j *ledger.Job, _ *Header) {
			j.Places[slices.IndexFunc(j.Places, func(p ledger.Place) bool { return p.State == ledger.Fraud })].Opening.Outcome.Result = "bafyframed"
		}},
		{"a lot that the plan did not ask for", "audit", false, func(j *ledger.Job, _ *Header) { j.Audit = &ledger.Audit{Executor: j.Places[0].Node, Rate: Million} }},
		{"settled without a verdict", "verdict", false, func(j *ledger.Job, _ *Header) { j.Verdict = nil }},
		{"agreement of one", "verdict", false, func(j *ledger.Job, _ *Header) { j.Places[1].State, j.Places[1].Opening = ledger.Dropped, nil }},
		{"agreement with a convicted executor", "verdict", false, func(j *ledger.Job, _ *Header) { j.Places[1].State = ledger.Fraud }},
		{"agreement beside a convicted executor", "verdict", false, func(j *ledger.Job, _ *Header) {
			j.Places = append(j.Places, ledger.Place{Node: j.Drawn[2].Node, State: ledger.Fraud, Opening: &ledger.Opening{}})
		}},
		{"agreement with a cheater", "verdict", true, func(j *ledger.Job, _ *Header) { j.Verdict.By = ledger.ByAgreement }},
		{"a cheater uncontested", "verdict", true, func(j *ledger.Job, _ *Header) {
			for i := range j.Places {
				j.Places[i].State = ledger.Revealed
			}
		}},
		{"a stranger's vote", "verdict", true, func(j *ledger.Job, _ *Header) { j.Ballots[0].Authority[0] ^= 1 }},
		{"a vote on another question", "verdict", true, func(j *ledger.Job, _ *Header) { j.Ballots[0].Question = ledger.WhatItem }},
		{"a vote for something else", "verdict", true, func(j *ledger.Job, _ *Header) { j.Ballots[0].Outcome = wrong }},
		{"a verdict by nobody", "verdict", false, func(j *ledger.Job, _ *Header) { j.Verdict.By = "say-so" }},
		{"another sum locked", "payments", false, func(j *ledger.Job, _ *Header) { j.Locked++ }},
		{"escrow left", "payments", false, func(j *ledger.Job, _ *Header) { j.Escrow = 1 }},
		{"stakes left", "payments", false, func(j *ledger.Job, _ *Header) { j.Slashed = 1 }},
		{"a sum that wraps", "payments", false, func(j *ledger.Job, _ *Header) {
			j.Payments = append(j.Payments, ledger.Payment{Amount: ^crowd.Credits(0)}, ledger.Payment{Amount: 1})
		}},
		{"work overpaid", "payments", false, func(j *ledger.Job, _ *Header) {
			more := ledger.DevParams().Pay(j.Places[0].Price, j.Verdict.Outcome.Gas) + 1 - work(j).Amount
			work(j).Amount += more
			returned(j).Amount -= more
		}},
		{"work overpaid in two parts", "payments", false, func(j *ledger.Job, _ *Header) {
			j.Payments = append(j.Payments, *work(j))
			returned(j).Amount -= work(j).Amount
		}},
		{"work paid to a stranger", "payments", false, func(j *ledger.Job, _ *Header) { work(j).To = j.Drawn[2].Node.Address() }},
		{"work of a convicted executor paid", "payments", true, func(j *ledger.Job, _ *Header) {
			for i := range j.Places {
				if p := &j.Places[i]; p.State == ledger.Fraud {
					j.Payments = append(j.Payments, ledger.Payment{To: p.Node.Address(), Amount: 1, Why: ledger.WhyWork})
					returned(j).Amount--
				}
			}
		}},
		{"more slashed than there is", "payments", false, func(j *ledger.Job, _ *Header) { j.Places[0].Slashed, j.Places[1].Slashed = ^crowd.Credits(0), 1 }},
		{"work paid above the place's price", "payments", false, func(j *ledger.Job, _ *Header) { j.Places[0].Price /= 2 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			receipt, chain := proven(t, c.cheat, c.change)
			f, _ := Check(receipt, Trust{Chain: chain, Header: verifyHeader})
			if got := failed(f); !slices.Contains(got, c.want) {
				t.Errorf("got %v failed want %s among them", got, c.want)
			}
		})
	}
}

// A header that is not signed proves nothing, even if it is the right one.
func TestReceipt_AnUnsignedHeaderProvesNoState(t *testing.T) {
	receipt, chain := played(t, false)
	f, good := Check(receipt, Trust{Chain: chain, Header: func(g *ledger.Genesis, ev []byte) (Header, error) {
		h, _ := verifyHeader(g, ev)
		return h, errors.New("not signed")
	}})
	if got := failed(f); good || !slices.Equal(got, []string{"header", "state proof"}) {
		t.Errorf("got %v failed want header and state proof", got)
	}
}

// evidence is what a receipt holds.
func evidence(t *testing.T, receipt []byte) (j ledger.Job, g ledger.Genesis) {
	t.Helper()
	r, err := Decode(receipt)
	if err == nil {
		err = errors.Join(crowd.Decode(r.Evidence.Record, &j), crowd.Decode(r.Evidence.Genesis, &g))
	}
	if err != nil {
		t.Fatal(err)
	}
	return j, g
}

// The court of a chain with more than one authority: two thirds are too few, and a vote given often counts once.
func TestReceipt_TheCourtNeedsMoreThanTwoThirds(t *testing.T) {
	strict, _ := played(t, true)
	batch, _, _ := playedBatch(t, true)
	tolerant, _ := playedTolerant(t, ledger.Same)
	for name, receipt := range map[string][]byte{"a task": strict, "a batch": batch, "a tolerant task": tolerant} {
		for authorities := 1; authorities <= 7; authorities++ {
			court := func(voter func(i int) (id crowd.NodeID, votes bool)) error {
				j, g := evidence(t, receipt)
				said := j.Ballots
				g.Authorities, j.Ballots = nil, nil
				for i := range authorities {
					g.Authorities = append(g.Authorities, ledger.Authority{ID: crowd.NodeID{byte(i)}})
					id, votes := voter(i)
					for _, b := range said {
						if b.Authority = id; votes {
							j.Ballots = append(j.Ballots, b)
						}
					}
				}
				_, err := checkVerdict(&g, &j)
				return err
			}
			for votes := range authorities + 1 {
				err := court(func(i int) (crowd.NodeID, bool) { return crowd.NodeID{byte(i)}, i < votes })
				if (err == nil) != (3*votes > 2*authorities) {
					t.Errorf("%s: %d of %d authorities: got %v", name, votes, authorities, err)
				}
			}
			if err := court(func(int) (crowd.NodeID, bool) { return crowd.NodeID{0}, true }); (err == nil) != (authorities == 1) {
				t.Errorf("%s: one of %d authorities, as often as there are: got %v", name, authorities, err)
			}
		}
	}
}
