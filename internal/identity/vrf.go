package identity

import (
	"bytes"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"

	"filippo.io/edwards25519"
)

// The verifiable random function is ECVRF-EDWARDS25519-SHA512-TAI of RFC 9381, suite 0x03.

// VRFPublic is an Ed25519 public key in the encoding of RFC 8032.
type VRFPublic [32]byte

// VRFProof is Gamma‖c‖s: 32, 16 and 32 bytes.
type VRFProof [80]byte

// VRFOutput is beta: to all who do not hold the key, uniformly random until the proof is shown.
type VRFOutput [64]byte

const (
	vrfSuite     = 0x03 // RFC 9381 section 5.5
	vrfEncode    = 0x01 // domain separators, RFC 9381 section 5.4
	vrfChallenge = 0x02
	vrfOutput    = 0x03
	vrfBack      = 0x00
)

// VRFKey is a secret key of the function. Its methods may be called concurrently.
type VRFKey struct {
	// set once
	x     *edwards25519.Scalar
	nonce [32]byte // the second half of SHA-512(seed), which seeds the nonces
	pub   VRFPublic
}

// VRF is the VRF key that belongs to k.
func (k *Key) VRF() *VRFKey { return NewVRFKey([32]byte(k.Derive("vrf/edwards25519"))) }

// NewVRFKey is the key with the 32-byte secret SK of RFC 9381, which is also an Ed25519 seed.
func NewVRFKey(seed [32]byte) *VRFKey {
	h := sha512.Sum512(seed[:])
	x, err := edwards25519.NewScalar().SetBytesWithClamping(h[:32])
	if err != nil {
		panic("bug: " + err.Error())
	}
	return &VRFKey{
		x:     x,
		nonce: [32]byte(h[32:]),
		pub:   VRFPublic(new(edwards25519.Point).ScalarBaseMult(x).Bytes()),
	}
}

// Public is the key by which others verify.
func (v *VRFKey) Public() VRFPublic { return v.pub }

// Prove is the output for alpha and the proof of it (RFC 9381 section 5.1). The same alpha always
// gives the same output and the same proof. The time it takes tells about alpha, not about the key.
func (v *VRFKey) Prove(alpha []byte) (VRFProof, VRFOutput) {
	h := vrfPoint(v.pub, alpha)
	gamma := new(edwards25519.Point).ScalarMult(v.x, h)

	d := sha512.New() // nonce generation: section 5.4.2.2
	d.Write(v.nonce[:])
	d.Write(h.Bytes())
	k := uniformScalar(d.Sum(nil))

	c := vrfHash16(v.pub, h, gamma, new(edwards25519.Point).ScalarBaseMult(k), new(edwards25519.Point).ScalarMult(k, h))
	s := edwards25519.NewScalar().MultiplyAdd(scalar16(c), v.x, k)

	var proof VRFProof
	copy(proof[:32], gamma.Bytes())
	copy(proof[32:48], c)
	copy(proof[48:], s.Bytes())
	return proof, vrfFinish(gamma)
}

// VerifyVRF is the output for alpha that proof proves for pub (RFC 9381 section 5.3, with the key
// checked: a key of small order, whose output its holder could choose, is refused).
// For one pub and alpha there is one output, whatever the holder of the key does.
func VerifyVRF(pub VRFPublic, alpha []byte, proof VRFProof) (VRFOutput, error) {
	y, err := vrfDecode(pub[:])
	if err != nil {
		return VRFOutput{}, fmt.Errorf("vrf key: %w", err)
	}
	identity := edwards25519.NewIdentityPoint()
	if new(edwards25519.Point).MultByCofactor(y).Equal(identity) == 1 { // section 5.4.5
		return VRFOutput{}, errors.New("vrf key: small order")
	}
	gamma, err := vrfDecode(proof[:32])
	if err != nil {
		return VRFOutput{}, fmt.Errorf("vrf proof: gamma: %w", err)
	}
	s, err := edwards25519.NewScalar().SetCanonicalBytes(proof[48:])
	if err != nil {
		return VRFOutput{}, errors.New("vrf proof: s is out of range")
	}
	h := vrfPoint(pub, alpha)
	minusC := edwards25519.NewScalar().Negate(scalar16(proof[32:48]))
	u := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(minusC, y, s)
	w := new(edwards25519.Point).VarTimeMultiScalarMult([]*edwards25519.Scalar{s, minusC}, []*edwards25519.Point{h, gamma})
	if subtle.ConstantTimeCompare(vrfHash16(pub, h, gamma, u, w), proof[32:48]) != 1 {
		return VRFOutput{}, errors.New("vrf proof: does not hold")
	}
	return vrfFinish(gamma), nil
}

