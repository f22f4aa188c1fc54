//go:build linux

package node

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/verify"
)

// One network, every plan for a single task, on real parts: what is said of each is what was done.
func TestLocal_PlansOfASingleTask(t *testing.T) {
	params := ledger.DevParams()
	params.Reputation.Alpha0, params.Reputation.Beta0 = 99e6, 1e6 // so that a few good results leave no more doubt than the floor
	n := start(t, LocalConfig{Providers: 3, Params: params})
	r := n.request(guest(t, "trivial"))
	r.Limits.Gas, r.Limits.WallMillis = 1e9, 0

	check := func(events []rpc.JobEvent, id, by string, checked bool, executors int) {
		t.Helper()
		last := events[len(events)-1]
		if v := last.Verdict; last.Stage != rpc.Settled || v == nil || v.Method != by || v.Checked != checked {
			t.Fatalf("job %s: got %+v, %+v want settled by %s, checked %v", id, last, v, by, checked)
		}
		worked := 0
		for _, m := range last.Committee {
			if m.Role == "executor" || m.Role == "auditor" {
				worked++
			}
		}
		if worked != executors {
			t.Errorf("job %s: got %d executors want %d", id, worked, executors)
		}
		want, other := rpc.Checked, rpc.Unchecked
		if !checked {
			want, other = other, want
		}
		said := func(s rpc.Stage) bool {
			return slices.ContainsFunc(events, func(e rpc.JobEvent) bool { return e.Stage == s })
		}
		if !said(want) || said(other) {
			t.Errorf("job %s: got stages %+v want %s among them, and not %s", id, events, want, other)
		}
	}

	audited, passed := 0, 0
	for i := 0; audited == 0 || passed == 0; i++ {
		if i == 60 {
			t.Fatalf("got %d audited and %d not of %d jobs want some of each", audited, passed, i)
		}
		r.Check = &rpc.TaskPlan{Method: "audit"}
		id, events := n.finish(r)
		v, err := n.Job(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if v.Audit == nil || v.Audit.Chosen == nil || v.Plan != "audit" || v.Audit.RatePPM < 50_000 {
			t.Fatalf("got %+v want the lot", v.Audit)
		}
		says := "not chosen: nobody has done the work again"
		if *v.Audit.Chosen {
			audited++
			if !slices.ContainsFunc(v.Committee, func(m rpc.Member) bool { return m.Role == "auditor" && m.Node != v.Audit.Executor }) {
				t.Errorf("got %+v want an auditor among them", v.Committee)
			}
			check(events, id.Short(), "audit", true, 2)
			says = "chosen: the work was done again"
		} else {
			passed++
			check(events, id.Short(), "audit", false, 1)
			if x, err := n.Explain(t.Context(), id); err != nil || !strings.Contains(x.Why, "not checked") {
				t.Errorf("explain: got %+v, %v want it to say that nobody checked", x, err)
			}
		}
		f, good := verify.Check(n.receipt(id), verify.Trust{Chain: n.Genesis().ChainID(), Header: VerifyHeader, Result: events[len(events)-1].Outcome.Result})
		if !good || !slices.ContainsFunc(f, func(f verify.Finding) bool { return f.Name == "audit" && strings.Contains(f.Detail, says) }) {
			t.Errorf("receipt: got %+v want %q", f, says)
		}
	}

	r.Check, r.Confidence = nil, 0.999
	q, err := n.Quote(t.Context(), r)
	if err != nil || q.Plan != "committee" || q.Executors != 3 || q.Undetected != 0.001 || q.Needed != 3 {
		t.Fatalf("got %+v, %v want a committee of 3", q, err)
	}
	id, events := n.finish(r)
	check(events, id.Short(), "committee", true, 3)
	if f, good := verify.Check(n.receipt(id), verify.Trust{Chain: n.Genesis().ChainID(), Header: VerifyHeader}); !good {
		t.Errorf("receipt: %+v", f)
	}
	r.Confidence = 0.808
	if q, err = n.Quote(t.Context(), r); err != nil || q.Plan != "audit" || q.RatePPM != 50_000 || q.Unaudited != q.Bound-params.Pay(q.Price, r.Limits.Gas) || q.Replacements != 1 || q.Stake != params.MinStake || q.Needed != 3 {
		t.Errorf("got %+v, %v want an audit at the floor, with the stake that it takes", q, err)
	}
	r.Confidence = 0.9999
	var e *rpc.Error
	if _, err = n.Quote(t.Context(), r); !errors.As(err, &e) || e.Kind != rpc.NoProvider || !strings.Contains(e.Hint, "a committee of 3 is within reach: --confidence 0.999") {
		t.Errorf("got %v (%+v) want what is within reach", err, e)
	}
}
