package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/adversary"
	"github.com/crowdcompute/crowd/internal/executor/wasm"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/node"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/verify"
	"github.com/crowdcompute/crowd/programs"
)

// This file joins the commands to the rooms that they stand for.

// cheats are the strategies of a demonstration's cheater.
var cheats = map[string]node.Cheat{
	"wrong-result": func(e executor.Executor) executor.Executor { return adversary.WrongResult{Honest: e} },
	"wrong-items": func(e executor.Executor) executor.Executor {
		honest, ok := e.(interface {
			executor.Executor
			executor.Batcher
		})
		if !ok {
			panic("bug: an executor that runs no batches")
		}
		return adversary.WrongItems{Honest: honest, Rate: 0.2, Seed: 1}
	},
}

// cheaterStake is three times an honest one: the lot finds the cheater sooner, and it has more to lose.
const cheaterStake = 300 * crowd.Credit

// localNetwork is a network in this process.
type localNetwork struct {
	*node.Local
	stop  context.CancelFunc
	ended chan struct{} // closed when Run has returned
	err   error         // of Run; read after ended
}

func (n *localNetwork) Wait() error {
	<-n.ended
	return n.err
}

func (n *localNetwork) Close() error {
	n.stop()
	return n.Wait()
}

// ownProgram is the running program where there is Linux's /proc: the same though its
// file is replaced, and though it lies in a folder that a sandbox cannot enter.
const ownProgram = "/proc/self/exe"

func startNetwork(getenv func(string) string) func(context.Context, upConfig) (network, error) {
	return func(ctx context.Context, c upConfig) (network, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(ownProgram); err == nil {
			self = ownProgram
		}
		cfg := node.LocalConfig{
			Dir: c.Dir, Providers: c.Providers, RPC: c.Addr, Worker: []string{self, "wasm-worker"},
			Version: version(), Log: slog.New(slog.DiscardHandler),
		}
		if c.Log != nil {
			cfg.Log = slog.New(slog.NewTextHandler(c.Log, nil))
		}
		if c.Cheat != "" {
			cheat, ok := cheats[c.Cheat]
			if !ok {
				return nil, misuse("known strategies: wrong-result, wrong-items", "no way to cheat is called %q", c.Cheat)
			}
			i, err := rand.Int(rand.Reader, big.NewInt(int64(c.Providers)))
			if err != nil {
				return nil, err
			}
			at := int(i.Int64())
			cfg.Cheats = map[int]node.Cheat{at: cheat}
			cfg.Stakes = map[int]crowd.Credits{at: cheaterStake}
		}
		local, err := node.OpenLocal(cfg)
		if err != nil {
			return nil, err
		}
		run, stop := context.WithCancel(context.WithoutCancel(ctx)) // an interrupt closes it in order, through Close
		n := &localNetwork{Local: local, stop: stop, ended: make(chan struct{})}
		go func() {
			defer close(n.ended)
			n.err = local.Run(run)
		}()
		select {
		case <-local.Ready():
		case <-n.ended:
			stop()
			return nil, n.err
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), n.Close())
		}
		if err := trustChain(getenv, local.Genesis().ChainID()); err != nil {
			return nil, errors.Join(err, n.Close())
		}
		return n, nil
	}
}

// chainsFile lists the chains that this user's own networks run, as known_hosts does for hosts.
func chainsFile(getenv func(string) string) string {
	a := app{env: env{getenv: getenv}}
	return filepath.Join(filepath.Dir(a.defaultDir()), "known_chains")
}

func knownChains(getenv func(string) string) ([]string, error) {
	data, err := os.ReadFile(chainsFile(getenv))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return strings.Fields(string(data)), nil
}

// trustChain notes a chain that this user began.
func trustChain(getenv func(string) string, chain string) error {
	known, err := knownChains(getenv)
	if err != nil || slices.Contains(known, chain) {
		return err
	}
	path := chainsFile(getenv)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, chain)
	return errors.Join(err, f.Close())
}

// verifyReceipt checks a receipt against the chain of a genesis, or against the
// one that it names if that is a chain of this user's own.
func verifyReceipt(getenv func(string) string) func(receipt, genesis, leaves []byte) ([]Check, error) {
	return func(receipt, genesis, leaves []byte) ([]Check, error) {
		trust := verify.Trust{Header: node.VerifyHeader, Leaves: leaves}
		chain, check := "", verify.Check
		if r, err := verify.DecodeItem(receipt); err == nil && r.Item.Proof != nil {
			chain, check = r.Receipt.Summary.Chain, verify.CheckItem
		} else if r, err := verify.Decode(receipt); err == nil {
			chain = r.Summary.Chain
		}
		if genesis != nil {
			var g ledger.Genesis
			if err := crowd.Decode(genesis, &g); err != nil {
				return nil, fmt.Errorf("genesis: %w", err)
			}
			trust.Chain = g.ChainID()
		} else {
			known, err := knownChains(getenv)
			if err != nil {
				return nil, err
			}
			if slices.Contains(known, chain) {
				trust.Chain = chain
			} else if chain != "" {
				return nil, &rpc.Error{Kind: rpc.NotFound, Err: fmt.Errorf("the receipt is of chain %q, which no network of yours has run", chain),
					Hint: "if you trust that chain, give its genesis file with --genesis"}
			}
		}
		findings, _ := check(receipt, trust)
		checks := make([]Check, len(findings))
		for i, f := range findings {
			checks[i] = Check(f)
		}
		return checks, nil
	}
}

// itemReceipt shows one item of the batch that a receipt is of.
func itemReceipt(receipt, leaves []byte, item uint32, stdout, stderr []byte) ([]byte, error) {
	r, err := verify.Decode(receipt)
	if err != nil {
		return nil, err
	}
	if r.Summary.Batch == nil {
		return nil, errors.New("the receipt is of a single task")
	}
	list, err := batch.DecodeLeaves(leaves, r.Summary.Batch.Items)
	if err != nil {
		return nil, err
	}
	one, err := verify.NewItem(r, list, item, stdout, stderr)
	if err != nil {
		return nil, err
	}
	return one.Encode(), nil
}

// builtAssets are the demonstration's program, as make build leaves it beside
// this binary, and the picture that ships with it.
func builtAssets() (demoAssets, error) {
	self, err := os.Executable()
	if err != nil {
		return demoAssets{}, err
	}
	dir := filepath.Dir(self)
	program, err := os.ReadFile(filepath.Join(dir, "blur.wasm"))
	if err != nil {
		return demoAssets{}, &rpc.Error{Kind: rpc.NotFound, Err: fmt.Errorf("the demonstration's program: %w", err), Hint: "build it with: make build"}
	}
	native := filepath.Join(dir, "blur")
	if _, err := os.Stat(native); err != nil {
		return demoAssets{}, &rpc.Error{Kind: rpc.NotFound, Err: fmt.Errorf("the same program for this machine: %w", err), Hint: "build it with: make build"}
	}
	return demoAssets{
		Program: program, Image: programs.Photo, Args: []string{"--radius", "8"},
		Native: func(image []byte, args []string) ([]byte, error) {
			c := exec.Command(native, args...)
			var out, errs bytes.Buffer
			c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(image), &out, &errs
			if err := c.Run(); err != nil {
				return nil, fmt.Errorf("%w: %s", err, errs.String())
			}
			return out.Bytes(), nil
		},
	}, nil
}

// wasmWorker serves the parent that started this process.
func wasmWorker() int {
	if err := wasm.Worker(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
