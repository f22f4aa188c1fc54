package identity

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/crowdcompute/crowd"
)

// Stamp is proof of work for one request (HashCash, Back 2002): it prices queries, inserts and complaints.
// It is bound to a purpose and a resource, so it buys nothing else, and expires, so it cannot be hoarded.
// One stamp is one request as long as the taker remembers its ID until it expires.
type Stamp struct {
	_        struct{} `cbor:",toarray"`
	Purpose  string   // what kind of request: at most MaxPurpose bytes
	Resource crowd.Hash
	Expires  crowd.Time // Unix milliseconds, on the clock of whoever takes it
	Bits     uint8      // claimed difficulty: leading zero bits
	Nonce    uint64
}

// MaxPurpose bounds a stamp's purpose, in bytes.
const MaxPurpose = 32

// MaxStampLife bounds how far ahead a stamp may expire: what a minter can hoard for one rush.
const MaxStampLife = time.Hour

const maxStamp = 128 // bytes encoded

// MintStamp makes a stamp in 2^difficulty hashes on average, from a nonce drawn from r, so that two stamps for the same
// thing differ. It stops with ctx's error.
func MintStamp(ctx context.Context, r io.Reader, purpose string, resource crowd.Hash, expires crowd.Time, difficulty uint8, progress Progress) (Stamp, error) {
	if len(purpose) > MaxPurpose {
		return Stamp{}, fmt.Errorf("mint stamp: purpose of %d bytes, want at most %d", len(purpose), MaxPurpose)
	}
	var start [8]byte
	if _, err := io.ReadFull(r, start[:]); err != nil {
		return Stamp{}, fmt.Errorf("mint stamp: %w", err)
	}
	s := Stamp{Purpose: purpose, Resource: resource, Expires: expires, Bits: difficulty}
	nonce, err := findWork(ctx, s.prefix(), binary.BigEndian.Uint64(start[:]), difficulty, progress)
	if err != nil {
		return Stamp{}, fmt.Errorf("mint stamp: %w", err)
	}
	s.Nonce = nonce
	return s, nil
}

// Check fails unless s pays the difficulty for this purpose and resource at time now (Unix milliseconds; block
// time on chain). A difficulty of 0 is free: anything passes, the zero Stamp too.
func (s Stamp) Check(purpose string, resource crowd.Hash, now crowd.Time, difficulty uint8) error {
	switch {
	case difficulty == 0:
		return nil
	case s.Purpose != purpose || s.Resource != resource:
		return errors.New("stamp: made for another request")
	case s.Expires <= now:
		return errors.New("stamp: expired")
	case s.Expires-now > crowd.Time(MaxStampLife/time.Millisecond):
		return fmt.Errorf("stamp: expires more than %v ahead", MaxStampLife)
	case s.Bits < difficulty:
		return fmt.Errorf("stamp: made for %d bits, want %d", s.Bits, difficulty)
	}
	if err := checkWork(s.prefix(), s.Nonce, s.Bits); err != nil {
		return fmt.Errorf("stamp: %w", err)
	}
	return nil
}

// ID names s: remember it until s.Expires and refuse it a second time.
func (s Stamp) ID() crowd.Hash { return crowd.Digest("stamp/id", s) }

// prefix is what the work is done on: all but the nonce.
func (s Stamp) prefix() []byte {
	s.Nonce = 0
	h := crowd.Digest("stamp", s)
	return h[:]
}

// Encode is the canonical encoding of s.
func (s Stamp) Encode() []byte { return crowd.Encode(s) }

// DecodeStamp reads what Encode made. It checks the form, not the work.
func DecodeStamp(b []byte) (Stamp, error) {
	if len(b) > maxStamp {
		return Stamp{}, fmt.Errorf("stamp: %d bytes, want at most %d", len(b), maxStamp)
	}
	var s Stamp
	if err := crowd.Decode(b, &s); err != nil {
		return Stamp{}, fmt.Errorf("stamp: %w", err)
	}
	if len(s.Purpose) > MaxPurpose {
		return Stamp{}, fmt.Errorf("stamp: purpose of %d bytes, want at most %d", len(s.Purpose), MaxPurpose)
	}
	return s, nil
}
