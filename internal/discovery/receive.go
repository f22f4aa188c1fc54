package discovery

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
)

// request is one of ours that may still be answered.
type request struct {
	to      crowd.NodeID
	addr    netip.AddrPort
	at      overlay.Time
	parts   int // answered so far
	records int
}

type requestKey struct {
	addr netip.AddrPort
	req  uint64
}

const maxVoices = 64

// requestFor is how long an answer is waited for: longer than the machine waits.
const requestFor = 10 * time.Second

var errBusy = errors.New("over budget")

// receive takes one datagram through the checks, the cheapest first, and hands it to the machine.
func (d *Discovery) receive(g p2p.Datagram) {
	defer g.Free()
	count := &d.counts
	count.Received.Add(1)
	from := netip.AddrPortFrom(g.From.Addr().Unmap().WithZone(""), g.From.Port())
	if len(g.Data) < len(crowd.Hash{}) {
		count.Malformed.Add(1)
		return
	}
	name := crowd.Hash(g.Data)
	if _, again := d.limits.replays.get(name); again {
		count.Replayed.Add(1)
		return
	}
	p, err := overlay.Read(d.cfg.Network, d.key, g.Data)
	switch {
	case errors.Is(err, overlay.ErrHash):
		count.NotForUs.Add(1)
		return
	case err != nil:
		count.Malformed.Add(1)
		return
	}
	now := d.clock.now()

	// Nobody but who was asked knows the number of a request, which is random: answers without one cost nothing.
	var asked *request
	if p.IsAnswer() {
		key := requestKey{from, p.Req}
		if asked = d.requests[key]; asked == nil {
			count.Unasked.Add(1)
			return
		}
		asked.parts++
		asked.records += p.Records
		if asked.parts > maxAnswerParts || asked.records > maxAnswerRecords {
			delete(d.requests, key)
			count.Unasked.Add(1)
			return
		}
	}
	recover := func(h crowd.Hash, sig identity.Signature) (crowd.NodeID, error) {
		return d.recover(h, sig, from, asked, now)
	}
	sender, err := p.Sender(recover)
	if err != nil {
		d.countRefusal(err)
		return
	}
	if sender == d.id || asked != nil && asked.to != sender {
		count.WrongSender.Add(1)
		return
	}
	if d.shuns(sender, now) {
		count.Shunned.Add(1)
		return
	}
	d.limits.replays.put(name, struct{}{})

	// That an answer is not old, its request's number says, whatever the time is there.
	if asked == nil {
		left := p.Expires.Sub(now)
		if left <= 0 || left > packetLife+maxSkew {
			count.Stale.Add(1)
			d.step(overlay.Stale{From: sender, Addr: from, Size: p.Size, Req: p.Req, Off: p.Expires.Sub(now) - packetLife})
			return
		}
	} else {
		d.limits.answered.put(from, struct{}{})
	}

	m, err := p.Message(sender, recover)
	if err != nil {
		d.countRefusal(err)
		return
	}
	m, ok := d.fresh(m)
	if !ok {
		return
	}
	if asked != nil {
		d.heard(sender, now.Sub(asked.at), asked.parts == 1)
	}
	d.weigh(arrival{from: sender, addr: from, size: p.Size, message: m, asked: asked != nil}, now)
}

func (d *Discovery) countRefusal(err error) {
	if errors.Is(err, errBusy) {
		d.counts.OverBudget.Add(1)
		return
	}
	d.counts.BadSignature.Add(1)
}

// recover is identity.Recover with a memory and within the budget.
func (d *Discovery) recover(h crowd.Hash, sig identity.Signature, from netip.AddrPort, asked *request, now overlay.Time) (crowd.NodeID, error) {
	key := signed{h, sig}
	if id, ok := d.recovered.Get(key); ok {
		return id, nil
	}
	if asked == nil && !d.limits.recovery(from, now) {
		return crowd.NodeID{}, errBusy
	}
	d.counts.Recoveries.Add(1)
	id, err := identity.Recover(h, sig)
	if err == nil {
		d.recovered.Add(key, id)
	}
	return id, err
}

