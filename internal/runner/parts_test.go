package runner

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/job"
	"github.com/crowdcompute/crowd/internal/ledger"
)

const testParts = 5

// holder of j's outputs: the executor, or its verifier.
func (w *world) holder(j ledger.Job, verifier bool) *node {
	for i := range j.Places {
		if p := &j.Places[i]; p.Verifier == verifier {
			return w.nodes[slices.IndexFunc(w.nodes, func(n *node) bool { return n.key.ID() == p.Node })]
		}
	}
	w.t.Fatal("no such place")
	return nil
}

// parted are the items' outputs as the test computes them, in parts.
func parted(t testing.TB) (parts [testParts]string) {
	for i := range batchItems {
		if i == 17 { // poison: it failed
			continue
		}
		line := fmt.Sprintf("echo item %d %d", i, i)
		parts[batch.PartOf([]byte(line), testParts)] += line + "\n"
	}
	return parts
}

func (w *world) file(raw []byte) crowd.CID {
	path := filepath.Join(w.t.TempDir(), "file")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		w.t.Fatal(err)
	}
	c, err := w.nodes[consumer].add(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) splitJob(ctx context.Context, t *testing.T) ledger.Job {
	t.Helper()
	id := w.post(ctx, "echo", func(s *crowd.JobSpec) {
		w.batched(itemFile(t))(s)
		s.Shuffle.Parts = testParts
	})
	until(t, "the end of the batch", w.ends(id))
	return w.job(id)
}

// A batch whose outputs go on, then one that reads them from whoever has them.
func TestRunner_PartsAreMadeCheckedAndGathered(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		j := w.splitJob(ctx, t)
		if j.State != ledger.Settled {
			t.Fatalf("got %s: %+v", j.State, j.History)
		}
		result, want := j.Verdict.Outcome.Result, parted(t)
		for _, verifier := range []bool{false, true} {
			n := w.holder(j, verifier)
			for p := range want {
				got, err := os.ReadFile(filepath.Join(n.path(result), "parts", batch.PartName(uint32(p))))
				if err != nil || string(got) != want[p] {
					t.Errorf("verifier %v, part %d: got %q, %v want %q", verifier, p, got, err, want[p])
				}
			}
		}
		if n := w.nodes[consumer]; n.has(result) || !n.has(j.Verdict.Outcome.Leaves) {
			t.Errorf("the owner has the result: %v, the leaves: %v", n.has(result), n.has(j.Verdict.Outcome.Leaves))
		}

		w.holder(j, false).hides = true // what its executor does not serve any more, the verifier does
		m := w.manifestOf(j)
		m.Items = append(m.Items, []uint32{testParts}) // there is no such part
		items := uint32(len(m.Items))
		id := w.gatherJob(ctx, &m)
		w.holder(j, false).hides = false // its own new results are to be had
		until(t, "the end of the second batch", w.ends(id))
		j = w.job(id)
		if j.State != ledger.Settled {
			t.Fatalf("got %s: %+v", j.State, j.History)
		}
		dir := w.nodes[consumer].path(j.Verdict.Outcome.Result)
		raw, err := os.ReadFile(filepath.Join(dir, leavesFile))
		if err != nil {
			t.Fatal(err)
		}
		leaves, err := batch.DecodeLeaves(raw, items)
		if err != nil {
			t.Fatal(err)
		}
		out, err := openFrames(filepath.Join(dir, stdoutFile), items)
		if err != nil {
			t.Fatal(err)
		}
		defer out.close()
		for p := range uint32(testParts) {
			got, err := out.Read(p)
			if want := fmt.Sprintf("echo %s %d", batch.Merge([][]byte{[]byte(want[p])}), p); err != nil || string(got) != want {
				t.Errorf("item %d: got %.60q, %v want %.60q", p, got, err, want)
			}
		}
		if l := leaves[testParts]; l.Status != crowd.NoInput || l.Gas == 0 || l.Gas >= leaves[0].Gas {
			t.Errorf("of a part that is not there: got %s, %d gas, want its share of what all items have, less than %d", l.Status, l.Gas, leaves[0].Gas)
		}
	})
}

