package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
)

// This file is how a batch's outputs go on to another: parts made, and parts gathered.

// partsHeld bounds the bytes of parts that are in memory. Files are open one at a time: there may be
// more parts than a process may open.
const partsHeld = 32 << 20

// parts lays lines out in files by their keys.
type parts struct {
	dir   string
	bufs  [][]byte
	sizes []uint64
	held  int
	most  int // held
}

func newParts(dir string, n uint32) (*parts, error) {
	return &parts{dir: dir, bufs: make([][]byte, n), sizes: make([]uint64, n), most: partsHeld}, os.Mkdir(dir, 0o700)
}

// add takes an item's output.
func (p *parts) add(stdout []byte) error {
	return batch.Split(stdout, uint32(len(p.bufs)), func(i uint32, line []byte) error {
		p.bufs[i] = append(append(p.bufs[i], line...), '\n')
		p.sizes[i] += uint64(len(line)) + 1
		if p.held += len(line) + 1; p.held < p.most {
			return nil
		}
		return p.flush()
	})
}

// flush writes what is held. All files are there afterwards.
func (p *parts) flush() error {
	for i, b := range p.bufs {
		f, err := os.OpenFile(filepath.Join(p.dir, batch.PartName(uint32(i))), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		p.bufs[i] = b[:0]
	}
	p.held = 0
	return nil
}

// finish writes what is held, and beside the folder of the parts how large they are.
func (p *parts) finish() error {
	if err := p.flush(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(filepath.Dir(p.dir), sizesFile), batch.AppendSizes(nil, p.sizes), 0o644)
}

// maxListing bounds the blocks that list a folder, in bytes: one of crowd.MaxParts files has a fraction of it.
const maxListing = 4 << 20

// fetchOutputs gets the outputs of a result that was split in parts, without the parts.
func (r *Runner) fetchOutputs(ctx context.Context, e job.Fetch, progress func(done, total uint64)) error {
	if err := r.cfg.Blocks.FetchFolder(ctx, e.Result, maxListing, e.From, progress); err != nil {
		return err
	}
	files, err := r.outputs(ctx, e.Result)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := r.cfg.Blocks.Fetch(ctx, f.CID, e.Max, e.From, progress); err != nil {
			return err
		}
	}
	return nil
}

