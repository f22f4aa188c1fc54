package job

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

var start = time.UnixMilli(1_700_000_000_000)

func chacha(n byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{n}) }

func newKey(t testing.TB, n byte) *identity.Key {
	k, err := identity.Generate(chacha(n))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// world is a record to be shown, and who is in it.
type world struct {
	owner, one, two, court *identity.Key
	job                    ledger.Job
	height                 crowd.Height
	now                    time.Time
}

func newWorld(t testing.TB) *world {
	w := &world{owner: newKey(t, 1), one: newKey(t, 2), two: newKey(t, 3), court: newKey(t, 4), now: start}
	spec := crowd.JobSpec{
		Task: crowd.Task{Program: "program", Inputs: "inputs", Limits: crowd.Limits{Gas: 1e9, Memory: 1 << 20, Output: 1 << 20, Wall: 15 * time.Second}},
		Plan: crowd.Plan{Method: crowd.PlanPair}, Filters: crowd.Filters{MaxPrice: 1000}, Budget: 1e9,
	}
	w.job = ledger.Job{ID: spec.ID(w.owner.ID(), 0), Owner: w.owner.ID(), Spec: spec, DrawAt: 3, Tickets: 20, Eligible: 2}
	return w
}

func (w *world) config(k *identity.Key, seed byte) Config {
	return Config{Key: k, Rand: chacha(seed), Params: ledger.DevParams(), Authorities: []ledger.Authority{{ID: w.court.ID()}}}
}

func (w *world) machine(t testing.TB, k *identity.Key, r Role, journal []byte) Machine {
	m, err := New(w.config(k, 9), w.job.ID, r, journal)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// enter puts the record into a state that lasts for ms.
func (w *world) enter(s ledger.JobState, ms int64) {
	w.job.State = s
	w.job.Due = crowd.Time(w.now.UnixMilli() + ms)
	w.job.History = append(w.job.History, ledger.Step{State: s, Why: "test", Time: crowd.Time(w.now.UnixMilli())})
}

// record is a deep copy of the job as the chain would show it next.
func (w *world) record(t testing.TB) Chain {
	w.height++
	var j ledger.Job
	if err := crowd.Decode(crowd.Encode(&w.job), &j); err != nil {
		t.Fatal(err)
	}
	return Chain{Job: j, Height: w.height, Time: crowd.Time(w.now.UnixMilli())}
}

func (w *world) running(ks ...*identity.Key) {
	w.enter(ledger.Running, 15_000)
	w.job.Places = nil
	for _, k := range ks {
		w.job.Places = append(w.job.Places, ledger.Place{Node: k.ID(), State: ledger.Working, Price: 1000, Due: w.job.Due})
	}
}

func (w *world) delivering(o crowd.Outcome, ks ...*identity.Key) {
	w.job.Places = nil
	for _, k := range ks {
		w.job.Places = append(w.job.Places, ledger.Place{Node: k.ID(), State: ledger.Revealed, Opening: &ledger.Opening{Outcome: o}})
	}
	w.job.Verdict = &ledger.Verdict{Outcome: o, By: ledger.ByAgreement}
	w.enter(ledger.Delivering, ledger.DevParams().DeliveryWindow)
}

// kinds is the effects by type, without the reports.
func kinds(es []Effect) string {
	var out []string
	for _, e := range es {
		switch e := e.(type) {
		case Report:
		case Send:
			out = append(out, name(e.Message))
		default:
			out = append(out, strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", e), "job.")))
		}
	}
	return strings.Join(out, " ")
}

func find[E Effect](t testing.TB, es []Effect) E {
	t.Helper()
	for _, e := range es {
		if e, ok := e.(E); ok {
			return e
		}
	}
	var none E
	t.Fatalf("got %q, want a %T", kinds(es), none)
	return none
}

func expect(t testing.TB, when string, es []Effect, want string) {
	t.Helper()
	if got := kinds(es); got != want {
		t.Fatalf("%s: got %q, want %q", when, got, want)
	}
}

var good = crowd.Outcome{Status: crowd.Exited, Gas: 1e6, Result: "result"}

func TestExecutor_BindsBeforeItSpeaks(t *testing.T) {
	w := newWorld(t)
	w.running(w.one, w.two)
	e := w.machine(t, w.one, AsExecutor, nil)
	es := e.Step(w.now, w.record(t))
	expect(t, "seated", es, "fetch")
	f := find[Fetch](t, es)
	if len(f.CIDs) != 2 || f.From[0] != w.owner.ID() || slices.Contains(f.From, w.one.ID()) {
		t.Fatalf("got a fetch of %v from %d peers, want program and inputs from the owner first", f.CIDs, len(f.From))
	}
	before := w.record(t)
	expect(t, "the same record again", e.Step(w.now, before), "")
	expect(t, "an end of no fetch", e.Step(w.now, Fetched{Try: 99}), "")
	es = e.Step(w.now, Fetched{Try: f.Try})
	expect(t, "fetched", es, "persist keep keep run")
	expect(t, "fetched twice", e.Step(w.now, Fetched{Try: f.Try}), "")
	r := find[Run](t, es)
	es = e.Step(w.now, Ran{Try: r.Try, Outcome: good})
	expect(t, "ran", es, "persist keep commit")
	journal := find[Persist](t, es).Journal
	commit := find[Send](t, es).Message.(*ledger.Commit)
	expect(t, "ran twice", e.Step(w.now, Ran{Try: r.Try, Outcome: crowd.Outcome{Status: crowd.Trapped}}), "")

	t.Run("a restart sends the same commit", func(t *testing.T) {
		again := w.machine(t, w.one, AsExecutor, journal)
		expect(t, "resumed", again.Step(w.now, Woke{}), "keep keep keep look")
		es := again.Step(w.now, w.record(t))
		expect(t, "seated", es, "commit")
		if got := find[Send](t, es).Message.(*ledger.Commit); !bytes.Equal(crowd.Encode(got), crowd.Encode(commit)) {
			t.Fatalf("got another commit after a restart")
		}
	})

	expect(t, "not on chain", e.Step(w.now, Sent{Message: commit, Err: errors.New("connection lost")}), "")
	w.now = w.now.Add(backoffFirst)
	if got := e.Deadline(); got.After(w.now) {
		t.Fatalf("got a deadline %v after the backoff", got.Sub(w.now))
	}
	expect(t, "again", e.Step(w.now, Woke{}), "commit")
	expect(t, "applied", e.Step(w.now, Sent{Message: commit}), "")

	p := &w.job.Places[0]
	p.State, p.Commitment, p.Sealed = ledger.Committed, commit.Commitment, commit.Sealed
	old := w.record(t)
	w.enter(ledger.Revealing, 2000)
	es = e.Step(w.now, w.record(t))
	expect(t, "revealing", es, "reveal")
	reveal := find[Send](t, es).Message.(*ledger.Reveal)
	if ledger.Commitment(w.job.ID, w.one.ID(), reveal.Opening) != commit.Commitment {
		t.Fatal("the reveal does not open the commitment")
	}
	expect(t, "an old record", e.Step(w.now, old), "")
	again := w.machine(t, w.one, AsExecutor, journal)
	again.Step(w.now, w.record(t))
	expect(t, "a record from before the commit", again.Step(w.now, before), "")

	w.delivering(good, w.one, w.two)
	expect(t, "delivering", e.Step(w.now, w.record(t)), "")
	// An owner that has accepted has the result; one that has not may come back for it.
	params, delivering := ledger.DevParams(), slices.Clone(w.job.History)
	for _, tt := range []struct {
		name      string
		inspected bool
		ms        int64
	}{{"accepted", false, params.DeliveryWindow}, {"not accepted", true, params.Retention}} {
		e := w.machine(t, w.one, AsExecutor, journal)
		e.Step(w.now, Woke{})
		w.job.History = slices.Clone(delivering)
		if tt.inspected {
			w.enter(ledger.Inspecting, params.CourtWindow)
		}
		w.enter(ledger.Settled, params.Retention)
		expect(t, tt.name, e.Step(w.now, w.record(t)), "release release persist")
		if got, want := e.Deadline().Sub(w.now), time.Duration(tt.ms)*time.Millisecond; got < want || got > want+time.Second {
			t.Errorf("%s: it holds the result for %v, want %v", tt.name, got, want)
		}
		expect(t, tt.name+", then", e.Step(e.Deadline(), Woke{}), "release done")
	}
}

// The ledger refuses a reveal that comes before all have committed, but the transaction shows the outcome and its salt to
// everybody: a node that still works could commit to the same outcome without a run. So no executor sends one.
func TestExecutor_RevealsOnlyWhenAllHaveCommitted(t *testing.T) {
	w := newWorld(t)
	w.running(w.one, w.two)
	e := w.machine(t, w.one, AsExecutor, nil)
	es := e.Step(w.now, w.record(t))
	es = e.Step(w.now, Fetched{Try: find[Fetch](t, es).Try})
	es = e.Step(w.now, Ran{Try: find[Run](t, es).Try, Outcome: good})
	commit := find[Send](t, es).Message.(*ledger.Commit)
	journal := find[Persist](t, es).Journal
	e.Step(w.now, Sent{Message: commit})
	p := &w.job.Places[0]
	p.State, p.Commitment, p.Sealed = ledger.Committed, commit.Commitment, commit.Sealed
	for _, s := range []ledger.JobState{ledger.Running, ledger.Revealing, ledger.Unsealing} {
		w.enter(s, 10_000)
		machines := []Machine{w.machine(t, w.one, AsExecutor, journal)} // a restarted one
		if s != ledger.Unsealing {
			machines = append(machines, e) // its reveal is on its way when the next state comes
		}
		for _, m := range machines {
			var sent []Effect
			for _, x := range append(m.Step(w.now, w.record(t)), m.Step(w.now, Woke{})...) {
				if _, ok := x.(Send); ok {
					sent = append(sent, x)
				}
			}
			want := "reveal"
			if s == ledger.Running {
				want = ""
			}
			if got := kinds(sent); got != want {
				t.Errorf("the job is %s, and this executor has committed: got %q sent, want %q", s, got, want)
			}
		}
	}
}

func TestExecutor_GivesUp(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault func(e Machine, now time.Time, es []Effect) []Effect
		why   string
	}{
		{"without inputs", func(e Machine, now time.Time, es []Effect) []Effect {
			for _, x := range es {
				if f, ok := x.(Fetch); ok {
					return e.Step(now, Fetched{Try: f.Try, Err: errors.New("nobody serves them")})
				}
			}
			return e.Step(e.Deadline(), Woke{})
		}, "cannot get the inputs"},
		{"that cannot run", func(e Machine, now time.Time, es []Effect) []Effect {
			for _, x := range es {
				switch x := x.(type) {
				case Fetch:
					return e.Step(now, Fetched{Try: x.Try})
				case Run:
					return e.Step(now, Ran{Try: x.Try, Err: errors.New("no memory")})
				}
			}
			return e.Step(e.Deadline(), Woke{})
		}, "cannot run the task"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.running(w.one, w.two)
			e := w.machine(t, w.one, AsExecutor, nil)
			es := e.Step(w.now, w.record(t))
			for range 200 {
				if d := e.Deadline(); kinds(es) == "" {
					w.now = d
				}
				if kinds(es) == "giveup" {
					if got := find[Send](t, es).Message.(*ledger.GiveUp).Why; got != tt.why {
						t.Fatalf("got reason %q, want %q", got, tt.why)
					}
					if left := w.job.Due - crowd.Time(w.now.UnixMilli()); left < 1000 {
						t.Fatalf("got a surrender %d ms before the deadline", left)
					}
					return
				}
				es = tt.fault(e, w.now, es)
			}
			t.Fatal("it never gave up")
		})
	}
}

func TestExecutor_UnusableInputsAreAnOutcome(t *testing.T) {
	w := newWorld(t)
	w.running(w.one, w.two)
	e := w.machine(t, w.one, AsExecutor, nil)
	f := find[Fetch](t, e.Step(w.now, w.record(t)))
	es := e.Step(w.now, Fetched{Try: f.Try, Err: fmt.Errorf("inputs: %w", ErrUnusable)})
	if r := find[Run](t, es); !r.Unusable {
		t.Fatalf("got %+v, want a run that knows that the inputs are unusable", r)
	}
}

func TestExecutor_StopsWhenCancelled(t *testing.T) {
	w := newWorld(t)
	w.running(w.one, w.two)
	e := w.machine(t, w.one, AsExecutor, nil)
	e.Step(w.now, w.record(t))
	w.enter(ledger.Cancelled, 1000)
	expect(t, "cancelled", e.Step(w.now, w.record(t)), "stop done")
	expect(t, "after the end", e.Step(w.now, w.record(t)), "")
}

func TestExecutor_AlternateStartsWhenSeated(t *testing.T) {
	w := newWorld(t)
	w.running(w.two, w.court)
	w.job.Drawn = []ledger.Drawn{{Node: w.two.ID()}, {Node: w.court.ID()}, {Node: w.one.ID()}}
	w.job.Next = 2
	e := w.machine(t, w.one, AsExecutor, nil)
	expect(t, "waiting", e.Step(w.now, w.record(t)), "")
	w.job.Places[0].State = ledger.Dropped
	w.job.Places = append(w.job.Places, ledger.Place{Node: w.one.ID(), State: ledger.Working, Due: w.job.Due})
	w.job.Next = 3
	expect(t, "seated", e.Step(w.now, w.record(t)), "fetch")
}

func TestExecutor_ClaimsWhatItWon(t *testing.T) {
	w := newWorld(t)
	w.enter(ledger.Claiming, 500)
	p := &ledger.Provider{ID: w.one.ID(), VRF: w.one.VRF().Public(), Stake: 100 * crowd.Credit, Weight: 1e6, Offer: ledger.Offer{Price: 1000}}
	step := func() []Effect {
		e := w.machine(t, w.one, AsExecutor, nil)
		ch := w.record(t)
		ch.Self = p
		return e.Step(w.now, ch)
	}
	es := step()
	expect(t, "won", es, "claim")
	if _, err := identity.VerifyVRF(p.VRF, ledger.DrawInput(w.job.ID, w.one.ID(), w.job.Beacon), find[Send](t, es).Message.(*ledger.Claim).Proof); err != nil {
		t.Fatal(err)
	}
	p.Offer.Price = 1001
	expect(t, "too dear", step(), "")
	p.Offer.Price, p.Tombstoned = 1000, true
	expect(t, "a caught cheater", step(), "")
	p.Tombstoned, p.Offer.Owners, w.job.Score = false, 500_001, 500_000
	expect(t, "an owner below the score that it asks for", step(), "")
	p.Offer.Owners, w.job.Tickets = 500_000, 1<<60
	expect(t, "no ticket won", step(), "")
}

func TestConsumer_AcceptsOnlyWhatItHas(t *testing.T) {
	w := newWorld(t)
	w.enter(ledger.Posted, 0)
	c := w.machine(t, w.owner, AsConsumer, nil)
	expect(t, "posted", c.Step(w.now, w.record(t)), "persist keep keep")
	bad := crowd.Outcome{Status: crowd.Exited, Result: "wrong"}
	w.delivering(good, w.one, w.two)
	w.job.Places[1].Opening.Outcome = bad
	es := c.Step(w.now, w.record(t))
	expect(t, "delivering", es, "fetch")
	f := find[Fetch](t, es)
	if want := []crowd.NodeID{w.one.ID(), w.court.ID()}; !slices.Equal(f.From, want) || f.CIDs[0] != good.Result {
		t.Fatalf("got a fetch of %v from %d peers, want the verdict's result from who has it", f.CIDs, len(f.From))
	}
	es = c.Step(w.now, Fetched{Try: f.Try})
	expect(t, "fetched", es, "persist keep accept")
	again := w.machine(t, w.owner, AsConsumer, find[Persist](t, es).Journal)
	expect(t, "resumed", again.Step(w.now, w.record(t)), "keep keep keep accept")
	w.enter(ledger.Settled, ledger.DevParams().Retention)
	expect(t, "settled", c.Step(w.now, w.record(t)), "release release done")
}

func TestConsumer_ComplainsInTime(t *testing.T) {
	w := newWorld(t)
	w.delivering(good, w.one, w.two)
	c := w.machine(t, w.owner, AsConsumer, nil)
	es := c.Step(w.now, w.record(t))
	for range 100 {
		for _, x := range es {
			if f, ok := x.(Fetch); ok {
				c.Step(w.now, Fetched{Try: f.Try, Err: errors.New("nobody serves it")})
			}
			if s, ok := x.(Send); ok {
				if _, ok := s.Message.(*ledger.Complain); !ok {
					t.Fatalf("got a %s", name(s.Message))
				}
				window := ledger.DevParams().DeliveryWindow
				if left := int64(w.job.Due) - w.now.UnixMilli(); left < window/4 || left > window/2 {
					t.Fatalf("got a complaint with %d of %d ms left", left, window)
				}
				return
			}
		}
		w.now = c.Deadline()
		es = c.Step(w.now, Woke{})
	}
	t.Fatal("it never complained")
}

func TestConsumer_Cancels(t *testing.T) {
	w := newWorld(t)
	w.running(w.one, w.two)
	c := w.machine(t, w.owner, AsConsumer, nil)
	es := c.Step(w.now, UserCancel{}) // before it knows the job
	expect(t, "unknown", es, "look")
	expect(t, "running", c.Step(w.now, w.record(t)), "persist keep keep")
	es = c.Step(w.now, UserCancel{})
	expect(t, "cancel", es, "persist cancel")
	again := w.machine(t, w.owner, AsConsumer, find[Persist](t, es).Journal)
	expect(t, "resumed", again.Step(w.now, w.record(t)), "keep keep cancel")

	w.job.Places[0].State = ledger.Committed
	late := w.machine(t, w.owner, AsConsumer, nil)
	late.Step(w.now, w.record(t))
	es = late.Step(w.now, UserCancel{})
	expect(t, "too late", es, "persist")
	if r := find[Report](t, es); r.Why != "too late to cancel" {
		t.Fatalf("got report %+v", r)
	}
}

func TestAuthority_Unseals(t *testing.T) {
	for _, tt := range []struct {
		name string
		bend func(p *ledger.Place)
		want string
	}{
		{"a good seal", func(*ledger.Place) {}, "unseal"},
		{"garbage", func(p *ledger.Place) { p.Sealed = [][]byte{make([]byte, 200)} }, "vote"},
		{"nothing", func(p *ledger.Place) { p.Sealed = nil }, "vote"},
		{"an opening of another commitment", func(p *ledger.Place) { p.Commitment[0] ^= 1 }, "vote"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			o := ledger.Opening{Outcome: good}
			sealed, err := identity.Seal(chacha(7), w.court.ID(), ledger.Pad(&o), ledger.SealPurpose(w.job.ID, w.one.ID()))
			if err != nil {
				t.Fatal(err)
			}
			p := ledger.Place{Node: w.one.ID(), State: ledger.Committed, Commitment: ledger.Commitment(w.job.ID, w.one.ID(), o), Sealed: [][]byte{sealed}}
			tt.bend(&p)
			w.enter(ledger.Unsealing, 60_000)
			w.job.Places = []ledger.Place{p}
			expect(t, "unsealing", w.machine(t, w.court, AsAuthority, nil).Step(w.now, w.record(t)), tt.want)
			expect(t, "no authority", w.machine(t, w.two, AsAuthority, nil).Step(w.now, w.record(t)), "done")
		})
	}
}

