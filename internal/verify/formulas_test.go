package verify

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/crowdcompute/crowd"
)

// simulate compares a probability with how often it comes true, at five standard
// errors, and sees that the run is long enough to tell it from each mutant: a
// formula that is nearly right.
func simulate(t *testing.T, trials int, p float64, mutants map[string]float64, comesTrue func(r *rand.Rand) bool) {
	t.Helper()
	r := rand.New(rand.NewChaCha8([32]byte{4}))
	hits := 0
	for range trials {
		if comesTrue(r) {
			hits++
		}
	}
	got := float64(hits) / float64(trials)
	bound := 5 * math.Sqrt(max(p*(1-p), 1e-9)/float64(trials))
	if math.Abs(got-p) > bound {
		t.Errorf("got %.5f of %d trials want %.5f ± %.5f", got, trials, p, bound)
	}
	for name, m := range mutants {
		if math.Abs(got-m) <= bound {
			t.Errorf("%s gives %.5f, which %d trials do not tell from %.5f", name, m, trials, got)
		}
	}
}

// sample marks q of n items, each set of them as likely as any other.
func sample(r *rand.Rand, n, q int) []bool {
	in := make([]bool, n)
	for _, i := range r.Perm(n)[:q] {
		in[i] = true
	}
	return in
}

// finds reports whether a sample of q of n items has one of the first bad.
func finds(r *rand.Rand, n, bad, q int) bool {
	in := sample(r, n, q)
	for i := range bad {
		if in[i] {
			return true
		}
	}
	return false
}

func TestMissed_AsSimulated(t *testing.T) {
	simulate(t, 50_000, Missed(60, 6, 12).Float(), map[string]float64{
		"drawing with replacement": MissedLimit(100_000, 12).Float(),
		"one check less":           Missed(60, 6, 11).Float(),
		"one bad item less":        Missed(60, 5, 12).Float(),
		"challenges mixed in":      MissedMixed(60, 6, 12).Float(),
	}, func(r *rand.Rand) bool { return !finds(r, 60, 6, 12) })
}

func TestMissedMixed_AsSimulated(t *testing.T) {
	simulate(t, 50_000, MissedMixed(40, 6, 10).Float(), map[string]float64{
		"a secret sample":        Missed(40, 6, 10).Float(),
		"one challenge less":     MissedMixed(40, 6, 9).Float(),
		"challenges as many bad": MissedMixed(40, 10, 6+4).Float(),
	}, func(r *rand.Rand) bool { // which of the 50 are challenges is the secret; the cheater errs in six
		return !finds(r, 50, 6, 10)
	})
}

func TestMissedLimit_AsSimulated(t *testing.T) {
	simulate(t, 50_000, MissedLimit(100_000, 22).Float(), map[string]float64{
		"one check less": MissedLimit(100_000, 21).Float(), "a finite shard": Missed(100, 10, 22).Float(),
	}, func(r *rand.Rand) bool {
		for range 22 {
			if r.IntN(10) == 0 {
				return false
			}
		}
		return true
	})
}

func binomial(n, k uint64) *big.Int { return new(big.Int).Binomial(int64(n), int64(k)) }

// At small sizes every number is the exact one, rounded up to 10^-12.
func TestMissed_IsTheBinomialQuotient(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		n := 1 + r.Uint64N(300)
		bad, q := r.Uint64N(n+1), r.Uint64N(n+1)
		if bad+q > n {
			if got := Missed(n, bad, q); got != 0 {
				t.Fatalf("Missed(%d, %d, %d): got %d want 0", n, bad, q, got)
			}
			continue
		}
		want := new(big.Int).Mul(binomial(n-bad, q), big.NewInt(int64(Certain)))
		all := binomial(n, q)
		want.Add(want, new(big.Int).Sub(all, big.NewInt(1))).Div(want, all)
		if got := Missed(n, bad, q); got < Chance(want.Uint64()) || got > Chance(want.Uint64())+1 {
			t.Fatalf("Missed(%d, %d, %d): got %d want %d, at most one more", n, bad, q, got, want)
		}
	}
}

