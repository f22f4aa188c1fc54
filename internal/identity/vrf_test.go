package identity

import (
	"bytes"
	"testing"

	"filippo.io/edwards25519"
)

// RFC 9381 appendix B.3, examples 16 to 18.
var rfc9381 = []struct{ name, sk, pk, alpha, pi, beta string }{
	{"example 16",
		"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
		"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
		"",
		"8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f26f8a57ccaed74ee1b190bed1f479d9727d2d0f9b005a6e456a35d4fb0daab1268a1b0db10836d9826a528ca76567805",
		"90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae"},
	{"example 17",
		"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
		"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
		"72",
		"f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed5933bf0864a62558b3ed7f2fea45c92a465301b3bbf5e3e54ddf2d935be3b67926da3ef39226bbc355bdc9850112c8f4b02",
		"eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031"},
	{"example 18",
		"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
		"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
		"af82",
		"9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf8096bb474e53895c362d8628ee9f9ea3c0e52c7a5c691b6c18c9979866568add7a2d41b00b05081ed0f58ee5e31b3a970e",
		"645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c452118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f"},
}

func TestVRF_RFC9381AppendixB3(t *testing.T) {
	for _, c := range rfc9381 {
		t.Run(c.name, func(t *testing.T) {
			v := NewVRFKey([32]byte(unhexT(t, c.sk)))
			if got := v.Public().String(); got != c.pk {
				t.Errorf("PK: got %s, want %s", got, c.pk)
			}
			alpha := unhexT(t, c.alpha)
			proof, out := v.Prove(alpha)
			if got := proof.String(); got != c.pi {
				t.Errorf("pi: got %s, want %s", got, c.pi)
			}
			if got := out.String(); got != c.beta {
				t.Errorf("beta: got %s, want %s", got, c.beta)
			}
			got, err := VerifyVRF(VRFPublic(unhexT(t, c.pk)), alpha, VRFProof(unhexT(t, c.pi)))
			if err != nil || got.String() != c.beta {
				t.Errorf("verify: got %s, error %v, want %s", got, err, c.beta)
			}
		})
	}
}

func TestVRF_EveryBitCounts(t *testing.T) {
	v := newKey(t, 1).VRF()
	alpha := []byte("alpha")
	proof, out := v.Prove(alpha)
	if got, err := VerifyVRF(v.Public(), alpha, proof); err != nil || got != out {
		t.Fatalf("got %s, error %v, want %s", got, err, out)
	}
	for bit := range 8 * len(proof) {
		bad := proof
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := VerifyVRF(v.Public(), alpha, bad); err == nil {
			t.Errorf("proof bit %d flipped: got no error", bit)
		}
	}
	for bit := range 8 * len(v.Public()) {
		bad := v.Public()
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := VerifyVRF(bad, alpha, proof); err == nil {
			t.Errorf("key bit %d flipped: got no error", bit)
		}
	}
	for bit := range 8 * len(alpha) {
		bad := bytes.Clone(alpha)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := VerifyVRF(v.Public(), bad, proof); err == nil {
			t.Errorf("alpha bit %d flipped: got no error", bit)
		}
	}
}

// lowOrder are the eight points of order 1, 2, 4 and 8, canonically encoded.
var lowOrder = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
}

// forge makes a proof for a key of small order: with x = 0, a chosen k and as many tries as it takes for
// c·Y to vanish, the equations hold; only the key check stands in the way.
func forge(t *testing.T, pub VRFPublic, alpha []byte) (VRFProof, bool) {
	t.Helper()
	h := vrfPoint(pub, alpha)
	y, err := vrfDecode(pub[:])
	if err != nil {
		t.Fatal(err)
	}
	gamma := edwards25519.NewIdentityPoint()
	for i := range byte(100) {
		k := uniformScalar(bytes.Repeat([]byte{i}, 64))
		c := vrfHash16(pub, h, gamma, new(edwards25519.Point).ScalarBaseMult(k), new(edwards25519.Point).ScalarMult(k, h))
		if new(edwards25519.Point).ScalarMult(scalar16(c), y).Equal(edwards25519.NewIdentityPoint()) == 1 {
			var p VRFProof
			copy(p[:32], gamma.Bytes())
			copy(p[32:48], c)
			copy(p[48:], k.Bytes())
			return p, true
		}
	}
	return VRFProof{}, false
}

