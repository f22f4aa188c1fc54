package ledger

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// This file is the plan "audit". One executor binds itself to an outcome. Only then the beacon
// of a later block, which neither it nor the owner can foresee, decides whether the task is run
// again, and by whom: of all who were drawn and have no place, not the next in line, or an
// executor would see beforehand whether that one is its friend. Who is chosen cannot take
// anything back, and the auditor binds itself before it can see what it is compared with; from
// there on the two are a pair. Who is not chosen is paid for work that nobody has looked at, and
// the verdict says so. What makes that safe is the stake, which is why the rate of audits follows
// from how much of it answers for this job alone: DESIGN section 8.

// auditPool is how many must have been drawn: the executor, and two so that it does not know its auditor.
const auditPool = 3

// honestAuditors is the share of those who may audit, in ppm, that the stake counts on: a half,
// so that it is enough too where more of a ring than its share were drawn, which it sees before it lies.
const honestAuditors = 500_000

// Audit is what was decided of one executor's work.
type Audit struct {
	_        struct{} `cbor:",toarray"`
	Executor crowd.NodeID
	Rate     uint32        // probability that its work is done again, ppm: fixed when it got its place
	Stake    crowd.Credits // of its stake, what answers for this job and no other
	At       crowd.Height  // block whose beacon decides; 0: it has not committed
	Beacon   crowd.Hash    // R of that block; zero: it is not there yet
}

// AuditLot is the number below 1e6 that the beacon gives an executor's work: below the rate, it is done again.
func AuditLot(job crowd.JobID, executor crowd.NodeID, r crowd.Hash) uint32 {
	h := crowd.Keccak256([]byte("crowd/audit\x00"), job[:], executor[:], r[:])
	lot, _ := bits.Mul64(binary.BigEndian.Uint64(h[:]), 1e6)
	return uint32(lot)
}

// Chosen reports whether the lot fell on the executor. Before the lot is known it has fallen on everybody.
func (a *Audit) Chosen(job crowd.JobID) bool {
	return a.Beacon == (crowd.Hash{}) || AuditLot(job, a.Executor, a.Beacon) < a.Rate
}

// Turn is when d's turn to audit comes, the lower the sooner: its winning tickets draw anew.
func (d *Drawn) Turn(job crowd.JobID, r crowd.Hash) crowd.Hash {
	h := crowd.Keccak256([]byte("crowd/auditor\x00"), job[:], d.Node[:], r[:])
	_, best := Won(identity.VRFOutput(append(h[:], h[:]...)), d.Won, 1, 1)
	return best
}

// Auditors are those of the drawn who may do the work again, in their order: all without a place.
func (j *Job) Auditors() []Drawn {
	type turn struct {
		at crowd.Hash
		d  Drawn
	}
	var turns []turn
	for _, d := range j.Drawn {
		if j.Place(d.Node) == nil {
			turns = append(turns, turn{d.Turn(j.ID, j.Audit.Beacon), d})
		}
	}
	slices.SortFunc(turns, func(a, b turn) int {
		if c := bytes.Compare(a.at[:], b.at[:]); c != 0 {
			return c
		}
		return bytes.Compare(a.d.Node[:], b.d.Node[:])
	})
	out := make([]Drawn, len(turns))
	for i := range turns {
		out[i] = turns[i].d
	}
	return out
}

// wanted is how many executors' outcomes must be equal.
func (j *Job) wanted() int {
	if a := j.Audit; a != nil {
		if a.Chosen(j.ID) {
			return pairSize
		}
		return 1
	}
	e, _ := Seats(&j.Spec.Plan)
	return e
}

// AuditRate is the least probability of an audit, in ppm, with which making a result up loses:
// p·(R+S) > gain (DESIGN section 8) with p = rate·honestAuditors, where R and the gain both are
// the most that the job can pay, for what is made up may claim all the gas there is. 1e6: less is never enough.
func AuditRate(pay, stake crowd.Credits) uint32 {
	atRisk, ok := pay.Add(stake)
	switch {
	case pay == 0:
		return crowd.AuditFloor
	case !ok:
		return 1e6
	}
	hi, lo := bits.Mul64(uint64(pay), 1e12/honestAuditors)
	rate, _ := bits.Div64(hi, lo, uint64(atRisk))
	return uint32(min(max(rate+1, crowd.AuditFloor), 1e6))
}

// AuditStake is the least stake with which that rate of audits makes cheating lose: the inverse
// of AuditRate. rate must not be 0.
func AuditStake(pay crowd.Credits, rate uint32) crowd.Credits {
	hi, lo := bits.Mul64(uint64(pay), 1e12/honestAuditors)
	if hi >= uint64(rate) {
		return ^crowd.Credits(0)
	}
	atRisk, _ := bits.Div64(hi, lo, uint64(rate))
	return crowd.Credits(max(atRisk+1, uint64(pay))) - pay
}

