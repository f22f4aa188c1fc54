package chain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// LightConfig of a light node.
type LightConfig struct {
	Genesis *ledger.Genesis
	// Dial opens a stream to a full node's Serve. It is called again whenever the last stream
	// failed, ended or lied: give another full node then. A full node can prove no lie, but
	// it can keep silent about what is new; only asking others helps against that.
	Dial     func(ctx context.Context) (io.ReadWriteCloser, error)
	Prefixes []string     // Watch tells of keys that begin with one of these, at most 16
	Self     crowd.NodeID // of jobs only those that concern this node: see follower.concern; zero: every change of all
	Log      *slog.Logger
}

// Light follows the chain through full nodes that it need not trust: it believes only
// values proven against headers that more than 2/3 of the genesis' authorities signed.
type Light struct {
	// set once
	cfg      LightConfig
	log      *slog.Logger
	verify   *verifier
	bad      error // of cfg
	blocks   *feed
	ready    chan struct{} // closed with the first head
	patience time.Duration // with a question, before another full node is asked
	over     chan struct{} // closed when Run ends

	mu      sync.Mutex
	head    Header        // guarded by mu: newest verified
	seen    Evidence      // guarded by mu: of head
	session *session      // guarded by mu: nil while there is none
	next    chan struct{} // guarded by mu: closed when session changes
	line    []*inLine     // guarded by mu: transactions on their way, in the order in which they came; as many as there are calls of Send
	moved   chan struct{} // guarded by mu; closed, and replaced, when one of line was offered or has left
	doubted time.Time     // guarded by mu: when a full node was last left for a refusal that cannot be checked
	losses  []time.Time   // guarded by mu: when streams ended, the newest maxLosses
}

// What is remembered of streams that ended.
const (
	maxLosses  = 100
	lossWindow = 5 * time.Minute
)

// Lost is how many streams ended in the last five minutes, at most maxLosses.
func (l *Light) Lost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, _ := slices.BinarySearchFunc(l.losses, time.Now().Add(-lossWindow), time.Time.Compare)
	return len(l.losses) - at
}

func (l *Light) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.losses = append(l.losses[max(0, len(l.losses)+1-maxLosses):], time.Now())
}

// inLine is a transaction on its way. On each stream it is offered after all that stand before it.
type inLine struct {
	tx ledger.Tx
	on *session // guarded by Light.mu: where it was offered last
}

// Pauses between dials.
const (
	minPause = 50 * time.Millisecond
	maxPause = 5 * time.Second
	askTime  = 20 * time.Second // twice what a full node may take
	dialTime = 10 * time.Second // for a dial

	maxErrors = 3               // answers in a row that are errors, before another full node is asked
	firstTime = 3 * time.Second // then for the first verified head; twice as long after each time that it did not suffice
	heartbeat = time.Second     // between questions whether the full node lives

	beatTime    = 2 * time.Second // for their answer, at least
	maxBeatTime = 20 * time.Second
	beatFactor  = 8                      // times the slowest answer of late
	lateness    = 500 * time.Millisecond // by which a timer of this process may be late
)

// NewLight starts nothing; Run does. A bad config is Run's error.
func NewLight(c LightConfig) *Light {
	l := &Light{cfg: c, log: quiet(c.Log), blocks: newFeed(), ready: make(chan struct{}), over: make(chan struct{}), patience: askTime, next: make(chan struct{}), moved: make(chan struct{})}
	if l.verify, l.bad = newVerifier(c.Genesis); l.bad == nil && len(c.Prefixes) > maxPrefixes {
		l.bad = fmt.Errorf("follow the chain: %d prefixes, at most %d", len(c.Prefixes), maxPrefixes)
	}
	return l
}

// Run keeps a stream to some full node until ctx ends. It fails only for a bad config.
func (l *Light) Run(ctx context.Context) error {
	defer l.blocks.close()
	defer close(l.over)
	if l.bad != nil {
		return l.bad
	}
	pause, first := minPause, firstTime
	for ctx.Err() == nil {
		at := time.Now()
		err := l.follow(ctx, first)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errNoHead) {
			first = min(2*first, maxBeatTime)
		} else {
			first = firstTime
		}
		if time.Since(at) > maxPause || errors.Is(err, errConfirm) { // which is no fault of the full node's, and there may be no other
			pause = minPause
		}
		level := slog.LevelWarn
		if errors.Is(err, errNoStream) {
			level = slog.LevelInfo // nothing was lost, and whoever dials knows better what it means
		}
		l.log.Log(ctx, level, "the stream to a full node ended", "err", err, "again_in", pause)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		pause = min(2*pause, maxPause)
	}
	return nil
}

