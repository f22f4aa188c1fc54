package chain

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/mempool"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// still is a full node that never runs, for its application.
func still(t testing.TB, w *world, authority int) *Full {
	t.Helper()
	f, err := NewFull(Config{Dir: t.TempDir(), Genesis: w.genesis, Key: w.authorities[authority], Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	f.app.committed = func(done, done) {}
	t.Cleanup(f.shut)
	return f
}

func address(w *world, authority int) []byte {
	return ed25519.PubKey(w.genesis.Authorities[authority].Consensus).Address()
}

// commit takes a block through the application.
func commit(t testing.TB, a *app, w *world, txs [][]byte) *abci.ResponseFinalizeBlock {
	t.Helper()
	h := a.current()
	res, err := a.FinalizeBlock(context.Background(), &abci.RequestFinalizeBlock{
		Hash: make([]byte, 32), Height: int64(h.Height) + 1, Time: time.UnixMilli(int64(h.Time) + 1), ProposerAddress: address(w, 0), Txs: txs,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Commit(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	return res
}

func prepare(t testing.TB, a *app, txs ...[]byte) [][]byte {
	t.Helper()
	h := a.current()
	res, err := a.PrepareProposal(context.Background(), &abci.RequestPrepareProposal{
		Height: int64(h.Height) + 1, Time: a.now(), MaxTxBytes: maxBlock, Txs: txs,
	})
	if err != nil {
		t.Fatal(err)
	}
	return res.Txs
}

func TestApp_RefusesForgedProposals(t *testing.T) {
	w := newWorld(t, 2, 2, 2)
	f, g := still(t, w, 0), still(t, w, 1)
	tx := ledger.Sign(w.people[0], f.ChainID(), 0, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	foreign := ledger.Sign(w.people[0], "another-chain", 0, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	good := prepare(t, f.app, tx)
	if len(good) != 2 {
		t.Fatalf("proposal: got %d entries, want a beacon and a transaction", len(good))
	}
	beacon := good[0]
	flipped := bytes.Clone(beacon)
	flipped[40] ^= 1
	theirs := prepare(t, g.app, tx)[0]
	for _, c := range []struct {
		name     string
		proposer []byte
		height   int64
		txs      [][]byte
		want     bool
	}{
		{"honest", address(w, 0), 1, good, true},
		{"nothing to say", address(w, 0), 1, nil, true},
		{"a forged beacon", address(w, 0), 1, [][]byte{flipped, tx}, false},
		{"another authority's beacon", address(w, 0), 1, [][]byte{theirs, tx}, false},
		{"its beacon, another's block", address(w, 1), 1, good, false},
		{"no beacon", address(w, 0), 1, [][]byte{tx}, false},
		{"the beacon last", address(w, 0), 1, [][]byte{tx, beacon}, false},
		{"two beacons", address(w, 0), 1, [][]byte{beacon, beacon, tx}, false},
		{"half a beacon", address(w, 0), 1, [][]byte{beacon[:40], tx}, false},
		{"a beacon for nothing", address(w, 0), 1, [][]byte{beacon}, false},
		{"rubbish", address(w, 0), 1, [][]byte{beacon, {1, 2, 3}}, false},
		{"an empty entry", address(w, 0), 1, [][]byte{beacon, {}}, false},
		{"a transaction of another chain", address(w, 0), 1, [][]byte{beacon, foreign}, false},
		{"an unknown proposer", make([]byte, 20), 1, good, false},
		{"a height that does not follow", address(w, 0), 2, good, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, err := f.app.ProcessProposal(context.Background(), &abci.RequestProcessProposal{
				Hash: make([]byte, 32), Height: c.height, Time: f.app.now(), ProposerAddress: c.proposer, Txs: c.txs,
			})
			if err != nil || res.IsAccepted() != c.want {
				t.Errorf("got accepted %v, %v, want %v", res.IsAccepted(), err, c.want)
			}
		})
	}
}

func TestApp_PreparesOnlyWhatCanPay(t *testing.T) {
	w := newWorld(t, 1, 2, 2)
	f := still(t, w, 0)
	f.app.stale = time.Hour
	to := w.people[1].ID().Address()
	sign := func(key, nonce uint64, m ledger.Message) []byte {
		return ledger.Sign(testKey(t, key), f.ChainID(), nonce, m)
	}
	pay := &ledger.Transfer{To: to, Amount: 1}
	for _, c := range []struct {
		name string
		txs  [][]byte
		want string // which of txs stand in the block
	}{
		{"in order", [][]byte{sign(3000, 0, pay), sign(3000, 1, pay)}, "[0 1]"},
		{"a gap", [][]byte{sign(3000, 0, pay), sign(3000, 2, pay)}, "[0]"},
		{"a replay", [][]byte{sign(3000, 0, pay), sign(3000, 0, &ledger.Transfer{To: to, Amount: 2})}, "[0]"},
		{"no money at all", [][]byte{sign(9, 0, pay), sign(3000, 0, pay)}, "[1]"},
		{"a refusal that its sender pays for", [][]byte{sign(3000, 0, &ledger.Transfer{To: to, Amount: 5 * thousand})}, "[0]"},
		{"an authority's free tick", [][]byte{sign(1000, 0, &ledger.Tick{})}, "[0]"},
		{"a stranger's tick", [][]byte{sign(9, 0, &ledger.Tick{})}, "[]"},
		{"rubbish", [][]byte{{1, 2}, sign(3000, 0, pay)}, "[1]"},
		{"nothing", nil, "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			block := prepare(t, f.app, c.txs...)
			got := []int{}
			for i, tx := range c.txs {
				for _, b := range block {
					if bytes.Equal(b, tx) {
						got = append(got, i)
					}
				}
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
			if len(got) == 0 && len(block) != 0 {
				t.Errorf("got a block of %d entries, want none", len(block))
			}
		})
	}
}

func TestApp_MempoolForgets(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := still(t, w, 0)
	f.app.stale = time.Hour
	ctx := context.Background()
	check := func(raw []byte, typ abci.CheckTxType) ledger.Code {
		res, err := f.app.CheckTx(ctx, &abci.RequestCheckTx{Tx: raw, Type: typ})
		if err != nil {
			t.Fatal(err)
		}
		return ledger.Code(res.Code)
	}
	pay := &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1}
	sign := func(nonce uint64) []byte { return ledger.Sign(w.people[0], f.ChainID(), nonce, pay) }
	if got := check(sign(1), abci.CheckTxType_New); got != ledger.BadNonce {
		t.Errorf("a nonce with a gap before it: got %s, want %s", got, ledger.BadNonce)
	}
	for i := range uint64(2) {
		if got := check(sign(i), abci.CheckTxType_New); got != ledger.OK {
			t.Errorf("nonce %d: got %s, want ok", i, got)
		}
	}
	// The first is never rechecked: CometBFT lost it. The second then has a gap before it.
	w0, forget := f.app.await(txHash(sign(1)))
	defer forget()
	commit(t, f.app, w, prepare(t, f.app, ledger.Sign(w.people[1], f.ChainID(), 0, pay)))
	if got := check(sign(1), abci.CheckTxType_Recheck); got != ledger.BadNonce {
		t.Errorf("recheck with a gap: got %s, want %s", got, ledger.BadNonce)
	}
	if v := <-w0; v.err != ErrDropped {
		t.Errorf("waiter: got %v, want %v", v.err, ErrDropped)
	}
	commit(t, f.app, w, prepare(t, f.app, ledger.Sign(w.people[1], f.ChainID(), 1, pay)))
	if len(f.app.flight) != 0 {
		t.Errorf("flying: got %d, want none", len(f.app.flight))
	}
	// One that no proposer takes leaves after a while.
	if got := check(sign(0), abci.CheckTxType_New); got != ledger.OK {
		t.Errorf("again: got %s, want ok", got)
	}
	for i := range maxWait {
		commit(t, f.app, w, prepare(t, f.app, ledger.Sign(w.people[1], f.ChainID(), uint64(i+2), pay)))
		if got := check(sign(0), abci.CheckTxType_Recheck); got != ledger.OK {
			t.Fatalf("recheck after %d blocks: got %s, want ok", i, got)
		}
	}
	commit(t, f.app, w, prepare(t, f.app, ledger.Sign(w.people[1], f.ChainID(), maxWait+2, pay)))
	if got := check(sign(0), abci.CheckTxType_Recheck); got == ledger.OK {
		t.Error("one that no block takes stays for ever")
	}
}

// Accounts with money send what no block can use, their first nonce missing: nobody can fill the mempool for nothing.
func TestFull_NobodyFillsTheMempoolForNothing(t *testing.T) {
	const accounts, each = 99, 63
	w := newWorld(t, 1, 0, accounts+1)
	nodes := cluster(t, w, 1)
	to := w.people[accounts].ID().Address()
	for i := range accounts {
		for nonce := uint64(1); nonce <= each; nonce++ { // as gossip does, and past the follower's own check
			raw := ledger.Sign(w.people[i], nodes[0].ChainID(), nonce, &ledger.Transfer{To: to, Amount: 1})
			_ = nodes[i%2].node.Mempool().CheckTx(raw, nil, mempool.TxInfo{})
		}
	}
	for i, n := range nodes {
		if got := n.node.Mempool().Size(); got != 0 {
			t.Errorf("node %d: got %d transactions in the mempool, want none", i, got)
		}
	}
	must(t, NewWallet(w.people[accounts], nodes[1]), &ledger.Transfer{To: w.people[0].ID().Address(), Amount: 1})
	for _, k := range w.people[:accounts] {
		if a := nodes[0].Head().State.Account(k.ID().Address()); a.Nonce != 0 {
			t.Fatalf("nonce %d of an account whose first transaction is missing", a.Nonce)
		}
	}
}

// An account has in the mempool what it can pay for, no more than its share, and the less the fuller it is.
func TestApp_MempoolIsShared(t *testing.T) {
	w := newWorld(t, 1, 0, 80)
	f := still(t, w, 0)
	pay := &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1}
	add := func(i int, nonce uint64) uint32 {
		res, err := f.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: ledger.Sign(w.people[i], f.ChainID(), nonce, pay)})
		if err != nil {
			t.Fatal(err)
		}
		return res.Code
	}
	admitted := make([]uint64, len(w.people))
	for i := range w.people[:78] {
		for ; add(i, admitted[i]) == 0; admitted[i]++ {
		}
		if code := add(i, admitted[i]); code != codeFull {
			t.Errorf("account %d, %d admitted: got code %d, want %d", i, admitted[i], code, codeFull)
		}
	}
	if admitted[0] != maxAhead || admitted[50] != maxAhead/8 || admitted[77] != 1 && admitted[77] != maxAhead/8 {
		t.Errorf("got %d, %d and %d of accounts 0, 50 and 77, want %d, then fewer", admitted[0], admitted[50], admitted[77], maxAhead)
	}
	if code := add(79, 0); code != 0 {
		t.Errorf("another account's one: got code %d, want ok", code)
	}
	poor := still(t, w, 0)
	fee := w.genesis.Params.Fee
	tx, err := ledger.Open(f.ChainID(), ledger.Sign(w.people[0], f.ChainID(), 0, pay))
	if err != nil {
		t.Fatal(err)
	}
	acc := poor.app.head.State.Account(w.people[0].ID().Address())
	if n := uint64(acc.Balance / fee(tx)); n < maxAhead {
		t.Fatalf("the account can pay for %d", n)
	}
	poor.app.lanes[w.people[0].ID()] = &lane{fees: acc.Balance - fee(tx)}
	for nonce, want := range []uint32{0, uint32(ledger.NoFunds)} {
		res, err := poor.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: ledger.Sign(w.people[0], f.ChainID(), uint64(nonce), pay)})
		if err != nil || res.Code != want {
			t.Errorf("nonce %d of an account that can pay for one more: got code %d, %v, want %d", nonce, res.Code, err, want)
		}
	}
}

