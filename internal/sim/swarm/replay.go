package swarm

import (
	"time"

	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// replayers see: every packet that their side ever got, and every record that honest nodes ever handed out. Do: as colluders, but asked
// for a node that has a later record they answer with its old one, which is truly signed.
type replayers struct {
	colluders
	old map[uint64]*overlay.Record // by the first bits of the key; never ranged over
}

func (r *replayers) receive(me uint32, src, dst sim.Endpoint, l *letter) {
	m, ok := l.msg.(overlay.FindNode)
	if !ok {
		r.colluders.receive(me, src, dst, l)
		return
	}
	out := r.ours(me, m.Target)
	if old := r.old[prefixOf(m.Target)]; old != nil {
		out = append([]*overlay.Record{old}, out[:min(len(out), most-1)]...)
	}
	r.nodes(me, src, dst, l, m.Req, out)
}

// Replay plays lookups in a settled world in which every honest node has changed its record some time ago, and a share of the nodes
// hands out the records of before. What is found counts only if it is the record as it is now.
func Replay(cfg Config, after time.Duration, lookups, paths int) (*Result, error) {
	w, err := New(cfg)
	if err != nil {
		return nil, err
	}
	foe := &replayers{colluders: colluders{base: base{w: w}}, old: map[uint64]*overlay.Record{}}
	w.foe = foe
	w.Settle()
	w.Run(time.Second, nil)
	for i := range uint32(w.honest) {
		foe.old[prefixOf(w.keyOf(i))] = w.recs[i]
		r := *w.recs[i]
		r.Seq = uint64(w.at(w.queue.Now())/1000) + 1
		r.Tags = []string{"moved"}
		sign(&r)
		w.recs[i] = &r
		w.tell(i, overlay.Renewed{Record: &r})
	}
	w.Run(after, nil)
	w.Lookups(lookups, paths, 100*time.Second)
	w.Run(200*time.Second, nil)
	return w.Result(), nil
}
