package swarm

import (
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// forger sees: every node of its side and every honest node's record. Does: as colluders, but by turns it answers with a
// record of the target that the target did not sign, and with an old one of the target's own.
type forger struct {
	colluders
	turn int
}

func (f *forger) receive(me uint32, src, dst sim.Endpoint, l *letter) {
	m, ok := l.msg.(overlay.FindNode)
	if f.turn++; !ok || f.turn%2 == 0 {
		f.colluders.receive(me, src, dst, l)
		return
	}
	forged := *f.w.recs[f.turn%f.w.honest]
	forged.Endpoints = f.w.recs[me].Endpoints
	forged.Seq++
	forged.Sig[0] = 2
	f.nodes(me, src, dst, l, m.Req, []*overlay.Record{&forged})
}
