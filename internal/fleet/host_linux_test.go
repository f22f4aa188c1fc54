// Package fleet tests the crowd program as strangers run it: a process for each node, on hosts of a laboratory network
// with delay, loss and NATs, seen through the nodes' RPC alone. It has tests only; what nodes do is in the rooms below.
package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/chain"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/lab"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/node"
	"github.com/crowdcompute/crowd/internal/p2p"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// world is a lab with the nodes of one network in it.
type world struct {
	*testing.T
	lab     *lab.Lab
	dir     string
	bin     string
	genesis *ledger.Genesis
	chain   string
	began   time.Time
	nodes   []*member
}

// member is a node and the host that it runs on.
type member struct {
	w      *world
	name   string
	dir    string
	key    *identity.Key
	listen string
	tags   []string // of a provider
	args   []string // of node run, besides --dir and --listen

	host    *lab.Host
	process *lab.Process // nil: it does not run
	began   time.Time    // of the process
	log     *lines
	client  *rpc.Client // nil: not connected yet
}

// newWorld makes an empty lab and builds the program.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, lab: lab.New(t, lab.Config{Seed: 1}), dir: t.TempDir(), began: time.Now()}
	w.bin = filepath.Join(w.dir, "crowd")
	w.must(exec.Command("go", "build", "-buildvcs=false", "-o", w.bin, "../../cmd/crowd"))
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.hangUp()
			if t.Failed() && n.log != nil {
				t.Logf("%s: %s", n.name, n.log)
			}
		}
	})
	return w
}

func (w *world) must(c *exec.Cmd) {
	w.Helper()
	if out, err := c.CombinedOutput(); err != nil {
		w.Fatalf("%s: %v\n%s", strings.Join(c.Args, " "), err, out)
	}
}

// node makes the key and the folder of a node; start runs it.
func (w *world) node(name string, h *lab.Host, port int, tags ...string) *member {
	w.Helper()
	n := &member{w: w, name: name, dir: filepath.Join(w.dir, name), listen: fmt.Sprintf("0.0.0.0:%d", port), host: h, tags: tags}
	var err error
	if n.key, err = node.OpenKey(w.Context(), n.dir, 0, nil); err != nil {
		w.Fatal(err)
	}
	if len(tags) > 0 {
		n.args = append(n.args, "--provide", "--stake", "100")
		for _, t := range tags {
			n.args = append(n.args, "--tag", t)
		}
	}
	w.nodes = append(w.nodes, n)
	return n
}

// found makes the network: its authority, and credits for everybody, with a stake for who has tags.
func (w *world) found(authority *member, params ledger.Params) {
	w.Helper()
	a := authority.key
	g := &ledger.Genesis{
		Name: "fleet", Time: crowd.Time(time.Now().UnixMilli()), Params: params,
		Authorities: []ledger.Authority{{ID: a.ID(), VRF: a.VRF().Public(), Consensus: chain.ConsensusKey(a)}},
	}
	for _, n := range w.nodes {
		grant := ledger.Grant{ID: n.key.ID(), Balance: 1000 * crowd.Credit}
		if len(n.tags) > 0 {
			grant.Stake, grant.VRF = 100*crowd.Credit, n.key.VRF().Public()
			grant.Offer = ledger.Offer{Price: crowd.ReferencePrice, Tags: append([]string{"wasm"}, n.tags...)}
		}
		g.Grants = append(g.Grants, grant)
	}
	w.genesis, w.chain = g, g.ChainID()
}

// networkFile is one with these seeds.
func (w *world) networkFile(name string, seeds ...string) string {
	w.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, node.EncodeNetwork(node.NetworkFile(w.genesis, seeds)), 0o600); err != nil {
		w.Fatal(err)
	}
	return path
}

// addr is where the wide network reaches a node by QUIC.
func (n *member) addr() string {
	n.w.Helper()
	_, port, _ := strings.Cut(n.listen, ":")
	a, err := p2p.WithNode(fmt.Sprintf("/ip4/%s/udp/%s/quic-v1", n.host.Public(), port), n.key.ID())
	if err != nil {
		n.w.Fatal(err)
	}
	return a
}

func (n *member) id() crowd.NodeID { return n.key.ID() }

// start runs the program on the node's host; with more arguments than those of its life.
func (n *member) start(args ...string) {
	n.w.Helper()
	c := exec.Command(n.w.bin, append(append([]string{"node", "run", "-v", "--dir", n.dir, "--listen", n.listen}, n.args...), args...)...)
	c.Env = append(os.Environ(), "XDG_DATA_HOME="+n.dir, "GOMAXPROCS=2")
	n.log = &lines{}
	c.Stdout, c.Stderr = n.log, n.log
	p, err := n.host.Start(c)
	if err != nil {
		n.w.Fatal(err)
	}
	n.process, n.began = p, time.Now()
}

// kill ends the node as a power cut does.
func (n *member) kill() {
	n.hangUp()
	n.process.Kill()
	n.process = nil
}

