//go:build linux

package wasm

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/executortest"
)

// cached lists the files of the cache with this ending.
func cached(t *testing.T, dir, ext string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*"+ext))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestCacheIsChecked spoils what is cached in every way and runs on.
func TestCacheIsChecked(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(code, sum string) error
	}{
		{"nothing", func(string, string) error { return nil }},
		{"flipped byte", func(code, _ string) error {
			b, err := os.ReadFile(code)
			if err == nil {
				b[len(b)/2] ^= 1
				err = os.WriteFile(code, b, 0o600)
			}
			return err
		}},
		{"cut code", func(code, _ string) error { return os.Truncate(code, 100) }},
		{"no code", func(code, _ string) error { return os.Remove(code) }},
		{"no sum", func(_, sum string) error { return os.Remove(sum) }},
		{"cut sum", func(_, sum string) error { return os.Truncate(sum, 5) }},
		{"long sum", func(_, sum string) error { return os.Truncate(sum, 1<<30) }},
		{"valid sum of what the engine refuses", func(code, sum string) error {
			text := []byte("not code")
			h := crowd.Encode(sumOf(text))
			if err := os.WriteFile(code, text, 0o600); err != nil {
				return err
			}
			return os.WriteFile(sum, h, 0o600)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := testConfig(t, "")
			s := executortest.Case{Guest: "true.c"}.Spec(t)
			for i := range 2 {
				x, err := New(config)
				if err != nil {
					t.Fatal(err)
				}
				s.Output = t.TempDir()
				if got, r := executortest.See(t, x, s); got.Status != crowd.Exited {
					t.Errorf("run %d: got %v (%s), want %v", i+1, got.Status, r.Reason, crowd.Exited)
				}
				x.Close()
				codes, sums := cached(t, config.CacheDir, ".code"), cached(t, config.CacheDir, ".sum")
				if len(codes) != 1 || len(sums) != 1 || len(cached(t, config.CacheDir, "")) != 2 {
					t.Fatalf("got %v and %v, want one of each and no more", codes, sums)
				}
				if err := c.spoil(codes[0], sums[0]); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func sumOf(text []byte) sum {
	s := sum{Size: uint64(len(text))}
	h := sha256.Sum256(text)
	s.SHA256 = h[:]
	return s
}

func TestCacheFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := newCache(dir, Wazero); err == nil || !strings.Contains(err.Error(), "700") {
		t.Errorf("got %v for a folder that others can read, want it refused", err)
	}
}

func anyPrice(*price) bool { return true }

// TestCompileOnce: many runs of a new program at once compile it once.
func TestCompileOnce(t *testing.T) {
	x := newTest(t, "")
	made := 0
	var mu sync.Mutex
	f, k, err := x.cache.program(executortest.Guest(t, "true.c"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := x.cache.get(context.Background(), k, f.Name(), anyPrice, func(_ context.Context, _, code *os.File) (compiled, error) {
				if code == nil {
					return compiled{}, nil
				}
				mu.Lock()
				made++
				mu.Unlock()
				_, err := code.WriteAt([]byte("x"), 0)
				return compiled{Size: 1}, err
			})
			if err != nil || c.file == nil {
				t.Errorf("got %v, %v, want code", c, err)
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("got %d compilations, want 1", made)
	}
}

// TestCompileCancelled: the last who waits takes the compilation with it.
func TestCompileCancelled(t *testing.T) {
	x := newTest(t, "")
	f, k, err := x.cache.program(executortest.Guest(t, "true.c"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	_, err = x.cache.get(ctx, k, f.Name(), anyPrice, func(ctx context.Context, _, _ *os.File) (compiled, error) {
		cancel()
		<-ctx.Done()
		close(ended)
		return compiled{}, ctx.Err()
	})
	if _, is := err.(*executor.Fault); !is {
		t.Errorf("got %v, want a fault", err)
	}
	<-ended
	s := executortest.Case{Guest: "true.c"}.Spec(t)
	if got, _ := executortest.See(t, x, s); got.Status != crowd.Exited {
		t.Errorf("got %v afterwards, want %v", got.Status, crowd.Exited)
	}
}

// Prices and rules are in a build, so that code which another one made is made anew, though the program is the same.
func TestCacheKey_AnotherBuildHasItsOwnCode(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	id, err := exec.Command("go", "tool", "buildid", self).Output()
	if err != nil {
		t.Fatal(err)
	}
	config := testConfig(t, "")
	s := executortest.Case{Guest: "true.c"}.Spec(t)
	for i, other := range []string{"", "an older build", ""} {
		x, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(x.cache.build, strings.TrimSpace(string(id))) {
			t.Errorf("got the name %q for the build %s", x.cache.build, id)
		}
		if other != "" {
			x.cache.build = other
		}
		s.Output = t.TempDir()
		executortest.See(t, x, s)
		x.Close()
		if got, want := len(cached(t, config.CacheDir, ".code")), min(i+1, 2); got != want {
			t.Errorf("after run %d: got code of %d builds, want %d", i+1, got, want)
		}
	}
}

// TestEngineVersions holds the names of the engines to what go.mod pins.
func TestEngineVersions(t *testing.T) {
	mod, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	modules := map[string]string{Wasmtime: "github.com/bytecodealliance/wasmtime-go/v43 v", Wazero: "github.com/tetratelabs/wazero v"}
	for engine, version := range engineVersions {
		if want := modules[engine] + strings.TrimPrefix(version, engine+"-"); !strings.Contains(string(mod), want+"\n") {
			t.Errorf("got %s, want what go.mod has for %s", version, modules[engine])
		}
	}
	if build() == "" {
		t.Error("got no name for this build, want one")
	}
}

// What costs more before it begins than a run may use is not compiled for that run, and is for the next that can pay.
func TestCompile_OnlyForARunThatCanPay(t *testing.T) {
	for _, engine := range Engines() {
		x := newTest(t, engine)
		s := executortest.Case{Guest: "true.c"}.Spec(t)
		codes := func() int { return len(cached(t, x.config.CacheDir, ".code")) }
		full, _ := executortest.See(t, newTest(t, engine), s)
		source, err := os.ReadFile(s.Program)
		if err != nil {
			t.Fatal(err)
		}
		_, p, err := prepare(source)
		if err != nil {
			t.Fatal(err)
		}
		again := func(gas, spent crowd.Gas, shares uint32) executortest.Seen {
			t.Helper()
			s.Output, s.Limits.Gas, s.Spent, s.Shares = t.TempDir(), gas, spent, shares
			got, _ := executortest.See(t, x, s)
			if got.Status == crowd.OutOfGas && got.Gas != gas {
				t.Errorf("out of gas: got %d, want the limit of %d", got.Gas, gas)
			}
			return got
		}
		start := crowd.Gas(p.Code + p.Begin)
		for _, gas := range []crowd.Gas{1, start - 1} {
			if got := again(gas, 0, 0); got.Status != crowd.OutOfGas || len(got.Files) != 4 || codes() != 0 {
				t.Errorf("%s, %d gas: got %v and %d codes, want out of gas with empty outputs and nothing compiled", engine, gas, got, codes())
			}
		}
		if got := again(full.Gas, full.Gas+1, 0); got.Status != crowd.OutOfGas || codes() != 0 {
			t.Errorf("%s: got %v where more was spent than there is", engine, got)
		}
		if got := again(full.Gas, 0, 0); !got.Equal(full) || codes() != 1 {
			t.Errorf("%s: got %v and %d codes, want %v", engine, got, codes(), full)
		}
		if got := again(full.Gas-1, 0, 0); got.Status != crowd.OutOfGas {
			t.Errorf("%s: got %v with one gas less than it takes", engine, got)
		}
		if got, want := again(full.Gas, 5, 10), full.Gas+5-crowd.Gas(p.Code)+executor.Share(crowd.Gas(p.Code), 10); got.Gas != want {
			t.Errorf("%s: got %d gas with a tenth of the code's and 5 spent, want %d", engine, got.Gas, want)
		}
		// A program that is none costs what was laid out.
		s.Program = filepath.Join(t.TempDir(), "none")
		if err := os.WriteFile(s.Program, []byte("none"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := again(100, 70, 0); got.Status != crowd.Invalid || got.Gas != 70 {
			t.Errorf("%s: got %v, want an invalid program for 70 gas", engine, got)
		}
		if got := again(100, 101, 0); got.Status != crowd.OutOfGas {
			t.Errorf("%s: got %v, want out of gas", engine, got)
		}
	}
}

// However many programs that take long are compiled, another's turn comes; and none is compiled for ever.
func TestCompile_WhatTakesLongHoldsUpOnlyItsLike(t *testing.T) {
	x := newTest(t, "")
	x.cache.long = make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	compile := func(effort uint64, how func(ctx context.Context)) compiler {
		return func(ctx context.Context, _, code *os.File) (compiled, error) {
			c := compiled{Price: price{Effort: effort}}
			if code == nil {
				return c, nil
			}
			how(ctx)
			c.Size = 1
			_, err := code.WriteAt([]byte("x"), 0)
			return c, err
		}
	}
	var all sync.WaitGroup
	get := func(name string, c compiler) error {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Error(err)
		}
		f, k, err := x.cache.program(path)
		if err != nil {
			t.Error(err)
		}
		f.Close()
		_, err = x.cache.get(ctx, k, path, anyPrice, c)
		return err
	}
	begun := make(chan struct{}, 8)
	for i := range 8 {
		all.Go(func() {
			get(fmt.Sprint("bomb ", i), compile(quickEffort+1, func(ctx context.Context) {
				begun <- struct{}{}
				<-ctx.Done()
			}))
		})
	}
	<-begun
	for i := range 8 {
		if err := get(fmt.Sprint("program ", i), compile(quickEffort, func(context.Context) {})); err != nil {
			t.Error(err)
		}
	}
	if n := len(begun); n > 0 {
		t.Errorf("%d more that take long were begun at once, want one", n)
	}
	cancel()
	all.Wait()
	if compileTime >= time.Minute {
		t.Errorf("compiling may take %v, which is all the time that a job gives beyond its wall time", compileTime)
	}
}

// The price of a program's code is the order of a second of its first run, not of a job: what compilers make has no more to pay
// than its size explains.
func TestPrice_OrdinaryProgramsStartCheaply(t *testing.T) {
	for name, most := range map[string]crowd.Gas{"true.c": 200_000, "gohello.go": 25_000_000} {
		source, err := os.ReadFile(executortest.Guest(t, name))
		if err != nil {
			t.Fatal(err)
		}
		module, p, err := prepare(source)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes, code %d gas, begin %d gas, effort %d ms", name, len(source), p.Code, p.Begin, p.Effort/1e6)
		if start := p.start(&executor.Spec{}); start > most || p.Code != 5*uint64(len(module)) {
			t.Errorf("%s: got %d gas at the start, %d of it for %d bytes of code, want at most %d and 5 for each byte", name, start, p.Code, len(module), most)
		}
	}
}

// What is kept open and on disk is bounded in files and in bytes, the oldest going first; what goes from the disk is not kept open.
func TestCache_IsBounded(t *testing.T) {
	c, err := newCache(t.TempDir()+"/code", engineNames[0])
	if err != nil {
		t.Fatal(err)
	}
	name := func(i int) key { return key{byte(i), byte(i >> 8), 1} }
	for i := range 3 * maxOpenCode {
		c.keep(name(i), &code{size: 1})
	}
	if len(c.open) != maxOpenCode || len(c.order) != maxOpenCode || c.open[name(2*maxOpenCode)] == nil {
		t.Errorf("got %d of %d entries open, want the newest %d", len(c.open), len(c.order), maxOpenCode)
	}
	for i := range 5 {
		c.keep(name(i), &code{size: maxOpenBytes / 2})
	}
	if len(c.open) != 2 || c.open[name(4)] == nil || c.open[name(3)] == nil {
		t.Errorf("got %d entries of half the bytes each open, want the newest two", len(c.open))
	}
	c.keep(name(9), &code{size: 2 * maxOpenBytes})
	if len(c.open) != 1 || c.open[name(9)] == nil {
		t.Errorf("got %d entries, want the one that is too large, since a run needs it", len(c.open))
	}
	for i := range 10 {
		for _, ext := range []string{".code", ".sum"} {
			if err := os.WriteFile(c.path(name(i), ext), make([]byte, 100), 0o600); err != nil {
				t.Fatal(err)
			}
			when := time.Unix(int64(i), 0)
			if err := os.Chtimes(c.path(name(i), ext), when, when); err != nil {
				t.Fatal(err)
			}
		}
		c.keep(name(i), &code{size: 1})
	}
	for _, step := range []struct {
		bytes int64
		files int
		left  int // files
	}{{2000, 20, 20}, {1399, 20, 13}, {1399, 8, 8}, {0, 0, 2}} {
		c.trimTo(name(0), step.bytes, step.files)
		if n := len(cached(t, c.dir, "")); n != step.left {
			t.Errorf("of at most %d bytes in %d files: got %d left, want %d", step.bytes, step.files, n, step.left)
		}
	}
	if len(c.open) != 1 || c.open[name(0)] == nil {
		t.Errorf("got %d entries open, want the one whose file is left", len(c.open))
	}
}
