package verify

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/ledger"
)

const playedItems, playedChecks = 20, 6

func playedPlan() crowd.Plan {
	p := crowd.Plan{Method: crowd.PlanSample, Verifiers: 2, Checks: playedChecks, Replacements: 2}
	p.Undetected = uint64(SampleUndetected(playedItems, &p))
	return p
}

// playedBatch runs a batch with an executor and two verifiers, the last of whom lies about its
// first item when asked to; the owner reports it then.
func playedBatch(t testing.TB, lie bool, change ...func(*crowd.JobSpec)) (receipt []byte, leaves []batch.Leaf, chain string) {
	t.Helper()
	st := newStage(t, 4)
	spec := crowd.JobSpec{
		Task: crowd.Task{Program: "bafyprogram", Stdin: "bafyitems",
			Limits: crowd.Limits{Gas: 1e6, Memory: 1 << 26, Output: 1 << 20, Wall: 15 * time.Second}},
		Items: playedItems, Plan: playedPlan(),
		Filters: crowd.Filters{MaxPrice: crowd.ReferencePrice}, Budget: 10 * crowd.Credit,
	}
	for _, f := range change {
		f(&spec)
	}
	id := st.run(spec)
	for i := range playedItems {
		l := batch.Leaf{Status: crowd.Exited, Gas: crowd.Gas(1000 + i), Output: batch.Digest([]byte{byte(i)}, nil)}
		leaves = append(leaves, l)
	}
	tree, err := batch.NewTree(leaves)
	if err != nil {
		t.Fatal(err)
	}
	last := len(st.job(id).Places) - 1
	opening := func(i int) ledger.Opening {
		j := st.job(id)
		p := &j.Places[i]
		o := ledger.Opening{Salt: crowd.Hash{byte(i)}}
		if !p.Verifier {
			o.Outcome = crowd.Outcome{Status: crowd.Exited, Gas: tree.Root().Top.Gas, Result: "bafyresult", Root: tree.Root().Top.Hash, Leaves: "bafyleaves"}
			return o
		}
		proof, lot := st.nodes[p.Node].VRF().Prove(ledger.SampleInput(id, p.Node, j.Beacon))
		o.Sample = proof[:]
		for _, k := range ledger.Sampled(&spec, lot) {
			o.Answers = append(o.Answers, leaves[k].Hash())
		}
		if lie && i == last {
			o.Answers[0][0] ^= 1
		}
		return o
	}
	for i, p := range st.job(id).Places {
		st.block(st.nodes[p.Node], &ledger.Commit{Job: id, Commitment: ledger.Commitment(id, p.Node, opening(i)), Sealed: [][]byte{{1}}})
	}
	for i, p := range st.job(id).Places {
		st.block(st.nodes[p.Node], &ledger.Reveal{Job: id, Opening: opening(i)})
	}
	if lie {
		j := st.job(id)
		v := &j.Places[last]
		lot, err := j.Lot(v.Node, v.Opening)
		if err != nil {
			t.Fatal(err)
		}
		item := ledger.Sampled(&spec, lot)[0]
		st.block(st.owner, &ledger.Report{Job: id, Verifier: v.Node, Proof: tree.Prove(item, leaves[item])})
		st.block(st.authority, &ledger.Vote{Job: id, Question: ledger.WhatItem, Item: item, Leaf: leaves[item].Hash()})
	}
	st.block(st.owner, &ledger.Accept{Job: id})
	return st.receipt(id), leaves, st.g.ChainID()
}

func encodeLeaves(leaves []batch.Leaf) (raw []byte) {
	for _, l := range leaves {
		raw = l.Append(raw)
	}
	return raw
}

// An owner that names the providers may name its own, and a receipt is for others.
func TestReceipt_SaysWhatTheOwnerLeftInTheDraw(t *testing.T) {
	for _, named := range []int{0, 3} {
		receipt, _, chain := playedBatch(t, false, func(s *crowd.JobSpec) {
			for _, gr := range newStage(t, 4).g.Grants[1:][:named] {
				s.Filters.Providers = append(s.Filters.Providers, gr.ID)
			}
		})
		findings, good := Check(receipt, Trust{Chain: chain, Header: verifyHeader})
		i := slices.IndexFunc(findings, func(f Finding) bool { return f.Name == "draw" })
		if !good || strings.Contains(findings[i].Detail, "75 % of the weight") != (named > 0) {
			t.Errorf("%d providers named: got %+v", named, findings)
		}
		// A tenth of all weight is 13.3 % of three quarters of it.
		j, _ := evidence(t, receipt)
		want, _ := Passed(&j, 133_333)
		i = slices.IndexFunc(findings, func(f Finding) bool { return f.Name == "chance" })
		if strings.Contains(findings[i].Detail, want.String()+" if they are 10 % of all weight") != (named > 0) {
			t.Errorf("%d providers named: got %q want %s among all weight", named, findings[i].Detail, want)
		}
	}
}

