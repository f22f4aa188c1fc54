package rpctest

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"slices"
	"strconv"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// Programs for batches: cat, exit N and gas as for one task, and
//
//	poison      as cat, but it exits with 3 on items that contain "poison"
//	trap        as poison, but it traps
//	liar        as cat, but the first job for a file fails: its executor lied
//	lost        every job fails
//	vanish      as cat, but nobody has the parts of the first job for a file
//	straggler   as cat, but the first job for a file ends only after another for that file has
//	faker       as straggler, and what the first one gives is wrong
//	stuck, fault, late   as for one task

const shard = 100 // most items of a job that PlanBatch gives

// PlanBatch plans shards of at most a hundred items. A confidence above 0.9999 it cannot give.
func (b *Backend) PlanBatch(_ context.Context, r rpc.BatchRequest) (rpc.BatchQuote, error) {
	if r.Items == 0 {
		return rpc.BatchQuote{}, rpc.Errorf(rpc.BadRequest, "0 items")
	}
	items := min(r.Items, shard)
	if r.Shard > 0 {
		items = min(items, r.Shard)
	}
	n := (r.Items + items - 1) / items
	p := rpc.BatchPlan{SamplePlan: rpc.SamplePlan{Verifiers: 3, Checks: uint32(min(items, 20))}, Shards: n, Items: items, Nodes: 4,
		Undetected: 0.0088, Accepted: 0.00088, Any: 0.00088 * float64(n), Overhead: 0.6, Compare: cmp.Or(r.Compare, "exact"), Executors: crowd.Credit, Verification: crowd.Credit / 10,
		Bound: crowd.ReferencePrice.Cost(r.Limits.Gas * crowd.Gas(r.Items)), MinStake: 7 * crowd.Credit, WaitMillis: 4000,
		Assumptions: []string{"at most 10 % of the drawn weight is bad"}}
	q := rpc.BatchQuote{Price: crowd.ReferencePrice, Eligible: 7}
	switch {
	case r.Confidence > 0.9999:
		q.Why, q.Best = "9 verifiers are needed; 7 candidates are there", &p
	case r.Budget > 0 && r.Budget < p.Bound:
		q.Why, q.Least = "too dear", &p
	default:
		q.Plan = &p
	}
	return q, nil
}