// session is one stream to one full node.
type session struct {
	out  chan []byte   // capacity 16: frames to write; who asks waits when it is full
	gone chan struct{} // closed at the end
	lies chan error    // capacity 1: the first one ends the session

	mu    sync.Mutex
	calls map[uint64]chan frame // guarded by mu; each has capacity 1, for its one answer
	last  uint64                // guarded by mu: newest ID
	heard time.Time             // guarded by mu: when the newest frame came
	errs  int                   // guarded by mu: answers to ask that were errors, since the last that was none
	min   crowd.Height          // reader only: header of the last values
	bases bases                 // reader only: for patches to come

	refused map[uint64]time.Time // guarded by mu: nonces that the state shows to be the next, when each was first refused
}

// pulse is how long a full node may take for a sign of life: the longer, the slower it has been, as on a machine that is busy.
type pulse struct{ slow time.Duration }

func (p *pulse) patience() time.Duration { return min(max(beatTime, beatFactor*p.slow), maxBeatTime) }

// took takes in how long one sign of life took. A slow one counts for a while.
func (p *pulse) took(d time.Duration) { p.slow = max(d, p.slow-p.slow/8) }

// beat asks for a sign of life: an answer, or anything else that comes. A process that was killed closes
// nothing, and a transport may take half a minute to notice.
func (l *Light) beat(ctx context.Context, s *session, p *pulse) error {
	patience := p.patience()
	at := time.Now()
	once, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f, err := s.call(once, kHeader, headerBody{}, func() {})
	took := time.Since(at)
	p.took(took)
	switch {
	case err == nil && f.Kind != kEvidence:
		return errors.New("another answer")
	case err == nil || ctx.Err() != nil:
		return err
	case s.heardSince(at) || once.Err() != nil && took > patience+lateness: // this process itself stood still: its clock says nothing of the other
		return nil
	}
	return fmt.Errorf("%w for %v", err, patience)
}

func (s *session) heardSince(t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard.After(t)
}

// judge ends a session that has only errors for answers. A full node can be unable to answer a question, but not all.
func (l *Light) judge(s *session, f frame) {
	s.mu.Lock()
	if s.errs++; f.Kind != kError {
		s.errs = 0
	}
	bad := s.errs >= maxErrors
	s.mu.Unlock()
	if !bad {
		return
	}
	s.lied(fmt.Errorf("%d errors in a row", maxErrors))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session == s { // nobody asks it again while it ends
		l.session = nil
	}
}

