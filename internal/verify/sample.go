package verify

// Missed is the probability that a secret sample finds nothing: checks of items
// are re-executed, chosen uniformly and told to nobody, and bad of them are
// wrong. It is C(items-bad, checks)/C(items, checks), the hypergeometric chance
// of drawing no bad one (DESIGN section 7.3, first form), whichever items the
// cheater picked. bad and checks are cut to items; with no bad items it is 1.
//
// The product has min(bad, checks) factors, by symmetry. The first 65,536 are
// exact up to 2^-63 each, rounded up; later ones go in blocks of a thousandth of
// their index, each factor taken as large as its block's first. So it is never
// below the truth; it is within 1.1·10^-12 of it for up to 65,536 factors, and
// where there are more, the truth is below 2 % at 10^9 items and the bound's
// logarithm about a thousandth off. It is monotone: more checks or more bad
// items never raise it.
func Missed(items, bad, checks uint64) Chance {
	return missed(items, min(bad, items), min(checks, items)).chance()
}

func missed(items, bad, checks uint64) fraction {
	k, o := min(bad, checks), max(bad, checks)
	if k > items-o {
		return 0 // more than can miss each other
	}
	p := one
	const exact = 1 << 16
	for i := uint64(0); i < k && p > 1; {
		// The i-th item drawn is one of items-i that are left, items-o-i of them harmless.
		if i < exact {
			p = p.times(items-o-i, items-i)
			i++
			continue
		}
		n := min(i>>10, k-i)
		p = p.times(uint64(one.times(items-o-i, items-i).pow(n)), uint64(one))
		i += i >> 10 // blocks stand at the same places whatever k is
	}
	return p
}

// MissedMixed is the probability that challenges hidden among the items find
// nothing: checks items with known answers are mixed into items real ones, and
// the executor, who cannot tell them apart, gets bad of all of them wrong:
// C(items+checks-bad, checks)/C(items+checks, checks), DESIGN section 7.3,
// second form. A sum above 2^64-1 is cut.
func MissedMixed(items, bad, checks uint64) Chance {
	all := items + checks
	if all < items {
		all = ^uint64(0)
	}
	return Missed(all, bad, checks)
}

// MissedLimit is the limit of Missed for endless items of which a share cheatPPM
// is bad: (1-c)^checks. Drawing without replacement is better: Missed(n, ⌈cn⌉, q)
// is at most MissedLimit(c, q) for every n.
func MissedLimit(cheatPPM uint32, checks uint64) Chance {
	return missedLimit(cheatPPM, checks).chance()
}

func missedLimit(cheatPPM uint32, checks uint64) fraction {
	return one.times(Million-uint64(min(cheatPPM, Million)), Million).pow(checks)
}

// BadItems is how many of items a cheater of that rate gets wrong: ⌈c·items⌉.
func BadItems(items uint64, cheatPPM uint32) uint64 {
	n, _ := mulDivUp(items, uint64(min(cheatPPM, Million)), Million)
	return n
}

// LeastChecks is the least number of secret checks by which bad wrong ones among
// items escape with chance at most allowed. bad must be from 1 to items: without
// a wrong item there is nothing to find. At most items-bad+1 are ever needed.
func LeastChecks(items, bad uint64, allowed Chance) uint64 {
	if bad == 0 || bad > items {
		panic("bug: least checks against no bad items")
	}
	return least(items-bad+1, func(q uint64) bool { return Missed(items, bad, q) <= allowed })
}

// LeastChecksMixed is LeastChecks for challenges mixed in. bad is of the items and
// the challenges together, 1 at least. More than most are not tried: false.
func LeastChecksMixed(items, bad uint64, allowed Chance, most uint64) (uint64, bool) {
	if bad == 0 {
		return 0, false
	}
	q := least(most, func(q uint64) bool { return MissedMixed(items, bad, q) <= allowed })
	return q, MissedMixed(items, bad, q) <= allowed
}

// least is the least n in 0…most for which good holds, most if it does for none. good must be
// monotone. It gallops first: what is sought is mostly small, and good dear where n is large.
func least(most uint64, good func(uint64) bool) uint64 {
	lo, hi := uint64(0), uint64(1) // good fails below lo
	for hi < most && !good(hi) {
		lo, hi = hi+1, hi*2
		if hi > most/2 {
			hi = most
		}
	}
	hi = min(hi, most)
	for lo < hi {
		mid := lo + (hi-lo)/2
		if good(mid) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return hi
}
