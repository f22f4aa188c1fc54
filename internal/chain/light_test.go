package chain

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// dialer gives streams to f in this process.
func dialer(t testing.TB, f *Full) func(context.Context) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	return func(context.Context) (io.ReadWriteCloser, error) {
		a, b := net.Pipe()
		wg.Go(func() {
			if err := f.Serve(ctx, crowd.NodeID{}, b); err != nil && !errors.Is(err, ErrClosed) {
				t.Logf("serve: %v", err)
			}
		})
		return a, nil
	}
}

func startLight(t testing.TB, c LightConfig) *Light {
	t.Helper()
	if c.Log == nil {
		c.Log = testLog(t)
	}
	l := NewLight(c)
	if strings.HasSuffix(t.Name(), "/silence") {
		l.patience = 200 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-end; err != nil {
			t.Errorf("run light: %v", err)
		}
	})
	return l
}

func ready(t testing.TB, l *Light) {
	t.Helper()
	select {
	case <-l.Ready():
	case <-deadline(t).Done():
		t.Fatal("the light node is not ready")
	}
}

func TestLight_FollowsProvesAndSends(t *testing.T) {
	w := newWorld(t, 1, 3, 2)
	f := start(t, solo(t, w, t.TempDir()), func(f *Full) { checkInvariants(t, f) })
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: dialer(t, f.Full), Prefixes: []string{"job/"}})
	ready(t, l)
	ctx := deadline(t)
	blocks := l.Watch(ctx)
	alice := NewWallet(w.people[0], l)

	in := must(t, alice, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: crowd.Credit})
	if got := l.Head().Height; got < in.Height {
		t.Errorf("head after a send: got %d, want at least %d", got, in.Height)
	}
	raw, err := l.Get(ctx, ledger.AccountKey(w.people[1].ID().Address()))
	if err != nil {
		t.Fatal(err)
	}
	var acc ledger.Account
	if err := crowd.Decode(raw, &acc); err != nil || acc.Balance != thousand+crowd.Credit {
		t.Errorf("proven balance: got %s, %v, want %s", acc.Balance, err, thousand+crowd.Credit)
	}
	if raw, err := l.Get(ctx, []byte("account/nobody")); raw != nil || err != nil {
		t.Errorf("absent: got %x, %v, want nothing", raw, err)
	}

	post := must(t, alice, &ledger.Post{Spec: w.spec()})
	spec := w.spec()
	key := string(ledger.JobKey(spec.ID(alice.ID(), 1)))
	for b := range blocks {
		if len(b.Changes) > 0 {
			if b.Changes[0].Key != key || b.Height < post.Height {
				t.Errorf("pushed: got %q at %d, want %q at %d or later", b.Changes[0].Key, b.Height, key, post.Height)
			}
			break
		}
	}
	all, err := l.List(ctx, "provider/")
	if err != nil || len(all) != 3 {
		t.Errorf("list: got %d, %v, want 3", len(all), err)
	}
	p, err := l.Prove(ctx, []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Verify(w.genesis); err != nil {
		t.Errorf("verify offline: %v", err)
	}

	// Refused in the mempool, on the full node's word; refused in a block, proven.
	in, err = alice.Send(ctx, &ledger.Transfer{To: alice.ID().Address(), Amount: 5 * thousand})
	if err != nil || in.Refusal == nil || in.Refusal.Code != ledger.NoFunds || !in.Hearsay {
		t.Errorf("transfer of too much: got %+v, %v", in, err)
	}
	if _, err := l.Header(ctx, post.Height); err != nil {
		t.Errorf("header: %v", err)
	}
	full, err := f.Prove(ctx, []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := full.Verify(w.genesis); err != nil {
		t.Errorf("verify a full node's proof: %v", err)
	}
}

func TestLight_SurvivesItsFullNode(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	dir := t.TempDir()
	var now atomic.Pointer[Full]
	one := start(t, solo(t, w, dir))
	now.Store(one.Full)
	serving, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: func(context.Context) (io.ReadWriteCloser, error) {
		a, b := net.Pipe()
		f := now.Load()
		wg.Go(func() { _ = f.Serve(serving, crowd.NodeID{}, b) })
		return a, nil
	}})
	ready(t, l)
	alice := NewWallet(w.people[0], l)
	first := must(t, alice, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	one.close()
	sent := make(chan Included, 1)
	go func() {
		in, err := alice.Send(deadline(t), &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
		if err != nil {
			t.Errorf("send across a restart: %v", err)
		}
		sent <- in
	}()
	two := start(t, solo(t, w, dir))
	now.Store(two.Full)
	if in := <-sent; in.Height <= first.Height || in.Refusal != nil {
		t.Errorf("send across a restart: got %+v, want done after %d", in, first.Height)
	}
	if got := two.Head().State.Account(w.people[1].ID().Address()).Balance; got != thousand+2 {
		t.Errorf("balance: got %s, want %s", got, thousand+2)
	}
}

// liar stands between a light node and a full node and changes what the latter says.
type liar struct {
	net.Conn
	r io.Reader
}

func (l *liar) Read(p []byte) (int, error) { return l.r.Read(p) }

// lying makes streams whose answers pass through change, which may return nil to cut the stream.
func lying(t testing.TB, f *Full, change func(frame) []byte) func(context.Context) (io.ReadWriteCloser, error) {
	dial := dialer(t, f)
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		s, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		pr, pw := io.Pipe()
		go func() {
			for {
				fr, err := readFrame(s, maxAnswer)
				if err != nil {
					pw.CloseWithError(err)
					return
				}
				b := change(fr)
				if len(b) > 0 && len(b) < 24 { // a stump
					pw.Write(b)
					b = nil
				}
				if b == nil {
					pw.CloseWithError(io.ErrUnexpectedEOF)
					s.Close()
					return
				}
				if _, err := pw.Write(b); err != nil {
					return
				}
			}
		}()
		return &liar{Conn: s.(net.Conn), r: pr}, nil
	}
}

