package verify

import "math/bits"

// Scheme is how one shard, the items that one executor gets, is checked. Three
// methods in one, which may be combined:
//
//   - challenge: Verifiers drawn nodes each re-execute Checks items of their own secret choice;
//   - adaptive: they do so with probability CheckPPM, which may follow the executor's record;
//   - audit: apart from that, and decided apart, one drawn node re-executes the whole shard with probability AuditPPM.
//
// With Checks equal to Items each verifier is a replica: one makes a pair, more a committee.
type Scheme struct {
	Items        uint64 // of the shard
	Checks       uint64 // q, by each verifier; cut to Items
	Verifiers    uint32 // v, besides the executor
	Replacements uint32 // r, further nodes that may get a place that another gave up: crowd.Plan
	CheckPPM     uint32 // of shards that are challenged at all; 1e6: every one
	AuditPPM     uint32 // of shards that are re-executed whole
	ColludingPPM uint32 // assumed share of the verifiers' weight that stands by a cheater
}

// Undetected is the probability, rounded up, that an executor escapes who gets
// bad of its items wrong. With b the colluding share, c and a the probabilities
// of the challenge and the audit, h = Missed(items, bad, q) and M the number of colluders
// among v+r drawn nodes:
//
//	(1 - c + c·E[h^max(0, v-M)]) · (1 - a·(1-b))
//
// An auditor is never replaced. A verifier finds nothing if it colludes, or if it is honest and its sample has
// no bad item; the samples are independent, and so are the draws, but for
// drawing without replacement, which only lowers the chance. With r = 0 the
// expectation is (b + (1-b)·h)^v.
func (s Scheme) Undetected(bad uint64) Chance {
	if bad == 0 {
		return Certain // nothing is wrong, nothing is found
	}
	miss := Steered(s.ColludingPPM, s.Verifiers, s.Replacements, Missed(s.Items, bad, s.Checks))
	check, audit := FromPPM(s.CheckPPM), FromPPM(s.AuditPPM)
	challenge := check.Not() + check.And(miss)
	return challenge.And(audit.Not() + audit.And(FromPPM(s.ColludingPPM)))
}

// OverheadPPM is the expected gas of the checks per gas of useful work, in parts
// per million, rounded up: c·v·q/n + a. Above 1e6 work is done more than twice.
func (s Scheme) OverheadPPM() uint64 {
	if s.Items == 0 {
		return 0
	}
	hi, checks := bits.Mul64(min(s.Checks, s.Items), uint64(s.Verifiers))
	if hi != 0 {
		return ^uint64(0)
	}
	share, ok := mulDivUp(checks, uint64(s.CheckPPM), s.Items)
	if !ok {
		return ^uint64(0)
	}
	return share + uint64(s.AuditPPM)
}
