//go:build linux

package node

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/adversary"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/verify"
)

func wrongItems(rate float64) Cheat {
	return func(e executor.Executor) executor.Executor {
		return adversary.WrongItems{Honest: e.(interface {
			executor.Executor
			executor.Batcher
		}), Rate: rate, Seed: 7}
	}
}

func frames(t testing.TB, items [][]byte) io.Reader {
	t.Helper()
	var b bytes.Buffer
	if err := batch.WriteFrames(&b, uint32(len(items)), func(i uint32) uint64 { return uint64(len(items[i])) },
		func(i uint32, w io.Writer) error { _, err := w.Write(items[i]); return err }); err != nil {
		t.Fatal(err)
	}
	return &b
}

// lines are n items, of which the bad ones are poison, and what testdata/fnv.c makes of the others.
func lines(n int, bad ...int) (items [][]byte, want []string) {
	for i := range n {
		items = append(items, fmt.Appendf(nil, "line %d of a text, and some more words so that it has a length\n", i))
	}
	for _, i := range bad {
		items[i] = []byte("a poison line\n")
	}
	for _, line := range items {
		h := fnv.New32a()
		h.Write(line)
		s := fmt.Sprintf("%08x\n", h.Sum32())
		if bytes.Contains(line, []byte("poison")) {
			s = ""
		}
		want = append(want, s)
	}
	return items, want
}

var itemLimits = rpc.Limits{Gas: 1e6, Memory: 16 << 20, Output: 1 << 10, WallMillis: 120_000}

func (n *network) planBatch(r rpc.BatchRequest) *rpc.BatchPlan {
	n.t.Helper()
	q, err := n.PlanBatch(n.t.Context(), r)
	if err != nil || q.Plan == nil {
		n.t.Fatalf("plan: %+v %v", q, err)
	}
	return q.Plan
}

// outputs of a delivered batch.
func (n *network) outputs(id crowd.JobID, items int) (out []string) {
	n.t.Helper()
	raw := n.stdout(id)
	f, err := batch.OpenFrames(strings.NewReader(raw), int64(len(raw)), uint32(items))
	if err != nil {
		n.t.Fatal(err)
	}
	for i := range uint32(items) {
		b, err := f.Read(i)
		if err != nil {
			n.t.Fatal(err)
		}
		out = append(out, string(b))
	}
	return out
}

