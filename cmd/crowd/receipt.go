package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
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
	return noun("receipt", "Get and check receipts", a.receiptGetCommand(), a.receiptVerifyCommand(), a.receiptItemCommand())
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
	o, err := openReceipt(file)
	if err != nil {
		return err
	}
	defer o.abandon()
	return o.saveReceipt(ctx, c, id, file)
}

// openReceipt fails early, as openOutput does, where a receipt cannot be saved.
func openReceipt(file string) (*output, error) {
	o, err := openOutput(file, nil)
	if err == nil && o.w == nil {
		err = fmt.Errorf("%s: not a file", file)
	}
	if err != nil {
		return nil, fmt.Errorf("save receipt: %w", named(err, file))
	}
	return o, nil
}

// saveReceipt writes the receipt of a job to o, which is the file of that name.
func (o *output) saveReceipt(ctx context.Context, c *rpc.Client, id crowd.JobID, file string) error {
	data, err := c.Receipt(ctx, id)
	if err != nil {
		return err
	}
	_, err = o.w.Write(data)
	if err = errors.Join(err, o.finish()); err != nil {
		return fmt.Errorf("save receipt: %w", named(err, file))
	}
	return nil
}

func (a *app) receiptVerifyCommand() *cobra.Command {
	var genesis, leavesFile string
	c := &cobra.Command{
		Use: "verify FILE|DIR", Short: "Check a receipt, without any network", Args: cobra.ExactArgs(1),
		Long: `Check a receipt: every claim in it is proven again from the file alone, so no node
and no network is needed. With --genesis the chain that it stands on must be that one.
FILE may be the receipt of one item. DIR is the folder of a crowd map: the receipts of
all its shards are checked, and that each shard's outcomes are those that its executor and verifiers committed to.`,
		Example: "  crowd receipt verify receipt.json\n  crowd receipt verify receipt.json --genesis genesis.json --json\n  crowd receipt verify counts.txt.map",
		RunE: a.until(func(_ *cobra.Command, _ context.Context, args []string) error {
			if a.verifyReceipt == nil {
				return notBuilt("receipt verify")
			}
			var trusted []byte
			var err error
			if genesis != "" {
				if trusted, err = readBounded(genesis, maxReceipt); err != nil {
					return fmt.Errorf("read genesis: %w", err)
				}
			}
			checks, err := a.checkReceipts(args[0], leavesFile, trusted)
			if err != nil {
				return fmt.Errorf("verify %s: %w", args[0], err)
			}
			if err := a.result(checks, func(w io.Writer) { printChecks(w, checks) }); err != nil {
				return err
			}
			return checksError(args[0], checks)
		}),
	}
	c.Flags().StringVar(&leavesFile, "leaves", "", "of a batch: the file leaves of its result, to be held against the receipt")
	c.Flags().StringVar(&genesis, "genesis", "", "the genesis file of the chain to trust (default: the one named in the receipt)")
	return c
}

// checkReceipts checks a receipt, or those of all shards of a crowd map.
func (a *app) checkReceipts(path, leavesFile string, trusted []byte) ([]Check, error) {
	if st, err := os.Stat(path); err != nil || !st.IsDir() {
		return a.checkReceipt(path, leavesFile, trusted)
	}
	d, err := openMapDir(path)
	if e := (*rpc.Error)(nil); errors.As(err, &e) && e.Kind == rpc.NotFound {
		return nil, rpc.Errorf(rpc.NotFound, "it holds no receipts").WithHint("name a receipt, or the folder of a crowd map, as counts.txt.map")
	}
	if err != nil {
		return nil, err
	}
	defer d.close()
	var all []Check
	for i, st := range d.state.Stages {
		for k := range st.Shards {
			name := fmt.Sprintf("%s shard %d", st.Name, k+1)
			if !d.state.Flow.Stages[i].Shards[k].Done {
				all = append(all, Check{Name: name, Detail: "is not done"})
				continue
			}
			dir := d.shardDir(st, k)
			checks, err := a.checkReceipt(filepath.Join(dir, "receipt.json"), filepath.Join(dir, "leaves"), trusted)
			if err != nil {
				return nil, err
			}
			for _, c := range checks {
				c.Name = name + ": " + c.Name
				all = append(all, c)
			}
		}
	}
	return all, nil
}

func (a *app) checkReceipt(file, leavesFile string, trusted []byte) ([]Check, error) {
	receipt, err := readBounded(file, maxReceipt)
	if err != nil {
		return nil, fmt.Errorf("read receipt: %w", err)
	}
	var leaves []byte
	if leavesFile != "" {
		if leaves, err = readBounded(leavesFile, batch.MaxItems*batch.LeafSize); err != nil {
			return nil, fmt.Errorf("read leaves: %w", err)
		}
	}
	return a.verifyReceipt(receipt, trusted, leaves)
}

