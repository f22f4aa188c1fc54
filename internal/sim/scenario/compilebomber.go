package scenario

import (
	"github.com/crowdcompute/crowd"
)

// compileBomber is an owner whose program is a module that takes minutes to compile and hardly any gas to run. It hopes that
// honest nodes compile for nothing.
var compileBomber = Attack{
	Name: "compile-bomber", What: "an owner posts programs that take minutes to compile and nothing to run",
	begin: func(r *Raid, author *Node) {
		r.aloof[author.ID] = true
		r.lane(author, r.each, func() crowd.JobSpec { return r.spec("bomb", 1000) }, nil)
	},
}
