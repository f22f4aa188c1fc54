package wasm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// How a batch is cut into frames, each for one worker.
const (
	frameTime  = 20 * time.Millisecond // of work in a frame, as far as known
	frameItems = 256
	frameBytes = 256 << 10 // of stdin and arguments, unless one item has more
	frameAhead = 4         // chunks of results that wait for each, of one frame
	queueItems = 1024      // that wait for a worker
	queueBytes = 4 << 20   // of stdin of these, unless one item has more
)

// maxChunk bounds what a worker may say in one chunk: it flushes behind every item that fills it.
func maxChunk(output uint64) int {
	return flushBytes + int(output) + maxNodes*(maxPath+64) + maxMessage
}

var _ executor.Batcher = (*Executor)(nil)

// batchRun is the parent's side of one batch.
type batchRun struct {
	// set once
	e     *Executor
	spec  executor.Spec
	queue *queue
	order chan *framed  // in which the frames' results are told; as many wait as there are workers
	turn  chan struct{} // holds one token: who takes a frame has it, so that frames get slots in their order
	pace  atomic.Int64  // ns that an item takes, about; 0: not known
	cpu   atomic.Int64

	program key
	mu      sync.Mutex // held while code is made anew
	code    *code      // guarded by mu
	renewed bool       // guarded by mu; code that did not load has been made anew once
}

// framed is some items in a row, and what they came to so far.
type framed struct {
	items   []executor.Item
	results chan []executor.ItemResult // closed when there is no more; frameAhead chunks wait at most
	err     error                      // before the close: why the batch ends here
}

// RunBatch runs one program over many items. See executor.Batcher.
func (e *Executor) RunBatch(ctx context.Context, s executor.Spec, items iter.Seq[executor.Item], each func(executor.ItemResult) error) (executor.BatchResult, error) {
	r := executor.BatchResult{Engine: e.Engine()}
	began := time.Now()
	if err := s.ValidateBatch(); err != nil {
		return r, &executor.Fault{Kind: executor.BadSpec, Err: err}
	}
	ctx, leave, err := e.enter(ctx, &s)
	if err != nil {
		return r, err
	}
	defer leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	most := e.config.Workers
	if s.Lanes > 0 {
		most = min(most, s.Lanes)
	}
	b := &batchRun{e: e, spec: s, queue: newQueue(), order: make(chan *framed, most), turn: make(chan struct{}, 1)}
	if b.code, b.program, err = e.codeOf(ctx, &s); err != nil {
		return r, faulted(err)
	}
	if b.code.file == nil {
		return b.unstarted(ctx, items, each, r)
	}
	defer context.AfterFunc(ctx, b.queue.close)()

	var running sync.WaitGroup
	running.Go(func() { b.feed(items) })
	var lanes sync.WaitGroup
	for range most {
		lanes.Go(func() { b.lane(ctx) })
	}
	running.Go(func() {
		lanes.Wait()
		close(b.order)
	})
	err = b.tell(ctx, each, &r)
	if err != nil {
		cancel(err)
	}
	b.queue.close()
	for f := range b.order { // so that no lane waits for us
		for range f.results {
		}
	}
	running.Wait()
	r.Wall, r.CPU = time.Since(began), time.Duration(b.cpu.Load())
	return r, err
}

// codeOf is the program of s, compiled if an item that has spent nothing else can pay its share.
func (e *Executor) codeOf(ctx context.Context, s *executor.Spec) (*code, key, error) {
	file, k, err := e.cache.program(s.Program)
	if err != nil {
		return nil, k, executor.Faultf(executor.BadSpec, "program: %w", err)
	}
	file.Close()
	c, err := e.codeFor(ctx, k, s)
	return c, k, err
}

