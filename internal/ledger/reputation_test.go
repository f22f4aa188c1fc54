package ledger

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
)

const day = 86_400_000

func TestHalvings_AreTheRootsOfAHalf(t *testing.T) {
	root := new(big.Float).SetPrec(400).SetInt64(0)
	root.SetMantExp(big.NewFloat(1), -1)
	root.SetPrec(400)
	for i, got := range halvings {
		root.Sqrt(root)
		want, _ := new(big.Float).SetMantExp(root, 64).Int(nil)
		if want.Uint64() != got {
			t.Errorf("2^(-2^-%d): got %#x want %#x", i+1, got, want.Uint64())
		}
	}
}

func TestHalved_WithinItsBoundAndFalling(t *testing.T) {
	if got := halved(0); got != 1<<63 {
		t.Fatalf("2^0: got %#x want exactly one", got)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 200_000 {
		x := rng.Uint32N(1<<phaseBits - 1)
		if i < 1000 {
			x = uint32(i)
		}
		a, b := halved(x), halved(x+1)
		if a <= b {
			t.Fatalf("got %d at %d and %d after it, want less", a, x, b)
		}
		want := math.Exp2(63 - float64(x)/(1<<phaseBits))
		if rel := math.Abs(float64(a)-want) / want; rel > 1e-15 { // what a float can tell
			t.Fatalf("at %d: got an error of %g", x, rel)
		}
	}
}

// The reference is a sum in floats over all that was ever added.
func TestFading_EqualsTheSumOverAllAges(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		half := int64(1 + rng.Uint64N(200*day))
		var sum uint64
		var at crowd.Time
		type item struct {
			x  uint64
			at crowd.Time
		}
		var items []item
		now := crowd.Time(rng.Uint64N(1 << 41))
		for range 1 + rng.IntN(100) {
			now += crowd.Time(rng.Uint64N(uint64(half)/4 + 1))
			sum, at = forward(sum, at, now, half), now
			x := uint64(1e6) * rng.Uint64N(1e7)
			sum = added(sum, x, now, half)
			items = append(items, item{x, now})
		}
		now += crowd.Time(rng.Uint64N(uint64(half) * 3))
		want := 0.0
		for _, i := range items {
			want += float64(i.x) * math.Exp2(-float64(now-i.at)/float64(half))
		}
		got := float64(faded(forward(sum, at, now, half), now, half))
		if math.Abs(got-want) > 1.0e-7*want+4*float64(len(items)) {
			t.Fatalf("half-life %d: got %.0f want %.0f", half, got, want)
		}
	}
}

// Looking in between changes nothing, not even the last bit.
func TestFading_InStepsIsAtOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		half := int64(1 + rng.Uint64N(1<<uint(1+rng.IntN(36))))
		from := crowd.Time(rng.Uint64N(1 << 41))
		sum := rng.Uint64N(maxFading)
		to := from
		steps := sum
		for range rng.IntN(50) {
			next := to + crowd.Time(rng.Uint64N(uint64(half)))
			steps = forward(steps, to, next, half)
			to = next
		}
		once := forward(sum, from, to, half)
		if once != steps || faded(once, to, half) != faded(steps, to, half) {
			t.Fatalf("half-life %d from %d to %d: got %d in steps, %d at once", half, from, to, steps, once)
		}
	}
}

func testimony(rng *rand.Rand) (f bool, d uint32) { return rng.IntN(3) > 0, rng.Uint32N(1e6 + 1) }

func TestReputation_OrderOfOneMomentDoesNotMatter(t *testing.T) {
	p := mainReputation()
	rng := rand.New(rand.NewPCG(7, 8))
	for range 200 {
		var past Reputation
		for i := range rng.IntN(20) {
			f, d := testimony(rng)
			past.evidence(&p, f, d, crowd.Time(1.7e12)+crowd.Time(i)*day)
		}
		now := past.At + crowd.Time(rng.Uint64N(400*day))
		a, b := past, past
		n := 2 + rng.IntN(20)
		fs, ds := make([]bool, n), make([]uint32, n)
		for i := range n {
			fs[i], ds[i] = testimony(rng)
			a.evidence(&p, fs[i], ds[i], now)
			a.availability(&p, fs[i], ds[i], now)
		}
		for _, i := range rng.Perm(n) {
			b.availability(&p, fs[i], ds[i], now)
			b.evidence(&p, fs[i], ds[i], now)
		}
		if a != b {
			t.Fatalf("got %+v and %+v", a, b)
		}
	}
}

