// Command crowd runs programs on machines that nobody needs to trust. It is the
// only place that knows flags, environment and files; it reaches a node only
// through its JSON-RPC interface, and has no logic of jobs, money or proofs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// env is all of the process and of the other rooms that the commands use.
type env struct {
	args           []string // without the program's name
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	terminal       bool             // stderr is one: progress may move
	seen           bool             // stdout is a terminal: people see it
	interrupts     <-chan os.Signal // Ctrl-C and the like; capacity for two that come at once

	// What other rooms supply; nil means that this binary is built without it.
	startNetwork  func(context.Context, upConfig) (network, error)
	verifyReceipt func(receipt, genesis, leaves []byte) ([]Check, error)
	itemReceipt   func(receipt, leaves []byte, item uint32, stdout, stderr []byte) ([]byte, error)
	joinNetwork   func(context.Context, joinConfig) (joined, error)
	demo          func() (demoAssets, error)
	checkProgram  func(code []byte, memory uint64) error // why executors refuse a program under that memory limit (0: any limit)
	wasmWorker    func() int
}

// Exit codes.
const (
	exitDone = iota
	exitFailed
	exitMisused
)

func main() {
	os.Exit(run(context.Background(), process().withParts()))
}

// withParts is e with what the other rooms supply.
func (e env) withParts() env {
	e.startNetwork, e.joinNetwork = startNetwork(e.getenv), joinNetwork(e.getenv)
	e.verifyReceipt, e.itemReceipt, e.demo, e.wasmWorker = verifyReceipt(e.getenv), itemReceipt, builtAssets, wasmWorker
	e.checkProgram = checkModule
	return e
}

// process is the env of the real process.
func process() env {
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	return env{
		args:       os.Args[1:],
		stdin:      os.Stdin,
		stdout:     os.Stdout,
		stderr:     os.Stderr,
		getenv:     os.Getenv,
		terminal:   term.IsTerminal(int(os.Stderr.Fd())),
		seen:       term.IsTerminal(int(os.Stdout.Fd())),
		interrupts: interrupts,
	}
}

// run is the whole program: it touches nothing that is not in e or named by it.
func run(ctx context.Context, e env) int {
	a := &app{env: e}
	root := a.root()
	root.SetArgs(e.args)
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	var misuse *usageError
	var border *rpc.Error
	switch {
	case errors.As(err, &misuse), !a.begun:
		hint := "see: " + cmd.CommandPath() + " --help"
		if misuse != nil && misuse.hint != "" {
			hint = misuse.hint
		}
		a.json = a.json || jsonAsked(e.args) // the flags may have been read up to the misuse alone
		a.complain(complaint{rpc.BadRequest, err.Error(), hint})
		return exitMisused
	case errors.Is(err, errSaid):
	case errors.As(err, &border):
		a.complain(complaint{border.Kind, err.Error(), forUser(border.Hint, cmd)})
	case errors.Is(err, context.Canceled):
		a.complain(complaint{rpc.Conflict, "interrupted", ""})
	default:
		a.complain(complaint{ownKind(err), err.Error(), ""})
	}
	return exitFailed
}

// jsonAsked reports whether --json stands among the flags of a command line.
func jsonAsked(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json")
}

// ownKind is the kind of an error that this program met itself, most often with a file.
func ownKind(err error) rpc.Kind {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return rpc.NotFound
	case errors.Is(err, fs.ErrPermission):
		return rpc.Forbidden
	case errors.Is(err, fs.ErrExist):
		return rpc.Conflict
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return rpc.Unavailable
	}
	return rpc.Internal
}

// forUser is a node's hint in the terms of the command line, where it is one for programs.
func forUser(hint string, cmd *cobra.Command) string {
	switch {
	case strings.Contains(hint, "rpc.discover"):
		return "see: " + cmd.CommandPath() + " --help"
	case strings.Contains(hint, "crowd_jobs"):
		return "see: crowd job list"
	case strings.Contains(hint, "crowd_planBatch"):
		return "see: crowd plan --help"
	}
	return hint
}

// app is one invocation.
type app struct {
	env
	node, tokenFile string // flags
	json            bool
	begun           bool // a command's own code has run: errors are no misuse of flags
}

// errSaid fails without another word.
var errSaid = errors.New("said already")

// usageError is a misuse that only the command's own code can see.
type usageError struct{ text, hint string }

func (e *usageError) Error() string { return e.text }

func misuse(hint, format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), hint}
}

// notBuilt is the honest answer of a binary without the part.
func notBuilt(what string) error {
	return &rpc.Error{Kind: rpc.Unavailable, Err: fmt.Errorf("%s: not built into this binary", what), Hint: "use a binary that is built with it"}
}

// complaint is why a command failed, and what to do.
type complaint struct {
	Kind    rpc.Kind `json:"kind"`
	Message string   `json:"message"`
	Hint    string   `json:"hint"`
}

// complain ends the talk of a command that fails: in words, or with --json as one line of JSON.
func (a *app) complain(f complaint) {
	if a.json {
		enc := json.NewEncoder(a.stderr)
		enc.SetEscapeHTML(false)
		enc.Encode(f) // if stderr is closed, the error has no place to go
		return
	}
	fmt.Fprintf(a.stderr, "crowd: %s\n", clean(f.Message))
	if f.Hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", clean(f.Hint))
	}
}

