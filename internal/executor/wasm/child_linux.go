package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/wasm/instrument"
)

// Bounds on a worker process, beside its rlimits and cgroup.
const (
	maxThreads = 512
	workerFDs  = maxNodes + 2*maxFDs + 64
	// workerStack is the native stack of a thread. What a program may use of it is
	// instrument.StackBytes, more than the depth limit of instrumented code needs.
	workerStack = 8 << 20
	// overhead is what a worker needs beside a program's memory and /tmp.
	overhead  = 2 << 30 // address space that is writable: Go's arenas, thread stacks, code
	liveEvery = 50 * time.Millisecond
	linkFD    = 3 // where a worker finds the socket to its parent
)

// worker is the other end: the process in which programs run.
type worker struct {
	engine engine
	loaded program
	buf    []byte
	batch  *batch // nil: none
	frame  []byte // of items, as far as it has come
}

// Worker is what Config.Command must run: it serves its parent on descriptor 3
// until the parent closes it, and returns nil then. It locks the process in
// before it looks at the first program.
func Worker(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { os.Exit(1) })
	defer stop()
	w := &worker{buf: make([]byte, maxMessage+1)}
	k, body, _, err := w.recv()
	if err != nil {
		return fmt.Errorf("wasm worker: %w", err)
	}
	var h hello
	if k != mHello {
		return fmt.Errorf("wasm worker: message %d for a greeting", k)
	}
	if err := crowd.Decode(body, &h); err != nil {
		return fmt.Errorf("wasm worker: %w", err)
	}
	if w.engine, err = newEngine(h.Engine); err != nil {
		return fmt.Errorf("wasm worker: %w", err)
	}
	if err := lockIn(); err != nil {
		return fmt.Errorf("wasm worker: lock in: %w", err)
	}
	if err := w.send(mReady, struct{}{}); err != nil {
		return fmt.Errorf("wasm worker: %w", err)
	}
	for {
		k, body, files, err := w.recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			switch k {
			case mCompile:
				err = w.compile(body, files)
			case mRun:
				err = w.run(body, files)
			case mBatch:
				err = w.begin(body, files)
			case mItems:
				err = w.items(body)
			default:
				err = fmt.Errorf("message %d out of turn", k)
			}
		}
		for _, f := range files {
			f.Close()
		}
		if err != nil {
			return fmt.Errorf("wasm worker: %w", err)
		}
	}
}

// file is an open file of the machine, by descriptor.
type file int

func (f file) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pread(int(f), p[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, fmt.Errorf("read: %w", err)
		case m == 0:
			return n, nil
		}
		n += max(m, 0)
	}
	return n, nil
}

func (f file) WriteAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pwrite(int(f), p[n:], off+int64(n))
		if err != nil && err != unix.EINTR {
			return n, diskFault("write", err)
		}
		n += max(m, 0)
	}
	return n, nil
}

func (f file) Truncate(size int64) error {
	if err := unix.Ftruncate(int(f), size); err != nil {
		return diskFault("set size", err)
	}
	return nil
}

func (f file) Close() error { return unix.Close(int(f)) }

func (f file) size() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f), &st); err != nil {
		return 0, fmt.Errorf("size of file: %w", err)
	}
	return uint64(st.Size), nil
}

// diskFault says whether an error of the machine's disk means that it is full.
func diskFault(doing string, err error) *executor.Fault {
	for _, full := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EFBIG} {
		if errors.Is(err, full) {
			return executor.Faultf(executor.NoSpace, "%s: %w", doing, err)
		}
	}
	return executor.Faultf(executor.Crashed, "%s: %w", doing, err)
}

func (w *worker) send(k kind, body any) error {
	if err := unix.Sendmsg(linkFD, pack(k, body), nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("send to parent: %w", err)
	}
	return nil
}

