package verify

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
)

// crowdOf is that many providers with a record and a good stake.
func crowdOf(n uint64) []Candidates {
	return []Candidates{{Count: n, Record: Record{HonestyPPM: 900_000, Good: 50}, Stake: 100 * crowd.Credit}}
}

func asked(n uint64) Request {
	return Request{Tasks: n, Gas: 1e8, Price: crowd.ReferencePrice, Candidates: crowdOf(10_000), BurnPPM: 20_000}
}

func mustPlan(t testing.TB, r Request) BatchPlan {
	t.Helper()
	p, err := ForBatch(r)
	if err != nil {
		t.Fatalf("%d tasks: %v", r.Tasks, err)
	}
	return p
}

// The goal: 99 % detection of a 10 % cheater for at most 10 % of the compute.
func TestForBatch_TheGoalIsMetFromTheStatedSizeOn(t *testing.T) {
	for _, c := range []struct {
		name       string
		confidence float64
		colluding  uint32
		most       uint64 // items per executor that may be needed
	}{
		{"no collusion", .99, 1, 440}, {"default", .99, 0, 560}, {"three nines", .999, 0, 800}, {"a fifth colludes", .99, 200_000, 800},
	} {
		r := asked(1)
		r.Promise, r.Confidence, r.ColludingPPM = Detection, c.confidence, c.colluding
		from := mustPlan(t, r).GoalItems
		if from == 0 || from > c.most {
			t.Errorf("%s: met from %d items on want at most %d", c.name, from, c.most)
		}
		for _, n := range []uint64{from, from + 1, from + 7, 2*from - 1, 2 * from, 2*from + 1, 3*from + 10, 10 * from, 100_000, 1e6, 1e9} {
			r.Tasks = n
			p := mustPlan(t, r)
			if each := (p.Shards + p.Panels - 1) / p.Panels; n <= 1e6 && each > 1 && each*p.Checks > p.Items { // there are nodes enough
				t.Errorf("%s: %d tasks: a verifier does %d of %d tasks, its executor %d", c.name, n, each*p.Checks, n, p.Items)
			}
			if allowed, _ := Allowed(c.confidence); !p.Meets() || p.Undetected > allowed {
				t.Errorf("%s: %d tasks: overhead of %d ppm, %v undetected", c.name, n, p.OverheadPPM, p.Undetected)
			}
			if want := min(n/from, 9000); p.Shards < want { // of 10,000 nodes, a tenth verifies
				t.Errorf("%s: %d tasks: got %d shards want %d at least", c.name, n, p.Shards, want)
			}
		}
	}
}

// All of a million tasks right with 99 %: more checks, and still within the goal.
func TestForBatch_WholeBatches(t *testing.T) {
	for _, n := range []uint64{1000, 100_000, 1e6, 1e8} {
		r := asked(n)
		r.Promise = Whole
		p := mustPlan(t, r)
		if p.Any > Certain/100 || !p.Meets() {
			t.Errorf("%d tasks: got %v, overhead of %d ppm", n, p.Any, p.OverheadPPM)
		}
		if n <= 1e6 && p.Shards != n/p.GoalItems { // there are nodes enough for all
			t.Errorf("%d tasks: got %d shards, though %d items are enough for one", n, p.Shards, p.GoalItems)
		}
	}
}

// The default plan against what it is for: a 10 % cheater by whom one verifier of ten stands.
func TestForBatch_DetectionAsSimulated(t *testing.T) {
	p := mustPlan(t, asked(100_000))
	items, bad := int(p.Items), int(BadItems(p.Items, p.CheatPPM))
	honest := p.Scheme()
	honest.ColludingPPM = 0
	simulate(t, 20_000, p.Undetected.Float(), map[string]float64{"as if nobody colluded": honest.Undetected(uint64(bad)).Float(), "twice as often": 2 * p.Undetected.Float()},
		func(r *rand.Rand) bool {
			for range p.Verifiers {
				if r.IntN(10) == 0 {
					continue
				}
				var picked []int
				for len(picked) < int(p.Checks) {
					i := r.IntN(items)
					switch {
					case slices.Contains(picked, i):
					case i < bad:
						return false
					default:
						picked = append(picked, i)
					}
				}
			}
			return true
		})
}

