package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/identity"
)

// MaxTx bounds an encoded transaction, in bytes.
const MaxTx = 64 << 10

// Message is what a transaction asks for. The kinds are append only.
type Message interface{ kind() uint8 }

// Transfer moves credits to another account.
type Transfer struct {
	_      struct{} `cbor:",toarray"`
	To     crowd.Address
	Amount crowd.Credits
}

// Offer is what a provider asks and has.
type Offer struct {
	_       struct{} `cbor:",toarray"`
	Price   crowd.Price
	Tags    []string
	Country string // ISO 3166-1 alpha-2, as the provider says; "" unsaid
	Owners  uint32 // least Consumer.Score of owners whose jobs it takes, ppm; 0: anybody's
	Memory  uint64 // most Limits.Memory of a run that it has room for, bytes; 0: any
}

// Register makes the sender a provider, or changes its offer and adds to its
// stake; either way it may be drawn only Lookback blocks later.
type Register struct {
	_     struct{} `cbor:",toarray"`
	VRF   identity.VRFPublic
	Offer Offer
	Stake crowd.Credits // moved from the balance, on top of what is staked
}

// Leave ends the sender's being drawn; after Unbonding a second Leave returns the stake.
type Leave struct {
	_ struct{} `cbor:",toarray"`
}

// Awake says that a provider that missed draws is there again.
type Awake struct {
	_ struct{} `cbor:",toarray"`
}

// Post offers a job and locks its escrow.
type Post struct {
	_    struct{} `cbor:",toarray"`
	Spec crowd.JobSpec
}

// Claim shows that the sender was drawn for Job.
type Claim struct {
	_     struct{} `cbor:",toarray"`
	Job   crowd.JobID
	Proof identity.VRFProof
}

// Commit binds the sender to an outcome that nobody can copy. Sealed holds the
// opening encrypted to each authority in order, so that keeping silent after
// one has seen the others' reveals does not help.
type Commit struct {
	_          struct{} `cbor:",toarray"`
	Job        crowd.JobID
	Commitment crowd.Hash // Commitment(job, node, outcome, salt)
	Sealed     [][]byte   // Opening sealed with SealPurpose(job, node)
}

// Opening is what a commitment hides: an executor's outcome, or a verifier's answers.
type Opening struct {
	_       struct{}      `cbor:",toarray"`
	Outcome crowd.Outcome // of an executor; zero from a verifier
	Salt    crowd.Hash
	Sample  []byte       // of a verifier: the VRF proof for SampleInput; its output picks the items
	Answers []crowd.Hash // of a verifier: the batch.Leaf hash of each item of its sample
	Outputs crowd.CID    // of a verifier in a tolerant job: a folder like a batch's result, with what its items wrote
}

// Reveal opens the sender's own commitment. A verifier has seen the executor's leaves by then: it says in
// the same breath where they differ from its answers, before the owner can accept.
type Reveal struct {
	_        struct{} `cbor:",toarray"`
	Job      crowd.JobID
	Opening  Opening
	Conflict *batch.Proof // of a verifier: an item of its sample under the executor's root; nil: they agree
}

// GiveUp frees the sender's place for an alternate: it cannot do the job.
type GiveUp struct {
	_      struct{} `cbor:",toarray"`
	Job    crowd.JobID
	Reason Reason
	Why    string // for people, at most maxWhy bytes
}

// Unseal is an authority's: it opens the commitment of a silent executor.
type Unseal struct {
	_        struct{} `cbor:",toarray"`
	Job      crowd.JobID
	Executor crowd.NodeID
	Opening  Opening
	Conflict *batch.Proof // as in Reveal
}

// Vote is an authority's answer to the question before the court.
type Vote struct {
	_        struct{} `cbor:",toarray"`
	Job      crowd.JobID
	Question Question
	Executor crowd.NodeID  // of BadSeal and SameAnswer
	Outcome  crowd.Outcome // of WhatOutcome and OwnAnswer; of an item OwnAnswer's Result alone, a folder like a batch's with that item
	Item     uint32        // of WhatItem, SameAnswer and OwnAnswer: which one. A vote that comes late is not taken for one about another item
	Leaf     crowd.Hash    // of WhatItem and OwnAnswer: batch.Leaf.Hash
	Yes      bool          // of the others
	Finding  Finding       // of SameAnswer
}

// Report proves that an executor and a verifier bound themselves to different
// outcomes of one item. Anybody may report; the court finds out who is wrong.
type Report struct {
	_        struct{} `cbor:",toarray"`
	Job      crowd.JobID
	Verifier crowd.NodeID
	Proof    batch.Proof // of an item of its sample, under the executor's root
}

// Accept says that the owner has the result.
type Accept struct {
	_   struct{} `cbor:",toarray"`
	Job crowd.JobID
}

// Complain says that the owner cannot get the result; the court looks.
type Complain struct {
	_   struct{} `cbor:",toarray"`
	Job crowd.JobID
}

// Cancel ends a job that nobody has committed to.
type Cancel struct {
	_   struct{} `cbor:",toarray"`
	Job crowd.JobID
}

