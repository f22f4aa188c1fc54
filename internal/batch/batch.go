// Package batch lays many small tasks out in one file, and what they came to under
// one root: frames, leaves, a Merkle-sum tree with proofs, and the sample that a verifier's
// lot picks. It runs nothing, reads no file, and knows nothing of the chain.
package batch

import (
	"encoding/binary"
	"fmt"

	"github.com/crowdcompute/crowd"
)

// Bounds of one batch.
const (
	MaxItems = 1 << 20
	MaxError = 4 << 10 // bytes of an item's standard error that are kept, and are part of its leaf
)

// Leaf is what one item came to: the same on every honest machine.
type Leaf struct {
	_        struct{} `cbor:",toarray"`
	Status   crowd.Status
	ExitCode uint32 // of an Exited program
	Gas      crowd.Gas
	Output   crowd.Hash // Digest of what it wrote
}

// LeafSize is the length of an encoded Leaf, in bytes.
const LeafSize = 1 + 4 + 8 + 32

// Digest names an item's output: all of its standard output, and the first MaxError bytes of its standard error.
func Digest(stdout, stderr []byte) crowd.Hash {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(stdout)))
	return crowd.Keccak256([]byte("crowd/item output\x00"), n[:], stdout, stderr[:min(len(stderr), MaxError)])
}

// UserError reports whether the program or this item is to blame.
func (l Leaf) UserError() bool { return l.Status != crowd.Exited || l.ExitCode != 0 }

// Append adds the LeafSize bytes of l to b.
func (l Leaf) Append(b []byte) []byte {
	b = append(b, byte(l.Status))
	b = binary.BigEndian.AppendUint32(b, l.ExitCode)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Gas))
	return append(b, l.Output[:]...)
}

// DecodeLeaves reads n leaves, one after another.
func DecodeLeaves(b []byte, n uint32) ([]Leaf, error) {
	if uint64(len(b)) != uint64(n)*LeafSize {
		return nil, fmt.Errorf("%d bytes for %d leaves, want %d", len(b), n, uint64(n)*LeafSize)
	}
	leaves := make([]Leaf, n)
	for i := range leaves {
		var err error
		if leaves[i], err = DecodeLeaf(b[i*LeafSize:][:LeafSize]); err != nil {
			return nil, fmt.Errorf("leaf %d: %w", i, err)
		}
	}
	return leaves, nil
}

// DecodeLeaf reads LeafSize bytes. Every string of that length is a leaf.
func DecodeLeaf(b []byte) (Leaf, error) {
	if len(b) != LeafSize {
		return Leaf{}, fmt.Errorf("a leaf of %d bytes, want %d", len(b), LeafSize)
	}
	return Leaf{
		Status: crowd.Status(b[0]), ExitCode: binary.BigEndian.Uint32(b[1:]),
		Gas: crowd.Gas(binary.BigEndian.Uint64(b[5:])), Output: crowd.Hash(b[13:]),
	}, nil
}
