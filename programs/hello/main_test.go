package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		stdin io.Reader
		code  int
		out   string
		talk  string
	}{
		{"nothing", nil, strings.NewReader(""), 0, "hello: args [], 0 bytes on stdin\n", ""},
		{"args and stdin", []string{"a", "b c"}, strings.NewReader("12345"), 0, "hello: args [\"a\" \"b c\"], 5 bytes on stdin\n", ""},
		{"broken stdin", nil, iotest.ErrReader(errors.New("gone")), 1, "", "hello: read stdin: gone\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, talk bytes.Buffer
			if code := run(c.args, c.stdin, &out, &talk); code != c.code {
				t.Errorf("got exit code %d want %d", code, c.code)
			}
			if out.String() != c.out || talk.String() != c.talk {
				t.Errorf("got stdout %q stderr %q want %q and %q", &out, &talk, c.out, c.talk)
			}
		})
	}
}
