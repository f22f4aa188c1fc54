package node

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/chain"
	"github.com/crowdcompute/crowd/internal/discovery"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// This file answers people's questions about the network round this node, and does what they want with its account.

func (b backend) Peers(context.Context) ([]rpc.Peer, error) {
	known := map[crowd.NodeID]discovery.PeerInfo{}
	table := b.disc.Peers()
	for _, p := range table {
		known[p.ID] = p
	}
	out := []rpc.Peer{}
	for _, p := range b.host.Peers() {
		k, in := known[p.ID]
		v := rpc.Peer{Node: p.ID, Addresses: p.Addrs, Tags: k.Tags, Path: p.Path, RTTMillis: millis(p.RTT), Since: p.Since, Overlay: in}
		if v.RTTMillis == 0 {
			v.RTTMillis = millis(k.RTT)
		}
		out = append(out, v)
		delete(known, p.ID)
	}
	for _, p := range table {
		if _, only := known[p.ID]; only {
			out = append(out, rpc.Peer{
				Node: p.ID, Addresses: discovery.Addrs(&overlay.Record{Endpoints: []overlay.Endpoint{p.Endpoint}}), Tags: p.Tags,
				RTTMillis: millis(p.RTT), Since: time.Now().Add(-p.Age).UTC().Truncate(time.Second), Overlay: true,
			})
		}
	}
	return out, nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (b backend) Status(ctx context.Context) (rpc.Status, error) {
	info, err := b.Info(ctx)
	if err != nil {
		return rpc.Status{}, err
	}
	reach, _ := b.host.Reachability()
	d := b.disc.Stats()
	s := rpc.Status{
		Info: info, Network: b.cfg.Genesis.Name, Reachability: string(reach), Seen: []string{}, Tags: []string{}, Seeds: append([]string{}, b.cfg.Seeds...),
		Overlay: rpc.Overlay{
			Key: b.id.Key().String(), Joined: b.joined(), Peers: d.Peers, Known: d.Known, Sent: d.Sent, Received: d.Received,
			Refused:    d.Malformed + d.NotForUs + d.Replayed + d.Unasked + d.BadSignature + d.WrongSender + d.Stale + d.BadPuzzle,
			OverBudget: d.OverBudget, Lookups: d.Lookups, ClockMillis: b.disc.ClockOffset().Milliseconds(),
		},
	}
	s.Traffic.Fetched, s.Traffic.Served = b.host.Traffic()
	if t := b.chain.Head().Time; t != 0 {
		s.ChainTime = wallTime(t)
	}
	s.Load = b.load()
	for _, a := range b.host.ExternalUDP() {
		s.Seen = append(s.Seen, a.String())
	}
	if r := b.disc.Record(); r != nil {
		s.Tags = append(s.Tags, r.Tags...)
		if r.Relay != (crowd.Key{}) {
			s.Relay = r.Relay.String()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Provide = b.enrol
	return s, nil
}

// load is what the node has on its hands.
func (n *Node) load() rpc.Load {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	l := rpc.Load{Jobs: len(n.book.openJobs()), Goroutines: runtime.NumGoroutine(), Memory: m.Sys - m.HeapReleased}
	if light, ok := n.chain.(*chain.Light); ok {
		l.Lost = light.Lost()
	}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		l.Files = len(files)
	}
	return l
}

func (n *Node) joined() bool {
	select {
	case <-n.disc.Ready():
		return true
	default:
		return false
	}
}

// Network names as seeds this node, if it can be reached, and those that it began with.
func (b backend) Network(context.Context) (rpc.Network, error) { return b.network(), nil }

func (n *Node) network() rpc.Network {
	seeds := []string{}
	self := discovery.SelfOf(n.host, n.private, nil)(nil)
	for _, a := range discovery.Addrs(&overlay.Record{Endpoints: self.Endpoints}) {
		if a, err := p2p.WithNode(a, n.id); err == nil {
			seeds = append(seeds, a)
		}
	}
	for _, s := range n.cfg.Seeds {
		if !slices.Contains(seeds, s) {
			seeds = append(seeds, s)
		}
	}
	return NetworkFile(n.cfg.Genesis, seeds)
}

// findTime is how long somebody who asks for a node or a tag waits at most.
const findTime = 20 * time.Second

func (b backend) Find(ctx context.Context, name string) (rpc.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	hex := strings.ToLower(strings.TrimPrefix(name, "0x"))
	var r *overlay.Record
	var err error
	if id, bad := crowd.ParseNodeID(hex); bad == nil {
		r, err = b.disc.Find(ctx, id)
	} else if key, bad := parseKey(hex); bad == nil {
		r, err = b.disc.FindKey(ctx, key)
	} else {
		r, err = b.findShort(ctx, hex)
	}
	switch {
	case errors.Is(err, discovery.ErrNotFound):
		return rpc.Found{}, rpc.Errorf(rpc.NotFound, "the overlay knows no node %.16s…", hex).WithHint("is it running, and on this network? nodes appear within seconds of their start")
	case errors.Is(err, discovery.ErrBusy), errors.Is(err, discovery.ErrStopped), err != nil && ctx.Err() != nil:
		return rpc.Found{}, rpc.Errorf(rpc.Unavailable, "%w", err)
	case err != nil:
		return rpc.Found{}, err
	}
	return b.foundView(ctx, r), nil
}

func parseKey(s string) (crowd.Key, error) {
	id, err := crowd.ParseJobID(s) // the same form: 32 bytes in hex
	return crowd.Key(id), err
}

// findShort finds the one known node whose ID begins with digits.
func (b backend) findShort(ctx context.Context, digits string) (*overlay.Record, error) {
	const least = 4
	if len(digits) < least || strings.Trim(digits, "0123456789abcdef") != "" {
		return nil, rpc.Errorf(rpc.BadRequest, "node %.40q: want the 128 hex digits of an ID, the 64 of a key, or the first %d or more of a peer's ID", digits, least)
	}
	var ids []crowd.NodeID
	add := func(id crowd.NodeID) {
		if strings.HasPrefix(id.String(), digits) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, p := range b.disc.Peers() {
		add(p.ID)
	}
	for _, p := range b.host.Peers() {
		add(p.ID)
	}
	if s, _, err := b.providers(ctx); err == nil {
		s.EachProvider(func(p ledger.Provider) bool { add(p.ID); return true })
	}
	switch len(ids) {
	case 0:
		return nil, rpc.Errorf(rpc.NotFound, "no node that is known here begins with %s", digits).WithHint("give the whole ID or key; crowd peers --json lists those that are known")
	case 1:
		return b.disc.Find(ctx, ids[0])
	}
	return nil, rpc.Errorf(rpc.BadRequest, "%d known nodes begin with %s", len(ids), digits).WithHint("give more digits")
}

func (b backend) FindTag(ctx context.Context, tag string, want int) ([]rpc.Found, error) {
	if err := overlay.CheckTag(tag); err != nil {
		return nil, rpc.Errorf(rpc.BadRequest, "%w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	var records []*overlay.Record
	take := func(r *overlay.Record) {
		if len(records) < want && !slices.ContainsFunc(records, func(have *overlay.Record) bool { return have.ID == r.ID }) {
			records = append(records, r)
		}
	}
	// Neighbours first: an ad takes its time to be kept anywhere, a record in the table is there at once.
	for _, id := range b.tagged(tag) {
		if r, err := b.disc.Find(ctx, id); err == nil && slices.Contains(r.Tags, tag) {
			take(r)
		}
	}
	if own := b.disc.Record(); own != nil && slices.Contains(own.Tags, tag) {
		take(own)
	}
	if len(records) < want {
		err := b.disc.EachTag(ctx, tag, want, take)
		if err != nil && len(records) == 0 {
			return nil, rpc.Errorf(rpc.Unavailable, "%w", err)
		}
	}
	out := make([]rpc.Found, 0, len(records))
	for _, r := range records {
		out = append(out, b.foundView(ctx, r))
	}
	return out, nil
}

// foundView is a record with what the chain says of its node; without, where the chain does not answer.
func (b backend) foundView(ctx context.Context, r *overlay.Record) rpc.Found {
	f := rpc.Found{
		Node: r.ID, Key: r.ID.Key().String(), Address: r.ID.Address(), Addresses: []string{}, Tags: append([]string{}, r.Tags...),
		Signed: time.UnixMilli(int64(r.Seq)).UTC(),
	}
	if r.Relay != (crowd.Key{}) {
		f.Relay = r.Relay.String()
	}
	f.Addresses = append(f.Addresses, b.ways(ctx, r)...)
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var p ledger.Provider
	var rep ledger.Reputation
	raw, err := b.chain.Get(ctx, ledger.ProviderKey(r.ID.Address()))
	if err != nil || raw == nil || crowd.Decode(raw, &p) != nil {
		return f
	}
	if raw, err = b.chain.Get(ctx, ledger.ReputationKey(r.ID.Address())); err != nil || raw != nil && crowd.Decode(raw, &rep) != nil {
		return f
	}
	v := provider(&p, &rep, b.params.MaxMissed)
	f.Offer = &v
	return f
}

func (b backend) Send(ctx context.Context, to crowd.Address, amount crowd.Credits) (crowd.Height, error) {
	if to == b.id.Address() {
		return 0, rpc.Errorf(rpc.BadRequest, "%s is this node's own account", to)
	}
	h, err := b.do(ctx, &ledger.Transfer{To: to, Amount: amount})
	return h, tooMuch(err)
}

func tooMuch(err error) error {
	if e := (*rpc.Error)(nil); errors.As(err, &e) && e.Kind == rpc.InsufficientFunds {
		e.Hint = "fund the account, or send less"
	}
	return err
}

// do sends a message of this node's and waits for its block.
func (b backend) do(ctx context.Context, m ledger.Message) (crowd.Height, error) {
	in, err := b.wallet.Send(ctx, m)
	if err == nil && in.Refusal != nil {
		err = in.Refusal // for a person, hearsay will do
	}
	return in.Height, refusal(err)
}

func (b backend) Leave(ctx context.Context) (string, error) {
	p, err := jobChain(b).Provider(ctx)
	if err != nil {
		return "", rpc.Errorf(rpc.Unavailable, "read this provider off the chain: %w", err)
	}
	if p == nil {
		return "", rpc.Errorf(rpc.NotFound, "this node is no provider")
	}
	b.mu.Lock()
	b.left = true // and is not registered again
	b.mu.Unlock()
	if _, err := b.do(ctx, &ledger.Leave{}); err != nil {
		return "", err
	}
	if p.Leaving == 0 {
		free := time.Now().Add(time.Duration(b.params.Unbonding) * time.Millisecond).UTC().Truncate(time.Second)
		return "no longer drawn; the stake of " + p.Stake.String() + " credits is free from about " + free.Format(time.RFC3339) + ": call leave again then", nil
	}
	return "left; the stake of " + p.Stake.String() + " credits is back in the account", nil
}
