// Package volatile plays a map-reduce on providers that come and go: package flow's machine as the owner's, whole nodes
// and a real ledger from package scenario, a clock that only events move. What a program computes and which bytes are in
// a part it does not know, and it has no adversaries.
package volatile

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/sim"
	"github.com/crowdcompute/crowd/internal/sim/scenario"
)

// Config is a map-reduce and the world that it is played in. The zero value of each number but Away has a default.
type Config struct {
	Way       string  `json:"way"`       // of Ways; "adaptive"
	Away      float64 `json:"away"`      // share of the time that each provider is away, as sim.Outages has it
	Providers int     `json:"providers"` // 60
	Maps      int     `json:"maps"`      // shards of the map stage; 120
	Reduces   int     `json:"reduces"`   // of the reduce stage; 40
	Parallel  int     `json:"parallel"`  // jobs at the same time; what is best for the way with 60 providers
	Seed      uint64  `json:"seed"`      // 1
	Audit     int     `json:"audit"`     // blocks from one look at the ledger's invariants to the next; 1

	Trace *sim.Trace `json:"-"` // gets a copy of all lines; nil: none
}

// Way is how the owner has the shards computed.
type Way struct {
	Name string `json:"name"`
	What string `json:"what"`

	parallel int
	copies   int
	fixed    bool // nothing is taken back, nobody is asked whether it is there
}

// Ways are all that are known, the product's first.
func Ways() []Way {
	return []Way{
		{Name: "adaptive", What: "one job of each shard; another where it is slow or its nodes are away; the second is taken back", parallel: 60, copies: 1},
		{Name: "fixed", What: "three jobs of each shard from the beginning, all of which run; the first result is used", parallel: flow.MaxParallel, copies: 3, fixed: true},
		{Name: "race", What: "three jobs of each shard from the beginning, and what is under way is taken back once one has settled", parallel: 90, copies: 3},
	}
}

func named(name string) (Way, bool) {
	for _, w := range Ways() {
		if w.Name == name {
			return w, true
		}
	}
	return Way{}, false
}

// WithDefaults is c with its zeros filled in.
func (c Config) WithDefaults() Config {
	number := func(n *int, d int) {
		if *n == 0 {
			*n = d
		}
	}
	if c.Way == "" {
		c.Way = "adaptive"
	}
	w, _ := named(c.Way)
	number(&c.Providers, 60)
	number(&c.Maps, 120)
	number(&c.Reduces, 40)
	number(&c.Parallel, w.parallel)
	number(&c.Audit, 1)
	if c.Seed == 0 {
		c.Seed = 1
	}
	return c
}

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	c = c.WithDefaults()
	errs := []error{sim.Outages{Share: c.Away}.Validate(), c.flow().Validate()}
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	_, ok := named(c.Way)
	bad(!ok, "there is no way called %q", c.Way)
	bad(c.Providers < 2*(1+mapVerifiers) || c.Providers > crowd.MaxFilter, "%d providers, want %d to %d: a copy's job names those that may be drawn", c.Providers, 2*(1+mapVerifiers), crowd.MaxFilter)
	bad(c.Maps < 1 || c.Maps > 1000 || c.Reduces < 1 || c.Reduces > crowd.MaxParts/reduceItems, "%d map and %d reduce shards, want 1 to 1000 and 1 to %d", c.Maps, c.Reduces, crowd.MaxParts/reduceItems)
	bad(c.Audit < 1, "a look at the invariants every %d blocks, want 1 or more", c.Audit)
	return errors.Join(errs...)
}

// flow is the machine's configuration: crowd map's but for the number of jobs at the same time, and for copies as
// soon as nothing else waits and a shard has taken half as long again as its siblings.
func (c *Config) flow() flow.Config {
	w, _ := named(c.Way)
	return flow.Config{Parallel: c.Parallel, Copies: w.copies, Patience: 24 * time.Hour}
}

// Providers run two things at a time, each with 1 to 4 giga-gas in a second (log-uniform), on a line of 100 Mbit/s each way.
const (
	slots   = 2
	slowest = crowd.Gas(1e9)
	line    = 100_000_000 / 8
)

func (c *Config) host(i int) scenario.Host {
	src := sim.Source(c.Seed, uint32(i))
	r := rand.New(&src)
	return scenario.Host{Speed: crowd.Gas(float64(slowest) * math.Pow(4, r.Float64())), Runs: slots, Line: line}
}

// Play is one Config being played.
type Play struct {
	// set once
	Config
	way   Way
	w     *scenario.World
	owner *scenario.Node
	specs []crowd.JobSpec // of the stages
	m     *flow.Machine

	followed map[crowd.JobID]*followed
	order    []crowd.JobID        // of followed, as they came
	listed   map[crowd.JobID]bool // whose folder the owner has read
	wake     time.Time
	ended    string // why; "": not yet
	res      Result
}

// followed is a job whose end the machine waits for.
type followed struct {
	ref    flow.Ref
	heard  time.Time // when all answered on whom it waits
	silent bool
}

// New is a play before its first moment.
func New(c Config) (*Play, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	p := &Play{Config: c, followed: map[crowd.JobID]*followed{}, listed: map[crowd.JobID]bool{}}
	p.way, _ = named(c.Way)
	p.specs = []crowd.JobSpec{
		spec("map", mapItems, mapVerifiers, mapGas, crowd.Shuffle{Parts: uint32(c.Reduces) * reduceItems}),
		spec("reduce", reduceItems, reduceVerifiers, reduceGas, crowd.Shuffle{Gather: true}),
	}
	params := ledger.MainParams()
	params.Reputation.Dues = 0 // all are veterans: else who is first to have paid its dues gets most of the work
	p.w = scenario.New(scenario.Config{
		Seed: c.Seed, Providers: c.Providers, Params: params, Stake: 2000 * crowd.Credit,
		Block: 100 * time.Millisecond, Link: sim.Link{Latency: 10 * time.Millisecond, Jitter: 30 * time.Millisecond},
		Host: c.host, Leaf: leaf, Bytes: p.bytes, PartBytes: p.part(), Moved: p.moved,
		Audit: crowd.Height(c.Audit), After: p.block, Trace: c.Trace,
	})
	p.owner = p.w.Consumer(0)
	state, err := flow.New([]flow.Node{{Name: "map"}, {Name: "reduce", From: []string{"map"}}})
	if err != nil {
		return nil, err
	}
	if p.m, err = flow.Resume(c.flow(), state); err != nil {
		return nil, err
	}
	for i := range c.Providers {
		p.comeAndGo(p.w.Provider(i), uint32(i))
	}
	p.w.After(0, func() { p.step(flow.Began{}) })
	if !p.way.fixed {
		p.w.After(flow.PulseEvery, p.ping)
	}
	return p, nil
}

// most is how long a play may last.
const most = 24 * time.Hour

// Go plays so much more of the world's time, and reports whether there is more to play.
func (p *Play) Go(d time.Duration) bool {
	over := func() bool { return p.ended != "" }
	if !over() {
		p.w.Run(p.w.Now().Add(d), over)
	}
	return !over() && p.w.Now().Before(sim.Epoch.Add(most))
}

// Shards are how many are done, and how many there are.
func (p *Play) Shards() (done, all int) {
	for _, st := range p.m.State().Stages {
		for i := range st.Shards {
			if st.Shards[i].Done {
				done++
			}
		}
	}
	return done, p.Maps + p.Reduces
}

// History is the trace so far.
func (p *Play) History() []byte { return p.w.Trace() }