func TestForBatch_SmallBatches(t *testing.T) {
	for _, c := range []struct {
		tasks      uint64
		confidence float64
		method     string
		verifiers  uint32
	}{
		// With one replacement three nodes must be of a ring to have two seats, and so on.
		{1, 0, MethodCommittee, 2}, {1, .99, MethodCommittee, 2}, {1, .999, MethodCommittee, 3}, {1, .5, MethodAudit, 1},
		{2, .9, MethodCommittee, 2}, {5, .99, MethodCommittee, 3}, {9, .999, MethodCommittee, 4}, {100, .99, MethodChallenge, 5}, {5, .05, MethodAudit, 1},
	} {
		r := asked(c.tasks)
		r.Confidence = c.confidence
		p := mustPlan(t, r)
		if p.Method != c.method || p.Verifiers != c.verifiers {
			t.Errorf("%d tasks at %v: got %s with %d verifiers want %s with %d", c.tasks, c.confidence, p.Method, p.Verifiers, c.method, c.verifiers)
		}
	}
	single := mustPlan(t, asked(1))
	if want := mustPlan(t, asked(2)).GoalItems; single.GoalItems != want {
		t.Errorf("a single task: the goal is met from %d tasks on want %d, as for batches", single.GoalItems, want)
	}
	if want := Steered(100_000, 1, 1, 0).And(Steered(100_000, 2, 1, 0)); single.Accepted != want || want > Certain/100 {
		t.Errorf("a single task: got %v want %v", single.Accepted, want)
	}
}

// Whatever is asked for, a plan holds all that it says, looked at anew.
func TestForBatch_PlansHoldWhatTheySay(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	methods := map[string]int{}
	for range 800 {
		q := Request{
			Tasks: 1 + r.Uint64N(1<<r.IntN(14)), Gas: crowd.Gas(1 + r.Uint64N(1e9)), Price: crowd.Price(r.Uint64N(3000)), BurnPPM: 20_000,
			Confidence: 1 - math.Pow(10, -6*r.Float64()*r.Float64()), Promise: Promise(r.IntN(4)), ColludingPPM: r.Uint32N(300_000), CheatPPM: 1000 + r.Uint32N(500_000),
			Candidates: []Candidates{{Count: r.Uint64N(60), Stake: crowd.Credit}, {Count: r.Uint64N(60), Stake: 1e12, Record: Record{HonestyPPM: 990_000, Good: 400}}, {Count: 9, Record: Record{Caught: 1}, Stake: 1e12}},
		}
		q.MaxGas = q.Gas + crowd.Gas(r.Uint64N(1e9))
		if r.IntN(2) == 0 {
			q.Budget = crowd.Credits(r.Uint64N(1 << r.IntN(40)))
		}
		if r.IntN(4) == 0 {
			q.Bribe = crowd.Credits(r.Uint64N(1 << 30))
		}
		p, err := ForBatch(q)
		var u *Unmet
		switch {
		case err == nil:
			holds(t, q, p, true)
			methods[p.Method]++
		case !errors.As(err, &u):
			t.Fatalf("%+v: %v", q, err)
		default:
			methods["unmet"]++
			if u.Best != nil {
				holds(t, q, *u.Best, false)
			}
			if u.Least != nil {
				retry := q
				retry.Budget = u.Least.Cost.Escrow
				if u.Lack == LackNodes {
					retry.Candidates = []Candidates{{Count: u.Least.Nodes, Stake: u.Least.MinStake}}
				}
				if _, err := ForBatch(retry); err != nil {
					t.Fatalf("%+v: with what the nearest plan needs (%s, %d nodes) still %v", q, u.Least.Cost.Escrow, u.Least.Nodes, err)
				}
			}
		}
	}
	for _, m := range []string{MethodChallenge, MethodCommittee, MethodAudit, crowd.PlanPair, "unmet"} {
		if methods[m] < 5 {
			t.Errorf("only %d of %s in %v: the test says little of it", methods[m], m, methods)
		}
	}
}

