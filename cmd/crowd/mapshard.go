package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/verify"
)

// This file is what the effects of a flow mean: how a stage is laid out, and how a shard is posted, followed and fetched.

// cut makes the items of a stage; those of files are there since the folder is.
func (m *mapping) cut(stage int) task {
	s := &m.d.state
	st := *s.Stages[stage]
	if len(s.Flow.Stages[stage].From) > 0 {
		return m.gather(stage)
	}
	return func(context.Context) (news, error) {
		m.show.begin(st.Name, st.Index.Items)
		return m.wasCut(stage, &st), nil
	}
}

func (m *mapping) wasCut(stage int, st *stage) news {
	return news{ev: flow.WasCut{Stage: stage, Items: st.Index.Items}, do: func(s *mapState) {
		s.Stages[stage].Files, s.Stages[stage].Index = st.Files, st.Index
	}}
}

// lay asks how the next items of a stage should be checked, and lays out their shards.
func (m *mapping) lay(e flow.Lay) task {
	s := &m.d.state
	st, done := *s.Stages[e.Stage], s.pieces(e.Stage)
	who := ""
	if len(s.Stages) > 1 {
		who = st.Name + ": "
	}
	expected := st.expected(&s.Flow.Stages[e.Stage])
	parts, reads := s.parts(e.Stage), len(s.Flow.Stages[e.Stage].From) > 0
	return func(ctx context.Context) (news, error) {
		if st.CID == "" {
			f, err := os.Open(st.Program)
			if err != nil {
				return news{}, fmt.Errorf("read program: %w", err)
			}
			st.CID, err = m.c.UploadFile(ctx, f, m.moved.upload)
			f.Close()
			if err != nil {
				return news{}, err
			}
			if st.Request.Compare, err = uploadComparator(ctx, m.c, st.Request.Compare); err != nil {
				return news{}, err
			}
		}
		switch {
		case e.Pilot && e.Items == st.Index.Items && st.Request.Limits.Gas == pilotGas:
			st.Request.Limits.Gas = fewGas
		case e.Pilot && st.Request.Limits.Gas > pilotGas:
			e.Items = min(e.Items, raisedItems)
		}
		if e.Pilot && e.Items < st.Index.Items {
			m.show.say("%s: the first %d of %d items show how much gas one takes", st.Name, e.Items, st.Index.Items)
		} else if !e.Pilot && st.Auto {
			again, err := m.measure(&st, done)
			if err != nil {
				return news{}, err
			}
			if again {
				return news{ev: flow.Again{Stage: e.Stage}, do: func(s *mapState) {
					to := s.Stages[e.Stage]
					to.CID, to.Request, to.Shards = st.CID, st.Request, nil
				}}, nil
			}
		}
		if e.First > 0 && parts > 0 {
			if err := m.foresee(ctx, &st, parts, done); err != nil {
				return news{}, err
			}
		}
		st.Request.Parts, st.Request.Gather = parts, reads
		r := st.asks(e, expected)
		q, err := m.c.PlanBatch(ctx, r)
		if err == nil && q.Plan == nil && e.Pilot && e.Budget > 0 { // what crowd plan shows must do
			st.Request.Limits.Gas, r.Limits.Gas = planGas, planGas
			q, err = m.c.PlanBatch(ctx, r)
		}
		if err != nil {
			return news{}, err
		}
		if q.Plan == nil {
			return news{}, unmet(m.show.say, e.Items, &q)
		}
		for i, line := range planLines(e.Items, q.Plan) {
			switch {
			case i == 0:
				line = who + line
			case i == 1 && e.Pilot: // neither is known
				line = "price: at most " + creditText(q.Plan.Bound)
			}
			m.show.say("%s", line)
		}
		st.Plan = q.Plan
		shards, layout, err := m.layout(ctx, &st, e)
		if err != nil {
			return news{}, err
		}
		return news{ev: flow.Laid{Stage: e.Stage, Shards: layout}, do: func(s *mapState) {
			to := s.Stages[e.Stage]
			to.CID, to.Plan, to.Auto, to.Request = st.CID, st.Plan, st.Auto, st.Request
			to.Shards = append(to.Shards[:len(s.Flow.Stages[e.Stage].Shards)], shards...)
		}}, nil
	}
}

