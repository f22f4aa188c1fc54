// Package sdk helps to write guests of crowd map in Go: programs that turn one item
// into lines "key<tab>value", and programs that bring the lines of a key together. It
// reads standard input and writes standard output, and knows nothing of nodes or networks; any language that
// can do the same will do. Build with GOOS=wasip1 GOARCH=wasm.
package sdk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
)

// MaxLine bounds a line "key<tab>value", in bytes: the largest item.
const MaxLine = 1 << 20

// Map is the whole of a map program: f is given the item and emits pairs, which become
// lines of standard output. A key has no tab and no newline, a value no newline. An error of f is the item's failure.
// Map does not return: it ends the program with 0, or with 1 and the error on standard error.
func Map(f func(in io.Reader, emit func(key, value string)) error) {
	os.Exit(run(os.Stdin, os.Stdout, os.Stderr, f))
}

// Reduce is the whole of a reduce program: f is given each key once, with its values in
// order, and emits pairs. It may leave values unread. Reduce does not return, as Map.
func Reduce(f func(key string, values iter.Seq[string], emit func(key, value string)) error) {
	os.Exit(run(os.Stdin, os.Stdout, os.Stderr, func(in io.Reader, emit func(key, value string)) error { return reduce(in, f, emit) }))
}

// run is a guest but for the process around it; it returns the exit code.
func run(stdin io.Reader, stdout, stderr io.Writer, f func(io.Reader, func(key, value string)) error) int {
	out := bufio.NewWriter(stdout)
	var bad error
	err := f(stdin, func(key, value string) {
		if strings.ContainsAny(key, "\t\n") || strings.Contains(value, "\n") || len(key)+len(value) >= MaxLine {
			bad = errors.Join(bad, fmt.Errorf("no line can hold the key %.40q with the value %.40q", key, value))
			return
		}
		out.WriteString(key) // a bufio.Writer keeps its first error for Flush
		out.WriteByte('\t')
		out.WriteString(value)
		out.WriteByte('\n')
	})
	if err = errors.Join(err, bad, out.Flush()); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// reduce reads lines "key<tab>value" in which those of a key follow one another.
func reduce(in io.Reader, f func(string, iter.Seq[string], func(string, string)) error, emit func(string, string)) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, MaxLine+1)
	lines.Split(wholeLines)
	var key, value string
	var bad error
	next := func() bool {
		if bad != nil || !lines.Scan() {
			return false
		}
		var ok bool
		if key, value, ok = strings.Cut(lines.Text(), "\t"); !ok {
			bad = fmt.Errorf("a line without a tab: %.60q", lines.Text())
		}
		return ok
	}
	for more := next(); more; {
		this := key
		values := func(yield func(string) bool) {
			for more && key == this {
				v := value
				more = next()
				if !yield(v) {
					return
				}
			}
		}
		if err := f(this, values, emit); err != nil {
			return err
		}
		for more && key == this { // left unread
			more = next()
		}
	}
	return errors.Join(bad, lines.Err())
}

// wholeLines is bufio.ScanLines that takes no carriage return from a line's end: it is part of the value.
func wholeLines(data []byte, end bool) (int, []byte, error) {
	if line, _, ok := bytes.Cut(data, []byte("\n")); ok {
		return len(line) + 1, line, nil
	}
	if end && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}
