package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	geth "github.com/ethereum/go-ethereum/rpc"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/rpc/rpctest"
)

// world is a running server with its backend.
type world struct {
	backend *rpctest.Backend
	end     rpc.Endpoint
	dir     string
	stop    func()
}

func start(t testing.TB, change ...func(*rpc.Config)) *world {
	t.Helper()
	// Not t.TempDir: a socket's path must be short, a test's name need not be.
	dir, err := os.MkdirTemp("", "rpc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cfg := rpc.Config{Dir: filepath.Join(dir, "node")}
	for _, f := range change {
		f(&cfg)
	}
	w := &world{backend: rpctest.New(), dir: cfg.Dir}
	s, err := rpc.NewServer(cfg, w.backend)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	w.end = s.Endpoint()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: got %v, want nil", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server did not stop")
		}
	}
	t.Cleanup(w.stop)
	return w
}

// ends are the three ways to the same server.
func (w *world) ends() map[string]rpc.Endpoint {
	return map[string]rpc.Endpoint{
		"socket":    {Socket: w.end.Socket},
		"http":      {URL: w.end.URL, Token: w.end.Token},
		"websocket": {URL: "ws" + strings.TrimPrefix(w.end.URL, "http"), Token: w.end.Token},
	}
}

func dial(t testing.TB, end rpc.Endpoint) *rpc.Client {
	t.Helper()
	c, err := rpc.Dial(t.Context(), end)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func request(t testing.TB, c *rpc.Client, program string) rpc.PostRequest {
	t.Helper()
	id, err := c.UploadFile(t.Context(), strings.NewReader(program), nil)
	if err != nil {
		t.Fatal(err)
	}
	return rpc.PostRequest{Program: id, Args: []string{"a", "b"},
		Limits: rpc.Limits{Gas: 2e8, Memory: 1 << 20, Output: 1 << 20, WallMillis: 11_000}}
}

func post(t testing.TB, c *rpc.Client, program string) crowd.JobID {
	t.Helper()
	id, err := c.Post(t.Context(), request(t, c, program))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestTransportsAgree calls everything over all three and wants the same answers.
func TestTransportsAgree(t *testing.T) {
	w := start(t)
	setup := dial(t, w.end)
	req := request(t, setup, "files")
	id := post(t, setup, "files")
	answers := make(map[string]any)
	for name, end := range w.ends() {
		c := dial(t, end)
		ctx := t.Context()
		type pair struct {
			v   any
			err error
		}
		got := map[string]pair{}
		add := func(what string, v any, err error) { got[what] = pair{v, err} }
		v1, err := c.Info(ctx)
		add("info", v1, err)
		v2, err := c.Quote(ctx, req)
		add("quote", v2, err)
		v3, err := c.Jobs(ctx, 0)
		add("jobs", v3, err)
		v4, err := c.Job(ctx, id)
		add("job", v4, err)
		v5, err := c.Explain(ctx, id)
		add("explain", v5, err)
		v6, err := c.Receipt(ctx, id)
		add("receipt", string(v6), err)
		v7, err := c.Result(ctx, id)
		add("result", v7, err)
		v8, err := c.Providers(ctx)
		add("providers", v8, err)
		v9, err := c.Peers(ctx)
		add("peers", v9, err)
		v10, err := c.Accounts(ctx)
		add("accounts", v10, err)
		v11, err := c.Account(ctx, rpctest.Owner.Address())
		add("account", v11, err)
		v12, err := c.ResolveJob(ctx, id.String()[:60])
		add("resolve", v12, err)
		var files []rpc.Entry
		for e, err := range c.ListResult(ctx, id) {
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, e)
		}
		add("list", files, nil)
		var big bytes.Buffer
		_, err = c.Download(ctx, id, "out/sub/data.bin", &big)
		add("download", big.Bytes(), err)
		var events []rpc.JobEvent
		for ev, err := range c.Watch(ctx, id) {
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, ev)
		}
		add("events", events, nil)
		var logs []rpc.LogChunk
		for l, err := range c.Logs(ctx, id, true) {
			if err != nil {
				t.Fatal(err)
			}
			logs = append(logs, l)
		}
		add("logs", logs, nil)
		for what, p := range got {
			if p.err != nil {
				t.Errorf("%s %s: %v", name, what, p.err)
			}
		}
		answers[name] = got
		if len(events) != 8 || !events[7].Stage.Final() || len(logs) != 2 || len(files) != 6 || big.Len() != 1_800_000 {
			t.Errorf("%s: got %d events, %d logs, %d files, %d bytes; want 8, 2, 6, 1800000", name, len(events), len(logs), len(files), big.Len())
		}
	}
	for name := range answers {
		if !reflect.DeepEqual(answers[name], answers["socket"]) {
			t.Errorf("%s: other answers than over the socket", name)
		}
	}
}