func TestReputation_ScoresAreMonotone(t *testing.T) {
	p := mainReputation()
	rng := rand.New(rand.NewPCG(9, 10))
	for range 300 {
		var r Reputation
		now := crowd.Time(1.7e12)
		for range rng.IntN(40) {
			now += crowd.Time(rng.Uint64N(30 * day))
			f, d := testimony(rng)
			r.evidence(&p, f, d, now)
			r.availability(&p, f, d, now)
		}
		h, a := r.Honesty(&p, now), r.Availability(&p, now)
		_, d := testimony(rng)
		good, bad := r, r
		good.evidence(&p, true, d, now)
		bad.evidence(&p, false, d, now)
		if g, b := good.Honesty(&p, now), bad.Honesty(&p, now); g < h || b > h || bad.Availability(&p, now) != a || good.Availability(&p, now) != a {
			t.Fatalf("honesty: got %d after a success, %d after a failure, before %d", g, b, h)
		}
		good, bad = r, r
		good.availability(&p, true, d, now)
		bad.availability(&p, false, d, now)
		if g, b := good.Availability(&p, now), bad.Availability(&p, now); g < a || b > a || bad.Honesty(&p, now) != h || good.Honesty(&p, now) != h {
			t.Fatalf("availability: got %d after being there, %d after being away, before %d", g, b, a)
		}
	}
	var clean Reputation // what is all good fades, and never below where a newcomer begins
	for range 50 {
		clean.evidence(&p, true, 1e6, 1.7e12)
	}
	last := clean.Honesty(&p, 1.7e12)
	for i := range 4000 {
		h := clean.Honesty(&p, 1.7e12+crowd.Time(i)*day/7)
		if h > last || h < 250_000 {
			t.Fatalf("after %d sevenths of a day: got %d after %d", i, h, last)
		}
		last = h
	}
}

// The paper's rule, rep = mean f, is a setting of ours.
func TestReputation_ThePapersRuleIsTheMeanOfF(t *testing.T) {
	p := ReputationParams{FailFactor: 1, FullBurn: 1, MinDifficulty: 1e6}
	if err := p.validate(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(11, 12))
	for range 50 {
		var r Reputation
		passed, n := uint64(0), uint64(0)
		now := crowd.Time(0)
		for range 300 {
			now += crowd.Time(rng.Uint64N(400 * day))
			f, d := testimony(rng)
			r.evidence(&p, f, d, now)
			if n++; f {
				passed++
			}
			if got, want := r.Honesty(&p, now+1000*day), uint32(passed*1_000_000/n); got != want {
				t.Fatalf("%d of %d: got %d ppm want %d", passed, n, got, want)
			}
		}
	}
}

func TestReputation_OneFailureOutweighsManySuccesses(t *testing.T) {
	p := mainReputation()
	var r Reputation
	now := crowd.Time(1.7e12)
	if got := r.Honesty(&p, now); got != 250_000 {
		t.Errorf("newcomer: got %d want 1/4", got)
	}
	for range 26 {
		r.evidence(&p, true, 1e6, now)
	}
	if got := r.Honesty(&p, now); got < 899_990 || got > 900_010 {
		t.Errorf("after 26 jobs: got %d want 27/30", got)
	}
	r.evidence(&p, false, 0, now)
	if got := r.Honesty(&p, now); got < 674_990 || got > 675_010 {
		t.Errorf("after a failure: got %d want 27/40", got)
	}
	if got := r.Honesty(&p, now+30*day); got < 540_345 || got > 540_360 { // 14/(14+3+10·2^(-1/6))
		t.Errorf("30 days later: got %d, want the successes halved and the failure nearly whole", got)
	}
}

func TestReputation_NoSumOverflows(t *testing.T) {
	if got := added(maxFading, maxFading, 1, 3); got != maxFading {
		t.Errorf("got %d want the sum to stay at %d", got, maxFading)
	}
	p := mainReputation()
	p.FailFactor = 1000
	r := Reputation{Passed: maxFading, Failed: maxFading, Up: maxFading, Down: maxFading}
	for i := range 100 {
		now := crowd.Time(i) * 12345
		r.evidence(&p, true, 1e6, now)
		r.evidence(&p, false, 1e6, now)
		if h := r.Honesty(&p, now); h < 490_000 || h > 510_000 {
			t.Fatalf("step %d: got %d want about a half", i, h)
		}
	}
}

// set gives a node a record as if it had long been there.
func (w *world) set(node crowd.NodeID, f func(*Reputation)) {
	k := begin(w.s, Block{Height: w.height, Time: w.now})
	k.reputation(node.Address(), f)
	if p, ok := k.provider(node); ok {
		k.putProvider(p)
	}
	w.s = k.seal()
}

// veteran has passed enough to be no newcomer.
func veteran(passed, failed, down uint64) func(*Reputation) {
	return func(r *Reputation) { r.Dues, r.Passed, r.Failed, r.Down = 1e9, passed, failed, down }
}

