package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/atomicfile"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/runner"
)

// book keeps the node's own jobs: their newest proven record and their receipt
// on disk, what runs and watches in memory.
type book struct {
	dir   string
	units uint64 // committee units of the network's draws

	disk sync.Mutex // held from the change of a page until it is on disk, so that files follow their order

	mu   sync.Mutex
	jobs map[crowd.JobID]*page
}

// page is one job. The book's mu guards it.
type page struct {
	job       ledger.Job
	receipt   []byte
	delivered bool   // the result is in the own store
	advice    string // how near a wrong output came, and how to declare that it is right
	progress  rpc.Progress
	note      string        // of an executor on how its run ended
	logs      [2]logTail    // stdout, stderr
	source    crowd.NodeID  // whose live logs are shown
	changed   chan struct{} // closed and replaced at each change
}

// logTail is the beginning of one stream as an executor told it, unverified.
type logTail struct{ data []byte }

// maxLive bounds the live log kept of one stream, in bytes. The rest is in the result.
const maxLive = 1 << 20

// maxNote bounds what is shown of an executor's note, in bytes.
const maxNote = 500

var streams = [2]string{"stdout", "stderr"}

func openBook(dir string, units uint64) (*book, error) {
	b := &book{dir: dir, units: units, jobs: map[crowd.JobID]*page{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open job book: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open job book: %w", err)
	}
	for _, n := range names {
		id, err := crowd.ParseJobID(n.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, n.Name(), "record"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // killed before the first record
		} else if err != nil {
			return nil, fmt.Errorf("open job book: %w", err)
		}
		p := &page{changed: make(chan struct{})}
		if err := crowd.Decode(raw, &p.job); err != nil || p.job.ID != id {
			return nil, fmt.Errorf("open job book: %s is damaged (%v); remove the folder: the chain still has the job", filepath.Join(dir, n.Name()), err)
		}
		if p.receipt, err = os.ReadFile(filepath.Join(dir, n.Name(), "receipt.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open job book: %w", err)
		}
		if advice, err := os.ReadFile(filepath.Join(dir, n.Name(), "advice")); err == nil {
			p.advice = string(advice)
		}
		if _, err := os.Stat(filepath.Join(dir, n.Name(), "result")); err == nil {
			p.delivered = true
		}
		b.jobs[id] = p
	}
	return b, nil
}

// write replaces a file of a job. b.disk must be held.
func (b *book) write(id crowd.JobID, name string, data []byte) error {
	dir := filepath.Join(b.dir, id.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, name), data, 0o600)
}

// update does f to the page of id and wakes who watches it.
func (b *book) update(id crowd.JobID, f func(*page)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.jobs[id]
	if p == nil {
		p = &page{changed: make(chan struct{})}
		b.jobs[id] = p
	}
	f(p)
	close(p.changed)
	p.changed = make(chan struct{})
}

// track takes in a proven record.
func (b *book) track(j ledger.Job) error {
	b.disk.Lock()
	defer b.disk.Unlock()
	fresh := false
	b.update(j.ID, func(p *page) {
		if fresh = len(j.History) >= len(p.job.History) && !p.job.State.Ended(); fresh {
			p.job = j
		}
	})
	if !fresh {
		return nil
	}
	if err := b.write(j.ID, "record", crowd.Encode(&j)); err != nil {
		return fmt.Errorf("keep record of job %s: %w", j.ID.Short(), err)
	}
	return nil
}

func (b *book) setReceipt(id crowd.JobID, receipt []byte) error {
	b.disk.Lock()
	defer b.disk.Unlock()
	if err := b.write(id, "receipt.json", receipt); err != nil {
		return fmt.Errorf("keep receipt of job %s: %w", id.Short(), err)
	}
	b.update(id, func(p *page) { p.receipt = receipt })
	return nil
}

func (b *book) setDivergence(id crowd.JobID, advice string) error {
	b.disk.Lock()
	defer b.disk.Unlock()
	b.update(id, func(p *page) { p.advice = advice })
	if err := b.write(id, "advice", []byte(advice)); err != nil {
		return fmt.Errorf("keep advice on job %s: %w", id.Short(), err)
	}
	return nil
}

func (b *book) setDelivered(id crowd.JobID) { b.update(id, func(p *page) { p.delivered = true }) }

// expect makes room for a job whose first record has not come yet.
func (b *book) expect(id crowd.JobID) { b.update(id, func(*page) {}) }

// look returns a copy of what is known of a job.
func (b *book) look(id crowd.JobID) (page, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.jobs[id]
	if p == nil {
		return page{}, false
	}
	return *p, true
}

// all are the jobs, newest first.
func (b *book) all() []ledger.Job {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []ledger.Job
	for _, p := range b.jobs {
		if len(p.job.History) > 0 {
			out = append(out, p.job)
		}
	}
	slices.SortFunc(out, func(x, y ledger.Job) int {
		if c := int(y.History[0].Height) - int(x.History[0].Height); c != 0 {
			return c
		}
		return strings.Compare(x.ID.String(), y.ID.String())
	})
	return out
}

