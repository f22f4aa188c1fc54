// Package ledger decides who owns what and what became of every job: accounts,
// stakes, the draw, commit and reveal, the court, settlement. It is one pure
// function, Apply(state, block); consensus, sockets, files and clocks are not here.
package ledger

import (
	"encoding/base32"
	"errors"
	"fmt"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// Params are the rules of one network, fixed in its genesis. Times are milliseconds of block time.
type Params struct {
	_ struct{} `cbor:",toarray"`

	TxFee    crowd.Credits // burned for each account transaction
	SizeFee  crowd.Credits // burned besides for each KiB of it
	KeepFee  crowd.Credits // burned besides for each KiB and day of Retention, where a record keeps what it says
	MinStake crowd.Credits // of a provider that may be drawn

	Lookback       crowd.Height  // blocks a registration must be old before a draw, DESIGN section 3 (64)
	StakeUnit      crowd.Credits // stake that gives one ticket in a draw, with a perfect record
	MaxTickets     uint32        // cap on the tickets of one node
	CommitteeUnits uint64        // expected winning tickets of a draw
	MaxClaims      uint32        // best claims kept for a job
	MaxMissed      uint32        // certain draws missed in a row before a provider counts as asleep

	ClaimWindow    int64 // to claim a drawn place
	DispatchGrace  int64 // on top of the job's own wall limit, to fetch, run and commit
	RevealWindow   int64 // to reveal once all have committed; see RevealTime
	CourtWindow    int64 // for the authorities to open, re-execute or inspect; see CourtTime and InspectTime
	DeliveryWindow int64 // for the owner to accept or complain
	Unbonding      int64 // between leaving and withdrawing a stake
	Retention      int64 // an ended job stays in the state so long

	BurnPPM   uint32 // of executors' pay, so that wash trading costs: DESIGN section 7.8 (2 %)
	SlashPPM  uint32 // of the stake of a proven cheater
	BountyPPM uint32 // of what was slashed, to the executor whose right answer exposed it

	CancelLeast int64 // ms that a place is paid for at least if its running job is cancelled: Params.CancelPay

	StartGas   crowd.Gas     // each place is paid for so much besides what its run used: to fetch, lay out and start it
	InspectFee crowd.Credits // paid to the authorities that fetched a result for its owner, for each GiB begun of what the job may write

	Reputation ReputationParams
	Puzzles    PuzzleParams // of the overlay
	Rules      uint32       // crowd.RulesVersion of the builds that may execute here
}

// MainParams are the figures for a network of strangers.
func MainParams() Params {
	const second = 1000
	return Params{
		TxFee: 100, SizeFee: 100, KeepFee: 20, MinStake: 100 * crowd.Credit,
		Lookback: 64, StakeUnit: crowd.Credit, MaxTickets: 1000, CommitteeUnits: 60, MaxClaims: 32, MaxMissed: 3,
		ClaimWindow: 5 * second, DispatchGrace: 60 * second, RevealWindow: 30 * second, CourtWindow: 3600 * second,
		DeliveryWindow: 600 * second, Unbonding: 7 * 86400 * second, Retention: 30 * 86400 * second,
		BurnPPM: 20_000, SlashPPM: 1_000_000, BountyPPM: 100_000, CancelLeast: 3 * second,
		StartGas: 10_000_000, InspectFee: 50_000,
		Reputation: mainReputation(), Puzzles: mainPuzzles(), Rules: crowd.RulesVersion,
	}
}

// LocalParams are the figures for a network of one user on one machine, which may compile and test besides: it may be slow, and
// none of its nodes is missed for that. Each window ends as soon as all have done their part.
func LocalParams() Params {
	const second = 1000
	p := DevParams()
	p.StakeUnit = p.MinStake // its providers have a large stake each, and tickets cost the time to count them
	p.ClaimWindow = 10 * second
	p.DispatchGrace = 30 * second
	p.RevealWindow = 15 * second
	p.CourtWindow = 120 * second
	p.DeliveryWindow = 30 * second
	p.Retention = 3600 * second // all are on this machine, and read of an end at once or after their next start
	return p
}

// DevParams are MainParams with the least waiting, for tests of nodes that are there at once or not at all.
func DevParams() Params {
	const second = 1000
	p := MainParams()
	p.Lookback = 2
	p.CommitteeUnits = 100_000 // in a small network everybody claims, so that two are always there
	p.ClaimWindow = 1500       // it ends when all have claimed
	p.DispatchGrace = 5 * second
	p.RevealWindow = 2 * second
	p.CourtWindow = 60 * second
	p.DeliveryWindow = 10 * second
	p.Unbonding = 60 * second
	p.Retention = 86400 * second
	p.Puzzles = PuzzleParams{} // its nodes are one user's own, and are to start at once
	return p
}

// Validate reports everything that is wrong with p at once.
func (p Params) Validate() error {
	var errs []error
	if p.BurnPPM > 1e6 || p.SlashPPM > 1e6 || p.BountyPPM > 1e6 {
		errs = append(errs, errors.New("params: a share of more than 1e6 ppm"))
	}
	if p.StartGas > crowd.FullSpeed || p.InspectFee > crowd.Credit {
		errs = append(errs, errors.New("params: a start of more than a second, or an inspection of more than a credit for a GiB"))
	}
	if p.SizeFee > crowd.Credit || p.KeepFee > crowd.Credit {
		errs = append(errs, errors.New("params: a fee of more than a credit for a KiB"))
	}
	if p.StakeUnit == 0 || p.MaxTickets == 0 || p.CommitteeUnits == 0 || p.MaxClaims < pairSize || p.MinStake < p.StakeUnit {
		errs = append(errs, errors.New("params: stake unit, tickets, committee, claims and least stake must allow a draw"))
	}
	if p.ClaimWindow <= 0 || p.DispatchGrace <= 0 || p.RevealWindow <= 0 || p.CourtWindow <= 0 ||
		p.DeliveryWindow <= 0 || p.Unbonding <= 0 || p.Retention <= 0 || p.CancelLeast <= 0 {
		errs = append(errs, errors.New("params: every window must be longer than nothing"))
	}
	errs = append(errs, p.Reputation.validate(), p.Puzzles.validate())
	return errors.Join(errs...)
}

// Authority orders the chain and sits in the court.
type Authority struct {
	_         struct{} `cbor:",toarray"`
	ID        crowd.NodeID
	VRF       identity.VRFPublic // its share of the beacon
	Consensus []byte             // its key in the consensus engine; opaque here
}

// Grant is an account with its credits in the genesis; with an offer and a stake it is a provider.
type Grant struct {
	_       struct{} `cbor:",toarray"`
	ID      crowd.NodeID
	Balance crowd.Credits
	Stake   crowd.Credits      // 0: no provider
	VRF     identity.VRFPublic // of a provider
	Offer   Offer
}

// Genesis is all that a chain starts from.
type Genesis struct {
	_           struct{} `cbor:",toarray"`
	Name        string
	Time        crowd.Time
	Params      Params
	Authorities []Authority
	Grants      []Grant
}

// ChainID names the chain by its whole genesis, so that who knows the ID knows the rules and the authorities.
func (g *Genesis) ChainID() string {
	digest := crowd.Digest("genesis", g)
	return g.Name + "-" + chainText.EncodeToString(digest[:20])
}

// chainText writes 20 bytes, too many for two geneses with one ID, in 32 of the
// 50 characters that CometBFT allows for a chain ID.
var chainText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

const maxName = 16 // bytes of a chain's name

// New is the state at height 0.
func New(g *Genesis) (State, error) {
	if err := g.Params.Validate(); err != nil {
		return State{}, err
	}
	if len(g.Authorities) == 0 {
		return State{}, errors.New("genesis: no authority")
	}
	if len(g.Name) == 0 || len(g.Name) > maxName {
		return State{}, fmt.Errorf("genesis: a name of %d bytes, want 1 to %d", len(g.Name), maxName)
	}
	w := begin(State{}, Block{Time: g.Time})
	w.params = g.Params
	w.put(keyParams, &g.Params)
	w.put(keyAuthorities, &g.Authorities)
	w.beacon = Beacon{R: crowd.Digest("beacon", g)}
	w.put(keyBeacon, &w.beacon)
	w.turn()
	supply := Supply{}
	seen := map[crowd.Address]bool{}
	for i, a := range g.Authorities {
		if err := identity.Valid(a.ID); err != nil {
			return State{}, fmt.Errorf("genesis: authority %d: %w", i, err)
		}
		for _, b := range g.Authorities[:i] {
			if a.ID == b.ID {
				return State{}, fmt.Errorf("genesis: authority %d stands there twice", i)
			}
		}
	}
	for i, gr := range g.Grants {
		if err := identity.Valid(gr.ID); err != nil {
			return State{}, fmt.Errorf("genesis: grant %d: %w", i, err)
		}
		addr := gr.ID.Address()
		if seen[addr] {
			return State{}, fmt.Errorf("genesis: grant %d: %s stands there twice", i, addr)
		}
		seen[addr] = true
		for _, c := range []crowd.Credits{gr.Balance, gr.Stake} {
			sum, ok := supply.Minted.Add(c)
			if !ok || sum > maxSupply {
				return State{}, errors.New("genesis: more credits than the ledger counts")
			}
			supply.Minted = sum
		}
		w.putAccount(addr, Account{Balance: gr.Balance})
		if gr.Stake > 0 {
			if err := gr.Offer.validate(); err != nil {
				return State{}, fmt.Errorf("genesis: grant %d: %w", i, err)
			}
			w.putProvider(Provider{ID: gr.ID, VRF: gr.VRF, Offer: gr.Offer, Stake: gr.Stake})
		}
	}
	w.put(keySupply, &supply)
	return w.seal(), nil
}

// maxSupply leaves room so that no sum of amounts that exist can overflow.
const maxSupply = crowd.Credits(1) << 62
