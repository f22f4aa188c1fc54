package flow

import (
	"fmt"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// Machine drives a State. It belongs to one goroutine.
type Machine struct {
	cfg   Config // set once
	state *State

	// of this run
	now     time.Time
	out     []Effect
	began   time.Time
	success time.Time // when a job last settled, or began
	wake    time.Time
	finding int // Find without an answer: until there is none nothing is posted, so that no job is found twice
	ending  *GiveUp
	over    bool
}

// Resume is a machine over a state that New drew up, or that an earlier machine left.
func Resume(cfg Config, s *State) (*Machine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if len(s.Stages) == 0 {
		return nil, fmt.Errorf("a flow without stages")
	}
	for i := range s.Stages {
		for _, from := range s.Stages[i].From {
			if from < 0 || from >= i {
				return nil, fmt.Errorf("stage %s reads stage %d, which does not stand before it", s.Stages[i].Name, from)
			}
		}
	}
	return &Machine{cfg: cfg.withDefaults(), state: s}, nil
}

// State is what the driver writes down after every Step. It changes only within Step.
func (m *Machine) State() *State { return m.state }

// Deadline is when the machine next wants Step(now, Woke{}); zero: never.
func (m *Machine) Deadline() time.Time { return m.wake }

// Step takes an event at the local time now. The driver writes State down, and only then begins the effects, in order.
func (m *Machine) Step(now time.Time, ev Event) []Effect {
	m.now, m.out, m.wake = now, nil, time.Time{}
	if m.over {
		return nil
	}
	switch ev := ev.(type) {
	case Began:
		m.begin()
	case WasCut:
		st := &m.state.Stages[ev.Stage]
		st.cutting, st.Cut, st.Items, st.uncut = false, true, ev.Items, 0
	case NotCut:
		m.notCut(ev)
	case Laid:
		m.laid(ev)
	case Again:
		if m.state.Stages[ev.Stage].laying {
			m.forget(ev.Stage)
		}
	case Posted:
		if a := m.attempt(ev.Ref); a == nil {
			m.emit(Cancel{Ref: ev.Ref, Job: ev.Job}) // given up meanwhile
		} else if a.State == Posting {
			m.posted(ev.Ref, a, ev.Job)
		}
	case Refused:
		m.refused(ev)
	case Found:
		m.found(ev)
	case Ended:
		m.ended(ev)
	case Fetched:
		m.fetched(ev.Ref)
	case Probed:
		m.probed(ev)
	case Silent:
		if a := m.attempt(ev.Ref); a != nil {
			a.silent = !ev.Heard
		}
	case Woke:
	}
	m.due()
	return m.out
}

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

func (m *Machine) tell(r Ref, n News, why string) { m.emit(Tell{r, n, why}) }

// at asks for a Woke then, if none is asked for earlier.
func (m *Machine) at(t time.Time) {
	if m.wake.IsZero() || t.Before(m.wake) {
		m.wake = t
	}
}

// attempt is the attempt that an answer is for; nil if it was given up meanwhile.
func (m *Machine) attempt(r Ref) *Attempt {
	if r.Stage >= len(m.state.Stages) || r.Shard >= len(m.state.Stages[r.Stage].Shards) {
		return nil
	}
	return m.state.Stages[r.Stage].Shards[r.Shard].attempt(r.Try)
}

func (sh *Shard) attempt(try int) *Attempt {
	for i := range sh.Attempts {
		if sh.Attempts[i].Try == try {
			return &sh.Attempts[i]
		}
	}
	return nil
}

// begin takes up what an earlier run left: asks how it stands.
func (m *Machine) begin() {
	m.began, m.success = m.now, m.now
	for s := range m.state.Stages {
		st := &m.state.Stages[s]
		st.since = m.now
		for k := range st.Shards {
			sh := &st.Shards[k]
			for i := range sh.Attempts {
				a := &sh.Attempts[i]
				r := Ref{s, k, a.Try}
				switch a.State {
				case Posting:
					a.asked = true
					m.finding++
					m.emit(Find{r})
				case Open:
					m.emit(Follow{r, a.Job})
					if a.Leave {
						m.emit(Cancel{Ref: r, Job: a.Job})
					}
				}
			}
			if u := sh.attempt(sh.Use); u != nil && !sh.Done {
				m.emit(Fetch{Ref{s, k, u.Try}, u.Job})
			}
		}
	}
}

func (m *Machine) notCut(ev NotCut) {
	st := &m.state.Stages[ev.Stage]
	if !st.cutting {
		return
	}
	st.cutting = false
	if st.uncut++; st.uncut >= m.cfg.Tries && m.now.Sub(m.success) >= m.cfg.Patience {
		m.end(GiveUp{Ref{Stage: ev.Stage}, NotPosted, ev.Why})
		return
	}
	st.after = m.now.Add(m.pause(st.uncut - 1))
	for _, from := range st.From {
		m.probe(from)
	}
}

func (m *Machine) laid(ev Laid) {
	st := &m.state.Stages[ev.Stage]
	if !st.laying {
		return
	}
	st.laying = false
	first := st.covered()
	if len(ev.Shards) == 0 {
		panic("bug: nothing was laid out")
	}
	for _, l := range ev.Shards {
		st.Shards = append(st.Shards, Shard{First: first, Items: l.Items, Bound: l.Bound, Expect: l.Expect, Tries: st.Base})
		first += l.Items
	}
	if first > st.Items {
		panic("bug: more was laid out than there is")
	}
}

func (m *Machine) posted(r Ref, a *Attempt, job crowd.JobID) {
	a.State, a.Job, a.Posted, a.asked = Open, job, m.now, false
	sh := &m.state.Stages[r.Stage].Shards[r.Shard]
	sh.refusals, sh.refused = 0, time.Time{}
	m.emit(Follow{r, job})
	if a.Leave {
		m.emit(Cancel{Ref: r, Job: job})
	}
}

func (m *Machine) refused(ev Refused) {
	a := m.attempt(ev.Ref)
	if a == nil || a.State != Posting {
		return
	}
	sh := &m.state.Stages[ev.Ref.Stage].Shards[ev.Ref.Shard]
	drop := func() {
		sh.Attempts = slices.DeleteFunc(sh.Attempts, func(x Attempt) bool { return x.Try == ev.Ref.Try })
	}
	switch {
	case a.Leave:
		drop()
	case a.Copy && m.cfg.Copies == 1:
		m.state.Copies--
		drop()
		sh.copyAfter = m.now.Add(3 * m.cfg.LongPause)
	case !ev.Passing && !ev.Source:
		drop()
		m.end(GiveUp{ev.Ref, NotPosted, ev.Why})
	default:
		if sh.refused.IsZero() {
			sh.refused = m.now
		}
		pause := m.pause(sh.refusals)
		if waited := m.now.Sub(later(sh.refused, m.success)); waited+pause > m.cfg.Patience && !m.running() {
			drop()
			sh.refusals, sh.refused = 0, time.Time{}
			m.end(GiveUp{ev.Ref, NotPosted, ev.Why})
			return
		}
		if sh.refusals == 0 {
			m.tell(ev.Ref, NewsWaiting, ev.Why)
		}
		sh.refusals++
		a.asked, sh.After = false, m.now.Add(pause)
		if ev.Source {
			for _, from := range m.state.Stages[ev.Ref.Stage].From {
				m.probe(from)
			}
		}
	}
}

// pause before trying once more what did not work n times before.
func (m *Machine) pause(n int) time.Duration {
	p := m.cfg.Pause
	for range min(n, 32) {
		p = min(2*p, m.cfg.LongPause)
	}
	return min(p, m.cfg.LongPause, m.cfg.Patience)
}

// running reports whether any job is under way.
func (m *Machine) running() bool {
	for s := range m.state.Stages {
		for k := range m.state.Stages[s].Shards {
			for i := range m.state.Stages[s].Shards[k].Attempts {
				if m.state.Stages[s].Shards[k].Attempts[i].State == Open {
					return true
				}
			}
		}
	}
	return false
}

func (m *Machine) found(ev Found) {
	m.finding--
	a := m.attempt(ev.Ref)
	if a == nil || a.State != Posting {
		return
	}
	sh := &m.state.Stages[ev.Ref.Stage].Shards[ev.Ref.Shard]
	for _, job := range ev.Jobs {
		if !m.owned(job) {
			m.posted(ev.Ref, a, job)
			return
		}
	}
	a.asked = false // due posts it
	if a.Leave {
		sh.Attempts = slices.DeleteFunc(sh.Attempts, func(x Attempt) bool { return x.Try == ev.Ref.Try })
	}
}

// owned reports whether an attempt has that job.
func (m *Machine) owned(job crowd.JobID) bool {
	for s := range m.state.Stages {
		for k := range m.state.Stages[s].Shards {
			for i := range m.state.Stages[s].Shards[k].Attempts {
				if m.state.Stages[s].Shards[k].Attempts[i].Job == job {
					return true
				}
			}
		}
	}
	return false
}

func (m *Machine) ended(ev Ended) {
	a := m.attempt(ev.Ref)
	if a == nil || a.State != Open {
		return
	}
	st := &m.state.Stages[ev.Ref.Stage]
	sh := &st.Shards[ev.Ref.Shard]
	a.State, a.Paid = ev.State, ev.Paid
	m.state.Paid += ev.Paid
	switch ev.State {
	case Settled:
		m.success, sh.recent = m.now, 0
		a.Root = ev.Root
		if !a.Posted.Before(m.began) {
			a.Took = max(m.now.Sub(a.Posted), 1)
		}
		m.resolve(ev.Ref, a)
	case Failed:
		a.Why = ev.Why
		if a.Leave {
			return
		}
		sh.Failed++
		m.state.Lost++
		if ev.User {
			m.end(GiveUp{ev.Ref, UserFault, ev.Why})
			return
		}
		m.tell(ev.Ref, NewsFailed, ev.Why)
		sh.After = m.now.Add(m.pause(sh.recent))
		sh.recent++
		hopeless := sh.recent >= m.cfg.Tries && m.now.Sub(m.success) >= m.cfg.Patience || sh.recent >= 8*m.cfg.Tries
		if hopeless && sh.live() == 0 {
			sh.given = true
			m.end(GiveUp{ev.Ref, ShardLost, ev.Why})
		}
		if ev.Source {
			for _, from := range st.From {
				m.probe(from)
			}
		}
	case Cancelled:
		if !a.Leave {
			m.end(GiveUp{ev.Ref, TakenBack, ev.Why})
		}
	default:
		panic("bug: a job ended as " + string(ev.State))
	}
}

// live is how many wanted jobs of sh are under way.
func (sh *Shard) live() (n int) {
	for i := range sh.Attempts {
		if a := &sh.Attempts[i]; !a.Leave && (a.State == Posting || a.State == Open) {
			n++
		}
	}
	return n
}

// awake is how many of them are not silent.
func (sh *Shard) awake() (n int) {
	for i := range sh.Attempts {
		if a := &sh.Attempts[i]; !a.silent && !a.Leave && (a.State == Posting || a.State == Open) {
			n++
		}
	}
	return n
}

// resolve decides which result of a shard counts, now that a has settled or, with a nil, now that one is lost.
func (m *Machine) resolve(r Ref, a *Attempt) {
	sh := &m.state.Stages[r.Stage].Shards[r.Shard]
	var roots []crowd.Hash // different ones, in the order of the attempts
	votes := []int{0}      // without a root there is nothing to compare
	for i := range sh.Attempts {
		if x := &sh.Attempts[i]; x.State == Settled && x.Root != (crowd.Hash{}) {
			k := slices.Index(roots, x.Root)
			if k < 0 {
				k = len(roots)
				roots, votes = append(roots, x.Root), append(votes[:k], 0)
			}
			votes[k]++
		}
	}
	best := slices.Index(votes, slices.Max(votes))
	if slices.Contains(votes[best+1:], votes[best]) { // nobody to believe
		m.conflict(r, sh, a)
		return
	}
	for i := range sh.Attempts {
		if x := &sh.Attempts[i]; x.State == Settled && len(roots) > 1 && x.Root != roots[best] && !x.Wrong {
			x.Wrong = true
			m.wrong(r, sh, x)
		}
	}
	if a != nil && votes[best] > 1 && len(roots) == 1 {
		m.state.Equal++
		m.tell(Ref{r.Stage, r.Shard, a.Try}, NewsEqual, "")
	}
	use := sh.attempt(sh.Use)
	if use == nil || use.Lost || use.Wrong {
		sh.Use, sh.Done = 0, false
		for i := range sh.Attempts {
			if x := &sh.Attempts[i]; x.State == Settled && !x.Wrong && !x.Lost {
				sh.Use = x.Try
				if x.Copy {
					m.state.Used++
				}
				m.emit(Fetch{Ref{r.Stage, r.Shard, x.Try}, x.Job})
				break
			}
		}
	}
	if sh.Use == 0 {
		return // it is posted again
	}
	sh.Attempts = slices.DeleteFunc(sh.Attempts, func(x Attempt) bool { return x.State == Posting && !x.asked })
	for i := range sh.Attempts { // the others are wanted no more
		x := &sh.Attempts[i]
		if x.Leave || x.State != Posting && x.State != Open {
			continue
		}
		x.Leave = true
		if x.State == Open {
			m.emit(Cancel{Ref{r.Stage, r.Shard, x.Try}, x.Job, sh.attempt(sh.Use).Paid})
		}
	}
}

// conflict is what two or three accepted results come to that all differ: none is used.
func (m *Machine) conflict(r Ref, sh *Shard, a *Attempt) {
	sh.Use, sh.Done = 0, false
	tries := []int{}
	for i := range sh.Attempts {
		if sh.Attempts[i].State == Settled {
			tries = append(tries, sh.Attempts[i].Try)
		}
	}
	if a == nil {
		return
	}
	at := slices.IndexFunc(m.state.Conflicts, func(c Conflict) bool { return c.Stage == r.Stage && c.Shard == r.Shard && c.Wrong == 0 })
	if at < 0 {
		m.state.Conflicts = append(m.state.Conflicts, Conflict{Stage: r.Stage, Shard: r.Shard, Tries: tries})
	} else {
		m.state.Conflicts[at].Tries = tries
	}
	m.tell(r, NewsConflict, fmt.Sprintf("%d accepted results of one shard differ", len(tries)))
	if len(tries) > 2 {
		m.end(GiveUp{r, Disagreed, fmt.Sprintf("%d accepted results of one shard, and no two are equal", len(tries))})
	}
}

// wrong names the odd one out.
func (m *Machine) wrong(r Ref, sh *Shard, x *Attempt) {
	at := slices.IndexFunc(m.state.Conflicts, func(c Conflict) bool { return c.Stage == r.Stage && c.Shard == r.Shard && c.Wrong == 0 })
	if at < 0 { // two agreed before
		at = len(m.state.Conflicts)
		c := Conflict{Stage: r.Stage, Shard: r.Shard}
		for i := range sh.Attempts {
			if sh.Attempts[i].State == Settled {
				c.Tries = append(c.Tries, sh.Attempts[i].Try)
			}
		}
		m.state.Conflicts = append(m.state.Conflicts, c)
	}
	m.state.Conflicts[at].Wrong = x.Try
	m.tell(Ref{r.Stage, r.Shard, x.Try}, NewsWrong, "two other jobs of the shard agree on another result")
}

func (m *Machine) fetched(r Ref) {
	if m.attempt(r) == nil {
		return
	}
	st := &m.state.Stages[r.Stage]
	sh := &st.Shards[r.Shard]
	if sh.Use != r.Try || sh.Done {
		return
	}
	root := sh.attempt(r.Try).Root
	if sh.Gave != (crowd.Hash{}) && sh.Gave != root {
		m.redo(r.Stage)
	}
	sh.Done, sh.Gave, st.since = true, root, m.now
	m.tell(r, NewsDone, "")
}

// redo forgets the stages that read stage s, and those that read them: what they read was a lie. What their
// jobs under way will cost counts as if it were all that they may.
func (m *Machine) redo(s int) {
	for k := s + 1; k < len(m.state.Stages); k++ {
		st := &m.state.Stages[k]
		if !slices.Contains(st.From, s) || !st.Cut {
			continue
		}
		m.forget(k)
		st.Cut, st.Items, st.cutting = false, 0, false
		m.redo(k)
	}
}

// forget gives up the shards of stage s.
func (m *Machine) forget(s int) {
	st := &m.state.Stages[s]
	for j := range st.Shards {
		for i := range st.Shards[j].Attempts {
			switch a := &st.Shards[j].Attempts[i]; a.State {
			case Open:
				m.emit(Cancel{Ref: Ref{s, j, a.Try}, Job: a.Job})
				m.state.Paid += st.Shards[j].Bound
			case Posting:
				if a.asked {
					m.state.Paid += st.Shards[j].Bound
				}
			}
		}
		st.Base = max(st.Base, st.Shards[j].Tries)
	}
	st.Shards, st.laying = nil, false
}

// probe asks whether the parts of stage s are there.
func (m *Machine) probe(s int) {
	if st := &m.state.Stages[s]; !st.probing {
		st.probing = true
		m.emit(Probe{s})
	}
}

func (m *Machine) probed(ev Probed) {
	st := &m.state.Stages[ev.Stage]
	if !st.probing {
		return
	}
	st.probing = false
	for k := range st.Shards {
		sh := &st.Shards[k]
		u := sh.attempt(sh.Use)
		switch {
		case u == nil || !sh.Done || !slices.Contains(ev.Lost, k):
			sh.missing = time.Time{}
		case sh.missing.IsZero():
			sh.missing = m.now
		case m.now.Sub(sh.missing) >= m.cfg.Return:
			sh.missing = time.Time{}
			u.Lost = true
			r := Ref{ev.Stage, k, u.Try}
			m.tell(r, NewsLost, "nobody holds its parts any more")
			m.resolve(r, nil)
		}
	}
}

// end makes an end of the run, once what is under way has ended. What comes first is what people are told, but for
// a lost shard: it stops no others.
func (m *Machine) end(g GiveUp) {
	if m.ending == nil || m.ending.Reason == ShardLost && g.Reason != ShardLost {
		m.ending = &g
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
