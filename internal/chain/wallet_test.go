package chain

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// One provider is drawn for sixty jobs that are posted at once, and claims them all through a light node before the claims
// close, after the 1.5 s of a network on one machine. A wallet with one transaction a block got some twenty in.
func TestWallet_ClaimsABurstInTime(t *testing.T) {
	const jobs = 60
	w := newWorld(t, 1, 3, 1)
	w.genesis.Params.ClaimWindow = ledger.DevParams().ClaimWindow
	f := start(t, solo(t, w, t.TempDir()), func(f *Full) { checkInvariants(t, f) })
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: dialer(t, f.Full), Prefixes: []string{ledger.PrefixJob}})
	ready(t, l)
	ctx := deadline(t)
	blocks := l.Watch(ctx)
	provider := NewWallet(w.providers[0], l)
	for i := range jobs {
		if s, err := f.submit(ctx, crowd.NodeID{}, ledger.Sign(w.people[0], f.ChainID(), uint64(i), &ledger.Post{Spec: w.spec()})); err != nil || s.done != nil {
			t.Fatalf("post: %v, %v", s, err)
		}
	}
	claimed, late := map[crowd.JobID]bool{}, atomic.Int32{}
	var claims sync.WaitGroup
	for b := range blocks {
		for _, c := range b.Changes {
			var j ledger.Job
			if err := crowd.Decode(c.Val, &j); err != nil {
				t.Fatal(err)
			}
			if j.State != ledger.Claiming || claimed[j.ID] {
				continue
			}
			claimed[j.ID] = true
			proof, _ := w.providers[0].VRF().Prove(ledger.DrawInput(j.ID, provider.ID(), j.Beacon))
			claims.Go(func() {
				if in, err := provider.Send(ctx, &ledger.Claim{Job: j.ID, Proof: proof}); err != nil || in.Refusal != nil {
					late.Add(1)
					t.Logf("claim: %+v, %v", in, err)
				}
			})
		}
		if len(claimed) == jobs {
			break
		}
	}
	claims.Wait()
	if n := late.Load(); n > 0 {
		t.Errorf("got %d of %d claims in time", jobs-n, jobs)
	}
}

// Who owes a full node for refusals waits, on a machine that is slow for longer, and its transaction is not lost.
func TestWallet_WaitsForABusyFullNode(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()))
	self := w.people[0].ID()
	serving, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: func(context.Context) (io.ReadWriteCloser, error) {
		a, b := net.Pipe()
		wg.Go(func() { _ = f.Serve(serving, self, b) })
		return a, nil
	}})
	ready(t, l)
	m := &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1}
	tx, err := ledger.Open(f.ChainID(), ledger.Sign(w.people[0], f.ChainID(), 0, m))
	if err != nil {
		t.Fatal(err)
	}
	const owed = 3 * debtWait
	at := time.Now()
	f.debts.charge(self, tx, owed/debtFactor)
	if in, err := NewWallet(w.people[0], l).Send(deadline(t), m); err != nil || in.Refusal != nil {
		t.Errorf("got %+v, %v, want done once the debt is paid", in, err)
	}
	if took := time.Since(at); took < owed {
		t.Errorf("done after %v, want not before %v", took, owed)
	}
}

// chaos is a full node whose answers get lost, and whose transactions do, at random.
type chaos struct {
	*Full
	mu  sync.Mutex
	rng *rand.Rand // guarded by mu
}

func (c *chaos) roll(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(n)
}

func (c *chaos) send(ctx context.Context, raw []byte, inLine func()) (Included, error) {
	switch c.roll(8) {
	case 0:
		inLine()
		return Included{}, ErrDropped
	case 1:
		_, err := c.Full.send(ctx, raw, inLine)
		if err == nil {
			<-ctx.Done()
			err = ctx.Err()
		}
		return Included{}, err
	case 2:
		inLine()
		return Included{}, errors.New("something else")
	}
	return c.Full.send(ctx, raw, inLine)
}

