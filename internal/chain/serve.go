package chain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Bounds of what light nodes make a full node hold.
const (
	// catchUp is how long a question may wait for a block: a light node may know more than this node, or ask for what comes next.
	catchUp = 10 * time.Second
	// maxStreams bounds the light nodes of one full node; a further one is told to ask another.
	maxStreams = 1024
)

var errStreams = errors.New("this full node serves as many light nodes as it can: ask another")

// Serve answers one light node on one stream until the stream, ctx or the node ends, and closes the stream. A node
// has one stream: a newer one of the same node ends it; from is zero for one in this process, which is not counted. A
// stream holds at most maxAsked questions, none for longer than catchUp, and three frames, which comes
// to less than 4 MiB; a light node that reads slowly is answered slowly and gets changes merged. Serve fails on
// what no honest light node sends.
func (f *Full) Serve(ctx context.Context, from crowd.NodeID, stream io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &service{f: f, from: from, end: cancel, out: make(chan []byte, 1), slots: make(chan struct{}, maxAsked), order: make(chan struct{}, 1)}
	if !f.enter(s) {
		_, _ = stream.Write(encodeFrame(0, kError, newErrorBody(errStreams)))
		return stream.Close()
	}
	defer f.leave(s)
	g, inner := errgroup.WithContext(ctx)
	err := s.serve(inner, g, stream)
	if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// enter counts a stream and ends the one that its node had; false: there are too many.
func (f *Full) enter(s *service) bool {
	if s.from.IsZero() {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.streams[s.from]; old != nil {
		old.end()
	} else if len(f.streams) >= maxStreams {
		return false
	}
	f.streams[s.from] = s
	return true
}

func (f *Full) leave(s *service) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams[s.from] == s {
		delete(f.streams, s.from)
	}
}

func (s *service) serve(ctx context.Context, g *errgroup.Group, stream io.ReadWriteCloser) error {
	unhook := context.AfterFunc(ctx, func() { stream.Close() })
	defer unhook()
	defer stream.Close()
	g.Go(func() error { return s.write(ctx, stream) })
	g.Go(func() error { return s.read(ctx, g, stream) })
	g.Go(func() error {
		select {
		case <-s.f.over:
			return ErrClosed
		case <-ctx.Done():
			return nil
		}
	})
	return g.Wait()
}

// service is one light node's stream.
type service struct {
	// set once
	f     *Full
	from  crowd.NodeID // zero: in this process
	self  crowd.NodeID // whom hello names; read's goroutine sets it before any question
	end   func()
	out   chan []byte   // capacity 1: enough to keep the writer busy
	slots chan struct{} // a question holds one

	order chan struct{} // capacity 1: held from looking at the newest snapshot to queueing what it gave

	mine struct { // the newest answer to kMine; order must be held
		snap  *snapshot
		since crowd.Height
		jobs  []crowd.JobID
	}
}

func (s *service) write(ctx context.Context, w io.Writer) error {
	for {
		select {
		case b := <-s.out:
			if _, err := w.Write(b); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *service) queue(ctx context.Context, b []byte) error {
	select {
	case s.out <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *service) read(ctx context.Context, g *errgroup.Group, stream io.Reader) error {
	r := bufio.NewReader(stream)
	first, err := readFrame(r, maxRequest)
	if err != nil {
		return err
	}
	h, err := body[hello](first)
	switch {
	case err != nil:
		return fmt.Errorf("hello: %w", err)
	case first.Kind != kHello || len(h.Prefixes) > maxPrefixes:
		return errors.New("hello: not one")
	case h.Chain != s.f.app.chain:
		_ = s.queue(ctx, encodeFrame(0, kError, errorBody{Text: "this is chain " + s.f.app.chain}))
		return fmt.Errorf("hello: for chain %.60q", h.Chain)
	}
	prefixes := make([]string, len(h.Prefixes))
	for i, p := range h.Prefixes {
		if len(p) > maxKey {
			return errors.New("hello: a prefix longer than any key")
		}
		prefixes[i] = string(p)
	}
	s.self = h.Self
	follow := &follower{prefixes: prefixes, self: h.Self, told: map[crowd.JobID]ledger.JobState{}}
	// Watch before the first push, so that nothing falls between.
	blocks := s.f.proven.watch(ctx)
	g.Go(func() error { return s.push(ctx, blocks, follow, h.Min) })
	for {
		q, err := readFrame(r, maxRequest)
		if err != nil {
			return err
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		answer, err := s.question(ctx, q)
		if err != nil {
			return err
		}
		g.Go(func() error {
			defer func() { <-s.slots }()
			if err := answer(); errors.Is(err, ErrClosed) {
				return err // whoever asks another node, or this one when it is back, gets a better answer
			} else if err != nil && ctx.Err() == nil {
				return s.queue(ctx, encodeFrame(q.ID, kError, newErrorBody(err)))
			}
			return nil
		})
	}
}

// values sends the newest provable value of a key.
func (s *service) values(ctx context.Context, id uint64, minimum crowd.Height, key string) error {
	return s.underOrder(ctx, minimum, func(snap *snapshot) error {
		p := snap.prove([]byte(key))
		return s.queue(ctx, encodeFrame(id, kValues, valuesBody{Evidence: snap.evidence, Values: []value{newValue(p)}}))
	})
}

// underOrder calls f with the newest provable state, whose header has at least that height. What f queues stands in the order of headers.
func (s *service) underOrder(ctx context.Context, minimum crowd.Height, f func(*snapshot) error) error {
	wait, cancel := context.WithTimeout(ctx, s.f.catchUp)
	defer cancel()
	if _, err := s.f.snapshot(wait, minimum); err != nil {
		return fmt.Errorf("reach block %d: %w", minimum, err)
	}
	select {
	case s.order <- struct{}{}:
		defer func() { <-s.order }()
	case <-ctx.Done():
		return ctx.Err()
	}
	snap, err := s.f.snapshot(ctx, minimum)
	if err != nil {
		return err
	}
	return f(snap)
}

// list sends one page of the keys under a prefix.
func (s *service) list(ctx context.Context, id uint64, q listBody) error {
	return s.underOrder(ctx, q.Min, func(snap *snapshot) error {
		out := valuesBody{Evidence: snap.evidence}
		size := 0
		page := func(key string, _ []byte) bool {
			if size >= pageBytes {
				out.More = true
				return false
			}
			p := snap.prove([]byte(key))
			v := newValue(p)
			out.Values = append(out.Values, v)
			size += v.size()
			return true
		}
		if q.After == nil {
			snap.state.Each(string(q.Prefix), page)
		} else {
			snap.state.EachAfter(string(q.Prefix), string(q.After), page)
		}
		return s.queue(ctx, encodeFrame(id, kValues, out))
	})
}

// question reads a question and gives what answers it. What must happen in the order
// of the questions, the submission of transactions, it does at once.
func (s *service) question(ctx context.Context, q frame) (answer func() error, err error) {
	switch q.Kind {
	case kGet:
		b, err := body[getBody](q)
		if err == nil && len(b.Key) > maxKey {
			err = errors.New("get: a key longer than any")
		}
		return func() error { return s.values(ctx, q.ID, b.Min, string(b.Key)) }, err
	case kList:
		b, err := body[listBody](q)
		return func() error { return s.list(ctx, q.ID, b) }, err
	case kMine:
		b, err := body[mineBody](q)
		return func() error {
			return s.underOrder(ctx, b.Min, func(snap *snapshot) error {
				if s.mine.snap != snap || s.mine.since != b.Since { // one look at all open jobs a block, however often it is asked
					s.mine.snap, s.mine.since, s.mine.jobs = snap, b.Since, s.f.mine(snap, s.self, b.Since)
				}
				return s.queue(ctx, encodeFrame(q.ID, kJobs, jobsBody{Jobs: s.mine.jobs}))
			})
		}, err
	case kHeader:
		b, err := body[headerBody](q)
		return func() error {
			if b.Height == 0 { // a sign of life is all that is wanted
				return s.queue(ctx, encodeFrame(q.ID, kEvidence, evidenceBody{}))
			}
			wait, cancel := context.WithTimeout(ctx, s.f.catchUp)
			defer cancel()
			ev, err := s.f.Header(wait, b.Height)
			if err != nil {
				return err
			}
			return s.queue(ctx, encodeFrame(q.ID, kEvidence, evidenceBody{Evidence: ev}))
		}, err
	case kSend:
		b, err := body[sendBody](q)
		if err != nil {
			return nil, err
		}
		sub, err := s.f.submit(ctx, s.from, b.Tx)
		hash := txHash(b.Tx) // the transaction itself is not kept here
		return func() error {
			if err != nil {
				return err
			}
			return s.outcome(ctx, q.ID, sub, hash)
		}, nil
	}
	return nil, fmt.Errorf("a question of kind %d", q.Kind)
}

// outcome waits for a transaction's block and proves what became of it.
func (s *service) outcome(ctx context.Context, id uint64, sub *submission, tx crowd.Hash) error {
	wait, cancel := context.WithTimeout(ctx, s.f.catchUp)
	defer cancel()
	in, err := sub.wait(wait)
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w from here: no block has it yet", ErrDropped) // it is safe to send it again
	}
	if err != nil {
		return err
	}
	if in.Refusal != nil {
		if _, _, used, err := s.f.app.db.find(tx); err != nil {
			return err
		} else if !used { // no block has it, or one that it did nothing in
			r := refusalBody{Code: in.Refusal.Code, Reason: in.Refusal.Reason}
			r.Reason = strings.ToValidUTF8(r.Reason[:min(len(r.Reason), maxText)], "")
			return s.queue(ctx, encodeFrame(id, kRefusal, r))
		}
	}
	prove, cancel := context.WithTimeout(ctx, s.f.catchUp)
	defer cancel()
	p, err := s.f.proveOutcome(prove, tx)
	if err != nil {
		return err
	}
	return s.queue(ctx, encodeFrame(id, kOutcome, p))
}
