//go:build linux

package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
	blocks "github.com/crowdcompute/crowd/internal/store"
	"github.com/crowdcompute/crowd/internal/verify"
)

// textItems are n items of words, other ones for each seed.
func textItems(n, words int, seed uint64) (items [][]byte) {
	rng := rand.New(rand.NewPCG(seed, 9))
	for range n {
		var b bytes.Buffer
		for range words {
			fmt.Fprintf(&b, "word%d ", rng.IntN(300))
		}
		items = append(items, b.Bytes())
	}
	return items
}

// provider is the index of a node.
func (n *network) provider(id crowd.NodeID) int {
	for i := range n.Local.Providers() {
		if n.Local.Provider(i) == id {
			return i
		}
	}
	n.t.Fatalf("%s is no provider", id.Short())
	return -1
}

func (n *network) traffic() uint64 {
	n.t.Helper()
	s, err := n.Status(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return s.Traffic.Fetched + s.Traffic.Served
}

// Two map jobs, then one that reduces them. The outputs go from executors to executors: the owner never has them, they come
// from a verifier when the executor is gone, and all counts are what this machine counts.
func TestLocal_OutputsGoFromExecutorToExecutor(t *testing.T) {
	n := start(t, LocalConfig{Providers: 7})
	const items, parts = 12, 4
	want := map[string]int{}
	program := n.uploadFrom(bytes.NewReader(build(t, "testdata/words.c")))
	limits := rpc.Limits{Gas: 1e9, Memory: 16 << 20, Output: 1 << 20, WallMillis: 60_000}
	store := n.Consumer().store
	var maps []crowd.JobID
	for k := range 2 {
		in := textItems(items, 6000, uint64(k))
		if k == 1 {
			in[3] = []byte("word1 poison word2") // what a failed item wrote goes nowhere
		}
		for i, item := range in {
			if k == 1 && i == 3 {
				continue
			}
			for _, w := range strings.Fields(string(item)) {
				want[w]++
			}
		}
		id, err := n.Post(t.Context(), rpc.PostRequest{
			Program: program, Stdin: n.uploadFrom(frames(t, in)), Items: items, Parts: parts,
			Plan: &rpc.SamplePlan{Verifiers: 2, Checks: items}, Confidence: 0.9, Limits: limits,
		})
		if err != nil {
			t.Fatal(err)
		}
		maps = append(maps, id)
	}
	var executor crowd.NodeID
	shuffled := uint64(0)
	for k, id := range maps {
		events := n.follow(id)
		if last := events[len(events)-1]; last.Stage != rpc.Settled {
			t.Fatalf("map %d: got %+v", k, last)
		}
		v, err := n.Job(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if b := v.Batch; b.Failed == nil || *b.Failed != uint32(k) || len(b.Holders) != 3 || b.Parts != parts {
			t.Fatalf("map %d: got %+v", k, b)
		}
		executor = v.Batch.Holders[0]
		p, err := n.Parts(t.Context(), id)
		if err != nil || len(p.Sizes) != parts || p.Bytes < 500_000 {
			t.Fatalf("map %d: got %+v, %v", k, p, err)
		}
		shuffled += p.Bytes
		if findings, good := verify.Check(n.receipt(id), verify.Trust{Chain: n.Genesis().ChainID(), Header: VerifyHeader}); !good {
			t.Errorf("receipt: %+v", findings)
		}
	}
	// Its holders are the executor and both verifiers; what the executor of the second map takes with it, they have.
	n.Local.StopProvider(n.provider(executor))
	hs, err := n.Probe(t.Context(), maps[1])
	if err != nil || len(hs) != 3 || hs[0].Here || hs[0].Why == "" || !hs[1].Here || !hs[2].Here {
		t.Fatalf("holders: got %+v, %v, want all but the first", hs, err)
	}
	before := n.traffic()
	g, err := n.Gather(t.Context(), rpc.GatherRequest{Jobs: maps, Items: [][]uint32{{0}, {1, 3}, {2}}})
	if err != nil || g.Bytes != shuffled {
		t.Fatalf("gather: got %+v, %v, want %d bytes", g, err, shuffled)
	}
	reducer := build(t, "testdata/total.c")
	r := rpc.PostRequest{
		Program: n.uploadFrom(bytes.NewReader(reducer)), Stdin: g.Manifest, Items: g.Items, Gather: true,
		Plan: &rpc.SamplePlan{Verifiers: 2, Checks: 3}, Confidence: 0.9, Limits: limits,
	}
	id, events := n.finish(r)
	if last := events[len(events)-1]; last.Stage != rpc.Settled {
		t.Fatalf("reduce: got %+v", last)
	}
	got := map[string]int{}
	for i, out := range n.outputs(id, int(g.Items)) {
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if !slices.IsSorted(lines) && i != 1 {
			t.Errorf("item %d is not sorted", i)
		}
		for _, line := range lines {
			var w string
			var c int
			if _, err := fmt.Sscanf(line, "%s\t%d", &w, &c); err != nil || got[w] != 0 {
				t.Fatalf("item %d: line %q, %v, seen %d", i, line, err, got[w])
			}
			got[w] = c
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d words want %d", len(got), len(want))
	}
	for w, c := range want {
		if got[w] != c {
			t.Errorf("%s: got %d want %d", w, got[w], c)
		}
	}
	moved, most := n.traffic()-before, uint64(6*len(reducer))+shuffled/100+50_000 // the program to whoever runs it, manifest, leaves and result
	if moved > most {
		t.Errorf("shuffled %d bytes, and the owner moved %d, at most %d", shuffled, moved, most)
	}
	t.Logf("shuffled %d bytes; the owner moved %d for the reduce job", shuffled, moved)

	for _, id := range maps {
		j, err := backend{n.Consumer()}.split(id)
		if err != nil {
			t.Fatal(err)
		}
		files, err := backend{n.Consumer()}.listing(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		var list []blocks.Entry
		for _, e := range files {
			if e.Name == "parts" {
				if list, err = (backend{n.Consumer()}).list(t.Context(), j, e.CID); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(list) == 0 {
			t.Fatal("no parts are listed")
		}
		for _, e := range append(list, files...) {
			has, err := store.Has(t.Context(), e.CID)
			if err != nil || has != (e.Name == "leaves" || e.Name == "sizes") {
				t.Errorf("the owner's store: has %s: %v, %v", e.Name, has, err)
			}
		}
		if has, err := store.Has(t.Context(), j.Verdict.Outcome.Result); has || err != nil {
			t.Errorf("the owner's store has the result: %v", err)
		}
	}
	// Only now somebody wants to know what went wrong: one file is fetched.
	var said bytes.Buffer
	if _, err := n.Download(t.Context(), maps[1], "stderr", &said); err != nil || !bytes.Contains(said.Bytes(), []byte("poison\n")) {
		t.Errorf("stderr: got %d bytes, %v", said.Len(), err)
	}
}

// What cannot be gathered is said before anything is posted.
func TestLocal_GatherNamesTheCause(t *testing.T) {
	n := start(t, LocalConfig{Providers: 3})
	program := n.uploadFrom(bytes.NewReader(build(t, "testdata/words.c")))
	limits := rpc.Limits{Gas: 1e9, Memory: 16 << 20, Output: 1 << 20, WallMillis: 60_000}
	r := rpc.PostRequest{
		Program: program, Stdin: n.uploadFrom(frames(t, [][]byte{[]byte(strings.Repeat("one ", 50_000)), []byte(strings.Repeat("one ", 50_000))})),
		Items: 2, Parts: 1, Plan: &rpc.SamplePlan{Verifiers: 2, Checks: 2}, Confidence: 0.9, Limits: limits,
	}
	id, _ := n.finish(r)
	r.Parts, r.Args = 0, []string{"plain"}
	plain, _ := n.finish(r)
	for _, c := range []struct {
		name string
		r    rpc.GatherRequest
		kind rpc.Kind
		want string
	}{
		{"a job without parts", rpc.GatherRequest{Jobs: []crowd.JobID{plain}, Items: [][]uint32{{0}}}, rpc.Conflict, "without parts"},
		{"a stranger's job", rpc.GatherRequest{Jobs: []crowd.JobID{{1}}, Items: [][]uint32{{0}}}, rpc.NotFound, ""},
		{"a part that is none", rpc.GatherRequest{Jobs: []crowd.JobID{id}, Items: [][]uint32{{0}, {1}}}, rpc.BadRequest, "item 1: part 1"},
		{"no jobs", rpc.GatherRequest{Items: [][]uint32{{0}}}, rpc.BadRequest, "0 jobs"},
		{"an item of nothing", rpc.GatherRequest{Jobs: []crowd.JobID{id}, Items: [][]uint32{{}}}, rpc.BadRequest, "item 0"},
		{"too much for one item", rpc.GatherRequest{Jobs: []crowd.JobID{id, id}, Items: [][]uint32{{0}}}, rpc.TooLarge, "item 0: with part 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := n.Gather(t.Context(), c.r); rpc.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v want %s with %q", err, c.kind, c.want)
			}
		})
	}
	r.Gather, r.Items = true, 1
	r.Plan.Checks = 1
	if _, err := n.Post(t.Context(), r); rpc.KindOf(err) != rpc.BadRequest || !strings.Contains(err.Error(), "manifest") {
		t.Errorf("a frame file for a manifest: got %v", err)
	}
}

// 64 map outputs of a megabyte each go to two reduce jobs in 128 parts. What the owner's node moves in all that, programs,
// items, leaves, listings, manifests and the reducers' results, is measured against what goes from executor to executor.
func BenchmarkShuffle_64MBIn128Parts(b *testing.B) {
	n := start(b, LocalConfig{Providers: 7})
	const maps, items, parts, reducers = 4, 16, 128, 2
	mapper, reducer := n.uploadFrom(bytes.NewReader(build(b, "testdata/lines.c"))), n.uploadFrom(bytes.NewReader(build(b, "testdata/tally.c")))
	limits := rpc.Limits{Gas: 1e9, Memory: 16 << 20, Output: 1 << 20, WallMillis: 120_000}
	plan := func(items uint32) *rpc.SamplePlan { return &rpc.SamplePlan{Verifiers: 2, Checks: items} }
	var moved, shuffled uint64
	round := uint32(0)
	for b.Loop() {
		before := n.traffic()
		ids := make([]crowd.JobID, maps)
		settle := func(r rpc.PostRequest) crowd.JobID {
			id, events := n.finish(r)
			if last := events[len(events)-1]; last.Stage != rpc.Settled {
				b.Errorf("got %+v", last)
			}
			return id
		}
		for k := range ids {
			var in [][]byte
			for range items {
				round++
				in = append(in, fmt.Append(nil, round))
			}
			ids[k] = settle(rpc.PostRequest{Program: mapper, Stdin: n.uploadFrom(frames(b, in)), Items: items, Parts: parts, Plan: plan(items), Confidence: 0.9, Limits: limits})
		}
		var bytesHere, linesHere uint64
		for k := range uint32(reducers) {
			r := rpc.GatherRequest{Jobs: ids}
			for p := k * parts / reducers; p < (k+1)*parts/reducers; p++ {
				r.Items = append(r.Items, []uint32{p})
			}
			g, err := n.Gather(b.Context(), r)
			if err != nil {
				b.Fatal(err)
			}
			shuffled += g.Bytes
			bytesHere += g.Bytes
			id := settle(rpc.PostRequest{Program: reducer, Stdin: g.Manifest, Items: g.Items, Gather: true, Plan: plan(g.Items), Confidence: 0.9, Limits: limits})
			for _, out := range n.outputs(id, int(g.Items)) {
				var lines, size uint64
				if _, err := fmt.Sscan(out, &lines, &size); err != nil {
					b.Fatal(err)
				}
				linesHere, bytesHere = linesHere+lines, bytesHere-size
			}
		}
		if linesHere != maps*items*1000 || bytesHere != 0 {
			b.Fatalf("got %d lines want %d, and %d bytes are missing", linesHere, maps*items*1000, bytesHere)
		}
		moved += n.traffic() - before
	}
	b.ReportMetric(float64(shuffled)/1e6/b.Elapsed().Seconds(), "MB/s")
	b.ReportMetric(100*float64(moved)/float64(shuffled), "%coordinator")
	b.ReportMetric(float64(moved)/1e3/float64(b.N), "kB-moved/op")
}

// Who waits for a job hears whether those are there who could bring it on.
func TestLocal_PulseOfAJob(t *testing.T) {
	n := start(t, LocalConfig{Providers: 4})
	id, err := n.Post(t.Context(), rpc.PostRequest{Program: n.uploadFrom(bytes.NewReader(build(t, "testdata/loop.c"))),
		Limits: rpc.Limits{Gas: 90e9, Memory: 16 << 20, Output: 1 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	var first crowd.NodeID
	for ev, err := range n.Watch(t.Context(), id) {
		if err != nil || ev.Stage.Final() {
			t.Fatalf("got %+v, %v", ev, err)
		}
		if ev.Stage == rpc.Running {
			v, err := n.Job(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			first = v.Committee[0].Node
			break
		}
	}
	p, err := n.Pulse(t.Context(), id)
	if err != nil || p.Stalled || len(p.Nodes) != 2 || !p.Nodes[0].Here || !p.Nodes[1].Here {
		t.Errorf("both work: got %+v, %v", p, err)
	}
	n.Local.StopProvider(n.provider(first))
	p, err = n.Pulse(t.Context(), id)
	if err != nil || !p.Stalled || len(p.Nodes) != 2 {
		t.Fatalf("one is gone: got %+v, %v", p, err)
	}
	for _, h := range p.Nodes {
		if h.Here == (h.Node == first) || h.Here == (h.Why != "") {
			t.Errorf("%s is gone: got %+v", first.Short(), h)
		}
	}
}
