// Package flow decides what the owner of a flow of batches posts next: stages,
// shards, copies. It opens no socket, reads no clock, starts no goroutine, and
// knows nothing of what a program computes.
//
// A Machine is a pure machine over a State, which its driver writes down after
// every Step and before it does the first of that Step's effects. A driver that
// is killed between any two of them resumes from what it wrote: what was to be
// posted is looked for before it is posted again.
package flow

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// Config is how a flow is driven. Its zero value works.
type Config struct {
	Parallel  int           // jobs at the same time, copies too; 0: 8
	Budget    crowd.Credits // most that may be paid and locked together; 0: any amount
	Patience  time.Duration // how long without any success until what may pass by itself is an end; 0: 2 min
	Open      int           // jobs of a shard at the same time, those of them that are silent included; 0: 8
	Tries     int           // jobs of a shard that fail before that is asked; 0: 4
	Pause     time.Duration // before a shard is posted again, doubled each time up to LongPause; 0: 1 s
	LongPause time.Duration // 0: 10 s

	// A copy of a shard is posted when no other shard of its stage waits to be posted, at most LastShare of them are
	// left, and it has taken Slow times the median of its siblings, and at least SlowLeast more than it.
	NoSpeculation bool
	Slow          float64       // 0: 1.5
	SlowLeast     time.Duration // 0: 5 s
	LastShare     float64       // of a stage's shards, from 0 to 1; 0: 1
	CopyShare     float64       // most that copies of slow shards may lock, of what all shards of the stage lock; 0: a fifth. One copy may always be

	Return time.Duration // how long the holders of lost sources may take to come back; 0: 30 s
	Linger time.Duration // how long the end waits for jobs that are not wanted any more and too late to cancel; 0: 10 s

	// Copies of each shard are posted from the beginning and the first is used: the replication that speculation is
	// compared with. 0 and 1: one job. With more there is no speculation.
	Copies int
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.Patience, 2*time.Minute)
	set(&c.Pause, time.Second)
	set(&c.LongPause, 10*time.Second)
	set(&c.SlowLeast, 5*time.Second)
	set(&c.Return, 30*time.Second)
	set(&c.Linger, 10*time.Second)
	if c.Parallel == 0 {
		c.Parallel = 8
	}
	if c.Open == 0 {
		c.Open = 8
	}
	if c.Tries == 0 {
		c.Tries = 4
	}
	if c.Slow == 0 {
		c.Slow = 1.5
	}
	if c.LastShare == 0 {
		c.LastShare = 1
	}
	if c.CopyShare == 0 {
		c.CopyShare = 0.2
	}
	if c.Copies == 0 {
		c.Copies = 1
	}
	return c
}

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf("flow: "+format, a...))
		}
	}
	bad(c.Parallel < 0 || c.Parallel > MaxParallel, "%d jobs at the same time, want 1 to %d", c.Parallel, MaxParallel)
	bad(c.Copies < 0 || c.Copies > MaxCopies, "%d copies, want 1 to %d", c.Copies, MaxCopies)
	bad(c.Tries < 0, "%d tries", c.Tries)
	bad(c.Slow != 0 && !(c.Slow >= 1), "slow is %v times the median, want 1 or more", c.Slow)
	bad(!(c.LastShare >= 0 && c.LastShare <= 1), "the last %v of the shards, want 0 to 1", c.LastShare)
	bad(!(c.CopyShare >= 0 && c.CopyShare <= 1), "copies for %v of the shards, want 0 to 1", c.CopyShare)
	bad(min(c.Patience, c.Pause, c.LongPause, c.SlowLeast, c.Return, c.Linger) < 0, "a time below zero")
	return errors.Join(errs...)
}

// Bounds on a flow.
const (
	MaxParallel = 256
	MaxCopies   = 8
	MaxStages   = 32
	MaxFanOut   = 8 // stages that read one
)

// Node is a stage as a user draws it: a program over files, or over what other stages wrote.
type Node struct {
	Name  string
	From  []string // stages that it reads; empty: files
	Pilot uint64   // items that go first, so that the others can be laid out by what these took; 0: none
}

