package wasm

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// What the program sees of time: a clock that starts here, moves on by tick at
// every look at it, and jumps over every sleep.
const (
	epoch = 1_767_225_600_000_000_000 // 2026-01-01T00:00:00Z in nanoseconds
	tick  = 1_000                     // ns
)

// maxGas is the most gas that is counted; no machine gets there (centuries).
const maxGas = 1 << 62

// instance is what a host function needs of a running module, whatever the engine.
type instance interface {
	memory() []byte // all of it, valid until the program runs on; nil if it exports none
	gas() int64     // left; negative: out of gas
	setGas(int64)
}

// ending is why a run stopped before its start function returned.
type ending struct {
	status crowd.Status // 0: it did not
	exit   uint32
	reason string
	fault  *executor.Fault // this machine failed: there is no status
}

// host is one run as its program sees it. A run is one goroutine.
type host struct {
	// set once
	args, env []string
	own       crowd.Hash // seed of the item
	limit     uint64     // output bytes
	progress  func(gasLeft int64)

	random  *chacha20.Cipher
	early   bool // the item has not begun: what is looked at now is noted
	sawArgs bool // early
	touched bool // early, and in a way that a snapshot does not hold, or that depends on the item
	files   *tree
	fds     []*descriptor // nil: free
	clock   uint64        // ns since 1970
	written uint64        // output bytes
	end     ending

	// during one call
	mem  []byte
	left int64 // gas
}

// newHost prepares a run. stdin may be nil for empty.
func newHost(args, env []string, seed crowd.Hash, output uint64, t *tree, stdin *node, stdout, stderr blob) *host {
	h := &host{
		args: append([]string{"program"}, args...), env: env,
		own: seed, limit: output, files: t, clock: epoch,
	}
	h.seed(seed)
	if stdin == nil {
		stdin = &node{kind: regularType, at: atStream, data: &memory{}}
	}
	h.fds = []*descriptor{
		{n: stdin, rights: streamRights | rightFDRead | rightFDSeek | rightFDTell},
		{n: &node{kind: regularType, at: atStream, data: stdout}, rights: streamRights | rightFDWrite, flags: flagAppend},
		{n: &node{kind: regularType, at: atStream, data: stderr}, rights: streamRights | rightFDWrite, flags: flagAppend},
		{n: t.root, rights: dirRights, preopen: "/"},
	}
	for _, d := range h.fds {
		t.inos++
		d.n.opened++
		if d.n.at == atStream {
			d.n.ino = t.inos
		}
	}
	return h
}

// seed begins a stream of randomness.
func (h *host) seed(s crowd.Hash) {
	c, err := chacha20.NewUnauthenticatedCipher(s[:], make([]byte, chacha20.NonceSize))
	if err != nil {
		panic("bug: " + err.Error())
	}
	h.random = c
}

// call runs one host function and charges for it. It returns false where the run
// must stop: h.end, or the gas that is left, says why.
func (h *host) call(f *function, in instance, a []uint64) (errno, bool) {
	h.mem, h.left = in.memory(), in.gas()
	e := stopped
	if h.early {
		h.note(f.name)
	}
	if h.pay(f.gas) {
		e = f.do(h, a)
	}
	in.setGas(h.left)
	if h.progress != nil {
		h.progress(h.left)
	}
	h.mem = nil
	return e, e != stopped
}

// note holds what a reactor asks for before its item against what a snapshot restores: memory, globals, gas,
// the clock and the flags of descriptors. These calls change nothing else and tell nothing that another item would be told differently, but
// for the arguments; the rest makes the run one that has no snapshot. poll_oneoff looks after itself.
func (h *host) note(function string) {
	switch function {
	case "args_get", "args_sizes_get":
		h.sawArgs = true
	case "environ_get", "environ_sizes_get", "clock_res_get", "clock_time_get", "random_get", "sched_yield",
		"fd_fdstat_get", "fd_fdstat_set_flags", "fd_prestat_get", "fd_prestat_dir_name", "poll_oneoff":
	default:
		h.touched = true
	}
}

