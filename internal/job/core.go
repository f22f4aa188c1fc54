package job

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Config is what every machine of a node shares.
type Config struct {
	Key         *identity.Key
	Rand        io.Reader // of salts and one-time keys
	Params      ledger.Params
	Authorities []ledger.Authority
}

// New is the machine of one role. journal is what its last Persist wrote, or
// nil for a machine that never was; a damaged one is an error.
func New(c Config, id crowd.JobID, r Role, jrn []byte) (Machine, error) {
	j := journal{Job: id, Role: r}
	if jrn != nil {
		var err error
		if j, err = decodeJournal(jrn); err != nil {
			return nil, err
		}
		if j.Job != id || j.Role != r {
			return nil, fmt.Errorf("job journal: of the %s of job %s, not the %s of %s", j.Role, j.Job.Short(), r, id.Short())
		}
	}
	core := core{
		Config: c, self: c.Key.ID(), id: id, jrn: j, resumed: jrn != nil,
		sends: map[string]*sending{},
	}
	switch r {
	case AsConsumer:
		return &Consumer{core: core}, nil
	case AsExecutor:
		return &Executor{core: core}, nil
	case AsAuthority:
		return &Authority{core: core}, nil
	}
	return nil, fmt.Errorf("job machine: %s", r)
}

const (
	backoffFirst = 250 * time.Millisecond // a failed attempt is repeated after that, doubled each time
	backoffMost  = 30 * time.Second
	sendPatience = 2 * time.Minute // a Send that does not end is taken for failed; a driver ends every one by itself
	lookGrace    = time.Second     // a state that ought to have ended so long ago is looked up
	lookEvery    = time.Minute     // so is a job without news
	lookPosted   = 2 * time.Second // and one that waits for the beacon of the next blocks: claims, or reveals, are due soon after
)

// core is what the three roles share.
type core struct {
	// set once
	Config
	self crowd.NodeID
	id   crowd.JobID

	jrn     journal
	resumed bool // the journal's pins must be set again

	job    *ledger.Job // newest record; nil: none seen
	height crowd.Height
	asks   *ledger.Provider // the own provider record
	gone   bool
	ahead  time.Duration // of block time over the local clock, most seen, never negative
	news   time.Time     // of the last record

	sends map[string]*sending // never ranged over
	work  working
	audit audit

	wake time.Time
	out  []Effect
	done bool
}

// sending is one message that the chain does not show yet.
type sending struct {
	flying bool
	over   bool // applied, or refused for good
	fails  int
	next   time.Time // when to try again, or to give up waiting for the end
}

// working is the one Fetch or Run of a machine.
type working struct {
	flying   bool
	kind     workKind
	try      uint64
	fails    int // in a row
	err      error
	next     time.Time   // when to try again, or to give up waiting for the end
	cids     []crowd.CID // of the newest fetch
	fetched  bool
	unusable bool // what was fetched
	brief    bool // what is fetched is read at once, and not kept
}

// workKind is what can be in flight.
type workKind uint8

const (
	fetching workKind = iota
	running
	reading
	comparing
)

var workNames = [...]string{"a fetch", "a run", "the reading of leaves", "a comparison of outputs"}

func backoff(fails int) time.Duration {
	return min(backoffFirst<<min(fails-1, 16), backoffMost)
}

func (c *core) emit(e Effect) { c.out = append(c.out, e) }

// Deadline implements Machine.
func (c *core) Deadline() time.Time { return c.wake }

func (c *core) wakeAt(t time.Time) {
	if c.wake.IsZero() || t.Before(c.wake) {
		c.wake = t
	}
}

// chainTime is the block time that a block made now would carry.
func (c *core) chainTime(now time.Time) crowd.Time {
	return crowd.Time(now.Add(c.ahead).UnixMilli())
}

// due reports whether block time t has come, and wakes the machine then.
func (c *core) due(now time.Time, t crowd.Time) bool {
	if c.chainTime(now) >= t {
		return true
	}
	c.wakeAt(time.UnixMilli(int64(t)).Add(-c.ahead))
	return false
}

