package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/rpc/rpctest"
	"github.com/crowdcompute/crowd/internal/verify"
)

// cutText gives the items of one text.
func cutText(t testing.TB, by, text string) (items []string, names []string, err error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "t")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := parseCut(by)
	if err != nil {
		return nil, nil, err
	}
	files, err := findInputs([]string{path}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.index(files, filepath.Join(dir, "items"))
	if err != nil {
		return nil, nil, err
	}
	list, err := readItems(filepath.Join(dir, "items"), 0, all.Items)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := frames(&out, files, list); err != nil {
		t.Fatal(err)
	}
	f, err := batch.OpenFrames(bytes.NewReader(out.Bytes()), int64(out.Len()), uint32(all.Items))
	if err != nil {
		t.Fatal(err)
	}
	sum := uint64(0)
	for i := range uint32(all.Items) {
		b, err := f.Read(i)
		if err != nil {
			t.Fatal(err)
		}
		sum += uint64(len(b))
		if uint32(len(b)) > all.Largest {
			t.Errorf("item %d is larger than the largest", i)
		}
		items, names = append(items, string(b)), append(names, strings.TrimPrefix(c.name(files, list[i]), path))
	}
	if sum != all.Bytes {
		t.Errorf("got %d bytes want %d", sum, all.Bytes)
	}
	return items, names, nil
}

func TestCut(t *testing.T) {
	long := strings.Repeat("x", maxItem+1)
	nearly := strings.Repeat("x", lineGroup-3) + "\n"
	for _, c := range []struct {
		name, by, text string
		want, names    []string
		err            string
	}{
		{"a file", "files", "a\nb", []string{"a\nb"}, []string{""}, ""},
		{"an empty file", "files", "", []string{""}, []string{""}, ""},
		{"a large file", "files", long, nil, nil, "an item of a batch has at most 1048576"},
		{"lines", "lines", "a\n\nb", []string{"a\n\nb"}, []string{":1-3"}, ""},
		{"groups of lines", "lines", nearly + "b\n" + nearly, []string{nearly + "b\n", nearly}, []string{":1-2", ":3"}, ""},
		{"each line", "lines=1", "a\n\nb", []string{"a\n", "\n", "b"}, []string{":1", ":2", ":3"}, ""},
		{"pairs of lines", "lines=2", "a\nb\nc\n", []string{"a\nb\n", "c\n"}, []string{":1-2", ":3"}, ""},
		{"no lines", "lines", "", nil, nil, "nothing to work on"},
		{"a long line", "lines", "a\n" + long, nil, nil, ":2 has more than"},
		{"many lines of an item", "lines=20", strings.Repeat(strings.Repeat("x", 99_999)+"\n", 20), nil, nil, "has more than 1048576 bytes"},
		{"bytes", "bytes=2", "abcde", []string{"ab", "cd", "e"}, []string{":1", ":2", ":3"}, ""},
		{"records", `records=\n\n`, "a\nb\n\nc\n\n\n\nd\n", []string{"a\nb", "c", "", "d\n"}, []string{":1", ":2", ":3", ":4"}, ""},
		{"records with a quote", `records="`, `a"b`, []string{"a", "b"}, []string{":1", ":2"}, ""},
		{"a long record", "records=;", "a;" + long + ";", nil, nil, ":2 has more than"},
		{"no way", "words", "", nil, nil, "known: files, lines"},
		{"no number", "lines=0", "", nil, nil, "how many lines"},
		{"no separator", "records=", "", nil, nil, "what separates"},
		{"an argument too much", "files=1", "", nil, nil, "unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, names, err := cutText(t, c.by, c.text)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v want an error with %q", err, c.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, c.want) || !slices.Equal(names, c.names) {
				t.Errorf("got %.80q %q %v want %.80q %q", got, names, err, c.want, c.names)
			}
		})
	}
}

// FuzzCut: whatever the text, the items put together are the text again, but for the separators.
func FuzzCut(f *testing.F) {
	f.Add("a\nb\n\nc", uint16(2))
	f.Add(strings.Repeat("line\n", 9000), uint16(7))
	f.Fuzz(func(t *testing.T, text string, n uint16) {
		for _, by := range []string{"files", "lines", fmt.Sprintf("lines=%d", max(n, 1)), fmt.Sprintf("bytes=%d", max(n, 1)), "records=ab"} {
			got, _, err := cutText(t, by, text)
			if err != nil {
				if text != "" {
					t.Fatalf("%s: %v", by, err)
				}
				continue
			}
			sep, want := "", text
			if by == "records=ab" {
				sep, want = "ab", strings.TrimSuffix(text, "ab")
			}
			if all := strings.Join(got, sep); all != want {
				t.Fatalf("%s: got %q want %q", by, all, want)
			}
		}
	})
}

