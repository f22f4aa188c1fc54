package flow

import (
	"math"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// load is what is under way.
type load struct {
	jobs    int           // asked for or open
	locked  crowd.Credits // most that they cost
	waiting crowd.Credits // most that one job each of the shards costs that have none
	wanted  int           // of the jobs, those whose result is still wanted
	fetches int
}

func (m *Machine) load() (l load) {
	for s := range m.state.Stages {
		st := &m.state.Stages[s]
		for k := range st.Shards {
			sh := &st.Shards[k]
			n := 0
			for i := range sh.Attempts {
				if a := &sh.Attempts[i]; a.State == Open || a.State == Posting {
					n++
					l.locked += sh.Bound
					if a.State == Open || a.asked {
						if !a.silent {
							l.jobs++
						}
						if !a.Leave {
							l.wanted++
						}
					}
				}
			}
			if sh.Use != 0 && !sh.Done {
				l.fetches++
			}
			if n == 0 && sh.Use == 0 {
				l.waiting += sh.Bound
			}
		}
	}
	return l
}

// affords reports whether the budget has room for so much more.
func (m *Machine) affords(more crowd.Credits) bool {
	b := m.cfg.Budget
	return b == 0 || more <= b && m.state.Paid <= b-more
}

// due does what is due, the same at every event.
func (m *Machine) due() {
	l := m.load()
	if m.ending == nil || m.ending.Reason == ShardLost {
		all := true
		for s := range m.state.Stages {
			all = m.stage(s, &l) && all
		}
		if all {
			m.over = true
			m.emit(Done{})
			return
		}
	}
	if m.ending == nil || l.wanted > 0 || l.fetches > 0 || m.finding > 0 {
		return
	}
	if m.ending.Reason == ShardLost && m.stirs() {
		return
	}
	m.over = true
	m.emit(*m.ending)
}

// stirs reports whether anything can go on without an answer to what is lost.
func (m *Machine) stirs() bool {
	for s := range m.state.Stages {
		st := &m.state.Stages[s]
		if st.cutting || st.laying || st.probing {
			return true
		}
		if !m.ready(st) {
			continue
		}
		for k := range st.Shards {
			if sh := &st.Shards[k]; !sh.Done && !sh.given {
				return true
			}
		}
	}
	return false
}

// complete reports whether stage s is done, and the jobs that are not wanted any more have ended too: one that was too
// late to cancel may yet show that a result is a lie. They are not waited for longer than Linger, and only at the end.
func (m *Machine) complete(s int) bool {
	st := &m.state.Stages[s]
	if !st.Done() {
		return false
	}
	for k := range st.Shards {
		for i := range st.Shards[k].Attempts {
			if a := &st.Shards[k].Attempts[i]; a.State == Open || a.State == Posting {
				end := st.since.Add(m.cfg.Linger)
				if m.now.Before(end) {
					m.at(end)
					return false
				}
				return true
			}
		}
	}
	return true
}

// ready reports whether all that st reads is there.
func (m *Machine) ready(st *Stage) bool {
	for _, s := range st.From {
		if !m.state.Stages[s].Done() {
			return false
		}
		for k := range m.state.Stages[s].Shards {
			if !m.state.Stages[s].Shards[k].missing.IsZero() {
				return false
			}
		}
	}
	return true
}

// stage does what is due for stage s, and reports whether it is complete.
func (m *Machine) stage(s int, l *load) bool {
	st := &m.state.Stages[s]
	for k := range st.Shards {
		if missing := st.Shards[k].missing; !missing.IsZero() {
			if end := missing.Add(m.cfg.Return); m.now.Before(end) {
				m.at(end)
			} else {
				m.probe(s)
			}
		}
	}
	if m.complete(s) {
		return true
	}
	if st.Done() || !m.ready(st) {
		return false
	}
	if !st.Cut {
		if m.now.Before(st.after) {
			m.at(st.after)
		} else if !st.cutting {
			st.cutting = true
			m.emit(Cut{s})
		}
		return false
	}
	m.lay(s, l)
	left, idle := 0, 0 // shards that are not done, and those of them that nobody works on
	for k := range st.Shards {
		sh := &st.Shards[k]
		if sh.Done {
			continue
		}
		left++
		if sh.Use == 0 && !sh.given {
			m.post(s, k, l)
			if !slices.ContainsFunc(sh.Attempts, func(a Attempt) bool { return a.State == Open && !a.Leave }) {
				idle++
			}
		}
	}
	if idle == 0 {
		m.speculate(s, left, l)
	}
	return false
}

// lay asks for more shards of stage s once all that there are are done.
func (m *Machine) lay(s int, l *load) {
	st := &m.state.Stages[s]
	first := st.covered()
	if st.laying || first == st.Items || slices.ContainsFunc(st.Shards, func(sh Shard) bool { return !sh.Done }) {
		return
	}
	e := Lay{Stage: s, First: first, Items: st.Items - first}
	if e.Pilot = first == 0 && st.Pilot > 0; e.Pilot {
		e.Items = min(e.Items, st.Pilot)
	}
	if b := m.cfg.Budget; b > 0 {
		if slices.ContainsFunc(m.state.Stages, func(other Stage) bool { return other.laying }) {
			return // what these lock counts first
		}
		if !m.affords(l.locked + l.waiting + 1) {
			if l.jobs == 0 {
				m.end(GiveUp{Ref{Stage: s}, OverBudget, "the budget is spent, and items are left"})
			}
			return
		}
		e.Budget = b - m.state.Paid - l.locked - l.waiting
	}
	st.laying = true
	m.emit(e)
}

// post puts the jobs of a shard on their way that it should have.
func (m *Machine) post(s, k int, l *load) {
	sh := &m.state.Stages[s].Shards[k]
	if m.finding > 0 {
		return
	}
	if m.now.Before(sh.After) {
		m.at(sh.After)
		return
	}
	for i := range sh.Attempts { // asked before, and refused or not found
		if a := &sh.Attempts[i]; a.State == Posting && !a.asked && l.jobs < m.cfg.Parallel {
			m.ask(s, k, a, l)
		}
	}
	// A silent job may yet end, and counts for nothing until it is heard again.
	for n, open := sh.awake(), sh.live(); n < m.cfg.Copies && open < max(m.cfg.Open, m.cfg.Copies) && l.jobs < m.cfg.Parallel; n, open = n+1, open+1 {
		if !m.affords(l.locked + sh.Bound) {
			if l.jobs == 0 {
				m.end(GiveUp{Ref{s, k, 0}, OverBudget, "what a shard may cost is more than what is left of the budget"})
			}
			return
		}
		m.add(s, k, open > 0, l)
		if n < open { // not a second one: all that there were are silent
			sh.Attempts[len(sh.Attempts)-1].Instead = true
		}
	}
}

// add is a new attempt of a shard.
func (m *Machine) add(s, k int, copy bool, l *load) {
	sh := &m.state.Stages[s].Shards[k]
	if sh.live() == 0 && sh.Use == 0 {
		l.waiting -= min(l.waiting, sh.Bound)
	}
	sh.Tries++
	sh.Attempts = append(sh.Attempts, Attempt{Try: sh.Tries, State: Posting, Copy: copy})
	if copy {
		m.state.Copies++
	}
	l.locked += sh.Bound
	m.ask(s, k, &sh.Attempts[len(sh.Attempts)-1], l)
}

func (m *Machine) ask(s, k int, a *Attempt, l *load) {
	sh := &m.state.Stages[s].Shards[k]
	a.asked = true
	l.jobs++
	l.wanted++
	p := Post{Ref: Ref{s, k, a.Try}, Bound: sh.Bound, Copy: a.Copy && m.cfg.Copies == 1}
	for i := range sh.Attempts {
		if x := &sh.Attempts[i]; x.State == Open || x.State == Settled && !x.Lost {
			p.Avoid = append(p.Avoid, x.Job)
		}
	}
	m.emit(p)
}

// speculate posts copies of the shards that are late, when few are left.
func (m *Machine) speculate(s, left int, l *load) {
	st := &m.state.Stages[s]
	if m.cfg.NoSpeculation || m.cfg.Copies > 1 || m.finding > 0 || left > max(1, int(math.Ceil(m.cfg.LastShare*float64(len(st.Shards))))) {
		return
	}
	var all, copies crowd.Credits
	for k := range st.Shards {
		all += st.Shards[k].Bound
		for i := range st.Shards[k].Attempts {
			if a := &st.Shards[k].Attempts[i]; a.Copy && !a.Instead {
				copies += st.Shards[k].Bound
			}
		}
	}
	for k := range st.Shards {
		sh := &st.Shards[k]
		if sh.Done || sh.Use != 0 || sh.given || sh.awake() != 1 || sh.live() >= m.cfg.Open {
			continue
		}
		usual := st.usual(sh)
		if usual == 0 {
			continue
		}
		a := &sh.Attempts[slices.IndexFunc(sh.Attempts, func(a Attempt) bool { return !a.silent && !a.Leave && (a.State == Open || a.State == Posting) })]
		if a.State != Open {
			continue
		}
		late := max(time.Duration(m.cfg.Slow*float64(usual)), usual+m.cfg.SlowLeast)
		when := later(later(a.Posted, m.began).Add(late), sh.copyAfter)
		if m.now.Before(when) {
			m.at(when)
			continue
		}
		dear := copies > 0 && float64(copies+sh.Bound) > m.cfg.CopyShare*float64(all)
		if dear || l.jobs >= m.cfg.Parallel || !m.affords(l.locked+l.waiting+sh.Bound) {
			continue
		}
		m.add(s, k, true, l)
		copies += sh.Bound
		m.tell(Ref{s, k, sh.Tries}, NewsSlow, "its siblings took "+usual.Round(10*time.Millisecond).String())
	}
}

// leastSiblings have to have settled before their median says what is slow.
const leastSiblings = 3

// usual is how long a job of sh takes: the median of its settled siblings, but for those that have less than half as
// many items, as the pilot; or what the plan expects. 0: nobody knows.
func (st *Stage) usual(sh *Shard) time.Duration {
	var took []time.Duration
	for k := range st.Shards {
		if st.Shards[k].Items*2 < sh.Items {
			continue
		}
		for i := range st.Shards[k].Attempts {
			if a := &st.Shards[k].Attempts[i]; a.State == Settled && a.Took > 0 {
				took = append(took, a.Took)
			}
		}
	}
	if len(took) < leastSiblings {
		return sh.Expect
	}
	slices.Sort(took)
	return took[len(took)/2]
}
