//go:build linux

package wasm

import (
	"context"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

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
