package chain

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// hearer is a node of which the test counts what is pushed to it, and as what it was told of jobs.
type hearer struct {
	name string

	mu     sync.Mutex
	bytes  int64    // guarded by mu
	states []string // guarded by mu: each once in a row
}

func (h *hearer) now() (int64, []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bytes, slices.Clone(h.states)
}

// hear follows the jobs as a node, and makes of each push what a light node does, but for the signatures of its header.
func hear(t testing.TB, f *Full, name string, self crowd.NodeID) *hearer {
	h := &hearer{name: name}
	a, b := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.Serve(ctx, self, b) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	if _, err := a.Write(encodeFrame(0, kHello, hello{Chain: f.ChainID(), Prefixes: [][]byte{[]byte(ledger.PrefixJob)}, Self: self})); err != nil {
		t.Fatal(err)
	}
	first := make(chan struct{})
	wg.Go(func() {
		var kept bases
		for n := 0; ; n++ {
			fr, err := readFrame(a, maxAnswer)
			if err != nil {
				return
			}
			push, err := body[valuesBody](fr)
			if err != nil || fr.ID != 0 {
				t.Errorf("%s: got a frame of kind %d, %v", name, fr.Kind, err)
			}
			h.mu.Lock()
			if n > 0 {
				h.bytes += int64(len(plain(fr)))
			}
			for _, v := range push.Values {
				val, err := kept.unpack(string(v.Key), v.As, v.Val)
				var j ledger.Job
				if err == nil {
					err = crowd.Decode(val, &j)
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if s := j.State.String(); len(h.states) == 0 || h.states[len(h.states)-1] != s {
					h.states = append(h.states, s)
				}
			}
			h.mu.Unlock()
			if n == 0 {
				close(first)
			}
		}
	})
	<-first
	return h
}

// A job that many claim is told to those whom it concerns in no more bytes than twice its final record, and to the others
// not at all; nobody misses what it must act on.
func TestPush_TellsOfAJobWhomItConcerns(t *testing.T) {
	const providers = 40
	for _, size := range []int{0, 15 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t, 1, providers, 2)
			w.genesis.Params.ClaimWindow = 6000
			f := start(t, solo(t, w, t.TempDir()), func(f *Full) { checkInvariants(t, f) })
			owner := NewWallet(w.people[0], f)
			spec := w.spec()
			for i := range size / 600 {
				spec.Task.Env = append(spec.Task.Env, fmt.Sprintf("K%d=%s", i, strings.Repeat(fmt.Sprintf("%02d", i), 250)))
			}
			spec.Budget = 100 * crowd.Credit
			id := spec.ID(owner.ID(), 0)
			await := func(s ledger.JobState) ledger.Job {
				blocks := f.Watch(t.Context())
				for {
					if j, ok := f.Head().State.Job(id); ok && j.State >= s {
						if j.State != s {
							t.Fatalf("the job is %s, want %s", j.State, s)
						}
						return j
					}
					<-blocks
				}
			}
			key := map[crowd.NodeID]*identity.Key{}
			for _, k := range w.providers {
				key[k.ID()] = k
			}
			hearers := map[crowd.NodeID]*hearer{}
			for i, k := range w.providers {
				hearers[k.ID()] = hear(t, f.Full, fmt.Sprint("provider ", i), k.ID())
			}
			own, other := hear(t, f.Full, "owner", owner.ID()), hear(t, f.Full, "other", w.people[1].ID())

			began := time.Now()
			must(t, owner, &ledger.Post{Spec: spec})
			j := await(ledger.Claiming)
			silent := w.providers[0].ID()       // may claim, and does not
			for _, k := range w.providers[1:] { // in a block each
				proof, _ := k.VRF().Prove(ledger.DrawInput(id, k.ID(), j.Beacon))
				must(t, NewWallet(k, f), &ledger.Claim{Job: id, Proof: proof})
			}
			j = await(ledger.Running)
			o := ledger.Opening{Outcome: crowd.Outcome{Status: crowd.Exited, Gas: 1e6, Result: "bafyresult"}}
			for _, p := range j.Places {
				must(t, NewWallet(key[p.Node], f), &ledger.Commit{Job: id, Commitment: ledger.Commitment(id, p.Node, o), Sealed: [][]byte{{1}}})
			}
			for _, p := range j.Places {
				must(t, NewWallet(key[p.Node], f), &ledger.Reveal{Job: id, Opening: o})
			}
			must(t, owner, &ledger.Accept{Job: id})
			j = await(ledger.Settled)
			final := int64(len(crowd.Encode(j)))

			// A node that is slow misses states in between, never the newest.
			check := func(h *hearer, first, last string, most int64) {
				t.Helper()
				n, got := h.now()
				end := time.Now().Add(20 * time.Second)
				for ; (len(got) == 0 || got[len(got)-1] != last) && last != "" && time.Now().Before(end); n, got = h.now() {
					time.Sleep(10 * time.Millisecond)
				}
				t.Logf("%s: %d bytes, %.2f of the final record; %v", h.name, n, float64(n)/float64(final), got)
				switch {
				case last == "" && len(got) > 0, last != "" && (len(got) == 0 || got[0] != first || got[len(got)-1] != last):
					t.Errorf("%s: was told of %v, want from %s to %s", h.name, got, first, last)
				case n > most:
					t.Errorf("%s: got %d bytes, want at most %d", h.name, n, most)
				}
			}
			check(own, "posted", "settled", 2*final)
			for _, p := range j.Places {
				check(hearers[p.Node], "claiming", "settled", 2*final)
			}
			check(hearers[j.Drawn[len(j.Drawn)-1].Node], "claiming", "settled", 2*final)
			heads := int64(time.Since(began)/headEvery) + 1
			check(other, "", "", heads*700)
			n, got := hearers[silent].now()
			if len(got) != 2 || got[0] != "claiming" || n > 2*final {
				t.Errorf("a provider that did not claim: was told of %v in %d bytes, want that the claims opened and closed", got, n)
			}
		})
	}
}

