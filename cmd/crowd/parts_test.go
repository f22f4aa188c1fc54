package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestMinting: who waits longer than a second for a key is told why, and not with every try.
func TestMinting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		tell := minting(&out, 12)
		for i := range uint64(1000) { // fifteen seconds
			if i == 60 && out.Len() > 0 {
				t.Errorf("within the first second: %s", &out)
			}
			time.Sleep(15 * time.Millisecond)
			tell(i + 1)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], "67 tries; 4096 are needed") {
			t.Errorf("in fifteen seconds: got %q", lines)
		}
	})
}
