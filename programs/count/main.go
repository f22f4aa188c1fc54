// Command count is a map program: it counts the words of its item, as lines
// "word<tab>count" in order of the words' bytes. A word is what lies between white space.
package main

import (
	"bufio"
	"io"

	"github.com/crowdcompute/crowd/sdk"
)

func main() { sdk.Combine(count, sdk.Sum) }

func count(in io.Reader, emit func(key, value string)) error {
	words := bufio.NewScanner(in)
	words.Buffer(nil, sdk.MaxLine)
	words.Split(bufio.ScanWords)
	for words.Scan() {
		emit(words.Text(), "1")
	}
	return words.Err()
}
