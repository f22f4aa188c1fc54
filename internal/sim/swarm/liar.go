package swarm

import (
	"time"

	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// liars see: every node of their side. Do: as colluders, but the records that they hand on name a victim's address in place
// of the node's own: whoever believes them sends its requests there.
type liars struct {
	colluders
	victim uint32
	lies   map[uint32]*overlay.Record // by node; never ranged over
	hits   Traffic
}

func (s *liars) settled() {
	s.colluders.settled()
	s.lie()
}

// lie lets all of the side sign a later record with the victim's address.
func (s *liars) lie() {
	s.lies = make(map[uint32]*overlay.Record, len(s.dir.node))
	for _, n := range s.dir.node {
		r := *s.w.recs[n]
		r.Seq++
		r.Endpoints = s.w.recs[s.victim].Endpoints
		sign(&r)
		s.lies[n] = &r
	}
}

func (s *liars) receive(me uint32, src, dst sim.Endpoint, l *letter) {
	m, ok := l.msg.(overlay.FindNode)
	if !ok {
		s.colluders.receive(me, src, dst, l)
		return
	}
	out := make([]*overlay.Record, 0, most)
	s.near = s.dir.nearest(s.near[:0], prefixOf(m.Target), most)
	for _, at := range s.near {
		out = append(out, s.lies[s.dir.node[at]])
	}
	s.nodes(me, src, dst, l, m.Req, out)
}

func (s *liars) hit(victim uint32, l *letter) {
	if victim == s.victim {
		s.hits.add(l.size + headers)
	}
}

// Liars is what an endpoint lie brought its victim.
type Liars struct {
	Nodes   int
	Share   float64 // of the nodes who lie
	Lookups int
	Found   int
	Told    Traffic // what the liars sent
	Hit     Traffic // the victim, from honest nodes
	Factor  float64 // bytes hit per byte told
	Each    float64 // bytes that hit the victim per lookup
}

// Lie plays lookups in a settled world in which a share of the nodes tells that they all live at a victim's address.
func Lie(cfg Config, lookups, paths int) (*Liars, error) {
	cfg.Behaviour = "liar"
	w, err := New(cfg)
	if err != nil {
		return nil, err
	}
	w.Settle()
	w.Lookups(lookups, paths, 100*time.Second)
	w.Run(200*time.Second, nil)
	foe := w.foe.(*liars)
	r := w.Result()
	return &Liars{Nodes: cfg.Nodes, Share: cfg.Adversaries, Lookups: r.Lookups, Found: r.Found, Told: w.Foe, Hit: foe.hits,
		Factor: float64(foe.hits.Bytes) / float64(max(w.Foe.Bytes, 1)), Each: float64(foe.hits.Bytes) / float64(max(r.Lookups, 1))}, nil
}