// runBatch is the whole life of a batch's job.
func (b *Backend) runBatch(j *job, word, arg string) {
	r := j.view.Request
	fail := func(why string) {
		b.add(j, rpc.JobEvent{Stage: rpc.Failed, Why: why, Failure: &rpc.Failure{Kind: rpc.NodeFault, Message: why, Hint: "run the job again; other nodes are drawn"},
			Payments: []rpc.Payment{{Account: Owner.Address(), Change: 5_000_000, From: "escrow", Why: "refund"}}})
	}
	j.view.Items, j.view.Stdin = r.Items, r.Stdin
	if r.Gather && b.vanished(r) {
		j.view.Batch = &rpc.BatchView{Items: r.Items, Plan: r.Plan, Gather: true, NoParts: true}
		fail("a node could not get the parts")
		return
	}
	switch word {
	case "vanish":
		word = "cat"
		j.lost = true
		for _, other := range b.jobs {
			if other != j && other.view.Stdin == r.Stdin {
				j.lost = false
			}
		}
	case "fault":
		fail("no drawn node did the work")
		return
	case "lost":
		fail("the executor lied about item 3, as 1 authorities found")
		return
	case "late":
		return
	case "straggler", "faker":
		var first *job
		for _, other := range b.jobs {
			if first == nil && other != j && other.view.Stdin == r.Stdin {
				first = other
			}
		}
		if first == nil {
			j.late = true
			return
		}
		wrong := map[string]string{"straggler": "cat", "faker": "wrong"}[word]
		word = "cat"
		if !first.view.Stage.Final() {
			defer b.runBatch(first, wrong, "")
		}
	case "liar":
		for _, other := range b.jobs {
			if other != j && other.view.Stdin == r.Stdin {
				word = "cat"
			}
		}
		if word == "liar" {
			fail("the executor lied about item 3, as 1 authorities found")
			return
		}
	}
	in, err := b.items(r)
	var leaves []byte
	var outs, errs [][]byte
	gas, failed := crowd.Gas(0), uint32(0)
	for i := range r.Items {
		l := batch.Leaf{Status: crowd.NoInput}
		var stdout, stderr []byte
		if err == nil {
			item := in[i]
			l = batch.Leaf{Status: crowd.Exited, Gas: 1000}
			switch {
			case word == "exit" || word == "poison" && bytes.Contains(item, []byte("poison")):
				l.ExitCode, stderr = 3, []byte("something is wrong with the input\n")
				if word == "exit" {
					code, _ := strconv.Atoi(arg)
					l.ExitCode = uint32(code)
				}
			case word == "trap" && bytes.Contains(item, []byte("poison")):
				l.Status = crowd.Trapped
			case word == "gas":
				l.Status, l.Gas = crowd.OutOfGas, r.Limits.Gas
			default:
				stdout = item
				if word == "wrong" {
					stdout = []byte("wrong\n")
				}
			}
		}
		if l.UserError() {
			failed++
		}
		l.Output = batch.Digest(stdout, stderr)
		gas += l.Gas
		leaves, outs, errs = l.Append(leaves), append(outs, stdout), append(errs, stderr)
	}
	frames := func(list [][]byte) []byte {
		var f bytes.Buffer
		batch.WriteFrames(&f, r.Items, func(i uint32) uint64 { return uint64(len(list[i])) }, func(i uint32, w io.Writer) error { _, err := w.Write(list[i]); return err })
		return f.Bytes()
	}
	files := map[string][]byte{"leaves": leaves, "stdout": frames(outs), "stderr": frames(errs)}
	parts := make([][]byte, r.Parts)
	for i, out := range outs {
		if r.Parts > 0 && batchOK(leaves, i) {
			batch.Split(out, r.Parts, func(p uint32, line []byte) error {
				parts[p] = append(append(parts[p], line...), '\n')
				return nil
			})
		}
	}
	for p := range parts {
		files["parts/"+batch.PartName(uint32(p))] = parts[p]
	}
	j.view.Batch = &rpc.BatchView{Items: r.Items, Plan: r.Plan, Undetected: 0.0088, Gas: gas, CheckGas: gas / 10, Failed: &failed, Parts: r.Parts, Gather: r.Gather}
	root := crowd.Digest("leaves", leaves)
	j.view.Batch.Root = &root
	if r.Parts > 0 {
		j.view.Batch.Holders = []crowd.NodeID{Node(1), Node(2)}
	}
	result := crowd.CID("result")
	if r.Parts > 0 {
		result = crowd.CID("result" + j.view.ID.String())
	}
	b.finish(j, word, &rpc.Outcome{Status: crowd.Exited.String(), Gas: gas, Result: result}, files)
}

// vanished reports whether nobody has the parts that a batch reads.
func (b *Backend) vanished(r rpc.PostRequest) bool {
	m, err := batch.DecodeManifest(b.files[r.Stdin], r.Items)
	return err == nil && slices.ContainsFunc(b.jobs, func(j *job) bool {
		return j.lost && j.view.Outcome != nil && slices.ContainsFunc(m.Sources, func(s batch.Source) bool { return s.Result == j.view.Outcome.Result })
	})
}

func batchOK(leaves []byte, i int) bool {
	l, err := batch.DecodeLeaf(leaves[i*batch.LeafSize:][:batch.LeafSize])
	return err == nil && !l.UserError()
}

