package scenario

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Wage is one task under an audit whose lot has fallen and whose openings are on chain: what
// the ledger's compare, judge, settle and makeWhole need to know of it.
type Wage struct {
	Spec   *crowd.JobSpec
	Params *ledger.Params
	Right  crowd.Gas     // of an honest run
	Duties crowd.Credits // that the owner burned with its post

	Prices []crowd.Price   // of the executor, and of its auditor if the lot chose it
	Stakes []crowd.Credits // of the same, whole
	Said   []Value         // what they came to
	Gas    []crowd.Gas     // and the gas that they claim for it
	Voters int             // authorities that vote for the right verdict
}

// Judge plays the task to its end, with a court that finds the truth. As Deal.Judge does for
// batches it does without a ledger, and TestWage holds it against the real one, credit by credit.
func (d *Wage) Judge() Dealt {
	n := len(d.Said)
	out := Dealt{Settled: true, Caught: make([]bool, n), Change: make([]int64, n)}
	differ := n > 1 && (d.Said[0] != d.Said[1] || d.Gas[0] != d.Gas[1])
	gas, pot, honest := d.Gas[0], crowd.Credits(0), n
	if differ {
		gas, out.Courts = d.Right, 1
		for i := range d.Said {
			if d.Said[i] != Right || d.Gas[i] != d.Right {
				lost := d.Stakes[i].PPM(d.Params.SlashPPM)
				out.Caught[i], out.Change[i] = true, -int64(lost)
				pot += lost
				honest--
			}
		}
	}
	spent := crowd.Credits(0)
	for i := range d.Said {
		if out.Caught[i] {
			continue
		}
		cost := d.Params.Pay(d.Prices[i], gas)
		burn := cost.PPM(d.Params.BurnPPM)
		out.Change[i] += int64(cost - burn)
		out.Burned += int64(burn)
		spent += cost
	}
	if court := d.Spec.Filters.MaxPrice.Cost(gas); differ && pot == 0 { // caught elsewhere before: the escrow pays the court
		out.Court = int64(court/crowd.Credits(d.Voters)) * int64(d.Voters)
	}
	out.Owner = -int64(spent) - out.Court
	if pot == 0 {
		return out
	}
	bounty := pot.PPM(d.Params.BountyPPM)
	give := func(to *int64, amount crowd.Credits) {
		amount = min(amount, pot)
		pot -= amount
		*to += int64(amount)
	}
	give(&out.Owner, spent+d.Duties)
	for range d.Voters {
		give(&out.Court, d.Spec.Filters.MaxPrice.Cost(gas))
	}
	for i := range d.Said {
		if !out.Caught[i] {
			give(&out.Change[i], bounty/crowd.Credits(honest))
		}
	}
	give(&out.Burned, pot)
	return out
}

// WagerConfig says how somebody cheats whose tasks are audited. The zero value of each number has a default.
type WagerConfig struct {
	Jobs  int     `json:"jobs"`  // tasks that it executes; 100,000
	Rate  float64 `json:"rate"`  // share of those that it makes up; 1
	Clean int     `json:"clean"` // tasks in a row that it does honestly before that, in each of its lives: a patient one; 0
	Fresh bool    `json:"fresh"` // it comes back as a newcomer when it is caught, and begins as one; else its record is always beyond doubt
	Ring  float64 `json:"ring"`  // share of all nodes that audit as its friends; 0
	Pool  int     `json:"pool"`  // drawn who may audit; 31
	Least float64 `json:"least"` // it lies only where at least that share of those is its friends; 0: always
	Reuse int     `json:"reuse"` // tasks that it claims at a time, by one stake; 1
	Stake float64 `json:"stake"` // credits; the least with which one task is audited at the floor
	Cost  float64 `json:"cost"`  // of running gas, as a share of its price; 0.5
	Seed  uint64  `json:"seed"`
}

// WithDefaults is c with its zeros filled in.
func (c WagerConfig) WithDefaults() WagerConfig {
	number(&c.Jobs, 100_000)
	number(&c.Rate, 1)
	number(&c.Pool, 31)
	number(&c.Reuse, 1)
	number(&c.Cost, 0.5)
	number(&c.Seed, 1)
	return c
}

