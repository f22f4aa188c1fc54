package ledger

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/crowdcompute/crowd"
)

// scriptOf writes a script: the stage, then its moves.
func scriptOf(authorities, price, rules, court byte, moves ...[]byte) []byte {
	return append([]byte{authorities - 1, price, rules, court}, slices.Concat(moves...)...)
}

// Specs of scripts, as player.spec reads them.
const (
	plainSample = 0
	plainPair   = 2
	plainGroup  = 4
	plainAudit  = 6
	tolerant    = 1 // added to one of the others
)

func posted(plan byte, change ...func(b []byte)) []byte {
	b := make([]byte, moveSize+specSize)
	b[0] = movePost
	spec := b[moveSize:]
	spec[0], spec[1], spec[4] = plan, 12, 7 // 1e6 gas, 16 items
	for _, f := range change {
		f(spec)
	}
	return b
}

func with(at int, val byte) func(b []byte) { return func(b []byte) { b[at] = val } }

// step is the protocol's next step: way, argument, then two bits for each actor.
func step(bytes ...byte) []byte {
	b := make([]byte, moveSize)
	copy(b[2:], bytes)
	return b
}

func act(kind byte, bytes ...byte) []byte {
	b := make([]byte, moveSize)
	b[0] = kind
	copy(b[2:], bytes)
	return b
}

func again(n int, move []byte) []byte { return slices.Repeat(move, n) }

