// Package runner drives package job on real parts: it keeps the journals, and
// carries out what the machines want on a chain, a block store and an executor
// that it is given. What is to be done and when is package job's affair; how a
// transaction, a block or a log line travels is its givers'.
package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Record is what the chain says of a job, proven against a verified header.
type Record struct {
	Job    *ledger.Job // nil: there is none
	Height crowd.Height
	Time   crowd.Time // of the block at Height
}

// Update is what one block changed in jobs, or several blocks.
type Update struct {
	Height crowd.Height
	Time   crowd.Time
	Jobs   []ledger.Job  // changed; the newest record of each
	Gone   []crowd.JobID // no longer in the state
	Lost   bool          // something is missing
}

// Chain is what a runner needs of the chain. All that it gives is proven.
type Chain interface {
	// Send signs m for the node and returns the height of the block that applied it. The error is a
	// *ledger.Refusal only if a block refused it, or would for sure; any other says that this is not known.
	Send(ctx context.Context, m ledger.Message) (crowd.Height, error)
	// Job is the newest record of a job.
	Job(ctx context.Context, id crowd.JobID) (Record, error)
	// OpenJobs are the jobs that have not ended, and any others that the node wants to look at.
	OpenJobs(ctx context.Context) ([]crowd.JobID, error)
	// Provider is the node's own provider record; nil: it is none.
	Provider(ctx context.Context) (*ledger.Provider, error)
	// Watch is every update from now on, until ctx ends or the chain does.
	Watch(ctx context.Context) <-chan Update
}

// Blocks is the node's content: its own store, and its peers'.
type Blocks interface {
	// Fetch gets all below c into the own store, at most max bytes. progress must not block.
	Fetch(ctx context.Context, c crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error
	// FetchAll is Fetch of many files; max is for all together.
	FetchAll(ctx context.Context, cs []crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error
	// FetchFolder brings what List of the folder c needs, and nothing that is in it.
	FetchFolder(ctx context.Context, c crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error
	// List is what the folder c holds itself, sorted by name.
	List(ctx context.Context, c crowd.CID) ([]Entry, error)
	// Stat is what the roots in the tree of c claim: ErrUnusable or the like where they are no file or folder.
	Stat(ctx context.Context, c crowd.CID) (Info, error)
	// Read is the file c, of at most max bytes.
	Read(ctx context.Context, c crowd.CID, max uint64) ([]byte, error)
	// Export writes c to path, at most max bytes; nothing may be there yet.
	Export(ctx context.Context, c crowd.CID, path string, max uint64) error
	// AddDir stores a folder; the CID is a function of its content alone.
	AddDir(ctx context.Context, dir string) (crowd.CID, error)
	// AddFile stores a file; it has the CID that it has in a folder.
	AddFile(ctx context.Context, path string) (crowd.CID, error)
	// Pin keeps c for a reason until Unpin with the same one. Both may come twice.
	Pin(c crowd.CID, by string) error
	Unpin(c crowd.CID, by string) error
}

// Entry is a name in a folder.
type Entry struct {
	Name string
	CID  crowd.CID
	Raw  bool   // a file whose bytes are those of its one block
	Size uint64 // bytes of all its blocks, as the folder claims
}

// Info is what content claims to be.
type Info struct {
	Size    uint64 // bytes in all its files
	Dir     bool
	Entries int // files and folders below a folder, at any depth
}

// Logs brings what a running program says to the owner of its job.
type Logs interface {
	// Publish must not block: what cannot be sent is lost.
	Publish(id crowd.JobID, owner crowd.NodeID, c Chunk)
}

// Config of a runner.
type Config struct {
	Dir         string // journals and scratch space; one runner at a time
	Key         *identity.Key
	Rand        io.Reader // crypto/rand.Reader but in tests
	Params      ledger.Params
	Authorities []ledger.Authority
	Chain       Chain
	Blocks      Blocks
	Executor    executor.Executor                       // nil: the node runs nothing
	Logs        Logs                                    // nil: nobody listens
	Report      func(crowd.JobID, job.Role, job.Report) // what the machines tell; called by Run's goroutine; nil: nobody listens
	Roles       []job.Role                              // that the node takes; nil: all for which it has the means
	Accept      func(s *crowd.JobSpec) error            // says why this node wants no part in executing a job; nil: it takes all
	Undelivered func(j *ledger.Job) bool                // j, settled, is the node's own and its result is not here: killed before its first journal; nil: never
	Unusable    func(error) bool                        // an error of Blocks that says something about the content, on every machine alike; nil: one that wraps job.ErrUnusable
	Full        func(error) bool                        // an error of Blocks or the disk that says that this machine has no room left; nil: never
	Runs        int                                     // at once; 0: one for each CPU
	Fetches     int                                     // at once, and as many for the court; 0: 16
	Memory      uint64                                  // bytes that all runs together may use; what needs more than three quarters of it is not run; 0: no bound
	Log         *slog.Logger                            // nil: silence
}

func (c Config) withDefaults() Config {
	if c.Runs == 0 {
		c.Runs = runtime.NumCPU()
	}
	if c.Fetches == 0 {
		c.Fetches = 16
	}
	if c.Memory == 0 || c.Memory > 1<<62 {
		c.Memory = 1 << 62
	}
	if c.Unusable == nil {
		c.Unusable = func(err error) bool { return errors.Is(err, job.ErrUnusable) }
	}
	if c.Full == nil {
		c.Full = func(error) bool { return false }
	}
	if c.Undelivered == nil {
		c.Undelivered = func(*ledger.Job) bool { return false }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Roles == nil {
		c.Roles = []job.Role{job.AsConsumer}
		if c.Executor != nil {
			c.Roles = append(c.Roles, job.AsExecutor)
		}
		if c.Key != nil && slices.ContainsFunc(c.Authorities, func(a ledger.Authority) bool { return a.ID == c.Key.ID() }) {
			c.Roles = append(c.Roles, job.AsAuthority)
		}
	}
	return c
}

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("runner: no %s given", what))
		}
	}
	need(c.Dir != "", "folder")
	need(c.Key != nil, "key")
	need(c.Rand != nil, "source of randomness")
	need(c.Chain != nil, "chain")
	need(c.Blocks != nil, "block store")
	need(len(c.Authorities) > 0, "authorities")
	need(c.Executor != nil || !slices.Contains(c.Roles, job.AsExecutor), "executor for the role")
	if c.Runs < 0 || c.Fetches < 0 {
		errs = append(errs, errors.New("runner: less than no runs or fetches at once"))
	}
	return errors.Join(append(errs, c.Params.Validate())...)
}