// Right leaves and right outputs, but the parts that others would read are other ones.
func TestRunner_OtherPartsAreNotAccepted(t *testing.T) {
	for _, liar := range []int{providerA, providerB} { // one of them is the executor
		bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
			w.nodes[liar].bends = true
			j := w.splitJob(ctx, t)
			want := ledger.Failed
			if w.holder(j, false) != w.nodes[liar] { // it is the verifier, cannot make the right result, and an authority opens it
				want = ledger.Settled
			}
			if j.State != want {
				t.Errorf("got %s want %s: %+v", j.State, want, j.History)
			}
		})
	}
}

// manifestOf names all parts of a settled batch, one for each item.
func (w *world) manifestOf(j ledger.Job) batch.Manifest {
	m := batch.Manifest{Sources: []batch.Source{{Result: j.Verdict.Outcome.Result, Holders: []crowd.NodeID{w.holder(j, false).key.ID(), w.holder(j, true).key.ID()}}}}
	for p := range uint32(testParts) {
		m.Items = append(m.Items, []uint32{p})
	}
	return m
}

// gatherJob posts a batch that reads parts.
func (w *world) gatherJob(ctx context.Context, m *batch.Manifest) crowd.JobID {
	return w.post(ctx, "echo", func(s *crowd.JobSpec) {
		s.Task.Stdin, s.Items, s.Shuffle.Gather = w.file(crowd.Encode(m)), uint32(len(m.Items)), true
		s.Task.Limits.Gas = 100_000
		s.Plan = crowd.Plan{Method: crowd.PlanSample, Verifiers: 1, Checks: uint32(len(m.Items)), Replacements: 1}
	})
}

// The court gathers the parts of the one item that it is asked about.
func TestRunner_ALiarOverGatheredItemsLosesItsStake(t *testing.T) {
	for _, liar := range []int{providerA, providerB} {
		bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
			j := w.splitJob(ctx, t)
			m := w.manifestOf(j)
			w.nodes[liar].lies = true
			id := w.gatherJob(ctx, &m)
			until(t, "the end of the second batch", w.ends(id))
			j = w.job(id)
			if p := j.Place(w.nodes[liar].key.ID()); j.State != ledger.Failed || p.State != ledger.Fraud {
				t.Errorf("got %s, and the liar's place %s: %+v", j.State, p.State, j.History)
			}
		})
	}
}

// Parts that nobody serves are no outcome: the places are given up, and say why.
func TestRunner_PartsThatNobodyHasBlameNobody(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, w *world, rs []*Runner) {
		m := batch.Manifest{Sources: []batch.Source{{Result: "lost", Holders: []crowd.NodeID{w.nodes[providerA].key.ID()}}}, Items: [][]uint32{{0}}}
		id := w.gatherJob(ctx, &m)
		until(t, "the end of the batch", w.ends(id))
		j := w.job(id)
		if j.State != ledger.Failed || j.Verdict != nil {
			t.Errorf("got %s: %+v", j.State, j.History)
		}
		said := false
		for i := range j.Places { // without an executor the job is over, and its verifier need not say anything
			p := &j.Places[i]
			why := p.State == ledger.Dropped && p.GaveUp == ledger.NoParts
			if said = said || why; !why && p.State != ledger.Working || p.Slashed != 0 {
				t.Errorf("place %d: got %s, %q", i, p.State, p.Why)
			}
		}
		if !said {
			t.Errorf("nobody said that parts are lost: %+v", j.Places)
		}
	})
}

// gathering is a runner whose node holds what a test puts there.
func gathering(t *testing.T) (*Runner, *node) {
	n := &node{w: &world{t: t}, dir: t.TempDir(), pins: map[string]bool{}}
	n.w.nodes = []*node{n}
	r := &Runner{cfg: Config{Blocks: n, Unusable: func(err error) bool { return err == errTooBig }}.withDefaults()}
	return r, n
}

