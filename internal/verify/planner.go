package verify

import (
	"errors"
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
)

// Class is what honest runs of one task have in common, as the app declares it.
type Class uint8

const (
	Strict   Class = iota // every byte
	Tolerant              // what the app's comparator calls equal
	Loose                 // nothing that could be compared
)

// Promise says of what a plan's confidence speaks.
type Promise uint8

const (
	// ByTasks is Detection for batches and Acceptance for a single task.
	ByTasks Promise = iota
	// Detection: an executor that cheats, at the stated rate or above, is caught with
	// the stated confidence, though a colluding share of the verifiers stands by it.
	Detection
	// Acceptance: a wrong shard is accepted with at most 1-confidence. The executor
	// is drawn too, so that it colludes only with its share of the weight: For's pair.
	Acceptance
	// Whole: that any shard of the batch is wrong and accepted has at most
	// 1-confidence, by the union bound over Acceptance of each.
	Whole
)

func (p Promise) String() string {
	return [...]string{"by tasks", "a cheater is caught", "what is accepted is right", "all that is accepted is right"}[min(p, Whole)]
}

// Method names of batch plans. PlanPair is crowd's.
const (
	MethodChallenge = "challenge" // secret samples of every shard
	MethodCommittee = "committee" // several replicas of every shard
	MethodAudit     = "audit"     // one verifier looks at some of the shards
)

// Candidates is a group of alike providers that pass a job's filters.
type Candidates struct {
	Count  uint64
	Record Record
	Stake  crowd.Credits // of each, as far as not at risk in other jobs
}

// Request is what a consumer wants of a batch. The zero value of a field that
// says so is its default.
type Request struct {
	Tasks      uint64 // items of the batch, each a run of the program
	Gas        crowd.Gas
	MaxGas     crowd.Gas // limit of one task; default Gas
	Price      crowd.Price
	Class      Class
	Comparator Kind // default exact; a tolerant class needs another

	Confidence   float64 // default 0.99
	Promise      Promise
	ColludingPPM uint32 // share of weight assumed bad and acting as one; default 10 %
	CheatPPM     uint32 // rate of wrong items that must be detected; default 10 %
	GoalPPM      uint32 // of gas on checks per useful gas, that sharding aims at; default 10 %
	FloorPPM     uint32 // least chance of any item to be re-executed; default and least 5 %
	MaxVerifiers uint32 // of one shard; default 16
	Shards       uint64 // so many; 0: as many as the goal leaves room for

	Candidates []Candidates
	Budget     crowd.Credits // most that may be locked; 0: any amount
	Bribe      crowd.Credits // what others might pay an executor for one wrong shard; 0: it only spares work
	BurnPPM    uint32        // ledger.Params; no default
	// Wait estimates how long the batch takes until it is checked; nil: not said.
	Wait func(BatchPlan) time.Duration
}

// DefaultConfidence is a batch's when none is asked for: DESIGN section 8.
const DefaultConfidence = 0.99

// defaultCheatPPM is the rate of wrong items from which on a cheater must be detected, where none is asked for.
const defaultCheatPPM = 100_000

func (r Request) withDefaults() Request {
	def := func(p *uint32, v uint32) {
		if *p == 0 {
			*p = v
		}
	}
	if r.MaxGas == 0 {
		r.MaxGas = r.Gas
	}
	if r.Comparator == "" {
		r.Comparator = Exact
	}
	if r.Confidence == 0 {
		r.Confidence = DefaultConfidence
	}
	if r.Promise == ByTasks {
		if r.Promise = Detection; r.Tasks == 1 {
			r.Promise = Acceptance
		}
	}
	def(&r.ColludingPPM, Million*DefaultColluding)
	def(&r.CheatPPM, defaultCheatPPM)
	def(&r.GoalPPM, 100_000)
	def(&r.FloorPPM, FloorPPM)
	def(&r.MaxVerifiers, 16)
	return r
}