// unstarted tells of every item what Run does, where the program begins for none.
func (b *batchRun) unstarted(ctx context.Context, items iter.Seq[executor.Item], each func(executor.ItemResult) error, r executor.BatchResult) (executor.BatchResult, error) {
	for i := range items {
		if ctx.Err() != nil {
			return r, cancelled(ctx)
		}
		if err := b.spec.ValidateItem(i); err != nil {
			return r, &executor.Fault{Kind: executor.BadSpec, Err: err}
		}
		r.Items++
		s := b.spec.Item(i)
		end := b.code.unstarted(&s)
		r.Gas += end.Gas
		if err := each(executor.ItemResult{Index: i.Index, Status: end.Status, Gas: end.Gas, Reason: end.Reason}); err != nil {
			return r, err
		}
	}
	return r, nil
}

// tell calls each with the results of the frames in their order.
func (b *batchRun) tell(ctx context.Context, each func(executor.ItemResult) error, r *executor.BatchResult) error {
	for f := range b.order {
		for list := range f.results {
			for _, i := range list {
				if ctx.Err() != nil {
					return cancelled(ctx)
				}
				r.Items++
				r.Gas += i.Gas
				if i.Fault != nil {
					r.Faults++
				}
				if i.Warm {
					r.Warm++
				}
				if err := each(i); err != nil {
					return err
				}
			}
		}
		if f.err != nil {
			return faulted(f.err)
		}
	}
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	return b.queue.err()
}

func cancelled(ctx context.Context) *executor.Fault {
	return &executor.Fault{Kind: executor.Cancelled, Err: context.Cause(ctx)}
}

// feed ranges over the items until there are no more or nobody wants them.
func (b *batchRun) feed(items iter.Seq[executor.Item]) {
	for i := range items {
		if err := b.spec.ValidateItem(i); err != nil {
			b.queue.end(&executor.Fault{Kind: executor.BadSpec, Err: err})
			return
		}
		if !b.queue.push(i) {
			return
		}
	}
	b.queue.end(nil)
}

// lane runs frames in one worker after the other until there are none.
func (b *batchRun) lane(ctx context.Context) {
	l := &lane{batchRun: b}
	defer l.leave()
	for {
		f, release := b.take(ctx)
		if f == nil {
			return
		}
		began := time.Now()
		f.err = l.run(ctx, f)
		if took := time.Since(began); f.err == nil {
			b.pace.Store(int64(took)/int64(len(f.items)) + 1)
		}
		release()
		failed := f.err != nil
		close(f.results)
		if failed {
			return // tell ends the batch
		}
	}
}

// take waits for a frame of items and for a slot to run it; nil: there is none. Slots go to frames in
// their order, so that the one whose results are told next never waits for a later one.
func (b *batchRun) take(ctx context.Context) (_ *framed, release func()) {
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil
	}
	defer func() { <-b.turn }()
	items := b.queue.take(b.most(), cap(b.order))
	if len(items) == 0 {
		return nil, nil
	}
	select {
	case b.e.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, nil
	}
	f := &framed{items: items, results: make(chan []executor.ItemResult, frameAhead)}
	select {
	case b.order <- f:
		return f, func() { <-b.e.slots }
	case <-ctx.Done():
		<-b.e.slots
		return nil, nil
	}
}

// most is how many items a frame should have: few where they are slow, so that no worker is
// left with all of them in the end.
func (b *batchRun) most() int {
	pace := b.pace.Load()
	if pace == 0 {
		return 1
	}
	return int(min(max(int64(frameTime)/pace, 1), frameItems))
}

// lane has at most one worker, which it starts when it has something to run.
type lane struct {
	*batchRun
	p      *process // nil: none
	spent  time.Duration
	inputs *session
	buf    []byte // parts of a chunk
}

// run runs the items of f. Where a worker fails while it has several to run, it does not say at which: those
// that it has not reported run again one by one, until the one that it was has failed alone.
func (l *lane) run(ctx context.Context, f *framed) error {
	tell := func(list []executor.ItemResult) error {
		select {
		case f.results <- list:
			return nil
		case <-ctx.Done():
			return cancelled(ctx)
		}
	}
	for rest, alone := f.items, false; len(rest) > 0; {
		if err := l.ready(ctx); err != nil {
			return err
		}
		some := rest
		if alone {
			some = rest[:1]
		}
		n, fault := l.exchange(ctx, some, tell)
		rest = rest[n:]
		switch {
		case ctx.Err() != nil:
			return cancelled(ctx)
		case fault == nil:
		case len(some)-n > 1:
			alone = true
		default:
			if err := tell([]executor.ItemResult{{Index: rest[0].Index, Fault: fault}}); err != nil {
				return err
			}
			rest, alone = rest[1:], false
		}
	}
	return nil
}

