// Package chain drives the ledger: a full node around CometBFT, a light node that
// believes nothing it cannot verify, and the wallet that signs for an account. What a
// transaction does is package ledger's affair; how a stream to a peer is made, p2p's.
package chain

import (
	"errors"
	"log/slog"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

var (
	// ErrInUse: another process (or another Full) works in the same Dir.
	ErrInUse = errors.New("the folder is in use by another node")
	// ErrCorrupt: what is on disk is not what this node wrote. Remove the folder and sync again.
	ErrCorrupt = errors.New("the chain data is corrupt")
	// ErrClosed: the node has ended, or ends.
	ErrClosed = errors.New("the chain node is closed")
	// ErrDropped: the transaction left the mempool without a block. Sending the same bytes again is safe.
	ErrDropped = errors.New("the transaction was dropped")
	// ErrNonceTaken: another transaction of this key has taken the nonce, or a full node
	// that cannot prove it says so. Look at the state before sending again.
	ErrNonceTaken = errors.New("another transaction took the nonce")
)

// Head is the newest state that a node knows.
type Head struct {
	Height crowd.Height // of the last block whose changes are in the state
	Time   crowd.Time   // newest block time known with it
	Root   crowd.Hash
	State  ledger.State // of a full node; empty at a light one
}

// Block tells a watcher what one block changed, or several, when the watcher was slower.
type Block struct {
	Height  crowd.Height // of the newest block in it
	Time    crowd.Time
	Changes []ledger.Change // by key; the newest value of each
	Events  []ledger.Event  // of a full node, in order
	Lost    bool            // changes are missing: read again what matters
}

// Included says what became of a transaction.
type Included struct {
	Height  crowd.Height    // of its block; 0: refused before any block, at no cost
	Refusal *ledger.Refusal // nil: done
	Nonce   uint64          // under which a Wallet sent it
	Hearsay bool            // a full node said so without proof; only refusals before any block are
}

// Proved is a value, or its absence, that anybody who has the genesis can check.
type Proved struct {
	_        struct{} `cbor:",toarray"`
	Key      []byte
	Val      []byte // nil: nothing stands under Key
	Proof    ledger.Proof
	Evidence Evidence // of the header whose AppHash is the root
}

// Verify checks p and gives the header that it stands on.
func (p *Proved) Verify(g *ledger.Genesis) (Header, error) {
	h, err := VerifyHeader(g, p.Evidence)
	if err != nil {
		return Header{}, err
	}
	return h, ledger.VerifyProof(h.AppHash, p.Key, p.Val, p.Proof)
}

// Config of a full node.
type Config struct {
	Dir     string          // blocks and state; made when missing
	Genesis *ledger.Genesis // of the chain
	Key     *identity.Key   // an authority's: this node votes; nil or any other: it follows
	Listen  string          // of CometBFT's own p2p, "tcp://127.0.0.1:0"; "": nobody can connect
	Peers   []string        // id@host:port, kept connected
	Log     *slog.Logger    // nil: none
}

func quiet(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
