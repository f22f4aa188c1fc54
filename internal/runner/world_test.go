package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// world is a real ledger behind an in-memory order, and the disks of some nodes.
type world struct {
	t       testing.TB
	chainID string
	auth    *identity.Key
	auths   []ledger.Authority
	nodes   []*node // one authority, two providers, one consumer

	mu      sync.Mutex
	state   ledger.State
	height  crowd.Height
	time    crowd.Time
	pool    []pooled
	bribed  bool // the owner accepts whatever it is told of, before anybody else can say a word
	subs    map[chan Update]context.Context
	commits map[crowd.NodeID]map[string]bool // every commit ever sent
	poke    chan struct{}
}

type pooled struct {
	raw  []byte
	done chan error
}

const (
	authority = iota
	providerA
	providerB
	consumer
)

var params = func() ledger.Params {
	p := ledger.DevParams()
	p.Retention = 120_000
	return p
}()

// newWorld starts the chain; it ends with the context.
func newWorld(t testing.TB, ctx context.Context) *world {
	w := &world{t: t, subs: map[chan Update]context.Context{}, commits: map[crowd.NodeID]map[string]bool{}, poke: make(chan struct{}, 1)}
	g := &ledger.Genesis{Name: "test", Time: crowd.Time(time.Now().UnixMilli()), Params: params}
	for i := range 4 {
		k, err := identity.Generate(rand.NewChaCha8([32]byte{byte(i)}))
		if err != nil {
			t.Fatal(err)
		}
		n := &node{w: w, key: k, dir: t.TempDir(), turn: make(chan struct{}, 1), pins: map[string]bool{}}
		w.nodes = append(w.nodes, n)
		grant := ledger.Grant{ID: k.ID(), Balance: 1000 * crowd.Credit}
		switch i {
		case authority:
			w.auth = k
			g.Authorities = []ledger.Authority{{ID: k.ID(), VRF: k.VRF().Public()}}
		case providerA, providerB:
			grant.Stake, grant.VRF, grant.Offer = 100*crowd.Credit, k.VRF().Public(), ledger.Offer{Price: 1000}
		}
		g.Grants = append(g.Grants, grant)
	}
	var err error
	if w.state, err = ledger.New(g); err != nil {
		t.Fatal(err)
	}
	w.chainID, w.auths = g.ChainID(), g.Authorities
	go w.produce(ctx)
	return w
}

// produce makes a block whenever there is something for it.
func (w *world) produce(ctx context.Context) {
	for {
		w.mu.Lock()
		wait := time.Hour
		if due, ok := w.state.NextDue(); ok {
			wait = max(time.Until(time.UnixMilli(int64(due))), 0)
		}
		if len(w.pool) > 0 || w.state.DrawPending() {
			wait = 0
		}
		w.mu.Unlock()
		if wait > 0 {
			select {
			case <-ctx.Done():
				return
			case <-w.poke:
				continue
			case <-time.After(wait):
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(2 * time.Millisecond):
		}
		w.block()
	}
}

func (w *world) block() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.height++
	w.time = crowd.Time(time.Now().UnixMilli())
	r := w.state.Beacon().R
	proof, _ := w.auth.VRF().Prove(r[:])
	b := ledger.Block{Height: w.height, Time: w.time, Proposer: w.auth.ID(), Beacon: &proof}
	var done []chan error
	w.state.EachJob(func(j ledger.Job) bool {
		if k := w.nodes[consumer].key; w.bribed && j.State == ledger.Delivering {
			accept := ledger.Sign(k, w.chainID, w.state.Account(k.ID().Address()).Nonce, &ledger.Accept{Job: j.ID})
			w.pool = slices.Insert(w.pool, 0, pooled{accept, make(chan error, 1)})
		}
		return true
	})
	for _, p := range w.pool {
		tx, err := ledger.Open(w.chainID, p.raw)
		if err != nil {
			p.done <- err
			continue
		}
		if m, ok := tx.Message().(*ledger.Commit); ok {
			if w.commits[tx.Sender()] == nil {
				w.commits[tx.Sender()] = map[string]bool{}
			}
			w.commits[tx.Sender()][string(crowd.Encode(m))] = true
		}
		b.Txs, done = append(b.Txs, tx), append(done, p.done)
	}
	w.pool = nil
	a, err := ledger.Apply(w.state, b)
	if err != nil {
		w.t.Error(err)
		return
	}
	w.state = a.State
	if err := ledger.CheckInvariants(w.state); err != nil {
		w.t.Error(err)
	}
	for i, err := range a.Results {
		done[i] <- err
	}
	u := Update{Height: w.height, Time: w.time}
	for _, c := range a.Changes {
		if id, ok := ledger.JobOfKey([]byte(c.Key)); ok {
			if j, ok := w.state.Job(id); ok {
				u.Jobs = append(u.Jobs, j)
			} else {
				u.Gone = append(u.Gone, id)
			}
		}
	}
	for c, ctx := range w.subs {
		if ctx.Err() != nil {
			close(c)
			delete(w.subs, c)
			continue
		}
		select {
		case c <- u:
		default:
			w.t.Error("a watcher is too slow")
		}
	}
}

