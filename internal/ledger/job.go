package ledger

import (
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
)

// pairSize is how many executors the plan "pair" runs side by side.
const pairSize = 2

// Seats are the places that a plan gives when the job is dispatched: executors, then verifiers.
func Seats(p *crowd.Plan) (executors, verifiers int) {
	switch p.Method {
	case crowd.PlanSample:
		return 1, int(p.Verifiers)
	case crowd.PlanAudit:
		return 1, 0
	case crowd.PlanCommittee:
		return int(p.Executors), 0
	}
	return pairSize, 0
}

// Needs is how many nodes must be there for a plan: those with a place, and those among whom an audit's lot chooses.
func Needs(p *crowd.Plan) int {
	if p.Method == crowd.PlanAudit {
		return auditPool
	}
	e, v := Seats(p)
	return e + v
}

// runs is how often a plan may have the whole task executed, for pay out of the escrow.
func runs(p *crowd.Plan) int {
	if p.Method == crowd.PlanAudit {
		return pairSize
	}
	e, _ := Seats(p)
	return e
}

// maxWhy bounds a reason given by a node, in bytes.
const maxWhy = 200

// JobState is where a job stands. Append only.
type JobState uint8

const (
	Posted     JobState = iota + 1 // escrow locked, waits for the beacon
	Claiming                       // the lot is known, winners claim
	Running                        // executors work and commit
	Revealing                      // all have committed, they reveal
	Unsealing                      // the authorities open what silent executors committed to
	Court                          // reveals differ or one is alone: the authorities re-execute
	Delivering                     // the outcome is fixed, the owner fetches it
	Inspecting                     // the authorities look whether it can be fetched
	Settled                        // paid
	Cancelled                      // by the owner
	Failed                         // refunded
)

var stateNames = [...]string{"", "posted", "claiming", "running", "revealing", "unsealing", "court", "delivering", "inspecting", "settled", "cancelled", "failed"}

