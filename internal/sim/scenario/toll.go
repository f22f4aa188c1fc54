package scenario

import (
	"math"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/verify"
)

// What is not paid in credits is reckoned in them by one rule: a second of a core, which is LeastSpeed of gas, costs a
// credit at the reference price, and so does a second of a whole line and of a whole disk of an ordinary machine.
const (
	lineRate = 12_500_000 // bytes in a second: 100 Mbit/s
	diskSize = 1 << 40    // bytes
)

// moving is what it costs to carry so many bytes over one line.
func moving(bytes uint64) float64 { return float64(bytes) / lineRate }

// keeping is what it costs to hold so many bytes for so many milliseconds.
func keeping(bytes uint64, ms int64) float64 { return float64(bytes) / diskSize * float64(ms) / 1000 }

// toll is what a raid did in all its worlds, in credits.
type toll struct {
	jobs, strangers      int // of the attacker's owners; of others
	settled              int
	tried, forged        int
	slashes              int // of honest nodes
	profit, damage, paid float64
	squares              float64 // of the profits of the worlds
	faults               int
	thin                 float64 // sum of what few claims added to the stated chances
	own                  float64 // the same of the attacker's
	weight               float64 // sum over the worlds of the share of their draw weight that honest nodes lost
}

// Toll is what an attack cost everybody. Money is in credits, for each job that the attack is about: one that the attacker
// posted or, where it attacks those of others, that they posted.
type Toll struct {
	Config RaidConfig `json:"config"`
	Jobs   int        `json:"jobs"`   // posted by anybody
	Units  int        `json:"units"`  // of them, those that the attack is about
	Wrong  Share      `json:"wrong"`  // of the jobs in which the attacker wanted that, those that were settled with a wrong result
	Stated float64    `json:"stated"` // chance of that by the plan's formula, with the attacker's share of the tickets that were claimed, as a receipt reckons; mean of these jobs

	Profit float64 `json:"profit"` // the attacker's: what came in and what it read without paying, less what it paid
	Error  float64 `json:"error"`  // standard error of Profit
	Damage float64 `json:"damage"` // to others: credits, and work at its gas price that nobody paid
	Paid   float64 `json:"paid"`   // by the attacker: credits, lost stakes, and its own work
	Ratio  float64 `json:"ratio"`  // Damage / Paid; at most MostRatio

	HonestSlashes int     `json:"honest_slashes"`
	Faults        float64 `json:"faults"` // counted against honest nodes
	Weight        float64 `json:"weight"` // share of its draw weight that an honest node has lost after the jobs of a world; negative: gained
	Own           float64 `json:"own"`    // the same of the attacker's, all of it of whoever was caught
}

// MostRatio stands for a damage that cost nothing.
const MostRatio = 1e6

// weighed is what everybody had when a world began.
type weighed struct {
	credits map[crowd.NodeID]crowd.Credits
	weight  map[crowd.NodeID]float64
}

func (r *Raid) weigh() weighed {
	w := weighed{map[crowd.NodeID]crowd.Credits{}, map[crowd.NodeID]float64{}}
	params, now := r.w.Config.Params, crowd.Time(r.w.Now().UnixMilli())
	for _, n := range r.w.Nodes {
		w.credits[n.ID] = r.w.state.Account(n.ID.Address()).Balance
		if p, ok := r.w.state.Provider(n.ID.Address()); ok {
			w.credits[n.ID] += p.Stake
			rep := r.w.state.Reputation(n.ID.Address())
			if w.weight[n.ID] = float64(rep.Weight(&params.Reputation, now)); p.Tombstoned {
				w.weight[n.ID] = 0
			}
		}
	}
	return w
}

