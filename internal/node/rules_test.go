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