// scripts are seeds, each of which leads somewhere deep. honest is a court without liars.
func scripts() map[string][]byte {
	const honest = 0
	s := map[string][]byte{
		"nothing":               {},
		"a pair is paid":        scriptOf(1, 0, 0, honest, posted(plainPair), again(4, step())),
		"a pair in court":       scriptOf(4, 0, 0, honest, posted(plainPair), step(), step(0, 0, 2), again(3, step())),
		"all lie":               scriptOf(4, 0, 0, honest, posted(plainPair), step(), step(0, 0, 0b1010), again(3, step())),
		"silent executor":       scriptOf(4, 0, 0, honest, posted(plainPair), step(), step(), step(0, 0, 0b11), step(0, 0, 0xff), again(4, step())),
		"bad seal":              scriptOf(4, 0, 0, honest, posted(plainPair), step(), step(2, 0), step(0, 0, 0b11), step(0, 0, 0xff, 0xff, 0xff, 0xff), again(4, step())),
		"a committee":           scriptOf(7, 1, 0, honest, posted(plainGroup, with(5, 2)), step(), step(0, 0, 2), again(4, step())),
		"a largest committee":   scriptOf(7, 1, 0, honest, posted(plainGroup, with(5, 6)), step(), step(0, 0, 2), again(4, step())),
		"an audit, not chosen":  scriptOf(1, 0, 0, honest, posted(plainAudit), again(6, step())),
		"an audit, chosen":      scriptOf(4, 0, 0, honest, posted(plainAudit, with(5, 2)), again(8, step())),
		"a lie, audited":        scriptOf(4, 0, 0, honest, posted(plainAudit, with(5, 2)), step(), step(0, 0, 2), again(8, step())),
		"owner complains":       scriptOf(4, 0, 0, honest, posted(plainPair), again(3, step()), step(2), step(), step()),
		"owner is silent":       scriptOf(4, 0, 0, honest, posted(plainPair), again(3, step()), step(3), step(3, 0, 0xff, 0xff)),
		"the result is lost":    scriptOf(4, 0, 0, 3, posted(plainPair), again(3, step()), step(2), step(0, 0, 0x55, 0x55)),
		"cancelled":             scriptOf(1, 0, 0, honest, posted(plainPair), step(), act(moveOwner, 0, 0, 2), act(moveFlush)),
		"nobody claims":         scriptOf(1, 0, 0, honest, posted(plainPair), step(0, 0, 0xff, 0xff, 0xff), step()),
		"all give up":           scriptOf(1, 0, 0, honest, posted(plainPair), step(), act(moveGiveUp, 0), act(moveGiveUp, 1), act(moveFlush), act(moveGiveUp, 2), act(moveWait), again(9, act(moveWait))),
		"a batch":               scriptOf(4, 0, 0, honest, posted(plainSample), again(6, step())),
		"a batch in two steps":  scriptOf(4, 0, 0, honest, posted(plainSample), step(), step(1), again(6, step())),
		"a lie in a batch":      scriptOf(4, 0, 0, honest, posted(plainSample, with(5, 33)), step(), step(0, 0, 2), step(0, 0, 0b010100), again(4, step())),
		"a framer":              scriptOf(4, 0, 0, honest, posted(plainSample, with(5, 33)), step(), step(0, 0, 0b1000), step(0, 0, 0b010100), again(4, step())),
		"leaves are hidden":     scriptOf(4, 0, 0, honest, posted(plainSample), step(), step(), step(0, 0, 0b111100), step(0, 0, 0xff), act(moveVote, 0, 5, 0, 0), act(moveVote, 1, 5), act(moveVote, 2, 5), act(moveFlush)),
		"silent verifiers":      scriptOf(4, 0, 0, honest, posted(plainSample, with(5, 33)), step(), step(0, 0, 0b1000), step(0, 0, 0b111100), step(0, 0, 0xff), step(0, 0, 0b010100), again(4, step())),
		"a shuffle":             scriptOf(4, 0, 0, honest, posted(plainSample, with(15, 2)), again(6, step())),
		"tolerant pair":         scriptOf(4, 0, 0, honest, posted(plainPair|tolerant), step(), step(0, 0, 1), again(4, step())),
		"tolerant pair, a lie":  scriptOf(7, 0, 0, honest, posted(plainPair|tolerant), step(), step(0, 0, 2), again(4, step())),
		"comparator fails":      scriptOf(4, 0, 0, honest, posted(plainPair|tolerant, with(15, 9)), step(), step(0, 0, 1), again(4, step())),
		"many authorities":      scriptOf(10, 4, 3, honest, posted(plainGroup|tolerant, with(5, 2)), step(), step(0, 0, 0b100001), again(4, step())),
		"a batch's comparator":  scriptOf(4, 0, 0, honest, posted(plainSample|tolerant, with(5, 32), with(15, 9)), step(), step(0, 0, 1), step(), step(4), again(4, step())),
		"a batch's lie":         scriptOf(4, 0, 0, honest, posted(plainSample|tolerant, with(5, 33)), step(), step(0, 0, 2), step(), step(4), again(4, step())),
		"everything is burned":  scriptOf(4, 0, 4, honest, posted(plainPair), step(), step(0, 0, 2), again(3, step())),
		"rests everywhere":      scriptOf(3, 1, 1, honest, posted(plainGroup, with(5, 3), with(1, 5)), step(), step(0, 0, 2), again(3, step())),
		"few of them win":       scriptOf(1, 0, 2, honest, posted(plainPair), again(5, step())),
		"a node leaves":         scriptOf(1, 0, 0, honest, act(moveNode, 0, 2), act(moveWait, 6), act(moveNode, 0, 2), act(moveNode, 0, 4, 0, 1, 0, 20), act(moveFlush), posted(plainPair), again(4, step())),
		"two jobs at a time":    scriptOf(4, 0, 0, honest, posted(plainPair), posted(plainAudit), step(), []byte{0, 1, 0, 0, 0, 0, 0, 0}, step(0, 0, 2), []byte{0, 1, 0, 0, 2, 0, 0, 0}, again(3, step()), again(6, []byte{0, 1, 0, 0, 0, 0, 0, 0})),
		"spec beyond a limit":   scriptOf(1, 0, 0, honest, posted(plainPair, with(9, 0xc2), with(10, 1))),
		"the dearest job":       scriptOf(1, 0, 0, honest, posted(plainPair, with(1, 14), with(6, 0xc0+3)), again(4, step())),
		"a batch of the most":   scriptOf(1, 0, 0, honest, posted(plainSample, with(4, 9)), again(4, step())),
		"too few are eligible":  scriptOf(1, 0, 0, honest, posted(plainPair, with(7, 1), with(8, 1))),
		"refused messages":      scriptOf(1, 0, 0, honest, posted(plainPair), act(moveCommit, 0), act(moveFlush), act(moveReveal, 0), act(moveFlush), act(moveVote, 0, 1), act(moveFlush), act(moveReport, 0), act(moveOwner, 0, 7, 1), act(moveFlush)),
		"no job":                scriptOf(1, 0, 1, honest, act(moveNode, 0, 0), act(moveNode, 1, 1), act(moveNode, 10, 3, 100, 0, 4), act(moveNode, 4, 5), act(moveFlush)),
		"court without verdict": scriptOf(4, 0, 0, honest, posted(plainPair|tolerant), step(), step(0, 0, 2), step(), step(3, 0, 0b11111100), step()),
	}
	// Every place is paid in full, and the court sits in vain as often as it may.
	for _, gas := range [][2]byte{{0, 0}, {8, 0}, {0xd0, 7}, {0xa0, 15}} {
		for _, n := range []byte{1, 4, 7} {
			var moves [][]byte
			moves = append(moves, posted(plainSample|tolerant, with(1, 0xff), with(2, gas[0]), with(3, gas[1]), with(5, 33)), step(), step(0, 0, 0b0100), step())
			for range IdleDisputes {
				moves = append(moves, step(4), step())
			}
			moves = append(moves, step())
			s[fmt.Sprintf("idle disputes before %d authorities, gas %x", n, gas)] = scriptOf(n, 0, 0, honest, moves...)
		}
	}
	return s
}

