package scenario

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/sim"
)

// Node is one machine with its disk. It does what runner does on real parts.
type Node struct {
	ID    crowd.NodeID
	Kill  Kill
	Steps int                           // effects carried out in all its lives
	Done  map[string]int                // reports by stage
	Wrong map[crowd.JobID]crowd.Outcome // what an adversary committed to in place of the truth
	Ran   crowd.Gas                     // on a Host with a speed, what came of it or not
	Sent  uint64                        // bytes handed to peers
	Got   uint64                        // bytes that came from them

	w     *World
	index int
	key   *identity.Key
	vrf   *identity.VRFKey
	conf  job.Config
	adv   Adversary
	host  Host

	// the disk: survives
	journals map[slot][]byte
	blocks   map[crowd.CID]time.Time // when it came here
	came     map[crowd.CID]bool      // the observer's: all that was ever among them
	pins     map[pin]bool
	swept    time.Time // last garbage collection

	// the observer's: what it has committed itself to by its signature, and what it worked
	commits map[crowd.JobID]ledger.Commit
	twice   bool
	pinned  map[pin]time.Time // what it keeps for jobs now, and since when
	keptFor float64           // cost of what it kept and has released
	Worked  crowd.Credits     // of all runs, whatever came of them: gas at the node's price, of an authority at the job's

	// memory: each life begins without
	alive    bool
	life     int
	machines map[slot]*running
	slots    []slot // of machines, in order of start
	out      []outgoing
	sending  bool
	floods   bool   // its wallet has many transactions in flight
	flooded  uint64 // next nonce, if floods
	load     load
	seen     map[crowd.JobID]crowd.Height // the newest record of each job: headers only go up
}

// slot is one role in one job.
type slot struct {
	id   crowd.JobID
	role job.Role
}

type pin struct {
	cid crowd.CID
	by  string
}

type running struct {
	job.Machine
	work  int                // counts fetches and runs; one that is not the newest is void
	meter *meter             // of the run of a single task that is under way
	parts map[crowd.CID]bool // of those results, what a batch gathers is here: a fetch that is tried again wants the others
	wake  time.Time
}

type outgoing struct {
	m    ledger.Message
	then func(nonce uint64, err error)
}

func (w *World) newNode(i int) *Node {
	n := &Node{
		w: w, index: i, adv: nil, Done: map[string]int{}, Wrong: map[crowd.JobID]crowd.Outcome{},
		journals: map[slot][]byte{}, blocks: map[crowd.CID]time.Time{}, came: map[crowd.CID]bool{}, pins: map[pin]bool{}, swept: sim.Epoch,
		commits: map[crowd.JobID]ledger.Commit{}, pinned: map[pin]time.Time{},
	}
	n.key, n.vrf = newKey(w.seeded(1, i))
	n.ID = n.key.ID()
	return n
}

// Honest reports whether the node keeps to the protocol.
func (n *Node) Honest() bool { return n.adv == nil }

// start begins a life: journals first, then what the chain says is open.
func (n *Node) start() {
	n.alive = true
	n.life++
	n.machines, n.slots, n.out, n.sending, n.load = map[slot]*running{}, nil, nil, false, load{}
	n.seen = map[crowd.JobID]crowd.Height{}
	n.conf.Rand = n.w.seeded(2, n.index<<16|n.life)
	n.sweep()
	slots := make([]slot, 0, len(n.journals))
	for s := range n.journals {
		slots = append(slots, s)
	}
	slices.SortFunc(slots, func(a, b slot) int {
		return cmp.Or(slices.Compare(a.id[:], b.id[:]), cmp.Compare(a.role, b.role))
	})
	for _, s := range slots {
		n.step(s, job.Woke{}, n.journals[s])
	}
	if n.life > 1 {
		n.catchUp()
	}
}