func (s JobState) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// MarshalText gives the state's name at the RPC border.
func (s JobState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Ended reports whether nothing more can happen to the job's money.
func (s JobState) Ended() bool { return s >= Settled }

// PlaceState is where one executor's work stands. Append only.
type PlaceState uint8

const (
	Working   PlaceState = iota + 1
	Committed            // bound to an outcome that nobody sees
	Revealed             // opened, by itself or by an authority
	Dropped              // gave up or missed a deadline
	Fraud                // its outcome is not the verdict, or its seal is no opening
)

var placeNames = [...]string{"", "working", "committed", "revealed", "dropped", "fraud"}

func (s PlaceState) String() string {
	if int(s) < len(placeNames) {
		return placeNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// MarshalText gives the state's name at the RPC border.
func (s PlaceState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Place is one node's part in a job.
type Place struct {
	_          struct{} `cbor:",toarray"`
	Node       crowd.NodeID
	Verifier   bool // it re-runs a secret sample; else it executes
	Price      crowd.Price
	State      PlaceState
	Why        string     // of Dropped and Fraud
	Since      crowd.Time // when it got its place
	Due        crowd.Time // to commit by
	GaveUp     Reason     // of Dropped: 0: it was silent
	Left       crowd.Time // of GaveUp: when
	Blamed     bool       // of Dropped: that is a fault, if the job comes to a verdict all the same
	Commitment crowd.Hash
	Sealed     [][]byte // to each authority; gone once opened
	Opening    *Opening
	Conflict   *Dispute      // of a verifier: shown when it opened, and the court has not looked at it
	Slashed    crowd.Credits // stake lost to Fraud
}

// Step is one entry of a job's history.
type Step struct {
	_      struct{} `cbor:",toarray"`
	State  JobState
	Why    string
	Height crowd.Height
	Time   crowd.Time
}

// Payment is one movement of credits that a job caused.
type Payment struct {
	_       struct{}      `cbor:",toarray"`
	To      crowd.Address // zero: burned
	Amount  crowd.Credits
	Why     string
	Slashed bool // out of a cheater's stake, not the escrow
}

// Verdict is the outcome that a job came to, and how.
type Verdict struct {
	_       struct{} `cbor:",toarray"`
	Outcome crowd.Outcome
	By      string // ByAgreement, ByCourt, BySample or ByAudit
}

// How a verdict came about.
const (
	ByAgreement = "agreement"
	ByCourt     = "court"
	BySample    = "sample"
	ByAudit     = "audit" // one executor's word: the lot did not choose it to be checked
)

// Job is all that the chain knows of a job.
type Job struct {
	_          struct{} `cbor:",toarray"`
	ID         crowd.JobID
	Owner      crowd.NodeID
	Nonce      uint64 // of the post; with Owner and Spec it makes ID
	Spec       crowd.JobSpec
	State      JobState
	Due        crowd.Time    // when the state ends by itself; 0: waits for a beacon
	Duties     crowd.Credits // burned with the post, for what drawn nodes put on chain: Params.DutyFees
	Locked     crowd.Credits // of the owner, at the post: Params.EscrowFor
	Escrow     crowd.Credits // of that, what is still here
	Slashed    crowd.Credits // stakes of cheaters, handed out when the job ends
	DrawAt     crowd.Height  // block whose beacon decides
	Score      uint32        // Consumer.Score of the owner at the post, ppm
	Eligible   uint32        // providers at the post
	Tickets    uint64        // of them together
	Open       uint32        // ppm of all tickets, at the post, that the job's own demands leave in the draw
	IfFavoured uint64        // Tickets, should the beacon favour newcomers
	Favoured   bool          // it does
	Beacon     crowd.Hash    // R of block DrawAt
	Drawn      []Drawn       // by priority; the first get places, the rest are alternates
	Next       uint32        // index in Drawn of the next alternate; of PlanAudit all without a place are alternates
	Places     []Place
	Audit      *Audit // of PlanAudit: of the newest executor
	Ballots    []Ballot
	Dispute    *Dispute  // the newest conflict about an item of a batch
	Cleared    []Cleared // items of a tolerant batch that the court has looked at
	Verdict    *Verdict
	Payments   []Payment
	History    []Step
}

// Place of node, or nil.
func (j *Job) Place(node crowd.NodeID) *Place {
	for i := range j.Places {
		if j.Places[i].Node == node {
			return &j.Places[i]
		}
	}
	return nil
}

// count places in a state.
func (j *Job) count(s PlaceState) int {
	e, v := j.split(s)
	return e + v
}

// split counts places in a state, executors and verifiers apart.
func (j *Job) split(s PlaceState) (executors, verifiers int) {
	for i := range j.Places {
		switch p := &j.Places[i]; {
		case p.State != s:
		case p.Verifier:
			verifiers++
		default:
			executors++
		}
	}
	return executors, verifiers
}

// Bound reports whether an executor is. Before that no verifier seals its answers: of the authorities to whom it does one
// could open them, and tell the executor which items nobody looks at. It commits without seals, so that it is known to be there.
func (j *Job) Bound() bool {
	bound, _ := j.split(Committed)
	return bound > 0
}

// Awaits reports whether something is wanted of p now: its commitment, and the seals of a verifier's once an executor is bound.
func (j *Job) Awaits(p *Place) bool {
	return p.State == Working && (!p.Verifier || p.Commitment == crowd.Hash{} || j.Bound())
}

// earliest deadline among the places that are awaited.
func (j *Job) earliest() (t crowd.Time) {
	for i := range j.Places {
		if p := &j.Places[i]; j.Awaits(p) && (t == 0 || p.Due < t) {
			t = p.Due
		}
	}
	return t
}

// Inspected reports whether the authorities were asked to look at the result: its owner did not accept it, at first or at all.
func (j *Job) Inspected() bool {
	return slices.ContainsFunc(j.History, func(s Step) bool { return s.State == Inspecting })
}

// Spent is what an ended job cost its owner besides the fee of its post: the duties of the drawn nodes, and the escrow less what came back.
func (j *Job) Spent() crowd.Credits {
	cost, owner := j.Locked+j.Duties, j.Owner.Address()
	for _, p := range j.Payments {
		if p.To == owner {
			cost -= min(cost, p.Amount)
		}
	}
	return cost
}

// EscrowFor is what posting spec locks: the most that executors and verifiers can earn, a court that finds nobody at fault as
// often as it may be asked, and an inspection. Every amount is rounded as it is when it is paid.
func (p Params) EscrowFor(spec *crowd.JobSpec) crowd.Credits {
	_, verifiers := Seats(&spec.Plan)
	limit, most := spec.Limits().Gas, spec.Filters.MaxPrice
	sum, ok := p.InspectPay(spec), true
	add := func(times int, c crowd.Credits) {
		for range times {
			if ok {
				sum, ok = sum.Add(c)
			}
		}
	}
	add(runs(&spec.Plan), p.Pay(most, limit))
	add(verifiers, p.Pay(most, CheckGas(spec, limit)))
	times, gas := CourtRuns(spec)
	add(times, most.Cost(gas))
	if !ok {
		return ^crowd.Credits(0)
	}
	return sum
}

// Pay is what a place earns that asks price and used so much gas: that, and the start of its run.
func (p Params) Pay(price crowd.Price, gas crowd.Gas) crowd.Credits {
	if gas += p.StartGas; gas < p.StartGas {
		gas = ^crowd.Gas(0)
	}
	return price.Cost(gas)
}

// InspectPay is what the authorities get together that fetch the result of spec in its owner's place.
func (p Params) InspectPay(spec *crowd.JobSpec) crowd.Credits {
	const gib = 1 << 30
	return p.InspectFee * crowd.Credits((min(spec.Limits().Output, crowd.MaxOutput)+gib-1)/gib)
}

func (w *work) mustJob(id crowd.JobID) Job {
	j, ok := load[Job](w.get, string(JobKey(id)))
	if !ok {
		panic("bug: an index names job " + id.Short() + ", which is not there")
	}
	return j
}

func (w *work) putJob(j *Job) { w.put(string(JobKey(j.ID)), j) }

// jobIn is the job if it stands in one of these states.
func (w *work) jobIn(id crowd.JobID, states ...JobState) (Job, *Refusal) {
	j, ok := load[Job](w.get, string(JobKey(id)))
	if !ok {
		return j, refuse(NotFound, "job %s", id.Short())
	}
	for _, s := range states {
		if j.State == s {
			return j, nil
		}
	}
	if j.State < states[0] {
		return j, refuse(TooEarly, "job %s is %s", id.Short(), j.State)
	}
	return j, refuse(TooLate, "job %s is %s", id.Short(), j.State)
}

// move enters a state, with its deadline and the reason, and stores the job.
func (w *work) move(j *Job, to JobState, due crowd.Time, why string, a ...any) {
	reason := fmt.Sprintf(why, a...)
	j.State = to
	j.History = append(j.History, Step{State: to, Why: reason, Height: w.height(), Time: w.now()})
	w.emit(JobMoved{j.ID, to, reason})
	w.wait(j, due)
}

// wait sets the deadline of the state and stores the job.
func (w *work) wait(j *Job, due crowd.Time) {
	if j.Due != 0 {
		w.delete(dueKey(j.Due, j.ID))
	}
	if j.Due = due; due != 0 {
		w.put(dueKey(due, j.ID), uint8(1))
	}
	w.putJob(j)
}

func (w *work) post(from crowd.NodeID, nonce uint64, m *Post) *Refusal {
	spec := m.Spec
	if err := spec.Validate(); err != nil {
		return refuse(BadSpec, "%v", err)
	}
	if n := len(w.authorities()); spec.Plan.Checks > MaxChecks(n) {
		return refuse(BadSpec, "plan %q: %d checks by each verifier; what it seals to %d authorities fits a transaction with at most %d", spec.Plan.Method, spec.Plan.Checks, n, MaxChecks(n))
	}
	need := w.params.EscrowFor(&spec)
	if need > spec.Budget {
		_, verifiers := Seats(&spec.Plan)
		return refuse(OverBudget, "up to %s for %d executors and %d verifiers at %d micro-credits per mega-gas and %d gas; the budget is %s",
			need, runs(&spec.Plan), verifiers, spec.Filters.MaxPrice, spec.Limits().Gas, spec.Budget)
	}
	if n := Needs(&spec.Plan); n > int(w.params.MaxClaims) {
		return refuse(BadSpec, "the plan needs %d nodes; this network keeps the best %d claims", n, w.params.MaxClaims)
	}
	if r := w.debit(from.Address(), need, "the escrow"); r != nil { // before all providers are looked at, which costs far more
		return r
	}
	j := Job{ID: spec.ID(from, nonce), Owner: from, Nonce: nonce, Spec: spec, Locked: need, Escrow: need, Score: w.score(from), DrawAt: w.height() + drawDelay}
	e := w.eachEligible(&j, func(Provider) {})
	if int(e.Count) < Needs(&spec.Plan) {
		return refuse(NoProvider, "%s", e.Why())
	}
	duties := w.params.DutyFees(&spec, e.Count, len(w.authorities()))
	if r := w.debit(from.Address(), duties, "what the drawn nodes put on chain"); r != nil {
		return r
	}
	w.burn(duties)
	j.Duties = duties
	j.Eligible, j.Tickets, j.IfFavoured, j.Open = e.Count, e.Tickets, e.Favoured, e.open()
	w.put(drawKey(j.DrawAt, j.ID), uint8(1))
	w.move(&j, Posted, 0, "escrow of %s locked", need)
	return nil
}

func (w *work) commit(from crowd.NodeID, m *Commit) *Refusal {
	j, r := w.jobIn(m.Job, Running)
	if r != nil {
		return r
	}
	p := j.Place(from)
	if p == nil {
		return refuse(NotYours, "%s has no place in job %s", from.Short(), j.ID.Short())
	}
	if p.State != Working {
		return refuse(Duplicate, "the place is %s", p.State)
	}
	switch {
	case m.Commitment == crowd.Hash{} || p.Commitment != crowd.Hash{} && p.Commitment != m.Commitment:
		return refuse(BadTx, "another commitment than the place's, or none")
	case p.Verifier && len(m.Sealed) == 0:
		if p.Commitment != (crowd.Hash{}) {
			return refuse(Duplicate, "the place has its commitment")
		}
		p.Commitment = m.Commitment
		w.progress(&j)
		return nil
	case p.Verifier && !j.Bound():
		return refuse(TooEarly, "no executor of job %s is bound yet: until then a verifier commits without seals", j.ID.Short())
	}
	if len(m.Sealed) != len(w.authorities()) {
		return refuse(BadTx, "%d sealed openings for %d authorities", len(m.Sealed), len(w.authorities()))
	}
	most := maxSealed
	if p.Verifier {
		most += len(crowd.Hash{}) * int(j.Spec.Plan.Checks) * 2 // of CBOR's overhead less than that
	}
	for _, s := range m.Sealed {
		if len(s) > most {
			return refuse(BadTx, "a sealed opening of %d bytes, at most %d", len(s), most)
		}
	}
	p.State, p.Commitment, p.Sealed = Committed, m.Commitment, m.Sealed
	for i := range j.Places {
		switch v := &j.Places[i]; {
		case p.Verifier || !v.Verifier || v.State != Working:
		case v.Commitment != crowd.Hash{}: // only its seals are wanted
			v.Due = w.in(w.params.DispatchGrace / 2)
		default:
			v.Due = max(v.Due, w.in(w.params.DispatchGrace))
		}
	}
	w.progress(&j)
	return nil
}

// maxSealed bounds a sealed opening, in bytes.
const maxSealed = 1024

// MaxChecks is the most checks of a verifier whose commitment, sealed to so many authorities, fits a transaction.
func MaxChecks(authorities int) uint32 {
	const around, opening, answer = 1024, 512, 34 // bytes: of the transaction; of a sealed opening; of an answer in it
	return uint32(min(crowd.MaxChecks, max((MaxTx-around)/max(authorities, 1)-opening, 0)/answer))
}

// progress goes on when nobody works any more, else waits for who does.
func (w *work) progress(j *Job) {
	executors, verifiers := j.split(Committed)
	if working, _ := j.split(Working); working+executors == 0 {
		w.nobody(j)
		return
	}
	if j.count(Working) > 0 {
		w.wait(j, j.earliest())
		return
	}
	if _, want := Seats(&j.Spec.Plan); verifiers < want {
		w.unverified(j, verifiers, want)
		return
	}
	if a := j.Audit; a != nil && a.At == 0 {
		w.awaitLot(j)
		return
	}
	w.move(j, Revealing, w.in(w.params.RevealTime(&j.Spec)), "%d committed", j.count(Committed))
}

func (w *work) reveal(from crowd.NodeID, m *Reveal) *Refusal {
	j, r := w.jobIn(m.Job, Revealing, Unsealing)
	if r != nil {
		return r
	}
	return w.openPlace(&j, from, m.Opening, m.Conflict)
}

// unseal is reveal by an authority, in place of a silent executor.
func (w *work) unseal(from crowd.NodeID, m *Unseal) *Refusal {
	if _, ok := w.authority(from); !ok {
		return refuse(NotYours, "%s is no authority", from.Short())
	}
	j, r := w.jobIn(m.Job, Unsealing)
	if r != nil {
		return r
	}
	return w.openPlace(&j, m.Executor, m.Opening, m.Conflict)
}

func (w *work) openPlace(j *Job, node crowd.NodeID, o Opening, conflict *batch.Proof) *Refusal {
	p := j.Place(node)
	switch {
	case p == nil:
		return refuse(NotYours, "%s has no place in job %s", node.Short(), j.ID.Short())
	case p.State == Revealed:
		return refuse(Duplicate, "%s has revealed", node.Short())
	case p.State != Committed:
		return refuse(TooLate, "the place is %s", p.State)
	case Commitment(j.ID, node, o) != p.Commitment:
		return refuse(BadProof, "the opening does not fit the commitment")
	}
	if why := w.impossible(j, p, &o); why != "" {
		return w.convict(j, p, why)
	}
	p.State, p.Opening, p.Sealed = Revealed, &o, nil
	if conflict != nil {
		d, r := j.conflict(node, conflict)
		if r == nil {
			r = w.mayReport(j, node, d.Item)
		}
		if r != nil {
			return r
		}
		d.Reporter, p.Conflict = node, d
	}
	return w.compare(j)
}

// convict takes a place from a cheater and goes on without it.
func (w *work) convict(j *Job, p *Place, why string) *Refusal {
	w.fraud(j, p, "%s", why)
	return w.compare(j)
}

// compare decides once nothing is left to open: agreement, or the court.
func (w *work) compare(j *Job) *Refusal {
	if j.count(Committed) > 0 {
		w.putJob(j)
		return nil
	}
	if j.Spec.Plan.Method == crowd.PlanSample {
		w.checked(j)
		return nil
	}
	var first *Opening
	agree := true
	for i := range j.Places {
		if p := &j.Places[i]; p.State == Revealed {
			if first == nil {
				first = p.Opening
			}
			agree = agree && first.Outcome == p.Opening.Outcome
		}
	}
	n, want := j.count(Revealed), j.wanted()
	switch {
	case n == 0:
		w.end(j, Failed, "no opening is left")
	case !agree:
		w.move(j, Court, w.in(w.params.CourtTime(&j.Spec)), "the executors' outcomes differ")
	case n < want:
		w.move(j, Court, w.in(w.params.CourtTime(&j.Spec)), "%d executors of the %d that the plan wants prove nothing", n, want)
	case want == 1:
		w.decide(j, Verdict{Outcome: first.Outcome, By: ByAudit}, "nobody has run it again: %s", j.why())
	default:
		w.decide(j, Verdict{Outcome: first.Outcome, By: ByAgreement}, "%d executors agree", n)
	}
	return nil
}

// decide fixes the outcome and waits for the owner to fetch it.
func (w *work) decide(j *Job, v Verdict, why string, a ...any) {
	j.Verdict = &v
	w.move(j, Delivering, w.in(w.params.DeliveryWindow), why, a...)
}

func (w *work) accept(from crowd.NodeID, m *Accept) *Refusal {
	j, r := w.jobIn(m.Job, Delivering, Inspecting)
	if r == nil {
		if r = ownedBy(&j, from); r == nil {
			w.settle(&j, "the owner has the result")
		}
	}
	return r
}

func (w *work) complain(from crowd.NodeID, m *Complain) *Refusal {
	j, r := w.jobIn(m.Job, Delivering)
	if r == nil {
		if r = ownedBy(&j, from); r == nil {
			w.undelivered(&j, whyComplained)
		}
	}
	return r
}

// undelivered asks the authorities about a result that its owner did not accept. If nobody has run the task again, they do: that its
// result can be fetched says nothing about it, and an executor could wait for an owner that is away.
func (w *work) undelivered(j *Job, why string) {
	if j.Verdict.By == ByAudit {
		j.Verdict = nil
		w.move(j, Court, w.in(w.params.CourtTime(&j.Spec)), "%s, and nobody has run the task again: the authorities do", why)
		return
	}
	w.move(j, Inspecting, w.in(w.params.InspectTime(&j.Spec)), "%s", why)
}

// whyComplained is why a job is Inspecting if its owner wanted that.
const whyComplained = "the owner cannot get the result"

func ownedBy(j *Job, id crowd.NodeID) *Refusal {
	if j.Owner != id {
		return refuse(NotYours, "job %s belongs to %s", j.ID.Short(), j.Owner.Short())
	}
	return nil
}

func (w *work) cancel(from crowd.NodeID, m *Cancel) *Refusal {
	j, r := w.jobIn(m.Job, Posted, Claiming, Running)
	if r != nil {
		return r
	}
	if r := ownedBy(&j, from); r != nil {
		return r
	}
	if j.State == Claiming { // the lot is known, and nobody works yet: an owner could look for a better one for nothing
		return refuse(TooEarly, "the places of job %s are being drawn; it can be cancelled when they are", j.ID.Short())
	}
	if j.Bound() {
		return refuse(TooLate, "an executor has committed to the result of job %s; it will be delivered", j.ID.Short())
	}
	if j.State == Posted {
		w.delete(drawKey(j.DrawAt, j.ID))
	}
	for i := range j.Places {
		if p := &j.Places[i]; p.State == Working {
			w.pay(&j, p.Node.Address(), w.params.timePay(&j, p, w.now()), "work on a job that its owner cancelled")
		}
	}
	if j.State == Running {
		w.reputation(from.Address(), func(r *Reputation) { r.Consumer.Cancelled++ })
	}
	w.end(&j, Cancelled, "by its owner")
	return nil
}

// expire is what happens when a deadline falls.
func (w *work) expire(id crowd.JobID) {
	j := w.mustJob(id)
	due := j.Due
	j.Due = 0 // its index entry is gone already
	switch j.State {
	case Claiming:
		w.closeClaims(&j)
	case Running:
		for i := range len(j.Places) { // drop appends
			if p := &j.Places[i]; j.Awaits(p) && p.Due <= due {
				w.drop(&j, p, "did not commit in time")
			}
		}
		w.progress(&j)
	case Revealing:
		for i := range j.Places {
			if p := &j.Places[i]; p.State == Committed && !p.Verifier { // a verifier may wait for leaves that an executor hides
				w.there(p.Node, false, 1e6)
			}
		}
		w.move(&j, Unsealing, w.in(w.params.CourtWindow), "%d did not reveal in time", j.count(Committed))
	case Unsealing:
		for i := range j.Places {
			if p := &j.Places[i]; p.State == Committed {
				w.drop(&j, p, "did not reveal, nor did an authority")
			}
		}
		w.compare(&j)
	case Court:
		if !j.Spec.Compare.Strict() {
			w.weigh(&j, true)
			return
		}
		w.end(&j, Failed, "the court came to no verdict") // of a batch too: what is disputed is not accepted
	case Delivering:
		w.reputation(j.Owner.Address(), func(r *Reputation) { r.Consumer.Silent++ })
		w.undelivered(&j, "the owner is silent")
	case Inspecting: // executors agreed on it, and nobody found that it is lost
		w.settle(&j, "the authorities did not find in time that the result cannot be fetched")
	case Settled, Cancelled, Failed:
		w.delete(string(JobKey(id)))
	default:
		panic("bug: a deadline in state " + j.State.String())
	}
}