// asks is the question for a plan of the items of e. The plan allows for what layout adds to the limits.
func (st *stage) asks(e flow.Lay, expected crowd.Gas) rpc.BatchRequest {
	return rpc.BatchRequest{Items: e.Items, Shard: st.shardLimit(), Gas: expected, Start: st.Start, Limits: st.Request.Limits, Filters: st.Request.Filters,
		Confidence: st.Request.Confidence, Whole: st.Whole, Budget: e.Budget, Compare: st.Request.Compare}
}

// layout is the shards of a plan.
func (m *mapping) layout(ctx context.Context, st *stage, e flow.Lay) (shards []*shard, layout []flow.Layout, err error) {
	limits := st.Request.Limits
	if limits.WallMillis == 0 {
		limits.WallMillis = max(time.Minute, crowd.LeastWall(crowd.Limits{Gas: limits.Gas*crowd.Gas(st.Plan.Items) + st.Start, Memory: limits.Memory})).Milliseconds()
	}
	if st.Request.Gather {
		limits.WallMillis += gatherWait.Milliseconds() + int64(st.Plan.Items*uint64(st.Index.Largest)*1000/gatherRate)
		limits.WallMillis = min(limits.WallMillis, crowd.MaxWall.Milliseconds())
	}
	jobs := (e.Items + st.Plan.Items - 1) / st.Plan.Items
	expect := time.Duration(st.Plan.WaitMillis) * time.Millisecond / time.Duration((jobs+uint64(m.flow.Parallel)-1)/uint64(m.flow.Parallel))
	bounds := map[uint64]crowd.Credits{} // by items: there are two sizes at most
	for at := uint64(0); at < e.Items; at += st.Plan.Items {
		size := min(st.Plan.Items, e.Items-at)
		plan, err := st.Plan.SamplePlan, error(nil)
		if size < st.Plan.Items {
			if plan, err = fewer(st.Plan, uint32(size)); err != nil {
				return nil, nil, err
			}
		}
		sh := &shard{Limits: limits, Plan: plan}
		sh.Limits.Gas += (st.Start + crowd.Gas(size) - 1) / crowd.Gas(size) // the fewer items, the more each of them bears
		bound, known := bounds[size]
		if !known && e.Budget == 0 { // nobody asks for the credit
			bound = st.Plan.Bound / crowd.Credits(jobs)
		} else if !known {
			r := st.post(sh, size)
			r.Stdin = "to come"
			q, err := m.c.Quote(ctx, r)
			if err != nil {
				return nil, nil, err
			}
			bound = q.Bound
			bounds[size] = bound
		}
		shards = append(shards, sh)
		layout = append(layout, flow.Layout{Items: size, Bound: bound, Expect: expect})
	}
	return shards, layout, nil
}

// fewer is the plan of a shard with fewer items than its siblings, that is as sure: the tenth that a cheater falsifies is
// rounded, so that it may take some checks more.
func fewer(p *rpc.BatchPlan, items uint32) (rpc.SamplePlan, error) {
	allowed, err := verify.Allowed(confidence(p))
	plan := p.SamplePlan
	plan.Checks = min(plan.Checks, items)
	escapes := func() verify.Chance {
		return verify.SampleUndetected(items, &crowd.Plan{Verifiers: plan.Verifiers, Checks: plan.Checks, Replacements: plan.Replacements})
	}
	for err == nil && plan.Checks < min(items, crowd.MaxChecks) && escapes() > allowed {
		plan.Checks++
	}
	return plan, err
}

// confidence is that of a plan: what was shown is what must be, but for rounding.
func confidence(p *rpc.BatchPlan) float64 { return max(0, 1-p.Undetected-1e-9) }

