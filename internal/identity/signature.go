package identity

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/crowdcompute/crowd"
)

// Signature is a recoverable ECDSA signature R‖S‖V: two 32-byte big-endian scalars and V = 0 or 1.
// Only the form with S in the lower half of the group order is one (EIP-2, BIP 62), so that a
// stranger cannot turn a signature into another of the same message.
type Signature [65]byte

var (
	order     = crypto.S256().Params().N.Bytes()
	halfOrder = new(big.Int).Rsh(crypto.S256().Params().N, 1).FillBytes(make([]byte, 32))
)

// Sign signs a hash with the deterministic nonce of RFC 6979.
// The hash must be a digest that the signer has computed, never 32 bytes that a stranger chose.
func (k *Key) Sign(h crowd.Hash) Signature {
	// RFC 6979 section 2.3.4 makes the nonce from the reduced hash. libsecp256k1 does that, its stand-in
	// without cgo does not: reduced here, both builds sign alike.
	var e secp256k1.ModNScalar
	e.SetBytes((*[32]byte)(&h))
	reduced := e.Bytes()
	sig, err := crypto.Sign(reduced[:], k.priv)
	if err != nil {
		panic("bug: sign with a checked key: " + err.Error())
	}
	return Signature(sig)
}

// Recover is the node ID that made sig over h. Any 32-byte hash and most random signatures recover to
// some ID: compare it, or use Verify.
func Recover(h crowd.Hash, sig Signature) (crowd.NodeID, error) {
	if err := sig.canonical(); err != nil {
		return crowd.NodeID{}, fmt.Errorf("signature: %w", err)
	}
	pub, err := crypto.Ecrecover(h[:], sig[:])
	if err != nil {
		return crowd.NodeID{}, fmt.Errorf("signature: %w", err)
	}
	return crowd.NodeID(pub[1:]), nil
}

// Verify reports whether id made sig over h. All 65 bytes count.
func Verify(id crowd.NodeID, h crowd.Hash, sig Signature) bool {
	got, err := Recover(h, sig)
	return err == nil && got == id
}

// canonical refuses every form but the one that Sign makes.
func (s Signature) canonical() error {
	var zero [32]byte
	r, t := s[:32], s[32:64]
	switch {
	case s[64] > 1:
		return fmt.Errorf("recovery byte is %d, want 0 or 1", s[64])
	case bytes.Equal(r, zero[:]) || bytes.Compare(r, order) >= 0:
		return errors.New("r is out of range")
	case bytes.Equal(t, zero[:]) || bytes.Compare(t, halfOrder) > 0:
		return errors.New("s is not in the lower half of its range")
	}
	return nil
}

func (s Signature) String() string               { return hex.EncodeToString(s[:]) }
func (s Signature) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads 130 hex digits. It does not say whether they are a valid signature.
func (s *Signature) UnmarshalText(b []byte) error { return unhex(s[:], "signature", b) }
