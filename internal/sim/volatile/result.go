package volatile

import (
	"errors"
	"fmt"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Result is what came of a Play.
type Result struct {
	Config   Config  `json:"config"`
	Done     int     `json:"done"`   // shards whose result is there
	Shards   int     `json:"shards"` // all
	Complete float64 `json:"complete"`
	Why      string  `json:"why,omitempty"` // it is not complete

	Seconds    float64 `json:"seconds"` // to the last result
	MapSeconds float64 `json:"mapSeconds"`

	Jobs      int `json:"jobs"` // posted
	Settled   int `json:"settled"`
	Failed    int `json:"failed"`
	Cancelled int `json:"cancelled"`
	Copies    int `json:"copies"`  // of them posted while another of the shard was under way
	Instead   int `json:"instead"` // of these, because nobody of that one answered
	Used      int `json:"used"`    // copies whose result is used

	LostSources int `json:"lostSources"` // map shards computed again since nobody who had their outputs was there
	Wrong       int `json:"wrong"`       // used results that are not what an honest run gives
	Conflicts   int `json:"conflicts"`   // settled results of one shard that differ
	Slashed     int `json:"slashed"`     // nodes that lost stake; all are honest

	Useful crowd.Gas     `json:"useful"` // gas of every item once
	Ran    crowd.Gas     `json:"ran"`    // gas that providers ran, whatever came of it
	Extra  float64       `json:"extra"`  // gas run for each that is useful, less one
	Paid   crowd.Credits `json:"paid"`

	Shuffled    uint64  `json:"shuffled"`    // bytes of the map stage's outputs
	Moved       uint64  `json:"moved"`       // of them that went from provider to provider, to verifiers and reducers
	Coordinator uint64  `json:"coordinator"` // bytes that came to the owner and left it so that the reduce stage could have them
	Share       float64 `json:"share"`       // Coordinator of Shuffled
}

// Result is what has come of p so far. The error names guarantees that did not hold.
func (p *Play) Result() (Result, error) {
	r, s := p.res, p.m.State()
	r.Config = p.Config
	r.Done, r.Shards = p.Shards()
	r.Complete = float64(r.Done) / float64(r.Shards)
	if p.ended != "done" {
		r.Why = p.ended
	}
	for _, j := range p.w.Jobs {
		switch j.Last.State {
		case ledger.Settled:
			r.Settled++
		case ledger.Failed:
			r.Failed++
		case ledger.Cancelled:
			r.Cancelled++
		}
	}
	errs := append([]error(nil), p.w.Broken...)
	r.Copies, r.Used, r.Paid, r.Slashed = s.Copies, s.Used, s.Paid, len(p.w.Slashed)
	for k := range s.Stages {
		for i := range s.Stages[k].Shards {
			sh := &s.Stages[k].Shards[i]
			for _, a := range sh.Attempts {
				if a.Instead {
					r.Instead++
				}
				if a.Try == sh.Use {
					spec := p.shard(k, i)
					if a.Root != p.w.Root(&spec) {
						r.Wrong++
						errs = append(errs, fmt.Errorf("shard %d of stage %d: a wrong result is used", i, k))
					}
				}
			}
		}
		for i := range p.shards(k) {
			t := p.shard(k, i).Task
			for item := range p.specs[k].Items {
				r.Useful += leaf(&t, item).Gas
			}
		}
	}
	for i := range p.Providers {
		r.Ran += p.w.Provider(i).Ran
	}
	if r.Slashed > 0 {
		errs = append(errs, fmt.Errorf("%d honest nodes lost stake", r.Slashed))
	}
	r.Extra = float64(r.Ran)/float64(r.Useful) - 1
	r.Shuffled = p.output() * uint64(p.Maps)
	r.Share = float64(r.Coordinator) / float64(r.Shuffled)
	return r, errors.Join(errs...)
}
