package rpc

import (
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
)

// The views are what people and programs outside see. Credits are micro-credits,
// prices micro-credits per mega-gas, sizes bytes, times RFC 3339, bytes base64.

// Stage is where in its life a job is. The order is the order of a good life.
type Stage string

const (
	Posted    Stage = "posted"    // escrow is locked, the lot is not drawn yet
	Drawn     Stage = "drawn"     // the lot has chosen who works
	Running   Stage = "running"   // executors work
	Committed Stage = "committed" // executors are bound to results that they have not shown
	Checked   Stage = "checked"   // results are open and were compared
	Unchecked Stage = "unchecked" // in place of checked: the one result is open, and the lot of an audit had nobody check it
	Court     Stage = "court"     // results differ: the authorities re-execute
	Delivered Stage = "delivered" // the consumer's node holds the result
	Settled   Stage = "settled"   // everybody is paid; the end
	Cancelled Stage = "cancelled" // the consumer took it back; the end
	Failed    Stage = "failed"    // no result; the escrow went back; the end
)

// Final reports whether a job's life ends with s.
func (s Stage) Final() bool { return s == Settled || s == Cancelled || s == Failed }

// Info describes the node that answers.
type Info struct {
	Node    crowd.NodeID    `json:"node"`
	Address crowd.Address   `json:"address"`
	Roles   []string        `json:"roles"` // consumer, provider, authority
	Chain   string          `json:"chain"`
	Court   []crowd.Address `json:"court"` // the authorities
	Height  crowd.Height    `json:"height"`
	Version string          `json:"version"`
	Listen  []string        `json:"listen"` // multiaddresses
	Peers   int             `json:"peers"`
	Started time.Time       `json:"started"`
	Rules   Rules           `json:"rules"`
	Bugs    uint64          `json:"bugs"` // of a full node: errors of the ledger's own since Started, each of which stands in its log
}

// Rules are the numbers of the rules by which a task comes to its outcome. A node whose build has others than its network neither
// claims places nor executes, verifies or votes.
type Rules struct {
	Network uint32 `json:"network"`
	Build   uint32 `json:"build"`
}

// Limits of one run.
type Limits struct {
	Gas        crowd.Gas `json:"gas"`
	Memory     uint64    `json:"memory"`
	Output     uint64    `json:"output"`
	WallMillis int64     `json:"wallMillis"` // 0: what a slow machine needs for the others
}

// Filters say which providers may be drawn; empty ones exclude nobody.
type Filters struct {
	MaxPrice  crowd.Price    `json:"maxPrice,omitempty"` // 0: any price that the budget allows
	Tags      []string       `json:"tags,omitempty"`
	Countries []string       `json:"countries,omitempty"`
	Providers []crowd.NodeID `json:"providers,omitempty"`
}

// PostRequest is a job to be quoted or posted. Content is uploaded before.
type PostRequest struct {
	Program    crowd.CID     `json:"program"`
	Inputs     crowd.CID     `json:"inputs,omitempty"` // a folder, seen at /in
	Stdin      crowd.CID     `json:"stdin,omitempty"`
	Args       []string      `json:"args,omitempty"`
	Env        []string      `json:"env,omitempty"`  // NAME=value
	Seed       *crowd.Hash   `json:"seed,omitempty"` // absent: zero
	Limits     Limits        `json:"limits"`
	Filters    Filters       `json:"filters"`
	Budget     crowd.Credits `json:"budget,omitempty"`     // most that may be locked; 0: what the quote says
	Confidence float64       `json:"confidence,omitempty"` // that a wrong result is found; 0: the default, 0.99
	Items      uint32        `json:"items,omitempty"`      // of a batch: strings in stdin, a frame file; limits are for each, but for wallMillis
	Plan       *SamplePlan   `json:"plan,omitempty"`       // of a batch
	Check      *TaskPlan     `json:"check,omitempty"`      // of a single task; absent: the cheapest that reaches the confidence
	Parts      uint32        `json:"parts,omitempty"`      // of a batch: its outputs stay where it ran, laid out in so many parts by the keys of their lines
	Gather     bool          `json:"gather,omitempty"`     // of a batch: stdin is a manifest, as crowd_gather makes it
	Compare    string        `json:"compare,omitempty"`    // when two outputs are the same answer: exact, lines, numeric:rel=1e-6, wasm:CID, …; see spec
}