// lose tells a node that it missed something.
func (w *world) lose(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n.updates <- Update{Height: w.height, Time: w.time, Lost: true}
}

func (w *world) kick() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

func (w *world) now() crowd.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.time
}

func (w *world) job(id crowd.JobID) ledger.Job {
	w.mu.Lock()
	defer w.mu.Unlock()
	j, _ := w.state.Job(id)
	return j
}

// node is one machine's disk, and its view of the world: Chain, Blocks and Executor in one.
type node struct {
	w    *world
	key  *identity.Key
	dir  string
	turn chan struct{} // capacity 1: one transaction at a time

	mu     sync.Mutex
	pins   map[string]bool
	kill   context.CancelFunc
	killAt int // call at which it is killed; 0: never
	calls  int
	runs   int
	items  int                    // of batches
	lies   bool                   // about every fourth item
	shy    bool                   // wants no part in any job
	hides  bool                   // serves nobody
	full   bool                   // its disk takes nothing more
	doctor func(dir string) error // changes a result before it is stored; nil: not
	bends  bool                   // the parts of its results, before they are stored
	claims uint64                 // bytes that all content claims to have; 0: what it has
	heard  []Chunk
	tales  []job.Report // of the consumer's machines

	slow    func(context.Context, crowd.JobID) // guarded by w.mu: before each look-up; nil: nothing
	updates chan Update                        // guarded by w.mu
	surveys atomic.Int64
}

func (n *node) told() []job.Report {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.tales)
}

func (n *node) report(_ crowd.JobID, role job.Role, r job.Report) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if role == job.AsConsumer {
		n.tales = append(n.tales, r)
	}
}

var errKilled = errors.New("killed")

// alive counts a call, and kills the node at the chosen one: an odd one before
// what the call does, an even one after.
func (n *node) alive(after bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !after {
		n.calls++
	}
	if n.killAt > 0 && n.calls >= n.killAt && (after == (n.killAt%2 == 0) || n.calls > n.killAt) {
		n.kill()
		return errKilled
	}
	return nil
}

func (n *node) Send(ctx context.Context, m ledger.Message) (crowd.Height, error) {
	if err := n.alive(false); err != nil {
		return 0, err
	}
	select {
	case n.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-n.turn }()
	n.w.mu.Lock()
	nonce := n.w.state.Account(n.key.ID().Address()).Nonce
	done := make(chan error, 1)
	n.w.pool = append(n.w.pool, pooled{ledger.Sign(n.key, n.w.chainID, nonce, m), done})
	n.w.mu.Unlock()
	n.w.kick()
	err := <-done
	if e := n.alive(true); e != nil {
		return 0, e
	}
	return 0, err
}

