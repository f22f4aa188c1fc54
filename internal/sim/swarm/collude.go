package swarm

import (
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// colluders sees: every node of its side, and every request that comes to one. Does: answers pings as if
// honest, and every request with the nodes of its own side that are nearest to the target, as many as fit:
// who believes them goes from colluder to colluder, nearer to the target with every step, and ends there.
type colluders struct {
	base
	dir  *directory
	near []int
}

// most is records in an answer; the machine takes Config.Answer of them.
const most = 16

func (c *colluders) settled() {
	mine := make([]uint32, 0, len(c.w.recs)-c.w.honest)
	for i := c.w.honest; i < len(c.w.recs); i++ {
		mine = append(mine, uint32(i))
	}
	c.dir = newDirectory(c.w, mine)
}

func (c *colluders) receive(me uint32, src, dst sim.Endpoint, l *letter) {
	switch m := l.msg.(type) {
	case overlay.Ping:
		c.pong(me, src, dst, l, m)
	case overlay.Pong:
		c.owe(me, src, dst, l, m)
	case overlay.FindNode:
		c.nodes(me, src, dst, l, m.Req, c.ours(me, m.Target))
	}
}

// ours are the records of the side nearest to the target; a node's own first, if it was asked for.
func (c *colluders) ours(me uint32, target crowd.Key) []*overlay.Record {
	want := most
	if c.w.cfg.Overlay.Answer > 0 {
		want = c.w.cfg.Overlay.Answer
	}
	c.near = c.dir.nearest(c.near[:0], prefixOf(target), want)
	out := make([]*overlay.Record, 0, want)
	for _, at := range c.near {
		if n := c.dir.node[at]; n != me || c.w.keyOf(me) == target {
			out = append(out, c.w.recs[n])
		}
	}
	return slices.Clip(out)
}