// Validate reports everything that is wrong with c at once.
func (c WagerConfig) Validate() error {
	c = c.WithDefaults()
	var errs []error
	if !(c.Rate > 0 && c.Rate <= 1) || !(c.Ring >= 0 && c.Ring <= 1) || !(c.Cost >= 0 && c.Cost <= 1) || !(c.Least >= 0 && c.Least <= 1) || !(c.Stake >= 0 && c.Stake <= 1e9) {
		errs = append(errs, fmt.Errorf("rate %v, ring %v, least %v, cost %v: want shares from 0 to 1; stake %v: credits up to 1e9", c.Rate, c.Ring, c.Least, c.Cost, c.Stake))
	}
	if c.Stake > 0 && c.Stake < 1.000001 {
		errs = append(errs, fmt.Errorf("a stake of %v credits: it is never seated for a task of 1 credit", c.Stake))
	}
	if c.Jobs < 1 || c.Jobs > 1e9 || c.Clean < 0 || c.Pool < 2 || c.Pool > 31 || c.Reuse < 1 || c.Reuse > 1000 {
		errs = append(errs, fmt.Errorf("%d jobs, %d clean, %d who may audit, %d at a time: want 1 to 1e9, 0 or more, 2 to 31, 1 to 1000", c.Jobs, c.Clean, c.Pool, c.Reuse))
	}
	return errors.Join(errs...)
}

// Wager is what cheating brought: the least allowed stake, the lot of the real ledger. Money is in credits.
type Wager struct {
	Config WagerConfig `json:"config"`

	Tasks   int     `json:"tasks"`
	Audits  Share   `json:"audits"`  // of the tasks, those that were run again
	Lies    int     `json:"lies"`    // tasks made up
	Caught  Share   `json:"caught"`  // of those, the ones that cost the stake
	Passed  Share   `json:"passed"`  // and the ones that were settled: never as checked, but where a friend audited
	Escape  float64 `json:"escape"`  // stated chance to pass: mean of 1-a·(1-ring) over the lies, a the rate of each
	Profit  float64 `json:"profit"`  // of a lie, mean: fees paid, slashed stakes taken off
	Error   float64 `json:"error"`   // standard error of Profit
	Honest  float64 `json:"honest"`  // of an honest run of the same task
	Stake   float64 `json:"stake"`   // that answers for one task
	Pay     float64 `json:"pay"`     // that a lie claims for one
	FloorAt float64 `json:"floorAt"` // share of the lies that were told at the floor of 5 %
}

// wagerGas is the gas of an honest run, of a limit that what is made up claims whole.
const wagerGas = 8e8

