package main

import (
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	var got strings.Builder
	err := count(strings.NewReader("b a\nc  b\tB"), func(k, v string) { got.WriteString(k + v + " ") })
	if want := "b1 a1 c1 b1 B1 "; err != nil || got.String() != want {
		t.Errorf("got %q %v want %q", got.String(), err, want)
	}
}
