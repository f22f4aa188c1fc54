// Package rpctest has a small real backend for tests of the RPC server and of
// its clients: it keeps everything in memory, "runs" programs of one word, and
// draws, checks and pays nobody.
package rpctest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// Start is when the backend's clock begins; every event takes ten milliseconds.
var Start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Owner is the account that posts.
var Owner = Node(0)

// Node is the i-th node of the backend's world.
func Node(i int) (n crowd.NodeID) {
	h := crowd.Keccak256([]byte{byte(i)})
	copy(n[:], h[:])
	copy(n[32:], h[:])
	return n
}

// Backend implements rpc.Backend. A program is a file whose first word says what
// it does:
//
//	cat         stdin to stdout
//	echo        the arguments
//	env         the environment
//	ls          the files under /in with their sizes
//	files       two files under out/, and a line on stdout and stderr
//	exit N      fails with that code
//	gas         runs out of gas
//	cheat       as cat, but one executor is wrong; the court decides
//	memory      exits as programs do that get no memory
//	trap        traps, for a reason
//	fault       no executor answers
//	spin        runs until it is cancelled
//	late        runs until Release; too late to cancel
//	stuck       waits for a provider until it is cancelled
//	none, dear, poor, crash   cannot be posted
type Backend struct {
	// guarded by mu
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	files   map[crowd.CID][]byte
	folders map[crowd.CID]map[string][]byte
	jobs    []*job // oldest first
	events  int
	change  map[crowd.Address]int64 // of balances since the beginning
	stake   map[crowd.Address]int64
	watched int // streams of job events ever opened
	more    int // providers besides the two
}

type job struct {
	view   rpc.JobView
	events []rpc.JobEvent
	logs   []rpc.LogChunk
	result map[string][]byte // nil before it is delivered
	late   bool
	lost   bool // nobody has its parts
}

// New is an empty world.
func New() *Backend {
	return &Backend{
		changed: make(chan struct{}),
		files:   make(map[crowd.CID][]byte),
		folders: make(map[crowd.CID]map[string][]byte),
		change:  make(map[crowd.Address]int64),
		stake:   make(map[crowd.Address]int64),
	}
}

func (b *Backend) Info(context.Context) (rpc.Info, error) {
	return rpc.Info{Node: Owner, Address: Owner.Address(), Roles: []string{"consumer"}, Chain: "crowd-test", Rules: rpc.Rules{Network: 1, Build: 1},
		Height: 42, Version: "test", Listen: []string{"/ip4/127.0.0.1/udp/4001/quic-v1"}, Peers: 2, Started: Start}, nil
}

func (b *Backend) AddFile(_ context.Context, r io.Reader) (crowd.CID, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	id := crowd.CID("file" + crowd.Keccak256(data).String())
	b.files[id] = data
	return id, nil
}

