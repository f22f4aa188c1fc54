package job

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Each test here holds checks one by one that the scenarios only see together.

func TestWanted_WhoHasAPartInAJob(t *testing.T) {
	w := newWorld(t)
	states := []ledger.JobState{ledger.Posted, ledger.Claiming, ledger.Running, ledger.Revealing, ledger.Unsealing, ledger.Court,
		ledger.Delivering, ledger.Inspecting, ledger.Settled, ledger.Cancelled, ledger.Failed}
	all := states[:8]
	running := []ledger.JobState{ledger.Posted, ledger.Claiming, ledger.Running}
	before := running[:2]
	for _, tt := range []struct {
		name  string
		role  Role
		self  crowd.NodeID
		place ledger.PlaceState // of self; 0: none
		drawn int               // self's number among those drawn, of whom the first has a place; -1: not drawn
		want  []ledger.JobState
	}{
		{"the owner", AsConsumer, w.owner.ID(), 0, -1, all},
		{"another", AsConsumer, w.one.ID(), 0, -1, nil},
		{"the owner as an executor", AsExecutor, w.owner.ID(), 0, -1, nil},
		{"a provider", AsExecutor, w.one.ID(), 0, -1, before},
		{"one that has had its place", AsExecutor, w.one.ID(), 0, 0, before},
		{"an alternate", AsExecutor, w.one.ID(), 0, 1, running},
		{"one that works", AsExecutor, w.one.ID(), ledger.Working, 0, all},
		{"one that has committed", AsExecutor, w.one.ID(), ledger.Committed, 0, all},
		{"one that has revealed", AsExecutor, w.one.ID(), ledger.Revealed, 0, all},
		{"one that dropped out", AsExecutor, w.one.ID(), ledger.Dropped, 0, before},
		{"a cheater", AsExecutor, w.one.ID(), ledger.Fraud, 0, before},
		{"an authority", AsAuthority, w.court.ID(), 0, -1, []ledger.JobState{ledger.Unsealing, ledger.Court, ledger.Inspecting}},
	} {
		for _, s := range states {
			j := w.job
			j.State, j.Places, j.Drawn, j.Next = s, nil, []ledger.Drawn{{Node: w.two.ID()}, {Node: w.two.ID()}}, 1
			if tt.drawn >= 0 {
				j.Drawn[tt.drawn].Node = tt.self
			}
			if tt.place != 0 {
				j.Places = []ledger.Place{{Node: tt.self, State: tt.place}}
			}
			if got, want := Wanted(tt.role, tt.self, &j), slices.Contains(tt.want, s); got != want {
				t.Errorf("%s, the job is %s: got %v want %v", tt.name, s, got, want)
			}
		}
	}
}

// A claim that the ledger would refuse costs a fee: each of its conditions is looked at before.
func TestEligible_EachCondition(t *testing.T) {
	w := newWorld(t)
	params := ledger.DevParams()
	self := w.one.ID()
	for _, tt := range []struct {
		name   string
		change func(p *ledger.Provider, j *ledger.Job)
		want   bool
	}{
		{"as it is", func(*ledger.Provider, *ledger.Job) {}, true},
		{"its tag", func(_ *ledger.Provider, j *ledger.Job) { j.Spec.Filters.Tags = []string{"wasm"} }, true},
		{"another tag beside it", func(_ *ledger.Provider, j *ledger.Job) { j.Spec.Filters.Tags = []string{"wasm", "gpu"} }, false},
		{"a tombstone", func(p *ledger.Provider, _ *ledger.Job) { p.Tombstoned = true }, false},
		{"leaving", func(p *ledger.Provider, _ *ledger.Job) { p.Leaving = 1 }, false},
		{"registered in time", func(p *ledger.Provider, j *ledger.Job) { p.Since = j.DrawAt - params.Lookback }, true},
		{"registered too late", func(p *ledger.Provider, j *ledger.Job) { p.Since = j.DrawAt - params.Lookback + 1 }, false},
		{"of the genesis", func(p *ledger.Provider, j *ledger.Job) { p.Since, j.DrawAt = 0, 1 }, true},
		{"the least stake", func(p *ledger.Provider, _ *ledger.Job) { p.Stake = params.MinStake }, true},
		{"less than the least stake", func(p *ledger.Provider, _ *ledger.Job) { p.Stake = params.MinStake - 1 }, false},
		{"less stake than the job may pay", func(p *ledger.Provider, j *ledger.Job) {
			p.Stake, j.Spec.Task.Limits.Gas = params.MinStake, 1e12
		}, false},
		{"its price", func(p *ledger.Provider, j *ledger.Job) { p.Offer.Price = j.Spec.Filters.MaxPrice }, true},
		{"too dear", func(p *ledger.Provider, j *ledger.Job) { p.Offer.Price = j.Spec.Filters.MaxPrice + 1 }, false},
		{"an owner with its score", func(p *ledger.Provider, j *ledger.Job) { p.Offer.Owners, j.Score = 5, 5 }, true},
		{"an owner with less", func(p *ledger.Provider, j *ledger.Job) { p.Offer.Owners, j.Score = 5, 4 }, false},
		{"its country", func(_ *ledger.Provider, j *ledger.Job) { j.Spec.Filters.Countries = []string{"FR", "GR"} }, true},
		{"another country", func(_ *ledger.Provider, j *ledger.Job) { j.Spec.Filters.Countries = []string{"FR"} }, false},
		{"named", func(_ *ledger.Provider, j *ledger.Job) { j.Spec.Filters.Providers = []crowd.NodeID{{1}, self} }, true},
		{"not named", func(_ *ledger.Provider, j *ledger.Job) { j.Spec.Filters.Providers = []crowd.NodeID{{1}} }, false},
	} {
		p := ledger.Provider{ID: self, Stake: 1000 * crowd.Credit, Offer: ledger.Offer{Price: 1, Tags: []string{"wasm"}, Country: "GR"}}
		j := w.job
		tt.change(&p, &j)
		if got := eligible(&p, &j, &params); got != tt.want {
			t.Errorf("%s: got %v want %v", tt.name, got, tt.want)
		}
	}
}

