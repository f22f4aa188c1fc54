package p2p

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
)

// Peer is a connected node.
type Peer struct {
	ID    crowd.NodeID
	Addrs []string      // of its connections
	RTT   time.Duration // moving average of pings; 0: not measured yet
	Path  string        // the best of its connections: "direct", "punched" (direct through NATs, after a relay had helped) or "relayed"
	Since time.Time     // of its oldest connection
}

// Peers are the connected nodes, oldest first.
func (h *Host) Peers() []Peer {
	var out []Peer
	for _, p := range h.host.Network().Peers() {
		id, err := NodeIDOf(p)
		if err != nil {
			continue // an IPFS client, no node
		}
		n := Peer{ID: id, RTT: h.host.Peerstore().LatencyEWMA(p), Path: "relayed"}
		for _, c := range h.host.Network().ConnsToPeer(p) {
			n.Addrs = append(n.Addrs, c.RemoteMultiaddr().String())
			switch {
			case relayed(c):
			case !h.wasPunched(c):
				n.Path = "direct"
			case n.Path == "relayed":
				n.Path = "punched"
			}
			if at := c.Stat().Opened; n.Since.IsZero() || at.Before(n.Since) {
				n.Since = at
			}
		}
		if len(n.Addrs) > 0 {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b Peer) int { return a.Since.Compare(b.Since) })
	return out
}

func (h *Host) wasPunched(c network.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.punched[c]
}

func relayed(c network.Conn) bool {
	_, err := c.RemoteMultiaddr().ValueForProtocol(multiaddr.P_CIRCUIT)
	return err == nil
}

// Known are the addresses under which a node was seen, as multiaddrs.
func (h *Host) Known(id crowd.NodeID) []string {
	p, err := PeerIDOf(id)
	if err != nil {
		return nil
	}
	var out []string
	for _, a := range h.host.Peerstore().Addrs(p) {
		out = append(out, a.String())
	}
	return out
}

// Connect dials a multiaddr that ends in /p2p/ and a peer ID, and returns the node behind it, which has proven its key.
func (h *Host) Connect(ctx context.Context, addr string) (crowd.NodeID, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return crowd.NodeID{}, fmt.Errorf("connect to %q: %w", addr, err)
	}
	id, err := NodeIDOf(info.ID)
	if err != nil {
		return crowd.NodeID{}, fmt.Errorf("connect to %q: %w", addr, err)
	}
	return id, h.connect(ctx, *info)
}

// ConnectID dials a node, under those multiaddrs (with or without /p2p/) and the ones already known, unless it is connected
// and has answered within the last second or, if one of addrs is new, does so now; a connection without an answer is closed.
func (h *Host) ConnectID(ctx context.Context, id crowd.NodeID, addrs []string) error {
	p, err := PeerIDOf(id)
	if err != nil {
		return err
	}
	info := peer.AddrInfo{ID: p}
	for _, s := range addrs {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			return fmt.Errorf("connect to %s: %w", id.Short(), err)
		}
		a, named := peer.SplitAddr(a)
		if named != "" && named != p {
			return fmt.Errorf("connect to %s: %s is the address of another", id.Short(), s)
		}
		info.Addrs = append(info.Addrs, a)
	}
	return h.connect(ctx, info)
}

func (h *Host) connect(ctx context.Context, info peer.AddrInfo) error {
	if info.ID == h.host.ID() {
		return fmt.Errorf("connect to %s: that is this node", info.ID)
	}
	known := h.host.Peerstore().Addrs(info.ID)
	moved := slices.ContainsFunc(info.Addrs, func(a multiaddr.Multiaddr) bool { return !slices.ContainsFunc(known, a.Equal) })
	if h.host.Network().Connectedness(info.ID) == network.Connected && h.alive(ctx, info.ID, moved) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	// Whoever asks has a reason to try now, whatever failed before.
	if s, ok := h.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID)
	}
	if err := h.host.Connect(ctx, info); err != nil {
		return fmt.Errorf("connect to %s: %w", info.ID, err)
	}
	return nil
}

// notifications tell Run of comings and goings.
type notifications struct{ h *Host }

func (n notifications) Connected(_ network.Network, c network.Conn) {
	poke(n.h.news)
	n.h.arrived(c.RemotePeer())
}
func (n notifications) Disconnected(_ network.Network, c network.Conn)   { n.h.left(c) }
func (n notifications) Listen(network.Network, multiaddr.Multiaddr)      {}
func (n notifications) ListenClose(network.Network, multiaddr.Multiaddr) {}

// poke leaves one note, which is enough.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

const (
	minRedial = 500 * time.Millisecond
	maxRedial = time.Minute
)

