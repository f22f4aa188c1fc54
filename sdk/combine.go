package sdk

import (
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strconv"
)

// Combine is Map for programs that emit many pairs of few keys: combine brings those of a key together before they leave
// the item, as a reduce program would, so that less goes over the network. It may be called several times for a key, with
// values that it emitted itself, and must emit nothing but that key. So it is right for what may be added up in any
// grouping, as Sum; then the reduce program does not notice. The pairs leave in the order of their keys.
// Combine does not return, as Map.
func Combine(f func(in io.Reader, emit func(key, value string)) error, combine func(key string, values iter.Seq[string], emit func(key, value string)) error) {
	os.Exit(run(os.Stdin, os.Stdout, os.Stderr, combined(f, combine)))
}

// combineAt is how many values of a key are held before they are brought together.
const combineAt = 64

func combined(f func(io.Reader, func(key, value string)) error, combine func(string, iter.Seq[string], func(string, string)) error) func(io.Reader, func(key, value string)) error {
	return func(in io.Reader, emit func(key, value string)) error {
		held := map[string][]string{}
		var bad error
		together := func(key string) {
			var out []string
			err := combine(key, slices.Values(held[key]), func(k, v string) {
				if k != key && bad == nil {
					bad = fmt.Errorf("combine emitted the key %.40q for the key %.40q", k, key)
				}
				out = append(out, v)
			})
			if bad == nil {
				bad = err
			}
			held[key] = out
		}
		err := f(in, func(key, value string) {
			if held[key] = append(held[key], value); len(held[key])%combineAt == 0 {
				together(key)
			}
		})
		for _, key := range slices.Sorted(maps.Keys(held)) {
			if err != nil || bad != nil {
				break
			}
			if len(held[key]) > 1 {
				together(key)
			}
			for _, v := range held[key] {
				emit(key, v)
			}
		}
		if err == nil {
			err = bad
		}
		return err
	}
}

// Sum emits the sum of a key's values, which are whole numbers of at most 64 bits. It serves as a reduce program and to combine.
func Sum(key string, values iter.Seq[string], emit func(key, value string)) error {
	total := int64(0)
	for v := range values {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return fmt.Errorf("key %.40q: %w", key, err)
		}
		if s := total + n; (s < total) == (n < 0) {
			total = s
		} else {
			return fmt.Errorf("key %.40q: the sum is beyond 64 bits", key)
		}
	}
	emit(key, strconv.FormatInt(total, 10))
	return nil
}