// play lets the places of a job in Running do it, and its owner accept.
func (w *world) play(id crowd.JobID, o crowd.Outcome) Job {
	w.t.Helper()
	places := w.in(id, Running).Places
	for _, p := range places {
		w.commit(w.keyOf(p.Node), id, o)
	}
	for _, p := range places {
		w.reveal(w.keyOf(p.Node), id, o)
	}
	w.must(w.owner, &Accept{Job: id})
	return w.in(id, Settled)
}

func TestEvidence_FromAgreementAndCourt(t *testing.T) {
	w := newWorld(t, 1, 2)
	j := w.play(w.drawn(testSpec(), w.providers...), right)
	p := w.s.Params()
	d := uint32(uint64(crowd.ReferencePrice.Cost(right.Gas).PPM(p.BurnPPM)) * 1e6 / uint64(p.Reputation.FullBurn))
	for _, pl := range j.Places {
		st := w.s.Standing(pl.Node.Address(), w.now)
		if st.Reputation.Dues != uint64(d) {
			t.Errorf("dues: got %d want %d", st.Reputation.Dues, d)
		}
		if len(st.Evidence) != 1 || st.Evidence[0] != (Evidence{Job: j.ID, Passed: true, Difficulty: d, Height: w.height}) {
			t.Fatalf("got %+v want a success of difficulty %d", st.Evidence, d)
		}
		if a := st.Availability; st.Honesty <= 250_000 || a < 677_000 || a > 678_000 || !st.Newcomer || st.Tombstoned { // (1+1+0.1)/(2+1+0.1)
			t.Errorf("got %+v want both scores to have risen", st)
		}
	}
	id := w.drawn(testSpec(), w.providers...)
	liar, honest := w.providers[0], w.providers[1]
	w.commit(liar, id, wrong)
	w.commit(honest, id, right)
	w.reveal(liar, id, wrong)
	w.reveal(honest, id, right)
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	w.must(w.owner, &Accept{Job: id})
	st := w.s.Standing(liar.ID().Address(), w.now)
	if n := len(st.Evidence); n != 2 || st.Evidence[1].Passed || st.Evidence[1].Job != id || st.Evidence[1].Difficulty != 200_000 { // by the limit, 1 credit
		t.Errorf("liar: got evidence %+v want the fraud last", st.Evidence)
	}
	if st.Honesty >= 100_000 || !st.Tombstoned || st.Reputation.Caught != 1 {
		t.Errorf("liar: got %+v", st)
	}
	if st := w.s.Standing(honest.ID().Address(), w.now); len(st.Evidence) != 2 || !st.Evidence[1].Passed {
		t.Errorf("honest: got evidence %+v", st.Evidence)
	}
	raw, proof := w.s.Prove(EvidenceKey(honest.ID().Address()))
	if err := VerifyProof(w.s.Root(), EvidenceKey(honest.ID().Address()), raw, proof); err != nil || raw == nil {
		t.Errorf("proof of the evidence: %v", err)
	}
}

// All that a verifier's sample checks must be right, for the executor as for the verifiers.
func TestEvidence_FromSamples(t *testing.T) {
	dear := func(g *Genesis) { g.Params.Reputation.FullBurn = 30 } // what the executor's 1.5 mega-gas burn
	always := func(uint32) bool { return true }
	w := newWorld(t, 1, 5, dear)
	id, seated, _, _ := w.opened(never, never, never)
	w.must(w.owner, &Accept{Job: id})
	if e := w.s.Evidence(seated[0].ID().Address()); len(e) != 1 || !e[0].Passed || e[0].Difficulty != 1e6 {
		t.Errorf("executor: got %+v want a success", e)
	}
	if e := w.s.Evidence(seated[1].ID().Address()); len(e) != 0 { // 33 micro-credits, of which nothing is burned
		t.Errorf("verifier: got %+v want none of a job too small to weigh", e)
	}

	w = newWorld(t, 1, 5, dear)
	id, seated, leaves, tree := w.opened(always, never, never)
	w.must(w.owner, w.conflict(id, seated[1].ID(), leaves, tree))
	d := w.job(id).Dispute
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatItem, Item: d.Item, Leaf: leafOf(d.Item, false).Hash()})
	w.in(id, Failed)
	if e := w.s.Evidence(seated[0].ID().Address()); len(e) != 1 || e[0].Passed {
		t.Errorf("liar: got %+v want a failure", e)
	}
	if h := w.s.Standing(seated[1].ID().Address(), w.now).Honesty; h != 250_000 {
		t.Errorf("verifier: got honesty %d want a newcomer's", h)
	}
}