// catchUp is what the next header brings to a node that has missed some: the records that concern it.
func (n *Node) catchUp() {
	for _, p := range n.w.Jobs {
		if !p.gone && (!p.Last.State.Ended() || n.follows(p.ID)) {
			ev := n.w.record(p.Last, true, n)
			n.w.Send(chainPlace, n.index, 0, func() { n.news(p.ID, ev) })
		}
	}
}

// follows reports whether a machine of the node is about that job.
func (n *Node) follows(id crowd.JobID) bool {
	return slices.ContainsFunc(job.Roles, func(r job.Role) bool { return n.machines[slot{id, r}] != nil })
}

// die loses all but the disk.
func (n *Node) die() {
	n.Off()
	if n.Kill.Down > 0 {
		n.w.After(n.Kill.Down, n.On)
	}
}

// Up reports whether the node is there.
func (n *Node) Up() bool { return n.alive }

// Off pulls the node's plug: all but the disk is lost.
func (n *Node) Off() {
	n.w.Logf("node %d dies", n.index)
	for _, s := range n.slots {
		n.endMeter(n.machines[s])
	}
	n.alive = false
	n.life++
	for _, k := range n.load.running {
		n.Ran += n.soFar(k)
	}
	n.load = load{}
}

// On begins the next life.
func (n *Node) On() {
	n.w.Logf("node %d is back", n.index)
	n.start()
}

// later does f after d unless the node dies before.
func (n *Node) later(d time.Duration, f func()) {
	life := n.life
	n.w.After(d, func() {
		if n.life == life {
			f()
		}
	})
}

// news of a job reach every role that has a part in it.
func (n *Node) news(id crowd.JobID, ev job.Event) {
	if !n.alive {
		return
	}
	ch, ok := ev.(job.Chain)
	if ok && ch.Height < n.seen[id] {
		return // a machine that is done would begin again
	}
	n.seen[id] = max(n.seen[id], ch.Height)
	if ok && n.adv != nil {
		n.adv.Saw(n.w, n, ch)
	}
	for _, r := range job.Roles {
		s := slot{id, r}
		if n.machines[s] != nil || ok && job.Wanted(r, n.ID, &ch.Job) {
			n.step(s, ev, nil)
		}
		if !n.alive {
			return
		}
	}
}

// step makes the machine if there is none, tells it, and carries out what it wants.
func (n *Node) step(s slot, ev job.Event, journal []byte) {
	r := n.machines[s]
	if r == nil {
		m, err := job.New(n.conf, s.id, s.role, journal)
		if err != nil {
			n.w.broken(fmt.Errorf("node %d: %w", n.index, err))
			return
		}
		r = &running{Machine: m}
		n.machines[s], n.slots = r, append(n.slots, s)
	}
	life := n.life
	for _, e := range r.Step(n.w.Now(), ev) {
		effects := []job.Effect{e}
		if n.adv != nil {
			effects = n.adv.Bend(n.w, n, s.id, s.role, e)
		}
		for _, e := range effects {
			n.do(s, r, e)
			n.Steps++
			if n.Steps == n.Kill.At {
				n.die()
			}
			if n.life != life {
				return
			}
		}
	}
	if d := r.Deadline(); !d.IsZero() && !d.Equal(r.wake) && n.machines[s] == r {
		r.wake = d
		n.later(d.Sub(n.w.Now()), func() {
			if n.machines[s] == r && r.wake.Equal(d) {
				r.wake = time.Time{}
				n.step(s, job.Woke{}, nil)
			}
		})
	}
}