// State is all that a flow must remember. It is plain data for a driver's journal; only a Machine changes it.
type State struct {
	Stages    []Stage       `json:"stages"` // each behind those that it reads
	Paid      crowd.Credits `json:"paid"`   // by all jobs that ended
	Copies    int           `json:"copies,omitempty"`
	Used      int           `json:"used,omitempty"`  // copies that came first
	Equal     int           `json:"equal,omitempty"` // second results that were as the first: checks that cost nothing more
	Lost      int           `json:"lost,omitempty"`  // jobs that failed
	Conflicts []Conflict    `json:"conflicts,omitempty"`
}

// Stage is one program over all its items.
type Stage struct {
	Name   string  `json:"name"`
	From   []int   `json:"from,omitempty"` // stages before it
	Pilot  uint64  `json:"pilot,omitempty"`
	Cut    bool    `json:"cut"`   // Items is known
	Items  uint64  `json:"items"` //
	Shards []Shard `json:"shards"`
	Base   int     `json:"base,omitempty"` // attempts of shards that were given up, so that their numbers are not used again

	// of this run
	cutting, laying, probing bool
	since                    time.Time // a shard was last done
	uncut                    int       // times that it could not be cut
	after                    time.Time // not cut before
}

// Shard is the items of one job.
type Shard struct {
	First    uint64        `json:"first"` // item
	Items    uint64        `json:"items"`
	Bound    crowd.Credits `json:"bound"`            // most that a job of it locks
	Expect   time.Duration `json:"expect,omitempty"` // that a job takes, as far as the plan knows; 0: unknown
	Attempts []Attempt     `json:"attempts,omitempty"`
	Tries    int           `json:"tries"`            // attempts ever, so that each has its own number
	Use      int           `json:"use,omitempty"`    // the attempt whose result counts; 0: none yet
	Done     bool          `json:"done,omitempty"`   // and it is here
	Failed   int           `json:"failed,omitempty"` // attempts that failed, over all runs
	After    time.Time     `json:"after,omitzero"`   // not posted before
	Gave     crowd.Hash    `json:"gave,omitzero"`    // root of the result that was done last: others may have read it

	// of this run
	recent    int       // attempts that failed since one settled
	given     bool      // up
	refusals  int       // of the post that is asked for
	refused   time.Time // first
	copyAfter time.Time // no copy before
	missing   time.Time // its parts' holders do not answer; zero: they do
}

// Attempt is one job of a shard.
type Attempt struct {
	Try     int           `json:"try"` // from 1
	State   AttemptState  `json:"state"`
	Copy    bool          `json:"copy,omitempty"`    // another of the shard was under way
	Instead bool          `json:"instead,omitempty"` // and nobody who could end it answered
	Job     crowd.JobID   `json:"job,omitzero"`      // once it is known
	Posted  time.Time     `json:"posted,omitzero"`
	Took    time.Duration `json:"took,omitempty"`  // until it settled; 0: nobody watched
	Leave   bool          `json:"leave,omitempty"` // it is not wanted any more: cancel it if that is possible
	Root    crowd.Hash    `json:"root,omitzero"`   // of a settled one
	Paid    crowd.Credits `json:"paid,omitempty"`  //
	Why     string        `json:"why,omitempty"`   // of a failed one
	Wrong   bool          `json:"wrong,omitempty"` // its root is not what two others agree on
	Lost    bool          `json:"lost,omitempty"`  // nobody holds its parts any more

	silent bool // nobody who could end it answers
	asked  bool // in this run: Post or Find is under way
}

// AttemptState is where an attempt is.
type AttemptState string

const (
	Posting   AttemptState = "posting" // to be posted, or posted and the answer is not here
	Open      AttemptState = "open"
	Settled   AttemptState = "settled"
	Failed    AttemptState = "failed"
	Cancelled AttemptState = "cancelled"
)

