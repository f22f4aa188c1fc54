package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/chain"
	"github.com/crowdcompute/crowd/internal/executor/wasm"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/runner"
	"github.com/crowdcompute/crowd/internal/store"
	"github.com/crowdcompute/crowd/internal/verify"
)

// This file joins rooms that do not know each other: each type here gives one
// room what it asks for out of others.

// jobChain is the chain as the runner wants it.
type jobChain struct{ *Node }

func (c jobChain) Send(ctx context.Context, m ledger.Message) (crowd.Height, error) {
	in, err := c.wallet.Send(ctx, m)
	switch {
	case err != nil || in.Refusal == nil:
	case in.Hearsay:
		err = fmt.Errorf("one full node says: %v", in.Refusal) // and no *ledger.Refusal: it may lie
	default:
		err = in.Refusal
	}
	return in.Height, err
}

func (c jobChain) Job(ctx context.Context, id crowd.JobID) (runner.Record, error) {
	head := c.chain.Head() // before the read: what is read is at least as new
	rec := runner.Record{Height: head.Height, Time: head.Time}
	raw, err := c.chain.Get(ctx, ledger.JobKey(id))
	if err != nil || raw == nil {
		return rec, err
	}
	rec.Job = &ledger.Job{}
	if err := crowd.DecodeTrusted(raw, rec.Job); err != nil {
		return rec, err
	}
	c.recorded(*rec.Job)
	return rec, nil
}

// unsure is how many blocks before the newest end that the node knows of another one of its jobs may have ended unseen.
const unsure = 1000

