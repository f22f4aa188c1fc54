package ledger

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/crowdcompute/crowd"
)

// ReputationParams are the rules of the scores, DESIGN section 9. With Alpha0,
// Beta0 and the half-lives 0, FailFactor 1 and MinDifficulty 1e6, honesty is the
// plain mean of f: the rule of the paper.
type ReputationParams struct {
	_ struct{} `cbor:",toarray"`

	Alpha0, Beta0      uint32 // what a newcomer's honesty begins with, in millionths of a job passed and failed
	FailFactor         uint32 // how much worse a failure is than a success is good
	PassHalf, FailHalf int64  // half-lives of successes and failures, ms; 0: never forgotten

	FullBurn      crowd.Credits // burned of the pay for one piece of evidence that counts in full
	MinDifficulty uint32        // ppm

	Up0, Down0 uint32 // what a newcomer's availability begins with, in millionths of a job
	UpHalf     int64  // half-life of what availability knows, ms
	ProbePPM   uint32 // weight of a certain draw claimed or missed, against a job's 1e6

	Dues        uint64        // who has passed less, in millionths of a job that counts in full, is a newcomer
	NewcomerPPM uint32        // of its stake's tickets, for a newcomer
	FloorPPM    uint32        // of its stake's tickets, for the worst of the others
	FavourPPM   uint32        // of small jobs, in which newcomers draw as if their record were perfect
	SmallJob    crowd.Credits // a job that pays one executor at most this is small
}

func mainReputation() ReputationParams {
	const day = 86_400_000
	return ReputationParams{
		Alpha0: 1e6, Beta0: 3e6, FailFactor: 10, PassHalf: 30 * day, FailHalf: 180 * day, // DESIGN section 9
		FullBurn: 100_000, // 2 % of 5 credits: 5 giga-gas at the reference price
		Up0:      1e6, Down0: 1e6, UpHalf: 7 * day, ProbePPM: 100_000,
		Dues: 2e6, NewcomerPPM: 100_000, FloorPPM: 250_000, FavourPPM: 100_000, SmallJob: crowd.Credit,
	}
}

func (p *ReputationParams) validate() error {
	var errs []error
	if p.MinDifficulty > 1e6 || p.ProbePPM > 1e6 || p.NewcomerPPM > 1e6 || p.FloorPPM > 1e6 || p.FavourPPM > 1e6 {
		errs = append(errs, errors.New("reputation: a share of more than 1e6 ppm"))
	}
	if p.FullBurn == 0 || p.FailFactor == 0 || p.FailFactor > 1000 || p.PassHalf < 0 || p.FailHalf < 0 || p.UpHalf < 0 {
		errs = append(errs, errors.New("reputation: want a full burn, a fail factor of 1 to 1000, no negative half-life"))
	}
	// What a fresh identity may expect of a draw, the favours included.
	if fresh := uint64(1e6-p.FavourPPM)*uint64(p.NewcomerPPM) + 1e6*uint64(p.FavourPPM); p.FavourPPM <= 1e6 && fresh > 1e6*uint64(p.FloorPPM) {
		errs = append(errs, errors.New("reputation: a newcomer draws better than the worst record, so that a new identity washes it white"))
	}
	return errors.Join(errs...)
}

// Reputation is what the chain knows of one node: raw counters, and the sums
// from which its two scores follow. They are never mixed: honesty is about what
// was checked, availability about being there.
type Reputation struct {
	_        struct{}   `cbor:",toarray"`
	Done     uint64     // jobs executed, checked and found right
	Work     crowd.Gas  // in those, and in jobs that an audit's lot left unchecked
	Received crowd.Gas  // as a consumer
	Caught   uint64     // proven frauds
	Faults   uint64     // places given up, deadlines missed
	Reported uint64     // frauds that this node's right answer exposed
	Support  uint64     // votes in the court that agreed with the verdict
	Missed   uint32     // certain draws missed in a row, in which it claimed no other place either
	Claimed  crowd.Time // when it last claimed a place

	Passed, Failed uint64     // fading sums of alpha and beta without a0 and b0; 1e12 is one job
	Up, Down       uint64     // fading sums of availability; 1e12 is one job
	At             crowd.Time // of the newest change to these four
	Dues           uint64     // d of all that was passed ever, ppm; it does not fade

	Consumer Consumer
}

