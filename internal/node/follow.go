package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/chain"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// protoChain is the light nodes' stream to a full node.
const protoChain = "/crowd/chain/1"

const (
	askTime   = 3 * time.Second // for one full node, before another is turned to
	joinTime  = 3 * time.Second // for the overlay, before it is asked without having been joined
	fullNodes = 8               // that are looked for by their tag
	maxAsked  = 256             // remembered
)

// openChain makes an authority's full node, which serves light ones, or a light
// node that finds a full one by itself.
func (n *Node) openChain() error {
	if n.authority {
		full, err := chain.NewFull(chain.Config{Dir: filepath.Join(n.cfg.Dir, "chain"), Genesis: n.cfg.Genesis, Key: n.cfg.Key, Log: n.log})
		if err != nil {
			return err
		}
		n.chain, n.wallet = full, full.Wallet()
		return nil
	}
	light := chain.NewLight(chain.LightConfig{
		Genesis: n.cfg.Genesis, Self: n.id, Dial: n.dialChain, Log: n.log,
		Prefixes: []string{ledger.PrefixJob, string(ledger.EpochsKey())},
	})
	n.chain, n.wallet = light, chain.NewWallet(n.cfg.Key, light)
	return nil
}

// dialChain opens a stream to a full node, of those that are known to the one that was turned to longest ago: a stream
// that ended may have ended for a reason. Seeds come first, then the authorities, then who announces the chain.
func (n *Node) dialChain(ctx context.Context) (io.ReadWriteCloser, error) {
	errs := []error{errors.New("no node that serves the chain was found")}
	tried := map[crowd.NodeID]bool{n.id: true}
	try := func(id crowd.NodeID) io.ReadWriteCloser {
		if tried[id] || ctx.Err() != nil {
			return nil
		}
		tried[id] = true
		n.turnTo(id)
		s, err := n.askFull(ctx, id)
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		return s
	}
	seeds := n.seedIDs()
	waited := false
	for _, id := range n.byAge(slices.Concat(seeds, n.authorities(), n.tagged(tagChain))) {
		if !waited && !slices.Contains(seeds, id) {
			n.joinFirst(ctx)
			waited = true
		}
		if s := try(id); s != nil {
			return s, nil
		}
	}
	find, cancel := context.WithTimeout(ctx, findTime) // the overlay waits for the chain's beacon, where records have a puzzle
	defer cancel()
	found, err := n.disc.FindTag(find, tagChain, fullNodes)
	if err != nil {
		errs = append(errs, err)
	}
	var ids []crowd.NodeID
	for _, r := range found {
		ids = append(ids, r.ID)
	}
	for _, id := range n.byAge(ids) {
		if s := try(id); s != nil {
			return s, nil
		}
	}
	return nil, errors.Join(errs...)
}

// askFull opens the stream to one full node.
func (n *Node) askFull(ctx context.Context, id crowd.NodeID) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := n.reach(ctx, id); err != nil {
		return nil, err
	}
	s, err := n.host.Open(ctx, id, protoChain)
	if err != nil {
		return nil, fmt.Errorf("ask %s for the chain: %w", id.Short(), err)
	}
	return s, nil
}

// joinFirst waits for the overlay, a while: who has not joined finds nobody.
func (n *Node) joinFirst(ctx context.Context) {
	select {
	case <-n.disc.Ready():
	case <-time.After(joinTime):
	case <-ctx.Done():
	}
}

func (n *Node) turnTo(id crowd.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.asked) >= maxAsked {
		clear(n.asked)
	}
	n.asked[id] = time.Now()
}

// byAge are the nodes of a list, each once: those first that were never turned to, in the order of the list, then by how long ago.
func (n *Node) byAge(list []crowd.NodeID) []crowd.NodeID {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []crowd.NodeID
	for _, id := range list {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	slices.SortStableFunc(out, func(a, b crowd.NodeID) int { return n.asked[a].Compare(n.asked[b]) })
	return out
}

func (n *Node) seedIDs() (out []crowd.NodeID) {
	for _, p := range n.seeds {
		out = append(out, p.Node)
	}
	return out
}

// authorities are those of the genesis, in an order of this call's own, so that light nodes spread over them.
func (n *Node) authorities() (out []crowd.NodeID) {
	for _, a := range n.cfg.Genesis.Authorities {
		out = append(out, a.ID)
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// tagged are the nodes in the overlay's table that say that they have the tag.
func (n *Node) tagged(tag string) (out []crowd.NodeID) {
	for _, p := range n.disc.Peers() {
		if slices.Contains(p.Tags, tag) {
			out = append(out, p.ID)
		}
	}
	return out
}
