package executor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// Bounds on an item of a batch: it travels and is held in memory.
const (
	MaxItemStdin  = 1 << 20             // bytes
	MaxItemOutput = crowd.MaxItemOutput // bytes: the most that Limits.Output may be in a batch
)

// Item is one run among many of the same program.
type Item struct {
	Index uint64    // in the whole job; seeds the item's randomness
	Stdin []byte    // at most MaxItemStdin
	Args  []string  // behind those of the Spec
	Spent crowd.Gas // as of the Spec of a single run
}

// File is a file or folder that a program left in /out.
type File struct {
	_    struct{} `cbor:",toarray"`
	Path string   // below out
	Dir  bool
	Data []byte // of a file
}

// ItemResult is how one item ended: all but Reason and Warm is what Run gives for Spec.Item,
// byte for byte, whatever the other items do and in whatever order they come.
// Where Fault is not nil this machine failed at the item, and only Index and Fault mean anything.
type ItemResult struct {
	Index    uint64
	Status   crowd.Status
	ExitCode uint32
	Gas      crowd.Gas
	Stdout   []byte
	Stderr   []byte
	Out      []File // of /out, sorted as a walk meets them: a folder before what is in it
	Reason   string // for people
	Warm     bool   // it began from a snapshot
	Fault    *Fault
}

// BatchResult is what a batch took.
type BatchResult struct {
	Items  uint64 // that each was called for
	Faults uint64 // of them
	Warm   uint64 // of them, that began from a snapshot instead of from nothing; nobody else can tell
	Gas    crowd.Gas
	Wall   time.Duration
	CPU    time.Duration // of the workers
	Engine string
}

// Batcher is an Executor that can run one program over many items at a small price for each.
//
// Each item bears its share of the price of the program's code, by Spec.Shares: the number of items of the whole
// job, of which the batch may be a few, so that an item comes to the same gas in every company.
//
// RunBatch runs s for every item, several at a time, and calls each with their results in
// the items' order, from one goroutine. Limits count for each item alone. Of s, Stdin and Output
// stay empty. Both items and results stream: what lies between them is bounded, so that a slow
// each, or a slow source of items, slows the batch and fills no memory.
//
// An item at which this machine fails (its time runs out, its worker dies) is reported with its Fault, and the
// others go on. The error is nil, a *Fault of the whole batch, or what each returned, which ends the batch. items
// is ranged over by a goroutine of its own; RunBatch returns only after it has, so a source that can wait
// for long should watch ctx.
type Batcher interface {
	RunBatch(ctx context.Context, s Spec, items iter.Seq[Item], each func(ItemResult) error) (BatchResult, error)
}

// Item is the run that the item i of a batch stands for, but for Stdin and Output: whoever wants to check an
// item runs this with the item's Stdin in a file.
func (s Spec) Item(i Item) Spec {
	s.Args, s.Spent = slices.Concat(s.Args, i.Args), i.Spent
	s.Seed = crowd.Digest("item-seed", itemSeed{Seed: s.Seed, Index: i.Index})
	return s
}

type itemSeed struct {
	_     struct{} `cbor:",toarray"`
	Seed  crowd.Hash
	Index uint64
}

// ValidateBatch is Validate for a Spec that many items share.
func (s Spec) ValidateBatch() error {
	var errs []error
	if s.Stdin != "" || s.Output != "" || s.Spent != 0 {
		errs = append(errs, errors.New("batch: stdin, output and gas that is spent belong to the items"))
	}
	if s.Limits.Output > MaxItemOutput {
		errs = append(errs, fmt.Errorf("batch: output of %d bytes for an item, at most %d", s.Limits.Output, MaxItemOutput))
	}
	s.Output = "of the items"
	return errors.Join(append(errs, s.Validate())...)
}

// ValidateItem reports what is wrong with i as an item of the batch s.
func (s Spec) ValidateItem(i Item) error {
	if len(i.Stdin) > MaxItemStdin {
		return fmt.Errorf("item %d: stdin of %d bytes, at most %d", i.Index, len(i.Stdin), MaxItemStdin)
	}
	if len(i.Args) == 0 {
		return nil // s has been looked at
	}
	s.Args, s.Output = slices.Concat(s.Args, i.Args), "of the items"
	if err := s.Validate(); err != nil {
		return fmt.Errorf("item %d: %w", i.Index, err)
	}
	return nil
}