// PlayWager plays c.Jobs tasks of one cheater, rounds of Reuse at a time.
func PlayWager(c WagerConfig) (Wager, error) {
	if err := c.Validate(); err != nil {
		return Wager{}, err
	}
	c = c.WithDefaults()
	params, rng := ledger.MainParams(), rand.New(rand.NewPCG(c.Seed, 0x7761676572))
	spec := crowd.JobSpec{
		Task:    crowd.Task{Program: "program", Limits: crowd.Limits{Gas: 1e9, Memory: 64 << 20, Output: 1 << 20, Wall: crowd.MaxWall}},
		Plan:    crowd.Plan{Method: crowd.PlanAudit, Rate: crowd.AuditFloor, Replacements: 1},
		Filters: crowd.Filters{MaxPrice: crowd.ReferencePrice}, Budget: ^crowd.Credits(0),
	}
	stake := params.StakeToAudit(&spec)
	if c.Stake > 0 {
		stake = crowd.Credits(c.Stake * 1e6)
	}
	pay := params.Pay(spec.Filters.MaxPrice, spec.Limits().Gas)
	run := params.Pay(spec.Filters.MaxPrice, wagerGas)
	cost := int64(float64(run) * c.Cost)
	out := Wager{Config: c, Stake: float64(stake) / 1e6, Pay: float64(pay) / 1e6}
	out.Honest = float64(int64(run-run.PPM(params.BurnPPM))-cost) / 1e6

	var record ledger.Reputation
	clean := c.Clean
	born := func() {
		if record, clean = (ledger.Reputation{}), c.Clean; !c.Fresh {
			record = ledger.Reputation{Done: 1000, Passed: 1000e12}
		}
	}
	born()
	var sum, squares, escape float64
	audits, caught, passed, floor := 0, 0, 0, 0
	for out.Tasks < c.Jobs {
		free := stake
		type task struct {
			audit ledger.Audit
			lies  bool
			ours  int // of the pool
		}
		var round []task
		for range min(c.Reuse, c.Jobs-out.Tasks) {
			if free < ledger.AuditStake(pay, 1e6) {
				break // somebody else is seated
			}
			rate := max(spec.Plan.Rate, record.RecordRate(&params.Reputation, 0))
			t := task{audit: ledger.Audit{Stake: min(free, ledger.AuditStake(pay, rate))}}
			t.audit.Rate = max(rate, ledger.AuditRate(pay, t.audit.Stake))
			free -= t.audit.Stake
			for range c.Pool {
				if rng.Float64() < c.Ring {
					t.ours++
				}
			}
			if clean > 0 {
				clean--
			} else {
				t.lies = float64(t.ours) >= c.Least*float64(c.Pool) && rng.Float64() < c.Rate
			}
			round = append(round, t)
		}
		lost := false // the stake can be taken once; the lots of a round fall together
		for i := range round {
			t := &round[i]
			out.Tasks++
			var job crowd.JobID
			for k := range 8 {
				job[k] = byte(rng.Uint32())
			}
			t.audit.Beacon = crowd.Hash{1}
			chosen := t.audit.Chosen(job)
			friend := rng.IntN(c.Pool) < t.ours
			w := Wage{Spec: &spec, Params: &params, Right: wagerGas, Voters: 4,
				Prices: []crowd.Price{crowd.ReferencePrice}, Stakes: []crowd.Credits{stake}, Said: []Value{Right}, Gas: []crowd.Gas{wagerGas}}
			if t.lies {
				w.Said[0], w.Gas[0] = 1, spec.Task.Limits.Gas
			}
			if lost {
				w.Stakes[0] = 0
			}
			if chosen {
				audits++
				w.Prices, w.Stakes = append(w.Prices, crowd.ReferencePrice), append(w.Stakes, params.MinStake)
				if said, gas := Right, crowd.Gas(wagerGas); t.lies && friend {
					w.Said, w.Gas = append(w.Said, 1), append(w.Gas, spec.Task.Limits.Gas)
				} else {
					w.Said, w.Gas = append(w.Said, said), append(w.Gas, gas)
				}
			}
			d := w.Judge()
			switch {
			case d.Caught[0]:
				lost = true
			case chosen:
				record.Done++
				record.Passed += 1e12 // as if each counted in full
			}
			if !t.lies {
				continue
			}
			out.Lies++
			profit := float64(d.Change[0])
			if chosen && friend { // and what its friend got for nothing
				profit += float64(d.Change[1])
			}
			sum, squares = sum+profit, squares+profit*profit
			escape += 1 - float64(t.audit.Rate)/1e6*(1-float64(t.ours)/float64(c.Pool))
			if t.audit.Rate == crowd.AuditFloor {
				floor++
			}
			if d.Caught[0] {
				caught++
			} else {
				passed++
			}
		}
		if lost {
			born()
		}
	}
	out.Audits, out.Caught, out.Passed = share(audits, out.Tasks), share(caught, out.Lies), share(passed, out.Lies)
	if n := float64(out.Lies); n > 0 {
		out.Escape, out.Profit, out.FloorAt = escape/n, sum/n/1e6, float64(floor)/n
		out.Error = math.Sqrt(max(squares/n-(sum/n)*(sum/n), 0)/n) / 1e6
	}
	return out, nil
}
