package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/crowdcompute/crowd"
)

// Node is a place in the tree: the digest of all below it, and their gas together.
// The gas is part of every digest, so a total cannot be claimed that the leaves do not add up to.
type Node struct {
	_    struct{} `cbor:",toarray"`
	Hash crowd.Hash
	Gas  crowd.Gas
}

// Hash of l: what a verifier answers with.
func (l Leaf) Hash() crowd.Hash { return leafNode(l).Hash }

func leafNode(l Leaf) Node {
	return Node{Hash: crowd.Keccak256([]byte{0}, l.Append(make([]byte, 0, LeafSize))), Gas: l.Gas}
}

// join fails when the gas does not fit: no honest batch comes near that.
func join(l, r Node) (Node, error) {
	sum, carry := bits.Add64(uint64(l.Gas), uint64(r.Gas), 0)
	if carry != 0 {
		return Node{}, errors.New("the gas of all items together is beyond 64 bits")
	}
	var g [16]byte
	binary.BigEndian.PutUint64(g[:8], uint64(l.Gas))
	binary.BigEndian.PutUint64(g[8:], uint64(r.Gas))
	return Node{Hash: crowd.Keccak256([]byte{1}, l.Hash[:], r.Hash[:], g[:]), Gas: crowd.Gas(sum)}, nil
}

// Root is what a shard's outcomes are committed to by: their number, and the top of the tree.
type Root struct {
	Items uint32
	Top   Node
}

// Tree holds the outcomes of one batch. Its shape is that of RFC 6962: the left
// half of n > 1 leaves is the largest power of two below n.
type Tree struct {
	levels [][]Node // from the leaves up; a lone last node rises as it is
}

// NewTree is the tree over leaves, in the order of the items. It fails for none,
// for more than MaxItems, and for a gas beyond 64 bits.
func NewTree(leaves []Leaf) (*Tree, error) {
	if len(leaves) == 0 || len(leaves) > MaxItems {
		return nil, fmt.Errorf("a tree over %d items, want 1 to %d", len(leaves), MaxItems)
	}
	level := make([]Node, len(leaves))
	for i, l := range leaves {
		level[i] = leafNode(l)
	}
	t := &Tree{levels: [][]Node{level}}
	for len(level) > 1 {
		up := make([]Node, 0, (len(level)+1)/2)
		for i := 0; i+1 < len(level); i += 2 {
			n, err := join(level[i], level[i+1])
			if err != nil {
				return nil, err
			}
			up = append(up, n)
		}
		if len(level)%2 == 1 {
			up = append(up, level[len(level)-1])
		}
		t.levels = append(t.levels, up)
		level = up
	}
	return t, nil
}

// Root of t.
func (t *Tree) Root() Root {
	return Root{Items: uint32(len(t.levels[0])), Top: t.levels[len(t.levels)-1][0]}
}

// Proof shows one item's outcome under a root.
type Proof struct {
	_     struct{} `cbor:",toarray"`
	Index uint32
	Leaf  Leaf
	Path  []Node // siblings, from the leaf up
}

// Prove shows item i. It panics when there is none.
func (t *Tree) Prove(i uint32, l Leaf) Proof {
	p := Proof{Index: i, Leaf: l}
	for _, level := range t.levels[:len(t.levels)-1] {
		if s := i ^ 1; int(s) < len(level) {
			p.Path = append(p.Path, level[s])
		}
		i /= 2
	}
	return p
}

// Check fails unless p shows that its leaf is item Index under root.
func (p *Proof) Check(root Root) error {
	n := root.Items
	if p.Index >= n || n > MaxItems {
		return fmt.Errorf("item %d of %d", p.Index, n)
	}
	at, path := leafNode(p.Leaf), p.Path
	for i := p.Index; n > 1; i, n = i/2, (n+1)/2 {
		if i^1 >= n { // a lone last node rises as it is
			continue
		}
		if len(path) == 0 {
			return errors.New("the proof is too short")
		}
		l, r := at, path[0]
		if i&1 == 1 {
			l, r = r, l
		}
		var err error
		if at, err = join(l, r); err != nil {
			return err
		}
		path = path[1:]
	}
	if len(path) > 0 {
		return errors.New("the proof is too long")
	}
	if at != root.Top {
		return errors.New("the path does not lead to the root")
	}
	return nil
}
