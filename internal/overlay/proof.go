package overlay

import (
	"encoding/binary"
	"net/netip"

	"github.com/crowdcompute/crowd"
)

// proofs are the endpoints that nodes outside the table have proven, the latest few.
type proofs struct {
	salt [16]byte
	list []proof
	next int
}

type proof struct {
	mark uint64 // of ID and address, salted: nobody can make two alike
	at   uint32 // seconds
}

func (p *proofs) mark(id *crowd.NodeID, addr netip.AddrPort) uint64 {
	a := addr.Addr().As16()
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], addr.Port())
	h := crowd.Keccak256(p.salt[:], id[:], a[:], port[:])
	return binary.BigEndian.Uint64(h[:])
}

// prove notes that id has answered from addr.
func (n *Node) prove(id *crowd.NodeID, addr netip.AddrPort) {
	p := n.marks()
	mark := p.mark(id, addr)
	for i := range p.list {
		if p.list[i].mark == mark {
			p.list[i].at = seconds(n.now)
			return
		}
	}
	n.note(mark)
}

// marks are the proofs, made when there is the first.
func (n *Node) marks() *proofs {
	if n.proofs == nil {
		n.proofs = &proofs{}
		binary.BigEndian.PutUint64(n.proofs.salt[:], n.rng.Uint64())
		binary.BigEndian.PutUint64(n.proofs.salt[8:], n.rng.Uint64())
	}
	return n.proofs
}

// note keeps a proof that is not in the list, in place of the oldest if it is full.
func (n *Node) note(mark uint64) {
	p := n.proofs
	if len(p.list) < n.cfg.Proofs {
		p.list = append(p.list, proof{mark, seconds(n.now)})
		return
	}
	p.list[p.next] = proof{mark, seconds(n.now)}
	p.next = (p.next + 1) % len(p.list)
}

func (n *Node) isProven(id *crowd.NodeID, addr netip.AddrPort) bool {
	if n.proofs == nil {
		return false
	}
	mark := n.proofs.mark(id, addr)
	for _, p := range n.proofs.list {
		if p.mark == mark {
			return Time(seconds(n.now)-p.at)*1e6 < Time(n.cfg.ProofFor.Microseconds())
		}
	}
	return false
}