func TestWatch_LiveUntilCancelled(t *testing.T) {
	w := start(t)
	for name, end := range w.ends() {
		t.Run(name, func(t *testing.T) {
			c := dial(t, end)
			id := post(t, c, "spin")
			var stages []rpc.Stage
			for ev, err := range c.Watch(t.Context(), id) {
				if err != nil {
					t.Fatal(err)
				}
				if stages = append(stages, ev.Stage); ev.Stage == rpc.Running {
					if err := c.Cancel(t.Context(), id); err != nil {
						t.Fatal(err)
					}
				}
			}
			want := []rpc.Stage{rpc.Posted, rpc.Drawn, rpc.Running, rpc.Cancelled}
			if !reflect.DeepEqual(stages, want) {
				t.Errorf("got %v, want %v", stages, want)
			}
		})
	}
}

// TestStop ends the server below open streams and calls.
func TestStop(t *testing.T) {
	w := start(t)
	for name, end := range w.ends() {
		c := dial(t, end)
		id := post(t, c, "spin")
		running, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			for ev, err := range c.Watch(context.Background(), id) {
				if err != nil {
					ended <- err
				} else if ev.Stage == rpc.Running {
					close(running)
				}
			}
		}()
		<-running
		defer func() {
			select {
			case err := <-ended:
				if got := rpc.KindOf(err); got != rpc.Unavailable {
					t.Errorf("%s: got kind %s (%v), want %s", name, got, err, rpc.Unavailable)
				}
			case <-time.After(5 * time.Second):
				t.Errorf("%s: the stream outlives the server", name)
			}
		}()
	}
	w.stop()
	if _, err := rpc.Discover(w.dir); rpc.KindOf(err) != rpc.Unavailable || !strings.Contains(err.Error(), "no node is running at") {
		t.Errorf("got %v, want: no node is running", err)
	}
}

func TestErrors_RoundTrip(t *testing.T) {
	w := start(t)
	for name, end := range w.ends() {
		c := dial(t, end)
		ctx := t.Context()
		settled, stuck, late := post(t, c, "echo"), post(t, c, "stuck"), post(t, c, "late")
		try := func(program string) error {
			_, err := c.Post(ctx, request(t, c, program))
			return err
		}
		noGas := request(t, c, "echo")
		noGas.Limits.Gas = 0
		_, errNoGas := c.Post(ctx, noGas)
		long := request(t, c, "echo")
		long.Limits.WallMillis = 1 << 62
		_, errLong := c.Post(ctx, long)
		sure := request(t, c, "echo")
		sure.Confidence = 1
		_, errSure := c.Quote(ctx, sure)
		_, errMissing := c.Job(ctx, crowd.JobID{1})
		_, errReceipt := c.Receipt(ctx, stuck)
		_, errPrefix := c.ResolveJob(ctx, "not hex")
		_, errPath := c.ReadResult(ctx, settled, "../token", 0, 1)
		_, errLimit := c.Jobs(ctx, 1_000_000)
		var errWatch error
		for _, errWatch = range c.Watch(ctx, crowd.JobID{1}) {
		}
		for _, tt := range []struct {
			name string
			err  error
			kind rpc.Kind
			op   string
			text string // of message and hint
		}{
			{"no provider", try("none"), rpc.NoProvider, "post job", "tag gpu excludes 7"},
			{"over budget", try("dear"), rpc.OverBudget, "post job", "raise the budget"},
			{"poor", try("poor"), rpc.InsufficientFunds, "post job", "fund the account"},
			{"panic", try("crash"), rpc.Internal, "post job", "the call crashed"},
			{"no gas", errNoGas, rpc.BadRequest, "post job", "gas is zero"},
			{"endless", errLong, rpc.BadRequest, "post job", "wall time"},
			{"too sure", errSure, rpc.BadRequest, "quote job", "confidence 1"},
			{"unknown job", errMissing, rpc.NotFound, "describe job", "crowd_jobs"},
			{"unknown stream", errWatch, rpc.NotFound, "watch job", "not known here"},
			{"early receipt", errReceipt, rpc.Conflict, "get receipt", "crowd job logs --follow"},
			{"bad prefix", errPrefix, rpc.BadRequest, "find job", "hex digits"},
			{"path out of result", errPath, rpc.BadRequest, "read result", "relative path"},
			{"huge limit", errLimit, rpc.BadRequest, "list jobs", "want 1 to 1000"},
			{"too late", c.Cancel(ctx, late), rpc.TooLate, "cancel job", "ends by itself"},
		} {
			var e *rpc.Error
			if !errors.As(tt.err, &e) {
				t.Errorf("%s, %s: got %v, want an *Error", name, tt.name, tt.err)
				continue
			}
			if e.Kind != tt.kind || e.Op != tt.op || !strings.Contains(e.Error()+" "+e.Hint, tt.text) || e.Hint == "" {
				t.Errorf("%s, %s: got %s %q %q hint %q, want %s %q with %q", name, tt.name, e.Kind, e.Op, e.Err, e.Hint, tt.kind, tt.op, tt.text)
			}
		}
		if _, err := c.Info(ctx); err != nil {
			t.Errorf("%s: after a panic: %v", name, err)
		}
	}
}

