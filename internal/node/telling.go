package node

import (
	"fmt"

	"github.com/crowdcompute/crowd"
)

// protoTelling carries from an executor to the job's owner what its run writes
// and how far it is. Nothing depends on it: it is for people, and unverified.
const protoTelling = "/crowd/telling/1"

// telling is one message of it.
type telling struct {
	_      struct{} `cbor:",toarray"`
	Job    crowd.JobID
	Gas    crowd.Gas // used so far
	Stream uint8     // 0 stdout, 1 stderr
	Offset uint64    // of Data in the stream
	Data   []byte
}

// maxTelling bounds one message, in bytes.
const maxTelling = 64 << 10

func decodeTelling(raw []byte) (m telling, err error) {
	if err := crowd.Decode(raw, &m); err != nil {
		return telling{}, err
	}
	if m.Stream > 1 {
		return telling{}, fmt.Errorf("telling: stream %d", m.Stream)
	}
	return m, nil
}