// say talks to the user, line by line; never on stdout.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.stderr, clean(fmt.Sprintf(format, args...)))
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "crowd",
		Args:  cobra.ArbitraryArgs, // RunE answers an unknown command itself, with a suggestion
		Short: "Run programs on machines that you neither own nor trust",
		Long: `Run programs on machines that you neither own nor trust, and get the result with
a receipt that says how sure you can be.

Results go to stdout, all talk to stderr. --json makes results machine-readable, and of a
failure the last line of stderr: an object with its kind, a message and a hint.
Exit codes: 0 done, 1 failed, 2 misused.`,
		Example: `  crowd up                                   a network on this machine
  crowd node run --network network.json      a node of somebody's network
  crowd run blur.wasm --in photo.png --out out.png -- --radius 8
  crowd job list
  crowd receipt verify receipt.json`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},

		DisableSuggestions: true, // they come in lines of their own
	}
	asked := false
	root.Flags().BoolVar(&asked, "version", false, "print the version of this program")
	root.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			hint := "see: crowd --help"
			if near := nearest(args[0], namesBelow(c)); near != "" {
				hint = fmt.Sprintf("did you mean: crowd %s? %s", near, hint)
			}
			return misuse(hint, "unknown command %q", args[0])
		}
		if a.begun = true; asked {
			return a.sayVersion()
		}
		return c.Help()
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.node, "node", "", "the node to use: its folder or URL (default $CROWD_NODE, else the local network)")
	flags.StringVar(&a.tokenFile, "token-file", "", "file with the token for a node's URL (default: the token in $CROWD_TOKEN)")
	flags.BoolVar(&a.json, "json", false, "print the result as JSON")
	root.AddGroup(&cobra.Group{ID: "work", Title: "Run:"}, &cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "net", Title: "Network:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("work", a.runCommand(), a.mapCommand(), a.planCommand(), a.jobCommand(), a.receiptCommand())
	add("look", a.infoCommand(), a.accountCommand(), a.providerCommand(), a.reputationCommand(), a.peersCommand(), a.findCommand(), a.doctorCommand())
	add("net", a.upCommand(), a.nodeCommand(), a.networkCommand(), a.sendCommand(), a.demoCommand(), a.simCommand())
	root.AddCommand(a.versionCommand(), a.workerCommand())
	root.SetFlagErrorFunc(flagError)
	onlyOnce(root)
	return root
}

// noun is a command that only has verbs.
func noun(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs}
	var names []string
	for _, v := range verbs {
		c.AddCommand(v)
		names = append(names, v.Name())
	}
	known := fmt.Sprintf("crowd %s knows: %s", use, strings.Join(names, ", "))
	c.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return misuse(known, "crowd %s: a verb is missing", use)
		}
		hint := known
		if near := nearest(args[0], namesBelow(c)); near != "" {
			hint = fmt.Sprintf("did you mean: crowd %s %s? %s", use, near, known)
		}
		return misuse(hint, "crowd %s: unknown verb %q", use, args[0])
	}
	return c
}

// until runs f with a context that the first interrupt cancels. A second one does
// not wait for f any more.
func (a *app) until(f func(cmd *cobra.Command, ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.begun = true
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		ended := make(chan error, 1) // capacity: f may end when nobody waits
		go func() { ended <- f(cmd, ctx, args) }()
		for interrupts := 0; ; {
			select {
			case err := <-ended:
				if interrupts > 0 && errors.Is(err, context.Canceled) {
					return context.Canceled // without what was being done: the user knows
				}
				return err
			case <-a.interrupts:
				if interrupts++; interrupts > 1 {
					return context.Canceled
				}
				cancel()
			}
		}
	}
}

// with is until for a command that talks to a node.
func (a *app) with(f func(ctx context.Context, c *rpc.Client, args []string) error) func(*cobra.Command, []string) error {
	return a.until(func(_ *cobra.Command, ctx context.Context, args []string) error {
		c, err := a.connect(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		return f(ctx, c, args)
	})
}

// version of this program, as Go's build stamped it; without a stamp, the rules that it has and, where it is known, the commit.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return strings.TrimSuffix(fmt.Sprintf("rules-%d+%.12s", crowd.RulesVersion, commit()), "+")
}

// commit that this program was built from; "" where the build did not stamp it.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

// sayVersion prints what crowd version and crowd --version print.
func (a *app) sayVersion() error {
	v := struct {
		Version string `json:"version"`
		Commit  string `json:"commit"` // "" where it is not known
		Rules   uint64 `json:"rules"`
		Go      string `json:"go"`
	}{version(), commit(), uint64(crowd.RulesVersion), runtime.Version()}
	return a.result(v, func(w io.Writer) {
		at := "unknown commit"
		if v.Commit != "" {
			at = fmt.Sprintf("commit %.12s", v.Commit)
		}
		fmt.Fprintf(w, "crowd %s, %s, rules %d, %s\n", v.Version, at, v.Rules, v.Go)
	})
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs,
		Example: "  crowd version --json",
		RunE: func(*cobra.Command, []string) error {
			a.begun = true
			return a.sayVersion()
		},
	}
}

func (a *app) workerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "wasm-worker", Short: "Run guests for a node; started by it", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			a.begun = true
			if a.wasmWorker == nil {
				return notBuilt("wasm-worker")
			}
			if a.wasmWorker() != 0 {
				return errSaid
			}
			return nil
		},
	}
}
