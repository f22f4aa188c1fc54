package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// What a stage writes for another goes from node to node. Here only sizes are known: which parts of the sources' outputs
// make an item of the stage that reads them.

const (
	// partitionBytes is how much an item should read: half of what it may, since a hash does not share evenly.
	partitionBytes = maxItem / 2
	// spareParts is how many parts there are for each MiB that a stage reads. It may write so many times as much;
	// it costs little when it writes less, since several small parts make one item.
	spareParts = 8
	// commonParts is how many parts the outputs of stages have that one stage reads together, as they must have equally many.
	commonParts = 512
	// gatherRate is how fast the parts of an item may be slow to come, in bytes each second.
	gatherRate = 1 << 20
	// gatherWait is what finding their holders may take.
	gatherWait = 10 * time.Second
)

// parts is how many parts the outputs of a stage have; 0: nobody reads them.
func (s *mapState) parts(stage int) uint32 {
	st := s.Stages[stage]
	n, read := uint64(0), false
	for i, reader := range s.Flow.Stages {
		for _, from := range reader.From {
			if from == stage {
				read = true
				n = max(n, s.Stages[i].Partitions)
				if len(reader.From) > 1 {
					n = max(n, s.common(i))
				}
			}
		}
	}
	if !read {
		return 0
	}
	if !s.shared(stage) {
		n = max(n, spareParts, min(crowd.MaxParts, spareParts*st.Index.Bytes/maxItem))
	}
	return uint32(min(n, crowd.MaxParts))
}

// ends are the stages that no other reads: their outputs are delivered.
func (s *mapState) ends() (ends []int) {
	for i := range s.Flow.Stages {
		if !slices.ContainsFunc(s.Flow.Stages, func(r flow.Stage) bool { return slices.Contains(r.From, i) }) {
			ends = append(ends, i)
		}
	}
	return ends
}

// shared reports whether a stage is read together with others.
func (s *mapState) shared(stage int) bool {
	for _, reader := range s.Flow.Stages {
		if len(reader.From) > 1 {
			for _, from := range reader.From {
				if from == stage {
					return true
				}
			}
		}
	}
	return false
}

// common is how many parts all have that can be reached from stage's sources by stages that read several.
func (s *mapState) common(reader int) uint64 {
	seen := make([]bool, len(s.Stages)) // readers
	n := uint64(commonParts)
	var walk func(int)
	walk = func(r int) {
		if seen[r] {
			return
		}
		seen[r] = true
		n = max(n, s.Stages[r].Partitions)
		for i, other := range s.Flow.Stages {
			for _, a := range other.From {
				for _, b := range s.Flow.Stages[r].From {
					if a == b {
						walk(i)
					}
				}
			}
		}
	}
	walk(reader)
	return n
}

// gather makes the items of a stage of the parts that its sources hold.
func (m *mapping) gather(k int) task {
	s := &m.d.state
	to := *s.Stages[k]
	allow := s.Allow
	jobs, failed, items := s.sources(k)
	var bad *piece
	var at stage
	for _, i := range s.Flow.Stages[k].From {
		for _, p := range s.pieces(i) {
			if p.bad > 0 && bad == nil {
				bad, at = &p, *s.Stages[i]
			}
		}
	}
	return func(ctx context.Context) (news, error) {
		if failed > 0 && !allow {
			some, err := m.failures(&at, *bad)
			if err != nil {
				return news{}, err
			}
			first := ""
			if len(some) > 0 {
				first = fmt.Sprintf(" (the first: %s: %s)", some[0].Name, some[0].why())
			}
			return news{}, &rpc.Error{Kind: rpc.UserError, Err: fmt.Errorf("%d of %d items failed, so that there is not all to reduce%s", failed, items, first),
				Hint: "correct the program or its input and begin anew, with --allow-failed if the others will do"}
		}
		var mu sync.Mutex
		var sizes []uint64 // guarded by mu
		total := uint64(0) // guarded by mu
		tasks, inner := errgroup.WithContext(ctx)
		tasks.SetLimit(8)
		for _, id := range jobs {
			tasks.Go(func() error {
				v, err := m.c.Parts(inner, id)
				mu.Lock()
				defer mu.Unlock()
				sizes = append(sizes, make([]uint64, max(0, len(v.Sizes)-len(sizes)))...)
				for i, n := range v.Sizes {
					sizes[i] += n
					total += n
				}
				return err
			})
		}
		if err := tasks.Wait(); rpc.KindOf(err) == rpc.Unavailable && ctx.Err() == nil {
			return news{ev: flow.NotCut{Stage: k, Why: err.Error()}}, nil
		} else if err != nil {
			return news{}, err
		}
		groups, err := group(sizes, max(to.Partitions, (total+partitionBytes-1)/partitionBytes, 1))
		if err != nil {
			return news{}, err
		}
		if to.Index, err = m.d.keepGroups(&to, groups, sizes); err != nil {
			return news{}, err
		}
		m.show.begin(to.Name, to.Index.Items)
		n := m.wasCut(k, &to)
		keep := n.do
		n.do = func(s *mapState) { keep(s); s.Shuffled += total }
		return n, nil
	}
}

