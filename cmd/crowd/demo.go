package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// demoAssets are the demo's own program and picture.
type demoAssets struct {
	Program []byte // a wasm module that reads a picture on stdin and writes one to stdout
	Image   []byte
	Args    []string
	// Native does what Program does, outside of the network; nil when there is no
	// such thing, as for a program that the user gave.
	Native func(image []byte, args []string) ([]byte, error)
}

const (
	// demoRounds bounds the demo: with 7 providers a given one is among two drawn
	// with probability 2/7, so it stays undrawn for 40 rounds once in 700,000 demos.
	demoRounds = 40
	demoCheat  = "wrong-result"
)

func (a *app) demoCommand() *cobra.Command {
	var image, program, out, cheat string
	providers := 7
	c := &cobra.Command{
		Use: "demo [flags] [-- ARGS]", Short: "Watch a cheater be drawn, caught and made to pay",
		Long: `Start a network on this machine in which one provider cheats, run a picture filter
on it until the cheater is drawn, and watch it be caught: it loses its stake, you get
the right picture, a receipt, and your money back for what was wrong.`,
		Example: "  crowd demo\n  crowd demo --image photo.png --out demo-out",
		RunE: a.until(func(cmd *cobra.Command, ctx context.Context, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				return misuse("the program's own arguments go behind --", "demo: %q is not expected here", args[0])
			}
			if a.startNetwork == nil || a.verifyReceipt == nil || a.demo == nil && (program == "" || image == "") {
				return notBuilt("demo")
			}
			assets := demoAssets{}
			var err error
			if a.demo != nil && (program == "" || image == "") {
				if assets, err = a.demo(); err != nil {
					return err
				}
			}
			if program != "" {
				assets.Native = nil
				if assets.Program, err = os.ReadFile(program); err != nil {
					return fmt.Errorf("read program: %w", err)
				}
			}
			if image != "" {
				if assets.Image, err = os.ReadFile(image); err != nil {
					return fmt.Errorf("read image: %w", err)
				}
			}
			if len(args) > 0 {
				assets.Args = args
			}
			_, before := os.Stat(out)
			if err := os.MkdirAll(out, 0o777); err != nil {
				return fmt.Errorf("output: %w", err)
			}
			if before != nil {
				defer os.Remove(out) // which fails if there is something in it
			}
			return a.runDemo(ctx, assets, upConfig{Providers: providers, Cheat: cheat}, out)
		}),
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&image, "image", "", "your own picture, PNG or JPEG")
	fl.StringVar(&program, "program", "", "your own filter: wasm, a picture on stdin, a picture to stdout")
	fl.StringVar(&out, "out", "demo-out", "the folder for picture and receipt")
	fl.IntVar(&providers, "providers", providers, "how many providers")
	fl.StringVar(&cheat, "cheat", demoCheat, "how one of them cheats")
	return c
}

// demoReport is the demo's result.
type demoReport struct {
	Jobs     int           `json:"jobs"`
	Cheater  crowd.NodeID  `json:"cheater"`
	Strategy string        `json:"strategy"`
	Lost     crowd.Credits `json:"lost"`
	Picture  string        `json:"picture"`
	Native   bool          `json:"equalToNative"` // compared, and equal
	Receipt  string        `json:"receipt"`
	Checks   []Check       `json:"checks"`
	Ledger   []ledgerLine  `json:"ledger"`
}

// ledgerLine is what an account owned before and after, stake and locked included.
type ledgerLine struct {
	Who     string        `json:"who"`
	Address crowd.Address `json:"address"`
	Change  int64         `json:"change"`
	Why     string        `json:"why"`
}

func (a *app) runDemo(ctx context.Context, assets demoAssets, cfg upConfig, out string) (err error) {
	dir, err := os.MkdirTemp("", "crowd") // short: a socket lies in it
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cfg.Dir = filepath.Join(dir, "net")
	a.say("starting a network: 1 authority, %d providers; one of them cheats (%s), and the others do not know which", cfg.Providers, cfg.Cheat)
	net, err := a.startNetwork(ctx, cfg)
	if err != nil {
		return fmt.Errorf("start network: %w", err)
	}
	defer func() { err = errors.Join(err, net.Close()) }()
	c, err := rpc.Dial(ctx, net.Endpoint())
	if err != nil {
		return err
	}
	defer c.Close()

	var right []byte
	if assets.Native != nil {
		start := time.Now()
		if right, err = assets.Native(assets.Image, assets.Args); err != nil {
			return fmt.Errorf("run the program natively: %w", err)
		}
		a.say("the same program, run natively here for comparison, takes %v", time.Since(start).Round(time.Millisecond))
	}
	report := demoReport{Strategy: cfg.Cheat, Picture: filepath.Join(out, "out.png"), Receipt: filepath.Join(out, "receipt.json")}
	before, err := a.wealth(ctx, c)
	if err != nil {
		return err
	}
	req := rpc.PostRequest{Args: assets.Args, Limits: rpc.Limits{Gas: autoGas, Memory: 1 << 30, Output: 256 << 20}}
	req.Limits.WallMillis = crowd.LeastWall(crowd.Limits{Gas: autoGas, Memory: req.Limits.Memory}).Milliseconds()
	if req.Program, err = c.UploadFile(ctx, bytes.NewReader(assets.Program), nil); err != nil {
		return err
	}
	if req.Stdin, err = c.UploadFile(ctx, bytes.NewReader(assets.Image), nil); err != nil {
		return err
	}
	for report.Lost == 0 {
		if report.Jobs == demoRounds {
			return fmt.Errorf("the cheater was not caught in %d jobs", demoRounds)
		}
		report.Jobs++
		picture, err := a.demoJob(ctx, c, req, &report)
		if err != nil {
			return err
		}
		if right != nil && !bytes.Equal(picture, right) {
			return fmt.Errorf("job %d gave another picture than the program gives natively", report.Jobs)
		}
		report.Native = right != nil
		if err := os.WriteFile(report.Picture, picture, 0o644); err != nil {
			return fmt.Errorf("save picture: %w", err)
		}
	}
	receipt, err := os.ReadFile(report.Receipt)
	if err != nil {
		return err
	}
	if report.Checks, err = a.verifyReceipt(receipt, nil, nil); err != nil {
		return fmt.Errorf("verify receipt: %w", err)
	}
	after, err := a.wealth(ctx, c)
	if err != nil {
		return err
	}
	report.Ledger = changes(before, after, report.Cheater)
	if err := a.result(report, func(w io.Writer) { printDemo(w, report) }); err != nil {
		return err
	}
	return checksError(report.Receipt, report.Checks)
}

