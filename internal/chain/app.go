package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/types"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

const (
	// beaconTag begins the one entry of a block that is no transaction of the ledger
	// (those are CBOR arrays and begin with 0x82): the proposer's VRF proof over the last beacon.
	beaconTag  = 0xb1
	beaconSize = 1 + len(identity.VRFProof{})

	// maxAhead is how many transactions of one account may stand in the mempool; further ones are refused. When
	// the mempool fills, an account may have fewer: see room.
	maxAhead = 64
	// maxFlying and maxFlyingBytes bound the mempool; what comes when it is full is refused with codeFull. They are below
	// CometBFT's own bounds, so that what is admitted here is admitted there.
	maxFlying      = 4096
	maxFlyingBytes = 48 << 20
	// codeFull is CheckTx's answer when the mempool has no room: no ledger.Code, since it says nothing about the transaction.
	codeFull = 1 << 20
	// maxEarly bounds the transactions that are kept to be looked at again after the next
	// block: CometBFT does not gossip a second time what a node refused because it was a block behind.
	maxEarly = 64
	// maxWait is how many blocks a transaction may stand in the mempool.
	maxWait = 64
	// staleAfter: CometBFT's block time is the time at which the last block was agreed on
	// (BFT time), on a quiet chain long ago. A transaction in such a block would start its
	// deadlines in the past. See PrepareProposal.
	staleAfter = 200 * time.Millisecond
)

// app is the ledger as CometBFT sees it.
type app struct {
	abci.BaseApplication

	// set once
	genesis   *ledger.Genesis
	chain     string
	params    ledger.Params
	proposers map[string]crowd.NodeID // by consensus address
	self      crowd.NodeID            // this authority, zero at a follower
	vrf       *identity.VRFKey        // of this authority, or nil
	db        stateDB
	log       *slog.Logger
	now       func() time.Time
	stale     time.Duration
	opened    *txCache
	committed func(prev, now done) // called for each block, in order, with mu held
	failed    func(error)          // the node cannot go on

	// consensus connection's goroutine only
	tried     *trial       // of ProcessProposal
	next      *trial       // between FinalizeBlock and Commit
	first     crowd.Height // the oldest block that is kept
	keep      crowd.Height // keepBlocks
	freshened bool         // this node held transactions back since the last block with some
	wall      time.Time

	mu      sync.Mutex
	head    done                          // guarded by mu
	changed chan struct{}                 // guarded by mu; closed at the next block
	flight  map[crowd.Hash]*flying        // guarded by mu: what stands in the mempool
	line    []crowd.Hash                  // guarded by mu: flight in order of arrival, with some that have gone
	lanes   map[crowd.NodeID]*lane        // guarded by mu: of accounts with something in the mempool; made anew for each block
	load    lane                          // guarded by mu: of all lanes together
	round   uint64                        // guarded by mu: counts blocks
	direct  crowd.Hash                    // guarded by mu: what Full.submit hands over just now, and answers for itself
	early   []tooEarly                    // guarded by mu: gossiped and refused, but may be good after the next block; the newest maxEarly
	version uint64                        // guarded by mu: moves when the mempool may have shrunk
	waiters map[crowd.Hash][]chan verdict // guarded by mu
}

// done is a committed block.
type done struct {
	Head
	changes []ledger.Change
	events  []ledger.Event
	bugs    []bug
}

// bug is where the ledger broke a promise of its own and went on.
type bug struct {
	ledger.BugReport
	tx crowd.Hash // zero: a draw or a deadline
}

// trial is a block applied, not yet committed.
type trial struct {
	hash    crowd.Hash // of the block
	done    done
	results []*abci.ExecTxResult
	txs     []crowd.Hash // one for each result, zero for the beacon
	used    []crowd.Hash // the same, zero also for what changed nothing, not even a nonce
}

// flying is a transaction in the mempool.
type flying struct {
	tx    ledger.Tx
	size  int // bytes
	since crowd.Height
	round uint64 // app.round when it was last checked
}