// Two thousand lines, a node that gets a fifth of its items wrong, and one poison line: whatever is accepted is what
// this machine computes itself, the liar loses its stake as soon as it is drawn, and nobody else anything.
func TestLocal_BatchWithALiarEqualsNative(t *testing.T) {
	const liar, poison = 0, 1234
	n := start(t, LocalConfig{Providers: 6, Cheats: map[int]Cheat{liar: wrongItems(0.2)}, Stakes: map[int]crowd.Credits{liar: 300 * crowd.Credit}})
	items, want := lines(2000, poison)
	plan := n.planBatch(rpc.BatchRequest{Items: uint64(len(items)), Shard: 2000, Limits: itemLimits, Gas: 100_000})
	if plan.Shards != 1 || plan.Undetected > 0.01 || plan.Nodes > 5 {
		t.Fatalf("plan: %+v", plan)
	}
	r := rpc.PostRequest{
		Program: n.uploadFrom(bytes.NewReader(build(t, "testdata/fnv.c"))), Stdin: n.uploadFrom(frames(t, items)),
		Items: uint32(len(items)), Plan: &plan.SamplePlan, Limits: itemLimits,
	}
	caught, accepted := false, 0
	for jobs := 0; !caught || accepted == 0; jobs++ {
		if jobs == 20 {
			t.Fatal("the liar was not drawn in 20 jobs")
		}
		id, events := n.finish(r)
		last := events[len(events)-1]
		if last.Stage == rpc.Failed {
			if n.stake(liar) != 0 {
				t.Fatalf("failed, and not for the liar: %+v", last)
			}
			caught = true
			continue
		}
		if last.Stage != rpc.Settled {
			t.Fatalf("got %+v", last)
		}
		accepted++
		caught = caught || n.stake(liar) == 0
		for i, got := range n.outputs(id, len(items)) {
			if got != want[i] {
				t.Fatalf("item %d: got %q want %q", i, got, want[i])
			}
		}
		v, err := n.Job(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		b := v.Batch
		if b == nil || b.Failed == nil || *b.Failed != 1 || b.Gas != v.Outcome.Gas || b.Root == nil {
			t.Fatalf("got %+v", b)
		}
		measured := float64(b.CheckGas) / float64(b.Gas)
		verifiers := 0
		for _, m := range v.Committee {
			if m.Role == "verifier" && len(m.Sample) == int(plan.Checks) && m.Match != nil && *m.Match {
				verifiers++
			}
		}
		t.Logf("useful %d gas, checks %d gas: %.2f %%, planned %.2f %%; %d of %d verifiers", b.Gas, b.CheckGas, 100*measured, 100*plan.Overhead, verifiers, plan.Verifiers)
		if measured > plan.Overhead*1.05 || verifiers == 0 {
			t.Errorf("got an overhead of %.4f by %d verifiers, planned %.4f by %d", measured, verifiers, plan.Overhead, plan.Verifiers)
		}
		if findings, good := verify.Check(n.receipt(id), verify.Trust{Chain: n.Genesis().ChainID(), Header: VerifyHeader}); !good {
			t.Errorf("receipt: %+v", findings)
		}
	}
	for i := 1; i < n.Local.Providers(); i++ {
		if got := n.stake(i); got != providerStake {
			t.Errorf("honest provider %d has a stake of %s", i, got)
		}
	}
	rep, err := n.Reputation(t.Context(), n.Local.Provider(liar).Address())
	if err != nil || rep.Caught != 1 || !rep.Buried || len(rep.Evidence) == 0 || rep.Evidence[len(rep.Evidence)-1].Passed {
		t.Errorf("the liar's reputation: %+v %v", rep, err)
	}
}

// A plan that nodes, stakes or the budget cannot meet names the nearest that can.
func TestLocal_PlanOfABatch(t *testing.T) {
	small := 100 * crowd.Credit
	n := start(t, LocalConfig{Providers: 3, Stakes: map[int]crowd.Credits{0: small, 1: small, 2: small}})
	ask := rpc.BatchRequest{Items: 3000, Limits: itemLimits, Gas: 100_000}
	for _, c := range []struct {
		name   string
		change func(*rpc.BatchRequest)
		check  func(rpc.BatchQuote) bool
	}{
		{"three nodes are too few for 0.999", func(r *rpc.BatchRequest) { r.Confidence = 0.999 }, func(q rpc.BatchQuote) bool {
			return q.Plan == nil && q.Least != nil && q.Least.Nodes > 3 && q.Best != nil && q.Best.Nodes <= 3
		}},
		{"0.9 is within reach", func(r *rpc.BatchRequest) { r.Confidence = 0.9 }, func(q rpc.BatchQuote) bool {
			return q.Plan != nil && q.Plan.Undetected <= 0.1 && q.Plan.Nodes <= 3 && q.Plan.Checks <= crowd.MaxChecks
		}},
		{"no budget", func(r *rpc.BatchRequest) { r.Confidence, r.Budget = 0.9, 1000 }, func(q rpc.BatchQuote) bool {
			return q.Plan == nil && strings.Contains(q.Why, "budget")
		}},
		{"more than a stake covers", func(r *rpc.BatchRequest) { r.Confidence, r.Limits.Gas, r.Gas, r.Limits.WallMillis = 0.8, 1e9, 1e9, 0 }, func(q rpc.BatchQuote) bool {
			return q.Plan != nil && q.Plan.Items > 50 && q.Plan.Items <= 100 // 100 credits of stake, one for each item
		}},
		{"more than a stake covers, with a start", func(r *rpc.BatchRequest) {
			r.Confidence, r.Limits.Gas, r.Gas, r.Start, r.Limits.WallMillis = 0.8, 1e9, 1e9, 50e9, 0
		}, func(q rpc.BatchQuote) bool {
			return q.Plan != nil && q.Plan.Items > 10 && q.Plan.Items <= 50
		}},
		{"more than the wall time allows", func(r *rpc.BatchRequest) { r.Confidence, r.Limits.WallMillis = 0.9, 14_000 }, func(q rpc.BatchQuote) bool {
			return q.Plan != nil && q.Plan.Items <= 1000 && crowd.LeastWall(crowd.Limits{Gas: itemLimits.Gas * crowd.Gas(q.Plan.Items), Memory: itemLimits.Memory}) <= 14*time.Second
		}},
		{"as long as it takes", func(r *rpc.BatchRequest) { r.Confidence, r.Limits.WallMillis = 0.9, 0 }, func(q rpc.BatchQuote) bool {
			return q.Plan != nil && q.Plan.Items >= 500
		}},
		{"gpu", func(r *rpc.BatchRequest) { r.Filters.Tags = []string{"gpu"} }, func(q rpc.BatchQuote) bool {
			return q.Plan == nil && q.Eligible == 0 && q.Best == nil
		}},
		{"millions of items", func(r *rpc.BatchRequest) { r.Confidence, r.Items = 0.9, 4_000_000 }, func(q rpc.BatchQuote) bool {
			return q.Plan != nil && q.Plan.Checks <= crowd.MaxChecks && q.Plan.Items*q.Plan.Shards >= 4_000_000 && q.Plan.Overhead < 0.12
		}},
		{"all of it", func(r *rpc.BatchRequest) { r.Confidence, r.Whole = 0.9, true }, func(q rpc.BatchQuote) bool {
			return q.Plan != nil && q.Plan.Any <= 0.1
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ask
			c.change(&r)
			q, err := n.PlanBatch(t.Context(), r)
			if err != nil || !c.check(q) {
				t.Errorf("got %+v, plan %+v, best %+v, least %+v, %v", q, q.Plan, q.Best, q.Least, err)
			}
			if q.Plan == nil {
				return
			}
			post := rpc.PostRequest{Program: "p", Stdin: "s", Items: uint32(q.Plan.Items), Plan: &q.Plan.SamplePlan, Limits: r.Limits, Filters: r.Filters, Confidence: r.Confidence}
			if least := crowd.LeastWall(crowd.Limits{Gas: r.Limits.Gas * crowd.Gas(q.Plan.Items), Memory: r.Limits.Memory}); r.Limits.WallMillis == 0 {
				post.Limits.WallMillis = least.Milliseconds()
			}
			if r.Whole {
				post.Confidence = 1 - q.Plan.Undetected
			}
			if quote, err := n.Quote(t.Context(), post); err != nil || quote.Eligible < quote.Needed {
				t.Errorf("the plan cannot be posted: %+v %v", quote, err)
			}
		})
	}
	weak := rpc.PostRequest{Program: "p", Stdin: "s", Items: 3000, Plan: &rpc.SamplePlan{Verifiers: 1, Checks: 1}, Limits: itemLimits}
	if _, err := n.Quote(t.Context(), weak); rpc.KindOf(err) != rpc.BadRequest || !strings.Contains(err.Error(), "confidence") {
		t.Errorf("a plan below the confidence: got %v", err)
	}
}

// benchmarkMap measures items that were executed, checked and delivered, end to end, shards of that size one after another or side by side.
func benchmarkMap(b *testing.B, shard, side int) {
	n := start(b, LocalConfig{Providers: 7})
	program := n.uploadFrom(bytes.NewReader(build(b, "testdata/fnv.c")))
	items, _ := lines(shard)
	plan := n.planBatch(rpc.BatchRequest{Items: uint64(shard), Shard: uint64(shard), Limits: itemLimits, Gas: 20_000})
	if plan.Shards != 1 {
		b.Fatalf("plan: %+v", plan)
	}
	r := rpc.PostRequest{Program: program, Stdin: n.uploadFrom(frames(b, items)), Items: uint32(shard), Plan: &plan.SamplePlan, Limits: itemLimits}
	n.finish(r)
	done, begin := 0, time.Now()
	laps := map[rpc.Stage]time.Duration{}
	for b.Loop() {
		ends := make(chan []rpc.JobEvent, side)
		for k := range side {
			r := r
			r.Args = []string{fmt.Sprint(done + k)}
			go func() {
				_, events := n.finish(r)
				ends <- events
			}()
		}
		for range side {
			events := <-ends
			for i, ev := range events[1:] {
				laps[ev.Stage] += ev.Time.Sub(events[i].Time)
			}
			done += shard
		}
	}
	b.ReportMetric(float64(done)/time.Since(begin).Seconds(), "items/s")
	b.ReportMetric(100*plan.Overhead, "%overhead")
	for s, d := range laps {
		b.ReportMetric(float64(d.Milliseconds())*float64(shard)/float64(done), "ms-to-"+string(s))
	}
}

func BenchmarkMap_FNV_2kItems(b *testing.B)    { benchmarkMap(b, 2000, 1) }
func BenchmarkMap_FNV_10kItems(b *testing.B)   { benchmarkMap(b, 10_000, 1) }
func BenchmarkMap_FNV_15kItems(b *testing.B)   { benchmarkMap(b, 15_000, 1) }
func BenchmarkMap_FNV_10kItemsx2(b *testing.B) { benchmarkMap(b, 10_000, 2) }
