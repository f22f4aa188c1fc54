package executor

import (
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
)

func TestSpecItem_EachHasItsOwnSeedAndArguments(t *testing.T) {
	s := Spec{Args: make([]string, 1, 8), Seed: crowd.Hash{1}}
	s.Args[0] = "a"
	seeds := map[crowd.Hash]uint64{s.Seed: 99}
	for i := range uint64(100) {
		one := s.Item(Item{Index: i, Args: []string{"b"}})
		if before, is := seeds[one.Seed]; is {
			t.Fatalf("item %d: got the seed of %d", i, before)
		}
		seeds[one.Seed] = i
		if got := strings.Join(one.Args, " "); got != "a b" || len(s.Args) != 1 || cap(s.Args) > 1 && s.Args[:2][1] != "" {
			t.Fatalf("item %d: got arguments %q, and those of the batch %q", i, got, s.Args[:cap(s.Args)])
		}
	}
	if s.Item(Item{Index: 5}).Seed != s.Item(Item{Index: 5, Stdin: []byte("x")}).Seed {
		t.Error("got a seed that depends on more than the index")
	}
	if s.Item(Item{}).Seed == (Spec{Seed: crowd.Hash{2}}).Item(Item{}).Seed {
		t.Error("got the same seed for two jobs")
	}
}

func TestValidateItem(t *testing.T) {
	s := Spec{Program: "p", Limits: crowd.Limits{Gas: 1, Memory: 1, Wall: 1, Output: MaxItemOutput}}
	if err := s.ValidateBatch(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		item Item
		want string // in the error; "": none
	}{
		{"empty", Item{}, ""},
		{"full", Item{Stdin: make([]byte, MaxItemStdin), Args: []string{"a"}}, ""},
		{"long stdin", Item{Stdin: make([]byte, MaxItemStdin+1)}, "stdin"},
		{"zero byte", Item{Args: []string{"\x00"}}, "zero bytes"},
		{"long args", Item{Args: []string{strings.Repeat("x", crowd.MaxArgBytes+1)}}, "bytes together"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := s.ValidateItem(c.item); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}