// Who keeps others from claiming, as by a flood of jobs, has a larger share of the places than of the draw.
func TestReceipt_ReckonsWithTheTicketsThatWereClaimed(t *testing.T) {
	receipt, _, _ := playedBatch(t, false)
	j, _ := evidence(t, receipt)
	p := newStage(t, 4).g.Params
	all, tickets := uint64(0), j.Tickets
	for i := range j.Drawn {
		all += uint64(j.Drawn[i].Won)
	}
	if all != tickets {
		t.Fatalf("%d of %d tickets were claimed: the test needs all of them", all, tickets)
	}
	for _, tt := range []struct {
		tickets, units uint64
		ppm            uint32 // of the places, a tenth of the draw; 0: no more than that
	}{
		{tickets, p.CommitteeUnits, 0},
		{tickets * 5 / 4, p.CommitteeUnits, 0},
		{4 * tickets, p.CommitteeUnits, 400_000},
		{20 * tickets, p.CommitteeUnits, 1_000_000},
		{20 * tickets, tickets, 0}, // few of them win
	} {
		j.Tickets, p.CommitteeUnits = tt.tickets, tt.units
		got, err := checkChance(&p, &j)
		want, _ := Passed(&j, max(tt.ppm, defaultColluding))
		if said := strings.Contains(got, want.String()+" if they are 10 % of all weight"); err != nil || said != (tt.ppm > 0) {
			t.Errorf("%d of %d winning tickets: got %q, %v, want %s", all, min(tt.tickets, tt.units), got, err, want)
		}
	}
}

func TestReceipt_OfABatch(t *testing.T) {
	for _, lie := range []bool{false, true} {
		receipt, leaves, chain := playedBatch(t, lie)
		trust := Trust{Chain: chain, Header: verifyHeader, Leaves: encodeLeaves(leaves)}
		findings, good := Check(receipt, trust)
		if !good || len(findings) != 13 {
			t.Errorf("lie %v: got %+v", lie, findings)
		}
		r, err := Decode(receipt)
		if err != nil {
			t.Fatal(err)
		}
		b := r.Summary.Batch
		if b == nil || len(b.Samples) != 2 || len(b.Samples[0].Items) != playedChecks || (b.Dispute != nil) != lie {
			t.Errorf("lie %v: got %+v", lie, b)
		}
		free := uint32(0) // an item that nobody looked at: only the root tells
		for slices.Contains(b.Samples[0].Items, free) || slices.Contains(b.Samples[1].Items, free) {
			free++
		}
		leaves[free].Gas++
		trust.Leaves = encodeLeaves(leaves)
		if f, good := Check(receipt, trust); good || strings.Join(failed(f), ",") != "leaves" {
			t.Errorf("other leaves: got %v", failed(f))
		}
		trust.Leaves = []byte{}
		if _, good := Check(receipt, trust); good {
			t.Error("no leaves passed")
		}
	}
	single, chain := played(t, false)
	if f, good := Check(single, Trust{Chain: chain, Header: verifyHeader, Leaves: []byte{}}); good || strings.Join(failed(f), ",") != "leaves" {
		t.Errorf("leaves of a single task: got %v", failed(f))
	}
}

