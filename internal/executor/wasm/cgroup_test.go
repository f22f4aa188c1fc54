//go:build linux

package wasm

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// A container has less memory than its machine: the least bound on the way up counts.
func TestGroupMemory_TheLeastBoundAboveCounts(t *testing.T) {
	root := t.TempDir()
	inner := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		dir, text string
		want      uint64
	}{
		{inner, "max\n", math.MaxUint64},
		{inner, "5000\n", 5000},
		{filepath.Join(root, "a"), "3000\n", 3000},
		{root, "4000\n", 3000},
		{root, "max\n", 3000},
	} {
		if err := os.WriteFile(filepath.Join(step.dir, "memory.max"), []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := groupMemory(root, map[string]string{"memory.max": inner}); got != step.want {
			t.Errorf("after %q in %s: got %d, want %d", step.text, step.dir, got, step.want)
		}
	}
	for have, want := range map[uint64]uint64{1 << 30: 1 << 29, 4 << 30: 3 << 30, 64 << 30: 56 << 30} {
		if got := lessReserve(have); got != want {
			t.Errorf("of %d bytes: got %d for programs, want %d", have, got, want)
		}
	}
}
