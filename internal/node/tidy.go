package node

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/crowdcompute/crowd/internal/store"
)

// This file keeps strangers' content from filling the disk: what no job of the node needs any
// more is collected, and the last of the disk is left to the chain and the journals.

const (
	reserve = 1 << 30         // bytes of the disk that content does not take; a twentieth of a small disk
	collect = time.Hour       // between two collections: what is on its way here unpinned survives at least that
	hurried = 5 * time.Minute // the same when the disk is full
)

// tidy collects garbage, now and then and when space is short.
func (n *Node) tidy(ctx context.Context) error {
	for last, wait := time.Now(), collect; ; {
		select {
		case <-n.short:
			wait = hurried
			continue
		case <-time.After(time.Until(last.Add(wait))):
		case <-ctx.Done():
			return nil
		}
		last, wait = time.Now(), collect
		deleted, err := n.store.GC(ctx)
		if err != nil && ctx.Err() == nil {
			n.log.Warn("collect garbage", "err", err)
		}
		n.log.Debug("collected garbage", "blocks", deleted)
	}
}

// shortage asks for a collection soon. It does not wait.
func (n *Node) shortage() {
	select {
	case n.short <- struct{}{}:
	default: // somebody has asked
	}
}

// full reports whether err says that the disk is.
func full(err error) bool { return errors.Is(err, store.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) }

// spaced passes err on, and sees to it when it is about space.
func (n *Node) spaced(err error) error {
	if errors.Is(err, store.ErrNoSpace) {
		n.shortage()
	}
	return err
}