// What a forger changes in the record of a batch is found, apart from what the state's proof finds.
func TestReceipt_ForgedBatchesAreNamed(t *testing.T) {
	for _, c := range []struct {
		name, want string
		lie        bool
		change     func(j *ledger.Job)
	}{
		{"another root", "verdict", false, func(j *ledger.Job) { j.Verdict.Outcome.Root[0] ^= 1 }},
		{"a verifier less", "verdict", false, func(j *ledger.Job) { j.Places[2].State = ledger.Dropped }},
		{"an answer less", "verdict", false, func(j *ledger.Job) { o := j.Places[1].Opening; o.Answers = o.Answers[1:] }},
		{"another answer", "commitments", false, func(j *ledger.Job) { j.Places[1].Opening.Answers[0][0] ^= 1 }},
		{"another sample", "verdict", false, func(j *ledger.Job) { j.Places[1].Opening.Sample[7] ^= 1 }},
		{"a sample of another's", "verdict", false, func(j *ledger.Job) { j.Places[1].Opening.Sample = j.Places[2].Opening.Sample }},
		{"another way", "verdict", false, func(j *ledger.Job) { j.Verdict.By = ledger.ByAgreement }},
		{"an executor more", "verdict", false, func(j *ledger.Job) {
			j.Places = append(j.Places, ledger.Place{Node: j.Drawn[3].Node, State: ledger.Revealed, Opening: j.Places[0].Opening})
		}},
		{"a convicted executor besides", "verdict", false, func(j *ledger.Job) {
			j.Places = append(j.Places, ledger.Place{Node: j.Drawn[3].Node, State: ledger.Fraud, Opening: &ledger.Opening{}})
		}},
		{"a verifier paid as an executor", "payments", false, func(j *ledger.Job) {
			for i := range j.Payments {
				if j.Payments[i].To == j.Places[1].Node.Address() {
					more := ledger.DevParams().Pay(j.Places[1].Price, ledger.CheckGas(&j.Spec, j.Verdict.Outcome.Gas)) + 1 - j.Payments[i].Amount
					j.Payments[i].Amount += more
					j.Payments[len(j.Payments)-1].Amount -= more
				}
			}
		}},
		{"an acquitted liar", "verdict", true, func(j *ledger.Job) { j.Places[2].State = ledger.Revealed }},
		{"a court that found otherwise", "verdict", true, func(j *ledger.Job) { j.Dispute.Right = j.Dispute.Answer }},
		{"no votes", "verdict", true, func(j *ledger.Job) { j.Ballots = nil }},
		{"votes about another item", "verdict", true, func(j *ledger.Job) { j.Ballots[0].Item++ }},
		{"checks beyond all bounds", "job", false, func(j *ledger.Job) { j.Spec.Items, j.Spec.Plan.Checks = 1<<32-1, 1<<32-1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			receipt, leaves, chain := playedBatch(t, c.lie)
			r, err := Decode(receipt)
			if err != nil {
				t.Fatal(err)
			}
			var j ledger.Job
			if err := crowd.Decode(r.Evidence.Record, &j); err != nil {
				t.Fatal(err)
			}
			c.change(&j)
			r.Evidence.Record = crowd.Encode(&j)
			f, good := Check(r.Encode(), Trust{Chain: chain, Header: verifyHeader, Leaves: encodeLeaves(leaves)})
			names := strings.Join(failed(f), ",")
			if good || !strings.Contains(names, c.want) {
				t.Errorf("got %q want %q among them", names, c.want)
			}
		})
	}
}

