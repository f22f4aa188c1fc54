package ledger

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/identity"
)

// This file plays scripts on the ledger: bytes that say which actors send which messages in which blocks. FuzzApply
// makes scripts up. A script is a header of scriptHeader bytes and then moves of moveSize bytes; a post takes specSize
// bytes more. A move either lets all actors of one job do the protocol's next step, with deviations for each actor, or
// lets any actor send any message. After each block the player checks what must always hold.

const (
	scriptHeader = 4
	moveSize     = 8
	specSize     = 16
	maxMoves     = 96 // a longer script is cut
	maxPlayed    = 5  // jobs of one script: further posts are left out
)

type player struct {
	t      testing.TB
	in     []byte
	st     *stage
	s      State
	height crowd.Height
	now    crowd.Time
	queue  []signed
	jobs   []*played
	liars  map[crowd.NodeID]bool // nodes that left the protocol: only these may lose stake
	minted crowd.Credits
	blocks []Block
	seen   map[JobState]int // how many jobs entered each state
	codes  map[Code]int     // how many messages were answered so
	kinds  map[string]int   // messages that were applied, by type
	// honestCourt: fewer than a third of the authorities may vote otherwise than they found.
	honestCourt bool
	// calm: in a step all providers claim and all authorities are honest, whatever its bits say: they are about places alone.
	calm bool
}

func newPlayer(t testing.TB, st *stage) *player {
	return &player{
		t: t, st: st, s: st.s, now: st.g.Time, minted: st.s.Supply().Minted,
		liars: map[crowd.NodeID]bool{}, seen: map[JobState]int{}, codes: map[Code]int{}, kinds: map[string]int{},
	}
}

// play runs a script and checks after each block what must hold.
func play(t testing.TB, script []byte) *player {
	var head [scriptHeader]byte
	rest := script[copy(head[:], script):]
	p := newPlayer(t, onStage(t, 1+int(head[0])%10, stagePrices[int(head[1])%len(stagePrices)], int(head[2])%stageRules))
	p.in, p.honestCourt, p.calm = rest, head[3]%4 != 3, head[3]/4%2 == 1
	for range maxMoves {
		if len(p.in) == 0 {
			break
		}
		p.move([moveSize]byte(p.take(moveSize)))
	}
	p.flush()
	p.runOut()
	return p
}

// take returns the next n bytes, zeros where the script has ended.
func (p *player) take(n int) []byte {
	b := make([]byte, n)
	p.in = p.in[copy(b, p.in):]
	return b
}

// The moves. A script's byte is taken modulo the number of moves.
const (
	moveStep  = iota // the protocol's next step of a job; the other moves are single acts
	moveStep2        // twice, so that random scripts get far
	moveStep3
	movePost
	moveWait
	moveFlush
	moveClaim
	moveCommit
	moveReveal
	moveGiveUp
	moveUnseal
	moveVote
	moveVote2
	moveReport
	moveOwner // accept, complain, cancel
	moveNode  // register, leave, awake, transfer, tick
	moves
)

func (p *player) move(m [moveSize]byte) {
	var j *played
	if len(p.jobs) > 0 {
		j = p.jobs[int(m[1])%len(p.jobs)]
	}
	kind := m[0] % moves
	if kind == movePost {
		p.post([specSize]byte(p.take(specSize)), m)
		return
	}
	switch kind {
	case moveWait:
		p.flush()
		p.wait(m)
		return
	case moveFlush:
		p.flush()
		return
	case moveNode:
		p.nodeAct(m)
		return
	}
	if j == nil || j.gone {
		return
	}
	switch kind {
	case moveStep, moveStep2, moveStep3:
		p.flush()
		p.step(j, m)
		p.flush()
	case moveClaim:
		k := p.actor(m[2])
		proof, _ := prove(k, DrawInput(j.id, k.ID(), j.last.Beacon))
		if m[3] == 1 {
			proof[m[4]%80] ^= m[5] | 1
		}
		p.send(k, &Claim{Job: j.id, Proof: proof})
	case moveCommit:
		p.commit(j, p.worker(j, m[2]), answerKind(m[3])%answerKinds, m[4])
	case moveReveal:
		p.reveal(j, p.worker(j, m[2]), m[3])
	case moveGiveUp:
		why := "no disk"
		if m[3] == 1 {
			why = string(make([]byte, maxWhy+int(m[4])%3))
		}
		p.send(p.worker(j, m[2]), &GiveUp{Job: j.id, Reason: Reason(1 + m[4]%5), Why: why}) // the fifth is none
	case moveUnseal:
		if w := p.worker(j, m[3]); true {
			o := j.bound[w.ID()].opening
			if m[4] == 1 {
				o.Salt[0] ^= 1
			}
			p.send(p.judge(m[2]), &Unseal{Job: j.id, Executor: w.ID(), Opening: o, Conflict: p.differing(j, w.ID(), m[5])})
		}
	case moveVote, moveVote2:
		p.anyVote(j, m)
	case moveReport:
		if c := p.differing(j, p.worker(j, m[3]).ID(), m[4]); c != nil {
			if m[5] == 1 {
				c.Leaf.Gas += crowd.Gas(m[6])
			}
			p.send(p.actor(m[2]), &Report{Job: j.id, Verifier: p.worker(j, m[3]).ID(), Proof: *c})
		}
	case moveOwner:
		from := j.owner
		if m[3]%8 == 7 {
			from = p.actor(m[2])
		}
		switch m[4] % 3 {
		case 0:
			p.send(from, &Accept{Job: j.id})
		case 1:
			p.send(from, &Complain{Job: j.id})
		case 2:
			p.send(from, &Cancel{Job: j.id})
		}
	}
}

