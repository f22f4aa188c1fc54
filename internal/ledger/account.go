package ledger

import (
	"fmt"

	"github.com/crowdcompute/crowd"
)

func (w *work) account(a crowd.Address) Account {
	v, _ := load[Account](w.get, string(AccountKey(a)))
	return v
}

func (w *work) putAccount(a crowd.Address, v Account) { w.put(string(AccountKey(a)), &v) }

// credit adds to a balance. The supply bounds every sum, so it cannot overflow.
func (w *work) credit(a crowd.Address, c crowd.Credits) {
	if c == 0 {
		return
	}
	v := w.account(a)
	v.Balance += c
	w.putAccount(a, v)
}

func (w *work) debit(a crowd.Address, c crowd.Credits, what string) *Refusal {
	v := w.account(a)
	left, ok := v.Balance.Sub(c)
	if !ok {
		return refuse(NoFunds, "%s takes %s, %s has %s", what, c, a, v.Balance)
	}
	v.Balance = left
	w.putAccount(a, v)
	return nil
}

func (w *work) burn(c crowd.Credits) {
	s, _ := load[Supply](w.get, keySupply)
	s.Burned += c
	w.put(keySupply, &s)
}

func (w *work) transfer(from crowd.Address, m *Transfer) *Refusal {
	if m.To.IsZero() {
		return refuse(BadTx, "transfer to nobody")
	}
	if r := w.debit(from, m.Amount, "the transfer"); r != nil {
		return r
	}
	w.credit(m.To, m.Amount)
	return nil
}

// CheckInvariants reports what must never be: credits that came from nowhere or
// went nowhere, an open job that no deadline ends, and stake bound by no job. Tests call it after every block.
func CheckInvariants(s State) error {
	var accounts, stakes, escrows crowd.Credits
	s.EachAccount(func(_ crowd.Address, a Account) bool { accounts += a.Balance; return true })
	s.EachProvider(func(p Provider) bool { stakes += p.Stake; return true })
	index := map[crowd.JobID]int{}
	s.Each(prefixDue, func(key string, _ []byte) bool { _, id := indexKey(prefixDue, key); index[id]++; return true })
	s.Each(prefixDraw, func(key string, _ []byte) bool { _, id := indexKey(prefixDraw, key); index[id]++; return true })
	var err error
	bound := map[crowd.NodeID]crowd.Credits{}
	s.EachJob(func(j Job) bool {
		if a := j.Audit; a != nil && !j.State.Ended() {
			if st := j.Place(a.Executor).State; st != Dropped && st != Fraud {
				bound[a.Executor] += a.Stake
			}
		}
		escrows += j.Escrow + j.Slashed
		if j.State.Ended() && j.Escrow+j.Slashed != 0 {
			err = fmt.Errorf("job %s is %s and still holds %s", j.ID.Short(), j.State, j.Escrow)
		}
		if index[j.ID] != 1 {
			err = fmt.Errorf("job %s in state %s has %d deadlines, want 1", j.ID.Short(), j.State, index[j.ID])
		}
		delete(index, j.ID)
		return err == nil
	})
	if err != nil {
		return err
	}
	s.EachProvider(func(p Provider) bool {
		if p.Bound != bound[p.ID] {
			err = fmt.Errorf("%s of the stake of %s are bound, its jobs bind %s", p.Bound, p.ID.Short(), bound[p.ID])
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	if len(index) != 0 {
		return fmt.Errorf("%d deadlines of jobs that are not there", len(index))
	}
	if sup := s.Supply(); accounts+stakes+escrows+sup.Burned != sup.Minted {
		return fmt.Errorf("accounts %s + stakes %s + escrows %s + burned %s is not minted %s",
			accounts, stakes, escrows, sup.Burned, sup.Minted)
	}
	return nil
}
