package swarm

import (
	"math"
	"time"

	"github.com/crowdcompute/crowd/internal/overlay"
)

// amplifier sees: the whole directory. Does: sends requests of every kind to honest nodes, with the source address of a victim
// who takes no part, and counts what the victim gets for it.
type amplifier struct {
	base
	victim uint32
	hits   Traffic
}

func (a *amplifier) hit(victim uint32, l *letter) {
	if victim == a.victim {
		a.hits.add(l.size + headers)
	}
}

// Amplified is what a request with a false source brought its victim.
type Amplified struct {
	What     string
	Sent     Traffic // by the adversary
	Hit      Traffic // the victim
	Factor   float64 // bytes hit per byte sent, headers included
	Payload  float64 // the same without headers
	Requests int
}

// Amplify plays every kind of request in a settled world, each to so many nodes, and again to the same: who
// was named in one is pinged, and may not be so twice as much.
func Amplify(cfg Config, nodes int) ([]Amplified, error) {
	var out []Amplified
	for kind, what := range []string{"ping", "ping with record", "find", "find with record", "find padded", "find padded with record", "register"} {
		cfg.Adversaries = 0
		w, err := New(cfg)
		if err != nil {
			return nil, err
		}
		foe := &amplifier{base: base{w: w}}
		w.foe = foe
		w.Settle()
		ids, _ := mine(w.rng, w.keyOf(0), math.MaxUint64, nodes)
		guests := w.bring(ids, 0)
		src := w.endpointOf(foe.victim)
		for _, g := range guests { // the attacker's own word is that it is where its victim is
			r := w.recs[g]
			r.Endpoints = w.recs[foe.victim].Endpoints
		}
		for round := range 3 {
			for i, g := range guests {
				to := uint32(1 + (i+round*nodes/2)%(w.honest-1))
				var m overlay.Message
				pad := false
				rec := w.recs[g]
				req := w.rng.Uint64()
				switch kind {
				case 0:
					m = overlay.Ping{Req: req, Seq: rec.Seq}
				case 1:
					m = overlay.Ping{Req: req, Seq: rec.Seq, Record: rec}
				case 2, 4:
					m, pad = overlay.FindNode{Req: req, Target: w.keyOf(to), Want: 16}, kind == 4
				case 3, 5:
					m, pad = overlay.FindNode{Req: req, Target: w.keyOf(to), Want: 16, Record: rec}, kind == 5
				case 6:
					m = overlay.Register{Req: req, Topic: w.keyOf(to), Record: rec}
				}
				foe.say(g, src, w.endpointOf(to), w.recs[to].ID, m, pad)
			}
			w.Run(20*time.Second, nil)
		}
		a := Amplified{What: what, Sent: w.Foe, Hit: foe.hits, Requests: int(w.Foe.Packets)}
		a.Factor = float64(a.Hit.Bytes) / float64(a.Sent.Bytes)
		a.Payload = float64(a.Hit.Bytes-headers*a.Hit.Packets) / float64(a.Sent.Bytes-headers*a.Sent.Packets)
		out = append(out, a)
	}
	return out, nil
}
