package job

import (
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// This file is what differs in a job of the class tolerant: outputs are fetched and compared
// before anybody is blamed for a hash.

// Compare holds outputs against each other by the job's comparator. All of them lie in the own store.
type Compare struct {
	Try   uint64
	How   crowd.Compare
	Pairs []Pair
}

// Pair is two outputs of one task.
type Pair struct {
	Own, Their Output
}

// Output is where an output lies in the own store.
type Output struct {
	CID   crowd.CID  // the result folder of a single task; of a batch, or of a verifier's sample, a folder as package batch describes it
	Of    uint32     // items in it; 0: a single task's
	Index uint32     // of an item: which of them
	Leaf  crowd.Hash // of an item: what it was bound to, which need not be what lies there
}

// Compared ends the Compare with the same Try: for each pair Same, Other, or Unjudged where the
// comparator does not know the first from itself.
type Compared struct {
	Try   uint64
	Found []ledger.Finding
	Err   error
}

func (Compare) effect() {}
func (Compared) event() {}

// compared takes in the end of a Compare: nil when it gave nothing.
func (c *core) compared(now time.Time, ev Compared, want int) []ledger.Finding {
	err := ev.Err
	if err == nil && len(ev.Found) != want {
		err = fmt.Errorf("%d findings about %d pairs", len(ev.Found), want)
	}
	if !c.landed(now, ev.Try, comparing, err) {
		return nil
	}
	return ev.Found
}

func (c *core) compareOutputs(now time.Time, pairs ...Pair) {
	c.emit(Compare{Try: c.begin(now, fetchPatience, comparing), How: c.job.Spec.Compare, Pairs: pairs})
}

// turn to other work, and forget what was in flight.
func (c *core) turn() {
	c.stop()
	c.work = working{try: c.work.try}
}

// divergence is how a verifier's answers stand to the executor's leaves, where bytes differ.
type divergence struct {
	answers []uint32 // of its answers, those with another hash
	beyond  []uint32 // of these, those beyond the tolerance; known only when known is set
	known   bool
}

// differ lists the answers of p with another hash than the executor's leaf.
func (c *core) differ(p *ledger.Place) (ks []uint32) {
	lot, err := c.job.Lot(p.Node, p.Opening)
	if err != nil {
		return nil // the chain took it: it cannot be
	}
	for k, i := range ledger.Sampled(&c.job.Spec, lot) {
		if c.audit.leaves[i].Hash() != p.Opening.Answers[k] {
			ks = append(ks, uint32(k))
		}
	}
	return ks
}

// beyond is conflict in a tolerant job: what verifiers' items wrote is fetched and compared. A
// verifier whose outputs cannot be had until lost is reported for a difference of its bytes, so that
// the court looks. known: nothing is left to compare.
func (c *core) beyond(now time.Time, lost crowd.Time) (r *ledger.Report, known bool) {
	for i := range c.job.Places {
		p := &c.job.Places[i]
		if !p.Verifier || p.State != ledger.Revealed {
			continue
		}
		d := c.audit.apart[p.Node]
		if d == nil {
			d = &divergence{answers: c.differ(p)}
			d.known = len(d.answers) == 0
			if c.audit.apart == nil {
				c.audit.apart = map[crowd.NodeID]*divergence{}
			}
			c.audit.apart[p.Node] = d
		}
		if !d.known && !c.lookAt(now, p, d, lost) {
			return nil, false
		}
		lot, err := c.job.Lot(p.Node, p.Opening)
		if err != nil {
			continue
		}
		items := ledger.Sampled(&c.job.Spec, lot)
		for _, k := range d.beyond {
			if item := items[k]; !c.job.IsCleared(item) {
				return &ledger.Report{Job: c.id, Verifier: p.Node, Answer: k, Proof: c.audit.tree.Prove(item, c.audit.leaves[item])}, true
			}
		}
	}
	return nil, true
}

// lookAt gets a verifier's outputs and compares them; true: d is known.
func (c *core) lookAt(now time.Time, p *ledger.Place, d *divergence, lost crowd.Time) bool {
	if c.audit.at != p.Node {
		c.turn()
		c.audit.at = p.Node
	}
	late := c.due(now, lost) && !(c.work.flying && c.work.kind == comparing)
	switch {
	case late || c.work.fetched && c.work.unusable:
		d.beyond, d.known = d.answers, true
		c.turn()
		return true
	case c.busy(now):
	case c.work.fetched:
		e := c.job.Executor()
		out, err := c.job.Lot(p.Node, p.Opening)
		if e == nil || err != nil {
			return false
		}
		items := ledger.Sampled(&c.job.Spec, out)
		var pairs []Pair
		for _, k := range d.answers {
			pairs = append(pairs, Pair{
				Own:   Output{CID: p.Opening.Outputs, Of: uint32(len(items)), Index: k, Leaf: p.Opening.Answers[k]},
				Their: Output{CID: e.Opening.Outcome.Result, Of: c.job.Spec.Items, Index: items[k], Leaf: c.audit.leaves[items[k]].Hash()},
			})
		}
		c.compareOutputs(now, pairs...)
	default:
		c.fetch(now, Fetch{CIDs: []crowd.CID{c.comparator(), p.Opening.Outputs}, From: c.holders(p.Node), Max: c.maxResult()})
	}
	return false
}

// lookedAt takes in what lookAt asked for.
func (c *core) lookedAt(now time.Time, ev Compared) {
	d := c.audit.apart[c.audit.at]
	if d == nil || d.known {
		return
	}
	found := c.compared(now, ev, len(d.answers))
	if found == nil {
		if ev.Err != nil {
			c.work.fetched = false // they may be gone from the store
		}
		return
	}
	for i, f := range found {
		if f != ledger.Same {
			d.beyond = append(d.beyond, d.answers[i])
		}
	}
	d.known = true
	c.turn()
}

// comparator is the app's own program, or "".
func (c *core) comparator() crowd.CID { return c.job.Spec.Compare.Program }

// holders of one node's output: it, and the authorities that looked at it.
func (c *core) holders(of crowd.NodeID) []crowd.NodeID {
	from := []crowd.NodeID{of}
	for i := range c.Authorities {
		from = append(from, c.Authorities[i].ID)
	}
	return c.others(from)
}

// weighing is an authority's part in the court of a tolerant job.
type weighing struct {
	own    crowd.CID  // of a batch: what the disputed item wrote here
	leaf   crowd.Hash // and its leaf
	found  map[crowd.NodeID]ledger.Finding
	on     crowd.NodeID // whose output is looked at
	turned int          // to another party, as one was not to be had
}

// weigh re-executes, compares each party's output with the own one and votes about each.
func (a *Authority) weigh(now time.Time) {
	j, w := a.job, &a.weighing
	var only []uint32
	if j.Dispute != nil {
		only = []uint32{j.Dispute.Item}
	}
	if have := only == nil && a.jrn.Outcome != nil || only != nil && w.own != ""; !have {
		switch {
		case a.due(now, j.Due):
			a.stop()
		case a.busy(now):
		case a.work.fetched:
			a.keep(a.inputs()...)
			a.run(now, only)
		default:
			a.fetchInputs(now, only)
		}
		return
	}
	if w.found == nil {
		w.found = map[crowd.NodeID]ledger.Finding{}
	}
	late := a.due(now, j.Due-crowd.Time(a.Params.CourtWindow/3))
	var open []*ledger.Place
	for _, p := range j.Judged() {
		f := w.found[p.Node]
		if f == 0 {
			f = a.plain(p)
		}
		if f == 0 && late {
			f = ledger.Missing
		}
		if f == 0 {
			open = append(open, p)
			continue
		}
		vote := &ledger.Vote{Job: a.id, Question: ledger.SameAnswer, Executor: p.Node, Finding: f}
		if j.Dispute != nil {
			vote.Item = j.Dispute.Item
		}
		a.send(now, vote)
	}
	if len(open) == 0 {
		a.stop()
		return
	}
	if w.on != (crowd.NodeID{}) && a.busy(now) {
		return
	}
	p := open[w.turned%len(open)]
	if a.work.err != nil && w.on == p.Node { // others first
		w.turned++
		p = open[w.turned%len(open)]
	}
	if w.on != p.Node {
		fails := a.work.fails // of all parties together, so that nobody is asked without a pause
		a.turn()
		w.on, a.work.fails = p.Node, fails
	}
	switch {
	case a.work.fetched && a.work.unusable: // on any machine alike: it is bound to what is no output
		w.found[p.Node] = ledger.Other
		a.weigh(now)
	case a.work.fetched:
		a.compareOutputs(now, a.pair(p))
	default:
		a.fetch(now, Fetch{CIDs: []crowd.CID{a.pair(p).Their.CID}, From: a.holders(p.Node), Max: a.maxResult()})
	}
}

// plain is what can be said without looking at outputs; 0: nothing.
func (a *Authority) plain(p *ledger.Place) ledger.Finding {
	if a.job.Dispute != nil {
		if a.pair(p).Their.Leaf == a.weighing.leaf {
			return ledger.Same
		}
		return 0
	}
	own, their := a.jrn.Outcome, &p.Opening.Outcome
	switch {
	case *own == *their:
		return ledger.Same
	case own.Status != their.Status || own.ExitCode != their.ExitCode || !a.job.Spec.Compare.NearGas(own.Gas, their.Gas):
		return ledger.Other
	case own.Result == their.Result:
		return ledger.Same
	}
	return 0
}

// pair is the own output and p's.
func (a *Authority) pair(p *ledger.Place) Pair {
	d := a.job.Dispute
	if d == nil {
		return Pair{Own: Output{CID: a.jrn.Outcome.Result}, Their: Output{CID: p.Opening.Outcome.Result}}
	}
	own := Output{CID: a.weighing.own, Of: 1, Leaf: a.weighing.leaf}
	if !p.Verifier {
		return Pair{own, Output{CID: p.Opening.Outcome.Result, Of: a.job.Spec.Items, Index: d.Item, Leaf: d.Executor}}
	}
	answer, k, _ := a.job.Answer(p, d.Item)
	return Pair{own, Output{CID: p.Opening.Outputs, Of: uint32(len(p.Opening.Answers)), Index: k, Leaf: answer}}
}

// weighed takes in the end of weigh's Compare.
func (a *Authority) weighed(now time.Time, ev Compared) {
	w, p := &a.weighing, a.job.Place(a.weighing.on)
	if p == nil || p.Opening == nil || w.found == nil || w.found[p.Node] != 0 {
		return
	}
	found := a.compared(now, ev, 1)
	if found == nil {
		if ev.Err != nil {
			a.work.fetched = false // it may be gone from the store
		}
		return
	}
	if w.found[p.Node] = found[0]; found[0] == ledger.Same {
		a.keep(a.pair(p).Their.CID) // the owner may need it
	}
}

// ranTolerant takes in the end of weigh's Run of one item.
func (a *Authority) ranTolerant(now time.Time, ev Ran) {
	err := ev.Err
	if err == nil && (len(ev.Leaves) != 1 || ev.Outputs == "") {
		err = fmt.Errorf("the executor gave %d leaves and %q for one item", len(ev.Leaves), ev.Outputs)
	}
	if a.landed(now, ev.Try, running, err) {
		a.weighing.own, a.weighing.leaf = ev.Outputs, ev.Leaves[0].Hash()
		a.keep(ev.Outputs)
	}
}
