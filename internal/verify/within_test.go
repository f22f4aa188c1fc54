package verify

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// A program that fails is its user's fault only where it fails at the judge's own output: else an
// output made to crash it would be paid.
func TestJudge_WhoseFault(t *testing.T) {
	node := errors.New("the worker died")
	never := func(a, b []byte) (bool, uint64, error) { return false, 0, ErrComparator }
	long := strings.Repeat(" ", MaxCompare+1)
	for _, tt := range []struct {
		name       string
		c          Comparator
		own, their string
		equal      bool
		fault      bool
		node       bool
	}{
		{name: "equal bytes ask nobody", c: Comparator{Kind: Wasm, Run: never, Gas: 1}, own: "a", their: "a", equal: true},
		{name: "loops always", c: Comparator{Kind: Wasm, Run: never, Gas: 1}, own: "a", their: "b", fault: true},
		{name: "does not know own from itself", c: program(func(a, b string) bool { return false }), own: "a", their: "b", fault: true},
		{name: "within", c: program(strings.EqualFold), own: "a", their: "A", equal: true},
		{name: "beyond", c: program(strings.EqualFold), own: "a", their: "b"},
		{name: "crashes at their output", c: Comparator{Kind: Wasm, Gas: 9, Run: func(a, b []byte) (bool, uint64, error) {
			if string(a) == "bomb" || string(b) == "bomb" {
				return false, 9, ErrComparator
			}
			return true, 1, nil
		}}, own: "a", their: "bomb"},
		{name: "takes back its word", c: program(func(a, b string) bool { return a <= b }), own: "a", their: "b"},
		{name: "a subset is not the same", c: program(strings.Contains), own: "abc", their: "b"},
		{name: "the node's trouble", c: Comparator{Kind: Wasm, Gas: 9, Run: func(a, b []byte) (bool, uint64, error) { return false, 0, node }}, own: "a", their: "b", node: true},
		{name: "own is too long", c: Comparator{Kind: JSON}, own: strings.Repeat(" ", MaxJSON+1), their: "1", fault: true},
		{name: "theirs is too long", c: Comparator{Kind: JSON}, own: "1", their: strings.Repeat(" ", MaxJSON+1)},
		{name: "own is too long for any", c: Comparator{Kind: Text}, own: long, their: "1", fault: true},
		{name: "theirs is too long for any", c: Comparator{Kind: Text}, own: "1", their: long},
		{name: "own has too many lines", c: Comparator{Kind: Lines}, own: strings.Repeat("\n", MaxLines+1), their: "", fault: true},
		{name: "theirs has too many lines", c: Comparator{Kind: Lines}, own: "", their: strings.Repeat("\n", MaxLines+1)},
	} {
		v, err := tt.c.Judge([]byte(tt.own), []byte(tt.their))
		var f *ComparatorFault
		if v.Equal != tt.equal || errors.As(err, &f) != tt.fault || errors.Is(err, node) != tt.node || (err == nil) == (tt.fault || tt.node) {
			t.Errorf("%s: got %+v, %v", tt.name, v, err)
		}
	}
}

func program(same func(a, b string) bool) Comparator {
	return Comparator{Kind: Wasm, Gas: 9, Run: func(a, b []byte) (bool, uint64, error) { return same(string(a), string(b)), 1, nil }}
}

