package ledger

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/google/btree"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// Block is what consensus ordered.
type Block struct {
	Height   crowd.Height
	Time     crowd.Time         // of the header, never before the last one
	Proposer crowd.NodeID       // the authority
	Beacon   *identity.VRFProof // over the last beacon; nil: the beacon stands still
	Txs      []Tx
}

// Event tells what a block did, for drivers; the state alone decides.
type Event interface{ event() }

// JobMoved is emitted once for each state that a job enters.
type JobMoved struct {
	Job   crowd.JobID
	State JobState
	Why   string
}

// Slashed is emitted when a proven cheater loses stake.
type Slashed struct {
	Job    crowd.JobID
	Node   crowd.NodeID
	Amount crowd.Credits
}

func (JobMoved) event() {}
func (Slashed) event()  {}

// Change is one key that a block wrote; a nil Val deletes it.
type Change struct {
	Key string
	Val []byte
}

// Applied is what a block came to.
type Applied struct {
	State   State
	Results []error // one per transaction, nil or a *Refusal
	Events  []Event
	Changes []Change    // sorted by key
	Bugs    []BugReport // in order; none unless this package breaks a promise of its own
}

// BugReport is a panic while a transaction or a job's deadline was applied. What had been
// done for it was taken back, and the block went on. Drivers log it and count it.
type BugReport struct {
	Tx    int         // index among the block's transactions; -1: a draw or a deadline
	Job   crowd.JobID // of a draw or a deadline
	Panic string
	Stack string // of this machine: not part of the state
}

// Apply is the whole ledger: the same state and block give the same result on
// every machine. It fails only when the block itself is not one that an honest
// proposer makes; a bad transaction is refused and the block goes on. So it does
// if applying a transaction panics: the refusal has the code Bug.
func Apply(s State, b Block) (Applied, error) {
	w := begin(s, b)
	if err := w.open(); err != nil {
		return Applied{}, err
	}
	results := make([]error, len(b.Txs))
	for i, tx := range b.Txs {
		if r := w.tx(tx, i); r != nil {
			results[i] = r
		}
	}
	return Applied{State: w.seal(), Results: results, Events: w.events, Changes: w.changes(), Bugs: w.bugs}, nil
}

// Pending tries transactions on top of a state, as a mempool and a proposer do.
type Pending struct{ w *work }

// Try begins on top of s at the given next block; the block's transactions are ignored.
func Try(s State, b Block) (*Pending, error) {
	w := begin(s, b)
	return &Pending{w}, w.open()
}

// Add applies tx, or says why it would be refused. A refused one leaves no trace.
func (p *Pending) Add(tx Tx) error {
	saved := p.w.layer()
	if r := p.w.tx(tx, 0); r != nil {
		p.w.restore(saved)
		return r
	}
	return nil
}

// work is a block under construction.
type work struct {
	base   State
	block  Block
	params Params
	beacon Beacon
	dirty  map[string][]byte // nil: deleted
	undo   []Change          // what stood in dirty before, newest last
	fresh  []bool            // undo[i] was not in dirty
	events []Event
	bugs   []BugReport
	roster *roster // nil: not read yet
}

func begin(s State, b Block) *work {
	return &work{base: s, block: b, params: s.Params(), beacon: s.Beacon(), dirty: map[string][]byte{}}
}

func (w *work) get(key string) []byte {
	if v, ok := w.dirty[key]; ok {
		return v
	}
	return w.base.get(key)
}

func (w *work) set(key string, val []byte) {
	old, ok := w.dirty[key]
	w.undo, w.fresh = append(w.undo, Change{key, old}), append(w.fresh, !ok)
	w.dirty[key] = val
	w.roster.wrote(key)
}

func (w *work) put(key string, v any)  { w.set(key, crowd.Encode(v)) }
func (w *work) delete(key string)      { w.set(key, nil) }
func (w *work) emit(e Event)           { w.events = append(w.events, e) }
func (w *work) layer() (saved [2]int)  { return [2]int{len(w.undo), len(w.events)} }
func (w *work) height() crowd.Height   { return w.block.Height }
func (w *work) now() crowd.Time        { return w.block.Time }
func (w *work) in(ms int64) crowd.Time { return w.block.Time + crowd.Time(ms) }

