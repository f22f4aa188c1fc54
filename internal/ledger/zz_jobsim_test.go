package ledger_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// TestDispatch_WhenEveryWinnerHasLeft: all who claimed leave, or are buried for a
// fraud in another job, before the places are given out. Nobody can be seated,
// and the job must end all the same. The simulator found it (TestChaos).
func TestDispatch_WhenEveryWinnerHasLeft(t *testing.T) {
	key := func(n byte) *identity.Key {
		k, err := identity.Generate(rand.NewChaCha8([32]byte{n}))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	auth, owner, providers := key(1), key(2), []*identity.Key{key(3), key(4), key(5)}
	g := &ledger.Genesis{
		Name: "test", Time: 1_000_000, Params: ledger.DevParams(),
		Authorities: []ledger.Authority{{ID: auth.ID(), VRF: auth.VRF().Public(), Consensus: []byte{1}}},
		Grants:      []ledger.Grant{{ID: owner.ID(), Balance: 100 * crowd.Credit}},
	}
	for _, p := range providers {
		g.Grants = append(g.Grants, ledger.Grant{
			ID: p.ID(), Balance: crowd.Credit, Stake: 100 * crowd.Credit, VRF: p.VRF().Public(), Offer: ledger.Offer{Price: 1000},
		})
	}
	s, err := ledger.New(g)
	if err != nil {
		t.Fatal(err)
	}
	height, now := crowd.Height(0), g.Time
	block := func(ms crowd.Time, k *identity.Key, m ledger.Message) {
		t.Helper()
		height, now = height+1, now+ms
		r := s.Beacon().R
		proof, _ := auth.VRF().Prove(r[:])
		b := ledger.Block{Height: height, Time: now, Proposer: auth.ID(), Beacon: &proof}
		if k != nil {
			tx, err := ledger.Open(g.ChainID(), ledger.Sign(k, g.ChainID(), s.Account(k.ID().Address()).Nonce, m))
			if err != nil {
				t.Fatal(err)
			}
			b.Txs = []ledger.Tx{tx}
		}
		a, err := ledger.Apply(s, b)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range a.Results {
			if err != nil {
				t.Fatalf("%T: %v", m, err)
			}
		}
		if s = a.State; ledger.CheckInvariants(s) != nil {
			t.Fatalf("after block %d: %v", height, ledger.CheckInvariants(s))
		}
	}
	spec := crowd.JobSpec{
		Task: crowd.Task{Program: "program", Limits: crowd.Limits{Gas: 1e9, Memory: 1 << 20, Output: 1 << 20, Wall: time.Second}},
		Plan: crowd.Plan{Method: crowd.PlanPair}, Filters: crowd.Filters{MaxPrice: 1000}, Budget: 10 * crowd.Credit,
	}
	id := spec.ID(owner.ID(), 0)
	block(5, owner, &ledger.Post{Spec: spec})
	block(5, nil, nil)
	block(5, nil, nil) // the beacon
	for _, p := range providers[:2] {
		j, _ := s.Job(id)
		proof, _ := p.VRF().Prove(ledger.DrawInput(id, j.Beacon))
		block(5, p, &ledger.Claim{Job: id, Proof: proof})
		block(5, p, &ledger.Leave{})
	}
	block(crowd.Time(g.Params.ClaimWindow), nil, nil)
	if j, _ := s.Job(id); j.State != ledger.Failed || j.Escrow != 0 {
		t.Fatalf("got job %s with %s in escrow, want failed and refunded", j.State, j.Escrow)
	}
}