func (n *Node) do(s slot, r *running, e job.Effect) {
	by := fmt.Sprintf("%s/%s", s.id.Short(), s.role)
	switch e := e.(type) {
	case job.Send:
		if m, ok := e.Message.(*ledger.Reveal); ok && n.Honest() {
			n.checkReveal(m)
		}
		n.Send(e.Message, func(_ uint64, err error) { n.tell(s, r, job.Sent{Message: e.Message, Err: err}) })
	case job.Fetch:
		r.work++
		if e.Result != "" { // of the parts, which nobody fetches, the simulation knows only whether they are right
			e.CIDs = append(slices.Clone(e.CIDs), e.Result)
		}
		n.fetch(s, r, r.work, e)
	case job.Run:
		r.work++
		work := r.work
		p := n.program(s, &e)
		n.beginRun(s, r, &e, p)
		n.compute(n.gasOf(&e), e.Only != nil, p.takes, func() bool { return r.work == work }, func() {
			n.endMeter(r)
			if n.w.Chance(n.w.Config.Faults) {
				n.tell(s, r, job.Ran{Try: e.Try, Err: errors.New("the worker crashed")})
				return
			}
			if p.err != nil {
				n.tell(s, r, job.Ran{Try: e.Try, Err: p.err})
				return
			}
			if e.Items > 0 {
				n.tell(s, r, n.runBatch(s, e))
				return
			}
			o := n.w.outcome(&e.Task, e.Unusable)
			if n.w.drifts(s.id) {
				o = n.driftOutcome(o, e.Task.Limits.Gas)
			}
			if n.adv != nil {
				o = n.adv.Result(n.w, n, s.id, o)
			}
			n.hold(o.Result)
			n.tell(s, r, job.Ran{Try: e.Try, Outcome: o})
		})
	case job.ReadLeaves:
		r.work++
		work := r.work
		n.later(10*time.Millisecond, func() {
			if r.work == work {
				n.tell(s, r, n.readLeaves(e))
			}
		})
	case job.Compare:
		r.work++
		work := r.work
		n.later(10*time.Millisecond, func() {
			if r.work == work {
				n.tell(s, r, n.compare(e))
			}
		})
	case job.Stop:
		n.endMeter(r)
		r.work++
		n.schedule()
	case job.Persist:
		if _, _, err := job.Journaled(e.Journal); err != nil {
			n.w.broken(fmt.Errorf("node %d writes a journal that it could not read: %w", n.index, err))
		}
		n.journals[s] = slices.Clone(e.Journal)
	case job.Keep:
		n.pin(e.CID, by)
		if p := (pin{e.CID, by}); n.pinned[p].IsZero() {
			n.pinned[p] = n.w.Now()
		}
	case job.Release:
		p := pin{e.CID, by}
		delete(n.pins, p)
		if at := n.pinned[p]; !at.IsZero() {
			n.keptFor += keeping(n.w.Config.Bytes(e.CID), n.w.Now().Sub(at).Milliseconds())
			delete(n.pinned, p)
		}
	case job.Look:
		j, ok := n.w.state.Job(s.id)
		ev := n.w.record(j, ok, n)
		n.w.Send(chainPlace, n.index, 0, func() { n.tell(s, r, ev) })
	case job.Report:
		n.Done[e.Stage]++
		n.w.Logf("node %d %s reports %s: %s (%s)", n.index, by, e.Stage, e.Why, e.Detail)
	case job.Done:
		delete(n.journals, s)
		delete(n.machines, s)
		n.slots = slices.DeleteFunc(n.slots, func(t slot) bool { return t == s })
	default:
		n.w.broken(fmt.Errorf("effect %T", e))
	}
}

// tell gives an event to a machine that still lives.
func (n *Node) tell(s slot, r *running, ev job.Event) {
	if n.alive && n.machines[s] == r {
		n.step(s, ev, nil)
	}
}

// Cancel is the user's wish.
func (n *Node) Cancel(id crowd.JobID) {
	if s := (slot{id, job.AsConsumer}); n.alive && n.machines[s] != nil {
		n.step(s, job.UserCancel{}, nil)
	}
}

// flood submits a message at once, whatever is under way: a wallet that has many transactions in flight.
func (n *Node) flood(m ledger.Message, then func(nonce uint64, err error)) {
	if n.flooded < n.w.state.Account(n.ID.Address()).Nonce {
		n.flooded = n.w.state.Account(n.ID.Address()).Nonce
	}
	nonce := n.flooded
	n.flooded++
	n.w.submit(ledger.Sign(n.key, n.w.chainID, nonce, m), func(err error) {
		if then != nil {
			then(nonce, err)
		}
	})
}

