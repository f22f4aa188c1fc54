// Package scenario plays whole nodes in one virtual world: the job machines of
// all roles, one real ledger behind an in-memory total order, real signatures,
// draws and beacons; and adversaries, each in a file of its own. What a program
// computes and how blocks travel is reduced to a pure function and a delay.
package scenario

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/sim"
)

// Config says who is in the world. The zero value of each number has a default.
type Config struct {
	Seed        uint64
	Authorities int // 4
	Providers   int // 6
	Consumers   int // 1
	Params      ledger.Params
	Link        sim.Link
	Block       time.Duration                                   // least time between blocks
	Faults      float64                                         // share of runs that go wrong on an honest node
	Drift       bool                                            // honest runs of tolerant jobs differ from node to node
	Veterans    bool                                            // providers begin with a record beyond doubt, so that audits are as rare as they may be
	Undeclared  bool                                            // with Drift: those of strict jobs too
	Stake       crowd.Credits                                   // of each provider; 100
	Host        func(i int) Host                                // of provider i; nil: the zero Host
	Lines       uint64                                          // bytes in a second of the lines of authorities and consumers, each way; 0: the zero Host's
	Leaf        func(*crowd.Task, uint32) batch.Leaf            // what an item comes to; nil: LeafOf
	Program     func(*crowd.Task) Program                       // what a single task's program is like; nil, or the zero Program: its outcome and time follow from the task alone
	Bytes       func(crowd.CID) uint64                          // how large content is, on lines; nil: nothing is
	PartBytes   uint64                                          // of one part of a batch whose outputs go on
	Moved       func(from, to *Node, c crowd.CID, bytes uint64) // sees what arrives
	Audit       crowd.Height                                    // after every so many blocks the invariants are checked; 1
	Provider    func(w *World, i int) Adversary                 // nil, or nil from it: honest
	Consumer    func(w *World, i int) Adversary                 // the same
	Spec        func(w *World, s *crowd.JobSpec)                // changes what is posted
	After       func(w *World, b *ledger.Applied)               // sees each block
	Trace       *sim.Trace                                      // gets a copy of all lines; nil: none
}

func (c Config) withDefaults() Config {
	set := func(n *int, d int) {
		if *n == 0 {
			*n = d
		}
	}
	set(&c.Authorities, 4)
	set(&c.Providers, 6)
	set(&c.Consumers, 1)
	if c.Stake == 0 {
		c.Stake = 100 * crowd.Credit
	}
	if c.Audit == 0 {
		c.Audit = 1
	}
	if c.Leaf == nil {
		c.Leaf = LeafOf
	}
	if c.Bytes == nil {
		c.Bytes = func(crowd.CID) uint64 { return 0 }
	}
	if c.Params == (ledger.Params{}) {
		c.Params = ledger.DevParams()
		c.Params.Retention = 30_000 // so that histories see it end
	}
	if c.Link == (sim.Link{}) {
		c.Link = sim.Link{Latency: 5 * time.Millisecond, Jitter: 30 * time.Millisecond}
	}
	if c.Block == 0 {
		c.Block = 50 * time.Millisecond
	}
	return c
}

// World is the chain, the nodes, and what an all-knowing observer writes down.
type World struct {
	*sim.World
	Config  Config
	Nodes   []*Node // authorities, then providers, then consumers
	Jobs    []*Posted
	Slashed []ledger.Slashed
	Broken  []error // invariants that did not hold

	chainID   string
	state     ledger.State
	height    crowd.Height
	last      time.Time // of the newest block
	next      time.Time // when a block is scheduled; zero: none
	pool      []pooled
	byID      map[crowd.NodeID]*Node
	jobs      map[crowd.JobID]*Posted
	posts     int
	manifests map[crowd.CID]batch.Manifest
	files     map[crowd.CID]*shard      // what batches' results and leaves hold
	honest    map[crowd.Hash]*shard     // the truth of each, computed once
	near      map[crowd.Hash]crowd.Hash // outputs of items that drifted, and of what
}

// chainPlace is where links to the chain lead: it is not at any one authority.
const chainPlace = -1

// Posted is one job and what became of it.
type Posted struct {
	ID    crowd.JobID
	Owner *Node
	Spec  crowd.JobSpec
	At    time.Time
	Last  ledger.Job // newest record
	Ended time.Time  // zero: not yet
	gone  bool       // the chain has forgotten it
}

