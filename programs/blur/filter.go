package main

import "math/bits"

// picture is a flat image. A pixel is four premultiplied channels of 8 bits in
// the low halves of four 16-bit lanes: r | g<<16 | b<<32 | a<<48.
type picture struct {
	w, h int
	px   []uint64
}

// Weights multiply, so their logarithms add: every factor is kept as a number of
// steps, octave of which halve it, and one table turns their sum into a weight.
const (
	octave     = 256
	one        = 1 << 12               // the weight of a pixel upon itself
	vanish     = 13 * octave           // steps after which a weight rounds to zero
	weightSize = 1 << 14               // more than any sum: 4·vanish + 4·octave·log2(e)
	log2e      = 1_442_695_041         // log2(e), in units of 1e-9
	root       = 0xff4e_cb59_511e_c8a5 // 2^(-1/octave), in units of 2^-64

	maxRadius = 48 // a lane's sum stays below 2^32; TestLanesHoldTheLargestSum adds it up
	maxEdge   = 255
)

// lanes picks every second channel, which leaves 32 bits of room for each one's
// product with a weight and for the sum of those over a window.
const lanes = 0x000000ff_000000ff

// filter is the bilateral filter of Tomasi and Manduchi (1998): a mean weighted by
// distance in the plane, sigma radius/2, and in colour, sigma edge levels. It is
// made of integers only, so that every machine computes the same bytes.
type filter struct {
	radius int
	plane  []uint16           // steps by offset, (2·radius+1)² of them
	colour [511]uint16        // steps by difference of one channel, from -255
	weight [weightSize]uint16 // by steps, in units of 1/one
}

// newFilter wants 0 <= radius <= maxRadius and 1 <= edge <= maxEdge.
func newFilter(radius, edge int) *filter {
	f := &filter{radius: radius}
	for dy := -radius; dy <= radius; dy++ {
		for dx := -radius; dx <= radius; dx++ {
			// 4·d² over radius² is d² over sigma²; radius 0 has only d = 0.
			f.plane = append(f.plane, steps(4*(dx*dx+dy*dy), max(radius, 1)))
		}
	}
	for i := range f.colour {
		f.colour[i] = steps((i-255)*(i-255), edge)
	}
	v := ^uint64(0)
	for i := range vanish {
		f.weight[i] = uint16((v>>51 + 1) >> 1) // from units of 2^-64 to 2^-12, rounded
		v, _ = bits.Mul64(v, root)
	}
	return f
}

// steps is -log2(exp(-d2/(2·sigma²))) in steps, at most vanish.
func steps(d2, sigma int) uint16 {
	unit := 2 * int64(sigma) * int64(sigma) * 1_000_000_000
	return uint16(min((int64(d2)*octave*log2e+unit/2)/unit, vanish))
}

// tap is one pixel of the window: how far it lies behind the window's first pixel
// in memory, and its distance in the plane in steps.
type tap struct{ offset, steps uint32 }

// apply is src filtered. It calls row after each row.
func (f *filter) apply(src picture, row func()) picture {
	from := src.framed(f.radius)
	side := 2*f.radius + 1
	var taps []tap
	for i, s := range f.plane {
		taps = append(taps, tap{uint32(i/side*from.w + i%side), uint32(s)})
	}
	dst := picture{src.w, src.h, make([]uint64, len(src.px))}
	for y := range src.h {
		for x := range src.w {
			dst.px[y*src.w+x] = f.mean(src.px[y*src.w+x], from.px[y*from.w+x:], taps)
		}
		row()
	}
	return dst
}

// framed is p with its outermost pixels repeated n times on each side.
func (p picture) framed(n int) picture {
	out := picture{w: p.w + 2*n, h: p.h + 2*n}
	out.px = make([]uint64, 0, out.w*out.h)
	for y := range out.h {
		row := p.px[min(max(y-n, 0), p.h-1)*p.w:][:p.w]
		for x := range out.w {
			out.px = append(out.px, row[min(max(x-n, 0), p.w-1)])
		}
	}
	return out
}

// mean is the weighted mean, seen from the centre c, of the window that starts at
// near. A slice made an array, and a sum of steps that is masked, need no bounds
// check; four taps a turn keep what a turn costs (and is metered for) small.
func (f *filter) mean(c uint64, near []uint64, taps []tap) uint64 {
	r := (*[256]uint16)(f.colour[255-uint8(c):])
	g := (*[256]uint16)(f.colour[255-uint8(c>>16):])
	b := (*[256]uint16)(f.colour[255-uint8(c>>32):])
	a := (*[256]uint16)(f.colour[255-uint8(c>>48):])
	weight := &f.weight

	var rb, ga, total uint64
	add := func(t tap) {
		q := near[t.offset]
		s := uint64(t.steps) + uint64(r[uint8(q)]) + uint64(g[uint8(q>>16)]) +
			uint64(b[uint8(q>>32)]) + uint64(a[uint8(q>>48)])
		w := uint64(weight[s%weightSize])
		rb += w * (q & lanes)
		ga += w * (q >> 16 & lanes)
		total += w
	}
	for ; len(taps) >= 4; taps = taps[4:] {
		add(taps[0])
		add(taps[1])
		add(taps[2])
		add(taps[3])
	}
	for _, t := range taps {
		add(t)
	}
	round := func(sum uint64) uint64 { return (sum + total/2) / total }
	return round(rb&0xffffffff) | round(ga&0xffffffff)<<16 | round(rb>>32)<<32 | round(ga>>32)<<48
}
