package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/job"
)

// Adversary bends what one node does. It runs the same machines as everybody,
// sees what its node sees and what is public on chain, and holds its node's key.
// It cannot break signatures, seals or hashes, nor cut other nodes' links.
type Adversary interface {
	// Bend replaces an effect of the node's own machine before it is carried out.
	Bend(w *World, n *Node, id crowd.JobID, r job.Role, e job.Effect) []job.Effect
	// Serves says whether content that the node holds is handed to a peer.
	Serves(w *World, n *Node, c crowd.CID, to *Node) bool
	// Result replaces what a run comes to.
	Result(w *World, n *Node, id crowd.JobID, honest crowd.Outcome) crowd.Outcome
	// Leaves replaces what a run of a batch's items comes to: all of them, as its
	// executor, or only some, as its verifier. honest is a copy.
	Leaves(w *World, n *Node, id crowd.JobID, only []uint32, honest []batch.Leaf) []batch.Leaf
	// Garbles says whether the parts are other ones that the node, as executor, makes of the outputs that go on to others.
	Garbles(w *World, n *Node, id crowd.JobID) bool
	// Saw is told every record that reaches the node.
	Saw(w *World, n *Node, c job.Chain)
}

// plain does what honest nodes do; adversaries embed it and change one thing.
type plain struct{}

func (plain) Bend(_ *World, _ *Node, _ crowd.JobID, _ job.Role, e job.Effect) []job.Effect {
	return []job.Effect{e}
}
func (plain) Serves(*World, *Node, crowd.CID, *Node) bool { return true }
func (plain) Result(_ *World, _ *Node, _ crowd.JobID, o crowd.Outcome) crowd.Outcome {
	return o
}
func (plain) Leaves(_ *World, _ *Node, _ crowd.JobID, _ []uint32, honest []batch.Leaf) []batch.Leaf {
	return honest
}
func (plain) Garbles(*World, *Node, crowd.JobID) bool { return false }
func (plain) Saw(*World, *Node, job.Chain)            {}

// wrong is an outcome that looks as good as the honest one. All who lie with
// the same taste agree.
func wrong(n *Node, id crowd.JobID, honest crowd.Outcome, taste string) crowd.Outcome {
	o := honest
	o.Result = "lie-" + honest.Result + crowd.CID(taste)
	n.Wrong[id] = o
	n.hold(o.Result)
	return o
}
