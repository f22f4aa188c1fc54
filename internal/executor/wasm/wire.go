package wasm

import (
	"errors"
	"fmt"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// The parent and its workers speak over a socket that keeps messages apart
// (SOCK_SEQPACKET). A message is its kind in one byte and the canonical encoding
// of its body; open files travel beside it. The worker is as hostile to the
// parent as any peer: the parent decodes nothing longer than maxMessage, holds at
// most maxNodes lines of a result, and answers only what a run may ask.
const (
	maxMessage = 64 << 10
	listBytes  = 32 << 10 // of names in one part of a listing or a result
	maxReason  = 512      // bytes of a reason, for people
	maxFiles   = 4        // beside one message
)

type kind uint8

const (
	mHello    kind = iota + 1 // to the worker: which engine
	mReady                    // the worker is locked in
	mCompile                  // to the worker, with [program, code]: an order
	mCompiled                 //
	mRun                      // to the worker, with [stdout, stderr, stdin?, code?]
	mProgress                 // gas used so far
	mList                     // which entries has this folder of /in?
	mOpen                     // that file of /in, please
	mCreate                   // a new file for /out, please
	mReply                    // to the worker: the answer to one of these three
	mLeaves                   // a part of what /out came to
	mDone                     // the end of the run
	mBatch                    // to the worker, with [image, code?]: items of one program follow
	mBegun                    // it is ready for them
	mItems                    // to the worker: a part of a frame of items; a frame of none ends the batch
	mResults                  // a part of what some of the frame's items came to
)

type hello struct {
	_      struct{} `cbor:",toarray"`
	Engine string
}

type compiled struct {
	_       struct{} `cbor:",toarray"`
	Invalid string   // why this is no program that we run; "" if it is one
	Size    uint64   // bytes of code written; 0: only the price was asked for
	Price   price
	Fault   executor.Kind // not 0: neither is known
	Reason  string
}

// price is what a program needs before its first instruction.
type price struct {
	_      struct{} `cbor:",toarray"`
	Memory uint64   // bytes of linear memory that it begins with
	Code   uint64   // gas of its code, once for all runs that share it
	Begin  uint64   // gas of each run
	Effort uint64   // nanoseconds that compiling takes, about
}

// mostPart keeps sums of gas that is spent before a program begins from overflow: each part is at most that.
const mostPart = 1 << 60

// start is the gas that a run of s has used when its program begins.
func (p *price) start(s *executor.Spec) crowd.Gas {
	return min(s.Spent, mostPart) + executor.Share(crowd.Gas(min(p.Code, mostPart)), s.Shares) + crowd.Gas(min(p.Begin, mostPart))
}

// order is what a worker is to make of a program.
type order struct {
	_    struct{} `cbor:",toarray"`
	Code bool     // false: only its price
}

type runOrder struct {
	_      struct{} `cbor:",toarray"`
	Args   []string
	Env    []string
	Seed   crowd.Hash
	Limits crowd.Limits
	Start  crowd.Gas // used when the program begins
	Memory uint64    // that the program begins with
	Stdin  bool      // its file is there
	Code   bool      // its file is there; otherwise the worker has it loaded
	Inputs bool      // there is an /in
	Live   bool      // somebody wants progress
}

type progress struct {
	_   struct{} `cbor:",toarray"`
	Gas crowd.Gas
}

type request struct {
	_     struct{} `cbor:",toarray"`
	Path  []byte   // below /in
	After []byte   // mList: only names behind this one; empty: from the start
}

type reply struct {
	_       struct{} `cbor:",toarray"`
	Entries []entry  // mList
	More    bool     // mList: ask again with After
	Slot    uint32   // mCreate
}

type leaves struct {
	_    struct{} `cbor:",toarray"`
	List []leaf
}

type done struct {
	_        struct{} `cbor:",toarray"`
	Status   crowd.Status
	ExitCode uint32
	Gas      crowd.Gas
	Reason   string
	Fault    executor.Kind // not 0: there is no status
	Unloaded bool          // the code could not be loaded: make it anew
}

type batchOrder struct {
	_      struct{} `cbor:",toarray"`
	Args   []string
	Env    []string
	Seed   crowd.Hash
	Limits crowd.Limits
	Start  crowd.Gas // of each item, used when the program begins; to it comes what the item has spent
	Memory uint64    // that the program begins with
	Code   bool      // its file is there; otherwise the worker has it loaded
	Inputs bool      // there is an /in
}

type begun struct {
	_        struct{} `cbor:",toarray"`
	Unloaded bool     // the code could not be loaded: make it anew
	Reason   string
}

// part is a piece of something too long for one message.
type part struct {
	_    struct{} `cbor:",toarray"`
	Data []byte
	Last bool
}

type frame struct {
	_    struct{} `cbor:",toarray"`
	List []itemOrder
}

type itemOrder struct {
	_     struct{} `cbor:",toarray"`
	Index uint64
	Stdin []byte
	Args  []string
	Spent crowd.Gas
}

type chunk struct {
	_    struct{} `cbor:",toarray"`
	List []itemDone
}

type itemDone struct {
	_        struct{} `cbor:",toarray"`
	Index    uint64
	Status   crowd.Status
	ExitCode uint32
	Gas      crowd.Gas
	Stdout   []byte
	Stderr   []byte
	Out      []executor.File
	Reason   string
	Warm     bool
	Fault    executor.Kind // not 0: there is no status
}

// ended holds what is said of the end of a run to what can be.
func ended(s crowd.Status, exit uint32, reason string, fault executor.Kind) error {
	switch {
	case fault > executor.BadSpec:
		return fmt.Errorf("unknown fault %d", fault)
	case fault != 0:
		if s != 0 {
			return errors.New("both a fault and a status")
		}
	case s < crowd.Exited || s > crowd.OutputFull:
		return fmt.Errorf("no run ends as %v", s)
	case s != crowd.Exited && exit != 0:
		return fmt.Errorf("exit code %d, and %v", exit, s)
	}
	if len(reason) > maxReason {
		return fmt.Errorf("reason of %d bytes", len(reason))
	}
	return nil
}

// decodeChunk reads a chunk of results that a worker sent in parts.
func decodeChunk(b []byte) (*chunk, error) {
	c, err := decodeAs(b, func(c *chunk) error {
		for i := range c.List {
			d := &c.List[i]
			if err := ended(d.Status, d.ExitCode, d.Reason, d.Fault); err != nil {
				return fmt.Errorf("item %d: %w", d.Index, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c.(*chunk), nil
}

func pack(k kind, body any) []byte {
	return append([]byte{byte(k)}, crowd.Encode(body)...)
}

var errEmpty = errors.New("empty message")

// unpack splits a message; decodeFromWorker reads the body.
func unpack(b []byte) (kind, []byte, error) {
	if len(b) == 0 {
		return 0, nil, errEmpty
	}
	if len(b) > maxMessage {
		return 0, nil, fmt.Errorf("message of %d bytes, at most %d", len(b), maxMessage)
	}
	return kind(b[0]), b[1:], nil
}

// decodeFromWorker reads the body of a message of kind k, and says whether a worker may
// send such a thing to its parent. It is all that the parent believes of it.
func decodeFromWorker(k kind, body []byte) (any, error) {
	switch k {
	case mReady:
		return nil, nil
	case mCompiled:
		return decodeAs(body, func(c *compiled) error {
			if c.Fault > executor.BadSpec || c.Fault != 0 && c.Invalid != "" {
				return fmt.Errorf("fault %d, and %.64q", c.Fault, c.Invalid)
			}
			if len(c.Invalid) > maxReason || len(c.Reason) > maxReason {
				return fmt.Errorf("reasons of %d and %d bytes", len(c.Invalid), len(c.Reason))
			}
			return nil
		})
	case mProgress:
		return decodeAs[progress](body, nil)
	case mList, mOpen, mCreate:
		return decodeAs[request](body, nil)
	case mLeaves:
		return decodeAs(body, func(l *leaves) error {
			if len(l.List) > maxNodes {
				return fmt.Errorf("%d files at once", len(l.List))
			}
			return nil
		})
	case mDone:
		return decodeAs(body, func(d *done) error {
			fault := d.Fault
			if fault == 0 && d.Unloaded {
				fault = executor.Crashed // no status either
			}
			return ended(d.Status, d.ExitCode, d.Reason, fault)
		})
	case mBegun:
		return decodeAs(body, func(b *begun) error {
			if len(b.Reason) > maxReason {
				return fmt.Errorf("reason of %d bytes", len(b.Reason))
			}
			return nil
		})
	case mResults:
		return decodeAs[part](body, nil)
	}
	return nil, fmt.Errorf("message of kind %d, which no worker sends", k)
}

func decodeAs[T any](body []byte, check func(*T) error) (any, error) {
	v := new(T)
	if err := crowd.Decode(body, v); err != nil {
		return nil, err
	}
	if check != nil {
		if err := check(v); err != nil {
			return nil, fmt.Errorf("decode %T: %w", v, err)
		}
	}
	return v, nil
}
