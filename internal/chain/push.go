package chain

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// headEvery is how often a light node is told of a new head that brings nothing which concerns it.
const headEvery = 2 * time.Second

// maxTold bounds the jobs of which it is remembered how they were told to one light node. Beyond, the one that was told
// longest ago is forgotten: the node may be told of it once more than need be, or learns at the deadline that the claims are closed.
const maxTold = 1024

// follower is what one light node is told of.
type follower struct {
	// set once
	prefixes []string
	self     crowd.NodeID // of job records only those that concern this node; zero: all

	// push's goroutine only
	told  map[crowd.JobID]ledger.JobState // as which each was told last
	order []crowd.JobID                   // of told, by age
	bases bases
}

// concern says whether the record of a job is pushed to the follower, as state and told have it, and whether that is the last time.
//
// Who follows all jobs is told of every change. Else claims alone are told to nobody: a record with one claim more changes nothing for those who may claim. Nodes with a place
// hear of every other change; the owner, of each new state and of what its executors do while they run; nodes that may claim, when the
// claims open and close; those that did and got no place, of each new state, since a place may become free. Others are not concerned.
func (f *follower) concern(state ledger.State, j *ledger.Job) (send, last bool) {
	as, knew := f.told[j.ID]
	if f.self.IsZero() {
		return true, j.State.Ended()
	}
	owner, part := j.Owner == f.self, j.Place(f.self) != nil
	drawn := slices.ContainsFunc(j.Drawn, func(d ledger.Drawn) bool { return d.Node == f.self })
	last = j.State.Ended() || j.State > ledger.Claiming && !owner && !part && !drawn
	switch {
	case owner && !part:
		send = !knew || as != j.State || j.State == ledger.Running
	case part:
		send = !knew || as != j.State || j.State != ledger.Claiming
	case j.State < ledger.Claiming:
	case j.State == ledger.Claiming:
		send = !knew && mayClaim(state, j, f.self)
	case drawn:
		send = !knew || as != j.State
	default:
		send = knew
	}
	return send, last
}

// mayClaim is false only for nodes whose claim the ledger would refuse for sure.
func mayClaim(state ledger.State, j *ledger.Job, id crowd.NodeID) bool {
	p, ok := state.Provider(id.Address())
	f := &j.Spec.Filters
	return ok && !p.Tombstoned && p.Leaving == 0 && p.Offer.Price <= f.MaxPrice &&
		(len(f.Providers) == 0 || slices.Contains(f.Providers, id)) &&
		(len(f.Countries) == 0 || slices.Contains(f.Countries, p.Offer.Country))
}

func (f *follower) note(id crowd.JobID, as ledger.JobState, last bool) {
	if _, ok := f.told[id]; ok {
		i := slices.Index(f.order, id)
		f.order = slices.Delete(f.order, i, i+1)
		delete(f.told, id)
	}
	if last && !as.Ended() { // it need not know any more
		return
	}
	if len(f.order) >= maxTold {
		delete(f.told, f.order[0])
		f.order = f.order[1:]
	}
	f.told[id], f.order = as, append(f.order, id)
}

// value is what is pushed of a key under a snapshot; false: nothing.
func (f *follower) value(full *Full, snap *snapshot, key string) (value, bool) {
	id, isJob := ledger.JobOfKey([]byte(key))
	val := snap.state.Get([]byte(key))
	switch {
	case !isJob:
		return snap.value(key), true
	case val == nil:
		_, knew := f.told[id]
		if knew {
			f.note(id, 0, true)
		}
		if !knew && !f.self.IsZero() {
			return value{}, false
		}
		f.bases.drop(key)
		return snap.value(key), true
	}
	j := full.shared.job(val)
	send, last := f.concern(snap.state, j)
	if !send {
		return value{}, false
	}
	f.note(id, j.State, last)
	v := snap.value(key)
	v.As, v.Val = f.bases.pack(key, val, last, full.shared.diff)
	return v, true
}

// value is newValue, worked out once for all streams.
func (s *snapshot) value(key string) value {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[key]
	if !ok {
		v = newValue(s.prove([]byte(key)))
		if s.values == nil {
			s.values = map[string]value{}
		}
		s.values[key] = v
	}
	return v
}

// push sends the head, then what changes under the prefixes and concerns the light node, in as many frames as it takes; and
// a head alone now and then, where nothing does.
func (s *service) push(ctx context.Context, blocks <-chan Block, f *follower, minimum crowd.Height) error {
	if err := s.pushKeys(ctx, f, minimum, nil, false, true); err != nil {
		return err
	}
	quiet := time.NewTicker(headEvery)
	defer quiet.Stop()
	var stale crowd.Height // the newest header of which the light node has not heard
	for {
		select {
		case b, ok := <-blocks:
			if !ok {
				return nil
			}
			var keys []string
			for _, c := range b.Changes {
				if slices.ContainsFunc(f.prefixes, func(p string) bool { return strings.HasPrefix(c.Key, p) }) {
					keys = append(keys, c.Key)
				}
			}
			stale = b.Height + 1
			if len(keys) == 0 && !b.Lost {
				continue
			}
			if err := s.pushKeys(ctx, f, stale, keys, b.Lost, false); err != nil {
				return err
			}
		case <-quiet.C:
			if stale == 0 {
				continue
			}
			if err := s.pushKeys(ctx, f, stale, nil, false, true); err != nil {
				return err
			}
			stale = 0
		case <-ctx.Done():
			return nil
		}
	}
}

// pushKeys sends the newest provable values of keys that concern the light node. Where none does it sends nothing, unless the head is wanted.
func (s *service) pushKeys(ctx context.Context, f *follower, minimum crowd.Height, keys []string, lost, head bool) error {
	return s.underOrder(ctx, minimum, func(snap *snapshot) error {
		for head = head || lost; head || len(keys) > 0; head = false {
			out := valuesBody{Evidence: snap.evidence, Lost: lost}
			for size := 0; len(keys) > 0 && size < pageBytes; keys = keys[1:] {
				if v, ok := f.value(s.f, snap, keys[0]); ok {
					out.Values = append(out.Values, v)
					size += v.size()
				}
			}
			if len(out.Values) == 0 && !head {
				return nil
			}
			if err := s.queue(ctx, encodeFrame(0, kValues, out)); err != nil {
				return err
			}
		}
		return nil
	})
}

// shared is what many streams need of one block and is worked out once.
type shared struct {
	mu    sync.Mutex
	jobs  map[*byte]*ledger.Job // guarded by mu: by the first byte of their encoding; made anew for each block
	diffs map[[2]*byte][]byte   // guarded by mu: by the first bytes of the old value and the new; the same
}

func (s *shared) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs, s.diffs = map[*byte]*ledger.Job{}, map[[2]*byte][]byte{}
}

// job decodes a record of the state. Nobody may change it.
func (s *shared) job(val []byte) *ledger.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[&val[0]]
	if j == nil {
		j = &ledger.Job{}
		if err := crowd.DecodeTrusted(val, j); err != nil {
			panic("bug: the state holds a job that cannot be decoded: " + err.Error())
		}
		s.jobs[&val[0]] = j
	}
	return j
}

// diff is the function of that name.
func (s *shared) diff(old, val []byte) []byte {
	if len(old) == 0 || len(val) == 0 {
		return diff(old, val)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [2]*byte{&old[0], &val[0]}
	p := s.diffs[key]
	if p == nil {
		p = diff(old, val)
		s.diffs[key] = p
	}
	return p
}