func (b *Backend) AddFolder(_ context.Context, dir fs.FS) (crowd.CID, error) {
	files := make(map[string][]byte)
	var all []byte
	err := fs.WalkDir(dir, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		if d.IsDir() {
			path += "/"
			files[path] = nil
		} else if files[path], err = fs.ReadFile(dir, path); err != nil {
			return err
		}
		all = fmt.Appendf(all, "%q %q\n", path, files[path])
		return nil
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	id := crowd.CID("folder" + crowd.Keccak256(all).String())
	b.folders[id] = files
	return id, err
}

// Folder is what was stored under id; the names of folders end in a slash.
func (b *Backend) Folder(id crowd.CID) map[string][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.folders[id]
}

func (b *Backend) program(r rpc.PostRequest) (word, arg string, err error) {
	text, ok := b.files[r.Program]
	if !ok {
		return "", "", rpc.Errorf(rpc.NotFound, "program %s is not here", r.Program).WithHint("upload it")
	}
	word, arg, _ = strings.Cut(strings.TrimSpace(string(text)), " ")
	switch word {
	case "none":
		return "", "", rpc.Errorf(rpc.NoProvider, "0 of 7 providers are eligible, 2 are needed: tag gpu excludes 7")
	case "dear":
		return "", "", rpc.Errorf(rpc.OverBudget, "the job may cost 12.5 credits, the budget is 1")
	case "poor":
		return "", "", rpc.Errorf(rpc.InsufficientFunds, "the account holds 0.2 credits")
	case "crash":
		panic("a test asked for it")
	}
	return word, arg, nil
}

// unsent is the program of a quote that is asked for before anything is uploaded.
const unsent = "to be uploaded"

func (b *Backend) Quote(_ context.Context, r rpc.PostRequest) (rpc.Quote, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	if r.Program != unsent {
		_, _, err = b.program(r)
	}
	one := crowd.ReferencePrice.Cost(r.Limits.Gas)
	q := rpc.Quote{Bound: 2 * one, Price: crowd.ReferencePrice, Plan: crowd.PlanPair,
		Undetected: 0.0025, Duties: 1500, Executors: 2, Stake: 100 * crowd.Credit, Eligible: 7, Needed: 2, Requirements: []rpc.Requirement{{Name: "online", Met: 7, Of: 8}}}
	switch c := r.Check; {
	case c == nil:
	case c.Method == crowd.PlanAudit:
		q.Plan, q.Executors, q.Needed, q.RatePPM, q.Unaudited, q.Stake, q.Undetected = c.Method, 1, 3, crowd.AuditFloor, one, 39*one, 0.0955
	case c.Method == crowd.PlanCommittee:
		q.Plan, q.Executors, q.Needed, q.Bound, q.Undetected = c.Method, int(c.Executors), int(c.Executors), one*crowd.Credits(c.Executors), 0.001
	}
	if c, e := crowd.ParseCompare(r.Compare); e == nil && !c.Strict() {
		q.Compare = c.String()
	}
	return q, err
}

func (b *Backend) Post(_ context.Context, r rpc.PostRequest) (crowd.JobID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	word, arg, err := b.program(r)
	if err != nil {
		return crowd.JobID{}, err
	}
	spec, err := r.Spec()
	if err != nil {
		return crowd.JobID{}, err
	}
	id := spec.ID(Owner, uint64(len(b.jobs)))
	j := &job{view: rpc.JobView{JobSummary: rpc.JobSummary{ID: id, Posted: b.now(), Program: r.Program},
		Owner: Owner.Address(), Request: r, Plan: crowd.PlanPair, Escrow: 5 * crowd.Credit}}
	b.jobs = append(b.jobs, j)
	b.change[Owner.Address()] -= int64(j.view.Escrow)
	b.add(j, rpc.JobEvent{Stage: rpc.Posted, Why: "escrow of 5 credits is locked"})
	if word == "stuck" {
		return id, nil
	}
	pair := []rpc.Member{
		{Node: Node(1), Role: "executor", Priority: 10, ProofOK: true, State: "claimed"},
		{Node: Node(2), Role: "executor", Priority: 20, ProofOK: true, State: "claimed"},
		{Node: Node(3), Role: "alternate", Priority: 30, ProofOK: true, State: "claimed"},
	}
	b.add(j, rpc.JobEvent{Stage: rpc.Drawn, Why: "the beacon of block 44 decided", Committee: pair})
	b.add(j, rpc.JobEvent{Stage: rpc.Running, Why: "2 executors work", Progress: &rpc.Progress{Limit: r.Limits.Gas}})
	j.late = word == "late"
	if r.Items > 0 {
		b.runBatch(j, word, arg)
	} else {
		b.run(j, word, arg)
	}
	return id, nil
}

// run is the whole life of a program that does not wait for anything.
func (b *Backend) run(j *job, word, arg string) {
	r := j.view.Request
	out := rpc.Outcome{Status: crowd.Exited.String(), Gas: 3_200_000_000, Result: "result"}
	files := map[string][]byte{"stdout": nil, "stderr": nil}
	switch word {
	case "cat", "cheat":
		files["stdout"] = b.files[r.Stdin]
	case "echo":
		files["stdout"] = []byte(strings.Join(r.Args, " ") + "\n")
	case "env":
		files["stdout"] = []byte(strings.Join(r.Env, "\n") + "\n")
	case "ls":
		for path, data := range b.folders[r.Inputs] {
			files["stdout"] = fmt.Appendf(files["stdout"], "%s %d\n", path, len(data))
		}
		lines := strings.SplitAfter(string(files["stdout"]), "\n")
		sort.Strings(lines)
		files["stdout"] = []byte(strings.Join(lines, ""))
	case "files":
		files["stdout"] = []byte("made two files\n")
		files["stderr"] = []byte("a word of warning\n")
		files["out/hello.txt"] = []byte("hello\n")
		files["out/sub/data.bin"] = bytes.Repeat([]byte{0, 1, 2, 255, '\r', '\n'}, 300_000)
	case "escape":
		files["stdout"] = []byte("an \x1b]52;c;cm0gLXJmIC8=\aanswer\n")
		files["stderr"] = []byte("\x1b]0;root@bank\x1b\\a \x9b31mwarning\x1b[0m\n")
	case "exit":
		code, _ := strconv.Atoi(arg)
		out.ExitCode, out.UserError = uint32(code), true
		files["stderr"] = []byte("something is wrong with the input\n")
	case "gas":
		out.Status, out.Gas, out.UserError = crowd.OutOfGas.String(), r.Limits.Gas, true
	case "memory":
		out.ExitCode, out.UserError = 2, true
		files["stderr"] = []byte("fatal error: runtime: out of memory\n")
	case "trap":
		out.Status, out.UserError, out.Reason = crowd.Trapped.String(), true, "5fe7f977 says: unreachable"
	case "fault":
		b.add(j, rpc.JobEvent{Stage: rpc.Failed, Why: "no executor answered in time", Failure: &rpc.Failure{
			Kind: rpc.NodeFault, Message: "2 executors and 1 alternate were silent", Hint: "run the job again; other nodes are drawn"},
			Payments: []rpc.Payment{{Account: Owner.Address(), Change: 5_000_000, From: "escrow", Why: "refund"}}})
		return
	case "spin", "late":
		j.view.Request.Args = r.Args
		return
	}
	b.finish(j, word, &out, files)
}

func (b *Backend) finish(j *job, word string, out *rpc.Outcome, files map[string][]byte) {
	half := rpc.JobEvent{Stage: rpc.Running, Why: "half way", Progress: &rpc.Progress{Gas: out.Gas / 2, Limit: j.view.Request.Limits.Gas}}
	b.add(j, half)
	j.logs = []rpc.LogChunk{{Stream: "stdout", Node: Node(1), Data: files["stdout"]}, {Stream: "stderr", Node: Node(1), Data: files["stderr"]}}
	b.add(j, rpc.JobEvent{Stage: rpc.Committed, Why: "both executors are bound to a result"})
	yes, no := true, false
	pair := slices.Clone(j.view.Committee)
	for i := range pair[:2] {
		pair[i].State, pair[i].Committed, pair[i].Revealed, pair[i].Match, pair[i].Gas = "revealed", true, true, &yes, out.Gas
	}
	verdict := &rpc.Verdict{Accepted: true, Checked: true, Method: "pair", Why: "both results are equal"}
	pay := []rpc.Payment{
		{Account: Node(1).Address(), Node: &pair[0].Node, Change: 1_568_000, From: "escrow", Why: "executed"},
		{Account: Node(2).Address(), Node: &pair[1].Node, Change: 1_568_000, From: "escrow", Why: "executed"},
		{Change: 64_000, From: "escrow", Why: "burned"},
		{Account: Owner.Address(), Node: &Owner, Change: 1_800_000, From: "escrow", Why: "refund of the rest"},
	}
	if word == "cheat" {
		pair[1].Match = &no
		b.add(j, rpc.JobEvent{Stage: rpc.Court, Why: "the results differ: the authorities re-execute", Committee: pair})
		verdict = &rpc.Verdict{Accepted: true, Checked: true, Method: "court", Why: "1 of 1 authorities confirm the other result",
			Blame: []rpc.Blame{{Node: &pair[1].Node, Fault: "malice", Why: "revealed a wrong result"}}}
		pay[1] = rpc.Payment{Account: Node(2).Address(), Node: &pair[1].Node, Change: -50_000_000, From: "stake", Why: "slashed: wrong result", Slashed: true}
	}
	b.add(j, rpc.JobEvent{Stage: rpc.Checked, Why: verdict.Why, Committee: pair, Verdict: verdict, Outcome: out})
	j.result = files
	b.add(j, rpc.JobEvent{Stage: rpc.Delivered, Why: "the result is here"})
	b.add(j, rpc.JobEvent{Stage: rpc.Settled, Why: "everybody is paid", Payments: pay, Price: 3_200_000, Outcome: out, Verdict: verdict})
}

// Release ends all programs that are too late to cancel.
func (b *Backend) Release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		switch {
		case !j.late || j.view.Stage.Final():
		case j.view.Items > 0:
			b.runBatch(j, "cat", "")
		default:
			b.finish(j, "late", &rpc.Outcome{Status: crowd.Exited.String(), Gas: 1, Result: "result"}, map[string][]byte{"stdout": []byte("late\n"), "stderr": nil})
		}
	}
}