// What the executor's word of a batch stands on, one thing at a time and apart from what other findings say of the same record.
func TestCheckSample_EachConditionAlone(t *testing.T) {
	agreed, _, _ := playedBatch(t, false)
	disputed, _, _ := playedBatch(t, true)
	outcome := func(change func(o *crowd.Outcome)) func(j *ledger.Job) { // of the verdict and of the executor alike
		return func(j *ledger.Job) { change(&j.Verdict.Outcome); change(&j.Places[0].Opening.Outcome) }
	}
	const executor, none, votes = "no executor of a batch", "the outcome is none of a batch", "authorities voted for the outcome of item"
	for _, c := range []struct {
		name     string
		disputed bool
		want     string // in the error; "": there is none
		change   func(j *ledger.Job)
	}{
		{"nothing", false, "", func(*ledger.Job) {}},
		{"nothing", true, "", func(*ledger.Job) {}},
		{"another plan", false, executor, func(j *ledger.Job) { j.Spec.Plan.Method = crowd.PlanPair }},
		{"a convicted executor", false, executor, func(j *ledger.Job) { j.Places[0].State = ledger.Fraud }},
		{"an executor that revealed nothing", false, executor, func(j *ledger.Job) { j.Places[0].Opening = nil }},
		{"an outcome that is not the executor's", false, executor, func(j *ledger.Job) { j.Verdict.Outcome.Result = "bafyother" }},
		{"a batch that trapped", false, none, outcome(func(o *crowd.Outcome) { o.Status = crowd.Trapped })},
		{"an exit code", false, none, outcome(func(o *crowd.Outcome) { o.ExitCode = 1 })},
		{"no root", false, none, outcome(func(o *crowd.Outcome) { o.Root = crowd.Hash{} })},
		{"all the gas of the limit", false, "", func(j *ledger.Job) { outcome(func(o *crowd.Outcome) { o.Gas = j.Spec.Limits().Gas })(j) }},
		{"more gas than the limit", false, none, func(j *ledger.Job) { outcome(func(o *crowd.Outcome) { o.Gas = j.Spec.Limits().Gas + 1 })(j) }},
		{"an answer more than items", false, "answers for 7 items of its 6", func(j *ledger.Job) {
			j.Places[1].Opening.Answers = append(j.Places[1].Opening.Answers, crowd.Hash{})
		}},
		{"a verifier less", false, "verifiers have shown their answers", func(j *ledger.Job) { j.Places[2].State = ledger.Dropped }},
		{"a convicted verifier", false, "", func(j *ledger.Job) { j.Places[2].State = ledger.Fraud }},
		{"none but convicted verifiers", false, "verifiers have shown their answers", func(j *ledger.Job) { j.Places[1].State, j.Places[2].State = ledger.Fraud, ledger.Fraud }},
		{"a liar that stands", true, "answered otherwise than the court", func(j *ledger.Job) { j.Places[2].State = ledger.Revealed }},
		{"a stranger's vote", true, votes, func(j *ledger.Job) { j.Ballots[0].Authority[0] ^= 1 }},
		{"a vote on another question", true, votes, func(j *ledger.Job) { j.Ballots[0].Question = ledger.WhatOutcome }},
		{"a vote about another item", true, votes, func(j *ledger.Job) { j.Ballots[0].Item++ }},
		{"a vote for another leaf", true, votes, func(j *ledger.Job) { j.Ballots[0].Leaf[0] ^= 1 }},
		{"a tolerant court that found nothing", true, "did not find its answer", func(j *ledger.Job) { j.Spec.Compare.Kind = crowd.CompareLines }},
	} {
		receipt := agreed
		if c.disputed {
			receipt = disputed
		}
		j, g := evidence(t, receipt)
		c.change(&j)
		if _, err := checkSample(&g, &j); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v want %q", c.name, err, c.want)
		}
	}
}

func TestReceipt_TheCourtsWordIsTheExecutors(t *testing.T) {
	receipt, _, _ := playedBatch(t, true)
	r, err := Decode(receipt)
	if err != nil {
		t.Fatal(err)
	}
	var j ledger.Job
	var g ledger.Genesis
	if err := errors.Join(crowd.Decode(r.Evidence.Record, &j), crowd.Decode(r.Evidence.Genesis, &g)); err != nil {
		t.Fatal(err)
	}
	j.Dispute.Right, j.Ballots[0].Leaf = j.Dispute.Answer, j.Dispute.Answer
	if _, err := checkSample(&g, &j); err == nil || !strings.Contains(err.Error(), "executor's word is not the court's") {
		t.Errorf("got %v", err)
	}
}

// The ledger takes any stated probability; a receipt does not.
func TestReceipt_OfABatchThatPromisesTooMuch(t *testing.T) {
	receipt, _, chain := playedBatch(t, false, func(s *crowd.JobSpec) { s.Plan.Undetected-- })
	if f, good := Check(receipt, Trust{Chain: chain, Header: verifyHeader}); good || strings.Join(failed(f), ",") != "verdict" {
		t.Errorf("got %v", failed(f))
	}
}

// An answer that is not the executor's leaf, and that nobody reported, is found by who has the leaves.
func TestReceipt_LeavesShowAnUnreportedDifference(t *testing.T) {
	receipt, leaves, _ := playedBatch(t, false)
	r, err := Decode(receipt)
	if err != nil {
		t.Fatal(err)
	}
	var j ledger.Job
	if err := crowd.Decode(r.Evidence.Record, &j); err != nil {
		t.Fatal(err)
	}
	raw := encodeLeaves(leaves)
	if err := checkLeaves(&j, raw); err != nil {
		t.Error(err)
	}
	j.Places[2].Opening.Answers[playedChecks-1][0] ^= 1
	if err := checkLeaves(&j, raw); err == nil || !strings.Contains(err.Error(), "answered otherwise") {
		t.Errorf("got %v", err)
	}
	j.Places[2].Opening.Answers = j.Places[2].Opening.Answers[:playedChecks-1]
	if err := checkLeaves(&j, raw); err == nil || !strings.Contains(err.Error(), "answered otherwise") {
		t.Errorf("an answer less: got %v", err)
	}
	j.Verdict = nil
	if err := checkLeaves(&j, raw); err == nil || !strings.Contains(err.Error(), "no batch with a result") {
		t.Errorf("no verdict: got %v", err)
	}
}

