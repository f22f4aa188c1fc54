package chain

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cometbft/cometbft/store"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// oldest is the first block that CometBFT has.
func oldest(r *running) crowd.Height {
	return crowd.Height(store.LoadBlockStoreState(r.dbs["blockstore"]).Base)
}

// Old blocks leave the disk with everything that pointed at them, headers included. The chain goes on from what is left, also after a
// restart; what an old transaction did is forgotten, and it still cannot be used again.
func TestFull_ForgetsOldBlocks(t *testing.T) {
	const keep = 30
	w := newWorld(t, 1, 0, 2)
	w.genesis.Params.Retention = 500
	few := func(f *Full) { f.app.keep = keep }
	dir := t.TempDir()
	r := start(t, solo(t, w, dir), few)
	to := w.people[1].ID().Address()
	sender := NewWallet(w.people[0], r)
	first := ledger.Sign(w.people[0], r.ChainID(), 0, &ledger.Transfer{To: to, Amount: 1})
	if in := must(t, sender, &ledger.Transfer{To: to, Amount: 1}); in.Height == 0 {
		t.Fatal("no block has it")
	}
	if in, err := r.Send(deadline(t), first); err != nil || in.Refusal != nil {
		t.Fatalf("the same bytes while their block is kept: %+v, %v", in, err)
	}
	for began := time.Now(); oldest(r) <= 5 || r.Head().Height < 3*keep; {
		must(t, sender, &ledger.Transfer{To: to, Amount: 1})
		if time.Since(began) > 60*time.Second {
			t.Fatalf("block %d, and the oldest is still %d", r.Head().Height, oldest(r))
		}
	}
	if n := r.Head().Height; oldest(r)+keep > n {
		t.Errorf("of %d blocks the oldest kept is %d", n, oldest(r))
	}
	if _, err := r.signedHeader(1); err == nil {
		t.Error("the header of block 1 is still there")
	}
	if _, err := r.results.LoadFinalizeBlockResponse(1); err == nil {
		t.Error("the results of block 1 are still there")
	}
	if _, _, found, err := r.app.db.find(txHash(first)); found || err != nil {
		t.Errorf("the first transaction: found %v, %v", found, err)
	}
	if in, err := r.Send(deadline(t), first); err != nil || in.Refusal == nil || in.Refusal.Code != ledger.BadNonce {
		t.Errorf("the same bytes when their block is gone: got %+v, %v want a refusal for the nonce", in, err)
	}
	base := oldest(r)
	r.close()

	r = start(t, solo(t, w, dir), few)
	if oldest(r) < base {
		t.Errorf("the oldest block was %d and is %d after a restart", base, oldest(r))
	}
	must(t, NewWallet(w.people[0], r), &ledger.Transfer{To: to, Amount: 1})
	if a := r.Head().State.Account(to); a.Balance <= thousand {
		t.Errorf("the receiver has %s", a.Balance)
	}
}

func TestSweepLog(t *testing.T) {
	dir := t.TempDir()
	names := []string{"wal", "wal.998", "wal.999", "wal.1000", "wal.1001", "wal.CORRUPTED", "other"}
	for _, n := range names {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweepLog(dir); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range left {
		left[i] = filepath.Base(p)
	}
	if got, want := fmt.Sprint(left), "[other wal wal.1000 wal.1001 wal.CORRUPTED]"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}
