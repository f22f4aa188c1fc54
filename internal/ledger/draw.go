package ledger

import (
	"bytes"
	"math/big"
	"slices"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// drawDelay is how many blocks after a post its beacon comes: the task is fixed
// before anybody, its author or a single proposer, knows the lot. DESIGN section 7.2.
const drawDelay = 2

// DrawInput is alpha = H("assign"‖JobID‖NodeID‖R_{h+2}). The chain is in R, which begins with its
// genesis. The node is in it so that two nodes that registered one VRF key do not draw alike.
func DrawInput(job crowd.JobID, node crowd.NodeID, r crowd.Hash) []byte {
	h := crowd.Keccak256([]byte("crowd/assign\x00"), job[:], node[:], r[:])
	return h[:]
}

// counted remembers the claims whose proof was good: a node meets the same claim when it is offered, proposed, decided and shown.
// A key holds all that the count depends on, so that a remembered count is the one that would be computed. Bad proofs are not
// remembered: a sender of those pushes nothing out.
var counted = must(lru.New[claimKey, claimCount](4096))

type claimKey struct {
	vrf     identity.VRFPublic
	input   crowd.Hash // DrawInput
	proof   identity.VRFProof
	tickets uint32
	total   uint64
	units   uint64
}

type claimCount struct {
	won      uint32
	priority crowd.Hash
}

func must[T any](v T, err error) T {
	if err != nil {
		panic("bug: " + err.Error())
	}
	return v
}

// count checks the proof and is Won of its output.
func (k claimKey) count() (c claimCount, err error) {
	if known, ok := counted.Get(k); ok {
		return known, nil
	}
	out, err := identity.VerifyVRF(k.vrf, k.input[:], k.proof)
	if err != nil {
		return c, err
	}
	c.won, c.priority = Won(out, k.tickets, k.total, k.units)
	counted.Add(k, c)
	return c, nil
}

// Tickets is how often a provider takes part in a draw: by its stake, which is
// capped first, and its record, in a draw that favours newcomers or not. Rounded up.
func (p Params) Tickets(pr *Provider, favoured bool) uint32 {
	weight := uint64(pr.Weight)
	if favoured && pr.Newcomer {
		weight = 1e6
	}
	return uint32((min(uint64(pr.Stake/p.StakeUnit), uint64(p.MaxTickets))*weight + 1e6 - 1) / 1e6)
}

// Won counts the winning ones among tickets, and gives the best of them: the
// lower, the sooner the node's turn. Each ticket wins by itself with probability
// units/total, by its own hash of the VRF output: that is binomial sortition
// (Algorand, Gilad et al. 2017, section 5) without its floating-point sums.
// Where all tickets together are no more than units, each wins.
func Won(out identity.VRFOutput, tickets uint32, total, units uint64) (won uint32, priority crowd.Hash) {
	limit := new(big.Int).Lsh(new(big.Int).SetUint64(units), 256)
	limit.Div(limit, new(big.Int).SetUint64(max(total, 1)))
	certain := limit.BitLen() > 256
	bound := make([]byte, 32)
	if !certain {
		limit.FillBytes(bound)
	}
	for t := uint32(0); t < tickets; t++ {
		h := crowd.Keccak256([]byte("crowd/ticket\x00"), out[:], []byte{byte(t >> 24), byte(t >> 16), byte(t >> 8), byte(t)})
		if !certain && bytes.Compare(h[:], bound) >= 0 {
			continue
		}
		if won == 0 || bytes.Compare(h[:], priority[:]) < 0 {
			priority = h
		}
		won++
	}
	return won, priority
}

// Place in a draw, with what anybody needs to check it.
type Drawn struct {
	_        struct{} `cbor:",toarray"`
	Node     crowd.NodeID
	VRF      identity.VRFPublic
	Proof    identity.VRFProof
	Tickets  uint32
	Won      uint32
	Priority crowd.Hash
	Price    crowd.Price // the node's ask
}

// Check recomputes d for a job whose draw had that beacon and that many tickets in all.
func (d *Drawn) Check(job crowd.JobID, r crowd.Hash, total, units uint64) error {
	c, err := claimKey{d.VRF, crowd.Hash(DrawInput(job, d.Node, r)), d.Proof, d.Tickets, total, units}.count()
	if err != nil {
		return err
	}
	if c.won == 0 || c.won != d.Won || c.priority != d.Priority {
		return refuse(BadProof, "%s won %d tickets with best %x, not %d with %x", d.Node.Short(), c.won, c.priority[:4], d.Won, d.Priority[:4])
	}
	return nil
}

// draw fixes the lot of a job that waited for this block's beacon.
func (w *work) draw(id crowd.JobID) {
	j := w.mustJob(id)
	if j.State == Running {
		w.auditLot(&j)
		return
	}
	j.Beacon = w.beacon.R
	if w.params.Favours(&j, j.Beacon) {
		j.Tickets, j.Favoured = j.IfFavoured, true
	}
	w.move(&j, Claiming, w.in(w.params.ClaimWindow), "the beacon of block %d decides", w.height())
}

// certain: every ticket wins, so that it is known who must come.
func (w *work) certain(j *Job) bool { return j.Tickets <= w.params.CommitteeUnits }

func (w *work) claim(from crowd.NodeID, m *Claim) *Refusal {
	j, r := w.jobIn(m.Job, Claiming)
	if r != nil {
		return r
	}
	p, ok := w.provider(from)
	if !ok {
		return refuse(NotEligible, "%s is no provider", from.Short())
	}
	known := w.member(string(ProviderKey(from.Address())))
	for _, c := range w.conditions(&j) {
		if !c.ok(known) {
			return refuse(NotEligible, "%s fails %q", from.Short(), c.name)
		}
	}
	for i := range j.Drawn {
		if j.Drawn[i].Node == from {
			return refuse(Duplicate, "%s has claimed", from.Short())
		}
	}
	d := Drawn{Node: from, VRF: p.VRF, Proof: m.Proof, Tickets: w.params.Tickets(&p, j.Favoured), Price: p.Offer.Price}
	c, err := claimKey{p.VRF, crowd.Hash(DrawInput(j.ID, from, j.Beacon)), m.Proof, d.Tickets, j.Tickets, w.params.CommitteeUnits}.count()
	if err != nil {
		return refuse(BadProof, "%v", err)
	}
	if d.Won, d.Priority = c.won, c.priority; d.Won == 0 {
		return refuse(BadProof, "none of %d tickets won", d.Tickets)
	}
	at, _ := slices.BinarySearchFunc(j.Drawn, d, func(a, b Drawn) int {
		if c := bytes.Compare(a.Priority[:], b.Priority[:]); c != 0 {
			return c
		}
		return bytes.Compare(a.Node[:], b.Node[:])
	})
	j.Drawn = slices.Insert(j.Drawn, at, d)
	if uint32(len(j.Drawn)) > w.params.MaxClaims {
		j.Drawn = j.Drawn[:w.params.MaxClaims]
	}
	w.reputation(from.Address(), func(r *Reputation) {
		r.Claimed = w.now()
		if r.Missed = 0; w.certain(&j) {
			r.availability(&w.params.Reputation, true, w.params.Reputation.ProbePPM, w.now())
		}
	})
	if w.certain(&j) && uint32(len(j.Drawn)) == j.Eligible {
		w.dispatch(&j)
	} else {
		w.putJob(&j)
	}
	return nil
}

// Came counts the winning tickets of j that were claimed, and those that were to be expected. A full list of claims
// counts as all: better tickets may have pushed others out of it.
func (p Params) Came(j *Job) (won, want uint64) {
	want = min(p.CommitteeUnits, j.Tickets)
	if uint32(len(j.Drawn)) >= p.MaxClaims {
		return want, want
	}
	for i := range j.Drawn {
		won += uint64(j.Drawn[i].Won)
	}
	return won, want
}

// claimWindows is how many windows a draw is open for when less than half of the winning tickets come. Whoever keeps others from
// claiming has twice its share of the places at most, or no places. By lot alone, of 60 tickets expected (CommitteeUnits) less
// than 30 win once in 10^5 draws.
const claimWindows = 4

// closeClaims ends a window: for good, or the draw stays open for those that the network was too slow for.
func (w *work) closeClaims(j *Job) {
	won, want := w.params.Came(j)
	if 2*won >= want && len(j.Drawn) >= Needs(&j.Spec.Plan) {
		w.dispatch(j)
		return
	}
	windows := 0
	for i := range j.History {
		if j.History[i].State == Claiming {
			windows++
		}
	}
	if windows < claimWindows {
		w.move(j, Claiming, w.in(w.params.ClaimWindow), "%d of %d winning tickets were claimed in time, too few: the draw stays open", won, want)
		return
	}
	w.absent(j)
	w.end(j, Failed, "%d of %d eligible providers claimed their place, with %d of %d winning tickets; the plan needs %d providers and half of the tickets, or a few would stand for all",
		len(j.Drawn), j.Eligible, won, want, Needs(&j.Spec.Plan))
}

// absent notes who missed a draw in which everybody wins.
func (w *work) absent(j *Job) {
	// A full list says nothing about who is not in it; an empty one, that the network was slower than the window.
	if n := uint32(len(j.Drawn)); w.certain(j) && n > 0 && n < w.params.MaxClaims {
		opened := j.History[slices.IndexFunc(j.History, func(s Step) bool { return s.State == Claiming })].Time
		w.eachEligible(j, func(p Provider) {
			if !slices.ContainsFunc(j.Drawn, func(d Drawn) bool { return d.Node == p.ID }) {
				w.reputation(p.ID.Address(), func(r *Reputation) {
					if r.Claimed >= opened { // it is awake: more jobs came than it can claim in time
						return
					}
					r.Missed++
					r.availability(&w.params.Reputation, false, w.params.Reputation.ProbePPM, w.now())
				})
			}
		})
	}
}

// dispatch closes the claims and gives out the places.
func (w *work) dispatch(j *Job) {
	w.absent(j)
	executors, verifiers := Seats(&j.Spec.Plan)
	for range executors {
		w.seat(j, false)
	}
	for range verifiers {
		w.seat(j, true)
	}
	if len(j.Places) == 0 {
		w.end(j, Failed, "the providers that claimed have left since")
		return
	}
	w.move(j, Running, j.earliest(), "%d of %d eligible providers claimed", len(j.Drawn), j.Eligible)
}

// Patience is how long a place has to commit, a verifier without seals, in ms of block time. A verifier runs a few items only: whoever
// is away is replaced while the executor still works.
func (p Params) Patience(spec *crowd.JobSpec, verifier bool) int64 {
	wall := spec.Task.Limits.Wall.Milliseconds()
	if items := int64(spec.Items); verifier && items > 0 {
		wall = wall / items * min(int64(spec.Plan.Checks), items)
	}
	return wall + p.DispatchGrace
}

// seat gives the next drawn node a place, if there is one.
func (w *work) seat(j *Job, verifier bool) bool {
	if j.Spec.Plan.Method == crowd.PlanAudit {
		return w.seatAudited(j)
	}
	for int(j.Next) < len(j.Drawn) {
		d := &j.Drawn[j.Next]
		j.Next++
		if w.place(j, d, verifier) {
			return true
		}
	}
	return false
}

// place gives d a place unless it has left, or was caught, since it claimed.
func (w *work) place(j *Job, d *Drawn, verifier bool) bool {
	p, ok := w.provider(d.Node)
	if !ok || p.Tombstoned || p.Leaving != 0 {
		return false
	}
	p.Active++
	if j.Spec.Plan.Method == crowd.PlanAudit && (j.Audit == nil || j.Audit.At == 0) {
		j.Audit = w.bindStake(&j.Spec, &p)
	}
	w.putProvider(p)
	j.Places = append(j.Places, Place{
		Node: d.Node, Verifier: verifier, Price: d.Price, State: Working,
		Since: w.now(), Due: w.in(w.params.Patience(&j.Spec, verifier)),
	})
	return true
}
