// Package job is the life of one job as each of its parties sees it: consumer,
// executor, authority. Each is a pure machine, time and event in, ordered
// effects out; it sends nothing, reads no clock or file and starts no goroutine.
//
// What is due is derived anew at every Step from the newest proven record of
// the chain, the journal and what is in flight. So an event that is lost, late,
// doubled or out of order does no harm, and neither does being killed between
// any two effects, as long as the driver keeps their order.
package job

import (
	"errors"
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Role is a party's part in a job. One node may play several, each with its own
// machine. Append only: it stands in journals.
type Role uint8

const (
	AsConsumer  Role = iota + 1 // posted the job, fetches the result
	AsExecutor                  // claims, runs or verifies, commits, reveals
	AsAuthority                 // opens what silent executors sealed, re-executes, inspects
)

// Roles are all of them.
var Roles = []Role{AsConsumer, AsExecutor, AsAuthority}

var roleNames = [...]string{"", "consumer", "executor", "authority"}

func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// Machine is one role in one job.
type Machine interface {
	// Step takes an event at the local time now. The effects are to be carried
	// out in order: each must be done, a Persist durable, before the next begins.
	// Send, Fetch and Run only begin then; their end comes back as an event.
	Step(now time.Time, ev Event) []Effect
	// Deadline is when the machine next wants Step(now, Woke{}); zero: never.
	Deadline() time.Time
}

// Event is what a machine is told.
type Event interface{ event() }

// Chain is the job's record at a height, proven against a verified header.
type Chain struct {
	Job    ledger.Job
	Height crowd.Height
	Time   crowd.Time       // of the block at Height
	Self   *ledger.Provider // the node's own provider record; nil: it is none. Read by executors in Claiming
}

// Gone is the proof that there is no such job at Height: it ended long ago.
type Gone struct{ Height crowd.Height }

// Fetched ends the Fetch with the same Try. An Err that wraps ErrUnusable says
// something about the content that every honest node would find too.
type Fetched struct {
	Try uint64
	Err error
}

// Ran ends the Run with the same Try. With a nil Err the result lies in the
// node's own store; an Err is a fault of this node and says nothing about the task.
type Ran struct {
	Try     uint64
	Outcome crowd.Outcome
	Leaves  []batch.Leaf // of a Run with Only, in its order; there is no Outcome then
	Outputs crowd.CID    // of a Run with Outputs: a folder like a batch's result, of these items
	Err     error
}

// LeavesRead ends the ReadLeaves with the same Try. An Err that wraps ErrUnusable
// says that they are no leaves, or not those of the result.
type LeavesRead struct {
	Try    uint64
	Leaves []batch.Leaf
	Err    error
}

// Sent ends a Send: nil when a block has applied the message, a *ledger.Refusal
// when a block has refused it, anything else when that is not known.
type Sent struct {
	Message ledger.Message
	Err     error
}

// Woke says that the machine's deadline has come. It may come at any time.
type Woke struct{}

// UserCancel is the consumer's wish to end the job.
type UserCancel struct{}

func (Chain) event()      {}
func (Gone) event()       {}
func (Fetched) event()    {}
func (Ran) event()        {}
func (LeavesRead) event() {}
func (Sent) event()       {}
func (Woke) event()       {}
func (UserCancel) event() {}

// ErrParts marks the end of a Fetch that lacked nothing but parts of other results. It is no finding: they may come back.
var ErrParts = errors.New("parts of other results cannot be had")

// ErrUnusable marks content that is not what a task says it is, or larger than
// allowed: a finding about the content, the same on every machine.
var ErrUnusable = errors.New("unusable content")

// ErrWall marks the end of a Run that ran out of time: the task's wall time, or the time that compiling its program
// may take. A second run would take as long.
var ErrWall = errors.New("the run took too long")

// ErrLocal marks the end of a Fetch or Run that this machine could not finish for want of something of its own, as space on its
// disk. It says nothing about those who serve the content.
var ErrLocal = errors.New("this machine could not")

// Effect is what a machine wants done.
type Effect interface{ effect() }

// Send puts a message on chain, signed by the node.
type Send struct{ Message ledger.Message }

// Fetch gets all content below CIDs into the node's own store, in all at most
// Max bytes for each, from those peers, best first. One is in flight at a time.
type Fetch struct {
	Try    uint64
	CIDs   []crowd.CID
	From   []crowd.NodeID
	Max    uint64
	Result crowd.CID // of this batch's result the outputs besides, and what names them, but no parts; "": none
	Gather *Gather   // what a manifest names besides; nil: nothing
}

// Gather is the parts of other results that a batch's items consist of, got from the holders that the
// manifest names. The manifest is among the CIDs of the Fetch. What it says wrongly is not this Fetch's end but the items'.
type Gather struct {
	Manifest crowd.CID
	Items    uint32   // of the batch
	Only     []uint32 // get these items' parts, ascending; nil: those of all
}

// Run executes the job's task on inputs that lie in the own store and puts the
// result there. Unusable: a Fetch found that the outcome is crowd.NoInput.
type Run struct {
	Try      uint64
	Task     crowd.Task
	Items    uint32   // of a batch: how many; 0: a single task
	Only     []uint32 // of a batch: just these, ascending, for their leaves; nil: all, for the outcome
	Shuffle  crowd.Shuffle
	Outputs  bool // of a Run with Only: what the items write is kept, too
	Quiet    bool // the owner reads nothing of what the program writes before the executor is bound
	Unusable bool
}

// ReadLeaves reads a batch's leaves, which lie in the own store. With a Result, whose outputs lie there
// too, each item's output is compared with its leaf, and the leaves in the result with these. With Parts, too, the whole
// result is made of them in the own store, and must be Result.
type ReadLeaves struct {
	Try    uint64
	Leaves crowd.CID
	Items  uint32
	Result crowd.CID // "": the leaves alone
	Max    uint64    // bytes of Result
	Parts  uint32    // as crowd.Shuffle
}

// Persist replaces the machine's journal. It must survive a crash before any later effect begins.
type Persist struct{ Journal []byte }

// Stop aborts the Fetch, Run, ReadLeaves or Compare in flight, if there is one; its end need not be told.
type Stop struct{}

// Keep pins content in the own store and serves it until Release. Both may come twice.
type Keep struct{ CID crowd.CID }

// Release takes back Keep.
type Release struct{ CID crowd.CID }

// Look asks for the job's newest record, as Chain or Gone: news are overdue.
type Look struct{}

// Report tells people what happens.
type Report struct {
	Stage  string // the name of a ledger.JobState or ledger.PlaceState, or one of the Stage constants
	Why    string
	Detail string
	Time   crowd.Time // block time as far as the machine knows it
}

// Done says that the machine wants nothing any more; its journal may be deleted.
type Done struct{}

func (Send) effect()       {}
func (Fetch) effect()      {}
func (Run) effect()        {}
func (ReadLeaves) effect() {}
func (Persist) effect()    {}
func (Stop) effect()       {}
func (Keep) effect()       {}
func (Release) effect()    {}
func (Look) effect()       {}
func (Report) effect()     {}
func (Done) effect()       {}

// Stages besides the states of the ledger.
const (
	StageFetching  = "fetching"   // the inputs, or the result
	StageExecuting = "executing"  // on this node
	StageVerdict   = "verdict"    // the outcome is fixed: checked, or by an audit that did not choose it
	StageUserError = "user error" // the program or its input is to blame
	StageDelivered = "delivered"  // the result is here
	StageTrouble   = "trouble"    // something went wrong that is tried again, or cannot be
)

// MaxInput bounds the program, the inputs and the stdin of a task, in bytes
// each. It is a rule of the network: what is larger has the outcome crowd.NoInput.
const MaxInput = 4 << 30

// Wanted reports whether a node that holds no journal has a part to play in j as r.
func Wanted(r Role, self crowd.NodeID, j *ledger.Job) bool {
	switch r {
	case AsConsumer:
		return j.Owner == self && !j.State.Ended()
	case AsExecutor:
		if j.Owner == self || j.State.Ended() {
			return false
		}
		if j.State <= ledger.Claiming {
			return true
		}
		if p := j.Place(self); p != nil {
			return p.State == ledger.Working || p.State == ledger.Committed || p.State == ledger.Revealed
		}
		for i := int(j.Next); i < len(j.Drawn); i++ {
			if j.Drawn[i].Node == self {
				return j.State == ledger.Running
			}
		}
	case AsAuthority:
		return j.State == ledger.Unsealing || j.State == ledger.Court || j.State == ledger.Inspecting
	}
	return false
}