// TaskPlan is how a single task is checked.
type TaskPlan struct {
	Method    string `json:"method"`              // audit, pair, committee
	Executors uint32 `json:"executors,omitempty"` // of a committee: 3 to 9
	RatePPM   uint32 `json:"ratePPM,omitempty"`   // of an audit: least probability that the task is run again, parts per million; absent: the floor, 50000

	// Places that may be given anew if nodes give theirs up; each makes it likelier that a lie passes. Absent: what the plan needs.
	Replacements *uint32 `json:"replacements,omitempty"`
}

// Spec is the job that r asks for, validated. A Budget of zero is left for the
// node to fill.
func (r *PostRequest) Spec() (crowd.JobSpec, error) {
	s := crowd.JobSpec{
		Task: crowd.Task{
			Program: r.Program, Inputs: r.Inputs, Stdin: r.Stdin, Args: r.Args, Env: r.Env,
			Limits: crowd.Limits{Gas: r.Limits.Gas, Memory: r.Limits.Memory, Output: r.Limits.Output},
		},
		Plan: crowd.Plan{Method: crowd.PlanPair},
		Filters: crowd.Filters{MaxPrice: r.Filters.MaxPrice, Tags: r.Filters.Tags,
			Countries: r.Filters.Countries, Providers: r.Filters.Providers},
		Items:   r.Items,
		Shuffle: crowd.Shuffle{Parts: r.Parts, Gather: r.Gather},
		Budget:  r.Budget,
	}
	if r.Plan != nil {
		s.Plan = crowd.Plan{Method: crowd.PlanSample, Verifiers: r.Plan.Verifiers, Checks: r.Plan.Checks, Replacements: r.Plan.Replacements}
		if s.Plan.Replacements == 0 {
			s.Plan.Replacements = s.Plan.DefaultReplacements()
		}
	}
	if c := r.Check; c != nil {
		if r.Items > 0 {
			return crowd.JobSpec{}, Errorf(BadRequest, "a check for a single task, and %d items", r.Items).WithHint("crowd_planBatch says which plan a batch should have")
		}
		if s.Plan = (crowd.Plan{Method: c.Method, Executors: c.Executors, Rate: c.RatePPM}); c.Method == crowd.PlanAudit && c.RatePPM == 0 {
			s.Plan.Rate = crowd.AuditFloor
		}
		if s.Plan.Replacements = s.Plan.DefaultReplacements(); c.Replacements != nil {
			s.Plan.Replacements = *c.Replacements
		}
	}
	var err error
	if s.Compare, err = crowd.ParseCompare(r.Compare); err != nil {
		return crowd.JobSpec{}, Errorf(BadRequest, "%w", err)
	}
	if r.Seed != nil {
		s.Task.Seed = *r.Seed
	}
	// Clamped, so that the product cannot overflow; Validate refuses both ends.
	ms := min(max(r.Limits.WallMillis, -1), int64(crowd.MaxWall/time.Millisecond)+1)
	if s.Task.Limits.Wall = time.Duration(ms) * time.Millisecond; ms == 0 {
		s.Task.Limits.Wall = crowd.LeastWall(s.Limits())
	}
	if err := s.Validate(); err != nil {
		return crowd.JobSpec{}, Errorf(BadRequest, "%w", err)
	}
	if (r.Items > 0) != (r.Plan != nil) {
		return crowd.JobSpec{}, Errorf(BadRequest, "%d items and a plan: %v; many items need a plan, one task needs none", r.Items, r.Plan != nil).
			WithHint("crowd_planBatch says which plan a batch should have")
	}
	if !(r.Confidence >= 0 && r.Confidence < 1) {
		return crowd.JobSpec{}, Errorf(BadRequest, "confidence %v: want a number from 0 to below 1", r.Confidence)
	}
	return s, nil
}