// Twins adds two settled jobs whose IDs begin alike: 16 times the digit c.
func (b *Backend) Twins(c byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range byte(2) {
		id, _ := crowd.ParseJobID(strings.Repeat(string(c), 16) + strings.Repeat(strconv.Itoa(int(i)), 48))
		b.jobs = append(b.jobs, &job{view: rpc.JobView{JobSummary: rpc.JobSummary{ID: id, Posted: b.now(), Stage: rpc.Settled}}})
	}
}

func (b *Backend) now() time.Time {
	return Start.Add(time.Duration(b.events) * 10 * time.Millisecond)
}

func (b *Backend) add(j *job, ev rpc.JobEvent) {
	b.events++
	ev.Seq, ev.Time, ev.Height = len(j.events)+1, b.now(), crowd.Height(42+b.events)
	j.events = append(j.events, ev)
	v := &j.view
	v.Updated, v.Stage, v.Why = ev.Time, ev.Stage, ev.Why
	v.History = append(v.History, ev)
	if ev.Committee != nil {
		v.Committee = ev.Committee
	}
	if ev.Verdict != nil {
		v.Verdict = ev.Verdict
	}
	if ev.Outcome != nil {
		v.Outcome = ev.Outcome
	}
	for _, p := range ev.Payments {
		if p.From == "stake" {
			b.stake[p.Account] += p.Change
		} else {
			b.change[p.Account] += p.Change
		}
	}
	if ev.Stage.Final() {
		v.Payments, v.Price, v.Escrow, v.Failure = ev.Payments, ev.Price, 0, ev.Failure
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *Backend) Cancel(_ context.Context, id crowd.JobID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	switch {
	case err != nil:
		return err
	case j.view.Stage.Final():
		return rpc.Errorf(rpc.TooLate, "the job is %s", j.view.Stage)
	case j.late:
		return rpc.Errorf(rpc.TooLate, "executors have begun").WithHint("it ends by itself; its limits bound the price")
	}
	b.add(j, rpc.JobEvent{Stage: rpc.Cancelled, Why: "the consumer took it back",
		Payments: []rpc.Payment{{Account: Owner.Address(), Node: &Owner, Change: 5_000_000, From: "escrow", Why: "refund"}}})
	return nil
}

func (b *Backend) Remove(_ context.Context, ids []crowd.JobID) (r rpc.Removed, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		j, err := b.find(id)
		if err != nil {
			return r, err
		}
		if !j.view.Stage.Final() {
			return r, rpc.Errorf(rpc.Conflict, "job %s has not ended: it is %s", id.Short(), j.view.Stage).WithHint("wait for its end")
		}
	}
	return b.drop(func(j *job) bool { return slices.Contains(ids, j.view.ID) }), nil
}

