package main

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd/internal/rpc"
)

func TestRuleChecks(t *testing.T) {
	for _, c := range []struct {
		name string
		info rpc.Info
		want string // part of the one that is not well; "": all is well
	}{
		{"the network's rules", rpc.Info{Rules: rpc.Rules{Network: 3, Build: 3}}, ""},
		{"an old build", rpc.Info{Rules: rpc.Rules{Network: 4, Build: 3}}, "number 3, but the network executes by number 4: this node takes part in no job but its own, and earns nothing; install"},
		{"bugs", rpc.Info{Rules: rpc.Rules{Network: 3, Build: 3}, Bugs: 2}, "met 2 errors of its own"},
	} {
		var bad []string
		for _, x := range ruleChecks(c.info) {
			if !x.OK {
				bad = append(bad, x.Detail)
			}
		}
		if c.want == "" && len(bad) > 0 || c.want != "" && (len(bad) != 1 || !strings.Contains(bad[0], c.want)) {
			t.Errorf("%s: got %q, want %q", c.name, bad, c.want)
		}
	}
}

func TestLoadCheck(t *testing.T) {
	for _, c := range []struct {
		lost int
		ok   bool
	}{{0, true}, {mostLost, true}, {mostLost + 1, false}} {
		got := loadCheck(rpc.Load{Jobs: 2, Memory: 3 << 20, Lost: c.lost})
		if got.OK != c.ok || strings.Contains(got.Detail, "lost") == c.ok || !strings.HasPrefix(got.Detail, "2 own jobs at work, 3 MiB of memory") {
			t.Errorf("%d streams lost: got %+v, want ok %v", c.lost, got, c.ok)
		}
	}
}

func TestFolderCheck(t *testing.T) {
	for _, c := range []struct {
		name      string
		mode      fs.FileMode
		owner, me int
		ok, ours  bool
		want      string
	}{
		{"one's own", 0o700, 1, 1, true, true, "/d, mode 0700"},
		{"open", 0o755, 1, 1, false, true, "chmod 700 /d"},
		{"root looks at another's", 0o700, 1, 0, true, true, "/d, mode 0700"},
		{"another's", 0o700, 0, 1, false, false, "/d belongs to root, and only they can see how its node is: run crowd doctor as that user"},
		{"a stranger's", 0o700, 7654321, 1, false, false, "/d belongs to the user number 7654321"},
	} {
		got, ours := folderCheck("/d", c.mode, c.owner, c.me)
		if got.OK != c.ok || ours != c.ours || !strings.Contains(got.Detail, c.want) {
			t.Errorf("%s: got %+v, %v; want %v, %v, %q", c.name, got, ours, c.ok, c.ours, c.want)
		}
	}
}
