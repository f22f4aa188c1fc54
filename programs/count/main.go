// Command count is a map program: it counts the words of its item, as lines
// "word<tab>count" in order of the words' bytes. A word is what lies between white space.
package main

import (
	"bufio"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/crowdcompute/crowd/sdk"
)

func main() { sdk.Map(count) }

func count(in io.Reader, emit func(key, value string)) error {
	counts := make(map[string]int)
	words := bufio.NewScanner(in)
	words.Buffer(nil, sdk.MaxLine)
	words.Split(bufio.ScanWords)
	for words.Scan() {
		counts[words.Text()]++
	}
	for _, w := range slices.Sorted(maps.Keys(counts)) {
		emit(w, strconv.Itoa(counts[w]))
	}
	return words.Err()
}
