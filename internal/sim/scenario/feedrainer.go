package scenario

import (
	"github.com/crowdcompute/crowd"
)

// feeDrainer is an owner of the least jobs that the ledger takes. It hopes that what honest nodes pay for their claims,
// commitments and reveals is more than what they earn, and many times what it pays itself.
var feeDrainer = Attack{
	Name: "fee-drainer", What: "an owner posts the least jobs there are, so that fees exceed the pay",
	begin: func(r *Raid, author *Node) {
		r.aloof[author.ID] = true
		r.lane(author, r.each, func() crowd.JobSpec { return r.spec("least", 1) }, nil)
	},
}
