package node

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/chain"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
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
		Genesis struct {
			Chain    string `json:"chain"`
			Question string `json:"question"`
			Answer   string `json:"answer"`
			Other    string `json:"other"` // to who asks for another chain
		} `json:"genesis"`
		Telling []told `json:"telling"`
	}
	v.Genesis.Chain = "net-aaaa"
	v.Genesis.Question = hex.EncodeToString(crowd.Encode(v.Genesis.Chain))
	v.Genesis.Answer = hex.EncodeToString(crowd.Encode(genesisAnswer{Chain: v.Genesis.Chain, Genesis: []byte("genesis")}))
	v.Genesis.Other = hex.EncodeToString(crowd.Encode(genesisAnswer{Chain: v.Genesis.Chain}))
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

// FuzzGenesis: both sides of the question how a chain begins.
func FuzzGenesis(f *testing.F) {
	g := someGenesis(f)
	f.Add(crowd.Encode(g.ChainID()))
	f.Add(crowd.Encode(genesisAnswer{Chain: g.ChainID(), Genesis: crowd.Encode(g)}))
	f.Add(crowd.Encode(genesisAnswer{Chain: "other"}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var chain string
		if crowd.Decode(raw, &chain) == nil && !bytes.Equal(crowd.Encode(chain), raw) {
			t.Errorf("got %x, want %x", crowd.Encode(chain), raw)
		}
		var a genesisAnswer
		if crowd.Decode(raw, &a) == nil && !bytes.Equal(crowd.Encode(a), raw) {
			t.Errorf("got %x, want %x", crowd.Encode(a), raw)
		}
		if got, err := readGenesis(raw, g.ChainID()); err == nil && got.ChainID() != g.ChainID() {
			t.Errorf("took chain %s", got.ChainID())
		}
	})
}

// FuzzNetworkFile: what is read as a network's file is written as the same network's.
func FuzzNetworkFile(f *testing.F) {
	g := someGenesis(f)
	f.Add(EncodeNetwork(NetworkFile(g, []string{"/ip4/192.0.2.1/udp/4001/quic-v1/p2p/16Uiu2HAkvHdGHEvJYmbvCPYWzVTBFyUpeKjyBHiTSbXRxHzHXUEw"})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, _, err := DecodeNetwork(bytes.NewReader(raw))
		if err != nil {
			return
		}
		once := EncodeNetwork(file)
		again, _, err := DecodeNetwork(bytes.NewReader(once))
		if err != nil || !bytes.Equal(EncodeNetwork(again), once) {
			t.Errorf("got %s, %v from %s", EncodeNetwork(again), err, once)
		}
	})
}

func someGenesis(t testing.TB) *ledger.Genesis {
	t.Helper()
	k, err := identity.FromBytes(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return &ledger.Genesis{
		Name: "net", Time: 1, Params: ledger.DevParams(),
		Authorities: []ledger.Authority{{ID: k.ID(), VRF: k.VRF().Public(), Consensus: chain.ConsensusKey(k)}},
		Grants:      []ledger.Grant{{ID: k.ID(), Balance: crowd.Credit}},
	}
}
