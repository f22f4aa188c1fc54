//go:build linux

package wasm

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Another program of the same size, written within one tick of the file system's
// clock, perhaps to the same inode, is another program. Two jobs that follow each other
// quickly through scratch space look like that.
func TestCacheKey_IsTheContentAndNothingElse(t *testing.T) {
	c, err := newCache(filepath.Join(t.TempDir(), "cache"), engineNames[0])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	for i := range 100 {
		var keys [2]key
		for j := range keys {
			if err := os.WriteFile(path, bytes.Repeat([]byte{byte(i), byte(j)}, 100), 0o600); err != nil {
				t.Fatal(err)
			}
			f, k, err := c.program(path)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			keys[j] = k
		}
		if keys[0] == keys[1] {
			t.Fatalf("try %d: got one key %x for two programs", i, keys[0][:4])
		}
	}
}
