//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/adversary"
	"github.com/crowdcompute/crowd/internal/executor/wasm"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/verify"
)

// The test binary is its own wasm worker, as the crowd binary is, and a fleet's node.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "wasm-worker" {
		if err := wasm.Worker(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == memberArg {
		if err := serveMember(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// guests are built once for all tests.
var guests = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "guests-")
	if err != nil {
		return "", err
	}
	clang := exec.Command("clang-14", "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-o", filepath.Join(dir, "trivial.wasm"), "../../programs/trivial/trivial.c")
	if out, err := clang.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	for _, p := range []string{"hello", "wordcount"} {
		c := exec.Command("go", "build", "-o", filepath.Join(dir, p+".wasm"), "../../programs/"+p)
		c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		if out, err := c.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
	}
	return dir, nil
})

func guest(t testing.TB, name string) string {
	t.Helper()
	dir, err := guests()
	if err != nil {
		t.Skipf("the guests cannot be built here: %v", err)
	}
	return filepath.Join(dir, name+".wasm")
}

// network is a running local network and a client of its consumer.
type network struct {
	*Local
	*rpc.Client
	t    testing.TB
	stop func() error
}

// start runs a network until the test ends or stop is called.
func start(t testing.TB, cfg LocalConfig) *network {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	cfg.Worker = []string{"/proc/self/exe", "wasm-worker"}
	l, err := OpenLocal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	var once sync.Once
	var err2 error
	stop := func() error {
		once.Do(func() {
			cancel()
			select {
			case err2 = <-ended:
			case <-time.After(30 * time.Second):
				err2 = errors.New("the network does not end")
			}
		})
		return err2
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("network: %v", err)
		}
	})
	select {
	case <-l.Ready():
	case err := <-ended:
		ended <- err
		t.Fatalf("network: %v", err)
	case <-time.After(60 * time.Second):
		t.Fatal("the network does not come up")
	}
	c, err := rpc.Dial(t.Context(), l.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &network{Local: l, Client: c, t: t, stop: stop}
}

func (n *network) upload(path string) crowd.CID {
	n.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	return n.uploadFrom(f)
}

func (n *network) uploadFrom(r io.Reader) crowd.CID {
	n.t.Helper()
	c, err := n.UploadFile(n.t.Context(), r, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

func (n *network) request(program string) rpc.PostRequest {
	return rpc.PostRequest{
		Program: n.upload(program),
		Limits:  rpc.Limits{Gas: 4e9, Memory: 256 << 20, Output: 16 << 20, WallMillis: 30_000},
	}
}

// finish posts r and follows it to its end.
func (n *network) finish(r rpc.PostRequest) (crowd.JobID, []rpc.JobEvent) {
	n.t.Helper()
	id, err := n.Post(n.t.Context(), r)
	if err != nil {
		n.t.Fatal(err)
	}
	return id, n.follow(id)
}

func (n *network) follow(id crowd.JobID) (events []rpc.JobEvent) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 90*time.Second)
	defer cancel()
	for ev, err := range n.Watch(ctx, id) {
		if err != nil {
			n.t.Fatalf("job %s after %+v: %v", id.Short(), events, err)
		}
		events = append(events, ev)
	}
	if len(events) == 0 || !events[len(events)-1].Stage.Final() {
		n.t.Fatalf("job %s ended without an end: %+v", id.Short(), events)
	}
	return events
}

