package executortest

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// Case is one deterministic run and what it must come to.
type Case struct {
	Name   string
	Guest  string // a source in testdata
	Args   []string
	Env    []string
	Stdin  string
	Inputs bool         // mount the folder that Inputs makes
	Limits crowd.Limits // where zero: 2e10 gas, 64 MiB, 1 MiB, a minute
	Slow   bool         // two runs are enough, of five

	Status crowd.Status
	Exit   uint32
	Files  map[string]string // these files of the output must have this content
}

// Seen is all of a run that must be the same on every machine.
type Seen struct {
	Status   crowd.Status
	ExitCode uint32
	Gas      crowd.Gas
	Files    map[string]string // path in the output folder to content; folders end in /
}

// Equal compares two runs.
func (s Seen) Equal(o Seen) bool {
	return s.Status == o.Status && s.ExitCode == o.ExitCode && s.Gas == o.Gas && maps.Equal(s.Files, o.Files)
}

// Inputs makes a folder with files, folders and links that lead out of it.
func Inputs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"a.txt": "hello in\n", "b.txt": "", "deep/er/file": "deep\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"link": "/etc/passwd", "linkdir": "/etc", "up": "../.."} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Spec is c as an executor wants it, with a new output folder.
func (c Case) Spec(t testing.TB) executor.Spec {
	t.Helper()
	s := executor.Spec{Program: Guest(t, c.Guest), Args: c.Args, Env: c.Env, Output: t.TempDir(), Seed: crowd.Hash{1, 2, 3}, Limits: c.Limits}
	if c.Stdin != "" {
		s.Stdin = filepath.Join(t.TempDir(), "stdin")
		if err := os.WriteFile(s.Stdin, []byte(c.Stdin), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if c.Inputs {
		s.Inputs = Inputs(t)
	}
	l := &s.Limits
	if l.Gas == 0 {
		l.Gas = 20_000_000_000
	}
	if l.Memory == 0 {
		l.Memory = 64 << 20
	}
	if l.Output == 0 {
		l.Output = 1 << 20
	}
	if l.Wall == 0 {
		l.Wall = time.Minute
	}
	return s
}

// See runs s and reads what it left.
func See(t testing.TB, x executor.Executor, s executor.Spec) (Seen, executor.Result) {
	t.Helper()
	r, err := x.Run(context.Background(), s, executor.IO{})
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return Seen{r.Status, r.ExitCode, r.Gas, Files(t, s.Output)}, r
}

// Files reads a whole output folder.
func Files(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			files[name+"/"] = ""
			return nil
		}
		b, err := os.ReadFile(path)
		files[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

const echoed = `arg 0 program
arg 1 7
arg 2 héllo
env A=1
env B=two words
some
lines
in a.txt file 9
in b.txt file 0
in deep dir 0
in link other 0
in linkdir other 0
in up other 0
write to /in: Read-only file system
`

const world = `real 1767225600.000001000
mono 1767225600.000002000
real 1767225600.000003000
mono 1767225600.000004000
real 1767225600.000005000
mono 1767225600.000006000
after an hour 1767229200.000008000
random 67ff4676996063f585e1a6f059d31904
ino 9 dev 1 mtime 1767225600
accept -1 Not a socket
`

// Cases are the runs that every executor of WebAssembly must agree on.
func Cases() []Case {
	return []Case{
		{Name: "nothing", Guest: "true.c", Status: crowd.Exited, Files: map[string]string{"stdout": "", "stderr": "", "out/": ""}},
		{Name: "echo", Guest: "echo.c", Args: []string{"7", "héllo"}, Env: []string{"A=1", "B=two words"}, Stdin: "some\nlines\n", Inputs: true,
			Status: crowd.Exited, Exit: 7, Files: map[string]string{"stdout": echoed, "stderr": "to stderr\n", "out/sub/copy.txt": "hello in\n"}},
		{Name: "exit code 255", Guest: "echo.c", Args: []string{"255"}, Status: crowd.Exited, Exit: 255},
		{Name: "files", Guest: "files.c", Inputs: true, Status: crowd.Exited,
			Files: map[string]string{"stdout": "1018 descriptors, then No file descriptors available\n", "out/again": "x", "out/d/b": "bbb", "out/log": "12"}},
		{Name: "world", Guest: "world.c", Inputs: true, Status: crowd.Exited, Files: map[string]string{"stdout": world}},
		{Name: "go", Guest: "gofiles.go", Args: []string{"x", "y"}, Env: []string{"GREETING=hi"}, Stdin: "1\n2\n", Inputs: true,
			Status: crowd.Exited, Exit: 3, Files: map[string]string{"out/a/d.txt": "from Go\nand more\n", "stderr": "done\n"}},
		{Name: "go hello", Guest: "gohello.go", Status: crowd.Exited, Files: map[string]string{"stderr": "hello\n"}},
		{Name: "rust", Guest: "hello.rs", Args: []string{"x"}, Stdin: "text", Inputs: true, Status: crowd.Exited, Exit: 4,
			Files: map[string]string{"out/rust.txt": "TEXT", "stdout": "4 [\"program\", \"x\"]\n[\"a.txt\", \"b.txt\", \"deep\", \"link\", \"linkdir\", \"up\"]\n"}},
		{Name: "sha", Guest: "kernels.c", Args: []string{"sha", "1"}, Status: crowd.Exited},
		{Name: "mandelbrot", Guest: "kernels.c", Args: []string{"mandelbrot", "60"}, Status: crowd.Exited},
		{Name: "trap", Guest: "hostile.c", Args: []string{"trap"}, Status: crowd.Trapped, Files: map[string]string{"stdout": "begin trap\n"}},
		{Name: "abort", Guest: "hostile.c", Args: []string{"abort"}, Status: crowd.Trapped},
		{Name: "division by zero", Guest: "hostile.c", Args: []string{"divide"}, Status: crowd.Trapped},
		{Name: "out of bounds", Guest: "hostile.c", Args: []string{"bounds"}, Status: crowd.Trapped},
		{Name: "deep recursion in memory", Guest: "hostile.c", Args: []string{"deep"}, Status: crowd.Trapped},
		{Name: "deep recursion of calls", Guest: "hostile.c", Args: []string{"calls"}, Status: crowd.Trapped, Files: map[string]string{"stdout": "begin calls\n"}},
		{Name: "out of gas", Guest: "hostile.c", Args: []string{"loop"}, Limits: crowd.Limits{Gas: 50_000_000}, Status: crowd.OutOfGas,
			Files: map[string]string{"stdout": "begin loop\n"}},
		{Name: "no gas at all", Guest: "true.c", Limits: crowd.Limits{Gas: 1}, Status: crowd.OutOfGas},
		{Name: "memory bomb", Guest: "hostile.c", Args: []string{"memory"}, Status: crowd.Exited, Exit: 3,
			Files: map[string]string{"stdout": "begin memory\n63 MiB, then no more\n"}},
		{Name: "too little memory to begin", Guest: "true.c", Limits: crowd.Limits{Memory: 100}, Status: crowd.Trapped},
		{Name: "output flood", Guest: "hostile.c", Args: []string{"flood"}, Limits: crowd.Limits{Output: 1234}, Status: crowd.OutputFull,
			Files: map[string]string{"stdout": "begin flood\n" + repeat("x", 1222)}},
		{Name: "no output allowed", Guest: "hostile.c", Args: []string{"flood"}, Limits: crowd.Limits{Output: 1}, Status: crowd.OutputFull,
			Files: map[string]string{"stdout": "b"}},
		{Name: "overwriting counts", Guest: "hostile.c", Args: []string{"flood-file"}, Limits: crowd.Limits{Output: 100_517}, Status: crowd.OutputFull,
			Files: map[string]string{"stdout": "begin flood-file\n", "out/flood": repeat("y", 1000)}},
		{Name: "a hole counts", Guest: "hostile.c", Args: []string{"hole"}, Status: crowd.OutputFull,
			Files: map[string]string{"out/hole": "before"}},
		{Name: "tmp is bounded", Guest: "hostile.c", Args: []string{"tmp"}, Status: crowd.Exited, Exit: 4,
			Files: map[string]string{"stdout": "begin tmp\n1024 blocks\n"}},
		{Name: "names are bounded", Slow: true, Guest: "hostile.c", Args: []string{"names"}, Status: crowd.Exited, Exit: 5},
	}
}

func repeat(s string, n int) string {
	b := make([]byte, 0, n*len(s))
	for range n {
		b = append(b, s...)
	}
	return string(b)
}
