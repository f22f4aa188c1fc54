package chain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// maxMine bounds the jobs of which one light node is told that they concern it, after its stream began. A node that has more
// on hand hears of the others when they change.
const maxMine = 2048

// jobIndex finds the open jobs, and the ended ones of one owner, without a look at all others. It follows the head.
type jobIndex struct {
	mu    sync.Mutex
	open  map[crowd.JobID]struct{}    // guarded by mu
	ended map[crowd.NodeID][]endedJob // guarded by mu: by owner, by height; as long as the state has them
}

type endedJob struct {
	height crowd.Height
	id     crowd.JobID
}

func (e endedJob) compare(o endedJob) int {
	return cmp.Or(cmp.Compare(e.height, o.height), slices.Compare(e.id[:], o.id[:]))
}

// fill begins the index with a state. Nothing runs yet.
func (x *jobIndex) fill(s ledger.State) {
	x.open, x.ended = map[crowd.JobID]struct{}{}, map[crowd.NodeID][]endedJob{}
	s.EachJob(func(j ledger.Job) bool {
		if j.State.Ended() {
			x.ended[j.Owner] = append(x.ended[j.Owner], endOf(&j))
		} else {
			x.open[j.ID] = struct{}{}
		}
		return true
	})
	for _, list := range x.ended {
		slices.SortFunc(list, endedJob.compare)
	}
}

func endOf(j *ledger.Job) endedJob { return endedJob{j.History[len(j.History)-1].Height, j.ID} }

// follow takes in a block's changes to the state before it.
func (x *jobIndex) follow(before ledger.State, changes []ledger.Change) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range changes {
		id, ok := ledger.JobOfKey([]byte(c.Key))
		if !ok {
			continue
		}
		_, open := x.open[id]
		var j ledger.Job
		switch {
		case c.Val == nil && open:
			delete(x.open, id)
		case c.Val == nil:
			if j, ok := before.Job(id); ok {
				x.remove(&j)
			}
		case crowd.DecodeTrusted(c.Val, &j) != nil:
			panic("bug: the state holds a job that cannot be decoded")
		case !j.State.Ended():
			x.open[id] = struct{}{}
		default:
			delete(x.open, id)
			x.insert(&j)
		}
	}
}

func (x *jobIndex) insert(j *ledger.Job) {
	list := x.ended[j.Owner]
	if at, found := slices.BinarySearchFunc(list, endOf(j), endedJob.compare); !found {
		x.ended[j.Owner] = slices.Insert(list, at, endOf(j))
	}
}

func (x *jobIndex) remove(j *ledger.Job) {
	list := x.ended[j.Owner]
	if at, found := slices.BinarySearchFunc(list, endOf(j), endedJob.compare); found {
		list = slices.Delete(list, at, at+1)
	}
	if x.ended[j.Owner] = list; len(list) == 0 {
		delete(x.ended, j.Owner)
	}
}

// openJobs are all that have not ended.
func (x *jobIndex) openJobs() []crowd.JobID {
	x.mu.Lock()
	defer x.mu.Unlock()
	ids := make([]crowd.JobID, 0, len(x.open))
	for id := range x.open {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b crowd.JobID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

// endedSince are the jobs of owner that ended in block since or later, the newest last.
func (x *jobIndex) endedSince(owner crowd.NodeID, since crowd.Height) (ids []crowd.JobID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := x.ended[owner]
	at, _ := slices.BinarySearchFunc(list, endedJob{height: since}, endedJob.compare)
	for _, e := range list[at:] {
		ids = append(ids, e.id)
	}
	return ids
}

// Jobs are all open jobs, and those of the node's own that ended in block since or later.
func (f *Full) Jobs(_ context.Context, since crowd.Height) ([]crowd.JobID, error) {
	ids := f.jobs.openJobs()
	if f.cfg.Key != nil {
		ids = append(ids, f.jobs.endedSince(f.cfg.Key.ID(), since)...)
	}
	return ids, nil
}

// mine are the jobs of Full.Jobs that concern a light node; zero: all that are open.
func (f *Full) mine(snap *snapshot, self crowd.NodeID, since crowd.Height) (ids []crowd.JobID) {
	fresh := follower{self: self}
	for _, id := range f.jobs.openJobs() {
		if len(ids) >= maxMine {
			return ids
		}
		if val := snap.state.Get(ledger.JobKey(id)); val != nil {
			if send, _ := fresh.concern(snap.state, f.shared.job(val)); send {
				ids = append(ids, id)
			}
		}
	}
	if !self.IsZero() {
		ids = append(ids, f.jobs.endedSince(self, since)...)
	}
	return ids[:min(len(ids), maxMine)]
}

// Jobs are the open jobs that concern the node, and those of its own that ended in block since or later; at most maxMine.
// A full node can leave some out: what the node takes part in, it asks for with Get.
func (l *Light) Jobs(ctx context.Context, since crowd.Height) (ids []crowd.JobID, err error) {
	err = l.ask(ctx, kMine, func(m crowd.Height) any { return mineBody{Since: since, Min: m} }, func(f frame) error {
		b, err := body[jobsBody](f)
		if err == nil && (f.Kind != kJobs || len(b.Jobs) > maxMine) {
			err = errors.New("another answer than asked for")
		}
		ids = b.Jobs
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the jobs that concern this node: %w", err)
	}
	return ids, nil
}
