package node

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// idle is an executor that is there.
type idle struct{ executor.Executor }

// A build that executes by other rules than its network loses its stake for honest outcomes, or convicts others for
// theirs. So it does neither, and says so.
func TestNode_WithOtherRulesTakesNoPart(t *testing.T) {
	for _, authority := range []bool{false, true} {
		var log bytes.Buffer
		n := &Node{cfg: Config{Exec: idle{}}, authority: authority, params: ledger.DevParams(), log: slog.New(slog.NewTextHandler(&log, nil))}
		if roles := n.jobRoles(); roles != nil || n.provides() == authority || log.Len() > 0 {
			t.Errorf("the network's rules: got roles %v, provides %v, log %q", roles, n.provides(), log.String())
		}
		n.params.Rules = crowd.RulesVersion + 1
		if roles := n.jobRoles(); !slices.Equal(roles, []job.Role{job.AsConsumer}) || n.provides() || slices.Contains(n.roles(), "provider") {
			t.Errorf("other rules: got roles %v, provides %v", roles, n.provides())
		}
		if !strings.Contains(log.String(), "neither claims, verifies nor votes") || !strings.Contains(log.String(), "install a build") {
			t.Errorf("the log does not say what to do: %s", log.String())
		}
	}
}

// A provider that others passed over in a draw looks at once what the chain says of it; one that claimed does not, nor an owner.
func TestNode_LooksWhetherItIsAsleep(t *testing.T) {
	self, other := crowd.NodeID{1}, crowd.NodeID{2}
	for _, tt := range []struct {
		name string
		job  ledger.Job
		want int
	}{
		{"the claims are open", ledger.Job{State: ledger.Claiming}, 0},
		{"others claimed", ledger.Job{State: ledger.Running, Drawn: []ledger.Drawn{{Node: other}}}, 1},
		{"it claimed", ledger.Job{State: ledger.Running, Drawn: []ledger.Drawn{{Node: other}, {Node: self}}}, 0},
		{"its own job", ledger.Job{Owner: self, State: ledger.Running, Drawn: []ledger.Drawn{{Node: other}}}, 0},
	} {
		n := &Node{id: self, cfg: Config{Exec: idle{}}, params: ledger.DevParams(), dozed: make(chan struct{}, 1)}
		for range 2 { // it does not wait
			n.claimsClosed(&tt.job)
		}
		if got := len(n.dozed); got != tt.want {
			t.Errorf("%s: got %d looks wanted, want %d", tt.name, got, tt.want)
		}
	}
}
