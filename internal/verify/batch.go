package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Batch is what a receipt says of a job with many items.
type Batch struct {
	Items   uint32     `json:"items"`
	Root    crowd.Hash `json:"root"`   // of the tree over the items' outcomes
	Leaves  crowd.CID  `json:"leaves"` // file with them
	Checks  uint32     `json:"checks"` // items that each verifier re-ran
	Samples []Sample   `json:"samples"`
	Dispute *Dispute   `json:"dispute,omitempty"` // the newest
}

// Sample is what one verifier has shown.
type Sample struct {
	Node    crowd.NodeID `json:"node"`
	State   string       `json:"state"`
	Items   []uint32     `json:"items"`   // that its VRF proof picks
	Answers []crowd.Hash `json:"answers"` // hashes of the leaves that it computed
}

// Dispute is a conflict about one item.
type Dispute struct {
	Item     uint32     `json:"item"`
	Executor crowd.Hash `json:"executor"` // leaf hashes
	Answer   crowd.Hash `json:"answer"`
	Right    crowd.Hash `json:"right"` // the court's; zero: it came to none
}

func summarizeBatch(j *ledger.Job) *Batch {
	if j.Spec.Items == 0 {
		return nil
	}
	b := &Batch{Items: j.Spec.Items, Checks: min(j.Spec.Plan.Checks, j.Spec.Items), Samples: []Sample{}}
	if v := j.Verdict; v != nil {
		b.Root, b.Leaves = v.Outcome.Root, v.Outcome.Leaves
	}
	for i := range j.Places {
		p := &j.Places[i]
		if !p.Verifier || p.Opening == nil {
			continue
		}
		s := Sample{Node: p.Node, State: p.State.String(), Answers: p.Opening.Answers}
		if lot, err := j.Lot(p.Node, p.Opening); err == nil {
			s.Items = ledger.Sampled(&j.Spec, lot)
		}
		b.Samples = append(b.Samples, s)
	}
	if d := j.Dispute; d != nil {
		b.Dispute = &Dispute{Item: d.Item, Executor: d.Executor, Answer: d.Answer, Right: d.Right}
	}
	return b
}

// checkSample recomputes why the executor's word stands in the plan "sample".
func checkSample(g *ledger.Genesis, j *ledger.Job) (how string, err error) {
	p, e := &j.Spec.Plan, j.Executor()
	if p.Method != crowd.PlanSample || e == nil || e.Opening == nil || e.Opening.Outcome != j.Verdict.Outcome {
		return "", errors.New("no executor of a batch revealed this outcome")
	}
	if o := &j.Verdict.Outcome; o.Status != crowd.Exited || o.ExitCode != 0 || o.Root == (crowd.Hash{}) || o.Gas > j.Spec.Limits().Gas {
		return "", errors.New("the outcome is none of a batch")
	}
	want := SampleUndetected(j.Spec.Items, p)
	if Chance(p.Undetected) < want {
		return "", fmt.Errorf("states that a cheater escapes with %s; it is %s", Chance(p.Undetected), want)
	}
	var right *crowd.Hash
	if d := j.Dispute; d != nil && !j.Spec.Compare.Strict() {
		if err := checkFindings(g, j); err != nil {
			return "", err
		}
	} else if d != nil {
		if d.Right != d.Executor {
			return "", fmt.Errorf("item %d was disputed, and the executor's word is not the court's", d.Item)
		}
		voted := map[crowd.NodeID]bool{}
		for i := range j.Ballots {
			b := &j.Ballots[i]
			for _, a := range g.Authorities {
				if a.ID == b.Authority && b.Question == ledger.WhatItem && b.Item == d.Item && b.Leaf == d.Right {
					voted[a.ID] = true
				}
			}
		}
		if 3*len(voted) <= 2*len(g.Authorities) {
			return "", fmt.Errorf("%d of %d authorities voted for the outcome of item %d, more than 2/3 must", len(voted), len(g.Authorities), d.Item)
		}
		right = &d.Right
	}
	open, fraud := 0, 0
	for i := range j.Places {
		v := &j.Places[i]
		switch {
		case !v.Verifier:
			continue
		case v.State == ledger.Fraud:
			fraud++
			continue
		case v.State != ledger.Revealed || v.Opening == nil:
			continue
		}
		lot, err := j.Lot(v.Node, v.Opening)
		if err != nil {
			return "", fmt.Errorf("%s: %w", v.Node.Short(), err)
		}
		items := ledger.Sampled(&j.Spec, lot)
		if len(v.Opening.Answers) != len(items) {
			return "", fmt.Errorf("%s answers for %d items of its %d", v.Node.Short(), len(v.Opening.Answers), len(items))
		}
		for k, item := range items {
			if right != nil && item == j.Dispute.Item && v.Opening.Answers[k] != *right {
				return "", fmt.Errorf("%s answered otherwise than the court about item %d and stands", v.Node.Short(), item)
			}
		}
		open++
	}
	if open == 0 || open+fraud < int(p.Verifiers) {
		return "", fmt.Errorf("%d verifiers have shown their answers and %d were convicted, the plan wants %d", open, fraud, p.Verifiers)
	}
	how = fmt.Sprintf("%d verifiers committed to %d answers each before they could know the executor's; a cheater escapes with %s",
		open, min(p.Checks, j.Spec.Items), Chance(p.Undetected))
	if !j.Spec.Compare.Strict() {
		how += fmt.Sprintf("; answers that differ were within %s for whoever accepted them, which the receipt cannot show", j.Spec.Compare)
	}
	return how, nil
}