// actor is anybody: a provider, an owner, an authority or a stranger.
func (p *player) actor(n byte) *identity.Key {
	all := slices.Concat(p.st.providers, p.st.owners, p.st.authorities, []*identity.Key{p.st.stranger})
	return all[int(n)%len(all)]
}

// worker is the node of one of the job's places, or else anybody.
func (p *player) worker(j *played, n byte) *identity.Key {
	if i := int(n); j.last != nil && i < len(j.last.Places) {
		return p.keyOf(j.last.Places[i].Node)
	}
	return p.actor(n)
}

// judge is an authority, or sometimes anybody.
func (p *player) judge(n byte) *identity.Key {
	if n >= 0xf0 {
		return p.actor(n)
	}
	return p.st.authorities[int(n)%len(p.st.authorities)]
}

func (p *player) keyOf(id crowd.NodeID) *identity.Key {
	for _, k := range slices.Concat(p.st.providers, p.st.owners, p.st.authorities, []*identity.Key{p.st.stranger}) {
		if k.ID() == id {
			return k
		}
	}
	p.t.Fatalf("no key of %s", id.Short())
	return nil
}

// send puts a message in the next block, as it would come out of Open.
func (p *player) send(k *identity.Key, m Message) { p.queue = append(p.queue, signed{k, m}) }

// honestly reports whether a party that gives that kind of answer follows the protocol.
func (j *played) honestly(kind answerKind) bool {
	return kind == truth || kind == nearTruth && !j.spec.Compare.Strict()
}

// commit lets a node commit. how: 0 in order; 1 with a bad seal; 2 without seals; 3 too many; 4 too long; 5 to nothing;
// 6 to what another has committed to; 7 in order, and it serves nothing.
func (p *player) commit(j *played, k *identity.Key, kind answerKind, how byte) {
	id := k.ID()
	place := j.last.Place(id)
	verifier := place != nil && place.Verifier
	b, again := j.bound[id]
	if !again || place != nil && place.Commitment == (crowd.Hash{}) {
		b = boundTo{kind: kind, opening: p.opening(j, k, verifier, kind)}
	}
	m := &Commit{Job: j.id, Commitment: Commitment(j.id, id, b.opening)}
	for range p.st.authorities {
		m.Sealed = append(m.Sealed, []byte("sealed"))
	}
	switch how % 8 {
	case 1:
		b.badSeal = true
	case 2:
		m.Sealed = nil
	case 3:
		m.Sealed = append(m.Sealed, []byte("sealed"))
	case 4:
		m.Sealed[0] = make([]byte, maxSealed+len(crowd.Hash{})*int(j.spec.Plan.Checks)*2+1)
	case 5:
		m.Commitment = crowd.Hash{}
	case 6:
		for i := range j.last.Places {
			m.Commitment = j.last.Places[i].Commitment
		}
		p.liars[id] = true
	case 7:
		b.hides = true
		p.liars[id] = true
	}
	if !j.honestly(b.kind) || b.badSeal {
		p.liars[id] = true
	}
	if place != nil && place.State == Working {
		j.bound[id] = b
	}
	p.send(k, m)
}

// reveal lets a node open. how: 0 in order; 1 with a conflict, if it has one; 2 another opening than it committed to.
func (p *player) reveal(j *played, k *identity.Key, how byte) {
	m := &Reveal{Job: j.id, Opening: j.bound[k.ID()].opening}
	switch how % 4 {
	case 1:
		m.Conflict = p.differing(j, k.ID(), how/4)
	case 2:
		m.Opening.Salt[31] ^= 1
	}
	p.send(k, m)
}