// lane is what one account has in the mempool.
type lane struct {
	next  uint64        // the nonce after the last
	fees  crowd.Credits // of all
	count int
	bytes int
}

// tooEarly is a transaction that may be good after the next block.
type tooEarly struct {
	nonce uint64
	raw   []byte
}

// verdict is what a waiter for a transaction gets.
type verdict struct {
	in  Included
	err error
}

// decodeBlock takes apart what consensus orders: at most one beacon, first, then transactions.
func decodeBlock(raw [][]byte, open func([]byte) (ledger.Tx, error)) (*identity.VRFProof, []ledger.Tx, error) {
	var beacon *identity.VRFProof
	if len(raw) > 0 && len(raw[0]) == beaconSize && raw[0][0] == beaconTag {
		p := identity.VRFProof(raw[0][1:])
		beacon, raw = &p, raw[1:]
	}
	txs := make([]ledger.Tx, len(raw))
	for i, r := range raw {
		tx, err := open(r)
		if err != nil {
			return nil, nil, fmt.Errorf("entry %d: %w", i, err)
		}
		txs[i] = tx
	}
	return beacon, txs, nil
}

func (a *app) current() done {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.head
}

// apply runs the block that follows the head.
func (a *app) apply(hash []byte, height int64, t time.Time, proposer []byte, raw [][]byte) (*trial, error) {
	head := a.current()
	if crowd.Height(height) != head.Height+1 {
		return nil, fmt.Errorf("block %d does not follow block %d", height, head.Height)
	}
	beacon, txs, err := decodeBlock(raw, a.opened.open)
	if err != nil {
		return nil, err
	}
	if beacon != nil && len(txs) == 0 && !head.State.DrawPending() {
		return nil, errors.New("a beacon that nobody waits for")
	}
	id, ok := a.proposers[string(proposer)]
	if !ok {
		return nil, fmt.Errorf("proposer %x is no authority", proposer)
	}
	b := ledger.Block{Height: crowd.Height(height), Time: crowd.Time(t.UnixMilli()), Proposer: id, Beacon: beacon, Txs: txs}
	res, err := ledger.Apply(head.State, b)
	if err != nil {
		return nil, err
	}
	tr := &trial{
		hash: crowd.Hash(hash),
		done: done{
			Head:    Head{Height: b.Height, Time: b.Time, Root: res.State.Root(), State: res.State},
			changes: res.Changes, events: res.Events,
		},
	}
	for _, r := range res.Bugs {
		b := bug{BugReport: r}
		if r.Tx >= 0 {
			b.tx = txHash(raw[len(raw)-len(txs)+r.Tx])
		}
		tr.done.bugs = append(tr.done.bugs, b)
	}
	add := func(r *abci.ExecTxResult, tx, used crowd.Hash) {
		tr.results, tr.txs, tr.used = append(tr.results, r), append(tr.txs, tx), append(tr.used, used)
	}
	if beacon != nil {
		add(&abci.ExecTxResult{}, crowd.Hash{}, crowd.Hash{})
	}
	for i, r := range raw[len(raw)-len(txs):] {
		o := newOutcome(txHash(r), res.Results[i])
		used := o.Tx
		if o.Code == ledger.BadNonce || res.State.Account(txs[i].Sender().Address()).Nonce <= txs[i].Nonce() {
			used = crowd.Hash{}
		}
		add(o.result(), o.Tx, used)
	}
	return tr, nil
}

func (a *app) Info(context.Context, *abci.RequestInfo) (*abci.ResponseInfo, error) {
	h := a.current()
	return &abci.ResponseInfo{LastBlockHeight: int64(h.Height), LastBlockAppHash: h.Root[:]}, nil
}

func (a *app) InitChain(_ context.Context, r *abci.RequestInitChain) (*abci.ResponseInitChain, error) {
	if r.ChainId != a.chain {
		return nil, fmt.Errorf("the folder holds chain %s, not %s", r.ChainId, a.chain)
	}
	h := a.current()
	return &abci.ResponseInitChain{AppHash: h.Root[:]}, nil
}

