package swarm

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/sim"
)

// sybils see: the whole directory. Do: make identities until their positions lie where they want them, and bring them in
// as guests, each from an address of its own or many from a few hosts.

// mine makes count identities whose keys are nearer to target than within, and counts the tries. It
// is done, not reckoned: a try is one Keccak, as for a real attacker who steps from key to key.
func mine(r *rand.Rand, target crowd.Key, within uint64, count int) (ids []crowd.NodeID, tries int) {
	var id crowd.NodeID
	for i := 0; i < len(id); i += 8 {
		binary.BigEndian.PutUint64(id[i:], r.Uint64())
	}
	want := prefixOf(target)
	for n := r.Uint64(); len(ids) < count; n++ {
		binary.BigEndian.PutUint64(id[:], n)
		tries++
		if prefixOf(id.Key())^want < within {
			ids = append(ids, id)
		}
	}
	return ids, tries
}

const (
	// argon is one check of the static puzzle: Argon2id of 16 MiB, t = 1, p = 1, DESIGN section 3, measured.
	argon = 15 * time.Millisecond
	// step is to the next key: a point addition and a Keccak.
	step = time.Microsecond
)

// Cost is the time of one core to make identities with the static puzzle of so many bits, when a share of positions
// is good enough. The position is looked at first, since that is cheap; of those that lie well
// one in 2^bits has a solved puzzle.
func Cost(identities int, share float64, bits uint8) time.Duration {
	each := (float64(argon) + float64(step)/share) * math.Exp2(float64(bits))
	return time.Duration(min(float64(identities)*each, math.MaxInt64))
}

// guestBase: guests live in 80.0.0.0/6, where no node of the world does.
const guestBase = 80 << 24

// guests brings in identities from so many hosts, by turns; 0 hosts: each has one, in a /24 of its own.
func (w *World) bring(ids []crowd.NodeID, hosts int) []uint32 {
	out := make([]uint32, 0, len(ids))
	for i, id := range ids {
		n := uint32(len(w.recs))
		e := sim.Endpoint{Host: guestBase + n<<8 + 1, Port: sim.Port}
		if hosts > 0 {
			e = sim.Endpoint{Host: guestBase + uint32(i%hosts)<<16 + 1, Port: uint16(1024 + i/hosts)}
		}
		a := e.AddrPort()
		r := &overlay.Record{ID: id, Seq: uint64(w.at(w.queue.Now()) / 1000), Nonce: 1 << 40, Epoch: 1 << 17,
			Endpoints: []overlay.Endpoint{{Addr: a.Addr(), UDP: a.Port(), TCP: a.Port()}}}
		sign(r)
		w.recs = append(w.recs, r)
		w.guests[e] = n
		out = append(out, n)
	}
	return out
}

func (w *World) endpointOf(node uint32) sim.Endpoint {
	e, _ := sim.EndpointOf(addrOf(w.recs[node].Endpoints[0]))
	return e
}

// crowdIn lets guests introduce themselves to a node: a ping with the record, after which they answer as colluders do.
func (b *base) crowdIn(guest, victim uint32) {
	w := b.w
	b.say(guest, w.endpointOf(guest), w.endpointOf(victim), w.recs[victim].ID,
		overlay.Ping{Req: w.rng.Uint64(), Seq: w.recs[guest].Seq, Record: w.recs[guest]}, false)
}
