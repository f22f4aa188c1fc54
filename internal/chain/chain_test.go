package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// testKey is always the same key for n.
func testKey(t testing.TB, n uint64) *identity.Key {
	t.Helper()
	b := make([]byte, 32)
	binary.BigEndian.PutUint64(b[24:], n+1)
	k, err := identity.FromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// world is a genesis with its keys.
type world struct {
	genesis     *ledger.Genesis
	authorities []*identity.Key
	providers   []*identity.Key
	people      []*identity.Key
}

const thousand = 1000 * crowd.Credit

// newWorld is a network under DevParams, with patience: everybody owns 1000 credits, providers stake 200 more.
func newWorld(t testing.TB, authorities, providers, people int) *world {
	t.Helper()
	w := &world{genesis: &ledger.Genesis{Name: "test", Time: crowd.Time(time.Now().UnixMilli()), Params: ledger.DevParams()}}
	p := &w.genesis.Params // no deadline falls because a test machine is slow
	p.ClaimWindow, p.DispatchGrace, p.RevealWindow, p.DeliveryWindow = 60_000, 60_000, 60_000, 60_000
	for i := range authorities {
		k := testKey(t, 1000+uint64(i))
		w.authorities = append(w.authorities, k)
		w.genesis.Authorities = append(w.genesis.Authorities,
			ledger.Authority{ID: k.ID(), VRF: k.VRF().Public(), Consensus: ConsensusKey(k)})
	}
	for i := range providers {
		k := testKey(t, 2000+uint64(i))
		w.providers = append(w.providers, k)
		w.genesis.Grants = append(w.genesis.Grants, ledger.Grant{
			ID: k.ID(), Balance: thousand, Stake: 200 * crowd.Credit, VRF: k.VRF().Public(),
			Offer: ledger.Offer{Price: crowd.ReferencePrice},
		})
	}
	for i := range people {
		k := testKey(t, 3000+uint64(i))
		w.people = append(w.people, k)
		w.genesis.Grants = append(w.genesis.Grants, ledger.Grant{ID: k.ID(), Balance: thousand})
	}
	return w
}

func (w *world) spec() crowd.JobSpec {
	return crowd.JobSpec{
		Task: crowd.Task{Program: "bafyprogram", Limits: crowd.Limits{
			Gas: 1e9, Memory: 1 << 20, Output: 1 << 20, Wall: 20 * time.Second,
		}},
		Plan:    crowd.Plan{Method: crowd.PlanPair},
		Filters: crowd.Filters{MaxPrice: crowd.ReferencePrice},
		Budget:  10 * crowd.Credit,
	}
}

func testLog(t testing.TB) *slog.Logger {
	level := slog.LevelError
	if os.Getenv("CHAIN_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
}

// running is a full node at work.
type running struct {
	*Full
	t    testing.TB
	stop context.CancelFunc
	end  chan error
}

// start runs a full node that stops with the test, and waits until it is ready.
func start(t testing.TB, c Config, before ...func(*Full)) *running {
	t.Helper()
	r := launch(t, c, before...)
	select {
	case <-r.Ready():
	case err := <-r.end:
		r.end <- nil
		t.Fatalf("run: %v", err)
	case <-time.After(60 * time.Second):
		t.Fatal("the node is not ready")
	}
	return r
}

func launch(t testing.TB, c Config, before ...func(*Full)) *running {
	t.Helper()
	if c.Log == nil {
		c.Log = testLog(t)
	}
	f, err := NewFull(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range before {
		b(f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Full: f, t: t, stop: cancel, end: make(chan error, 1)}
	go func() { r.end <- f.Run(ctx) }()
	t.Cleanup(func() { r.close() })
	return r
}

// close stops the node and waits for its end.
func (r *running) close() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.end:
		r.end <- err
		if err != nil {
			r.t.Errorf("run: %v", err)
		}
	case <-time.After(30 * time.Second):
		r.t.Error("the node does not end")
	}
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// must sends and wants the message done.
func must(t testing.TB, w *Wallet, m ledger.Message) Included {
	t.Helper()
	in, err := w.Send(deadline(t), m)
	if err != nil {
		t.Fatalf("send %T: %v", m, err)
	}
	if in.Refusal != nil {
		t.Fatalf("send %T: refused: %v", m, in.Refusal)
	}
	return in
}

// checkInvariants asserts them after every block until the test ends.
func checkInvariants(t testing.TB, f *Full) {
	old := f.app.committed
	f.app.committed = func(prev, now done) {
		if err := ledger.CheckInvariants(now.State); err != nil {
			t.Errorf("block %d: %v", now.Height, err)
		}
		old(prev, now)
	}
}

func solo(t testing.TB, w *world, dir string) Config {
	return Config{Dir: dir, Genesis: w.genesis, Key: w.authorities[0]}
}

func TestFull_TransfersAndRestarts(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	dir := t.TempDir()
	f := start(t, solo(t, w, dir), func(f *Full) { checkInvariants(t, f) })
	alice, bob := NewWallet(w.people[0], f), w.people[1].ID().Address()
	for range 5 {
		must(t, alice, &ledger.Transfer{To: bob, Amount: crowd.Credit})
	}
	if got, want := f.Head().State.Account(bob).Balance, thousand+5*crowd.Credit; got != want {
		t.Errorf("balance: got %s, want %s", got, want)
	}
	in, err := alice.Send(deadline(t), &ledger.Transfer{To: bob, Amount: 5 * thousand})
	if err != nil || in.Refusal == nil || in.Refusal.Code != ledger.NoFunds || in.Height != 0 {
		t.Errorf("transfer of too much: got %+v, %v, want refused before any block", in, err)
	}
	raw := ledger.Sign(w.people[1], f.ChainID(), 0, &ledger.Transfer{To: alice.ID().Address(), Amount: 1})
	first, err := f.Send(deadline(t), raw)
	if err != nil || first.Refusal != nil {
		t.Fatalf("send: got %+v, %v", first, err)
	}
	f.close()
	before := f.Head()

	f = start(t, solo(t, w, dir), func(f *Full) {
		if got := f.Head(); got.Height != before.Height || got.Root != before.Root || got.Time != before.Time {
			t.Errorf("head after a restart: got %d %s, want %d %s", got.Height, got.Root, before.Height, before.Root)
		}
	})
	again, err := f.Send(deadline(t), raw)
	if err != nil || again != first {
		t.Errorf("the same bytes again: got %+v, %v, want %+v", again, err, first)
	}
	alice = NewWallet(w.people[0], f)
	if in := must(t, alice, &ledger.Transfer{To: bob, Amount: 1}); in.Height <= before.Height {
		t.Errorf("height after a restart: got %d, want more than %d", in.Height, before.Height)
	}
}

func TestFull_FallsQuiet(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()), func(f *Full) { f.app.stale = time.Hour })
	alice := NewWallet(w.people[0], f)
	last := must(t, alice, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	for i := range 8 {
		// The proof block follows at once; were there another, the next transfer would stand higher.
		if _, err := f.Header(deadline(t), last.Height+1); err != nil {
			t.Fatal(err)
		}
		in := must(t, alice, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
		if in.Height > last.Height+2 {
			t.Fatalf("transfer %d: got height %d, want at most %d: blocks without reason", i, in.Height, last.Height+2)
		}
		last = in
	}
}

func TestFull_StaleChainGivesThePresent(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()), func(f *Full) { f.app.stale = 0 })
	alice := NewWallet(w.people[0], f)
	for i := range 3 {
		asked := crowd.Time(time.Now().UnixMilli())
		in := must(t, alice, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
		ev, err := f.Header(deadline(t), in.Height)
		if err != nil {
			t.Fatal(err)
		}
		h, err := VerifyHeader(w.genesis, ev)
		if err != nil {
			t.Fatal(err)
		}
		if h.Time < asked {
			t.Errorf("transfer %d: got block time %d, want at least %d, when it was sent", i, h.Time, asked)
		}
	}
}

func TestNewFull_Refuses(t *testing.T) {
	w := newWorld(t, 1, 0, 1)
	taken := t.TempDir()
	start(t, solo(t, w, taken))

	other := t.TempDir()
	start(t, solo(t, w, other)).close()

	broken := t.TempDir()
	f := start(t, solo(t, w, broken))
	f.close()
	db, err := openDB("ledger", broken+"/data")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set([]byte("s/account/nobody"), []byte{1}), db.Close()); err != nil {
		t.Fatal(err)
	}

	garbled := t.TempDir()
	start(t, solo(t, w, garbled)).close()
	if err := os.WriteFile(garbled+"/data/ledger.db/CURRENT", []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}

	w2 := newWorld(t, 1, 0, 1)
	w2.genesis.Name = "another"
	strange := newWorld(t, 1, 0, 1)
	strange.genesis.Authorities[0].VRF[0] ^= 1
	for _, c := range []struct {
		name string
		conf Config
		want error // nil: any
	}{
		{"two nodes in one folder", solo(t, w, taken), ErrInUse},
		{"another chain", solo(t, w2, other), nil},
		{"a state that is not its root", solo(t, w, broken), ErrCorrupt},
		{"a garbled database", solo(t, w, garbled), ErrCorrupt},
		{"no genesis", Config{Dir: t.TempDir()}, nil},
		{"other keys than one's own", solo(t, strange, t.TempDir()), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := NewFull(c.conf)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			t.Log(err)
		})
	}
}

