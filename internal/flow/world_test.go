package flow

import (
	"container/heap"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
)

// world is a driver and a network of providers that come and go, on a virtual clock. Its driver can be killed before
// and after any effect.
type world struct {
	t     testing.TB
	rng   *rand.Rand
	cfg   Config
	seed  uint64
	now   time.Time
	queue queue
	seq   int
	run   int // drivers so far; what an earlier one asked for answers nobody

	disk []byte // the state as it was written last
	m    *Machine
	ends []Effect // Done or GiveUp

	items  []uint64 // of each stage
	shard  uint64
	jobs   []*job
	told   []Tell
	cuts   []int // per stage
	paid   crowd.Credits
	steps  int
	kill   float64 // probability of being killed at a point
	faults bool    // off: the network is fair from now on
	fail   float64 // probabilities, while faults is on
	slow   float64
	refuse float64
	lie    float64
	die    float64 // that the holder of a stage's parts goes away
	back   float64 // that it comes back
	full   bool    // jobs cost all that they may

	// fixed runs of a job, by stage, shard and how many came before it
	script func(stage, shard, n int) (fate, bool)
}

type fate struct {
	took time.Duration
	end  AttemptState
	root byte
	late bool // too late to cancel
	user bool
}

type job struct {
	id           crowd.JobID
	stage, shard int
	first        uint64
	fate         fate
	ends         time.Time
	ended        bool
	bound, paid  crowd.Credits
	dead         bool // who holds its parts is away
	source       bool
	copy         bool
}

type timer struct {
	at  time.Time
	seq int
	run int
	do  func()
}

type queue []timer

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(timer)) }
func (q *queue) Pop() any     { x := (*q)[len(*q)-1]; *q = (*q)[:len(*q)-1]; return x }

func newWorld(t testing.TB, seed uint64, cfg Config, nodes []Node, items []uint64, shard uint64) *world {
	s, err := New(nodes)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), cfg: cfg, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), items: items, shard: shard,
		cuts: make([]int, len(nodes)), faults: true}
	w.write(s)
	return w
}

func (w *world) write(s *State) {
	raw, err := json.Marshal(s)
	if err != nil {
		w.t.Fatal(err)
	}
	w.disk = raw
}

// start is a new driver on what is on disk.
func (w *world) start() {
	w.run++
	var s State
	if err := json.Unmarshal(w.disk, &s); err != nil {
		w.t.Fatal(err)
	}
	m, err := Resume(w.cfg, &s)
	if err != nil {
		w.t.Fatal(err)
	}
	w.m = m
	w.step(Began{})
}

func (w *world) chance(p float64) bool { return w.faults && w.rng.Float64() < p }

// after does f then, if this driver is still there.
func (w *world) after(d time.Duration, f func()) {
	w.seq++
	heap.Push(&w.queue, timer{w.now.Add(d), w.seq, w.run, f})
}

func (w *world) answer(d time.Duration, ev Event) { w.after(d, func() { w.step(ev) }) }

// killed reports whether the driver was killed here; it is started again a little later.
func (w *world) killed() bool {
	if !w.chance(w.kill) {
		return false
	}
	w.run++
	w.after(time.Duration(w.rng.IntN(20_000))*time.Millisecond, w.start)
	return true
}

func (w *world) step(ev Event) {
	if w.killed() {
		return
	}
	w.steps++
	effects := w.m.Step(w.now, ev)
	if w.killed() {
		return
	}
	w.write(w.m.State())
	for _, e := range effects {
		if w.killed() {
			return
		}
		w.do(e)
	}
	w.check()
	if d := w.m.Deadline(); !d.IsZero() {
		w.after(max(0, d.Sub(w.now)), func() { w.step(Woke{}) })
	}
}

