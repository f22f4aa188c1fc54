package p2p

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"github.com/crowdcompute/crowd"
)

// TestVictim is no test but a host in a process of its own, to be killed.
func TestVictim(t *testing.T) {
	k, err := hex.DecodeString(os.Getenv("P2P_VICTIM"))
	if err != nil || len(k) == 0 {
		t.Skip("only as a process of another test")
	}
	h := start(t, Config{PrivateKey: k, Listen: loopbacks[:1]})
	h.Answer("/echo", 100, func(_ context.Context, _ crowd.NodeID, req []byte) ([]byte, error) { return req, nil })
	h.Answer("/peers", 0, func(context.Context, crowd.NodeID, []byte) (out []byte, _ error) {
		for _, p := range h.Peers() {
			out = fmt.Append(out, p.ID.Short(), " since ", p.Since, "; ")
		}
		return out, nil
	})
	h.Handle("/hang", func(ctx context.Context, _ crowd.NodeID, s Stream) error {
		<-ctx.Done()
		return nil
	})
	if call := os.Getenv("P2P_CALL"); call != "" {
		if _, err := h.Connect(within(t, 10*time.Second), call); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("listens on", h.Addrs()[0])
	for os.Getenv("P2P_ASK") != "" { // there is a question under way whenever it is stopped
		for _, p := range h.host.Network().Peers() {
			h.ask(t.Context(), p)
		}
	}
	<-t.Context().Done()
}

// victim starts a process with a host, which connects to call if that is not empty, and returns its address.
func victim(t *testing.T, key []byte, call string) (addr string, kill func()) {
	t.Helper()
	addr, process := launch(t, key, call)
	return addr, func() { process.Kill(); process.Wait() }
}

func launch(t *testing.T, key []byte, call string, env ...string) (addr string, _ *os.Process) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$")
	cmd.Env = append(os.Environ(), "P2P_VICTIM="+hex.EncodeToString(key), "P2P_CALL="+call)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() // both fail if a test has done so
		cmd.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if a, ok := strings.CutPrefix(lines.Text(), "listens on "); ok {
			return a, cmd.Process
		}
	}
	t.Fatal("the process did not come up")
	return "", nil
}

// deafen makes a host hear nothing any more, while it still speaks.
func deafen(t *testing.T, h *Host) {
	t.Helper()
	drop, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		t.Fatal(err)
	}
	h.udp.mu.Lock()
	defer h.udp.mu.Unlock()
	for _, s := range h.udp.sockets {
		if err := s.batch.SetBPF(drop); err != nil {
			t.Skip("this system cannot filter packets of a socket:", err)
		}
	}
}

// back is how soon a node that died must be reachable again, or be done without.
const back = 3 * time.Second

// A node that was killed and is back on another port is reachable at once, if one knows where.
func TestKilledAndMoved(t *testing.T) {
	t.Parallel()
	k := key(t)
	a := start(t, Config{Listen: loopbacks[:1]})
	addr, kill := victim(t, k, "")
	id, err := a.Connect(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Request(t.Context(), id, "/echo", nil, 10); err != nil {
		t.Fatal(err)
	}
	hanging, err := a.Open(t.Context(), id, "/hang")
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Reset()
	hanging.Write([]byte("x"))
	kill()
	addr, _ = victim(t, k, "")
	from := time.Now()
	if err := a.ConnectID(t.Context(), id, []string{addr}); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Request(t.Context(), id, "/echo", []byte("hello"), 10); err != nil || string(got) != "hello" {
		t.Errorf("Request: got %q, %v", got, err)
	}
	if took := time.Since(from); took > back {
		t.Errorf("reachable after %v, want %v", took, back)
	}
	if n := len(a.Peers()[0].Addrs); n != 1 {
		t.Errorf("connections: got %d, want the dead one closed", n)
	}
}

// A node that dies more often than it may have connections is let in and reachable each time that it comes back.
func TestManyLives(t *testing.T) {
	t.Parallel()
	k := key(t)
	a := start(t, Config{Listen: loopbacks[:1], Limits: Limits{ConnsPerPeer: 2}})
	for life := range 3 {
		from := time.Now()
		_, kill := victim(t, k, a.Addrs()[0])
		id := a.Peers()[0].ID
		if got, err := a.Request(t.Context(), id, "/echo", []byte("hello"), 10); err != nil || string(got) != "hello" {
			t.Fatalf("life %d: got %q, %v", life, got, err)
		}
		if took := time.Since(from); took > back {
			t.Errorf("life %d: reachable after %v, want %v", life, took, back)
		}
		// Streams make the connection, once dead, libp2p's favourite.
		for range 3 {
			s, err := a.Open(t.Context(), id, "/hang")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Reset()
			s.Write([]byte("x"))
		}
		kill()
	}
}

// What waits for a peer that has gone deaf is told soon: a read, a request, and opening a stream, which then finds another way.
func TestDeafPeer(t *testing.T) {
	t.Parallel()
	k := key(t)
	a, deaf := start(t, Config{Listen: loopbacks[:1]}), start(t, Config{PrivateKey: k, Listen: loopbacks[:1]})
	for _, proto := range []string{"/hang", "/other"} {
		deaf.Handle(proto, func(ctx context.Context, _ crowd.NodeID, s Stream) error { <-ctx.Done(); return nil })
	}
	connect(t, a, deaf)
	s, err := a.Open(t.Context(), deaf.ID(), "/hang")
	if err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("x"))
	deafen(t, deaf)
	from := time.Now()
	var all sync.WaitGroup
	defer all.Wait()
	soon := func(what string, f func() error) {
		all.Go(func() {
			if err := f(); err == nil || time.Since(from) > back {
				t.Errorf("%s: got %v after %v, want an error within %v", what, err, time.Since(from), back)
			}
		})
	}
	soon("read", func() error { _, err := s.Read(make([]byte, 1)); return err })
	soon("request", func() error {
		_, err := a.Request(t.Context(), deaf.ID(), "/hang", nil, 10)
		return err
	})
	again := start(t, Config{PrivateKey: k, Listen: loopbacks[:1]})
	again.Answer("/new", 10, func(context.Context, crowd.NodeID, []byte) ([]byte, error) { return nil, nil })
	p, err := PeerIDOf(deaf.ID())
	if err != nil {
		t.Fatal(err)
	}
	a.host.Peerstore().AddAddrs(p, again.host.Addrs(), time.Minute)
	all.Go(func() {
		if _, err := a.Request(t.Context(), deaf.ID(), "/new", nil, 10); err != nil || time.Since(from) > back {
			t.Errorf("request that had to be negotiated: got %v after %v, want an answer of the new host", err, time.Since(from))
		}
	})
}