// slot is one role in one job.
type slot struct {
	id   crowd.JobID
	role job.Role
}

func (s slot) String() string { return fmt.Sprintf("%s-%s", s.id, s.role) }

// active is a machine at work.
type active struct {
	job.Machine
	timer *time.Timer
	stop  context.CancelFunc // of the fetch or run in flight; nil: none
	last  *ledger.Job        // newest record shown
}

// Runner plays the node's part in all its jobs.
type Runner struct {
	// set once
	cfg          Config
	self         crowd.NodeID
	runs         *semaphore.Weighted
	samples      *semaphore.Weighted // a verifier's, beside them
	memory       *semaphore.Weighted // bytes
	spare        *semaphore.Weighted // bytes, for what is short
	fetches      *semaphore.Weighted // of owners and executors
	courtFetches *semaphore.Weighted
	inbox        chan func(context.Context) // no capacity: who has an event waits for its turn
	over         chan struct{}              // closed when Run returns
	journals     journalFile                // Run's goroutine only

	// Run's goroutine only
	machines map[slot]*active
	toldFull time.Time            // that no job is taken part in
	looking  map[crowd.JobID]bool // a look-up is on its way; true: and another is wanted after it
	tasks    sync.WaitGroup       // goroutines that an effect began

	own ownProvider

	lost  chan struct{}       // capacity 1: something was missed; one that asks for a survey is enough
	looks *semaphore.Weighted // look-ups at a time
}

// New checks the configuration and starts nothing.
func New(c Config) (*Runner, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	return &Runner{
		cfg: c, self: c.Key.ID(),
		inbox: make(chan func(context.Context)), over: make(chan struct{}), machines: map[slot]*active{},
		looking: map[crowd.JobID]bool{}, lost: make(chan struct{}, 1), looks: semaphore.NewWeighted(maxLooks),
		runs:    semaphore.NewWeighted(int64(c.Runs)),
		samples: semaphore.NewWeighted(1),
		memory:  semaphore.NewWeighted(int64(c.Memory - c.forSamples())),
		spare:   semaphore.NewWeighted(int64(c.forSamples())),
		fetches: semaphore.NewWeighted(int64(c.Fetches)), courtFetches: semaphore.NewWeighted(int64(c.Fetches)),
	}, nil
}

