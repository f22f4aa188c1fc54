package flow

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
)

var mapReduce = []Node{{Name: "map", Pilot: 5}, {Name: "reduce", From: []string{"map"}}}

// Whatever happens on the way (jobs that fail, stall, are refused or come too late to cancel, holders that go away, a
// driver that is killed before and after any effect), a flow that the network treats fairly in the end gets every item's
// result exactly once, never locks more than its budget or runs more jobs than it may, and posts no attempt twice.
func TestMachine_EndsOnceWholeWithinBudget(t *testing.T) {
	diamond := []Node{{Name: "last", From: []string{"left", "right"}}, {Name: "left", From: []string{"first"}, Pilot: 2}, {Name: "right", From: []string{"first"}}, {Name: "first"}}
	kills, copies, lost := 0, 0, 0
	for seed := range uint64(400) {
		cfg := Config{Parallel: 1 + int(seed%7), Tries: 1000, Copies: 1 + int(seed%13/12)}
		nodes, items := mapReduce, []uint64{40, 12}
		if seed%3 == 0 {
			nodes, items = diamond, []uint64{20, 8, 8, 3}
		}
		if seed%2 == 0 {
			cfg.Budget = 10*70 + crowd.Credits(seed) // of at most 52 items that may cost 10 each and come to less
		}
		w := newWorld(t, seed, cfg, nodes, items, 4)
		w.kill, w.fail, w.slow, w.refuse, w.die, w.back = 0.01, 0.15, 0.1, 0.1, 0.15, 0.5
		switch end := w.play(20 * time.Minute).(type) {
		case Done:
			w.whole()
		case GiveUp: // a budget may be too small for what failed jobs and copies cost
			if cfg.Budget == 0 || end.Reason != OverBudget {
				t.Fatalf("seed %d: got %+v", seed, end)
			}
		}
		kills, copies, lost = kills+w.run-1, copies+w.m.State().Copies, lost+len(w.heard(NewsLost))
	}
	t.Logf("%d kills, %d copies, %d lost sources", kills, copies, lost)
	if kills < 100 || copies < 50 || lost < 50 {
		t.Error("too little happened for this test to mean anything")
	}
}

// Many liars, who get past every check of their own job, and two jobs of every shard: no lie that differs from the result of a
// second job is used, and each is named. Nothing is used that fewer than two jobs found once two disagreed.
func TestMachine_NamesTheOddOneOut(t *testing.T) {
	named, used := 0, 0
	for seed := range uint64(200) {
		w := newWorld(t, seed, Config{Copies: 2, Parallel: 20, Tries: 100}, []Node{{Name: "map"}}, []uint64{20}, 2)
		w.lie, w.kill = 0.15, 0.01
		end := w.play(time.Hour)
		if g, ok := end.(GiveUp); ok && g.Reason != Disagreed {
			t.Fatalf("seed %d: got %+v", seed, g)
		}
		for _, c := range w.m.State().Conflicts {
			if c.Wrong == 0 {
				continue
			}
			named++
			sh := &w.m.State().Stages[0].Shards[c.Shard]
			if j := w.job(sh.attempt(c.Wrong).Job); j.fate.root == 0 {
				t.Fatalf("seed %d: an honest job was named: %+v", seed, c)
			}
			if j := w.job(sh.attempt(sh.Use).Job); j.fate.root != 0 {
				used++
			}
		}
	}
	if named < 50 || used > 0 {
		t.Errorf("%d liars were named, %d lies used that a third job had shown", named, used)
	}
}

func honest(seconds int) (fate, bool) {
	return fate{took: time.Duration(seconds) * time.Second, end: Settled}, true
}

