package scenario

import (
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// slowCourt is a set of providers that make up the results of strangers' long tasks, which take the court longer than it has.
// They hope that their stakes are safe, that an unchecked lie is paid, and that who worked honestly beside them is not.
var slowCourt = Attack{
	Name: "slow-court", What: "providers make up the results of tasks that take the court longer than its window",
	begin: func(r *Raid, _ *Node) {
		r.lies = append(r.lies, func(_ *Node, j *ledger.Job) bool { return j.Spec.Task.Program == "slow" })
		r.spread(r.strangers, r.each, r.slow, r.aimAt)
	},
}

// A slow task uses memory more than instructions. An honest run takes longer than the hour that a court has for a short task.
const (
	slowSpeed = 2e7
	slowGas   = 1e11
	slowWall  = 3 * time.Hour
)

func (r *Raid) slow() crowd.JobSpec {
	s := r.spec("slow", slowGas)
	s.Task.Limits.Wall = slowWall
	return s
}