func TestFull_RebuildsALostLedger(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	dir := t.TempDir()
	f := start(t, solo(t, w, dir))
	for range 3 {
		must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	}
	f.close()
	want := f.Head()
	if err := os.RemoveAll(dir + "/data/ledger.db"); err != nil {
		t.Fatal(err)
	}
	f = start(t, solo(t, w, dir))
	reach(t, f.Full, want.Height)
	if want.Height > f.Head().Height || f.Head().State.Account(w.people[1].ID().Address()).Balance != thousand+3 {
		t.Errorf("got %d, want %d again", f.Head().Height, want.Height)
	}
}

// A whole job, the consumer at a light node, its receipt's proof checked offline.
func TestFull_SettlesAJob(t *testing.T) {
	w := newWorld(t, 1, 2, 1)
	f := start(t, solo(t, w, t.TempDir()), func(f *Full) { checkInvariants(t, f) })
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: dialer(t, f.Full), Prefixes: []string{"job/"}})
	ready(t, l)
	owner := NewWallet(w.people[0], l)
	spec := w.spec()
	id := spec.ID(owner.ID(), 0)
	job := func() (j ledger.Job) {
		raw, err := l.Get(deadline(t), ledger.JobKey(id))
		if err != nil {
			t.Fatal(err)
		}
		if raw != nil {
			if err := crowd.Decode(raw, &j); err != nil {
				t.Fatal(err)
			}
		}
		return j
	}
	watching, cancel := context.WithCancel(deadline(t))
	defer cancel()
	blocks := l.Watch(watching)
	until := func(s ledger.JobState) ledger.Job {
		for j := job(); ; j = job() {
			if j.State >= s {
				return j
			}
			if _, ok := <-blocks; !ok {
				t.Fatalf("job never reached %s", s)
			}
		}
	}
	must(t, owner, &ledger.Post{Spec: spec})
	j := until(ledger.Claiming)
	o := ledger.Opening{Outcome: crowd.Outcome{Status: crowd.Exited, Gas: 1e6, Result: "bafyresult"}}
	for _, k := range w.providers {
		proof, _ := k.VRF().Prove(ledger.DrawInput(id, k.ID(), j.Beacon))
		must(t, NewWallet(k, f), &ledger.Claim{Job: id, Proof: proof})
	}
	for _, k := range w.providers {
		must(t, NewWallet(k, f), &ledger.Commit{Job: id, Commitment: ledger.Commitment(id, k.ID(), o), Sealed: [][]byte{{1}}})
	}
	for _, k := range w.providers {
		must(t, NewWallet(k, f), &ledger.Reveal{Job: id, Opening: o})
	}
	until(ledger.Delivering)
	must(t, owner, &ledger.Accept{Job: id})
	if j := until(ledger.Settled); j.State != ledger.Settled || j.Verdict == nil || j.Verdict.Outcome != o.Outcome {
		t.Errorf("job: got %s with %+v, want settled with %s", j.State, j.Verdict, o.Outcome)
	}
	p, err := l.Prove(deadline(t), ledger.JobKey(id))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Verify(w.genesis); err != nil {
		t.Errorf("verify offline: %v", err)
	}
	p.Val[len(p.Val)/2] ^= 1
	if _, err := p.Verify(w.genesis); err == nil {
		t.Error("a changed value verifies")
	}
}

