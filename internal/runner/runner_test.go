package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// bubble runs f in virtual time, with all nodes but the absent ones started.
func bubble(t *testing.T, f func(t *testing.T, ctx context.Context, w *world, rs []*Runner)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := newWorld(t, ctx)
		var rs []*Runner
		var ended []chan struct{}
		for _, n := range w.nodes {
			r, e := n.start(ctx)
			rs, ended = append(rs, r), append(ended, e)
		}
		f(t, ctx, w, rs)
		cancel()
		for _, e := range ended {
			<-e
		}
		time.Sleep(2 * time.Second) // virtual: a closed database takes one to end its last goroutine
		synctest.Wait()
	})
}

// until waits in virtual time.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 100_000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond) // virtual
	}
	t.Fatalf("waited in vain: %s", what)
}

func (w *world) ends(id crowd.JobID) func() bool {
	return func() bool { j := w.job(id); return j.State.Ended() }
}

func stages(rs []job.Report) string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Stage)
	}
	return strings.Join(out, " ")
}

// A node whose stream is lost again and again, as on a busy machine, does not add to the load: one survey at a time, each job
// looked up once at a time and few of them at a time, and none that has ended.
func TestRunner_LossesDoNotPileUp(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		ended := w.post(ctx, "echo", nil)
		until(t, "the end of the job", w.ends(ended))
		var open []crowd.JobID
		for range 3 * maxLooks {
			open = append(open, w.post(ctx, "sleep", nil))
		}
		time.Sleep(time.Second) // virtual
		var mu sync.Mutex
		flying, most, looked, twice := map[crowd.JobID]int{}, 0, map[crowd.JobID]int{}, false
		n := w.nodes[consumer]
		w.mu.Lock()
		n.slow = func(ctx context.Context, id crowd.JobID) {
			mu.Lock()
			flying[id]++
			looked[id]++
			twice = twice || flying[id] > 1
			sum := 0
			for _, f := range flying {
				sum += f
			}
			most = max(most, sum)
			mu.Unlock()
			select {
			case <-time.After(200 * time.Millisecond): // virtual
			case <-ctx.Done():
			}
			mu.Lock()
			flying[id]--
			mu.Unlock()
		}
		w.mu.Unlock()
		before := n.surveys.Load()
		const losses = 200
		for range losses {
			w.lose(n)
			time.Sleep(10 * time.Millisecond) // virtual
		}
		until(t, "the jobs' end", func() bool {
			for _, id := range open {
				if !w.ends(id)() {
					return false
				}
			}
			return true
		})
		mu.Lock()
		defer mu.Unlock()
		surveys := n.surveys.Load() - before
		t.Logf("%d losses: %d surveys; at most %d look-ups at a time", losses, surveys, most)
		if surveys == 0 || surveys > losses/2 || most > maxLooks || twice || looked[ended] > 0 {
			t.Errorf("%d losses: got %d surveys, %d look-ups at a time (at most %d), two of one job at a time %v, %d of a job that had ended",
				losses, surveys, most, maxLooks, twice, looked[ended])
		}
	})
}

