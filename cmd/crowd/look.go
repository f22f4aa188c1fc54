package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

func (a *app) infoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "info", Short: "Describe the node", Args: cobra.NoArgs,
		Example: "  crowd info\n  crowd info --node http://127.0.0.1:8545 --token-file token",
		RunE: a.with(func(ctx context.Context, c *rpc.Client, _ []string) error {
			i, err := c.Info(ctx)
			if err != nil {
				return err
			}
			end := c.Endpoint()
			return a.result(struct {
				rpc.Info
				Endpoint rpc.Endpoint `json:"endpoint"`
			}{i, end}, func(w io.Writer) {
				fields(w, "node", i.Node.Short(), "address", i.Address.String(), "roles", strings.Join(i.Roles, ", "),
					"chain", fmt.Sprintf("%s, block %d", i.Chain, i.Height), "peers", fmt.Sprint(i.Peers), "version", i.Version,
					"started", timeText(i.Started), "listens", strings.Join(i.Listen, " "), "socket", end.Socket, "url", end.URL)
			})
		}),
	}
}

func (a *app) accountCommand() *cobra.Command {
	show := func(list []rpc.Account, v any) error {
		return a.result(v, func(w io.Writer) {
			rows := [][]string{{"ACCOUNT", "NAME", "BALANCE", "LOCKED", "STAKE"}}
			for _, x := range list {
				rows = append(rows, []string{x.Address.String(), x.Name, creditText(x.Balance), creditText(x.Escrow), creditText(x.Stake)})
			}
			table(w, "", rows)
		})
	}
	list := &cobra.Command{
		Use: "list", Short: "List the node's own accounts", Args: cobra.NoArgs,
		Example: "  crowd account list",
		RunE: a.with(func(ctx context.Context, c *rpc.Client, _ []string) error {
			list, err := c.Accounts(ctx)
			if err != nil {
				return err
			}
			return show(list, list)
		}),
	}
	account := noun("account", "Show what accounts own", list,
		&cobra.Command{
			Use: "show [ADDRESS]", Short: "Show an account; without ADDRESS the node's first", Args: cobra.MaximumNArgs(1),
			Example: "  crowd account show 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
			RunE: a.until(func(_ *cobra.Command, ctx context.Context, args []string) error {
				var address crowd.Address
				if len(args) == 1 {
					var err error
					if address, err = crowd.ParseAddress(args[0]); err != nil {
						return misuse("an address is 0x and 40 hex digits; see: crowd account list", "account show: %v", err)
					}
				}
				c, err := a.connect(ctx)
				if err != nil {
					return err
				}
				defer c.Close()
				if len(args) == 0 {
					info, err := c.Info(ctx)
					if err != nil {
						return err
					}
					address = info.Address
				}
				x, err := c.Account(ctx, address)
				if err != nil {
					return err
				}
				return show([]rpc.Account{x}, x)
			}),
		})
	verbs := account.RunE
	account.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return list.RunE(cmd, args)
		}
		return verbs(cmd, args)
	}
	account.Example = "  crowd account              the node's own"
	return account
}

func (a *app) providerCommand() *cobra.Command {
	return noun("provider", "Show who lends machines, and stop lending", &cobra.Command{
		Use: "list", Short: "List the providers that the node knows", Args: cobra.NoArgs,
		Example: "  crowd provider list --json",
		RunE: a.with(func(ctx context.Context, c *rpc.Client, _ []string) error {
			list, err := c.Providers(ctx)
			if err != nil {
				return err
			}
			if len(list) == 0 && !a.json {
				a.say("no providers are known yet")
				return nil
			}
			return a.result(list, func(w io.Writer) {
				rows := [][]string{{"PROVIDER", "PRICE/GGAS", "COUNTRY", "TAGS", "STAKE", "DONE", "CAUGHT", "STATE"}}
				for _, p := range list {
					state := "online"
					if !p.Online {
						state = "offline"
					}
					if p.Suspended != "" {
						state = "not drawn: " + p.Suspended
					}
					rows = append(rows, []string{p.Node.Short(), priceText(p.Price), p.Country, strings.Join(p.Tags, ","),
						creditText(p.Stake), fmt.Sprint(p.Done), fmt.Sprint(p.Caught), state})
				}
				table(w, "", rows)
			})
		}),
	}, a.leaveCommand())
}

func (a *app) peersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "peers", Short: "List the nodes that the node is connected to, and others that it knows", Args: cobra.NoArgs,
		Long: `List the nodes that the node is connected to, with the path: direct, punched (direct
through NATs, after a relay had helped) or relayed. Without a path stand those that the
node only knows: it connects to them when it has something to say.`,
		Example: "  crowd peers\n  crowd peers --json",
		RunE: a.with(func(ctx context.Context, c *rpc.Client, _ []string) error {
			list, err := c.Peers(ctx)
			if err != nil {
				return err
			}
			if len(list) == 0 && !a.json {
				a.say("no peers are known: is a node of this network running? see: crowd node info")
				return nil
			}
			return a.result(list, func(w io.Writer) {
				rows := [][]string{{"PEER", "PATH", "ROUND TRIP", "TAGS", "SINCE", "ADDRESS"}}
				for _, p := range list {
					address, rtt := "", ""
					if len(p.Addresses) > 0 {
						address = p.Addresses[0]
					}
					if p.RTTMillis > 0 {
						rtt = fmt.Sprintf("%.1f ms", p.RTTMillis)
					}
					rows = append(rows, []string{p.Node.Short(), p.Path, rtt, strings.Join(p.Tags, ","), timeText(p.Since), address})
				}
				table(w, "", rows)
			})
		}),
	}
}