func TestComparatorOf(t *testing.T) {
	for _, text := range []string{"exact", "lines", "json", "numeric:rel=1e-6", "float64:abs=0.5", "float32:rel=0.25", "wasm:bafy"} {
		c, err := crowd.ParseCompare(text)
		if err != nil {
			t.Fatal(err)
		}
		v := ComparatorOf(c, func(a, b []byte) (bool, uint64, error) { return true, 1, nil })
		if err := v.Validate(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if v.Gas != uint64(c.Gas) {
			t.Errorf("%s: got %d gas want %d", text, v.Gas, c.Gas)
		}
	}
	c, _ := crowd.ParseCompare("numeric:rel=1e-6")
	for their, want := range map[string]bool{"3.14159265": true, "3.1415927": true, "3.1416": false} {
		if v, err := ComparatorOf(c, nil).Judge([]byte("3.14159265"), []byte(their)); err != nil || v.Equal != want {
			t.Errorf("%s: got %+v, %v", their, v, err)
		}
	}
}

// playedTolerant runs a tolerant pair whose executors differ; the authority finds that about the second.
func playedTolerant(t testing.TB, found ledger.Finding) (receipt []byte, chain string) {
	t.Helper()
	st := newStage(t, 3)
	id := st.run(crowd.JobSpec{
		Task:    crowd.Task{Program: "bafyprogram", Limits: crowd.Limits{Gas: 1e9, Memory: 1 << 26, Output: 1 << 20, Wall: 15 * time.Second}},
		Plan:    crowd.Plan{Method: crowd.PlanPair},
		Compare: crowd.Compare{Kind: crowd.CompareLines, GasPPM: 100_000}, Filters: crowd.Filters{MaxPrice: crowd.ReferencePrice}, Budget: 10 * crowd.Credit,
	})
	opening := func(i int) ledger.Opening {
		return ledger.Opening{Salt: crowd.Hash{byte(i)}, Outcome: crowd.Outcome{Status: crowd.Exited, Gas: 5e8 - crowd.Gas(i), Result: "bafynear" + crowd.CID(rune('a'+i))}}
	}
	for i, p := range st.job(id).Places {
		st.block(st.nodes[p.Node], &ledger.Commit{Job: id, Commitment: ledger.Commitment(id, p.Node, opening(i)), Sealed: [][]byte{{1}}})
	}
	for i, p := range st.job(id).Places {
		st.block(st.nodes[p.Node], &ledger.Reveal{Job: id, Opening: opening(i)})
	}
	for i, p := range st.job(id).Places {
		st.block(st.authority, &ledger.Vote{Job: id, Question: ledger.SameAnswer, Executor: p.Node, Finding: []ledger.Finding{ledger.Same, found}[i]})
	}
	if found != ledger.Unjudged {
		st.block(st.owner, &ledger.Accept{Job: id})
	}
	return st.receipt(id), st.g.ChainID()
}

func TestReceipt_OfATolerantTask(t *testing.T) {
	for found, result := range map[ledger.Finding]crowd.CID{ledger.Same: "bafynearb", ledger.Other: "bafyneara", ledger.Unjudged: ""} {
		receipt, chain := playedTolerant(t, found)
		findings, good := Check(receipt, Trust{Chain: chain, Header: verifyHeader, Result: result})
		if !good {
			t.Errorf("%s: got %+v", found, findings)
		}
		if f, good := Check(receipt, Trust{Chain: chain, Header: verifyHeader, Result: "bafyother"}); good || strings.Join(failed(f), ",") != "result" {
			t.Errorf("%s: another result at hand: got %v failed want result", found, failed(f))
		}
		r, err := Decode(receipt)
		if err != nil {
			t.Fatal(err)
		}
		if r.Summary.Plan.Compare != "lines:gas-apart=0.1" || (r.Summary.Paid == 0) != (found == ledger.Other) {
			t.Errorf("%s: got %+v, paid %s", found, r.Summary.Plan, r.Summary.Paid)
		}
		for name, change := range map[string]func(j *ledger.Job){
			"a vote less":       func(j *ledger.Job) { j.Ballots = j.Ballots[1:] },
			"another finding":   func(j *ledger.Job) { j.Ballots[0].Finding = ledger.Missing },
			"another authority": func(j *ledger.Job) { j.Ballots[0].Authority[0] ^= 1 },
			"a vote twice":      func(j *ledger.Job) { j.Ballots = append(j.Ballots, j.Ballots[0]) },
			"nobody stands": func(j *ledger.Job) {
				for i := range j.Places {
					j.Places[i].State = ledger.Dropped
				}
			},
			"the higher gas": func(j *ledger.Job) { j.Verdict.Outcome.Gas += 1 },
		} {
			if found == ledger.Unjudged {
				break // there is no verdict
			}
			var j ledger.Job
			if err := crowd.Decode(r.Evidence.Record, &j); err != nil {
				t.Fatal(err)
			}
			change(&j)
			forged := *r
			forged.Evidence.Record, forged.Summary = crowd.Encode(&j), summarize(chain, &j)
			f, _ := Check(forged.Encode(), Trust{Chain: chain, Header: verifyHeader})
			if !strings.Contains(strings.Join(failed(f), ","), "verdict") {
				t.Errorf("%s, %s: got %v", found, name, failed(f))
			}
		}
	}
}