// restore takes back everything since layer.
func (w *work) restore(saved [2]int) {
	for i := len(w.undo) - 1; i >= saved[0]; i-- {
		if w.fresh[i] {
			delete(w.dirty, w.undo[i].Key)
		} else {
			w.dirty[w.undo[i].Key] = w.undo[i].Val
		}
		w.roster.wrote(w.undo[i].Key)
	}
	w.undo, w.fresh, w.events = w.undo[:saved[0]], w.fresh[:saved[0]], w.events[:saved[1]]
}

// changes are the keys written, in order.
func (w *work) changes() []Change {
	cs := make([]Change, 0, len(w.dirty))
	for key, val := range w.dirty {
		cs = append(cs, Change{key, val})
	}
	slices.SortFunc(cs, func(a, b Change) int { return strings.Compare(a.Key, b.Key) })
	return cs
}

// seal is the state after the block.
func (w *work) seal() State {
	var kv *btree.BTreeG[entry]
	if w.base.kv == nil {
		kv = btree.NewG(32, less)
	} else {
		kv = w.base.kv.Clone()
	}
	tree := w.base.tree
	for _, c := range w.changes() {
		l := leaf(c.Key, c.Val)
		if c.Val == nil {
			kv.Delete(entry{key: c.Key})
			tree = tree.remove(0, &l.path)
		} else {
			kv.ReplaceOrInsert(entry{c.Key, c.Val})
			tree = tree.insert(0, l)
		}
	}
	tree.seal()
	return State{kv: kv, tree: tree}
}

// open moves the beacon, draws what waited for it, and lets deadlines fall.
func (w *work) open() error {
	if p := w.block.Beacon; p != nil {
		a, ok := w.authority(w.block.Proposer)
		if !ok {
			return refuse(BadProof, "proposer %s is no authority", w.block.Proposer.Short())
		}
		next, err := w.beacon.NextBeacon(a.VRF, *p)
		if err != nil {
			return refuse(BadProof, "beacon: %v", err)
		}
		w.beacon = next
		w.put(keyBeacon, &next)
		w.turn()
	} else if len(w.block.Txs) > 0 || w.base.DrawPending() {
		return refuse(BadProof, "block %d carries no beacon", w.height())
	}
	for _, id := range w.indexed(prefixDraw, uint64(w.height())) {
		w.due(id, w.draw)
	}
	for _, id := range w.indexed(prefixDue, uint64(w.now())) {
		w.due(id, w.expire)
	}
	return nil
}

// due lets f act on a job whose draw or deadline has come. If f panics, the job is abandoned.
func (w *work) due(id crowd.JobID, f func(crowd.JobID)) {
	bug := func(f func(crowd.JobID)) *BugReport {
		return w.recovered(func() { f(id) })
	}
	b := bug(f)
	if b == nil {
		return
	}
	b.Tx, b.Job = -1, id
	w.bugs = append(w.bugs, *b)
	if b := bug(w.abandon); b != nil { // the job stays as it is, without a deadline: its escrow is locked, and nothing else suffers
		b.Tx, b.Job = -1, id
		w.bugs = append(w.bugs, *b)
	}
}

// recovered does f. If f panics, it takes back all that f has done and says what happened.
func (w *work) recovered(f func()) (bug *BugReport) {
	saved := w.layer()
	defer func() {
		if p := recover(); p != nil {
			w.restore(saved)
			bug = &BugReport{Panic: fmt.Sprint(p), Stack: string(debug.Stack())}
		}
	}()
	f()
	return nil
}

// abandon ends a job that this package cannot go on with: its owner gets back what is left of the
// escrow, a stake taken in it is burned, and its places are free. It does as little as it can.
func (w *work) abandon(id crowd.JobID) {
	j := w.mustJob(id)
	j.Due = 0 // its index entry is gone already
	if j.State.Ended() {
		w.delete(string(JobKey(id)))
		return
	}
	w.disburse(&j, Payment{To: j.Owner.Address(), Amount: j.Escrow, Why: WhyReturned})
	w.disburse(&j, Payment{Amount: j.Slashed, Why: whyBug, Slashed: true})
	j.Escrow, j.Slashed = 0, 0
	for i := range j.Places {
		if p := &j.Places[i]; p.State != Dropped && p.State != Fraud {
			w.release(&j, p.Node)
		}
	}
	w.move(&j, Failed, w.in(w.params.Retention), whyBug)
}

