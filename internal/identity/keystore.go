package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/scrypt"

	"github.com/crowdcompute/crowd"
)

// Keystore files are Web3 Secret Storage, version 3. go-ethereum's own reader is not used here: it
// panics on missing fields and spends whatever memory the file asks for. Tests hold the two equal.

// ErrPassphrase says that the passphrase is wrong, or that the encrypted part of the file is damaged:
// the format cannot tell these apart.
var ErrPassphrase = errors.New("wrong passphrase or damaged file")

// Usual scrypt costs (r = 8), as in go-ethereum: 256 MiB and about a second, or 4 MiB and a tenth of it.
const (
	StandardScryptN = 1 << 18
	StandardScryptP = 1
	LightScryptN    = 1 << 12
	LightScryptP    = 6
)

const (
	keystoreVersion = 3
	keystoreCipher  = "aes-128-ctr"
	keystoreR       = 8
	keystoreDKLen   = 32
	maxScryptRP     = 64       // r and p in real files are 1 to 8
	maxKeystore     = 16 << 10 // bytes of JSON; real files have about 500
)

// kdfBound is the most that a file may make its reader spend.
type kdfBound struct {
	memory uint64 // N·r blocks of 128 bytes for scrypt
	work   uint64 // N·r·p for scrypt, iterations for PBKDF2
}

// The costliest file in common use has N·r = 2^21 (256 MiB). Twice its work and some p are let through.
var keystoreBound = kdfBound{memory: 1 << 21, work: 1 << 22}

type keystoreJSON struct {
	Address string     `json:"address,omitempty"`
	Crypto  cryptoJSON `json:"crypto"`
	ID      string     `json:"id"`
	Version int        `json:"version"`
}

type cryptoJSON struct {
	Cipher       string `json:"cipher"`
	CipherText   string `json:"ciphertext"`
	CipherParams struct {
		IV string `json:"iv"`
	} `json:"cipherparams"`
	KDF       string  `json:"kdf"`
	KDFParams kdfJSON `json:"kdfparams"`
	MAC       string  `json:"mac"`
}

type kdfJSON struct {
	DKLen uint64 `json:"dklen"`
	Salt  string `json:"salt"`
	N     uint64 `json:"n,omitempty"` // scrypt
	R     uint64 `json:"r,omitempty"`
	P     uint64 `json:"p,omitempty"`
	C     uint64 `json:"c,omitempty"` // pbkdf2
	PRF   string `json:"prf,omitempty"`
}

// EncryptKeystore is a keystore file with k under the passphrase; salt, IV and file ID come from r.
// scryptN is a power of two above 1; see StandardScryptN. It fails on a cost that
// DecryptKeystore would refuse and when r fails.
func EncryptKeystore(r io.Reader, k *Key, passphrase string, scryptN, scryptP int) ([]byte, error) {
	b := make([]byte, 32+16+16)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("encrypt keystore: %w", err)
	}
	salt, iv, id := b[:32], b[32:48], b[48:]
	id[6] = id[6]&0x0f | 0x40 // UUID version 4, RFC 9562 section 5.4
	id[8] = id[8]&0x3f | 0x80

	f := keystoreJSON{
		Address: strings.TrimPrefix(strings.ToLower(k.id.Address().String()), "0x"),
		ID:      fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]),
		Version: keystoreVersion,
	}
	c := &f.Crypto
	c.KDF = "scrypt"
	c.KDFParams = kdfJSON{DKLen: keystoreDKLen, Salt: hex.EncodeToString(salt), N: uint64(max(scryptN, 0)), R: keystoreR, P: uint64(max(scryptP, 0))}
	derived, err := c.derive(passphrase, keystoreBound)
	if err != nil {
		return nil, fmt.Errorf("encrypt keystore: %w", err)
	}
	text := aesCTR(derived[:16], iv, k.Bytes())
	mac := crowd.Keccak256(derived[16:], text)
	c.Cipher = keystoreCipher
	c.CipherText = hex.EncodeToString(text)
	c.CipherParams.IV = hex.EncodeToString(iv)
	c.MAC = mac.String()
	out, err := json.Marshal(f)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return out, nil
}