// sources are the jobs whose parts a stage reads, and how many of their items failed.
func (s *mapState) sources(k int) (jobs []crowd.JobID, failed, items uint64) {
	for _, i := range s.Flow.Stages[k].From {
		for _, p := range s.pieces(i) {
			jobs = append(jobs, p.job)
			failed += uint64(p.bad)
			items += p.items
		}
	}
	return jobs, failed, items
}

// group makes at least so many items, if there are as many parts, of parts of these sizes.
func group(sizes []uint64, least uint64) (groups [][]uint32, err error) {
	total, full := uint64(0), uint64(0)
	for i, n := range sizes {
		if n > maxItem {
			return nil, &rpc.Error{Kind: rpc.TooLarge, Err: fmt.Errorf("partition %d of %d has %s, at most %s: a key has too many lines, or there are too few partitions", i+1, len(sizes), sizeText(int64(n)), sizeText(maxItem)),
				Hint: "begin anew with more --partitions, or let the map program add up what it can (sdk.Combine)"}
		}
		if total += n; n > 0 {
			full++
		}
	}
	if total == 0 {
		return nil, errors.New("the map program wrote nothing to reduce")
	}
	left := full // parts that are not in a group
	var at uint64
	for i, n := range sizes {
		if n == 0 {
			continue
		}
		must := uint64(len(groups))+left <= least // else there would be too few
		if len(groups) == 0 || must || at+n > max(total/least, 1) && at > 0 {
			groups, at = append(groups, nil), 0
		}
		g := len(groups) - 1
		groups[g], at, left = append(groups[g], uint32(i)), at+n, left-1
	}
	return groups, nil
}

// keepGroups writes down what the items of a stage consist of.
func (d *mapDir) keepGroups(st *stage, groups [][]uint32, sizes []uint64) (all indexed, err error) {
	f, err := os.Create(d.path(st.Name, "items"))
	if err != nil {
		return all, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	for i, parts := range groups {
		size := uint64(0)
		for _, p := range parts {
			size += sizes[p]
		}
		w.Write(item{Size: uint32(size), First: uint64(i + 1), Last: uint64(i + 1)}.append(nil)) // a bufio.Writer keeps its first error for Flush
		all.Items++
		all.Bytes += size
		all.Largest = max(all.Largest, uint32(size))
	}
	raw, err := json.Marshal(groups)
	if err != nil {
		return all, err
	}
	return all, errors.Join(w.Flush(), writeSynced(d.path(st.Name, "parts.json"), raw))
}

// groups are the parts of the items [first, first+n) of a stage.
func (d *mapDir) groups(st *stage, first, n uint64) (groups [][]uint32, err error) {
	raw, err := os.ReadFile(d.path(st.Name, "parts.json"))
	if err == nil {
		err = json.Unmarshal(raw, &groups)
	}
	if err == nil && first+n > uint64(len(groups)) {
		err = fmt.Errorf("%d items, want %d", len(groups), first+n)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.path(st.Name, "parts.json"), err)
	}
	return groups[first : first+n], nil
}

// foresee ends a stage early whose first items show that its outputs will not fit their parts.
func (m *mapping) foresee(ctx context.Context, st *stage, parts uint32, done []piece) error {
	items, bytes := uint64(0), uint64(0)
	for _, p := range done {
		v, err := m.c.Parts(ctx, p.job)
		if rpc.KindOf(err) == rpc.Unavailable {
			return nil // it will show later
		} else if err != nil {
			return err
		}
		items, bytes = items+p.items, bytes+v.Bytes
	}
	all := float64(bytes) / float64(items) * float64(st.Index.Items)
	if need := all / partitionBytes; need > float64(parts) && all/float64(parts) > maxItem {
		hint := "let the program add up what it can (sdk.Combine)"
		if need <= crowd.MaxParts {
			hint = fmt.Sprintf("begin anew with --partitions %.0f, or %s", need+1, hint)
		}
		return &rpc.Error{Kind: rpc.TooLarge, Err: fmt.Errorf("%s: the outputs will be about %s: more than %d partitions of at most %s hold", st.Name, sizeText(int64(all)), parts, sizeText(maxItem)), Hint: hint}
	}
	return nil
}

// probe asks whether the parts that a stage wrote can be had.
func (m *mapping) probe(stage int) task {
	pieces := m.d.state.pieces(stage)
	return func(ctx context.Context) (news, error) {
		here := make([]bool, len(pieces))
		tasks, inner := errgroup.WithContext(ctx)
		tasks.SetLimit(8)
		for i, p := range pieces {
			tasks.Go(func() error {
				holders, err := m.c.Probe(inner, p.job)
				for _, h := range holders {
					here[i] = here[i] || h.Here
				}
				return err
			})
		}
		if err := tasks.Wait(); err != nil {
			return news{}, err
		}
		ev := flow.Probed{Stage: stage}
		for i, p := range pieces {
			if !here[i] {
				ev.Lost = append(ev.Lost, p.k)
			}
		}
		return news{ev: ev}, nil
	}
}