// randomScript is a script that gets far more often than one of random bytes does: most moves are steps, and the actors of
// a script have habits.
func randomScript(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	few := func(n int) byte { return byte(r.IntN(n)) }
	any := func() byte { return byte(r.Uint32()) }
	deviation := r.IntN(4) // habit: how many of the actors deviate, in quarters
	ways := [][]byte{{0}, {0, 1, 2, 3}, {4}, {4, 5, 6, 7}}[r.IntN(4)]
	bits := func() (b byte) {
		for i := range 4 {
			if r.IntN(4) < deviation {
				b |= []byte{1, 1, 2, 3}[r.IntN(4)] << (2 * i)
			}
		}
		return b
	}
	habit := [4]byte{bits(), bits(), bits(), bits()} // the same in every step, in half of the scripts
	constant := r.IntN(2) == 0
	script := []byte{few(10), few(len(stagePrices)), few(stageRules), few(8)}
	if r.IntN(2) == 0 {
		script[2] = 0
	}
	jobs, odd := 1+r.IntN(3), 20
	if r.IntN(3) == 0 { // one job and nothing but its steps, in a calm court
		jobs, odd, script[3] = 1, 14, script[3]|4
	}
	for range 6 + r.IntN(24) {
		m := make([]byte, moveSize)
		m[1] = few(jobs)
		switch n := 1 + r.IntN(odd); {
		case len(script) == scriptHeader || n == 20:
			spec := make([]byte, specSize)
			for i := range spec {
				spec[i] = any()
			}
			if r.IntN(2) == 0 { // nothing that is likely to be refused
				spec[6], spec[7], spec[9], spec[12], spec[13], spec[14] = 0, 0, 0, 0, 0, 0
			}
			m[0] = movePost
			m = append(m, spec...)
		case n < 15:
			m[2], m[3] = ways[r.IntN(len(ways))], few(4)
			copy(m[4:], habit[:])
			if !constant {
				copy(m[4:], []byte{bits(), bits(), bits(), bits()})
			}
		default:
			m[0] = few(moves)
			if m[0] == movePost {
				m[0] = moveFlush
			}
			for i := 2; i < moveSize; i++ {
				m[i] = []byte{0, 1, few(12), any()}[r.IntN(4)]
			}
		}
		script = append(script, m...)
	}
	return script
}

func TestPlay_RandomScripts(t *testing.T) {
	n := uint64(200)
	if os.Getenv("CROWD_NIGHT") != "" {
		n = 100_000
	}
	for seed := range n {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { play(t, randomScript(seed)) })
	}
}

// FuzzApply plays made-up scripts: specs and messages of owners, providers, authorities and strangers.
func FuzzApply(f *testing.F) {
	all := scripts()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f.Add(all[name])
	}
	f.Fuzz(func(t *testing.T, script []byte) { play(t, script) })
}

