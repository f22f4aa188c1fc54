// Package store keeps content-addressed blocks and UnixFS files on disk, each
// block checked against its hash whenever it is read. It opens no socket and
// asks nobody for what it does not have.
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	flatfs "github.com/ipfs/go-ds-flatfs"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/crowdcompute/crowd"
)

// Bounds on content. They are part of what makes a refusal the same on every machine.
const (
	MaxBlock   = 2 << 20 // bytes in a block, as bitswap's peers expect
	MaxEntries = 1 << 17 // links in all folders of one tree
	MaxDepth   = 64      // folders inside folders
	MaxName    = 255     // bytes in the name of an entry
	MaxPath    = 1024    // bytes in a path below the root
)

// Errors on which a caller decides something.
var (
	ErrMissing = errors.New("block is missing")   // see MissingError; fetch it
	ErrInvalid = errors.New("unusable content")   // the CID will never name anything usable; same on every machine
	ErrTooBig  = errors.New("content is too big") // more than the given maximum; same on every machine
	ErrNoSpace = errors.New("no space left")      // of the disk, of Config.MaxBytes or Reserve; collect garbage
	ErrLocked  = errors.New("store is in use by another process")
)

// MissingError names a block that is not here. It is an ErrMissing.
type MissingError struct {
	CID    crowd.CID
	Rotten bool // it was here, no longer matched its hash, and has been dropped
}

func (e *MissingError) Error() string {
	if e.Rotten {
		return fmt.Sprintf("block %s was damaged on disk and has been dropped", e.CID)
	}
	return fmt.Sprintf("block %s is missing", e.CID)
}

// Is makes it an ErrMissing to us, and to IPFS's libraries what they call not found.
func (e *MissingError) Is(target error) bool {
	if _, ok := target.(ipld.ErrNotFound); ok {
		return true
	}
	return target == ErrMissing
}

// Config of a store. The zero value works.
type Config struct {
	// MaxBytes on disk; a write above it is ErrNoSpace. 0: as much as the disk holds.
	MaxBytes uint64
	// Reserve is how many bytes of the disk are left to others, of this process too, a twentieth of it at most;
	// a write or an export that would take them is ErrNoSpace.
	Reserve uint64
	// Sync makes each block durable before it counts as written. Without it a killed process loses nothing,
	// but a power cut may lose or damage blocks of the last seconds; a damaged one is noticed when it is read,
	// dropped, and can be fetched again.
	Sync bool
}

// Store is one folder of blocks. Its methods may be called concurrently.
type Store struct {
	// set once
	dir    string
	disk   *flatfs.Datastore
	blocks *blocks
	lock   *os.File

	gc sync.Mutex // one collection at a time

	// guarded by mu
	mu   sync.Mutex
	pins map[pin]struct{}
	adds map[*added]struct{} // under way
}

const uncleanFile = "unclean" // there while a store is open

// Open opens the store in dir, making it if there is none. Only one process
// can have it open at a time: for all others it is ErrLocked.
func Open(dir string, cfg Config) (_ *Store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open store %s: %w", dir, noSpace(err))
		}
	}()
	for _, d := range []string{dir, filepath.Join(dir, "pins")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	s := &Store{dir: dir, adds: map[*added]struct{}{}}
	if s.lock, err = Lock(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.lock.Close()
		}
	}()
	if s.pins, err = readPins(filepath.Join(dir, "pins")); err != nil {
		return nil, err
	}
	at := filepath.Join(dir, "blocks")
	unclean := filepath.Join(dir, uncleanFile)
	if _, err := os.Stat(unclean); err == nil {
		// The last process was killed: flatfs's count of bytes is stale, so make it count again.
		if err := os.Remove(filepath.Join(at, flatfs.DiskUsageFile)); err != nil && !os.IsNotExist(err) {
			return nil, err
		}
	} else if err := os.WriteFile(unclean, nil, 0o600); err != nil {
		return nil, err
	}
	if s.disk, err = flatfs.CreateOrOpen(at, flatfs.NextToLast(2), cfg.Sync); err != nil {
		return nil, err
	}
	s.blocks = &blocks{
		Blockstore: blockstore.NewBlockstore(s.disk, blockstore.NoPrefix()),
		disk:       s.disk,
		max:        cfg.MaxBytes,
		dir:        dir,
		reserve:    cfg.Reserve,
		young:      map[string]uint64{},
	}
	return s, nil
}

// Close waits for no one: whoever still uses the store gets errors.
func (s *Store) Close() error {
	err := s.disk.Close()
	if err == nil {
		err = os.Remove(filepath.Join(s.dir, uncleanFile))
	}
	return errors.Join(err, s.lock.Close())
}

// Blocks is the store as IPFS's libraries see it. What is read through it is checked too.
func (s *Store) Blocks() blockstore.Blockstore { return s.blocks }

// Usage is what a store holds.
type Usage struct {
	Bytes uint64 // on disk
	Max   uint64 // of Config.MaxBytes; 0: no limit
	Pins  int
}

// Usage reports what the store holds now.
func (s *Store) Usage() (Usage, error) {
	n, err := s.disk.DiskUsage(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	return Usage{Bytes: n, Max: s.blocks.max, Pins: len(s.pins)}, err
}

// noSpace marks err as ErrNoSpace where the disk or a quota is full.
func noSpace(err error) error {
	if err == nil || errors.Is(err, ErrNoSpace) || !(errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoSpace, err)
}

func missing(c cid.Cid) error { return &MissingError{CID: crowd.CID(c.String())} }