// A verifier may wait for the executor's leaves; an executor has nothing to wait for.
func TestAvailability_AVerifierThatWaitsIsThere(t *testing.T) {
	w := newWorld(t, 1, 5)
	id, seated := w.sampled(sampleSpec())
	_, _, out := sampleWork(t, never)
	openings := []Opening{{Outcome: out}}
	for _, k := range seated[1:] {
		openings = append(openings, w.answers(k, id, never))
	}
	for i, k := range seated {
		w.commitOpening(k, id, openings[i])
	}
	before := w.s.Standing(seated[1].ID().Address(), w.now).Availability
	w.wait(w.s.Params().RevealWindow)
	w.in(id, Unsealing)
	if got := w.s.Standing(seated[1].ID().Address(), w.now).Availability; got != before {
		t.Errorf("verifier: got %d want still %d", got, before)
	}
	if got := w.s.Standing(seated[0].ID().Address(), w.now).Availability; got >= before {
		t.Errorf("executor: got %d want less than %d", got, before)
	}
}

func TestEvidence_OnlyTheNewestAreKept(t *testing.T) {
	w := newWorld(t, 1, 2)
	k := begin(w.s, Block{Height: 1, Time: w.now})
	for i := range 100 {
		k.evidence(w.owner.ID(), crowd.JobID{byte(i)}, true, 1)
	}
	e := k.seal().Evidence(w.owner.ID().Address())
	if len(e) != maxEvidence || e[0].Job != (crowd.JobID{100 - maxEvidence}) || e[maxEvidence-1].Job != (crowd.JobID{99}) {
		t.Errorf("got %d entries %v to %v", len(e), e[0].Job.Short(), e[len(e)-1].Job.Short())
	}
}

// Nobody's word is evidence of honesty: neither an owner's nor a missing result.
func TestEvidence_NotFromOwnersNorCrashes(t *testing.T) {
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	w.must(w.providers[0], &GiveUp{Job: id, Reason: CannotRun})
	w.wait(20_001)
	w.in(id, Failed) // that was nobody's fault, for all that is known
	id = w.drawn(testSpec(), w.providers...)
	for _, k := range w.providers {
		w.commit(k, id, right)
	}
	for _, k := range w.providers {
		w.reveal(k, id, right)
	}
	w.must(w.owner, &Complain{Job: id})
	w.must(w.authorities[0], &Vote{Job: id, Question: Retrievable})
	w.in(id, Failed)
	for _, k := range w.providers {
		st := w.s.Standing(k.ID().Address(), w.now)
		if len(st.Evidence) != 0 || st.Honesty != 250_000 {
			t.Errorf("honesty: got %d of %v want a newcomer's", st.Honesty, st.Evidence)
		}
		if st.Availability >= 400_000 || st.Reputation.Faults != 1 {
			t.Errorf("availability: got %d, %d faults want one fault to show", st.Availability, st.Reputation.Faults)
		}
	}
}

func TestAvailability_Moves(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world) crowd.NodeID
		up   bool
	}{
		{"claiming", func(w *world) crowd.NodeID { w.drawn(testSpec(), w.providers[0]); return w.providers[0].ID() }, true},
		{"missing a certain draw", func(w *world) crowd.NodeID {
			w.drawn(testSpec(), w.providers[1:]...)
			w.wait(w.s.Params().ClaimWindow)
			return w.providers[0].ID()
		}, false},
		{"missing the deadline", func(w *world) crowd.NodeID {
			id := w.drawn(testSpec(), w.providers...)
			w.commit(w.keyOf(w.job(id).Places[1].Node), id, right)
			w.wait(20_001)
			j := w.finish(id)
			return j.Places[0].Node
		}, false},
		{"not revealing", func(w *world) crowd.NodeID {
			j := w.in(w.drawn(testSpec(), w.providers...), Running)
			for _, p := range j.Places {
				w.commit(w.keyOf(p.Node), j.ID, right)
			}
			w.wait(w.s.Params().RevealWindow)
			return j.Places[0].Node
		}, false},
		{"a settled job", func(w *world) crowd.NodeID { return w.play(w.drawn(testSpec(), w.providers...), right).Places[0].Node }, true},
	} {
		w := newWorld(t, 1, 3)
		node := c.do(w)
		if got := w.s.Standing(node.Address(), w.now).Availability; got > 500_000 != c.up || got == 500_000 {
			t.Errorf("%s: got %d from 500000", c.name, got)
		}
	}
	w := newWorld(t, 1, 2)
	id := w.drawn(testSpec(), w.providers...)
	w.must(w.providers[0], &GiveUp{Job: id, Reason: CannotRun})
	w.finish(id)
	p := w.s.Params().Reputation
	now, later := w.s.Reputation(w.providers[0].ID().Address()), w.now+7*day
	then := now
	then.forward(&p, later)
	for _, sum := range [][2]uint64{{now.Up, then.Up}, {now.Down, then.Down}} {
		before, after := faded(sum[0], now.At, p.UpHalf), faded(sum[1], later, p.UpHalf)
		if before == 0 || after < before/2-1000 || after > before/2+1000 {
			t.Errorf("after 7 days: got %d of %d want half", after, before)
		}
	}
}

