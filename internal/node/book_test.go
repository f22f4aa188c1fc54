package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

func testBook(t *testing.T, dir string) *book {
	t.Helper()
	b, err := openBook(dir, 1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What a node keeps in memory, and what it reads when it starts, does not grow with the jobs that it has had.
func TestBook_EndedJobsLeaveTheMemory(t *testing.T) {
	const jobs = 3 * recentJobs
	dir := t.TempDir()
	b := testBook(t, dir)
	var ids []crowd.JobID // the newest last
	for i := range jobs {
		id := crowd.JobID{byte(i), 0xab}
		ids = append(ids, id)
		j := ledger.Job{ID: id, State: ledger.Running, History: []ledger.Step{{State: ledger.Posted, Height: crowd.Height(10 + i)}, {State: ledger.Running}}}
		if err := b.track(j); err != nil {
			t.Fatal(err)
		}
		j.State, j.History = ledger.Failed, append(j.History, ledger.Step{State: ledger.Failed, Height: crowd.Height(1000 + i)})
		if i%2 == 0 {
			j.State = ledger.Settled
		}
		if i == 1 {
			continue // this one goes on
		}
		if err := b.track(j); err != nil {
			t.Fatal(err)
		}
		if p, _ := b.look(id); p.complete() {
			t.Fatalf("job %d is complete without a receipt", i)
		}
		if err := b.setReceipt(id, []byte("receipt")); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			continue // the result of this one does not come
		}
		if j.State == ledger.Settled {
			if err := os.MkdirAll(filepath.Join(dir, id.String(), "result"), 0o700); err != nil {
				t.Fatal(err)
			}
			b.setDelivered(id)
		}
	}
	check := func(when string, recent int) {
		t.Helper()
		if len(b.open) != 2 || b.open[ids[1]] == nil || b.open[ids[2]] == nil || b.recent.Len() != recent {
			t.Errorf("%s: %d open jobs and %d ended ones are in memory, want 2 and %d", when, len(b.open), b.recent.Len(), recent)
		}
		for i, id := range ids {
			p, ok := b.look(id)
			if !ok || p.job.ID != id || p.complete() == (i == 1 || i == 2) || (string(p.receipt) == "receipt") != (i != 1) {
				t.Errorf("%s: job %d: got %v, %+v", when, i, ok, p)
			}
		}
		list, err := b.newest(5)
		for i := range list {
			if want := ids[jobs-1-i]; list[i].ID != want {
				t.Errorf("%s: the newest are %v, want the last of %v", when, list, ids)
			}
		}
		if len(list) != 5 || err != nil {
			t.Errorf("%s: got %d of the newest, %v, want 5", when, len(list), err)
		}
		if all, err := b.newest(10 * jobs); len(all) != jobs || err != nil {
			t.Errorf("%s: got %d jobs, %v, want %d", when, len(all), err, jobs)
		}
		for _, digits := range []string{"07ab", "07a", ids[7].String()} {
			if got, err := b.match(digits, 5); !slices.Equal(got, ids[7:8]) || err != nil {
				t.Errorf("%s: %s: got %v, %v", when, digits, got, err)
			}
		}
		if got, err := b.match("0", 5); len(got) != 5 || err != nil {
			t.Errorf("%s: got %d jobs whose ID begins with 0, %v, want at most 5", when, len(got), err)
		}
		if at, err := b.file.seen(); at != crowd.Height(1000+jobs-1) || err != nil {
			t.Errorf("%s: the newest end was seen at %d, %v", when, at, err)
		}
	}
	check("at first", recentJobs)
	if err := b.setDivergence(ids[4], "advice"); err != nil { // of a job that has left the memory
		t.Fatal(err)
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	b = testBook(t, dir)
	check("after a restart", 0)
	if p, _ := b.look(ids[4]); p.advice != "advice" {
		t.Errorf("got advice %q", p.advice)
	}
	if err := b.file.db.Put(bookKey(bookRecord, ids[1]), []byte("nonsense"), nil); err != nil { // of a job that is open
		t.Fatal(err)
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	b = testBook(t, dir)
	if _, ok := b.look(ids[1]); ok || len(b.open) != 1 {
		t.Errorf("a damaged record: got %v, and %d open jobs, want it forgotten until it comes again", ok, len(b.open))
	}
	again := ledger.Job{ID: ids[1], State: ledger.Running, History: []ledger.Step{{State: ledger.Posted, Height: 11}}}
	if err := b.track(again); err != nil {
		t.Fatal(err)
	}
	if p, ok := b.look(ids[1]); !ok || p.job.State != ledger.Running {
		t.Errorf("a damaged record that came again: got %v, %+v", ok, p.job)
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "book", "CURRENT"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openBook(dir, 1, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "remove "+filepath.Join(dir, "book")) {
		t.Errorf("a damaged database: got %v, want what to do", err)
	}
}