func TestMissed_HugeBatches(t *testing.T) {
	for _, c := range []struct{ n, bad, q uint64 }{
		{1e9, 1e8, 44}, {1e9, 1, 1e8}, {1e9, 70_000, 70_000}, {1e9, 100_000, 100_000}, {1e12, 2e6, 3e6},
		{1e9, 5e8, 5e8}, {1 << 62, 1 << 61, 40}, {math.MaxUint64, math.MaxUint64 / 10, 44},
	} {
		k, o := min(c.bad, c.q), max(c.bad, c.q)
		logP := 0.0
		for i := uint64(0); i < k && logP > -60; i++ {
			logP += math.Log1p(-float64(o) / float64(c.n-i))
		}
		truth, got := math.Exp(logP), Missed(c.n, c.bad, c.q).Float()
		if got < truth*(1-1e-9) || got > 1.01*truth+1.1e-12 {
			t.Errorf("Missed(%d, %d, %d): got %g want %g, not below and at most 1 %% above", c.n, c.bad, c.q, got, truth)
		}
	}
	for _, n := range []uint64{1e3, 1e6, 1e9} { // also where the product changes its form
		last := Certain
		for _, q := range []uint64{0, 1, 2, 44, 99, 100, 101, 500, 65_535, 65_536, 65_537, 65_600, 65_601, 70_000, 1e6, 1e8, 1e9} {
			if q > n {
				break
			}
			for _, bad := range []uint64{n / 10, n/10 + 1} {
				p := Missed(n, bad, q)
				if p > last {
					t.Errorf("Missed(%d, %d, %d) = %d rises from %d", n, bad, q, p, last)
				}
				last = p
			}
			last = Missed(n, n/10, q)
		}
	}
}

func TestLeastChecks_AreLeast(t *testing.T) {
	onePercent := Certain / 100
	if q := least(1000, func(q uint64) bool { return MissedLimit(100_000, q) <= onePercent }); q != 44 {
		t.Errorf("against a 10 %% cheater in an endless shard: got %d checks for 99 %% want 44", q)
	}
	for _, n := range []uint64{1, 2, 9, 10, 11, 57, 440, 1000, 65_000, 1e6, 1e9} {
		for _, cheat := range []uint32{1, 1000, 10_000, 100_000, 500_000, Million} {
			bad := BadItems(n, cheat)
			for _, allowed := range []Chance{0, 1, onePercent / 10, onePercent, Certain / 2, Certain - 1} {
				q := LeastChecks(n, bad, allowed)
				if q > n || Missed(n, bad, q) > allowed || q > 0 && Missed(n, bad, q-1) <= allowed {
					t.Errorf("%d bad of %d, %v allowed: %d checks are not the least", bad, n, allowed, q)
				}
				if limit := least(1<<30, func(q uint64) bool { return MissedLimit(cheat, q) <= allowed }); allowed > 1 && q > limit {
					t.Errorf("%d bad of %d, %v allowed: got %d checks, more than the %d of an endless shard", bad, n, allowed, q, limit)
				}
			}
		}
	}
	q, ok := LeastChecksMixed(1000, 100, onePercent, 1000)
	if !ok || MissedMixed(1000, 100, q) > onePercent || MissedMixed(1000, 100, q-1) <= onePercent {
		t.Errorf("mixed in: got %d, %v", q, ok)
	}
	if _, ok := LeastChecksMixed(1000, 0, Certain, 10); ok {
		t.Error("challenges were counted against no bad item")
	}
	if got := MissedMixed(math.MaxUint64-1, 1, 10); got != Certain {
		t.Errorf("more items and challenges than can be counted: got %v want the chance of the most that can", got)
	}
	for _, bad := range []uint64{0, 11} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d bad of 10: got a number of checks", bad)
				}
			}()
			LeastChecks(10, bad, onePercent)
		}()
	}
	if _, ok := LeastChecksMixed(1000, 1, onePercent, 1000); ok {
		t.Error("1,000 challenges found one bad item of 2,000 with 99 %")
	}
}

func TestColluding_AsSimulated(t *testing.T) {
	if got := Colluding(200_000, 9); got != 512_000 {
		t.Errorf("nine at 20 %%: got %v want 5.12e-7, DESIGN section 8", got)
	}
	simulate(t, 100_000, Colluding(200_000, 3).Float(), map[string]float64{
		"one less": Colluding(200_000, 2).Float(), "a majority": 3*.2*.2*.8 + .2*.2*.2, "without replacement from 20": ColludingOf(20, 4, 3).Float(),
	}, func(r *rand.Rand) bool { return r.IntN(5)+r.IntN(5)+r.IntN(5) == 0 })
	simulate(t, 100_000, ColludingOf(20, 6, 3).Float(), map[string]float64{
		"with replacement": Colluding(300_000, 3).Float(), "one bad more": ColludingOf(20, 7, 3).Float(),
	}, func(r *rand.Rand) bool {
		in := sample(r, 20, 3)
		n := 0
		for _, bad := range in[:6] {
			if bad {
				n++
			}
		}
		return n == 3
	})
	for _, c := range []struct {
		allowed Chance
		want    uint32
	}{{Certain / 100, 2}, {Certain/100 - 1, 3}, {Certain / 1000, 3}, {Certain, 0}} {
		if n, ok := LeastCommittee(100_000, c.allowed, 9); !ok || n != c.want {
			t.Errorf("allowed %v: got %d, %v want %d", c.allowed, n, ok, c.want)
		}
	}
	if _, ok := LeastCommittee(500_000, 1, 9); ok {
		t.Error("nine of a half reached 10^-12")
	}
}