// Quote is what a job would cost at most and how sure its result would be.
type Quote struct {
	Bound        crowd.Credits `json:"bound"`               // most that is locked and can be spent
	Duties       crowd.Credits `json:"duties"`              // burned with the post besides, for what the drawn nodes put on chain
	Price        crowd.Price   `json:"price"`               // the price that the bound assumes
	Plan         string        `json:"plan"`                // "audit", "pair", "committee", "sample"
	Compare      string        `json:"compare,omitempty"`   // how outputs are; absent: exact
	Undetected   float64       `json:"undetected"`          // probability that a wrong result is accepted
	Executors    int           `json:"executors"`           // that run all of it
	Replacements int           `json:"replacements"`        // places that may be given anew: undetected reckons with them
	RatePPM      uint32        `json:"ratePPM,omitempty"`   // of an audit: least probability that one more does, parts per million
	Unaudited    crowd.Credits `json:"unaudited,omitempty"` // of an audit: the bound where that does not happen
	Stake        crowd.Credits `json:"stake"`               // that an executor needs; of an audit: so that it is not audited more often
	Eligible     int           `json:"eligible"`            // providers that could be drawn
	Needed       int           `json:"needed"`              // providers that the plan wants
	Requirements []Requirement `json:"requirements"`
}

// Requirement is one condition on providers and how many meet it, taken alone.
type Requirement struct {
	Name string `json:"name"` // "price <= 1000", "tag gpu"
	Met  int    `json:"met"`
	Of   int    `json:"of"`
}

// Outcome is what a run came to.
type Outcome struct {
	Status    string    `json:"status"` // crowd.Status as text: "exited", "out of gas", …
	ExitCode  uint32    `json:"exitCode"`
	Gas       crowd.Gas `json:"gas"`
	Result    crowd.CID `json:"result"`
	UserError bool      `json:"userError"` // the program or its input is to blame

	// Reason says more about a Status other than "exited", where that is known: the text of a trap, why the program
	// is invalid. What an executor says begins with its ID; nobody has checked it.
	Reason string `json:"reason,omitempty"`
}

// ViewOutcome is the view of o.
func ViewOutcome(o crowd.Outcome) *Outcome {
	return &Outcome{Status: o.Status.String(), ExitCode: o.ExitCode, Gas: o.Gas, Result: o.Result,
		UserError: o.UserError()}
}

func (o *Outcome) String() string {
	if o.Status == crowd.Exited.String() {
		return fmt.Sprintf("exit code %d", o.ExitCode)
	}
	return o.Status
}

// Why is how the run ended, with the reason where it is known.
func (o *Outcome) Why() string {
	if o.Reason == "" {
		return o.String()
	}
	return o.String() + ": " + o.Reason
}

// Member is one node in a job's committee.
type Member struct {
	Node      crowd.NodeID `json:"node"`
	Role      string       `json:"role"`             // executor, auditor, verifier, alternate
	Priority  uint64       `json:"priority"`         // the lot: highest 64 bits of the VRF output; lower comes first
	ProofOK   bool         `json:"proofOK"`          // this node checked the VRF proof
	State     string       `json:"state"`            // claimed, running, committed, revealed, silent, failed
	Why       string       `json:"why"`              // of State
	Gas       crowd.Gas    `json:"gas"`              // used so far
	Committed bool         `json:"committed"`        // its commitment is on chain
	Revealed  bool         `json:"revealed"`         // its outcome is on chain
	Match     *bool        `json:"match"`            // its outcome is the accepted one; absent while unknown
	Checks    uint32       `json:"checks,omitempty"` // of a verifier: items that it re-runs
	Sample    []uint32     `json:"sample,omitempty"` // of a verifier: these, once it has shown them
}

