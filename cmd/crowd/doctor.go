package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd/internal/rpc"
)

const (
	// minDisk is the free space below which a node soon stops, in bytes.
	minDisk = 1 << 30
	// needed is how many providers a pair takes.
	needed = 2
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check that all is well, and say what to do where not", Args: cobra.NoArgs,
		Example: "  crowd doctor",
		RunE: a.until(func(_ *cobra.Command, ctx context.Context, _ []string) error {
			checks := a.examine(ctx)
			if err := a.result(checks, func(w io.Writer) { printChecks(w, checks) }); err != nil {
				return err
			}
			return checksError("doctor", checks)
		}),
	}
}

// examine looks at the node from outside in; what cannot be seen is not listed.
func (a *app) examine(ctx context.Context) (checks []Check) {
	add := func(name string, ok bool, format string, args ...any) {
		checks = append(checks, Check{name, ok, fmt.Sprintf(format, args...)})
	}
	fail := func(name string, err error) {
		detail := err.Error()
		var e *rpc.Error
		if errors.As(err, &e) && e.Hint != "" {
			detail += "; " + e.Hint
		}
		add(name, false, "%s", detail)
	}
	target, isURL, err := a.target()
	if err != nil {
		fail("folder", err)
		return checks
	}
	if !isURL {
		if info, err := os.Stat(target); err != nil {
			add("folder", false, "%v; it is made by: crowd up", err)
		} else {
			owner, me := os.Geteuid(), os.Geteuid()
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				owner = int(st.Uid)
			}
			check, ours := folderCheck(target, info.Mode().Perm(), owner, me)
			if checks = append(checks, check); !ours {
				return checks
			}
			if _, err := rpc.ReadToken(filepath.Join(target, "token")); err != nil {
				fail("token", err)
			} else {
				add("token", true, "readable only by you")
			}
			var fsys unix.Statfs_t
			if err := unix.Statfs(target, &fsys); err == nil {
				free := int64(fsys.Bavail) * int64(fsys.Bsize)
				add("disk", free >= minDisk, "%s free%s", sizeText(free), unless(free >= minDisk, "; free some: a node needs at least 1 GiB"))
			}
		}
	}
	start := time.Now()
	c, err := a.connect(ctx)
	if err != nil {
		fail("node", err)
		return checks
	}
	defer c.Close()
	info, err := c.Info(ctx)
	if err != nil {
		fail("node", err)
		return checks
	}
	add("node", true, "%s answers in %v", info.Node.Short(), time.Since(start).Round(time.Millisecond))
	young := time.Since(info.Started) < time.Minute // its first transaction makes the first block
	add("chain", info.Height > 0 || young, "%s, block %d%s", info.Chain, info.Height, unless(info.Height > 0, "; no block yet: if this does not change with your first job, are the authorities running?"))
	checks = append(checks, ruleChecks(info)...)
	if st, err := c.Status(ctx); err != nil {
		fail("load", err)
	} else {
		checks = append(checks, loadCheck(st.Load))
	}
	add("peers", info.Peers > 0, "%d connected%s", info.Peers, unless(info.Peers > 0, "; nobody can be reached: check the network and the firewall"))
	if list, err := c.Providers(ctx); err != nil {
		fail("providers", err)
	} else {
		ready := 0
		for _, p := range list {
			if p.Online && p.Suspended == "" {
				ready++
			}
		}
		add("providers", ready >= needed, "%d of %d can be drawn%s", ready, len(list), unless(ready >= needed, "; a checked job takes 2"))
	}
	if account, err := c.Account(ctx, info.Address); err != nil {
		fail("account", err)
	} else {
		add("account", account.Balance > 0, "%s%s", creditText(account.Balance), unless(account.Balance > 0, "; fund "+info.Address.String()))
	}
	return checks
}

// folderCheck says whether the folder of a node is as it should be, and whether user me can see more of that node.
func folderCheck(dir string, mode fs.FileMode, owner, me int) (c Check, ours bool) {
	if owner != me && me != 0 {
		name := fmt.Sprintf("the user number %d", owner)
		if u, err := user.LookupId(fmt.Sprint(owner)); err == nil {
			name = u.Username
		}
		return Check{"folder", false, fmt.Sprintf("%s belongs to %s, and only they can see how its node is: run crowd doctor as that user, "+
			"or name a node of your own with --node", dir, name)}, false
	}
	private := mode&0o077 == 0
	return Check{"folder", private, fmt.Sprintf("%s, mode %04o%s", dir, mode, unless(private, "; make it private with: chmod 700 "+dir))}, true
}

// mostLost is how often a stream from a full node may end in five minutes: one may restart.
const mostLost = 3

// loadCheck says whether the node keeps up with the chain.
func loadCheck(l rpc.Load) Check {
	ok := l.Lost <= mostLost
	return Check{"load", ok, fmt.Sprintf("%d own jobs at work, %s of memory, %d open files", l.Jobs, sizeText(int64(l.Memory)), l.Files) +
		unless(ok, fmt.Sprintf("; the connection to the chain was lost %d times in five minutes: this machine or the network is too busy, "+
			"so run fewer jobs at a time (crowd map --parallel) until this check passes", l.Lost))}
}

// ruleChecks are about the rules of the network: whether the node has them, and whether the ledger broke any of its own.
func ruleChecks(info rpc.Info) []Check {
	same := info.Rules.Build == info.Rules.Network
	checks := []Check{{"rules", same, fmt.Sprintf("number %d", info.Rules.Build) + unless(same, fmt.Sprintf(", but the network executes by number %d: this node takes part in no job but its own, "+
		"and earns nothing; install a build of crowd with the network's rules", info.Rules.Network))}}
	if info.Bugs > 0 {
		checks = append(checks, Check{"ledger", false, fmt.Sprintf("it met %d errors of its own since this node started, and went on without what caused them; "+
			"report what the node's log says after \"bug:\"", info.Bugs)})
	}
	return checks
}

func unless(ok bool, advice string) string {
	if ok {
		return ""
	}
	return advice
}
