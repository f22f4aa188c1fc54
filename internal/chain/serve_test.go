package chain

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// serveFrom opens a stream of a node to f, on which hello has been said.
func serveFrom(t testing.TB, f *Full, from crowd.NodeID) (c net.Conn, end <-chan error) {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- f.Serve(ctx, from, b) }()
	t.Cleanup(func() { cancel(); a.Close() })
	if _, err := a.Write(encodeFrame(0, kHello, hello{Chain: f.ChainID()})); err != nil {
		t.Fatal(err)
	}
	return a, done
}

// One identity opens stream after stream and asks on each, 64 times, what cannot be answered yet, or what it
// then does not read: the attacker sends little, and would have the full node hold much.
func TestServe_HoldsLittleForOneIdentity(t *testing.T) {
	const streams, bound = 256, 4 << 20
	w := newWorld(t, 1, 200, 1)
	f := start(t, solo(t, w, t.TempDir()))
	for _, c := range []struct {
		name     string
		question func(id uint64) []byte
	}{
		{"headers of the far future", func(id uint64) []byte { return encodeFrame(id, kHeader, headerBody{Height: 1 << 60}) }},
		{"values of the far future", func(id uint64) []byte {
			return encodeFrame(id, kGet, getBody{Key: ledger.ParamsKey(), Min: 1 << 60})
		}},
		{"lists that nobody reads", func(id uint64) []byte { return encodeFrame(id, kList, listBody{Prefix: []byte("")}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			used := func() (uint64, int) {
				runtime.GC()
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc + m.StackInuse, runtime.NumGoroutine()
			}
			before, routines := used()
			for range streams {
				s, _ := serveFrom(t, f.Full, w.people[0].ID())
				if err := s.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
					t.Fatal(err)
				}
				for id := range uint64(maxAsked) {
					if _, err := s.Write(c.question(id + 1)); err != nil {
						break
					}
				}
			}
			time.Sleep(100 * time.Millisecond) // for those that were ended to end
			after, more := used()
			if after > before+bound {
				t.Errorf("got %d KiB held for one identity, want at most %d", (after-before)>>10, bound>>10)
			}
			if more > routines+streams+2*maxAsked { // of the test, one for each
				t.Errorf("got %d goroutines more", more-routines)
			}
		})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.streams); n > 1 {
		t.Errorf("got %d streams of one node, want 1", n)
	}
}

// A question for what is to come is refused after a while, and its slot is free.
func TestServe_NoQuestionWaitsForEver(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()), func(f *Full) { f.catchUp = 50 * time.Millisecond })
	s, _ := serveFrom(t, f.Full, w.people[0].ID())
	var asking sync.WaitGroup
	asking.Go(func() {
		for id := range uint64(3 * maxAsked) {
			if _, err := s.Write(encodeFrame(id+1, kHeader, headerBody{Height: 1 << 60})); err != nil {
				t.Error(err)
				return
			}
		}
	})
	if err := s.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < 3*maxAsked; {
		fr, err := readFrame(s, maxAnswer)
		if err != nil {
			t.Fatalf("after %d refusals: %v", got, err)
		}
		if fr.ID == 0 {
			continue
		}
		if b, err := body[errorBody](fr); err != nil || fr.Kind != kError || !strings.Contains(b.Text, "block") {
			t.Fatalf("got kind %d, %+v, %v, want an error that names the block", fr.Kind, b, err)
		}
		got++
	}
	asking.Wait()
}

// A node whose stream broke without a sign opens another, which ends the old one.
func TestServe_TheNewStreamOfANodeEndsItsOld(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()))
	old, end := serveFrom(t, f.Full, w.people[0].ID())
	other, _ := serveFrom(t, f.Full, w.people[1].ID())
	drain := func(c net.Conn) chan error {
		done := make(chan error, 1)
		go func() { _, err := io.Copy(io.Discard, c); done <- err }()
		return done
	}
	oldOver, otherOver := drain(old), drain(other)
	newer, _ := serveFrom(t, f.Full, w.people[0].ID())
	newOver := drain(newer)
	select {
	case err := <-end:
		if err != nil {
			t.Errorf("the old stream: got %v, want no blame", err)
		}
	case <-deadline(t).Done():
		t.Fatal("the old stream lives on")
	}
	<-oldOver
	if _, err := newer.Write(encodeFrame(1, kHeader, headerBody{Height: 1})); err != nil {
		t.Errorf("the new stream: %v", err)
	}
	select {
	case <-otherOver:
		t.Error("another node's stream was ended")
	case <-newOver:
		t.Error("the new stream was ended")
	case <-time.After(50 * time.Millisecond):
	}
}

func TestServe_ToldToAskAnotherWhenFull(t *testing.T) {
	w := newWorld(t, 1, 0, 1)
	f := still(t, w, 0)
	for i := range maxStreams {
		f.streams[crowd.NodeID{1, byte(i), byte(i >> 8)}] = &service{}
	}
	a, b := net.Pipe()
	go func() { _ = f.Serve(t.Context(), w.people[0].ID(), b) }()
	fr, err := readFrame(a, maxAnswer)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := body[errorBody](fr); err != nil || fr.ID != 0 || fr.Kind != kError || !strings.Contains(e.Text, "ask another") {
		t.Errorf("got %d, %+v, %v, want to be told to ask another", fr.Kind, e, err)
	}
}

