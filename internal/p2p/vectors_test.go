package p2p

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/store"
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
		t.Errorf("%s differs (UPDATE_SPEC=1 go test ./internal/p2p writes it): got\n%s", path, got)
	}
}

func TestVectors(t *testing.T) {
	type name struct {
		Private string       `json:"private"`
		Node    crowd.NodeID `json:"node"`
		Peer    string       `json:"peer"`
	}
	type message struct {
		Message string `json:"message"`
		Framed  string `json:"framed"`
	}
	type block struct {
		CID      crowd.CID `json:"cid"`
		Request  string    `json:"request"`
		Here     string    `json:"here"`    // what answers where the block is there
		NotHere  string    `json:"notHere"` // and where it is not
		Contents string    `json:"block"`
	}
	var v struct {
		Names    []name    `json:"names"`
		Messages []message `json:"messages"`
		Blocks   []block   `json:"blocks"`
	}
	for n := byte(1); n <= 2; n++ {
		private := append(make([]byte, 31), n)
		key, err := parseKey(private)
		if err != nil {
			t.Fatal(err)
		}
		p, err := peer.IDFromPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		id, err := NodeIDOf(p)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := PeerIDOf(id); err != nil || back != p {
			t.Errorf("got peer %s, %v, want %s", back, err, p)
		}
		v.Names = append(v.Names, name{hex.EncodeToString(private), id, p.String()})
	}
	for _, m := range []string{"", "hello"} {
		var b bytes.Buffer
		if err := WriteMessage(&b, []byte(m)); err != nil {
			t.Fatal(err)
		}
		v.Messages = append(v.Messages, message{hex.EncodeToString([]byte(m)), hex.EncodeToString(b.Bytes())})
	}
	for c, data := range map[crowd.CID]string{"bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e": "hello world"} {
		k, err := store.Parse(c)
		if err != nil {
			t.Fatal(err)
		}
		here := append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
		gone := binary.BigEndian.AppendUint32(nil, notHere)
		if got, err := readBlock(bytes.NewReader(here)); err != nil || !store.Matches(k, got) {
			t.Errorf("%s: got %x, %v", c, got, err)
		}
		if got, err := readBlock(bytes.NewReader(gone)); err != nil || got != nil {
			t.Errorf("%s is not there: got %x, %v", c, got, err)
		}
		if len(k.Bytes()) != cidLen {
			t.Errorf("%s: got %d bytes, want %d", c, len(k.Bytes()), cidLen)
		}
		v.Blocks = append(v.Blocks, block{c, hex.EncodeToString(k.Bytes()), hex.EncodeToString(here), hex.EncodeToString(gone), hex.EncodeToString([]byte(data))})
	}
	golden(t, "p2p.json", v)
}

// FuzzReadBlock: an answer of the blocks protocol.
func FuzzReadBlock(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 'a'})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0x20, 0, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		data, err := readBlock(bytes.NewReader(in))
		if err != nil {
			return
		}
		again := binary.BigEndian.AppendUint32(nil, notHere)
		if data != nil {
			again = append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
		}
		if !bytes.HasPrefix(in, again) || len(data) > store.MaxBlock {
			t.Errorf("got %x, want a prefix of %x", again, in)
		}
	})
}

// FuzzBlockRequest: what a client of the blocks protocol asks for.
func FuzzBlockRequest(f *testing.F) {
	f.Add(append([]byte{1, 0x55, 0x12, 32}, make([]byte, 32)...))
	f.Add(append([]byte{0x12, 32}, make([]byte, 34)...))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) != cidLen {
			return
		}
		c, err := cid.Cast(in)
		if err != nil {
			return
		}
		if !bytes.Equal(c.Bytes(), in) {
			t.Errorf("got %x, want %x", c.Bytes(), in)
		}
	})
}

// FuzzNodeIDOf: a peer ID that names a node is that node's only one.
func FuzzNodeIDOf(f *testing.F) {
	key, err := parseKey(append(make([]byte, 31), 1))
	if err != nil {
		f.Fatal(err)
	}
	p, err := peer.IDFromPrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(p))
	f.Add([]byte{0, 2, 8, 2})
	f.Fuzz(func(t *testing.T, raw []byte) {
		id, err := NodeIDOf(peer.ID(raw))
		if err != nil {
			return
		}
		if back, err := PeerIDOf(id); err != nil || string(back) != string(raw) {
			t.Errorf("got %x, %v, want %x", string(back), err, raw)
		}
	})
}