func (n *node) Job(ctx context.Context, id crowd.JobID) (Record, error) {
	n.w.mu.Lock()
	slow := n.slow
	n.w.mu.Unlock()
	if slow != nil {
		slow(ctx, id)
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	rec := Record{Height: n.w.height, Time: n.w.time}
	if j, ok := n.w.state.Job(id); ok {
		rec.Job = &j
	}
	return rec, nil
}

func (n *node) OpenJobs(context.Context) (ids []crowd.JobID, err error) {
	n.surveys.Add(1)
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.state.EachJob(func(j ledger.Job) bool {
		if !j.State.Ended() {
			ids = append(ids, j.ID)
		}
		return true
	})
	return ids, nil
}

func (n *node) Provider(context.Context) (*ledger.Provider, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if p, ok := n.w.state.Provider(n.key.ID().Address()); ok {
		return &p, nil
	}
	return nil, nil
}

func (n *node) Watch(ctx context.Context) <-chan Update {
	c := make(chan Update, 1024)
	n.w.mu.Lock()
	n.w.subs[c], n.updates = ctx, c
	n.w.mu.Unlock()
	return c
}

var errTooBig = errors.New("too big")

func (n *node) path(c crowd.CID) string { return filepath.Join(n.dir, "blocks", string(c)) }

func (n *node) has(c crowd.CID) bool {
	_, err := os.Lstat(n.path(c))
	return err == nil
}

func (n *node) Fetch(ctx context.Context, c crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error {
	if err := n.alive(false); err != nil {
		return err
	}
	if !n.has(c) {
		i := slices.IndexFunc(n.w.nodes, func(p *node) bool { return slices.Contains(from, p.key.ID()) && p.has(c) && !p.hides })
		if i < 0 {
			return fmt.Errorf("nobody has %s", c)
		}
		if err := copyTree(n.w.nodes[i].path(c), n.path(c), max); err != nil {
			return err
		}
	}
	progress(1, 1)
	return n.alive(true)
}

func (n *node) FetchAll(ctx context.Context, cs []crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error {
	for _, c := range cs {
		if err := n.Fetch(ctx, c, max, from, progress); err != nil {
			return err
		}
	}
	return nil
}

// listing is where a folder's list lies whose files are not here.
func (n *node) listing(c crowd.CID) string { return n.path(c) + ".list" }

func (n *node) FetchFolder(ctx context.Context, c crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error {
	if _, err := n.List(ctx, c); err == nil || errors.Is(err, errTooBig) {
		return err
	}
	for _, p := range n.w.nodes {
		if list, err := p.List(ctx, c); err == nil && slices.Contains(from, p.key.ID()) && !p.hides {
			raw, err := json.Marshal(list)
			if err != nil {
				return err
			}
			progress(1, 1)
			if err := os.MkdirAll(filepath.Dir(n.listing(c)), 0o700); err != nil {
				return err
			}
			return os.WriteFile(n.listing(c), raw, 0o600)
		}
	}
	return fmt.Errorf("nobody lists %s", c)
}

// List says of what is no folder that it is too big, which is as unusable.
func (n *node) List(_ context.Context, c crowd.CID) (list []Entry, err error) {
	if raw, err := os.ReadFile(n.listing(c)); err == nil {
		return list, json.Unmarshal(raw, &list)
	}
	fi, err := os.Lstat(n.path(c))
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, errTooBig
	}
	entries, err := os.ReadDir(n.path(c))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		at := filepath.Join(n.path(c), e.Name())
		child, err := n.add(at)
		if err != nil {
			return nil, err
		}
		fi, err := os.Stat(at)
		if err != nil {
			return nil, err
		}
		list = append(list, Entry{Name: e.Name(), CID: child, Raw: !e.IsDir(), Size: uint64(fi.Size())})
	}
	return list, nil
}

func (n *node) Read(_ context.Context, c crowd.CID, max uint64) ([]byte, error) {
	raw, err := os.ReadFile(n.path(c))
	if err == nil && uint64(len(raw)) > max {
		err = errTooBig
	}
	return raw, err
}

func (n *node) Stat(_ context.Context, c crowd.CID) (in Info, err error) {
	err = filepath.WalkDir(n.path(c), func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p != n.path(c):
			in.Entries++
		default:
			in.Dir = d.IsDir()
		}
		fi, err := d.Info()
		if err == nil && !d.IsDir() {
			in.Size += uint64(fi.Size())
		}
		return err
	})
	if n.claims > 0 {
		in.Size = n.claims
	}
	return in, err
}

func (n *node) Export(_ context.Context, c crowd.CID, path string, max uint64) error {
	if err := n.alive(false); err != nil {
		return err
	}
	return copyTree(n.path(c), path, max)
}

