package scenario

import (
	"fmt"
	"strings"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Program is how a task's program behaves on every honest machine. The zero Program is one whose
// outcome and time follow from the task alone.
type Program struct {
	Speed   crowd.Gas     // that a machine runs in a second; 0: the zero Program
	Gas     crowd.Gas     // of a whole run; 0: as Outcome has it
	Compile time.Duration // of one core, before it runs, that its gas does not count
	Prints  float64       // share of a run after which all that its owner wants is printed, live; 0: never before the end
}

var errWall = fmt.Errorf("the wall time limit passed: %w", job.ErrWall)

// reader is an owner that reads what its job's executors print live: worth is the price of what one of them ran until then.
type reader interface {
	Reads(w *World, n *Node, id crowd.JobID, worth crowd.Credits)
}

// sparer is an adversary that may make up what it gives out for a run, and runs nothing then.
type sparer interface {
	Spares(w *World, n *Node, id crowd.JobID) bool
}

// planned is one run as it will go.
type planned struct {
	takes   time.Duration
	gas     crowd.Gas // of the whole of it
	err     error     // how it ends; nil: with an outcome
	prints  time.Duration
	printed crowd.Gas
}

// meter counts what a run uses until it ends or is stopped.
type meter struct {
	planned
	began time.Time
	price crowd.Price
}

func (w *World) programOf(t *crowd.Task) (p Program) {
	if w.Config.Program != nil {
		p = w.Config.Program(t)
	}
	return p
}

// outcome is what an honest run of t comes to.
func (w *World) outcome(t *crowd.Task, unusable bool) crowd.Outcome {
	o := Outcome(t, unusable)
	if p := w.programOf(t); p.Gas > 0 && !unusable {
		o.Gas = p.Gas
	}
	return o
}

// program is how this run goes on n.
func (n *Node) program(s slot, e *job.Run) planned {
	w := n.w
	if a, ok := n.adv.(sparer); ok && s.role == job.AsExecutor && a.Spares(w, n, s.id) {
		return planned{takes: leavesAfter + time.Second} // whoever is to be gone by then is
	}
	if e.Items == 0 && !e.Unusable {
		return n.plannedRun(e.Task)
	}
	gas := n.gasOf(e)
	if e.Unusable || w.programOf(&e.Task).Speed == 0 {
		return planned{takes: duration(&e.Task, n.ID), gas: gas}
	}
	how := w.programOf(&e.Task)
	return how.plan(gas, &w.Config.Params, e.Task.Limits.Wall)
}

// plannedRun is how a run of a single task goes.
func (n *Node) plannedRun(t crowd.Task) planned {
	how, gas := n.w.programOf(&t), n.w.outcome(&t, false).Gas
	if how.Speed == 0 {
		return planned{takes: duration(&t, n.ID), gas: gas}
	}
	p := how.plan(gas, &n.w.Config.Params, t.Limits.Wall)
	if run := p.takes - min(how.Compile, p.takes); how.Prints > 0 && run > 0 {
		p.prints = how.Compile + time.Duration(how.Prints*float64(run))
		p.printed = crowd.Gas(how.Prints * run.Seconds() * float64(how.Speed))
	}
	return p
}

// plan is a run of so much gas. Nothing of it is printed live: what the items of a batch print is not.
func (how *Program) plan(gas crowd.Gas, params *ledger.Params, wall time.Duration) planned {
	p := planned{gas: gas}
	run := seconds(uint64(gas), uint64(how.Speed))
	if run > wall {
		run, p.err = wall, errWall
		p.gas = crowd.Gas(wall.Seconds() * float64(how.Speed))
	}
	p.takes = how.Compile + run
	p.gas += params.StartGas + crowd.Gas(how.Compile.Seconds()*1e9)
	return p
}

// beginRun meters a run, and lets its owner read what it prints.
func (n *Node) beginRun(s slot, r *running, e *job.Run, p planned) {
	j := n.w.jobs[s.id].Last
	m := &meter{planned: p, began: n.w.Now(), price: j.Spec.Filters.MaxPrice}
	if pr, ok := n.w.state.Provider(n.ID.Address()); ok {
		m.price = pr.Offer.Price
	}
	r.meter = m
	owner := n.w.byID[j.Owner]
	if rd, ok := owner.adv.(reader); ok && p.prints > 0 && s.role == job.AsExecutor && !e.Quiet {
		n.later(p.prints, func() {
			if r.meter == m {
				n.w.Send(n.index, owner.index, 0, func() { rd.Reads(n.w, owner, s.id, m.price.Cost(p.printed)) })
			}
		})
	}
}

// endMeter counts what the run has used so far.
func (n *Node) endMeter(r *running) {
	m := r.meter
	if m == nil {
		return
	}
	r.meter = nil
	gas := m.gas
	if past := n.w.Now().Sub(m.began); past < m.takes {
		gas = crowd.Gas(float64(gas) * float64(past) / float64(m.takes))
	}
	n.Worked += m.price.Cost(gas)
}

// raidProgram is how the programs of a Raid behave: the first letters of their CIDs say it.
func raidProgram(t *crowd.Task) Program {
	kind, _, _ := strings.Cut(string(t.Program), "-")
	switch kind {
	case "walls": // it waits for memory more than it computes: what gas prices least
		return Program{Speed: wallSpeed, Gas: t.Limits.Gas, Prints: 0.9}
	case "early":
		return Program{Speed: raidSpeed, Gas: t.Limits.Gas, Prints: 0.9}
	case "bomb":
		return Program{Speed: raidSpeed, Gas: t.Limits.Gas, Compile: time.Second}
	case "least":
		return Program{Speed: raidSpeed, Gas: 1}
	case "big":
		return Program{Speed: raidSpeed, Gas: 4}
	case "slow":
		return Program{Speed: slowSpeed, Gas: t.Limits.Gas * 9 / 10}
	}
	return Program{Speed: raidSpeed, Gas: t.Limits.Gas * 4 / 5}
}

// raidSpeed of a usual program, in gas a second.
const raidSpeed = 2e9

// wallSpeed of a program that no gas limit ends in time, in gas a second.
const wallSpeed = 1e8

// leastWall is the shortest Wall of a raid's jobs.
const leastWall = 20 * time.Second

// bombSize is that of the largest program there may be, in bytes.
const bombSize = 64 << 20

// bigResult is the size of a result that a complaint has fetched.
const bigResult = 2 << 30

// bigTaste ends the CID of a result of that size.
const bigTaste = "-big"

// raidBytes is how large content is.
func raidBytes(c crowd.CID) uint64 {
	if strings.HasPrefix(string(c), "bomb-") {
		return bombSize
	}
	if strings.HasSuffix(string(c), bigTaste) {
		return bigResult
	}
	return 0
}
