package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/rpc/rpctest"
)

func TestMain(m *testing.M) {
	if command, err := workerCommand(); err == nil && slices.Equal(os.Args, command) { // of a script's real node
		os.Exit(wasmWorker())
	}
	testscript.Main(m, map[string]func(){"crowd": func() {
		e := process()
		switch {
		case os.Getenv("PARTS") != "":
			e = e.withParts()
		case os.Getenv("SEAMS") != "":
			e.startNetwork, e.joinNetwork = startTestNetwork, joinTestNetwork
			e.verifyReceipt, e.demo = verifyTestReceipt, testAssets
			e.wasmWorker = func() int { fmt.Println("working"); return 0 }
		}
		os.Exit(run(context.Background(), e))
	}})
}

// testNetwork is one RPC server before a backend of rpctest.
type testNetwork struct {
	server  *rpc.Server
	backend *rpctest.Backend
	stop    context.CancelFunc
	ended   chan error
}

func startTestNetwork(_ context.Context, cfg upConfig) (network, error) {
	if cfg.Cheat == "unknown" {
		return nil, rpc.Errorf(rpc.BadRequest, "strategy %q is not known", cfg.Cheat)
	}
	return serve(cfg.Dir, cfg.Addr)
}

func joinTestNetwork(_ context.Context, cfg joinConfig) (joined, error) {
	if len(cfg.Peers) > 0 {
		return nil, rpc.Errorf(rpc.Unavailable, "nobody answers at %s", cfg.Peers[0]).WithHint("is that node running?")
	}
	return serve(cfg.Dir, cfg.Addr)
}

