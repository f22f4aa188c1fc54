package scenario

import (
	"fmt"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/job"
)

// Parts does all work rightly and commits to the right leaves; only the parts that go on to other executors are
// not those that its outputs make. It hopes that whoever re-runs items looks at the leaves alone.
type Parts struct{ plain }

// Garbles implements Adversary.
func (Parts) Garbles(*World, *Node, crowd.JobID) bool { return true }

// Manifest makes a manifest's content, which its owner then holds.
func (w *World) Manifest(owner *Node, m batch.Manifest) crowd.CID {
	c := crowd.CID("manifest-" + crowd.Digest("sim/manifest", &m).String()[:16])
	w.manifests[c] = m
	owner.hold(c)
	return c
}

// parts are what a batch gathers: of every source's outputs the share that its items, or some of them, read.
// Which bytes these are the simulation does not know; that a source is right, its own batch has shown.
func (w *World) parts(g *job.Gather) (things []thing) {
	m, ok := w.manifests[g.Manifest]
	if !ok {
		panic(fmt.Sprintf("bug: no manifest %s", g.Manifest))
	}
	numbers := 0
	count := func(i uint32) { numbers += len(m.Items[i]) }
	for i := range g.Items {
		if g.Only == nil {
			count(i)
		}
	}
	for _, i := range g.Only {
		count(i)
	}
	for _, s := range m.Sources {
		things = append(things, thing{s.Result, w.Config.PartBytes * uint64(numbers), s.Holders})
	}
	return things
}