func (w *world) do(e Effect) {
	lag := time.Duration(1+w.rng.IntN(300)) * time.Millisecond
	switch e := e.(type) {
	case Cut:
		for _, from := range w.m.State().Stages[e.Stage].From {
			for _, sh := range w.m.State().Stages[from].Shards {
				if w.job(sh.attempt(sh.Use).Job).dead {
					w.answer(lag, NotCut{e.Stage, "no holder answers"})
					return
				}
			}
		}
		w.cuts[e.Stage]++
		w.answer(lag, WasCut{e.Stage, w.items[e.Stage]})
	case Lay:
		var out []Layout
		for at := uint64(0); at < e.Items; at += w.shard {
			out = append(out, Layout{Items: min(w.shard, e.Items-at), Bound: crowd.Credits(min(w.shard, e.Items-at)) * 10})
		}
		w.answer(lag, Laid{e.Stage, out})
	case Post:
		if w.chance(w.refuse) {
			w.answer(lag, Refused{Ref: e.Ref, Passing: true, Why: "nobody is there"})
			return
		}
		for _, from := range w.m.State().Stages[e.Ref.Stage].From {
			for _, sh := range w.m.State().Stages[from].Shards {
				if w.job(sh.attempt(sh.Use).Job).dead && w.rng.IntN(2) == 0 {
					w.answer(lag, Refused{Ref: e.Ref, Source: true, Why: "no holder answers"})
					return
				}
			}
		}
		j := w.post(e)
		w.answer(lag, Posted{e.Ref, j.id})
	case Find:
		w.after(lag, func() {
			var ids []crowd.JobID
			for _, j := range w.jobs {
				if j.stage == e.Ref.Stage && j.first == w.m.State().Stages[e.Ref.Stage].Shards[e.Ref.Shard].First {
					ids = append(ids, j.id)
				}
			}
			w.step(Found{e.Ref, ids})
		})
	case Follow:
		j := w.job(e.Job)
		if !j.ended {
			lag = max(lag, j.ends.Sub(w.now))
		}
		w.after(lag, func() {
			if !j.ended {
				w.end(j)
			}
			w.step(w.ended(e.Ref, j))
		})
	case Cancel:
		j := w.job(e.Job)
		if !j.ended && !j.fate.late {
			j.ended, j.fate.end = true, Cancelled
			j.paid = j.bound / 10
			w.paid += j.paid
			w.answer(time.Second, w.ended(e.Ref, j))
		}
	case Fetch:
		w.answer(lag, Fetched{e.Ref})
	case Probe:
		var lost []int
		for k := range w.m.State().Stages[e.Stage].Shards {
			sh := &w.m.State().Stages[e.Stage].Shards[k]
			if a := sh.attempt(sh.Use); a != nil && w.job(a.Job).dead {
				if w.rng.Float64() < w.back {
					w.job(a.Job).dead = false
				} else {
					lost = append(lost, k)
				}
			}
		}
		w.answer(lag, Probed{e.Stage, lost})
	case Tell:
		w.told = append(w.told, e)
	case GiveUp, Done:
		w.ends = append(w.ends, e)
	}
}

func (w *world) post(e Post) *job {
	st := w.m.State().Stages[e.Ref.Stage]
	j := &job{stage: e.Ref.Stage, shard: e.Ref.Shard, first: st.Shards[e.Ref.Shard].First, bound: e.Bound, copy: e.Copy}
	j.id = crowd.JobID(crowd.Digest("a job", uint64(len(w.jobs))))
	n := 0
	for _, o := range w.jobs {
		if o.stage == j.stage && o.shard == j.shard {
			n++
		}
	}
	j.fate = fate{took: time.Duration(2000+w.rng.IntN(2000)) * time.Millisecond, end: Settled}
	if w.script != nil {
		if f, ok := w.script(j.stage, j.shard, n); ok {
			j.fate = f
		}
	} else {
		if w.chance(w.slow) {
			j.fate.took *= time.Duration(5 + w.rng.IntN(30))
		}
		if w.chance(w.fail) {
			j.fate.end = Failed
		}
		j.fate.late = w.rng.IntN(4) == 0
		if w.chance(w.lie) {
			j.fate.root = byte(1 + w.rng.IntN(250))
		}
	}
	for _, from := range st.From {
		for _, sh := range w.m.State().Stages[from].Shards {
			if w.job(sh.attempt(sh.Use).Job).dead {
				j.fate.end, j.source = Failed, true
			}
		}
	}
	j.ends = w.now.Add(j.fate.took)
	w.jobs = append(w.jobs, j)
	return j
}