func (a *app) receiptItemCommand() *cobra.Command {
	var to, stage string
	var item uint64
	c := &cobra.Command{
		Use: "item FILE|DIR --item N", Short: "Show a third party what one item of a batch came to", Args: cobra.ExactArgs(1),
		Long: `Write a receipt of one item: its output, the proof that it is under the root that was
checked, and the receipt for that root. DIR is the folder of a crowd map, FILE the receipt of
one of its shards, beside which the result lies. Items count from 0; those of a stage that
reads others are its partitions.
Anybody can check it with: crowd receipt verify`,
		Example: "  crowd receipt item counts.txt.map --item 17 --out proof.json",
		RunE: a.until(func(_ *cobra.Command, _ context.Context, args []string) error {
			if a.itemReceipt == nil {
				return notBuilt("receipt item")
			}
			proof, err := a.proveItem(args[0], stage, item)
			if err != nil {
				return err
			}
			if to == "" {
				_, err = a.stdout.Write(proof)
				return err
			}
			return os.WriteFile(to, proof, 0o644)
		}),
	}
	c.Flags().Uint64Var(&item, "item", 0, "which item")
	c.Flags().StringVar(&stage, "stage", "", "of which stage (default: the first that no other reads); what a stage writes for others cannot be proven, as it is not here")
	c.Flags().StringVar(&to, "out", "", "the file to write (default: stdout)")
	if err := c.MarkFlagRequired("item"); err != nil {
		panic("bug: " + err.Error())
	}
	return c
}

func (a *app) proveItem(path, name string, item uint64) ([]byte, error) {
	file := path
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		d, err := openMapDir(path)
		if err != nil {
			return nil, err
		}
		defer d.close()
		at, found := d.state.ends()[0], false
		if name != "" {
			if at = slices.IndexFunc(d.state.Stages, func(st *stage) bool { return st.Name == name }); at < 0 {
				return nil, fmt.Errorf("%s has no stage %s", path, name)
			}
		}
		st := d.state.Stages[at]
		for k, sh := range d.state.Flow.Stages[at].Shards {
			if item >= sh.First && item < sh.First+sh.Items {
				if !sh.Done {
					return nil, fmt.Errorf("item %d is not done yet", item)
				}
				file, item, found = filepath.Join(d.shardDir(st, k), "receipt.json"), item-sh.First, true
				break
			}
		}
		if !found {
			return nil, fmt.Errorf("stage %s has %s, counted from 0", st.Name, count(st.Index.Items, "item"))
		}
	}
	receipt, err := readBounded(file, maxReceipt)
	if err != nil {
		return nil, fmt.Errorf("read receipt: %w", err)
	}
	dir := filepath.Dir(file)
	leaves, err := readBounded(filepath.Join(dir, "leaves"), batch.MaxItems*batch.LeafSize)
	if err != nil {
		return nil, fmt.Errorf("the result must lie beside the receipt: %w", err)
	}
	r, err := openShard(dir, uint32(len(leaves)/batch.LeafSize))
	if err != nil {
		return nil, err
	}
	defer r.close()
	if item >= uint64(len(r.leaves)) {
		return nil, fmt.Errorf("the shard has %s, counted from 0", count(uint64(len(r.leaves)), "item"))
	}
	if r.stdout == nil {
		return nil, rpc.Errorf(rpc.BadRequest, "the outputs of this stage stayed with the nodes that made them, for the next stage").WithHint("name one that no other reads with --stage")
	}
	stdout, err := r.stdout.Read(uint32(item))
	if err != nil {
		return nil, err
	}
	stderr, err := r.stderr.Read(uint32(item))
	if err != nil {
		return nil, err
	}
	return a.itemReceipt(receipt, leaves, uint32(item), stdout, stderr)
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
	if twoChances(checks) {
		fmt.Fprintln(w, "\nof the two chances of a cheater: \"verdict\" has what the plan promised before the draw, "+
			"with all the replacements that it allows; "+
			"\"chance\" is reckoned again\nwith the nodes that did hold a place, and is the one of this job")
	}
}

// twoChances reports whether the checks are of a batch: its plan's chance and that of its nodes both stand in them.
func twoChances(checks []Check) bool {
	says := func(name string) bool {
		return slices.ContainsFunc(checks, func(c Check) bool {
			return (c.Name == name || strings.HasSuffix(c.Name, ": "+name)) && strings.Contains(c.Detail,
				"escapes with")
		})
	}
	return says("verdict") && says("chance")
}

func checksError(what string, checks []Check) error {
	failed := 0
	for _, c := range checks {
		if !c.OK {
			failed++
		}
	}
	if failed > 0 || len(checks) == 0 {
		return rpc.Errorf(rpc.Conflict, "%s: %d of %d checks failed", what, failed, len(checks))
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
