package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// signedHeader is a small real header: an authority's signature over chain,
// height and state root. The same receipts are checked under CometBFT's headers
// where nodes run.
type signedHeader struct {
	_      struct{} `cbor:",toarray"`
	Header Header
	Sig    identity.Signature
}

func verifyHeader(g *ledger.Genesis, evidence []byte) (Header, error) {
	var s signedHeader
	if err := crowd.Decode(evidence, &s); err != nil {
		return Header{}, err
	}
	if !identity.Verify(g.Authorities[0].ID, crowd.Digest("test header", s.Header), s.Sig) {
		return Header{}, errors.New("not signed by the authority")
	}
	return s.Header, nil
}

// stage is a real ledger with an authority, an owner and a few providers, one block for each message.
type stage struct {
	t                testing.TB
	g                *ledger.Genesis
	s                ledger.State
	b                ledger.Block
	authority, owner *identity.Key
	nodes            map[crowd.NodeID]*identity.Key
}

func newStage(t testing.TB, providers int, change ...func(*ledger.Params)) *stage {
	t.Helper()
	key := func(seed byte) *identity.Key {
		k, err := identity.Generate(rand.NewChaCha8([32]byte{seed}))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	st := &stage{t: t, authority: key(1), owner: key(2), nodes: map[crowd.NodeID]*identity.Key{}}
	st.g = &ledger.Genesis{Name: "test", Time: 1000, Params: ledger.DevParams(),
		Authorities: []ledger.Authority{{ID: st.authority.ID(), VRF: st.authority.VRF().Public()}},
		Grants:      []ledger.Grant{{ID: st.owner.ID(), Balance: 100 * crowd.Credit}}}
	for _, f := range change {
		f(&st.g.Params)
	}
	for i := range providers {
		k := key(byte(10 + i))
		st.nodes[k.ID()] = k
		st.g.Grants = append(st.g.Grants, ledger.Grant{ID: k.ID(), Balance: crowd.Credit, Stake: 100 * crowd.Credit, VRF: k.VRF().Public(),
			Offer: ledger.Offer{Price: crowd.ReferencePrice}})
	}
	var err error
	if st.s, err = ledger.New(st.g); err != nil {
		t.Fatal(err)
	}
	st.b = ledger.Block{Time: 1000, Proposer: st.authority.ID()}
	return st
}

// block applies one message, or none.
func (st *stage) block(k *identity.Key, m ledger.Message) {
	st.t.Helper()
	b := &st.b
	b.Height, b.Time, b.Txs, b.Beacon = b.Height+1, b.Time+5, nil, nil
	if k != nil {
		tx, err := ledger.Open(st.g.ChainID(), ledger.Sign(k, st.g.ChainID(), st.s.Account(k.ID().Address()).Nonce, m))
		if err != nil {
			st.t.Fatal(err)
		}
		b.Txs = []ledger.Tx{tx}
	}
	r := st.s.Beacon().R
	proof, _ := st.authority.VRF().Prove(r[:])
	b.Beacon = &proof
	a, err := ledger.Apply(st.s, *b)
	if err != nil {
		st.t.Fatal(err)
	}
	if k != nil && a.Results[0] != nil {
		st.t.Fatalf("%T: %v", m, a.Results[0])
	}
	st.s = a.State
}

// run posts spec and brings it to where the drawn nodes work.
func (st *stage) run(spec crowd.JobSpec) crowd.JobID {
	st.t.Helper()
	id := spec.ID(st.owner.ID(), st.s.Account(st.owner.ID().Address()).Nonce)
	st.block(st.owner, &ledger.Post{Spec: spec})
	st.block(nil, nil)
	st.block(nil, nil)
	for _, gr := range st.g.Grants[1:] {
		k := st.nodes[gr.ID]
		p, _ := st.s.Provider(k.ID().Address())
		if named := spec.Filters.Providers; p.Tombstoned || len(named) > 0 && !slices.Contains(named, gr.ID) {
			continue
		}
		proof, _ := k.VRF().Prove(ledger.DrawInput(id, k.ID(), st.job(id).Beacon))
		st.block(k, &ledger.Claim{Job: id, Proof: proof})
	}
	return id
}

func (st *stage) job(id crowd.JobID) ledger.Job { j, _ := st.s.Job(id); return j }

func (st *stage) receipt(id crowd.JobID) []byte {
	st.t.Helper()
	h := Header{Chain: st.g.ChainID(), Height: st.b.Height + 1, Root: st.s.Root()}
	header := crowd.Encode(signedHeader{Header: h, Sig: st.authority.Sign(crowd.Digest("test header", h))})
	record, proof := st.s.Prove(ledger.JobKey(id))
	r, err := New(st.g, header, record, proof)
	if err != nil {
		st.t.Fatal(err)
	}
	return r.Encode()
}

// played runs one job with two executors on the real ledger; the second lies when asked to.
func played(t testing.TB, cheat bool) (receipt []byte, chain string) {
	t.Helper()
	st := newStage(t, 3)
	id := st.run(pairSpec())
	st.settle(id, cheat)
	return st.receipt(id), st.g.ChainID()
}

func pairSpec() crowd.JobSpec {
	return crowd.JobSpec{
		Task: crowd.Task{Program: "bafyprogram", Args: []string{"--radius", "8"},
			Limits: crowd.Limits{Gas: 1e9, Memory: 1 << 26, Output: 1 << 20, Wall: 15 * time.Second}},
		Plan: crowd.Plan{Method: crowd.PlanPair}, Filters: crowd.Filters{MaxPrice: crowd.ReferencePrice}, Budget: 10 * crowd.Credit,
	}
}

// settle lets those who have a place do the work, and the owner accept. If cheat, the second lies.
func (st *stage) settle(id crowd.JobID, cheat bool) {
	st.t.Helper()
	right := crowd.Outcome{Status: crowd.Exited, Gas: 5e8, Result: "bafyright"}
	opening := func(i int) ledger.Opening {
		o := ledger.Opening{Outcome: right, Salt: crowd.Hash{byte(i)}}
		if cheat && i == 1 {
			o.Outcome.Result = "bafywrong"
		}
		return o
	}
	for i, p := range st.job(id).Places {
		if p.State != ledger.Working {
			continue
		}
		st.block(st.nodes[p.Node], &ledger.Commit{Job: id, Commitment: ledger.Commitment(id, p.Node, opening(i)), Sealed: [][]byte{{1}}})
	}
	for i, p := range st.job(id).Places {
		if p.State != ledger.Committed {
			continue
		}
		st.block(st.nodes[p.Node], &ledger.Reveal{Job: id, Opening: opening(i)})
	}
	if cheat {
		st.block(st.authority, &ledger.Vote{Job: id, Question: ledger.WhatOutcome, Outcome: right})
	}
	st.block(st.owner, &ledger.Accept{Job: id})
}

func TestNew_WantsAnEndedJob(t *testing.T) {
	st := newStage(t, 3)
	record, proof := st.s.Prove(ledger.JobKey(st.run(pairSpec())))
	if _, err := New(st.g, nil, record, proof); err == nil || !strings.Contains(err.Error(), "a receipt comes when it has ended") {
		t.Errorf("got %v", err)
	}
}

func failed(findings []Finding) (names []string) {
	for _, f := range findings {
		if !f.OK {
			names = append(names, f.Name)
		}
	}
	return names
}

func TestReceipt_GoodOnes(t *testing.T) {
	for _, cheat := range []bool{false, true} {
		receipt, chain := played(t, cheat)
		findings, good := Check(receipt, Trust{Chain: chain, Header: verifyHeader, Result: "bafyright"})
		if !good || len(findings) != 13 {
			t.Errorf("cheat %v: got %+v", cheat, findings)
		}
		if _, good := Check(receipt, Trust{Chain: chain, Header: verifyHeader, Result: "bafywrong"}); good {
			t.Error("another result passed")
		}
		if f, good := Check(receipt, Trust{Chain: "other", Header: verifyHeader}); good || failed(f)[0] != "chain" {
			t.Errorf("another chain: got %+v", f)
		}
		r, err := Decode(receipt)
		if err != nil {
			t.Fatal(err)
		}
		if by := r.Summary.Outcome.By; cheat != (by == ledger.ByCourt) {
			t.Errorf("cheat %v: verdict by %s", cheat, by)
		}
		var j ledger.Job
		if err := crowd.Decode(r.Evidence.Record, &j); err != nil {
			t.Fatal(err)
		}
		wantPaid := 2*ledger.DevParams().Pay(crowd.ReferencePrice, j.Verdict.Outcome.Gas) + j.Duties
		if cheat {
			wantPaid = 0
		}
		if r.Summary.Paid != wantPaid {
			t.Errorf("cheat %v: the owner paid %s want %s", cheat, r.Summary.Paid, wantPaid)
		}
	}
}

func TestReceipt_AnyByteChangedFailsAndSaysWhere(t *testing.T) {
	receipt, chain := played(t, true)
	step := 7 // coprime to base64's groups of four, so that each place of a group has its turn
	if os.Getenv("CROWD_NIGHT") != "" {
		step = 1
	}
	for i := 0; i < len(receipt); i += step {
		for _, x := range []byte{1, 0x20} {
			bad := bytes.Clone(receipt)
			bad[i] ^= x
			findings, good := Check(bad, Trust{Chain: chain, Header: verifyHeader})
			if good || len(failed(findings)) == 0 {
				t.Fatalf("byte %d of %d changed from %q to %q passed", i, len(receipt), receipt[i], bad[i])
			}
		}
	}
	if _, err := Decode(make([]byte, MaxReceipt+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("too long: got %v", err)
	}
	for _, bad := range [][]byte{nil, receipt[:len(receipt)-1], append(bytes.Clone(receipt), ' '), []byte("{}"), []byte("null\n")} {
		if _, good := Check(bad, Trust{Chain: chain, Header: verifyHeader}); good {
			t.Errorf("%.20q passed", bad)
		}
	}
}

// A forger who keeps the form right is caught by what the evidence proves.
func TestReceipt_ForgeriesAreNamed(t *testing.T) {
	receipt, chain := played(t, false)
	forge := func(change func(r *Receipt, j *ledger.Job)) []string {
		r, err := Decode(receipt)
		if err != nil {
			t.Fatal(err)
		}
		var j ledger.Job
		if err := crowd.Decode(r.Evidence.Record, &j); err != nil {
			t.Fatal(err)
		}
		change(r, &j)
		r.Evidence.Record = crowd.Encode(&j)
		r.Summary = summarize(chain, &j)
		findings, good := Check(r.Encode(), Trust{Chain: chain, Header: verifyHeader})
		if good {
			t.Error("a forgery passed")
		}
		return failed(findings)
	}
	for _, c := range []struct {
		want   string
		change func(r *Receipt, j *ledger.Job)
	}{
		{"job", func(_ *Receipt, j *ledger.Job) { j.Spec.Task.Args = []string{"--radius", "9"} }},
		{"draw", func(_ *Receipt, j *ledger.Job) { j.Drawn[0].Proof[5] ^= 1 }},
		{"draw", func(_ *Receipt, j *ledger.Job) { j.Drawn[0].Tickets = 1<<32 - 1 }}, // and costs no half hour
		{"draw", func(_ *Receipt, j *ledger.Job) { j.Drawn[0], j.Drawn[1] = j.Drawn[1], j.Drawn[0] }},
		{"draw", func(_ *Receipt, j *ledger.Job) { j.Places[0].Node[0] ^= 1 }},
		{"commitments", func(_ *Receipt, j *ledger.Job) { j.Places[0].Opening.Outcome.Result = "bafyother" }},
		{"verdict", func(_ *Receipt, j *ledger.Job) { j.Verdict.Outcome.Result = "bafyother" }},
		{"verdict", func(_ *Receipt, j *ledger.Job) { j.Verdict.By = ledger.ByCourt }},
		{"payments", func(_ *Receipt, j *ledger.Job) { j.Payments[0].Amount *= 3 }},
		{"payments", func(_ *Receipt, j *ledger.Job) { j.Payments = j.Payments[:1] }},
		{"payments", func(_ *Receipt, j *ledger.Job) { j.Places[0].Slashed = 1 }},
		{"header", func(r *Receipt, _ *ledger.Job) { r.Evidence.Header[40] ^= 1 }},
		{"state proof", func(r *Receipt, _ *ledger.Job) { r.Evidence.Proof = nil }},
		{"state proof", func(_ *Receipt, j *ledger.Job) { j.History[0].Why = "a lie" }},
	} {
		if got := forge(c.change); !strings.Contains(strings.Join(got, ","), c.want) {
			t.Errorf("got %v want %q among them", got, c.want)
		}
	}
	var raw map[string]map[string]any
	if err := json.Unmarshal(receipt, &raw); err != nil {
		t.Fatal(err)
	}
	if s, _ := raw["evidence"]["record"].(string); len(s) == 0 {
		t.Error("the record is not in the file")
	} else if _, err := base64.StdEncoding.DecodeString(s); err != nil {
		t.Error(err)
	}
	r, _ := Decode(receipt)
	r.Summary.Paid = 1
	if f, good := Check(r.Encode(), Trust{Chain: chain, Header: verifyHeader}); good || failed(f)[0] != "summary" {
		t.Errorf("a summary that lies: got %+v", f)
	}
}

func FuzzCheck(f *testing.F) {
	receipt, chain := played(f, true)
	f.Add(receipt)
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, good := Check(data, Trust{Chain: chain, Header: verifyHeader}); good && !bytes.Equal(data, receipt) {
			t.Errorf("another receipt passed: %q", data)
		}
	})
}

