package fleet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// trivial is a program that says that it is done.
func trivial(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trivial.wasm")
	clang := exec.Command("clang-14", "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-o", path, "../../programs/trivial/trivial.c")
	if out, err := clang.CombinedOutput(); err != nil {
		t.Skipf("no guest can be built here: %v: %s", err, out)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const jobTime = 60 * time.Second

// job has a program run on exactly these nodes, and checks its result and that nobody else had a hand in it.
func (w *world) job(by *member, program []byte, on ...*member) time.Duration {
	w.Helper()
	var names []string
	for _, n := range on {
		names = append(names, n.name)
	}
	return w.within(0, fmt.Sprintf("a job of %s on %s", by.name, strings.Join(names, " and ")), func() error {
		return by.callFor(jobTime, func(ctx context.Context, c *rpc.Client) error {
			cid, err := c.UploadFile(ctx, bytes.NewReader(program), nil)
			if err != nil {
				return err
			}
			r := rpc.PostRequest{Program: cid, Limits: rpc.Limits{Gas: 1e9, Memory: 16 << 20, Output: 1 << 20}}
			for _, n := range on {
				r.Filters.Providers = append(r.Filters.Providers, n.id())
			}
			id, err := c.Post(ctx, r)
			if err != nil {
				return err
			}
			var last rpc.JobEvent
			var why []string
			for e, err := range c.Watch(ctx, id) {
				if err != nil {
					return fmt.Errorf("after %q: %w", why, err)
				}
				last, why = e, append(why, fmt.Sprintf("%s: %s", e.Stage, e.Why))
			}
			if last.Stage != rpc.Settled {
				return fmt.Errorf("got %q, want settled", why)
			}
			var out strings.Builder
			if _, err := c.Download(ctx, id, "stdout", &out); err != nil || out.String() != "trivial: done\n" {
				return fmt.Errorf("result: got %q, %v", out.String(), err)
			}
			j, err := c.Job(ctx, id)
			if err != nil {
				return err
			}
			ran := 0
			for _, m := range j.Committee {
				if m.Revealed {
					ran++
				}
				if !slices.Contains(r.Filters.Providers, m.Node) {
					return fmt.Errorf("%s is in the committee", m.Node.Short())
				}
			}
			if ran != 2 {
				return fmt.Errorf("%d have revealed an outcome, want 2", ran)
			}
			return nil
		})
	})
}

// send moves a credit from one account to another, which the receiver's own node then sees.
func (w *world) send(from, to *member) {
	w.Helper()
	balance := func(n *member) (b crowd.Credits, err error) {
		err = n.call(func(ctx context.Context, c *rpc.Client) error {
			a, err := c.Account(ctx, to.id().Address())
			b = a.Balance
			return err
		})
		return b, err
	}
	had, err := balance(from)
	if err != nil {
		w.Fatal(err)
	}
	w.within(0, from.name+" sends a credit", func() error {
		return from.call(func(ctx context.Context, c *rpc.Client) error {
			_, err := c.Send(ctx, to.id().Address(), crowd.Credit)
			return err
		})
	})
	w.within(patience, to.name+" sees the credit", func() error {
		got, err := balance(to)
		if err == nil && got != had+crowd.Credit {
			err = fmt.Errorf("got %s, want %s", got, had+crowd.Credit)
		}
		return err
	})
}
