package swarm

import (
	"context"
	"fmt"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/overlay"
)

// hoarders see: every beacon as it becomes known. Do: solve the dynamic puzzle for many positions within one epoch, and
// keep the records for later, all to come at once. They cannot know a beacon before it is there.

// Hoard is how many records of a hoard the driver's own check lets in, by epochs that have passed since they were made.
type Hoard struct {
	Records  int
	Accepted []int
}

// HoardPuzzles makes records with real keys and real puzzles of so many bits in one epoch, and offers them in that epoch and later
// ones to a node that knows the beacons of its own epoch and of the one before. beacon is the beacon of an epoch.
func HoardPuzzles(keys []*identity.Key, network overlay.Network, made overlay.Time, d overlay.Difficulty, epochs int, beacon func(epoch uint32) crowd.Hash) (*Hoard, error) {
	records := make([]*overlay.Record, len(keys))
	for i, k := range keys {
		nonce, err := identity.SolveDynamic(context.Background(), k.ID().Key(), beacon(1), d.Dynamic, nil)
		if err != nil {
			return nil, fmt.Errorf("hoard: %w", err)
		}
		r, err := overlay.SignRecord(k, network, overlay.Record{Seq: uint64(made / 1000), Epoch: 1, Nonce: nonce})
		if err != nil {
			return nil, fmt.Errorf("hoard: %w", err)
		}
		records[i] = r
	}
	out := &Hoard{Records: len(records), Accepted: make([]int, epochs)}
	for e := range uint32(epochs) {
		now := []overlay.Beacon{{Epoch: e, Hash: beacon(e)}, {Epoch: e + 1, Hash: beacon(e + 1)}}
		for _, r := range records {
			if overlay.CheckRecord(r, made, d, now...) == nil {
				out.Accepted[e]++
			}
		}
	}
	return out, nil
}