func (b *Backend) Prune(_ context.Context, before time.Time) (rpc.Removed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.drop(func(j *job) bool { return j.view.Stage.Final() && j.view.Updated.Before(before) }), nil
}

// drop forgets the jobs that gone picks. It needs mu.
func (b *Backend) drop(gone func(*job) bool) (r rpc.Removed) {
	b.jobs = slices.DeleteFunc(b.jobs, func(j *job) bool {
		if !gone(j) {
			return false
		}
		r.Jobs++
		for _, data := range j.result {
			r.Bytes += int64(len(data))
		}
		return true
	})
	return r
}

func (b *Backend) find(id crowd.JobID) (*job, error) {
	for _, j := range b.jobs {
		if j.view.ID == id {
			return j, nil
		}
	}
	return nil, rpc.Errorf(rpc.NotFound, "job %s is not known here", id.Short())
}

func (b *Backend) Jobs(_ context.Context, limit int) ([]rpc.JobSummary, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []rpc.JobSummary
	for _, j := range slices.Backward(b.jobs) {
		if len(list) < limit {
			list = append(list, j.view.JobSummary)
		}
	}
	return list, nil
}

func (b *Backend) MatchJobs(_ context.Context, prefix string, limit int) ([]crowd.JobID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []crowd.JobID
	for _, j := range b.jobs {
		if strings.HasPrefix(j.view.ID.String(), prefix) && len(list) < limit {
			list = append(list, j.view.ID)
		}
	}
	return list, nil
}

func (b *Backend) Job(_ context.Context, id crowd.JobID) (rpc.JobView, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return rpc.JobView{}, err
	}
	return j.view, nil
}