type signed struct {
	hash crowd.Hash
	sig  identity.Signature
}

// fresh checks time and dynamic puzzle of the records. An answer loses those that fail, which may have been fresh
// where they come from; a request with such a record is refused.
func (d *Discovery) fresh(m overlay.Message) (overlay.Message, bool) {
	now := d.clock.now()
	check := func(r *overlay.Record) bool {
		if r == nil || overlay.CheckFresh(r, now, d.cfg.Difficulty, d.beacons...) == nil {
			return true
		}
		d.counts.BadPuzzle.Add(1)
		return false
	}
	switch m := m.(type) {
	case overlay.Ping:
		return m, check(m.Record)
	case overlay.FindNode:
		return m, check(m.Record)
	case overlay.Register:
		return m, check(m.Record)
	case overlay.Nodes:
		kept, ads := make([]*overlay.Record, 0, len(m.Records)), uint8(0)
		for i, r := range m.Records {
			if r.ID == d.id || !check(r) {
				continue
			}
			kept = append(kept, r)
			if i < int(m.Ads) {
				ads++
			}
		}
		m.Records, m.Ads = kept, ads
		return m, true
	}
	return m, true
}

// arrival is a message of which everything is checked but the static puzzles of the records in it.
type arrival struct {
	from    crowd.NodeID
	addr    netip.AddrPort
	size    int
	message overlay.Message
	asked   bool
}

func (a arrival) records() []*overlay.Record {
	var own *overlay.Record
	switch m := a.message.(type) {
	case overlay.Ping:
		own = m.Record
	case overlay.FindNode:
		own = m.Record
	case overlay.Register:
		own = m.Record
	case overlay.Nodes:
		return m.Records
	}
	if own == nil {
		return nil
	}
	return []*overlay.Record{own}
}

// weigh hands a to the machine, after the static puzzles of all its records are known to be solved. Those
// take 15 ms each and are checked elsewhere; what does not fit the queue is dropped.
func (d *Discovery) weigh(a arrival, now overlay.Time) {
	if d.cfg.Difficulty.Static > 0 {
		for _, r := range a.records() {
			solved, known := d.solved.Get(r.ID)
			switch {
			case known && !solved:
				d.counts.BadPuzzle.Add(1)
				return
			case known:
				continue
			case !a.asked && !d.limits.puzzle(a.addr, now):
				d.counts.OverBudget.Add(1)
				return
			}
			queue := d.puzzles
			if a.asked {
				queue = d.puzzlesAsked
			}
			select {
			case queue <- a:
			default:
				d.counts.OverBudget.Add(1)
			}
			return
		}
	}
	d.counts.Accepted.Add(1)
	if c, ok := a.message.(overlay.Clock); ok && len(d.voices) < maxVoices && c.Now > 0 {
		d.voices[a.from] = c.Now.Sub(now)
	}
	d.step(overlay.Received{From: a.from, Addr: a.addr, Size: a.size, Msg: a.message})
}

// solve checks static puzzles until its queues are closed, those of answers first. It stops at the first in a message
// that is not solved: no honest node passes one on.
func (d *Discovery) solve(ctx context.Context) {
	asked, others := d.puzzlesAsked, d.puzzles
	for asked != nil || others != nil {
		var a arrival
		var ok bool
		select {
		case a, ok = <-asked:
			if !ok {
				asked = nil
				continue
			}
		default:
			select {
			case a, ok = <-asked:
				if !ok {
					asked = nil
					continue
				}
			case a, ok = <-others:
				if !ok {
					others = nil
					continue
				}
			}
		}
		for _, r := range a.records() {
			solved, known := d.solved.Get(r.ID)
			if !known && ctx.Err() != nil {
				break // nobody waits for it any more
			}
			if !known {
				d.counts.Puzzles.Add(1)
				solved = identity.CheckStatic(r.ID, d.cfg.Difficulty.Static) == nil
				d.solved.Add(r.ID, solved)
			}
			if !solved {
				break
			}
		}
		d.weighed <- a
	}
	close(d.weighed)
}