// Accepted against simulation: the lot seats nodes, those of a ring lie alike, and an audit is done by one more.
func TestAccepted_MatchesSimulation(t *testing.T) {
	const ring = 200_000
	for _, p := range []crowd.Plan{
		{Method: crowd.PlanPair}, {Method: crowd.PlanCommittee, Executors: 3}, {Method: crowd.PlanCommittee, Executors: 4},
		{Method: crowd.PlanAudit, Rate: crowd.AuditFloor}, {Method: crowd.PlanAudit, Rate: 400_000},
	} {
		n, _ := ledger.Seats(&p)
		one := p
		one.Rate += 300_000
		mutants := map[string]float64{"a rate that is not its own": Accepted(&one, ring).Float()}
		if p.Method != crowd.PlanAudit {
			mutants = map[string]float64{"one executor fewer": Colluding(ring, uint32(n-1)).Float(), "one more": Colluding(ring, uint32(n+1)).Float()}
		}
		simulate(t, 400_000, Accepted(&p, ring).Float(), mutants, func(r *rand.Rand) bool {
			liar := func() bool { return r.IntN(Million) < ring }
			seats := n
			if r.IntN(Million) < int(p.Rate) {
				seats++
			}
			for range seats {
				if !liar() {
					return false
				}
			}
			return true
		})
	}
}