type pooled struct {
	raw   []byte
	reply func(err error)
}

// New is a world at its first moment.
func New(c Config) *World {
	c = c.withDefaults()
	w := &World{
		World: sim.New(c.Seed, c.Link), Config: c, last: sim.Epoch,
		byID: map[crowd.NodeID]*Node{}, jobs: map[crowd.JobID]*Posted{},
		files: map[crowd.CID]*shard{}, manifests: map[crowd.CID]batch.Manifest{}, honest: map[crowd.Hash]*shard{}, near: map[crowd.Hash]crowd.Hash{},
	}
	w.TraceTo(c.Trace)
	g := ledger.Genesis{Name: "sim", Time: crowd.Time(sim.Epoch.UnixMilli()), Params: c.Params}
	for i := range c.Authorities + c.Providers + c.Consumers {
		n := w.newNode(i)
		w.Nodes = append(w.Nodes, n)
		w.byID[n.ID] = n
		grant := ledger.Grant{ID: n.ID, Balance: 1_000_000 * crowd.Credit}
		switch {
		case i < c.Authorities:
			g.Authorities = append(g.Authorities, ledger.Authority{ID: n.ID, VRF: n.vrf.Public()})
		case i < c.Authorities+c.Providers:
			grant.Stake, grant.VRF = c.Stake, n.vrf.Public()
			grant.Offer = ledger.Offer{Price: crowd.Price(500 + 100*(i%5))}
		}
		g.Grants = append(g.Grants, grant)
	}
	state, err := ledger.New(&g)
	if err != nil {
		panic("bug: " + err.Error())
	}
	if c.Veterans {
		state = withRecords(state, g.Grants)
	}
	w.state, w.chainID = state, g.ChainID()
	for i, n := range w.Nodes {
		n.conf = job.Config{Key: n.key, Params: c.Params, Authorities: g.Authorities}
		switch {
		case i < c.Authorities:
			n.host.Line = c.Lines
		case i < c.Authorities+c.Providers:
			if c.Provider != nil {
				n.adv = c.Provider(w, i-c.Authorities)
			}
			if c.Host != nil {
				n.host = c.Host(i - c.Authorities)
			}
		default:
			if n.host.Line = c.Lines; c.Consumer != nil {
				n.adv = c.Consumer(w, i-c.Authorities-c.Providers)
			}
		}
		n.start()
	}
	return w
}

// withRecords is s in which every provider has a thousand good results that count in full, and draws with the weight of that.
func withRecords(s ledger.State, grants []ledger.Grant) ledger.State {
	now := crowd.Time(sim.Epoch.UnixMilli())
	record := ledger.Reputation{Done: 1000, Passed: 1000e12, Dues: 1000e6, At: now}
	rules := s.Params().Reputation
	return ledger.Load(func(f func(string, []byte)) {
		s.Each("", func(key string, val []byte) bool { f(key, val); return true })
		for _, gr := range grants {
			if p, ok := s.Provider(gr.ID.Address()); ok {
				p.Weight, p.Newcomer = record.Weight(&rules, now), false
				f(string(ledger.ProviderKey(gr.ID.Address())), crowd.Encode(&p))
				f(string(ledger.ReputationKey(gr.ID.Address())), crowd.Encode(&record))
			}
		}
	})
}

// Authority, Provider and Consumer are the nodes by part.
func (w *World) Authority(i int) *Node { return w.Nodes[i] }
func (w *World) Provider(i int) *Node  { return w.Nodes[w.Config.Authorities+i] }
func (w *World) Consumer(i int) *Node  { return w.Nodes[w.Config.Authorities+w.Config.Providers+i] }

// Node is the node with that ID, which must be there.
func (w *World) Node(id crowd.NodeID) *Node { return w.byID[id] }

// State is the ledger's newest.
func (w *World) State() ledger.State { return w.state }

func (w *World) seeded(kind, i int) *rand.ChaCha8 {
	var b [32]byte
	copy(b[:], crowd.Encode([]uint64{w.Config.Seed, uint64(kind), uint64(i)}))
	return rand.NewChaCha8(b)
}