func TestConsumer_Counters(t *testing.T) {
	w := newWorld(t, 1, 2)
	score := func() Consumer { return w.s.Reputation(w.owner.ID().Address()).Consumer }
	w.play(w.drawn(testSpec(), w.providers...), right)
	w.must(w.owner, &Cancel{Job: w.post(testSpec())}) // before anybody worked
	if got := score(); got != (Consumer{Paid: 1}) {
		t.Errorf("got %+v want one job paid", got)
	}
	w.must(w.owner, &Cancel{Job: w.drawn(testSpec(), w.providers...)})
	if got := score(); got != (Consumer{Paid: 1, Cancelled: 1}) {
		t.Errorf("got %+v want a cancelled job", got)
	}
	delivering := func() crowd.JobID {
		id := w.drawn(testSpec(), w.providers...)
		for _, k := range w.providers {
			w.commit(k, id, right)
		}
		for _, k := range w.providers {
			w.reveal(k, id, right)
		}
		return id
	}
	for _, yes := range []bool{true, false} {
		id := delivering()
		w.must(w.owner, &Complain{Job: id})
		w.must(w.authorities[0], &Vote{Job: id, Question: Retrievable, Yes: yes})
	}
	if got := score(); got != (Consumer{Paid: 2, Cancelled: 1, Unfounded: 1}) {
		t.Errorf("got %+v want one unfounded complaint of two", got)
	}
	id := delivering()
	w.wait(w.s.Params().DeliveryWindow)
	w.must(w.authorities[0], &Vote{Job: id, Question: Retrievable, Yes: true})
	if got := score(); got != (Consumer{Paid: 3, Cancelled: 1, Unfounded: 1, Silent: 1}) {
		t.Errorf("got %+v want a silent owner", got)
	}
	if got := w.s.Standing(w.owner.ID().Address(), w.now).Consumer; got != 4*1_000_000/8 {
		t.Errorf("score: got %d want 4/8", got)
	}
	if got := w.s.Standing(w.owner.ID().Address(), w.now).Honesty; got != 250_000 {
		t.Errorf("an executor's score moved to %d by what its owner did as a consumer", got)
	}
}

func TestTickets_FollowTheRecord(t *testing.T) {
	p := MainParams()
	now := crowd.Time(1.7e12)
	weight := func(f func(*Reputation)) uint32 {
		r := Reputation{At: now}
		f(&r)
		return r.Weight(&p.Reputation, now)
	}
	job := uint64(1e12)
	fresh := weight(func(*Reputation) {})
	last := fresh
	for _, c := range []struct {
		name string
		f    func(*Reputation)
	}{
		{"ten failures, always away", veteran(0, 100*job, 1000*job)},
		{"away half of the time", veteran(20*job, 0, 20*job)},
		{"20 jobs", veteran(20*job, 0, 0)},
		{"200 jobs", func(r *Reputation) { veteran(200*job, 0, 0)(r); r.Up = 200 * job }},
	} {
		got := weight(c.f)
		if got <= last || got > 1e6 {
			t.Errorf("%s: got weight %d want more than %d, at most 1e6", c.name, got, last)
		}
		last = got
	}
	for _, c := range []struct {
		stake  crowd.Credits
		weight uint32
		want   uint32
	}{{100, 1e6, 100}, {100, 1e5, 10}, {105, 1e5, 11}, {1e9, 1e6, 1000}, {1e9, 1e5, 100}, {0, 1e6, 0}} {
		if got := p.Tickets(&Provider{Stake: c.stake * crowd.Credit, Weight: c.weight}, false); got != c.want {
			t.Errorf("stake %d, weight %d: got %d tickets want %d", c.stake, c.weight, got, c.want)
		}
	}
}

// A proven record decides the draw of the whole ledger, not only a formula.
func TestDraw_ByReputation(t *testing.T) {
	w := newWorld(t, 1, 3)
	good, bad := w.providers[0], w.providers[1]
	w.set(good.ID(), func(r *Reputation) { veteran(500e12, 0, 0)(r); r.Up = 500e12 })
	w.set(bad.ID(), veteran(0, 500e12, 500e12))
	spec := testSpec()
	spec.Task.Limits.Wall, spec.Task.Limits.Gas = time.Minute, 2e9 // no small job
	j := w.job(w.drawn(spec))
	m := w.claimMsg(good, j.ID)
	w.must(m.k, m.m)
	m = w.claimMsg(bad, j.ID)
	w.must(m.k, m.m)
	m = w.claimMsg(w.providers[2], j.ID)
	w.must(m.k, m.m)
	want := map[crowd.NodeID]uint32{good.ID(): 100, bad.ID(): 26, w.providers[2].ID(): 10}
	total := uint64(0)
	for _, d := range w.job(j.ID).Drawn {
		if d.Tickets != want[d.Node] {
			t.Errorf("%s: got %d tickets want %d", d.Node.Short(), d.Tickets, want[d.Node])
		}
		total += uint64(d.Tickets)
	}
	if j.Tickets != total || j.Favoured || j.Open != 1e6 {
		t.Errorf("got %d tickets in all, want %d; favoured %v, open %d", j.Tickets, total, j.Favoured, j.Open)
	}
}

