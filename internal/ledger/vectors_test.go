package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/identity"
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
		t.Errorf("%s differs (UPDATE_SPEC=1 go test ./internal/ledger writes it): got\n%s", path, got)
	}
}

// scalar is the key with that private scalar.
func scalar(t testing.TB, n byte) *identity.Key {
	t.Helper()
	k, err := identity.FromBytes(append(make([]byte, 31), n))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// vectorGenesis has an authority with key 1 and two providers, 2 and 3; 4 owns credits.
func vectorGenesis(t testing.TB) *Genesis {
	g := &Genesis{Name: "vector", Time: 1_767_225_600_000, Params: DevParams(),
		Authorities: []Authority{{ID: scalar(t, 1).ID(), VRF: scalar(t, 1).VRF().Public(), Consensus: bytes.Repeat([]byte{0xc0}, 32)}}}
	for _, n := range []byte{2, 3} {
		g.Grants = append(g.Grants, Grant{ID: scalar(t, n).ID(), Balance: crowd.Credit, Stake: 200 * crowd.Credit, VRF: scalar(t, n).VRF().Public(),
			Offer: Offer{Price: crowd.ReferencePrice, Tags: []string{"gpu"}, Country: "GR"}})
	}
	g.Grants = append(g.Grants, Grant{ID: scalar(t, 4).ID(), Balance: 1000 * crowd.Credit})
	return g
}

func TestVectors_Genesis(t *testing.T) {
	g := vectorGenesis(t)
	s, err := New(g)
	if err != nil {
		t.Fatal(err)
	}
	raw := crowd.Encode(g)
	var back Genesis
	if err := crowd.Decode(raw, &back); err != nil || back.ChainID() != g.ChainID() {
		t.Errorf("got another genesis back, %v", err)
	}
	type entry struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	v := struct {
		Genesis  *Genesis   `json:"genesis"`
		Encoding string     `json:"encoding"`
		Chain    string     `json:"chain"`
		Beacon   crowd.Hash `json:"beacon"`
		State    []entry    `json:"state"`
		Root     crowd.Hash `json:"root"`
	}{g, hex.EncodeToString(raw), g.ChainID(), s.Beacon().R, nil, s.Root()}
	s.Each("", func(key string, val []byte) bool {
		v.State = append(v.State, entry{hex.EncodeToString([]byte(key)), hex.EncodeToString(val)})
		return true
	})
	golden(t, "genesis.json", v)
}

// everyMessage is one of each kind.
func everyMessage(t testing.TB) []Message {
	job, node := crowd.JobID{0x10}, scalar(t, 2).ID()
	proof, _ := scalar(t, 2).VRF().Prove([]byte("alpha"))
	opening := Opening{Outcome: crowd.Outcome{Status: crowd.Exited, ExitCode: 3, Gas: 5e8, Result: "bafyresult"}, Salt: crowd.Hash{0x5a}}
	return []Message{
		&Transfer{To: node.Address(), Amount: 5 * crowd.Credit},
		&Register{VRF: scalar(t, 2).VRF().Public(), Offer: Offer{Price: 900, Tags: []string{"gpu"}, Country: "GR"}, Stake: 100 * crowd.Credit},
		&Leave{},
		&Awake{},
		&Post{Spec: testSpec()},
		&Claim{Job: job, Proof: proof},
		&Commit{Job: job, Commitment: Commitment(job, node, opening), Sealed: [][]byte{{1, 2, 3}}},
		&Reveal{Job: job, Opening: opening},
		&GiveUp{Job: job, Reason: CannotRun, Why: "no space"},
		&Unseal{Job: job, Executor: node, Opening: opening},
		&Vote{Job: job, Question: WhatOutcome, Outcome: opening.Outcome},
		&Accept{Job: job},
		&Complain{Job: job},
		&Cancel{Job: job},
		&Tick{},
		&Report{Job: job, Verifier: node, Proof: batch.Proof{
			Index: 7, Leaf: batch.Leaf{Status: crowd.Exited, Gas: 12, Output: batch.Digest([]byte("out"), nil)}, Path: []batch.Node{{Hash: crowd.Hash{9}, Gas: 5}},
		}},
	}
}

func TestVectors_Transactions(t *testing.T) {
	const chain = "vector-000000000000000000000000"
	k := scalar(t, 2)
	type vector struct {
		Name    string     `json:"name"`
		Kind    uint8      `json:"kind"`
		Message string     `json:"message"`
		Nonce   uint64     `json:"nonce"`
		Body    string     `json:"body"`
		Digest  crowd.Hash `json:"digest"`
		Tx      string     `json:"tx"`
	}
	v := struct {
		Chain        string       `json:"chain"`
		Private      string       `json:"private"`
		Sender       crowd.NodeID `json:"sender"`
		Transactions []vector     `json:"transactions"`
	}{Chain: chain, Private: hex.EncodeToString(k.Bytes()), Sender: k.ID()}
	for i, m := range everyMessage(t) {
		if int(m.kind()) != i+1 || newMessage(m.kind()+1) != nil == (i+1 == len(everyMessage(t))) {
			t.Fatalf("%T: got kind %d, want %d; every kind must be here", m, m.kind(), i+1)
		}
		raw := Sign(k, chain, uint64(i), m)
		tx, err := Open(chain, raw)
		if err != nil || tx.Sender() != k.ID() || tx.Nonce() != uint64(i) || string(crowd.Encode(tx.Message())) != string(crowd.Encode(m)) {
			t.Errorf("%T: got %+v, %v back", m, tx, err)
		}
		var e envelope
		if err := crowd.Decode(raw, &e); err != nil {
			t.Fatal(err)
		}
		v.Transactions = append(v.Transactions, vector{fmt.Sprintf("%T", m)[len("*ledger."):], m.kind(), hex.EncodeToString(crowd.Encode(m)),
			uint64(i), hex.EncodeToString(e.Body), txDigest(e.Body), hex.EncodeToString(raw)})
	}
	golden(t, "transactions.json", v)
}

func TestVectors_Commitment(t *testing.T) {
	job, node, authority := crowd.JobID{0x10}, scalar(t, 2).ID(), scalar(t, 1)
	opening := Opening{Outcome: crowd.Outcome{Status: crowd.Exited, Gas: 5e8, Result: "bafyresult"}, Salt: crowd.Hash{0x5a}}
	plain, aad, once := Pad(&opening), SealPurpose(job, node), bytes.Repeat([]byte{0x21}, 32)
	sealed, err := identity.Seal(bytes.NewReader(once), authority.ID(), plain, aad)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := authority.Open(sealed, aad); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("opened: got %x, %v, want %x", got, err, plain)
	}
	golden(t, "commitment.json", struct {
		Job        crowd.JobID  `json:"job"`
		Node       crowd.NodeID `json:"node"`
		Opening    Opening      `json:"opening"`
		Encoding   string       `json:"encoding"`
		Commitment crowd.Hash   `json:"commitment"`
		Authority  string       `json:"authorityPrivate"`
		Ephemeral  string       `json:"ephemeral"`
		AAD        string       `json:"aad"`
		Sealed     string       `json:"sealed"`
	}{job, node, opening, hex.EncodeToString(plain), Commitment(job, node, opening),
		hex.EncodeToString(authority.Bytes()), hex.EncodeToString(once), hex.EncodeToString(aad), hex.EncodeToString(sealed)})
}

