package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// A job that its owner removes takes its result, its pins and its uploads with it, save for what another job has too, and it
// does not come back when the chain tells of it again.
func TestLocal_RemovedJobsStayAway(t *testing.T) {
	dir := t.TempDir()
	n := start(t, LocalConfig{Dir: dir, Providers: 2})
	ask := func(stdin string) crowd.JobID {
		t.Helper()
		r := n.request(guest(t, "wordcount"))
		r.Stdin = n.uploadFrom(strings.NewReader(stdin))
		id, events := n.finish(r)
		if events[len(events)-1].Stage != rpc.Settled {
			t.Fatalf("got %+v", events)
		}
		for end := time.Now().Add(30 * time.Second); ; { // its receipt comes a little later
			_, err := n.Remove(t.Context(), []crowd.JobID{id, {1}})
			if rpc.KindOf(err) == rpc.NotFound { // of the other one: this one could be removed
				return id
			}
			if rpc.KindOf(err) != rpc.Conflict || time.Now().After(end) {
				t.Fatalf("remove with a job that is not there: got %v", err)
			}
		}
	}
	pins := func() (list []string) {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(dir, "consumer", "store", "pins"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	first, second := ask("to be"), ask("or not")
	before := pins() // one program, two inputs, two results
	if len(before) != 5 {
		t.Fatalf("got pins %q, want 5", before)
	}
	if r, err := n.Prune(t.Context(), time.Now().Add(-time.Hour)); err != nil || r.Jobs != 0 {
		t.Errorf("prune of old jobs: got %+v, %v; want none, as all are young", r, err)
	}
	r, err := n.Remove(t.Context(), []crowd.JobID{first, first})
	if err != nil || r.Jobs != 1 || r.Bytes != int64(len("1 be\n1 to\n")) {
		t.Errorf("remove: got %+v, %v; want one job with its 10 bytes", r, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "consumer", "jobs", first.String())); !os.IsNotExist(err) {
		t.Errorf("the removed job's result: got %v, want that it is not there", err)
	}
	if got := pins(); len(got) != 3 {
		t.Errorf("got pins %q, want the program, an input and a result", got)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = start(t, LocalConfig{Dir: dir})
	if _, err := n.Job(t.Context(), first); rpc.KindOf(err) != rpc.NotFound {
		t.Errorf("the removed job after a restart: got %v, want not found", err)
	}
	if got := n.stdout(second); got != "1 not\n1 or\n" {
		t.Errorf("the other job: got %q", got)
	}
	if r, err = n.Prune(t.Context(), time.Now().Add(time.Minute)); err != nil || r.Jobs != 1 {
		t.Errorf("prune: got %+v, %v; want the other job", r, err)
	}
	if got := pins(); len(got) != 0 {
		t.Errorf("got pins %q, want none", got)
	}
	jobs, err := n.Jobs(t.Context(), 10)
	if err != nil || len(jobs) != 0 {
		t.Errorf("got %+v, %v; want no jobs", jobs, err)
	}
}

// What has not ended is not removed; what was removed is not taken in again, and is forgotten itself in the end.
func TestBook_RemovesWhatHasEnded(t *testing.T) {
	b := testBook(t, t.TempDir())
	defer b.close()
	add := func(n byte, end crowd.Height) ledger.Job {
		t.Helper()
		j := ledger.Job{ID: crowd.JobID{n}, State: ledger.Running, History: []ledger.Step{{State: ledger.Posted, Height: 1}}}
		if err := b.track(j); err != nil {
			t.Fatal(err)
		}
		if _, err := b.removable(j.ID); rpc.KindOf(err) != rpc.Conflict || !strings.Contains(err.Error(), "has not ended") {
			t.Errorf("a job that runs: got %v, want a conflict", err)
		}
		j.State, j.History = ledger.Failed, append(j.History, ledger.Step{State: ledger.Failed, Height: end})
		if err := b.track(j); err != nil {
			t.Fatal(err)
		}
		if _, err := b.removable(j.ID); rpc.KindOf(err) != rpc.Conflict || !strings.Contains(err.Error(), "on its way") {
			t.Errorf("a job without its receipt: got %v, want a conflict", err)
		}
		if err := b.setReceipt(j.ID, []byte("receipt")); err != nil {
			t.Fatal(err)
		}
		if _, err := b.removable(j.ID); err != nil {
			t.Errorf("a job that has ended: got %v", err)
		}
		return j
	}
	old := add(1, 10)
	if _, err := b.remove(&old); err != nil {
		t.Fatal(err)
	}
	if err := b.track(old); err != nil {
		t.Error(err)
	}
	if _, ok := b.look(old.ID); ok || !b.file.gone(old.ID) || len(b.open) != 0 {
		t.Errorf("the removed job came back: %v, %d open", ok, len(b.open))
	}
	late := add(2, 11+unsure)
	if _, err := b.remove(&late); err != nil {
		t.Fatal(err)
	}
	if b.file.gone(old.ID) || !b.file.gone(late.ID) {
		t.Errorf("got gone %v and %v, want the second alone: the chain tells nothing of the first any more", b.file.gone(old.ID), b.file.gone(late.ID))
	}
}
