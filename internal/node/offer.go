package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

const (
	awakeEvery = 30 * time.Second // how often a provider looks what the chain says of it
	fundsEvery = 3 * time.Second  // the same, while its registration waits for credits

	// claimFunds stay in the balance when the stake leaves it: a provider pays the fees of its claims.
	claimFunds = crowd.Credit / 10
)

// offer keeps a provider in the draw: registered as configured, its tags announced, and awake again after it missed draws.
func (n *Node) offer(ctx context.Context) error {
	for {
		next, err := n.tendOffer(ctx)
		if err != nil && ctx.Err() == nil {
			n.log.Warn("keep this provider in the draw", "err", err)
		}
		select {
		case <-time.After(fundsEvery):
		case <-ctx.Done():
			return nil
		}
		select {
		case <-time.After(next - fundsEvery):
		case <-n.dozed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) tendOffer(ctx context.Context) (time.Duration, error) {
	chain := jobChain{n}
	p, err := chain.Provider(ctx)
	if err != nil {
		return fundsEvery, err
	}
	next := awakeEvery
	if n.cfg.Offer != nil {
		state, err := n.register(ctx, p)
		if err != nil {
			state = "not registered: " + err.Error()
		}
		n.mu.Lock()
		news := state != n.enrol
		n.enrol = state
		n.mu.Unlock()
		if news {
			n.log.Info("provider", "state", state)
		}
		if state != registered {
			next = fundsEvery
		}
		if p, err = chain.Provider(ctx); err != nil {
			return fundsEvery, err
		}
	}
	errs := []error{n.announceOffer(ctx, p)}
	raw, err := n.chain.Get(ctx, ledger.ReputationKey(n.id.Address()))
	var r ledger.Reputation
	if err == nil && raw != nil {
		err = crowd.Decode(raw, &r)
	}
	if err == nil && p != nil && r.Missed >= n.params.MaxMissed {
		_, err = chain.Send(ctx, &ledger.Awake{})
	}
	return next, errors.Join(append(errs, err)...)
}

// claimsClosed looks at a job for which this provider could have claimed a place. If others did, and it did not, it may have
// missed a draw: then it looks soon what the chain says of it, so that it is awake again as soon as it is able to work.
func (n *Node) claimsClosed(j *ledger.Job) {
	mine := func(d ledger.Drawn) bool { return d.Node == n.id }
	if j.State <= ledger.Claiming || j.Owner == n.id || !n.provides() || slices.ContainsFunc(j.Drawn, mine) {
		return
	}
	select {
	case n.dozed <- struct{}{}:
	default: // it will look
	}
}

// registered is the state of an offer that is on chain.
const registered = "registered"

// register brings the chain's record p of this provider in line with the configuration, and says how far that is.
func (n *Node) register(ctx context.Context, p *ledger.Provider) (string, error) {
	want := n.cfg.Offer
	m := &ledger.Register{VRF: n.cfg.Key.VRF().Public(), Offer: want.Offer}
	m.Offer.Memory = mostMemory()
	stake := max(want.Stake, n.params.MinStake)
	n.mu.Lock()
	left := n.left
	n.mu.Unlock()
	switch p := cmp.Or(p, &ledger.Provider{}); {
	case p.Tombstoned:
		return "not registered: this identity was caught cheating; a new one is a new folder", nil
	case p.Leaving != 0:
		return "leaving: the stake is still bound", nil
	case left:
		return "left", nil
	case p.Stake >= stake && p.VRF == m.VRF && p.Offer.Price == want.Price && p.Offer.Country == want.Country && p.Offer.Owners == want.Owners && p.Offer.Memory == m.Offer.Memory && slices.Equal(p.Offer.Tags, want.Tags):
		return registered, nil
	case p.Stake < stake:
		m.Stake = stake - p.Stake
	}
	fee, err := n.fee(m)
	if err != nil {
		return "", err
	}
	var acc ledger.Account
	raw, err := n.chain.Get(ctx, ledger.AccountKey(n.id.Address()))
	if err == nil && raw != nil {
		err = crowd.Decode(raw, &acc)
	}
	if err != nil {
		return "", err
	}
	if need := m.Stake + fee + claimFunds; acc.Balance < need {
		return fmt.Sprintf("waiting for funds: send %s credits to %s; a stake of %s, the fee and %s for claims are needed, the account holds %s",
			need-acc.Balance, n.id.Address(), m.Stake, claimFunds, acc.Balance), nil
	}
	in, err := n.wallet.Send(ctx, m)
	if err == nil && in.Refusal != nil {
		err = in.Refusal // of a person's wish: hearsay will do, it is tried again
	}
	if err != nil {
		return "", err
	}
	return registered, nil
}

// fee is what m costs this node.
func (n *Node) fee(m ledger.Message) (crowd.Credits, error) {
	tx, err := ledger.Open(n.chainID, ledger.Sign(n.cfg.Key, n.chainID, 0, m))
	if err != nil {
		return 0, err
	}
	return n.params.Fee(tx), nil
}
