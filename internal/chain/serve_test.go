package chain

import (
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
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
