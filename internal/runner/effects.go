package runner

import (
	"context"
	"fmt"
	"time"

	"github.com/crowdcompute/crowd/internal/job"
)

// sendTimeout is when a message that no block has shown is given back as unknown.
const sendTimeout = time.Minute

// do carries out one effect. An error means that the next must not begin.
func (r *Runner) do(ctx context.Context, s slot, a *active, e job.Effect) error {
	switch e := e.(type) {
	case job.Send:
		r.begin(func() {
			ctx, cancel := context.WithTimeout(ctx, sendTimeout)
			defer cancel()
			_, err := r.cfg.Chain.Send(ctx, e.Message)
			if err != nil && ctx.Err() != context.Canceled {
				r.cfg.Log.Info("send", "job", s.id, "role", s.role, "message", fmt.Sprintf("%T", e.Message), "err", err)
			}
			r.tell(s, a, job.Sent{Message: e.Message, Err: err})
		})
	case job.Fetch:
		r.work(ctx, s, a, func(ctx context.Context) job.Event {
			return job.Fetched{Try: e.Try, Err: r.fetch(ctx, s, e)}
		})
	case job.Run:
		owner := a.last.Owner
		r.work(ctx, s, a, func(ctx context.Context) job.Event {
			o, leaves, outputs, err := r.execute(ctx, s, owner, e)
			return job.Ran{Try: e.Try, Outcome: o, Leaves: leaves, Outputs: outputs, Err: err}
		})
	case job.ReadLeaves:
		r.work(ctx, s, a, func(ctx context.Context) job.Event {
			leaves, err := r.readLeaves(ctx, e)
			return job.LeavesRead{Try: e.Try, Leaves: leaves, Err: err}
		})
	case job.Compare:
		r.work(ctx, s, a, func(ctx context.Context) job.Event {
			found, err := r.compare(ctx, e)
			return job.Compared{Try: e.Try, Found: found, Err: err}
		})
	case job.Stop:
		if a.stop != nil {
			a.stop()
		}
	case job.Persist:
		return r.journals.write(s, e.Journal)
	case job.Keep:
		return r.cfg.Blocks.Pin(e.CID, s.String())
	case job.Release:
		return r.cfg.Blocks.Unpin(e.CID, s.String())
	case job.Look:
		r.look(ctx, s.id)
	case job.Report:
		if r.cfg.Report != nil {
			r.cfg.Report(s.id, s.role, e)
		}
	case job.Done:
		r.drop(s, a)
		return r.journals.remove(s)
	default:
		panic(fmt.Sprintf("bug: an effect that nothing carries out: %T", e))
	}
	return nil
}

// work does f beside the loop, at most one for each machine, and tells its end.
func (r *Runner) work(ctx context.Context, s slot, a *active, f func(context.Context) job.Event) {
	if a.stop != nil {
		a.stop()
	}
	ctx, cancel := context.WithCancel(ctx)
	a.stop = cancel
	r.begin(func() {
		defer cancel()
		r.tell(s, a, f(ctx))
	})
}