// differing is a proof of an item about which a verifier and the executor differ; nil if there is none. Of several it
// is one that the court has not looked at, if skip is even.
func (p *player) differing(j *played, verifier crowd.NodeID, skip byte) *batch.Proof {
	var tree *batch.Tree
	var kind answerKind
	for i := range j.last.Places {
		if pl := &j.last.Places[i]; !pl.Verifier {
			if b, ok := j.bound[pl.Node]; ok {
				kind = min(b.kind, lie)
				tree = j.trees[kind]
			}
		}
	}
	b, ok := j.bound[verifier]
	if tree == nil || !ok || len(b.opening.Answers) == 0 {
		return nil
	}
	_, lot := prove(p.keyOf(verifier), SampleInput(j.id, verifier, j.last.Beacon))
	for n, item := range Sampled(&j.spec, lot) {
		leaf := j.leaf(item, kind)
		if n >= len(b.opening.Answers) || leaf.Hash() == b.opening.Answers[n] || skip%2 == 0 && j.last.IsCleared(item) {
			continue
		}
		proof := tree.Prove(item, leaf)
		return &proof
	}
	return nil
}

// two are the two bits of a move for an actor.
func two(m [moveSize]byte, i int) byte { return m[4+i/4%4] >> (i % 4 * 2) & 3 }

// step lets all actors of a job do what the protocol wants of them next. m[2] chooses among ways to go on; the last
// four bytes hold two bits for each actor, in order of the places or of the authorities: 0 is honest.
func (p *player) step(j *played, m [moveSize]byte) {
	now := j.last
	switch now.State {
	case Posted:
		p.block(nil)
	case Claiming:
		for i, k := range p.st.providers {
			if two(m, i) != 3 || p.calm {
				proof, _ := prove(k, DrawInput(j.id, k.ID(), now.Beacon))
				p.send(k, &Claim{Job: j.id, Proof: proof})
			}
		}
		p.flush()
		if j.last.State == Claiming {
			p.until(j.last.Due)
		}
	case Running:
		bound, acted := now.Bound(), false
		for _, verifiers := range []bool{false, true} {
			for i := range now.Places {
				pl := &now.Places[i]
				if pl.State != Working || pl.Verifier != verifiers {
					continue
				}
				kind := answerKind(two(m, i))
				if kind == 3 { // silent
					continue
				}
				acted = true
				bound = bound || !verifiers
				how := byte(0)
				if verifiers && (!bound || m[2]&1 == 1 && pl.Commitment == crowd.Hash{}) {
					how = 2
				}
				if m[2]&2 != 0 && i == int(m[3])%len(now.Places) {
					how = 1
				}
				p.commit(j, p.keyOf(pl.Node), kind, how)
			}
		}
		if !acted {
			p.due(j)
		}
	case Revealing:
		acted := false
		for i := range now.Places {
			if pl := &now.Places[i]; pl.State == Committed && two(m, i) != 3 {
				acted = true
				how := two(m, i)
				if how == 1 && !j.spec.Compare.Strict() { // the chain would refuse the conflict, and the opening with it
					how = 0
				}
				p.reveal(j, p.keyOf(pl.Node), how)
			}
		}
		if !acted {
			p.due(j)
		}
	case Unsealing:
		acted := false
		for i := range now.Places {
			pl := &now.Places[i]
			if pl.State != Committed || two(m, i) == 3 {
				continue
			}
			acted = true
			b := j.bound[pl.Node]
			if b.badSeal {
				p.votes(j, m, func(bool) *Vote { return &Vote{Question: BadSeal, Executor: pl.Node, Yes: true} })
				continue
			}
			var c *batch.Proof
			if two(m, i) == 1 {
				c = p.differing(j, pl.Node, 0)
			}
			p.send(p.st.authorities[i%len(p.st.authorities)], &Unseal{Job: j.id, Executor: pl.Node, Opening: b.opening, Conflict: c})
		}
		if !acted {
			p.due(j)
		}
	case Court:
		p.court(j, m)
		if m[2]&3 == 3 {
			p.flush()
			p.due(j)
		}
	case Delivering:
		switch m[2] % 8 {
		case 0, 1:
			p.send(j.owner, &Accept{Job: j.id})
		case 2:
			p.send(j.owner, &Complain{Job: j.id})
		case 3:
			p.due(j)
		default: // somebody shows a conflict, or the owner accepts
			for i := range now.Places {
				pl := &now.Places[(i+int(m[3]))%len(now.Places)]
				if c := p.differing(j, pl.Node, 0); c != nil {
					from := j.owner
					if m[2]%8 == 6 {
						from = p.st.authorities[int(m[4])%len(p.st.authorities)]
					} else if m[2]%8 == 7 {
						from = p.actor(m[4])
					}
					p.send(from, &Report{Job: j.id, Verifier: pl.Node, Proof: *c})
					return
				}
			}
			p.send(j.owner, &Accept{Job: j.id})
		}
	case Inspecting:
		p.votes(j, m, func(honest bool) *Vote { return &Vote{Question: Retrievable, Yes: honest} })
		if m[2]&3 == 3 {
			p.flush()
			p.due(j)
		}
	default:
		p.due(j)
	}
}