func (n *node) AddDir(_ context.Context, dir string) (crowd.CID, error) {
	if err := n.alive(false); err != nil {
		return "", err
	}
	if n.doctor != nil {
		if err := n.doctor(dir); err != nil {
			return "", err
		}
	}
	if part := filepath.Join(dir, "parts", "00000"); n.bends {
		if _, err := os.Stat(part); err == nil {
			if err := os.WriteFile(part, []byte("a lie\n"), 0o600); err != nil {
				return "", err
			}
		}
	}
	c, err := n.add(dir)
	if err != nil {
		return "", err
	}
	return c, n.alive(true)
}

func (n *node) AddFile(_ context.Context, path string) (crowd.CID, error) {
	if err := n.alive(false); err != nil {
		return "", err
	}
	c, err := n.add(path)
	if err != nil {
		return "", err
	}
	return c, n.alive(true)
}

func (n *node) add(path string) (crowd.CID, error) {
	var sum bytes.Buffer
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(path, p)
		fmt.Fprintf(&sum, "%q %v ", rel, d.IsDir())
		if err == nil && !d.IsDir() {
			var raw []byte
			raw, err = os.ReadFile(p)
			fmt.Fprintf(&sum, "%q ", raw)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	c := crowd.CID("cid" + crowd.Keccak256(sum.Bytes()).String()[:16])
	if n.has(c) {
		return c, nil
	}
	return c, copyTree(path, n.path(c), 1<<30)
}

func (n *node) Pin(c crowd.CID, by string) error {
	if err := n.alive(false); err != nil {
		return err
	}
	n.mu.Lock()
	full := n.full
	if !full {
		n.pins[string(c)+" "+by] = true
	}
	n.mu.Unlock()
	if full {
		return errFull
	}
	return n.alive(true)
}

var errFull = errors.New("no space")

func (n *node) Unpin(c crowd.CID, by string) error {
	n.mu.Lock()
	delete(n.pins, string(c)+" "+by)
	n.mu.Unlock()
	return nil
}

func copyTree(from, to string, max uint64) error {
	fi, err := os.Lstat(from)
	if err != nil {
		return err
	}
	size := uint64(0)
	err = filepath.WalkDir(from, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var fi fs.FileInfo
			if fi, err = d.Info(); err == nil {
				size += uint64(fi.Size())
			}
		}
		return err
	})
	if err == nil && size > max {
		err = errTooBig
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	half, err := os.MkdirTemp(filepath.Dir(to), "half-") // it appears whole or not at all
	if err != nil {
		return err
	}
	defer os.RemoveAll(half)
	half = filepath.Join(half, "x")
	if fi.IsDir() {
		err = os.CopyFS(half, os.DirFS(from))
	} else {
		var raw []byte
		if raw, err = os.ReadFile(from); err == nil {
			err = os.WriteFile(half, raw, 0o600)
		}
	}
	if err == nil {
		err = os.Rename(half, to)
	}
	if errors.Is(err, fs.ErrExist) { // another was faster
		err = nil
	}
	return err
}

func (n *node) Publish(_ crowd.JobID, _ crowd.NodeID, c Chunk) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = append(n.heard, c)
}

// Run is the node's executor: the program is a word that says what to do.
func (n *node) Run(ctx context.Context, s executor.Spec, io executor.IO) (executor.Result, error) {
	if err := n.alive(false); err != nil {
		return executor.Result{}, err
	}
	n.mu.Lock()
	n.runs++
	n.mu.Unlock()
	program, err := os.ReadFile(s.Program)
	if err != nil {
		return executor.Result{}, err
	}
	out := fmt.Sprintf("%s %v", program, s.Args)
	if s.Inputs != "" {
		in, err := os.ReadFile(filepath.Join(s.Inputs, "in"))
		if err != nil {
			return executor.Result{}, err
		}
		out += " " + string(in)
	}
	switch string(program) {
	case "sleep":
		select {
		case <-time.After(s.Limits.Wall / 2):
		case <-ctx.Done():
			return executor.Result{}, ctx.Err()
		}
	case "crash":
		return executor.Result{}, executor.Faultf(executor.Crashed, "on purpose")
	}
	if io.Stdout != nil {
		fmt.Fprint(io.Stdout, out)
		io.Progress(7)
	}
	for name, text := range map[string]string{"stdout": out, "stderr": ""} {
		if err := os.WriteFile(filepath.Join(s.Output, name), []byte(text), 0o600); err != nil {
			return executor.Result{}, err
		}
	}
	if err := os.Mkdir(filepath.Join(s.Output, "out"), 0o700); err != nil {
		return executor.Result{}, err
	}
	code := uint32(0)
	if string(program) == "fail" {
		code = 3
	}
	return executor.Result{Status: crowd.Exited, ExitCode: code, Gas: s.Spent + crowd.Gas(len(out)), Reason: "done"}, nil
}