// Run resumes what the journals hold, takes part in what is open, and goes on
// until outer ends, which is no error. It is called once.
func (r *Runner) Run(outer context.Context) error {
	ctx, cancel := context.WithCancel(outer)
	defer func() {
		cancel()
		close(r.over)
		for _, a := range r.machines {
			a.timer.Stop()
		}
		r.tasks.Wait()
		r.journals.close()
	}()
	journals, err := r.openDir()
	if err != nil {
		return err
	}
	updates := r.cfg.Chain.Watch(ctx)
	for _, j := range journals {
		r.resume(ctx, j)
	}
	r.begin(func() { r.catchUp(ctx) })
	r.missed()
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-r.inbox:
			f(ctx)
		case u, ok := <-updates:
			if !ok {
				if outer.Err() != nil { // the chain may have seen that it ended before ctx did
					return nil
				}
				return errors.New("the chain has no more news")
			}
			r.update(ctx, u)
		}
	}
}

// post gives f to Run's goroutine; after the end it is dropped.
func (r *Runner) post(f func(context.Context)) {
	select {
	case r.inbox <- f:
	case <-r.over:
	}
}

// begin does f beside the loop.
func (r *Runner) begin(f func()) { r.tasks.Go(f) }

// Bounds of catching up.
const (
	maxLooks  = 8                      // look-ups at a time: so many answers do not keep a stream from its other work
	catchUpIn = 200 * time.Millisecond // at most, before it begins: what is pushed after a loss needs no look-up, and not all nodes begin at once
	maxAgain  = time.Minute            // between two tries that fail
)

// missed asks for a survey. One that is asked for while another waits is the same one.
func (r *Runner) missed() {
	select {
	case r.lost <- struct{}{}:
	default:
	}
}

// catchUp makes a survey whenever something was missed: one at a time, and again until it is done.
func (r *Runner) catchUp(ctx context.Context) {
	for {
		select {
		case <-r.lost:
		case <-ctx.Done():
			return
		}
		for wait := catchUpIn; ; wait = min(2*wait, maxAgain) {
			select {
			case <-time.After(rand.N(wait)):
			case <-ctx.Done():
				return
			}
			err := r.survey(ctx)
			if err == nil {
				break
			}
			if ctx.Err() == nil {
				r.cfg.Log.Warn("list open jobs", "err", err)
			}
		}
	}
}

// survey looks up the jobs that the node has a part in, and then those that it may have one in.
func (r *Runner) survey(ctx context.Context) error {
	have := make(chan []crowd.JobID, 1)
	r.post(func(context.Context) {
		var ids []crowd.JobID
		for s := range r.machines {
			ids = append(ids, s.id)
		}
		have <- ids
	})
	var first []crowd.JobID
	select {
	case first = <-have:
	case <-r.over:
		return nil
	}
	then, err := r.cfg.Chain.OpenJobs(ctx)
	if err != nil {
		return err
	}
	seen := make(map[crowd.JobID]bool, len(first)+len(then))
	for _, id := range slices.Concat(first, then) {
		if !seen[id] {
			seen[id] = true
			r.post(func(ctx context.Context) { r.look(ctx, id) })
		}
	}
	return nil
}

// again is how long something that went wrong outside the machines waits.
const again = 5 * time.Second

// retry does f on Run's goroutine after a while.
func (r *Runner) retry(ctx context.Context, f func(context.Context)) {
	select {
	case <-time.After(again):
		r.post(f)
	case <-ctx.Done():
	}
}

// look brings the newest record of a job. While one look-up of a job is on its way, all that ask for more are answered by one after it.
func (r *Runner) look(ctx context.Context, id crowd.JobID) {
	if _, flying := r.looking[id]; flying {
		r.looking[id] = true
		return
	}
	r.looking[id] = false
	r.begin(func() {
		if r.looks.Acquire(ctx, 1) == nil {
			r.lookUp(ctx, id)
			r.looks.Release(1)
		}
		r.post(func(ctx context.Context) {
			more := r.looking[id]
			if delete(r.looking, id); more {
				r.look(ctx, id)
			}
		})
	})
}