// Post lets a consumer post a new task; then sees the ID or why not.
func (w *World) Post(owner *Node, then func(id crowd.JobID, err error)) {
	w.posts++
	spec := crowd.JobSpec{
		Task: crowd.Task{
			Program: "program", Inputs: crowd.CID(fmt.Sprintf("inputs-%d", w.posts)), Args: []string{fmt.Sprint(w.posts)},
			Limits: crowd.Limits{Gas: 1e9, Memory: 64 << 20, Output: 1 << 20, Wall: 15 * time.Second},
		},
		Plan: crowd.Plan{Method: crowd.PlanPair, Replacements: 2}, Filters: crowd.Filters{MaxPrice: 1000}, Budget: 10 * crowd.Credit,
	}
	if w.Config.Spec != nil {
		w.Config.Spec(w, &spec)
	}
	w.PostSpec(owner, spec, then)
}

// PostSpec is Post of a job that the caller has drawn up.
func (w *World) PostSpec(owner *Node, spec crowd.JobSpec, then func(id crowd.JobID, err error)) {
	for _, cid := range []crowd.CID{spec.Task.Program, spec.Task.Inputs, spec.Task.Stdin, spec.Compare.Program} {
		if cid != "" {
			owner.hold(cid)
			owner.pin(cid, "user")
		}
	}
	owner.Send(&ledger.Post{Spec: spec}, func(nonce uint64, err error) {
		var id crowd.JobID
		if err == nil {
			id = spec.ID(owner.ID, nonce)
		}
		if then != nil {
			then(id, err)
		}
	})
}

// submit puts a transaction into the pool; reply comes at its place in the world, not at the sender's.
func (w *World) submit(raw []byte, reply func(error)) {
	w.pool = append(w.pool, pooled{raw, reply})
	w.plan()
}

// plan schedules the next block as soon as something wants one.
func (w *World) plan() {
	var at time.Time
	if due, ok := w.state.NextDue(); ok {
		at = time.UnixMilli(int64(due)).UTC()
	}
	if soon := w.last.Add(w.Config.Block); len(w.pool) > 0 || w.state.DrawPending() || !at.IsZero() && at.Before(soon) {
		at = soon
	}
	if at.IsZero() || !w.next.IsZero() && !at.Before(w.next) {
		return
	}
	w.next = at
	w.At(at, func() {
		if w.next.Equal(at) {
			w.next = time.Time{}
			w.block()
			w.plan()
		}
	})
}

// block is what consensus does: the next authority that lives orders the pool.
func (w *World) block() {
	w.height++
	w.last = w.Now()
	b := ledger.Block{Height: w.height, Time: crowd.Time(w.Now().UnixMilli())}
	for i := range w.Config.Authorities {
		n := w.Nodes[(int(w.height)+i)%w.Config.Authorities]
		if n.alive {
			r := w.state.Beacon().R
			proof, _ := n.vrf.Prove(r[:])
			b.Proposer, b.Beacon = n.ID, &proof
			break
		}
	}
	if b.Beacon == nil { // nobody lives: the chain stands still until somebody does
		w.height--
		w.After(time.Second, w.plan)
		return
	}
	pool := w.pool
	w.pool = nil
	var replies []func(error)
	for _, p := range pool {
		tx, err := ledger.Open(w.chainID, p.raw)
		if err != nil {
			p.reply(err)
			continue
		}
		w.Logf("tx %s %T", tx.Sender().Short(), tx.Message())
		b.Txs, replies = append(b.Txs, tx), append(replies, p.reply)
	}
	a, err := ledger.Apply(w.state, b)
	if err != nil {
		w.broken(err)
		return
	}
	w.state = a.State
	w.Logf("block %d root %s", w.height, w.state.Root())
	for i, err := range a.Results {
		if err != nil {
			w.Logf("refused %T of %s: %v", b.Txs[i].Message(), b.Txs[i].Sender().Short(), err)
		}
		replies[i](err)
	}
	if w.height%w.Config.Audit == 0 {
		if err := ledger.CheckInvariants(w.state); err != nil {
			w.broken(err)
		}
	}
	for _, e := range a.Events {
		switch e := e.(type) {
		case ledger.JobMoved:
			w.Logf("job %s %s: %s", e.Job.Short(), e.State, e.Why)
		case ledger.Slashed:
			w.Logf("job %s slashed %s by %s", e.Job.Short(), e.Node.Short(), e.Amount)
			w.Slashed = append(w.Slashed, e)
		}
	}
	for _, c := range a.Changes {
		if id, ok := ledger.JobOfKey([]byte(c.Key)); ok {
			w.tell(id)
		}
	}
	if w.Config.After != nil {
		w.Config.After(w, &a)
	}
}

