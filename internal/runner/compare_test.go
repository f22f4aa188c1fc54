package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/semaphore"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/verify"
)

// asked is an executor that runs comparators only: given /in/a and /in/b it says how they end.
type asked func(a, b string) (crowd.Status, uint32)

var errWorker = executor.Faultf(executor.Crashed, "on purpose")

func (f asked) Run(_ context.Context, s executor.Spec, _ executor.IO) (executor.Result, error) {
	a, err := os.ReadFile(filepath.Join(s.Inputs, "a"))
	if err != nil {
		return executor.Result{}, err
	}
	b, err := os.ReadFile(filepath.Join(s.Inputs, "b"))
	if err != nil {
		return executor.Result{}, err
	}
	status, code := f(string(a), string(b))
	if status == 0 {
		return executor.Result{}, errWorker
	}
	return executor.Result{Status: status, ExitCode: code, Gas: min(5, s.Limits.Gas)}, nil
}

// comparing is a runner with a store and nothing else.
func comparing(t *testing.T, e executor.Executor) (*Runner, *node) {
	n := &node{dir: t.TempDir()}
	r := &Runner{cfg: Config{Dir: t.TempDir(), Blocks: n, Executor: e}.withDefaults(), runs: semaphore.NewWeighted(1), samples: semaphore.NewWeighted(1), memory: semaphore.NewWeighted(1 << 40), spare: semaphore.NewWeighted(1 << 40)}
	for _, d := range []string{filepath.Join(n.dir, "blocks"), r.scratchDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return r, n
}

// folder stores files; a name that ends in a slash is a folder.
func (n *node) folder(t *testing.T, files map[string]string) crowd.CID {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil && strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o700)
		} else if err == nil {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := n.add(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func how(t *testing.T, text string) crowd.Compare {
	t.Helper()
	c, err := crowd.ParseCompare(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCompare_ResultsOfOneTask(t *testing.T) {
	type files = map[string]string
	many := files{"stdout": "a"}
	for i := range maxCompareFiles {
		many[fmt.Sprintf("out/%d", i)] = ""
	}
	for _, tt := range []struct {
		name       string
		how        string
		own, their files
		want       ledger.Finding
	}{
		{"the same", "lines", files{"stdout": "a\nb\n"}, files{"stdout": "a\nb\n"}, ledger.Same},
		{"another order", "lines", files{"stdout": "a\nb\n", "out/": ""}, files{"stdout": "b\na\n", "out/": ""}, ledger.Same},
		{"another line", "lines", files{"stdout": "a\nb\n"}, files{"stdout": "b\nc\n"}, ledger.Other},
		{"talk differs", "lines", files{"stdout": "a\n", "stderr": "took 5 ms"}, files{"stdout": "a\n", "stderr": "took 6 ms"}, ledger.Same},
		{"a file in another order", "lines", files{"stdout": "", "out/x/y": "a\nb\n"}, files{"stdout": "", "out/x/y": "b\na\n"}, ledger.Same},
		{"a file that differs", "lines", files{"stdout": "", "out/x": "a\nb\n"}, files{"stdout": "", "out/x": "b\nb\n"}, ledger.Other},
		{"a file more", "lines", files{"stdout": ""}, files{"stdout": "", "out/x": ""}, ledger.Other},
		{"a file less", "lines", files{"stdout": "", "out/x": "", "out/y": ""}, files{"stdout": "", "out/x": ""}, ledger.Other},
		{"another name", "lines", files{"stdout": "", "out/x": ""}, files{"stdout": "", "out/y": ""}, ledger.Other},
		{"a folder for a file", "lines", files{"stdout": "", "out/x": ""}, files{"stdout": "", "out/x/": ""}, ledger.Other},
		{"no standard output", "lines", files{"stdout": "a", "out/": ""}, files{"out/": ""}, ledger.Other},
		{"numbers within", "numeric:rel=1e-6", files{"stdout": "pi 3.14159265"}, files{"stdout": "pi 3.14159266"}, ledger.Same},
		{"numbers beyond", "numeric:rel=1e-6", files{"stdout": "pi 3.14159265"}, files{"stdout": "pi 3.1416"}, ledger.Other},
		{"theirs are too many files", "lines", files{"stdout": "a"}, many, ledger.Other},
		{"own are too many files", "lines", many, files{"stdout": "a"}, ledger.Unjudged},
		{"own is too large", "json", files{"stdout": strings.Repeat(" ", verify.MaxJSON+1)}, files{"stdout": "1"}, ledger.Unjudged},
		{"theirs is too large", "json", files{"stdout": "1"}, files{"stdout": strings.Repeat(" ", verify.MaxJSON+1)}, ledger.Other},
	} {
		r, n := comparing(t, nil)
		e := job.Compare{How: how(t, tt.how), Pairs: []job.Pair{{Own: job.Output{CID: n.folder(t, tt.own)}, Their: job.Output{CID: n.folder(t, tt.their)}}}}
		got, err := r.compare(t.Context(), e)
		if err != nil || len(got) != 1 || got[0] != tt.want {
			t.Errorf("%s: got %v, %v", tt.name, got, err)
		}
		if left, _ := os.ReadDir(r.scratchDir()); len(left) > 0 {
			t.Errorf("%s: left %v", tt.name, left)
		}
	}
	r, n := comparing(t, nil)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	noFolder, err := n.add(file)
	if err != nil {
		t.Fatal(err)
	}
	own := job.Output{CID: n.folder(t, files{"stdout": "a"})}
	if got, err := r.compare(t.Context(), job.Compare{How: how(t, "lines"), Pairs: []job.Pair{{Own: own, Their: job.Output{CID: noFolder}}}}); err != nil || got[0] != ledger.Other {
		t.Errorf("a file for a folder: got %v, %v", got, err)
	}
	if got, err := r.compare(t.Context(), job.Compare{How: how(t, "lines"), Pairs: []job.Pair{{Own: own, Their: job.Output{CID: "nothing"}}}}); err == nil {
		t.Errorf("what is not here: got %v", got)
	}
}

func TestCompare_ByAProgram(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  asked
		want ledger.Finding
		err  error
	}{
		{"the same", func(a, b string) (crowd.Status, uint32) { return crowd.Exited, 0 }, ledger.Same, nil},
		{"not the same", func(a, b string) (crowd.Status, uint32) {
			return crowd.Exited, map[bool]uint32{true: 0, false: 1}[a == b]
		}, ledger.Other, nil},
		{"loops", func(a, b string) (crowd.Status, uint32) { return crowd.OutOfGas, 0 }, ledger.Unjudged, nil},
		{"traps", func(a, b string) (crowd.Status, uint32) { return crowd.Trapped, 0 }, ledger.Unjudged, nil},
		{"is no program", func(a, b string) (crowd.Status, uint32) { return crowd.Invalid, 0 }, ledger.Unjudged, nil},
		{"says neither", func(a, b string) (crowd.Status, uint32) { return crowd.Exited, 2 }, ledger.Unjudged, nil},
		{"says no to all", func(a, b string) (crowd.Status, uint32) { return crowd.Exited, 1 }, ledger.Unjudged, nil},
		{"traps at theirs", func(a, b string) (crowd.Status, uint32) {
			return map[bool]crowd.Status{true: crowd.Exited, false: crowd.Trapped}[a == "own" && b == "own"], 0
		}, ledger.Other, nil},
		{"the worker dies", func(a, b string) (crowd.Status, uint32) { return 0, 0 }, 0, errWorker},
	} {
		r, n := comparing(t, tt.run)
		file := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(file, []byte("program"), 0o600); err != nil {
			t.Fatal(err)
		}
		program, err := n.add(file)
		if err != nil {
			t.Fatal(err)
		}
		own, their := n.folder(t, map[string]string{"stdout": "own"}), n.folder(t, map[string]string{"stdout": "their"})
		got, err := r.compare(t.Context(), job.Compare{How: how(t, "wasm:"+string(program)+",gas=100"), Pairs: []job.Pair{{Own: job.Output{CID: own}, Their: job.Output{CID: their}}}})
		if tt.err != nil {
			if !errors.Is(err, tt.err) {
				t.Errorf("%s: got %v, %v", tt.name, got, err)
			}
			continue
		}
		if err != nil || got[0] != tt.want {
			t.Errorf("%s: got %v, %v", tt.name, got, err)
		}
	}
}

// sampled stores a folder like a batch's result with these outputs, and what its leaves hash to.
func (n *node) sampled(t *testing.T, change func(files map[string]string), outs ...string) (crowd.CID, []crowd.Hash) {
	t.Helper()
	write := func(texts []string) string {
		var b bytes.Buffer
		if err := batch.WriteFrames(&b, uint32(len(texts)), func(i uint32) uint64 { return uint64(len(texts[i])) },
			func(i uint32, w io.Writer) error { _, err := io.WriteString(w, texts[i]); return err }); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	var leaves []byte
	var hashes []crowd.Hash
	for _, o := range outs {
		l := batch.Leaf{Status: crowd.Exited, Gas: 100, Output: batch.Digest([]byte(o), nil)}
		leaves, hashes = l.Append(leaves), append(hashes, l.Hash())
	}
	files := map[string]string{leavesFile: string(leaves), stdoutFile: write(outs), stderrFile: write(make([]string, len(outs)))}
	if change != nil {
		change(files)
	}
	return n.folder(t, files), hashes
}

// What lies there must be what was bound to: the leaf by its hash, the output by the leaf.
func TestCompare_ItemsOfABatch(t *testing.T) {
	r, n := comparing(t, nil)
	own, owns := n.sampled(t, nil, "a\nb\n")
	at := func(cid crowd.CID, leaves []crowd.Hash, i, of uint32) job.Output {
		return job.Output{CID: cid, Of: of, Index: i, Leaf: leaves[i]}
	}
	good, goods := n.sampled(t, nil, "x\n", "b\na\n", "c\n")
	short, _ := n.sampled(t, func(f map[string]string) { f[leavesFile] = f[leavesFile][:50] }, "x\n", "b\na\n", "c\n")
	forged, forgeds := n.sampled(t, func(f map[string]string) {
		f[stdoutFile] = strings.Replace(f[stdoutFile], "b\na\n", "a\nb\n", 1)
	}, "x\n", "b\na\n", "c\n")
	frameless, _ := n.sampled(t, func(f map[string]string) { f[stdoutFile] = "no frames" }, "x\n", "b\na\n", "c\n")
	wrongLeaf := at(good, goods, 1, 3)
	wrongLeaf.Leaf = goods[0]
	for _, tt := range []struct {
		name  string
		their job.Output
		want  ledger.Finding
	}{
		{"another order", at(good, goods, 1, 3), ledger.Same},
		{"another answer", at(good, goods, 2, 3), ledger.Other},
		{"not what was bound to", wrongLeaf, ledger.Other},
		{"an output that is not the leaf's", at(forged, forgeds, 1, 3), ledger.Other},
		{"leaves that end", at(short, goods, 1, 3), ledger.Other},
		{"no frames", at(frameless, goods, 1, 3), ledger.Other},
		{"another number of items", at(good, goods, 1, 4), ledger.Other},
	} {
		got, err := r.compare(t.Context(), job.Compare{How: how(t, "lines"), Pairs: []job.Pair{{Own: at(own, owns, 0, 1), Their: tt.their}}})
		if err != nil || len(got) != 1 || got[0] != tt.want {
			t.Errorf("%s: got %v, %v", tt.name, got, err)
		}
	}
}