// sendTimeout is how long a node waits for a block to show its transaction.
const sendTimeout = 3 * time.Second

var errNoAnswer = errors.New("no answer from the chain")

// Send signs and submits a message, one at a time, so that nonces stand in order.
func (n *Node) Send(m ledger.Message, then func(nonce uint64, err error)) {
	if n.floods {
		n.flood(m, then)
		return
	}
	n.out = append(n.out, outgoing{m, then})
	n.pump()
}

func (n *Node) pump() {
	if n.sending || len(n.out) == 0 {
		return
	}
	o := n.out[0]
	n.out, n.sending = n.out[1:], true
	nonce := n.w.state.Account(n.ID.Address()).Nonce
	raw := ledger.Sign(n.key, n.w.chainID, nonce, o.m)
	if m, ok := o.m.(*ledger.Commit); ok {
		was, said := n.commits[m.Job], *m
		if len(m.Sealed) == 0 { // a verifier's first
			said.Sealed = was.Sealed
		}
		n.twice = n.twice || was.Commitment != (crowd.Hash{}) && (was.Commitment != said.Commitment ||
			len(was.Sealed) > 0 && string(crowd.Encode(&was)) != string(crowd.Encode(&said)))
		n.commits[m.Job] = said
	}
	over := false
	end := func(err error) {
		if over {
			return
		}
		over, n.sending = true, false
		if o.then != nil {
			o.then(nonce, err)
		}
		n.pump()
	}
	life := n.life
	n.w.Send(n.index, chainPlace, 0, func() {
		n.w.submit(raw, func(err error) {
			n.w.Send(chainPlace, n.index, 0, func() {
				if n.life == life {
					end(err)
				}
			})
		})
	})
	n.later(sendTimeout, func() { end(errNoAnswer) })
}

// askTimeout is how long a node waits for a peer that does not answer.
const askTimeout = time.Second

// thing is content that a node wants, and who may have it.
type thing struct {
	cid   crowd.CID
	bytes uint64 // of it that are wanted
	from  []crowd.NodeID
}

// fetch gets what a Fetch names, then the parts of other results that its manifest names.
func (n *Node) fetch(s slot, r *running, work int, e job.Fetch) {
	wanted := func() bool { return r.work == work && n.alive && n.machines[s] == r }
	end := func(err error) {
		n.later(0, func() {
			if wanted() {
				n.tell(s, r, job.Fetched{Try: e.Try, Err: err})
			}
		})
	}
	var things []thing
	for _, c := range e.CIDs {
		if !n.Has(c) {
			things = append(things, thing{c, n.w.Config.Bytes(c), e.From})
		}
	}
	n.collect(wanted, things, n.hold, func(ok bool) {
		if !ok {
			end(errNobody)
			return
		}
		for _, c := range e.CIDs {
			n.blocks[c] = n.w.Now()
			if oversized(c) {
				end(fmt.Errorf("%s: %w", c, job.ErrUnusable))
				return
			}
		}
		if e.Gather == nil {
			end(nil)
			return
		}
		if r.parts == nil {
			r.parts = map[crowd.CID]bool{}
		}
		parts := slices.DeleteFunc(n.w.parts(e.Gather), func(t thing) bool { return r.parts[t.cid] })
		n.collect(wanted, parts, func(c crowd.CID) { r.parts[c] = true }, func(ok bool) {
			if !ok {
				end(fmt.Errorf("%w: %w", job.ErrParts, errNobody))
				return
			}
			end(nil)
		})
	})
}

