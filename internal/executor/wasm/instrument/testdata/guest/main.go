// Command guest is a Go program for the tests: maps, goroutines, sorting, hashing, floats and a recovered panic.
package main

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strings"
)

type tree struct {
	left, right *tree
	v           int
}

func (t *tree) insert(v int) *tree {
	if t == nil {
		return &tree{v: v}
	}
	if v < t.v {
		t.left = t.left.insert(v)
	} else {
		t.right = t.right.insert(v)
	}
	return t
}

func (t *tree) depth() int {
	if t == nil {
		return 0
	}
	return 1 + max(t.left.depth(), t.right.depth())
}

func deep(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + deep(n-1)
}

func main() {
	words := map[string]int{}
	for i := range 3000 {
		words[fmt.Sprint(i*i%1009, strings.Repeat("x", i%7))]++
	}
	keys := []string{}
	for k := range words {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	fmt.Println(len(keys), keys[:3])

	results := make(chan [32]byte)
	for i := range 4 {
		go func() { results <- sha256.Sum256([]byte(strings.Repeat("y", 1000*i))) }()
	}
	var x byte
	for range 4 {
		x ^= (<-results)[0]
	}
	var root *tree
	v := 1
	for range 2000 {
		v = v * 48271 % 2147483647
		root = root.insert(v)
	}
	zero := float64(len(words)) * 0
	nan := zero / zero
	fmt.Printf("%x %d %d %x %v\n", x, root.depth(), deep(2000), math.Float64bits(nan), math.Sqrt(2))
	func() {
		defer func() { fmt.Println(recover()) }()
		var m map[string]int
		m["x"] = 1
	}()
}