// maxTasks bounds a batch, so that sums over its items fit 64 bits.
const maxTasks = 1 << 40

// Validate reports everything that is wrong with r at once.
func (r Request) Validate() error {
	r = r.withDefaults()
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if r.Tasks == 0 || r.Tasks > maxTasks {
		bad("%d tasks, want 1 to %d", r.Tasks, uint64(maxTasks))
	}
	if r.Gas == 0 || r.MaxGas < r.Gas {
		bad("gas of %d estimated and %d at most: want more than nothing, and not above the limit", r.Gas, r.MaxGas)
	}
	if _, err := Allowed(r.Confidence); err != nil {
		errs = append(errs, err)
	}
	if r.ColludingPPM >= Million {
		bad("a colluding share of %d ppm: nobody would be left to check", r.ColludingPPM)
	}
	if r.CheatPPM > Million || r.BurnPPM > Million {
		bad("a share of more than 1e6 ppm")
	}
	if r.FloorPPM < FloorPPM || r.FloorPPM > Million {
		bad("a floor of %d ppm, want %d to 1e6: there is no plan without a check", r.FloorPPM, FloorPPM)
	}
	if r.GoalPPM < r.FloorPPM {
		bad("a goal of %d ppm is below the floor of %d", r.GoalPPM, r.FloorPPM)
	}
	if r.MaxVerifiers > 64 {
		bad("%d verifiers of a shard, at most 64", r.MaxVerifiers)
	}
	if !r.Comparator.known() {
		bad("comparator %q: unknown", r.Comparator)
	}
	switch {
	case r.Class > Loose || r.Promise > Whole:
		bad("class %d or promise %d: unknown", r.Class, r.Promise)
	case r.Class == Loose:
		bad("nothing that honest runs of the task have in common: re-execution says nothing about it; declare a comparator and the class tolerant")
	case r.Class == Tolerant && r.Comparator == Exact:
		bad("a tolerant class needs a comparator that tolerates something")
	case r.Class == Strict && r.Comparator != Exact:
		bad("a strict class is compared exactly, not by %q", r.Comparator)
	}
	return errors.Join(errs...)
}

// Cost is what a batch costs, micro-credits. Pay is rounded up once a shard.
type Cost struct {
	Executors    crowd.Credits `json:"executors"`    // expected pay for the useful work
	Verification crowd.Credits `json:"verification"` // expected pay for the checks
	Burn         crowd.Credits `json:"burn"`         // of both: the part that is burned
	Margin       crowd.Credits `json:"margin"`       // locked besides, for tasks that use all of their gas and checks that are drawn; returned if not used
	Escrow       crowd.Credits `json:"escrow"`       // all that is locked: Executors + Verification + Margin
}

// BatchPlan is how a batch is sharded and checked, with the numbers on it. All of
// them are integers; probabilities are rounded up.
type BatchPlan struct {
	Method     string `json:"method"`
	Comparator Kind   `json:"comparator"`

	Tasks        uint64 `json:"tasks"`
	Shards       uint64 `json:"shards"`       // one drawn executor each
	Items        uint64 `json:"items"`        // of a shard; where it does not divide, some have one less
	Verifiers    uint32 `json:"verifiers"`    // of each shard, drawn, none of them its executor
	Replacements uint32 `json:"replacements"` // places of a shard that may be given anew: crowd.Plan
	Checks       uint64 `json:"checks"`       // q: items of a shard that each of its verifiers re-executes, secretly chosen
	Panels       uint64 `json:"panels"`       // sets of verifiers: each takes the same number of shards, or one less
	CheckPPM     uint32 `json:"check_ppm"`    // chance of a shard to be checked at all; 1e6 but for an audit. The executor's record may raise it: Record.CheckPPM
	FloorPPM     uint32 `json:"floor_ppm"`    // least chance of an item to be re-executed
	Nodes        uint64 `json:"nodes"`        // needed: executors and verifiers

	CheatPPM     uint32  `json:"cheat_ppm"`     // assumption: rate at which a cheater cheats, at least
	ColludingPPM uint32  `json:"colluding_ppm"` // assumption: share of weight that is bad and acts as one
	Promise      Promise `json:"promise"`       // of Undetected (Detection), Accepted (Acceptance) or Any (Whole)
	Undetected   Chance  `json:"undetected"`    // that an executor that cheats so escapes
	Accepted     Chance  `json:"accepted"`      // that a given shard is wrong and accepted
	Any          Chance  `json:"any"`           // that any of the shards is: union bound

	OverheadPPM uint64        `json:"overhead_ppm"` // expected gas of checks per useful gas
	GoalPPM     uint32        `json:"goal_ppm"`
	GoalItems   uint64        `json:"goal_items"` // items per executor from which on OverheadPPM is at most GoalPPM; 0: never
	MinStake    crowd.Credits `json:"min_stake"`  // with which an executor that cheats must lose
	Cost        Cost          `json:"cost"`
	Wait        time.Duration `json:"wait"` // expected; 0: not said
}

