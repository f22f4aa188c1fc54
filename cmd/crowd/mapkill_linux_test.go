package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/rpc"
)

// realNet is a network of real processes: crowd up, and providers of their own beside it.
type realNet struct {
	t         testing.TB
	home      string
	providers []*exec.Cmd
}

// process starts this test's binary as crowd.
func (n *realNet) process(args ...string) *exec.Cmd {
	n.t.Helper()
	self, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	log, err := os.CreateTemp(n.home, "log-")
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	c := exec.Command(self)
	c.Args = append([]string{"crowd"}, args...)
	c.Env = append(os.Environ(), "PARTS=1", "HOME="+n.home, "XDG_DATA_HOME=", "CROWD_NODE=")
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if n.t.Failed() {
			raw, _ := os.ReadFile(log.Name())
			n.t.Logf("%v: %.2000s", args, raw)
		}
	})
	return c
}

// crowd is a command in this process.
func (n *realNet) crowd(talk io.Writer, args ...string) (int, string) {
	return n.crowdUntil(n.t.Context(), talk, args...)
}

func (n *realNet) crowdUntil(ctx context.Context, talk io.Writer, args ...string) (int, string) {
	var out bytes.Buffer
	e := env{args: args, stdout: &out, stderr: talk, getenv: func(name string) string { return map[string]string{"HOME": n.home}[name] }}.withParts()
	return run(ctx, e), out.String()
}

// until asks until f is content.
func (n *realNet) until(what string, f func(said string) bool, args ...string) string {
	n.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		code, said := n.crowd(io.Discard, args...)
		if code == exitDone && f(said) {
			return said
		}
		if time.Now().After(end) {
			n.t.Fatalf("%s: code %d: %s", what, code, said)
		}
	}
}

func (n *realNet) provider(i int) *exec.Cmd {
	return n.process("node", "run", "--network", filepath.Join(n.home, "net", "network.json"), "--dir", filepath.Join(n.home, fmt.Sprint("p", i)), "--listen", "127.0.0.1:0", "--no-mdns", "--provide")
}

func startRealNet(t testing.TB, own int) *realNet {
	home, err := os.MkdirTemp("", "crowd") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	n := &realNet{t: t, home: home}
	n.process("up", "--dir", filepath.Join(home, "net"), "--providers", "2")
	net := []string{"--node", filepath.Join(home, "net")}
	n.until("the network is not up", func(string) bool { return true }, append(net, "info")...)
	for i := range own {
		n.providers = append(n.providers, n.provider(i))
	}
	for i := range own {
		var s rpc.Status
		n.until("a provider is not up", func(said string) bool { return json.Unmarshal([]byte(said), &s) == nil }, "--node", filepath.Join(home, fmt.Sprint("p", i)), "node", "info", "--json")
		n.until("no credits can be sent", func(string) bool { return true }, append(net, "send", s.Address.String(), "120")...)
	}
	n.until("the providers are not there", func(said string) bool {
		var all []rpc.Provider
		return json.Unmarshal([]byte(said), &all) == nil && len(all) == 2+own
	}, append(net, "provider", "list", "--json")...)
	return n
}

// guests builds programs for the sandbox: the samples in Go, or small ones in C.
func guests(t testing.TB, dir string, small bool) {
	t.Helper()
	for p, source := range map[string]string{"count": "../../internal/node/testdata/words.c", "sum": "../../internal/node/testdata/total.c", "grep": "testdata/funcs.c"} {
		c := exec.Command("clang-14", "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-o", filepath.Join(dir, p+".wasm"), source)
		if !small {
			c = exec.Command("go", "build", "-o", filepath.Join(dir, p+".wasm"), "../../programs/"+p)
			c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		}
		if said, err := c.CombinedOutput(); err != nil {
			t.Skipf("the guest cannot be built here: %v: %s", err, said)
		}
	}
}

