package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/discovery"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
)

// This file finds other nodes and connects to them. Where a node is, the overlay says; that it is that
// node, the transport checks.

// Tags that a node announces for what it is. Those of its offer come besides.
const (
	tagChain     = "chain" // serves light nodes
	tagAuthority = "authority"
	tagProvider  = "provider" // is registered as one
	tagCountry   = "country:" // and two letters
)

// openDiscovery makes the node's part in the overlay, on the host's UDP sockets.
func (n *Node) openDiscovery() (err error) {
	var seeds []discovery.Seed
	for _, p := range n.seeds {
		if p.UDP.IsValid() && p.Relay.IsZero() && p.Node != n.id {
			seeds = append(seeds, discovery.Seed{ID: p.Node, Addr: p.UDP})
		}
	}
	var tags []string
	if n.authority {
		tags = []string{tagAuthority, tagChain}
	}
	n.host.Datagrams() // from here on they are kept: the first answers come at once
	n.disc, err = discovery.New(discovery.Config{
		Key: n.cfg.Key, Network: overlay.NetworkOf(n.chainID), Port: n.host, Self: discovery.SelfOf(n.host, n.private, n.relay), Tags: tags, Seeds: seeds,
		Difficulty: n.difficulty(), Beacons: n.beacons, Folder: n.cfg.Dir, Overlay: overlay.Config{Private: n.private}, Log: n.log,
	})
	return err
}

