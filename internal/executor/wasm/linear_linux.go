package wasm

import "golang.org/x/sys/unix"

// linear is a linear memory outside Go's heap: reserved once, paged in as it is
// touched, so that growth neither copies nor wakes the garbage collector.
type linear struct {
	limit uint64 // most bytes that the program may have
	whole []byte
	b     []byte
}

// reserve takes address space. Where that fails, so does every Reallocate, and
// verdict sees an engine error and not a trap.
func (l *linear) reserve(most uint64) {
	most = min(most, l.limit)
	if most == 0 {
		return
	}
	b, err := unix.Mmap(-1, 0, int(most), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		panic("reserve linear memory: " + err.Error()) // ends the worker: a fault, never an outcome
	}
	l.whole = b
}

func (l *linear) Reallocate(size uint64) []byte {
	if size > uint64(len(l.whole)) {
		return nil
	}
	l.b = l.whole[:size]
	return l.b
}

func (l *linear) Free() {
	if l.whole != nil {
		unix.Munmap(l.whole)
		l.whole, l.b = nil, nil
	}
}
