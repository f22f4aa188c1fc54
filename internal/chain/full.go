package chain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/mempool"
	"github.com/cometbft/cometbft/node"
	sm "github.com/cometbft/cometbft/state"
	"github.com/cometbft/cometbft/store"
	"github.com/cometbft/cometbft/types"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Full is a node that holds the whole chain: CometBFT in this process with the ledger as its application.
type Full struct {
	// set once
	cfg     Config
	app     *app
	log     *slog.Logger
	state   *survivor // the ledger's own database; its lock is the folder's
	wallet  *Wallet   // of Config.Key, or nil
	blocks  *feed
	proven  *feed // blocks that a header already commits to, without the values
	ready   chan struct{}
	over    chan struct{} // closed when nothing works any more
	halt    chan struct{} // closed by fail
	catchUp time.Duration // the constant, but in tests
	index   int           // place among the authorities, which staggers their ticks
	started chan struct{} // closed once node, store and results are set

	// set once by Run, before started closes
	node    *node.Node
	listen  string // host:port
	store   *store.BlockStore
	results sm.Store

	// Run's goroutine only
	dbs map[string]*survivor

	ending atomic.Bool   // Run stops CometBFT
	bugs   atomic.Uint64 // see Bugs

	mu      sync.Mutex
	why     error         // guarded by mu: of halt
	snap    *snapshot     // guarded by mu: newest provable state
	snapped chan struct{} // guarded by mu: closed at the next snap

	streams map[crowd.NodeID]*service // guarded by mu: of light nodes, at most maxStreams
	debts   debts
	shared  shared
	jobs    jobIndex

	submitting sync.Mutex      // orders submissions, first come, first served: a stream waits with one at a time. Taken before every other lock
	pool       *ledger.Pending // guarded by submitting: the head and what flies on top of it
	poolAt     uint64          // guarded by submitting: app.version of pool
}

// snapshot is a state with the header that commits to it.
type snapshot struct {
	header   crowd.Height // of the evidence
	height   crowd.Height // newest block whose changes are in state
	time     crowd.Time
	state    ledger.State
	evidence Evidence

	mu     sync.Mutex
	values map[string]value // guarded by mu: of keys that were pushed, at most those that the block changed, or several blocks
}

// NewFull opens the folder and loads the ledger; Run must follow, once, and closes them.
// It fails with ErrInUse when another node works there, ErrCorrupt when the data does not
// give the root it claims, and with a plain error when the folder holds another chain.
func NewFull(c Config) (*Full, error) {
	if c.Genesis == nil {
		return nil, errors.New("open the chain: no genesis")
	}
	state, err := ledger.New(c.Genesis)
	if err != nil {
		return nil, fmt.Errorf("open the chain: %w", err)
	}
	if _, err := validators(c.Genesis); err != nil {
		return nil, fmt.Errorf("open the chain: %w", err)
	}
	f := &Full{
		cfg: c, log: quiet(c.Log), blocks: newFeed(), proven: newFeed(), dbs: map[string]*survivor{},
		ready: make(chan struct{}), over: make(chan struct{}), halt: make(chan struct{}),
		started: make(chan struct{}), snapped: make(chan struct{}), streams: map[crowd.NodeID]*service{}, catchUp: catchUp,
	}
	a := &app{
		genesis: c.Genesis, chain: c.Genesis.ChainID(), params: c.Genesis.Params,
		proposers: map[string]crowd.NodeID{}, log: f.log, now: time.Now, stale: staleAfter, keep: keepBlocks,
		committed: f.onCommit, failed: f.fail,
		changed: make(chan struct{}), flight: map[crowd.Hash]*flying{}, lanes: map[crowd.NodeID]*lane{}, waiters: map[crowd.Hash][]chan verdict{},
	}
	a.opened = newTxCache(a.chain)
	f.app = a
	for i, auth := range c.Genesis.Authorities {
		a.proposers[string(types.NewValidator(ed25519.PubKey(auth.Consensus), 1).Address)] = auth.ID
		if c.Key != nil && c.Key.ID() == auth.ID {
			if string(ConsensusKey(c.Key)) != string(auth.Consensus) || c.Key.VRF().Public() != auth.VRF {
				return nil, errors.New("open the chain: the genesis names other keys for this authority than its own")
			}
			a.self, a.vrf, f.index = auth.ID, c.Key.VRF(), i
		}
	}
	if err := os.MkdirAll(filepath.Join(c.Dir, "data"), 0o700); err != nil {
		return nil, fmt.Errorf("open the chain: %w", err)
	}
	db, err := openDB("ledger", filepath.Join(c.Dir, "data"))
	if err != nil {
		return nil, fmt.Errorf("open the chain: %w", err)
	}
	f.state, a.db = &survivor{DB: db}, stateDB{db}
	head, ok, err := a.db.load(a.chain)
	if err == nil && !ok {
		head = Head{Time: c.Genesis.Time, Root: state.Root(), State: state}
		var all []ledger.Change
		state.Each("", func(key string, val []byte) bool { all = append(all, ledger.Change{Key: key, Val: val}); return true })
		err = a.db.save(a.chain, head, all, nil)
	}
	if err == nil {
		a.first, err = a.db.oldest(head.Height)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the chain: %w", err), f.state.bury())
	}
	a.head = done{Head: head}
	f.jobs.fill(head.State)
	if c.Key != nil {
		f.wallet = NewWallet(c.Key, f)
	}
	return f, nil
}

