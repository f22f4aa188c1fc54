package executortest

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

//go:embed testdata
var sources embed.FS

// guests are built once per test binary; the folder goes with the last of them.
var guests struct {
	sync.Mutex
	built map[string]guest
}

type guest struct {
	wasm []byte
	skip string // why it cannot be built here
	err  error
}

// Guest builds a program out of testdata and returns the path of its module. It
// skips the test where the compiler for it is not installed.
func Guest(t testing.TB, name string) string {
	t.Helper()
	guests.Lock()
	defer guests.Unlock()
	g, is := guests.built[name]
	if !is {
		g = build(t.TempDir(), name)
		if guests.built == nil {
			guests.built = map[string]guest{}
		}
		guests.built[name] = g
	}
	if g.skip != "" {
		t.Skip(g.skip)
	}
	if g.err != nil {
		t.Fatal(g.err)
	}
	path := filepath.Join(t.TempDir(), name+".wasm")
	if err := os.WriteFile(path, g.wasm, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Source writes a source out of testdata to a folder of the test's own.
func Source(t testing.TB, name string) string {
	t.Helper()
	path, err := source(t.TempDir(), name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func source(dir, name string) (string, error) {
	text, err := sources.ReadFile("testdata/" + name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, text, 0o644)
}

// Clang is the C compiler, or "".
func Clang() string {
	for _, name := range []string{"clang-14", "clang"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func build(dir, name string) guest {
	src, err := source(dir, name)
	if err != nil {
		return guest{err: err}
	}
	out := filepath.Join(dir, "out.wasm")
	reactor := strings.HasPrefix(name, "reactor.")
	var cmd *exec.Cmd
	switch filepath.Ext(name) {
	case ".c":
		if Clang() == "" {
			return guest{skip: "no clang: apt-get install clang-14 lld-14 wasi-libc libclang-rt-14-dev-wasm32"}
		}
		cmd = exec.Command(Clang(), "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-o", out, src)
		if reactor {
			cmd.Args = append(cmd.Args, "-mexec-model=reactor")
		}
	case ".go":
		cmd = exec.Command("go", "build", "-o", out, src)
		if reactor {
			cmd.Args = slices.Insert(cmd.Args, 2, "-buildmode=c-shared")
		}
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	case ".rs":
		const target = "wasm32-wasip1"
		lib, err := exec.Command("rustc", "--print", "target-libdir", "--target", target).Output()
		if err != nil {
			return guest{skip: "no rustc with the target " + target}
		}
		if _, err := os.Stat(strings.TrimSpace(string(lib))); err != nil {
			return guest{skip: "rustc has no library for " + target}
		}
		cmd = exec.Command("rustc", "--target", target, "-O", "-o", out, src)
	default:
		return guest{err: fmt.Errorf("guest %s: unknown language", name)}
	}
	if said, err := cmd.CombinedOutput(); err != nil {
		return guest{err: fmt.Errorf("build %s: %w\n%s", name, err, said)}
	}
	wasm, err := os.ReadFile(out)
	return guest{wasm: wasm, err: err}
}
