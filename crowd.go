// Package crowd holds the nouns that the rooms share and their one canonical
// encoding. It does no I/O, and no third-party type leaves it.
package crowd

import (
	"encoding/hex"
	"fmt"
	"math/bits"
	"strings"

	"golang.org/x/crypto/sha3"
)

// Hash is a Keccak-256 digest.
type Hash [32]byte

// NodeID is an uncompressed secp256k1 public key X‖Y ("512-bit public keys as node IDs").
type NodeID [64]byte

// Key is Keccak-256(NodeID): the position of a node in the overlay.
type Key [32]byte

// Address is the last 20 bytes of a Key, as Ethereum derives it.
type Address [20]byte

// JobID is the Digest of a job's specification and its owner's account nonce.
type JobID [32]byte

// CID names content: a CIDv1 in its canonical base32 text, or "" for none.
// Only package store takes it apart.
type CID string

// MaxCID bounds the text of a CID in anything that comes from outside, in bytes.
const MaxCID = 128

// Credits counts micro-credits. One credit (1e6) buys 1 giga-gas at the reference price.
type Credits uint64

// Credit is one whole credit, in micro-credits.
const Credit Credits = 1_000_000

// Gas counts executed work: one unit is about one simple WebAssembly instruction.
type Gas uint64

// Height numbers the blocks of the chain; the first block has height 1.
type Height uint64

// Time is block time: Unix milliseconds out of a block's header. Nothing else on chain is time.
type Time int64

// Keccak256 hashes the concatenation of parts.
func Keccak256(parts ...[]byte) Hash {
	d := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		d.Write(p)
	}
	var h Hash
	d.Sum(h[:0])
	return h
}

// Key is the overlay position of n.
func (n NodeID) Key() Key { return Key(Keccak256(n[:])) }

// Address is the account of n.
func (n NodeID) Address() Address {
	k := n.Key()
	return Address(k[12:])
}

// IsZero reports whether n is no key at all.
func (n NodeID) IsZero() bool { return n == NodeID{} }

// Short is the first four bytes in hex, for people; it identifies nothing.
func (n NodeID) Short() string { return hex.EncodeToString(n[:4]) }

func (n NodeID) String() string  { return hex.EncodeToString(n[:]) }
func (h Hash) String() string    { return hex.EncodeToString(h[:]) }
func (k Key) String() string     { return hex.EncodeToString(k[:]) }
func (j JobID) String() string   { return hex.EncodeToString(j[:]) }
func (j JobID) Short() string    { return hex.EncodeToString(j[:4]) }
func (a Address) IsZero() bool   { return a == Address{} }
func (c Credits) String() string { return fmt.Sprintf("%d.%06d", c/Credit, c%Credit) }

// String is the EIP-55 mixed-case form with the 0x prefix.
func (a Address) String() string {
	low := hex.EncodeToString(a[:])
	sum := Keccak256([]byte(low))
	out := []byte("0x" + low)
	for i, c := range []byte(low) {
		nibble := sum[i/2] >> 4
		if i%2 == 1 {
			nibble = sum[i/2] & 0xf
		}
		if c >= 'a' && nibble >= 8 {
			out[2+i] = c - 'a' + 'A'
		}
	}
	return string(out)
}

// ParseAddress reads 40 hex digits with or without 0x. Mixed case must match EIP-55.
func ParseAddress(s string) (Address, error) {
	var a Address
	h := strings.TrimPrefix(s, "0x")
	if err := unhex(a[:], "address", h); err != nil {
		return Address{}, err
	}
	if h != strings.ToLower(h) && h != strings.ToUpper(h) && a.String() != "0x"+h {
		return Address{}, fmt.Errorf("address %s: wrong EIP-55 checksum", s)
	}
	return a, nil
}

// ParseJobID reads 64 hex digits.
func ParseJobID(s string) (id JobID, err error) { return id, unhex(id[:], "job ID", s) }

// ParseNodeID reads 128 hex digits.
func ParseNodeID(s string) (id NodeID, err error) { return id, unhex(id[:], "node ID", s) }

func unhex(dst []byte, what, s string) error {
	s = strings.TrimPrefix(s, "0x")
	if len(s) != 2*len(dst) {
		return fmt.Errorf("%s: %d characters, want %d hex digits", what, len(s), 2*len(dst))
	}
	if _, err := hex.Decode(dst, []byte(s)); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// The text forms serve JSON at the RPC border; canonical encoding uses the bytes.

func (n NodeID) MarshalText() ([]byte, error)  { return []byte(n.String()), nil }
func (h Hash) MarshalText() ([]byte, error)    { return []byte(h.String()), nil }
func (j JobID) MarshalText() ([]byte, error)   { return []byte(j.String()), nil }
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
func (n *NodeID) UnmarshalText(b []byte) error { return unhex(n[:], "node ID", string(b)) }
func (h *Hash) UnmarshalText(b []byte) error   { return unhex(h[:], "hash", string(b)) }
func (j *JobID) UnmarshalText(b []byte) error  { return unhex(j[:], "job ID", string(b)) }
func (a *Address) UnmarshalText(b []byte) error {
	v, err := ParseAddress(string(b))
	*a = v
	return err
}

// Add is c + d, and false on overflow.
func (c Credits) Add(d Credits) (Credits, bool) {
	s, carry := bits.Add64(uint64(c), uint64(d), 0)
	return Credits(s), carry == 0
}

// Sub is c - d, and false when d is larger.
func (c Credits) Sub(d Credits) (Credits, bool) { return c - d, d <= c }

// PPM is c·ppm/1e6, rounded down. ppm must be at most 1e6.
func (c Credits) PPM(ppm uint32) Credits {
	if ppm > 1e6 {
		panic("bug: a share of more than the whole")
	}
	hi, lo := bits.Mul64(uint64(c), uint64(ppm))
	q, _ := bits.Div64(hi, lo, 1e6)
	return Credits(q)
}

// Price is micro-credits per mega-gas (1e6 gas).
type Price uint64

// ReferencePrice is the price at which one credit buys one giga-gas.
const ReferencePrice Price = 1000

// Cost is g·p rounded up to a whole micro-credit, saturating at the largest Credits.
func (p Price) Cost(g Gas) Credits {
	hi, lo := bits.Mul64(uint64(p), uint64(g))
	lo, carry := bits.Add64(lo, 999_999, 0)
	hi += carry
	if hi >= 1e6 {
		return ^Credits(0)
	}
	q, _ := bits.Div64(hi, lo, 1e6)
	return Credits(q)
}
