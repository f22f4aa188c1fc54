package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/adversary"
	"github.com/crowdcompute/crowd/internal/executor/wasm"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/node"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/store"
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

func startNetwork(getenv func(string) string) func(context.Context, upConfig) (network, error) {
	return func(ctx context.Context, c upConfig) (network, error) {
		if err := ownFolder(c.Dir, filepath.Join("authority", "key"), "authority", "lock"); err != nil {
			return nil, err
		}
		worker, err := workerCommand()
		if err != nil {
			return nil, err
		}
		if n, ok := providersOf(c.Dir); ok {
			c.Providers = n
		}
		cfg := node.LocalConfig{
			Dir: c.Dir, Providers: c.Providers, RPC: c.Addr, Listen: c.Listen, Worker: worker,
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
			return nil, explain(err, c.Addr)
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
			return nil, explain(n.err, c.Addr)
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), n.Close())
		}
		if err := trustChain(getenv, local.Genesis().ChainID()); err != nil {
			return nil, errors.Join(err, n.Close())
		}
		return n, nil
	}
}

// ownFolder refuses to begin a network or a node in a folder with files of somebody else's. mark is a file that every
// folder of ours has; one without it may hold nothing besides what a start that was cut off leaves.
func ownFolder(dir, mark string, leftover ...string) error {
	if _, err := os.Stat(filepath.Join(dir, mark)); err == nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(leftover, e.Name()) {
			return &rpc.Error{Kind: rpc.Conflict, Err: fmt.Errorf("the folder %s holds other files, as %s", dir, e.Name()),
				Hint: "name a new or an empty folder with --dir; crowd leaves alone what it did not make"}
		}
	}
	return nil
}

// providersOf is how many providers the network in dir was made with; false if no network can be read there.
func providersOf(dir string) (int, bool) {
	raw, err := os.ReadFile(filepath.Join(dir, "genesis"))
	var g ledger.Genesis
	if err != nil || crowd.Decode(raw, &g) != nil {
		return 0, false
	}
	n := 0
	for _, grant := range g.Grants {
		if grant.Stake > 0 {
			n++
		}
	}
	return n, n > 0
}

// localNode is a node in this process.
type localNode struct {
	*node.Node
	stop  context.CancelFunc
	ended chan struct{} // closed when Run has returned
	err   error         // of Run; read after ended
}

func (n *localNode) Wait() error {
	<-n.ended
	return n.err
}

func (n *localNode) Close() error {
	n.stop()
	return n.Wait()
}

// networkFile is what a node's folder keeps of its network.
const networkFile = "network.json"

func joinNetwork(getenv func(string) string) func(context.Context, joinConfig) (joined, error) {
	return func(ctx context.Context, c joinConfig) (joined, error) {
		level := slog.LevelWarn
		if c.Verbose {
			level = slog.LevelInfo
		}
		log := slog.New(slog.NewTextHandler(c.Log, &slog.HandlerOptions{Level: level}))
		if err := ownFolder(c.Dir, "key", networkFile); err != nil {
			return nil, err
		}
		file, genesis, err := chooseNetwork(ctx, c, log)
		if err != nil {
			return nil, err
		}
		static := genesis.Params.Puzzles.Static
		key, err := node.OpenKey(ctx, c.Dir, static, minting(c.Log, static))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(c.Dir, networkFile), node.EncodeNetwork(file), 0o600); err != nil {
			return nil, err
		}
		if err := trustChain(getenv, genesis.ChainID()); err != nil {
			return nil, err
		}
		cfg := node.Config{
			Dir: c.Dir, Key: key, Genesis: genesis, Listen: c.Listen, Seeds: file.Seeds, MDNS: c.MDNS,
			RPC: &rpc.Config{Dir: c.Dir, Addr: c.Addr}, Version: version(), Log: log,
		}
		closeExec := func() error { return nil }
		if o := c.Provide; o != nil {
			worker, err := workerCommand()
			if err != nil {
				return nil, err
			}
			exec, err := wasm.New(wasm.Config{CacheDir: filepath.Join(c.Dir, "compiled"), Command: worker})
			if err != nil {
				return nil, err
			}
			closeExec = exec.Close
			cfg.Exec = exec
			cfg.Offer = &node.Offer{Offer: ledger.Offer{Price: o.Price, Tags: o.Tags, Country: o.Country, Owners: o.Owners}, Stake: o.Stake}
		}
		n, err := node.New(cfg)
		if err != nil {
			return nil, errors.Join(explain(err, c.Addr), closeExec())
		}
		run, stop := context.WithCancel(context.WithoutCancel(ctx)) // an interrupt closes it in order, through Close
		l := &localNode{Node: n, stop: stop, ended: make(chan struct{})}
		go func() {
			defer close(l.ended)
			l.err = errors.Join(explain(n.Run(run), c.Addr), closeExec())
		}()
		return l, nil
	}
}

// minting tells how far the making of a key is, if that takes longer than a second.
func minting(w io.Writer, static uint8) identity.Progress {
	next := time.Now().Add(time.Second)
	return func(tries uint64) {
		if now := time.Now(); !now.Before(next) {
			next = now.Add(5 * time.Second)
			fmt.Fprintf(w, "making this node's key, which this network wants to cost something, once: %d tries; %d are needed on the average\n", tries, 1<<static)
		}
	}
}

