package ledger

import (
	"math/bits"
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/identity"
)

// This file is the plan "sample". One executor binds itself to the outcomes of all
// items. Each verifier re-runs items that its own lot picks, which nobody else knows, and
// binds itself to its answers before the executor has revealed anything. So neither can
// follow the other: a verifier that does not work has nothing to copy. A verifier opens only
// when it has the executor's leaves, so that an executor cannot first look whether its lie
// was sampled and then lose them. Once all is open,
// the owner (or anybody) compares, and a difference is proven to the chain by both their
// own commitments; the court re-executes the one item.

// Where the outputs go on to others (crowd.Shuffle), nobody fetches them but the verifiers: such a one opens only when it
// holds them too, and they are what the leaves say. So one honest verifier is enough
// for outputs that are right, and all of them hold what they have checked.

// SampleInput is what a verifier's VRF is computed of to pick its items.
func SampleInput(job crowd.JobID, node crowd.NodeID, r crowd.Hash) []byte {
	h := crowd.Keccak256([]byte("crowd/sample\x00"), job[:], node[:], r[:])
	return h[:]
}

// Sampled are the items that a verifier with that lot re-runs, ascending.
func Sampled(spec *crowd.JobSpec, lot identity.VRFOutput) []uint32 {
	return batch.Sample(lot[:], spec.Items, spec.Plan.Checks)
}

// outputRate is how many bytes of outputs a verifier is expected to fetch and check in a second. A slower one is late, which
// costs it nothing as long as it opens before an authority does.
const outputRate = 2 << 20

// RevealTime is how long revealing may take, in milliseconds: longer by the outputs that a verifier has to fetch
// before, but not by more than what a court gets.
func (p *Params) RevealTime(spec *crowd.JobSpec) int64 {
	if spec.Shuffle.Parts == 0 {
		return p.RevealWindow
	}
	return p.RevealWindow + min(int64(spec.Limits().Output*1000/outputRate), p.CourtWindow)
}

// CourtTime is how long the court may take about spec, in milliseconds: what it is for re-executes the task, or one item of a
// batch, which has as long as an executor has.
func (p *Params) CourtTime(spec *crowd.JobSpec) int64 {
	return p.CourtWindow + spec.Task.Limits.Wall.Milliseconds()
}

// InspectTime is how long the authorities may take to fetch a result, in milliseconds: longer by what it may hold.
func (p *Params) InspectTime(spec *crowd.JobSpec) int64 {
	return p.CourtWindow + int64(min(spec.Limits().Output, crowd.MaxOutput)*1000/outputRate)
}

// Root of a batch's outcome.
func Root(spec *crowd.JobSpec, o *crowd.Outcome) batch.Root {
	return batch.Root{Items: spec.Items, Top: batch.Node{Hash: o.Root, Gas: o.Gas}}
}

// Dispute is a proven conflict about one item.
type Dispute struct {
	_        struct{} `cbor:",toarray"`
	Item     uint32
	Executor crowd.Hash // the leaf that it committed to
	Verifier crowd.NodeID
	Answer   crowd.Hash // the leaf that the verifier committed to
	Reporter crowd.NodeID
	Right    crowd.Hash // the court's; zero: not known yet, or of a tolerant job, where it has none
}

// CheckGas is one verifier's share of total: what its items cost on average, rounded up.
func CheckGas(spec *crowd.JobSpec, total crowd.Gas) crowd.Gas {
	n := uint64(max(spec.Items, 1))
	hi, lo := bits.Mul64(uint64(total), min(uint64(spec.Plan.Checks), n))
	q, rest := bits.Div64(hi, lo, n) // hi < n, as the factor is at most n
	if rest > 0 {
		q++
	}
	return crowd.Gas(q)
}

// gas that a place is paid for when all items together used total.
func (p *Place) gas(spec *crowd.JobSpec, total crowd.Gas) crowd.Gas {
	if p.Verifier {
		return CheckGas(spec, total)
	}
	return total
}

// Lot is the output of a verifier's sample, or an error when what it opened proves none.
func (j *Job) Lot(node crowd.NodeID, o *Opening) (identity.VRFOutput, error) {
	for i := range j.Drawn {
		if d := &j.Drawn[i]; d.Node == node {
			if len(o.Sample) != len(identity.VRFProof{}) {
				return identity.VRFOutput{}, refuse(BadProof, "a sample proof of %d bytes", len(o.Sample))
			}
			return identity.VerifyVRF(d.VRF, SampleInput(j.ID, node, j.Beacon), identity.VRFProof(o.Sample))
		}
	}
	return identity.VRFOutput{}, refuse(NotFound, "%s was not drawn", node.Short())
}

// impossible says what no honest node commits to, or "".
func (w *work) impossible(j *Job, p *Place, o *Opening) string {
	out, isBatch := &o.Outcome, j.Spec.Items > 0
	switch {
	case p.Verifier:
		if *out != (crowd.Outcome{}) || uint32(len(o.Answers)) != min(j.Spec.Plan.Checks, j.Spec.Items) {
			return "revealed no answers of a verifier"
		}
		if (o.Outputs != "") == j.Spec.Compare.Strict() || len(o.Outputs) > crowd.MaxCID {
			return "revealed no outputs of its answers, or some where none belong"
		}
		if _, err := j.Lot(p.Node, o); err != nil {
			return "revealed a false proof of its sample"
		}
		return ""
	case out.Gas > j.Spec.Limits().Gas, out.Result == "", len(out.Result) > crowd.MaxCID,
		len(o.Sample) > 0 || len(o.Answers) > 0 || o.Outputs != "",
		isBatch != (out.Root != crowd.Hash{}), isBatch != (out.Leaves != ""), len(out.Leaves) > crowd.MaxCID,
		isBatch && (out.Status != crowd.Exited || out.ExitCode != 0):
		return "revealed an impossible outcome"
	}
	return ""
}

