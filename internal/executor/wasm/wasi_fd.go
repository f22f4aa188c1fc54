package wasm

import (
	"encoding/binary"
	"math"

	"github.com/crowdcompute/crowd"
)

// descriptor is an open file, folder or stream.
type descriptor struct {
	n       *node
	rights  uint64
	flags   uint16
	offset  uint64
	preopen string
	listing []string // of a folder: its names when they were first read
}

func (h *host) fd(fd uint64) *descriptor {
	if fd < uint64(len(h.fds)) {
		return h.fds[fd]
	}
	return nil
}

// onFD hands f the descriptor in its first argument.
func onFD(f func(*host, *descriptor, []uint64) errno) func(*host, []uint64) errno {
	return func(h *host, a []uint64) errno {
		d := h.fd(a[0])
		if d == nil {
			return eBadF
		}
		return f(h, d, a)
	}
}

// onFile is onFD for what makes sense on files and streams only.
func onFile(f func(*host, *descriptor, []uint64) errno) func(*host, []uint64) errno {
	return onFD(func(h *host, d *descriptor, a []uint64) errno {
		if d.n.kind != regularType {
			return eIsDir
		}
		return f(h, d, a)
	})
}

// install gives d the lowest free number.
func (h *host) install(d *descriptor) (uint32, errno) {
	for i, have := range h.fds {
		if have == nil {
			h.fds[i] = d
			return uint32(i), ok
		}
	}
	if len(h.fds) >= maxFDs {
		return 0, eMFile
	}
	h.fds = append(h.fds, d)
	return uint32(len(h.fds) - 1), ok
}

func (h *host) strings(list []string, pointers, bytes uint64) errno {
	total := uint64(0)
	for _, s := range list {
		total += gasString + gasByte*uint64(len(s))
	}
	if !h.pay(total) {
		return stopped
	}
	for _, s := range list {
		b, in := h.bytes(bytes, uint64(len(s)+1))
		if !in || h.put32(pointers, uint32(bytes)) != ok {
			return eFault
		}
		copy(b, s)
		b[len(s)] = 0
		bytes, pointers = bytes+uint64(len(s)+1), pointers+4
	}
	return ok
}

func (h *host) stringSizes(list []string, count, bytes uint64) errno {
	if !h.pay(gasString * uint64(len(list))) {
		return stopped
	}
	total := 0
	for _, s := range list {
		total += len(s) + 1
	}
	if e := h.put32(count, uint32(len(list))); e != ok {
		return e
	}
	return h.put32(bytes, uint32(total))
}

// The four clocks are one; the CPU clocks start at zero.
func clockResGet(h *host, a []uint64) errno {
	if a[0] > 3 {
		return eInval
	}
	return h.put64(a[1], tick)
}

func clockTimeGet(h *host, a []uint64) errno {
	if a[0] > 3 {
		return eInval
	}
	t := h.now()
	if a[0] >= 2 {
		t -= epoch
	}
	return h.put64(a[2], t)
}

func randomGet(h *host, a []uint64) errno {
	b, in := h.bytes(a[0], a[1])
	if !in {
		return eFault
	}
	if !h.pay(3 * gasByte * a[1]) {
		return stopped
	}
	clear(b)
	h.random.XORKeyStream(b, b)
	return ok
}

func procExit(h *host, a []uint64) errno {
	h.end = ending{status: crowd.Exited, exit: uint32(a[0])}
	return stopped
}

func fdClose(h *host, a []uint64) errno {
	d := h.fd(a[0])
	if d == nil {
		return eBadF
	}
	h.fds[a[0]] = nil
	return h.settle(ok, h.files.close(d.n))
}

func fdRenumber(h *host, a []uint64) errno {
	from, to := h.fd(a[0]), h.fd(a[1])
	switch {
	case from == nil || to == nil:
		return eBadF
	case from.preopen != "" || to.preopen != "":
		return eNotSup
	case from == to:
		return ok
	}
	h.fds[a[1]], h.fds[a[0]] = from, nil
	return h.settle(ok, h.files.close(to.n))
}

