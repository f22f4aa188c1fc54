package verify

import (
	"math"
	"slices"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// steered is Steered in floating point, summed over the binomial distribution by hand.
func steered(b float64, seats, replacements int, miss float64) float64 {
	sum, n := 0.0, seats+replacements
	for m := range n + 1 {
		choose := 1.0
		for i := range m {
			choose *= float64(n-i) / float64(i+1)
		}
		sum += choose * math.Pow(b, float64(m)) * math.Pow(1-b, float64(n-m)) * math.Pow(miss, math.Max(0, float64(seats-m)))
	}
	return sum
}

func TestSteered(t *testing.T) {
	for _, b := range []uint32{0, 10_000, 100_000, 300_000, 999_999, Million} {
		for seats := range uint32(12) {
			for r := range uint32(crowd.MaxReplacements + 1) {
				for _, miss := range []Chance{0, Certain / 3, Certain} {
					got, want := Steered(b, seats, r, miss), steered(float64(b)/Million, int(seats), int(r), miss.Float())
					if any := math.Min(1, float64(b)/Million*float64(1+r)); seats == 1 {
						want = any + (1-any)*miss.Float()
					}
					if got.Float() < want*(1-1e-9)-1e-15 || got.Float() > want*(1+1e-9)+1e-10 {
						t.Errorf("%d ppm, %d seats, %d replacements, miss %v: got %v want %v", b, seats, r, miss, got.Float(), want)
					}
					if r > 0 && got < Steered(b, seats, r-1, miss) {
						t.Errorf("%d ppm, %d seats: %d replacements are safer than fewer", b, seats, r)
					}
				}
			}
		}
	}
}

// What is printed of each plan: by hand, in exact fractions of the assumption that a tenth colludes.
func TestAccepted_CountsReplacements(t *testing.T) {
	for _, c := range []struct {
		plan crowd.Plan
		want float64
	}{
		{crowd.Plan{Method: crowd.PlanPair}, 0.01},
		{crowd.Plan{Method: crowd.PlanPair, Replacements: 1}, 0.028},   // two or three of three
		{crowd.Plan{Method: crowd.PlanPair, Replacements: 2}, 0.0523},  // two or more of four
		{crowd.Plan{Method: crowd.PlanCommittee, Executors: 3}, 0.001}, //
		{crowd.Plan{Method: crowd.PlanCommittee, Executors: 3, Replacements: 1}, 0.0037},
		{crowd.Plan{Method: crowd.PlanCommittee, Executors: 9}, 1e-9},
		{crowd.Plan{Method: crowd.PlanAudit, Rate: 50_000}, 0.1 * (0.95 + 0.05*0.1)},
		{crowd.Plan{Method: crowd.PlanAudit, Rate: 50_000, Replacements: 1}, 0.2 * (0.95 + 0.05*0.1)},
	} {
		if got := Accepted(&c.plan, defaultColluding).Float(); math.Abs(got-c.want) > 1e-11 {
			t.Errorf("%+v: got %v want %v", c.plan, got, c.want)
		}
	}
}

// What is printed of a sample: by hand, against a cheater that gets a tenth of the items wrong and by whom a tenth of the weight stands.
func TestSampleUndetected_ByHand(t *testing.T) {
	for _, c := range []struct{ items, verifiers, checks, replacements uint32 }{{1000, 2, 30, 0}, {1000, 2, 30, 2}, {100_000, 10, 5, 0}, {100_000, 10, 5, 2}, {20, 3, 6, 1}} {
		bad := float64(c.items) / 10
		miss := 1.0
		for i := range c.checks { // no bad item among those drawn without replacement
			miss *= (float64(c.items) - bad - float64(i)) / float64(c.items-i)
		}
		want := steered(0.1, int(c.verifiers), int(c.replacements), miss)
		p := crowd.Plan{Method: crowd.PlanSample, Verifiers: c.verifiers, Checks: c.checks, Replacements: c.replacements}
		if got := SampleUndetected(c.items, &p).Float(); got < want*(1-1e-9) || got > want*(1+1e-6)+1e-10 {
			t.Errorf("%+v: got %v want %v", c, got, want)
		}
		p.Undetected = uint64(SampleUndetected(c.items, &p))
		if got, want := Stated(&p).Undetected, Chance(p.Undetected).Float(); got != want {
			t.Errorf("%+v: the plan states %v, printed is %v", c, want, got)
		}
		if share := Stated(&p).Colluding; defaultColluding != 100_000 || share != 0.1 {
			t.Errorf("it is computed for %d ppm and stated for %v", int(defaultColluding), share)
		}
	}
}

// A receipt says with how many nodes the lot was played, and one whose job went beyond its plan is worth nothing.
func TestReceipt_CountsTheNodesThatHeldAPlace(t *testing.T) {
	for _, c := range []struct {
		name         string
		replacements uint32
		gone         int // places given up before the pair commits
		passed       float64
	}{
		{"nobody was replaced", 2, 0, 0.01},
		{"one was", 2, 1, 0.028},
		{"two were", 2, 2, 0.0523},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newStage(t, 4)
			spec := pairSpec()
			spec.Plan.Replacements = c.replacements
			id := st.run(spec)
			for range c.gone {
				places := st.job(id).Places
				p := places[slices.IndexFunc(places, func(p ledger.Place) bool { return p.State == ledger.Working })]
				st.block(st.nodes[p.Node], &ledger.GiveUp{Job: id, Reason: ledger.CannotRun, Why: "no inputs"})
			}
			st.settle(id, false)
			receipt, chain := st.receipt(id), st.g.ChainID()
			findings, good := Check(receipt, Trust{Chain: chain, Header: verifyHeader})
			if !good {
				t.Fatalf("got %+v", findings)
			}
			r, err := Decode(receipt)
			if err != nil {
				t.Fatal(err)
			}
			if r.Summary.Passed == nil || math.Abs(*r.Summary.Passed-c.passed) > 1e-11 {
				t.Errorf("got %v want %v", r.Summary.Passed, c.passed)
			}
			// The same record under a plan that allows one less.
			if c.gone == 0 {
				return
			}
			var j ledger.Job
			if err := crowd.Decode(r.Evidence.Record, &j); err != nil {
				t.Fatal(err)
			}
			j.Spec.Plan.Replacements = uint32(c.gone) - 1
			r.Evidence.Record = crowd.Encode(&j)
			f, _ := Check(r.Encode(), Trust{Chain: chain, Header: verifyHeader})
			names := failed(f)
			if !slices.Contains(names, "job") { // its ID is the specification's
				t.Errorf("got %v", names)
			}
			if _, err := checkChance(&ledger.Params{}, &j); err == nil {
				t.Error("the chance of a record beyond its plan was stated")
			}
			if err := checkDraw(&st.g.Params, &j); err == nil {
				t.Error("the draw of a record beyond its plan was taken")
			}
		})
	}
}
