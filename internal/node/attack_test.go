//go:build linux

package node

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// listen reads what a job's executors send live until it has seen text, and says whether it has.
func (n *network) listen(id crowd.JobID, text string) bool {
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()
	said := ""
	for chunk, err := range n.Logs(ctx, id, true) {
		if err != nil {
			return false
		}
		if said += string(chunk.Data); strings.Contains(said, text) {
			return true
		}
	}
	return false
}

// record of a job as the consumer's node knows it.
func (n *network) record(id crowd.JobID) ledger.Job {
	p, _ := n.Consumer().book.look(id)
	return p.job
}

func (n *network) faultless() {
	n.t.Helper()
	for i := range n.Local.Providers() {
		rep, err := n.Reputation(n.t.Context(), n.Local.Provider(i).Address())
		if err != nil || n.stake(i) != providerStake || rep.Faults > 0 || rep.Caught > 0 {
			n.t.Errorf("provider %d: stake %s, %+v, %v", i, n.stake(i), rep, err)
		}
	}
}

// The attacks that brought free work, on a network of real nodes: what each costs its owner now. None costs an honest node anything.
func TestAttack_OnRealNodes(t *testing.T) {
	n := start(t, LocalConfig{Providers: 3})
	limits := rpc.Limits{Gas: 40e9, Memory: 16 << 20, Output: 1 << 16}
	program := func(source string) crowd.CID { return n.uploadFrom(bytes.NewReader(build(t, "testdata/"+source))) }
	price := func(gas crowd.Gas) crowd.Credits { return crowd.ReferencePrice.Cost(gas) }

	t.Run("read the answer while it runs, then cancel", func(t *testing.T) {
		r := rpc.PostRequest{Program: program("forever.c"), Limits: limits}
		id, err := n.Post(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if !n.listen(id, "the answer is 42") {
			t.Fatal("nothing was sent live")
		}
		if err := n.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		events := n.follow(id)
		j := n.record(id)
		spent := j.Spent() - j.Duties
		if last := events[len(events)-1]; last.Stage != rpc.Cancelled || spent < 2*price(6e9) {
			t.Errorf("got %s for %s want cancelled, for three seconds of two machines at least", last.Stage, spent)
		}
		t.Logf("read and cancel: %s of an escrow of %s", spent, j.Locked)
		n.faultless()
	})
	t.Run("inputs that the owner serves to nobody", func(t *testing.T) {
		spec, err := (&rpc.PostRequest{Program: crowd.CID("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"), Limits: rpc.Limits{Gas: 1e9, Memory: 16 << 20, Output: 1 << 10}}).Spec()
		if err != nil {
			t.Fatal(err)
		}
		spec.Filters.MaxPrice, spec.Budget = crowd.ReferencePrice, 10*crowd.Credit
		c := n.Consumer()
		in, err := c.wallet.Send(t.Context(), &ledger.Post{Spec: spec})
		if err != nil || in.Refusal != nil {
			t.Fatal(err, in.Refusal)
		}
		id := spec.ID(c.id, in.Nonce)
		var j ledger.Job
		for deadline := time.Now().Add(60 * time.Second); !j.State.Ended(); {
			raw, err := c.chain.Get(t.Context(), ledger.JobKey(id))
			if err == nil && raw != nil {
				err = crowd.Decode(raw, &j)
			}
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("got %s, %v", j.State, err)
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-t.Context().Done():
			}
		}
		if len(j.Places) != 2 || j.State != ledger.Failed || j.Spent()-j.Duties < 2*price(1e9) {
			t.Errorf("%d nodes held a place, and the owner paid %s: %s", len(j.Places), j.Spent()-j.Duties, lastStep(&j).Why)
		}
		t.Logf("hidden inputs: %s of an escrow of %s, %d nodes held a place", j.Spent()-j.Duties, j.Locked, len(j.Places))
		n.faultless()
	})
	t.Run("a wall time of a millisecond", func(t *testing.T) {
		short := limits
		short.WallMillis = 1
		_, err := n.Post(t.Context(), rpc.PostRequest{Program: program("work.c"), Limits: short})
		var e *rpc.Error
		if !errors.As(err, &e) || e.Kind != rpc.BadRequest || !strings.Contains(err.Error(), "a slow machine may need") {
			t.Errorf("got %v want it refused", err)
		}
	})
	t.Run("print, then run into the wall time", func(t *testing.T) {
		r := rpc.PostRequest{Program: program("walled.c"), Limits: rpc.Limits{Gas: 1e9, Memory: 512 << 20, Output: 1 << 10}}
		id, events := n.finish(r)
		j := n.record(id)
		if spent := j.Spent() - j.Duties; spent < 2*price(1e9)*9/10 {
			t.Errorf("the work of two machines cost %s of an escrow of %s: %s", spent, j.Locked, events[len(events)-1].Why)
		}
		t.Logf("print and stall: %s of an escrow of %s: %s", j.Spent()-j.Duties, j.Locked, lastStep(&j).Why)
		n.faultless()
	})
}
