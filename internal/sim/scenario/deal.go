package scenario

import (
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Value is what somebody says an item came to. Who says the same has the same Value.
type Value uint8

// Right is the value of an honest run.
const Right Value = 0

// Deal is a batch in which all that was committed to is open: what the ledger's
// report, judgeItem, settle and makeWhole need to know of it.
type Deal struct {
	Spec   *crowd.JobSpec
	Params *ledger.Params
	Gas    crowd.Gas     // of all items, as the executor says
	Duties crowd.Credits // that the owner burned with its post

	Prices []crowd.Price   // of the places, the executor first
	Stakes []crowd.Credits // of the same
	Leaf   func(item uint32) Value
	Sample [][]uint32 // of each verifier
	Answer func(verifier, k int) Value

	Voters   int // authorities that vote for a right verdict
	Reporter int // place that reports every conflict; -1: the owner
}

// Dealt is what came of a Deal.
type Dealt struct {
	Settled bool
	Caught  []bool  // places
	Courts  int     // disputes that the court looked at
	Change  []int64 // credits of each place, its stake included
	Owner   int64   // of the owner, the escrow's return included
	Court   int64   // of the authorities together
	Burned  int64
}

// Judge plays a batch from its Delivering on with everybody honest who looks: every
// conflict is reported, verifier by verifier, and the court finds the truth. It does without
// a ledger, so that a hundred thousand batches take seconds; TestDeal holds it against the real one, credit by credit.
func (d *Deal) Judge() Dealt {
	out := Dealt{Caught: make([]bool, len(d.Prices)), Change: make([]int64, len(d.Prices))}
	item, reported := uint32(0), false
	for v := 0; v < len(d.Sample) && !out.Caught[0]; v++ {
		if out.Caught[1+v] {
			continue
		}
		k := 0
		for k < len(d.Sample[v]) && d.Leaf(d.Sample[v][k]) == d.Answer(v, k) {
			k++
		}
		if k == len(d.Sample[v]) {
			continue
		}
		item, reported = d.Sample[v][k], true
		out.Courts++
		out.Caught[0] = d.Leaf(item) != Right
		for o := range d.Sample {
			if k, ok := slices.BinarySearch(d.Sample[o], item); ok && d.Answer(o, k) != Right {
				out.Caught[1+o] = true
			}
		}
	}
	out.Settled = !out.Caught[0] && slices.Contains(out.Caught[1:], false)

	pot := crowd.Credits(0)
	for i, caught := range out.Caught {
		if caught {
			lost := d.Stakes[i].PPM(d.Params.SlashPPM)
			pot += lost
			out.Change[i] -= int64(lost)
		}
	}
	spent := crowd.Credits(0)
	unchecked := !out.Settled && !out.Caught[0] // no verifier is left: the executor was right about what the court looked at, and is paid
	for i := range d.Prices {
		if (out.Settled || unchecked && i == 0) && !out.Caught[i] {
			cost := d.Params.Pay(d.Prices[i], d.gas(i))
			burn := cost.PPM(d.Params.BurnPPM)
			out.Change[i] += int64(cost - burn)
			out.Burned += int64(burn)
			spent += cost
		}
	}
	out.Owner = -int64(spent)
	if pot == 0 || !reported {
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
		give(&out.Court, d.Spec.Filters.MaxPrice.Cost(d.Spec.Task.Limits.Gas))
	}
	if d.Reporter < 0 {
		give(&out.Owner, bounty)
	} else {
		give(&out.Change[d.Reporter], bounty)
	}
	for i := range d.Prices {
		if !out.Settled && !unchecked && !out.Caught[i] {
			give(&out.Change[i], d.Params.Pay(d.Prices[i], d.gas(i)))
		}
	}
	give(&out.Burned, pot)
	return out
}

// gas that place i is paid for.
func (d *Deal) gas(i int) crowd.Gas {
	if i == 0 {
		return d.Gas
	}
	return ledger.CheckGas(d.Spec, d.Gas)
}
