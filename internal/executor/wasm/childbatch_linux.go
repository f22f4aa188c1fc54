package wasm

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

const (
	partBytes  = maxMessage - 64      // of a frame or a chunk in one message
	flushBytes = 32 << 10             // of results, after which they go out
	flushEvery = 5 * time.Millisecond // so that the parent knows which item takes long
	maxKept    = 256                  // files of /in that a batch keeps open
)

// batch is what a worker keeps between the items of one batch: nothing that an item has
// touched, only the order, what /in looks like, and perhaps a snapshot from before the first item.
type batch struct {
	order batchOrder
	warm  *warm
	world *inputsWorld

	results []itemDone
	size    int // of them, in bytes
	flushed time.Time
}

// begin makes ready for the items of a batch: files are [image, code?].
func (w *worker) begin(body []byte, files []file) error {
	w.endBatch()
	var o batchOrder
	if err := crowd.Decode(body, &o); err != nil {
		return err
	}
	if (len(files) == 2) != o.Code || len(files) < 1 || len(files) > 2 {
		return fmt.Errorf("batch: %d files", len(files))
	}
	if o.Code {
		if err := w.load(files[1]); err != nil {
			return w.send(mBegun, begun{Unloaded: true, Reason: clip(err.Error())})
		}
	}
	if w.loaded == nil {
		return errors.New("batch: no program")
	}
	image, err := unix.FcntlInt(uintptr(files[0]), unix.F_DUPFD_CLOEXEC, 0) // what came with the message is closed behind it
	if err != nil {
		return fmt.Errorf("keep image: %w", err)
	}
	w.batch = &batch{
		order: o, warm: &warm{program: w.loaded, memory: memoryOf(o.Limits), image: file(image)},
		world: &inputsWorld{parent: &parentWorld{w: w}, lists: map[string][]entry{}, files: map[string]blob{}},
	}
	return w.send(mBegun, begun{})
}

func (w *worker) endBatch() {
	if w.batch != nil {
		for _, f := range w.batch.world.files {
			f.(kept).blob.Close()
		}
		w.batch.warm.close()
		w.batch = nil
	}
}

// items takes a part of a frame, and runs the frame when it is whole.
func (w *worker) items(body []byte) error {
	var p part
	if err := crowd.Decode(body, &p); err != nil {
		return err
	}
	if w.batch == nil {
		return errors.New("items without a batch")
	}
	w.frame = append(w.frame, p.Data...)
	if !p.Last {
		return nil
	}
	var f frame
	err := crowd.Decode(w.frame, &f)
	w.frame = w.frame[:0]
	if err != nil {
		return err
	}
	if len(f.List) == 0 {
		w.endBatch()
		return nil
	}
	b := w.batch
	b.flushed = time.Now()
	for i := range f.List {
		d := w.item(b, &f.List[i])
		b.results = append(b.results, d)
		b.size += 64 + len(d.Stdout) + len(d.Stderr) + len(d.Reason)
		for _, o := range d.Out {
			b.size += 16 + len(o.Path) + len(o.Data)
		}
		last := i == len(f.List)-1 || d.Fault != 0 // after a fault the parent takes another worker
		if now := time.Now(); last || b.size >= flushBytes || now.Sub(b.flushed) >= flushEvery {
			if err := w.flush(b); err != nil {
				return err
			}
			b.flushed = now
		}
		if last {
			break
		}
	}
	return nil
}

// flush sends the results so far.
func (w *worker) flush(b *batch) error {
	err := inParts(crowd.Encode(chunk{List: b.results}), func(p part) error { return w.send(mResults, p) })
	clear(b.results)
	b.results, b.size = b.results[:0], 0
	return err
}

// inParts cuts b into what fits into a message.
func inParts(b []byte, send func(part) error) error {
	for list := range slices.Chunk(b, partBytes) {
		b = b[len(list):]
		if err := send(part{Data: list, Last: len(b) == 0}); err != nil {
			return err
		}
	}
	return nil
}

// item runs one item in fresh memory and with a fresh tree of files.
func (w *worker) item(b *batch, i *itemOrder) itemDone {
	spec := executor.Spec{Args: b.order.Args, Seed: b.order.Seed}.Item(executor.Item{Index: i.Index, Args: i.Args})
	world := &itemWorld{inputsWorld: b.world}
	stdin := &node{kind: regularType, at: atStream, data: &memory{b: i.Stdin}, size: uint64(len(i.Stdin))}
	var stdout, stderr memory
	t := newTree(world, b.order.Inputs)
	h := newHost(spec.Args, b.order.Env, spec.Seed, b.order.Limits.Output, t, stdin, &stdout, &stderr)
	end, used := call(h, b.order.Limits, b.order.Memory, b.order.Start+i.Spent, b.warm.run)
	h.closeInputs()
	if end.fault != nil {
		return itemDone{Index: i.Index, Fault: end.fault.Kind, Reason: clip(end.fault.Error())}
	}
	d := itemDone{Index: i.Index, Status: end.status, ExitCode: end.exit, Gas: used, Stdout: stdout.b, Stderr: stderr.b, Reason: clip(end.reason), Warm: b.warm.restored}
	for _, l := range t.result() {
		f := executor.File{Path: l.Path, Dir: l.Dir}
		if !l.Dir {
			f.Data = world.made[l.Slot].b
		}
		d.Out = append(d.Out, f)
	}
	return d
}

// inputsWorld shows all items of a batch the same /in, and asks the parent for each thing once.
type inputsWorld struct {
	parent *parentWorld
	lists  map[string][]entry
	held   int // entries of lists
	files  map[string]blob
}

func (b *inputsWorld) list(dir string) ([]entry, error) {
	if l, is := b.lists[dir]; is {
		return l, nil
	}
	l, err := b.parent.list(dir)
	if err == nil && b.held+len(l) <= maxInputs {
		b.lists[dir] = l
		b.held += len(l)
	}
	return l, err
}

func (b *inputsWorld) open(name string) (blob, error) {
	name = path.Clean(name)
	if f, is := b.files[name]; is {
		return f, nil
	}
	f, err := b.parent.open(name)
	if err != nil || len(b.files) >= maxKept {
		return f, err
	}
	b.files[name] = kept{f}
	return kept{f}, nil
}

// kept is a file of /in that stays open when an item closes it.
type kept struct{ blob }

func (kept) Close() error { return nil }

// itemWorld is what one item sees: /in as all do, and an /out of its own in memory.
type itemWorld struct {
	*inputsWorld
	made []*memory
}

func (i *itemWorld) create() (uint32, blob, error) {
	m := &memory{}
	i.made = append(i.made, m)
	return uint32(len(i.made) - 1), m, nil
}
