package ledger

import (
	"sync"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// stage is a genesis with the keys of its actors. Stages are made once and shared by all scripts.
type stage struct {
	g           Genesis
	s           State
	chain       string
	authorities []*identity.Key
	providers   []*identity.Key
	owners      []*identity.Key
	stranger    *identity.Key
}

const stageProviders = 10 // enough for the largest committee, and for eight verifiers with an executor

// stagePrices is what all providers of a stage ask, so that a job whose maximum is the same pays its whole escrow.
var stagePrices = []crowd.Price{1000, 1, 999, 1001, 2000, 0, 7, 1_000_003}

var (
	stageMu sync.Mutex
	stages  = map[stageKey]*stage{} // the fuzz target makes at most 10 · len(stagePrices) · stageRules
	keys    = map[uint64]*identity.Key{}
)

type stageKey struct {
	authorities int
	price       crowd.Price // that all providers ask
	rules       int
}

const stageRules = 6

func cachedKey(t testing.TB, seed uint64) *identity.Key {
	k := keys[seed]
	if k == nil {
		k = key(t, seed)
		keys[seed] = k
	}
	return k
}

// onStage returns the stage with so many authorities, one price and one set of rules.
func onStage(t testing.TB, authorities int, price crowd.Price, rules int) *stage {
	stageMu.Lock()
	defer stageMu.Unlock()
	at := stageKey{authorities, price, rules}
	if st := stages[at]; st != nil {
		return st
	}
	st := &stage{g: Genesis{Name: "play", Time: 1_000_000, Params: DevParams()}}
	p := &st.g.Params
	switch rules {
	case 1: // a slash and a bounty that leave rests, and fees that hurt
		p.SlashPPM, p.BountyPPM, p.BurnPPM, p.CancelLeast = 333_333, 999_999, 333_333, 777
	case 2: // not every ticket wins, and few claims are kept
		p.CommitteeUnits, p.MaxTickets, p.MaxClaims = 12, 3, 9
	case 3: // the rules of the main network, but for the look-back
		*p = MainParams()
		p.Lookback, p.MaxTickets = 2, 5
	case 4: // everything is burned, slashed and given away
		p.SlashPPM, p.BountyPPM, p.BurnPPM, p.CancelLeast = 1e6, 1e6, 1e6, 1<<62
	case 5: // nothing is
		p.SlashPPM, p.BountyPPM, p.BurnPPM, p.CancelLeast, p.TxFee, p.SizeFee, p.KeepFee = 0, 0, 0, 1, 0, 0, 0
	}
	for i := range authorities {
		k := cachedKey(t, uint64(100+i))
		st.authorities = append(st.authorities, k)
		st.g.Authorities = append(st.g.Authorities, Authority{ID: k.ID(), VRF: k.VRF().Public(), Consensus: []byte{byte(i)}})
		st.g.Grants = append(st.g.Grants, Grant{ID: k.ID(), Balance: 10 * crowd.Credit})
	}
	for i := range stageProviders {
		k := cachedKey(t, uint64(200+i))
		st.providers = append(st.providers, k)
		offer := Offer{Price: price, Tags: []string{"wasm"}, Country: "GR"}
		if i%3 == 2 {
			offer.Country = "FR"
		}
		stake := 1000 * crowd.Credit
		if i >= 2 { // the others have enough for the dearest jobs
			stake = 1 << 56
		}
		st.g.Grants = append(st.g.Grants, Grant{ID: k.ID(), Balance: 1000 * crowd.Credit, Stake: stake, VRF: k.VRF().Public(), Offer: offer})
	}
	for i, balance := range []crowd.Credits{1 << 60, 1000 * crowd.Credit} {
		k := cachedKey(t, uint64(900+i))
		st.owners = append(st.owners, k)
		st.g.Grants = append(st.g.Grants, Grant{ID: k.ID(), Balance: balance})
	}
	st.stranger = cachedKey(t, 950)
	st.g.Grants = append(st.g.Grants, Grant{ID: st.stranger.ID(), Balance: 10 * crowd.Credit})
	s, err := New(&st.g)
	if err != nil {
		t.Fatal(err)
	}
	st.s, st.chain = s, st.g.ChainID()
	stages[at] = st
	return st
}

// proved is a VRF proof with its output. Proofs take most of a script's time, and scripts resemble each other.
type proved struct {
	proof identity.VRFProof
	out   identity.VRFOutput
}

var proofs = map[string]proved{} // emptied when it holds maxProofs; guarded by stageMu

const maxProofs = 1 << 16

func prove(k *identity.Key, alpha []byte) (identity.VRFProof, identity.VRFOutput) {
	id := k.ID()
	stageMu.Lock()
	defer stageMu.Unlock()
	at := string(id[:]) + string(alpha)
	p, ok := proofs[at]
	if !ok {
		p.proof, p.out = k.VRF().Prove(alpha)
		if len(proofs) >= maxProofs {
			clear(proofs)
		}
		proofs[at] = p
	}
	return p.proof, p.out
}
