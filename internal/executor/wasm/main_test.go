//go:build linux

package wasm

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// The test binary is its own worker, as the crowd binary is; and a few workers
// that have been taken over by a hostile program.
func TestMain(m *testing.M) {
	if len(os.Args) >= 2 && os.Args[1] == "wasm-worker" {
		serve := Worker
		if len(os.Args) == 3 {
			serve = func(ctx context.Context) error {
				if os.Args[2] == "starved" {
					return starvedWorker(ctx)
				}
				return betray(os.Args[2])
			}
		}
		if err := serve(context.Background()); err != nil {
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
