// Package wasm runs WebAssembly programs (WASI preview 1) so that every honest
// machine gets the same result: instrumented code, our own host functions, one
// locked-in process per program. It fetches nothing and knows no network.
package wasm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// maxLinear is the most memory that any program gets: a 32-bit size must be able
// to say it.
const maxLinear = 1<<32 - 1<<16

// Times after which the machine is to blame.
const (
	startTime = 30 * time.Second
	priceTime = 15 * time.Second // checking and pricing 64 MiB takes a second
	// compileTime is thrice what the largest module that is accepted takes on one processor (instrument.Info.Effort), and
	// less than the least time that a job gives beyond its wall time.
	compileTime = 45 * time.Second
)

// maxCode bounds compiled code in bytes.
const maxCode = 1 << 30

// Config says how programs are run. The zero value works but for CacheDir and Command.
type Config struct {
	CacheDir string   // folder for compiled code, ours alone; made if it is not there
	Command  []string // argv of a program that calls Worker, such as {"/proc/self/exe", "wasm-worker"}
	Workers  int      // runs at once, and idle workers kept; default the number of CPUs
	Engine   string   // Wasmtime or Wazero; default the first of Engines()
	Require  []string // layers of isolation without which nothing is run; default DefaultLayers()
}

func (c Config) withDefaults() Config {
	if c.Workers == 0 {
		c.Workers = runtime.NumCPU()
	}
	if c.Engine == "" {
		c.Engine = engineNames[0]
	}
	if c.Require == nil {
		c.Require = DefaultLayers()
	}
	return c
}

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	var errs []error
	if c.CacheDir == "" {
		errs = append(errs, errors.New("cache folder: none"))
	}
	if len(c.Command) == 0 {
		errs = append(errs, errors.New("worker command: none"))
	}
	if c.Workers < 0 {
		errs = append(errs, fmt.Errorf("workers: %d", c.Workers))
	}
	if c.Engine != "" && !slices.Contains(engineNames, c.Engine) {
		errs = append(errs, fmt.Errorf("engine %q: this build has %s", c.Engine, strings.Join(engineNames, ", ")))
	}
	return errors.Join(errs...)
}

// Executor is the executor.Executor for WebAssembly.
//
// A worker process serves one program and never another: a program that should
// ever break out of its engine finds only its own runs. One spare worker, which has seen no
// program, stands ready for the next.
type Executor struct {
	// set once
	config Config
	cache  *cache
	slots  chan struct{} // one per run under way
	forks  chan forking
	forked chan struct{} // closed when the forking thread has ended
	layers []string
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	runs sync.WaitGroup // under way, and the spare being made; grows under mu only

	mu     sync.Mutex
	idle   []*process // guarded by mu; have a program; last used last
	spare  *process   // guarded by mu; nil: none
	making bool       // guarded by mu; a spare is on its way
	closed bool       // guarded by mu
}

type forking struct {
	do   func() error
	done chan error
}

// New starts one worker to see what isolation this machine gives, and refuses to
// go on with less than c.Require: the error is a *executor.Fault then.
func New(c Config) (*Executor, error) {
	if err := c.Validate(); err != nil {
		return nil, &executor.Fault{Kind: executor.BadSpec, Err: fmt.Errorf("wasm executor: %w", err)}
	}
	c = c.withDefaults()
	if b, err := os.ReadFile("/proc/sys/vm/overcommit_memory"); err == nil && strings.TrimSpace(string(b)) == "2" {
		// A program would see growth of its memory fail here, and nowhere else.
		return nil, executor.Faultf(executor.Unsupported, "vm.overcommit_memory is 2: memory that is promised may not be there")
	}
	sweepCgroups()
	store, err := newCache(c.CacheDir, c.Engine)
	if err != nil {
		return nil, &executor.Fault{Kind: executor.Unsupported, Err: err}
	}
	e := &Executor{
		config: c, cache: store, slots: make(chan struct{}, c.Workers),
		forks: make(chan forking), forked: make(chan struct{}),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	store.ctx = e.ctx
	go e.fork()
	p, err := e.start(e.ctx)
	if err != nil {
		e.Close()
		return nil, err
	}
	e.spare, e.layers = p, p.layers
	return e, nil
}

// fork starts workers on a thread of their own, since they die with it.
func (e *Executor) fork() {
	defer close(e.forked)
	runtime.LockOSThread() // and never unlocked: the thread ends here
	for f := range e.forks {
		f.done <- f.do()
	}
}

// start begins a worker and sees that it is locked in as required.
func (e *Executor) start(ctx context.Context) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	p, err := e.config.start(ctx, func(do func() error) error {
		f := forking{do, make(chan error, 1)}
		e.forks <- f
		return <-f.done
	})
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, l := range e.config.Require {
		if !slices.Contains(p.layers, l) {
			missing = append(missing, l)
		}
	}
	if len(missing) > 0 {
		p.end()
		return nil, executor.Faultf(executor.Unsupported, "isolation: this machine does not give %s", strings.Join(missing, ", "))
	}
	slices.Sort(p.layers)
	return p, nil
}