// What a manifest says wrongly is the outcome of the items that it concerns, and of no others.
func TestGather_BadInputIsAnOutcome(t *testing.T) {
	mib := strings.Repeat(strings.Repeat("x", 1023)+"\n", 1<<10)
	for _, tt := range []struct {
		name    string
		sources []map[string]string
		items   [][]uint32
		want    []string // by item; "-": no input
	}{
		{"sorted, sources in order", []map[string]string{{"parts/00000": "b\t1\na\t1\n"}, {"parts/00000": "a\t2\n"}}, [][]uint32{{0}}, []string{"a\t1\na\t2\nb\t1\n"}},
		{"two parts", []map[string]string{{"parts/00000": "b\n", "parts/00001": "a\n"}}, [][]uint32{{0, 1}, {1}}, []string{"a\nb\n", "a\n"}},
		{"an empty part", []map[string]string{{"parts/00000": ""}}, [][]uint32{{0}}, []string{""}},
		{"a part that is not there", []map[string]string{{"parts/00000": "a\n"}}, [][]uint32{{1}, {0}}, []string{"-", "a\n"}},
		{"one that not all have", []map[string]string{{"parts/00000": "a\n", "parts/00001": ""}, {"parts/00000": "b\n"}}, [][]uint32{{0}, {1}}, []string{"a\nb\n", "-"}},
		{"as much as an item may read", []map[string]string{{"parts/00000": mib}}, [][]uint32{{0}}, []string{mib}},
		{"more than an item may read", []map[string]string{{"parts/00000": mib, "parts/00001": "a\n"}}, [][]uint32{{0, 1}, {1}}, []string{"-", "a\n"}},
		{"more by a newline", []map[string]string{{"parts/00000": mib[:1<<20-1] + "y"}}, [][]uint32{{0}}, []string{"-"}},
		{"a folder for a part", []map[string]string{{"parts/00000/x": "a\n", "parts/00001": "b\n"}}, [][]uint32{{0}, {1}}, []string{"-", "b\n"}},
		{"no parts", []map[string]string{{"stdout": "a\n"}}, [][]uint32{{0}}, nil},
		{"a gap", []map[string]string{{"parts/00000": "a\n", "parts/00002": "a\n"}}, [][]uint32{{0}}, nil},
		{"parts that are a file", []map[string]string{{"parts": "a\n"}}, [][]uint32{{0}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, n := gathering(t)
			m := batch.Manifest{Items: tt.items}
			for _, files := range tt.sources {
				m.Sources = append(m.Sources, batch.Source{Result: n.folder(t, files)})
			}
			items := uint32(len(tt.items))
			c := n.w.fileOn(n, crowd.Encode(&m))
			if err := r.fetchParts(t.Context(), &job.Gather{Manifest: c, Items: items}, func(uint64, uint64) {}); err != nil {
				t.Fatal(err)
			}
			in, err := r.gather(t.Context(), job.Run{Task: crowd.Task{Stdin: c}, Items: items}, t.TempDir())
			if err != nil || (in == nil) != (tt.want == nil) {
				t.Fatalf("got %v, %v, want inputs: %v", in, err, tt.want != nil)
			}
			if in == nil {
				return
			}
			defer in.close()
			for k, want := range tt.want {
				got := []byte("-")
				if in.usable(uint32(k)) {
					if got, err = in.read(uint32(k)); err != nil {
						t.Fatal(err)
					}
				}
				if string(got) != want {
					t.Errorf("item %d: got %.40q (%d bytes) want %.40q (%d)", k, got, len(got), want, len(want))
				}
			}
		})
	}
}

// fileOn is world.file on any node.
func (w *world) fileOn(n *node, raw []byte) crowd.CID {
	path := filepath.Join(w.t.TempDir(), "file")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		w.t.Fatal(err)
	}
	c, err := n.add(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// More lines than are held in memory, and more parts than files may be open: nothing is lost, and all is in order.
func TestParts_SpillInOrder(t *testing.T) {
	const n, keys, rounds = 600, 3000, 6
	dir := filepath.Join(t.TempDir(), "parts")
	p, err := newParts(dir, n)
	if err != nil {
		t.Fatal(err)
	}
	p.most = 80_000 // twice the lines of a round: it spills in the middle of some
	var want [n]string
	for i := range rounds {
		var out []byte
		for k := range keys {
			line := fmt.Sprintf("key%d\t%d\n", k, i)
			out = append(out, line...)
			want[batch.PartOf(fmt.Appendf(nil, "key%d", k), n)] += line
		}
		if err := p.add(out); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(dir), sizesFile))
	if err != nil {
		t.Fatal(err)
	}
	sizes, err := batch.DecodeSizes(raw, n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if sizes[i] != uint64(len(want[i])) {
			t.Fatalf("part %d: said to have %d bytes, has %d", i, sizes[i], len(want[i]))
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != n {
		t.Fatalf("got %d files, %v", len(files), err)
	}
	for i := range want {
		if raw, err := os.ReadFile(filepath.Join(dir, batch.PartName(uint32(i)))); err != nil || string(raw) != want[i] {
			t.Fatalf("part %d: got %.40q, %v want %.40q", i, raw, err, want[i])
		}
	}
}
