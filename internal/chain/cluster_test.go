package chain

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// cluster runs all authorities of w and then followers on loopback.
func cluster(t testing.TB, w *world, followers int, before ...func(*Full)) []*running {
	t.Helper()
	var nodes []*running
	var peers []string
	keys := append([]*identity.Key(nil), w.authorities...)
	for range followers {
		keys = append(keys, nil)
	}
	for _, k := range keys {
		r := launch(t, Config{Dir: t.TempDir(), Genesis: w.genesis, Key: k, Listen: "tcp://127.0.0.1:0", Peers: peers}, before...)
		addr, err := r.Address(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		if k != nil && !strings.HasPrefix(addr, PeerID(k)+"@127.0.0.1:") {
			t.Errorf("address: got %s, want %s@127.0.0.1:…", addr, PeerID(k))
		}
		nodes, peers = append(nodes, r), append(peers, addr)
	}
	for i, r := range nodes {
		select {
		case <-r.Ready():
		case err := <-r.end:
			r.end <- nil
			t.Fatalf("node %d: %v", i, err)
		case <-time.After(60 * time.Second):
			t.Fatalf("node %d is not ready", i)
		}
	}
	return nodes
}

// reach waits until f knows block h.
func reach(t testing.TB, f *Full, h crowd.Height) {
	t.Helper()
	if _, err := f.Header(deadline(t), h); err != nil {
		t.Fatal(err)
	}
}

func TestFull_FourAuthoritiesAgree(t *testing.T) {
	w := newWorld(t, 4, 2, 2)
	nodes := cluster(t, w, 1, func(f *Full) { checkInvariants(t, f) })
	bob := w.people[1].ID().Address()
	for i := range 8 { // a wallet each time: whoever is asked, the nonce is right
		in := must(t, NewWallet(w.people[0], nodes[i%len(nodes)]), &ledger.Transfer{To: bob, Amount: 1})
		for _, n := range nodes {
			reach(t, n.Full, in.Height)
		}
	}
	owner := NewWallet(w.people[1], nodes[4])
	must(t, owner, &ledger.Post{Spec: w.spec()})
	spec := w.spec()
	id := spec.ID(owner.ID(), 0)
	watching, cancel := context.WithCancel(deadline(t))
	defer cancel()
	blocks := nodes[4].Watch(watching)
	for j, _ := nodes[4].Head().State.Job(id); j.State == ledger.Posted; j, _ = nodes[4].Head().State.Job(id) {
		<-blocks
	}
	// The follower takes a claim and passes it on.
	j, _ := nodes[4].Head().State.Job(id)
	proof, _ := w.providers[0].VRF().Prove(ledger.DrawInput(id, w.providers[0].ID(), j.Beacon))
	last := must(t, NewWallet(w.providers[0], nodes[4]), &ledger.Claim{Job: id, Proof: proof}).Height
	for _, n := range nodes {
		reach(t, n.Full, last+1)
	}
	first, err := nodes[0].Header(deadline(t), last+1)
	if err != nil {
		t.Fatal(err)
	}
	want, err := VerifyHeader(w.genesis, first)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		ev, err := n.Header(deadline(t), last+1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := VerifyHeader(w.genesis, ev)
		if err != nil || got != want {
			t.Errorf("node %d: got %+v, %v, want %+v", i, got, err, want)
		}
		s, err := n.snapshot(deadline(t), last+1)
		if err != nil {
			t.Fatal(err)
		}
		if s.header == last+1 && s.state.Root() != want.AppHash {
			t.Errorf("node %d: got root %s, want %s", i, s.state.Root(), want.AppHash)
		}
	}
}

func TestFull_OneOfFourMayFail(t *testing.T) {
	w := newWorld(t, 4, 0, 2)
	nodes := cluster(t, w, 0)
	nodes[3].close()
	alice := NewWallet(w.people[0], nodes[0])
	for range 5 { // each authority's turn comes
		must(t, alice, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	}
}

// TestMain also plays the node that TestFull_SurvivesKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CHAIN_TEST_VICTIM"); dir != "" {
		victim(dir)
	}
	os.Exit(m.Run())
}

// victimWorld must be the same in both processes.
func victimWorld() *world {
	t := &testing.B{}
	w := newWorld(t, 1, 0, 2)
	w.genesis.Time = 1_700_000_000_000
	return w
}