// AddSeed adds a multiaddr with /p2p/ to the seeds: while Run runs it is kept connected, and it may be asked to relay.
// A seed that is there already gets a further address, which is tried at once.
func (h *Host) AddSeed(addr string) error {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return fmt.Errorf("seed %q: %w", addr, err)
	}
	if info.ID == h.host.ID() {
		return fmt.Errorf("seed %q: that is this node", addr)
	}
	h.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.PermanentAddrTTL)
	if h.plant(*info) {
		poke(h.planted)
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.handlers.Go(func() {
			if err := h.connect(h.ctx, *info); err != nil {
				h.cfg.Log.Debug("further address of a seed", "err", err)
			}
		})
	}
	return nil
}

// plant reports whether the seed is new.
func (h *Host) plant(seed peer.AddrInfo) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.IndexFunc(h.seeds, func(s peer.AddrInfo) bool { return s.ID == seed.ID }); i >= 0 {
		s := &h.seeds[i]
		for _, a := range seed.Addrs {
			if !slices.ContainsFunc(s.Addrs, a.Equal) {
				s.Addrs = append(slices.Clip(s.Addrs), a)
			}
		}
		return false
	}
	h.seeds = append(h.seeds, seed)
	h.offline[seed.ID] = make(chan struct{}, 1) // capacity 1: it was lost since last looked at
	return true
}

// tend keeps all seeds, those added later too.
func (h *Host) tend(ctx context.Context) {
	var keepers sync.WaitGroup
	defer keepers.Wait()
	for kept := 0; ; {
		h.mu.Lock()
		for ; kept < len(h.seeds); kept++ {
			s, lost := h.seeds[kept], h.offline[h.seeds[kept].ID]
			keepers.Go(func() { h.keep(ctx, s, lost) })
		}
		h.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-h.planted:
		}
	}
}

// keep holds a connection to a seed: it dials when there is none, waiting longer after each failure.
func (h *Host) keep(ctx context.Context, seed peer.AddrInfo, lost <-chan struct{}) {
	h.host.ConnManager().Protect(seed.ID, "seed")
	h.host.Peerstore().AddAddrs(seed.ID, seed.Addrs, peerstore.PermanentAddrTTL)
	wait := minRedial
	for ctx.Err() == nil {
		err := h.connect(ctx, seed)
		if err == nil {
			wait = minRedial
			select {
			case <-ctx.Done():
			case <-lost: // perhaps of an earlier connection: connect looks
			}
			continue
		}
		h.cfg.Log.Debug("seed is out of reach", "seed", seed.ID, "again in", wait, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait)): // spread, so that a seed that comes back is not stormed
		}
		wait = min(2*wait, maxRedial)
	}
}

// findOnLAN connects to nodes that announce themselves by multicast DNS.
func (h *Host) findOnLAN(ctx context.Context) {
	found := make(chan peer.AddrInfo, 16) // more at a time are dropped: they announce themselves again
	s := mdns.NewMdnsService(h.host, serviceName(h.cfg.LANTag), notifee(found))
	if err := s.Start(); err != nil {
		h.cfg.Log.Warn("no discovery on the LAN", "err", err)
		return
	}
	defer s.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case info := <-found:
			id, err := NodeIDOf(info.ID)
			if err != nil || info.ID == h.host.ID() {
				continue
			}
			if h.cfg.Found != nil {
				var addrs []string
				for _, a := range info.Addrs {
					addrs = append(addrs, a.String())
				}
				h.cfg.Found(id, addrs)
			}
			if err := h.connect(ctx, info); err != nil {
				h.cfg.Log.Debug("found on the LAN", "err", err)
			}
		}
	}
}

// serviceName is what nodes of one tag announce. A tag may be anything, and the name at
// most 15 characters (RFC 6763, section 7.2), so it is hashed.
func serviceName(tag string) string {
	if tag == "" {
		return "_crowd-p2p._udp"
	}
	sum := sha256.Sum256([]byte(tag))
	return fmt.Sprintf("_crowd-%x._udp", sum[:4])
}

type notifee chan<- peer.AddrInfo

func (n notifee) HandlePeerFound(info peer.AddrInfo) {
	select {
	case n <- info:
	default:
	}
}

const pingEvery = 15 * time.Second

// measure asks new peers at once and all others now and then for a sign of life.
func (h *Host) measure(ctx context.Context) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		all := false
		select {
		case <-ctx.Done():
			return
		case <-h.news:
		case <-tick.C:
			all = true
		}
		var g errgroup.Group
		g.SetLimit(16)
		for _, p := range h.host.Network().Peers() {
			if all || h.host.Peerstore().LatencyEWMA(p) == 0 {
				g.Go(func() error { h.ask(ctx, p); return nil })
			}
		}
		g.Wait()
	}
}
