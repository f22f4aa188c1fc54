package identity

import (
	"encoding/hex"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/crowdcompute/crowd"
)

// Valid reports whether id is a point of the curve with both coordinates below the field prime.
func Valid(id crowd.NodeID) error {
	full := uncompressed(id)
	if _, err := secp256k1.ParsePubKey(full[:]); err != nil {
		return fmt.Errorf("node ID: %w", err)
	}
	return nil
}

// Compress is the 33-byte SEC 1 form of id, which must be Valid.
func Compress(id crowd.NodeID) [33]byte {
	var out [33]byte
	out[0] = secp256k1.PubKeyFormatCompressedEven | id[63]&1
	copy(out[1:], id[:32])
	return out
}

// Decompress reads the 33-byte SEC 1 form. The result is Valid.
func Decompress(b []byte) (crowd.NodeID, error) {
	if len(b) != secp256k1.PubKeyBytesLenCompressed {
		return crowd.NodeID{}, fmt.Errorf("compressed node ID: %d bytes, want %d", len(b), secp256k1.PubKeyBytesLenCompressed)
	}
	pub, err := secp256k1.ParsePubKey(b)
	if err != nil {
		return crowd.NodeID{}, fmt.Errorf("compressed node ID: %w", err)
	}
	return crowd.NodeID(pub.SerializeUncompressed()[1:]), nil
}

// uncompressed is the 65-byte SEC 1 form.
func uncompressed(id crowd.NodeID) (out [65]byte) {
	out[0] = secp256k1.PubKeyFormatUncompressed
	copy(out[1:], id[:])
	return out
}

// unhex reads exactly len(dst) bytes of hex; dst is unspecified after an error.
func unhex(dst []byte, what string, text []byte) error {
	if len(text) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("%s: %d characters, want %d hex digits", what, len(text), hex.EncodedLen(len(dst)))
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