// step takes in the event and lets act decide what is due.
func (c *core) step(now time.Time, ev Event, act func(time.Time)) []Effect {
	c.out, c.wake = nil, time.Time{}
	if c.done {
		return nil
	}
	if c.resumed {
		c.resumed = false
		for _, cid := range c.jrn.Kept {
			c.emit(Keep{cid})
		}
	}
	switch ev := ev.(type) {
	case Chain:
		if ev.Job.ID == c.id && ev.Height >= c.height && !c.gone {
			c.job, c.height, c.asks, c.news = &ev.Job, ev.Height, ev.Self, now
			c.ahead = max(c.ahead, time.UnixMilli(int64(ev.Time)).Sub(now))
		}
	case Gone:
		c.gone = c.gone || ev.Height >= c.height
	case Sent:
		c.sent(now, ev)
	case Fetched:
		if c.landed(now, ev.Try, fetching, ev.Err) {
			c.work.fetched, c.work.unusable = true, ev.Err != nil
			if ev.Err == nil && c.job != nil && c.job.Spec.Items > 0 && !c.work.brief {
				c.keep(c.work.cids...) // a court may take longer than what no pin holds is kept
			}
		}
	case LeavesRead:
		c.leavesRead(now, ev)
	case Ran, Compared, Woke, UserCancel: // the roles'
	}
	switch {
	case c.gone:
		c.end()
	case c.job != nil:
		act(now)
	}
	c.look(now)
	return c.out
}

// look asks for news that are overdue.
func (c *core) look(now time.Time) {
	if c.done || c.job != nil && c.job.State.Ended() {
		return
	}
	every := lookEvery
	if c.job != nil && c.job.Due == 0 {
		every = lookPosted
	}
	at := c.news.Add(every)
	if c.job != nil && c.job.Due != 0 {
		if due := time.UnixMilli(int64(c.job.Due)).Add(lookGrace - c.ahead); due.After(c.news) && due.Before(at) {
			at = due
		}
	}
	if !now.Before(at) {
		c.emit(Look{})
		c.news, at = now, now.Add(every) // the answer is news; its loss costs that wait
	}
	c.wakeAt(at)
}

// send puts m on chain unless that is under way, done, or waits for its turn.
func (c *core) send(now time.Time, m ledger.Message) {
	key := sendKey(m)
	s := c.sends[key]
	if s == nil {
		s = &sending{}
		c.sends[key] = s
	}
	if s.over {
		return
	}
	if now.Before(s.next) {
		c.wakeAt(s.next)
		return
	}
	s.flying, s.next = true, now.Add(sendPatience)
	c.wakeAt(s.next)
	c.emit(Send{m})
}

// sendKey tells apart what may be under way at once.
func sendKey(m ledger.Message) string {
	switch m := m.(type) {
	case *ledger.Commit:
		return fmt.Sprintf("commit %d", len(m.Sealed)) // a verifier's twice
	case *ledger.Unseal:
		return fmt.Sprintf("unseal %x", m.Executor[:])
	case *ledger.Report:
		return fmt.Sprintf("report %x %d", m.Verifier[:], m.Proof.Index)
	case *ledger.Vote:
		if m.Question == ledger.WhatItem {
			return fmt.Sprintf("vote %d %d", m.Question, m.Item) // once for each item
		}
		return fmt.Sprintf("vote %d %x %d", m.Question, m.Executor[:], m.Item)
	}
	return fmt.Sprintf("%T", m)
}

func (c *core) sent(now time.Time, ev Sent) {
	s := c.sends[sendKey(ev.Message)]
	if s == nil || !s.flying {
		return
	}
	s.flying = false
	if ev.Err == nil {
		s.over = true
		return
	}
	var r *ledger.Refusal
	if errors.As(ev.Err, &r) {
		switch r.Code {
		case ledger.BadNonce, ledger.NoFunds, ledger.TooEarly: // may pass
		case ledger.TooLate, ledger.Duplicate:
			s.over = true
			switch ev.Message.(type) {
			case *ledger.Unseal, *ledger.Vote, *ledger.Report: // others were faster
				return
			}
			c.trouble(now, fmt.Sprintf("a %s came too late", name(ev.Message)), r)
			return
		default:
			s.over = true
			c.trouble(now, fmt.Sprintf("the chain refused a %s", name(ev.Message)), r)
			return
		}
	}
	s.fails++
	s.next = now.Add(backoff(s.fails))
	if s.fails == 3 {
		c.trouble(now, fmt.Sprintf("a %s does not get on chain", name(ev.Message)), ev.Err)
	}
}

// over reports whether a message like m has been applied, or refused for good.
func (c *core) over(m ledger.Message) bool {
	s := c.sends[sendKey(m)]
	return s != nil && s.over
}

