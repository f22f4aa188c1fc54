package rpc

import "github.com/crowdcompute/crowd"

// A batch is many runs of one program, each on its own string. It is posted as one or
// more jobs, the shards, each with the items of a frame file as package batch writes it.

// SamplePlan is how a shard is checked: verifiers that the lot draws re-run a secret
// sample of its items each.
type SamplePlan struct {
	Verifiers uint32 `json:"verifiers"`
	Checks    uint32 `json:"checks"` // items that each of them re-runs

	Replacements uint32 `json:"replacements,omitempty"` // places that may be given anew if nodes give theirs up; each makes it a little likelier that a lie passes; 0: 2
}

// BatchRequest asks how a batch would be sharded and checked. Nothing is uploaded yet.
type BatchRequest struct {
	Items      uint64        `json:"items"`
	Shard      uint64        `json:"shard,omitempty"`  // most items of one job; 0: what keeps all nodes busy
	Gas        crowd.Gas     `json:"gas,omitempty"`    // expected of one item; 0: limits.gas
	Start      crowd.Gas     `json:"start,omitempty"`  // that a job takes besides its items; their limits share it
	Limits     Limits        `json:"limits"`           // of one item; wallMillis is for a shard, 0: as long as its gas may take
	Filters    Filters       `json:"filters"`          //
	Budget     crowd.Credits `json:"budget,omitempty"` // most that may be locked for all of it; 0: any amount
	Confidence float64       `json:"confidence,omitempty"`
	Whole      bool          `json:"whole,omitempty"`   // Confidence is that all of the results are right, not that a cheater is caught
	Compare    string        `json:"compare,omitempty"` // as a PostRequest's
}

// BatchPlan is how a batch is sharded and checked, with the numbers on it. Costs are of
// all shards together.
type BatchPlan struct {
	SamplePlan
	Shards uint64 `json:"shards"` // jobs
	Items  uint64 `json:"items"`  // of a job; the last may have fewer
	Nodes  uint64 `json:"nodes"`  // that one job needs

	Undetected float64 `json:"undetected"` // that a cheating executor escapes
	Accepted   float64 `json:"accepted"`   // that a given shard is wrong and accepted
	Any        float64 `json:"any"`        // that any of the shards is
	Overhead   float64 `json:"overhead"`   // expected gas of checks per useful gas

	Executors    crowd.Credits `json:"executors"`    // expected pay
	Verification crowd.Credits `json:"verification"` // expected pay
	Bound        crowd.Credits `json:"bound"`        // most that is locked and can be spent
	MinStake     crowd.Credits `json:"minStake"`     // with which an executor that cheats must lose
	WaitMillis   int64         `json:"waitMillis"`   // expected until all of it is checked
	Compare      string        `json:"compare"`      // how outputs are
	Assumptions  []string      `json:"assumptions"`
}

// BatchQuote answers a BatchRequest. Without a Plan, Why says what lacks, and the
// others are the nearest that can be had.
type BatchQuote struct {
	Plan         *BatchPlan    `json:"plan,omitempty"`
	Why          string        `json:"why,omitempty"`
	Best         *BatchPlan    `json:"best,omitempty"`  // of highest confidence with the budget and nodes at hand
	Least        *BatchPlan    `json:"least,omitempty"` // of the confidence asked for, with the least of what lacks
	Price        crowd.Price   `json:"price"`           // that the costs assume
	Eligible     int           `json:"eligible"`        // providers that could be drawn for one item
	Requirements []Requirement `json:"requirements"`
}

// BatchView is what only a job with many items has.
type BatchView struct {
	Items      uint32      `json:"items"`
	Plan       *SamplePlan `json:"plan,omitempty"`
	Undetected float64     `json:"undetected"`
	Root       *crowd.Hash `json:"root,omitempty"`    // of the tree over the items' outcomes, once it is open
	Leaves     crowd.CID   `json:"leaves,omitempty"`  //
	Dispute    *Dispute    `json:"dispute,omitempty"` // the newest
	Gas        crowd.Gas   `json:"gas,omitempty"`     // of all items, useful; once the result is here
	CheckGas   crowd.Gas   `json:"checkGas,omitempty"`
	Failed     *uint32     `json:"failed,omitempty"` // items in which the program or the item is to blame; once the result is here

	Parts   uint32         `json:"parts,omitempty"`   // as in the request
	Gather  bool           `json:"gather,omitempty"`  // as in the request
	Holders []crowd.NodeID `json:"holders,omitempty"` // of a settled job with Parts: the executor, then the verifiers
	NoParts bool           `json:"noParts,omitempty"` // of a job that gathers: a place was given up because parts could not be had
}

