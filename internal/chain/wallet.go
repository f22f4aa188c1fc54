package chain

import (
	"context"
	"fmt"
	"slices"
	"sync"
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

// liner is a client that keeps transactions in the order in which it gets them.
type liner interface {
	// send is Send. It calls inLine, once, as soon as what is sent from then on comes after raw.
	send(ctx context.Context, raw []byte, inLine func()) (Included, error)
}

// Wallet signs an account's transactions with the right nonces, and has several of them on their way
// at a time. Its methods may be called concurrently; an account should have one wallet.
type Wallet struct {
	// set once
	key      *identity.Key
	client   client
	patience time.Duration

	slots chan struct{} // capacity walletFlights: one for each message on its way; when all are taken, Send waits
	turn  chan struct{} // capacity 1: held from the choice of a nonce until the transaction stands in line

	mu     sync.Mutex
	next   uint64             // guarded by mu: lowest nonce above all that are on their way
	known  bool               // guarded by mu: next is right, so far as we know
	flying map[uint64]*flight // guarded by mu: by nonce, all below next
	holes  []uint64           // guarded by mu, ascending: nonces below others on their way that need a transaction, or those cannot happen
	stuck  *ledger.Refusal    // guarded by mu: of a transaction that was to fill a hole
	moved  chan struct{}      // guarded by mu; closed, and replaced, when flying or holes change
}

// flight is a message on its way.
type flight struct {
	nonce  uint64
	parked bool // guarded by Wallet.mu: refused because a lower nonce is missing
}

const (
	walletPatience = 10 * time.Second // before the same transaction is offered again
	walletTries    = 32               // nonces to try before something else must be wrong
	walletFlights  = 32               // on their way at a time: half of what a full node takes from one account
	minWait        = 2 * time.Millisecond
	maxWaitNonce   = 250 * time.Millisecond // for the block of another transaction of the same key
)

// NewWallet signs for k and sends through c.
func NewWallet(k *identity.Key, c client) *Wallet {
	return &Wallet{
		key: k, client: c, patience: walletPatience, slots: make(chan struct{}, walletFlights), turn: make(chan struct{}, 1),
		flying: map[uint64]*flight{}, moved: make(chan struct{}),
	}
}

// ID is whose wallet it is.
func (w *Wallet) ID() crowd.NodeID { return w.key.ID() }

// Send signs m, offers it until a block has it or ctx ends, and says what became of it.
// A refusal is in Included; errors are those of the way. m happens at most once: a lost
// transaction is sent again byte by byte, and signed anew only where it is certain
// that the old one did nothing. After an error it may have happened, or may yet happen.
//
// Calls that come one after the other have successive nonces. Where one comes to nothing while later ones are
// on their way, the next message gets its nonce; if there is none, an empty transaction, which costs a fee.
// So no later one need be signed anew, whatever became of the first.
func (w *Wallet) Send(ctx context.Context, m ledger.Message) (Included, error) {
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		return Included{}, fmt.Errorf("wait for the wallet: %w", ctx.Err())
	}
	for range walletTries {
		in, again, err := w.attempt(ctx, m)
		if err != nil {
			return Included{}, fmt.Errorf("send %T: %w", m, err)
		}
		if !again {
			return in, nil
		}
	}
	return Included{}, fmt.Errorf("send %T: no nonce of %d tries fits", m, walletTries)
}

// attempt gives m a nonce and sees it through. Again: the nonce was another transaction's, and this one did nothing.
func (w *Wallet) attempt(ctx context.Context, m ledger.Message) (in Included, again bool, err error) {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return Included{}, false, fmt.Errorf("wait for the wallet: %w", ctx.Err())
	}
	inLine := sync.OnceFunc(func() { <-w.turn })
	defer inLine()
	f, err := w.take(ctx)
	if err != nil {
		return Included{}, false, err
	}
	raw := ledger.Sign(w.key, w.client.ChainID(), f.nonce, m)
	wait, asked := minWait, false
	var fills sync.WaitGroup
	defer fills.Wait()
	for {
		in, err = w.deliver(ctx, raw, inLine)
		switch {
		case err != nil:
			w.lost(f, false)
			return Included{}, false, err
		case in.Refusal == nil || in.Height > 0:
			w.used(f, f.nonce+1)
			in.Nonce = f.nonce
			return in, false, nil
		case in.Refusal.Code != ledger.BadNonce:
			w.lost(f, true)
			in.Nonce = f.nonce
			return in, false, nil
		}
		at, err := w.account(ctx)
		if err == nil && at <= f.nonce {
			inLine, err = w.park(ctx, f, &wait, &fills)
		}
		if err != nil {
			w.lost(f, false)
			return Included{}, false, err
		}
		if at > f.nonce && in.Hearsay && !asked {
			asked = true // the full node may have been behind when it refused: now it can prove what used the nonce, if it was this
			continue
		}
		if at > f.nonce {
			w.used(f, at)
			if in.Hearsay {
				return Included{}, false, fmt.Errorf("%w %d", ErrNonceTaken, f.nonce)
			}
			return Included{}, true, nil
		}
	}
}

