package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// reposts is how often one command posts a shard again whose job failed.
const reposts = 3

// repostPause is the first pause before that; each is twice as long as the one before.
const repostPause = time.Second

// phases runs what is not done yet.
func (m *mapping) phases(ctx context.Context) error {
	s := &m.d.state
	if err := m.run(ctx, s.Map); err != nil {
		return err
	}
	if s.Reduce == nil {
		return nil
	}
	if s.Reduce.Index.Items == 0 {
		if err := m.shuffle(); err != nil {
			return err
		}
	}
	return m.run(ctx, s.Reduce)
}

// run posts and follows the shards of a phase until all are done.
func (m *mapping) run(ctx context.Context, p *phase) error {
	if p.CID == "" {
		f, err := os.Open(p.Program)
		if err != nil {
			return fmt.Errorf("read program: %w", err)
		}
		cid, err := m.c.UploadFile(ctx, f, nil)
		f.Close()
		if err != nil {
			return err
		}
		compare, err := uploadComparator(ctx, m.c, p.Request.Compare)
		if err != nil {
			return err
		}
		if err := m.d.change(func(*mapState) { p.CID, p.Request.Compare = cid, compare }); err != nil {
			return err
		}
	}
	m.show.begin(p.Name, p.Index.Items)
	for {
		covered := uint64(0)
		for _, sh := range p.Shards {
			covered += sh.Items
		}
		if err := m.shards(ctx, p); err != nil {
			return err
		}
		if covered == p.Index.Items {
			return nil
		}
		n := p.Index.Items - covered
		if p.Auto && covered == 0 {
			n = min(n, pilotItems)
			m.show.say("%s: the first %d of %d items show how much gas one takes", p.Name, n, p.Index.Items)
		} else if p.Auto {
			if err := m.measure(p); err != nil {
				return err
			}
		}
		if err := m.plan(ctx, p, covered, n); err != nil {
			return err
		}
	}
}

// plan asks how n items should be checked, and lays out their shards.
func (m *mapping) plan(ctx context.Context, p *phase, first, n uint64) error {
	r := rpc.BatchRequest{Items: n, Shard: p.shardLimit(), Gas: p.expected(), Limits: p.Request.Limits, Filters: p.Request.Filters,
		Confidence: p.Request.Confidence, Whole: p.Whole, Compare: p.Request.Compare}
	if s := &m.d.state; s.Budget > 0 {
		spent := s.spent()
		if spent >= s.Budget {
			return &rpc.Error{Kind: rpc.OverBudget, Err: fmt.Errorf("%s are spent of a budget of %s, and %d items are left", creditText(spent), creditText(s.Budget), n)}
		}
		r.Budget = s.Budget - spent
	}
	q, err := m.c.PlanBatch(ctx, r)
	if err != nil {
		return err
	}
	if q.Plan == nil {
		return unmet(m.show.say, n, &q)
	}
	for _, line := range planLines(n, q.Plan) {
		m.show.say("%s", line)
	}
	return m.d.change(func(*mapState) {
		p.Plan = q.Plan
		limits := p.Request.Limits
		if limits.WallMillis == 0 {
			limits.WallMillis = max(time.Minute, crowd.LeastWall(limits.Gas*crowd.Gas(q.Plan.Items))).Milliseconds()
		}
		for at := uint64(0); at < n; at += q.Plan.Items {
			size := min(q.Plan.Items, n-at)
			plan := q.Plan.SamplePlan
			if size < q.Plan.Items { // of fewer items a check says a little less, as shares are rounded
				plan.Checks = min(plan.Checks+1, crowd.MaxChecks, uint32(size))
			}
			p.Shards = append(p.Shards, &shard{First: first + at, Items: size, Limits: limits, Plan: plan})
		}
	})
}

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
			hint = fmt.Sprintf("it takes %s and %d nodes for a shard", creditText(q.Least.Bound), q.Least.Nodes)
		}
	}
	return &rpc.Error{Kind: rpc.NoProvider, Err: fmt.Errorf("no plan for %d items: %s", n, q.Why), Hint: hint}
}

// floorTo cuts a probability to four digits, so that what is shown can be had.
func floorTo(p float64) float64 { return float64(int(p*1e4)) / 1e4 }