// outputs are stdout and stderr in a result whose listing is here.
func (r *Runner) outputs(ctx context.Context, result crowd.CID) (out []Entry, err error) {
	list, err := r.cfg.Blocks.List(ctx, result)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{stdoutFile, stderrFile} {
		i := slices.IndexFunc(list, func(e Entry) bool { return e.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%w: the result has no %s", job.ErrUnusable, name)
		}
		out = append(out, list[i])
	}
	return out, nil
}

// exportOutputs writes stdout and stderr of a result, of at most max bytes each, to the folder dir.
func (r *Runner) exportOutputs(ctx context.Context, result crowd.CID, dir string, max uint64) error {
	files, err := r.outputs(ctx, result)
	if err == nil {
		for _, f := range files {
			var ok bool
			if ok, err = r.export(ctx, f.CID, filepath.Join(dir, f.Name), false, max); err == nil && !ok {
				err = fmt.Errorf("%w: the result's %s is no file", job.ErrUnusable, f.Name)
			}
			if err != nil {
				break
			}
		}
	}
	if err != nil && r.cfg.Unusable(err) {
		err = fmt.Errorf("%w: %w", job.ErrUnusable, err)
	}
	return err
}

// sourcesAtOnce is from how many sources parts are fetched side by side, each from all its holders.
const sourcesAtOnce = 4

// fetchParts brings the parts that a manifest names. What the manifest says wrongly is left to the items.
func (r *Runner) fetchParts(ctx context.Context, g *job.Gather, progress func(done, total uint64)) error {
	m, ok, err := r.manifest(ctx, g.Manifest, g.Items)
	if err != nil || !ok {
		return err
	}
	each := func(f func(i int, s *batch.Source) error) error {
		var work errgroup.Group
		work.SetLimit(sourcesAtOnce)
		for i := range m.Sources {
			work.Go(func() error {
				err := f(i, &m.Sources[i])
				if err != nil && !errors.Is(err, job.ErrUnusable) {
					err = fmt.Errorf("%w: of %s: %w", job.ErrParts, m.Sources[i].Result, err)
				}
				return err
			})
		}
		return work.Wait()
	}
	err = each(func(_ int, s *batch.Source) error { return r.fetchListing(ctx, s, progress) })
	if errors.Is(err, job.ErrUnusable) {
		return nil
	}
	if err != nil {
		return err
	}
	l, err := r.layout(ctx, m)
	if err != nil || l == nil {
		return err
	}
	wanted := make([][]Entry, len(m.Sources))
	for _, k := range only(g.Only, g.Items) {
		if !l.usable(k) {
			continue
		}
		for i, e := range l.files[k] {
			s := i / len(m.Items[k])
			wanted[s] = append(wanted[s], e)
		}
	}
	return each(func(i int, s *batch.Source) error {
		var cs []crowd.CID
		size := uint64(0)
		for _, e := range wanted[i] {
			if e.Size > 0 {
				cs, size = append(cs, e.CID), size+e.Size
			}
		}
		if len(cs) == 0 {
			return nil
		}
		err := r.cfg.Blocks.FetchAll(ctx, cs, size, s.Holders, progress)
		if err != nil && r.cfg.Unusable(err) {
			err = fmt.Errorf("blocks of other sizes than the result's listing says: %v", err) // nobody can have such a part
		}
		return err
	})
}

// fetchListing brings what lists a source's parts; job.ErrUnusable where that is no result with parts.
func (r *Runner) fetchListing(ctx context.Context, s *batch.Source, progress func(done, total uint64)) error {
	err := r.cfg.Blocks.FetchFolder(ctx, s.Result, maxListing, s.Holders, progress)
	if err == nil {
		var dir crowd.CID
		if dir, err = r.partsOf(ctx, s.Result); err == nil {
			err = r.cfg.Blocks.FetchFolder(ctx, dir, maxListing, s.Holders, progress)
		}
	}
	if err != nil && r.cfg.Unusable(err) {
		err = fmt.Errorf("%w: %w", job.ErrUnusable, err)
	}
	return err
}

func (r *Runner) partsOf(ctx context.Context, result crowd.CID) (crowd.CID, error) {
	list, err := r.cfg.Blocks.List(ctx, result)
	if err != nil {
		return "", err
	}
	for _, e := range list {
		if e.Name == partsDir {
			return e.CID, nil
		}
	}
	return "", fmt.Errorf("%w: the result has no parts", job.ErrUnusable)
}

// manifest reads one that lies in the own store; false: it is none, as everybody finds.
func (r *Runner) manifest(ctx context.Context, c crowd.CID, items uint32) (m batch.Manifest, ok bool, err error) {
	raw, err := r.cfg.Blocks.Read(ctx, c, batch.MaxManifest)
	if err != nil {
		if r.cfg.Unusable(err) {
			err = nil
		}
		return m, false, err
	}
	m, err = batch.DecodeManifest(raw, items)
	return m, err == nil, nil
}

// layout says of what each item of a batch consists.
type layout struct {
	batch.Manifest
	files [][]Entry // of each item: those of the first source, then of the next
	sizes []uint64  // of each item
	bad   []bool    // items that have no input
}

func (l *layout) usable(k uint32) bool { return !l.bad[k] }

// layout is nil where a source is no result with parts, or all items together are larger than a
// task's input may be: all items are without input then. All that it looks at is in the own
// store, and follows from the manifest, so that it is the same on every machine.
func (r *Runner) layout(ctx context.Context, m batch.Manifest) (*layout, error) {
	l := &layout{Manifest: m, files: make([][]Entry, len(m.Items)), sizes: make([]uint64, len(m.Items)), bad: make([]bool, len(m.Items))}
	for _, s := range m.Sources {
		dir, err := r.partsOf(ctx, s.Result)
		var list []Entry
		if err == nil {
			list, err = r.cfg.Blocks.List(ctx, dir)
		}
		switch {
		case err == nil:
		case r.cfg.Unusable(err) || errors.Is(err, job.ErrUnusable):
			return nil, nil
		default:
			return nil, fmt.Errorf("%w: of %s: %w", job.ErrParts, s.Result, err)
		}
		for i, e := range list {
			if e.Name != batch.PartName(uint32(i)) {
				return nil, nil
			}
		}
		for k, numbers := range m.Items {
			for _, p := range numbers {
				if int(p) >= len(list) || !list[p].Raw || list[p].Size > executor.MaxItemStdin {
					l.bad[k] = true // a file of one block has at most as much as an item may read
					continue
				}
				l.files[k] = append(l.files[k], list[p])
				l.sizes[k] += list[p].Size
			}
		}
	}
	total := uint64(0)
	for k := range m.Items {
		if l.bad[k] = l.bad[k] || l.sizes[k] > executor.MaxItemStdin; !l.bad[k] {
			total += l.sizes[k]
		}
	}
	if total > job.MaxInput {
		return nil, nil
	}
	return l, nil
}

// gathered are the inputs of a run that were made of parts.
type gathered struct {
	frameFile
	bad   []bool
	costs []crowd.Gas
	spool *spool
}

func (g *gathered) usable(k uint32) bool          { return !g.bad[k] }
func (g *gathered) read(k uint32) ([]byte, error) { return g.Read(k) }
func (g *gathered) spent(k uint32) crowd.Gas      { return g.costs[k] }
func (g *gathered) close() {
	g.frameFile.close()
	g.spool.close()
}

// gather makes the inputs of a run out of parts that lie in the own store; nil: there are none for any item.
func (r *Runner) gather(ctx context.Context, e job.Run, dir string) (inputs, error) {
	m, ok, err := r.manifest(ctx, e.Task.Stdin, e.Items)
	if err != nil || !ok {
		return nil, err
	}
	l, err := r.layout(ctx, m)
	if err != nil || l == nil {
		return nil, err
	}
	g := &gathered{}
	if g.spool, err = newSpool(dir); err != nil {
		return nil, err
	}
	for _, k := range only(e.Only, e.Items) {
		var in []byte
		var cost crowd.Gas
		if l.usable(k) {
			cost = executor.LayOut(l.sizes[k], uint64(len(l.files[k])))
			if in, err = r.merge(ctx, l, k); err != nil {
				g.spool.close()
				return nil, err
			}
		}
		bad := !l.usable(k) || len(in) > executor.MaxItemStdin // last lines got their newlines
		if bad {
			in = nil
		}
		g.bad, g.costs = append(g.bad, bad), append(g.costs, cost)
		if err := g.spool.add(in); err != nil {
			g.spool.close()
			return nil, err
		}
	}
	path := filepath.Join(dir, "gathered")
	if err = g.spool.finish(path); err == nil {
		g.frameFile, err = openFrames(path, uint32(len(g.bad)))
	}
	if err != nil {
		g.spool.close()
		return nil, err
	}
	return g, nil
}

// merge is what item k reads.
func (r *Runner) merge(ctx context.Context, l *layout, k uint32) ([]byte, error) {
	var files [][]byte
	for i, e := range l.files[k] {
		if e.Size == 0 {
			continue
		}
		raw, err := r.cfg.Blocks.Read(ctx, e.CID, e.Size)
		if err == nil && uint64(len(raw)) != e.Size {
			err = fmt.Errorf("%d bytes, where the result's listing says %d", len(raw), e.Size)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s of %s: %w", job.ErrParts, e.Name, l.Sources[i/len(l.Items[k])].Result, err)
		}
		files = append(files, raw)
	}
	return batch.Merge(files), nil
}

// only is the items of a run: those few, or all.
func only(some []uint32, items uint32) []uint32 {
	if some != nil {
		return some
	}
	all := make([]uint32, items)
	for i := range all {
		all[i] = uint32(i)
	}
	return all
}