func name(m ledger.Message) string {
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", m), "*ledger."))
}

func (c *core) trouble(now time.Time, why string, err error) {
	c.emit(Report{Stage: StageTrouble, Why: why, Detail: err.Error(), Time: c.chainTime(now)})
}

// busy reports whether a Fetch or Run is under way or waits for its turn.
func (c *core) busy(now time.Time) bool {
	if c.work.flying && !now.Before(c.work.next) { // its end got lost
		c.emit(Stop{})
		c.fault(now, fmt.Errorf("%w: no end after all the time it had", ErrLocal))
	}
	if now.Before(c.work.next) {
		c.wakeAt(c.work.next)
		return true
	}
	return false
}

// lacking reports whether what the last Fetch wanted is not to be had from anybody, as far as this machine can tell: it has ended, and not
// for want of something of its own. One that still brings something has not ended.
func (c *core) lacking() bool {
	return !c.work.flying && c.work.err != nil && c.work.kind == fetching && !errors.Is(c.work.err, ErrLocal)
}

func (c *core) begin(now time.Time, patience time.Duration, kind workKind) uint64 {
	c.work.flying, c.work.kind, c.work.next = true, kind, now.Add(patience)
	c.work.try++
	c.wakeAt(c.work.next)
	return c.work.try
}

// fetchPatience is generous: a driver ends every Fetch by itself.
const fetchPatience = 30 * time.Minute

func (c *core) fetch(now time.Time, f Fetch) {
	f.CIDs = slices.DeleteFunc(f.CIDs, func(cid crowd.CID) bool { return cid == "" })
	if c.work.fails == 0 {
		c.emit(Report{Stage: StageFetching, Why: fmt.Sprintf("from %d peers", len(f.From)), Time: c.chainTime(now)})
	}
	c.work.cids = f.CIDs
	f.Try = c.begin(now, fetchPatience, fetching)
	c.emit(f)
}

// fetchInputs gets what a run reads, of a batch what its items only read; nil: all.
func (c *core) fetchInputs(now time.Time, only []uint32) {
	f := Fetch{CIDs: c.inputs(), From: c.inputHolders(), Max: MaxInput}
	if s := &c.job.Spec; s.Shuffle.Gather {
		f.Gather = &Gather{Manifest: s.Task.Stdin, Items: s.Items, Only: only}
	}
	c.fetch(now, f)
}

func (c *core) run(now time.Time, only []uint32) {
	c.emit(Report{Stage: StageExecuting, Time: c.chainTime(now)})
	t := c.job.Spec.Task
	try := c.begin(now, 2*t.Limits.Wall+fetchPatience, running)
	c.emit(Run{Try: try, Task: t, Items: c.job.Spec.Items, Only: only, Shuffle: c.job.Spec.Shuffle, Outputs: only != nil && !c.job.Spec.Compare.Strict(), Unusable: c.work.unusable,
		Quiet: c.job.Spec.Plan.Method == crowd.PlanAudit}) // its owner could read the answer and cancel, for little: ledger.Params.CancelPay
}

// landed takes in the end of a Fetch or Run: true when it gave something.
func (c *core) landed(now time.Time, try uint64, kind workKind, err error) bool {
	w := &c.work
	if !w.flying || w.try != try || w.kind != kind {
		return false // late or double
	}
	if err != nil && !(errors.Is(err, ErrUnusable) && kind != running) {
		c.fault(now, err)
		if kind == running && errors.Is(err, ErrParts) {
			w.fetched = false // no pin holds them
		}
		return false
	}
	w.flying, w.fails, w.err, w.next = false, 0, nil, time.Time{}
	return true
}

// outcome takes in the end of a Run: nil when it gave nothing.
func (c *core) outcome(now time.Time, ev Ran) *crowd.Outcome {
	err := ev.Err
	spec := &c.job.Spec
	if o := ev.Outcome; err == nil && (o.Gas > spec.Limits().Gas || o.Result == "" || len(o.Result) > crowd.MaxCID ||
		(spec.Items > 0) != (o.Root != crowd.Hash{}) || (spec.Items > 0) != (o.Leaves != "")) {
		err = fmt.Errorf("the executor gave an impossible outcome: %s", o)
	}
	if !c.landed(now, ev.Try, running, err) {
		return nil
	}
	return &ev.Outcome
}

