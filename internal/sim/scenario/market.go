package scenario

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/verify"
)

// Strategy is how the byzantine providers of a Market behave in a seat that they are
// drawn for. The zero Strategy is honest. In the full world each is an adversary, named in Like.
type Strategy struct {
	Name string `json:"name"`
	What string `json:"what"`
	Like string `json:"like"` // the adversary of the full world

	lies     bool // executes, with a share of the items made up
	inflates bool // its lies are right outputs with all the gas that an item may use
	every    int  // lies in one of so many batches, at random; 0: in each
	ring     bool // its verifiers answer as one of them that executes lied
	choosy   bool // lies only where it has every seat
	rubbish  bool // verifies wrongly
	idle     bool // and without any work
	silent   bool // takes the seat and never commits
	hides    bool // executes nothing, and gives nobody the leaves of what it committed to
	nonsense int  // false reports in each batch that it takes part in
	fresh    bool // comes back as a newcomer when it is caught; others as the veteran that they were
	wash     bool // the owner and every seat are its own
}

// Lies reports whether executors of s lie about items, so that a rate says something.
func (s *Strategy) Lies() bool { return s.lies }

// Strategies are all that a Market knows, the honest one first.
func Strategies() []Strategy {
	return []Strategy{
		{Name: "honest", What: "keeps to the protocol", Like: "-"},
		{Name: "cheat", What: "executes all but a share of the items, works alone", Like: "Cheat", lies: true},
		{Name: "onoff", What: "nine honest batches, then one with lies", Like: "OnOff", lies: true, every: 10},
		{Name: "inflate", What: "right outputs, gas at the limit for a share of the items", Like: "Inflate", lies: true, inflates: true},
		{Name: "whitewash", What: "a cheat that comes back under new identities", Like: "Whitewash", lies: true, fresh: true},
		{Name: "ring", What: "cheats, and its verifiers stand by each other", Like: "Gang", lies: true, ring: true},
		{Name: "choosy", What: "a ring that cheats only where it holds every seat", Like: "Gang{Choosy}", lies: true, ring: true, choosy: true},
		{Name: "lazy", What: "verifies nothing and answers rubbish", Like: "Lazy, Copycat", rubbish: true, idle: true},
		{Name: "frame", What: "does a verifier's work and gives wrong answers", Like: "Framer", rubbish: true},
		{Name: "silent", What: "takes a seat and never commits", Like: "Mute", silent: true},
		{Name: "hide", What: "executes nothing and hides the leaves it committed to", Like: "Withhold", hides: true},
		{Name: "dispute", What: "works, and reports nonsense in each batch", Like: "Disputer", nonsense: 4},
		{Name: "wash", What: "posts batches to its own nodes, who make all up", Like: "Wash, Bribed", lies: true, ring: true, wash: true},
	}
}

// MarketConfig says what a Market is made of. The zero value of each number has a default.
type MarketConfig struct {
	Nodes     int     `json:"nodes"`     // providers, of equal stake; 2000
	Jobs      int     `json:"jobs"`      // batches; 100,000
	Byzantine float64 `json:"byzantine"` // share of the nodes, and so of the weight; 0.3
	Strategy  string  `json:"strategy"`  // of those; "cheat"
	Rate      float64 `json:"rate"`      // share of a batch's items that is lied about, at least one; 0.1
	Items     uint32  `json:"items"`     // of a batch; 1000
	Verifiers uint32  `json:"verifiers"` // 3
	Checks    uint32  `json:"checks"`    // of each verifier; 33
	Cost      float64 `json:"cost"`      // of running gas, as a share of its price: what a cheater spares; 0.5
	Reuse     int     `json:"reuse"`     // batches that one stake answers for at a time, a share of it each: the ledger sets no bound; 1
	Seed      uint64  `json:"seed"`
}

// WithDefaults is c with its zeros filled in.
func (c MarketConfig) WithDefaults() MarketConfig {
	number(&c.Nodes, 2000)
	number(&c.Jobs, 100_000)
	number(&c.Byzantine, 0.3)
	number(&c.Rate, 0.1)
	number(&c.Items, 1000)
	number(&c.Verifiers, 3)
	number(&c.Checks, 33)
	number(&c.Cost, 0.5)
	number(&c.Reuse, 1)
	number(&c.Seed, 1)
	if c.Strategy == "" {
		c.Strategy = "cheat"
	}
	return c
}

func number[N int | uint32 | uint64 | float64](n *N, def N) {
	if *n == 0 {
		*n = def
	}
}

