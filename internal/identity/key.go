// Package identity holds what a node is: its key and node ID, signatures, encryption to a
// key, the keystore file, the verifiable random function, puzzles and stamps.
// It opens no file or socket, reads no clock, and draws no randomness but from readers handed in.
package identity

import (
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/ethereum/go-ethereum/crypto"
	"golang.org/x/crypto/scrypt"

	"github.com/crowdcompute/crowd"
)

// Key is a secp256k1 private key. Its methods may be called concurrently.
type Key struct {
	// set once
	priv *ecdsa.PrivateKey
	id   crowd.NodeID
}

// Generate draws a key from r. It fails when r does, or when r is plainly no random source.
func Generate(r io.Reader) (*Key, error) {
	var b [32]byte
	// One draw in 2^128 is no valid scalar. A second one is a broken reader.
	for range 2 {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, fmt.Errorf("draw a key: %w", err)
		}
		if k, err := FromBytes(b[:]); err == nil {
			return k, nil
		}
	}
	return nil, errors.New("draw a key: the random source gave two invalid keys in a row")
}

// FromBytes is the key whose big-endian scalar is b: 32 bytes, from 1 to n-1.
func FromBytes(b []byte) (*Key, error) {
	priv, err := crypto.ToECDSA(b)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	k := &Key{priv: priv}
	copy(k.id[:], crypto.FromECDSAPub(&priv.PublicKey)[1:])
	return k, nil
}

// Bytes is the secret scalar, 32 bytes big-endian. FromBytes reads it back.
func (k *Key) Bytes() []byte { return crypto.FromECDSA(k.priv) }

// ID is the node ID, that is the public key of k.
func (k *Key) ID() crowd.NodeID { return k.id }

// String is the node ID in hex, so that no log or %v prints the secret.
func (k *Key) String() string { return k.id.String() }

// GoString keeps the secret out of %#v too.
func (k *Key) GoString() string { return "identity.Key(" + k.id.String() + ")" }

// Derive is a 32-byte secret for one purpose (HKDF-SHA256, RFC 5869). Secrets of different
// purposes tell nothing about each other or about k.
func (k *Key) Derive(purpose string) []byte {
	out, err := hkdf.Key(sha256.New, k.Bytes(), []byte("crowd/derive/v1"), purpose, 32)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return out
}

// MinPassphrase is the shortest passphrase that FromPassphrase takes, in bytes.
const MinPassphrase = 12

// scrypt's cost for FromPassphrase: 2^18 and r=8 fill 256 MiB for about a second, as in
// go-ethereum's StandardScryptN. Changing any of them changes every derived key.
const (
	passphraseN = 1 << 18
	passphraseR = 8
	passphraseP = 1
)

// FromPassphrase is the key that a passphrase and a salt (say an e-mail address) always give
// again: nothing to store, nothing to lose but the memory of it. It takes about a second and 256 MiB.
//
// It does not protect a guessable passphrase. The node ID is public, so anybody may try
// passphrases against it for ever, on his own machines, with no lock-out: scrypt prices a guess at
// about a second and 256 MiB, no more. The salt only forces the attacker to attack each
// person apart; it is no secret. A passphrase cannot be changed without changing the identity,
// and whoever once saw it holds the key. Bytes count as they are: no Unicode normalisation,
// no trimming. Use six or more random words, or better a keystore file.
//
// It fails on a passphrase shorter than MinPassphrase and on an empty salt.
func FromPassphrase(pass, salt string) (*Key, error) {
	if len(pass) < MinPassphrase {
		return nil, fmt.Errorf("derive key: passphrase of %d bytes, want at least %d", len(pass), MinPassphrase)
	}
	if salt == "" {
		return nil, errors.New("derive key: empty salt")
	}
	// 48 bytes for a 32-byte group order: the bias of the reduction is below 2^-128.
	b, err := scrypt.Key([]byte(pass), []byte("crowd/passphrase/v1\x00"+salt), passphraseN, passphraseR, passphraseP, 48)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	one := big.NewInt(1)
	d := new(big.Int).SetBytes(b)
	d.Mod(d, new(big.Int).Sub(crypto.S256().Params().N, one)) // 0..n-2
	return FromBytes(d.Add(d, one).FillBytes(make([]byte, 32)))
}
