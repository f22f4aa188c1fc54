package identity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/crowdcompute/crowd"
)

// golden compares v with a file of test vectors, or writes it where UPDATE_SPEC is set.
func golden(t *testing.T, file string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("..", "..", "spec", "vectors", file)
	if os.Getenv("UPDATE_SPEC") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (UPDATE_SPEC=1 go test ./internal/identity writes it): got\n%s", path, got)
	}
}

func TestVectors(t *testing.T) {
	type key struct {
		Private    string        `json:"private"`
		Node       crowd.NodeID  `json:"node"`
		Key        string        `json:"key"`
		Address    crowd.Address `json:"address"`
		Compressed string        `json:"compressed"`
		VRFSeed    string        `json:"vrfSeed"` // Derive("vrf/edwards25519")
		VRF        VRFPublic     `json:"vrf"`
		Static     int           `json:"staticBits"`
	}
	type signature struct {
		Private   string     `json:"private"`
		Digest    crowd.Hash `json:"digest"`
		Signature Signature  `json:"signature"`
	}
	type refused struct {
		Name      string     `json:"name"`
		Digest    crowd.Hash `json:"digest"`
		Signature Signature  `json:"signature"`
	}
	type vrf struct {
		Private string    `json:"private"`
		Alpha   string    `json:"alpha"`
		Proof   VRFProof  `json:"proof"`
		Output  VRFOutput `json:"output"`
	}
	type seal struct {
		Private   string `json:"private"`
		Ephemeral string `json:"ephemeral"`
		AAD       string `json:"aad"`
		Plain     string `json:"plain"`
		Sealed    string `json:"sealed"`
	}
	type stamp struct {
		Purpose  string     `json:"purpose"`
		Resource crowd.Hash `json:"resource"`
		Expires  crowd.Time `json:"expires"`
		Bits     uint8      `json:"bits"`
		Nonce    uint64     `json:"nonce"`
		Encoding string     `json:"encoding"`
		ID       crowd.Hash `json:"id"`
	}
	type puzzle struct {
		Key    string     `json:"key"`
		Beacon crowd.Hash `json:"beacon"`
		Bits   uint8      `json:"bits"`
		Nonce  uint64     `json:"nonce"`
	}
	var v struct {
		Keys       []key       `json:"keys"`
		Signatures []signature `json:"signatures"`
		Refused    []refused   `json:"refused"`
		VRF        []vrf       `json:"vrf"`
		Seals      []seal      `json:"seals"`
		Stamps     []stamp     `json:"stamps"`
		Dynamic    []puzzle    `json:"dynamicPuzzles"`
	}
	for i, private := range []string{
		"0000000000000000000000000000000000000000000000000000000000000001",
		"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140", // the order less one
		"7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d", // of the Web3 Secret Storage test vectors
	} {
		k, err := FromBytes(unhexT(t, private))
		if err != nil {
			t.Fatal(err)
		}
		small := Compress(k.ID())
		v.Keys = append(v.Keys, key{private, k.ID(), k.ID().Key().String(), k.ID().Address(), hex.EncodeToString(small[:]),
			hex.EncodeToString(k.Derive("vrf/edwards25519")), k.VRF().Public(), StaticBits(k.ID())})

		digest := crowd.Digest("vector", uint64(i))
		sig := k.Sign(digest)
		if !Verify(k.ID(), digest, sig) {
			t.Errorf("key %d: its signature does not verify", i)
		}
		v.Signatures = append(v.Signatures, signature{private, digest, sig})

		alpha := bytes.Repeat([]byte{byte(i)}, i)
		proof, out := k.VRF().Prove(alpha)
		if got, err := VerifyVRF(k.VRF().Public(), alpha, proof); err != nil || got != out {
			t.Errorf("key %d: VRF: got %s, %v, want %s", i, got, err, out)
		}
		v.VRF = append(v.VRF, vrf{private, hex.EncodeToString(alpha), proof, out})

		once := bytes.Repeat([]byte{0x20 + byte(i)}, 32)
		aad, plain := bytes.Repeat([]byte{0xaa}, i), bytes.Repeat([]byte("crowd"), i)
		sealed, err := Seal(bytes.NewReader(once), k.ID(), plain, aad)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Open(sealed, aad); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("key %d: opened: got %x, %v, want %x", i, got, err, plain)
		}
		v.Seals = append(v.Seals, seal{private, hex.EncodeToString(once), hex.EncodeToString(aad), hex.EncodeToString(plain), hex.EncodeToString(sealed)})

		nonce, err := SolveDynamic(t.Context(), k.ID().Key(), digest, 12, nil)
		if err != nil {
			t.Fatal(err)
		}
		v.Dynamic = append(v.Dynamic, puzzle{k.ID().Key().String(), digest, 12, nonce})
	}

	good := v.Signatures[0]
	highS := good.Signature
	s := new(secp256k1.ModNScalar)
	s.SetByteSlice(highS[32:64])
	negated := s.Negate().Bytes()
	copy(highS[32:64], negated[:])
	highS[64] ^= 1
	ethereum := good.Signature
	ethereum[64] += 27
	noR := good.Signature
	clear(noR[:32])
	for _, r := range []refused{
		{"s in the upper half", good.Digest, highS}, {"v of 27 or 28", good.Digest, ethereum}, {"r of zero", good.Digest, noR},
	} {
		if id, err := Recover(r.Digest, r.Signature); err == nil {
			t.Errorf("%s: got %s, want an error", r.Name, id)
		}
		v.Refused = append(v.Refused, r)
	}

	for i, purpose := range []string{"query", ""} {
		st, err := MintStamp(t.Context(), bytes.NewReader(make([]byte, 8)), purpose, crowd.Hash{byte(i)}, 1_000_000, 12, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Check(purpose, crowd.Hash{byte(i)}, 999_999, 12); err != nil {
			t.Error(err)
		}
		v.Stamps = append(v.Stamps, stamp{st.Purpose, st.Resource, st.Expires, st.Bits, st.Nonce, hex.EncodeToString(st.Encode()), st.ID()})
	}
	golden(t, "identity.json", v)
}