func TestVectors_Draw(t *testing.T) {
	type step struct {
		Private string             `json:"private"`
		Before  crowd.Hash         `json:"before"`
		Proof   identity.VRFProof  `json:"proof"`
		Output  identity.VRFOutput `json:"output"`
		After   crowd.Hash         `json:"after"`
	}
	type draw struct {
		Private  string             `json:"private"`
		Job      crowd.JobID        `json:"job"`
		Beacon   crowd.Hash         `json:"beacon"`
		Alpha    string             `json:"alpha"`
		Proof    identity.VRFProof  `json:"proof"`
		Output   identity.VRFOutput `json:"output"`
		Tickets  uint32             `json:"tickets"`
		Total    uint64             `json:"total"`
		Units    uint64             `json:"units"`
		Won      uint32             `json:"won"`
		Priority crowd.Hash         `json:"priority"`
	}
	var v struct {
		Beacon []step `json:"beacon"`
		Draws  []draw `json:"draws"`
	}
	beacon := Beacon{R: crowd.Digest("beacon", "vector")}
	for range 2 {
		k := scalar(t, 1)
		proof, out := k.VRF().Prove(beacon.R[:])
		next, err := beacon.NextBeacon(k.VRF().Public(), proof)
		if err != nil {
			t.Fatal(err)
		}
		v.Beacon = append(v.Beacon, step{hex.EncodeToString(k.Bytes()), beacon.R, proof, out, next.R})
		beacon = next
	}
	for i, c := range []struct {
		tickets      uint32
		total, units uint64
	}{{20, 40, 1000}, {20, 40, 40}, {100, 1000, 60}, {1, 1 << 40, 60}, {0, 0, 60}} {
		k, job := scalar(t, byte(2+i)), crowd.JobID{0x10, byte(i)}
		proof, out := k.VRF().Prove(DrawInput(job, k.ID(), beacon.R))
		won, priority := Won(out, c.tickets, c.total, c.units)
		d := Drawn{Node: k.ID(), VRF: k.VRF().Public(), Proof: proof, Tickets: c.tickets, Won: won, Priority: priority}
		if err := d.Check(job, beacon.R, c.total, c.units); (err == nil) != (won > 0) {
			t.Errorf("draw %d: won %d: got %v", i, won, err)
		}
		v.Draws = append(v.Draws, draw{hex.EncodeToString(k.Bytes()), job, beacon.R, hex.EncodeToString(DrawInput(job, k.ID(), beacon.R)),
			proof, out, c.tickets, c.total, c.units, won, priority})
	}
	golden(t, "draw.json", v)
}

