// Command hello prints its arguments and how many bytes were on stdin: the
// smallest Go program that shows what reaches a program. It computes nothing.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run returns the exit code: 0 done, 1 failed.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	n, err := io.Copy(io.Discard, stdin)
	if err != nil {
		fmt.Fprintln(stderr, "hello: read stdin:", err)
		return 1
	}
	if _, err := fmt.Fprintf(stdout, "hello: args %q, %d bytes on stdin\n", args, n); err != nil {
		fmt.Fprintln(stderr, "hello: write:", err)
		return 1
	}
	return 0
}
