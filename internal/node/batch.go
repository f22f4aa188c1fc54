package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/verify"
)

// This file is what a node does for batches: it cuts them into jobs that its network can
// execute and check, and reads what came of them.

// completeBatch states the plan's probability and refuses one that does not reach the confidence asked for.
func completeBatch(spec *crowd.JobSpec, confidence float64) error {
	p := &spec.Plan
	undetected := verify.SampleUndetected(spec.Items, p)
	allowed, err := verify.Allowed(confidence)
	if err != nil {
		return rpc.Errorf(rpc.BadRequest, "%w", err)
	}
	if undetected > allowed {
		return rpc.Errorf(rpc.BadRequest, "confidence %v: %d verifiers with %d checks each of %d items leave a cheater undetected with %s",
			confidence, p.Verifiers, p.Checks, spec.Items, undetected).WithHint("crowd_planBatch says which plan reaches it")
	}
	p.Undetected = uint64(undetected)
	return nil
}

// batchPlanner looks for the shards of one batch.
type batchPlanner struct {
	r         rpc.BatchRequest
	compare   crowd.Compare
	params    ledger.Params
	spec      crowd.JobSpec // of one item
	price     crowd.Price
	providers []ledger.Provider // that may execute one item, largest stake first
	records   map[crowd.NodeID]verify.Record
	burn      uint32
	most      uint64 // items of one shard
	checks    uint64 // most of one verifier
	wall      time.Duration
	claims    time.Duration // that a draw waits for; 0: it ends when all have come
	shards    uint64        // that the budget and a promise about the whole are divided by
}

// PlanBatch implements rpc.Backend.
func (b backend) PlanBatch(ctx context.Context, r rpc.BatchRequest) (rpc.BatchQuote, error) {
	if r.Confidence == 0 {
		r.Confidence = verify.DefaultConfidence
	}
	if r.Gas == 0 {
		r.Gas = r.Limits.Gas
	}
	if r.Items == 0 || r.Items > 1<<40 {
		return rpc.BatchQuote{}, rpc.Errorf(rpc.BadRequest, "%d items, want 1 to %d", r.Items, uint64(1)<<40)
	}
	if r.Start > 1<<53 {
		return rpc.BatchQuote{}, rpc.Errorf(rpc.BadRequest, "a start of %d gas, want up to %d", r.Start, uint64(1)<<53)
	}
	if r.Gas > r.Limits.Gas {
		return rpc.BatchQuote{}, rpc.Errorf(rpc.BadRequest, "%d gas are expected of an item, its limit is %d", r.Gas, r.Limits.Gas)
	}
	one := rpc.PostRequest{Program: "to come", Stdin: "to come", Items: 1, Plan: &rpc.SamplePlan{Verifiers: 1, Checks: 1}, Limits: r.Limits, Filters: r.Filters, Compare: r.Compare}
	if r.Limits.WallMillis == 0 {
		one.Limits.WallMillis = crowd.LeastWall(crowd.Limits{Gas: r.Limits.Gas, Memory: r.Limits.Memory}).Milliseconds()
	}
	spec, err := one.Spec()
	if err != nil {
		return rpc.BatchQuote{}, err
	}
	if spec.Filters.MaxPrice == 0 {
		spec.Filters.MaxPrice = crowd.ReferencePrice
	}
	if _, err := verify.Allowed(r.Confidence); err != nil {
		return rpc.BatchQuote{}, rpc.Errorf(rpc.BadRequest, "%w", err)
	}
	s, h, err := b.providers(ctx)
	if err != nil {
		return rpc.BatchQuote{}, rpc.Errorf(rpc.Unavailable, "read the providers off the chain: %w", err)
	}
	pl := batchPlanner{r: r, compare: spec.Compare, params: b.params, spec: spec, price: spec.Filters.MaxPrice, burn: b.params.BurnPPM, records: map[crowd.NodeID]verify.Record{}}
	rules, now := b.params.Reputation, b.chain.Head().Time
	e := s.EachEligible(b.id, &spec, h, func(p ledger.Provider) {
		pl.providers = append(pl.providers, p)
		rep := s.Reputation(p.ID.Address())
		pl.records[p.ID] = verify.Record{HonestyPPM: rep.Honesty(&rules, now), Good: rep.Done, Caught: rep.Caught}
	})
	slices.SortFunc(pl.providers, func(x, y ledger.Provider) int { return cmp.Compare(y.Stake, x.Stake) })
	q := rpc.BatchQuote{Price: pl.price, Eligible: int(e.Count), Requirements: requirements(e)}
	pl.most, pl.wall = min(r.Items, crowd.MaxItems), crowd.MaxWall
	if e.Tickets > pl.params.CommitteeUnits {
		pl.claims = time.Duration(pl.params.ClaimWindow) * time.Millisecond
	}
	if r.Limits.WallMillis > 0 {
		pl.wall = spec.Task.Limits.Wall
	}
	if pl.checks = uint64(ledger.MaxChecks(len(b.cfg.Genesis.Authorities))); pl.checks < crowd.MaxChecks {
		pl.checks = max(pl.checks, 2) - 1 // a last, smaller shard may need one more
	}
	if r.Shard > 0 {
		pl.most = min(pl.most, r.Shard)
	}
	pl.shards = 1
	p, err := pl.plan()
	for range 4 { // more shards may need more checks each, and leave less of the budget for one
		n := (r.Items + p.Items - 1) / max(p.Items, 1)
		if err != nil || n <= pl.shards || !r.Whole && r.Budget == 0 {
			break
		}
		pl.shards = n
		p, err = pl.plan()
	}
	var unmet *verify.Unmet
	switch {
	case err == nil:
		q.Plan = b.viewPlan(&pl, &p)
	case errors.As(err, &unmet):
		q.Why, q.Best, q.Least = unmet.Why, b.viewPlan(&pl, unmet.Best), b.viewPlan(&pl, unmet.Least)
	default:
		return q, rpc.Errorf(rpc.BadRequest, "%w", err)
	}
	return q, nil
}