func (n *member) hangUp() {
	if n.client != nil {
		n.client.Close()
		n.client = nil
	}
}

// call gives the node's client to f: an error of either.
func (n *member) call(f func(context.Context, *rpc.Client) error) error {
	return n.callFor(answerTime, f)
}

func (n *member) callFor(d time.Duration, f func(context.Context, *rpc.Client) error) error {
	ctx, cancel := context.WithTimeout(n.w.Context(), d)
	defer cancel()
	select {
	case <-n.process.Done():
		n.w.Errorf("%s has ended: %v", n.name, n.process.Wait())
		return errors.New("it has ended")
	default:
	}
	if n.client == nil {
		end, err := rpc.Discover(n.dir)
		if err != nil {
			return err
		}
		if n.client, err = rpc.Dial(ctx, end); err != nil {
			return err
		}
	}
	return f(ctx, n.client)
}

func (n *member) status() (s rpc.Status, err error) {
	err = n.call(func(ctx context.Context, c *rpc.Client) (err error) {
		s, err = c.Status(ctx)
		return err
	})
	return s, err
}

func (n *member) peers() (list []rpc.Peer, err error) {
	err = n.call(func(ctx context.Context, c *rpc.Client) (err error) {
		list, err = c.Peers(ctx)
		return err
	})
	return list, err
}

// find is another node as this one finds it.
func (n *member) find(other *member) (f rpc.Found, err error) {
	err = n.call(func(ctx context.Context, c *rpc.Client) (err error) {
		f, err = c.Find(ctx, other.id().String())
		if err == nil && f.Node != other.id() {
			err = fmt.Errorf("got %s", f.Node.Short())
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("%s finds %s: %w", n.name, other.name, err)
	}
	return f, err
}

// finds is nil if n finds all of them.
func (n *member) finds(list ...*member) error {
	for _, other := range list {
		if _, err := n.find(other); err != nil && n != other {
			return err
		}
	}
	return nil
}

// findsTag is nil if n finds want, and none but want and may, under a tag.
func (n *member) findsTag(tag string, want, may *member) error {
	var got []rpc.Found
	err := n.call(func(ctx context.Context, c *rpc.Client) (err error) {
		got, err = c.FindTag(ctx, tag, 100)
		return err
	})
	if err != nil {
		return err
	}
	ids := map[crowd.NodeID]bool{}
	for _, f := range got {
		ids[f.Node] = true
	}
	if !ids[want.id()] {
		return fmt.Errorf("%s does not find %s under %s", n.name, want.name, tag)
	}
	delete(ids, want.id())
	delete(ids, may.id())
	if len(ids) > 0 {
		return fmt.Errorf("%s finds others than %s and %s under %s", n.name, want.name, may.name, tag)
	}
	return nil
}

// joined is nil if the node is in the overlay and, with follows, has a header of the chain.
func (n *member) joined(follows bool) error {
	s, err := n.status()
	if err == nil && (!s.Overlay.Joined || s.Overlay.Peers == 0 || follows && s.ChainTime.IsZero()) {
		err = fmt.Errorf("joined: %v, %d in the table, chain of %v", s.Overlay.Joined, s.Overlay.Peers, s.ChainTime)
	}
	return err
}

// path is how a node is connected to another: "" where it is not.
func (n *member) path(other *member) (rpc.Peer, error) {
	list, err := n.peers()
	for _, p := range list {
		if p.Node == other.id() {
			return p, err
		}
	}
	return rpc.Peer{}, err
}

const (
	answerTime = 25 * time.Second // for one RPC; a lookup has 20 s
	patience   = 60 * time.Second // for what must come, on a machine that does much else
	pollEvery  = 100 * time.Millisecond
)

// within asks until f has no error any more, and says how long that took.
func (w *world) within(d time.Duration, what string, f func() error) (took time.Duration) {
	w.Helper()
	began := time.Now()
	defer func() {
		w.Logf("%6.1f s: %s, after %v", time.Since(w.began).Seconds(), what, took.Round(time.Millisecond))
	}()
	for {
		err := f()
		took = time.Since(began)
		if err == nil {
			return took
		}
		if took > d || w.Context().Err() != nil {
			w.Fatalf("%s: not after %v: %v", what, took.Round(time.Millisecond), err)
		}
		time.Sleep(pollEvery)
	}
}

// each does f for all of them at once, and joins what went wrong.
func each(list []*member, f func(n *member) error) error {
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, n := range list {
		all.Go(func() {
			if errs[i] = f(n); errs[i] != nil && !strings.HasPrefix(errs[i].Error(), n.name) {
				errs[i] = fmt.Errorf("%s: %w", n.name, errs[i])
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// lines keeps the end of what a process says.
type lines struct {
	mu  sync.Mutex
	buf []byte
}

const keptLog = 64 << 10

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf = append(l.buf, b...); len(l.buf) > 2*keptLog {
		l.buf = append([]byte(nil), l.buf[len(l.buf)-keptLog:]...)
	}
	return len(b), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.ToValidUTF8(l.buf, []byte("?")))
}