func refit(fr frame, v any) []byte { return encodeFrame(fr.ID, fr.Kind, v) }

// plain passes a frame on.
func plain(fr frame) []byte {
	b := crowd.Encode(fr)
	return append([]byte{byte(len(b) >> 24), byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)
}

// onValues changes the answers to questions, not the pushes.
func onValues(change func(*valuesBody)) func(frame) []byte {
	return func(fr frame) []byte {
		if fr.Kind != kValues || fr.ID == 0 {
			return plain(fr)
		}
		b, _ := body[valuesBody](fr)
		change(&b)
		return refit(fr, b)
	}
}

func TestLight_BelievesNoLiar(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()))
	ctx := deadline(t)
	alice := NewWallet(w.people[0], f)
	must(t, alice, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	key := ledger.AccountKey(w.people[1].ID().Address())
	old, err := f.Prove(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	last := must(t, alice, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	if _, err := f.Header(ctx, last.Height+1); err != nil {
		t.Fatal(err)
	}
	other := newWorld(t, 1, 0, 2)
	other.genesis.Name = "other"
	g := start(t, solo(t, other, t.TempDir()))
	strange, err := g.Header(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := f.Head().State.Get(key)
	for _, c := range []struct {
		name   string
		change func(frame) []byte
	}{
		{"wrong value", onValues(func(b *valuesBody) { b.Values[0].Val = crowd.Encode(ledger.Account{Balance: 1}) })},
		{"a value denied", onValues(func(b *valuesBody) { b.Values[0].Val = nil })},
		{"wrong proof", onValues(func(b *valuesBody) { b.Values[0].Proof[len(b.Values[0].Proof)/2] ^= 1 })},
		{"no proof", onValues(func(b *valuesBody) { b.Values[0].Proof = nil })},
		{"another key", onValues(func(b *valuesBody) { b.Values[0].Key = ledger.ParamsKey() })},
		{"no value", onValues(func(b *valuesBody) { b.Values = nil })},
		{"wrong header", onValues(func(b *valuesBody) { b.Evidence[len(b.Evidence)/3] ^= 1 })},
		{"wrong signature", onValues(func(b *valuesBody) { b.Evidence[len(b.Evidence)-1] ^= 1 })},
		{"another chain's header", onValues(func(b *valuesBody) { b.Evidence = strange })},
		{"an old header as new", onValues(func(b *valuesBody) {
			b.Evidence = old.Evidence
			b.Values[0] = newValue(old)
		})},
		{"a truncated frame", func(fr frame) []byte {
			if fr.ID == 0 {
				return plain(fr)
			}
			return plain(fr)[:20]
		}},
		{"a cut stream", func(fr frame) []byte {
			if fr.ID == 0 {
				return plain(fr)
			}
			return nil
		}},
		{"silence", func(fr frame) []byte {
			if fr.ID == 0 {
				return plain(fr)
			}
			return []byte{}
		}},
		{"a frame that is too long", func(fr frame) []byte { return []byte{0xff, 0xff, 0xff, 0xff} }},
		{"rubbish", func(fr frame) []byte { return []byte{0, 0, 0, 3, 1, 2, 3} }},
		{"an answer before the head", func(fr frame) []byte { return encodeFrame(7, kEvidence, evidenceBody{}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			honest, lie := dialer(t, f.Full), lying(t, f.Full, c.change)
			var dials atomic.Int32
			l := startLight(t, LightConfig{Genesis: w.genesis, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
				if dials.Add(1) == 1 {
					return lie(ctx)
				}
				return honest(ctx)
			}})
			got, err := l.Get(ctx, key)
			if err != nil || string(got) != string(want) {
				t.Errorf("got %x, %v, want %x from the honest node", got, err, want)
			}
			if n := dials.Load(); n != 2 {
				t.Errorf("dials: got %d, want 2: the liar is left", n)
			}
		})
	}
}

// A full node that answers every question with an error, and signs of life well, is left for another.
func TestLight_LeavesWhoOnlyHasErrors(t *testing.T) {
	w := newWorld(t, 1, 0, 1)
	f := start(t, solo(t, w, t.TempDir()))
	honest := dialer(t, f.Full)
	bad := lying(t, f.Full, func(fr frame) []byte {
		if fr.ID == 0 || fr.Kind == kEvidence {
			return plain(fr)
		}
		return encodeFrame(fr.ID, kError, errorBody{Text: "try again later"})
	})
	var dials atomic.Int32
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
		if dials.Add(1) == 1 {
			return bad(ctx)
		}
		return honest(ctx)
	}})
	ready(t, l)
	errs := 0
	for ; errs <= maxErrors; errs++ {
		if _, err := l.Get(deadline(t), ledger.ParamsKey()); err == nil {
			break
		}
	}
	if errs != maxErrors || dials.Load() != 2 {
		t.Errorf("got %d errors and %d dials, want %d, then another full node", errs, dials.Load(), maxErrors)
	}
}