// An authority takes nobody's pay because its own disk is full, or while the result still comes.
func TestAuthority_SaysNoOnlyWhereNobodyServes(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  error // of the fetch; nil: it does not end
		want string
	}{
		{"nobody has it", errors.New("no peer has it"), "vote"},
		{"the disk is full", fmt.Errorf("%w: no space", ErrLocal), "fetch"},
		{"it still comes", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.running(w.one, w.two)
			w.job.Verdict = &ledger.Verdict{Outcome: good, By: ledger.ByAgreement}
			w.enter(ledger.Inspecting, 60_000)
			a := w.machine(t, w.court, AsAuthority, nil)
			es := a.Step(w.now, w.record(t))
			expect(t, "inspecting", es, "fetch")
			if tt.end != nil {
				expect(t, "the fetch ends", a.Step(w.now, Fetched{Try: find[Fetch](t, es).Try, Err: tt.end}), "")
			}
			w.now = time.UnixMilli(int64(w.job.Due) - 1000)
			es = a.Step(w.now, Woke{})
			expect(t, "late", es, tt.want)
			if tt.want == "vote" {
				if v := find[Send](t, es).Message.(*ledger.Vote); v.Question != ledger.Retrievable || v.Yes {
					t.Errorf("got %+v want a no", v)
				}
			}
			w.now = time.UnixMilli(int64(w.job.Due))
			for _, e := range a.Step(w.now, Woke{}) {
				if send, ok := e.(Send); ok && tt.want != "vote" {
					t.Errorf("at the end: got %+v want no vote", send.Message)
				}
			}
		})
	}
}

