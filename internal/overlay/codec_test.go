package overlay

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

func TestVectors(t *testing.T) {
	type record struct {
		Private  string             `json:"private"`
		Digest   crowd.Hash         `json:"digest"`
		Sig      identity.Signature `json:"signature"`
		Encoding string             `json:"encoding"`
	}
	type packet struct {
		Name    string     `json:"name"`
		Type    uint8      `json:"type"`
		Padded  bool       `json:"padded"`
		Digest  crowd.Hash `json:"digest"`
		Payload string     `json:"payload"` // of a padded one: nothing
		Hash    crowd.Hash `json:"hash"`
		Packet  string     `json:"packet"`
	}
	var v struct {
		Chain   string       `json:"chain"`
		Network string       `json:"network"`
		From    string       `json:"from"` // private keys
		To      crowd.NodeID `json:"to"`
		Expires uint64       `json:"expires"`
		Topic   string       `json:"topicOfGPU"`
		Records []record     `json:"records"`
		Packets []packet     `json:"packets"`
	}
	from, to := testKey(t, 1), testKey(t, 2)
	topic := Topic("gpu")
	v.Chain, v.Network, v.From, v.To = "test-1", hex.EncodeToString(testNetwork[:]), hex.EncodeToString(from.Bytes()), to.ID()
	v.Expires, v.Topic = uint64(testNow/1000), hex.EncodeToString(topic[:])
	relayed, err := SignRecord(testKey(t, 8), testNetwork, Record{Seq: 1, Relay: testKey(t, 9).ID().Key()})
	if err != nil {
		t.Fatal(err)
	}
	for n, r := range map[byte]*Record{1: testRecord(t, from), 8: relayed} {
		b, err := EncodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		v.Records = append(v.Records, record{hex.EncodeToString(testKey(t, n).Bytes()), recordDigest(testNetwork, r.body()), r.Sig, hex.EncodeToString(b)})
	}
	slices.SortFunc(v.Records, func(a, b record) int { return bytes.Compare([]byte(a.Private), []byte(b.Private)) })
	messages := testMessages(t, from)
	names := make([]string, 0, len(messages))
	for name := range messages {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		pad := name == "find ads" // one is enough: they are long
		b, err := Seal(from, testNetwork, to.ID(), messages[name], testNow, pad)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Read(testNetwork, to.ID().Key(), b)
		if err != nil {
			t.Fatal(err)
		}
		out := packet{Name: name, Type: p.Type, Padded: pad, Digest: p.digest, Hash: p.Hash, Packet: hex.EncodeToString(b)}
		if !pad {
			out.Payload = hex.EncodeToString(b[headSize:])
		}
		v.Packets = append(v.Packets, out)
	}

	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("..", "..", "spec", "vectors", "overlay.json")
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
		t.Errorf("%s differs (UPDATE_SPEC=1 go test ./internal/overlay writes it): got\n%s", path, got)
	}
}