func holds(t *testing.T, q Request, p BatchPlan, promised bool) {
	t.Helper()
	bad := func(format string, a ...any) { t.Helper(); t.Errorf("%+v\n%+v\n"+format, append([]any{q, p}, a...)...) }
	allowed, _ := Allowed(q.withDefaults().Confidence)
	enough := uint64(0)
	for _, c := range q.Candidates {
		if c.Record.Caught == 0 && c.Stake >= p.MinStake {
			enough += c.Count
		}
	}
	if p.Nodes > enough || p.Shards+uint64(p.Verifiers) > p.Nodes || p.Panels == 0 {
		bad("%d nodes have the stake", enough)
	}
	if q.Budget > 0 && p.Cost.Escrow > q.Budget {
		bad("over budget")
	}
	checks, tasks := 0.0, uint64(0)
	for i := range p.Shards {
		items := q.Tasks / p.Shards
		if i < q.Tasks%p.Shards {
			items++
		}
		tasks += items
		s := p.Scheme()
		s.Items = items
		checks += float64(min(p.Checks, items)) * float64(p.Verifiers) * float64(p.CheckPPM) / Million
		if i > 0 && i < p.Shards-1 && i != q.Tasks%p.Shards { // one of each size is enough
			continue
		}
		escapes := s.Undetected(BadItems(items, p.CheatPPM))
		if escapes > p.Undetected {
			bad("a shard of %d lets a cheater escape with %v", items, escapes)
		}
		if promised && p.Promise == Detection && escapes > allowed || promised && p.Promise != Detection && escapes.And(Steered(p.ColludingPPM, 1, p.Replacements, 0)) > allowed || promised && p.Promise == Whole && p.Any > allowed {
			bad("a shard of %d: %v", items, escapes)
		}
		covered := float64(p.CheckPPM) / Million * (1 - math.Pow(1-float64(min(p.Checks, items))/float64(items), float64(p.Verifiers)))
		if covered < .05-1e-9 {
			bad("a task is re-executed with %v only", covered)
		}
		pay := float64(p.Cost.Executors) / float64(q.Tasks)
		for wrong := uint64(1); wrong <= items; wrong += 1 + wrong/8 {
			risk := (pay*float64(items) + float64(p.MinStake)) * (1 - s.Undetected(wrong).Float())
			if gain := pay*float64(wrong) + float64(q.Bribe); risk < gain*(1-1e-6)-3 {
				bad("%d of %d wrong: gains %.0f, risks %.0f", wrong, items, gain, risk)
			}
		}
	}
	if tasks != q.Tasks || p.Accepted != p.Undetected.And(Steered(p.ColludingPPM, 1, p.Replacements, 0)) || p.Any != p.Accepted.Times(p.Shards) {
		bad("%d tasks are in shards", tasks)
	}
	if ratio := checks / float64(q.Tasks); ratio > float64(p.OverheadPPM)/Million+1e-9 || ratio < float64(p.OverheadPPM-1)/Million-1e-9 {
		bad("overhead of %v", ratio)
	}
	c := p.Cost
	most := float64(q.Price) / 1e6 * float64(q.MaxGas) * (float64(q.Tasks) + checks*Million/float64(p.CheckPPM))
	if c.Escrow != c.Executors+c.Verification+c.Margin || c.Burn != (c.Executors+c.Verification).PPM(20_000) || float64(c.Escrow) < most*(1-1e-9) || float64(c.Escrow) > most*(1+1e-9)+float64(p.Shards)*float64(p.Verifiers+1) {
		bad("worst case of %.0f", most)
	}
}

func unmet(t *testing.T, r Request) *Unmet {
	t.Helper()
	_, err := ForBatch(r)
	var u *Unmet
	if !errors.As(err, &u) {
		t.Fatalf("got %v want an Unmet", err)
	}
	return u
}