func (c *core) fault(now time.Time, err error) {
	w := &c.work
	w.flying, w.err = false, err
	w.fails++
	w.next = now.Add(backoff(w.fails))
	if w.fails == 1 {
		c.trouble(now, workNames[w.kind]+" went wrong and is tried again", err)
	}
}

// stop aborts what is under way; nothing that comes of it counts.
func (c *core) stop() {
	if c.work.flying {
		c.emit(Stop{})
		c.work.flying = false
	}
	c.work.next = time.Time{}
}

func (c *core) persist() { c.emit(Persist{crowd.Encode(&c.jrn)}) }

// keep pins after the journal knows of it, so that no crash leaves a pin that nobody takes back.
func (c *core) keep(cids ...crowd.CID) {
	if c.jrn.keep(cids...) {
		c.persist()
	}
	for _, cid := range cids {
		if cid != "" {
			c.emit(Keep{cid})
		}
	}
}

// release takes back every pin but that of spare.
func (c *core) release(spare crowd.CID) {
	for _, cid := range c.jrn.Kept {
		if cid != spare {
			c.emit(Release{cid})
		}
	}
	c.jrn.Kept = slices.DeleteFunc(c.jrn.Kept, func(cid crowd.CID) bool { return cid != spare })
}

// unkeep takes back one pin.
func (c *core) unkeep(cid crowd.CID) {
	if i := slices.Index(c.jrn.Kept, cid); i >= 0 {
		c.jrn.Kept = slices.Delete(c.jrn.Kept, i, i+1)
		c.emit(Release{cid})
		c.persist()
	}
}

// retire holds on to the result until t, then ends.
func (c *core) retire(now time.Time, result crowd.CID, t crowd.Time) {
	if !slices.Contains(c.jrn.Kept, result) || c.due(now, t) {
		c.end()
		return
	}
	c.stop()
	if len(c.jrn.Kept) > 1 {
		c.release(result)
		c.persist()
	}
}

// end releases all but what the user owns, and wants no more.
func (c *core) end() {
	c.stop()
	c.release(c.jrn.Have)
	c.emit(Done{})
	c.done, c.wake = true, time.Time{}
}

// keptUntil is how long a result is kept whose owner has it, or knows who has: a delivery may be under way.
func (c *core) keptUntil() crowd.Time {
	return c.job.History[len(c.job.History)-1].Time + crowd.Time(c.Params.DeliveryWindow)
}

// endsAt is when the ended job leaves the state.
func (c *core) endsAt() crowd.Time {
	return c.job.History[len(c.job.History)-1].Time + crowd.Time(c.Params.Retention)
}

// inputs are the CIDs that a run reads, and the comparator: who executes holds it, so that its owner cannot lose it.
func (c *core) inputs() []crowd.CID {
	t := &c.job.Spec.Task
	return []crowd.CID{t.Program, t.Inputs, t.Stdin, c.comparator()}
}

// holders of the inputs: who posted them, then who worked on them.
func (c *core) inputHolders() []crowd.NodeID {
	from := []crowd.NodeID{c.job.Owner}
	for i := range c.job.Places {
		from = append(from, c.job.Places[i].Node)
	}
	return c.others(from)
}

// resultHolders have computed the verdict's outcome, or may have in court.
func (c *core) resultHolders() []crowd.NodeID {
	var from []crowd.NodeID
	for i := range c.job.Places {
		p := &c.job.Places[i]
		if p.State == ledger.Revealed && (p.Verifier || c.job.Verdict == nil || p.Opening.Outcome == c.job.Verdict.Outcome) {
			from = append(from, p.Node) // a verifier has the leaves
		}
	}
	for i := range c.Authorities {
		from = append(from, c.Authorities[i].ID)
	}
	return c.others(from)
}

// others is from without the node itself and without repetitions.
func (c *core) others(from []crowd.NodeID) []crowd.NodeID {
	var out []crowd.NodeID
	seen := map[crowd.NodeID]bool{c.self: true}
	for _, n := range from {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

// maxResult bounds the fetch of a result: the output and what wraps it.
func (c *core) maxResult() uint64 {
	out := c.job.Spec.Limits().Output
	if c.job.Spec.Shuffle.Parts > 0 {
		out += out + uint64(c.job.Spec.Items) // once more, and last lines get their newline
	}
	return out + out/8 + 1<<20 + uint64(c.job.Spec.Shuffle.Parts)*100 + uint64(c.job.Spec.Items)*(batch.LeafSize+2*batch.FrameSize+batch.MaxError)
}