// Isolation lists the layers that hold, as the kernel told when the first worker started.
func (e *Executor) Isolation() []string { return slices.Clone(e.layers) }

// Close ends all workers and returns when the last is gone. Runs under way end as Cancelled.
func (e *Executor) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.cancel()
	all := e.idle
	if e.spare != nil {
		all = append(all, e.spare)
	}
	e.idle, e.spare = nil, nil
	e.mu.Unlock()
	for _, p := range all {
		p.end()
	}
	e.runs.Wait()
	e.cache.fills.Wait()
	close(e.forks)
	<-e.forked
	return nil
}

// begin counts something that Close has to wait for; false: it is too late.
func (e *Executor) begin() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.runs.Add(1)
	}
	return !e.closed
}

// take finds a worker for the program k: one that has it, the spare, or a new one.
// The zero key asks for one that has seen nothing.
func (e *Executor) take(ctx context.Context, k key) (*process, error) {
	for {
		p := e.waiting(k)
		if p == nil {
			return e.start(ctx)
		}
		if p.quiet() {
			return p, nil
		}
		p.end() // it has died, or talks out of turn
	}
}

// waiting takes a worker off the shelf, or returns nil.
func (e *Executor) waiting(k key) *process {
	e.mu.Lock()
	for i := len(e.idle) - 1; i >= 0 && k != (key{}); i-- {
		if p := e.idle[i]; p.program == k {
			e.idle = slices.Delete(e.idle, i, i+1)
			e.mu.Unlock()
			return p
		}
	}
	p := e.spare
	e.spare = nil
	e.mu.Unlock()
	e.restock()
	return p
}

// restock makes a new spare in the background if there is none.
func (e *Executor) restock() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.making || e.spare != nil {
		return
	}
	e.making = true
	e.runs.Add(1)
	go func() {
		defer e.runs.Done()
		p, err := e.start(e.ctx) // an error comes back when a run needs a worker
		e.mu.Lock()
		e.making = false
		if err == nil && !e.closed {
			e.spare, p = p, nil
		}
		e.mu.Unlock()
		if err == nil && p != nil {
			p.end()
		}
	}()
}

// give keeps a worker that did well; the longest idle one goes where there are too many.
func (e *Executor) give(p *process) {
	e.mu.Lock()
	old := p
	if !e.closed {
		e.idle, old = append(e.idle, p), nil
		if len(e.idle) > e.config.Workers {
			old = e.idle[0]
			e.idle = slices.Delete(e.idle, 0, 1)
		}
	}
	e.mu.Unlock()
	if old != nil {
		old.end()
	}
}

// Run runs one program. See executor.Executor.
func (e *Executor) Run(ctx context.Context, s executor.Spec, io executor.IO) (executor.Result, error) {
	r, err := e.run(ctx, &s, io)
	return r, faulted(err)
}

// faulted makes a *executor.Fault of every error that is none.
func faulted(err error) error {
	var f *executor.Fault
	if err != nil && !errors.As(err, &f) {
		return &executor.Fault{Kind: executor.Crashed, Err: err}
	}
	return err
}

