//go:build linux

package node

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// refusesCancel checks that a cancel comes too late, and says so.
func (f *fleet) refusesCancel(id crowd.JobID) {
	f.t.Helper()
	err := f.Cancel(f.t.Context(), id)
	var e *rpc.Error
	if !errors.As(err, &e) || e.Kind != rpc.TooLate || !strings.Contains(err.Error(), id.Short()) {
		f.t.Errorf("got %v want too late, naming the job", err)
	}
}

// cancelled checks the end of a job that its owner cancelled while so many executors worked.
func (f *fleet) cancelled(id crowd.JobID, r task, working int) {
	f.t.Helper()
	events := f.follow(id)
	last := events[len(events)-1]
	each := fleetParams().Pay(crowd.ReferencePrice, r.Limits.Gas) // CancelLeast is enough for all of it
	j := f.eye.in(id, ledger.Cancelled)
	if want := each*crowd.Credits(working) + j.Duties; last.Stage != rpc.Cancelled || last.Price != want {
		f.t.Fatalf("got %s at %s want cancelled at %s", last.Stage, last.Price, want)
	}
	paid := 0
	for _, p := range last.Payments {
		if p.Change == int64(each) && p.Account != f.id("consumer").Address() {
			paid++
		}
	}
	if paid != working {
		f.t.Errorf("%d executors were paid, want %d: %+v", paid, working, last.Payments)
	}
	f.eye.until(id, "its end", func(j *ledger.Job) bool { return j.State == ledger.Cancelled })
	f.closed(id, "")
	f.refusesCancel(id) // twice
}

