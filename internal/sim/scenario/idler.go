package scenario

import (
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

// quitter is a set of providers that give their places up at once wherever they hold all of them, and work honestly elsewhere. They
// hope for what is paid for time lost on a job that nobody could do.
var quitter = Attack{
	Name: "quitter", What: "providers that hold all places of a stranger's job give them up at once, to be paid for lost time",
	begin: func(r *Raid, _ *Node) {
		r.quits = func(j *ledger.Job) bool { return !r.ours[j.Owner] && r.seats(j) }
		r.spread(r.strangers, r.each, r.usual, nil)
	},
}
