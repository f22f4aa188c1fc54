// Command sum is a reduce program: it adds up the values of each key, which are whole numbers.
package main

import (
	"fmt"
	"iter"
	"strconv"

	"github.com/crowdcompute/crowd/sdk"
)

func main() { sdk.Reduce(sum) }

func sum(key string, values iter.Seq[string], emit func(key, value string)) error {
	total := int64(0)
	for v := range values {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		if s := total + n; (s < total) == (n < 0) {
			total = s
		} else {
			return fmt.Errorf("key %q: the sum is beyond 64 bits", key)
		}
	}
	emit(key, strconv.FormatInt(total, 10))
	return nil
}
