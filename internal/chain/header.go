package chain

import (
	"bytes"
	stded25519 "crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/merkle"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// Evidence is a header with the authorities' signatures: CometBFT's SignedHeader in protobuf.
type Evidence []byte

// Header is what the authorities have signed of a block.
type Header struct {
	Height  crowd.Height
	Time    crowd.Time
	AppHash crowd.Hash // root of the state after block Height-1
	Results crowd.Hash // Merkle root of what became of the transactions of block Height-1
	ChainID string
}

// ConsensusKey is what an authority with key k has as Authority.Consensus: an Ed25519 public key, 32 bytes.
func ConsensusKey(k *identity.Key) []byte { return consensusPriv(k).PubKey().Bytes() }

func consensusPriv(k *identity.Key) ed25519.PrivKey {
	return ed25519.PrivKey(stded25519.NewKeyFromSeed(k.Derive("consensus")))
}

// validators are the authorities that g names, with one vote each.
func validators(g *ledger.Genesis) (*types.ValidatorSet, error) {
	vals := make([]*types.Validator, len(g.Authorities))
	seen := map[string]bool{}
	for i, a := range g.Authorities {
		if len(a.Consensus) != ed25519.PubKeySize {
			return nil, fmt.Errorf("genesis: consensus key of authority %d has %d bytes, want %d", i, len(a.Consensus), ed25519.PubKeySize)
		}
		if seen[string(a.Consensus)] {
			return nil, fmt.Errorf("genesis: consensus key of authority %d stands there twice", i)
		}
		seen[string(a.Consensus)] = true
		vals[i] = types.NewValidator(ed25519.PubKey(a.Consensus), 1)
	}
	if len(vals) == 0 {
		return nil, errors.New("genesis: no authority")
	}
	return types.NewValidatorSet(vals), nil
}

// VerifyHeader checks ev with the stock CometBFT library, all signatures of it,
// against the authorities that g names. It needs no network and no state.
func VerifyHeader(g *ledger.Genesis, ev Evidence) (Header, error) {
	v, err := newVerifier(g)
	if err != nil {
		return Header{}, err
	}
	return v.header(ev)
}

// verifier is VerifyHeader with what depends on the genesis alone worked out.
type verifier struct {
	// set once
	chain string
	vals  *types.ValidatorSet
	hash  []byte
}

func newVerifier(g *ledger.Genesis) (*verifier, error) {
	vals, err := validators(g)
	if err != nil {
		return nil, err
	}
	return &verifier{chain: g.ChainID(), vals: vals, hash: vals.Hash()}, nil
}

// maxEvidence bounds evidence from outside, in bytes: a header has less than 1 KiB, a signature less than 200 bytes.
func (v *verifier) maxEvidence() int { return 1024 + 200*v.vals.Size() }

func (v *verifier) header(ev Evidence) (Header, error) {
	fail := func(err error) (Header, error) { return Header{}, fmt.Errorf("header: %w", err) }
	if len(ev) > v.maxEvidence() {
		return fail(fmt.Errorf("%d bytes, at most %d", len(ev), v.maxEvidence()))
	}
	var pb cmtproto.SignedHeader
	if err := pb.Unmarshal(ev); err != nil {
		return fail(err)
	}
	// One header, one commit, one encoding: what is not signed cannot be said.
	if again, err := pb.Marshal(); err != nil || !bytes.Equal(again, ev) {
		return fail(errors.New("not in canonical form"))
	}
	sh, err := types.SignedHeaderFromProto(&pb)
	if err != nil {
		return fail(err)
	}
	if err := sh.ValidateBasic(v.chain); err != nil {
		return fail(err)
	}
	if !bytes.Equal(sh.ValidatorsHash, v.hash) {
		return fail(errors.New("other authorities than the genesis names"))
	}
	if err := types.VerifyCommit(v.chain, v.vals, sh.Commit.BlockID, sh.Height, sh.Commit); err != nil {
		return fail(err)
	}
	if len(sh.AppHash) != 32 || len(sh.LastResultsHash) != 32 {
		return fail(errors.New("a root that is no hash"))
	}
	return Header{
		Height:  crowd.Height(sh.Height),
		Time:    crowd.Time(sh.Time.UnixMilli()),
		AppHash: crowd.Hash(sh.AppHash),
		Results: crowd.Hash(sh.LastResultsHash),
		ChainID: sh.ChainID,
	}, nil
}

// evidence encodes a header with its commit.
func evidence(h *types.Header, c *types.Commit) (Evidence, error) {
	return (&types.SignedHeader{Header: h, Commit: c}).ToProto().Marshal()
}

// outcome is what a block says of one of its transactions: the Data of its
// ExecTxResult, so that LastResultsHash of the next header commits to all of it.
type outcome struct {
	_      struct{} `cbor:",toarray"`
	Tx     crowd.Hash
	Code   ledger.Code
	Reason string
}

// maxReason bounds the text of an outcome, in bytes.
const maxReason = 512

func newOutcome(tx crowd.Hash, err error) outcome {
	o := outcome{Tx: tx}
	var r *ledger.Refusal
	if errors.As(err, &r) {
		o.Code, o.Reason = r.Code, strings.ToValidUTF8(r.Reason[:min(len(r.Reason), maxReason)], "")
	}
	return o
}

func txHash(raw []byte) crowd.Hash { return crowd.Hash(types.Tx(raw).Key()) }

func (o outcome) refusal() *ledger.Refusal {
	if o.Code == ledger.OK {
		return nil
	}
	return &ledger.Refusal{Code: o.Code, Reason: o.Reason}
}

func (o outcome) result() *abci.ExecTxResult {
	return &abci.ExecTxResult{Code: uint32(o.Code), Data: crowd.Encode(o), Log: o.Reason}
}

// provenOutcome is an outcome that anybody can check against the header after its block.
type provenOutcome struct {
	_        struct{} `cbor:",toarray"`
	Evidence Evidence // of the header after the block
	Data     []byte   // an outcome
	Index    int64
	Total    int64
	Aunts    [][]byte
}

func (p *provenOutcome) verify(v *verifier, tx crowd.Hash) (Header, outcome, error) {
	h, err := v.header(p.Evidence)
	if err != nil {
		return Header{}, outcome{}, err
	}
	var o outcome
	if err := crowd.Decode(p.Data, &o); err != nil {
		return Header{}, outcome{}, fmt.Errorf("outcome: %w", err)
	}
	if o.Tx != tx {
		return Header{}, outcome{}, errors.New("outcome: of another transaction")
	}
	leaf, err := abci.DeterministicExecTxResult(o.result()).Marshal()
	if err != nil {
		return Header{}, outcome{}, fmt.Errorf("outcome: %w", err)
	}
	proof := merkle.Proof{Total: p.Total, Index: p.Index, Aunts: p.Aunts, LeafHash: leafHash(leaf)}
	if err := proof.ValidateBasic(); err != nil {
		return Header{}, outcome{}, fmt.Errorf("outcome: %w", err)
	}
	if err := proof.Verify(h.Results[:], leaf); err != nil {
		return Header{}, outcome{}, fmt.Errorf("outcome: %w", err)
	}
	return h, o, nil
}

// leafHash is the hash of a leaf in CometBFT's trees: that of a tree with nothing else in it.
func leafHash(leaf []byte) []byte { return merkle.HashFromByteSlices([][]byte{leaf}) }
