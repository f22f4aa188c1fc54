package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/chain"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/wasm"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/store"
	"github.com/crowdcompute/crowd/internal/verify"
)

// backend serves a node over RPC.
type backend struct{ *Node }

var _ rpc.Backend = backend{}

func (b backend) Info(context.Context) (rpc.Info, error) {
	h := b.chain.Head().Height
	court := make([]crowd.Address, 0, len(b.cfg.Genesis.Authorities))
	for _, a := range b.cfg.Genesis.Authorities {
		court = append(court, a.ID.Address())
	}
	var bugs uint64
	if full, ok := b.chain.(*chain.Full); ok {
		bugs = full.Bugs()
	}
	return rpc.Info{
		Rules: rpc.Rules{Network: b.params.Rules, Build: crowd.RulesVersion}, Bugs: bugs,
		Node: b.id, Address: b.id.Address(), Roles: b.roles(), Chain: b.chainID, Court: court, Height: h,
		Version: b.cfg.Version, Listen: b.host.Addrs(), Peers: len(b.host.Peers()), Started: b.started,
	}, nil
}

// uploaded is the reason under which content is kept until a job pins it for itself.
const uploaded = "upload"

func (b backend) AddFile(ctx context.Context, r io.Reader) (crowd.CID, error) {
	c, err := b.store.AddFile(ctx, r)
	if err != nil {
		return "", storeError(err)
	}
	return c, storeError(b.store.Pin(c, uploaded))
}

func (b backend) AddFolder(ctx context.Context, dir fs.FS) (crowd.CID, error) {
	tmp, err := os.MkdirTemp(b.cfg.Dir, "folder-")
	if err != nil {
		return "", fmt.Errorf("add folder: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := os.CopyFS(tmp, dir); err != nil {
		return "", storeError(err)
	}
	c, err := b.store.AddDir(ctx, tmp)
	if err != nil {
		return "", storeError(err)
	}
	return c, storeError(b.store.Pin(c, uploaded))
}

func storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNoSpace):
		return rpc.Errorf(rpc.Unavailable, "%w", err).WithHint("free space on the disk of the node: it leaves the last GiB, or twentieth, to others")
	case errors.Is(err, store.ErrTooBig):
		return rpc.Errorf(rpc.TooLarge, "%w", err)
	}
	return err
}

// complete fills in what the request left to the node: price, budget and plan.
func (b backend) complete(r rpc.PostRequest) (crowd.JobSpec, verify.Plan, error) {
	spec, err := r.Spec()
	if err != nil {
		return spec, verify.Plan{}, err
	}
	confidence := r.Confidence
	if confidence == 0 {
		confidence = verify.DefaultConfidence
	}
	var plan verify.Plan
	if spec.Items > 0 {
		if err := completeBatch(&spec, confidence); err != nil {
			return spec, plan, err
		}
		plan = verify.Stated(&spec.Plan)
	} else if r.Check != nil {
		if plan = verify.Stated(&spec.Plan); r.Confidence > 0 && plan.Undetected > 1-r.Confidence+rounding {
			return spec, plan, rpc.Errorf(rpc.BadRequest, "confidence %v: the plan %q lets a wrong result pass with a probability of %.3g", r.Confidence, plan.Method, plan.Undetected).
				WithHint("leave the plan to the node, or the confidence")
		}
	} else {
		if plan, err = verify.For(confidence, verify.DefaultColluding); err != nil {
			most, _ := verify.Most(crowd.MaxCommittee)
			return spec, plan, rpc.Errorf(rpc.BadRequest, "%w", err).WithHint("ask for at most %.12g", 1-most.Undetected)
		}
		spec.Plan = plan.Spec()
	}
	if spec.Filters.MaxPrice == 0 {
		spec.Filters.MaxPrice = crowd.ReferencePrice
	}
	if spec.Budget == 0 {
		spec.Budget = b.params.EscrowFor(&spec)
	}
	return spec, plan, nil
}

