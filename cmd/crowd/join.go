package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// joinConfig is a node of a network that others run too.
type joinConfig struct {
	Dir     string   // of the node: key, network, database of peers, store, RPC
	File    string   // network file; "": the one that the folder keeps
	Chain   string   // ID of the chain whose genesis is to be fetched from Peers
	Peers   []string // multiaddrs with /p2p/
	Listen  []string // multiaddrs
	MDNS    bool
	Addr    string // TCP address of the RPC; "" for any free port of loopback
	Provide *offerConfig
	Log     io.Writer // for warnings; Verbose for more
	Verbose bool
}

// offerConfig is what a provider offers.
type offerConfig struct {
	Stake   crowd.Credits // 0: the least that the network asks for
	Price   crowd.Price
	Tags    []string
	Country string
	Owners  uint32 // ppm
}

// joined is a running node.
type joined interface {
	Endpoint() rpc.Endpoint
	Ready() <-chan struct{} // closed when it follows the chain
	Wait() error            // returns when the node has ended, with the reason
	Close() error           // stops it and waits for it
}

const (
	// defaultPort is where a node listens unless told otherwise: who remembers it finds it there again.
	defaultPort = 4141
	// joinPatience is how long joining may take before the user is told what may be wrong.
	joinPatience = 20 * time.Second
)

func (a *app) nodeCommand() *cobra.Command {
	return noun("node", "Run a node of a network, and look at it", a.nodeRunCommand(), a.nodeInfoCommand())
}

func (a *app) nodeRunCommand() *cobra.Command {
	cfg := joinConfig{}
	var listen, tags []string
	var stake, price, country string
	var owners float64
	var noMDNS, provide bool
	c := &cobra.Command{
		Use: "run", Short: "Run a node of somebody's network until Ctrl-C", Args: cobra.NoArgs,
		Long: `Run a node of a network that others run too. What a node needs is the network's
file, which "crowd up" leaves in its folder as network.json and "crowd network
export" prints; or the address of any node of it and the chain's ID, which names the
network beyond doubt. The folder keeps both, so that the next start needs neither.

The node finds the others by itself: through the seeds in the file, through the
addresses that you give, on the LAN, and through whom it met before. By default it
only uses the network; with --provide it lends this machine, once its account holds
the stake.`,
		Example: `  crowd node run --network network.json
  crowd node run --peer /ip4/192.0.2.1/udp/4141/quic-v1/p2p/16Uiu2… --chain crowd-local-abc…
  crowd node run --network network.json --provide --price 0.9 --tag gpu --country CH
  crowd node run --dir ~/node --listen 0.0.0.0:4242       again, on another port`,
		RunE: a.until(func(_ *cobra.Command, ctx context.Context, _ []string) (err error) {
			if cfg.Listen, err = listenAddrs(listen); err != nil {
				return err
			}
			cfg.MDNS = !noMDNS
			if provide {
				if cfg.Provide, err = parseOffer(stake, price, country, tags, owners); err != nil {
					return err
				}
			} else if stake != "" || price != "" || country != "" || len(tags) > 0 || owners != 0 {
				return misuse("add --provide to lend this machine", "node run: stake, price, country, tags and owners are a provider's")
			}
			if cfg.File != "" && cfg.Chain != "" {
				return misuse("give one of them", "node run: --network and --chain both name the network")
			}
			if a.joinNetwork == nil {
				return notBuilt("node run")
			}
			if cfg.Dir == "" {
				local, err := a.defaultDir()
				if err != nil {
					return err
				}
				cfg.Dir = filepath.Join(filepath.Dir(local), nodeDir)
			}
			if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
				return err
			}
			cfg.Log = a.stderr
			return a.runNode(ctx, cfg)
		}),
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&cfg.File, "network", "", "the network's file")
	fl.StringVar(&cfg.Dir, "dir", "", "the node's folder (default: "+`$XDG_DATA_HOME/crowd/node)`)
	fl.StringArrayVar(&cfg.Peers, "peer", nil, "address of a node to begin with, a multiaddress with /p2p/; may be repeated")
	fl.StringVar(&cfg.Chain, "chain", "", "ID of the chain, instead of --network: its genesis is fetched from --peer and checked")
	fl.StringArrayVar(&listen, "listen", nil, fmt.Sprintf("IP:PORT or multiaddress to listen on; may be repeated (default 0.0.0.0:%d)", defaultPort))
	fl.BoolVar(&noMDNS, "no-mdns", false, "do not look for nodes on the LAN, nor be seen there")
	fl.BoolVar(&provide, "provide", false, "lend this machine: register and stake as soon as the account holds enough")
	fl.StringVar(&stake, "stake", "", "credits to stake (default: the least that the network asks for)")
	fl.StringVar(&price, "price", "", "credits per giga-gas (default 1)")
	fl.StringArrayVar(&tags, "tag", nil, "what this machine has, as gpu; may be repeated; wasm is always there")
	fl.StringVar(&country, "country", "", "where it stands, two letters as CH")
	fl.Float64Var(&owners, "owners", 0, "least score, 0 to 1, of owners to work for: crowd reputation shows it; a new one has 0.5")
	fl.StringVar(&cfg.Addr, "addr", "", "loopback address for HTTP and WebSocket (default: a free port)")
	fl.BoolVarP(&cfg.Verbose, "verbose", "v", false, "log more")
	return c
}

