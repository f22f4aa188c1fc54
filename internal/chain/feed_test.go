package chain

import (
	"context"
	"fmt"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
)

func TestFeed_MergesForTheSlow(t *testing.T) {
	f := newFeed()
	ctx, cancel := context.WithCancel(context.Background())
	slow := f.watch(ctx)
	f.publish(Block{Height: 1, Changes: []ledger.Change{{Key: "b", Val: []byte{1}}}})
	for h := crowd.Height(2); h < 100; h++ {
		f.publish(Block{Height: h, Changes: []ledger.Change{{Key: "a", Val: []byte{byte(h)}}}, Events: []ledger.Event{ledger.JobMoved{}}})
	}
	f.close()
	var last Block
	n, events := 0, 0
	for b := range slow {
		last = b
		n++
		events += len(b.Events)
	}
	if last.Height != 99 || n > 2 || events != 98 || last.Lost {
		t.Errorf("got %d blocks to %d with %d events, lost %v; want at most 2 to 99 with 98", n, last.Height, events, last.Lost)
	}
	if i := len(last.Changes) - 1; last.Changes[0].Key != "a" && last.Changes[i].Key != "a" || last.Changes[0].Val[0] != 99 {
		t.Errorf("changes: got %v, want the newest value", last.Changes)
	}
	cancel()
	if _, open := <-f.watch(context.Background()); open {
		t.Error("a closed feed gives a block")
	}
}

func TestFeed_TellsOfLoss(t *testing.T) {
	f := newFeed()
	slow := f.watch(t.Context())
	f.publish(Block{Height: 1})
	for h := range crowd.Height(3) {
		var cs []ledger.Change
		for i := range maxWaitingChanges {
			cs = append(cs, ledger.Change{Key: fmt.Sprint(h, i)})
		}
		f.publish(Block{Height: 2 + h, Changes: cs})
	}
	f.close()
	lost, most := false, 0
	for b := range slow {
		lost, most = lost || b.Lost, max(most, len(b.Changes))
	}
	if !lost || most > maxWaitingChanges {
		t.Errorf("got lost %v and up to %d changes, want lost and at most %d", lost, most, maxWaitingChanges)
	}
}
