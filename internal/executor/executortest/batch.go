package executortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// Batcher is what the suite for batches holds to account.
type Batcher interface {
	executor.Executor
	executor.Batcher
}

// BatchSpec is what the items of c share.
func (c Case) BatchSpec(t testing.TB) executor.Spec {
	t.Helper()
	s := c.Spec(t)
	s.Output = ""
	if c.Limits.Memory == 0 {
		s.Limits.Memory = 4 << 20
	}
	if c.Limits.Output == 0 {
		s.Limits.Output = 100_000
	}
	if c.Limits.Gas == 0 {
		s.Limits.Gas = 20_000_000
	}
	return s
}

// Alone runs the item i of the batch s as a run of its own.
func Alone(t testing.TB, x executor.Executor, s executor.Spec, i executor.Item) Seen {
	t.Helper()
	s = s.Item(i)
	s.Output, s.Stdin = t.TempDir(), filepath.Join(t.TempDir(), "stdin")
	if err := os.WriteFile(s.Stdin, i.Stdin, 0o644); err != nil {
		t.Fatal(err)
	}
	seen, _ := See(t, x, s)
	return seen
}

// seenItem is what a run of its own would have left.
func seenItem(r executor.ItemResult) Seen {
	s := Seen{r.Status, r.ExitCode, r.Gas, map[string]string{"./": "", "out/": "", "stdout": string(r.Stdout), "stderr": string(r.Stderr)}}
	for _, f := range r.Out {
		if f.Dir {
			s.Files["out/"+f.Path+"/"] = ""
		} else {
			s.Files["out/"+f.Path] = string(f.Data)
		}
	}
	return s
}

// Batch runs items and returns what they came to, in the order in which each was called.
func Batch(t testing.TB, x executor.Batcher, s executor.Spec, items []executor.Item) []executor.ItemResult {
	t.Helper()
	var got []executor.ItemResult
	r, err := x.RunBatch(context.Background(), s, slices.Values(items), func(r executor.ItemResult) error {
		got = append(got, r)
		return nil
	})
	if err != nil {
		t.Fatalf("batch: %v", err)
	}
	if len(got) != len(items) || r.Items != uint64(len(items)) {
		t.Fatalf("got %d results, and %d counted, want %d", len(got), r.Items, len(items))
	}
	for i := range got {
		if got[i].Index != items[i].Index {
			t.Fatalf("result %d: got item %d, want %d", i, got[i].Index, items[i].Index)
		}
	}
	return got
}

// poisons are items that end badly, of the guest item.c, and how.
var poisons = map[byte]crowd.Status{
	't': crowd.Trapped, 'l': crowd.OutOfGas, 'f': crowd.OutputFull, 'd': crowd.Trapped, 'x': crowd.Exited, 'm': crowd.Exited,
}

// Items are n items of the guest item.c, all that it can do among them.
func Items(n int) []executor.Item {
	var items []executor.Item
	for i := range n {
		it := executor.Item{Index: uint64(i) * 3, Stdin: fmt.Appendf(nil, "%c item %d", "utxofidmb"[i%9], i), Spent: crowd.Gas(i%4) * 1000}
		if i%5 == 0 {
			it.Args = []string{fmt.Sprint("extra", i), "more"}
		}
		if i%7 == 3 {
			it.Stdin = append(it.Stdin, strings.Repeat(fmt.Sprintf(" %d.", i), 4000)...)
		}
		items = append(items, it)
	}
	items[0].Stdin = nil
	items[n-1].Stdin[0] = 'l'
	return items
}

