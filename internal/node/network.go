package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/p2p"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// protoGenesis gives the genesis of a chain to who knows its ID: the ID is the genesis's hash, so that nobody
// need be trusted.
const protoGenesis = "/crowd/genesis/1"

const (
	maxChainID     = 64      // bytes of a question
	maxGenesis     = 4 << 20 // bytes of an answer
	genesisTime    = 20 * time.Second
	maxNetworkFile = 8 << 20 // bytes: base64 of a genesis, and seeds

	genesisEach  = 4                // whole answers for one peer in each genesisEvery; a further question is not answered
	genesisEvery = 10 * time.Minute // then the count begins anew
	genesisPeers = 1024             // peers that are counted; beyond, the count begins anew for all
)

// protocolLimits are those of the protocols whose streams cost this node more than a message.
var protocolLimits = map[string]p2p.ProtocolLimit{
	protoChain:   {Streams: 1024, StreamsPerPeer: 4}, // one of a peer lives: chain.Full.Serve
	protoGenesis: {Streams: 16, StreamsPerPeer: 1},   // each may hold maxGenesis bytes
}

// genesisCount counts whole answers.
type genesisCount struct {
	mu    sync.Mutex
	since time.Time            // guarded by mu
	told  map[crowd.NodeID]int // guarded by mu; at most genesisPeers
}

// more reports whether a peer may have another, and counts it.
func (c *genesisCount) more(id crowd.NodeID, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told == nil || now.Sub(c.since) >= genesisEvery || c.told[id] == 0 && len(c.told) >= genesisPeers {
		c.since, c.told = now, map[crowd.NodeID]int{}
	}
	if c.told[id] >= genesisEach {
		return false
	}
	c.told[id]++
	return true
}

// genesisAnswer names the chain of the node, and its genesis if that was asked for.
type genesisAnswer struct {
	_       struct{} `cbor:",toarray"`
	Chain   string
	Genesis []byte // encoded; empty: another chain was asked for
}

// answerGenesis tells strangers how this network begins, the same one a few times.
func (n *Node) answerGenesis(_ context.Context, from crowd.NodeID, req []byte) ([]byte, error) {
	var chain string
	if err := crowd.Decode(req, &chain); err != nil {
		return nil, err
	}
	a := genesisAnswer{Chain: n.chainID}
	if chain == n.chainID {
		if !n.genesisTold.more(from, time.Now()) {
			return nil, fmt.Errorf("the genesis: this peer has had it %d times in %v", genesisEach, genesisEvery)
		}
		a.Genesis = crowd.Encode(n.cfg.Genesis)
	}
	return crowd.Encode(a), nil
}

// readGenesis checks an answer to the question for chain.
func readGenesis(raw []byte, chain string) (*ledger.Genesis, error) {
	var a genesisAnswer
	if err := crowd.Decode(raw, &a); err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	if len(a.Genesis) == 0 {
		return nil, &OtherChainError{Want: chain, Got: a.Chain[:min(len(a.Chain), maxChainID)]}
	}
	return openGenesis(a.Genesis, chain)
}

// openGenesis decodes a genesis and checks that it is the one of chain.
func openGenesis(raw []byte, chain string) (*ledger.Genesis, error) {
	g := &ledger.Genesis{}
	if err := crowd.Decode(raw, g); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	if got := g.ChainID(); got != chain {
		return nil, &OtherChainError{Want: chain, Got: got}
	}
	if _, err := ledger.New(g); err != nil {
		return nil, err
	}
	return g, nil
}

// OtherChainError says that a node or file is of another network than the one that was asked for.
type OtherChainError struct{ Want, Got string }

func (e *OtherChainError) Error() string {
	return fmt.Sprintf("it is of chain %q, not of %q", e.Got, e.Want)
}