// Meets reports whether the checks cost no more than the goal.
func (p *BatchPlan) Meets() bool { return p.OverheadPPM <= uint64(p.GoalPPM) }

// Scheme is how the largest shard of p is checked.
func (p *BatchPlan) Scheme() Scheme {
	return Scheme{Items: p.Items, Checks: p.Checks, Verifiers: p.Verifiers, Replacements: p.Replacements, CheckPPM: p.CheckPPM, ColludingPPM: p.ColludingPPM}
}

// Lack is what stands between a request and a plan.
type Lack uint8

const (
	LackBudget     Lack = iota + 1 // the consumer's: pay more or want less
	LackNodes                      // too few candidates, or too few with enough stake
	LackConfidence                 // no plan reaches it under the stated assumptions
	LackPrice                      // the price of the whole does not fit 64 bits
)

// Unmet says that no plan does all that was asked, and which come nearest.
type Unmet struct {
	Lack  Lack
	Best  *BatchPlan // of highest confidence with the budget and nodes at hand; nil: not even the floor
	Least *BatchPlan // of the confidence asked for, with the least budget or the least nodes; nil: there is none
	Why   string
}

func (u *Unmet) Error() string {
	s := u.Why
	if u.Best != nil {
		s += fmt.Sprintf("; the best within reach leaves %s", u.Best.promised())
	}
	if u.Least != nil {
		s += fmt.Sprintf("; what was asked takes %s and %d nodes", u.Least.Cost.Escrow, u.Least.Nodes)
	}
	return s
}

// promised is the number that the plan's confidence is about.
func (p *BatchPlan) promised() Chance {
	switch p.Promise {
	case Acceptance:
		return p.Accepted
	case Whole:
		return p.Any
	}
	return p.Undetected
}

// ForBatch is the cheapest plan for a batch that reaches its confidence, in as
// many shards as the goal for the overhead leaves room for. What cannot be
// planned at all is an error; what cannot be had for that budget or from those
// nodes is an *Unmet with the nearest plans that can.
func ForBatch(r Request) (BatchPlan, error) {
	if err := r.Validate(); err != nil {
		return BatchPlan{}, fmt.Errorf("plan a batch: %w", err)
	}
	asked := r.Promise
	r = r.withDefaults()
	allowed, _ := Allowed(r.Confidence)
	pl := planner{Request: r, nodes: r.eligible(0)}
	larger := pl
	if asked == ByTasks { // what a single task is told about batches is what they are promised
		larger.Promise = Detection
	}
	pl.goal = larger.goalItems(allowed, 1)
	if pl.Promise == Whole && pl.goal > 0 { // more shards need larger ones, of which there are fewer than now reckoned with
		pl.goal = larger.goalItems(allowed, max(1, pl.Tasks/pl.goal))
	}
	free := pl
	free.Budget, free.nodes, free.ignoreStake = 0, ^uint64(0), true
	if _, err := free.cheapest(allowed); err != nil {
		return BatchPlan{}, &Unmet{Lack: free.lack, Best: pl.best(), Why: err.Error()}
	}
	p, err := pl.cheapest(allowed)
	if err == nil {
		return pl.finish(p), nil
	}
	u := &Unmet{Lack: pl.lack, Best: pl.best(), Why: err.Error()}
	least := pl // what of the two is lacking is made up for
	if pl.lack == LackBudget {
		least.Budget, least.thrifty = 0, true
	} else {
		least.nodes, least.Budget, least.ignoreStake = ^uint64(0), 0, true
	}
	if p, ok := least.least(allowed, pl.lack); ok {
		p = least.finish(p)
		u.Least = &p
	}
	return BatchPlan{}, u
}

