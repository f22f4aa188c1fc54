package scenario

import "github.com/crowdcompute/crowd"

// Wash is a wash trader: its owner posts batches that only its own providers may
// take, who make everything up alike, and accepts them unseen. It wants a record for nothing.
func Wash(w *World, owner *Node, own ...*Node) func(*World, *crowd.JobSpec) {
	g := &Gang{Rate: 1}
	var names []crowd.NodeID
	for _, n := range own {
		n.adv = g.Join(n)
		names = append(names, n.ID)
	}
	owner.adv = &Bribed{}
	return func(_ *World, s *crowd.JobSpec) { s.Filters.Providers = names }
}
