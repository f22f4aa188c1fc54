package ledger

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/identity"
)

// answerKind is what a party says that a task comes to.
type answerKind uint8

const (
	truth       answerKind = iota
	nearTruth              // other bytes; the same answer where the job is tolerant, else a lie
	lie                    // beyond any tolerance
	tooMuchGas             // an outcome that no run can have
	noResult               //
	fewAnswers             // of a verifier; of an executor some, where it may have none
	falseSample            // of a verifier, and of an executor one at all
	hugeCID                //
	answerKinds
)

// bound is what a node has committed to in a job.
type boundTo struct {
	kind    answerKind
	opening Opening
	badSeal bool // what it sealed is no opening of its commitment
	hides   bool // it does not serve what it committed to
}

// played is a job that the script posted.
type played struct {
	id      crowd.JobID
	owner   *identity.Key
	spec    crowd.JobSpec
	usedGas crowd.Gas      // that one task, or one item, truly uses
	broken  bool           // the comparator does not know an output from itself
	trees   [3]*batch.Tree // of the first kinds of answers, where the items are few
	bound   map[crowd.NodeID]boundTo
	locked  crowd.Credits // escrow at the post
	last    *Job          // as the last block left it
	gone    bool          // from the state, after its retention
}

const fewItems = 64 // up to so many items a played batch has its leaves

// gases are limits at which something rounds or overflows.
var gases = []crowd.Gas{1, 2, 3, 249, 250, 251, 333, 999, 1000, 1001, 2001, 4001, 1e6, 1e9, 86_400_000_000_000, math.MaxUint64}

// spec makes a job out of a script's bytes. Most are valid; b[9] asks for one that is not, or is at a limit.
func (p *player) spec(b [specSize]byte) (s crowd.JobSpec, used crowd.Gas) {
	s = crowd.JobSpec{
		Task: crowd.Task{Program: "bafyprogram", Stdin: "bafyitems", Limits: crowd.Limits{Memory: 1 << 26, Output: 1 << 10}},
	}
	t := &s.Task
	if b[1] < 2*byte(len(gases)) {
		t.Limits.Gas = gases[int(b[1])%len(gases)]
	} else {
		t.Limits.Gas = crowd.Gas(1 + (uint32(b[2])|uint32(b[3])<<8)%5000)
	}
	items := []uint32{1, 2, 3, 4, 5, 7, 8, 16, 33, 1 << 20}[b[4]%10]
	if b[0]&1 == 1 {
		s.Compare = crowd.Compare{Kind: crowd.CompareLines, GasPPM: 200_000}
	}
	switch b[0] / 2 % 4 {
	case 0:
		s.Plan.Method = crowd.PlanSample
		s.Items = items
		s.Plan.Verifiers, s.Plan.Checks = 1+uint32(b[5])%8, []uint32{1, 2, 3, 5, 16, 256}[b[5]/8%6]
		if b[5] < 0x80 {
			s.Plan.Verifiers = 1 + uint32(b[5])%2
		}
		if s.Compare.Strict() && b[15]&2 != 0 {
			s.Shuffle = crowd.Shuffle{Parts: 1 + uint32(b[14]), Gather: b[15]&4 != 0}
		}
	case 1:
		s.Plan.Method = crowd.PlanPair
		if s.Compare.Strict() && b[4] >= 0xc0 {
			s.Items = items
		}
	case 2:
		s.Plan = crowd.Plan{Method: crowd.PlanCommittee, Executors: 3 + uint32(b[5])%7}
	case 3:
		s.Plan = crowd.Plan{Method: crowd.PlanAudit, Rate: []uint32{crowd.AuditFloor, 500_000, 1e6, 0, 1e6 + 1}[b[5]%5]}
	}
	if s.Plan.Replacements = uint32(b[13]) / 8 % 4; (s.Plan.Method == crowd.PlanSample || s.Plan.Method == crowd.PlanAudit) && b[13]/32%8 != 7 {
		s.Plan.Replacements++
	}
	s.Filters.MaxPrice = stagePrices[0]
	if pr, ok := p.s.Provider(p.st.providers[0].ID().Address()); ok {
		s.Filters.MaxPrice = pr.Offer.Price
	}
	if b[6] >= 0xc0 {
		s.Filters.MaxPrice = []crowd.Price{0, 1, 1000, 2000, 1_000_003, 1 << 40, math.MaxUint64}[b[6]%7]
	}
	switch b[7] % 4 {
	case 1:
		for i, k := range p.st.providers {
			if b[8]>>(i%8)&1 == 1 {
				s.Filters.Providers = append(s.Filters.Providers, k.ID())
			}
		}
	case 2:
		s.Filters.Countries = [][]string{{"GR"}, {"FR"}, {"GR", "FR"}, {"XX"}}[b[8]%4]
	case 3:
		s.Filters.Tags = [][]string{{"wasm"}, {"wasm", "wasm"}, {"gpu"}, nil}[b[8]%4]
	}
	switch b[11] % 5 {
	case 0:
		used = t.Limits.Gas
	case 1:
		used = 0
	case 2:
		used = t.Limits.Gas / 2
	case 3:
		used = t.Limits.Gas - 1
	case 4:
		used = 1
	}
	t.Limits.Wall = crowd.LeastWall(s.Limits())
	switch b[12] % 8 {
	case 6:
		t.Limits.Wall = crowd.MaxWall
	case 7:
		t.Limits.Wall -= time.Millisecond
	}
	if b[9] >= 0xc0 {
		p.spoil(&s, b[9], uint32(b[10]&1))
	}
	s.Budget = p.st.g.Params.EscrowFor(&s)
	switch b[13] % 8 {
	case 6:
		s.Budget = math.MaxUint64
	case 7:
		s.Budget--
	}
	return s, used
}

