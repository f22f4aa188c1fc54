package verify

// Colluding is the probability that n drawn nodes are all of a ring that has a
// share of colludingPPM of the weight and acts as one: b^n, rounded up. One
// honest node of n is enough to expose a wrong answer: answers are committed
// before any is revealed, so that it has not copied, and a difference goes to
// the court, so that it cannot be outvoted (DESIGN section 8: 5e-7 for 9 at
// 20 %). Drawing without replacement only lowers it; see ColludingOf.
func Colluding(colludingPPM, n uint32) Chance { return FromPPM(colludingPPM).Pow(n) }

// Steered is the chance, rounded up, that the nodes in so many seats let a wrong answer pass, if each honest one of them
// misses it with chance miss, when a ring with colludingPPM of the weight chooses which honest nodes give their place up. Up to
// so many replacements are drawn for those. An author who serves its inputs to its ring alone is such a chooser. If M of
// the seats+replacements nodes that are drawn are of the ring, it keeps honest nodes in max(0, seats-M) seats at the least:
//
//	E[miss^max(0, seats-M)], M ~ Bin(seats+replacements, colluding)
//
// With miss 0 that is P(M >= seats), and without replacements Colluding. For one seat P(M >= 1) is taken as (1+replacements)·colluding, which
// holds however few nodes there are; for more seats drawing without replacement lowers the chance.
func Steered(colludingPPM, seats, replacements uint32, miss Chance) Chance {
	if replacements == 0 { // the same, and exact where the share is a round number
		bad := FromPPM(colludingPPM)
		return (bad + bad.Not().And(miss)).Pow(seats)
	}
	if seats == 1 {
		any := FromPPM(colludingPPM).Times(uint64(1 + replacements))
		return any + any.Not().And(miss)
	}
	b := uint64(min(colludingPPM, Million))
	ring := make([]fraction, seats+1) // ring[m]: m of those drawn so far are of the ring; the last entry counts more as well
	ring[0] = one
	for range seats + replacements {
		for m := int(seats); m >= 0; m-- {
			joins := ring[m].times(b, Million)
			ring[m] = ring[m].times(Million-b, Million)
			if m == int(seats) {
				ring[m] = min(ring[m]+joins, one)
			} else {
				ring[m+1] = min(ring[m+1]+joins, one)
			}
		}
	}
	sum := fraction(0)
	for m, p := range ring {
		sum = min(sum+p.times(uint64(miss.Pow(seats-uint32(m))), uint64(Certain)), one)
	}
	return sum.chance()
}

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