// plan is the plan of one shard, the others being like it: the largest that the stakes and the bound on checks
// allow, but no larger than what keeps all nodes busy once its checks are cheap enough.
func (pl *batchPlanner) plan() (verify.BatchPlan, error) {
	var found *verify.BatchPlan
	best := error(nil)
	tried := uint64(0)
	for v := 1; v <= crowd.MaxVerifiers && v < len(pl.providers); v++ {
		n := min(pl.most, pl.affordable(pl.providers[v].Stake))
		if n == tried {
			continue
		}
		tried = n
		p, err := pl.fit(n)
		switch {
		case err != nil:
			best = cmp.Or(best, err)
		case found == nil || p.Meets() && !found.Meets() || p.Meets() == found.Meets() && p.OverheadPPM < found.OverheadPPM:
			found = &p
		}
		if found != nil && found.Meets() {
			break
		}
	}
	if found == nil {
		if best != nil {
			return verify.BatchPlan{}, best
		}
		return pl.fit(pl.most)
	}
	if found.Meets() && pl.r.Shard == 0 {
		executors := max(1, uint64(len(pl.providers))*verify.Million/(verify.Million+uint64(found.GoalPPM)))
		if n := max((pl.r.Items+executors-1)/executors, found.GoalItems); n < found.Items {
			if p, err := pl.fit(n); err == nil && p.Meets() {
				found = &p
			}
		}
	}
	if n := (pl.r.Items + found.Items - 1) / found.Items; n > 1 { // of even size
		if p, err := pl.fit((pl.r.Items + n - 1) / n); err == nil {
			found = &p
		}
	}
	return *found, nil
}

// limit is the gas limit of an item in a shard of n: the fewer, the more of the start does each bear.
func (pl *batchPlanner) limit(n uint64) crowd.Gas {
	return pl.r.Limits.Gas + (pl.r.Start+crowd.Gas(n)-1)/crowd.Gas(n)
}

// affordable is of how many items a stake covers the pay, which the ledger asks of every place, as far as
// their gas fits the wall time.
func (pl *batchPlanner) affordable(stake crowd.Credits) uint64 {
	n := uint64(1)
	for step := uint64(1) << 20; step > 0; step /= 2 {
		m := n + step
		if uint64(pl.limit(m)) > (1<<63)/m {
			continue
		}
		if gas := pl.limit(m) * crowd.Gas(m); pl.price.Cost(gas) <= stake && crowd.LeastWall(crowd.Limits{Gas: gas, Memory: pl.r.Limits.Memory}) <= pl.wall {
			n = m
		}
	}
	return n
}