func TestDraw_NewcomersAreFavouredInSmallJobs(t *testing.T) {
	p := MainParams()
	spec := testSpec()
	n := 0
	for i := range 20_000 {
		if p.Favours(&Job{Spec: spec, ID: crowd.JobID{byte(i), byte(i >> 8)}}, crowd.Hash{7}) {
			n++
		}
	}
	if n < 1850 || n > 2150 { // 3.5 standard deviations
		t.Errorf("got %d of 20000 small jobs want a tenth", n)
	}
	w := newWorld(t, 1, 3)
	old := w.providers[0]
	w.set(old.ID(), veteran(0, 500e12, 500e12))
	spec.Task.Limits.Gas = 1e9 + 1
	for i := range byte(100) {
		if p.Favours(&Job{Spec: spec}, crowd.Hash{i}) {
			t.Fatal("a large job favours newcomers")
		}
	}
	for seen := map[bool]bool{}; len(seen) < 2; {
		id := w.drawn(testSpec(), w.providers...)
		j := w.in(id, Running)
		want := map[bool]uint32{false: 10, true: 100}[j.Favoured]
		for _, d := range j.Drawn {
			if d.Node != old.ID() && d.Tickets != want || d.Node == old.ID() && d.Tickets != 26 {
				t.Fatalf("favoured %v: got %d tickets", j.Favoured, d.Tickets)
			}
		}
		if want := uint64(26 + 2*want); j.Tickets != want {
			t.Fatalf("favoured %v: got %d tickets in all want %d", j.Favoured, j.Tickets, want)
		}
		seen[j.Favoured] = true
		w.must(w.owner, &Cancel{Job: id})
	}
}

// Who takes places and gives them up is drawn less and less, and never not at all.
func TestDraw_WhoNeverDeliversLosesItsShare(t *testing.T) {
	w := newWorld(t, 1, 4)
	lazy := w.providers[0].ID()
	all := crowd.Outcome{Status: crowd.Exited, Gas: 1e9, Result: "bafyright"}
	share := func(j Job) (of float64) {
		for _, d := range j.Drawn {
			if d.Node == lazy {
				of = float64(d.Tickets) / float64(j.Tickets)
			}
		}
		return of
	}
	var first, last float64
	for i := range 40 {
		id := w.drawn(testSpec(), w.providers...)
		j := w.in(id, Running)
		if i == 0 {
			first = share(j)
		} else if !j.Favoured {
			last = share(j)
		}
		if j.Place(lazy) != nil {
			w.must(w.keyOf(lazy), &GiveUp{Job: id, Reason: CannotRun})
		}
		var at []crowd.NodeID
		for _, p := range w.job(id).Places {
			if p.State == Working {
				at = append(at, p.Node)
				w.commit(w.keyOf(p.Node), id, all)
			}
		}
		for _, n := range at {
			w.reveal(w.keyOf(n), id, all)
		}
		w.must(w.owner, &Accept{Job: id})
	}
	if first != 0.25 || last > 0.1 || last == 0 {
		t.Errorf("got %.3f of the tickets at first and %.3f after 40 jobs want a quarter, then less than a tenth", first, last)
	}
}

func TestReputation_NoRecordPanics(t *testing.T) {
	p := mainReputation()
	for _, r := range []Reputation{
		{Passed: ^uint64(0), Failed: ^uint64(0), Up: ^uint64(0), Down: ^uint64(0), At: -1},
		{Passed: 1 << 63, Failed: 1<<63 - 4e12 + 1, Up: 1 << 63, Down: 1<<63 - 2e12 + 1}, // whose sum wraps round to 1
	} {
		if h, a := r.Honesty(&p, 0), r.Availability(&p, 0); h > 1e6 || a > 1e6 {
			t.Errorf("got %d and %d", h, a)
		}
	}
}

