package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/crowdcompute/crowd"
)

// The secp256k1 vectors for RFC 6979 that wallets share (low s, SHA-256 of the message).
func TestSign_RFC6979Vectors(t *testing.T) {
	one := strings.Repeat("00", 31) + "01"
	for _, c := range []struct{ name, key, msg, sig string }{
		{"satoshi", one, "Satoshi Nakamoto",
			"934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d82442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"},
		{"roy", one, "All those moments will be lost in time, like tears in rain. Time to die...",
			"8600dbd41e348fe5c9465ab92d23e3db8b98b873beecd930736488696438cb6b547fe64427496db33bf66019dacbf0039c04199abb0122918601db38a72cfc21"},
		{"largest key", "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140", "Satoshi Nakamoto",
			"fd567d121db66e382991534ada77a6bd3106f0a1098c231e47993447cd6af2d06b39cd0eb1bc8603e159ef5c20a5c8ad685a45b06ce9bebed3f153d10d93bed5"},
		{"turing", "f8b8af8ce3c7cca5e300d33939540c10d45ce001b8f252bfbc57ba0342904181", "Alan Turing",
			"7063ae83e7f62bbb171798131b4a0564b956930092b33b07b395615d9ec7e15c58dfcc1e00a35e1572f366ffe34ba0fc47db1e7189759b9fb233c5b05ab388ea"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := FromBytes(unhexT(t, c.key))
			if err != nil {
				t.Fatal(err)
			}
			h := crowd.Hash(sha256.Sum256([]byte(c.msg)))
			sig := k.Sign(h)
			if want := unhexT(t, c.sig); !bytes.Equal(sig[:64], want) {
				t.Errorf("got %x, want %x", sig[:64], want)
			}
			if !Verify(k.ID(), h, sig) {
				t.Error("got a signature that does not verify")
			}
		})
	}
}

// libsecp256k1 (cgo) and decred's (pure Go) must agree, or a node would sign differently by its build.
func TestSign_SameWithAndWithoutCgo(t *testing.T) {
	for seed := range byte(50) {
		k := newKey(t, seed)
		h := crowd.Keccak256([]byte{seed})
		got := k.Sign(h)
		c := ecdsa.SignCompact(secp256k1.PrivKeyFromBytes(k.Bytes()), h[:], false)
		want := Signature(append(c[1:], c[0]-27))
		if got != want {
			t.Fatalf("seed %d: got %s, want %s", seed, got, want)
		}
		if id, err := Recover(h, got); err != nil || id != k.ID() {
			t.Fatalf("seed %d: recovered %s, error %v, want %s", seed, id, err, k.ID())
		}
	}
}

func TestSign_HashAboveTheGroupOrder(t *testing.T) {
	k := newKey(t, 0)
	h := crowd.Hash(bytes.Repeat([]byte{0xff}, 32))
	got := k.Sign(h)
	// Made by libsecp256k1; a build without cgo must give it too.
	const want = "47926fda634c4ba7abd14b60b99d33ba232aa94893e66c0d595a6c38c4d9acb66dbd84a027148b16854e659bd19b17a5b4f38c60980eff5580953ea48205503f01"
	if got.String() != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !Verify(k.ID(), h, got) {
		t.Error("got a signature that does not verify")
	}
}

func TestVerify_EveryBitCounts(t *testing.T) {
	k := newKey(t, 1)
	h := crowd.Keccak256([]byte("message"))
	sig := k.Sign(h)
	for bit := range 8 * len(sig) {
		bad := sig
		bad[bit/8] ^= 1 << (bit % 8)
		if Verify(k.ID(), h, bad) {
			t.Errorf("signature bit %d flipped: got true", bit)
		}
	}
	for bit := range 8 * len(h) {
		bad := h
		bad[bit/8] ^= 1 << (bit % 8)
		if Verify(k.ID(), bad, sig) {
			t.Errorf("hash bit %d flipped: got true", bit)
		}
	}
	if Verify(newKey(t, 2).ID(), h, sig) || Verify(crowd.NodeID{}, h, sig) {
		t.Error("another ID: got true")
	}
}

