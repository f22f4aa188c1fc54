package chain

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
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
			b.Values[i] = newValue(p)
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
			return refit(fr, valuesBody{Evidence: old.Evidence, Values: []value{newValue(old)}})
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

// Everything here is proven, and yet not what was asked for.
func TestLight_BelievesNoTrueAnswerToAnotherQuestion(t *testing.T) {
	w := newWorld(t, 1, 3, 2)
	f := start(t, solo(t, w, t.TempDir()))
	ctx := deadline(t)
	alice, bob := w.people[0], w.people[1].ID().Address()
	raw := func(nonce uint64) []byte {
		return ledger.Sign(alice, f.ChainID(), nonce, &ledger.Transfer{To: bob, Amount: 1})
	}
	first, err := f.Send(ctx, raw(0))
	if err != nil || first.Refusal != nil {
		t.Fatal(first, err)
	}
	other, err := f.proveOutcome(ctx, txHash(raw(0)))
	if err != nil {
		t.Fatal(err)
	}
	one, err := f.Header(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	// values are proven ones of these keys, all under one header.
	values := func(b *valuesBody, keys ...string) {
		snap, err := f.snapshot(ctx, 0)
		if err != nil {
			t.Error(err)
			return
		}
		b.Evidence, b.Values = snap.evidence, nil
		for _, k := range keys {
			p := snap.prove([]byte(k))
			b.Values = append(b.Values, newValue(p))
		}
	}
	var providers []string
	f.Head().State.Each(ledger.PrefixProvider, func(key string, _ []byte) bool { providers = append(providers, key); return true })
	get := func(l *Light) error {
		v, err := l.Get(ctx, ledger.AccountKey(bob))
		if err == nil && string(v) != string(f.Head().State.Get(ledger.AccountKey(bob))) {
			err = errors.New("another value")
		}
		return err
	}
	list := func(l *Light) error {
		all, err := l.List(ctx, ledger.PrefixProvider)
		if err == nil && len(all) != len(providers) {
			err = fmt.Errorf("%d keys", len(all))
		}
		return err
	}
	nonce := uint64(1)
	send := func(l *Light) error {
		in, err := l.Send(ctx, raw(nonce))
		if err == nil && (in.Refusal != nil || in.Height <= first.Height) {
			err = fmt.Errorf("included at %d (%v)", in.Height, in.Refusal)
		}
		nonce++
		return err
	}
	onKind := func(k kind, change func(fr frame) []byte) func(frame) []byte {
		return func(fr frame) []byte {
			if fr.Kind == k {
				return change(fr)
			}
			return plain(fr)
		}
	}
	for _, c := range []struct {
		name   string
		change func(frame) []byte
		ask    func(l *Light) error
	}{
		{"another key", onValues(func(b *valuesBody) { values(b, string(ledger.ParamsKey())) }), get},
		{"a list out of order", onValues(func(b *valuesBody) { values(b, providers[1], providers[0], providers[2]) }), list},
		{"a list with a double", onValues(func(b *valuesBody) { values(b, providers[0], providers[0], providers[1]) }), list},
		{"a list of other keys", onValues(func(b *valuesBody) { values(b, append(providers[:2:2], string(ledger.ParamsKey()))...) }), list},
		{"an empty page that promises more", onValues(func(b *valuesBody) { values(b); b.More = true }), list},
		{"another header", onKind(kEvidence, func(fr frame) []byte { return refit(fr, evidenceBody{Evidence: one}) }), func(l *Light) error {
			ev, err := l.Header(ctx, 2)
			if err == nil && string(ev) == string(one) {
				err = errors.New("header 1")
			}
			return err
		}},
		{"another transaction's outcome", onKind(kOutcome, func(fr frame) []byte { return refit(fr, other) }), send},
		{"a refusal that is none", onKind(kOutcome, func(fr frame) []byte { return encodeFrame(fr.ID, kRefusal, refusalBody{}) }), send},
	} {
		t.Run(c.name, func(t *testing.T) {
			dial, dials := liarFirst(t, f.Full, c.change)
			l := startLight(t, LightConfig{Genesis: w.genesis, Dial: dial})
			if err := c.ask(l); err != nil || dials.Load() != 2 {
				t.Errorf("got %v after %d dials want the honest node's answer at the second", err, dials.Load())
			}
		})
	}
}

// A push may be late, but none goes back in time.
func TestLight_TakesNoPushOlderThanTheLast(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()))
	ctx := deadline(t)
	in := must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	if _, err := f.Header(ctx, in.Height+1); err != nil {
		t.Fatal(err)
	}
	one, err := f.Header(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	pushes := 0
	dial, dials := liarFirst(t, f.Full, func(fr frame) []byte {
		if fr.ID == 0 {
			if pushes++; pushes > 1 {
				return refit(fr, valuesBody{Evidence: one})
			}
		}
		return plain(fr)
	})
	l := NewLight(LightConfig{Genesis: w.genesis, Dial: dial, Prefixes: []string{"account/"}, Log: testLog(t)})
	blocks := l.Watch(ctx)
	run, stop := context.WithCancel(ctx)
	end := make(chan error, 1)
	go func() { end <- l.Run(run) }()
	defer func() { stop(); <-end }()
	last := (<-blocks).Height
	must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 2})
	for b := range blocks {
		if b.Height < last {
			t.Fatalf("got a block of height %d after %d", b.Height, last)
		}
		if last = b.Height; b.Lost {
			break // another session
		}
	}
	if dials.Load() != 2 {
		t.Errorf("got %d dials want 2", dials.Load())
	}
}

func TestApp_AdmitsNobodyWhoCannotPay(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	w.genesis.Grants[1].Balance = w.genesis.Params.TxFee // not what the size costs
	f := still(t, w, 0)
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		raw  []byte
		want ledger.Code
	}{
		{"a stranger", ledger.Sign(k, f.ChainID(), 0, &ledger.Tick{}), ledger.NoFunds},
		{"who has the flat fee alone", ledger.Sign(w.people[1], f.ChainID(), 0, &ledger.Tick{}), ledger.NoFunds},
		{"an account", ledger.Sign(w.people[0], f.ChainID(), 0, &ledger.Tick{}), ledger.OK},
	} {
		res, err := f.app.CheckTx(t.Context(), &abci.RequestCheckTx{Tx: c.raw})
		if err != nil || ledger.Code(res.Code) != c.want {
			t.Errorf("%s: got code %d, %v want %s", c.name, res.Code, err, c.want)
		}
	}
}

// Two signed headers of one height are the authorities' fraud: neither is believed any more.
func TestLight_RefusesAFork(t *testing.T) {
	w := newWorld(t, 1, 0, 1)
	f := start(t, solo(t, w, t.TempDir()))
	ev, err := f.Header(deadline(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	l := NewLight(LightConfig{Genesis: w.genesis})
	l.head = Header{Height: 1, AppHash: crowd.Hash{1}} // as if it had been signed too
	if h, err := l.header(ev); err == nil {
		t.Errorf("got header %d with root %s, and another was seen before", h.Height, h.AppHash)
	}
}
