package discovery

import (
	"net/netip"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
)

// bucket is a token bucket: rate a second, at most burst at once. The zero bucket is full.
type bucket struct {
	spent float64
	at    overlay.Time
}

func (b *bucket) take(now overlay.Time, rate, burst float64) bool {
	if now > b.at {
		b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*rate)
		b.at = now
	}
	if b.spent+1 > burst {
		return false
	}
	b.spent++
	return true
}

// generations is a map of bounded size that forgets the half added longest ago.
type generations[K comparable, V any] struct {
	size       int // of one generation
	young, old map[K]V
}

func newGenerations[K comparable, V any](size int) *generations[K, V] {
	return &generations[K, V]{size: size, young: map[K]V{}}
}

func (g *generations[K, V]) get(k K) (V, bool) {
	v, ok := g.young[k]
	if !ok {
		v, ok = g.old[k]
	}
	return v, ok
}

func (g *generations[K, V]) put(k K, v V) {
	if len(g.young) >= g.size {
		g.turn()
	}
	g.young[k] = v
}

func (g *generations[K, V]) turn() { g.young, g.old = make(map[K]V, len(g.young)), g.young }

func (g *generations[K, V]) len() int { return len(g.young) + len(g.old) }

// source is whom a packet's cost is charged to: a subnet, or on the user's own machine and LAN an address with its
// port, where many nodes share one subnet and forging is no stranger's.
type source struct {
	net  netip.Prefix
	port uint16
}

func sourceOf(a netip.AddrPort) source {
	if ip := a.Addr(); ip.IsPrivate() || ip.IsLoopback() {
		return source{netip.PrefixFrom(ip, ip.BitLen()), a.Port()}
	}
	return source{net: subnetOf(a.Addr())}
}

// Costs of a flood are bounded by tokens: one for each signature recovered (170 µs without cgo), one for each
// static puzzle checked (15 ms). Answers to our own requests need none: they are as many as we
// ask for. Peers who have answered us before are charged to a budget of their own, so that no
// flood by strangers, whose addresses may all be forged, keeps us from them.
const (
	sourceRate, sourceBurst     = 50, 200 // recoveries for one source
	strangerRate, strangerBurst = 500, 1000
	peerRate, peerBurst         = 1000, 2000

	puzzleRate, puzzleBurst             = 5, 20 // static puzzles of requests, all of them together
	sourcePuzzleRate, sourcePuzzleBurst = 0.5, 4

	maxSources  = 4096
	maxReplays  = 1 << 14 // packets of a generation
	maxPeers    = 2048    // addresses that have answered
	maxRequests = 4096    // of ours, under way

	shunFor    = time.Hour // nothing is said to, or heard of, who was blamed
	maxShunned = 256       // of a generation: whoever wants to be forgotten sooner must have as many IDs blamed, each with its puzzle

	maxAnswerParts   = 16
	maxAnswerRecords = 48 // in all parts: more than anybody asks for
)

// limits is Run's goroutine's.
type limits struct {
	sources   *generations[source, *bucket]
	puzzles   *generations[source, *bucket]
	strangers bucket
	peers     bucket
	allPuzzle bucket
	answered  *generations[netip.AddrPort, struct{}]
	replays   *generations[crowd.Hash, struct{}]
	turned    overlay.Time
}

func newLimits() *limits {
	return &limits{
		sources:  newGenerations[source, *bucket](maxSources),
		puzzles:  newGenerations[source, *bucket](maxSources),
		answered: newGenerations[netip.AddrPort, struct{}](maxPeers),
		replays:  newGenerations[crowd.Hash, struct{}](maxReplays),
	}
}

func of(g *generations[source, *bucket], s source) *bucket {
	b, ok := g.young[s]
	if !ok {
		if b, ok = g.old[s]; !ok {
			b = new(bucket)
		}
		g.put(s, b)
	}
	return b
}

// recovery says whether a packet from there may cost a signature.
func (l *limits) recovery(from netip.AddrPort, now overlay.Time) bool {
	if !of(l.sources, sourceOf(from)).take(now, sourceRate, sourceBurst) {
		return false
	}
	if _, peer := l.answered.get(from); peer && l.peers.take(now, peerRate, peerBurst) {
		return true
	}
	return l.strangers.take(now, strangerRate, strangerBurst)
}

// puzzle says whether a request from there may cost a static puzzle.
func (l *limits) puzzle(from netip.AddrPort, now overlay.Time) bool {
	return of(l.puzzles, sourceOf(from)).take(now, sourcePuzzleRate, sourcePuzzleBurst) &&
		l.allPuzzle.take(now, puzzleRate, puzzleBurst)
}

// forget lets replays age out: after two turns their packets have expired.
func (l *limits) forget(now overlay.Time) {
	if now.Sub(l.turned) >= maxLife {
		l.turned = now
		l.replays.turn()
	}
}

// A packet expires packetLife after it was sealed. Clocks may differ by maxSkew.
const (
	packetLife = 20 * time.Second
	maxSkew    = 10 * time.Second
	maxLife    = packetLife + 2*maxSkew
)
