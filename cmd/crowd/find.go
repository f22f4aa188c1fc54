package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

func (a *app) findCommand() *cobra.Command {
	tag, want := "", 10
	c := &cobra.Command{
		Use: "find [NODE]", Short: "Find a node, or nodes that announce a tag", Args: cobra.MaximumNArgs(1),
		Long: `Find a node by its ID, by its key in the overlay, or by the first digits of the ID of
one that is known here; or nodes that announce a tag. What a node announces is its own
word; what it offers, the chain says. Common tags are provider, wasm, gpu, docker,
chain, authority and country:xx.`,
		Example: "  crowd find --tag gpu --want 3\n  crowd find 5fe7f977\n  crowd find --tag country:ch --json",
		RunE: a.until(func(_ *cobra.Command, ctx context.Context, args []string) error {
			switch {
			case len(args) == 1 && tag != "":
				return misuse("give one of them", "find: a node and a tag")
			case len(args) == 0 && tag == "":
				return misuse("for example: crowd find --tag gpu", "find: neither a node nor a tag")
			case want < 1 || want > 1000:
				return misuse("from 1 to 1000", "find: %d nodes wanted", want)
			}
			c, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			if tag != "" {
				list, err := c.FindTag(ctx, tag, want)
				if err != nil {
					return err
				}
				if len(list) == 0 && !a.json {
					a.say("no node announces %s; one that has just started is found within minutes", tag)
					return nil
				}
				return a.result(list, func(w io.Writer) { printFound(w, list) })
			}
			f, err := c.Find(ctx, args[0])
			if err != nil {
				return err
			}
			return a.result(f, func(w io.Writer) {
				offer := ""
				if p := f.Offer; p != nil {
					offer = fmt.Sprintf("%s credits per giga-gas, stake %s, %d jobs done%s", priceText(p.Price), creditText(p.Stake), p.Done, unless(p.Suspended == "", "; not drawn: "+p.Suspended))
				}
				fields(w, "node", f.Node.String(), "key", f.Key, "account", f.Address.String(), "tags", strings.Join(f.Tags, ", "), "signed", timeText(f.Signed),
					"addresses", strings.Join(f.Addresses, " "), "relay", f.Relay, "offer", offer)
			})
		}),
	}
	c.Flags().StringVar(&tag, "tag", "", "find nodes that announce this tag")
	c.Flags().IntVar(&want, "want", want, "how many nodes at most")
	return c
}

func printFound(w io.Writer, list []rpc.Found) {
	rows := [][]string{{"NODE", "KEY", "TAGS", "PRICE/GGAS", "STAKE", "ADDRESS"}}
	for _, f := range list {
		price, stake, address := "", "", ""
		if f.Offer != nil {
			price, stake = priceText(f.Offer.Price), creditText(f.Offer.Stake)
		}
		if len(f.Addresses) > 0 {
			address = f.Addresses[0]
		}
		rows = append(rows, []string{f.Node.Short(), f.Key[:min(len(f.Key), 8)], strings.Join(f.Tags, ","), price, stake, address})
	}
	table(w, "", rows)
}

func (a *app) networkCommand() *cobra.Command {
	out := ""
	export := &cobra.Command{
		Use: "export", Short: "Write the file that others need to join the node's network", Args: cobra.NoArgs,
		Example: "  crowd network export --out network.json\n  crowd node run --network network.json     on another machine",
		RunE: a.with(func(ctx context.Context, c *rpc.Client, _ []string) error {
			f, err := c.Network(ctx)
			if err != nil {
				return err
			}
			if len(f.Seeds) == 0 {
				a.say("no seed is in it: this node cannot be reached from outside, so that who joins needs --peer too")
			}
			if out == "" {
				a.json = true
				return a.result(f, nil)
			}
			w, err := os.Create(out)
			if err != nil {
				return fmt.Errorf("write network file: %w", err)
			}
			defer w.Close()
			to := *a
			to.json, to.stdout = true, w
			if err := to.result(f, nil); err != nil {
				return fmt.Errorf("write network file: %w", err)
			}
			return w.Close()
		}),
	}
	export.Flags().StringVar(&out, "out", "", "the file (default: stdout)")
	return noun("network", "Hand on what others need to join", export)
}

func (a *app) sendCommand() *cobra.Command {
	return &cobra.Command{
		Use: "send ADDRESS AMOUNT", Short: "Send credits of the node's account to another", Args: cobra.ExactArgs(2),
		Example: "  crowd send 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed 25",
		RunE: a.until(func(_ *cobra.Command, ctx context.Context, args []string) error {
			to, err := crowd.ParseAddress(args[0])
			if err != nil {
				return misuse("an address is 0x and 40 hex digits; see: crowd account list", "send: %v", err)
			}
			amount, err := parseCredits(args[1])
			if err == nil && amount == 0 {
				err = fmt.Errorf("nothing is to be sent")
			}
			if err != nil {
				return misuse("for example: crowd send "+args[0]+" 2.5", "send: %v", err)
			}
			c, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			height, err := c.Send(ctx, to, amount)
			if err != nil {
				return err
			}
			return a.result(struct {
				To     crowd.Address `json:"to"`
				Amount crowd.Credits `json:"amount"`
				Height crowd.Height  `json:"height"`
			}{to, amount, height}, func(w io.Writer) {
				fmt.Fprintf(w, "sent %s to %s in block %d\n", creditText(amount), to, height)
			})
		}),
	}
}

func (a *app) leaveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "leave", Short: "Stop lending the node's machine; called again, get the stake back", Args: cobra.NoArgs,
		Example: "  crowd provider leave",
		RunE: a.with(func(ctx context.Context, c *rpc.Client, _ []string) error {
			said, err := c.Leave(ctx)
			if err != nil {
				return err
			}
			return a.result(struct {
				State string `json:"state"`
			}{said}, func(w io.Writer) { fmt.Fprintln(w, clean(said)) })
		}),
	}
}