// Consumer counts what a node did as the owner of jobs. A provider's offer says
// from which score on it works for an owner; a new account has a half, so that more than
// that shuts out newcomers, and less only who has done worse than nothing.
type Consumer struct {
	_         struct{} `cbor:",toarray"`
	Paid      uint64   // jobs settled
	Cancelled uint64   // while executors worked
	Unfounded uint64   // complaints about results that the court could fetch
	Silent    uint64   // results neither accepted nor complained about in time
	Failed    uint64   // jobs that nobody could do
}

// Score is the share of good ends, in ppm, beginning at a half.
func (c *Consumer) Score() uint32 {
	return share(c.Paid+1, c.Cancelled+c.Unfounded+c.Silent+c.Failed+1)
}

// score of an owner, as its next job is posted with.
func (w *work) score(owner crowd.NodeID) uint32 {
	r, _ := load[Reputation](w.get, string(ReputationKey(owner.Address())))
	return r.Consumer.Score()
}

// Evidence is one finding about a node's honesty, by the protocol's own check of a drawn job.
type Evidence struct {
	_          struct{} `cbor:",toarray"`
	Job        crowd.JobID
	Passed     bool   // f: everything that was checked of the job was right
	Difficulty uint32 // d, ppm
	Height     crowd.Height
}

// maxEvidence is how many findings are kept for people to see; the sums hold all.
const maxEvidence = 16

// one job in a fading sum, over ppm.
const one = 1_000_000

// share is good / (good + bad) in ppm, 0 of nothing. The sum must not overflow.
func share(good, bad uint64) uint32 {
	if good+bad == 0 {
		return 0
	}
	hi, lo := bits.Mul64(good, 1e6)
	q, _ := bits.Div64(hi, lo, good+bad)
	return uint32(q)
}

// forward brings the sums to now. Block time never goes back.
func (r *Reputation) forward(p *ReputationParams, now crowd.Time) {
	r.Passed = forward(r.Passed, r.At, now, p.PassHalf)
	r.Failed = forward(r.Failed, r.At, now, p.FailHalf)
	r.Up = forward(r.Up, r.At, now, p.UpHalf)
	r.Down = forward(r.Down, r.At, now, p.UpHalf)
	r.At = max(r.At, now)
}

// evidence counts f with its difficulty in ppm.
func (r *Reputation) evidence(p *ReputationParams, f bool, d uint32, now crowd.Time) {
	r.forward(p, now)
	d = min(max(d, p.MinDifficulty), 1e6)
	if f {
		r.Passed = added(r.Passed, uint64(d)*one, r.At, p.PassHalf)
		r.Dues = min(r.Dues+uint64(d), maxFading)
	} else {
		r.Failed = added(r.Failed, uint64(p.FailFactor)*uint64(max(d, 1e6-d))*one, r.At, p.FailHalf)
	}
}

// availability counts that the node was there, or was not, with a weight in ppm.
func (r *Reputation) availability(p *ReputationParams, up bool, weight uint32, now crowd.Time) {
	r.forward(p, now)
	if up {
		r.Up = added(r.Up, uint64(weight)*one, r.At, p.UpHalf)
	} else {
		r.Down = added(r.Down, uint64(weight)*one, r.At, p.UpHalf)
	}
}

// Honesty is H = alpha/(alpha+beta) in ppm at that time, rounded down; 0 where nothing is known at all.
func (r Reputation) Honesty(p *ReputationParams, now crowd.Time) uint32 {
	r.forward(p, now)
	return share(uint64(p.Alpha0)*one+faded(r.Passed, r.At, p.PassHalf), uint64(p.Beta0)*one+faded(r.Failed, r.At, p.FailHalf))
}

// Availability is A in ppm at that time: the mean of being there, newer moments weighing more.
func (r Reputation) Availability(p *ReputationParams, now crowd.Time) uint32 {
	r.forward(p, now)
	return share(uint64(p.Up0)*one+faded(r.Up, r.At, p.UpHalf), uint64(p.Down0)*one+faded(r.Down, r.At, p.UpHalf))
}

// Newcomer reports whether the node still pays its dues. Jobs count as they do
// for honesty, or an owner could make a veteran of its own node for nothing.
func (r *Reputation) Newcomer(p *ReputationParams) bool { return r.Dues < p.Dues }