// CometBFT gossips a transaction once; a node that was a block behind then must not lose it.
func TestFull_LooksAgainAtWhatCameTooEarly(t *testing.T) {
	w := newWorld(t, 1, 0, 1)
	f := start(t, solo(t, w, t.TempDir()))
	poor := testKey(t, 9)
	to := w.people[0].ID().Address()
	early := ledger.Sign(poor, f.ChainID(), 0, &ledger.Transfer{To: to, Amount: 1})
	if err := f.node.Mempool().CheckTx(early, nil, mempool.TxInfo{}); err != nil { // as gossip does
		t.Fatal(err)
	}
	waiter, forget := f.app.await(txHash(early))
	defer forget()
	must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: poor.ID().Address(), Amount: crowd.Credit})
	select {
	case v := <-waiter:
		if v.err != nil || v.in.Refusal != nil {
			t.Errorf("got %+v", v)
		}
	case <-deadline(t).Done():
		t.Error("lost")
	}
	for i := range 3 * maxEarly {
		_ = f.node.Mempool().CheckTx(ledger.Sign(testKey(t, 10), f.ChainID(), uint64(i), &ledger.Awake{}), nil, mempool.TxInfo{})
	}
	f.app.mu.Lock()
	defer f.app.mu.Unlock()
	if n := len(f.app.early); n != maxEarly {
		t.Errorf("kept: got %d, want %d", n, maxEarly)
	}
}