// besides is what a shard of n items locks besides the pay for gas: for starts, the court and an inspection.
func (pl *batchPlanner) besides(n uint64, verifiers uint32) crowd.Credits {
	s := pl.spec
	s.Task.Limits.Gas = pl.limit(n)
	s.Items, s.Plan.Verifiers, s.Plan.Checks = uint32(min(n, crowd.MaxItems)), verifiers, 1
	free := pl.params
	free.StartGas, free.InspectFee = 0, 0
	s.Compare = pl.compare
	all := pl.params.EscrowFor(&s)
	s.Compare = crowd.Compare{}
	gas := free.EscrowFor(&s)
	return all - min(all, gas)
}

// fit is the plan of a shard with n items, or with so few that the checks stay in their bound.
func (pl *batchPlanner) fit(n uint64) (verify.BatchPlan, error) {
	for {
		r := verify.Request{
			Tasks: n, Shards: 1, Gas: pl.r.Gas, MaxGas: pl.limit(n), Price: pl.price, MaxVerifiers: crowd.MaxVerifiers,
			Confidence: pl.r.Confidence, Promise: verify.Detection, BurnPPM: pl.burn,
		}
		if !pl.compare.Strict() {
			r.Class, r.Comparator = verify.Tolerant, verify.Kind(pl.compare.Kind)
		}
		if pl.r.Budget > 0 { // one micro-credit buys nothing, and zero would be no bound
			each := pl.r.Budget / crowd.Credits(pl.shards)
			r.Budget = max(1, each-min(each, pl.besides(n, crowd.MaxVerifiers)))
		}
		if pl.r.Whole {
			r.Promise, r.Confidence = verify.Acceptance, 1-(1-r.Confidence)/float64(pl.shards)
		}
		for i := range pl.providers {
			if p := &pl.providers[i]; pl.affordable(p.Stake) >= n {
				r.Candidates = append(r.Candidates, verify.Candidates{Count: 1, Record: pl.records[p.ID], Stake: p.Stake})
			}
		}
		p, err := verify.ForBatch(r)
		if err != nil || p.Checks <= pl.checks {
			return p, err
		}
		n = max(1, min(n-1, n*pl.checks/p.Checks))
	}
}

// Of viewPlan's guess how long a batch takes.
const (
	jobLatency  = time.Second // of draw, commitment, reveal and delivery, besides the claims
	gasRate     = 1e9         // gas that an executor does in a second
	jobsAtATime = 8
)

// viewPlan is p, the plan of one shard, for the whole batch.
func (b backend) viewPlan(pl *batchPlanner, p *verify.BatchPlan) *rpc.BatchPlan {
	if p == nil {
		return nil
	}
	n := (pl.r.Items + p.Items - 1) / p.Items
	all := func(c crowd.Credits) crowd.Credits { // by items: the last shard may be smaller
		if c > ^crowd.Credits(0)/crowd.Credits(n) {
			return ^crowd.Credits(0)
		}
		return c * crowd.Credits(n)
	}
	side := max(1, min(uint64(len(pl.providers))/max(p.Nodes, 1), jobsAtATime))
	one := jobLatency + pl.claims + time.Duration(float64(p.Items)*float64(pl.r.Gas)/gasRate*float64(time.Second))
	return &rpc.BatchPlan{
		SamplePlan: rpc.SamplePlan{Verifiers: p.Verifiers, Checks: uint32(p.Checks), Replacements: p.Replacements}, Shards: n, Items: p.Items, Nodes: p.Nodes,
		Undetected: p.Undetected.Float(), Accepted: p.Accepted.Float(), Any: p.Accepted.Times(n).Float(),
		Overhead:  float64(p.OverheadPPM) / verify.Million,
		Executors: all(p.Cost.Executors), Verification: all(p.Cost.Verification), Bound: all(p.Cost.Escrow + pl.besides(p.Items, p.Verifiers) + crowd.Credits(p.Verifiers) + 1), MinStake: p.MinStake, Compare: pl.compare.String(),
		WaitMillis: (time.Duration((n+side-1)/side) * one).Milliseconds(),
		Assumptions: append(p.Assumptions(),
			fmt.Sprintf("a run uses %g Mgas, and executors do %g Mgas in a second", float64(pl.r.Gas)/1e6, gasRate/1e6)),
	}
}

