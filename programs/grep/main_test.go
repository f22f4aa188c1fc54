package main

import (
	"strings"
	"testing"
)

func TestGrep(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		args           []string
		ok             bool
	}{
		{"lines", "one\ntwo\nthree", "two\nthree\n", []string{"^t"}, true},
		{"none", "one\n", "", []string{"x"}, true},
		{"no expression", "one\n", "", nil, false},
		{"a bad one", "one\n", "", []string{"("}, false},
		{"a long line", strings.Repeat("x", 2<<20), "", []string{"x"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			if err := grep(c.args, strings.NewReader(c.in), &out); (err == nil) != c.ok || out.String() != c.want {
				t.Errorf("got %q %v want %q, ok %v", out.String(), err, c.want, c.ok)
			}
		})
	}
}
