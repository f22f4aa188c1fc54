package overlay

import (
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// clock is what peers that refused our packets say of the time, and how many we have told it.
type clock struct {
	samples []sample
	told    time.Duration // by the last ClockOff
	answers int           // Clock messages that may be sent now
	filled  Time
}

type sample struct {
	id  crowd.NodeID
	net uint64
	off time.Duration // theirs minus ours
	at  Time
}

const (
	clockVoices  = 5                // so many peers of so many networks must agree
	clockAgree   = time.Minute      // within that of the median
	clockMemory  = 10 * time.Minute // of what a peer said
	clockMost    = 100 * 365 * 24 * time.Hour
	clockSamples = 32
	clockBurst   = 20                     // Clock messages at once
	clockEvery   = 100 * time.Millisecond // and then one in that time
)

// stale tells the sender of a packet from another time what time it is here: no more bytes than it sent.
func (n *Node) stale(ev Stale) {
	if ev.Size < clockBytes || ev.From == n.book.rec(n.self).ID {
		return
	}
	c := n.clocks()
	if add := n.now.Sub(c.filled) / clockEvery; add > 0 {
		c.answers = int(min(time.Duration(c.answers)+add, clockBurst))
		c.filled = n.now
	}
	if c.answers == 0 {
		return
	}
	c.answers--
	n.emit(Send{To: ev.From, Addr: ev.Addr, Msg: Clock{Req: ev.Req, Now: n.now}})
}

func (n *Node) clocks() *clock {
	if n.clock == nil {
		n.clock = &clock{answers: clockBurst, filled: n.now}
	}
	return n.clock
}

// clocked takes what the peer of the i-th request says of the time. It stands for one voice of its network.
func (n *Node) clocked(i int, m Clock) {
	if m.Now < 0 || m.Now > n.now.Add(clockMost) {
		return
	}
	p := &n.busy.pending[i]
	_, net := netOf(Endpoint{Addr: p.addr.Addr(), UDP: p.addr.Port()})
	if net&private != 0 {
		net = private | uint64(p.addr.Port()) // one machine may hold a whole test network
	}
	c := n.clocks()
	c.samples = slices.DeleteFunc(c.samples, func(s sample) bool {
		return s.id == p.id || s.net == net || n.now.Sub(s.at) > clockMemory
	})
	if len(c.samples) == clockSamples {
		c.samples = slices.Delete(c.samples, 0, 1)
	}
	c.samples = append(c.samples, sample{p.id, net, m.Now.Sub(n.now), n.now})
	offs := make([]time.Duration, len(c.samples))
	for i, s := range c.samples {
		offs[i] = s.off
	}
	slices.Sort(offs)
	median := offs[len(offs)/2]
	agree := 0
	for _, off := range offs {
		if (off - median).Abs() <= clockAgree {
			agree++
		}
	}
	if agree < clockVoices || 3*agree < 2*len(offs) || (median-c.told).Abs() < clockAgree/2 {
		return
	}
	c.told = median
	n.emit(ClockOff{By: median})
}