// eligible counts the candidates that were never caught and stake that much.
func (r *Request) eligible(stake crowd.Credits) uint64 {
	n := uint64(0)
	for _, c := range r.Candidates {
		if c.Record.Caught == 0 && c.Stake >= stake {
			if n += c.Count; n < c.Count {
				return ^uint64(0)
			}
		}
	}
	return n
}

// planner is one search for a plan.
type planner struct {
	Request
	nodes       uint64 // that may be drawn
	goal        uint64 // items of a shard
	ignoreStake bool
	thrifty     bool // looks for the least escrow, not for the fewest checks and verifiers
	lack        Lack // of what the last search failed
}

// needed is the chance of escaping that a plan of so many shards may leave so
// that its promise is at most allowed.
func (pl *planner) needed(allowed Chance, shards uint64, replaced uint32) Chance {
	switch pl.Promise {
	case Detection:
		return allowed
	case Whole:
		allowed /= Chance(shards)
	}
	hi, ok := mulDivDown(uint64(allowed), uint64(Certain), uint64(max(Steered(pl.ColludingPPM, 1, replaced, 0), 1)))
	if !ok {
		return Certain
	}
	return min(Chance(hi), Certain)
}

// blindest is the largest chance of missing by one honest verifier's sample with
// which v of them let a cheater escape with chance at most needed; false: even whole re-execution does not do.
func (pl *planner) blindest(v, replaced uint32, needed Chance) (Chance, bool) {
	fits := func(miss Chance) bool { return Steered(pl.ColludingPPM, v, replaced, miss) <= needed }
	if !fits(0) {
		return 0, false
	}
	over := least(uint64(Certain)+1, func(m uint64) bool { return m > uint64(Certain) || !fits(Chance(m)) })
	return Chance(over - 1), true
}

// room is a number of replacements with which some sample reaches what is allowed.
type room struct {
	replacements uint32
	needed       Chance // that the plan may leave an executor that cheats
	miss         Chance // that one honest verifier's sample may leave it
}

// room are the numbers of replacements that a shard with v verifiers may have, the most first.
func (pl *planner) room(v uint32, allowed Chance, shards uint64) (rooms []room) {
	sample := crowd.Plan{Method: crowd.PlanSample}
	for r := int(sample.DefaultReplacements()); r >= 1; r-- { // a batch has one executor: crowd.JobSpec.Validate
		needed := pl.needed(allowed, shards, uint32(r))
		if miss, ok := pl.blindest(v, uint32(r), needed); ok {
			rooms = append(rooms, room{uint32(r), needed, miss})
		}
	}
	return rooms
}

// goalItems is from how many items per executor on the checks cost no more than
// the goal. It reckons with endless shards, for which the most checks are needed.
func (pl *planner) goalItems(allowed Chance, shards uint64) uint64 {
	best := uint64(0)
	for v := uint32(1); v <= pl.MaxVerifiers; v++ {
		rooms := pl.room(v, allowed, shards)
		if len(rooms) == 0 {
			continue
		}
		q := least(1<<40, func(q uint64) bool { return MissedLimit(pl.CheatPPM, q) <= rooms[0].miss })
		if items, ok := mulDivUp(max(q, 1)*uint64(v), Million, uint64(pl.GoalPPM)); ok && (best == 0 || items < best) {
			best = items
		}
	}
	return best
}