func (n *network) receipt(id crowd.JobID) []byte {
	n.t.Helper()
	raw, err := n.Receipt(n.t.Context(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	return raw
}

func (n *network) stdout(id crowd.JobID) string {
	n.t.Helper()
	var b strings.Builder
	if _, err := n.Download(n.t.Context(), id, "stdout", &b); err != nil {
		n.t.Fatal(err)
	}
	return b.String()
}

func (n *network) stake(i int) (stake crowd.Credits) {
	n.t.Helper()
	a, err := n.Account(n.t.Context(), n.Local.Provider(i).Address())
	if err != nil {
		n.t.Fatal(err)
	}
	return a.Stake
}

func TestLocal_OneVerifiedJobWithItsReceipt(t *testing.T) {
	n := start(t, LocalConfig{Providers: 3})
	r := n.request(guest(t, "wordcount"))
	r.Stdin = n.uploadFrom(strings.NewReader("to be or not to be"))
	id, events := n.finish(r)
	last := events[len(events)-1]
	if last.Stage != rpc.Settled || last.Outcome == nil || last.Outcome.ExitCode != 0 || last.Verdict.Method != "pair" {
		t.Fatalf("got %+v", last)
	}
	if got, want := n.stdout(id), "2 be\n2 to\n1 not\n1 or\n"; got != want {
		t.Errorf("got %q want %q", got, want)
	}
	findings, good := verify.Check(n.receipt(id), verify.Trust{Chain: n.Genesis().ChainID(), Header: VerifyHeader, Result: last.Outcome.Result})
	if !good {
		t.Errorf("receipt: %+v", findings)
	}
	if f, good := verify.Check(n.receipt(id), verify.Trust{Chain: "crowd-local-0", Header: VerifyHeader}); good {
		t.Errorf("a receipt of another chain: %+v", f)
	}
}

// If a node accepted the first reveal, the cheater's result would win here.
func TestLocal_CheaterIsCaughtOnRealParts(t *testing.T) {
	const cheater = 0
	n := start(t, LocalConfig{Providers: 3, Cheats: map[int]Cheat{cheater: func(e executor.Executor) executor.Executor { return adversary.WrongResult{Honest: e} }}})
	owner, err := n.Account(t.Context(), n.Consumer().ID().Address())
	if err != nil {
		t.Fatal(err)
	}
	r := n.request(guest(t, "hello"))
	jobs := 0
	for caught := false; !caught; jobs++ {
		if jobs == 30 {
			t.Fatal("the cheater was not drawn in 30 jobs")
		}
		id, events := n.finish(r)
		last := events[len(events)-1]
		if last.Stage != rpc.Settled {
			t.Fatalf("got %+v", last)
		}
		if got, want := n.stdout(id), "hello: args [], 0 bytes on stdin\n"; got != want {
			t.Fatalf("a wrong result was accepted: got %q want %q", got, want)
		}
		if findings, good := verify.Check(n.receipt(id), verify.Trust{Chain: n.Genesis().ChainID(), Header: VerifyHeader}); !good {
			t.Fatalf("receipt: %+v", findings)
		}
		for _, b := range last.Verdict.Blame {
			if b.Fault != "malice" || *b.Node != n.Local.Provider(cheater) {
				t.Fatalf("blame: got %+v want the cheater alone", b)
			}
			caught = true
			if last.Price != 0 {
				t.Errorf("the owner of a cheated job paid %s", last.Price)
			}
		}
	}
	if got := n.stake(cheater); got != 0 {
		t.Errorf("cheater's stake: got %s want 0", got)
	}
	for i := 1; i < 3; i++ {
		if got := n.stake(i); got != providerStake {
			t.Errorf("honest provider %d has a stake of %s", i, got)
		}
	}
	after, err := n.Account(t.Context(), n.Consumer().ID().Address())
	if err != nil {
		t.Fatal(err)
	}
	if after.Escrow != 0 || after.Balance >= owner.Balance {
		t.Errorf("owner: had %s, has %s and %s in escrow", owner.Balance, after.Balance, after.Escrow)
	}
}

func TestLocal_UserErrorsArePaidAndBlameNobody(t *testing.T) {
	n := start(t, LocalConfig{Providers: 2})
	garbage := n.uploadFrom(strings.NewReader("this is no program"))
	folder := filepath.Join(t.TempDir(), "x")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := n.UploadFolder(t.Context(), os.DirFS(folder), nil)
	if err != nil {
		t.Fatal(err)
	}
	hello := n.request(guest(t, "hello"))
	for _, c := range []struct {
		name   string
		change func(*rpc.PostRequest)
		status crowd.Status
	}{
		{"no wasm", func(r *rpc.PostRequest) { r.Program = garbage }, crowd.Invalid},
		{"a folder for a program", func(r *rpc.PostRequest) { r.Program = dir }, crowd.NoInput},
		{"a file for a folder", func(r *rpc.PostRequest) { r.Inputs = garbage }, crowd.NoInput},
		{"gas too small", func(r *rpc.PostRequest) { r.Limits.Gas = 1000 }, crowd.OutOfGas},
		{"output too large", func(r *rpc.PostRequest) { r.Limits.Output = 3 }, crowd.OutputFull},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := hello
			c.change(&r)
			id, events := n.finish(r)
			last := events[len(events)-1]
			if c.status == crowd.Invalid { // whoever looks at the job is told why
				res, err := n.Result(t.Context(), id)
				v, err2 := n.Job(t.Context(), id)
				x, err3 := n.Explain(t.Context(), id)
				const why = "invalid wasm at byte 0x0"
				if err := errors.Join(err, err2, err3); err != nil || !strings.Contains(res.Outcome.Reason, why) ||
					!strings.Contains(v.Outcome.Reason, why) || !strings.Contains(x.Why, why) {
					t.Errorf("got %q, %q, %q, %v; want the reason %q in each",
						res.Outcome.Reason, v.Outcome.Reason, x.Why, err, why)
				}
			}
			if last.Stage != rpc.Settled || last.Outcome == nil || last.Outcome.Status != c.status.String() || !last.Outcome.UserError {
				t.Fatalf("got %+v %+v want %s", last, last.Outcome, c.status)
			}
			for _, b := range last.Verdict.Blame {
				if b.Node != nil {
					t.Errorf("a node is blamed: %+v", b)
				}
			}
		})
	}
}