// Two hundred megabytes of lines are cut and framed without holding them.
func TestCut_LargeInputInBoundedMemory(t *testing.T) {
	size := 20 << 20
	if os.Getenv("CROWD_NIGHT") != "" {
		size = 200 << 20
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "large")
	line := []byte("the quick brown fox jumps over the lazy dog, again\n")
	if err := os.WriteFile(path, bytes.Repeat(line, size/len(line)), 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := findInputs([]string{path}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	c, index := cut{by: "lines", n: 10}, filepath.Join(dir, "items")
	var all indexed
	memory := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if all, err = c.index(files, index); err != nil {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if want := uint64((size/len(line) + 9) / 10); all.Items != want || memory > 4<<20 {
		t.Errorf("got %d items and %d bytes of memory want %d and at most 4 MiB", all.Items, memory, want)
	}
	items, err := readItems(index, 1000, 20_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := frames(io.Discard, files, items); err != nil {
		t.Error(err)
	}
	if err := os.Chtimes(path, time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := frames(io.Discard, files, items[:1]); err != nil {
		t.Errorf("an input that was touched: got %v", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("#"), 5); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := frames(io.Discard, files, items[:1]); err == nil || !strings.Contains(err.Error(), "has changed since") {
		t.Errorf("an input that changed: got %v", err)
	}
}

// A command that was killed between its question and the answer finds its job again.
func TestMap_FindsTheJobItDidNotHearOf(t *testing.T) {
	dir, err := os.MkdirTemp("", "crowd") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	n, err := serve(filepath.Join(dir, "node"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	prog, in, out := write("cat.wasm", "cat"), write("in.txt", "one\ntwo\nthree\n"), filepath.Join(dir, "out")
	crowd := func(args ...string) int {
		var errs bytes.Buffer
		code := run(t.Context(), env{args: append(args, "--node", filepath.Join(dir, "node")), stdout: io.Discard, stderr: &errs, getenv: func(string) string { return "" }})
		if code != exitDone {
			t.Log(errs.String())
		}
		return code
	}
	posted := func() int {
		jobs, err := n.backend.Jobs(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		return len(jobs)
	}
	if crowd("map", prog, in, "--by", "lines=1", "--gas", "1M", "--out", out) != exitDone || posted() != 1 {
		t.Fatal("the first map")
	}
	forget := func(change func(*shard)) { // that the answer came
		d, err := openMapDir(out + ".map")
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
		if err := errors.Join(d.change(func(s *mapState) {
			s.Began = s.Began.AddDate(-10, 0, 0)
			f := &s.Flow.Stages[0].Shards[0]
			f.Use, f.Done, f.Tries, f.Attempts = 0, false, 1, []flow.Attempt{{Try: 1, State: flow.Posting}}
			s.Stages[0].Shards[0].Jobs = nil
			change(s.Stages[0].Shards[0])
		}), os.Remove(out)); err != nil {
			t.Fatal(err)
		}
	}
	forget(func(*shard) {})
	if crowd("map", "--resume", out+".map") != exitDone || posted() != 1 {
		t.Errorf("%d jobs were posted, want the first to be found", posted())
	}
	if got, err := os.ReadFile(out); string(got) != "one\ntwo\nthree\n" {
		t.Errorf("got %q %v", got, err)
	}
	forget(func(sh *shard) { sh.Plan.Checks = 1 }) // another job: not taken for this one
	if crowd("map", "--resume", out+".map") != exitDone || posted() != 2 {
		t.Errorf("%d jobs were posted, want another one", posted())
	}
}

// A shard that is late gets a copy. The first result is used; when the late one comes too they are compared, and a lie
// that its own job's check did not find is named, loudly, and not used.
func TestMap_CopiesAreCompared(t *testing.T) {
	for _, c := range []struct {
		program   string
		compare   string
		equal     int
		conflicts int
		said      string
	}{
		{"straggler", "exact", 1, 0, "a second job came to the same result"},
		{"faker", "exact", 0, 1, "WARNING: shard 1 of 1: the result of job "},
		{"straggler", "lines", 0, 0, "WARNING"}, // two right results may differ: nothing is said
	} {
		t.Run(c.program+" "+c.compare, func(t *testing.T) {
			t.Parallel()
			var talk bytes.Buffer
			m, n := begun(t, c.program, c.compare, &talk, flow.Config{Parallel: 2, SlowLeast: time.Millisecond, Slow: 1})
			d := m.d
			if err := m.drive(t.Context()); err != nil {
				t.Fatal(err)
			}
			to, err := openOutput(d.state.Out, nil)
			if err != nil {
				t.Fatal(err)
			}
			sum, err := m.deliver(to)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(d.state.Out); string(got) != "one\ntwo\n" {
				t.Errorf("got %q %v", got, err)
			}
			if sum.Copies.Posted != 1 || sum.Copies.Equal != c.equal || sum.Conflicts != c.conflicts || (c.conflicts > 0) != strings.Contains(talk.String(), c.said) {
				t.Errorf("got %+v, %d conflicts: %s", sum.Copies, sum.Conflicts, talk.String())
			}
			jobs, err := n.backend.Jobs(t.Context(), 100)
			if err != nil || len(jobs) != 2+c.conflicts {
				t.Fatalf("got %d jobs, %v", len(jobs), err)
			}
			for _, j := range jobs[:len(jobs)-1] { // but for the first one
				v, err := n.backend.Job(t.Context(), j.ID)
				if list := v.Request.Filters.Providers; err != nil || len(list) != 4 || slices.Contains(list, rpctest.Node(1)) || slices.Contains(list, rpctest.Node(2)) {
					t.Errorf("another job of the shard may go to its executors: %d providers, %v", len(list), err)
				}
			}
		})
	}
}

// begun is a map of a file with two lines, of a program that rpctest knows, on a node of its own.
func begun(t *testing.T, program, compare string, talk io.Writer, cfg flow.Config) (*mapping, *testNetwork) {
	t.Helper()
	dir, err := os.MkdirTemp("", "crowd") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n, err := serve(filepath.Join(dir, "node"), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	n.backend.Crowd(4) // to make copies
	prog, in := filepath.Join(dir, "p.wasm"), filepath.Join(dir, "in.txt")
	if err := errors.Join(os.WriteFile(prog, []byte(program), 0o644), os.WriteFile(in, []byte("one\ntwo\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	a := &app{env: env{stdout: io.Discard, stderr: talk, getenv: func(string) string { return "" }}, node: filepath.Join(dir, "node")}
	f := mapFlags{batchFlags: batchFlags{by: "lines=1", gas: "1M", memory: "1MiB", maxOutput: "1KiB", compare: compare, confidence: 0.99}, out: filepath.Join(dir, "out")}
	w, err := f.wish("map", []string{prog, in})
	if err != nil {
		t.Fatal(err)
	}
	d, err := a.newMap(t.Context(), w, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.close() })
	client, err := a.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	d.state.Stages[0].ShardSize = 100
	return &mapping{app: a, c: client, d: d, show: a.newProgress(true), flow: cfg}, n
}

// Nodes that do not answer are not waited for until their shard is late, unless that is not wanted.
func TestMap_ASilentJobGetsACopy(t *testing.T) {
	for _, never := range []bool{false, true} {
		m, _ := begun(t, "straggler", "exact", io.Discard, flow.Config{Parallel: 2, SlowLeast: time.Hour, NoSpeculation: never})
		m.pulse = 10 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), map[bool]time.Duration{false: time.Minute, true: 300 * time.Millisecond}[never])
		defer cancel()
		if err := m.drive(ctx); (err != nil) != never {
			t.Errorf("no speculation %v: got %v", never, err)
		}
		if got, want := m.d.state.Flow.Copies, map[bool]int{false: 1}[never]; got != want {
			t.Errorf("no speculation %v: got %d copies want %d", never, got, want)
		}
	}
}

// A command that is killed whenever its state is on disk, before or after it did what follows from it, goes on with what
// it has: no job is posted that the state does not know, and the result is whole.
func TestMap_KilledAtEveryStage(t *testing.T) {
	errKilled := errors.New("killed")
	for k := 1; ; k++ {
		dir, err := os.MkdirTemp("", "crowd") // short: it holds a socket
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		n, err := serve(filepath.Join(dir, "node"), "")
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		prog, in := filepath.Join(dir, "p.wasm"), filepath.Join(dir, "in.txt")
		if err := errors.Join(os.WriteFile(prog, []byte("cat"), 0o644), os.WriteFile(in, []byte("b\t1\na\t2\nc\t3\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
		a := &app{env: env{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}, node: filepath.Join(dir, "node")}
		f := mapFlags{batchFlags: batchFlags{by: "lines=1", gas: "1M", memory: "1MiB", maxOutput: "1KiB", confidence: 0.99, shard: 2}, out: filepath.Join(dir, "out"), reduce: prog, partitions: 2}
		w, err := f.wish("map", []string{prog, in})
		if err != nil {
			t.Fatal(err)
		}
		d, err := a.newMap(t.Context(), w, "")
		if err != nil {
			t.Fatal(err)
		}
		client, err := a.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		d.state.Began = d.state.Began.AddDate(-10, 0, 0) // the jobs there are of long ago
		writes := 0
		d.wrote = func() error {
			if writes++; writes == k {
				return errKilled
			}
			return nil
		}
		m := &mapping{app: a, c: client, d: d, show: a.newProgress(true), again: 200 * time.Millisecond, flow: flow.Config{Parallel: 2}}
		err = m.drive(t.Context())
		d.close()
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatalf("killed at %d: %v", k, err)
		}
		whole := err == nil
		if d, err = openMapDir(d.dir); err != nil {
			t.Fatal(err)
		}
		m = &mapping{app: a, c: client, d: d, show: a.newProgress(true), again: 200 * time.Millisecond, flow: flow.Config{Parallel: 2}}
		if err := m.drive(t.Context()); err != nil {
			t.Fatalf("killed at %d: %v", k, err)
		}
		to, err := openOutput(d.state.Out, nil)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := m.deliver(to)
		if err != nil {
			t.Fatal(err)
		}
		d.close()
		got, err := os.ReadFile(d.state.Out)
		lines := strings.SplitAfter(strings.TrimSpace(string(got))+"\n", "\n")
		slices.Sort(lines)
		if strings.Join(lines, "") != "a\t2\nb\t1\nc\t3\n" {
			t.Errorf("killed at %d: got %q %v", k, got, err)
		}
		if jobs, err := n.backend.Jobs(t.Context(), 100); err != nil || len(jobs) != len(sum.Jobs) {
			t.Errorf("killed at %d: %d jobs were posted for %d shards, %v", k, len(jobs), len(sum.Jobs), err)
		}
		if whole { // it was never killed
			if k < 15 {
				t.Errorf("the state was written only %d times", k)
			}
			return
		}
	}
}

// When nobody holds the parts of a map shard any more it is computed again, and the reduce job gets a manifest of the new ones.
func TestMap_LostParts(t *testing.T) {
	dir, err := os.MkdirTemp("", "crowd") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	n, err := serve(filepath.Join(dir, "node"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	vanish, cat, in := filepath.Join(dir, "vanish.wasm"), filepath.Join(dir, "cat.wasm"), filepath.Join(dir, "in.txt")
	if err := errors.Join(os.WriteFile(vanish, []byte("vanish"), 0o644), os.WriteFile(cat, []byte("cat"), 0o644), os.WriteFile(in, []byte("b\t1\na\t2\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	var talk bytes.Buffer
	a := &app{env: env{stdout: io.Discard, stderr: &talk, getenv: func(string) string { return "" }}, node: filepath.Join(dir, "node")}
	f := mapFlags{batchFlags: batchFlags{by: "files", gas: "1M", memory: "1MiB", maxOutput: "1KiB", compare: "exact", confidence: 0.99}, out: filepath.Join(dir, "out"), reduce: cat}
	w, err := f.wish("map", []string{vanish, in})
	if err != nil {
		t.Fatal(err)
	}
	d, err := a.newMap(t.Context(), w, "")
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	c, err := a.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := &mapping{app: a, c: c, d: d, show: a.newProgress(false), flow: flow.Config{Parallel: 2, Pause: time.Millisecond, Return: 10 * time.Millisecond}}
	if err := m.drive(t.Context()); err != nil {
		t.Fatal(err)
	}
	to, err := openOutput(d.state.Out, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := m.deliver(to)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(d.state.Out)
	jobs, _ := n.backend.Jobs(t.Context(), 100)
	if string(got) != "a\t2\nb\t1\n" || len(jobs) < 4 || sum.Copies.Equal != 1 || !strings.Contains(talk.String(), "nobody holds its parts any more; it is computed again") {
		t.Errorf("got %q, %v, %d jobs, %+v: %s", got, err, len(jobs), sum.Copies, &talk)
	}
}

// A last shard of fewer items has checks enough for what was shown, whatever a tenth of its items is rounded to.
func TestFewer_IsAsSure(t *testing.T) {
	for items := uint32(2); items <= 200; items++ {
		for checks := uint32(1); checks <= items; checks = checks*2 + 1 {
			p := &rpc.BatchPlan{SamplePlan: rpc.SamplePlan{Verifiers: 2, Checks: checks}, Undetected: verify.SampleUndetected(items, &crowd.Plan{Verifiers: 2, Checks: checks}).Float()}
			allowed, err := verify.Allowed(confidence(p))
			if err != nil {
				continue // no confidence at all
			}
			for n := uint32(1); n < items; n++ {
				plan, err := fewer(p, n)
				if u := verify.SampleUndetected(n, &crowd.Plan{Verifiers: plan.Verifiers, Checks: plan.Checks}); err != nil || plan.Checks > n || plan.Checks < n && u > allowed {
					t.Fatalf("%d of %d items, %d checks: got %+v, undetected %s, %v", n, items, checks, plan, u, err)
				}
			}
		}
	}
}
