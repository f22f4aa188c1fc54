package scenario

import (
	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// stakeReuser is a set of providers that take places in many jobs of strangers at the same time and make all of them up. They hope that
// one stake answers for all: it is lost once, while each result that their own nodes agree on is paid and each other one costs a court.
var stakeReuser = Attack{
	Name: "stake-reuser", What: "providers hold places in many jobs at the same time, and lie in all of them for one stake",
	begin: func(r *Raid, _ *Node) {
		r.lies = append(r.lies, func(_ *Node, j *ledger.Job) bool { return !r.ours[j.Owner] })
		for i := range reuses * r.each {
			r.lane(r.strangers[i%len(r.strangers)], 1, r.dear, r.aimAt)
		}
		r.units += (reuses - 1) * r.each
	},
}

// reuses is how many times as many jobs are posted at once.
const reuses = 8

// dearGas is the limit of a job that pays a place nearly as much as a node has staked.
const dearGas = 8e10

func (r *Raid) dear() crowd.JobSpec { return r.spec("program", dearGas) }