// A fetch does without a source that has gone deaf.
func TestFetchFromDeaf(t *testing.T) {
	t.Parallel()
	src, dst := openStore(t), openStore(t)
	data := random(32 << 20)
	c, err := src.AddFile(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	deaf := start(t, Config{Blocks: src.Blocks(), Listen: loopbacks[:1]})
	honest := start(t, Config{Blocks: src.Blocks(), Listen: loopbacks[:1]})
	b := start(t, Config{Blocks: dst.Blocks(), Listen: loopbacks[:1]})
	connect(t, b, deaf)
	connect(t, b, honest)
	var once sync.Once
	var at time.Time
	err = b.Fetch(within(t, time.Minute), c, 65<<20, []crowd.NodeID{deaf.ID(), honest.ID()}, func(done, _ uint64) {
		if done > 8<<20 {
			once.Do(func() { at = time.Now(); deafen(t, deaf) })
		}
	})
	if took := time.Since(at); err != nil || at.IsZero() || took > back+time.Second { // the rest of the blocks takes time, too
		t.Errorf("got %v, %v after the source went deaf", err, took)
	}
}

// A peer that takes its time, but lives, keeps its connection.
func TestSlowPeer(t *testing.T) {
	t.Parallel()
	a, slow := start(t, Config{Listen: loopbacks[:1]}), start(t, Config{Listen: loopbacks[:1]})
	slow.Answer("/slow", 10, func(ctx context.Context, _ crowd.NodeID, req []byte) ([]byte, error) {
		select {
		case <-time.After(2400 * time.Millisecond): // longer than a dead one is waited for
		case <-ctx.Done():
		}
		return req, nil
	})
	connect(t, a, slow)
	since := a.Peers()[0].Since
	if got, err := a.Request(t.Context(), slow.ID(), "/slow", []byte("x"), 10); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
	if p := a.Peers()[0]; p.Since != since || p.RTT == 0 {
		t.Errorf("connection: got %+v, want the first, measured", p)
	}
}

// Of too many connections of one peer the oldest go.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	k := key(t)
	a := start(t, Config{Listen: loopbacks[:1], Limits: Limits{ConnsPerPeer: 2}})
	hosts := make([]*Host, 4) // the same node, more or less
	for i := range hosts {
		hosts[i] = start(t, Config{PrivateKey: k, Listen: loopbacks[:1]})
		connect(t, hosts[i], a)
	}
	connected := func(i int) bool { return len(hosts[i].Peers()) > 0 }
	for deadline := time.Now().Add(10 * time.Second); connected(0) || connected(1); wait(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("connections: got %v, want the first two closed", a.Peers())
		}
	}
	if !connected(2) || !connected(3) {
		t.Error("the two newest connections are closed")
	}
}

func TestPatience(t *testing.T) {
	ms := time.Millisecond
	for _, tt := range []struct {
		name string
		rtts []time.Duration
		want time.Duration
	}{
		{"unknown", nil, maxPong},
		{"near", []time.Duration{ms, ms}, minPong},
		{"far", []time.Duration{400 * ms}, 2 * (400 + 4*200) * ms},
		{"far and steady", []time.Duration{800 * ms, 800 * ms, 800 * ms, 800 * ms}, 2 * (800*ms + 4*168750*time.Microsecond)},
		{"absurd", []time.Duration{time.Hour}, maxPong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p pulse
			for _, rtt := range tt.rtts {
				p.measured(rtt)
			}
			if got := patience(p.rtt, p.deviation); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
