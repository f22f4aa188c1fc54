//go:build linux

package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/chain"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/wasm"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/verify"
)

// patience is how long anything may take that a test waits for. It is no pause:
// every wait ends with the event.
const patience = 40 * time.Second

// fleetParams have windows short enough to wait for, and draws in which a large
// stake is as good as sure of a place: see fleetStakes.
func fleetParams() ledger.Params {
	p := ledger.DevParams()
	p.MinStake, p.StakeUnit, p.MaxTickets, p.CommitteeUnits = crowd.Credit, crowd.Credit, 5000, 1<<40
	p.MaxMissed = 1 << 20 // who is killed so often misses many a draw
	p.ClaimWindow, p.DispatchGrace, p.RevealWindow = 3000, 5000, 700
	p.CourtWindow, p.DeliveryWindow = 20_000, 2500
	return p
}

// As newcomers they draw with 500 tickets against 1 and 1: the victim has no place in one of 125,000 jobs.
var fleetStakes = map[int]crowd.Credits{0: 5000 * crowd.Credit, 1: 5 * crowd.Credit, 2: 5 * crowd.Credit}

// victim is the provider that is drawn, and killed.
const victim, second, third = "provider-1", "provider-2", "provider-3"

// memberArg makes the test binary a node of a fleet.
const memberArg = "fleet-member"

// member is what a node's process is told.
type member struct {
	Dir    string // of the network
	Name   string
	Listen []string
	Seeds  []string
}

// word is what a node's process says on its stdout.
type word struct {
	At    string // "ready"; "run": its executor begins; "heard": it follows the chain
	Addrs []string
}

// serveMember is the whole life of a node's process. It obeys the words on its
// stdin, "hold" and "open" for its executor, "hear" for its chain, and ends with it.
func serveMember(raw string) error {
	var m member
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		return err
	}
	l := &Local{cfg: LocalConfig{Dir: m.Dir}.withDefaults()}
	if err := l.load(); err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(w word) {
		mu.Lock()
		defer mu.Unlock()
		json.NewEncoder(os.Stdout).Encode(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	g := &gate{begun: func() { say(word{At: "run"}) }, changed: make(chan struct{})}
	c := Config{
		Dir: l.dir(m.Name), Genesis: l.genesis, Listen: m.Listen, Seeds: m.Seeds,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	switch m.Name {
	case "authority":
		c.Key = l.keys.authority
	case "consumer":
		c.Key, c.RPC = l.keys.consumer, &rpc.Config{Dir: m.Dir}
	default:
		for i, k := range l.keys.providers {
			if providerName(i) == m.Name {
				c.Key = k
			}
		}
	}
	if m.Name != "consumer" {
		e, err := wasm.New(wasm.Config{CacheDir: l.dir("compiled"), Command: []string{"/proc/self/exe", "wasm-worker"}})
		if err != nil {
			return err
		}
		defer e.Close()
		g.Executor, c.Exec = e, g
	}
	n, err := New(c)
	if err != nil {
		return err
	}
	go func() {
		defer cancel()
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			if in.Text() != "hear" {
				g.set(in.Text() == "hold")
			} else if _, err := n.chain.Get(ctx, ledger.ParamsKey()); err == nil {
				say(word{At: "heard"})
			}
		}
	}()
	go func() {
		select {
		case <-n.Ready():
			say(word{At: "ready", Addrs: n.host.Addrs()})
		case <-ctx.Done():
		}
	}()
	return n.Run(ctx)
}

// gate is an honest executor that can be held before it begins.
type gate struct {
	executor.Executor
	begun func()

	mu      sync.Mutex
	held    bool          // guarded by mu
	changed chan struct{} // guarded by mu: closed and replaced when held changes
}

func (g *gate) set(held bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = held
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *gate) Run(ctx context.Context, s executor.Spec, o executor.IO) (executor.Result, error) {
	g.begun()
	for {
		g.mu.Lock()
		held, changed := g.held, g.changed
		g.mu.Unlock()
		if !held {
			return g.Executor.Run(ctx, s, o)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return executor.Result{}, executor.Faultf(executor.Cancelled, "held: %w", ctx.Err())
		}
	}
}

// child is a node's process as the test sees it.
type child struct {
	t     testing.TB
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	ready chan struct{}
	ended chan struct{} // closed when it is no more
	addrs []string      // once ready

	mu      sync.Mutex
	said    map[string]int // guarded by mu: how often which word, in this life
	changed chan struct{}  // guarded by mu: closed and replaced when said changes
	stderr  bytes.Buffer   // once ended
}

// fleet is a local network in which every node is a process of its own.
type fleet struct {
	*rpc.Client // of the consumer
	t           testing.TB
	files       *Local
	seeds       []string
	eye         *eye
	program     crowd.CID

	mu       sync.Mutex
	children map[string]*child // guarded by mu
}

var providers = []string{victim, second, third}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	work := build(t, "testdata/work.c")
	dir, err := os.MkdirTemp("", "fleet-") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := OpenLocal(LocalConfig{Dir: dir, Providers: len(providers), Params: fleetParams(), Stakes: fleetStakes})
	if err != nil {
		t.Fatal(err)
	}
	l.lock.Close()
	f := &fleet{t: t, files: l, children: map[string]*child{}}
	t.Cleanup(func() {
		for name := range f.children {
			f.kill(name)
			if t.Failed() && testing.Verbose() {
				t.Logf("%s said at last:\n%s", name, f.children[name].stderr.String())
			}
		}
	})
	f.start("authority")
	var all sync.WaitGroup
	for _, name := range append([]string{"consumer"}, providers...) {
		all.Go(func() { f.launch(name) })
	}
	all.Wait()
	for _, name := range append([]string{"consumer"}, providers...) {
		f.await(name)
	}
	f.eye = f.look()
	f.program = f.upload(work)
	return f
}

