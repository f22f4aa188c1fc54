package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/crowdcompute/crowd"
)

func TestSeal(t *testing.T) {
	k := newKey(t, 1)
	for _, c := range []struct {
		name       string
		plain, aad []byte
	}{
		{"empty", nil, nil},
		{"short", []byte("result key"), []byte("job 7")},
		{"long", bytes.Repeat([]byte("crowd"), 20_000), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			sealed, err := Seal(seeded(9), k.ID(), c.plain, c.aad)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := len(sealed), len(c.plain)+SealOverhead; got != want {
				t.Errorf("length: got %d, want %d", got, want)
			}
			got, err := k.Open(sealed, c.aad)
			if err != nil || !bytes.Equal(got, c.plain) {
				t.Errorf("got %.20q, error %v, want %.20q", got, err, c.plain)
			}
			if _, err := newKey(t, 2).Open(sealed, c.aad); err == nil {
				t.Error("another key: got no error")
			}
			if _, err := k.Open(sealed, []byte("job 8")); err == nil {
				t.Error("another context: got no error")
			}
		})
	}
}

// Our key schedule against the standard library's HPKE, over the curve that it has and we have not.
func TestSeal_ScheduleIsRFC9180(t *testing.T) {
	priv, err := hpke.DHKEM(ecdh.X25519()).NewPrivateKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	enc, sender, err := hpke.NewSender(priv.PublicKey(), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(sealInfo))
	if err != nil {
		t.Fatal(err)
	}
	text, err := sender.Seal([]byte("aad"), []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	from, err := ecdh.X25519().NewPublicKey(enc)
	if err != nil {
		t.Fatal(err)
	}
	dh, err := key.ECDH(from)
	if err != nil {
		t.Fatal(err)
	}
	aead, nonce := schedule(0x0020, dh, enc, key.PublicKey().Bytes(), sealInfo)
	got, err := aead.Open(nil, nonce, text, []byte("aad"))
	if err != nil || string(got) != "plain" {
		t.Errorf("got %q, error %v, want what the standard library sealed", got, err)
	}
}

// The shared x coordinate against another library's, from both sides.
func TestKey_ECDH(t *testing.T) {
	for seed := range byte(20) {
		a, b := newKey(t, seed), newKey(t, seed+100)
		pub := uncompressed(b.ID())
		theirs, err := secp256k1.ParsePubKey(pub[:])
		if err != nil {
			t.Fatal(err)
		}
		want := secp256k1.GenerateSharedSecret(secp256k1.PrivKeyFromBytes(a.Bytes()), theirs)
		if got, back := a.ecdh(b.ID()), b.ecdh(a.ID()); !bytes.Equal(got, want) || !bytes.Equal(back, want) {
			t.Fatalf("seed %d: got %x and %x, want %x", seed, got, back, want)
		}
	}
}

func TestOpen_EveryBitCounts(t *testing.T) {
	k := newKey(t, 1)
	sealed, err := Seal(seeded(9), k.ID(), []byte("plain"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(sealed) {
		bad := bytes.Clone(sealed)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := k.Open(bad, nil); err == nil {
			t.Errorf("bit %d flipped: got no error", bit)
		}
	}
	for n := range sealed {
		if _, err := k.Open(sealed[:n], nil); err == nil {
			t.Errorf("cut to %d bytes: got no error", n)
		}
	}
	if _, err := k.Open(append(bytes.Clone(sealed), 0), nil); err == nil {
		t.Error("one byte more: got no error")
	}
}

func TestSeal_BadInput(t *testing.T) {
	if _, err := Seal(seeded(1), crowd.NodeID{}, nil, nil); err == nil {
		t.Error("to no point of the curve: got no error")
	}
	if _, err := Seal(bytes.NewReader(nil), newKey(t, 1).ID(), nil, nil); err == nil {
		t.Error("no randomness: got no error")
	}
}

func FuzzOpen(f *testing.F) {
	k := newKey(f, 1)
	sealed, err := Seal(seeded(9), k.ID(), []byte("plain"), []byte("aad"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed, []byte("aad"))
	f.Add([]byte{}, []byte{})
	f.Add(bytes.Repeat([]byte{4}, SealOverhead), []byte{})
	f.Fuzz(func(t *testing.T, b, aad []byte) {
		plain, err := k.Open(b, aad)
		if err == nil && len(plain) != len(b)-SealOverhead {
			t.Errorf("opened %d bytes to %d", len(b), len(plain))
		}
	})
}

func BenchmarkSeal1KiB(b *testing.B) {
	k, r, plain := newKey(b, 1), seeded(2), make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Seal(r, k.ID(), plain, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

func BenchmarkOpen1KiB(b *testing.B) {
	k := newKey(b, 1)
	sealed, err := Seal(seeded(2), k.ID(), make([]byte, 1024), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Open(sealed, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