func (b *Backend) Explain(_ context.Context, id crowd.JobID) (rpc.Explanation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return rpc.Explanation{}, err
	}
	e := rpc.Explanation{Job: id, Stage: j.view.Stage, Why: j.view.Why}
	if j.view.Stage == rpc.Posted {
		e.Why = "only 1 of 2 needed providers is eligible"
		e.Fix = "raise --max-price to 1200: 3 providers become eligible"
		e.Requirements = []rpc.Requirement{{Name: "online", Met: 7, Of: 7}, {Name: "price <= 1000", Met: 1, Of: 7}}
	}
	return e, nil
}

func (b *Backend) Receipt(_ context.Context, id crowd.JobID) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return nil, err
	}
	if j.view.Stage != rpc.Settled {
		return nil, rpc.Errorf(rpc.Conflict, "the job is %s, not settled", j.view.Stage).WithHint("wait for its end: crowd job logs --follow %s", id.Short())
	}
	data, err := json.Marshal(map[string]any{"job": id, "price": j.view.Price})
	return append(data, '\n'), err
}

func (b *Backend) delivered(id crowd.JobID) (*job, error) {
	j, err := b.find(id)
	if err == nil && j.result == nil {
		err = rpc.Errorf(rpc.Conflict, "the job has no result; it is %s", j.view.Stage).WithHint("see: crowd job describe %s", id.Short())
	}
	return j, err
}

func (b *Backend) Result(_ context.Context, id crowd.JobID) (rpc.Result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.delivered(id)
	if err != nil {
		return rpc.Result{}, err
	}
	return rpc.Result{Job: id, Outcome: *j.view.Outcome, Verdict: j.view.Verdict, Price: j.view.Price,
		Stdout: int64(len(j.result["stdout"])), Stderr: int64(len(j.result["stderr"])), Items: j.view.Items}, nil
}

func (b *Backend) ListResult(_ context.Context, id crowd.JobID, after string, limit int) ([]rpc.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.delivered(id)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]rpc.Entry)
	for path, data := range j.result {
		seen[path] = rpc.Entry{Path: path, Size: int64(len(data))}
		for i, c := range path {
			if c == '/' {
				seen[path[:i]] = rpc.Entry{Path: path[:i], Folder: true}
			}
		}
	}
	var list []rpc.Entry
	for _, e := range seen {
		if e.Path > after {
			list = append(list, e)
		}
	}
	sort.Slice(list, func(i, k int) bool { return list[i].Path < list[k].Path })
	return list[:min(len(list), limit)], nil
}

func (b *Backend) ReadResult(_ context.Context, id crowd.JobID, path string, offset int64, limit int) (rpc.Chunk, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.delivered(id)
	if err != nil {
		return rpc.Chunk{}, err
	}
	data, ok := j.result[path]
	if !ok {
		return rpc.Chunk{}, rpc.Errorf(rpc.NotFound, "the result has no file %q", path)
	}
	from := min(offset, int64(len(data)))
	to := min(from+int64(limit), int64(len(data)))
	return rpc.Chunk{Data: data[from:to], EOF: to == int64(len(data))}, nil
}

func (b *Backend) Watch(ctx context.Context, id crowd.JobID) (<-chan rpc.JobEvent, error) {
	b.mu.Lock()
	b.watched++
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
	return follow(ctx, b, id, func(j *job) ([]rpc.JobEvent, bool) { return j.events, true })
}

