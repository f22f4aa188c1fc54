package scenario

import (
	"fmt"

	"github.com/crowdcompute/crowd"
)

// compileBomber is an owner whose programs are the largest modules there may be, of code that takes a compiler as long as it may, each
// with a gas limit that does not pay for that. An executor only fetches such a module, checks it and reckons its price, which takes a
// second. (It was minutes when compiling cost no gas.) The owner hopes that honest nodes do that for nothing.
var compileBomber = Attack{
	Name: "compile-bomber", What: "an owner posts programs that take long to compile and nothing to run",
	begin: func(r *Raid, author *Node) {
		r.aloof[author.ID] = true
		r.lane(author, r.each, func() crowd.JobSpec {
			s := r.spec("bomb", 1000)
			s.Task.Program += crowd.CID(fmt.Sprintf("-%d", r.specs))
			return s
		}, nil)
	},
}
