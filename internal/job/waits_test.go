package job

import (
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

func TestStalled_ByWhoIsAway(t *testing.T) {
	executor, verifier, other := crowd.NodeID{1}, crowd.NodeID{2}, crowd.NodeID{3}
	for _, c := range []struct {
		name               string
		state              ledger.JobState
		executor, verifier ledger.PlaceState
		parts              uint32
		away               []crowd.NodeID
		want               bool
	}{
		{"nobody is drawn yet", ledger.Posted, 0, 0, 0, []crowd.NodeID{executor, verifier}, false},
		{"all are there", ledger.Running, ledger.Working, ledger.Working, 0, []crowd.NodeID{other}, false},
		{"who works", ledger.Running, ledger.Working, ledger.Working, 0, []crowd.NodeID{verifier}, true},
		{"who has to reveal", ledger.Running, ledger.Committed, ledger.Working, 0, []crowd.NodeID{executor}, true},
		{"a verifier that an authority opens", ledger.Running, ledger.Working, ledger.Committed, 0, []crowd.NodeID{verifier}, false},
		{"a dropped one", ledger.Running, ledger.Working, ledger.Dropped, 0, []crowd.NodeID{verifier}, false},
		{"the executor, before it reveals", ledger.Revealing, ledger.Committed, ledger.Committed, 0, []crowd.NodeID{executor}, true},
		{"a verifier, before it reveals", ledger.Revealing, ledger.Revealed, ledger.Committed, 0, []crowd.NodeID{verifier}, false},
		{"the only one with the result", ledger.Delivering, ledger.Revealed, ledger.Revealed, 0, []crowd.NodeID{executor}, true},
		{"one of two with the result", ledger.Delivering, ledger.Revealed, ledger.Revealed, 4, []crowd.NodeID{executor}, false},
		{"both of them", ledger.Delivering, ledger.Revealed, ledger.Revealed, 4, []crowd.NodeID{executor, verifier}, true},
		{"the court is nobody's", ledger.Court, ledger.Revealed, ledger.Revealed, 0, []crowd.NodeID{executor, verifier}, false},
		{"it has ended", ledger.Settled, ledger.Revealed, ledger.Revealed, 0, []crowd.NodeID{executor, verifier}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := &ledger.Job{State: c.state}
			j.Spec.Shuffle.Parts = c.parts
			if c.executor != 0 {
				j.Places = []ledger.Place{{Node: executor, State: c.executor}, {Node: verifier, Verifier: true, State: c.verifier}}
			}
			got := Stalled(j, func(n crowd.NodeID) bool {
				for _, a := range c.away {
					if a == n {
						return false
					}
				}
				return true
			})
			if got != c.want {
				t.Errorf("got %v want %v", got, c.want)
			}
		})
	}
}