func TestItemReceipt(t *testing.T) {
	receipt, leaves, chain := playedBatch(t, true)
	r, err := Decode(receipt)
	if err != nil {
		t.Fatal(err)
	}
	trust := Trust{Chain: chain, Header: verifyHeader}
	for i := range uint32(playedItems) {
		one, err := NewItem(r, leaves, i, []byte{byte(i)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if f, good := CheckItem(one.Encode(), trust); !good {
			t.Fatalf("item %d: got %+v", i, f)
		}
	}
	one, err := NewItem(r, leaves, 5, []byte{5}, nil)
	if err != nil {
		t.Fatal(err)
	}
	data := one.Encode()
	for i := 0; i < len(data); i += 13 {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, good := CheckItem(bad, trust); good {
			t.Fatalf("byte %d changed from %q to %q passed", i, data[i], bad[i])
		}
	}
	shown := *one
	shown.Item.Stdout = []byte{6}
	if f, good := CheckItem(shown.Encode(), trust); good || strings.Join(failed(f), ",") != "item" {
		t.Errorf("another output: got %v", failed(f))
	}
	for name, change := range map[string]func(i *Item){
		"another index":   func(i *Item) { i.Index++ },
		"another status":  func(i *Item) { i.Status = crowd.Trapped.String() },
		"an exit code":    func(i *Item) { i.ExitCode++ },
		"a unit more gas": func(i *Item) { i.Gas++ },
	} {
		shown := *one
		change(&shown.Item)
		if f, good := CheckItem(shown.Encode(), trust); good || strings.Join(failed(f), ",") != "item" {
			t.Errorf("%s: got %v", name, failed(f))
		}
	}
	if _, err := DecodeItem(make([]byte, MaxItemReceipt+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("too long: got %v", err)
	}
	if _, err := NewItem(r, leaves, playedItems, nil, nil); err == nil {
		t.Error("an item that is none")
	}
	other, err := NewItem(r, leaves[1:], 5, []byte{6}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if f, good := CheckItem(other.Encode(), trust); good || strings.Join(failed(f), ",") != "item" {
		t.Errorf("an item of other leaves: got %v", failed(f))
	}
}

// A leaf holds the beginning of stderr only: what is shown behind it would be anybody's invention.
func TestItemReceipt_ShowsNoMoreOfStderrThanTheLeafHolds(t *testing.T) {
	receipt, leaves, _ := playedBatch(t, false)
	r, err := Decode(receipt)
	if err != nil {
		t.Fatal(err)
	}
	j, _ := evidence(t, receipt)
	stderr := bytes.Repeat([]byte("e"), batch.MaxError)
	leaves[5].Output = batch.Digest([]byte{5}, stderr)
	tree, err := batch.NewTree(leaves)
	if err != nil {
		t.Fatal(err)
	}
	j.Verdict.Outcome.Root = tree.Root().Top.Hash
	r.Evidence.Record = crowd.Encode(&j)
	for more, want := range map[string]string{"": "", "and more": "more of stderr is shown"} {
		one, err := NewItem(r, leaves, 5, []byte{5}, append(bytes.Clone(stderr), more...))
		if err != nil {
			t.Fatal(err)
		}
		if err := one.check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q behind it: got %v want %q", more, err, want)
		}
	}
	j.Verdict = nil
	one, err := NewItem(r, leaves, 5, []byte{5}, stderr)
	if err != nil {
		t.Fatal(err)
	}
	one.Receipt.Evidence.Record = crowd.Encode(&j)
	if err := one.check(); err == nil || !strings.Contains(err.Error(), "no batch with a result") {
		t.Errorf("no verdict: got %v", err)
	}
}

// What decodes encodes to the same bytes, and nothing but the true one passes.
func FuzzCheckItem(f *testing.F) {
	receipt, leaves, chain := playedBatch(f, false)
	r, err := Decode(receipt)
	if err != nil {
		f.Fatal(err)
	}
	one, err := NewItem(r, leaves, 5, []byte{5}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(one.Encode())
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := DecodeItem(data); err == nil && !bytes.Equal(r.Encode(), data) {
			t.Error("decodes and encodes otherwise")
		}
		if _, good := CheckItem(data, Trust{Chain: chain, Header: verifyHeader}); good && !bytes.Equal(data, one.Encode()) {
			t.Errorf("another item passed: %q", data)
		}
	})
}