// Whatever gets lost, is refused or given up among many messages on their way: each that is said to be done has happened
// once, each that is said to be refused has not, and of the others at most one each.
func TestWallet_NothingHappensTwice(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()), func(f *Full) { checkInvariants(t, f) })
	bob := w.people[1].ID().Address()
	x := NewWallet(w.people[0], &chaos{Full: f.Full, rng: rand.New(rand.NewPCG(1, 2))})
	x.patience = 100 * time.Millisecond
	var wg sync.WaitGroup
	var done, unknown, refused atomic.Int64
	const workers, each = 40, 10
	for i := range workers {
		wg.Go(func() {
			for j := range each {
				ctx, cancel := context.WithTimeout(deadline(t), 10*time.Second)
				if j%5 == 4 {
					cancel()
					ctx, cancel = context.WithTimeout(deadline(t), 20*time.Millisecond) // its caller gives up soon
				}
				m := &ledger.Transfer{To: bob, Amount: 1}
				if (i+j)%4 == 0 {
					m.Amount = 5 * thousand // refused before any block
				}
				in, err := x.Send(ctx, m)
				cancel()
				switch {
				case err != nil && m.Amount == 1:
					unknown.Add(1)
				case err != nil:
				case in.Refusal != nil:
					refused.Add(1)
					if m.Amount == 1 {
						t.Errorf("refused: %v", in.Refusal)
					}
				case m.Amount == 1:
					done.Add(1)
				default:
					t.Errorf("a transfer of too much was done")
				}
			}
		})
	}
	wg.Wait()
	must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: bob, Amount: 1}) // behind all that still flies
	got := int64(f.Head().State.Account(bob).Balance-thousand) - 1
	if got < done.Load() || got > done.Load()+unknown.Load() {
		t.Errorf("got %d transfers, want %d and at most %d more", got, done.Load(), unknown.Load())
	}
	if done.Load() < workers*each/4 || refused.Load() == 0 || unknown.Load() == 0 {
		t.Errorf("got %d done, %d refused, %d unknown: the test does not test", done.Load(), refused.Load(), unknown.Load())
	}
}

// A refusal in the middle of many costs the account one empty transaction at most, and none of the others anything.
func TestWallet_RefusalsStopNobody(t *testing.T) {
	for _, light := range []bool{false, true} {
		w := newWorld(t, 1, 0, 2)
		f := start(t, solo(t, w, t.TempDir()))
		var c client = f
		if light {
			l := startLight(t, LightConfig{Genesis: w.genesis, Dial: dialer(t, f.Full)})
			ready(t, l)
			c = l
		}
		x := NewWallet(w.people[0], c)
		bob := w.people[1].ID().Address()
		var wg sync.WaitGroup
		const good, bad = 90, 10
		for i := range good + bad {
			wg.Go(func() {
				if i%10 != 0 {
					must(t, x, &ledger.Transfer{To: bob, Amount: 1})
				} else if in, err := x.Send(deadline(t), &ledger.Transfer{To: bob, Amount: 5 * thousand}); err != nil || in.Refusal == nil || in.Height != 0 {
					t.Errorf("got %+v, %v, want refused before any block", in, err)
				}
			})
		}
		wg.Wait()
		state := f.Head().State
		if got := state.Account(bob).Balance; got != thousand+good {
			t.Errorf("light %v: balance: got %s, want %s", light, got, thousand+good)
		}
		if got := state.Account(x.ID().Address()).Nonce; got < good || got > good+bad {
			t.Errorf("light %v: nonce: got %d, want %d and at most %d more", light, got, good, bad)
		}
		in := must(t, x, &ledger.Transfer{To: bob, Amount: 1})
		if want := state.Account(x.ID().Address()).Nonce; in.Nonce != want {
			t.Errorf("light %v: the next nonce: got %d, want %d", light, in.Nonce, want)
		}
	}
}