func TestJournal_EachBound(t *testing.T) {
	for _, tt := range []struct {
		name string
		j    journal
		good bool
	}{
		{"the first role", journal{Role: AsConsumer}, true},
		{"the last role", journal{Role: AsAuthority}, true},
		{"no role", journal{Role: AsConsumer - 1}, false},
		{"another role", journal{Role: AsAuthority + 1}, false},
		{"as much as may be kept", journal{Role: AsExecutor, Kept: slices.Repeat([]crowd.CID{"x"}, maxKept)}, true},
		{"one more", journal{Role: AsExecutor, Kept: slices.Repeat([]crowd.CID{"x"}, maxKept+1)}, false},
	} {
		if _, _, err := Journaled(crowd.Encode(&tt.j)); (err == nil) != tt.good {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

// What no run can come to is an executor's fault, and nothing is committed: the ledger would take it for fraud.
func TestExecutor_CommitsToNoImpossibleOutcome(t *testing.T) {
	for _, isBatch := range []bool{false, true} {
		for name, spoil := range map[string]func(o *crowd.Outcome){
			"nothing":       func(*crowd.Outcome) {},
			"too much gas":  func(o *crowd.Outcome) { o.Gas = 1e12 + 1 },
			"no result":     func(o *crowd.Outcome) { o.Result = "" },
			"a long result": func(o *crowd.Outcome) { o.Result = crowd.CID(strings.Repeat("x", crowd.MaxCID+1)) },
			"the root":      func(o *crowd.Outcome) { o.Root[0] ^= 1 },
			"the leaves":    func(o *crowd.Outcome) { o.Leaves = map[crowd.CID]crowd.CID{"": "leaves", "leaves": ""}[o.Leaves] },
		} {
			w := newWorld(t)
			w.job.Spec.Task.Limits.Gas = 1e12
			o := good
			if isBatch {
				w.job.Spec.Items, w.job.Spec.Task.Stdin = 1, "items"
				o.Root, o.Leaves = crowd.Hash{1}, "leaves"
			}
			w.running(w.one, w.two)
			e := w.machine(t, w.one, AsExecutor, nil)
			es := e.Step(w.now, w.record(t))
			es = e.Step(w.now, Fetched{Try: find[Fetch](t, es).Try})
			spoil(&o)
			es = e.Step(w.now, Ran{Try: find[Run](t, es).Try, Outcome: o})
			if got, want := strings.Contains(kinds(es), "commit"), name == "nothing"; got != want {
				t.Errorf("batch %v, changed: %s: got %q, committed %v want %v", isBatch, name, kinds(es), got, want)
			}
		}
	}
}

// A claim that finds the list full of better ones is not sent, nor one that stands there, nor one after the claims.
func TestExecutor_ClaimsOnlyWhatCanBeKept(t *testing.T) {
	w := newWorld(t)
	params := ledger.DevParams()
	asks := &ledger.Provider{ID: w.one.ID(), VRF: w.one.VRF().Public(), Stake: 1000 * crowd.Credit, Weight: 1e6, Offer: ledger.Offer{Price: 1}}
	_, out := w.one.VRF().Prove(ledger.DrawInput(w.job.ID, w.one.ID(), w.job.Beacon))
	_, mine := ledger.Won(out, params.Tickets(asks, false), w.job.Tickets, params.CommitteeUnits)
	at := func(diff int) (h crowd.Hash) { // just better than this node's priority, equal, or just worse
		h = mine
		for i := 31; i >= 0 && diff != 0; i-- {
			if h[i] += byte(diff); diff > 0 && h[i] != 0 || diff < 0 && h[i] != 255 {
				break
			}
		}
		return h
	}
	low, high := crowd.NodeID{}, crowd.NodeID{}
	for i := range high {
		high[i] = 255
	}
	for _, tt := range []struct {
		name  string
		claim int // how many there are
		last  ledger.Drawn
		late  bool
		want  bool
	}{
		{"none yet", 0, ledger.Drawn{}, false, true},
		{"room for one", int(params.MaxClaims) - 1, ledger.Drawn{Priority: at(-1)}, false, true},
		{"full of better ones", int(params.MaxClaims), ledger.Drawn{Priority: at(-1)}, false, false},
		{"full, the last is worse", int(params.MaxClaims), ledger.Drawn{Priority: at(1)}, false, true},
		{"full, the last is as good and its number lower", int(params.MaxClaims), ledger.Drawn{Priority: at(0), Node: low}, false, false},
		{"full, the last is as good and its number higher", int(params.MaxClaims), ledger.Drawn{Priority: at(0), Node: high}, false, true},
		{"it has claimed", 3, ledger.Drawn{Node: w.one.ID(), Priority: mine}, false, false},
		{"the claims are over", 0, ledger.Drawn{}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.enter(ledger.Claiming, 1000)
			for range tt.claim {
				w.job.Drawn = append(w.job.Drawn, tt.last)
			}
			if tt.late {
				w.now = w.now.Add(2 * time.Second)
			}
			e := w.machine(t, w.one, AsExecutor, nil)
			record := w.record(t)
			record.Self = asks
			es := e.Step(w.now, record)
			if got := strings.Contains(kinds(es), "claim"); got != tt.want {
				t.Errorf("got %q want a claim: %v", kinds(es), tt.want)
			}
		})
	}
}
