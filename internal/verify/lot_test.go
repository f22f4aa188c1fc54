package verify

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// The ledger's integers and the formulas here are one rule.
func TestAuditRule_LedgerAndFormulaAgree(t *testing.T) {
	p := ledger.MainParams()
	honest := FromPPM(AuditColluding).Not()
	for _, pay := range []crowd.Credits{1, 7, 1000, crowd.Credit, 123_456_789_012} {
		for _, stake := range []crowd.Credits{0, 1, pay - 1, pay, pay + 1, 3 * pay, 20 * pay, 38 * pay, 39*pay - 1, 39 * pay, 39*pay + 1, 1000 * pay} {
			want, err := Stakes{Gain: pay, Reward: pay, Stake: stake}.LeastAudit(AuditColluding)
			if err != nil {
				want = Million // all of it
			}
			if got := ledger.AuditRate(pay, stake); got != want {
				t.Errorf("pay %d stake %d: the ledger audits %d ppm, the formula %d", pay, stake, got, want)
			}
		}
		for rate := uint32(crowd.AuditFloor); rate <= Million; rate += 9973 {
			want, err := Stakes{Gain: pay, Reward: pay}.LeastStake(floorAnd(FromPPM(rate), honest))
			if got := ledger.AuditStake(pay, rate); err != nil || got != want {
				t.Errorf("pay %d rate %d: the ledger wants a stake of %d, the formula %d (%v)", pay, rate, got, want, err)
			}
		}
	}
	for _, passed := range []uint64{0, 1e12, 5e12, 60e12, 1e15} {
		for _, failed := range []uint64{0, 1e12} {
			for _, done := range []uint64{0, 1, 19, 20, 1e6, 1e12} {
				for _, caught := range []uint64{0, 1} {
					r := ledger.Reputation{Passed: passed, Failed: failed, Done: done, Caught: caught}
					want := Record{HonestyPPM: r.Honesty(&p.Reputation, 0), Good: done, Caught: caught}.CheckPPM(0)
					if got := r.RecordRate(&p.Reputation, 0); got != want {
						t.Errorf("%+v: the ledger audits %d ppm, the formula %d", r, got, want)
					}
				}
			}
		}
	}
}

// audited plays jobs under an audit on the real ledger until the lot falls as wanted, the executor lying if asked to.
func audited(t testing.TB, chosen, lie bool) (receipt []byte, chain string) {
	t.Helper()
	st := newStage(t, 4, func(p *ledger.Params) { p.Reputation.Alpha0, p.Reputation.Beta0 = 99e6, 1e6 }) // so that the record is soon beyond doubt
	right := crowd.Outcome{Status: crowd.Exited, Gas: 5e8, Result: "bafyright"}
	wrong := crowd.Outcome{Status: crowd.Exited, Gas: 5e8, Result: "bafywrong"}
	for range 60 {
		id := st.run(crowd.JobSpec{
			Task: crowd.Task{Program: "bafyprogram", Limits: crowd.Limits{Gas: 1e9, Memory: 1 << 26, Output: 1 << 20, Wall: 15 * time.Second}},
			Plan: crowd.Plan{Method: crowd.PlanAudit, Rate: crowd.AuditFloor, Replacements: 1}, Filters: crowd.Filters{MaxPrice: crowd.ReferencePrice}, Budget: 10 * crowd.Credit,
		})
		j := st.job(id)
		lies := lie && j.Audit.Rate < 300_000 // only who has a record to hide behind
		opening := func(i int) ledger.Opening {
			o := ledger.Opening{Outcome: right, Salt: crowd.Hash{byte(i)}}
			if lies && i == 0 {
				o.Outcome = wrong
			}
			return o
		}
		commit := func(i int) {
			p := st.job(id).Places[i]
			st.block(st.nodes[p.Node], &ledger.Commit{Job: id, Commitment: ledger.Commitment(id, p.Node, opening(i)), Sealed: [][]byte{{1}}})
		}
		commit(0)
		st.block(nil, nil)
		st.block(nil, nil)
		if len(st.job(id).Places) > 1 {
			commit(1)
		}
		for i, p := range st.job(id).Places {
			st.block(st.nodes[p.Node], &ledger.Reveal{Job: id, Opening: opening(i)})
		}
		if st.job(id).State == ledger.Court {
			st.block(st.authority, &ledger.Vote{Job: id, Question: ledger.WhatOutcome, Outcome: right})
		}
		st.block(st.owner, &ledger.Accept{Job: id})
		if a := j.Audit; a.Rate < 300_000 && len(st.job(id).Places) > 1 == chosen && lies == lie {
			return st.receipt(id), st.g.ChainID()
		}
		if lies && len(st.job(id).Places) > 1 {
			t.Fatal("the liar was caught before it was passed over")
		}
	}
	t.Fatal("the lot never falls so")
	return nil, ""
}