func TestScheme_AsSimulated(t *testing.T) {
	s := Scheme{Items: 40, Checks: 5, Verifiers: 3, CheckPPM: 700_000, AuditPPM: 100_000, ColludingPPM: 200_000}
	mutant := func(change func(s *Scheme)) float64 {
		m := s
		change(&m)
		return m.Undetected(4).Float()
	}
	gas := 0
	trials := 60_000
	simulate(t, trials, s.Undetected(4).Float(), map[string]float64{
		"without collusion":   mutant(func(s *Scheme) { s.ColludingPPM = 0 }),
		"without the audit":   mutant(func(s *Scheme) { s.AuditPPM = 0 }),
		"challenged always":   mutant(func(s *Scheme) { s.CheckPPM = Million }),
		"a verifier less":     mutant(func(s *Scheme) { s.Verifiers-- }),
		"a check less":        mutant(func(s *Scheme) { s.Checks-- }),
		"one sample of three": 1 - .7 + .7*(.008+.992*Missed(40, 4, 15).Float()),
	}, func(r *rand.Rand) bool {
		found := false
		if r.Float64() < .7 {
			for range 3 {
				gas += 5
				found = finds(r, 40, 4, 5) && r.Float64() >= .2 || found
			}
		}
		if r.Float64() < .1 {
			gas += 40
			found = r.Float64() >= .2 || found
		}
		return !found
	})
	if got, want := float64(gas)/float64(40*trials), float64(s.OverheadPPM())/Million; math.Abs(got-want) > .005 {
		t.Errorf("overhead: got %.4f want %.4f", got, want)
	}
	for _, c := range []struct {
		s    Scheme
		want uint64
	}{
		{Scheme{Items: 10, Checks: 100, Verifiers: 2, CheckPPM: Million}, 2 * Million}, // no verifier does more than all
		{Scheme{Items: math.MaxUint64, Checks: math.MaxUint64, Verifiers: 2, CheckPPM: Million}, math.MaxUint64},
		{Scheme{Checks: 1, Verifiers: 1, CheckPPM: Million}, 0},
	} {
		if got := c.s.OverheadPPM(); got != c.want {
			t.Errorf("%+v: got an overhead of %d want %d", c.s, got, c.want)
		}
	}
	if s.Undetected(0) != Certain {
		t.Error("something was found where nothing is wrong")
	}
}

func TestStakes_AsSimulated(t *testing.T) {
	s := Stakes{Gain: 30_000, Reward: 100_000, Stake: 400_000, Value: 50_000}
	r := rand.New(rand.NewPCG(3, 4))
	const trials = 200_000
	sum := 0.0 // what cheating brought above honest work
	for range trials {
		sum += 30_000
		if r.Float64() < .05 {
			sum -= 100_000 + 400_000 + 50_000
		}
	}
	bound := 5 * 550_000 * math.Sqrt(.05*.95/trials)
	got := sum / trials
	if want := float64(s.Profit(50_000)); math.Abs(got-want) > bound {
		t.Errorf("profit: got %.0f want %.0f ± %.0f", got, want, bound)
	}
	for name, m := range map[string]Stakes{"no stake": {Gain: 30_000, Reward: 100_000, Value: 50_000}, "no reward": {Gain: 30_000, Stake: 400_000, Value: 50_000}, "no value": {Gain: 27_000, Reward: 100_000, Stake: 300_000}} {
		if math.Abs(got-float64(m.Profit(50_000))) <= bound {
			t.Errorf("%s is not told from the whole", name)
		}
	}
}