// checkLeaves holds the leaves of a batch against the root and all answers that stand.
func checkLeaves(j *ledger.Job, raw []byte) error {
	if j.Spec.Items == 0 || j.Verdict == nil {
		return errors.New("the receipt is of no batch with a result")
	}
	leaves, err := batch.DecodeLeaves(raw, j.Spec.Items)
	if err != nil {
		return err
	}
	tree, err := batch.NewTree(leaves)
	if err != nil {
		return err
	}
	if tree.Root() != ledger.Root(&j.Spec, &j.Verdict.Outcome) {
		return errors.New("these leaves are not those under the root")
	}
	for i := range j.Places {
		p := &j.Places[i]
		if !p.Verifier || p.State != ledger.Revealed {
			continue
		}
		lot, err := j.Lot(p.Node, p.Opening)
		if err != nil {
			return err
		}
		for k, item := range ledger.Sampled(&j.Spec, lot) {
			if !j.Spec.Compare.Strict() && k < len(p.Opening.Answers) {
				continue // what is within the tolerance, hashes do not say
			}
			if k >= len(p.Opening.Answers) || leaves[item].Hash() != p.Opening.Answers[k] {
				return fmt.Errorf("%s answered otherwise about item %d", p.Node.Short(), item)
			}
		}
	}
	return nil
}

// gasOf is what a place is paid for: all of it, or a verifier's share on average, rounded up.
func gasOf(j *ledger.Job, p *ledger.Place) crowd.Gas {
	total := j.Verdict.Outcome.Gas
	if !p.Verifier {
		return total
	}
	n := uint64(max(j.Spec.Items, 1))
	hi, lo := bits.Mul64(uint64(total), min(uint64(j.Spec.Plan.Checks), n))
	return crowd.Gas(divUp(hi, lo, n))
}

// ItemReceipt shows a third party what one item of a batch came to, with the receipt on
// which that stands. Of the item's input it shows only that it is the string Index of the receipt's stdin.
type ItemReceipt struct {
	Item    Item    `json:"item"`
	Receipt Receipt `json:"receipt"`
}

