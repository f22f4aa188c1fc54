//go:build linux

package wasm

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// FuzzDecodeFromWorker: what a worker says is refused or encodes back to itself.
func FuzzDecodeFromWorker(f *testing.F) {
	for _, m := range [][]byte{
		pack(mCompiled, compiled{Size: 1, Price: price{Memory: 2, Code: 3}}),
		pack(mCompiled, compiled{Fault: executor.NoSpace, Reason: "full"}),
		pack(mProgress, progress{Gas: 1}),
		pack(mList, request{Path: []byte("a/b"), After: []byte("c")}),
		pack(mLeaves, leaves{List: []leaf{{Path: "a", Dir: true}, {Path: "a/b", Slot: 1, Size: 2}}}),
		pack(mDone, done{Status: crowd.Exited, ExitCode: 1, Gas: 2}),
		pack(mDone, done{Status: crowd.Trapped, Gas: 2, Reason: "x"}),
		pack(mBegun, begun{Unloaded: true, Reason: "x"}),
		pack(mResults, part{Data: []byte("x"), Last: true}),
		{byte(mReady)}, {}, {0xff},
	} {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, body, err := unpack(b)
		if err != nil {
			return
		}
		v, err := decodeFromWorker(k, body)
		if err != nil || v == nil {
			return
		}
		if again := pack(k, v); !bytes.Equal(again, b) {
			t.Errorf("got %x, want %x", again, b)
		}
	})
}

// FuzzChunk: what a worker says of items is refused or encodes back to itself, and what of it is believed
// names the items that were asked for.
func FuzzChunk(f *testing.F) {
	items := []executor.Item{{Index: 3}, {Index: 4}}
	f.Add(crowd.Encode(chunk{List: []itemDone{{Index: 3, Status: crowd.Exited, ExitCode: 1, Gas: 2, Stdout: []byte("out"),
		Out: []executor.File{{Path: "a", Dir: true}, {Path: "a/b", Data: []byte("x")}}}}}))
	f.Add(crowd.Encode(chunk{List: []itemDone{{Index: 3, Status: crowd.Trapped, Reason: "x"}, {Index: 4, Fault: executor.NoSpace}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeChunk(b)
		if err != nil {
			return
		}
		if again := crowd.Encode(c); !bytes.Equal(again, b) {
			t.Errorf("got %x, want %x", again, b)
		}
		list, err := check(c, items, &crowd.Limits{Gas: 10, Output: 100})
		if err != nil {
			return
		}
		for i, r := range list {
			if r.Index != items[i].Index || r.Gas > 10 || len(r.Stdout)+len(r.Stderr) > 100 || r.Fault != nil && i != len(list)-1 {
				t.Errorf("got %+v believed", r)
			}
		}
	})
}

// FuzzSum: the file beside cached code.
func FuzzSum(f *testing.F) {
	f.Add(crowd.Encode(sumOf([]byte("x"))))
	f.Add(crowd.Encode(sum{Invalid: "because"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s sum
		if crowd.Decode(b, &s) == nil && !bytes.Equal(crowd.Encode(s), b) {
			t.Errorf("got %x, want %x", crowd.Encode(s), b)
		}
	})
}

// table is an instance without a program: memory and gas.
type table struct {
	b    []byte
	left int64
}

func (t *table) memory() []byte { return t.b }
func (t *table) gas() int64     { return t.left }
func (t *table) setGas(n int64) { t.left = n }

// shelf is an outside with a few files in memory.
type shelf struct{ slots uint32 }

func (s *shelf) list(dir string) ([]entry, error) {
	if dir != "" {
		return []entry{{Name: []byte("deep"), Kind: regularType, Size: 4}}, nil
	}
	return []entry{{Name: []byte("b"), Kind: dirType}, {Name: []byte("a"), Kind: regularType, Size: 4}, {Name: []byte("l"), Kind: linkType}}, nil
}

func (s *shelf) open(string) (blob, error) { return &memory{b: []byte("text")}, nil }

func (s *shelf) create() (uint32, blob, error) {
	s.slots++
	return s.slots - 1, &memory{}, nil
}

// FuzzHostCalls plays calls with any arguments and any memory, twice: nothing
// panics, no bound is passed, and both times come to the same.
func FuzzHostCalls(f *testing.F) {
	call := func(name string, args ...uint64) (b []byte) {
		for i := range functions {
			if functions[i].name == name {
				b = append(b, byte(i))
				for _, a := range args {
					b = binary.LittleEndian.AppendUint32(b, uint32(a))
				}
			}
		}
		return b
	}
	path := func(p string) []byte { return append([]byte(p), make([]byte, 256-len(p))...) }
	f.Add(call("path_open", 3, 0, 0, 5, 1, 0xff, 0, 0, 100), path("out/x"))
	f.Add(append(call("path_open", 3, 0, 0, 4, 0, 2, 0, 0, 100), call("fd_read", 4, 96, 1, 104)...), path("in/a"))
	f.Add(append(call("path_create_directory", 3, 0, 5), call("fd_readdir", 3, 16, 200, 0, 240)...), path("tmp/d"))
	f.Add(call("poll_oneoff", 0, 64, 1, 128), make([]byte, 256))
	f.Add(call("fd_write", 1, 0, 1, 8), append([]byte{16, 0, 0, 0, 100, 0, 0, 0}, make([]byte, 200)...))
	f.Add(call("random_get", 0, 99), make([]byte, 256))
	f.Fuzz(func(t *testing.T, script, mem []byte) {
		if len(mem) > 1<<16 {
			return
		}
		play := func() ([]byte, *host, *table, errno) {
			in := &table{b: append(bytes.Clone(mem), make([]byte, 256)...), left: 50_000_000}
			h := newHost([]string{"a"}, []string{"A=b"}, crowd.Hash{7}, 1<<16, newTree(&shelf{}, true), nil, &memory{}, &memory{})
			last := ok
			for b := script; len(b) > 0; {
				fn := &functions[int(b[0])%len(functions)]
				b = b[1:]
				var args []uint64
				for range fn.params {
					var a [4]byte
					b = b[copy(a[:], b):]
					args = append(args, uint64(binary.LittleEndian.Uint32(a[:])))
				}
				e, goOn := h.call(fn, in, args)
				if last = e; !goOn {
					break
				}
			}
			return in.b, h, in, last
		}
		mem1, h1, in1, last1 := play()
		mem2, h2, in2, last2 := play()
		if !bytes.Equal(mem1, mem2) || in1.left != in2.left || last1 != last2 || h1.clock != h2.clock || h1.end != h2.end {
			t.Error("got two histories, want one")
		}
		if h1.written > h1.limit || h1.files.live > maxNodes || h1.files.tmpUsed > maxTmp || len(h1.fds) > maxFDs || h1.end.fault != nil {
			t.Errorf("got %d bytes, %d nodes, %d in /tmp, %d descriptors, %v: a bound is broken", h1.written, h1.files.live, h1.files.tmpUsed, len(h1.fds), h1.end.fault)
		}
		used := uint64(0)
		var count func(n *node)
		count = func(n *node) {
			if n.at == atTmp && n.kind == regularType {
				used += n.size
			}
			for _, k := range n.kids {
				count(k)
			}
		}
		count(h1.files.root)
		if used > h1.files.tmpUsed {
			t.Errorf("got %d bytes in /tmp, and %d counted", used, h1.files.tmpUsed)
		}
	})
}
