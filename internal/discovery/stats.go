package discovery

import "sync/atomic"

// Stats are totals since New. Everything that was received is in one of the groups below Received,
// but for what waits for its static puzzles.
type Stats struct {
	Peers    int // in the table now
	Known    int // in the database
	Sent     uint64
	SendFail uint64 // the port refused
	Received uint64

	Accepted     uint64 // handed to the machine
	Malformed    uint64 // no packet
	NotForUs     uint64 // the hash does not hold: noise, or meant for another node or network
	Replayed     uint64
	Unasked      uint64 // an answer to nothing, or more than was asked for
	OverBudget   uint64 // dropped unseen to keep within the budget of signatures or puzzles
	BadSignature uint64
	WrongSender  uint64 // an answer by somebody else than was asked, or our own packet
	Shunned      uint64 // from somebody blamed within the hour
	Stale        uint64 // expired or from the future
	BadPuzzle    uint64 // records dropped, and requests whose record was

	Recoveries uint64 // signatures that cost something
	Puzzles    uint64 // static puzzles that cost something
	Blamed     uint64 // messages that no honest node sends
	Lookups    uint64
	Dropped    uint64 // news that a slow Watch missed
}

type counters struct {
	Sent, SendFail, Received, Accepted, Malformed, NotForUs, Replayed, Unasked, OverBudget, BadSignature, WrongSender, Shunned,
	Stale, BadPuzzle, Recoveries, Puzzles, Blamed, Lookups, Dropped, Known atomic.Uint64
}

// Stats are the figures up to now.
func (d *Discovery) Stats() Stats {
	c := &d.counts
	d.mu.Lock()
	peers := len(d.peers)
	d.mu.Unlock()
	return Stats{
		Peers: peers, Known: int(c.Known.Load()),
		Sent: c.Sent.Load(), SendFail: c.SendFail.Load(), Received: c.Received.Load(),
		Accepted: c.Accepted.Load(), Malformed: c.Malformed.Load(), NotForUs: c.NotForUs.Load(), Replayed: c.Replayed.Load(),
		Unasked: c.Unasked.Load(), OverBudget: c.OverBudget.Load(), BadSignature: c.BadSignature.Load(), WrongSender: c.WrongSender.Load(), Shunned: c.Shunned.Load(),
		Stale: c.Stale.Load(), BadPuzzle: c.BadPuzzle.Load(), Recoveries: c.Recoveries.Load(), Puzzles: c.Puzzles.Load(),
		Blamed: c.Blamed.Load(), Lookups: c.Lookups.Load(), Dropped: c.Dropped.Load(),
	}
}