// lookUp brings the newest record of a job. Not for Run's goroutine.
func (r *Runner) lookUp(ctx context.Context, id crowd.JobID) {
	rec, err := r.cfg.Chain.Job(ctx, id)
	if err != nil {
		if ctx.Err() == nil {
			r.cfg.Log.Warn("look up a job", "job", id, "err", err)
		}
		return // a machine that needs it asks again
	}
	r.inform(ctx, id, rec)
}

// inform hands a record to the loop. Not for Run's goroutine.
func (r *Runner) inform(ctx context.Context, id crowd.JobID, rec Record) {
	if rec.Job == nil {
		r.post(func(ctx context.Context) { r.news(ctx, id, job.Gone{Height: rec.Height}, nil) })
		return
	}
	ch := job.Chain{Job: *rec.Job, Height: rec.Height, Time: rec.Time}
	if rec.Job.State == ledger.Claiming && slices.Contains(r.cfg.Roles, job.AsExecutor) {
		var err error
		if ch.Self, err = r.own.provider(ctx, r.cfg.Chain); err != nil {
			r.cfg.Log.Warn("read the own provider record", "err", err)
		}
	}
	r.post(func(ctx context.Context) { r.news(ctx, id, ch, rec.Job) })
}

// ownFresh is how old the node's own provider record may be where a claim is considered: the ledger decides by the true one.
const ownFresh = 2 * time.Second

// ownProvider remembers the node's own provider record, since a hundred jobs may open their claims at a time.
type ownProvider struct {
	mu  sync.Mutex
	at  time.Time        // guarded by mu
	rec *ledger.Provider // guarded by mu; nobody changes what it points to
}

// provider reads the record, at most once in ownFresh. That there is none it does not remember.
func (o *ownProvider) provider(ctx context.Context, c Chain) (*ledger.Provider, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rec != nil && time.Since(o.at) < ownFresh {
		return o.rec, nil
	}
	at := time.Now()
	p, err := c.Provider(ctx)
	if err == nil {
		o.rec, o.at = p, at
	}
	return p, err
}

func (r *Runner) update(ctx context.Context, u Update) {
	for _, j := range u.Jobs {
		rec := Record{Job: &j, Height: u.Height, Time: u.Time}
		if j.State == ledger.Claiming {
			r.begin(func() { r.inform(ctx, j.ID, rec) })
		} else {
			r.news(ctx, j.ID, job.Chain{Job: j, Height: u.Height, Time: u.Time}, &j)
		}
	}
	for _, id := range u.Gone {
		r.news(ctx, id, job.Gone{Height: u.Height}, nil)
	}
	if u.Lost {
		r.missed()
	}
}

// news of a job reach every role that has a part in it. j is nil when the job is gone.
func (r *Runner) news(ctx context.Context, id crowd.JobID, ev job.Event, j *ledger.Job) {
	for _, role := range r.cfg.Roles {
		s := slot{id, role}
		a := r.machines[s]
		if a == nil && j != nil && r.wanted(role, j) && r.accepts(role, j) {
			a = r.start(s, nil)
		}
		if a != nil {
			if j != nil {
				a.last = j
			}
			r.step(ctx, s, a, ev)
		}
	}
}

func (r *Runner) wanted(role job.Role, j *ledger.Job) bool {
	return job.Wanted(role, r.self, j) || role == job.AsConsumer && r.cfg.Undelivered(j)
}

func (r *Runner) accepts(role job.Role, j *ledger.Job) bool {
	if role != job.AsExecutor || r.cfg.Accept == nil || j.Place(r.self) != nil {
		return true
	}
	err := r.cfg.Accept(&j.Spec)
	switch {
	case err == nil:
	case r.cfg.Full(err) && time.Since(r.toldFull) >= time.Minute:
		r.toldFull = time.Now()
		r.cfg.Log.Warn("no part in any job while the disk is full", "err", err)
	default:
		r.cfg.Log.Debug("no part in a job", "job", j.ID, "why", err)
	}
	return err == nil
}

// start makes a machine; nil when its journal is damaged.
func (r *Runner) start(s slot, journal []byte) *active {
	m, err := job.New(job.Config{
		Key: r.cfg.Key, Rand: r.cfg.Rand, Params: r.cfg.Params, Authorities: r.cfg.Authorities,
	}, s.id, s.role, journal)
	if err != nil {
		r.cfg.Log.Error("resume a job", "job", s.id, "role", s.role, "err", err)
		return nil
	}
	a := &active{Machine: m}
	a.timer = time.AfterFunc(time.Hour, func() { r.tell(s, a, job.Woke{}) })
	a.timer.Stop()
	r.machines[s] = a
	return a
}