func TestResolveJob(t *testing.T) {
	w := start(t)
	w.backend.Twins('a')
	c := dial(t, w.end)
	twin := strings.Repeat("a", 16)
	for _, tt := range []struct {
		name, prefix, want string
		kind               rpc.Kind
	}{
		{"unique", "0xAAAAAAAAAAAAAAAA0", twin + strings.Repeat("0", 48), ""},
		{"ambiguous", "aaaa", "", rpc.BadRequest},
		{"none", "abab", "", rpc.NotFound},
		{"empty", "", "", rpc.BadRequest},
		{"too long", strings.Repeat("a", 65), "", rpc.BadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := c.ResolveJob(t.Context(), tt.prefix)
			if rpc.KindOf(err) != tt.kind || err == nil && id.String() != tt.want {
				t.Errorf("got %s, %v; want %s, kind %q", id, err, tt.want, tt.kind)
			}
		})
	}
}

// TestGuard has strangers at the port.
func TestGuard(t *testing.T) {
	w := start(t, func(c *rpc.Config) { c.Hosts = []string{"node.example"}; c.Origins = []string{"https://app.example"} })
	call := `{"jsonrpc":"2.0","id":1,"method":"crowd_info"}`
	bearer := "Bearer " + w.end.Token
	for _, tt := range []struct {
		name, method, host, origin, auth, body string
		upgrade                                bool
		status                                 int
		text                                   string
	}{
		{name: "good", auth: bearer, status: 200, text: "crowd-test"},
		{name: "good, scheme in lower case", auth: "bearer " + w.end.Token, status: 200, text: "crowd-test"},
		{name: "good by allowed name", auth: bearer, host: "Node.Example:80", status: 200, text: "crowd-test"},
		{name: "good by v6 address", auth: bearer, host: "[::1]:80", status: 200, text: "crowd-test"},
		{name: "good from allowed page", auth: bearer, origin: "https://app.example", status: 200, text: "crowd-test"},
		{name: "no token", status: 401, text: "file 'token' in the node's folder"},
		{name: "wrong token", auth: "Bearer " + strings.Repeat("0", 64), status: 401, text: "unauthorized"},
		{name: "short token", auth: "Bearer " + w.end.Token[:63], status: 401, text: "unauthorized"},
		{name: "token as basic", auth: "Basic " + w.end.Token, status: 401, text: "unauthorized"},
		{name: "websocket without token", upgrade: true, status: 401, text: "unauthorized"},
		{name: "get without token", method: "GET", status: 401, text: "unauthorized"},
		{name: "rebound name", auth: bearer, host: "evil.example", status: 403, text: "is not this node"},
		{name: "rebound name, websocket", auth: bearer, host: "evil.example", upgrade: true, status: 403, text: "is not this node"},
		{name: "name that ends in ours", auth: bearer, host: "evil-localhost", status: 403, text: "is not this node"},
		{name: "name below ours", auth: bearer, host: "page.localhost", status: 403, text: "is not this node"},
		{name: "name that begins with ours", auth: bearer, host: "localhost.evil.example", status: 403, text: "is not this node"},
		{name: "name with ours in it", auth: bearer, host: "mylocalhost.example:80", status: 403, text: "is not this node"},
		{name: "name that begins with an address", auth: bearer, host: "127.0.0.1.evil.example", status: 403, text: "is not this node"},
		{name: "name that ends in an allowed one", auth: bearer, host: "xnode.example", status: 403, text: "is not this node"},
		{name: "name below an allowed one", auth: bearer, host: "evil.node.example", status: 403, text: "is not this node"},
		{name: "name that begins with an allowed one", auth: bearer, host: "node.example.evil", status: 403, text: "is not this node"},
		{name: "name that is a part of an allowed one", auth: bearer, host: "example", status: 403, text: "is not this node"},
		{name: "foreign page", auth: bearer, origin: "https://evil.example", status: 403, text: "another origin"},
		{name: "foreign page, websocket", auth: bearer, origin: "https://evil.example", upgrade: true, status: 403, text: "another origin"},
		{name: "page without origin", auth: bearer, origin: "null", status: 403, text: "another origin"},
		{name: "get", auth: bearer, method: "GET", status: 405, text: "POST a JSON-RPC"},
		{name: "preflight", auth: bearer, method: "OPTIONS", status: 405, text: "POST a JSON-RPC"},
		{name: "huge body", auth: bearer, body: `["` + strings.Repeat("x", 3<<20) + `"]`, status: 413, text: "too-large"},
		{name: "garbage", auth: bearer, body: "\x00\xff", status: 200, text: "parse error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			method, body := tt.method, tt.body
			if method == "" {
				method = "POST"
			}
			if body == "" {
				body = call
			}
			if tt.upgrade {
				method, body = "GET", ""
			}
			req, err := http.NewRequestWithContext(t.Context(), method, w.end.URL, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			if tt.host != "" {
				req.Host = tt.host
			}
			if tt.origin != "" {
				req.Header.Set("Origin", tt.origin)
			}
			if tt.auth != "" {
				req.Header.Set("Authorization", tt.auth)
			}
			if tt.upgrade {
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", "websocket")
				req.Header.Set("Sec-WebSocket-Version", "13")
				req.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.status || !strings.Contains(string(got), tt.text) {
				t.Errorf("got %d %s, want %d with %q", resp.StatusCode, got, tt.status, tt.text)
			}
			if !json.Valid(got) {
				t.Errorf("the answer is not JSON: %s", got)
			}
			if strings.Contains(string(got), w.dir) || strings.Contains(string(got), w.end.Token) {
				t.Errorf("the answer tells a secret: %s", got)
			}
			if resp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("the answer opens the node to web pages")
			}
		})
	}
}