func TestLocal_RefusalsNameTheCause(t *testing.T) {
	n := start(t, LocalConfig{Providers: 2, Stakes: map[int]crowd.Credits{0: 100 * crowd.Credit, 1: 100 * crowd.Credit}})
	good := n.request(guest(t, "trivial"))
	for _, c := range []struct {
		name       string
		change     func(*rpc.PostRequest)
		says, hint string
	}{ // before anything is uploaded
		{"more gas than is staked for", func(r *rpc.PostRequest) { r.Limits.Gas, r.Limits.WallMillis = 2e12, 0 },
			`loses more than it brings; 0 of them do, and the plan "pair" needs 2`,
			"--gas 100G"},
		{"no gpu", func(r *rpc.PostRequest) { r.Filters.Tags = []string{"gpu"} }, "tag gpu", ""},
	} {
		r := good
		r.Program = "to be uploaded"
		c.change(&r)
		var e *rpc.Error
		_, err := n.Quote(t.Context(), r)
		if !errors.As(err, &e) || e.Kind != rpc.NoProvider || !strings.Contains(err.Error(), c.says) ||
			!strings.Contains(e.Hint, c.hint) {
			t.Errorf("quote, %s: got %v (%+v), want %q and the hint %q", c.name, err, e, c.says, c.hint)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*rpc.PostRequest)
		kind   rpc.Kind
		says   string
	}{
		{"over budget", func(r *rpc.PostRequest) { r.Budget = 5 }, rpc.OverBudget, "budget"},
		{"no gpu", func(r *rpc.PostRequest) { r.Filters.Tags = []string{"gpu"} }, rpc.NoProvider, "tag gpu"},
		{"too cheap", func(r *rpc.PostRequest) { r.Filters.MaxPrice = 1 }, rpc.NoProvider, "price"},
		{"unknown program", func(r *rpc.PostRequest) { r.Program = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy" }, rpc.BadRequest, "store"},
		{"no CID", func(r *rpc.PostRequest) { r.Program = "../../etc" }, rpc.BadRequest, "program"},
		{"too sure for anybody", func(r *rpc.PostRequest) { r.Confidence = 0.99999999999 }, rpc.BadRequest, "confidence"},
		{"too sure for so few", func(r *rpc.PostRequest) { r.Confidence = 0.9999 }, rpc.NoProvider, "2 providers could be drawn, the plan \"committee\" needs 4"},
		{"a committee of more than there are", func(r *rpc.PostRequest) { r.Check = &rpc.TaskPlan{Method: "committee", Executors: 3} }, rpc.NoProvider, "needs 3"},
		{"an audit without anybody to hide behind", func(r *rpc.PostRequest) { r.Check = &rpc.TaskPlan{Method: "audit"} }, rpc.NoProvider, "needs 3"},
		{"a rate below the floor", func(r *rpc.PostRequest) { r.Check = &rpc.TaskPlan{Method: "audit", RatePPM: 49_999} }, rpc.BadRequest, "floor"},
		{"no check", func(r *rpc.PostRequest) { r.Check = &rpc.TaskPlan{Method: "none"} }, rpc.BadRequest, "unknown"},
		{"a plan that does not reach the confidence", func(r *rpc.PostRequest) { r.Check, r.Confidence = &rpc.TaskPlan{Method: "pair"}, 0.999 }, rpc.BadRequest, "0.01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good
			c.change(&r)
			_, err := n.Post(t.Context(), r)
			var e *rpc.Error
			if !errors.As(err, &e) || e.Kind != c.kind || !strings.Contains(err.Error(), c.says) || e.Hint == "" {
				t.Errorf("got %v (%+v) want %s naming %q, with a hint", err, e, c.kind, c.says)
			}
		})
	}
}

// The same folder, opened again: the chain goes on, the jobs and receipts are there.
func TestLocal_RestartContinues(t *testing.T) {
	dir := t.TempDir()
	program := guest(t, "trivial")
	n := start(t, LocalConfig{Dir: dir, Providers: 2})
	if _, err := OpenLocal(LocalConfig{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another crowd up") {
		t.Errorf("a second network in one folder: got %v", err)
	}
	first, _ := n.finish(n.request(program))
	receipt := string(n.receipt(first))
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = start(t, LocalConfig{Dir: dir})
	if n.Local.Providers() != 2 {
		t.Errorf("got %d providers want the 2 that were there", n.Local.Providers())
	}
	if got := string(n.receipt(first)); got != receipt {
		t.Error("the receipt changed")
	}
	if got := n.stdout(first); got != "trivial: done\n" {
		t.Errorf("got %q", got)
	}
	second, events := n.finish(n.request(program))
	if events[len(events)-1].Stage != rpc.Settled {
		t.Errorf("got %+v", events)
	}
	jobs, err := n.Jobs(t.Context(), 10)
	if err != nil || len(jobs) != 2 || jobs[0].ID != second || jobs[1].ID != first {
		t.Errorf("got %+v %v want both jobs, newest first", jobs, err)
	}
}
