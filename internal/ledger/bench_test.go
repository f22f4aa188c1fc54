package ledger

import (
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// BenchmarkApply_1000Transfers: one block of signed transfers among 1,000
// accounts, signatures checked, state root included.
func BenchmarkApply_1000Transfers(b *testing.B) {
	const n = 1000
	keys := make([]*identity.Key, n)
	w := newWorld(b, 1, 2, func(g *Genesis) {
		for i := range keys {
			keys[i] = key(b, uint64(1000+i))
			g.Grants = append(g.Grants, Grant{ID: keys[i].ID(), Balance: 1000 * crowd.Credit})
		}
	})
	raw := make([][]byte, n)
	for i, k := range keys {
		raw[i] = Sign(k, w.chain, 0, &Transfer{To: keys[(i+1)%n].ID().Address(), Amount: 1})
	}
	r := w.s.Beacon().R
	proof, _ := w.authorities[0].VRF().Prove(r[:])
	b.ReportAllocs()
	for b.Loop() {
		block := Block{Height: 1, Time: w.now + 1, Proposer: w.authorities[0].ID(), Beacon: &proof}
		for _, x := range raw {
			tx, err := Open(w.chain, x)
			if err != nil {
				b.Fatal(err)
			}
			block.Txs = append(block.Txs, tx)
		}
		a, err := Apply(w.s, block)
		if err != nil {
			b.Fatal(err)
		}
		for _, err := range a.Results {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "tx/s")
}

// BenchmarkJob_FromPostToSettled: a whole job of seven providers, one
// transaction a block, signatures and VRFs included, no consensus.
func BenchmarkJob_FromPostToSettled(b *testing.B) {
	w := newWorld(b, 1, 7)
	b.ReportAllocs()
	for b.Loop() {
		id := w.drawn(testSpec(), w.providers...)
		j := w.in(id, Running)
		for _, p := range j.Places {
			w.commit(w.keyOf(p.Node), id, right)
		}
		for _, p := range j.Places {
			w.reveal(w.keyOf(p.Node), id, right)
		}
		w.must(w.owner, &Accept{Job: id})
		w.wait(w.s.Params().Retention + 1) // so that the state stays as large as it was
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}