// RunBatch is the conformance suite for batches. What the items came to is for comparison with
// another executor.
func RunBatch(t *testing.T, fresh func(*testing.T) Batcher) map[uint64]Seen {
	x := fresh(t)
	var seen map[uint64]Seen
	t.Run("as alone", func(t *testing.T) { seen = asAlone(t, x) })
	t.Run("every order", func(t *testing.T) { everyOrder(t, x, seen) })
	t.Run("stuck item", func(t *testing.T) { stuckItem(t, x) })
	t.Run("cancel", func(t *testing.T) { cancelledBatch(t, x) })
	t.Run("each fails", func(t *testing.T) { eachFails(t, x) })
	t.Run("bad items", func(t *testing.T) { badItems(t, x) })
	t.Run("no program", func(t *testing.T) { batchOfGarbage(t, x) })
	t.Run("nothing", func(t *testing.T) { Batch(t, x, Case{Guest: "item.c"}.BatchSpec(t), nil) })
	t.Run("large output", func(t *testing.T) { largeOutput(t, x) })
	t.Run("bounded", func(t *testing.T) { boundedBatch(t, x) })
	t.Run("reactors", func(t *testing.T) { reactors(t, x) })
	return seen
}

var itemCase = Case{Guest: "item.c", Args: []string{"common"}, Env: []string{"A=b"}, Inputs: true}

// asAlone: every item comes to what it comes to alone.
func asAlone(t *testing.T, x Batcher) map[uint64]Seen {
	s := itemCase.BatchSpec(t)
	s.Shares = 63
	items := Items(63)
	seen := map[uint64]Seen{}
	ends := map[crowd.Status]int{}
	for i, r := range Batch(t, x, s, items) {
		if r.Fault != nil {
			t.Fatalf("item %d: %v", r.Index, r.Fault)
		}
		seen[r.Index] = seenItem(r)
		ends[r.Status]++
		if want := Alone(t, x, s, items[i]); !seen[r.Index].Equal(want) {
			t.Errorf("item %d (%.20q): got %.500v, want as alone %.500v", r.Index, items[i].Stdin, seen[r.Index], want)
		}
		if len(items[i].Stdin) > 0 {
			if want := poisons[items[i].Stdin[0]]; want != 0 && want != r.Status {
				t.Errorf("item %d: got %v, want %v", r.Index, r.Status, want)
			}
		}
		if !bytes.HasPrefix(r.Stdout, []byte("run 1, 0 traces")) && len(r.Stdout) > 0 {
			t.Errorf("item %d: got %.60q, want no trace of another", r.Index, r.Stdout)
		}
	}
	for _, s := range []crowd.Status{crowd.Exited, crowd.Trapped, crowd.OutOfGas, crowd.OutputFull} {
		if ends[s] == 0 {
			t.Errorf("got no item that ends as %v", s)
		}
	}
	return seen
}

// everyOrder: it is the same in any order and company, and with a source that dawdles.
func everyOrder(t *testing.T, x Batcher, want map[uint64]Seen) {
	s := itemCase.BatchSpec(t)
	s.Shares = 63
	r := rand.New(rand.NewPCG(1, 2))
	for range 3 {
		items := Items(63)
		r.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		items = items[:20+r.IntN(40)]
		for _, r := range Batch(t, x, s, items) {
			if got := seenItem(r); r.Fault != nil || !got.Equal(want[r.Index]) {
				t.Errorf("item %d: got %.500v, %v, want as before %.500v", r.Index, got, r.Fault, want[r.Index])
			}
		}
	}
}

