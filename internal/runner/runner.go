// Package runner drives the job machines of one node on real parts: it carries
// out their effects with a chain, a block store and an executor, keeps their
// journals, and brings them back after a crash. What is due it never decides.
package runner

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Update is what one or more blocks changed, proven.
type Update struct {
	Height crowd.Height
	Time   crowd.Time
	Jobs   []ledger.Job     // new or changed
	Gone   []crowd.JobID    // no longer in the state
	Self   *ledger.Provider // the node's own provider record, when it changed
	Lost   bool             // changes are missing: look at everything again
}

// Chain is what the runner needs of the chain. All that it gives is proven.
type Chain interface {
	// Send returns nil when a block has applied m, a *ledger.Refusal when it was refused.
	Send(ctx context.Context, m ledger.Message) error
	Job(ctx context.Context, id crowd.JobID) (j ledger.Job, ok bool, at crowd.Height, t crowd.Time, err error)
	OpenJobs(ctx context.Context) ([]crowd.JobID, error)
	Provider(ctx context.Context) (*ledger.Provider, error) // the node's own; nil: it is none
	Watch(ctx context.Context) <-chan Update                // closed when ctx ends
}

// Blocks is what the runner needs of the block store and its peers.
type Blocks interface {
	// Fetch gets all below c; content that breaks the rules is an error wrapping job.ErrUnusable.
	Fetch(ctx context.Context, c crowd.CID, max uint64, from []crowd.NodeID) error
	Folder(ctx context.Context, c crowd.CID) (bool, error) // whether c is a folder, of content that is here
	Export(ctx context.Context, c crowd.CID, path string, max uint64) error
	AddDir(ctx context.Context, dir string) (crowd.CID, error)
	Pin(c crowd.CID, by string) error
	Unpin(c crowd.CID, by string) error
}

// Config of a runner. Every field but Log is needed, where not said otherwise.
type Config struct {
	Dir         string // journals and scratch
	Key         *identity.Key
	Roles       []job.Role
	Params      ledger.Params
	Authorities []ledger.Authority
	Chain       Chain
	Blocks      Blocks
	Executor    executor.Executor // of executors and authorities
	Parallel    int               // tasks that run at once; default 1

	// Record, Report and Tell hear what happens; nil: nobody listens. Record and
	// Report are called by Run's goroutine and must return soon.
	Record func(j ledger.Job)                             // every record of a job of this node's own
	Report func(id crowd.JobID, r job.Role, e job.Report) // what the machines tell
	Tell   func(j *ledger.Job) (executor.IO, func())      // live output of a run for the job's owner; the func ends it
	Log    *slog.Logger                                   // nil: none
}

// Runner owns the machines of a node.
type Runner struct {
	// set once
	cfg  Config
	self crowd.NodeID
	runs chan struct{} // capacity Parallel: one token a running task

	inbox chan posted // unbuffered: workers wait for Run's goroutine, which never waits for them

	// Run's goroutine only
	slots   map[part]*slot
	records map[crowd.JobID]*ledger.Job // newest of those with a machine
	own     *ledger.Provider
	workers *errgroup.Group
}

// part is one role in one job.
type part struct {
	id   crowd.JobID
	role job.Role
}

type slot struct {
	machine job.Machine
	stop    context.CancelFunc // of the Fetch or Run in flight
}

// posted is news on its way to Run's goroutine.
type posted struct {
	to  part
	ev  job.Event        // nil: none
	own *ledger.Provider // the node's own record; nil: no news of it
}

// New checks the configuration and clears what an earlier life left in scratch.
func New(cfg Config) (*Runner, error) {
	if cfg.Parallel <= 0 {
		cfg.Parallel = 1
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runner{
		cfg: cfg, self: cfg.Key.ID(), runs: make(chan struct{}, cfg.Parallel), inbox: make(chan posted),
		slots: map[part]*slot{}, records: map[crowd.JobID]*ledger.Job{},
	}
	for _, d := range []string{r.journals(), r.scratch()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("start runner: %w", err)
		}
	}
	left, err := os.ReadDir(r.scratch())
	if err != nil {
		return nil, fmt.Errorf("start runner: %w", err)
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(r.scratch(), e.Name())); err != nil {
			return nil, fmt.Errorf("clear what an earlier run left: %w", err)
		}
	}
	return r, nil
}

func (r *Runner) journals() string { return filepath.Join(r.cfg.Dir, "journal") }
func (r *Runner) scratch() string  { return filepath.Join(r.cfg.Dir, "scratch") }

