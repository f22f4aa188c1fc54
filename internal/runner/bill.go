package runner

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
)

// laid is what becomes of a run's inputs, and what that costs. It follows from the task, its number of items and the content
// alone, since it is part of the outcome.
type laid struct {
	usable bool
	dear   bool      // to lay them out costs more gas than there is: nothing was laid out
	spent  crowd.Gas // by the task, or by each of a batch's items
}

// bill says what laying the inputs out will cost, before anything is. A sum of the sizes that the roots claim is enough:
// where the content lies, laying it out fails at the first block that does not fit.
func (r *Runner) bill(ctx context.Context, e *job.Run) (laid, error) {
	limit := e.Task.Limits.Gas
	unusable := laid{spent: min(executor.Share(executor.Unusable, e.Items), limit)}
	if e.Unusable {
		return unusable, nil
	}
	cost := crowd.Gas(0)
	for _, in := range contents(&e.Task) {
		if in.cid == "" {
			continue
		}
		info, err := r.cfg.Blocks.Stat(ctx, in.cid)
		switch {
		case err != nil && r.cfg.Unusable(err):
			return unusable, nil
		case err != nil:
			return laid{}, fmt.Errorf("%s: %w", in.name, err)
		case info.Dir != in.folder || info.Size > job.MaxInput:
			return unusable, nil
		}
		cost += executor.LayOut(info.Size, uint64(info.Entries)+1)
	}
	l := laid{usable: true, spent: executor.Share(cost, e.Items)}
	if l.spent > limit {
		l.dear, l.spent = true, limit
	}
	return l, nil
}

// content is one of the things that a task reads.
type content struct {
	cid    crowd.CID
	name   string // in the folder of a run
	folder bool
}

func contents(t *crowd.Task) [3]content {
	return [3]content{{t.Program, "program", false}, {t.Inputs, "inputs", true}, {t.Stdin, "stdin", false}}
}

// layOut writes the inputs to dir, unless the bill says that it would be in vain, and names them in s.
func (r *Runner) layOut(ctx context.Context, e *job.Run, dir string, s *executor.Spec) (laid, error) {
	l, err := r.bill(ctx, e)
	if err != nil || !l.usable || l.dear {
		return l, err
	}
	paths := [...]*string{&s.Program, &s.Inputs, &s.Stdin}
	for i, in := range contents(&e.Task) {
		if in.cid == "" || !l.usable {
			continue
		}
		*paths[i] = filepath.Join(dir, in.name)
		if l.usable, err = r.export(ctx, in.cid, *paths[i], in.folder, job.MaxInput); err != nil {
			return l, fmt.Errorf("%s: %w", in.name, err)
		}
	}
	return l, nil
}
