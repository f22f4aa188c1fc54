package ledger

import (
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// Red on purpose: each test states what ought to hold and shows the strategy that breaks it.

// Free compute: an owner and one verifier of its own in a tolerant batch. The verifier binds itself to answers and outputs that it serves
// to nobody; the owner, who holds the result by then, reports; the court finds the executor right and the verifier Missing.
func TestAttack_MissingVerifierTakesTheExecutorsPay(t *testing.T) {
	w := newWorld(t, 4, 2)
	spec := sampleSpec()
	spec.Compare = crowd.Compare{Kind: crowd.CompareLines}
	spec.Plan.Verifiers, spec.Plan.Replacements = 1, 1
	for _, k := range w.providers { // one victim, one of the owner's
		spec.Filters.Providers = append(spec.Filters.Providers, k.ID())
	}
	owner := w.balance(w.owner.ID())
	id, seated := w.sampled(spec)
	victim, mine := seated[0], seated[1]
	had := w.balance(victim.ID())
	leaves, tree, out := sampleWork(t, never)
	e := Opening{Outcome: out, Salt: crowd.Keccak256([]byte("salt"))}
	v := w.answers(mine, id, func(uint32) bool { return true })
	v.Outputs = "bafynobodyservesthis"
	w.commitOpening(victim, id, e)
	w.commitOpening(mine, id, v)
	w.must(victim, &Reveal{Job: id, Opening: e})
	w.must(mine, &Reveal{Job: id, Opening: v})
	w.in(id, Delivering) // the result can be fetched now
	w.must(w.owner, w.conflict(id, mine.ID(), leaves, tree))
	w.findings(id, func(p *Place) Finding {
		if p.Verifier {
			return Missing
		}
		return Same
	})
	j := w.job(id)
	r := w.s.Reputation(w.owner.ID().Address()).Consumer
	t.Logf("%s: %v; executor got %s of %s; owner paid %s; verifier's stake %s; owner's record %+v", j.State, j.History[len(j.History)-1].Why,
		w.balance(victim.ID())-had, j.Spec.Filters.MaxPrice.Cost(out.Gas), owner-w.balance(w.owner.ID()), w.stake(mine.ID()), r)
	if w.balance(victim.ID()) <= had {
		t.Error("the court found the executor right, its owner has the result, and it is paid nothing")
	}
}

// An owner's own verifiers commit without seals, and never seal: the executor has worked for nothing, its owner has all its escrow back,
// nobody has a fault, and the owner's score does not move.
func TestAttack_VerifierThatNeverSealsTakesTheExecutorsPay(t *testing.T) {
	w := newWorld(t, 4, 2)
	spec := sampleSpec()
	spec.Plan.Verifiers, spec.Plan.Replacements = 1, 1
	owner := w.balance(w.owner.ID())
	id, seated := w.sampled(spec)
	victim, mine := seated[0], seated[1]
	had := w.balance(victim.ID())
	_, _, out := sampleWork(t, never)
	v := w.answers(mine, id, never)
	w.must(mine, &Commit{Job: id, Commitment: Commitment(id, mine.ID(), v)})
	w.wait(14_000)
	w.commitOpening(victim, id, Opening{Outcome: out, Salt: crowd.Keccak256([]byte("salt"))})
	w.wait(w.s.Params().DispatchGrace/2 + 1)
	j := w.in(id, Failed)
	r := w.s.Reputation(w.owner.ID().Address()).Consumer
	t.Logf("%s; executor got %s; owner paid %s (duties %s); verifier's faults %d, stake %s; owner's record %+v", j.History[len(j.History)-1].Why,
		w.balance(victim.ID())-had, owner-w.balance(w.owner.ID()), j.Duties, w.s.Reputation(mine.ID().Address()).Faults, w.stake(mine.ID()), r)
	if w.balance(victim.ID()) <= had {
		t.Error("the executor ran all items, committed in time, and is paid nothing")
	}
}

// Of the two who may audit one is honest, as the rate of audits assumes; the owner is away while the auditor looks for
// the inputs. The honest one gives up, and is replaced by the other.
func TestAttack_AuditorsAreReplacedUntilOneIsAFriend(t *testing.T) {
	const tries = 24
	caught := 0
	for try := range tries {
		w := newWorld(t, 4, 3, func(g *Genesis) { g.Time += crowd.Time(try) }).veterans()
		spec := auditSpec()
		spec.Plan.Replacements, spec.Plan.Rate = 1, 1e6 // each lie is looked at: only what an audit finds is counted
		id := w.drawn(spec, w.providers...)
		liar := w.keyOf(w.job(id).Places[0].Node)
		var others []*identity.Key
		for _, k := range w.providers {
			if k != liar {
				others = append(others, k)
			}
		}
		friend := others[0]
		w.commit(liar, id, wrong)
		w.block()
		w.block()
		j := w.in(id, Running)
		if auditor := w.keyOf(j.Places[1].Node); auditor == friend {
			w.commit(friend, id, wrong)
		} else {
			w.must(auditor, &GiveUp{Job: id, Reason: CannotFetch, Why: "cannot get the inputs"})
		}
		j = w.in(id, Revealing)
		for _, p := range j.Places {
			if p.State == Committed {
				w.reveal(w.keyOf(p.Node), id, wrong)
			}
		}
		if w.job(id).State == Court {
			caught++
		}
	}
	if caught < tries/4 {
		t.Errorf("half of the auditors are honest, and %d of %d chosen lies were found; AuditRate counts on half", caught, tries)
	}
}

// Two of one hand that an audit seats one after the other say "too slow": each is paid all that the job may cost, for no work, unburned and at no risk.
func TestAttack_TwoQuittersArePaidTwiceTheWholeJob(t *testing.T) {
	w := newWorld(t, 4, 3).veterans()
	spec := auditSpec()
	spec.Plan.Replacements = 1
	id := w.drawn(spec, w.providers...)
	got := crowd.Credits(0)
	for i := range 2 {
		k := w.keyOf(w.job(id).Places[i].Node)
		had := w.balance(k.ID())
		w.wait(1_000)
		w.must(k, &GiveUp{Job: id, Reason: TooSlow})
		if i == 1 {
			got += w.balance(k.ID()) - had
		}
	}
	j := w.in(id, Failed)
	all := crowd.Credits(0)
	for _, p := range j.Payments {
		if p.To != w.owner.ID().Address() && !p.To.IsZero() {
			all += p.Amount
		}
	}
	r := w.s.Reputation(w.owner.ID().Address()).Consumer
	most := w.s.Params()
	t.Logf("quitters got %s together; one honest executor at the limit gets %s less 2 %%; owner's record %+v", all, most.Pay(spec.Filters.MaxPrice, spec.Task.Limits.Gas), r)
	if all > most.Pay(spec.Filters.MaxPrice, spec.Task.Limits.Gas) {
		t.Error("doing nothing pays twice what doing all of it does")
	}
}

// A node with less memory than a job asks for does not claim it. Its offer says how much it has, so that such a job does not count it among
// those that could be drawn, and no owner puts it to sleep by asking for more.
func TestAttack_DrawsThatAMachineCannotTakeCountAsMissed(t *testing.T) {
	w := newWorld(t, 4, 3, func(g *Genesis) {
		for i := range g.Grants {
			if g.Grants[i].ID == key(t, 200).ID() {
				g.Grants[i].Offer.Memory = 1 << 30
			}
		}
	})
	victim, mine := w.providers[0], w.providers[1]
	rp := w.s.Params().Reputation
	before := w.s.Reputation(victim.ID().Address()).Availability(&rp, w.now)
	owner := w.balance(w.owner.ID())
	for range 3 {
		spec := testSpec()
		spec.Task.Limits.Memory = crowd.MaxMemory
		spec.Task.Limits.Wall = crowd.LeastWall(spec.Task.Limits)
		spec.Filters.Providers = []crowd.NodeID{victim.ID(), mine.ID()}
		w.refused(NoProvider, w.owner, &Post{Spec: spec})
		spec.Filters.Providers = append(spec.Filters.Providers, w.providers[2].ID())
		id := w.drawn(spec, mine)
		w.closed(id)
		w.in(id, Failed)
	}
	r := w.s.Reputation(victim.ID().Address())
	after := r.Availability(&rp, w.now)
	t.Logf("availability %d to %d ppm, missed %d (asleep at %d), the owner paid %s", before, after, r.Missed, w.s.Params().MaxMissed, owner-w.balance(w.owner.ID()))
	if after < before || r.Missed > 0 {
		t.Error("an owner takes availability from an honest node, and puts it to sleep")
	}
}

// A block of posts: each looks at all providers, once when it is posted and once more when its claims end, for fees that do not know how many there are.
func TestAttack_ABlockOfPostsIsBoundedInTime(t *testing.T) {
	const n, posts = 2000, 100
	main := MainParams()
	var mine []crowd.NodeID
	w := newWorld(t, 1, 2, func(g *Genesis) {
		mine = []crowd.NodeID{g.Grants[1].ID, g.Grants[2].ID}
		for i := range n {
			k := key(t, uint64(3000+i))
			g.Grants = append(g.Grants, Grant{ID: k.ID(), Balance: 1, Stake: 100 * crowd.Credit, VRF: k.VRF().Public(), Offer: Offer{Price: crowd.ReferencePrice}})
		}
		g.Params.TxFee, g.Params.SizeFee, g.Params.KeepFee, g.Params.CommitteeUnits = main.TxFee, main.SizeFee, main.KeepFee, main.CommitteeUnits
		g.Params.Retention = main.Retention
	})
	spec := testSpec()
	spec.Task.Limits.Gas = 1
	spec.Filters.Providers = mine
	burned := w.s.Supply().Burned
	msgs := make([]signed, posts)
	for i := range msgs {
		msgs[i] = signed{w.owner, &Post{Spec: spec}}
	}
	build := func(ms []signed) Block {
		w.height++
		w.now += 5
		b := Block{Height: w.height, Time: w.now, Proposer: w.authorities[0].ID()}
		nonce := w.s.Account(w.owner.ID().Address()).Nonce
		for _, m := range ms {
			tx, err := Open(w.chain, Sign(m.k, w.chain, nonce, m.m))
			if err != nil {
				t.Fatal(err)
			}
			nonce++
			b.Txs = append(b.Txs, tx)
		}
		r := w.s.Beacon().R
		proof, _ := w.authorities[0].VRF().Prove(r[:])
		b.Beacon = &proof
		return b
	}
	apply := func(what string, b Block) time.Duration {
		began := time.Now()
		a, err := Apply(w.s, b)
		took := time.Since(began)
		if err != nil {
			t.Fatal(err)
		}
		w.s = a.State
		ok := 0
		for _, err := range a.Results {
			if err == nil {
				ok++
			}
		}
		t.Logf("%s: %v, %d of %d taken", what, took, ok, len(b.Txs))
		return took
	}
	posted := apply("posts", build(msgs))
	fees := w.s.Supply().Burned - burned
	apply("nothing", build(nil))
	apply("draws", build(nil))
	w.now += crowd.Time(w.s.Params().ClaimWindow)
	due := apply("ends of claims", build(nil))
	t.Logf("%d providers: %.1f ms a post and %.1f ms at the end of its claims; burned %s a post; 4,096 in the mempool: %v and %v, in one block each",
		n, posted.Seconds()*1e3/posts, due.Seconds()*1e3/posts, fees/posts, posted*4096/posts, due*4096/posts)
	if posted+due > posts*time.Millisecond {
		t.Errorf("%d posts hold the chain for %v", posts, posted+due)
	}
}

// An author who aborts a draw by keeping the inputs to itself pays as for a cancel: honest nodes say that they cannot get them.
func TestAttack_AGrindOfTheLotCostsWhatIsPromised(t *testing.T) {
	w := newWorld(t, 4, 4)
	spec := testSpec()
	spec.Plan.Replacements = 0
	spec.Task.Limits.Gas = 5e9
	spec.Task.Limits.Wall = crowd.LeastWall(spec.Task.Limits)
	spec.Budget = 100 * crowd.Credit
	owner := w.balance(w.owner.ID())
	id := w.drawn(spec, w.providers...)
	for _, p := range w.job(id).Places {
		w.must(w.keyOf(p.Node), &GiveUp{Job: id, Reason: CannotFetch})
	}
	j := w.in(id, Failed)
	p := w.s.Params()
	if got, want := owner-w.balance(w.owner.ID())-j.Duties, 2*p.Pay(spec.Filters.MaxPrice, 5e9); got < want {
		t.Errorf("an author aborts a draw for %s, a cancel costs %s", got, want)
	}
}

// In a tolerant batch whoever sends the court for nothing pays for it, also after somebody was convicted about another item.
func TestAttack_OneConvictionDoesNotMakeAllReportsFree(t *testing.T) {
	w := newWorld(t, 1, 4)
	spec := sampleSpec()
	spec.Compare = crowd.Compare{Kind: crowd.CompareLines, GasPPM: 200_000}
	spec.Plan.Verifiers = 3
	id, seated := w.sampled(spec)
	_, _, out := sampleWork(t, never)
	openings := []Opening{{Outcome: out, Salt: crowd.Hash{1}}}
	for _, k := range seated[1:] {
		o := w.answers(k, id, func(uint32) bool { return true }) // every answer has other bytes
		o.Outputs = "bafyoutputs"
		openings = append(openings, o)
	}
	for i, k := range seated {
		w.commitOpening(k, id, openings[i])
	}
	for i, k := range seated {
		w.must(k, &Reveal{Job: id, Opening: openings[i]})
	}
	w.in(id, Delivering)
	asked := map[uint32]bool{}
	ask := func(v *identity.Key, o Opening, found Finding) bool {
		j := w.job(id)
		lot, err := j.Lot(v.ID(), &o)
		if err != nil {
			t.Fatal(err)
		}
		leaves, tree, _ := sampleWork(t, never)
		for _, item := range Sampled(&spec, lot) {
			if asked[item] {
				continue
			}
			asked[item] = true
			w.must(w.owner, &Report{Job: id, Verifier: v.ID(), Proof: tree.Prove(item, leaves[item])})
			j := w.in(id, Court)
			for _, p := range j.Judged() {
				f := Same
				if p.Node == v.ID() {
					f = found
				}
				w.must(w.authorities[0], &Vote{Job: id, Question: SameAnswer, Item: item, Executor: p.Node, Finding: f})
			}
			return true
		}
		return false
	}
	if !ask(seated[1], openings[1], Other) || w.stake(seated[1].ID()) != 0 {
		t.Fatal("the first dispute convicts nobody")
	}
	for range 2 {
		if !ask(seated[2], openings[2], Same) {
			t.Fatal("too few items")
		}
	}
	j := w.in(id, Delivering)
	if got := j.Idle(w.owner.ID()); got != 2 {
		t.Errorf("the owner sent the court twice for nothing, and %d count", got)
	}
}