// CheckTx keeps out of the mempool what the next blocks cannot use: each transaction must be its account's next, after
// those of the account that stand there, and the account must be able to pay for all of them. So nobody can
// fill the mempool for nothing. Nodes are a block apart at times, and what is refused is not gossiped again:
// see early. What users send is checked wholly, by Full.Send.
func (a *app) CheckTx(_ context.Context, r *abci.RequestCheckTx) (*abci.ResponseCheckTx, error) {
	hash := txHash(r.Tx)
	err := a.admit(hash, r.Tx, r.Type == abci.CheckTxType_New)
	if err == nil {
		return &abci.ResponseCheckTx{}, nil
	}
	if r.Type == abci.CheckTxType_Recheck {
		a.evict(hash)
	}
	if errors.Is(err, errFull) {
		return &abci.ResponseCheckTx{Code: codeFull, Log: err.Error()}, nil
	}
	o := newOutcome(hash, err)
	return &abci.ResponseCheckTx{Code: uint32(max(o.Code, 1)), Log: o.Reason}, nil
}

var errFull = errors.New("there are too many transactions; offer this one again after the next block")

// room is how many transactions an account may have in the mempool: the fuller it is, the fewer, so that accounts
// with one get in while those with many fill it. The authorities' free duties always find room.
func (a *app) room() int {
	used := max(a.load.count*100/maxFlying, a.load.bytes*100/maxFlyingBytes)
	switch {
	case used < 50:
		return maxAhead
	case used < 75:
		return maxAhead / 8
	case used < 100:
		return 1
	}
	return 0
}

func (a *app) admit(hash crowd.Hash, raw []byte, fresh bool) (err error) {
	tx, err := a.opened.open(raw)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	acc := a.head.State.Account(tx.Sender().Address())
	f := a.flight[hash]
	if fresh && f != nil {
		return nil
	}
	defer func() {
		var r *ledger.Refusal
		if fresh && hash != a.direct && errors.As(err, &r) && acc.Nonce <= tx.Nonce() {
			a.early = append(a.early[max(0, len(a.early)-maxEarly+1):], tooEarly{tx.Nonce(), raw})
		}
	}()
	l := a.lanes[tx.Sender()]
	if l == nil {
		l = &lane{next: acc.Nonce}
	}
	fee, free := a.params.Fee(tx), a.free(tx)
	if free {
		fee = 0
	}
	switch {
	case tx.Nonce() != l.next:
		return &ledger.Refusal{Code: ledger.BadNonce, Reason: fmt.Sprintf("got %d, the account's next is %d", tx.Nonce(), l.next)}
	case fee > 0 && (acc.Balance < l.fees || acc.Balance-l.fees < fee):
		return &ledger.Refusal{Code: ledger.NoFunds, Reason: fmt.Sprintf("the fee is %s, the balance %s, of which %s are wanted already", fee, acc.Balance, l.fees)}
	case f != nil && a.head.Height-f.since > maxWait:
		return ErrDropped
	case l.count >= maxAhead || fresh && !free && l.count >= a.room():
		return errFull
	}
	if f == nil {
		f = &flying{tx: tx, size: len(raw), since: a.head.Height}
		a.flight[hash] = f
		a.line = append(a.line, hash)
	}
	f.round = a.round
	a.lanes[tx.Sender()] = l
	l.next++
	for _, x := range []*lane{l, &a.load} {
		x.fees, x.count, x.bytes = x.fees+fee, x.count+1, x.bytes+len(raw)
	}
	return nil
}

// setDirect says which transaction CheckTx gets from Full.submit; zero: none.
func (a *app) setDirect(hash crowd.Hash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.direct = hash
}

// free: the sender need not pay for tx. The ledger has the last word.
func (a *app) free(tx ledger.Tx) bool {
	switch tx.Message().(type) {
	case *ledger.Tick, *ledger.Vote, *ledger.Unseal:
		for _, id := range a.proposers {
			if id == tx.Sender() {
				return true
			}
		}
	}
	return false
}