// ready sees to a worker that has the program and awaits items.
func (l *lane) ready(ctx context.Context) (err error) {
	if l.p != nil {
		return nil
	}
	if l.inputs == nil {
		if l.inputs, err = openInputs(&l.spec); err != nil {
			return err
		}
	}
	for {
		l.mu.Lock()
		c := l.code
		l.mu.Unlock()
		err := l.begin(ctx, c)
		if !errors.Is(err, errUnloaded) {
			return err
		}
		if err := l.renew(ctx, c, err); err != nil {
			return err
		}
	}
}

// renew makes code anew that would not load: once in a batch.
func (l *lane) renew(ctx context.Context, old *code, why error) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.code != old {
		return nil // another lane has
	}
	if l.renewed {
		return executor.Faultf(executor.Crashed, "%w", why)
	}
	l.renewed = true
	l.e.cache.drop(l.program)
	l.code, err = l.e.codeFor(ctx, l.program, &l.spec)
	return err
}

// begin takes a worker and tells it what all items share.
func (l *lane) begin(ctx context.Context, c *code) error {
	p, err := l.e.take(ctx, l.program)
	if err != nil {
		return err
	}
	o := batchOrder{
		Args: l.spec.Args, Env: l.spec.Env, Seed: l.spec.Seed, Limits: l.spec.Limits, Start: c.price.start(&l.spec), Memory: c.price.Memory,
		Code: p.program != l.program, Inputs: l.inputs.inputs != nil,
	}
	fd, err := unix.MemfdCreate("crowd snapshot", unix.MFD_CLOEXEC)
	if err != nil {
		p.end()
		return executor.Faultf(executor.NoSpace, "snapshot: %w", err)
	}
	image := os.NewFile(uintptr(fd), "snapshot")
	defer image.Close()
	files := []*os.File{image}
	if o.Code {
		files = append(files, c.file)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, errSlow)
	defer cancel()
	stop := context.AfterFunc(ctx, p.kill)
	l.spent = p.cpu()
	var ready *begun
	if err = p.bound(2*l.spec.Limits.Memory, l.spec.Limits.Memory); err == nil { // twice: the snapshot and its copy
		if err = p.send(mBatch, o, files...); err == nil {
			var k kind
			var v any
			if k, v, err = p.recv(); err == nil {
				var is bool
				if ready, is = v.(*begun); !is {
					err = fmt.Errorf("message %d for an answer", k)
				}
			}
		}
	}
	if !stop() && err == nil {
		err = errors.New("the worker was killed")
	}
	switch {
	case err != nil:
		fault := p.fault(ctx, "begin batch", err)
		p.end()
		return fault
	case ready.Unloaded:
		p.end()
		return fmt.Errorf("%w: %s", errUnloaded, ready.Reason)
	}
	p.program, l.p = l.program, p
	return nil
}

// exchange has the worker run items and tells of the n that it reported, in their order. A fault is that of the
// items after these, and ends the worker.
func (l *lane) exchange(ctx context.Context, items []executor.Item, tell func([]executor.ItemResult) error) (n int, fault *executor.Fault) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, l.p.kill)
	late := time.AfterFunc(l.spec.Limits.Wall, func() { cancel(errSlow) })
	defer late.Stop()
	var f frame
	for _, i := range items {
		f.List = append(f.List, itemOrder{Index: i.Index, Stdin: i.Stdin, Args: i.Args, Spent: min(i.Spent, mostPart)})
	}
	failed := false // the worker, at an item; and it said so
	err := l.p.sendFrame(f)
	for err == nil && n < len(items) && !failed {
		var c *chunk
		if c, err = l.chunk(); err != nil {
			break
		}
		late.Stop() // it is not the worker's time that each takes
		var list []executor.ItemResult
		if list, err = check(c, items[n:], &l.spec.Limits); err == nil {
			n += len(list)
			failed = list[len(list)-1].Fault != nil
			err = tell(list)
		}
		late.Reset(l.spec.Limits.Wall)
	}
	alive := stop()
	if err != nil {
		fault = l.p.fault(ctx, "run", err)
	}
	if err != nil || failed || !alive {
		l.drop()
	}
	return n, fault
}

