package scenario

import (
	"time"

	"github.com/crowdcompute/crowd/internal/ledger"
)

// burstPoster is an owner that posts many jobs at once. An honest node has one transaction in flight and cannot claim all of
// them in time, where in a small network everybody must; the attacker's nodes have as many as they like. It hopes that honest
// nodes count as asleep, so that its own have all places of the next stranger's job and make the result up.
var burstPoster = Attack{
	Name: "burst-poster", What: "an owner posts so many jobs at once that honest nodes miss their claims; its own then take strangers' jobs",
	begin: func(r *Raid, author *Node) {
		for _, n := range append([]*Node{author}, r.crew...) {
			n.floods = true
		}
		r.lies = append(r.lies, func(_ *Node, j *ledger.Job) bool {
			return !r.ours[j.Owner] && r.seats(j) && r.mayAudit(j)
		})
		left := bursts // beside an attack that takes hours too
		burst := func() {
			if left--; left < 0 {
				return
			}
			for range burstSize {
				r.w.PostSpec(author, r.spec("least", 1), nil)
			}
		}
		r.w.After(time.Second, burst)
		r.every(burstEvery, burst)
		r.w.After(10*time.Second, func() { r.spread(r.strangers, r.each, r.usual, r.aimAt) })
		r.lanes++ // until the strangers' are open
		r.w.After(11*time.Second, func() { r.lanes-- })
		for _, n := range r.w.Nodes[r.w.Config.Authorities : r.w.Config.Authorities+r.Providers] {
			if n.Honest() {
				r.every(awakeEvery, func() {
					if r.w.state.Reputation(n.ID.Address()).Missed >= r.w.Config.Params.MaxMissed {
						n.Send(&ledger.Awake{}, nil)
					}
				})
			}
		}
	},
}

const (
	bursts     = 4
	burstSize  = 60
	burstEvery = 40 * time.Second
	awakeEvery = 30 * time.Second // as a real node looks whether it counts as asleep
)