func fdStatGet(h *host, d *descriptor, a []uint64) errno {
	b, in := h.bytes(a[1], 24)
	if !in {
		return eFault
	}
	clear(b)
	b[0] = byte(d.n.kind)
	binary.LittleEndian.PutUint16(b[2:], d.flags)
	binary.LittleEndian.PutUint64(b[8:], d.rights)
	if d.n.kind == dirType {
		binary.LittleEndian.PutUint64(b[16:], rightAll)
	}
	return ok
}

func fdStatSetFlags(_ *host, d *descriptor, a []uint64) errno {
	if a[1]&^0x1f != 0 {
		return eInval
	}
	d.flags = uint16(a[1])
	return ok
}

func fdStatSetRights(_ *host, d *descriptor, a []uint64) errno {
	if a[1]&^d.rights != 0 {
		return eNotCapable
	}
	d.rights = a[1]
	return ok
}

// filestat writes what is known of n. Every file is as old as the clock.
func (h *host) filestat(ptr uint64, n *node) errno {
	b, in := h.bytes(ptr, 64)
	if !in {
		return eFault
	}
	clear(b)
	binary.LittleEndian.PutUint64(b[0:], uint64(n.at))
	binary.LittleEndian.PutUint64(b[8:], n.ino)
	b[16] = byte(n.kind)
	binary.LittleEndian.PutUint64(b[24:], 1)
	binary.LittleEndian.PutUint64(b[32:], n.size)
	for _, at := range []int{40, 48, 56} {
		binary.LittleEndian.PutUint64(b[at:], epoch)
	}
	return ok
}

func fdFilestatGet(h *host, d *descriptor, a []uint64) errno { return h.filestat(a[1], d.n) }

// fdFilestatSetTimes does nothing: no file has a time of its own.
func fdFilestatSetTimes(_ *host, d *descriptor, _ []uint64) errno {
	if d.n.at == atIn || d.n.at == atRoot {
		return eROFS
	}
	return ok
}

func fdPrestatGet(h *host, d *descriptor, a []uint64) errno {
	if d.preopen == "" {
		return eBadF
	}
	b, in := h.bytes(a[1], 8)
	if !in {
		return eFault
	}
	clear(b)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(d.preopen)))
	return ok
}

func fdPrestatDirName(h *host, d *descriptor, a []uint64) errno {
	if d.preopen == "" {
		return eBadF
	}
	if a[2] < uint64(len(d.preopen)) {
		return eNameTooLong
	}
	b, in := h.bytes(a[1], uint64(len(d.preopen)))
	if !in {
		return eFault
	}
	copy(b, d.preopen)
	return ok
}

// read fills the vectors from offset and says how many bytes it moved.
func (h *host) read(d *descriptor, ptr, count, offset uint64) (n uint64, e errno) {
	if d.rights&rightFDRead == 0 {
		return 0, eBadF
	}
	list, total, e := h.vectors(ptr, count)
	if e != ok {
		return 0, e
	}
	total = min(total, d.n.size-min(offset, d.n.size))
	if !h.pay(total * gasByte) {
		return 0, stopped
	}
	for _, b := range list {
		b = b[:min(uint64(len(b)), total-n)]
		if len(b) == 0 {
			continue
		}
		m, err := d.n.data.ReadAt(b, int64(offset+n))
		if err != nil {
			return 0, h.fail(err)
		}
		n += uint64(m)
		if m < len(b) {
			break
		}
	}
	return n, ok
}

func fdRead(h *host, d *descriptor, a []uint64) errno {
	n, e := h.read(d, a[1], a[2], d.offset)
	if e != ok {
		return e
	}
	d.offset += n
	return h.put32(a[3], uint32(n))
}

func fdPread(h *host, d *descriptor, a []uint64) errno {
	if d.n.at == atStream && d.rights&rightFDSeek == 0 {
		return eSPipe
	}
	n, e := h.read(d, a[1], a[2], a[3])
	if e != ok {
		return e
	}
	return h.put32(a[4], uint32(n))
}