// Progress of a run, as the executors tell it; nobody has checked it.
type Progress struct {
	Gas   crowd.Gas `json:"gas"`             // of the executor that is farthest
	Limit crowd.Gas `json:"limit"`           // most it may use; a run usually ends before
	Items uint32    `json:"items,omitempty"` // of a batch: done
	Of    uint32    `json:"of,omitempty"`
}

// Verdict is how the check of a result ended.
type Verdict struct {
	Accepted bool    `json:"accepted"` // there is a result
	Checked  bool    `json:"checked"`  // others than its executor ran it, or a secret sample of it; false where the lot of an audit passed it over
	Method   string  `json:"method"`   // audit, pair, committee, court, sample
	Why      string  `json:"why"`
	Blame    []Blame `json:"blame"`
}

// Blame names who is at fault; Node is absent when it is the consumer.
type Blame struct {
	Node  *crowd.NodeID `json:"node,omitempty"`
	Fault string        `json:"fault"` // user error, node fault, malice
	Why   string        `json:"why"`
}

// Payment is one line of a settlement.
type Payment struct {
	Account crowd.Address `json:"account"`        // the zero address: burned
	Node    *crowd.NodeID `json:"node,omitempty"` // whose account it is, when known
	Change  int64         `json:"change"`         // micro-credits, negative for a loss
	From    string        `json:"from,omitempty"` // escrow, stake
	Why     string        `json:"why"`            // "executed", "refund", "slashed: wrong result"
	Slashed bool          `json:"slashed,omitempty"`
}

// JobEvent says that something happened to a job, and why. What a stage does
// not have is absent.
type JobEvent struct {
	Seq       int           `json:"seq"` // from 1, without gaps
	Time      time.Time     `json:"time"`
	Height    crowd.Height  `json:"height,omitempty"` // of the block that said so
	Stage     Stage         `json:"stage"`
	Why       string        `json:"why"`
	Committee []Member      `json:"committee,omitempty"` // at drawn and whenever it changes
	Progress  *Progress     `json:"progress,omitempty"`  // while running
	Verdict   *Verdict      `json:"verdict,omitempty"`   // from checked on
	Outcome   *Outcome      `json:"outcome,omitempty"`   // from checked on
	Payments  []Payment     `json:"payments,omitempty"`  // at the end
	Price     crowd.Credits `json:"price,omitempty"`     // what the consumer paid, at the end
	Failure   *Failure      `json:"failure,omitempty"`   // at failed
}

// Failure is why a job has no result, in the terms of an Error.
type Failure struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// JobSummary is one line of a list of jobs.
type JobSummary struct {
	ID      crowd.JobID   `json:"id"`
	Posted  time.Time     `json:"posted"`
	Updated time.Time     `json:"updated"`
	Stage   Stage         `json:"stage"`
	Why     string        `json:"why"`
	Program crowd.CID     `json:"program"`
	Outcome *Outcome      `json:"outcome,omitempty"`
	Price   crowd.Credits `json:"price"`           // paid; 0 before the end
	Items   uint32        `json:"items,omitempty"` // of a batch
	Stdin   crowd.CID     `json:"stdin,omitempty"`
}

// Removed is what a removal of jobs took off the node's disk.
type Removed struct {
	Jobs  int   `json:"jobs"`
	Bytes int64 `json:"bytes"` // of files of results; content in the store is collected within the hour
}

