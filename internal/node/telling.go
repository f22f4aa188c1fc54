package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/p2p"
)

// protoTelling carries from an executor to the job's owner what its run writes
// and how far it is. Nothing depends on it: it is for people, and unverified.
const protoTelling = "/crowd/telling/1"

// telling is one message of it.
type telling struct {
	_      struct{} `cbor:",toarray"`
	Job    crowd.JobID
	Gas    crowd.Gas // used so far
	Stream uint8     // 0 stdout, 1 stderr
	Offset uint64    // of Data in the stream
	Data   []byte
}

// maxTelling bounds one message, in bytes.
const maxTelling = 64 << 10

func decodeTelling(raw []byte) (m telling, err error) {
	if err := crowd.Decode(raw, &m); err != nil {
		return telling{}, err
	}
	if m.Stream > 1 {
		return telling{}, fmt.Errorf("telling: stream %d", m.Stream)
	}
	return m, nil
}

const (
	tellings   = 64                     // wait for a slow owner; one more is dropped
	tellPause  = 200 * time.Millisecond // between two tellings of progress
	tellPeriod = 5 * time.Second        // for one telling to get away
)

// tell is the live output of a run of j. The func ends it; neither ever waits.
func (n *Node) tell(j *ledger.Job) (executor.IO, func()) {
	queue := make(chan telling, tellings)
	var mu sync.Mutex // an executor may write a little longer than it runs
	var ended bool
	var said time.Time
	put := func(m telling) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); ended || m.Data == nil && now.Sub(said) < tellPause {
			return
		} else if m.Data == nil {
			said = now
		}
		m.Job = j.ID
		select {
		case queue <- m:
		default: // the owner is slow: it reads the rest in the result
		}
	}
	n.chore(func(ctx context.Context) { n.tellAll(ctx, j.Owner, queue) })
	return executor.IO{
			Stdout: &tellWriter{put: put}, Stderr: &tellWriter{stream: 1, put: put},
			Progress: func(g crowd.Gas) { put(telling{Gas: g}) },
		}, func() {
			mu.Lock()
			defer mu.Unlock()
			ended = true
			close(queue)
		}
}

// tellWriter tells what is written to one stream.
type tellWriter struct {
	stream uint8
	at     uint64
	put    func(telling)
}

func (w *tellWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		part := rest[:min(len(rest), maxTelling/2)]
		w.put(telling{Stream: w.stream, Offset: w.at, Data: append([]byte(nil), part...)})
		w.at, rest = w.at+uint64(len(part)), rest[len(part):]
	}
	return len(b), nil
}

// tellAll sends a queue to the owner on one stream; without a way there it drops it.
func (n *Node) tellAll(ctx context.Context, owner crowd.NodeID, queue <-chan telling) {
	var s p2p.Stream
	lost := false
	for m := range queue {
		if lost || ctx.Err() != nil {
			continue
		}
		if s == nil {
			err := n.reach(ctx, owner)
			if err == nil {
				s, err = n.host.Open(ctx, owner, protoTelling)
			}
			if lost = err != nil; lost {
				continue
			}
			defer s.Close()
		}
		s.SetDeadline(time.Now().Add(tellPeriod))
		lost = p2p.WriteMessage(s, crowd.Encode(m)) != nil
	}
}

// hear takes in what an executor tells of a job of this node's own.
func (n *Node) hear(_ context.Context, from crowd.NodeID, s p2p.Stream) error {
	for {
		if err := s.SetDeadline(time.Now().Add(hearPatience)); err != nil {
			return err
		}
		raw, err := p2p.ReadMessage(s, maxTelling)
		if err != nil {
			return err
		}
		m, err := decodeTelling(raw)
		if err != nil {
			return err
		}
		n.book.told(from, m)
	}
}

// hearPatience is how long an executor may be silent.
const hearPatience = time.Hour
