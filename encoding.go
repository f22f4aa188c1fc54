package crowd

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// One canonical encoding for all that is hashed or signed: deterministic CBOR,
// RFC 8949 section 4.2.1. Text marshalers are for JSON and play no part in it.
var (
	encMode = must(func() (cbor.EncMode, error) {
		o := cbor.CoreDetEncOptions()
		o.TextMarshaler = cbor.TextMarshalerNone
		return o.EncMode()
	}())
	decMode = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   16,
		MaxArrayElements:  1 << 17,
		MaxMapPairs:       1 << 10,
		UTF8:              cbor.UTF8RejectInvalid,
		TimeTag:           cbor.DecTagIgnored,
		TextUnmarshaler:   cbor.TextUnmarshalerNone,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("bug: " + err.Error())
	}
	return v
}

// Encode is the canonical encoding of v. Types meant for it use `cbor:",toarray"`
// or integer keys; it fails only for types that have no encoding, which is a bug.
func Encode(v any) []byte { return must(encMode.Marshal(v)) }

// Decode reads exactly one canonically encoded value into v (a pointer).
// What decodes, encodes back to the same bytes; all else is an error, never a panic.
func Decode(data []byte, v any) error {
	if err := decMode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	again, err := encMode.Marshal(v)
	if err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	if string(again) != string(data) {
		return fmt.Errorf("decode %T: not in canonical form", v)
	}
	return nil
}

// DecodeTrusted is Decode of bytes that Encode made, as the root of a state vouches for: it does not look whether they are canonical,
// which takes a third of the time.
func DecodeTrusted(data []byte, v any) error {
	if err := decMode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}

// Digest is the hash of v under a purpose, so that a signature or commitment
// made for one purpose means nothing for another.
func Digest(purpose string, v any) Hash {
	return Keccak256([]byte("crowd/"+purpose+"\x00"), Encode(v))
}
