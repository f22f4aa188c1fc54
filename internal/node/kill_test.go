//go:build linux

package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// A provider is killed at every step of its work. The job settles with the right
// result whatever happens, nobody loses stake, and the provider comes back to what it left.
func TestKill_ProviderInEveryState(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	others := []string{second, third}
	for _, c := range []struct {
		name string
		play func(t *testing.T, r task) crowd.JobID // ends with the victim alive or dead
		then func(t *testing.T, j *ledger.Job)      // what is true of the settled job
	}{
		{"before it claims, and back before the draw ends", func(t *testing.T, r task) crowd.JobID {
			f.kill(victim)
			id := f.post(r)
			f.eye.until(id, "a second window", func(j *ledger.Job) bool { return windows(j) == 2 })
			f.start(victim)
			return id
		}, f.revealed},
		{"with its claim on chain", func(t *testing.T, r task) crowd.JobID {
			f.freeze(third) // so that the claims stay open
			id := f.post(r)
			f.eye.claimed(id, victim)
			f.kill(victim)
			f.thaw(third)
			return id
		}, f.dropped},
		{"while the program runs", func(t *testing.T, r task) crowd.JobID {
			f.hold(others...)
			id := f.post(r)
			f.spoke(id, victim)
			workers := f.workers(victim)
			f.kill(victim)
			f.gone(workers)
			f.open(others...)
			return id
		}, f.dropped},
		{"while the program runs, and back at once", func(t *testing.T, r task) crowd.JobID {
			f.hold(others...)
			id := f.post(r)
			f.spoke(id, victim)
			before := f.eye.transactions(victim)
			f.kill(victim)
			f.start(victim)
			f.eye.place(id, victim, ledger.Committed)
			f.open(others...)
			f.eye.in(id, ledger.Settled)
			if got := f.eye.transactions(victim) - before; got != 2 {
				t.Errorf("got %d transactions after the claim, want a commit and a reveal", got)
			}
			return id
		}, f.revealed},
		{"committed, not revealed", func(t *testing.T, r task) crowd.JobID {
			f.hold(others...)
			id := f.post(r)
			f.eye.place(id, victim, ledger.Committed)
			f.kill(victim)
			f.open(others...)
			return id
		}, f.revealed}, // by an authority
		{"committed, and back at once", func(t *testing.T, r task) crowd.JobID {
			f.hold(others...)
			id := f.post(r)
			bound := f.eye.place(id, victim, ledger.Committed).Place(f.id(victim)).Commitment
			before := f.eye.transactions(victim)
			f.kill(victim)
			f.start(victim)
			f.open(others...)
			j := f.eye.in(id, ledger.Settled)
			if got := j.Place(f.id(victim)).Commitment; got != bound {
				t.Errorf("it committed twice: got %s want %s", got, bound)
			}
			if got := f.eye.transactions(victim) - before; got != 1 {
				t.Errorf("got %d transactions after the commit, want a reveal", got)
			}
			if got := f.runs(victim); got != 0 {
				t.Errorf("it ran the program %d times more", got)
			}
			return id
		}, f.revealed},
		{"revealed, not delivered", func(t *testing.T, r task) crowd.JobID {
			id := f.undelivered(r)
			f.kill(victim)
			f.thaw("consumer")
			return id
		}, f.revealed},
		{"with everybody who has the result, and back at once", func(t *testing.T, r task) crowd.JobID {
			id := f.undelivered(r)
			for _, p := range providers {
				f.kill(p)
			}
			f.thaw("consumer")
			f.start(victim)
			return id
		}, f.revealed},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			f.at(t)
			r := f.task(rounds)
			if strings.HasPrefix(c.name, "while") { // long enough to be met at it
				r = f.task(4 * rounds)
				r.Limits.Gas = 8e8
			}
			id := c.play(t, r)
			c.then(t, f.settled(id, r))
			f.restart()
		})
		if !ok {
			return
		}
	}
	t.Run("before it claims, for good", func(t *testing.T) {
		f.at(t)
		f.kill(victim)
		if j := f.failed(f.post(f.task(rounds))); len(j.Places) != 0 || windows(j) < 2 {
			t.Errorf("got %d places after %d windows: the small stake stood for the large one: %s", len(j.Places), windows(j), history(j))
		}
	})
}