func TestStakes_TheBoundIsSharp(t *testing.T) {
	s := Stakes{Gain: 100_000_000, Reward: 100_000_000, Stake: 400_000_000}
	// 0.2 is where gain and loss are equal: one part more must be needed.
	if s.Loses(Certain / 5) {
		t.Error("cheating loses where it breaks even")
	}
	if ppm, err := s.LeastAudit(0); err != nil || ppm != 200_001 || s.Profit(ppm) >= 0 || s.Profit(ppm-1) < 0 {
		t.Errorf("least audit: got %d, %v want 200001", ppm, err)
	}
	if ppm, err := s.LeastAudit(500_000); err != nil || ppm < 400_001 || ppm > 400_002 {
		t.Errorf("least audit with half the checkers colluding: got %d, %v want 400002", ppm, err)
	}
	if ppm, err := (Stakes{Gain: 1, Stake: 1e12}).LeastAudit(0); err != nil || ppm != FloorPPM {
		t.Errorf("a tiny gain: got %d, %v want the floor", ppm, err)
	}
	if _, err := (Stakes{Gain: 10, Reward: 5, Stake: 5}).LeastAudit(0); !errors.Is(err, ErrNoAudit) {
		t.Errorf("nothing to lose: got %v", err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		s := Stakes{Gain: crowd.Credits(r.Uint64() >> r.IntN(60)), Reward: crowd.Credits(r.Uint64() >> r.IntN(60)), Value: crowd.Credits(r.Uint64() >> r.IntN(60))}
		caught := Chance(1 + r.Uint64N(uint64(Certain)))
		stake, err := s.LeastStake(caught)
		staked := s
		staked.Stake = crowd.Credits(r.Uint64())
		if again, err2 := staked.LeastStake(caught); again != stake || (err == nil) != (err2 == nil) {
			t.Fatalf("%+v caught with %v: got %v, %v want %v, %v, whatever is staked", staked, caught, again, err2, stake, err)
		}
		if err != nil {
			s.Stake = math.MaxUint64
			if s.Loses(caught) {
				t.Fatalf("%+v caught with %v: got %v, though the largest stake is enough", s, caught, err)
			}
			continue
		}
		if s.Stake = stake; !s.Loses(caught) {
			t.Fatalf("%+v caught with %v: not enough", s, caught)
		}
		if s.Stake > 0 {
			if s.Stake--; s.Loses(caught) {
				t.Fatalf("%+v caught with %v: less is enough", s, caught)
			}
		}
	}
	if _, err := s.LeastStake(0); !errors.Is(err, ErrNoAudit) {
		t.Errorf("never caught: got %v", err)
	}
	huge := Stakes{Gain: math.MaxUint64, Reward: math.MaxUint64, Stake: math.MaxUint64, Value: math.MaxUint64}
	if huge.Profit(0) != math.MaxInt64 || huge.Profit(Million) != math.MinInt64 {
		t.Error("profits beyond an int64 are not cut")
	}
}

// BOINC's bare 1/n: a host with 1,000 good results places 1,000 bad ones with
// probability 1/2. Under the floor it does not place 200.
func TestAdaptive_ALongRecordBuysNoRun(t *testing.T) {
	if got := BOINCEscapes(1000, 1000); math.Abs(got-.5) > .001 {
		t.Errorf("BOINC: got %v want a half", got)
	}
	run := func(check func(good uint64) float64, bad int) func(r *rand.Rand) bool {
		return func(r *rand.Rand) bool {
			for i := range bad {
				if r.Float64() < check(uint64(1000+i)) {
					return false
				}
			}
			return true
		}
	}
	simulate(t, 20_000, BOINCEscapes(1000, 1000), map[string]float64{"half the record": BOINCEscapes(500, 1000), "a floor": Escapes(FloorPPM, 0, 1000).Float()},
		run(func(n uint64) float64 { return 1 / float64(n) }, 1000))
	ours := func(n uint64) float64 {
		return float64(Record{HonestyPPM: 999_000, Good: n}.CheckPPM(FloorPPM)) / Million
	}
	simulate(t, 100_000, Escapes(FloorPPM, 0, 40).Float(), map[string]float64{"BOINC": BOINCEscapes(1000, 40), "one less": Escapes(FloorPPM, 0, 35).Float(), "colluding": Escapes(FloorPPM, 100_000, 40).Float()}, run(ours, 40))
	if p := Escapes(FloorPPM, 0, 200); p > Certain/10_000 {
		t.Errorf("200 bad results: got %v", p)
	}
	if p := Escapes(FloorPPM, 0, 1000); p != 1 {
		t.Errorf("1,000 bad results: got %v", p)
	}
	r := rand.New(rand.NewPCG(7, 8))
	placed, hosts := 0, 50_000
	for range hosts {
		for r.Float64() >= .05 {
			placed++
		}
	}
	if got, want := float64(placed)/float64(hosts), float64(ExpectedUndetected(FloorPPM, 0)); want != 19 || math.Abs(got-want) > 5*19.5/math.Sqrt(float64(hosts)) {
		t.Errorf("before it is caught: got %.2f want %v", got, want)
	}
	if got := ExpectedUndetected(FloorPPM, 100_000); got != 22 {
		t.Errorf("with 10 %% colluding: got %d want 22", got)
	}
	if ExpectedUndetected(FloorPPM, Million) != math.MaxUint64 {
		t.Error("nobody honest, yet something is found")
	}
}

func TestRecord_NeverBelowTheFloor(t *testing.T) {
	for _, c := range []struct {
		name  string
		r     Record
		floor uint32
		want  uint32
	}{
		{"nobody knows it", Record{}, 0, Million},
		{"newcomer", Record{HonestyPPM: 250_000, Good: 1}, 0, 750_000},
		{"ten good, doubted", Record{HonestyPPM: 700_000, Good: 10}, 0, 300_000},
		{"long record", Record{HonestyPPM: 999_999, Good: 1e6}, 0, FloorPPM},
		{"endless record", Record{HonestyPPM: 2e6, Good: math.MaxUint64}, 0, FloorPPM},
		{"honest, few results", Record{HonestyPPM: Million, Good: 4}, 0, 200_000},
		{"higher floor", Record{HonestyPPM: Million, Good: 1e6}, 100_000, 100_000},
		{"lower floor", Record{HonestyPPM: Million, Good: 1e6}, 1, FloorPPM},
		{"caught once", Record{HonestyPPM: Million, Good: 1e6, Caught: 1}, 0, Million},
	} {
		if got := c.r.CheckPPM(c.floor); got != c.want {
			t.Errorf("%s: got %d want %d", c.name, got, c.want)
		}
	}
}

func TestChance_RoundsUpAndReads(t *testing.T) {
	if got := Chance(1).And(1); got != 1 {
		t.Errorf("10^-12 squared: got %d want 1, never 0", got)
	}
	if got := FromPPM(100_000).Pow(2); got != Certain/100 {
		t.Errorf("0.1 squared: got %d want %d to the part", got, Certain/100)
	}
	if got := FromPPM(2 * Million); got != Certain {
		t.Errorf("a share of more than all: got %d want %d", got, Certain)
	}
	if Chance(3).Times(math.MaxUint64) != Certain || Chance(4).Times(1<<62) != Certain || Chance(3).Times(4) != 12 {
		t.Error("the union bound is no bound")
	}
	for c, want := range map[Chance]string{
		0: "never (1)", Certain: "always (0)", Certain / 100: "1 in 100 (0.99)", 240_000: "1 in 4.17e6 (0.99999976)",
		240_001: "1 in 4.17e6 (0.999999759)", 1: "1 in 1e12 (0.999999999999)", Certain / 2: "1 in 2 (0.5)", 333_333_333_334: "1 in 3 (0.666)",
	} {
		if got := c.String(); got != want {
			t.Errorf("%d: got %q want %q", c, got, want)
		}
	}
	for _, bad := range []float64{-.1, 1, math.NaN(), math.Inf(1), 1 - 1e-14} {
		if _, err := Allowed(bad); err == nil {
			t.Errorf("confidence %v was taken", bad)
		}
	}
	for conf, want := range map[float64]Chance{.99: 1e10, .999: 1e9, .9: 1e11, 0: Certain} {
		if got, err := Allowed(conf); err != nil || got != want {
			t.Errorf("confidence %v: got %d, %v want %d", conf, got, err, want)
		}
	}
}

// Known answers mixed into a batch find a liar with no fewer runs than a secret sample of it, against whoever gets the
// same share of what it is given wrong: what RATIONALE says of challenges recycled from other batches.
func TestMissedMixed_IsNeverCheaperThanASecretSample(t *testing.T) {
	for _, items := range []uint64{10, 20, 50, 100, 300, 1000, 10_000} {
		for _, one := range []uint64{2, 5, 10} { // of so many that it is given it gets one wrong, rounded down
			for _, allowed := range []Chance{Certain / 10, Certain / 100, Certain / 1000} {
				secret := LeastChecks(items, items/one, allowed)
				for mixed := uint64(0); mixed < secret; mixed++ {
					if bad := (items + mixed) / one; MissedMixed(items, bad, mixed) <= allowed {
						t.Errorf("%d items, 1 of %d wrong, %v: %d secret checks, %d are enough mixed in", items, one, allowed, secret, mixed)
					}
				}
			}
		}
	}
}