// evict tells who waits for a transaction that CometBFT takes out of its mempool.
func (a *app) evict(hash crowd.Hash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.flight, hash)
	a.version++
	a.answer(hash, verdict{err: ErrDropped})
}

// answer needs mu.
func (a *app) answer(hash crowd.Hash, v verdict) {
	for _, w := range a.waiters[hash] {
		w <- v // capacity 1, and one answer each
	}
	delete(a.waiters, hash)
}

// await makes a waiter for hash; forget takes it back.
func (a *app) await(hash crowd.Hash) (w chan verdict, forget func()) {
	w = make(chan verdict, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiters[hash] = append(a.waiters[hash], w)
	return w, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for i, x := range a.waiters[hash] {
			if x == w {
				rest := append(a.waiters[hash][:i:i], a.waiters[hash][i+1:]...)
				if a.waiters[hash] = rest; len(rest) == 0 {
					delete(a.waiters, hash)
				}
				return
			}
		}
	}
}

// attempt begins a block on top of the head, with this authority's beacon if it is to have one.
func (a *app) attempt(head done, t crowd.Time, withBeacon bool) (*ledger.Pending, *identity.VRFProof, error) {
	b := ledger.Block{Height: head.Height + 1, Time: t, Proposer: a.self}
	if withBeacon {
		r := head.State.Beacon().R
		p, _ := a.vrf.Prove(r[:])
		b.Beacon = &p
	}
	p, err := ledger.Try(head.State, b)
	return p, b.Beacon, err
}

// PrepareProposal puts the beacon before the transactions and leaves out those that could
// not even pay. On a quiet chain, whose next block time is long past, it first proposes a
// block without transactions: theirs then has the present as its time. A node does that
// once between two blocks with transactions, so that it cannot stop the chain.
func (a *app) PrepareProposal(_ context.Context, r *abci.RequestPrepareProposal) (*abci.ResponsePrepareProposal, error) {
	head := a.current()
	now, pending := a.now(), head.State.DrawPending()
	if len(r.Txs) > 0 && !pending && !a.freshened && now.Sub(a.wall) > a.stale && now.Sub(r.Time) > a.stale {
		a.freshened = true
		return &abci.ResponsePrepareProposal{}, nil
	}
	if len(r.Txs) == 0 && !pending {
		return &abci.ResponsePrepareProposal{}, nil
	}
	p, proof, err := a.attempt(head, crowd.Time(r.Time.UnixMilli()), true)
	if err != nil {
		a.failed(fmt.Errorf("propose block %d: %w", r.Height, err))
		return nil, err
	}
	out := [][]byte{append([]byte{beaconTag}, proof[:]...)}
	size := types.ComputeProtoSizeForTxs(types.ToTxs(out))
	for _, raw := range r.Txs {
		if size += types.ComputeProtoSizeForTxs([]types.Tx{raw}); size > r.MaxTxBytes {
			break
		}
		tx, err := a.opened.open(raw)
		if err == nil {
			err = p.Add(tx)
		}
		var no *ledger.Refusal
		if errors.As(err, &no) {
			// A refusal that costs its sender the fee belongs on chain, where the sender sees it.
			broke := no.Code == ledger.NoFunds && head.State.Account(tx.Sender().Address()).Balance < a.params.Fee(tx)
			if no.Code == ledger.BadTx && tx.Message() == nil || no.Code == ledger.BadNonce || broke {
				continue
			}
		}
		out = append(out, raw)
	}
	if len(out) == 1 && !pending {
		out = nil
	}
	return &abci.ResponsePrepareProposal{Txs: out}, nil
}

// ProcessProposal accepts a block that the ledger can apply, and keeps what it came to.
func (a *app) ProcessProposal(_ context.Context, r *abci.RequestProcessProposal) (*abci.ResponseProcessProposal, error) {
	t, err := a.apply(r.Hash, r.Height, r.Time, r.ProposerAddress, r.Txs)
	if err != nil {
		a.log.Warn("proposal refused", "height", r.Height, "proposer", a.proposers[string(r.ProposerAddress)].Short(), "err", err)
		return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_REJECT}, nil
	}
	a.tried = t
	return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_ACCEPT}, nil
}