// JobView is all that the node knows of a job.
type JobView struct {
	JobSummary
	Owner     crowd.Address `json:"owner"`
	Request   PostRequest   `json:"request"`
	Plan      string        `json:"plan"`
	Audit     *Audit        `json:"audit,omitempty"`
	Batch     *BatchView    `json:"batch,omitempty"`
	Escrow    crowd.Credits `json:"escrow"`           // still locked
	Cancel    crowd.Credits `json:"cancel,omitempty"` // what a cancel would pay now to those who work on it
	History   []JobEvent    `json:"history"`          // without mere progress
	Committee []Member      `json:"committee"`
	Verdict   *Verdict      `json:"verdict,omitempty"`
	Payments  []Payment     `json:"payments"`
	Failure   *Failure      `json:"failure,omitempty"`
	Advice    string        `json:"advice,omitempty"` // where a node was convicted whose output is near the right one: how a job would allow that
}

// Audit is the lot by which one executor's work is run again, or is not.
type Audit struct {
	Executor crowd.NodeID  `json:"executor"`
	RatePPM  uint32        `json:"ratePPM"`          // probability that it is chosen, parts per million: of its record and free stake
	Stake    crowd.Credits `json:"stake"`            // of it, what answers for this job alone
	Height   crowd.Height  `json:"height,omitempty"` // block whose beacon decides; 0: it is not bound yet
	Chosen   *bool         `json:"chosen,omitempty"` // absent while that is not known
}

// Explanation says why a job is where it is, and the smallest change that would
// move it.
type Explanation struct {
	Job          crowd.JobID   `json:"job"`
	Stage        Stage         `json:"stage"`
	Why          string        `json:"why"`
	Fix          string        `json:"fix,omitempty"` // empty: nothing is wrong
	Requirements []Requirement `json:"requirements,omitempty"`
}

// LogChunk is a piece of what a running program wrote.
type LogChunk struct {
	Stream string       `json:"stream"` // stdout, stderr
	Node   crowd.NodeID `json:"node"`   // on which executor
	Offset int64        `json:"offset"` // of Data in the stream
	Data   []byte       `json:"data"`
}

// Result is a delivered result; its files are listed and read separately.
type Result struct {
	Job     crowd.JobID   `json:"job"`
	Outcome Outcome       `json:"outcome"`
	Verdict *Verdict      `json:"verdict,omitempty"`
	Price   crowd.Credits `json:"price"`
	Stdout  int64         `json:"stdout"` // sizes, bytes
	Stderr  int64         `json:"stderr"`
	Items   uint32        `json:"items,omitempty"` // of a batch, whose stdout and stderr are frame files
}

// Entry is a file or folder of a result: stdout, stderr, out, out/….
type Entry struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	Folder bool   `json:"folder,omitempty"`
}

// Chunk is a piece of a file.
type Chunk struct {
	Data []byte `json:"data"`
	EOF  bool   `json:"eof"` // Data ends where the file ends
}

// Account is what an address owns.
type Account struct {
	Name    string        `json:"name,omitempty"` // of an account of this node
	Address crowd.Address `json:"address"`
	Own     bool          `json:"own"` // this node holds the key
	Balance crowd.Credits `json:"balance"`
	Escrow  crowd.Credits `json:"escrow"` // locked in jobs
	Stake   crowd.Credits `json:"stake"`
	Nonce   uint64        `json:"nonce"`
}

// Provider is a node that lends its machine.
type Provider struct {
	Node      crowd.NodeID  `json:"node"`
	Address   crowd.Address `json:"address"`
	Price     crowd.Price   `json:"price"`
	Country   string        `json:"country,omitempty"`
	Tags      []string      `json:"tags,omitempty"`
	Owners    float64       `json:"owners,omitempty"` // least score, 0 to 1, of owners that it works for; absent: anybody
	Stake     crowd.Credits `json:"stake"`
	Done      uint64        `json:"done"`                // jobs done
	Caught    uint64        `json:"caught"`              // times proven wrong
	Online    bool          `json:"online"`              // it came when it was drawn
	Suspended string        `json:"suspended,omitempty"` // why it cannot be drawn
}