// The last shard that takes much longer than its siblings gets one copy, and the copy's result is used.
func TestMachine_CopiesTheStraggler(t *testing.T) {
	for _, c := range []struct {
		name           string
		cfg            Config
		copies, used   int
		least, atLeast time.Duration
	}{
		{"as it is", Config{Parallel: 4}, 1, 1, 0, 60 * time.Second},
		{"switched off", Config{Parallel: 4, NoSpeculation: true}, 0, 0, time.Hour, 2 * time.Hour},
		{"no budget for it", Config{Parallel: 4, Budget: 200}, 0, 0, time.Hour, 2 * time.Hour},
		{"two of each", Config{Parallel: 40, Copies: 2}, 10, 1, 0, 60 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 1, c.cfg, []Node{{Name: "map"}}, []uint64{20}, 2)
			w.script = func(_, shard, n int) (fate, bool) {
				if shard == 7 && n == 0 {
					return honest(4000)
				}
				return honest(6 + 2*n)
			}
			w.full = true
			begin := w.now
			if _, ok := w.play(24 * time.Hour).(Done); !ok {
				t.Fatalf("got %+v", w.ends)
			}
			w.whole()
			took := w.now.Sub(begin)
			if s := w.m.State(); s.Copies != c.copies || s.Used != c.used || took < c.least || took > c.atLeast {
				t.Errorf("%d copies, %d used, in %v; want %d, %d, %v to %v", s.Copies, s.Used, took, c.copies, c.used, c.least, c.atLeast)
			}
		})
	}
}

// When many shards are late, because the whole network is, copies stay within their share of the stage.
func TestMachine_CopiesCostLittle(t *testing.T) {
	w := newWorld(t, 1, Config{Parallel: 64, LastShare: 1}, []Node{{Name: "map"}}, []uint64{100}, 2)
	w.script = func(_, shard, n int) (fate, bool) {
		if shard >= 10 && n == 0 {
			return honest(600)
		}
		return honest(6)
	}
	if _, ok := w.play(24 * time.Hour).(Done); !ok {
		t.Fatalf("got %+v", w.ends)
	}
	if s := w.m.State(); s.Copies != 10 { // a fifth of 50 shards
		t.Errorf("got %d copies want 10", s.Copies)
	}
}