// listenAddrs takes IP:PORT for QUIC and TCP on it, and multiaddresses as they are.
func listenAddrs(list []string) (out []string, err error) {
	if len(list) == 0 {
		list = []string{fmt.Sprintf("0.0.0.0:%d", defaultPort)}
	}
	for _, s := range list {
		if strings.HasPrefix(s, "/") {
			out = append(out, s)
			continue
		}
		at, err := netip.ParseAddrPort(s)
		if err != nil {
			return nil, misuse("for example --listen 0.0.0.0:4141, or :: for IPv6: --listen [::]:4141", "listen address %q: want IP:PORT or a multiaddress", s)
		}
		family := "ip4"
		if at.Addr().Is6() {
			family = "ip6"
		}
		out = append(out, fmt.Sprintf("/%s/%s/udp/%d/quic-v1", family, at.Addr(), at.Port()), fmt.Sprintf("/%s/%s/tcp/%d", family, at.Addr(), at.Port()))
	}
	return out, nil
}

func parseOffer(stake, price, country string, tags []string, owners float64) (*offerConfig, error) {
	if !(owners >= 0 && owners <= 1) {
		return nil, misuse("for example --owners 0.4", "node run: owners %v: want a score from 0 to 1", owners)
	}
	o := &offerConfig{Price: crowd.ReferencePrice, Tags: append([]string{"wasm"}, tags...), Country: strings.ToUpper(country), Owners: uint32(owners*1e6 + 0.5)}
	var err error
	if stake != "" {
		if o.Stake, err = parseCredits(stake); err != nil {
			return nil, misuse("for example --stake 100", "node run: %v", err)
		}
	}
	if price != "" {
		if o.Price, err = parsePrice(price); err != nil {
			return nil, misuse("for example --price 0.9", "node run: %v", err)
		}
	}
	if o.Country != "" && !isCountry(o.Country) {
		return nil, misuse("for example --country CH", "node run: country %q: want two letters", country)
	}
	for _, t := range tags {
		if t == "" || len(t) > 32 || strings.Trim(t, "abcdefghijklmnopqrstuvwxyz0123456789._:=-") != "" {
			return nil, misuse("for example --tag gpu", "node run: tag %q: want at most 32 of a-z, 0-9 and ._:=-", t)
		}
	}
	return o, nil
}