// extend counts the growth of d's file from its size to end, of which the last
// n bytes will be written. What is written counts every time, and so does each
// byte by which a file grows unwritten. It returns how much of n may be written.
func (h *host) extend(d *descriptor, end, n uint64) (fits uint64, e errno) {
	if end > math.MaxInt64 {
		return 0, eFBig
	}
	hole := uint64(0)
	if start := end - n; start > d.n.size {
		hole = start - d.n.size
	}
	if d.n.at == atTmp {
		grow := end - min(end, d.n.size)
		if h.files.tmpUsed+grow > maxTmp {
			return 0, eNoSpc
		}
		h.files.tmpUsed += grow
		if !h.pay(hole * gasWrite) {
			return 0, stopped
		}
		return n, ok
	}
	if h.spend(hole) < hole {
		return 0, h.full()
	}
	if !h.pay(hole * gasWrite) { // it is hashed and handed out like what is written
		return 0, stopped
	}
	return h.spend(n), ok
}

// write empties the vectors to offset. A write that goes over the output limit
// writes what fits, and then the run ends.
func (h *host) write(d *descriptor, ptr, count, offset uint64) (n uint64, e errno) {
	if d.rights&rightFDWrite == 0 {
		return 0, eBadF
	}
	list, total, e := h.vectors(ptr, count)
	if e != ok {
		return 0, e
	}
	if !h.pay(total * gasWrite) {
		return 0, stopped
	}
	if total == 0 {
		return 0, ok
	}
	if offset > math.MaxInt64 {
		return 0, eFBig
	}
	fits, e := h.extend(d, offset+total, total)
	if e != ok {
		return 0, e
	}
	for _, b := range list {
		b = b[:min(uint64(len(b)), fits-n)]
		if len(b) == 0 {
			continue
		}
		if _, err := d.n.data.WriteAt(b, int64(offset+n)); err != nil {
			return 0, h.fail(err)
		}
		n += uint64(len(b))
	}
	if n > 0 {
		d.n.size = max(d.n.size, offset+n)
	}
	if fits < total {
		return 0, h.full()
	}
	return n, ok
}

func fdWrite(h *host, d *descriptor, a []uint64) errno {
	at := d.offset
	if d.n.at == atStream || d.flags&flagAppend != 0 {
		at = d.n.size
	}
	n, e := h.write(d, a[1], a[2], at)
	if e != ok {
		return e
	}
	d.offset = at + n
	return h.put32(a[3], uint32(n))
}

func fdPwrite(h *host, d *descriptor, a []uint64) errno {
	if d.n.at == atStream {
		return eSPipe
	}
	n, e := h.write(d, a[1], a[2], a[3])
	if e != ok {
		return e
	}
	return h.put32(a[4], uint32(n))
}

func (h *host) resize(d *descriptor, size uint64) errno {
	switch {
	case d.rights&rightFDWrite == 0:
		return eBadF
	case d.n.at == atStream:
		return eInval
	case size > math.MaxInt64:
		return eFBig
	}
	if size > d.n.size {
		if _, e := h.extend(d, size, 0); e != ok {
			return e
		}
	} else if d.n.at == atTmp {
		h.files.tmpUsed -= d.n.size - size
	}
	if err := d.n.data.Truncate(int64(size)); err != nil {
		return h.fail(err)
	}
	d.n.size = size
	return ok
}

func fdFilestatSetSize(h *host, d *descriptor, a []uint64) errno { return h.resize(d, a[1]) }

func fdAllocate(h *host, d *descriptor, a []uint64) errno {
	if a[2] == 0 || a[1] > math.MaxInt64 || a[2] > math.MaxInt64 {
		return eInval
	}
	return h.resize(d, max(d.n.size, a[1]+a[2]))
}

func fdSeek(h *host, d *descriptor, a []uint64) errno {
	if d.n.at == atStream && d.rights&rightFDSeek == 0 {
		return eSPipe
	}
	var base uint64
	switch a[2] {
	case 0:
	case 1:
		base = d.offset
	case 2:
		base = d.n.size
	default:
		return eInval
	}
	to := int64(base) + int64(a[1])
	if to < 0 {
		return eInval
	}
	d.offset = uint64(to)
	return h.put64(a[3], d.offset)
}