// A fresh identity with the same stake may expect fewer tickets than the worst record that is alive.
func TestWhitewashing_DoesNotPay(t *testing.T) {
	for name, p := range map[string]Params{"main": MainParams(), "dev": DevParams()} {
		worst := Reputation{Dues: p.Reputation.Dues, Failed: maxFading, Down: maxFading}
		for stake := p.MinStake; stake <= 2000*crowd.Credit; stake += crowd.Credit / 2 {
			fresh := Provider{Stake: stake, Weight: p.Reputation.NewcomerPPM, Newcomer: true}
			bad := Provider{Stake: stake, Weight: worst.Weight(&p.Reputation, 0)}
			lane := float64(p.Reputation.FavourPPM) / 1e6
			expect := (1-lane)*float64(p.Tickets(&fresh, false)) + lane*float64(p.Tickets(&fresh, true))
			if old := float64(p.Tickets(&bad, false)); expect > old {
				t.Fatalf("%s, stake %s: got %.2f tickets for a fresh identity, %.2f for the worst record", name, stake, expect, old)
			}
		}
		p.Reputation.NewcomerPPM = p.Reputation.FloorPPM
		if err := p.Validate(); err == nil {
			t.Errorf("%s: parameters under which whitewashing pays are valid", name)
		}
	}
	// And a record follows its identity through leaving and coming back.
	w := newWorld(t, 1, 2)
	k := w.providers[0]
	w.set(k.ID(), veteran(0, 500e12, 500e12))
	w.must(k, &Leave{})
	w.wait(w.s.Params().Unbonding)
	w.must(k, &Leave{})
	w.must(k, &Register{VRF: k.VRF().Public(), Offer: Offer{Price: 1}, Stake: 100 * crowd.Credit})
	if p, _ := w.s.Provider(k.ID().Address()); p.Newcomer || p.Weight > 260_000 {
		t.Errorf("came back as %+v want the old record", p)
	}
}

// A ring that is consumer and executors in one can buy honesty only by burning,
// and only at the rate of the share of the lot that it left to chance.
func TestWashTrading_BoundedByWhatIsBurned(t *testing.T) {
	for name, change := range map[string]func(w *world, s *crowd.JobSpec){
		"names its own nodes": func(w *world, s *crowd.JobSpec) {
			for _, k := range w.providers[:2] {
				s.Filters.Providers = append(s.Filters.Providers, k.ID())
			}
		},
		"a tag of its own": func(_ *world, s *crowd.JobSpec) { s.Filters.Tags = []string{"ring"} },
		"a price that nobody else takes": func(_ *world, s *crowd.JobSpec) {
			s.Filters.MaxPrice = 1
		},
		"dear, little gas, a tag": func(_ *world, s *crowd.JobSpec) {
			s.Filters.MaxPrice, s.Filters.Tags, s.Budget = 10*crowd.ReferencePrice, []string{"ring"}, 100*crowd.Credit
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, 20, func(g *Genesis) {
				for i := 1; i <= 2; i++ {
					g.Grants[i].Offer.Tags = []string{"ring"}
					g.Grants[i].Offer.Price = 1
					if name == "dear, little gas, a tag" {
						g.Grants[i].Offer.Price = 10 * crowd.ReferencePrice
					}
				}
			})
			ring := w.providers[:2]
			burned := w.s.Supply().Burned
			const jobs = 12
			for range jobs {
				spec := testSpec()
				change(w, &spec)
				id := w.drawn(spec, ring...)
				if j := w.in(id, Running); j.Open != 100_000 {
					t.Fatalf("got %d ppm of the lot open want 2 of 20 providers", j.Open)
				}
				w.play(id, right)
			}
			burned = w.s.Supply().Burned - burned
			p := w.s.Params()
			gained := uint64(0)
			for _, k := range ring {
				r := w.s.Reputation(k.ID().Address())
				gained += faded(r.Passed, r.At, p.Reputation.PassHalf)
			}
			if gained == 0 && name != "a price that nobody else takes" {
				t.Error("nothing was gained, so that this shows nothing")
			}
			for _, k := range ring {
				if p, _ := w.s.Provider(k.ID().Address()); !p.Newcomer {
					t.Errorf("%d jobs for itself and its dues are paid", jobs)
				}
			}
			bound := 1e12 * float64(burned) / float64(p.Reputation.FullBurn) * 0.1
			if float64(gained) > bound {
				t.Errorf("got %.4f jobs of honesty for %s burned want at most %.4f", float64(gained)/1e12, burned, bound/1e12)
			}
		})
	}
}