func TestCancel_InEveryState(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for _, c := range []struct {
		name string
		play func(t *testing.T, r task)
	}{
		{"posted or claiming", func(t *testing.T, r task) {
			f.freeze(third) // so that it goes no further
			id := f.post(r)
			if err := f.Cancel(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			f.thaw(third)
			f.cancelled(id, r, 2) // the chain takes it as soon as the places are given
		}},
		{"claiming", func(t *testing.T, r task) {
			f.freeze(third)
			id := f.post(r)
			f.eye.claimed(id, victim)
			if err := f.Cancel(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			f.thaw(third)
			f.cancelled(id, r, 2)
		}},
		{"running", func(t *testing.T, r task) {
			id := f.computing(r)
			if err := f.Cancel(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			f.cancelled(id, r, 2)
		}},
		{"an executor has committed", func(t *testing.T, r task) {
			id := f.computing(r)
			f.open(victim)
			f.eye.place(id, victim, ledger.Committed)
			f.refusesCancel(id)
			f.open(providers...)
			f.settled(id, r)
		}},
		{"revealing", func(t *testing.T, r task) {
			id := f.computing(r)
			f.open(victim)
			f.eye.place(id, victim, ledger.Committed)
			f.freeze(victim)
			f.open(second, third)
			f.eye.in(id, ledger.Revealing)
			f.refusesCancel(id)
			f.thaw(victim)
			f.settled(id, r)
		}},
		{"in court", func(t *testing.T, r task) {
			r.Filters.Providers = []crowd.NodeID{f.id(victim), f.id(second)}
			f.hold("authority")
			id := f.computing(r)
			f.kill(second)
			f.open(victim)
			f.eye.in(id, ledger.Court)
			f.refusesCancel(id)
			f.open("authority")
			f.settled(id, r)
		}},
		{"settled", func(t *testing.T, r task) {
			id := f.post(r)
			f.settled(id, r)
			f.refusesCancel(id)
		}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			f.at(t)
			c.play(t, f.task(rounds))
			f.restart()
			f.open(providers...)
		})
		if !ok {
			break
		}
	}
	t.Run("a job that nobody knows", func(t *testing.T) {
		err := f.Cancel(t.Context(), crowd.JobID{1})
		var e *rpc.Error
		if !errors.As(err, &e) || e.Kind != rpc.NotFound {
			t.Errorf("got %v want not found", err)
		}
	})
}

// Of two providers one says nothing; and consumers that promise inputs and do not serve them.
func TestSilence(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for _, c := range []struct {
		name string
		play func(t *testing.T, r task)
	}{
		{"one of two executors never claims", func(t *testing.T, r task) {
			r.Filters.Providers = []crowd.NodeID{f.id(victim), f.id(second)}
			f.freeze(second)
			id := f.post(r)
			j := f.failed(id)
			f.thaw(second)
			if why := lastStep(j).Why; !strings.Contains(why, "1 of 2 eligible providers claimed") {
				t.Errorf("got %q want the requirement that failed", why)
			}
		}},
		{"one of two executors never commits", func(t *testing.T, r task) {
			r.Filters.Providers = []crowd.NodeID{f.id(victim), f.id(second)}
			f.hold(second)
			id := f.post(r)
			j := f.settled(id, r) // by the court: one alone proves nothing
			f.open(second)
			if p := j.Place(f.id(second)); j.Verdict.By != ledger.ByCourt || p.State != ledger.Dropped || p.Slashed != 0 {
				t.Errorf("got a verdict by %s and %+v want the court's and a dropped place", j.Verdict.By, p)
			}
		}},
		{"neither of two executors commits", func(t *testing.T, r task) {
			r.Filters.Providers = []crowd.NodeID{f.id(victim), f.id(second)}
			f.hold(victim, second)
			f.impossible(f.post(r)) // both say that they have no time left
			f.open(victim, second)
		}},
		{"the consumer stands still and serves nothing", func(t *testing.T, r task) {
			f.freeze(third)
			id := f.post(r)
			f.eye.claimed(id, victim)
			f.eye.claimed(id, second)
			f.freeze("consumer")
			f.thaw(third)
			j := f.eye.in(id, ledger.Settled)
			f.thaw("consumer")
			f.faultless(j)
			f.impossible(id)
		}},
		{"the consumer is gone before anybody has the inputs", func(t *testing.T, r task) {
			f.freeze(third)
			id := f.post(r)
			f.eye.claimed(id, victim)
			f.eye.claimed(id, second)
			f.kill("consumer")
			f.thaw(third)
			j := f.eye.in(id, ledger.Settled)
			f.faultless(j)
			f.forget("consumer")
			f.restart()
			f.impossible(id)
		}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			f.at(t)
			c.play(t, f.task(rounds))
		})
		if !ok {
			break
		}
	}
}

// faultless checks that nobody was taken for a cheater, and that no run was begun without inputs.
func (f *fleet) faultless(j *ledger.Job) {
	f.t.Helper()
	for i := range j.Places {
		if p := &j.Places[i]; p.State != ledger.Dropped || p.Slashed != 0 || p.Why == "" {
			f.t.Errorf("got %+v want dropped, with a reason", p)
		}
	}
}

// A provider's disk is full in the middle of a job: it gives its place up, and an alternate does the work.
func TestDiskFull_TheAlternateTakesOver(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	dir := f.files.dir(victim)
	f.kill(victim)
	// What it had is gone with its old disk, but for its key.
	key, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	t.Cleanup(func() { // before the folder is removed, after its processes are
		f.kill(victim)
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	f.start(victim)
	r := f.task(rounds)
	f.freeze(third)
	id := f.post(r)
	f.eye.claimed(id, victim)
	fill(t, filepath.Join(dir, "ballast"))
	f.thaw(third)
	j := f.settled(id, r)
	f.dropped(t, j)
	if p := j.Place(f.id(victim)); !strings.Contains(p.Why, "disk") || j.History[len(j.History)-1].Time-p.Since > 20_000 {
		t.Errorf("it said %q, and the job took %d ms", p.Why, j.History[len(j.History)-1].Time-p.Since)
	}

	// While its disk is full it takes part in nothing.
	if j := f.failed(f.post(f.task(rounds))); slices.ContainsFunc(j.Drawn, func(d ledger.Drawn) bool { return d.Node == f.id(victim) }) {
		t.Error("it claimed a place with a full disk")
	}

	// With space again it works again.
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	r = f.task(rounds)
	f.revealed(t, f.settled(f.post(r), r))
}

// fill writes until nothing more fits.
func fill(t *testing.T, path string) {
	t.Helper()
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, piece := range []int{64 << 10, 4 << 10} {
		for err = nil; err == nil; {
			_, err = w.Write(make([]byte, piece))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("got %v want a full disk", err)
		}
	}
}

// When a network has ended, nothing of it is left: no process, no goroutine, no open file, no scratch.
func TestLocal_LeavesNothingBehind(t *testing.T) {
	guest(t, "trivial")
	life := func() {
		n := start(t, LocalConfig{Providers: 2})
		_, events := n.finish(n.request(guest(t, "trivial")))
		if last := events[len(events)-1]; last.Stage != rpc.Settled {
			t.Fatalf("got %+v", last)
		}
		long, err := n.Post(t.Context(), n.request(guest(t, "hello"))) // under way when the end comes
		if err != nil {
			t.Fatal(err)
		}
		for ev, err := range n.Watch(t.Context(), long) {
			if err != nil {
				t.Fatal(err)
			}
			if ev.Stage == rpc.Running {
				break
			}
		}
		if len(descendants(t, os.Getpid())) == 0 {
			t.Fatal("a network without workers: the test looks in the wrong place")
		}
		n.Client.Close()
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		if left := descendants(t, os.Getpid()); len(left) != 0 {
			t.Errorf("processes are left: %v", left)
		}
		for i := range 2 {
			scratch := filepath.Join(n.Local.dir(providerName(i)), "runner", "scratch")
			left, err := os.ReadDir(scratch)
			if err != nil || len(left) != 0 {
				t.Errorf("scratch of %s: got %v %v want nothing", providerName(i), left, err)
			}
		}
	}
	life() // what libraries begin once, they have begun
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	life()
	settle := time.Now().Add(5 * time.Second) // the last goroutines of closed sockets end by themselves
	for runtime.NumGoroutine() > goroutines && time.Now().Before(settle) {
		runtime.Gosched()
	}
	if got := runtime.NumGoroutine(); got > goroutines {
		all := make([]byte, 1<<20)
		t.Errorf("got %d goroutines want %d\n%s", got, goroutines, all[:runtime.Stack(all, true)])
	}
	if got := openFiles(t); got > files {
		t.Errorf("got %d open files want %d", got, files)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
