package sdk

import (
	"slices"
	"testing"
)

func TestSum(t *testing.T) {
	for _, c := range []struct {
		name, want string
		values     []string
		ok         bool
	}{
		{"none", "0", nil, true},
		{"some", "-4", []string{"1", "-5", "0"}, true},
		{"no number", "", []string{"1", "x"}, false},
		{"too large", "", []string{"9223372036854775807", "1"}, false},
		{"too small", "", []string{"-9223372036854775808", "-1"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			err := Sum("k", slices.Values(c.values), func(_, v string) { got = v })
			if got != c.want || (err == nil) != c.ok {
				t.Errorf("got %q %v want %q, ok %v", got, err, c.want, c.ok)
			}
		})
	}
}
