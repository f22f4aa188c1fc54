package chain

import (
	"context"
	"io"
	"sync/atomic"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// liarFirst dials the liar once and honest streams from then on.
func liarFirst(t testing.TB, f *Full, change func(frame) []byte) (dial func(context.Context) (io.ReadWriteCloser, error), dials *atomic.Int32) {
	honest, lie := dialer(t, f), lying(t, f, change)
	dials = &atomic.Int32{}
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		if dials.Add(1) == 1 {
			return lie(ctx)
		}
		return honest(ctx)
	}, dials
}

// Absence of any number of keys can be proven: a listing of them would never end,
// and hand empty values to those who decode them.
func TestLight_ListTakesNoAbsentKeys(t *testing.T) {
	w := newWorld(t, 1, 2, 0)
	f := start(t, solo(t, w, t.TempDir()))
	ready := deadline(t)
	dial, dials := liarFirst(t, f.Full, onValues(func(b *valuesBody) {
		snap, err := f.snapshot(ready, 0)
		if err != nil {
			t.Error(err)
			return
		}
		b.Evidence = snap.evidence
		b.Values = append(b.Values, value{Key: []byte(ledger.PrefixProvider + "\xff")})
		for i := range b.Values {
			p := snap.prove(b.Values[i].Key)
			b.Values[i] = value{Key: p.Key, Val: p.Val, Proof: p.Proof}
		}
	}))
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: dial})
	all, err := l.List(ready, ledger.PrefixProvider)
	if err != nil || len(all) != 2 || dials.Load() != 2 {
		t.Errorf("got %d keys, %v, after %d dials want 2 keys from the honest node at the second", len(all), err, dials.Load())
	}
}

// Who has seen the proof of its own transaction must not be shown the state before it.
func TestLight_NoAnswerIsOlderThanWhatIsKnown(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()))
	ctx := deadline(t)
	bob := w.people[1].ID().Address()
	first := must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: bob, Amount: 1})
	if _, err := f.Header(ctx, first.Height+1); err != nil {
		t.Fatal(err)
	}
	old, err := f.Prove(ctx, ledger.AccountKey(bob))
	if err != nil {
		t.Fatal(err)
	}
	pushes := 0
	dial, dials := liarFirst(t, f.Full, func(fr frame) []byte {
		switch {
		case fr.Kind == kValues && fr.ID == 0:
			if pushes++; pushes > 1 {
				return []byte{} // keeps silent about what is new
			}
			return refit(fr, valuesBody{Evidence: old.Evidence})
		case fr.Kind == kValues:
			b, _ := body[valuesBody](fr)
			if string(b.Values[0].Key) != string(old.Key) {
				return plain(fr)
			}
			return refit(fr, valuesBody{Evidence: old.Evidence, Values: []value{{Key: old.Key, Val: old.Val, Proof: old.Proof}}})
		}
		return plain(fr)
	})
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: dial})
	must(t, NewWallet(w.people[0], l), &ledger.Transfer{To: bob, Amount: 1})
	raw, err := l.Get(ctx, old.Key)
	if err != nil {
		t.Fatal(err)
	}
	var acc ledger.Account
	if err := crowd.Decode(raw, &acc); err != nil || acc.Balance != thousand+2 || dials.Load() != 2 {
		t.Errorf("got %s, %v, after %d dials want %s from the honest node at the second", acc.Balance, err, dials.Load(), thousand+2)
	}
}
