package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/store"
)

// This file is what a node does for jobs of its own whose outputs go on to others: it knows who holds
// them, lists them, and names them in manifests. The outputs themselves do not come here.

const (
	maxListing = 4 << 20         // bytes of blocks that list a folder
	probeTime  = 5 * time.Second // for all holders of a result
	listTime   = time.Minute     // to get a listing
)

// holders are who has a settled job's outputs: its executor, and the verifiers that have checked them.
func holders(j *ledger.Job) (out []crowd.NodeID) {
	if j.State != ledger.Settled || j.Spec.Shuffle.Parts == 0 {
		return nil
	}
	for _, verifier := range []bool{false, true} {
		for i := range j.Places {
			if p := &j.Places[i]; p.State == ledger.Revealed && p.Verifier == verifier {
				out = append(out, p.Node)
			}
		}
	}
	return out
}

// lackedParts reports whether a node gave its place up for want of parts.
func lackedParts(j *ledger.Job) bool {
	return j.Spec.Shuffle.Gather && slices.ContainsFunc(j.Places, func(p ledger.Place) bool {
		return p.State == ledger.Dropped && p.GaveUp == ledger.NoParts
	})
}

// split is a settled job of this node with parts.
func (b backend) split(id crowd.JobID) (*ledger.Job, error) {
	p, err := b.page(id)
	if err != nil {
		return nil, err
	}
	j := &p.job
	switch {
	case j.Spec.Shuffle.Parts == 0:
		return nil, rpc.Errorf(rpc.Conflict, "job %s was posted without parts; its result came here", id.Short())
	case j.State != ledger.Settled:
		return nil, rpc.Errorf(rpc.Conflict, "job %s is %s; it has parts once it is settled", id.Short(), j.State)
	}
	return j, nil
}

// listing is what j's result holds, after its holders were asked for what is not known here.
func (b backend) listing(ctx context.Context, j *ledger.Job) ([]store.Entry, error) {
	return b.list(ctx, j, j.Verdict.Outcome.Result)
}

func (b backend) list(ctx context.Context, j *ledger.Job, folder crowd.CID) ([]store.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	if err := b.host.FetchFolder(ctx, folder, maxListing, holders(j), nil); err != nil {
		return nil, lacking(j, err)
	}
	files, err := b.store.List(ctx, folder)
	if err != nil {
		return nil, lacking(j, err)
	}
	return files, nil
}

func lacking(j *ledger.Job, err error) error {
	return rpc.Errorf(rpc.Unavailable, "list the parts of job %s: %w", j.ID.Short(), err).WithHint("crowd_probe says who has them; post the job again if nobody comes back")
}

// sizes of j's parts, as those who hold them say: they have made the parts of outputs that they have checked.
func (b backend) sizes(ctx context.Context, j *ledger.Job, files []store.Entry) ([]uint64, error) {
	i := slices.IndexFunc(files, func(e store.Entry) bool { return e.Name == "sizes" })
	if i < 0 {
		return nil, rpc.Errorf(rpc.NodeFault, "the result of job %s has no sizes of parts", j.ID.Short())
	}
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	most := batch.MaxSizes(j.Spec.Shuffle.Parts)
	if err := b.host.Fetch(ctx, files[i].CID, most+1<<10, holders(j), nil); err != nil {
		return nil, lacking(j, err)
	}
	r, size, err := b.store.Reader(ctx, files[i].CID)
	if err != nil {
		return nil, lacking(j, err)
	}
	defer r.Close()
	if size > most {
		return nil, rpc.Errorf(rpc.NodeFault, "job %s: %d bytes for the sizes of %d parts", j.ID.Short(), size, j.Spec.Shuffle.Parts)
	}
	raw, err := io.ReadAll(io.LimitReader(r, int64(most)))
	if err != nil {
		return nil, lacking(j, err)
	}
	sizes, err := batch.DecodeSizes(raw, j.Spec.Shuffle.Parts)
	if err != nil {
		return nil, rpc.Errorf(rpc.NodeFault, "job %s: %w", j.ID.Short(), err)
	}
	return sizes, nil
}

// Parts implements rpc.Backend.
func (b backend) Parts(ctx context.Context, id crowd.JobID) (rpc.PartsView, error) {
	j, err := b.split(id)
	if err != nil {
		return rpc.PartsView{}, err
	}
	files, err := b.listing(ctx, j)
	if err != nil {
		return rpc.PartsView{}, err
	}
	v := rpc.PartsView{Job: id, Result: j.Verdict.Outcome.Result, Holders: holders(j)}
	if v.Sizes, err = b.sizes(ctx, j, files); err != nil {
		return rpc.PartsView{}, err
	}
	for _, n := range v.Sizes {
		v.Bytes += n
	}
	for _, e := range files {
		switch e.Name {
		case "stdout":
			v.Stdout = e.Size
		case "stderr":
			v.Stderr = e.Size
		}
	}
	return v, nil
}

