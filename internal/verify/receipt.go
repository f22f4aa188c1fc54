package verify

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Receipt is one file: what a person wants to know, and the evidence from which
// every word of it follows. Check trusts only the evidence and the chain's ID.
type Receipt struct {
	Summary  Summary  `json:"summary"`
	Evidence Evidence `json:"evidence"`
}

// Evidence is raw: canonical encodings, base64 in JSON.
type Evidence struct {
	Genesis []byte `json:"genesis"` // ledger.Genesis; its digest is in the chain's ID
	Header  []byte `json:"header"`  // with the authorities' signatures, as package chain encodes it
	Record  []byte `json:"record"`  // ledger.Job in its last state
	Proof   []byte `json:"proof"`   // ics23, from the record to the header's state root
}

// Summary is for people. Every field is recomputed from the evidence when checked.
type Summary struct {
	Chain    string        `json:"chain"`
	Job      crowd.JobID   `json:"job"`
	Owner    crowd.Address `json:"owner"`
	State    string        `json:"state"`
	Why      string        `json:"why"`
	Height   crowd.Height  `json:"height"` // of the block that ended the job
	Time     crowd.Time    `json:"time"`   // Unix milliseconds
	Task     Task          `json:"task"`
	Outcome  *Outcome      `json:"outcome,omitempty"`
	Plan     Plan          `json:"plan"`
	Draw     Draw          `json:"draw"`
	Audit    *Audit        `json:"audit,omitempty"`
	Batch    *Batch        `json:"batch,omitempty"`
	Places   []Place       `json:"places"`
	Passed   *float64      `json:"undetected,omitempty"` // chance that a wrong result came to the verdict, under the plan's assumption and with the replacements that there were; absent if the authorities computed it
	Votes    []Vote        `json:"votes,omitempty"`
	Paid     crowd.Credits `json:"paid"` // by the owner in the end, micro-credits
	Payments []Payment     `json:"payments"`
}

// Task is what was run on what.
type Task struct {
	Program crowd.CID    `json:"program"`
	Inputs  crowd.CID    `json:"inputs,omitempty"`
	Stdin   crowd.CID    `json:"stdin,omitempty"`
	Args    []string     `json:"args,omitempty"`
	Env     []string     `json:"env,omitempty"`
	Limits  crowd.Limits `json:"limits"`
}

// Outcome is what the task came to and who says so.
type Outcome struct {
	Status   string    `json:"status"`
	ExitCode uint32    `json:"exit_code"`
	Gas      crowd.Gas `json:"gas"`
	Result   crowd.CID `json:"result"`
	By       string    `json:"by"` // "agreement" of the executors, "court", "sample", or "audit": not checked, as the lot did not choose it
}

// Draw is the lottery that chose the executors.
type Draw struct {
	Height   crowd.Height `json:"height"` // of the block whose beacon decided
	Beacon   crowd.Hash   `json:"beacon"`
	Eligible uint32       `json:"eligible"` // providers
	Tickets  uint64       `json:"tickets"`  // of them together
	OpenPPM  uint32       `json:"open_ppm"` // of all tickets: what the owner's demands left in the draw
	Claimed  int          `json:"claimed"`  // proofs shown
}

// Place is one executor's part.
type Place struct {
	Node     crowd.NodeID  `json:"node"`
	Verifier bool          `json:"verifier,omitempty"`
	Address  crowd.Address `json:"address"`
	State    string        `json:"state"`
	Why      string        `json:"why,omitempty"`
	Priority crowd.Hash    `json:"priority"` // lower is sooner
	Price    crowd.Price   `json:"price"`    // micro-credits per mega-gas
	Result   crowd.CID     `json:"result,omitempty"`
	Gas      crowd.Gas     `json:"gas,omitempty"`
	Slashed  crowd.Credits `json:"slashed,omitempty"` // micro-credits of stake
}

// Vote is one authority's in the court.
type Vote struct {
	Authority crowd.Address `json:"authority"`
	Question  string        `json:"question"`
	Answer    string        `json:"answer"`
}

// Payment is one movement of credits; to is "burned" for credits that are gone.
type Payment struct {
	To     string        `json:"to"`
	Amount crowd.Credits `json:"amount"` // micro-credits
	Why    string        `json:"why"`
}

