package verify

import "math"

// Record is what is known of a host from checks by others, all of them on chain.
type Record struct {
	HonestyPPM uint32 // H, DESIGN section 9; a newcomer has 250,000
	Good       uint64 // results checked and found right
	Caught     uint64 // times proven wrong
}

// CheckPPM is the probability, in parts per million, with which a host's next
// piece of work is checked: as BOINC's adaptive replication one in good results,
// but never less than the doubt that its honesty leaves, nor than floorPPM; and
// always, once it was caught. floorPPM itself is not taken below FloorPPM.
func (r Record) CheckPPM(floorPPM uint32) uint32 {
	if r.Caught > 0 {
		return Million
	}
	p := max(floorPPM, FloorPPM, Million-min(r.HonestyPPM, Million))
	if r.Good < Million {
		p = max(p, uint32(Million/(r.Good+1)))
	}
	return min(p, Million)
}

// BOINCEscapes is the probability that a host with good valid results in a row
// places bad wrong ones unseen under BOINC's rule, by which the n+1st result is
// checked with 1/n (Anderson 2020, adaptive replication): (good-1)/(good+bad-1). For
// 1,000 and 1,000 it is a half. It is here to be compared with; nothing uses it
// to check. good must be at least 1.
func BOINCEscapes(good, bad uint64) float64 {
	return (float64(good) - 1) / (float64(good) - 1 + float64(bad))
}

// Escapes is the same under a floor: (1-p·h)^bad, rounded up, where h is the share
// of checkers that are honest. It falls exponentially whatever the record was.
func Escapes(floorPPM, colludingPPM uint32, bad uint64) Chance {
	caught := floorAnd(FromPPM(floorPPM), FromPPM(colludingPPM).Not())
	return one.times(uint64(caught.Not()), uint64(Certain)).pow(bad).chance()
}

// ExpectedUndetected bounds how many wrong results a host is expected to place
// before it is caught, however long its record and however it spreads them:
// (1-p·h)/(p·h), rounded up: 19 at the floor of 5 %, 22 when 10 % of the checkers
// collude with it. If nothing is ever caught it is the largest number.
func ExpectedUndetected(floorPPM, colludingPPM uint32) uint64 {
	caught := floorAnd(FromPPM(floorPPM), FromPPM(colludingPPM).Not())
	if caught == 0 {
		return math.MaxUint64
	}
	return uint64((caught.Not() + caught - 1) / caught)
}