// Item is one item's outcome. All but Proof, Stdout and Stderr is for people.
type Item struct {
	Index    uint32    `json:"index"`
	Status   string    `json:"status"`
	ExitCode uint32    `json:"exit_code"`
	Gas      crowd.Gas `json:"gas"`
	Stdout   []byte    `json:"stdout"`
	Stderr   []byte    `json:"stderr"` // its beginning, as far as it is part of the outcome
	Proof    []byte    `json:"proof"`  // batch.Proof, from the item to the root
}

// NewItem shows item i of the batch whose receipt is r.
func NewItem(r *Receipt, leaves []batch.Leaf, i uint32, stdout, stderr []byte) (*ItemReceipt, error) {
	if uint64(i) >= uint64(len(leaves)) {
		return nil, fmt.Errorf("item %d of %d", i, len(leaves))
	}
	tree, err := batch.NewTree(leaves)
	if err != nil {
		return nil, err
	}
	proof := tree.Prove(i, leaves[i])
	return &ItemReceipt{Item: viewItem(&proof, stdout, stderr), Receipt: *r}, nil
}

func viewItem(p *batch.Proof, stdout, stderr []byte) Item {
	return Item{Index: p.Index, Status: p.Leaf.Status.String(), ExitCode: p.Leaf.ExitCode, Gas: p.Leaf.Gas, Stdout: stdout, Stderr: stderr, Proof: crowd.Encode(p)}
}

// Encode is the one form of an item's receipt.
func (r *ItemReceipt) Encode() []byte {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic("bug: " + err.Error())
	}
	return append(b, '\n')
}

// MaxItemReceipt bounds an item's receipt from outside, in bytes: a receipt, and an item's output in base64.
const MaxItemReceipt = MaxReceipt + 8<<20

// DecodeItem reads an item's receipt in exactly the form that Encode writes.
func DecodeItem(data []byte) (*ItemReceipt, error) {
	if len(data) > MaxItemReceipt {
		return nil, fmt.Errorf("%d bytes, at most %d", len(data), MaxItemReceipt)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var r ItemReceipt
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	if !bytes.Equal(r.Encode(), data) {
		return nil, errors.New("not in the form in which receipts of items are written")
	}
	return &r, nil
}

// CheckItem verifies an item's receipt offline: all that Check does, and the item.
func CheckItem(data []byte, trust Trust) (findings []Finding, good bool) {
	r, err := DecodeItem(data)
	if err != nil {
		return []Finding{{Name: "form", Detail: err.Error()}}, false
	}
	findings, good = Check(r.Receipt.Encode(), trust)
	err = r.check()
	f := Finding{Name: "item", OK: err == nil, Detail: fmt.Sprintf("item %d, %s, is under the root of the verdict, and its output is the one shown", r.Item.Index, r.Item.Status)}
	if err != nil {
		f.Detail, good = err.Error(), false
	}
	return append(findings, f), good
}

func (r *ItemReceipt) check() error {
	var j ledger.Job
	var p batch.Proof
	if err := crowd.Decode(r.Receipt.Evidence.Record, &j); err != nil {
		return err
	}
	if err := crowd.Decode(r.Item.Proof, &p); err != nil {
		return err
	}
	if j.Spec.Items == 0 || j.Verdict == nil {
		return errors.New("the receipt is of no batch with a result")
	}
	if err := p.Check(ledger.Root(&j.Spec, &j.Verdict.Outcome)); err != nil {
		return err
	}
	if batch.Digest(r.Item.Stdout, r.Item.Stderr) != p.Leaf.Output {
		return errors.New("the output shown is not the item's")
	}
	if len(r.Item.Stderr) > batch.MaxError {
		return errors.New("more of stderr is shown than is part of the outcome")
	}
	want := viewItem(&p, r.Item.Stdout, r.Item.Stderr)
	if w, g := (&ItemReceipt{Item: want}).Encode(), (&ItemReceipt{Item: r.Item}).Encode(); !bytes.Equal(w, g) {
		return errors.New("does not say what its proof says")
	}
	return nil
}
