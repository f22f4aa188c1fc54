//go:build linux

package wasm

import (
	"testing"

	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/executortest"
)

func newTest(t testing.TB, engine string) *Executor {
	t.Helper()
	x, err := New(testConfig(t, engine))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// TestConformance holds each engine to the suite, and both to the same results.
func TestConformance(t *testing.T) {
	all := map[string]map[string]executortest.Seen{}
	for _, engine := range Engines() {
		t.Run(engine, func(t *testing.T) {
			all[engine] = executortest.Run(t, func(t *testing.T) executor.Executor { return newTest(t, engine) })
		})
	}
	for _, engine := range Engines()[1:] {
		for name, want := range all[Engines()[0]] {
			if got, is := all[engine][name]; is && !got.Equal(want) {
				t.Errorf("%s: %s got %v, exit %d, %d gas, want as %s %v, exit %d, %d gas and the same files",
					name, engine, got.Status, got.ExitCode, got.Gas, Engines()[0], want.Status, want.ExitCode, want.Gas)
			}
		}
	}
}
