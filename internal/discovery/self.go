package discovery

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/overlay"
)

// own is what goes into the node's record. Run's goroutine only.
type own struct {
	self      Self
	tags      []string // sorted
	seq       uint64
	epoch     uint32
	nonce     uint64
	solving   bool
	relayed   bool          // there is an ad under the own key
	solutions chan solution // capacity 1: one puzzle is solved at a time
	signed    time.Time
}

type solution struct {
	epoch uint32
	nonce uint64
	err   error
}

// sign makes the own record as of now.
func (d *Discovery) sign() error {
	o := &d.own
	o.self = d.askSelf()
	seq := max(uint64(d.clock.now()/1000), o.seq+1)
	r, err := overlay.SignRecord(d.cfg.Key, d.cfg.Network, overlay.Record{
		Seq: seq, Endpoints: o.self.Endpoints, Relay: o.self.Relay, Tags: slices.Clone(o.tags),
		VRF: d.cfg.Key.VRF().Public(), Epoch: o.epoch, Nonce: o.nonce,
	})
	if err != nil {
		return err
	}
	o.seq, o.signed = seq, time.Now()
	d.mu.Lock()
	d.record = r
	d.mu.Unlock()
	return nil
}

func (d *Discovery) askSelf() Self {
	s := d.cfg.Self(d.observations())
	s.Endpoints = slices.Clone(s.Endpoints[:min(len(s.Endpoints), overlay.MaxEndpoints)])
	return s
}

// refreshOwn renews the record when something in it has changed, and solves the epoch's puzzle.
func (d *Discovery) refreshOwn(ctx context.Context, group *errgroup.Group) {
	d.beacons = d.cfg.Beacons()
	o := &d.own
	if d.cfg.Difficulty.Dynamic > 0 && len(d.beacons) > 0 && d.beacons[0].Epoch != o.epoch && !o.solving {
		o.solving = true
		beacon := d.beacons[0]
		group.Go(func() error {
			nonce, err := identity.SolveDynamic(ctx, d.key, beacon.Hash, d.cfg.Difficulty.Dynamic, nil)
			o.solutions <- solution{beacon.Epoch, nonce, err}
			return nil
		})
	}
	s := d.askSelf()
	if s.Relay != o.self.Relay || !slices.Equal(s.Endpoints, o.self.Endpoints) || time.Since(o.signed) >= rememberFor {
		d.renew()
	}
}

func (d *Discovery) renew() {
	if err := d.sign(); err != nil {
		d.cfg.Log.Error("cannot renew the own record: peers keep the old one", "err", err)
		return
	}
	d.step(overlay.Renewed{Record: d.record})
	d.advertise()
}

// advertise keeps an ad under the own key while another node relays to this one, for nobody has it in a table.
func (d *Discovery) advertise() {
	relayed := d.own.self.Relay != (crowd.Key{})
	if relayed == d.own.relayed {
		return
	}
	d.own.relayed = relayed
	if relayed {
		d.step(overlay.Announce{Topic: d.key})
	} else {
		d.step(overlay.Withdraw{Topic: d.key})
	}
}

func (d *Discovery) solution(s solution) {
	d.own.solving = false
	if s.err != nil {
		return // only when Run ends
	}
	d.own.epoch, d.own.nonce = s.epoch, s.nonce
	d.renew()
}

// firstSolution waits for a beacon and solves its puzzle: without it nobody takes the own record.
func (d *Discovery) firstSolution(ctx context.Context) error {
	if d.cfg.Difficulty.Dynamic == 0 {
		return nil
	}
	for told := false; len(d.beacons) == 0; d.beacons = d.cfg.Beacons() {
		if !told {
			d.cfg.Log.Info("waiting for the chain's beacon: the puzzle of the own record is bound to it")
			told = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	beacon := d.beacons[0]
	nonce, err := identity.SolveDynamic(ctx, d.key, beacon.Hash, d.cfg.Difficulty.Dynamic, nil)
	if err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	d.waiting.Store(false)
	d.own.epoch, d.own.nonce = beacon.Epoch, nonce
	return nil
}

// seen notes at which address a peer sees this node: one voice for each subnet, its latest.
func (d *Discovery) seen(e overlay.Observed) {
	d.mu.Lock()
	p := d.peers[e.By]
	d.mu.Unlock()
	if p == nil || len(p.record.Endpoints) == 0 {
		return
	}
	by := p.record.Endpoints[0]
	d.observed.put(sourceOf(netip.AddrPortFrom(by.Addr, by.UDP)), e.Addr)
}

// observations are the addresses that at least two voices name, most named first.
func (d *Discovery) observations() []netip.AddrPort {
	votes := map[netip.AddrPort]int{}
	for _, a := range d.observed.young {
		votes[a]++
	}
	for by, a := range d.observed.old {
		if _, newer := d.observed.young[by]; !newer {
			votes[a]++
		}
	}
	var out []netip.AddrPort
	for a, n := range votes {
		if n >= 2 {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b netip.AddrPort) int { return cmp.Or(votes[b]-votes[a], a.Compare(b)) })
	return out
}

// save writes the database elsewhere, one write at a time.
func (d *Discovery) save(group *errgroup.Group) {
	if d.cfg.Folder == "" || !d.freshen() || d.saving != nil {
		return
	}
	b := d.database.encode(d.cfg.Network)
	done := make(chan error, 1) // capacity 1: the writer never waits
	d.saving, d.saved, d.database.dirty = done, time.Now(), false
	group.Go(func() error {
		done <- writeDatabase(d.cfg.Folder, b)
		return nil
	})
}

func (d *Discovery) saveEnded(err error) {
	d.saving = nil
	if err != nil {
		d.database.dirty = true
		d.cfg.Log.Warn("cannot remember peers for the next start", "err", err)
	}
}

// close writes the database for the last time.
func (d *Discovery) close() error {
	if d.saving != nil {
		d.saveEnded(<-d.saving)
	}
	if d.cfg.Folder == "" || !d.freshen() {
		return nil
	}
	return writeDatabase(d.cfg.Folder, d.database.encode(d.cfg.Network))
}

// freshen notes of the peers that answered last when they did. It reports whether there is anything to write.
func (d *Discovery) freshen() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, p := range d.peers {
		if k := d.database.entries[id]; k != nil && p.heard > k.last {
			k.last, d.database.dirty = p.heard, true
		}
	}
	return d.database.dirty
}