func fdTell(h *host, d *descriptor, a []uint64) errno {
	if d.n.at == atStream && d.rights&rightFDSeek == 0 {
		return eSPipe
	}
	return h.put64(a[1], d.offset)
}

// fdReaddir writes as much of the listing as fits. A cookie is an index into the
// names as they were when the listing was begun, so that removing while reading works.
func fdReaddir(h *host, d *descriptor, a []uint64) errno {
	if d.n.kind != dirType {
		return eNotDir
	}
	buf, in := h.bytes(a[1], a[2])
	if !in {
		return eFault
	}
	cookie := a[3]
	if cookie == 0 || d.listing == nil {
		if e, fault := h.files.load(d.n); e != ok || fault != nil {
			return h.settle(e, fault)
		}
		if !h.pay(gasEntry * uint64(len(d.n.kids))) {
			return stopped
		}
		d.listing = d.n.names()
	}
	used := 0
	for ; cookie < uint64(len(d.listing)) && used < len(buf); cookie++ {
		name := d.listing[cookie]
		k := d.n.kids[name]
		if k == nil {
			continue // removed since
		}
		var e [24]byte
		binary.LittleEndian.PutUint64(e[0:], cookie+1)
		binary.LittleEndian.PutUint64(e[8:], k.ino)
		binary.LittleEndian.PutUint32(e[16:], uint32(len(name)))
		e[20] = byte(k.kind)
		used += copy(buf[used:], e[:])
		used += copy(buf[used:], name)
		if !h.pay(gasEntry) {
			return stopped
		}
	}
	return h.put32(a[4], uint32(used))
}

// pollOneoff never waits: files are always ready, and where none is asked for the
// clock jumps to the first time out.
func pollOneoff(h *host, a []uint64) errno {
	n := a[2]
	if n == 0 || n > maxSubscription {
		return eInval
	}
	in, in1 := h.bytes(a[0], n*48)
	out, in2 := h.bytes(a[1], n*32)
	if !in1 || !in2 {
		return eFault
	}
	if !h.pay(gasEntry * n) {
		return stopped
	}
	now := h.now()
	subs := append([]byte(nil), in...) // out may overlap in
	ready, first := false, uint64(math.MaxUint64)
	due := func(s []byte) uint64 {
		t := binary.LittleEndian.Uint64(s[24:])
		if binary.LittleEndian.Uint16(s[40:])&1 != 0 { // absolute
			if binary.LittleEndian.Uint32(s[16:]) >= 2 {
				t = min(t, math.MaxUint64-epoch) + epoch
			}
			return t
		}
		return now + min(t, math.MaxUint64-now)
	}
	for s := subs; len(s) > 0; s = s[48:] {
		switch {
		case s[8] > 2 || s[8] == 0 && binary.LittleEndian.Uint32(s[16:]) > 3:
			return eInval
		case s[8] == 0:
			first = min(first, due(s))
		default:
			ready = true
			h.touched = h.touched || h.early // it will see how long stdin is
		}
	}
	if !ready && first > now {
		h.advance(first - now)
	}
	events := uint32(0)
	for s := subs; len(s) > 0; s = s[48:] {
		var ev [32]byte
		copy(ev[0:8], s[0:8])
		ev[10] = s[8]
		if s[8] == 0 {
			if due(s) > h.clock && (ready || due(s) != first) {
				continue
			}
		} else if d := h.fd(uint64(binary.LittleEndian.Uint32(s[16:]))); d == nil {
			binary.LittleEndian.PutUint16(ev[8:], uint16(eBadF))
		} else if s[8] == 1 && d.n.kind == regularType {
			binary.LittleEndian.PutUint64(ev[16:], d.n.size-min(d.offset, d.n.size))
		} else {
			binary.LittleEndian.PutUint64(ev[16:], 1)
		}
		out = out[copy(out, ev[:]):]
		events++
	}
	return h.put32(a[3], events)
}
