package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// maxReceipt bounds a receipt file, in bytes; real ones have some ten thousand.
const maxReceipt = 16 << 20

// Check is one thing that was verified in a receipt.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

func (a *app) receiptCommand() *cobra.Command {
	return noun("receipt", "Get and check receipts", a.receiptGetCommand(), a.receiptVerifyCommand())
}

func (a *app) receiptGetCommand() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use: "get JOB", Short: "Get the receipt of a settled job", Args: oneJob,
		Example: "  crowd receipt get 3fa2 --out receipt.json",
		RunE: a.onJob(func(ctx context.Context, c *rpc.Client, id crowd.JobID) error {
			if to != "" {
				return saveReceipt(ctx, c, id, to)
			}
			data, err := c.Receipt(ctx, id)
			if err == nil {
				_, err = a.stdout.Write(data)
			}
			return err
		}),
	}
	c.Flags().StringVar(&to, "out", "", "the file to write (default: stdout)")
	return c
}

func saveReceipt(ctx context.Context, c *rpc.Client, id crowd.JobID, file string) error {
	data, err := c.Receipt(ctx, id)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return fmt.Errorf("save receipt: %w", err)
	}
	return nil
}

func (a *app) receiptVerifyCommand() *cobra.Command {
	var genesis string
	c := &cobra.Command{
		Use: "verify FILE", Short: "Check a receipt, without any network", Args: cobra.ExactArgs(1),
		Long: `Check a receipt: every claim in it is proven again from the file alone, so no node
and no network is needed. With --genesis the chain that it stands on must be that one.`,
		Example: "  crowd receipt verify receipt.json\n  crowd receipt verify receipt.json --genesis genesis.json --json",
		RunE: a.until(func(_ *cobra.Command, _ context.Context, args []string) error {
			if a.verifyReceipt == nil {
				return notBuilt("receipt verify")
			}
			receipt, err := readBounded(args[0], maxReceipt)
			if err != nil {
				return fmt.Errorf("read receipt: %w", err)
			}
			var trusted []byte
			if genesis != "" {
				if trusted, err = readBounded(genesis, maxReceipt); err != nil {
					return fmt.Errorf("read genesis: %w", err)
				}
			}
			checks, err := a.verifyReceipt(receipt, trusted)
			if err != nil {
				return fmt.Errorf("verify %s: %w", args[0], err)
			}
			if err := a.result(checks, func(w io.Writer) { printChecks(w, checks) }); err != nil {
				return err
			}
			return checksError(args[0], checks)
		}),
	}
	c.Flags().StringVar(&genesis, "genesis", "", "the genesis file of the chain to trust (default: the one named in the receipt)")
	return c
}

func printChecks(w io.Writer, checks []Check) {
	rows := make([][]string, 0, len(checks))
	for _, c := range checks {
		verdict := "ok"
		if !c.OK {
			verdict = "FAILED"
		}
		rows = append(rows, []string{verdict, c.Name, c.Detail})
	}
	table(w, "", rows)
}

func checksError(what string, checks []Check) error {
	failed := 0
	for _, c := range checks {
		if !c.OK {
			failed++
		}
	}
	if failed > 0 || len(checks) == 0 {
		return fmt.Errorf("%s: %d of %d checks failed", what, failed, len(checks))
	}
	return nil
}

func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s: larger than %s", name, sizeText(most))
	}
	return data, err
}