func TestFor_TheCheapestThatReachesIt(t *testing.T) {
	for _, c := range []struct {
		confidence float64
		want       crowd.Plan
	}{
		{0.5, crowd.Plan{Method: crowd.PlanAudit, Rate: crowd.AuditFloor, Replacements: 1}}, // never below the floor
		{0.808, crowd.Plan{Method: crowd.PlanAudit, Rate: crowd.AuditFloor, Replacements: 1}},
		{0.85, crowd.Plan{Method: crowd.PlanAudit, Rate: 277_778, Replacements: 1}},
		{0.9, crowd.Plan{Method: crowd.PlanPair}},
		{0.99, crowd.Plan{Method: crowd.PlanPair}},
		{0.991, crowd.Plan{Method: crowd.PlanCommittee, Executors: 3}},
		{0.999, crowd.Plan{Method: crowd.PlanCommittee, Executors: 3}},
		{0.9999, crowd.Plan{Method: crowd.PlanCommittee, Executors: 4}},
		{0.999999999, crowd.Plan{Method: crowd.PlanCommittee, Executors: 9}},
	} {
		p, err := For(c.confidence, DefaultColluding)
		if err != nil || p.Spec() != c.want || p.Undetected > 1-c.confidence+1e-12 {
			t.Errorf("confidence %v: got %+v %v want %+v", c.confidence, p, err, c.want)
		}
		if q := p.Spec(); Stated(&q) != p {
			t.Errorf("confidence %v: planned %+v, stated %+v", c.confidence, p, Stated(&q))
		}
	}
	for _, c := range [][2]float64{{0.9999999999, 0.1}, {1, 0.1}, {-1, 0.1}, {math.NaN(), 0.1}, {0.5, 2}, {0.99, 0.7}, {0, 2}, {0, -0.1}, {0, math.NaN()}} {
		if _, err := For(c[0], c[1]); err == nil {
			t.Errorf("confidence %v at %v was promised", c[0], c[1])
		}
	}
	for nodes, want := range map[int]float64{1: 0, 2: 0.01, 3: 0.001, 9: 1e-9, 100: 1e-9} {
		if p, ok := Most(nodes); ok != (nodes > 1) || p.Undetected != want {
			t.Errorf("%d nodes: got %+v want %v", nodes, p, want)
		}
	}
}