// mayLie reports whether the authority of that number need not be honest in this script.
func (p *player) mayLie(i int) bool { return !p.honestCourt || 3*(i+1) < len(p.st.authorities) }

// votes lets each authority vote; ask is told whether it does so honestly. Of the two bits 3 is silence.
func (p *player) votes(j *played, m [moveSize]byte, ask func(honest bool) *Vote) {
	for i, a := range p.st.authorities {
		how := two(m, i)
		if p.calm {
			how = 0
		}
		if how == 3 {
			continue
		}
		v := ask(how == 0 || !p.mayLie(i))
		v.Job = j.id
		p.send(a, v)
	}
}

// court lets the authorities vote on what the court is asked.
func (p *player) court(j *played, m [moveSize]byte) {
	now := j.last
	switch {
	case !j.spec.Compare.Strict():
		for _, pl := range now.Judged() {
			p.votes(j, m, func(honest bool) *Vote {
				f := p.finding(j, pl)
				if !honest {
					f = f%Unjudged + 1
				}
				return &Vote{Question: SameAnswer, Executor: pl.Node, Item: now.Asked(), Finding: f}
			})
		}
	case now.Dispute != nil:
		p.votes(j, m, func(honest bool) *Vote {
			kind := truth
			if !honest {
				kind = nearTruth
			}
			return &Vote{Question: WhatItem, Item: now.Dispute.Item, Leaf: j.leaf(now.Dispute.Item, kind).Hash()}
		})
	default:
		p.votes(j, m, func(honest bool) *Vote {
			kind := truth
			if !honest {
				kind = lie
			}
			return &Vote{Question: WhatOutcome, Outcome: j.outcome(kind)}
		})
	}
}

// finding is what an honest authority finds about a place of a tolerant job.
func (p *player) finding(j *played, pl *Place) Finding {
	b := j.bound[pl.Node]
	switch {
	case j.broken:
		return Unjudged
	case b.hides:
		return Missing
	case j.honestly(b.kind):
		return Same
	case j.spec.Items > 0 && j.leaf(j.last.Asked(), min(b.kind, lie)) == j.leaf(j.last.Asked(), truth):
		return Same
	}
	return Other
}

// anyVote lets anybody vote anything; an honest authority leaves out what is false.
func (p *player) anyVote(j *played, m [moveSize]byte) {
	v := &Vote{Job: j.id, Question: Question(m[3] % 9), Executor: p.worker(j, m[4]).ID(), Yes: m[5]&1 == 1, Finding: Finding(m[5] % 6)}
	if now := j.last; m[6] == 0 {
		v.Item = now.Asked()
	} else {
		v.Item = uint32(m[6])
	}
	kind := answerKind(m[7]) % answerKinds
	if j.spec.Items > 0 {
		v.Leaf = j.leaf(v.Item, kind).Hash()
	}
	v.Outcome = j.outcome(kind)
	k := p.judge(m[2])
	if i := slices.Index(p.st.authorities, k); i >= 0 && !p.mayLie(i) {
		b := j.bound[v.Executor]
		pl := j.last.Place(v.Executor)
		switch v.Question {
		case WhatOutcome, WhatItem:
			v.Outcome, v.Leaf = j.outcome(truth), j.leaf(v.Item, truth).Hash()
		case BadSeal:
			v.Yes = b.badSeal
		case SameAnswer:
			if pl == nil {
				return
			}
			v.Finding = p.finding(j, pl)
		}
	}
	p.send(k, v)
}

