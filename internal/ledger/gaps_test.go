package ledger

import (
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
)

// Each test here holds one check that another check, or the recovery from a panic, would otherwise hide.

func TestOffer_EachBound(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Offer
		good bool
	}{
		{"nothing said", Offer{}, true},
		{"all tags", Offer{Tags: make([]string, maxTags)}, false}, // of no bytes
		{"as many tags as may be", Offer{Tags: strings.Split(strings.Repeat("x,", maxTags-1)+"x", ",")}, true},
		{"a tag more", Offer{Tags: strings.Split(strings.Repeat("x,", maxTags)+"x", ",")}, false},
		{"the longest tag", Offer{Tags: []string{strings.Repeat("x", crowd.MaxFilter)}}, true},
		{"a longer tag", Offer{Tags: []string{strings.Repeat("x", crowd.MaxFilter+1)}}, false},
		{"the highest score", Offer{Owners: 1e6}, true},
		{"a higher score", Offer{Owners: 1e6 + 1}, false},
		{"a country", Offer{Country: "GR"}, true},
		{"the first country", Offer{Country: "AA"}, true},
		{"the last country", Offer{Country: "ZZ"}, true},
		{"one letter", Offer{Country: "G"}, false},
		{"three letters", Offer{Country: "GRE"}, false},
		{"below A", Offer{Country: "@R"}, false},
		{"beyond Z", Offer{Country: "[R"}, false},
		{"below A, second", Offer{Country: "G@"}, false},
		{"beyond Z, second", Offer{Country: "G["}, false},
		{"small letters", Offer{Country: "gr"}, false},
	} {
		if err := tt.o.validate(); (err == nil) != tt.good {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

// A verifier cannot show a conflict with an executor that has shown nothing yet.
func TestReveal_ConflictNeedsAnOpenExecutor(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated := w.sampled(sampleSpec())
	leaves, tree, out := sampleWork(t, never)
	o := w.answers(seated[1], id, func(uint32) bool { return true })
	w.commitOpening(seated[0], id, Opening{Outcome: out})
	w.commitOpening(seated[1], id, o)
	w.commitOpening(seated[2], id, w.answers(seated[2], id, never))
	j := w.in(id, Revealing)
	item := lotOf(w, &j, seated[1], &o)[0]
	proof := tree.Prove(item, leaves[item])
	w.refused(NotFound, seated[1], &Reveal{Job: id, Opening: o, Conflict: &proof})
	w.must(seated[0], &Reveal{Job: id, Opening: Opening{Outcome: out}})
	w.must(seated[1], &Reveal{Job: id, Opening: o, Conflict: &proof})
}

// The commitment of one executor gives the other one no more time: else the slower waits for the faster, and then works.
func TestCommit_GivesAnotherExecutorNoMoreTime(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	due := j.Places[1].Due
	w.now = due - 100
	w.commit(w.keyOf(j.Places[0].Node), id, right)
	if j = w.in(id, Running); j.Places[1].Due != due || j.Due != due {
		t.Errorf("got until %d and %d, want %d", j.Places[1].Due, j.Due, due)
	}
}

// Anybody may compute whether a draw is right: each of its numbers counts by itself.
func TestDrawn_CheckSeesEachNumber(t *testing.T) {
	w := newWorld(t, 1, 3)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	units := w.s.Params().CommitteeUnits
	for name, spoil := range map[string]func(*Drawn){
		"nothing":    func(*Drawn) {},
		"won":        func(d *Drawn) { d.Won-- },
		"priority":   func(d *Drawn) { d.Priority[31] ^= 1 },
		"tickets":    func(d *Drawn) { d.Tickets++ },
		"no tickets": func(d *Drawn) { d.Tickets, d.Won, d.Priority = 0, 0, crowd.Hash{} },
		"proof":      func(d *Drawn) { d.Proof[79] ^= 1 },
		"node":       func(d *Drawn) { d.Node[0] ^= 1 },
		"key":        func(d *Drawn) { d.VRF[0] ^= 1 },
	} {
		d := j.Drawn[0]
		spoil(&d)
		if err := d.Check(id, j.Beacon, j.Tickets, units); (err == nil) != (name == "nothing") {
			t.Errorf("%s changed: got %v", name, err)
		}
	}
}

// Only the authorities that voted with the verdict supported it.
func TestVote_SupportIsForTheVerdictAlone(t *testing.T) {
	w := newWorld(t, 4, 2)
	id := w.drawn(testSpec(), w.providers...)
	j := w.in(id, Running)
	for i, p := range j.Places {
		w.commit(w.keyOf(p.Node), id, []crowd.Outcome{right, wrong}[i])
	}
	for i, p := range j.Places {
		w.reveal(w.keyOf(p.Node), id, []crowd.Outcome{right, wrong}[i])
	}
	w.must(w.authorities[3], &Vote{Job: id, Question: WhatOutcome, Outcome: wrong})
	for _, a := range w.authorities[:3] {
		w.must(a, &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	}
	w.in(id, Delivering)
	for i, a := range w.authorities {
		want := uint64(1)
		if i == 3 {
			want = 0
		}
		if got := w.s.Reputation(a.ID().Address()).Support; got != want {
			t.Errorf("authority %d: got support %d want %d", i, got, want)
		}
	}
}

func TestGasIn_SaturatesAndIsNeverNegative(t *testing.T) {
	for _, tt := range []struct {
		ms   crowd.Time
		want crowd.Gas
	}{{-1, 0}, {0, 0}, {1, crowd.FullSpeed / 1000}, {1000, crowd.FullSpeed}, {1 << 62, ^crowd.Gas(0)}} {
		if got := gasIn(tt.ms); got != tt.want {
			t.Errorf("%d ms: got %d want %d", tt.ms, got, tt.want)
		}
	}
}

// The escrow holds the court's pay for IdleDisputes. What others than the owner ask beyond that is not paid out of it.
func TestTolerant_TheEscrowPaysForSoManyIdleDisputes(t *testing.T) {
	w := newWorld(t, 1, 5, func(g *Genesis) { g.Params.InspectFee = 50_000 }) // so that something is left that could be paid out
	id, _, reports := w.tolerantBatch(func(uint32) bool { return true })
	paid := func() (sum crowd.Credits) {
		for _, p := range w.job(id).Payments {
			if p.Why == WhyCourt {
				sum += p.Amount
			}
		}
		return sum
	}
	for n := range IdleDisputes {
		w.must(w.owner, reports[n])
		w.findings(id, always(Same))
	}
	was := paid()
	w.must(w.authorities[0], reports[IdleDisputes])
	w.findings(id, always(Same))
	w.in(id, Delivering)
	if one := crowd.ReferencePrice.Cost(sampleSpec().Task.Limits.Gas); was != IdleDisputes*one || paid() != was {
		t.Errorf("got %s, and %s after one more; want %s for %d", was, paid(), IdleDisputes*one, IdleDisputes)
	}
}