func TestRunner_OneJob(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		began := time.Now()
		id := w.post(ctx, "echo", nil)
		until(t, "the end of the job", w.ends(id))
		until(t, "the consumer's hearing of it", func() bool { return strings.Contains(stages(w.nodes[consumer].told()), "settled") })
		story := w.nodes[consumer].told()
		j := w.job(id)
		if j.State != ledger.Settled || j.Verdict.By != ledger.ByAgreement {
			t.Fatalf("got job %s by %s, want settled by agreement: %+v", j.State, j.Verdict.By, j.History)
		}
		got, err := os.ReadFile(filepath.Join(w.nodes[consumer].path(j.Verdict.Outcome.Result), "stdout"))
		if err != nil || string(got) != "echo [a] input" {
			t.Fatalf("got stdout %q, %v", got, err)
		}
		want := "posted claiming running working working committed committed revealing revealed revealed delivering verdict fetching delivered settled"
		for _, s := range strings.Fields(want) {
			if !strings.Contains(stages(story), s) {
				t.Errorf("got stages %q, want %q", stages(story), want)
			}
		}
		t.Logf("virtual time %v", time.Since(began))
		for _, i := range []int{providerA, providerB} {
			var said string
			for _, c := range w.nodes[i].heard {
				said += fmt.Sprintf("%d:%s:%d ", c.Stream, c.Data, c.Gas)
			}
			if want := "1:echo [a] input:0 3::7 4:done:0 "; said != want {
				t.Errorf("got live words %q, want %q", said, want)
			}
		}
		time.Sleep(time.Duration(params.Retention)*time.Millisecond + 2*time.Minute) // virtual
		for i, n := range w.nodes {
			left, err := os.ReadDir(filepath.Join(n.dir, "runner", "scratch"))
			if err != nil || len(left) != 0 {
				t.Errorf("node %d: got %d files left in scratch, %v", i, len(left), err)
			}
			if left, err := rs[i].journals.all(); err != nil || len(left) != 0 {
				t.Errorf("node %d: got %d journals left, %v", i, len(left), err)
			}
			want := 0
			if i == consumer {
				want = 1 // the result is the user's
			}
			n.mu.Lock()
			if len(n.pins) != want {
				t.Errorf("node %d: got pins %v, want %d", i, n.pins, want)
			}
			n.mu.Unlock()
		}
	})
}

func TestRunner_Ends(t *testing.T) {
	for _, tt := range []struct {
		name, program string
		bend          func(*crowd.JobSpec)
		before        func(w *world)
		state         ledger.JobState
		status        crowd.Status
		by            string
	}{
		{"a program that fails", "fail", nil, nil, ledger.Settled, crowd.Exited, ledger.ByAgreement},
		{"a program that takes its time", "sleep", nil, nil, ledger.Settled, crowd.Exited, ledger.ByAgreement},
		{"a folder for a program", "echo", func(s *crowd.JobSpec) { s.Task.Program = s.Task.Inputs }, nil, ledger.Settled, crowd.NoInput, ledger.ByAgreement},
		{"a file for a folder", "echo", func(s *crowd.JobSpec) { s.Task.Inputs = s.Task.Program }, nil, ledger.Settled, crowd.NoInput, ledger.ByAgreement},
		{"a folder for stdin", "echo", func(s *crowd.JobSpec) { s.Task.Stdin = s.Task.Inputs }, nil, ledger.Settled, crowd.NoInput, ledger.ByAgreement},
		{"inputs that are not there", "echo", func(s *crowd.JobSpec) { s.Task.Inputs = "nowhere" }, nil, ledger.Failed, 0, ""},
		{"an executor that crashes", "crash", nil, nil, ledger.Failed, 0, ""},
		{"one dead provider", "echo", nil, func(w *world) { w.nodes[providerA].kill() }, ledger.Failed, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
				if tt.before != nil {
					tt.before(w)
				}
				id := w.post(ctx, tt.program, tt.bend)
				until(t, "the end of the job", w.ends(id))
				j := w.job(id)
				if j.State != tt.state {
					t.Fatalf("got job %s (%s), want %s", j.State, j.History[len(j.History)-1].Why, tt.state)
				}
				if j.Verdict != nil && (j.Verdict.By != tt.by || j.Verdict.Outcome.Status != tt.status) {
					t.Fatalf("got verdict %+v, want %s by %s", j.Verdict, tt.status, tt.by)
				}
			})
		})
	}
}

func TestRunner_Cancel(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		id := w.post(ctx, "sleep", nil)
		until(t, "running", func() bool { return w.nodes[providerA].ran()+w.nodes[providerB].ran() == 2 })
		if err := rs[providerA].Cancel(ctx, id); err == nil {
			t.Error("a stranger could cancel")
		}
		if err := rs[consumer].Cancel(ctx, id); err != nil {
			t.Fatal(err)
		}
		until(t, "the end of the job", w.ends(id))
		if j := w.job(id); j.State != ledger.Cancelled {
			t.Fatalf("got job %s", j.State)
		}
		until(t, "the runs are stopped", func() bool {
			left, _ := os.ReadDir(filepath.Join(w.nodes[providerA].dir, "runner", "scratch"))
			return len(left) == 0
		})
	})
}