// spoil puts one field at its limit, or beyond it by over.
func (p *player) spoil(s *crowd.JobSpec, which byte, over uint32) {
	t := &s.Task
	text := func(n uint32) string { return string(make([]byte, n)) }
	letters := func(n int) (out []string) {
		for range n {
			out = append(out, "x")
		}
		return out
	}
	switch which % 25 {
	case 0:
		t.Program = ""
	case 1:
		t.Inputs = crowd.CID(text(crowd.MaxCID + over))
	case 2:
		t.Args = letters(crowd.MaxArgs + int(over))
	case 3:
		t.Args = []string{string(slices.Repeat([]byte("x"), crowd.MaxArgBytes+int(over)))}
	case 4:
		t.Env = []string{"A=" + text(over)}
	case 5:
		t.Limits.Gas = 0
	case 6:
		t.Limits.Memory = crowd.MaxMemory + uint64(over)
	case 7:
		t.Limits.Memory = 0
	case 8:
		t.Limits.Output = crowd.MaxOutput + uint64(over)
	case 9:
		t.Limits.Output = crowd.MaxItemOutput + uint64(over)
	case 10:
		t.Limits.Wall = crowd.MaxWall + time.Duration(over)
	case 11:
		t.Limits.Wall = -1
	case 12:
		s.Items = crowd.MaxItems + over
	case 13:
		t.Stdin = ""
	case 14:
		s.Plan.Verifiers = crowd.MaxVerifiers + over
	case 15:
		s.Plan.Checks = crowd.MaxChecks + over
	case 16:
		s.Plan.Executors = crowd.MaxCommittee + over
	case 17:
		s.Plan.Method = []string{"", "none"}[over]
	case 18:
		s.Compare = crowd.Compare{Kind: crowd.CompareNumeric, Rel: crowd.Parts - 1 + uint64(over)}
	case 19:
		s.Compare = crowd.Compare{Kind: crowd.CompareWasm, Program: "bafycompare", Gas: crowd.MaxCompareGas + crowd.Gas(over)}
	case 20:
		s.Filters.Tags = letters(crowd.MaxFilter + int(over))
	case 21:
		s.Shuffle.Parts = crowd.MaxParts + over
	case 22:
		s.Plan.Rate = 1e6 + over
	case 23:
		s.Filters.MaxPrice = math.MaxUint64
	case 24:
		s.Plan.Replacements = crowd.MaxReplacements + over
	}
}

func (p *player) post(b [specSize]byte, m [moveSize]byte) {
	p.flush()
	if len(p.jobs) >= maxPlayed {
		return
	}
	owner := p.st.owners[0]
	if b[14] >= 0xf0 {
		owner = p.actor(b[14])
	}
	spec, used := p.spec(b)
	if m[2]%8 == 7 { // something else in the same block
		nonce := p.s.Account(owner.ID().Address()).Nonce
		p.send(p.actor(m[3]), &Cancel{Job: spec.ID(owner.ID(), nonce)})
	}
	p.postSpec(owner, spec, used, b[15]&9 == 9)
}

