package verify

import (
	"bytes"
	"testing"

	"github.com/crowdcompute/crowd/internal/ledger"
)

// FuzzCheckRecord: a receipt in the right form around any genesis and record. Only the true ones pass.
func FuzzCheckRecord(f *testing.F) {
	var seeds []*Receipt
	var chain string
	for _, cheat := range []bool{false, true} {
		data, c := played(f, cheat)
		r, err := Decode(data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.Evidence.Genesis, r.Evidence.Record)
		seeds, chain = append(seeds, r), c
	}
	f.Add([]byte{0x80}, []byte{0x80})
	trust := Trust{Chain: chain, Header: func(*ledger.Genesis, []byte) (Header, error) { // one that a liar would wish for
		return Header{Chain: chain}, nil
	}}
	f.Fuzz(func(t *testing.T, genesis, record []byte) {
		for _, seed := range seeds {
			r := *seed
			r.Evidence.Genesis, r.Evidence.Record = genesis, record
			if _, good := Check(r.Encode(), trust); good {
				t.Errorf("got a good receipt of %x under no state root", record)
			}
			real := trust
			real.Header = verifyHeader
			if _, good := Check(r.Encode(), real); good && !(bytes.Equal(record, seed.Evidence.Record) && bytes.Equal(genesis, seed.Evidence.Genesis)) {
				t.Errorf("another record passed: %x", record)
			}
		}
	})
}