func TestDial_Strangers(t *testing.T) {
	w := start(t)
	for _, tt := range []struct {
		name string
		end  rpc.Endpoint
		kind rpc.Kind
	}{
		{"no token", rpc.Endpoint{URL: w.end.URL}, rpc.Unauthorized},
		{"wrong token", rpc.Endpoint{URL: w.end.URL, Token: strings.Repeat("1", 64)}, rpc.Unauthorized},
		{"websocket, no token", rpc.Endpoint{URL: "ws" + w.end.URL[4:]}, rpc.Unauthorized},
		{"nobody there", rpc.Endpoint{URL: "http://127.0.0.1:1", Token: w.end.Token}, rpc.Unavailable},
		{"no such socket", rpc.Endpoint{Socket: filepath.Join(w.dir, "none")}, rpc.Unavailable},
		{"no URL", rpc.Endpoint{URL: "what is this"}, rpc.BadRequest},
		{"other scheme", rpc.Endpoint{URL: "ftp://127.0.0.1"}, rpc.BadRequest},
		{"nothing", rpc.Endpoint{}, rpc.BadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := rpc.Dial(t.Context(), tt.end)
			if got := rpc.KindOf(err); got != tt.kind {
				t.Errorf("got %s (%v), want %s", got, err, tt.kind)
			}
		})
	}
}