// Run takes part in jobs until ctx ends, and returns when all that it started has ended.
func (r *Runner) Run(ctx context.Context) error {
	workers, ctx := errgroup.WithContext(ctx)
	r.workers = workers
	workers.Go(func() error { return r.loop(ctx) })
	if err := workers.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (r *Runner) loop(ctx context.Context) error {
	updates := r.cfg.Chain.Watch(ctx) // before the first look, so that nothing falls between
	if err := r.resume(ctx); err != nil {
		return err
	}
	r.survey(ctx)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(r.untilDeadline())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case u, ok := <-updates:
			if !ok {
				return ctx.Err()
			}
			if u.Self != nil {
				r.own = u.Self
			}
			for i := range u.Jobs {
				if err := r.record(ctx, u.Jobs[i], u.Height, u.Time); err != nil {
					return err
				}
			}
			for _, id := range u.Gone {
				if err := r.all(ctx, id, job.Gone{Height: u.Height}); err != nil {
					return err
				}
			}
			if u.Lost {
				r.survey(ctx)
			}
		case p := <-r.inbox:
			if err := r.deliver(ctx, p); err != nil {
				return err
			}
		case <-timer.C:
			now := time.Now()
			for to, s := range r.slots {
				if d := s.machine.Deadline(); !d.IsZero() && !d.After(now) {
					if err := r.step(ctx, to, s, job.Woke{}); err != nil {
						return err
					}
				}
			}
		}
	}
}

func (r *Runner) untilDeadline() time.Duration {
	wait := time.Hour
	for _, s := range r.slots {
		if d := s.machine.Deadline(); !d.IsZero() {
			wait = min(wait, time.Until(d))
		}
	}
	return max(wait, 0)
}

