package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/chain"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/p2p"
	"github.com/crowdcompute/crowd/internal/store"
)

// contentNode is a node with a store and a host alone.
func contentNode(t *testing.T) *Node {
	t.Helper()
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(filepath.Join(t.TempDir(), "store"), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	h, err := p2p.New(p2p.Config{PrivateKey: k.Bytes(), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Blocks: s.Blocks()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return &Node{id: k.ID(), store: s, host: h, log: slog.New(slog.DiscardHandler)}
}

// Whether an input is too big decides the outcome of a job, so that it must not
// depend on what a node happens to hold: tree nodes count as they do on the way.
func TestFetch_TheSameContentIsTooBigWhereverItLies(t *testing.T) {
	has, lacks := contentNode(t), contentNode(t)
	const size = 3 << 20
	data := make([]byte, size)
	rand.Read(data)
	c, err := has.store.AddFile(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lacks.host.Connect(t.Context(), has.host.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	from := []crowd.NodeID{has.id}
	for _, max := range []uint64{size, size + 1<<10} {
		there := unusable(jobBlocks{lacks}.Fetch(t.Context(), c, max, from, nil))
		here := unusable(jobBlocks{has}.Fetch(t.Context(), c, max, from, nil))
		if here != there {
			t.Errorf("at most %d bytes: got unusable %v where it lies and %v where it is fetched want the same", max, here, there)
		}
	}
}

// gossip is a full node that refuses everything before any block.
type gossip struct{}

func (gossip) ChainID() string                             { return "test" }
func (gossip) Get(context.Context, []byte) ([]byte, error) { return nil, nil }
func (gossip) Send(context.Context, []byte) (chain.Included, error) {
	return chain.Included{Refusal: &ledger.Refusal{Code: ledger.TooLate, Reason: "says who"}, Hearsay: true}, nil
}

// A machine takes a refusal for the chain's last word and sends no commit, reveal or
// complaint again. One full node's word must not do that.
func TestJobChain_HearsayIsNoRefusal(t *testing.T) {
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = jobChain{&Node{wallet: chain.NewWallet(k, gossip{})}}.Send(t.Context(), &ledger.Accept{})
	var r *ledger.Refusal
	if err == nil || errors.As(err, &r) {
		t.Errorf("got %v want an error that is no refusal", err)
	}
}
