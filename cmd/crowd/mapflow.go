package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// This file drives the machine of package flow: it writes the state down after every step, and then begins what the step wants.

// mapping is one running crowd map.
type mapping struct {
	app  *app
	c    *rpc.Client
	d    *mapDir
	show *progress
	flow flow.Config // but for what the folder says

	again time.Duration // after which a job that was not found is looked for once more
	pulse time.Duration // between two questions who is there on whom a job waits; 0: flow.PulseEvery

	news    chan news          // from what is under way to drive; unbuffered: who has news waits until they are taken
	refused map[flow.Ref]error // drive's goroutine only: why a post was, as the node said it
	moved   moved
}

// news are what drive is told: first do, then ev. Both are on disk before anything follows from them.
type news struct {
	do   func(*mapState) // nil: nothing
	ev   flow.Event      // nil: nothing that the machine should know
	kept chan<- struct{} // closed when it is on disk; nil: nobody waits
}

// task is an effect under way. Its news, if it has any, are told when it returns; an error ends the run.
type task func(ctx context.Context) (news, error)

// drive brings the flow to its end.
func (m *mapping) drive(ctx context.Context) error {
	cfg := m.flow
	cfg.Budget, cfg.NoSpeculation = m.d.state.Budget, cfg.NoSpeculation || m.d.state.NoSpeculation
	machine, err := flow.Resume(cfg, m.d.state.Flow)
	if err != nil {
		return err
	}
	for i := range m.d.state.Flow.Stages {
		if st := &m.d.state.Flow.Stages[i]; st.Cut {
			m.show.begin(st.Name, st.Items)
			for _, p := range m.d.state.pieces(i) {
				m.show.at(flow.Ref{Stage: i, Shard: p.k}, p.items)
			}
		}
	}
	m.news, m.refused = make(chan news), map[flow.Ref]error{}
	inner, stop := context.WithCancel(ctx)
	defer stop()
	tasks, inner := errgroup.WithContext(inner)
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	end := func(err error) error { // what is under way ends first, but for the jobs
		stop()
		if e := tasks.Wait(); ctx.Err() != nil {
			return ctx.Err()
		} else if err == nil && !errors.Is(e, context.Canceled) {
			return e
		}
		return err
	}
	for next := (news{ev: flow.Began{}}); ; {
		var effects []flow.Effect
		if err := m.d.change(func(s *mapState) {
			if next.do != nil {
				next.do(s)
			}
			if next.ev != nil {
				effects = machine.Step(time.Now(), next.ev)
			}
			m.moved.note(s)
		}); err != nil {
			return end(err)
		}
		if next.kept != nil {
			close(next.kept)
		}
		for _, e := range effects {
			switch e := e.(type) {
			case flow.Done:
				return end(nil)
			case flow.GiveUp:
				return end(m.gaveUp(e))
			case flow.Tell:
				m.tell(e)
			default:
				t := m.task(e)
				tasks.Go(func() error {
					n, err := t(inner)
					if err == nil && (n.ev != nil || n.do != nil) {
						err = m.say(inner, n)
					}
					return err
				})
			}
		}
		wake.Stop()
		if d := machine.Deadline(); !d.IsZero() {
			wake.Reset(time.Until(d))
		}
		select {
		case next = <-m.news:
		case <-wake.C:
			next = news{ev: flow.Woke{}}
		case <-inner.Done():
			return end(nil)
		}
	}
}