func TestRecover_RefusesOtherForms(t *testing.T) {
	k := newKey(t, 1)
	h := crowd.Keccak256([]byte("message"))
	good := k.Sign(h)
	n := new(big.Int).SetBytes(order)
	with := func(edit func(s *Signature)) Signature {
		s := good
		edit(&s)
		return s
	}
	for _, c := range []struct {
		name string
		sig  Signature
		want string
	}{
		{"high s", with(func(s *Signature) {
			v := new(big.Int).Sub(n, new(big.Int).SetBytes(s[32:64]))
			v.FillBytes(s[32:64])
			s[64] ^= 1
		}), "lower half"},
		{"s half order + 1", with(func(s *Signature) {
			v := new(big.Int).Add(new(big.Int).SetBytes(halfOrder), big.NewInt(1))
			v.FillBytes(s[32:64])
		}), "lower half"},
		{"s zero", with(func(s *Signature) { clear(s[32:64]) }), "lower half"},
		{"s order", with(func(s *Signature) { copy(s[32:64], order) }), "lower half"},
		{"r zero", with(func(s *Signature) { clear(s[:32]) }), "r is out of range"},
		{"r order", with(func(s *Signature) { copy(s[:32], order) }), "r is out of range"},
		{"r all ones", with(func(s *Signature) { copy(s[:32], bytes.Repeat([]byte{0xff}, 32)) }), "r is out of range"},
		{"v 2", with(func(s *Signature) { s[64] = 2 }), "recovery byte"},
		{"v 3", with(func(s *Signature) { s[64] = 3 }), "recovery byte"},
		{"v 27", with(func(s *Signature) { s[64] += 27 }), "recovery byte"},
		{"v 255", with(func(s *Signature) { s[64] = 255 }), "recovery byte"},
		{"zero", Signature{}, "r is out of range"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Recover(h, c.sig); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
			if Verify(k.ID(), h, c.sig) {
				t.Error("Verify: got true")
			}
		})
	}
}

func TestText(t *testing.T) {
	k := newKey(t, 1)
	proof, out := k.VRF().Prove([]byte("alpha"))
	type all struct {
		S Signature
		P VRFPublic
		R VRFProof
		O VRFOutput
	}
	want := all{k.Sign(crowd.Hash{1}), k.VRF().Public(), proof, out}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got all
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("got %+v, error %v, want %+v", got, err, want)
	}
	for _, bad := range []string{`{"S":""}`, `{"S":"00"}`, `{"P":"zz"}`, `{"R":7}`, `{"P":"` + strings.Repeat("z", 64) + `"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s: got no error", bad)
		}
	}
}

func FuzzRecover(f *testing.F) {
	k := newKey(f, 1)
	h := crowd.Keccak256([]byte("message"))
	sig := k.Sign(h)
	f.Add(h[:], sig[:])
	f.Add(make([]byte, 32), make([]byte, 65))
	f.Fuzz(func(t *testing.T, hb, sb []byte) {
		var h crowd.Hash
		var sig Signature
		copy(h[:], hb)
		copy(sig[:], sb)
		id, err := Recover(h, sig)
		if err != nil {
			return
		}
		if err := Valid(id); err != nil {
			t.Errorf("recovered %s: %v", id, err)
		}
		if !Verify(id, h, sig) {
			t.Errorf("recovered %s, but Verify is false", id)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	k := newKey(b, 1)
	h := crowd.Keccak256([]byte("message"))
	b.ReportAllocs()
	for b.Loop() {
		k.Sign(h)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
}

func BenchmarkRecover(b *testing.B) {
	k := newKey(b, 1)
	h := crowd.Keccak256([]byte("message"))
	sig := k.Sign(h)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Recover(h, sig); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
}
