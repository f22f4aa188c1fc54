// Command grep is a map program: it writes the lines of its item that match its argument, a
// regular expression as Go's package regexp has them. As an end of a flow it chooses among "key<tab>value".
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/crowdcompute/crowd/sdk"
)

func main() {
	if err := grep(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func grep(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("want one argument: a regular expression")
	}
	re, err := regexp.Compile(args[0])
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, sdk.MaxLine+1)
	for lines.Scan() {
		if re.Match(lines.Bytes()) {
			w.Write(lines.Bytes()) // a bufio.Writer keeps its first error for Flush
			w.WriteByte('\n')
		}
	}
	return errors.Join(lines.Err(), w.Flush())
}
