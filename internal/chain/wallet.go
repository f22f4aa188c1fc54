package chain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// client is what a wallet needs: a Full or a Light.
type client interface {
	ChainID() string
	Get(ctx context.Context, key []byte) ([]byte, error)
	Send(ctx context.Context, raw []byte) (Included, error)
}

// Wallet signs an account's transactions, one at a time, with the right nonces.
// Its methods may be called concurrently; an account should have one wallet.
type Wallet struct {
	// set once
	key      *identity.Key
	client   client
	patience time.Duration

	turn  chan struct{} // capacity 1: whose turn it is, given up when ctx ends
	nonce uint64        // holder of turn only: the next one
	known bool          // holder of turn only: nonce is right, so far as we know
}

const (
	walletPatience = 10 * time.Second // before the same transaction is offered again
	walletTries    = 32               // nonces to try before something else must be wrong
	minWait        = 2 * time.Millisecond
	maxWaitNonce   = 250 * time.Millisecond // for the block of another transaction of the same key
)

// NewWallet signs for k and sends through c.
func NewWallet(k *identity.Key, c client) *Wallet {
	return &Wallet{key: k, client: c, patience: walletPatience, turn: make(chan struct{}, 1)}
}

// ID is whose wallet it is.
func (w *Wallet) ID() crowd.NodeID { return w.key.ID() }

// Send signs m, offers it until a block has it or ctx ends, and says what became of it.
// A refusal is in Included; errors are those of the way. m happens at most once: a lost
// transaction is sent again byte by byte, and signed anew only where it is certain
// that the old one did nothing. After ErrNonceTaken or the end of ctx it may have happened.
func (w *Wallet) Send(ctx context.Context, m ledger.Message) (Included, error) {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return Included{}, fmt.Errorf("wait for the wallet: %w", ctx.Err())
	}
	wait := minWait
	for range walletTries {
		if !w.known {
			nonce, err := w.account(ctx)
			if err != nil {
				return Included{}, err
			}
			w.nonce, w.known = nonce, true
		}
		in, err := w.deliver(ctx, ledger.Sign(w.key, w.client.ChainID(), w.nonce, m))
		if err != nil {
			w.known = false
			return Included{}, fmt.Errorf("send %T: %w", m, err)
		}
		if in.Refusal == nil || in.Refusal.Code != ledger.BadNonce {
			in.Nonce = w.nonce
			// Only what a block has used takes a nonce; it may have been refused for want of the fee.
			if w.nonce++; in.Height == 0 {
				w.nonce--
			} else if in.Refusal != nil && in.Refusal.Code == ledger.NoFunds {
				w.known = false
			}
			return in, nil
		}
		used := w.nonce
		w.known = false
		if w.nonce, err = w.account(ctx); err != nil {
			return Included{}, err
		}
		w.known = true
		switch {
		case w.nonce > used && in.Hearsay:
			return Included{}, fmt.Errorf("send %T: %w %d", m, ErrNonceTaken, used)
		case w.nonce <= used: // another wallet's is on its way
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return Included{}, fmt.Errorf("send %T: %w", m, ctx.Err())
			}
			wait = min(2*wait, maxWaitNonce)
		}
	}
	return Included{}, fmt.Errorf("send %T: no nonce of %d tries fits", m, walletTries)
}

// account is the next nonce in the state.
func (w *Wallet) account(ctx context.Context) (uint64, error) {
	raw, err := w.client.Get(ctx, ledger.AccountKey(w.key.ID().Address()))
	if err != nil {
		return 0, fmt.Errorf("look up the nonce: %w", err)
	}
	if raw == nil {
		return 0, nil
	}
	var a ledger.Account
	if err := crowd.Decode(raw, &a); err != nil {
		return 0, fmt.Errorf("look up the nonce: %w", err)
	}
	return a.Nonce, nil
}

// deliver offers raw again whenever it got lost. The same bytes cannot happen twice.
func (w *Wallet) deliver(ctx context.Context, raw []byte) (Included, error) {
	for {
		once, cancel := context.WithTimeout(ctx, w.patience)
		in, err := w.client.Send(once, raw)
		lost := errors.Is(err, ErrDropped) || err != nil && once.Err() != nil && ctx.Err() == nil
		cancel()
		if !lost {
			return in, err
		}
	}
}