func TestFull_StopsCleanly(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	dir := t.TempDir()
	for i := range 20 {
		f := start(t, solo(t, w, dir))
		must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
		f.close()
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
}

func TestFull_DeadlinesFall(t *testing.T) {
	w := newWorld(t, 1, 3, 1)
	w.genesis.Params.ClaimWindow = 100
	f := start(t, solo(t, w, t.TempDir()), func(f *Full) { checkInvariants(t, f) })
	ctx := deadline(t)
	blocks := f.Watch(ctx)
	owner := NewWallet(w.people[0], f)
	must(t, owner, &ledger.Post{Spec: w.spec()})
	spec := w.spec()
	id := spec.ID(owner.ID(), 0)
	var seen []ledger.JobState
	for b := range blocks {
		for _, e := range b.Events {
			if m, ok := e.(ledger.JobMoved); ok && m.Job == id {
				seen = append(seen, m.State)
			}
		}
		if j, ok := f.Head().State.Job(id); ok && j.State.Ended() {
			break
		}
	}
	if got, want := fmt.Sprint(slices.Compact(seen)), "[posted claiming failed]"; got != want {
		t.Errorf("states: got %s, want %s", got, want)
	}
	if f.Head().State.Beacon().R == (crowd.Hash{}) {
		t.Error("no beacon")
	}
}

func BenchmarkFull_Commit(b *testing.B) {
	w := newWorld(b, 1, 0, 2)
	f := start(b, solo(b, w, b.TempDir()))
	alice := NewWallet(w.people[0], f)
	m := &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1}
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		at := time.Now()
		must(b, alice, m)
		took = append(took, time.Since(at))
	}
	b.ReportMetric(median(took), "ms/commit-p50")
}