// Tick does nothing: it makes the block in which deadlines fall. Free for authorities.
type Tick struct {
	_ struct{} `cbor:",toarray"`
}

func (*Transfer) kind() uint8 { return 1 }
func (*Register) kind() uint8 { return 2 }
func (*Leave) kind() uint8    { return 3 }
func (*Awake) kind() uint8    { return 4 }
func (*Post) kind() uint8     { return 5 }
func (*Claim) kind() uint8    { return 6 }
func (*Commit) kind() uint8   { return 7 }
func (*Reveal) kind() uint8   { return 8 }
func (*GiveUp) kind() uint8   { return 9 }
func (*Unseal) kind() uint8   { return 10 }
func (*Vote) kind() uint8     { return 11 }
func (*Accept) kind() uint8   { return 12 }
func (*Complain) kind() uint8 { return 13 }
func (*Cancel) kind() uint8   { return 14 }
func (*Tick) kind() uint8     { return 15 }
func (*Report) kind() uint8   { return 16 }

// newMessage is an empty message of that kind, or nil.
func newMessage(kind uint8) Message {
	for _, m := range []Message{
		&Transfer{}, &Register{}, &Leave{}, &Awake{}, &Post{}, &Claim{}, &Commit{}, &Reveal{}, &GiveUp{},
		&Unseal{}, &Vote{}, &Accept{}, &Complain{}, &Cancel{}, &Tick{}, &Report{},
	} {
		if m.kind() == kind {
			return m
		}
	}
	return nil
}

type body struct {
	_     struct{} `cbor:",toarray"`
	Chain string
	Nonce uint64
	Kind  uint8
	Msg   []byte
}

type envelope struct {
	_    struct{} `cbor:",toarray"`
	Body []byte
	Sig  identity.Signature
}

// Tx is a transaction whose signature has been checked: only Open makes one.
type Tx struct {
	sender crowd.NodeID
	nonce  uint64
	msg    Message
	size   int // encoded, bytes
}

// Sender is who signed.
func (t Tx) Sender() crowd.NodeID { return t.sender }

// Nonce is the sender's count of transactions before this one.
func (t Tx) Nonce() uint64 { return t.nonce }

// Message is what is asked for; the caller must not change it.
func (t Tx) Message() Message { return t.msg }

// Sign makes the bytes of a transaction. nonce is the account's next one.
func Sign(k *identity.Key, chain string, nonce uint64, m Message) []byte {
	b := crowd.Encode(body{Chain: chain, Nonce: nonce, Kind: m.kind(), Msg: crowd.Encode(m)})
	return crowd.Encode(envelope{Body: b, Sig: k.Sign(txDigest(b))})
}

func txDigest(body []byte) crowd.Hash { return crowd.Keccak256([]byte("crowd/tx\x00"), body) }

// Open decodes a transaction and recovers its sender. It needs no state, so it
// may run ahead of the block and in parallel.
func Open(chain string, raw []byte) (Tx, error) {
	if len(raw) > MaxTx {
		return Tx{}, refuse(BadTx, "%d bytes, at most %d", len(raw), MaxTx)
	}
	var e envelope
	if err := crowd.Decode(raw, &e); err != nil {
		return Tx{}, refuse(BadTx, "%v", err)
	}
	var b body
	if err := crowd.Decode(e.Body, &b); err != nil {
		return Tx{}, refuse(BadTx, "%v", err)
	}
	if b.Chain != chain {
		return Tx{}, refuse(BadTx, "signed for chain %.60q, this is %q", b.Chain, chain)
	}
	m := newMessage(b.Kind)
	if m == nil {
		return Tx{}, refuse(BadTx, "unknown kind %d", b.Kind)
	}
	if err := crowd.Decode(b.Msg, m); err != nil {
		return Tx{}, refuse(BadTx, "%v", err)
	}
	id, err := identity.Recover(txDigest(e.Body), e.Sig)
	if err != nil {
		return Tx{}, refuse(BadTx, "signature: %v", err)
	}
	return Tx{sender: id, nonce: b.Nonce, msg: m, size: len(raw)}, nil
}

// kept reports whether what m says stays in a record.
func kept(m Message) bool {
	switch m.(type) {
	case *Register, *Post, *Claim, *Commit, *Reveal, *GiveUp, *Unseal, *Vote:
		return true
	}
	return false
}

// Fee is what tx costs its sender, by its size and by how long the state holds
// it: else 64 KiB of junk would stay there for the price of a transfer. An
// authority's duties are free, which the ledger knows and Fee does not.
func (p Params) Fee(tx Tx) crowd.Credits { return p.feeOf(tx.size, kept(tx.msg)) }

// feeOf is the fee of a transaction of so many bytes.
func (p Params) feeOf(size int, kept bool) crowd.Credits {
	const day, century = 86_400_000, 36_525
	per := p.SizeFee
	if kept {
		per += p.KeepFee * crowd.Credits(min((p.Retention-1)/day+1, century))
	}
	fee, ok := p.TxFee.Add((per*crowd.Credits(size) + 1023) / 1024) // per is at most a credit for each day of a century, size 64 KiB
	if !ok {
		return ^crowd.Credits(0)
	}
	return fee
}

