package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name, stdin string
		code        int
		out, talk   string
	}{
		{"nothing", "", 0, "", ""},
		{"white space only", " \n\t ", 0, "", ""},
		{"counts, then bytes", "b a\nc  b\tB b c", 0, "3 b\n2 c\n1 B\n1 a\n", ""},
		{"no UTF-8", "\xff é \xff", 0, "2 \xff\n1 é\n", ""},
		{"a long word", strings.Repeat("x", maxWord/2), 0, "1 " + strings.Repeat("x", maxWord/2) + "\n", ""},
		{"too long a word", strings.Repeat("x", maxWord+1), 1, "", "wordcount: read stdin: bufio.Scanner: token too long\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, talk bytes.Buffer
			if code := run(strings.NewReader(c.stdin), &out, &talk); code != c.code {
				t.Errorf("got exit code %d want %d", code, c.code)
			}
			if out.String() != c.out {
				t.Errorf("got stdout %.80q want %.80q", &out, c.out)
			}
			if talk.String() != c.talk {
				t.Errorf("got stderr %q want %q", &talk, c.talk)
			}
		})
	}
}
