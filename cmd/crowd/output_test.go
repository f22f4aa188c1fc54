package main

import (
	"strings"
	"testing"
)

// What is no text is not thrown at a terminal, and that is said once.
func TestTextOnly(t *testing.T) {
	var out strings.Builder
	said := 0
	w := &textOnly{w: &out, skipped: func() { said++ }}
	for _, s := range []string{"a line\n", "\x89PNG\x00", "IDAT", "\x00"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("got %d, %v of %q", n, err, s)
		}
	}
	if out.String() != "a line\n" || said != 1 {
		t.Errorf("got %q, said %d times", out.String(), said)
	}
}