// chooseNetwork is the one that the user means, with all seeds that are known: that of a file, of a chain ID whose genesis a
// peer gives, or the one that the folder keeps.
func chooseNetwork(ctx context.Context, c joinConfig, log *slog.Logger) (rpc.Network, *ledger.Genesis, error) {
	kept, keptGenesis, err := readNetwork(filepath.Join(c.Dir, networkFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return rpc.Network{}, nil, err
	}
	file, genesis := kept, keptGenesis
	if c.File != "" {
		if file, genesis, err = readNetwork(c.File); err != nil {
			return rpc.Network{}, nil, err
		}
	}
	switch {
	case c.Chain != "" && c.Chain != kept.Chain && keptGenesis == nil:
		if len(c.Peers) == 0 {
			return rpc.Network{}, nil, misuse("add --peer ADDRESS of a node of that network", "nobody to ask for the genesis of chain %s", c.Chain)
		}
		if genesis, err = node.FetchGenesis(ctx, c.Peers, c.Chain, log); err != nil {
			return rpc.Network{}, nil, noGenesis(c.Chain, err)
		}
		file = node.NetworkFile(genesis, nil)
	case genesis == nil && len(c.Peers) > 0:
		return rpc.Network{}, nil, misuse("add --chain ID: it says which network you mean, so that nobody can give you another; crowd node info at any of its nodes shows it",
			"the address of a peer does not say of which network")
	case genesis == nil:
		return rpc.Network{}, nil, misuse("give its file with --network, or --peer and --chain; or run one of your own with: crowd up", "which network?")
	}
	if want := cmp.Or(c.Chain, genesis.ChainID()); keptGenesis != nil && kept.Chain != want {
		return rpc.Network{}, nil, &rpc.Error{Kind: rpc.Conflict, Err: fmt.Errorf("the folder %s is of chain %s, not of %s", c.Dir, kept.Chain, want),
			Hint: "choose another folder with --dir"}
	}
	for _, s := range slices.Concat(c.Peers, kept.Seeds) {
		if !slices.Contains(file.Seeds, s) {
			file.Seeds = append(file.Seeds, s)
		}
	}
	file.Seeds = file.Seeds[:min(len(file.Seeds), maxSeeds)]
	return file, genesis, nil
}

// maxSeeds is how many addresses a folder keeps to begin with.
const maxSeeds = 64

func readNetwork(path string) (rpc.Network, *ledger.Genesis, error) {
	f, err := os.Open(path)
	if err != nil {
		return rpc.Network{}, nil, err
	}
	defer f.Close()
	file, genesis, err := node.DecodeNetwork(f)
	if err != nil {
		return rpc.Network{}, nil, &rpc.Error{Kind: rpc.BadRequest, Err: fmt.Errorf("%s: %w", path, err), Hint: "get the file anew from whoever runs the network: crowd network export"}
	}
	return file, genesis, nil
}

// noGenesis says what to do when nobody gave the genesis of a chain.
func noGenesis(chain string, err error) error {
	e := &rpc.Error{Kind: rpc.Unavailable, Err: err, Hint: "is the address right, is that node running, does UDP get out of here?"}
	if other := (*node.OtherChainError)(nil); errors.As(err, &other) {
		e.Kind, e.Hint = rpc.NotFound, "that peer is of another network: check --chain, or ask a node of "+chain
	}
	return e
}

// explain adds what to do to errors of a start that users can help. rpcAddr is what --addr says.
func explain(err error, rpcAddr string) error {
	switch {
	case err == nil:
		return nil
	case rpcAddr != "" && strings.Contains(err.Error(), "listen on "+rpcAddr):
		return &rpc.Error{Kind: rpc.Conflict, Err: err, Hint: "choose another loopback address with --addr, as " +
			"127.0.0.1:0, or leave --addr out for any free port"}
	case errors.Is(err, syscall.EADDRINUSE), strings.Contains(err.Error(), "address already in use"):
		return &rpc.Error{Kind: rpc.Conflict, Err: err, Hint: "another program has that port; choose one with --listen, as --listen 0.0.0.0:0 for any that is free"}
	case errors.Is(err, syscall.EADDRNOTAVAIL), strings.Contains(err.Error(), "cannot assign requested address"):
		return &rpc.Error{Kind: rpc.BadRequest, Err: err, Hint: "no interface of this machine has that address; --listen 0.0.0.0:4141 takes all of them"}
	case errors.Is(err, store.ErrLocked):
		return &rpc.Error{Kind: rpc.Conflict, Err: err, Hint: "another node runs in that folder: use it, stop it, or choose another folder with --dir"}
	}
	return err
}

// chainsFile lists the chains that this user's own networks run, as known_hosts does for hosts; "" for a user without
// a home, who has to name a genesis file instead.
func chainsFile(getenv func(string) string) string {
	local, err := (&app{env: env{getenv: getenv}}).defaultDir()
	if err != nil {
		return ""
	}
	return filepath.Join(filepath.Dir(local), "known_chains")
}

func knownChains(getenv func(string) string) ([]string, error) {
	path := chainsFile(getenv)
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return strings.Fields(string(data)), nil
}

// trustChain notes a chain that this user began.
func trustChain(getenv func(string) string, chain string) error {
	known, err := knownChains(getenv)
	path := chainsFile(getenv)
	if err != nil || path == "" || slices.Contains(known, chain) {
		return err
	}
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

// workerCommand starts this program again as a worker. Linux has a name for it that works where the worker, which
// may be nobody, must not enter the folder that the program lies in.
func workerCommand() ([]string, error) {
	self := "/proc/self/exe"
	if _, err := os.Stat(self); err != nil {
		if self, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	return []string{self, "wasm-worker"}, nil
}

// wasmWorker serves the parent that started this process.
func wasmWorker() int {
	if err := wasm.Worker(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