// parseSeeds refuses what could never be joined.
func parseSeeds(list []string) ([]p2p.Place, error) {
	var out []p2p.Place
	for _, s := range list {
		p, err := p2p.ParseAddr(s)
		if err == nil && p.Node.IsZero() {
			err = fmt.Errorf("address %q: does not say which node it is of: it must end in /p2p/ and a peer ID", s)
		}
		if err != nil {
			return nil, fmt.Errorf("seed: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

// private reports whether a network is no part of the public internet: neither its seeds are, nor where this node
// listens. Only there are addresses of a LAN or of this machine any good.
func private(seeds []p2p.Place, listen []string) bool {
	for _, s := range listen {
		if p, err := p2p.ParseAddr(s); err == nil && (public(p.UDP.Addr()) || public(p.TCP.Addr())) {
			return false
		}
	}
	for _, p := range seeds {
		a := p.UDP.Addr()
		if !a.IsValid() {
			a = p.TCP.Addr()
		}
		if !a.IsValid() || public(a) { // a name is the internet's
			return false
		}
	}
	return true
}

func public(a netip.Addr) bool { return a.IsGlobalUnicast() && !a.IsPrivate() }

// relay is the node that relays to this one: zero while none does.
func (n *Node) relay() crowd.Key {
	for _, addr := range n.host.Addrs() {
		if p, err := p2p.ParseAddr(addr); err == nil && !p.Relay.IsZero() {
			return p.Relay.Key()
		}
	}
	return crowd.Key{}
}

// maxFriends is how many peers of the LAN are introduced to the overlay.
const maxFriends = 64

// met notes a node of the LAN.
func (n *Node) met(id crowd.NodeID, _ []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.friends) < maxFriends {
		n.friends[id] = true
	}
}

const (
	introduceEvery = time.Second
	introduceAgain = 30 * time.Second // the same peer: the overlay keeps on trying by itself
	lonelyAgain    = 3 * time.Second  // the same, while the overlay knows nobody
)

// introduce tells the overlay of seeds and of peers on the LAN that the transport is connected to: under the addresses
// that led there, which a name or an announcement alone does not tell. A peer behind the same NAT is in nobody's table, so
// that a node which knows only such ones asks them whom they know.
func (n *Node) introduce(ctx context.Context) error {
	tick := time.NewTicker(introduceEvery)
	defer tick.Stop()
	last := map[crowd.NodeID]time.Time{} // as many as friends
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		known := map[crowd.NodeID]bool{}
		for _, p := range n.disc.Peers() {
			known[p.ID] = true
		}
		again := introduceAgain
		if len(known) == 0 {
			again = lonelyAgain
		}
		for _, p := range n.host.Peers() {
			n.mu.Lock()
			friend := n.friends[p.ID]
			n.mu.Unlock()
			if !friend || known[p.ID] || time.Since(last[p.ID]) < again {
				continue
			}
			last[p.ID] = time.Now()
			for _, a := range slices.Concat(p.Addrs, n.host.Known(p.ID)) {
				if at, ok := discovery.UDPOf(a); ok {
					n.introducePeer(ctx, p.ID, at)
					break
				}
			}
			if len(known) == 0 {
				n.askAround(ctx, p.ID)
			}
		}
	}
}

func (n *Node) introducePeer(ctx context.Context, id crowd.NodeID, at netip.AddrPort) {
	if err := n.disc.AddPeer(ctx, id, at); err != nil && ctx.Err() == nil {
		n.log.Debug("introduce a peer to the overlay", "peer", id.Short(), "err", err)
	}
}

// protoPeers names nodes to begin with: multiaddrs with /p2p/. Nothing is asked.
const protoPeers = "/crowd/peers/1"

const (
	peersTold    = 8 // more are not named, nor believed
	maxPeersTold = 4 << 10
	askPeersTime = 5 * time.Second
)

func (n *Node) answerPeers(ctx context.Context, _ crowd.NodeID, _ []byte) ([]byte, error) {
	list := n.relays(ctx, peersTold)
	return crowd.Encode(list[:min(len(list), peersTold)]), nil
}

// askAround introduces those to the overlay whom a peer names. Each must prove itself there, as any seed.
func (n *Node) askAround(ctx context.Context, id crowd.NodeID) {
	ask, cancel := context.WithTimeout(ctx, askPeersTime)
	defer cancel()
	var list []string
	raw, err := n.host.Request(ask, id, protoPeers, nil, maxPeersTold)
	if err == nil {
		err = crowd.Decode(raw, &list)
	}
	if err != nil {
		n.log.Debug("ask a peer on the LAN whom it knows", "peer", id.Short(), "err", err)
		return
	}
	for _, a := range list[:min(len(list), peersTold)] {
		if p, err := p2p.ParseAddr(a); err == nil && p.UDP.IsValid() && p.Relay.IsZero() && !p.Node.IsZero() && p.Node != n.id {
			n.introducePeer(ctx, p.Node, p.UDP)
		}
	}
}

// reach makes sure that id is connected, and answers.
func (n *Node) reach(ctx context.Context, id crowd.NodeID) error {
	var errs []error
	if slices.ContainsFunc(n.host.Peers(), func(p p2p.Peer) bool { return p.ID == id }) {
		err := n.host.ConnectID(ctx, id, nil)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	var last *overlay.Record
	for _, find := range []func(context.Context, crowd.NodeID) (*overlay.Record, error){n.disc.Find, n.disc.Confirm} {
		r, err := find(ctx, id)
		if err == nil && last != nil && r.Seq == last.Seq {
			break // that record has not helped
		}
		var addrs []string
		if err == nil {
			addrs, last = n.ways(ctx, r), r
		} else {
			errs = append(errs, err)
		}
		if err = n.host.ConnectID(ctx, id, addrs); err == nil { // also where it was before
			return nil
		}
		errs = append(errs, err)
		if last == nil {
			break
		}
	}
	return fmt.Errorf("reach %s: %w", id.Short(), errors.Join(errs...))
}

// ways are the multiaddrs of the node of r.
func (n *Node) ways(ctx context.Context, r *overlay.Record) []string {
	out := discovery.Addrs(r)
	if r.Relay == (crowd.Key{}) {
		return out
	}
	relay, err := n.disc.FindKey(ctx, r.Relay)
	if err != nil {
		n.log.Debug("find a relay", "of", r.ID.Short(), "err", err)
		return out
	}
	for _, a := range discovery.Addrs(relay) {
		if a, err := p2p.WithNode(a, relay.ID); err == nil {
			out = append(out, p2p.Through(a))
		}
	}
	return out
}

// relays names up to most nodes that may relay: anybody in the overlay's table who is reached directly can, if it
// has found itself public.
func (n *Node) relays(ctx context.Context, most int) (out []string) {
	select {
	case <-n.opened: // it may be asked before
	case <-ctx.Done():
		return nil
	}
	peers := n.disc.Peers()
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	for _, p := range peers {
		if len(out) >= most {
			break
		}
		for _, a := range discovery.Addrs(&overlay.Record{Endpoints: []overlay.Endpoint{p.Endpoint}}) {
			if a, err := p2p.WithNode(a, p.ID); err == nil {
				out = append(out, a)
			}
		}
	}
	return out
}

// announceOffer brings the announced tags in line with what the chain says that this node offers.
func (n *Node) announceOffer(ctx context.Context, p *ledger.Provider) error {
	var want []string
	if p != nil && p.Leaving == 0 && !p.Tombstoned {
		want = offerTags(p.Offer)
	}
	var have []string
	if r := n.disc.Record(); r != nil {
		have = r.Tags
	}
	var errs []error
	for _, t := range have {
		if t != tagChain && t != tagAuthority && !slices.Contains(want, t) {
			errs = append(errs, n.disc.Withdraw(ctx, t))
		}
	}
	for _, t := range want {
		if !slices.Contains(have, t) {
			errs = append(errs, n.disc.Announce(ctx, t))
		}
	}
	return errors.Join(errs...)
}

// offerTags are the tags of an offer that fit into a record, in the overlay's letters.
func offerTags(o ledger.Offer) []string {
	out := []string{tagProvider}
	if o.Country != "" {
		out = append(out, tagCountry+strings.ToLower(o.Country))
	}
	for _, t := range o.Tags {
		t = strings.ToLower(t)
		if len(out) < overlay.MaxTags && overlay.CheckTag(t) == nil && !slices.Contains(out, t) && t != tagChain && t != tagAuthority {
			out = append(out, t)
		}
	}
	return out
}