// Streams break while many messages are on their way, and the light node turns to another full node each time.
func TestWallet_SurvivesChangesOfFullNode(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	nodes := cluster(t, w, 1)
	var dials atomic.Int32
	rng := rand.New(rand.NewPCG(3, 4))
	var mu sync.Mutex
	dial := []func(context.Context) (io.ReadWriteCloser, error){dialer(t, nodes[0].Full), dialer(t, nodes[1].Full)}
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
		s, err := dial[int(dials.Add(1))%2](ctx)
		mu.Lock()
		life := time.Duration(20+rng.IntN(100)) * time.Millisecond
		mu.Unlock()
		if err == nil && dials.Load() < 12 {
			time.AfterFunc(life, func() { s.(net.Conn).Close() })
		}
		return s, err
	}})
	ready(t, l)
	x, bob := NewWallet(w.people[0], l), w.people[1].ID().Address()
	var wg sync.WaitGroup
	var done, unknown atomic.Int64
	for range 40 {
		wg.Go(func() {
			for n := 0; n < 6 || dials.Load() < 6 && n < 300; n++ {
				in, err := x.Send(deadline(t), &ledger.Transfer{To: bob, Amount: 1})
				switch {
				case err != nil:
					unknown.Add(1)
					t.Log(err)
				case in.Refusal != nil:
					t.Errorf("refused: %v", in.Refusal)
				default:
					done.Add(1)
				}
			}
		})
	}
	wg.Wait()
	must(t, NewWallet(w.people[0], nodes[0]), &ledger.Transfer{To: bob, Amount: 1})
	got := int64(nodes[0].Head().State.Account(bob).Balance-thousand) - 1
	if got < done.Load() || got > done.Load()+unknown.Load() || unknown.Load() > 0 {
		t.Errorf("got %d transfers, want %d; %d are unknown", got, done.Load(), unknown.Load())
	}
	if dials.Load() < 6 {
		t.Errorf("got %d dials: the test does not test", dials.Load())
	}
}

// behind is a light node whose full node was a few blocks behind when it refused the transaction, and has caught up since.
type behind struct {
	*Full
	n atomic.Int32
}

func (b *behind) send(ctx context.Context, raw []byte, inLine func()) (Included, error) {
	in, err := b.Full.send(ctx, raw, inLine)
	if b.n.Add(1) == 1 && err == nil {
		in = Included{Refusal: &ledger.Refusal{Code: ledger.BadNonce, Reason: "too far ahead"}, Hearsay: true}
	}
	return in, err
}

func TestWallet_LearnsWhatBecameOfItFromWhoWasBehind(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	b := &behind{Full: start(t, solo(t, w, t.TempDir())).Full}
	bob := w.people[1].ID().Address()
	must(t, NewWallet(w.people[0], b), &ledger.Transfer{To: bob, Amount: 1})
	if got := b.Head().State.Account(bob).Balance; got != thousand+1 {
		t.Errorf("balance: got %s, want %s", got, thousand+1)
	}
}

// counting counts what is on its way, and lets none of it arrive before the test says so.
type counting struct {
	*Full
	n    atomic.Int32
	gate chan struct{}
}

func (c *counting) send(ctx context.Context, raw []byte, inLine func()) (Included, error) {
	c.n.Add(1)
	inLine()
	<-c.gate
	return Included{Height: 1}, nil
}

func TestWallet_HasBoundedManyOnTheirWay(t *testing.T) {
	w := newWorld(t, 1, 0, 1)
	c := &counting{Full: still(t, w, 0), gate: make(chan struct{})}
	x := NewWallet(w.people[0], c)
	var wg sync.WaitGroup
	for range 2 * walletFlights {
		wg.Go(func() { must(t, x, &ledger.Awake{}) })
	}
	for c.n.Load() < walletFlights {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond) // for one more to come, were there no bound
	if n := c.n.Load(); n != walletFlights {
		t.Errorf("got %d on their way, want %d", n, walletFlights)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := x.Send(ctx, &ledger.Awake{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more: got %v, want it to wait until its time is over", err)
	}
	close(c.gate)
	wg.Wait()
	if n := c.n.Load(); n != 2*walletFlights {
		t.Errorf("got %d in all, want %d", n, 2*walletFlights)
	}
}

// BenchmarkWallet_Burst sends from 64 callers through one wallet behind a light node.
func BenchmarkWallet_Burst(b *testing.B) {
	w := newWorld(b, 1, 0, 2)
	f := start(b, solo(b, w, b.TempDir()))
	l := startLight(b, LightConfig{Genesis: w.genesis, Dial: dialer(b, f.Full)})
	ready(b, l)
	x := NewWallet(w.people[0], l)
	m := &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1}
	var blocks sync.Map
	var left atomic.Int64
	left.Store(int64(b.N))
	at := time.Now()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				blocks.Store(must(b, x, m).Height, true)
			}
		})
	}
	wg.Wait()
	n := 0
	blocks.Range(func(any, any) bool { n++; return true })
	b.ReportMetric(float64(b.N)/float64(n), "tx/block")
	b.ReportMetric(float64(b.N)/time.Since(at).Seconds(), "tx/s")
}
