package scenario

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/sim"
	"github.com/crowdcompute/crowd/internal/verify"
)

// Attack is one way in which an attacker, who owns jobs and a share of the providers, tries to gain or to do damage.
type Attack struct {
	Name string `json:"name"`
	What string `json:"what"`

	rings bool     // it does something only where it holds all places, which a plan makes no rarer than it states
	plans []string // against which it is played; nil: all
	begin func(r *Raid, author *Node)
}

// Attacks are all that a Raid knows.
func Attacks() []Attack {
	return []Attack{
		withholdInputs, wallBurner, burstPoster, compileBomber, cancelGrinder, readCanceller, feeDrainer, diskFiller, slowCourt, ownerGone, stakeReuser, idler, quitter,
	}
}

// Against reports whether a says something about jobs of that plan.
func (a *Attack) Against(plan string) bool { return a.plans == nil || slices.Contains(a.plans, plan) }

// Plans are the ways of checking that a Raid plays.
func Plans() []string {
	return []string{crowd.PlanPair, crowd.PlanCommittee, crowd.PlanAudit, crowd.PlanSample}
}

// RaidConfig says what an attacker does, and against what. The zero value of each number has a default.
type RaidConfig struct {
	Attacks   []string `json:"attacks"`   // one or two, at the same time
	Plan      string   `json:"plan"`      // of all jobs; "pair"
	Providers int      `json:"providers"` // of equal stake; 13
	Byzantine float64  `json:"byzantine"` // share of the providers that are the attacker's; 0.3
	Jobs      int      `json:"jobs"`      // posted by anybody, at least; 20
	Seed      uint64   `json:"seed"`      // 1
}

// WithDefaults is c with its zeros filled in.
func (c RaidConfig) WithDefaults() RaidConfig {
	number(&c.Providers, 13)
	number(&c.Byzantine, 0.3)
	number(&c.Jobs, 20)
	number(&c.Seed, 1)
	if c.Plan == "" {
		c.Plan = crowd.PlanPair
	}
	return c
}

// Validate reports everything that is wrong with c at once.
func (c RaidConfig) Validate() error {
	c = c.WithDefaults()
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if len(c.Attacks) == 0 || len(c.Attacks) > 2 {
		bad("%d attacks at the same time, want one or two", len(c.Attacks))
	}
	for _, name := range c.Attacks {
		if a, ok := attackNamed(name); !ok {
			bad("no attack is called %q", name)
		} else if !a.Against(c.Plan) {
			bad("%s is not played against plan %q", name, c.Plan)
		}
	}
	if !slices.Contains(Plans(), c.Plan) {
		bad("no plan is called %q", c.Plan)
	}
	if !(c.Byzantine > 0 && c.Byzantine < 1) {
		bad("byzantine %v: want a share between 0 and 1", c.Byzantine)
	}
	if c.Jobs < 1 || c.Jobs > 1e7 || c.Providers < 8 || c.Providers > 60 {
		bad("%d jobs and %d providers, want 1 to 1e7 and 8 to 60", c.Jobs, c.Providers)
	}
	return errors.Join(errs...)
}

func attackNamed(name string) (Attack, bool) {
	for _, a := range Attacks() {
		if a.Name == name {
			return a, true
		}
	}
	return Attack{}, false
}

// raidJobs are played in one world. A cheater that is caught is missing in that world's later jobs.
const raidJobs = 5

// raidLasts is more than a world's jobs can take.
const raidLasts = 60 * 24 * time.Hour

// Raid plays an attack by whole nodes on the real ledger, world after world, and adds up what it did.
type Raid struct {
	RaidConfig
	Done int // jobs posted

	attacks []Attack
	plan    crowd.Plan
	worlds  int
	units   int // jobs of all attacks so far: those that an attack is about
	sum     toll
	broken  []error // what did not hold that must

	// of the world under way
	w         *World
	each      int                   // jobs of each attack
	crew      []*Node               // the attacker's providers
	ours      map[crowd.NodeID]bool // these, and its owners
	strangers []*Node               // honest owners
	specs     int
	pay       float64 // most that a place earns, in credits
	lies      []func(n *Node, j *ledger.Job) bool
	hidden    map[crowd.CID]bool
	idle      bool // in strangers' jobs, beyond the claim
	quits     func(j *ledger.Job) bool
	aloof     map[crowd.NodeID]bool // owners for whose jobs the crew does not work
	tends     map[crowd.JobID]func(j *ledger.Job)
	targets   map[crowd.JobID]bool // in which a wrong result is wanted
	lanes     int                  // open
	read      map[crowd.JobID]crowd.Credits
}

