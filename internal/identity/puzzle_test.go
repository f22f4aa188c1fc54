package identity

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/crowdcompute/crowd"
)

func TestZeroBits(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want int
	}{
		{"none", []byte{0x80, 0}, 0},
		{"seven", []byte{1}, 7},
		{"nine", []byte{0, 0x7f}, 9},
		{"all", make([]byte, 32), 256},
		{"no bytes", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := zeroBits(c.in); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestStaticPuzzle(t *testing.T) {
	var told []uint64
	k, err := MintKey(t.Context(), seeded(1), 5, func(n uint64) { told = append(told, n) })
	if err != nil {
		t.Fatal(err)
	}
	got := StaticBits(k.ID())
	if got < 5 {
		t.Errorf("minted: got %d bits, want at least 5", got)
	}
	// Pinned with the seed: a change of the parameters voids every node's ID.
	if got != 6 || len(told) != 63 {
		t.Errorf("got %d bits after %d failures, want 6 after 63", got, len(told))
	}
	for i, n := range told {
		if n != uint64(i+1) {
			t.Errorf("progress: got %v, want 1, 2, 3 ...", told)
			break
		}
	}
	if err := CheckStatic(k.ID(), uint8(got)); err != nil {
		t.Errorf("at its own difficulty: %v", err)
	}
	if err := CheckStatic(k.ID(), uint8(got)+1); err == nil {
		t.Error("one bit more: got no error")
	}
	if err := CheckStatic(crowd.NodeID{}, 0); err != nil {
		t.Errorf("0 bits: %v", err)
	}
}

func TestDynamicPuzzle(t *testing.T) {
	key, beacon := newKey(t, 1).ID().Key(), crowd.Keccak256([]byte("epoch 1"))
	const bits = 12
	nonce, err := SolveDynamic(t.Context(), key, beacon, bits, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckDynamic(key, beacon, nonce, bits); err != nil {
		t.Errorf("solved: %v", err)
	}
	other := newKey(t, 2).ID().Key()
	for name, err := range map[string]error{
		"next epoch":  CheckDynamic(key, crowd.Keccak256([]byte("epoch 2")), nonce, bits),
		"other node":  CheckDynamic(other, beacon, nonce, bits),
		"other nonce": CheckDynamic(key, beacon, nonce+1, bits),
		"255 bits":    CheckDynamic(key, beacon, nonce, 255),
	} {
		if err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if err := CheckDynamic(key, beacon, nonce+1, 0); err != nil {
		t.Errorf("0 bits: %v", err)
	}
	if key != newKey(t, 1).ID().Key() {
		t.Error("the key was written to")
	}
}

func TestMinting_StopsAndReports(t *testing.T) {
	k := newKey(t, 1)
	for _, c := range []struct {
		name string
		mint func(context.Context, Progress) error
	}{
		{"key", func(ctx context.Context, p Progress) error {
			_, err := MintKey(ctx, seeded(1), 255, p)
			return err
		}},
		{"dynamic puzzle", func(ctx context.Context, p Progress) error {
			_, err := SolveDynamic(ctx, k.ID().Key(), crowd.Hash{}, 255, p)
			return err
		}},
		{"stamp", func(ctx context.Context, p Progress) error {
			_, err := MintStamp(ctx, seeded(1), "query", crowd.Hash{}, 1, 255, p)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var last uint64
			reports := 0
			err := c.mint(ctx, func(n uint64) {
				if n <= last {
					t.Errorf("progress: got %d after %d", n, last)
				}
				last = n
				if reports++; reports == 3 {
					cancel()
				}
			})
			if !errors.Is(err, context.Canceled) || reports != 3 {
				t.Errorf("got error %v after %d reports, want canceled after 3", err, reports)
			}
		})
	}
	if _, err := MintKey(t.Context(), bytes.NewReader(nil), 0, nil); err == nil {
		t.Error("no randomness: got no error")
	}
}

func BenchmarkStaticPuzzleCheck(b *testing.B) {
	id := newKey(b, 1).ID()
	b.ReportAllocs()
	for b.Loop() {
		StaticBits(id)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "checks/s")
}

func BenchmarkDynamicPuzzleHash(b *testing.B) {
	prefix := make([]byte, 64)
	hashes := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		_, _ = findWork(ctx, prefix, hashes, 255, func(n uint64) { hashes += n; cancel() })
	}
	b.ReportMetric(float64(hashes)/b.Elapsed().Seconds(), "hashes/s")
}