// tell spreads the newest record of a job.
func (w *World) tell(id crowd.JobID) {
	j, ok := w.state.Job(id)
	if ok {
		p := w.jobs[id]
		if p == nil {
			p = &Posted{ID: id, Owner: w.byID[j.Owner], Spec: j.Spec, At: w.Now()}
			w.jobs[id] = p
			w.Jobs = append(w.Jobs, p)
		}
		if p.Last = j; j.State.Ended() && p.Ended.IsZero() {
			p.Ended = w.Now()
			if j.State == ledger.Settled && j.Spec.Shuffle.Parts > 0 {
				w.After(time.Duration(w.Config.Params.Retention/2)*time.Millisecond, func() { w.checkHeld(p) })
			}
		}
	} else if p := w.jobs[id]; p != nil {
		p.gone = true
	}
	for _, n := range w.Nodes {
		ev := w.record(j, ok, n)
		w.Send(chainPlace, n.index, 0, func() { n.news(id, ev) })
		w.Send(chainPlace, n.index, time.Second, func() { n.news(id, ev) }) // by the next header who missed it catches up
	}
}

// record is what the chain proves of a job to n now; !ok: there is none.
func (w *World) record(j ledger.Job, ok bool, n *Node) job.Event {
	if !ok {
		return job.Gone{Height: w.height}
	}
	ch := job.Chain{Job: j, Height: w.height, Time: crowd.Time(w.last.UnixMilli())}
	if j.State == ledger.Claiming {
		if p, ok := w.state.Provider(n.ID.Address()); ok {
			ch.Self = &p
		}
	}
	return ch
}

func (w *World) broken(err error) {
	w.Logf("broken: %v", err)
	w.Broken = append(w.Broken, err)
}

// AllEnded reports whether there are jobs and none is open.
func (w *World) AllEnded() bool {
	for _, p := range w.Jobs {
		if p.Ended.IsZero() {
			return false
		}
	}
	return len(w.Jobs) > 0
}

// Bound is the longest that a job may take from its post to its end: every
// state has a deadline, and each of the best MaxClaims may fail one after the other.
// Each dispute about an item of a batch convicts somebody with a place, so there are no more than places.
func (w *World) Bound(s *crowd.JobSpec) time.Duration {
	p := w.Config.Params
	each := s.Task.Limits.Wall.Milliseconds() + p.DispatchGrace
	ms := p.ClaimWindow + int64(p.MaxClaims)*each + p.RevealTime(s) + 3*p.CourtWindow + p.DeliveryWindow
	executors, verifiers := ledger.Seats(&s.Plan)
	if verifiers > 0 {
		rounds := int64(executors + verifiers)
		if !s.Compare.Strict() {
			rounds += ledger.IdleDisputes * int64(1+w.Config.Authorities)
		}
		ms += rounds * (p.DeliveryWindow + 2*p.CourtWindow)
	}
	return time.Duration(ms)*time.Millisecond + 40*w.Config.Block
}

// Outcome is what an honest run of t comes to: a pure function of t.
func Outcome(t *crowd.Task, unusable bool) crowd.Outcome {
	if unusable {
		return crowd.Outcome{Status: crowd.NoInput, Result: "empty"}
	}
	h := crowd.Digest("sim/outcome", t)
	o := crowd.Outcome{Status: crowd.Exited, Gas: 1 + (crowd.Gas(h[0])<<16|crowd.Gas(h[1])<<8)%t.Limits.Gas, Result: crowd.CID("result-" + h.String()[:16])}
	if h[2] < 32 {
		o.ExitCode = uint32(h[3])
	}
	return o
}

// duration of a run on one node: up to a third of the wall limit.
func duration(t *crowd.Task, on crowd.NodeID) time.Duration {
	h := crowd.Keccak256(crowd.Encode(t), on[:])
	return t.Limits.Wall * time.Duration(int(h[0])<<8|int(h[1])) / (3 << 16)
}

var errNobody = errors.New("no peer serves it")

func newKey(r *rand.ChaCha8) (*identity.Key, *identity.VRFKey) {
	k, err := identity.Generate(r)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return k, k.VRF()
}
