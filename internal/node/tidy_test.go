package node

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor/wasm"
	"github.com/crowdcompute/crowd/internal/runner"
	"github.com/crowdcompute/crowd/internal/store"
)

func TestTidy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(t.TempDir(), store.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		n := &Node{store: s, short: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- n.tidy(ctx) }()
		add := func(text string) crowd.CID {
			c, err := s.AddFile(ctx, strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		has := func(c crowd.CID) bool {
			synctest.Wait()
			here, err := s.Has(ctx, c)
			if err != nil {
				t.Fatal(err)
			}
			return here
		}
		kept, loose := add("a job's"), add("nobody's")
		if err := s.Pin(kept, "job"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(collect + time.Minute) // virtual
		if !has(loose) {
			t.Error("what may be on its way to a job was collected within the hour")
		}
		time.Sleep(collect) // virtual
		if has(loose) || !has(kept) {
			t.Errorf("got nobody's %v, a job's %v, want the second alone", has(loose), has(kept))
		}

		loose = add("nobody's, on a full disk")
		time.Sleep(collect - time.Second) // virtual: until a second before the next collection
		if err := n.spaced(fmt.Errorf("fetch: %w", store.ErrNoSpace)); err == nil {
			t.Error("the error was swallowed")
		}
		n.shortage()                        // never waits
		time.Sleep(hurried + 2*time.Second) // virtual
		n.shortage()
		time.Sleep(hurried) // virtual
		if has(loose) {
			t.Error("space was short for minutes, and nothing was collected")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAccept(t *testing.T) {
	have := wasm.RunMemory()
	most := have/4*3 - runner.LeastMemory(0) // what a run takes beside its program's memory, and a little
	for _, tt := range []struct {
		memory uint64
		ok     bool
	}{{1 << 20, true}, {most, true}, {have / 4 * 3, false}, {1 << 63, false}} {
		s := crowd.JobSpec{Task: crowd.Task{Limits: crowd.Limits{Memory: tt.memory}}}
		if err := accept(&s); (err == nil) != tt.ok {
			t.Errorf("%d bytes of %d: got %v", tt.memory, have, err)
		}
	}
}