// OpenJobs are those that may concern the node, and its own that ended while it was away or whose result is not here.
func (c jobChain) OpenJobs(ctx context.Context) ([]crowd.JobID, error) {
	seen, err := c.book.file.seen()
	if err != nil {
		return nil, err
	}
	all, err := c.chain.Jobs(ctx, seen-min(seen, unsure))
	if err != nil {
		return nil, err
	}
	wanted := map[crowd.JobID]bool{}
	for _, j := range c.book.openJobs() {
		wanted[j.ID] = true
	}
	for _, id := range all {
		p, ok := c.book.look(id)
		wanted[id] = !ok && !c.book.file.gone(id) || ok && !p.complete()
	}
	var ids []crowd.JobID
	for id, ok := range wanted {
		if ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// undelivered reports whether j has a result that is not here.
func (n *Node) undelivered(j *ledger.Job) bool {
	p, _ := n.book.look(j.ID)
	return j.Owner == n.id && j.State == ledger.Settled && !p.delivered
}

func (c jobChain) Provider(ctx context.Context) (*ledger.Provider, error) {
	raw, err := c.chain.Get(ctx, ledger.ProviderKey(c.id.Address()))
	if err != nil || raw == nil {
		return nil, err
	}
	p := &ledger.Provider{}
	return p, crowd.Decode(raw, p)
}

func (c jobChain) Watch(ctx context.Context) <-chan runner.Update {
	out := make(chan runner.Update) // unbuffered: the chain merges what waits
	blocks := c.chain.Watch(ctx)
	go func() {
		defer close(out)
		for b := range blocks {
			u := runner.Update{Height: b.Height, Time: b.Time, Lost: b.Lost}
			for _, x := range b.Changes {
				id, ok := ledger.JobOfKey([]byte(x.Key))
				if !ok {
					continue
				}
				if x.Val == nil {
					u.Gone = append(u.Gone, id)
					continue
				}
				var j ledger.Job
				if err := crowd.DecodeTrusted(x.Val, &j); err != nil {
					c.log.Error("job record", "job", id.Short(), "err", err)
					continue
				}
				c.recorded(j)
				u.Jobs = append(u.Jobs, j)
			}
			select {
			case out <- u:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// providers is a state of the providers, their reputations and the rules alone,
// each entry proven, and the height that it belongs to.
func (n *Node) providers(ctx context.Context) (ledger.State, crowd.Height, error) {
	h := n.chain.Head().Height
	var all []ledger.Change
	for _, prefix := range []string{ledger.PrefixProvider, ledger.PrefixReputation} {
		some, err := n.chain.List(ctx, prefix)
		if err != nil {
			return ledger.State{}, 0, err
		}
		all = append(all, some...)
	}
	all = append(all, ledger.Change{Key: string(ledger.ParamsKey()), Val: crowd.Encode(&n.params)})
	return ledger.Load(func(f func(string, []byte)) {
		for _, c := range all {
			f(c.Key, c.Val)
		}
	}), h, nil
}

// mostMemory is what an offer of this machine says of its memory.
func mostMemory() uint64 { return runner.MostMemory(wasm.RunMemory()) }

// takes says why this machine takes no job now, or not this one.
func (n *Node) takes(s *crowd.JobSpec) error {
	if err := n.spaced(n.store.Full()); err != nil {
		return err
	}
	return accept(s)
}

// accept says why this machine would only fail at a job: whoever posts it could have all small machines blamed.
func accept(s *crowd.JobSpec) error {
	if have, need := wasm.RunMemory(), runner.LeastMemory(s.Task.Limits.Memory); need > have {
		return fmt.Errorf("memory of %d bytes: this machine has %d for all runs together, and would need %d", s.Task.Limits.Memory, have, need)
	}
	return nil
}

// jobBlocks is the store and the peers as the runner wants them.
type jobBlocks struct{ *Node }

// Fetch asks all sources at once, so that a dead one delays nobody.
func (b jobBlocks) Fetch(ctx context.Context, c crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error {
	return b.spaced(b.host.Fetch(ctx, c, max, from, progress))
}

// unusable are the errors for which the content itself is to blame, on every machine alike.
func unusable(err error) bool {
	return errors.Is(err, store.ErrInvalid) || errors.Is(err, store.ErrTooBig)
}

// FetchAll implements runner.Blocks.
func (b jobBlocks) FetchAll(ctx context.Context, cs []crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error {
	return b.host.FetchAll(ctx, cs, max, from, progress)
}

// FetchFolder implements runner.Blocks.
func (b jobBlocks) FetchFolder(ctx context.Context, c crowd.CID, max uint64, from []crowd.NodeID, progress func(done, total uint64)) error {
	return b.host.FetchFolder(ctx, c, max, from, progress)
}

// List implements runner.Blocks.
func (b jobBlocks) List(ctx context.Context, c crowd.CID) ([]runner.Entry, error) {
	list, err := b.store.List(ctx, c)
	out := make([]runner.Entry, len(list))
	for i, e := range list {
		out[i] = runner.Entry(e)
	}
	return out, err
}

// Stat implements runner.Blocks.
func (b jobBlocks) Stat(ctx context.Context, c crowd.CID) (runner.Info, error) {
	in, err := b.store.Stat(ctx, c)
	return runner.Info(in), err
}

// Read implements runner.Blocks.
func (b jobBlocks) Read(ctx context.Context, c crowd.CID, max uint64) ([]byte, error) {
	r, size, err := b.store.Reader(ctx, c)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > max {
		return nil, fmt.Errorf("%s: %d bytes, at most %d: %w", c, size, max, store.ErrTooBig)
	}
	return io.ReadAll(r)
}

func (b jobBlocks) Export(ctx context.Context, c crowd.CID, path string, max uint64) error {
	return b.spaced(b.store.Export(ctx, c, path, max))
}

func (b jobBlocks) AddDir(ctx context.Context, dir string) (crowd.CID, error) {
	c, err := b.store.AddDir(ctx, dir)
	return c, b.spaced(err)
}

// AddFile implements runner.Blocks.
func (b jobBlocks) AddFile(ctx context.Context, path string) (crowd.CID, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	c, err := b.store.AddFile(ctx, f)
	return c, b.spaced(err)
}

func (b jobBlocks) Pin(c crowd.CID, by string) error   { return b.store.Pin(c, by) }
func (b jobBlocks) Unpin(c crowd.CID, by string) error { return b.store.Unpin(c, by) }

// post puts a job on chain; when it returns, the job is in a block.
func (n *Node) post(ctx context.Context, spec crowd.JobSpec) (crowd.JobID, error) {
	in, err := n.wallet.Send(ctx, &ledger.Post{Spec: spec})
	if err != nil {
		return crowd.JobID{}, err
	}
	if in.Refusal != nil {
		return crowd.JobID{}, in.Refusal
	}
	id := spec.ID(n.id, in.Nonce)
	n.book.expect(id)
	return id, nil
}

func (n *Node) cancel(ctx context.Context, id crowd.JobID) error {
	const look = 50 * time.Millisecond
	for early := false; ; {
		p, _ := n.book.look(id)
		if p.job.State > ledger.Claiming || p.job.State == ledger.Posted && !early { // while places are drawn the chain takes none
			in, err := n.wallet.Send(ctx, &ledger.Cancel{Job: id})
			if err == nil && in.Refusal != nil && in.Refusal.Code != ledger.TooEarly {
				err = in.Refusal // for a person, hearsay will do
			}
			if err != nil || in.Refusal == nil {
				return err
			}
			early = true
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return fmt.Errorf("cancel job %s: its places are still being drawn: %w", id.Short(), ctx.Err())
		}
	}
}

// recorded sees every proven record that comes by, and keeps those of this node's own jobs.
func (n *Node) recorded(j ledger.Job) {
	n.claimsClosed(&j)
	if j.Owner != n.id {
		return
	}
	if err := n.book.track(j); err != nil {
		n.log.Error("job book", "err", err)
	}
	if j.State.Ended() {
		if p, ok := n.book.look(j.ID); ok && p.receipt == nil {
			n.chore(func(ctx context.Context) { n.makeReceipt(ctx, j.ID) })
		}
	}
}

// makeReceipt asks for the record with its proof and keeps what follows from it,
// again until the chain answers.
func (n *Node) makeReceipt(ctx context.Context, id crowd.JobID) {
	for wait := time.Second; ctx.Err() == nil; wait = min(2*wait, time.Minute) {
		err := n.tryReceipt(ctx, id)
		if err == nil {
			return
		}
		n.log.Warn("receipt", "job", id.Short(), "err", err, "again in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

func (n *Node) tryReceipt(ctx context.Context, id crowd.JobID) error {
	p, err := n.chain.Prove(ctx, ledger.JobKey(id))
	if err == nil {
		var r *verify.Receipt
		if r, err = verify.New(n.cfg.Genesis, p.Evidence, p.Val, p.Proof); err == nil {
			err = n.book.setReceipt(id, r.Encode())
		}
	}
	return err
}

// reported hears what the machines tell.
func (n *Node) reported(id crowd.JobID, role job.Role, r job.Report) {
	n.log.Info(r.Stage, "job", id.Short(), "as", role.String(), "why", r.Why, "detail", r.Detail)
	if role == job.AsConsumer && r.Stage == job.StageDelivered {
		n.chore(func(ctx context.Context) {
			n.unpack(ctx, id, crowd.CID(r.Detail))
			n.divergence(ctx, id)
		})
	}
}

// chores is how many may wait; who brings one more waits too.
const chores = 64

// chore has f done beside everything else while Run runs.
func (n *Node) chore(f func(context.Context)) {
	select {
	case n.chores <- f:
	case <-n.choresEnd:
	}
}

// doChores does what was brought, and first what an earlier life left undone.
func (n *Node) doChores(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(n.choresEnd)
	for _, j := range n.book.openJobs() {
		if p, _ := n.book.look(j.ID); p.receipt == nil && j.State.Ended() {
			wg.Go(func() { n.makeReceipt(ctx, j.ID) })
		}
		if j.Verdict == nil {
			continue
		}
		c := job.Delivered(&j.Spec, &j.Verdict.Outcome)
		if here, err := n.store.Has(ctx, c); err == nil && here {
			wg.Go(func() { n.unpack(ctx, j.ID, c) })
		}
	}
	for {
		select {
		case f := <-n.chores:
			wg.Go(func() { f(ctx) })
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) resultDir(id crowd.JobID) string {
	return filepath.Join(n.book.dir, id.String(), "result")
}

// unpack lays a delivered result out as files and says that it is there. Where outputs go on to others it is the leaves alone.
func (n *Node) unpack(ctx context.Context, id crowd.JobID, c crowd.CID) {
	dir := n.resultDir(id)
	p, _ := n.book.look(id)
	err := os.MkdirAll(filepath.Dir(dir), 0o700)
	if err == nil {
		if _, err = os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			if err = nil; p.job.Spec.Shuffle.Parts > 0 {
				err = n.unpackLeaves(ctx, c, dir)
			} else {
				err = n.store.Export(ctx, c, dir, crowd.MaxOutput+1<<30)
			}
		}
	}
	if err != nil {
		n.log.Error("unpack result", "job", id.Short(), "err", err)
		return
	}
	n.book.setDelivered(id)
}

// VerifyHeader is chain's check of an authority's signatures in the form that package verify asks for.
func VerifyHeader(g *ledger.Genesis, evidence []byte) (verify.Header, error) {
	h, err := chain.VerifyHeader(g, evidence)
	return verify.Header{Chain: h.ChainID, Height: h.Height, Root: h.AppHash}, err
}