// AwaitWatchers waits until n streams of job events have been opened in all.
func (b *Backend) AwaitWatchers(ctx context.Context, n int) error {
	for {
		b.mu.Lock()
		enough, changed := b.watched >= n, b.changed
		b.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *Backend) Logs(ctx context.Context, id crowd.JobID, wait bool) (<-chan rpc.LogChunk, error) {
	return follow(ctx, b, id, func(j *job) ([]rpc.LogChunk, bool) { return j.logs, wait })
}

// follow sends what list gives, and what it gives later, until the job ends.
func follow[T any](ctx context.Context, b *Backend, id crowd.JobID, list func(*job) ([]T, bool)) (<-chan T, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return nil, err
	}
	out := make(chan T)
	go func() {
		defer close(out)
		for sent := 0; ; {
			b.mu.Lock()
			items, wait := list(j)
			over, changed := j.view.Stage.Final(), b.changed
			b.mu.Unlock()
			for ; sent < len(items); sent++ {
				select {
				case out <- items[sent]:
				case <-ctx.Done():
					return
				}
			}
			if over || !wait {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (b *Backend) Accounts(ctx context.Context) ([]rpc.Account, error) {
	a, err := b.Account(ctx, Owner.Address())
	a.Name, a.Own = "default", true
	return []rpc.Account{a}, err
}

func (b *Backend) Account(_ context.Context, a crowd.Address) (rpc.Account, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return rpc.Account{Address: a, Balance: crowd.Credits(1_000_000_000 + b.change[a]),
		Stake: crowd.Credits(100_000_000 + b.stake[a]), Nonce: uint64(len(b.jobs))}, nil
}

// Crowd adds n providers, from Node(10) on. They are never drawn.
func (b *Backend) Crowd(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.more += n
}

func (b *Backend) Providers(context.Context) ([]rpc.Provider, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := []rpc.Provider{
		{Node: Node(1), Address: Node(1).Address(), Price: 900, Country: "CH", Tags: []string{"gpu"}, Stake: 100 * crowd.Credit, Done: 12, Online: true},
		{Node: Node(2), Address: Node(2).Address(), Price: 1000, Stake: 50 * crowd.Credit, Done: 3, Caught: 1, Suspended: "stake below the minimum"},
	}
	for i := range b.more {
		list = append(list, rpc.Provider{Node: Node(10 + i), Address: Node(10 + i).Address(), Price: 1000, Stake: 50 * crowd.Credit, Online: true})
	}
	return list, nil
}

func (b *Backend) Peers(context.Context) ([]rpc.Peer, error) {
	return []rpc.Peer{
		{Node: Node(1), Addresses: []string{"/ip4/127.0.0.1/udp/4002/quic-v1"}, Tags: []string{"gpu", "provider"}, Path: "direct", RTTMillis: 0.4, Since: Start, Overlay: true},
		{Node: Node(2), Addresses: []string{"/ip4/127.0.0.1/udp/4003/quic-v1"}, Since: Start, Overlay: true},
	}, nil
}

func (b *Backend) Status(ctx context.Context) (rpc.Status, error) {
	i, err := b.Info(ctx)
	return rpc.Status{Info: i, Network: "crowd-test", Reachability: "unknown", Seen: []string{"192.0.2.7:4001"}, Tags: []string{"chain"},
		Seeds: b.seeds(), ChainTime: Start, Overlay: rpc.Overlay{Key: Owner.Key().String(), Joined: true, Peers: 2, Known: 3, Sent: 40, Received: 38}}, err
}

func (b *Backend) seeds() []string { return []string{"/ip4/192.0.2.1/udp/4001/quic-v1/p2p/seed"} }

// Network has no real genesis in it.
func (b *Backend) Network(context.Context) (rpc.Network, error) {
	return rpc.Network{Name: "crowd-test", Chain: "crowd-test", Genesis: []byte("genesis"), Seeds: b.seeds()}, nil
}

func (b *Backend) found(ctx context.Context) (rpc.Found, error) {
	p, err := b.Providers(ctx)
	return rpc.Found{Node: Node(1), Key: Node(1).Key().String(), Address: Node(1).Address(), Addresses: []string{"/ip4/127.0.0.1/udp/4002/quic-v1"},
		Tags: []string{"gpu", "provider"}, Signed: Start, Offer: &p[0]}, err
}

func (b *Backend) Find(ctx context.Context, name string) (rpc.Found, error) {
	if len(name) < 8 || !strings.HasPrefix(Node(1).String(), name) && name != Node(1).Key().String() {
		return rpc.Found{}, rpc.Errorf(rpc.NotFound, "nobody knows node %.16s", name)
	}
	return b.found(ctx)
}

func (b *Backend) FindTag(ctx context.Context, tag string, _ int) ([]rpc.Found, error) {
	if tag != "gpu" {
		return nil, nil
	}
	f, err := b.found(ctx)
	return []rpc.Found{f}, err
}

func (b *Backend) Send(_ context.Context, to crowd.Address, amount crowd.Credits) (crowd.Height, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if int64(amount) > 1_000_000_000+b.change[Owner.Address()] {
		return 0, rpc.Errorf(rpc.InsufficientFunds, "the transfer of %s and its fee are not in the balance", amount).WithHint("fund the account, or send less")
	}
	b.change[Owner.Address()] -= int64(amount)
	b.change[to] += int64(amount)
	return 43, nil
}

func (b *Backend) Leave(context.Context) (string, error) {
	return "", rpc.Errorf(rpc.NotFound, "this node is no provider")
}
