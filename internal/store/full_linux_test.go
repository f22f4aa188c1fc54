package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// What a stranger brings must not take the last of a disk on which the chain lies, too.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=20m"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	s, err := Open(dir, Config{Reserve: 1 << 62}) // a twentieth, then
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := add(t, s, noise(8<<20))
	left, all, err := room(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, left-all/20-1<<19), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddFile(t.Context(), bytes.NewReader(noise(1<<20-1))); !errors.Is(err, ErrNoSpace) {
		t.Errorf("add: got %v, want ErrNoSpace", err)
	}
	if err := s.Export(t.Context(), c, filepath.Join(dir, "out"), 1<<30); !errors.Is(err, ErrNoSpace) {
		t.Errorf("export: got %v, want ErrNoSpace", err)
	}
	if ok, err := s.Has(t.Context(), c); !ok || err != nil {
		t.Errorf("what was there: got %v, %v", ok, err)
	}
}

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