// FetchGenesis asks the nodes behind multiaddrs with /p2p/, one after another, for the genesis of a chain. What
// comes is the genesis of that chain, or an error. The key that asks is used for nothing else: which puzzle the node's own must
// solve, the genesis says.
func FetchGenesis(ctx context.Context, peers []string, chain string, log *slog.Logger) (*ledger.Genesis, error) {
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		return nil, err
	}
	h, err := p2p.New(p2p.Config{PrivateKey: key.Bytes(), Listen: []string{}, Log: log})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var errs []error
	for _, addr := range peers {
		g, err := func() (*ledger.Genesis, error) {
			ctx, cancel := context.WithTimeout(ctx, genesisTime)
			defer cancel()
			id, err := h.Connect(ctx, addr)
			if err != nil {
				return nil, err
			}
			raw, err := h.Request(ctx, id, protoGenesis, crowd.Encode(chain), maxGenesis)
			if err != nil {
				return nil, err
			}
			return readGenesis(raw, chain)
		}()
		if err == nil {
			return g, nil
		}
		errs = append(errs, fmt.Errorf("ask %s for the genesis: %w", addr, err))
	}
	return nil, errors.Join(errs...)
}

// doubtAfter is how long joining may take before seeds are asked which network they are of.
const doubtAfter = 10 * time.Second

// doubt looks for the reason when the chain cannot be followed: whether nobody is there, or somebody of another network.
func (n *Node) doubt(ctx context.Context) error {
	select {
	case <-n.chain.Ready():
		return nil
	case <-ctx.Done():
		return nil
	case <-time.After(doubtAfter):
	}
	if len(n.host.Peers()) == 0 {
		n.log.Warn("no node of the network answers: check the addresses of the seeds, and that UDP gets out of this machine; still trying", "seeds", len(n.seeds))
		return nil
	}
	for _, chain := range n.otherNetworks(ctx) {
		n.log.Warn("a peer is of another network: its address stands among the seeds by mistake, or this node has the wrong network's file",
			"its_chain", chain, "this_chain", n.chainID)
	}
	return nil
}

// otherNetworks asks the peers which network they are of, and gives those that are not this one.
func (n *Node) otherNetworks(ctx context.Context) (chains []string) {
	for _, p := range n.host.Peers() {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		raw, err := n.host.Request(ctx, p.ID, protoGenesis, crowd.Encode(""), maxGenesis) // its name alone
		cancel()
		if err != nil {
			continue
		}
		var a genesisAnswer
		if err := crowd.Decode(raw, &a); err != nil || a.Chain == n.chainID {
			continue
		}
		if other := a.Chain[:min(len(a.Chain), maxChainID)]; !slices.Contains(chains, other) {
			chains = append(chains, other)
		}
	}
	return chains
}

// NetworkFile is what somebody needs to join the network of g.
func NetworkFile(g *ledger.Genesis, seeds []string) rpc.Network {
	return rpc.Network{Name: g.Name, Chain: g.ChainID(), Genesis: crowd.Encode(g), Seeds: seeds}
}

// DecodeNetwork reads a network file: JSON of an rpc.Network, whose chain must be that of its genesis.
func DecodeNetwork(r io.Reader) (rpc.Network, *ledger.Genesis, error) {
	var f rpc.Network
	raw, err := io.ReadAll(io.LimitReader(r, maxNetworkFile+1))
	if err == nil && len(raw) > maxNetworkFile {
		err = fmt.Errorf("more than %d bytes", maxNetworkFile)
	}
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(raw))
		if err = d.Decode(&f); err == nil && d.More() {
			err = errors.New("something follows the end")
		}
	}
	if err != nil {
		return rpc.Network{}, nil, fmt.Errorf("network file: %w", err)
	}
	g, err := openGenesis(f.Genesis, f.Chain)
	if err != nil {
		return rpc.Network{}, nil, fmt.Errorf("network file: %w", err)
	}
	if _, err := parseSeeds(f.Seeds); err != nil {
		return rpc.Network{}, nil, fmt.Errorf("network file: %w", err)
	}
	f.Name = g.Name
	return f, g, nil
}

// EncodeNetwork is the file that DecodeNetwork reads.
func EncodeNetwork(f rpc.Network) []byte {
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		panic("bug: " + err.Error())
	}
	return append(raw, '\n')
}
