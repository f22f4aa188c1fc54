package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/p2p"
	"github.com/crowdcompute/crowd/internal/runner"
)

// protoTelling carries from an executor to the job's owner what its run writes
// and how far it is. Nothing depends on it: it is for people, and unverified.
const protoTelling = "/crowd/telling/1"

// telling is one message of it.
type telling struct {
	_     struct{} `cbor:",toarray"`
	Job   crowd.JobID
	Chunk runner.Chunk
}

const (
	maxTelling   = 2 * runner.MaxChunk // bytes of one message
	tellings     = 64                  // wait for a slow owner; one more is dropped
	tellPeriod   = 5 * time.Second     // for one telling to get away
	tellIdle     = time.Minute         // without a word, before the line is given up
	hearPatience = time.Hour           // for the next word of an executor
)

func decodeTelling(raw []byte) (m telling, err error) {
	if err := crowd.Decode(raw, &m); err != nil {
		return telling{}, err
	}
	if s := m.Chunk.Stream; s < runner.Stdout || s > runner.Note || len(m.Chunk.Data) > runner.MaxChunk {
		return telling{}, fmt.Errorf("telling: stream %d with %d bytes", s, len(m.Chunk.Data))
	}
	return m, nil
}

// teller implements runner.Logs: one stream to each owner of a job that runs here.
type teller struct {
	node *Node

	mu    sync.Mutex
	lines map[line]chan telling // guarded by mu
}

type line struct {
	job   crowd.JobID
	owner crowd.NodeID
}

// Publish never waits: what the owner is too slow for it reads in the result.
func (t *teller) Publish(id crowd.JobID, owner crowd.NodeID, c runner.Chunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := line{id, owner}
	queue := t.lines[l]
	if queue == nil {
		queue = make(chan telling, tellings)
		t.lines[l] = queue
		t.node.chore(func(ctx context.Context) { t.serve(ctx, l, queue) })
	}
	select {
	case queue <- telling{Job: id, Chunk: c}:
	default:
	}
}

// serve sends a line's words until it is idle; without a way to the owner it drops them.
func (t *teller) serve(ctx context.Context, l line, queue <-chan telling) {
	defer func() {
		t.mu.Lock()
		delete(t.lines, l)
		t.mu.Unlock()
	}()
	err := t.node.reach(ctx, l.owner)
	if err != nil {
		t.node.log.Debug("tell", "job", l.job.Short(), "err", err)
		return
	}
	s, err := t.node.host.Open(ctx, l.owner, protoTelling)
	if err != nil {
		t.node.log.Debug("tell", "job", l.job.Short(), "err", err)
		return
	}
	defer s.Close()
	idle := time.NewTimer(tellIdle)
	defer idle.Stop()
	for {
		select {
		case m := <-queue:
			idle.Reset(tellIdle)
			s.SetDeadline(time.Now().Add(tellPeriod))
			if err := p2p.WriteMessage(s, crowd.Encode(m)); err != nil {
				t.node.log.Debug("tell", "job", l.job.Short(), "err", err)
				return
			}
		case <-idle.C:
			return
		case <-ctx.Done():
			return
		}
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
