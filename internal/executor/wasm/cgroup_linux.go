package wasm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
)

// cgroup bounds the memory of one worker. It is there only where a cgroup is
// writable: version 1's memory controller, or version 2 where it is delegated.
type cgroup struct {
	dir  string
	file string // that takes the bound
}

var cgroups atomic.Uint64

// newCgroup makes a cgroup beside this process's own, or returns nil.
func newCgroup() *cgroup {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	for _, l := range strings.Split(string(own), "\n") {
		f := strings.SplitN(l, ":", 3)
		if len(f) != 3 {
			continue
		}
		c := &cgroup{}
		switch f[1] {
		case "":
			c.dir, c.file = "/sys/fs/cgroup", "memory.max"
		case "memory":
			c.dir, c.file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		c.dir = filepath.Join(c.dir, f[2], fmt.Sprintf("crowd-%d-%d", os.Getpid(), cgroups.Add(1)))
		if os.Mkdir(c.dir, 0o755) != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(c.dir, c.file)); err == nil {
			return c
		}
		os.Remove(c.dir)
	}
	return nil
}

func (c *cgroup) add(pid int) error {
	return os.WriteFile(filepath.Join(c.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

func (c *cgroup) bound(bytes uint64) error {
	return os.WriteFile(filepath.Join(c.dir, c.file), []byte(strconv.FormatUint(bytes, 10)), 0)
}

// remove takes away the empty cgroup once its process has ended.
func (c *cgroup) remove() error {
	if err := os.Remove(c.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