// PartsView is what a settled job with parts holds for others. Its outputs do not come to
// the node that posted it.
type PartsView struct {
	Job     crowd.JobID    `json:"job"`
	Result  crowd.CID      `json:"result"`
	Holders []crowd.NodeID `json:"holders"` // the executor, then the verifiers
	Sizes   []uint64       `json:"sizes"`   // of the parts in order, bytes; of one above 1 MiB with what its blocks cost
	Bytes   uint64         `json:"bytes"`   // of all of them
	Stdout  uint64         `json:"stdout"`  // bytes of these files
	Stderr  uint64         `json:"stderr"`
}

// GatherRequest asks for a manifest of which parts the items of a batch consist.
type GatherRequest struct {
	Jobs  []crowd.JobID `json:"jobs"`  // settled jobs of this node with equally many parts; lines of one key come in their order
	Items [][]uint32    `json:"items"` // numbers of parts, ascending: each item consists of those parts of every job
}

// Gathered is a manifest in the node's store, ready to be posted as the stdin of a batch that gathers.
type Gathered struct {
	Manifest crowd.CID `json:"manifest"`
	Items    uint32    `json:"items"`
	Sizes    []uint64  `json:"sizes"` // of what each item reads, bytes
	Bytes    uint64    `json:"bytes"` // of all of them
}

// Holder is a node that should have a job's result, or that an open job waits for.
type Holder struct {
	Node   crowd.NodeID `json:"node"`
	Here   bool         `json:"here"` // it has answered now: with the first block of the result, if it should have that
	Millis int64        `json:"millis,omitempty"`
	Why    string       `json:"why,omitempty"` // it is not Here
}

// Pulse is on whom an open job waits, and who of them answers now.
type Pulse struct {
	Stalled bool     `json:"stalled"` // nobody who could bring it on before a deadline answers
	Nodes   []Holder `json:"nodes"`   // on whom it waits
}

// Dispute is a proven conflict about one item.
type Dispute struct {
	Item     uint32       `json:"item"`
	Verifier crowd.NodeID `json:"verifier"`
	Executor crowd.Hash   `json:"executor"` // the leaves that they committed to
	Answer   crowd.Hash   `json:"answer"`
	Right    *crowd.Hash  `json:"right,omitempty"` // the court's, once it is known
	Reporter crowd.NodeID `json:"reporter"`
}

// Reputation is what the chain knows of a node. Shares are from 0 to 1.
type Reputation struct {
	Node         *crowd.NodeID `json:"node,omitempty"` // when it is a provider
	Address      crowd.Address `json:"address"`
	Honesty      float64       `json:"honesty"`      // H, of what was checked
	Availability float64       `json:"availability"` // A, being there when drawn
	Weight       float64       `json:"weight"`       // of its stake's tickets in a draw
	Consumer     float64       `json:"consumer"`     // as the owner of jobs
	Newcomer     bool          `json:"newcomer"`
	Caught       uint64        `json:"caught"` // proven frauds
	Buried       bool          `json:"buried"` // cannot be drawn any more
	Done         uint64        `json:"done"`
	Work         crowd.Gas     `json:"work"`
	Faults       uint64        `json:"faults"` // places given up, deadlines missed
	Missed       uint32        `json:"missed"` // draws in a row
	Reported     uint64        `json:"reported"`
	Passed       float64       `json:"passed"` // fading sums behind honesty, in jobs that count in full
	Failed       float64       `json:"failed"`
	Up           float64       `json:"up"` // behind availability
	Down         float64       `json:"down"`
	Evidence     []Evidence    `json:"evidence"` // the newest, oldest first
}

// Evidence is one finding about a node's honesty.
type Evidence struct {
	Job        crowd.JobID  `json:"job"`
	Passed     bool         `json:"passed"`
	Difficulty float64      `json:"difficulty"` // its weight, 0 to 1
	Height     crowd.Height `json:"height"`
}