// TestRunner_KilledAnywhere kills one node at each of its calls to the outside,
// before or after the call did its work, and starts it again on the same folder.
func TestRunner_KilledAnywhere(t *testing.T) {
	for name, victim := range map[string]int{"executor": providerA, "consumer": consumer, "authority": authority} {
		t.Run(name, func(t *testing.T) {
			kills := 0
			defer func() {
				if kills < 5 {
					t.Errorf("got only %d moments to kill", kills)
				}
			}()
			for at, more := 1, true; more; at++ {
				if at > 100 {
					t.Fatal("the node makes more and more calls")
				}
				bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
					n := w.nodes[victim]
					if victim == authority { // one executor dies for good, so that the court has work
						w.nodes[providerA].killAt = 2
					}
					id := w.post(ctx, "echo", nil)
					n.mu.Lock()
					n.calls, n.killAt = 0, at
					n.mu.Unlock()
					until(t, "the end of the job, or the kill", func() bool {
						n.mu.Lock()
						defer n.mu.Unlock()
						return n.calls >= n.killAt || w.ends(id)()
					})
					n.mu.Lock()
					more = n.calls >= n.killAt
					n.mu.Unlock()
					if more {
						kills++
						n.kill()
						synctest.Wait()
						n.mu.Lock()
						n.killAt = 0
						n.mu.Unlock()
						_, ended := n.start(ctx)
						defer func() { n.kill(); <-ended }()
					}
					until(t, "the end of the job", w.ends(id))
					j := w.job(id)
					if j.State != ledger.Settled {
						t.Fatalf("killed at call %d: got job %s (%+v), want settled", at, j.State, j.History)
					}
					until(t, "the result at home", func() bool { return w.nodes[consumer].has(j.Verdict.Outcome.Result) })
					for _, k := range []int{providerA, providerB} {
						if got := len(w.commits[w.nodes[k].key.ID()]); got > 1 {
							t.Fatalf("killed at call %d: got %d different commits of one node", at, got)
						}
					}
				})
			}
		})
	}
}

func TestRunner_PutsDamagedJournalsAside(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		n := w.nodes[providerA]
		n.kill()
		synctest.Wait()
		dir := filepath.Join(n.dir, "runner", "journals")
		db, err := leveldb.OpenFile(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Put([]byte("whatever"), []byte("no journal"), nil), db.Close()); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(n.dir, "runner", "scratch", "run-1", "left"), 0o700); err != nil {
			t.Fatal(err)
		}
		_, ended := n.start(ctx)
		id := w.post(ctx, "echo", nil)
		until(t, "the end of the job", w.ends(id))
		left, err := os.ReadDir(filepath.Join(n.dir, "runner", "scratch"))
		if err != nil || len(left) != 0 {
			t.Errorf("got %d folders in scratch, %v", len(left), err)
		}
		n.kill()
		<-ended
		if db, err = leveldb.OpenFile(dir, nil); err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if got, err := db.Get([]byte(damagedPrefix+"whatever"), nil); err != nil || string(got) != "no journal" {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := db.Get([]byte("whatever"), nil); err == nil {
			t.Error("a damaged journal stands where it would be read again")
		}
	})
}

// A node that cannot do a job takes no place in it, and is not to blame for that.
func TestRunner_TakesNoPartInWhatItDoesNotAccept(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		w.nodes[providerA].shy = true
		id := w.post(ctx, "echo", nil)
		until(t, "the end of the job", w.ends(id))
		j := w.job(id)
		if j.State != ledger.Failed || len(j.Drawn) != 1 || j.Drawn[0].Node != w.nodes[providerB].key.ID() {
			t.Errorf("got %s and %d claims, want one: %+v", j.State, len(j.Drawn), j.History)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if r := w.state.Reputation(w.nodes[providerA].key.ID().Address()); r.Faults != 0 {
			t.Errorf("got %d faults", r.Faults)
		}
	})
}