// rounding of a confidence that came as decimal digits.
const rounding = 1e-12

func (b backend) Quote(ctx context.Context, r rpc.PostRequest) (rpc.Quote, error) {
	spec, plan, err := b.complete(r)
	if err != nil {
		return rpc.Quote{}, err
	}
	e, err := b.fit(ctx, &r, &spec, &plan)
	if err == nil {
		err = b.staked(ctx, &spec, e)
	}
	if err != nil {
		return rpc.Quote{}, err
	}
	q := rpc.Quote{
		Bound: b.params.EscrowFor(&spec), Duties: b.params.DutyFees(&spec, e.Count, len(b.cfg.Genesis.Authorities)), Replacements: plan.Replaced, Price: spec.Filters.MaxPrice, Plan: plan.Method, Undetected: plan.Undetected,
		Executors: plan.Executors, RatePPM: plan.RatePPM, Stake: max(b.params.MinStake, spec.Filters.MaxPrice.Cost(spec.Limits().Gas)),
		Eligible: int(e.Count), Needed: ledger.Needs(&spec.Plan), Requirements: requirements(e),
	}
	if plan.Method == crowd.PlanAudit {
		q.Unaudited, q.Stake = q.Bound-b.params.Pay(spec.Filters.MaxPrice, spec.Limits().Gas), max(q.Stake, b.params.StakeToAudit(&spec))
	}
	if !spec.Compare.Strict() {
		q.Compare = spec.Compare.String()
	}
	return q, nil
}

// fit looks who could be drawn. A plan that the node chose for a confidence gives way to a dearer one
// that does with fewer nodes; where there is none, the error says what is within reach.
func (b backend) fit(ctx context.Context, r *rpc.PostRequest, spec *crowd.JobSpec, plan *verify.Plan) (ledger.Eligibility, error) {
	e, err := b.eligible(ctx, b.id, spec)
	if err != nil || spec.Items > 0 || int(e.Count) >= ledger.Needs(&spec.Plan) {
		return e, err
	}
	most, any := verify.Most(int(e.Count))
	switch {
	case !any: // the ledger names the requirement that fails
		return e, nil
	case r.Check == nil && most.Undetected <= plan.Undetected:
		*plan, spec.Plan = most, most.Spec()
		return b.eligible(ctx, b.id, spec)
	case spec.Plan.Method == crowd.PlanPair:
		return e, nil
	}
	why := ""
	if e.Count < e.Steps[0].Left { // else there are no more
		why = ": " + e.Why()
	}
	have := rpc.Errorf(rpc.NoProvider, "%d providers could be drawn, the plan %q needs %d%s", e.Count, plan.Method, ledger.Needs(&spec.Plan), why)
	return e, have.WithHint("a %s of %d is within reach: --confidence %.12g", most.Method, most.Executors, 1-most.Undetected)
}

