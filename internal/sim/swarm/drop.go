package swarm

import (
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// dropper sees: what comes to its nodes. Does: answers pings, so that it stays in tables, and no request.
type dropper struct{ base }

func (d *dropper) receive(me uint32, src, dst sim.Endpoint, l *letter) {
	if m, ok := l.msg.(overlay.Ping); ok {
		d.pong(me, src, dst, l, m)
	}
}