// collect asks all at once who has what, takes each thing from who is first to have his line free, and asks again for
// what did not come, as long as anything does.
func (n *Node) collect(wanted func() bool, things []thing, got func(crowd.CID), end func(ok bool)) {
	var peers []crowd.NodeID
	asked := map[crowd.NodeID]bool{n.ID: true}
	var missing []crowd.CID
	for _, t := range things {
		missing = append(missing, t.cid)
		for _, id := range t.from {
			if !asked[id] {
				asked[id] = true
				peers = append(peers, id)
			}
		}
	}
	if len(things) == 0 || len(peers) == 0 {
		end(len(things) == 0)
		return
	}
	holders, answers, known, begun := map[crowd.CID][]*Node{}, 0, 0, false
	take := func() {
		if begun || !wanted() {
			return
		}
		begun = true
		open, came := 1, false
		var left []thing
		over := func(ok bool) {
			came = came || ok
			if open--; open > 0 || !wanted() {
				return
			}
			if len(left) > 0 && !came {
				end(false)
				return
			}
			n.collect(wanted, left, got, end)
		}
		for _, t := range things {
			if len(holders[t.cid]) == 0 {
				left = append(left, t)
				continue
			}
			open++
			n.take(t, slices.MinFunc(holders[t.cid], func(a, b *Node) int { return a.load.sending.Compare(b.load.sending) }), func(ok bool) {
				if ok {
					got(t.cid)
				} else {
					left = append(left, t)
				}
				over(ok)
			})
		}
		over(false)
	}
	for _, id := range peers {
		peer := n.w.byID[id]
		n.w.Send(n.index, peer.index, 0, func() {
			have := peer.serve(n, missing)
			n.w.Send(peer.index, n.index, 0, func() {
				for _, c := range have {
					if len(holders[c]) == 0 {
						known++
					}
					holders[c] = append(holders[c], peer)
				}
				if answers++; known == len(missing) || answers >= len(peers) {
					take()
				}
			})
		})
	}
	n.later(askTimeout, take)
}

// take gets one thing from a peer that has it; over is called once. What breaks off is noticed when it should have been there.
func (n *Node) take(t thing, peer *Node, over func(ok bool)) {
	done := false
	end := func(ok bool) {
		if !done {
			done = true
			over(ok)
		}
	}
	d := n.w.carry(peer, n, t.bytes) + 10*time.Millisecond
	lives := [2]int{n.life, peer.life}
	n.w.Send(peer.index, n.index, d, func() {
		if lives == [2]int{n.life, peer.life} {
			peer.Sent += t.bytes
			n.Got += t.bytes
			if n.w.Config.Moved != nil {
				n.w.Config.Moved(peer, n, t.cid, t.bytes)
			}
			end(true)
		}
	})
	n.later(d+askTimeout, func() { end(false) })
}

// oversized content is found to be so by everybody who fetches it.
func oversized(c crowd.CID) bool { return strings.HasPrefix(string(c), "huge") }

// serve is what a peer hands out of what is asked for. Content proves itself, so it cannot hand out anything else.
func (n *Node) serve(to *Node, cids []crowd.CID) (got []crowd.CID) {
	for _, c := range cids {
		if _, ok := n.blocks[c]; ok && n.alive && (n.adv == nil || n.adv.Serves(n.w, n, c, to)) {
			got = append(got, c)
		}
	}
	return got
}

// Has reports whether the node holds content.
func (n *Node) Has(c crowd.CID) bool { _, ok := n.blocks[c]; return ok }

func (n *Node) hold(c crowd.CID) {
	if _, ok := n.blocks[c]; !ok {
		n.blocks[c], n.came[c] = n.w.Now(), true
	}
	if leaves, ok := n.w.leavesIn(c); ok {
		n.hold(leaves)
	}
}

func (n *Node) pin(c crowd.CID, by string) { n.pins[pin{c, by}] = true }

// sweep is the garbage collection: what no pin holds goes, but not what came since the last one.
func (n *Node) sweep() {
	pinned := map[crowd.CID]bool{}
	for p := range n.pins {
		pinned[p.cid] = true
		if leaves, ok := n.w.leavesIn(p.cid); ok {
			pinned[leaves] = true
		}
	}
	for c, at := range n.blocks {
		if !pinned[c] && at.Before(n.swept) {
			delete(n.blocks, c)
		}
	}
	n.swept = n.w.Now()
	n.later(5*time.Second, n.sweep)
}