func TestLight_ProvesOutcomes(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()))
	bob := w.people[1].ID().Address()
	for _, c := range []struct {
		name   string
		change func(*provenOutcome)
	}{
		{"another outcome", func(p *provenOutcome) {
			var o outcome
			_ = crowd.Decode(p.Data, &o)
			o.Code, o.Reason = ledger.NoFunds, "so there"
			p.Data = crowd.Encode(o)
		}},
		{"another index", func(p *provenOutcome) { p.Index++ }},
		{"another total", func(p *provenOutcome) { p.Total = 1 << 40 }},
		{"no aunts", func(p *provenOutcome) { p.Aunts = nil }},
		{"a header flipped", func(p *provenOutcome) { p.Evidence[100] ^= 1 }},
		{"no data", func(p *provenOutcome) { p.Data = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			honest := dialer(t, f.Full)
			lie := lying(t, f.Full, func(fr frame) []byte {
				if fr.Kind != kOutcome {
					return plain(fr)
				}
				p, _ := body[provenOutcome](fr)
				c.change(&p)
				return refit(fr, p)
			})
			var dials atomic.Int32
			l := startLight(t, LightConfig{Genesis: w.genesis, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
				if dials.Add(1) == 1 {
					return lie(ctx)
				}
				return honest(ctx)
			}})
			before := f.Head().State.Account(bob).Balance
			must(t, NewWallet(w.people[0], l), &ledger.Transfer{To: bob, Amount: 1})
			if got, want := f.Head().State.Account(bob).Balance, before+1; got != want {
				t.Errorf("balance: got %s, want %s: once, whatever the liar says", got, want)
			}
			if dials.Load() != 2 {
				t.Errorf("dials: got %d, want 2", dials.Load())
			}
		})
	}
}

