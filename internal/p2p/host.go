// Package p2p is a node's one libp2p host: connections under the node's own
// key, streams, gossip, the fetching and serving of blocks, and datagrams on
// the UDP sockets of its QUIC. It does not know what the streams, messages and
// datagrams mean, and it discovers nobody but its seeds and the peers on its LAN.
package p2p

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/bitswap/server"
	"github.com/ipfs/boxo/blockstore"
	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/store"
)

// Config of a host. Only PrivateKey has no default.
type Config struct {
	PrivateKey []byte   // 32 bytes, secp256k1: the node's
	Listen     []string // multiaddrs; nil: QUIC and TCP on all IPv4 interfaces, ports chosen by the system
	Seeds      []string // multiaddrs with /p2p/: kept connected while Run runs, and asked to relay
	MDNS       bool     // find nodes on the LAN while Run runs, and connect to them
	LANTag     string   // only nodes with the same tag find each other on the LAN: the network's name
	// Found hears of nodes that are found on the LAN, before they are dialled: multiaddrs without /p2p/, whose owner nobody has
	// checked. It must not block; nil: nobody hears.
	Found func(id crowd.NodeID, addrs []string)
	// Relays names up to n hosts that may relay for this one, multiaddrs with /p2p/. It is called now and then
	// while the host is private and lacks relays; nil: only seeds are asked.
	Relays func(ctx context.Context, n int) []string
	// Reachability is forced, for tests; Unknown or empty: AutoNAT finds out.
	Reachability Reachability
	Topics       []string // of gossip; what peers say about others is ignored
	// Find makes sure that a node is connected, before blocks are asked of it; nil: only whoever is connected is asked.
	Find   func(ctx context.Context, id crowd.NodeID) error
	Blocks blockstore.Blockstore // served to everybody, filled by Fetch; nil: neither
	Limits Limits
	Log    *slog.Logger // nil: silent

	options []libp2p.Option // of tests
}

func (c Config) withDefaults() Config {
	if c.Listen == nil {
		c.Listen = []string{"/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0"}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Reachability = cmp.Or(c.Reachability, Unknown)
	c.Limits = c.Limits.withDefaults()
	return c
}

// Host is a running libp2p host. Its methods may be called concurrently.
type Host struct {
	// set once
	cfg     Config
	id      crowd.NodeID
	host    host.Host
	gossip  *pubsub.PubSub
	bitswap *server.Server // for stock IPFS clients; nil without blocks
	bsnet   network.BitSwapNetwork
	udp     *datagrams
	ctx     context.Context // of handlers and gossip: ends with Close
	cancel  context.CancelFunc
	news    chan struct{} // capacity 1: somebody new to ping
	planted chan struct{} // capacity 1: a new seed
	made    chan struct{} // closed when host is set: libp2p's parts call us before it is

	fetched, served atomic.Uint64 // bytes of blocks

	handlers sync.WaitGroup // Add with mu held and not closed

	// guarded by mu
	mu     sync.Mutex
	closed bool
	topics map[string]*topic
	pulses map[peer.ID]*pulse // of connected peers
	seeds  []peer.AddrInfo
	// offline gets a note, at most one, when a connection to that seed was lost
	offline   map[peer.ID]chan struct{}
	sightings map[libnet.Conn]sighting // of this host, by open connections
	punched   map[libnet.Conn]bool     // open ones that hole punching brought
	reach     Reachability
	reachNews chan struct{} // closed, and replaced, when reach changes
}

// New makes a host and listens; handlers can be added from then on. On an error nothing keeps running.
func New(cfg Config) (_ *Host, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start p2p host: %w", err)
		}
	}()
	cfg = cfg.withDefaults()
	h := &Host{
		cfg:       cfg,
		udp:       newDatagrams(),
		news:      make(chan struct{}, 1),
		planted:   make(chan struct{}, 1),
		made:      make(chan struct{}),
		topics:    map[string]*topic{},
		pulses:    map[peer.ID]*pulse{},
		offline:   map[peer.ID]chan struct{}{},
		sightings: map[libnet.Conn]sighting{},
		punched:   map[libnet.Conn]bool{},
		reach:     cfg.Reachability,
		reachNews: make(chan struct{}),
	}
	switch cfg.Reachability {
	case Unknown, Public, Private:
	default:
		return nil, fmt.Errorf("reachability %q", cfg.Reachability)
	}
	key, err := parseKey(cfg.PrivateKey)
	if err != nil {
		return nil, err
	}
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	if h.id, err = NodeIDOf(self); err != nil {
		return nil, err
	}
	for _, s := range cfg.Seeds {
		info, err := peer.AddrInfoFromString(s)
		if err != nil {
			return nil, fmt.Errorf("seed %q: %w", s, err)
		}
		if info.ID != self {
			h.plant(*info)
		}
	}
	resources, conns, err := cfg.Limits.managers()
	if err != nil {
		return nil, err
	}
	h.host, err = libp2p.New(append(h.options(), libp2p.Identity(key), libp2p.ResourceManager(resources),
		libp2p.ConnectionManager(conns), libp2p.QUICReuse(h.udp.manager))...)
	close(h.made)
	if err != nil {
		return nil, errors.Join(err, resources.Close(), conns.Close(), h.udp.close()) // a host that came to be closes the first two itself
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	h.host.Network().Notify(notifications{h})
	if err := h.listenToEvents(); err != nil {
		return nil, err
	}
	if h.gossip, err = newGossip(h.ctx, h.host, cfg.Topics); err != nil {
		return nil, err
	}
	if cfg.Blocks != nil {
		h.bsnet = bsnet.NewFromIpfsHost(h.host)
		h.bitswap = server.New(h.ctx, h.bsnet, cfg.Blocks,
			server.MaxOutstandingBytesPerPeer(2*store.MaxBlock),
			server.MaxQueuedWantlistEntriesPerPeer(1024),
			server.MaxCidSize(64),
			server.EngineBlockstoreWorkerCount(8),
			server.EngineTaskWorkerCount(2),
			server.TaskWorkerCount(2),
		)
		h.bsnet.Start(bitswapServer{h.bitswap})
		h.Handle(blocksProtocol, h.serveBlocks)
	}
	for i, s := range cfg.Listen {
		a, err := multiaddr.NewMultiaddr(s)
		if err == nil && slices.Contains(cfg.Listen[:i], s) {
			err = errors.New("it is named twice") // libp2p panics
		}
		if err == nil {
			err = h.host.Network().Listen(a)
		}
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", s, err)
		}
	}
	h.udp.settle(h.LocalUDP())
	return h, nil
}