// vrfPoint is ECVRF_encode_to_curve_try_and_increment with the public key as salt (section 5.4.1.1).
// Half of the tries succeed, so 256 failures do not happen.
func vrfPoint(pub VRFPublic, alpha []byte) *edwards25519.Point {
	identity := edwards25519.NewIdentityPoint()
	d := sha512.New()
	var sum [sha512.Size]byte
	for ctr := range 256 {
		d.Reset()
		d.Write([]byte{vrfSuite, vrfEncode})
		d.Write(pub[:])
		d.Write(alpha)
		d.Write([]byte{byte(ctr), vrfBack})
		p, err := vrfDecode(d.Sum(sum[:0])[:32])
		if err != nil {
			continue
		}
		if p.MultByCofactor(p).Equal(identity) == 0 {
			return p
		}
	}
	panic("bug: no point in 256 tries")
}

// vrfHash16 is the challenge (section 5.4.3).
func vrfHash16(pub VRFPublic, points ...*edwards25519.Point) []byte {
	d := sha512.New()
	d.Write([]byte{vrfSuite, vrfChallenge})
	d.Write(pub[:])
	for _, p := range points {
		d.Write(p.Bytes())
	}
	d.Write([]byte{vrfBack})
	return d.Sum(nil)[:16]
}

// vrfFinish is ECVRF_proof_to_hash (section 5.2).
func vrfFinish(gamma *edwards25519.Point) VRFOutput {
	in := append([]byte{vrfSuite, vrfOutput}, new(edwards25519.Point).MultByCofactor(gamma).Bytes()...)
	return sha512.Sum512(append(in, vrfBack))
}

// vrfDecode is string_to_point: RFC 8032 section 5.1.3, which has one encoding for each point;
// the library takes others too.
func vrfDecode(b []byte) (*edwards25519.Point, error) {
	p, err := new(edwards25519.Point).SetBytes(b)
	if err != nil || !bytes.Equal(p.Bytes(), b) {
		return nil, errors.New("no canonical point of the curve")
	}
	return p, nil
}

func uniformScalar(b []byte) *edwards25519.Scalar {
	s, err := edwards25519.NewScalar().SetUniformBytes(b)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return s
}

func scalar16(c []byte) *edwards25519.Scalar {
	var b [32]byte
	copy(b[:16], c)
	s, err := edwards25519.NewScalar().SetCanonicalBytes(b[:])
	if err != nil {
		panic("bug: " + err.Error())
	}
	return s
}

func (p VRFPublic) String() string { return hex.EncodeToString(p[:]) }
func (p VRFProof) String() string  { return hex.EncodeToString(p[:]) }
func (o VRFOutput) String() string { return hex.EncodeToString(o[:]) }

// The text forms are hex and say nothing about validity.

func (p VRFPublic) MarshalText() ([]byte, error)  { return []byte(p.String()), nil }
func (p VRFProof) MarshalText() ([]byte, error)   { return []byte(p.String()), nil }
func (o VRFOutput) MarshalText() ([]byte, error)  { return []byte(o.String()), nil }
func (p *VRFPublic) UnmarshalText(b []byte) error { return unhex(p[:], "vrf key", b) }
func (p *VRFProof) UnmarshalText(b []byte) error  { return unhex(p[:], "vrf proof", b) }
func (o *VRFOutput) UnmarshalText(b []byte) error { return unhex(o[:], "vrf output", b) }