func TestForBatch_TooSmallABudgetNamesTheNearestPlans(t *testing.T) {
	r := asked(1000)
	full := mustPlan(t, r)
	r.Budget = full.Cost.Executors * 102 / 100
	u := unmet(t, r)
	if u.Lack != LackBudget || u.Best != nil { // below the floor of 5 %
		t.Errorf("2 %% for checks: got %+v", u)
	}
	r.Budget = u.Least.Cost.Escrow
	if p := mustPlan(t, r); p.Undetected > Certain/100 {
		t.Errorf("with the least budget: got %v", p.Undetected)
	}
	r.Budget--
	u = unmet(t, r)
	if u.Best == nil || u.Best.Undetected <= Certain/100 || u.Best.Undetected > Certain/40 {
		t.Fatalf("one micro-credit less: got %+v", u.Best)
	}
	// The best of the budget is reached by asking for it, and no more is.
	r.Confidence = 1 - u.Best.Undetected.Float()
	if p := mustPlan(t, r); p.Cost.Escrow > r.Budget {
		t.Errorf("the best plan costs %s of %s", p.Cost.Escrow, r.Budget)
	}
	if !strings.Contains(u.Error(), "budget") || !strings.Contains(u.Error(), u.Best.Undetected.String()) {
		t.Errorf("got %q", u)
	}
}

func TestForBatch_TooFewNodesNameTheNearestPlans(t *testing.T) {
	r := asked(1000)
	r.Candidates = crowdOf(2)
	u := unmet(t, r)
	// Two nodes: one verifier. It, or the one that replaces it, colludes with 20 %. Three of four collude with 0.37 %.
	if u.Lack != LackNodes || u.Best == nil || u.Best.Nodes != 2 || u.Best.Undetected != Certain/5 || u.Least == nil || u.Least.Nodes != 4 {
		t.Fatalf("got %+v", u)
	}
	r.Candidates = crowdOf(u.Least.Nodes)
	mustPlan(t, r)
	r.Candidates = crowdOf(u.Least.Nodes - 1)
	if v := unmet(t, r); v.Lack != LackNodes {
		t.Errorf("one node less: got %+v", v)
	}
	for n := range uint64(2) {
		r.Candidates = crowdOf(n)
		if u := unmet(t, r); u.Best != nil || u.Least == nil {
			t.Errorf("%d nodes: got %+v", n, u)
		}
	}
	r = asked(1000)
	r.Candidates = append(crowdOf(math.MaxUint64), crowdOf(2)...) // more than can be counted are not few
	mustPlan(t, r)
	r = asked(1000)
	r.Bribe = 1000 * crowd.Credit // for one wrong item: 100 credits do not weigh that up
	u = unmet(t, r)
	if u.Lack != LackNodes || u.Least == nil || u.Least.MinStake < 1000*crowd.Credit {
		t.Fatalf("a bribe: got %+v", u)
	}
	r.Candidates[0].Stake = u.Least.MinStake
	mustPlan(t, r)
	r.Bribe = math.MaxUint64 // with the work that lying spares it is more than can be counted
	if u := unmet(t, r); u.Least != nil {
		t.Errorf("an endless bribe: got %+v", u.Least)
	}
	r = asked(10)
	r.ColludingPPM, r.Confidence = 900_000, .999
	if u := unmet(t, r); u.Lack != LackConfidence || u.Best == nil || u.Least != nil {
		t.Errorf("nine of ten collude: got %+v", u)
	}
	r = asked(1e9)
	r.Gas, r.Price = 1e15, 1e9
	if u := unmet(t, r); u.Lack != LackPrice {
		t.Errorf("an endless price: got %+v", u)
	}
}