// told takes in what an executor says while it runs. Only one that works on the
// job is heard, and of several the one that spoke first, while it works.
func (b *book) told(from crowd.NodeID, m telling) {
	b.mu.Lock()
	known := b.jobs[m.Job] != nil
	b.mu.Unlock()
	if !known {
		return // a stranger's job: no memory is spent on it
	}
	b.update(m.Job, func(p *page) {
		place := p.job.Place(from)
		if place == nil || place.State == ledger.Dropped || place.State == ledger.Fraud || p.job.State.Ended() {
			return
		}
		c, limit, of := &m.Chunk, p.job.Spec.Limits().Gas, p.job.Spec.Items
		switch c.Stream {
		case runner.Progress:
			if c.Gas <= limit && c.Items <= of && (c.Items > p.progress.Items || c.Items == p.progress.Items && c.Gas > p.progress.Gas) {
				p.progress = rpc.Progress{Gas: c.Gas, Limit: limit, Items: c.Items, Of: of}
			}
			return
		case runner.Note:
			p.note = from.Short() + " says: " + string(c.Data[:min(len(c.Data), maxNote)])
			return
		}
		if s := p.job.Place(p.source); s == nil || s.State == ledger.Dropped || s.State == ledger.Fraud {
			p.source = from
		}
		if p.source != from {
			return
		}
		t := &p.logs[c.Stream-runner.Stdout]
		have := uint64(len(t.data))
		if c.Offset > have || c.Offset+uint64(len(c.Data)) <= have || have >= maxLive {
			return
		}
		t.data = append(t.data, c.Data[have-c.Offset:]...)
		t.data = t.data[:min(len(t.data), maxLive)]
	})
}

// wait returns when the page of id changes or ctx ends.
func wait(ctx context.Context, p *page) bool {
	select {
	case <-p.changed:
		return true
	case <-ctx.Done():
		return false
	}
}

// watch sends the job's life from its beginning and ends with the job.
func (b *book) watch(ctx context.Context, id crowd.JobID) <-chan rpc.JobEvent {
	out := make(chan rpc.JobEvent) // unbuffered: a slow watcher waits, nobody else does
	go func() {
		defer close(out)
		var steps, places, seq int
		var last time.Time
		var progress rpc.Progress
		var told bool
		var note string
		send := func(ev rpc.JobEvent) bool {
			seq++
			ev.Seq = seq
			if ev.Time.Before(last) { // block time lags behind the clock
				ev.Time = last
			}
			last = ev.Time
			select {
			case out <- ev:
				return true
			case <-ctx.Done():
				return false
			}
		}
		for {
			p, ok := b.look(id)
			if !ok {
				return
			}
			j := &p.job
			for ; steps < len(j.History); steps++ {
				s := j.History[steps]
				if s.State == ledger.Settled && !told {
					break // the result comes first, see below
				}
				ev := event(j, steps, b.units)
				if s.State == ledger.Running && steps > 0 && j.History[steps-1].State != ledger.Running { // else an audit's lot goes on
					drawn := ev
					drawn.Stage = rpc.Drawn
					if !send(drawn) {
						return
					}
					places = fingerprint(j)
					executors, _ := ledger.Seats(&j.Spec.Plan)
					if ev.Why = fmt.Sprintf("%d executors work", executors); j.Audit != nil {
						ev.Why = fmt.Sprintf("an executor works; once it is bound to an outcome a lot decides whether another runs it again: %s", percent(j.Audit.Rate))
					}
					if v := j.Spec.Plan.Verifiers; j.Spec.Items > 0 && v > 0 {
						ev.Why = fmt.Sprintf("an executor works on %d items, %d verifiers on %d each that nobody else knows", j.Spec.Items, v, min(j.Spec.Plan.Checks, j.Spec.Items))
					}
				}
				if !send(ev) || ev.Stage.Final() {
					return
				}
			}
			if f := fingerprint(j); j.State == ledger.Running && f != places {
				places = f
				if !send(rpc.JobEvent{Time: time.Now().UTC(), Stage: rpc.Running, Why: news(j), Committee: committee(j, b.units)}) {
					return
				}
			}
			if p.progress != progress && j.State == ledger.Running {
				progress = p.progress
				pr := progress
				if !send(rpc.JobEvent{Time: time.Now().UTC(), Stage: rpc.Running, Why: "an executor tells its progress", Progress: &pr}) {
					return
				}
			}
			if p.note != note && !j.State.Ended() {
				note = p.note
				if !send(rpc.JobEvent{Time: time.Now().UTC(), Stage: stage(j, j.State), Why: note}) {
					return
				}
			}
			if p.delivered && !told && j.Verdict != nil {
				told = true
				if !send(rpc.JobEvent{Time: time.Now().UTC(), Stage: rpc.Delivered, Why: "the result is here and matches the committed hash", Outcome: outcome(j)}) {
					return
				}
				continue
			}
			if !wait(ctx, &p) {
				return
			}
		}
	}()
	return out
}

// fingerprint changes when a place does.
func fingerprint(j *ledger.Job) int {
	f := 0
	for i := range j.Places {
		f = f*8 + int(j.Places[i].State)
	}
	return f
}

// news says in words where the places stand.
func news(j *ledger.Job) string {
	var parts []string
	for i := range j.Places {
		p := &j.Places[i]
		s := p.Node.Short() + " " + p.State.String()
		if p.Why != "" {
			s += " (" + p.Why + ")"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

// liveLogs sends what executors wrote so far, unverified, and with follow what
// they write until the outcome is fixed.
func (b *book) liveLogs(ctx context.Context, id crowd.JobID, follow bool, out chan<- rpc.LogChunk) (sent [2]int64) {
	for {
		p, ok := b.look(id)
		if !ok {
			return sent
		}
		for i := range p.logs {
			if data := p.logs[i].data[sent[i]:]; len(data) > 0 {
				select {
				case out <- rpc.LogChunk{Stream: streams[i], Node: p.source, Offset: sent[i], Data: data}:
					sent[i] += int64(len(data))
				case <-ctx.Done():
					return sent
				}
			}
		}
		if !follow || p.delivered || p.job.State.Ended() || !wait(ctx, &p) {
			return sent
		}
	}
}
