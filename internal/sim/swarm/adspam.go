package swarm

import (
	"math"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// spammers see: the whole directory. Do: register ads of many identities under one topic at all nodes round it, wait as their
// tickets say, and come again, so that nobody else's ads have room.
type spammer struct {
	colluders
	topic   crowd.Key
	tickets map[[2]uint32][]byte // by guest and registrar; never ranged over
	kept    int
}

func (s *spammer) act(guest uint32, registrar uint32) {
	w := s.w
	s.say(guest, w.endpointOf(guest), w.endpointOf(registrar), w.recs[registrar].ID, overlay.Register{
		Req: uint64(guest)<<32 | uint64(registrar), Topic: s.topic, Ticket: s.tickets[[2]uint32{guest, registrar}], Record: w.recs[guest]}, true)
}

func (s *spammer) receive(me uint32, src, dst sim.Endpoint, l *letter) {
	m, ok := l.msg.(overlay.Ticket)
	if !ok {
		s.colluders.receive(me, src, dst, l)
		return
	}
	registrar := uint32(m.Req)
	if m.Kept {
		s.kept++
	} else {
		s.tickets[[2]uint32{me, registrar}] = m.Ticket
	}
	s.w.push(s.w.queue.Now().After(m.Wait+time.Second), me, acts, registrar)
}

// Spam is what ads of an adversary did to those of honest nodes.
type Spam struct {
	Nodes, Honest, Spammers, Hosts int

	Kept    int     // registrations of spam that succeeded
	Lookups int     // of the topic's ads
	Found   float64 // mean share of the honest announcers in what a lookup brought
	Any     int     // lookups that brought one at least
}

// SpamAds settles cfg's world without adversaries. Spammers on so many hosts (0: each on its own) begin with a topic, honest
// nodes announce under it a minute later, and after d lookups ask for its ads.
func SpamAds(cfg Config, honest, spammers, hosts, lookups int, d time.Duration) (*Spam, error) {
	cfg.Adversaries = 0
	w, err := New(cfg)
	if err != nil {
		return nil, err
	}
	const tag = "gpu"
	foe := &spammer{colluders: colluders{base: base{w: w}}, topic: overlay.Topic(tag), tickets: map[[2]uint32][]byte{}}
	w.foe = foe
	for i := range honest {
		w.recs[i].Tags = []string{tag}
	}
	w.Settle()
	ids, _ := mine(w.rng, foe.topic, math.MaxUint64, spammers)
	guests := w.bring(ids, hosts)
	foe.dir = newDirectory(w, guests)
	all := make([]uint32, w.honest)
	for i := range all {
		all[i] = uint32(i)
	}
	dir := newDirectory(w, all)
	for _, g := range guests {
		w.recs[g].Tags = []string{tag}
		for _, at := range dir.nearest(nil, prefixOf(foe.topic), spamRound) {
			foe.act(g, dir.node[at])
		}
	}
	w.Run(time.Minute, nil)
	for i := range uint32(honest) {
		w.tell(i, overlay.Announce{Topic: foe.topic})
	}
	w.Run(d, nil)
	out := &Spam{Nodes: w.honest, Honest: honest, Spammers: spammers, Hosts: hosts, Kept: foe.kept}
	mine := make(map[crowd.NodeID]bool, honest)
	for i := range honest {
		mine[w.recs[i].ID] = true
	}
	w.cell++
	w.watch = func(done *overlay.Done) {
		out.Lookups++
		n := 0
		for _, r := range done.Ads {
			if mine[r.ID] {
				n++
			}
		}
		out.Found += float64(n) / float64(honest) / float64(lookups)
		if n > 0 {
			out.Any++
		}
	}
	for range lookups {
		from := uint32(honest + w.rng.IntN(w.honest-honest))
		w.tell(from, overlay.Lookup{ID: w.cell << 32, Target: foe.topic, Paths: 8, Ads: true})
		w.Run(2*time.Second, nil)
	}
	w.Run(30*time.Second, nil)
	w.watch = nil
	return out, nil
}

// spamRound: registrars that each spammer goes to.
const spamRound = 32
