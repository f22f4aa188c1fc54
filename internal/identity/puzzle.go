package identity

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/sha3"

	"github.com/crowdcompute/crowd"
)

// The two crypto puzzles of S/Kademlia, section 4.1. The static one makes a node ID cost something and
// its place in the overlay not free to choose; it needs memory, because a plain hash would sell an eclipse for
// GPU minutes. The dynamic one must be solved again each epoch, so that hoarded IDs keep costing.
// Difficulties are leading zero bits; 0 bits always pass.

// Parameters of the static puzzle. Changing any of them voids every solved ID.
const (
	staticMemory  = 16 << 10 // KiB
	staticTime    = 1
	staticThreads = 1
	staticSalt    = "crowd/static-puzzle/v1"
)

// Progress is told how many tries have been made so far, now and then; nil is allowed.
type Progress func(tries uint64)

// StaticBits is the difficulty that id meets: the leading zero bits of its Argon2id digest.
// It takes about 15 ms and 16 MiB: check what is cheaper first, and remember the answer.
func StaticBits(id crowd.NodeID) int {
	return zeroBits(argon2.IDKey(id[:], []byte(staticSalt), staticTime, staticMemory, staticThreads, 32))
}

// CheckStatic fails when id does not meet a difficulty. It costs what StaticBits does, and nothing for 0 bits.
func CheckStatic(id crowd.NodeID, difficulty uint8) error {
	if difficulty == 0 {
		return nil
	}
	if got := StaticBits(id); got < int(difficulty) {
		return fmt.Errorf("static puzzle: %d zero bits, want %d", got, difficulty)
	}
	return nil
}

// MintKey draws keys from r until the ID of one meets the difficulty: 2^difficulty tries of about 15 ms on
// average. It stops with ctx's error, and tells progress each try.
func MintKey(ctx context.Context, r io.Reader, difficulty uint8, progress Progress) (*Key, error) {
	for tries := uint64(1); ; tries++ {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("mint key: %w", err)
		}
		k, err := Generate(r)
		if err != nil {
			return nil, fmt.Errorf("mint key: %w", err)
		}
		if CheckStatic(k.id, difficulty) == nil {
			return k, nil
		}
		if progress != nil {
			progress(tries)
		}
	}
}

// CheckDynamic fails when Keccak-256(key‖beacon‖nonce) has fewer zero bits than the difficulty.
// The beacon is that of the epoch: a caller that also takes the last epoch's checks both.
func CheckDynamic(key crowd.Key, beacon crowd.Hash, nonce uint64, difficulty uint8) error {
	if err := checkWork(dynamicPrefix(key, beacon), nonce, difficulty); err != nil {
		return fmt.Errorf("dynamic puzzle: %w", err)
	}
	return nil
}

// SolveDynamic finds a nonce that CheckDynamic takes, in 2^difficulty hashes on average.
// It stops with ctx's error.
func SolveDynamic(ctx context.Context, key crowd.Key, beacon crowd.Hash, difficulty uint8, progress Progress) (uint64, error) {
	nonce, err := findWork(ctx, dynamicPrefix(key, beacon), 0, difficulty, progress)
	if err != nil {
		return 0, fmt.Errorf("solve dynamic puzzle: %w", err)
	}
	return nonce, nil
}

func dynamicPrefix(key crowd.Key, beacon crowd.Hash) []byte {
	return append(key[:], beacon[:]...)
}

// Proofs of work are Keccak-256(prefix‖nonce), the nonce as 8 bytes big-endian. Stamps and dynamic puzzles have
// prefixes of different lengths, so none serves as the other.

func checkWork(prefix []byte, nonce uint64, difficulty uint8) error {
	sum := crowd.Keccak256(prefix, binary.BigEndian.AppendUint64(nil, nonce))
	if got := zeroBits(sum[:]); got < int(difficulty) {
		return fmt.Errorf("%d zero bits, want %d", got, difficulty)
	}
	return nil
}

// reportEvery is how many hashes pass between two looks at the context: a few milliseconds.
const reportEvery = 1 << 13

func findWork(ctx context.Context, prefix []byte, nonce uint64, difficulty uint8, progress Progress) (uint64, error) {
	d := sha3.NewLegacyKeccak256()
	buf := append(append([]byte{}, prefix...), make([]byte, 8)...)
	var sum [32]byte
	for tries := uint64(0); ; tries++ {
		if tries%reportEvery == 0 {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			if progress != nil && tries > 0 {
				progress(tries)
			}
		}
		binary.BigEndian.PutUint64(buf[len(prefix):], nonce)
		d.Reset()
		d.Write(buf)
		if zeroBits(d.Sum(sum[:0])) >= int(difficulty) {
			return nonce, nil
		}
		nonce++
	}
}

// zeroBits counts leading zero bits.
func zeroBits(b []byte) int {
	for i, c := range b {
		if c != 0 {
			return 8*i + bits.LeadingZeros8(c)
		}
	}
	return 8 * len(b)
}
