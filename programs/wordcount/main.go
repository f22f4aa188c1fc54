// Command wordcount counts the words of stdin: one line each, the most frequent
// first, words of equal count in order of their bytes. A word is what lies
// between white space, as it is written.
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// maxWord bounds one word, in bytes.
const maxWord = 1 << 20

func main() { os.Exit(run(os.Stdin, os.Stdout, os.Stderr)) }

// run returns the exit code: 0 done, 1 failed.
func run(stdin io.Reader, stdout, stderr io.Writer) int {
	counts := make(map[string]int)
	words := bufio.NewScanner(stdin)
	words.Buffer(nil, maxWord)
	words.Split(bufio.ScanWords)
	for words.Scan() {
		counts[words.Text()]++
	}
	if err := words.Err(); err != nil {
		fmt.Fprintln(stderr, "wordcount: read stdin:", err)
		return 1
	}
	out := bufio.NewWriter(stdout)
	for _, w := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	}) {
		fmt.Fprintf(out, "%d %s\n", counts[w], w)
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(stderr, "wordcount: write:", err)
		return 1
	}
	return 0
}