// pay takes gas; false means that there is none left and nothing may happen.
func (h *host) pay(gas uint64) bool {
	if gas > uint64(max(h.left, 0)) {
		h.left = -1
		return false
	}
	h.left -= int64(gas)
	return true
}

// stop ends the run with a status of the program's.
func (h *host) stop(s crowd.Status, reason string) errno {
	h.end = ending{status: s, reason: reason}
	return stopped
}

// fail ends the run with a fault of this machine, which the program never sees.
func (h *host) fail(err error) errno {
	f, is := err.(*executor.Fault)
	if !is {
		f = &executor.Fault{Kind: executor.Crashed, Err: err}
	}
	h.end = ending{fault: f}
	return stopped
}

// refused looks at the fewest pages that the engine did not grant (instrument.RefusedGlobal). Where the
// limit, in bytes, allows them, this machine had no memory: whatever the program made of that is no outcome.
func (h *host) refused(pages, limit uint64) {
	if pages <= limit>>16 && h.end.fault == nil {
		h.fail(executor.Faultf(executor.NoSpace, "memory of %d pages, which the limit allows, could not be had", pages))
	}
}

// settle turns an errno of the tree and its fault into what a host function returns.
func (h *host) settle(e errno, fault error) errno {
	if fault != nil {
		return h.fail(fault)
	}
	return e
}

// bytes is the program's memory at [ptr, ptr+n).
func (h *host) bytes(ptr, n uint64) ([]byte, bool) {
	if ptr+n > uint64(len(h.mem)) || ptr+n < ptr {
		return nil, false
	}
	return h.mem[ptr : ptr+n : ptr+n], true
}

func (h *host) put32(ptr uint64, v uint32) errno {
	b, in := h.bytes(ptr, 4)
	if !in {
		return eFault
	}
	binary.LittleEndian.PutUint32(b, v)
	return ok
}

func (h *host) put64(ptr uint64, v uint64) errno {
	b, in := h.bytes(ptr, 8)
	if !in {
		return eFault
	}
	binary.LittleEndian.PutUint64(b, v)
	return ok
}

// text is a path argument; a longer one than any path costs no copy.
func (h *host) text(ptr, n uint64) (string, errno) {
	if n > maxPath {
		return "", eNameTooLong
	}
	b, in := h.bytes(ptr, n)
	if !in {
		return "", eFault
	}
	return string(b), ok
}

// vectors reads an array of (pointer, length) pairs.
func (h *host) vectors(ptr, n uint64) (list [][]byte, total uint64, e errno) {
	if n > maxVectors {
		return nil, 0, eInval
	}
	if n > 2 && !h.pay((n-2)*gasVector) {
		return nil, 0, stopped
	}
	raw, in := h.bytes(ptr, n*8)
	if !in {
		return nil, 0, eFault
	}
	list = make([][]byte, 0, n)
	for ; len(raw) > 0; raw = raw[8:] {
		b, in := h.bytes(uint64(binary.LittleEndian.Uint32(raw)), uint64(binary.LittleEndian.Uint32(raw[4:])))
		if !in {
			return nil, 0, eFault
		}
		list, total = append(list, b), total+uint64(len(b))
	}
	return list, total, ok
}

// now looks at the clock.
func (h *host) now() uint64 {
	h.advance(tick)
	return h.clock
}

func (h *host) advance(ns uint64) {
	const end = 1<<63 - 1
	if ns > end-h.clock {
		h.clock = end
		return
	}
	h.clock += ns
}

// spend counts n bytes of output and returns how many of them still fit.
func (h *host) spend(n uint64) (fits uint64) {
	fits = min(n, h.limit-h.written)
	h.written += fits
	return fits
}

func (h *host) full() errno {
	return h.stop(crowd.OutputFull, fmt.Sprintf("more than %d bytes of output", h.limit))
}