func TestApp_RecordsWhatUsedANonce(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := still(t, w, 0)
	to := w.people[1].ID().Address()
	tx := ledger.Sign(w.people[0], f.ChainID(), 0, &ledger.Transfer{To: to, Amount: 1})
	rival := ledger.Sign(w.people[0], f.ChainID(), 0, &ledger.Transfer{To: to, Amount: 2})
	poor := ledger.Sign(testKey(t, 9), f.ChainID(), 0, &ledger.Transfer{To: to, Amount: 1})
	f.app.stale = time.Hour
	block := prepare(t, f.app, tx)
	res := commit(t, f.app, w, append(block, tx, rival, poor)) // a careless proposer's
	if got := len(res.TxResults); got != 5 {
		t.Fatalf("results: got %d, want 5", got)
	}
	for _, c := range []struct {
		name string
		raw  []byte
		want bool
	}{{"the transaction", tx, true}, {"a rival's", rival, false}, {"one that cannot pay", poor, false}} {
		h, i, ok, err := f.app.db.find(txHash(c.raw))
		if err != nil || ok != c.want || ok && (h != 1 || i != 1) {
			t.Errorf("%s: got %d/%d %v, %v, want recorded %v", c.name, h, i, ok, err, c.want)
		}
	}
}

func FuzzDecodeBlock(f *testing.F) {
	w := newWorld(f, 1, 0, 2)
	chain := w.genesis.ChainID()
	tx := ledger.Sign(w.people[0], chain, 0, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	beacon := append([]byte{beaconTag}, make([]byte, beaconSize-1)...)
	f.Add(beacon, tx)
	f.Add(tx, beacon)
	f.Add([]byte{}, []byte{beaconTag})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		proof, txs, err := decodeBlock([][]byte{a, b}, newTxCache(chain).open)
		if err != nil {
			return
		}
		if n := len(txs); proof != nil && n != 1 || proof == nil && n != 2 {
			t.Errorf("got beacon %v and %d transactions of 2 entries", proof != nil, n)
		}
		if proof != nil && !bytes.Equal(a, append([]byte{beaconTag}, proof[:]...)) {
			t.Error("the beacon does not encode back")
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add(encodeFrame(0, kHello, hello{Chain: "x", Prefixes: [][]byte{[]byte("job/")}}))
	f.Add(encodeFrame(1, kGet, getBody{Key: []byte("a"), Min: 3}))
	f.Add(encodeFrame(1, kList, listBody{Prefix: []byte("a")}))
	f.Add(encodeFrame(2, kValues, valuesBody{Evidence: []byte{1}, Values: []value{{Key: []byte("k"), Proof: []byte{1}}}}))
	f.Add(encodeFrame(3, kOutcome, provenOutcome{Data: []byte{1}, Aunts: [][]byte{{1}}}))
	f.Add(encodeFrame(4, kError, errorBody{Text: "no"}))
	f.Add([]byte{0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		fr, err := readFrame(bytes.NewReader(data), maxAnswer)
		if err != nil {
			return
		}
		if got := plain(fr); !bytes.Equal(got, data[:len(got)]) {
			t.Errorf("got %x, want %x", got, data)
		}
		again(t, fr, body[hello])
		again(t, fr, body[getBody])
		again(t, fr, body[listBody])
		again(t, fr, body[sendBody])
		again(t, fr, body[headerBody])
		again(t, fr, body[valuesBody])
		again(t, fr, body[provenOutcome])
		again(t, fr, body[refusalBody])
		again(t, fr, body[evidenceBody])
		again(t, fr, body[errorBody])
	})
}

func again[T any](t *testing.T, fr frame, decode func(frame) (T, error)) {
	if v, err := decode(fr); err == nil && !bytes.Equal(crowd.Encode(v), fr.Body) {
		t.Errorf("%T does not encode back", v)
	}
}

// Where the ledger meets an error of its own the block goes on; the node counts it and says in its log what to report.
func TestFull_CountsAndLogsBugs(t *testing.T) {
	w := newWorld(t, 1, 0, 1)
	var log bytes.Buffer
	id := crowd.JobID{7}
	c := solo(t, w, t.TempDir())
	c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	f := start(t, c, func(f *Full) {
		old := f.app.head.State
		f.app.head.State = ledger.Load(func(add func(string, []byte)) { // with a deadline of a job that is not there
			old.Each("", func(key string, val []byte) bool { add(key, val); return true })
			add("due/"+string(make([]byte, 8))+string(id[:]), []byte{1})
		})
	})
	must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: w.authorities[0].ID().Address(), Amount: 1}) // the block goes on
	f.close()
	if got := f.Bugs(); got == 0 {
		t.Error("got no bug counted")
	}
	for _, want := range []string{"bug: the ledger met an error", "an index names job", id.String()} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q: %s", want, log.String())
		}
	}
	before := f.Bugs()
	log.Reset()
	for range 3 * maxBugLogs {
		f.onBug(bug{}, 2)
	}
	if n := strings.Count(log.String(), "bug:"); f.Bugs() != before+3*maxBugLogs || n > maxBugLogs {
		t.Errorf("got %d counted and %d logged, want all counted and at most %d logged", f.Bugs()-before, n, maxBugLogs)
	}
}
