package job

import (
	"errors"
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// audit is what a node finds out about a batch's executor once its outcome is open: the
// leaves under its root, and where verifiers' answers differ from them.
type audit struct {
	own     bool      // the leaves are in the own store already
	making  crowd.CID // the result that the node makes of the outputs while it reads the leaves
	tree    *batch.Tree
	leaves  []batch.Leaf
	bad     error                           // they are not what was committed to
	reports map[crowd.NodeID]*ledger.Report // by verifier, nil where all answers agree; never ranged over
	apart   map[crowd.NodeID]*divergence    // of a tolerant job, by verifier; never ranged over
	at      crowd.NodeID                    // of a tolerant job: the verifier that is looked at
}

// audited gets the leaves and reports whether it is known what they are. With output,
// the items' outputs are fetched too and held against them; where they go on in parts, the
// node makes those itself and has the whole result afterwards.
func (c *core) audited(now time.Time, output bool) bool {
	if c.audit.leaves != nil || c.audit.bad != nil {
		return true
	}
	p := c.job.Executor()
	if p == nil {
		return false
	}
	o := &p.Opening.Outcome
	result := o.Result
	if !output {
		result = ""
	}
	parts := c.job.Spec.Shuffle.Parts
	switch {
	case c.work.fetched && c.work.unusable:
		c.audit.bad = fmt.Errorf("the executor's leaves: %w", ErrUnusable)
		return true
	case c.busy(now):
	case c.work.fetched || c.audit.own:
		try := c.begin(now, fetchPatience, reading)
		if parts > 0 {
			c.audit.making = result
		}
		c.emit(ReadLeaves{Try: try, Leaves: o.Leaves, Items: c.job.Spec.Items, Result: result, Max: c.maxResult(), Parts: parts})
	case parts > 0:
		c.fetch(now, Fetch{CIDs: []crowd.CID{o.Leaves}, Result: result, From: c.resultHolders(), Max: c.maxResult()})
	default:
		c.fetch(now, Fetch{CIDs: []crowd.CID{o.Leaves, result}, From: c.resultHolders(), Max: c.maxResult()})
	}
	return false
}

func (c *core) leavesRead(now time.Time, ev LeavesRead) {
	if !c.landed(now, ev.Try, reading, ev.Err) {
		if ev.Err != nil && !errors.Is(ev.Err, ErrUnusable) && c.work.kind == reading {
			c.work.fetched = false // they may be gone from the store
		}
		return
	}
	c.audit.bad = ev.Err
	if ev.Err == nil {
		c.audit.bad = c.root(ev.Leaves)
	}
	if c.audit.bad == nil && c.audit.making != "" {
		c.keep(c.audit.making)
	}
}

// root takes leaves that are those under the executor's root.
func (c *core) root(leaves []batch.Leaf) error {
	p := c.job.Executor()
	if p == nil {
		return errors.New("no executor's outcome is open")
	}
	tree, err := batch.NewTree(leaves)
	if err != nil {
		return err
	}
	if tree.Root() != ledger.Root(&c.job.Spec, &p.Opening.Outcome) {
		return errors.New("the executor's leaves are not those under its root")
	}
	for i := range leaves { // one item with the gas of all would be paid like all, and is hardly ever sampled
		if l := &leaves[i]; l.Gas > c.job.Spec.Task.Limits.Gas {
			return fmt.Errorf("item %d is said to have used %d gas, at most %d", i, l.Gas, c.job.Spec.Task.Limits.Gas)
		}
	}
	c.audit.tree, c.audit.leaves = tree, leaves
	return nil
}

// conflict is the first proven difference between the executor and a verifier that matters, or
// nil; !known: there is something to look at first. The leaves must be known. What cannot be had until lost is reported.
func (c *core) conflict(now time.Time, lost crowd.Time) (r *ledger.Report, known bool) {
	if !c.job.Spec.Compare.Strict() {
		return c.beyond(now, lost)
	}
	return c.differing(), true
}

// differing is conflict where every byte counts.
func (c *core) differing() *ledger.Report {
	for i := range c.job.Places {
		p := &c.job.Places[i]
		if !p.Verifier || p.State != ledger.Revealed {
			continue
		}
		r, known := c.audit.reports[p.Node]
		if !known {
			r = c.compare(p)
			if c.audit.reports == nil {
				c.audit.reports = map[crowd.NodeID]*ledger.Report{}
			}
			c.audit.reports[p.Node] = r
		}
		if r != nil {
			return r
		}
	}
	return nil
}

func (c *core) compare(p *ledger.Place) *ledger.Report {
	if proof := c.differs(p.Node, p.Opening); proof != nil {
		return &ledger.Report{Job: c.id, Verifier: p.Node, Proof: *proof}
	}
	return nil
}

// differs shows the first item for which the executor has another leaf than a verifier
// answers in its opening, or nothing. The leaves must be known.
func (c *core) differs(verifier crowd.NodeID, o *ledger.Opening) *batch.Proof {
	lot, err := c.job.Lot(verifier, o)
	if err != nil {
		return nil // the chain would not take it
	}
	items := ledger.Sampled(&c.job.Spec, lot)
	if len(items) != len(o.Answers) {
		return nil
	}
	for k, i := range items {
		if leaf := c.audit.leaves[i]; leaf.Hash() != o.Answers[k] {
			proof := c.audit.tree.Prove(i, leaf)
			return &proof
		}
	}
	return nil
}

// shown is what goes with a verifier's opening: where it differs from the executor. In a tolerant job only the owner says
// what is beyond the tolerance, and nobody whom it does not harm.
func (c *core) shown(verifier crowd.NodeID, o *ledger.Opening) *batch.Proof {
	if !c.job.Spec.Compare.Strict() {
		return nil
	}
	return c.differs(verifier, o)
}

// watch reports a conflict while that can be heard. In a tolerant job it would not be.
func (c *core) watch(now time.Time) {
	if !c.job.Spec.Compare.Strict() {
		return
	}
	if r := c.differing(); r != nil {
		c.send(now, r)
	}
}