// An owner that neither serves the inputs nor refuses them makes nobody fall silent.
func TestExecutor_GivesUpInTimeWhereAFetchHangs(t *testing.T) {
	w := newWorld(t)
	w.running(w.one, w.two)
	e := w.machine(t, w.one, AsExecutor, nil)
	find[Fetch](t, e.Step(w.now, w.record(t)))
	p := w.job.Place(w.one.ID())
	for range 100 {
		w.now = e.Deadline()
		es := e.Step(w.now, Woke{})
		for _, ef := range es {
			send, ok := ef.(Send)
			if !ok {
				continue
			}
			if m, ok := send.Message.(*ledger.GiveUp); !ok || m.Reason != ledger.CannotFetch {
				t.Fatalf("got %+v want the place given up for want of inputs", send.Message)
			}
			if left := p.Due - crowd.Time(w.now.UnixMilli()); left < 1000 {
				t.Errorf("%d ms before its time is over", left)
			}
			return
		}
		if crowd.Time(w.now.UnixMilli()) >= p.Due {
			t.Fatal("the node fell silent")
		}
	}
}

// After a time-out a run is not tried again: it would take as long.
func TestExecutor_GivesUpAfterOneTimeOut(t *testing.T) {
	w := newWorld(t)
	w.running(w.one, w.two)
	e := w.machine(t, w.one, AsExecutor, nil)
	f := find[Fetch](t, e.Step(w.now, w.record(t)))
	r := find[Run](t, e.Step(w.now, Fetched{Try: f.Try}))
	es := e.Step(w.now, Ran{Try: r.Try, Err: fmt.Errorf("%w: 15s", ErrWall)})
	if m := find[Send](t, es).Message.(*ledger.GiveUp); m.Reason != ledger.TooSlow {
		t.Errorf("got %+v want the place given up for its wall time", m)
	}
}

