package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// diskFiller is an owner that names its own providers, who make up a result of many GiB, and complains about each: the
// authorities fetch the results and keep them. It hopes to fill their lines and disks.
var diskFiller = Attack{
	Name: "disk-filler", What: "an owner complains about huge results of its own nodes, so that the authorities fetch and keep them",
	plans: []string{crowd.PlanPair, crowd.PlanCommittee, crowd.PlanAudit},
	begin: func(r *Raid, author *Node) {
		var names []crowd.NodeID
		for _, n := range r.crew {
			names = append(names, n.ID)
		}
		author.adv = &complainer{boss{r: r}}
		r.lies = append(r.lies, func(_ *Node, j *ledger.Job) bool { return j.Owner == author.ID })
		r.lane(author, r.each, func() crowd.JobSpec {
			s := r.spec("big", 1000)
			s.Task.Limits.Output, s.Filters.Providers = bigResult, names
			return s
		}, func(j *ledger.Job) {
			if j.State == ledger.Delivering {
				author.Send(&ledger.Complain{Job: j.ID}, nil)
			}
		})
	},
}

// complainer neither fetches nor accepts.
type complainer struct{ boss }

// Bend implements Adversary.
func (c *complainer) Bend(_ *World, _ *Node, _ crowd.JobID, _ job.Role, e job.Effect) []job.Effect {
	switch e := e.(type) {
	case job.Fetch:
		return nil
	case job.Send:
		if _, ok := e.Message.(*ledger.Accept); ok {
			return nil
		}
	}
	return []job.Effect{e}
}
