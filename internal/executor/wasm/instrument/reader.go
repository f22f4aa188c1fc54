package instrument

import (
	"fmt"
	"unicode/utf8"
)

// InvalidError says why a module is refused: the fault of the program's author,
// never of the machine that was to run it.
type InvalidError struct {
	Offset int // in the module's bytes
	Reason string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("invalid wasm at byte %#x: %s", e.Offset, e.Reason)
}

// reader decodes b[p:]. Its first error sticks; from then on every method
// returns zero and reads nothing, so callers check err once per item.
type reader struct {
	b   []byte // the module, cut off at the end of the part being read
	p   int
	err *InvalidError
}

func (r *reader) fail(at int, format string, args ...any) {
	if r.err == nil {
		r.err = &InvalidError{Offset: at, Reason: fmt.Sprintf(format, args...)}
	}
	r.p = len(r.b)
}

func (r *reader) more() bool { return r.err == nil && r.p < len(r.b) }

func (r *reader) u8() byte {
	if r.p >= len(r.b) {
		r.fail(r.p, "unexpected end")
		return 0
	}
	c := r.b[r.p]
	r.p++
	return c
}

func (r *reader) skip(n int) {
	if n > len(r.b)-r.p {
		r.fail(r.p, "unexpected end")
		return
	}
	r.p += n
}

// u32 reads an unsigned LEB128 number of at most 5 bytes.
func (r *reader) u32() uint32 {
	if r.p < len(r.b) && r.b[r.p] < 0x80 {
		r.p++
		return uint32(r.b[r.p-1])
	}
	at := r.p
	var v uint32
	for shift := 0; ; shift += 7 {
		c := r.u8()
		if shift == 28 && c > 0x0f {
			r.fail(at, "number exceeds 32 bits")
			return 0
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

// sleb reads a signed LEB128 number of the given width: 32, 33 or 64 bits.
func (r *reader) sleb(bits int) int64 {
	at := r.p
	var v int64
	for shift := 0; ; shift += 7 {
		c := r.u8()
		v |= int64(c&0x7f) << shift
		if left := bits - shift; left <= 7 {
			// The last byte: what lies above the top bit must repeat it.
			if high := int8(c<<1) >> left; c >= 0x80 || (high != 0 && high != -1) {
				r.fail(at, "number exceeds %d bits", bits)
				return 0
			}
		}
		if c < 0x80 {
			if shift += 7; shift < 64 {
				v = v << (64 - shift) >> (64 - shift)
			}
			return v
		}
	}
}

// count reads the length of a vector: at most limit, and no more than could follow.
func (r *reader) count(limit int, what string) int {
	at := r.p
	n := r.u32()
	if r.err == nil && (int64(n) > int64(limit) || int64(n) > int64(len(r.b)-r.p)) {
		r.fail(at, "%d %s: too many", n, what)
		return 0
	}
	return int(n)
}

// index reads an index that must lie below n.
func (r *reader) index(n int, what string) uint32 {
	at := r.p
	i := r.u32()
	if r.err == nil && int64(i) >= int64(n) {
		r.fail(at, "no %s %d", what, i)
		return 0
	}
	return i
}

func (r *reader) name() string {
	at := r.p
	n := r.count(maxName, "bytes of name")
	b := r.b[r.p : r.p+n]
	r.p += n
	if !utf8.Valid(b) {
		r.fail(at, "name is not UTF-8")
	}
	return string(b)
}

// Value types.
const (
	i32       byte = 0x7f
	i64       byte = 0x7e
	f32       byte = 0x7d
	f64       byte = 0x7c
	v128      byte = 0x7b
	funcref   byte = 0x70
	externref byte = 0x6f
)

func isRef(t byte) bool   { return t == funcref || t == externref }
func isValue(t byte) bool { return t >= v128 && t <= i32 || isRef(t) }

func (r *reader) valueType() byte {
	t := r.u8()
	if r.err == nil && !isValue(t) {
		r.fail(r.p-1, "unknown value type %#x", t)
	}
	return t
}

func (r *reader) refType() byte {
	t := r.u8()
	if r.err == nil && !isRef(t) {
		r.fail(r.p-1, "unknown reference type %#x", t)
	}
	return t
}

func uleb(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func sleb(b []byte, v int64) []byte {
	for v < -0x40 || v >= 0x40 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}
