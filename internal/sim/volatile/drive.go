package volatile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/sim"
	"github.com/crowdcompute/crowd/internal/sim/scenario"
)

// comeAndGo lets n come and go, in a way that follows from the seed and its number alone.
func (p *Play) comeAndGo(n *scenario.Node, i uint32) {
	o := sim.Outages{Share: p.Away}
	src := sim.Source(^p.Seed, i)
	r := rand.New(&src)
	var turn func(up bool, left time.Duration)
	turn = func(up bool, left time.Duration) {
		p.w.After(left, func() {
			if up {
				n.Off()
				turn(false, o.Outage(r))
			} else {
				n.On()
				turn(true, o.Session(r))
			}
		})
	}
	up, left := o.Start(r)
	if !up {
		n.Off()
	}
	turn(up, left)
}

// step tells the machine, and carries out what it wants.
func (p *Play) step(ev flow.Event) {
	for _, e := range p.m.Step(p.w.Now(), ev) {
		p.do(e)
	}
	if d := p.m.Deadline(); !d.IsZero() && !d.Equal(p.wake) {
		p.wake = d
		p.w.At(d, func() {
			if p.wake.Equal(d) && p.ended == "" {
				p.wake = time.Time{}
				p.step(flow.Woke{})
			}
		})
	}
}

// soon answers in the next event.
func (p *Play) soon(ev flow.Event) { p.w.After(0, func() { p.step(ev) }) }

func (p *Play) do(e flow.Effect) {
	switch e := e.(type) {
	case flow.Cut:
		p.soon(flow.WasCut{Stage: e.Stage, Items: uint64(p.shards(e.Stage)) * uint64(p.specs[e.Stage].Items)})
	case flow.Lay:
		var laid []flow.Layout
		spec := &p.specs[e.Stage]
		for at := uint64(0); at < e.Items; at += uint64(spec.Items) {
			laid = append(laid, flow.Layout{Items: uint64(spec.Items), Bound: p.w.Config.Params.EscrowFor(spec)})
		}
		p.soon(flow.Laid{Stage: e.Stage, Shards: laid})
	case flow.Post:
		p.post(e)
	case flow.Follow:
		p.followed[e.Job] = &followed{ref: e.Ref, heard: p.w.Now()}
		p.order = append(p.order, e.Job)
		p.look(e.Job)
	case flow.Cancel:
		if p.way.fixed {
			return
		}
		if j, ok := p.w.State().Job(e.Job); ok && e.Worth > 0 && p.w.Config.Params.CancelPay(&j, crowd.Time(p.w.Now().UnixMilli())) > e.Worth {
			return
		}
		p.owner.Cancel(e.Job)
	case flow.Fetch:
		p.soon(flow.Fetched{Ref: e.Ref}) // it was not accepted before it was here
	case flow.Probe:
		p.w.After(5*time.Second, func() { p.step(flow.Probed{Stage: e.Stage, Lost: p.lost(e.Stage)}) })
	case flow.Tell:
		p.w.Logf("flow: stage %d shard %d try %d %s: %s", e.Ref.Stage, e.Ref.Shard, e.Ref.Try, e.News, e.Why)
		switch e.News {
		case flow.NewsDone:
			p.res.Seconds = p.w.Now().Sub(sim.Epoch).Seconds()
			if e.Ref.Stage == 0 {
				p.res.MapSeconds = p.res.Seconds
			}
		case flow.NewsConflict, flow.NewsWrong:
			p.res.Conflicts++
		case flow.NewsLost:
			p.res.LostSources++
		}
	case flow.GiveUp:
		p.ended = fmt.Sprintf("%s: %s", e.Reason, e.Why)
	case flow.Done:
		p.ended = "done"
	default:
		panic(fmt.Sprintf("bug: effect %T", e))
	}
}

func (p *Play) shards(stage int) int { return []int{p.Maps, p.Reduces}[stage] }