func (e *Executor) run(ctx context.Context, s *executor.Spec, io executor.IO) (executor.Result, error) {
	var none executor.Result
	if err := s.Validate(); err != nil {
		return none, &executor.Fault{Kind: executor.BadSpec, Err: err}
	}
	ctx, leave, err := e.enter(ctx, s)
	if err != nil {
		return none, err
	}
	defer leave()
	file, k, err := e.cache.program(s.Program)
	if err != nil {
		return none, executor.Faultf(executor.BadSpec, "program: %w", err)
	}
	defer file.Close()
	x, err := openSession(s)
	if err != nil {
		return none, err
	}
	defer x.close()
	for again := true; ; again = false {
		c, err := e.codeFor(ctx, k, s) // before the slot, so that what takes long to compile keeps nobody from running
		if err != nil {
			return none, err
		}
		r, err := e.runCode(ctx, s, io, x, k, c)
		if !errors.Is(err, errUnloaded) || !again {
			r.Engine = e.Engine()
			return r, err
		}
		e.cache.drop(k)
	}
}

// enter admits a run that asks for no more than there is; leave must be called where err is nil.
func (e *Executor) enter(ctx context.Context, s *executor.Spec) (_ context.Context, leave func(), err error) {
	if have := MachineMemory(); s.Limits.Memory > have {
		return nil, nil, executor.Faultf(executor.Unsupported, "memory of %d bytes: this machine has %d", s.Limits.Memory, have)
	}
	if !e.begin() {
		return nil, nil, executor.Faultf(executor.Cancelled, "executor is closed")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(e.ctx, func() { cancel(errors.New("executor is closed")) })
	return ctx, func() {
		stop()
		cancel(nil)
		e.runs.Done()
	}, nil
}

// Engine is the name and version of what runs programs.
func (e *Executor) Engine() string {
	return engineVersions[e.config.Engine]
}

// errSlow tells our own deadlines from the caller's.
var errSlow = errors.New("time is up")

var errUnloaded = errors.New("compiled code could not be loaded")

// MachineMemory is how many bytes this machine has: a program that may use more is not run here.
func MachineMemory() uint64 {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return maxLinear
	}
	return min(uint64(i.Totalram+i.Totalswap)*uint64(i.Unit), groupMemory("/sys/fs/cgroup", ownCgroups()))
}

// RunMemory is how many bytes all programs together may have on this machine: its memory, or that of the cgroup that this process
// is in, less a reserve for the node itself: an eighth, at least 1 GiB, at most half.
func RunMemory() uint64 {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return maxLinear
	}
	return lessReserve(min(uint64(i.Totalram)*uint64(i.Unit), groupMemory("/sys/fs/cgroup", ownCgroups())))
}

func lessReserve(have uint64) uint64 {
	return have - min(max(have/8, 1<<30), have/2)
}

// codeFor is the program k, compiled if s can pay for it.
func (e *Executor) codeFor(ctx context.Context, k key, s *executor.Spec) (*code, error) {
	if s.Spent > s.Limits.Gas {
		return &code{}, nil // nobody pays for a look at it
	}
	return e.cache.get(ctx, k, s.Program, func(p *price) bool { return p.start(s) <= s.Limits.Gas }, e.compile)
}

// compile has a worker that has seen nothing else compile a program, and ends it. With a nil code it is only priced.
func (e *Executor) compile(ctx context.Context, program, code *os.File) (compiled, error) {
	most, o, files := priceTime, order{}, []*os.File{program, program}
	if code != nil {
		most, o.Code, files[1] = compileTime, true, code
	}
	ctx, cancel := context.WithTimeoutCause(ctx, most, errSlow)
	defer cancel()
	p, err := e.take(ctx, key{})
	if err != nil {
		return compiled{}, err
	}
	defer p.end()
	defer context.AfterFunc(ctx, p.kill)()
	if err := p.bound(4*executor.MaxProgram, maxCode); err != nil {
		return compiled{}, err
	}
	if err := p.send(mCompile, o, files...); err != nil {
		return compiled{}, p.fault(ctx, "compile", err)
	}
	k, v, err := p.recv()
	if err == nil && k != mCompiled {
		err = fmt.Errorf("message %d for an answer", k)
	}
	if err != nil {
		return compiled{}, p.fault(ctx, "compile", err)
	}
	c := v.(*compiled)
	switch {
	case c.Fault != 0:
		return compiled{}, &executor.Fault{Kind: c.Fault, Err: errors.New(c.Reason)}
	case c.Invalid == "" && (c.Size > 0) != (code != nil):
		return compiled{}, executor.Faultf(executor.Crashed, "compile: %d bytes of code, which were wanted: %v", c.Size, code != nil)
	}
	return *c, nil
}

