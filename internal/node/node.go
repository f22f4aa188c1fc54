// Package node wires the rooms into a node, and nodes into a local network: it
// is the list of parts and the order in which they start and stop. It decides
// nothing that is on chain and knows no flags.
package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/chain"
	"github.com/crowdcompute/crowd/internal/discovery"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/wasm"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/runner"
	"github.com/crowdcompute/crowd/internal/store"
)

// Config of one node. What it is (authority, provider, consumer) the chain says.
type Config struct {
	Dir     string
	Key     *identity.Key
	Genesis *ledger.Genesis
	Listen  []string          // multiaddrs
	Seeds   []string          // multiaddrs with /p2p/ to begin with; the node remembers whom it meets
	MDNS    bool              // find nodes of the same network on the LAN
	Offer   *Offer            // register as a provider with it as soon as the balance suffices; nil: what the chain says holds
	Exec    executor.Executor // nil: this node runs nothing; the caller closes it after Run
	RPC     *rpc.Config       // nil: no RPC
	Version string
	Log     *slog.Logger
}

// Offer is what a node wants to be registered with.
type Offer struct {
	ledger.Offer
	Stake crowd.Credits // at least; more than is staked already is taken from the balance
}

// chainNode is what full and light nodes have in common.
type chainNode interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
	ChainID() string
	Head() chain.Head
	Get(ctx context.Context, key []byte) ([]byte, error)
	List(ctx context.Context, prefix string) ([]ledger.Change, error)
	Jobs(ctx context.Context, since crowd.Height) ([]crowd.JobID, error)
	Prove(ctx context.Context, key []byte) (chain.Proved, error)
	Watch(ctx context.Context) <-chan chain.Block
	Send(ctx context.Context, raw []byte) (chain.Included, error)
}

// Node is one member of the network.
type Node struct {
	// set once
	cfg         Config
	id          crowd.NodeID
	chainID     string
	params      ledger.Params
	authority   bool
	seeds       []p2p.Place
	private     bool // the network is a LAN's or this machine's own
	log         *slog.Logger
	started     time.Time
	store       *store.Store
	host        *p2p.Host
	disc        *discovery.Discovery
	chain       chainNode
	wallet      *chain.Wallet
	runner      *runner.Runner
	teller      *teller
	book        *book
	rpc         *rpc.Server // nil: none
	genesisTold genesisCount
	chores      chan func(context.Context)
	choresEnd   chan struct{} // closed when no more are done
	opened      chan struct{} // closed when New has made all of these
	ready       chan struct{}
	short       chan struct{} // space is; one that asks is enough
	dozed       chan struct{} // capacity 1: a draw may have been missed

	mu      sync.Mutex
	friends map[crowd.NodeID]bool      // guarded by mu: seeds, and peers seen on the LAN
	asked   map[crowd.NodeID]time.Time // guarded by mu: full nodes, when each was last turned to
	enrol   string                     // guarded by mu: how far the registration of Config.Offer is
	left    bool                       // guarded by mu: the user wants it no more
	epochs  []overlay.Beacon           // guarded by mu: see beacons
}