// nodeAct lets anybody do what belongs to no job.
func (p *player) nodeAct(m [moveSize]byte) {
	k := p.actor(m[2])
	n := crowd.Credits(binary.LittleEndian.Uint16(m[4:]))
	switch m[3] % 6 {
	case 0:
		p.send(k, &Tick{})
	case 1:
		p.send(k, &Awake{})
	case 2:
		p.send(k, &Leave{})
	case 3:
		to := p.actor(m[6]).ID().Address()
		if m[7] == 1 {
			to, n = crowd.Address{}, math.MaxUint64
		}
		p.send(k, &Transfer{To: to, Amount: n << (m[7] % 48)})
	case 4:
		o := Offer{Price: crowd.Price(n), Tags: []string{"wasm"}, Country: "GR", Owners: uint32(m[6]) * 5000}
		p.send(k, &Register{VRF: k.VRF().Public(), Offer: o, Stake: n << (m[7] % 48)})
	case 5:
		p.send(k, &Register{VRF: k.VRF().Public(), Offer: Offer{Country: "gr", Owners: uint32(m[6]) << 24}})
	}
}

// wait lets block time pass.
func (p *player) wait(m [moveSize]byte) {
	g := &p.st.g.Params
	due, _ := p.s.NextDue()
	switch m[2] % 10 {
	case 0:
		p.until(due)
	case 1:
		p.until(due - 1)
	case 2:
		p.until(due + 1)
	case 3:
		p.until(p.now + crowd.Time(g.ClaimWindow))
	case 4:
		p.until(p.now + crowd.Time(g.DispatchGrace))
	case 5:
		p.until(p.now + crowd.Time(g.CourtWindow))
	case 6:
		p.until(p.now + crowd.Time(g.Unbonding))
	case 7:
		p.until(p.now + crowd.Time(g.Retention))
	case 8:
		p.until(p.now + crowd.Time(binary.LittleEndian.Uint32(m[4:])))
	case 9:
		p.block(nil)
	}
}

// due lets the deadline of a job's state pass.
func (p *player) due(j *played) {
	if j.last.Due == 0 {
		p.block(nil)
		return
	}
	p.until(j.last.Due)
}

func (p *player) until(t crowd.Time) {
	p.now = max(p.now, t)
	p.block(nil)
}

// flush puts what was sent into a block. It returns why each message was refused.
func (p *player) flush() []error {
	if len(p.queue) == 0 {
		return nil
	}
	q := p.queue
	p.queue = nil
	return p.block(q)
}

// block applies a block and checks what must hold after it.
func (p *player) block(msgs []signed) []error {
	p.t.Helper()
	p.height++
	p.now++
	b := Block{Height: p.height, Time: p.now, Proposer: p.st.authorities[int(p.height)%len(p.st.authorities)].ID()}
	nonces := map[crowd.NodeID]uint64{}
	for _, m := range msgs {
		id := m.k.ID()
		if _, ok := nonces[id]; !ok {
			nonces[id] = p.s.Account(id.Address()).Nonce
		}
		raw := crowd.Encode(m.m)
		msg := newMessage(m.m.kind())
		if len(raw)+200 > MaxTx || crowd.Decode(raw, msg) != nil { // Open refuses it
			continue
		}
		b.Txs = append(b.Txs, Tx{sender: id, nonce: nonces[id], msg: msg, size: len(raw) + 200})
		nonces[id]++
	}
	if len(b.Txs) > 0 || p.s.DrawPending() {
		r := p.s.Beacon().R
		proof, _ := prove(p.st.authorities[int(p.height)%len(p.st.authorities)], r[:])
		b.Beacon = &proof
	}
	p.blocks = append(p.blocks, b)
	before := p.s
	a, err := Apply(p.s, b)
	if err != nil {
		p.t.Fatalf("block %d: %v", p.height, err)
	}
	for _, bug := range a.Bugs {
		p.t.Fatalf("block %d: the ledger panics: %s\n%s", p.height, bug.Panic, bug.Stack)
	}
	p.s = a.State
	if len(b.Txs) == 1 && a.Results[0] != nil {
		p.checkTraceless(before, b, a)
	}
	for i, err := range a.Results {
		code := OK
		if r, ok := err.(*Refusal); ok {
			code = r.Code
		}
		p.codes[code]++
		if err == nil {
			p.kinds[fmt.Sprintf("%T", b.Txs[i].msg)]++
		}
	}
	for _, e := range a.Events {
		switch e := e.(type) {
		case JobMoved:
			p.seen[e.State]++
		case Slashed:
			if p.honestCourt && !p.liars[e.Node] {
				p.t.Fatalf("block %d: honest node %s lost %s in job %s", p.height, e.Node.Short(), e.Amount, e.Job.Short())
			}
		}
	}
	p.check()
	if len(a.Results) == 0 && len(msgs) > 0 { // none of them could be sent
		return []error{refuse(BadTx, "not sent")}
	}
	return a.Results
}