// fault says why the talk with a worker ended: we killed it, or it died.
func (p *process) fault(ctx context.Context, doing string, err error) *executor.Fault {
	var f *executor.Fault
	switch {
	case errors.Is(context.Cause(ctx), errSlow):
		return executor.Faultf(executor.Timeout, "%s: %w", doing, errSlow)
	case ctx.Err() != nil:
		return &executor.Fault{Kind: executor.Cancelled, Err: context.Cause(ctx)}
	case errors.As(err, &f):
		return f
	}
	p.end() // so that all it said is here
	return executor.Faultf(executor.Crashed, "%s: %w (%v); it said %q", doing, err, p.cmd.ProcessState, p.stderr)
}

// unstarted is the result of a run whose program never begins.
func (c *code) unstarted(s *executor.Spec) executor.Result {
	if c.invalid != "" && s.Spent <= s.Limits.Gas {
		return executor.Result{Status: crowd.Invalid, Gas: s.Spent, Reason: c.invalid}
	}
	end := outOfGas(s.Limits)
	return executor.Result{Status: end.status, Gas: s.Limits.Gas, Reason: end.reason}
}

// runCode runs compiled code in a worker.
func (e *Executor) runCode(ctx context.Context, s *executor.Spec, io executor.IO, x *session, k key, c *code) (r executor.Result, err error) {
	if start := c.price.start(s); c.file == nil || start > s.Limits.Gas {
		return c.unstarted(s), nil
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return r, &executor.Fault{Kind: executor.Cancelled, Err: context.Cause(ctx)}
	}
	p, err := e.take(ctx, k)
	if err != nil {
		return r, err
	}
	keep := false
	defer func() {
		if keep {
			e.give(p)
		} else {
			p.end()
		}
	}()
	if err := p.bound(s.Limits.Memory, s.Limits.Output); err != nil {
		return r, err
	}
	l := follow(io, x.stdout, x.stderr)
	defer l.finish()

	began, cpu := time.Now(), p.cpu()
	ctx, cancel := context.WithTimeoutCause(ctx, s.Limits.Wall, errSlow)
	defer cancel()
	stop := context.AfterFunc(ctx, p.kill)
	d, err := p.serve(x, s, c, p.program != k, l)
	if !stop() && err == nil { // killed after its last word
		err = errors.New("the worker was killed")
	}
	switch {
	case err != nil:
		return r, p.fault(ctx, "run", err)
	case d.Unloaded:
		return r, fmt.Errorf("%w: %s", errUnloaded, d.Reason)
	case d.Fault != 0:
		return r, faultOf(d)
	}
	if r, err = resultOf(d, s.Limits); err != nil {
		return executor.Result{}, err
	}
	if err := x.finish(s.Limits.Output); err != nil {
		return executor.Result{}, err
	}
	r.Wall, r.CPU = time.Since(began), p.cpu()-cpu
	p.program, keep = k, true
	return r, nil
}

// serve hands the worker a run and answers what it asks until the run is done.
func (p *process) serve(x *session, s *executor.Spec, c *code, load bool, l *live) (*done, error) {
	o := runOrder{
		Args: s.Args, Env: s.Env, Seed: s.Seed, Limits: s.Limits, Start: c.price.start(s), Memory: c.price.Memory,
		Stdin: x.stdin != nil, Code: load, Inputs: x.inputs != nil, Live: l.wants(),
	}
	files := []*os.File{x.stdout, x.stderr}
	if o.Stdin {
		files = append(files, x.stdin)
	}
	if o.Code {
		files = append(files, c.file)
	}
	if err := p.send(mRun, o, files...); err != nil {
		return nil, err
	}
	for {
		k, v, err := p.recv()
		if err != nil {
			return nil, err
		}
		switch v := v.(type) {
		case *progress:
			l.gas.Store(uint64(min(v.Gas, s.Limits.Gas)))
		case *request:
			if err := p.reply(x, k, v); err != nil {
				return nil, err
			}
		case *leaves:
			if err := x.add(v); err != nil {
				return nil, err
			}
		case *done:
			return v, nil
		default:
			return nil, fmt.Errorf("message %d from the worker during a run", k)
		}
	}
}

// reply serves one request of the worker.
func (p *process) reply(x *session, k kind, r *request) error {
	a, f, err := x.answer(k, r)
	if err != nil {
		return err
	}
	if f == nil {
		return p.send(mReply, a)
	}
	defer f.Close()
	return p.send(mReply, a, f)
}
