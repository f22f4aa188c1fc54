package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/accounts/keystore"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/google/uuid"
)

// The test vectors of the Web3 Secret Storage definition. Their password is "testpassword".
const (
	web3Secret = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
	web3Scrypt = `{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"83dbcc02d8ccb40e466191a123791e0e"},
		"ciphertext":"d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c","kdf":"scrypt",
		"kdfparams":{"dklen":32,"n":262144,"r":1,"p":8,"salt":"ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"},
		"mac":"2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}`
	web3PBKDF2 = `{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
		"ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2",
		"kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
		"mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}`
)

func TestDecryptKeystore_Web3Vectors(t *testing.T) {
	for _, c := range []struct{ name, file string }{
		{"scrypt", web3Scrypt},
		{"pbkdf2", web3PBKDF2},
		{"capital Crypto, as old writers have it", strings.Replace(web3PBKDF2, `"crypto"`, `"Crypto"`, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := DecryptKeystore([]byte(c.file), "testpassword")
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%x", k.Bytes()); got != web3Secret {
				t.Errorf("got %s, want %s", got, web3Secret)
			}
			if _, err := DecryptKeystore([]byte(c.file), "testpassworD"); !errors.Is(err, ErrPassphrase) {
				t.Errorf("wrong passphrase: got error %v, want ErrPassphrase", err)
			}
		})
	}
}

