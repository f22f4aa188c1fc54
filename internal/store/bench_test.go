package store

import (
	"fmt"
	"io"
	"testing"
)

func BenchmarkAdd(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := open(b, Config{})
			data := noise(size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := uint32(0); b.Loop(); i++ {
				copy(data, fmt.Sprint(i)) // a new file each time
				add(b, s, data)
				if size > 1<<20 {
					b.StopTimer()
					s.GC(b.Context()) // a bounded disk
					b.StartTimer()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/file")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := open(b, Config{})
			c := add(b, s, noise(size))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				r, _, err := s.Reader(b.Context(), c)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(size) {
					b.Fatal(n, err)
				}
			}
		})
	}
}
