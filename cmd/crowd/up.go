package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd/internal/rpc"
)

// upConfig is the local network that is wanted.
type upConfig struct {
	Dir       string // of all its nodes; the consumer's node serves RPC in it
	Providers int
	Cheat     string    // strategy of one of the providers; "" for none
	Listen    []string  // multiaddresses of the network's first node; nil: loopback alone
	Addr      string    // TCP address of the consumer's RPC; "" for any free port of loopback
	Log       io.Writer // the nodes' logs; nil discards them
}

// network is a running local network.
type network interface {
	Endpoint() rpc.Endpoint // of the consumer's node
	Providers() int
	Wait() error  // returns when the network has ended, with the reason
	Close() error // stops all nodes and waits for them
}

func (a *app) upCommand() *cobra.Command {
	cfg := upConfig{}
	verbose := false
	var listen []string
	c := &cobra.Command{
		Use: "up", Short: "Run a network on this machine until Ctrl-C", Args: cobra.NoArgs,
		Long: `Run a whole network on this machine: an authority, providers, and a node for you,
with an account that holds credits. It listens on loopback only unless you say --listen,
keeps its state in its folder, and continues from it at the next start. Others join it
with the file network.json in that folder: crowd node run --network network.json`,
		Example: "  crowd up\n  crowd up --dir /tmp/net --providers 4\n  crowd up --listen 0.0.0.0:4141      open to other machines",
		RunE: a.until(func(cmd *cobra.Command, ctx context.Context, _ []string) error {
			if cfg.Providers < needed || cfg.Providers > 64 {
				return misuse("a pair of executors needs at least 2; one machine serves at most 64", "up: %d providers", cfg.Providers)
			}
			if len(listen) > 0 {
				var err error
				if cfg.Listen, err = listenAddrs(listen); err != nil {
					return err
				}
			}
			if a.startNetwork == nil {
				return notBuilt("up")
			}
			if cfg.Dir == "" {
				var err error
				if cfg.Dir, err = a.defaultDir(); err != nil {
					return err
				}
			}
			dir, err := filepath.Abs(cfg.Dir)
			if err != nil {
				return err
			}
			cfg.Dir = dir
			if verbose {
				cfg.Log = a.stderr
			}
			a.say("starting a network in %s", dir)
			net, err := a.startNetwork(ctx, cfg)
			if err != nil {
				return fmt.Errorf("start network: %w", err)
			}
			if cmd.Flags().Changed("providers") && cfg.Providers != net.Providers() {
				a.say("the network in this folder keeps the %d providers that it was made with; --providers %d is for a new one: name another folder with --dir",
					net.Providers(), cfg.Providers)
			}
			if err := a.greet(net, cfg); err != nil {
				net.Close()
				return err
			}
			ended := make(chan error, 1)
			go func() { ended <- net.Wait() }()
			select {
			case err := <-ended:
				if err == nil {
					err = fmt.Errorf("the network ended by itself")
				}
				net.Close()
				return err
			case <-ctx.Done():
			}
			a.say("stopping")
			return net.Close()
		}),
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&cfg.Dir, "dir", "", "the network's folder (default: "+`$XDG_DATA_HOME/crowd/local)`)
	fl.IntVar(&cfg.Providers, "providers", 7, "how many providers")
	fl.StringVar(&cfg.Cheat, "cheat", "", "let one of them cheat, as wrong-result does")
	fl.StringArrayVar(&listen, "listen", nil, "IP:PORT or multiaddress where other machines reach the network; may be repeated (default: loopback)")
	fl.StringVar(&cfg.Addr, "addr", "", "loopback address for HTTP and WebSocket (default: a free port)")
	fl.BoolVarP(&verbose, "verbose", "v", false, "print the nodes' logs")
	return c
}

// greet says how to reach the network; as JSON it is the first and only result.
func (a *app) greet(net network, cfg upConfig) error {
	end := net.Endpoint()
	return a.result(struct {
		Dir string `json:"dir"`
		rpc.Endpoint
	}{cfg.Dir, end}, func(w io.Writer) {
		env := ""
		if local, _ := a.defaultDir(); cfg.Dir != local {
			env = "export CROWD_NODE=" + cfg.Dir
		}
		fmt.Fprintf(w, "the network is up: 1 authority, %d providers, and your node\n\n", net.Providers())
		fields(w, "  socket", end.Socket, "  url", end.URL, "  token", "in "+filepath.Join(cfg.Dir, "token"),
			"  to join", filepath.Join(cfg.Dir, "network.json"))
		fmt.Fprintln(w, "\nin another terminal:")
		if env != "" {
			fmt.Fprintln(w, "  "+env)
		}
		fmt.Fprintln(w, "  crowd run PROG.wasm --in FILE --out FILE")
		fmt.Fprintln(w, "\nCtrl-C stops it; the next start continues here")
	})
}