// build makes a C guest.
func build(t testing.TB, source string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	if said, err := exec.Command("clang-14", "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-Wl,-s", "-o", out, source).CombinedOutput(); err != nil {
		t.Skipf("the guests cannot be built here: %v: %s", err, said)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (f *fleet) child(name string) *child {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.children[name]
}

// launch begins a node's process; await waits until it serves.
func (f *fleet) launch(name string) {
	m := member{Dir: f.files.cfg.Dir, Name: name, Seeds: f.seeds, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}}
	f.mu.Lock()
	if was := f.children[name]; was != nil { // who restarts is where it was
		m.Listen = nil
		for _, a := range was.addrs {
			m.Listen = append(m.Listen, a[:strings.Index(a, "/p2p/")])
		}
	}
	f.mu.Unlock()
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	c := &child{t: f.t, name: name, ready: make(chan struct{}), ended: make(chan struct{}), said: map[string]int{}, changed: make(chan struct{})}
	c.cmd = exec.Command("/proc/self/exe", memberArg, string(raw))
	c.cmd.Stderr = &c.stderr
	c.in, err = c.cmd.StdinPipe()
	if err != nil {
		f.t.Error(err)
		return
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		f.t.Error(err)
		return
	}
	if err := c.cmd.Start(); err != nil {
		f.t.Error(err)
		return
	}
	f.mu.Lock()
	f.children[name] = c
	f.mu.Unlock()
	go func() {
		defer close(c.ended)
		defer c.cmd.Wait()
		for d := json.NewDecoder(out); ; {
			var w word
			if d.Decode(&w) != nil {
				return
			}
			if w.At == "ready" {
				c.addrs = w.Addrs
				close(c.ready)
			}
			c.mu.Lock()
			c.said[w.At]++
			close(c.changed)
			c.changed = make(chan struct{})
			c.mu.Unlock()
		}
	}()
}

func (f *fleet) await(name string) {
	f.t.Helper()
	c := f.child(name)
	if c == nil {
		f.t.Fatalf("%s did not start", name)
	}
	select {
	case <-c.ready:
	case <-c.ended:
		f.t.Fatalf("%s ended: %s", name, c.stderr.String())
	case <-time.After(patience):
		f.t.Fatalf("%s does not serve", name)
	}
	switch name {
	case "authority":
		f.seeds = c.addrs
		if f.eye != nil { // who only listens may not have noticed: a word to the dead ends the connection
			f.eye.node.chain.Get(f.t.Context(), ledger.ParamsKey())
		}
	case "consumer":
		f.dial()
	}
}

func (f *fleet) start(name string) {
	f.t.Helper()
	f.launch(name)
	f.await(name)
}

func (f *fleet) dial() {
	f.t.Helper()
	if f.Client != nil {
		f.Client.Close()
	}
	e, err := rpc.Discover(f.files.cfg.Dir)
	if err != nil {
		f.t.Fatal(err)
	}
	if f.Client, err = rpc.Dial(f.t.Context(), e); err != nil {
		f.t.Fatal(err)
	}
}

// kill ends a node's process as a power cut would. It returns when there is nothing left of it.
func (f *fleet) kill(name string) {
	c := f.child(name)
	c.cmd.Process.Signal(syscall.SIGKILL)
	<-c.ended
}

// restart brings back whoever is dead.
func (f *fleet) restart() {
	f.t.Helper()
	for _, name := range append([]string{"authority", "consumer"}, providers...) {
		select {
		case <-f.child(name).ended:
			f.start(name)
		default:
		}
	}
}

// freeze and thaw stop a process and let it go on, as a lost network does for those who wait for it.
func (f *fleet) freeze(name string) { f.child(name).cmd.Process.Signal(syscall.SIGSTOP) }
func (f *fleet) thaw(name string)   { f.child(name).cmd.Process.Signal(syscall.SIGCONT) }

func (f *fleet) tell(what string, names ...string) {
	f.t.Helper()
	for _, n := range names {
		if _, err := io.WriteString(f.child(n).in, what+"\n"); err != nil {
			f.t.Fatalf("tell %s: %v", n, err)
		}
	}
}

// hold keeps executors from beginning; open lets them.
func (f *fleet) hold(names ...string) { f.t.Helper(); f.tell("hold", names...) }
func (f *fleet) open(names ...string) { f.t.Helper(); f.tell("open", names...) }

// words counts how often these nodes, in this life, have said that.
func (f *fleet) words(what string, names ...string) (n int) {
	for _, name := range names {
		c := f.child(name)
		c.mu.Lock()
		n += c.said[what]
		c.mu.Unlock()
	}
	return n
}

// awaitWords waits until these nodes together have said that n times.
func (f *fleet) awaitWords(n int, what string, names ...string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	for {
		change := make(chan struct{}, len(names))
		wait, stop := context.WithCancel(ctx)
		for _, name := range names {
			c := f.child(name)
			c.mu.Lock()
			changed := c.changed
			c.mu.Unlock()
			go func() {
				select {
				case <-changed:
					change <- struct{}{}
				case <-wait.Done():
				}
			}()
		}
		sum := f.words(what, names...) // read after the listening began
		if sum < n {
			select {
			case <-change:
			case <-ctx.Done():
				f.t.Errorf("%v said %q %d times, want %d", names, what, sum, n)
			}
		}
		stop()
		if sum >= n {
			return
		}
		if ctx.Err() != nil {
			f.t.FailNow()
		}
	}
}

// runs counts the runs that these nodes' executors have begun, in this life.
func (f *fleet) runs(names ...string) int { return f.words("run", names...) }

func (f *fleet) awaitRuns(n int, names ...string) { f.t.Helper(); f.awaitWords(n, "run", names...) }

// attentive waits until all follow the chain: who only listens notices late that the authority had died.
func (f *fleet) attentive() {
	f.t.Helper()
	all := append([]string{"consumer"}, providers...)
	had := f.words("heard", all...)
	f.tell("hear", all...)
	f.awaitWords(had+len(all), "heard", all...)
}

func (f *fleet) upload(raw []byte) crowd.CID {
	f.t.Helper()
	c, err := f.UploadFile(f.t.Context(), bytes.NewReader(raw), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// task is a job that nobody has seen before, and what its program prints.
type task struct {
	rpc.PostRequest
	want string
}

const rounds = 100_000_000 // of the program's loop, some 0.2 s

func (f *fleet) task(rounds uint64) task {
	f.t.Helper()
	stdin := make([]byte, 32)
	rand.Read(stdin)
	x := uint64(1)
	for _, b := range stdin {
		x = x*31 + uint64(b)
	}
	for range rounds {
		x = x*6364136223846793005 + 1442695040888963407
	}
	one := uint32(1)
	return task{rpc.PostRequest{
		Check: &rpc.TaskPlan{Method: crowd.PlanPair, Replacements: &one}, Program: f.program, Stdin: f.upload(stdin), Args: []string{fmt.Sprint(rounds)},
		Limits: rpc.Limits{Gas: 4e8, Memory: 16 << 20, Output: 1 << 20},
	}, fmt.Sprintf("working\n%d\n", x)}
}

func (f *fleet) post(r task) crowd.JobID {
	f.t.Helper()
	id, err := f.Post(f.t.Context(), r.PostRequest)
	if err != nil {
		f.t.Fatal(err)
	}
	return id
}

func (f *fleet) id(name string) crowd.NodeID {
	switch name {
	case "authority":
		return f.files.keys.authority.ID()
	case "consumer":
		return f.files.keys.consumer.ID()
	}
	for i := range f.files.keys.providers {
		if providerName(i) == name {
			return f.files.Provider(i)
		}
	}
	panic("bug: no node " + name)
}

// spoke waits until the program is at work on a node: until its own words have come to the consumer.
func (f *fleet) spoke(id crowd.JobID, on string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	for c, err := range f.Logs(ctx, id, true) {
		if err != nil {
			f.t.Fatal(err)
		}
		if c.Node == f.id(on) && bytes.HasPrefix(c.Data, []byte("working")) {
			return
		}
	}
	f.t.Fatalf("the program never spoke on %s", on)
}

// settled waits for the end of a job and checks all that its owner was promised.
func (f *fleet) settled(id crowd.JobID, want task) *ledger.Job {
	f.t.Helper()
	j := f.eye.until(id, "an end", func(j *ledger.Job) bool { return j.State.Ended() })
	if j.State != ledger.Settled {
		f.t.Fatalf("got %s want settled: %s", j.State, history(j))
	}
	events := f.follow(id)
	if last := events[len(events)-1]; last.Stage != rpc.Settled || last.Outcome == nil || last.Outcome.ExitCode != 0 {
		f.t.Fatalf("got %+v", last)
	}
	var b strings.Builder
	if _, err := f.Download(f.t.Context(), id, "stdout", &b); err != nil {
		f.t.Fatalf("the result: %v; %s", err, history(j))
	}
	if b.String() != want.want {
		f.t.Errorf("got %q want %q", b.String(), want.want)
	}
	f.closed(id, j.Verdict.Outcome.Result)
	return j
}

// failed waits for the end of a job that has no result and is nobody's fault: all of the escrow is back.
func (f *fleet) failed(id crowd.JobID) *ledger.Job {
	f.t.Helper()
	return f.ends(id, 0)
}

// impossible waits for the end of a job that two drawn nodes could not do: its owner pays them for three seconds each.
func (f *fleet) impossible(id crowd.JobID) {
	f.t.Helper()
	j := f.eye.until(id, "an end", func(j *ledger.Job) bool { return j.State.Ended() })
	p := fleetParams()
	f.ends(id, min(j.Locked, crowd.Credits(len(j.Places))*p.Pay(crowd.ReferencePrice, j.Spec.Limits().Gas)))
}

// ends waits for the end of a job that has no result and costs so much, or by the remainder of a division less.
func (f *fleet) ends(id crowd.JobID, cost crowd.Credits) *ledger.Job {
	f.t.Helper()
	j := f.eye.until(id, "an end", func(j *ledger.Job) bool { return j.State.Ended() })
	if paid := j.Spent() - j.Duties; j.State != ledger.Failed || paid > cost || paid+crowd.Credits(len(j.Places)) < cost {
		f.t.Fatalf("got %s at a cost of %s, want failed at %s: %s", j.State, paid, cost, history(j))
	}
	events := f.follow(id)
	if last := events[len(events)-1]; last.Stage != rpc.Failed || last.Failure == nil || last.Failure.Message == "" || last.Failure.Hint == "" {
		f.t.Fatalf("got %+v", last)
	}
	f.closed(id, "")
	return j
}

// closed checks the receipt of an ended job, and that nobody's money is lost.
func (f *fleet) closed(id crowd.JobID, result crowd.CID) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	var raw []byte
	for raw == nil { // it comes right after the end; asking is the only way to learn when
		var err error
		if raw, err = f.Receipt(ctx, id); err != nil && ctx.Err() != nil {
			f.t.Fatalf("the receipt: %v", err)
		}
	}
	if findings, good := verify.Check(raw, verify.Trust{Chain: f.files.genesis.ChainID(), Header: VerifyHeader, Result: result}); !good {
		f.t.Errorf("receipt: %+v", findings)
	}
	f.solvent()
}

// solvent checks every credit of the network: none is lost, no honest stake is touched.
func (f *fleet) solvent() {
	f.t.Helper()
	s := f.eye.state()
	if err := ledger.CheckInvariants(s); err != nil {
		f.t.Error(err)
	}
	for i := range providers {
		if p, _ := s.Provider(f.files.Provider(i).Address()); p.Stake != fleetStakes[i] || p.Tombstoned {
			f.t.Errorf("%s has a stake of %s, want %s", providers[i], p.Stake, fleetStakes[i])
		}
	}
}

func (f *fleet) follow(id crowd.JobID) (events []rpc.JobEvent) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	for { // a node that forgot learns it from the chain; asking is the only way to know when
		if _, err := f.Job(ctx, id); err == nil {
			break
		} else if ctx.Err() != nil {
			f.t.Fatalf("the owner never learned of its job: %v", err)
		}
	}
	for ev, err := range f.Watch(ctx, id) {
		if err != nil {
			f.t.Fatalf("job %s after %+v: %v", id.Short(), events, err)
		}
		events = append(events, ev)
	}
	if len(events) == 0 || !events[len(events)-1].Stage.Final() {
		f.t.Fatalf("job %s ended without an end: %+v", id.Short(), events)
	}
	return events
}

func history(j *ledger.Job) string {
	var b strings.Builder
	for _, s := range j.History {
		fmt.Fprintf(&b, "%d %s (%s); ", s.Time, s.State, s.Why)
	}
	return b.String() + news(j)
}

// eye is a node that takes no part: it follows the chain and is never killed.
type eye struct {
	f    *fleet
	t    testing.TB // of the fleet as a whole, for what goes wrong beside its tests
	node *Node

	mu      sync.Mutex
	jobs    map[crowd.JobID]ledger.Job // guarded by mu: newest records
	changed chan struct{}              // guarded by mu: closed and replaced when jobs changes
}

func (f *fleet) look() *eye {
	f.t.Helper()
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	n, err := New(Config{Dir: filepath.Join(f.files.cfg.Dir, "eye"), Key: k, Genesis: f.files.genesis, Seeds: f.seeds, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		f.t.Fatal(err)
	}
	light := chain.NewLight(chain.LightConfig{ // it wants every change of all jobs, not only those that concern it
		Genesis: f.files.genesis, Dial: n.dialChain, Log: n.log, Prefixes: []string{ledger.PrefixJob, string(ledger.EpochsKey())},
	})
	n.chain, n.wallet = light, chain.NewWallet(k, light)
	e := &eye{f: f, t: f.t, node: n, jobs: map[crowd.JobID]ledger.Job{}, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	updates := jobChain{n}.Watch(ctx)
	var all sync.WaitGroup
	all.Go(func() {
		if err := n.Run(ctx); err != nil {
			e.t.Errorf("the observer: %v", err)
		}
	})
	all.Go(func() {
		for u := range updates {
			e.note(u.Jobs...)
			if u.Lost {
				e.catchUp(ctx)
			}
		}
	})
	f.t.Cleanup(func() { cancel(); all.Wait() })
	select {
	case <-n.Ready():
	case <-time.After(patience):
		f.t.Fatal("the observer sees nothing")
	}
	return e
}

// catchUp reads what a broken stream may have kept back.
func (e *eye) catchUp(ctx context.Context) {
	all, err := e.node.chain.List(ctx, ledger.PrefixJob)
	if err != nil {
		if ctx.Err() == nil {
			e.t.Errorf("the observer: %v", err)
		}
		return
	}
	for _, c := range all {
		var j ledger.Job
		if err := crowd.Decode(c.Val, &j); err != nil {
			e.t.Error(err)
			continue
		}
		e.note(j)
	}
}

func (e *eye) note(jobs ...ledger.Job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range jobs {
		e.jobs[j.ID] = j
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// until waits for a record of which ok holds.
func (e *eye) until(id crowd.JobID, what string, ok func(*ledger.Job) bool) *ledger.Job {
	e.f.t.Helper()
	deadline := time.After(patience)
	for {
		e.mu.Lock()
		j, known := e.jobs[id]
		changed := e.changed
		e.mu.Unlock()
		if known && ok(&j) {
			return &j
		}
		select {
		case <-changed:
		case <-deadline:
			e.f.t.Fatalf("job %s never came to %s: %s", id.Short(), what, history(&j))
		}
	}
}

// place waits until a node's place in a job is in that state.
func (e *eye) place(id crowd.JobID, name string, s ledger.PlaceState) *ledger.Job {
	e.f.t.Helper()
	return e.until(id, name+" "+s.String(), func(j *ledger.Job) bool {
		p := j.Place(e.f.id(name))
		return p != nil && p.State == s
	})
}

func (e *eye) in(id crowd.JobID, s ledger.JobState) *ledger.Job {
	e.f.t.Helper()
	return e.until(id, s.String(), func(j *ledger.Job) bool { return j.State >= s })
}

// claimed waits until a node's claim is on chain.
func (e *eye) claimed(id crowd.JobID, name string) *ledger.Job {
	e.f.t.Helper()
	return e.until(id, "a claim of "+name, func(j *ledger.Job) bool {
		return slices.ContainsFunc(j.Drawn, func(d ledger.Drawn) bool { return d.Node == e.f.id(name) })
	})
}

// state is all of the chain's state at one height, known to be whole by its root.
func (e *eye) state() ledger.State {
	e.f.t.Helper()
	ctx, cancel := context.WithTimeout(e.f.t.Context(), patience)
	defer cancel()
	for ctx.Err() == nil {
		all, err := e.node.chain.List(ctx, "")
		if err != nil {
			e.f.t.Fatal(err)
		}
		s := ledger.Load(func(f func(string, []byte)) {
			for _, c := range all {
				f(c.Key, c.Val)
			}
		})
		if s.Root() == e.node.chain.Head().Root {
			return s
		}
	}
	e.f.t.Fatal("the state never stands still")
	return ledger.State{}
}

// transactions that a node has made so far.
func (e *eye) transactions(name string) uint64 {
	e.f.t.Helper()
	return e.state().Account(e.f.id(name).Address()).Nonce
}

// workers are the processes that a node's process has begun, each by a handle
// that is ready to read when it is no more.
func (f *fleet) workers(name string) (handles []int) {
	f.t.Helper()
	for _, pid := range descendants(f.t, f.child(name).cmd.Process.Pid) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH {
			continue
		} else if err != nil {
			f.t.Fatal(err)
		}
		handles = append(handles, fd)
	}
	if len(handles) == 0 {
		f.t.Fatalf("%s has no worker", name)
	}
	return handles
}

// gone waits for the end of processes and closes their handles.
func (f *fleet) gone(handles []int) {
	f.t.Helper()
	for _, fd := range handles {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		if n != 1 || err != nil {
			f.t.Errorf("a worker outlives its node: %v", err)
		}
		unix.Close(fd)
	}
}

// descendants are all processes below pid.
func descendants(t testing.TB, pid int) (out []int) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lists {
		raw, _ := os.ReadFile(l) // a thread may have ended
		for _, s := range strings.Fields(string(raw)) {
			var child int
			if _, err := fmt.Sscan(s, &child); err != nil {
				t.Fatal(err)
			}
			out = append(append(out, child), descendants(t, child)...)
		}
	}
	return out
}