// items are what a batch's items read.
func (b *Backend) items(r rpc.PostRequest) (items [][]byte, err error) {
	raw := b.files[r.Stdin]
	if r.Gather {
		m, err := batch.DecodeManifest(raw, r.Items)
		if err != nil {
			return nil, err
		}
		for _, numbers := range m.Items {
			var files [][]byte
			for _, s := range m.Sources {
				for _, j := range b.jobs {
					if j.view.Outcome != nil && j.view.Outcome.Result == s.Result {
						for _, p := range numbers {
							files = append(files, j.result["parts/"+batch.PartName(p)])
						}
					}
				}
			}
			items = append(items, batch.Merge(files))
		}
		return items, nil
	}
	f, err := batch.OpenFrames(bytes.NewReader(raw), int64(len(raw)), r.Items)
	if err != nil {
		return nil, err
	}
	for i := range r.Items {
		item, err := f.Read(i)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// split is a settled job with parts. b.mu is held.
func (b *Backend) split(id crowd.JobID) (*job, error) {
	j, err := b.delivered(id)
	if err == nil && (j.view.Request.Parts == 0 || j.view.Stage != rpc.Settled) {
		err = rpc.Errorf(rpc.Conflict, "job %s has no parts", id.Short())
	}
	return j, err
}

func (b *Backend) Parts(_ context.Context, id crowd.JobID) (rpc.PartsView, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.split(id)
	if err != nil {
		return rpc.PartsView{}, err
	}
	v := rpc.PartsView{Job: id, Result: j.view.Outcome.Result, Holders: j.view.Batch.Holders,
		Stdout: uint64(len(j.result["stdout"])), Stderr: uint64(len(j.result["stderr"]))}
	for p := range j.view.Request.Parts {
		n := uint64(len(j.result["parts/"+batch.PartName(p)]))
		v.Sizes, v.Bytes = append(v.Sizes, n), v.Bytes+n
	}
	return v, nil
}

func (b *Backend) Gather(ctx context.Context, r rpc.GatherRequest) (rpc.Gathered, error) {
	m := batch.Manifest{Items: r.Items}
	g := rpc.Gathered{Items: uint32(len(r.Items)), Sizes: make([]uint64, len(r.Items))}
	for _, id := range r.Jobs {
		v, err := b.Parts(ctx, id)
		if err != nil {
			return g, err
		}
		m.Sources = append(m.Sources, batch.Source{Result: v.Result, Holders: v.Holders})
		for i, numbers := range r.Items {
			for _, p := range numbers {
				if int(p) >= len(v.Sizes) {
					return g, rpc.Errorf(rpc.BadRequest, "item %d: part %d of %d", i, p, len(v.Sizes))
				}
				g.Sizes[i], g.Bytes = g.Sizes[i]+v.Sizes[p], g.Bytes+v.Sizes[p]
			}
		}
	}
	raw := crowd.Encode(&m)
	if _, err := batch.DecodeManifest(raw, g.Items); err != nil {
		return g, rpc.Errorf(rpc.BadRequest, "%w", err)
	}
	var err error
	g.Manifest, err = b.AddFile(ctx, bytes.NewReader(raw))
	return g, err
}

// Probe finds the first holder and not the second, or none of what vanished.
func (b *Backend) Probe(_ context.Context, id crowd.JobID) ([]rpc.Holder, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.split(id)
	if err != nil {
		return nil, err
	}
	h := j.view.Batch.Holders
	if j.lost {
		return []rpc.Holder{{Node: h[0], Why: "no answer"}, {Node: h[1], Why: "no answer"}}, nil
	}
	return []rpc.Holder{{Node: h[0], Here: true, Millis: 3}, {Node: h[1], Why: "no answer"}}, nil
}

// Pulse finds nobody who could bring on a job that is late.
func (b *Backend) Pulse(_ context.Context, id crowd.JobID) (rpc.Pulse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		if j.view.ID == id {
			away := j.late && !j.view.Stage.Final()
			return rpc.Pulse{Stalled: away, Nodes: []rpc.Holder{{Node: Node(1), Here: !away}}}, nil
		}
	}
	return rpc.Pulse{}, rpc.Errorf(rpc.NotFound, "no job %s", id.Short())
}

// Reputation knows the node 1 alone.
func (b *Backend) Reputation(_ context.Context, a crowd.Address) (rpc.Reputation, error) {
	if a != Node(1).Address() {
		return rpc.Reputation{}, rpc.Errorf(rpc.NotFound, "the chain knows nothing of %s", a)
	}
	n := Node(1)
	return rpc.Reputation{Node: &n, Address: a, Honesty: 0.31, Availability: 0.9, Weight: 0.1, Consumer: 0.5, Newcomer: true, Done: 3, Work: 9_600_000_000,
		Passed: 0.4, Up: 8, Down: 1, Evidence: []rpc.Evidence{{Job: crowd.JobID{1}, Passed: true, Difficulty: 0.2, Height: 44}}}, nil
}