// chunk receives the next chunk of results, and answers what the worker asks meanwhile.
func (l *lane) chunk() (*chunk, error) {
	l.buf = l.buf[:0]
	for {
		k, v, err := l.p.recv()
		if err != nil {
			return nil, err
		}
		switch v := v.(type) {
		case *request:
			if err := l.p.reply(l.inputs, k, v); err != nil {
				return nil, err
			}
		case *part:
			if l.buf = append(l.buf, v.Data...); len(l.buf) > maxChunk(l.spec.Limits.Output) {
				return nil, fmt.Errorf("results of more than %d bytes at once", maxChunk(l.spec.Limits.Output))
			}
			if v.Last {
				return decodeChunk(l.buf)
			}
		default:
			return nil, fmt.Errorf("message %d from the worker during a batch", k)
		}
	}
}

// check holds what a worker says of its next items to what could be.
func check(c *chunk, items []executor.Item, limits *crowd.Limits) ([]executor.ItemResult, error) {
	if len(c.List) == 0 || len(c.List) > len(items) {
		return nil, fmt.Errorf("results of %d items, want 1 to %d", len(c.List), len(items))
	}
	var list []executor.ItemResult
	for i, d := range c.List {
		r := executor.ItemResult{
			Index: d.Index, Status: d.Status, ExitCode: d.ExitCode, Gas: d.Gas, Stdout: d.Stdout, Stderr: d.Stderr, Out: d.Out, Reason: d.Reason, Warm: d.Warm,
		}
		size := uint64(len(d.Stdout)) + uint64(len(d.Stderr))
		seen := names{}
		for _, o := range d.Out {
			if err := seen.add(o.Path, o.Dir); err != nil {
				return nil, err
			}
			if o.Dir && len(o.Data) > 0 {
				return nil, fmt.Errorf("folder %q with content", o.Path)
			}
			size += uint64(len(o.Data))
		}
		switch {
		case d.Index != items[i].Index:
			return nil, fmt.Errorf("result of item %d, want %d", d.Index, items[i].Index)
		case d.Gas > limits.Gas:
			return nil, fmt.Errorf("item %d: %d gas of %d", d.Index, d.Gas, limits.Gas)
		case size > limits.Output:
			return nil, fmt.Errorf("item %d: %d bytes of output, at most %d", d.Index, size, limits.Output)
		case len(d.Out) > maxNodes:
			return nil, fmt.Errorf("item %d: more than %d files", d.Index, maxNodes)
		case d.Fault != 0:
			if i != len(c.List)-1 {
				return nil, fmt.Errorf("item %d: results behind a fault", d.Index)
			}
			r = executor.ItemResult{Index: d.Index, Fault: &executor.Fault{Kind: d.Fault, Err: errors.New(d.Reason)}}
		}
		list = append(list, r)
	}
	return list, nil
}

// drop ends a worker that failed.
func (l *lane) drop() {
	l.cpu.Add(int64(l.p.cpu() - l.spent))
	l.p.end()
	l.p = nil
}

// leave keeps the worker for later runs of the program.
func (l *lane) leave() {
	if l.p != nil {
		l.cpu.Add(int64(l.p.cpu() - l.spent))
		if l.p.sendFrame(frame{}) == nil {
			l.e.give(l.p)
		} else {
			l.p.end()
		}
	}
	if l.inputs != nil {
		l.inputs.close()
	}
}

func (p *process) sendFrame(f frame) error {
	return inParts(crowd.Encode(f), func(part part) error { return p.send(mItems, part) })
}
