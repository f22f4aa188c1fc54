// A Go program: arguments, environment, files, goroutines, time, randomness.
package main

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

func main() {
	fmt.Println("args", strings.Join(os.Args, " "), "env", os.Getenv("GREETING"))
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println("line", in.Text())
	}
	err := filepath.WalkDir("/in", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		fmt.Printf("%s %x\n", p, sha256.Sum256(b))
		return err
	})
	fmt.Println("walk", err)

	var mu sync.Mutex
	var wg sync.WaitGroup
	total := 0
	for i := range 100 {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			total += i
		})
	}
	wg.Wait()
	fmt.Println("total", total)

	start := time.Now()
	time.Sleep(time.Hour)
	fmt.Println("year", start.UTC().Year(), "slept", time.Since(start) >= time.Hour)

	secret := make([]byte, 16)
	rand.Read(secret)
	fmt.Printf("random %x\n", secret)

	if err := os.MkdirAll("/out/a/b", 0o755); err != nil {
		fail(err)
	}
	if err := os.WriteFile("/out/a/b/c.txt", []byte("from Go\n"), 0o644); err != nil {
		fail(err)
	}
	if err := os.WriteFile("/tmp/scratch", make([]byte, 1<<16), 0o644); err != nil {
		fail(err)
	}
	if err := os.Rename("/out/a/b/c.txt", "/out/a/d.txt"); err != nil {
		fail(err)
	}
	if err := os.RemoveAll("/out/a/b"); err != nil {
		fail(err)
	}
	f, err := os.OpenFile("/out/a/d.txt", os.O_APPEND|os.O_RDWR, 0)
	if err != nil {
		fail(err)
	}
	io.WriteString(f, "and more\n")
	f.Seek(0, io.SeekStart)
	b, err := io.ReadAll(f)
	fmt.Printf("%q %v %v\n", b, err, f.Close())
	_, err = os.ReadFile("/etc/passwd")
	fmt.Println("passwd", errors.Is(err, fs.ErrNotExist))
	_, err = net.Dial("tcp", "127.0.0.1:80")
	fmt.Println("network", err != nil)
	fmt.Fprintln(os.Stderr, "done")
	os.Exit(len(os.Args))
}

func fail(err error) {
	fmt.Println(err)
	os.Exit(99)
}
