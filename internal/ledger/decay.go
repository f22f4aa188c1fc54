package ledger

import (
	"math/bits"

	"github.com/crowdcompute/crowd"
)

// A fading sum is Σ x·2^(-age/half) over what was added to it, kept without ever
// being multiplied down. Time is cut into epochs of one half-life. What is added
// at time t is stored as x·2^φ, φ = t mod half over half, and read back as
// sum·2^-φ; from epoch to epoch the sum is halved. Halving twice and shifting by
// two are one and the same, so a sum that is brought forward in many steps is,
// bit for bit, the one brought forward at once, and what is added within an
// epoch may come in any order. A half of 0 forgets nothing, and is exact.

// maxFading is where a fading sum stops to grow.
const maxFading = uint64(1) << 62

// phaseBits is how finely φ is read: 180 d in steps of 0.9 s.
const phaseBits = 24

// halvings holds floor(2^64 · 2^(-2^-i)) for i = 1 to phaseBits.
var halvings = [phaseBits]uint64{
	0xb504f333f9de6484, 0xd744fccad69d6af4, 0xeac0c6e7dd24392e, 0xf5257d152486cc2c, 0xfa83b2db722a033a, 0xfd3e0c0cf486c174,
	0xfe9e115c7b8f884b, 0xff4ecb59511ec8a5, 0xffa756521c8daed1, 0xffd3a751c0f7e10b, 0xffe9d2b2f7db2755, 0xfff4e91bff1b8c3d,
	0xfffa747ea0040664, 0xfffd3a3b7814eb53, 0xfffe9d1cc60ddab1, 0xffff4e8e25879bfa, 0xffffa7470363f451, 0xffffd3a37dda0313,
	0xffffe9d1bdf703ae, 0xfffff4e8debe025e, 0xfffffa746f4fa150, 0xfffffd3a37a3f8b0, 0xfffffe9d1bd1065a, 0xffffff4e8de845ad,
}

// halved is 2^63 · 2^(-x / 2^phaseBits) for x < 2^phaseBits, low by at most one
// part in 2^58. Two neighbours differ by one part in 2^25, so it falls strictly.
func halved(x uint32) uint64 {
	f := uint64(1) << 63
	for i, c := range halvings {
		if x>>(phaseBits-1-i)&1 == 1 {
			f, _ = bits.Mul64(f, c)
		}
	}
	return f
}

// phase is the epoch of t, and φ in units of 2^-phaseBits, rounded down: that and
// halved together err by less than 5e-8 of the value.
func phase(t crowd.Time, half int64) (epoch uint64, x uint32) {
	if half <= 0 || t <= 0 {
		return 0, 0
	}
	hi, lo := bits.Mul64(uint64(t)%uint64(half), 1<<phaseBits)
	q, _ := bits.Div64(hi, lo, uint64(half))
	return uint64(t) / uint64(half), uint32(q)
}

// forward brings a fading sum from one time to a later one.
func forward(sum uint64, from, to crowd.Time, half int64) uint64 {
	a, _ := phase(from, half)
	b, _ := phase(max(from, to), half)
	return sum >> min(b-a, 63)
}

// added is a fading sum of the time at with x more.
func added(sum, x uint64, at crowd.Time, half int64) uint64 {
	x = min(x, maxFading)
	if _, f := phase(at, half); f > 0 { // 2^φ = 2 · 2^-(1-φ)
		hi, lo := bits.Mul64(x, halved(1<<phaseBits-f))
		x = min(hi<<2|lo>>62, maxFading)
	}
	return min(sum+x, maxFading)
}

// faded is what a fading sum of the time at comes to then.
func faded(sum uint64, at crowd.Time, half int64) uint64 {
	_, f := phase(at, half)
	hi, lo := bits.Mul64(min(sum, maxFading), halved(f)) // a record may come from anywhere
	return hi<<1 | lo>>63
}