func TestVectors_Audit(t *testing.T) {
	type lot struct {
		Job      crowd.JobID  `json:"job"`
		Executor crowd.NodeID `json:"executor"`
		Beacon   crowd.Hash   `json:"beacon"`
		Lot      uint32       `json:"lot"`
		Drawn    crowd.NodeID `json:"drawn"`
		Won      uint32       `json:"won"`
		Turn     crowd.Hash   `json:"turn"`
	}
	type rate struct {
		Pay   crowd.Credits `json:"pay"`
		Stake crowd.Credits `json:"stake"`
		Rate  uint32        `json:"rate"`
	}
	type least struct {
		Pay   crowd.Credits `json:"pay"`
		Rate  uint32        `json:"rate"`
		Stake crowd.Credits `json:"stake"`
	}
	type record struct {
		Honesty uint32 `json:"honesty"`
		Done    uint64 `json:"done"`
		Caught  uint64 `json:"caught"`
		Rate    uint32 `json:"rate"`
	}
	v := struct {
		Lots    []lot    `json:"lots"`
		Rates   []rate   `json:"rates"`
		Stakes  []least  `json:"stakes"`
		Records []record `json:"records"`
	}{}
	for i := range byte(4) {
		job, r := crowd.JobID{1, i}, crowd.Keccak256([]byte{i})
		e, d := scalar(t, 1).ID(), Drawn{Node: scalar(t, 2).ID(), Won: 1 + 3*uint32(i)}
		v.Lots = append(v.Lots, lot{job, e, r, AuditLot(job, e, r), d.Node, d.Won, d.Turn(job, r)})
	}
	for _, stake := range []crowd.Credits{0, 1, 1_000_000, 1_000_001, 5_000_000, 39_000_000, 39_000_001, 1_000_000_000} {
		v.Rates = append(v.Rates, rate{crowd.Credit, stake, AuditRate(crowd.Credit, stake)})
	}
	for _, r := range []uint32{50_000, 50_001, 333_333, 1_000_000} {
		v.Stakes = append(v.Stakes, least{crowd.Credit, r, AuditStake(crowd.Credit, r)})
	}
	p := MainParams().Reputation
	for _, r := range []Reputation{{}, {Done: 3}, {Done: 3, Passed: 97e12}, {Done: 97, Passed: 97e12}, {Done: 97, Passed: 97e12, Caught: 1}} {
		v.Records = append(v.Records, record{r.Honesty(&p, 0), r.Done, r.Caught, r.RecordRate(&p, 0)})
	}
	golden(t, "audit.json", v)
}