// Conflict is two accepted results of one shard that differ: a lie that got past every check.
type Conflict struct {
	Stage int   `json:"stage"`
	Shard int   `json:"shard"`
	Tries []int `json:"tries"`           // whose roots differ
	Wrong int   `json:"wrong,omitempty"` // the odd one out, once a third job has spoken
}

// Ref names an attempt.
type Ref struct{ Stage, Shard, Try int }

// New draws up the state of a new flow. Errors name the stage and are the user's.
func New(nodes []Node) (*State, error) {
	if len(nodes) == 0 || len(nodes) > MaxStages {
		return nil, fmt.Errorf("%d stages, want 1 to %d", len(nodes), MaxStages)
	}
	order, err := sort(nodes)
	if err != nil {
		return nil, err
	}
	s := &State{}
	at := map[string]int{}
	for _, k := range order {
		n := nodes[k]
		st := Stage{Name: n.Name, Pilot: n.Pilot}
		for _, name := range n.From {
			st.From = append(st.From, at[name])
		}
		at[n.Name] = len(s.Stages)
		s.Stages = append(s.Stages, st)
	}
	return s, nil
}

// sort gives an order in which every stage stands behind those that it reads, and else as the user wrote them.
func sort(nodes []Node) ([]int, error) {
	at, readers := map[string]int{}, map[string]int{}
	for k, n := range nodes {
		if n.Name == "" {
			return nil, fmt.Errorf("stage %d has no name", k+1)
		}
		if _, twice := at[n.Name]; twice {
			return nil, fmt.Errorf("two stages are called %s", n.Name)
		}
		at[n.Name] = k
	}
	for _, n := range nodes {
		for i, from := range n.From {
			if _, ok := at[from]; !ok {
				return nil, fmt.Errorf("stage %s reads %s, which is no stage", n.Name, from)
			}
			if slices.Contains(n.From[:i], from) {
				return nil, fmt.Errorf("stage %s reads %s twice", n.Name, from)
			}
			if readers[from]++; readers[from] > MaxFanOut {
				return nil, fmt.Errorf("more than %d stages read %s", MaxFanOut, from)
			}
		}
	}
	var order []int
	placed := make([]bool, len(nodes))
	for len(order) < len(nodes) {
		next := slices.IndexFunc(nodes, func(n Node) bool {
			return !placed[at[n.Name]] && !slices.ContainsFunc(n.From, func(f string) bool { return !placed[at[f]] })
		})
		if next < 0 {
			return nil, fmt.Errorf("the stages %s wait for each other: a flow has no circles", circle(nodes, at, placed))
		}
		placed[next] = true
		order = append(order, next)
	}
	return order, nil
}

// circle names stages that wait for each other: from any that is left, along what it reads, until one comes again.
func circle(nodes []Node, at map[string]int, placed []bool) string {
	var path []string
	for k := slices.Index(placed, false); ; {
		n := nodes[k]
		if i := slices.Index(path, n.Name); i >= 0 {
			text := n.Name
			for _, name := range slices.Backward(path[i:]) {
				text += " → " + name
			}
			return text
		}
		path = append(path, n.Name)
		k = at[n.From[slices.IndexFunc(n.From, func(f string) bool { return !placed[at[f]] })]]
	}
}

// Attempt is the attempt that r names; it must be there.
func (s *State) Attempt(r Ref) *Attempt {
	sh := &s.Stages[r.Stage].Shards[r.Shard]
	for i := range sh.Attempts {
		if sh.Attempts[i].Try == r.Try {
			return &sh.Attempts[i]
		}
	}
	panic(fmt.Sprintf("bug: no attempt %v", r))
}

// Done reports whether all items of st are in finished shards.
func (st *Stage) Done() bool {
	covered := uint64(0)
	for i := range st.Shards {
		if !st.Shards[i].Done {
			return false
		}
		covered += st.Shards[i].Items
	}
	return st.Cut && covered == st.Items
}

// covered is of how many items the shards are laid out.
func (st *Stage) covered() (n uint64) {
	for i := range st.Shards {
		n += st.Shards[i].Items
	}
	return n
}