func TestKeystore_GethReadsOursAndWeReadGeths(t *testing.T) {
	k := newKey(t, 1)
	ours, err := EncryptKeystore(seeded(2), k, "pass", 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := keystore.DecryptKey(ours, "pass")
	if err != nil {
		t.Fatalf("geth reads ours: %v", err)
	}
	if got := crypto.FromECDSA(theirs.PrivateKey); !bytes.Equal(got, k.Bytes()) || [20]byte(theirs.Address) != k.ID().Address() {
		t.Errorf("geth reads ours: got address %s, want %s", theirs.Address, k.ID().Address())
	}
	if theirs.Id.Version() != 4 || theirs.Id.Variant() != uuid.RFC4122 {
		t.Errorf("file ID: got %s, want a random UUID", theirs.Id)
	}

	file, err := keystore.EncryptKey(theirs, "other pass", 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecryptKeystore(file, "other pass")
	if err != nil || again.ID() != k.ID() {
		t.Errorf("we read geth's: got %v, error %v, want %s", again, err, k)
	}
}

func TestEncryptKeystore_BadInput(t *testing.T) {
	k := newKey(t, 1)
	for _, c := range []struct {
		name string
		n, p int
	}{
		{"n 0", 0, 1}, {"n 1", 1, 1}, {"n 3", 3, 1}, {"n -2", -2, 1}, {"p 0", 2, 0}, {"p -1", 2, -1},
		{"too costly to read back", StandardScryptN * 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := EncryptKeystore(seeded(1), k, "pass", c.n, c.p); err == nil {
				t.Error("got no error")
			}
		})
	}
	if _, err := EncryptKeystore(bytes.NewReader(make([]byte, 63)), k, "pass", 2, 1); err == nil {
		t.Error("short randomness: got no error")
	}
}

// cheap is a keystore file that costs nothing to open with "pass".
func cheap(t testing.TB) string {
	t.Helper()
	b, err := EncryptKeystore(seeded(2), newKey(t, 1), "pass", 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDecryptKeystore_Hostile(t *testing.T) {
	file := cheap(t)
	swap := func(from, to string) string {
		if !strings.Contains(file, from) {
			t.Fatalf("no %s in %s", from, file)
		}
		return strings.Replace(file, from, to, 1)
	}
	var f keystoreJSON
	if err := json.Unmarshal([]byte(file), &f); err != nil {
		t.Fatal(err)
	}
	const tooMuch = "costs more than we spend"
	for _, c := range []struct{ name, file, want string }{
		{"empty", "", "unexpected end"},
		{"null", "null", "version 0"},
		{"array", "[]", "cannot unmarshal"},
		{"nothing inside", `{"version":3}`, "cipher"},
		{"no kdf parameters", `{"version":3,"crypto":{"cipher":"aes-128-ctr","ciphertext":"` + f.Crypto.CipherText + `","cipherparams":{"iv":"` +
			f.Crypto.CipherParams.IV + `"},"mac":"` + f.Crypto.MAC + `","kdf":"scrypt"}}`, "derived key of 0 bytes"},
		{"huge file", file + strings.Repeat(" ", maxKeystore), "want at most"},
		{"old version", swap(`"version":3`, `"version":1`), "version 1"},
		{"memory bomb", swap(`"n":2`, `"n":1073741824`), tooMuch},
		{"largest n", swap(`"n":2`, `"n":9223372036854775808`), tooMuch},
		{"n overflows", swap(`"n":2`, `"n":18446744073709551616`), "cannot unmarshal"},
		{"n times r too large", swap(`"n":2,"r":8`, `"n":1048576,"r":64`), tooMuch},
		{"r bomb", swap(`"r":8`, `"r":1048576`), tooMuch},
		{"p bomb", swap(`"p":1`, `"p":1048576`), tooMuch},
		{"too much work", swap(`"n":2,"r":8,"p":1`, `"n":262144,"r":8,"p":4`), tooMuch},
		{"product wraps to zero", swap(`"n":2,"r":8,"p":1`, `"n":2097152,"r":4611686018427387904,"p":4611686018427387904`), tooMuch},
		{"n no power of two", swap(`"n":2`, `"n":3`), "power of two"},
		{"n negative", swap(`"n":2`, `"n":-2`), "cannot unmarshal"},
		{"n a fraction", swap(`"n":2`, `"n":2.5`), "cannot unmarshal"},
		{"n text", swap(`"n":2`, `"n":"2"`), "cannot unmarshal"},
		{"r zero", swap(`"r":8`, `"r":0`), "power of two"},
		{"p zero", swap(`"p":1`, `"p":0`), "power of two"},
		{"short derived key", swap(`"dklen":32`, `"dklen":16`), "derived key of 16"},
		{"huge derived key", swap(`"dklen":32`, `"dklen":4294967296`), "derived key of"},
		{"pbkdf2 for ever", strings.Replace(web3PBKDF2, `"c":262144`, `"c":4294967295`, 1), "pbkdf2 c="},
		{"pbkdf2 no rounds", strings.Replace(web3PBKDF2, `"c":262144`, `"c":0`, 1), "pbkdf2 c="},
		{"pbkdf2 other hash", strings.Replace(web3PBKDF2, "hmac-sha256", "hmac-md5", 1), "want scrypt"},
		{"other kdf", swap(`"scrypt"`, `"plain"`), "want scrypt"},
		{"other cipher", swap("aes-128-ctr", "aes-128-cbc"), "cipher"},
		{"short iv", swap(f.Crypto.CipherParams.IV, "00"), "iv"},
		{"short ciphertext", swap(f.Crypto.CipherText, f.Crypto.CipherText[2:]), "ciphertext"},
		{"mac no hex", swap(f.Crypto.MAC, strings.Repeat("z", 64)), "mac"},
		{"salt no hex", swap(f.Crypto.KDFParams.Salt, "z"), "salt"},
		{"another's address", swap(f.Address, "008aeeda4d805471df9b2a5b0f38a0c3bcba786b"), "not that of the key"},
		{"address no address", swap(f.Address, "me"), "not that of the key"},
		{"iv changed", swap(f.Crypto.CipherParams.IV, strings.Repeat("00", 16)), "not that of the key"}, // no MAC covers it
		{"ciphertext changed", swap(f.Crypto.CipherText, strings.Repeat("00", 32)), ErrPassphrase.Error()},
		{"mac changed", swap(f.Crypto.MAC, strings.Repeat("00", 32)), ErrPassphrase.Error()},
		{"salt changed", swap(f.Crypto.KDFParams.Salt, "00"), ErrPassphrase.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := DecryptKeystore([]byte(c.file), "pass")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got key %v, error %v, want an error with %q", k, err, c.want)
			}
		})
	}
}

func FuzzDecryptKeystore(f *testing.F) {
	f.Add([]byte(cheap(f)))
	f.Add([]byte(web3Scrypt))
	f.Add([]byte(strings.Replace(web3PBKDF2, "262144", "10", 1)))
	f.Add([]byte(`{"version":3,"crypto":{"kdf":"scrypt"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := decryptKeystore(b, "pass", kdfBound{memory: 64, work: 128})
		if err != nil {
			return
		}
		// Only the seed has a right MAC. It covers neither the address nor the IV, so without the
		// one a change of the other gives another key.
		var f keystoreJSON
		if err := json.Unmarshal(b, &f); err != nil {
			t.Fatal(err)
		}
		if want := newKey(t, 1).ID(); f.Address != "" && k.ID() != want {
			t.Errorf("got %s, want %s", k, want)
		}
	})
}