// demoJob runs the job once, shows it, saves its receipt and notes a slash.
func (a *app) demoJob(ctx context.Context, c *rpc.Client, req rpc.PostRequest, report *demoReport) ([]byte, error) {
	id, err := c.Post(ctx, req)
	if err != nil {
		return nil, err
	}
	a.say("")
	a.say("job %d: %s", report.Jobs, id.Short())
	st := a.newStages(false)
	defer st.done()
	last, err := follow(ctx, c, id, st, false)
	if err != nil {
		return nil, err
	}
	for _, p := range last.Payments {
		if p.Slashed && p.Node != nil && p.Change < 0 {
			report.Cheater = *p.Node
			report.Lost += crowd.Credits(-p.Change)
		}
	}
	res, err := c.Result(ctx, id)
	if err != nil {
		return nil, err
	}
	if res.Outcome.UserError {
		return nil, (&running{app: a, f: &runFlags{}, c: c}).outcomeError(ctx, id, last, res.Outcome)
	}
	var picture bytes.Buffer
	if _, err := c.Download(ctx, id, "stdout", &picture); err != nil {
		return nil, err
	}
	return picture.Bytes(), saveReceipt(ctx, c, id, report.Receipt)
}

// wealth is what we and each provider own, in the order of the list.
func (a *app) wealth(ctx context.Context, c *rpc.Client) ([]ledgerLine, error) {
	info, err := c.Info(ctx)
	if err != nil {
		return nil, err
	}
	providers, err := c.Providers(ctx)
	if err != nil {
		return nil, err
	}
	lines := []ledgerLine{{Who: "you", Address: info.Address}}
	for _, p := range providers {
		lines = append(lines, ledgerLine{Who: p.Node.Short(), Address: p.Address})
	}
	for _, a := range info.Court {
		lines = append(lines, ledgerLine{Who: "authority", Address: a})
	}
	for i := range lines {
		x, err := c.Account(ctx, lines[i].Address)
		if err != nil {
			return nil, err
		}
		lines[i].Change = int64(x.Balance + x.Escrow + x.Stake)
	}
	return lines, nil
}

func changes(before, after []ledgerLine, cheater crowd.NodeID) []ledgerLine {
	was := make(map[crowd.Address]int64)
	for _, l := range before {
		was[l.Address] = l.Change
	}
	burned := ledgerLine{Who: "burned", Why: "fees, 2 % of the pay, rest of the stake"}
	for i := range after {
		l := &after[i]
		l.Change -= was[l.Address]
		burned.Change -= l.Change
		switch {
		case l.Who == "you":
			l.Why = "paid for checked results"
		case l.Address == cheater.Address():
			l.Why = "cheated, was caught, lost its stake"
		case l.Who == "authority" && l.Change > 0:
			l.Why = "re-executed in court"
		case l.Change > 0:
			l.Why = "earned"
		case l.Change < 0:
			l.Why = "fees of its claims"
		default:
			l.Why = "had nothing to do"
		}
	}
	return append(after, burned)
}

func printDemo(w io.Writer, r demoReport) {
	fmt.Fprintf(w, "\n%s cheated (%s) and was caught in job %d: it lost %s\n\n", r.Cheater.Short(), r.Strategy, r.Jobs, creditText(r.Lost))
	rows := [][]string{{"WHO", "CREDITS", "WHY"}}
	for _, l := range r.Ledger {
		rows = append(rows, []string{l.Who, changeText(l.Change), l.Why})
	}
	table(w, "  ", rows)
	fmt.Fprintln(w, "\nreceipt, checked offline")
	for _, c := range r.Checks {
		verdict := "ok    "
		if !c.OK {
			verdict = "FAILED"
		}
		fmt.Fprintf(w, "  %s  %s\n", verdict, clean(c.Name))
	}
	native := ""
	if r.Native {
		native = "   byte for byte what the program gives natively"
	}
	fmt.Fprintf(w, "\npicture  %s%s\nreceipt  %s   check it again: crowd receipt verify %s\n", r.Picture, native, r.Receipt, r.Receipt)
}
