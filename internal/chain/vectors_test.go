package chain

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/verify"
)

// golden compares v, or text where it is one, with a file of test vectors, or writes it where UPDATE_SPEC is set.
func golden(t *testing.T, file string, v any) {
	t.Helper()
	got, is := v.([]byte)
	if !is {
		var err error
		if got, err = json.MarshalIndent(v, "", "  "); err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
	}
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
		t.Errorf("%s differs (UPDATE_SPEC=1 go test ./internal/chain writes it): got\n%s", path, got)
	}
}

// vectorStart is when the chain of the vectors began.
const vectorStart = 1_767_225_600_000

func vectorWorld(t testing.TB, authorities, providers, people int) *world {
	w := newWorld(t, authorities, providers, people)
	w.genesis.Name, w.genesis.Time = "vector", vectorStart
	return w
}

// signed is a header that all authorities of w sign.
func signed(t testing.TB, w *world, height crowd.Height, at crowd.Time, app, results crowd.Hash) Evidence {
	t.Helper()
	vals, err := validators(w.genesis)
	if err != nil {
		t.Fatal(err)
	}
	fill := crowd.Keccak256([]byte("filler"))
	h := types.Header{
		ChainID: w.genesis.ChainID(), Height: int64(height), Time: time.UnixMilli(int64(at)).UTC(),
		ValidatorsHash: vals.Hash(), NextValidatorsHash: vals.Hash(), ConsensusHash: fill[:], AppHash: app[:],
		LastResultsHash: results[:], DataHash: fill[:], EvidenceHash: fill[:], LastCommitHash: fill[:],
		LastBlockID:     types.BlockID{Hash: fill[:], PartSetHeader: types.PartSetHeader{Total: 1, Hash: fill[:]}},
		ProposerAddress: vals.Proposer.Address,
	}
	h.Version.Block = 11
	id := types.BlockID{Hash: h.Hash(), PartSetHeader: types.PartSetHeader{Total: 1, Hash: fill[:]}}
	c := &types.Commit{Height: h.Height, BlockID: id, Signatures: make([]types.CommitSig, vals.Size())}
	for _, k := range w.authorities {
		key := consensusPriv(k)
		i, _ := vals.GetByAddress(key.PubKey().Address())
		v := types.Vote{Type: cmtproto.PrecommitType, Height: h.Height, BlockID: id, Timestamp: h.Time, ValidatorAddress: key.PubKey().Address(), ValidatorIndex: i}
		if v.Signature, err = key.Sign(types.VoteSignBytes(h.ChainID, v.ToProto())); err != nil {
			t.Fatal(err)
		}
		c.Signatures[i] = v.CommitSig()
	}
	ev, err := evidence(&h, c)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// outcomeVector is what became of the second of three transactions of block 6, proven under header 7.
func outcomeVector(t testing.TB, w *world) (crowd.Hash, provenOutcome) {
	t.Helper()
	txs := []crowd.Hash{txHash([]byte("a")), txHash([]byte("b")), txHash([]byte("c"))}
	results := []*abci.ExecTxResult{
		newOutcome(txs[0], nil).result(),
		newOutcome(txs[1], &ledger.Refusal{Code: ledger.NoFunds, Reason: "the transfer takes 5"}).result(),
		newOutcome(txs[2], nil).result(),
	}
	tree := types.NewResults(results)
	p := tree.ProveResult(1)
	ev := signed(t, w, 7, vectorStart+70, crowd.Keccak256([]byte("state")), crowd.Hash(tree.Hash()))
	return txs[1], provenOutcome{Evidence: ev, Data: results[1].Data, Index: p.Index, Total: p.Total, Aunts: p.Aunts}
}

func TestVectors_Header(t *testing.T) {
	w := vectorWorld(t, 4, 0, 0)
	tx, p := outcomeVector(t, w)
	verifier, err := newVerifier(w.genesis)
	if err != nil {
		t.Fatal(err)
	}
	h, o, err := p.verify(verifier, tx)
	if err != nil {
		t.Fatal(err)
	}
	type authority struct {
		Private   string `json:"private"`
		Seed      string `json:"seed"` // Derive("consensus")
		Consensus string `json:"consensus"`
	}
	v := struct {
		Genesis     string      `json:"genesis"`
		Authorities []authority `json:"authorities"`
		Evidence    string      `json:"evidence"`
		Chain       string      `json:"chain"`
		Height      uint64      `json:"height"`
		Time        int64       `json:"time"`
		AppHash     crowd.Hash  `json:"appHash"`
		Results     crowd.Hash  `json:"results"`
		Tx          crowd.Hash  `json:"tx"`
		Code        ledger.Code `json:"code"`
		Reason      string      `json:"reason"`
		Outcome     string      `json:"outcome"`
		Proven      string      `json:"provenOutcome"`
	}{Genesis: hex.EncodeToString(crowd.Encode(w.genesis)), Evidence: hex.EncodeToString(p.Evidence), Chain: h.ChainID, Height: uint64(h.Height), Time: int64(h.Time),
		AppHash: h.AppHash, Results: h.Results, Tx: tx, Code: o.Code, Reason: o.Reason, Outcome: hex.EncodeToString(p.Data), Proven: hex.EncodeToString(crowd.Encode(p))}
	for _, k := range w.authorities {
		v.Authorities = append(v.Authorities, authority{hex.EncodeToString(k.Bytes()), hex.EncodeToString(k.Derive("consensus")), hex.EncodeToString(ConsensusKey(k))})
	}
	golden(t, "header.json", v)
}

func TestVectors_Frames(t *testing.T) {
	ev, key, val := Evidence{0xe1, 0xe2}, []byte("sys/params"), []byte("a value of 36 bytes, for two patches")
	p := ledger.Proof(append(append([]byte{0xaa}, val...), 0xbb)) // a proof holds the value
	more := append(val[:20:20], []byte("and more, for two patches")...)
	kept, next, last := newValue(Proved{Key: key, Val: val, Proof: p}), newValue(Proved{Key: key, Val: more, Proof: p}), newValue(Proved{Key: key, Val: val, Proof: p})
	kept.As = wholeKept
	next.As, next.Val = patched, diff(val, more)
	last.As, last.Val = patchedLast, diff(more, val)
	type vector struct {
		Name  string `json:"name"`
		ID    uint64 `json:"id"`
		Kind  kind   `json:"kind"`
		Body  string `json:"body"`
		Frame string `json:"frame"` // with its length
	}
	var v []vector
	for _, c := range []struct {
		name string
		id   uint64
		kind kind
		body any
	}{
		{"hello", 0, kHello, hello{Chain: "vector-000000000000000000000000", Prefixes: [][]byte{[]byte("job/"), []byte("account/")}, Min: 7}},
		{"hello of a node that wants only jobs that concern it", 0, kHello, hello{Chain: "vector-000000000000000000000000", Prefixes: [][]byte{[]byte("job/")}, Min: 7, Self: crowd.NodeID{0x11}}},
		{"hello of a node that follows nothing", 0, kHello, hello{Chain: "vector-000000000000000000000000"}},
		{"get", 1, kGet, getBody{Key: key, Min: 7}},
		{"list, first page", 2, kList, listBody{Prefix: []byte("provider/"), Min: 7}},
		{"list, next page", 3, kList, listBody{Prefix: []byte("provider/"), After: []byte("provider/x"), Min: 7}},
		{"send", 4, kSend, sendBody{Tx: []byte{0x82, 0x40, 0x40}}},
		{"header", 5, kHeader, headerBody{Height: 6}},
		{"push of the head", 0, kValues, valuesBody{Evidence: ev}},
		{"push after changes were lost", 0, kValues, valuesBody{Evidence: ev, Values: []value{newValue(Proved{Key: key, Val: val, Proof: p})}, Lost: true}},
		{"push of a value that is kept", 0, kValues, valuesBody{Evidence: ev, Values: []value{kept}}},
		{"push of a patch", 0, kValues, valuesBody{Evidence: ev, Values: []value{next}}},
		{"push of the last patch", 0, kValues, valuesBody{Evidence: ev, Values: []value{last}}},
		{"value", 1, kValues, valuesBody{Evidence: ev, Values: []value{newValue(Proved{Key: key, Val: val, Proof: p})}}},
		{"absent value", 1, kValues, valuesBody{Evidence: ev, Values: []value{newValue(Proved{Key: key, Proof: p})}}},
		{"page of a list", 2, kValues, valuesBody{Evidence: ev, Values: []value{newValue(Proved{Key: key, Val: val, Proof: p})}, More: true}},
		{"outcome", 4, kOutcome, provenOutcome{Evidence: ev, Data: []byte{0x83}, Index: 1, Total: 3, Aunts: [][]byte{{1}, {2}}}},
		{"refusal", 4, kRefusal, refusalBody{Code: ledger.BadNonce, Reason: "got 1, the account's next is 2"}},
		{"evidence", 5, kEvidence, evidenceBody{Evidence: ev}},
		{"error", 5, kError, errorBody{Text: "no"}},
		{"dropped", 4, kError, newErrorBody(ErrDropped)},
		{"busy", 4, kError, newErrorBody(errBusy)},
		{"which jobs concern the node", 6, kMine, mineBody{Since: 5, Min: 7}},
		{"jobs", 6, kJobs, jobsBody{Jobs: []crowd.JobID{{0x22}, {0x33}}}},
	} {
		raw := encodeFrame(c.id, c.kind, c.body)
		f, err := readFrame(bytes.NewReader(raw), maxAnswer)
		if err != nil || f.ID != c.id || f.Kind != c.kind || !bytes.Equal(f.Body, crowd.Encode(c.body)) {
			t.Errorf("%s: got %+v, %v back", c.name, f, err)
		}
		v = append(v, vector{c.name, c.id, c.kind, hex.EncodeToString(f.Body), hex.EncodeToString(raw)})
	}
	golden(t, "light.json", v)
}

// TestVectors_Receipt plays one job, of a cheater and an honest executor, on the real ledger under real headers.
func TestVectors_Receipt(t *testing.T) {
	w := vectorWorld(t, 1, 3, 1)
	chain, authority, owner := w.genesis.ChainID(), w.authorities[0], w.people[0]
	keys := map[crowd.NodeID]*identity.Key{}
	for _, k := range w.providers {
		keys[k.ID()] = k
	}
	s, err := ledger.New(w.genesis)
	if err != nil {
		t.Fatal(err)
	}
	b := ledger.Block{Time: vectorStart, Proposer: authority.ID()}
	block := func(k *identity.Key, m ledger.Message) {
		t.Helper()
		b.Height, b.Time, b.Txs = b.Height+1, b.Time+5, nil
		if k != nil {
			tx, err := ledger.Open(chain, ledger.Sign(k, chain, s.Account(k.ID().Address()).Nonce, m))
			if err != nil {
				t.Fatal(err)
			}
			b.Txs = []ledger.Tx{tx}
		}
		r := s.Beacon().R
		proof, _ := authority.VRF().Prove(r[:])
		b.Beacon = &proof
		a, err := ledger.Apply(s, b)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range a.Results {
			if r != nil {
				t.Fatalf("%T: %v", m, r)
			}
		}
		s = a.State
	}
	spec := w.spec()
	spec.Task.Program = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	id := spec.ID(owner.ID(), 0)
	job := func() ledger.Job { j, _ := s.Job(id); return j }
	block(owner, &ledger.Post{Spec: spec})
	block(nil, nil)
	block(nil, nil)
	for _, k := range w.providers {
		proof, _ := k.VRF().Prove(ledger.DrawInput(id, k.ID(), job().Beacon))
		block(k, &ledger.Claim{Job: id, Proof: proof})
	}
	right := crowd.Outcome{Status: crowd.Exited, Gas: 5e8, Result: "bafybeiby32y6ilf4bgmvmumgxtzydrnguwyldqeshuiy3o2qqdenn5rbom"}
	openings := []ledger.Opening{{Outcome: right, Salt: crowd.Hash{1}}, {Outcome: right, Salt: crowd.Hash{2}}}
	openings[1].Outcome.Result = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354" // a lie
	for i, p := range job().Places {
		block(keys[p.Node], &ledger.Commit{Job: id, Commitment: ledger.Commitment(id, p.Node, openings[i]), Sealed: [][]byte{{1}}})
	}
	for i, p := range job().Places {
		block(keys[p.Node], &ledger.Reveal{Job: id, Opening: openings[i]})
	}
	block(authority, &ledger.Vote{Job: id, Question: ledger.WhatOutcome, Outcome: right})
	block(owner, &ledger.Accept{Job: id})

	ev := signed(t, w, b.Height+1, b.Time+5, s.Root(), crowd.Keccak256())
	record, proof := s.Prove(ledger.JobKey(id))
	r, err := verify.New(w.genesis, ev, record, proof)
	if err != nil {
		t.Fatal(err)
	}
	findings, good := verify.Check(r.Encode(), verify.Trust{Chain: chain, Result: right.Result,
		Header: func(g *ledger.Genesis, raw []byte) (verify.Header, error) {
			h, err := VerifyHeader(g, raw)
			return verify.Header{Chain: h.ChainID, Height: h.Height, Root: h.AppHash}, err
		}})
	if !good {
		t.Errorf("got %+v, want a good receipt", findings)
	}
	golden(t, "receipt.json", r.Encode())
}

// FuzzOutcome: the body in which a full node proves what became of a transaction.
func FuzzOutcome(f *testing.F) {
	w := vectorWorld(f, 2, 0, 0)
	tx, good := outcomeVector(f, w)
	v, err := newVerifier(w.genesis)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Data, good.Index, good.Total, good.Aunts[0], good.Aunts[1])
	f.Add([]byte{0x83}, int64(-1), int64(1<<62), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, data []byte, index, total int64, first, second []byte) {
		p := provenOutcome{Evidence: good.Evidence, Data: data, Index: index, Total: total, Aunts: [][]byte{first, second}}
		if _, _, err := p.verify(v, tx); err == nil && !bytes.Equal(data, good.Data) {
			t.Errorf("forged: %x", data)
		}
	})
}

// FuzzProved: a proven value as a node hands it on.
func FuzzProved(f *testing.F) {
	f.Add(crowd.Encode(Proved{Key: []byte("k"), Val: []byte{1}, Proof: ledger.Proof{2}, Evidence: Evidence{3}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p Proved
		if crowd.Decode(raw, &p) != nil {
			return
		}
		if again := crowd.Encode(p); !bytes.Equal(again, raw) {
			t.Errorf("got %x, want %x", again, raw)
		}
		if _, err := p.Verify(vectorWorld(t, 1, 0, 0).genesis); err == nil {
			t.Errorf("forged: %x", raw)
		}
	})
}