func (w *worker) recv() (kind, []byte, []file, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	for {
		n, on, _, _, err := unix.Recvmsg(linkFD, w.buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, nil, nil, fmt.Errorf("receive from parent: %w", err)
		}
		if n == 0 {
			return 0, nil, nil, io.EOF
		}
		files, err := descriptors(oob[:on])
		if err != nil {
			return 0, nil, nil, err
		}
		k, body, err := unpack(w.buf[:n])
		return k, body, files, err
	}
}

func descriptors(oob []byte) (files []file, err error) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive files: %w", err)
	}
	for i := range list {
		fds, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			return nil, fmt.Errorf("receive files: %w", err)
		}
		for _, fd := range fds {
			files = append(files, file(fd))
		}
	}
	return files, nil
}

// mapped is f's content, from the page cache.
func mapped(f file) (b []byte, release func(), err error) {
	n, err := f.size()
	if err != nil || n == 0 {
		return nil, func() {}, err
	}
	b, err = unix.Mmap(int(f), 0, int(n), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("map file: %w", err)
	}
	return b, func() { unix.Munmap(b) }, nil
}

// compile reads [program] and writes [code].
func (w *worker) compile(body []byte, files []file) error {
	var o order
	if err := crowd.Decode(body, &o); err != nil {
		return err
	}
	if len(files) != 2 {
		return fmt.Errorf("compile: %d files", len(files))
	}
	source, release, err := mapped(files[0])
	if err != nil {
		return err
	}
	defer release()
	return w.send(mCompiled, compileTo(files[1], w.engine, source, o.Code))
}

// compileTo writes code, unless only the price is wanted, and says what came of it. Only what every machine finds is invalid.
func compileTo(out file, e engine, source []byte, wanted bool) compiled {
	module, price, err := prepare(source)
	var code []byte
	if err == nil && wanted {
		code, err = e.compile(module)
	}
	if err == nil {
		_, err = out.WriteAt(code, 0)
	}
	var invalid *instrument.InvalidError
	var fault *executor.Fault
	switch {
	case err == nil:
		return compiled{Size: uint64(len(code)), Price: price}
	case errors.As(err, &invalid) || errors.Is(err, errModule):
		return compiled{Invalid: clip(err.Error())}
	case !errors.As(err, &fault):
		fault = executor.Faultf(executor.Crashed, "compile: %w", err)
	}
	return compiled{Fault: fault.Kind, Reason: clip(fault.Error())}
}

func clip(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return string(bytes.ToValidUTF8([]byte(s), nil))
}

// load makes compiled code the program that this worker runs.
func (w *worker) load(code file) error {
	b, release, err := mapped(code)
	if err != nil {
		return err
	}
	defer release()
	w.loaded, err = w.engine.load(b)
	return err
}

// run is one run: files are [stdout, stderr, stdin?, code?].
func (w *worker) run(body []byte, files []file) error {
	var o runOrder
	if err := crowd.Decode(body, &o); err != nil {
		return err
	}
	want := 2
	for _, there := range []bool{o.Stdin, o.Code} {
		if there {
			want++
		}
	}
	if len(files) != want {
		return fmt.Errorf("run: %d files, want %d", len(files), want)
	}
	if o.Code {
		if err := w.load(files[len(files)-1]); err != nil {
			return w.send(mDone, done{Unloaded: true, Reason: clip(err.Error())})
		}
	}
	if w.loaded == nil {
		return errors.New("run: no program")
	}
	world := &parentWorld{w: w}
	var stdin *node
	if o.Stdin {
		n, err := files[2].size()
		if err != nil {
			return err
		}
		stdin = &node{kind: regularType, at: atStream, data: files[2], size: n}
	}
	t := newTree(world, o.Inputs)
	h := newHost(o.Args, o.Env, o.Seed, o.Limits.Output, t, stdin, files[0], files[1])
	defer world.close(h)
	if o.Live {
		last := time.Now()
		h.progress = func(left int64) {
			if now := time.Now(); now.Sub(last) >= liveEvery {
				last = now
				if used := int64(min(uint64(o.Limits.Gas), maxGas)) - left; used >= 0 {
					w.send(mProgress, progress{Gas: crowd.Gas(used)}) // a lost one does no harm: the parent is gone
				}
			}
		}
	}
	end, used := call(h, o.Limits, o.Memory, o.Start, func(h *host, gas int64) (int64, error) {
		return run(w.loaded, h, gas, memoryOf(o.Limits))
	})
	if end.fault != nil {
		return w.send(mDone, done{Fault: end.fault.Kind, Reason: clip(end.fault.Error())})
	}
	if err := w.sendResult(t.result()); err != nil {
		return err
	}
	return w.send(mDone, done{Status: end.status, ExitCode: end.exit, Gas: used, Reason: clip(end.reason)})
}