// Weight is the share of its stake's tickets that a node draws with, in ppm. The
// worst record draws with more than none at all, so that a new identity gains nothing.
func (r *Reputation) Weight(p *ReputationParams, now crowd.Time) uint32 {
	if r.Newcomer(p) {
		return p.NewcomerPPM
	}
	good := uint64(r.Honesty(p, now)) * uint64(r.Availability(p, now)) / 1e6
	return p.FloorPPM + uint32(uint64(1e6-p.FloorPPM)*good/1e6)
}

// Standing is all that a person wants to know of a node, at one time.
type Standing struct {
	Honesty      uint32 // ppm
	Availability uint32 // ppm
	Consumer     uint32 // ppm
	Weight       uint32 // of its stake's tickets in a draw, ppm; of a provider as its record has it
	Newcomer     bool
	Tombstoned   bool
	Reputation   Reputation
	Evidence     []Evidence // the newest, oldest first
}

// Standing of a at time now.
func (s State) Standing(a crowd.Address, now crowd.Time) Standing {
	r, p := s.Reputation(a), s.Params().Reputation
	st := Standing{
		Honesty: r.Honesty(&p, now), Availability: r.Availability(&p, now), Consumer: r.Consumer.Score(),
		Weight: r.Weight(&p, now), Newcomer: r.Newcomer(&p), Reputation: r, Evidence: s.Evidence(a),
	}
	if pr, ok := s.Provider(a); ok {
		st.Weight, st.Tombstoned = pr.Weight, pr.Tombstoned
	}
	return st
}

// Evidence is the newest about a, oldest first, at most maxEvidence.
func (s State) Evidence(a crowd.Address) []Evidence {
	e, _ := load[[]Evidence](s.get, string(EvidenceKey(a)))
	return e
}

func (w *work) reputation(a crowd.Address, f func(*Reputation)) {
	v, _ := load[Reputation](w.get, string(ReputationKey(a)))
	f(&v)
	w.put(string(ReputationKey(a)), &v)
}

// evidence writes down what a check of a drawn job found about a node. f is true
// only where everything checked of the job was right. Only the protocol's own
// checks come here: a pair's agreement, verifiers' samples, the court's verdict. What
// owners say does not. A success that weighs nothing is no evidence.
func (w *work) evidence(node crowd.NodeID, job crowd.JobID, f bool, d uint32) {
	if f && d == 0 {
		return
	}
	a := node.Address()
	w.reputation(a, func(r *Reputation) { r.evidence(&w.params.Reputation, f, d, w.now()) })
	all, _ := load[[]Evidence](w.get, string(EvidenceKey(a)))
	all = append(all, Evidence{Job: job, Passed: f, Difficulty: d, Height: w.height()})
	all = all[max(0, len(all)-maxEvidence):]
	w.put(string(EvidenceKey(a)), &all)
}

// there counts that a node was there when it was wanted, or was not.
func (w *work) there(node crowd.NodeID, up bool, weight uint32) {
	w.reputation(node.Address(), func(r *Reputation) { r.availability(&w.params.Reputation, up, weight, w.now()) })
}

// fault counts a place given up or a deadline missed.
func (w *work) fault(node crowd.NodeID) {
	w.reputation(node.Address(), func(r *Reputation) {
		r.Faults++
		r.availability(&w.params.Reputation, false, 1e6, w.now())
	})
}

// difficulty is d of a job that pays an executor that much, in ppm: what is burned
// of the pay, against FullBurn, times the share of all tickets among which the lot
// was drawn. Gas, programs and failures can be made to look like anything by an
// owner who is also the executor; these two cost him the same as everybody else.
func (w *work) difficulty(j *Job, pay crowd.Credits) uint32 {
	burned := min(pay.PPM(w.params.BurnPPM), w.params.Reputation.FullBurn)
	hi, lo := bits.Mul64(uint64(burned), uint64(j.Open))
	d, _ := bits.Div64(hi, lo, uint64(w.params.Reputation.FullBurn))
	return max(uint32(d), w.params.Reputation.MinDifficulty)
}

// Favours reports whether the draw of j favours newcomers. The beacon decides, so that nobody can choose.
func (p Params) Favours(j *Job, r crowd.Hash) bool {
	if j.Spec.Filters.MaxPrice.Cost(j.Spec.Limits().Gas) > p.Reputation.SmallJob {
		return false
	}
	h := crowd.Keccak256([]byte("crowd/newcomers\x00"), j.ID[:], r[:])
	lot, _ := bits.Mul64(binary.BigEndian.Uint64(h[:]), 1e6)
	return uint32(lot) < p.Reputation.FavourPPM
}
