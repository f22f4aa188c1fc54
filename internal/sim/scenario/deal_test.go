package scenario

import (
	"fmt"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// dealOf is an ended batch of the full world as a Deal, and what the chain says came of it.
func dealOf(w *World, p *Posted) (Deal, Dealt) {
	j := &p.Last
	d := Deal{Spec: &j.Spec, Params: &w.Config.Params, Duties: j.Duties, Reporter: -1}
	got := Dealt{Settled: j.State == ledger.Settled}
	place := map[crowd.Address]int{}
	values := map[crowd.Hash]Value{}
	truth, said := p.batchTruth(w), (*shard)(nil)
	for i := range j.Places {
		pl := &j.Places[i]
		place[pl.Node.Address()] = i
		d.Prices, d.Stakes = append(d.Prices, pl.Price), append(d.Stakes, w.Config.Stake)
		got.Caught, got.Change = append(got.Caught, pl.State == ledger.Fraud), append(got.Change, -int64(pl.Slashed))
		if !pl.Verifier {
			said, d.Gas = w.files[pl.Opening.Outcome.Leaves], pl.Opening.Outcome.Gas
			continue
		}
		lot, err := j.Lot(pl.Node, pl.Opening)
		if err != nil {
			panic(err)
		}
		d.Sample = append(d.Sample, ledger.Sampled(&j.Spec, lot))
	}
	value := func(item uint32, h crowd.Hash) Value {
		if h == truth.leaves[item].Hash() {
			return Right
		}
		if values[h] == 0 {
			values[h] = Value(1 + len(values)%255)
		}
		return values[h]
	}
	d.Leaf = func(i uint32) Value { return value(i, said.leaves[i].Hash()) }
	d.Answer = func(v, k int) Value { return value(d.Sample[v][k], j.Places[1+v].Opening.Answers[k]) }
	if j.Dispute != nil {
		if i, ok := place[j.Dispute.Reporter.Address()]; ok {
			d.Reporter = i
		}
		for _, b := range j.Ballots {
			if b.Item == j.Dispute.Item && b.Leaf == j.Dispute.Right {
				d.Voters++
			}
		}
	}
	for _, s := range j.History {
		if s.State == ledger.Court {
			got.Courts++
		}
	}
	got.Owner = -int64(j.Locked)
	court := map[crowd.Address]bool{}
	for _, a := range w.Nodes[:w.Config.Authorities] {
		court[a.ID.Address()] = true
	}
	for _, x := range j.Payments {
		i, placed := place[x.To]
		switch {
		case x.To.IsZero():
			got.Burned += int64(x.Amount)
		case x.To == j.Owner.Address():
			got.Owner += int64(x.Amount)
		case placed:
			got.Change[i] += int64(x.Amount)
		case court[x.To]:
			got.Court += int64(x.Amount)
		}
	}
	return d, got
}

// TestDeal holds the arithmetic of the scoreboard against the real ledger and whole nodes: the
// same verdicts and, to the last micro-credit, the same money.
func TestDeal(t *testing.T) {
	gang := func(n int) map[int]Adversary {
		at := map[int]Adversary{}
		for i := range n {
			at[i] = everybody{}
		}
		return at
	}
	for _, tt := range []struct {
		name string
		at   map[int]Adversary
	}{
		{"honest", nil},
		{"a cheat", map[int]Adversary{0: Cheat{Rate: 0.1}}},
		{"a rare cheat", map[int]Adversary{0: Cheat{Rate: 0.01}}},
		{"a framer", map[int]Adversary{1: Framer{}}},
		{"two framers", map[int]Adversary{1: Framer{}, 2: Lazy{}}},
		{"a cheat and a framer", map[int]Adversary{0: Cheat{Rate: 0.1}, 1: Framer{}}},
		{"a gang with every seat", gang(3)},
		{"a gang with one honest verifier", gang(2)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seeds(t, 3, func(seed uint64) (*World, error) {
				w := sampled(Config{Seed: seed}, tt.at, nil)
				d, want := dealOf(w, w.Jobs[0])
				if got := d.Judge(); fmt.Sprint(got) != fmt.Sprint(want) {
					return w, fmt.Errorf("got %+v\nwant %+v", got, want)
				}
				return w, nil
			})
		})
	}
}

// everybody who is one lies about the same items alike, whoever holds the other places.
type everybody struct{ plain }

func (everybody) Leaves(w *World, n *Node, id crowd.JobID, only []uint32, honest []batch.Leaf) []batch.Leaf {
	g := Gang{Rate: 0.2}
	for i := range w.jobs[id].Last.Places {
		g.members = append(g.members, w.jobs[id].Last.Places[i].Node)
	}
	return g.Leaves(w, n, id, only, honest)
}