func memoryOf(l crowd.Limits) uint64 { return min(l.Memory, maxLinear) }

// call has run bring a program, which begins with so much memory and that gas used, to its end.
func call(h *host, l crowd.Limits, begins uint64, start crowd.Gas, run func(h *host, gas int64) (int64, error)) (ending, crowd.Gas) {
	gas := crowd.Gas(min(uint64(l.Gas), maxGas))
	if start > gas {
		return outOfGas(l), l.Gas
	}
	if limit := memoryOf(l); begins > limit {
		return ending{status: crowd.Trapped, reason: tooLittle(begins, limit)}, start
	}
	left, err := run(h, int64(gas-start))
	return verdict(h, l, left, err)
}

func (w *worker) sendResult(list []leaf) error {
	for len(list) > 0 {
		n, size := 0, 0
		for n < len(list) && size < listBytes {
			size += len(list[n].Path) + 32
			n++
		}
		if err := w.send(mLeaves, leaves{List: list[:n]}); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// parentWorld asks the parent for what lies outside.
type parentWorld struct {
	w   *worker
	out []file // of /out, open until the run ends
}

func (p *parentWorld) ask(k kind, r request) (reply, []file, error) {
	var a reply
	if err := p.w.send(k, r); err != nil {
		return a, nil, err
	}
	got, body, files, err := p.w.recv()
	if err == nil && got != mReply {
		err = fmt.Errorf("message %d for an answer", got)
	}
	if err == nil {
		err = crowd.Decode(body, &a)
	}
	return a, files, err
}

func (p *parentWorld) list(dir string) ([]entry, error) {
	var all []entry
	r := request{Path: []byte(dir)}
	for {
		a, _, err := p.ask(mList, r)
		if err != nil {
			return nil, err
		}
		all = append(all, a.Entries...)
		if !a.More || len(a.Entries) == 0 {
			return all, nil
		}
		r.After = a.Entries[len(a.Entries)-1].Name
	}
}

func (p *parentWorld) open(name string) (blob, error) {
	_, files, err := p.ask(mOpen, request{Path: []byte(name)})
	if err != nil {
		return nil, err
	}
	if len(files) != 1 {
		return nil, fmt.Errorf("open %q: %d files", name, len(files))
	}
	return files[0], nil
}

func (p *parentWorld) create() (uint32, blob, error) {
	a, files, err := p.ask(mCreate, request{})
	if err != nil {
		return 0, nil, err
	}
	if len(files) != 1 {
		return 0, nil, fmt.Errorf("create: %d files", len(files))
	}
	p.out = append(p.out, files[0])
	return a.Slot, files[0], nil
}

// closeInputs closes what a run has left open of /in.
func (h *host) closeInputs() {
	for _, d := range h.fds {
		if d != nil && d.n.at == atIn {
			h.files.close(d.n)
		}
	}
}

// close lets go of what the run still has open; its streams belong to the caller.
func (p *parentWorld) close(h *host) {
	h.closeInputs()
	for _, f := range p.out {
		f.Close()
	}
}
