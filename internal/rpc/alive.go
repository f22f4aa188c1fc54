package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	geth "github.com/ethereum/go-ethereum/rpc"
)

// go-ethereum's client forgets a call that it is just sending when the connection breaks: nothing ends that call, and after
// a reconnection nobody answers it. So who waits for an answer on a lasting connection asks now and then for a sign of life.
const (
	signEvery = 2 * time.Second
	signTime  = 30 * time.Second // for a node on a busy machine
)

var errNodeGone = errors.New("the node has gone away")

// awaiting is ctx for a call on conn. It ends, with an error for a cause, when the node gives no sign of life or was started anew.
// done must be called.
func (c *Client) awaiting(ctx context.Context, conn *geth.Client) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(signEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			var info Info
			sign, stop := context.WithTimeout(ctx, signTime)
			err := conn.CallContext(sign, &info, namespace+"_info")
			stop()
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				cancel(fmt.Errorf("%w: %w", errNodeGone, err))
			case !info.Started.Equal(c.started):
				cancel(fmt.Errorf("%w, and was started again", errNodeGone))
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}

// ask is one call.
func (c *Client) ask(ctx context.Context, out any, op, method string, args ...any) error {
	if !c.lasting {
		return fromWire(op, c.call.CallContext(ctx, out, method, args...))
	}
	ctx, done := c.awaiting(ctx, c.call)
	defer done()
	return fromWire(op, gone(ctx, op, c.call.CallContext(ctx, out, method, args...)))
}

// gone is err, or why ctx ended while the caller still waited.
func gone(ctx context.Context, op string, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errNodeGone) {
		return &Error{Kind: Unavailable, Op: op, Err: cause, Hint: "start it again, and look what became of it: what was sent may have been done"}
	}
	return err
}