// victim transfers for ever and says the height of each block that it was told of.
func victim(dir string) {
	w := victimWorld()
	f, err := NewFull(Config{Dir: dir, Genesis: w.genesis, Key: w.authorities[0]})
	if err == nil {
		go func() { err = f.Run(context.Background()) }()
		<-f.Ready()
		alice := NewWallet(w.people[0], f)
		for err == nil {
			var in Included
			if in, err = alice.Send(context.Background(), &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1}); err == nil {
				fmt.Println(in.Height)
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestFull_SurvivesKill(t *testing.T) {
	w := victimWorld()
	dir := t.TempDir()
	told := crowd.Height(0)
	count := 0
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CHAIN_TEST_VICTIM="+dir)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 7 + 3*round {
			if !lines.Scan() {
				t.Fatal("the victim died by itself")
			}
			count++
			if _, err := fmt.Sscan(lines.Text(), &told); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it still said before it died
			count++
			fmt.Sscan(lines.Text(), &told)
		}
		_ = cmd.Wait()
	}
	f := start(t, solo(t, w, dir), func(f *Full) { checkInvariants(t, f) })
	in := must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	if in.Height <= told {
		t.Errorf("height: got %d, want more than %d, which was told", in.Height, told)
	}
	got := f.Head().State.Account(w.people[1].ID().Address()).Balance
	// Of each round at most the one transfer that nobody was told of may be there too.
	if low := thousand + crowd.Credits(count) + 1; got < low || got > low+6 {
		t.Errorf("balance: got %s, want %s and at most 6 more", got, low)
	}
}

func TestWallet_ConcurrentSends(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()))
	bob := w.people[1].ID().Address()
	alice := NewWallet(w.people[0], f)
	rival := NewWallet(w.people[0], f) // two wallets on one key: slower, still right
	var wg sync.WaitGroup
	for i, x := range []*Wallet{alice, alice, rival} {
		wg.Go(func() {
			for range 20 { // the rival's differ: the same bytes would be the same transaction
				in, err := x.Send(deadline(t), &ledger.Transfer{To: bob, Amount: 1 + crowd.Credits(i/2)})
				if err != nil || in.Refusal != nil {
					t.Errorf("send: got %+v, %v", in, err)
				}
			}
		})
	}
	wg.Wait()
	if got, want := f.Head().State.Account(bob).Balance, thousand+80; got != want {
		t.Errorf("balance: got %s, want %s", got, want)
	}
	if got := f.Head().State.Account(alice.ID().Address()).Nonce; got != 60 {
		t.Errorf("nonce: got %d, want 60", got)
	}
}

// lossy drops the first answers, before or after the transaction is on its way.
type lossy struct {
	*Full
	before, after int
}

func (l *lossy) Send(ctx context.Context, raw []byte) (Included, error) {
	switch {
	case l.before > 0:
		l.before--
		return Included{}, ErrDropped
	case l.after > 0:
		l.after--
		if _, err := l.Full.Send(ctx, raw); err != nil {
			return Included{}, err
		}
		<-ctx.Done()
		return Included{}, ctx.Err()
	}
	return l.Full.Send(ctx, raw)
}

func TestWallet_SurvivesLoss(t *testing.T) {
	w := newWorld(t, 1, 0, 2)
	f := start(t, solo(t, w, t.TempDir()))
	bob := w.people[1].ID().Address()
	for _, c := range []struct {
		name string
		via  *lossy
	}{
		{"dropped on the way", &lossy{Full: f.Full, before: 3}},
		{"answer lost", &lossy{Full: f.Full, after: 2}},
		{"both", &lossy{Full: f.Full, before: 1, after: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := f.Head().State.Account(bob).Balance
			x := NewWallet(w.people[0], c.via)
			x.patience = 100 * time.Millisecond
			must(t, x, &ledger.Transfer{To: bob, Amount: 1})
			if got, want := f.Head().State.Account(bob).Balance, before+1; got != want {
				t.Errorf("balance: got %s, want %s", got, want)
			}
		})
	}
}

func TestFull_NobodyConnectsToASolo(t *testing.T) {
	w := newWorld(t, 1, 0, 1)
	f := start(t, solo(t, w, t.TempDir()))
	addr, err := f.Address(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	_, hostport, _ := strings.Cut(addr, "@")
	if host, _, err := net.SplitHostPort(hostport); err != nil || host != "127.0.0.1" {
		t.Errorf("listens on %s, want loopback", hostport)
	}
	g := launch(t, Config{Dir: t.TempDir(), Genesis: w.genesis, Listen: "tcp://127.0.0.1:0", Peers: []string{addr}})
	if _, err := g.Address(deadline(t)); err != nil {
		t.Fatal(err)
	}
	must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: w.authorities[0].ID().Address(), Amount: 1})
	if n := f.node.Switch().Peers().Size(); n != 0 {
		t.Errorf("peers: got %d, want none", n)
	}
}

func BenchmarkFull_FourAuthorities(b *testing.B) {
	w := newWorld(b, 4, 0, 2)
	nodes := cluster(b, w, 0)
	alice := NewWallet(w.people[0], nodes[0])
	m := &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1}
	must(b, alice, m)
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		at := time.Now()
		must(b, alice, m)
		took = append(took, time.Since(at))
	}
	b.ReportMetric(median(took), "ms/commit-p50")
}

// BenchmarkFull_Throughput counts transfers of 64 accounts, signed beforehand, each with 16 on their way.
func BenchmarkFull_Throughput(b *testing.B) {
	for _, n := range []int{1, 4} {
		b.Run(fmt.Sprintf("authorities=%d", n), func(b *testing.B) {
			const accounts, flying = 64, 16
			w := newWorld(b, n, 0, accounts)
			nodes := cluster(b, w, 0)
			f := nodes[0]
			each := b.N/accounts + 1
			txs := make([][][]byte, accounts)
			for i, k := range w.people {
				for j := range each {
					txs[i] = append(txs[i], ledger.Sign(k, f.ChainID(), uint64(j), &ledger.Transfer{To: w.people[(i+1)%accounts].ID().Address(), Amount: 1}))
				}
			}
			ctx := context.Background()
			b.ResetTimer()
			at := time.Now()
			var wg sync.WaitGroup
			for i := range accounts {
				wg.Go(func() {
					var line []*submission
					for j, raw := range txs[i] {
						s, err := f.submit(ctx, crowd.NodeID{}, raw)
						if err != nil {
							b.Error(err)
							return
						}
						if line = append(line, s); len(line) >= flying || j == each-1 {
							for _, s := range line {
								if in, err := s.wait(ctx); err != nil || in.Refusal != nil {
									b.Errorf("got %+v, %v", in, err)
									return
								}
							}
							line = line[:0]
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(each*accounts)/time.Since(at).Seconds(), "tx/s")
		})
	}
}
