package chain

import (
	"bytes"
	"os"
	"strings"
	"testing"

	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// signedBlock is a genesis and some header of its chain, which the given authorities sign.
func signedBlock(t testing.TB, w *world, height int64, signers ...int) Evidence {
	t.Helper()
	vals, err := validators(w.genesis)
	if err != nil {
		t.Fatal(err)
	}
	root := crowd.Keccak256([]byte("root"))
	h := types.Header{
		ChainID: w.genesis.ChainID(), Height: height, Time: types.MakeBlock(1, nil, &types.Commit{}, nil).Time.UTC(),
		ValidatorsHash: vals.Hash(), NextValidatorsHash: vals.Hash(), ConsensusHash: root[:], AppHash: root[:],
		LastResultsHash: root[:], DataHash: root[:], EvidenceHash: root[:], LastCommitHash: root[:],
		LastBlockID:     types.BlockID{Hash: root[:], PartSetHeader: types.PartSetHeader{Total: 1, Hash: root[:]}},
		ProposerAddress: vals.Proposer.Address,
	}
	h.Version.Block = 11
	id := types.BlockID{Hash: h.Hash(), PartSetHeader: types.PartSetHeader{Total: 1, Hash: root[:]}}
	c := &types.Commit{Height: height, BlockID: id, Signatures: make([]types.CommitSig, vals.Size())}
	for i := range c.Signatures {
		c.Signatures[i] = types.NewCommitSigAbsent()
	}
	for _, s := range signers {
		key := consensusPriv(w.authorities[s])
		i, _ := vals.GetByAddress(key.PubKey().Address())
		v := types.Vote{Type: cmtproto.PrecommitType, Height: height, BlockID: id, Timestamp: h.Time, ValidatorAddress: key.PubKey().Address(), ValidatorIndex: i}
		sig, err := key.Sign(types.VoteSignBytes(h.ChainID, v.ToProto()))
		if err != nil {
			t.Fatal(err)
		}
		v.Signature = sig
		c.Signatures[i] = v.CommitSig()
	}
	ev, err := evidence(&h, c)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func TestVerifyHeader(t *testing.T) {
	w := newWorld(t, 4, 0, 0)
	other := newWorld(t, 3, 0, 0)
	full := signedBlock(t, w, 7, 0, 1, 2, 3)
	trailing := append(bytes.Clone(full), 0x1a, 0x01, 0x00)
	for _, c := range []struct {
		name string
		g    *ledger.Genesis
		ev   Evidence
		want string // of the error; "" none
	}{
		{"all signed", w.genesis, full, ""},
		{"three of four", w.genesis, signedBlock(t, w, 7, 0, 2, 3), ""},
		{"two of four", w.genesis, signedBlock(t, w, 7, 0, 1), "voting power"},
		{"nobody", w.genesis, signedBlock(t, w, 7), "header"},
		{"another network's", other.genesis, full, "chain"},
		{"cut", w.genesis, full[:len(full)-1], "header"},
		{"something appended", w.genesis, trailing, "canonical"},
		{"nothing", w.genesis, nil, "header"},
		{"too long", w.genesis, make(Evidence, 1<<20), "at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := VerifyHeader(c.g, c.ev)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if err == nil && (h.Height != 7 || h.AppHash != crowd.Keccak256([]byte("root")) || h.ChainID != w.genesis.ChainID()) {
				t.Errorf("got %+v", h)
			}
		})
	}
	t.Run("every byte counts", func(t *testing.T) {
		for i := range full {
			for _, flip := range []byte{1, 0x80} {
				bad := bytes.Clone(full)
				bad[i] ^= flip
				if _, err := VerifyHeader(w.genesis, bad); err == nil {
					t.Errorf("byte %d of %d changed and nobody minds", i, len(full))
				}
			}
		}
	})
}

func FuzzVerifyHeader(f *testing.F) {
	w := newWorld(f, 2, 0, 0)
	w.genesis.Time = 1
	good := signedBlock(f, w, 7, 0, 1)
	v, err := newVerifier(w.genesis)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good))
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0x00, 0x12, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := v.header(data); err == nil && !bytes.Equal(data, good) {
			t.Errorf("forged: %x", data)
		}
	})
}

func TestFull_CorruptSignState(t *testing.T) {
	w := newWorld(t, 1, 0, 1)
	dir := t.TempDir()
	start(t, solo(t, w, dir)).close()
	for _, bad := range []string{"", "{", `{"height":"9"`, `{"height":"9","round":0,"step":3,"signbytes":"00"}`} {
		if err := os.WriteFile(dir+"/data/signed.json", []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := NewFull(solo(t, w, dir))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Run(deadline(t)); err == nil || !strings.Contains(err.Error(), ErrCorrupt.Error()) {
			t.Errorf("%q: got %v, want %v", bad, err, ErrCorrupt)
		}
	}
}