func TestVectors_State(t *testing.T) {
	type proof struct {
		Key   string  `json:"key"`
		Value *string `json:"value"` // null: nothing stands there
		Proof string  `json:"proof"`
	}
	type tree struct {
		Entries map[string]string `json:"entries"`
		Root    crowd.Hash        `json:"root"`
		Proofs  []proof           `json:"proofs"`
	}
	address, job := scalar(t, 2).ID().Address(), crowd.JobID{0x10}
	v := struct {
		Keys  map[string]string `json:"keys"`
		Trees []tree            `json:"trees"`
	}{Keys: map[string]string{
		"params":                 hex.EncodeToString(ParamsKey()),
		"authorities":            hex.EncodeToString(AuthoritiesKey()),
		"account of address":     hex.EncodeToString(AccountKey(address)),
		"provider of address":    hex.EncodeToString(ProviderKey(address)),
		"reputation of address":  hex.EncodeToString(ReputationKey(address)),
		"evidence of address":    hex.EncodeToString(EvidenceKey(address)),
		"job":                    hex.EncodeToString(JobKey(job)),
		"draw at height 7":       hex.EncodeToString([]byte(drawKey(7, job))),
		"due at 1767225600000ms": hex.EncodeToString([]byte(dueKey(1_767_225_600_000, job))),
	}}
	for _, n := range []int{0, 1, 2, 5} {
		s := treeState(n)
		tr := tree{Entries: map[string]string{}, Root: s.Root()}
		s.Each("", func(key string, val []byte) bool {
			tr.Entries[hex.EncodeToString([]byte(key))] = hex.EncodeToString(val)
			return true
		})
		for _, key := range []string{"key/0", "none"} {
			val, p := s.Prove([]byte(key))
			if n == 0 { // ics23 has no proof of absence from an empty tree
				continue
			}
			if err := VerifyProof(s.Root(), []byte(key), val, p); err != nil {
				t.Errorf("%d entries, %s: %v", n, key, err)
			}
			one := proof{Key: hex.EncodeToString([]byte(key)), Proof: hex.EncodeToString(p)}
			if val != nil {
				h := hex.EncodeToString(val)
				one.Value = &h
			}
			tr.Proofs = append(tr.Proofs, one)
		}
		v.Trees = append(v.Trees, tr)
	}
	golden(t, "state.json", v)
}

