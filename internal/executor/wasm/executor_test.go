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

func TestConformance(t *testing.T) {
	for _, engine := range Engines() {
		t.Run(engine, func(t *testing.T) {
			executortest.Run(t, func(t *testing.T) executor.Executor { return newTest(t, engine) })
		})
	}
}