func TestReceipt_OfAnAuditSaysWhatWasChecked(t *testing.T) {
	for _, c := range []struct {
		name        string
		chosen, lie bool
		by, says    string
		state       string
		passed      float64
	}{
		{"not chosen", false, false, ledger.ByAudit, "not chosen: nobody has done the work again", "revealed", 0.1},
		{"chosen", true, false, ledger.ByAgreement, "chosen: the work was done again", "revealed", 0.01},
	} {
		t.Run(c.name, func(t *testing.T) {
			receipt, chain := audited(t, c.chosen, c.lie)
			f, good := Check(receipt, Trust{Chain: chain, Header: verifyHeader, Result: "bafyright"})
			if !good {
				t.Fatalf("got %+v", f)
			}
			r, err := Decode(receipt)
			if err != nil {
				t.Fatal(err)
			}
			s := r.Summary
			if s.Outcome.By != c.by || s.Audit == nil || s.Audit.Chosen != c.chosen || s.Plan.RatePPM != crowd.AuditFloor || s.Plan.Undetected != Stated(&crowd.Plan{Method: crowd.PlanAudit, Rate: crowd.AuditFloor, Replacements: 1}).Undetected || s.Places[0].State != c.state {
				t.Errorf("got %+v by %s under %+v", s.Audit, s.Outcome.By, s.Plan)
			}
			if s.Passed == nil || *s.Passed != c.passed {
				t.Errorf("a wrong result passes: got %v want a chance of %v", s.Passed, c.passed)
			}
			i := slices.IndexFunc(f, func(f Finding) bool { return f.Name == "audit" })
			if i < 0 || !strings.Contains(f[i].Detail, c.says) {
				t.Errorf("got %+v want the lot explained: %s", f, c.says)
			}
		})
	}
}

