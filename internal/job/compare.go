package job

import (
	"fmt"
	"slices"
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
				return &ledger.Report{Job: c.id, Verifier: p.Node, Proof: c.audit.tree.Prove(item, c.audit.leaves[item])}, true
			}
		}
	}
	return nil, true
}

// lookAt gets a verifier's outputs and compares them; true: d is known.
func (c *core) lookAt(now time.Time, p *ledger.Place, d *divergence, lost crowd.Time) bool {
	if c.audit.at != p.Node {
		c.turn()
		c.audit.at, c.work.brief = p.Node, true
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
	found  map[subject]ledger.Finding
	on     subject // whose output is looked at
	turned int     // to another's, as one was not to be had
}

// subject is whose output is held against the own one: a party's, or another authority's.
type subject struct {
	node  crowd.NodeID
	court bool
}

// weigh re-executes, says what came of it, compares each party's output with that and votes about each.
// Before it calls one another answer it looks at the other authorities' own: a comparator that does not
// take more than 2/3 of them for the same is the user's fault, as the program is that makes them differ.
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
		w.found = map[subject]ledger.Finding{}
	}
	own := &ledger.Vote{Job: a.id, Question: ledger.OwnAnswer, Item: j.Asked(), Leaf: w.leaf}
	if own.Outcome.Result = w.own; only == nil {
		own.Outcome = *a.jrn.Outcome
	}
	a.send(now, own)
	late := a.due(now, j.Due-crowd.Time(a.Params.CourtWindow/3))
	var open []subject
	fit, doubted := a.fit()
	for _, p := range j.Judged() {
		f := a.finding(subject{node: p.Node})
		switch {
		case f == 0 && !late:
			open = append(open, subject{node: p.Node})
			continue
		case f == 0:
			f = ledger.Missing
		case f != ledger.Other || fit:
		case len(doubted) > 0 || late:
			if !late {
				open = append(open, doubted...)
			}
			continue
		default:
			f = ledger.Unjudged
		}
		a.send(now, &ledger.Vote{Job: a.id, Question: ledger.SameAnswer, Executor: p.Node, Item: j.Asked(), Finding: f})
	}
	open = slices.DeleteFunc(open, func(s subject) bool { return s.node == (crowd.NodeID{}) }) // who has not said anything yet
	if len(open) == 0 {
		a.stop()
		return
	}
	if w.on != (subject{}) && a.busy(now) {
		return
	}
	s := open[w.turned%len(open)]
	if a.work.err != nil && w.on == s { // others first
		w.turned++
		s = open[w.turned%len(open)]
	}
	if w.on != s {
		fails := a.work.fails // of all together, so that nobody is asked without a pause
		a.turn()
		w.on, a.work.fails, a.work.brief = s, fails, true
	}
	_, their, _ := a.said(s)
	switch {
	case a.work.fetched && a.work.unusable: // on any machine alike: it is bound to what is no output
		w.found[s] = ledger.Other
		a.weigh(now)
	case a.work.fetched:
		a.compareOutputs(now, Pair{a.mine(), their})
	default:
		a.fetch(now, Fetch{CIDs: []crowd.CID{their.CID}, From: a.holders(s.node), Max: a.maxResult()})
	}
}

// fit reports whether more than 2/3 of the authorities came to what the comparator takes for the own answer.
// Where that is not known yet, doubted are those whose answers are to be looked at, and nobody for who is still to speak.
func (a *Authority) fit() (fit bool, doubted []subject) {
	same, n := 0, len(a.Authorities)
	for i := range a.Authorities {
		s := subject{a.Authorities[i].ID, true}
		f := ledger.Same
		if s.node != a.self {
			f = 0
			if _, _, ok := a.said(s); !ok {
				s.node = crowd.NodeID{}
			} else {
				f = a.finding(s)
			}
		}
		switch f {
		case ledger.Same:
			same++
		case 0:
			doubted = append(doubted, s)
		}
	}
	if fit = 3*same > 2*n; fit || 3*(same+len(doubted)) <= 2*n {
		doubted = nil
	}
	return fit, doubted
}

// said is what a subject is bound to by its word: the outcome of a single task, and where the output lies.
func (a *Authority) said(s subject) (o crowd.Outcome, out Output, ok bool) {
	j := a.job
	if s.court {
		for i := range j.Ballots {
			if b := &j.Ballots[i]; b.Authority == s.node && b.Question == ledger.OwnAnswer && b.Item == j.Asked() {
				out = Output{CID: b.Outcome.Result}
				if j.Dispute != nil {
					out.Of, out.Leaf = 1, b.Leaf
				}
				return b.Outcome, out, true
			}
		}
		return o, out, false
	}
	p := j.Place(s.node)
	if p == nil || p.Opening == nil {
		return o, out, false
	}
	o, out = p.Opening.Outcome, Output{CID: p.Opening.Outcome.Result}
	switch {
	case j.Dispute == nil:
	case p.Verifier:
		answer, k, _ := j.Answer(p, j.Dispute.Item)
		out = Output{CID: p.Opening.Outputs, Of: uint32(len(p.Opening.Answers)), Index: k, Leaf: answer}
	default:
		out.Of, out.Index, out.Leaf = j.Spec.Items, j.Dispute.Item, j.Dispute.Executor
	}
	return o, out, true
}

// mine is the own output.
func (a *Authority) mine() Output {
	if a.job.Dispute == nil {
		return Output{CID: a.jrn.Outcome.Result}
	}
	return Output{CID: a.weighing.own, Of: 1, Leaf: a.weighing.leaf}
}

// finding about a subject that has spoken, as far as it is known; 0: its output is to be looked at.
func (a *Authority) finding(s subject) ledger.Finding {
	if f := a.weighing.found[s]; f != 0 {
		return f
	}
	their, out, ok := a.said(s)
	if !ok {
		return 0
	}
	if a.job.Dispute != nil {
		if out.Leaf == a.weighing.leaf {
			return ledger.Same
		}
		return 0
	}
	switch own := a.jrn.Outcome; {
	case *own == their:
		return ledger.Same
	case own.Status != their.Status || own.ExitCode != their.ExitCode || !a.job.Spec.Compare.NearGas(own.Gas, their.Gas):
		return ledger.Other
	case own.Result == their.Result:
		return ledger.Same
	}
	return 0
}

// weighed takes in the end of weigh's Compare.
func (a *Authority) weighed(now time.Time, ev Compared) {
	w := &a.weighing
	if w.found == nil || w.on == (subject{}) || w.found[w.on] != 0 {
		return
	}
	found := a.compared(now, ev, 1)
	if found == nil {
		if ev.Err != nil {
			a.work.fetched = false // it may be gone from the store
		}
		return
	}
	if w.found[w.on] = found[0]; found[0] == ledger.Same && !w.on.court && a.job.Dispute == nil {
		_, their, _ := a.said(w.on)
		a.keep(their.CID) // the owner may need it
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
