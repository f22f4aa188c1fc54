package node

import (
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// A genesis may have megabytes: a peer gets it a few times, and after a while again.
func TestAnswerGenesis_AFewTimes(t *testing.T) {
	n := &Node{cfg: Config{Genesis: &ledger.Genesis{Name: "test"}}, chainID: "test-1"}
	ask := func(from byte, chain string) (whole bool, err error) {
		raw, err := n.answerGenesis(t.Context(), crowd.NodeID{from}, crowd.Encode(chain))
		if err != nil {
			return false, err
		}
		var a genesisAnswer
		if err := crowd.Decode(raw, &a); err != nil || a.Chain != "test-1" {
			t.Fatalf("got %+v, %v", a, err)
		}
		return len(a.Genesis) > 0, nil
	}
	for i := range genesisEach {
		if whole, err := ask(1, "test-1"); err != nil || !whole {
			t.Fatalf("question %d: got whole %v, %v", i, whole, err)
		}
	}
	if _, err := ask(1, "test-1"); err == nil {
		t.Error("one more: got an answer")
	}
	if whole, err := ask(1, ""); err != nil || whole {
		t.Errorf("the name alone: got whole %v, %v", whole, err)
	}
	if whole, err := ask(2, "test-1"); err != nil || !whole {
		t.Errorf("another peer: got whole %v, %v", whole, err)
	}
	n.genesisTold.since = n.genesisTold.since.Add(-genesisEvery - time.Second)
	if whole, err := ask(1, "test-1"); err != nil || !whole {
		t.Errorf("later: got whole %v, %v", whole, err)
	}
	for i := range 2 * genesisPeers {
		n.genesisTold.more(crowd.NodeID{byte(i), byte(i >> 8), 9}, time.Now())
	}
	if got := len(n.genesisTold.told); got > genesisPeers {
		t.Errorf("got %d peers counted, want at most %d", got, genesisPeers)
	}
}
