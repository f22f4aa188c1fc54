package verify

// Colluding is the probability that n drawn nodes are all of a ring that has a
// share of colludingPPM of the weight and acts as one: b^n, rounded up. One
// honest node of n is enough to expose a wrong answer: answers are committed
// before any is revealed, so that it has not copied, and a difference goes to
// the court, so that it cannot be outvoted (DESIGN section 8: 5e-7 for 9 at
// 20 %). Drawing without replacement only lowers it; see ColludingOf.
func Colluding(colludingPPM, n uint32) Chance { return FromPPM(colludingPPM).Pow(n) }

// ColludingOf is Colluding for a finite population of equal weights, bad of all
// nodes, n of them drawn: C(bad, n)/C(all, n), rounded up. bad is cut to all; n above all is drawn as all.
func ColludingOf(all, bad, n uint64) Chance { return Missed(all, all-min(bad, all), n) }

// LeastCommittee is the least committee all of which collude with chance at most
// allowed. False: not even most of them reach it.
func LeastCommittee(colludingPPM uint32, allowed Chance, most uint32) (uint32, bool) {
	for n := range most + 1 {
		if Colluding(colludingPPM, n) <= allowed {
			return n, true
		}
	}
	return 0, false
}