// follow works on one stream until it ends, and says why.
func (l *Light) follow(ctx context.Context, patience time.Duration) error {
	dial, cancel := context.WithTimeout(ctx, dialTime)
	stream, err := l.cfg.Dial(dial)
	cancel()
	if err != nil {
		return fmt.Errorf("%w: %w", errNoStream, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	unhook := context.AfterFunc(ctx, func() { stream.Close() })
	defer unhook()
	defer stream.Close()
	s := &session{out: make(chan []byte, 16), gone: make(chan struct{}), lies: make(chan error, 1), calls: map[uint64]chan frame{}}
	l.mu.Lock()
	h := hello{Chain: l.verify.chain, Min: l.head.Height, Self: l.cfg.Self}
	l.mu.Unlock()
	for _, p := range l.cfg.Prefixes {
		h.Prefixes = append(h.Prefixes, []byte(p))
	}
	s.min = h.Min
	s.out <- encodeFrame(0, kHello, h)
	first := make(chan struct{})
	g.Go(func() error {
		for {
			select {
			case b := <-s.out:
				if _, err := stream.Write(b); err != nil {
					return err
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
	g.Go(func() error { return l.read(s, stream, first) })
	g.Go(func() error {
		t := time.NewTimer(patience)
		defer t.Stop()
		select {
		case <-first:
			l.use(s)
		case <-t.C:
			return errNoHead
		case <-ctx.Done():
			return nil
		}
		beat := time.NewTicker(heartbeat)
		defer beat.Stop()
		var p pulse
		for {
			select {
			case err := <-s.lies:
				return fmt.Errorf("a wrong answer: %w", err)
			case <-beat.C:
				if err := l.beat(ctx, s, &p); err != nil && ctx.Err() == nil {
					return fmt.Errorf("no sign of life: %w", err)
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
	err = g.Wait()
	if !errors.Is(err, errConfirm) {
		l.lost()
	}
	l.use(nil)
	close(s.gone)
	return err
}

func (l *Light) use(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = s
	close(l.next)
	l.next = make(chan struct{})
}

// read verifies what comes, in the order in which it comes, and hands answers out.
func (l *Light) read(s *session, stream io.Reader, first chan struct{}) error {
	r := bufio.NewReader(stream)
	begun := false
	for {
		f, err := readFrame(r, maxAnswer)
		if err != nil {
			return err
		}
		switch {
		case f.Kind == kError && f.ID == 0:
			b, err := body[errorBody](f)
			return errors.Join(b.error(), err)
		case f.Kind == kValues:
			b, err := body[valuesBody](f)
			if err != nil {
				return err
			}
			h, err := l.values(s, f.ID == 0, b)
			if err != nil {
				return err
			}
			if f.ID == 0 {
				l.publish(h, b, !begun)
			}
			if !begun {
				begun = true
				close(first)
			}
		case !begun:
			return fmt.Errorf("a frame of kind %d before the head", f.Kind)
		}
		s.answer(f)
	}
}

// answer hands a frame that has come to the call that waits for it, if there is one.
func (s *session) answer(f frame) {
	s.mu.Lock()
	s.heard = time.Now()
	c := s.calls[f.ID] // none has ID 0
	delete(s.calls, f.ID)
	s.mu.Unlock()
	if c != nil {
		c <- f
	}
}

// values checks values against their header, and that no header is older than the one before. Those of a push it makes whole.
func (l *Light) values(s *session, push bool, b valuesBody) (Header, error) {
	h, err := l.header(b.Evidence)
	if err != nil {
		return Header{}, err
	}
	if h.Height < s.min {
		return Header{}, fmt.Errorf("header %d after header %d", h.Height, s.min)
	}
	s.min = h.Height
	for i := range b.Values {
		v := &b.Values[i]
		switch {
		case push:
			if v.Val, err = s.bases.unpack(string(v.Key), v.As, v.Val); err != nil {
				return Header{}, err
			}
		case v.As != whole:
			return Header{}, errors.New("an answer that is not whole")
		}
		p, err := v.proof()
		if err == nil {
			err = ledger.VerifyProof(h.AppHash, v.Key, v.Val, p)
		}
		if err != nil {
			return Header{}, err
		}
	}
	return h, nil
}

// header verifies ev, unless it is the newest one known, and remembers the newest.
func (l *Light) header(ev Evidence) (Header, error) {
	l.mu.Lock()
	if string(ev) == string(l.seen) {
		defer l.mu.Unlock()
		return l.head, nil
	}
	l.mu.Unlock()
	h, err := l.verify.header(ev)
	if err != nil {
		return Header{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case h.Height == l.head.Height && h.AppHash != l.head.AppHash:
		return Header{}, fmt.Errorf("two headers of height %d are signed: the authorities have forked the chain", h.Height)
	case h.Height > l.head.Height:
		if l.head.Height == 0 {
			close(l.ready)
		}
		l.head, l.seen = h, ev
	}
	return h, nil
}

func (l *Light) publish(h Header, b valuesBody, begin bool) {
	out := Block{Height: h.Height - 1, Time: h.Time, Lost: b.Lost || begin}
	for _, v := range b.Values {
		for _, p := range l.cfg.Prefixes {
			if strings.HasPrefix(string(v.Key), p) {
				out.Changes = append(out.Changes, ledger.Change{Key: string(v.Key), Val: v.Val})
				break
			}
		}
	}
	l.blocks.publish(out)
}

// ask puts a question until some full node has answered it. question builds it, given the
// header that the answer must not be older than; check takes the answer apart, and its
// error ends the session as a lie.
func (l *Light) ask(ctx context.Context, k kind, question func(minimum crowd.Height) any, check func(frame) error) error {
	return l.askInLine(ctx, nil, k, question, func(_ *session, f frame) error { return check(f) })
}

// askInLine is ask of a question that waits for its turn on each stream; nil: it does not.
func (l *Light) askInLine(ctx context.Context, place *inLine, k kind, question func(minimum crowd.Height) any, check func(*session, frame) error) error {
	var why error
	for {
		l.mu.Lock()
		s, next, minimum := l.session, l.next, l.head.Height
		l.mu.Unlock()
		if s != nil {
			once, cancel := ctx, context.CancelFunc(func() {})
			if k != kHeader { // which may be of a block that has yet to come
				once, cancel = context.WithTimeout(ctx, l.patience)
			}
			var f frame
			err := l.turn(once, place, s)
			if err == nil {
				f, err = s.call(once, k, question(minimum), func() { l.offered(place, s) })
			}
			cancel()
			if err == nil {
				l.judge(s, f)
			}
			switch {
			case err != nil && once.Err() != nil && ctx.Err() == nil:
				why = s.lied(fmt.Errorf("no answer in %v", l.patience))
			case err == nil && f.Kind == kError:
				b, err := body[errorBody](f)
				if err == nil {
					return b.error()
				}
				why = s.lied(err)
			case err == nil:
				if err = check(s, f); err == nil {
					return nil
				}
				why = s.lied(err)
			case !errors.Is(err, errGone):
				return err
			}
		}
		select { // another session, or none, comes instead of s
		case <-next:
		case <-l.over:
			return ErrClosed
		case <-ctx.Done():
			return errors.Join(ctx.Err(), why)
		}
	}
}

// turn waits until all that stand before place have been offered on s.
func (l *Light) turn(ctx context.Context, place *inLine, s *session) error {
	if place == nil {
		return nil
	}
	for {
		l.mu.Lock()
		first, moved := true, l.moved
		for _, x := range l.line {
			if x == place {
				break
			}
			first = first && x.on == s
		}
		l.mu.Unlock()
		if first {
			return nil
		}
		select {
		case <-moved:
		case <-s.gone:
			return errGone
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// offered lets those behind place go on.
func (l *Light) offered(place *inLine, s *session) {
	if place == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	place.on = s
	l.stir()
}

// stir wakes who waits in turn. It needs mu.
func (l *Light) stir() {
	close(l.moved)
	l.moved = make(chan struct{})
}

// leaveLine takes place out of the line.
func (l *Light) leaveLine(place *inLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = slices.DeleteFunc(l.line, func(x *inLine) bool { return x == place })
	l.stir()
}

// lied ends the session.
func (s *session) lied(err error) error {
	select {
	case s.lies <- err:
	default:
	}
	return err
}

var (
	errGone     = errors.New("the stream has ended")
	errNoStream = errors.New("dial")
	errNoHead   = errors.New("no head in time")
	errConfirm  = errors.New("a refusal that only another full node can confirm")
)

// call asks and waits for the answer. It calls asked once the question stands before all later ones.
func (s *session) call(ctx context.Context, k kind, question any, asked func()) (frame, error) {
	c := make(chan frame, 1)
	s.mu.Lock()
	s.last++
	id := s.last
	s.calls[id] = c
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.calls, id)
		s.mu.Unlock()
	}()
	select {
	case s.out <- encodeFrame(id, k, question):
		asked()
	case <-s.gone:
		return frame{}, errGone
	case <-ctx.Done():
		return frame{}, ctx.Err()
	}
	select {
	case f := <-c:
		return f, nil
	case <-s.gone:
		return frame{}, errGone
	case <-ctx.Done():
		return frame{}, ctx.Err()
	}
}

// Ready is closed when a first head is verified.
func (l *Light) Ready() <-chan struct{} { return l.ready }

// ChainID names the chain.
func (l *Light) ChainID() string { return l.cfg.Genesis.ChainID() }

// Head is the newest state that a verified header commits to.
func (l *Light) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head.Height == 0 {
		return Head{}
	}
	return Head{Height: l.head.Height - 1, Time: l.head.Time, Root: l.head.AppHash}
}

// Watch gives proven changes of the keys under Prefixes from now on, several blocks
// merged where the watcher is slower. After each new stream comes a Block with Lost set. A
// full node cannot invent changes but can leave some out: ask for what matters with Get.
func (l *Light) Watch(ctx context.Context) <-chan Block { return l.blocks.watch(ctx) }

// answer takes values apart whose proofs read has checked: they must not be older than asked for.
func (l *Light) answer(f frame, least crowd.Height) (valuesBody, error) {
	b, err := body[valuesBody](f)
	if err != nil {
		return b, err
	}
	h, err := l.header(b.Evidence)
	if err == nil && h.Height < least {
		err = fmt.Errorf("an answer of header %d to a question for %d or later", h.Height, least)
	}
	return b, err
}

// Prove gives the value under key, or its absence, with all that proves it, at Head or later.
func (l *Light) Prove(ctx context.Context, key []byte) (Proved, error) {
	var p Proved
	if len(key) == 0 || len(key) > maxKey {
		return p, fmt.Errorf("get: a key of %d bytes, want 1 to %d", len(key), maxKey)
	}
	var least crowd.Height
	err := l.ask(ctx, kGet, func(m crowd.Height) any { least = m; return getBody{Key: key, Min: m} }, func(f frame) error {
		b, err := l.answer(f, least)
		if err != nil {
			return err
		}
		if f.Kind != kValues || len(b.Values) != 1 || string(b.Values[0].Key) != string(key) {
			return errors.New("another answer than asked for")
		}
		v := b.Values[0]
		p = Proved{Key: v.Key, Val: v.Val, Evidence: b.Evidence}
		p.Proof, err = v.proof()
		return err
	})
	if err != nil {
		return Proved{}, fmt.Errorf("get %.40q: %w", key, err)
	}
	return p, nil
}

// Get is the proven value under key, nil when there is none.
func (l *Light) Get(ctx context.Context, key []byte) ([]byte, error) {
	p, err := l.Prove(ctx, key)
	return p.Val, err
}

// List gives the keys that begin with prefix, each proven. That none is missing cannot be proven.
func (l *Light) List(ctx context.Context, prefix string) ([]ledger.Change, error) {
	var all []ledger.Change
	var after []byte
	var least crowd.Height
	for more := true; more; {
		err := l.ask(ctx, kList, func(m crowd.Height) any { least = m; return listBody{Prefix: []byte(prefix), After: after, Min: m} }, func(f frame) error {
			b, err := l.answer(f, least)
			if err != nil {
				return err
			}
			if f.Kind != kValues || b.More && len(b.Values) == 0 {
				return errors.New("another answer than asked for")
			}
			page, last := []ledger.Change(nil), after // nothing of a page with a lie in it counts
			for _, v := range b.Values {
				if !strings.HasPrefix(string(v.Key), prefix) || last != nil && string(v.Key) <= string(last) {
					return errors.New("keys out of order")
				}
				if v.Val == nil { // proven too, of as many keys as one likes
					return errors.New("a key that is not there")
				}
				page, last = append(page, ledger.Change{Key: string(v.Key), Val: v.Val}), v.Key
			}
			all, after, more = append(all, page...), last, b.More
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list %.40q: %w", prefix, err)
		}
	}
	return all, nil
}

// Header is the signed header of block h, verified.
func (l *Light) Header(ctx context.Context, h crowd.Height) (Evidence, error) {
	var ev Evidence
	err := l.ask(ctx, kHeader, func(crowd.Height) any { return headerBody{Height: h} }, func(f frame) error {
		b, err := body[evidenceBody](f)
		if err != nil {
			return err
		}
		got, err := l.header(b.Evidence)
		if err == nil && (f.Kind != kEvidence || got.Height != h) {
			err = errors.New("another answer than asked for")
		}
		ev = b.Evidence
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("header of block %d: %w", h, err)
	}
	return ev, nil
}

// Send offers a transaction and waits for the proof of what became of it; when the stream
// fails it is offered again on the next, which is safe. A refusal before any block is a
// full node's word alone, which Included.Hearsay says: one that the proven state does not bear out ends the stream, and
// the transaction is offered to other full nodes, up to maxOpinions of them.
func (l *Light) Send(ctx context.Context, raw []byte) (Included, error) {
	return l.send(ctx, raw, func() {})
}

// send implements liner.
func (l *Light) send(ctx context.Context, raw []byte, inline func()) (Included, error) {
	tx, err := ledger.Open(l.verify.chain, raw)
	if err != nil {
		inline()
		return Included{}, fmt.Errorf("send: %w", err)
	}
	place := &inLine{tx: tx}
	l.mu.Lock()
	l.line = append(l.line, place)
	l.mu.Unlock()
	defer l.leaveLine(place)
	inline()
	var in Included
	opinions := 0
	err = l.askInLine(ctx, place, kSend, func(crowd.Height) any { return sendBody{Tx: raw} }, func(s *session, f frame) error {
		switch f.Kind {
		case kRefusal:
			b, err := body[refusalBody](f)
			if err != nil {
				return err
			}
			if b.Code == ledger.OK {
				return errors.New("a refusal that is none")
			}
			in = Included{Refusal: &ledger.Refusal{Code: b.Code, Reason: b.Reason}, Hearsay: true}
			if opinions++; opinions >= maxOpinions {
				return nil
			}
			return l.question(ctx, s, place, in.Refusal)
		case kOutcome:
			b, err := body[provenOutcome](f)
			if err != nil {
				return err
			}
			h, o, err := b.verify(l.verify, txHash(raw))
			if err != nil {
				return err
			}
			if _, err := l.header(b.Evidence); err != nil {
				return err
			}
			in = Included{Height: h.Height - 1, Refusal: o.refusal()}
			return nil
		}
		return errors.New("another answer than asked for")
	})
	if err != nil {
		return Included{}, fmt.Errorf("send: %w", err)
	}
	return in, nil
}
