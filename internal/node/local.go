package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/atomicfile"
	"github.com/crowdcompute/crowd/internal/chain"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/wasm"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/p2p"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/store"
)

// LocalConfig is a whole network on this machine: authorities, providers, and
// one consumer whose RPC the user talks to. Zero fields get defaults.
type LocalConfig struct {
	Dir       string
	Providers int                   // default 7
	Params    ledger.Params         // of a new network; default ledger.LocalParams
	Cheats    map[int]Cheat         // by provider, 0-based; adversaries for demonstrations and tests
	Stakes    map[int]crowd.Credits // of a new network's providers; default 10,000 credits
	RPC       string                // TCP address; default a free port of 127.0.0.1
	Listen    []string              // multiaddrs of the authority; the other nodes take free ports of the same IP addresses; default loopback
	Worker    []string              // command that starts a wasm worker
	Version   string
	Log       *slog.Logger

	alone bool // on loopback: nobody looks for it on the LAN
}

// Cheat wraps a provider's executor: the only place where a demonstration may lie.
type Cheat func(executor.Executor) executor.Executor

func (c LocalConfig) withDefaults() LocalConfig {
	if c.Providers == 0 {
		c.Providers = 7
	}
	if c.Params == (ledger.Params{}) {
		c.Params = ledger.LocalParams()
	}
	if c.Listen == nil {
		c.alone = true
		c.Listen = []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// freePorts are the same multiaddrs with ports that the system chooses.
func freePorts(listen []string) (out []string, err error) {
	for _, s := range listen {
		p, err := p2p.ParseAddr(s)
		switch {
		case err != nil:
			return nil, err
		case p.UDP.IsValid():
			out = append(out, strings.Replace(s, fmt.Sprintf("/udp/%d/", p.UDP.Port()), "/udp/0/", 1))
		case p.TCP.IsValid():
			out = append(out, strings.Replace(s, fmt.Sprintf("/tcp/%d", p.TCP.Port()), "/tcp/0", 1))
		default:
			return nil, fmt.Errorf("listen on %s: want QUIC or TCP at an IP address", s)
		}
	}
	return out, nil
}

// What everybody has in a new local network.
const (
	consumerFunds  = 1_000_000 * crowd.Credit
	providerFunds  = 10 * crowd.Credit
	providerStake  = 10_000 * crowd.Credit // enough for a run of 10 Tgas at the reference price
	authorityFunds = 10 * crowd.Credit
)

// Local is a network of nodes in one process, each with its own key, folder and sockets.
type Local struct {
	cfg     LocalConfig
	genesis *ledger.Genesis
	keys    localKeys
	lock    *os.File // held while the network is open

	mu    sync.Mutex
	nodes []*Node                 // guarded by mu: authority, providers, consumer
	ends  map[crowd.NodeID]func() // guarded by mu: end a node alone, and return when it has ended
	ready chan struct{}
}

type localKeys struct {
	authority, consumer *identity.Key
	providers           []*identity.Key
}

// OpenLocal makes a network in an empty folder, or opens the one that is there.
// A network keeps the number of providers that it was made with.
func OpenLocal(cfg LocalConfig) (*Local, error) {
	cfg = cfg.withDefaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	lock, err := store.Lock(filepath.Join(cfg.Dir, "lock"))
	if errors.Is(err, store.ErrLocked) {
		return nil, fmt.Errorf("open network: another crowd up runs in %s: %w", cfg.Dir, err)
	} else if err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	l := &Local{cfg: cfg, lock: lock, ready: make(chan struct{}), ends: map[crowd.NodeID]func(){}}
	err = l.load()
	for i := range l.cfg.Cheats {
		if err == nil && (i < 0 || i >= l.Providers()) {
			err = fmt.Errorf("provider %d is to cheat, there are %d", i, l.Providers())
		}
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("open network in %s: %w", cfg.Dir, err)
	}
	return l, nil
}

// networkFile is what others need to join, in the network's folder: node.DecodeNetwork reads it.
const networkFile = "network.json"

func (l *Local) genesisPath() string { return filepath.Join(l.cfg.Dir, "genesis") }

func (l *Local) load() error {
	raw, err := os.ReadFile(l.genesisPath())
	made := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if made {
		l.genesis = &ledger.Genesis{}
		if err := crowd.Decode(raw, l.genesis); err != nil {
			return fmt.Errorf("%s is damaged: %w; remove the folder to begin anew", l.genesisPath(), err)
		}
		l.cfg.Providers = len(l.genesis.Grants) - 2
		l.cfg.Params = l.genesis.Params
	}
	key := func(name string) (*identity.Key, error) {
		if made {
			return readKey(filepath.Join(l.dir(name), "key"))
		}
		return OpenKey(context.Background(), l.dir(name), l.cfg.Params.Puzzles.Static, nil)
	}
	if l.keys.authority, err = key("authority"); err != nil {
		return err
	}
	if l.keys.consumer, err = key("consumer"); err != nil {
		return err
	}
	for i := range l.cfg.Providers {
		k, err := key(providerName(i))
		if err != nil {
			return err
		}
		l.keys.providers = append(l.keys.providers, k)
	}
	if made {
		return nil
	}
	l.genesis = l.newGenesis()
	return atomicfile.Write(l.genesisPath(), crowd.Encode(l.genesis), 0o600)
}

func (l *Local) newGenesis() *ledger.Genesis {
	a := l.keys.authority
	g := &ledger.Genesis{
		Name: "crowd-local", Time: crowd.Time(time.Now().UnixMilli()), Params: l.cfg.Params,
		Authorities: []ledger.Authority{{ID: a.ID(), VRF: a.VRF().Public(), Consensus: chain.ConsensusKey(a)}},
		Grants: []ledger.Grant{
			{ID: a.ID(), Balance: authorityFunds},
			{ID: l.keys.consumer.ID(), Balance: consumerFunds},
		},
	}
	for i, k := range l.keys.providers {
		stake := providerStake
		if s, ok := l.cfg.Stakes[i]; ok {
			stake = s
		}
		g.Grants = append(g.Grants, ledger.Grant{
			ID: k.ID(), Balance: providerFunds, Stake: stake, VRF: k.VRF().Public(),
			Offer: ledger.Offer{Price: crowd.ReferencePrice, Tags: []string{"wasm"}, Memory: mostMemory()},
		})
	}
	return g
}

func providerName(i int) string { return fmt.Sprintf("provider-%d", i+1) }

func (l *Local) dir(name string) string { return filepath.Join(l.cfg.Dir, name) }

// Genesis of the network; the caller must not change it.
func (l *Local) Genesis() *ledger.Genesis { return l.genesis }

// Endpoint is where the consumer's RPC is, once Ready.
func (l *Local) Endpoint() rpc.Endpoint { return l.Consumer().rpc.Endpoint() }

// Provider is the ID of the i-th, 0-based.
func (l *Local) Provider(i int) crowd.NodeID { return l.keys.providers[i].ID() }

// Providers is how many there are.
func (l *Local) Providers() int { return len(l.keys.providers) }

// StopProvider ends the i-th, 0-based, while the others go on: for demonstrations and tests of who is missed.
func (l *Local) StopProvider(i int) {
	l.mu.Lock()
	end := l.ends[l.Provider(i)]
	l.mu.Unlock()
	if end != nil {
		end()
	}
}

// Consumer is the node that the user talks to, once Ready.
func (l *Local) Consumer() *Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[len(l.nodes)-1]
}

// Ready is closed when every node serves.
func (l *Local) Ready() <-chan struct{} { return l.ready }

// Run runs all nodes, on one pool of workers since they share one machine, and returns when ctx has ended and they have, or one failed.
func (l *Local) Run(ctx context.Context) error {
	defer l.lock.Close()
	exec, err := wasm.New(wasm.Config{CacheDir: l.dir("compiled"), Command: l.cfg.Worker})
	if err != nil {
		return err
	}
	defer exec.Close()
	others, err := freePorts(l.cfg.Listen)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	start := func(name string, c Config) (*Node, error) {
		c.Dir, c.Genesis, c.Version = l.dir(name), l.genesis, l.cfg.Version
		c.MDNS = !l.cfg.alone
		c.Log = l.cfg.Log.With("node", name)
		n, err := New(c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		ctx, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		l.mu.Lock()
		l.nodes = append(l.nodes, n)
		l.ends[n.id] = func() {
			cancel()
			<-ended
		}
		l.mu.Unlock()
		g.Go(func() error {
			defer close(ended)
			defer cancel()
			if err := n.Run(ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
		return n, nil
	}
	err = func() error {
		a, err := start("authority", Config{Key: l.keys.authority, Exec: exec, Listen: l.cfg.Listen})
		if err != nil {
			return err
		}
		// All that anybody is told of the others: who is there besides, nodes find out.
		file := a.network()
		if err := atomicfile.Write(filepath.Join(l.cfg.Dir, networkFile), EncodeNetwork(file), 0o600); err != nil {
			return err
		}
		for i, k := range l.keys.providers {
			var e executor.Executor = exec
			if cheat := l.cfg.Cheats[i]; cheat != nil {
				e = cheat(exec)
			}
			if _, err := start(providerName(i), Config{Key: k, Exec: e, Listen: others, Seeds: file.Seeds}); err != nil {
				return err
			}
		}
		_, err = start("consumer", Config{Key: l.keys.consumer, Listen: others, Seeds: file.Seeds, RPC: &rpc.Config{Dir: l.cfg.Dir, Addr: l.cfg.RPC}})
		return err
	}()
	if err != nil {
		g.Go(func() error { return err })
	} else {
		g.Go(func() error {
			for _, n := range l.nodes {
				select {
				case <-n.Ready():
				case <-ctx.Done():
					return nil
				}
			}
			close(l.ready)
			return nil
		})
	}
	return g.Wait()
}
