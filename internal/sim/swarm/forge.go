package swarm

import (
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// forgers see: every node of their side and every honest node's record. Do: as colluders, but every other answer is what no driver
// lets in: the target's own record with a colluder's address in it, which the target did not sign.
type forgers struct {
	colluders
	honest *directory // as it was when the world began
	turn   int
}

func (f *forgers) settled() {
	f.colluders.settled()
	all := make([]uint32, f.w.honest)
	for i := range all {
		all[i] = uint32(i)
	}
	f.honest = newDirectory(f.w, all)
}

func (f *forgers) receive(me uint32, src, dst sim.Endpoint, l *letter) {
	m, ok := l.msg.(overlay.FindNode)
	if f.turn++; !ok || f.turn%2 == 0 {
		f.colluders.receive(me, src, dst, l)
		return
	}
	forged := *f.w.recs[0]
	if n := f.honest.nearest(nil, prefixOf(m.Target), 1); len(n) > 0 {
		forged = *f.w.recs[f.honest.node[n[0]]]
	}
	forged.Endpoints = f.w.recs[me].Endpoints
	forged.Seq++
	forged.Sig[0] = 2
	f.nodes(me, src, dst, l, m.Req, []*overlay.Record{&forged})
}
