package verify

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Header is what the authorities signed about a block.
type Header struct {
	Chain  string
	Height crowd.Height
	Root   crowd.Hash // of the state that this block builds on
}

// Trust is what the checker knows without the receipt.
type Trust struct {
	Chain  string    // the one chain whose authorities are believed
	Result crowd.CID // of the result at hand; "" when there is none to compare
	Leaves []byte    // of the batch at hand, one after another; nil when there are none to compare
	// Header checks the authorities' signatures. Set once; required.
	Header func(g *ledger.Genesis, evidence []byte) (Header, error)
}

// Finding is one thing that was checked.
type Finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Check verifies a receipt offline and names each thing that it looked at. It
// goes on after a failure where the rest still means something. The receipt is
// good only when every finding is.
func Check(data []byte, trust Trust) (findings []Finding, good bool) {
	good = true
	note := func(name, detail string, err error) bool {
		if err != nil {
			detail, good = err.Error(), false
		}
		findings = append(findings, Finding{Name: name, OK: err == nil, Detail: detail})
		return err == nil
	}
	r, err := Decode(data)
	if !note("form", fmt.Sprintf("%d bytes as written by the node", len(data)), err) {
		return findings, false
	}
	var g ledger.Genesis
	err = crowd.Decode(r.Evidence.Genesis, &g)
	if err == nil && g.ChainID() != trust.Chain {
		err = fmt.Errorf("the receipt is of chain %s; you trust %s", g.ChainID(), trust.Chain)
	}
	if !note("chain", fmt.Sprintf("%s, authorities: %d", trust.Chain, len(g.Authorities)), err) {
		return findings, false
	}
	h, err := trust.Header(&g, r.Evidence.Header)
	if err == nil && h.Chain != trust.Chain {
		err = fmt.Errorf("the header is of chain %q", h.Chain)
	}
	headerOK := note("header", fmt.Sprintf("block %d, signed by the authorities", h.Height), err)

	var j ledger.Job
	if !note("record", "the job's record is well formed", crowd.Decode(r.Evidence.Record, &j)) {
		return findings, false
	}
	err = errors.New("not checked: the header is not to be trusted")
	if headerOK {
		err = ledger.VerifyProof(h.Root, ledger.JobKey(j.ID), r.Evidence.Record, r.Evidence.Proof)
	}
	note("state proof", fmt.Sprintf("the record is in the state %s", h.Root), err)
	if !note("job", "the ID is the hash of owner, nonce and specification", checkID(&j)) {
		return findings, false // what follows believes the bounds of the specification
	}
	order := "places went by priority"
	if j.Spec.Plan.Method == crowd.PlanAudit {
		order = "nobody has a place who is not among them"
	}
	drawOK := note("draw", fmt.Sprintf("%d VRF proofs under the beacon of block %d; %s%s", len(j.Drawn), j.DrawAt, order, caveat(&j)), checkDraw(&g.Params, &j))
	if j.Spec.Plan.Method == crowd.PlanAudit || j.Audit != nil {
		lot, err := "", errors.New("not checked: the draw is not to be trusted")
		if drawOK {
			lot, err = checkAudit(&g.Params, &j)
		}
		note("audit", lot, err)
	}
	n, err := checkCommitments(&j)
	note("commitments", fmt.Sprintf("%d openings fit what was committed", n), err)
	by, err := checkVerdict(&g, &j)
	note("verdict", by, err)
	odds, err := checkChance(&g.Params, &j)
	note("chance", odds, err)
	note("payments", fmt.Sprintf("%d payments account for the escrow and slashed stakes to the last micro-credit", len(j.Payments)), checkPayments(&g.Params, &j))
	if trust.Result != "" {
		err = nil
		if j.Verdict == nil {
			err = errors.New("the job has no verdict")
		} else if j.Verdict.Outcome.Result != trust.Result {
			err = fmt.Errorf("the result at hand is %s, the verdict says %s", trust.Result, j.Verdict.Outcome.Result)
		}
		note("result", "the result at hand is the one of the verdict", err)
	}
	if trust.Leaves != nil {
		note("leaves", "the leaves at hand are those under the root, and every answer that stands is one of them", checkLeaves(&j, trust.Leaves))
	}
	err = nil
	if normal(r.Summary) != normal(summarize(trust.Chain, &j)) {
		err = errors.New("does not say what the evidence says")
	}
	note("summary", "says what the evidence says", err)
	return findings, good
}