func (w *world) end(j *job) {
	j.ended = true
	switch {
	case j.fate.end != Settled:
	case w.full:
		j.paid = j.bound
	default:
		j.paid = j.bound/4 + crowd.Credits(w.rng.IntN(int(j.bound/2)+1))
	}
	w.paid += j.paid
	j.dead = w.chance(w.die)
}

func (w *world) ended(r Ref, j *job) Ended {
	e := Ended{Ref: r, State: j.fate.end, Paid: j.paid, User: j.fate.user, Source: j.source, Why: "it failed"}
	if j.fate.end == Settled {
		e.Root = crowd.Digest("root", fmt.Sprint(j.stage, j.first, j.fate.root))
	}
	return e
}

func (w *world) job(id crowd.JobID) *job {
	i := slices.IndexFunc(w.jobs, func(j *job) bool { return j.id == id })
	if i < 0 {
		w.t.Fatalf("seed %d: no job %s", w.seed, id.Short())
	}
	return w.jobs[i]
}

// check holds the world against what the machine promises at every moment.
func (w *world) check() {
	if w.t.Failed() {
		w.t.FailNow()
	}
	s := w.m.State()
	locked, open := crowd.Credits(0), 0
	posted := map[Ref]int{}
	for _, j := range w.jobs {
		posted[Ref{j.stage, j.shard, 0}]++
		if !j.ended {
			locked += j.bound
			open++
		}
	}
	if b := w.cfg.Budget; b > 0 && w.paid+locked > b {
		w.t.Fatalf("seed %d, step %d: %d are paid and %d locked, the budget is %d", w.seed, w.steps, w.paid, locked, b)
	}
	if most := w.cfg.withDefaults().Parallel; open > most {
		w.t.Fatalf("seed %d, step %d: %d jobs at the same time, at most %d", w.seed, w.steps, open, most)
	}
	for r, n := range posted {
		if sh := s.Stages[r.Stage].Shards; r.Shard < len(sh) && n > sh[r.Shard].Tries {
			w.t.Fatalf("seed %d, step %d: %d jobs were posted for %d attempts of %v", w.seed, w.steps, n, sh[r.Shard].Tries, r)
		}
	}
}

// play goes on until the flow ends; it fails when that does not come.
func (w *world) play(fairFrom time.Duration) Effect {
	fair := w.now.Add(fairFrom)
	end := w.now.Add(24 * time.Hour)
	w.start()
	for len(w.ends) == 0 {
		if len(w.queue) == 0 {
			w.t.Fatalf("seed %d: nothing will happen any more: %s", w.seed, w.disk)
		}
		x := heap.Pop(&w.queue).(timer)
		w.now = x.at
		if !w.now.Before(fair) {
			w.faults = false
			for _, j := range w.jobs {
				j.dead = false
			}
		}
		if w.now.After(end) {
			w.t.Fatalf("seed %d: no end after a day: %s", w.seed, w.disk)
		}
		if x.run == w.run {
			x.do()
		}
	}
	return w.ends[0]
}

func (w *world) heard(n News) (out []Tell) {
	for _, t := range w.told {
		if t.News == n {
			out = append(out, t)
		}
	}
	return out
}

// whole checks that every item of every stage is in exactly one result, which is a settled job's.
func (w *world) whole() {
	w.t.Helper()
	s := w.m.State()
	for k := range s.Stages {
		next := uint64(0)
		for i := range s.Stages[k].Shards {
			sh := &s.Stages[k].Shards[i]
			if sh.First != next || !sh.Done {
				w.t.Fatalf("seed %d: stage %d, shard %d: begins at %d, want %d, done: %v", w.seed, k, i, sh.First, next, sh.Done)
			}
			next += sh.Items
			j := w.job(sh.attempt(sh.Use).Job)
			if j.stage != k || j.first != sh.First || j.fate.end != Settled || !j.ended {
				w.t.Fatalf("seed %d: stage %d, shard %d: its result is that of %+v", w.seed, k, i, j)
			}
		}
		if next != w.items[k] {
			w.t.Fatalf("seed %d: stage %d: %d items, want %d", w.seed, k, next, w.items[k])
		}
	}
}
