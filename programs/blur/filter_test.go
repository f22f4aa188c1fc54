package main

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

func grey(v uint64) uint64 { return v | v<<16 | v<<32 | 255<<48 }

// noise is a picture of random pixels, some of them transparent.
func noise(w, h int, seed uint64) picture {
	r := rand.New(rand.NewPCG(seed, 0))
	p := picture{w, h, make([]uint64, w*h)}
	for i := range p.px {
		a := uint64(255)
		if r.IntN(4) == 0 {
			a = r.Uint64N(256)
		}
		p.px[i] = r.Uint64N(a+1) | r.Uint64N(a+1)<<16 | r.Uint64N(a+1)<<32 | a<<48
	}
	return p
}

func equal(t *testing.T, got, want picture) {
	t.Helper()
	if got.w != want.w || got.h != want.h || len(got.px) != len(want.px) {
		t.Fatalf("got %d x %d, %d pixels, want %d x %d, %d pixels", got.w, got.h, len(got.px), want.w, want.h, len(want.px))
	}
	for i := range want.px {
		if got.px[i] != want.px[i] {
			t.Fatalf("pixel (%d, %d): got %016x want %016x", i%want.w, i/want.w, got.px[i], want.px[i])
		}
	}
}

// naive is the filter as the paper writes it: channel by channel, pixel by pixel.
func naive(f *filter, p picture) picture {
	out := picture{p.w, p.h, make([]uint64, len(p.px))}
	at := func(x, y int) (c [4]int) {
		q := p.px[min(max(y, 0), p.h-1)*p.w+min(max(x, 0), p.w-1)]
		for i := range c {
			c[i] = int(q >> (16 * i) & 0xffff)
		}
		return c
	}
	for y := range p.h {
		for x := range p.w {
			centre := at(x, y)
			var sum [4]int
			total, i := 0, 0
			for dy := -f.radius; dy <= f.radius; dy++ {
				for dx := -f.radius; dx <= f.radius; dx++ {
					c := at(x+dx, y+dy)
					s := int(f.plane[i])
					i++
					for k := range c {
						s += int(f.colour[255+c[k]-centre[k]])
					}
					w := int(f.weight[s])
					total += w
					for k := range c {
						sum[k] += w * c[k]
					}
				}
			}
			for k := range sum {
				out.px[y*p.w+x] |= uint64((sum[k]+total/2)/total) << (16 * k)
			}
		}
	}
	return out
}

func TestFilterMatchesNaive(t *testing.T) {
	for _, c := range []struct {
		name               string
		w, h, radius, edge int
	}{
		{"one pixel", 1, 1, 8, 30},
		{"a row", 40, 1, 8, 30},
		{"a column", 1, 40, 8, 30},
		{"smaller than the window", 5, 7, 8, 30},
		{"larger than the window", 37, 29, 3, 30},
		{"an even number of fours", 24, 24, 8, 100},
		{"sharpest edge", 16, 16, 4, 1},
		{"no edge", 16, 16, 4, maxEdge},
		{"largest radius", 12, 9, maxRadius, 60},
		{"no radius", 12, 9, 0, 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, p := newFilter(c.radius, c.edge), noise(c.w, c.h, uint64(c.w*c.h))
			rows := 0
			equal(t, f.apply(p, func() { rows++ }), naive(f, p))
			if rows != c.h {
				t.Errorf("got %d rows reported, want %d", rows, c.h)
			}
		})
	}
}

func TestFilterKeepsConstantPicture(t *testing.T) {
	for _, v := range []uint64{0, 1, 127, 255} {
		p := picture{20, 20, make([]uint64, 400)}
		for i := range p.px {
			p.px[i] = grey(v)
		}
		equal(t, newFilter(8, 30).apply(p, func() {}), p)
	}
}

func TestFilterOfRadiusZeroIsIdentity(t *testing.T) {
	p := noise(31, 17, 1)
	equal(t, newFilter(0, 30).apply(p, func() {}), p)
}

// Two noisy halves of different brightness: the noise goes, the edge and the mean
// of each half stay.
func TestFilterSmoothsAndKeepsEdges(t *testing.T) {
	const w, h, dark, light, amp = 48, 48, 60, 190, 10
	r := rand.New(rand.NewPCG(2, 0))
	p := picture{w, h, make([]uint64, w*h)}
	for i := range p.px {
		v := dark
		if i%w >= w/2 {
			v = light
		}
		p.px[i] = grey(uint64(v + r.IntN(2*amp+1) - amp))
	}
	// Mean and largest deviation from level of the columns [x0, x1).
	stat := func(p picture, x0, x1, level int) (mean, worst float64) {
		for y := range h {
			for x := x0; x < x1; x++ {
				v := float64(p.px[y*w+x] & 255)
				mean += v / float64((x1-x0)*h)
				worst = max(worst, math.Abs(v-float64(level)))
			}
		}
		return mean, worst
	}
	out := newFilter(8, 30).apply(p, func() {})
	for _, half := range []struct {
		name          string
		x0, x1, level int
	}{{"dark", 0, w / 2, dark}, {"light", w / 2, w, light}} {
		before, _ := stat(p, half.x0, half.x1, half.level)
		after, worst := stat(out, half.x0, half.x1, half.level)
		if math.Abs(after-before) > 0.5 {
			t.Errorf("%s half: got mean %.2f want %.2f", half.name, after, before)
		}
		if worst > amp/2 {
			t.Errorf("%s half: got a deviation of %.0f levels, want at most %d of the %d before", half.name, worst, amp/2, amp)
		}
	}
}

func TestWeightsAreGaussian(t *testing.T) {
	for _, c := range []struct{ radius, edge int }{{0, 1}, {1, 10}, {8, 30}, {maxRadius, maxEdge}} {
		f := newFilter(c.radius, c.edge)
		side := 2*c.radius + 1
		for i := range f.plane {
			for d := range 256 {
				dx, dy := i%side-c.radius, i/side-c.radius
				sigma := float64(max(c.radius, 1)) / 2
				got := float64(f.weight[int(f.plane[i])+int(f.colour[255+d])]) / one
				want := math.Exp(-float64(dx*dx+dy*dy)/(2*sigma*sigma) - float64(d*d)/float64(2*c.edge*c.edge))
				if math.Abs(got-want) > 0.003 { // half a step in each of two factors is 0.0027
					t.Fatalf("radius %d edge %d offset (%d, %d) difference %d: got weight %.4f want %.4f",
						c.radius, c.edge, dx, dy, d, got, want)
				}
			}
		}
	}
}

func TestLanesHoldTheLargestSum(t *testing.T) {
	f := newFilter(maxRadius, maxEdge)
	sum, far := uint64(0), uint16(0)
	for _, s := range f.plane {
		sum += uint64(f.weight[s]) * 255
		far = max(far, s)
	}
	if sum+sum/255/2 >= 1<<32 {
		t.Errorf("got a lane of up to %d, want less than 2^32", sum)
	}
	if got := int(far) + 4*vanish; got >= weightSize {
		t.Errorf("got sums of up to %d steps, want less than %d", got, weightSize)
	}
}

func BenchmarkFilterPhoto(b *testing.B) {
	photo, err := os.ReadFile("photo.png")
	if err != nil {
		b.Fatal(err)
	}
	p, err := decode(bytes.NewReader(photo))
	if err != nil {
		b.Fatal(err)
	}
	f := newFilter(8, 30)
	b.ReportAllocs()
	for b.Loop() {
		f.apply(p, func() {})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(p.px)*len(f.plane)), "ns/tap")
}
