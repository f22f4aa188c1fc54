package volatile

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/sim/scenario"
	"github.com/crowdcompute/crowd/internal/verify"
)

// What the shards are made of. On average one of the map stage takes 30 to 120 s of a provider, by the provider's
// speed, and one of the reduce stage half of that; the work of shards of a stage differs by a factor of up to 3.
const (
	mapItems, reduceItems = 1000, 100                // of a shard
	mapGas, reduceGas     = 120_000_000, 600_000_000 // of an item, on average

	inputBytes                    = 16 << 20             // of a map shard
	partBytes                     = 900 << 10            // of all sources together: an item of the reduce stage may read 1 MiB
	resultBytes                   = partBytes / 10       // what such an item writes
	entryBytes                    = 3                    // of the sizes of the parts, for one of up to 2 MiB
	folderBytes                   = 512                  // of the folder of a map shard's result, which lists five files
	sourceBytes                   = 64 + 8*66            // of a manifest: a result and who has it
	mapVerifiers, reduceVerifiers = 7, 4                 // of a shard: who checks a map shard holds its outputs too, and with half of the nodes away four holders are too few
	allowed                       = verify.Certain / 100 // of undetected cheating: the default of crowd map
)

// gatherTime is what a shard of the reduce stage gets to find all its parts, besides what it gets to run.
const gatherTime = 10 * time.Minute

// spec is that of every shard of a stage but for what tells one from the other. An item may use four times what it
// takes on average, as crowd map has it, and so the time that a shard may take is long.
func spec(stage string, items, verifiers uint32, gas crowd.Gas, shuffle crowd.Shuffle) crowd.JobSpec {
	s := crowd.JobSpec{
		Task: crowd.Task{
			Program: crowd.CID("program-" + stage), Args: []string{stage, ""},
			Limits: crowd.Limits{Gas: 4 * gas, Memory: 256 << 20, Output: 64 << 10},
		},
		Items: items, Shuffle: shuffle, Filters: crowd.Filters{MaxPrice: crowd.ReferencePrice}, Budget: ^crowd.Credits(0),
		Plan: crowd.Plan{Method: crowd.PlanSample, Verifiers: verifiers, Checks: 1},
	}
	s.Plan.Replacements = 1 // with few verifiers each one more takes many checks more
	s.Task.Limits.Wall = crowd.LeastWall(s.Limits())
	if shuffle.Gather {
		s.Task.Limits.Wall += gatherTime
	}
	for verify.SampleUndetected(items, &s.Plan) > allowed {
		s.Plan.Checks++
	}
	s.Plan.Undetected = uint64(verify.SampleUndetected(items, &s.Plan))
	return s
}

// shard is the spec of one, without what it reads.
func (p *Play) shard(stage, k int) crowd.JobSpec {
	s := p.specs[stage]
	s.Task.Args = []string{s.Task.Args[0], fmt.Sprint(k)}
	return s
}

// leaf is what an item comes to: a pure function of its stage, its shard and its number, whoever runs it and wherever
// its parts come from.
func leaf(t *crowd.Task, item uint32) batch.Leaf {
	work := func(what []byte) crowd.Gas { // from a half to three halves, in thousandths
		h := crowd.Keccak256([]byte(t.Args[0]), []byte(t.Args[1]), what)
		return 500 + crowd.Gas(binary.BigEndian.Uint16(h[:]))%1001
	}
	number := binary.BigEndian.AppendUint32(nil, item)
	gas := t.Limits.Gas / 4 * work(nil) / 1000 * work(number) / 1000
	return batch.Leaf{Status: crowd.Exited, Gas: gas, Output: crowd.Keccak256([]byte(t.Args[0]), []byte(t.Args[1]), number)}
}

// input of a map shard, or the manifest of a reduce shard over the results that are used.
func (p *Play) input(r flow.Ref) crowd.CID {
	if r.Stage == 0 {
		return crowd.CID(fmt.Sprintf("input-%d", r.Shard))
	}
	var m batch.Manifest
	for k := range p.Maps {
		j := p.used(0, k)
		m.Sources = append(m.Sources, batch.Source{Result: j.Verdict.Outcome.Result, Holders: p.holders(k)})
		if !p.listed[j.ID] {
			p.listed[j.ID] = true
			p.res.Coordinator += uint64(folderBytes + entryBytes*p.specs[0].Shuffle.Parts)
		}
	}
	for i := range uint32(reduceItems) {
		m.Items = append(m.Items, []uint32{uint32(r.Shard)*reduceItems + i})
	}
	return p.w.Manifest(p.owner, m)
}

// used is the job whose result counts.
func (p *Play) used(stage, k int) *ledger.Job {
	sh := &p.m.State().Stages[stage].Shards[k]
	i := slices.IndexFunc(sh.Attempts, func(a flow.Attempt) bool { return a.Try == sh.Use })
	j, ok := p.w.State().Job(sh.Attempts[i].Job)
	if !ok {
		panic("bug: the chain has forgotten a job of this flow")
	}
	return &j
}

// holders of a settled job's outputs: who executed it first, then who has checked it.
func holders(j *ledger.Job) (ids []crowd.NodeID) {
	for i := range j.Places {
		if p := &j.Places[i]; p.State == ledger.Revealed && !p.Verifier {
			ids = append([]crowd.NodeID{p.Node}, ids...)
		} else if p.State == ledger.Revealed {
			ids = append(ids, p.Node)
		}
	}
	return ids
}

// holders of a map shard's outputs. Where each shard has several jobs, those of all that have settled: crowd map
// names those of the one job that it uses, so that this is in favour of replication.
func (p *Play) holders(k int) []crowd.NodeID {
	ids := holders(p.used(0, k))
	for _, a := range p.m.State().Stages[0].Shards[k].Attempts {
		if j, ok := p.w.State().Job(a.Job); ok && p.way.copies > 1 && j.State == ledger.Settled {
			for _, id := range holders(&j) {
				if !slices.Contains(ids, id) && len(ids) < batch.MaxHolders {
					ids = append(ids, id)
				}
			}
		}
	}
	return ids
}

// bytes of content on its way.
func (p *Play) bytes(c crowd.CID) uint64 {
	items := p.w.ItemsIn(c)
	switch kind, _, _ := strings.Cut(string(c), "-"); {
	case kind == "input":
		return inputBytes
	case kind == "manifest":
		return uint64(p.Maps)*sourceBytes + 8*reduceItems
	case kind == "leaves":
		return uint64(items) * batch.LeafSize
	case kind == "result" && items == mapItems:
		return p.output()
	case kind == "result":
		return uint64(items) * resultBytes
	}
	return 1 << 20 // a program
}

// part is what one source has of one item, and output all that it has.
func (p *Play) part() uint64   { return partBytes / uint64(p.Maps) }
func (p *Play) output() uint64 { return p.part() * uint64(p.specs[0].Shuffle.Parts) }

// moved counts what passes the owner and is neither a map shard's input nor the result of all.
func (p *Play) moved(from, to *scenario.Node, c crowd.CID, bytes uint64) {
	kind, _, _ := strings.Cut(string(c), "-")
	items := p.w.ItemsIn(c)
	switch {
	case from != p.owner && to != p.owner:
		if kind == "result" && items == mapItems {
			p.res.Moved += bytes
		}
	case kind == "manifest", items == mapItems:
		p.res.Coordinator += bytes
	}
}