// What one side packs the other unpacks, however much is kept, and both keep the same.
func TestBases_BothSidesKeepTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.IntN(4))
		}
		return b
	}
	var full, light bases
	vals := map[string][]byte{}
	patches := 0
	for range 5000 {
		key := fmt.Sprint("k", rng.IntN(400))
		val := bytes.Clone(vals[key])
		switch {
		case len(val) == 0 || rng.IntN(10) == 0:
			val = random(rng.IntN(20 << 10))
		case rng.IntN(100) == 0:
			val = random(maxBase + 100)
		default:
			at := rng.IntN(len(val))
			val = append(val[:at:at], append(random(rng.IntN(100)), val[min(len(val), at+rng.IntN(50)):]...)...)
		}
		vals[key] = val
		as, body := full.pack(key, val, rng.IntN(20) == 0, diff)
		got, err := light.unpack(key, as, body)
		if err != nil || !bytes.Equal(got, val) {
			t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(val))
		}
		if as == patched || as == patchedLast {
			patches++
		}
		if full.size > maxBaseBytes || len(full.vals) > maxBases || full.size != light.size || fmt.Sprint(full.order) != fmt.Sprint(light.order) {
			t.Fatalf("one side keeps %d bytes in %d, the other %d in %d", full.size, len(full.vals), light.size, len(light.vals))
		}
	}
	if patches < 1000 {
		t.Errorf("got %d patches: the test does not test", patches)
	}
}

func FuzzApplyPatch(f *testing.F) {
	old := []byte(strings.Repeat("0123456789abcdef", 10))
	f.Add(old, diff(old, append([]byte("x"), old...)))
	f.Add(old, crowd.Encode([]hunk{{From: 1 << 31, Len: 1 << 31}}))
	f.Add([]byte{}, []byte{0x80})
	f.Fuzz(func(t *testing.T, old, patch []byte) {
		const limit = 1 << 16
		val, err := apply(old, patch, limit)
		if err != nil {
			return
		}
		if len(val) > limit {
			t.Fatalf("got %d bytes, at most %d", len(val), limit)
		}
		if again, err := apply(old, diff(old, val), limit); err != nil || !bytes.Equal(again, val) {
			t.Errorf("the patch of it: got %x, %v, want %x", again, err, val)
		}
	})
}

// Patches from a full node that lies end its stream.
func TestLight_BelievesNoPatchUnseen(t *testing.T) {
	w := newWorld(t, 1, 2, 2)
	f := start(t, solo(t, w, t.TempDir()))
	for _, c := range []struct {
		name   string
		change func(*value)
	}{
		{"a patch on nothing", func(v *value) { v.As = patched }},
		{"no patch", func(v *value) { v.As, v.Val = patched, []byte{1, 2, 3} }},
		{"an unknown form", func(v *value) { v.As = 9 }},
		{"another value", func(v *value) { v.Val = append(bytes.Clone(v.Val), 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			honest := dialer(t, f.Full)
			lie := lying(t, f.Full, func(fr frame) []byte {
				b, err := body[valuesBody](fr)
				if fr.ID != 0 || err != nil || len(b.Values) == 0 {
					return plain(fr)
				}
				c.change(&b.Values[0])
				return refit(fr, b)
			})
			var dials atomic.Int32
			l := startLight(t, LightConfig{Genesis: w.genesis, Prefixes: []string{"account/"}, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
				if dials.Add(1) == 1 {
					return lie(ctx)
				}
				return honest(ctx)
			}})
			ready(t, l)
			must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
			for end := time.Now().Add(20 * time.Second); dials.Load() < 2; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the liar is not left")
				}
			}
		})
	}
}