// staked refuses a job whose gas asks for more stake than enough providers hold, and says how much gas they may be
// given.
func (b backend) staked(ctx context.Context, spec *crowd.JobSpec, e ledger.Eligibility) error {
	need := ledger.Needs(&spec.Plan)
	if int(e.Count) >= need || spec.Items > 0 {
		return nil
	}
	s, h, err := b.providers(ctx)
	if err != nil {
		return rpc.Errorf(rpc.Unavailable, "read the providers off the chain: %w", err)
	}
	enough := func(gas crowd.Gas) bool {
		less := *spec
		less.Task.Limits.Gas = gas
		return int(s.Eligible(b.id, &less, h).Count) >= need
	}
	if !enough(1) { // the stake is not what is missing, or not alone
		if why := e.Why(); why != "" {
			return rpc.Errorf(rpc.NoProvider, "%s", why)
		}
		return nil
	}
	low, high := crowd.Gas(1), spec.Task.Limits.Gas // enough for the one, not for the other
	for high-low > 1 {
		if mid := low + (high-low)/2; enough(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	stake := max(b.params.MinStake, spec.Filters.MaxPrice.Cost(spec.Limits().Gas))
	flag := fmt.Sprintf("%dM", low/1e6)
	if low >= 1e9 {
		flag = fmt.Sprintf("%dG", low/1e9)
	}
	return rpc.Errorf(rpc.NoProvider, "a job of %d Ggas goes to providers that stake %d credits or more, so that "+
		"lying about it loses more than it brings; "+
		"%d of them do, and the plan %q needs %d",
		spec.Limits().Gas/1e9, (stake+crowd.Credit-1)/crowd.Credit, e.Count, spec.Plan.Method, need).
		WithHint("the most for which enough is staked here is --gas %s; split what needs more into several jobs, or "+
			"wait for providers with more stake", flag)
}

func (b backend) eligible(ctx context.Context, owner crowd.NodeID, spec *crowd.JobSpec) (ledger.Eligibility, error) {
	s, h, err := b.providers(ctx)
	if err != nil {
		return ledger.Eligibility{}, rpc.Errorf(rpc.Unavailable, "read the providers off the chain: %w", err)
	}
	return s.Eligible(owner, spec, h), nil
}

func requirements(e ledger.Eligibility) []rpc.Requirement {
	var out []rpc.Requirement
	of := 0
	for i, s := range e.Steps {
		if i == 0 {
			of = int(s.Left)
		}
		out = append(out, rpc.Requirement{Name: s.Name, Met: int(s.Left), Of: of})
		of = int(s.Left)
	}
	return out
}

func (b backend) Post(ctx context.Context, r rpc.PostRequest) (crowd.JobID, error) {
	spec, plan, err := b.complete(r)
	if err != nil {
		return crowd.JobID{}, err
	}
	if spec.Plan.Method == crowd.PlanAudit || spec.Plan.Method == crowd.PlanCommittee {
		if _, err := b.fit(ctx, &r, &spec, &plan); err != nil {
			return crowd.JobID{}, err
		}
	}
	for _, c := range []struct {
		what string
		cid  crowd.CID
	}{{"program", spec.Task.Program}, {"inputs", spec.Task.Inputs}, {"stdin", spec.Task.Stdin}, {"comparator", spec.Compare.Program}} {
		if c.cid == "" {
			continue
		}
		here, err := b.store.Has(ctx, c.cid)
		if err != nil {
			return crowd.JobID{}, rpc.Errorf(rpc.BadRequest, "%s: %w", c.what, err)
		}
		if !here {
			return crowd.JobID{}, rpc.Errorf(rpc.BadRequest, "%s %s is not in this node's store, so that no executor could fetch it", c.what, c.cid).
				WithHint("upload it first")
		}
	}
	if spec.Shuffle.Gather {
		raw, err := jobBlocks(b).Read(ctx, spec.Task.Stdin, batch.MaxManifest)
		if err == nil {
			_, err = batch.DecodeManifest(raw, spec.Items)
		}
		if err != nil {
			return crowd.JobID{}, rpc.Errorf(rpc.BadRequest, "stdin: %w", err).WithHint("crowd_gather makes the manifest")
		}
	}
	id, err := b.post(ctx, spec)
	return id, refusal(err)
}

// refusal puts the ledger's reasons into the border's terms.
func refusal(err error) error {
	var r *ledger.Refusal
	if !errors.As(err, &r) {
		return err
	}
	kind := map[ledger.Code]rpc.Kind{
		ledger.BadSpec: rpc.BadRequest, ledger.NoFunds: rpc.InsufficientFunds, ledger.OverBudget: rpc.OverBudget, ledger.NoProvider: rpc.NoProvider,
		ledger.NotFound: rpc.NotFound, ledger.TooLate: rpc.TooLate, ledger.TooEarly: rpc.Conflict, ledger.NotYours: rpc.Forbidden, ledger.Duplicate: rpc.Conflict,
	}[r.Code]
	if kind == "" {
		kind = rpc.Internal
	}
	return rpc.Errorf(kind, "%s", r.Reason)
}

func (b backend) Cancel(ctx context.Context, id crowd.JobID) error {
	p, err := b.page(id)
	if err != nil {
		return err
	}
	if p.job.State.Ended() {
		return rpc.Errorf(rpc.TooLate, "job %s is %s", id.Short(), p.job.State)
	}
	return refusal(b.cancel(ctx, id))
}

func (b backend) page(id crowd.JobID) (page, error) {
	p, ok := b.book.look(id)
	if !ok {
		return p, rpc.Errorf(rpc.NotFound, "this node posted no job %s", id.Short())
	}
	return p, nil
}

func (b backend) Jobs(_ context.Context, limit int) ([]rpc.JobSummary, error) {
	jobs, err := b.book.newest(limit)
	out := make([]rpc.JobSummary, 0, len(jobs))
	for i := range jobs {
		out = append(out, summary(&jobs[i]))
	}
	return out, err
}

func (b backend) MatchJobs(_ context.Context, prefix string, limit int) ([]crowd.JobID, error) {
	return b.book.match(prefix, limit)
}

func (b backend) Job(ctx context.Context, id crowd.JobID) (rpc.JobView, error) {
	p, err := b.page(id)
	if err != nil {
		return rpc.JobView{}, err
	}
	j := &p.job
	v := rpc.JobView{
		JobSummary: summary(j), Owner: j.Owner.Address(), Request: request(&j.Spec), Plan: j.Spec.Plan.Method, Audit: audit(j), Batch: b.viewBatch(&p), Escrow: j.Escrow,
		Committee: committee(j, b.params.CommitteeUnits), Verdict: verdict(j), Payments: payments(j), Failure: failure(j), Advice: p.advice,
		Cancel: b.params.CancelPay(j, max(b.chain.Head().Time, crowd.Time(time.Now().UnixMilli()))), // a quiet chain makes no blocks
	}
	v.Outcome = b.outcome(ctx, &p)
	for i := range j.History {
		ev := event(j, i, b.params.CommitteeUnits)
		ev.Seq, ev.Committee = i+1, nil
		v.History = append(v.History, ev)
	}
	return v, nil
}

func (b backend) Explain(ctx context.Context, id crowd.JobID) (rpc.Explanation, error) {
	p, err := b.page(id)
	if err != nil {
		return rpc.Explanation{}, err
	}
	j := &p.job
	e, err := b.eligible(ctx, j.Owner, &j.Spec)
	if err != nil {
		return rpc.Explanation{}, err
	}
	x := rpc.Explanation{Job: id, Stage: stage(j, j.State), Why: lastStep(j).Why, Requirements: requirements(e)}
	if o := b.outcome(ctx, &p); o != nil && o.UserError {
		x.Why += "; the program ended with " + o.Why()
	}
	switch j.State {
	case ledger.Posted:
		x.Fix = "wait: the lot is drawn two blocks after the post"
	case ledger.Claiming:
		x.Fix = "wait: the drawn providers claim their places"
	case ledger.Running:
		x.Why = news(j)
		if a := j.Audit; a != nil && a.At > 0 {
			x.Why += "; " + lastStep(j).Why
		}
	case ledger.Settled:
		x.Fix = p.advice
		if v := j.Verdict; v.By == ledger.ByAudit {
			x.Why += "; " + verdict(j).Why
			x.Fix = "nothing; if more depends on it than its price, run it again with --plan pair"
		}
	case ledger.Failed:
		if f := failure(j); f.Kind == rpc.UserError {
			x.Fix = f.Hint
		} else if x.Fix = e.Why(); x.Fix == "" {
			x.Fix = "run it again: the requirements are met"
		}
	}
	return x, nil
}

// receiptPatience is how long a caller waits for the receipt of a job that has just ended.
const receiptPatience = 20 * time.Second

func (b backend) Receipt(ctx context.Context, id crowd.JobID) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, receiptPatience)
	defer cancel()
	for {
		p, err := b.page(id)
		if err != nil {
			return nil, err
		}
		switch {
		case p.receipt != nil:
			return p.receipt, nil
		case !p.job.State.Ended():
			return nil, rpc.Errorf(rpc.Conflict, "job %s is %s; its receipt comes when it has ended", id.Short(), p.job.State)
		case !wait(ctx, &p):
			return nil, rpc.Errorf(rpc.Unavailable, "job %s is %s, but the chain does not show it with a proof yet", id.Short(), p.job.State)
		}
	}
}

