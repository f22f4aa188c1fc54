package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

func (a *app) reputationCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reputation NODE", Short: "Show what the chain knows of a node, with the evidence", Args: cobra.ExactArgs(1),
		Long: `Show the two scores of a node and what they come from. H, honesty, is about what was
checked of its work; A, availability, about being there. They are never mixed, but for
the weight with which a node draws. NODE is an address, or a provider's ID or its first digits.`,
		Example: "  crowd reputation 3f2a\n  crowd reputation 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed --json",
		RunE: a.with(func(ctx context.Context, c *rpc.Client, args []string) error {
			address, err := crowd.ParseAddress(args[0])
			if err != nil {
				ids, err := resolveProviders(ctx, c, args)
				if err != nil {
					return misuse("see: crowd provider list", "reputation: %s is no address, and not the beginning of one provider's ID", args[0])
				}
				address = ids[0].Address()
			}
			r, err := c.Reputation(ctx, address)
			if err != nil {
				return err
			}
			return a.result(r, func(w io.Writer) { printReputation(w, &r) })
		}),
	}
}

func printReputation(w io.Writer, r *rpc.Reputation) {
	node, state := "", ""
	if r.Node != nil {
		node = r.Node.String()
	}
	switch {
	case r.Buried:
		state = "caught cheating: never drawn again"
	case r.Newcomer:
		state = "a newcomer: draws with a part of its stake until it has done enough"
	}
	fields(w, "node", node, "address", r.Address.String(), "state", state,
		"H, honesty", fmt.Sprintf("%.3f: passed %.3f, failed %.3f (in jobs that count in full, fading)", r.Honesty, r.Passed, r.Failed),
		"A, availability", fmt.Sprintf("%.3f: there %.2f, not there %.2f", r.Availability, r.Up, r.Down),
		"weight in a draw", fmt.Sprintf("%.3f of its stake", r.Weight), "as a consumer", fmt.Sprintf("%.3f", r.Consumer),
		"jobs done", fmt.Sprintf("%d, %s", r.Done, gasText(r.Work)), "caught", fmt.Sprint(r.Caught), "places given up or missed", fmt.Sprint(r.Faults),
		"draws missed in a row", fmt.Sprint(r.Missed), "cheaters exposed", fmt.Sprint(r.Reported))
	if len(r.Evidence) > 0 {
		fmt.Fprintln(w, "\nnewest evidence")
		rows := [][]string{{"BLOCK", "JOB", "FINDING", "WEIGHT"}}
		for _, e := range r.Evidence {
			finding := "passed"
			if !e.Passed {
				finding = "FRAUD"
			}
			rows = append(rows, []string{fmt.Sprint(e.Height), e.Job.Short(), finding, fmt.Sprintf("%.4f", e.Difficulty)})
		}
		table(w, "  ", rows)
	}
}
