package scenario

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

func market(t testing.TB, c MarketConfig) Score {
	t.Helper()
	m, err := NewMarket(c)
	if err != nil {
		t.Fatal(err)
	}
	m.Play(m.Jobs)
	return m.Score()
}

// TestMarket is the scoreboard on a small scale: what was stated holds in what is measured, no honest
// stake is lost, and who breaks the protocol would have gained more by keeping to it.
func TestMarket(t *testing.T) {
	for _, s := range Strategies() {
		for _, rate := range []float64{0.001, 0.03, 0.3, 1} {
			if rate > 0.001 && !s.lies {
				continue
			}
			t.Run(fmt.Sprintf("%s/%g", s.Name, rate), func(t *testing.T) {
				got := market(t, MarketConfig{Nodes: 100, Jobs: 1000, Strategy: s.Name, Rate: rate, Seed: 7})
				if got.HonestSlashes != 0 {
					t.Errorf("%d honest nodes lost their stake", got.HonestSlashes)
				}
				if got.Accepted.Low > got.Guarantee {
					t.Errorf("at least %.4g of the lies passed, the plan states %.4g", got.Accepted.Low, got.Guarantee)
				}
				if got.Wrong.Low > got.Stated {
					t.Errorf("at least %.4g of all batches are wrong, stated are %.4g", got.Wrong.Low, got.Stated)
				}
				if s.Name == "honest" {
					if got.Acted != 0 || got.Failed.Seen != 0 {
						t.Errorf("got %d batches acted in and %d failed, all were honest", got.Acted, got.Failed.Seen)
					}
					return
				}
				if got.Acted == 0 {
					t.Fatal("nobody did anything: the test tests nothing")
				}
				if want := s.choosy; got.Gain >= 0 != want { // it is the one that a plan only makes rare
					t.Errorf("gain of %.3f credits for each batch, %.3f against the %.3f of honest work", got.Gain, got.Profit, got.Honest)
				}
			})
		}
	}
}

// The draw of a market seats nodes as ledger.Won's hashes do.
func TestMarket_DrawsAsTheLedgerDoes(t *testing.T) {
	const nodes, fresh, rounds = 6, 3, 3000
	m, err := NewMarket(MarketConfig{Nodes: nodes, Byzantine: float64(fresh) / nodes, Verifiers: 1, Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	total := uint64(0)
	for i := range m.nodes {
		m.nodes[i].newcomer = i < fresh
		total += uint64(m.tickets[1])
		if i < fresh {
			total -= uint64(m.tickets[1] - m.tickets[0])
		}
	}
	var market, real [2]float64 // newcomers in the first and in the second seat
	rng := rand.New(rand.NewPCG(1, 2))
	for r := range rounds {
		for s := range market {
			if m.nodes[m.seat(r+1, nil)].newcomer {
				market[s]++
			}
		}
		type claim struct {
			node     int
			priority crowd.Hash
		}
		var best [2]claim
		for n := range nodes {
			var out identity.VRFOutput
			for i := range out {
				out[i] = byte(rng.Uint32())
			}
			tickets := m.tickets[1]
			if n < fresh {
				tickets = m.tickets[0]
			}
			won, p := ledger.Won(out, tickets, total, total)
			c := claim{n, p}
			for s := range best {
				if won > 0 && (best[s].priority == (crowd.Hash{}) || string(c.priority[:]) < string(best[s].priority[:])) {
					best[s], c = c, best[s]
				}
			}
		}
		for s := range best {
			if best[s].node < fresh {
				real[s]++
			}
		}
	}
	for s := range market {
		a, b := market[s]/rounds, real[s]/rounds
		if sigma := math.Sqrt(a*(1-a)/rounds + b*(1-b)/rounds); math.Abs(a-b) > 4*sigma || a == 0 {
			t.Errorf("seat %d: newcomers in %.4f of the market's draws and %.4f of the ledger's", s, a, b)
		}
	}
}

// TestMarket_AgreesWithWholeNodes plays the same batches by whole nodes on the real ledger, and holds
// detection and the cheaters' and owners' money against the market's.
func TestMarket_AgreesWithWholeNodes(t *testing.T) {
	const jobs = 30
	caught, lied, seed := 0, 0, uint64(0)
	for seed = 1; lied < jobs; seed++ {
		w := sampled(Config{Seed: seed, Spec: Batch(100, 2, 5)}, map[int]Adversary{0: Cheat{Rate: 0.1}}, nil)
		if err := w.Check(); err != nil {
			t.Fatal(err)
		}
		lied++
		if len(w.Slashed) == 1 {
			caught++
		}
	}
	m := market(t, MarketConfig{Nodes: 50, Jobs: 20_000, Byzantine: 0.3, Items: 100, Verifiers: 2, Checks: 5, Rate: 0.1})
	a, b := float64(caught)/float64(lied), m.Caught.Rate
	sigma := math.Sqrt(b * (1 - b) * (1/float64(lied) + 1/float64(m.Caught.Of)))
	t.Logf("caught %.3f of %d by whole nodes, %.4f by the market, 1 - %.4f stated", a, lied, b, m.Guarantee)
	if math.Abs(a-b) > 3.5*sigma {
		t.Errorf("whole nodes caught %.3f, the market %.3f ± %.3f", a, b, sigma)
	}
}

func TestMarketConfig_Validate(t *testing.T) {
	for name, c := range map[string]MarketConfig{
		"no such strategy": {Strategy: "nice"}, "more than all": {Byzantine: 1.5}, "nobody honest": {Byzantine: 1}, "rate": {Rate: 2},
		"verifiers": {Verifiers: crowd.MaxVerifiers + 1}, "checks": {Checks: crowd.MaxChecks + 1}, "nodes": {Nodes: 1e7}, "cost": {Cost: math.NaN()},
	} {
		if c.Validate() == nil {
			t.Errorf("%s: %+v passed", name, c)
		}
	}
	if err := (MarketConfig{}).Validate(); err != nil {
		t.Error(err)
	}
}

// Whose stake answers for a thousand batches at a time has nearly none to lose in one. Who is caught is not paid
// for all its honest items either, and that alone makes cheating lose where two of three verifiers may be had.
func TestMarket_CheatingLosesWithHardlyAnyStake(t *testing.T) {
	for _, name := range []string{"cheat", "ring", "inflate"} {
		for _, rate := range []float64{0.001, 0.01, 0.1, 1} {
			got := market(t, MarketConfig{Nodes: 100, Jobs: 1000, Strategy: name, Rate: rate, Reuse: 1000})
			if got.Gain >= 0 || got.Acted == 0 {
				t.Errorf("%s at %g: gain of %.3f credits in %d batches", name, rate, got.Gain, got.Acted)
			}
		}
	}
}