// unmet is the error for a batch that cannot be had, after the nearest plans were shown.
func unmet(say func(string, ...any), n uint64, q *rpc.BatchQuote) error {
	hint := "ask for less confidence, a larger budget or looser filters; see: crowd provider list"
	if q.Best != nil {
		say("the best within reach:")
		for _, line := range planLines(n, q.Best) {
			say("%s", line)
		}
		hint = fmt.Sprintf("--confidence %.4g is within reach", floorTo(1-q.Best.Undetected))
	}
	if q.Least != nil {
		say("what was asked takes:")
		for _, line := range planLines(n, q.Least) {
			say("%s", line)
		}
		if q.Best == nil {
			hint = fmt.Sprintf("it takes %s and %s for a shard",
				creditText(q.Least.Bound), count(q.Least.Nodes, "node"))
		}
	}
	return &rpc.Error{Kind: rpc.NoProvider, Err: fmt.Errorf("no plan for %s: %s", count(n, "item"), q.Why), Hint: hint}
}

// floorTo cuts a probability to four digits, so that what is shown can be had.
func floorTo(p float64) float64 { return float64(int(p*1e4)) / 1e4 }

// planLines are a plan for people.
func planLines(n uint64, p *rpc.BatchPlan) []string {
	shards := fmt.Sprintf("%d jobs of up to %d", p.Shards, p.Items)
	if p.Shards == 1 {
		shards = "one job"
	}
	who, price := fmt.Sprintf("%d verifiers re-run", p.Verifiers), "at most "+creditText(p.Bound)
	if p.Verifiers == 1 {
		who = "one verifier re-runs"
	}
	if about := p.Executors + p.Verification; about < p.Bound {
		price = "about " + creditText(about) + ", " + price
	}
	return []string{
		fmt.Sprintf("plan: %s in %s; of each %s %s that nobody else knows: %s more gas", count(n, "item"), shards, who, count(p.Checks, "item"), percentText(p.Overhead)),
		fmt.Sprintf("price: %s; expected wait %s", price, waitText(p.WaitMillis)),
		fmt.Sprintf("a cheating executor escapes with probability %s; any shard is wrong and accepted with at most %s", chanceText(p.Undetected), chanceText(min(p.Any, 1))),
	}
}

// shardLimit is how many items of a stage a node should hold at a time; 0: what the plan says.
func (st *stage) shardLimit() uint64 {
	if st.Index.Bytes <= shardBytes {
		return st.ShardSize
	}
	most := max(1, shardBytes*st.Index.Items/st.Index.Bytes)
	if st.ShardSize > 0 {
		most = min(most, st.ShardSize)
	}
	return most
}

// expected gas of an item, from the shards that are done; 0: nothing is known.
func (st *stage) expected(f *flow.Stage) crowd.Gas {
	var gas crowd.Gas
	items := uint64(0)
	for k := range f.Shards {
		if j := st.Shards[k].used(&f.Shards[k]); j != nil && f.Shards[k].Done {
			gas, items = gas+j.Gas, items+f.Shards[k].Items
		}
	}
	if items == 0 {
		return 0
	}
	return min(max(1, gas/crowd.Gas(items)), st.Request.Limits.Gas)
}