// A copy whose job becomes known only when the shard is done is taken back then.
func TestMachine_TakesBackWhatIsPostedTooLate(t *testing.T) {
	s, err := New([]Node{{Name: "map"}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Resume(Config{Copies: 2}, s)
	if err != nil {
		t.Fatal(err)
	}
	a, b := Ref{0, 0, 1}, Ref{0, 0, 2}
	now := time.Unix(1e9, 0)
	var last []Effect
	for _, ev := range []Event{Began{}, WasCut{0, 1}, Laid{0, []Layout{{Items: 1}}}, Posted{a, crowd.JobID{1}}, Ended{Ref: a, State: Settled}, Fetched{a}, Posted{b, crowd.JobID{2}}} {
		now = now.Add(time.Second)
		last = m.Step(now, ev)
	}
	if want := []Effect{Follow{b, crowd.JobID{2}}, Cancel{Ref: b, Job: crowd.JobID{2}}}; !slices.Equal(last, want) {
		t.Errorf("got %v want %v", last, want)
	}
	if last = m.Step(now, Ended{Ref: b, State: Cancelled}); !slices.Equal(last, []Effect{Done{}}) {
		t.Errorf("got %v want an end", last)
	}
}

// A pilot that showed nothing is laid again: its price counts, its numbers are not used again, and nothing of it is in the end.
func TestMachine_LaysThePilotAgain(t *testing.T) {
	s, err := New([]Node{{Name: "map", Pilot: 5}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Resume(Config{}, s)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	step := func(ev Event) []Effect {
		now = now.Add(time.Second)
		return m.Step(now, ev)
	}
	wants := func(got []Effect, want Effect) {
		t.Helper()
		if !slices.ContainsFunc(got, func(e Effect) bool { return fmt.Sprint(e) == fmt.Sprint(want) }) {
			t.Fatalf("got %v, want %v among them", got, want)
		}
	}
	step(Began{})
	pilot := Lay{Stage: 0, Items: 5, Pilot: true}
	wants(step(WasCut{0, 20}), pilot)
	for try, size := range []uint64{5, 2} {
		r := Ref{0, 0, try + 1}
		wants(step(Laid{0, []Layout{{Items: size, Bound: 9}}}), Post{Ref: r, Bound: 9})
		step(Posted{r, crowd.JobID{byte(try + 1)}})
		step(Ended{Ref: r, State: Settled, Paid: 7})
		wants(step(Fetched{r}), Lay{Stage: 0, First: size, Items: 20 - size})
		if try == 0 {
			wants(step(Again{0}), pilot)
			if st := s.Stages[0]; len(st.Shards) != 0 || st.Items != 20 {
				t.Fatalf("got %+v want an empty stage of 20 items", st)
			}
		}
	}
	r := Ref{0, 1, 2} // numbers of the shards before are not used again
	wants(step(Laid{0, []Layout{{Items: 18}}}), Post{Ref: r})
	step(Posted{r, crowd.JobID{9}})
	step(Ended{Ref: r, State: Settled, Paid: 1})
	wants(step(Fetched{r}), Done{})
	if s.Paid != 15 || s.Stages[0].covered() != 20 {
		t.Errorf("got %d paid for %d items, want 15 for 20", s.Paid, s.Stages[0].covered())
	}
}

// Both the slow job and its copy settle: equal roots are one more check, different ones a lie that a third job decides.
func TestMachine_ComparesWhenBothSettle(t *testing.T) {
	for _, c := range []struct {
		name         string
		slow, copy   byte // roots; 0 is right
		equal, third int
		wrong        int // try
		cuts         int // of what the next stage reads: once more if it read a lie
		end          Effect
	}{
		{"equal", 0, 0, 1, 0, 0, 1, Done{}},
		{"the copy lies", 0, 9, 0, 1, 2, 2, Done{}},
		{"the first lies", 9, 0, 0, 1, 1, 1, Done{}},
		{"all differ", 9, 8, 0, 1, 0, 1, GiveUp{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 2, Config{Parallel: 4}, mapReduce, []uint64{20, 3}, 2)
			third := 0
			w.script = func(stage, shard, n int) (fate, bool) {
				f, _ := honest(3)
				if stage == 0 && shard == 8 {
					f.late = true // to cancel
					switch n {
					case 0:
						f.took, f.root = 20*time.Second, c.slow
					case 1:
						f.took, f.root = 10*time.Second, c.copy
					case 2:
						third++
						if c.end == (GiveUp{}) {
							f.root = 7
						}
					}
				}
				return f, true
			}
			end := w.play(24 * time.Hour)
			s := w.m.State()
			_, done := end.(Done)
			if _, want := c.end.(Done); done != want || s.Equal != c.equal || third != c.third {
				t.Fatalf("got %+v, %d equal, %d third jobs; want %T, %d, %d", end, s.Equal, third, c.end, c.equal, c.third)
			}
			if !done {
				if g := end.(GiveUp); g.Reason != Disagreed {
					t.Errorf("got %+v", g)
				}
				return
			}
			w.whole()
			if c.third > 0 && (len(s.Conflicts) != 1 || s.Conflicts[0].Wrong != c.wrong || len(w.heard(NewsConflict)) != 1 || len(w.heard(NewsWrong)) != 1) {
				t.Errorf("got %+v, want the odd one out to be %d, and people to be told", s.Conflicts, c.wrong)
			}
			sh := &s.Stages[0].Shards[8]
			if j := w.job(sh.attempt(sh.Use).Job); j.fate.root != 0 {
				t.Error("a lie is used")
			}
			if w.cuts[1] != c.cuts {
				t.Errorf("what the next stage reads was made %d times", w.cuts[1])
			}
		})
	}
}

// Where two right results may differ there are no roots: the first is used, and nothing is said of the second.
func TestMachine_WithoutRoots(t *testing.T) {
	s, err := New([]Node{{Name: "map"}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Resume(Config{Copies: 2}, s)
	if err != nil {
		t.Fatal(err)
	}
	a, b := Ref{0, 0, 1}, Ref{0, 0, 2}
	var last []Effect
	for i, ev := range []Event{Began{}, WasCut{0, 1}, Laid{0, []Layout{{Items: 1}}}, Posted{a, crowd.JobID{1}}, Posted{b, crowd.JobID{2}}, Ended{Ref: b, State: Settled}, Ended{Ref: a, State: Settled}, Fetched{b}} {
		last = m.Step(time.Unix(1e9+int64(i), 0), ev)
	}
	if want := []Effect{Tell{b, NewsDone, ""}, Done{}}; !slices.Equal(last, want) || s.Equal != 0 || len(s.Conflicts) != 0 || s.Stages[0].Shards[0].Use != 2 {
		t.Errorf("got %v, %+v want %v", last, s, want)
	}
}

// Holders that go away for good cost their shards a second job, those that come back cost nothing; what was lost and
// computed again differently makes the stages behind begin anew.
func TestMachine_LostSources(t *testing.T) {
	for _, c := range []struct {
		name string
		back float64
		root byte // of the second job of a lost shard
		jobs int  // of the stage that is read
		cuts int
	}{
		{"for good", 0, 0, 11, 1},
		{"they come back", 1, 0, 10, 1},
		{"the first was a lie", 0, 3, 12, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 3, Config{}, []Node{{Name: "map"}, {Name: "reduce", From: []string{"map"}}}, []uint64{20, 4}, 2)
			w.back = c.back
			w.script = func(stage, shard, n int) (fate, bool) {
				f, _ := honest(3)
				if stage == 0 && shard == 4 && n > 0 {
					f.root = c.root
				}
				if stage == 1 && n == 0 && shard == 0 { // the holder of shard 4 goes away meanwhile
					for _, j := range w.jobs {
						j.dead = j.dead || j.stage == 0 && j.shard == 4
					}
				}
				return f, true
			}
			if end, ok := w.play(24 * time.Hour).(Done); !ok {
				t.Fatalf("got %+v", end)
			}
			w.whole()
			n := 0
			for _, j := range w.jobs {
				if j.stage == 0 {
					n++
				}
			}
			if n != c.jobs || w.cuts[1] != c.cuts {
				t.Errorf("%d jobs and %d cuts, want %d and %d", n, w.cuts[1], c.jobs, c.cuts)
			}
		})
	}
}

// What the user or the machine's limits end is told with its reason, after what is under way has ended.
func TestMachine_GivesUp(t *testing.T) {
	for _, c := range []struct {
		name   string
		cfg    Config
		fate   fate
		refuse float64
		reason Reason
		jobs   int
	}{
		{"a user's error is not repeated", Config{}, fate{end: Failed, user: true}, 0, UserFault, 5},
		{"somebody cancelled", Config{}, fate{end: Cancelled}, 0, TakenBack, 5},
		{"all jobs fail", Config{Patience: time.Millisecond}, fate{end: Failed}, 0, ShardLost, 8}, // the others finish
		{"nobody is there", Config{Patience: time.Minute}, fate{end: Settled}, 1, NotPosted, 0},
		{"a budget for two shards", Config{Budget: 41}, fate{end: Settled}, 0, OverBudget, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 4, c.cfg, []Node{{Name: "map"}}, []uint64{10}, 2)
			w.refuse = c.refuse
			w.script = func(_, shard, n int) (fate, bool) {
				f, _ := honest(3)
				if shard == 2 {
					f = c.fate
					f.took = time.Second
				}
				return f, true
			}
			g, ok := w.play(24 * time.Hour).(GiveUp)
			if !ok || g.Reason != c.reason || g.Why == "" {
				t.Fatalf("got %+v want %s", w.ends, c.reason)
			}
			if c.jobs > 0 && len(w.jobs) != c.jobs {
				t.Errorf("%d jobs were posted, want %d", len(w.jobs), c.jobs)
			}
			for _, j := range w.jobs {
				if !j.ended {
					t.Errorf("job of shard %d is under way still", j.shard)
				}
			}
		})
	}
}

func TestNew(t *testing.T) {
	wide := []Node{{Name: "a"}}
	for _, n := range "bcdefghij" {
		wide = append(wide, Node{Name: string(n), From: []string{"a"}})
	}
	for _, c := range []struct {
		name  string
		nodes []Node
		want  string // the order, or the error
	}{
		{"one", []Node{{Name: "a"}}, "a"},
		{"as written where it may", []Node{{Name: "c"}, {Name: "a"}, {Name: "b", From: []string{"a", "c"}}}, "c a b"},
		{"what is read comes first", []Node{{Name: "b", From: []string{"a"}}, {Name: "a"}}, "a b"},
		{"none", nil, "0 stages, want 1 to 32"},
		{"no name", []Node{{}}, "stage 1 has no name"},
		{"twice", []Node{{Name: "a"}, {Name: "a"}}, "two stages are called a"},
		{"unknown", []Node{{Name: "a", From: []string{"b"}}}, "stage a reads b, which is no stage"},
		{"doubled", []Node{{Name: "a"}, {Name: "b", From: []string{"a", "a"}}}, "stage b reads a twice"},
		{"itself", []Node{{Name: "a", From: []string{"a"}}}, "wait for each other"},
		{"a circle", []Node{{Name: "x", From: []string{"c"}}, {Name: "a", From: []string{"c"}}, {Name: "b", From: []string{"a"}}, {Name: "c", From: []string{"b"}}}, "c → a → b → c wait for each other: a flow has no circles"},
		{"too wide", wide, "more than 8 stages read a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := New(c.nodes)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				names := []string{}
				for i, st := range s.Stages {
					names = append(names, st.Name)
					if slices.ContainsFunc(st.From, func(f int) bool { return f >= i }) {
						t.Errorf("stage %s reads one behind it", st.Name)
					}
				}
				got = strings.Join(names, " ")
			}
			if err == nil && got != c.want || err != nil && !strings.Contains(got, c.want) {
				t.Errorf("got %q want %q", got, c.want)
			}
		})
	}
}