// Gather implements rpc.Backend.
func (b backend) Gather(ctx context.Context, r rpc.GatherRequest) (rpc.Gathered, error) {
	m := batch.Manifest{Items: r.Items}
	g := rpc.Gathered{Items: uint32(len(r.Items)), Sizes: make([]uint64, len(r.Items))}
	named := 0
	for _, numbers := range r.Items {
		named += len(numbers)
	}
	if named*len(r.Jobs) > batch.MaxFiles {
		return g, rpc.Errorf(rpc.BadRequest, "%d parts of %d jobs, at most %d files in all", named, len(r.Jobs), batch.MaxFiles).WithHint("gather in more than one job")
	}
	for s, id := range r.Jobs {
		j, err := b.split(id)
		if err != nil {
			return g, err
		}
		files, err := b.listing(ctx, j)
		if err != nil {
			return g, err
		}
		sizes, err := b.sizes(ctx, j, files)
		if err != nil {
			return g, err
		}
		m.Sources = append(m.Sources, batch.Source{Result: j.Verdict.Outcome.Result, Holders: holders(j)})
		for i, numbers := range r.Items {
			for _, p := range numbers {
				if int(p) >= len(sizes) {
					return g, rpc.Errorf(rpc.BadRequest, "item %d: part %d of job %s, which has %d (source %d)", i, p, id.Short(), len(sizes), s)
				}
				if g.Sizes[i] += sizes[p]; g.Sizes[i] > executor.MaxItemStdin {
					return g, rpc.Errorf(rpc.TooLarge, "item %d: with part %d of job %s it has %d bytes, at most %d", i, p, id.Short(), g.Sizes[i], executor.MaxItemStdin).
						WithHint("ask for more parts; if one key has so many lines, let the map program add up what it can")
				}
				g.Bytes += sizes[p]
			}
		}
	}
	raw := crowd.Encode(&m)
	if _, err := batch.DecodeManifest(raw, g.Items); err != nil {
		return g, rpc.Errorf(rpc.BadRequest, "%w", err)
	}
	var err error
	g.Manifest, err = b.AddFile(ctx, strings.NewReader(string(raw)))
	return g, err
}

// Probe implements rpc.Backend.
func (b backend) Probe(ctx context.Context, id crowd.JobID) ([]rpc.Holder, error) {
	j, err := b.split(id)
	if err != nil {
		return nil, err
	}
	return probe(ctx, holders(j), func(ctx context.Context, n crowd.NodeID) error { return b.host.Holds(ctx, n, j.Verdict.Outcome.Result) }), nil
}

// probe asks all nodes at once.
func probe(ctx context.Context, nodes []crowd.NodeID, ask func(context.Context, crowd.NodeID) error) []rpc.Holder {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	out := make([]rpc.Holder, len(nodes))
	var asked sync.WaitGroup
	for i, n := range nodes {
		asked.Go(func() {
			began := time.Now()
			err := ask(ctx, n)
			out[i] = rpc.Holder{Node: n, Here: err == nil}
			if err != nil {
				out[i].Why = err.Error()
			} else {
				out[i].Millis = time.Since(began).Milliseconds()
			}
		})
	}
	asked.Wait()
	return out
}

// Pulse implements rpc.Backend.
func (b backend) Pulse(ctx context.Context, id crowd.JobID) (rpc.Pulse, error) {
	p, err := b.page(id)
	if err != nil {
		return rpc.Pulse{}, err
	}
	all, any := job.Waits(&p.job)
	nodes := probe(ctx, append(all, any...), b.host.Answers)
	return rpc.Pulse{Nodes: nodes, Stalled: job.Stalled(&p.job, func(n crowd.NodeID) bool {
		return slices.ContainsFunc(nodes, func(h rpc.Holder) bool { return h.Node == n && h.Here })
	})}, nil
}

// unpackLeaves makes the folder dir with the leaves alone. It appears whole or not at all.
func (n *Node) unpackLeaves(ctx context.Context, c crowd.CID, dir string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "result-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := n.store.Export(ctx, c, filepath.Join(tmp, "leaves"), crowd.MaxItems*batch.LeafSize); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// fetchFile brings one file of j's result here that somebody wants to see after all.
func (b backend) fetchFile(ctx context.Context, j *ledger.Job, path string) error {
	if _, err := b.split(j.ID); err != nil {
		return err
	}
	files, err := b.listing(ctx, j)
	if err != nil {
		return err
	}
	dir, name := b.resultDir(j.ID), path
	if rest, ok := strings.CutPrefix(path, "parts/"); ok {
		dir, name = filepath.Join(dir, "parts"), rest
		i := slices.IndexFunc(files, func(e store.Entry) bool { return e.Name == "parts" })
		if i < 0 {
			return rpc.Errorf(rpc.NodeFault, "the result of job %s has no parts", j.ID.Short())
		}
		if files, err = b.list(ctx, j, files[i].CID); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(files, func(e store.Entry) bool { return e.Name == name && e.Name != "parts" })
	if i < 0 {
		return rpc.Errorf(rpc.NotFound, "the result of job %s has no file %q", j.ID.Short(), path)
	}
	if err = b.host.Fetch(ctx, files[i].CID, files[i].Size+1<<20, holders(j), nil); err == nil {
		if err = os.MkdirAll(dir, 0o700); err == nil {
			err = b.store.Export(ctx, files[i].CID, filepath.Join(dir, name), files[i].Size)
		}
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return rpc.Errorf(rpc.Unavailable, "%w", fmt.Errorf("%s of job %s: %w", path, j.ID.Short(), err))
	}
	return nil
}