func (a *app) runNode(ctx context.Context, cfg joinConfig) error {
	a.say("starting a node in %s", cfg.Dir)
	n, err := a.joinNetwork(ctx, cfg)
	if misused := (*usageError)(nil); errors.As(err, &misused) {
		return misused
	}
	if err != nil {
		return fmt.Errorf("start node: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Wait() }()
	patience := time.NewTimer(joinPatience)
	defer patience.Stop()
	ready := n.Ready()
	var ask <-chan time.Time // how far the node is with lending
	offer := ""
	for {
		select {
		case err := <-ended:
			if err == nil {
				err = fmt.Errorf("the node ended by itself")
			}
			n.Close()
			return err
		case <-ctx.Done():
			a.say("stopping")
			return n.Close()
		case <-patience.C:
			if ready != nil {
				a.say("no node that serves the chain has answered yet; still trying. Is a node of this network running? Does UDP get out of here?")
				a.say("hint: give the address of one with --peer; crowd node info --node %s shows who was met", cfg.Dir)
			}
		case <-ready:
			ready = nil
			if err := a.greetNode(ctx, n, cfg); err != nil {
				n.Close()
				return err
			}
			if cfg.Provide != nil {
				t := time.NewTicker(time.Second)
				defer t.Stop()
				ask = t.C
			}
		case <-ask:
			offer = a.sayOffer(ctx, n, offer)
		}
	}
}

// sayOffer says how far the node is with lending, where that is not what was said before.
func (a *app) sayOffer(ctx context.Context, n joined, before string) string {
	c, err := rpc.Dial(ctx, n.Endpoint())
	if err != nil {
		return before // the node is about to end, or is asked again
	}
	defer c.Close()
	s, err := c.Status(ctx)
	if err != nil || s.Provide == "" || s.Provide == before {
		return before
	}
	a.say("provider: %s", clean(s.Provide))
	return s.Provide
}

// nodeReady is the first and only result of node run: one line of JSON, or words for people.
type nodeReady struct {
	Dir     string        `json:"dir"`
	Node    crowd.NodeID  `json:"node"`
	Address crowd.Address `json:"address"`
	Chain   string        `json:"chain"`
	Height  crowd.Height  `json:"height"`
	Listen  []string      `json:"listen"`
	rpc.Endpoint
}

func (a *app) greetNode(ctx context.Context, n joined, cfg joinConfig) error {
	end := n.Endpoint()
	c, err := rpc.Dial(ctx, end)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return json.NewEncoder(a.stdout).Encode(nodeReady{cfg.Dir, s.Node, s.Address, s.Chain, s.Height, s.Listen, end})
	}
	fmt.Fprintf(a.stdout, "the node is part of %s, at block %d\n\n", clean(s.Chain), s.Height)
	fields(a.stdout, "  node", s.Node.Short(), "  account", s.Address.String(), "  listens", strings.Join(s.Listen, " "), "  socket", end.Socket)
	fmt.Fprintf(a.stdout, "\nin another terminal:\n  export CROWD_NODE=%s\n  crowd peers\n\nCtrl-C stops it; the next start continues here\n", cfg.Dir)
	return nil
}

func (a *app) nodeInfoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "info", Aliases: []string{"status"}, Short: "Show who the node is, and how it stands in its network", Args: cobra.NoArgs,
		Example: "  crowd node info\n  crowd node status --json",
		RunE: a.with(func(ctx context.Context, c *rpc.Client, _ []string) error {
			s, err := c.Status(ctx)
			if err != nil {
				return err
			}
			end := c.Endpoint()
			return a.result(struct {
				rpc.Status
				Endpoint rpc.Endpoint `json:"endpoint"`
			}{s, end}, func(w io.Writer) {
				o := s.Overlay
				state := "joined"
				if !o.Joined {
					state = "not joined yet: nobody has answered"
				}
				clock := ""
				if o.ClockMillis != 0 {
					clock = fmt.Sprintf("peers say that it is wrong by %v; set it", time.Duration(o.ClockMillis)*time.Millisecond)
				}
				content := ""
				if t := s.Traffic; t.Fetched+t.Served > 0 {
					content = fmt.Sprintf("%s fetched, %s served since it started", sizeText(int64(t.Fetched)), sizeText(int64(t.Served)))
				}
				fields(w, "node", s.Node.Short(), "id", s.Node.String(), "key", o.Key, "address", s.Address.String(), "roles", strings.Join(s.Roles, ", "),
					"tags", strings.Join(s.Tags, ", "), "provider", s.Provide,
					"chain", fmt.Sprintf("%s, block %d of %s", s.Chain, s.Height, timeText(s.ChainTime)),
					"reachability", s.Reachability, "seen as", strings.Join(s.Seen, " "), "relay", s.Relay, "listens", strings.Join(s.Listen, " "), "peers", fmt.Sprintf("%d connected", s.Peers),
					"overlay", fmt.Sprintf("%s; %d in the table, %d remembered", state, o.Peers, o.Known),
					"packets", fmt.Sprintf("%d sent, %d received, of which %d refused and %d dropped unseen; %d lookups", o.Sent, o.Received, o.Refused, o.OverBudget, o.Lookups),
					"content", content, "clock", clock, "version", s.Version, "started", timeText(s.Started), "seeds", strings.Join(s.Seeds, " "), "socket", end.Socket, "url", end.URL)
			})
		}),
	}
}
