package verify

import (
	"errors"
	"fmt"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Audit is the lot that decided whether one executor's work was done again.
type Audit struct {
	Executor crowd.NodeID  `json:"executor"`
	RatePPM  uint32        `json:"rate_ppm"` // of its record and free stake, at least the plan's
	Stake    crowd.Credits `json:"stake"`    // micro-credits of it that answered for this job alone
	Height   crowd.Height  `json:"height"`   // of the block whose beacon decided
	Beacon   crowd.Hash    `json:"beacon"`
	LotPPM   uint32        `json:"lot_ppm"` // below the rate: chosen
	Chosen   bool          `json:"chosen"`  // its work was done again
}

// summarizeAudit is nil where no lot was drawn.
func summarizeAudit(j *ledger.Job) *Audit {
	a := j.Audit
	if a == nil || a.Beacon == (crowd.Hash{}) {
		return nil
	}
	return &Audit{Executor: a.Executor, RatePPM: a.Rate, Stake: a.Stake, Height: a.At, Beacon: a.Beacon,
		LotPPM: ledger.AuditLot(j.ID, a.Executor, a.Beacon), Chosen: a.Chosen(j.ID)}
}

// AuditStakes is what lying risks where an audit is drawn: what is made up may claim all the gas
// there is, and of the stake only what answers for this job counts.
func AuditStakes(p *ledger.Params, spec *crowd.JobSpec, stake crowd.Credits) Stakes {
	pay := p.Pay(spec.Filters.MaxPrice, spec.Limits().Gas)
	return Stakes{Gain: pay, Reward: pay, Stake: stake.PPM(p.SlashPPM)}
}

// AuditColluding is the share of those who may audit that AuditStakes.Loses is to reckon with: more
// than a plan's, as who is drawn is known before the lie.
const AuditColluding = Million / 2

// checkAudit recomputes the lot of an audit, and that lying would have lost. The draw must have been checked.
func checkAudit(p *ledger.Params, j *ledger.Job) (how string, err error) {
	a := j.Audit
	if (j.Spec.Plan.Method == crowd.PlanAudit) != (a != nil) && len(j.Places) > 0 {
		return "", errors.New("the plan and the lot do not belong together")
	}
	if a == nil || a.Beacon == (crowd.Hash{}) {
		if j.Verdict != nil {
			return "", errors.New("there is a verdict, and no lot was drawn")
		}
		return "none was drawn: nobody was bound to an outcome", nil
	}
	at := firstAuditor(j) - 1
	if at < 0 || j.Places[at].Node != a.Executor {
		return "", fmt.Errorf("the lot is about %s, who is not the executor", a.Executor.Short())
	}
	if a.Rate < max(j.Spec.Plan.Rate, crowd.AuditFloor) || a.Rate > Million {
		return "", fmt.Errorf("a rate of %d ppm, the plan and the floor want %d", a.Rate, max(j.Spec.Plan.Rate, crowd.AuditFloor))
	}
	caught := floorAnd(FromPPM(a.Rate), FromPPM(AuditColluding).Not())
	if a.Rate < Million && !AuditStakes(p, &j.Spec, a.Stake).Loses(caught) {
		return "", fmt.Errorf("lying pays: a rate of %d ppm with %s of stake", a.Rate, a.Stake)
	}
	running, fell := 0, false
	for _, s := range j.History {
		if s.State == ledger.Running && s.Height < a.At && s.Height > j.DrawAt {
			running++ // first the executor got its place, then it committed
		}
		fell = fell || running > 1 && s.Height == a.At && (s.State == ledger.Running || s.State == ledger.Revealing)
	}
	if !fell {
		return "", fmt.Errorf("the lot is of block %d, which did not come after the commitment", a.At)
	}
	lot, chosen := ledger.AuditLot(j.ID, a.Executor, a.Beacon), a.Chosen(j.ID)
	if !chosen && len(j.Places) > at+1 {
		return "", errors.New("somebody did work again that the lot did not choose")
	}
	if len(j.Places) > at+2 {
		return "", fmt.Errorf("%d nodes audited, where one is drawn and nobody takes its place", len(j.Places)-at-1)
	}
	seated := *j // as it was when the lot fell
	seated.Places = j.Places[:at+1]
	turn := seated.Auditors()
	for i, next := at+1, 0; i < len(j.Places); i++ {
		for next < len(turn) && turn[next].Node != j.Places[i].Node {
			next++ // passed over: left or was caught since
		}
		if next == len(turn) {
			return "", fmt.Errorf("%s audits out of turn", j.Places[i].Node.Short())
		}
		next++
	}
	how = "not chosen: nobody has done the work again"
	if chosen {
		how = "chosen: the work was done again"
	}
	return fmt.Sprintf("lot %d by the beacon of block %d against a rate of %d: %s; with %s at stake lying loses", lot, a.At, a.Rate, how, a.Stake), nil
}

// firstAuditor is the index of the first place that was given by an audit's lot, or the number of places.
func firstAuditor(j *ledger.Job) int {
	if a := j.Audit; a != nil && a.Beacon != (crowd.Hash{}) {
		for i := range j.Places {
			if j.Places[i].Node == a.Executor {
				return i + 1
			}
		}
		return 0
	}
	return len(j.Places)
}