// take chooses a nonce: the lowest that others wait for, else the next. It needs the turn.
func (w *Wallet) take(ctx context.Context) (*flight, error) {
	w.mu.Lock()
	known := w.known
	w.mu.Unlock()
	if !known { // and nothing is on its way
		at, err := w.account(ctx)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		w.next, w.known = at, true
		w.mu.Unlock()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &flight{nonce: w.next}
	if len(w.holes) > 0 {
		f.nonce, w.holes = w.holes[0], w.holes[1:]
	} else {
		w.next++
	}
	w.flying[f.nonce] = f
	return f, nil
}

// used ends f: the account's next nonce is at least at.
func (w *Wallet) used(f *flight, at uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.flying, f.nonce)
	w.next = max(w.next, at)
	w.holes = slices.DeleteFunc(w.holes, func(h uint64) bool { return h < at })
	w.stir()
}

// lost ends f: no block has used its nonce, so far as we know, or for sure.
func (w *Wallet) lost(f *flight, sure bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.flying, f.nonce)
	at, _ := slices.BinarySearch(w.holes, f.nonce)
	w.holes = slices.Insert(w.holes, at, f.nonce)
	for n := len(w.holes); n > 0 && w.holes[n-1] == w.next-1; n-- { // nothing waits for it
		w.holes, w.next = w.holes[:n-1], w.next-1
	}
	w.known = w.known && (sure || len(w.flying) > 0)
	w.stir()
}

// stir wakes who waits in park. It needs mu.
func (w *Wallet) stir() {
	close(w.moved)
	w.moved = make(chan struct{})
}

// park waits, after f was refused because a lower nonce is missing, until f can be offered again: transactions that are
// parked leave in the order of their nonces, the first of them after a while, in which a hole below it gets filled.
// What it returns must be called once f stands in line.
func (w *Wallet) park(ctx context.Context, f *flight, wait *time.Duration, fills *sync.WaitGroup) (inLine func(), err error) {
	w.mu.Lock()
	f.parked = true
	w.stir()
	w.mu.Unlock()
	inLine = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if f.parked {
			f.parked = false
			w.stir()
		}
	}
	t := time.NewTimer(*wait)
	defer t.Stop()
	ready := false // it has waited, or another that was parked before it has left
	for {
		w.mu.Lock()
		first, moved := true, w.moved
		for _, x := range w.flying {
			first = first && !(x.parked && x.nonce < f.nonce)
		}
		hole := len(w.holes) > 0 && w.holes[0] < f.nonce
		w.mu.Unlock()
		var after <-chan time.Time
		switch {
		case !first:
			ready = true
		case hole && *wait > minWait: // no message has come that could have its nonce
			if err := w.fill(ctx, fills); err != nil {
				inLine()
				return nil, err
			}
			*wait = minWait
			return inLine, nil
		case ready && !hole:
			return inLine, nil
		default:
			after = t.C
		}
		select {
		case <-moved:
		case <-after:
			*wait, ready = min(2**wait, maxWaitNonce), true
		case <-ctx.Done():
			inLine()
			return nil, ctx.Err()
		}
	}
}

// fill has the lowest hole used by a transaction that does nothing, and returns once that stands in line. Whether that
// one or what was lost gets the nonce, those above it can go on. fills waits for its end, which ctx brings about.
func (w *Wallet) fill(ctx context.Context, fills *sync.WaitGroup) error {
	w.mu.Lock()
	if r := w.stuck; r != nil {
		w.stuck = nil
		w.mu.Unlock()
		return fmt.Errorf("an earlier transaction came to nothing, and one in its place was refused: %v", r) // no refusal of what follows
	}
	if len(w.holes) == 0 {
		w.mu.Unlock()
		return nil
	}
	f := &flight{nonce: w.holes[0]}
	w.holes = w.holes[1:]
	w.flying[f.nonce] = f
	w.mu.Unlock()
	inLine := make(chan struct{})
	fills.Go(func() {
		in, err := w.deliver(ctx, ledger.Sign(w.key, w.client.ChainID(), f.nonce, &ledger.Tick{}), sync.OnceFunc(func() { close(inLine) }))
		switch {
		case err != nil:
			w.lost(f, false)
			return
		case in.Refusal == nil || in.Height > 0:
			w.used(f, f.nonce+1)
			return
		case in.Refusal.Code != ledger.BadNonce:
			w.mu.Lock()
			w.stuck = in.Refusal
			w.mu.Unlock()
		default:
			if at, err := w.account(ctx); err == nil && at > f.nonce { // by what was lost
				w.used(f, at)
				return
			}
		}
		w.lost(f, true)
	})
	<-inLine
	return nil
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

// deliver offers raw again whenever it got lost. The same bytes cannot happen twice. inLine has been called when it returns.
func (w *Wallet) deliver(ctx context.Context, raw []byte, inLine func()) (Included, error) {
	defer inLine()
	send := func(ctx context.Context) (Included, error) {
		if l, ok := w.client.(liner); ok {
			return l.send(ctx, raw, inLine)
		}
		inLine()
		return w.client.Send(ctx, raw)
	}
	for {
		once, cancel := context.WithTimeout(ctx, w.patience)
		in, err := send(once)
		lost := offerAgain(err) || err != nil && once.Err() != nil && ctx.Err() == nil
		cancel()
		if !lost {
			return in, err
		}
	}
}
