package p2p

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/store"
)

// BenchmarkFetch64MiB fetches files and, in turn, sends as many bytes through one plain
// stream of the same pair of hosts: "of-raw" is the ratio of the speeds.
func BenchmarkFetch64MiB(b *testing.B) {
	const size = 64 << 20
	for _, listen := range loopbacks {
		b.Run(strings.Split(listen, "/")[3], func(b *testing.B) {
			src, dst := openStore(b), openStore(b)
			a := start(b, Config{Blocks: src.Blocks(), Listen: []string{listen}})
			c := start(b, Config{Blocks: dst.Blocks(), Listen: []string{listen}})
			connect(b, c, a)
			data := random(size)
			a.Handle("/raw", func(_ context.Context, _ crowd.NodeID, s Stream) error {
				_, err := s.Write(data)
				return err
			})
			buf := make([]byte, 1<<20)
			var raw, fetched time.Duration
			b.SetBytes(size)
			b.ReportAllocs()
			for i := uint32(0); b.Loop(); i++ {
				b.StopTimer()
				copy(data, fmt.Sprint(i))
				for at := 0; at < size; at += 1 << 20 {
					copy(data[at:], fmt.Sprint(i, at))
				}
				k, err := src.AddFile(b.Context(), bytes.NewReader(data))
				if err != nil {
					b.Fatal(err)
				}
				from := time.Now()
				s, err := c.Open(b.Context(), a.ID(), "/raw")
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, buf); err != nil || n != size {
					b.Fatal(n, err)
				}
				s.Close()
				raw += time.Since(from)
				b.StartTimer()
				from = time.Now()
				if err := c.Fetch(b.Context(), k, size+size/64, []crowd.NodeID{a.ID()}, nil); err != nil {
					b.Fatal(err)
				}
				fetched += time.Since(from)
				b.StopTimer()
				for _, s := range []*store.Store{src, dst} {
					if _, err := s.GC(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(size)*float64(b.N)/1e6/raw.Seconds(), "raw-MB/s")
			b.ReportMetric(raw.Seconds()/fetched.Seconds(), "of-raw")
		})
	}
}

// BenchmarkFetch1KiB fetches small new files from a connected node, by our protocol and by bitswap.
func BenchmarkFetch1KiB(b *testing.B) {
	newFile := func(b *testing.B, s *store.Store, i uint32) crowd.CID {
		c, err := s.AddFile(b.Context(), strings.NewReader(fmt.Sprintf("%1024d", i)))
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	b.Run("crowd", func(b *testing.B) {
		src, dst := openStore(b), openStore(b)
		a, c := start(b, Config{Blocks: src.Blocks()}), start(b, Config{Blocks: dst.Blocks()})
		connect(b, c, a)
		b.ReportAllocs()
		for i := uint32(0); b.Loop(); i++ {
			b.StopTimer()
			k := newFile(b, src, i)
			b.StartTimer()
			if err := c.Fetch(b.Context(), k, 2000, []crowd.NodeID{a.ID()}, nil); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "µs/file")
	})
	b.Run("bitswap", func(b *testing.B) {
		src := openStore(b)
		a := start(b, Config{Blocks: src.Blocks()})
		bs := bitswapClient(b, a)
		b.ReportAllocs()
		for i := uint32(0); b.Loop(); i++ {
			b.StopTimer()
			k, err := cid.Decode(string(newFile(b, src, i)))
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if _, err := bs.GetBlock(b.Context(), k); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "µs/file")
	})
}

func BenchmarkEcho(b *testing.B) {
	for _, listen := range loopbacks {
		b.Run(strings.Split(listen, "/")[3], func(b *testing.B) {
			x, y := start(b, Config{Listen: []string{listen}}), start(b, Config{Listen: []string{listen}})
			y.Answer("/echo", 100, func(_ context.Context, _ crowd.NodeID, req []byte) ([]byte, error) { return req, nil })
			connect(b, x, y)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.Request(b.Context(), y.ID(), "/echo", []byte("hello"), 100); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "µs/request")
		})
	}
}