func (b backend) Result(ctx context.Context, id crowd.JobID) (rpc.Result, error) {
	p, err := b.delivered(id)
	if err != nil {
		return rpc.Result{}, err
	}
	r := rpc.Result{Job: id, Outcome: *b.outcome(ctx, &p), Verdict: verdict(&p.job), Items: p.job.Spec.Items}
	if p.job.State.Ended() {
		r.Price = p.job.Spent()
	}
	for _, s := range []struct {
		name string
		size *int64
	}{{"stdout", &r.Stdout}, {"stderr", &r.Stderr}} {
		if st, err := os.Stat(filepath.Join(b.resultDir(id), s.name)); err == nil {
			*s.size = st.Size()
		}
	}
	return r, nil
}

// outcome is what a job came to, with the reason where it is known: this node finds out itself why a program is
// invalid, if it has the program still; of other ends only an executor may have said something, while this node ran.
func (b backend) outcome(ctx context.Context, p *page) *rpc.Outcome {
	o := outcome(&p.job)
	if o == nil || o.Status == crowd.Exited.String() {
		return o
	}
	if o.Status == crowd.Invalid.String() {
		if program, err := jobBlocks(b).Read(ctx, p.job.Spec.Task.Program, executor.MaxProgram); err == nil {
			if err := wasm.Check(program, 0); err != nil {
				o.Reason = err.Error()
				return o
			}
		}
	}
	o.Reason = p.note
	return o
}

