package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/runner"
)

// book keeps the node's own jobs: their newest proven record and their receipt on disk, what runs and watches in memory. A job
// of which nothing is to come any more leaves the memory, save for the last few.
type book struct {
	dir   string
	units uint64 // committee units of the network's draws
	file  bookFile
	log   *slog.Logger

	disk sync.Mutex // held from the change of a page until it is on disk, so that files follow their order

	mu     sync.Mutex
	open   map[crowd.JobID]*page          // guarded by mu: something is to come; as many as the node has jobs at work
	recent *lru.Cache[crowd.JobID, *page] // guarded by mu: of the others, with what their executors told
}

// recentJobs is how many ended jobs keep their live logs, of 2 MiB each at most.
const recentJobs = 32

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

func openBook(dir string, units uint64, log *slog.Logger) (*book, error) {
	b := &book{dir: dir, units: units, log: log, open: map[crowd.JobID]*page{}}
	var err error
	if b.recent, err = lru.New[crowd.JobID, *page](recentJobs); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open job book: %w", err)
	}
	if b.file, err = openBookFile(filepath.Join(dir, "book")); err != nil {
		return nil, bookError(dir, err)
	}
	err = b.file.each([]byte(bookOpen), func(id crowd.JobID) bool {
		if p := b.find(id); p != nil { // a record that is damaged comes again from the chain
			b.open[id] = p
		}
		return true
	})
	if err != nil {
		return nil, bookError(dir, errors.Join(err, b.file.db.Close()))
	}
	return b, nil
}

func bookError(dir string, err error) error {
	return fmt.Errorf("open job book: %w; if it is damaged, remove %s: the chain still has the newest jobs", err, filepath.Join(dir, "book"))
}

func (b *book) close() error { return b.file.db.Close() }

// complete: nothing is to come any more.
func (p *page) complete() bool {
	return p.job.State.Ended() && p.receipt != nil && (p.delivered || p.job.State != ledger.Settled)
}

// find is the page of id, nil when there is none. It needs mu.
func (b *book) find(id crowd.JobID) *page {
	if p := b.open[id]; p != nil {
		return p
	}
	if p, ok := b.recent.Get(id); ok {
		return p
	}
	p, ok, err := b.file.load(id, b.dir)
	if err != nil {
		b.log.Error("job book", "err", err)
	}
	if !ok {
		return nil
	}
	p.changed = make(chan struct{})
	return &p
}

// update does f to the page of id and wakes who watches it. A job that was removed stays away.
func (b *book) update(id crowd.JobID, f func(*page)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.find(id)
	if p == nil && b.file.gone(id) {
		return
	}
	if p == nil {
		p = &page{changed: make(chan struct{})}
	}
	f(p)
	if p.complete() {
		if err := b.file.close(id); err != nil {
			b.log.Error("job book", "err", err) // it is looked at again after a restart
		}
		delete(b.open, id)
		b.recent.Add(id, p)
	} else {
		b.open[id] = p
	}
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
	if err := b.file.saveRecord(&j); err != nil {
		return fmt.Errorf("keep record of job %s: %w", j.ID.Short(), err)
	}
	return nil
}

func (b *book) setReceipt(id crowd.JobID, receipt []byte) error {
	b.disk.Lock()
	defer b.disk.Unlock()
	if err := b.file.save(bookReceipt, id, receipt); err != nil {
		return fmt.Errorf("keep receipt of job %s: %w", id.Short(), err)
	}
	b.update(id, func(p *page) { p.receipt = receipt })
	return nil
}

func (b *book) setDivergence(id crowd.JobID, advice string) error {
	b.disk.Lock()
	defer b.disk.Unlock()
	b.update(id, func(p *page) { p.advice = advice })
	if err := b.file.save(bookAdvice, id, []byte(advice)); err != nil {
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
	p := b.find(id)
	if p == nil {
		return page{}, false
	}
	return *p, true
}

// openJobs are those of which something is to come, in no order.
func (b *book) openJobs() (jobs []ledger.Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.open {
		if len(p.job.History) > 0 {
			jobs = append(jobs, p.job)
		}
	}
	return jobs
}

// newest are at most limit jobs, the newest first.
func (b *book) newest(limit int) (jobs []ledger.Job, err error) {
	if limit <= 0 {
		return nil, nil
	}
	err = b.file.each([]byte(bookByTime), func(id crowd.JobID) bool {
		if p, ok := b.look(id); ok {
			jobs = append(jobs, p.job)
		}
		return len(jobs) < limit
	})
	return jobs, err
}

// match are at most limit jobs whose ID begins with those hex digits.
func (b *book) match(digits string, limit int) ([]crowd.JobID, error) {
	return b.file.match(digits, limit)
}

// told takes in what an executor says while it runs. Only one that works on the
// job is heard, and of several the one that spoke first, while it works.
func (b *book) told(from crowd.NodeID, m telling) {
	b.mu.Lock()
	known := b.open[m.Job] != nil
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
