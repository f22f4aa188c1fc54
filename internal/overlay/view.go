package overlay

import "time"

// Peer is an entry of the table, for people and for the driver.
type Peer struct {
	Record  *Record
	RTT     time.Duration // smoothed; 0: not measured
	Heard   Time
	Known   time.Duration // it was known to live for so long
	Sibling bool
	Inbound bool
	Failing bool // its last request was not answered
}

// Stats counts what a node holds.
type Stats struct {
	Siblings, Entries int // entries include siblings
	Waiting           int // replacements for entries that die
	Lookups, Pending  int
	Ads               int // kept for others
	Joined            bool
}

// Peers are the entries of the table: siblings nearest first, then from the deepest bucket outwards.
func (n *Node) Peers() []Peer {
	out := make([]Peer, 0, len(n.siblings))
	n.each(func(e *entry) {
		out = append(out, Peer{
			Record:  n.book.rec(e.ref),
			RTT:     time.Duration(e.srtt) * rttUnit,
			Heard:   Time(e.heard) * 1e6,
			Known:   time.Duration(e.age()) * time.Second,
			Sibling: len(out) < len(n.siblings),
			Inbound: e.state&inbound != 0,
			Failing: e.state&fails != 0,
		})
	})
	return out
}

// Stats is as the node is now.
func (n *Node) Stats() Stats {
	s := Stats{Siblings: len(n.siblings), Entries: len(n.siblings), Joined: n.joined}
	for i := range n.buckets {
		s.Entries += len(n.buckets[i].entries)
		for _, r := range n.buckets[i].waiting {
			if r != 0 {
				s.Waiting++
			}
		}
	}
	if n.busy != nil {
		s.Lookups, s.Pending = len(n.busy.lookups)+len(n.busy.queue), len(n.busy.pending)
	}
	return s
}
