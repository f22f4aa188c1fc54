package identity

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/ethereum/go-ethereum/crypto"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/crowdcompute/crowd"
)

// Sealing is single-shot HPKE, RFC 9180 base mode, with DHKEM(secp256k1, HKDF-SHA256),
// HKDF-SHA256 and ChaCha20-Poly1305, by their numbers in IANA's HPKE registry.
// The standard library's crypto/hpke has no secp256k1; the test proves our schedule equal to its.
const (
	kemSecp256k1 = 0x0016
	kemPointSize = 65 // Nenc and Npk: the uncompressed point
	kdfSHA256    = 0x0001
	aeadChaCha20 = 0x0003
	sealInfo     = "crowd/seal/v1"
)

// SealOverhead is by how many bytes a sealed text is longer than the plain one.
const SealOverhead = kemPointSize + chacha20poly1305.Overhead

// Seal encrypts plain to the holder of to, and binds aad, which is not sent along. It does not say
// who sealed: put a signature inside where that matters. Randomness of the one-time key comes from r.
// It fails when to is no valid node ID or r fails.
func Seal(r io.Reader, to crowd.NodeID, plain, aad []byte) ([]byte, error) {
	if err := Valid(to); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	once, err := Generate(r)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	enc, pub := uncompressed(once.id), uncompressed(to)
	aead, nonce := schedule(kemSecp256k1, once.ecdh(to), enc[:], pub[:], sealInfo)
	out := make([]byte, kemPointSize, len(plain)+SealOverhead)
	copy(out, enc[:])
	return aead.Seal(out, nonce, plain, aad), nil
}

var errOpen = errors.New("open: sealed for another key or context, or damaged")

// Open decrypts what Seal made for k with the same aad. Any changed byte is an error.
func (k *Key) Open(sealed, aad []byte) ([]byte, error) {
	if len(sealed) < SealOverhead {
		return nil, fmt.Errorf("open: %d bytes, want at least %d", len(sealed), SealOverhead)
	}
	enc, text := sealed[:kemPointSize], sealed[kemPointSize:]
	if enc[0] != 4 {
		return nil, fmt.Errorf("open: point format %#x, want 0x4", enc[0])
	}
	from := crowd.NodeID(enc[1:])
	if err := Valid(from); err != nil { // or a chosen point off the curve would tell about our key
		return nil, fmt.Errorf("open: one-time key: %w", err)
	}
	pub := uncompressed(k.id)
	aead, nonce := schedule(kemSecp256k1, k.ecdh(from), enc, pub[:], sealInfo)
	plain, err := aead.Open(nil, nonce, text, aad)
	if err != nil {
		return nil, errOpen
	}
	return plain, nil
}

// ecdh is the x coordinate of k·id, 32 bytes. id must be Valid. With cgo the multiplication takes
// constant time; without it it does not.
func (k *Key) ecdh(id crowd.NodeID) []byte {
	x, _ := crypto.S256().ScalarMult(new(big.Int).SetBytes(id[:32]), new(big.Int).SetBytes(id[32:]), k.Bytes())
	return x.FillBytes(make([]byte, 32))
}

// schedule is Encap or Decap after the Diffie-Hellman step, and the key schedule, for the one message
// of sequence number 0 (RFC 9180 sections 4.1, 5.1).
func schedule(kem uint16, dh, enc, pub []byte, info string) (cipher.AEAD, []byte) {
	suite := binary.BigEndian.AppendUint16([]byte("KEM"), kem)
	prk := labeledExtract(suite, nil, "eae_prk", dh)
	secret := labeledExpand(suite, prk, "shared_secret", append(append([]byte{}, enc...), pub...), 32)

	suite = binary.BigEndian.AppendUint16([]byte("HPKE"), kem)
	suite = binary.BigEndian.AppendUint16(suite, kdfSHA256)
	suite = binary.BigEndian.AppendUint16(suite, aeadChaCha20)
	context := []byte{0} // mode_base
	context = append(context, labeledExtract(suite, nil, "psk_id_hash", nil)...)
	context = append(context, labeledExtract(suite, nil, "info_hash", []byte(info))...)
	prk = labeledExtract(suite, secret, "secret", nil)
	aead, err := chacha20poly1305.New(labeledExpand(suite, prk, "key", context, chacha20poly1305.KeySize))
	if err != nil {
		panic("bug: " + err.Error())
	}
	return aead, labeledExpand(suite, prk, "base_nonce", context, chacha20poly1305.NonceSize)
}

// labeledExtract and labeledExpand are RFC 9180 section 4.

func labeledExtract(suite, salt []byte, label string, ikm []byte) []byte {
	in := append([]byte("HPKE-v1"), suite...)
	in = append(in, label...)
	prk, err := hkdf.Extract(sha256.New, append(in, ikm...), salt)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return prk
}

func labeledExpand(suite, prk []byte, label string, info []byte, size int) []byte {
	in := binary.BigEndian.AppendUint16(nil, uint16(size))
	in = append(in, "HPKE-v1"...)
	in = append(in, suite...)
	in = append(in, label...)
	out, err := hkdf.Expand(sha256.New, prk, string(append(in, info...)), size)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return out
}
