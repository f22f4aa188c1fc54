package chain

import (
	"context"
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// A full node that censors refuses before any block, on its word, what the ledger would take. This file holds such a word
// against the state that the light node can have proven, if need be by another full node.

const (
	maxOpinions = 3                      // full nodes that refuse a transaction before it is given up
	doubtEvery  = 5 * time.Second        // at most so often a full node is left for a refusal that nobody can check
	settleTime  = 300 * time.Millisecond // for the block that the refusing node may be ahead of what it can prove
	nonceTime   = time.Second            // how long a nonce may be refused that is the account's next: another transaction may have it on its way
	maxRefused  = 64                     // nonces that one full node refused and that are remembered; beyond, all are forgotten
)

// fit says how a refusal goes with the proven state.
type fit uint8

const (
	fits         fit = iota + 1 // the state bears it out
	unclear                     // this node cannot tell
	contradicted                // an honest full node would not have said so
)

// question returns an error, which ends the stream s as a lie does, if r is to be heard from another full node too.
func (l *Light) question(ctx context.Context, s *session, place *inLine, r *ledger.Refusal) error {
	if r.Code == ledger.BadNonce {
		return l.questionNonce(ctx, s, place, r)
	}
	for again := false; ; again = true {
		got, err := l.fit(ctx, place, r)
		switch {
		case err != nil:
			return fmt.Errorf("a refusal (%v) that cannot be checked: %w", r, err)
		case got == fits:
			return nil
		case again && got == contradicted:
			return fmt.Errorf("a refusal that the state contradicts: %v", r)
		case again:
			l.mu.Lock()
			defer l.mu.Unlock()
			if time.Since(l.doubted) < doubtEvery {
				return nil
			}
			l.doubted = time.Now()
			return fmt.Errorf("%w: %v", errConfirm, r)
		}
		t := time.NewTimer(settleTime)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// questionNonce is question of a refused nonce. The wallet offers it again as long as it may yet be good, so that there is nothing to wait for.
func (l *Light) questionNonce(ctx context.Context, s *session, place *inLine, r *ledger.Refusal) error {
	got, err := l.fit(ctx, place, r)
	if err != nil {
		return fmt.Errorf("a refusal (%v) that cannot be checked: %w", r, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	nonce := place.tx.Nonce()
	first, ok := s.refused[nonce]
	switch {
	case got != contradicted:
		delete(s.refused, nonce)
	case !ok:
		if s.refused == nil || len(s.refused) >= maxRefused {
			s.refused = map[uint64]time.Time{}
		}
		s.refused[nonce] = time.Now()
	case time.Since(first) > nonceTime:
		return fmt.Errorf("for %v a refusal that the state contradicts: %v", nonceTime, r)
	}
	return nil
}

// record reads a proven value; false: there is none.
func record[T any](ctx context.Context, l *Light, key []byte) (v T, ok bool, err error) {
	raw, err := l.Get(ctx, key)
	if err != nil || raw == nil {
		return v, false, err
	}
	return v, true, crowd.Decode(raw, &v)
}

// fit holds r against the newest state that can be proven. It need not know every rule of the ledger: what it does not know is unclear.
func (l *Light) fit(ctx context.Context, place *inLine, r *ledger.Refusal) (fit, error) {
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	tx := place.tx
	switch r.Code {
	case ledger.BadNonce, ledger.NoFunds:
		acc, _, err := record[ledger.Account](ctx, l, ledger.AccountKey(tx.Sender().Address()))
		if err != nil {
			return 0, err
		}
		if r.Code == ledger.BadNonce {
			if tx.Nonce() == acc.Nonce {
				return contradicted, nil
			}
			return fits, nil // it is taken, or others are missing
		}
		need, most := l.needs(tx)
		l.mu.Lock()
		for _, x := range l.line {
			if x != place && x.tx.Sender() == tx.Sender() {
				_, m := l.needs(x.tx)
				most = add(most, m)
			}
		}
		l.mu.Unlock()
		switch {
		case acc.Balance < need:
			return fits, nil
		case acc.Balance >= most:
			return contradicted, nil
		}
	case ledger.NotFound, ledger.TooEarly, ledger.TooLate, ledger.Duplicate:
		id, from, to := stage(tx.Message())
		if from == 0 {
			return unclear, nil
		}
		j, ok, err := record[ledger.Job](ctx, l, ledger.JobKey(id))
		switch {
		case err != nil:
			return 0, err
		case !ok && r.Code == ledger.NotFound, ok && r.Code == ledger.TooEarly && j.State < from, ok && r.Code == ledger.TooLate && j.State > to:
			return fits, nil
		case ok && r.Code == ledger.TooEarly && cancels(tx) && j.State >= ledger.Claiming:
			return fits, nil // its places were being drawn, or are
		case ok && r.Code != ledger.NotFound && did(tx, &j):
			return fits, nil
		case ok && from <= j.State && j.State <= to && !did(tx, &j):
			return contradicted, nil
		}
	}
	return unclear, nil
}

// needs is the least that a transaction takes of its sender's balance, and a balance that suffices for sure.
func (l *Light) needs(tx ledger.Tx) (least, most crowd.Credits) {
	least = l.cfg.Genesis.Params.Fee(tx)
	switch m := tx.Message().(type) {
	case *ledger.Transfer:
		least = add(least, m.Amount)
	case *ledger.Register:
		least = add(least, m.Stake)
	case *ledger.Post:
		least = add(least, l.cfg.Genesis.Params.EscrowFor(&m.Spec))
		return least, add(add(least, m.Spec.Budget), crowd.Credit) // with what its owner pays for others
	}
	return least, least
}

// add is a sum, or the most there can be.
func add(a, b crowd.Credits) crowd.Credits {
	if sum, ok := a.Add(b); ok {
		return sum
	}
	return ^crowd.Credits(0)
}

// stage is in which states a job takes a message; from is 0 where that is not known.
func stage(m ledger.Message) (id crowd.JobID, from, to ledger.JobState) {
	switch m := m.(type) {
	case *ledger.Claim:
		return m.Job, ledger.Claiming, ledger.Claiming
	case *ledger.Commit:
		return m.Job, ledger.Running, ledger.Running
	case *ledger.GiveUp:
		return m.Job, ledger.Running, ledger.Running
	case *ledger.Reveal:
		return m.Job, ledger.Revealing, ledger.Unsealing
	case *ledger.Accept:
		return m.Job, ledger.Delivering, ledger.Inspecting
	case *ledger.Complain:
		return m.Job, ledger.Delivering, ledger.Delivering
	case *ledger.Cancel:
		return m.Job, ledger.Posted, ledger.Running
	}
	return id, 0, 0
}

func cancels(tx ledger.Tx) bool {
	_, ok := tx.Message().(*ledger.Cancel)
	return ok
}

// did reports whether j shows that the sender of tx need not, or cannot, do in it what tx does.
func did(tx ledger.Tx, j *ledger.Job) bool {
	p := j.Place(tx.Sender())
	switch tx.Message().(type) {
	case *ledger.Claim:
		for i := range j.Drawn {
			if j.Drawn[i].Node == tx.Sender() {
				return true
			}
		}
		return false
	case *ledger.Commit:
		return p == nil || p.State != ledger.Working || p.Verifier || p.Commitment != crowd.Hash{} // a verifier commits twice, at its time
	case *ledger.GiveUp:
		return p == nil || p.State != ledger.Working
	case *ledger.Reveal:
		return p == nil || p.State != ledger.Committed
	case *ledger.Cancel:
		return j.State == ledger.Claiming || j.Bound()
	}
	return false
}