// The work of a court that a silent executor forced is paid, not by stakes and not beyond the escrow.
func TestCourt_IsPaidWhereNobodyCheated(t *testing.T) {
	w := newWorld(t, 1, 2) // where there is a cheater, its stake pays, and only once
	id := w.drawn(testSpec(), w.providers...)
	for i, k := range w.providers {
		w.commit(k, id, []crowd.Outcome{right, wrong}[i])
	}
	for i, k := range w.providers {
		w.reveal(k, id, []crowd.Outcome{right, wrong}[i])
	}
	had := w.balance(w.authorities[0].ID())
	w.must(w.authorities[0], &Vote{Job: id, Question: WhatOutcome, Outcome: right})
	w.must(w.owner, &Accept{Job: id})
	if got, want := w.balance(w.authorities[0].ID())-had, crowd.ReferencePrice.Cost(right.Gas); got != want {
		t.Errorf("where somebody cheated: got %s want %s", got, want)
	}
	for _, settled := range []bool{true, false} {
		t.Run(fmt.Sprint(settled), func(t *testing.T) {
			w := newWorld(t, 4, 2)
			owner := w.balance(w.owner.ID())
			id := w.drawn(testSpec(), w.providers...)
			silent, honest := w.providers[0], w.providers[1]
			w.commit(honest, id, right)
			w.wait(20_001)
			if j := w.job(id); j.Place(silent.ID()).State != Dropped {
				t.Fatal("the silent executor still has its place")
			}
			w.reveal(honest, id, right)
			had := w.balance(w.authorities[0].ID())
			wrongly := w.balance(w.authorities[3].ID())
			w.must(w.authorities[3], &Vote{Job: id, Question: WhatOutcome, Outcome: wrong})
			for _, a := range w.authorities[:3] {
				w.must(a, &Vote{Job: id, Question: WhatOutcome, Outcome: right})
			}
			cost := crowd.ReferencePrice.Cost(right.Gas)
			if got, want := w.balance(w.authorities[0].ID())-had, cost/3; got != want {
				t.Errorf("an authority on the verdict: got %s want %s", got, want)
			}
			if got := w.balance(w.authorities[3].ID()); got != wrongly {
				t.Errorf("an authority with another outcome: got %s want nothing", got-wrongly)
			}
			fees := w.s.Params().TxFee
			want := cost/3*3 + fees + w.job(id).Duties
			if settled {
				w.must(w.owner, &Accept{Job: id})
				want += cost + fees
			} else { // the result is lost: the court did its work all the same
				w.must(w.owner, &Complain{Job: id})
				for _, a := range w.authorities[:3] {
					w.must(a, &Vote{Job: id, Question: Retrievable})
				}
				w.in(id, Failed)
				want += fees
			}
			if got := owner - w.balance(w.owner.ID()); got != want {
				t.Errorf("owner: paid %s want %s", got, want)
			}
			for _, k := range w.providers {
				if got := w.stake(k.ID()); got != 100*crowd.Credit {
					t.Errorf("a stake where nothing was proven: got %s", got)
				}
			}
		})
	}
}

func TestFee_GrowsWithSizeAndRetention(t *testing.T) {
	p := MainParams()
	k := key(t, 1)
	tx := func(m Message) Tx {
		x, err := Open("chain", Sign(k, "chain", 0, m))
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	small, big := testSpec(), testSpec()
	big.Task.Args = make([]string, 200)
	for i := range big.Task.Args {
		big.Task.Args[i] = string(make([]byte, 300))
	}
	transfer, post, bulk := p.Fee(tx(&Transfer{})), p.Fee(tx(&Post{Spec: small})), p.Fee(tx(&Post{Spec: big}))
	if transfer < p.TxFee || transfer > 2*p.TxFee || post > 20*p.TxFee {
		t.Errorf("small ones: got %s for a transfer, %s for a post", transfer, post)
	}
	size := crowd.Credits(tx(&Post{Spec: big}).size)
	if want := size * (p.SizeFee + 30*p.KeepFee) / 1024; bulk < want || size < 60_000 {
		t.Errorf("a post of %d bytes that stays 30 days: got %s want at least %s", size, bulk, want)
	}
	p.Retention /= 30
	if day := p.Fee(tx(&Post{Spec: big})); day >= bulk/3 {
		t.Errorf("for a day: got %s, for 30 %s", day, bulk)
	}
	if transfer != p.Fee(tx(&Transfer{})) {
		t.Error("a transfer stays in no record and pays for its retention")
	}
	p.Retention, p.SizeFee, p.KeepFee = math.MaxInt64, crowd.Credit, crowd.Credit
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	if got, least := p.Fee(tx(&Post{Spec: big})), 36_000*60*crowd.Credit; got < least || got > 2*least {
		t.Errorf("for ever, at a credit: got %s want about %s", got, least)
	}
	p.TxFee = ^crowd.Credits(0)
	if got := p.Fee(tx(&Post{Spec: big})); got != ^crowd.Credits(0) {
		t.Errorf("got %s want the fee to saturate", got)
	}

	w := newWorld(t, 1, 2, func(g *Genesis) { g.Params.SizeFee, g.Params.KeepFee = 100, 20 })
	had, burned := w.balance(w.owner.ID()), w.s.Supply().Burned
	m := &Post{Spec: big}
	raw, err := Open(w.chain, Sign(w.owner, w.chain, 0, m))
	if err != nil {
		t.Fatal(err)
	}
	w.block(signed{w.owner, m})
	if got, want := w.s.Supply().Burned-burned, w.s.Params().Fee(raw); got != want || want < 60*w.s.Params().TxFee || had-w.balance(w.owner.ID()) < want {
		t.Errorf("burned: got %s want %s", got, want)
	}
}