// reactors: what a reactor does before its item may be done once for all items, and nobody can tell, whatever
// it did.
func reactors(t *testing.T, x Batcher) {
	for _, early := range []string{"", "stdin", "size", "write", "poll", "close", "flags", "file", "exit", "trap", "loop"} {
		t.Run("c "+early, func(t *testing.T) {
			s := Case{Guest: "reactor.c", Limits: crowd.Limits{Gas: 5_000_000}}.BatchSpec(t)
			if early != "" {
				s.Env = []string{"EARLY=" + early}
			}
			var items []executor.Item
			for i, how := range "uxutucluoguogut" {
				items = append(items, executor.Item{Index: uint64(i), Stdin: fmt.Appendf(nil, "%c%d", how, i)})
				if i%4 == 3 {
					items[i].Args = []string{"more"}
				}
				// Some have so little gas left that it does not last, and some none at all.
				items[i].Spent = []crowd.Gas{0, 777, 4_900_000, 4_995_000, 4_999_999, 5_000_001}[i%6]
			}
			compare(t, x, s, items)
		})
	}
	t.Run("go", func(t *testing.T) {
		s := Case{Guest: "reactor.go", Limits: crowd.Limits{Gas: 2_000_000_000, Memory: 64 << 20}}.BatchSpec(t)
		var items []executor.Item
		for i, text := range []string{"", "word3\n", "word7\n", "other\nother\n", "word8\n", ""} {
			items = append(items, executor.Item{Index: uint64(i), Stdin: []byte(text)})
		}
		items[5].Args = []string{"own"}
		compare(t, x, s, items)
	})
}

// compare holds a batch, and the same in another order, to what its items come to alone.
func compare(t *testing.T, x Batcher, s executor.Spec, items []executor.Item) {
	t.Helper()
	want := map[uint64]Seen{}
	for _, i := range items {
		want[i.Index] = Alone(t, x, s, i)
	}
	for range 2 {
		for _, r := range Batch(t, x, s, items) {
			if got := seenItem(r); r.Fault != nil || !got.Equal(want[r.Index]) {
				t.Errorf("item %d: got %.600v, %v, want %.600v", r.Index, got, r.Fault, want[r.Index])
			}
		}
		slices.Reverse(items)
	}
}

// stuckItem: an item that uses up its time is named, and the others finish.
func stuckItem(t *testing.T, x Batcher) {
	s := itemCase.BatchSpec(t)
	want := map[uint64]Seen{}
	items := Items(40)
	items = items[:len(items)-1] // it loops
	items = slices.DeleteFunc(items, func(i executor.Item) bool { return len(i.Stdin) > 0 && i.Stdin[0] == 'l' })
	for _, r := range Batch(t, x, s, items) {
		want[r.Index] = seenItem(r)
	}
	// The loop gets the time of nobody else: without it all end long before.
	stuck := executor.Item{Index: 1 << 40, Stdin: []byte("l")}
	items = slices.Insert(items, 25, stuck)
	s.Limits.Gas, s.Limits.Wall = forever, 700*time.Millisecond
	s.Limits.Output = 50_000
	for _, r := range Batch(t, x, s, items) {
		switch {
		case r.Index == stuck.Index:
			wantFault(t, r.Fault, executor.Timeout)
		case r.Fault != nil:
			t.Errorf("item %d: got %v, want it unharmed", r.Index, r.Fault)
		case r.Status != crowd.OutputFull && !seenItem(r).Equal(want[r.Index]):
			t.Errorf("item %d: got %.300v, want %.300v", r.Index, seenItem(r), want[r.Index])
		}
	}
}

// count yields items for as long as they are wanted.
func count(stdin string) iter.Seq[executor.Item] {
	return func(yield func(executor.Item) bool) {
		for i := uint64(0); yield(executor.Item{Index: i, Stdin: []byte(stdin)}); i++ {
		}
	}
}

// cancelledBatch: the end of the context ends a batch at once, though its source never does.
func cancelledBatch(t *testing.T, x Batcher) {
	for _, stdin := range []string{"u", "l"} {
		s := itemCase.BatchSpec(t)
		s.Limits.Gas = forever
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(100*time.Millisecond, cancel)
		began := time.Now()
		_, err := x.RunBatch(ctx, s, count(stdin), func(executor.ItemResult) error { return nil })
		wantFault(t, err, executor.Cancelled)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want it to wrap %v", err, context.Canceled)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("got %v until the end, want about 100ms", took)
		}
	}
}