// NewRaid is a raid before its first job.
func NewRaid(c RaidConfig) (*Raid, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &Raid{RaidConfig: c.WithDefaults()}
	for _, name := range r.Attacks {
		a, _ := attackNamed(name)
		r.attacks = append(r.attacks, a)
	}
	r.plan = crowd.Plan{Method: r.Plan}
	switch r.Plan {
	case crowd.PlanCommittee:
		r.plan.Executors = crowd.MinCommittee
	case crowd.PlanAudit:
		r.plan.Rate = crowd.AuditFloor
	case crowd.PlanSample:
		r.plan.Verifiers, r.plan.Checks = 3, raidItems/2
	}
	r.plan.Replacements = r.plan.DefaultReplacements()
	if r.Plan == crowd.PlanSample {
		r.plan.Undetected = uint64(verify.SampleUndetected(raidItems, &r.plan))
	}
	return r, nil
}

// Play plays one more world.
func (r *Raid) Play() {
	r.worlds++
	r.begin(max(1, min(raidJobs, (r.Jobs+2)/3)/len(r.attacks)))
	before := r.weigh()
	for i, a := range r.attacks {
		a.begin(r, r.w.Consumer(raidStrangers+i))
	}
	w := r.w
	over := func() bool { return r.lanes == 0 && (len(w.Jobs) == 0 || w.AllEnded()) }
	w.Run(sim.Epoch.Add(raidLasts), over)
	if !over() {
		w.broken(fmt.Errorf("the raid did not end in %v", raidLasts))
	}
	if r.has(diskFiller.Name) { // what is released soon is not kept
		w.Run(w.Now().Add(time.Duration(w.Config.Params.DeliveryWindow)*time.Millisecond+time.Minute), nil)
	}
	if err := ledger.CheckInvariants(w.state); err != nil {
		w.broken(err)
	}
	r.count(before)
	r.Done += max(1, len(w.Jobs)) // a world in which nobody could post counts too
	if err := w.Check(); err != nil {
		r.broken = append(r.broken, fmt.Errorf("%v against plan %s, seed %d, world %d: %w", r.Attacks, r.Plan, r.Seed, r.worlds, err))
	}
}

// Over reports whether enough jobs were played, in enough worlds to say how sure a mean of them is.
func (r *Raid) Over() bool { return r.Done >= r.Jobs && r.worlds >= 3 }

// Err is what did not hold in any world that must hold, whatever the attacker does; nil: all did.
func (r *Raid) Err() error { return errors.Join(r.broken...) }

// raidStrangers is how many honest owners there are in a world.
const raidStrangers = 5

// raidItems is how many items a batch has.
const raidItems = 20

// begin makes the next world.
func (r *Raid) begin(each int) {
	p := ledger.MainParams()
	if r.has(burstPoster.Name) { // in a small network everybody must claim
		p.CommitteeUnits = 100_000
	}
	crew := r.crewSize()
	r.units += each * len(r.attacks)
	r.each, r.ours, r.hidden, r.aloof = each, map[crowd.NodeID]bool{}, map[crowd.CID]bool{}, map[crowd.NodeID]bool{}
	r.tends, r.targets, r.read = map[crowd.JobID]func(*ledger.Job){}, map[crowd.JobID]bool{}, map[crowd.JobID]crowd.Credits{}
	r.crew, r.strangers, r.lies, r.lanes, r.specs = nil, nil, nil, 0, 0
	r.idle, r.quits = false, nil
	r.w = New(Config{
		Seed: r.Seed<<20 + uint64(r.worlds), Providers: r.Providers, Consumers: raidStrangers + len(r.attacks),
		Params: p, Block: 150 * time.Millisecond, Veterans: true, Audit: 1 << 20,
		Lines: lineRate, Host: func(int) Host { return Host{Line: lineRate} },
		Program: raidProgram, Bytes: raidBytes, After: r.after,
	})
	w := r.w
	for i := range crew {
		n := w.Provider(i * r.Providers / crew)
		n.adv = &mate{r: r, quit: map[crowd.JobID]bool{}, decided: map[crowd.JobID]bool{}}
		r.crew, r.ours[n.ID] = append(r.crew, n), true
	}
	for i := range r.attacks {
		author := w.Consumer(raidStrangers + i)
		author.adv = &boss{r: r}
		r.ours[author.ID] = true
	}
	for i := range raidStrangers {
		r.strangers = append(r.strangers, w.Consumer(i))
	}
}