// caveat warns whom an owner could deceive: a plan's probability assumes a share of all weight, and who may name the
// providers may name its own.
func caveat(j *ledger.Job) string {
	if j.Open >= Million {
		return ""
	}
	return fmt.Sprintf("; the owner's demands left %.3g %% of the weight in the draw: the plan's probability is about an owner who wants to be told the truth", float64(j.Open)/(Million/100))
}

// checkChance recomputes from the record with what chance a wrong result would have come to this verdict: the plan's
// formula, with as many replacements as there were.
func checkChance(p *ledger.Params, j *ledger.Job) (string, error) {
	c, ok := Passed(j, defaultColluding)
	switch {
	case j.Verdict == nil:
		return "there is no verdict that could be wrong", nil
	case !ok:
		return "the authorities computed it: it is wrong only if more than 2/3 of them are", nil
	case j.Replaced() > int(j.Spec.Plan.Replacements):
		return "", fmt.Errorf("%d nodes held a place, %d of them as replacements; the plan allows %d", len(j.Places), j.Replaced(), j.Spec.Plan.Replacements)
	}
	what := "a wrong result passes"
	if j.Verdict.By == ledger.BySample {
		what = "an executor that gets a tenth of its items wrong, whoever its verifiers are, escapes"
	}
	s := fmt.Sprintf("%d nodes held a place: %s with a chance of %s if %.3g %% of the weight in the draw, the job's author included, act as one", len(j.Places), what, c, 100*DefaultColluding)
	came := Claimed(p, j)
	left := uint64(j.Open) * came / Million
	if left < Million {
		c, _ = Passed(j, uint32(min(Million, Million*uint64(defaultColluding)/max(left, 1))))
		s += fmt.Sprintf("; %s if they are %.3g %% of all weight, and the job's demands left all of them in the draw", c, 100*DefaultColluding)
	}
	if came < Million {
		s += fmt.Sprintf(", for which %.3g %% of the winning tickets were claimed", float64(came)/(Million/100))
	}
	return s, nil
}

// fewClaims is the share of the winning tickets, in ppm, below which a receipt reckons with them alone: who keeps others from
// claiming, as by a flood of jobs, has a larger share of the places than of the draw. More than this many is chance,
// unless every ticket wins.
const fewClaims = 800_000

// Claimed is the share of the winning tickets that were claimed, in ppm; 1e6 if they are as many as can be expected, or if
// better ones filled the list.
func Claimed(p *ledger.Params, j *ledger.Job) uint64 {
	won, want := p.Came(j)
	if want == 0 || won >= want {
		return Million
	}
	if share := won * Million / want; share < fewClaims || j.Tickets <= p.CommitteeUnits {
		return share
	}
	return Million
}

// Passed is the chance that a wrong result came to j's verdict, of a batch that an executor which got a tenth of its items wrong did, when
// a ring with that share of the weight in the draw, j's author included, had as many honest nodes replaced as were replaced in j.
// False: the verdict does not rest on the draw.
func Passed(j *ledger.Job, colludingPPM uint32) (Chance, bool) {
	if j.Verdict == nil {
		return 0, false
	}
	p := j.Spec.Plan
	p.Replacements = uint32(j.Replaced())
	switch j.Verdict.By {
	case ledger.BySample:
		return sampleUndetected(j.Spec.Items, &p, colludingPPM), true
	case ledger.ByAgreement:
		if p.Method == crowd.PlanAudit { // chosen: two executors and whoever took the place of one
			return Steered(colludingPPM, 2, p.Replacements, 0), true
		}
		return Accepted(&p, colludingPPM), true
	case ledger.ByAudit:
		return Steered(colludingPPM, 1, p.Replacements, 0), true
	}
	return 0, false
}