// A machine without disk space leaves its place to an alternate at once.
func TestExecutor_GivesUpWhereItsDiskIsFull(t *testing.T) {
	full := fmt.Errorf("%w: no space", ErrLocal)
	for _, runs := range []bool{false, true} {
		w := newWorld(t)
		w.running(w.one, w.two)
		e := w.machine(t, w.one, AsExecutor, nil)
		es, want := e.Step(w.now, w.record(t)), ledger.CannotFetch
		if f := find[Fetch](t, es); runs {
			r := find[Run](t, e.Step(w.now, Fetched{Try: f.Try}))
			es, want = e.Step(w.now, Ran{Try: r.Try, Err: full}), ledger.CannotRun
		} else {
			es = e.Step(w.now, Fetched{Try: f.Try, Err: full})
		}
		if m := find[Send](t, es).Message.(*ledger.GiveUp); m.Reason != want || !strings.Contains(m.Why, "disk") {
			t.Errorf("got %+v want the place given up for its disk", m)
		}
	}
}

func TestAuthority_VotesOnlyOnWhatItRan(t *testing.T) {
	w := newWorld(t)
	w.running(w.one, w.two)
	w.enter(ledger.Court, 60_000)
	a := w.machine(t, w.court, AsAuthority, nil)
	es := a.Step(w.now, w.record(t))
	expect(t, "court", es, "fetch")
	expect(t, "no inputs", a.Step(w.now, Fetched{Try: find[Fetch](t, es).Try, Err: errors.New("gone")}), "")
	w.now = a.Deadline()
	es = a.Step(w.now, Woke{})
	es = a.Step(w.now, Fetched{Try: find[Fetch](t, es).Try})
	expect(t, "fetched", es, "persist keep keep run")
	es = a.Step(w.now, Ran{Try: find[Run](t, es).Try, Outcome: good})
	expect(t, "ran", es, "persist keep vote")
	if v := find[Send](t, es).Message.(*ledger.Vote); v.Outcome != good || v.Question != ledger.WhatOutcome {
		t.Fatalf("got vote %+v", v)
	}
	again := w.machine(t, w.court, AsAuthority, find[Persist](t, es).Journal)
	expect(t, "resumed", again.Step(w.now, w.record(t)), "keep keep keep vote")
}

