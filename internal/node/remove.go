package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// This file takes ended jobs, their results and what was uploaded for them off the disk of the node that posted them.

// bookGone is the key of a removed job: the block in which it ended, 8 bytes. The chain may tell of the job once more, and
// it would come back without that. It leaves the disk when the chain cannot any more: see unsure.
const bookGone = "g"

// gone reports whether the job was removed.
func (f bookFile) gone(id crowd.JobID) bool {
	raw, err := f.get(bookKey(bookGone, id))
	return err == nil && raw != nil
}

// remove deletes all that the book has of a job, and the notes about removed jobs that the chain cannot mention any more.
func (f bookFile) remove(j *ledger.Job) error {
	seen, err := f.seen()
	if err != nil {
		return err
	}
	b := new(leveldb.Batch)
	for _, kind := range []string{bookRecord, bookReceipt, bookAdvice, bookOpen} {
		b.Delete(bookKey(kind, j.ID))
	}
	b.Delete(bookTimeKey(j))
	b.Put(bookKey(bookGone, j.ID), binary.BigEndian.AppendUint64(nil, uint64(lastStep(j).Height)))
	err = f.each([]byte(bookGone), func(id crowd.JobID) bool {
		raw, err := f.get(bookKey(bookGone, id))
		if err == nil && len(raw) == 8 && crowd.Height(binary.BigEndian.Uint64(raw))+unsure < seen {
			b.Delete(bookKey(bookGone, id))
		}
		return true
	})
	if err != nil {
		return err
	}
	return f.db.Write(b, nil)
}

// removable says why a job cannot be removed; nil if it can.
func (b *book) removable(id crowd.JobID) (page, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.find(id)
	switch {
	case p == nil:
		return page{}, rpc.Errorf(rpc.NotFound, "this node posted no job %s", id.Short())
	case !p.job.State.Ended():
		return *p, rpc.Errorf(rpc.Conflict, "job %s has not ended: it is %s", id.Short(), p.job.State).
			WithHint("wait for its end, or take it back first: crowd job cancel %s", id.Short())
	case b.open[id] != nil:
		return *p, rpc.Errorf(rpc.Conflict, "job %s has ended, and its result or its receipt is still on its way here", id.Short()).
			WithHint("try again in a minute")
	}
	return *p, nil
}

// remove deletes a removable job. A result goes before the record that leads to it, so that a remove that is cut off can be
// done again. It returns the bytes that its result had.
func (b *book) remove(j *ledger.Job) (bytes int64, err error) {
	b.disk.Lock()
	defer b.disk.Unlock()
	dir := filepath.Join(b.dir, j.ID.String())
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("remove result of job %s: %w", j.ID.Short(), err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return 0, fmt.Errorf("remove result of job %s: %w", j.ID.Short(), err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.file.remove(j); err != nil {
		return 0, fmt.Errorf("remove job %s: %w", j.ID.Short(), err)
	}
	b.recent.Remove(j.ID)
	return bytes, nil
}

// endedBefore are the removable jobs whose last step is older than that.
func (b *book) endedBefore(before crowd.Time) (ids []crowd.JobID, err error) {
	err = b.file.each([]byte(bookRecord), func(id crowd.JobID) bool {
		if p, err := b.removable(id); err == nil && lastStep(&p.job).Time < before {
			ids = append(ids, id)
		}
		return true
	})
	return ids, err
}

func (b backend) Remove(ctx context.Context, ids []crowd.JobID) (r rpc.Removed, err error) {
	var pages []page
	known := map[crowd.JobID]bool{}
	for _, id := range ids { // all or none, as far as that can be seen before
		p, err := b.book.removable(id)
		if err != nil {
			return r, err
		}
		if !known[id] {
			known[id], pages = true, append(pages, p)
		}
	}
	content := map[crowd.CID]bool{} // that was uploaded for them
	for i := range pages {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		j := &pages[i].job
		n, err := b.book.remove(j)
		if err != nil {
			return r, err
		}
		r.Jobs, r.Bytes = r.Jobs+1, r.Bytes+n
		if j.Verdict != nil {
			// The reason under which the consumer's machine keeps a result: see runner's slot.
			by := fmt.Sprintf("%s-%s", j.ID, job.AsConsumer)
			if result := job.Delivered(&j.Spec, &j.Verdict.Outcome); result != "" {
				if err := b.store.Unpin(result, by); err != nil {
					return r, storeError(err)
				}
			}
		}
		for _, c := range contentOf(&j.Spec) {
			content[c] = true
		}
	}
	if len(content) == 0 {
		return r, nil
	}
	err = b.book.file.each([]byte(bookRecord), func(id crowd.JobID) bool { // what other jobs have too stays
		if p, ok := b.book.look(id); ok {
			for _, c := range contentOf(&p.job.Spec) {
				delete(content, c)
			}
		}
		return ctx.Err() == nil
	})
	if err := errors.Join(err, ctx.Err()); err != nil {
		return r, err
	}
	for c := range content {
		// What somebody has just uploaded again is young, and survives the next collection without a pin.
		if err := b.store.Unpin(c, uploaded); err != nil {
			return r, storeError(err)
		}
	}
	b.shortage() // a collection soon
	return r, nil
}

func (b backend) Prune(ctx context.Context, before time.Time) (rpc.Removed, error) {
	ids, err := b.book.endedBefore(crowd.Time(before.UnixMilli()))
	if err != nil {
		return rpc.Removed{}, err
	}
	return b.Remove(ctx, ids)
}

// contentOf is what the owner of a job uploads for it.
func contentOf(s *crowd.JobSpec) (list []crowd.CID) {
	for _, c := range []crowd.CID{s.Task.Program, s.Task.Inputs, s.Task.Stdin, s.Compare.Program} {
		if c != "" {
			list = append(list, c)
		}
	}
	return list
}
