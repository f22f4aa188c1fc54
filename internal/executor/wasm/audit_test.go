//go:build linux

package wasm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/executortest"
)

// Another program of the same size, written within one tick of the file system's
// clock, perhaps to the same inode, is another program. Two jobs that follow each other
// quickly through scratch space look like that.
func TestCacheKey_IsTheContentAndNothingElse(t *testing.T) {
	c, err := newCache(filepath.Join(t.TempDir(), "cache"), engineNames[0])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	for i := range 100 {
		var keys [2]key
		for j := range keys {
			if err := os.WriteFile(path, bytes.Repeat([]byte{byte(i), byte(j)}, 100), 0o600); err != nil {
				t.Fatal(err)
			}
			f, k, err := c.program(path)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			keys[j] = k
		}
		if keys[0] == keys[1] {
			t.Fatalf("try %d: got one key %x for two programs", i, keys[0][:4])
		}
	}
}

// What a program may name in /out must be storable on every node: a result that
// no store takes would be a fault of all honest executors, and the run unpaid.
func TestMake_OnlyNamesThatAResultCanHave(t *testing.T) {
	deep := strings.Repeat(strings.Repeat("d", 99)+"/", 9)
	for _, c := range []struct {
		name, path string
		want       errno
	}{
		{"plain", "file", ok},
		{"newline", "a\nb", eInval},
		{"delete", "a\x7f", eInval},
		{"backslash", `a\b`, eInval},
		{"longest path of a result", deep + strings.Repeat("f", 1024-len("out/")-len(deep)), ok},
		{"one byte more", deep + strings.Repeat("f", 1024-len("out/")-len(deep)+1), eNameTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTree(&shelf{}, false)
			out := tr.root.kids["out"]
			at := out
			parts := strings.Split(c.path, "/")
			for _, d := range parts[:len(parts)-1] {
				n, e, err := tr.make(dirType, at, d)
				if e != ok || err != nil {
					t.Fatalf("folder %q: got %d, %v", d, e, err)
				}
				at = n
			}
			for _, k := range []fileType{regularType, dirType} {
				n, e, err := tr.make(k, at, parts[len(parts)-1])
				if e != c.want || err != nil {
					t.Fatalf("kind %d: got errno %d, %v want %d", k, e, err, c.want)
				}
				if n != nil {
					tr.unlink(n)
				}
			}
			n, _, _ := tr.make(regularType, out, "other")
			if e := tr.rename(n, at, parts[len(parts)-1], nil); e != c.want {
				t.Errorf("rename: got errno %d want %d", e, c.want)
			}
		})
	}
}

// A hole in a file of /out is bytes that the node hashes and hands out: they cost
// what written ones do.
func TestExtend_AHoleCostsGas(t *testing.T) {
	const size = 1 << 20
	for _, at := range []string{"out", "tmp"} {
		tr := newTree(&shelf{}, false)
		h := newHost(nil, nil, crowd.Hash{}, 2*size, tr, nil, &memory{}, &memory{})
		n, _, _ := tr.make(regularType, tr.root.kids[at], "f")
		h.left = 10 * size
		if e := h.resize(&descriptor{n: n, rights: rightFDWrite}, size); e != ok {
			t.Fatalf("/%s: got errno %d", at, e)
		}
		if used := 10*size - h.left; used < size*gasByte {
			t.Errorf("/%s: got %d gas for a hole of %d bytes want as much as for bytes", at, used, size)
		}
	}
}

// starved is an engine on a machine that has no memory left.
type starved struct{ engine }

func (starved) compile([]byte) ([]byte, error) {
	return nil, errors.New("mmap: cannot allocate memory")
}

// That a compiler fails on this machine says nothing about the program; that the
// program is none, it does.
func TestCompile_WhatFailsHereIsAFaultAndNotAnInvalidProgram(t *testing.T) {
	good, err := os.ReadFile(executortest.Case{Guest: "true.c"}.Spec(t).Program)
	if err != nil {
		t.Fatal(err)
	}
	noStart := []byte("\x00asm\x01\x00\x00\x00")
	for _, name := range Engines() {
		e, err := newEngine(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name    string
			engine  engine
			program []byte
			fault   executor.Kind
			invalid bool
		}{
			{"program", e, good, 0, false},
			{"starved", starved{e}, good, executor.Crashed, false},
			{"no start", e, noStart, 0, true},
			{"no program", e, good[:len(good)-1], 0, true},
		} {
			f, err := os.Create(filepath.Join(t.TempDir(), "code"))
			if err != nil {
				t.Fatal(err)
			}
			got := compileTo(file(f.Fd()), c.engine, c.program, true)
			f.Close()
			if got.Fault != c.fault || (got.Invalid != "") != c.invalid {
				t.Errorf("%s, %s: got fault %d and invalid %q want fault %d and invalid %v", name, c.name, got.Fault, got.Invalid, c.fault, c.invalid)
			}
		}
	}
}

// starvedWorker is a worker on a machine that has no memory for who asks for a MiB at once.
func starvedWorker(ctx context.Context) error {
	const dataLength = dataArg0 + 8 // of mprotect, by which wasmtime's memories grow
	p := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: dataNr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 4, K: unix.SYS_MPROTECT},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: dataLength},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jf: 2, K: 1 << 20},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 1, K: 2 << 20}, // stacks of threads
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOMEM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return e
	}
	return Worker(ctx)
}

// A machine without memory is no property of the program, though the program would see its growth refused: neither alone
// nor in a batch is there an outcome.
func TestMemoryGrow_WhatTheMachineCannotGiveIsAFault(t *testing.T) {
	if !slices.Contains(Engines(), Wasmtime) {
		t.Skip("memory of wazero is reserved before the program runs")
	}
	c := testConfig(t, Wasmtime)
	c.Command = append(c.Command, "starved")
	x, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	_, err = x.Run(t.Context(), executortest.Case{Guest: "hostile.c", Args: []string{"memory"}}.Spec(t), executor.IO{})
	if f := (*executor.Fault)(nil); !errors.As(err, &f) || f.Kind != executor.NoSpace {
		t.Errorf("got %v, want %v", err, executor.NoSpace)
	}
	s := executortest.Case{Guest: "item.c", Limits: crowd.Limits{Memory: 64 << 20, Gas: 1 << 40}}.BatchSpec(t)
	items := []executor.Item{{Index: 0, Stdin: []byte("u")}, {Index: 1, Stdin: []byte("m")}, {Index: 2, Stdin: []byte("u")}}
	for i, r := range executortest.Batch(t, x, s, items) {
		if got, want := r.Fault != nil && r.Fault.Kind == executor.NoSpace, i == 1; got != want {
			t.Errorf("item %d: got %v, fault %v, want %v: %v", i, r.Status, r.Fault, executor.NoSpace, want)
		}
	}
	// What the limit refuses, it refuses everywhere: that is an outcome.
	s.Limits.Memory = 1 << 20
	if r := executortest.Batch(t, x, s, items[1:2])[0]; r.Fault != nil || r.ExitCode != 4 {
		t.Errorf("got %+v, want an outcome", r)
	}
}

// The parent hands a worker its inputs to read and not to write, whatever the worker says of what the program asked for.
func TestSession_InputsAreOpenedForReading(t *testing.T) {
	x, err := openInputs(&executor.Spec{Inputs: executortest.Inputs(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	f, err := x.open("a.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY {
		t.Errorf("got flags %#x, %v, want a file that can only be read", flags, err)
	}
	if _, err := f.WriteAt([]byte("X"), 0); err == nil {
		t.Error("an input can be written to")
	}
}