func (m *mapping) say(ctx context.Context, n news) error {
	select {
	case m.news <- n:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// keep does f to the state, from a task, and returns when it is on disk.
func (m *mapping) keep(ctx context.Context, f func(*mapState)) error {
	kept := make(chan struct{})
	if err := m.say(ctx, news{do: f, kept: kept}); err != nil {
		return err
	}
	select {
	case <-kept:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// task is what an effect means. What it needs of the state it copies here, in drive's goroutine.
func (m *mapping) task(e flow.Effect) task {
	switch e := e.(type) {
	case flow.Cut:
		return m.cut(e.Stage)
	case flow.Lay:
		return m.lay(e)
	case flow.Post:
		return m.post(e)
	case flow.Find:
		return m.find(e.Ref)
	case flow.Follow:
		return m.follow(e.Ref, e.Job)
	case flow.Cancel:
		return func(ctx context.Context) (news, error) {
			if v, err := m.c.Job(ctx, e.Job); err == nil && e.Worth > 0 && v.Cancel > e.Worth {
				return news{}, nil // it ends by itself, for less
			}
			if err := m.c.Cancel(ctx, e.Job); err != nil && rpc.KindOf(err) != rpc.TooLate {
				m.show.say("%s", err) // it ends by itself, and is paid
			}
			return news{}, nil
		}
	case flow.Fetch:
		return m.fetch(e.Ref, e.Job)
	case flow.Probe:
		return m.probe(e.Stage)
	}
	panic(fmt.Sprintf("bug: no task for %T", e))
}

// listen asks, while ctx lasts, who is there on whom a job waits, and tells the machine when that changes. No answer of
// the own node is no silence of others.
func (m *mapping) listen(ctx context.Context, r flow.Ref, id crowd.JobID) {
	every := cmp.Or(m.pulse, flow.PulseEvery)
	silence := every + every/2
	tick := time.NewTicker(every)
	defer tick.Stop()
	for heard, silent := time.Now(), false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p, err := m.c.Pulse(ctx, id)
		if err != nil || !p.Stalled {
			heard = time.Now()
		}
		if now := time.Since(heard) >= silence; now != silent {
			silent = now
			if m.say(ctx, news{ev: flow.Silent{Ref: r, Heard: !silent}}) != nil {
				return
			}
		}
	}
}

// shardName is a shard for people.
func (m *mapping) shardName(r flow.Ref) string {
	s := &m.d.state
	name := fmt.Sprintf("shard %d of %d", r.Shard+1, len(s.Flow.Stages[r.Stage].Shards))
	if len(s.Stages) > 1 {
		name = s.Stages[r.Stage].Name + ": " + name
	}
	return name
}

// tell is news of the machine for people.
func (m *mapping) tell(t flow.Tell) {
	s := &m.d.state
	who := m.shardName(t.Ref)
	var job string
	for _, a := range s.Flow.Stages[t.Ref.Stage].Shards[t.Ref.Shard].Attempts {
		if a.Try == t.Ref.Try {
			job = a.Job.Short()
		}
	}
	switch t.News {
	case flow.NewsDone:
		sh := s.Stages[t.Ref.Stage].Shards[t.Ref.Shard]
		f := &s.Flow.Stages[t.Ref.Stage].Shards[t.Ref.Shard]
		m.show.at(t.Ref, f.Items)
		paid := crowd.Credits(0)
		for _, a := range f.Attempts {
			paid += a.Paid
		}
		if j := sh.used(f); j != nil {
			m.show.log("%s: job %s, %s, %s, checks %s, %s", who, job, count(f.Items, "item"), gasText(j.Gas), gasText(j.CheckGas), creditText(paid))
		}
	case flow.NewsFailed:
		m.show.at(t.Ref, 0)
		m.show.say("%s: job %s failed: %s", who, job, t.Why)
	case flow.NewsWaiting:
		m.show.say("waiting: %s", t.Why)
	case flow.NewsSlow:
		m.show.say("%s is late (%s): a copy goes to other nodes", who, t.Why)
	case flow.NewsEqual:
		m.show.say("%s: a second job came to the same result", who)
	case flow.NewsLost:
		m.show.say("%s: %s; it is computed again", who, t.Why)
	case flow.NewsConflict:
		m.show.shout("WARNING: %s: %s: one of them is a lie that its job's check did not find. Neither is used; another job decides.", who, t.Why)
	case flow.NewsWrong:
		m.show.shout("WARNING: %s: the result of job %s is wrong: %s. See who executed it: crowd job describe %s", who, job, t.Why, job)
	}
}

// gaveUp is the machine's end as an error.
func (m *mapping) gaveUp(g flow.GiveUp) error {
	s := &m.d.state
	who := ""
	if len(s.Flow.Stages[g.Ref.Stage].Shards) > 0 {
		who = m.shardName(g.Ref)
	}
	switch g.Reason {
	case flow.ShardLost:
		n := s.Flow.Stages[g.Ref.Stage].Shards[g.Ref.Shard].Failed
		return &rpc.Error{Kind: rpc.NodeFault, Err: fmt.Errorf("a shard is lost: %s failed %d times, the last time: %s", who, n, g.Why)}
	case flow.NotPosted:
		if err := m.refused[g.Ref]; err != nil {
			return err
		}
		return rpc.Errorf(rpc.Unavailable, "%s: %s", who, g.Why)
	case flow.UserFault:
		return rpc.Errorf(rpc.UserError, "%s failed: %s", who, g.Why)
	case flow.TakenBack:
		return rpc.Errorf(rpc.Conflict, "the job of %s was cancelled", who)
	case flow.OverBudget:
		return rpc.Errorf(rpc.OverBudget, "%s are paid of a budget of %s: %s", creditText(s.Flow.Paid), creditText(s.Budget), g.Why)
	case flow.Disagreed:
		return rpc.Errorf(rpc.NodeFault, "%s: %s: nobody is to be believed", who, g.Why).
			WithHint("see who executed its jobs: crowd job describe; and ask for more --confidence")
	}
	panic("bug: no words for " + string(g.Reason))
}

// moved counts the bytes that go between this command and its node.
type moved struct{ up, down atomic.Uint64 }

func (m *moved) upload(n int)     { m.up.Add(uint64(n)) }
func (m *moved) download(n int64) { m.down.Add(uint64(n)) }

// note adds what was counted since the last note.
func (m *moved) note(s *mapState) {
	s.Uploaded += m.up.Swap(0)
	s.Downloaded += m.down.Swap(0)
}

// piece is a finished shard, as tasks may know it.
type piece struct {
	k            int
	first, items uint64
	job          crowd.JobID
	bad          uint32 // items that failed
}

// pieces are the finished shards of a stage. Drive's goroutine, or nobody else's, calls it.
func (s *mapState) pieces(stage int) (out []piece) {
	for k := range s.Flow.Stages[stage].Shards {
		f := &s.Flow.Stages[stage].Shards[k]
		if !f.Done {
			continue
		}
		p := piece{k: k, first: f.First, items: f.Items}
		if j := s.Stages[stage].Shards[k].used(f); j != nil {
			p.bad = j.BadItems
		}
		for _, a := range f.Attempts {
			if a.Try == f.Use {
				p.job = a.Job
			}
		}
		out = append(out, p)
	}
	return out
}
