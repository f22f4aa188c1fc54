package scenario

import "github.com/crowdcompute/crowd"

// WrongResult runs nothing and commits to an outcome of its own making, which
// it serves. It sees what every executor sees and works alone.
type WrongResult struct{ plain }

// Result implements Adversary.
func (WrongResult) Result(_ *World, n *Node, id crowd.JobID, honest crowd.Outcome) crowd.Outcome {
	return wrong(n, id, honest, n.ID.Short())
}
