package job

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

func TestMachine_TakesNoOtherJobsRecord(t *testing.T) {
	w := newWorld(t)
	w.running(w.one, w.two)
	e := w.machine(t, w.one, AsExecutor, nil)
	other := w.record(t)
	other.Job.ID[0] ^= 1
	e.Step(w.now, Woke{})
	expect(t, "another job's record", e.Step(w.now, other), "")
	expect(t, "its own", e.Step(w.now, w.record(t)), "fetch")
}

// Binding to what the ledger calls impossible would cost the stake: it is a fault of the executor.
func TestExecutor_NeverBindsToAnImpossibleOutcome(t *testing.T) {
	for _, o := range []crowd.Outcome{
		{Status: crowd.Exited, Gas: 1 << 62, Result: "result"},
		{Status: crowd.Exited, Gas: 1, Result: crowd.CID(strings.Repeat("r", crowd.MaxCID+1))},
	} {
		w := newWorld(t)
		w.running(w.one, w.two)
		e := w.machine(t, w.one, AsExecutor, nil)
		f := find[Fetch](t, e.Step(w.now, w.record(t)))
		r := find[Run](t, e.Step(w.now, Fetched{Try: f.Try}))
		expect(t, "ran impossibly", e.Step(w.now, Ran{Try: r.Try, Outcome: o}), "")
		w.now = e.Deadline()
		expect(t, "again", e.Step(w.now, Woke{}), "keep keep run")
	}
}

func TestConsumer_ComplainsOfWhatIsNoResult(t *testing.T) {
	w := newWorld(t)
	w.delivering(good, w.one, w.two)
	c := w.machine(t, w.owner, AsConsumer, nil)
	f := find[Fetch](t, c.Step(w.now, w.record(t)))
	es := c.Step(w.now, Fetched{Try: f.Try, Err: fmt.Errorf("%w: no tree", ErrUnusable)})
	expect(t, "unusable", es, "complain")
	expect(t, "lost", c.Step(w.now, Sent{Message: &ledger.Complain{Job: w.job.ID}, Err: errors.New("lost")}), "")
	w.now = w.now.Add(backoffFirst)
	expect(t, "again", c.Step(w.now, Woke{}), "complain")
}

// What an executor seals, each authority can open, and it fits the commitment.
func TestExecutor_SealsItsOpeningToTheAuthorities(t *testing.T) {
	w := newWorld(t)
	w.running(w.one, w.two)
	e := w.machine(t, w.one, AsExecutor, nil)
	f := find[Fetch](t, e.Step(w.now, w.record(t)))
	r := find[Run](t, e.Step(w.now, Fetched{Try: f.Try}))
	m := find[Send](t, e.Step(w.now, Ran{Try: r.Try, Outcome: good})).Message.(*ledger.Commit)
	plain, err := w.court.Open(m.Sealed[0], ledger.SealPurpose(w.job.ID, w.one.ID()))
	if err != nil {
		t.Fatal(err)
	}
	o, err := ledger.Unpad(plain)
	if err != nil || o.Outcome != good || ledger.Commitment(w.job.ID, w.one.ID(), o) != m.Commitment {
		t.Errorf("got %+v, %v want the opening of the commitment", o, err)
	}
}
