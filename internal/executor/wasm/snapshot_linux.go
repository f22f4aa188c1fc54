package wasm

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/wasm/instrument"
)

// snapshot is a module before its item: a command before _start, a reactor between _initialize and crowd_item. What an
// item changes after it is memory and globals, since modules in which more could change have none; its files
// and descriptors have not been touched yet.
type snapshot struct {
	size    int // bytes of memory; they are in the image
	globals []uint64
	used    int64 // gas since the program began
	clock   uint64
	flags   []uint16 // of the descriptors, which are those that every run begins with
	args    []string // that it has seen
	anyArgs bool     // it has seen none
}

// warm runs the items of a batch. Each begins from the snapshot that the first made, where one could be made and
// this item would have made the same; else from nothing.
type warm struct {
	// set once
	program program
	memory  uint64
	image   file // empty, to hold a snapshot

	tried    bool
	snap     *snapshot // nil: none
	restored bool      // the last item began from it
	used     running   // its memory is laid over the image, and it is fit for one more item; nil: none
	lost     int       // items in a row after which it was not
	origin   []byte    // the image, to be read; nil: none yet
	hot      []span    // of memory, which items write: to copy them back is cheaper than to fault them in again
}

// span is bytes [from, to), whole pages of the machine.
type span struct{ from, to int }

const (
	maxImage = 128 << 20 // bytes of a memory of which a snapshot is made: all of it is looked at, once
	maxLost  = 8         // items of a command; it begins from nothing then, which is cheaper than to restore into a new instance
	maxHot   = 2 << 20   // bytes to copy back
	maxGap   = 32 << 10  // bytes between two spans that are copied with them
)

func (w *warm) run(h *host, gas int64) (left int64, err error) {
	r, laid, err := w.start(h, gas)
	if r == nil {
		return gas, err
	}
	if err == nil {
		err = finish(r, h)
	}
	left = r.gas()
	h.refused(granted(r), w.memory)
	switch {
	case laid && (err == nil || h.end.status == crowd.Exited) && h.end.fault == nil && len(r.memory()) == w.snap.size:
		w.used, w.lost = r, 0
	default:
		if w.lost++; w.lost >= maxLost && r.has(startExport) {
			w.snap = nil
		}
		r.close()
	}
	return left, err
}

// start brings a module to where the item begins. laid: its memory is over the image.
func (w *warm) start(h *host, gas int64) (r running, laid bool, err error) {
	w.restored = w.snap != nil && (w.snap.anyArgs || slices.Equal(w.snap.args, h.args))
	if w.restored {
		r, err = w.restore(h, gas) // where it would have been used up before, the item begins with less than none, and ends at once
		return r, true, err
	}
	if r, err = w.program.open(w.memory); err != nil {
		return nil, false, err
	}
	r.setGas(gas)
	if err = begin(r, h); err != nil {
		return r, false, err
	}
	if !w.tried {
		w.tried = true
		laid, err = w.take(r, h, gas)
	}
	return r, laid, err
}

// take makes the snapshot, if what r is can be restored.
func (w *warm) take(r running, h *host, gas int64) (bool, error) {
	mem := r.memory()
	names := saved(r)
	early := r.has(startExport) && r.has(instrument.StartExport) // and nobody took note of it
	if h.touched || early || len(mem) == 0 || len(mem) > maxImage || len(names) == 0 {
		return false, nil
	}
	s := &snapshot{size: len(mem), used: gas - r.gas(), clock: h.clock, args: h.args, anyArgs: !h.sawArgs}
	for _, d := range h.fds {
		s.flags = append(s.flags, d.flags)
	}
	for _, n := range names {
		v, _ := r.global(n)
		s.globals = append(s.globals, v)
	}
	if err := w.image.Truncate(int64(len(mem))); err != nil {
		return false, err
	}
	zero := make([]byte, pageSize())
	for at := 0; at < len(mem); at += len(zero) {
		if b := mem[at : at+len(zero)]; !bytes.Equal(b, zero) {
			if _, err := w.image.WriteAt(b, int64(at)); err != nil {
				return false, err
			}
		}
	}
	w.snap = s
	return true, w.lay(mem)
}

func pageSize() int { return max(os.Getpagesize(), 4<<10) }

func saved(r running) (names []string) {
	for i := 0; ; i++ {
		name := instrument.SavedPrefix + strconv.Itoa(i)
		if _, is := r.global(name); !is {
			return names
		}
		names = append(names, name)
	}
}

// lay puts a private copy of the image in place of mem, page by page as they are touched.
func (w *warm) lay(mem []byte) error {
	_, err := unix.MmapPtr(int(w.image), 0, unsafe.Pointer(&mem[0]), uintptr(len(mem)), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	if err != nil {
		return executor.Faultf(executor.NoSpace, "map snapshot: %w", err)
	}
	return nil
}

// restore makes a module what the one was that the snapshot was taken of.
func (w *warm) restore(h *host, gas int64) (running, error) {
	r := w.used
	w.used = nil
	if r != nil {
		if err := w.undo(r.memory()); err != nil {
			r.close()
			return nil, fmt.Errorf("%w: undo the last item: %w", errEngine, err)
		}
	} else {
		var err error
		if r, err = w.program.open(w.memory); err != nil {
			return nil, err
		}
		if more := w.snap.size - len(r.memory()); more > 0 {
			err = r.grow(uint64(more) >> 16)
		}
		if err == nil {
			err = w.lay(r.memory())
		}
		if err != nil {
			r.close()
			return nil, err
		}
	}
	for i, v := range w.snap.globals {
		r.setGlobal(instrument.SavedPrefix+strconv.Itoa(i), v)
	}
	r.setGas(gas - w.snap.used)
	h.clock = w.snap.clock
	for i, flags := range w.snap.flags {
		h.fds[i].flags = flags
	}
	return r, nil
}

// undo makes mem, which lies over the image, like the image again: what is hot is copied, the rest let go of.
func (w *warm) undo(mem []byte) error {
	if w.origin == nil {
		b, _, err := mapped(w.image)
		if err != nil {
			return err
		}
		w.origin = b
		w.learn(mem)
	}
	at := 0
	for _, s := range append(w.hot, span{len(mem), len(mem)}) {
		if at < s.from {
			if err := unix.Madvise(mem[at:s.from], unix.MADV_DONTNEED); err != nil {
				return err
			}
		}
		copy(mem[s.from:s.to], w.origin[s.from:s.to])
		at = s.to
	}
	return nil
}

// learn finds what the first item has written, which later ones will write too.
func (w *warm) learn(mem []byte) {
	page, total := pageSize(), 0
	for at := 0; at < len(mem); at += page {
		if bytes.Equal(mem[at:at+page], w.origin[at:at+page]) {
			continue
		}
		if n := len(w.hot); n > 0 && at-w.hot[n-1].to <= maxGap {
			total += at + page - w.hot[n-1].to
			w.hot[n-1].to = at + page
		} else {
			total += page
			w.hot = append(w.hot, span{at, at + page})
		}
		if total > maxHot {
			w.hot = nil
			return
		}
	}
	w.hot = slices.Clip(w.hot)
}

// close lets go of everything.
func (w *warm) close() {
	if w.origin != nil {
		unix.Munmap(w.origin)
	}
	if w.used != nil {
		w.used.close()
		w.used = nil
	}
	w.image.Close()
}