// bitswapServer is a bitswap peer that wants nothing.
type bitswapServer struct{ *server.Server }

func (bitswapServer) ReceiveError(error) {}

func parseKey(b []byte) (crypto.PrivKey, error) {
	var k secp256k1.ModNScalar
	if overflow := k.SetByteSlice(b); len(b) != 32 || overflow || k.IsZero() {
		return nil, errors.New("private key: want 32 bytes, from 1 to the order of secp256k1")
	}
	return crypto.UnmarshalSecp256k1PrivateKey(b)
}

func (h *Host) options() []libp2p.Option {
	opts := []libp2p.Option{
		libp2p.NoListenAddrs, // New listens itself, last
		libp2p.Transport(quic.NewTransport),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.DefaultMuxers,
		libp2p.DisableMetrics(), // they would go to prometheus's global registry
		libp2p.UserAgent("crowd"),
		libp2p.EnableRelay(), // to dial and be dialled through others' relays
	}
	return slices.Concat(opts, h.traversal(), h.cfg.options)
}

func loopback(addrs []string) bool {
	for _, s := range addrs {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil || !manet.IsIPLoopback(a) {
			return false
		}
	}
	return true
}

// Run keeps the seeds connected, finds peers on the LAN and measures round-trip times
// until ctx ends. It returns after all that it started has ended.
func (h *Host) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { h.tend(ctx); return nil })
	if h.cfg.MDNS {
		g.Go(func() error { h.findOnLAN(ctx); return nil })
	}
	g.Go(func() error { h.measure(ctx); return nil })
	return g.Wait()
}

// Close ends all connections and returns after all handlers have.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	if h.bitswap != nil {
		h.bsnet.Stop()
		h.bitswap.Close()
	}
	err := errors.Join(h.host.Close(), h.udp.close())
	h.handlers.Wait()
	return err
}

// ID is the node's own.
func (h *Host) ID() crowd.NodeID { return h.id }

// Addrs are the addresses under which others can reach this host, each with /p2p/ and its peer ID.
func (h *Host) Addrs() []string {
	list, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: h.host.ID(), Addrs: h.host.Addrs()})
	if err != nil {
		panic("bug: " + err.Error()) // only for an invalid peer ID
	}
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return out
}

// LocalAddrs are the addresses of the machine's own interfaces on which this host listens, without /p2p/. Whether others get
// through to them is not known.
func (h *Host) LocalAddrs() []string {
	list, err := h.host.Network().InterfaceListenAddresses()
	if err != nil {
		h.cfg.Log.Debug("list the addresses of the interfaces", "err", err)
	}
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return out
}

// NodeIDOf is the node behind a peer ID: only secp256k1 peers have one.
func NodeIDOf(p peer.ID) (crowd.NodeID, error) {
	pub, err := p.ExtractPublicKey()
	if err != nil {
		return crowd.NodeID{}, fmt.Errorf("peer %s: %w", p, err)
	}
	k, ok := pub.(*crypto.Secp256k1PublicKey)
	if !ok {
		return crowd.NodeID{}, fmt.Errorf("peer %s: its key is %s, want secp256k1", p, pub.Type())
	}
	return crowd.NodeID((*secp256k1.PublicKey)(k).SerializeUncompressed()[1:]), nil
}

// PeerIDOf is libp2p's name of a node. It fails for bytes that are no point of the curve.
func PeerIDOf(id crowd.NodeID) (peer.ID, error) {
	pub, err := secp256k1.ParsePubKey(append([]byte{4}, id[:]...))
	if err != nil {
		return "", fmt.Errorf("node %s: %w", id.Short(), err)
	}
	return peer.IDFromPublicKey((*crypto.Secp256k1PublicKey)(pub))
}

const (
	dialTimeout   = 20 * time.Second
	streamTimeout = 30 * time.Second
)