func serve(dir, addr string) (*testNetwork, error) {
	b := rpctest.New()
	s, err := rpc.NewServer(rpc.Config{Dir: dir, Addr: addr}, b)
	if err != nil {
		return nil, err
	}
	if err := s.Listen(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &testNetwork{s, b, cancel, make(chan error, 1)}
	go func() { n.ended <- s.Run(ctx); close(n.ended) }()
	return n, nil
}

func (n *testNetwork) Endpoint() rpc.Endpoint { return n.server.Endpoint() }
func (n *testNetwork) Providers() int         { return 7 }
func (n *testNetwork) Ready() <-chan struct{} { c := make(chan struct{}); close(c); return c }
func (n *testNetwork) Wait() error            { return <-n.ended }
func (n *testNetwork) Close() error           { n.stop(); <-n.ended; return nil }

// verifyTestReceipt accepts what rpctest makes.
func verifyTestReceipt(receipt, genesis, _ []byte) ([]Check, error) {
	var r struct{ Job string }
	if err := json.Unmarshal(receipt, &r); err != nil {
		return nil, err
	}
	return []Check{{"spec", len(r.Job) == 64, "hashes to " + fmt.Sprintf("%.8s", r.Job)},
		{"chain", genesis == nil || string(genesis) == "genesis\n", "signed by 1 of 1 authorities"}}, nil
}

func testAssets() (demoAssets, error) {
	return demoAssets{Program: []byte("cheat"), Image: []byte("a picture"), Args: []string{"--radius", "8"},
		Native: func(image []byte, _ []string) ([]byte, error) { return image, nil }}, nil
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", UpdateScripts: os.Getenv("UPDATE_SPEC") != "",
		Setup: func(e *testscript.Env) error {
			dir := filepath.Join(e.WorkDir, "node")
			n, err := serve(dir, "")
			if err != nil {
				return err
			}
			e.Defer(func() { n.Close() })
			e.Values["net"] = n
			e.Setenv("CROWD_NODE", dir)
			e.Setenv("TZ", "UTC")
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("URL", n.Endpoint().URL)
			e.Setenv("TOKEN", n.Endpoint().Token)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"twins": func(ts *testscript.TestScript, _ bool, args []string) { net(ts).backend.Twins(args[0][0]) },
			// watched N: waits until N job streams have been opened in all.
			"watched": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[0])
				ts.Check(err)
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				ts.Check(net(ts).backend.AwaitWatchers(ctx, n))
			},
			// release ends the programs that are too late to cancel.
			"release": func(ts *testscript.TestScript, _ bool, _ []string) { net(ts).backend.Release() },
			// stop-node ends the script's node.
			"stop-node": func(ts *testscript.TestScript, _ bool, _ []string) { net(ts).Close() },
			// code N COMMAND…: wants that exit code.
			"code": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				got := 0
				if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
					got = exit.ExitCode()
				} else {
					ts.Check(err)
				}
				if strconv.Itoa(got) != args[0] {
					ts.Fatalf("%s: got exit code %d, want %s", strings.Join(args[1:], " "), got, args[0])
				}
			},
			// eventually COMMAND… [has TEXT]: runs it until it succeeds, and says that.
			"eventually": func(ts *testscript.TestScript, _ bool, args []string) {
				text := ""
				if n := len(args) - 2; n > 0 && args[n] == "has" {
					text, args = args[n+1], args[:n]
				}
				for end := time.Now().Add(40 * time.Second); ; time.Sleep(200 * time.Millisecond) {
					err := ts.Exec(args[0], args[1:]...)
					if err == nil && strings.Contains(ts.ReadFile("stdout"), text) {
						return
					}
					if time.Now().After(end) {
						ts.Fatalf("%s: %v", strings.Join(args, " "), err)
					}
				}
			},
			// address DIR: puts account, first listening address and chain of the node there into ADDRESS, LISTEN and CHAIN.
			"address": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(ts.Exec("crowd", "--node", args[0], "node", "info", "--json"))
				var s rpc.Status
				ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &s))
				ts.Setenv("ADDRESS", s.Address.String())
				ts.Setenv("LISTEN", s.Listen[0])
				ts.Setenv("CHAIN", s.Chain)
			},
			// keep NAME: puts the last stdout, trimmed, into a variable.
			"keep": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
			},
			// keep-job: puts the ID of the newest job in the last list into JOB.
			"keep-job": func(ts *testscript.TestScript, _ bool, _ []string) {
				var jobs []rpc.JobSummary
				ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &jobs))
				ts.Setenv("JOB", jobs[0].ID.String())
			},
			// is-json: the last stdout is one JSON value.
			"is-json": func(ts *testscript.TestScript, neg bool, _ []string) {
				if ok := json.Valid([]byte(ts.ReadFile("stdout"))); ok == neg {
					ts.Fatalf("stdout is JSON: %v", ok)
				}
			},
			// failure KIND TEXT: the last line of stderr is a failure of that kind, with a message that has TEXT.
			"failure": func(ts *testscript.TestScript, _ bool, args []string) {
				lines := strings.Split(strings.TrimSpace(ts.ReadFile("stderr")), "\n")
				var f complaint
				if err := json.Unmarshal([]byte(lines[len(lines)-1]), &f); err != nil || string(f.Kind) != args[0] || !strings.Contains(f.Message, args[1]) {
					ts.Fatalf("got %+v, %v; want %s with %q", f, err, args[0], args[1])
				}
			},
			// binary FILE: makes the file that rpctest's program "files" makes.
			"binary": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), bytes.Repeat([]byte{0, 1, 2, 255, '\r', '\n'}, 300_000), 0o644))
			},
			// knock STATUS HOST AUTHORIZATION: calls the port as a stranger.
			"knock": func(ts *testscript.TestScript, _ bool, args []string) {
				req, err := http.NewRequest("POST", ts.Getenv("URL"), strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"crowd_info"}`))
				ts.Check(err)
				req.Host = args[1]
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Authorization", args[2])
				resp, err := http.DefaultClient.Do(req)
				ts.Check(err)
				defer resp.Body.Close()
				var body struct {
					Error struct{ Data struct{ Kind, Hint string } }
				}
				ts.Check(json.NewDecoder(resp.Body).Decode(&body))
				if got := strconv.Itoa(resp.StatusCode); got != args[0] || got != "200" && body.Error.Data.Hint == "" {
					ts.Fatalf("got %s %+v, want %s and a hint", got, body, args[0])
				}
			},
		},
	})
}

func net(ts *testscript.TestScript) *testNetwork { return ts.Value("net").(*testNetwork) }

// TestRun_InProcess shows that a command touches nothing but its env.
func TestRun_InProcess(t *testing.T) {
	dir, err := os.MkdirTemp("", "crowd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	n, err := serve(filepath.Join(dir, "node"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	prog := filepath.Join(dir, "cat.wasm")
	if err := os.WriteFile(prog, []byte("cat"), 0o644); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	in := bytes.Repeat([]byte{0, 255, '\n'}, 1<<20) // three chunks
	code := run(t.Context(), env{args: []string{"run", "--node", filepath.Join(dir, "node"), "--in", "-", "--quiet", prog},
		stdin: bytes.NewReader(in), stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" }})
	if code != exitDone || !bytes.Equal(stdout.Bytes(), in) || stderr.Len() > 0 {
		t.Errorf("got code %d, %d bytes, stderr %q; want 0, %d bytes, silence", code, stdout.Len(), stderr.String(), len(in))
	}
}

// TestRun_Terminal has the moving display on, which scripts do not.
func TestRun_Terminal(t *testing.T) {
	dir, err := os.MkdirTemp("", "crowd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	n, err := serve(filepath.Join(dir, "node"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	prog := filepath.Join(dir, "p.wasm")
	if err := os.WriteFile(prog, []byte("files"), 0o644); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), env{args: []string{"run", "--node", filepath.Join(dir, "node"), prog}, terminal: true,
		stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" }})
	text := stderr.String()
	if code != exitDone || !strings.Contains(text, "waiting for the draw") || !strings.Contains(text, "you paid 3.2 credits\n") ||
		!strings.Contains(text, "a word of warning") {
		t.Errorf("got code %d, stderr %q", code, text)
	}
}

// TestNodeRun runs a node, reads its line, and stops it with Ctrl-C.
func TestNodeRun(t *testing.T) {
	dir, err := os.MkdirTemp("", "crowd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	interrupts := make(chan os.Signal, 1)
	r, w := io.Pipe()
	var talk bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), env{args: []string{"node", "run", "--json", "--dir", filepath.Join(dir, "n"), "--listen", "127.0.0.1:0"}, stdout: w, stderr: &talk,
			getenv: func(string) string { return "" }, interrupts: interrupts, joinNetwork: joinTestNetwork})
		w.Close()
	}()
	line := make([]byte, 1<<16)
	n, err := r.Read(line) // it is ready when it says so
	if err != nil {
		t.Fatal(err)
	}
	var ready nodeReady
	if err := json.Unmarshal(line[:n], &ready); err != nil || bytes.Count(line[:n], []byte("\n")) != 1 || ready.Chain != "crowd-test" || ready.Socket == "" {
		t.Errorf("got %q, %v; want one line of JSON", line[:n], err)
	}
	interrupts <- os.Interrupt
	select {
	case got := <-code:
		if got != exitDone || !strings.Contains(talk.String(), "stopping") {
			t.Errorf("got code %d, %s; want 0", got, talk.String())
		}
	case <-time.After(20 * time.Second):
		t.Error("Ctrl-C does not stop it")
	}
}

// TestUp starts a network, uses it, and stops it with Ctrl-C.
func TestUp(t *testing.T) {
	for _, args := range [][]string{{"up"}, {"up", "--json"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			home, err := os.MkdirTemp("", "crowd")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(home)
			getenv := func(name string) string { return map[string]string{"HOME": home}[name] }
			interrupts := make(chan os.Signal, 1)
			r, w := io.Pipe()
			var talk bytes.Buffer
			code := make(chan int, 1)
			go func() {
				code <- run(t.Context(), env{args: args, stdout: w, stderr: &talk, getenv: getenv, interrupts: interrupts, startNetwork: startTestNetwork})
				w.Close()
			}()
			first := make([]byte, 4096)
			n, err := r.Read(first) // it is up when it says so
			if err != nil {
				t.Fatal(err)
			}
			go io.Copy(io.Discard, r)
			if text := string(first[:n]); !strings.Contains(text, "the network is up") && !strings.Contains(text, `"socket": `) {
				t.Errorf("got %q", text)
			}
			var out, errs bytes.Buffer
			if got := run(t.Context(), env{args: []string{"info"}, stdout: &out, stderr: &errs, getenv: getenv}); got != exitDone {
				t.Errorf("info: got code %d, %s", got, errs.String())
			}
			interrupts <- os.Interrupt
			select {
			case got := <-code:
				if got != exitDone || !strings.Contains(talk.String(), "stopping") {
					t.Errorf("got code %d, %s; want 0", got, talk.String())
				}
			case <-time.After(20 * time.Second):
				t.Error("Ctrl-C does not stop it")
			}
		})
	}
}

func TestListenAddrs(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"address and port", "0.0.0.0:4141", "/ip4/0.0.0.0/udp/4141/quic-v1 /ip4/0.0.0.0/tcp/4141"},
		{"ip6", "[::]:0", "/ip6/::/udp/0/quic-v1 /ip6/::/tcp/0"},
		{"multiaddress", "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1"},
		{"a name", "localhost:4141", ""},
		{"no port", "127.0.0.1", ""},
		{"nothing", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := listenAddrs([]string{tt.in})
			if text := strings.Join(got, " "); text != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v; want %q", text, err, tt.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	gas := func(s string) (uint64, error) { return parseUnits("gas", s, gasUnits) }
	size := func(s string) (uint64, error) { return parseUnits("size", s, sizeUnits) }
	credits := func(s string) (uint64, error) { c, err := parseCredits(s); return uint64(c), err }
	price := func(s string) (uint64, error) { p, err := parsePrice(s); return uint64(p), err }
	for _, tt := range []struct {
		name string
		f    func(string) (uint64, error)
		in   string
		want uint64
		ok   bool
	}{
		{"plain gas", gas, "123", 123, true},
		{"giga", gas, "100G", 100e9, true},
		{"fraction", gas, "1.5T", 15e11, true},
		{"fraction of one", gas, "0.5", 0, false},
		{"negative", gas, "-1", 0, false},
		{"exponent", gas, "1e9", 0, false},
		{"huge", gas, "99999999999T", 0, false},
		{"long", gas, strings.Repeat("1", 1000), 0, false},
		{"none", gas, "", 0, false},
		{"only a unit", gas, "G", 0, false},
		{"two dots", gas, "1.2.3", 0, false},
		{"memory", size, "1GiB", 1 << 30, true},
		{"memory with a space", size, "512 MiB", 512 << 20, true},
		{"decimal memory", size, "2kB", 2000, true},
		{"other unit", size, "2parsec", 0, false},
		{"credits", credits, "2.5", 2_500_000, true},
		{"smallest", credits, "0.000001", 1, true},
		{"smaller", credits, "0.0000001", 0, false},
		{"price", price, "0.9", 900, true},
		{"price too fine", price, "0.9999", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.f(tt.in)
			if (err == nil) != tt.ok || err == nil && got != tt.want {
				t.Errorf("got %d, %v; want %d, ok %v", got, err, tt.want, tt.ok)
			}
		})
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ name, got, want string }{
		{"credits", creditText(3_200_000), "3.2 credits"},
		{"one credit", creditText(1_000_000), "1 credit"},
		{"ten credits", creditText(10_000_000), "10 credits"},
		{"gain", changeText(1_568_000), "+1.568"},
		{"loss", changeText(-50_000_000), "-50"},
		{"worst loss", changeText(-1 << 63), "-9223372036854.775808"},
		{"price", priceText(900), "0.9"},
		{"gas", gasText(3_214_000_000), "3.21 Ggas"},
		{"little gas", gasText(7), "7 gas"},
		{"size", sizeText(1_800_000), "1.72 MiB"},
		{"hostile text", clean("a\x1b[31mb\nc\u202ed"), "a?[31mb c?d"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}

// served is a client of a node that is b, and an empty folder.
func served(t *testing.T, b rpc.Backend) (c *rpc.Client, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "crowd") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := rpc.NewServer(rpc.Config{Dir: filepath.Join(dir, "node")}, b)
	if err == nil {
		err = s.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if c, err = rpc.Dial(ctx, s.Endpoint()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, dir
}

// TestDownload_StaysInside has a node that names files outside of the folder.
func TestDownload_StaysInside(t *testing.T) {
	c, dir := served(t, liar{rpctest.New()})
	out := filepath.Join(dir, "deep", "out")
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := download(t.Context(), c, crowd.JobID{}, out); err == nil {
		t.Error("got no error")
	}
	if _, err := os.Stat(filepath.Join(dir, "evil")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was written outside of the folder: %v", err)
	}
}

type liar struct{ *rpctest.Backend }

func (liar) ListResult(_ context.Context, _ crowd.JobID, after string, _ int) ([]rpc.Entry, error) {
	return []rpc.Entry{{Path: "../../evil", Size: 1}}, nil
}