// sources writes real text of about that size, in ASCII: the sources of Go.
func sources(t testing.TB, path string, size int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, n := bufio.NewWriter(f), 0
	for n < size {
		before := n
		err := filepath.WalkDir(filepath.Join(strings.TrimSpace(shell(t, "go env GOROOT")), "src"), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(p) != ".go" {
				return err
			}
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			column := 0 // words and lines stay short enough for small guests
			raw = append(bytes.Map(func(r rune) rune {
				if column++; r <= ' ' || r > '~' {
					column = 0
				}
				switch {
				case column > 200:
					column = 0
					return '\n'
				case r == '\n' || r == '\t' || r >= ' ' && r <= '~':
					return r
				}
				return -1
			}, bytes.ReplaceAll(raw, []byte("poison"), []byte("bitter"))), '\n') // a word that the small guest refuses
			w.Write(raw)
			if n += len(raw); n >= size {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil || n == before {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// shell is what coreutils say.
func shell(t testing.TB, script string, args ...string) string {
	t.Helper()
	c := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
	c.Env = append(os.Environ(), "LC_ALL=C")
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return string(out)
}

// Real processes, real text, and providers that are killed in the middle, of which some come back: what a flow of three
// stages over it gives is what sort, uniq, wc and grep give on this machine.
func TestMap_ProvidersKilledInTheMiddle(t *testing.T) {
	night := os.Getenv("CROWD_NIGHT") != ""
	size, gas, more, timeout, by := 2<<20, "20M", "200M", "40s", "lines"
	if night {
		size, gas, more, timeout, by = 200<<20, "800M", "1500M", "120s", "lines=2000" // of 64 items: 51 Ggas
	}
	n := startRealNet(t, 5)
	guests(t, n.home, !night)
	text, job, out := filepath.Join(n.home, "text"), filepath.Join(n.home, "job.yaml"), filepath.Join(n.home, "out")
	sources(t, text, size)
	if err := os.WriteFile(job, fmt.Appendf(nil, `out: out/
gas: %s
timeout: %s
confidence: 0.9
stages:
- {name: count, program: count.wasm, inputs: text, by: %s, shard: 64}
- {name: sum, program: sum.wasm, from: count, partitions: 8, gas: %s}
- {name: funcs, program: grep.wasm, args: ['^func [A-Z]'], inputs: text, by: %s, shard: 64}
`, gas, timeout, by, more, by), 0o644); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	killed := 0
	watched := make(chan string, 1) // capacity: all that was said, at the end
	go func() {
		var said strings.Builder
		done := 0
		for lines := bufio.NewScanner(r); lines.Scan(); {
			fmt.Fprintln(&said, lines.Text())
			if strings.Contains(lines.Text(), ": shard ") && strings.Contains(lines.Text(), " items, ") {
				switch done++; done {
				case 1:
					for _, p := range n.providers[:3] {
						if p.Process.Kill() == nil {
							killed++
						}
						p.Wait()
					}
				case 3:
					n.providers[0], n.providers[1] = n.provider(0), n.provider(1)
				}
			}
		}
		watched <- said.String()
	}()
	ctx := t.Context()
	if end, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-10*time.Second)) // so that the processes are ended in order
		defer cancel()
	}
	code, js := n.crowdUntil(ctx, w, "--node", filepath.Join(n.home, "net"), "map", job, "--json", "--patience", "3m")
	w.Close()
	said := <-watched
	if code != exitDone || killed != 3 {
		t.Fatalf("got code %d, %d killed: %s", code, killed, said)
	}
	var sum mapSummary
	if err := json.Unmarshal([]byte(js), &sum); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d items in %d shards, %d lost, copies %+v, %d conflicts, moved %s, the node fetched %s and served %s, shuffled %s, %d ms", sum.Items, sum.Shards, sum.Lost, sum.Copies, sum.Conflicts,
		sizeText(int64(sum.Moved)), sizeText(int64(sum.Fetched)), sizeText(int64(sum.Served)), sizeText(int64(sum.Shuffled)), sum.WallMillis)
	raw, err := os.ReadFile(filepath.Join(out, "sum"))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.SplitAfter(string(raw), "\n")
	slices.Sort(got)
	want := shell(t, `tr -s ' \t\n' '\n\n\n' < "$1" | sed '/^$/d' | sort | uniq -c | awk '{print $2 "\t" $1}' | sort`, text)
	if wanted := strings.SplitAfter(want, "\n"); !slices.Equal(got, sorted(wanted)) {
		t.Errorf("the words: got %d lines want %d", len(got), len(wanted))
	}
	words := 0
	for _, line := range got {
		n := 0
		fmt.Sscan(line[strings.IndexByte(line, '\t')+1:], &n)
		words += n
	}
	if want := shell(t, `wc -w < "$1"`, text); strings.TrimSpace(want) != fmt.Sprint(words) {
		t.Errorf("got %d words want %s", words, want)
	}
	if raw, err = os.ReadFile(filepath.Join(out, "funcs")); err != nil || string(raw) != shell(t, `grep -E '^func [A-Z]' "$1"`, text) {
		t.Errorf("grep: got %d bytes, %v", len(raw), err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
	}{
		{"all receipts", []string{"verify", out + ".map"}, exitDone},
		{"an item that read parts", []string{"item", out + ".map", "--stage", "sum", "--item", "0"}, exitDone},
		{"an item of the first stage that no other reads", []string{"item", out + ".map", "--item", "0"}, exitDone},
		{"an item whose output stayed away", []string{"item", out + ".map", "--stage", "count", "--item", "0"}, exitFailed},
		{"an unknown stage", []string{"item", out + ".map", "--stage", "total", "--item", "0"}, exitFailed},
	} {
		var talk bytes.Buffer
		if code, said := n.crowd(&talk, append([]string{"receipt"}, c.args...)...); code != c.code {
			t.Errorf("%s: got code %d: %.300s %s", c.name, code, said, &talk)
		}
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
