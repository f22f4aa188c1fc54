package runner

import (
	"bytes"
	"context"
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
	Progress // gas used so far
	Note     // of the executor: why a run ended as it did
)

// MaxChunk bounds the data of one Chunk, in bytes.
const MaxChunk = 16 << 10

// Chunk is a piece of what one executor says while it runs a task. Nobody has
// checked it: only the result is checked.
type Chunk struct {
	_      struct{} `cbor:",toarray"`
	Stream Stream
	Data   []byte
	Gas    crowd.Gas // of Progress
}

// Event is one entry in the story of a job as this node sees it.
type Event struct {
	Time   time.Time
	Role   job.Role     // whose machine reports
	Node   crowd.NodeID // who says so: this node, or for a Chunk an executor
	Stage  string       // as in job.Report; "" for a Chunk
	Why    string
	Detail string
	Done   uint64 // of a transfer, bytes
	Total  uint64 // as the sender claims; 0: no transfer
	Chunk  *Chunk // unchecked words of an executor
}

// Bounds on what is remembered, so that no job and no executor fills the memory.
const (
	maxEvents = 512       // of one job; the oldest chunks and transfers go first
	maxChunks = 128 << 10 // bytes in the chunks of one job
	maxLogs   = 4096      // jobs; the oldest goes
)

// logs are the events of all jobs.
type logs struct {
	mu   sync.Mutex
	jobs map[crowd.JobID]*story
	age  []crowd.JobID // in order of first mention
}

// story is one job's events. Its fields are guarded by logs.mu.
type story struct {
	events  []Event
	numbers []uint64
	next    uint64
	bytes   int
	ended   bool
	changed chan struct{} // closed and replaced whenever something changes
}

func newLogs() *logs { return &logs{jobs: map[crowd.JobID]*story{}} }

// of is the story of id. mu must be held.
func (l *logs) of(id crowd.JobID) *story {
	s := l.jobs[id]
	if s == nil {
		if len(l.age) >= maxLogs {
			old := l.jobs[l.age[0]]
			old.ended = true
			close(old.changed)
			delete(l.jobs, l.age[0])
			l.age = l.age[1:]
		}
		s = &story{changed: make(chan struct{})}
		l.jobs[id], l.age = s, append(l.age, id)
	}
	return s
}

func (l *logs) add(id crowd.JobID, e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.of(id)
	s.events, s.numbers = append(s.events, e), append(s.numbers, s.next)
	s.next++
	if e.Chunk != nil {
		s.bytes += len(e.Chunk.Data)
	}
	for s.bytes > maxChunks || len(s.events) > maxEvents {
		s.forget()
	}
	s.tell()
}

// forget drops the oldest chunk or transfer, or when there is none the oldest event.
func (s *story) forget() {
	at := 0
	for i := range s.events {
		if s.events[i].Chunk != nil || s.events[i].Total != 0 {
			at = i
			break
		}
	}
	if c := s.events[at].Chunk; c != nil {
		s.bytes -= len(c.Data)
	}
	s.events = append(s.events[:at:at], s.events[at+1:]...)
	s.numbers = append(s.numbers[:at:at], s.numbers[at+1:]...)
}

func (s *story) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (l *logs) end(id crowd.JobID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.of(id)
	s.ended = true
	s.tell()
}

// Watch is the story of a job: first what is remembered, then what comes, until
// the node's part as its consumer is over or ctx ends. A slow reader misses
// what was forgotten meanwhile. The channel has no capacity.
func (r *Runner) Watch(ctx context.Context, id crowd.JobID) <-chan Event {
	out := make(chan Event)
	r.logs.mu.Lock()
	s := r.logs.of(id)
	r.logs.mu.Unlock()
	go func() {
		defer close(out)
		next := uint64(0)
		for {
			r.logs.mu.Lock()
			at := 0
			for at < len(s.numbers) && s.numbers[at] < next {
				at++
			}
			var e Event
			fresh := at < len(s.events)
			if fresh {
				e, next = s.events[at], s.numbers[at]+1
			}
			ended, changed := s.ended, s.changed
			r.logs.mu.Unlock()
			switch {
			case fresh:
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			case ended:
				return
			default:
				select {
				case <-changed:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

// Heard takes in a chunk that came from an executor's node over the network. It
// is dropped unless the job is an open one of this node's and from works on it.
func (r *Runner) Heard(id crowd.JobID, from crowd.NodeID, c Chunk) {
	if c.Stream < Stdout || c.Stream > Note || len(c.Data) > MaxChunk {
		return
	}
	r.post(func(context.Context) {
		a := r.machines[slot{id, job.AsConsumer}]
		if a == nil || a.last == nil || a.last.Place(from) == nil {
			return
		}
		r.logs.add(id, Event{Time: time.Now(), Role: job.AsExecutor, Node: from, Chunk: &c})
	})
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
	var mu sync.Mutex
	var last time.Time
	return executor.IO{
		Stdout: chunker{r, s, owner, Stdout},
		Stderr: chunker{r, s, owner, Stderr},
		Progress: func(g crowd.Gas) {
			mu.Lock()
			defer mu.Unlock()
			if now := time.Now(); now.Sub(last) >= time.Second/4 {
				last = now
				r.publish(s, owner, Chunk{Stream: Progress, Gas: g})
			}
		},
	}
}

// chunker cuts a stream into chunks.
type chunker struct {
	r      *Runner
	s      slot
	owner  crowd.NodeID
	stream Stream
}

func (c chunker) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), MaxChunk)
		c.r.publish(c.s, c.owner, Chunk{Stream: c.stream, Data: bytes.Clone(rest[:n])})
		rest = rest[n:]
	}
	return len(p), nil
}
