//go:build !linux

// Package wasm runs WebAssembly programs (WASI preview 1) so that every honest
// machine gets the same result. Its workers need Linux; here it only says so.
package wasm

import (
	"context"
	"errors"
	"iter"

	"github.com/crowdcompute/crowd/internal/executor"
)

// Config is not used here.
type Config struct {
	CacheDir string
	Command  []string
	Workers  int
	Engine   string
	Require  []string
}

// Executor cannot be made here.
type Executor struct{}

var errLinux = errors.New("wasm executor: needs Linux namespaces and seccomp")

// New fails with a fault of the kind executor.Unsupported.
func New(Config) (*Executor, error) {
	return nil, &executor.Fault{Kind: executor.Unsupported, Err: errLinux}
}

// MachineMemory is nothing, since nothing is run here.
func MachineMemory() uint64 { return 0 }

// RunMemory is nothing, too.
func RunMemory() uint64 { return 0 }

// Worker fails.
func Worker(context.Context) error { return errLinux }

// Check finds no fault with any program: executors will.
func Check([]byte, uint64) error { return nil }

// Engines lists none.
func Engines() []string { return nil }

func (*Executor) Run(context.Context, executor.Spec, executor.IO) (executor.Result, error) {
	return executor.Result{}, &executor.Fault{Kind: executor.Unsupported, Err: errLinux}
}

func (*Executor) RunBatch(context.Context, executor.Spec, iter.Seq[executor.Item], func(executor.ItemResult) error) (executor.BatchResult, error) {
	return executor.BatchResult{}, &executor.Fault{Kind: executor.Unsupported, Err: errLinux}
}

func (*Executor) Isolation() []string { return nil }
func (*Executor) Engine() string      { return "" }
func (*Executor) Close() error        { return nil }