// crewSize is how many providers are the attacker's.
func (r *Raid) crewSize() int { return max(1, int(math.Round(r.Byzantine*float64(r.Providers)))) }

func (r *Raid) has(name string) bool { return slices.Contains(r.Attacks, name) }

// spec is a new job, of a program of that kind.
func (r *Raid) spec(kind crowd.CID, gas crowd.Gas) crowd.JobSpec {
	r.specs++
	s := crowd.JobSpec{
		Task: crowd.Task{
			Program: kind, Inputs: crowd.CID(fmt.Sprintf("inputs-%d", r.specs)), Args: []string{fmt.Sprint(r.worlds, r.specs)},
			Limits: crowd.Limits{Gas: gas, Memory: 64 << 20, Output: 1 << 20},
		},
		Plan: r.plan, Filters: crowd.Filters{MaxPrice: crowd.ReferencePrice}, Budget: 1_000_000 * crowd.Credit,
	}
	if r.Plan == crowd.PlanSample {
		s.Items, s.Task.Stdin = raidItems, "items-"+s.Task.Inputs
		s.Task.Limits.Gas, s.Task.Limits.Output = max(1, gas/raidItems), 1<<10
	}
	r.pay = max(r.pay, float64(r.w.Config.Params.Pay(s.Filters.MaxPrice, s.Limits().Gas))/float64(crowd.Credit))
	s.Task.Limits.Wall = max(leastWall, crowd.LeastWall(s.Limits()))
	return s
}

// raidGas is the limit of a usual job.
const raidGas = 2e9

// usual is a job as a stranger has it.
func (r *Raid) usual() crowd.JobSpec { return r.spec("program", raidGas) }

// post posts a job. tend, if it is not nil, sees it whenever it has come to another state.
func (r *Raid) post(owner *Node, spec crowd.JobSpec, tend func(j *ledger.Job), then func(ok bool)) {
	r.w.PostSpec(owner, spec, func(id crowd.JobID, err error) {
		if err == nil && tend != nil {
			r.tends[id] = tend
			if j, ok := r.w.state.Job(id); ok {
				tend(&j)
			}
		}
		then(err == nil)
	})
}

// raidTries bounds how often a post that was refused is tried again.
const raidTries = 30

// lane lets owner post jobs one after the other, each when the last one has ended.
func (r *Raid) lane(owner *Node, jobs int, spec func() crowd.JobSpec, tend func(j *ledger.Job)) {
	if jobs == 0 {
		return
	}
	r.lanes++
	var next func(left, tries int)
	next = func(left, tries int) {
		if left == 0 || tries == 0 {
			r.lanes--
			return
		}
		r.post(owner, spec(), func(j *ledger.Job) {
			if tend != nil {
				tend(j)
			}
			if j.State.Ended() {
				delete(r.tends, j.ID)
				r.w.After(time.Second, func() { next(left-1, raidTries) })
			}
		}, func(ok bool) {
			if !ok {
				r.w.After(20*time.Second, func() { next(left, tries-1) })
			}
		})
	}
	next(jobs, raidTries)
}

// spread shares jobs out among the owners.
func (r *Raid) spread(owners []*Node, jobs int, spec func() crowd.JobSpec, tend func(j *ledger.Job)) {
	for i, o := range owners {
		r.lane(o, jobs/len(owners)+min(1, max(0, jobs%len(owners)-i)), spec, tend)
	}
}

// after sees each block.
func (r *Raid) after(w *World, a *ledger.Applied) {
	for _, e := range a.Events {
		if e, ok := e.(ledger.JobMoved); ok && r.tends[e.Job] != nil {
			if j, ok := w.state.Job(e.Job); ok {
				r.tends[e.Job](&j)
			}
		}
	}
}

// every calls f each d as long as the raid lasts.
func (r *Raid) every(d time.Duration, f func()) {
	w := r.w
	w.After(d, func() {
		if r.w == w && r.lanes > 0 {
			f()
			r.every(d, f)
		}
	})
}