func TestForBatch_RefusesWhatIsNoRequest(t *testing.T) {
	for name, change := range map[string]func(r *Request){
		"no tasks":               func(r *Request) { r.Tasks = 0 },
		"too many":               func(r *Request) { r.Tasks = maxTasks + 1 },
		"no gas":                 func(r *Request) { r.Gas = 0 },
		"a limit below":          func(r *Request) { r.MaxGas = r.Gas - 1 },
		"certainty":              func(r *Request) { r.Confidence = 1 },
		"NaN":                    func(r *Request) { r.Confidence = math.NaN() },
		"everybody colludes":     func(r *Request) { r.ColludingPPM = Million },
		"no floor":               func(r *Request) { r.FloorPPM = FloorPPM - 1 },
		"a floor above all":      func(r *Request) { r.FloorPPM, r.GoalPPM = Million+1, Million+1 },
		"goal below floor":       func(r *Request) { r.GoalPPM = FloorPPM - 1 },
		"cheats more than all":   func(r *Request) { r.CheatPPM = Million + 1 },
		"burns more than all":    func(r *Request) { r.BurnPPM = Million + 1 },
		"a thousand verifiers":   func(r *Request) { r.MaxVerifiers = 1000 },
		"unknown comparator":     func(r *Request) { r.Class, r.Comparator = Tolerant, "vibes" },
		"loose":                  func(r *Request) { r.Class = Loose },
		"tolerant, but exact":    func(r *Request) { r.Class = Tolerant },
		"strict, but by numbers": func(r *Request) { r.Comparator = Text },
		"unknown class":          func(r *Request) { r.Class = 9 },
		"unknown promise":        func(r *Request) { r.Promise = 9 },
	} {
		r := asked(100)
		change(&r)
		var u *Unmet
		if _, err := ForBatch(r); err == nil || errors.As(err, &u) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	r := asked(100)
	r.Class, r.Comparator = Tolerant, Text
	if p := mustPlan(t, r); p.Comparator != Text {
		t.Errorf("got %+v", p)
	}
}

// Only an audit leaves room for the record: who is not known pays more for it.
func TestForBatch_AuditsFollowTheRecord(t *testing.T) {
	r := asked(1)
	r.Confidence = .5
	known := mustPlan(t, r)
	r.Candidates = append(r.Candidates, Candidates{Count: 1, Stake: 1e12})
	unknown := mustPlan(t, r)
	r.Candidates[1].Count = 0 // nobody
	if nobody := mustPlan(t, r); nobody.Cost != known.Cost {
		t.Errorf("with a record that nobody has: got %+v want %+v", nobody.Cost, known.Cost)
	}
	if known.CheckPPM != FloorPPM || unknown.CheckPPM != FloorPPM || known.Cost.Verification*9 > unknown.Cost.Verification || known.Cost.Escrow != unknown.Cost.Escrow {
		t.Errorf("got %+v and %+v", known.Cost, unknown.Cost)
	}
}

func TestBatchPlan_RowsSayAllOfIt(t *testing.T) {
	r := asked(100_000)
	r.Wait = func(p BatchPlan) time.Duration { return time.Duration(p.Items) * time.Second }
	p := mustPlan(t, r)
	rows := p.Rows()
	get := func(name string) string {
		i := slices.IndexFunc(rows, func(r Row) bool { return r.Name == name })
		if i < 0 {
			t.Fatalf("no row %q in %v", name, rows)
		}
		return rows[i].Value
	}
	for name, want := range map[string]string{
		"a cheater escapes": p.Undetected.String(), "locked in escrow": p.Cost.Escrow.String(), "overhead": percent(p.OverheadPPM) + " of the useful gas",
		"expected wait": p.Wait.String(), "compared": "exact", "verification": p.Cost.Verification.String(),
	} {
		if got := get(name); got != want {
			t.Errorf("%s: got %q want %q", name, got, want)
		}
	}
	if !strings.Contains(get("assumed"), "10 %") {
		t.Errorf("the assumption: got %q", get("assumed"))
	}
	small := mustPlan(t, asked(100))
	if got := small.overhead(); !strings.Contains(got, "from 520 tasks on") {
		t.Errorf("a small batch: got %q", got)
	}
	text, err := json.Marshal(p)
	var back BatchPlan
	if err == nil {
		err = json.Unmarshal(text, &back)
	}
	if err != nil || back != p {
		t.Errorf("JSON: got %+v, %v want %+v", back, err, p)
	}
}

func BenchmarkForBatch_MillionTasks(b *testing.B) {
	r := asked(1e6)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := ForBatch(r); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "plans/s")
}
