package ledger

import (
	"github.com/crowdcompute/crowd"
)

// checkTraceless: a refused message changes nothing but its sender's account and what is burned.
func (p *player) checkTraceless(before State, b Block, got Applied) {
	tx := b.Txs[0]
	b.Txs = nil
	without, err := Apply(before, b)
	if err != nil {
		p.t.Fatalf("block %d: %v", p.height, err)
	}
	want := map[string]string{}
	for _, c := range without.Changes {
		want[c.Key] = string(c.Val)
	}
	free := map[string]bool{string(AccountKey(tx.sender.Address())): true, keySupply: true}
	for _, c := range got.Changes {
		val, ok := want[c.Key]
		if !free[c.Key] && (!ok || val != string(c.Val)) {
			p.t.Fatalf("block %d: a refused %T (%v) wrote %q", p.height, tx.msg, got.Results[0], c.Key)
		}
		delete(want, c.Key)
	}
	for key := range want {
		if !free[key] {
			p.t.Fatalf("block %d: a refused %T took back %q", p.height, tx.msg, key)
		}
	}
	if len(got.Events) != len(without.Events) {
		p.t.Fatalf("block %d: a refused %T left %d events, want %d", p.height, tx.msg, len(got.Events), len(without.Events))
	}
}

// check holds the state against what must be true after every block.
func (p *player) check() {
	p.t.Helper()
	if err := CheckInvariants(p.s); err != nil {
		p.t.Fatalf("after block %d: %v", p.height, err)
	}
	if got := p.s.Supply().Minted; got != p.minted {
		p.t.Fatalf("after block %d: %s are minted, want %s", p.height, got, p.minted)
	}
	active := map[crowd.NodeID]uint32{}
	p.s.EachJob(func(j Job) bool {
		if j.State.Ended() {
			return true
		}
		for i := range j.Places {
			if st := j.Places[i].State; st != Dropped && st != Fraud {
				active[j.Places[i].Node]++
			}
		}
		return true
	})
	p.s.EachProvider(func(pr Provider) bool {
		if pr.Active != active[pr.ID] {
			p.t.Fatalf("after block %d: provider %s holds %d places, want %d", p.height, pr.ID.Short(), pr.Active, active[pr.ID])
		}
		if p.honestCourt && pr.Tombstoned && !p.liars[pr.ID] {
			p.t.Fatalf("after block %d: honest provider %s has a tombstone", p.height, pr.ID.Short())
		}
		return true
	})
	for _, j := range p.jobs {
		p.checkJob(j)
	}
}

// checkJob holds a job's record against what it was one block ago, and its payments against its escrow.
func (p *player) checkJob(j *played) {
	now, ok := p.s.Job(j.id)
	if !ok {
		if j.last != nil && !j.last.State.Ended() {
			p.t.Fatalf("after block %d: job %s is gone; it was %s", p.height, j.id.Short(), j.last.State)
		}
		j.gone = true
		return
	}
	if j.gone {
		p.t.Fatalf("after block %d: job %s is there again", p.height, j.id.Short())
	}
	was := j.last
	j.last = &now
	var paid, fromStake, lost crowd.Credits
	worked := map[crowd.Address]bool{}
	for _, pay := range now.Payments {
		if pay.Slashed {
			fromStake += pay.Amount
			continue
		}
		paid += pay.Amount
		if pay.Why == WhyWork {
			if worked[pay.To] {
				p.t.Fatalf("after block %d: job %s paid %s twice for its work", p.height, j.id.Short(), pay.To)
			}
			worked[pay.To] = true
		}
	}
	for i := range now.Places {
		lost += now.Places[i].Slashed
	}
	if paid+now.Escrow != j.locked {
		p.t.Fatalf("after block %d: job %s has paid %s and holds %s, it locked %s", p.height, j.id.Short(), paid, now.Escrow, j.locked)
	}
	if fromStake+now.Slashed != lost {
		p.t.Fatalf("after block %d: job %s took %s of stake, gave %s and holds %s", p.height, j.id.Short(), lost, fromStake, now.Slashed)
	}
	if was == nil {
		return
	}
	for i := range was.Places {
		if a, b := &was.Places[i], &now.Places[i]; a.Node != b.Node || (a.State == Dropped || a.State == Fraud) && a.State != b.State {
			p.t.Fatalf("after block %d: place %d of job %s was %s of %s, is %s of %s", p.height, i, j.id.Short(), a.State, a.Node.Short(), b.State, b.Node.Short())
		}
	}
	if was.State.Ended() && string(crowd.Encode(was)) != string(crowd.Encode(&now)) {
		p.t.Fatalf("after block %d: the record of job %s, which was %s, has changed", p.height, j.id.Short(), was.State)
	}
}

// runOut lets time run on: every job must end and leave the state, and no provider may stay bound.
func (p *player) runOut() {
	p.t.Helper()
	for range 100 + 40*len(p.jobs) {
		due, ok := p.s.NextDue()
		if !ok && !p.s.DrawPending() {
			break
		}
		p.until(due)
	}
	p.s.EachJob(func(j Job) bool {
		p.t.Fatalf("job %s does not end: it is %s, due %d, now %d", j.ID.Short(), j.State, j.Due, p.now)
		return false
	})
	p.s.EachProvider(func(pr Provider) bool {
		if pr.Active != 0 || pr.Bound != 0 {
			p.t.Fatalf("all jobs have ended, and provider %s holds %d places and has %s bound", pr.ID.Short(), pr.Active, pr.Bound)
		}
		return true
	})
}