// New opens everything that the node keeps and listens; nothing runs before Run.
func New(cfg Config) (_ *Node, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{
		cfg: cfg, id: cfg.Key.ID(), chainID: cfg.Genesis.ChainID(), params: cfg.Genesis.Params,
		log: cfg.Log, started: time.Now().UTC(), chores: make(chan func(context.Context), chores), choresEnd: make(chan struct{}),
		opened: make(chan struct{}), ready: make(chan struct{}), short: make(chan struct{}, 1), dozed: make(chan struct{}, 1), friends: map[crowd.NodeID]bool{}, asked: map[crowd.NodeID]time.Time{},
	}
	if n.seeds, err = parseSeeds(cfg.Seeds); err != nil {
		return nil, err
	}
	n.private = private(n.seeds, cfg.Listen)
	for _, s := range n.seeds {
		n.friends[s.Node] = true
	}
	n.teller = &teller{node: n, lines: map[line]chan telling{}}
	n.authority = slices.ContainsFunc(cfg.Genesis.Authorities, func(a ledger.Authority) bool { return a.ID == n.id })
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open node: %w", err)
	}
	// The store's lock is the folder's: it comes first.
	if n.store, err = store.Open(filepath.Join(cfg.Dir, "store"), store.Config{Reserve: reserve}); err != nil {
		return nil, err
	}
	if n.book, err = openBook(filepath.Join(cfg.Dir, "jobs"), n.params.CommitteeUnits, cfg.Log); err != nil {
		return nil, err
	}
	n.host, err = p2p.New(p2p.Config{
		PrivateKey: cfg.Key.Bytes(), Listen: cfg.Listen, Seeds: cfg.Seeds, MDNS: cfg.MDNS, LANTag: n.chainID, Found: n.met,
		Relays: n.relays, Find: n.reach, Blocks: n.store.Blocks(), Limits: p2p.Limits{Protocols: protocolLimits}, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := n.openDiscovery(); err != nil {
		return nil, err
	}
	if err := n.openChain(); err != nil {
		return nil, err
	}
	n.runner, err = runner.New(runner.Config{
		Dir: filepath.Join(cfg.Dir, "runner"), Key: cfg.Key, Rand: rand.Reader, Params: n.params, Authorities: cfg.Genesis.Authorities,
		Chain: jobChain{n}, Blocks: jobBlocks{n}, Executor: cfg.Exec, Unusable: unusable, Full: full,
		Roles: n.jobRoles(), Accept: n.takes, Logs: n.teller, Report: n.reported, Undelivered: n.undelivered, Log: cfg.Log,
		Memory: wasm.RunMemory(),
	})
	if err != nil {
		return nil, err
	}
	if full, ok := n.chain.(*chain.Full); ok {
		n.host.Handle(protoChain, func(ctx context.Context, from crowd.NodeID, s p2p.Stream) error {
			if err := s.SetDeadline(time.Time{}); err != nil { // a light node stays
				return err
			}
			return full.Serve(ctx, from, s)
		})
	}
	n.host.Answer(protoGenesis, maxChainID+8, n.answerGenesis)
	n.host.Answer(protoPeers, 0, n.answerPeers)
	n.host.Handle(protoTelling, n.hear)
	if cfg.RPC != nil {
		if n.rpc, err = rpc.NewServer(*cfg.RPC, backend{n}); err != nil {
			return nil, err
		}
		if err := n.rpc.Listen(); err != nil {
			return nil, err
		}
	}
	close(n.opened)
	return n, nil
}

// ID of the node.
func (n *Node) ID() crowd.NodeID { return n.id }

// Addrs are the multiaddrs under which others can reach the node, each with /p2p/.
func (n *Node) Addrs() []string { return n.host.Addrs() }

// Endpoint is where the node's RPC is; zero without one.
func (n *Node) Endpoint() rpc.Endpoint {
	if n.rpc == nil {
		return rpc.Endpoint{}
	}
	return n.rpc.Endpoint()
}

// Ready is closed when the node follows the chain and takes part in jobs.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// provides reports whether this node runs programs to be paid; an authority runs them for the court.
func (n *Node) provides() bool { return n.cfg.Exec != nil && !n.authority && n.sameRules() }

// sameRules reports whether this build comes to the outcomes to which its network holds nodes.
func (n *Node) sameRules() bool { return n.params.Rules == crowd.RulesVersion }

// jobRoles are the parts that the node takes in jobs; nil: all for which it has the means. With other rules than its
// network's it could lose its stake for an honest outcome, and convict others for theirs.
func (n *Node) jobRoles() []job.Role {
	if n.sameRules() {
		return nil
	}
	n.log.Warn("this build executes by other rules than its network: it takes part in no job but its own node's, and neither claims, verifies nor votes; "+
		"install a build of crowd with the network's rules", "build_rules", crowd.RulesVersion, "network_rules", n.params.Rules)
	return []job.Role{job.AsConsumer}
}

func (n *Node) roles() []string {
	out := []string{"consumer"}
	if n.provides() {
		out = append(out, "provider")
	}
	if n.authority {
		out = append(out, "authority")
	}
	return out
}

// Run runs the node until ctx ends or a part of it fails; parts close in
// reverse order of their start.
func (n *Node) Run(ctx context.Context) error {
	defer n.close()
	g, ctx := errgroup.WithContext(ctx)
	part := func(name string, run func(context.Context) error) {
		g.Go(func() error {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	part("store", n.tidy)
	part("p2p", n.host.Run)
	part("discovery", n.disc.Run)
	part("introductions", n.introduce)
	part("doubts", n.doubt)
	part("chain", n.chain.Run)
	if n.params.Puzzles.Dynamic > 0 {
		part("epochs", n.followEpochs)
	}
	part("jobs", func(ctx context.Context) error {
		select {
		case <-n.chain.Ready():
			close(n.ready)
			g.Go(func() error { return n.doChores(ctx) })
			if n.provides() {
				g.Go(func() error { return n.offer(ctx) })
			}
			return n.runner.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	if n.rpc != nil {
		part("rpc", n.rpc.Run)
	}
	return g.Wait()
}

// close gives back what New opened.
func (n *Node) close() {
	if n.host != nil {
		n.host.Close()
	}
	if n.book != nil {
		if err := n.book.close(); err != nil {
			n.log.Warn("close job book", "err", err)
		}
	}
	if n.store != nil {
		if err := n.store.Close(); err != nil {
			n.log.Warn("close store", "err", err)
		}
	}
}