// normal is s by its own encoding, in which nil and empty lists are one.
func normal(s Summary) string { return string((&Receipt{Summary: s}).Encode()) }

func checkID(j *ledger.Job) error {
	if !j.State.Ended() {
		return fmt.Errorf("the job has not ended: it is %s", j.State)
	}
	if id := j.Spec.ID(j.Owner, j.Nonce); id != j.ID {
		return fmt.Errorf("owner, nonce and specification hash to %s, the record says %s", id, j.ID)
	}
	return j.Spec.Validate()
}

func checkDraw(p *ledger.Params, j *ledger.Job) error {
	for i := range j.Drawn {
		d := &j.Drawn[i]
		if d.Tickets > p.MaxTickets { // or a forged record buys a hash with each
			return fmt.Errorf("%s has %d tickets, at most %d", d.Node.Short(), d.Tickets, p.MaxTickets)
		}
		if err := d.Check(j.ID, j.Beacon, j.Tickets, p.CommitteeUnits); err != nil {
			return err
		}
		if i > 0 && bytes.Compare(j.Drawn[i-1].Priority[:], d.Priority[:]) > 0 {
			return fmt.Errorf("%s stands before a better draw", j.Drawn[i-1].Node.Short())
		}
	}
	if n := j.Replaced(); n > int(j.Spec.Plan.Replacements) {
		return fmt.Errorf("%d nodes held a place: %d places were given anew, and the plan's probability reckons with %d", len(j.Places), n, j.Spec.Plan.Replacements)
	}
	next := 0
	for i := range j.Places {
		if j.Places[i].Price > j.Spec.Filters.MaxPrice {
			return fmt.Errorf("%s asks more than the job allows", j.Places[i].Node.Short())
		}
	}
	if j.Spec.Plan.Method == crowd.PlanAudit { // by priority among those with stake free, which the record does not show
		for i := range j.Places {
			if !slices.ContainsFunc(j.Drawn, func(d ledger.Drawn) bool { return d.Node == j.Places[i].Node }) || j.Place(j.Places[i].Node) != &j.Places[i] {
				return fmt.Errorf("%s was not drawn, or holds two places", j.Places[i].Node.Short())
			}
		}
		return nil
	}
	for i := range j.Places {
		for next < len(j.Drawn) && j.Drawn[next].Node != j.Places[i].Node {
			next++ // passed over: left or was caught between draw and seat
		}
		if next == len(j.Drawn) {
			return fmt.Errorf("%s holds a place out of turn", j.Places[i].Node.Short())
		}
		next++
	}
	return nil
}

func checkCommitments(j *ledger.Job) (n int, err error) {
	for i := range j.Places {
		p := &j.Places[i]
		if p.State == ledger.Revealed && p.Opening == nil {
			return n, fmt.Errorf("%s revealed nothing", p.Node.Short())
		}
		if p.Opening == nil {
			continue
		}
		if ledger.Commitment(j.ID, p.Node, *p.Opening) != p.Commitment {
			return n, fmt.Errorf("%s revealed something else than it committed to", p.Node.Short())
		}
		n++
	}
	return n, nil
}

