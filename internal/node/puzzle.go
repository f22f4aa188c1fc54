package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/crowdcompute/crowd/internal/atomicfile"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/overlay"
)

// This file solves the puzzles that a network sets: the static one when a key is made, the dynamic one's beacons come off the
// chain.

// OpenKey reads the key of a node's folder, or makes both: one that solves the static puzzle, in 2^static tries of some 15 ms.
// Making one has no memory, so that nothing is lost when ctx ends it; a key that is there is never made again.
func OpenKey(ctx context.Context, dir string, static uint8, progress identity.Progress) (*identity.Key, error) {
	path := filepath.Join(dir, "key")
	k, err := readKey(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = identity.MintKey(ctx, rand.Reader, static, progress); err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	if err := atomicfile.Folder(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	if err := atomicfile.Write(path, k.Bytes(), 0o600); err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	return k, nil
}

func readKey(path string) (*identity.Key, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	k, err := identity.FromBytes(raw)
	if err != nil {
		return nil, fmt.Errorf("open key: read %s: %w", path, err)
	}
	return k, nil
}

// difficulty is what the network asks of a record.
func (n *Node) difficulty() overlay.Difficulty {
	return overlay.Difficulty{Static: n.params.Puzzles.Static, Dynamic: n.params.Puzzles.Dynamic}
}

// beacons are those of the present epoch and the one before, as far as the chain has told them.
func (n *Node) beacons() []overlay.Beacon {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.epochs)
}

// followEpochs keeps beacons as the chain has them.
func (n *Node) followEpochs(ctx context.Context) error {
	blocks := n.chain.Watch(ctx)
	read := func() bool {
		raw, err := n.chain.Get(ctx, ledger.EpochsKey())
		if err == nil {
			err = n.setEpochs(raw)
		}
		if err != nil && ctx.Err() == nil {
			n.log.Warn("cannot read the beacon of the epoch: without it this node's record is not believed; trying again", "err", err)
		}
		return err == nil
	}
	select {
	case <-n.chain.Ready():
	case <-ctx.Done():
		return nil
	}
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			if !read() {
				again.Reset(askTime)
			}
		case b, ok := <-blocks:
			if !ok {
				return nil
			}
			if b.Lost {
				again.Reset(0)
			}
			for _, c := range b.Changes {
				if string(c.Key) == string(ledger.EpochsKey()) {
					if err := n.setEpochs(c.Val); err != nil {
						return err
					}
				}
			}
		}
	}
}

func (n *Node) setEpochs(raw []byte) error {
	list, err := ledger.DecodeEpochs(raw)
	if err != nil {
		return err
	}
	var out []overlay.Beacon
	for _, e := range list {
		out = append(out, overlay.Beacon{Epoch: e.Number, Hash: e.R})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.epochs = out
	return nil
}