// resume brings back the machines that have a journal.
func (r *Runner) resume(ctx context.Context) error {
	files, err := os.ReadDir(r.journals())
	if err != nil {
		return fmt.Errorf("resume jobs: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(r.journals(), f.Name())
		if filepath.Ext(path) == ".tmp" { // the journal before it still stands
			os.Remove(path)
			continue
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("resume jobs: %w", err)
		}
		id, role, err := job.Journaled(raw)
		if err != nil {
			return fmt.Errorf("resume jobs: %s: %w; without it this node could commit twice to one job, so it is not ignored: move the file away to give the job up", path, err)
		}
		m, err := job.New(r.machines(), id, role, raw)
		if err != nil {
			return fmt.Errorf("resume jobs: %s: %w", path, err)
		}
		to := part{id, role}
		r.slots[to] = &slot{machine: m}
		r.look(ctx, to)
	}
	return nil
}

func (r *Runner) machines() job.Config {
	return job.Config{Key: r.cfg.Key, Rand: rand.Reader, Params: r.cfg.Params, Authorities: r.cfg.Authorities}
}

// survey looks at every open job, and at the own provider record.
func (r *Runner) survey(ctx context.Context) {
	r.workers.Go(func() error {
		own, err := r.cfg.Chain.Provider(ctx)
		if err == nil && own != nil {
			r.tell(ctx, posted{own: own})
		}
		ids, err2 := r.cfg.Chain.OpenJobs(ctx)
		if err := errors.Join(err, err2); err != nil {
			if ctx.Err() == nil {
				r.cfg.Log.Warn("look for open jobs", "err", err)
			}
			return nil
		}
		for _, id := range ids {
			r.tell(ctx, r.looked(ctx, part{id: id}))
		}
		return nil
	})
}

func (r *Runner) look(ctx context.Context, to part) {
	r.workers.Go(func() error { r.tell(ctx, r.looked(ctx, to)); return nil })
}

// looked reads one record off the chain. A failure is no event: the machine asks again.
func (r *Runner) looked(ctx context.Context, to part) posted {
	j, ok, h, t, err := r.cfg.Chain.Job(ctx, to.id)
	switch {
	case err != nil:
		if ctx.Err() == nil {
			r.cfg.Log.Warn("look at job", "job", to.id.Short(), "err", err)
		}
		return posted{}
	case ok:
		return posted{to: to, ev: job.Chain{Job: j, Height: h, Time: t}}
	}
	return posted{to: to, ev: job.Gone{Height: h}}
}

// tell hands an event to Run's goroutine.
func (r *Runner) tell(ctx context.Context, p posted) {
	if p.ev == nil && p.own == nil {
		return
	}
	select {
	case r.inbox <- p:
	case <-ctx.Done():
	}
}

func (r *Runner) deliver(ctx context.Context, p posted) error {
	if p.own != nil {
		r.own = p.own
	}
	switch ev := p.ev.(type) {
	case nil:
		return nil
	case job.Chain:
		return r.record(ctx, ev.Job, ev.Height, ev.Time)
	case job.Gone:
		return r.all(ctx, p.to.id, ev)
	}
	if s := r.slots[p.to]; s != nil {
		return r.step(ctx, p.to, s, p.ev)
	}
	return nil
}

// record takes in a job's record and begins a part where the node has one.
func (r *Runner) record(ctx context.Context, j ledger.Job, h crowd.Height, t crowd.Time) error {
	if j.Owner == r.self && r.cfg.Record != nil {
		r.cfg.Record(j)
	}
	ev := job.Chain{Job: j, Height: h, Time: t, Self: r.own}
	for _, role := range r.cfg.Roles {
		to := part{j.ID, role}
		s := r.slots[to]
		if s == nil {
			if !job.Wanted(role, r.self, &j) {
				continue
			}
			m, err := job.New(r.machines(), j.ID, role, nil)
			if err != nil {
				return err
			}
			s = &slot{machine: m}
			r.slots[to] = s
		}
		r.records[j.ID] = &j
		if err := r.step(ctx, to, s, ev); err != nil {
			return err
		}
	}
	return nil
}

func (r *Runner) all(ctx context.Context, id crowd.JobID, ev job.Event) error {
	for _, role := range r.cfg.Roles {
		to := part{id, role}
		if s := r.slots[to]; s != nil {
			if err := r.step(ctx, to, s, ev); err != nil {
				return err
			}
		}
	}
	return nil
}

// step lets a machine act and carries out what it wants, in its order.
func (r *Runner) step(ctx context.Context, to part, s *slot, ev job.Event) error {
	for _, e := range s.machine.Step(time.Now(), ev) {
		if err := r.effect(ctx, to, s, e); err != nil {
			return err
		}
	}
	return nil
}

// effect carries out e. An error ends the runner: only a journal or pin that
// cannot be written does, since going on could break a promise.
func (r *Runner) effect(ctx context.Context, to part, s *slot, e job.Effect) error {
	switch e := e.(type) {
	case job.Persist:
		return r.persist(to, e.Journal)
	case job.Keep:
		if err := r.cfg.Blocks.Pin(e.CID, to.reason()); err != nil {
			return fmt.Errorf("keep %s for job %s: %w", e.CID, to.id.Short(), err)
		}
	case job.Release:
		if err := r.cfg.Blocks.Unpin(e.CID, to.reason()); err != nil {
			r.cfg.Log.Warn("release", "cid", e.CID, "err", err)
		}
	case job.Send:
		r.workers.Go(func() error {
			err := r.cfg.Chain.Send(ctx, e.Message)
			r.tell(ctx, posted{to: to, ev: job.Sent{Message: e.Message, Err: err}})
			return nil
		})
	case job.Fetch:
		r.work(ctx, to, s, func(ctx context.Context) job.Event {
			return job.Fetched{Try: e.Try, Err: r.fetch(ctx, e)}
		})
	case job.Run:
		j := r.records[to.id]
		r.work(ctx, to, s, func(ctx context.Context) job.Event {
			o, err := r.run(ctx, j, e)
			return job.Ran{Try: e.Try, Outcome: o, Err: err}
		})
	case job.Stop:
		if s.stop != nil {
			s.stop()
		}
	case job.Look:
		r.look(ctx, to)
	case job.Report:
		if r.cfg.Report != nil {
			r.cfg.Report(to.id, to.role, e)
		}
	case job.Done:
		if s.stop != nil {
			s.stop()
		}
		delete(r.slots, to)
		if len(r.slots) == 0 || !r.partsIn(to.id) {
			delete(r.records, to.id)
		}
		if err := os.Remove(r.journal(to)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("end job %s: %w", to.id.Short(), err)
		}
	default:
		panic(fmt.Sprintf("bug: effect %T", e))
	}
	return nil
}

func (r *Runner) partsIn(id crowd.JobID) bool {
	for _, role := range r.cfg.Roles {
		if r.slots[part{id, role}] != nil {
			return true
		}
	}
	return false
}

// work runs f beside the loop until it ends, the machine says Stop, or ctx ends.
func (r *Runner) work(ctx context.Context, to part, s *slot, f func(context.Context) job.Event) {
	if s.stop != nil {
		s.stop()
	}
	each, stop := context.WithCancel(ctx)
	s.stop = stop
	r.workers.Go(func() error {
		defer stop()
		ev := f(each)
		r.tell(ctx, posted{to: to, ev: ev})
		return nil
	})
}

func (p part) reason() string { return fmt.Sprintf("%s-%s", p.role, p.id.Short()) }

func (r *Runner) journal(p part) string {
	return filepath.Join(r.journals(), fmt.Sprintf("%s-%d", p.id, p.role))
}

// persist replaces a journal so that it survives a crash of the machine.
func (r *Runner) persist(p part, data []byte) error {
	path := r.journal(p)
	err := func() error {
		f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			return err
		}
		d, err := os.Open(r.journals())
		if err != nil {
			return err
		}
		defer d.Close()
		return d.Sync()
	}()
	if err != nil {
		return fmt.Errorf("write the journal of job %s: %w", p.id.Short(), err)
	}
	return nil
}