// The seeds must lead into every state and to every answer, or the fuzzing begins from nothing.
func TestPlay_TheScriptsGoEverywhere(t *testing.T) {
	all := scripts()
	states, codes, kinds := map[JobState]int{}, map[Code]int{}, map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			p := play(t, all[name])
			s := p.st.s
			for _, b := range p.blocks { // the same blocks give the same state
				a, err := Apply(s, b)
				if err != nil {
					t.Fatal(err)
				}
				s = a.State
			}
			if s.Root() != p.s.Root() {
				t.Errorf("the blocks come to %s, and again to %s", p.s.Root(), s.Root())
			}
			if back := Load(func(f func(string, []byte)) {
				s.Each("", func(key string, val []byte) bool { f(key, val); return true })
			}); back.Root() != s.Root() {
				t.Errorf("loaded: got root %s want %s", back.Root(), s.Root())
			}
			for k, n := range p.seen {
				states[k] += n
			}
			for k, n := range p.codes {
				codes[k] += n
			}
			for k, n := range p.kinds {
				kinds[k] += n
			}
		})
	}
	for s := Posted; s <= Failed; s++ {
		if states[s] == 0 {
			t.Errorf("no script has a job that is %s", s)
		}
	}
	for kind := uint8(1); newMessage(kind) != nil; kind++ {
		if name := fmt.Sprintf("%T", newMessage(kind)); kinds[name] == 0 {
			t.Errorf("no script has a %s that is applied", name)
		}
	}
	t.Logf("states %v, codes %v, applied %v", states, codes, kinds)

}

// The court of a tolerant batch may sit in vain as often as the chain allows, and each place may earn all that the limit
// allows: the escrow covers both together, however the prices round.
func TestEscrow_CoversIdleDisputesAndFullPay(t *testing.T) {
	params := DevParams()
	spec := func(gas crowd.Gas, price crowd.Price, items, verifiers, checks uint32) crowd.JobSpec {
		s := sampleSpec()
		s.Compare = crowd.Compare{Kind: crowd.CompareLines}
		s.Items, s.Task.Limits.Gas, s.Filters.MaxPrice = items, gas, price
		s.Plan.Verifiers, s.Plan.Checks, s.Budget = verifiers, checks, math.MaxUint64
		s.Budget = params.EscrowFor(&s)
		return s
	}
	for gas := crowd.Gas(1); gas <= 5000; gas++ {
		for price := crowd.Price(1); price <= 2000; price += 97 + crowd.Price(gas)%397 {
			s := spec(gas, price, 5+uint32(gas%12), 1+uint32(price%3), 4)
			limit := s.Limits().Gas
			owed := params.Pay(price, limit) + IdleDisputes*price.Cost(gas) + crowd.Credits(s.Plan.Verifiers)*params.Pay(price, CheckGas(&s, limit)) + params.InspectPay(&s)
			if got := params.EscrowFor(&s); got < owed {
				t.Fatalf("%d gas an item at %d: the escrow is %d, places and court may be owed %d", gas, price, got, owed)
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 0))
	for n := range 30 {
		authorities, price, gas := 1+n%10, crowd.Price(1+r.IntN(2000)), crowd.Gas(1+r.IntN(5000))
		if n%3 == 0 {
			price = stagePrices[0]
		}
		p := newPlayer(t, onStage(t, authorities, price, 0))
		p.honestCourt = true
		j := p.postSpec(p.st.owners[0], spec(gas, price, 16, 2, 5), gas, false)
		if j == nil {
			t.Fatal("the job was refused")
		}
		do := func(bytes ...byte) { p.move([moveSize]byte(step(bytes...))) }
		do()
		do(0, 0, 0b010100) // the verifiers' outputs have other bytes
		do()
		for range IdleDisputes {
			do(4)
			do()
		}
		do()
		if j.last.State != Settled || len(j.last.Cleared) != IdleDisputes {
			t.Fatalf("%d authorities, %d gas an item at %d: got a job that is %s after %d idle disputes", authorities, gas, price, j.last.State, len(j.last.Cleared))
		}
		paid := map[string]crowd.Credits{}
		for _, pay := range j.last.Payments {
			paid[pay.Why] += pay.Amount
		}
		limit := j.spec.Limits().Gas
		if got, want := paid[WhyWork]+paid[WhyBurned], params.Pay(price, limit)+2*params.Pay(price, CheckGas(&j.spec, limit)); got != want {
			t.Errorf("%d gas an item at %d: the places earned %s want %s", gas, price, got, want)
		}
		n := crowd.Credits(authorities*2/3 + 1) // so many decide, and share what they get
		if got, want := paid[WhyCourt], IdleDisputes*(price.Cost(gas)/n*n); got != want {
			t.Errorf("%d authorities, %d gas an item at %d: the court earned %s want %s", authorities, gas, price, got, want)
		}
		p.runOut()
	}
}