// resume makes a machine from its journal and lets it look around.
func (r *Runner) resume(ctx context.Context, s savedJournal) {
	if !slices.Contains(r.cfg.Roles, s.slot.role) || r.machines[s.slot] != nil {
		return
	}
	if a := r.start(s.slot, s.journal); a != nil {
		r.step(ctx, s.slot, a, job.Woke{})
	}
}

// tell is for all goroutines but Run's.
func (r *Runner) tell(s slot, a *active, ev job.Event) {
	r.post(func(ctx context.Context) {
		if r.machines[s] == a {
			r.step(ctx, s, a, ev)
		}
	})
}

// step tells a machine and carries out what it wants, in order. Where something
// that must hold before the next effect does not, the machine is treated as if
// the node had been killed there: it begins again from its journal.
func (r *Runner) step(ctx context.Context, s slot, a *active, ev job.Event) {
	for _, e := range a.Step(time.Now(), ev) {
		if ctx.Err() != nil {
			return
		}
		if err := r.do(ctx, s, a, e); err != nil {
			r.cfg.Log.Error("drop a job's machine for a while", "job", s.id, "role", s.role, "err", err)
			r.drop(s, a)
			r.forsake(ctx, s, err)
			r.begin(func() { r.retry(ctx, func(ctx context.Context) { r.reload(ctx, s) }) })
			return
		}
	}
	if r.machines[s] != a {
		return
	}
	if d := a.Deadline(); d.IsZero() {
		a.timer.Stop()
	} else {
		a.timer.Reset(max(time.Until(d), 0))
	}
}

// forsake leaves an executor's place to an alternate when no journal can be kept, so that its machine cannot even say so.
// A machine that has bound itself meanwhile loses the place, and no more: nothing of it is on chain while the place is Working.
func (r *Runner) forsake(ctx context.Context, s slot, err error) {
	if s.role != job.AsExecutor || !r.cfg.Full(err) {
		return
	}
	r.begin(func() {
		if r.looks.Acquire(ctx, 1) != nil {
			return
		}
		defer r.looks.Release(1)
		ctx, cancel := context.WithTimeout(ctx, sendTimeout)
		defer cancel()
		rec, err := r.cfg.Chain.Job(ctx, s.id)
		if err != nil || rec.Job == nil || rec.Job.State != ledger.Running {
			return
		}
		if p := rec.Job.Place(r.self); p == nil || p.State != ledger.Working {
			return
		}
		if _, err := r.cfg.Chain.Send(ctx, job.GiveUp(s.id, ledger.CannotRun, true)); err != nil {
			r.cfg.Log.Warn("give a place up", "job", s.id, "err", err)
		}
	})
}

// drop forgets a machine and aborts its work.
func (r *Runner) drop(s slot, a *active) {
	a.timer.Stop()
	if a.stop != nil {
		a.stop()
	}
	delete(r.machines, s)
}

// reload resumes a dropped machine.
func (r *Runner) reload(ctx context.Context, s slot) {
	journal, err := r.journals.read(s)
	if err != nil {
		r.cfg.Log.Error("read a journal", "job", s.id, "role", s.role, "err", err)
		r.forsake(ctx, s, err)
		r.begin(func() { r.retry(ctx, func(ctx context.Context) { r.reload(ctx, s) }) })
		return
	}
	if journal != nil {
		r.resume(ctx, savedJournal{s, journal})
	}
	r.begin(func() { r.lookUp(ctx, s.id) })
}

// Cancel passes on the user's wish to end its job. An error says that there is
// nothing to cancel here; whether it came in time, the job's events tell.
func (r *Runner) Cancel(ctx context.Context, id crowd.JobID) error {
	answer := make(chan error, 1)
	f := func(ctx context.Context) {
		s := slot{id, job.AsConsumer}
		a := r.machines[s]
		if a == nil {
			answer <- fmt.Errorf("cancel job %s: it is not an open job of this node", id.Short())
			return
		}
		r.step(ctx, s, a, job.UserCancel{})
		answer <- nil
	}
	select {
	case r.inbox <- f:
		return <-answer
	case <-r.over:
		return fmt.Errorf("cancel job %s: the node is stopping", id.Short())
	case <-ctx.Done():
		return fmt.Errorf("cancel job %s: %w", id.Short(), ctx.Err())
	}
}
