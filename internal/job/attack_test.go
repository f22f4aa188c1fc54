package job

import (
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// An owner that serves its inputs a block at a time (each before runner.fetchIdle, 20 s) keeps the executor's fetch in flight past half of its
// time; the program that begins late runs, and is read live, until the place is due. The executor stops without a word, so that ledger.nobody pays it nothing.
func TestAttack_AnOwnerThatTricklesHasTheRunForNothing(t *testing.T) {
	w := newWorld(t)
	w.job.Spec.Task.Limits.Wall = time.Hour
	m := w.machine(t, w.one, AsExecutor, nil)
	params := ledger.DevParams()
	patience := params.Patience(&w.job.Spec, false)
	w.running(w.one, w.two)
	for i := range w.job.Places {
		w.job.Places[i].Since = crowd.Time(w.now.UnixMilli())
		w.job.Places[i].Due = crowd.Time(w.now.UnixMilli() + patience)
	}
	w.job.Due = w.job.Places[0].Due
	var gaveUp bool
	var ranFor time.Duration
	var began time.Time
	look := func(es []Effect) {
		for _, e := range es {
			switch e := e.(type) {
			case Send:
				_, ok := e.Message.(*ledger.GiveUp)
				gaveUp = gaveUp || ok
			case Run:
				began = w.now
			case Stop:
				if !began.IsZero() && ranFor == 0 {
					ranFor = w.now.Sub(began)
				}
			}
		}
	}
	es := m.Step(w.now, w.record(t))
	f := find[Fetch](t, es)
	look(es)
	w.now = w.now.Add(time.Duration(params.DispatchGrace)*time.Millisecond + time.Second) // the last block of the inputs comes when Wall no longer fits
	look(m.Step(w.now, Fetched{Try: f.Try}))
	for range 100 {
		w.now = w.now.Add(time.Minute)
		if d := m.Deadline(); !d.IsZero() && d.Before(w.now) {
			w.now = d
		}
		look(m.Step(w.now, Woke{}))
	}
	t.Logf("wall %v, the owner read the program for %v, gave up: %v", w.job.Spec.Task.Limits.Wall, ranFor, gaveUp)
	if !gaveUp {
		t.Error("the executor ran for nearly all of Wall and left without a word, so that nobody pays it")
	}
}
