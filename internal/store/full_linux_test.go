package store

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	s, err := Open(dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	testFull(t, s)
	c := add(t, s, noise(2<<20))
	if err := s.Export(t.Context(), c, filepath.Join(dir, "out"), 1<<30); !errors.Is(err, ErrNoSpace) {
		t.Errorf("Export: got %v, want ErrNoSpace", err)
	}
	if list, _ := filepath.Glob(filepath.Join(dir, ".export-*")); len(list) != 0 {
		t.Errorf("after a failed export: got %v, want nothing left", list)
	}
}
