package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crowdcompute/crowd/internal/rpc"
)

// dialTimeout is how long a node may take to say who it is.
const dialTimeout = 10 * time.Second

// defaultDir is the folder of the local network: XDG's place for a user's data.
// There is none without a home: keys and credits do not go into the folder that happens to be the current one.
func (a *app) defaultDir() (string, error) {
	base := a.getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(base) {
		home := a.getenv("HOME")
		if !filepath.IsAbs(home) {
			return "", &rpc.Error{Kind: rpc.BadRequest, Err: fmt.Errorf("find the folder for keys and credits: $HOME "+
				"is %q, want an absolute path", home),
				Hint: "set HOME, or XDG_DATA_HOME, or name the folder: --dir for crowd up and crowd node run, --node " +
					"or $CROWD_NODE for the others"}
		}
		base = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(base, "crowd", "local"), nil
}

// target is the node that the user means: a URL or a folder.
func (a *app) target() (target string, isURL bool, err error) {
	target = a.node
	if target == "" {
		target = a.getenv("CROWD_NODE")
	}
	if target == "" {
		target, err = a.defaultDir()
	}
	return target, strings.Contains(target, "://"), err
}

func (a *app) endpoint() (rpc.Endpoint, error) {
	target, isURL, err := a.target()
	if err != nil {
		return rpc.Endpoint{}, err
	}
	if !isURL {
		end, err := rpc.Discover(target)
		var e *rpc.Error
		if errors.As(err, &e) && e.Kind == rpc.Unavailable {
			e.Hint = a.noNodeHint(target)
		}
		return end, err
	}
	end := rpc.Endpoint{URL: target, Token: a.getenv("CROWD_TOKEN")}
	if a.tokenFile != "" {
		token, err := rpc.ReadToken(a.tokenFile)
		if err != nil {
			return end, err
		}
		end.Token = token
	}
	return end, nil
}

// noNodeHint says what to do where no node runs in the folder dir.
func (a *app) noNodeHint(dir string) string {
	local, err := a.defaultDir()
	if err == nil && dir == local {
		if node := filepath.Join(filepath.Dir(local), nodeDir); runsIn(node) {
			return fmt.Sprintf("a node runs in %s; use it with: export CROWD_NODE=%s", node, node)
		}
		return "start one with: crowd up; if one runs in another folder, name that: export CROWD_NODE=FOLDER, or --node FOLDER"
	}
	if isNodeDir(dir) {
		return "start it with: crowd node run --dir " + dir
	}
	return "start one with: crowd up --dir " + dir
}

// nodeDir is the folder of crowd node run, beside that of the local network.
const nodeDir = "node"

func runsIn(dir string) bool {
	_, err := rpc.Discover(dir)
	return rpc.KindOf(err) != rpc.Unavailable // whatever else may be wrong with it
}

// isNodeDir reports whether crowd node run made the folder: it keeps its network's file, and no network of its own.
func isNodeDir(dir string) bool {
	_, network := os.Stat(filepath.Join(dir, networkFile))
	_, genesis := os.Stat(filepath.Join(dir, "genesis"))
	return network == nil && errors.Is(genesis, fs.ErrNotExist)
}

func (a *app) connect(ctx context.Context) (*rpc.Client, error) {
	end, err := a.endpoint()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := rpc.Dial(ctx, end)
	var e *rpc.Error
	if errors.As(err, &e) {
		switch {
		case e.Kind == rpc.Unauthorized:
			e.Hint = "give the token with --token-file FILE or in $CROWD_TOKEN; it is in the file 'token' in the node's folder"
		case e.Kind == rpc.Unavailable && end.Socket == "":
			e.Hint = "is a node running at " + end.URL + "? start one here with: crowd up"
		}
	}
	return c, err
}