// measure sets the gas limit of the items to come from those that are done, or raises that of the first ones,
// which are to run again then.
func (m *mapping) measure(st *stage, done []piece) (again bool, err error) {
	var most crowd.Gas
	largest, good, all, dry, together := uint32(1), 0, 0, 0, uint64(0)
	for _, p := range done {
		items, err := readItems(m.d.path(st.Name, "items"), p.first, p.items)
		if err != nil {
			return false, err
		}
		together = max(together, p.items)
		err = m.each(st, p, func(i uint32, l batch.Leaf, _, _ io.Reader) error {
			if all++; !l.UserError() {
				good++
			}
			if l.Status == crowd.OutOfGas {
				dry++
			} else {
				most, largest = max(most, l.Gas), max(largest, items[i].Size)
			}
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	if limit := &st.Request.Limits.Gas; dry > 0 && *limit < mostPilotGas {
		was := *limit
		*limit = min(*limit*8, mostPilotGas)
		m.show.say("%s: %d of the first %s ran out of %s; they run again, with %s", st.Name, dry, count(uint64(all), "item"), gasText(was), gasText(*limit))
		return true, nil
	}
	if good == 0 {
		some, err := m.failures(st, done[0])
		if err != nil {
			return false, err
		}
		why := ""
		if len(some) > 0 {
			why = fmt.Sprintf(": %s: %.200s", some[0].Name, some[0].why())
		}
		return false, &rpc.Error{Kind: rpc.UserError, Err: fmt.Errorf("all of the first %d items failed%s", all, why), Hint: "correct the program, or give it what it needs with --gas and --memory, and begin anew"}
	}
	hi, lo := bits.Mul64(uint64(most)*4, uint64(max(st.Index.Largest, largest)))
	limit, _ := bits.Div64(hi, lo, uint64(largest)) // largest item of all against largest of these: both below 2^21
	m.show.say("%s: an item took at most %s; the limit for the others is %s", st.Name, gasText(most), gasText(crowd.Gas(limit+100_000)))
	st.Request.Limits.Gas, st.Auto = crowd.Gas(limit+100_000), false
	st.Start = most * crowd.Gas(together) // each of these bore as much as the others, and no more than it used
	return false, nil
}

// post is the request for a shard of so many items.
func (st *stage) post(sh *shard, items uint64) rpc.PostRequest {
	r := st.Request
	plan := sh.Plan
	r.Program, r.Stdin, r.Items, r.Plan, r.Limits = st.CID, sh.Stdin, uint32(items), &plan, sh.Limits
	r.Confidence = confidence(st.Plan)
	return r
}

// post puts an attempt on its way. Its flow is on disk with what it is about to do, so that a command that is killed
// between the question and the answer finds its job again and pays for no second one.
func (m *mapping) post(e flow.Post) task {
	s := &m.d.state
	st, sh, f := *s.Stages[e.Ref.Stage], *s.Stages[e.Ref.Stage].Shards[e.Ref.Shard], s.Flow.Stages[e.Ref.Stage].Shards[e.Ref.Shard]
	budget := s.Budget
	sources, _, _ := s.sources(e.Ref.Stage)
	delete(m.refused, e.Ref)
	return func(ctx context.Context) (news, error) {
		if sh.Stdin == "" || st.Request.Gather {
			cid, err := m.stdin(ctx, &st, sources, f.First, f.Items)
			if rpc.KindOf(err) == rpc.Unavailable && st.Request.Gather {
				return news{ev: flow.Refused{Ref: e.Ref, Source: true, Why: err.Error()}, do: func(*mapState) { m.refused[e.Ref] = err }}, nil
			} else if err != nil {
				return news{}, err
			}
			sh.Stdin = cid
			if err := m.keep(ctx, func(s *mapState) { s.Stages[e.Ref.Stage].Shards[e.Ref.Shard].Stdin = cid }); err != nil {
				return news{}, err
			}
		}
		r := st.post(&sh, f.Items)
		if budget > 0 {
			r.Budget = e.Bound
		}
		others, err := m.others(ctx, r.Filters, e.Avoid, int(st.Plan.Nodes))
		var id crowd.JobID
		if err == nil {
			r.Filters.Providers = others
			id, err = m.c.Post(ctx, r)
		}
		kind := rpc.KindOf(err)
		switch {
		case err == nil:
			return news{ev: flow.Posted{Ref: e.Ref, Job: id}}, nil
		case kind == rpc.Unavailable || kind == rpc.Internal: // there may be a job
			return news{}, err
		}
		return news{ev: flow.Refused{Ref: e.Ref, Passing: kind == rpc.NoProvider || kind == rpc.InsufficientFunds, Why: err.Error()},
			do: func(*mapState) { m.refused[e.Ref] = err }}, nil
	}
}

// stdin puts the items of a shard, or a manifest of what they consist of, into the node's store.
func (m *mapping) stdin(ctx context.Context, st *stage, sources []crowd.JobID, first, n uint64) (crowd.CID, error) {
	if st.Request.Gather {
		groups, err := m.d.groups(st, first, n)
		if err != nil {
			return "", err
		}
		g, err := m.c.Gather(ctx, rpc.GatherRequest{Jobs: sources, Items: groups})
		return g.Manifest, err
	}
	items, err := readItems(m.d.path(st.Name, "items"), first, n)
	if err != nil {
		return "", err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(frames(w, st.Files, items)) }()
	defer r.Close()
	return m.c.UploadFile(ctx, r, m.moved.upload)
}

// others are the providers that may be drawn when the executors of some jobs may not. Their verifiers may not
// either, if there are enough others.
func (m *mapping) others(ctx context.Context, f rpc.Filters, avoid []crowd.JobID, need int) ([]crowd.NodeID, error) {
	if len(avoid) == 0 {
		return f.Providers, nil
	}
	var executors, all []crowd.NodeID
	for _, id := range avoid {
		v, err := m.c.Job(ctx, id)
		if err != nil {
			return nil, err
		}
		for _, p := range v.Committee {
			if all = append(all, p.Node); p.Role == "executor" {
				executors = append(executors, p.Node)
			}
		}
	}
	known, err := m.c.Providers(ctx)
	if err != nil {
		return nil, err
	}
	for _, not := range [][]crowd.NodeID{all, executors} {
		var out []crowd.NodeID
		for _, p := range known {
			if fits(f, &p) && !slices.Contains(not, p.Node) {
				out = append(out, p.Node)
			}
		}
		if len(out) >= need {
			rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
			return out[:min(len(out), crowd.MaxFilter)], nil
		}
	}
	return nil, rpc.Errorf(rpc.NoProvider, "a second job of a shard needs %d providers besides those that have it", need)
}

// fits reports whether a provider may be drawn under f, as far as is known here.
func fits(f rpc.Filters, p *rpc.Provider) bool {
	return p.Suspended == "" && p.Online && (f.MaxPrice == 0 || p.Price <= f.MaxPrice) && (len(f.Providers) == 0 || slices.Contains(f.Providers, p.Node)) &&
		(len(f.Countries) == 0 || slices.Contains(f.Countries, p.Country)) &&
		!slices.ContainsFunc(f.Tags, func(t string) bool { return !slices.Contains(p.Tags, t) })
}

// find looks for the job of an attempt that an earlier command may have posted without hearing of it.
func (m *mapping) find(r flow.Ref) task {
	s := &m.d.state
	st, sh, f := *s.Stages[r.Stage], *s.Stages[r.Stage].Shards[r.Shard], s.Flow.Stages[r.Stage].Shards[r.Shard]
	since := s.Began.Add(-time.Minute)
	var known []crowd.JobID
	for _, a := range f.Attempts {
		known = append(known, a.Job)
	}
	return func(ctx context.Context) (news, error) {
		out := flow.Found{Ref: r}
		if sh.Stdin == "" {
			return news{ev: out}, nil
		}
		// The command before may have been killed with its question on the way: who finds nothing looks once more.
		for look := range 2 {
			if look > 0 {
				select {
				case <-time.After(m.again):
				case <-ctx.Done():
					return news{}, ctx.Err()
				}
			}
			jobs, err := m.c.Jobs(ctx, 0)
			if err != nil {
				return news{}, err
			}
			want := st.post(&sh, f.Items)
			for _, j := range slices.Backward(jobs) { // the oldest first
				if slices.Contains(known, j.ID) || j.Stdin != sh.Stdin || j.Program != st.CID || uint64(j.Items) != f.Items || j.Posted.Before(since) {
					continue
				}
				v, err := m.c.Job(ctx, j.ID)
				if err != nil {
					return news{}, err
				}
				if got := v.Request; slices.Equal(got.Args, want.Args) && slices.Equal(got.Env, want.Env) && got.Limits == want.Limits && got.Plan != nil && *got.Plan == *want.Plan {
					out.Jobs = append(out.Jobs, j.ID)
				}
			}
			if len(out.Jobs) > 0 {
				break
			}
		}
		return news{ev: out}, nil
	}
}

// follow waits for the end of a job.
func (m *mapping) follow(r flow.Ref, id crowd.JobID) task {
	exact, speculate := exactly(m.d.state.Stages[r.Stage].Request.Compare), !m.flow.NoSpeculation && !m.d.state.NoSpeculation
	return func(ctx context.Context) (news, error) {
		open, ended := context.WithCancel(ctx)
		var pulse sync.WaitGroup
		if speculate {
			pulse.Go(func() { m.listen(open, r, id) })
		}
		stop := func() { ended(); pulse.Wait() }
		defer stop()
		var last rpc.JobEvent
		for ev, err := range m.c.Watch(ctx, id) {
			if err != nil {
				return news{}, err
			}
			if ev.Progress != nil {
				m.show.at(r, uint64(ev.Progress.Items))
			}
			last = ev
		}
		stop()
		v, err := m.c.Job(ctx, id)
		if err != nil {
			return news{}, err
		}
		end := flow.Ended{Ref: r, Paid: v.Price, Why: last.Why}
		done := jobDone{Try: r.Try}
		switch last.Stage {
		case rpc.Settled:
			end.State = flow.Settled
			if b := v.Batch; b != nil {
				done.Gas, done.CheckGas, done.Undetected = b.Gas, b.CheckGas, b.Undetected
				if b.Failed != nil {
					done.BadItems = *b.Failed
				}
				if b.Root != nil && exact { // else two right results may differ
					end.Root = *b.Root
				}
			}
		case rpc.Cancelled:
			end.State = flow.Cancelled
		case rpc.Failed:
			end.State = flow.Failed
			end.Source = v.Batch != nil && v.Batch.NoParts
			end.User = v.Failure != nil && v.Failure.Kind.Fault() == rpc.FaultCaller
		default:
			return news{}, fmt.Errorf("job %s: nothing more is told of it, and it is %s", id.Short(), last.Stage)
		}
		if v.Verdict != nil {
			for _, b := range v.Verdict.Blame {
				if b.Fault == "malice" && b.Node != nil {
					done.Convicted = append(done.Convicted, *b.Node)
					m.show.say("job %s: %s", id.Short(), blameText(b))
				}
			}
		}
		return news{ev: end, do: func(s *mapState) {
			if shards := s.Stages[r.Stage].Shards; r.Shard < len(shards) {
				shards[r.Shard].Jobs = append(shards[r.Shard].Jobs, done)
			}
		}}, nil
	}
}

// fetch brings a shard's result and receipt into its folder, which appears when it is whole.
func (m *mapping) fetch(r flow.Ref, id crowd.JobID) task {
	s := &m.d.state
	dir, items := m.d.shardDir(s.Stages[r.Stage], r.Shard), uint32(s.Flow.Stages[r.Stage].Shards[r.Shard].Items)
	files := []string{"leaves", "stdout", "stderr"}
	if s.Stages[r.Stage].Request.Parts > 0 { // the outputs stay where they are; what failed items said is worth fetching
		files = files[:1]
		if j := s.Stages[r.Stage].Shards[r.Shard].used(&s.Flow.Stages[r.Stage].Shards[r.Shard]); j != nil && j.BadItems > 0 {
			files = append(files, "stderr")
		}
	}
	return func(ctx context.Context) (news, error) {
		tmp := dir + ".tmp"
		if err := errors.Join(os.RemoveAll(tmp), os.RemoveAll(dir), os.Mkdir(tmp, 0o777)); err != nil {
			return news{}, err
		}
		for _, name := range files {
			f, err := os.Create(filepath.Join(tmp, name))
			if err != nil {
				return news{}, err
			}
			n, err := m.c.Download(ctx, id, name, f)
			m.moved.download(n)
			if err = errors.Join(err, f.Close()); err != nil && name == "stderr" && len(files) == 2 {
				err = os.Remove(f.Name()) // its holders are away
			}
			if err != nil {
				return news{}, err
			}
		}
		if err := saveReceipt(ctx, m.c, id, filepath.Join(tmp, "receipt.json")); err != nil {
			return news{}, err
		}
		if r, err := openShard(tmp, items); err != nil {
			return news{}, fmt.Errorf("the result of job %s: %w", id.Short(), err)
		} else {
			r.close()
		}
		return news{ev: flow.Fetched{Ref: r}}, os.Rename(tmp, dir)
	}
}
