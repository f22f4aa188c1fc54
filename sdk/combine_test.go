package sdk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func words(in io.Reader, emit func(string, string)) error {
	raw, err := io.ReadAll(in)
	for _, w := range strings.Fields(string(raw)) {
		emit(w, "1")
	}
	return err
}

// sorted are lines in order, as a reduce program reads them.
func sorted(text string) io.Reader {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.NewReader(strings.Join(lines, ""))
}

// What is reduced in the end is the same with and without the combiner, and what goes over the network in between is less.
func TestCombine_LessBetweenTheSameInTheEnd(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(rng, 1.1, 1, 5000) // as often as words are in texts, about
	var text strings.Builder
	for range 20_000 {
		fmt.Fprintf(&text, "w%d ", zipf.Uint64())
	}
	sizes := map[string]int{}
	ends := map[string]string{}
	for name, f := range map[string]func(io.Reader, func(string, string)) error{"without": words, "with": combined(words, Sum)} {
		var between, end, errs bytes.Buffer
		if code := run(strings.NewReader(text.String()), &between, &errs, f); code != 0 {
			t.Fatal(errs.String())
		}
		sizes[name] = between.Len()
		if code := run(sorted(between.String()), &end, &errs, func(in io.Reader, emit func(string, string)) error { return reduce(in, Sum, emit) }); code != 0 {
			t.Fatal(errs.String())
		}
		ends[name] = end.String()
	}
	ratio := float64(sizes["without"]) / float64(sizes["with"])
	t.Logf("%d bytes without, %d with: %.1f times", sizes["without"], sizes["with"], ratio)
	if ends["with"] != ends["without"] || ratio < 3 {
		t.Errorf("the same in the end: %v; between %.1f times less, want 3", ends["with"] == ends["without"], ratio)
	}
}

func TestCombine_Bad(t *testing.T) {
	for _, c := range []struct {
		name    string
		f       func(io.Reader, func(string, string)) error
		combine func(string, iter.Seq[string], func(string, string)) error
		want    string
	}{
		{"another key", words, func(k string, _ iter.Seq[string], emit func(string, string)) error { emit(k+"x", ""); return nil }, `combine emitted the key "ax" for the key "a"`},
		{"an error", words, func(string, iter.Seq[string], func(string, string)) error { return errors.New("no") }, "no"},
		{"the map's error", func(io.Reader, func(string, string)) error { return errors.New("poison") }, Sum, "poison"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := combined(c.f, c.combine)(strings.NewReader("a a"), func(string, string) {})
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v want %s", err, c.want)
			}
		})
	}
}
