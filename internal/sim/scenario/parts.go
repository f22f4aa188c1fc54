package scenario

import "github.com/crowdcompute/crowd"

// Parts does all work rightly and commits to the right leaves; only the parts that go on to other executors are
// not those that its outputs make. It hopes that whoever re-runs items looks at the leaves alone.
type Parts struct{ plain }

// Garbles implements Adversary.
func (Parts) Garbles(*World, *Node, crowd.JobID) bool { return true }