func TestVerifyVRF_RefusesSmallOrderKeys(t *testing.T) {
	for _, s := range lowOrder {
		t.Run(s, func(t *testing.T) {
			pub := VRFPublic(unhexT(t, s))
			proof, ok := forge(t, pub, []byte("alpha"))
			if !ok {
				t.Fatal("no forgery found in 100 tries, want one to refuse")
			}
			_, err := VerifyVRF(pub, []byte("alpha"), proof)
			if err == nil || err.Error() != "vrf key: small order" {
				t.Errorf("got error %v, want small order", err)
			}
		})
	}
}

func TestVerifyVRF_RefusesOtherEncodings(t *testing.T) {
	v := newKey(t, 1).VRF()
	alpha := []byte("alpha")
	good, _ := v.Prove(alpha)

	// s + l proves the same if s is reduced instead of refused.
	large := good
	carry := 0
	for i, b := range unhexT(t, "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010") {
		sum := int(large[48+i]) + int(b) + carry
		large[48+i], carry = byte(sum), sum>>8
	}
	negZero := good // x = 0 with the sign bit set
	copy(negZero[:32], unhexT(t, "0100000000000000000000000000000000000000000000000000000000000080"))
	aboveP := good // y = p + 1, that is the identity's y = 1
	copy(aboveP[:32], unhexT(t, "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"))
	offCurve := good
	copy(offCurve[:32], unhexT(t, "0200000000000000000000000000000000000000000000000000000000000000"))

	for _, c := range []struct {
		name, want string
		pub        VRFPublic
		proof      VRFProof
	}{
		{"s above l", "vrf proof: s is out of range", v.Public(), large},
		{"gamma minus zero", "vrf proof: gamma: no canonical point of the curve", v.Public(), negZero},
		{"gamma y above p", "vrf proof: gamma: no canonical point of the curve", v.Public(), aboveP},
		{"gamma off the curve", "vrf proof: gamma: no canonical point of the curve", v.Public(), offCurve},
		{"key y above p", "vrf key: no canonical point of the curve", VRFPublic(aboveP[:32]), good},
		{"key off the curve", "vrf key: no canonical point of the curve", VRFPublic(offCurve[:32]), good},
		{"another key", "vrf proof: does not hold", newKey(t, 2).VRF().Public(), good},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := VerifyVRF(c.pub, alpha, c.proof)
			if err == nil || err.Error() != c.want {
				t.Errorf("got error %v, want %s", err, c.want)
			}
		})
	}
}

func TestKey_VRFIsItsOwn(t *testing.T) {
	k := newKey(t, 1)
	again, err := FromBytes(k.Bytes())
	if err != nil || k.VRF().Public() != again.VRF().Public() {
		t.Errorf("same key, error %v: got two VRF keys", err)
	}
	if k.VRF().Public() == newKey(t, 2).VRF().Public() {
		t.Error("two keys: got one VRF key")
	}
}

func FuzzVerifyVRF(f *testing.F) {
	for _, c := range rfc9381 {
		f.Add(unhexT(f, c.pk), unhexT(f, c.alpha), unhexT(f, c.pi))
	}
	f.Add(make([]byte, 32), []byte{}, make([]byte, 80))
	f.Fuzz(func(t *testing.T, pk, alpha, pi []byte) {
		var pub VRFPublic
		var proof VRFProof
		copy(pub[:], pk)
		copy(proof[:], pi)
		if _, err := VerifyVRF(pub, alpha, proof); err != nil {
			return
		}
		for _, c := range rfc9381 { // nobody finds another proof for these keys
			if pub.String() == c.pk && bytes.Equal(alpha, unhexT(t, c.alpha)) && proof.String() != c.pi {
				t.Errorf("%s: got a second proof %s", c.name, proof)
			}
		}
	})
}

func BenchmarkVRFProve(b *testing.B) {
	v := newKey(b, 1).VRF()
	b.ReportAllocs()
	for b.Loop() {
		v.Prove([]byte("alpha"))
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "proofs/s")
}

func BenchmarkVRFVerify(b *testing.B) {
	v := newKey(b, 1).VRF()
	proof, _ := v.Prove([]byte("alpha"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := VerifyVRF(v.Public(), []byte("alpha"), proof); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "proofs/s")
}