// Run works until ctx ends or the node cannot go on, which it then says. When it returns all is closed.
func (f *Full) Run(ctx context.Context) error {
	defer f.shut()
	for _, name := range []string{"blockstore", "state"} {
		if _, err := f.database(name); err != nil {
			return fmt.Errorf("start consensus: %w", err)
		}
	}
	f.store = store.NewBlockStore(f.dbs["blockstore"])
	f.results = sm.NewStore(f.dbs["state"], sm.StoreOptions{})
	if ctx.Err() != nil {
		return nil
	}
	n, err := f.start(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	f.node = n
	close(f.started)
	inner, cancel := context.WithCancel(ctx)
	var children sync.WaitGroup
	children.Go(func() { f.retry(inner) })
	children.Go(func() { f.sweep(inner) })
	if f.app.vrf != nil {
		children.Go(func() { f.tick(inner) })
	}
	select {
	case <-ctx.Done():
	case <-f.halt:
	}
	cancel()
	children.Wait()
	f.ending.Store(true)
	if err := n.Stop(); err != nil {
		f.log.Warn("stop consensus", "err", err)
	}
	if err := n.ProxyApp().Stop(); err != nil { // CometBFT forgets it
		f.log.Warn("stop consensus", "err", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.why
}

func (f *Full) shut() {
	close(f.over)
	f.blocks.close()
	f.proven.close()
	for _, db := range f.dbs {
		if err := db.bury(); err != nil {
			f.log.Warn("close", "err", err)
		}
	}
	if err := f.state.bury(); err != nil {
		f.log.Warn("close", "err", err)
	}
}

// fail ends Run. The first reason counts.
func (f *Full) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.why == nil {
		f.why = err
		close(f.halt)
	}
}

// Ready is closed when the node has a state that it can prove.
func (f *Full) Ready() <-chan struct{} { return f.ready }

// ChainID names the chain.
func (f *Full) ChainID() string { return f.app.chain }

// Wallet is the one wallet of Config.Key, nil without one. The node's own ticks
// take their nonces from it, so an authority must send all its transactions through it.
func (f *Full) Wallet() *Wallet { return f.wallet }

// Address is where CometBFT's p2p listens, as others name it in Peers. It waits until that is known.
func (f *Full) Address(ctx context.Context) (string, error) {
	select {
	case <-f.started:
	case <-f.over:
		return "", ErrClosed
	case <-ctx.Done():
		return "", ctx.Err()
	}
	return string(f.node.NodeInfo().ID()) + "@" + f.listen, nil
}

// Head is the newest committed state.
func (f *Full) Head() Head { return f.app.current().Head }

// Get is the value under key in the newest committed state, nil when there is none.
func (f *Full) Get(_ context.Context, key []byte) ([]byte, error) {
	return f.Head().State.Get(key), nil
}

// Watch gives every block from now on; the channel closes when ctx or the node ends.
// A watcher that is slower than the chain gets several blocks merged into one Block.
func (f *Full) Watch(ctx context.Context) <-chan Block { return f.blocks.watch(ctx) }

// Bugs counts, since the start of this process, where the ledger met an error of its own and went on without: each
// stands in the log.
func (f *Full) Bugs() uint64 { return f.bugs.Load() }

// maxBugLogs bounds what the log says of bugs; all are counted.
const maxBugLogs = 100

func (f *Full) onBugs(d done) {
	for _, b := range d.bugs {
		f.onBug(b, d.Height)
	}
}

func (f *Full) onBug(b bug, height crowd.Height) {
	if f.bugs.Add(1) <= maxBugLogs {
		f.log.Error("bug: the ledger met an error of its own and went on without what caused it; please report this",
			"block", height, "tx", b.tx, "job", b.Job, "panic", b.Panic, "stack", b.Stack)
	}
}

// onCommit runs for each block in order, also for those replayed at the start.
func (f *Full) onCommit(prev, now done) {
	f.onBugs(now)
	f.jobs.follow(prev.State, now.changes)
	f.blocks.publish(Block{Height: now.Height, Time: now.Time, Changes: now.changes, Events: now.events})
	ev, err := f.signedHeader(now.Height)
	if err != nil {
		f.fail(err)
		return
	}
	f.setSnapshot(&snapshot{header: now.Height, height: prev.Height, time: now.Time, state: prev.State, evidence: ev})
	if len(prev.changes) > 0 {
		keys := make([]ledger.Change, len(prev.changes)) // which changed; the values are in the snapshot
		for i, c := range prev.changes {
			keys[i].Key = c.Key
		}
		f.proven.publish(Block{Height: prev.Height, Time: now.Time, Changes: keys})
	}
}

// provable finds out after a start whether the newest header commits to the state that was loaded.
func (f *Full) provable(h done) {
	meta := f.store.LoadBlockMeta(int64(h.Height))
	if meta == nil || string(meta.Header.AppHash) != string(h.Root[:]) {
		return // the next block will
	}
	if ev, err := f.signedHeader(h.Height); err == nil {
		f.setSnapshot(&snapshot{header: h.Height, height: h.Height - 1, time: h.Time, state: h.State, evidence: ev})
	}
}

func (f *Full) setSnapshot(s *snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.snap == nil {
		close(f.ready)
	}
	f.snap = s
	f.shared.reset()
	close(f.snapped)
	f.snapped = make(chan struct{})
}

// snapshot waits for a provable state whose header has at least that height.
func (f *Full) snapshot(ctx context.Context, header crowd.Height) (*snapshot, error) {
	for {
		f.mu.Lock()
		s, next := f.snap, f.snapped
		f.mu.Unlock()
		if s != nil && s.header >= header {
			return s, nil
		}
		select {
		case <-next:
		case <-f.over:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// signedHeader reads a block's header and commit, which CometBFT stores before the ledger sees the block.
func (f *Full) signedHeader(h crowd.Height) (Evidence, error) {
	meta := f.store.LoadBlockMeta(int64(h))
	commit := f.store.LoadBlockCommit(int64(h))
	if commit == nil {
		commit = f.store.LoadSeenCommit(int64(h))
	}
	if meta == nil || commit == nil {
		return nil, fmt.Errorf("header of block %d: not there", h)
	}
	return evidence(&meta.Header, commit)
}

// Header is the signed header of block h. It waits for a block that has yet to come.
func (f *Full) Header(ctx context.Context, h crowd.Height) (Evidence, error) {
	if _, err := f.snapshot(ctx, h); err != nil {
		return nil, fmt.Errorf("header of block %d: %w", h, err)
	}
	return f.signedHeader(h)
}

// Prove gives the newest provable value under key with its proof.
func (f *Full) Prove(ctx context.Context, key []byte) (Proved, error) {
	s, err := f.snapshot(ctx, 0)
	if err != nil {
		return Proved{}, fmt.Errorf("prove: %w", err)
	}
	return s.prove(key), nil
}

func (s *snapshot) prove(key []byte) Proved {
	val, proof := s.state.Prove(key)
	return Proved{Key: key, Val: val, Proof: proof, Evidence: s.evidence}
}

// List gives all keys that begin with prefix in the newest committed state.
func (f *Full) List(_ context.Context, prefix string) ([]ledger.Change, error) {
	var all []ledger.Change
	f.Head().State.Each(prefix, func(key string, val []byte) bool {
		all = append(all, ledger.Change{Key: key, Val: val})
		return true
	})
	return all, nil
}

// Send offers a transaction and waits for its block. The same bytes give the same answer
// however often they are sent, also after a restart. It fails when ctx ends or the
// transaction is dropped: then it may still come into a block, and sending it again is safe.
func (f *Full) Send(ctx context.Context, raw []byte) (Included, error) {
	return f.send(ctx, raw, func() {})
}

// send implements liner.
func (f *Full) send(ctx context.Context, raw []byte, inLine func()) (Included, error) {
	s, err := f.submit(ctx, crowd.NodeID{}, raw)
	inLine()
	if err != nil {
		return Included{}, err
	}
	return s.wait(ctx)
}

// submission is a transaction on its way.
type submission struct {
	f      *Full
	done   *Included // known already
	waiter chan verdict
	forget func()
}

func (s *submission) wait(ctx context.Context) (Included, error) {
	if s.done != nil {
		return *s.done, nil
	}
	defer s.forget()
	select {
	case v := <-s.waiter:
		return v.in, v.err
	case <-ctx.Done():
		return Included{}, fmt.Errorf("wait for the transaction's block: %w", ctx.Err())
	case <-s.f.over:
		return Included{}, ErrClosed
	}
}

// submit checks a transaction, which came from a peer or, if that is zero, from this node, against the ledger as it will
// be once all that flies has landed, and hands it to CometBFT. Submissions keep their order. A sender or peer whose
// transactions were refused after checks that cost much waits, or fails with errBusy: see debts.
func (f *Full) submit(ctx context.Context, peer crowd.NodeID, raw []byte) (*submission, error) {
	select {
	case <-f.started:
	case <-f.over:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	refused := func(err error) (*submission, error) {
		var r *ledger.Refusal
		if errors.As(err, &r) {
			return &submission{done: &Included{Refusal: r}}, nil
		}
		return nil, err
	}
	tx, err := f.app.opened.open(raw)
	if err != nil {
		return refused(err)
	}
	if !peer.IsZero() {
		if err := f.debts.wait(ctx, peer, tx); err != nil {
			return nil, err
		}
	}
	hash := txHash(raw)
	w, forget := f.app.await(hash)
	s := &submission{f: f, waiter: w, forget: forget}
	f.submitting.Lock()
	defer f.submitting.Unlock()
	if in, err := f.outcome(hash); err != nil || in != nil {
		forget()
		return &submission{done: in}, err
	}
	cost, err := f.strict(hash, tx)
	if err != nil {
		forget()
		if in, err := f.outcome(hash); err != nil || in != nil { // its block came meanwhile
			return &submission{done: in}, err
		}
		if !peer.IsZero() {
			f.debts.charge(peer, tx, cost)
		}
		var r *ledger.Refusal
		if errors.As(err, &r) && r.Code == ledger.Bug { // no block will have it
			f.onBug(bug{BugReport: ledger.BugReport{Panic: r.Reason}, tx: hash}, 0)
		}
		return refused(err)
	}
	var answer *abci.ResponseCheckTx
	f.app.setDirect(hash)
	err = f.node.Mempool().CheckTx(raw, func(r *abci.ResponseCheckTx) { answer = r }, mempool.TxInfo{})
	f.app.setDirect(crowd.Hash{})
	switch {
	case errors.Is(err, mempool.ErrTxInCache):
		// It stands in the mempool, or its block came just now.
		if in, err := f.outcome(hash); err != nil || in != nil {
			forget()
			return &submission{done: in}, err
		}
	case err != nil:
		f.pool = nil
		forget()
		return nil, fmt.Errorf("the mempool: %w", err)
	case answer != nil && answer.Code == codeFull:
		f.pool = nil
		forget()
		return nil, fmt.Errorf("the mempool: %s", answer.Log)
	case answer != nil && answer.Code != abci.CodeTypeOK:
		f.pool = nil
		forget()
		return refused(&ledger.Refusal{Code: ledger.Code(answer.Code), Reason: answer.Log})
	}
	return s, nil
}

// strict applies tx on top of the pool, and says how long that took. It needs submitting.
// Where a draw waits for a beacon that only an authority can make, a follower leaves it to CheckTx.
func (f *Full) strict(hash crowd.Hash, tx ledger.Tx) (time.Duration, error) {
	a := f.app
	a.mu.Lock()
	head, version, flies := a.head, a.version, a.flight[hash] != nil
	var line []ledger.Tx
	if f.pool == nil || f.poolAt != version {
		f.pool = nil
		for _, h := range a.line {
			if x := a.flight[h]; x != nil && h != hash {
				line = append(line, x.tx)
			}
		}
	}
	a.mu.Unlock()
	if flies {
		return 0, nil
	}
	if f.pool == nil {
		pending := head.State.DrawPending()
		if pending && a.vrf == nil {
			return 0, nil
		}
		t := max(crowd.Time(a.now().UnixMilli()), head.Time+1)
		p, _, err := a.attempt(head, t, pending)
		if err != nil {
			return 0, fmt.Errorf("try on block %d: %w", head.Height, err)
		}
		for _, x := range line {
			_ = p.Add(x) // it was good when it came; if no more, the block says so
		}
		f.pool, f.poolAt = p, version
	}
	at := time.Now()
	err := f.pool.Add(tx)
	return time.Since(at), err
}

// outcome is what a block said of a transaction, nil while none has.
func (f *Full) outcome(hash crowd.Hash) (*Included, error) {
	h, i, ok, err := f.app.db.find(hash)
	if err != nil || !ok {
		return nil, err
	}
	o, _, err := f.outcomeAt(h, i)
	if err != nil {
		return nil, err
	}
	return &Included{Height: h, Refusal: o.refusal()}, nil
}

func (f *Full) outcomeAt(h crowd.Height, i int) (outcome, []*abci.ExecTxResult, error) {
	res, err := f.results.LoadFinalizeBlockResponse(int64(h))
	if err != nil {
		return outcome{}, nil, fmt.Errorf("results of block %d: %w", h, err)
	}
	if i >= len(res.TxResults) {
		return outcome{}, nil, fmt.Errorf("results of block %d: %w: no entry %d", h, ErrCorrupt, i)
	}
	var o outcome
	if err := crowd.Decode(res.TxResults[i].Data, &o); err != nil {
		return outcome{}, nil, fmt.Errorf("results of block %d: %w: %v", h, ErrCorrupt, err)
	}
	return o, res.TxResults, nil
}

// proveOutcome waits for the header after the transaction's block.
func (f *Full) proveOutcome(ctx context.Context, hash crowd.Hash) (provenOutcome, error) {
	h, i, ok, err := f.app.db.find(hash)
	if err == nil && !ok {
		err = errors.New("no block has used this transaction")
	}
	if err != nil {
		return provenOutcome{}, err
	}
	ev, err := f.Header(ctx, h+1)
	if err != nil {
		return provenOutcome{}, err
	}
	_, results, err := f.outcomeAt(h, i)
	if err != nil {
		return provenOutcome{}, err
	}
	p := types.NewResults(results).ProveResult(i)
	return provenOutcome{Evidence: ev, Data: results[i].Data, Index: p.Index, Total: p.Total, Aunts: p.Aunts}, nil
}

// retry offers again, after each block, what the mempool refused before it.
func (f *Full) retry(ctx context.Context) {
	for {
		f.app.mu.Lock()
		early, changed := f.app.early, f.app.changed
		f.app.early = nil
		f.app.mu.Unlock()
		slices.SortStableFunc(early, func(a, b tooEarly) int { return cmp.Compare(a.nonce, b.nonce) })
		for _, x := range early {
			_ = f.node.Mempool().CheckTx(x.raw, nil, mempool.TxInfo{}) // refused again, it is kept again
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Ticks of several authorities are spread, so that the first one's suffices.
const (
	tickStagger = 250 * time.Millisecond
	tickPause   = 50 * time.Millisecond
)

// tick makes deadlines fall on a chain that would else stand still.
func (f *Full) tick(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := time.Duration(f.index) * tickStagger
	for {
		f.app.mu.Lock()
		head, changed := f.app.head, f.app.changed
		f.app.mu.Unlock()
		wait := time.Hour
		if due, ok := head.State.NextDue(); ok {
			wait = time.Until(time.UnixMilli(int64(due))) + pause
		}
		if wait <= 0 {
			if in, err := f.wallet.Send(ctx, &ledger.Tick{}); err != nil || in.Refusal != nil {
				if ctx.Err() != nil {
					return
				}
				f.log.Warn("tick", "err", err, "refusal", in.Refusal)
			}
			// The block after this one has the present as its time and lets the deadline fall.
			wait = tickPause
		}
		timer.Reset(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}