// Validate reports everything that is wrong with c at once.
func (c MarketConfig) Validate() error {
	c = c.WithDefaults()
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if _, ok := named(c.Strategy); !ok {
		bad("no strategy is called %q", c.Strategy)
	}
	if !(c.Byzantine >= 0 && c.Byzantine <= 1) || !(c.Rate >= 0 && c.Rate <= 1) || !(c.Cost >= 0 && c.Cost <= 1) {
		bad("byzantine %v, rate %v, cost %v: want shares from 0 to 1", c.Byzantine, c.Rate, c.Cost)
	}
	if c.Reuse < 1 {
		bad("a stake that answers for %d batches, want one at least", c.Reuse)
	}
	if c.Nodes < 1 || c.Nodes > 1e6 || c.Jobs < 1 || c.Jobs > 1e9 {
		bad("%d nodes and %d jobs, want 1 to 1e6 and 1 to 1e9", c.Nodes, c.Jobs)
	}
	spec := c.spec()
	if err := spec.Validate(); err != nil {
		errs = append(errs, err)
	}
	if honest := c.Nodes - int(c.Byzantine*float64(c.Nodes)); honest < 1+int(c.Verifiers) {
		bad("%d honest nodes for %d seats: a draw would find nobody to take over", honest, 1+c.Verifiers)
	}
	return errors.Join(errs...)
}

func named(name string) (Strategy, bool) {
	for _, s := range Strategies() {
		if s.Name == name {
			return s, true
		}
	}
	return Strategy{}, false
}

// The gas of an item, and its limit: a node that stakes no more than the ledger asks has
// 5/4 of the pay to lose. With a stake that is larger against the pay, cheating costs more.
const (
	itemGas   = 8e7
	itemLimit = 1e8
)

func (c *MarketConfig) spec() crowd.JobSpec {
	return crowd.JobSpec{
		Task: crowd.Task{
			Program: "program", Stdin: "items",
			Limits: crowd.Limits{Gas: itemLimit, Memory: 64 << 20, Output: 1 << 10, Wall: crowd.MaxWall},
		},
		Items: c.Items, Filters: crowd.Filters{MaxPrice: crowd.ReferencePrice}, Budget: ^crowd.Credits(0),
		Plan: crowd.Plan{Method: crowd.PlanSample, Verifiers: c.Verifiers, Checks: c.Checks, Replacements: 2},
	}
}

// Market plays batches without messages, blocks or signatures: who is drawn, which items are
// sampled, who lies and stands by whom, what the court then finds, and who gains and loses how much.
// The sampling, tickets, fees and prices are the ledger's and batch's own functions; the draw is
// an equal of ledger.Won's, the verdict and the money are Deal's: the tests hold both against the
// real ones. Its nodes are always there: crashes and networks are the full world's matter.
type Market struct {
	MarketConfig
	Done int // batches played

	how     Strategy
	params  ledger.Params
	rules   crowd.JobSpec
	stake   crowd.Credits // of a provider, as far as it answers for one batch
	rng     *rand.Rand
	nodes   []trader
	tickets [2]uint32 // of a newcomer, of a veteran
	fees    fees
	lied    []int // the batch in which an item was last lied about
	drawn   []int // the batch for which a node was last drawn
	sum     tally
}

type trader struct {
	byzantine bool
	newcomer  bool
	dues      uint64
}

// tally is what was seen so far.
type tally struct {
	lies, caught, accepted   int // batches whose executor lied; those in which it was caught; wrong ones that were settled
	failed                   int // batches that came to no result
	honestCaught             int // honest nodes that lost their stake
	acted                    int // batches in which a byzantine node broke the protocol
	profit, honest           int64
	honestLost, honestPlaced int64 // credits that honest nodes lost by batches that failed, and places they held
	damage, paid             int64 // to others in batches in which somebody acted, all work at its price; what those who acted gave for it
	useful, checks           crowd.Gas
}

// NewMarket is a market before its first batch.
func NewMarket(c MarketConfig) (*Market, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	m := &Market{MarketConfig: c, params: ledger.MainParams(), rules: c.spec(), rng: rand.New(rand.NewPCG(c.Seed, 0x6d61726b6574))}
	m.how, _ = named(c.Strategy)
	m.stake = max(m.params.MinStake, m.rules.Filters.MaxPrice.Cost(m.rules.Limits().Gas))
	weighed := ledger.Provider{Stake: m.stake}
	m.stake /= crowd.Credits(c.Reuse)
	m.nodes, m.drawn = make([]trader, c.Nodes), make([]int, c.Nodes)
	for i := range int(c.Byzantine * float64(c.Nodes)) {
		m.nodes[i].byzantine = true
	}
	m.lied = make([]int, c.Items)
	for fresh, weight := range []uint32{m.params.Reputation.NewcomerPPM, 1e6} {
		weighed.Weight = weight
		m.tickets[fresh] = m.params.Tickets(&weighed, false)
	}
	var err error
	m.fees, err = measureFees(&m.rules, &m.params)
	return m, err
}

