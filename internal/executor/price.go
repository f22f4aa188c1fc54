package executor

import "github.com/crowdcompute/crowd"

// Gas of what a run has laid out for it before its program begins. It is part of the outcome, so that it
// follows from the task alone: sizes are those that the roots of the contents claim.
const (
	gasLaidByte  = 2      // a byte of a file: read, checked against its hash, written
	gasLaidEntry = 50_000 // a file or folder: made, and removed when the run has ended
)

// LayOut is the gas of laying out so many bytes in so many files and folders.
func LayOut(bytes, entries uint64) crowd.Gas {
	const most = 1 << 60 // far from overflow, and from what anybody can pay
	return crowd.Gas(gasLaidByte*min(bytes, most/gasLaidByte) + gasLaidEntry*min(entries, most/gasLaidEntry))
}

// Unusable is the gas of an outcome crowd.NoInput for inputs that nothing was laid out of, and that nobody can tell
// the size of: somebody may have fetched much of them before a bad block came.
const Unusable crowd.Gas = 1_000_000_000

// Share is what each of so many runs, 0 meaning one, bears of gas that was spent once for all of them. It is rounded up.
func Share(g crowd.Gas, runs uint32) crowd.Gas {
	n := crowd.Gas(max(runs, 1))
	return g/n + min(g%n, 1)
}
