package p2p

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
)

// Reachability says whether strangers can dial this host, as AutoNAT finds out by asking peers to try.
type Reachability string

const (
	Unknown Reachability = "unknown"
	Public  Reachability = "public"
	Private Reachability = "private" // behind a NAT or firewall: only through a relay or by hole punching
)

// traversal are libp2p's ways through NATs. A host that listens on loopback alone has nobody to get through to.
func (h *Host) traversal() []libp2p.Option {
	local := loopback(h.cfg.Listen)
	if local && h.cfg.Reachability == Unknown {
		return nil
	}
	opts := []libp2p.Option{
		libp2p.EnableHolePunching(holepunch.WithTracer(punches{h})),
		libp2p.EnableRelayService(), // starts when AutoNAT says that we are public
		libp2p.EnableAutoRelayWithPeerSource(h.relays,
			autorelay.WithMinCandidates(1), // whom discovery or the user names needs no rivals
			autorelay.WithNumRelays(2),
			autorelay.WithMinInterval(5*time.Second),
			autorelay.WithBackoff(2*time.Minute), // a relay that was full, instead of an hour
		),
	}
	if !local {
		opts = append(opts, libp2p.NATPortMap(), libp2p.EnableNATService(), libp2p.EnableAutoNATv2())
	}
	switch h.cfg.Reachability {
	case Public:
		opts = append(opts, libp2p.ForceReachabilityPublic())
	case Private:
		opts = append(opts, libp2p.ForceReachabilityPrivate())
	}
	return opts
}

// relays names at most n hosts that may relay for us: seeds, and whom Config.Relays finds.
func (h *Host) relays(ctx context.Context, n int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo, n) // capacity: all that is sent
	go func() {
		defer close(out)
		if <-h.made; h.host == nil {
			return
		}
		h.mu.Lock()
		list := slices.Clone(h.seeds)
		h.mu.Unlock()
		if h.cfg.Relays != nil {
			list = list[:min(len(list), n/2)]
			for _, s := range h.cfg.Relays(ctx, n-len(list)) {
				info, err := peer.AddrInfoFromString(s)
				if err != nil {
					h.cfg.Log.Debug("no relay", "addr", s, "err", err)
					continue
				}
				list = append(list, *info)
			}
		}
		for _, info := range list[:min(len(list), n)] {
			if info.ID != h.host.ID() {
				out <- info
			}
		}
	}()
	return out
}

// Reachability is what is known now, and a channel that is closed when it changes.
func (h *Host) Reachability() (Reachability, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reach, h.reachNews
}

// ExternalUDP are the UDP addresses that connected peers see our QUIC at, and so our datagrams: those first that most
// networks (/24, IPv6: /48) agree on. A peer may lie, and a NAT may give us another for the next peer.
func (h *Host) ExternalUDP() []netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []sighting
	for c, s := range h.sightings {
		if !c.IsClosed() {
			all = append(all, s)
		}
	}
	return tally(all)
}

// sighting is what a peer says about us.
type sighting struct {
	by netip.Addr
	us netip.AddrPort
}

// tally orders what was seen by how many networks have seen it.
func tally(all []sighting) []netip.AddrPort {
	votes := map[netip.AddrPort]map[netip.Prefix]bool{}
	for _, s := range all {
		bits := 48
		if s.by.Is4() {
			bits = 24
		}
		from, err := s.by.Prefix(bits)
		if err != nil || !from.IsValid() {
			continue
		}
		if votes[s.us] == nil {
			votes[s.us] = map[netip.Prefix]bool{}
		}
		votes[s.us][from] = true
	}
	var out []netip.AddrPort
	for a := range votes {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b netip.AddrPort) int {
		return cmp.Or(len(votes[b])-len(votes[a]), a.Compare(b))
	})
	return out
}

// listenToEvents follows what libp2p finds out about this host, until it closes.
func (h *Host) listenToEvents() error {
	sub, err := h.host.EventBus().Subscribe([]any{new(event.EvtLocalReachabilityChanged), new(event.EvtPeerIdentificationCompleted)})
	if err != nil {
		return err
	}
	h.handlers.Go(func() { // in New: not after Close
		defer sub.Close()
		for {
			select {
			case <-h.ctx.Done():
				return
			case e := <-sub.Out():
				switch e := e.(type) {
				case event.EvtLocalReachabilityChanged:
					h.reached(e.Reachability)
				case event.EvtPeerIdentificationCompleted:
					h.sighted(e)
				}
			}
		}
	})
	return nil
}

func (h *Host) reached(r network.Reachability) {
	now := map[network.Reachability]Reachability{network.ReachabilityPublic: Public, network.ReachabilityPrivate: Private}[r]
	now = cmp.Or(now, Unknown)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reach != now {
		h.reach = now
		close(h.reachNews)
		h.reachNews = make(chan struct{})
	}
}

// sighted notes what a peer says about our end of a direct QUIC connection from a socket that listens.
func (h *Host) sighted(e event.EvtPeerIdentificationCompleted) {
	if e.ObservedAddr == nil || relayed(e.Conn) {
		return
	}
	us, _, err1 := quicreuse.FromQuicMultiaddr(e.ObservedAddr)
	local, _, err2 := quicreuse.FromQuicMultiaddr(e.Conn.LocalMultiaddr())
	by, _, err3 := quicreuse.FromQuicMultiaddr(e.Conn.RemoteMultiaddr())
	if err1 != nil || err2 != nil || err3 != nil {
		return
	}
	s := sighting{by: unmap(by.AddrPort()).Addr(), us: unmap(us.AddrPort())}
	listens := slices.ContainsFunc(h.LocalUDP(), func(a netip.AddrPort) bool {
		return int(a.Port()) == local.Port && a.Addr().Is4() == s.us.Addr().Is4()
	})
	if !listens || s.us.Port() == 0 || s.us.Addr().IsUnspecified() || s.us.Addr().IsLoopback() != s.by.IsLoopback() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !e.Conn.IsClosed() { // or else nobody would forget it
		h.sightings[e.Conn] = s
	}
}

// punches hears of hole punching, and marks the connections that it brought.
type punches struct{ h *Host }

func (p punches) Trace(e *holepunch.Event) {
	if end, ok := e.Evt.(*holepunch.EndHolePunchEvt); !ok || !end.Success {
		return
	}
	if <-p.h.made; p.h.host == nil {
		return
	}
	for _, c := range p.h.host.Network().ConnsToPeer(e.Remote) {
		if !relayed(c) {
			p.h.mu.Lock()
			if !c.IsClosed() {
				p.h.punched[c] = true
			}
			p.h.mu.Unlock()
		}
	}
}