// A full node that swallows the block and says that the nonce was wrong must not make the wallet pay twice.
func TestWallet_DoesNotPayTwiceOnHearsay(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()))
	bob := w.people[1].ID().Address()
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: lying(t, f.Full, func(fr frame) []byte {
		if fr.Kind == kOutcome {
			return encodeFrame(fr.ID, kRefusal, refusalBody{Code: ledger.BadNonce, Reason: "no"})
		}
		return plain(fr)
	})})
	_, err := NewWallet(w.people[0], l).Send(deadline(t), &ledger.Transfer{To: bob, Amount: 1})
	if !errors.Is(err, ErrNonceTaken) {
		t.Errorf("got %v, want %v", err, ErrNonceTaken)
	}
	if got, want := f.Head().State.Account(bob).Balance, thousand+1; got != want {
		t.Errorf("balance: got %s, want %s", got, want)
	}
}

func TestServe_RefusesStrangers(t *testing.T) {
	w := newWorld(t, 1, 0, 1)
	f := start(t, solo(t, w, t.TempDir()))
	good := hello{Chain: f.ChainID()}
	for _, c := range []struct {
		name string
		send [][]byte
		want string
	}{
		{"rubbish", [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}, "at most"},
		{"no hello", [][]byte{encodeFrame(1, kGet, getBody{Key: []byte("a")})}, "hello"},
		{"another chain", [][]byte{encodeFrame(0, kHello, hello{Chain: "x"})}, "for chain"},
		{"too many prefixes", [][]byte{encodeFrame(0, kHello, hello{Chain: f.ChainID(), Prefixes: make([][]byte, 17)})}, "not one"},
		{"an unknown question", [][]byte{encodeFrame(0, kHello, good), encodeFrame(1, 99, getBody{})}, "kind 99"},
		{"a broken question", [][]byte{encodeFrame(0, kHello, good), encodeFrame(1, kGet, headerBody{})}, "decode"},
		{"a huge key", [][]byte{encodeFrame(0, kHello, good), encodeFrame(1, kGet, getBody{Key: make([]byte, 300)})}, "longer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := net.Pipe()
			end := make(chan error, 1)
			go func() { end <- f.Serve(deadline(t), crowd.NodeID{}, b) }()
			go io.Copy(io.Discard, a)
			for _, m := range c.send {
				if _, err := a.Write(m); err != nil {
					break
				}
			}
			if err := <-end; err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func BenchmarkLight_Update(b *testing.B) {
	w := newWorld(b, 1, 0, 2)
	f := start(b, solo(b, w, b.TempDir()))
	l := startLight(b, LightConfig{Genesis: w.genesis, Dial: dialer(b, f.Full), Prefixes: []string{"account/"}})
	ready(b, l)
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	blocks := l.Watch(ctx)
	alice := NewWallet(w.people[0], f)
	key := string(ledger.AccountKey(w.people[1].ID().Address()))
	m := &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1}
	var pushed, lag []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		at := time.Now()
		must(b, alice, m)
		committed := time.Now()
	wait:
		for blk := range blocks {
			for _, c := range blk.Changes {
				if c.Key == key {
					break wait
				}
			}
		}
		pushed, lag = append(pushed, time.Since(at)), append(lag, time.Since(committed))
	}
	b.ReportMetric(median(pushed), "ms/proven-p50")
	b.ReportMetric(median(lag), "ms/after-commit-p50")
}
