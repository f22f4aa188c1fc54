package scenario

import (
	"slices"

	"github.com/crowdcompute/crowd/internal/ledger"
)

// idler is a set of providers that take places in strangers' jobs and neither commit nor give up. They cost their owners time, and
// the authorities runs where the court has to take the place of an executor.
var idler = Attack{
	Name: "idler", What: "providers take places in strangers' jobs and stay silent",
	begin: func(r *Raid, _ *Node) {
		r.idle = true
		r.spread(r.strangers, r.each, r.usual, nil)
	},
}

// quitter is a set of providers that work honestly, but for the jobs of strangers of which they hold all places and all that would
// replace them. Those they hold as long as the whole run could take, and then give up. They hope for what is paid for time lost on a
// job that nobody could do.
var quitter = Attack{
	Name: "quitter", What: "providers that hold all places of a stranger's job give them up after a while, to be paid for lost time", rings: true,
	begin: func(r *Raid, _ *Node) {
		executors, verifiers := ledger.Seats(&r.plan)
		most := executors + verifiers + int(r.plan.Replacements)
		r.quits = func(j *ledger.Job) bool {
			first := j.Drawn[:min(most, len(j.Drawn))]
			return !r.ours[j.Owner] && !slices.ContainsFunc(first, func(d ledger.Drawn) bool { return !r.ours[d.Node] })
		}
		r.spread(r.strangers, r.each, r.usual, nil)
	},
}