// TestVectors_Reputation: a history, and the record and the scores after each step.
func TestVectors_Reputation(t *testing.T) {
	type step struct {
		Time         crowd.Time `json:"time"`
		What         string     `json:"what"` // "honesty" or "availability"
		Good         bool       `json:"good"`
		PPM          uint32     `json:"ppm"` // d, or the weight
		Record       string     `json:"record"`
		Honesty      uint32     `json:"honesty"`
		Availability uint32     `json:"availability"`
		Weight       uint32     `json:"weight"`
	}
	type fading struct {
		X      uint32 `json:"x"`
		Halved uint64 `json:"halved"`
	}
	v := struct {
		Params ReputationParams `json:"params"`
		Halved []fading         `json:"halved"`
		Steps  []step           `json:"steps"`
	}{Params: mainReputation()}
	for _, x := range []uint32{0, 1, 1 << 23, 0xabcdef, 1<<24 - 1} {
		v.Halved = append(v.Halved, fading{x, halved(x)})
	}
	var r Reputation
	for i, s := range []step{
		{What: "honesty", Good: true, PPM: 1e6}, {What: "availability", Good: true, PPM: 1e6}, {What: "honesty", Good: true, PPM: 1e6},
		{What: "availability", PPM: 100_000}, {What: "honesty", PPM: 123_456}, {What: "honesty", Good: true, PPM: 500_000},
	} {
		s.Time = 1_767_225_600_000 + crowd.Time(i*i)*100_000_000
		if s.What == "honesty" {
			r.evidence(&v.Params, s.Good, s.PPM, s.Time)
		} else {
			r.availability(&v.Params, s.Good, s.PPM, s.Time)
		}
		s.Record, s.Honesty, s.Availability, s.Weight =
			hex.EncodeToString(crowd.Encode(&r)), r.Honesty(&v.Params, s.Time), r.Availability(&v.Params, s.Time), r.Weight(&v.Params, s.Time)
		v.Steps = append(v.Steps, s)
	}
	golden(t, "reputation.json", v)
}

// FuzzMessage: the body of a transaction of each kind.
func FuzzMessage(f *testing.F) {
	for _, m := range everyMessage(f) {
		f.Add(m.kind(), crowd.Encode(m))
	}
	f.Fuzz(func(t *testing.T, kind uint8, raw []byte) {
		m := newMessage(kind)
		if m == nil || crowd.Decode(raw, m) != nil {
			return
		}
		if again := crowd.Encode(m); !bytes.Equal(again, raw) {
			t.Errorf("kind %d: got %x, want %x", kind, again, raw)
		}
	})
}

// FuzzRecord: what a stranger says stands in the state.
func FuzzRecord(f *testing.F) {
	s, err := New(vectorGenesis(f))
	if err != nil {
		f.Fatal(err)
	}
	s.Each("", func(_ string, val []byte) bool { f.Add(val); return true })
	outcome := crowd.Outcome{Status: crowd.Exited, Gas: 1}
	f.Add(crowd.Encode(Job{Spec: testSpec(), Drawn: []Drawn{{}}, Places: []Place{{Opening: &Opening{}}}, Ballots: []Ballot{{}},
		Verdict: &Verdict{Outcome: outcome}, Payments: []Payment{{}}, History: []Step{{}}}))
	f.Add(crowd.Encode(Reputation{Missed: 1}))
	f.Add(crowd.Encode([]Evidence{{Passed: true}}))
	f.Add(crowd.Encode([]Epoch{{Number: 1}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, v := range []any{&Params{}, &[]Authority{}, &Beacon{}, &Supply{}, &Account{}, &Provider{}, &Reputation{}, &[]Evidence{}, &[]Epoch{}, &Job{}} {
			if crowd.Decode(raw, v) == nil && !bytes.Equal(crowd.Encode(v), raw) {
				t.Errorf("%T: got %x, want %x", v, crowd.Encode(v), raw)
			}
		}
	})
}

// FuzzGenesis: a genesis out of a receipt or a file either starts a chain whose credits add up, or is refused.
func FuzzGenesis(f *testing.F) {
	f.Add(crowd.Encode(vectorGenesis(f)))
	f.Add(crowd.Encode(&Genesis{}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var g Genesis
		if crowd.Decode(raw, &g) != nil {
			return
		}
		if again := crowd.Encode(&g); !bytes.Equal(again, raw) {
			t.Errorf("got %x, want %x", again, raw)
		}
		if s, err := New(&g); err == nil {
			if err := CheckInvariants(s); err != nil {
				t.Error(err)
			}
		}
	})
}