func TestFolder_IsPrivate(t *testing.T) {
	w := start(t)
	for name, want := range map[string]os.FileMode{".": 0o700, "rpc.sock": 0o600, "token": 0o600, "rpc.url": 0o600, "uploads": 0o700} {
		info, err := os.Stat(filepath.Join(w.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: got mode %04o, want %04o", name, got, want)
		}
	}
	if len(w.end.Token) != 64 {
		t.Errorf("got a token of %d characters, want 64", len(w.end.Token))
	}

	second, err := rpc.NewServer(rpc.Config{Dir: w.dir}, rpctest.New())
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Listen(); rpc.KindOf(err) != rpc.Conflict {
		t.Errorf("second server in one folder: got %v, want a conflict", err)
	}
	found, err := rpc.Discover(w.dir)
	if err != nil || found != w.end {
		t.Errorf("discover: got %+v, %v; want %+v", found, err, w.end)
	}

	w.stop()
	if err := os.WriteFile(filepath.Join(w.dir, "rpc.sock"), nil, 0o600); err != nil { // as a killed node leaves it
		t.Fatal(err)
	}
	third, err := rpc.NewServer(rpc.Config{Dir: w.dir}, rpctest.New())
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Listen(); err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	if got := third.Endpoint().Token; got != w.end.Token {
		t.Error("the token changed between two runs")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	third.Run(ctx)
	if err := os.Chmod(filepath.Join(w.dir, "token"), 0o644); err != nil {
		t.Fatal(err)
	}
	fourth, _ := rpc.NewServer(rpc.Config{Dir: w.dir}, rpctest.New())
	if err := fourth.Listen(); rpc.KindOf(err) != rpc.Forbidden {
		t.Errorf("token readable by others: got %v, want it refused", err)
	}
}

func TestConfig_Validate(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  rpc.Config
		want string // "" for none
	}{
		{"default", rpc.Config{Dir: "x"}, ""},
		{"v6 loopback", rpc.Config{Dir: "x", Addr: "[::1]:0"}, ""},
		{"no folder", rpc.Config{}, "dir: none given"},
		{"everybody", rpc.Config{Dir: "x", Addr: ":8545"}, "allowed explicitly"},
		{"other machines", rpc.Config{Dir: "x", Addr: "192.0.2.1:8545"}, "allowed explicitly"},
		{"a name may mean anything", rpc.Config{Dir: "x", Addr: "myhost:8545"}, "allowed explicitly"},
		{"allowed", rpc.Config{Dir: "x", Addr: "0.0.0.0:8545", Public: true}, ""},
		{"two at once", rpc.Config{Addr: "nonsense"}, "missing port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.cfg.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestBatch(t *testing.T) {
	w := start(t)
	for name, end := range w.ends() {
		raw := end.Socket
		if raw == "" {
			raw = end.URL
		}
		c, err := geth.DialOptions(t.Context(), raw, geth.WithHeader("Authorization", "Bearer "+w.end.Token))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var info rpc.Info
		var doc map[string]any
		batch := []geth.BatchElem{{Method: "crowd_info", Result: &info}, {Method: "rpc.discover", Result: &doc}, {Method: "crowd_nonsense"}}
		if err := c.BatchCallContext(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if batch[0].Error != nil || info.Chain != "crowd-test" || batch[1].Error != nil || doc["openrpc"] == nil || batch[2].Error == nil {
			t.Errorf("%s: got %+v", name, batch)
		}
		large := make([]geth.BatchElem, 101)
		for i := range large {
			large[i] = geth.BatchElem{Method: "crowd_info", Result: new(rpc.Info)}
		}
		if err := c.BatchCallContext(t.Context(), large); err == nil && large[0].Error == nil {
			t.Errorf("%s: a batch of %d calls was answered", name, len(large))
		}
		if err := c.CallContext(t.Context(), &info, "crowd_info"); err != nil {
			t.Errorf("%s: after a batch that is too large: %v", name, err)
		}
		for _, m := range documented(t, doc) {
			var e geth.Error
			if err := c.CallContext(t.Context(), nil, m); errors.As(err, &e) && e.ErrorCode() == -32601 && !strings.HasSuffix(m, "_subscribe") {
				t.Errorf("%s: %s is documented and not served: %v", name, m, err)
			}
		}
	}
}

func documented(t *testing.T, doc map[string]any) (names []string) {
	for _, m := range doc["methods"].([]any) {
		names = append(names, m.(map[string]any)["name"].(string))
	}
	if len(names) < 20 {
		t.Errorf("got %d documented methods, want more", len(names))
	}
	return names
}

// TestSocket_Hostile writes to the socket what no client would.
func TestSocket_Hostile(t *testing.T) {
	w := start(t)
	for _, tt := range []struct {
		name, send, want string
	}{
		{"two calls in one write", `{"jsonrpc":"2.0","id":1,"method":"crowd_info"}` + "\n" + `{"jsonrpc":"2.0","id":2,"method":"rpc.discover"}`, `"id":2`},
		{"brackets in strings", `{"jsonrpc":"2.0","id":"}]\"{","method":"crowd_info"}`, "crowd-test"},
		{"no message", "GET / HTTP/1.1\r\n\r\n", "bad-request"},
		{"endless message", `{"a":"` + strings.Repeat("x", 3<<20), "bad-request"},
		{"deep nesting", strings.Repeat("[", 3<<20), "bad-request"},
		{"broken", `{"jsonrpc" "2.0"}`, "-32700"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("unix", w.end.Socket)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			go conn.Write([]byte(tt.send)) // may fail: the server hangs up on some
			var got []byte
			buf := make([]byte, 64<<10)
			for !strings.Contains(string(got), tt.want) {
				n, err := conn.Read(buf)
				if got = append(got, buf[:n]...); err != nil {
					t.Fatalf("got %q, %v; want %q", got, err, tt.want)
				}
			}
		})
	}
	if _, err := dial(t, w.end).Info(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestUploadFolder(t *testing.T) {
	w := start(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 150_000) // 2.4 MB: three chunks
	src := fstest.MapFS{
		"a.txt":       {Data: []byte("a")},
		"empty":       {},
		"deep/er/big": {Data: big},
		"hollow":      {Mode: os.ModeDir | 0o755},
	}
	for name, end := range w.ends() {
		t.Run(name, func(t *testing.T) {
			sent := 0
			id, err := dial(t, end).UploadFolder(t.Context(), src, func(_, n int) { sent += n })
			if err != nil {
				t.Fatal(err)
			}
			got := w.backend.Folder(id)
			want := map[string][]byte{"a.txt": []byte("a"), "empty": {}, "deep/": nil, "deep/er/": nil, "deep/er/big": big, "hollow/": nil}
			if !reflect.DeepEqual(got, want) || sent != len(big)+1 {
				t.Errorf("got %d entries and %d bytes, want %d and %d", len(got), sent, len(want), len(big)+1)
			}
		})
	}
	left, _ := os.ReadDir(filepath.Join(w.dir, "uploads"))
	if len(left) != 0 {
		t.Errorf("%d uploads are left behind", len(left))
	}
}

func FuzzHTTP(f *testing.F) {
	w := start(f)
	for _, seed := range []string{
		"", "{}", "[]", "null", "[null]", "\x00", `{"jsonrpc":"2.0","id":1,"method":"crowd_info"}`,
		`{"jsonrpc":"2.0","id":1,"method":"crowd_job","params":["00"]}`,
		`{"jsonrpc":"2.0","id":1,"method":"crowd_writeUpload","params":["x","../y",-1,"AA=="]}`,
		`{"jsonrpc":"2.0","id":1,"method":"crowd_post","params":[{"limits":{"gas":-1}}]}`,
		`{"jsonrpc":"2.0","id":1,"method":"crowd_jobs","params":[null]}`,
		`{"jsonrpc":"2.0","id":1,"method":"crowd_subscribe","params":["job","00"]}`,
		`[{"method":"rpc.discover"},{"method":{}},1]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := http.NewRequest("POST", w.end.URL, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+w.end.Token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || len(got) > 0 && !json.Valid(got) {
			t.Errorf("got %q, %v; want JSON", got, err)
		}
	})
}

func BenchmarkUpload_64MiBOverSocket(b *testing.B) {
	c := dial(b, start(b).end)
	data := bytes.Repeat([]byte{0xa5}, 64<<20)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.UploadFile(b.Context(), bytes.NewReader(data), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCall_InfoOverSocket(b *testing.B) {
	c := dial(b, start(b).end)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Info(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}
