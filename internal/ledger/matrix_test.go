package ledger

import (
	"fmt"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// This file holds what every message does at every state of a job, by whom it is sent, as tables. A table that is wrong is
// printed as it should be, to be read before it is pasted. A new state, kind of message or question of the court makes the tests fail
// until the tables have it.

// short are the refusals as the tables have them.
var short = map[Code]string{
	OK: "ok", BadTx: "bad tx", NoFunds: "no funds", BadSpec: "bad spec", OverBudget: "budget", NoProvider: "provider", NotFound: "not found",
	NotYours: "not yours", TooEarly: "early", TooLate: "late", Duplicate: "again", BadProof: "bad proof", NotEligible: "may not",
}

// moment is a chain at one block.
type moment struct {
	s      State
	height crowd.Height
	now    crowd.Time
}

func (w *world) moment() moment { return moment{w.s, w.height, w.now} }
func (w *world) back(m moment)  { w.s, w.height, w.now = m.s, m.height, m.now }
func allStates() (out []JobState) { // as long as they have a name
	for s := Posted; int(s) < len(stateNames); s++ {
		out = append(out, s)
	}
	return out
}

// matrix is one job, seen at each state it can be in.
type matrix struct {
	*world
	id       crowd.JobID
	at       map[JobState]moment
	actors   []string
	keys     map[string]*identity.Key
	openings map[crowd.NodeID]Opening
	report   func(j *Job) *Report
}

// message of a kind by an actor, as good as that one can make it.
func (m *matrix) message(kind uint8, q Question, k *identity.Key) Message {
	id := k.ID()
	j := m.job(m.id)
	placed := m.keys["executor"].ID() // whom acts by authorities are about
	switch newMessage(kind).(type) {
	case *Transfer:
		return &Transfer{To: m.owner.ID().Address(), Amount: 1}
	case *Register:
		return &Register{VRF: k.VRF().Public(), Offer: Offer{Price: 1}}
	case *Leave:
		return &Leave{}
	case *Awake:
		return &Awake{}
	case *Tick:
		return &Tick{}
	case *Post:
		spec := testSpec()
		spec.Task.Limits.Gas = 1e6
		return &Post{Spec: spec}
	case *Claim:
		return m.claimMsg(k, m.id).m
	case *Commit:
		c := &Commit{Job: m.id, Commitment: Commitment(m.id, id, m.openings[id])}
		if p := j.Place(id); p == nil || !p.Verifier || j.Bound() {
			for range m.authorities {
				c.Sealed = append(c.Sealed, []byte("sealed"))
			}
		}
		return c
	case *Reveal:
		return &Reveal{Job: m.id, Opening: m.openings[id]}
	case *GiveUp:
		return &GiveUp{Job: m.id, Reason: CannotRun}
	case *Unseal:
		return &Unseal{Job: m.id, Executor: placed, Opening: m.openings[placed]}
	case *Vote:
		v := &Vote{Job: m.id, Question: q, Executor: placed, Outcome: m.openings[placed].Outcome, Item: j.Asked(), Yes: true, Finding: Same}
		if q == OwnAnswer {
			v.Outcome = crowd.Outcome{Result: v.Outcome.Result}
		}
		return v
	case *Report:
		return m.report(&j)
	case *Accept:
		return &Accept{Job: m.id}
	case *Complain:
		return &Complain{Job: m.id}
	case *Cancel:
		return &Cancel{Job: m.id}
	}
	m.t.Fatalf("the table has no message of kind %d", kind)
	return nil
}

// table of what each message does at every state. Actors for whom a message does the same share a line.
func (m *matrix) table(rows [][2]int) string {
	var b strings.Builder
	line := func(what, who string, cells []string) {
		text := fmt.Sprintf("%-42s %-9s", what, who)
		for _, c := range cells {
			text += fmt.Sprintf(" %-9s", c)
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	var heads []string
	for _, s := range allStates() {
		heads = append(heads, s.String())
	}
	line("", "", heads)
	for _, row := range rows {
		kind, q := uint8(row[0]), Question(row[1])
		what := strings.TrimPrefix(fmt.Sprintf("%T", newMessage(kind)), "*ledger.")
		if q != 0 {
			what += ": " + q.String()
		}
		cells := map[string][]string{}
		count := map[string]int{}
		for _, who := range m.actors {
			for _, s := range allStates() {
				cells[who] = append(cells[who], m.cell(s, m.keys[who], kind, q))
			}
			count[strings.Join(cells[who], "|")]++
		}
		others, most := "", 1 // the actors for whom the same holds as for the most of the rest share a line
		for _, who := range m.actors {
			if same := strings.Join(cells[who], "|"); count[same] > most {
				others, most = same, count[same]
			}
		}
		for _, who := range m.actors {
			if strings.Join(cells[who], "|") != others {
				line(what, who, cells[who])
				what = ""
			}
		}
		if others != "" {
			who := "others"
			if most == len(m.actors) {
				who = "anybody"
			}
			line(what, who, strings.Split(others, "|"))
		}
	}
	return b.String()
}

// cell is "ok", the state that the job enters, or why the message is refused.
func (m *matrix) cell(s JobState, k *identity.Key, kind uint8, q Question) string {
	at, ok := m.at[s]
	if !ok {
		m.t.Fatalf("no job is %s", s)
	}
	m.back(at)
	if err := m.block(signed{k, m.message(kind, q, k)})[0]; err != nil {
		r := err.(*Refusal)
		cell, ok := short[r.Code]
		if !ok {
			m.t.Fatalf("message of kind %d at %s: %v", kind, s, err)
		}
		return cell
	}
	if now := m.job(m.id).State; now != s {
		return ">" + now.String()
	}
	return "ok"
}

// everyRow is each kind of message, and of votes each question.
func everyRow() (rows [][2]int) {
	for kind := 1; newMessage(uint8(kind)) != nil; kind++ {
		if _, ok := newMessage(uint8(kind)).(*Vote); !ok {
			rows = append(rows, [2]int{kind, 0})
			continue
		}
		for q := Question(1); !strings.HasPrefix(q.String(), "question "); q++ {
			rows = append(rows, [2]int{kind, int(q)})
		}
	}
	return rows
}

func (m *matrix) see(s JobState) {
	m.t.Helper()
	m.in(m.id, s)
	m.at[s] = m.moment()
}

// due lets the deadline of the job's state fall.
func (m *matrix) due() {
	m.t.Helper()
	m.now = max(m.now, m.job(m.id).Due)
	m.block()
}

func (m *matrix) dueUntil(s JobState) {
	m.t.Helper()
	for range 20 {
		if m.job(m.id).State != s {
			m.due()
		}
	}
	m.see(s)
}

// newMatrix posts a job and goes on until it is Running. The provider and the stranger get no place.
func newMatrix(t *testing.T, providers int, spec crowd.JobSpec, actors ...string) *matrix {
	m := &matrix{world: newWorld(t, 4, providers, func(g *Genesis) {
		g.Grants = append(g.Grants, Grant{ID: key(t, 950).ID(), Balance: 10 * crowd.Credit})
	}), at: map[JobState]moment{}, actors: actors, openings: map[crowd.NodeID]Opening{}}
	m.keys = map[string]*identity.Key{"owner": m.owner, "authority": m.authorities[0], "provider": m.providers[providers-1], "stranger": key(t, 950)}
	m.id = m.post(spec)
	m.see(Posted)
	m.block()
	m.block()
	m.see(Claiming)
	for _, k := range m.providers[:providers-1] {
		c := m.claimMsg(k, m.id)
		m.must(c.k, c.m)
	}
	m.due()
	m.see(Running)
	return m
}

func (m *matrix) compare(want string) {
	m.t.Helper()
	if got := m.table(everyRow()); strings.TrimSpace(got) != strings.TrimSpace(want) {
		a, b := strings.Split(strings.TrimSpace(want), "\n"), strings.Split(strings.TrimSpace(got), "\n")
		var diff []string
		for i := range max(len(a), len(b)) {
			var x, y string
			if i < len(a) {
				x = a[i]
			}
			if i < len(b) {
				y = b[i]
			}
			if x != y {
				diff = append(diff, "- "+x, "+ "+y)
			}
		}
		m.t.Errorf("%s\nthe whole table is now\n%s", strings.Join(diff, "\n"), got)
	}
}

// A pair, whose second executor lies.
func TestMatrix_Pair(t *testing.T) {
	m := newMatrix(t, 5, testSpec(), "owner", "executor", "authority", "provider", "stranger")
	var seated []*identity.Key
	j := m.job(m.id)
	for i, p := range j.Places {
		k := m.keyOf(p.Node)
		seated = append(seated, k)
		m.openings[k.ID()] = opening(k.ID(), []crowd.Outcome{right, wrong}[i])
	}
	m.keys["executor"] = seated[0]
	m.report = func(*Job) *Report { return &Report{Job: m.id, Verifier: seated[1].ID()} }
	commit := (&Commit{}).kind()
	reveal := (&Reveal{}).kind()

	m.must(m.owner, &Cancel{Job: m.id})
	m.see(Cancelled)
	m.back(m.at[Running])
	m.dueUntil(Failed)
	m.back(m.at[Running])
	for _, k := range seated {
		m.must(k, m.message(commit, 0, k))
	}
	m.see(Revealing)
	m.must(seated[1], m.message(reveal, 0, seated[1]))
	m.due()
	m.see(Unsealing)
	m.must(seated[0], m.message(reveal, 0, seated[0]))
	m.see(Court)
	for _, a := range m.authorities[1:] {
		m.must(a, &Vote{Job: m.id, Question: WhatOutcome, Outcome: right})
	}
	m.see(Delivering)
	m.must(m.owner, &Complain{Job: m.id})
	m.see(Inspecting)
	m.must(m.owner, &Accept{Job: m.id})
	m.see(Settled)
	m.compare(pairTable)
}

// A tolerant batch, of which the owner says that the verifiers' answers are beyond the tolerance.
func TestMatrix_TolerantBatch(t *testing.T) {
	spec := sampleSpec()
	spec.Compare = crowd.Compare{Kind: crowd.CompareLines}
	spec.Plan.Replacements = 1
	m := newMatrix(t, 5, spec, "owner", "executor", "verifier", "authority", "provider", "stranger")
	leaves, tree, out := sampleWork(t, never)
	var seated []*identity.Key
	j := m.job(m.id)
	for _, p := range j.Places {
		k := m.keyOf(p.Node)
		seated = append(seated, k)
		if !p.Verifier {
			m.openings[k.ID()] = Opening{Outcome: out, Salt: crowd.Hash{1}}
			continue
		}
		o := m.answers(k, m.id, func(uint32) bool { return true })
		o.Outputs = "bafyoutputs"
		m.openings[k.ID()] = o
	}
	m.keys["executor"], m.keys["verifier"] = seated[0], seated[1]
	first := m.openings[seated[1].ID()]
	lot := lotOf(m.world, &j, seated[1], &first)
	m.report = func(*Job) *Report {
		return &Report{Job: m.id, Verifier: seated[1].ID(), Proof: tree.Prove(lot[0], leaves[lot[0]])}
	}
	commit, reveal := (&Commit{}).kind(), (&Reveal{}).kind()

	m.must(m.owner, &Cancel{Job: m.id})
	m.see(Cancelled)
	m.back(m.at[Running])
	m.dueUntil(Failed)
	m.back(m.at[Running])
	for _, k := range seated {
		m.must(k, m.message(commit, 0, k))
	}
	m.see(Revealing)
	m.must(seated[2], m.message(reveal, 0, seated[2]))
	m.due()
	m.see(Unsealing)
	m.must(seated[1], m.message(reveal, 0, seated[1]))
	m.must(seated[0], m.message(reveal, 0, seated[0]))
	m.see(Delivering)
	m.must(m.owner, m.report(nil))
	m.see(Court)
	m.back(m.at[Delivering])
	m.must(m.owner, &Complain{Job: m.id})
	m.see(Inspecting)
	m.must(m.owner, &Accept{Job: m.id})
	m.see(Settled)
	m.compare(batchTable)
}

const pairTable = `
                                                     posted    claiming  running   revealing unsealing court     delivering inspecting settled   cancelled failed
Transfer                                   anybody   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
Register                                   executor  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           provider  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           others    no funds  no funds  no funds  no funds  no funds  no funds  no funds  no funds  no funds  no funds  no funds
Leave                                      executor  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           provider  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           others    not found not found not found not found not found not found not found not found not found not found not found
Awake                                      executor  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           provider  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           others    not found not found not found not found not found not found not found not found not found not found not found
Post                                       anybody   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
Claim                                      executor  early     ok        late      late      late      late      late      late      late      late      late
                                           provider  early     ok        late      late      late      late      late      late      late      late      late
                                           others    early     may not   late      late      late      late      late      late      late      late      late
Commit                                     executor  early     early     ok        late      late      late      late      late      late      late      late
                                           others    early     early     not yours late      late      late      late      late      late      late      late
Reveal                                     executor  early     early     early     ok        >court    late      late      late      late      late      late
                                           others    early     early     early     not yours not yours late      late      late      late      late      late
GiveUp                                     executor  early     early     ok        late      late      late      late      late      late      late      late
                                           others    early     early     not yours late      late      late      late      late      late      late      late
Unseal                                     authority early     early     early     early     >court    late      late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: what is the outcome                  authority early     early     early     early     early     ok        late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: is the seal bad                      authority early     early     early     early     ok        late      late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: can the result be fetched            authority early     early     early     early     early     early     early     ok        late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: what is the outcome of one item      authority early     early     early     early     early     not found late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: are the executor's leaves to be had  authority early     early     early     early     not found late      late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: is it the same answer                authority early     early     early     early     early     bad tx    late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: what is the court's own answer       authority early     early     early     early     early     bad tx    late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Accept                                     owner     early     early     early     early     early     early     >settled  >settled  late      late      late
                                           others    early     early     early     early     early     early     not yours not yours late      late      late
Complain                                   owner     early     early     early     early     early     early     >inspecting late      late      late      late
                                           others    early     early     early     early     early     early     not yours late      late      late      late
Cancel                                     owner     >cancelled early     >cancelled late      late      late      late      late      late      late      late
                                           others    not yours not yours not yours late      late      late      late      late      late      late      late
Tick                                       anybody   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
Report                                     anybody   early     early     early     early     early     early     not found not found late      late      late
`

const batchTable = `
                                                     posted    claiming  running   revealing unsealing court     delivering inspecting settled   cancelled failed
Transfer                                   anybody   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
Register                                   executor  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           verifier  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           provider  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           others    no funds  no funds  no funds  no funds  no funds  no funds  no funds  no funds  no funds  no funds  no funds
Leave                                      executor  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           verifier  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           provider  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           others    not found not found not found not found not found not found not found not found not found not found not found
Awake                                      executor  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           verifier  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           provider  ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
                                           others    not found not found not found not found not found not found not found not found not found not found not found
Post                                       anybody   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
Claim                                      executor  early     ok        late      late      late      late      late      late      late      late      late
                                           verifier  early     ok        late      late      late      late      late      late      late      late      late
                                           provider  early     ok        late      late      late      late      late      late      late      late      late
                                           others    early     may not   late      late      late      late      late      late      late      late      late
Commit                                     executor  early     early     ok        late      late      late      late      late      late      late      late
                                           verifier  early     early     ok        late      late      late      late      late      late      late      late
                                           others    early     early     not yours late      late      late      late      late      late      late      late
Reveal                                     executor  early     early     early     ok        ok        late      late      late      late      late      late
                                           verifier  early     early     early     ok        ok        late      late      late      late      late      late
                                           others    early     early     early     not yours not yours late      late      late      late      late      late
GiveUp                                     executor  early     early     ok        late      late      late      late      late      late      late      late
                                           verifier  early     early     ok        late      late      late      late      late      late      late      late
                                           others    early     early     not yours late      late      late      late      late      late      late      late
Unseal                                     authority early     early     early     early     ok        late      late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: what is the outcome                  authority early     early     early     early     early     bad tx    late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: is the seal bad                      authority early     early     early     early     ok        late      late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: can the result be fetched            authority early     early     early     early     early     early     early     ok        late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: what is the outcome of one item      authority early     early     early     early     early     bad tx    late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: are the executor's leaves to be had  authority early     early     early     early     not found late      late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: is it the same answer                authority early     early     early     early     early     ok        late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Vote: what is the court's own answer       authority early     early     early     early     early     ok        late      late      late      late      late
                                           others    not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours not yours
Accept                                     owner     early     early     early     early     early     early     >settled  >settled  late      late      late
                                           others    early     early     early     early     early     early     not yours not yours late      late      late
Complain                                   owner     early     early     early     early     early     early     >inspecting late      late      late      late
                                           others    early     early     early     early     early     early     not yours late      late      late      late
Cancel                                     owner     >cancelled early     >cancelled late      late      late      late      late      late      late      late
                                           others    not yours not yours not yours late      late      late      late      late      late      late      late
Tick                                       anybody   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
Report                                     owner     early     early     early     early     early     early     >court    >court    late      late      late
                                           authority early     early     early     early     early     early     >court    >court    late      late      late
                                           others    early     early     early     early     early     early     not yours not yours late      late      late
`