// seats reports whether the crew has every place of j that still counts.
func (r *Raid) seats(j *ledger.Job) bool {
	n := 0
	for i := range j.Places {
		switch p := &j.Places[i]; {
		case p.State == ledger.Dropped:
		case !r.ours[p.Node]:
			return false
		default:
			n++
		}
	}
	return n > 0
}

// mayAudit reports whether the crew has all that could be drawn to look at an audit's executor; of another plan it is true.
func (r *Raid) mayAudit(j *ledger.Job) bool {
	return j.Spec.Plan.Method != crowd.PlanAudit || !slices.ContainsFunc(j.Drawn, func(d ledger.Drawn) bool { return !r.ours[d.Node] })
}

// mate is one of the attacker's providers. All of them know each other and all that is on chain, and are as fast as they like.
type mate struct {
	plain
	r       *Raid
	quit    map[crowd.JobID]bool // the places that it gives up without having tried
	decided map[crowd.JobID]bool // whether it lies: once it has begun it stands by that
}

func (m *mate) lies(w *World, n *Node, id crowd.JobID) bool {
	if lies, ok := m.decided[id]; ok {
		return lies
	}
	j := w.jobs[id].Last
	m.decided[id] = slices.ContainsFunc(m.r.lies, func(f func(*Node, *ledger.Job) bool) bool { return f(n, &j) })
	return m.decided[id]
}

// Bend implements Adversary.
func (m *mate) Bend(w *World, n *Node, id crowd.JobID, _ job.Role, e job.Effect) []job.Effect {
	j := &w.jobs[id].Last
	if s, ok := e.(job.Send); ok {
		if _, claim := s.Message.(*ledger.Claim); claim && m.r.aloof[j.Owner] {
			return nil
		}
	}
	switch e.(type) {
	case job.Fetch, job.Run:
		if m.r.idle && !m.r.ours[j.Owner] {
			return nil
		}
		if m.r.quits == nil || !m.r.quits(j) {
			break
		}
		if !m.quit[id] {
			m.quit[id] = true
			w.After(seconds(uint64(j.Spec.Limits().Gas), uint64(crowd.FullSpeed)), func() {
				n.Send(&ledger.GiveUp{Job: id, Reason: ledger.TooSlow}, nil)
			})
		}
		return nil
	}
	return []job.Effect{e}
}

// Serves implements Adversary.
func (m *mate) Serves(_ *World, _ *Node, c crowd.CID, to *Node) bool {
	return m.r.ours[to.ID] || !m.r.hidden[c]
}

// Spares implements sparer.
func (m *mate) Spares(w *World, n *Node, id crowd.JobID) bool { return m.lies(w, n, id) }

// Result implements Adversary.
func (m *mate) Result(w *World, n *Node, id crowd.JobID, honest crowd.Outcome) crowd.Outcome {
	if m.lies(w, n, id) {
		honest.Gas = w.jobs[id].Spec.Limits().Gas
		taste := "crew"
		if w.jobs[id].Spec.Task.Program == "big" {
			taste = bigTaste
		}
		return wrong(n, id, honest, taste)
	}
	return honest
}

// Leaves implements Adversary.
func (m *mate) Leaves(w *World, n *Node, id crowd.JobID, only []uint32, honest []batch.Leaf) []batch.Leaf {
	if !m.lies(w, n, id) {
		return honest
	}
	for k := range honest {
		i := uint32(k)
		if only != nil {
			i = only[k]
		}
		if i < raidItems/10 { // the very share that the plan's probability is about
			honest[k] = lie(honest[k], "crew")
		}
	}
	return honest
}

// boss is an owner of the attacker's.
type boss struct {
	plain
	r *Raid
}

// Serves implements Adversary.
func (b *boss) Serves(_ *World, _ *Node, c crowd.CID, to *Node) bool {
	return b.r.ours[to.ID] || !b.r.hidden[c]
}

// Reads implements reader.
func (b *boss) Reads(_ *World, _ *Node, id crowd.JobID, worth crowd.Credits) {
	r := b.r
	r.read[id] = max(r.read[id], worth)
	if j, ok := r.w.state.Job(id); ok && r.tends[id] != nil {
		r.tends[id](&j)
	}
}
