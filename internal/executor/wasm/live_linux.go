package wasm

import (
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// liveGrace is how long the end of a run waits for slow readers of its output.
const liveGrace = time.Second

// live copies what a run writes while it runs. It reads the very files that the
// worker writes, so nothing is kept in between and nothing that a reader does is
// felt by the run.
type live struct {
	gas  atomic.Uint64
	stop chan struct{} // closed by finish; nil: nobody looks
	done chan struct{}
	own  []*os.File
}

// follow begins to copy. The files are opened anew, since a slow reader may
// outlive the run.
func follow(w executor.IO, stdout, stderr *os.File) *live {
	l := &live{}
	if w.Stdout == nil && w.Stderr == nil && w.Progress == nil {
		return l
	}
	l.stop, l.done = make(chan struct{}), make(chan struct{})
	var copies []func()
	for _, c := range []struct {
		from *os.File
		to   io.Writer
	}{{stdout, w.Stdout}, {stderr, w.Stderr}} {
		if c.to == nil {
			continue
		}
		f, err := os.Open(c.from.Name())
		if err != nil {
			continue // a copy is a courtesy
		}
		l.own = append(l.own, f)
		copies = append(copies, func() { io.Copy(c.to, f) })
	}
	shown := uint64(0)
	if w.Progress != nil {
		copies = append(copies, func() {
			if g := l.gas.Load(); g != shown {
				shown = g
				w.Progress(crowd.Gas(g))
			}
		})
	}
	go func() {
		defer close(l.done)
		tick := time.NewTicker(liveEvery)
		defer tick.Stop()
		for last := false; !last; {
			select {
			case <-tick.C:
			case <-l.stop:
				last = true
			}
			for _, c := range copies {
				c()
			}
		}
		for _, f := range l.own {
			f.Close()
		}
	}()
	return l
}

func (l *live) wants() bool { return l.stop != nil }

// finish lets the last bytes through, to readers that take them in time.
func (l *live) finish() {
	if l.stop == nil {
		return
	}
	close(l.stop)
	t := time.NewTimer(liveGrace)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
	}
}