// Whoever forges the record of an audit, by the lot, its rate or its stake, is found out by the lot, the stake rule or the verdict.
func TestReceipt_OfAnAuditCannotBeForged(t *testing.T) {
	free, chainFree := audited(t, false, false)
	again, chainAgain := audited(t, true, false)
	for _, c := range []struct {
		name   string
		chosen bool
		want   []string
		change func(j *ledger.Job)
	}{
		{"nothing", false, nil, func(*ledger.Job) {}},
		{"nothing", true, nil, func(*ledger.Job) {}},
		{"a lot that was drawn", false, []string{"verdict"}, func(j *ledger.Job) {
			for j.Audit.Beacon[0] = 1; !j.Audit.Chosen(j.ID); j.Audit.Beacon[0]++ {
			}
		}},
		{"no lot", false, []string{"audit", "verdict"}, func(j *ledger.Job) { j.Audit.Beacon = crowd.Hash{} }},
		{"no audit at all", false, []string{"audit", "verdict"}, func(j *ledger.Job) { j.Audit = nil }},
		{"no audit at all of a job that failed", false, []string{"audit"}, func(j *ledger.Job) { j.State, j.Verdict, j.Audit = ledger.Failed, nil, nil }},
		{"called checked", false, []string{"verdict"}, func(j *ledger.Job) { j.Verdict.By = ledger.ByAgreement }},
		{"two whom the lot passed over", false, []string{"verdict"}, func(j *ledger.Job) {
			j.Places = append(j.Places, ledger.Place{Node: j.Drawn[1].Node, State: ledger.Revealed, Opening: j.Places[0].Opening})
		}},
		{"a convicted executor besides", false, []string{"verdict"}, func(j *ledger.Job) {
			j.Places = append(j.Places, ledger.Place{Node: j.Drawn[1].Node, State: ledger.Fraud, Opening: &ledger.Opening{}})
		}},
		{"a false draw, on which no lot is checked", false, []string{"draw", "audit"}, func(j *ledger.Job) { j.Drawn[0].Proof[5] ^= 1 }},
		{"a rate below the floor", false, []string{"audit"}, func(j *ledger.Job) { j.Audit.Rate = crowd.AuditFloor - 1 }},
		{"a stake that does not frighten", false, []string{"audit"}, func(j *ledger.Job) { j.Audit.Stake = crowd.Credit }},
		{"the lot of a block before the commitment", false, []string{"audit"}, func(j *ledger.Job) { j.Audit.At = j.DrawAt }},
		{"the lot of a later block", false, []string{"audit"}, func(j *ledger.Job) { j.Audit.At += 5 }},
		{"somebody else's lot", false, []string{"audit", "verdict"}, func(j *ledger.Job) {
			for j.Audit.Executor = j.Drawn[1].Node; j.Audit.Chosen(j.ID); j.Audit.Beacon[31]++ {
			}
		}},
		{"an audit that was not drawn", true, []string{"audit"}, func(j *ledger.Job) {
			for j.Audit.Beacon[0] = 1; j.Audit.Chosen(j.ID); j.Audit.Beacon[0]++ {
			}
		}},
		{"one of two", true, []string{"verdict"}, func(j *ledger.Job) {
			j.Places[1].State, j.Places[1].Opening = ledger.Dropped, nil
			j.Verdict.By = ledger.ByAudit
		}},
		{"an auditor out of turn", true, []string{"audit"}, func(j *ledger.Job) {
			seated := *j
			seated.Places = j.Places[:1]
			turn := seated.Auditors()
			for i := range j.Places[1:] {
				j.Places[1+i].Node = turn[len(turn)-1].Node
			}
			j.Places = append(j.Places, ledger.Place{Node: turn[0].Node, State: ledger.Dropped})
		}},
		{"an executor who audits itself", true, []string{"draw"}, func(j *ledger.Job) { j.Places[1].Node = j.Places[0].Node }},
		{"an auditor who was not drawn", true, []string{"draw"}, func(j *ledger.Job) { j.Places[1].Node[5] ^= 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			receipt, chain := free, chainFree
			if c.chosen {
				receipt, chain = again, chainAgain
			}
			forged := provenOf(t, receipt, chain, func(j *ledger.Job, _ *Header) { c.change(j) })
			f, _ := Check(forged, Trust{Chain: chain, Header: verifyHeader})
			got := failed(f)
			for _, want := range c.want {
				if !slices.Contains(got, want) {
					t.Errorf("got %v failed want %s among them", got, want)
				}
			}
			if len(c.want) == 0 && len(got) > 0 {
				t.Errorf("got %+v want all good", f)
			}
		})
	}
}