// eachFails: what each returns is what the caller gets, and nothing is told after it.
func eachFails(t *testing.T, x Batcher) {
	enough := errors.New("enough")
	n := 0
	_, err := x.RunBatch(context.Background(), itemCase.BatchSpec(t), count("u"), func(executor.ItemResult) error {
		if n++; n == 100 {
			return enough
		}
		return nil
	})
	if err != enough || n != 100 {
		t.Errorf("got %v after %d, want %v after 100", err, n, enough)
	}
}

// badItems: the caller's mistakes are his, and what was before them is told.
func badItems(t *testing.T, x Batcher) {
	for _, c := range []struct {
		name string
		edit func(*executor.Spec, *executor.Item)
		told int
	}{
		{"long stdin", func(_ *executor.Spec, i *executor.Item) { i.Stdin = make([]byte, executor.MaxItemStdin+1) }, 3},
		{"zero byte", func(_ *executor.Spec, i *executor.Item) { i.Args = []string{"\x00"} }, 3},
		{"stdin of the batch", func(s *executor.Spec, _ *executor.Item) { s.Stdin = s.Program }, 0},
		{"output of the batch", func(s *executor.Spec, _ *executor.Item) { s.Output = s.Inputs }, 0},
		{"much output", func(s *executor.Spec, _ *executor.Item) { s.Limits.Output = executor.MaxItemOutput + 1 }, 0},
		{"no inputs", func(s *executor.Spec, _ *executor.Item) { s.Inputs += "/not" }, 0},
		{"no program", func(s *executor.Spec, _ *executor.Item) { s.Program += "/not" }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, items := itemCase.BatchSpec(t), Items(4)
			c.edit(&s, &items[3])
			n := 0
			_, err := x.RunBatch(context.Background(), s, slices.Values(items), func(executor.ItemResult) error { n++; return nil })
			wantFault(t, err, executor.BadSpec)
			if n != c.told {
				t.Errorf("got %d results, want %d", n, c.told)
			}
		})
	}
}

func batchOfGarbage(t *testing.T, x Batcher) {
	s := itemCase.BatchSpec(t)
	s.Program = filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(s.Program, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	items := Items(5)
	for i, r := range Batch(t, x, s, items) {
		if r.Status != crowd.Invalid || r.Gas != items[i].Spent || r.Reason == "" || r.Fault != nil {
			t.Errorf("got %+v, want %v with a reason", r, crowd.Invalid)
		}
	}
}

// largeOutput: items whose output fills many messages.
func largeOutput(t *testing.T, x Batcher) {
	s := Case{Guest: "item.c", Limits: crowd.Limits{Output: executor.MaxItemOutput, Gas: 1_000_000_000}}.BatchSpec(t)
	var items []executor.Item
	for i := range 24 {
		items = append(items, executor.Item{Index: uint64(i), Stdin: append([]byte("f"), make([]byte, i*40_000)...)})
	}
	for _, r := range Batch(t, x, s, items) {
		if r.Fault != nil || r.Status != crowd.OutputFull || len(r.Stdout) != executor.MaxItemOutput {
			t.Errorf("item %d: got %v, %v, %d bytes, want %v and %d", r.Index, r.Fault, r.Status, len(r.Stdout), crowd.OutputFull, executor.MaxItemOutput)
		}
	}
}

// boundedBatch: results that are not taken hold up the source, and fill no memory.
func boundedBatch(t *testing.T, x Batcher) {
	s := itemCase.BatchSpec(t)
	var given atomic.Int64
	told, most := int64(0), int64(0)
	enough := errors.New("enough")
	_, err := x.RunBatch(context.Background(), s, func(yield func(executor.Item) bool) {
		for i := uint64(0); yield(executor.Item{Index: i, Stdin: bytes.Repeat([]byte("u"), 100_000)}); i++ {
			given.Add(1)
		}
	}, func(executor.ItemResult) error {
		most = max(most, given.Load()-told)
		if told++; told == 60 {
			return enough
		}
		return nil
	})
	if err != enough || most > 100 {
		t.Errorf("got %v, and %d items of 100 kB taken ahead, want %v and few", err, most, enough)
	}
}
