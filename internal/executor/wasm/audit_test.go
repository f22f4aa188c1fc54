//go:build linux

package wasm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
			got := compileTo(file(f.Fd()), c.engine, c.program)
			f.Close()
			if got.Fault != c.fault || (got.Invalid != "") != c.invalid {
				t.Errorf("%s, %s: got fault %d and invalid %q want fault %d and invalid %v", name, c.name, got.Fault, got.Invalid, c.fault, c.invalid)
			}
		}
	}
}
