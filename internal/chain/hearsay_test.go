package chain

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// deaf is a full node that passes no transaction on.
func deaf(dial func(context.Context) (io.ReadWriteCloser, error), code ledger.Code) func(context.Context) (io.ReadWriteCloser, error) {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		s, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		pr, pw := io.Pipe() // to the light node
		in, out := io.Pipe()
		go func() { _, err := io.Copy(pw, s); pw.CloseWithError(err) }()
		go func() {
			for {
				fr, err := readFrame(in, maxRequest)
				if err != nil {
					s.Close()
					return
				}
				if fr.Kind == kSend {
					_, err = pw.Write(encodeFrame(fr.ID, kRefusal, refusalBody{Code: code, Reason: "so there"}))
				} else {
					_, err = s.Write(plain(fr))
				}
				if err != nil {
					return
				}
			}
		}()
		return &relay{r: pr, w: out, end: func() error { out.Close(); pr.Close(); return s.Close() }}, nil
	}
}

type relay struct {
	r   io.Reader
	w   io.Writer
	end func() error
}

func (r *relay) Read(p []byte) (int, error)  { return r.r.Read(p) }
func (r *relay) Write(p []byte) (int, error) { return r.w.Write(p) }
func (r *relay) Close() error                { return r.end() }

// The first full node takes no transaction, whatever it says for a reason; all others are honest.
func TestLight_LeavesACensor(t *testing.T) {
	w := newWorld(t, 1, 2, 1)
	f := start(t, solo(t, w, t.TempDir()))
	ctx := deadline(t)
	must(t, NewWallet(w.people[0], f), &ledger.Post{Spec: w.spec()})
	spec := w.spec()
	id := spec.ID(w.people[0].ID(), 0)
	blocks := f.Watch(ctx)
	var j ledger.Job
	for j, _ = f.Head().State.Job(id); j.State != ledger.Claiming; j, _ = f.Head().State.Job(id) {
		<-blocks
	}
	proof, _ := w.providers[0].VRF().Prove(ledger.DrawInput(id, w.providers[0].ID(), j.Beacon))
	to := w.people[0].ID().Address()
	claimed := false
	for _, code := range []ledger.Code{ledger.BadNonce, ledger.NoFunds, ledger.TooLate, ledger.NotEligible, ledger.BadTx, 99} {
		t.Run(code.String(), func(t *testing.T) {
			honest := dialer(t, f.Full)
			bad := deaf(honest, code)
			var dials atomic.Int32
			l := startLight(t, LightConfig{Genesis: w.genesis, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
				if dials.Add(1) == 1 {
					return bad(ctx)
				}
				return honest(ctx)
			}})
			ready(t, l)
			var m ledger.Message = &ledger.Transfer{To: to, Amount: 1}
			if code == ledger.TooLate && !claimed {
				m, claimed = &ledger.Claim{Job: id, Proof: proof}, true
			}
			at := time.Now()
			in, err := NewWallet(w.providers[0], l).Send(ctx, m)
			if err != nil || in.Refusal != nil || in.Hearsay {
				t.Errorf("got %+v, %v, want done", in, err)
			}
			if n := dials.Load(); n != 2 {
				t.Errorf("got %d dials, want 2", n)
			}
			t.Logf("after %v", time.Since(at))
		})
	}
}

// A refusal that is right costs no full node its light node.
func TestLight_StaysWithWhoRefusesRightly(t *testing.T) {
	w := newWorld(t, 1, 2, 2)
	f := start(t, solo(t, w, t.TempDir()))
	var dials atomic.Int32
	honest := dialer(t, f.Full)
	l := startLight(t, LightConfig{Genesis: w.genesis, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
		dials.Add(1)
		return honest(ctx)
	}})
	ready(t, l)
	ctx := deadline(t)
	must(t, NewWallet(w.people[0], f), &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 1})
	raw := func(nonce uint64, m ledger.Message) []byte { return ledger.Sign(w.people[0], f.ChainID(), nonce, m) }
	ended, _ := cancelled(t, f, w.people[1], 0, w.spec())
	spec := w.spec()
	drawn := spec.ID(w.people[0].ID(), 1)
	must(t, NewWallet(w.people[0], f), &ledger.Post{Spec: spec})
	blocks := f.Watch(ctx)
	for j, _ := f.Head().State.Job(drawn); j.State != ledger.Claiming; j, _ = f.Head().State.Job(drawn) {
		<-blocks
	}
	for _, c := range []struct {
		name string
		raw  []byte
		want ledger.Code
	}{
		{"a nonce that is taken", raw(0, &ledger.Awake{}), ledger.BadNonce},
		{"a nonce with a gap before it", raw(5, &ledger.Awake{}), ledger.BadNonce},
		{"a transfer of too much", raw(2, &ledger.Transfer{To: w.people[1].ID().Address(), Amount: 2 * thousand}), ledger.NoFunds},
		{"a job that is not there", raw(2, &ledger.Accept{Job: crowd.JobID{1}}), ledger.NotFound},
		{"a cancel of a job that has ended", raw(2, &ledger.Cancel{Job: ended}), ledger.TooLate},
		{"a cancel while places are drawn", raw(2, &ledger.Cancel{Job: drawn}), ledger.TooEarly},
	} {
		in, err := l.Send(ctx, c.raw)
		if err != nil || in.Refusal == nil || in.Refusal.Code != c.want || !in.Hearsay {
			t.Errorf("%s: got %+v, %v, want refused with %s", c.name, in, err, c.want)
		}
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("got %d dials, want 1", n)
	}
}
