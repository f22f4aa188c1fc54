//go:build linux

package wasm

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// The test binary is its own worker, as the crowd binary is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "wasm-worker" {
		if err := Worker(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func testConfig(t testing.TB, engine string) Config {
	return Config{CacheDir: t.TempDir() + "/code", Command: []string{"/proc/self/exe", "wasm-worker"}, Engine: engine, Workers: 2}
}