// checkVerdict recomputes why the outcome stands.
func checkVerdict(g *ledger.Genesis, j *ledger.Job) (how string, err error) {
	v := j.Verdict
	if v == nil {
		if j.State == ledger.Settled {
			return "", errors.New("settled without a verdict")
		}
		return fmt.Sprintf("none: the job %s", j.State), nil
	}
	if v.By == ledger.ByCourt && !j.Spec.Compare.Strict() {
		return checkWithin(g, j)
	}
	same, other := 0, 0
	for i := range j.Places {
		p := &j.Places[i]
		if p.Opening == nil || p.Verifier {
			continue
		}
		switch {
		case p.Opening.Outcome == v.Outcome && p.State == ledger.Revealed:
			same++
		case p.State == ledger.Revealed:
			return "", fmt.Errorf("%s revealed another outcome and stands uncontested", p.Node.Short())
		default:
			other++
		}
	}
	switch v.By {
	case ledger.BySample:
		if same != 1 || other > 0 {
			return "", fmt.Errorf("%d executors revealed the outcome and %d another, one is wanted", same, other)
		}
		return checkSample(g, j)
	case ledger.ByAudit:
		if a := j.Audit; a == nil || a.Chosen(j.ID) || same != 1 || other > 0 || j.Place(a.Executor) == nil || j.Place(a.Executor).State != ledger.Revealed {
			return "", fmt.Errorf("%d executors revealed the outcome and %d another: that is not one whom an audit's lot passed over", same, other)
		}
		return "by audit: one executor's outcome, which nobody has checked, as the lot did not choose it", nil
	case ledger.ByAgreement:
		want, _ := ledger.Seats(&j.Spec.Plan)
		if same < max(want, 2) || other > 0 {
			return "", fmt.Errorf("%d executors agree and %d do not: the plan wants %d", same, other, max(want, 2))
		}
		return fmt.Sprintf("%d drawn executors revealed the same outcome", same), nil
	case ledger.ByCourt:
		voted := map[crowd.NodeID]bool{}
		for i := range j.Ballots {
			b := &j.Ballots[i]
			for _, a := range g.Authorities {
				if a.ID == b.Authority && b.Question == ledger.WhatOutcome && b.Outcome == v.Outcome {
					voted[a.ID] = true
				}
			}
		}
		if 3*len(voted) <= 2*len(g.Authorities) {
			return "", fmt.Errorf("%d of %d authorities voted for the outcome, more than 2/3 must", len(voted), len(g.Authorities))
		}
		return fmt.Sprintf("%d of %d authorities re-executed the task to this outcome; %d executors had it right", len(voted), len(g.Authorities), same), nil
	}
	return "", fmt.Errorf("reached by %q, which is no way", v.By)
}

// checkPayments looks that the escrow went out whole and that pay was for gas used.
func checkPayments(p *ledger.Params, j *ledger.Job) error {
	var paid, handed, slashed crowd.Credits
	for _, pay := range j.Payments {
		from := &paid
		if pay.Slashed {
			from = &handed
		}
		var ok bool
		if *from, ok = from.Add(pay.Amount); !ok {
			return errors.New("more was paid than there is")
		}
	}
	for i := range j.Places {
		var ok bool
		if slashed, ok = slashed.Add(j.Places[i].Slashed); !ok {
			return errors.New("more was slashed than there is")
		}
	}
	if escrow := p.EscrowFor(&j.Spec); j.Locked != escrow {
		return fmt.Errorf("%s were locked, the specification asks for %s", j.Locked, escrow)
	} else if paid != escrow || handed != slashed || j.Escrow != 0 || j.Slashed != 0 {
		return fmt.Errorf("%s paid of an escrow of %s, %s of slashed stakes of %s", paid, escrow, handed, slashed)
	}
	if j.State != ledger.Settled || j.Verdict == nil {
		return nil
	}
	worth := map[crowd.Address]crowd.Credits{} // what the work of each node that stands is still to be paid with, at most
	for i := range j.Places {
		pl := &j.Places[i]
		if pl.State != ledger.Revealed {
			continue
		}
		worth[pl.Node.Address()] = p.Pay(pl.Price, gasOf(j, pl))
	}
	for _, pay := range j.Payments {
		if pay.Why != ledger.WhyWork {
			continue
		}
		left, ok := worth[pay.To].Sub(pay.Amount)
		if !ok {
			return fmt.Errorf("pay of %s to %s for work, of which no more than %s is due", pay.Amount, pay.To, worth[pay.To])
		}
		worth[pay.To] = left
	}
	return nil
}