// RunBatch says of each item what the program and the item are.
func (n *node) RunBatch(ctx context.Context, s executor.Spec, items iter.Seq[executor.Item], each func(executor.ItemResult) error) (r executor.BatchResult, err error) {
	if err := n.alive(false); err != nil {
		return r, err
	}
	if s.Stdin != "" || s.Output != "" {
		return r, errors.New("stdin and output belong to the items")
	}
	program, err := os.ReadFile(s.Program)
	if err != nil {
		return r, err
	}
	for i := range items {
		n.mu.Lock()
		n.items++
		lie := n.lies && i.Index%4 == 0
		n.mu.Unlock()
		out := fmt.Sprintf("%s %s %d", program, i.Stdin, i.Index)
		if lie {
			out = "lie"
		}
		ir := executor.ItemResult{Index: i.Index, Status: crowd.Exited, Gas: i.Spent + crowd.Gas(len(i.Stdin)) + 1, Stdout: []byte(out), Stderr: []byte("said")}
		if string(i.Stdin) == "poison" {
			ir.ExitCode = 3
		}
		if err := each(ir); err != nil {
			return r, err
		}
		r.Items++
	}
	return r, n.alive(true)
}

// ran counts its runs.
func (n *node) ran() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.runs
}

// start runs the node's runner until the context ends or the node is killed.
func (n *node) start(ctx context.Context) (r *Runner, ended chan struct{}) {
	ctx, n.kill = context.WithCancel(ctx)
	roles := []job.Role{job.AsConsumer, job.AsAuthority}
	if n == n.w.nodes[providerA] || n == n.w.nodes[providerB] {
		roles = append(roles, job.AsExecutor)
	}
	r, err := New(Config{
		Accept: func(*crowd.JobSpec) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.shy {
				return errors.New("too large")
			}
			return nil
		},
		Dir: filepath.Join(n.dir, "runner"), Key: n.key, Rand: rand.NewChaCha8([32]byte{9, byte(n.calls)}), Params: params, Authorities: n.w.auths,
		Chain: n, Blocks: n, Executor: n, Logs: n, Report: n.report, Roles: roles, Unusable: func(err error) bool { return errors.Is(err, errTooBig) },
		Full: func(err error) bool { return errors.Is(err, errFull) },
	})
	if err != nil {
		n.w.t.Fatal(err)
	}
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.Run(ctx); err != nil {
			n.w.t.Errorf("run: %v", err)
		}
	}()
	return r, ended
}

// post puts a job on chain.
func (w *world) post(ctx context.Context, program string, bend func(*crowd.JobSpec)) crowd.JobID {
	n := w.nodes[consumer]
	dir := w.t.TempDir()
	for name, text := range map[string]string{"program": program, "inputs/in": "input"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	p, err := n.add(filepath.Join(dir, "program"))
	in, err2 := n.add(filepath.Join(dir, "inputs"))
	if err != nil || err2 != nil {
		w.t.Fatal(err, err2)
	}
	spec := crowd.JobSpec{
		Task: crowd.Task{Program: p, Inputs: in, Args: []string{"a"}, Limits: crowd.Limits{Gas: 1e9, Memory: 1 << 20, Output: 1 << 20, Wall: 15 * time.Second}},
		Plan: crowd.Plan{Method: crowd.PlanPair}, Filters: crowd.Filters{MaxPrice: 1000}, Budget: 10 * crowd.Credit,
	}
	if bend != nil {
		bend(&spec)
	}
	w.mu.Lock()
	nonce := w.state.Account(n.key.ID().Address()).Nonce
	w.mu.Unlock()
	if _, err := n.Send(ctx, &ledger.Post{Spec: spec}); err != nil {
		w.t.Fatal(err)
	}
	return spec.ID(n.key.ID(), nonce)
}