// cheapest is the plan with the most shards that meets the goal within budget and
// nodes; where none meets the goal, the one that costs least.
func (pl *planner) cheapest(allowed Chance) (BatchPlan, error) {
	if pl.Shards > 0 {
		return pl.build(min(pl.Shards, pl.Tasks), allowed)
	}
	shards := uint64(1)
	if pl.goal > 0 {
		shards = max(1, pl.Tasks/pl.goal)
	}
	// Of the nodes, as large a part must be left for verifiers as their work is.
	spare := min(uint64(pl.MaxVerifiers), pl.nodes/2)
	room, _ := mulDivDown(pl.nodes-spare, Million, Million+uint64(pl.GoalPPM))
	shards = min(shards, max(1, room))
	var found *BatchPlan
	why := error(nil)
	for ; ; shards /= 2 {
		p, err := pl.build(shards, allowed)
		switch {
		case err != nil:
			why = err
		case p.Meets():
			return p, nil
		case found == nil || p.Cost.Escrow < found.Cost.Escrow:
			found = &p
		}
		if shards == 1 {
			break
		}
	}
	if found != nil {
		return *found, nil
	}
	return BatchPlan{}, why
}

// build is the plan with so many shards within the budget that needs the fewest checks.
func (pl *planner) build(shards uint64, allowed Chance) (BatchPlan, error) {
	pl.lack = LackConfidence
	err := fmt.Errorf("confidence %v: with %g %% colluding, %d verifiers of a shard do not reach it", pl.Confidence, 100*FromPPM(pl.ColludingPPM).Float(), pl.MaxVerifiers)
	var found *BatchPlan
	score := uint64(0)
	lo, hi := pl.Tasks/shards, (pl.Tasks+shards-1)/shards
	for v := uint32(1); v <= pl.MaxVerifiers; v++ {
		for _, r := range pl.room(v, allowed, shards) {
			q := LeastChecks(hi, BadItems(hi, pl.CheatPPM), r.miss)
			if lo != hi {
				q = max(q, LeastChecks(lo, BadItems(lo, pl.CheatPPM), r.miss))
			}
			p, lack, e := pl.with(shards, v, r.replacements, q, r.needed)
			if e == nil && pl.Budget > 0 && p.Cost.Escrow > pl.Budget {
				lack, e = LackBudget, fmt.Errorf("%s would be locked; the budget is %s", p.Cost.Escrow, pl.Budget)
			}
			if e != nil {
				if found == nil && pl.lack != LackBudget { // nodes are there if money is all that lacks
					pl.lack, err = lack, e
				}
				continue
			}
			// A verifier weighs as much as a check: it is a draw, a commitment and a reveal.
			s := p.Checks*uint64(v) + uint64(v)
			if pl.thrifty {
				s = uint64(p.Cost.Escrow)
			}
			if found == nil || p.Meets() && !found.Meets() || p.Meets() == found.Meets() && s < score {
				found, score = &p, s
			}
			if !pl.thrifty {
				break // with fewer replacements only where these cannot be had
			}
		}
	}
	if found == nil {
		return BatchPlan{}, err
	}
	return *found, nil
}

