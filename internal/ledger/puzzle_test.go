package ledger

import (
	"strings"
	"testing"
	"time"
)

// TestEpochs: an epoch is bound to randomness that nobody knew before it began, and only the one before it is kept.
func TestEpochs(t *testing.T) {
	const length = 3_600_000
	w := newWorld(t, 1, 0, func(g *Genesis) { g.Params.Puzzles = PuzzleParams{Dynamic: 10, Epoch: length} })
	epochs := func() []Epoch {
		list, err := DecodeEpochs(w.s.get(string(EpochsKey())))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	first := epochs()
	if want := (Epoch{Number: uint32(w.now / length), R: w.s.Beacon().R}); len(first) != 1 || first[0] != want {
		t.Fatalf("genesis: got %v, want %v", first, want)
	}
	pay := &Transfer{To: key(t, 100).ID().Address(), Amount: 1}
	w.must(w.owner, pay)
	if got := epochs(); len(got) != 1 || got[0] != first[0] {
		t.Errorf("within an epoch: got %v, want %v", got, first)
	}
	w.now += 3 * length
	w.block() // carries no beacon: everybody has known R for long
	if got := epochs(); len(got) != 1 {
		t.Errorf("a block without beacon began an epoch: %v", got)
	}
	w.must(w.owner, pay)
	second := epochs()
	if len(second) != 2 || second[0].Number != uint32(w.now/length) || second[0].R != w.s.Beacon().R || second[1] != first[0] {
		t.Errorf("the next epoch: got %v after %v", second, first)
	}
	w.now += length
	w.must(w.owner, pay)
	if got := epochs(); len(got) != 2 || got[0].Number != second[0].Number+1 || got[1] != second[0] {
		t.Errorf("the third epoch: got %v after %v", got, second)
	}

	if plain := newWorld(t, 1, 0); plain.s.get(string(EpochsKey())) != nil {
		t.Error("epochs where no record has a puzzle")
	}
}

func TestPuzzleParams(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    PuzzleParams
		want string // in the error; "": none
	}{
		{"none", PuzzleParams{}, ""},
		{"of the main network", mainPuzzles(), ""},
		{"static alone", PuzzleParams{Static: maxStatic}, ""},
		{"the longest", PuzzleParams{Static: maxStatic, Dynamic: maxDynamic, Epoch: leastEpoch}, ""},
		{"static out of reach", PuzzleParams{Static: maxStatic + 1}, "nobody would solve"},
		{"dynamic out of reach", PuzzleParams{Dynamic: maxDynamic + 1, Epoch: leastEpoch}, "nobody would solve"},
		{"no epoch", PuzzleParams{Dynamic: 1}, "epoch of 0 ms"},
		{"epochs in seconds", PuzzleParams{Dynamic: 1, Epoch: 86_400 / 2}, "epoch of 43200 ms"},
		{"an epoch of less than nothing", PuzzleParams{Dynamic: 1, Epoch: -1}, "epoch of -1 ms"},
		{"epochs for nothing", PuzzleParams{Epoch: leastEpoch}, "epochs without a puzzle"},
	} {
		p := DevParams()
		p.Puzzles = tt.p
		switch err := p.Validate(); {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if p := MainParams().Puzzles; p.Static == 0 || p.Dynamic == 0 || time.Duration(p.Epoch)*time.Millisecond != 24*time.Hour {
		t.Errorf("the main network's: %+v", p)
	}
}
