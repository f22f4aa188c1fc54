package node

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/runner"
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
		t.Errorf("%s differs (UPDATE_SPEC=1 go test ./internal/node writes it): got\n%s", path, got)
	}
}

func someTellings() []telling {
	job := crowd.JobID{0x10}
	return []telling{
		{Job: job, Chunk: runner.Chunk{Stream: runner.Stdout, Offset: 5, Data: []byte("hello\n")}},
		{Job: job, Chunk: runner.Chunk{Stream: runner.Stderr, Data: []byte("oops")}},
		{Job: job, Chunk: runner.Chunk{Stream: runner.Progress, Gas: 5e8}},
		{Job: job, Chunk: runner.Chunk{Stream: runner.Note, Data: []byte("unreachable")}},
	}
}

func TestVectors(t *testing.T) {
	type told struct {
		Telling  telling `json:"telling"` // Data in base64
		Encoding string  `json:"encoding"`
	}
	var v struct {
		Where struct {
			Node      crowd.NodeID `json:"node"`
			Question  string       `json:"question"`
			Addresses []string     `json:"addresses"`
			Answer    string       `json:"answer"`
			Unknown   string       `json:"unknown"`
		} `json:"where"`
		Telling []told `json:"telling"`
	}
	w := &v.Where
	w.Node = crowd.NodeID(bytes.Repeat([]byte{0x11}, 64))
	w.Addresses = []string{"/ip4/192.0.2.1/udp/4001/quic-v1", "/ip4/192.0.2.1/tcp/4001"}
	w.Question, w.Answer = hex.EncodeToString(crowd.Encode(w.Node)), hex.EncodeToString(crowd.Encode(w.Addresses))
	w.Unknown = hex.EncodeToString(crowd.Encode([]string(nil)))
	for _, m := range someTellings() {
		raw := crowd.Encode(m)
		if got, err := decodeTelling(raw); err != nil || !bytes.Equal(crowd.Encode(got), raw) {
			t.Errorf("got %+v, %v back", got, err)
		}
		v.Telling = append(v.Telling, told{m, hex.EncodeToString(raw)})
	}
	golden(t, "node.json", v)
}

func FuzzDecodeTelling(f *testing.F) {
	for _, m := range someTellings() {
		f.Add(crowd.Encode(m))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := decodeTelling(raw)
		if err == nil && (!bytes.Equal(crowd.Encode(m), raw) || len(m.Chunk.Data) > runner.MaxChunk) {
			t.Errorf("got %x, want %x", crowd.Encode(m), raw)
		}
	})
}

// FuzzWhere: both sides of the question where a node is.
func FuzzWhere(f *testing.F) {
	f.Add(crowd.Encode(crowd.NodeID{1}))
	f.Add(crowd.Encode([]string{"/ip4/192.0.2.1/tcp/4001"}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var id crowd.NodeID
		if crowd.Decode(raw, &id) == nil && !bytes.Equal(crowd.Encode(id), raw) {
			t.Errorf("got %x, want %x", crowd.Encode(id), raw)
		}
		var addrs []string
		if crowd.Decode(raw, &addrs) == nil && !bytes.Equal(crowd.Encode(addrs), raw) {
			t.Errorf("got %x, want %x", crowd.Encode(addrs), raw)
		}
	})
}
