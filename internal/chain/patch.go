package chain

import (
	"errors"
	"slices"

	"github.com/crowdcompute/crowd"
)

// A job's record grows by a little at each change and is told to the same nodes again and again. So a push may carry a
// patch on the value of that key that was pushed last: what it makes is proven as any value is.

// hunk is one piece of a patch: bytes of its own, then bytes of the old value.
type hunk struct {
	_    struct{} `cbor:",toarray"`
	Data []byte
	From uint32
	Len  uint32
}

// grain is the length of the pieces of the old value that are looked for in the new one, in bytes.
const grain = 16

// diff makes the patch that turns old into val. It takes time in proportion to both.
func diff(old, val []byte) []byte {
	at := make(map[[grain]byte]int, len(old)/grain)
	for i := 0; i+grain <= len(old); i += grain {
		if p := [grain]byte(old[i:]); at[p] == 0 { // the first place of each piece, but for the very first, suffices
			at[p] = i
		}
	}
	var hunks []hunk
	done := 0
	for i := 0; i+grain <= len(val); {
		from, ok := at[[grain]byte(val[i:])]
		if !ok {
			i++
			continue
		}
		for from > 0 && i > done && old[from-1] == val[i-1] {
			from, i = from-1, i-1
		}
		n := 0
		for from+n < len(old) && i+n < len(val) && old[from+n] == val[i+n] {
			n++
		}
		hunks = append(hunks, hunk{Data: val[done:i], From: uint32(from), Len: uint32(n)})
		i += n
		done = i
	}
	return crowd.Encode(append(hunks, hunk{Data: val[done:]}))
}

// apply makes the new value of the old one and a patch from outside, at most limit bytes.
func apply(old, patch []byte, limit int) ([]byte, error) {
	var hunks []hunk
	if err := crowd.Decode(patch, &hunks); err != nil {
		return nil, err
	}
	size := 0
	for _, h := range hunks {
		if uint64(h.From)+uint64(h.Len) > uint64(len(old)) {
			return nil, errors.New("patch: beyond the end of the old value")
		}
		if size += len(h.Data) + int(h.Len); size > limit {
			return nil, errors.New("patch: too long a value")
		}
	}
	val := make([]byte, 0, size)
	for _, h := range hunks {
		val = append(append(val, h.Data...), old[h.From:h.From+h.Len]...)
	}
	return val, nil
}

// Bounds of bases.
const (
	maxBases     = 256
	maxBaseBytes = 1 << 20
	maxBase      = 256 << 10 // of one value: a longer one is pushed whole each time
)

// bases are the values on which patches may come. The full node has one for each stream, and the light node one: both
// see the same pushes in the same order, and so keep the same. When it is full the one that was put longest ago goes.
type bases struct {
	vals  map[string][]byte
	order []string // by age
	size  int
}

func (b *bases) put(key string, val []byte) {
	b.drop(key)
	if len(val) > maxBase {
		return
	}
	for len(b.order) >= maxBases || b.size+len(val) > maxBaseBytes {
		b.drop(b.order[0])
	}
	if b.vals == nil {
		b.vals = map[string][]byte{}
	}
	b.vals[key], b.order, b.size = val, append(b.order, key), b.size+len(val)
}

func (b *bases) drop(key string) {
	val, ok := b.vals[key]
	if !ok {
		return
	}
	delete(b.vals, key)
	b.size -= len(val)
	i := slices.Index(b.order, key)
	b.order = slices.Delete(b.order, i, i+1)
}

// pack chooses how val is pushed, and remembers it as the other side will; last: it will not be pushed again.
func (b *bases) pack(key string, val []byte, last bool, diff func(old, val []byte) []byte) (as form, body []byte) {
	old, ok := b.vals[key]
	as, body = whole, val
	if ok && val != nil {
		if p := diff(old, val); len(p) < len(val) {
			as, body = patched, p
		}
	}
	switch {
	case last || val == nil || len(val) > maxBase:
		b.drop(key)
		if as == patched {
			as = patchedLast
		}
	default:
		b.put(key, val)
		if as == whole {
			as = wholeKept
		}
	}
	return as, body
}

// unpack is the inverse of pack.
func (b *bases) unpack(key string, as form, body []byte) (val []byte, err error) {
	switch as {
	case whole:
		b.drop(key)
		return body, nil
	case wholeKept:
		val = body
	case patched, patchedLast:
		old, ok := b.vals[key]
		if !ok {
			return nil, errors.New("a patch on a value that was not pushed")
		}
		if val, err = apply(old, body, maxAnswer); err != nil {
			return nil, err
		}
	default:
		return nil, errors.New("a value in a form that is none")
	}
	if as == patchedLast {
		b.drop(key)
	} else {
		b.put(key, val)
	}
	return val, nil
}