func TestAuthority_Inspects(t *testing.T) {
	w := newWorld(t)
	w.delivering(good, w.one, w.two)
	w.enter(ledger.Inspecting, ledger.DevParams().CourtWindow)
	a := w.machine(t, w.court, AsAuthority, nil)
	f := find[Fetch](t, a.Step(w.now, w.record(t)))
	es := a.Step(w.now, Fetched{Try: f.Try})
	expect(t, "fetched", es, "persist keep vote")
	if !find[Send](t, es).Message.(*ledger.Vote).Yes {
		t.Fatal("got a no for what was fetched")
	}
	b := w.machine(t, w.court, AsAuthority, nil)
	es = b.Step(w.now, w.record(t))
	for range 100 {
		for _, x := range es {
			switch x := x.(type) {
			case Fetch:
				b.Step(w.now, Fetched{Try: x.Try, Err: errors.New("nobody serves it")})
			case Send:
				if x.Message.(*ledger.Vote).Yes {
					t.Fatal("got a yes for what nobody serves")
				}
				return
			}
		}
		w.now = b.Deadline()
		es = b.Step(w.now, Woke{})
	}
	t.Fatal("it never voted")
}

func TestMachine_LooksForOverdueNews(t *testing.T) {
	w := newWorld(t)
	w.enter(ledger.Revealing, 2000)
	c := w.machine(t, w.owner, AsConsumer, nil)
	c.Step(w.now, w.record(t))
	if got, want := c.Deadline(), w.now.Add(2*time.Second+lookGrace); !got.Equal(want) {
		t.Fatalf("got a deadline in %v, want in %v", got.Sub(w.now), want.Sub(w.now))
	}
	expect(t, "overdue", c.Step(c.Deadline(), Woke{}), "look")
	expect(t, "gone", c.Step(w.now, Gone{Height: w.height + 1}), "release release done")
}