// post puts a job on chain.
func (p *Play) post(e flow.Post) {
	spec := p.shard(e.Ref.Stage, e.Ref.Shard)
	spec.Task.Stdin = p.input(e.Ref)
	var avoid []crowd.NodeID
	for _, id := range e.Avoid {
		if j, ok := p.w.State().Job(id); ok {
			for i := range j.Places {
				if !j.Places[i].Verifier {
					avoid = append(avoid, j.Places[i].Node)
				}
			}
		}
	}
	if len(avoid) > 0 {
		for i := range p.Providers {
			if id := p.w.Provider(i).ID; !slices.Contains(avoid, id) {
				spec.Filters.Providers = append(spec.Filters.Providers, id)
			}
		}
	}
	p.res.Jobs++
	p.w.PostSpec(p.owner, spec, func(id crowd.JobID, err error) {
		var r *ledger.Refusal
		switch {
		case err == nil:
			p.step(flow.Posted{Ref: e.Ref, Job: id})
		case errors.As(err, &r):
			p.step(flow.Refused{Ref: e.Ref, Passing: r.Code == ledger.NoProvider || r.Code == ledger.NoFunds, Why: err.Error()})
		default:
			panic("bug: the chain does not answer: " + err.Error())
		}
	})
}

// block sees what every block has changed.
func (p *Play) block(_ *scenario.World, a *ledger.Applied) {
	for _, c := range a.Changes {
		if id, ok := ledger.JobOfKey([]byte(c.Key)); ok {
			p.look(id)
		}
	}
}

// look tells the machine of the end of a job that it follows.
func (p *Play) look(id crowd.JobID) {
	f := p.followed[id]
	if f == nil {
		return
	}
	j, ok := p.w.State().Job(id)
	if !ok || !j.State.Ended() {
		return
	}
	delete(p.followed, id)
	p.order = slices.DeleteFunc(p.order, func(o crowd.JobID) bool { return o == id })
	ev := flow.Ended{Ref: f.ref, Paid: j.Spent(), Why: j.History[len(j.History)-1].Why}
	switch j.State {
	case ledger.Settled:
		ev.State, ev.Root = flow.Settled, j.Verdict.Outcome.Root
	case ledger.Cancelled:
		ev.State = flow.Cancelled
	default:
		ev.State, ev.Source = flow.Failed, slices.ContainsFunc(j.Places, func(pl ledger.Place) bool {
			return pl.State == ledger.Dropped && pl.GaveUp == ledger.NoParts
		})
	}
	p.w.After(100*time.Millisecond, func() { p.step(ev) })
}

// lost are the shards of the map stage whose outputs nobody has who is there.
func (p *Play) lost(stage int) (ks []int) {
	for k := range p.m.State().Stages[stage].Shards {
		if p.m.State().Stages[stage].Shards[k].Use == 0 {
			continue
		}
		j := p.used(stage, k)
		if !slices.ContainsFunc(p.holders(k), func(id crowd.NodeID) bool {
			n := p.w.Node(id)
			return n.Up() && n.Has(j.Verdict.Outcome.Result)
		}) {
			ks = append(ks, k)
		}
	}
	return ks
}

// ping asks those on whom the open jobs wait.
func (p *Play) ping() {
	for _, id := range slices.Clone(p.order) {
		j, ok := p.w.State().Job(id)
		f := p.followed[id]
		if f == nil || !ok {
			continue
		}
		if !job.Stalled(&j, func(n crowd.NodeID) bool { return p.w.Node(n).Up() }) {
			f.heard = p.w.Now()
		}
		if silent := p.w.Now().Sub(f.heard) >= flow.PulseEvery*3/2; silent != f.silent {
			f.silent = silent
			p.step(flow.Silent{Ref: f.ref, Heard: !silent})
		}
	}
	p.w.After(flow.PulseEvery, p.ping)
}
