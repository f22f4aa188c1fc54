package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	ics23 "github.com/cosmos/ics23/go"

	"github.com/crowdcompute/crowd"
)

// node is an immutable sparse Merkle tree in the form that ics23.SmtSpec
// describes: positions are sha256(key), a subtree with one leaf is that leaf,
// an empty subtree hashes to 32 zero bytes. The root does not depend on the
// order of insertion.
type node struct {
	left, right *node // both nil: a leaf
	path        [32]byte
	key         string
	val         []byte
	hash        crowd.Hash
	sealed      bool // hash is set
}

func leaf(key string, val []byte) *node {
	n := &node{path: sha256.Sum256([]byte(key)), key: key, val: val, sealed: true}
	v := sha256.Sum256(val)
	n.hash = sha256.Sum256(append(append([]byte{0}, n.path[:]...), v[:]...))
	return n
}

func (n *node) isLeaf() bool { return n.left == nil && n.right == nil }

func bit(path *[32]byte, depth int) byte { return path[depth/8] >> (7 - depth%8) & 1 }

// inner joins two subtrees, keeping the rule that a lone leaf stands for its subtree.
func inner(left, right *node) *node {
	switch {
	case left == nil && right == nil:
		return nil
	case left == nil && right.isLeaf():
		return right
	case right == nil && left.isLeaf():
		return left
	}
	return &node{left: left, right: right}
}

func (n *node) insert(depth int, l *node) *node {
	if n == nil || n.isLeaf() && n.path == l.path {
		return l
	}
	if n.isLeaf() {
		n = (&node{}).with(bit(&n.path, depth), n)
	}
	b := bit(&l.path, depth)
	return n.with(b, n.child(b).insert(depth+1, l))
}

func (n *node) remove(depth int, path *[32]byte) *node {
	switch {
	case n == nil:
		return nil
	case n.isLeaf():
		if n.path == *path {
			return nil
		}
		return n
	}
	b := bit(path, depth)
	c := n.child(b).remove(depth+1, path)
	if b == 0 {
		return inner(c, n.right)
	}
	return inner(n.left, c)
}

func (n *node) child(b byte) *node {
	if b == 0 {
		return n.left
	}
	return n.right
}

// with is an unsealed copy of the inner node n with one child exchanged.
func (n *node) with(b byte, c *node) *node {
	if b == 0 {
		return &node{left: c, right: n.right}
	}
	return &node{left: n.left, right: c}
}

// seal computes the hashes that are missing. Only Apply calls it, before anybody else sees the node.
func (n *node) seal() crowd.Hash {
	if n == nil {
		return crowd.Hash{}
	}
	if !n.sealed {
		l, r := n.left.seal(), n.right.seal()
		n.hash = sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
		n.sealed = true
	}
	return n.hash
}

func (n *node) rootHash() crowd.Hash {
	if n == nil {
		return crowd.Hash{}
	}
	return n.hash
}

// exist is the existence proof of the leaf at path, or nil when another or none stands there.
func (n *node) exist(path *[32]byte) *ics23.ExistenceProof {
	var ops []*ics23.InnerOp
	depth := 0
	for n != nil && !n.isLeaf() {
		b := bit(path, depth)
		op := &ics23.InnerOp{Hash: ics23.HashOp_SHA256, Prefix: []byte{1}}
		sibling := n.child(1 - b).rootHash()
		if b == 0 {
			op.Suffix = sibling[:]
		} else {
			op.Prefix = append(op.Prefix, sibling[:]...)
		}
		ops = append(ops, op)
		n, depth = n.child(b), depth+1
	}
	if n == nil || n.path != *path {
		return nil
	}
	for i, j := 0, len(ops)-1; i < j; i, j = i+1, j-1 {
		ops[i], ops[j] = ops[j], ops[i]
	}
	return &ics23.ExistenceProof{Key: []byte(n.key), Value: n.val, Leaf: ics23.SmtSpec.LeafSpec, Path: ops}
}

// neighbour is the leaf next to path on its left (dir 0) or right (dir 1) side.
func (n *node) neighbour(path *[32]byte, dir byte) *node {
	var best *node
	for depth := 0; n != nil; depth++ {
		if n.isLeaf() {
			c := bytes.Compare(n.path[:], path[:])
			if dir == 0 && c < 0 || dir == 1 && c > 0 {
				best = n
			}
			break
		}
		b := bit(path, depth)
		if other := n.child(1 - b); other != nil && b != dir {
			best = other
		}
		n = n.child(b)
	}
	for best != nil && !best.isLeaf() {
		next := best.child(1 - dir)
		if next == nil {
			next = best.child(dir)
		}
		best = next
	}
	return best
}

// Proof is an encoded ics23.CommitmentProof of a key's value, or of its absence.
type Proof []byte

// maxProof bounds a proof from outside, in bytes.
const maxProof = 1 << 20

// Prove returns the value under key (nil when absent) with its proof against s.Root().
func (s State) Prove(key []byte) ([]byte, Proof) {
	path := sha256.Sum256(key)
	p := &ics23.CommitmentProof{}
	var val []byte
	if e := s.tree.exist(&path); e != nil {
		val = e.Value
		p.Proof = &ics23.CommitmentProof_Exist{Exist: e}
	} else {
		non := &ics23.NonExistenceProof{Key: key}
		if l := s.tree.neighbour(&path, 0); l != nil {
			non.Left = s.tree.exist(&l.path)
		}
		if r := s.tree.neighbour(&path, 1); r != nil {
			non.Right = s.tree.exist(&r.path)
		}
		p.Proof = &ics23.CommitmentProof_Nonexist{Nonexist: non}
	}
	b, err := p.Marshal()
	if err != nil {
		panic("bug: " + err.Error())
	}
	return val, b
}

// VerifyProof checks with the stock ics23 library that under root the key holds
// val, or nothing when val is nil.
func VerifyProof(root crowd.Hash, key, val []byte, proof Proof) (err error) {
	defer func() { // the library indexes into what the peer sent
		if r := recover(); r != nil {
			err = fmt.Errorf("state proof: malformed: %v", r)
		}
	}()
	if len(proof) > maxProof {
		return fmt.Errorf("state proof: %d bytes, at most %d", len(proof), maxProof)
	}
	var p ics23.CommitmentProof
	if err := p.Unmarshal(proof); err != nil {
		return fmt.Errorf("state proof: %w", err)
	}
	// protobuf lets anything ride along in unknown fields; of a proof no byte may be changed unseen.
	if again, err := p.Marshal(); err != nil || !bytes.Equal(again, proof) {
		return errors.New("state proof: not in its one form")
	}
	if val == nil && !ics23.VerifyNonMembership(ics23.SmtSpec, root[:], &p, key) ||
		val != nil && !ics23.VerifyMembership(ics23.SmtSpec, root[:], &p, key, val) {
		return fmt.Errorf("state proof: does not lead from key %q to root %s", key, root)
	}
	return nil
}
