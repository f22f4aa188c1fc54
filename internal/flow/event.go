package flow

import (
	"time"

	"github.com/crowdcompute/crowd"
)

// Event is what a machine is told. What a driver cannot do for a reason that no decision of the machine would
// mend (a full disk, an unreadable file) is no event: the driver stops, and a later one resumes.
type Event interface{ event() }

// Began says that a driver begins, on a new state or one that was left at any moment. It is the first event of every run.
type Began struct{}

// WasCut answers Cut: so many items.
type WasCut struct {
	Stage int
	Items uint64
}

// NotCut answers Cut: the holders of what the stage reads do not answer.
type NotCut struct {
	Stage int
	Why   string
}

// Laid answers Lay. The shards follow one another from its First.
type Laid struct {
	Stage  int
	Shards []Layout
}

// Again answers Lay: what is done of the stage is worth nothing, as where its limits were too tight. All of it is laid anew.
type Again struct{ Stage int }

// Layout is a shard to be.
type Layout struct {
	Items  uint64
	Bound  crowd.Credits // most that a job of it locks
	Expect time.Duration // that a job takes; 0: unknown
}

// Posted answers Post or Find: the job is on its way and will not be forgotten.
type Posted struct {
	Ref Ref
	Job crowd.JobID
}

// Refused answers Post: there is no job.
type Refused struct {
	Ref     Ref
	Passing bool   // the reason may pass by itself: providers are away, other jobs lock the credits
	Source  bool   // the reason is that the holders of what the stage reads do not answer
	Why     string // for people
}

// Found answers Find with the jobs that could be the attempt's, whether or not other attempts are known to own them.
type Found struct {
	Ref  Ref
	Jobs []crowd.JobID
}

// Ended answers Follow.
type Ended struct {
	Ref    Ref
	State  AttemptState  // Settled, Failed or Cancelled
	Root   crowd.Hash    // of a settled job: over all its items' outcomes. Zero: two right results may differ, so that they are not compared
	Paid   crowd.Credits // whatever it cost
	Why    string        // of a failed job, for people
	User   bool          // the failure is the user's: posting again would not help
	Source bool          // the failure is that the job could not get its parts
}

// Fetched answers Fetch: what of the result belongs here is here.
type Fetched struct{ Ref Ref }

// Probed answers Probe: shards (ascending) whose used attempt has no holder that answers.
type Probed struct {
	Stage int
	Lost  []int
}

// PulseEvery is how often a driver asks who is there on whom an open job waits. Half as long again without an answer is silence.
const PulseEvery = 10 * time.Second

// Silent says that nobody who could end an open job answers, or with Heard that somebody does again. A driver that asks
// nobody never says so.
type Silent struct {
	Ref   Ref
	Heard bool
}

// Woke says that the deadline has come. It may come at any time.
type Woke struct{}

func (Began) event()   {}
func (WasCut) event()  {}
func (NotCut) event()  {}
func (Laid) event()    {}
func (Again) event()   {}
func (Posted) event()  {}
func (Refused) event() {}
func (Found) event()   {}
func (Ended) event()   {}
func (Fetched) event() {}
func (Probed) event()  {}
func (Silent) event()  {}
func (Woke) event()    {}

// Effect is what a machine wants done. All of them only begin; the answer comes back as an event, in any order.
type Effect interface{ effect() }

// Cut makes the items of a stage: of its files, or of what the stages that it reads wrote. It may come twice.
type Cut struct{ Stage int }

// Lay asks for the shards of the items [First, First+Items).
type Lay struct {
	Stage        int
	First, Items uint64
	Pilot        bool          // they go first
	Budget       crowd.Credits // most that these items may lock; 0: any amount
}

// Post puts an attempt on its way, once. Avoid are jobs of the same shard: others than their executors should do this one.
type Post struct {
	Ref   Ref
	Avoid []crowd.JobID
	Bound crowd.Credits // most that it may lock
	Copy  bool          // refuse it as passing if there are no others than those to avoid
}

// Find looks for the job of an attempt that may have been posted before the driver was stopped.
type Find struct{ Ref Ref }

// Follow watches a job until it ends.
type Follow struct {
	Ref Ref
	Job crowd.JobID
}

// Cancel takes a job back if that is possible still. It has no answer: Follow tells how the job ends.
type Cancel struct {
	Ref   Ref
	Job   crowd.JobID
	Worth crowd.Credits // what the job will cost if it is left to end, as its sibling did; 0: not known. A cancel that costs more is left out
}

// Fetch gets what the owner keeps of a settled job's result. It may come twice.
type Fetch struct {
	Ref Ref
	Job crowd.JobID
}

// Probe asks the holders of a stage's parts whether they are there.
type Probe struct{ Stage int }

// Tell is news for people.
type Tell struct {
	Ref  Ref
	News News
	Why  string
}

// News is what happened.
type News string

const (
	NewsFailed   News = "failed"   // a job failed; its shard is posted again
	NewsWaiting  News = "waiting"  // a post was refused, for a reason that may pass
	NewsSlow     News = "slow"     // a copy of a slow shard is posted
	NewsEqual    News = "equal"    // a second result is as the first
	NewsConflict News = "conflict" // it is not: one of two accepted results is a lie. Loud
	NewsWrong    News = "wrong"    // this is the lie: two others agree. Loud
	NewsLost     News = "lost"     // nobody holds the parts of this shard; it is computed again
	NewsDone     News = "done"     // the shard's result is here
)

// GiveUp ends the run: the flow cannot go on by itself. A later run may try again.
type GiveUp struct {
	Ref    Ref
	Reason Reason
	Why    string
}

// Reason is why a flow cannot go on.
type Reason string

const (
	ShardLost  Reason = "shard lost"  // its jobs all failed
	NotPosted  Reason = "not posted"  // its job was refused
	UserFault  Reason = "user fault"  // its job failed, and the user is to blame
	TakenBack  Reason = "taken back"  // somebody cancelled its job
	OverBudget Reason = "over budget" // what is left to do costs more than is left
	Disagreed  Reason = "disagreed"   // three accepted results, all different
)

// Done says that every shard of every stage is here.
type Done struct{}

func (Cut) effect()    {}
func (Lay) effect()    {}
func (Post) effect()   {}
func (Find) effect()   {}
func (Follow) effect() {}
func (Cancel) effect() {}
func (Fetch) effect()  {}
func (Probe) effect()  {}
func (Tell) effect()   {}
func (GiveUp) effect() {}
func (Done) effect()   {}