// windows counts how often the claims of j were opened.
func windows(j *ledger.Job) (n int) {
	for _, s := range j.History {
		if s.State == ledger.Claiming {
			n++
		}
	}
	return n
}

// at makes t the test that f's failures belong to.
func (f *fleet) at(t *testing.T) {
	was := f.t
	f.t = t
	t.Cleanup(func() { f.t = was })
}

// undelivered is a job in Delivering whose owner stands still, and which the victim and another have computed.
func (f *fleet) undelivered(r task) crowd.JobID {
	f.t.Helper()
	others := []string{second, third}
	had := f.runs(others...)
	f.hold(others...)
	id := f.post(r)
	f.eye.place(id, victim, ledger.Committed)
	f.awaitRuns(had+1, others...) // both have the inputs
	f.freeze("consumer")
	f.open(others...)
	f.eye.in(id, ledger.Delivering)
	return id
}

func (f *fleet) dropped(t *testing.T, j *ledger.Job) {
	p := j.Place(f.id(victim))
	if p == nil || p.State != ledger.Dropped || p.Slashed != 0 {
		t.Errorf("got place %+v want dropped", p)
	}
	if len(j.Places) != 3 || j.Verdict.By != ledger.ByAgreement {
		t.Errorf("got %d places and a verdict by %s, want an alternate and agreement", len(j.Places), j.Verdict.By)
	}
}

func (f *fleet) revealed(t *testing.T, j *ledger.Job) {
	p := j.Place(f.id(victim))
	if p == nil || p.State != ledger.Revealed || j.Verdict.By != ledger.ByAgreement {
		t.Fatalf("got place %+v and a verdict by %s want revealed and agreement", p, j.Verdict.By)
	}
	for _, pay := range j.Payments {
		if pay.To == p.Node.Address() && pay.Why == ledger.WhyWork {
			return
		}
	}
	t.Errorf("its work was not paid: %+v", j.Payments)
}

// The consumer's node is killed at every step of its job and started again. The
// job ends, and its result and receipt are there.
func TestKill_ConsumerInEveryState(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for _, c := range []struct {
		name string
		play func(t *testing.T, r task) crowd.JobID // ends with the consumer dead
	}{
		{"posted", func(t *testing.T, r task) crowd.JobID {
			id := f.post(r)
			f.kill("consumer")
			return id
		}},
		{"claiming", func(t *testing.T, r task) crowd.JobID {
			f.freeze(third)
			id := f.post(r)
			f.eye.claimed(id, victim)
			f.kill("consumer")
			f.thaw(third)
			return id
		}},
		{"running", func(t *testing.T, r task) crowd.JobID {
			id := f.computing(r)
			f.kill("consumer")
			f.open(providers...)
			return id
		}},
		{"an executor has committed", func(t *testing.T, r task) crowd.JobID {
			id := f.computing(r)
			f.open(victim)
			f.eye.place(id, victim, ledger.Committed)
			f.kill("consumer")
			f.open(providers...)
			return id
		}},
		{"delivering", func(t *testing.T, r task) crowd.JobID {
			id := f.computing(r)
			f.freeze("consumer")
			f.open(providers...)
			f.eye.in(id, ledger.Delivering)
			f.kill("consumer")
			return id
		}},
		{"settled without it", func(t *testing.T, r task) crowd.JobID {
			id := f.computing(r)
			f.kill("consumer")
			f.open(providers...)
			f.eye.in(id, ledger.Settled)
			return id
		}},
		{"settled without it, which had written nothing", func(t *testing.T, r task) crowd.JobID {
			id := f.computing(r)
			f.kill("consumer")
			f.forget("consumer")
			f.open(providers...)
			f.eye.in(id, ledger.Settled)
			return id
		}},
		{"settled by it", func(t *testing.T, r task) crowd.JobID {
			id := f.post(r)
			f.eye.in(id, ledger.Settled)
			f.kill("consumer")
			return id
		}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			f.at(t)
			r := f.task(rounds)
			id := c.play(t, r)
			f.restart()
			f.settled(id, r)
		})
		if !ok {
			break
		}
	}
}

