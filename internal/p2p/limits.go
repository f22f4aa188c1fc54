package p2p

import (
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
)

// Limits on what all peers together, and any one of them, can make a host hold.
// A zero field takes its default.
type Limits struct {
	Conns          int   // in all; default 512. At most three quarters are inbound; above as many, idle ones are closed
	ConnsPerPeer   int   // default 4. Above as many, the oldest is closed, which takes a moment; twice as many are refused
	Streams        int   // in all; default 8192
	StreamsPerPeer int   // default 512, half of them inbound
	Memory         int64 // bytes of flow-control windows in all; default 256 MiB
	MemoryPerPeer  int64 // default 64 MiB

	Patience time.Duration // of Fetch, for a source's next byte; default 10 s

	Protocols map[string]ProtocolLimit // tighter ones, of protocols that Handle answers
}

// ProtocolLimit bounds the streams of one protocol that others open to this host: in all, and by one peer. Further ones are reset.
type ProtocolLimit struct{ Streams, StreamsPerPeer int }

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&l.Conns, 512)
	def(&l.ConnsPerPeer, 4)
	def(&l.Streams, 8192)
	def(&l.StreamsPerPeer, 512)
	if l.Memory == 0 {
		l.Memory = 256 << 20
	}
	if l.MemoryPerPeer == 0 {
		l.MemoryPerPeer = 64 << 20
	}
	if l.Patience == 0 {
		l.Patience = 10 * time.Second
	}
	return l
}

// managers bound what is open and close what is idle. Per IPv4 address and per IPv6 /56 libp2p
// also allows at most 8 connections and 0.2 new ones a second, loopback excepted.
func (l Limits) managers() (network.ResourceManager, *connmgr.BasicConnMgr, error) {
	n := func(v int) rcmgr.LimitVal { return rcmgr.LimitVal(max(v, 1)) }
	cfg := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: n(l.Conns), ConnsInbound: n(l.Conns * 3 / 4), ConnsOutbound: n(l.Conns),
			Streams: n(l.Streams), StreamsInbound: n(l.Streams), StreamsOutbound: n(l.Streams),
			FD: n(l.Conns), Memory: rcmgr.LimitVal64(l.Memory),
		},
		// Connections before their handshake and streams before their protocol is known.
		Transient: rcmgr.ResourceLimits{
			Conns: n(l.Conns / 4), ConnsInbound: n(l.Conns / 8), ConnsOutbound: n(l.Conns / 4),
			Streams: n(l.Streams / 8), StreamsInbound: n(l.Streams / 16), StreamsOutbound: n(l.Streams / 8),
			FD: n(l.Conns / 4), Memory: rcmgr.LimitVal64(l.Memory / 8),
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: n(2 * l.ConnsPerPeer), ConnsInbound: n(2 * l.ConnsPerPeer), ConnsOutbound: n(2 * l.ConnsPerPeer),
			Streams: n(l.StreamsPerPeer), StreamsInbound: n(l.StreamsPerPeer / 2), StreamsOutbound: n(l.StreamsPerPeer),
			FD: n(2 * l.ConnsPerPeer), Memory: rcmgr.LimitVal64(l.MemoryPerPeer),
		},
		Conn:   rcmgr.ResourceLimits{Conns: 1, ConnsInbound: 1, ConnsOutbound: 1, FD: 1, Memory: rcmgr.LimitVal64(l.MemoryPerPeer / 2)},
		Stream: rcmgr.ResourceLimits{Streams: 1, StreamsInbound: 1, StreamsOutbound: 1, Memory: rcmgr.LimitVal64(l.MemoryPerPeer / 2)},
		// Each stream that serves blocks holds one of up to 2 MiB.
		Protocol:     map[protocol.ID]rcmgr.ResourceLimits{blocksProtocol: {Streams: 256, StreamsInbound: 128, StreamsOutbound: 128}},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{blocksProtocol: {Streams: 16, StreamsInbound: 8, StreamsOutbound: 16}},
	}
	for proto, p := range l.Protocols {
		cfg.Protocol[protocol.ID(proto)] = rcmgr.ResourceLimits{StreamsInbound: n(p.Streams)}
		cfg.ProtocolPeer[protocol.ID(proto)] = rcmgr.ResourceLimits{StreamsInbound: n(p.StreamsPerPeer)}
	}
	// InfiniteLimits fills only what is not named above: services and other protocols, which
	// live inside the limits of system and peer.
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(cfg.Build(rcmgr.InfiniteLimits)), rcmgr.WithMetricsDisabled())
	if err != nil {
		return nil, nil, err
	}
	cm, err := connmgr.NewConnManager(max(l.Conns/2, 1), max(l.Conns*3/4, 1))
	return rm, cm, err
}