// with is the plan of so many shards, each checked by v verifiers with q items,
// or more where the floor asks for it.
func (pl *planner) with(shards uint64, v, replaced uint32, q uint64, needed Chance) (BatchPlan, Lack, error) {
	items := (pl.Tasks + shards - 1) / shards
	floor := least(items, func(q uint64) bool { return Missed(items, 1, q).Pow(v) <= FromPPM(pl.FloorPPM).Not() })
	p := BatchPlan{
		Method: MethodChallenge, Comparator: pl.Comparator, Tasks: pl.Tasks, Shards: shards, Items: items,
		Verifiers: v, Replacements: replaced, Checks: min(max(q, floor), items), CheckPPM: Million, FloorPPM: pl.FloorPPM,
		CheatPPM: pl.CheatPPM, ColludingPPM: pl.ColludingPPM, Promise: pl.Promise, GoalPPM: pl.GoalPPM, GoalItems: pl.goal,
	}
	switch {
	case p.Checks == items && v == 1:
		p.Method = crowd.PlanPair
	case p.Checks == items:
		p.Method = MethodCommittee
	}
	if v == 1 && p.Checks == 1 { // one check is too much already: not of every shard
		rate := least(Million, func(ppm uint64) bool {
			p.CheckPPM = uint32(ppm)
			covered, _ := mulDivDown(ppm, 1, items)
			return covered >= uint64(pl.FloorPPM) && p.escapes() <= needed
		})
		if p.CheckPPM = uint32(rate); p.CheckPPM < Million {
			p.Method = MethodAudit
		}
	}
	p.Undetected = p.escapes()
	p.Accepted = p.Undetected.And(Steered(pl.ColludingPPM, 1, replaced, 0))
	p.Any = p.Accepted.Times(shards)
	checks := pl.Tasks // of all shards by one verifier each
	if p.Checks < items {
		checks = shards * p.Checks
	}
	p.OverheadPPM = Scheme{Items: pl.Tasks, Checks: checks, Verifiers: v, CheckPPM: p.CheckPPM}.OverheadPPM()
	// A panel's work on all of its shards is at most an executor's, if there are nodes enough for that.
	each := max(1, items/p.Checks)
	p.Panels = (shards + each - 1) / each
	if pl.nodes < shards || pl.nodes-shards < uint64(v) {
		return p, LackNodes, fmt.Errorf("%d executors and %d verifiers are needed; %d candidates are there", shards, v, pl.nodes)
	}
	p.Panels = min(p.Panels, (pl.nodes-shards)/uint64(v))
	p.Nodes = shards + p.Panels*uint64(v)
	if !pl.price(&p) {
		return p, LackPrice, fmt.Errorf("%d tasks of up to %d gas at %d micro-credits per mega-gas cost more than can be counted", pl.Tasks, pl.MaxGas, pl.Price)
	}
	if err := pl.stake(&p); err != nil {
		return p, LackNodes, err
	}
	if n := pl.eligible(p.MinStake); !pl.ignoreStake && n < p.Nodes {
		if n < shards+uint64(v) {
			return p, LackNodes, fmt.Errorf("%d nodes with a stake of %s are needed, so that cheating loses; %d candidates have it", shards+uint64(v), p.MinStake, n)
		}
		p.Panels = (n - shards) / uint64(v)
		p.Nodes = shards + p.Panels*uint64(v)
	}
	return p, 0, nil
}

// escapes is the worst chance of escaping over the shards' sizes.
func (p *BatchPlan) escapes() Chance {
	s := p.Scheme()
	c := s.Undetected(BadItems(s.Items, p.CheatPPM))
	if p.Tasks%p.Shards != 0 {
		s.Items--
		c = max(c, s.Undetected(BadItems(s.Items, p.CheatPPM)))
	}
	return c
}