// whyBug is why a job failed that met an error in the ledger's own rules.
const whyBug = "the ledger met an error of its own in this job"

// indexed are the jobs under prefix up to n, with their index entries removed.
func (w *work) indexed(prefix string, n uint64) (ids []crowd.JobID) {
	var keys []string
	w.base.Each(prefix, func(key string, _ []byte) bool {
		at, id := indexKey(prefix, key)
		if at > n {
			return false
		}
		keys, ids = append(keys, key), append(ids, id)
		return true
	})
	for _, k := range keys {
		w.delete(k)
	}
	return ids
}

func (w *work) authorities() []Authority {
	a, _ := load[[]Authority](w.get, keyAuthorities)
	return a
}

func (w *work) authority(id crowd.NodeID) (Authority, bool) {
	for _, a := range w.authorities() {
		if a.ID == id {
			return a, true
		}
	}
	return Authority{}, false
}

// tx applies one transaction. A refused one costs its fee and nonce, except
// where the sender could not pay or the nonce was wrong: that changes nothing.
func (w *work) tx(tx Tx, index int) *Refusal {
	addr := tx.sender.Address()
	acc := w.account(addr)
	if tx.nonce != acc.Nonce {
		return refuse(BadNonce, "got %d, the account's next is %d", tx.nonce, acc.Nonce)
	}
	fee := crowd.Credits(0)
	if !w.free(tx) {
		fee = w.params.Fee(tx)
		left, ok := acc.Balance.Sub(fee)
		if !ok {
			return refuse(NoFunds, "the fee is %s, %s has %s", fee, addr, acc.Balance)
		}
		acc.Balance = left
	}
	acc.Nonce++
	w.putAccount(addr, acc)
	prepaid := duty(tx.msg)
	if !prepaid {
		w.burn(fee)
	}
	saved := w.layer()
	var r *Refusal
	if bug := w.recovered(func() { r = w.message(tx) }); bug != nil {
		bug.Tx = index
		w.bugs = append(w.bugs, *bug)
		r = refuse(Bug, "%s", bug.Panic)
	} else if r != nil {
		w.restore(saved)
	}
	switch {
	case prepaid && r == nil:
		w.credit(addr, fee)
	case prepaid:
		w.burn(fee)
	}
	return r
}

// duty reports whether m is what a drawn node has to put on chain for a job. The job's owner has paid for that with its
// post (DutyFees), so that the least job is no loss to those who do it; the sender's fee only stands surety that the chain takes m.
func duty(m Message) bool {
	switch m.(type) {
	case *Claim, *Commit, *Reveal, *GiveUp:
		return true
	}
	return false
}

// free are the authorities' duties.
func (w *work) free(tx Tx) bool {
	switch tx.msg.(type) {
	case *Tick, *Vote, *Unseal:
		_, ok := w.authority(tx.sender)
		return ok
	}
	return false
}

func (w *work) message(tx Tx) *Refusal {
	from := tx.sender
	switch m := tx.msg.(type) {
	case *Transfer:
		return w.transfer(from.Address(), m)
	case *Register:
		return w.register(from, m)
	case *Leave:
		return w.leave(from)
	case *Awake:
		return w.awake(from)
	case *Post:
		return w.post(from, tx.nonce, m)
	case *Claim:
		return w.claim(from, m)
	case *Commit:
		return w.commit(from, m)
	case *Reveal:
		return w.reveal(from, m)
	case *GiveUp:
		return w.giveUp(from, m)
	case *Unseal:
		return w.unseal(from, m)
	case *Vote:
		return w.vote(from, m)
	case *Accept:
		return w.accept(from, m)
	case *Complain:
		return w.complain(from, m)
	case *Cancel:
		return w.cancel(from, m)
	case *Report:
		return w.report(from, m)
	case *Tick:
		return nil
	}
	panic("bug: a message that nothing handles")
}
