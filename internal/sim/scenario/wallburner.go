package scenario

import (
	"github.com/crowdcompute/crowd"
)

// wallBurner is an owner whose program prints its result and then runs on until Limits.Wall ends it, long before its gas does:
// on every honest machine, one after the other. It reads the output live. It hopes to pay nothing for the work, and that the
// nodes that could not do the job lose by it.
var wallBurner = Attack{
	Name: "wall-burner", What: "an owner reads live what its program prints, and the program then runs into the wall limit",
	begin: func(r *Raid, author *Node) {
		r.aloof[author.ID] = true
		r.lane(author, r.each, func() crowd.JobSpec { return r.spec("walls", 5*raidGas) }, nil)
	},
}
