package sdk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"
)

func TestMap_EmitsLines(t *testing.T) {
	for _, c := range []struct {
		name, in string
		f        func(io.Reader, func(string, string)) error
		code     int
		out, err string
	}{
		{"pairs", "x", func(_ io.Reader, emit func(string, string)) error { emit("a", "1\t2"); emit("", ""); return nil }, 0, "a\t1\t2\n\t\n", ""},
		{"its input", "hello", func(in io.Reader, emit func(string, string)) error {
			b, err := io.ReadAll(in)
			emit(string(b), "")
			return err
		}, 0, "hello\t\n", ""},
		{"an error", "", func(io.Reader, func(string, string)) error { return errors.New("poison") }, 1, "", "poison\n"},
		{"a tab in a key", "", func(_ io.Reader, emit func(string, string)) error { emit("a\tb", "1"); return nil }, 1, "", "no line can hold the key \"a\\tb\" with the value \"1\"\n"},
		{"a newline in a value", "", func(_ io.Reader, emit func(string, string)) error { emit("a", "1\n2"); return nil }, 1, "", "no line can hold the key \"a\" with the value \"1\\n2\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := run(strings.NewReader(c.in), &out, &errs, c.f); code != c.code || out.String() != c.out || errs.String() != c.err {
				t.Errorf("got %d %q %q want %d %q %q", code, &out, &errs, c.code, c.out, c.err)
			}
		})
	}
}

func TestReduce_GivesEachKeyOnce(t *testing.T) {
	for _, c := range []struct {
		name, in string
		most     int // values that are read
		out      string
		ok       bool
	}{
		{"nothing", "", 9, "", true},
		{"groups", "a\t1\na\t2\nb\t3\n", 9, "a=1,2 b=3 ", true},
		{"a carriage return is of the value", "a\t1\r\na\t\r", 9, "a=1\r,\r ", true},
		{"no newline at the end", "a\t1\nb\t2", 9, "a=1 b=2 ", true},
		{"an empty key, a tab in a value", "\tx\ty\n", 9, "=x\ty ", true},
		{"values left unread", "a\t1\na\t2\na\t3\nb\t4\n", 1, "a=1 b=4 ", true},
		{"none read", "a\t1\na\t2\nb\t4\n", 0, "a= b= ", true},
		{"no tab", "a\t1\nb\n", 9, "a=1 ", false},
		{"too long", "a\t" + strings.Repeat("x", MaxLine), 9, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got strings.Builder
			err := reduce(strings.NewReader(c.in), func(key string, values iter.Seq[string], _ func(string, string)) error {
				var some []string
				if c.most > 0 {
					for v := range values {
						if some = append(some, v); len(some) == c.most {
							break
						}
					}
				}
				fmt.Fprintf(&got, "%s=%s ", key, strings.Join(some, ","))
				return nil
			}, nil)
			if got.String() != c.out || (err == nil) != c.ok {
				t.Errorf("got %q %v want %q, ok %v", got.String(), err, c.out, c.ok)
			}
		})
	}
}
