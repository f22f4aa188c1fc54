package job

import (
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// journal is what a machine must not forget.
type journal struct {
	_       struct{} `cbor:",toarray"`
	Job     crowd.JobID
	Role    Role
	Opening *ledger.Opening // executor: what it is bound to, from before the commit was first sent
	Sealed  [][]byte        // executor: of that commit
	Outcome *crowd.Outcome  // authority: what the task came to here
	Have    crowd.CID       // consumer: what is Delivered, once it is in the own store; the pin is the user's from then on
	Cancel  bool            // consumer: the user wants the job to end
	Kept    []crowd.CID     // pinned in the own store
}

// maxKept is a program, a folder, a stdin, a comparator, two results, an executor's leaves, and a committee's results that differ.
const maxKept = 7 + crowd.MaxCommittee

func decodeJournal(raw []byte) (j journal, err error) {
	if err := crowd.Decode(raw, &j); err != nil {
		return journal{}, fmt.Errorf("job journal: %w", err)
	}
	if j.Role < AsConsumer || j.Role > AsAuthority {
		return journal{}, fmt.Errorf("job journal: %s", j.Role)
	}
	if len(j.Kept) > maxKept {
		return journal{}, fmt.Errorf("job journal: %d kept CIDs, at most %d", len(j.Kept), maxKept)
	}
	return j, nil
}

// keep adds to Kept what is not there yet, and reports whether something was.
func (j *journal) keep(cids ...crowd.CID) (added bool) {
	for _, c := range cids {
		if c != "" && !slices.Contains(j.Kept, c) {
			j.Kept, added = append(j.Kept, c), true
		}
	}
	return added
}

// Journaled says whose journal raw is.
func Journaled(raw []byte) (crowd.JobID, Role, error) {
	j, err := decodeJournal(raw)
	return j.Job, j.Role, err
}
