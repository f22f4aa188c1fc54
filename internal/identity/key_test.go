package identity

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/crowdcompute/crowd"
)

// seeded is a random source that gives the same bytes for the same seed.
func seeded(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func newKey(t testing.TB, seed byte) *Key {
	t.Helper()
	k, err := Generate(seeded(seed))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func unhexT(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKey_AddressAsEthereumDerivesIt(t *testing.T) {
	k, err := FromBytes(unhexT(t, "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.ToLower(k.ID().Address().String()), "0x008aeeda4d805471df9b2a5b0f38a0c3bcba786b"; got != want {
		t.Errorf("address: got %s, want %s", got, want)
	}
}

func TestFromBytes(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		ok        bool
	}{
		{"one", strings.Repeat("00", 31) + "01", true},
		{"n-1", "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140", true},
		{"zero", strings.Repeat("00", 32), false},
		{"n", "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", false},
		{"all ones", strings.Repeat("ff", 32), false},
		{"31 bytes", strings.Repeat("01", 31), false},
		{"33 bytes", strings.Repeat("01", 33), false},
		{"empty", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := unhexT(t, c.hex)
			k, err := FromBytes(b)
			if (err == nil) != c.ok {
				t.Fatalf("got error %v, want ok %v", err, c.ok)
			}
			if !c.ok {
				return
			}
			if !bytes.Equal(k.Bytes(), b) {
				t.Errorf("Bytes: got %x, want %x", k.Bytes(), b)
			}
			if want := secp256k1.PrivKeyFromBytes(b).PubKey().SerializeUncompressed()[1:]; k.ID() != crowd.NodeID(want) {
				t.Errorf("ID: got %s, want %x", k.ID(), want)
			}
			if err := Valid(k.ID()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGenerate_BadSources(t *testing.T) {
	for _, c := range []struct {
		name string
		r    io.Reader
	}{
		{"empty", bytes.NewReader(nil)},
		{"short", bytes.NewReader(make([]byte, 31))},
		{"zeros for ever", zeros{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if k, err := Generate(c.r); err == nil {
				t.Errorf("got key %s, want an error", k)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestKey_PrintsNoSecret(t *testing.T) {
	k := newKey(t, 1)
	secret := hex.EncodeToString(k.Bytes())
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s %x", k, k, k, k, k)} {
		if strings.Contains(s, secret) || !strings.Contains(s, k.ID().String()) {
			t.Errorf("got %s, want the ID and no secret", s)
		}
	}
}

func TestDerive(t *testing.T) {
	k, other := newKey(t, 1), newKey(t, 2)
	a := k.Derive("consensus")
	if len(a) != 32 || !bytes.Equal(a, k.Derive("consensus")) {
		t.Errorf("got %x, then %x: want the same 32 bytes", a, k.Derive("consensus"))
	}
	for name, b := range map[string][]byte{
		"other purpose": k.Derive("consensus2"), "no purpose": k.Derive(""),
		"other key": other.Derive("consensus"), "the key itself": k.Bytes(),
	} {
		if bytes.Equal(a, b) {
			t.Errorf("%s: got the same secret", name)
		}
	}
}

func TestFromPassphrase(t *testing.T) {
	a, err := FromPassphrase("correct horse battery staple", "alice@example.org")
	if err != nil {
		t.Fatal(err)
	}
	// Pinned: a change would lock people out of their accounts.
	if got, want := a.ID().Address().String(), "0xa2A2Cd1b9aC08B223E57Cc91Fb739A83014b9560"; got != want {
		t.Errorf("address: got %s, want %s", got, want)
	}
	for _, c := range []struct{ name, pass, salt string }{
		{"short", "hunter2", "alice"},
		{"empty", "", "alice"},
		{"no salt", "correct horse battery staple", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := FromPassphrase(c.pass, c.salt); err == nil {
				t.Error("got a key, want an error")
			}
		})
	}
	if testing.Short() {
		return
	}
	b, err := FromPassphrase("correct horse battery staple", "bob@example.org")
	if err != nil || b.ID() == a.ID() {
		t.Errorf("another salt: got %v, error %v, want another key", b, err)
	}
}

func TestCompress(t *testing.T) {
	for seed := range byte(50) {
		id := newKey(t, seed).ID()
		c := Compress(id)
		got, err := Decompress(c[:])
		if err != nil || got != id {
			t.Fatalf("seed %d: got %s, error %v, want %s", seed, got, err, id)
		}
	}
}

func TestValid_RefusesWhatIsNoPoint(t *testing.T) {
	id := newKey(t, 1).ID()
	if err := Valid(id); err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(id) {
		bad := id
		bad[bit/8] ^= 1 << (bit % 8)
		if Valid(bad) == nil {
			t.Errorf("bit %d flipped: got no error", bit)
		}
	}
	// The point (1, y) with its x given as p+1: on the curve mod p, but not canonical.
	one := newIDWithX1(t)
	p1 := unhexT(t, "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc30")
	copy(one[:], p1)
	for name, bad := range map[string]crowd.NodeID{"zero": {}, "x above p": one} {
		if Valid(bad) == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func newIDWithX1(t *testing.T) crowd.NodeID {
	t.Helper()
	c := make([]byte, 33)
	c[0], c[32] = 2, 1
	id, err := Decompress(c)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func FuzzDecompress(f *testing.F) {
	c := Compress(newKey(f, 1).ID())
	f.Add(c[:])
	f.Add([]byte{})
	f.Add(append([]byte{4}, make([]byte, 64)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := Decompress(b)
		if err != nil {
			return
		}
		if err := Valid(id); err != nil {
			t.Errorf("decompressed to %s: %v", id, err)
		}
		if c := Compress(id); !bytes.Equal(c[:], b) {
			t.Errorf("again: got %x, want %x", c, b)
		}
	})
}