// FinalizeBlock applies a decided block, unless ProcessProposal has just done so.
func (a *app) FinalizeBlock(_ context.Context, r *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	t := a.tried
	if a.tried = nil; t == nil || t.hash != crowd.Hash(r.Hash) || t.done.Height != crowd.Height(r.Height) {
		var err error
		if t, err = a.apply(r.Hash, r.Height, r.Time, r.ProposerAddress, r.Txs); err != nil {
			a.failed(fmt.Errorf("apply block %d: %w", r.Height, err))
			return nil, err
		}
	}
	a.next = t
	return &abci.ResponseFinalizeBlock{TxResults: t.results, AppHash: t.done.Root[:]}, nil
}

// Commit makes the finalized block the head and tells everybody.
func (a *app) Commit(context.Context, *abci.RequestCommit) (*abci.ResponseCommit, error) {
	t := a.next
	a.next = nil
	if err := a.db.save(a.chain, t.done.Head, t.done.changes, t.used); err != nil {
		a.failed(err)
		return nil, err
	}
	first, err := a.db.prune(a.first, t.done.Head, a.keep, a.params.Retention)
	if err != nil {
		err = fmt.Errorf("forget old blocks: %w", err)
		a.failed(err)
		return nil, err
	}
	a.first = first
	if len(t.results) > 0 {
		a.freshened = false
	}
	a.wall = a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	prev := a.head
	a.head = t.done
	a.version++
	for i, tx := range t.txs {
		delete(a.flight, tx)
		if len(a.waiters[tx]) > 0 {
			var o outcome
			if err := crowd.Decode(t.results[i].Data, &o); err != nil {
				panic("bug: " + err.Error())
			}
			in := Included{Height: t.done.Height, Refusal: o.refusal()}
			if t.used[i] == (crowd.Hash{}) {
				in.Height = 0 // that block did nothing with it
			}
			a.answer(tx, verdict{in: in})
		}
	}
	// CometBFT checks again what is left, in order.
	rest := a.line[:0:0]
	for _, h := range a.line {
		switch f := a.flight[h]; {
		case f == nil:
		case f.round < a.round: // it was not checked after the last block: CometBFT had no room for it after all
			delete(a.flight, h)
			a.answer(h, verdict{err: ErrDropped})
		default:
			rest = append(rest, h)
		}
	}
	a.line, a.lanes, a.load = rest, map[crowd.NodeID]*lane{}, lane{}
	a.round++
	a.committed(prev, a.head)
	close(a.changed)
	a.changed = make(chan struct{})
	return &abci.ResponseCommit{RetainHeight: int64(first)}, nil
}

// txCache remembers transactions whose signatures have been checked, between
// CheckTx, the proposal and the block. Two generations of bounded size.
type txCache struct {
	chain string // set once

	mu       sync.Mutex
	new, old map[crowd.Hash]ledger.Tx // guarded by mu
	size     int                      // guarded by mu: bytes in new
}

// Bounds of one generation.
const (
	cacheTxs   = 8192
	cacheBytes = 8 << 20
)

func newTxCache(chain string) *txCache {
	return &txCache{chain: chain, new: map[crowd.Hash]ledger.Tx{}}
}

func (c *txCache) open(raw []byte) (ledger.Tx, error) {
	hash := txHash(raw)
	c.mu.Lock()
	tx, ok := c.new[hash]
	if !ok {
		tx, ok = c.old[hash]
	}
	c.mu.Unlock()
	if ok {
		return tx, nil
	}
	tx, err := ledger.Open(c.chain, raw)
	if err != nil {
		return ledger.Tx{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.new) >= cacheTxs || c.size+len(raw) > cacheBytes {
		c.old, c.new, c.size = c.new, map[crowd.Hash]ledger.Tx{}, 0
	}
	c.new[hash] = tx
	c.size += len(raw)
	return tx, nil
}