// planLines are a plan for people.
func planLines(n uint64, p *rpc.BatchPlan) []string {
	shards := fmt.Sprintf("%d jobs of up to %d", p.Shards, p.Items)
	if p.Shards == 1 {
		shards = "one job"
	}
	return []string{
		fmt.Sprintf("plan: %d items in %s; of each %d verifiers re-run %d items that nobody else knows: %s more gas", n, shards, p.Verifiers, p.Checks, percentText(p.Overhead)),
		fmt.Sprintf("price: about %s, at most %s; expected wait %s", creditText(p.Executors+p.Verification), creditText(p.Bound), elapsedText(time.Duration(p.WaitMillis)*time.Millisecond)),
		fmt.Sprintf("a cheating executor escapes with probability %s; any shard is wrong and accepted with at most %s", chanceText(p.Undetected), chanceText(min(p.Any, 1))),
	}
}

// spent is what ended jobs cost, and what others may still cost.
func (s *mapState) spent() (sum crowd.Credits) {
	for _, p := range s.phases() {
		for _, sh := range p.Shards {
			sum += sh.Paid // a failed job's owner is made whole
		}
	}
	return sum
}

// shardLimit is how many items of a phase a node should hold at a time; 0: what the plan says.
func (p *phase) shardLimit() uint64 {
	if p.Index.Bytes <= shardBytes {
		return p.ShardSize
	}
	most := max(1, shardBytes*p.Index.Items/p.Index.Bytes)
	if p.ShardSize > 0 {
		most = min(most, p.ShardSize)
	}
	return most
}

// expected gas of an item, from the shards that are done; 0: nothing is known.
func (p *phase) expected() crowd.Gas {
	var gas crowd.Gas
	items := uint64(0)
	for _, sh := range p.Shards {
		if sh.Done {
			gas, items = gas+sh.Gas, items+sh.Items
		}
	}
	if items == 0 {
		return 0
	}
	return min(max(1, gas/crowd.Gas(items)), p.Request.Limits.Gas)
}