// price fills in p.Cost; false: it does not fit.
func (pl *planner) price(p *BatchPlan) bool {
	small := p.Tasks / p.Shards
	large := p.Tasks % p.Shards // shards with one item more
	fits := true
	mul := func(a, b uint64) uint64 {
		c, ok := mulDivUp(a, b, 1)
		fits = fits && ok
		return c
	}
	add := func(a, b crowd.Credits) crowd.Credits {
		c, ok := a.Add(b)
		fits = fits && ok
		return c
	}
	run := func(n uint64, gas crowd.Gas) crowd.Credits {
		c := pl.Price.Cost(crowd.Gas(mul(n, uint64(gas))))
		fits = fits && c != ^crowd.Credits(0)
		return c
	}
	// all sums f over the shards, f given the number of items that count in each
	all := func(gas crowd.Gas, most uint64) crowd.Credits {
		a := crowd.Credits(mul(p.Shards-large, uint64(run(min(small, most), gas))))
		if large == 0 {
			return a
		}
		return add(a, crowd.Credits(mul(large, uint64(run(min(small+1, most), gas)))))
	}
	verify := func(gas crowd.Gas) crowd.Credits {
		return crowd.Credits(mul(uint64(p.Verifiers), uint64(all(gas, p.Checks))))
	}
	c := &p.Cost
	c.Executors = all(pl.Gas, p.Items)
	likely, _ := mulDivUp(uint64(verify(pl.Gas)), uint64(pl.checkMost(p)), Million)
	c.Verification = crowd.Credits(likely)
	c.Escrow = add(all(pl.MaxGas, p.Items), verify(pl.MaxGas))
	if !fits {
		return false
	}
	c.Margin = c.Escrow - c.Executors - c.Verification
	c.Burn = (c.Executors + c.Verification).PPM(pl.BurnPPM)
	return true
}

// checkMost is how often shards are checked when the candidate whose record asks
// for most checks executes them: only an audit leaves room for that.
func (pl *planner) checkMost(p *BatchPlan) uint32 {
	most := p.CheckPPM
	for _, c := range pl.Candidates {
		if c.Record.Caught == 0 && c.Count > 0 && p.CheckPPM < Million {
			most = max(most, c.Record.CheckPPM(p.CheckPPM))
		}
	}
	return most
}

// stake finds the stake with which cheating loses. The chance of being caught is
// concave in the number of wrong items and what they spare is linear, so that the
// one wrong item and the wholly wrong shard are the worst; who is paid to lie
// gets the bribe for either.
func (pl *planner) stake(p *BatchPlan) error {
	pay := pl.Price.Cost(crowd.Gas(p.Items) * pl.Gas)
	for _, bad := range []uint64{1, p.Items} {
		gain, ok := mulDivUp(uint64(pay), bad, p.Items)
		sum, fits := crowd.Credits(gain).Add(pl.Bribe)
		if !ok || !fits {
			return errors.New("the gain of a cheater cannot be counted")
		}
		least, err := Stakes{Gain: sum, Reward: pay}.LeastStake(p.Scheme().Undetected(bad).Not())
		if err != nil {
			return err
		}
		p.MinStake = max(p.MinStake, least)
	}
	return nil
}

// best is the plan of highest confidence with the budget and nodes at hand: one
// shard, for which the same checks say most. nil: not even the floor can be had.
func (pl *planner) best() *BatchPlan {
	var found *BatchPlan
	cheap := *pl
	cheap.ignoreStake = true // more checks need less stake: that is looked at in the end
	for v := uint32(1); v <= pl.MaxVerifiers; v++ {
		over := least(pl.Tasks+1, func(q uint64) bool {
			p, _, err := cheap.with(1, v, 1, q, 0)
			return q > pl.Tasks || err != nil || pl.Budget > 0 && p.Cost.Escrow > pl.Budget
		})
		if over == 0 {
			continue
		}
		if p, _, err := pl.with(1, v, 1, over-1, 0); err == nil && (found == nil || p.Undetected < found.Undetected) {
			p = pl.finish(p)
			found = &p
		}
	}
	return found
}

// least is the plan for what is allowed that takes the least of what lacks.
func (pl *planner) least(allowed Chance, lack Lack) (BatchPlan, bool) {
	if lack == LackNodes {
		for v := uint32(1); v <= pl.MaxVerifiers; v++ {
			few := *pl
			few.nodes = 1 + uint64(v)
			if p, err := few.build(1, allowed); err == nil {
				return p, true
			}
		}
		return BatchPlan{}, false
	}
	p, err := pl.build(1, allowed)
	return p, err == nil
}

func (pl *planner) finish(p BatchPlan) BatchPlan {
	if pl.Wait != nil {
		p.Wait = pl.Wait(p)
	}
	return p
}