// viewBatch is what the record, and the result if it is here, say of a batch; nil of a single task.
func (b backend) viewBatch(p *page) *rpc.BatchView {
	j := &p.job
	if j.Spec.Items == 0 {
		return nil
	}
	v := &rpc.BatchView{Items: j.Spec.Items, Parts: j.Spec.Shuffle.Parts, Gather: j.Spec.Shuffle.Gather, Holders: holders(j), NoParts: lackedParts(j), Undetected: verify.Chance(j.Spec.Plan.Undetected).Float()}
	if j.Spec.Plan.Method == crowd.PlanSample {
		v.Plan = &rpc.SamplePlan{Verifiers: j.Spec.Plan.Verifiers, Checks: j.Spec.Plan.Checks, Replacements: j.Spec.Plan.Replacements}
	}
	if e := j.Executor(); e != nil {
		root := e.Opening.Outcome.Root
		v.Root, v.Leaves = &root, e.Opening.Outcome.Leaves
	}
	if d := j.Dispute; d != nil {
		v.Dispute = &rpc.Dispute{Item: d.Item, Verifier: d.Verifier, Executor: d.Executor, Answer: d.Answer, Reporter: d.Reporter}
		right := d.Right
		if j.IsCleared(d.Item) { // of a tolerant job: who stands was right
			if right = d.Executor; j.Executor() == nil {
				right = d.Answer
			}
		}
		if right != (crowd.Hash{}) {
			v.Dispute.Right = &right
		}
	}
	if !p.delivered {
		return v
	}
	leaves, err := readLeaves(filepath.Join(b.resultDir(j.ID), "leaves"), j.Spec.Items)
	if err != nil {
		b.log.Warn("leaves", "job", j.ID.Short(), "err", err)
		return v
	}
	failed := uint32(0)
	for _, l := range leaves {
		v.Gas += l.Gas
		if l.UserError() {
			failed++
		}
	}
	v.Failed = &failed
	for i := range j.Places {
		for _, k := range sample(j, &j.Places[i]) {
			v.CheckGas += leaves[k].Gas
		}
	}
	return v
}

// sample is which items a verifier has shown that it re-ran.
func sample(j *ledger.Job, p *ledger.Place) []uint32 {
	if !p.Verifier || p.Opening == nil {
		return nil
	}
	lot, err := j.Lot(p.Node, p.Opening)
	if err != nil {
		return nil
	}
	return ledger.Sampled(&j.Spec, lot)
}

// readLeaves reads the leaves of a result that was held against its root when it was delivered.
func readLeaves(path string, n uint32) ([]batch.Leaf, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return batch.DecodeLeaves(raw, n)
}

// Reputation implements rpc.Backend.
func (b backend) Reputation(ctx context.Context, a crowd.Address) (rpc.Reputation, error) {
	var all []ledger.Change
	for _, key := range [][]byte{ledger.ProviderKey(a), ledger.ReputationKey(a), ledger.EvidenceKey(a)} {
		raw, err := b.chain.Get(ctx, key)
		if err != nil {
			return rpc.Reputation{}, rpc.Errorf(rpc.Unavailable, "read %s off the chain: %w", a, err)
		}
		if raw != nil {
			all = append(all, ledger.Change{Key: string(key), Val: raw})
		}
	}
	if len(all) == 0 {
		return rpc.Reputation{}, rpc.Errorf(rpc.NotFound, "the chain knows nothing of %s", a)
	}
	all = append(all, ledger.Change{Key: string(ledger.ParamsKey()), Val: crowd.Encode(&b.params)})
	s := ledger.Load(func(f func(string, []byte)) {
		for _, c := range all {
			f(c.Key, c.Val)
		}
	})
	st := s.Standing(a, b.chain.Head().Time)
	share := func(ppm uint32) float64 { return float64(ppm) / 1e6 }
	sum := func(x uint64) float64 { return float64(x) / 1e12 }
	r := &st.Reputation
	v := rpc.Reputation{
		Address: a, Honesty: share(st.Honesty), Availability: share(st.Availability), Weight: share(st.Weight), Consumer: share(st.Consumer),
		Newcomer: st.Newcomer, Caught: r.Caught, Buried: st.Tombstoned, Done: r.Done, Work: r.Work, Faults: r.Faults, Missed: r.Missed, Reported: r.Reported,
		Passed: sum(r.Passed), Failed: sum(r.Failed), Up: sum(r.Up), Down: sum(r.Down), Evidence: []rpc.Evidence{},
	}
	if p, ok := s.Provider(a); ok {
		v.Node = &p.ID
	}
	for _, e := range st.Evidence {
		v.Evidence = append(v.Evidence, rpc.Evidence{Job: e.Job, Passed: e.Passed, Difficulty: share(e.Difficulty), Height: e.Height})
	}
	return v, nil
}
