package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// The light protocol: on one stream, frames of canonical CBOR, each after its
// length in 4 bytes, big endian. The light node says hello first; then it asks,
// many questions at a time, and the full node answers each under the ID of its
// question, in any order, and pushes what changed, under ID 0. All frames with
// evidence for the state go out in the order of their headers.

// Bounds of the light protocol.
const (
	maxRequest  = 128 << 10 // a frame to a full node, bytes
	maxAnswer   = 2 << 20   // a frame to a light node, bytes
	pageBytes   = 256 << 10 // a full node stops filling a frame there
	maxPrefixes = 16        // followed by one light node
	maxKey      = 256       // of the state, bytes
	maxText     = 512       // of an error, bytes
	maxAsked    = 64        // questions of one light node at a time
)

// kind of a frame. Append only.
type kind uint8

const (
	kHello    kind = iota + 1 // hello, from the light node, once
	kGet                      // getBody -> kValues with one value
	kList                     // listBody -> kValues
	kSend                     // sendBody -> kOutcome or kRefusal
	kHeader                   // headerBody -> kEvidence
	kValues                   // valuesBody; under ID 0 a push
	kOutcome                  // provenOutcome
	kRefusal                  // refusalBody: refused before any block, on the full node's word
	kEvidence                 // evidenceBody
	kError                    // errorBody
	kMine                     // mineBody -> kJobs
	kJobs                     // jobsBody
)

type frame struct {
	_    struct{} `cbor:",toarray"`
	ID   uint64
	Kind kind
	Body []byte
}

type hello struct {
	_        struct{} `cbor:",toarray"`
	Chain    string
	Prefixes [][]byte     // of the keys whose changes are pushed
	Min      crowd.Height // newest header that the light node knows
	Self     crowd.NodeID // of the records of jobs only those are pushed that concern this node; zero: all
}

type getBody struct {
	_   struct{} `cbor:",toarray"`
	Key []byte
	Min crowd.Height // of the answer's header
}

type listBody struct {
	_      struct{} `cbor:",toarray"`
	Prefix []byte
	After  []byte // the last key had; nil: from the start
	Min    crowd.Height
}

type sendBody struct {
	_  struct{} `cbor:",toarray"`
	Tx []byte
}

type headerBody struct {
	_      struct{}     `cbor:",toarray"`
	Height crowd.Height // 0: none, a sign of life is wanted
}

type mineBody struct {
	_     struct{}     `cbor:",toarray"`
	Since crowd.Height // of the node's own jobs also those that ended in this block or later
	Min   crowd.Height // of the header behind the answer
}

type jobsBody struct {
	_    struct{} `cbor:",toarray"`
	Jobs []crowd.JobID
}

type valuesBody struct {
	_        struct{} `cbor:",toarray"`
	Evidence Evidence
	Values   []value
	More     bool // of a list: keys follow
	Lost     bool // of a push: changes are missing
}

type value struct {
	_     struct{} `cbor:",toarray"`
	Key   []byte
	Val   []byte // nil: absent
	Proof []byte // a patch that makes the ledger.Proof, which holds the value again, of the value
	As    form   // of a push; an answer is whole
}

func newValue(p Proved) value { return value{Key: p.Key, Val: p.Val, Proof: diff(p.Val, p.Proof)} }

// proof needs the whole value.
func (v *value) proof() (ledger.Proof, error) { return apply(v.Val, v.Proof, maxAnswer) }

// form is what a pushed value is, and whether both sides keep it for a patch to come. Append only.
type form uint8

const (
	whole       form = iota
	wholeKept        // kept
	patched          // Val is a patch on the value that is kept under the key; what it makes is kept
	patchedLast      // the same, and nothing is kept any more
)

func (v value) size() int { return len(v.Key) + len(v.Val) + len(v.Proof) + 32 }

type refusalBody struct {
	_      struct{} `cbor:",toarray"`
	Code   ledger.Code
	Reason string
}

type evidenceBody struct {
	_        struct{} `cbor:",toarray"`
	Evidence Evidence
}

type errorBody struct {
	_    struct{} `cbor:",toarray"`
	Lost bool     // the same transaction may be sent again
	Text string
}

func newErrorBody(err error) errorBody {
	text := err.Error()
	return errorBody{Lost: offerAgain(err), Text: strings.ToValidUTF8(text[:min(len(text), maxText)], "")}
}

func (b errorBody) error() error {
	if b.Lost {
		return fmt.Errorf("%w; the full node says: %.512q", ErrDropped, b.Text)
	}
	return fmt.Errorf("the full node says: %.512q", b.Text)
}

// encodeFrame is the frame with its length before it.
func encodeFrame(id uint64, k kind, body any) []byte {
	b := crowd.Encode(frame{ID: id, Kind: k, Body: crowd.Encode(body)})
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...)
}

// readFrame reads one frame of at most limit bytes. io.EOF means an end between frames.
func readFrame(r io.Reader, limit int) (frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(limit) {
		return frame{}, fmt.Errorf("frame of %d bytes, at most %d", n, limit)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, fmt.Errorf("frame: %w", err)
	}
	var f frame
	return f, crowd.Decode(b, &f)
}

// body decodes the body of f.
func body[T any](f frame) (T, error) {
	var v T
	err := crowd.Decode(f.Body, &v)
	return v, err
}