// measure sets the gas limit of the items to come from those that are done.
func (m *mapping) measure(p *phase) error {
	var most crowd.Gas
	largest, good, all := uint32(1), 0, 0
	for k, sh := range p.Shards {
		items, err := readItems(m.d.path(p.Name, "items"), sh.First, sh.Items)
		if err != nil {
			return err
		}
		err = m.each(p, k, func(i uint32, l batch.Leaf, _, _ io.Reader) error {
			if all++; !l.UserError() {
				good++
			}
			if l.Status != crowd.OutOfGas {
				most, largest = max(most, l.Gas), max(largest, items[i].Size)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if good == 0 {
		some, err := m.failures(p, 0)
		if err != nil {
			return err
		}
		why := ""
		if len(some) > 0 {
			why = fmt.Sprintf(": %s: %s, exit code %d: %.200s", some[0].Name, some[0].Status, some[0].ExitCode, some[0].Stderr)
		}
		return &rpc.Error{Kind: rpc.UserError, Err: fmt.Errorf("all of the first %d items failed%s", all, why), Hint: "correct the program, or give it what it needs with --gas and --memory, and begin anew"}
	}
	hi, lo := bits.Mul64(uint64(most)*4, uint64(max(p.Index.Largest, largest)))
	limit, _ := bits.Div64(hi, lo, uint64(largest)) // largest item of all against largest of these: both below 2^21
	m.show.say("%s: an item took at most %s; the limit for the others is %s", p.Name, gasText(most), gasText(crowd.Gas(limit+100_000)))
	return m.d.change(func(*mapState) { p.Request.Limits.Gas, p.Auto = crowd.Gas(limit+100_000), false })
}

// shards brings all shards of a phase to their end, some at a time. One that is lost does
// not stop the others; one that cannot be posted does.
func (m *mapping) shards(ctx context.Context, p *phase) error {
	var g errgroup.Group
	g.SetLimit(m.parallel)
	var mu sync.Mutex
	var errs []error
	stop := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(errs) > 0 && !errors.Is(errs[len(errs)-1], errLost)
	}
	for k, sh := range p.Shards {
		if sh.Done {
			m.show.at(k, sh.Items)
			continue
		}
		g.Go(func() error {
			if ctx.Err() != nil || stop() {
				return nil
			}
			if err := m.shard(ctx, p, k); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	slices.SortStableFunc(errs, func(a, b error) int { return cmp.Compare(lost(a), lost(b)) }) // what stopped it comes first
	return errors.Join(errs[:min(len(errs), 1)]...)
}

// errLost is a shard whose jobs all failed.
var errLost = errors.New("a shard is lost")

func lost(err error) int {
	if errors.Is(err, errLost) {
		return 1
	}
	return 0
}

// shard posts one shard, follows its job, posts it again if that fails, and gets the result.
func (m *mapping) shard(ctx context.Context, p *phase, k int) error {
	sh := p.Shards[k]
	before := len(sh.Failed)
	for {
		if len(sh.Jobs) == len(sh.Failed) {
			if len(sh.Failed)-before > reposts {
				return &rpc.Error{Kind: rpc.NodeFault, Err: fmt.Errorf("%w: shard %d of %d failed %d times, the last time: %s", errLost, k+1, len(p.Shards), len(sh.Failed), sh.Failed[len(sh.Failed)-1])}
			}
			if n := len(sh.Failed) - before; n > 0 && !sleep(ctx, min(m.patience, repostPause<<(n-1))) {
				return ctx.Err()
			}
			if err := m.post(ctx, p, k); err != nil {
				return err
			}
		}
		id := sh.Jobs[len(sh.Jobs)-1]
		last, err := m.follow(ctx, id, k)
		if err != nil {
			return err
		}
		v, err := m.c.Job(ctx, id)
		if err != nil {
			return err
		}
		var convicted []crowd.NodeID
		if v.Verdict != nil {
			for _, b := range v.Verdict.Blame {
				if b.Fault == "malice" && b.Node != nil {
					convicted = append(convicted, *b.Node)
					m.show.say("shard %d: %s", k+1, blameText(b))
				}
			}
		}
		if last.Stage == rpc.Settled {
			if err := m.fetch(ctx, p, k, id); err != nil {
				return err
			}
			if err := m.d.change(func(*mapState) {
				sh.Done, sh.Paid, sh.Convicted = true, v.Price, append(sh.Convicted, convicted...)
				if b := v.Batch; b != nil {
					sh.Gas, sh.CheckGas, sh.Undetected = b.Gas, b.CheckGas, b.Undetected
					if b.Failed != nil {
						sh.BadItems = *b.Failed
					}
				}
			}); err != nil {
				return err
			}
			m.show.at(k, sh.Items)
			m.show.log("shard %d of %d: job %s, %d items, %s, checks %s, %s", k+1, len(p.Shards), id.Short(), sh.Items, gasText(sh.Gas), gasText(sh.CheckGas), creditText(sh.Paid))
			return nil
		}
		m.show.at(k, 0)
		m.show.say("shard %d of %d: job %s %s: %s", k+1, len(p.Shards), id.Short(), last.Stage, last.Why)
		if err := m.d.change(func(*mapState) {
			sh.Failed, sh.Convicted = append(sh.Failed, last.Why), append(sh.Convicted, convicted...)
		}); err != nil {
			return err
		}
		if last.Stage == rpc.Cancelled {
			return &rpc.Error{Kind: rpc.Conflict, Err: fmt.Errorf("job %s of shard %d was cancelled", id.Short(), k+1)}
		}
	}
}

// post puts a shard on its way. What it is about to do is on disk first, so that a command that is killed
// between the question and the answer finds its job again and pays for no second one.
func (m *mapping) post(ctx context.Context, p *phase, k int) error {
	sh := p.Shards[k]
	if sh.Posting {
		id, err := m.orphan(ctx, p, k)
		if err != nil {
			return err
		}
		if id != nil {
			return m.d.change(func(*mapState) { sh.Jobs, sh.Posting = append(sh.Jobs, *id), false })
		}
	}
	if sh.Stdin == "" {
		items, err := readItems(m.d.path(p.Name, "items"), sh.First, sh.Items)
		if err != nil {
			return err
		}
		r, w := io.Pipe()
		go func() { w.CloseWithError(frames(w, p.Files, items)) }()
		cid, err := m.c.UploadFile(ctx, r, nil)
		r.Close()
		if err != nil {
			return err
		}
		if err := m.d.change(func(*mapState) { sh.Stdin = cid }); err != nil {
			return err
		}
	}
	if err := m.d.change(func(*mapState) { sh.Posting = true }); err != nil {
		return err
	}
	id, err := m.patiently(ctx, func() (crowd.JobID, error) { return m.c.Post(ctx, p.post(sh)) })
	if err != nil {
		var e *rpc.Error
		if errors.As(err, &e) && e.Kind != rpc.Unavailable && e.Kind != rpc.Internal { // it was refused: there is no job
			err = errors.Join(err, m.d.change(func(*mapState) { sh.Posting = false }))
		}
		return err
	}
	return m.d.change(func(*mapState) { sh.Jobs, sh.Posting = append(sh.Jobs, id), false })
}

// patiently posts again what is refused for a reason that can pass by itself: providers
// that have just come back, escrows of other shards that are still locked.
func (m *mapping) patiently(ctx context.Context, post func() (crowd.JobID, error)) (crowd.JobID, error) {
	pause := time.Second
	for begin, said := time.Now(), false; ; pause = min(2*pause, 10*time.Second) {
		id, err := post()
		kind := rpc.KindOf(err)
		if err == nil || kind != rpc.NoProvider && kind != rpc.InsufficientFunds || time.Since(begin)+pause > m.patience {
			return id, err
		}
		if !said {
			m.show.say("waiting: %v", err)
			said = true
		}
		if !sleep(ctx, pause) {
			return id, ctx.Err()
		}
	}
}

// sleep reports whether it was not interrupted.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// post is the request for a shard.
func (p *phase) post(sh *shard) rpc.PostRequest {
	r := p.Request
	plan := sh.Plan
	r.Program, r.Stdin, r.Items, r.Plan, r.Limits = p.CID, sh.Stdin, uint32(sh.Items), &plan, sh.Limits
	r.Confidence = max(0, 1-p.Plan.Undetected-1e-9) // what was shown is what must be, but for rounding
	return r
}

// orphan looks for a job that an earlier command posted without hearing of it.
func (m *mapping) orphan(ctx context.Context, p *phase, k int) (*crowd.JobID, error) {
	sh := p.Shards[k]
	known := map[crowd.JobID]bool{}
	m.d.mu.Lock()
	for _, p := range m.d.state.phases() {
		for _, other := range p.Shards {
			for _, id := range other.Jobs {
				known[id] = true
			}
		}
	}
	m.d.mu.Unlock()
	jobs, err := m.c.Jobs(ctx, 0)
	if err != nil {
		return nil, err
	}
	for _, j := range jobs {
		if known[j.ID] || j.Stdin != sh.Stdin || j.Program != p.CID || uint64(j.Items) != sh.Items || j.Posted.Before(m.d.state.Began.Add(-time.Minute)) {
			continue
		}
		v, err := m.c.Job(ctx, j.ID)
		if err != nil {
			return nil, err
		}
		if want := p.post(sh); slices.Equal(v.Request.Args, want.Args) && slices.Equal(v.Request.Env, want.Env) && v.Request.Limits == want.Limits && v.Request.Plan != nil && *v.Request.Plan == *want.Plan {
			return &j.ID, nil
		}
	}
	return nil, nil
}

// follow waits for the end of a job.
func (m *mapping) follow(ctx context.Context, id crowd.JobID, k int) (last rpc.JobEvent, err error) {
	for ev, err := range m.c.Watch(ctx, id) {
		if err != nil {
			return last, err
		}
		if ev.Progress != nil {
			m.show.at(k, uint64(ev.Progress.Items))
		}
		last = ev
	}
	return last, nil
}

// fetch brings a shard's result and receipt into its folder, which appears when it is whole.
func (m *mapping) fetch(ctx context.Context, p *phase, k int, id crowd.JobID) error {
	dir := m.d.shardDir(p, k)
	tmp := dir + ".tmp"
	if err := errors.Join(os.RemoveAll(tmp), os.RemoveAll(dir), os.Mkdir(tmp, 0o777)); err != nil {
		return err
	}
	for _, name := range []string{"leaves", "stdout", "stderr"} {
		f, err := os.Create(filepath.Join(tmp, name))
		if err != nil {
			return err
		}
		_, err = m.c.Download(ctx, id, name, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if err := saveReceipt(ctx, m.c, id, filepath.Join(tmp, "receipt.json")); err != nil {
		return err
	}
	if r, err := openShard(tmp, uint32(p.Shards[k].Items)); err != nil {
		return fmt.Errorf("the result of job %s: %w", id.Short(), err)
	} else {
		r.close()
	}
	return os.Rename(tmp, dir)
}