// fees are what the chain takes for a party's messages, whatever comes of the batch: what a drawn node has to put on chain is its owner's to pay.
type fees struct{ report crowd.Credits }

// measureFees signs one message of each kind and asks the ledger.
func measureFees(spec *crowd.JobSpec, p *ledger.Params) (f fees, err error) {
	k, err := identity.Generate(rand.NewChaCha8([32]byte{}))
	if err != nil {
		return f, err
	}
	fee := func(m ledger.Message) crowd.Credits {
		tx, e := ledger.Open("sim", ledger.Sign(k, "sim", 1, m))
		err = errors.Join(err, e)
		return p.Fee(tx)
	}
	proof := batch.Proof{}
	for n := uint32(1); n < spec.Items; n *= 2 {
		proof.Path = append(proof.Path, batch.Node{})
	}
	f.report = fee(&ledger.Report{Proof: proof})
	return f, err
}

// seat draws one node, and gives nobody two seats of a batch. A node with m tickets has the best of m
// equal hashes, so in order of their best tickets nodes come as they do when single tickets are drawn one after the other.
func (m *Market) seat(job int, only func(*trader) bool) int {
	for {
		i := m.rng.IntN(len(m.nodes))
		t := &m.nodes[i]
		if m.drawn[i] == job || only != nil && !only(t) {
			continue
		}
		if t.newcomer && uint32(m.rng.IntN(int(m.tickets[1]))) >= m.tickets[0] {
			continue
		}
		m.drawn[i] = job
		return i
	}
}

// Play plays n more batches.
func (m *Market) Play(n int) {
	for range n {
		m.Done++
		m.play(m.Done)
	}
}

func (m *Market) play(job int) {
	s, t := &m.how, &m.sum
	var only func(*trader) bool
	if s.wash {
		only = func(t *trader) bool { return t.byzantine }
	}
	seats := make([]int, 1+m.Verifiers)
	acts, ours := false, 0
	for i := range seats {
		seats[i] = m.seat(job, only)
		for s.silent && m.nodes[seats[i]].byzantine { // its time passes, an alternate takes the seat
			acts = true
			t.honest += m.fair(i)
			seats[i] = m.seat(job, only)
		}
		if m.nodes[seats[i]].byzantine {
			ours++
		}
	}
	executor := &m.nodes[seats[0]]
	gas := crowd.Gas(m.Items) * itemGas
	d := Deal{Spec: &m.rules, Params: &m.params, Gas: gas, Duties: m.params.DutyFees(&m.rules, uint32(m.Nodes), 4), Voters: 4}
	for range seats {
		d.Prices, d.Stakes = append(d.Prices, m.rules.Filters.MaxPrice), append(d.Stakes, m.stake)
	}

	lying := s.lies && executor.byzantine && (s.every == 0 || m.rng.IntN(s.every) == 0) && (!s.choosy || ours == len(seats))
	lies := uint64(0)
	if lying {
		if lies = max(1, verify.BadItems(uint64(m.Items), uint32(m.Rate*verify.Million+0.5))); s.wash {
			lies = uint64(m.Items)
		}
		m.lie(job, int(lies))
		if s.inflates {
			d.Gas += crowd.Gas(lies) * (itemLimit - itemGas)
		}
	}
	d.Leaf = func(i uint32) Value {
		if m.lied[i] == job {
			return 1
		}
		return Right
	}
	for range m.Verifiers {
		var lot identity.VRFOutput
		for b := range lot {
			lot[b] = byte(m.rng.Uint32())
		}
		d.Sample = append(d.Sample, ledger.Sampled(&m.rules, lot))
	}
	d.Answer = func(v, k int) Value {
		switch {
		case !m.nodes[seats[1+v]].byzantine:
			return Right
		case s.rubbish:
			return 2
		case s.ring:
			return d.Leaf(d.Sample[v][k])
		}
		return Right
	}
	d.Reporter = -1 // a friend of the cheater, who gets the bounty: the worst case

	hidden := s.hides && executor.byzantine
	var out Dealt
	if hidden { // the authorities find no leaves: refunded, nobody is paid
		out = Dealt{Caught: make([]bool, len(seats)), Change: make([]int64, len(seats))}
	} else {
		out = d.Judge()
	}
	m.count(seats, &d, &out, lying, hidden, acts)
	if lying {
		t.lies++
		switch {
		case out.Caught[0]:
			t.caught++
		case out.Settled:
			t.accepted++
		}
	}
	if !out.Settled {
		t.failed++
	}
	for i, at := range seats {
		n := &m.nodes[at]
		switch {
		case out.Caught[i] && !n.byzantine:
			t.honestCaught++
		case out.Caught[i] && s.fresh:
			*n = trader{byzantine: true, newcomer: true}
		case n.newcomer && out.Settled:
			if n.dues += 1e6; n.dues >= m.params.Reputation.Dues { // of a job that counts in full
				n.newcomer = false
			}
		}
	}
}

