package runner

import (
	"bytes"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
)

// Stream says what a Chunk holds. Append only.
type Stream uint8

const (
	Stdout Stream = iota + 1
	Stderr
	Progress // gas used so far, and items done
	Note     // of the executor: why a run ended as it did
)

// MaxChunk bounds the data of one Chunk, in bytes.
const MaxChunk = 16 << 10

// Chunk is a piece of what one executor says while it runs a task. Nobody has
// checked it: only the result is checked.
type Chunk struct {
	_      struct{} `cbor:",toarray"`
	Stream Stream
	Offset uint64 // of Data in Stdout or Stderr
	Data   []byte
	Gas    crowd.Gas // of Progress
	Items  uint32    // of Progress in a batch: done
}

// publish tells the owner what an executor of its job says.
func (r *Runner) publish(s slot, owner crowd.NodeID, c Chunk) {
	if r.cfg.Logs != nil && s.role == job.AsExecutor {
		r.cfg.Logs.Publish(s.id, owner, c)
	}
}

// streams is the IO of a run whose words go to the owner as they come.
func (r *Runner) streams(s slot, owner crowd.NodeID) executor.IO {
	if r.cfg.Logs == nil || s.role != job.AsExecutor {
		return executor.IO{}
	}
	progress := r.progress(s, owner)
	return executor.IO{
		Stdout:   &chunker{r: r, s: s, owner: owner, stream: Stdout},
		Stderr:   &chunker{r: r, s: s, owner: owner, stream: Stderr},
		Progress: func(g crowd.Gas) { progress(0, g) },
	}
}

// progress tells the owner now and then how far a run is: items of a batch, and gas.
func (r *Runner) progress(s slot, owner crowd.NodeID) func(items uint32, g crowd.Gas) {
	var mu sync.Mutex
	var last time.Time
	return func(items uint32, g crowd.Gas) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) >= time.Second/4 {
			last = now
			r.publish(s, owner, Chunk{Stream: Progress, Items: items, Gas: g})
		}
	}
}

// chunker cuts a stream into chunks.
type chunker struct {
	r      *Runner
	s      slot
	owner  crowd.NodeID
	stream Stream
	at     uint64
}

func (c *chunker) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), MaxChunk)
		c.r.publish(c.s, c.owner, Chunk{Stream: c.stream, Offset: c.at, Data: bytes.Clone(rest[:n])})
		c.at, rest = c.at+uint64(n), rest[n:]
	}
	return len(p), nil
}