// What an audit's lot must fit, one thing at a time and apart from what other findings say of the same record.
func TestCheckAudit_EachConditionAlone(t *testing.T) {
	free, _ := audited(t, false, false)
	again, _ := audited(t, true, false)
	least := func(p *ledger.Params, j *ledger.Job) crowd.Credits {
		return ledger.AuditStake(p.Pay(j.Spec.Filters.MaxPrice, j.Spec.Limits().Gas), j.Audit.Rate)
	}
	before := func(j *ledger.Job) (steps []*ledger.Step) { // the executor gets its place, and it commits
		for i := range j.History {
			if s := &j.History[i]; s.State == ledger.Running && s.Height < j.Audit.At {
				steps = append(steps, s)
			}
		}
		if len(steps) != 2 {
			t.Fatalf("got %+v want two steps before the lot", j.History)
		}
		return steps
	}
	const rate, late, turn, lying = "the plan and the floor want", "which did not come after the commitment", "out of turn", "lying pays"
	for _, c := range []struct {
		name   string
		chosen bool
		want   string // in the error; "": there is none
		change func(p *ledger.Params, j *ledger.Job)
	}{
		{"a rate below the plan's", false, rate, func(_ *ledger.Params, j *ledger.Job) { j.Spec.Plan.Rate = j.Audit.Rate + 1 }},
		{"a rate below the floor", false, rate, func(_ *ledger.Params, j *ledger.Job) {
			j.Spec.Plan.Rate, j.Audit.Rate, j.Audit.Stake = 0, crowd.AuditFloor-1, ^crowd.Credits(0)
		}},
		{"a rate of more than all", true, rate, func(_ *ledger.Params, j *ledger.Job) { j.Audit.Rate = Million + 1 }},
		{"the least stake with which lying loses", false, "", func(p *ledger.Params, j *ledger.Job) { p.SlashPPM, j.Audit.Stake = Million, least(p, j) }},
		{"a micro-credit less", false, lying, func(p *ledger.Params, j *ledger.Job) { p.SlashPPM, j.Audit.Stake = Million, least(p, j)-1 }},
		{"a stake of which half is slashed", false, lying, func(p *ledger.Params, j *ledger.Job) { p.SlashPPM, j.Audit.Stake = Million/2, 2*least(p, j)-1 }},
		{"a place before the draw", false, late, func(_ *ledger.Params, j *ledger.Job) {
			for _, s := range before(j) {
				s.Height = j.DrawAt
			}
		}},
		{"a commitment in the block of the lot", false, late, func(_ *ledger.Params, j *ledger.Job) { before(j)[1].Height = j.Audit.At }},
		{"the lot of the commitment's block", false, late, func(_ *ledger.Params, j *ledger.Job) { j.Audit.At = before(j)[1].Height }},
		{"no commitment before the lot", false, late, func(_ *ledger.Params, j *ledger.Job) { before(j)[1].State = ledger.Claiming }},
		{"a lot in a block in which nothing was drawn", false, late, func(_ *ledger.Params, j *ledger.Job) {
			for i := range j.History {
				if s := &j.History[i]; s.Height == j.Audit.At {
					s.State = ledger.Delivering
				}
			}
		}},
		{"work done again that the lot did not choose", true, "that the lot did not choose", func(_ *ledger.Params, j *ledger.Job) {
			for j.Audit.Beacon[0] = 1; j.Audit.Chosen(j.ID); j.Audit.Beacon[0]++ {
			}
		}},
		{"a second auditor", true, "where one is drawn", func(_ *ledger.Params, j *ledger.Job) {
			j.Places = append(j.Places, ledger.Place{Node: j.Auditors()[0].Node, State: ledger.Revealed})
		}},
		{"an auditor that was not drawn", true, turn, func(_ *ledger.Params, j *ledger.Job) { j.Places[1].Node[5] ^= 1 }},
		{"an executor that audits itself", true, turn, func(_ *ledger.Params, j *ledger.Job) { j.Places[1].Node = j.Places[0].Node }},
	} {
		receipt := free
		if c.chosen {
			receipt = again
		}
		j, g := evidence(t, receipt)
		c.change(&g.Params, &j)
		if _, err := checkAudit(&g.Params, &j); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v want %q", c.name, err, c.want)
		}
	}
}

// A committee's receipt wants every one of its executors.
func TestReceipt_OfACommitteeCountsAll(t *testing.T) {
	st := newStage(t, 5)
	id := st.run(crowd.JobSpec{
		Task: crowd.Task{Program: "bafyprogram", Limits: crowd.Limits{Gas: 1e9, Memory: 1 << 26, Output: 1 << 20, Wall: 15 * time.Second}},
		Plan: crowd.Plan{Method: crowd.PlanCommittee, Executors: 4}, Filters: crowd.Filters{MaxPrice: crowd.ReferencePrice}, Budget: 10 * crowd.Credit,
	})
	opening := func(i int) ledger.Opening {
		return ledger.Opening{Outcome: crowd.Outcome{Status: crowd.Exited, Gas: 5e8, Result: "bafyright"}, Salt: crowd.Hash{byte(i)}}
	}
	for i, p := range st.job(id).Places {
		st.block(st.nodes[p.Node], &ledger.Commit{Job: id, Commitment: ledger.Commitment(id, p.Node, opening(i)), Sealed: [][]byte{{1}}})
	}
	for i, p := range st.job(id).Places {
		st.block(st.nodes[p.Node], &ledger.Reveal{Job: id, Opening: opening(i)})
	}
	st.block(st.owner, &ledger.Accept{Job: id})
	receipt, chain := st.receipt(id), st.g.ChainID()
	f, good := Check(receipt, Trust{Chain: chain, Header: verifyHeader})
	r, err := Decode(receipt)
	if err != nil || !good || r.Summary.Plan.Undetected != 0.0001 || r.Summary.Plan.Executors != 4 {
		t.Fatalf("got %+v %v under %+v", f, err, r.Summary.Plan)
	}
	forged := provenOf(t, receipt, chain, func(j *ledger.Job, _ *Header) { j.Places[3].State, j.Places[3].Opening = ledger.Dropped, nil })
	if f, _ := Check(forged, Trust{Chain: chain, Header: verifyHeader}); !slices.Contains(failed(f), "verdict") {
		t.Errorf("three of four: got %v failed want the verdict", failed(f))
	}
}