// RecordRate is how often a node's own record asks for an audit, in ppm: as BOINC's adaptive
// replication one in good results, but never less than the doubt that its honesty leaves, nor
// than the floor, or a cheater with a long record would be free; always, once it was caught.
func (r *Reputation) RecordRate(p *ReputationParams, now crowd.Time) uint32 {
	if r.Caught > 0 {
		return 1e6
	}
	return max(crowd.AuditFloor, 1e6-r.Honesty(p, now), uint32(1e6/(min(r.Done, 1e6)+1)))
}

// StakeToAudit is the stake that lets a node with a perfect record execute spec at the rate that
// its plan states. Who has less free is audited more often.
func (p Params) StakeToAudit(spec *crowd.JobSpec) crowd.Credits {
	return p.auditStake(p.Pay(spec.Filters.MaxPrice, spec.Limits().Gas), spec.Plan.Rate)
}

// auditStake is AuditStake where a cheater loses SlashPPM of what it staked.
func (p Params) auditStake(pay crowd.Credits, rate uint32) crowd.Credits {
	hi, lo := bits.Mul64(uint64(AuditStake(pay, rate)), 1e6)
	if hi >= uint64(p.SlashPPM) {
		return ^crowd.Credits(0)
	}
	q, rest := bits.Div64(hi, lo, uint64(p.SlashPPM))
	if rest > 0 {
		q++
	}
	return crowd.Credits(q)
}

// bindStake gives p the work of spec: some of its free stake from now on answers for that alone,
// or one stake would be lost once for a hundred lies at a time. The less it is, the more frequent are audits.
func (w *work) bindStake(spec *crowd.JobSpec, p *Provider) *Audit {
	r, _ := load[Reputation](w.get, string(ReputationKey(p.ID.Address())))
	pay := w.params.Pay(spec.Filters.MaxPrice, spec.Limits().Gas)
	rate := max(spec.Plan.Rate, r.RecordRate(&w.params.Reputation, w.now()))
	a := &Audit{Executor: p.ID, Stake: min(p.Free(), w.params.auditStake(pay, rate))}
	a.Rate = max(rate, AuditRate(pay, a.Stake.PPM(w.params.SlashPPM)))
	p.Bound += a.Stake
	return a
}

// seatAudited gives a place to the first of the drawn with enough stake free for lying to lose where half
// of the auditors are honest and each lie is looked at; where nobody has that, to the first, who is always
// audited: that is a pair. Once the lot has fallen it seats an auditor.
func (w *work) seatAudited(j *Job) bool {
	if j.Audit != nil && j.Audit.At != 0 {
		return w.seatAuditor(j)
	}
	least := w.params.auditStake(w.params.Pay(j.Spec.Filters.MaxPrice, j.Spec.Limits().Gas), 1e6)
	for _, want := range []crowd.Credits{least, 0} {
		for i := range j.Drawn {
			d := &j.Drawn[i]
			if p, _ := w.provider(d.Node); p.Free() >= want && j.Place(d.Node) == nil && w.place(j, d, false) {
				return true
			}
		}
	}
	return false
}

// awaitLot names the block whose beacon decides: as late after the commitment as a draw is after its post.
func (w *work) awaitLot(j *Job) {
	a := j.Audit
	a.At = w.height() + drawDelay
	w.put(drawKey(a.At, j.ID), uint8(1))
	w.move(j, Running, 0, "bound to its outcome; the beacon of block %d decides whether it is done again, with a probability of %s", a.At, percent(a.Rate))
}

// auditLot decides by this block's beacon.
func (w *work) auditLot(j *Job) {
	a := j.Audit
	a.Beacon = w.beacon.R
	if p, _ := w.provider(a.Executor); p.Tombstoned { // caught elsewhere since: its stake answers for nothing any more
		a.Rate = 1e6
	}
	switch {
	case !a.Chosen(j.ID):
		w.move(j, Revealing, w.in(w.params.RevealTime(&j.Spec)), "%s", j.why())
	case w.seatAuditor(j):
		w.move(j, Running, j.earliest(), "%s: %s does the work again", j.why(), j.Places[len(j.Places)-1].Node.Short())
	default:
		w.move(j, Revealing, w.in(w.params.RevealTime(&j.Spec)), "%s, and nobody is left to do the work again", j.why())
	}
}

// why says how the lot fell.
func (j *Job) why() string {
	how := "not chosen"
	if j.Audit.Chosen(j.ID) {
		how = "chosen"
	}
	return fmt.Sprintf("%s for an audit by the beacon of block %d, at a rate of %s", how, j.Audit.At, percent(j.Audit.Rate))
}

// seatAuditor gives a place to the next whose turn it is, if there is one.
func (w *work) seatAuditor(j *Job) bool {
	for _, d := range j.Auditors() {
		if w.place(j, &d, false) {
			return true
		}
	}
	return false
}

// percent is ppm for people: "5 %", "7.25 %".
func percent(ppm uint32) string {
	s := fmt.Sprintf("%d.%04d", ppm/10_000, ppm%10_000)
	return strings.TrimRight(strings.TrimRight(s, "0"), ".") + " %"
}