// count adds the world that has ended to the sum.
func (r *Raid) count(before weighed) {
	w, t := r.w, &r.sum
	after := r.weigh()
	const credit = float64(crowd.Credit)
	var gain, ownWork, loss float64
	honest, faults := 0, 0
	lost := 0.0
	for i, n := range w.Nodes {
		change := (float64(after.credits[n.ID]) - float64(before.credits[n.ID])) / credit
		work := float64(n.Worked)/credit + moving(n.Sent+n.Got)
		if r.ours[n.ID] {
			gain, ownWork = gain+change, ownWork+work
			if before.weight[n.ID] > 0 {
				t.own += (1 - after.weight[n.ID]/before.weight[n.ID]) / float64(len(r.crew))
			}
			continue
		}
		loss += work - change
		if i >= w.Config.Authorities && i < w.Config.Authorities+w.Config.Providers {
			honest++
			faults += int(w.state.Reputation(n.ID.Address()).Faults)
			lost += 1 - after.weight[n.ID]/before.weight[n.ID]
		}
	}
	for _, p := range w.Jobs {
		j := &p.Last
		if r.ours[j.Owner] {
			t.jobs++
		} else {
			t.strangers++
		}
		wrong := r.isWrong(p)
		if j.State == ledger.Settled {
			t.settled++
			if !r.ours[j.Owner] && !wrong { // its owner has what it paid for, and the burned share is the network's
				loss -= float64(j.Spent()) / credit
				for _, x := range j.Payments {
					if x.Why == ledger.WhyBurned {
						loss -= float64(x.Amount) / credit
					}
				}
			}
		}
		if r.targets[p.ID] {
			// Where tickets win by lot, few are chance in a raid.
			if came := verify.Claimed(&w.Config.Params, j); len(j.Places) > 0 && j.Tickets <= w.Config.Params.CommitteeUnits && came < verify.Million {
				t.thin += r.stated(uint32(min(verify.Million, verify.Million*uint64(r.share())/max(came, 1)))) - r.stated(r.share())
			}
			if t.tried++; wrong {
				t.forged++
			}
		}
	}
	for _, s := range w.Slashed {
		if !r.ours[s.Node] {
			t.slashes++
		}
	}
	loss += r.kept()
	read := 0.0
	for _, v := range r.read {
		read += float64(v) / credit
	}
	profit := gain + read - ownWork
	t.profit += profit
	t.squares += profit * profit
	t.damage += loss
	t.paid += max(0, -gain) + ownWork
	t.faults += faults
	t.weight += lost / float64(max(honest, 1))
}

// isWrong reports whether p was settled with something else than the truth.
func (r *Raid) isWrong(p *Posted) bool {
	if p.Last.State != ledger.Settled {
		return false
	}
	if p.Spec.Items > 0 {
		f, ok := r.w.Look(p)
		return ok && len(f.Lies) > 0
	}
	return p.WrongAccepted()
}

// kept is what the authorities' disks held. A pin that has outlasted the inspection lasts until the job leaves the state.
func (r *Raid) kept() (sum float64) {
	for _, n := range r.w.Nodes[:r.w.Config.Authorities] {
		sum += n.keptFor
		for p, at := range n.pinned {
			sum += keeping(r.w.Config.Bytes(p.cid), r.w.Now().Sub(at).Milliseconds()+r.w.Config.Params.Retention)
		}
	}
	return sum
}

// Toll is what is known after the jobs played so far.
func (r *Raid) Toll() Toll {
	t := &r.sum
	c := Toll{Config: r.RaidConfig, Jobs: t.jobs + t.strangers, Units: r.units, Wrong: share(t.forged, t.tried), HonestSlashes: t.slashes}
	n := float64(max(r.units, 1))
	c.Profit, c.Damage, c.Paid, c.Faults = t.profit/n, t.damage/n, t.paid/n, float64(t.faults)/n
	c.Weight, c.Own = t.weight/float64(max(r.worlds, 1)), t.own/float64(max(r.worlds, 1))
	if m := float64(r.worlds); m > 1 {
		mean := t.profit / m
		c.Error = math.Sqrt(max(t.squares/m-mean*mean, 0)/(m-1)) * m / n
	}
	c.Ratio = ratio(c.Damage, c.Paid)
	c.Stated = r.stated(r.share()) + t.thin/float64(max(t.tried, 1))
	return c
}

// share is the attacker's among the providers, in ppm.
func (r *Raid) share() uint32 {
	return uint32(math.Round(float64(r.crewSize()) / float64(r.Providers) * verify.Million))
}

// stated is the plan's chance of a wrong result where so much of the weight is the attacker's.
func (r *Raid) stated(ppm uint32) float64 {
	if r.Plan == crowd.PlanSample {
		s := verify.Scheme{
			Items: raidItems, Checks: uint64(r.plan.Checks), Verifiers: r.plan.Verifiers, Replacements: r.plan.Replacements,
			CheckPPM: verify.Million, ColludingPPM: ppm,
		}
		return s.Undetected(raidItems / 10).Float()
	}
	return verify.Accepted(&r.plan, ppm).Float()
}