// A node that can keep nothing more, so that its machine cannot go on, leaves its place to an alternate at once.
func TestRunner_GivesItsPlaceUpWhereNothingCanBeKept(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		n := w.nodes[providerA]
		n.mu.Lock()
		n.full = true
		n.mu.Unlock()
		id := w.post(ctx, "echo", nil)
		until(t, "the end of its place", func() bool {
			j := w.job(id)
			p := j.Place(n.key.ID())
			return p != nil && p.State == ledger.Dropped
		})
		j := w.job(id)
		if p := j.Place(n.key.ID()); !strings.Contains(p.Why, "disk") || w.now() >= p.Due {
			t.Errorf("it was dropped at %d, due at %d: %q", w.now(), p.Due, p.Why)
		}
	})
}

// A sample is short, and others wait for it: it stands behind no whole batch.
func TestRunner_ASampleHasItsOwnRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Runner{cfg: Config{Memory: 1 << 30}, runs: semaphore.NewWeighted(1), samples: semaphore.NewWeighted(1), memory: semaphore.NewWeighted(3 << 28), spare: semaphore.NewWeighted(1 << 28)}
		room := func(memory uint64, short bool) (func(), error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // virtual
			defer cancel()
			return r.room(ctx, memory, short)
		}
		whole, err := room(3<<28, false) // all the memory that there is for such
		if err != nil {
			t.Fatal(err)
		}
		if _, err := room(1<<20, false); err == nil {
			t.Error("two whole batches run where one may")
		}
		sample, err := room(1<<20, true)
		if err != nil {
			t.Fatalf("a sample waits for a batch: %v", err)
		}
		if _, err := room(1<<20, true); err == nil {
			t.Error("two samples run beside a batch")
		}
		sample()
		whole()
		if _, err := room(3<<28, false); err != nil {
			t.Errorf("what was given back is not there: %v", err)
		}
	})
}

// Two tasks that do not fit into the memory side by side run one after the other, and one that never fits is refused at once.
func TestRunner_RunsTogetherStayWithinTheMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory = 16 << 30
		var mu sync.Mutex
		held, most := uint64(0), uint64(0)
		r, n := comparing(t, runs(func(s executor.Spec) {
			mu.Lock()
			held += s.Limits.Memory
			most = max(most, held)
			mu.Unlock()
			time.Sleep(time.Minute) // virtual
			mu.Lock()
			held -= s.Limits.Memory
			mu.Unlock()
		}))
		r.cfg.Memory, r.cfg.Runs = memory, 16
		r.runs = semaphore.NewWeighted(16)
		r.memory, r.spare = semaphore.NewWeighted(int64(memory-r.cfg.forSamples())), semaphore.NewWeighted(int64(r.cfg.forSamples()))
		task := crowd.Task{Program: n.text(t, "program"), Limits: crowd.Limits{Gas: 1 << 30, Memory: memory * 6 / 10}}
		began := time.Now()
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if _, _, _, err := r.execute(t.Context(), slot{}, crowd.NodeID{}, job.Run{Task: task}); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if took := time.Since(began); most != task.Limits.Memory || took != 2*time.Minute {
			t.Errorf("got %d bytes at once and an end after %v, want %d and 2m", most, took, task.Limits.Memory)
		}
		task.Limits.Memory = memory * 9 / 10
		_, _, _, err := r.execute(t.Context(), slot{}, crowd.NodeID{}, job.Run{Task: task})
		if f := (*executor.Fault)(nil); !errors.As(err, &f) || f.Kind != executor.Unsupported || time.Since(began) != 2*time.Minute {
			t.Errorf("got %v, want it refused at once", err)
		}
		// As many items of a batch at once as fit into its half, and at least one.
		for memory, want := range map[uint64]int{1 << 20: 16, 1 << 30: 5, 8 << 30: 1} {
			e := job.Run{Items: 100, Task: crowd.Task{Limits: crowd.Limits{Memory: memory}}}
			if got := r.lanes(&e); got != want {
				t.Errorf("%d bytes an item: got %d items at once, want %d", memory, got, want)
			}
		}
	})
}

// runs is an executor that does something, and then says that all went well.
type runs func(executor.Spec)

func (f runs) Run(_ context.Context, s executor.Spec, _ executor.IO) (executor.Result, error) {
	f(s)
	return executor.Result{Status: crowd.Exited, Gas: s.Spent + 1}, nil
}