// A long list comes in pages, each of which the full node finds without a look at those before.
func TestLight_ListsEveryPage(t *testing.T) {
	w := newWorld(t, 1, 0, 800)
	f := start(t, solo(t, w, t.TempDir()))
	var frames atomic.Int32
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: lying(t, f.Full, func(fr frame) []byte {
		if fr.Kind == kValues && fr.ID != 0 {
			frames.Add(1)
		}
		return plain(fr)
	})})
	got, err := l.List(deadline(t), "account/")
	if err != nil {
		t.Fatal(err)
	}
	want, err := f.List(t.Context(), "account/")
	if err != nil || len(got) != len(want) || len(got) < 800 {
		t.Fatalf("got %d keys, want %d, %v", len(got), len(want), err)
	}
	for i := range want {
		if got[i].Key != want[i].Key || string(got[i].Val) != string(want[i].Val) {
			t.Fatalf("key %d: got %q, want %q", i, got[i].Key, want[i].Key)
		}
	}
	if frames.Load() < 2 {
		t.Errorf("got %d pages: the test does not test", frames.Load())
	}
}

// Somebody who can pay posts what is refused after a look at every provider, from several nodes and accounts, as fast as it
// can. It pays nothing. Others' transactions get through all the same.
func TestFull_RefusalsStarveNobody(t *testing.T) {
	const providers, spammers, took = 950, 6, 3 * time.Second
	w := newWorld(t, 1, providers, spammers+2)
	f := start(t, solo(t, w, t.TempDir()))
	alice, bob := NewWallet(w.people[spammers], f), w.people[spammers+1].ID().Address()
	latency := func(span time.Duration) (most time.Duration, n int) {
		for end := time.Now().Add(span); time.Now().Before(end); n++ {
			at := time.Now()
			must(t, alice, &ledger.Transfer{To: bob, Amount: 1})
			most = max(most, time.Since(at))
		}
		return most, n
	}
	quiet, _ := latency(took / 3)
	dear := w.spec()
	dear.Filters.Tags = []string{"nobody-has-this"}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	var checked, busy atomic.Int32
	for i := range spammers {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				spec := dear
				spec.Budget += crowd.Credits(n) // another transaction each time
				_, err := f.submit(ctx, w.people[i].ID(), ledger.Sign(w.people[i], f.ChainID(), 0, &ledger.Post{Spec: spec}))
				if errors.Is(err, errBusy) {
					busy.Add(1)
				} else {
					checked.Add(1)
				}
			}
		})
	}
	most, n := latency(took)
	cancel()
	wg.Wait()
	t.Logf("the longest of the honest sender's: %v when it is quiet, %v of %d beside %d posts that were checked and %d turned away", quiet, most, n, checked.Load(), busy.Load())
	if got, want := checked.Load(), spammers*int32(took/(debtFactor*debtLeast)); got > want { // what is cheaper than debtLeast is free
		t.Errorf("got %d refused posts checked in %v, want at most %d", got, took, want)
	}
	if most > 10*quiet+500*time.Millisecond {
		t.Errorf("an honest transfer took %v, %v when it is quiet", most, quiet)
	}
}

// Debts are kept apart by peer, account and kind of message, are paid off by time, and are bounded.
func TestDebts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d debts
		open := func(i uint64, m ledger.Message) ledger.Tx {
			tx, err := ledger.Open("x", ledger.Sign(testKey(t, i), "x", 0, m))
			if err != nil {
				t.Fatal(err)
			}
			return tx
		}
		post, tick := open(1, &ledger.Post{}), open(1, &ledger.Tick{})
		peer, other := crowd.NodeID{1}, crowd.NodeID{2}
		d.charge(peer, post, debtLeast-1)
		waits := func(peer crowd.NodeID, tx ledger.Tx) time.Duration {
			at := time.Now()
			if err := d.wait(t.Context(), peer, tx); err != nil {
				t.Errorf("wait: %v", err)
			}
			return time.Since(at)
		}
		if got := waits(peer, post); got != 0 {
			t.Errorf("a cheap refusal: waits %v", got)
		}
		d.charge(peer, post, time.Millisecond)
		for _, c := range []struct {
			name string
			peer crowd.NodeID
			tx   ledger.Tx
			want time.Duration
		}{
			{"another kind", peer, tick, 0},
			{"another peer and account", other, open(2, &ledger.Post{}), 0},
			{"the account through another peer", other, post, 100 * time.Millisecond},
			{"paid off", peer, post, 0},
		} {
			if got := waits(c.peer, c.tx); got != c.want {
				t.Errorf("%s: waits %v, want %v", c.name, got, c.want)
			}
		}
		d.charge(peer, post, time.Millisecond)
		if got := waits(peer, open(3, &ledger.Post{})); got != 100*time.Millisecond {
			t.Errorf("another account through the peer: waits %v", got)
		}
		d.charge(peer, post, 50*time.Millisecond)
		if err := d.wait(t.Context(), peer, post); !errors.Is(err, errBusy) {
			t.Errorf("owes seconds: got %v, want %v", err, errBusy)
		}
		for i := range 3 * maxDebtors {
			d.charge(crowd.NodeID{byte(i), byte(i >> 8), 7}, post, time.Millisecond)
		}
		if n := len(d.until); n > maxDebtors {
			t.Errorf("got %d debtors, want at most %d", n, maxDebtors)
		}
		if err := d.wait(t.Context(), peer, post); !errors.Is(err, errBusy) {
			t.Errorf("who owes most was let off: %v", err)
		}
	})
}