// lie picks n items at random.
func (m *Market) lie(job, n int) {
	items := len(m.lied)
	for j := items - n; j < items; j++ { // Floyd, as in batch.Sample
		i := m.rng.IntN(j + 1)
		if m.lied[i] == job {
			i = j
		}
		m.lied[i] = job
	}
}

// count adds up what everybody gained, and what an honest node would have gained in the same seats.
func (m *Market) count(seats []int, d *Deal, out *Dealt, lying, hidden, acts bool) {
	s, t := &m.how, &m.sum
	profit, honest := int64(0), int64(0)
	paid, damage := int64(0), int64(out.Courts*d.Voters)*int64(m.rules.Filters.MaxPrice.Cost(itemLimit))-out.Court
	if s.wash {
		profit += out.Owner - int64(d.Duties)
		paid -= out.Owner - int64(d.Duties)
		acts = true
	} else {
		damage -= out.Owner // what it burned with its post it would have burned anyhow, but for a result
		if !out.Settled || lying {
			damage += int64(d.Duties)
		}
		if out.Settled && !lying { // the owner has what it paid for
			for i := range seats {
				damage -= int64(m.params.Pay(m.rules.Filters.MaxPrice, m.seatOf(i)))
			}
		}
	}
	for i, at := range seats {
		run := m.seatOf(i)
		if !m.nodes[at].byzantine {
			t.honestPlaced++
			work := m.params.Pay(m.rules.Filters.MaxPrice, run)
			damage += int64(work) - out.Change[i]
			if out.Settled { // the burned share of the pay is the network's, whatever others do
				damage -= int64(work.PPM(m.params.BurnPPM))
			}
			if !out.Settled {
				t.honestLost += m.cost(run) - out.Change[i]
			}
			m.ran(i, run)
			continue
		}
		change := out.Change[i]
		bad := true
		switch {
		case i == 0 && lying && !s.inflates:
			run = 0
			for item := range m.Items {
				if d.Leaf(item) == Right {
					run += itemGas
				}
			}
		case i == 0 && lying:
		case i == 0 && hidden:
			run = 0
		case i > 0 && s.rubbish && s.idle:
			run = 0
		case i > 0 && s.rubbish:
		case i > 0 && s.ring && lying:
			run = 0
			for k, item := range d.Sample[i-1] {
				if d.Answer(i-1, k) == Right && d.Leaf(item) == Right {
					run += itemGas
				}
			}
		case s.nonsense > 0:
			change -= int64(s.nonsense) * int64(m.fees.report)
		default:
			bad = false
		}
		m.ran(i, run)
		acts = acts || bad
		if out.Caught[i] && d.Reporter < 0 { // the bounty comes back through a friend
			change += int64(m.stake.PPM(m.params.SlashPPM).PPM(m.params.BountyPPM))
		}
		profit += change - m.cost(run)
		paid += int64(m.rules.Filters.MaxPrice.Cost(run)) - change
		honest += m.fair(i)
	}
	t.checks += crowd.Gas(out.Courts*d.Voters) * itemGas
	if acts {
		t.acted++
		t.paid += paid
		t.damage += damage
		t.profit += profit
		t.honest += honest
	}
}

func (m *Market) ran(place int, gas crowd.Gas) {
	if place == 0 {
		m.sum.useful += gas
	} else {
		m.sum.checks += gas
	}
}

// seatOf is the gas that place i honestly runs.
func (m *Market) seatOf(i int) crowd.Gas {
	all := crowd.Gas(m.Items) * itemGas
	if i == 0 {
		return all
	}
	return ledger.CheckGas(&m.rules, all)
}

// cost of running gas, in micro-credits.
func (m *Market) cost(gas crowd.Gas) int64 {
	return int64(float64(m.rules.Filters.MaxPrice.Cost(gas)) * m.Cost)
}

// fair is what an honest node keeps of place i in a batch that is settled.
func (m *Market) fair(i int) int64 {
	run := m.seatOf(i)
	earned := m.params.Pay(m.rules.Filters.MaxPrice, run)
	return int64(earned-earned.PPM(m.params.BurnPPM)) - m.cost(run)
}
