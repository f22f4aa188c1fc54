package main

import (
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	var got strings.Builder
	err := count(strings.NewReader("b a\nc  b\tB"), func(k, v string) { got.WriteString(k + v + " ") })
	if want := "B1 a1 b2 c1 "; err != nil || got.String() != want {
		t.Errorf("got %q %v want %q", got.String(), err, want)
	}
}
