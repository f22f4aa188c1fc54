package overlay

import (
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// Difficulty of the puzzles of S/Kademlia, section 4.1, in leading zero bits. It is the network's.
type Difficulty struct {
	Static  uint8
	Dynamic uint8
}

// Beacon is the randomness of an epoch, to which dynamic puzzles are bound.
type Beacon struct {
	Epoch uint32
	Hash  crowd.Hash
}

// MaxAhead is how far in the future a record may have been made, by the reader's clock.
const MaxAhead = time.Minute

func recordDigest(network Network, body recordBody) crowd.Hash {
	return crowd.Digest("overlay/record", struct {
		_       struct{} `cbor:",toarray"`
		Network Network
		Body    recordBody
	}{Network: network, Body: body})
}

// SignRecord is r as key's record on the network: ID and Sig are set, tags and endpoints stay as they are. It fails
// for a record that breaks its bounds.
func SignRecord(key *identity.Key, network Network, r Record) (*Record, error) {
	if err := r.checkForm(); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	r.ID = key.ID()
	r.Sig = key.Sign(recordDigest(network, r.body()))
	return &r, nil
}

// EncodeRecord is the canonical encoding of r, without its ID. It fails for a record that breaks its bounds.
func EncodeRecord(r *Record) ([]byte, error) {
	if err := r.checkForm(); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return crowd.Encode(toWire(r)), nil
}

// DecodeRecord reads what EncodeRecord made. Whose record it is comes out of the signature: bytes that
// nobody signed, or signed for another network, are the record of nobody's ID.
func DecodeRecord(network Network, b []byte, recover Recover) (*Record, error) {
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("record: %d bytes, at most %d", len(b), MaxRecord)
	}
	var w wireRecord
	if err := crowd.Decode(b, &w); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	r, err := fromWire(&w)
	if err != nil {
		return nil, err
	}
	if err := r.checkForm(); err != nil {
		return nil, err
	}
	if err := r.recoverID(network, recover); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Record) recoverID(network Network, recover Recover) error {
	id, err := recover(recordDigest(network, r.body()), r.Sig)
	if err != nil {
		return fmt.Errorf("%w: record: %w", ErrSignature, err)
	}
	r.ID = id
	return nil
}

// CheckRecord fails unless both puzzles of r are solved, the dynamic one for any of the beacons, and r is not
// from the future. A difficulty of 0 is no puzzle. The static one takes 15 ms; it depends on the ID alone.
func CheckRecord(r *Record, now Time, d Difficulty, beacons ...Beacon) error {
	if err := CheckFresh(r, now, d, beacons...); err != nil {
		return err
	}
	if err := identity.CheckStatic(r.ID, d.Static); err != nil {
		return fmt.Errorf("record of %s: %w", r.ID.Short(), err)
	}
	return nil
}

// CheckFresh is the part of CheckRecord that takes microseconds: the time and the dynamic puzzle.
func CheckFresh(r *Record, now Time, d Difficulty, beacons ...Beacon) error {
	if latest, err := millis(now.Add(MaxAhead)); err != nil || r.Seq > latest {
		return fmt.Errorf("record of %s: made in the future", r.ID.Short())
	}
	if d.Dynamic == 0 {
		return nil
	}
	for _, b := range beacons {
		if b.Epoch != r.Epoch {
			continue
		}
		if err := identity.CheckDynamic(r.ID.Key(), b.Hash, r.Nonce, d.Dynamic); err != nil {
			return fmt.Errorf("record of %s: %w", r.ID.Short(), err)
		}
		return nil
	}
	return fmt.Errorf("record of %s: its puzzle is of epoch %d, which is not known or over", r.ID.Short(), r.Epoch)
}
