// A reactor in Go: the runtime starts, and a table is made, once for all items.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"time"
)

var (
	table = map[string]int{}
	began = time.Now()
	runs  int
	room  []byte
)

func init() {
	for i := range 2000 {
		table[fmt.Sprint("word", i)] = i
	}
	room = make([]byte, 1<<20) // an item that finds room need not grow the memory: it can be restored in place
	room = nil
	runtime.GC()
}

//go:wasmexport crowd_item
func item() {
	runs++
	in := bufio.NewScanner(os.Stdin)
	sum := 0
	for in.Scan() {
		sum += table[in.Text()]
		table[in.Text()]++
	}
	first := ""
	for k := range table { // Go's random order, out of the item's seed
		first = k
		break
	}
	fmt.Println("run", runs, "sum", sum, "first", first, "after", time.Since(began), os.Args[1:], len(table))
	if sum == 7 {
		os.Exit(7)
	}
	if sum == 8 {
		panic("eight")
	}
}

func main() {}
