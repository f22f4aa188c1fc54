package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/crowdcompute/crowd"
)

// pin says who wants what to stay. On disk it is an empty file "cid@by".
type pin struct {
	cid crowd.CID
	by  string
}

func (p pin) file() string { return string(p.cid) + "@" + p.by }

func (p pin) check() error {
	if _, err := Parse(p.cid); err != nil {
		return err
	}
	if p.by == "" || len(p.by) > 128 || strings.Trim(p.by, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return fmt.Errorf("pin by %q: want 1 to 128 letters, digits, - or _", p.by)
	}
	return nil
}

func readPins(dir string) (map[pin]struct{}, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	pins := map[pin]struct{}{}
	for _, e := range list {
		c, by, _ := strings.Cut(e.Name(), "@")
		p := pin{crowd.CID(c), by}
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("pin file %s: %w", e.Name(), err)
		}
		pins[p] = struct{}{}
	}
	return pins, nil
}

// Pin keeps c and all below it for one reason, such as a job's ID, until Unpin with the same reason.
// Pinning twice for a reason is pinning once. c need not be here yet: pin, then fetch.
func (s *Store) Pin(c crowd.CID, by string) error {
	p := pin{c, by}
	if err := p.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.WriteFile(filepath.Join(s.dir, "pins", p.file()), nil, 0o600); err != nil {
		return fmt.Errorf("pin %s: %w", c, noSpace(err))
	}
	s.pins[p] = struct{}{}
	return nil
}

// Unpin takes back one Pin. Without one it does nothing.
func (s *Store) Unpin(c crowd.CID, by string) error {
	p := pin{c, by}
	if err := p.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Remove(filepath.Join(s.dir, "pins", p.file())); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin %s: %w", c, err)
	}
	delete(s.pins, p)
	return nil
}

// adding reports whether some add under way needs a block.
func (s *Store) adding(hash string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.adds {
		if a.has(hash) {
			return true
		}
	}
	return false
}

// GC deletes what no pin reaches, except blocks written since the previous GC
// began, and those of adds under way: their owner may be about to pin them. It returns the number deleted.
func (s *Store) GC(ctx context.Context) (deleted int, err error) {
	s.gc.Lock()
	defer s.gc.Unlock()
	s.blocks.mu.Lock()
	spared := s.blocks.young
	s.blocks.young = map[string]uint64{}
	s.blocks.mu.Unlock()
	done := false
	defer func() {
		if done {
			return
		}
		s.blocks.mu.Lock() // it did not happen: the young stay young
		for h, seq := range spared {
			if _, ok := s.blocks.young[h]; !ok {
				s.blocks.young[h] = seq
			}
		}
		s.blocks.mu.Unlock()
	}()
	s.mu.Lock()
	roots := map[crowd.CID]struct{}{}
	for p := range s.pins {
		roots[p.cid] = struct{}{}
	}
	s.mu.Unlock()
	reached := map[cid.Cid]struct{}{}
	for c := range roots {
		k, err := Parse(c)
		if err == nil {
			err = s.reach(ctx, k, reached, true)
		}
		if err != nil {
			return 0, fmt.Errorf("collect garbage: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx) // ends AllKeysChan's sender when we return early
	defer cancel()
	keys, err := s.blocks.AllKeysChan(ctx)
	if err != nil {
		return 0, fmt.Errorf("collect garbage: %w", err)
	}
	for c := range keys {
		// Blocks are on disk by hash: one file serves both codecs.
		_, asRaw := reached[c]
		_, asNode := reached[cid.NewCidV1(cid.DagProtobuf, c.Hash())]
		_, old := spared[string(c.Hash())]
		if asRaw || asNode || old {
			continue
		}
		gone, err := s.blocks.remove(ctx, c, func(_ uint64, young bool) bool { return young || s.adding(string(c.Hash())) })
		if err != nil {
			return deleted, fmt.Errorf("collect garbage: %w", err)
		}
		if gone {
			deleted++
		}
	}
	done = ctx.Err() == nil
	return deleted, ctx.Err()
}