func (b backend) delivered(id crowd.JobID) (page, error) {
	p, err := b.page(id)
	if err != nil {
		return p, err
	}
	if !p.delivered {
		e := rpc.Errorf(rpc.Conflict, "job %s is %s; there is no result yet", id.Short(), p.job.State)
		if p.job.State.Ended() {
			e = rpc.Errorf(rpc.Conflict, "job %s %s: %s; there is no result", id.Short(), p.job.State, lastStep(&p.job).Why)
		}
		return p, e
	}
	return p, nil
}

func (b backend) Watch(ctx context.Context, id crowd.JobID) (<-chan rpc.JobEvent, error) {
	if _, err := b.page(id); err != nil {
		return nil, err
	}
	return b.book.watch(ctx, id), nil
}

// Logs tells what executors wrote while they run, and from the verified result
// what they did not tell.
func (b backend) Logs(ctx context.Context, id crowd.JobID, follow bool) (<-chan rpc.LogChunk, error) {
	p, err := b.page(id)
	if err != nil {
		return nil, err
	}
	out := make(chan rpc.LogChunk) // unbuffered: a slow reader waits, nobody else does
	go func() {
		defer close(out)
		var sent [2]int64
		if !p.delivered {
			sent = b.book.liveLogs(ctx, id, follow, out)
		}
		if p, ok := b.book.look(id); !ok || !p.delivered || p.job.Spec.Items > 0 { // a batch's are frame files
			return
		}
		for i, name := range streams {
			if err := b.sendFile(ctx, id, name, sent[i], out); err != nil {
				b.log.Warn("logs", "job", id.Short(), "err", err)
				return
			}
		}
	}()
	return out, nil
}