// Sizes of what drawn nodes put on chain, in bytes, rounded up from what they measure.
const (
	claimSize  = 256
	commitSize = 256  // and a sealed opening for each authority
	sealedSize = 448  // one of them, without a verifier's answers
	revealSize = 512  // without them
	answerSize = 34   // of each answer
	proofSize  = 2048 // of a conflict that a verifier shows
)

// DutyFees is what the owner of spec burns with its post, besides the post's own fee: the fees of the claims that a draw among so
// many eligible providers brings, and of what the nodes with a place, replacements included, put on chain.
func (p Params) DutyFees(spec *crowd.JobSpec, eligible uint32, authorities int) crowd.Credits {
	executors, verifiers := Seats(&spec.Plan)
	if spec.Plan.Method == crowd.PlanAudit {
		executors = pairSize
	}
	executors += int(spec.Plan.Replacements) // any of them may be one
	if verifiers > 0 {
		verifiers += int(spec.Plan.Replacements)
	}
	answers := answerSize * int(min(spec.Plan.Checks, max(spec.Items, 1)))
	sum, ok := crowd.Credits(0), true
	add := func(times uint64, size int) {
		hi, lo := bits.Mul64(times, uint64(p.feeOf(size, true)))
		if ok = ok && hi == 0; ok {
			sum, ok = sum.Add(crowd.Credits(lo))
		}
	}
	add(min(uint64(eligible), p.CommitteeUnits), claimSize)
	add(uint64(executors), commitSize+authorities*sealedSize)
	add(uint64(executors), revealSize)
	add(2*uint64(verifiers), commitSize+authorities*(sealedSize+answers)) // it commits before the executor is bound, and seals after
	add(uint64(verifiers), revealSize+answers+proofSize)
	if !ok {
		return ^crowd.Credits(0)
	}
	return sum
}

// Commitment hides an outcome until its reveal and names who made it, so that a copy is worth nothing.
func Commitment(job crowd.JobID, node crowd.NodeID, o Opening) crowd.Hash {
	return crowd.Digest("commitment", struct {
		_       struct{} `cbor:",toarray"`
		Job     crowd.JobID
		Node    crowd.NodeID
		Opening Opening
	}{Job: job, Node: node, Opening: o})
}

// padTo is to what the plaintext of a sealed opening is filled up, in bytes: or its length would tell how much gas was used.
const padTo = 64

// Pad is the plaintext of a sealed opening: the length of its encoding in four bytes, big-endian, the encoding, and zeros up to a multiple of padTo.
func Pad(o *Opening) []byte {
	raw := crowd.Encode(o)
	b := binary.BigEndian.AppendUint32(nil, uint32(len(raw)))
	b = append(b, raw...)
	return append(b, make([]byte, (padTo-len(b)%padTo)%padTo)...)
}

// Unpad is the inverse of Pad. Whatever Pad does not give is an error.
func Unpad(b []byte) (o Opening, err error) {
	if len(b) < 4 {
		return o, errors.New("a sealed opening of less than four bytes")
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return o, fmt.Errorf("a sealed opening of %d bytes that claims %d", len(b)-4, n)
	}
	if err := crowd.Decode(b[4:4+n], &o); err != nil {
		return Opening{}, err
	}
	if !bytes.Equal(Pad(&o), b) {
		return Opening{}, errors.New("a sealed opening that is not padded as it should be")
	}
	return o, nil
}

// SealPurpose is the associated data under which an opening is sealed to an authority.
func SealPurpose(job crowd.JobID, node crowd.NodeID) []byte {
	return append(append([]byte("crowd/opening\x00"), job[:]...), node[:]...)
}

// Code says why a transaction was refused. Append only; they are on chain.
type Code uint32

const (
	OK          Code = iota
	BadTx            // cannot be decoded, wrong chain or signature
	BadNonce         // not the account's next nonce
	NoFunds          // the balance does not cover it
	BadSpec          // the job's specification breaks a rule
	OverBudget       // the escrow would be more than the job's budget
	NoProvider       // too few eligible providers; the reason names the requirement
	NotFound         // no such job, place or provider
	NotYours         // the sender has no such role
	TooEarly         // the job is not there yet
	TooLate          // the job is past that
	Duplicate        // done already
	BadProof         // a VRF proof or an opening does not fit
	NotEligible      // the provider may not be drawn for this job
	Bug              // the ledger broke a promise of its own; nothing was done
)

var codeNames = [...]string{"ok", "bad transaction", "bad nonce", "insufficient funds", "bad spec", "over budget", "no eligible provider",
	"not found", "not yours", "too early", "too late", "duplicate", "bad proof", "not eligible", "error in the ledger"}

func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// Refusal is why a transaction changed nothing but the fee and the nonce.
type Refusal struct {
	Code   Code
	Reason string
}

func (r *Refusal) Error() string { return r.Code.String() + ": " + r.Reason }

func refuse(c Code, format string, a ...any) *Refusal {
	return &Refusal{c, fmt.Sprintf(format, a...)}
}
