package chain

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// debts keeps peers and accounts from spending this node's time on transactions that it refuses, which cost them
// nothing. What a check cost that ended in a refusal its peer and its sender owe debtFactor times over: until that time
// has passed, another of the same kind waits, or fails with errBusy where it would wait long. So each
// of them takes at most one part in debtFactor of the time in which transactions are checked.
type debts struct {
	mu    sync.Mutex
	until map[debtor]time.Time // guarded by mu: when the debt is paid off; at most maxDebtors
}

type debtor struct {
	node crowd.NodeID
	peer bool         // else the account that signed
	kind reflect.Type // of message
}

const (
	debtFactor = 100
	debtLeast  = 100 * time.Microsecond // what costs less is free
	debtWait   = 500 * time.Millisecond // at most, for a debt to be paid off; more than that ends in errBusy
	maxDebtors = 4096                   // beyond, the one that owes least is let off
)

// errBusy says nothing about the transaction: it may be offered again, as one that was dropped.
var errBusy = errors.New("the full node has refused too much of this kind that was costly to check")

// offerAgain reports whether a transaction may be offered again after err, since it is in no block and on no way to one.
func offerAgain(err error) bool { return errors.Is(err, ErrDropped) || errors.Is(err, errBusy) }

func debtorsOf(peer crowd.NodeID, tx ledger.Tx) [2]debtor {
	kind := reflect.TypeOf(tx.Message())
	return [2]debtor{{peer, true, kind}, {tx.Sender(), false, kind}}
}

// wait returns once neither the peer nor the sender of tx owes anything.
func (d *debts) wait(ctx context.Context, peer crowd.NodeID, tx ledger.Tx) error {
	d.mu.Lock()
	var until time.Time
	for _, x := range debtorsOf(peer, tx) {
		if t := d.until[x]; t.After(until) {
			until = t
		}
	}
	d.mu.Unlock()
	left := time.Until(until)
	if left <= 0 {
		return nil
	}
	t := time.NewTimer(min(left, debtWait)) // also for one that is turned away, so that being turned away costs little too
	defer t.Stop()
	select {
	case <-t.C:
		if left -= debtWait; left > 0 {
			return fmt.Errorf("%w: offer it again in %v", errBusy, left.Round(100*time.Millisecond))
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// charge notes that tx was refused after a check that took so long.
func (d *debts) charge(peer crowd.NodeID, tx ledger.Tx, cost time.Duration) {
	if cost < debtLeast {
		return
	}
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until == nil {
		d.until = map[debtor]time.Time{}
	}
	for _, x := range debtorsOf(peer, tx) {
		if _, ok := d.until[x]; !ok && len(d.until) >= maxDebtors {
			d.forget(now)
		}
		from := d.until[x]
		if from.Before(now) {
			from = now
		}
		d.until[x] = from.Add(debtFactor * cost)
	}
}

// forget makes room. It needs mu.
func (d *debts) forget(now time.Time) {
	var least debtor
	var soonest time.Time
	for x, t := range d.until {
		if !t.After(now) {
			delete(d.until, x)
		} else if soonest.IsZero() || t.Before(soonest) {
			least, soonest = x, t
		}
	}
	if len(d.until) >= maxDebtors {
		delete(d.until, least)
	}
}