// forget is a node killed before it wrote anything of its jobs.
func (f *fleet) forget(name string) {
	f.t.Helper()
	for _, d := range []string{"runner", "jobs"} {
		if err := os.RemoveAll(filepath.Join(f.files.dir(name), d)); err != nil {
			f.t.Fatal(err)
		}
	}
}

// computing is a job whose two executors have all they need and are held.
func (f *fleet) computing(r task) crowd.JobID {
	f.t.Helper()
	had := f.runs(providers...)
	f.hold(providers...)
	id := f.post(r)
	f.awaitRuns(had+2, providers...)
	return id
}

// The only authority is killed at every step of a job and started again: the chain stands still in between, no more.
func TestKill_AuthorityInEveryState(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for _, c := range []struct {
		name string
		play func(t *testing.T, r task) crowd.JobID // ends with the authority dead
	}{
		{"claiming", func(t *testing.T, r task) crowd.JobID {
			f.freeze(third)
			id := f.post(r)
			f.eye.claimed(id, victim)
			f.kill("authority")
			f.thaw(third)
			return id
		}},
		{"running", func(t *testing.T, r task) crowd.JobID {
			id := f.computing(r)
			f.kill("authority")
			f.open(providers...)
			return id
		}},
		{"revealing", func(t *testing.T, r task) crowd.JobID {
			id := f.computing(r)
			f.open(victim)
			f.eye.place(id, victim, ledger.Committed)
			f.freeze(victim) // so that a reveal is missing
			f.open(second, third)
			f.eye.in(id, ledger.Revealing)
			f.kill("authority")
			f.thaw(victim)
			return id
		}},
		{"in court", func(t *testing.T, r task) crowd.JobID {
			r.Filters.Providers = []crowd.NodeID{f.id(victim), f.id(second)}
			id := f.computing(r)
			f.hold("authority")
			f.kill(second)
			f.open(victim)
			f.eye.in(id, ledger.Court)
			f.awaitRuns(1, "authority")
			f.kill("authority")
			return id
		}},
		{"delivering", func(t *testing.T, r task) crowd.JobID {
			id := f.computing(r)
			f.freeze("consumer")
			f.open(providers...)
			f.eye.in(id, ledger.Delivering)
			f.kill("authority")
			f.thaw("consumer")
			return id
		}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			f.at(t)
			r := f.task(rounds)
			id := c.play(t, r)
			f.restart()
			f.open(providers...)
			f.settled(id, r)
			f.attentive()
		})
		if !ok {
			break
		}
	}
}

// Every node is killed after every change of the job's record, and started again
// at once or after the job's end. It may fail, at no cost; nothing else may be lost.
func TestKill_AfterEveryChange(t *testing.T) {
	if os.Getenv("CROWD_NIGHT") == "" {
		t.Skip("set CROWD_NIGHT=1: it takes minutes")
	}
	t.Parallel()
	f := newFleet(t)
	for _, name := range []string{victim, second, "consumer", "authority"} {
		for change := 1; change <= maxChanges; change++ {
			for _, late := range []bool{false, true} {
				if late && name == "authority" {
					continue // without it there is no end
				}
				ok := t.Run(fmt.Sprintf("%s, change %d, late %v", name, change, late), func(t *testing.T) {
					f.at(t)
					r := f.task(rounds)
					id := f.post(r)
					f.eye.until(id, "that change", func(j *ledger.Job) bool { return changes(j) >= change || j.State.Ended() })
					f.kill(name)
					if late {
						f.eye.in(id, ledger.Settled)
					}
					f.restart()
					defer f.attentive()
					if j := f.eye.in(id, ledger.Settled); j.State == ledger.Failed {
						f.failed(id)
					} else {
						f.settled(id, r)
					}
				})
				if !ok {
					return
				}
			}
		}
	}
}

// maxChanges are those of a job's record in which nothing goes wrong.
const maxChanges = 14

// changes counts what has happened to a job.
func changes(j *ledger.Job) int {
	n := len(j.History) + len(j.Drawn)
	for i := range j.Places {
		n += int(j.Places[i].State)
	}
	return n
}