// postSpec posts a job whose task, or each of whose items, truly uses so much gas, and lets the beacon come. It returns nil if the
// chain refuses the job.
func (p *player) postSpec(owner *identity.Key, spec crowd.JobSpec, used crowd.Gas, broken bool) *played {
	id := spec.ID(owner.ID(), p.s.Account(owner.ID().Address()).Nonce)
	j := &played{id: id, owner: owner, spec: spec, usedGas: used, broken: broken, bound: map[crowd.NodeID]boundTo{}}
	if n := spec.Items; n > 0 && n <= fewItems {
		for kind := range j.trees {
			leaves := make([]batch.Leaf, n)
			for i := range leaves {
				leaves[i] = j.leaf(uint32(i), answerKind(kind))
			}
			tree, err := batch.NewTree(leaves)
			if err != nil {
				break // more gas than can be counted: Validate refuses the spec
			}
			j.trees[kind] = tree
		}
	}
	p.queue = slices.Insert(p.queue, 0, signed{owner, &Post{Spec: spec}})
	if p.flush()[0] != nil {
		return nil
	}
	now, ok := p.s.Job(id)
	if !ok {
		p.t.Fatalf("job %s was posted and is not there", id.Short())
	}
	if j.locked = p.st.g.Params.EscrowFor(&spec); now.Escrow != j.locked && !now.State.Ended() {
		p.t.Fatalf("job %s locks %s, want %s", id.Short(), now.Escrow, j.locked)
	}
	j.last = &now
	p.jobs = append(p.jobs, j)
	p.block(nil)
	p.block(nil)
	return j
}

// leaf of an item of a batch, by a party that gives that kind of answer. A lie is about two items in three.
func (j *played) leaf(i uint32, kind answerKind) batch.Leaf {
	if kind == lie && i%3 == 1 {
		kind = truth
	}
	return batch.Leaf{Status: crowd.Exited, Gas: j.usedGas, Output: crowd.Keccak256(fmt.Appendf(nil, "%d %d", i, kind))}
}

// outcome of an executor that gives that kind of answer.
func (j *played) outcome(kind answerKind) crowd.Outcome {
	o := crowd.Outcome{Status: crowd.Exited, Gas: j.usedGas, Result: crowd.CID(fmt.Sprintf("bafy%d", min(kind, lie)))}
	if j.spec.Items > 0 {
		o.Leaves = "bafyleaves"
		if tree := j.trees[min(kind, lie)]; tree != nil {
			top := tree.Root().Top
			o.Root, o.Gas = top.Hash, top.Gas
		} else {
			o.Root, o.Gas = crowd.Hash{byte(kind) + 1}, j.usedGas*crowd.Gas(j.spec.Items)
		}
	}
	switch kind {
	case tooMuchGas:
		o.Gas = j.spec.Limits().Gas + 1
	case noResult:
		o.Result = ""
	case hugeCID:
		o.Result = crowd.CID(make([]byte, crowd.MaxCID+1))
	}
	return o
}

// opening of a node's place, with that kind of answer.
func (p *player) opening(j *played, k *identity.Key, verifier bool, kind answerKind) Opening {
	node := k.ID()
	o := Opening{Salt: crowd.Keccak256(node[:], j.id[:])}
	if !verifier {
		o.Outcome = j.outcome(kind)
		switch kind {
		case fewAnswers:
			o.Answers = []crowd.Hash{{1}}
		case falseSample:
			o.Sample = []byte{1}
		}
		return o
	}
	proof, lot := prove(k, SampleInput(j.id, node, j.last.Beacon))
	o.Sample = slices.Clone(proof[:])
	for _, item := range Sampled(&j.spec, lot) {
		l := j.leaf(item, min(kind, lie))
		o.Answers = append(o.Answers, l.Hash())
	}
	if !j.spec.Compare.Strict() {
		o.Outputs = "bafyoutputs"
	}
	switch kind {
	case tooMuchGas:
		o.Outcome.Gas = 1
	case noResult:
		o.Outputs = crowd.CID([]string{"", "bafyoutputs"}[min(1, 1-len(o.Outputs)/len("bafyoutputs"))])
	case fewAnswers:
		o.Answers = o.Answers[:len(o.Answers)-1]
	case falseSample:
		o.Sample[len(o.Sample)-1] ^= 1
	case hugeCID:
		o.Outputs = crowd.CID(make([]byte, crowd.MaxCID+1))
	}
	return o
}
