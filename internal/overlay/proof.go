package overlay

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/crowdcompute/crowd"
)

// proofs are the endpoints that nodes outside the table have proven. Four bytes stand for each: 24 bits of a salted hash of
// ID and address, and when, in units of ProofFor/proofSpan modulo 256. The hash also says in which set
// of eight a proof lies, so somebody else's is taken for it once in 2 million tries, and nobody can try: the salt is
// secret, and answers go to the address that was forged.
type proofs struct {
	salt [16]byte
	time uint32 // in units: nothing in the sets is older than proofSpan then
	sets []proofSet
}

type proofSet [8]uint32 // 0: empty

const proofSpan = 240 // units of a proof's life; less than 256, so that none comes round again

// find is the set of a proof, and its mark there.
func (p *proofs) find(id *crowd.NodeID, addr netip.AddrPort) (*proofSet, uint32) {
	a := addr.Addr().As16()
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], addr.Port())
	h := crowd.Keccak256(p.salt[:], id[:], a[:], port[:])
	return &p.sets[binary.BigEndian.Uint64(h[8:])%uint64(len(p.sets))], max(binary.BigEndian.Uint32(h[:])>>8, 1)
}

// age empties what is older than proofSpan.
func (p *proofs) age(now uint32) {
	if now <= p.time {
		return
	}
	gone := now - p.time
	for i := range p.sets {
		for j, v := range p.sets[i] {
			// What was old when time was last looked at is so much older now.
			if v != 0 && uint64(uint8(p.time)-uint8(v))+uint64(gone) >= proofSpan {
				p.sets[i][j] = 0
			}
		}
	}
	p.time = now
}

// proofTime is now in the units of a proof's age.
func (n *Node) proofTime() uint32 {
	return uint32(n.now / Time(max(n.cfg.ProofFor/proofSpan/time.Microsecond, 1)))
}

// prove notes that id has answered from addr, in place of the oldest of its set if that is full.
func (n *Node) prove(id *crowd.NodeID, addr netip.AddrPort) {
	now := n.proofTime()
	if n.proofs == nil {
		n.proofs = &proofs{time: now, sets: make([]proofSet, max(n.cfg.Proofs/len(proofSet{}), 1))}
		binary.BigEndian.PutUint64(n.proofs.salt[:], n.rng.Uint64())
		binary.BigEndian.PutUint64(n.proofs.salt[8:], n.rng.Uint64())
	}
	p := n.proofs
	p.age(now)
	set, mark := p.find(id, addr)
	at := 0
	for i, v := range set {
		if v>>8 == mark {
			at = i
			break
		}
		if v == 0 && set[at] != 0 || v != 0 && set[at] != 0 && uint8(now)-uint8(v) > uint8(now)-uint8(set[at]) {
			at = i
		}
	}
	set[at] = mark<<8 | now&0xff
}

func (n *Node) isProven(id *crowd.NodeID, addr netip.AddrPort) bool {
	if n.proofs == nil {
		return false
	}
	n.proofs.age(n.proofTime())
	set, mark := n.proofs.find(id, addr)
	for _, v := range set {
		if v>>8 == mark {
			return true
		}
	}
	return false
}