func TestConfig_Validate(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the zero value: got %v", err)
	}
	err := Config{Parallel: -1, Copies: 9, Slow: 0.5, LastShare: 2, CopyShare: -1, Pause: -1, Tries: -1}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") != 6 {
		t.Errorf("got %v, want seven things", err)
	}
}

// Whose job's nodes are all away gets another at once, late or not, and room for it; but no more than Open at a time. It is
// as good as any when they are back: what settles first is used, the others are taken back.
func TestMachine_SilentJobsAreReplacedAtOnce(t *testing.T) {
	s, err := New([]Node{{Name: "map"}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Resume(Config{Parallel: 2, Open: 3, Slow: 1000}, s)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	step := func(ev Event) (posts []Post, cancelled []crowd.JobID) {
		for _, e := range m.Step(now, ev) {
			switch e := e.(type) {
			case Post:
				posts = append(posts, e)
			case Cancel:
				cancelled = append(cancelled, e.Job)
			}
		}
		return posts, cancelled
	}
	post := func(ev Event, shards ...int) {
		t.Helper()
		posts, _ := step(ev)
		var got []int
		for _, p := range posts {
			got = append(got, p.Ref.Shard)
			if p.Copy != (p.Ref.Try > 1) || len(p.Avoid) != p.Ref.Try-1 {
				t.Errorf("%+v: want a copy for others, if it is not the first", p)
			}
			step(Posted{p.Ref, crowd.JobID{byte(10*p.Ref.Shard + p.Ref.Try)}})
		}
		if !slices.Equal(got, shards) {
			t.Fatalf("%+v: got posts of shards %v, want %v", ev, got, shards)
		}
	}
	step(Began{})
	step(WasCut{0, 4})
	post(Laid{0, []Layout{{Items: 1}, {Items: 1}, {Items: 1}, {Items: 1}}}, 0, 1)
	post(Silent{Ref: Ref{0, 0, 1}}, 0)
	post(Silent{Ref: Ref{0, 0, 1}, Heard: true})
	post(Silent{Ref: Ref{0, 0, 1}}) // there is a second
	post(Silent{Ref: Ref{0, 0, 2}}, 0)
	post(Silent{Ref: Ref{0, 0, 3}}, 2) // as many as may be
	_, cancelled := step(Ended{Ref: Ref{0, 0, 1}, State: Settled, Root: crowd.Hash{1}})
	if want := []crowd.JobID{{2}, {3}}; !slices.Equal(cancelled, want) {
		t.Errorf("got %v taken back, want %v", cancelled, want)
	}
}