// Executor is the place of an executor whose outcome stands, or nil.
func (j *Job) Executor() *Place {
	for i := range j.Places {
		if p := &j.Places[i]; !p.Verifier && p.State == Revealed {
			return p
		}
	}
	return nil
}

// claimedGas is what the executor said that all items used, right or wrong.
func (j *Job) claimedGas() crowd.Gas {
	for i := range j.Places {
		if p := &j.Places[i]; !p.Verifier && p.Opening != nil {
			return p.Opening.Outcome.Gas
		}
	}
	return 0
}

// checked goes on once nothing is left to open. A verifier that is convicted counts as one
// that would have passed anything, which the plan's probability allows for; one that is
// merely gone does not.
func (w *work) checked(j *Job) {
	_, want := Seats(&j.Spec.Plan)
	_, open := j.split(Revealed)
	_, fraud := j.split(Fraud)
	e := j.Executor()
	switch {
	case e == nil:
		w.end(j, Failed, "no executor's outcome is left")
	case open == 0 || open+fraud < want:
		w.end(j, Failed, "the answers of %d of %d verifiers are open", open, want)
	default:
		w.stand(j, "%d verifiers have answered for %d items each", open, min(j.Spec.Plan.Checks, j.Spec.Items))
	}
}

// stand lets the executor's word stand, unless a verifier that is not convicted has shown a conflict with it.
func (w *work) stand(j *Job, why string, a ...any) {
	for i := range j.Places {
		if p := &j.Places[i]; p.Conflict != nil && p.State == Revealed {
			var d *Dispute
			d, p.Conflict = p.Conflict, nil
			w.dispute(j, d)
			return
		}
	}
	w.decide(j, Verdict{Outcome: j.Executor().Opening.Outcome, By: BySample}, why, a...)
}

// dispute asks the court about one item.
func (w *work) dispute(j *Job, d *Dispute) {
	j.Dispute = d
	w.move(j, Court, w.in(w.params.CourtTime(&j.Spec)), "executor and verifier %s differ about item %d", d.Verifier.Short(), d.Item)
}

func (w *work) report(from crowd.NodeID, m *Report) *Refusal {
	j, r := w.jobIn(m.Job, Delivering, Inspecting)
	if r != nil {
		return r
	}
	d, r := j.conflict(m.Verifier, &m.Proof)
	if r != nil {
		return r
	}
	if r := w.mayReport(&j, from, d.Item); r != nil {
		return r
	}
	d.Reporter = from
	w.dispute(&j, d)
	return nil
}

// conflict is what proof, of an item under the executor's root, shows to differ from the answer of a verifier.
func (j *Job) conflict(verifier crowd.NodeID, proof *batch.Proof) (*Dispute, *Refusal) {
	e, v := j.Executor(), j.Place(verifier)
	if j.Spec.Plan.Method != crowd.PlanSample || e == nil || v == nil || !v.Verifier || v.State != Revealed {
		return nil, refuse(NotFound, "no executor and verifier of job %s that could differ are open", j.ID.Short())
	}
	lot, err := j.Lot(v.Node, v.Opening)
	if err != nil {
		return nil, refuse(BadProof, "%v", err)
	}
	k, sampled := slices.BinarySearch(Sampled(&j.Spec, lot), proof.Index)
	if !sampled {
		return nil, refuse(BadProof, "item %d is not in the sample of %s", proof.Index, v.Node.Short())
	}
	if err := proof.Check(Root(&j.Spec, &e.Opening.Outcome)); err != nil {
		return nil, refuse(BadProof, "%v", err)
	}
	claimed, answer := proof.Leaf.Hash(), v.Opening.Answers[k]
	if claimed == answer {
		return nil, refuse(BadProof, "executor and verifier agree on item %d", proof.Index)
	}
	return &Dispute{Item: proof.Index, Executor: claimed, Verifier: v.Node, Answer: answer}, nil
}

// unchecked ends a batch whose executor was right about the item that the court looked at, and of whose verifiers none is left. Its result is not
// accepted, as nobody stands for the other items. The executor is paid all the same: or an owner would have a verifier of its own fall over.
func (w *work) unchecked(j *Job) {
	e := j.Executor()
	w.payWork(j, e, w.params.Pay(e.Price, e.Opening.Outcome.Gas))
	j.Verdict = nil
	w.end(j, Failed, "no verifier is left after the court looked at item %d", j.Dispute.Item)
}

// judgeItem convicts everybody who committed to another outcome of the item than the court's.
func (w *work) judgeItem(j *Job, right crowd.Hash, votes int) {
	d := j.Dispute
	d.Right = right
	if d.Executor != right {
		w.fraud(j, j.Executor(), "item %d is not what the court computed", d.Item)
	}
	for i := range j.Places {
		p := &j.Places[i]
		if !p.Verifier || p.State != Revealed {
			continue
		}
		lot, err := j.Lot(p.Node, p.Opening)
		if err != nil {
			panic("bug: a revealed sample does not verify: " + err.Error())
		}
		for k, item := range Sampled(&j.Spec, lot) {
			if item == d.Item && p.Opening.Answers[k] != right {
				w.fraud(j, p, "its answer for item %d is not what the court computed", d.Item)
			}
		}
	}
	if j.Executor() == nil {
		j.Verdict = nil
		w.end(j, Failed, "the executor lied about item %d, as %d authorities found", d.Item, votes)
		return
	}
	if _, open := j.split(Revealed); open == 0 {
		w.unchecked(j)
		return
	}
	w.stand(j, "the executor was right about item %d, as %d authorities found", d.Item, votes)
}