// New makes the receipt of an ended job from what a node read off the chain.
func New(g *ledger.Genesis, header, record []byte, proof ledger.Proof) (*Receipt, error) {
	var j ledger.Job
	if err := crowd.Decode(record, &j); err != nil {
		return nil, fmt.Errorf("make receipt: %w", err)
	}
	if !j.State.Ended() {
		return nil, fmt.Errorf("make receipt: job %s is %s; a receipt comes when it has ended", j.ID.Short(), j.State)
	}
	return &Receipt{
		Summary:  summarize(g.ChainID(), &j),
		Evidence: Evidence{Genesis: crowd.Encode(g), Header: header, Record: record, Proof: proof},
	}, nil
}

// Encode is the one form of a receipt: indented JSON and a final newline.
func (r *Receipt) Encode() []byte {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic("bug: " + err.Error())
	}
	return append(b, '\n')
}

// MaxReceipt bounds a receipt from outside, in bytes.
const MaxReceipt = 4 << 20

// Decode reads a receipt in exactly the form that Encode writes.
func Decode(data []byte) (*Receipt, error) {
	if len(data) > MaxReceipt {
		return nil, fmt.Errorf("%d bytes, at most %d", len(data), MaxReceipt)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var r Receipt
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	if !bytes.Equal(r.Encode(), data) {
		return nil, fmt.Errorf("not in the form in which receipts are written")
	}
	return &r, nil
}

func summarize(chain string, j *ledger.Job) Summary {
	t := j.Spec.Task
	last := ledger.Step{}
	if n := len(j.History); n > 0 {
		last = j.History[n-1]
	}
	s := Summary{
		Chain: chain, Job: j.ID, Owner: j.Owner.Address(), State: j.State.String(), Why: last.Why, Height: last.Height, Time: last.Time,
		Task: Task{Program: t.Program, Inputs: t.Inputs, Stdin: t.Stdin, Args: t.Args, Env: t.Env, Limits: t.Limits},
		Plan: Stated(&j.Spec.Plan),
		Draw: Draw{Height: j.DrawAt, Beacon: j.Beacon, Eligible: j.Eligible, Tickets: j.Tickets, OpenPPM: j.Open, Claimed: len(j.Drawn)},
	}
	s.Plan.Compare = j.Spec.Compare.String()
	s.Audit = summarizeAudit(j)
	s.Batch = summarizeBatch(j)
	if v := j.Verdict; v != nil {
		s.Outcome = &Outcome{Status: v.Outcome.Status.String(), ExitCode: v.Outcome.ExitCode, Gas: v.Outcome.Gas, Result: v.Outcome.Result, By: v.By}
	}
	for i := range j.Places {
		p := &j.Places[i]
		out := Place{Node: p.Node, Verifier: p.Verifier, Address: p.Node.Address(), State: p.State.String(), Why: p.Why, Price: p.Price, Slashed: p.Slashed}
		for k := range j.Drawn {
			if j.Drawn[k].Node == p.Node {
				out.Priority = j.Drawn[k].Priority
			}
		}
		if p.Opening != nil {
			out.Result, out.Gas = p.Opening.Outcome.Result, p.Opening.Outcome.Gas
		}
		s.Places = append(s.Places, out)
	}
	for i := range j.Ballots {
		b := &j.Ballots[i]
		v := Vote{Authority: b.Authority.Address(), Question: b.Question.String(), Answer: fmt.Sprint(b.Yes)}
		switch b.Question {
		case ledger.WhatOutcome:
			v.Answer = b.Outcome.String()
		case ledger.WhatItem:
			v.Answer = fmt.Sprintf("item %d: %s", b.Item, b.Leaf)
		case ledger.OwnAnswer:
			v.Answer = b.Outcome.String()
			if j.Spec.Items > 0 {
				v.Answer = fmt.Sprintf("item %d: %s", b.Item, b.Leaf)
			}
		case ledger.SameAnswer:
			v.Answer = fmt.Sprintf("%s: %s", b.Executor.Short(), b.Finding)
			if j.Spec.Items > 0 {
				v.Answer = fmt.Sprintf("item %d of %s: %s", b.Item, b.Executor.Short(), b.Finding)
			}
		}
		s.Votes = append(s.Votes, v)
	}
	for _, p := range j.Payments {
		to := "burned"
		if !p.To.IsZero() {
			to = p.To.String()
		}
		s.Payments = append(s.Payments, Payment{To: to, Amount: p.Amount, Why: p.Why})
	}
	s.Paid = j.Spent()
	if c, ok := Passed(j, defaultColluding); ok {
		f := c.Float()
		s.Passed = &f
	}
	return s
}