func TestJournal_OfAnotherIsRefused(t *testing.T) {
	w := newWorld(t)
	raw := crowd.Encode(&journal{Job: w.job.ID, Role: AsExecutor})
	for _, tt := range []struct {
		name string
		id   crowd.JobID
		r    Role
		raw  []byte
	}{
		{"another job", crowd.JobID{1}, AsExecutor, raw},
		{"another role", w.job.ID, AsConsumer, raw},
		{"damaged", w.job.ID, AsExecutor, raw[:len(raw)-1]},
		{"empty", w.job.ID, AsExecutor, []byte{}},
	} {
		if _, err := New(w.config(w.one, 1), tt.id, tt.r, tt.raw); err == nil {
			t.Errorf("%s: got no error", tt.name)
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add(crowd.Encode(&journal{Role: AsExecutor, Opening: &ledger.Opening{Outcome: good}, Sealed: [][]byte{{1}}, Kept: []crowd.CID{"a"}}))
	f.Add(crowd.Encode(&journal{Role: AsConsumer, Have: "x", Cancel: true}))
	f.Add(crowd.Encode(&journal{Role: AsAuthority, Outcome: &good}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		j, err := decodeJournal(raw)
		if err == nil && !bytes.Equal(crowd.Encode(&j), raw) {
			t.Fatalf("got %x from %x", crowd.Encode(&j), raw)
		}
	})
}