func (b backend) sendFile(ctx context.Context, id crowd.JobID, name string, at int64, out chan<- rpc.LogChunk) error {
	for {
		c, err := b.ReadResult(ctx, id, name, at, 256<<10)
		if err != nil {
			return err
		}
		if len(c.Data) > 0 {
			select {
			case out <- rpc.LogChunk{Stream: name, Offset: at, Data: c.Data}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if at += int64(len(c.Data)); c.EOF {
			return nil
		}
	}
}

func (b backend) ListResult(_ context.Context, id crowd.JobID, after string, limit int) ([]rpc.Entry, error) {
	if _, err := b.delivered(id); err != nil {
		return nil, err
	}
	var out []rpc.Entry
	root := os.DirFS(b.resultDir(id))
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." || p <= after {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		e := rpc.Entry{Path: p, Folder: d.IsDir()}
		if !e.Folder {
			e.Size = st.Size()
		}
		out = append(out, e)
		return nil
	})
	slices.SortFunc(out, func(x, y rpc.Entry) int { return strings.Compare(x.Path, y.Path) })
	return out[:min(limit, len(out))], err
}

func (b backend) ReadResult(ctx context.Context, id crowd.JobID, path string, offset int64, limit int) (rpc.Chunk, error) {
	p, err := b.delivered(id)
	if err != nil {
		return rpc.Chunk{}, err
	}
	root, err := os.OpenRoot(b.resultDir(id))
	if err != nil {
		return rpc.Chunk{}, err
	}
	defer root.Close()
	f, err := root.Open(filepath.FromSlash(path))
	if p.job.Spec.Shuffle.Parts > 0 && errors.Is(err, fs.ErrNotExist) {
		if err := b.fetchFile(ctx, &p.job, path); err != nil {
			return rpc.Chunk{}, err
		}
		f, err = root.Open(filepath.FromSlash(path))
	}
	if err != nil {
		return rpc.Chunk{}, rpc.Errorf(rpc.NotFound, "the result of job %s has no file %q", id.Short(), path)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return rpc.Chunk{}, rpc.Errorf(rpc.BadRequest, "%q is no file", path)
	}
	data := make([]byte, min(int64(limit), max(st.Size()-offset, 0)))
	n, err := f.ReadAt(data, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return rpc.Chunk{}, err
	}
	return rpc.Chunk{Data: data[:n], EOF: offset+int64(n) >= st.Size()}, nil
}

func (b backend) Accounts(ctx context.Context) ([]rpc.Account, error) {
	a, err := b.Account(ctx, b.id.Address())
	if err != nil {
		return nil, err
	}
	a.Name = "node"
	return []rpc.Account{a}, nil
}

func (b backend) Account(ctx context.Context, addr crowd.Address) (rpc.Account, error) {
	var acc ledger.Account
	var p ledger.Provider
	for _, x := range []struct {
		key []byte
		v   any
	}{{ledger.AccountKey(addr), &acc}, {ledger.ProviderKey(addr), &p}} {
		raw, err := b.chain.Get(ctx, x.key)
		if err != nil {
			return rpc.Account{}, rpc.Errorf(rpc.Unavailable, "read %s off the chain: %w", addr, err)
		}
		if raw == nil {
			continue
		}
		if err := crowd.Decode(raw, x.v); err != nil {
			return rpc.Account{}, err
		}
	}
	a := rpc.Account{Address: addr, Own: addr == b.id.Address(), Balance: acc.Balance, Stake: p.Stake, Nonce: acc.Nonce}
	if a.Own {
		for _, j := range b.book.openJobs() {
			a.Escrow += j.Escrow
		}
	}
	return a, nil
}

func (b backend) Providers(ctx context.Context) ([]rpc.Provider, error) {
	s, _, err := b.providers(ctx)
	if err != nil {
		return nil, rpc.Errorf(rpc.Unavailable, "read the providers off the chain: %w", err)
	}
	out := []rpc.Provider{}
	s.EachProvider(func(p ledger.Provider) bool {
		r := s.Reputation(p.ID.Address())
		out = append(out, provider(&p, &r, b.params.MaxMissed))
		return true
	})
	return out, nil
}
