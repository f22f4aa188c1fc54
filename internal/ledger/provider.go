package ledger

import (
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// Provider lends a machine and has something to lose.
type Provider struct {
	_          struct{} `cbor:",toarray"`
	ID         crowd.NodeID
	VRF        identity.VRFPublic
	Offer      Offer
	Stake      crowd.Credits
	Since      crowd.Height  // of the newest registration; 0: genesis, which no beacon preceded
	Leaving    crowd.Time    // when the stake may be withdrawn; 0: stays
	Active     uint32        // jobs in which it holds a place
	Tombstoned bool          // proven fraud: never drawn again
	Weight     uint32        // of the stake's tickets, ppm: Reputation.Weight when this record was last written
	Newcomer   bool          // at that time
	Bound      crowd.Credits // of the stake, what answers for work that may go unchecked: each credit for one job at a time
}

// Free is the stake that answers for no unchecked work yet.
func (p *Provider) Free() crowd.Credits { return p.Stake - min(p.Bound, p.Stake) }

func (w *work) provider(id crowd.NodeID) (Provider, bool) {
	return load[Provider](w.get, string(ProviderKey(id.Address())))
}

// putProvider stores p and what its reputation is worth in a draw now, which is
// therefore as fresh as the last place that it got or left.
func (w *work) putProvider(p Provider) {
	r, _ := load[Reputation](w.get, string(ReputationKey(p.ID.Address())))
	p.Weight, p.Newcomer = r.Weight(&w.params.Reputation, w.now()), r.Newcomer(&w.params.Reputation)
	w.put(string(ProviderKey(p.ID.Address())), &p)
}

const maxTags = 32

func (o *Offer) validate() error {
	if len(o.Tags) > maxTags {
		return fmt.Errorf("offer: %d tags, at most %d", len(o.Tags), maxTags)
	}
	if o.Owners > 1e6 {
		return fmt.Errorf("offer: owners with a score of %d ppm, at most 1000000", o.Owners)
	}
	if c := o.Country; c != "" && (len(c) != 2 || c[0] < 'A' || c[0] > 'Z' || c[1] < 'A' || c[1] > 'Z') {
		return fmt.Errorf("offer: country %.10q, want two capital letters or none", c)
	}
	for _, t := range o.Tags {
		if len(t) == 0 || len(t) > crowd.MaxFilter {
			return fmt.Errorf("offer: a tag of %d bytes, want 1 to %d", len(t), crowd.MaxFilter)
		}
	}
	return nil
}

func (w *work) register(from crowd.NodeID, m *Register) *Refusal {
	if err := m.Offer.validate(); err != nil {
		return refuse(BadSpec, "%v", err)
	}
	p, _ := w.provider(from)
	if p.Tombstoned {
		return refuse(NotEligible, "this identity was caught cheating")
	}
	if p.Leaving != 0 {
		return refuse(TooEarly, "this provider is leaving; withdraw the stake first")
	}
	total, ok := p.Stake.Add(m.Stake)
	if !ok || total < w.params.MinStake {
		return refuse(NoFunds, "a stake of %s, at least %s", total, w.params.MinStake)
	}
	if r := w.debit(from.Address(), m.Stake, "the stake"); r != nil {
		return r
	}
	p.ID, p.VRF, p.Offer, p.Stake, p.Since = from, m.VRF, m.Offer, total, w.height()
	w.putProvider(p)
	return nil
}

func (w *work) leave(from crowd.NodeID) *Refusal {
	p, ok := w.provider(from)
	switch {
	case !ok:
		return refuse(NotFound, "%s is no provider", from.Short())
	case p.Leaving == 0:
		p.Leaving = w.in(w.params.Unbonding)
		w.putProvider(p)
	case p.Active > 0:
		return refuse(TooEarly, "the stake answers for %d running jobs", p.Active)
	case w.now() < p.Leaving:
		return refuse(TooEarly, "the stake is free in %d ms", p.Leaving-w.now())
	default:
		w.credit(from.Address(), p.Stake)
		if p.Stake, p.Leaving = 0, 0; p.Tombstoned { // the tombstone outlives the stake
			w.putProvider(p)
		} else {
			w.delete(string(ProviderKey(from.Address())))
		}
	}
	return nil
}

func (w *work) awake(from crowd.NodeID) *Refusal {
	if _, ok := w.provider(from); !ok {
		return refuse(NotFound, "%s is no provider", from.Short())
	}
	w.reputation(from.Address(), func(r *Reputation) { r.Missed = 0 })
	return nil
}

// Requirement is one condition of a draw and how many providers are left after it.
type Requirement struct {
	Name string
	Left uint32
}

// Eligibility says who may be drawn for a job, and where the others fell out.
type Eligibility struct {
	Count    uint32
	Need     uint32 // places of the plan
	Tickets  uint64 // of all eligible providers together
	Favoured uint64 // the same, were newcomers favoured
	Standing uint64 // tickets of all who could be drawn but for what this job asks
	Steps    []Requirement
}

// open is the share of the tickets that the job's own demands leave in the draw, in ppm.
func (e *Eligibility) open() uint32 { return share(e.Tickets, e.Standing-e.Tickets) }

// Why names the requirement after which too few are left.
func (e Eligibility) Why() string {
	if len(e.Steps) == 0 || e.Steps[0].Left == 0 {
		return "no provider is registered"
	}
	for i, s := range e.Steps[1:] {
		if s.Left < e.Need {
			return fmt.Sprintf("%d of %d providers meet %q; the plan needs %d", s.Left, e.Steps[i].Left, s.Name, e.Need)
		}
	}
	return ""
}

// condition is one requirement with its test.
type condition struct {
	name string
	ok   func(p *member) bool
}

// general is how many of the conditions are the same for every job.
const general = 6

// conditions on the providers of j, of which owner, score, spec and draw are read.
func (w *work) conditions(j *Job) []condition {
	owner, spec, draw := j.Owner, &j.Spec, j.DrawAt
	most := spec.Filters.MaxPrice.Cost(spec.Limits().Gas)
	cs := []condition{
		{"is registered", func(*member) bool { return true }},
		{"is not the job's owner", func(p *member) bool { return p.ID != owner }},
		{"was never caught cheating", func(p *member) bool { return !p.Tombstoned }},
		{"is not leaving", func(p *member) bool { return p.Leaving == 0 }},
		{"is awake", func(p *member) bool { return p.missed < w.params.MaxMissed }},
		{fmt.Sprintf("registered %d blocks before the draw", w.params.Lookback), func(p *member) bool {
			return p.Since == 0 || p.Since+w.params.Lookback <= draw
		}},
		{fmt.Sprintf("stake at least %s", max(w.params.MinStake, most)), func(p *member) bool {
			return p.Stake >= max(w.params.MinStake, most)
		}},
		{fmt.Sprintf("price at most %d micro-credits per mega-gas", spec.Filters.MaxPrice), func(p *member) bool {
			return p.Offer.Price <= spec.Filters.MaxPrice
		}},
		{fmt.Sprintf("has %d MiB of memory for a run", (spec.Task.Limits.Memory+1<<20-1)>>20), func(p *member) bool {
			return p.Offer.Memory == 0 || p.Offer.Memory >= spec.Task.Limits.Memory
		}},
		{fmt.Sprintf("takes work of owners with a score of %s", percent(j.Score)), func(p *member) bool { return p.Offer.Owners <= j.Score }},
	}
	for _, tag := range spec.Filters.Tags {
		cs = append(cs, condition{"tag " + tag, func(p *member) bool { return slices.Contains(p.Offer.Tags, tag) }})
	}
	if c := spec.Filters.Countries; len(c) > 0 {
		cs = append(cs, condition{fmt.Sprintf("country in %v", c), func(p *member) bool { return slices.Contains(c, p.Offer.Country) }})
	}
	if n := spec.Filters.Providers; len(n) > 0 {
		cs = append(cs, condition{"is named by the job", func(p *member) bool { return slices.Contains(n, p.ID) }})
	}
	return cs
}

// eachEligible calls f for every provider that may be drawn and counts who fell out where.
// Providers of this very block are not seen: no look-back lets them in.
func (w *work) eachEligible(j *Job, f func(Provider)) Eligibility {
	cs := w.conditions(j)
	e := Eligibility{Need: uint32(Needs(&j.Spec.Plan))}
	for _, c := range cs {
		e.Steps = append(e.Steps, Requirement{Name: c.name})
	}
	for _, m := range w.members() {
		tickets := uint64(w.params.Tickets(&m.Provider, false))
		passed := 0
		for i, c := range cs {
			if !c.ok(m) {
				break
			}
			if e.Steps[i].Left++; i == general-1 {
				e.Standing += tickets
			}
			passed++
		}
		if passed < len(cs) {
			continue
		}
		e.Count++
		e.Tickets += tickets
		e.Favoured += uint64(w.params.Tickets(&m.Provider, true))
		f(m.Provider)
	}
	return e
}

// member is a provider with what a draw asks of its reputation.
type member struct {
	Provider
	missed uint32
}

// roster is every provider of the base state as it is now, in order of keys. A block may ask many thousand times who is
// eligible, so each record is decoded once, and again only after it was written.
type roster struct {
	keys    []string // of the provider records
	at      map[string]int
	members []*member           // nil: gone
	stale   map[string]struct{} // provider keys to decode again
}

// wrote notes that a record of a provider or its reputation has changed.
func (r *roster) wrote(key string) {
	if r == nil {
		return
	}
	if len(key) > len(PrefixReputation) && key[:len(PrefixReputation)] == PrefixReputation {
		key = PrefixProvider + key[len(PrefixReputation):]
	}
	if _, ok := r.at[key]; ok {
		r.stale[key] = struct{}{}
	}
}

// members are the providers of the base state that are still there, in order of keys.
func (w *work) members() []*member {
	r := w.roster
	if r == nil {
		r = &roster{at: map[string]int{}, stale: map[string]struct{}{}}
		w.base.Each(PrefixProvider, func(key string, _ []byte) bool {
			r.at[key] = len(r.keys)
			r.keys, r.members = append(r.keys, key), append(r.members, nil)
			r.stale[key] = struct{}{}
			return true
		})
		w.roster = r
	}
	for key := range r.stale { // in any order: each stands for itself
		r.members[r.at[key]] = w.member(key)
	}
	clear(r.stale)
	out := make([]*member, 0, len(r.members))
	for _, m := range r.members {
		if m != nil {
			out = append(out, m)
		}
	}
	return out
}

func (w *work) member(key string) *member {
	p, ok := load[Provider](w.get, key)
	if !ok {
		return nil
	}
	rep, _ := load[Reputation](w.get, PrefixReputation+key[len(PrefixProvider):])
	return &member{p, rep.Missed}
}

// Eligible says who could be drawn for spec were owner to post it in the block after height h.
func (s State) Eligible(owner crowd.NodeID, spec *crowd.JobSpec, h crowd.Height) Eligibility {
	return s.EachEligible(owner, spec, h, func(Provider) {})
}

// EachEligible is Eligible, and calls f for each of those that could be drawn.
func (s State) EachEligible(owner crowd.NodeID, spec *crowd.JobSpec, h crowd.Height, f func(Provider)) Eligibility {
	w := begin(s, Block{Height: h + 1})
	return w.eachEligible(&Job{Owner: owner, Score: w.score(owner), Spec: *spec, DrawAt: h + 1 + drawDelay}, f)
}