// Peer is a node that this one is connected to, or that the overlay knows.
type Peer struct {
	Node      crowd.NodeID `json:"node"`
	Addresses []string     `json:"addresses"`
	Tags      []string     `json:"tags,omitempty"`      // that it announces
	Path      string       `json:"path,omitempty"`      // direct, punched, relayed; empty: not connected, only known
	RTTMillis float64      `json:"rttMillis,omitempty"` // 0: not measured yet
	Since     time.Time    `json:"since"`               // it is connected, or in the overlay's table
	Overlay   bool         `json:"overlay"`             // it is in the overlay's table
}

// Network is what one must know of a network to join it: the content of a network file.
type Network struct {
	Name    string   `json:"name"`
	Chain   string   `json:"chain"`   // of Genesis: its hash is in it
	Genesis []byte   `json:"genesis"` // canonical encoding
	Seeds   []string `json:"seeds"`   // multiaddresses with /p2p/
}

// Status is how a node stands in its network.
type Status struct {
	Info
	Network      string    `json:"network"`           // its name
	Reachability string    `json:"reachability"`      // public, private, unknown: whether strangers can dial this node
	Seen         []string  `json:"seen"`              // UDP addresses at which peers see this node
	Relay        string    `json:"relay,omitempty"`   // key of the node through which this one is reached; only of a private one
	Tags         []string  `json:"tags"`              // that it announces
	Seeds        []string  `json:"seeds"`             // that it began with
	Provide      string    `json:"provide,omitempty"` // how far its registration as a provider is
	ChainTime    time.Time `json:"chainTime"`         // of the newest block
	Overlay      Overlay   `json:"overlay"`
	Traffic      Traffic   `json:"traffic"`
	Load         Load      `json:"load"`
}

// Load is what a node has on its hands. In a network on one machine, memory, files and goroutines are those of all its nodes.
type Load struct {
	Jobs       int    `json:"jobs"`       // own ones that have not ended, or of which the result or the receipt is still to come
	Lost       int    `json:"lost"`       // how often its stream from a full node ended in the last five minutes
	Goroutines int    `json:"goroutines"` //
	Memory     uint64 `json:"memory"`     // bytes that the process holds
	Files      int    `json:"files"`      // open descriptors; 0: not known
}

// Traffic is the content that a node has moved since it started, in bytes of blocks.
type Traffic struct {
	Fetched uint64 `json:"fetched"`
	Served  uint64 `json:"served"`
}

// Overlay is a node's part in finding others. Packets are counted since the node started.
type Overlay struct {
	Key         string `json:"key"`         // the node's position
	Joined      bool   `json:"joined"`      // its neighbourhood has answered
	Peers       int    `json:"peers"`       // in its table
	Known       int    `json:"known"`       // in its database, for the next start
	Sent        uint64 `json:"sent"`        // packets
	Received    uint64 `json:"received"`    // packets
	Refused     uint64 `json:"refused"`     // of those received: noise, other networks, expired, unasked, badly signed
	OverBudget  uint64 `json:"overBudget"`  // of those received: dropped unseen, there were too many
	Lookups     uint64 `json:"lookups"`     //
	ClockMillis int64  `json:"clockMillis"` // by which peers say that this machine's clock lags; 0: it is right
}

// Found is a node that the overlay knows, by the node's own signed record.
type Found struct {
	Node      crowd.NodeID  `json:"node"`
	Key       string        `json:"key"` // its position in the overlay
	Address   crowd.Address `json:"address"`
	Addresses []string      `json:"addresses"`       // multiaddresses where it can be reached
	Relay     string        `json:"relay,omitempty"` // key of the node through which it is reached
	Tags      []string      `json:"tags"`
	Signed    time.Time     `json:"signed"`          // when it last signed its record
	Offer     *Provider     `json:"offer,omitempty"` // what the chain says that it offers
}
