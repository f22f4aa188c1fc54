package ledger

import (
	"errors"
	"fmt"

	"github.com/crowdcompute/crowd"
)

// PuzzleParams are what a place in the overlay costs, in leading zero bits: the two crypto puzzles of S/Kademlia (Baumgart and
// Mies 2007, section 4.1). 0 is no puzzle.
type PuzzleParams struct {
	_ struct{} `cbor:",toarray"`

	Static  uint8 // of a node's ID: a key takes 2^Static tries of some 15 ms, once in its life
	Dynamic uint8 // of a record: 2^Dynamic hashes in every epoch
	Epoch   int64 // ms; a record counts in the epoch of its puzzle and the next one
}

// Bounds of PuzzleParams: what one core solves within a day.
const (
	maxStatic  = 20 // 4.4 hours
	maxDynamic = 32 // an hour
	leastEpoch = 60_000
)

// mainPuzzles: a first start takes a minute of one core. Sixteen identities round one key of a network of 10,000 cost an attacker
// half an hour in place of half a second, and 1,024 identities for the eclipse of a restart a day; nobody can grind them on a GPU.
func mainPuzzles() PuzzleParams {
	return PuzzleParams{Static: 12, Dynamic: 20, Epoch: 86_400_000}
}

func (p PuzzleParams) validate() error {
	var errs []error
	if p.Static > maxStatic || p.Dynamic > maxDynamic {
		errs = append(errs, fmt.Errorf("params: puzzles of %d and %d bits, at most %d and %d: nobody would solve them", p.Static, p.Dynamic, maxStatic, maxDynamic))
	}
	if p.Dynamic > 0 && p.Epoch < leastEpoch {
		errs = append(errs, fmt.Errorf("params: a puzzle's epoch of %d ms, want %d at least", p.Epoch, leastEpoch))
	}
	if p.Dynamic == 0 && p.Epoch != 0 {
		errs = append(errs, errors.New("params: epochs without a puzzle"))
	}
	return errors.Join(errs...)
}

// Epoch is a time to whose randomness the puzzles of records are bound.
type Epoch struct {
	_      struct{} `cbor:",toarray"`
	Number uint32   // block time over PuzzleParams.Epoch
	R      crowd.Hash
}

// EpochsKey is where the present epoch and the one before it stand in the state, where records have a puzzle.
func EpochsKey() []byte { return []byte(keyEpochs) }

// DecodeEpochs reads the value under EpochsKey.
func DecodeEpochs(raw []byte) ([]Epoch, error) {
	var out []Epoch
	if err := crowd.Decode(raw, &out); err != nil {
		return nil, fmt.Errorf("epochs: %w", err)
	}
	return out, nil
}

// turn begins a new epoch with the first beacon that comes in its time: nobody knew it before. While no block
// carries one the old epoch goes on.
func (w *work) turn() {
	length := w.params.Puzzles.Epoch
	if length == 0 {
		return
	}
	epochs, _ := load[[]Epoch](w.get, keyEpochs)
	now := Epoch{Number: uint32(int64(w.now()) / length), R: w.beacon.R}
	if len(epochs) > 0 && now.Number <= epochs[0].Number {
		return
	}
	epochs = append([]Epoch{now}, epochs[:min(len(epochs), 1)]...)
	w.put(keyEpochs, &epochs)
}