// DecryptKeystore reads a keystore file. ErrPassphrase is what it fails with when all is well but the
// passphrase. A file that asks for more than 256 MiB, or for more than twice the work of a standard
// file, is refused before anything is spent on it.
//
// The format's MAC leaves out the IV. A changed one shows by the address in the file; in a file without
// an address (ours and go-ethereum's have one) it goes unseen and gives another key: compare the ID.
func DecryptKeystore(file []byte, passphrase string) (*Key, error) {
	k, err := decryptKeystore(file, passphrase, keystoreBound)
	if err != nil {
		return nil, fmt.Errorf("decrypt keystore: %w", err)
	}
	return k, nil
}

func decryptKeystore(file []byte, passphrase string, bound kdfBound) (*Key, error) {
	if len(file) > maxKeystore {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(file), maxKeystore)
	}
	var f keystoreJSON
	if err := json.Unmarshal(file, &f); err != nil {
		return nil, err
	}
	c := &f.Crypto
	if f.Version != keystoreVersion {
		return nil, fmt.Errorf("version %d, want %d", f.Version, keystoreVersion)
	}
	if c.Cipher != keystoreCipher {
		return nil, fmt.Errorf("cipher %q, want %q", c.Cipher, keystoreCipher)
	}
	var text, mac [32]byte
	var iv [aes.BlockSize]byte
	if err := errors.Join(
		unhex(text[:], "ciphertext", []byte(c.CipherText)),
		unhex(mac[:], "mac", []byte(c.MAC)),
		unhex(iv[:], "iv", []byte(c.CipherParams.IV)),
	); err != nil {
		return nil, err
	}
	derived, err := c.derive(passphrase, bound)
	if err != nil {
		return nil, err
	}
	if sum := crowd.Keccak256(derived[16:], text[:]); subtle.ConstantTimeCompare(sum[:], mac[:]) != 1 {
		return nil, ErrPassphrase
	}
	k, err := FromBytes(aesCTR(derived[:16], iv[:], text[:]))
	if err != nil {
		return nil, err
	}
	// The MAC covers neither the address nor the IV, so somebody may have changed one.
	if f.Address != "" {
		if a, err := crowd.ParseAddress(f.Address); err != nil || a != k.id.Address() {
			return nil, fmt.Errorf("address %q is not that of the key inside, %s", f.Address, k.id.Address())
		}
	}
	return k, nil
}

// derive is the 32-byte key of the passphrase, within bound.
func (c *cryptoJSON) derive(passphrase string, bound kdfBound) ([]byte, error) {
	p := c.KDFParams
	salt, err := hex.DecodeString(p.Salt)
	if err != nil {
		return nil, fmt.Errorf("salt: %w", err)
	}
	if p.DKLen != keystoreDKLen {
		return nil, fmt.Errorf("derived key of %d bytes, want %d", p.DKLen, keystoreDKLen)
	}
	switch {
	case c.KDF == "scrypt":
		if p.N < 2 || p.N&(p.N-1) != 0 || p.R < 1 || p.P < 1 {
			return nil, fmt.Errorf("scrypt n=%d r=%d p=%d: n must be a power of two above 1, r and p at least 1", p.N, p.R, p.P)
		}
		// Each factor is bounded before they are multiplied, so that nothing overflows.
		if p.N > bound.memory || max(p.R, p.P) > maxScryptRP || p.N*p.R > bound.memory || p.N*p.R*p.P > bound.work {
			return nil, fmt.Errorf("scrypt n=%d r=%d p=%d: costs more than we spend on a keystore", p.N, p.R, p.P)
		}
		return scrypt.Key([]byte(passphrase), salt, int(p.N), int(p.R), int(p.P), keystoreDKLen)
	case c.KDF == "pbkdf2" && p.PRF == "hmac-sha256":
		if p.C < 1 || p.C > bound.work {
			return nil, fmt.Errorf("pbkdf2 c=%d: want 1 to %d", p.C, bound.work)
		}
		return pbkdf2.Key(sha256.New, passphrase, salt, int(p.C), keystoreDKLen)
	}
	return nil, fmt.Errorf("key derivation %q %q: want scrypt, or pbkdf2 with hmac-sha256", c.KDF, p.PRF)
}

func aesCTR(key, iv, in []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("bug: " + err.Error())
	}
	out := make([]byte, len(in))
	cipher.NewCTR(block, iv).XORKeyStream(out, in)
	return out
}
